"""A codec's card is read by its own reader: report and info work whatever codec wrote the archive."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from snapped_support import snapped_codec
from typer.testing import CliRunner

from lichen.errors import CorruptArchive
from lichen.jobs.cli import build_app
from lichen.models.bundle import MAX_JSON_BYTES
from lichen.models.codec import Codec
from lichen.models.registry import _shipped, load_codec
from lichen.pipeline.archive.codecs import codec_name, put_codec
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.store import Store
from lichen.pipeline.report import make_report


def some_codec(name: str) -> Codec:
    return snapped_codec("mbt2018-mean") if name == "published" else load_codec(name)


@pytest.mark.parametrize("name", [*_shipped(), "published"])
def test_report_and_info_of_an_archive_of_every_kind_of_codec(
    name: str, data_folder: Path, write_archive: Callable[..., str], tmp_path: Path
) -> None:
    with Image.open(data_folder / "samples/budgie_a6d68c32b3a3.jpg") as image:
        image.crop((0, 0, 64, 64)).save(tmp_path / "small.png")
    codec = some_codec(name)
    url = write_archive(tmp_path / "archive", {"small.png": (tmp_path / "small.png").read_bytes()}, codec=codec)
    report = make_report(Archive.open(url))
    assert [(use.digest, use.name, use.pictures) for use in report.codecs] == [(codec.digest, codec.name, 1)]
    for command in ("report", "info"):
        done = CliRunner().invoke(build_app(), [command, url])
        assert done.exit_code == 0, done.output
        assert codec.name in done.stdout


@pytest.mark.parametrize(
    ("card", "name"),
    [
        (b'{"format": 2, "name": "x"}', "x"),
        (b'{"format": {"any": "thing"}, "family": "example"}', "example"),
        (b"{}", None),
        (b'{"name": 7}', None),
        (b'{"name": "\\ud800"}', None),
        (b"[", None),
        (b" " * (MAX_JSON_BYTES + 1), None),
        (None, None),
    ],
)
def test_a_card_has_a_name_or_is_called_damaged(
    card: bytes | None, name: str | None, photo_archive: str, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    shutil.copytree(photo_archive, folder)
    archive = Archive.open(str(folder))
    (digest,) = archive.info().codecs
    path = folder / "codecs" / f"{digest}.json"
    path.unlink() if card is None else path.write_bytes(card)
    if name is not None:
        assert codec_name(archive.store, digest) == name
    else:
        with pytest.raises(CorruptArchive, match=f"codecs/{digest}.json"):
            codec_name(archive.store, digest)
        done = CliRunner().invoke(build_app(), ["report", str(folder), "--json"])
        assert done.exit_code == 1 and digest in done.stderr


def test_files_of_a_codec_that_are_there_are_looked_at(memory: Store) -> None:
    codec = snapped_codec("mbt2018-mean")
    files = codec.decoder_files()
    put_codec(memory, codec)
    put_codec(memory, codec)
    paths = {extension: f"codecs/{codec.digest}.{extension}" for extension in files}
    assert {name: memory.read(path) for name, path in paths.items()} == files
    other_layout = json.dumps(json.loads(files["json"]), indent=1).encode()
    memory.put(paths["json"], other_layout)
    put_codec(memory, codec)
    assert memory.read(paths["json"]) == other_layout  # decodes alike, and was there first
    for extension, path in paths.items():
        for damaged in (b"", b"theirs", files[extension][:-1], files[extension][:-1] + b"\x01"):
            memory.put(path, damaged)
            with pytest.raises(CorruptArchive, match=codec.digest):
                put_codec(memory, codec)
        memory.delete([path])
        put_codec(memory, codec)
        assert memory.read(path) in (files[extension], other_layout)
