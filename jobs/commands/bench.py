"""``lichen bench``: measurements of speed on this machine.

Each benchmark is a module of ``lichen.jobs.bench`` whose ``run()`` returns a dataclass of results.
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

    result = run()
    if as_json:
        console.write_json(result)
        return
    cases = [dict(console.flatten(console.jsonable(case))) for case in result.cases]
    rows = console.table(f"Entropy coder, best of {result.repeats}", ("", *(case.pop("name") for case in cases)))
    for measure in cases[0]:
        rows.add_row(measure, *(_number(case[measure]) for case in cases))
    console.stdout().print(rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
