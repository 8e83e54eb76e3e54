"""Pictures of an archive back into a folder of files."""

from __future__ import annotations

import os
import secrets
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from lichen.models.errors import LichenError, UsageError
from lichen.pipeline.archive.index import IndexRow
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.images import save_picture, to_pil
from lichen.pipeline.unpack import Unpacked, unpack

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
    """What was written. ``left_out`` counts compressed pictures where only originals were asked for."""

    written: int
    originals: int
    bytes: int
    left_out: int
    problems: tuple[Problem, ...]


def keeps_name(key: str, format_: Format) -> bool:
    """Whether the file of a picture has the ending that its key has."""
    return format_ == "original" or os.path.splitext(key)[1].lower() in _ENDINGS[format_]


class Destination:
    """The files of one folder: a path of its own for every key, and none outside the folder.

    Folders of keys become folders. Parts of a key that mean something else to a file system (empty, ``.``, ``..``,
    control characters) are written as ``%`` and two hexadecimal digits for each character. Where the ending
    changes, ``a.jpg`` becomes ``a.png``, or ``a.jpg.png`` if another picture of this export has that name already. A
    picture whose own name is taken has its ending twice.
    """

    def __init__(self, folder: Path, *, overwrite: bool) -> None:
        self.folder = folder
        self.overwrite = overwrite
        self._taken: set[Path] = set()

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
        raise UsageError(f"another picture was already written to {path}")

    def write(self, path: Path, data: bytes) -> None:
        """Put a file there, whole or not at all. Raises ``UsageError`` if it exists and must not be replaced."""
        temporary = path.with_name(f".{secrets.token_hex(8)}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not self.overwrite:
                raise UsageError(f"{path} exists already")
            try:
                temporary.write_bytes(data)
                temporary.replace(path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error}") from error


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

    Stored pictures are written as the files that they were, byte for byte; with ``original`` only those are
    written. ``settings`` are Pillow's for the format (``quality`` of JPEG). Pictures are decoded and written in
    ``lanes`` (``unpack``); the names of the files do not depend on them. A picture that cannot be read, decoded or
    written is a problem in the result and stops nothing.
    """
    if file_format not in FORMATS:
        raise UsageError(f"unknown format {file_format!r}; use one of {', '.join(FORMATS)}")
    destination = Destination(folder, overwrite=overwrite)
    counts = {"written": 0, "originals": 0, "bytes": 0, "left_out": 0}
    problems: list[Problem] = []
    for batch in batches:
        chosen = [row for row in batch if file_format != "original" or row.status == "stored"]
        counts["left_out"] += len(batch) - len(chosen)
        chosen.sort(key=lambda row: (row.shard, row.offset))
        writer = _Writer(destination, chosen, file_format, _SETTINGS.get(file_format, {}) | settings)
        for outcomes in unpack(archive, chosen, writer.write, lanes=lanes):
            for row, outcome in outcomes:
                if isinstance(outcome, LichenError):
                    problems.append(Problem(key=row.key, message=str(outcome)))
                    continue
                counts["written"] += 1
                counts["originals"] += row.status == "stored"
                counts["bytes"] += outcome
            if progress is not None:
                progress(len(outcomes))
    return ExportResult(**counts, problems=tuple(problems))


class _Writer:
    """Writes pictures of one format. Paths are chosen beforehand, so it does not matter which is ready first."""

    def __init__(
        self, destination: Destination, rows: Iterable[IndexRow], file_format: Format, settings: dict[str, Any]
    ) -> None:
        self._destination, self._format, self._settings = destination, file_format, settings
        # Pictures that keep their names have the first choice.
        ordered = sorted(rows, key=lambda row: not keeps_name(row.key, self._format_of(row)))
        self._paths = {row.key: self._path(row) for row in ordered}

    def write(self, item: Unpacked[IndexRow]) -> tuple[IndexRow, int | LichenError]:
        """Bytes of the file, or why there is none. Thread-safe."""
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
        return row, len(data)

    def _format_of(self, row: IndexRow) -> Format:
        return "original" if row.status == "stored" else self._format

    def _path(self, row: IndexRow) -> Path | UsageError:
        try:
            return self._destination.path(row.key, self._format_of(row))
        except UsageError as error:
            return error

    def _file_bytes(self, item: Unpacked[IndexRow]) -> bytes:
        if item.decoded is None:
            return item.payload
        image = to_pil(item.decoded.pixels, item.place.mode or "", item.side)
        buffer = BytesIO()
        save_picture(image, buffer, self._format.upper(), blocks=item.side.blocks, **self._settings)
        return buffer.getvalue()


def _safe(part: str) -> str:
    """A part of a key as a file name; almost always as it is."""
    if part in ("", ".", ".."):
        return part.replace(".", "%2E") or "%"
    return "".join(f"%{ord(c):02X}" if ord(c) < 32 or c == "\x7f" else c for c in part)
