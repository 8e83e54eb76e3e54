"""Files packed without loss: the file comes back, or an error; JPEGs of every kind; and other people's tools."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import pillow_jxl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lichen.errors import CorruptArchive
from lichen.pipeline.pictures.packing import LEAST_SAVED, Packed, pack, unpack

DATA = Path(__file__).parents[2] / "data"
PHOTO = (DATA / "samples" / "bep_4f75e72d1769.jpg").read_bytes()
SMALL = (DATA / "messy" / "pil_hopper_orientation_6.jpg").read_bytes()


def jpeg(mode: str = "RGB", size: tuple[int, int] = (160, 120), **settings: object) -> bytes:
    buffer = BytesIO()
    with Image.open(BytesIO(PHOTO)) as image:
        image.resize(size).convert(mode).save(buffer, "JPEG", **settings)
    return buffer.getvalue()


def mpf() -> bytes:
    """Two pictures in one file, as cameras write them."""
    buffer = BytesIO()
    with Image.open(BytesIO(PHOTO)) as image:
        image.save(buffer, "MPO", save_all=True, append_images=[image.resize((64, 48))])
    return buffer.getvalue()


def of_twelve_bits() -> bytes:
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0")
    data[at + 4] = 12
    return bytes(data)


EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\0" + bytes(65_000)
KINDS: dict[str, tuple[bytes, str | None]] = {
    "plain": (jpeg(), "jxl-jpeg"),
    "4:4:4, optimised": (jpeg(subsampling=0, optimize=True), "jxl-jpeg"),
    "grey": (jpeg("L"), "jxl-jpeg"),
    "progressive": (jpeg(progressive=True), "jxl-jpeg"),
    "restart markers": (jpeg(restart_marker_blocks=3), "jxl-jpeg"),
    "progressive with restart markers": (jpeg(progressive=True, restart_marker_rows=1), None),
    "huge EXIF": (jpeg(exif=EXIF), "jxl-jpeg"),
    "comments": (jpeg(comment=b"nothing " * 1000), "jxl-jpeg"),
    "MPF": (mpf(), "jxl-jpeg"),
    "trailing bytes": (jpeg() + b"behind the end" * 5, "jxl-jpeg"),
    "a trailing film": (jpeg() + np.random.default_rng(1).bytes(90_000), None),
    "1x1": (jpeg(size=(1, 1)), "zstd"),
    "CMYK": (jpeg("CMYK"), None),
    "12 bits": (of_twelve_bits(), None),
    "arithmetic coding": ((DATA / "cases" / "jpeg" / "arithmetic.jpg").read_bytes(), None),
    "truncated": (PHOTO[:-2000], None),
    "ends after its header": (PHOTO[:700], None),
    "only a start": (b"\xff\xd8\xff", None),
}
"""What becomes of each; None where it does not matter."""


def back(data: bytes, packed: Packed) -> bytes:
    return unpack(packed.payload, packed.packing, len(data), sha256(data).digest())


@pytest.mark.parametrize("kind", KINDS)
def test_jpegs_come_back_whatever_they_are(kind: str) -> None:
    data, packing = KINDS[kind]
    packed = pack(data)
    assert packing is None or (packed is not None and packed.packing == packing)
    if packed is not None:
        assert back(data, packed) == data
        assert len(packed.payload) <= len(data) * (1 - LEAST_SAVED)


def test_jpegs_save_a_tenth() -> None:
    for path in (DATA / "samples").glob("*.jpg"):
        data = path.read_bytes()
        packed = pack(data)
        assert packed is not None and packed.packing == "jxl-jpeg" and len(packed.payload) < 0.9 * len(data)


def test_every_file_of_the_tests_comes_back() -> None:
    kept = {"jxl-jpeg": 0, "zstd": 0, "plain": 0}
    for path in sorted(DATA.rglob("*")):
        if path.is_file() and path.stat().st_size < 400_000:
            data = path.read_bytes()
            packed = pack(data)
            kept["plain" if packed is None else packed.packing] += 1
            assert packed is None or back(data, packed) == data, path
    assert all(kept.values())


def test_what_transcodes_without_a_word_to_a_mere_picture_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As versions of libjxl did: a JPEG XL file, and no error, but no JPEG in it."""
    honest = pillow_jxl.Encoder

    def silent(**how: object) -> object:
        def encode(data: bytes, width: int, height: int, **_told: object) -> bytes:
            encoder = honest(**{**how, "lossless": False, "quality": 60})
            raw = Image.open(BytesIO(data)).convert("RGB").tobytes()
            made: bytes = encoder(raw, width, height, jpeg_encode=False, exif=None, jumb=None, xmp=None, compress=False)
            return made

        return encode

    monkeypatch.setattr(pillow_jxl, "Encoder", silent)
    packed = pack(PHOTO)
    assert packed is None or packed.packing == "zstd"


def test_large_jpegs_wait_for_a_turn_alone() -> None:
    data = jpeg(size=(160, 120))
    assert (packed := pack(data, max_pixels=160 * 120)) is not None and packed.packing == "jxl-jpeg"
    assert (packed := pack(data, max_pixels=160 * 120 - 1)) is None or packed.packing == "zstd"


@settings(deadline=None)
@given(st.binary(max_size=3000), st.integers(0, 20))
def test_anything_comes_back_from_zstd(data: bytes, repeated: int) -> None:
    whole = data * repeated
    packed = pack(whole)
    assert packed is None or (packed.packing == "zstd" and back(whole, packed) == whole)
    if len(data) > 50 and repeated > 2:
        assert packed is not None


NOISY = np.random.default_rng(5).bytes(40) * 30
PACKED = {name: (data, pack(data)) for name, data in (("zstd", NOISY), ("jxl-jpeg", SMALL))}


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(PACKED)), st.data())
def test_damaged_payloads_are_errors_and_never_another_file(name: str, draw: st.DataObject) -> None:
    data, packed = PACKED[name]
    assert packed is not None and packed.packing == name
    payload = bytearray(packed.payload)
    how = draw.draw(st.sampled_from(["flip", "cut", "insert", "twice"]))
    at = draw.draw(st.integers(0, len(payload) - 1))
    if how == "flip":
        payload[at] ^= 1 << draw.draw(st.integers(0, 7))
    elif how == "cut":
        del payload[at:]
    elif how == "insert":
        payload[at:at] = draw.draw(st.binary(min_size=1, max_size=20))
    else:
        payload += packed.payload
    with suppress(CorruptArchive):  # a bit that nothing depends on leaves the file what it was
        assert unpack(bytes(payload), name, len(data), sha256(data).digest()) == data and how != "cut"


@pytest.mark.parametrize("name", sorted(PACKED))
def test_other_sizes_digests_and_packings_are_refused(name: str) -> None:
    data, packed = PACKED[name]
    assert packed is not None
    digest = sha256(data).digest()
    for size in (0, len(data) - 1, len(data) + 1):
        with pytest.raises(CorruptArchive):
            unpack(packed.payload, name, size, digest)
    with pytest.raises(CorruptArchive, match="SHA-256"):
        unpack(packed.payload, name, len(data), bytes(32))
    for other in ({"zstd", "jxl-jpeg"} - {name}) | {"brotli"}:
        with pytest.raises(CorruptArchive):
            unpack(packed.payload, other, len(data), digest)
    for garbage in (b"", b"\xff\x0a", b"\x28\xb5\x2f\xfd", b"\0\0\0\x0cJXL \r\n\x87\n", bytes(100)):
        with pytest.raises(CorruptArchive):
            unpack(garbage, name, len(data), digest)


def test_bombs_are_refused_before_they_go_off() -> None:
    bomb: bytes = pa.Codec("zstd").compress(bytes(1 << 26), asbytes=True)
    assert len(bomb) < 10_000
    with pytest.raises(CorruptArchive):
        unpack(bomb, "zstd", 1000, bytes(32))
    blank = BytesIO()
    Image.new("RGB", (3000, 3000)).save(blank, "JPEG")
    packed = pack(blank.getvalue())
    assert packed is not None and packed.packing == "jxl-jpeg"
    with pytest.raises(CorruptArchive, match="3000x3000 pixels, more than a JPEG of 9000 bytes"):
        unpack(packed.payload, "jxl-jpeg", 9000, bytes(32))


@pytest.mark.parametrize(("name", "tool"), [("jxl-jpeg", "djxl"), ("zstd", "zstd")])
def test_the_tools_of_the_formats_undo_it(name: str, tool: str, tmp_path: Path) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    data, packed = PACKED[name]
    assert packed is not None
    payload, out = tmp_path / ("a.jxl" if tool == "djxl" else "a.zst"), tmp_path / "a.jpg"
    payload.write_bytes(packed.payload)
    how = [str(payload), str(out)] if tool == "djxl" else ["-d", str(payload), "-o", str(out)]
    subprocess.run([tool, *how], check=True, capture_output=True, timeout=60)
    assert out.read_bytes() == data
