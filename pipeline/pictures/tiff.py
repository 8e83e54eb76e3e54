"""TIFF files: that their pixels are where their tags say, and what becomes of their tags.

Pillow's decoder for uncompressed files goes to the offset of each strip and reads on, whatever the file says about
its length: where a strip is a hole (offset 0), the pixels are the header of the file. So the layout is examined first:
strips or tiles, as many as the size needs, each inside the file, apart from each other and from all tags, and
long enough.
"""

from __future__ import annotations

import zlib

from PIL import Image, TiffImagePlugin

from lichen.errors import DamagedPicture, UndecodablePicture, UnsupportedPicture
from lichen.pipeline.pictures import jpeg
from lichen.pipeline.pictures.directory import EXIF_IFD, GPS_IFD, Directories, Entry
from lichen.pipeline.pictures.limits import MAX_PIECES, check_size
from lichen.pipeline.side import Block

# Layout of the pixels, used up by decoding.
_STRUCTURE = {254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 297, 317}
_STRUCTURE |= {322, 323, 324, 325, 338, 339, 347, 529, 530, 531, 532}
# Rewritten as EXIF, which has the same tags.
_DESCRIPTION = {269, 270, 271, 272, 282, 283, 285, 296, 301, 305, 306, 315, 316, 318, 319, 33432}
_XMP, _ICC = 700, 34675
_BLOCKS = {33723: "tiff:IPTC", 34377: "tiff:8BIM"}
_KEPT = _STRUCTURE | _DESCRIPTION | set(_BLOCKS) | {EXIF_IFD, GPS_IFD, _XMP, _ICC}

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANES = 256, 257, 258, 259, 262, 277, 284
_YCBCR, _SUBSAMPLING = 6, 530
_STRIPS, _STRIP_ROWS, _STRIP_BYTES = 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 322, 323, 324, 325
_JPEG_TABLES = 347
_RAW, _JPEG, _DEFLATE = 1, 7, {8, 32946}
_COMPRESSIONS = {_RAW, _JPEG, *_DEFLATE, 5, 32773, 50000}
"""Also LZW, PackBits and zstd; of the others some hold more than 8-bit pixels, or ask for memory at will (LZMA)."""


def examine_tiff(data: bytes, max_pixels: int) -> list[Block]:
    """Raises ``UnsupportedPicture`` or ``UndecodablePicture`` unless all pixels are where the tags say."""
    directories = Directories(data)
    first = directories.first
    tags, end, _ = directories.read(first)
    for tag in (EXIF_IFD, GPS_IFD):
        if tag in tags:
            for offset in directories.numbers(tags[tag]):
                directories.read(offset)
    layout = _Layout(directories, tags)
    check_size(layout.width, layout.height, max_pixels)
    pieces = layout.pieces(len(data))
    taken = [(0, directories.header), (first, end)]
    taken += [(entry.begin, entry.begin + entry.size) for entry in tags.values() if entry.outside]
    _check_apart(pieces, taken)
    _check_content(data, tags.get(_JPEG_TABLES), layout, pieces)
    return []


def has_pages(data: bytes) -> bool:
    """Whether another directory follows the first; Pillow would walk through all of them to count."""
    directories = Directories(data)
    return directories.read(directories.first)[2] != 0


class _Layout:
    """The sizes of a picture and of its strips or tiles, from the tags."""

    def __init__(self, directories: Directories, tags: dict[int, Entry]) -> None:
        self._directories, self._tags = directories, tags
        self.width, self.height = self._one(_WIDTH, 0), self._one(_HEIGHT, 0)
        self.compression = self._one(_COMPRESSION, _RAW)
        self._samples, self._planar = self._one(_SAMPLES, 1), self._one(_PLANES, 1) == 2
        self._bits = max(self._all(_BITS) or (1,))
        if self.compression == _RAW and self._one(_PHOTOMETRIC, 0) == _YCBCR and self._all(_SUBSAMPLING) != (1, 1):
            raise UnsupportedPicture("a TIFF of subsampled colours without compression")

    def pieces(self, file_size: int) -> list[tuple[int, int]]:
        """(begin, end) of every strip or tile, in the order of the pixels."""
        tiled, striped = _TILES in self._tags, _STRIPS in self._tags
        if tiled == striped:
            raise UnsupportedPicture("a TIFF with both strips and tiles" if tiled else "a TIFF without pixels")
        if tiled:
            width, rows = self._one(_TILE_WIDTH, 0), self._one(_TILE_HEIGHT, 0)
            offsets, counts = self._all(_TILES), self._all(_TILE_BYTES)
        else:
            width, rows = self.width, min(self._one(_STRIP_ROWS, self.height), self.height)
            offsets, counts = self._all(_STRIPS), self._all(_STRIP_BYTES)
        if width < 1 or rows < 1 or (tiled and (width > 1 << 16 or rows > 1 << 16)):
            raise UndecodablePicture(f"a TIFF in pieces of {width}x{rows} pixels")
        self.piece = (width, rows)
        planes = self._samples if self._planar else 1
        across, down = -(-self.width // width), -(-self.height // rows)
        if across * down * planes > MAX_PIECES:
            raise UndecodablePicture(f"a TIFF in {across * down * planes} pieces exceeds the limit of {MAX_PIECES}")
        if not len(offsets) == len(counts) == across * down * planes:
            raise UnsupportedPicture(
                f"a TIFF with {len(offsets)} offsets and {len(counts)} sizes of {across * down * planes} pieces"
            )
        row_bytes = -(-width * self._bits * (1 if self._planar else self._samples) // 8)
        for number, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
            if offset == 0 or count == 0:
                raise UnsupportedPicture("a TIFF with holes (pieces without data)")
            if offset + count > file_size:
                raise DamagedPicture("the TIFF is truncated: it ends before its pixels do")
            lines = rows if tiled else min(rows, self.height - number % down * rows)
            if self.compression == _RAW and count < row_bytes * lines:
                raise DamagedPicture("the TIFF is damaged: a piece is too short for its pixels")
        return [(offset, offset + count) for offset, count in zip(offsets, counts, strict=True)]

    def _all(self, tag: int) -> tuple[int, ...]:
        return self._directories.numbers(self._tags[tag]) if tag in self._tags else ()

    def _one(self, tag: int, default: int) -> int:
        values = self._all(tag)
        return values[0] if values else default


def _check_apart(pieces: list[tuple[int, int]], taken: list[tuple[int, int]]) -> None:
    """Pieces overlap neither each other nor what is not pixels. Values of tags may overlap each other."""
    ordered = sorted([(*piece, True) for piece in pieces] + [(*other, False) for other in taken])
    pixels = other = 0
    for begin, end, is_piece in ordered:
        if begin < pixels or (is_piece and begin < other):
            raise UnsupportedPicture("a TIFF whose pixels overlap each other or its tags")
        if is_piece:
            pixels = end
        else:
            other = max(other, end)


def _check_content(data: bytes, tables: Entry | None, layout: _Layout, pieces: list[tuple[int, int]]) -> None:
    """What libtiff lets pass in compressed pieces: damaged JPEG data, and data that fail their checksum."""
    if layout.compression not in _COMPRESSIONS:
        raise UnsupportedPicture(f"a TIFF of compression {layout.compression}")
    if layout.compression == _JPEG:
        shared = b"" if tables is None else data[tables.begin + 2 : tables.begin + tables.size - 2]
        for begin, end in pieces:
            jpeg.check_embedded(b"\xff\xd8" + shared + data[begin + 2 : end], *layout.piece)
    if layout.compression in _DEFLATE:
        for begin, end in pieces:
            _check_deflated(data[begin:end])


def _check_deflated(piece: bytes) -> None:
    inflater = zlib.decompressobj()
    try:
        while not inflater.eof and piece:
            inflater.decompress(piece, 1 << 20)
            piece = inflater.unconsumed_tail
    except zlib.error as error:
        raise DamagedPicture(f"the TIFF is damaged: {error}") from error


def check_tags(image: TiffImagePlugin.TiffImageFile) -> None:
    """Raise ``UnsupportedPicture`` unless 8-bit pixels and EXIF mean the same as the opened picture."""
    tags = image.tag_v2
    depths, samples = tags.get(258, (1,)), tags.get(339, (1,))
    if set(depths if isinstance(depths, tuple) else (depths,)) != {8}:
        raise UnsupportedPicture(f"a TIFF of {depths} bits a sample")
    if set(samples if isinstance(samples, tuple) else (samples,)) != {1}:
        raise UnsupportedPicture("a TIFF of signed or floating-point samples")
    if tags.get(262) not in (1, 2, 6):
        raise UnsupportedPicture(f"a TIFF of photometric interpretation {tags.get(262)}")
    extra = tags.get(338, ())
    if (extra if isinstance(extra, tuple) else (extra,)) not in ((), (2,)):
        raise UnsupportedPicture("a TIFF with premultiplied alpha or unknown extra samples")
    if lost := sorted(set(tags) - _KEPT):
        raise UnsupportedPicture(f"TIFF tags that would be lost: {lost[:8]}")
    if tags.get(274, 1) != 1 and b"tiff:Orientation" in (image.info.get("xmp") or b""):
        raise UnsupportedPicture("a TIFF whose orientation is also in its XMP")


def exif_of(image: TiffImagePlugin.TiffImageFile) -> bytes | None:
    """The descriptive tags of a TIFF, rewritten as EXIF."""
    source = image.getexif()
    exif = Image.Exif()
    for tag in sorted(_DESCRIPTION & set(source)):
        exif[tag] = source[tag]
    for tag in (EXIF_IFD, GPS_IFD):
        if values := source.get_ifd(tag):
            exif.get_ifd(tag).update(values)
            exif[tag] = 0  # the writer fills in the offset of a directory whose tag is there
    return exif.tobytes().removeprefix(b"Exif\0\0") if exif else None


def blocks_of(image: TiffImagePlugin.TiffImageFile) -> list[Block]:
    """IPTC and Photoshop data, which EXIF does not have."""
    blocks: list[Block] = []
    for tag, name in _BLOCKS.items():
        value = image.tag_v2.get(tag)
        if isinstance(value, bytes):
            blocks.append((name, value))
        elif value is not None:
            raise UnsupportedPicture(f"a TIFF whose tag {tag} is of an unusual type")
    return blocks
