"""Codecs whose entropy model reads decoded latents, on every device alike: the *snapped* scheme.

The entropy model runs in float64; all that it decides is snapped to integers (``lichen.models.snapped.snapping``):
table indexes, means, and what is added to decoded latents. It costs time, and so it is for architectures that cannot be
decoupled, such as published ones with their weights. The transforms run in the precision of the device.

A tile of a large picture has an entropy model of its own, from its own hyper-latent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lichen.errors import InvalidCodec
from lichen.models import bitstream
from lichen.models.batched import BatchedCodec, narrow
from lichen.models.codec import Decoded, Encoded, Pixels, code_quality, symbol_digest
from lichen.models.device import Device
from lichen.models.entropy import rans
from lichen.models.entropy.tables import SYMBOL_LIMIT, CoderTables
from lichen.models.planes import Window, cut
from lichen.models.snapped.network import Step, SteppedNetwork
from lichen.models.snapped.snapping import Player, Recorder
from lichen.models.snapped.tables import LOG_STEP, SCALE_MIN, SCALES

UNIT: Final = 256
"""Means and corrections count 1/256 of a quantisation step."""
HALO: Final = 256
"""Pixels around a tile that the transforms are given."""

Exchange = Callable[[NDArray[np.uint8], Tensor], Tensor]
"""Called with table indexes ``(B, n)`` and means ``(B, n)`` of a step; returns its symbols ``(B, n)``."""


class SnappedCodec(BatchedCodec):
    """A trained ``SteppedNetwork`` with its frozen tables. Implements ``lichen.models.codec.Codec``; thread-safe.

    If the network has one rate, the quality is stored and changes nothing. ``z_index`` ``(hyper,)`` is the table of
    each channel of the hyper-latent; ``expected`` is the self-test of where it was exported, None while
    it is exported. Raises ``InvalidCodec`` if this device computes something else.
    """

    network: SteppedNetwork

    def __init__(
        self,
        *,
        name: str,
        digest: str,
        network: SteppedNetwork,
        z_tables: CoderTables,
        z_index: NDArray[np.uint8],
        y_tables: CoderTables,
        expected: bytes | None,
        files: Mapping[str, bytes],
        device: Device,
        encoder: bool,
        max_pixels: int = bitstream.MAX_PIXELS,
    ) -> None:
        super().__init__(
            name=name,
            digest=digest,
            files=files,
            device=device,
            encoder=encoder,
            max_pixels=max_pixels,
            grid=network.grid,
        )
        fits = z_index.shape == (network.hyper,) and z_index.max(initial=0) < z_tables.count
        if not fits or y_tables.count != SCALES:
            raise InvalidCodec(f"codec {name}: the coder tables do not fit the architecture")
        self.network = network.eval().requires_grad_(False)
        self.network.to(device.on, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for module in self.network.entropy_modules():
            module.double()
        self._z_tables, self._z_index, self._y_tables = z_tables, z_index, y_tables
        if expected is not None and self.self_test() != expected:
            raise InvalidCodec(f"codec {name}: the self-test failed; this device does not compute what others do")

    # --- the entropy model ------------------------------------------------------------------------

    @property
    def _medians(self) -> Tensor:
        """Medians of the hyper-latent, ``(hyper, 1, 1)``, in the entropy model's precision."""
        return self.network.entropy_bottleneck.medians[:, None, None]

    def _run(self, z: Tensor, snapper: Recorder | Player, exchange: Exchange) -> tuple[Tensor, Tensor]:
        """Step through a batch of latents from hyper-latent symbols ``(B, hyper, h, w)`` (any integer dtype).

        Returns the decoded latent in the entropy model's precision and the symbols as int16, ``(B, latent, 4h, 4w)``.
        """
        network = self.network
        count, _, rows, columns = z.shape
        shape = (count, network.latent, 4 * rows, 4 * columns)
        symbols = torch.zeros(shape, dtype=torch.int16, device=z.device)
        with torch.autocast(z.device.type, enabled=False):
            side = network.side(z.to(self._medians.dtype) + self._medians)
            known = network.start(side, shape, self._medians)
            for step in network.steps(shape[2], shape[3], z.device):
                scale, mean, support = network.parameters_of(step, side, known)
                levels = torch.log(scale.clamp(min=SCALE_MIN) / SCALE_MIN) / LOG_STEP
                index = snapper.snap(_taken(step, levels)).clamp(0, SCALES - 1)
                means = snapper.snap(_taken(step, mean) * UNIT) / UNIT
                chosen = exchange(index.to(torch.uint8).cpu().numpy(), means)
                _put(step, known, chosen.to(means.dtype) + means)
                _put(step, symbols, chosen.to(torch.int16))
                if step.last:
                    part = known[:, step.start : step.stop]
                    correction = network.refine(step, support, part)
                    if correction is not None:
                        part += snapper.snap(correction * UNIT) / UNIT
        return known, symbols

    def _quality(self, codes: Sequence[int]) -> Tensor:
        return torch.tensor([code_quality(code) for code in codes], device=self.device.on)

    def _z_indexes(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The table of each symbol of a hyper-latent ``(hyper, h, w)``."""
        return np.ascontiguousarray(np.broadcast_to(self._z_index[:, None, None], shape))

    @torch.inference_mode()
    def self_test(self) -> bytes:
        """Digest of what the entropy model decides on a fixed pattern, the same on every device: 16 bytes."""
        side = self.grid // 64
        pattern = np.arange(self.network.hyper * side * side, dtype=np.int64)
        z = ((pattern * pattern * 7919 + pattern * 104729) % 5 - 2).reshape(1, -1, side, side)
        found: list[NDArray[np.generic]] = []

        def exchange(index: NDArray[np.uint8], means: Tensor) -> Tensor:
            found.append(index)
            found.append((means * UNIT).cpu().numpy().astype(np.int64))
            return (torch.arange(means.shape[1], device=means.device) % 3 - 1)[None]

        self._run(torch.from_numpy(z).to(self.device.on), Recorder(1), exchange)
        return symbol_digest(*found)

    # --- encoding ---------------------------------------------------------------------------------

    @torch.inference_mode()
    def _encode(self, images: Sequence[Pixels], codes: NDArray[np.int64], _effort: int) -> list[Encoded]:
        plan = self._plan(*images[0].shape[:2])
        quality = self._quality(codes.tolist())
        y = self._latent_plane(images, plan, lambda x: self.network.latent_of(x, quality), HALO)
        sections: list[list[bitstream.Section]] = [[] for _ in images]
        coded: list[list[NDArray[np.int16]]] = [[] for _ in images]
        for window in plan.tiles():
            part = cut(y, window, 16)
            hyper = self.network.h_a(part).to(self._medians.dtype) - self._medians
            z = hyper.round().clamp(-SYMBOL_LIMIT, SYMBOL_LIMIT)
            recorder = Recorder(len(images))
            latents, symbols = self._code_tile(z, part.to(self._medians.dtype), recorder)
            z_symbols = z.to(torch.int32).cpu().numpy()
            planes = symbols.cpu().numpy()
            for n in range(len(images)):
                stream = rans.encode(*latents[n], self._y_tables, single=True)
                head = rans.encode(z_symbols[n], self._z_indexes(z_symbols[n].shape), self._z_tables)
                sections[n].append(bitstream.Section(z=head, y=recorder.pack(n) + stream))
                coded[n] += [z_symbols[n].astype(np.int16), planes[n]]
        return [
            self._packed(image, plan, int(code), sections[n], coded[n])
            for n, (image, code) in enumerate(zip(images, codes, strict=True))
        ]

    def _code_tile(
        self, z: Tensor, y: Tensor, recorder: Recorder
    ) -> tuple[list[tuple[NDArray[np.int32], NDArray[np.uint8]]], Tensor]:
        """Symbols with their table indexes for each picture, in the order of coding; and the symbols as planes."""
        steps = iter(self.network.steps(y.shape[2], y.shape[3], y.device))
        listed: list[tuple[NDArray[np.int32], NDArray[np.uint8]]] = []

        def exchange(index: NDArray[np.uint8], means: Tensor) -> Tensor:
            symbols = (_taken(next(steps), y) - means).round().clamp(-SYMBOL_LIMIT, SYMBOL_LIMIT)
            skipped = torch.from_numpy(index < self._y_tables.skip_index).to(symbols.device)
            symbols = symbols.masked_fill(skipped, 0)
            listed.append((symbols.to(torch.int32).cpu().numpy(), index))
            return symbols

        _, planes = self._run(z, recorder, exchange)
        streams = [
            (
                np.concatenate([np.empty(0, dtype=np.int32), *(s[n] for s, _ in listed)]),
                np.concatenate([np.empty(0, dtype=np.uint8), *(i[n] for _, i in listed)]),
            )
            for n in range(len(y))
        ]
        return streams, planes

    # --- decoding ---------------------------------------------------------------------------------

    @torch.inference_mode()
    def _decode(self, parsed: Sequence[bitstream.Bitstream]) -> list[Decoded]:
        plan = self._plan(parsed[0].height, parsed[0].width)
        quality = self._quality([one.quality for one in parsed])
        shape = (len(parsed), self.network.latent, plan.height // 16, plan.width // 16)
        y = torch.empty(shape, device=self.device.on, memory_format=torch.channels_last)
        coded: list[list[NDArray[np.int16]]] = [[] for _ in parsed]
        for number, window in enumerate(plan.tiles()):
            sections = [one.sections[number] for one in parsed]
            decoded, z, symbols = self._read_tile(sections, window)
            rows, columns = window.at(16)
            y[:, :, rows, columns] = decoded.float()
            for n, parts in enumerate(coded):
                parts += [z[n], symbols[n]]
        sizes = [(one.height, one.width) for one in parsed]
        pixels = self._pictures(sizes, plan, y, lambda part: self.network.picture_of(part, quality), HALO)
        return [Decoded(pixels=picture, symbols=symbol_digest(*coded[n])) for n, picture in enumerate(pixels)]

    def _read_tile(
        self, sections: Sequence[bitstream.Section], window: Window
    ) -> tuple[Tensor, NDArray[np.int16], NDArray[np.int16]]:
        """The decoded latent of a tile of each picture, with the symbols of hyper-latent and latent."""
        rows, columns = (window.bottom - window.top) // 64, (window.right - window.left) // 64
        shape = (self.network.hyper, rows, columns)
        z = np.stack([narrow(rans.decode(s.z, self._z_indexes(shape), self._z_tables)) for s in sections])
        player = Player([section.y for section in sections])
        readers = [rans.Reader(s.y[end:], self._y_tables) for s, end in zip(sections, player.ends, strict=True)]

        def exchange(index: NDArray[np.uint8], means: Tensor) -> Tensor:
            symbols = np.stack([narrow(reader.read(index[n])) for n, reader in enumerate(readers)])
            return torch.from_numpy(symbols).to(means.device)

        y, symbols = self._run(torch.from_numpy(z).to(self.device.on), player, exchange)
        player.finish()
        for reader in readers:
            reader.finish()
        return y, z, symbols.cpu().numpy()


def _taken(step: Step, plane: Tensor) -> Tensor:
    """What belongs to a step: ``(B, n)``. ``plane`` has all channels of the latent, or only those of the step."""
    if plane.shape[1] != step.stop - step.start:
        plane = plane[:, step.start : step.stop]
    return (plane if step.mask is None else plane[:, :, step.mask]).reshape(len(plane), -1)


def _put(step: Step, plane: Tensor, values: Tensor) -> None:
    """Write what ``_taken`` took, ``(B, n)``, where it belongs in all channels of the latent."""
    target = plane[:, step.start : step.stop]
    if step.mask is None:
        target.copy_(values.reshape(target.shape))
    else:
        target[:, :, step.mask] = values.reshape(*target.shape[:2], -1)
