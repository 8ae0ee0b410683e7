"""Spikes packed for the backward pass, also inside ``torch.compile``, where it is one op each way.

Called directly the functions of ``pack.py`` do it: passing the dispatcher takes longer.
"""

import torch
from torch import Tensor

from spikevideoformer.ops.pack import Packed, pack_spikes, unpack


def keep(s: Tensor, levels: int) -> Packed:
    """Pack spikes 0..``levels``; see :func:`pack_spikes`."""
    if not torch.compiler.is_compiling():
        return pack_spikes(s, levels)
    stride = torch.empty_like(s).stride()
    return Packed(pack_op(s, levels), 1 if levels == 1 else 8, s.shape, stride, s.dtype)


def restore(packed: Packed) -> Tensor:
    """The spikes that were packed."""
    if not torch.compiler.is_compiling():
        return unpack(packed)
    data, bits, shape, stride, dtype = packed
    return unpack_op(data, bits, shape, stride, dtype)


@torch.library.custom_op("spikevideoformer::pack", mutates_args=())
def pack_op(s: Tensor, levels: int) -> Tensor:
    """The bytes of :func:`pack_spikes`."""
    return pack_spikes(s, levels).data


@pack_op.register_fake
def _(s: Tensor, levels: int) -> Tensor:
    count = s.numel()
    return s.new_empty(count if levels > 1 else (count + 7) // 8, dtype=torch.uint8)


@torch.library.custom_op("spikevideoformer::unpack", mutates_args=())
def unpack_op(
    data: Tensor, bits: int, shape: list[int], stride: list[int], dtype: torch.dtype
) -> Tensor:
    """The spikes of :func:`unpack`."""
    out = unpack(Packed(data, bits, torch.Size(shape), tuple(stride), dtype))
    return out.clone() if out.untyped_storage().data_ptr() == data.data_ptr() else out


@unpack_op.register_fake
def _(data: Tensor, bits: int, shape: list[int], stride: list[int], dtype: torch.dtype) -> Tensor:
    return data.new_empty_strided(shape, stride, dtype=dtype)
