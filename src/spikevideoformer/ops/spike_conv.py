"""Convolution of spikes that keeps its input for the backward pass as bits.

The gradient of the weights needs the input again, which plain autograd keeps in full: for a spike
of one bit, 32 bits. ``spike_conv2d`` keeps the one bit (a byte for integer spikes) and computes
the same numbers as ``ops.conv_gradient.conv2d``: the same calls both ways, on the same values in
the same memory layout.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from spikevideoformer.ops._keep import keep, restore
from spikevideoformer.ops._kernels import refuse_forward_mode
from spikevideoformer.ops.conv_gradient import conv2d, convolution_backward
from spikevideoformer.ops.pack import Packed


def spike_conv2d_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> Tensor:
    """The convolution that keeps its input as it is; arguments as :func:`spike_conv2d`."""
    return conv2d(x, weight, bias, stride, padding, groups)


def spike_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
    *,
    levels: int = 1,
) -> Tensor:
    """A 2-d convolution of spikes; same numbers and gradients as :func:`spike_conv2d_reference`.

    Without gradients, or for weights that take none, nothing is packed.

    Args:
        x: spikes 0..``levels``, ``[frames, C_in, H, W]``, floating point. Other values are lost.
        weight: ``[C_out, C_in / groups, kh, kw]``.
        bias: ``[C_out]``.
        stride: rows and columns.
        padding: zeros on each side, rows and columns.
        groups: of channels.
        levels: D of the neurons that fired, at most 255.

    Returns:
        ``[frames, C_out, H', W']``; under autocast in its dtype, as ``F.conv2d``.

    Raises:
        NotImplementedError: a forward-mode derivative where the input is kept packed.
    """
    if not (torch.is_grad_enabled() and weight.requires_grad):
        return spike_conv2d_reference(x, weight, bias, stride, padding, groups)
    refuse_forward_mode("spike_conv2d_reference", x, weight, bias)
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        x, weight = _cast(x, dtype), _cast(weight, dtype)
        bias = None if bias is None else _cast(bias, dtype)
    out: Tensor = _SpikeConv2d.apply(x, weight, bias, stride, padding, groups, levels)
    return out


def _cast(z: Tensor, dtype: torch.dtype) -> Tensor:
    # what autocast does to the arguments of a convolution: float64 stays
    return z if z.dtype == torch.float64 else z.to(dtype)


class _SpikeConv2d(torch.autograd.Function):
    """``F.conv2d`` whose saved input is packed."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
        groups: int,
        levels: int,
    ) -> Tensor:
        packed = keep(x, levels)
        ctx.layout = packed[1:]
        ctx.save_for_backward(packed.data, weight)
        ctx.bias_shape = None if bias is None else bias.shape
        ctx.geometry = stride, padding, groups
        return F.conv2d(x, weight, bias, stride, padding, groups=groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        data, weight = ctx.saved_tensors
        x = restore(Packed(data, *ctx.layout))
        what = x, weight, ctx.bias_shape, *ctx.geometry, ctx.needs_input_grad[:3]
        return *convolution_backward(grads[0], *what), None, None, None, None
