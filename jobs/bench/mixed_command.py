"""``lichen bench mixed``: photographs and graphics, and which codec each should get."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lichen import defaults


def mixed(
    source: Annotated[Path, typer.Argument(help="A local folder of photographs.")],
    quality: Annotated[float, typer.Option("--quality", "-q", help="Of the learned codec.")] = defaults.QUALITY,
    count: Annotated[int, typer.Option(min=1, help="Photographs to take.")] = 9,
    side: Annotated[int, typer.Option(min=64, help="Cut from their middle, in pixels.")] = 512,
    seed: Annotated[int, typer.Option(help="Of the graphics.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Graphics of each kind.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """What `--codec auto` is worth on photographs and graphics: bytes at equal quality, against hindsight."""
    from lichen.jobs import console
    from lichen.jobs.bench import graphics
    from lichen.jobs.bench.mixed import run, show
    from lichen.jobs.evaluate import load_pictures

    photographs = [graphics.middle(one, side) for one in list(load_pictures(source).values())[:count]]
    pictures = graphics.mixed(photographs, seed=seed, rounds=rounds)
    with console.progress("Measuring", len(pictures)) as advance:
        result = run(pictures, quality=quality, progress=advance)
    if as_json:
        console.write_json(result)
    else:
        console.stdout().print(*show(result))
