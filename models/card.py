"""The JSON of a codec: bytes that may come from anywhere to a dictionary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lichen.errors import InvalidCodec

if TYPE_CHECKING:
    from lichen.models.codec import Codec

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


def decoder_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a full codec's JSON that decoding depends on. Raises ``InvalidCodec``."""
    decoder = card.get("decoder")
    if not isinstance(decoder, dict):
        raise InvalidCodec("the codec JSON has no 'decoder' object")
    return decoder


def check_digest(card: Mapping[str, Any], codec: Codec) -> None:
    """Raise ``InvalidCodec`` unless a codec is the one that its card tells of."""
    if card.get("digest") != codec.digest:
        raise InvalidCodec(f"codec {codec.name}: the digest does not match the weights; the files are damaged")


def check_fields(config: Mapping[str, Any], family: str, versions: tuple[int, ...], names: frozenset[str]) -> None:
    """Raise ``InvalidCodec`` unless the decoder's part has just these fields, for a family and a version of the format.

    Beside ``names`` those are the family, the format, the codec's name and its self-test.
    """
    if set(config) != {"family", "format", "name", "self_test"} | names:
        raise InvalidCodec("the codec JSON does not have the fields of this format")
    if config["family"] != family or not any(is_version(config["format"], v) for v in versions):
        raise InvalidCodec(
            f"codec format {str(config['format'])[:20]} of {str(config['family'])[:40]} is not known here"
        )
    name, test = config["name"], config["self_test"]
    if not isinstance(name, str) or not 0 < len(name) <= 100 or not isinstance(test, str) or len(test) != 32:
        raise InvalidCodec("the codec JSON has a malformed name or self-test")
    if any(c not in "0123456789abcdef" for c in test):
        raise InvalidCodec("the self-test of the codec JSON is not hexadecimal")


def is_version(value: object, version: int) -> bool:
    """Whether a field of a codec's JSON is this version of a format; no ``true`` and no ``1.0`` is."""
    return type(value) is int and value == version


def number_between(value: object, low: float, high: float, what: str, *, whole: bool) -> Any:
    """A constructor argument from a codec's JSON. Raises ``InvalidCodec``."""
    kinds: tuple[type, ...] = (int,) if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:  # type: ignore[operator]
        raise InvalidCodec(f"constructor argument {what} is not between {low} and {high}")
    return value
