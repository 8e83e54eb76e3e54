"""Every check between a picture and its commit, with something wrong that only this check can see."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lichen.errors import TooManyFailures, VerificationFailed
from lichen.models.classical import ClassicalCodec
from lichen.models.codec import Decoded
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.shard import ShardWriter
from lichen.pipeline.engine import compress
from lichen.pipeline.engine.config import JobConfig
from lichen.pipeline.engine.driver import run_job
from lichen.pipeline.pictures.reading import Picture, pack_side
from lichen.pipeline.verify import verify_archive

Pictures = Callable[..., Path]
Make = Callable[..., JobConfig]


@pytest.mark.parametrize("part", ["payload", "side"])
def test_a_disk_that_gives_back_other_bytes(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    pixels = np.asarray(Image.linear_gradient("L").resize((96, 80)).convert("RGBA")).copy()
    pixels[:, :, 3] = np.arange(96)
    (tmp_path / "pictures").mkdir()
    Image.fromarray(pixels).save(tmp_path / "pictures/a.png")
    honest = ShardWriter.read
    reads = itertools.count()

    def read(writer: ShardWriter, offset: int, length: int) -> bytes:
        data = bytearray(honest(writer, offset, length))
        next(reads)
        data[0 if part == "payload" else -1] ^= 1
        return bytes(data)

    monkeypatch.setattr(ShardWriter, "read", read)
    job = config(tmp_path / "pictures", attempts=2, store_plain=True)
    with pytest.raises(TooManyFailures, match=r"the spool file returned other bytes for 'a\.png'") as found:
        run_job(job)
    assert isinstance(found.value.__cause__, VerificationFailed) and next(reads) == 2
    assert not list(Path(job.archive).glob("commits/*/*"))
    monkeypatch.undo()
    assert run_job(job).counts.compressed == 1 and verify_archive(Archive.open(job.archive)).ok


@pytest.mark.parametrize("wrong", ["shape", "type"])
def test_a_codec_that_decodes_to_something_else(
    config: Make, pictures: Pictures, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    honest = ClassicalCodec.decode

    def decode(codec: ClassicalCodec, bitstreams: list[bytes]) -> list[Decoded]:
        change = (lambda pixels: pixels[1:]) if wrong == "shape" else (lambda pixels: pixels.astype(np.int16))
        return [replace(one, pixels=change(one.pixels)) for one in honest(codec, bitstreams)]

    monkeypatch.setattr(ClassicalCodec, "decode", decode)
    monkeypatch.setattr("lichen.pipeline.engine.worker.Worker._warm_up", lambda _worker: None)
    source = pictures(1)
    job = config(source)
    assert run_job(job).counts.stored == 1
    archive = Archive.open(job.archive)
    assert "verification failed: decoded to pixels" in (archive.row("000.png").reason or "")
    assert archive.original("000.png") == (source / "000.png").read_bytes()


@pytest.mark.parametrize("lost", ["alpha", "other alpha", "exif", "icc", "xmp", "blocks", "all"])
def test_side_data_that_lose_something(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    pixels = np.asarray(Image.linear_gradient("L").resize((96, 80)).convert("RGBA")).copy()
    pixels[:, :, 3] = np.arange(96)
    folder = tmp_path / "pictures"
    folder.mkdir()
    about = {"exif": b"II*\0\x08\0\0\0\0\0\0\0\0\0", "icc_profile": b"a profile"}
    Image.fromarray(pixels).save(folder / "a.png", compress_level=0, dpi=(300, 300), **about)

    def careless(picture: Picture) -> bytes:
        if lost == "all":
            return b""
        if lost == "other alpha":
            assert picture.alpha is not None
            return pack_side(replace(picture, alpha=255 - picture.alpha))
        return pack_side(replace(picture, **{lost: () if lost == "blocks" else b"<x/>" if lost == "xmp" else None}))

    monkeypatch.setattr(compress, "pack_side", careless)
    job = config(folder)
    assert run_job(job).counts.packed == 1
    archive = Archive.open(job.archive)
    what = "another alpha plane" if "alpha" in lost or lost == "all" else "other metadata"
    assert archive.row("a.png").reason == f"verification failed: {what} was unpacked than packed"
    assert archive.original("a.png") == (folder / "a.png").read_bytes()
