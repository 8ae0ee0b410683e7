"""Spikes packed for keeping: binary ones as bits, integers up to D as bytes."""

from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from spikevideoformer.ops._kernels import HOME, load


class Packed(NamedTuple):
    """Spikes in few bytes; :func:`unpack` gives them back exactly.

    Attributes:
        data: uint8 ``[bytes]``: eight spikes a byte (bits=1) or one (bits=8), in memory order.
        bits: 1 or 8.
        shape: shape of the spikes.
        stride: their strides, in elements, as dense tensors have.
        dtype: their type.
    """

    data: Tensor
    bits: int
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype


def pack_spikes(s: Tensor, levels: int = 1) -> Packed:
    """Pack spikes: one bit each where ``levels`` is 1, else one byte.

    Args:
        s: spikes 0..``levels``, any shape and dtype, any layout (a dense one is kept). Other
            values are lost; they are not looked for.
        levels: D, at most 255.

    Raises:
        ValueError: ``levels`` outside 1..255.
    """
    if not 1 <= levels <= 255:
        raise ValueError(f"levels is {levels}; spikes 0..255 fit a byte")
    stride = torch.empty_like(s, device="meta").stride()  # dense, in the order of s
    if s.stride() != stride:
        s = torch.empty_like(s).copy_(s)
    flat = s.detach().as_strided((s.numel(),), (1,))
    if levels > 1:
        return Packed(flat.to(torch.uint8, copy=True), 8, s.shape, stride, s.dtype)
    if flat.dtype == torch.bool:
        flat = flat.view(torch.uint8)
    fast = _fast(flat.device, flat.dtype)
    data = pack_bits_reference(flat) if fast is None else fast.pack_bits(flat)
    return Packed(data, 1, s.shape, stride, s.dtype)


def unpack(packed: Packed) -> Tensor:
    """The spikes that were packed: same values, shape, dtype and (dense) layout."""
    data, bits, shape, stride, dtype = packed
    count = shape.numel()
    if bits == 1:
        stored = torch.uint8 if dtype == torch.bool else dtype
        fast = _fast(data.device, stored)
        if fast is None:
            data = unpack_bits_reference(data, count)
        else:
            data = fast.unpack_bits(data, count, stored)
    flat = data.to(dtype)
    return flat.as_strided(shape, stride)


def pack_bits_reference(flat: Tensor) -> Tensor:
    """uint8 ``[ceil(n / 8)]`` from spikes ``[n]``: the first in the lowest bit."""
    padded = F.pad((flat != 0).to(torch.uint8), (0, -flat.numel() % 8)).reshape(-1, 8)
    weights = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=flat.device)
    return (padded * weights).sum(1, dtype=torch.uint8)


def unpack_bits_reference(data: Tensor, count: int) -> Tensor:
    """The ``count`` spikes of :func:`pack_bits_reference`, as bytes."""
    place = torch.arange(8, dtype=torch.uint8, device=data.device)
    return ((data.unsqueeze(1) >> place) & 1).flatten()[:count]


def _fast(device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    """Compiled functions for spikes of such a dtype, if any."""
    if dtype not in (torch.float32, torch.bfloat16, torch.uint8) or device.type not in HOME:
        return None
    found = load(HOME[device.type], "pack")
    return found if isinstance(found, ModuleType) else None
