"""Spike-driven attention modules, one per space-time design, and softmax attention beside them.

Axes: ``x`` is ``[T, B, C, H, W]``; a head sees tokens ``[batch, h, N, d]`` where N is
    space_time  T*H*W tokens, batch B        (joint)
    space       H*W tokens, batch T*B        (neuron-only, spatial-only, first half of the others)
    time        T tokens, batch B*H*W        (second half of hierarchical and factorized)
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevideoformer.nn.block_config import BlockConfig
from spikevideoformer.nn.conv import (
    ChannelScale,
    PairPart,
    Projection,
    SpikeConv2d,
    SpikingSepConv,
    StochasticDepth,
    make_projection,
    per_frame,
)
from spikevideoformer.nn.neuron import Neuron, make_neuron
from spikevideoformer.ops.hamming import dot_attention, hamming_attention
from spikevideoformer.ops.lif import NeuronConfig
from spikevideoformer.shapes import AttentionKind

Axes = Literal["space_time", "space", "time"]

_USUAL = BlockConfig()
_RECTIFIER = NeuronConfig(kind="relu")


def to_tokens(x: Tensor, heads: int, axes: Axes) -> Tensor:
    """``[T, B, C, H, W]`` -> ``[batch, h, N, d]``; heads are contiguous slices of the channels."""
    t, b, c, h, w = x.shape
    x = x.reshape(t, b, heads, c // heads, h * w)
    if axes == "space_time":
        return x.permute(1, 2, 0, 4, 3).reshape(b, heads, t * h * w, c // heads)
    if axes == "space":
        return x.permute(0, 1, 2, 4, 3).reshape(t * b, heads, h * w, c // heads)
    return x.permute(1, 4, 2, 0, 3).reshape(b * h * w, heads, t, c // heads)


def from_tokens(tokens: Tensor, shape: torch.Size, axes: Axes) -> Tensor:
    """Inverse of :func:`to_tokens`; ``shape`` is ``[T, B, C, H, W]``.

    The result lies channels-last in memory, as the convolution after it wants it.
    """
    t, b, c, h, w = shape
    heads, d = tokens.shape[1], tokens.shape[3]
    if axes == "space_time":
        x = tokens.reshape(b, heads, t, h * w, d).permute(2, 0, 3, 1, 4)  # T B HW heads d
    elif axes == "space":
        x = tokens.reshape(t, b, heads, h * w, d).permute(0, 1, 3, 2, 4)
    else:
        x = tokens.reshape(b, h * w, heads, t, d).permute(3, 0, 1, 2, 4)
    return x.reshape(t, b, h, w, c).permute(0, 1, 4, 2, 3)


class SpikeAttention(nn.Module):
    """q, k, v projections, SDHA or SDSA over ``axes``, and the neuron that ends it.

    Spikes in, spikes out, no output projection.

    Args:
        channels: C, a multiple of ``heads``.
        heads: h.
        axes: which tokens attend to each other.
        kind: hamming (scale as ``parts`` has it, 1/(2C), then BN, threshold as the other neurons)
            or dot (scale and threshold as ``parts`` has them, 1/8 and 0.5; no BN).
        constant_term: keep the 1/2 of the Hamming similarity.
        neuron: what fires.
        reset_each_frame: see :class:`Neuron`.
        parts: its projections, and the width of v, which may be a multiple of C.

    Attributes:
        packed: keep q, k and v for the backward pass as bits (bytes for Integer-LIF).
        backend: what computes the products, as in ``ops.hamming``; ``nn.backend`` sets it for a
            network.

    Source: Zou et al., ICML 2025; scales and thresholds as in the published code.
    """

    backend = "auto"

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        axes: Axes,
        kind: AttentionKind,
        constant_term: bool,
        neuron: NeuronConfig,
        reset_each_frame: bool,
        parts: BlockConfig = _USUAL,
    ) -> None:
        super().__init__()

        def fires(config: NeuronConfig) -> Neuron:
            made = make_neuron(config, reset_each_frame)
            assert isinstance(made, Neuron)  # ModelConfig refuses rectifiers here
            return made

        self.heads, self.axes, self.kind, self.constant_term = heads, axes, kind, constant_term
        self.levels, self.packed = neuron.levels, False
        self.channels = channels
        self.value_channels = wide = parts.value_ratio * channels
        self.q_conv, self.k_conv, self.v_conv = (
            make_projection(channels, width, neuron, parts) for width in (channels, channels, wide)
        )
        self.q_neuron, self.k_neuron, self.v_neuron = (fires(neuron) for _ in range(3))
        # the ops take the mean over sub-steps of q and k, and add up those of v
        self.bn: nn.BatchNorm2d | None = None
        if kind == "hamming":
            scale = parts.threshold_scale
            if isinstance(scale, str):
                width = channels if scale == "width" else channels // heads
                self.scale = neuron.unit / (2 * width)
            else:
                self.scale = neuron.unit * scale
            if parts.attention_norm:
                self.bn = nn.BatchNorm2d(wide)
            out_neuron = neuron
        else:
            assert kind == "dot"
            usual = 2 / math.sqrt(channels // heads)
            self.scale = neuron.unit * (usual if parts.dot_scale is None else parts.dot_scale)
            out_neuron = replace(neuron, v_threshold=parts.dot_threshold * neuron.v_threshold)
        self.out_neuron = fires(out_neuron)

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.out_neuron(self.product(*self.fired(x)), norm=self.bn)
        return spikes.to(x.dtype)  # the sums of a network in half precision are float32

    def fired(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of spikes ``[T, B, C, H, W]``, of that shape."""
        return (
            _fire(self.q_conv, self.q_neuron, x),
            _fire(self.k_conv, self.k_neuron, x),
            _fire(self.v_conv, self.v_neuron, x),
        )

    def product(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What the last batch norm and neuron read, of q, k and v ``[T, B, C, H, W]``."""
        q_, k_, v_ = (to_tokens(z, self.heads, self.axes) for z in (q, k, v))
        attend = dot_attention
        if self.kind == "hamming":
            attend = partial(hamming_attention, constant_term=self.constant_term)
        kept: dict[str, Any] = {"packed": self.packed, "backend": self.backend}
        y = attend(q_, k_, v_, scale=self.scale, levels=self.levels, **kept)
        return from_tokens(y, v.shape, self.axes)


class SoftmaxAttention(nn.Module):
    """q, k, v projections and softmax attention over ``axes``: what an ordinary network has.

    Real values in and out; no activation on q, k and v, and none at the end.

    Equation (over the tokens of one head, width d):
        softmax(Q K^T / sqrt(d)) V

    Membranes tell a spiking network the time; here nothing would. Where tokens of several frames
    attend to each other, :func:`time_code` is added to the input, without which the network could
    not tell a clip from the same frames in another order.

    Args:
        channels: C, a multiple of ``heads``.
        heads: h.
        axes: which tokens attend to each other.
        neuron: the rectifier of the network.
        parts: its projections, and the width of v.

    Source: Vaswani et al., "Attention is all you need" (2017); the code is added in every
        attention, as in Dehghani et al., "Universal transformers" (2019).
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        axes: Axes,
        neuron: NeuronConfig = _RECTIFIER,
        parts: BlockConfig = _USUAL,
    ) -> None:
        super().__init__()
        self.heads, self.axes = heads, axes
        wide = parts.value_ratio * channels
        self.q_conv, self.k_conv, self.v_conv = (
            make_projection(channels, width, neuron, parts) for width in (channels, channels, wide)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.axes != "space":
            x = x + time_code(x)
        q, k, v = (
            to_tokens(per_frame(conv, x), self.heads, self.axes)
            for conv in (self.q_conv, self.k_conv, self.v_conv)
        )
        shape = torch.Size((*x.shape[:2], v.shape[1] * v.shape[3], *x.shape[3:]))
        return from_tokens(F.scaled_dot_product_attention(q, k, v), shape, self.axes)


def time_code(x: Tensor) -> Tensor:
    """Which frame is which: sines and cosines ``[T, 1, C, 1, 1]``, for ``[T, B, C, H, W]``.

    Equation (frame t, channels 2i and 2i + 1):
        sin(t / 10000^(2i/C)), cos(t / 10000^(2i/C))

    Source: Vaswani et al., "Attention is all you need" (2017), section 3.5.
    """
    T, C = x.shape[0], x.shape[2]
    dtype = torch.promote_types(x.dtype, torch.float32)
    frame = torch.arange(T, dtype=dtype, device=x.device)
    even = torch.arange(0, C, 2, dtype=dtype, device=x.device)
    angle = frame.unsqueeze(1) / 10000 ** (even / C)  # [T, ceil(C/2)]
    code = torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :C]
    return code.to(x.dtype).reshape(T, 1, C, 1, 1)


def _fire(projection: nn.Module, neuron: nn.Module, x: Tensor) -> Tensor:
    """Projection, then neuron; the last BN of a projection is left to the neuron."""
    if isinstance(projection, Projection):
        y, norm = per_frame(projection, x, with_bn_out=False), projection.bn_out
    else:  # swapped for another module
        y, norm = per_frame(projection, x), None
    spikes: Tensor = neuron(y, norm=norm)
    return spikes


class Attention(nn.Module):
    """X = SN(U), one :class:`SpikeAttention` after another, then the output projection.

    With ``kind="softmax"`` each of them is a :class:`SoftmaxAttention`.

    One ``axes`` gives the joint or spatial module (weights 4 D^2); two give the factorized one,
    spatial then temporal with q/k/v of their own and a shared output projection (7 D^2).
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        axes: tuple[Axes, ...],
        kind: AttentionKind,
        constant_term: bool,
        neuron: NeuronConfig,
        reset_each_frame: bool,
        parts: BlockConfig = _USUAL,
    ) -> None:
        super().__init__()
        self.neuron = make_neuron(neuron, reset_each_frame)
        if len(axes) > 1 and parts.value_ratio != 1:
            raise ValueError(
                "design 'factorized' needs values as wide as queries; set value_ratio=1"
            )
        self.steps = nn.ModuleList(
            SoftmaxAttention(channels, heads=heads, axes=a, neuron=neuron, parts=parts)
            if kind == "softmax"
            else SpikeAttention(
                channels,
                heads=heads,
                axes=a,
                kind=kind,
                constant_term=constant_term,
                neuron=neuron,
                reset_each_frame=reset_each_frame,
                parts=parts,
            )
            for a in axes
        )
        self.proj = make_projection(parts.value_ratio * channels, channels, neuron, parts)

    def forward(self, u: Tensor) -> Tensor:
        x = self.neuron(u)
        for step in self.steps:
            x = step(x)
        return per_frame(self.proj, x)


class MLP(nn.Module):
    """SN -> 1x1 (C -> 4C) -> BN -> SN -> 1x1 (4C -> C) -> BN."""

    def __init__(
        self, channels: int, mlp_ratio: int, neuron: NeuronConfig, reset_each_frame: bool
    ) -> None:
        super().__init__()
        wide = mlp_ratio * channels
        self.neuron1 = make_neuron(neuron, reset_each_frame)
        self.fc1 = SpikeConv2d(channels, wide, 1, neuron=neuron)
        self.bn1 = nn.BatchNorm2d(wide)
        self.neuron2 = make_neuron(neuron, reset_each_frame)
        self.fc2 = SpikeConv2d(wide, channels, 1, neuron=neuron)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, u: Tensor) -> Tensor:
        u = self.neuron2(per_frame(self.fc1, self.neuron1(u)), norm=self.bn1)
        return per_frame(self.bn2, per_frame(self.fc2, u))


class TransformerBlock(nn.Module):
    """U' = U + Attention(U); U'' = U' + MLP(U'); as ``parts`` has it a third part comes first.

    Args:
        channels: C.
        attention_axes: one residual attention module for each entry: ``(("space_time",),)`` is
            joint, ``(("space",), ("time",))`` hierarchical, ``(("space", "time"),)`` factorized.

    The other arguments are those of the parts.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        attention_axes: tuple[tuple[Axes, ...], ...],
        kind: AttentionKind,
        constant_term: bool,
        mlp_ratio: int,
        drop_path: float,
        neuron: NeuronConfig,
        reset_each_frame: bool,
        parts: BlockConfig = _USUAL,
    ) -> None:
        super().__init__()
        self.token_conv: SpikingSepConv | PairPart | None = None
        if parts.token_conv == "spiking":
            size = parts.token_kernel_size
            self.token_conv = SpikingSepConv(channels, neuron, reset_each_frame, size)
        elif parts.token_conv == "pair":
            self.token_conv = PairPart(channels, neuron, reset_each_frame)
        self.attention = nn.ModuleList(
            Attention(
                channels,
                heads=heads,
                axes=axes,
                kind=kind,
                constant_term=constant_term,
                neuron=neuron,
                reset_each_frame=reset_each_frame,
                parts=parts,
            )
            for axes in attention_axes
        )
        self.mlp = MLP(channels, mlp_ratio, neuron, reset_each_frame)
        self.drop_path = StochasticDepth(drop_path)

        def scale(scaled: bool) -> nn.Module:
            return ChannelScale(channels) if scaled else nn.Identity()

        self.conv_scale = scale(parts.layer_scale and parts.token_conv == "spiking")
        self.attention_scales = nn.ModuleList(scale(parts.layer_scale) for _ in attention_axes)
        self.mlp_scale = scale(parts.layer_scale)

    def forward(self, u: Tensor) -> Tensor:
        if self.token_conv is not None:
            u = u + self.drop_path(self.conv_scale(self.token_conv(u)))
        for attention, scale in zip(self.attention, self.attention_scales, strict=True):
            u = u + self.drop_path(scale(attention(u)))
        return u + self.drop_path(self.mlp_scale(self.mlp(u)))

    def last_norms(self) -> list[nn.BatchNorm2d]:
        """The BN that closes each residual branch."""
        modules = cast(Iterable[Attention], self.attention)
        norms = [a.proj.bn_out for a in modules] + [self.mlp.bn2]
        if isinstance(self.token_conv, SpikingSepConv):
            norms.insert(0, self.token_conv.bn3)
        elif self.token_conv is not None:
            norms.insert(0, self.token_conv.conv.bn_out)
        return norms
