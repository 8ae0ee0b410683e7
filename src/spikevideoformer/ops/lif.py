"""Leaky integrate-and-fire neurons over the time axis.

Our symbols are the paper's: X input, H membrane before firing, S spikes, V membrane after reset
(the paper's U for soft reset). All functions take the input of all time steps at once, time
first, and pass the membrane explicitly: nothing is remembered between calls.

``lif_reference`` is the specification, step by step in plain autograd. ``lif`` computes the same
numbers in one pass over memory (``_kernels`` says by what); for the backward pass it saves nothing
but the input, from which the membranes are computed again.
"""

from typing import Any

import torch
from torch import Tensor

from spikevideoformer.ops._kernels import check_backend as check_backend
from spikevideoformer.ops._kernels import run
from spikevideoformer.ops.neuron_config import NeuronConfig as NeuronConfig
from spikevideoformer.ops.neuron_config import kinds_of_kernels
from spikevideoformer.ops.rounding import rounded
from spikevideoformer.ops.surrogate import spike


def _charge(v: Tensor, x: Tensor, config: NeuronConfig) -> Tensor:
    """Membrane before firing, H[t] from V[t-1] and X[t].

    The order of operations is that of the published code: ``v + (x - v)/tau`` and
    ``(v + x)/2`` differ in the last bit, which flips spikes.
    """
    rest = config.v_start
    gap = v - rest if rest else v
    if config.decay_input:
        return v + (x - gap) / config.tau
    return config.beta * gap + x + rest if rest else config.beta * gap + x


class _RoundClamp(torch.autograd.Function):
    """clamp(round(x), 0, D) with the gradient of the identity inside [0, D]."""

    generate_vmap_rule = True  # for torch.func.jacfwd

    @staticmethod
    def forward(x: Tensor, levels: int, half_up: bool) -> Tensor:
        return rounded(x, half_up).clamp_(0, levels)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.levels, _ = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x,) = ctx.saved_tensors
        return grads[0] * ((x >= 0) & (x <= ctx.levels)), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        (x,) = ctx.saved_tensors
        return tangents[0] * ((x >= 0) & (x <= ctx.levels))


def fire(h: Tensor, config: NeuronConfig) -> tuple[Tensor, Tensor]:
    """Spikes S and membrane V after reset, of the membrane H before firing; differentiable.

    Equation: see :func:`lif_reference`; kinds that fire no integers fire 0 or 1.
    """
    if config.fires_integers:
        half_up = config.rounding == "half_up"
        s: Tensor = _RoundClamp.apply(h / config.v_threshold, config.levels, half_up)
    else:
        s = spike(h - config.v_threshold, config.surrogate, config.alpha)
    s_reset = s.detach() if config.detach_reset else s
    if config.v_reset is None:
        return s, h - config.v_threshold * s_reset
    return s, (1 - s_reset) * h + config.v_reset * s_reset


def lif_reference(
    x: Tensor, config: NeuronConfig, v_init: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run a neuron over time, one step after the other.

    Equation (theta = v_threshold):
        H[t] = V[t-1] + (X[t] - (V[t-1] - v_reset)) / tau      decay_input
        H[t] = beta * V[t-1] + X[t]                            otherwise (v_reset = 0)
        S[t] = 1[H[t] >= theta]            or clamp(round(H[t] / theta), 0, D) for integer_lif
                                           and ni_lif, whose beta is 0
        V[t] = v_reset where S[t] fired, else H[t]             hard reset
        V[t] = H[t] - theta * S[t]                             soft reset

    Args:
        x: input current ``[T, ...]``, floating point.
        config: the neuron.
        v_init: membrane ``[...]`` before the first frame; ``config.v_start`` where None.

    Returns:
        Spikes ``[T, ...]`` in the dtype of ``x`` and the membrane ``[...]`` after the last frame.

    Source: Zou et al., ICML 2025 (soft reset); its code (hard reset, order of operations).
    """
    check_kind(config)
    v = torch.full_like(x[0], config.v_start) if v_init is None else v_init
    spikes = []
    for x_t in x:
        h = _charge(v, x_t, config)
        s, v = fire(h, config)
        spikes.append(s)
    return torch.stack(spikes), v


def check_kind(config: NeuronConfig) -> None:
    """Raise ValueError for a neuron that is not computed here, such as a rectifier."""
    if not config.kernels:
        why, use = "has no membrane and fires no spikes", "use nn.neuron.Rectifier"
        if config.spiking:
            why, use = "no kernel computes", "call its module without backend='fused'"
        raise ValueError(
            f"got a neuron of kind {config.kind}, which {why}; give {kinds_of_kernels()}, or {use}"
        )


def check_input(x: Tensor, v_init: Tensor | None) -> None:
    """Raise ValueError where neurons cannot run on ``x`` from ``v_init``."""
    if x.ndim < 1 or x.shape[0] < 1:
        raise ValueError(f"input of shape {tuple(x.shape)} has no time step; expected [T, ...]")
    if not x.is_floating_point():
        raise ValueError(f"input is {x.dtype}; a membrane integrates floating-point currents")
    if v_init is not None and v_init.shape != x.shape[1:]:
        raise ValueError(
            f"v_init has shape {tuple(v_init.shape)}; one step of the input has "
            f"{tuple(x.shape[1:])}"
        )
    check_device(x, v_init=v_init)


def check_device(x: Tensor, **others: Tensor | None) -> None:
    """Raise ValueError where others are on another device: kernels take addresses."""
    for name, other in others.items():
        if other is not None and other.device != x.device:
            raise ValueError(f"{name} is on {other.device}, the input on {x.device}; move one")


def lif(
    x: Tensor, config: NeuronConfig, v_init: Tensor | None = None, *, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Run a neuron over time; what callers use. Same contract as :func:`lif_reference`.

    Half-precision input is integrated in float32 (a membrane in bfloat16 would forget small
    inputs); spikes come back in the input's dtype, where 0..D are exact.

    Args:
        x: input current ``[T, ...]``, floating point, in any memory layout.
        config: the neuron.
        v_init: membrane ``[...]`` before the first frame; ``config.v_start`` where None.
        backend: ``auto`` takes the fastest way there is, ``fused`` a compiled kernel or none,
            ``reference`` is :func:`lif_reference` (in float32 for half precision).

    Raises:
        ValueError: no time axis, an empty one, integers, a ``v_init`` of another shape, or
            ``fused`` where no kernel runs.
        NotImplementedError: a forward-mode derivative; ``reference`` has it.
    """
    check_backend(backend)
    check_input(x, v_init)
    if backend == "reference":
        work = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        v_init = None if v_init is None else v_init.to(work.dtype)
        with torch.autocast(device_type=x.device.type, enabled=False):
            spikes, v = lif_reference(work, config, v_init)
        return spikes.to(x.dtype), v
    check_kind(config)
    spikes, v, _ = run(x, None, None, None, v_init, x.dtype, config, backend == "fused")
    return spikes, v


def unroll_integer_spikes(s: Tensor, levels: int) -> Tensor:
    """Integer spikes as binary spikes over virtual sub-steps, exactly.

    Args:
        s: integers 0..``levels`` (any dtype), any shape.
        levels: D.

    Returns:
        0/1 of shape ``[D, *s.shape]`` in the dtype of ``s`` whose sum over the first axis is
        ``s``; sub-step i fires where ``s > i``. A linear layer applied to each sub-step and
        summed gives what it gives on ``s``.

    Raises:
        ValueError: a value outside 0..D.

    Source: SpikeYOLO, ECCV 2024, as used by Zou et al., ICML 2025.
    """
    if s.numel() and (s.min() < 0 or s.max() > levels):
        raise ValueError(f"spikes lie in [{s.min()}, {s.max()}]; expected 0..{levels}")
    steps = torch.arange(levels, device=s.device).reshape(levels, *[1] * s.ndim)
    return (s.unsqueeze(0) > steps).to(s.dtype)


def unroll_integer_lif(
    x: Tensor, config: NeuronConfig, v_init: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Integer-LIF run as a binary neuron with D sub-steps per frame: the deployment form.

    Within a frame the membrane takes no further input; each sub-step fires a binary spike, and
    subtracts its threshold, until as many have fired as the rounded membrane holds, at most D.

    Args:
        x: input current ``[T, ...]``.
        config: an ``integer_lif`` or ``ni_lif`` neuron.
        v_init: membrane before the first frame.

    Returns:
        Binary spikes ``[T, D, ...]``, whose sum over D is what :func:`lif` fires, and the last
        membrane.

    Raises:
        ValueError: ``config`` fires no integers.
    """
    if not config.fires_integers:
        raise ValueError(f"neuron kind is {config.kind!r}; only integer_lif and ni_lif unroll")
    theta = config.v_threshold
    work = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x  # as in lif
    v = torch.full_like(work[0], config.v_start) if v_init is None else v_init.to(work.dtype)
    frames = []
    for x_t in work:
        h = _charge(v, x_t, config)
        units = rounded(h / theta, config.rounding == "half_up")  # thresholds still to be fired
        sub_steps = []
        for _ in range(config.levels):
            s = (units >= 1).to(work.dtype)
            units = units - s
            sub_steps.append(s)
        frames.append(torch.stack(sub_steps))
        v = h - theta * frames[-1].sum(0)
    return torch.stack(frames).to(x.dtype), v
