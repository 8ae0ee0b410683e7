"""One network, computed by kernels or as the equations have it."""

import copy

import pytest
import torch
from torch import nn

import spikevideoformer as svf
from spikevideoformer.nn.attention import SpikeAttention
from spikevideoformer.nn.backend import computed_by, set_backend
from spikevideoformer.nn.neuron import Neuron

EVERYTHING = {"neurons": "reference", "attention": "reference"}


def _model(**options):
    options = {"depths": (1, 1, 1, 1, 1), "residual_gain": 1.0, **options}
    return svf.create_model("svf_nano", num_classes=5, **options)


def _video(dtype=torch.float32):
    return torch.randn(2, 3, 3, 32, 32, dtype=dtype)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"readout": "spike"},
        {"neuron": "integer_lif", "constant_term": True},
        {"attention": "dot", "design": "factorized"},
    ],
    ids=str,
)
def test_the_same_numbers(options, folded):
    model, video = _model(**options).eval(), _video()
    if folded:
        model = svf.fold_for_inference(model)
    with torch.no_grad(), svf.record_firing_rates(model) as rates:
        expected = model(video)
        fired = rates.mean
        with computed_by(model, **EVERYTHING):
            assert torch.equal(model(video), expected)
    assert rates.mean == fired
    assert max(fired.values()) > 0.01


def test_the_same_gradients():
    model, video = _model().double(), _video(torch.float64)
    twin = copy.deepcopy(model)
    set_backend(twin, **EVERYTHING)
    for network in (model, twin):
        network(video).square().sum().backward()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-10)


def test_as_written_there_is_nothing_but_torch():
    """What is exported needs no operations of ours."""
    model, video = _model().eval(), torch.randn(1, 2, 3, 16, 16)

    def ours() -> set[str]:
        graph = torch.export.export(model, (video,), strict=False).graph
        return {str(n.target) for n in graph.nodes if str(n.target).startswith("spikevideoformer")}

    assert ours() == {
        "spikevideoformer.affine_lif.default",
        "spikevideoformer.batch_norm_lif.default",
    }
    set_backend(model, **EVERYTHING)
    assert ours() == set()


def test_it_is_a_field_of_each_part_and_put_back():
    model, other = _model(), _model()
    neurons = [m for m in model.modules() if isinstance(m, Neuron)]
    attention = [m for m in model.modules() if isinstance(m, SpikeAttention)]
    neurons[0].backend = "fused"

    def interrupted() -> None:
        with computed_by(model, attention="reference"):
            assert {m.backend for m in attention} == {"reference"}
            assert {m.backend for m in neurons[1:]} == {"auto"}
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        interrupted()
    assert [m.backend for m in neurons[:2]] == ["fused", "auto"]
    assert {m.backend for m in attention} == {"auto"}
    assert {m.backend for m in other.modules() if isinstance(m, Neuron)} == {"auto"}
    with pytest.raises(ValueError, match="backend 'numba' is unknown; choose one of auto"):
        set_backend(nn.Identity(), neurons="numba")


def test_fused_or_nothing():
    model = _model().eval()
    set_backend(model, neurons="fused")
    model(_video())
    with pytest.raises(ValueError, match="no kernel takes float64"):
        model.double()(_video(torch.float64))
    set_backend(model, neurons="auto", attention="fused")
    with pytest.raises(ValueError, match=r"backend='fused' cannot run.* on cpu"):
        model(_video(torch.float64))
