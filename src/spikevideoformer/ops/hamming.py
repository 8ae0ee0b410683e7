"""Spike-driven attention: Hamming (SDHA) and the dot product (SDSA) it replaces.

Axes: ``q``, ``k``, ``v`` are ``[..., N, d]``, spikes of one head, N tokens of width d. Both
products are linear in each argument, so the order of multiplication is free:

    linear     Q' (K'^T V)    cost N d^2, the paper's: linear in the number of frames
    quadratic  (Q' K'^T) V    cost N^2 d, the same numbers

All sums here are integers. They are exact in float32 up to 2^24, but overflow float16 and lose
bits in bfloat16 and TF32: neither autocast nor a lowered matmul precision reaches these products,
and where a sum could exceed 2^24 they are taken in float64.
"""

from typing import Literal

import torch
from torch import Tensor

Order = Literal["linear", "quadratic"]


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


def hamming_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    order: Order = "linear",
    constant_term: bool = False,
    levels: int = 1,
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
        q: spikes 0..``levels``, ``[..., N, d]``.
        k: spikes 0..``levels``, ``[..., M, d]``.
        v: spikes, ``[..., M, d]``.
        scale: factor on the integer sums (foldable into the next threshold).
        order: which product is computed first.
        constant_term: whether the similarity's 1/2 is kept.
        levels: D of the neurons that fired q and k.

    Returns:
        ``[..., N, d]`` in float32 (float64 for float64 input), the same under autocast.

    Source: Zou et al., ICML 2025 (SDHA); 1/(2C) and the constant left out as in its code.
    """
    with torch.autocast(device_type=q.device.type, enabled=False):
        dtype = torch.promote_types(q.dtype, torch.float32)
        # |2q - D|, |2k - D| and v are at most D; the constant term can double the sum
        largest = (1 + constant_term) * k.shape[-2] * q.shape[-1] * levels**3
        q, k, v = (_exact(z, largest) for z in (q, k, v))
        out = _product(2 * q - levels, 2 * k - levels, v, order)
        if constant_term:
            out = out + (levels**2 * q.shape[-1]) * v.sum(-2, keepdim=True)
        return out.to(dtype) * (scale / levels**2)  # integers before the scale, in either dtype


def dot_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float = 0.125,
    order: Order = "linear",
    levels: int = 1,
) -> Tensor:
    """Values weighted by the dot product of spikes, the baseline (SDSA), before its neuron.

    Equation:
        out = scale * Q (K^T V)
        For Integer-LIF spikes of D levels the result is divided by D^2, as in Hamming attention:
        the mean over all pairs of sub-steps of q and k.

    Args and Returns: as :func:`hamming_attention`.

    Source: the baseline of Zou et al., ICML 2025 (scale 1/8, then a neuron with threshold 0.5,
    no BN).
    """
    with torch.autocast(device_type=q.device.type, enabled=False):
        dtype = torch.promote_types(q.dtype, torch.float32)
        largest = k.shape[-2] * q.shape[-1] * levels**3
        q, k, v = (_exact(z, largest) for z in (q, k, v))
        return _product(q, k, v, order).to(dtype) * (scale / levels**2)


def _product(q: Tensor, k: Tensor, v: Tensor, order: Order) -> Tensor:
    if order == "linear":
        return q @ (k.transpose(-2, -1) @ v)
    if order == "quadratic":
        return (q @ k.transpose(-2, -1)) @ v
    raise ValueError(f"order {order!r} is unknown; choose linear or quadratic")


def _exact(z: Tensor, largest: int) -> Tensor:
    """``z`` in a dtype whose matmul is exact for integer sums up to ``largest``."""
    # With TF32 or bfloat16 allowed, a float32 matmul keeps 11 or 8 bits of each factor, and K^T V
    # is longer than that: then float64 is the only exact matmul left.
    if largest > 2**24 or _float32_matmul_is_lowered(z.is_cuda):
        return z.double()
    return z.to(torch.promote_types(z.dtype, torch.float32))


# torch.compile cannot trace these flags
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _float32_matmul_is_lowered(cuda: bool) -> bool:
    backend = torch.backends.cuda if cuda else torch.backends.mkldnn
    return backend.matmul.fp32_precision not in ("none", "ieee")
