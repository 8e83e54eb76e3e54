"""JSON files of an archive: checked against damage, and read as if an enemy had written them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import google_crc32c

from lichen.errors import CorruptArchive, MissingObject, UnsupportedArchive
from lichen.pipeline.archive.layout import FORMAT, check
from lichen.pipeline.archive.store import Store
from lichen.pipeline.sources.base import is_utf8

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None

MAX_JSON_BYTES = 64 * 1024 * 1024
MAX_INTEGER = 2**62
SEAL = "crc32c"
"""The field with the checksum of all the others."""


class Fields:
    """A JSON object whose fields are taken out by type; anything else raises ``CorruptArchive``."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise CorruptArchive(f"{where}: not a JSON object")
        self.values: dict[str, Any] = value
        self.where = where

    def _wrong(self, name: str, wanted: str) -> CorruptArchive:
        return CorruptArchive(f"{self.where}: field {name!r} is missing or not {wanted}")

    def text(self, name: str) -> str:
        value = self.values.get(name)
        if not isinstance(value, str) or not is_utf8(value):
            raise self._wrong(name, "a string")
        return value

    def name(self, name: str, kind: str) -> str:
        """A string that is a name of this kind (see layout.py)."""
        return check(kind, self.text(name))

    def integer(self, name: str, minimum: int = 0) -> int:
        value = self.values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= MAX_INTEGER:
            raise self._wrong(name, f"an integer of {minimum} or more")
        return value

    def optional_integer(self, name: str) -> int | None:
        return None if self.values.get(name) is None else self.integer(name)

    def mapping(self, name: str) -> dict[str, Any]:
        value = self.values.get(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "an object")
        return value

    def integers(self, name: str) -> dict[str, int]:
        """An object whose values are all non-negative integers."""
        inner = Fields(self.mapping(name), f"{self.where}: {name}")
        return {key: inner.integer(key) for key in inner.values}

    def sequence(self, name: str) -> list[Any]:
        value = self.values.get(name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list")
        return value

    def objects(self, name: str) -> list[Fields]:
        return [Fields(value, f"{self.where}: {name}[{n}]") for n, value in enumerate(self.sequence(name))]

    def names(self, name: str, kind: str) -> tuple[str, ...]:
        return tuple(check(kind, value) for value in self.sequence(name))


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """A data file as a commit or snapshot names it; ``sha256`` in hexadecimal."""

    file: str
    size: int
    sha256: str
    rows: int

    def to_json(self) -> dict[str, Json]:
        return {"file": self.file, "size": self.size, "sha256": self.sha256, "rows": self.rows}

    @classmethod
    def from_fields(cls, fields: Fields, kind: str) -> FileRecord:
        return cls(
            file=fields.name("file", kind),
            size=fields.integer("size"),
            sha256=fields.name("sha256", "digest"),
            rows=fields.integer("rows"),
        )


def dump(value: Mapping[str, Json]) -> bytes:
    """A JSON file of the archive, with the format number in front and the checksum at the end."""
    record = {"format": FORMAT, **value}
    return _text({**record, SEAL: _checksum(record)})


def parse(data: bytes, where: str) -> Fields:
    """Parse a JSON file and check its checksum and its format number."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptArchive(f"{where} is damaged, it is not JSON ({error}); {_remedy(where)}") from error
    fields = Fields(value, where)
    stated = fields.values.pop(SEAL, None)
    if stated is None:  # written by an early version, unless one character of the name is damaged
        sound = not any(_is_almost(name, SEAL) for name in fields.values)
    else:
        sound = stated == _checksum(fields.values)
    if not sound:
        raise CorruptArchive(f"{where} is damaged, its checksum is wrong; {_remedy(where)}")
    if fields.integer("format", 1) > FORMAT:
        raise UnsupportedArchive(
            f"{where} has format {fields.integer('format', 1)}; this version of lichen reads up to {FORMAT}"
        )
    return fields


def _text(value: Mapping[str, Any], *, ordered: bool = False) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=ordered).encode()


def _checksum(record: Mapping[str, Any]) -> str:
    """Over the fields in the order of their names, however the file was laid out."""
    try:
        return f"{google_crc32c.value(_text(record, ordered=True)):08x}"
    except (ValueError, RecursionError):  # a lone surrogate: nothing that we wrote
        return "none"


def _is_almost(name: str, wanted: str) -> bool:
    return len(name) == len(wanted) and sum(a != b for a, b in zip(name, wanted, strict=True)) == 1


def _remedy(where: str) -> str:
    if "/lease/" in where or where.endswith("/progress.json"):
        return "delete it when no job runs, nothing else depends on it"
    return "put it back from a copy of the archive"


def load(store: Store, path: str) -> Fields | None:
    """Read and parse a JSON file; None if it does not exist."""
    try:
        data = store.read(path, limit=MAX_JSON_BYTES)
    except MissingObject:
        return None
    return parse(data, path)


def require(store: Store, path: str) -> Fields:
    """Read and parse a JSON file that another file says exists."""
    fields = load(store, path)
    if fields is None:
        raise CorruptArchive(f"{path} is missing")
    return fields
