"""Convolutional parts of the backbone. All take and return ``[T, B, C, H, W]``.

Residual shortcuts carry membranes (real values); what enters a convolution is spikes, except
where a docstring says otherwise, and in an ordinary network, whose neurons are rectifiers.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevideoformer.nn.block_config import BlockConfig
from spikevideoformer.nn.neuron import AnyNeuron, make_neuron
from spikevideoformer.ops.conv_gradient import conv2d
from spikevideoformer.ops.lif import NeuronConfig
from spikevideoformer.ops.spike_conv import spike_conv2d

_USUAL = BlockConfig()


def per_frame(module: nn.Module, x: Tensor, **options: Any) -> Tensor:
    """Apply an image module to every frame of every clip: ``[T, B, C, H, W]`` in and out."""
    frames, clips = x.shape[:2]
    y: Tensor = module(x.flatten(0, 1), **options)  # [T*B, C, H, W]
    return y.unflatten(0, (frames, clips))


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` whose backward pass is faster on a CPU (``ops/conv_gradient.py``)."""

    def forward(self, x: Tensor) -> Tensor:
        stride, padding = cast(tuple[int, int], self.stride), cast(tuple[int, int], self.padding)
        return conv2d(x, self.weight, self.bias, stride, padding, self.groups)


class SpikeConv2d(nn.Conv2d):
    """A convolution that receives spikes 0..``levels``; otherwise :class:`Conv2d`.

    Args:
        neuron: what fires into it: its ``levels``, and the ``unit`` that a spike is worth, which
            scales the weights; None: a binary one.

    Attributes:
        packed: keep the input for the backward pass as bits (bytes where ``levels`` > 1) instead
            of floating-point numbers. The same numbers and gradients, as long as it is spikes.
    """

    def __init__(self, *args: Any, neuron: NeuronConfig | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.levels, self.unit = (1, 1.0) if neuron is None else (neuron.levels, neuron.unit)
        self.packed = False

    def forward(self, x: Tensor) -> Tensor:
        weight = kernel_of(self)
        stride, padding = cast(tuple[int, int], self.stride), cast(tuple[int, int], self.padding)
        if not self.packed:
            return conv2d(x, weight, self.bias, stride, padding, self.groups)
        return spike_conv2d(x, weight, self.bias, stride, padding, self.groups, levels=self.levels)


def kernel_of(conv: nn.Conv2d) -> Tensor:
    """What a convolution multiplies the integers that it receives with, ``[C', C, kh, kw]``."""
    unit = conv.unit if isinstance(conv, SpikeConv2d) else 1.0
    return conv.weight if unit == 1 else conv.weight * unit


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


class ChannelScale(nn.Module):
    """A learnt factor of each channel of a residual part, ``[T, B, C, H, W]`` in and out.

    Args:
        channels: C.

    Source: Touvron et al., "Going deeper with image Transformers", 2021 (LayerScale).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight[:, None, None]


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
                in_channels, out_channels, kernel_size, stride, padding, neuron=neuron.config
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

    def __init__(
        self, channels: int, neuron: NeuronConfig, reset_each_frame: bool, kernel_size: int = 7
    ) -> None:
        super().__init__()
        wide = self.expansion * channels
        self.neuron1 = make_neuron(neuron, reset_each_frame)
        self.pw1 = SpikeConv2d(channels, wide, 1, bias=False, neuron=neuron)
        self.bn1 = nn.BatchNorm2d(wide)
        self.neuron2 = make_neuron(neuron, reset_each_frame)
        self.dw = _depthwise(wide, kernel_size, neuron)
        self.pw2 = Conv2d(wide, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.neuron2(per_frame(self.pw1, self.neuron1(x)), norm=self.bn1)
        x = per_frame(self.dw, x)
        return per_frame(self.bn2, per_frame(self.pw2, x))


class SpikingSepConv(nn.Module):
    """SepConv of which every convolution receives spikes.

    SN -> pw 1x1 (C -> 2C) -> BN -> SN -> dw -> BN -> SN -> pw 1x1 (2C -> C) -> BN.
    """

    expansion = 2

    def __init__(
        self, channels: int, neuron: NeuronConfig, reset_each_frame: bool, kernel_size: int
    ) -> None:
        super().__init__()
        wide = self.expansion * channels
        self.neuron1, self.neuron2, self.neuron3 = (
            make_neuron(neuron, reset_each_frame) for _ in range(3)
        )
        self.pw1 = SpikeConv2d(channels, wide, 1, bias=False, neuron=neuron)
        self.bn1 = nn.BatchNorm2d(wide)
        self.dw = _depthwise(wide, kernel_size, neuron)
        self.bn2 = nn.BatchNorm2d(wide)
        self.pw2 = SpikeConv2d(wide, channels, 1, bias=False, neuron=neuron)
        self.bn3 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.neuron2(per_frame(self.pw1, self.neuron1(x)), norm=self.bn1)
        x = self.neuron3(per_frame(self.dw, x), norm=self.bn2)
        return per_frame(self.bn3, per_frame(self.pw2, x))


def _depthwise(channels: int, kernel_size: int, neuron: NeuronConfig) -> SpikeConv2d:
    size: dict[str, Any] = {"kernel_size": kernel_size, "padding": kernel_size // 2}
    return SpikeConv2d(channels, channels, groups=channels, bias=False, neuron=neuron, **size)


class ChannelConv(nn.Module):
    """SN -> 3x3 (C -> 4C) -> BN -> SN -> 3x3 (4C -> C) -> BN."""

    def __init__(
        self,
        channels: int,
        mlp_ratio: int,
        neuron: NeuronConfig,
        reset_each_frame: bool,
        bias: bool = False,
    ) -> None:
        super().__init__()
        wide = mlp_ratio * channels
        self.neuron1 = make_neuron(neuron, reset_each_frame)
        self.conv1 = SpikeConv2d(channels, wide, 3, padding=1, bias=bias, neuron=neuron)
        self.bn1 = nn.BatchNorm2d(wide)
        self.neuron2 = make_neuron(neuron, reset_each_frame)
        self.conv2 = SpikeConv2d(wide, channels, 3, padding=1, bias=bias, neuron=neuron)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.neuron2(per_frame(self.conv1, self.neuron1(x)), norm=self.bn1)
        return per_frame(self.bn2, per_frame(self.conv2, x))


class ConvBlock(nn.Module):
    """U' = U + SepConv(U); U'' = U' + ChannelConv(U'), the former as ``parts`` has it."""

    def __init__(
        self,
        channels: int,
        *,
        mlp_ratio: int,
        drop_path: float,
        neuron: NeuronConfig,
        reset_each_frame: bool,
        parts: BlockConfig = _USUAL,
    ) -> None:
        super().__init__()
        self.sep_conv: SepConv | SpikingSepConv | None = None
        if parts.separable != "none":
            kind = SepConv if parts.separable == "real" else SpikingSepConv
            self.sep_conv = kind(channels, neuron, reset_each_frame, parts.kernel_size)
        self.channel_conv = ChannelConv(
            channels, mlp_ratio, neuron, reset_each_frame, parts.conv_bias
        )
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, u: Tensor) -> Tensor:
        if self.sep_conv is not None:
            u = u + self.drop_path(self.sep_conv(u))
        return u + self.drop_path(self.channel_conv(u))

    def last_norms(self) -> list[nn.BatchNorm2d]:
        """The BN that closes each residual branch."""
        norms = [self.channel_conv.bn2]
        if self.sep_conv is not None:
            of_sep = self.sep_conv.bn2 if isinstance(self.sep_conv, SepConv) else self.sep_conv.bn3
            norms.insert(0, of_sep)
        return norms


class Projection(nn.Module):
    """Spikes to currents through an outer BN, which a neuron that follows takes in.

    An image module, called as :class:`RepConv`. All steps are linear.
    """

    bn_out: nn.BatchNorm2d


class RepConv(Projection):
    """1x1 -> BN, padded with what BN makes of zero -> dw 3x3 -> pw 1x1 -> BN -> outer BN.

    An image module (``[T*B, C, H, W]``). Every step is linear, so in evaluation the whole equals
    one dense 3x3 convolution with zero padding and a bias. Unmerged, the depthwise and second
    pointwise convolutions receive real values.

    Args:
        channels: C.
        neuron: what fires into it; None: a binary one.
    """

    def __init__(self, channels: int, neuron: NeuronConfig | None = None) -> None:
        super().__init__()
        self.pw1 = SpikeConv2d(channels, channels, 1, bias=False, neuron=neuron)
        self.bn1 = nn.BatchNorm2d(channels)
        self.dw = Conv2d(channels, channels, 3, groups=channels, bias=False)
        self.pw2 = Conv2d(channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.bn_out = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, with_bn_out: bool = True) -> Tensor:
        """The module without its outer BN where a neuron that follows takes that BN in."""
        if self.training or type(self.pw1) is not SpikeConv2d or self.pw1._forward_hooks:
            x = self._pad_with_bn_of_zero(self.bn1(self.pw1(x)))
        else:  # the same border without a copy: a pixel outside the image is zero before the BN
            x = self.bn1(F.conv2d(x, kernel_of(self.pw1), padding=1))
        x = self.bn2(self.pw2(self.dw(x)))
        return cast(Tensor, self.bn_out(x)) if with_bn_out else x

    def _pad_with_bn_of_zero(self, x: Tensor) -> Tensor:
        # As in the code that trained the published weights, the border is a constant to autograd
        # and comes from the running statistics.
        bn = self.bn1
        assert bn.running_mean is not None and bn.running_var is not None
        slope = bn.weight.detach() / torch.sqrt(bn.running_var + bn.eps)
        border = (bn.bias.detach() - bn.running_mean * slope).to(x.dtype).reshape(-1, 1, 1)
        return cast(Tensor, _Framed.apply(x, border))


class _Framed(torch.autograd.Function):
    """A border one pixel wide around images ``[N, C, H, W]``, a constant ``[C, 1, 1]``.

    Channels-last throughout. The same by indexing copies the gradient twice, and gives the
    convolution behind it another memory layout.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, border: Tensor) -> Tensor:
        images, channels, height, width = x.shape
        framed = torch.empty(
            (images, channels, height + 2, width + 2),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        for edge in (framed[..., :1, :], framed[..., -1:, :], framed[..., :1], framed[..., -1:]):
            edge.copy_(border)
        framed[..., 1:-1, 1:-1] = x
        return framed

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        inner = grads[0][..., 1:-1, 1:-1]
        return inner.contiguous(memory_format=torch.channels_last), None


class PlainConv(Projection):
    """1x1 -> BN.

    Args:
        in_channels, out_channels: widths.
        neuron: what fires into it.
    """

    def __init__(self, in_channels: int, out_channels: int, neuron: NeuronConfig) -> None:
        super().__init__()
        self.conv = SpikeConv2d(in_channels, out_channels, 1, bias=False, neuron=neuron)
        self.bn_out = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, with_bn_out: bool = True) -> Tensor:
        """See :class:`RepConv`."""
        x = self.conv(x)
        return cast(Tensor, self.bn_out(x)) if with_bn_out else x


class ConvPair(Projection):
    """1x1 -> BN -> 1x1 -> BN [-> outer BN].

    In evaluation the whole equals one 1x1 convolution. Unmerged, the second one receives real
    values.

    Args:
        in_channels, between, out_channels: widths.
        neuron: what fires into it.
        outer: whether there is an outer BN; without one the last BN is it.
    """

    def __init__(
        self,
        in_channels: int,
        between: int,
        out_channels: int,
        neuron: NeuronConfig,
        outer: bool = True,
    ) -> None:
        super().__init__()
        self.conv1 = SpikeConv2d(in_channels, between, 1, bias=False, neuron=neuron)
        self.bn1 = nn.BatchNorm2d(between)
        self.conv2 = Conv2d(between, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels) if outer else None
        self.bn_out = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, with_bn_out: bool = True) -> Tensor:
        """See :class:`RepConv`."""
        x = self.conv2(self.bn1(self.conv1(x)))
        x = x if self.bn2 is None else self.bn2(x)
        return cast(Tensor, self.bn_out(x)) if with_bn_out else x


def make_projection(
    in_channels: int, out_channels: int, neuron: NeuronConfig, parts: BlockConfig
) -> Projection:
    """The projection that ``parts`` names.

    Args:
        in_channels: width of its input.
        out_channels: of its output; the same for ``rep``.
        neuron: what fires into it.
        parts: of the network.
    """
    if parts.projection == "rep":
        assert in_channels == out_channels
        return RepConv(in_channels, neuron)
    if parts.projection == "plain":
        return PlainConv(in_channels, out_channels, neuron)
    between = parts.between_pair(in_channels)
    return ConvPair(in_channels, between, out_channels, neuron)


class PairPart(nn.Module):
    """SN -> 1x1 (C -> C) -> BN -> 1x1 (C -> C) -> BN: a residual part of its own."""

    def __init__(self, channels: int, neuron: NeuronConfig, reset_each_frame: bool) -> None:
        super().__init__()
        self.neuron = make_neuron(neuron, reset_each_frame)
        self.conv = ConvPair(channels, channels, channels, neuron, outer=False)

    def forward(self, u: Tensor) -> Tensor:
        return per_frame(self.conv, self.neuron(u))
