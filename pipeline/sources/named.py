"""What a single file that was named as a source is, where it is neither a picture nor a list of sources.

Somebody who names a ``.zip`` or a ``.csv`` means the pictures in it. Such a file is refused with what to do
instead; in a folder it is one file among others, and is named with the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lichen.errors import SourceUnreadable, UsageError
from lichen.pipeline.formats import CONTAINERS, EXTENSIONS, container, extension, sniff
from lichen.pipeline.secrets import redact_uri
from lichen.pipeline.sources.base import Source, is_local, local_path
from lichen.pipeline.sources.fetch import fetch
from lichen.pipeline.sources.stores import open_regular, store_errors
from lichen.pipeline.sources.tars import COMPRESSED_MAGIC, COMPRESSED_TARS

HEAD = 1024
"""Bytes from the beginning of a file that tell what kind of file it is."""


def refuse_container(source: Source, options: Mapping[str, Any] | None, *, others: bool) -> None:
    """Raises ``UsageError`` for a named file that holds, or lists, what the user means, but not for lichen to read.

    The content counts more than the name: a picture is a picture, whatever it is called. With ``others``, files that
    are no pictures are wanted too, and only compressed tar files are refused.
    """
    name, lower = redact_uri(source.uri), source.key.lower()
    head = b"" if others and not lower.endswith(".tar") else _head(source, options)
    if lower.endswith(COMPRESSED_TARS) or (lower.endswith(".tar") and head.startswith(COMPRESSED_MAGIC)):
        raise UsageError(f"{name} is compressed; pictures in it cannot be read singly. Unpack it first")
    if others or lower.endswith(".tar") or sniff(head) is not None:
        return
    claim = extension(source.key)
    kind = container(head) or CONTAINERS.get(claim)
    if kind is not None and claim not in EXTENSIONS:
        raise UsageError(f"{name} is {kind}")


def _head(source: Source, options: Mapping[str, Any] | None) -> bytes:
    try:
        with store_errors("head", options):
            if is_local(source.uri):
                with open_regular(local_path(source.uri)) as file:
                    return file.read(HEAD)
            if source.size == 0:
                return b""
            return fetch(source.uri, options, end=min(HEAD, source.size or HEAD), max_bytes=HEAD).data
    except SourceUnreadable:
        return b""  # reading it will tell the cause
