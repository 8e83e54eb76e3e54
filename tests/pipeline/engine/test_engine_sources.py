"""Whole jobs whose sources are not what they should be, and what is written of them."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sources_support import Damage

from lichen.errors import DuplicateKey, JobInterrupted, UsageError
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.job import list_jobs, read_job
from lichen.pipeline.archive.marker import create_marker
from lichen.pipeline.archive.plan import Grouping, read_plan, write_plan
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.rejects import Quarantined, read_table
from lichen.pipeline.archive.store import Store, open_store
from lichen.pipeline.engine.config import JobConfig
from lichen.pipeline.engine.driver import run_job
from lichen.pipeline.sources import Source

Make = Callable[..., JobConfig]
Pictures = Callable[..., Path]

SECRET = "hunter2"


def quarantined(url: str, job: str | None = None) -> dict[str, str]:
    """Why sources were not read, by key."""
    store = open_store(url)
    tables = [entry.path for entry in store.entries("jobs") if "/quarantine/" in entry.path]
    rows = [
        row for path in tables if job is None or job in path for row in read_table(store, path, Quarantined).to_pylist()
    ]
    return {row["key"]: row["message"] for row in rows}


def everything(folder: Path) -> bytes:
    """All bytes of an archive; what is compressed in Parquet files, as text."""
    data = b""
    for path in folder.rglob("*"):
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            data += repr(table.to_pylist()).encode("utf-8", "backslashreplace") + repr(table.schema.metadata).encode()
        elif path.is_file():
            data += path.read_bytes()
    return data


# --- bad entries ---------------------------------------------------------------------------------


def test_bad_entries_stop_no_other(config: Make, pictures: Pictures, tmp_path: Path) -> None:
    """They are named, the exit code is 3, and the same command tries them again, until they are mended."""
    source = pictures(2)
    (source / "self.png").symlink_to("self.png")
    (source / "through.png").symlink_to("000.png/x")
    (source / "a.tar").write_bytes(b"no tar")
    with open(os.fsencode(source) + b"/caf\xe9.png", "wb") as file:
        file.write((source / "000.png").read_bytes())
    os.symlink(b"nowhere", os.fsencode(source) + b"/caf\xea.png")
    with tarfile.open(source / "cut.tar", "w") as tar:
        for name in ("000.png", "001.png"):
            tar.add(source / name, name)
    whole = (source / "cut.tar").read_bytes()
    (source / "cut.tar").write_bytes(whole[: len(whole) // 2])
    job = config(source)
    bad = {"self.png", "through.png", "a.tar", "cut.tar", "caf\\xea.png"}
    for number in (1, 2):
        summary = run_job(job)
        assert summary.exit_code == 3 and set(summary.quarantined_names) == bad
        assert set(quarantined(job.archive, summary.job)) == bad
        assert summary.counts.compressed == (4 if number == 1 else 0)
        assert summary.missing == 0
    assert set(Archive.open(job.archive)) == {"000.png", "001.png", "caf\\xe9.png", "cut/000.png"}
    for name in ("self.png", "through.png"):
        (source / name).unlink()
        shutil.copy(source / "000.png", source / name)
    (source / "cut.tar").write_bytes(whole)
    (source / "a.tar").unlink()
    os.unlink(os.fsencode(source) + b"/caf\xea.png")
    summary = run_job(job)
    assert summary.exit_code == 0 and summary.counts.sources >= 3
    assert set(Archive.open(job.archive)) >= {"self.png", "through.png", "cut/001.png"}
    assert run_job(job).job is None


def test_what_became_unreadable_is_not_gone(config: Make, pictures: Pictures) -> None:
    """A picture that was archived, and a folder of such: named as unreadable, and not as unchanged or missing."""
    source = pictures(2)
    shutil.copytree(source, source / "sub")
    job = config(source)
    run_job(job)
    (source / "000.png").unlink()
    (source / "000.png").symlink_to("000.png")
    real, sub = os.scandir, source / "sub"

    def scandir(path: Any) -> Any:
        if str(path) == str(sub):
            raise PermissionError(13, "Permission denied")
        return real(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        summary = run_job(job)
    assert set(summary.quarantined_names) == {"000.png", "sub/"}
    assert (summary.unchanged, summary.missing, summary.exit_code) == (1, 0, 3)
    assert len(Archive.open(job.archive)) == 4


def test_a_bad_entry_is_no_collision(config: Make, pictures: Pictures) -> None:
    first, second = pictures(1), pictures(1, name="second")
    run_job(config(first))
    with pytest.raises(DuplicateKey):
        run_job(config(second))
    (second / "000.png").unlink()
    (second / "000.png").symlink_to("000.png")
    assert run_job(config(second)).quarantined_names == ("000.png",)
    assert len(Archive.open(config(first).archive)) == 1


def test_pipes_and_devices_end_at_once(config: Make, pictures: Pictures, tmp_path: Path) -> None:
    source = pictures(1)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "list.txt").write_text("pipe.png\n/dev/zero\npictures/000.png\n")
    summary = run_job(config(tmp_path / "list.txt"))
    assert (summary.counts.compressed, summary.counts.quarantined, summary.exit_code) == (1, 2, 3)
    assert source.exists()


def test_hard_links_in_a_tar_are_pictures(config: Make, data_folder: Path) -> None:
    job = config(data_folder / "cases/tars/hardlink.tar")
    assert run_job(job).counts.sources == 3
    archive = Archive.open(job.archive)
    digests = {row.key: row.source_sha256 for row in archive.rows()}
    assert digests["hardlink/set/copy.png"] == digests["hardlink/set/one.png"]


def test_containers_are_refused_unless_files_are_wanted(config: Make, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("url\n")
    with pytest.raises(UsageError, match="one URI a line"):
        run_job(config(tmp_path / "list.csv"))
    assert run_job(config(tmp_path / "list.csv", store_others=True)).counts.stored == 1


def test_damaged_downloads_are_never_stored(
    config: Make, pictures: Pictures, s3_url: str, s3_options: dict[str, Any], s3_endpoint: str
) -> None:
    """One bit of every answer is flipped; the store's ETags tell."""
    originals = {path.name: path.read_bytes() for path in pictures(10).iterdir()}
    store = open_store(f"{s3_url}/set", s3_options)
    for name, data in originals.items():
        store.put(name, data)

    def flip(path: str, body: bytes, _headers: Any) -> bytes:
        place = len(body) // 2 if path.endswith(".png") else 0
        return body[:place] + bytes([body[place] ^ 4]) + body[place + 1 :] if place else body

    with Damage(s3_endpoint).running() as proxy:
        proxy.change = flip
        proxy.drop = lambda name: name.startswith("x-amz-checksum")  # which only some uploads have
        options = {**s3_options, "client_kwargs": {**s3_options["client_kwargs"], "endpoint_url": proxy.url}}
        job = config(f"{s3_url}/set", source_options=options)
        summary = run_job(job)
        assert (summary.counts.quarantined, summary.counts.sources, summary.exit_code) == (10, 10, 3)
        assert len(Archive.open(job.archive)) == 0
        proxy.change = lambda _path, body, _headers: body
        summary = run_job(job)
        assert (summary.counts.compressed, summary.exit_code) == (10, 0)
    digests = {row.key: row.source_sha256 for row in Archive.open(job.archive).rows()}
    assert digests == {name: hashlib.sha256(data).digest() for name, data in originals.items()}


# --- plans ---------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "planned"))
    create_marker(store)
    return store


def test_plans_keep_faults_and_no_secrets(store: Store) -> None:
    job = layout.new_job_id()
    signed = [Source(key=f"{n}", uri=f"https://h/{n}.jpg?sig={SECRET}{n}") for n in range(4)]
    sources = [*signed, Source(key="bad", uri="/x", fault="it is bad"), Source(key="s", uri=f"s3://k:{SECRET}@b/s.jpg")]
    handed_out = list(write_plan(store, job, sources[:3], Grouping(max_sources=2)))  # as if the listing had ended there
    assert [source for shard in handed_out for source in shard.sources] == sources[:3]
    assert SECRET.encode() not in everything(Path(store.root))
    first = next(read_plan(store, job)).sources[0]
    assert (first.uri, first.fault) == ("https://h/0.jpg?sig=***", None)
    store.delete([layout.job_path(job, "plan.json")])
    whole = list(write_plan(store, job, iter(sources), Grouping(max_sources=2)))
    assert [source for shard in whole for source in shard.sources] == sources
    again = list(write_plan(store, job, iter(sources[1:]), Grouping(max_sources=2)))
    found = [source for shard in again for source in shard.sources]
    assert found[1:] == sources[1:]
    assert found[0].uri == "https://h/0.jpg?sig=***"  # not listed any more; reading it says so
    assert SECRET.encode() not in everything(Path(store.root))


def test_plans_without_secrets_list_nothing_again(store: Store) -> None:
    job = layout.new_job_id()
    sources = [Source(key="a", uri="/data/***@x/a=***.jpg"), Source(key="b", uri="s3://bucket/a?sig=***.jpg")]
    first = list(write_plan(store, job, sources))

    def listing() -> Iterator[Source]:
        pytest.fail("listed")
        yield sources[0]

    assert list(write_plan(store, job, listing())) == first


def test_plans_of_earlier_versions(store: Store) -> None:
    """They have no column for faults."""
    job = layout.new_job_id()
    source = Source(key="a", uri="/a", size=3)
    list(write_plan(store, job, [source]))
    path = Path(store.root, layout.plan_path(job, 0))
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["fault"]), path)
    assert [shard.sources for shard in read_plan(store, job)] == [(source,)]
    pq.write_table(table.append_column("more", pa.nulls(1)), path)
    with pytest.raises(Exception, match="not the columns of a plan"):
        list(read_plan(store, job))


# --- secrets -------------------------------------------------------------------------------------


@pytest.fixture
def private(pictures: Pictures) -> Iterator[str]:
    """A web server whose pictures need a signature."""
    folder = pictures(8)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            allowed = f"sig={SECRET}" in query
            data = (folder / path[1:]).read_bytes() if allowed else b""
            self.send_response(200 if allowed else 403)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_signatures_stand_nowhere_and_a_stopped_job_goes_on(config: Make, private: str, tmp_path: Path) -> None:
    manifest, archive = tmp_path / "list.txt", tmp_path / "archive"
    lines = [f"{private}/{n:03d}.png?sig={SECRET}&n={n}" for n in range(8)]
    manifest.write_text("\n".join([*lines, f"{private}/000.png?sig={SECRET}wrong&n=no", f"{private}/0?token={SECRET}"]))
    job, stop = config(manifest, shard_pictures=1, lanes=1), threading.Event()
    with pytest.raises(JobInterrupted):
        run_job(job, lambda progress: stop.set() if progress.shards_done >= 2 else None, stop=stop)
    manifest.write_text(manifest.read_text().replace("&n=no", "&n=9"))  # what was planned may have gone
    summary = run_job(job)
    assert summary.resumed and summary.counts.compressed >= 8
    assert SECRET.encode() not in everything(archive)
    host = private.partition("://")[2]
    assert {f"{host}/{n:03d}.png?n={n}" for n in range(8)} <= set(Archive.open(job.archive))
    assert run_job(job).counts.compressed == 0  # another signature is no other picture


def test_passwords_stand_nowhere(
    config: Make, pictures: Pictures, s3_url: str, s3_options: dict[str, Any], tmp_path: Path
) -> None:
    """In the source and in the archive's own URL; with and without them it is the same job."""
    store = open_store(f"{s3_url}/set", s3_options)
    for path in pictures(3).iterdir():
        store.put(path.name, path.read_bytes())
    bare = {name: value for name, value in s3_options.items() if name not in ("key", "secret")}
    signed = s3_url.replace("s3://", f"s3://testing:{SECRET}@")
    job = config(f"{signed}/set", f"{signed}/set/archive", source_options=bare, archive_options=bare)
    assert run_job(job).counts.compressed == 3
    plain = config(f"{s3_url}/set", f"{s3_url}/set/archive", source_options=s3_options, archive_options=s3_options)
    for again in (job, plain):
        assert run_job(again).unchanged == 3  # and the archive's own files are none of its sources
    archive = open_store(f"{s3_url}/set/archive", s3_options)
    (name,) = list_jobs(archive)
    assert read_job(archive, name).config["source"] == [f"{s3_url}/set"]
    folder = tmp_path / "copy"
    for entry in archive.entries():
        target = folder / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(archive.read(entry.path))
    assert SECRET.encode() not in everything(folder)
