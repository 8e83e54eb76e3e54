"""The JSON of a codec: bytes that may come from anywhere to a dictionary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lichen.models.errors import InvalidCodec

MAX_JSON_BYTES = 1 << 22


def parse_card(files: Mapping[str, bytes]) -> dict[str, Any]:
    """The JSON object among the files of a codec. Raises ``InvalidCodec``."""
    data = files.get("json")
    if data is None:
        raise InvalidCodec("a codec needs its JSON file")
    if len(data) > MAX_JSON_BYTES:
        raise InvalidCodec(f"codec JSON of {len(data)} bytes; at most {MAX_JSON_BYTES} are allowed")
    try:
        card = json.loads(data)
    except (ValueError, RecursionError) as error:  # bad UTF-8 and absurd integers are ValueErrors too
        raise InvalidCodec(f"codec JSON does not parse: {error}") from error
    if not isinstance(card, dict):
        raise InvalidCodec("codec JSON is not an object")
    return card
