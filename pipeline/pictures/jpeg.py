"""JPEG files: what they hold besides pixels, and whether their data are whole.

libjpeg fills what is missing with grey and guesses where data are damaged; it only counts warnings, which Pillow
does not look at. ``check_stream`` decodes the data once more with TurboJPEG, at an eighth of the size, which costs half
of what Pillow's decoding does, and takes its first warning for damage. What libjpeg cannot notice stays unknown: a file
that ends between two scans is found here, a changed bit that gives other valid codes is not found by anybody.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

import simplejpeg

from lichen.errors import DamagedPicture, UndecodablePicture, UnsupportedPicture
from lichen.pipeline.pictures.directory import check_exif
from lichen.pipeline.pictures.limits import MAX_PIECES, check_size, trailer
from lichen.pipeline.side import Block

MAX_SCANS = 500
"""Most scans of a JPEG, by libjpeg-turbo's own advice: no real file has more."""

MAX_SCANNED = 1 << 33
"""Most pixels times scans: the decoder visits every block in every scan, however short the scan is."""

_SOI, _EOI, _SOS, _DQT, _DHT, _DAC, _DRI, _COM = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xCC, 0xDD, 0xFE
_FRAMES = frozenset(range(0xC0, 0xD0)) - {_DHT, 0xC8, _DAC}
_PROGRESSIVE = (0xC2, 0xCA)
_TABLES = {_DQT, _DHT, _DAC, _DRI}
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""Inside a scan, 0xFF is always followed by 0 or a restart marker."""


@dataclass(slots=True)
class _Frame:
    """What the headers declare, and which bits of which coefficients the scans bring."""

    width: int = 0
    height: int = 0
    progressive: bool = False
    missing: dict[int, list[int]] = field(default_factory=dict)
    """For each component: how many low bits are still to come for each of 64 coefficients; -1 before the first."""
    scans: int = 0


@dataclass(slots=True)
class _Headers:
    """What is read before the first scan. ``tables`` are the segments that decoding needs."""

    blocks: list[Block] = field(default_factory=list)
    tables: bytearray = field(default_factory=lambda: bytearray(b"\xff\xd8"))
    frame: _Frame = field(default_factory=_Frame)
    profile: list[bytes] = field(default_factory=list)
    exif: bytearray = field(default_factory=bytearray)
    previews: int = 0
    scan: int = 0
    """Where the first scan begins; 0 if there is none."""
    data: int = 0
    """Where the data of the first scan begin."""


def examine_jpeg(data: bytes, max_pixels: int) -> list[Block]:
    """Blocks of a JPEG file: the segments besides EXIF, ICC and XMP (comments, IPTC, provenance, density).

    Not kept: thumbnails of JFIF extensions, the screen-sized previews that some cameras append, and Adobe's
    colour transform, which decoding uses up. Raises ``DamagedPicture`` where data are missing or damaged.
    """
    headers = _read_headers(data)
    frame = headers.frame
    if not headers.scan:
        return headers.blocks  # Pillow will refuse it
    check_size(frame.width, frame.height, max_pixels)
    _check_profile(headers.profile)
    check_exif(bytes(headers.exif))
    blocks, end = _walk_scans(data, headers.scan, frame)
    blocks = headers.blocks + blocks
    rest = data[len(data) if end is None else end :]
    if not (headers.previews and len(rest) <= headers.previews + _PREVIEW_PADDING):
        blocks += trailer("jpeg", rest)
    check_stream(bytes(headers.tables) + _first_scan(data, headers) + data[headers.data : end])
    _check_complete(frame)
    return blocks


def check_embedded(stream: bytes, width: int, height: int) -> None:
    """Raise as ``examine_jpeg`` does for a JPEG stream inside another file, which has given it so many pixels."""
    headers = _read_headers(stream)
    if headers.frame.width > width + _MCU or headers.frame.height > height + _MCU:
        raise DamagedPicture("the JPEG data inside are for a larger picture")
    if headers.scan:
        _, end = _walk_scans(stream, headers.scan, headers.frame)
        check_stream(bytes(headers.tables) + _first_scan(stream, headers) + stream[headers.data : end])


def check_stream(stream: bytes) -> None:
    """Raise ``DamagedPicture`` if the data of a JPEG stream are cut or damaged.

    The stream must hold nothing but tables and scans: a warning about metadata would hide those that follow it.
    Raises ``UnsupportedPicture`` for sampling factors that TurboJPEG has no name for: nobody would tell.
    """
    try:
        simplejpeg.decode_jpeg(stream, colorspace="GRAY", min_height=1, min_width=1, min_factor=8, strict=True)
    except ValueError as error:
        if wrong := _damage(str(error), stream):
            raise DamagedPicture(wrong) from error


_MCU = 32
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0xd9")


def _damage(warning: str, stream: bytes) -> str | None:
    if "subsampling level" in warning:
        raise UnsupportedPicture("a JPEG with unusual sampling factors, of which nobody could tell whether it is whole")
    if "Premature end of JPEG file" in warning:
        return "the JPEG is truncated: its data end before the picture does"
    if match := _EXTRANEOUS.search(warning):
        # Some writers pad the end of the last scan.
        length, end = int(match[1]), stream.rfind(b"\xff\xd9")
        if not stream[max(0, end - length) : end].strip(b"\0\xff"):
            return None
    return f"the JPEG is damaged: {warning.removeprefix('Corrupt JPEG data: ')}"


def _first_scan(data: bytes, headers: _Headers) -> bytes:
    """The header of the first scan; in a sequential JPEG without the spectral selection, which decoders ignore."""
    scan = data[headers.scan : headers.data]
    return scan if headers.frame.progressive or len(scan) < 10 else scan[:-3] + b"\0\x3f\0"


# --- headers -------------------------------------------------------------------------------------


def _read_headers(data: bytes) -> _Headers:
    headers = _Headers()
    position = 2
    for _ in range(MAX_PIECES):
        position = data.find(b"\xff", position)
        if position < 0 or position + 4 > len(data):
            return headers
        marker = data[position + 1]
        if marker in (0x00, 0xFF) or 0xD0 <= marker <= 0xD9 or marker == 0x01:
            position += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _SOS:
            headers.scan, headers.data = position, position + 2 + length
            return headers
        segment = data[position : position + 2 + length]
        body = segment[4:]
        position += 2 + length
        if marker in _FRAMES:
            _read_frame(marker, body, headers.frame)
            headers.tables += segment
        elif marker in _TABLES:
            headers.tables += segment
        elif marker == 0xE2 and body.startswith(b"MPF\0"):
            headers.previews += _mpf_preview_bytes(body[4:])
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0"):
            headers.profile.append(body)
        elif 0xE0 <= marker <= 0xEF or marker == _COM:
            if marker == 0xE1 and body.startswith(b"Exif\0\0"):
                headers.exif += body[6:]
            headers.blocks += _block(marker, body)
    raise UnsupportedPicture(f"a JPEG of more than {MAX_PIECES} segments")


def _read_frame(marker: int, body: bytes, frame: _Frame) -> None:
    if marker not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
        raise UnsupportedPicture("a lossless or hierarchical JPEG")
    if len(body) >= 6 and body[0] != 8:
        raise UnsupportedPicture(f"a JPEG of {body[0]} bits")
    if len(body) >= 6 and body[5] not in (1, 3):
        raise UnsupportedPicture(f"a JPEG of {body[5]} components (CMYK or the like)")
    if len(body) < 6 + 3 * body[5]:
        raise UndecodablePicture("the JPEG has a frame header that is too short")
    frame.height, frame.width = struct.unpack_from(">HH", body, 1)
    frame.progressive = marker in _PROGRESSIVE
    frame.missing = {body[6 + 3 * i]: [-1] * 64 for i in range(body[5])}


def _check_profile(segments: list[bytes]) -> None:
    """Every segment says which it is and how many there are; Pillow drops an incomplete profile without a word."""
    different = set(segments)
    if any(len(segment) < 14 or not 1 <= segment[12] <= segment[13] == len(different) for segment in different):
        raise UnsupportedPicture("a JPEG with a damaged colour profile")


_PREVIEW_PADDING = 1 << 12
_MPF_ENTRIES, _MPF_TYPE, _MPF_PREVIEWS = 0xB002, 0xFFFFFF, (0x010001, 0x010002)


def _mpf_preview_bytes(index: bytes) -> int:
    """Bytes of the previews that a multi-picture index lists (CIPA DC-007); refuses pictures of other kinds."""
    order = ">" if index.startswith(b"MM") else "<"
    try:
        (start,) = struct.unpack_from(order + "I", index, 4)
        (count,) = struct.unpack_from(order + "H", index, start)
        for tag, _, length, offset in (
            struct.unpack_from(order + "HHII", index, start + 2 + 12 * i) for i in range(count)
        ):
            if tag == _MPF_ENTRIES and 32 <= length <= len(index):
                entries = [struct.unpack_from(order + "III", index, offset + i) for i in range(16, length, 16)]
                if all(kind & _MPF_TYPE in _MPF_PREVIEWS for kind, _, _ in entries):
                    return sum(size for _, size, _ in entries)
                break
    except struct.error:
        pass  # malformed: nobody knows what is there
    raise UnsupportedPicture("several pictures in one file (MPO)")


def _block(marker: int, body: bytes) -> list[Block]:
    name = "jpeg:COM" if marker == _COM else f"jpeg:APP{marker - 0xE0}"
    if marker == 0xE0:
        if body.startswith(b"JFXX\0"):
            return []
        if body.startswith(b"JFIF\0") and len(body) >= 12:
            unit, x, y = struct.unpack(">BHH", body[7:12])
            trivial = x == y and (unit == 0 or (unit == 1 and x == 72))  # what writers put when they do not know
            return [] if trivial else [(name, body[:12] + b"\0\0")]
    if marker == 0xE1:
        if body.startswith(b"Exif\0\0"):
            return []
        if body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            if b"hdrgm:Version" in body:
                raise UnsupportedPicture("a gain map (Ultra HDR) belongs to the picture")
            return []
    if marker == 0xEE and body.startswith(b"Adobe"):
        return []
    return [(name, body)]


# --- scans ---------------------------------------------------------------------------------------


def _walk_scans(data: bytes, position: int, frame: _Frame) -> tuple[list[Block], int | None]:
    """Metadata between the scans, which nobody else reads, and the position behind the end marker, if there is one."""
    blocks: list[Block] = []
    while match := _NEXT_MARKER.search(data, position):
        marker, position = data[match.end() - 1], match.end()
        if marker == _EOI:
            return blocks, position
        if marker in (_SOI, 0x01):
            continue
        body = data[position + 2 : position + int.from_bytes(data[position : position + 2], "big")]
        position += 2 + len(body)
        if marker == _SOS:
            frame.scans += 1
            if frame.scans > MAX_SCANS or frame.scans * frame.width * frame.height > MAX_SCANNED:
                raise UndecodablePicture(f"{frame.scans} or more scans of a large JPEG would take for ever to decode")
            _note_scan(body, frame)
        elif 0xE0 <= marker <= 0xEF or marker == _COM:
            blocks.append(("jpeg:COM" if marker == _COM else f"jpeg:APP{marker - 0xE0}", body))
    return blocks, None


def _note_scan(body: bytes, frame: _Frame) -> None:
    count = body[0] if body else 0
    if len(body) < 4 + 2 * count:
        return  # libjpeg will refuse it
    first, last, low = body[1 + 2 * count], body[2 + 2 * count], body[3 + 2 * count] & 15
    if not frame.progressive:
        first, last, low = 0, 63, 0
    for component in body[1 : 1 + 2 * count : 2]:
        if component in frame.missing:
            frame.missing[component][first : last + 1] = [low] * len(frame.missing[component][first : last + 1])


def _check_complete(frame: _Frame) -> None:
    for bits in frame.missing.values():
        if bits[0] < 0 or max(bits) > 0:
            raise DamagedPicture("the JPEG is truncated: it ends before its last scans")
