"""Published architectures through the snapped scheme: every symbol the same under noise, batches and threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from learned_support import photograph
from snapped_support import SMALL, lively, snapped_codec
from torch import Tensor, nn

from lichen.errors import CorruptBitstream, InvalidCodec, LichenError
from lichen.models import planes
from lichen.models.bitstream import Section, pack, unpack
from lichen.models.codec import Codec
from lichen.models.device import find_device
from lichen.models.registry import codec_from_files, load_files
from lichen.models.snapped.codec import SnappedCodec
from lichen.models.snapped.network import SteppedNetwork
from lichen.models.snapped.scheme import freeze
from lichen.models.snapped.snapping import GUARD, Player, Recorder


@pytest.fixture(scope="module", params=SMALL)
def codec(request: pytest.FixtureRequest) -> SnappedCodec:
    return snapped_codec(request.param)


def pictures() -> list[np.ndarray]:
    image = photograph()
    return [np.ascontiguousarray(image[i * 8 : i * 8 + 100, i * 16 : i * 16 + 120]) for i in range(3)]


def test_round_trip_of_any_size_from_what_an_archive_carries(codec: SnappedCodec) -> None:
    assert isinstance(codec, Codec)
    decoder = codec_from_files(codec.decoder_files())
    images = [np.ascontiguousarray(photograph()[:h, :w]) for h, w in ((1, 1), (1, 70), (65, 63), (130, 200))]
    encoded = codec.encode(images, 50)
    decoded = decoder.decode([one.bitstream for one in encoded])
    assert [d.symbols for d in decoded] == [e.symbols for e in encoded]
    assert [d.pixels.shape for d in decoded] == [image.shape for image in images]


def test_batches_and_threads_change_no_symbol(codec: SnappedCodec) -> None:
    together = codec.encode(pictures(), 50)
    threads = torch.get_num_threads()
    torch.set_num_threads(3 - min(2, threads))
    try:
        alone = [codec.decode([one.bitstream])[0].symbols for one in together]
    finally:
        torch.set_num_threads(threads)
    assert alone == [one.symbols for one in together]


def test_noise_below_the_guard_changes_no_symbol(codec: SnappedCodec) -> None:
    encoded = codec.encode(pictures(), 50)
    with noise(codec.network, 1e-10):
        decoded = codec.decode([one.bitstream for one in encoded])
    assert [d.symbols for d in decoded] == [e.symbols for e in encoded]


def test_tiles_code_alone(codec: SnappedCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.ascontiguousarray(photograph()[:200, :300])
    monkeypatch.setattr(planes, "UNTILED_PIXELS", 1 << 14)
    monkeypatch.setattr(planes, "TILE_LOG2", 7)
    (encoded,) = codec.encode([image], 50)
    assert len(unpack(encoded.bitstream).sections) == 6
    (decoded,) = codec.decode([encoded.bitstream])
    assert decoded.symbols == encoded.symbols
    assert decoded.pixels.shape == image.shape


def test_damaged_streams_are_refused(codec: SnappedCodec) -> None:
    (encoded,) = codec.encode(pictures()[:1], 50)
    parsed = unpack(encoded.bitstream)
    (section,) = parsed.sections
    random = np.random.default_rng(1)
    fields = {n: getattr(parsed, n) for n in ("codec", "width", "height", "quality", "tile_log2")}
    refused = 0
    for _ in range(40):
        y = bytearray(section.y)
        y[random.integers(0, min(len(y), 12))] ^= 1 << random.integers(0, 8)
        try:
            (decoded,) = codec.decode([pack(type(parsed)(**fields, sections=(Section(z=section.z, y=bytes(y)),)))])
        except LichenError:
            refused += 1
        else:
            assert decoded.pixels.shape == pictures()[0].shape
    assert refused > 10
    with pytest.raises(CorruptBitstream):
        codec.decode([pack(type(parsed)(**fields, sections=(Section(z=section.z, y=section.y[:-2]),)))])


def test_another_machine_that_computes_otherwise_is_told() -> None:
    network = lively("tcm")
    files = freeze(network, "tcm", {})
    with torch.no_grad():
        next(network.entropy_modules()[1].parameters()).mul_(1.5)
    other = freeze(network, "tcm", {})
    with pytest.raises(InvalidCodec):
        load_files({"json": files["json"], "safetensors": other["safetensors"]}, find_device("cpu", "float32"))


# --- snapping -------------------------------------------------------------------------------------


def test_doubtful_values_are_listed_and_taken() -> None:
    values = torch.tensor([0.2, 0.5 - GUARD / 4, -1.5, 7.0, 2.5 + GUARD / 4], dtype=torch.float64)
    recorder = Recorder(2)
    batch = torch.stack([values, values.flip(0)])
    first, second = recorder.snap(batch[:, :2]), recorder.snap(batch[:, 2:])
    data = [recorder.pack(0), recorder.pack(1)]
    assert data[0][0] == data[1][0] == 3
    player = Player([one + b"rest" for one in data])
    assert player.ends == [len(one) for one in data]
    # the decoder's noise takes each doubtful value to the other side
    noise = torch.tensor([0, 1, -1, 0, -1]) * GUARD / 2
    noisy = batch + torch.stack([noise, noise.flip(0)])
    assert torch.equal(player.snap(noisy[:, :2]), first)
    assert torch.equal(player.snap(noisy[:, 2:]), second)
    player.finish()
    with pytest.raises(CorruptBitstream, match="does not exist"):
        Player([data[0]]).finish()


def test_ordinary_values_cost_one_byte() -> None:
    recorder = Recorder(1)
    recorder.snap(torch.linspace(-50, 50, 1001, dtype=torch.float64)[None] + 0.01)
    assert recorder.pack(0) == b"\0"


def test_no_number_is_refused() -> None:
    with pytest.raises(InvalidCodec, match="no numbers"):
        Recorder(1).snap(torch.tensor([[0.0, float("nan")]], dtype=torch.float64))


@contextmanager
def noise(network: SteppedNetwork, relative: float) -> Iterator[None]:
    """Relative noise on what every module of the entropy model returns."""
    generator = torch.Generator().manual_seed(3)

    def disturb(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        if isinstance(output, Tensor) and output.is_floating_point():
            return output * (1 + relative * torch.randn(output.shape, generator=generator, dtype=output.dtype))
        return output

    handles = [m.register_forward_hook(disturb) for part in network.entropy_modules() for m in part.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
