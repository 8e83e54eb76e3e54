import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lichen.errors import JobError, UsageError, VerificationFailed
from lichen.jobs.evaluate import (
    KODAK,
    Curve,
    RDPoint,
    compare,
    evaluate,
    is_kodak,
    load_pictures,
    rd_points,
    read_anchors,
)
from lichen.jobs.measures import MEASURES, available, butteraugli
from lichen.jobs.plots import plot_rd
from lichen.models.classical import ClassicalCodec
from lichen.models.codec import Decoded, Encoded, Pixels
from lichen.pipeline.measures.ssimulacra2 import ssimulacra2

KODAK_FOLDER = Path(__file__).parents[1] / "data" / "kodak"


def gradient(height: int, width: int) -> Pixels:
    """A smooth picture with some noise, so that rate and quality both move with the quality."""
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([x * 200 / width, y * 200 / height, (x + y) * 100 / (width + height)], axis=-1)
    return (base + np.random.default_rng(7).normal(20, 6, base.shape)).clip(0, 255).astype(np.uint8)


class OtherSymbols(ClassicalCodec):
    """JPEG whose decoder claims to have read other symbols than were written."""

    def decode(self, bitstreams: Sequence[bytes]) -> list[Decoded]:
        return [replace(one, symbols=bytes(16)) for one in super().decode(bitstreams)]


class Sideways(ClassicalCodec):
    """JPEG whose decoder returns the picture transposed."""

    def decode(self, bitstreams: Sequence[bytes]) -> list[Decoded]:
        return [replace(one, pixels=one.pixels.transpose(1, 0, 2)) for one in super().decode(bitstreams)]


class Lossless:
    """A codec that returns every picture unchanged."""

    name, digest = "lossless", "0" * 64

    def encode(self, images: Sequence[Pixels], quality: float | Sequence[float], *, effort: int = 3) -> list[Encoded]:
        return [Encoded(bitstream=b"".join(self._png(image)), symbols=bytes(16)) for image in images]

    def decode(self, bitstreams: Sequence[bytes]) -> list[Decoded]:
        opened = [np.asarray(Image.open(io.BytesIO(bitstream))) for bitstream in bitstreams]
        return [Decoded(pixels=pixels, symbols=bytes(16)) for pixels in opened]

    def decoder_files(self) -> Mapping[str, bytes]:
        return {"json": b"{}"}

    @staticmethod
    def _png(image: Pixels) -> list[bytes]:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        return [buffer.getvalue()]


def test_points_are_means_over_the_pictures_of_real_bytes() -> None:
    images = [gradient(64, 80), gradient(176, 190), gradient(1, 1)]
    codec = ClassicalCodec("jpeg")
    done: list[int] = []
    points = rd_points(codec, images, (30, 80), progress=done.append)
    assert [point.quality for point in points] == [30, 80]
    assert sum(done) == 6
    for point in points:
        rates, psnrs = [], []
        for image in images:
            data = codec.encode([image], point.quality or 0)[0].bitstream
            decoded = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=np.float64)
            rates.append(8 * len(data) / (image.shape[0] * image.shape[1]))
            psnrs.append(10 * np.log10(255**2 / np.mean((decoded - image) ** 2)))
        assert point.bpp == pytest.approx(np.mean(rates))
        assert point.psnr == pytest.approx(np.mean(psnrs), abs=1e-6)
        assert point.ms_ssim is not None and 0.5 < point.ms_ssim < 1  # of the one that is large enough
        assert (point.encode_mp_per_s or 0) > 0 and (point.decode_mp_per_s or 0) > 0
    assert points[0].bpp < points[1].bpp and points[0].psnr < points[1].psnr


def test_every_measure_is_a_mean_and_has_a_comparison() -> None:
    pictures = {"a": gradient(200, 180), "b": gradient(170, 190)}
    rival = ClassicalCodec("webp")
    result = evaluate(
        ClassicalCodec("jpeg"), pictures, qualities=[20, 40, 60, 90], against=[rival], metrics=["psnr", "ssimulacra2"]
    )
    [point] = [one for one in result.curve.points if one.quality == 40]
    codec = ClassicalCodec("jpeg")
    decoded = [codec.decode([codec.encode([image], 40)[0].bitstream])[0].pixels for image in pictures.values()]
    scores = [ssimulacra2(image, other) or 0 for image, other in zip(pictures.values(), decoded, strict=True)]
    assert point.ssimulacra2 == pytest.approx(np.mean(scores))
    assert point.ms_ssim is None and point.butteraugli is None  # nobody asked
    assert [(one.anchor, one.metric) for one in result.comparisons] == [("webp", "psnr"), ("webp", "ssimulacra2")]
    assert result.others[0].source == f"measured now: {rival.settings}"


@pytest.mark.skipif("butteraugli" not in available(), reason="butteraugli_main is not installed")
def test_butteraugli_is_the_programs_own(tmp_path: Path) -> None:
    image = gradient(64, 80)
    worse, worst = (np.asarray(Image.fromarray(image // step * step)) for step in (8, 32))
    assert butteraugli(image, image) == 0
    assert 0 < butteraugli(image, worse) < butteraugli(image, worst)
    curve = Curve(name="x", source="", measured=True, points=(RDPoint(bpp=1, psnr=30, butteraugli=2.5),))
    assert curve.front("butteraugli") == [(1, -2.5)]  # more is better


def test_butteraugli_that_fails_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "butteraugli_main"
    program.write_text("#!/bin/sh\necho no such colour >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert "butteraugli" in available()
    with pytest.raises(JobError, match="no such colour"):
        butteraugli(gradient(8, 8), gradient(8, 8))
    monkeypatch.setenv("PATH", "")
    assert "butteraugli" not in available()


def test_tiny_pictures_have_no_ms_ssim() -> None:
    assert rd_points(ClassicalCodec("jpeg"), [gradient(5, 9)], [50])[0].ms_ssim is None


@pytest.mark.parametrize("codec", [OtherSymbols("jpeg"), Sideways("jpeg")])
def test_a_codec_that_decodes_something_else_is_caught(codec: ClassicalCodec) -> None:
    with pytest.raises(VerificationFailed):
        rd_points(codec, [gradient(20, 30)], [50])


@pytest.mark.parametrize("qualities", [[], [0.5], [50, 101], [float("nan")]])
def test_bad_qualities(qualities: list[float]) -> None:
    with pytest.raises(UsageError):
        rd_points(ClassicalCodec("jpeg"), [gradient(8, 8)], qualities)


def test_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        rd_points(ClassicalCodec("jpeg"), [], [50])
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(UsageError):
        load_pictures(tmp_path)
    with pytest.raises(UsageError):
        load_pictures(tmp_path / "missing")


def test_lossless_points_leave_a_reason_and_strict_json() -> None:
    from lichen.jobs.console import json_text

    result = evaluate(Lossless(), {"a": gradient(40, 40)}, qualities=[10, 90], against=[ClassicalCodec("jpeg")])
    by_psnr = result.comparisons[0]
    assert by_psnr.percent is None and "usable points" in (by_psnr.reason or "")
    document = json.loads(json_text(result), parse_constant=pytest.fail)
    assert document["curve"]["points"][0]["psnr"] is None


def test_kodak_evaluation_compares_and_draws(tmp_path: Path) -> None:
    pictures = load_pictures(KODAK_FOLDER)
    assert len(pictures) == 4 and all(image.size == 768 * 512 * 3 for image in pictures.values())
    codec = ClassicalCodec("webp")
    result = evaluate(codec, pictures, qualities=(5, 40, 80), against=[ClassicalCodec("jpeg"), codec])
    assert [curve.name for curve in result.others] == ["jpeg"]
    by_metric = {one.metric: one for one in result.comparisons}
    # WebP needs about a third fewer bits than JPEG on Kodak.
    assert by_metric["psnr"].percent == pytest.approx(-33, abs=8)
    assert (by_metric["ms_ssim"].percent or 0) < 0
    assert result.megapixels == pytest.approx(4 * 768 * 512 / 1e6)
    plot_rd(result, tmp_path / "rd.png")
    with Image.open(tmp_path / "rd.png") as image:
        assert image.format == "PNG" and image.width > 1000


def test_shipped_anchors_are_for_kodak_only() -> None:
    assert is_kodak(f"{name}.png" for name in KODAK)
    assert not is_kodak(path.name for path in KODAK_FOLDER.iterdir())
    anchors = read_anchors()
    assert len(anchors) >= 15
    assert all(len(curve.points) >= 4 and curve.source and not curve.measured for curve in anchors)
    itself = compare(anchors[0], anchors[0], "psnr")
    assert itself.percent == pytest.approx(0) and itself.overlap == 1
    assert compare(anchors[0], anchors[0], "ms_ssim").reason
    named = {curve.name: curve for curve in anchors}
    for tune in ("iq", "psnr"):
        assert all(named[f"AVIF {tune} (speed 6, 4:4:4)"].front(metric) for metric in MEASURES)
    by_eye = compare(named["AVIF iq (speed 6, 4:4:4)"], named["AVIF psnr (speed 6, 4:4:4)"], "ssimulacra2")
    by_error = compare(named["AVIF iq (speed 6, 4:4:4)"], named["AVIF psnr (speed 6, 4:4:4)"], "psnr")
    assert (by_eye.percent or 0) < 0 < (by_error.percent or 0)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"kodak": []}',
        '{"kodak": {"a": {"bpp": [1], "psnr": []}}}',
        '{"kodak": {"a": {"bpp": [1]}}}',
    ],
)
def test_malformed_anchor_files(tmp_path: Path, content: str) -> None:
    path = tmp_path / "anchors.json"
    path.write_text(content)
    with pytest.raises(UsageError):
        read_anchors(path)
    with pytest.raises(UsageError):
        read_anchors(tmp_path / "missing.json")
