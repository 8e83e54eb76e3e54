"""The classical codecs and the zoo that names them."""

from __future__ import annotations

import importlib
import io
import json
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lichen.errors import CorruptBitstream, InvalidCodec, UnknownCodec, UnsupportedPicture, UsageError
from lichen.models.classical import CLASSICAL_NAMES, ClassicalCodec, jxl_size, stated_size
from lichen.models.codec import Codec, Pixels, symbol_digest
from lichen.models.registry import codec_from_files, codec_names, load_codec

MAGIC = {
    "jpeg": b"\xff\xd8\xff", "jpegli": b"\xff\xd8\xff", "webp": b"RIFF", "avif": b"ftypavif", "avif-psnr": b"ftypavif",
    "jxl": b"\xff\x0a", "webp-lossless": b"VP8L", "jxl-lossless": b"\xff\x0a",
}  # fmt: skip


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    """A smooth colour field with texture: compressible, and every orientation of it differs."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    base = np.stack([y * 0.9 + x * 0.2, 128 + 90 * np.sin(x / 17), 40 + y * 0.3 + 60 * np.cos(y / 11)], axis=-1)
    pixels: Pixels = np.clip(base + rng.normal(0, 3, base.shape), 0, 255).astype(np.uint8)
    return pixels


def mean_error(a: Pixels, b: Pixels) -> float:
    return float(np.abs(a.astype(np.float32) - b.astype(np.float32)).mean())


@pytest.fixture(params=CLASSICAL_NAMES)
def codec(request: pytest.FixtureRequest) -> Codec:
    return load_codec(request.param)


def test_round_trip_of_mixed_sizes(codec: Codec) -> None:
    images = [picture(h, w, seed=i) for i, (h, w) in enumerate([(1, 1), (64, 48), (1, 70), (33, 2), (130, 97)])]
    encoded = codec.encode(images, 90)
    decoded = codec.decode([item.bitstream for item in encoded])
    assert isinstance(codec, Codec)
    for image, sent, got in zip(images, encoded, decoded, strict=True):
        assert MAGIC[codec.name] in sent.bitstream[:16]
        assert np.array_equal(got.pixels, image) or not codec.name.endswith("lossless")
        assert got.pixels.shape == image.shape
        assert got.pixels.dtype == np.uint8
        assert got.symbols == sent.symbols == symbol_digest(sent.bitstream)
    assert mean_error(images[1], decoded[1].pixels) < 4
    assert mean_error(images[4], decoded[4].pixels) < 4


def test_quality_moves_size_and_error(codec: Codec) -> None:
    image = picture(192, 256)
    qualities = [1.0, 30.0, 60.4, 90.0, 100.0]
    encoded = codec.encode([image] * len(qualities), qualities)
    if codec.name.endswith("lossless"):
        assert len({item.bitstream for item in encoded}) == 1
        return
    sizes = [len(item.bitstream) for item in encoded]
    errors = [mean_error(image, item.pixels) for item in codec.decode([e.bitstream for e in encoded])]
    assert sizes == sorted(sizes)
    assert sizes[0] * 2 < sizes[-1]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 2.5


def test_bitstream_is_an_ordinary_file(codec: Codec) -> None:
    import pillow_jxl  # noqa: F401  (registers the format)

    image = picture(40, 50)
    [encoded] = codec.encode([image], 80)
    [decoded] = codec.decode([encoded.bitstream])
    with Image.open(io.BytesIO(encoded.bitstream)) as opened:
        assert opened.mode == "RGB"
        assert np.array_equal(np.asarray(opened), decoded.pixels)


@pytest.mark.parametrize("quality", [0, 0.99, 100.5, float("nan"), -3, [50, 101], [50]])
def test_bad_quality_is_refused(quality: float | list[float]) -> None:
    with pytest.raises(UsageError):
        load_codec("jpeg").encode([picture(8, 8)] * 2, quality)


def test_bad_arrays_are_refused(codec: Codec) -> None:
    bad = [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
    for image in [*bad, np.zeros((4, 4, 3), np.float32)]:
        with pytest.raises(UsageError):
            codec.encode([image], 50)  # type: ignore[list-item]


def test_too_large_is_refused_in_both_directions(codec: Codec) -> None:
    image = picture(30, 30)
    small = ClassicalCodec(codec.name, max_pixels=899)
    with pytest.raises(UnsupportedPicture):
        small.encode([image], 50)
    [encoded] = codec.encode([image], 50)
    with pytest.raises(CorruptBitstream):
        small.decode([encoded.bitstream])
    with pytest.raises(UnsupportedPicture):
        load_codec("webp").encode([np.zeros((1, 16384, 3), np.uint8)], 50)


def test_declared_giants_are_refused_before_allocation(codec: Codec) -> None:
    [encoded] = codec.encode([picture(16, 16)], 50)
    data = bytearray(encoded.bitstream)
    if codec.name.startswith("jpeg"):
        start = max(data.find(b"\xff\xc2"), data.find(b"\xff\xc0"))
        struct.pack_into(">HH", data, start + 5, 65500, 65500)
    elif codec.name == "webp":
        struct.pack_into("<HH", data, 26, 16383, 16383)
    elif codec.name == "webp-lossless":
        struct.pack_into("<I", data, 21, 16383 | 16383 << 14)
    elif codec.name.startswith("avif"):
        start = data.find(b"ispe")
        struct.pack_into(">II", data, start + 8, 65535, 65535)
    else:
        bits = 0 | 3 << 1 | ((1 << 30) - 1) << 3 | 1 << 33  # not small, 30-bit height, ratio 1:1
        data[2:10] = bits.to_bytes(8, "little")
        assert jxl_size(bytes(data)) == (1 << 30, 1 << 30)
    with pytest.raises(CorruptBitstream):
        codec.decode([bytes(data)])


def test_damaged_bitstreams_raise_or_decode(codec: Codec) -> None:
    """Mutations and truncations end in a picture or in CorruptBitstream, nothing else."""
    rng = np.random.default_rng(7)
    [encoded] = codec.encode([picture(48, 40)], 60)
    outcomes = {"refused": 0, "decoded": 0}
    for round_ in range(250):
        data = bytearray(encoded.bitstream)
        if round_ % 3 == 0:
            del data[int(rng.integers(len(data))) :]
        else:
            reach = 40 if round_ % 3 == 1 else len(data)
            for _ in range(int(rng.integers(1, 4))):
                data[int(rng.integers(min(reach, len(data))))] = int(rng.integers(256))
        try:
            [decoded] = codec.decode([bytes(data)])
        except CorruptBitstream:
            outcomes["refused"] += 1
        else:
            assert decoded.pixels.ndim == 3
            assert decoded.pixels.shape[2] == 3
            assert decoded.symbols == symbol_digest(bytes(data))
            outcomes["decoded"] += 1
    assert outcomes["refused"] > 60


@pytest.mark.parametrize("data", [b"", b"\xff", b"GIF89a" + bytes(40), bytes(100), b"\xff\x0a"])
def test_foreign_bytes_are_refused(codec: Codec, data: bytes) -> None:
    with pytest.raises(CorruptBitstream):
        codec.decode([data])


def test_formats_do_not_read_each_other() -> None:
    image = picture(20, 20)
    streams = {name: load_codec(name).encode([image], 50)[0].bitstream for name in CLASSICAL_NAMES}
    for name in CLASSICAL_NAMES:
        for other in {one for one in CLASSICAL_NAMES if MAGIC[one] != MAGIC[name]}:
            with pytest.raises(CorruptBitstream):
                load_codec(name).decode([streams[other]])


def test_same_bytes_from_many_threads(codec: Codec) -> None:
    images = [picture(60, 50 + i, seed=i) for i in range(6)]
    alone = [codec.encode([image], 70)[0].bitstream for image in images]
    assert [e.bitstream for e in ClassicalCodec(codec.name, threads=3).encode(images, 70)] == alone
    barrier = threading.Barrier(3)

    def work(image: Pixels) -> bytes:
        barrier.wait(timeout=20)
        return codec.encode([image], 70)[0].bitstream

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, images)) == alone


@pytest.mark.parametrize(
    ("width", "height"),
    [(8, 8), (256, 256), (40, 24), (1, 1), (512, 513), (1920, 1080), (3, 2), (9000, 2), (12, 10)],
)
def test_jxl_size_reads_every_header_form(width: int, height: int) -> None:
    [encoded] = load_codec("jxl").encode([np.zeros((height, width, 3), np.uint8)], 10)
    assert jxl_size(encoded.bitstream) == (width, height)


def test_sizes_are_read_from_headers_alone(codec: Codec) -> None:
    """Of half a file, too, which no decoder takes; libavif looks into the data, and Pillow decodes them later."""
    [encoded] = codec.encode([picture(70, 90)], 90)
    half = encoded.bitstream[: len(encoded.bitstream) // 2]
    assert stated_size(encoded.bitstream) == (90, 70)
    assert stated_size(half) == (None if codec.name.startswith("avif") else (90, 70))
    with pytest.raises(CorruptBitstream):
        codec.decode([half])
    others = (b"", b"\xff\x0a", b"\xff\xd8", b"RIFF0000WEBP", b"GIF89a", half[:3])
    assert {stated_size(data) for data in others} == {None}


# --- the zoo -------------------------------------------------------------------------------------


def test_codec_survives_its_files(codec: Codec) -> None:
    restored = codec_from_files(codec.decoder_files())
    assert (restored.name, restored.digest) == (codec.name, codec.digest)
    assert len(codec.digest) == 64


def test_digests_differ() -> None:
    assert len({load_codec(name).digest for name in CLASSICAL_NAMES}) == len(CLASSICAL_NAMES)
    assert set(CLASSICAL_NAMES) <= set(codec_names())


def test_unknown_names_and_placements() -> None:
    with pytest.raises(UnknownCodec, match="webp"):
        load_codec("jpeg2000")
    for placement in ({"device": "tpu"}, {"device": "cpu:1"}, {"device": "cuda:x"}, {"precision": "int3"}):
        with pytest.raises(UsageError):
            load_codec("jpeg", **placement)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"nul",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"family":' + b"9" * 10_000 + b"}",
        b'{"family":["classical"]}',
        b'{"family":"quantum","name":"x"}',
        b'{"family":"classical"}',
        b'{"family":"classical","format":1,"name":["jpeg"]}',
        b'{"family":"classical","format":1,"name":"../x"}',
        b'{"family":"classical","format":2,"name":"jpeg"}',
        b'{"family":"classical","format":true,"name":"jpeg"}',
        b'{"family":"classical","format":1.0,"name":"jpeg"}',
        json.dumps({"family": "classical", "format": 1, "name": "jpeg", "more": 1}).encode(),
        b" " * (1 << 23),
    ],
    ids=range(16),
)
def test_hostile_codec_json(data: bytes) -> None:
    with pytest.raises(InvalidCodec):
        codec_from_files({"json": data})
    with pytest.raises(InvalidCodec):
        codec_from_files({"safetensors": data})


def test_entry_points_add_codecs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real distribution on the path, as an installed third-party package would be."""
    (tmp_path / "moss_codec.py").write_text(
        "from lichen.models.classical import ClassicalCodec\n"
        "def make(*, device, precision):\n    return ClassicalCodec('webp', threads=1)\n"
        "def broken(*, device, precision):\n    return object()\n"
    )
    info = tmp_path / "moss-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: moss\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[lichen.codecs]\nmoss = moss_codec:make\nbroken-moss = moss_codec:broken\njpeg = moss_codec:make\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    assert codec_names().count("jpeg") == 1
    assert "moss" in codec_names()
    assert load_codec("moss").name == "webp"
    assert load_codec("jpeg").name == "jpeg"
    with pytest.raises(InvalidCodec):
        load_codec("broken-moss")


def test_avif_is_tuned_for_the_eye_by_default_and_for_squared_error_by_name() -> None:
    image = picture(96, 128)

    def pillow(tune: str) -> bytes:
        buffer = io.BytesIO()
        settings = {"quality": 60, "speed": 6, "subsampling": "4:4:4", "max_threads": 2, "advanced": {"tune": tune}}
        Image.fromarray(image).save(buffer, "AVIF", **settings)
        return buffer.getvalue()

    for name, tune in (("avif", "iq"), ("avif-psnr", "psnr")):
        assert load_codec(name).encode([image], 60)[0].bitstream == pillow(tune)
        assert f"tune={tune}" in ClassicalCodec(name).settings
