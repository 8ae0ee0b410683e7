"""``lif`` against ``lif_reference``, voltages by hand, and the unrolling of integer spikes."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spikevideoformer.ops.lif import (
    NeuronConfig,
    lif,
    lif_reference,
    unroll_integer_lif,
    unroll_integer_spikes,
)
from spikevideoformer.ops.surrogate import SURROGATES

BINARY = [
    NeuronConfig(
        tau=tau,
        v_reset=v_reset,
        v_threshold=v_threshold,
        decay_input=decay_input,
        detach_reset=detach_reset,
        surrogate=surrogate,
    )
    for (tau, decay_input), v_reset, v_threshold, detach_reset, surrogate in itertools.product(
        [(2.0, True), (2.0, False), (1.7, True), (1.7, False), (math.inf, False)],
        [0.0, None, -0.3],
        [1.0, 0.3],
        [True, False],
        SURROGATES,
    )
]
INTEGER = [
    NeuronConfig.integer(levels, tau=tau, decay_input=decay, detach_reset=detach, v_threshold=theta)
    for levels, (tau, decay), detach, theta in itertools.product(
        [1, 4], [(2.0, True), (2.0, False), (1.7, False)], [True, False], [1.0, 0.3]
    )
]
SHAPE = (6, 3, 5)


def _currents(shape=SHAPE, dtype=torch.float64) -> Tensor:
    return 1.5 * torch.randn(shape, dtype=dtype) + 0.5


def _run_with_gradients(op, x, v_init, config):
    """Outputs and gradients under random upstream gradients for spikes and final state."""
    x, v_init = x.detach().clone().requires_grad_(), v_init.detach().clone().requires_grad_()
    spikes, v = op(x, config, v_init)
    generator = torch.Generator().manual_seed(1)
    up_s = torch.randn(spikes.shape, dtype=x.dtype, generator=generator)
    up_v = torch.randn(v.shape, dtype=x.dtype, generator=generator)
    grad_x, grad_v = torch.autograd.grad((spikes, v), (x, v_init), (up_s, up_v))
    return spikes.detach(), v.detach(), grad_x, grad_v


@pytest.mark.parametrize("kind", ["binary", "integer"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lif_equals_reference(kind, dtype):
    """Outputs to the last bit; analytic gradients as autograd's."""
    tolerance = {torch.float32: 1e-4, torch.float64: 1e-11}[dtype]
    for config in BINARY if kind == "binary" else INTEGER:
        x, v_init = _currents(dtype=dtype), torch.rand(SHAPE[1:], dtype=dtype)
        s_ref, v_ref, gx_ref, gv_ref = _run_with_gradients(lif_reference, x, v_init, config)
        s, v, gx, gv = _run_with_gradients(lif, x, v_init, config)
        assert torch.equal(s, s_ref), config
        assert torch.equal(v, v_ref), config
        assert 0 < s.count_nonzero() < s.numel()
        torch.testing.assert_close(gx, gx_ref, rtol=tolerance, atol=tolerance, msg=str(config))
        torch.testing.assert_close(gv, gv_ref, rtol=tolerance, atol=tolerance, msg=str(config))


@pytest.mark.parametrize("config", [NeuronConfig(), NeuronConfig.integer()], ids=lambda c: c.kind)
@pytest.mark.parametrize("used", ["spikes", "state"])
def test_only_one_output_used(config, used):
    x = _currents()
    grads = []
    for op in (lif_reference, lif):
        z = x.clone().requires_grad_()
        out = op(z, config)[0 if used == "spikes" else 1]
        grads.append(torch.autograd.grad(out.square().sum(), z)[0])
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_gradient_of_a_single_step_by_hand(surrogate):
    """One step, tau = 2: dS/dX = surrogate(H - 1) / 2, with H = X / 2."""
    from spikevideoformer.ops.surrogate import DEFAULT_ALPHA, surrogate_gradient

    x = _currents((1, 50)).requires_grad_()
    lif(x, NeuronConfig(surrogate=surrogate))[0].sum().backward()
    expected = surrogate_gradient(x.detach() / 2 - 1, surrogate, DEFAULT_ALPHA[surrogate]) / 2
    torch.testing.assert_close(x.grad, expected, rtol=1e-14, atol=0)


def test_straight_through_gradient_inside_the_levels_only():
    """Integer-LIF, one step: H = X; gradient 1 inside [0, D], 0 outside."""
    x = torch.tensor([[-0.6, -0.1, 0.0, 0.4, 2.7, 4.0, 4.1, 9.0]], requires_grad=True)
    spikes, _ = lif(x, NeuronConfig.integer(4))
    assert spikes.tolist() == [[0, 0, 0, 0, 3, 4, 4, 4]]
    spikes.sum().backward()
    assert x.grad.tolist() == [[0, 0, 1, 1, 1, 1, 0, 0]]


# --- Voltages written out -------------------------------------------------------------------------


@pytest.mark.parametrize("op", [lif, lif_reference])
@pytest.mark.parametrize(
    ("config", "x", "membranes", "spikes"),
    [
        # hard reset, tau = 2: H = (V + X) / 2, which is 0.5, 1.0 (fires at the threshold), 1.5, ...
        (NeuronConfig(), [1.0, 1.5, 3.0, -1.0, 2.0], [0.5, 0.0, 0.0, -0.5, 0.75], [0, 1, 1, 0, 0]),
        # soft reset, the paper's own form: H = U / 2 + X, U = H - S
        # H: 0.75, 1.375, 0.6875, 2.34375, 0.171875
        (
            NeuronConfig.from_beta(0.5, v_reset=None, decay_input=False),
            [0.75, 1.0, 0.5, 2.0, -0.5],
            [0.75, 0.375, 0.6875, 1.34375, 0.171875],
            [0, 1, 0, 1, 0],
        ),
    ],
    ids=["hard", "soft"],
)
def test_voltages_by_hand(op, config, x, membranes, spikes):
    for t in range(1, 6):
        s, v = op(torch.tensor(x[:t]), config)
        assert s.tolist() == spikes[:t]
        assert v.item() == membranes[t - 1]


@pytest.mark.parametrize("op", [lif, lif_reference])
def test_resting_potential_other_than_zero_by_hand(op):
    """v_reset = -1: starts there, decays towards it, is put back to it."""
    config = NeuronConfig(v_reset=-1.0)
    # H = V + (X - (V + 1)) / 2; X = 2: H = -1 + 1 = 0; X = 4: H = 0 + 3/2 = 1.5, fires; X = 0: -1
    s, v = op(torch.tensor([2.0, 4.0, 0.0]), config)
    assert s.tolist() == [0.0, 1.0, 0.0]
    assert v.item() == -1.0
    assert op(torch.tensor([2.0]), config)[1].item() == 0.0
    # without decay_input: H = (V + 1) / 2 + X - 1
    plain = NeuronConfig(v_reset=-1.0, decay_input=False)
    assert op(torch.tensor([0.5, 0.5]), plain)[1].item() == (-0.5 + 1) / 2 + 0.5 - 1


@pytest.mark.parametrize("op", [lif, lif_reference])
def test_integer_voltages_by_hand(op):
    """D = 2, beta = 1/2: H = U / 2 + X, S = clamp(round(H), 0, 2), U = H - S."""
    x = torch.tensor([1.75, 3.5, -1.0, 0.5])
    # H: 1.75 -> 2; -0.125 + 3.5 = 3.375 -> 2, U = 1.375; -0.3125 -> 0; -0.15625 + 0.5 -> 0
    s, v = op(x, NeuronConfig.integer(2))
    assert s.tolist() == [2.0, 2.0, 0.0, 0.0]
    assert v.item() == 0.34375


def test_dyadic_inputs_are_exact_in_float32():
    """tau = 2 and inputs k/16: float32 gives the numbers of float64."""
    x = torch.randint(-64, 64, (12, 400)) / 16
    for config in (NeuronConfig(), NeuronConfig(v_reset=None), NeuronConfig.integer()):
        s32, v32 = lif(x.float(), config)
        s64, v64 = lif(x.double(), config)
        assert torch.equal(s32.double(), s64)
        assert torch.equal(v32.double(), v64)


def test_order_of_operations_is_the_published_one():
    """Where (v + x)/2 and v + (x - v)/2 disagree about a spike, the second decides."""
    generator = torch.Generator().manual_seed(0)
    v = torch.rand(2_000_000, generator=generator)
    x = (2 - v.double()).float()  # brings the membrane to the threshold, give or take a rounding
    published = v + (x - v) / 2 >= 1
    halved = (v + x) / 2 >= 1
    assert (published != halved).sum() > 1000  # the case exists
    for op in (lif, lif_reference):
        spikes, _ = op(x.unsqueeze(0), NeuronConfig(), v)
        assert torch.equal(spikes[0].bool(), published)


# --- Time, layout, precision ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        NeuronConfig(),
        NeuronConfig(v_reset=-0.3),
        NeuronConfig(v_reset=None),
        NeuronConfig.integer(),
    ],
    ids=str,
)
@pytest.mark.parametrize("cut", [1, 3, 6])
def test_time_can_be_cut(config, cut):
    x = _currents((7, 4))
    v_init = torch.rand(4, dtype=torch.float64)
    whole, v_whole, gx, gv = _run_with_gradients(lif, x, v_init, config)

    def in_two(z, config, v):
        first, v = lif(z[:cut], config, v)
        second, v = lif(z[cut:], config, v)
        return torch.cat([first, second]), v

    pieces, v_pieces, gx2, gv2 = _run_with_gradients(in_two, x, v_init, config)
    assert torch.equal(pieces, whole)
    assert torch.equal(v_pieces, v_whole)
    torch.testing.assert_close(gx2, gx, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gv2, gv, rtol=1e-12, atol=1e-12)


def test_start_is_the_resting_membrane():
    x = _currents()
    for config in (NeuronConfig(), NeuronConfig(v_reset=-0.5), NeuronConfig(v_reset=None)):
        rest = torch.full(SHAPE[1:], config.v_start, dtype=torch.float64)
        for op in (lif, lif_reference):
            for a, b in zip(op(x, config), op(x, config, rest), strict=True):
                assert torch.equal(a, b)


@pytest.mark.parametrize(
    "layout", ["channels_last", "time_strided", "transposed", "expanded", "scalar", "odd"]
)
def test_memory_layouts(layout):
    x = _currents((4, 2, 6, 5, 3))
    if layout == "channels_last":
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (4, 2))
    elif layout == "time_strided":
        x = _currents((8, 2, 6, 5, 3))[::2]
    elif layout == "transposed":
        x = x.transpose(0, 1)
    elif layout == "expanded":
        x = _currents((4, 1, 6, 1, 3)).expand(4, 2, 6, 5, 3)
    elif layout == "scalar":
        x = _currents((4,))
    else:
        x = _currents((5, 1, 7, 13, 11))
    v_init = torch.rand(x.shape[1:], dtype=x.dtype)
    for config in (NeuronConfig(), NeuronConfig.integer()):
        strided = _run_with_gradients(lif, x, v_init, config)
        plain = _run_with_gradients(lif_reference, x.contiguous(), v_init, config)
        for a, b in zip(strided[:2], plain[:2], strict=True):
            assert torch.equal(a, b)
        for a, b in zip(strided[2:], plain[2:], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_input_is_left_alone():
    x, v_init = _currents(), torch.rand(SHAPE[1:], dtype=torch.float64)
    before = x.clone(), v_init.clone()
    for config in (NeuronConfig(), NeuronConfig(v_reset=-0.3), NeuronConfig.integer()):
        lif(x, config, v_init)
        assert torch.equal(x, before[0])
        assert torch.equal(v_init, before[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("config", [NeuronConfig(), NeuronConfig.integer()], ids=lambda c: c.kind)
def test_half_precision_integrates_in_float32(dtype, config):
    x = _currents((20, 200), torch.float32).to(dtype)
    spikes, v = lif(x, config)
    expected, v_expected = lif(x.float(), config)
    assert spikes.dtype == dtype
    assert torch.equal(spikes.float(), expected)
    assert v.dtype == torch.float32
    assert torch.equal(v, v_expected)
    # a sum of small currents that a half-precision membrane would forget
    slow = NeuronConfig(tau=math.inf, decay_input=False)
    small = torch.full((1000, 1), 2.0**-9, dtype=dtype)
    assert lif(small, slow)[0].sum() == 1  # 512 steps to the threshold
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(lif(x, config)[0], spikes)


# --- Integer spikes as binary ones ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.uint8])
def test_unrolled_spikes_are_binary_and_sum_to_the_integers(dtype):
    for levels in (1, 2, 4, 7):
        s = torch.randint(0, levels + 1, (3, 2, 5)).to(dtype)
        unrolled = unroll_integer_spikes(s, levels)
        assert unrolled.shape == (levels, 3, 2, 5)
        assert unrolled.dtype == dtype
        assert set(unrolled.unique().tolist()) <= {0, 1}
        assert torch.equal(unrolled.sum(0).to(dtype), s)


def test_convolution_of_unrolled_spikes():
    """Dyadic weights make every sum exact: the two forms agree to the last bit."""
    s = torch.randint(0, 5, (2, 3, 9, 9)).float()
    weight = torch.randint(-8, 9, (6, 3, 3, 3)) / 16
    on_sub_steps = sum(F.conv2d(u, weight, padding=1) for u in unroll_integer_spikes(s, 4))
    assert torch.equal(on_sub_steps, F.conv2d(s, weight, padding=1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_unrolled_neuron_equals_the_integer_neuron(dtype):
    for config in INTEGER:
        x = (3 * torch.randn(9, 2000)).to(dtype)
        integers, v = lif(x, config)
        binary, v_binary = unroll_integer_lif(x, config)
        assert binary.shape == (9, config.levels, 2000)
        assert binary.dtype == dtype
        assert set(binary.unique().tolist()) == {0, 1}
        assert torch.equal(binary.sum(1), integers), config
        assert torch.equal(v_binary, v), config
        # and it is the same train of spikes as unrolling after the fact
        unrolled = unroll_integer_spikes(integers, config.levels)
        assert torch.equal(binary.transpose(0, 1), unrolled)


def test_unrolled_neuron_takes_a_state():
    config = NeuronConfig.integer(3)
    x = 3 * torch.randn(6, 50)
    whole, v_whole = unroll_integer_lif(x, config)
    first, v = unroll_integer_lif(x[:2], config)
    second, v = unroll_integer_lif(x[2:], config, v)
    assert torch.equal(torch.cat([first, second]), whole)
    assert torch.equal(v, v_whole)


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"kind": "if"}, "choose lif, integer_lif, ni_lif or relu"),
        ({"tau": 1.0}, "above 1"),
        ({"tau": math.nan}, "above 1"),
        ({"tau": math.inf}, "decay_input=False"),
        ({"v_threshold": 0.0}, "positive"),
        ({"v_reset": 1.0}, "below v_threshold"),
        ({"decay_input": "maybe"}, "true or false"),
        ({"surrogate": "box"}, "sigmoid, arctan, triangle"),
        ({"surrogate_alpha": 0.0}, "positive"),
        ({"levels": 4}, "levels=1"),
        ({"kind": "integer_lif", "levels": 0, "v_reset": None}, "1 to 255"),
        ({"kind": "integer_lif", "levels": 2.5, "v_reset": None}, "1 to 255"),
        ({"kind": "integer_lif", "levels": 256, "v_reset": None}, "levels is 256"),
        ({"kind": "integer_lif", "levels": 4}, "v_reset=None"),
        ({"kind": "relu", "v_reset": None}, "v_reset is None, which a rectifier"),
        ({"kind": "relu", "surrogate": "arctan"}, "surrogate is 'arctan', which a rectifier"),
    ],
)
def test_wrong_neurons_are_refused(values, says):
    with pytest.raises(ValueError, match=says):
        NeuronConfig(**values)


@pytest.mark.parametrize("backend", ["auto", "reference", "fused"])
def test_a_rectifier_is_no_neuron_over_time(backend):
    config = NeuronConfig(kind="relu")
    assert not config.spiking
    assert NeuronConfig().spiking
    assert NeuronConfig.integer(4).spiking
    with pytest.raises(ValueError, match=r"kind relu.*nn\.neuron\.Rectifier"):
        lif(torch.zeros(2, 3), config, backend=backend)


def test_beta():
    assert NeuronConfig.from_beta(0.5) == NeuronConfig()
    assert NeuronConfig.from_beta(0.75).tau == 4
    assert NeuronConfig.from_beta(1, decay_input=False).beta == 1
    for beta in (0, -0.1, 1.1):
        with pytest.raises(ValueError, match=r"in \(0, 1\]"):
            NeuronConfig.from_beta(beta)


@pytest.mark.parametrize(
    ("x", "v_init", "says"),
    [
        (torch.tensor(1.0), None, "no time step"),
        (torch.zeros(0, 3), None, "no time step"),
        (torch.zeros(2, 3, dtype=torch.int64), None, "floating-point"),
        (torch.zeros(2, 3), torch.zeros(4), "v_init has shape"),
    ],
)
def test_wrong_input_is_refused(x, v_init, says):
    with pytest.raises(ValueError, match=says):
        lif(x, NeuronConfig(), v_init)


def test_wrong_unrolling_is_refused():
    with pytest.raises(ValueError, match=r"expected 0\.\.2"):
        unroll_integer_spikes(torch.tensor([0.0, 3.0]), 2)
    with pytest.raises(ValueError, match="only integer_lif and ni_lif unroll"):
        unroll_integer_lif(torch.zeros(2, 3), NeuronConfig())


def test_second_derivatives_are_refused_rather_than_wrong():
    x = _currents((3, 4)).requires_grad_()
    (gradient,) = torch.autograd.grad(lif(x, NeuronConfig())[0].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.square().sum().backward()


@pytest.mark.parametrize("config", [NeuronConfig(), NeuronConfig.integer()], ids=["lif", "integer"])
def test_forward_mode_only_through_the_reference(config):
    x = _currents((3, 4))
    with pytest.raises(NotImplementedError, match="use backend='reference'"):
        torch.func.jvp(lambda z: lif(z, config), (x,), (torch.ones_like(x),))

    def spikes(x):
        return lif(x, config, backend="reference")[0]

    forward, backward = torch.func.jacfwd(spikes)(x), torch.func.jacrev(spikes)(x)
    assert forward.abs().sum() > 0
    torch.testing.assert_close(forward, backward, rtol=1e-12, atol=1e-12)
