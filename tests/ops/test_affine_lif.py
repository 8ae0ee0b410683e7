"""The neuron kernels against their references: bits of spikes and membranes, gradients, layouts."""

import itertools
import logging
import math
import os
import re
import subprocess
import sys
import threading
import warnings
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from spikevideoformer.ops import _kernels, _stepwise
from spikevideoformer.ops._layout import empty_as
from spikevideoformer.ops._numba import compile as numba_compile
from spikevideoformer.ops._numba import lif as numba_lif
from spikevideoformer.ops.affine_lif import affine_lif, affine_lif_reference
from spikevideoformer.ops.lif import NeuronConfig, lif, lif_reference

NEURONS = [
    NeuronConfig(),
    NeuronConfig(detach_reset=False, surrogate="arctan", v_threshold=0.7),
    NeuronConfig(v_reset=None, tau=1.7, surrogate="triangle"),
    NeuronConfig(v_reset=None, tau=1.7, decay_input=False, detach_reset=False),
    NeuronConfig(v_reset=-0.3, tau=3.0),
    NeuronConfig(v_reset=-0.3, decay_input=False, detach_reset=False, surrogate="triangle"),
    NeuronConfig(tau=math.inf, decay_input=False, v_threshold=0.4),
    NeuronConfig.integer(),
    NeuronConfig.integer(3, tau=1.7, decay_input=True, v_threshold=0.3, detach_reset=False),
    NeuronConfig.integer(4, rounding="half_up", v_threshold=0.5),
    NeuronConfig.of_kind("ni_lif"),
    NeuronConfig.of_kind("ni_lif", levels=8, rounding="half_up"),
]
# rows shorter and longer than a vector, a block and a chunk; channels that divide neither
SHAPES = [(1, 1, 1, 1, 1), (4, 2, 3, 5, 7), (3, 2, 64, 9, 3), (2, 1, 100, 4, 5), (5, 1, 7, 13, 17)]


def make(shape, *, channels_last=False, dtype=torch.float32, dyadic=False) -> Tensor:
    x = torch.randint(-96, 128, shape) / 32 if dyadic else 1.5 * torch.randn(shape) + 0.5
    x = x.to(dtype)
    if channels_last:
        steps = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = steps.unflatten(0, shape[:2])
    return x


def make_case(shape, affine, residual, **layout):
    """Input and keyword arguments of a call."""
    kwargs = {"v_init": torch.rand(shape[1:])}
    if affine:
        kwargs |= {"scale": torch.rand(shape[2]) + 0.5, "shift": torch.randn(shape[2])}
    if residual:
        kwargs["residual"] = torch.randn(shape)
    return make(shape, **layout), kwargs


def run_with_gradients(op, x, config, kwargs, dtype=torch.float32):
    """Outputs, and gradients by name under random upstream gradients for all outputs."""
    inputs = {"x": x, **kwargs}
    inputs = {k: z.detach().to(dtype).requires_grad_() for k, z in inputs.items()}
    named = dict(inputs)
    out = [z for z in op(named.pop("x"), config, **named) if z is not None]
    generator = torch.Generator().manual_seed(1)
    above = [torch.randn(z.shape, generator=generator).to(z.dtype) for z in out]
    grads = torch.autograd.grad(out, list(inputs.values()), above)
    return [z.detach() for z in out], dict(zip(inputs, grads, strict=True))


def assert_near(found: Tensor, expected: Tensor, tolerance: float, what: object) -> None:
    worst = (found.double() - expected.double()).abs().max()
    assert worst <= tolerance * expected.abs().max().clamp_min(1), (what, worst)


# --- Equivalence ----------------------------------------------------------------------------------


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_kernel_equals_reference(affine, residual, channels_last):
    """Spikes, membranes and stream to the last bit; gradients to 1e-6 of the largest one.

    Each neuron with some of the shapes, others for other options.
    """
    first = affine + residual + channels_last
    for config, shape in [*itertools.product(NEURONS, SHAPES)][first % 3 :: 3]:
        x, kwargs = make_case(shape, affine, residual, channels_last=channels_last)
        if residual:  # the other layout: the kernel has to see to it
            kwargs["residual"] = make(shape, channels_last=not channels_last)
        out, grads = run_with_gradients(affine_lif, x, config, kwargs)
        expected, grads_32 = run_with_gradients(affine_lif_reference, x, config, kwargs)
        exact, grads_64 = run_with_gradients(affine_lif_reference, x, config, kwargs, torch.float64)
        for a, b in zip(out, expected, strict=True):
            assert torch.equal(a, b), (config, shape)
        for name, grad in grads.items():
            assert_near(grad, grads_32[name], 2e-6, (config, shape, name))
        if torch.equal(out[0].double(), exact[0]):
            for name, grad in grads.items():
                assert_near(grad, grads_64[name], 1e-5, (config, shape, name))
        layout = out[0].stride()
        assert all(z.stride() in (layout, layout[1:]) for z in out)
        assert layout[1:] == x.stride()[1:]


def test_spikes_of_many_neurons_equal_the_reference():
    """Enough of them that a wrong rounding of the affine part would flip some."""
    for channels_last, shape in itertools.product(
        (False, True), [(4, 2, 24, 40, 40), (4, 1, 640, 14, 14)]
    ):
        x, kwargs = make_case(shape, True, False, channels_last=channels_last)
        out = affine_lif(x, NeuronConfig(), **kwargs)
        expected = affine_lif_reference(x, NeuronConfig(), **kwargs)
        assert torch.equal(out.spikes, expected.spikes)
        assert torch.equal(out.v, expected.v)


@pytest.mark.parametrize("config", NEURONS, ids=range(len(NEURONS)))
def test_dyadic_inputs_are_exact(config):
    config = replace(config, tau=2.0 if config.remembers else 1.0, v_threshold=1.0)
    x = make((6, 1, 5, 11, 3), dyadic=True)
    scale, shift = torch.tensor([1.0, 0.5, 2.0, -1.0, 0.25]), torch.arange(5.0) / 4
    out = affine_lif(x, config, scale=scale, shift=shift, residual=x)
    exact = affine_lif_reference(
        x.double(), config, scale=scale.double(), shift=shift.double(), residual=x.double()
    )
    if config.v_reset != -0.3:  # which is no dyadic number
        for a, b in zip(out, exact, strict=True):
            assert torch.equal(a.double(), b)


@pytest.mark.parametrize(
    ("dtype", "spike_dtype", "residual_dtype", "config"),
    [
        (torch.float32, torch.uint8, None, NeuronConfig()),
        (torch.float32, torch.uint8, torch.float32, NeuronConfig.integer()),
        (torch.bfloat16, torch.bfloat16, None, NeuronConfig.integer()),
        (torch.bfloat16, torch.bfloat16, torch.bfloat16, NeuronConfig()),
        (torch.bfloat16, torch.float32, torch.float32, NeuronConfig(v_reset=None)),
    ],
    ids=str,
)
def test_dtypes(dtype, spike_dtype, residual_dtype, config):
    """Half precision is integrated in float32, after the stream was rounded."""
    for shape, channels_last in itertools.product(SHAPES, (False, True)):
        x, kwargs = make_case(shape, True, False, dtype=dtype, channels_last=channels_last)
        residual = None if residual_dtype is None else torch.randn(shape).to(residual_dtype)
        found = affine_lif(x, config, spike_dtype=spike_dtype, residual=residual, **kwargs)
        y = _stepwise.affine(x.float(), kwargs["scale"], kwargs["shift"])
        if residual is not None:
            y = (y + residual).to(torch.promote_types(dtype, residual.dtype))
            assert torch.equal(found.y, y)
        spikes, v = lif_reference(y.float(), config, kwargs["v_init"])
        assert found.spikes.dtype == spike_dtype
        assert torch.equal(found.spikes.float(), spikes)
        assert found.v.dtype == torch.float32
        assert torch.equal(found.v, v)


def test_gradients_in_bfloat16():
    """Those of float32, rounded."""
    config = NeuronConfig.integer()
    x, kwargs = make_case((4, 2, 6, 5, 7), True, True)
    x, kwargs["residual"] = x.bfloat16(), kwargs["residual"].bfloat16()
    grads = []
    for dtype in (torch.bfloat16, torch.float32):
        named = {"x": x, "residual": kwargs["residual"]}
        named = {k: z.to(dtype).requires_grad_() for k, z in named.items()}
        out = affine_lif(
            named["x"], config, scale=kwargs["scale"], shift=kwargs["shift"],
            residual=named["residual"],
        )  # fmt: skip
        if dtype == torch.float32:  # integrate the same rounded stream
            y = out.y.bfloat16().float().detach().requires_grad_()
            (grad,) = torch.autograd.grad(lif(y, config)[0].sum() + y.sum(), y)
            grads.append((grad * kwargs["scale"].reshape(-1, 1, 1), grad))
        else:
            grads.append(torch.autograd.grad(out.spikes.sum() + out.y.sum(), [*named.values()]))
    for half, full in zip(*grads, strict=True):
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(half.float(), full, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_time_can_be_cut(cut):
    for config in NEURONS:
        x, kwargs = make_case((5, 2, 3, 7, 5), True, True, channels_last=True)
        v, residual = kwargs.pop("v_init"), kwargs.pop("residual")
        whole = affine_lif(x, config, residual=residual, v_init=v, **kwargs)
        first = affine_lif(x[:cut], config, residual=residual[:cut], v_init=v, **kwargs)
        last = affine_lif(x[cut:], config, residual=residual[cut:], v_init=first.v, **kwargs)
        assert torch.equal(torch.cat([first.spikes, last.spikes]), whole.spikes)
        assert torch.equal(torch.cat([first.y, last.y]), whole.y)
        assert torch.equal(last.v, whole.v)


@pytest.mark.parametrize(
    "layout", ["time_strided", "transposed", "expanded", "sliced", "permuted", "one_clip", "empty"]
)
def test_memory_layouts(layout):
    shape = (4, 2, 6, 5, 3)
    x = make(shape)
    if layout == "time_strided":
        x = make((8, *shape[1:]), channels_last=True)[::2]
    elif layout == "transposed":
        x = make((2, 4, 6, 5, 3)).transpose(0, 1)
    elif layout == "expanded":
        x = make((1, *shape[1:])).expand(shape)
    elif layout == "sliced":
        x = make((4, 2, 12, 5, 3))[:, :, ::2]
    elif layout == "permuted":
        x = make((4, 3, 6, 2, 5)).permute(0, 3, 2, 4, 1)
    elif layout == "one_clip":
        x = make((4, 2, 6, 5, 3))[:, 1:]
    else:
        x = make((4, 0, 6, 5, 3))
    kwargs = {"scale": torch.rand(6), "shift": torch.randn(6), "v_init": torch.rand(x.shape[1:])}
    kwargs["residual"] = torch.randn(x.shape)
    for config in (NeuronConfig(), NeuronConfig.integer()):
        out, grads = run_with_gradients(affine_lif, x, config, kwargs)
        plain = x.contiguous()
        expected, grads_expected = run_with_gradients(affine_lif_reference, plain, config, kwargs)
        for a, b in zip(out, expected, strict=True):
            assert torch.equal(a, b)
        if x.numel():
            for name, grad in grads.items():
                assert_near(grad, grads_expected[name], 2e-6, name)


def test_outputs_are_written_everywhere(monkeypatch):
    """Memory that torch hands out holds NaN: whatever a kernel leaves out shows."""

    def poisoned(x, dtype):
        out = empty_as(x, dtype)
        return out.fill_(math.nan if dtype.is_floating_point else 255)

    def poisoned_step(x, dtype):
        return poisoned(x[:1], dtype)[0]

    real_empty = torch.empty

    def poisoned_empty(*size, **kwargs):
        return real_empty(*size, **kwargs).fill_(math.nan)

    monkeypatch.setattr(numba_lif, "empty_as", poisoned)
    monkeypatch.setattr(numba_lif, "empty_step_as", poisoned_step)
    for config, shape, affine, residual in itertools.product(
        NEURONS[:1] + NEURONS[-1:], SHAPES, (False, True), (False, True)
    ):
        x, kwargs = make_case(shape, affine, residual)
        expected, grads_expected = run_with_gradients(affine_lif_reference, x, config, kwargs)
        with monkeypatch.context() as context:
            context.setattr(torch, "empty", poisoned_empty)  # scratch memory
            out, grads = run_with_gradients(affine_lif, x, config, kwargs)
        for a, b in zip(out, expected, strict=True):
            assert torch.equal(a, b)
        for name, grad in grads.items():
            assert_near(grad, grads_expected[name], 2e-6, name)


@pytest.mark.parametrize("used", ["spikes", "v", "y"])
def test_only_one_output_used(used):
    x, kwargs = make_case((4, 2, 3, 5, 7), True, True)
    for config in (NeuronConfig.integer(),):
        grads = []
        for op in (affine_lif, affine_lif_reference):
            z = x.clone().requires_grad_()
            out = getattr(op(z, config, **kwargs), used)
            grads.append(torch.autograd.grad((out * out.detach().cos()).sum(), z)[0])
        assert_near(*grads, 2e-6, used)


def test_only_the_gradients_asked_for():
    x, kwargs = make_case((4, 2, 3, 5, 7), True, True)
    expected = run_with_gradients(affine_lif_reference, x, NeuronConfig(), kwargs)[1]
    generator = torch.Generator().manual_seed(1)
    for name in ("x", "scale", "shift", "residual", "v_init"):
        named = {"x": x, **kwargs}
        named[name] = named[name].clone().requires_grad_()
        wanted = named[name]
        out = affine_lif(named.pop("x"), NeuronConfig(), **named)
        generator.manual_seed(1)
        above = [torch.randn(z.shape, generator=generator) for z in out]
        needs = [(z, g) for z, g in zip(out, above, strict=True) if z.requires_grad]
        outputs, grads = zip(*needs, strict=True)
        (grad,) = torch.autograd.grad(outputs, wanted, grads)
        assert_near(grad, expected[name], 2e-6, name)


def test_byte_spikes_carry_no_gradient_but_the_membrane_does():
    x, kwargs = make_case((4, 2, 3, 5, 7), True, True)
    z = x.clone().requires_grad_()
    out = affine_lif(z, NeuronConfig(), spike_dtype=torch.uint8, **kwargs)
    assert not out.spikes.requires_grad
    (grad,) = torch.autograd.grad(out.v.sum() + out.y.sum(), z)
    z = x.clone().requires_grad_()
    reference = affine_lif_reference(z, NeuronConfig(), **kwargs)
    (expected,) = torch.autograd.grad(reference.v.sum() + reference.y.sum(), z)
    assert_near(grad, expected, 2e-6, "x")


def test_nan_and_infinity_pass_as_in_the_stepwise_form():
    x = torch.tensor([math.nan, math.inf, -math.inf, 1e38, 3.0]).repeat(2, 1, 1, 1, 7)
    for config in (NeuronConfig(), NeuronConfig(v_reset=None)):
        found = affine_lif(x, config)
        expected = _stepwise.forward(x, None, None, None, None, x.dtype, config)
        for a, b in zip(found[:2], expected[:2], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


# --- Threads and processes ------------------------------------------------------------------------


@pytest.fixture
def threads():
    yield torch.set_num_threads
    torch.set_num_threads(1)


def test_threads_do_not_change_the_numbers(threads):
    x, kwargs = make_case((4, 2, 24, 30, 31), True, True, channels_last=True)
    found = {}
    for count in (1, 2, 3):
        threads(count)
        found[count] = run_with_gradients(affine_lif, x, NeuronConfig(), kwargs)
        again = run_with_gradients(affine_lif, x, NeuronConfig(), kwargs)
        for name, grad in found[count][1].items():
            assert torch.equal(grad, again[1][name])
    for count in (2, 3):
        for a, b in zip(found[count][0], found[1][0], strict=True):
            assert torch.equal(a, b)
        for name, grad in found[count][1].items():
            assert_near(grad, found[1][1][name], 1e-7, name)


def test_calls_from_several_python_threads(threads):
    threads(2)
    cases = [make_case((4, 1, 16, 40, 40 + i), True, False) for i in range(4)]
    expected = [affine_lif_reference(x, NeuronConfig(), **kwargs) for x, kwargs in cases]
    wrong = []

    def work(x, kwargs, reference):
        torch.set_num_threads(2)
        for _ in range(20):
            out = affine_lif(x, NeuronConfig(), **kwargs)
            if not torch.equal(out.spikes, reference.spikes):
                wrong.append(x.shape)

    workers = [
        threading.Thread(target=work, args=(*case, reference))
        for case, reference in zip(cases, expected, strict=True)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_after_a_fork():
    """The child has none of the parent's OpenMP threads; it must not wait for them."""
    code = """
import os, torch
from spikevideoformer.ops.lif import NeuronConfig, lif
torch.set_num_threads(2)
x = torch.randn(4, 100_000)
expected = lif(x, NeuronConfig())[0]
child = os.fork()
if child == 0:
    spikes = lif(x, NeuronConfig())[0]
    # not torch.equal: torch itself waits for the lost threads
    os._exit(0 if (spikes.numpy() == expected.numpy()).all() else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    run_python(code)


def run_python(code: str, **environment: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=100,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout + run.stderr


@pytest.mark.processes
def test_without_numba_neurons_run_step_by_step_and_say_so_once():
    code = """
import logging, sys
logging.basicConfig(format="%(name)s: %(message)s")
sys.modules["numba"] = None  # importing it fails
import torch
from spikevideoformer.ops.affine_lif import affine_lif, affine_lif_reference
from spikevideoformer.ops.lif import NeuronConfig, lif
from spikevideoformer.ops.pack import pack_spikes, unpack
x = torch.randn(3, 2, 4, 5, 5)
for _ in range(2):
    out = affine_lif(x, NeuronConfig(), scale=torch.ones(4), shift=torch.ones(4), residual=x)
    assert torch.equal(lif(x, NeuronConfig())[0], lif(x, NeuronConfig(), backend="reference")[0])
    assert torch.equal(unpack(pack_spikes(out.spikes)), out.spikes)
one = torch.ones(4)
expected = affine_lif_reference(x, NeuronConfig(), scale=one, shift=one, residual=x)
assert all(torch.equal(a, b) for a, b in zip(out, expected))
try:
    lif(x, NeuronConfig(), backend="fused")
except ValueError as error:
    print("refused:", error)
"""
    said = run_python(code)
    assert said.count("spikevideoformer: neurons run step by step") == 1
    assert "refused: backend='fused' cannot run: numba kernels do not load" in said


def test_compiled_code_needs_no_writable_place(monkeypatch, caplog):
    def nowhere(function):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(numba_compile, "_Cache", nowhere)
    with caplog.at_level(logging.INFO, logger="spikevideoformer"):
        function, address = numba_compile.compile_kernel(lambda a: None, "nothing")
    assert address
    function(numba_compile.Arguments())
    assert "compiled anew" in caplog.text


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_compiled_code_is_kept_on_disk(tmp_path):
    """By the first of two processes for the second."""
    code = """
import os, torch
from numba.core.ccallback import CFunc
from spikevideoformer.ops.lif import NeuronConfig, lif
compiled = []
real = CFunc._compile_uncached
CFunc._compile_uncached = lambda self: (compiled.append(1), real(self))[1]
for _ in range(2):
    if os.fork() == 0:
        lif(torch.randn(3, 5), NeuronConfig())
        print("compiled", len(compiled), flush=True)
        os._exit(0)
    os.wait()
"""
    said = run_python(code, NUMBA_CACHE_DIR=str(tmp_path))
    assert re.findall(r"compiled \d", said) == ["compiled 1", "compiled 0"]


# --- What torch sees ------------------------------------------------------------------------------


def op_inputs(dtype=torch.float32, spike_dtype=None, affine=True, residual=True, neuron=None):
    """Arguments of the custom op, all of which take gradients."""
    x, kwargs = make_case((3, 2, 4, 3, 5), affine, residual, dtype=dtype, channels_last=True)
    names = ("scale", "shift", "residual", "v_init")
    tensors = [None if name not in kwargs else kwargs[name].requires_grad_() for name in names]
    args = _kernels.scalars(neuron or NeuronConfig())
    return (x.requires_grad_(), *tensors, spike_dtype or dtype, *args, False)


@pytest.mark.parametrize(
    ("affine", "residual"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_custom_op(affine, residual):
    torch.library.opcheck(
        _kernels.affine_lif_op,
        op_inputs(affine=affine, residual=residual),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor")
        if not (affine and residual)
        else (
            "test_schema",
            "test_autograd_registration",
            "test_faketensor",
            "test_aot_dispatch_static",
        ),
    )


def test_custom_op_on_other_kinds_of_tensors():
    for dtype, spike_dtype in (
        (torch.bfloat16, None),
        (torch.float64, None),
        (torch.float32, torch.uint8),
    ):
        torch.library.opcheck(
            _kernels.affine_lif_op,
            op_inputs(dtype, spike_dtype),
            test_utils=("test_schema", "test_faketensor"),
        )


def test_compiled_without_graph_breaks():
    def layer(x, scale, shift, residual):
        spikes, v = lif(x * 2, NeuronConfig())
        out = affine_lif(
            spikes + x, NeuronConfig.integer(), scale=scale, shift=shift, residual=residual
        )
        return out.spikes, out.y, v + out.v

    x, kwargs = make_case((4, 2, 3, 5, 7), True, True)
    del kwargs["v_init"]
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    found = []
    for run in (layer, compiled):
        z = x.clone().requires_grad_()
        out = run(z, **kwargs)
        (grad,) = torch.autograd.grad([a.square().sum() for a in out], z)
        found.append([*out, grad])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_second_derivatives_are_refused_rather_than_wrong():
    x = make((3, 1, 4, 1, 1)).requires_grad_()
    (grad,) = torch.autograd.grad(affine_lif(x, NeuronConfig()).spikes.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        grad.square().sum().backward()


# --- The stepwise form ----------------------------------------------------------------------------


@pytest.mark.parametrize("channels_last", [False, True])
def test_stepwise_form_in_float64(channels_last):
    """What runs off the kernels: equal to the reference to 1e-12, all gradients."""
    for config, affine, residual in itertools.product(NEURONS, (False, True), (False, True)):
        x, kwargs = make_case((4, 2, 3, 5, 7), affine, residual, channels_last=channels_last)
        out, grads = run_with_gradients(affine_lif, x, config, kwargs, torch.float64)
        expected, grads_expected = run_with_gradients(
            affine_lif_reference, x, config, kwargs, torch.float64
        )
        for a, b in zip(out, expected, strict=True):
            assert torch.equal(a, b)
        for name, grad in grads.items():
            assert_near(grad, grads_expected[name], 1e-12, name)


def test_stepwise_form_equals_the_kernel_in_bfloat16():
    x, kwargs = make_case((4, 2, 3, 5, 7), True, True, dtype=torch.bfloat16)
    kwargs["residual"] = kwargs["residual"].bfloat16()
    order = [kwargs[k] for k in ("scale", "shift", "residual", "v_init")]
    for config in NEURONS:
        arguments = (x, *order, torch.bfloat16, config)
        found, expected = numba_lif.forward(*arguments), _stepwise.forward(*arguments)
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a, b)
            assert a.dtype == b.dtype


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "kwargs", "says"),
    [
        ((2, 1, 3), {"scale": torch.ones(3)}, "come together"),
        ((2, 1, 3), {"scale": torch.ones(4), "shift": torch.ones(4)}, "do not fit"),
        ((2, 3), {"scale": torch.ones(3), "shift": torch.ones(3)}, "do not fit"),
        ((2, 1, 3), {"residual": torch.ones(2, 1, 4)}, "residual has shape"),
        ((2, 1, 3), {"v_init": torch.ones(3)}, "v_init has shape"),
        ((2, 1, 3), {"spike_dtype": torch.int64}, "expected torch.float32, bfloat16, uint8"),
        ((2, 1, 3), {"backend": "fast"}, "choose one of auto, reference, fused"),
        ((0, 1, 3), {}, "no time step"),
    ],
)
def test_wrong_input_is_refused(shape, kwargs, says):
    with pytest.raises(ValueError, match=says):
        affine_lif(torch.zeros(shape), NeuronConfig(), **kwargs)


def test_fused_runs_or_says_why_not():
    x = make((3, 1, 4, 2, 2))
    assert torch.equal(
        affine_lif(x, NeuronConfig(), backend="fused").spikes,
        affine_lif(x, NeuronConfig(), backend="reference").spikes,
    )
    with pytest.raises(ValueError, match="no kernel takes float64 on cpu"):
        affine_lif(x.double(), NeuronConfig(), backend="fused")
    with pytest.raises(ValueError, match="no kernel takes float16 on cpu"):
        lif(x.half(), NeuronConfig(), backend="fused")


@pytest.mark.parametrize("op", [lif, affine_lif])
def test_fused_holds_when_compiled(op):
    """A compiled call is as strict as an ordinary one, and takes what that takes."""
    x = make((3, 1, 4, 2, 2))

    def layer(x):
        return op(x, NeuronConfig(), backend="fused")[0]

    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), layer(x))
    with pytest.raises(ValueError, match="backend='fused' cannot run: no kernel takes float64"):
        compiled(x.double())


@pytest.mark.parametrize("carrier", ["x", "scale", "shift", "residual", "v_init"])
def test_forward_mode_is_refused_rather_than_zero(carrier):
    """Whichever input carries the tangent, with and without gradients of the usual kind."""
    x, kwargs = make_case((3, 2, 4, 1, 1), True, True)
    for needs_grad, keeps_graph in itertools.product((False, True), repeat=2):
        inputs = {"x": x.clone().requires_grad_(needs_grad), **kwargs}
        with forward_ad.dual_level(), torch.set_grad_enabled(keeps_graph):
            z = inputs[carrier]
            inputs[carrier] = forward_ad.make_dual(z, torch.ones_like(z))
            with pytest.raises(NotImplementedError, match="use backend='reference'"):
                affine_lif(config=NeuronConfig(), **inputs)
            out = affine_lif(config=NeuronConfig(), **inputs, backend="reference")
            assert forward_ad.unpack_dual(out.v).tangent is not None
    with forward_ad.dual_level():  # tangents elsewhere are no reason to refuse
        affine_lif(x, NeuronConfig(), **kwargs)


def test_a_tensor_on_another_device_is_refused():
    x = torch.zeros(2, 1, 3, 2, 2)
    elsewhere = torch.ones(3, device="meta")
    with pytest.raises(ValueError, match="scale is on meta, the input on cpu"):
        affine_lif(x, NeuronConfig(), scale=elsewhere, shift=torch.ones(3))
    with pytest.raises(ValueError, match="v_init is on meta"):
        affine_lif(x, NeuronConfig(), v_init=torch.zeros(1, 3, 2, 2, device="meta"))


def test_a_trace_runs_the_neuron_on_new_input():
    first, second = torch.randn(2, 3, 1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.trace is deprecated; shapes become constants
        traced = torch.jit.trace(lambda x: affine_lif(2 * x, NeuronConfig()).spikes, first)
    assert torch.equal(traced(second), affine_lif(2 * second, NeuronConfig()).spikes)


@pytest.mark.parametrize("backend", ["auto", "reference", "fused"])
def test_a_rectifier_is_refused(backend):
    with pytest.raises(ValueError, match="kind relu"):
        affine_lif(torch.zeros(2, 1, 3, 4), NeuronConfig(kind="relu"), backend=backend)
