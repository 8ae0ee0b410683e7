"""Batch norm fused with neurons: the numbers of the two in turn, and their gradients."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from spikevideoformer.ops import _kernels
from spikevideoformer.ops.affine_lif import affine_lif_reference
from spikevideoformer.ops.batch_norm_lif import (
    as_affine,
    batch_norm_lif,
    batch_norm_lif_reference,
)
from spikevideoformer.ops.lif import NeuronConfig, lif_reference

NEURONS = [NeuronConfig(), NeuronConfig(v_reset=None, tau=1.7), NeuronConfig.integer()]
SHAPES = [(4, 2, 3, 5, 7), (2, 1, 1, 1, 3), (3, 2, 64, 4, 5), (3, 1, 7, 23, 29)]


def make(shape, channels_last=False, dtype=torch.float32):
    x = (2 * torch.randn(shape) + 0.7).to(dtype)
    if channels_last:
        steps = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = steps.unflatten(0, shape[:2])
    return x


def run(op, x, config, training, learned, dtype):
    """Outputs, running statistics and gradients under random upstream gradients."""
    channels = x.shape[2]
    g = torch.Generator().manual_seed(1)

    def vector(low=0.0):
        return (torch.rand(channels, generator=g) + low).to(dtype)

    mean, var, weight, bias = vector(), vector(0.5), vector(0.5), vector(-0.5)
    v_init = torch.rand(x.shape[1:], generator=g).to(dtype)
    x = x.detach().to(dtype)
    inputs = [x, v_init, *((weight, bias) if learned else ())]
    for z in inputs:
        z.requires_grad_()
    if not learned:
        weight = bias = None
    out = op(x, config, mean, var, weight, bias, training, 0.3, 1e-3, v_init)
    above = [torch.randn(z.shape, generator=g).to(dtype) for z in out]
    grads = torch.autograd.grad(out, inputs, above)
    return [z.detach() for z in out], (mean, var), grads


def near(a, b):
    return ((a.double() - b.double()).abs().max() / b.abs().max().clamp_min(1)).item()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_float64_equals_the_reference(training, learned, channels_last):
    for config, shape in itertools.product(NEURONS, SHAPES):
        x = make(shape, channels_last)
        case = (x, config, training, learned, torch.float64)
        found, expected = run(batch_norm_lif, *case), run(batch_norm_lif_reference, *case)
        assert torch.equal(found[0][0], expected[0][0])
        for a, b in zip(itertools.chain(*found), itertools.chain(*expected), strict=True):
            assert near(a, b) < 1e-12, (config, shape)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_float32_kernel(training, learned, channels_last):
    """Spikes and membranes bit for bit those of the same statistics; gradients near float64's."""
    for config, shape in itertools.product(NEURONS, SHAPES):
        x = make(shape, channels_last)
        found, _, grads = run(batch_norm_lif, x, config, training, learned, torch.float32)
        exact, _, grads_64 = run(
            batch_norm_lif_reference, x, config, training, learned, torch.float64
        )
        if not training:
            expected = run(batch_norm_lif_reference, x, config, False, learned, torch.float32)[0]
            for a, b in zip(found, expected, strict=True):
                assert torch.equal(a, b), (config, shape)
        assert (found[0] != exact[0]).float().mean() < 1e-3
        if torch.equal(found[0].double(), exact[0]):
            for a, b in zip(grads, grads_64, strict=True):
                assert near(a, b) < 1e-5, (config, shape)


@pytest.mark.parametrize("channels_last", [False, True])
def test_spikes_in_training_are_those_of_the_statistics(channels_last):
    for shape in SHAPES:
        x = make(shape, channels_last)
        weight, bias = torch.rand(shape[2]) + 0.5, torch.randn(shape[2])
        spikes, v = batch_norm_lif(x, NeuronConfig(), None, None, weight, bias, True)
        mean, var = torch.batch_norm_update_stats(x.flatten(0, 1), None, None, 0.1)
        scale, shift = as_affine(mean, var, weight, bias, 1e-5)
        expected = affine_lif_reference(x, NeuronConfig(), scale=scale, shift=shift)
        assert torch.equal(spikes, expected.spikes)
        assert torch.equal(v, expected.v)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_affine_form_of_a_norm_is_exact(dtype):
    """fma(x, scale, shift) is what F.batch_norm gives, to the last bit, whatever the statistics."""
    x = torch.randn(50, 400, dtype=dtype) * 3
    mean, weight, bias = (10.0 ** torch.randn(400).to(dtype) for _ in range(3))
    var = 10.0 ** torch.randn(400).to(dtype)
    weight[:3], bias[:2] = 0.0, 0.0
    scale, shift = as_affine(mean, var, weight, bias, 1e-5)
    zero, one = torch.zeros_like(mean), torch.ones_like(mean)
    expected = F.batch_norm(x, mean, var, weight, bias)
    assert torch.equal(F.batch_norm(x, zero, one, scale, shift, eps=0.0), expected)


def test_half_precision_is_normalised_in_float32():
    x = make((4, 2, 6, 5, 3), dtype=torch.bfloat16)
    mean, var = torch.rand(6), torch.rand(6) + 0.5
    for config in NEURONS[:1]:
        spikes, v = batch_norm_lif(x, config, mean, var)
        y = F.batch_norm(x.float().flatten(0, 1), mean, var).unflatten(0, (4, 2))
        expected, v_expected = lif_reference(y, config)
        assert spikes.dtype == torch.bfloat16
        assert torch.equal(spikes.float(), expected)
        assert torch.equal(v, v_expected)
    z = x.clone().requires_grad_()
    weight = torch.ones(6, dtype=torch.bfloat16, requires_grad=True)
    out = batch_norm_lif(z, NeuronConfig(), mean, var, weight, None, True)[0]
    grads = torch.autograd.grad(out.sum(), (z, weight))
    assert [g.dtype for g in grads] == [torch.bfloat16] * 2
    assert all(g.isfinite().all() for g in grads)


def test_bytes():
    x, mean, var = make((4, 2, 6, 5, 3)), torch.rand(6), torch.rand(6) + 0.5
    found, _ = batch_norm_lif(x, NeuronConfig(), mean, var, spike_dtype=torch.uint8)
    assert found.dtype == torch.uint8
    assert torch.equal(found.float(), batch_norm_lif_reference(x, NeuronConfig(), mean, var)[0])


def test_numbers_with_a_large_mean():
    """Sums for the gradient are taken of x - mean: nothing cancels."""
    x = make((4, 2, 5, 9, 9)) + 300
    config = NeuronConfig()
    found = run(batch_norm_lif, x, config, True, True, torch.float32)
    expected = run(batch_norm_lif_reference, x, config, True, True, torch.float32)
    exact = run(batch_norm_lif_reference, x, config, True, True, torch.float64)
    for a, b, c in zip(found[2], expected[2], exact[2], strict=True):
        assert near(a, c) < max(5 * near(b, c), 1e-4)


def test_custom_ops():
    x = make((3, 2, 4, 3, 5), channels_last=True).requires_grad_()
    weight, bias = (torch.rand(4, requires_grad=True) for _ in range(2))
    mean, var, eps = torch.rand(4), torch.rand(4) + 0.5, 1e-5
    with torch.no_grad():
        scale, shift = as_affine(mean, var, weight, bias, eps)
    neuron = _kernels.scalars(NeuronConfig())
    for of_batch in (True, False):
        torch.library.opcheck(
            _kernels.normalised_lif_op,
            (
                x,
                weight,
                bias,
                None,
                scale,
                shift,
                mean,
                var,
                eps,
                of_batch,
                x.dtype,
                *neuron,
                False,
            ),
            test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
        )
    torch.library.opcheck(_kernels.statistics_op, (x.detach(), mean, var, 0.1))
    torch.library.opcheck(_kernels.combine_op, (x.detach(), x.detach().clone(), scale, shift, mean))


@pytest.mark.parametrize("training", [False, True])
def test_compiled_without_graph_breaks(training):
    x = make((4, 2, 6, 5, 3))
    weight, bias = torch.rand(6), torch.rand(6)

    def layer(x, mean, var, weight, bias):
        return batch_norm_lif(x * 2, NeuronConfig(), mean, var, weight, bias, training)

    found = []
    for op in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
        inputs = [z.clone().requires_grad_() for z in (x, weight, bias)]
        mean, var = torch.zeros(6), torch.ones(6)
        out = op(inputs[0], mean, var, *inputs[1:])
        grads = torch.autograd.grad(out[0].sum() + out[1].sum(), inputs)
        found.append([*out, mean, var, *grads])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_fused_holds_when_compiled():
    x, mean, var = make((3, 1, 4, 2, 2)), torch.zeros(4), torch.ones(4)

    def layer(x, mean, var):
        return batch_norm_lif(x, NeuronConfig(), mean, var, backend="fused")[0]

    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x, mean, var), layer(x, mean, var))
    with pytest.raises(ValueError, match="backend='fused' cannot run: no kernel takes float64"):
        compiled(x.double(), mean.double(), var.double())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("carrier", ["x", "weight", "bias"])
def test_forward_mode_is_refused_rather_than_zero(carrier, training):
    inputs = {"x": make((3, 2, 4, 1, 1)), "weight": torch.rand(4), "bias": torch.rand(4)}
    mean, var = torch.zeros(4), torch.ones(4)

    def run(z, backend="auto"):
        named = {**inputs, carrier: z, "running_mean": mean.clone(), "running_var": var.clone()}
        return batch_norm_lif(config=NeuronConfig(), training=training, backend=backend, **named)

    z = inputs[carrier]
    with pytest.raises(NotImplementedError, match="use backend='reference'"):
        torch.func.jvp(run, (z,), (torch.ones_like(z),))
    with forward_ad.dual_level():
        spikes, _ = run(forward_ad.make_dual(z, torch.ones_like(z)), "reference")
        assert forward_ad.unpack_dual(spikes).tangent is not None


@pytest.mark.parametrize(
    ("shape", "kwargs", "says"),
    [
        ((2, 1, 3), {"weight": torch.ones(4)}, "weight has shape"),
        ((2, 3), {}, "running_mean has shape"),
        ((1, 1, 3), {"training": True}, "no variance"),
        ((2, 1, 3), {"running_mean": None}, "needs running_mean"),
        ((2, 1, 3), {"backend": "c"}, "choose one of"),
        ((2, 1, 3), {"v_init": torch.ones(4)}, "v_init has shape"),
    ],
)
def test_wrong_input_is_refused(shape, kwargs, says):
    given = {"running_mean": torch.zeros(3), "running_var": torch.ones(3), **kwargs}
    with pytest.raises(ValueError, match=says):
        batch_norm_lif(torch.zeros(shape), NeuronConfig(), **given)


@pytest.mark.parametrize("backend", ["auto", "reference", "fused"])
def test_a_rectifier_is_refused_before_statistics_move(backend):
    mean, var = torch.zeros(3), torch.ones(3)
    x = torch.randn(2, 2, 3, 4, 4)
    with pytest.raises(ValueError, match="kind relu"):
        batch_norm_lif(x, NeuronConfig(kind="relu"), mean, var, training=True, backend=backend)
    assert (mean == 0).all()
    assert (var == 1).all()
