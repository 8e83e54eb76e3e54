"""``lichen models``: the codecs that are there, those that can be trained, and those of others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lichen.jobs import options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lichen.models.codec import Codec


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(invoke_without_command=True, help="List the codecs, or show one.")
    group.callback()(list_models)
    group.command("show")(show)
    group.command("architectures")(architectures)
    group.command("import")(import_)
    app.add_typer(group, name="models")


def list_models(ctx: typer.Context, as_json: options.JsonOption = False) -> None:
    """List every codec that can be named, with the size of what an archive has to carry to decode it."""
    if ctx.invoked_subcommand is not None:
        return

    from lichen.jobs import console
    from lichen.models.registry import codec_names, load_codec

    summaries = [_summary(load_codec(name)) for name in codec_names()]
    if as_json:
        console.write_json(summaries)
        return
    rows = console.table("Codecs (and auto, which chooses picture by picture)", ("name", "decoder bytes", "digest"))
    for summary in summaries:
        rows.add_row(summary["name"], f"{summary['decoder_bytes']:,}", summary["digest"][:16])
    console.stdout().print(rows)


def show(
    name: Annotated[str, typer.Argument(help="A codec's name.")],
    as_json: options.JsonOption = False,
) -> None:
    """Show one codec: digest, files, configuration, and how a learned one was trained and what it measured."""
    import json

    from lichen.jobs import console
    from lichen.models.registry import load_codec, training_notes

    codec = load_codec(name)
    configuration = json.loads(codec.decoder_files()["json"])
    summary, notes = _summary(codec), training_notes(name)
    if as_json:
        console.write_json(summary | {"configuration": configuration, "notes": notes})
        return
    out = console.stdout()
    for key, value in summary.items():
        out.print(f"{key}: {value}")
    evaluation = notes.pop("evaluation", None)
    out.print_json(data={"configuration": configuration} | notes)
    if evaluation is not None:
        _show_evaluation(evaluation)


def _show_evaluation(evaluation: Mapping[str, Any]) -> None:
    from lichen.jobs import console
    from lichen.jobs.measures import MEASURES

    names = {metric: measure for metric, measure in MEASURES.items() if metric in evaluation["points"][0]}
    points = console.table(str(evaluation["data"]), ("quality", "bpp", *(measure.name for measure in names.values())))
    for point in evaluation["points"]:
        numbers = (measure.pattern.format(point[metric]) for metric, measure in names.items())
        points.add_row(f"{point['quality']:g}", f"{point['bpp']:.3f}", *numbers)
    found = evaluation["bd_rate_percent"]
    rates = console.table("BD-rate", ("against", *(MEASURES[metric].name.removesuffix(" dB") for metric in found)))
    others = dict.fromkeys(other for by in found.values() for other in by)
    for other in others:
        rates.add_row(other, *(f"{by[other]:+.1f} %" if other in by else "" for by in found.values()))
    console.stdout().print(points, rates)


def architectures(as_json: options.JsonOption = False) -> None:
    """List the architectures that `lichen train --architecture` takes, with their switches."""
    from lichen.jobs import console
    from lichen.models import registry

    found: list[dict[str, Any]] = []
    for name, switches in registry.architectures().items():
        config = registry.config_of(name)
        parameters, multiplications = registry.cost(config)
        found.append(
            {
                "name": name,
                "parameters": parameters,
                "kmac_per_pixel": round(multiplications / 1e3, 1),
                "rates": "continuous" if config.continuous else "one",
                "switches": list(switches),
            }
        )
    if as_json:
        console.write_json(found)
        return
    rows = console.table("Architectures", ("name", "parameters", "kMAC/pixel", "rates", "switches"))
    for one in found:
        numbers = f"{one['parameters']:,}", f"{one['kmac_per_pixel']:,}"
        rows.add_row(one["name"], *numbers, one["rates"], ", ".join(one["switches"]))
    console.stdout().print(rows)


def import_(
    system: Annotated[str, typer.Argument(help="tcm, cwam, compressai/mbt2018-mean, ...")],
    checkpoint: Annotated[
        Path, typer.Argument(parser=options.path, help="A PyTorch checkpoint as the published code saves it.")
    ],
    name: Annotated[str | None, typer.Option(help="Name of the codec. Default: that of the file.")] = None,
    out: Annotated[
        Path | None, typer.Option(parser=options.path, help="Folder. Default: the user's, where --codec finds it.")
    ] = None,
    weight: Annotated[
        float | None, typer.Option("--lambda", min=0, help="What it was trained for; only told in the card.")
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Make a codec of a published checkpoint. Its weights are in every archive that it writes: mind their licence."""
    from lichen.jobs import console
    from lichen.models.bundle import check_free, write_codec
    from lichen.models.device import find_device
    from lichen.models.registry import check_name, check_user_name, load_files, user_folder
    from lichen.models.snapped.importing import import_checkpoint, read_checkpoint
    from lichen.models.snapped.scheme import freeze

    name = (check_user_name if out is None else check_name)(name or checkpoint.name.partition(".")[0])
    check_free(out or user_folder(), name)
    network = import_checkpoint(system, read_checkpoint(checkpoint), weight=weight)
    files = freeze(network, name, {"imported": {"system": system, "checkpoint": checkpoint.name}})
    summary = _summary(load_files(files, find_device("cpu", "float32")))
    path = write_codec(out or user_folder(), name, files)
    if as_json:
        console.write_json(summary | {"path": str(path)})
    else:
        where = name if out is None else str(path)
        typer.echo(f"codec {name}: {summary['decoder_bytes']:,} bytes in each archive; use it as --codec {where}")


def _summary(codec: Codec) -> dict[str, Any]:
    files = codec.decoder_files()
    return {
        "name": codec.name,
        "digest": codec.digest,
        "decoder_bytes": sum(map(len, files.values())),
        "files": {extension: len(content) for extension, content in files.items()},
    }
