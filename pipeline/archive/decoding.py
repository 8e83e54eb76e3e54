"""Decoding what was read from an archive: windows that fit in memory, batches, original files, sizes that agree.

``decode_all`` is the one loop in which pictures are decoded: for ``Archive``, and for ``unpack`` with its lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Generic, TypeAlias, TypeVar

from PIL import Image

from lichen.errors import ArchiveError, CorruptArchive, LichenError, UndecodablePicture, UsageError
from lichen.models import bitstream
from lichen.models.classical import stated_size
from lichen.models.codec import Codec, Decoded, Pixels
from lichen.pipeline.archive.index import IndexRow, Placement
from lichen.pipeline.images import PILLOW_ERRORS, check_openable
from lichen.pipeline.packing import unpack
from lichen.pipeline.side import Side, apply_side

P = TypeVar("P", bound=Placement)
Pieces: TypeAlias = tuple[bytes, bytes]
"""Payload and side data of one picture."""
Codecs: TypeAlias = Mapping[str, Codec | LichenError]

WINDOW_PICTURES = 64
WINDOW_BYTES = 64 * 1024 * 1024
WINDOW_PIXELS = 1 << 26


PIXELS_UNASKED, PIXELS_A_BYTE = 1 << 24, 2048
"""An original file of more pixels than both together is not opened: most of them would be holes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked(Generic[P]):
    """One picture as it came out of the archive.

    ``payload`` passed its checksum, and of a packed picture is the file that was packed; it is empty where ``error``
    says what is wrong. ``decoded`` is None for an original (and where there is an error); it has the size that the
    index says.
    """

    place: P
    payload: bytes = b""
    side: Side = field(default_factory=Side)
    decoded: Decoded | None = None
    error: LichenError | None = None


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


# --- decoding ---------------------------------------------------------------------------------------


def codec_of(place: Placement) -> str | None:
    """Digest of the codec that decodes a picture; None for an original."""
    return None if place.is_original else place.codec


def load_codecs(load: Callable[[str], Codec], places: Iterable[Placement]) -> Codecs:
    """The codecs of all pictures by digest, or what is wrong with them. Raises ``UsageError`` for a missing device."""
    codecs: dict[str, Codec | LichenError] = {}
    for digest in dict.fromkeys(digest for place in places if (digest := codec_of(place)) is not None):
        try:
            codecs[digest] = load(digest)
        except UsageError:  # the request is wrong (a device that is not there), not the archive
            raise
        except LichenError as error:
            codecs[digest] = error
    return codecs


def decode_all(codecs: Codecs, places: Sequence[P], pieces: Sequence[Pieces | LichenError]) -> list[Unpacked[P]]:
    """What becomes of pictures that were read, in their order; each codec decodes its own as one batch.

    ``pieces`` are payload and side data, whose CRCs were right, or what is wrong. Errors stay with their picture.
    """
    found: list[Unpacked[P]] = [Unpacked(place=place) for place in places]
    batches: dict[str, list[int]] = {}
    for number, (place, piece) in enumerate(zip(places, pieces, strict=True)):
        digest = codec_of(place)
        if isinstance(piece, LichenError):
            found[number] = Unpacked(place=place, error=piece)
        elif digest is None:
            found[number] = _original(place, piece[0])
        elif (wrong := other_size(place, piece[0])) is not None:
            found[number] = Unpacked(place=place, error=wrong)
        else:
            batches.setdefault(digest, []).append(number)
    for digest, numbers in batches.items():
        raw = [piece for number in numbers if not isinstance(piece := pieces[number], LichenError)]
        outcomes = _decode_batch(codecs[digest], [payload for payload, _ in raw])
        for number, (payload, side), outcome in zip(numbers, raw, outcomes, strict=True):
            found[number] = _checked(places[number], payload, side, outcome)
    return found


def _original(place: P, payload: bytes) -> Unpacked[P]:
    try:
        return Unpacked(place=place, payload=original_bytes(place, payload))
    except ArchiveError as error:
        return Unpacked(place=place, error=error)


def _checked(place: P, payload: bytes, side: bytes, outcome: Decoded | LichenError) -> Unpacked[P]:
    if isinstance(outcome, LichenError):
        return Unpacked(place=place, error=outcome)
    try:
        _check_shape(place, outcome.pixels)
        pixels, beside = apply_side(outcome.pixels, side)
        return Unpacked(place=place, payload=payload, side=beside, decoded=replace(outcome, pixels=pixels))
    except ArchiveError as error:
        return Unpacked(place=place, error=error)


def _decode_batch(codec: Codec | LichenError, bitstreams: Sequence[bytes]) -> list[Decoded | LichenError]:
    if isinstance(codec, LichenError):
        return [codec] * len(bitstreams)
    try:
        return list(codec.decode(bitstreams))
    except LichenError as error:
        if len(bitstreams) == 1:
            return [error]
    return [one for bitstream in bitstreams for one in _decode_batch(codec, [bitstream])]


def _check_shape(place: Placement, pixels: Pixels) -> None:
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
