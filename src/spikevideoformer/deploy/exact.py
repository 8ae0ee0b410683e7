"""Parts of a network whose results are the same bits everywhere; the engine puts them together.

A convolution of spikes has integer weights and exact sums (``ops/exact_conv.py``), whichever unit
adds them up. What reads real values (pixels, features before a linear layer, membranes between
pixels) is added up in float64 in one order. So nothing depends on what else is in a batch, on
where a clip is cut, on threads or on the processor.
"""

import copy
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevideoformer.deploy.int8 import Int8Digits, int8_available
from spikevideoformer.deploy.merge import fold_conv_bn, merge_projection, times
from spikevideoformer.models.heads import Head, RealValues, SpikeProjection
from spikevideoformer.nn.conv import Projection, SepConv, kernel_of
from spikevideoformer.ops.exact_conv import (
    FLOAT64_EXACT,
    INT32_EXACT,
    LARGEST,
    Float32Digits,
    IntegerWeights,
    as_integers,
    events_available,
    fixed_order_conv,
    fixed_order_sum,
    in_powers_of_two,
    kernels,
    largest_sums,
    quantise_weight,
    scaled,
)
from spikevideoformer.ops.unroll import unrolled_conv
from spikevideoformer.ops.upsample import upsample

Unit = Literal["auto", "events", "int8", "float32", "sub_steps"]
UNIT: Unit = "auto"
"""What adds up spikes; the bits are the same. ``auto``: one digit of 8 bits by int8 convolutions
(few spikes into wide layers by events), more bits by events (integer spikes into thin layers by
float32 convolutions), on CUDA int8 convolutions always (docs/speed.md says why). ``sub_steps``: by
D binary convolutions (``ops/unroll.py``), what hardware of one spike does, for comparisons."""

THIN = 40
"""Output channels up to which integer spikes are added up faster by float32 convolutions: a vector
of events is half empty there, and a spike of 3 is three events."""

WIDE = 256
"""Output channels from which few spikes are added up faster by events than by int8 convolutions:
below that, listing the spikes of a pixel costs too much of what is saved."""

Pair = tuple[int, int]
Sums = Callable[[Tensor], Tensor]
SeveralSums = Callable[[Tensor], tuple[Tensor, ...]]


def adder(
    convs: Sequence[IntegerWeights],
    stride: Pair,
    padding: Pair,
    device: torch.device,
    unit: Unit | None,
) -> SeveralSums:
    """What makes float32 sums of the same byte spikes, by the best unit of a device.

    Args:
        convs: weights of convolutions of one group.
        stride: of rows and columns.
        padding: of rows and columns.
        device: of the spikes.
        unit: one in particular; None for :data:`UNIT`.

    Raises:
        ValueError: the unit is not available there.
    """
    unit = UNIT if unit is None else unit
    if len({weights.integers.shape for weights in convs}) > 1:  # nothing is shared
        own = [adder([weights], stride, padding, device, unit) for weights in convs]
        return lambda spikes: tuple(sums(spikes)[0] for sums in own)
    levels = convs[0].levels
    on_cpu = device.type == "cpu"
    one_digit = max(int(weights.integers.abs().max()) for weights in convs) <= 127
    if unit == "auto":
        if not on_cpu or (one_digit and int8_available(levels) is None):
            wide = sum(len(weights.integers) for weights in convs) >= WIDE
            if on_cpu and wide and events_available() is None:
                return _DenseOrEvents(convs, stride, padding)
            unit = "int8"
        else:
            unit = "float32" if events_available() else "events"
            if levels > 1 and len(convs[0].integers) <= THIN:
                digits = [Float32Digits(weights, stride, padding) for weights in convs]
                if all(sums.count <= 2 for sums in digits):
                    return _each(digits)
    if unit == "sub_steps":
        return _each([_by_sub_steps(weights, stride, padding) for weights in convs])
    if unit == "int8":
        return _each([Int8Digits(weights, stride, padding, device=device) for weights in convs])
    if not on_cpu:
        raise ValueError(f"only int8 convolutions are exact on {device}; got unit {unit}")
    if unit == "float32":
        return _each([Float32Digits(weights, stride, padding) for weights in convs])
    if reason := events_available():
        raise ValueError(f"spikes cannot be added up by events: {reason}")
    return _by_events(convs, stride, padding)


def _each(convs: Sequence[Sums]) -> SeveralSums:
    return lambda spikes: tuple(conv(spikes) for conv in convs)


def _by_events(convs: Sequence[IntegerWeights], stride: Pair, padding: Pair) -> SeveralSums:
    """One pass over the spikes for all."""
    integers = torch.cat([weights.integers for weights in convs])
    made = kernels().EventConv(integers, convs[0].levels, stride, padding, outputs=len(convs))
    return cast(SeveralSums, made)


class _DenseOrEvents:
    """Sums of 8-bit weights by int8 convolutions, or by events where few neurons fired.

    The sums are the same; how many fired is estimated at each call, from some of the places.
    """

    def __init__(self, convs: Sequence[IntegerWeights], stride: Pair, padding: Pair) -> None:
        self.convs, self.form = convs, (stride, padding)
        self.dense = _each([Int8Digits(weights, stride, padding) for weights in convs])
        self.events: SeveralSums | None = None  # takes memory, and may never be needed

    def __call__(self, spikes: Tensor) -> tuple[Tensor, ...]:
        some = spikes if spikes.shape[3] <= 8 else spikes[..., 1::4, 1::4]
        if float(some.float().mean()) >= _break_even():
            return self.dense(spikes)
        if self.events is None:
            self.events = _by_events(self.convs, *self.form)
        return self.events(spikes)


@cache
def _break_even() -> float:
    """Spikes of a neuron below which events are faster, as one layer has it on this processor.

    It is measured once in a process, and decides nothing but the time that is taken.
    """
    rate = 0.125
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(2, WIDE, 14, 14, generator=generator) < rate).to(torch.uint8)
    spikes = spikes.contiguous(memory_format=torch.channels_last)
    weights = as_integers(torch.randn(2 * WIDE, WIDE, 3, 3, generator=generator), 8)
    seconds = []
    for conv in (Int8Digits(weights, padding=(1, 1)), _by_events([weights], (1, 1), (1, 1))):
        conv(spikes)
        took = []
        for _ in range(3):
            start = time.perf_counter()
            conv(spikes)
            took.append(time.perf_counter() - start)
        seconds.append(min(took))
    return rate * seconds[0] / seconds[1]


class ExactConvs:
    """Convolutions of the same byte spikes; the currents of each are ``fma(sums, *norm)``.

    Args:
        parts: real-valued weights ``[C', C, kh, kw]``, in float64 where they were merged, and
            bias ``[C']`` of each.
        bits: of a weight.
        levels: the largest spike.
        stride: of rows and columns.
        padding: of rows and columns.
        device: of the spikes.
        unit: see :func:`adder`.
        groups: of channels that do not mix: 1, or, of one convolution, as many as channels.

    Attributes:
        weights: of each, as integers.
        norms: unit and bias of each output channel, float32.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Tensor, Tensor]],
        *,
        bits: int,
        levels: int,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        device: torch.device | None = None,
        unit: Unit | None = None,
        groups: int = 1,
    ) -> None:
        device = torch.device("cpu") if device is None else device
        self.weights = [as_integers(weight, bits, levels=levels) for weight, _ in parts]
        self.norms = [
            (weights.unit.to(device), bias.detach().float().to(device))
            for weights, (_, bias) in zip(self.weights, parts, strict=True)
        ]
        if groups == 1:
            self.sums = adder(self.weights, stride, padding, device, unit)
        else:
            (weights,) = self.weights
            self.sums = _each([depthwise_adder(weights, stride, padding, device)])

    def __call__(self, spikes: Tensor) -> tuple[Tensor, ...]:
        """Sums rounded to float32, each ``[N, C', H', W']``, for uint8 ``[N, C, H, W]``."""
        return self.sums(spikes)


def depthwise_adder(
    weights: IntegerWeights, stride: Pair, padding: Pair, device: torch.device
) -> Sums:
    """What makes float32 sums of byte spikes where channels do not mix; arguments as `adder`."""
    if UNIT == "sub_steps":
        return _by_sub_steps(weights, stride, padding, len(weights.integers))
    if device.type == "cpu" and events_available() is None:
        made = kernels().DepthwiseSums(weights.integers, weights.levels, stride, padding)
        return cast(Sums, made)
    kernel = weights.integers.to(device, torch.float64)
    return lambda spikes: F.conv2d(
        spikes.double(), kernel, None, stride, padding, groups=len(kernel)
    ).float()


def _by_sub_steps(weights: IntegerWeights, stride: Pair, padding: Pair, groups: int = 1) -> Sums:
    geometry = stride, padding, groups

    def sums(spikes: Tensor) -> Tensor:
        integers = weights.integers.to(spikes.device)
        steps = unrolled_conv(spikes, integers, None, *geometry, levels=weights.levels)
        return steps.sum(0).float()

    return sums


def exact_conv(
    conv: nn.Conv2d,
    bn: nn.Module | None,
    bits: int,
    levels: int,
    device: torch.device,
    scale: nn.Module | None = None,
) -> ExactConvs:
    """A convolution with what is after it, merged in float64 before it is rounded.

    Args:
        conv: of spikes.
        bn: a batch norm, or nothing.
        bits: of a weight.
        levels: the largest spike.
        device: of the spikes.
        scale: a `ChannelScale` behind the norm, or what does nothing.
    """
    own = copy.deepcopy(conv).double()
    if isinstance(bn, nn.BatchNorm2d):
        weight, bias = fold_conv_bn(own, bn)
    else:
        weight = kernel_of(own)
        bias = weight.new_zeros(len(weight)) if own.bias is None else own.bias
    return ExactConvs(
        [times((weight, bias), scale)],
        bits=bits,
        levels=levels,
        stride=cast(Pair, conv.stride),
        padding=cast(Pair, conv.padding),
        device=device,
        groups=conv.groups,
    )


def exact_projections(
    parts: Sequence[Projection],
    bits: int,
    levels: int,
    device: torch.device,
    scale: nn.Module | None = None,
) -> ExactConvs:
    """Projections of the same spikes, each one convolution: its merged weights are rounded.

    Arguments as of :func:`exact_conv`.
    """
    merged = [times(merge_projection(copy.deepcopy(part).double()), scale) for part in parts]
    height, width = merged[0][0].shape[2:]
    padding = (height // 2, width // 2)
    return ExactConvs(merged, bits=bits, levels=levels, padding=padding, device=device)


class ExactSepTail:
    """dw 7x7 + pw 1x1 + BN of a SepConv: two convolutions of integers, nothing rounded between.

    Equation (m a channel between the two):
        A[m] = sum_i dw[m, i] * spike[i]
        y[o] = fma(float32(sum_m pw[o, m] * A[m]), unit[o], bias[o])

    where dw and pw are integers; the unit of dw[m] is in pw[o, m] before that is rounded. The
    second sum is a matrix product of whole numbers below 2^53 in float64, exact in any order. So
    pw may have 16 bits where other weights have 8.

    Args:
        part: the SepConv.
        bits: of a weight.
        levels: the largest spike.
        device: of the spikes.
    """

    def __init__(self, part: SepConv, bits: int, levels: int, device: torch.device) -> None:
        own = copy.deepcopy(part).double()
        dw = kernel_of(own.dw).detach().cpu()
        folded, bias = fold_conv_bn(own.pw2, own.bn2)
        pw = folded.detach().cpu().flatten(1)  # [C, 2C]
        self.padding = cast(Pair, part.dw.padding)
        if bits == 8:
            integers, unit = quantise_weight(dw)
        else:
            largest = min(LARGEST[bits], 2**21)  # 2^53 is to be shared with pw
            reach = torch.tensor(float(levels), dtype=torch.float64)
            integers, unit = in_powers_of_two(dw.flatten(1), largest, reach, INT32_EXACT)
        integers = self.dw = integers.reshape(dw.shape).to(torch.int32)
        reach = levels * largest_sums(integers.flatten(1).long()).double()
        rows, self.unit = in_powers_of_two(
            pw * unit.double(), LARGEST[max(bits, 16)], reach, FLOAT64_EXACT, signed=True
        )
        self.norms = [(self.unit.to(device), bias.detach().float().to(device))]
        pw = self.pw = rows.to(device).T.contiguous()  # [2C, C]
        self.sums: Sums
        if device.type == "cpu" and events_available() is None:
            made = kernels().SeparableConv(integers, pw, levels, self.padding)
            self.sums = cast(Sums, made)
            return
        weights = integers.to(device, torch.float64)

        def sums(spikes: Tensor) -> Tensor:
            a = F.conv2d(spikes.double(), weights, padding=self.padding, groups=len(weights))
            return torch.matmul(a.permute(0, 2, 3, 1), pw).float().permute(0, 3, 1, 2)

        self.sums = sums

    def __call__(self, spikes: Tensor) -> tuple[Tensor]:
        """Sums rounded to float32 ``[N, C, H, W]`` for uint8 ``[N, 2C, H, W]``, as the only one."""
        return (self.sums(spikes),)


class FirstConv:
    """The layer that sees pixels, with its batch norm: real values in one order.

    Args:
        conv: of real values.
        bn: after it.
    """

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d) -> None:
        weight, bias = fold_conv_bn(copy.deepcopy(conv).double(), bn)
        device = conv.weight.device
        self.weight, self.bias = (z.detach().float().to(device) for z in (weight, bias))
        self.stride, self.padding = cast(Pair, conv.stride), cast(Pair, conv.padding)

    def __call__(self, pictures: Tensor) -> Tensor:
        """Membranes ``[N, C', H', W']`` for float32 ``[N, C, H, W]``."""
        return fixed_order_conv(pictures, self.weight, self.bias, self.stride, self.padding)


# --- Heads ----------------------------------------------------------------------------------------


def exact_head(head: Head, bits: int, levels: int, device: torch.device) -> Head:
    """A copy of a head that computes in one order, with integer weights where spikes come in.

    A GRU stays as it is: nothing fires after it.

    Raises:
        ValueError: a part with weights that has no counterpart here.
    """
    head = copy.deepcopy(head)
    head.real = _InOrder()
    _make_exact(head, "head", bits, levels, device)
    return head


def _make_exact(
    module: nn.Module, place: str, bits: int, levels: int, device: torch.device
) -> None:
    for name, part in list(module.named_children()):
        if isinstance(part, nn.ModuleList):
            _make_exact(part, f"{place}.{name}", bits, levels, device)
        elif isinstance(part, SpikeProjection):
            conv = exact_conv(part.conv, part.bn, bits, levels, device)
            parts: OrderedDict[str, nn.Module] = OrderedDict(
                neuron=part.neuron, conv=_Currents(conv)
            )
            module.add_module(name, nn.Sequential(parts))
        elif isinstance(part, nn.Conv2d):
            module.add_module(name, _ImageCurrents(exact_conv(part, None, bits, levels, device)))
        elif isinstance(part, nn.Linear):
            module.add_module(name, _Linear(part))
        elif not isinstance(part, nn.GRU) and any(True for _ in part.parameters()):
            raise ValueError(
                f"{place}.{name} is a {type(part).__name__}, which has no integer weights; use "
                "precision='exact'"
            )


class _InOrder(RealValues):
    """In float64 and one order; bilinear weights one after the other."""

    def mean(self, x: Tensor, axis: int) -> Tensor:
        return (fixed_order_sum(x.movedim(axis, -1)) / x.shape[axis]).float()

    def cells(self, x: Tensor, grid: int) -> Tensor:
        # those of F.adaptive_avg_pool2d, which overlap where the grid does not divide the map
        height, width = (
            [slice(i * size // grid, -(-(i + 1) * size // grid)) for i in range(grid)]
            for size in x.shape[2:]
        )
        means = [self.mean(x[..., i, j].flatten(2), 2) for i in height for j in width]
        return torch.stack(means, -1).unflatten(-1, (grid, grid))

    def upsample(self, x: Tensor, factor: int) -> Tensor:
        return upsample(x.flatten(0, 1), factor).unflatten(0, x.shape[:2])

    def resize(self, x: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
        if mode == "nearest" or tuple(x.shape[3:]) == size:  # nothing is added up
            return super().resize(x, size, mode)
        for axis, length in zip((3, 4), size, strict=True):
            last = x.shape[axis] - 1
            place = torch.arange(length, dtype=torch.float64, device=x.device) + 0.5
            place = (place * ((last + 1) / length) - 0.5).clamp(min=0)
            before = place.long().clamp(max=last)
            share = (place - before).to(x.dtype).reshape(-1, *[1] * (4 - axis))
            after = x.index_select(axis, (before + 1).clamp(max=last))
            x = x.index_select(axis, before) * (1 - share) + after * share
        return x


class _ImageCurrents(nn.Module):
    """Spikes ``[N, C, H, W]`` to currents."""

    def __init__(self, conv: ExactConvs) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, spikes: Tensor) -> Tensor:
        (sums,) = self.conv(spikes.to(torch.uint8))
        return scaled(sums, *self.conv.norms[0])


class _Currents(_ImageCurrents):
    """Spikes ``[T, B, C, H, W]`` to currents."""

    def forward(self, spikes: Tensor) -> Tensor:
        return super().forward(spikes.flatten(0, 1)).unflatten(0, spikes.shape[:2])


class _Linear(nn.Module):
    """``[..., C]`` to ``[..., K]``: a convolution of 1x1 over a picture of one row."""

    def __init__(self, fc: nn.Linear) -> None:
        super().__init__()
        self.weight = fc.weight.detach()[:, :, None, None]
        bias = torch.zeros(len(fc.weight)) if fc.bias is None else fc.bias.detach()
        self.bias = bias.to(fc.weight)

    def forward(self, x: Tensor) -> Tensor:
        row = x.flatten(0, -2).T[None, :, None].contiguous()  # [1, C, 1, n]
        out = fixed_order_conv(row, self.weight, self.bias)
        return out[0, :, 0].T.unflatten(0, x.shape[:-1])
