"""Attention modules: tokens and heads, designs and their weights, precision."""

import itertools

import pytest
import torch
from torch import nn

from spikevideoformer.models.backbone import ATTENTION_AXES
from spikevideoformer.nn.attention import (
    DOT_THRESHOLD,
    MLP,
    SpikeAttention,
    TransformerBlock,
    from_tokens,
    to_tokens,
)
from spikevideoformer.nn.neuron import Neuron
from spikevideoformer.ops.hamming import hamming_similarity_reference
from spikevideoformer.ops.lif import NeuronConfig

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
    assert dot.out_neuron.config.v_threshold == DOT_THRESHOLD == 0.5
    assert dot.q_neuron.config.v_threshold == hamming.out_neuron.config.v_threshold == 1
    assert dot.scale == 1 / 8
    assert hamming.scale == 1 / (2 * 16)
    assert not hasattr(dot, "bn")


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
