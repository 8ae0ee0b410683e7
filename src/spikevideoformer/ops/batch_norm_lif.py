"""Batch norm in front of a neuron, fused with it.

The batch norm's statistics are computed first; behind them it is an affine function of each
channel, and ``affine_lif``'s kernel does the rest. No normalised tensor is ever made, and the
backward pass keeps the input only.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from spikevideoformer.ops._kernels import refuse_forward_mode, run_normalised, statistics
from spikevideoformer.ops.affine_lif import resolve_spike_dtype
from spikevideoformer.ops.lif import (
    NeuronConfig,
    check_backend,
    check_device,
    check_input,
    check_kind,
    lif_reference,
)


def batch_norm_lif_reference(
    x: Tensor,
    config: NeuronConfig,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    v_init: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Batch norm over frames and clips, then the neuron; ``x`` is ``[T, B, C, ...]``.

    Arguments as of ``torch.nn.functional.batch_norm``, and ``v_init``, the membrane ``[B, C, ...]``
    before the first frame (at rest where None). Running statistics are updated in place when
    ``training``. Gives spikes ``[T, B, C, ...]`` and the membrane after the last frame.
    """
    y = F.batch_norm(
        x.flatten(0, 1), running_mean, running_var, weight, bias, training, momentum, eps
    )
    return lif_reference(y.unflatten(0, x.shape[:2]), config, v_init)


def batch_norm_lif(
    x: Tensor,
    config: NeuronConfig,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    v_init: Tensor | None = None,
    *,
    spike_dtype: torch.dtype | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Same contract as :func:`batch_norm_lif_reference`, without the normalised tensor.

    Half-precision input is normalised and integrated in float32; spikes have the memory layout of
    ``x``. ``spike_dtype`` and ``backend`` as of ``affine_lif``.

    Raises:
        ValueError: shapes that do not fit, no statistics to normalise by, or ``fused`` where no
            kernel runs.
        NotImplementedError: a forward-mode derivative; ``reference`` has it.
    """
    check_backend(backend)
    check_kind(config)  # before running statistics move
    check_input(x, v_init)
    for name, z in (
        ("running_mean", running_mean),
        ("running_var", running_var),
        ("weight", weight),
        ("bias", bias),
    ):
        if z is not None and (x.ndim < 3 or z.shape != x.shape[2:3]):
            raise ValueError(
                f"{name} has shape {tuple(z.shape)}; expected [C] for an input [T, B, C, ...], "
                f"got {tuple(x.shape)}"
            )
        check_device(x, **{name: z})
    if x.ndim < 3:
        raise ValueError(
            f"input of shape {tuple(x.shape)} has no channels; expected [T, B, C, ...]"
        )
    if training and x.numel() <= x.shape[2]:
        raise ValueError(f"one value per channel in {tuple(x.shape)}: no variance to normalise by")
    if not training and (running_mean is None or running_var is None):
        raise ValueError("without training a batch norm needs running_mean and running_var")
    dtype = resolve_spike_dtype(x, spike_dtype)
    if backend == "reference":
        spikes, v = batch_norm_lif_reference(
            x, config, running_mean, running_var, weight, bias, training, momentum, eps, v_init
        )
        return spikes.to(dtype), v
    refuse_forward_mode("backend='reference'", x, weight, bias, v_init)
    with torch.no_grad():
        if training:
            mean, var = statistics(x, running_mean, running_var, momentum)
        else:
            assert running_mean is not None and running_var is not None
            mean, var = running_mean, running_var
        scale, shift = as_affine(mean, var, weight, bias, eps)
    return run_normalised(
        *(x, weight, bias, v_init, scale, shift, mean, var, eps, training),
        *(dtype, config, backend == "fused"),
    )


def as_affine(
    mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Scale and shift ``[C]`` that torch's batch norm applies, to the last bit.

    They are read off torch itself: what it makes of 0 is the shift, and of a number so large that
    the shift vanishes beside it, the scale times that number.
    """
    dtype = torch.promote_types(mean.dtype, torch.float32)
    mean, var = mean.to(dtype), var.to(dtype)
    weight, bias = (None if z is None else z.to(dtype) for z in (weight, bias))
    large = 2.0**60 if dtype == torch.float32 else 2.0**400
    # contiguous, as torch has another formula for other strides
    probe = torch.tensor([[0.0], [large]], dtype=dtype, device=mean.device)
    probe = probe.repeat(1, mean.shape[0])
    shift, scale = F.batch_norm(probe, mean, var, weight, bias, eps=eps).unbind()
    return scale / large, shift
