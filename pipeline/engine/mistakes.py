"""What somebody cannot have meant: a destination full of pictures, a source that is an archive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lichen.errors import LichenError, UsageError
from lichen.pipeline.archive.marker import read_marker
from lichen.pipeline.archive.store import Store, open_store
from lichen.pipeline.formats import EXTENSIONS, extension
from lichen.pipeline.secrets import redact_uri

LOOKED_AT = 1_000
"""Names in a destination that are looked at."""


def refuse_pictures(store: Store) -> None:
    """Raise ``UsageError`` where a new archive would lie among pictures: most likely it was to be made of them.

    Pictures in folders of the destination are nobody's mistake, and an archive that is there may go on.
    """
    picture = next((name for name in store.first_names(LOOKED_AT) if extension(name) in EXTENSIONS), None)
    if picture is not None:
        raise UsageError(
            f"{store.url} holds pictures ({picture}) and is no archive. The archive comes last, and wants a folder of "
            "its own: lichen compress PICTURES ARCHIVE"
        )


def refuse_archives(sources: Iterable[str], options: Mapping[str, Any], archive: Store) -> None:
    """Raise ``UsageError`` for a source that is an archive itself, other than the one that the job is for."""
    for name in sources:
        if _is_archive(name, options, archive):
            raise UsageError(
                f"{redact_uri(name)} is an archive; its pictures come out with `lichen decode {redact_uri(name)} --to "
                "FOLDER`, and originals of an archive are compressed again from there"
            )


def _is_archive(name: str, options: Mapping[str, Any], archive: Store) -> bool:
    try:
        store = open_store(name, options)
        if store.url == archive.url:
            return False
        read_marker(store)
    except (LichenError, OSError):  # what is wrong with a source is told where it is listed
        return False
    return True
