"""``lichen bench``: measurements of speed on this machine.

Each benchmark is a module of ``lichen.jobs.bench`` whose ``run()`` returns a dataclass or mapping of results.
"""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(no_args_is_help=True, help="Measure speed on this machine.")
    group.command()(entropy)
    app.add_typer(group, name="bench")


def entropy(
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compare the entropy coder with CompressAI's on the same symbols, in one run."""
    from lichen.jobs import console
    from lichen.jobs.bench.entropy import run

    result = console.jsonable(run())
    if as_json:
        console.write_json(result)
        return
    rows = console.table("Entropy coder", ("measure", "value"))
    for name, value in console.flatten(result):
        rows.add_row(name, f"{value:,.3f}" if isinstance(value, float) else str(value))
    console.stdout().print(rows)
