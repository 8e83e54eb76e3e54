"""Choosing pictures of an archive by key or by glob."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import translate

from lichen.errors import UsageError
from lichen.pipeline.archive.index import IndexRow, to_rows
from lichen.pipeline.archive.reader import Archive

_WILD = frozenset("*?[")


def select(archive: Archive, patterns: Sequence[str] = ()) -> Iterator[list[IndexRow]]:
    """Rows of the pictures that the patterns choose, in batches of some thousand; every row once.

    No pattern chooses everything. A pattern that is a key chooses that picture, even if it looks like a glob; any
    other is a glob of ``*``, ``?`` and ``[...]`` over whole keys, where ``*`` also crosses folders. Rows come in key
    order as soon as one pattern is a glob or there is none. Raises ``UsageError`` for a pattern that chooses
    nothing: at once for a name, at the end for a glob.
    """
    if not patterns:
        for table in archive.tables():
            yield to_rows(table)
        return
    names, globs = [], []
    for pattern in dict.fromkeys(patterns):
        if pattern in archive:
            names.append(pattern)
        elif _WILD & set(pattern):
            globs.append(pattern)
        else:
            raise UsageError(f"the archive has no picture {pattern!r}")
    if not globs:
        yield [archive.row(name) for name in names]
        return
    expressions = {glob: re.compile(translate(glob)) for glob in globs}
    unmatched = set(globs)
    chosen = set(names)
    for table in archive.tables():
        mask = []
        for key in table.column("key").to_pylist():
            hits = {glob for glob, expression in expressions.items() if expression.match(key)}
            unmatched -= hits
            mask.append(bool(hits) or key in chosen)
        yield to_rows(table.filter(mask))
    if unmatched:
        raise UsageError(f"the archive has no picture that matches {min(unmatched)!r}")
