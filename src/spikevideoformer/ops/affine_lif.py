"""Per-channel affine + residual addition + neuron over time, as one operation.

A convolution's folded batch norm, the addition to the residual stream and the neuron are three
elementwise steps; one after the other each reads and writes the whole tensor. ``affine_lif``
reads the input once and writes the spikes, whatever the memory layout, since only time is
recurrent. ``affine_lif_reference`` is the specification.

The kernels, each with the same three functions (``neuron`` is a ``NeuronConfig``):

    forward(x, scale, shift, residual, v_init, spike_dtype, neuron) -> (spikes, v, y)
    backward(grad_spikes, grad_v, grad_y, x, y, scale, shift, centre, v_init,
             want_grad_y, want_grad_x, neuron)
        -> (grad_y, grad_x, grad_v_init, grad_shift, grad_scale)
    combine(x, grad_y, slope, gain, offset) -> grad_x

(``y`` is what was integrated where that is not affine(x); ``grad_scale`` sums up
``g * (x - centre)``; both sums are float64) are ``_stepwise`` (plain torch: any
device and precision), ``_numba/lif.py`` (CPU) and ``_triton/lif.py`` (CUDA); ``combine`` may write
over ``grad_y``. ``_kernels`` chooses and holds the custom ops and their gradients.
"""

import torch
from torch import Tensor

from spikevideoformer.ops._kernels import AffineLIF as AffineLIF
from spikevideoformer.ops._kernels import run
from spikevideoformer.ops._stepwise import affine
from spikevideoformer.ops.lif import (
    NeuronConfig,
    check_backend,
    check_device,
    check_input,
    check_kind,
    lif_reference,
)


def affine_lif_reference(
    x: Tensor,
    config: NeuronConfig,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    v_init: Tensor | None = None,
) -> AffineLIF:
    """The three steps one after the other.

    Equation:
        Y = fma(X, scale_c, shift_c) + residual
        (S, V) = lif_reference(Y)

    The affine part is torch's own batch norm with mean 0 and variance 1, whose rounding (one, of
    the fused multiply-add) the fast kernels reproduce. Arguments as of :func:`affine_lif`.
    """
    y = x
    if scale is not None and shift is not None:
        y = affine(x, scale, shift)
    if residual is not None:
        y = y + residual
    spikes, v = lif_reference(y, config, v_init)
    return AffineLIF(spikes, v, None if residual is None else y)


def affine_lif(
    x: Tensor,
    config: NeuronConfig,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    v_init: Tensor | None = None,
    spike_dtype: torch.dtype | None = None,
    backend: str = "auto",
) -> AffineLIF:
    """Same contract as :func:`affine_lif_reference`, in one pass over memory.

    Half-precision input is integrated in float32, and so is a residual stream in half precision,
    after it has been rounded to what is returned as ``y``.

    Args:
        x: input ``[T, B, C, ...]`` in any memory layout; the results have the same.
        config: the neuron.
        scale: factor of each channel ``[C]``; with ``shift`` or not at all.
        shift: what is added to each channel ``[C]``.
        residual: what is added to the result, shaped as ``x``.
        v_init: membrane ``[B, C, ...]`` before the first frame; at rest where None.
        spike_dtype: float32, bfloat16, uint8 or that of ``x``, which None stands for. uint8 spikes
            carry no gradient.
        backend: ``auto`` takes the fastest way there is, ``fused`` a compiled kernel or none,
            ``reference`` is :func:`affine_lif_reference`.

    Raises:
        ValueError: shapes that do not fit, a dtype that holds no spikes, or ``fused`` where no
            kernel runs.
        NotImplementedError: a forward-mode derivative; ``reference`` has it.
    """
    check_backend(backend)
    check_input(x, v_init)
    check_channels(x, scale, shift)
    if residual is not None and residual.shape != x.shape:
        raise ValueError(
            f"residual has shape {tuple(residual.shape)}; the input has {tuple(x.shape)}"
        )
    check_device(x, residual=residual)
    dtype = resolve_spike_dtype(x, spike_dtype)
    if backend == "reference":
        out = affine_lif_reference(
            x, config, scale=scale, shift=shift, residual=residual, v_init=v_init
        )
        return out._replace(spikes=out.spikes.to(dtype))
    check_kind(config)
    return run(x, scale, shift, residual, v_init, dtype, config, backend == "fused")


def check_channels(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> None:
    """Raise ValueError where ``scale`` and ``shift`` are not one number for each channel."""
    if scale is None and shift is None:
        return
    if scale is None or shift is None:
        raise ValueError("scale and shift come together; got one of them")
    if x.ndim < 3 or not scale.shape == shift.shape == x.shape[2:3]:
        raise ValueError(
            f"scale {tuple(scale.shape)} and shift {tuple(shift.shape)} do not fit an input of "
            f"shape {tuple(x.shape)}; expected [C] for [T, B, C, ...]"
        )
    check_device(x, scale=scale, shift=shift)


def resolve_spike_dtype(x: Tensor, spike_dtype: torch.dtype | None) -> torch.dtype:
    """Type of the spikes; ValueError where it is none that kernels write."""
    dtype = x.dtype if spike_dtype is None else spike_dtype
    if dtype not in (torch.float32, torch.bfloat16, torch.uint8, x.dtype):
        raise ValueError(
            f"spike_dtype is {dtype}; expected torch.float32, bfloat16, uint8 or that of the input"
        )
    return dtype
