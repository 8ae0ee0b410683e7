# mypy: disable-error-code="no-untyped-def, untyped-decorator, import"
"""Spikes as bits and back, in the format of ``ops/pack.py``: spike 8i + j is bit j of byte i."""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BYTES = 512  # packed by one program of 4 warps: 32 spikes a thread


@triton.jit
def _pack_kernel(s_ptr, data_ptr, count, BYTES: tl.constexpr):
    byte = tl.program_id(0).to(tl.int64) * BYTES + tl.arange(0, BYTES)
    bit = tl.arange(0, 8)
    at = byte[:, None] * 8 + bit[None, :]
    fired = (tl.load(s_ptr + at, at < count, other=0) != 0).to(tl.int32)
    packed = tl.sum(fired << bit[None, :], 1)
    tl.store(data_ptr + byte, packed.to(tl.uint8), byte * 8 < count)


@triton.jit
def _unpack_kernel(data_ptr, s_ptr, count, BYTES: tl.constexpr):
    byte = tl.program_id(0).to(tl.int64) * BYTES + tl.arange(0, BYTES)
    bit = tl.arange(0, 8)
    at = byte[:, None] * 8 + bit[None, :]
    packed = tl.load(data_ptr + byte, byte * 8 < count, other=0).to(tl.int32)
    s = (packed[:, None] >> bit[None, :]) & 1
    tl.store(s_ptr + at, s.to(tl.float32).to(s_ptr.dtype.element_ty), at < count)


def pack_bits(flat: Tensor) -> Tensor:
    """uint8 ``[ceil(n / 8)]`` from contiguous spikes ``[n]`` of any dtype; what is not 0 is 1."""
    data = torch.empty(-(-flat.numel() // 8), dtype=torch.uint8, device=flat.device)
    if data.numel():
        flat = flat.view(torch.uint8) if flat.dtype == torch.bool else flat
        with torch.cuda.device_of(flat):
            grid = (triton.cdiv(data.numel(), _BYTES),)
            _pack_kernel[grid](flat, data, flat.numel(), BYTES=_BYTES)
    return data


def unpack_bits(data: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """The ``count`` spikes that :func:`pack_bits` packed, ``[count]`` in ``dtype``."""
    flat = torch.empty(count, dtype=dtype, device=data.device)
    if count:
        out = flat.view(torch.uint8) if dtype == torch.bool else flat
        with torch.cuda.device_of(data):
            grid = (triton.cdiv(data.numel(), _BYTES),)
            _unpack_kernel[grid](data, out, count, BYTES=_BYTES)
    return flat
