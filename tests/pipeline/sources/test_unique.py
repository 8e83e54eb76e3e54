"""Every key once."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from lichen.errors import DuplicateKey, UsageError
from lichen.pipeline.sources import Source, check_unique, unique


def plain(*names: str) -> list[Source]:
    return [Source(key=name, uri=f"/{i}/{name}") for i, name in enumerate(names)]


def test_unique_passes_through() -> None:
    sources = plain("b", "a", "c")
    assert list(check_unique(sources)) == sources


def test_duplicates() -> None:
    sources = plain("a/x.jpg", "b", "a/x.jpg", "a/x (2).jpg", "a/x.jpg", "b", ".rc", ".rc")
    with pytest.raises(DuplicateKey, match=r"a/x\.jpg"):
        list(check_unique(sources))
    assert [s.uri[:2] for s in check_unique(sources, "first")] == ["/0", "/1", "/3", "/6"]
    renamed = [s.key for s in check_unique(sources, "rename")]
    assert renamed[:5] == ["a/x.jpg", "b", "a/x (2).jpg", "a/x (2) (2).jpg", "a/x (3).jpg"]
    assert renamed[5:] == ["b (2)", ".rc", ".rc (2)"]
    with pytest.raises(UsageError):
        check_unique(sources, "last")  # type: ignore[arg-type]


def test_the_same_file_again_is_one_source() -> None:
    """A line that a manifest has twice, a folder that is named twice; but not two members of a tar file."""
    twice = [Source(key=key, uri=f"/{key}") for key in ("a", "b", "a", "b")]
    for choice in ("error", "first", "rename"):
        assert [source.key for source in check_unique(twice, choice)] == ["a", "b"]  # type: ignore[arg-type]
    members = [Source(key="a", uri="/x.tar", offset=offset, size=1) for offset in (512, 2048, 512)]
    with pytest.raises(DuplicateKey):
        list(check_unique(members))
    assert [source.key for source in check_unique(members, "rename")] == ["a", "a (2)"]


def test_bad_entries_are_no_duplicates() -> None:
    """Two manifests of one name, each with a line of nonsense, are no reason to refuse the job."""
    bad = [Source(key="list.txt:3", uri=f"/{name}/list.txt", fault="nonsense") for name in "ab"]
    assert [source.key for source in check_unique(bad)] == ["list.txt:3", "list (2).txt:3"]
    assert len(list(check_unique(bad, "first"))) == 1


def test_unique_at_scale_needs_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unsorted keys are found again across the folded runs, at some 8 bytes each."""
    monkeypatch.setattr(unique, "_RECENT", 1024)
    count = 20_000

    def stream() -> Iterator[Source]:
        for i in range(count):
            yield Source(key=f"{(i * 7919) % count:06d}/{'path' * 10}", uri="/x")
        yield Source(key=f"{12345:06d}/{'path' * 10}", uri="/again")

    tracemalloc.start()
    with pytest.raises(DuplicateKey, match="/again"):
        for _ in check_unique(stream()):
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6
