"""Byte spikes through int8 weights: rounding of weights, and convolutions against plain torch."""

import copy
import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from spikevideoformer.deploy.int8 import Int8SpikeConv2d, int8_available, int8_conv_reference
from spikevideoformer.ops.exact_conv import STEP_RATIOS, quantise_weight

needs_int8 = pytest.mark.skipif(int8_available() is not None, reason=str(int8_available()))
needs_int8_255 = pytest.mark.skipif(
    int8_available(255) is not None, reason=str(int8_available(255))
)

# in, out, kernel, stride, padding, groups
SHAPES = {
    "1x1": (24, 40, 1, 1, 0, 1),
    "1x1_wide": (256, 1024, 1, 1, 0, 1),
    "3x3": (33, 47, 3, 1, 1, 1),
    "3x3_stride2": (32, 64, 3, 2, 1, 1),
    "depthwise_7x7": (48, 48, 7, 1, 3, 48),
    "depthwise_odd": (5, 5, 7, 1, 3, 5),
    "dense_7x7": (16, 8, 7, 1, 3, 1),
    "no_padding": (8, 8, 3, 1, 0, 1),
    "grouped": (12, 18, 3, 1, 1, 3),
}


def _spikes(n, channels, height, width, levels=1):
    spikes = torch.randint(levels + 1, (n, channels, height, width), dtype=torch.uint8)
    return spikes.contiguous(memory_format=torch.channels_last)


def _make(shape, *, bias=True, **options):
    channels, out, kernel, stride, padding, groups = SHAPES[shape]
    weight = 0.1 * torch.randn(out, channels // groups, kernel, kernel)
    weight *= torch.logspace(-2, 1, out).reshape(-1, 1, 1, 1)  # channels of different sizes
    b = torch.randn(out) if bias else None
    return Int8SpikeConv2d(weight, b, stride=stride, padding=padding, groups=groups, **options), {
        "stride": stride,
        "padding": padding,
        "groups": groups,
    }


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
def test_equals_the_reference(shape, levels):
    for n, height, width in ((1, 13, 10), (3, 7, 8), (16, 14, 14)):
        _assert_equals_reference(shape, levels, n, height, width)


@needs_int8_255
@pytest.mark.parametrize("shape", list(SHAPES))
def test_equals_the_reference_up_to_the_largest_byte(shape):
    _assert_equals_reference(shape, 255, 2, 9, 11)


def _assert_equals_reference(shape, levels, n, height, width):
    """Sums are integers, so all that may differ is the rounding of step * sum + bias."""
    conv, options = _make(shape, levels=levels)
    spikes = _spikes(n, SHAPES[shape][0], height, width, levels)
    out = conv(spikes)
    expected = int8_conv_reference(spikes, conv.weight, conv.step, conv.bias, **options)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    largest = (expected - conv.bias[:, None, None]).abs() + conv.bias.abs()[:, None, None]
    assert ((out - expected).abs() <= 2e-7 * largest).all()
    assert expected.std() > 0


@needs_int8
@pytest.mark.parametrize("shape", ["1x1", "3x3_stride2", "depthwise_7x7"])
def test_bfloat16_out_is_the_float32_rounded(shape):
    conv, _ = _make(shape)
    half = copy.deepcopy(conv)
    half.out_dtype = torch.bfloat16
    spikes = _spikes(2, SHAPES[shape][0], 9, 8)
    out, expected = half(spikes), conv(spikes)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=2**-8, atol=1e-6)


@needs_int8
def test_without_bias_and_without_spikes():
    conv, _ = _make("3x3", bias=False)
    assert conv(torch.zeros(2, 33, 5, 5, dtype=torch.uint8)).count_nonzero() == 0
    assert conv(torch.zeros(0, 33, 5, 5, dtype=torch.uint8)).shape == (0, 47, 5, 5)


@needs_int8
def test_sizes_of_images_may_change_between_calls():
    conv, options = _make("1x1_wide")
    for height, width in ((14, 14), (7, 7), (14, 14), (1, 1), (3, 20)):
        spikes = _spikes(2, 256, height, width)
        expected = int8_conv_reference(spikes, conv.weight, conv.step, conv.bias, **options)
        torch.testing.assert_close(conv(spikes), expected.float(), rtol=1e-5, atol=1e-5)


@needs_int8
@pytest.mark.parametrize("layout", ["contiguous", "sliced", "expanded"])
def test_memory_layout_of_the_spikes_does_not_matter(layout):
    conv, _ = _make("3x3")
    spikes = _spikes(2, 33, 6, 7)
    other = {
        "contiguous": spikes.contiguous(),
        "sliced": torch.stack([spikes, 1 - spikes], -1)[..., 0],
        "expanded": spikes[:1].expand(2, -1, -1, -1),
    }[layout]
    expected = conv(spikes)
    if layout == "expanded":
        expected = expected[:1].expand(2, -1, -1, -1)
    assert torch.equal(conv(other), expected)


@needs_int8
def test_real_weights_are_off_by_their_rounding_only():
    """Under 1 % for spikes of a usual rate, as every weight is off by a part of a step."""
    real = nn.Conv2d(64, 64, 3, padding=1)
    conv = Int8SpikeConv2d.from_conv(real)
    spikes = (torch.rand(4, 64, 12, 12) < 0.2).to(torch.uint8)
    with torch.no_grad():
        expected = real(spikes.float())
    assert (conv(spikes) - expected).norm() < 0.01 * expected.norm()
    assert isinstance(conv, Int8SpikeConv2d)
    assert "64, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1)" in repr(conv)


@needs_int8
def test_copies_and_pickles_after_use():
    conv, _ = _make("3x3_stride2")
    spikes = _spikes(2, 32, 8, 8)
    expected = conv(spikes)
    for other in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert torch.equal(other(spikes), expected)
    assert torch.equal(conv(spikes), expected)


@needs_int8
def test_loaded_weights_are_used():
    conv, _ = _make("3x3")
    other, _ = _make("3x3")
    spikes = _spikes(2, 33, 8, 8)
    expected = other(spikes)
    assert not torch.equal(conv(spikes), expected)
    conv.load_state_dict(other.state_dict())
    assert torch.equal(conv(spikes), expected)


@needs_int8
def test_a_cast_of_the_model_around_it_changes_nothing():
    conv, _ = _make("3x3")
    spikes = _spikes(2, 33, 8, 8)
    expected = conv(spikes)
    nn.Sequential(conv).to(torch.bfloat16, memory_format=torch.channels_last)
    assert conv.step.dtype == torch.float32
    assert torch.equal(conv(spikes), expected)
    with pytest.raises(ValueError, match="run on a CPU"):
        conv.to("meta")


# --- Refusals -------------------------------------------------------------------------------------


@needs_int8
@pytest.mark.parametrize(
    ("spikes", "says"),
    [
        (torch.zeros(1, 33, 4, 4), "torch.float32"),
        (torch.zeros(1, 33, 4, 4, dtype=torch.int8), "torch.int8"),
        (torch.zeros(33, 4, 4, dtype=torch.uint8), r"\(33, 4, 4\)"),
        (torch.zeros(1, 32, 4, 4, dtype=torch.uint8), r"expected uint8 spikes \[N, 33, H, W\]"),
    ],
)
def test_wrong_spikes_are_refused_in_one_line(spikes, says):
    conv, _ = _make("3x3")
    with pytest.raises(ValueError, match=says) as error:
        conv(spikes)
    assert "\n" not in str(error.value)


@needs_int8
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"weight": torch.ones(3, 3)}, "weight has shape"),
        ({"out_dtype": torch.float64}, "choose torch.float32 or torch.bfloat16"),
        ({"levels": 256}, r"1\.\.255"),
        ({"levels": 0}, r"1\.\.255"),
        ({"weight": torch.ones(1, 70_000, 2, 1), "levels": 129}, "more than 32 bits hold"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(options, says):
    with pytest.raises(ValueError, match=says) as error:
        Int8SpikeConv2d(**{"weight": torch.ones(2, 2, 1, 1), **options})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"padding": "same"}, "padding is 'same'"),
        ({"padding": 1, "padding_mode": "reflect"}, "reflect"),
        ({"dilation": 2}, "dilation"),
    ],
)
def test_other_convolutions_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        Int8SpikeConv2d.from_conv(nn.Conv2d(2, 2, 3, **options))


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    int8_available.cache_clear()
    try:
        assert int8_available() == "this build of torch has no oneDNN"
        with pytest.raises(ValueError, match="not available: this build of torch has no oneDNN"):
            Int8SpikeConv2d(torch.ones(1, 1, 1, 1))
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
@needs_int8
@pytest.mark.parametrize("shape", ["1x1_wide", "3x3_stride2", "depthwise_7x7", "depthwise_odd"])
@pytest.mark.parametrize("levels", [1, 4])
def test_cuda_gives_the_numbers_of_a_cpu(shape, levels):
    conv, _ = _make(shape, levels=levels)
    spikes = _spikes(3, SHAPES[shape][0], 13, 10, levels)
    expected = conv(spikes)
    conv.cuda()
    assert conv.step.is_cuda
    torch.testing.assert_close(conv(spikes.cuda()).cpu(), expected, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="the spikes are on cpu, the weights on cuda"):
        conv(spikes)
    assert torch.equal(conv.cpu()(spikes), expected)


@pytest.mark.gpu
@needs_int8
def test_other_groups_stay_on_the_cpu():
    conv, _ = _make("grouped")
    with pytest.raises(ValueError, match="groups is 3 for 12 channels in and 18 out"):
        conv.cuda()
