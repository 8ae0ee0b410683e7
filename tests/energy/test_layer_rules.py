"""Layers, attention, norms and neurons against arithmetic by hand and sums of spikes."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import spikevideoformer as svf
from spikevideoformer.energy.count import count_operations
from spikevideoformer.nn.attention import SpikeAttention
from spikevideoformer.nn.conv import RepConv, SepConv
from spikevideoformer.nn.neuron import Neuron
from spikevideoformer.ops.hamming import dot_attention, hamming_attention
from spikevideoformer.ops.lif import NeuronConfig

# --- Small networks, by hand ----------------------------------------------------------------------
# Where every neuron fires, an addition is made for each tap that lies inside the image. Along an
# axis of 5 cells a padded kernel of 3 has 5 * 3 - 2 = 13 taps inside.

ALL = 4.0  # a current at which a neuron fires


def full(*shape: int) -> Tensor:
    return torch.full(shape, ALL)


def test_dense_padded_convolution(fires, layers) -> None:
    (conv,) = layers(nn.Sequential(fires(), nn.Conv2d(2, 3, 3, padding=1)), full(4, 2, 5, 5))
    assert conv.macs == 4 * (5 * 5) * (3 * 3) * 2 * 3  # images, outputs, kernel, channels
    assert conv.acs == conv.additions == 4 * (13 * 13) * 2 * 3
    assert conv.padding_macs == conv.macs - conv.acs
    assert (conv.multiplications, conv.rate, conv.operand) == (0, 1.0, "spikes")
    assert conv.weights_read == 3 * 3 * 2 * 3
    assert (conv.bits_in, conv.bits_out) == (4 * 2 * 5 * 5, 32 * 4 * 3 * 5 * 5)


def test_strided_convolution(fires, layers) -> None:
    conv = nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False)
    (count,) = layers(nn.Sequential(fires(), conv), full(4, 2, 6, 6))
    # outputs at cells 0, 2, 4 of 6 reach cells -1..1, 1..3, 3..5: 2 + 3 + 3 = 8 inside
    assert count.macs == 4 * (3 * 3) * (3 * 3) * 2 * 3
    assert count.acs == 4 * (8 * 8) * 2 * 3


def test_depthwise_convolution(fires, layers) -> None:
    conv = nn.Conv2d(6, 6, 7, padding=3, groups=6, bias=False)
    (count,) = layers(nn.Sequential(fires(), conv), full(2, 6, 8, 8))
    # 8 cells, kernel 7: of 8 * 7 taps 3 + 2 + 1 fall off on each side
    assert count.macs == 2 * (8 * 8) * (7 * 7) * 6
    assert count.acs == 2 * (8 * 7 - 12) ** 2 * 6


def test_pointwise_convolution(fires, layers, currents) -> None:
    x = currents(3, 4, 6, 6)
    (count,) = layers(nn.Sequential(fires(), nn.Conv2d(4, 10, 1)), x)
    spikes = int((x > 0).sum())
    assert count.acs == 10 * spikes
    assert count.rate == pytest.approx(spikes / (3 * 4 * 36))
    assert count.acs == pytest.approx(count.macs * count.rate)  # without padding: papers' formula


def test_convolution_of_one_axis(fires, layers) -> None:
    (count,) = layers(nn.Sequential(fires(), nn.Conv1d(3, 5, 3, padding=1)), full(2, 3, 7))
    assert count.macs == 2 * 7 * 3 * 3 * 5
    assert count.acs == 2 * (7 * 3 - 2) * 3 * 5


def test_linear_layer(fires, layers, currents) -> None:
    x = currents(5, 6, 8)
    (count,) = layers(nn.Sequential(fires(), nn.Linear(8, 7)), x)
    assert count.macs == 5 * 6 * 8 * 7
    assert count.acs == 7 * int((x > 0).sum())


def test_real_input_is_multiplied(layers) -> None:
    first, bias = layers(nn.Conv2d(3, 8, 7, 2, 3), torch.randn(2, 3, 8, 8), kinds="conv bias")
    # outputs at 0, 2, 4, 6 of 8 cells reach -3..3, -1..5, 1..7, 3..9: 4 + 6 + 7 + 5 = 22 inside
    assert first.macs == 2 * (4 * 4) * (7 * 7) * 3 * 8
    assert first.multiplications == first.additions == 2 * (22 * 22) * 3 * 8
    assert (first.acs, first.rate, first.paper_rate, first.operand) == (0, None, None, "real")
    assert bias.additions == 2 * 8 * 4 * 4


def test_integer_spikes_count_as_many_additions(fires, layers) -> None:
    config = NeuronConfig.integer(4)
    x = torch.tensor([0.0, 1.2, 3.0, 9.0]).reshape(1, 1, 2, 2)  # fire 0, 1, 3 and 4
    (count,) = layers(nn.Sequential(fires(config), nn.Conv2d(1, 5, 1)), x)
    assert count.acs == (0 + 1 + 3 + 4) * 5
    assert count.rate == 2.0
    assert count.bits_in == 4 * 3  # 0..4 in ceil(log2(5)) bits


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.Conv2d, {"kernel_size": 3, "padding": 1}),
        (nn.Conv2d, {"kernel_size": (3, 5), "stride": (2, 1), "padding": (0, 2)}),
        (nn.Conv2d, {"kernel_size": 3, "dilation": 2, "padding": 1, "groups": 2}),
        (nn.Conv2d, {"kernel_size": 1, "padding": 1}),
        (nn.Conv2d, {"kernel_size": 4, "stride": 3}),
        (nn.ConvTranspose2d, {"kernel_size": 3, "stride": 2, "padding": 1}),
        (nn.ConvTranspose2d, {"kernel_size": 4, "groups": 2, "dilation": 2, "padding": 3}),
    ],
)
def test_additions_are_what_kernels_of_ones_sum(fires, layers, currents, kind, options) -> None:
    x = currents(2, 4, 9, 10)
    spikes = (x > 0).double()
    conv = kind(4, 6, bias=False, **options)
    (count,) = layers(nn.Sequential(fires(), conv), x)
    with FlopCounterMode(display=False) as flops:
        conv(x)
    assert count.macs == flops.get_total_flops() / 2
    ones = kind(4, 6, bias=False, **options).double()
    nn.init.ones_(ones.weight)
    assert count.acs == ones(spikes).sum().item()
    assert count.macs - count.padding_macs == ones(torch.ones_like(spikes)).sum().item()


# --- Attention ------------------------------------------------------------------------------------


class Attends(nn.Module):
    """An attention on comparisons, which are spikes."""

    def __init__(self, function, **options) -> None:
        super().__init__()
        self.function, self.options = function, options

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = ((z > 0).to(z.dtype) for z in (q, k, v))
        return self.function(q, k, v, scale=1.0, backend="reference", **self.options)


@pytest.fixture
def qkv(currents) -> list[Tensor]:
    """``[B=2, h=3, N=10, d=4]``"""
    return [currents(2, 3, 10, 4, rate=r, seed=i) for i, r in enumerate((0.5, 0.3, 0.2))]


def test_hamming_attention_in_linear_order(layers, qkv) -> None:
    inner, outer = layers(Attends(hamming_attention), *qkv)
    value_spikes = int((qkv[2] > 0).sum())
    N, d, heads = 10, 4, 2 * 3
    # each value spike adds or subtracts the d bits of its key
    assert inner.additions == value_spikes * d
    assert inner.rate == pytest.approx(value_spikes / (heads * N * d))
    # each bit of Q' adds or subtracts a row of d sums
    assert outer.additions == heads * N * d * d
    assert outer.rate == pytest.approx((qkv[0] > 0).float().mean().item())  # of Q, as papers have
    assert inner.macs == outer.macs == heads * N * d * d
    assert inner.multiplications == outer.multiplications == 0


def test_hamming_attention_in_quadratic_order(layers, qkv) -> None:
    inner, outer = layers(Attends(hamming_attention, order="quadratic"), *qkv)
    value_spikes = int((qkv[2] > 0).sum())
    N, d, heads = 10, 4, 2 * 3
    assert inner.additions == heads * N * N * d  # Q' K'^T
    assert outer.additions == value_spikes * N  # each value spike adds a column of N similarities
    assert inner.macs == outer.macs == heads * N * N * d


@pytest.mark.parametrize("order", ["linear", "quadratic"])
def test_dot_attention(layers, qkv, order) -> None:
    inner, outer = layers(Attends(dot_attention, order=order), *qkv)
    q, k, v = ((z > 0).double() for z in qkv)
    if order == "linear":
        assert inner.additions == (k.mT @ v).sum().item()  # pairs in which both fire
        assert outer.additions == q.sum().item() * 4
    else:
        assert inner.additions == (q @ k.mT).sum().item()
        assert outer.additions == v.sum().item() * 10


def test_what_else_hamming_attention_does(counted, qkv) -> None:
    counts = counted(Attends(hamming_attention), *qkv)
    bits = 2 * 3 * 10 * 4
    others = [o for o in counts.operations if o.kind != "attention"]
    assert sum(o.shifts for o in others) == 2 * bits  # 2Q and 2K
    assert sum(o.additions for o in others) == 2 * bits  # minus 1
    assert sum(o.multiplications for o in counts.operations) == 0


def test_integer_attention(layers) -> None:
    config = NeuronConfig.integer(2)

    class Integers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neuron = Neuron(config)

        def forward(self, qkv: Tensor) -> Tensor:
            q, k, v = self.neuron(qkv.unsqueeze(0))[0].unbind()
            return hamming_attention(q, k, v, scale=1.0, levels=2, backend="reference")

    q, k, v = [[0.0, 2.0]], [[1.0, 2.0]], [[1.0, 2.0]]  # N = 1, d = 2
    inner, outer = layers(Integers(), torch.tensor([q, k, v]))
    # |K'| = |2K - 2| = (0, 2), V = (1, 2): (0 + 2) * (1 + 2); |Q'| = (2, 2), two sums each
    assert inner.additions == 6
    assert outer.additions == 4 * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_counting_changes_no_result(qkv, dtype) -> None:
    qkv = [z.to(dtype) for z in qkv]
    for options in ({}, {"order": "quadratic"}, {"constant_term": True}):
        module = Attends(hamming_attention, **options).eval()
        seen: list[Tensor] = []
        module.register_forward_hook(lambda *a, seen=seen: seen.append(a[2]))
        module(*qkv)
        count_operations(module, *qkv)
        assert torch.equal(*seen)


def test_attention_module(layers) -> None:
    torch.manual_seed(0)
    module = SpikeAttention(
        8,
        heads=2,
        axes="space_time",
        kind="hamming",
        constant_term=False,
        neuron=NeuronConfig(),
        reset_each_frame=False,
    )
    x = torch.randn(3, 1, 8, 2, 2)
    products = layers(module, x, kinds="attention")
    N, C, d = 3 * 2 * 2, 8, 4
    assert [o.macs for o in products] == [N * C * d] * 2
    assert products[1].additions == N * C * d


# --- RepConv and SepConv, as they are and merged --------------------------------------------------


def test_repconv_as_it_is(nano, by_module, spikes_of) -> None:
    model, video = nano
    found = by_module(model, video)
    place = "backbone.stage3.blocks.0.attention.0.steps.0.q_conv"
    pw1, dw, pw2 = (found[f"{place}.{name}"][0] for name in ("pw1", "dw", "pw2"))
    T, C, side = 2, 64, 2
    spikes = spikes_of(model, video, "backbone.stage3.blocks.0.attention.0.neuron").sum().item()
    assert spikes > 0
    assert pw1.paper_macs == T * side**2 * C * C
    assert pw1.macs == T * (side + 2) ** 2 * C * C  # its border of one pixel is computed
    assert pw1.additions == C * spikes
    assert dw.multiplications == dw.macs == T * side**2 * 9 * C  # real values, no padding
    assert pw2.multiplications == T * side**2 * C * C
    assert dw.paper_rate == pw2.paper_rate == pw1.rate == pytest.approx(spikes / (T * C * side**2))


def test_repconv_merged(nano, by_module, spikes_of) -> None:
    model, video = nano
    folded = svf.fold_for_inference(model)
    (count, _) = by_module(folded, video)["backbone.stage3.blocks.0.attention.0.steps.0.q_conv"]
    spikes = spikes_of(folded, video, "backbone.stage3.blocks.0.attention.0.neuron")[:, 0]
    T, C, side = 2, 64, 2
    assert count.macs == T * side**2 * 9 * C * C
    assert count.multiplications == 0
    ones = torch.ones(C, C, 3, 3, dtype=torch.float64)
    assert count.additions == F.conv2d(spikes, ones, padding=1).sum().item()


def test_sepconv_as_it_is_and_merged(nano, by_module, spikes_of) -> None:
    model, video = nano
    T, C, side = 2, 16, 8
    place = "backbone.stage1b.blocks.0.sep_conv"
    found = by_module(model, video)
    assert found[f"{place}.pw2"][0].multiplications == T * side**2 * 2 * C * C
    assert found[f"{place}.dw"][0].multiplications == 0
    factorised = by_module(svf.fold_for_inference(model), video)
    assert factorised[f"{place}.pw2"][0].multiplications == T * side**2 * 2 * C * C
    folded = svf.fold_for_inference(model, sepconv="dense")
    dense = by_module(folded, video)[f"{place}.dw"][0]
    assert (dense.macs, dense.multiplications) == (T * side**2 * 49 * 2 * C * C, 0)
    spikes = spikes_of(folded, video, f"{place}.neuron2")[:, 0]
    ones = torch.ones(C, 2 * C, 7, 7, dtype=torch.float64)
    assert dense.additions == F.conv2d(spikes, ones, padding=3).sum().item()


def test_segmentation_head_by_hand(segmenting, by_module, spikes_of) -> None:
    """Widths 16, 32, 64, 80 at sides 8, 4, 2, 2; F = 80, and 40 at the finest."""
    model, video = segmenting
    found = by_module(model, video)
    T, K = 2, 5
    shapes = {  # in, out, kernel, side
        "lateral4": (80, 80, 1, 2),
        "lateral3": (64, 80, 1, 2),
        "smooth16": (80, 80, 3, 2),
        "lateral2": (32, 80, 1, 4),
        "smooth8": (80, 80, 3, 4),
        "lateral1": (16, 40, 1, 8),
        "narrow8": (80, 40, 1, 4),
        "smooth4": (40, 40, 3, 8),
    }
    for name, (c, o, k, side) in shapes.items():
        (conv,) = found[f"head.{name}.conv"]
        assert conv.macs == T * side**2 * k * k * c * o, name
        spikes = spikes_of(model, video, f"head.{name}.neuron")[:, 0]
        ones = torch.ones(o, c, k, k, dtype=torch.float64)
        sums = F.conv2d(spikes, ones, padding=k // 2).sum().item()
        assert (conv.additions, conv.multiplications) == (sums, 0), name
        assert sums > 0
        (norm,) = found[f"head.{name}.bn"]
        assert norm.multiplications == norm.additions == T * side**2 * o
    fc, bias = found["head.fc"]
    assert fc.macs == T * 8**2 * 40 * K
    assert fc.additions == K * spikes_of(model, video, "head.neuron").sum().item()
    assert (bias.kind, bias.additions) == ("bias", T * 8**2 * K)
    # up2 of 80 channels to side 4 and of 40 to side 8, up4 of 5 classes to 32
    sizes = [T * 80 * 4**2, T * 40 * 8**2, T * K * 32**2]
    ups = [o for o in found["head"] if o.operation == "upsample_bilinear2d"]
    assert [o.additions for o in ups] == [6 * sizes[0], 6 * sizes[1], 7.5 * sizes[2]]
    assert [o.shifts for o in ups] == [3 * sizes[0], 3 * sizes[1], 4.5 * sizes[2]]
    residuals = [o.additions for o in found["head"] if o.kind == "residual"]
    expected = [80 * 4, 80 * 4, 80 * 16, 80 * 16, 40 * 64, 40 * 64]
    assert residuals == [T * n for n in expected]


@pytest.mark.parametrize("part", [RepConv, SepConv])
def test_parts_alone(counted, part) -> None:
    """Outside of a network, on real input for RepConv."""
    torch.manual_seed(0)
    if part is RepConv:
        counts, C = counted(RepConv(4), torch.randn(2, 4, 5, 5)), 4
        # 1x1 on 5x5, depthwise on 7x7 -> 5x5, 1x1; three norms, the first on 7x7
        inside = 2 * 25 * (C * C + 9 * C + C * C)
        norms = 2 * C * (49 + 25 + 25)
        assert counts.total.multiplications == inside + norms
    else:
        counts = counted(SepConv(4, NeuronConfig(), False), torch.randn(2, 1, 4, 5, 5))
        assert counts.total.neuron_updates == 2 * 25 * (4 + 8)
        norms = [o for o in counts.operations if o.kind == "norm"]
        assert [o.additions for o in norms] == [2 * 25 * 8, 2 * 25 * 4]


# --- Neurons and norms ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "step"),
    [
        # charge 2 additions and a shift (tau = 2), 1 comparison, reset by selection
        (NeuronConfig(), {"additions": 2, "shifts": 1, "comparisons": 1}),
        # tau = 3 multiplies; soft reset subtracts
        (
            NeuronConfig(tau=3.0, v_reset=None),
            {"additions": 3, "multiplications": 1, "comparisons": 1},
        ),
        # V - v_reset as well
        (NeuronConfig(v_reset=-0.5), {"additions": 3, "shifts": 1, "comparisons": 1}),
        # beta V + X, D = 4 comparisons, subtraction; theta = 1 needs no product
        (NeuronConfig.integer(4), {"additions": 2, "shifts": 1, "comparisons": 4}),
        # beta = 1: nothing to multiply
        (
            NeuronConfig.from_beta(1.0, decay_input=False),
            {"additions": 1, "comparisons": 1},
        ),
    ],
)
def test_neurons(counted, config, step) -> None:
    n = 3 * 2 * 4 * 5 * 5
    counts = counted(Neuron(config), torch.randn(3, 2, 4, 5, 5))
    (neuron,) = counts.operations
    for name in ("additions", "multiplications", "shifts", "comparisons"):
        assert getattr(neuron, name) == n * step.get(name, 0), name
    assert neuron.neuron_updates == n
    assert neuron.membrane_bits == n * (32 + 32)
    assert (neuron.bits_in, neuron.bits_out) == (32 * n, n * (1 if config.levels == 1 else 3))


def test_folded_neurons_count_their_steps(nano, by_module, spikes_of) -> None:
    """A threshold for each channel runs step by step: the same updates, in plain operations."""
    model, video = nano
    name = "backbone.stage3.blocks.0.attention.0.steps.0.out_neuron"
    folded = by_module(svf.fold_for_inference(model), video)[name]
    n = 2 * 64 * 2 * 2
    assert {o.kind for o in folded} == {"neuron", "memory"}  # spikes of the frames, stacked
    assert sum(o.neuron_updates for o in folded) == n
    assert sum(o.comparisons for o in folded) == n
    assert sum(o.shifts for o in folded) == n  # tau = 2
    assert sum(o.additions for o in folded) == 3 * n  # the bias, x - v, v + ...
    assert sum(o.multiplications for o in folded) == 0


def test_activity(counted) -> None:
    x = torch.zeros(2, 1, 3, 2, 2)
    x[:, :, 1] = ALL
    x[1, 0, 2, 0, 0] = ALL
    (activity,) = counted(Neuron(NeuronConfig()), x).neurons
    assert activity.rate_per_frame == (4 / 12, 5 / 12)
    assert (activity.silent, activity.saturated, activity.channels) == ((0,), (1,), 3)


def test_layer_norm_and_activations(counted) -> None:
    n = 2 * 3 * 4
    counts = counted(nn.Sequential(nn.LayerNorm(4), nn.ReLU(), nn.GELU()), torch.randn(2, 3, 4))
    norm, relu, gelu = counts.operations
    assert (norm.kind, norm.additions, norm.multiplications) == ("norm", 4 * n, 3 * n)
    assert (relu.comparisons, relu.multiplications) == (n, 0)
    assert gelu.exponentials == n


# --- Softmax --------------------------------------------------------------------------------------


class SoftmaxAttention(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


@pytest.mark.parametrize("device", ["cpu", "meta"])  # one fused operation, or its steps
def test_softmax_attention(counted, device) -> None:
    B, heads, N, d = 2, 3, 10, 4
    qkv = [torch.randn(B, heads, N, d, device=device) for _ in range(3)]
    counts = counted(SoftmaxAttention(), *qkv)
    macs = 2 * B * heads * N * N * d
    assert counts.total.macs == macs
    assert counts.total.exponentials == counts.total.divisions == B * heads * N * N
    assert sum(o.multiplications for o in counts.operations if o.kind == "attention") == macs
