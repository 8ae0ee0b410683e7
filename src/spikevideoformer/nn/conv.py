"""Convolutional parts of the backbone. All take and return ``[T, B, C, H, W]``.

Residual shortcuts carry membranes (real values); what enters a convolution is spikes, except
where a docstring says otherwise, and in an ordinary network, whose neurons are rectifiers.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevideoformer.nn.neuron import AnyNeuron, make_neuron
from spikevideoformer.ops.lif import NeuronConfig
from spikevideoformer.ops.spike_conv import spike_conv2d


def per_frame(module: nn.Module, x: Tensor, **options: Any) -> Tensor:
    """Apply an image module to every frame of every clip: ``[T, B, C, H, W]`` in and out."""
    frames, clips = x.shape[:2]
    y: Tensor = module(x.flatten(0, 1), **options)  # [T*B, C, H, W]
    return y.unflatten(0, (frames, clips))


class SpikeConv2d(nn.Conv2d):
    """A convolution that receives spikes 0..``levels``; otherwise ``nn.Conv2d``.

    Attributes:
        packed: keep the input for the backward pass as bits (bytes where ``levels`` > 1) instead
            of floating-point numbers. The same numbers and gradients, as long as it is spikes.
    """

    def __init__(self, *args: Any, levels: int = 1, **options: Any) -> None:
        super().__init__(*args, **options)
        self.levels = levels
        self.packed = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.packed:
            return super().forward(x)
        stride, padding = cast(tuple[int, int], self.stride), cast(tuple[int, int], self.padding)
        return spike_conv2d(
            x, self.weight, self.bias, stride, padding, self.groups, levels=self.levels
        )


class StochasticDepth(nn.Module):
    """Leave a residual branch out for random clips while training, scaled to keep the mean.

    A clip keeps or loses the branch for all its frames at once.

    Args:
        rate: probability to drop, in [0, 1).

    Source: Huang et al., ECCV 2016. A parameter of the published model that its code ignores.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand(x.shape[1], device=x.device) >= self.rate  # [B]
        return x * (keep / (1 - self.rate)).to(x.dtype).reshape(1, -1, *[1] * (x.ndim - 2))


class Downsample(nn.Module):
    """[SN unless first] -> Conv(bias) -> BN.

    Args:
        in_channels, out_channels: widths.
        kernel_size, stride: of the convolution; padding is half the kernel.
        neuron: what fires into the convolution; None for the one layer that sees pixels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int,
        neuron: AnyNeuron | None,
    ) -> None:
        super().__init__()
        self.neuron = neuron
        padding = kernel_size // 2
        self.conv = (
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding)
            if neuron is None
            else SpikeConv2d(
                in_channels, out_channels, kernel_size, stride, padding, levels=neuron.config.levels
            )
        )
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.neuron is not None:
            x = self.neuron(x)
        return per_frame(self.bn, per_frame(self.conv, x))


class SepConv(nn.Module):
    """SN -> pw 1x1 (C -> 2C) -> BN -> SN -> dw 7x7 -> pw 1x1 (2C -> C) -> BN.

    The last pointwise convolution receives the real-valued output of the depthwise one.
    """

    expansion = 2
    kernel_size = 7

    def __init__(self, channels: int, neuron: NeuronConfig, reset_each_frame: bool) -> None:
        super().__init__()
        wide = self.expansion * channels
        self.neuron1 = make_neuron(neuron, reset_each_frame)
        levels = neuron.levels
        self.pw1 = SpikeConv2d(channels, wide, 1, bias=False, levels=levels)
        self.bn1 = nn.BatchNorm2d(wide)
        self.neuron2 = make_neuron(neuron, reset_each_frame)
        padding = self.kernel_size // 2
        self.dw = SpikeConv2d(
            wide, wide, self.kernel_size, padding=padding, groups=wide, bias=False, levels=levels
        )
        self.pw2 = nn.Conv2d(wide, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.neuron2(per_frame(self.pw1, self.neuron1(x)), norm=self.bn1)
        x = per_frame(self.dw, x)
        return per_frame(self.bn2, per_frame(self.pw2, x))


class ChannelConv(nn.Module):
    """SN -> 3x3 (C -> 4C) -> BN -> SN -> 3x3 (4C -> C) -> BN."""

    def __init__(
        self, channels: int, mlp_ratio: int, neuron: NeuronConfig, reset_each_frame: bool
    ) -> None:
        super().__init__()
        wide = mlp_ratio * channels
        self.neuron1 = make_neuron(neuron, reset_each_frame)
        levels = neuron.levels
        self.conv1 = SpikeConv2d(channels, wide, 3, padding=1, bias=False, levels=levels)
        self.bn1 = nn.BatchNorm2d(wide)
        self.neuron2 = make_neuron(neuron, reset_each_frame)
        self.conv2 = SpikeConv2d(wide, channels, 3, padding=1, bias=False, levels=levels)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.neuron2(per_frame(self.conv1, self.neuron1(x)), norm=self.bn1)
        return per_frame(self.bn2, per_frame(self.conv2, x))


class ConvBlock(nn.Module):
    """U' = U + SepConv(U); U'' = U' + ChannelConv(U')."""

    def __init__(
        self,
        channels: int,
        *,
        mlp_ratio: int,
        drop_path: float,
        neuron: NeuronConfig,
        reset_each_frame: bool,
    ) -> None:
        super().__init__()
        self.sep_conv = SepConv(channels, neuron, reset_each_frame)
        self.channel_conv = ChannelConv(channels, mlp_ratio, neuron, reset_each_frame)
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, u: Tensor) -> Tensor:
        u = u + self.drop_path(self.sep_conv(u))
        return u + self.drop_path(self.channel_conv(u))

    def last_norms(self) -> list[nn.BatchNorm2d]:
        """The BN that closes each residual branch."""
        return [self.sep_conv.bn2, self.channel_conv.bn2]


class RepConv(nn.Module):
    """1x1 -> BN, padded with what BN makes of zero -> dw 3x3 -> pw 1x1 -> BN -> outer BN.

    An image module (``[T*B, C, H, W]``). Every step is linear, so in evaluation the whole equals
    one dense 3x3 convolution with zero padding and a bias. Unmerged, the depthwise and second
    pointwise convolutions receive real values.

    Args:
        channels: C.
        levels: D of the neurons that fire into it.
    """

    def __init__(self, channels: int, levels: int = 1) -> None:
        super().__init__()
        self.pw1 = SpikeConv2d(channels, channels, 1, bias=False, levels=levels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.dw = nn.Conv2d(channels, channels, 3, groups=channels, bias=False)
        self.pw2 = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.bn_out = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, with_bn_out: bool = True) -> Tensor:
        """The module without its outer BN where a neuron that follows takes that BN in."""
        if self.training or type(self.pw1) is not SpikeConv2d or self.pw1._forward_hooks:
            x = self._pad_with_bn_of_zero(self.bn1(self.pw1(x)))
        else:  # the same border without a copy: a pixel outside the image is zero before the BN
            x = self.bn1(F.conv2d(x, self.pw1.weight, padding=1))
        x = self.bn2(self.pw2(self.dw(x)))
        return cast(Tensor, self.bn_out(x)) if with_bn_out else x

    def _pad_with_bn_of_zero(self, x: Tensor) -> Tensor:
        # As in the code that trained the published weights, the border is a constant to autograd
        # and comes from the running statistics.
        bn = self.bn1
        assert bn.running_mean is not None and bn.running_var is not None
        slope = bn.weight.detach() / torch.sqrt(bn.running_var + bn.eps)
        border = (bn.bias.detach() - bn.running_mean * slope).to(x.dtype).reshape(-1, 1, 1)
        padded = border.expand(*x.shape[:2], x.shape[2] + 2, x.shape[3] + 2).clone()
        padded[..., 1:-1, 1:-1] = x
        return padded
