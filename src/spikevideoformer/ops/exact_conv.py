"""Convolutions whose sums are exact, so that no order of summation changes a bit.

What reaches a convolution is spikes 0..D. With integer weights each sum is an integer, whatever
the batch, the threads, the tiles, the processor or the kernel; one rounding makes it a current.

Equation (o an output channel):
    y[o] = float32(unit[o] * sum_i weight[o, i] * spike[i] + bias[o])

It is computed as ``fma(float32(sum), unit, bias)``, which is that, rounded once, where float32
holds the sum (up to 2^24). Other sums are rounded to float32 first; their unit is a power of two
and changes no digit, so that the current before the bias is rounded once here, too.
:class:`IntegerWeights` sees to it. ``exact_sums_reference`` (int64) and ``scaled_reference`` are
the specification.

Fast paths: ``_numba/exact_conv.py`` adds up the rows of weights that fired; :func:`digits` cuts
the integers into pieces that a unit at hand (float32, or int8 with int32 sums) adds exactly.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spikevideoformer.ops._kernels import load

FLOAT32_EXACT = 2**24  # float32 holds every integer up to here,
FLOAT64_EXACT = 2**53  # float64 up to here
INT32_EXACT = 2**31 - 1
BITS = (8, 16, 24)
LEAST_BITS = 12  # of the largest weight of a channel whose sums leave no room for more
# Largest integers that are one, two and three digits of -127..127 to the base 256.
LARGEST = {8: 127, 16: 127 * 257, 24: 127 * 65793}
# Steps that are tried for 8 bits, relative to the one that makes the largest weight 127. Below 1
# clips a few large weights to round the others finer; above 1 helps where few weights share a
# step, by chance. Root mean square rounding error of a trained network, against always taking 1:
# 1-2 % less for kernels of over 250 values, 4-9 % less for depthwise 7x7 and 1x1 of up to 80
# inputs.
STEP_RATIOS = tuple(1 + i / 100 for i in range(-20, 11))


@dataclass(frozen=True, eq=False)
class IntegerWeights:
    """Weights of a convolution as integers.

    Attributes:
        integers: ``[C', C/groups, kh, kw]``, int32.
        unit: what one is worth, ``[C']``, float32 and normal.
        levels: the largest spike D.
        largest: of all sums that spikes can make, the largest magnitude.

    Raises:
        ValueError: a product of unit and sum that float32 would round twice, or sums that may
            leave int32.
    """

    integers: Tensor
    unit: Tensor
    levels: int

    def __post_init__(self) -> None:
        if self.integers.dtype != torch.int32 or self.unit.dtype != torch.float32:
            raise ValueError(
                f"integers are {self.integers.dtype}, units {self.unit.dtype}; expected int32 and "
                "float32"
            )
        if not 1 <= self.levels <= 255:
            raise ValueError(f"levels is {self.levels}; spikes are bytes, 1..255")
        sums = self.levels * largest_sums(self.integers.flatten(1).long())
        if int(sums.max()) > INT32_EXACT:
            raise ValueError(f"sums may reach {int(sums.max())}, more than int32 holds; fewer bits")
        mantissa, exponent = torch.frexp(self.unit)
        # frexp: 2^(exponent-1) <= unit, so that neither end of a product leaves float32's range
        if bool(((exponent < -124) | (exponent > 96)).any()) or bool((self.unit <= 0).any()):
            raise ValueError("a unit lies outside 2^-125..2^96; weights of another size are needed")
        if bool(((sums > FLOAT32_EXACT) & (mantissa != 0.5)).any()):
            raise ValueError(
                "the unit of a channel whose sums may pass 2^24 must be a power of two, or its "
                "current would be rounded twice"
            )

    @property
    def largest(self) -> int:
        """Largest magnitude of a sum."""
        return self.levels * int(largest_sums(self.integers.flatten(1).long()).max())


def largest_sums(rows: Tensor) -> Tensor:
    """Largest magnitude that a sum of some of each row's integers has ``[C']``."""
    return torch.maximum(rows.clamp(min=0).sum(1), -rows.clamp(max=0).sum(1))


def as_integers(weight: Tensor, bits: int, *, levels: int = 1) -> IntegerWeights:
    """Real weights rounded to integers of at most ``bits`` bits, sign included.

    With 8 bits the unit of a channel is the float32 number that leaves the smallest squared error
    (:func:`quantise_weight`), where all sums stay below 2^24. With 16 and 24 bits it is the
    smallest power of two for which the channel's weights have so many bits and none of its sums
    leaves int32: a channel that can add up thousands of large weights, or integer spikes, has a
    coarser unit (never an overflow).

    Args:
        weight: ``[C', C/groups, kh, kw]``, floating point and finite.
        bits: 8, 16 or 24.
        levels: the largest spike.

    Returns:
        Weights on a CPU, so that every device has the same.

    Raises:
        ValueError: unknown bits, weights that are not finite or beyond float32's range, or so
            many of them that int32 sums leave fewer than 12 bits.
    """
    if bits not in BITS:
        raise ValueError(f"bits is {bits!r}; choose 8, 16 or 24")
    rows = finite_rows(weight)
    if bits == 8:
        small, step = quantise_weight(weight)
        if int(levels * largest_sums(small.flatten(1).long()).max()) <= FLOAT32_EXACT:
            return IntegerWeights(small.to(torch.int32), step, levels)
    reach = torch.tensor(float(levels), dtype=torch.float64)
    integers, unit = in_powers_of_two(rows, LARGEST[bits], reach, INT32_EXACT)
    return IntegerWeights(integers.to(torch.int32).reshape(weight.shape), unit, levels)


def in_powers_of_two(
    rows: Tensor, largest: int, reach: Tensor, exact: int, *, signed: bool = False
) -> tuple[Tensor, Tensor]:
    """Rows of real weights as integers, the unit of each the smallest power of two that will do.

    Args:
        rows: ``[C', n]``, float64.
        largest: magnitude of an integer.
        reach: largest magnitude of what each weight is multiplied by, ``[n]`` or one for all.
        exact: largest magnitude of a sum.
        signed: whether inputs have both signs.

    Returns:
        Integers, float64, and units, float32.

    Raises:
        ValueError: the sums leave fewer than 12 bits.
    """
    exponent = _exponent(rows.abs().amax(1) / largest)
    while True:
        integers = torch.ldexp(rows, -exponent[:, None]).round()
        reached = integers * reach
        sums = reached.abs().sum(1) if signed else largest_sums(reached)
        if not bool((over := sums > exact).any()):
            break
        exponent = exponent + over.int()
    bits = min(LEAST_BITS, largest.bit_length() + 1)
    coarse = integers.abs().amax(1) < 2 ** (bits - 2)
    if bool((coarse & (rows.abs().amax(1) > 2.0**-100)).any()):
        raise ValueError(
            f"sums of {rows.shape[1]} weights and spikes up to {int(reach.max())} leave a weight "
            f"fewer than {bits} bits; use the model itself (engine model)"
        )
    return integers, torch.ldexp(torch.ones_like(exponent, dtype=torch.float64), exponent).float()


def _exponent(unit: Tensor) -> Tensor:
    """Smallest e for which 2^e >= unit, int32; -120 at least."""
    mantissa, exponent = torch.frexp(unit)  # unit = mantissa * 2^exponent, mantissa in [1/2, 1)
    exponent = exponent - (mantissa == 0.5).int()
    return torch.where(unit > 0, exponent.clamp(min=-120), 0).to(torch.int32)


def finite_rows(weight: Tensor) -> Tensor:
    """Weights ``[C', n]`` in float64 on a CPU; ValueError for NaN and infinities."""
    rows = weight.detach().to("cpu", torch.float64).flatten(1)
    if not bool(torch.isfinite(rows).all()):
        raise ValueError("the weights hold NaN or infinite values, which integers cannot")
    return rows


def quantise_weight(
    weight: Tensor, ratios: tuple[float, ...] = STEP_RATIOS
) -> tuple[Tensor, Tensor]:
    """Round weights to 8 bits, symmetrically, with a step for each output channel.

    Equation:
        step[o] = ratio * max|weight[o]| / 127
        weight_int8[o] = clamp(round(weight[o] / step[o]), -127, 127)
        with the ratio that leaves the smallest squared error in that channel

    Args:
        weight: ``[C', C/groups, kh, kw]``, floating point and finite.
        ratios: step sizes to try, > 0.

    Returns:
        Integers shaped as ``weight`` (int8), and steps ``[C']`` (float32). A channel of zeros has
        the step 1.
    """
    rows = finite_rows(weight)
    if not ratios or min(ratios) <= 0:
        raise ValueError(f"ratios are {ratios!r}; expected positive step sizes to try")
    largest = LARGEST[8]
    unit = rows.abs().amax(1) / largest
    unit = torch.where(unit > 0, unit, 1.0)
    best = torch.full_like(unit, torch.inf)
    step = unit.float()
    integers = torch.zeros_like(rows)
    for ratio in ratios:
        tried = (ratio * unit).float()  # as it will be used
        # a step too small for float32 is no step: the weights are zeros in float32, too
        tried = torch.where(tried > 2.0**-120, tried, 1.0)
        rounded = (rows / tried.double()[:, None]).round().clamp(-largest, largest)
        error = (rounded * tried.double()[:, None] - rows).square().sum(1)
        better = error < best
        best = torch.where(better, error, best)
        step = torch.where(better, tried, step)
        integers = torch.where(better[:, None], rounded, integers)
    return integers.reshape(weight.shape).to(torch.int8), step


def digits(integers: Tensor, bits: int) -> list[Tensor]:
    """Integers as ``sum_i 2^(bits i) digit_i`` with digits in ``[-2^(bits-1), 2^(bits-1)]``.

    Args:
        integers: any shape, int32.
        bits: of a digit, at least 2.

    Returns:
        Digits, the lowest first, as many as the largest integer needs; int32.
    """
    rest, found = integers.long(), []
    base, half = 2**bits, 2 ** (bits - 1)
    while True:
        digit = rest if bool((rest.abs() < half).all()) else (rest + half) % base - half
        found.append(digit.int())
        rest = (rest - digit) // base
        if not bool(rest.any()):
            return found


def exact_sums_reference(
    spikes: Tensor,
    integers: Tensor,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> Tensor:
    """Sums of integer weights over spikes, in int64.

    Args:
        spikes: ``[N, C, H, W]``, uint8.
        integers: ``[C', C/groups, kh, kw]``.
        stride: of rows and columns.
        padding: with zeros, of rows and columns.
        groups: of channels that do not mix.

    Returns:
        ``[N, C', H', W']``, int64.
    """
    x = F.pad(spikes.long(), (padding[1], padding[1], padding[0], padding[0]))
    patches = x.unfold(2, integers.shape[2], stride[0]).unfold(3, integers.shape[3], stride[1])
    sums = [
        # n: pictures, c: inputs of the group, y x: places, i j: of the kernel, o: outputs
        torch.einsum("ncyxij,ocij->noyx", of_group, weights)
        for of_group, weights in zip(
            patches.chunk(groups, 1), integers.long().chunk(groups, 0), strict=True
        )
    ]
    return torch.cat(sums, 1)


def exact_conv_reference(
    spikes: Tensor,
    weights: IntegerWeights,
    bias: Tensor,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> Tensor:
    """The equation at the top: ``[N, C', H', W']``, float32."""
    sums = exact_sums_reference(spikes, weights.integers, stride, padding, groups)
    return scaled_reference(sums.float(), weights.unit, bias)


def scaled_reference(x: Tensor, unit: Tensor, bias: Tensor) -> Tensor:
    """``fma(x, unit, bias)`` of each channel of ``[N, C, H, W]``, float32, rounded once.

    The sum of the exact product and the bias is rounded to odd in float64 (Boldo and Melquiond,
    "Emulation of FMA and correctly rounded sums", 2008), so that float32 rounds what matters.
    """
    product = x.double() * unit.double()[:, None, None]  # 48 bits: exact
    addend = bias.double()[:, None, None]
    total = product + addend
    seen = total - product
    error = (product - (total - seen)) + (addend - seen)
    bits = total.view(torch.int64)
    even = (error != 0) & (bits % 2 == 0)
    bits = bits + torch.where(even, torch.where((error > 0) == (total > 0), 1, -1), 0)
    return bits.view(torch.float64).float()


def scaled(x: Tensor, unit: Tensor, bias: Tensor) -> Tensor:
    """Same contract and bits as :func:`scaled_reference`."""
    if x.device.type == "cpu" and events_available() is None:
        out: Tensor = kernels().scaled(x, unit, bias)
        return out
    return scaled_reference(x, unit, bias)


class Float32Digits:
    """Sums of integer weights over spikes by float32 convolutions of digits.

    Convolutions must be direct sums of float32 products, in any order: torch's on a CPU are.

    Args:
        weights: integers, cut into digits so that float32 holds all that their sums come to on
            the way.
        stride, padding: of rows and columns.
    """

    def __init__(
        self,
        weights: IntegerWeights,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
    ) -> None:
        self.geometry = stride, padding
        for bits in range(24, 1, -1):
            found = digits(weights.integers, bits)
            largest = max(int(d.long().abs().flatten(1).sum(1).max()) for d in found)
            if largest * weights.levels <= FLOAT32_EXACT:
                self.bits, self.count = bits, len(found)
                # side by side: one convolution, whose vectors are full also where outputs are few
                self.weight = torch.cat(found).float()
                return
        raise ValueError(f"float32 cannot add up {weights.integers[0].numel()} weights exactly")

    def __call__(self, spikes: Tensor) -> Tensor:
        """Sums rounded to float32 ``[N, C', H', W']``, for uint8 ``[N, C, H, W]``."""
        # with TF32 or bfloat16 allowed a float32 convolution would round the digits
        lowered = torch.backends.mkldnn.conv.fp32_precision not in ("none", "ieee")  # type: ignore[attr-defined]
        dtype = torch.float64 if lowered else torch.float32
        sums = F.conv2d(spikes.to(dtype), self.weight.to(dtype), None, *self.geometry)
        return put_together(list(sums.chunk(self.count, 1)), self.bits)


def put_together(parts: list[Tensor], bits: int) -> Tensor:
    """``sum_i 2^(bits i) parts[i]`` of whole float32 numbers, rounded once to float32."""
    if len(parts) <= 2:  # a product with a power of two is exact: one rounding
        low, *high = parts
        return torch.add(low, high[0], alpha=2**bits).float() if high else low.float()
    total = parts[0].double()
    for i, part in enumerate(parts[1:], 1):
        total.add_(part.double(), alpha=2 ** (bits * i))
    return total.float()


# --- By events ------------------------------------------------------------------------------------


def events_available() -> str | None:
    """Why spikes cannot be added up by events here; None where they can."""
    found = load("_numba", "exact_conv")
    return found if isinstance(found, str) else None


def kernels() -> Any:
    """The module of compiled kernels."""
    found = load("_numba", "exact_conv")
    assert not isinstance(found, str), found  # events_available was asked
    return found


# --- Real values in one order ---------------------------------------------------------------------


def fixed_order_conv_reference(
    pictures: Tensor,
    weight: Tensor,
    bias: Tensor,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
) -> Tensor:
    """A convolution of real values, added up in float64 in one order: channel, row, column.

    Products of float32 numbers are exact in float64, so a result depends on nothing but the
    order of additions, which is here the same for every picture, batch and processor.

    Args:
        pictures: ``[N, C, H, W]``, float32.
        weight: ``[C', C, kh, kw]``, float32.
        bias: ``[C']``, float32, where each sum begins.
        stride: of rows and columns.
        padding: with zeros, of rows and columns.

    Returns:
        ``[N, C', H', W']``, float32, rounded once from the float64 sum.
    """
    kh, kw = weight.shape[2:]
    height = (pictures.shape[2] + 2 * padding[0] - kh) // stride[0] + 1
    width = (pictures.shape[3] + 2 * padding[1] - kw) // stride[1] + 1
    x = F.pad(pictures, (padding[1], padding[1], padding[0], padding[0])).double()
    w = weight.double()
    total = bias.double()[None, :, None, None].expand(len(x), -1, height, width).clone()
    for c in range(weight.shape[1]):
        for i in range(kh):
            rows = slice(i, i + stride[0] * (height - 1) + 1, stride[0])
            for j in range(kw):
                columns = slice(j, j + stride[1] * (width - 1) + 1, stride[1])
                total += x[:, c, None, rows, columns] * w[:, c, i, j, None, None]
    return total.float()


def fixed_order_conv(
    pictures: Tensor,
    weight: Tensor,
    bias: Tensor,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
) -> Tensor:
    """Same contract and bits as :func:`fixed_order_conv_reference`; channels-last in memory."""
    usable = pictures.device.type == "cpu" and pictures.dtype == torch.float32
    if usable and events_available() is None:
        out: Tensor = kernels().fixed_order_conv(pictures, weight, bias, stride, padding)
        return out
    return fixed_order_conv_reference(pictures, weight, bias, stride, padding)


def fixed_order_sum(x: Tensor) -> Tensor:
    """Sum over the last axis in float64, in one order: halves are added until one is left."""
    x = x.double()
    while (n := x.shape[-1]) > 1:
        half = n // 2
        folded = x[..., :half] + x[..., half : 2 * half]
        x = torch.cat([folded, x[..., 2 * half :]], -1)
    return x[..., 0]
