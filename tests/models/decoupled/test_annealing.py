"""Effort: fewer bits at the same quality, from the encoder alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from learned_support import kodak, photograph

from lichen.errors import UsageError
from lichen.models.codec import MAX_EFFORT, MIN_EFFORT
from lichen.models.decoupled import annealing
from lichen.models.decoupled.annealing import PASSES, WHOLE_PIXELS, windows
from lichen.models.decoupled.codec import DecoupledCodec
from lichen.models.perceptual.distortion import Mix
from lichen.models.planes import Plan
from lichen.models.registry import codec_from_files, load_codec


@pytest.fixture(scope="module")
def shipped() -> DecoupledCodec:
    codec = load_codec("s2c-psnr", device="cpu", precision="float32")
    assert isinstance(codec, DecoupledCodec)
    return codec


def cost(codec: DecoupledCodec, picture: np.ndarray, quality: float, effort: int) -> float:
    """Bits of the real bitstream with the weighted error of what it decodes to."""
    (encoded,) = codec.encode([picture], quality, effort=effort)
    (decoded,) = codec_from_files(codec.decoder_files(), precision="float32").decode([encoded.bitstream])
    assert decoded.symbols == encoded.symbols
    error = np.mean((decoded.pixels.astype(float) - picture) ** 2)
    weight = float(codec.network.lagrangian(torch.tensor(quality)))
    return 8 * len(encoded.bitstream) + weight * error * picture.shape[0] * picture.shape[1]


@pytest.mark.parametrize("quality", [25.0, 75.0])
def test_effort_lowers_the_cost(shipped: DecoupledCodec, quality: float) -> None:
    picture = np.ascontiguousarray(kodak()[100:260, 200:392])
    costs = [cost(shipped, picture, quality, effort) for effort in (1, 3, 4, 6)]
    assert costs[0] == costs[1]
    assert costs[2] < 0.99 * costs[1]
    assert costs[3] < 0.998 * costs[2]


def test_the_same_picture_gives_the_same_bytes(codec: DecoupledCodec) -> None:
    picture = np.ascontiguousarray(photograph()[:90, :130])
    assert codec.encode([picture], 60, effort=5) == codec.encode([picture], 60, effort=5)


def test_large_pictures_go_window_by_window(shipped: DecoupledCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.ascontiguousarray(kodak()[:192, :256])
    plain, whole = cost(shipped, picture, 50, 3), cost(shipped, picture, 50, 4)
    monkeypatch.setattr(annealing, "SIDE", 128)
    monkeypatch.setattr(annealing, "WHOLE_PIXELS", 1 << 12)
    parts = cost(shipped, picture, 50, 4)
    assert plain - parts > 0.7 * (plain - whole)


def test_windows_cover_every_picture() -> None:
    small = Plan.of(256, 256)
    assert [chosen for chosen, _ in windows(9, small)] == [slice(0, 8), slice(8, 16)]
    large = Plan.of(1000, 1500)
    assert large.height * large.width > WHOLE_PIXELS
    covered = np.zeros((2, large.height, large.width), dtype=int)
    for chosen, window in windows(2, large):
        covered[chosen, *window.at(1)] += 1
    assert (covered == 1).all()


def test_batches_of_mixed_quality(codec: DecoupledCodec) -> None:
    images = [np.ascontiguousarray(photograph()[i : i + 64, :64]) for i in (0, 50, 99)]
    together = codec.encode(images, [20, 50, 80], effort=4)
    assert [d.symbols for d in codec.decode([e.bitstream for e in together])] == [e.symbols for e in together]


def test_effort_out_of_range(codec: DecoupledCodec) -> None:
    assert len(PASSES) == MAX_EFFORT - MIN_EFFORT + 1
    for effort in (0, 10):
        with pytest.raises(UsageError, match="effort"):
            codec.encode([photograph()[:64, :64]], 50, effort=effort)


def test_effort_aims_at_what_the_codec_was_trained_for() -> None:
    """Less of the codec's own mix for its bits, where less squared error would have cost more of it."""
    picture = np.ascontiguousarray(kodak(1)[100:356, 100:484])
    target = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
    codec = load_codec("s2c-conv", device="cpu", precision="float32")
    assert isinstance(codec, DecoupledCodec)
    mix = codec.mix
    assert mix.perceptual

    def paid(effort: int, aim: Mix) -> float:
        codec.mix = aim
        (encoded,) = codec.encode([picture], 50, effort=effort)
        decoded = torch.from_numpy(codec.decode([encoded.bitstream])[0].pixels.copy()).permute(2, 0, 1)[None].float()
        weight = float(codec.network.lagrangian(torch.tensor(50.0))) * picture.shape[0] * picture.shape[1]
        return 8 * len(encoded.bitstream) + weight * float(mix.distortion(decoded / 255, target))

    plain = paid(3, mix)
    assert paid(5, mix) < paid(4, mix) < min(plain, paid(4, Mix()))
