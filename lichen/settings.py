"""Settings: fields of frozen configurations that know their own meaning, limits and name on the command line.

    @described
    @dataclass(frozen=True, slots=True, kw_only=True)
    class TeaConfig:
        \"\"\"How tea is made.\"\"\"

        minutes: float = setting(3.0, "How long it draws.", above=0, at_most=10)

        def __post_init__(self) -> None:
            check(self)

The command line makes ``--minutes`` of it (``lichen.jobs.options``), ``help(TeaConfig)`` shows it, and ``check`` keeps
to its limits. Nothing is written twice. Imports nothing, so that the command line can read configurations at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

from lichen.errors import UsageError

_KEY: Final = "lichen"
_KINDS: Final[dict[Any, tuple[type, str]]] = {
    float: (Real, "a number"),
    int: (Integral, "a whole number"),
    bool: (bool, "True or False"),
    str: (str, "text"),
    Mapping: (Mapping, "a mapping"),
    NoneType: (NoneType, "None"),
}
"""What a value of a field's type is an instance of, and what that is called."""
Config = TypeVar("Config")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is known of a field."""

    text: str
    option: str | None = None
    """Its name on the command line, with underscores, where that is not the field's."""
    short: str | None = None
    """One letter for the command line, such as ``-q``."""
    cli: bool = True
    """Whether it is an option at all."""
    unit: int = 1
    """What 1 on the command line is in the field."""
    count: bool = False
    """Whether the option takes no value, and its number is how often it is given."""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    @property
    def limits(self) -> str:
        """In words: ``1 to 100``."""
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:g} to {self.at_most:g}"
        told = (
            ("at least", self.at_least),
            ("above", self.above),
            ("at most", self.at_most),
            ("below", self.below),
        )
        return " and ".join(f"{word} {limit:g}" for word, limit in told if limit is not None)

    def holds(self, value: float) -> bool:
        """Whether a number is within the limits; NaN never is."""
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )


def setting(default: Any, text: str, **known: Any) -> Any:
    """A field of a configuration: its default, one sentence, and what else ``Setting`` has.

    A dictionary is not shown by the configuration's ``repr``: it may hold passwords.
    """
    metadata = {_KEY: Setting(text=text, **known)}
    if isinstance(default, dict):
        return field(default_factory=default.copy, repr=False, metadata=metadata)
    return field(default=default, metadata=metadata)


def setting_of(one: Field[Any]) -> Setting | None:
    """What is known of a field; None for one that is no setting."""
    found: Setting | None = one.metadata.get(_KEY)
    return found


def settings(kind: Any) -> dict[str, tuple[Field[Any], Setting]]:
    """The settings of a configuration, by the names that they have on the command line."""
    found = ((one, setting_of(one)) for one in fields(kind))
    return {known.option or one.name: (one, known) for one, known in found if known is not None}


def choices(kind: Any) -> tuple[str, ...]:
    """The words of a ``Literal``; none of any other type."""
    return tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else ()


def described(kind: type[Config]) -> type[Config]:
    """A class decorator that puts the settings into the docstring."""
    lines = [f"    {one.name}: {known.text}" for one, known in settings(kind).values()]
    kind.__doc__ = "\n".join([(kind.__doc__ or "").rstrip(), "", *lines])
    return kind


def check(config: Any) -> None:
    """Raise ``UsageError`` for a value of another type than its setting's, a number outside its limits, or a word that
    is none of its choices."""
    kinds = get_type_hints(type(config))
    for one, known in settings(config).values():
        value = getattr(config, one.name)
        words = choices(kinds[one.name])
        if words and value not in words:
            raise UsageError(f"{one.name} must be one of {', '.join(words)}, not {value!r}")
        if not words and not _fits(value, kinds[one.name]):
            raise UsageError(f"{one.name} must be {_words(kinds[one.name])}, not of type {type(value).__name__}")
        if known.limits and value is not None and not known.holds(value):
            raise UsageError(f"{one.name} must be {known.limits}, not {value}")


def _kinds(kind: Any) -> list[tuple[type, str]]:
    """The types that a field takes; none of a type that is not known here."""
    parts = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    return [_KINDS[get_origin(part) or part] for part in parts if (get_origin(part) or part) in _KINDS]


def _fits(value: object, kind: Any) -> bool:
    """Whether a value is of a field's type. True and False are no numbers."""
    kinds = [one for one, _ in _kinds(kind)]
    return not kinds or (bool in kinds if isinstance(value, bool) else isinstance(value, tuple(kinds)))


def _words(kind: Any) -> str:
    return " or ".join(words for _, words in _kinds(kind))
