"""Counters of a worker in Ray's metrics (Prometheus at every node's metrics port)."""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge

from lichen.pipeline.engine.messages import Counts


class Metrics:
    """All carry the tag ``codec``; ``lichen_pictures_total`` also ``status``, stage seconds also ``stage``."""

    def __init__(self, codec: str) -> None:
        keys = ("codec",)
        tags = {"codec": codec}
        self._pictures = Counter("lichen_pictures", "Sources that are done with, by outcome", (*keys, "status"))
        self._seconds = Counter("lichen_stage_seconds", "Thread seconds by stage", (*keys, "stage"))
        self._pixels = Counter("lichen_pixels", "Pixels of archived pictures", keys)
        self._bytes_in = Counter("lichen_source_bytes", "Bytes of archived sources", keys)
        self._bytes_out = Counter("lichen_payload_bytes", "Bytes of payloads and side data", keys)
        self._retries = Counter("lichen_retries", "Encodings repeated at a higher quality", keys)
        self._bpp = Gauge("lichen_bpp", "Bits per pixel of the last compressed pictures", keys)
        for metric in (
            self._pictures,
            self._seconds,
            self._pixels,
            self._bytes_in,
            self._bytes_out,
            self._retries,
            self._bpp,
        ):
            metric.set_default_tags(tags)

    def add(self, counts: Counts) -> None:
        """Count a group of pictures."""
        for status in ("compressed", "packed", "stored", "quarantined", "skipped"):
            if number := getattr(counts, status):
                self._pictures.inc(number, {"status": status})
        for stage, seconds in counts.seconds.items():
            if seconds > 0:
                self._seconds.inc(seconds, {"stage": stage})
        for metric, value in (
            (self._pixels, counts.pixels),
            (self._bytes_in, counts.source_bytes),
            (self._bytes_out, counts.payload_bytes),
            (self._retries, counts.retries),
        ):
            if value:
                metric.inc(value)
        if counts.bpp is not None:
            self._bpp.set(counts.bpp)
