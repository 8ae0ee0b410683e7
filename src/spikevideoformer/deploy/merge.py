"""What is linear in evaluation, merged: a convolution and its norm, or several in a row, as one.

Everything is computed in float64 on the CPU, from the running statistics.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # of BatchNorm2d and SyncBatchNorm

from spikevideoformer.nn.conv import (
    ChannelScale,
    ConvPair,
    PlainConv,
    Projection,
    RepConv,
    SepConv,
    SpikeConv2d,
)


def bn_affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What a batch norm does in evaluation: scale and shift ``[C]``, float64 on the CPU.

    Raises:
        ValueError: no batch norm, or one without running statistics.
    """
    if not isinstance(norm, _BatchNorm):
        raise ValueError(f"got {type(norm).__name__} where a batch norm was expected")
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a batch norm without running statistics cannot be folded")
    scale = torch.rsqrt(_double(norm.running_var) + norm.eps)
    if norm.weight is not None:
        scale = scale * _double(norm.weight)
    shift = -_double(norm.running_mean) * scale
    return scale, shift if norm.bias is None else shift + _double(norm.bias)


def fold_conv_bn(conv: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """A convolution and the batch norm after it as one convolution.

    Computed in float64, in evaluation mode, whatever the modes of the parts.

    Returns:
        Weight, shaped as that of ``conv``, and bias ``[C']``, on its device and in its dtype.
    """
    scale, shift = bn_affine(norm)
    weight = scale[:, None, None, None] * double_kernel(conv)
    bias = shift if conv.bias is None else scale * _double(conv.bias) + shift
    return weight.to(conv.weight), bias.to(conv.weight)


def merge_projection(part: Projection) -> tuple[Tensor, Tensor]:
    """A projection as one convolution: its weight, on the integers that fire into it, and bias.

    Returns:
        Weight ``[C', C, k, k]`` and bias ``[C']``, computed in float64; zero padding of k // 2.

    Raises:
        ValueError: a projection that is unknown here.
    """
    if isinstance(part, RepConv):
        return merge_repconv(part)
    if isinstance(part, PlainConv):
        return fold_conv_bn(part.conv, part.bn_out)
    if isinstance(part, ConvPair):
        return merge_pair(part)
    raise ValueError(f"got a {type(part).__name__}, a projection that is not known here")


def merge_pair(pair: ConvPair) -> tuple[Tensor, Tensor]:
    """Two 1x1 convolutions and their norms as one 1x1.

    Returns:
        Weight ``[C', C, 1, 1]`` and bias ``[C']``, computed in float64.
    """
    scale1, shift1 = bn_affine(pair.bn1)
    first = scale1[:, None] * double_kernel(pair.conv1)[:, :, 0, 0]  # [m, c]
    last, bias = _double(pair.conv2.weight)[:, :, 0, 0], torch.zeros(1, dtype=torch.float64)
    for norm in (pair.bn2, pair.bn_out):
        if norm is not None:
            scale, shift = bn_affine(norm)
            last, bias = scale[:, None] * last, scale * bias + shift
    weight = (last @ first)[:, :, None, None]
    return weight.to(pair.conv1.weight), (last @ shift1 + bias).to(pair.conv1.weight)


def merge_repconv(rep: RepConv) -> tuple[Tensor, Tensor]:
    """A RepConv as one dense 3x3 convolution with zero padding, exact at the borders.

    Equation (m runs over the channels between the two 1x1 convolutions):
        kernel[o, c, y, x] = sum_m last[o, m] dw[m, y, x] first[m, c]
        Outside the image the first norm makes its shift of a zero, as it does of a zero inside: so
        that shift is the same everywhere and goes into the bias.

    Returns:
        Weight ``[C, C, 3, 3]`` and bias ``[C]``, computed in float64.
    """
    (scale1, shift1), (scale2, shift2), (scale_out, shift_out) = (
        bn_affine(norm) for norm in (rep.bn1, rep.bn2, rep.bn_out)
    )
    first = scale1[:, None] * double_kernel(rep.pw1)[:, :, 0, 0]  # [m, c]
    last = (scale_out * scale2)[:, None] * _double(rep.pw2.weight)[:, :, 0, 0]  # [o, m]
    dw = _double(rep.dw.weight)[:, 0]  # [m, 3, 3]
    kernel = (last * dw.permute(1, 2, 0).unsqueeze(2)) @ first  # [3, 3, o, c]
    bias = last @ (dw.sum((1, 2)) * shift1) + scale_out * shift2 + shift_out
    weight = kernel.permute(2, 3, 0, 1).contiguous()
    return weight.to(rep.pw1.weight), bias.to(rep.pw1.weight)


def merge_sepconv(sep: SepConv) -> tuple[Tensor, Tensor]:
    """The second half of a SepConv, dw 7x7 + pw + BN, as one dense 7x7 convolution.

    Returns:
        Weight ``[C, 2C, 7, 7]`` and bias ``[C]``, computed in float64.
    """
    pw2, bias = fold_conv_bn(sep.pw2, sep.bn2)
    weight = _double(pw2) * double_kernel(sep.dw)[:, 0]  # [o, m, 1, 1] x [m, 7, 7]
    return weight.to(pw2), bias


def _double(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float64)


def double_kernel(conv: nn.Conv2d) -> Tensor:
    """What it multiplies the integers that it receives with."""
    return _double(conv.weight) * (conv.unit if isinstance(conv, SpikeConv2d) else 1.0)


def times(conv: tuple[Tensor, Tensor], scale: nn.Module | None) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution, of which each output channel is scaled."""
    weight, bias = conv
    if not isinstance(scale, ChannelScale):
        return conv
    factor = _double(scale.weight).to(weight)
    return weight * factor[:, None, None, None], bias * factor
