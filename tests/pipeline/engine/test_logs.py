"""The log of real jobs: what it tells, of which shard and picture, from whichever process."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lichen.errors import StoreError
from lichen.jobs.cli import build_app
from lichen.pipeline import logs
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.job import list_jobs
from lichen.pipeline.archive.store import open_store
from lichen.pipeline.engine.config import JobConfig
from lichen.pipeline.engine.driver import run_job
from lichen.pipeline.engine.progress import JobProgress
from lichen.pipeline.engine.worker import Worker
from lichen.pipeline.logs import Log, LogConfig

Make = Callable[..., JobConfig]
Pictures = Callable[..., Path]


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[logging.LogRecord]]:
    """What was logged whose message begins so."""
    caplog.set_level(logging.DEBUG, logger="lichen")
    return lambda begin: [one for one in caplog.records if one.getMessage().startswith(begin)]


Records = Callable[[str], list[logging.LogRecord]]


def run(*arguments: str) -> tuple[str, list[str]]:
    """Standard output, and the lines of standard error."""
    done = CliRunner().invoke(build_app(), arguments, catch_exceptions=False)
    assert done.exit_code in (0, 3), done.output
    logs.end()
    return done.stdout, done.stderr.splitlines()


def test_a_job_as_lines_of_json(pictures: Pictures, tmp_path: Path) -> None:
    source, archive = pictures(3), str(tmp_path / "a")
    (source / "notes.txt").write_text("no picture")
    arguments = ("compress", str(source), archive, "--codec", "webp", "--local", "--json")
    out, lines = run("-vv", "--log-format", "json", *arguments)
    told = [json.loads(line) for line in lines if line.startswith("{")]  # between lines of progress
    assert json.loads(out)["counts"]["compressed"] == 3
    for one in told:
        assert (
            {"time", "level", "logger", "message"} <= one.keys() <= {"time", "level", "logger", "message", *logs.FIELDS}
        )
        assert (
            one["logger"].startswith("lichen.") and one["level"] in ("debug", "info") and one["time"].endswith("+00:00")
        )
    by_message = {one["message"].partition(",")[0]: one for one in told}
    job = json.loads(out)["job"]
    assert by_message["job begun"]["job"] == by_message["job finished"]["job"] == job
    handed, committed = by_message["shard handed out"], by_message["attempt committed"]
    assert (handed["shard"], handed["attempt"]) == (committed["shard"], committed["attempt"])
    assert handed["shard"].startswith(job) and handed["job"] == job
    [left] = [one for one in told if one.get("key") == "notes.txt"]
    assert (left["level"], left["attempt"]) == ("debug", handed["attempt"])


def test_nothing_is_logged_unless_asked_for(pictures: Pictures, tmp_path: Path) -> None:
    arguments = ("compress", str(pictures(2)), str(tmp_path / "a"), "--codec", "webp")
    assert not any(" lichen." in line for line in run(*arguments)[1])
    out, lines = run("--verbose", *arguments)
    assert out.startswith(str(tmp_path / "a"))
    [line] = [line for line in lines if " lichen." in line]
    assert line.endswith(" INFO lichen.pipeline.engine.driver: nothing to do, 2 sources are unchanged")


@pytest.mark.parametrize("executor", ["local", "process"])
def test_what_becomes_of_a_source(config: Make, pictures: Pictures, records: Records, executor: str) -> None:
    source = pictures(1)
    (source / "cut.png").write_bytes((source / "000.png").read_bytes()[:2000])
    manifest = source.parent / "list.txt"
    manifest.write_text("\n".join(str(source / name) for name in ("000.png", "cut.png", "gone.png")))
    assert run_job(config(str(manifest), executor=executor)).exit_code == 3
    [gone] = records("source quarantined")
    [kept] = records("picture kept as its file")
    assert gone.key.endswith("gone.png") and gone.levelno == logging.INFO  # type: ignore[attr-defined]
    assert kept.key.endswith("cut.png") and kept.levelno == logging.DEBUG  # type: ignore[attr-defined]
    assert (gone.process == os.getpid()) == (executor == "local")
    shards = {one.attempt: one.shard for one in records("shard handed out")}  # type: ignore[attr-defined]
    for one in (gone, kept):
        assert shards[one.attempt] == one.shard  # type: ignore[attr-defined]


def test_a_job_that_goes_on_and_a_worker_that_dies(config: Make, pictures: Pictures, records: Records) -> None:
    job = config(pictures(8), executor="process", shard_pictures=1, lanes=1)
    killed: list[int] = []

    def watch(progress: JobProgress) -> None:
        [loaded] = records("worker loaded")[-1:]
        if progress.shards_done >= 2 and not killed:
            assert loaded.process is not None
            killed.append(loaded.process)
            os.kill(killed[0], signal.SIGKILL)

    assert run_job(job, watch).worker_deaths == 1
    [died] = records(f"worker {killed[0]} died")
    assert "SIGKILL" in died.getMessage() and died.levelno == logging.WARNING
    lost = records("attempt ended with its worker")
    assert lost and all("SIGKILL" in one.getMessage() for one in lost)
    assert len(records("attempt committed")) == 8
    [begun] = records("job begun")
    assert begun.job == list_jobs(open_store(job.archive))[0]  # type: ignore[attr-defined]


def test_the_picture_that_kills_is_named(config: Make, pictures: Pictures, plugin: str, records: Records) -> None:
    source = pictures(2, hurtful=(1,))
    run_job(config(source, executor="process", codec="test-dies", shard_pictures=2))
    [split] = records("shard is split")
    [stored] = records("the picture kills workers")
    assert stored.key == "001.png" and stored.shard.startswith(split.shard)  # type: ignore[attr-defined]


def test_an_attempt_that_fails_and_one_that_loses(
    config: Make, pictures: Pictures, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, honest, failed = config(pictures(2), shard_pictures=1), Worker.run, []

    def stumble(self: Worker, task, digest, observe):  # type: ignore[no-untyped-def]
        if not failed:
            failed.append(task.attempt)
            raise StoreError("s3://ann:secret@bucket/a does not answer")
        result = honest(self, task, digest, observe)
        if len(failed) == 1:  # the same shard again, as a worker would that was thought dead
            failed.append(task.attempt)
            return honest(
                self, type(task)(shard=task.shard, attempt=layout.new_attempt(), sources=task.sources), digest, observe
            )
        return result

    monkeypatch.setattr(Worker, "run", stumble)
    assert run_job(job).counts.compressed == 2
    [one] = records("attempt failed, 1 of 3")
    assert (one.attempt, one.levelno) == (failed[0], logging.WARNING)  # type: ignore[attr-defined]
    assert "s3://***@bucket/a does not answer" in one.getMessage()
    assert len(records("attempt lost the race")) == 1


def test_interrupted_and_resumed(config: Make, pictures: Pictures, records: Records) -> None:
    job = config(pictures(6), shard_pictures=1, lanes=1)

    def stop(progress: JobProgress) -> None:
        if progress.shards_done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(job, stop)
    run_job(job)
    [begun], [interrupted], [resumed], [finished] = map(
        records, ("job begun", "job interrupted", "job resumed", "job finished")
    )
    assert begun.job == interrupted.job == resumed.job == finished.job  # type: ignore[attr-defined]


def test_secrets_and_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log("lichen.tests")
    logs.begin(LogConfig(verbose=1))
    try:
        log.info(
            "reading %s\nand more", "s3://ann:hunter2@bucket/x", shard="20260101T000000-aaaaaa.00001", key="a\nb.png"
        )
        log.debug("too much")
        logs.begin(LogConfig(verbose=2, format="json"))
        log.debug("reading %s", "https://host/x?X-Amz-Signature=0123456789abcdef0123456789abcdef", key="a\nb.png")
    finally:
        logs.end()
    log.warning("nobody sees this")
    text, line = capsys.readouterr().err.splitlines()
    assert "hunter2" not in text and "reading s3://***@bucket/x\\nand more" in text
    assert text.endswith(" job=20260101T000000-aaaaaa shard=20260101T000000-aaaaaa.00001 key=a\\nb.png")
    told = json.loads(line)
    assert "0123456789abcdef" not in line and (told["level"], told["key"]) == ("debug", "a\nb.png")
