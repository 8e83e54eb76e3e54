"""The figures of the documents, as SVG files in ``docs/figures`` (``python -m lab figures``).

They are drawn with their own background, so that they read in light and dark alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[1] / "docs" / "figures"

INTEGERS = ("#e0f2e5", "#2c7a4b")
FLOATS = ("#e6effb", "#3565ac")
CODER = ("#fdf0d5", "#a8690f")
DATA = ("#f1f1ef", "#5c5c58")
GONE = ("#fbe4e1", "#b23b2e")
"""Fill and line of a kind of box."""

INK, SOFT = "#20201e", "#6a6a66"

Kind = tuple[str, str]
Lines = tuple[str, ...]
Point = tuple[float, float]


class Figure:
    """An SVG picture of boxes, arrows and words, in pixels."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self.parts: list[str] = []

    def box(self, place: tuple[float, float, float, float], kind: Kind, name: str, *told: str) -> None:
        """A box at ``(left, top, width, height)`` with a name and small lines below it."""
        left, top, width, height = place
        fill, line = kind
        self.parts.append(
            f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="7" fill="{fill}" stroke="{line}" '
            'stroke-width="1.5"/>'
        )
        first = top + height / 2 - 8.5 * len(told) + 5
        self.text((left + width / 2, first), name, bold=True)
        for number, line_of_text in enumerate(told, 1):
            self.text((left + width / 2, first + 17 * number), line_of_text, small=True)

    def band(self, place: tuple[float, float, float, float]) -> None:
        """A region behind boxes."""
        left, top, width, height = place
        self.parts.append(
            f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="10" fill="#fafaf8" stroke="#c9c9c4" '
            'stroke-dasharray="5 4"/>'
        )

    def arrow(self, points: Sequence[Point], kind: Kind = DATA, *, dashed: bool = False) -> None:
        """A line through ``points`` with a head at its end."""
        path = "M" + " L".join(f"{x} {y}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        line = f'fill="none" stroke="{kind[1]}" stroke-width="1.7"{dash}'
        self.parts.append(f'<path d="{path}" {line} marker-end="url(#{_mark(kind)})"/>')

    def text(
        self,
        at: Point,
        words: str,
        *,
        bold: bool = False,
        small: bool = False,
        code: bool = False,
        anchor: str = "middle",
        kind: Kind | None = None,
    ) -> None:
        """Words around, or from, a point on their base line."""
        colour = kind[1] if kind is not None else SOFT if small else INK
        size = 10.2 if code else 12.5 if small else 14.5
        family = ' font-family="ui-monospace, Menlo, Consolas, monospace"' if code else ""
        self.parts.append(
            f'<text x="{at[0]}" y="{at[1]}" font-size="{size}" font-weight="{600 if bold else 400}" '
            f'text-anchor="{anchor}" fill="{colour}"{family}>{escape(words)}</text>'
        )

    def svg(self) -> str:
        """The whole file."""
        heads = "".join(
            f'<marker id="{_mark(kind)}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{kind[1]}"/></marker>'
            for kind in (INTEGERS, FLOATS, CODER, DATA, GONE)
        )
        size = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}"'
        font = 'font-family="system-ui, Helvetica, Arial, sans-serif"'
        ground = f'x="0.5" y="0.5" width="{self.width - 1}" height="{self.height - 1}" rx="12"'
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" {font}>',
            f"<title>{escape(self.title)}</title>",
            f"<defs>{heads}</defs>",
            f'<rect {ground} fill="#ffffff" stroke="#d5d5d0"/>',
            *self.parts,
            "</svg>",
        ]
        return "\n".join(lines) + "\n"


def _mark(kind: Kind) -> str:
    return f"head-{kind[1].removeprefix('#')}"


def codec() -> Figure:
    """The shipped codec, from a picture to its bitstream and back."""
    figure = Figure(1100, 660, "The codec s2c-conv: encoder, entropy model and decoder")
    figure.band((170, 280, 740, 150))
    figure.text((30, 322), "both ends", small=True, anchor="start")
    for number, words in enumerate(("the entropy model", "reads only what is", "decoded already")):
        figure.text((30, 347 + 17 * number), words, small=True, anchor="start")

    # The encoder, from left to right.
    figure.text((30, 34), "encoder", small=True, anchor="start")
    figure.box((30, 50, 110, 64), DATA, "picture", "H x W x 3")
    figure.box((190, 50, 180, 64), FLOATS, "analysis g_a", "network, then 16x16 blocks")
    figure.box((450, 50, 190, 64), FLOATS, "round((y - mean) · gain)", "with a dead zone")
    figure.box((720, 50, 140, 64), CODER, "rANS encoder", "symbols of y")
    figure.box((190, 165, 180, 64), FLOATS, "hyper-analysis h_a", "z, a quarter of y's side")
    figure.box((450, 165, 190, 64), CODER, "round(z / step), rANS", "tables: channel and context")
    figure.arrow([(140, 82), (190, 82)])
    figure.arrow([(370, 82), (450, 82)], FLOATS)
    figure.text((410, 74), "y, 1/16", small=True)
    figure.arrow([(640, 82), (720, 82)], INTEGERS)
    figure.text((680, 74), "int16", small=True)
    figure.arrow([(860, 82), (950, 82)], CODER)
    figure.text((905, 74), "y stream", small=True)
    figure.arrow([(280, 114), (280, 165)], FLOATS)
    figure.arrow([(370, 197), (450, 197)], FLOATS)
    figure.arrow([(640, 197), (950, 197)], CODER)
    figure.text((905, 189), "z stream", small=True)

    # What both ends compute.
    figure.box((190, 308, 220, 70), FLOATS, "mean network", "four steps, each reads", "the latents of those before")
    figure.box((480, 308, 130, 70), INTEGERS, "symbols of z")
    figure.box(
        (680, 308, 210, 70), INTEGERS, "integer scale network", "five layers in integers:", "exact on every device"
    )
    figure.arrow([(545, 229), (545, 308)], INTEGERS)
    figure.arrow([(480, 343), (410, 343)], INTEGERS)
    figure.arrow([(610, 343), (680, 343)], INTEGERS)
    figure.arrow([(790, 308), (790, 114)], INTEGERS)
    figure.text((798, 250), "table indexes", small=True, anchor="start", kind=INTEGERS)
    figure.arrow([(790, 378), (790, 492)], INTEGERS)
    figure.text((798, 460), "table indexes", small=True, anchor="start", kind=INTEGERS)
    figure.arrow([(395, 308), (395, 140), (500, 140), (500, 114)], FLOATS)
    figure.text((420, 134), "means", small=True, anchor="start", kind=FLOATS)
    figure.arrow([(395, 378), (395, 460), (500, 460), (500, 492)], FLOATS)
    figure.text((420, 454), "means", small=True, anchor="start", kind=FLOATS)

    # The decoder, from right to left.
    figure.text((30, 476), "decoder", small=True, anchor="start")
    figure.box((30, 492, 110, 64), DATA, "picture", "uint8")
    figure.box((190, 492, 180, 64), FLOATS, "synthesis g_s", "16x16 blocks, then network")
    figure.box((450, 492, 230, 64), FLOATS, "mean + symbol · factor", "factor = exp(shrink - gain)")
    figure.box((720, 492, 140, 64), CODER, "rANS decoder", "symbols of y")
    figure.arrow([(950, 524), (860, 524)], CODER)
    figure.text((905, 516), "y stream", small=True)
    figure.arrow([(720, 524), (680, 524)], INTEGERS)
    figure.arrow([(450, 524), (370, 524)], FLOATS)
    figure.arrow([(190, 524), (140, 524)])
    figure.arrow([(420, 524), (420, 478), (280, 478), (280, 378)], FLOATS, dashed=True)
    figure.text((272, 450), "decoded latents", small=True, anchor="end", kind=FLOATS)
    figure.arrow([(950, 405), (545, 405), (545, 378)], CODER)
    figure.text((868, 399), "rANS decoder", small=True)

    figure.box((950, 50, 120, 506), DATA, "bitstream", "size, quality,", "sections,", "checksum")
    for left, kind, words in (
        (190, INTEGERS, "integers: they alone choose the coder's tables"),
        (520, FLOATS, "floating point: may differ in the last digits"),
        (840, CODER, "entropy coder"),
    ):
        figure.parts.append(
            f'<rect x="{left}" y="606" width="20" height="14" rx="3" fill="{kind[0]}" stroke="{kind[1]}"/>'
        )
        figure.text((left + 28, 618), words, small=True, anchor="start")
    return figure


def archive() -> Figure:
    """An archive's life, and what a crash leaves at each point of it."""
    figure = Figure(1080, 560, "An archive's life: plan, attempt, commit, snapshot, gc")
    steps: tuple[tuple[str, Kind, Lines, Lines], ...] = (
        (
            "plan",
            DATA,
            ("driver", "lists the sources", "into shards"),
            ("jobs/<job>/job.json", "jobs/<job>/plan-<part>.parquet", "jobs/<job>/plan.json"),
        ),
        (
            "attempt",
            FLOATS,
            ("worker", "encodes, decodes,", "writes, reads back"),
            ("shards/<shard>-<attempt>.bin", "shards/<shard>-<attempt>.parquet"),
        ),
        (
            "commit",
            INTEGERS,
            ("worker", "creates one name:", "the first one counts"),
            ("commits/<job>/<shard>.json",),
        ),
        (
            "snapshot",
            INTEGERS,
            ("driver", "merges the commits", "into the newest"),
            ("snapshots/<n>-<attempt>*", "snapshots/<n>.json", "jobs/<job>/done.json"),
        ),
        (
            "gc",
            GONE,
            ("anybody, later", "deletes what is old, ours", "and named by nothing"),
            ("attempts that lost or died", "snapshots that expired", "payloads that were replaced"),
        ),
    )
    fates = (
        ("nothing visible;", "the next driver goes", "on behind the last part"),
        ("files that nobody names;", "the shard is given out", "again, another attempt"),
        ("there or not there;", "a late rival meets the", "name and has lost"),
        ("the one before stays;", "the next driver makes it", "from the commits"),
        ("no snapshot names a", "missing file: snapshots", "go first, data after"),
    )
    figure.text((30, 38), "in the order of time", small=True, anchor="start")
    for number, ((name, kind, told, files), fate) in enumerate(zip(steps, fates, strict=True)):
        left = 30 + 210 * number
        figure.box((left, 52, 180, 96), kind, name, *told)
        if number < len(steps) - 1:
            figure.arrow([(left + 180, 100), (left + 210, 100)])
        for line, file in enumerate(files):
            figure.text((left + 90, 178 + 17 * line), file, small=kind is GONE, code=kind is not GONE)
        figure.box((left, 262, 180, 84), DATA, "killed here", *fate)
        figure.arrow([(left + 90, 226), (left + 90, 262)], GONE, dashed=True)

    figure.box((240, 410, 180, 84), GONE, "split", "a shard that kills", "its workers, in parts")
    figure.arrow([(330, 346), (330, 410)], GONE, dashed=True)
    figure.arrow([(420, 452), (436, 452), (436, 130), (450, 130)], INTEGERS)
    figure.text((446, 456), "takes the shard's own name", small=True, anchor="start", kind=INTEGERS)
    figure.box((660, 410, 180, 84), DATA, "readers", "open the greatest n, and", "follow only its names")
    figure.arrow([(750, 410), (750, 370), (650, 370), (650, 132), (660, 132)], DATA)
    figure.box((30, 410, 180, 84), DATA, "an update", "new and changed sources", "are another job")
    figure.arrow([(120, 410), (120, 378), (18, 378), (18, 100), (30, 100)], DATA)
    figure.text(
        (540, 535),
        "A name that counts is created once, and never where one is there already; "
        "what a snapshot names only gc deletes.",
        small=True,
    )
    return figure


FIGURES = {"codec": codec, "archive": archive}


def write(folder: Path = FOLDER) -> None:
    """Write every figure."""
    for name, draw in FIGURES.items():
        (folder / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")
