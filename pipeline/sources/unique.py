"""Every key once: a check over a stream that needs 16 bytes a source, and no search while keys ascend."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from hashlib import blake2b
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from lichen.choices import OnDuplicate
from lichen.errors import DuplicateKey, UsageError
from lichen.pipeline.secrets import redact_uri
from lichen.pipeline.sources.base import Source

_RECENT = 1 << 17


def check_unique(sources: Iterable[Source], on_duplicate: OnDuplicate = "error") -> Iterator[Source]:
    """Pass sources on, each key once.

    A second source with the same key raises ``DuplicateKey`` (``error``), is left out (``first``) or gets a
    free key such as ``a (2).jpg`` (``rename``). One with a fault never raises, since nothing of it is archived.
    The same file under the same key (a line that a manifest has twice, a folder that is named twice) is one source.
    Keys are compared by 64-bit digests: among ten million, the chance that two different ones meet is 3 in a
    million.
    """
    if on_duplicate not in get_args(OnDuplicate):
        raise UsageError(f"on_duplicate must be one of {', '.join(get_args(OnDuplicate))}, not {on_duplicate!r}")
    return _check_unique(sources, on_duplicate)


def _check_unique(sources: Iterable[Source], on_duplicate: OnDuplicate) -> Iterator[Source]:
    seen, places = _KeySet(), _KeySet()
    for source in sources:
        again = not places.add(f"{source.key}\0{source.uri}\0{source.offset}")
        if seen.add(source.key):
            yield source
        elif again:
            continue
        elif on_duplicate == "error" and source.fault is None:
            raise DuplicateKey(
                f"two sources have the key {source.key!r}; the second is {redact_uri(source.uri)}. Choose "
                "--on-duplicate first or rename, or give keys in a Parquet manifest"
            )
        elif on_duplicate != "first":
            folder, slash, name = source.key.rpartition("/")
            stem, dot, suffix = name.rpartition(".")
            if not stem:
                stem, dot, suffix = name, "", ""
            number = 2
            while not seen.add(key := f"{folder}{slash}{stem} ({number}){dot}{suffix}"):
                number += 1
            yield replace(source, key=key)


class _KeySet:
    """Digests of keys: recent ones in a set, older ones in sorted arrays whose sizes double."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._runs: list[NDArray[np.uint64]] = []
        self._last: str | None = None

    def add(self, key: str) -> bool:
        """Add a key; False if it was there."""
        digest = int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
        if self._last is None or key > self._last:  # greater than all before: new without looking
            self._last = key
        elif digest in self._recent or any(self._holds(run, digest) for run in self._runs):
            return False
        self._recent.add(digest)
        if len(self._recent) >= _RECENT:
            self._fold()
        return True

    @staticmethod
    def _holds(run: NDArray[np.uint64], digest: int) -> bool:
        value = np.uint64(digest)
        place = int(np.searchsorted(run, value))
        return place < len(run) and bool(run[place] == value)

    def _fold(self) -> None:
        run = np.sort(np.fromiter(self._recent, np.uint64, len(self._recent)))
        self._recent.clear()
        while self._runs and len(self._runs[-1]) <= len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]), kind="stable")
        self._runs.append(run)
