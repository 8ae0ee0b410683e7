"""Integer spikes and their D binary sub-steps are the same numbers, bit for bit."""

import pytest
import torch

from spikevideoformer.ops.exact_conv import as_integers
from spikevideoformer.ops.hamming import dot_attention
from spikevideoformer.ops.lif import NeuronConfig, lif_reference, unroll_integer_lif
from spikevideoformer.ops.unroll import (
    bias_of_sub_steps,
    integer_conv,
    unrolled_conv,
    unrolled_products,
)


@pytest.mark.parametrize("levels", [1, 3, 4, 8])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "groups"),
    [(1, 1, 0, 1), (3, 1, 1, 1), (3, 2, 1, 1), (7, 1, 3, 6)],
)
def test_a_convolution_with_its_bias(levels, kernel, stride, padding, groups):
    spikes = torch.randint(levels + 1, (2, 6, 9, 7), dtype=torch.uint8)
    weights = as_integers(torch.randn(12, 6 // groups, kernel, kernel), 24, levels=levels)
    bias = torch.randint(-(2**40), 2**40, (12,))
    geometry = (stride, stride), (padding, padding), groups
    whole = integer_conv(spikes, weights.integers, bias, *geometry)
    steps = unrolled_conv(spikes, weights.integers, bias, *geometry, levels=levels)
    assert steps.shape == (levels, *whole.shape)
    assert steps.dtype == whole.dtype == torch.int64
    assert torch.equal(steps.sum(0), whole)
    without = unrolled_conv(spikes, weights.integers, None, *geometry, levels=levels).sum(0)
    assert torch.equal(without + bias[:, None, None], whole)
    # of a layer that forgets to share it out, the bias would be there D times
    assert levels == 1 or not torch.equal(without + levels * bias[:, None, None], whole)


def test_every_sub_step_has_its_share_of_the_bias():
    bias = torch.tensor([7, -7, 0, 4, -1])
    shares = bias_of_sub_steps(bias, 4)
    assert shares.shape == (4, 5)
    assert torch.equal(shares.sum(0), bias)
    assert (shares.amax(0) - shares.amin(0)).max() <= 1
    for wrong in ((torch.ones(2), 4), (bias, 0)):
        with pytest.raises(ValueError, match="expected integers and at least 1"):
            bias_of_sub_steps(*wrong)


@pytest.mark.parametrize("levels", [1, 4, 8])
def test_attention(levels):
    q, k, v = (torch.randint(levels + 1, (2, 3, n, d)) for n, d in ((5, 4), (6, 4), (6, 16)))
    expected = q @ (k.mT @ v)
    assert torch.equal(unrolled_products(q, k, v, levels), expected)
    fast = dot_attention(*(z.float() for z in (q, k, v)), scale=levels**2, levels=levels)
    assert torch.equal(fast, expected.float())


@pytest.mark.parametrize("rounding", ["half_even", "half_up"])
def test_neurons(rounding):
    """The spikes of the sub-steps, from a neuron, ties and all."""
    config = NeuronConfig.of_kind("ni_lif", levels=4, rounding=rounding)
    x = torch.randint(-4, 24, (3, 2, 50)) / 4
    steps, _ = unroll_integer_lif(x, config)
    spikes, _ = lif_reference(x, config)
    assert steps.shape == (3, 4, 2, 50)
    assert set(steps.unique().tolist()) == {0, 1}
    assert torch.equal(steps.sum(1), spikes)
    assert {0.0, 1.0, 2.0, 3.0, 4.0} == set(spikes.unique().tolist())


def test_sums_beyond_whole_numbers_of_float64_are_refused():
    weights = torch.full((1, 2**24, 1, 1), 2**30)
    with pytest.raises(ValueError, match=r"more than 2\^53"):
        integer_conv(torch.ones(1, 2**24, 1, 1, dtype=torch.uint8), weights)
    with pytest.raises(ValueError, match=r"expected 0\.\.3"):
        unrolled_conv(torch.tensor([[[[4]]]]), torch.ones(1, 1, 1, 1, dtype=torch.int32), levels=3)
