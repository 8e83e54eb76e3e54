"""What was measured of a codec, written into its own JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lichen.errors import UsageError
from lichen.jobs.display import many
from lichen.jobs.evaluate import Evaluation, is_kodak
from lichen.jobs.measures import MEASURES
from lichen.models.bundle import decoder_card, parse_card, pretty, write_whole


def evaluation_note(result: Evaluation) -> dict[str, Any]:
    """Points and BD-rates as plain values: ``{"data", "points", "bd_rate_percent": {measure: {other: percent}}}``."""
    metrics = [metric for metric in MEASURES if result.curve.front(metric)]
    count = len(result.images)
    rates: dict[str, dict[str, float]] = {metric: {} for metric in metrics}
    for one in result.comparisons:
        if one.percent is not None and one.metric in rates:
            rates[one.metric][one.anchor] = round(one.percent, 2)
    return {
        "data": f"{'Kodak, ' if is_kodak(result.images) else ''}{many(count, 'picture')}, real bytes",
        "points": [
            {name: getattr(point, name) for name in ("quality", "bpp", *metrics)} for point in result.curve.points
        ],
        "bd_rate_percent": {metric: found for metric, found in rates.items() if found},
    }


def write_note(path: Path, result: Evaluation) -> None:
    """Put an evaluation into the notes of a full codec's JSON; what decodes, and its digest, stay as they are.

    Raises as ``card_to_note``.
    """
    card = card_to_note(path, result.digest)
    card["notes"] = {**card.get("notes", {}), "evaluation": evaluation_note(result)}
    write_whole(path, pretty(card))


def card_to_note(path: Path, digest: str) -> dict[str, Any]:
    """The JSON of the codec with this digest; to be asked before an evaluation that is to go into it.

    Raises ``InvalidCodec`` for other files, and ``UsageError`` for none and for another codec.
    """
    try:
        card = parse_card({"json": path.read_bytes()})
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    decoder_card(card)
    if card.get("digest") != digest:
        raise UsageError(f"{path} is another codec than the one that is evaluated")
    return card
