"""The codec of the decoupled scheme: networks in floating point, indexes of the coder's tables in integers.

Pictures of one padded size run through the networks together. Large ones are cut into tiles of
one latent plane (``lichen.models.planes``). The order of coding is that of ``docs/format.md``: for each tile
the hyper-latent, then the latent, both as ``(row, column, channel)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lichen.errors import InvalidCodec
from lichen.models import bitstream
from lichen.models.batched import BatchedCodec, narrow
from lichen.models.codec import Decoded, Encoded, Pixels, code_quality, symbol_digest
from lichen.models.decoupled import annealing
from lichen.models.decoupled.annealing import PASSES, Task, anneal, windows
from lichen.models.decoupled.entropy_model import (
    HYPER_RATE_WEIGHT,
    LOG_STEP,
    SCALE_MIN,
    SCALES,
    STEPS,
    quantise,
    rounding_offset,
    step_masks,
)
from lichen.models.decoupled.fixedpoint import UNIT
from lichen.models.decoupled.integer import IntegerPrior, ScaleNetwork, self_test
from lichen.models.decoupled.network import CodecNetwork
from lichen.models.device import Device
from lichen.models.entropy import rans
from lichen.models.entropy.tables import SYMBOL_LIMIT
from lichen.models.perceptual.distortion import Mix
from lichen.models.planes import Plan, Window, cut, from_interleaved, interleaved, padded_part, to_planes

HALO = 128
"""Pixels around a tile that h_a and the scale network can see; that of g_a and g_s depends on their blocks."""
MEAN_HALO = 192
"""Pixels around a tile that the mean network can see, through hyper-latent and context together."""


class DecoupledCodec(BatchedCodec):
    """A trained network with its frozen integers. Implements ``lichen.models.codec.Codec``; thread-safe.

    ``files`` is what an archive must carry (``lichen.models.decoupled.scheme`` makes it). A codec that was loaded
    from an archive has no encoder. ``mix`` is what higher efforts call distortion.
    Raises ``InvalidCodec`` when the integer network gives other indexes here than
    where the codec was exported.
    """

    network: CodecNetwork

    def __init__(
        self,
        *,
        name: str,
        digest: str,
        network: CodecNetwork,
        prior: IntegerPrior,
        expected: bytes,
        files: Mapping[str, bytes],
        device: Device,
        encoder: bool,
        mix: Mix | None = None,
        max_pixels: int = bitstream.MAX_PIXELS,
    ) -> None:
        super().__init__(name=name, digest=digest, files=files, device=device, encoder=encoder, max_pixels=max_pixels)
        self.network = network.eval().requires_grad_(False)
        self.network.to(device.on, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.prior = prior
        self.mix = mix or Mix()
        scales = math.log(SCALE_MIN) + LOG_STEP * torch.arange(SCALES)
        self._scales_of = scales.to(device.on)
        self._offsets = rounding_offset(self._scales_of)
        self._scales: ScaleNetwork = prior.placed(device.on)
        if self_test(self._scales) != expected:
            raise InvalidCodec(f"codec {name}: the self-test failed; this device does not compute exactly")

    # --- encoding ---------------------------------------------------------------------------------

    @torch.inference_mode()
    def _encode(self, images: Sequence[Pixels], codes: NDArray[np.int64], effort: int) -> list[Encoded]:
        plan = Plan.of(*images[0].shape[:2])
        position = self._position(codes)
        network = self.network
        y = self._latent_plane(images, plan, lambda x: network.g_a(x, position), network.config.halo)
        z = plan.assemble(lambda w: network.entropy.h_a(cut(y, w, 16)), 64, HALO)
        step = torch.from_numpy(self.prior.steps(codes)).to(z.device, torch.float32)[:, :, None, None] / UNIT
        symbols_z = quantise(z / step, self._z_offsets(codes)).clamp(-SYMBOL_LIMIT, SYMBOL_LIMIT)
        symbols_z = symbols_z.to(torch.int16) * self._coded_z(codes)
        exact = self._exact(symbols_z, codes)
        index = self._indexes(plan, exact, codes)
        if passes := PASSES[effort - 1]:
            self._anneal(images, plan, codes, exact, index, y, passes)
        symbols_y = torch.zeros_like(y, dtype=torch.int16)
        up = network.entropy.gain(position).exp()
        coded = index >= self.prior.tables.skip_index

        def quantised(mean: Tensor, mask: Tensor, window: Window) -> Tensor:
            rows, columns = window.at(16)
            offset = self._offsets[index[:, :, rows, columns].to(torch.int32)]
            symbols = quantise((y[:, :, rows, columns] - mean) * up, offset)
            symbols = symbols.clamp_(-SYMBOL_LIMIT, SYMBOL_LIMIT)
            symbols = torch.where(mask & coded[:, :, rows, columns], symbols, 0)
            symbols_y[:, :, rows, columns] += symbols.to(torch.int16)
            return symbols

        self._refine(plan, exact, position, quantised)
        return [
            self._pack(image, plan, int(code), *(interleaved(plane[n]) for plane in (symbols_z, symbols_y, index)))
            for n, (image, code) in enumerate(zip(images, codes, strict=True))
        ]

    def _anneal(
        self,
        images: Sequence[Pixels],
        plan: Plan,
        codes: NDArray[np.int64],
        exact: Tensor,
        index: Tensor,
        y: Tensor,
        passes: int,
    ) -> None:
        """Change latents ``y`` to cheaper ones, window by window."""
        device, position = self.device.on, self._position(codes)
        quality = torch.tensor([code_quality(int(code)) for code in codes], device=device)
        z = (exact / UNIT).float().permute(0, 3, 1, 2)
        for chosen, window in windows(len(images), plan):
            outer = window.grown(annealing.HALO, plan.height, plan.width)
            levels = cut(index[chosen], outer, 16)
            pixels = torch.from_numpy(np.stack([padded_part(image, outer) for image in images[chosen]]))
            task = Task(
                x=to_planes(pixels.to(device)).float() / 255,
                y=cut(y[chosen], outer, 16),
                z=cut(z[chosen], outer, 64),
                log_scale=self._scales_of[levels.to(torch.int32)],
                coded=levels >= self.prior.tables.skip_index,
                quality=quality[chosen],
                position=position[chosen],
            )
            cheaper = anneal(self.network, task, passes, self.device, self.mix)
            rows, columns = window.at(16)
            y[chosen, :, rows, columns] = cut(cheaper, window.inside(outer), 16)

    def _pack(
        self,
        image: Pixels,
        plan: Plan,
        code: int,
        z: NDArray[np.int16],
        y: NDArray[np.int16],
        index: NDArray[np.uint8],
    ) -> Encoded:
        tables = self.prior.tables
        sections, digested = [], []
        for window in plan.tiles():
            z_part = np.ascontiguousarray(z[window.at(64)])
            y_part = np.ascontiguousarray(y[window.at(16)])
            sections.append(
                bitstream.Section(
                    z=self.prior.encode_z(z_part, code),
                    y=rans.encode(y_part.astype(np.int32), np.ascontiguousarray(index[window.at(16)]), tables),
                )
            )
            digested += [z_part, y_part]
        return self._packed(image, plan, code, sections, digested)

    # --- decoding ---------------------------------------------------------------------------------

    @torch.inference_mode()
    def symbols(self, data: bytes) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        """The coded integers of a bitstream: hyper-latent ``(H/64, W/64, hyper)`` and latent ``(H/16, W/16, latent)``.

        Raises ``CorruptBitstream`` or ``CodecMismatch``.
        """
        parsed = self._parse(data)
        plan = Plan.of(parsed.height, parsed.width)
        codes = np.array([parsed.quality], dtype=np.int64)
        z = self._decode_z(parsed, plan)
        exact = self._exact(from_interleaved(torch.from_numpy(z[None]).to(self.device.on)), codes)
        return z, self._decode_y(parsed, plan, interleaved(self._indexes(plan, exact, codes)[0]))

    @torch.inference_mode()
    def _decode(self, parsed: Sequence[bitstream.Bitstream]) -> list[Decoded]:
        first = parsed[0]
        plan = Plan.of(first.height, first.width)
        codes = np.array([p.quality for p in parsed], dtype=np.int64)
        position = self._position(codes)
        device, network = self.device.on, self.network
        z_planes = _stacked([self._decode_z(p, plan) for p in parsed])
        symbols_z = from_interleaved(torch.from_numpy(z_planes).to(device))
        exact = self._exact(symbols_z, codes)
        index = self._indexes(plan, exact, codes)
        y_planes = _stacked([self._decode_y(p, plan, interleaved(index[n])) for n, p in enumerate(parsed)])
        del index  # of a large picture, every plane counts
        symbols_y = from_interleaved(torch.from_numpy(y_planes).to(device))

        def dequantise(_mean: Tensor, _mask: Tensor, window: Window) -> Tensor:
            rows, columns = window.at(16)
            return symbols_y[:, :, rows, columns].float()

        y = self._refine(plan, exact, position, dequantise)
        sizes = [(p.height, p.width) for p in parsed]
        pixels = self._pictures(sizes, plan, y, lambda part: network.g_s(part, position), network.config.halo)
        return [
            Decoded(pixels=picture, symbols=symbol_digest(*_in_coding_order(plan, z_planes[n], y_planes[n])))
            for n, picture in enumerate(pixels)
        ]

    def _decode_z(self, parsed: bitstream.Bitstream, plan: Plan) -> NDArray[np.int16]:
        plane = np.empty((plan.height // 64, plan.width // 64, self.prior.hyper), dtype=np.int16)
        for window, section in zip(plan.tiles(), parsed.sections, strict=True):
            part = plane[window.at(64)]
            height, width = part.shape[:2]
            part[:] = narrow(self.prior.decode_z(section.z, height, width, parsed.quality))
        return plane

    def _decode_y(self, parsed: bitstream.Bitstream, plan: Plan, index: NDArray[np.uint8]) -> NDArray[np.int16]:
        plane = np.empty(index.shape, dtype=np.int16)
        for window, section in zip(plan.tiles(), parsed.sections, strict=True):
            at = window.at(16)
            plane[at] = narrow(rans.decode(section.y, np.ascontiguousarray(index[at]), self.prior.tables))
        return plane

    # --- shared by both directions ----------------------------------------------------------------

    def _position(self, codes: NDArray[np.int64]) -> Tensor:
        quality = torch.tensor([code_quality(int(c)) for c in codes], dtype=torch.float32)
        return self.network.position(quality).to(self.device.on)

    def _coded_z(self, codes: NDArray[np.int64]) -> Tensor:
        """1 for hyper-latent channels that are coded at a quality, 0 for skipped ones: int16 ``(N, hyper, 1, 1)``."""
        index = self._z_indexes(codes)
        coded = torch.from_numpy((index >= self.prior.tables.skip_index).astype(np.int16))
        return coded.to(self.device.on)[:, :, None, None]

    def _z_indexes(self, codes: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack([self.prior.z_indexes(int(code)) for code in codes])

    def _z_offsets(self, codes: NDArray[np.int64]) -> Tensor:
        """``rounding_offset`` of the hyper-latent's channels: ``(N, hyper, 1, 1)``."""
        index = torch.from_numpy(self._z_indexes(codes).astype(np.int64))
        log_scale = self._scales_of[index.to(self.device.on)]
        return rounding_offset(log_scale, HYPER_RATE_WEIGHT)[:, :, None, None]

    def _exact(self, symbols_z: Tensor, codes: NDArray[np.int64]) -> Tensor:
        """The dequantised hyper-latent as integers in float64, ``(N, h, w, hyper)``."""
        return self.prior.dequantise(symbols_z.permute(0, 2, 3, 1), codes)

    def _indexes(self, plan: Plan, exact: Tensor, codes: NDArray[np.int64]) -> Tensor:
        """Coder table indexes ``(N, latent, H/16, W/16)`` uint8."""

        def scale(window: Window) -> Tensor:
            rows, columns = window.at(64)
            return self._scales.indexes(exact[:, rows, columns], codes).permute(0, 3, 1, 2)

        return plan.assemble(scale, 16, HALO)

    def _refine(
        self, plan: Plan, exact: Tensor, position: Tensor, residual: Callable[[Tensor, Tensor, Window], Tensor]
    ) -> Tensor:
        """The decoded latent, step by step. ``residual(mean, mask, window)`` gives the integers of a step; those
        outside of its mask do not matter.

        Always in float32: means reach several hundred steps, and half precision would lose whole ones.
        """
        model = self.network.entropy
        gain = model.gain(position)
        down = (model.shrink(position) - gain).exp()
        z = (exact / UNIT).to(torch.float32).permute(0, 3, 1, 2)
        shape = (len(position), self.prior.latent, plan.height // 16, plan.width // 16)
        y = torch.empty(shape, device=z.device, memory_format=torch.channels_last)
        cached: dict[Window, tuple[Tensor, Tensor, list[Tensor]]] = {}
        windows = list(plan.tiles())
        for step in range(STEPS):
            for window in windows:
                outer = window.grown(MEAN_HALO, plan.height, plan.width)
                if outer in cached:
                    first, side, masks = cached[outer]
                else:
                    features = model.means.hyper_features(cut(z, outer, 64))
                    first, side = model.means.first(features), model.means.features(features)
                    # In the memory format of the latents: mixing formats is slow.
                    masks = step_masks(shape[1], first.shape[2], first.shape[3], z.device)
                    masks = [mask.contiguous(memory_format=torch.channels_last) for mask in masks]
                    if len(windows) == 1:
                        cached[outer] = first, side, masks
                mean = first
                if step > 0:
                    known = cut(y, outer, 16)
                    if len(windows) > 1:  # neighbours that are a step ahead must not be seen
                        known = torch.where(torch.stack(masks[:step]).any(dim=0), known, first)
                    mean = first + model.means.refine(known, side, step, position)
                inner = window.inside(outer)
                mean, mask = cut(mean, inner, 16), cut(masks[step], inner, 16)
                rows, columns = window.at(16)
                target = y[:, :, rows, columns]
                decoded = mean + residual(mean, mask, window) * down
                # Step 0 leaves the first means wherever it decodes nothing.
                target.copy_(torch.where(mask, decoded, target if step > 0 else mean))
        return y


def _stacked(planes: list[NDArray[np.int16]]) -> NDArray[np.int16]:
    return planes[0][None] if len(planes) == 1 else np.stack(planes)  # no second copy of a large plane


def _in_coding_order(plan: Plan, z: NDArray[np.int16], y: NDArray[np.int16]) -> list[NDArray[np.int16]]:
    return [part for w in plan.tiles() for part in (z[w.at(64)], y[w.at(16)])]
