"""Parts of decoding without an archive: batches that fit in memory, original files, sizes that agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import TypeVar

from PIL import Image

from lichen.errors import CorruptArchive, LichenError, UndecodablePicture
from lichen.models import bitstream
from lichen.models.classical import stated_size
from lichen.models.codec import Pixels
from lichen.pipeline.archive.index import IndexRow, Placement
from lichen.pipeline.images import PILLOW_ERRORS, check_openable
from lichen.pipeline.packing import unpack

P = TypeVar("P", bound=Placement)

WINDOW_PICTURES = 64
WINDOW_BYTES = 64 * 1024 * 1024
WINDOW_PIXELS = 1 << 26


PIXELS_UNASKED, PIXELS_A_BYTE = 1 << 24, 2048
"""An original file of more pixels than both together is not opened: most of them would be holes."""


def windows(places: Sequence[P]) -> Iterator[list[P]]:
    """Pictures cut into lists that fit in memory, encoded and decoded."""
    window: list[P] = []
    size = pixels = 0
    for place in places:
        more = held(place)
        area = (place.width or 0) * (place.height or 0)
        full = len(window) >= WINDOW_PICTURES or size + more > WINDOW_BYTES or pixels + area > WINDOW_PIXELS
        if window and full:
            yield window
            window, size, pixels = [], 0, 0
        window.append(place)
        size, pixels = size + more, pixels + area
    if window:
        yield window


def held(place: Placement) -> int:
    """Bytes that are in memory for a picture before its pixels: what was read, or the file that becomes of it."""
    encoded = place.length + (place.side_length or 0)
    return max(encoded, place.source_bytes) if place.status == "packed" else encoded


def original_bytes(place: Placement, payload: bytes) -> bytes:
    """The original file that a payload is, or was packed into. Raises ``CorruptArchive`` if it is another.

    A packed picture must come with its whole row, as ``Archive.places`` has it.
    """
    if place.packing is None:
        return payload
    assert isinstance(place, IndexRow)
    return unpack(
        payload, place.packing, place.source_bytes, place.source_sha256, name=f"the original file of {place.key!r}"
    )


def check_shape(place: Placement, pixels: Pixels) -> None:
    """Raise ``CorruptArchive`` unless a decoded picture has the size that the index says."""
    _check_size(place, *pixels.shape[:2])


def other_size(place: Placement, payload: bytes) -> LichenError | None:
    """What is wrong with a payload whose header has another size than the index.

    Groups that are decoded together are cut by the index, so memory must not depend on what else a payload says.
    """
    try:
        if payload.startswith(bitstream.MAGIC):
            header = bitstream.unpack(payload)
            _check_size(place, header.height, header.width)
        elif (size := stated_size(payload)) is not None:
            width, height = size
            _check_size(place, height, width)
    except LichenError as error:
        return error
    return None


def _check_size(place: Placement, height: int, width: int) -> None:
    if (width, height) != (place.width, place.height):
        raise CorruptArchive(
            f"{place.key!r} decodes to {width}x{height} pixels; the index says {place.width}x{place.height}"
        )


def open_original(data: bytes, key: str) -> Image.Image:
    """The picture in an original file, of whatever mode. Raises ``UndecodablePicture``."""
    check_openable(data, name=key)
    try:
        image = Image.open(BytesIO(data))
        if image.width * image.height > PIXELS_UNASKED + PIXELS_A_BYTE * len(data):
            raise UndecodablePicture(
                f"the original file of {key!r} states {image.width}x{image.height} pixels in {len(data)} bytes; "
                "`archive.original(key)` gives its bytes"
            )
        image.load()
    except PILLOW_ERRORS as error:
        raise UndecodablePicture(f"the original file of {key!r} does not decode: {error}") from error
    return image
