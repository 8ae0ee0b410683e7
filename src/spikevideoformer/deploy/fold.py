"""Re-parameterisation: a trained network without batch norms and without attention scales.

In evaluation every batch norm is a fixed affine map, so it disappears into the convolution before
it, or into the thresholds of the neuron behind it:

    Downsample, ChannelConv, MLP    BN into the weight and bias of its convolution
    SpikeProjection                 the same, in a segmentation head
    SepConv                         the same; dw 7x7 + pw + BN optionally into one dense 7x7
    RepConv and the BN around it    one dense 3x3 with zero padding and a bias, exact at the border
    two 1x1 in a row                one 1x1 with a bias
    factor of each channel of a     into the convolution that ends the part
    residual part
    1/D of normalised integers      into the weights that read them
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
    SpikeAttention,
    TransformerBlock,
    from_tokens,
    to_tokens,
)
from spikevideoformer.nn.conv import (
    ChannelConv,
    ChannelScale,
    ConvBlock,
    ConvPair,
    Downsample,
    PairPart,
    PlainConv,
    Projection,
    RepConv,
    SepConv,
    SpikeConv2d,
    SpikingSepConv,
    per_frame,
)
from spikevideoformer.nn.neuron import AnyNeuron, Neuron, SteppedNeuron
from spikevideoformer.ops.hamming import dot_attention, hamming_attention
from spikevideoformer.ops.lif import NeuronConfig, lif_reference
from spikevideoformer.ops.neuron_config import kinds_of_kernels

Form = Literal["dense", "factorised"]

TOLERANCE = 1e-9  # relative, of a merged part in float64; rounding gives about 1e-15


# --- Parts of a folded network --------------------------------------------------------------------
#
# The network is the one of ``nn``: merged convolutions stand in the places of their originals, and
# identities in those of batch norms. Two parts are others.


class ThresholdNeuron(SteppedNeuron):
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
        return super().forward(x)

    def start(self, x: Tensor) -> Tensor:
        return self.rest.to(x.dtype).reshape(-1, 1, 1).expand_as(x)

    def step(self, v: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes and membrane, in units of the sums (V / |gain|), for sums ``[B, C, H, W]``."""
        config = self.config
        # channels are followed by space
        sign, bias, threshold, rest = (
            z.to(x.dtype).reshape(-1, 1, 1)
            for z in (self.sign, self.bias, self.threshold, self.rest)
        )
        x = x * sign + bias
        gap = v - rest if config.v_start else v
        if config.decay_input:
            h = v + (x - gap) / config.tau
        elif not config.remembers:
            h = x
        else:  # v - v/tau is beta*v without a factor that is no power of two
            h = (gap if math.isinf(config.tau) else gap - gap / config.tau) + x
            h = h + rest if config.v_start else h
        if config.fires_integers:
            return self._fire_levels(h, threshold)
        fires = h >= threshold
        v = torch.where(fires, h - threshold if config.v_reset is None else rest, h)
        return fires.to(x.dtype), v

    def _fire_levels(self, h: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        spikes, v = torch.zeros_like(h), h
        level = threshold / 2
        for k in range(1, self.config.levels + 1):
            # round() sends k - 1/2 to the even neighbour, which is k for even k
            up = k % 2 == 0 or self.config.rounding == "half_up"
            fires = h >= level if up else h > level
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


class FoldedSpikeAttention(SpikeAttention):
    """q, k, v projections and neurons, integer sums, and a neuron with thresholds per channel."""

    def __init__(
        self, part: SpikeAttention, projections: list[nn.Module], out_neuron: ThresholdNeuron
    ) -> None:
        nn.Module.__init__(self)  # not the parent's, which would make convolutions
        self.heads, self.axes, self.kind = part.heads, part.axes, part.kind
        self.constant_term, self.levels = part.constant_term, part.levels
        self.channels, self.value_channels = part.channels, part.value_channels
        self.packed, self.backend = False, part.backend
        for name, projection in zip("qkv", projections, strict=True):
            self.add_module(f"{name}_conv", projection)
        self.q_neuron, self.k_neuron, self.v_neuron = part.q_neuron, part.k_neuron, part.v_neuron
        self.out_neuron = out_neuron

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.out_neuron(self.sums(*self.fired(x)))
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
        # the ops divide by the scale: what remains is a factor 1
        options: dict[str, Any] = {"scale": float(self.levels**2), "backend": self.backend}
        if self.kind == "hamming" and not self.constant_term:
            sums = hamming_attention(q_, k_, v_, levels=self.levels, **options)
        else:
            if self.constant_term:  # bits that are equal because both are 1, or both are 0
                q_, k_ = (torch.cat([z, self.levels - z], dim=-1) for z in (q_, k_))
            sums = dot_attention(q_, k_, v_, levels=self.levels, **options)
        return from_tokens(sums, v.shape, self.axes)


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
    for stage, module in folded.backbone.named_children():
        for i, block in enumerate(cast(nn.ModuleList, module.blocks)):
            if not isinstance(block, (ConvBlock, TransformerBlock)):
                raise ValueError(
                    f"backbone.{stage}.blocks.{i} is a {type(block).__name__}, which folding does "
                    "not know"
                )
    _without_hooks(folded)
    weight = model.head.fc.weight
    _Fold(repconv, sepconv, check, weight.dtype, weight.device).all_of(folded)
    for name, module in folded.named_modules():
        if isinstance(module, _BatchNorm):
            raise ValueError(f"{name} is a batch norm in a place that folding does not know")
    folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return folded.eval().requires_grad_(False)


class _Fold:
    """Folds the parts of a network in their places. ``name`` is where a part stands, for errors.

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
        self.scales: dict[nn.Module, nn.Module] = {}  # of residual parts that have one

    def all_of(self, model: nn.Module) -> None:
        """Every part, in order of execution."""
        for name, part in list(model.named_modules()):
            match part:
                case TransformerBlock():
                    self.take_scales(part)
                case Downsample() | SpikeProjection():
                    self.conv(part, "conv", "bn", part.neuron, name)
                case SpikingSepConv():
                    self.conv(part, "pw1", "bn1", part.neuron1, name)
                    self.conv(part, "dw", "bn2", part.neuron2, name)
                    self.conv(part, "pw2", "bn3", part.neuron3, name, self.scales.get(part))
                case PairPart():
                    conv = self.projection(part.conv, part.neuron, f"{name}.conv")
                    part.add_module("conv", conv)
                case SepConv():
                    self.conv(part, "pw1", "bn1", part.neuron1, name)
                    self.second_half(part, name)
                case ChannelConv():
                    self.conv(part, "conv1", "bn1", part.neuron1, name)
                    self.conv(part, "conv2", "bn2", part.neuron2, name)
                case MLP():
                    self.conv(part, "fc1", "bn1", part.neuron1, name)
                    self.conv(part, "fc2", "bn2", part.neuron2, name, self.scales.get(part))
                case Attention():
                    for i, step in enumerate(part.steps):
                        place = f"{name}.steps.{i}"
                        part.steps[i] = self.spike_attention(cast(SpikeAttention, step), place)
                    # it reads the spikes of the last step
                    last = cast(SpikeAttention, part.steps[-1]).out_neuron
                    scale = self.scales.get(part)
                    proj = self.projection(part.proj, last, f"{name}.proj", scale)
                    part.add_module("proj", proj)

    def take_scales(self, block: TransformerBlock) -> None:
        """The factors of its parts go into their last convolutions, of which they are told here."""
        parts = [(block.token_conv, block.conv_scale), (block.mlp, block.mlp_scale)]
        parts += zip(block.attention, block.attention_scales, strict=True)  # type: ignore[arg-type]
        for part, scale in parts:
            if part is not None and isinstance(scale, ChannelScale):
                self.scales[part] = scale
        block.conv_scale = block.mlp_scale = nn.Identity()
        block.attention_scales = nn.ModuleList(nn.Identity() for _ in block.attention)

    def conv(
        self,
        part: nn.Module,
        conv: str,
        norm: str,
        neuron: AnyNeuron | None,
        name: str,
        scale: nn.Module | None = None,
    ) -> None:
        """A convolution takes in its batch norm and scale, of which nothing is left."""
        bn = part.get_submodule(norm)
        if isinstance(bn, nn.Identity):
            return
        original = nn.Sequential(part.get_submodule(conv), bn, scale or nn.Identity())
        own = _float64(original)
        merged = _conv_like(own[0], *_times(fold_conv_bn(own[0], own[1]), scale))
        where = name if conv == "conv" else f"{name}.{conv}"
        part.add_module(conv, self.finish(original, merged, neuron, where))
        part.add_module(norm, nn.Identity())

    def second_half(self, part: SepConv, name: str) -> None:
        """dw, pw2 and bn2 of a SepConv: as one convolution, or with its norm taken in."""
        original = nn.Sequential(OrderedDict(dw=part.dw, pw2=part.pw2, bn2=part.bn2))
        own = _float64(original)
        if self.sepconv_form == "dense":
            merged = nn.Sequential(_conv_like(own.dw, *merge_sepconv(own)), nn.Identity())
        else:
            merged = nn.Sequential(own.dw, _conv_like(own.pw2, *fold_conv_bn(own.pw2, own.bn2)))
        self.finish(original, merged, part.neuron2, f"{name}.dw")
        for place, module in zip(("dw", "pw2", "bn2"), (*merged, nn.Identity()), strict=True):
            part.add_module(place, module)

    def spike_attention(self, part: SpikeAttention, name: str) -> FoldedSpikeAttention:
        gain = torch.full((part.value_channels,), part.scale / part.levels**2, dtype=torch.float64)
        shift = torch.zeros_like(gain)
        if part.kind == "hamming":
            scale, shift = bn_affine(part.bn)
            gain = gain * scale * (2 if part.constant_term else 1)  # its sums are halved
        out = part.out_neuron
        neuron = ThresholdNeuron(
            out.config, out.reset_each_frame, gain=gain, shift=shift, dtype=self.dtype
        )
        projections = [  # the neuron before them has the configuration of these
            self.projection(conv, part.q_neuron, f"{name}.{place}")
            for place, conv in part.named_children()
            if isinstance(conv, Projection)
        ]
        folded = FoldedSpikeAttention(part, projections, neuron)
        if self.check:
            self.check_sums(part, folded, f"{name}.out_neuron")
            self.check_neuron(neuron, f"{name}.out_neuron")
        neuron.to(self.device, self.dtype)
        return folded

    def projection(
        self, part: nn.Module, neuron: AnyNeuron, name: str, scale: nn.Module | None = None
    ) -> nn.Module:
        own = _float64(part)
        merged: nn.Module
        if isinstance(part, RepConv) and self.repconv_form != "dense":
            # a 1x1 convolution with zero padding has its bias outside the image
            pw1 = _conv_like(own.pw1, *fold_conv_bn(own.pw1, own.bn1), padding=1)
            factor, shift = bn_affine(own.bn_out)
            weight, bias = fold_conv_bn(own.pw2, own.bn2)
            last = factor[:, None, None, None] * weight, factor * bias + shift
            pw2 = _conv_like(own.pw2, *_times(last, scale))
            merged = nn.Sequential(OrderedDict(pw1=pw1, dw=own.dw, pw2=pw2))
        else:
            first = next(m for m in own.modules() if isinstance(m, nn.Conv2d))
            weight, bias = _times(merge_projection(own), scale)
            merged = _conv_like(first, weight, bias, padding=weight.shape[2] // 2)
        return self.finish(nn.Sequential(part, scale or nn.Identity()), merged, neuron, name)

    def finish(
        self, original: nn.Module, merged: nn.Module, neuron: AnyNeuron | None, name: str
    ) -> nn.Module:
        """Check a merged part that is still in float64, and give it the model's dtype."""
        if self.check:
            first = next(m for m in merged.modules() if isinstance(m, nn.Conv2d))
            # larger than the kernel, so that there are borders and an inside
            x = self.spikes(neuron, 2, first.in_channels, 9, 8)
            _compare(_float64(original)(x), merged(x), name)
        return merged.to(self.device, self.dtype)

    def spikes(self, neuron: AnyNeuron | None, *shape: int) -> Tensor:
        """Random spikes of a neuron, or pixels where there is none; float64."""
        if neuron is None:
            return torch.randn(shape, generator=self.generator, dtype=torch.float64)
        levels = neuron.config.levels
        return torch.randint(levels + 1, shape, generator=self.generator).double()

    def check_sums(self, part: SpikeAttention, folded: FoldedSpikeAttention, name: str) -> None:
        """Input current of the neuron: scaled and normalised sums against signed ones."""
        neuron = cast(ThresholdNeuron, folded.out_neuron)
        wide = part.value_channels
        q, k, v = (
            self.spikes(folded.q_neuron, 2, 2, width, 3, 2)
            for width in (part.channels, part.channels, wide)
        )
        expected = part.product(q, k, v)
        if part.kind == "hamming":
            expected = per_frame(_float64(part.bn), expected)
        scale, shift = (z.reshape(-1, 1, 1) for z in neuron.as_affine())
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
    weight = scale[:, None, None, None] * _double_kernel(conv)
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
    first = scale1[:, None] * _double_kernel(pair.conv1)[:, :, 0, 0]  # [m, c]
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
    first = scale1[:, None] * _double_kernel(rep.pw1)[:, :, 0, 0]  # [m, c]
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
    weight = _double(pw2) * _double_kernel(sep.dw)[:, 0]  # [o, m, 1, 1] x [m, 7, 7]
    return weight.to(pw2), bias


def _double(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float64)


def _double_kernel(conv: nn.Conv2d) -> Tensor:
    """What it multiplies the integers that it receives with."""
    return _double(conv.weight) * (conv.unit if isinstance(conv, SpikeConv2d) else 1.0)


def _times(conv: tuple[Tensor, Tensor], scale: nn.Module | None) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution, of which each output channel is scaled."""
    weight, bias = conv
    if not isinstance(scale, ChannelScale):
        return conv
    factor = _double(scale.weight).to(weight)
    return weight * factor[:, None, None, None], bias * factor


def _float64(module: nn.Module) -> Any:
    """A copy to compute with, in evaluation mode; of the type that went in."""
    return copy.deepcopy(module).to("cpu", torch.float64).eval()


def _without_hooks(model: nn.Module) -> None:
    """A copy has the hooks of its original, which watch that one."""
    for module in model.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()


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
