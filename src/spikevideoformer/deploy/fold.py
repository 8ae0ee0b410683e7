"""Re-parameterisation: a trained network without batch norms and without attention scales.

In evaluation every batch norm is a fixed affine map, so it disappears into the convolution before
it, or into the thresholds of the neuron behind it:

    Downsample, ChannelConv, MLP    BN into the weight and bias of its convolution
    SpikeProjection                 the same, in a head with maps
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
constants that are multiples of 1/4 and 1/8, which are shifts and additions. Joints are read off
heat maps by a softmax, which multiplies.

All merges are computed in float64 and cast back.
"""

import copy
from collections import OrderedDict
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # of BatchNorm2d and SyncBatchNorm

from spikevideoformer.deploy.folded import (
    FoldedSpikeAttention,
    FoldedSpikeVideoFormer,
    Form,
    ThresholdNeuron,
)
from spikevideoformer.deploy.merge import (
    bn_affine,
    fold_conv_bn,
    merge_projection,
    merge_sepconv,
    times,
)
from spikevideoformer.messages import require_known
from spikevideoformer.models.heads import SpikeProjection
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.attention import (
    MLP,
    Attention,
    SpikeAttention,
    TransformerBlock,
)
from spikevideoformer.nn.conv import (
    ChannelConv,
    ChannelScale,
    ConvBlock,
    Downsample,
    PairPart,
    Projection,
    RepConv,
    SepConv,
    SpikingSepConv,
    per_frame,
)
from spikevideoformer.nn.neuron import AnyNeuron, watch_neurons
from spikevideoformer.ops.lif import lif_reference
from spikevideoformer.ops.neuron_config import kinds_of_kernels

TOLERANCE = 1e-9  # relative, of a merged part in float64; rounding gives about 1e-15


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
        require_known(name, form, get_args(Form))
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
        merged = _conv_like(own[0], *times(fold_conv_bn(own[0], own[1]), scale))
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
        if part.constant_term:
            gain = gain * 2  # its sums are halved
        if part.bn is not None:
            scale, shift = bn_affine(part.bn)
            gain = gain * scale
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
            pw2 = _conv_like(own.pw2, *times(last, scale))
            merged = nn.Sequential(OrderedDict(pw1=pw1, dw=own.dw, pw2=pw2))
        else:
            first = next(m for m in own.modules() if isinstance(m, nn.Conv2d))
            weight, bias = times(merge_projection(own), scale)
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
        if part.bn is not None:
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
    expected, got = _spikes(model, video), _spikes(other, video)
    if expected.keys() != got.keys():
        odd = sorted(expected.keys() ^ got.keys())
        raise ValueError(f"the networks have different neurons, such as {odd[0]}")
    differ = {name: int((expected[name] != got[name]).sum()) for name in expected}
    shares = {name: differ[name] / expected[name].numel() for name in expected}
    shares["all"] = sum(differ.values()) / sum(s.numel() for s in expected.values())
    return shares


def _spikes(model: nn.Module, video: Tensor) -> dict[str, Tensor]:
    """Spikes of every neuron as bytes."""
    found: dict[str, Tensor] = {}
    with watch_neurons(model, lambda name, s: found.update({name: s.to(torch.uint8)})):
        model(video)
    return found
