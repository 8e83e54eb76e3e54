"""``lichen report``: what an archive saved, and how good its pictures are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lichen import defaults
from lichen.jobs import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from lichen.pipeline.report import Report
    from lichen.pipeline.tally import Group, Reason

KEY_WIDTH = 60
KEYS_SHOWN = 3


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(report)


def report(
    archive: options.ArchiveArgument,
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst pictures to name.")] = defaults.WORST,
    snapshot: options.SnapshotOption = None,
    storage_options: options.StorageOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Bytes and bits per pixel before and after with everything counted, quality, and what is not in the archive.

    Reads the index only; nothing is decoded.
    """
    from lichen.jobs import console
    from lichen.pipeline.report import make_report

    opened = options.open_archive(archive, storage_options, snapshot=snapshot, device="cpu")
    options.tell_if_empty(opened)
    result = make_report(opened, worst=worst)
    if as_json:
        console.write_json(result.to_json())
        return
    out = console.stdout()
    _totals(out, result)
    if result.pictures:
        _groups(out, result)
        _quality(out, result)
    _reasons(out, "Packed without loss", result.packed, result.packed_reasons)
    _reasons(out, "Stored as they were", result.stored, result.stored_reasons)
    _reasons(out, "Not readable, quarantined", result.quarantined, result.quarantine_reasons)
    _reasons(out, "No pictures, left out", result.skipped, result.skip_reasons)


def _totals(out: Console, result: Report) -> None:
    from lichen.jobs import console
    from lichen.jobs.display import bytes_text, many, number, percent, shown

    saved, sizes = result.savings, result.sizes
    title = f"{shown(result.url)}: {many(result.pictures, 'picture')}, {result.pixels / 1e6:,.1f} MP"
    rows = console.table("", ("", "before", "after", "saved"))
    before, after = bytes_text(saved.source_bytes), bytes_text(saved.archive_bytes)
    rows.add_row("bytes, everything counted", before, after, percent(saved.savings))
    rows.add_row("bits per pixel", number(saved.bpp_before), number(saved.bpp_after), "")
    without = bytes_text(saved.archive_bytes - saved.weights_bytes)
    rows.add_row("bytes without the codec's weights", before, without, percent(saved.savings_without_weights))
    out.print(title, markup=False, style="bold")
    out.print(rows)
    parts = [
        ("payloads", sizes.payloads),
        ("side data", sizes.side_data),
        ("index", sizes.index),
        ("job records", sizes.records),
        ("weights", sizes.weights),
        ("replaced pictures", sizes.dead),
    ]
    told = ", ".join(f"{name} {bytes_text(size)}" for name, size in parts if size)
    out.print(f"The archive's {after}: {told}.", markup=False)
    if saved.repaid_after_bytes is None and result.pictures:
        out.print("Without the weights nothing is saved, so they are never repaid.")
    elif saved.repaid_after_bytes is not None and saved.weights_bytes > 100_000:
        size, count = bytes_text(saved.repaid_after_bytes), saved.repaid_after_pictures or 0
        state = "are" if saved.source_bytes >= saved.repaid_after_bytes else "would be"
        out.print(
            f"The weights are a fixed cost of {bytes_text(saved.weights_bytes)}; pictures like these {state} worth it "
            f"from {size} of sources on ({many(count, 'picture')})."
        )
    if sizes.unneeded:
        out.print(
            f"Not counted: {bytes_text(sizes.unneeded)} that this snapshot does not need. `lichen gc` deletes "
            "what of it no other snapshot and no unfinished job needs."
        )
    for codec in result.codecs:
        out.print(f"Codec {shown(codec.name)} ({codec.digest[:16]}): {many(codec.pictures, 'picture')}.", markup=False)
    if result.unknown_size:
        out.print(f"{many(result.unknown_size, 'picture')} of unknown size left out of the bits per pixel.")
    out.print()


def _groups(out: Console, result: Report) -> None:
    from lichen.jobs import console
    from lichen.jobs.display import bytes_text, number, percent, shown

    rows = console.table(
        "Payloads by status, source format, size and quality", ("", "pictures", "before", "after", "saved", "PSNR dB")
    )
    sections: tuple[tuple[str, Sequence[Group]], ...] = (
        ("", result.by_status),
        ("", result.by_format),
        ("", result.by_size),
        ("quality ", result.by_quality),
    )
    for prefix, groups in sections:
        for group in groups:
            rows.add_row(
                prefix + shown(group.name),
                f"{group.pictures:,}",
                bytes_text(group.source_bytes),
                bytes_text(group.bytes),
                percent(group.savings),
                number(group.psnr),
            )
        rows.add_section()
    out.print(rows)


def _quality(out: Console, result: Report) -> None:
    from rich.text import Text

    from lichen.jobs import console
    from lichen.jobs.display import many, number, shown
    from lichen.pipeline.report import SCORES

    if not result.compressed:
        return
    names = list(result.psnr.percentiles)
    rows = console.table(
        "Quality of the compressed pictures, by percentile", ("", "pictures", "worst", *names, "mean", "exact")
    )
    for name, spread, pattern in (
        ("PSNR dB", result.psnr, "{:.2f}"),
        ("worst 64x64 block dB", result.block_psnr, "{:.2f}"),
        ("MS-SSIM", result.ms_ssim, "{:.4f}"),
        ("SSIMULACRA 2", result.ssimulacra2, "{:.1f}"),
    ):
        values = [number(spread.percentiles[point], pattern) for point in names]
        rows.add_row(
            name,
            f"{spread.count:,}",
            number(spread.minimum, pattern),
            *values,
            number(spread.mean, pattern),
            f"{spread.exact:,}",
        )
    out.print(rows)
    if result.ssimulacra2.count:
        out.print(f"SSIMULACRA 2 in words: {SCORES}. Of {many(result.ssimulacra2.count, 'picture')} measured.")
    if not result.worst:
        return
    rows = console.table("Lowest PSNR", ("key", "PSNR dB", "block dB", "MS-SSIM", "SSIMULACRA 2", "quality", "bpp"))
    for row in result.worst:
        rows.add_row(
            Text(shown(row.key, KEY_WIDTH)),
            number(row.psnr),
            number(row.block_psnr),
            number(row.ms_ssim, "{:.4f}"),
            number(row.ssimulacra2, "{:.1f}"),
            number(row.quality, "{:g}"),
            number(row.bpp, "{:.3f}"),
        )
    out.print(rows)


def _reasons(out: Console, title: str, count: int, reasons: Sequence[Reason]) -> None:
    from rich.text import Text

    from lichen.jobs import console
    from lichen.jobs.display import shown

    if not count:
        return
    rows = console.table(f"{title}: {count:,}", ("reason", "pictures", "such as"))
    rows.columns[0].no_wrap = rows.columns[2].no_wrap = False
    rows.columns[2].justify = "left"
    for reason in reasons:
        keys = [shown(key, KEY_WIDTH) for key in reason.keys[:KEYS_SHOWN]]
        rows.add_row(Text(shown(reason.reason, 160)), f"{reason.count:,}", Text(", ".join(keys)))
    out.print(rows)
