"""The Python API of the README."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lichen
from lichen import compress, report, verify
from lichen.errors import ArchiveNotFound
from lichen.pipeline.archive.reader import Archive


def test_the_tour(data_folder: Path, tmp_path: Path) -> None:
    seen = []
    url = tmp_path / "archive"
    summary = compress(data_folder / "samples", url, codec="webp", quality=70, local=True, progress=seen.append)
    assert summary.counts.compressed == 6 and summary.exit_code == 0

    archive = lichen.open(url)
    assert len(archive) == 6
    key = "budgie_a6d68c32b3a3.jpg"
    picture = archive[key]
    assert isinstance(picture, Image.Image) and picture.size == (1090, 727)
    assert np.array_equal(archive.array(key), np.asarray(picture)) and archive.array(key).dtype == np.uint8
    assert archive.get("no such key") is None
    assert {name for name, _ in archive.pictures()} == set(archive)

    assert verify(archive).ok and verify(url, ["b*"]).pictures == 2
    assert report(url).pictures == 6


def test_several_sources(data_folder: Path, tmp_path: Path) -> None:
    sources = [data_folder / "kodak" / "kodim05.png", str(data_folder / "samples")]
    compress(sources, tmp_path / "archive", codec="webp", local=True)
    assert "kodim05.png" in lichen.open(tmp_path / "archive")


def test_no_archive(tmp_path: Path) -> None:
    with pytest.raises(ArchiveNotFound):
        lichen.open(tmp_path)


def test_importing_it_is_cheap() -> None:
    program = "import sys; import lichen; lichen.compress; lichen.open; lichen.errors; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert not {"torch", "ray", "numpy", "pyarrow", "PIL"} & set(done.stdout.split())


def test_the_readme_runs(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (data_folder.parents[1] / "README.md").read_text(encoding="utf-8")
    code = readme.split("```python\n")[1].split("```")[0]
    quick = code.replace('"photos.lichen", quality=90', '"photos.lichen", quality=90, codec="webp", local=True')
    assert quick != code
    photo = tmp_path / "photos/holiday/beach.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes((data_folder / "samples/budgie_a6d68c32b3a3.jpg").read_bytes())
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(quick, "README.md", "exec"), names)
    pixels = names["pixels"]
    assert isinstance(pixels, np.ndarray) and pixels.shape == (727, 1090, 3)


def test_reprs_say_several_facts(data_folder: Path, tmp_path: Path) -> None:
    url, source = str(tmp_path / "archive"), data_folder / "samples"
    empty = Archive.create(url)
    assert repr(empty) == f"<Archive {url}: no snapshot yet>"
    summary = compress(source, url, codec="webp", local=True)
    kinds = "6 compressed, 0 stored"
    assert re.fullmatch(
        rf"<JobSummary [\w-]+: {kinds}, 1\.04 MB became [\d.]+ kB \([\d.]+ % saved\), "
        r"1 no pictures, snapshot 1, exit code 0>",
        repr(summary),
    )
    assert re.fullmatch(
        rf"<Archive {re.escape(url)}: 6 pictures \({kinds}\), 1\.04 MB in [\d.]+ kB, snapshot 1>",
        repr(lichen.open(url)),
    )
    assert re.fullmatch(
        rf"<Report {re.escape(url)}: 6 pictures \({kinds}\), 1\.04 MB became [\d.]+ kB \([\d.]+ % saved\), "
        r"[\d.]+ bpp, snapshot 1>",
        repr(report(url)),
    )
    again = compress(source, url, codec="webp", local=True)
    assert repr(again) == "<JobSummary: up to date, 7 sources unchanged, exit code 0>"


def test_configurations_and_their_short_forms(data_folder: Path, tmp_path: Path) -> None:
    source, url = data_folder / "kodak" / "kodim05.png", tmp_path / "archive"
    quality = lichen.QualityConfig(quality=60, psnr_floor=0, block_psnr_floor=0)
    compress(source, url, codec=lichen.CodecConfig(name="webp", effort=1), quality=quality, local=True)
    assert compress(source, url, codec="webp", quality=60, local=True).not_applied == {
        "effort": (1, 3), "psnr_floor": (0, 30.0), "block_psnr_floor": (0, 24.0)
    }  # fmt: skip
    [row] = lichen.open(url).rows()
    assert row.quality == 60


def test_the_face_is_typed() -> None:
    """No function of the face takes settings that a type checker does not know."""
    for name in ("compress", "open", "verify", "report", "load_codec"):
        function = getattr(lichen, name)
        parameters = inspect.signature(function).parameters.values()
        assert all(one.kind is not one.VAR_KEYWORD and one.annotation not in ("Any", one.empty) for one in parameters)
        assert function.__doc__ and name in lichen.__all__
