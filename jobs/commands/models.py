"""``lichen models``: the codecs that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lichen.models.codec import Codec

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(invoke_without_command=True, help="List the codecs, or show one.")
    group.callback()(list_models)
    group.command("show")(show)
    app.add_typer(group, name="models")


def list_models(ctx: typer.Context, as_json: JsonOption = False) -> None:
    """List every codec that can be named, with the size of what an archive has to carry to decode it."""
    if ctx.invoked_subcommand is not None:
        return

    from lichen.jobs import console
    from lichen.models.zoo import codec_names, load_codec

    summaries = [_summary(load_codec(name)) for name in codec_names()]
    if as_json:
        console.write_json(summaries)
        return
    rows = console.table("Codecs", ("name", "decoder bytes", "digest"))
    for summary in summaries:
        rows.add_row(summary["name"], f"{summary['decoder_bytes']:,}", summary["digest"][:16])
    console.stdout().print(rows)


def show(
    name: Annotated[str, typer.Argument(help="A codec's name.")],
    as_json: JsonOption = False,
) -> None:
    """Show one codec: its digest, its files, and its configuration with the model card."""
    import json

    from lichen.jobs import console
    from lichen.models.zoo import load_codec

    codec = load_codec(name)
    summary = _summary(codec) | {"configuration": json.loads(codec.decoder_files()["json"])}
    if as_json:
        console.write_json(summary)
        return
    out = console.stdout()
    for key, value in summary.items():
        if key != "configuration":
            out.print(f"{key}: {value}")
    out.print_json(data=summary["configuration"])


def _summary(codec: Codec) -> dict[str, Any]:
    files = codec.decoder_files()
    return {
        "name": codec.name,
        "digest": codec.digest,
        "decoder_bytes": sum(map(len, files.values())),
        "files": {extension: len(content) for extension, content in files.items()},
    }
