"""Spike-driven attention: Hamming (SDHA) and the dot product (SDSA) it replaces.

Axes: ``q``, ``k``, ``v`` are ``[..., N, d]``, spikes of one head, N tokens of width d. Both
products are linear in each argument, so the order of multiplication is free:

    linear     Q' (K'^T V)    cost N d^2, the paper's: linear in the number of frames
    quadratic  (Q' K'^T) V    cost N^2 d, the same numbers

All sums here are integers. They are exact in float32 up to 2^24, but overflow float16 and lose
bits in bfloat16 and TF32: neither autocast nor a lowered matmul precision reaches these products,
and where a sum could exceed 2^24 they are taken in float64.

Spikes may come as what they are in memory, bytes or packed bits. On a CPU these are added up as
integers (``_numba/hamming.py``), with no float in between, and give the same numbers.

The linear order never makes ``Q' = 2Q - 1``: ``(2Q - 1) A = Q (2A) - 1 (1^T A)``, and both terms on
the right come from the small ``A``. The backward pass works in the same way on the spikes alone,
which can be kept as bits.
"""

from types import ModuleType
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spikevideoformer.ops._keep import keep, restore
from spikevideoformer.ops._kernels import (
    HOME,
    check_backend,
    is_traced,
    load,
    refuse_forward_mode,
)
from spikevideoformer.ops.pack import Packed

Order = Literal["linear", "quadratic"]

DIGIT = 2**11  # float16 counts to here; see _triton/hamming.py
LARGEST_WIDTH = 128  # of a head: there the sums A are registers of one program


def hamming_similarity_reference(q: Tensor, k: Tensor) -> Tensor:
    """Share of equal bits of each query and key, by counting.

    Equation:
        f_H(q, k) = 1 - (number of differing bits) / d  =  1/2 + (1/(2d)) (2q-1).(2k-1)

    Args:
        q: 0/1, ``[..., N, d]``.
        k: 0/1, ``[..., M, d]``.

    Returns:
        ``[..., N, M]`` in [0, 1].

    Source: Zou et al., ICML 2025 (Hamming similarity).
    """
    differing = (q.unsqueeze(-2) != k.unsqueeze(-3)).sum(-1)
    return 1 - differing.to(q.dtype) / q.shape[-1]


def hamming_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    order: Order = "linear",
    constant_term: bool = False,
    levels: int = 1,
) -> Tensor:
    """The equation of :func:`hamming_attention` in plain torch, exact in float64."""
    out = _in_order(2 * q - levels, 2 * k - levels, v, order)
    if constant_term:
        out = out + levels**2 * q.shape[-1] * v.sum(-2, keepdim=True)
    return out * (scale / levels**2)


def dot_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float = 0.125,
    order: Order = "linear",
    levels: int = 1,
) -> Tensor:
    """The equation of :func:`dot_attention` in plain torch, exact in float64."""
    return _in_order(q, k, v, order) * (scale / levels**2)


def _in_order(q: Tensor, k: Tensor, v: Tensor, order: Order) -> Tensor:
    if order == "linear":
        return q @ (k.mT @ v)
    if order == "quadratic":
        return (q @ k.mT) @ v
    raise ValueError(f"order {order!r} is unknown; choose linear or quadratic")


class _Form(NamedTuple):
    """Which product: ``scale * ((a Q - o) [(a K - o)^T V] + c * sum_j V_j)``."""

    a: int  # 2 for Hamming, 1 for the dot product
    o: int  # D for Hamming, 0 for the dot product
    c: int  # D^2 d where the constant term is kept, else 0
    scale: float
    order: Order


def hamming_attention(
    q: Tensor | Packed,
    k: Tensor | Packed,
    v: Tensor | Packed,
    *,
    scale: float,
    order: Order = "linear",
    constant_term: bool = False,
    levels: int = 1,
    packed: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Values weighted by Hamming similarity of queries and keys, before BN and neuron.

    Equation:
        out = scale * (2Q-1) [ (2K-1)^T V ]
        out = scale * ( (2Q-1) [ (2K-1)^T V ] + d * sum_j V_j )      constant_term
        With scale = 1/(2d) and the constant term this is sum_j f_H(q, k_j) v_j exactly. The
        published model leaves the constant out and uses scale = 1/(2C).
        For Integer-LIF spikes of D levels, ``2q - D`` takes the place of ``2q - 1`` for q and k
        (all pairs of sub-steps compared), and the result is divided by D^2 and the constant
        term is that of the same mean over pairs.

    Args:
        q: spikes 0..``levels``, ``[..., N, d]``, of any dtype or packed (:func:`pack_spikes`);
            bytes and packed spikes carry no gradient. On a CPU bytes are the fastest.
        k: spikes 0..``levels``, ``[..., M, d]``.
        v: spikes 0..``levels``, ``[..., M, d]``.
        scale: factor on the integer sums (foldable into the next threshold).
        order: which product is computed first.
        constant_term: whether the similarity's 1/2 is kept.
        levels: D of the neurons that fired.
        packed: keep q, k and v for the backward pass as bits (bytes for D > 1).
        backend: ``auto`` takes the fastest way there is, ``fused`` a compiled kernel or none,
            ``reference`` the equation as it is written, ``Q' (K'^T V)``: the same integers in a few
            passes more, in plain torch, for who counts or exports the operations of the equation.

    Returns:
        ``[..., N, d]`` in float32 (float64 for float64 input), the same under autocast.

    Raises:
        ValueError: an unknown order or backend, or ``fused`` where no kernel runs.
        NotImplementedError: a forward-mode derivative; ``reference`` has it.

    Source: Zou et al., ICML 2025 (SDHA); 1/(2C) and the constant left out as in its code.
    """
    constant = levels**2 * q.shape[-1] if constant_term else 0
    form = _Form(2, levels, constant, scale / levels**2, order)
    return _attention(q, k, v, form, levels, packed, backend)


def dot_attention(
    q: Tensor | Packed,
    k: Tensor | Packed,
    v: Tensor | Packed,
    *,
    scale: float = 0.125,
    order: Order = "linear",
    levels: int = 1,
    packed: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Values weighted by the dot product of spikes, the baseline (SDSA), before its neuron.

    Equation:
        out = scale * Q (K^T V)
        For Integer-LIF spikes of D levels the result is divided by D^2, as in Hamming attention:
        the mean over all pairs of sub-steps of q and k.

    Args, Returns and Raises: as :func:`hamming_attention`.

    Source: the baseline of Zou et al., ICML 2025 (scale 1/8, then a neuron with threshold 0.5,
    no BN).
    """
    return _attention(q, k, v, _Form(1, 0, 0, scale / levels**2, order), levels, packed, backend)


def _attention(
    q: Tensor | Packed,
    k: Tensor | Packed,
    v: Tensor | Packed,
    form: _Form,
    levels: int,
    packed: bool,
    backend: str,
) -> Tensor:
    check_backend(backend)
    q, k, v = (_unpacked(z) for z in (q, k, v))
    if backend != "reference":
        refuse_forward_mode("hamming_attention_reference or backend='reference'", q, k, v)
    if form.order not in ("linear", "quadratic"):
        raise ValueError(f"order {form.order!r} is unknown; choose linear or quadratic")
    # each of Q A, D 1^T A and D^2 d 1^T V is at most M d D^3; a Q A and the others are added up in
    # an order that is the matmul's
    terms = form.a + (form.o > 0) + (form.c > 0)
    largest = terms * k.shape[-2] * q.shape[-1] * levels**3
    if backend != "reference" and _adds_bytes(q, k, v, form, largest):
        return _from_bytes(q, k, v, form, levels)
    dtype = torch.float64 if _float32_is_not_exact(largest, q.is_cuda) else torch.float32
    packed = packed and torch.is_grad_enabled()
    with torch.autocast(device_type=q.device.type, enabled=False):
        if backend == "reference":
            work, out_dtype = (torch.promote_types(q.dtype, z) for z in (dtype, torch.float32))
            out = _as_written(q.to(work), k.to(work), v.to(work), form)
            return out.to(out_dtype) * form.scale
        fused = backend == "fused"
        return cast(Tensor, _Attention.apply(q, k, v, form, levels, packed, dtype, fused))


class _Attention(torch.autograd.Function):
    """The product and its gradients from spikes; see the top of the file.

    With A = K'^T V and the gradient G of Q' A: dA = Q'^T G, and
        dQ = a G A^T      dK = a V dA^T      dV = K' dA + c 1^T G
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        form: _Form,
        levels: int,
        packed: bool,
        dtype: torch.dtype,
        fused: bool,
    ) -> Tensor:
        ctx.form, ctx.dtype, ctx.dtypes = form, dtype, (q.dtype, k.dtype, v.dtype)
        ctx.layouts = None
        if packed:
            kept = [keep(z, levels) for z in (q, k, v)]
            ctx.layouts = [z[1:] for z in kept]
            ctx.save_for_backward(*(z.data for z in kept))
        else:
            ctx.save_for_backward(q, k, v)
        out = _on_tensor_cores(q, k, v, form, levels)
        if out is not None:
            return out
        if fused:
            raise ValueError(
                f"backend='fused' cannot run: no kernel takes {q.dtype} spikes of shape "
                f"{tuple(q.shape)} on {q.device.type}; use backend='auto'"
            )
        out_dtype = torch.promote_types(q.dtype, torch.float32)
        work = torch.promote_types(q.dtype, dtype)
        out = _integer_sums(q.to(work), k.to(work), v.to(work), form)
        return out.to(out_dtype).mul_(form.scale)  # integers before the scale, in either dtype

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        form: _Form = ctx.form
        kept = ctx.saved_tensors
        if ctx.layouts is not None:
            kept = [restore(Packed(z, *rest)) for z, rest in zip(kept, ctx.layouts, strict=True)]
        dtype = torch.promote_types(ctx.dtypes[0], ctx.dtype)
        q, k, v = (z.to(dtype) for z in kept)
        g = grads[0].to(dtype)  # of the integer sums, but for the scale, which small factors take
        grad_q = grad_k = grad_v = None
        if ctx.needs_input_grad[0]:
            grad_q = (g @ (form.scale * form.a * _inner(k, v, form)).mT).to(ctx.dtypes[0])
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            grad_a = form.scale * _inner(q, g, form)
            grad_k = (v @ (form.a * grad_a).mT).to(ctx.dtypes[1])
            constant = (form.scale * form.c) * g.sum(-2, keepdim=True)
            offset = constant - form.o * grad_a.sum(-2, keepdim=True)
            grad_v = _add_product(offset, k, form.a * grad_a).to(ctx.dtypes[2])
        return grad_q, grad_k, grad_v, *[None] * 5


def _on_tensor_cores(q: Tensor, k: Tensor, v: Tensor, form: _Form, levels: int) -> Tensor | None:
    """The same numbers from spikes where they lie, on CUDA; None where matmuls must do it."""
    if form.order != "linear" or q.dtype == torch.float64:
        return None
    if not _has_kernel(q.device.type):
        return None
    tokens, width = k.shape[-2:]
    alike = q.shape[:-2] == k.shape[:-2] and q.shape[-1] == width and k.shape == v.shape
    if not (alike and q.numel() and tokens and is_exact(tokens, width, levels, form.c)):
        return None
    heads = [z if z.ndim > 2 else z[None] for z in (q, k, v)]
    out: Tensor = torch.ops.spikevideoformer.spike_attention(
        *(z.reshape(-1, *z.shape[-3:]).unsqueeze(2) for z in heads),  # [batch, h, 1, N, d]
        a=form.a,
        o=form.o,
        constant=form.c,
        scale=form.scale,
        levels=levels,
    )
    return out.reshape(q.shape)


def is_exact(tokens: int, width: int, levels: int, constant: int) -> bool:
    """Whether ``_triton/hamming.py`` takes heads of that width and counts exactly on the way."""
    inner = tokens * levels**2  # largest entry of A
    outer = (inner + DIGIT) * width * levels + constant * tokens * levels
    fits = levels <= 2**10 and inner < DIGIT**2 // 2 and outer < 2**24
    return fits and width <= LARGEST_WIDTH


# torch.compile cannot trace an import
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _has_kernel(kind: str) -> bool:
    # where it does not load, the neurons say so
    return HOME.get(kind) == "_triton" and isinstance(load("_triton", "hamming"), ModuleType)


def _integer_sums(q: Tensor, k: Tensor, v: Tensor, form: _Form) -> Tensor:
    """``(a Q - o) (a K - o)^T V + c * sum_j V_j``, exactly: the place for a faster exact product.

    Spikes come in the dtype in which float matmuls of these sums are exact.
    """
    constant = form.c * v.sum(-2, keepdim=True)  # [..., 1, d]
    if form.order == "quadratic":
        return _in_order(form.a * q - form.o, form.a * k - form.o, v, "quadratic") + constant
    a = _inner(k, v, form)
    return _add_product(constant - form.o * a.sum(-2, keepdim=True), q, form.a * a)


def _as_written(q: Tensor, k: Tensor, v: Tensor, form: _Form) -> Tensor:
    """The sums of :func:`_integer_sums` by ``Q'`` and ``K'``."""
    out = _in_order(form.a * q - form.o, form.a * k - form.o, v, form.order)
    return out + form.c * v.sum(-2, keepdim=True) if form.c else out


def _unpacked(z: Tensor | Packed) -> Tensor:
    """Packed spikes as bytes, others as they are."""
    return restore(z._replace(dtype=torch.uint8)) if isinstance(z, Packed) else z


def _adds_bytes(q: Tensor, k: Tensor, v: Tensor, form: _Form, largest: int) -> bool:
    """Whether :func:`_from_bytes` takes these; shapes that do not fit are left to the matmuls."""
    return (
        all(z.dtype == torch.uint8 and z.device.type == "cpu" for z in (q, k, v))
        and q.shape[:-2] == k.shape[:-2] == v.shape[:-2]
        and q.shape[-1] == k.shape[-1]
        and k.shape[-2] == v.shape[-2]
        and form.order == "linear"
        and largest < 2**31
        and not is_traced(q)
        and not isinstance(load("_numba", "hamming"), str)
    )


def _from_bytes(q: Tensor, k: Tensor, v: Tensor, form: _Form, levels: int) -> Tensor:
    """``form`` of byte spikes on a CPU, integers added up where the spikes lie in memory."""
    kernels: Any = load("_numba", "hamming")
    batch, heads = q.shape[:-3].numel(), q.shape[-3:-2].numel()
    out: Tensor = kernels.spike_attention(
        *(z.reshape(batch, heads, *z.shape[-2:]) for z in (q, k, v)),
        a=form.a,
        o=form.o,
        constant=form.c,
        scale=form.scale,
        levels=levels,
    )
    return out.reshape(*q.shape[:-1], v.shape[-1])


def _inner(k: Tensor, v: Tensor, form: _Form) -> Tensor:
    """``K'^T V = a K^T V - o 1 (1^T V)``, ``[..., d, d]``."""
    return form.a * (k.mT @ v) - form.o * v.sum(-2, keepdim=True)


def _add_product(offset: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """``offset + x @ y`` with one pass over the result; ``offset`` is ``[..., 1, d]``."""
    out = torch.baddbmm(*(z.reshape(-1, *z.shape[-2:]) for z in (offset, x, y)))
    return out.reshape(*x.shape[:-1], y.shape[-1])


def _float32_is_not_exact(largest: int, cuda: bool) -> bool:
    """Whether a float32 matmul may round integer sums up to ``largest``."""
    # With TF32 or bfloat16 allowed, a float32 matmul keeps 11 or 8 bits of each factor, and K^T V
    # is longer than that: then float64 is the only exact matmul left.
    return largest > 2**24 or _float32_matmul_is_lowered(cuda)


# torch.compile cannot trace these flags
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _float32_matmul_is_lowered(cuda: bool) -> bool:
    backend = torch.backends.cuda if cuda else torch.backends.mkldnn
    return backend.matmul.fp32_precision not in ("none", "ieee")
