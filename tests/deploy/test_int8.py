"""Byte spikes through int8 weights: rounding of weights, and convolutions against plain torch."""

import copy
import os
import pickle
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from spikevideoformer.deploy.int8 import Int8Digits, int8_available
from spikevideoformer.ops.exact_conv import STEP_RATIOS, as_integers, quantise_weight

needs_int8 = pytest.mark.skipif(int8_available() is not None, reason=str(int8_available()))
needs_int8_255 = pytest.mark.skipif(
    int8_available(255) is not None, reason=str(int8_available(255))
)

# in, out, kernel, stride, padding
SHAPES = {
    "1x1": (24, 40, 1, 1, 0),
    "1x1_wide": (256, 1024, 1, 1, 0),
    "3x3": (33, 47, 3, 1, 1),
    "3x3_stride2": (32, 64, 3, 2, 1),
    "7x7": (16, 8, 7, 1, 3),
    "no_padding": (8, 8, 3, 1, 0),
}


def _spikes(n, channels, height, width, levels=1):
    spikes = torch.randint(levels + 1, (n, channels, height, width), dtype=torch.uint8)
    return spikes.contiguous(memory_format=torch.channels_last)


def _make(shape, *, bits=8, levels=4, **options):
    """A convolution, and what it should give."""
    channels, out, kernel, stride, padding = SHAPES[shape]
    weight = 0.1 * torch.randn(out, channels, kernel, kernel)
    weight *= torch.logspace(-2, 1, out).reshape(-1, 1, 1, 1)  # channels of different sizes
    weights = as_integers(weight, bits, levels=levels)
    conv = Int8Digits(weights, (stride, stride), (padding, padding), **options)

    def expected(spikes):
        return F.conv2d(spikes.double(), weights.integers.double(), None, stride, padding).float()

    return conv, expected


# --- Rounding of weights --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (16, 1, 7, 7), (5, 40, 1, 1)])
def test_rounding_error_is_at_most_half_a_step(shape):
    weight = torch.randn(shape) * torch.logspace(-6, 6, shape[0]).reshape(-1, 1, 1, 1)
    integers, step = quantise_weight(weight, ratios=(1.0,))
    assert integers.dtype == torch.int8
    assert integers.shape == weight.shape
    assert integers.abs().flatten(1).amax(1).eq(127).all()
    step = step.double()[:, None, None, None]
    error = (integers * step - weight.double()).abs()
    assert (error <= 0.5 * step * (1 + 1e-4)).all()  # the step itself is rounded to float32


@pytest.mark.parametrize("count", [32, 49, 64, 576])
def test_trying_step_sizes_lowers_the_error(count):
    weight = torch.randn(64, count, 1, 1)

    def error(ratios):
        integers, step = quantise_weight(weight, ratios)
        return (integers * step[:, None, None, None] - weight).flatten(1).square().sum(1)

    before, after = error((1.0,)), error(STEP_RATIOS)
    assert (after <= before * (1 + 1e-6)).all()
    # by how much: the figures beside STEP_RATIOS
    assert 1 - (after.sum() / before.sum()).sqrt() > (0.04 if count <= 64 else 0.005)


def test_few_large_weights_are_clipped():
    weight = torch.ones(1, 10_000, 1, 1) * torch.linspace(-1, 1, 10_000)[None, :, None, None]
    weight[0, 0] = -1.2
    integers, step = quantise_weight(weight)
    assert step.item() < 1.2 / 127
    assert integers.min() == -127


def test_channels_of_zeros_and_tiny_weights():
    weight = torch.zeros(3, 4, 1, 1, dtype=torch.float64)
    weight[1] = 1e-60  # zero in float32
    weight[2] = 1.0
    integers, step = quantise_weight(weight)
    assert integers[:2].eq(0).all()
    assert integers[2].ne(0).all()
    assert (step > 0).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value):
    weight = torch.ones(2, 2, 1, 1)
    weight[1, 0] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        quantise_weight(weight)


@pytest.mark.parametrize("ratios", [(), (0.0,), (1.0, -1.0)])
def test_ratios_that_are_no_step_sizes_are_refused(ratios):
    with pytest.raises(ValueError, match="positive"):
        quantise_weight(torch.ones(1, 1, 1, 1), ratios)


# --- Convolutions ---------------------------------------------------------------------------------


@needs_int8
@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("levels", [1, 4])
def test_sums_are_exact(shape, levels):
    conv, expected = _make(shape, levels=levels)
    for n, height, width in ((1, 13, 10), (3, 7, 8), (16, 14, 14)):
        spikes = _spikes(n, SHAPES[shape][0], height, width, levels)
        out = conv(spikes)
        assert out.dtype == torch.float32
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(out, expected(spikes))
        assert out.std() > 0


@needs_int8
@pytest.mark.parametrize("bits", [16, 24])
def test_more_bits_are_more_digits(bits):
    conv, expected = _make("3x3", bits=bits)
    assert len(conv.parts) == bits // 8
    spikes = _spikes(2, 33, 9, 8, 4)
    assert torch.equal(conv(spikes), expected(spikes))


@needs_int8_255
@pytest.mark.parametrize("shape", ["1x1", "3x3"])
def test_sums_are_exact_up_to_the_largest_byte(shape):
    conv, expected = _make(shape, levels=255)
    spikes = _spikes(2, SHAPES[shape][0], 9, 11, 255)
    assert torch.equal(conv(spikes), expected(spikes))


@needs_int8
def test_without_spikes():
    conv, _ = _make("3x3")
    assert conv(torch.zeros(2, 33, 5, 5, dtype=torch.uint8)).count_nonzero() == 0
    assert conv(torch.zeros(0, 33, 5, 5, dtype=torch.uint8)).shape == (0, 47, 5, 5)


@needs_int8
def test_sizes_of_images_may_change_between_calls():
    conv, expected = _make("1x1_wide")
    for height, width in ((14, 14), (7, 7), (14, 14), (1, 1), (3, 20)):
        spikes = _spikes(2, 256, height, width)
        assert torch.equal(conv(spikes), expected(spikes))


@needs_int8
@pytest.mark.parametrize("layout", ["contiguous", "sliced", "expanded"])
def test_memory_layout_of_the_spikes_does_not_matter(layout):
    conv, expected = _make("3x3")
    spikes = _spikes(2, 33, 6, 7)
    other = {
        "contiguous": spikes.contiguous(),
        "sliced": torch.stack([spikes, 1 - spikes], -1)[..., 0],
        "expanded": spikes[:1].expand(2, -1, -1, -1),
    }[layout]
    assert torch.equal(conv(other), expected(other))


@needs_int8
def test_copies_and_pickles_after_use():
    conv, _ = _make("3x3_stride2")
    spikes = _spikes(2, 32, 8, 8)
    expected = conv(spikes)
    for other in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert torch.equal(other(spikes), expected)
    assert torch.equal(conv(spikes), expected)


# --- Refusals -------------------------------------------------------------------------------------


@needs_int8_255
def test_sums_that_float32_does_not_hold_are_refused():
    weights = as_integers(torch.randn(1, 9, 23, 23), 24, levels=255)
    with pytest.raises(ValueError, match="more than float32 holds"):
        Int8Digits(weights)


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    int8_available.cache_clear()
    try:
        assert int8_available() == "this build of torch has no oneDNN"
        with pytest.raises(ValueError, match="not available: this build of torch has no oneDNN"):
            _make("1x1")
    finally:
        int8_available.cache_clear()


@needs_int8_255
def test_processors_without_vnni_take_small_spikes_only():
    """Such a processor adds pairs of products in 16 bits; oneDNN can be told to act as on one."""
    code = "from spikevideoformer.deploy.int8 import int8_available as a; print(a(4), '|', a(255))"
    out = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    small, large = out.strip().split(" | ")
    assert small == "None"
    assert "overflows" in large


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests what happens without a GPU")
def test_without_a_gpu_there_is_no_int8_on_it():
    assert int8_available(device="cuda") == "torch sees no CUDA device"
    assert int8_available(device="meta") == "they run on a CPU or a CUDA device, not on meta"


@pytest.mark.gpu
@pytest.mark.parametrize("shape", ["1x1_wide", "3x3_stride2"])
@pytest.mark.parametrize("levels", [1, 4])
def test_cuda_gives_the_numbers_of_a_cpu(shape, levels):
    conv, expected = _make(shape, levels=levels, device="cuda")
    spikes = _spikes(3, SHAPES[shape][0], 13, 10, levels)
    assert torch.equal(conv(spikes.cuda()).cpu(), expected(spikes))
