"""The page of results: ``docs/results.md`` and the paragraph of the README, rendered from ``docs/results/*.json``.

Each JSON holds what one command wrote (``result``), the command, the machine, and what a reader has to know beside them
(``notes``). ``kind`` says which command's answer it is; a ``table`` is of something that prints no JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, Final

from lichen.errors import UsageError
from lichen.jobs.display import many
from lichen.jobs.measures import MEASURES

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "docs" / "results"
PAGE: Final = ROOT / "docs" / "results.md"
README: Final = ROOT / "README.md"

SECTIONS: Final[Sequence[tuple[str, Sequence[str]]]] = (
    ("`s2c-conv`", ("kodak-s2c-conv",)),
    ("`s2c-psnr` and `s2c-conv-deep`, for squared error", ("kodak-s2c-psnr", "kodak-s2c-conv-deep")),
    ("Photographs held out from training", ("held-out-s2c-conv", "held-out-s2c-psnr", "held-out-s2c-conv-deep")),
    ("Speed of whole jobs", ("jobs",)),
    ("Without loss, and what an archive adds", ("without-loss",)),
    ("Decoding elsewhere", ("elsewhere",)),
    ("Large pictures", ("large",)),
    ("Entropy coder", ("entropy-coder",)),
)
"""Headings of the page, and the names of the JSON files below each, whose tables stand side by side."""

RIVALS: Final[Mapping[str, str]] = {
    "AVIF iq (speed 6, 4:4:4)": "AVIF `iq` (libaom, speed 6, 4:4:4)",
    "AVIF psnr (speed 6, 4:4:4)": "AVIF `psnr`",
    "JPEG XL (effort 7)": "JPEG XL (effort 7)",
    "WebP (method 6)": "WebP (method 6)",
    "JPEG (jpegli)": "JPEG by jpegli",
    "JPEG (optimised, progressive)": "JPEG by libjpeg-turbo (optimised, progressive)",
    "s2c-psnr": "`s2c-psnr`",
    "mbt2018-mean": "mbt2018-mean",
    "VTM 9.1": "VTM 9.1",
}
"""Whom the page compares with, in its order: names in the JSON files, and on the page."""

INTRODUCTION: Final = """# Measured results

What the codecs of this release do, on which machine, with which command. `make results` renders this page from the
JSON files in `docs/results/`; nobody edits it. Experiments that shaped the codecs are in [the laboratory's
pages](lab/README.md), and how the weights were trained in `models/weights/README.md`. All rates are those of real bytes
of whole bitstreams, at the default effort; qualities and rates are means over the pictures. BD-rates are negative where
a codec needs fewer bytes than the other at equal quality."""

PICTURES: Final[Mapping[str, str]] = {
    "`s2c-conv`": """\
`python -m lab seen KODAK_FOLDER --out docs/seen.png`, quality 30, at equal bytes: the picture where the codec does
worst against the better of AVIF `iq` and JPEG by SSIMULACRA 2, the middle one, and the best one; of each the square in
which all three together err most.

![Source, s2c-conv, AVIF and JPEG side by side](seen.png)""",
    "`s2c-psnr` and `s2c-conv-deep`, for squared error": """\
![Rate-distortion curves on Kodak, of both codecs](kodak.png)""",
}
"""Pictures of a section, with the commands that drew them."""

BEGIN: Final = "<!-- rendered by `make results`: do not edit -->"
END: Final = "<!-- end of what is rendered -->"


def load(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """One JSON file of results. Raises ``UsageError`` if there is none of this name."""
    path = folder / f"{name}.json"
    if not path.exists():
        raise UsageError(f"there is no {path}")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def page(folder: Path = FOLDER) -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for heading, names in SECTIONS:
        parts += [f"## {heading}", *section([load(name, folder) for name in names])]
        if heading in PICTURES:
            parts.append(PICTURES[heading])
    return "\n\n".join(parts) + "\n"


def section(files: Sequence[Mapping[str, Any]]) -> list[str]:
    """The paragraphs and tables of JSON files of one kind."""
    first = files[0]
    parts = [f"`{one['command']}` on {one['machine']}. {' '.join(one['notes'][:1])}".rstrip() for one in files]
    results = [one["result"] for one in files]
    parts += _evaluations(results) if first["kind"] == "evaluation" else _KINDS[first["kind"]](results[0])
    return parts + [note for one in files for note in one["notes"][1:]]


def readme(text: str, folder: Path = FOLDER) -> str:
    """The README with its paragraph of results replaced by what the JSON files say."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UsageError(f"the README lacks the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{_paragraph(folder)}\n{END}{after}"


def _paragraph(folder: Path) -> str:
    kodak, jobs = load("kodak-s2c-conv", folder), load("jobs", folder)["result"]
    found = {(one["metric"], one["anchor"]): one["percent"] for one in kodak["result"]["comparisons"]}
    iq, exact = "AVIF iq (speed 6, 4:4:4)", "AVIF psnr (speed 6, 4:4:4)"

    def more(metric: str, anchor: str) -> str:
        percent = found[metric, anchor]
        return f"{abs(percent):.1f} % {'fewer' if percent < 0 else 'more'}"

    packed = load("without-loss", folder)["result"]
    saved = packed["rows"][0][packed["columns"].index("saved")]
    text = (
        f"On the 24 Kodak images, real bytes (`{kodak['command']}`), the default codec needs {more('ssimulacra2', iq)} "
        "bytes than AVIF as Pillow writes it (tuned for the eye, `tune=iq`) for the same SSIMULACRA 2, "
        f"{more('ssimulacra2', 'JPEG XL (effort 7)')} than JPEG XL, "
        f"{more('ssimulacra2', 'WebP (method 6)')} than WebP, "
        f"{more('ssimulacra2', 'JPEG (jpegli)')} than JPEG by jpegli and "
        f"{more('ssimulacra2', 'JPEG (optimised, progressive)')} than JPEG by libjpeg-turbo. "
        "Against that AVIF it needs "
        f"{more('butteraugli', iq)} by Butteraugli, on which nothing is tuned, {more('ms_ssim', iq)} by MS-SSIM and "
        f"{more('psnr', iq)} by PSNR; against AVIF tuned for PSNR {more('psnr', exact)} for the same PSNR. JPEGs that "
        f"are kept byte for byte (`--lossless`) take {saved} less. On {jobs['cores']} cores a whole job of the size of "
        f"this codec decodes {jobs['decode']:.1f} megapixels a second and compresses {jobs['compress']:.1f} with full "
        "verification."
    )
    return fill(text, 120, break_long_words=False, break_on_hyphens=False)


# --- kinds of results -----------------------------------------------------------------------------


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _evaluations(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Curves and BD-rates of codecs on the same pictures, side by side. Points without speeds stay in the JSON."""
    timed = all(point.get("encode_mp_per_s") for result in results for point in result["curve"]["points"])
    parts = []
    if timed and results[0]["curve"]["points"]:
        columns, rows = ["quality"], [[f"{point['quality']:g}"] for point in results[0]["curve"]["points"]]
        for result in results:
            points = result["curve"]["points"]
            metrics = [name for name in MEASURES if points[0].get(name) is not None]
            named = ("bpp", *(MEASURES[name].name for name in metrics), "encode MP/s", "decode MP/s")
            columns += [_of(result, name, results) for name in named]
            for row, point in zip(rows, points, strict=True):
                row.append(f"{point['bpp']:.3f}")
                row += [MEASURES[name].pattern.format(point[name]) for name in metrics]
                row += [f"{point[f'{way}_mp_per_s']:.2f}" for way in ("encode", "decode")]
        parts.append(table(columns, rows))
    columns = ["BD-rate against"]
    rates: dict[str, list[str]] = {name: [] for name in RIVALS}
    for result in results:
        found = {(one["anchor"], one["metric"]): one["percent"] for one in result["comparisons"]}
        metrics = [name for name in MEASURES if any(metric == name for _, metric in found)]
        columns += [_of(result, MEASURES[metric].name.removesuffix(" dB"), results) for metric in metrics]
        for name, row in rates.items():
            row += [f"{found[name, metric]:+.1f} %" if (name, metric) in found else "" for metric in metrics]
    parts.append(table(columns, [[RIVALS[name], *row] for name, row in rates.items() if any(row)]))
    return parts


def _of(result: Mapping[str, Any], column: str, results: Sequence[object]) -> str:
    """The heading of a column, with the codec where there are several."""
    return column if len(results) == 1 else f"`{result['codec']}`: {column}"


def _pipeline(result: Mapping[str, Any]) -> list[str]:
    bare = result["bare"]
    how = f"{result['pictures']} pictures, {result['megapixels']:.1f} megapixels, {result['precision']}"
    best = f"{bare['lanes']} lanes of {many(bare['threads'], 'thread')} and batches of {bare['batch']}"
    rows = [
        ["whole job", f"{result['compress']:.2f}", f"{result['decode']:.2f}"],
        ["bare networks", f"{bare['compress']:.2f}", f"{bare['decode']:.2f}"],
        ["share", f"{100 * result['compress_of_bare']:.0f} %", f"{100 * result['decode_of_bare']:.0f} %"],
    ]
    told = f"{how}; start-up {result['start_seconds']:.1f} s. The bare networks were at their best with {best}."
    return [told, table(["MP/s", "compress", "decode"], rows)]


def _entropy(result: Mapping[str, Any]) -> list[str]:
    rows = []
    for case in result["cases"]:
        row = [case["name"]]
        for one in (case["encode"], case["decode"]):
            slow, bare = one["compressai"] / 1e6, one["compressai_without_lists"] / 1e6
            row += [f"{one['lichen'] / 1e6:.0f}", f"{slow:.1f} ({bare:.1f})"]
        both = " / ".join(f"{one['two_threads']:.2f}" for one in (case["encode"], case["decode"]))
        rows.append([*row, f"{case['lichen_excess']:.3%}".replace("%", " %"), both])
    columns = ["million symbols a second", "encode", "CompressAI", "decode", "CompressAI"]
    return [table([*columns, "excess over the ideal rate", "two threads, encode / decode"], rows)]


def _table(result: Mapping[str, Any]) -> list[str]:
    return [table(result["columns"], result["rows"])]


_KINDS: Final = {"pipeline": _pipeline, "entropy": _entropy, "table": _table}
