"""The whole network as one compiled graph."""

import copy

import pytest
import torch
from torch import nn
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler

import spikevideoformer as svf
from spikevideoformer.synth.motions import standing_skeleton

# dynamo makes an instance of an autograd function, of which torch itself warns
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@pytest.fixture(autouse=True)
def _fresh():
    torch.compiler.reset()


def _pair(lively, **overrides):
    torch.manual_seed(0)
    options = {"depths": (1, 1, 1, 1, 1), **overrides}
    model = lively(svf.create_model("svf_nano", num_classes=5, **options))
    return model, copy.deepcopy(model)


def _check(model, twin, backend, tolerance):
    """A training step and an evaluation of the compiled twin do what the model does."""
    compiled = torch.compile(twin, fullgraph=True, backend=backend)
    video = torch.randn(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for run in (model, compiled):
        torch.manual_seed(2)
        nn.functional.cross_entropy(run(video), torch.tensor([1, 3])).backward()
    for (name, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
        error = (a.grad - b.grad).norm()
        assert error <= tolerance * a.grad.norm() + 1e-5, name
    for a, b in zip(model.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    twin.load_state_dict(model.state_dict())
    model.eval(), twin.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(video), model(video), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_one_graph(backend, lively):
    model, twin = _pair(lively)
    twin.backbone.spike_memory = "packed"
    _check(model, twin, backend, 1e-4)


def test_one_graph_of_poses(lively):
    body = standing_skeleton()
    model = lively(svf.create_model("svf_nano", task="pose", body=body, depths=(1, 1, 1, 1, 1)))
    video = torch.randn(1, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    compiled = torch.compile(model.eval(), fullgraph=True, backend="eager")
    with torch.no_grad():
        ours, theirs = compiled(video), model(video)
    assert ours._fields == theirs._fields
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("backend", "checkpointing"),
    [("eager", False), pytest.param("aot_eager", True, marks=pytest.mark.slow)],
)
def test_one_graph_of_an_ordinary_network(backend, checkpointing, lively):
    model, twin = _pair(lively, neuron="relu", attention="softmax")
    twin.backbone.gradient_checkpointing = checkpointing
    _check(model, twin, backend, 1e-4)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("memory", ["plain", "packed"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    "overrides",
    [
        {"neuron": "integer_lif"},
        {"attention": "dot", "design": "factorized"},
        {"design": "spatial_only"},
        {"drop_path": 0.5, "constant_term": True},
    ],
    ids=str,
)
def test_one_graph_of_other_networks(overrides, checkpointing, memory, lively):
    model, twin = _pair(lively, **overrides)
    twin.backbone.spike_memory = memory
    twin.backbone.gradient_checkpointing = checkpointing
    _check(model, twin, "aot_eager", 1e-4)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # as inductor is imported
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_inductor(checkpointing, lively):
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        pytest.skip("inductor needs a C++ compiler, and finds none")
    model, twin = _pair(lively)
    twin.backbone.spike_memory = "packed"
    twin.backbone.gradient_checkpointing = checkpointing
    _check(model, twin, "inductor", 1e-3)
