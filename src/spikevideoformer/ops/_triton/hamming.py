# mypy: disable-error-code="no-untyped-def, untyped-decorator, import"
"""``(a Q - o) (a K - o)^T V`` exactly on tensor cores, from spikes where they lie in memory.

Spikes and what becomes of them are small integers, exact in float16 up to 2^11, and tensor cores
add up products of float16 in float32, exactly while sums stay within 2^24. The first product
therefore needs nothing; its result A, up to N D^2, is cut into digits of base 2^11 between -2^10
and 2^10, each exact in float16, and the second product is taken digit by digit:

    A = A_0 + 2^11 A_1,    Q' A = Q' A_0 + 2^11 (Q' A_1)

Parts of the first product are added up by atomics, whose order makes no difference to integers.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from spikevideoformer.ops.hamming import DIGIT, LARGEST_WIDTH, is_exact

_TOKENS = 64  # of one step of a program's loop


@triton.jit
def _tokens(start, tokens, inner, stride_1, stride_2, stride_d, width,
            BT: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    """Offsets and mask ``[BT, BD]`` of tokens numbered over two axes."""
    n = start + tl.arange(0, BT)
    d = tl.arange(0, BD)
    row = (n // inner).to(tl.int64) * stride_1 + (n % inner).to(tl.int64) * stride_2
    mask = (n < tokens)[:, None] & (d < width)[None, :]
    return row[:, None] + d[None, :] * stride_d, mask


@triton.jit
def _inner_kernel(
    k_ptr, v_ptr, a_ptr, sum_ptr,
    heads, tokens, inner, width, chunk,
    k_batch, k_head, k_1, k_2, k_d,
    v_batch, v_head, v_1, v_2, v_d,
    A: tl.constexpr, OFF: tl.constexpr, SUM: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(0)  # of a clip and a head
    batch = (pair // heads).to(tl.int64)
    head = (pair % heads).to(tl.int64)
    k_ptr += batch * k_batch + head * k_head
    v_ptr += batch * v_batch + head * v_head
    first = tl.program_id(1) * chunk
    acc = tl.zeros((BD, BD), tl.float32)
    total = tl.zeros((BD,), tl.float32)
    for start in range(first, tl.minimum(first + chunk, tokens), BT):
        at, mask = _tokens(start, tokens, inner, k_1, k_2, k_d, width, BT, BD)
        k = tl.load(k_ptr + at, mask, other=0).to(tl.float32)
        k = tl.where(mask, A * k - OFF, 0.0).to(tl.float16)
        at, mask = _tokens(start, tokens, inner, v_1, v_2, v_d, width, BT, BD)
        v = tl.load(v_ptr + at, mask, other=0).to(tl.float32)
        if SUM:
            total += tl.sum(v, 0)
        acc = tl.dot(tl.trans(k), v.to(tl.float16), acc)
    i = tl.arange(0, BD)
    there = (i < width)[:, None] & (i < width)[None, :]
    at = pair.to(tl.int64) * width * width + i[:, None] * width + i[None, :]
    tl.atomic_add(a_ptr + at, acc, there, sem="relaxed")
    if SUM:
        tl.atomic_add(sum_ptr + pair.to(tl.int64) * width + i, total, i < width, sem="relaxed")


@triton.jit
def _outer_kernel(
    q_ptr, a_ptr, sum_ptr, out_ptr,
    heads, tokens, inner, width, scale, constant,
    q_batch, q_head, q_1, q_2, q_d,
    out_batch, out_head, out_1, out_2, out_d,
    A: tl.constexpr, OFF: tl.constexpr, SUM: tl.constexpr, DIGITS: tl.constexpr,
    BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(0)
    batch = (pair // heads).to(tl.int64)
    head = (pair % heads).to(tl.int64)
    start = tl.program_id(1) * BT
    at, mask = _tokens(start, tokens, inner, q_1, q_2, q_d, width, BT, BD)
    q = tl.load(q_ptr + batch * q_batch + head * q_head + at, mask, other=0).to(tl.float32)
    q = tl.where(mask, A * q - OFF, 0.0).to(tl.float16)
    i = tl.arange(0, BD)
    there = (i < width)[:, None] & (i < width)[None, :]
    pairs = pair.to(tl.int64) * width * width
    a = tl.load(a_ptr + pairs + i[:, None] * width + i[None, :], there, other=0.0)
    if DIGITS == 1:
        out = tl.dot(q, a.to(tl.float16))
    else:
        high = tl.floor(a * (1.0 / 2048) + 0.5)
        out = tl.dot(q, high.to(tl.float16)) * 2048.0
        out = tl.dot(q, (a - high * 2048.0).to(tl.float16), out)
    if SUM:
        total = tl.load(sum_ptr + pair.to(tl.int64) * width + i, i < width, other=0.0)
        out += constant * total[None, :]
    at, mask = _tokens(start, tokens, inner, out_1, out_2, out_d, width, BT, BD)
    tl.store(out_ptr + batch * out_batch + head * out_head + at, out * scale, mask)


@torch.library.custom_op("spikevideoformer::spike_attention", mutates_args=())
def spike_attention(
    q: Tensor, k: Tensor, v: Tensor, *, a: int, o: int, constant: int, scale: float, levels: int
) -> Tensor:
    """``scale * ((a Q - o) [(a K - o)^T V] + constant * sum_j V_j)``, rounded once, by the scale.

    Args:
        q: spikes 0..``levels`` of any dtype, ``[batch, heads, N1, N2, d]`` with tokens numbered
            over N1 and N2. Any strides, so that no copy of ``[T, B, C, H, W]`` is needed.
        k: as ``q``, with its own N1 and N2.
        v: as ``k``.
        a: factor on q and k, 2 for Hamming attention, 1 for the dot product.
        o: what is subtracted from them, D for Hamming attention, 0 for the dot product.
        constant: factor on the sum of values.
        scale: factor on all.
        levels: D of the neurons that fired.

    Returns:
        float32, shaped and laid out as ``q``.

    Raises:
        ValueError: sums that would not be exact, or heads that are too wide.
    """
    batch, heads, _, inner_q, width = q.shape
    tokens_q, tokens = q.shape[2] * inner_q, k.shape[2] * k.shape[3]
    if not is_exact(tokens, width, levels, constant):
        raise ValueError(
            f"{tokens} tokens of width {width} with spikes up to {levels} add up to more than "
            f"float32 counts exactly, or are wider than {LARGEST_WIDTH}; use a float64 matmul"
        )
    pairs = batch * heads
    inner = torch.zeros((pairs, width, width), dtype=torch.float32, device=q.device)
    total = torch.zeros((pairs, width), dtype=torch.float32, device=q.device)
    block = max(16, triton.next_power_of_2(width))
    # enough programs for every multiprocessor to have several, and no more atomics than that
    pieces = min(triton.cdiv(tokens, _TOKENS), max(1, triton.cdiv(1024, pairs)))
    chunk = triton.cdiv(triton.cdiv(tokens, pieces), _TOKENS) * _TOKENS
    out = torch.empty_like(q, dtype=torch.float32)
    warps = 8 if block > 64 else 4
    form = {"A": a, "OFF": o, "SUM": constant != 0, "BT": _TOKENS, "BD": block, "num_warps": warps}
    with torch.cuda.device_of(q):
        # pairs on the first axis of the grid: the second ends at 65,535
        _inner_kernel[(pairs, triton.cdiv(tokens, chunk))](
            k, v, inner, total, heads, tokens, k.shape[3], width, chunk,
            *k.stride(), *v.stride(), **form,
        )  # fmt: skip
        _outer_kernel[(pairs, triton.cdiv(tokens_q, _TOKENS))](
            q, inner, total, out, heads, tokens_q, inner_q, width, scale, float(constant),
            *q.stride(), *out.stride(),
            DIGITS=1 if tokens * levels**2 <= DIGIT else 2, **form,
        )  # fmt: skip
    return out


@spike_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, **_form: object) -> Tensor:
    return torch.empty_like(q, dtype=torch.float32)
