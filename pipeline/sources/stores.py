"""File systems of sources: opened by URI, and made to fail in one way only."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import fsspec

from lichen.errors import LichenError, SourceUnreadable, UsageError
from lichen.pipeline.secrets import redact, redact_uri, secret_values, split_credentials
from lichen.pipeline.sources.base import is_local, key_text, local_path

_KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


def open_file_system(uri: str, storage_options: Mapping[str, Any] | None) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URI and the path in it. Not ``url_to_fs``: names may contain its chaining ``::``.

    User and password in the URI become options; those that were given besides count more. Raises ``UsageError``
    for a scheme that fsspec does not know, whose package is missing, or that needs what the URI does not tell.
    """
    clean, credentials = split_credentials(uri)
    scheme = clean.partition("://")[0]
    options = {**credentials, **(storage_options or {})}
    try:
        kind = fsspec.get_filesystem_class(scheme)
        # Host, port and the like. S3 would take a question mark in a name for a version.
        place = {} if scheme in ("s3", "s3a") else kind._get_kwargs_from_urls(clean)  # noqa: SLF001
        return kind(**{**place, **options}), str(fsspec.core.strip_protocol(clean))
    except Exception as error:  # noqa: BLE001 - file systems raise what they like
        message = redact(f"{type(error).__name__}: {error}", secret_values(options))
        raise UsageError(f"cannot open {redact_uri(uri)}: {message}") from shown_cause(error)


@contextmanager
def store_errors(what: str, options: Mapping[str, Any] | None = None, uri: str = "") -> Iterator[None]:
    """Whatever a file system raises becomes ``SourceUnreadable`` that begins with ``what``, without secrets.

    File systems come from many packages, and raise their own errors beside those of Python. Lichen's own pass.
    """
    try:
        yield
    except LichenError:
        raise
    except Exception as error:  # noqa: BLE001 - see above
        known = secret_values({**split_credentials(uri)[1], **(options or {})})
        message = redact(f"{what}: {type(error).__name__}: {error}", known)
        raise SourceUnreadable(message) from shown_cause(error)


def shown_cause(error: Exception) -> Exception | None:
    """The error as the cause of another, unless a traceback of it would show a secret."""
    return error if redact(str(error)) == str(error) else None


def check_regular(status: os.stat_result, name: str) -> None:
    """Raises ``SourceUnreadable`` for pipes, sockets and devices, whose bytes may never come or never end."""
    if not stat.S_ISREG(status.st_mode):
        kind = next((word for test, word in _KINDS.items() if test(status.st_mode)), "no file")
        raise SourceUnreadable(f"{key_text(name)} is {kind}; only regular files are read")


def open_regular(path: str) -> IO[bytes]:
    """Open a local file for reading; never waits for a writer, even if a pipe has taken the file's place."""
    check_regular(os.stat(path), path)  # opening a device can already do something
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        check_regular(os.fstat(descriptor), path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def open_binary(uri: str, options: Mapping[str, Any] | None, **settings: Any) -> IO[bytes]:
    """Open a URI for reading; ``settings`` (caching) matter only for stores that are not local."""
    if is_local(uri):
        return open_regular(local_path(uri))
    file_system, path = open_file_system(uri, options)
    # fsspec's own files lack parts of the standard interface, such as readline with a limit
    return io.BufferedReader(file_system.open(path, "rb", **settings))
