"""Rate-distortion evaluation of any codec, by real bytes and decoded pixels.

Nothing is estimated: each point is encoded to bitstreams, whose every byte counts, and decoded again from
them. The rate of a point is the mean over the pictures of each picture's bits per pixel, its quality the
mean of each picture's PSNR over all RGB samples, as in the literature (Kodak's 24 images in particular). The other
measures (``lichen.jobs.measures``) are means over the pictures as well.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import fmean
from typing import Any

from lichen.defaults import EFFORT
from lichen.errors import LichenError, NotAPicture, NotComparable, UsageError, VerificationFailed
from lichen.jobs.bdrate import Point, bd_rate
from lichen.jobs.measures import MEASURES, Metric, available
from lichen.models.classical import ClassicalCodec
from lichen.models.codec import MAX_QUALITY, MIN_QUALITY, Codec, Pixels
from lichen.pipeline.gather import gather
from lichen.pipeline.secrets import redact_uri
from lichen.pipeline.sources import list_sources

QUALITIES = (10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 75.0, 90.0)
"""The qualities at which learned codecs are reported."""

CLASSICAL_QUALITIES: Mapping[str, tuple[float, ...]] = {
    "jpeg": (10, 20, 35, 50, 70, 85, 92),
    "jpegli": (10, 20, 35, 50, 70, 85, 92),
    "webp": (5, 20, 40, 60, 80, 92),
    "avif": (15, 30, 45, 60, 75, 88),
    "avif-psnr": (15, 30, 45, 60, 75, 88),
    "jxl": (20, 40, 60, 75, 85, 93),
}
"""Qualities at which each classical codec spans about 27 to 41 dB on photographs, as learned codecs do."""

BATCH_PIXELS = 1 << 22
"""Pictures are handed to a codec in lists of about this many pixels, so that it can batch them."""

KODAK = frozenset(f"kodim{number:02d}" for number in range(1, 25))
"""Names, without ending, of the set that the shipped anchor points were made with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RDPoint:
    """One point of a curve: means over the pictures; speeds are source megapixels per second of wall clock.

    ``psnr`` is infinite when a picture came back unchanged. The others are means over the pictures that are large
    enough, None if there is none or nobody measured. Anchor points have only a rate and a PSNR.
    """

    bpp: float
    psnr: float
    quality: float | None = None
    ms_ssim: float | None = None
    ssimulacra2: float | None = None
    butteraugli: float | None = None
    encode_mp_per_s: float | None = None
    decode_mp_per_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The points of one codec. ``source`` says where they are from, ``measured`` that it was here and now."""

    name: str
    source: str
    measured: bool
    points: tuple[RDPoint, ...]

    def front(self, metric: Metric) -> list[Point]:
        """(bits per pixel, quality on the measure's scale) of the points that have this metric."""
        values = [(point.bpp, getattr(point, metric)) for point in self.points]
        return [(bpp, MEASURES[metric].scale(value)) for bpp, value in values if value is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """BD-rate of ``test`` against ``anchor`` in percent, or the reason why there is none (see ``bdrate``)."""

    test: str
    anchor: str
    metric: Metric
    percent: float | None
    low: float | None = None
    high: float | None = None
    overlap: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The whole result: the evaluated codec's curve, those it was compared with, and the comparisons."""

    codec: str
    digest: str
    images: tuple[str, ...]
    megapixels: float
    environment: Mapping[str, str | int]
    curve: Curve
    others: tuple[Curve, ...]
    comparisons: tuple[Comparison, ...]


def load_pictures(src: str | Path | Sequence[str], *, options: Mapping[str, Any] | None = None) -> dict[str, Pixels]:
    """RGB pixels by key of every picture that ``src`` names: what a job takes, any fsspec URL, with its ``options``.

    Files that are no pictures are passed over. Raises ``UsageError`` when nothing is left or ``src`` does not exist,
    and what is wrong with a picture that cannot be read, does not decode, or is not one for a codec.
    """
    names = [str(src)] if isinstance(src, str | Path) else list(src)
    pictures: dict[str, Pixels] = {}
    for source, picture in gather(list_sources(names, storage_options=options), options=options):
        if isinstance(picture, NotAPicture):
            continue
        if isinstance(picture, LichenError):
            raise type(picture)(f"{source.key}: {picture}") from picture
        pictures[source.key] = picture.pixels
    if not pictures:
        raise UsageError(f"no pictures in {', '.join(map(redact_uri, names))}")
    return pictures


def default_qualities(name: str) -> tuple[float, ...]:
    """The qualities at which the codec of this name is reported unless others are asked for."""
    return CLASSICAL_QUALITIES.get(name, QUALITIES)


def rd_points(
    codec: Codec,
    images: Sequence[Pixels],
    qualities: Sequence[float] | None = None,
    *,
    effort: int = EFFORT,
    metrics: Sequence[Metric] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[RDPoint]:
    """Encode and decode every picture at every quality and measure. One point for each quality, in order.

    Speeds do not include the first call, in which codecs compile and allocate: one picture is encoded and
    decoded before the clock starts. ``metrics`` are by default all that can be measured here. ``progress``
    is called with the number of pictures done since the last
    call. Raises ``UsageError`` on a bad quality or no pictures, ``VerificationFailed`` when what was
    decoded is not what was encoded: another size, or other symbols.
    """
    qualities = default_qualities(codec.name) if qualities is None else qualities
    if not images or not qualities:
        raise UsageError("an evaluation needs at least one picture and one quality")
    for quality in qualities:
        if not MIN_QUALITY <= quality <= MAX_QUALITY:
            raise UsageError(f"quality must be {MIN_QUALITY:g} to {MAX_QUALITY:g}, not {quality:g}")
    codec.decode([codec.encode(images[:1], qualities[0], effort=effort)[0].bitstream])
    metrics = available() if metrics is None else metrics
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return [_point(codec, images, quality, effort, metrics, pool, progress) for quality in qualities]


def evaluate(
    codec: Codec,
    pictures: Mapping[str, Pixels],
    *,
    qualities: Sequence[float] | None = None,
    effort: int = EFFORT,
    against: Iterable[Codec] = (),
    metrics: Sequence[Metric] | None = None,
    anchors: Sequence[Curve] = (),
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Measure ``codec`` (at an effort) and every codec in ``against`` on the pictures, and compare.

    ``anchors`` are curves from elsewhere, measured on the same pictures (``read_anchors``). Raises as
    ``rd_points``.
    """
    images = list(pictures.values())
    metrics = available() if metrics is None else metrics
    curve = measured_curve(codec, images, qualities, effort=effort, metrics=metrics, progress=progress)
    rivals = [other for other in against if other.digest != codec.digest]
    measured = [measured_curve(other, images, metrics=metrics, progress=progress) for other in rivals]
    others = (*measured, *anchors)
    return Evaluation(
        codec=codec.name,
        digest=codec.digest,
        images=tuple(pictures),
        megapixels=sum(_pixels(image) for image in images) / 1e6,
        environment={
            "cores": os.cpu_count() or 1,
            "machine": platform.machine(),
            "python": platform.python_version(),
        },
        curve=curve,
        others=others,
        comparisons=tuple(
            compare(curve, other, metric)
            for metric in dict.fromkeys(("psnr", *metrics))
            for other in others
            if metric == "psnr" or other.front(metric)
        ),
    )


def measured_curve(
    codec: Codec,
    images: Sequence[Pixels],
    qualities: Sequence[float] | None = None,
    *,
    name: str | None = None,
    effort: int = EFFORT,
    metrics: Sequence[Metric] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Curve:
    """``rd_points`` as a curve, by default under the codec's own name. Raises as ``rd_points``."""
    points = rd_points(codec, images, qualities, effort=effort, metrics=metrics, progress=progress)
    settings = f": {codec.settings}" if isinstance(codec, ClassicalCodec) else ""
    return Curve(name=name or codec.name, source="measured now" + settings, measured=True, points=tuple(points))


def compare(test: Curve, anchor: Curve, metric: Metric) -> Comparison:
    """BD-rate of ``test`` against ``anchor``; with a reason instead of a number where there is none."""
    try:
        result = bd_rate(anchor.front(metric), test.front(metric))
    except NotComparable as error:
        return Comparison(test=test.name, anchor=anchor.name, metric=metric, percent=None, reason=str(error))
    return Comparison(
        test=test.name,
        anchor=anchor.name,
        metric=metric,
        percent=result.percent,
        low=result.low,
        high=result.high,
        overlap=result.overlap,
    )


def is_kodak(names: Iterable[str]) -> bool:
    """Whether these are the names of all 24 Kodak images and no others."""
    return {Path(name).stem.lower() for name in names} == KODAK


def read_anchors(path: str | Path | None = None, *, dataset: str = "kodak") -> list[Curve]:
    """Anchor curves from a JSON file, by default the shipped one.

    The file maps data sets to curves: ``{"kodak": {"NAME": {"bpp": [...], "psnr": [...], "source":
    "..."}}}``, with lists of the other measures beside those two where they are known.
    Raises ``UsageError`` when it is not of that form or has no such data set.
    """
    resource = files("lichen.jobs") / "anchors.json" if path is None else Path(path)
    try:
        content = json.loads(resource.read_bytes())
        curves = content[dataset]
        return [_anchor(name, entry) for name, entry in curves.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"no usable anchors for {dataset!r} in {resource}: {error!r}") from error


def _anchor(name: str, entry: Mapping[str, Any]) -> Curve:
    names = [name for name in ("bpp", *MEASURES) if name in entry]
    points = zip(*(entry[name] for name in names), strict=True)
    return Curve(
        name=name,
        source=str(entry.get("source", "anchor file")),
        measured=False,
        points=tuple(
            RDPoint(**{name: float(value) for name, value in zip(names, point, strict=True)}) for point in points
        ),
    )


def _point(
    codec: Codec,
    images: Sequence[Pixels],
    quality: float,
    effort: int,
    metrics: Sequence[Metric],
    pool: ThreadPoolExecutor,
    progress: Callable[[int], None] | None,
) -> RDPoint:
    encode_seconds = decode_seconds = 0.0
    rates: list[float] = []
    values: dict[Metric, list[float]] = {metric: [] for metric in {"psnr": None, **dict.fromkeys(metrics)}}
    for batch in _batches(images):
        start = time.perf_counter()
        encoded = codec.encode(batch, quality, effort=effort)
        middle = time.perf_counter()
        decoded = codec.decode([one.bitstream for one in encoded])
        end = time.perf_counter()
        encode_seconds += middle - start
        decode_seconds += end - middle
        for image, sent, received in zip(batch, encoded, decoded, strict=True):
            if received.pixels.shape != image.shape or received.symbols != sent.symbols:
                raise VerificationFailed(f"{codec.name} at quality {quality:g} decodes to something else")
        outputs = [one.pixels for one in decoded]
        rates += [8 * len(one.bitstream) / _pixels(image) for one, image in zip(encoded, batch, strict=True)]
        for metric, found in values.items():
            found += [value for value in pool.map(MEASURES[metric].of, batch, outputs) if value is not None]
        if progress is not None:
            progress(len(batch))
    megapixels = sum(_pixels(image) for image in images) / 1e6
    return RDPoint(
        bpp=fmean(rates),
        quality=float(quality),
        encode_mp_per_s=megapixels / encode_seconds,
        decode_mp_per_s=megapixels / decode_seconds,
        **{metric: fmean(found) for metric, found in values.items() if found},
    )


def _batches(images: Sequence[Pixels]) -> Iterator[list[Pixels]]:
    batch: list[Pixels] = []
    for image in images:
        if batch and sum(map(_pixels, batch)) + _pixels(image) > BATCH_PIXELS:
            yield batch
            batch = []
        batch.append(image)
    yield batch


def _pixels(image: Pixels) -> int:
    return image.shape[0] * image.shape[1]
