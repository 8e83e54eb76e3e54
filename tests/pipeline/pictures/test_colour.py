"""Colours that PNG chunks state: as a profile wherever the chunks cannot go, and HDR not at all."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures_support import CASES, RGB, chunk, encoded, png_before_pixels, round_trip
from PIL import Image, ImageCms

from lichen.errors import UnsupportedPicture
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.export import export
from lichen.pipeline.pictures.colour import meant_profile
from lichen.pipeline.pictures.reading import read_picture, save_picture
from lichen.pipeline.pictures.saving import not_carried
from lichen.pipeline.select import select

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
SRGB_XY = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
P3_XY = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
ADOBE_XY = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)


def cicp(*numbers: int) -> tuple[bytes, bytes]:
    return b"cICP", bytes(numbers)


def gamma(value: int) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", value)


def chromaticities(values: tuple[float, ...]) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in values))


def profile_of(*chunks: tuple[bytes, bytes]) -> bytes | None:
    profile = round_trip(read_picture(png_before_pixels(*chunks))).info.get("icc_profile")
    assert profile is None or isinstance(profile, bytes)
    return profile


def linear(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def encoded_srgb(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * np.maximum(values, 0) ** (1 / 2.4) - 0.055)


def matrix(xy: tuple[float, ...]) -> np.ndarray:
    """RGB to XYZ."""
    columns = np.array([(x, y, 1 - x - y) for x, y in zip(xy[2::2], xy[3::2], strict=True)]).T
    white = np.array([xy[0] / xy[1], 1, (1 - xy[0] - xy[1]) / xy[1]])
    return columns * np.linalg.solve(columns, white)


@pytest.mark.parametrize(
    ("chunks", "xy", "curve"),
    [
        ((cicp(12, 13, 0, 1),), P3_XY, linear),
        ((gamma(45455), chromaticities(P3_XY)), P3_XY, linear),
        ((gamma(51282), chromaticities(ADOBE_XY)), ADOBE_XY, lambda v: v**1.95),
        ((gamma(100_000),), SRGB_XY, lambda v: v),
        ((chromaticities(P3_XY),), P3_XY, linear),
        ((cicp(12, 4, 0, 1),), P3_XY, lambda v: v**2.2),
    ],
)
def test_profiles_mean_what_the_chunks_say(
    chunks: tuple[tuple[bytes, bytes], ...], xy: tuple[float, ...], curve: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Little CMS turns samples into sRGB with the profile as the formulas do, where sRGB has the colour."""
    profile = profile_of(*chunks)
    assert profile is not None
    samples = np.random.default_rng(1).integers(0, 256, (400, 1, 3), dtype=np.uint8)
    expected = encoded_srgb(curve(samples / 255.0) @ (np.linalg.inv(matrix(SRGB_XY)) @ matrix(xy)).T) * 255
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    image = ImageCms.profileToProfile(Image.fromarray(samples), opened, SRGB, renderingIntent=1)
    assert image is not None
    inside = ((expected > 1) & (expected < 254)).all(axis=2)
    assert inside.sum() > 100
    assert np.abs(np.asarray(image)[inside] - expected[inside]).max() <= 2


def test_colours_that_are_srgb_need_no_profile() -> None:
    for chunks in (
        (),
        (gamma(45455),),
        (gamma(45455), chromaticities(SRGB_XY)),
        (cicp(1, 13, 0, 1),),
        ((b"sRGB", b"\0"), gamma(100_000), chromaticities(P3_XY)),  # sRGB wins
        (gamma(0),),
        (chromaticities((0.3, 0.3) * 4),),  # no colours at all
        (cicp(2, 2, 0, 1),),
    ):
        assert profile_of(*chunks) is None


def test_what_wins() -> None:
    icc = SRGB.tobytes()
    stated = (b"iCCP", b"p\0\0" + zlib.compress(icc))
    assert profile_of(stated, gamma(100_000)) == icc
    assert profile_of(stated, cicp(12, 13, 0, 1)) == profile_of(cicp(12, 13, 0, 1))
    assert profile_of(stated, cicp(1, 13, 0, 1)) is None
    assert profile_of(stated, cicp(2, 2, 0, 1)) == icc


def test_grey_pictures_get_a_grey_profile() -> None:
    blocks = (("png:gAMA", struct.pack(">I", 100_000)),)
    profile = meant_profile(None, blocks, grey=True)
    assert profile is not None
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    assert opened.profile.xcolor_space.strip() == "GRAY"
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    image = ImageCms.profileToProfile(ramp, opened, SRGB, outputMode="RGB", renderingIntent=1)
    expected = encoded_srgb(np.arange(256) / 255.0) * 255
    # Little CMS takes a table of few points for grey, which is coarse where the curve is steep.
    assert np.abs(np.asarray(image)[0, 16:, 1] - expected[16:]).max() <= 2


@pytest.mark.parametrize(
    ("chunk_", "reason"),
    [
        (cicp(9, 16, 0, 1), "PQ"),
        (cicp(9, 18, 0, 1), "HLG"),
        ((b"mDCV", bytes(24)), "HDR"),
        ((b"cLLI", bytes(8)), "HDR"),
        (cicp(1, 13, 0, 0), "narrow"),
        (cicp(1, 13, 1, 1), "narrow|other than RGB"),
        (cicp(1, 17, 0, 1), "1/17"),
        (cicp(77, 13, 0, 1), "77/13"),
        (cicp(1, 13, 0), "length"),
    ],
)
def test_what_no_profile_says_is_kept_as_it_is(chunk_: tuple[bytes, bytes], reason: str) -> None:
    with pytest.raises(UnsupportedPicture, match=reason):
        read_picture(png_before_pixels(chunk_))


def test_the_cases() -> None:
    files = {path.stem: path.read_bytes() for path in (CASES / "colour").iterdir()}
    assert round_trip(read_picture(files["plain"])).info.get("icc_profile") is None
    p3 = round_trip(read_picture(files["cicp_p3"])).info["icc_profile"]
    assert p3 == profile_of(cicp(12, 13, 0, 1))
    with pytest.raises(UnsupportedPicture, match="PQ"):
        read_picture(files["cicp_pq"])


def test_colours_survive_every_way_out(write_archive: Callable[..., str], tmp_path: Path) -> None:
    data = (CASES / "colour" / "cicp_p3.png").read_bytes()
    expected = profile_of(cicp(12, 13, 0, 1))
    url = write_archive(tmp_path / "archive", {"a.png": data})
    archive = Archive.open(url)
    assert archive.row("a.png").status == "compressed"
    assert archive["a.png"].info["icc_profile"] == expected
    for file_format, name in (("png", "a.png"), ("jpeg", "a.jpg")):
        result = export(archive, select(archive, ()), tmp_path, file_format=file_format)  # type: ignore[arg-type]
        assert (result.written, result.not_carried) == (1, {})
        with Image.open(tmp_path / name) as image:
            assert image.info.get("icc_profile") == (None if file_format == "png" else expected)
    assert chunk(*cicp(12, 13, 0, 1)) in (tmp_path / "a.png").read_bytes()


def test_what_formats_cannot_carry() -> None:
    blocks = (
        ("jpeg:COM", b"hello"),
        ("jpeg:APP13", b"Photoshop 3.0\0"),
        ("jpeg:APP0", b"JFIF\0\1\1" + struct.pack(">BHH", 1, 300, 300) + bytes(2)),
        ("jpeg:trailer", b"tail"),
        ("png:tEXt", b"Title\0x"),
        ("png:gAMA", struct.pack(">I", 100_000)),
        ("tiff:IPTC", b"x"),
    )
    assert not_carried(blocks, "PNG") == {"comments", "IPTC and Photoshop data", "data behind the picture"}
    assert not_carried(blocks, "JPEG") == {"IPTC and Photoshop data", "data behind the picture", "texts"}
    assert not_carried(blocks[:3], "JPEG") == set()
    ratio = ("png:pHYs", struct.pack(">IIB", 1, 2, 0))
    assert (not_carried((ratio,), "PNG"), not_carried((ratio,), "JPEG")) == ({"density"}, {"density"})


def test_what_is_called_carried_is_there(tmp_path: Path) -> None:
    """``not_carried`` and ``save_picture`` agree, whatever the chunk or segment."""
    chunks = [b"sBIT", b"tIME", b"bKGD", b"tEXt", b"gAMA", b"sRGB", b"oFFs", b"sCAL", b"sTER", b"prVt", b"pHYs"]
    contents = {b"pHYs": struct.pack(">IIB", 3000, 3000, 1), b"tEXt": b"Title\0x", b"sBIT": bytes([8, 8, 8])}
    blocks = tuple((f"png:{kind.decode()}", contents.get(kind, bytes(6))) for kind in chunks)
    blocks += tuple((f"jpeg:APP{number}", f"data{number};".encode()) for number in range(1, 16))
    blocks += (("jpeg:COM", b"hello"),)
    for file_format in ("PNG", "JPEG"):
        buffer = io.BytesIO()
        save_picture(Image.fromarray(RGB), buffer, file_format, blocks=blocks)
        left = not_carried(blocks, file_format)
        for name, content in blocks:
            written = name[4:].encode() + content if name.startswith("png:") else content
            carried = name not in left and {"png:tEXt": "texts", "png:tIME": "time of change"}.get(name) not in left
            carried &= {"jpeg:COM": "comments", "jpeg:APP13": "IPTC and Photoshop data"}.get(name) not in left
            if file_format == "JPEG" and name in ("png:gAMA", "png:sRGB", "png:pHYs"):
                continue  # a profile and JFIF's density
            assert carried == (written in buffer.getvalue()), (file_format, name)


@given(
    st.binary(min_size=4, max_size=4), st.binary(min_size=4, max_size=4), st.lists(st.integers(0, 120_000), min_size=8)
)
def test_any_chunks_make_a_profile_that_opens_or_none(code: bytes, power: bytes, numbers: list[int]) -> None:
    stated = struct.pack(">8I", *numbers[:8])
    for grey in (False, True):
        for blocks in ((("png:cICP", code),), (("png:gAMA", power), ("png:cHRM", stated)), (("png:cHRM", stated),)):
            profile = meant_profile(None, blocks, grey=grey)
            if profile is not None:
                assert ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.version == pytest.approx(4.3)


def test_densities_that_no_format_has_are_told_and_stop_nothing() -> None:
    for unit in (struct.pack(">IIB", 1 << 31, 1 << 31, 1), struct.pack(">IIB", 0, 0, 1)):
        blocks = (("png:pHYs", unit),)
        for file_format in ("PNG", "JPEG"):
            save_picture(Image.fromarray(RGB), io.BytesIO(), file_format, blocks=blocks)
            assert not_carried(blocks, file_format) == {"density"}


def test_density_goes_from_one_format_to_another() -> None:
    picture = read_picture(encoded(Image.fromarray(RGB), "PNG", dpi=(300, 300)))
    buffer = io.BytesIO()
    save_picture(round_trip(picture), buffer, "JPEG", blocks=picture.blocks)
    with Image.open(buffer) as image:
        assert [round(value) for value in image.info["dpi"]] == [300, 300]
