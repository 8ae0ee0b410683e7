"""Which kernel runs a layer of neurons, and how torch sees it.

Three modules have the same functions ``forward``, ``backward`` and ``combine``: ``_stepwise``
(plain torch), ``_numba/lif.py`` (CPU) and ``_triton/lif.py`` (CUDA); the last two are loaded when
first used. Here they are chosen and made differentiable: as ``torch.library`` custom ops, which
is what ``torch.compile`` and ``torch.export`` see, and, on ordinary tensors, by an autograd
function around the same code, since passing the dispatcher from Python takes longer than a small
layer does.
"""

import logging
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from spikevideoformer.messages import require_known
from spikevideoformer.ops import _stepwise
from spikevideoformer.ops._layout import dense, empty_as, empty_step_as
from spikevideoformer.ops.neuron_config import NeuronConfig

log = logging.getLogger("spikevideoformer")

BACKENDS = ("auto", "reference", "fused")
_KERNEL_DTYPES = {
    "cpu": (torch.float32, torch.bfloat16),
    "cuda": (torch.float32, torch.bfloat16, torch.float16),
}
HOME = {"cpu": "_numba", "cuda": "_triton"}
_PLAIN = (Tensor, torch.nn.Parameter)


class AffineLIF(NamedTuple):
    """What :func:`affine_lif` returns.

    Attributes:
        spikes: ``[T, B, C, ...]``.
        v: membrane after the last frame ``[B, C, ...]``.
        y: affine(x) + residual, the new residual stream; None without a residual.
    """

    spikes: Tensor
    v: Tensor
    y: Tensor | None


# --- Choice ---------------------------------------------------------------------------------------


@cache
def load(package: str, name: str) -> ModuleType | str:
    """A module of kernels, or why it cannot be imported."""
    try:
        return import_module(f"spikevideoformer.ops.{package}.{name}")
    except (ImportError, OSError) as error:  # OSError: a shared library that does not load
        return f"{package[1:]} kernels do not load ({error})"


def check_backend(backend: str) -> None:
    """Raise ValueError for a ``backend`` that does not exist."""
    require_known("backend", backend, BACKENDS)


def is_traced(x: Tensor) -> bool:
    """Whether operations are recorded, so that they must go through the dispatcher."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined]
    return (
        torch.compiler.is_compiling()
        or tracing
        or type(x) not in _PLAIN
        or torch._C._len_torch_dispatch_stack() > 0  # a dispatch mode looks on, such as a counter
    )


def refuse_forward_mode(instead: str, *tensors: Tensor | None) -> None:
    """Raise where a tensor carries a forward-mode tangent, which kernels would drop.

    Args:
        instead: what has such derivatives.
        tensors: all inputs that may have one.

    Raises:
        NotImplementedError: one has.
    """
    if forward_ad._current_level < 0:  # -1 outside of dual_level and torch.func.jvp
        return
    for z in tensors:
        if z is not None and forward_ad.unpack_dual(z).tangent is not None:
            raise NotImplementedError(
                f"a forward-mode derivative (jvp) was asked for, and kernels have backward ones "
                f"only; use {instead}"
            )


@cache
def _say_once(reason: str) -> None:
    log.warning("neurons run step by step, which is slow: %s", reason)


def kernels(
    x: Tensor, residual: Tensor | None = None, *, fused: bool = False, name: str = "lif"
) -> ModuleType:
    """The module that runs on such tensors.

    Args:
        x: input.
        residual: the other input, if any.
        fused: refuse the plain module.
        name: file of kernels.

    Raises:
        ValueError: ``fused``, but there is no kernel for such tensors.
    """
    kind = x.device.type
    other = x if residual is None else residual
    accepted = _KERNEL_DTYPES.get(kind, ())
    if x.dtype in accepted and other.dtype in accepted:
        found = load(HOME[kind], name)
        if isinstance(found, ModuleType):
            return found
        reason = found
    else:
        dtypes = {str(z.dtype).removeprefix("torch.") for z in (x, other)}
        reason = f"no kernel takes {' and '.join(sorted(dtypes))} on {kind}"
    if fused:
        raise ValueError(f"backend='fused' cannot run: {reason}; use backend='auto'")
    if x.dtype != torch.float64:  # the precision of checks, where nobody expects speed
        _say_once(reason)
    return _stepwise


# --- Neurons, with affine and residual ------------------------------------------------------------


def run(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    residual: Tensor | None,
    v_init: Tensor | None,
    spike_dtype: torch.dtype,
    neuron: NeuronConfig,
    fused: bool = False,
) -> AffineLIF:
    """Neurons over time by the best kernel, differentiable."""
    tensors = (x, scale, shift, residual, v_init)
    refuse_forward_mode("backend='reference'", *tensors)
    if is_traced(x):
        spikes, v, y = affine_lif_op(*tensors, spike_dtype, *scalars(neuron), fused)
        return AffineLIF(spikes, v, None if residual is None else y)
    module = kernels(x, residual, fused=fused)
    if _wants_gradient(*tensors):
        return AffineLIF(*_AffineLIF.apply(*tensors, spike_dtype, neuron, module))
    return AffineLIF(*module.forward(*tensors, spike_dtype, neuron))


def _wants_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(z is not None and z.requires_grad for z in tensors)


def _save(ctx: Any, *inputs_and_y: Any) -> None:
    """Keep the least that the backward pass needs: without a scale, what was integrated."""
    x, scale, shift, residual, v_init, y = inputs_and_y
    if residual is not None and scale is None:
        x, y = y, None
    ctx.save_for_backward(x, y if residual is not None else None, scale, shift, v_init)
    ctx.residual_dtype = None if residual is None else residual.dtype


class _AffineLIF(torch.autograd.Function):
    """A kernel on ordinary tensors."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        *tensors, spike_dtype, neuron, module = arguments
        spikes, v, y = module.forward(*tensors, spike_dtype, neuron)
        _save(ctx, *tensors, y)
        ctx.neuron, ctx.module = neuron, module
        ctx.set_materialize_grads(False)
        if not spike_dtype.is_floating_point:
            ctx.mark_non_differentiable(spikes)
        return spikes, v, y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        return *_backward_by(ctx, ctx.module.backward, [ctx.neuron], *grads), *[None] * 3


def _backward_by(ctx: Any, backward: Any, neuron: Any, *grads: Any) -> tuple[Any, ...]:
    x, y, scale, shift, v_init = ctx.saved_tensors
    found = backward(
        *_upstream(x, *grads),
        *(x, y, scale, shift, None, v_init),
        *_wanted(ctx, scale),
        *neuron,
    )
    return _gradients(ctx, scale, *found)


def _upstream(x: Tensor, grad_spikes: Any, grad_v: Any, grad_y: Any) -> tuple[Any, Any, Any]:
    """What comes from above; spikes that nothing used (or bytes) send zero."""
    if grad_spikes is None:
        grad_spikes = torch.zeros((), dtype=x.dtype, device=x.device).expand(x.shape)
    return grad_spikes, grad_v, grad_y


def _wanted(ctx: Any, scale: Tensor | None) -> tuple[bool, bool]:
    """Whether the gradient of what is integrated, and that of x behind a scale, are needed."""
    if scale is None:
        return ctx.needs_input_grad[0] or ctx.needs_input_grad[3], False
    return ctx.needs_input_grad[3], ctx.needs_input_grad[0]


def _gradients(
    ctx: Any, scale: Any, grad_y: Any, grad_x: Any, grad_v: Any, grad_shift: Any, grad_scale: Any
) -> tuple[Any, ...]:
    """Gradients in the order and precision of the inputs."""
    needs_x, needs_scale, needs_shift, needs_residual, needs_v = ctx.needs_input_grad[:5]
    if scale is None:
        grad_x = grad_y
    return (
        grad_x if needs_x else None,
        grad_scale.to(scale.dtype) if needs_scale else None,
        grad_shift.to(scale.dtype) if needs_shift else None,
        grad_y.to(ctx.residual_dtype) if needs_residual else None,
        grad_v if needs_v else None,
    )


# --- The same as custom ops -----------------------------------------------------------------------


# A neuron as the plain values that an op can take: the fields that kernels read.
_NEURON = (
    "str kind, float tau, float v_threshold, float? v_reset, bool decay_input, bool detach_reset, "
    "str surrogate, float? surrogate_alpha, int levels, str rounding"
)
SCALARS = tuple(part.split()[1] for part in _NEURON.split(", "))


def scalars(neuron: NeuronConfig) -> tuple[Any, ...]:
    """A neuron as :data:`SCALARS`."""
    return tuple(getattr(neuron, name) for name in SCALARS)


@cache
def neuron_of(*values: Any) -> NeuronConfig:
    """Inverse of :func:`scalars`."""
    return NeuronConfig(**dict(zip(SCALARS, values, strict=True)))


def _or_empty(x: Tensor, *tensors: Tensor | None) -> list[Tensor]:
    """Custom ops return tensors only: an empty one, of one axis, stands for None."""
    return [x.new_empty(0) if z is None else z for z in tensors]


@torch.library.custom_op(
    "spikevideoformer::affine_lif",
    mutates_args=(),
    schema="(Tensor x, Tensor? scale, Tensor? shift, Tensor? residual, Tensor? v_init, "
    f"ScalarType spike_dtype, {_NEURON}, bool fused) -> (Tensor, Tensor, Tensor)",
)
def affine_lif_op(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`run`; the last result is empty without a residual."""
    x, scale, shift, residual, v_init, spike_dtype, *neuron, fused = arguments
    spikes, v, y = kernels(x, residual, fused=fused).forward(
        x, scale, shift, residual, v_init, spike_dtype, neuron_of(*neuron)
    )
    return spikes, v, _or_empty(x, y)[0]


@affine_lif_op.register_fake
def _(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    _, _, residual, _, spike_dtype, *_ = arguments
    x = dense(x)
    dtype = x.dtype if residual is None else torch.promote_types(x.dtype, residual.dtype)
    state = torch.promote_types(dtype, torch.float32)
    y = x.new_empty(0) if residual is None else empty_as(x, dtype)
    return empty_as(x, spike_dtype), empty_step_as(x, state), y


@torch.library.custom_op(
    "spikevideoformer::affine_lif_backward",
    mutates_args=(),
    schema="(Tensor grad_spikes, Tensor? grad_v, Tensor? grad_y, Tensor x, Tensor? y, "
    "Tensor? scale, Tensor? shift, Tensor? centre, Tensor? v_init, bool want_grad_y, "
    f"bool want_grad_x, {_NEURON}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def affine_lif_backward_op(*arguments: Any) -> tuple[Tensor, ...]:
    """Gradients of :func:`affine_lif_op`; those not wanted are empty."""
    plain, neuron = arguments[: -len(SCALARS)], neuron_of(*arguments[-len(SCALARS) :])
    x, y = arguments[3:5]
    a, b, c, d, e = _or_empty(x, *kernels(x, y).backward(*plain, neuron))
    return a, b, c, d, e.clone()  # the two sums may lie in one tensor, which an op must not return


@affine_lif_backward_op.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    _, _, _, x, y, scale, _, _, _, want_grad_y, want_grad_x, *_ = arguments
    x = dense(x)
    stream = x if y is None else y
    sums: list[Tensor | None] = [None] * 2
    if scale is not None:
        sums = [x.new_empty(x.shape[2], dtype=torch.float64) for _ in range(2)]
    return tuple(
        _or_empty(
            x,
            empty_as(x, stream.dtype) if want_grad_y else None,
            empty_as(x, x.dtype) if want_grad_x and scale is not None else None,
            empty_step_as(x, torch.promote_types(stream.dtype, torch.float32)),
            *sums,
        )
    )


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, _ = inputs[:6]
    _save(ctx, *tensors, output[2])
    ctx.neuron = inputs[6:-1]


def _backward(ctx: Any, grad_spikes: Any, grad_v: Any, grad_y: Any) -> Any:
    if ctx.residual_dtype is None:
        grad_y = None  # of the empty tensor
    if grad_spikes is not None and not grad_spikes.is_floating_point():
        grad_spikes = None
    found = _backward_by(ctx, affine_lif_backward_op, ctx.neuron, grad_spikes, grad_v, grad_y)
    return *found, *[None] * (2 + len(SCALARS))


affine_lif_op.register_autograd(_backward, setup_context=_setup)


# --- Batch norm and neurons -----------------------------------------------------------------------


def statistics(
    x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, momentum: float
) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel; the running ones are updated in place."""
    if is_traced(x):
        return statistics_op(x, running_mean, running_var, momentum)
    return torch.batch_norm_update_stats(x.flatten(0, 1), running_mean, running_var, momentum)


@torch.library.custom_op(
    "spikevideoformer::batch_norm_statistics", mutates_args=("running_mean", "running_var")
)
def statistics_op(
    x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, momentum: float
) -> tuple[Tensor, Tensor]:
    """See :func:`statistics`: torch's own function does not declare what it changes."""
    return torch.batch_norm_update_stats(x.flatten(0, 1), running_mean, running_var, momentum)


@statistics_op.register_fake
def _(x: Tensor, running_mean: Any, running_var: Any, momentum: float) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    mean, var = (x.new_empty(x.shape[2], dtype=dtype) for _ in range(2))
    return mean, var


def run_normalised(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    v_init: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    var: Tensor,
    eps: float,
    of_batch: bool,
    spike_dtype: torch.dtype,
    neuron: NeuronConfig,
    fused: bool = False,
) -> tuple[Tensor, Tensor]:
    """Neurons behind a batch norm whose statistics are known.

    Args:
        x: input ``[T, B, C, ...]``.
        weight: ``[C]`` or None, like ``bias``; only gradients need it.
        bias: see there.
        v_init: membrane before the first frame.
        scale: of the batch norm as an affine function, like ``shift``.
        shift: see there.
        mean: ``[C]`` that the norm subtracts.
        var: ``[C]`` that it divides by the root of, with ``eps``.
        eps: see there.
        of_batch: the statistics are those of ``x`` and change with it.
        spike_dtype: of the spikes.
        neuron: the neuron.
        fused: refuse the plain implementation.
    """
    arguments = (x, weight, bias, v_init, scale, shift, mean, var, eps, of_batch, spike_dtype)
    if is_traced(x):
        return normalised_lif_op(*arguments, *scalars(neuron), fused)
    module = kernels(x, fused=fused)
    if _wants_gradient(x, weight, bias, v_init):
        return _NormalisedLIF.apply(*arguments, neuron, module)
    spikes, v, _ = module.forward(x, scale, shift, None, v_init, spike_dtype, neuron)
    return spikes, v


def _through_norm(
    x: Tensor, weight: Tensor | None, mean: Tensor, var: Tensor, eps: float, found: Any
) -> tuple[Tensor, Tensor, Any, Tensor, Tensor, Tensor]:
    """From the sums of the affine backward pass to gradients of weight and bias, and the terms.

    With g the gradient behind the norm, d = x - mean, N numbers in a channel, r = 1 / sqrt(var +
    eps): grad_x = weight * r * (g - sum(g) / N - d * r^2 * sum(g d) / N) = slope x + gain g +
    offset.
    """
    _, _, grad_v, sum_g, sum_gd = found
    r = (var.double() + eps).rsqrt()
    count = x.numel() // x.shape[2]
    gain = r if weight is None else r * weight.double()
    slope = -gain * r * r * sum_gd / count
    offset = -gain * sum_g / count - slope * mean.double()
    return sum_gd * r, sum_g, grad_v, slope, gain, offset


class _NormalisedLIF(torch.autograd.Function):
    """:func:`run_normalised` on ordinary tensors; saves its input only."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        x, _, _, v_init, scale, shift, _, _, _, _, spike_dtype, neuron, module = arguments
        spikes, v, _ = module.forward(x, scale, shift, None, v_init, spike_dtype, neuron)
        _save_normalised(ctx, *arguments[:10])
        ctx.neuron, ctx.module = neuron, module
        ctx.set_materialize_grads(False)
        if not spike_dtype.is_floating_point:
            ctx.mark_non_differentiable(spikes)
        return spikes, v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        backward, combine = ctx.module.backward, ctx.module.combine
        found = _backward_normalised_by(ctx, backward, combine, [ctx.neuron], *grads)
        return *found, None, None


def _save_normalised(ctx: Any, *arguments: Any) -> None:
    *tensors, ctx.eps, ctx.of_batch = arguments
    ctx.save_for_backward(*tensors)


def _backward_normalised_by(
    ctx: Any, backward: Any, combine: Any, neuron: Any, grad_spikes: Any, grad_v: Any
) -> tuple[Any, ...]:
    x, weight, bias, v_init, scale, shift, mean, var = ctx.saved_tensors
    needs = ctx.needs_input_grad
    through = ctx.of_batch and needs[0]
    found = backward(
        *_upstream(x, grad_spikes, grad_v, None),
        *(x, None, scale, shift, mean, v_init),
        *(through, needs[0] and not through),
        *neuron,
    )
    grad_weight, grad_bias, grad_v_init, *terms = _through_norm(
        x, weight, mean, var, ctx.eps, found
    )
    grad_x = combine(x, found[0], *terms) if through else found[1]
    return (
        grad_x if needs[0] else None,
        grad_weight.to(weight.dtype) if needs[1] else None,
        grad_bias.to(bias.dtype) if needs[2] else None,
        grad_v_init if needs[3] else None,
        *[None] * 7,  # scale .. spike_dtype
    )


@torch.library.custom_op(
    "spikevideoformer::batch_norm_lif",
    mutates_args=(),
    schema="(Tensor x, Tensor? weight, Tensor? bias, Tensor? v_init, Tensor scale, Tensor shift, "
    "Tensor mean, Tensor var, float eps, bool of_batch, ScalarType spike_dtype, "
    f"{_NEURON}, bool fused) -> (Tensor, Tensor)",
)
def normalised_lif_op(*arguments: Any) -> tuple[Tensor, Tensor]:
    """See :func:`run_normalised`."""
    x, _, _, v_init, scale, shift, _, _, _, _, spike_dtype, *neuron, fused = arguments
    spikes, v, _ = kernels(x, fused=fused).forward(
        x, scale, shift, None, v_init, spike_dtype, neuron_of(*neuron)
    )
    return spikes, v


@normalised_lif_op.register_fake
def _(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    x, spike_dtype = dense(x), arguments[9]
    return empty_as(x, spike_dtype), empty_step_as(x, torch.promote_types(x.dtype, torch.float32))


@torch.library.custom_op("spikevideoformer::combine", mutates_args=())
def combine_op(x: Tensor, grad_y: Tensor, slope: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    """``slope_c * x + gain_c * grad_y + offset_c``."""
    return kernels(x).combine(x, grad_y.clone(), slope, gain, offset)


@combine_op.register_fake
def _(x: Tensor, grad_y: Tensor, slope: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    return empty_as(dense(x), x.dtype)


def _setup_normalised(ctx: Any, inputs: Any, output: Any) -> None:
    _save_normalised(ctx, *inputs[:10])
    ctx.neuron = inputs[11:-1]


def _backward_normalised(ctx: Any, grad_spikes: Any, grad_v: Any) -> Any:
    if grad_spikes is not None and not grad_spikes.is_floating_point():
        grad_spikes = None
    found = _backward_normalised_by(
        ctx, affine_lif_backward_op, combine_op, ctx.neuron, grad_spikes, grad_v
    )
    return *found, *[None] * (1 + len(SCALARS))


normalised_lif_op.register_autograd(_backward_normalised, setup_context=_setup_normalised)
