"""Surrogate gradients: shape, area, symmetry, and their use in the backward pass."""

import math

import pytest
import torch

from spikevideoformer.ops.surrogate import (
    DEFAULT_ALPHA,
    SURROGATES,
    spike,
    surrogate_gradient,
)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_integrates_to_one_and_is_symmetric(surrogate, alpha):
    x = torch.linspace(-2000, 2000, 800_001, dtype=torch.float64)
    y = surrogate_gradient(x, surrogate, alpha)
    beyond = 0.0  # what the tails hold outside [-2000, 2000]; nothing but for arctan
    if surrogate == "arctan":
        beyond = 1 - 2 / math.pi * math.atan(math.pi * alpha * 2000 / 2)
    assert torch.trapezoid(y, x).item() + beyond == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(y, y.flip(0), rtol=1e-9, atol=1e-15)
    assert y.min() >= 0
    assert y.argmax() == x.abs().argmin()


@pytest.mark.parametrize(
    ("surrogate", "at_zero", "at_quarter"),
    [
        # sigmoid(4x)' at 0 is 4/4; at 1/4 it is 4 s (1 - s) with s = sigmoid(1)
        ("sigmoid", 1.0, 4 / (2 + math.e + 1 / math.e)),
        ("arctan", 1.0, 1 / (1 + (math.pi / 4) ** 2)),
        ("triangle", 1.0, 0.75),
    ],
)
def test_values_by_hand(surrogate, at_zero, at_quarter):
    x = torch.tensor([0.0, 0.25, -0.25], dtype=torch.float64)
    y = surrogate_gradient(x, surrogate, DEFAULT_ALPHA[surrogate]).tolist()
    assert y == pytest.approx([at_zero, at_quarter, at_quarter], rel=1e-12)


def test_published_surrogate_is_the_derivative_of_sigmoid_4x():
    x = torch.randn(100, dtype=torch.float64, requires_grad=True)
    torch.sigmoid(4 * x).sum().backward()
    torch.testing.assert_close(surrogate_gradient(x.detach(), "sigmoid", 4.0), x.grad)


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_spike_steps_forward_and_bumps_backward(surrogate):
    x = torch.tensor([-1.0, -0.0, 0.0, 1e-30, 2.0], requires_grad=True)
    out = spike(x, surrogate)
    assert out.tolist() == [0, 1, 1, 1, 1]
    upstream = torch.tensor([1.0, 2.0, -3.0, 0.5, 4.0])
    out.backward(upstream)
    expected = upstream * surrogate_gradient(x.detach(), surrogate, DEFAULT_ALPHA[surrogate])
    assert torch.equal(x.grad, expected)


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_forward_mode_equals_backward_mode(surrogate):
    x, tangent = torch.randn(2, 50, dtype=torch.float64)
    out, along = torch.func.jvp(lambda z: spike(z, surrogate), (x,), (tangent,))
    assert torch.equal(out, (x >= 0).double())
    expected = tangent * surrogate_gradient(x, surrogate, DEFAULT_ALPHA[surrogate])
    assert torch.equal(along, expected)


def test_unknown_surrogate():
    with pytest.raises(ValueError, match="choose one of sigmoid, arctan, triangle"):
        surrogate_gradient(torch.zeros(1), "rectangle", 1.0)  # type: ignore[arg-type]
