"""Projections of E-SpikeFormer, factors of channels and normalised integers, merged.

`test_fold` has the merges of RepConv and SepConv.
"""

import pytest
import torch
from torch import nn

from spikevideoformer.deploy.merge import fold_conv_bn, merge_projection, times
from spikevideoformer.nn.conv import ChannelScale, ConvPair, PlainConv, Projection, SpikeConv2d
from spikevideoformer.ops.lif import NeuronConfig

from ..lively import random_norms

NORMALISED = NeuronConfig.of_kind("ni_lif", levels=8)


@pytest.mark.parametrize("neuron", [NeuronConfig(), NORMALISED], ids=["lif", "ni_lif"])
@pytest.mark.parametrize(
    "make",
    [
        lambda neuron: PlainConv(5, 20, neuron),
        lambda neuron: ConvPair(6, 9, 6, neuron),
        lambda neuron: ConvPair(6, 6, 6, neuron, outer=False),
    ],
    ids=["plain", "pair", "pair_without_outer_norm"],
)
def test_a_projection_is_one_convolution(make, neuron):
    part = random_norms(make(neuron)).double().eval()
    weight, bias = merge_projection(part)
    x = torch.randint(neuron.levels + 1, (2, weight.shape[1], 4, 3)).double()
    merged = nn.functional.conv2d(x, weight, bias)
    torch.testing.assert_close(merged, part(x), rtol=0, atol=1e-12)


def test_a_factor_of_each_channel_goes_into_the_convolution():
    conv = SpikeConv2d(4, 6, 3, padding=1, neuron=NORMALISED)
    scale = ChannelScale(6)
    nn.init.normal_(scale.weight)
    whole = random_norms(nn.Sequential(conv, nn.BatchNorm2d(6), scale)).double().eval()
    x = torch.randint(9, (2, 4, 5, 5)).double()
    weight, bias = times(fold_conv_bn(whole[0], whole[1]), whole[2])
    merged = nn.functional.conv2d(x, weight, bias, padding=1)
    torch.testing.assert_close(merged, whole(x), rtol=0, atol=1e-12)
    same = times((weight, bias), nn.Identity())
    assert same[0] is weight
    assert same[1] is bias


def test_an_unknown_projection_is_refused():
    with pytest.raises(ValueError, match="got a Projection, a projection that is not known"):
        merge_projection(Projection())
