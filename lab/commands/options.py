"""Options that several experiments take, each told once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Device = Annotated[str, typer.Option(help="Where networks run: auto, cpu, cuda.")]
Precision = Annotated[str, typer.Option(help="Precision of the learned codec's transforms: auto, float32, bfloat16.")]
Folder = Annotated[Path, typer.Argument(help="A local folder of pictures.")]
LearnedCodec = Annotated[str, typer.Option("--codec", help="A learned codec: a name, or the path of its JSON.")]
Qualities = Annotated[
    list[float] | None, typer.Option("--quality", "-q", help="A quality to measure at; may be given repeatedly.")
]
Repeats = Annotated[int, typer.Option(min=1, help="Runs; the best counts.")]

Sources = Annotated[list[Path], typer.Argument(metavar="SRC...", help="Tar files, folders or pictures.")]
Cache = Annotated[Path | None, typer.Option(help="Folder for the decoded pictures.")]
Start = Annotated[str, typer.Option("--codec", help="The codec whose weights all runs begin with.")]
Variants = Annotated[list[str] | None, typer.Option("--variant", help="Only this variant; may be given repeatedly.")]
