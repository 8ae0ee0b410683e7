"""Attention modules: tokens and heads, designs and their weights, precision."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import spikevideoformer as svf
from spikevideoformer.models.backbone import ATTENTION_AXES
from spikevideoformer.nn.attention import (
    MLP,
    SoftmaxAttention,
    SpikeAttention,
    TransformerBlock,
    from_tokens,
    time_code,
    to_tokens,
)
from spikevideoformer.nn.block_config import BlockConfig
from spikevideoformer.nn.neuron import Neuron
from spikevideoformer.ops.hamming import hamming_similarity_reference
from spikevideoformer.ops.lif import NeuronConfig, lif_reference

AXES = ["space_time", "space", "time"]


def _attention(channels=16, heads=4, axes="space_time", kind="hamming", **options):
    defaults = {"constant_term": False, "neuron": NeuronConfig(), "reset_each_frame": False}
    return SpikeAttention(channels, heads=heads, axes=axes, kind=kind, **{**defaults, **options})


def _block(channels=16, design="joint", kind="hamming", **options):
    defaults = {
        "heads": 4,
        "constant_term": False,
        "mlp_ratio": 4,
        "drop_path": 0.0,
        "neuron": NeuronConfig(),
        "reset_each_frame": False,
    }
    axes = ATTENTION_AXES[design]
    return TransformerBlock(channels, attention_axes=axes, kind=kind, **{**defaults, **options})


def _lively(module: nn.Module) -> nn.Module:
    """Norms with biases that make about half of the neurons after them fire."""
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.bias, 1.5, 1.5)
    return module


# --- Tokens ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize(("heads", "width"), [(1, 1), (3, 5), (8, 45), (2, 8)])
def test_from_tokens_inverts_to_tokens(axes, heads, width):
    x = torch.randn(4, 2, heads * width, 3, 5)
    tokens = to_tokens(x, heads, axes)
    n = {"space_time": 4 * 15, "space": 15, "time": 4}[axes]
    assert tokens.shape == (x.numel() // (heads * width * n), heads, n, width)
    assert torch.equal(from_tokens(tokens, x.shape, axes), x)


def test_tokens_of_each_design():
    """Which axis is where: spelt out entry by entry."""
    t, b, heads, d, h, w = 2, 3, 2, 5, 2, 4
    x = torch.arange(t * b * heads * d * h * w).reshape(t, b, heads * d, h, w)
    joint, space, time = (to_tokens(x, heads, axes) for axes in AXES)
    for i, j, a, c, y, z in itertools.product(*(range(n) for n in (t, b, heads, d, h, w))):
        value = x[i, j, a * d + c, y, z]
        assert joint[j, a, (i * h + y) * w + z, c] == value
        assert space[i * b + j, a, y * w + z, c] == value
        assert time[(j * h + y) * w + z, a, i, c] == value


# --- One attention --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hamming", "dot"])
@pytest.mark.parametrize("axes", AXES)
def test_attends_to_exactly_its_tokens(kind, axes):
    """A change at one token reaches the tokens of its own sequence and no others.

    Neurons are reset at each frame here, so that membranes carry nothing through time, and the
    projections are left out, so that they carry nothing through space.
    """
    # heads of odd width: no two tokens are exactly half alike, so that no change can hide
    attention = _attention(channels=12, kind=kind, axes=axes, reset_each_frame=True).eval()
    for name in "qkv":
        setattr(attention, f"{name}_conv", nn.Identity())
    x = 3.0 * torch.randint(0, 2, (3, 2, 12, 4, 4))
    y = x.clone()
    y[1, 0, :, 2, 3] = 3 - y[1, 0, :, 2, 3]
    before = []
    hook = attention.out_neuron.register_forward_pre_hook(lambda _m, args: before.append(args[0]))
    attention(x), attention(y)
    hook.remove()
    touched = (before[0] != before[1]).any(2)  # [T, B, H, W]
    expected = torch.zeros_like(touched)
    if axes == "space_time":
        expected[:, 0] = True
    elif axes == "space":
        expected[1, 0] = True
    else:
        expected[:, 0, 2, 3] = True
    assert torch.equal(touched, expected)


@pytest.mark.parametrize("constant_term", [False, True])
def test_is_the_papers_equation(constant_term):
    """Membranes before the last norm, from counted bits."""
    attention = _attention(channels=12, heads=4, constant_term=constant_term)
    _lively(attention).double().eval()
    seen = {}
    for name in ("q_neuron", "k_neuron", "v_neuron", "bn"):
        module = getattr(attention, name)
        module.register_forward_hook(
            lambda _m, args, out, name=name: seen.update({name: args[0] if name == "bn" else out})
        )
    attention(torch.randint(0, 2, (2, 3, 12, 3, 2)).double())
    q, k, v = (to_tokens(seen[f"{z}_neuron"], 4, "space_time") for z in "qkv")
    assert 0.1 < q.mean() < 0.9
    similarity = hamming_similarity_reference(q, k)
    if not constant_term:
        similarity = similarity - 0.5
    # scale 1/(2C) instead of 1/(2d): a factor d/C = 1/heads
    expected = from_tokens(similarity @ v / 4, torch.Size((2, 3, 12, 3, 2)), "space_time")
    torch.testing.assert_close(seen["bn"].unflatten(0, (2, 3)), expected, rtol=1e-12, atol=1e-12)


def test_dot_product_has_its_own_threshold_and_no_norm():
    hamming, dot = _attention(kind="hamming"), _attention(kind="dot")
    assert dot.out_neuron.config.v_threshold == 0.5
    assert dot.q_neuron.config.v_threshold == hamming.out_neuron.config.v_threshold == 1
    assert dot.scale == 1 / 8
    assert hamming.scale == 1 / (2 * 16)
    assert dot.bn is None


NO_NORM = {"attention_norm": False}


@pytest.mark.parametrize(("scale", "s"), [("width", 1 / 32), ("head", 1 / 8), (0.3, 0.3)])
def test_threshold_scale_and_no_norm_as_the_paper_writes_it(scale, s):
    """SN(s (2Q-1) [(2K-1)^T V]): the scale belongs to the threshold."""
    parts = BlockConfig(threshold_scale=scale, attention_norm=False)
    attention = _lively(_attention(channels=16, heads=4, parts=parts)).double().eval()
    assert attention.scale == s
    assert not any(name.startswith("bn") for name in attention.state_dict())
    x = torch.randint(0, 2, (2, 3, 16, 3, 2)).double()
    q, k, v = (to_tokens(z, 4, "space_time") for z in attention.fired(x))
    sums = from_tokens((2 * q - 1) @ ((2 * k - 1).mT @ v), x.shape, "space_time")
    config = attention.out_neuron.config
    expected, _ = lif_reference(sums, replace(config, v_threshold=config.v_threshold / s))
    assert torch.equal(attention(x), expected)
    assert 0 < expected.mean() < 1
    with pytest.raises(ValueError, match="belong to Hamming attention"):
        svf.create_model("svf_nano", attention="dot", block={"threshold_scale": scale, **NO_NORM})
    assert BlockConfig().threshold_scale == "width"
    assert _attention(channels=16).bn is not None


@pytest.mark.parametrize("kind", ["hamming", "dot"])
@pytest.mark.parametrize("levels", [1, 4])
def test_spikes_in_spikes_out(kind, levels):
    neuron = NeuronConfig() if levels == 1 else NeuronConfig.integer(levels)
    attention = _lively(_attention(kind=kind, neuron=neuron))
    out = attention(torch.randint(0, levels + 1, (3, 2, 16, 4, 4)).float())
    assert set(out.unique().tolist()) <= set(map(float, range(levels + 1)))
    assert out.count_nonzero() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["hamming", "dot"])
def test_autocast_gives_the_same_spikes_for_the_same_qkv(dtype, kind):
    """T = 32 at 14 x 14 tokens and d = 45; the projections are left out, the rest is ours."""
    attention = _attention(channels=90, heads=2, kind=kind).eval()
    for name in "qkv":
        setattr(attention, f"{name}_conv", nn.Identity())
    if kind == "hamming":
        attention.bn.running_var.fill_(400.0)
        nn.init.normal_(attention.bn.bias, 0.0, 0.5)
    x = 3 * torch.randint(0, 2, (32, 1, 90, 14, 14)).float()
    with torch.no_grad():
        expected = attention(x)
        with torch.autocast("cpu", dtype=dtype):
            out = attention(x.to(dtype))
    assert torch.equal(out.float(), expected)
    assert expected.count_nonzero() > 0


# --- Softmax attention ----------------------------------------------------------------------------


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize(("channels", "heads"), [(12, 4), (15, 3)])
def test_softmax_attention_is_its_equation(axes, channels, heads):
    """Values and gradients, token by token, with the projections as they are."""
    attention = _lively(SoftmaxAttention(channels, heads=heads, axes=axes)).double().eval()
    x = torch.randn(3, 2, channels, 2, 4, dtype=torch.float64, requires_grad=True)
    out = attention(x)
    coded = x if axes == "space" else x + time_code(x)
    q, k, v = (
        to_tokens(conv(coded.flatten(0, 1)).unflatten(0, (3, 2)), heads, axes)
        for conv in (attention.q_conv, attention.k_conv, attention.v_conv)
    )
    weights = (q @ k.transpose(-2, -1) / (channels // heads) ** 0.5).exp()
    weights = weights / weights.sum(-1, keepdim=True)
    expected = from_tokens(weights @ v, x.shape, axes)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
    wanted, upstream = [x, *attention.parameters()], torch.randn_like(out)
    gradients = (torch.autograd.grad(y, wanted, upstream) for y in (out, expected))
    for got, want in zip(*gradients, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("axes", AXES)
def test_softmax_attends_to_exactly_its_tokens(axes):
    attention = SoftmaxAttention(12, heads=4, axes=axes)
    for name in "qkv":
        setattr(attention, f"{name}_conv", nn.Identity())
    x = torch.randn(3, 2, 12, 4, 4)
    y = x.clone()
    y[1, 0, :, 2, 3] += 1
    touched = (attention(x) != attention(y)).any(2)  # [T, B, H, W]
    expected = torch.zeros_like(touched)
    expected[{"space_time": (slice(None), 0), "space": (1, 0)}.get(axes, (..., 2, 3))] = True
    expected[:, 1] = False
    assert torch.equal(touched, expected)


def test_time_code_by_hand():
    """C = 4: wavelengths 2 pi and 200 pi; other frames have other codes."""
    code = time_code(torch.zeros(3, 2, 4, 5, 5, dtype=torch.float64))
    assert code.shape == (3, 1, 4, 1, 1)
    two = [math.sin(2), math.cos(2), math.sin(0.02), math.cos(0.02)]
    assert code[2].flatten().tolist() == pytest.approx(two, abs=1e-15)
    assert code[0].flatten().tolist() == [0, 1, 0, 1]
    assert time_code(torch.zeros(2, 1, 5, 1, 1)).shape == (2, 1, 5, 1, 1)
    assert time_code(torch.zeros(2, 1, 4, 1, 1, dtype=torch.bfloat16)).dtype == torch.bfloat16
    many = time_code(torch.zeros(128, 1, 64, 1, 1)).flatten(1)
    assert torch.cdist(many, many).fill_diagonal_(1).min() > 0.1


# --- Blocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("design", "units"),
    [("joint", 4), ("hierarchical", 8), ("factorized", 7), ("neuron_only", 4), ("spatial_only", 4)],
)
@pytest.mark.parametrize("kind", ["hamming", "dot"])
def test_weights_of_each_design(design, units, kind):
    """The paper's counts, where a RepConv projection has 2 D^2 + 9 D weights instead of D^2."""
    d = 24
    block = _block(d, design, kind)
    weights = sum(p.numel() for p in block.attention.parameters() if p.ndim == 4)
    assert weights == units * (2 * d**2 + 9 * d)
    pointwise = sum(
        p.numel() for p in block.attention.parameters() if p.ndim == 4 and p.shape[2:] == (1, 1)
    )
    assert pointwise == units * 2 * d**2
    norms = sum(p.numel() for p in block.attention.parameters() if p.ndim == 1)
    attention_norms = len([m for m in block.modules() if isinstance(m, SpikeAttention)])
    assert norms == 2 * d * (3 * units + (attention_norms if kind == "hamming" else 0))


def test_mlp_weights():
    mlp = MLP(16, 4, NeuronConfig(), False)
    weights = 2 * 4 * 16**2 + 4 * 16 + 16 + 2 * (4 * 16) + 2 * 16
    assert sum(p.numel() for p in mlp.parameters()) == weights


@pytest.mark.parametrize("design", list(ATTENTION_AXES))
def test_closed_branches_leave_the_membrane_unchanged(design):
    """Residuals are membrane shortcuts: with the last norms at zero a block is the identity."""
    block = _block(design=design)
    u = torch.randn(2, 2, 16, 3, 3)
    assert not torch.equal(block(u), u)
    for norm in block.last_norms():
        nn.init.zeros_(norm.weight)
        nn.init.zeros_(norm.bias)
    assert torch.equal(block(u), u)


def test_every_convolution_but_those_in_repconv_receives_spikes():
    block = _lively(_block())
    seen = {}
    for name, m in block.named_modules():
        if isinstance(m, nn.Conv2d):
            m.register_forward_pre_hook(
                lambda _m, args, name=name: seen.update({name: set(args[0].unique().tolist())})
            )
    block(3 * torch.randn(2, 2, 16, 4, 4))
    real = {name for name, values in seen.items() if not values <= {0.0, 1.0}}
    assert real == {name for name in seen if name.endswith((".dw", ".pw2"))}
    assert len(seen) == 4 * 3 + 2


def test_number_of_neurons():
    assert sum(isinstance(m, Neuron) for m in _block().modules()) == 1 + 3 + 1 + 2
