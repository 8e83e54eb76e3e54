"""A folder on a local disk as a store."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from lichen.pipeline.archive import layout
from lichen.pipeline.archive.store_base import Store


class LocalStore(Store):
    """A folder. Written with the os module: a name appears only when the whole content is on the disk.

    It may be read through symbolic links, but nothing is written or deleted where one leads: what is there is not
    the archive's.
    """

    def _temporary(self) -> Path:
        return self._place(f"{self.root}/{layout.temporary_path()}")

    def _place(self, path: str) -> Path:
        """Where to write a path of the archive: its folder is there, and no link leads to it."""
        target = Path(path)
        if (link := self._link_to(target)) is not None:
            raise OSError(errno.ELOOP, f"{link} is a symbolic link, and an archive is written through none")
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _link_to(self, target: Path) -> Path | None:
        """The first folder on the way from the archive to a path that is a symbolic link."""
        root = Path(self.root)
        above = [folder for folder in target.parents if folder != root and folder.is_relative_to(root)]
        return next((folder for folder in reversed(above) if folder.is_symlink()), None)

    def _write(self, chunks: Iterable[bytes]) -> Path:
        path = self._temporary()
        try:
            with path.open("xb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def _create(self, path: str, data: bytes) -> bool:
        target = Path(path)
        if not self.conditional:
            if target.exists():
                return False
            self._put(path, data)
            return True
        self._place(path)
        source = self._write([data])
        try:
            os.link(source, target)
        except FileExistsError:
            return False
        finally:
            source.unlink()
        _sync_folder(target.parent)
        return True

    def _publish(self, source: Path, path: str) -> None:
        target = Path(path)
        os.replace(source, target)
        _sync_folder(target.parent)

    def _put(self, path: str, data: bytes) -> None:
        self._place(path)
        self._publish(self._write([data]), path)

    def _put_file(self, path: str, local: Path) -> None:
        self._place(path)
        with local.open("rb") as file:
            self._publish(self._write(iter(lambda: file.read(1 << 20), b"")), path)

    def _delete(self, path: str) -> None:
        target = Path(path)
        if not stat.S_ISREG(os.lstat(target).st_mode) or self._link_to(target) is not None:
            raise OSError(errno.EPERM, "not a regular file of the archive; it stays")
        target.unlink()

    def _look(self, path: str) -> None:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.ENXIO, "not a regular file")

    def _list(self, folder: str) -> Iterator[tuple[str, int, float, bool]]:
        direct = self._link_to(Path(folder, "any")) is None
        for parent, _, names in os.walk(folder, onerror=self._unlisted):
            for name in names:
                path = os.path.join(parent, name)
                try:
                    plain = direct and stat.S_ISREG(os.lstat(path).st_mode)
                    status = os.stat(path)
                except FileNotFoundError:  # deleted meanwhile, or a link to nothing
                    continue
                except OSError as error:
                    if error.errno in (errno.ELOOP, errno.ENOTDIR):  # a link to itself, or through a file
                        continue
                    raise
                yield path, status.st_size, status.st_mtime, plain

    def _names(self, folder: str) -> Iterator[str]:
        if os.path.lexists(folder) and (os.path.islink(folder) or not os.path.isdir(folder)):
            yield folder
            return
        for parent, folders, names in os.walk(folder, onerror=self._unlisted):
            links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
            yield from (os.path.join(parent, name) for name in (*names, *links))

    def _top(self) -> Iterator[str]:
        with os.scandir(self.root) as entries:
            yield from (entry.name for entry in entries)

    def _unlisted(self, error: OSError) -> None:
        """A folder that cannot be listed must not look like an empty one, unless it is none of ours (lost+found)."""
        top = os.path.relpath(error.filename or self.root, self.root).split("/")[0]
        if not isinstance(error, FileNotFoundError) and top in (".", *layout.FOLDERS):
            raise error


def _sync_folder(folder: Path) -> None:
    """Make new names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
