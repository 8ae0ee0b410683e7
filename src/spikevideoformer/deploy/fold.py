"""Re-parameterisation: a trained network without batch norms and without attention scales.

In evaluation every batch norm is a fixed affine map, so it disappears into the convolution before
it, or into the thresholds of the neuron behind it:

    Downsample, ChannelConv, MLP    BN into the weight and bias of its convolution
    SpikeProjection                 the same, in a segmentation head
    SepConv                         the same; dw 7x7 + pw + BN optionally into one dense 7x7
    RepConv and the BN around it    one dense 3x3 with zero padding and a bias, exact at the border
    attention scale, BN, threshold  a threshold, a bias and a sign for each channel, so that the
                                    integer sums of the attention go into the neuron as they are

With dense RepConvs every product on the attention path then has a factor in {-1, 0, 1} or a power
of two (given that ``tau`` is one, as by default): additions, shifts and comparisons. Factorised
RepConvs keep fewer operations, but their depthwise and second pointwise convolutions read real
values. For Integer-LIF of D levels the spikes 0..D count as D binary sub-steps
(``unroll_integer_spikes``). The classification head is left as it is: its mean over space is no
part of the attention path. Of a segmentation head, only the bilinear upsampling multiplies: by
constants that are multiples of 1/4 and 1/8, which are shifts and additions.

All merges are computed in float64 and cast back.
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Self, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # of BatchNorm2d and SyncBatchNorm

from spikevideoformer.models.heads import SpikeProjection
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.attention import (
    MLP,
    Attention,
    Axes,
    SpikeAttention,
    TransformerBlock,
    from_tokens,
    to_tokens,
)
from spikevideoformer.nn.conv import (
    ChannelConv,
    ConvBlock,
    Downsample,
    RepConv,
    SepConv,
    per_frame,
)
from spikevideoformer.nn.neuron import AnyNeuron, Neuron
from spikevideoformer.ops.hamming import dot_attention, hamming_attention
from spikevideoformer.ops.lif import NeuronConfig, lif_reference
from spikevideoformer.ops.neuron_config import kinds_of_kernels
from spikevideoformer.shapes import AttentionKind

Form = Literal["dense", "factorised"]

TOLERANCE = 1e-9  # relative, of a merged part in float64; rounding gives about 1e-15


# --- Parts of a folded network --------------------------------------------------------------------


class FoldedDownsample(nn.Module):
    """[SN unless first] -> Conv(bias)."""

    def __init__(self, neuron: Neuron | None, conv: nn.Module) -> None:
        super().__init__()
        self.neuron = neuron
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        if self.neuron is not None:
            x = self.neuron(x)
        return per_frame(self.conv, x)


class FoldedProjection(nn.Module):
    """SN -> Conv(bias): what a SpikeProjection becomes."""

    def __init__(self, neuron: Neuron, conv: nn.Module) -> None:
        super().__init__()
        self.neuron = neuron
        self.conv = conv

    def forward(self, u: Tensor) -> Tensor:
        return per_frame(self.conv, self.neuron(u))


class FoldedBranch(nn.Module):
    """SN -> conv1 -> SN -> conv2: what SepConv, ChannelConv and MLP become.

    ``conv2`` of a factorised SepConv is a ``Sequential`` of ``dw`` and ``pw2``.
    """

    def __init__(self, neuron1: Neuron, conv1: nn.Module, neuron2: Neuron, conv2: nn.Module):
        super().__init__()
        self.neuron1, self.conv1, self.neuron2, self.conv2 = neuron1, conv1, neuron2, conv2

    def forward(self, x: Tensor) -> Tensor:
        x = per_frame(self.conv1, self.neuron1(x))
        return per_frame(self.conv2, self.neuron2(x))


class FoldedConvBlock(nn.Module):
    """U' = U + SepConv(U); U'' = U' + ChannelConv(U')."""

    def __init__(self, sep_conv: FoldedBranch, channel_conv: FoldedBranch) -> None:
        super().__init__()
        self.sep_conv, self.channel_conv = sep_conv, channel_conv

    def forward(self, u: Tensor) -> Tensor:
        u = u + self.sep_conv(u)
        return u + self.channel_conv(u)


class ThresholdNeuron(Neuron):
    """A neuron with a sign, a bias and a threshold of each channel, for inference.

    It fires what a neuron of ``config`` fires on ``gain * A + shift``, without the product. Where
    that neuron has the membrane V, this one has V / |gain|:

        X[t] = sign * A[t] + bias         bias = shift / |gain|
        threshold = v_threshold / |gain|, rest = v_reset / |gain|

    and the rest is :func:`lif_reference` with these. A channel without gain keeps the thresholds
    of ``config`` and sees its shift only. An Integer-LIF fires the number of levels that its
    membrane reaches, (k - 1/2) thresholds for k = 1..D, and subtracts a threshold for each:
    comparisons and subtractions instead of a division and a product.

    Thresholds stay in float32 at least, also where the model is cast to half precision: the sums
    they are compared with need more than 8 bits.

    Args:
        config, reset_each_frame: as :class:`Neuron`.
        gain, shift: ``[C]``, float64.
        dtype: of the model; a gain so small that a threshold overflows in it counts as none.
    """

    sign: Tensor
    bias: Tensor
    threshold: Tensor
    rest: Tensor

    def __init__(
        self,
        config: NeuronConfig,
        reset_each_frame: bool,
        *,
        gain: Tensor,
        shift: Tensor,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(config, reset_each_frame)
        finest = torch.promote_types(dtype, torch.float32)
        largest = torch.finfo(finest).max / 2  # a membrane may lie above what it is made of
        size = gain.abs()
        values = torch.stack([torch.full_like(shift, config.v_threshold), shift.abs()])
        values = torch.cat([values, torch.full_like(values[:1], abs(config.v_start))])
        usable = (size > 0) & (values.amax(0) * config.levels <= size * largest)
        unit = torch.where(usable, size, 1.0)
        self.register_buffer("sign", gain.sign() * usable)
        self.register_buffer("bias", shift / unit)
        self.register_buffer("threshold", config.v_threshold / unit)
        self.register_buffer("rest", config.v_start / unit)

    def as_affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift ``[C]`` for kernels that have multipliers.

        An ordinary neuron of ``config`` fires the same on ``scale * A + shift``.
        """
        unit = self.config.v_threshold / self.threshold
        return self.sign * unit, self.bias * unit

    def forward(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        """Spikes ``[T, B, C, ...]`` for integer sums ``[T, B, C, ...]``."""
        if norm is not None:
            raise ValueError("a folded neuron has its batch norm in its thresholds; pass no norm")
        if self.reset_each_frame:
            return self.integrate(x.unsqueeze(0))[0].squeeze(0)
        return self.integrate(x)[0]

    def run(self, x: Tensor, v_init: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As :meth:`Neuron.run`; membranes are in units of the sums, V / |gain|."""
        if self.reset_each_frame:
            raise ValueError("reset_each_frame neurons have no state; use forward")
        return self.integrate(x, v_init)

    def integrate(self, x: Tensor, v_init: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Spikes ``[T, ..., C, H, W]`` and last membrane for sums of that shape."""
        config = self.config
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        # [C] -> [C, 1, 1]: channels are followed by space
        sign, bias, threshold, rest = (
            z.to(x.dtype).reshape(-1, 1, 1)
            for z in (self.sign, self.bias, self.threshold, self.rest)
        )
        v = rest.expand_as(x[0]) if v_init is None else v_init.to(x.dtype)
        spikes = []
        for a in x:
            h = self._charge(v, a * sign + bias, rest)
            if config.kind == "integer_lif":
                s, v = self._fire_levels(h, threshold)
            else:
                fires = h >= threshold
                v = torch.where(fires, h - threshold if config.v_reset is None else rest, h)
                s = fires.to(x.dtype)
            spikes.append(s)
        return torch.stack(spikes), v

    def _charge(self, v: Tensor, x: Tensor, rest: Tensor) -> Tensor:
        # v - v/tau is beta*v without a factor that is no power of two
        tau, has_rest = self.config.tau, self.config.v_start != 0
        gap = v - rest if has_rest else v
        if self.config.decay_input:
            return v + (x - gap) / tau
        h = (gap if math.isinf(tau) else gap - gap / tau) + x
        return h + rest if has_rest else h

    def _fire_levels(self, h: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        spikes, v = torch.zeros_like(h), h
        level = threshold / 2
        for k in range(1, self.config.levels + 1):
            # round() sends k - 1/2 to the even neighbour, which is k for even k
            fires = h >= level if k % 2 == 0 else h > level
            spikes = spikes + fires
            v = torch.where(fires, v - threshold, v)
            level = level + threshold
        return spikes, v

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, kept in before.items():
            now = self._buffers[name]
            assert now is not None and kept is not None
            if now.dtype in (torch.float16, torch.bfloat16):
                self._buffers[name] = kept.to(now.device, torch.float32)
        return self


class FoldedSpikeAttention(nn.Module):
    """q, k, v projections and neurons, integer sums, and a neuron with thresholds per channel."""

    def __init__(
        self,
        *,
        convs: tuple[nn.Module, nn.Module, nn.Module],
        neurons: tuple[Neuron, Neuron, Neuron],
        out_neuron: ThresholdNeuron,
        heads: int,
        axes: Axes,
        kind: AttentionKind,
        constant_term: bool,
        levels: int,
    ) -> None:
        super().__init__()
        self.heads, self.axes, self.kind, self.constant_term = heads, axes, kind, constant_term
        self.levels = levels
        self.q_conv, self.k_conv, self.v_conv = convs
        self.q_neuron, self.k_neuron, self.v_neuron = neurons
        self.out_neuron = out_neuron

    def forward(self, x: Tensor) -> Tensor:
        q = self.q_neuron(per_frame(self.q_conv, x))  # [T, B, C, H, W]
        k = self.k_neuron(per_frame(self.k_conv, x))
        v = self.v_neuron(per_frame(self.v_conv, x))
        spikes: Tensor = self.out_neuron(self.sums(q, k, v))
        return spikes.to(x.dtype)

    def sums(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The integers of the attention, before any scale; spikes and sums ``[T, B, C, H, W]``.

        Equation (D = ``levels``):
            (2Q-D) [ (2K-D)^T V ]                      hamming
            Q [ K^T V ] + (D-Q) [ (D-K)^T V ]          with constant term: half of the above plus
                                                       D^2 d sum_j V_j, without a factor d
            Q [ K^T V ]                                dot
        """
        q_, k_, v_ = (to_tokens(z, self.heads, self.axes) for z in (q, k, v))
        scale = float(self.levels**2)  # the ops divide by it: what remains is a factor 1
        if self.kind == "hamming" and not self.constant_term:
            sums = hamming_attention(q_, k_, v_, scale=scale, levels=self.levels)
        else:
            if self.constant_term:  # bits that are equal because both are 1, or both are 0
                q_, k_ = (torch.cat([z, self.levels - z], dim=-1) for z in (q_, k_))
            sums = dot_attention(q_, k_, v_, scale=scale, levels=self.levels)
        return from_tokens(sums, q.shape, self.axes)


class FoldedAttention(nn.Module):
    """X = SN(U), one :class:`FoldedSpikeAttention` after another, then the output projection."""

    def __init__(self, neuron: Neuron, steps: list[FoldedSpikeAttention], proj: nn.Module) -> None:
        super().__init__()
        self.neuron = neuron
        self.steps = nn.ModuleList(steps)
        self.proj = proj

    def forward(self, u: Tensor) -> Tensor:
        x = self.neuron(u)
        for step in self.steps:
            x = step(x)
        return per_frame(self.proj, x)


class FoldedTransformerBlock(nn.Module):
    """U' = U + Attention(U) for each attention; U'' = U' + MLP(U')."""

    def __init__(self, attention: list[FoldedAttention], mlp: FoldedBranch) -> None:
        super().__init__()
        self.attention = nn.ModuleList(attention)
        self.mlp = mlp

    def forward(self, u: Tensor) -> Tensor:
        for attention in self.attention:
            u = u + attention(u)
        return u + self.mlp(u)


class FoldedSpikeVideoFormer(SpikeVideoFormer):
    """A network for inference only, made by :func:`fold_for_inference`.

    Modules keep their names where they still exist (neurons all do), and neurons keep their
    firing rates. It cannot be trained or saved: keep the original for that.
    """

    def __init__(self, model: SpikeVideoFormer, repconv: Form, sepconv: Form) -> None:
        nn.Module.__init__(self)  # not the parent's, which would make a fresh network
        self.config, self.task, self.num_classes = model.config, model.task, model.num_classes
        self.classes, self.palette, self.body = model.classes, model.palette, model.body
        self.clip = copy.deepcopy(model.clip)
        self.temperature, self.familiarity = model.temperature, model.familiarity
        self.backbone = copy.deepcopy(model.backbone)
        self.head = copy.deepcopy(model.head)
        self.repconv, self.sepconv = repconv, sepconv

    def train(self, mode: bool = True) -> Self:
        """Evaluation mode is the only one."""
        if mode:
            raise ValueError(
                "a folded model cannot train: it has no batch norms; train the original and fold "
                "it again"
            )
        return super().train(False)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Refused: folding is quick, and the original is what others can use."""
        raise ValueError(
            "a folded model is not saved: save the original with its save_pretrained, and call "
            "fold_for_inference after loading it"
        )


# --- Folding --------------------------------------------------------------------------------------


@torch.no_grad()
def fold_for_inference(
    model: SpikeVideoFormer,
    *,
    repconv: Form = "dense",
    sepconv: Form = "factorised",
    check: bool = True,
) -> FoldedSpikeVideoFormer:
    """The same network with its batch norms and attention scales folded away.

    It computes what ``model.eval()`` computes, from the running statistics: equal in float64 up to
    1e-9; in float32 rounding differs, which flips the odd spike (:func:`flipped_spikes`).

    Args:
        model: left as it is, in whichever mode.
        repconv: ``dense``, one 3x3 convolution that reads spikes; or ``factorised``, 1x1, depthwise
            3x3 and 1x1, fewer operations of which two convolutions read real values.
        sepconv: ``factorised``, depthwise 7x7 and 1x1; or ``dense``, one 7x7 that reads spikes at
            up to 49 times the operations.
        check: compare every merged part with the original in float64, on random spikes.

    Returns:
        A network for inference on the device and in the dtype of ``model``.

    Raises:
        ValueError: no SpikeVideoFormer, one that is folded already, does not spike or has parts
            unknown here, or an unknown form.
        RuntimeError: a merged part differs from its original by more than 1e-9, relatively; the
            message names it.
    """
    if not isinstance(model, SpikeVideoFormer):
        raise ValueError(f"got {type(model).__name__}; fold_for_inference takes a SpikeVideoFormer")
    if isinstance(model, FoldedSpikeVideoFormer):
        raise ValueError("the model is folded already; fold the original with other options")
    if not model.config.neuron.kernels:
        raise ValueError(
            f"folding is for spiking networks of kind {kinds_of_kernels()}, and the neurons of "
            f"this one are of kind {model.config.neuron.kind}; use the model as it is"
        )
    for name, form in (("repconv", repconv), ("sepconv", sepconv)):
        if form not in get_args(Form):
            raise ValueError(
                f"{name} {form!r} is unknown; choose one of {', '.join(get_args(Form))}"
            )
    folded = FoldedSpikeVideoFormer(model, repconv, sepconv)
    weight = model.head.fc.weight
    fold = _Fold(repconv, sepconv, check, weight.dtype, weight.device)
    for name, stage in zip(
        ("stage1a", "stage1b", "stage2", "stage3", "stage4"), model.backbone.stages(), strict=True
    ):
        place = folded.backbone.get_submodule(name)
        where = f"backbone.{name}"
        place.add_module("downsample", fold.downsample(stage.downsample, f"{where}.downsample"))
        blocks = [fold.block(block, f"{where}.blocks.{i}") for i, block in enumerate(stage.blocks)]
        place.add_module("blocks", nn.ModuleList(blocks))
    for name, part in model.head.named_children():
        if isinstance(part, SpikeProjection):
            folded.head.add_module(name, fold.projection(part, f"head.{name}"))
    for name, module in folded.named_modules():
        if isinstance(module, _BatchNorm):
            raise ValueError(f"{name} is a batch norm in a place that folding does not know")
    folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return folded.eval().requires_grad_(False)


class _Fold:
    """Makes folded parts. ``name`` is where the part stands, for errors.

    Merges are computed in float64 on the CPU (some devices have no float64).
    """

    def __init__(
        self,
        repconv: Form,
        sepconv: Form,
        check: bool,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.repconv_form, self.sepconv_form, self.check = repconv, sepconv, check
        self.dtype, self.device = dtype, device
        self.generator = torch.Generator().manual_seed(0)

    def downsample(self, part: Downsample, name: str) -> FoldedDownsample:
        neuron = None if part.neuron is None else _fresh(part.neuron)
        return FoldedDownsample(neuron, self.conv(part.conv, part.bn, neuron, name))

    def projection(self, part: SpikeProjection, name: str) -> FoldedProjection:
        neuron = _fresh(part.neuron)
        return FoldedProjection(neuron, self.conv(part.conv, part.bn, neuron, name))

    def block(self, block: nn.Module, name: str) -> nn.Module:
        if isinstance(block, ConvBlock):
            return FoldedConvBlock(
                self.sep_conv(block.sep_conv, f"{name}.sep_conv"),
                self.channel_conv(block.channel_conv, f"{name}.channel_conv"),
            )
        if isinstance(block, TransformerBlock):
            attention = [
                self.attention(cast(Attention, part), f"{name}.attention.{i}")
                for i, part in enumerate(block.attention)
            ]
            return FoldedTransformerBlock(attention, self.mlp(block.mlp, f"{name}.mlp"))
        raise ValueError(f"{name} is a {type(block).__name__}, which folding does not know")

    def sep_conv(self, part: SepConv, name: str) -> FoldedBranch:
        neuron1, neuron2 = _fresh(part.neuron1), _fresh(part.neuron2)
        original = nn.Sequential(part.dw, part.pw2, part.bn2)
        own = _float64(part)
        conv2: nn.Module
        if self.sepconv_form == "dense":
            conv2 = _conv_like(own.dw, *merge_sepconv(own))
        else:
            pw2 = _conv_like(own.pw2, *fold_conv_bn(own.pw2, own.bn2))
            conv2 = nn.Sequential(OrderedDict(dw=own.dw, pw2=pw2))
        return FoldedBranch(
            neuron1,
            self.conv(part.pw1, part.bn1, neuron1, f"{name}.pw1"),
            neuron2,
            self.finish(original, conv2, neuron2, f"{name}.dw"),
        )

    def channel_conv(self, part: ChannelConv, name: str) -> FoldedBranch:
        neuron1, neuron2 = _fresh(part.neuron1), _fresh(part.neuron2)
        return FoldedBranch(
            neuron1,
            self.conv(part.conv1, part.bn1, neuron1, f"{name}.conv1"),
            neuron2,
            self.conv(part.conv2, part.bn2, neuron2, f"{name}.conv2"),
        )

    def mlp(self, part: MLP, name: str) -> FoldedBranch:
        neuron1, neuron2 = _fresh(part.neuron1), _fresh(part.neuron2)
        return FoldedBranch(
            neuron1,
            self.conv(part.fc1, part.bn1, neuron1, f"{name}.fc1"),
            neuron2,
            self.conv(part.fc2, part.bn2, neuron2, f"{name}.fc2"),
        )

    def attention(self, part: Attention, name: str) -> FoldedAttention:
        steps = [
            self.spike_attention(cast(SpikeAttention, step), f"{name}.steps.{i}")
            for i, step in enumerate(part.steps)
        ]
        # the projection reads the spikes of the last step
        proj = self.rep_conv(part.proj, steps[-1].out_neuron, f"{name}.proj")
        return FoldedAttention(_fresh(part.neuron), steps, proj)

    def spike_attention(self, part: SpikeAttention, name: str) -> FoldedSpikeAttention:
        neuron = part.q_neuron  # the one before has the same configuration
        channels = part.q_conv.pw1.in_channels
        gain = torch.full((channels,), part.scale / part.levels**2, dtype=torch.float64)
        shift = torch.zeros_like(gain)
        if part.kind == "hamming":
            scale, shift = bn_affine(part.bn)
            gain = gain * scale * (2 if part.constant_term else 1)  # its sums are halved
        out = part.out_neuron
        folded = FoldedSpikeAttention(
            convs=(
                self.rep_conv(part.q_conv, neuron, f"{name}.q_conv"),
                self.rep_conv(part.k_conv, neuron, f"{name}.k_conv"),
                self.rep_conv(part.v_conv, neuron, f"{name}.v_conv"),
            ),
            neurons=(_fresh(part.q_neuron), _fresh(part.k_neuron), _fresh(part.v_neuron)),
            out_neuron=ThresholdNeuron(
                out.config, out.reset_each_frame, gain=gain, shift=shift, dtype=self.dtype
            ),
            heads=part.heads,
            axes=part.axes,
            kind=part.kind,
            constant_term=part.constant_term,
            levels=part.levels,
        )
        if self.check:
            self.check_sums(part, folded, f"{name}.out_neuron")
            self.check_neuron(folded.out_neuron, f"{name}.out_neuron")
        folded.out_neuron.to(self.device, self.dtype)
        return folded

    def rep_conv(self, part: RepConv, neuron: Neuron, name: str) -> nn.Module:
        own = _float64(part)
        merged: nn.Module
        if self.repconv_form == "dense":
            merged = _conv_like(own.dw, *merge_repconv(own), padding=1)
        else:
            # a 1x1 convolution with zero padding has its bias outside the image
            pw1 = _conv_like(own.pw1, *fold_conv_bn(own.pw1, own.bn1), padding=1)
            scale, shift = bn_affine(own.bn_out)
            weight, bias = fold_conv_bn(own.pw2, own.bn2)
            pw2 = _conv_like(own.pw2, scale[:, None, None, None] * weight, scale * bias + shift)
            merged = nn.Sequential(OrderedDict(pw1=pw1, dw=own.dw, pw2=pw2))
        return self.finish(part, merged, neuron, name)

    def conv(self, conv: nn.Conv2d, norm: nn.Module, neuron: Neuron | None, name: str) -> nn.Module:
        """A convolution with its batch norm."""
        original = nn.Sequential(conv, norm)
        own, bn = _float64(original)
        merged = _conv_like(own, *fold_conv_bn(own, bn))
        return self.finish(original, merged, neuron, name)

    def finish(
        self, original: nn.Module, merged: nn.Module, neuron: Neuron | None, name: str
    ) -> nn.Module:
        """Check a merged part that is still in float64, and give it the model's dtype."""
        if self.check:
            first = next(m for m in merged.modules() if isinstance(m, nn.Conv2d))
            # larger than the kernel, so that there are borders and an inside
            x = self.spikes(neuron, 2, first.in_channels, 9, 8)
            _compare(_float64(original)(x), merged(x), name)
        return merged.to(self.device, self.dtype)

    def spikes(self, neuron: Neuron | None, *shape: int) -> Tensor:
        """Random spikes of a neuron, or pixels where there is none; float64."""
        if neuron is None:
            return torch.randn(shape, generator=self.generator, dtype=torch.float64)
        levels = neuron.config.levels
        return torch.randint(levels + 1, shape, generator=self.generator).double()

    def check_sums(self, part: SpikeAttention, folded: FoldedSpikeAttention, name: str) -> None:
        """Input current of the neuron: scaled and normalised sums against signed ones."""
        channels = folded.out_neuron.sign.numel()
        q, k, v = (self.spikes(folded.q_neuron, 2, 2, channels, 3, 2) for _ in range(3))
        tokens = [to_tokens(z, part.heads, part.axes) for z in (q, k, v)]
        if part.kind == "hamming":
            y = hamming_attention(
                *tokens,
                scale=part.scale,
                constant_term=part.constant_term,
                levels=part.levels,
            )
            expected = per_frame(_float64(part.bn), from_tokens(y, q.shape, part.axes))
        else:
            y = dot_attention(*tokens, scale=part.scale, levels=part.levels)
            expected = from_tokens(y, q.shape, part.axes)
        scale, shift = (z.reshape(-1, 1, 1) for z in folded.out_neuron.as_affine())
        _compare(expected, scale * folded.sums(q, k, v) + shift, name)

    def check_neuron(self, neuron: ThresholdNeuron, name: str) -> None:
        """Spikes and membranes against the ordinary neuron, on currents about its threshold."""
        config = neuron.config
        scale, shift = (z.reshape(-1, 1, 1) for z in neuron.as_affine())
        shape = (5, 1, neuron.sign.numel(), 4, 4)
        current = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        current = 3 * config.v_threshold * config.levels * current
        silent = scale == 0
        sums = torch.where(silent, current, (current - shift) / torch.where(silent, 1, scale))
        spikes, v = lif_reference(scale * sums + shift, config)
        own_spikes, own_v = neuron.integrate(sums)
        unit = (config.v_threshold / neuron.threshold).reshape(-1, 1, 1)
        _compare(spikes, own_spikes, name)
        _compare(v, unit * own_v, name)


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
    weight = scale[:, None, None, None] * _double(conv.weight)
    bias = shift if conv.bias is None else scale * _double(conv.bias) + shift
    return weight.to(conv.weight), bias.to(conv.weight)


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
    first = scale1[:, None] * _double(rep.pw1.weight)[:, :, 0, 0]  # [m, c]
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
    weight = _double(pw2) * _double(sep.dw.weight)[:, 0]  # [o, m, 1, 1] x [m, 7, 7]
    return weight.to(pw2), bias


def _double(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float64)


def _float64(module: nn.Module) -> Any:
    """A copy to compute with, in evaluation mode; of the type that went in."""
    return copy.deepcopy(module).to("cpu", torch.float64).eval()


def _fresh(neuron: AnyNeuron) -> Neuron:
    assert isinstance(neuron, Neuron)  # fold_for_inference refuses others
    return Neuron(neuron.config, neuron.reset_each_frame)


def _conv_like(
    conv: nn.Conv2d, weight: Tensor, bias: Tensor, padding: int | None = None
) -> nn.Conv2d:
    """A convolution with the stride of ``conv``, and other weights ``[out, in/groups, kh, kw]``."""
    out_channels, per_group = weight.shape[:2]
    groups = conv.groups if per_group == conv.weight.shape[1] else 1
    new = nn.Conv2d(
        per_group * groups,
        out_channels,
        cast(tuple[int, int], tuple(weight.shape[2:])),
        stride=cast(tuple[int, int], conv.stride),
        padding=cast(tuple[int, int], conv.padding) if padding is None else padding,
        groups=groups,
        dtype=weight.dtype,
        device="meta",  # no random numbers drawn
    )
    new.weight = nn.Parameter(weight.detach().contiguous())
    new.bias = nn.Parameter(bias.detach().clone())
    return new


def _compare(expected: Tensor, got: Tensor, name: str) -> None:
    largest = expected.abs().amax()
    error = (got - expected).abs().amax()
    if not error <= TOLERANCE * largest:  # NaN fails too
        raise RuntimeError(
            f"{name}: merged and original differ by {error:.1e} where values reach {largest:.1e}; "
            "look for NaN, infinite or extreme weights and statistics in it"
        )


# --- Comparing ------------------------------------------------------------------------------------


@torch.no_grad()
def flipped_spikes(
    model: SpikeVideoFormer, other: SpikeVideoFormer, video: Tensor
) -> dict[str, float]:
    """Share of spikes that differ between two forms of a network, by neuron, on one input.

    Args:
        model: a network in evaluation mode.
        other: one with the same neurons, such as its folded form.
        video: ``[B, T, C, H, W]``.

    Returns:
        For each neuron in order of execution, positions that differ over all positions (neurons x
        frames x clips), in [0, 1]; and the share over all neurons together under ``"all"``.
    """
    with _spikes(model) as expected:
        model(video)
    with _spikes(other) as got:
        other(video)
    if expected.keys() != got.keys():
        odd = sorted(expected.keys() ^ got.keys())
        raise ValueError(f"the networks have different neurons, such as {odd[0]}")
    differ = {name: int((expected[name] != got[name]).sum()) for name in expected}
    shares = {name: differ[name] / expected[name].numel() for name in expected}
    shares["all"] = sum(differ.values()) / sum(s.numel() for s in expected.values())
    return shares


@contextmanager
def _spikes(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Spikes of every neuron as bytes, while the context is open."""
    spikes: dict[str, Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, Neuron):

            def keep(_module: nn.Module, _args: object, out: Tensor, name: str = name) -> None:
                spikes[name] = out.to(torch.uint8)

            handles.append(module.register_forward_hook(keep))
    try:
        yield spikes
    finally:
        for handle in handles:
            handle.remove()
