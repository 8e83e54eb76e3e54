"""Members of tar files, with links, hidden files, damage and holes."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sources_support import Bucket, keys, tar_bytes

from lichen.errors import SourceUnreadable, UsageError
from lichen.pipeline.sources import Source, list_sources, read_source, tars

MEMBERS = {
    "0001.jpg": b"one" * 500,
    "sub/0002.png": b"two",
    "./0003.jpg": b"",
    "long/" + "x" * 180 + ".jpg": b"4",
}
MEMBER_KEYS = ["0001.jpg", "sub/0002.png", "0003.jpg", "long/" + "x" * 180 + ".jpg"]


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_local_tar(tmp_path: Path, tar_format: int) -> None:
    path = tmp_path / "shard-000.tar"
    path.write_bytes(tar_bytes(MEMBERS, tar_format))
    sources = list(list_sources(str(path)))
    assert [source.key for source in sources] == [f"shard-000/{key}" for key in MEMBER_KEYS]
    assert [read_source(source) for source in sources] == list(MEMBERS.values())
    assert all(source.mtime == path.stat().st_mtime for source in sources)


def test_tars_inside_a_folder(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "s.tar").write_bytes(tar_bytes({"a.jpg": b"A"}))
    (tmp_path / "b.jpg").write_bytes(b"B")
    assert keys(str(tmp_path)) == ["b.jpg", "t/s/a.jpg"]


def test_s3_tar(bucket: Bucket) -> None:
    members = {**MEMBERS, "big.bin": os.urandom(700_000), "after.png": b"after"}
    bucket.file_system.pipe_file(f"{bucket.name}/s.tar", tar_bytes(members))
    sources = list(list_sources(f"{bucket.url}/s.tar", storage_options=bucket.options))
    assert len(sources) == 6
    assert all(source.etag for source in sources)
    assert [read_source(s, storage_options=bucket.options) for s in sources] == list(members.values())


def test_members_of_a_tar_that_changed_are_not_read(tmp_path: Path, bucket: Bucket) -> None:
    """Where the listing found a member, another version has other bytes."""
    path, name = tmp_path / "s.tar", f"{bucket.name}/s.tar"
    path.write_bytes(tar_bytes(MEMBERS))
    bucket.file_system.pipe_file(f"{bucket.name}/list.txt", b"s.tar\n")
    for url in (str(path), f"{bucket.url}/s.tar", f"{bucket.url}/list.txt"):
        bucket.file_system.pipe_file(name, tar_bytes(MEMBERS))
        source = next(iter(list_sources(url, storage_options=bucket.options)))
        assert read_source(source, storage_options=bucket.options) == MEMBERS["0001.jpg"]
        changed = tar_bytes(dict(reversed(MEMBERS.items())))
        if "://" in url:
            bucket.file_system.pipe_file(name, changed)
        else:
            path.write_bytes(changed)
            os.utime(path, (1, 1))
        with pytest.raises(SourceUnreadable, match="changed since it was listed"):
            read_source(source, storage_options=bucket.options)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_tars_are_refused(tmp_path: Path, mode: str) -> None:
    plain, named = tmp_path / "x.tar", tmp_path / f"x.tar.{mode[2:]}"
    for path in (plain, named):
        with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
            tar.add(__file__, "a.jpg")
        with pytest.raises(UsageError, match="compressed"):
            keys(str(path))


def test_damaged_tars(tmp_path: Path) -> None:
    """What lies before the damage is listed; the rest is one source that cannot be read, under the tar's key."""
    data = tar_bytes({"a.jpg": b"a" * 1000, "b.jpg": b"b" * 1000, "c.jpg": b"c"})
    path = tmp_path / "x.tar"
    damaged_header = bytearray(data)
    damaged_header[1536 + 3] ^= 0xFF  # the name of b.jpg: its header checksum fails
    for broken, what in (
        (data[:2500], "ends inside b.jpg"),
        (data[:2000], "damaged header"),
        (data[:1800], "damaged header"),
        (data[:1536], "cut off"),
        (bytes(damaged_header), "damaged header"),
    ):
        path.write_bytes(broken)
        good, bad = list_sources(str(path))
        assert (good.key, read_source(good)) == ("x/a.jpg", b"a" * 1000)
        assert bad.key == "x.tar"
        with pytest.raises(SourceUnreadable, match=what):
            read_source(bad)
    for broken in (b"not a tar" * 300, b"x"):
        path.write_bytes(broken)
        with pytest.raises(SourceUnreadable):
            keys(str(path))
    path.write_bytes(data)
    sources = list(list_sources(str(path)))
    path.write_bytes(data[:600])
    with pytest.raises(SourceUnreadable):
        read_source(sources[2])


@pytest.mark.parametrize("content", [b"", b"x", b"no tar" * 300, gzip.compress(tar_bytes({"a.jpg": b"A"}))])
def test_a_tar_that_is_none_stops_no_other_file(tmp_path: Path, bucket: Bucket, content: bytes) -> None:
    (tmp_path / "s.tar").write_bytes(content)
    (tmp_path / "z.jpg").write_bytes(b"Z")
    for file in tmp_path.iterdir():
        bucket.file_system.pipe_file(f"{bucket.name}/{file.name}", file.read_bytes())
    for url in (str(tmp_path), bucket.url):
        bad, good = list_sources(url, storage_options=bucket.options)
        assert (bad.key, good.key) == ("s.tar", "z.jpg")
        with pytest.raises(SourceUnreadable, match=r"s\.tar"):
            read_source(bad, storage_options=bucket.options)


def test_a_damaged_size_asks_for_no_memory(tmp_path: Path) -> None:
    """A header of a long name that claims gigabytes."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 6 << 30
    path = tmp_path / "x.tar"
    path.write_bytes(tar_bytes({"a.jpg": b"a"})[:1024] + info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    good, bad = list_sources(str(path))
    assert good.key == "x/a.jpg" and bad.fault is not None and "6,442,450,944" in bad.fault


# --- links, hidden files, holes ------------------------------------------------------------------


def write_links(path: Path, members: list[tuple[str, str, str | bytes]]) -> list[Source]:
    """A tar file of (type, name, content or target); its sources."""
    with tarfile.open(path, "w") as tar:
        for kind, name, what in members:
            info = tarfile.TarInfo(name)
            info.type = {
                "file": tarfile.REGTYPE,
                "hard": tarfile.LNKTYPE,
                "soft": tarfile.SYMTYPE,
                "folder": tarfile.DIRTYPE,
                "device": tarfile.CHRTYPE,
                "pipe": tarfile.FIFOTYPE,
            }[kind]
            if isinstance(what, bytes):
                info.size = len(what)
                tar.addfile(info, io.BytesIO(what))
            else:
                info.linkname = what
                tar.addfile(info)
    return list(list_sources(str(path)))


def contents(sources: list[Source]) -> dict[str, bytes]:
    """What can be read, by key."""
    return {source.key: read_source(source) for source in sources if source.fault is None}


def test_hard_links_in_a_real_tar(data_folder: Path) -> None:
    found = contents(list(list_sources(str(data_folder / "cases/tars/hardlink.tar"))))
    assert list(found) == ["hardlink/set/one.png", "hardlink/set/two.png", "hardlink/set/copy.png"]
    assert found["hardlink/set/copy.png"] == found["hardlink/set/one.png"] != found["hardlink/set/two.png"]


def test_links_are_what_they_lead_to(tmp_path: Path) -> None:
    sources = write_links(
        tmp_path / "x.tar",
        [
            ("soft", "early.jpg", "set/a.jpg"),
            ("file", "./set/a.jpg", b"A"),
            ("hard", "hard.jpg", "./set//a.jpg"),
            ("hard", "chain.jpg", "hard.jpg"),
            ("soft", "other/soft.jpg", "../set/./a.jpg"),
            ("soft", "absolute.jpg", "/set/a.jpg"),
            ("soft", "chained.jpg", "other/soft.jpg"),
            ("file", "set/b.jpg", b"B"),
            ("soft", "folder", "set"),
            ("soft", "through.jpg", "folder/b.jpg"),
        ],
    )
    named = {key.removeprefix("x/"): data for key, data in contents(sources).items()}
    assert len(named) == len(sources)
    a = {"early.jpg", "set/a.jpg", "hard.jpg", "chain.jpg", "other/soft.jpg", "absolute.jpg", "chained.jpg"}
    assert named == dict.fromkeys(a | {"folder/a.jpg"}, b"A") | dict.fromkeys(
        ("set/b.jpg", "folder/b.jpg", "through.jpg"), b"B"
    )


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    sources = write_links(
        tmp_path / "x.tar",
        [
            ("hard", "gone.jpg", "no/such.jpg"),
            ("soft", "outside.jpg", "../../etc/passwd"),
            ("soft", "self.jpg", "self.jpg"),
            ("soft", "ping.jpg", "pong.jpg"),
            ("soft", "pong.jpg", "ping.jpg"),
            ("folder", "set", ""),
            ("file", "set/a.jpg", b"A"),
            ("soft", "set/up", ".."),
            ("soft", "set/here", "."),
            ("soft", "to-empty", "empty"),
            ("folder", "empty", ""),
        ],
    )
    assert contents(sources) == {"x/set/a.jpg": b"A"}
    faulty = {source.key: source for source in sources if source.fault is not None}
    assert set(faulty) == {f"x/{name}.jpg" for name in ("gone", "outside", "self", "ping", "pong")}
    for source in faulty.values():
        with pytest.raises(SourceUnreadable, match="which is not in the tar file"):
            read_source(source)


def test_a_link_is_the_version_of_a_member_before_it(tmp_path: Path) -> None:
    """A tar file may have been appended to; on a disk the link would keep the old bytes."""
    sources = write_links(
        tmp_path / "x.tar", [("file", "a.jpg", b"old"), ("hard", "l.jpg", "a.jpg"), ("file", "a.jpg", b"newer")]
    )
    assert read_source(sources[-1]) == b"old"


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=8), st.sets(st.integers(0, 7), min_size=1))
def test_every_link_is_a_picture_or_named(links: list[tuple[int, int]], files: set[int]) -> None:
    """Whatever leads to whatever, in circles too: each name comes out once, with the bytes at the end of its way."""
    ways = {name: target for name, target in links if name not in files}
    members: list[tuple[str, str, str | bytes]] = [("file", f"{n}.jpg", b"%d" % n) for n in sorted(files)]
    members += [("soft", f"{name}.jpg", f"{target}.jpg") for name, target in ways.items()]
    with tempfile.TemporaryDirectory() as folder:
        sources = write_links(Path(folder) / "x.tar", members)
        found = contents(sources)
    assert sorted(source.key for source in sources) == sorted(f"x/{n}.jpg" for n in files | ways.keys())
    for name in files | ways.keys():
        end, steps = name, 0
        while end in ways and steps < 10:
            end, steps = ways[end], steps + 1
        assert found.get(f"x/{name}.jpg") == (b"%d" % end if end in files else None)


def test_names_beyond_measure(tmp_path: Path) -> None:
    """Names of megabytes, as only somebody makes them who means harm, take no time."""
    name = "a/" * (1 << 20)
    members: list[tuple[str, str, str | bytes]] = [("file", name + "x.jpg", b"X"), ("soft", "l.jpg", name)]
    sources = write_links(tmp_path / "x.tar", [*members, ("hard", "k.jpg", "b.jpg"), ("file", "b.jpg", b"B")])
    assert contents(sources) == {"x/b.jpg": b"B", "x/k.jpg": b"B"}
    faulty = [source for source in sources if source.fault is not None]
    assert len(faulty) == 2 and all(len(source.key) < 100 and len(source.fault or "") < 300 for source in faulty)


def test_hidden_members_are_treated_as_in_folders(tmp_path: Path) -> None:
    names = ["a.jpg", "._a.jpg", ".hidden/b.jpg", "__MACOSX/c.jpg", "./d.jpg", "sub/._e.jpg"]
    path = tmp_path / "x.tar"
    path.write_bytes(tar_bytes({name: name.encode() for name in names}))
    assert keys(str(path)) == ["x/a.jpg", "x/d.jpg"]
    assert keys(str(path), hidden=True) == [f"x/{name.removeprefix('./')}" for name in names]
    with tarfile.open(path) as tar:
        tar.extractall(tmp_path / "disk" / "x", filter="data")
    for hidden in (False, True):
        assert set(keys(str(tmp_path / "disk"), hidden=hidden)) == set(keys(str(path), hidden=hidden))


def test_pipes_and_devices_in_tars_are_left_out(tmp_path: Path) -> None:
    members: list[tuple[str, str, str | bytes]] = [("pipe", "p.jpg", ""), ("device", "d.jpg", ""), ("file", "a", b"A")]
    assert contents(write_links(tmp_path / "x.tar", members)) == {"x/a": b"A"}


def test_sparse_members_are_named(tmp_path: Path) -> None:
    """GNU's old form: the header lists the pieces, and only those are in the file."""
    header = bytearray(tarfile.TarInfo("hole.jpg").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[124:136] = b"%011o\0" % 512
    header[386:398], header[398:410] = b"%011o\0" % 4096, b"%011o\0" % 512
    header[483:495] = b"%011o\0" % 8192
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path = tmp_path / "x.tar"
    path.write_bytes(bytes(header) + b"s" * 512 + tar_bytes({"after.jpg": b"after"}))
    sparse, after = list_sources(str(path))
    assert (sparse.key, read_source(after)) == ("x/hole.jpg", b"after")
    with pytest.raises(SourceUnreadable, match="sparse"):
        read_source(sparse)


def test_a_folder_may_be_called_tar(tmp_path: Path) -> None:
    (tmp_path / "x.tar").mkdir()
    (tmp_path / "x.tar" / "a.jpg").write_bytes(b"A")
    assert keys(str(tmp_path)) == ["x.tar/a.jpg"]
    assert keys(str(tmp_path / "x.tar")) == ["a.jpg"]


def test_links_that_multiply_end_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thousand links to a folder of two thousand files are two megabytes, and four million pictures."""
    monkeypatch.setattr(tars, "_MAX_LINKED", 250)
    files: list[tuple[str, str, str | bytes]] = [("file", f"d/{n:02d}.jpg", b"x") for n in range(20)]
    ten = write_links(tmp_path / "ten.tar", [*files, *(("soft", f"l{n}", "d") for n in range(10))])
    assert len(ten) == 220 and not any(source.fault for source in ten)
    many = write_links(tmp_path / "many.tar", [*files, *(("soft", f"l{n}", "d") for n in range(20))])
    assert [source.key for source in many if source.fault] == ["many.tar:links"] and len(many) == 20 + 250 + 1
