"""The decoders inside an archive: put there once, by content digest, and loaded from there."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Protocol

from lichen.errors import CorruptArchive, InvalidCodec, MissingObject
from lichen.models.bundle import MAX_JSON_BYTES, parse_card
from lichen.models.codec import Codec
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.store import Store
from lichen.pipeline.archive.verified import create_verified
from lichen.pipeline.sources.base import is_utf8

MAX_CODEC_BYTES = 1 << 30


class HasDecoder(Protocol):
    """A codec, or what is known of one: its digest, and its decoder's files by extension."""

    @property
    def digest(self) -> str: ...
    def decoder_files(self) -> Mapping[str, bytes]: ...


def put_codec(store: Store, codec: HasDecoder) -> dict[str, int]:
    """Put a codec's decoder files into the archive, unless they are there; extension to size in bytes.

    The JSON file comes last: where it is, the others are. Files of the same digest decode alike, so
    those of the first who put them stay. Raises ``CorruptArchive`` if what is there is not this codec: pictures that
    are added would not decode with it.
    """
    files = codec.decoder_files()
    there: dict[str, bytes] = {}
    for extension in sorted(files, key=lambda name: (name == "json", name)):
        path = layout.codec_path(codec.digest, extension)
        if store.exists(path) or not create_verified(store, path, files[extension]):
            there[extension] = store.read_range(path, 0, store.size(path))
    if any(there[extension] != files[extension] for extension in there):
        _check_same(codec.digest, {**files, **there})
    return {extension: len(content) for extension, content in files.items()}


def _check_same(digest: str, files: Mapping[str, bytes]) -> None:
    if not _makes(digest, files):
        raise CorruptArchive(
            f"the files {layout.codec_path(digest, 'json')} and beside it are damaged; put them back from a copy of "
            "the archive, or delete them, and the same command puts them there again"
        )


def _makes(digest: str, files: Mapping[str, bytes]) -> bool:
    from lichen.models.registry import codec_from_files

    try:
        return codec_from_files(files).digest == digest
    except InvalidCodec:
        return False


def codec_files(store: Store, stated: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """All codec files of the archive: digest to extension to size. ``stated`` are those of its newest snapshot.

    What a snapshot states stays, though a file is missing or cut now: who puts it back must find its pictures again,
    and until then it must be missed. It changes only where other files make the same codec.
    """
    found: dict[str, dict[str, int]] = {}
    for entry in store.entries(layout.CODECS):
        digest, _, extension = entry.path.rpartition("/")[2].partition(".")
        if layout.is_name("digest", digest) and layout.is_name("extension", extension):
            found.setdefault(digest, {})[extension] = entry.size
    for digest, sizes in stated.items():
        there = found.get(digest, {})
        same = all(there.get(extension) == size for extension, size in sizes.items())
        if same or not (there and _is_codec(store, digest, there)):
            found[digest] = dict(sizes)
    return found


def _is_codec(store: Store, digest: str, sizes: Mapping[str, int]) -> bool:
    """Whether files of the archive make the codec of a digest."""
    if max(sizes.values()) > MAX_CODEC_BYTES:
        return False
    files = {name: store.read_range(layout.codec_path(digest, name), 0, size) for name, size in sizes.items()}
    return _makes(digest, files)


def codec_name(store: Store, digest: str) -> str:
    """What a codec of the archive calls itself; its family where it has no name. Raises ``CorruptArchive``.

    The card is the codec's own file, with formats of its own: it is no record of the archive.
    """
    path = layout.codec_path(digest, "json")
    try:
        card = parse_card({"json": store.read(path, limit=MAX_JSON_BYTES)})
    except MissingObject as error:
        raise CorruptArchive(f"{path} is missing") from error
    except InvalidCodec as error:
        raise CorruptArchive(f"{path}: {error}") from error
    name = card.get("name", card.get("family"))
    if not isinstance(name, str) or not is_utf8(name):
        raise CorruptArchive(f"{path} does not say which codec it is")
    return name


class CodecShelf:
    """Loads the codecs of an archive when they are first needed, and keeps them. Thread-safe."""

    def __init__(self, store: Store, codecs: Mapping[str, Mapping[str, int]], *, device: str, precision: str) -> None:
        """``codecs`` as in a snapshot: digest to extension to size."""
        self._store, self._codecs = store, codecs
        self._device, self._precision = device, precision
        self._loaded: dict[str, Codec] = {}
        self._lock = threading.Lock()

    def get(self, digest: str) -> Codec:
        """The codec of a digest. Raises ``CorruptArchive`` or ``InvalidCodec``."""
        with self._lock:
            if digest not in self._loaded:
                self._loaded[digest] = self._load(digest)
            return self._loaded[digest]

    def _load(self, digest: str) -> Codec:
        # Late, because the codecs import torch and most uses of an archive do not need one.
        from lichen.models.registry import codec_from_files

        if digest not in self._codecs:
            raise CorruptArchive(f"the snapshot does not list codec {digest[:80]!r}")
        files = {}
        for extension, size in self._codecs[digest].items():
            path = layout.codec_path(digest, extension)
            if size > MAX_CODEC_BYTES:
                raise CorruptArchive(f"{path}: {size} bytes are too many for a codec")
            try:
                found = self._store.size(path)
                if found != size:
                    raise CorruptArchive(f"{path} has {found} bytes instead of {size}")
                files[extension] = self._store.read_range(path, 0, size)
            except MissingObject as error:
                raise CorruptArchive(f"{path} is missing") from error
        codec = codec_from_files(files, device=self._device, precision=self._precision, digest=digest)
        if codec.digest != digest:
            raise CorruptArchive(f"the files of codec {digest} make codec {codec.digest}")
        return codec
