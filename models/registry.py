"""Codecs, architectures and schemes by name: the one place that knows which there are.

Codecs are those whose weights ship here, the classical ones, and whatever other packages register. A learned codec is
also loaded from files elsewhere: a name that ends in ``.json`` is the path of a codec JSON, with its weights beside it
as ``.safetensors``. Those that ``lichen models import`` or a person put into the user's folder (``LICHEN_CODECS``, by
default ``lichen/codecs`` in the folder of the system for user data) go by their names.

Third parties add a codec with an entry point of the group ``lichen.codecs``; its value is a callable
``(*, device: str, precision: str) -> Codec`` and its name is the codec's name. Names that ship here win. So that its
archives open again, the package also registers a ``FileLoader`` under the ``family`` of its codec JSON, in the
group ``lichen.families``.

A scheme is a way of coding that networks are made for: ours is *decoupled*, that of published networks *snapped*
(docs/codecs.md). Importing this is cheap: a scheme, and torch, are imported when they are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from importlib.metadata import entry_points
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from lichen import defaults
from lichen.errors import InvalidCodec, UnknownCodec, UsageError
from lichen.models.bundle import Bundle, is_version, parse_card
from lichen.models.codec import DEFAULTS, Codec
from lichen.models.device import Device, check_device, find_device

if TYPE_CHECKING:
    from torch import Tensor

    from lichen.models.blocks.network import Config, TrainableNetwork

CodecFactory: TypeAlias = Callable[..., Codec]
"""Called with the keywords ``device`` and ``precision``."""

FileLoader: TypeAlias = Callable[..., Codec]
"""Called with the parsed JSON and all files of a codec, and the keywords ``device`` and ``precision``."""

ENTRY_POINT_GROUP = "lichen.codecs"
FAMILY_GROUP = "lichen.families"
COST_SIDE = 256
"""Side of the picture whose multiplications are counted."""

_LEARNED = (defaults.CODEC, defaults.STRONG_CODEC, defaults.EXACT_CODEC)
_CLASSICAL = ("jpeg", "jpegli", "webp", "avif", "avif-psnr", "jxl", "webp-lossless", "jxl-lossless")
_CLASSICAL_FAMILY = "classical"


# --- schemes and architectures --------------------------------------------------------------------


class Scheme(Protocol):
    """A way of coding: how its networks are made, trained, frozen into a codec's files and run from them.

    Configurations and networks are those of the scheme; whoever has one finds its scheme with ``scheme_of``.
    """

    @property
    def systems(self) -> Mapping[str, type[Any]]:
        """The classes of configurations, by ``Config.system``."""
        ...

    @property
    def fits_context(self) -> bool:
        """Whether a context of the hyper-latent can be fitted to a trained network, which ``export`` then takes."""
        ...

    def architectures(self) -> Mapping[str, Sequence[str]]:
        """What ``config`` knows by name, with the switches of each."""
        ...

    def config(self, name: str, sizes: Mapping[str, Any]) -> Config:
        """The constructor arguments of an architecture; ``sizes`` in the place of the usual ones."""
        ...

    def build(self, config: Any) -> TrainableNetwork:
        """An untrained network."""
        ...

    def begin(
        self, network: Any, patches: Callable[[], Tensor], prepare: Callable[[Any, Tensor], None] | None = None
    ) -> Mapping[str, Tensor]:
        """Give a network its starting values, by ``prepare`` if that is given.

        ``patches`` draws pieces of photographs, ``(N, 3, H, W)`` in [0, 1]. Returns factors on the learning rates of
        single weights, by parameter name.
        """
        ...

    def grow(self, network: Any, config: Config) -> TrainableNetwork:
        """A network of ``config``, which is deeper, that computes what ``network`` does. Raises ``UsageError``."""
        ...

    def export(
        self, network: Any, name: str, notes: Mapping[str, Any], context: Any = None, mix: Any = None
    ) -> dict[str, bytes]:
        """Full codec files of a trained network, ``{"json": ..., "safetensors": ...}``. Raises ``TrainingError``.

        ``context`` is that of the hyper-latent and ``mix`` the distortion that the network was trained with, for
        schemes that have a use for them.
        """
        ...

    def load(self, bundle: Bundle, device: Device) -> Codec:
        """The codec of a bundle, with its encoder if that is there. Raises ``InvalidCodec``."""
        ...

    def network(self, bundle: Bundle) -> TrainableNetwork:
        """A trainable network of a full bundle, to go on training. Raises ``InvalidCodec``."""
        ...


def _decoupled() -> Scheme:
    from lichen.models.decoupled.scheme import DecoupledScheme

    return DecoupledScheme()


def _snapped() -> Scheme:
    from lichen.models.snapped.scheme import SnappedScheme

    return SnappedScheme()


SCHEMES: Mapping[str, Callable[[], Scheme]] = {"decoupled": _decoupled, "snapped": _snapped}
"""By the ``family`` in the JSON of a codec."""


def scheme_of(config: Config) -> Scheme:
    """The scheme that a configuration, or the one of a network, belongs to."""
    return SCHEMES[config.scheme]()


def build(config: Config) -> TrainableNetwork:
    """An untrained network."""
    return scheme_of(config).build(config)


def export(
    network: TrainableNetwork, name: str, notes: Mapping[str, Any], context: Any = None, mix: Any = None
) -> dict[str, bytes]:
    """Full codec files of a trained network (``Scheme.export``). Raises ``TrainingError``."""
    return scheme_of(network.config).export(network, name, notes, context, mix)


def architectures() -> dict[str, Sequence[str]]:
    """All names that ``config_of`` knows, with the switches of each."""
    return {name: switches for make in SCHEMES.values() for name, switches in make().architectures().items()}


def config_of(name: str, **sizes: Any) -> Config:
    """The constructor arguments of an architecture. Raises ``UsageError`` for an unknown name or size."""
    for make in SCHEMES.values():
        scheme = make()
        known = scheme.architectures()
        if name in known or name.partition(":")[0] in known:
            return scheme.config(name, sizes)
    raise UsageError(f"no architecture {name[:60]!r}; there are {', '.join(architectures())}")


def config_from_json(value: Mapping[str, Any]) -> Config:
    """What ``Config.to_json`` made plain values of. Raises ``InvalidCodec``."""
    system, arguments = value.get("architecture"), value.get("arguments")
    kinds = {name: kind for make in SCHEMES.values() for name, kind in make().systems.items()}
    kind = kinds.get(system) if isinstance(system, str) else None
    if kind is None or not isinstance(arguments, dict) or set(arguments) != {f.name for f in fields(kind)}:
        raise InvalidCodec("the checkpoint is of an architecture that is not known here")
    config: Config = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()})
    return config


def cost(config: Config) -> tuple[int, float]:
    """Parameters, and multiplications per pixel of analysis, entropy model and synthesis together."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network = build(config).eval()
        x, quality = torch.empty(1, 3, COST_SIDE, COST_SIDE), torch.empty(1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(x, quality)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters, counter.get_total_flops() / 2 / COST_SIDE**2


# --- codecs ---------------------------------------------------------------------------------------


def load_codec(name: str, *, device: str = "cpu", precision: str = "auto") -> Codec:
    """Load a codec by name on ``device`` (cpu, cuda, cuda:N, auto) in ``precision`` (auto, float32, ...).

    Raises ``UnknownCodec`` for a name that nobody registered and ``UsageError`` for an unknown device or
    precision. Classical codecs run on the CPU whatever the device.
    """
    check_device(device, precision)
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
            codec = _completed(entry.load()(device=device, precision=precision))
            if not isinstance(codec, Codec):
                raise InvalidCodec(f"{entry.value} of the entry point {name!r} returned no codec")
            return codec
    raise UnknownCodec(f"no codec {name!r}; known are {', '.join(codec_names())}")


def codec_from_files(
    files: Mapping[str, bytes], *, device: str = "cpu", precision: str = "auto", digest: str | None = None
) -> Codec:
    """Build the codec that an archive carries: ``files`` maps ``json`` (and ``safetensors``) to content.

    ``digest`` is the codec's, where it is known. Raises ``InvalidCodec`` when the files are malformed, are not those of
    this digest, of an unknown family, or of a version that this release does not know.
    """
    check_device(device, precision)
    config = parse_card(files)
    family = config.get("family")
    if isinstance(family, str) and family in (_CLASSICAL_FAMILY, *SCHEMES):
        bundle = Bundle.carried(config, files)
        if digest not in (None, bundle.digest):
            raise InvalidCodec(
                f"the files of codec {digest} are damaged: their digest is {bundle.digest}; put them back from a copy"
            )
        if family == _CLASSICAL_FAMILY:
            return _classical_from(config)
        return SCHEMES[family]().load(bundle, find_device(device, precision))
    for entry in entry_points(group=FAMILY_GROUP):
        if entry.name == family:
            codec: Codec = _completed(entry.load()(config, files, device=device, precision=precision))
            return codec
    raise InvalidCodec(
        f"codec of unknown family {str(family)[:40]!r}: a newer lichen or the package that brings it may know it, "
        "or its files are damaged"
    )


def load_files(files: Mapping[str, bytes], device: Device) -> Codec:
    """A codec with its encoder, from full files. Raises ``InvalidCodec``."""
    bundle = Bundle.full(files)
    return _scheme_of_files(bundle).load(bundle, device)


def network_from_files(files: Mapping[str, bytes]) -> TrainableNetwork:
    """A trainable network from full codec files, to go on training. Raises ``InvalidCodec``."""
    bundle = Bundle.full(files)
    return _scheme_of_files(bundle).network(bundle)


def _scheme_of_files(bundle: Bundle) -> Scheme:
    family = bundle.config.get("family")
    make = SCHEMES.get(family) if isinstance(family, str) else None
    if make is None:
        raise InvalidCodec(f"codec of unknown family {str(family)[:40]!r}; a newer lichen may know it")
    return make()


def _completed(codec: Any) -> Any:
    """A codec of another package; what its class does not say of it is as ``DEFAULTS`` have it."""
    for name, value in DEFAULTS.items() if hasattr(codec, "decoder_files") else ():
        if not hasattr(codec, name):
            setattr(type(codec), name, value)
    return codec


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


def _user_names() -> set[str]:
    folder = user_folder()
    return {path.stem for path in folder.glob("*.json")} if folder.is_dir() else set()


def _shipped() -> dict[str, CodecFactory]:
    learned = {name: _learned_factory(name) for name in _LEARNED}
    return learned | {name: _classical_factory(name) for name in _CLASSICAL}


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
        return load_files(_packaged(name), find_device(device, precision))

    return build


def _load_path(path: Path, *, device: str, precision: str) -> Codec:
    return load_files(_read_path(path), find_device(device, precision))


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


def _classical_from(config: Mapping[str, Any]) -> Codec:
    name = config.get("name")
    known = isinstance(name, str) and name in _CLASSICAL
    if set(config) != {"family", "format", "name"} or not is_version(config["format"], 1) or not known:
        raise InvalidCodec("malformed classical codec, or one of a newer version")
    return _classical_factory(str(name))()
