"""Surrogate gradients: what stands in for the derivative of a step.

A spike is ``S = 1[x >= 0]`` with ``x = H - v_threshold``. Its derivative is zero almost
everywhere, so training uses a smooth bump instead, in the backward pass only.
"""

from typing import Any

import torch
from torch import Tensor

from spikevideoformer.ops.neuron_config import DEFAULT_ALPHA as DEFAULT_ALPHA
from spikevideoformer.ops.neuron_config import SURROGATES as SURROGATES
from spikevideoformer.ops.neuron_config import Surrogate as Surrogate


def surrogate_gradient(x: Tensor, surrogate: Surrogate, alpha: float) -> Tensor:
    """Derivative that replaces that of the step at ``x``.

    Equation:
        sigmoid:   alpha * s * (1 - s), s = 1 / (1 + exp(-alpha * x))
        arctan:    (alpha / 2) / (1 + (pi * alpha * x / 2)^2)
        triangle:  alpha * max(0, 1 - alpha * |x|)
        Each integrates to 1 over the real line.

    Args:
        x: membrane minus threshold, any shape.
        surrogate: which bump.
        alpha: its sharpness, positive; larger is narrower and higher.

    Returns:
        A tensor shaped as ``x``.

    Raises:
        ValueError: unknown ``surrogate``.

    Source: the code of Zou et al., ICML 2025 (sigmoid, alpha = 4); the others as above.
    """
    if surrogate == "sigmoid":
        s = (alpha * x).sigmoid_()
        return torch.addcmul(s, s, s, value=-1).mul_(alpha)
    if surrogate == "arctan":
        return (alpha / 2) / (1 + (torch.pi * alpha / 2 * x).square())
    if surrogate == "triangle":
        return alpha * (1 - alpha * x.abs()).clamp_min(0)
    raise ValueError(f"surrogate {surrogate!r} is unknown; choose one of {', '.join(SURROGATES)}")


class _Spike(torch.autograd.Function):
    """Step forward, surrogate derivative in either mode."""

    generate_vmap_rule = True  # for torch.func.jacfwd

    @staticmethod
    def forward(x: Tensor, surrogate: Surrogate, alpha: float) -> Tensor:
        return (x >= 0).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.surrogate, ctx.alpha = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x,) = ctx.saved_tensors
        return grads[0] * surrogate_gradient(x, ctx.surrogate, ctx.alpha), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        (x,) = ctx.saved_tensors
        return tangents[0] * surrogate_gradient(x, ctx.surrogate, ctx.alpha)


def spike(x: Tensor, surrogate: Surrogate = "sigmoid", alpha: float | None = None) -> Tensor:
    """Fire where ``x >= 0``; differentiable through the surrogate.

    Args:
        x: membrane minus threshold, any shape.
        surrogate: which bump serves as derivative.
        alpha: its sharpness; the field's usual value for that bump where None.

    Returns:
        0 or 1 in the dtype and shape of ``x``.
    """
    out: Tensor = _Spike.apply(x, surrogate, DEFAULT_ALPHA[surrogate] if alpha is None else alpha)
    return out
