"""Codecs by name: those whose weights ship here, the classical ones, and whatever other packages register.

A learned codec is also loaded from files elsewhere: a name that ends in ``.json`` is the path of a codec JSON, with
its weights beside it as ``.safetensors``. Those that ``lichen models import`` or a person put into the user's folder
(``LICHEN_CODECS``, by default ``lichen/codecs`` in the folder of the system for user data) go by their names.

Third parties add a codec with an entry point of the group ``lichen.codecs``; its value is a callable
``(*, device: str, precision: str) -> Codec`` and its name is the codec's name. Names that ship here win. So that its
archives open again, the package also registers a ``FileLoader`` under the ``family`` of its codec JSON, in the
group ``lichen.families``.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any, TypeAlias

from lichen import defaults
from lichen.errors import InvalidCodec, UnknownCodec, UsageError
from lichen.models.card import is_version, parse_card
from lichen.models.codec import Codec

CodecFactory: TypeAlias = Callable[..., Codec]
"""Called with the keywords ``device`` and ``precision``."""

FileLoader: TypeAlias = Callable[..., Codec]
"""Called with the parsed JSON and all files of a codec, and the keywords ``device`` and ``precision``."""

ENTRY_POINT_GROUP = "lichen.codecs"
FAMILY_GROUP = "lichen.families"
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")

_LEARNED = (defaults.CODEC, defaults.STRONG_CODEC, defaults.EXACT_CODEC)
_CLASSICAL = ("jpeg", "jpegli", "webp", "avif", "avif-psnr", "jxl", "webp-lossless", "jxl-lossless")


def load_codec(name: str, *, device: str = "cpu", precision: str = "auto") -> Codec:
    """Load a codec by name on ``device`` (cpu, cuda, cuda:N, auto) in ``precision`` (auto, float32, ...).

    Raises ``UnknownCodec`` for a name that nobody registered and ``UsageError`` for an unknown device or
    precision. Classical codecs run on the CPU whatever the device.
    """
    check_placement(device, precision)
    if name == defaults.AUTO:
        raise UsageError(f"{name!r} chooses among codecs ({', '.join(defaults.CHOICE)}) picture by picture; name one")
    if name.endswith(".json"):
        return _load_path(Path(name), device=device, precision=precision)
    if factory := _shipped().get(name):
        return factory(device=device, precision=precision)
    if name in _user_names():
        return _load_path(user_folder() / f"{name}.json", device=device, precision=precision)
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name == name:
            codec = entry.load()(device=device, precision=precision)
            if not isinstance(codec, Codec):
                raise InvalidCodec(f"{entry.value} of the entry point {name!r} returned no codec")
            return codec
    raise UnknownCodec(f"no codec {name!r}; known are {', '.join(codec_names())}")


def codec_from_files(files: Mapping[str, bytes], *, device: str = "cpu", precision: str = "auto") -> Codec:
    """Build the codec that an archive carries: ``files`` maps ``json`` (and ``safetensors``) to content.

    Raises ``InvalidCodec`` when the files are malformed, of an unknown family, or of a version that this
    release does not know.
    """
    check_placement(device, precision)
    config = parse_card(files)
    family = config.get("family")
    loader = _families().get(family) if isinstance(family, str) else None
    for entry in entry_points(group=FAMILY_GROUP) if loader is None else ():
        if entry.name == family:
            loader = entry.load()
    if loader is None:
        raise InvalidCodec(f"codec of unknown family {str(family)[:40]!r}; a newer lichen may know it")
    return loader(config, files, device=device, precision=precision)


def codec_names() -> list[str]:
    """All names that ``load_codec`` accepts, shipped ones first, then the user's."""
    names = list(_shipped())
    names += sorted(_user_names() - set(names))
    names += sorted({entry.name for entry in entry_points(group=ENTRY_POINT_GROUP)} - set(names))
    return names


def check_name(name: str) -> str:
    """``name``, if a codec's files can have it. Raises ``UsageError``."""
    if not name or not all(c.isascii() and (c.isalnum() or c in "._-") for c in name) or name.startswith("."):
        raise UsageError(f"{name!r} is no name for a codec: letters, digits, '.', '_' and '-'")
    return name


def check_user_name(name: str) -> str:
    """``name``, if a codec in the user's folder is found by it. Raises ``UsageError``."""
    if check_name(name) in _shipped():
        raise UsageError(f"a codec named {name!r} ships with lichen and would be used instead; choose another name")
    return name


def user_folder() -> Path:
    """Where the user's own codecs are looked for."""
    if own := os.environ.get("LICHEN_CODECS"):
        return Path(own)
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "lichen" / "codecs"


def write_codec(folder: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """Write codec files as ``name.json`` and ``name.safetensors``, the JSON last; returns its path.

    Each is there whole or not at all. An older codec of this name is replaced. Raises ``UsageError`` where files of
    these names are something else.
    """
    check_free(folder, name)
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("safetensors", "json"):
        write_whole(folder / f"{name}.{kind}", files[kind])
    return folder / f"{name}.json"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file of ours, or replace it, so that it is there whole or not at all; no other file is touched."""
    temporary = path.parent / f".{secrets.token_hex(8)}.partial"
    try:
        with temporary.open("xb") as file:
            file.write(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_free(folder: Path, name: str) -> None:
    """Raise ``UsageError`` unless a codec of this name can be written there: nothing but a codec is replaced."""
    taken = [path for kind in ("json", "safetensors") if os.path.lexists(path := folder / f"{name}.{kind}")]
    if taken and not _is_codec(folder / f"{name}.json"):
        raise UsageError(f"{taken[0]} is there already, and is no codec; choose another name or another folder")


def _is_codec(path: Path) -> bool:
    try:
        card = parse_card({"json": path.read_bytes()}) if path.is_file() else {}
    except (InvalidCodec, OSError):
        return False
    return isinstance(card.get("decoder"), dict) and isinstance(card.get("digest"), str)


def _user_names() -> set[str]:
    folder = user_folder()
    return {path.stem for path in folder.glob("*.json")} if folder.is_dir() else set()


def _shipped() -> dict[str, CodecFactory]:
    learned = {name: _learned_factory(name) for name in _LEARNED}
    return learned | {name: _classical_factory(name) for name in _CLASSICAL}


def _families() -> dict[str, FileLoader]:
    return {"classical": _classical_from_files, "decoupled": _learned_from_files, "snapped": _published_from_files}


def check_placement(device: str, precision: str) -> None:
    """Raise ``UsageError`` for a device or precision that no codec knows."""
    kind, _, number = device.partition(":")
    if kind not in DEVICES or (number and (kind != "cuda" or not number.isdecimal())):
        raise UsageError(f"unknown device {device!r}; use one of {', '.join(DEVICES)}")
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}; use one of {', '.join(PRECISIONS)}")


def training_notes(name: str) -> dict[str, Any]:
    """What the JSON of a learned codec tells of its training and evaluation; nothing for other codecs."""
    try:
        notes = parse_card(full_files(name)).get("notes")
    except UnknownCodec:
        return {}
    return notes if isinstance(notes, dict) else {}


def full_files(name: str) -> dict[str, bytes]:
    """The codec files, encoder included, of the learned codec that ``load_codec`` loads by this name.

    Raises ``UnknownCodec``, also for codecs that have no such files.
    """
    if name.endswith(".json"):
        return _read_path(Path(name))
    if name in _LEARNED:
        return _packaged(name)
    if name in _user_names() and name not in _CLASSICAL:
        return _read_path(user_folder() / f"{name}.json")
    raise UnknownCodec(f"{name!r} is not one of the learned codecs {', '.join(_LEARNED)}, nor a .json file")


def _packaged(name: str) -> dict[str, bytes]:
    folder = package_files("lichen.models") / "weights"
    return {kind: (folder / f"{name}.{kind}").read_bytes() for kind in ("json", "safetensors")}


def _learned_factory(name: str) -> CodecFactory:
    def build(*, device: str, precision: str) -> Codec:
        return _load_full(_packaged(name), device, precision)

    return build


def _load_full(files: Mapping[str, bytes], device: str, precision: str) -> Codec:
    """A codec with its encoder, of either scheme."""
    from lichen.models.architectures import load_full
    from lichen.models.placement import place

    return load_full(files, place(device, precision))


def _learned_from_files(config: Mapping[str, Any], files: Mapping[str, bytes], **placement: str) -> Codec:
    from lichen.models.checkpoint import load_decoder
    from lichen.models.placement import place

    return load_decoder(config, files, place(placement["device"], placement["precision"]))


def _published_from_files(config: Mapping[str, Any], files: Mapping[str, bytes], **placement: str) -> Codec:
    from lichen.models.placement import place
    from lichen.models.published import load_published_decoder

    return load_published_decoder(config, files, place(placement["device"], placement["precision"]))


def _load_path(path: Path, *, device: str, precision: str) -> Codec:
    return _load_full(_read_path(path), device, precision)


def _read_path(path: Path) -> dict[str, bytes]:
    try:
        return {kind: path.with_suffix(f".{kind}").read_bytes() for kind in ("json", "safetensors")}
    except OSError as error:
        raise UnknownCodec(f"the codec files at {path} cannot be read: {error}") from error


def _classical_factory(name: str) -> CodecFactory:
    def build(**_placement: str) -> Codec:
        from lichen.models.classical import ClassicalCodec

        return ClassicalCodec(name)

    return build


def _classical_from_files(config: Mapping[str, Any], _files: Mapping[str, bytes], **placement: str) -> Codec:
    name = config.get("name")
    known = isinstance(name, str) and name in _CLASSICAL
    if set(config) != {"family", "format", "name"} or not is_version(config["format"], 1) or not known:
        raise InvalidCodec("malformed classical codec, or one of a newer version")
    return _classical_factory(str(name))(**placement)
