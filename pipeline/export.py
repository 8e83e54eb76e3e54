"""Pictures of an archive back into a folder of files."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from lichen.errors import LichenError, UsageError
from lichen.pipeline.archive.decoding import Unpacked
from lichen.pipeline.archive.index import IndexRow
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.images import save_picture, to_pil
from lichen.pipeline.names import is_hidden
from lichen.pipeline.pictures.saving import not_carried
from lichen.pipeline.unpack import unpack

Format = Literal["png", "jpeg", "original"]
FORMATS: tuple[Format, ...] = ("png", "jpeg", "original")

_ENDINGS = {"png": (".png",), "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif")}
_SETTINGS: dict[Format, dict[str, Any]] = {"png": {"compress_level": 1, "compress_type": zlib.Z_RLE}}
"""Pillow's defaults for PNG cost several times as much, a good part of what decoding does: its default level makes
photographs no smaller with the zlib in its wheels, and searching for more than runs makes them 1.4 % smaller."""
_MAX_NAME = 255
"""Bytes of a file name on the common file systems."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A picture that could not be written."""

    key: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What was written. ``left_out`` counts compressed pictures where only originals were asked for.

    ``not_carried`` counts, for each kind of metadata that the files cannot hold, the pictures that have it; it stays in
    the archive.
    """

    written: int
    originals: int
    bytes: int
    left_out: int
    problems: tuple[Problem, ...]
    not_carried: Mapping[str, int] = field(default_factory=dict)


def keeps_name(key: str, format_: Format) -> bool:
    """Whether the file of a picture has the ending that its key has."""
    return format_ == "original" or os.path.splitext(key)[1].lower() in _ENDINGS[format_]


class Destination:
    """The files of one folder: a path of its own for every key, and none outside the folder.

    Folders of keys become folders. The folder itself may be a symbolic link, but nothing is written through links
    inside it, whoever put them there. Parts of a key that mean something else to a file system (empty, ``.``,
    ``..``) and characters that nobody sees (``is_hidden``) are written as ``%`` and two hexadecimal digits for each
    byte. Where the ending
    changes, ``a.jpg`` becomes ``a.png``, or ``a.jpg.png`` if another picture of this export has that name already. A
    picture whose own name is taken has its ending twice.
    """

    def __init__(self, folder: Path, *, overwrite: bool) -> None:
        self.folder = folder
        self.overwrite = overwrite
        self._taken: set[Path] = set()
        self._written: set[tuple[int, int]] = set()
        """Device and inode of every file of this export."""
        self._lock = threading.Lock()

    def path(self, key: str, format_: Format) -> Path:
        """The path for a picture; the next call with the same key gets another. Raises ``UsageError``."""
        parts = [_safe(part) for part in key.split("/")]
        stem, ending = os.path.splitext(parts[-1])
        suffix = ending if keeps_name(key, format_) else _ENDINGS[format_][0]
        names = [stem + suffix, parts[-1] + suffix]
        if any(len(os.fsencode(part)) > _MAX_NAME for part in (*parts[:-1], names[0])):
            raise UsageError("the key is too long for a file name")
        for name in names:
            path = self.folder.joinpath(*parts[:-1], name)
            if path not in self._taken:
                self._taken.add(path)
                return path
        raise UsageError(f"another picture is to be {path}; give this key alone, with another folder for --to")

    def write(self, path: Path, data: bytes) -> None:
        """Put a file there, whole or not at all. Raises ``UsageError`` if it exists and must not be replaced."""
        *folders, name = path.relative_to(self.folder).parts
        temporary = f".{secrets.token_hex(8)}.partial"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _inner_folder(self.folder, folders) as inside:
                try:
                    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=inside)
                    with open(handle, "wb") as file:
                        file.write(data)
                    self._publish(temporary, name, inside, path)
                finally:
                    with contextlib.suppress(OSError):
                        os.unlink(temporary, dir_fd=inside)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error}") from error

    def _publish(self, temporary: str, name: str, inside: int, path: Path) -> None:
        """Give a finished file its name. What appears there in this moment is not replaced unless that was asked for.

        On a file system that takes ``A`` and ``a`` for one name, a picture never replaces another one of this export.
        """
        with self._lock:
            there = _status(name, inside)
            if there is not None and not self.overwrite:
                raise UsageError(f"{path} exists already")
            if there is not None and (there.st_dev, there.st_ino) in self._written:
                raise UsageError(f"another picture was already written to {path}, or to a name that is the same here")
            if there is None:
                _link(temporary, name, inside, path)
            else:
                os.replace(temporary, name, src_dir_fd=inside, dst_dir_fd=inside)
            if (now := _status(name, inside)) is not None:
                self._written.add((now.st_dev, now.st_ino))


def _link(temporary: str, name: str, inside: int, path: Path) -> None:
    """Give a file a name that nobody has."""
    try:
        os.link(temporary, name, src_dir_fd=inside, dst_dir_fd=inside, follow_symlinks=False)
    except FileExistsError as error:
        raise UsageError(f"{path} exists already") from error
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.replace(temporary, name, src_dir_fd=inside, dst_dir_fd=inside)


_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)
"""Error numbers of file systems where a file has one name only. There, what appears in the same moment is replaced."""


@contextlib.contextmanager
def _inner_folder(folder: Path, names: Sequence[str]) -> Iterator[int]:
    """A handle of a folder inside another, made if it is not there. Raises ``UsageError`` at a symbolic link.

    Each folder is opened from the handle of the one before, so it does not matter what others move meanwhile.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in names:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=handle)
            if (there := _status(name, handle)) is not None and stat.S_ISLNK(there.st_mode):
                raise UsageError(f"the folder {name!r} in {folder} is a symbolic link; nothing is written through it")
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)


def _status(name: str, folder: int) -> os.stat_result | None:
    """What a file or link in a folder is; None if there is none."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def export(
    archive: Archive,
    batches: Iterable[list[IndexRow]],
    folder: Path,
    *,
    file_format: Format = "png",
    overwrite: bool = False,
    lanes: int | None = None,
    progress: Callable[[int], None] | None = None,
    **settings: Any,
) -> ExportResult:
    """Write pictures (``select``) to a local folder as PNG or JPEG, with their EXIF, ICC profile and XMP.

    Packed and stored pictures are written as the files that they were, byte for byte; with ``original`` only those
    are written. ``settings`` are Pillow's for the format (``quality`` of JPEG). Pictures are decoded and written in
    ``lanes`` (``unpack``); the names of the files do not depend on them. A picture that cannot be read, decoded or
    written is a problem in the result and stops nothing.
    """
    if file_format not in FORMATS:
        raise UsageError(f"unknown format {file_format!r}; use one of {', '.join(FORMATS)}")
    destination = Destination(folder, overwrite=overwrite)
    counts = {"written": 0, "originals": 0, "bytes": 0, "left_out": 0}
    problems: list[Problem] = []
    left: Counter[str] = Counter()
    for batch in batches:
        chosen = [row for row in batch if file_format != "original" or row.is_original]
        counts["left_out"] += len(batch) - len(chosen)
        chosen.sort(key=lambda row: (row.shard, row.offset))
        writer = _Writer(destination, chosen, file_format, _SETTINGS.get(file_format, {}) | settings)
        for outcomes in unpack(archive, chosen, writer.write, lanes=lanes):
            for row, outcome in outcomes:
                if isinstance(outcome, LichenError):
                    problems.append(Problem(key=row.key, message=str(outcome)))
                    continue
                counts["written"] += 1
                counts["originals"] += row.is_original
                counts["bytes"] += outcome.size
                left.update(outcome.not_carried)
            if progress is not None:
                progress(len(outcomes))
    return ExportResult(**counts, problems=tuple(problems), not_carried=dict(sorted(left.items())))


@dataclass(frozen=True, slots=True)
class _Written:
    size: int
    not_carried: set[str]


class _Writer:
    """Writes pictures of one format. Paths are chosen beforehand, so it does not matter which is ready first."""

    def __init__(
        self, destination: Destination, rows: Iterable[IndexRow], file_format: Format, settings: dict[str, Any]
    ) -> None:
        self._destination, self._format, self._settings = destination, file_format, settings
        # Pictures that keep their names have the first choice.
        ordered = sorted(rows, key=lambda row: not keeps_name(row.key, self._format_of(row)))
        self._paths = {row.key: self._path(row) for row in ordered}

    def write(self, item: Unpacked[IndexRow]) -> tuple[IndexRow, _Written | LichenError]:
        """What the file has, or why there is none. Thread-safe."""
        row = item.place
        path = self._paths[row.key]
        if isinstance(path, UsageError):
            return row, path
        if item.error is not None:
            return row, item.error
        try:
            data = self._file_bytes(item)
            self._destination.write(path, data)
        except LichenError as error:
            return row, error
        left = set() if item.decoded is None else not_carried(item.side.blocks, self._format.upper())
        return row, _Written(len(data), left)

    def _format_of(self, row: IndexRow) -> Format:
        return "original" if row.is_original else self._format

    def _path(self, row: IndexRow) -> Path | UsageError:
        try:
            return self._destination.path(row.key, self._format_of(row))
        except UsageError as error:
            return error

    def _file_bytes(self, item: Unpacked[IndexRow]) -> bytes:
        if item.decoded is None:
            return item.payload
        image = to_pil(item.decoded.pixels, item.place.mode or "", item.side)
        settings = self._settings
        if self._format == "png":  # which has the chunks that a profile was made of
            settings = {"icc_profile": item.side.icc} | settings
        buffer = BytesIO()
        save_picture(image, buffer, self._format.upper(), blocks=item.side.blocks, **settings)
        return buffer.getvalue()


def _safe(part: str) -> str:
    """A part of a key as a file name; almost always as it is."""
    if part in ("", ".", ".."):
        return part.replace(".", "%2E") or "%"
    return "".join(_escaped(c) if is_hidden(c) else c for c in part)


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
