"""Reading an archive: a mapping from keys to pictures over one snapshot.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> import lichen
>>> folder = TemporaryDirectory()
>>> photos, url = Path(folder.name, "photos"), str(Path(folder.name, "photos.lichen"))
>>> photos.mkdir()
>>> for name in ("grey", "teal"):
...     Image.new("RGB", (96, 64), name).save(photos / f"{name}.png")
>>> summary = lichen.compress(photos, url, codec="webp")

>>> archive = Archive.open(url)
>>> list(archive)
['grey.png', 'teal.png']
>>> archive["teal.png"].size
(96, 64)
>>> archive.row("teal.png").source_format
'PNG'
>>> [picture.size for key, picture in archive.get_many(["grey.png"])]
[(96, 64)]
>>> archive["green.png"]
Traceback (most recent call last):
    ...
lichen.errors.KeyNotFound: the archive has no picture 'green.png'
>>> folder.cleanup()
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from lichen.errors import (
    ArchiveError,
    ArchiveNotFound,
    CorruptArchive,
    KeyNotFound,
    MissingObject,
    UndecodablePicture,
    UsageError,
)
from lichen.models.codec import Codec
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.codecs import CodecShelf
from lichen.pipeline.archive.decoding import decode_all, load_codecs, open_original, original_bytes, windows
from lichen.pipeline.archive.index import (
    COLUMNS,
    PLACEMENT_COLUMNS,
    SCHEMA,
    IndexRow,
    Placement,
    to_placements,
    to_rows,
)
from lichen.pipeline.archive.index_file import IndexFile, open_part
from lichen.pipeline.archive.info import ArchiveInfo
from lichen.pipeline.archive.losses import check_jobs
from lichen.pipeline.archive.marker import Marker, create_marker, read_marker
from lichen.pipeline.archive.payload_list import PayloadSizes
from lichen.pipeline.archive.shard import crc32c
from lichen.pipeline.archive.snapshot import Snapshot, latest_snapshot, read_snapshot, snapshot_numbers
from lichen.pipeline.archive.store import Store, open_store
from lichen.pipeline.texts import bytes_text, many, outcomes

CACHED_GROUPS = 16
LOCATE = 10_000
TOGETHER = 4
"""Row groups whose pictures are read in the order of the payload files."""


class Archive(Mapping[str, Image.Image]):
    """One snapshot of an archive. ``archive[key]`` is a Pillow image; iteration is over the keys, sorted.

    Later snapshots do not disturb it. Safe to use from several threads. Methods raise ``KeyNotFound`` (a
    ``KeyError``), ``CorruptArchive``, ``CorruptBitstream``, ``StoreError``; ``get`` returns None for a key
    that is not there, as every mapping's does.
    """

    def __init__(
        self,
        store: Store,
        marker: Marker,
        snapshot: Snapshot | None,
        *,
        device: str = "cpu",
        precision: str = "auto",
    ) -> None:
        self.store, self.marker, self.snapshot = store, marker, snapshot
        self._parts = () if snapshot is None else snapshot.index
        self._maxima = [part.max_key.encode("utf-8", "replace") for part in self._parts]
        self._sizes = PayloadSizes(store, snapshot)
        self._files: dict[int, IndexFile] = {}
        self._groups: OrderedDict[tuple[int, int, bool], pa.Table] = OrderedDict()
        self._lock = threading.Lock()
        self._again = partial(type(self), device=device, precision=precision)
        codecs = {} if snapshot is None else snapshot.codecs
        self._codecs = CodecShelf(store, codecs, device=device, precision=precision)

    @classmethod
    def create(cls, url: str, storage_options: Mapping[str, Any] | None = None, *, exist_ok: bool = False) -> Self:
        """Make an empty archive, or open the one that is there if ``exist_ok``."""
        store = open_store(url, storage_options)
        marker = create_marker(store, exist_ok=exist_ok)
        return cls(store, marker, latest_snapshot(store))

    @classmethod
    def open(
        cls,
        url: str,
        storage_options: Mapping[str, Any] | None = None,
        *,
        snapshot: int | None = None,
        device: str = "cpu",
        precision: str = "auto",
    ) -> Self:
        """Open the newest snapshot, or an older one by its number.

        Raises ``ArchiveNotFound`` or ``CorruptArchive``. An archive that never had a snapshot opens empty.
        """
        store = open_store(url, storage_options)
        marker = read_marker(store)
        if snapshot is None:
            found = latest_snapshot(store)
            if found is None:
                check_jobs(store)
        elif snapshot in snapshot_numbers(store):
            found = read_snapshot(store, snapshot)
        else:
            raise ArchiveNotFound(f"{url} has no snapshot {snapshot}")
        return cls(store, marker, found, device=device, precision=precision)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled it is the same snapshot, opened anew: for workers of a torch loader, or of Ray."""
        return self._again, (self.store, self.marker, self.snapshot)

    def __repr__(self) -> str:
        if self.snapshot is None:
            return f"<Archive {self.store.url}: no snapshot yet>"
        info = self.info()
        kinds = outcomes(info.compressed, info.packed, info.stored)
        sizes = f"{bytes_text(info.source_bytes)} in {bytes_text(info.archive_bytes)}"
        return f"<Archive {self.store.url}: {many(len(self), 'picture')} ({kinds}), {sizes}, snapshot {info.snapshot}>"

    # --- the mapping ---

    def __len__(self) -> int:
        return 0 if self.snapshot is None else self.snapshot.rows

    def __iter__(self) -> Iterator[str]:
        for table in self.tables(["key"]):
            yield from table.column("key").to_pylist()

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(self._find([key], full=False))

    def __getitem__(self, key: str) -> Image.Image:
        return next(self.get_many([key]))[1]

    # --- the index ---

    def row(self, key: str) -> IndexRow:
        """The whole index row of a picture."""
        found = self._find([key], full=True)
        if key not in found:
            raise KeyNotFound(f"the archive has no picture {key!r}")
        return to_rows(found[key])[0]

    def place(self, key: str) -> Placement:
        """Where a picture is: the columns needed to read and decode it. Reads less than ``row``."""
        return self.places([key])[0]

    def places(self, keys: Sequence[str]) -> list[Placement]:
        """Where many pictures are, in the order of the keys. Packed ones come with the whole rows that rebuild them."""
        found = self._find(keys, full=False)
        for key in keys:
            if key not in found:
                raise KeyNotFound(f"the archive has no picture {key!r}")
        places = to_placements(pa.concat_tables([found[key] for key in keys])) if keys else []
        whole = self._find([place.key for place in places if place.packing is not None], full=True)
        return [to_rows(whole[place.key])[0] if place.key in whole else place for place in places]

    def rows(self) -> Iterator[IndexRow]:
        """All rows, in key order."""
        for table in self.tables():
            yield from to_rows(table)

    def tables(self, columns: Sequence[str] = COLUMNS) -> Iterator[pa.Table]:
        """The index in key order as checked tables of some thousand rows; ``columns`` are index columns."""
        if unknown := set(columns) - set(COLUMNS):
            raise UsageError(f"the index has no column {min(unknown)!r}")
        for number in range(len(self._parts)):
            file = self._file(number)
            for group in range(file.groups):
                yield file.read(group, columns)

    def table(self, columns: Sequence[str] = COLUMNS) -> pa.Table:
        """The whole index, or some columns of it."""
        tables = list(self.tables(columns))
        return pa.concat_tables([pa.schema([SCHEMA.field(name) for name in columns]).empty_table(), *tables])

    @property
    def index_files(self) -> list[str]:
        """URLs of the Parquet files of the index, in key order: what DuckDB, Polars or pandas are to read."""
        return [f"{self.store.url}/{layout.snapshot_file_path(part.record.file)}" for part in self._parts]

    # --- bytes ---

    def payload(self, place: Placement) -> bytes:
        """The bitstream, or the original file, which may be packed (``original``); its CRC was right."""
        return self.payloads([place], side=False)[0][0]

    def side(self, place: Placement) -> bytes:
        """The packed side data (``side.unpack_side``), empty if there is none; its CRC was right."""
        if place.side_offset is None or place.side_length is None:
            return b""
        data = self._read([(layout.shard_path(place.shard), place.side_offset, place.side_length)])[0]
        return _checked(data, place.side_crc32c, f"side data of {place.key!r}")

    def payloads(self, places: Sequence[Placement], *, side: bool = True) -> list[tuple[bytes, bytes]]:
        """Payload and side data of many pictures, in the order of ``places``; reads of neighbours are joined.

        All are held in memory. Raises ``CorruptArchive`` for a CRC that is wrong.
        """
        ranges = []
        for place in places:
            path = layout.shard_path(place.shard)
            ranges.append((path, place.offset, place.length))
            ranges.append((path, place.side_offset or 0, (place.side_length or 0) if side else 0))
        pieces = self._read(ranges)
        results = []
        for place, data, extra in zip(places, pieces[::2], pieces[1::2], strict=True):
            _checked(data, place.crc32c, f"payload of {place.key!r}")
            if extra:
                _checked(extra, place.side_crc32c, f"side data of {place.key!r}")
            results.append((data, extra))
        return results

    def original(self, key: str) -> bytes:
        """The original file of a picture that was packed or stored. Raises ``ArchiveError`` for a compressed one."""
        place = self.place(key)
        if not place.is_original:
            raise ArchiveError(f"{key!r} was compressed; its original bytes are not in the archive")
        return original_bytes(place, self.payload(place))

    # --- pictures ---

    def codec(self, digest: str) -> Codec:
        """A codec of this archive, loaded from the archive's own files."""
        return self._codecs.get(digest)

    def array(self, key: str) -> NDArray[Any]:
        """The pixels: (height, width) or (height, width, channels) of the picture's mode; uint8 as a rule."""
        return np.asarray(self[key])

    def get_many(self, keys: Iterable[str], *, skip_undecodable: bool = False) -> Iterator[tuple[str, Image.Image]]:
        """Keys and pictures in the order asked for; reads are joined and decoding is batched.

        Original files are opened with Pillow; one that does not decode raises ``UndecodablePicture``, or is
        left out (``original`` has its bytes). A missing key raises ``KeyNotFound``, before the pictures of those
        that are looked up together with it.
        """
        iterator = iter(keys)
        while some := list(islice(iterator, LOCATE)):
            yield from self._pictures(self.places(some), skip_undecodable)

    def pictures(self, *, skip_undecodable: bool = False) -> Iterator[tuple[str, Image.Image]]:
        """All pictures, some ten thousand keys after another, and among these in the order of the payload files.

        So an archive of any size is read in bounded memory, and one whose sources were listed in order from end to end.
        """
        tables = self.tables()
        while some := list(islice(tables, TOGETHER)):
            rows = [row for table in some for row in to_rows(table)]
            rows.sort(key=lambda row: (row.shard, row.offset))
            yield from self._pictures(rows, skip_undecodable)

    def decode(self, places: Sequence[Placement]) -> list[Image.Image]:
        """Read and decode pictures as one batch; the caller bounds its size."""
        return [image for image in self._decode(places, False) if image is not None]

    def _pictures(self, places: Sequence[Placement], skip_undecodable: bool) -> Iterator[tuple[str, Image.Image]]:
        for window in windows(places):
            for place, image in zip(window, self._decode(window, skip_undecodable), strict=True):
                if image is not None:
                    yield place.key, image

    def _decode(self, places: Sequence[Placement], skip_undecodable: bool) -> list[Image.Image | None]:
        from lichen.pipeline.pictures.reading import to_pil

        images: list[Image.Image | None] = []
        for found in decode_all(load_codecs(self.codec, places), places, self.payloads(places)):
            place, decoded = found.place, found.decoded
            if found.error is not None:
                raise found.error
            if decoded is not None:
                images.append(to_pil(decoded.pixels, place.mode or "", found.side))
                continue
            try:
                images.append(open_original(found.payload, place.key))
            except UndecodablePicture:
                if not skip_undecodable:
                    raise
                images.append(None)
        return images

    # --- the whole ---

    def info(self) -> ArchiveInfo:
        """What is in the archive and how large it is. Reads nothing but what is in memory already."""
        snapshot = self.snapshot
        names = ("pictures", "compressed", "packed", "stored", "pixels", "source_bytes", "payload_bytes")
        totals = dict.fromkeys(names, 0)
        if snapshot is not None:
            totals = {name: snapshot.totals[name] for name in totals}
        codecs = {} if snapshot is None else snapshot.codecs
        return ArchiveInfo(
            url=self.store.url,
            id=self.marker.id,
            created=self.marker.created,
            snapshot=None if snapshot is None else snapshot.number,
            jobs=() if snapshot is None else snapshot.jobs,
            payload_file_bytes=0 if snapshot is None else snapshot.payload_bytes,
            index_bytes=0 if snapshot is None else snapshot.index_bytes,
            codec_bytes=sum(sum(sizes.values()) for sizes in codecs.values()),
            codecs=tuple(codecs),
            **totals,
        )

    # --- internals ---

    def _file(self, number: int) -> IndexFile:
        with self._lock:
            if number not in self._files:
                self._files[number] = open_part(self.store, self._parts[number], self._sizes)
            return self._files[number]

    def _group(self, part: int, group: int, full: bool) -> pa.Table:
        """A row group with all columns or those of ``Placement``; the last few are kept."""
        name = (part, group, full)
        with self._lock:
            for there in (name, (part, group, True)):
                if there in self._groups:
                    self._groups.move_to_end(there)
                    table = self._groups[there]
                    return table if full else table.select(list(PLACEMENT_COLUMNS))
        table = self._file(part).read(group, COLUMNS if full else PLACEMENT_COLUMNS)
        with self._lock:
            self._groups[name] = table
            while len(self._groups) > CACHED_GROUPS:
                self._groups.popitem(last=False)
        return table

    def _find(self, keys: Iterable[str], *, full: bool) -> dict[str, pa.Table]:
        """Tables of one row for those of the keys that exist."""
        wanted: dict[tuple[int, int], list[str]] = {}
        for key in dict.fromkeys(keys):
            try:
                encoded = key.encode()
            except UnicodeEncodeError:  # half a surrogate pair is in no index
                continue
            part = bisect_left(self._maxima, encoded)
            if part < len(self._maxima):
                for group in self._file(part).groups_with(key):
                    wanted.setdefault((part, group), []).append(key)
        found: dict[str, pa.Table] = {}
        for (part, group), some in wanted.items():
            table = self._group(part, group, full)
            numbers = pc.index_in(pa.array(some, pa.string()), value_set=table.column("key").combine_chunks())
            for key, number in zip(some, numbers.to_pylist(), strict=True):
                if number is not None:
                    found[key] = table.slice(number, 1)
        return found

    def _read(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        try:
            return self.store.read_ranges(ranges)
        except MissingObject as error:
            raise CorruptArchive(f"a payload file is missing: {error}") from error


def _checked(data: bytes, expected: int | None, what: str) -> bytes:
    if crc32c(data) != expected:
        raise CorruptArchive(f"the {what} fails its checksum")
    return data
