"""Integer sums: every fast path has the bits of the reference."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spikevideoformer.deploy.int8 import Int8Digits, int8_available
from spikevideoformer.ops import exact_conv
from spikevideoformer.ops.exact_conv import (
    INT32_EXACT,
    Float32Digits,
    IntegerWeights,
    as_integers,
    digits,
    events_available,
    exact_conv_reference,
    exact_sums_reference,
    fixed_order_conv,
    fixed_order_conv_reference,
    fixed_order_sum,
    scaled,
    scaled_reference,
)

needs_events = pytest.mark.skipif(events_available() is not None, reason=str(events_available()))


@dataclass(frozen=True)
class Case:
    """A convolution of random spikes."""

    spikes: Tensor
    weights: IntegerWeights
    bias: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]
    groups: int

    @property
    def geometry(self) -> tuple[Any, ...]:
        return self.stride, self.padding, self.groups


@st.composite
def cases(draw: Any) -> Case:
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (7, 7), (2, 3), (5, 1)]))
    if draw(st.sampled_from(["dense", "dense", "depthwise"])) == "depthwise":
        groups = c_in = c_out = draw(st.integers(1, 37))
    else:
        groups, most = 1, 40 if kernel == (1, 1) else 20
        c_in, c_out = (draw(st.integers(1, most)) for _ in range(2))
    levels = draw(st.sampled_from([1, 1, 2, 4, 8, 255]))
    padding = tuple(draw(st.integers(0, k - 1)) for k in kernel)
    size = [
        draw(st.integers(max(1, k - 2 * p), k + 8)) for k, p in zip(kernel, padding, strict=True)
    ]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    rate = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    shape = (draw(st.integers(1, 3)), c_in, *size)
    spikes = torch.randint(1, levels + 1, shape, generator=generator)
    spikes = spikes * (torch.rand(shape, generator=generator) < rate)
    weight = torch.randn(c_out, c_in // groups, *kernel, generator=generator, dtype=torch.float64)
    weight *= 10.0 ** torch.randint(-9, 5, (c_out, 1, 1, 1), generator=generator)
    if draw(st.booleans()):
        weight[0] = 0
    spikes = spikes.to(torch.uint8)
    if draw(st.booleans()):
        spikes = spikes.contiguous(memory_format=torch.channels_last)
    return Case(
        spikes=spikes,
        weights=as_integers(weight, draw(st.sampled_from([8, 16, 24])), levels=levels),
        bias=torch.randn(c_out, generator=generator),
        stride=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        padding=padding,  # type: ignore[arg-type]
        groups=groups,
    )


def check_all(case: Case) -> None:
    """Sums and currents of every unit that takes the case."""
    weights = case.weights
    sums = exact_sums_reference(case.spikes, weights.integers, *case.geometry)
    assert not sums.numel() or int(sums.abs().max()) <= weights.largest <= INT32_EXACT
    expected = sums.float()
    integers, levels, where = weights.integers, weights.levels, (case.stride, case.padding)
    if case.groups == 1:
        assert torch.equal(Float32Digits(weights, *where)(case.spikes), expected)
        if int8_available(weights.levels) is None:
            assert torch.equal(Int8Digits(weights, *where)(case.spikes), expected)
    if events_available() is None:
        kernels = exact_conv.kernels()
        if case.groups == 1:
            (by_events,) = kernels.EventConv(integers, levels, *where)(case.spikes)
            assert torch.equal(by_events, expected)
        else:
            depthwise = kernels.DepthwiseSums(integers, levels, *where)
            assert torch.equal(depthwise(case.spikes), expected)
    currents = exact_conv_reference(case.spikes, weights, case.bias, *case.geometry)
    assert torch.equal(scaled(expected, weights.unit, case.bias), currents)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_every_unit_has_the_bits_of_the_reference(case: Case) -> None:
    check_all(case)


@pytest.mark.slow
@pytest.mark.timeout(600)  # two minutes where nothing else runs
@settings(max_examples=1000, deadline=None)
@given(cases())
def test_every_unit_on_a_thousand_cases(case: Case) -> None:
    check_all(case)


@pytest.mark.skipif(int8_available() is not None, reason=str(int8_available()))
def test_int8_sums_over_one_channel_of_one_column() -> None:
    spikes = torch.ones(1, 1, 9, 3, dtype=torch.uint8)
    weights = as_integers(torch.randn(9, 1, 3, 3), 8)
    expected = exact_sums_reference(spikes, weights.integers, (1, 2)).float()
    assert torch.equal(Int8Digits(weights, (1, 2))(spikes), expected)


@needs_events
@pytest.mark.parametrize("threads", [1, 2])
def test_wide_layers_in_bands_and_poisoned_memory(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many tiles, blocks of every width, several bands, memory that held NaN before."""
    kernels = exact_conv.kernels()
    monkeypatch.setattr(kernels, "BAND_BYTES", 2**14)
    empty = torch.empty

    def poisoned(*args: Any, **options: Any) -> Tensor:
        out = empty(*args, **options)
        return out.fill_(math.nan) if out.is_floating_point() else out.fill_(77)

    monkeypatch.setattr(kernels.torch, "empty", poisoned)
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(3, 70, 13, 11, generator=generator) < 0.2).to(torch.uint8)
    weight = torch.randn(7 * 16 + 5, 70, 3, 3, generator=generator)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for bits in (8, 24):
            weights = as_integers(weight, bits)
            conv = kernels.EventConv(weights.integers, 1, (2, 1), (1, 1))
            assert conv.short == (bits == 8)
            expected = exact_sums_reference(spikes, weights.integers, (2, 1), (1, 1)).float()
            assert torch.equal(conv(spikes)[0], expected)
    finally:
        torch.set_num_threads(before)


def test_sums_of_a_tile_that_may_leave_int16_are_int32() -> None:
    if events_available() is not None:
        pytest.skip(str(events_available()))
    kernels = exact_conv.kernels()
    integers = torch.full((3, 64, 1, 1), 127, dtype=torch.int32)
    spikes = torch.full((1, 64, 2, 2), 8, dtype=torch.uint8)
    conv = kernels.EventConv(integers, 8, (1, 1), (0, 0))
    assert not conv.short
    assert torch.equal(conv(spikes)[0], torch.full((1, 3, 2, 2), 127.0 * 64 * 8))


@needs_events
@pytest.mark.parametrize(("weight", "runs"), [(1, 1), (100, 2), (127, 4), (127 * 257, None)])
def test_int16_sums_go_over_as_many_tiles_as_they_may(weight: int, runs: int | None) -> None:
    """Three outputs of which none fills its vectors, sums as large as they can get."""
    integers = torch.full((3 * 37, 64, 3, 3), weight, dtype=torch.int32)
    integers[1::2] *= -1
    spikes = torch.ones(1, 64, 5, 4, dtype=torch.uint8)
    conv = exact_conv.kernels().EventConv(integers, 1, (1, 1), (1, 1), outputs=3)
    assert int((conv.ends & 1).sum()) == (runs or 1) and conv.short == (runs is not None)
    expected = exact_sums_reference(spikes, integers, (1, 1), (1, 1)).float()
    for found, wanted in zip(conv(spikes), expected.chunk(3, 1), strict=True):
        assert torch.equal(found, wanted)


def test_lowered_float32_does_not_round_digits() -> None:
    spikes = torch.ones(1, 64, 5, 5, dtype=torch.uint8)
    weights = as_integers(torch.randn(32, 64, 3, 3), 24)
    expected = exact_sums_reference(spikes, weights.integers).float()
    torch.backends.mkldnn.conv.fp32_precision = "bf16"  # type: ignore[attr-defined]
    try:
        assert torch.equal(Float32Digits(weights)(spikes), expected)
    finally:
        torch.backends.mkldnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]


# --- Rounding of weights --------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "error"), [(16, 2**-14), (24, 2**-22)])
def test_integers_are_the_nearest_of_so_many_bits(bits: int, error: float) -> None:
    weight = (
        torch.randn(6, 5, 3, 3, dtype=torch.float64)
        * 10.0 ** torch.arange(-3, 3)[:, None, None, None]
    )
    weights = as_integers(weight, bits)
    rounded = weights.integers * weights.unit.double()[:, None, None, None]
    largest = weight.flatten(1).abs().amax(1)
    assert ((rounded - weight).flatten(1).abs().amax(1) <= error * largest).all()
    assert (torch.frexp(weights.unit).mantissa == 0.5).all()


def test_units_grow_where_sums_would_leave_int32() -> None:
    """All spikes of the largest value at all positive weights: the worst there is."""
    weight = torch.rand(4, 2000, 3, 3)
    spikes = torch.full((1, 2000, 3, 3), 8, dtype=torch.uint8)
    weights = as_integers(weight, 24, levels=8)
    sums = exact_sums_reference(spikes, weights.integers)
    assert int(sums.max()) == weights.largest
    assert INT32_EXACT // 2 - 10**6 < weights.largest <= INT32_EXACT
    assert torch.equal(Float32Digits(weights)(spikes), sums.float())


@pytest.mark.parametrize(
    ("weight", "options", "message"),
    [
        (torch.ones(1, 1, 1, 1), {"bits": 12}, "choose 8, 16 or 24"),
        (torch.full((1, 1, 1, 1), math.nan), {"bits": 24}, "NaN or infinite"),
        (torch.full((1, 1, 1, 1), math.inf), {"bits": 8}, "NaN or infinite"),
        (torch.ones(1, 2**15, 3, 3), {"bits": 24, "levels": 255}, "fewer than 12 bits"),
        (torch.full((1, 1, 1, 1), 1e37), {"bits": 24}, "another size"),
        (torch.ones(1, 1, 1, 1), {"bits": 24, "levels": 300}, "levels is 300"),
    ],
)
def test_weights_that_cannot_be_integers_are_refused(
    weight: Tensor, options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        as_integers(weight, **options)


def test_a_current_that_would_be_rounded_twice_is_refused() -> None:
    integers = torch.full((1, 3, 1, 1), 2**23, dtype=torch.int32)
    IntegerWeights(integers, torch.tensor([0.25]), 1)
    with pytest.raises(ValueError, match="power of two"):
        IntegerWeights(integers, torch.tensor([0.3]), 1)


@given(st.lists(st.integers(-(2**31) + 1, 2**31 - 1), min_size=1), st.integers(2, 24))
def test_digits_are_put_together_again(values: list[int], bits: int) -> None:
    found = digits(torch.tensor(values, dtype=torch.int32), bits)
    assert all(int(d.abs().max()) <= 2 ** (bits - 1) for d in found)
    total = sum(d.long() * 2 ** (bits * i) for i, d in enumerate(found))
    assert total.tolist() == values  # type: ignore[union-attr]


# --- The one rounding -----------------------------------------------------------------------------


def _float32_of(value: Fraction) -> np.float32:
    """Nearest float32, ties to even, of an exact value of ordinary size."""
    if value == 0:
        return np.float32(0)
    exponent = math.floor(math.log2(abs(value))) - 23
    for e in (exponent - 1, exponent, exponent + 1):
        scaled_value = value / Fraction(2) ** e
        if 2**23 <= abs(scaled_value) < 2**24:
            return np.float32(math.ldexp(round(scaled_value), e))
    raise AssertionError(value)


floats = st.floats(2.0**-20, 2.0**20, width=32)


@settings(deadline=None)
@given(st.integers(-(2**24), 2**24), floats, floats, st.booleans())
def test_scaling_rounds_the_exact_value_once(
    x: int, unit: float, bias: float, negative: bool
) -> None:
    bias = -bias if negative else bias
    arguments = torch.full((1, 1, 1, 1), float(x)), torch.tensor([unit]), torch.tensor([bias])
    expected = _float32_of(Fraction(x) * Fraction(unit) + Fraction(bias))
    for compute in (scaled_reference, scaled):
        assert compute(*arguments).item() == expected


def test_scaling_of_ties_between_float32_numbers() -> None:
    """A tie in float64 that the exact value breaks: plain float64 rounds twice here."""
    x, unit, bias = 2.0**24 - 1, 1 + 2.0**-23, 2.0**-40
    one = torch.tensor([[[[x]]]]), torch.tensor([unit]), torch.tensor([bias])
    expected = _float32_of(Fraction(x) * Fraction(unit) + Fraction(bias))
    assert scaled(*one).item() == scaled_reference(*one).item() == expected


# --- Real values in one order ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "out", "kernel", "stride", "padding"),
    [
        ((2, 3, 19, 23), 32, (7, 7), (2, 2), (3, 3)),
        ((1, 2, 9, 2), 5, (3, 3), (1, 1), (1, 1)),
        ((3, 4, 1, 7), 40, (1, 1), (1, 1), (0, 0)),
        ((1, 1, 6, 6), 16, (3, 2), (3, 2), (1, 0)),
    ],
)
def test_real_values_in_the_order_of_the_reference(
    shape: Any, out: int, kernel: Any, stride: Any, padding: Any
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    weight = torch.randn(out, shape[1], *kernel, generator=generator)
    bias = torch.randn(out, generator=generator)
    expected = fixed_order_conv_reference(x, weight, bias, stride, padding)
    assert torch.equal(fixed_order_conv(x, weight, bias, stride, padding), expected)
    exact = torch.nn.functional.conv2d(x.double(), weight.double(), bias.double(), stride, padding)
    torch.testing.assert_close(expected, exact.float(), rtol=2e-7, atol=1e-7)
    for i in range(len(x)):  # a picture knows nothing of its neighbours
        alone = fixed_order_conv(x[i : i + 1], weight, bias, stride, padding)
        assert torch.equal(alone[0], expected[i])


@pytest.mark.parametrize("n", [1, 2, 7, 196])
def test_a_sum_in_one_order(n: int) -> None:
    x = torch.randn(3, 5, n)
    expected = x.double().sum(-1)
    torch.testing.assert_close(fixed_order_sum(x), expected, rtol=1e-14, atol=1e-14)
    assert torch.equal(fixed_order_sum(x)[1:2], fixed_order_sum(x[1:2].clone()))
