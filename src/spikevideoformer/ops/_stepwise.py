"""Neurons over time in plain torch, step by step, with a hand-written backward pass.

What ``ops/affine_lif.py`` runs where no compiled kernel does: any device, any precision. Like
the kernels it saves no membranes: the backward pass computes them again.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from spikevideoformer.ops._layout import dense, empty_as, empty_step_as
from spikevideoformer.ops.neuron_config import NeuronConfig
from spikevideoformer.ops.rounding import rounded
from spikevideoformer.ops.surrogate import surrogate_gradient


def affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``fma(x, scale, shift)`` of each channel of ``[T, B, C, ...]``, by torch's own batch norm."""
    zero, one = torch.zeros_like(scale), torch.ones_like(scale)
    y = F.batch_norm(x.flatten(0, 1), zero, one, scale, shift, eps=0.0)
    return y.unflatten(0, x.shape[:2])


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _integrated(
    x: Tensor, scale: Tensor | None, shift: Tensor | None, residual: Tensor | None
) -> Tensor:
    """What charges the membrane; kept in the precision of the stream where there is one."""
    y = _wide(x)
    if scale is not None and shift is not None:
        y = affine(y, scale.to(y.dtype), shift.to(y.dtype))
    if residual is None:
        return y
    return (y + residual).to(torch.promote_types(x.dtype, residual.dtype))


def _run(
    y: Tensor,
    v_init: Tensor | None,
    membranes: Tensor | None,
    spikes: Tensor | None,
    neuron: NeuronConfig,
) -> Tensor:
    """Fill the ``membranes`` H and ``spikes`` asked for; the last V."""
    rest, theta, v_reset = neuron.v_start, neuron.v_threshold, neuron.v_reset
    v = torch.full_like(y[0], rest) if v_init is None else v_init.to(y.dtype)
    h_of_all = torch.empty_like(y[:1]) if membranes is None else membranes
    for t, y_t in enumerate(y):
        h = h_of_all[0 if membranes is None else t]
        gap = v - rest if rest else v
        if neuron.decay_input:
            torch.sub(y_t, gap, out=h).div_(neuron.tau).add_(v)
        else:
            torch.mul(gap, neuron.beta, out=h).add_(y_t)
            if rest:
                h.add_(rest)
        if neuron.fires_integers:
            s = rounded(h / theta, neuron.rounding == "half_up").clamp_(0, neuron.levels)
            v = h - theta * s  # not sub(alpha=...): fused, it rounds once less
        else:
            s = (h >= theta).to(h.dtype)
            v = h - theta * s if v_reset is None else torch.where(s > 0, v_reset, h)
        if spikes is not None:
            spikes[t].copy_(s)
    return v


def forward(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    residual: Tensor | None,
    v_init: Tensor | None,
    spike_dtype: torch.dtype,
    neuron: NeuronConfig,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Spikes, last membrane and new residual stream; see ``ops/affine_lif.py``."""
    x = dense(x)
    y = _integrated(x, scale, shift, residual)
    spikes = empty_as(x, spike_dtype)
    last = _run(_wide(y), v_init, None, spikes, neuron)
    v = empty_step_as(x, last.dtype).copy_(last)
    return spikes, v, None if residual is None else empty_as(x, y.dtype).copy_(y)


def backward(
    grad_spikes: Tensor,
    grad_v: Tensor | None,
    grad_y: Tensor | None,
    x: Tensor,
    y: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    centre: Tensor | None,
    v_init: Tensor | None,
    want_grad_y: bool,
    want_grad_x: bool,
    neuron: NeuronConfig,
) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor | None, Tensor | None]:
    """Gradients; see ``ops/affine_lif.py``."""
    x = dense(x)
    stream = _wide(_integrated(x, scale, shift, None) if y is None else y)
    h = torch.empty_like(stream)
    _run(stream, v_init, h, None, neuron)
    theta, keep = neuron.v_threshold, neuron.beta
    # dS/dH of all steps at once
    if neuron.fires_integers:
        slope = ((h >= 0) & (h <= theta * neuron.levels)).to(h.dtype) / theta
    else:
        slope = surrogate_gradient(h - theta, neuron.surrogate, neuron.alpha)
    # dH[t+1]/dH[t] of all steps at once
    if neuron.v_reset is not None:
        carry = (h < theta).to(h.dtype).mul_(keep)
        if not neuron.detach_reset:
            carry.add_((neuron.v_reset - h) * slope, alpha=keep)
    elif neuron.detach_reset:
        carry = torch.full_like(h, keep)
    else:
        carry = (1 - theta * slope).mul_(keep)
    grad_h = slope.mul_(grad_spikes)  # completed below by what comes back through time
    if neuron.remembers:
        # as if from a further step
        later = torch.zeros_like(h[0]) if grad_v is None else grad_v / keep
        for t in range(h.shape[0] - 1, -1, -1):
            later = grad_h[t].addcmul_(carry[t], later)
    elif grad_v is not None:  # nothing comes back through time; the reset is detached
        grad_h[-1].add_(grad_v)
    grad_v_init = grad_h[0] * keep
    grad_out = grad_h.div_(neuron.tau) if neuron.decay_input else grad_h
    if grad_y is not None:
        grad_out = grad_out + grad_y
    out_y = out_x = grad_shift = grad_scale = None
    if want_grad_y:
        out_y = empty_as(x, x.dtype if y is None else y.dtype).copy_(grad_out)
    if scale is not None:
        channel = (1, 1, -1) + (1,) * (x.ndim - 3)
        summed = tuple(d for d in range(x.ndim) if d != 2)
        centred = _wide(x) if centre is None else _wide(x) - centre.reshape(channel)
        grad_shift = grad_out.sum(summed, dtype=torch.float64)
        grad_scale = (grad_out * centred).sum(summed, dtype=torch.float64)
        if want_grad_x:
            out_x = empty_as(x, x.dtype).copy_(grad_out * scale.reshape(channel))
    out_v = empty_step_as(x, grad_v_init.dtype).copy_(grad_v_init)
    return out_y, out_x, out_v, grad_shift, grad_scale


def combine(x: Tensor, grad_y: Tensor, slope: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    """``slope_c * x + gain_c * grad_y + offset_c``: the second half of a batch norm's backward."""
    shape = (1, 1, -1) + (1,) * (x.ndim - 3)
    slope, gain, offset = (z.reshape(shape) for z in (slope, gain, offset))
    x = dense(x)
    return empty_as(x, x.dtype).copy_(slope * _wide(x) + gain * _wide(grad_y) + offset)
