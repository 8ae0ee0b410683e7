"""The stream between steps has the model's order of operations; `test_engine` runs the steps."""

import torch
from torch import nn

from spikevideoformer.deploy.steps import Build, Stream
from spikevideoformer.nn.conv import ChannelScale, SpikeConv2d
from spikevideoformer.ops.lif import NeuronConfig


def test_a_convolution_with_a_factor_has_the_bits_of_the_modules():
    torch.manual_seed(0)
    neuron = NeuronConfig.of_kind("ni_lif", levels=3)
    conv, bn, scale = SpikeConv2d(5, 7, 1, neuron=neuron), nn.BatchNorm2d(7), ChannelScale(7)
    bn.running_mean.normal_()
    nn.init.normal_(scale.weight)
    bn.eval()
    spikes = torch.randint(4, (2, 3, 5, 4, 4)).float()
    u = torch.randn(2, 3, 7, 4, 4)
    with torch.no_grad():
        part = bn(conv(spikes.flatten(0, 1))).unflatten(0, (2, 3))
        expected = u + scale(part)
        stream = Build(None, 3, torch.device("cpu")).conv(conv, bn, scale)(spikes)
        assert torch.equal(Stream(stream.x, stream.norm, u).value(), expected)
        exact = Build(24, 3, torch.device("cpu")).conv(conv, bn, scale)(spikes.to(torch.uint8))
        value = Stream(exact.x, exact.norm, u, exact=True).value()
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-5)
