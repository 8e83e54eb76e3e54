"""Pictures for training and measuring: read and opened as a job does, from wherever a job takes them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

from lichen.errors import LichenError
from lichen.pipeline.pictures.reading import MAX_PIXELS, Picture, read_picture
from lichen.pipeline.sources import Source, read_source


def gather(
    sources: Iterable[Source], *, options: Mapping[str, Any] | None = None, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[Source, Picture | LichenError]]:
    """Open the pictures of ``sources`` (``list_sources`` has them), in their order.

    What cannot be read comes with its ``SourceUnreadable``, what a codec would not be given with the error that
    ``read_picture`` raises for it (``NotAPicture``, ``UnsupportedPicture``, ``UndecodablePicture``). ``options`` are
    fsspec's. A few pictures a core are opened ahead.
    """
    threads = os.cpu_count() or 1
    rest = iter(sources)
    work = partial(_open, options=options, max_pixels=max_pixels)
    with ThreadPoolExecutor(threads, "lichen-gather") as pool:
        while some := list(islice(rest, 4 * threads)):
            yield from zip(some, pool.map(work, some), strict=True)


def _open(source: Source, *, options: Mapping[str, Any] | None, max_pixels: int) -> Picture | LichenError:
    try:
        return read_picture(read_source(source, storage_options=options), name=source.key, max_pixels=max_pixels)
    except LichenError as error:
        return error
