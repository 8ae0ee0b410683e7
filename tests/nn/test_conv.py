"""Convolutional parts: what RepConv equals, what stochastic depth drops, where spikes go."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spikevideoformer.nn.conv import (
    ChannelConv,
    ConvBlock,
    Downsample,
    RepConv,
    SepConv,
    StochasticDepth,
    per_frame,
)
from spikevideoformer.nn.neuron import Neuron
from spikevideoformer.ops.lif import NeuronConfig

from ..lively import random_norms


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 6)])
def test_repconv_is_one_dense_convolution(size):
    """Kernel and bias found from impulse responses; equal at the borders too."""
    channels = 5
    conv = random_norms(RepConv(channels)).double().eval()
    with torch.no_grad():
        bias = conv(torch.zeros(1, channels, 3, 3).double())[0, :, 1, 1]
        # response in the middle of 3x3 to an impulse of channel i at offset (y, x)
        impulses = torch.eye(channels * 9, dtype=torch.float64).reshape(-1, channels, 3, 3)
        kernel = (conv(impulses)[:, :, 1, 1] - bias).T.reshape(channels, channels, 3, 3)
        x = torch.randn(4, channels, *size, dtype=torch.float64)
        torch.testing.assert_close(
            conv(x), F.conv2d(x, kernel, bias, padding=1), rtol=1e-12, atol=1e-12
        )
    assert kernel.count_nonzero() == kernel.numel()


def test_repconv_border_is_what_its_norm_makes_of_zero():
    """A zero image gives a constant image: nothing is special about the border."""
    conv = random_norms(RepConv(3)).double().eval()
    out = conv(torch.zeros(1, 3, 4, 4).double())
    torch.testing.assert_close(out, out[..., :1, :1].expand_as(out), rtol=0, atol=1e-12)


def test_repconv_weights():
    """2 C^2 + 9 C and three batch norms, no biases."""
    conv = RepConv(12)
    weights = sum(p.numel() for n, p in conv.named_parameters() if p.ndim == 4)
    assert weights == 2 * 12**2 + 9 * 12
    assert sum(p.numel() for p in conv.parameters()) == weights + 3 * 2 * 12


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_repconv_memory_format(memory_format):
    conv = random_norms(RepConv(4)).double().eval()
    x = torch.randn(3, 4, 6, 5, dtype=torch.float64)
    out = conv(x.contiguous(memory_format=memory_format))
    torch.testing.assert_close(out, conv(x), rtol=1e-12, atol=1e-12)


def test_repconv_without_its_outer_norm():
    conv = random_norms(RepConv(3)).eval()
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(conv.bn_out(conv(x, with_bn_out=False)), conv(x))


# --- Stochastic depth -----------------------------------------------------------------------------


def test_stochastic_depth_drops_whole_clips_and_keeps_the_mean():
    drop = StochasticDepth(0.25)
    x = torch.rand(3, 4000, 2, 1, 1) + 1
    out = drop(x)
    ratio = out / x
    kept = ratio[0, :, 0, 0, 0] > 0  # [B]
    assert torch.equal(ratio > 0, kept.reshape(1, -1, 1, 1, 1).expand_as(ratio))  # all frames alike
    torch.testing.assert_close(out[:, kept], x[:, kept] / 0.75)
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert out.mean().item() == pytest.approx(x.mean().item(), rel=0.03)


def test_stochastic_depth_is_identity_in_evaluation_and_at_rate_zero():
    x = torch.randn(2, 3, 4, 5, 5)
    assert StochasticDepth(0.9).eval()(x) is x
    assert StochasticDepth(0.0).train()(x) is x


def test_stochastic_depth_gradient_is_zero_where_dropped():
    x = torch.ones(2, 64, 1, 1, 1, requires_grad=True)
    out = StochasticDepth(0.5)(x)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())


def test_stochastic_depth_keeps_half_precision():
    assert StochasticDepth(0.3)(torch.ones(1, 8, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_blocks_drop_their_branches():
    """Dropped clips of a training ConvBlock pass unchanged through both branches."""
    block = ConvBlock(4, mlp_ratio=2, drop_path=0.5, neuron=NeuronConfig(), reset_each_frame=False)
    x = torch.randn(2, 64, 4, 4, 4)
    unchanged = (block(x) == x).flatten(2).all(2)  # [T, B]
    assert torch.equal(unchanged[0], unchanged[1])
    assert 4 <= unchanged[0].sum() <= 30  # a quarter, as the two branches drop independently
    assert not (block.eval()(x) == x).flatten(2).all(2).any()


# --- Structure ------------------------------------------------------------------------------------


def test_per_frame_treats_every_frame_alike():
    conv = nn.Conv2d(3, 5, 3, stride=2, padding=1)
    x = torch.randn(4, 2, 3, 8, 6)
    out = per_frame(conv, x)
    assert out.shape == (4, 2, 5, 4, 3)
    torch.testing.assert_close(out[2, 1], conv(x[2, 1].unsqueeze(0))[0])


@pytest.mark.parametrize(
    ("kernel_size", "stride", "out"), [(7, 2, (4, 3)), (3, 2, (4, 3)), (3, 1, (8, 6))]
)
def test_downsample_sizes(kernel_size, stride, out):
    down = Downsample(3, 5, kernel_size=kernel_size, stride=stride, neuron=None)
    assert down(torch.randn(2, 1, 3, 8, 6)).shape == (2, 1, 5, *out)
    assert down.conv.bias is not None


@pytest.mark.parametrize("part", ["downsample", "sep_conv", "channel_conv"])
def test_convolutions_receive_spikes(part):
    """All but the pointwise convolution after SepConv's depthwise one, which is documented."""
    config = NeuronConfig()
    module = {
        "downsample": Downsample(8, 8, kernel_size=3, stride=2, neuron=Neuron(config)),
        "sep_conv": SepConv(8, config, False),
        "channel_conv": ChannelConv(8, 4, config, False),
    }[part]
    seen = {}
    for name, m in module.named_modules():
        if isinstance(m, nn.Conv2d):
            m.register_forward_pre_hook(
                lambda _m, args, name=name: seen.update({name: set(args[0].unique().tolist())})
            )
    random_norms(module)(2 * torch.randn(3, 2, 8, 6, 6))
    real = {name for name, values in seen.items() if not values <= {0.0, 1.0}}
    assert real == ({"pw2"} if part == "sep_conv" else set())
    assert len(seen) == {"downsample": 1, "sep_conv": 3, "channel_conv": 2}[part]


def test_only_downsamplings_have_conv_biases():
    for module in (SepConv(8, NeuronConfig(), False), ChannelConv(8, 4, NeuronConfig(), False)):
        assert all(m.bias is None for m in module.modules() if isinstance(m, nn.Conv2d))
