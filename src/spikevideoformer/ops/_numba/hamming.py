# mypy: disable-error-code="no-untyped-def"
"""``(a Q - o) (a K - o)^T V`` from byte spikes on a CPU, by adding up rows where a spike is.

Nothing is multiplied by a binary spike. Both products of attention are sums of rows, picked by the
spikes that fired:

    A[i] = sum of V[n] over the tokens n with a spike K[n, i]
    Q A  = sum of A[i] over the channels i with a spike Q[n, i]

(an integer spike counts its row that many times). What does not depend on Q, the offset o and the
constant term, is worked into A and into the row that each sum starts from: once for each head, not
for each token. All of it is int32, and rounded once, when it is scaled.

Spikes are read where they lie: a head of a token is d neighbours in memory, whatever the strides.
A head is one thread's work; its A stays in the first-level cache.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from spikevideoformer.ops._numba.compile import SERIAL, Arguments, compile_kernel, jit, jit_loop
from spikevideoformer.ops._numba.threads import run, thread_count
from spikevideoformer.ops._numba.vector import (
    FLOAT32,
    INT32,
    LANES,
    UINT8,
    load_int,
    lowest_bit,
    nonzero_bits,
    splat_double_at,
    splat_int,
    store,
    store_int,
    take_part,
    to_float,
)

EXACT = 2**31 - 1  # int32 counts to here
PANEL = 4  # vectors of a row that are summed up in registers at a time


@cache
def _kernel(width: int, panel: int, binary: bool) -> tuple[Any, int]:
    """Attention in vectors of ``width``, ``panel`` of them (a panel) for each reading of spikes.

    Rows that are no whole number of vectors end with one that overlaps the one before: its numbers
    are computed twice, and are the same.
    """
    pitch = 4 * width * panel  # bytes from one row of A to the next

    @jit
    def spikes_of(row, start, stop):
        """Bit i says whether channel ``start + i`` fired; at most 64 channels."""
        bits = 0
        if width == 1:
            for i in range(start, stop):
                if load_int(row, i, UINT8, 1) != 0:
                    bits |= 1 << (i - start)
            return bits
        whole = (stop - start) // LANES * LANES
        for i in range(0, whole, LANES):
            bits |= nonzero_bits(row, start + i) << i
        rest = stop - start - whole
        if rest != 0:
            bits |= (nonzero_bits(row, stop - LANES) >> (LANES - rest)) << whole
        return bits

    @jit
    def times(value, row, i):
        """``value`` as often as channel i of ``row``, which did, fired."""
        if binary:
            return value
        return value * splat_int(load_int(row, i, UINT8, 1), width)

    @jit
    def get(row, slot):
        return load_int(row, slot * width, INT32, width)

    @jit
    def put(row, slot, value):
        store_int(row, slot * width, value)

    @jit
    def place(slot, first, channels):
        """Where in a row of ``channels`` the panel's vector ``slot`` starts."""
        return min((first + slot) * width, channels - width)

    @jit_loop
    def gather(k, k_step, v, v_step, tokens, wide_k, wide_v, first, rows, total):
        """A = K^T V and the sum of all rows of V."""
        for i in range(wide_k):
            for slot in range(panel):
                put(rows + i * pitch, slot, splat_int(0, width))
        for slot in range(panel):
            put(total, slot, splat_int(0, width))
        p0, p1 = place(0, first, wide_v), place(1, first, wide_v)
        p2, p3 = place(2, first, wide_v), place(3, first, wide_v)
        for n in range(tokens):
            k_row, v_row = k + n * k_step, v + n * v_step
            v0 = v1 = v2 = v3 = load_int(v_row, p0, UINT8, width)
            put(total, 0, get(total, 0) + v0)
            if panel > 1:
                v1 = load_int(v_row, p1, UINT8, width)
                put(total, 1, get(total, 1) + v1)
            if panel > 2:
                v2 = load_int(v_row, p2, UINT8, width)
                put(total, 2, get(total, 2) + v2)
            if panel > 3:
                v3 = load_int(v_row, p3, UINT8, width)
                put(total, 3, get(total, 3) + v3)
            for start in range(0, wide_k, 64):
                bits = spikes_of(k_row, start, min(start + 64, wide_k))
                while bits != 0:
                    i = start + lowest_bit(bits)
                    bits &= bits - 1
                    row = rows + i * pitch
                    put(row, 0, get(row, 0) + times(v0, k_row, i))
                    if panel > 1:
                        put(row, 1, get(row, 1) + times(v1, k_row, i))
                    if panel > 2:
                        put(row, 2, get(row, 2) + times(v2, k_row, i))
                    if panel > 3:
                        put(row, 3, get(row, 3) + times(v3, k_row, i))

    @jit_loop
    def prepare(wide_k, rows, total, a, o, c):
        """A -> a (a A - o 1^T V), and the sum of V -> the row that all sums start from."""
        a_, o_, c_ = splat_int(a, width), splat_int(o, width), splat_int(c, width)
        for slot in range(panel):
            shift = o_ * get(total, slot)
            start = c_ * get(total, slot)
            for i in range(wide_k):
                row = rows + i * pitch
                value = a_ * get(row, slot) - shift
                start = start - o_ * value
                put(row, slot, a_ * value)
            put(total, slot, start)

    @jit_loop
    def scatter(q, q_step, out, out_step, tokens, wide_k, wide_v, first, rows, total, scale):
        """Sums of rows of A for each query."""
        p0, p1 = place(0, first, wide_v), place(1, first, wide_v)
        p2, p3 = place(2, first, wide_v), place(3, first, wide_v)
        for n in range(tokens):
            q_row, out_row = q + n * q_step, out + n * out_step
            s0 = s1 = s2 = s3 = get(total, 0)
            if panel > 1:
                s1 = get(total, 1)
            if panel > 2:
                s2 = get(total, 2)
            if panel > 3:
                s3 = get(total, 3)
            for start in range(0, wide_k, 64):
                bits = spikes_of(q_row, start, min(start + 64, wide_k))
                while bits != 0:
                    i = start + lowest_bit(bits)
                    bits &= bits - 1
                    row = rows + i * pitch
                    s0 = s0 + times(get(row, 0), q_row, i)
                    if panel > 1:
                        s1 = s1 + times(get(row, 1), q_row, i)
                    if panel > 2:
                        s2 = s2 + times(get(row, 2), q_row, i)
                    if panel > 3:
                        s3 = s3 + times(get(row, 3), q_row, i)
            store(out_row, p0, to_float(s0) * scale, FLOAT32)
            if panel > 1:
                store(out_row, p1, to_float(s1) * scale, FLOAT32)
            if panel > 2:
                store(out_row, p2, to_float(s2) * scale, FLOAT32)
            if panel > 3:
                store(out_row, p3, to_float(s3) * scale, FLOAT32)

    def kernel(args):
        parts, pairs, heads, panels = args[1], args[2], args[3], args[4]
        queries, tokens, wide_k, wide_v = args[5], args[6], args[7], args[8]
        a, o, c = args[9], args[10], args[11]
        scale = splat_double_at(args[12], 0, width)
        work = pairs * panels
        part = take_part(args)
        while part < parts:
            rows = args[13] + part * ((wide_k + 1) * pitch)
            total = rows + wide_k * pitch
            for item in range(work * part // parts, work * (part + 1) // parts):
                first = item % panels * panel
                batch, head = item // panels // heads, item // panels % heads
                q = args[14] + batch * args[15] + head * args[16]
                k = args[18] + batch * args[19] + head * args[20]
                v = args[22] + batch * args[23] + head * args[24]
                out = args[26] + 4 * (batch * args[27] + head * args[28])
                gather(k, args[21], v, args[25], tokens, wide_k, wide_v, first, rows, total)
                prepare(wide_k, rows, total, a, o, c)
                step = 4 * args[29]
                scatter(q, args[17], out, step, queries, wide_k, wide_v, first, rows, total, scale)
            part = take_part(args)

    return compile_kernel(kernel, "hamming", width, panel, binary)


def spike_attention(
    q: Tensor, k: Tensor, v: Tensor, *, a: int, o: int, constant: int, scale: float, levels: int
) -> Tensor:
    """``scale * ((a Q - o) [(a K - o)^T V] + constant * sum_j V_j)``, rounded, scaled, rounded.

    Args:
        q: byte spikes 0..``levels``, ``[batch, heads, N, d]``. All strides are taken but that of
            the last axis, which is 1 or costs a copy.
        k: as ``q``, ``[batch, heads, M, d]``.
        v: as ``k``; its width may be another.
        a: factor on q and k, 2 for Hamming attention, 1 for the dot product.
        o: what is subtracted from them, D for Hamming attention, 0 for the dot product.
        constant: factor on the sum of values.
        scale: factor on all.
        levels: D of the neurons that fired.

    Sums must stay within ``EXACT``.

    Returns:
        float32 ``[batch, heads, N, width of v]``, laid out as ``q`` where it has the same shape.
    """
    q, k, v = (z if z.stride(-1) == 1 else z.contiguous() for z in (q, k, v))
    batch, heads, queries, wide_k = q.shape
    tokens, wide_v = v.shape[2:]
    if wide_v == wide_k:
        out = torch.empty_like(q, dtype=torch.float32)
    else:
        out = torch.empty((*q.shape[:3], wide_v), dtype=torch.float32)
    if out.numel() == 0:
        return out
    width = LANES if min(wide_k, wide_v) >= LANES else 1
    vectors = -(-wide_v // width)
    panels = -(-vectors // PANEL)
    panel = -(-vectors // panels)
    pairs = batch * heads
    work = pairs * (queries * wide_v + tokens * wide_k)
    threads = min(thread_count(), pairs * panels) if work > SERIAL else 1
    rows = torch.empty(threads * (wide_k + 1) * width * panel, dtype=torch.int32)
    scale_ = torch.tensor([scale], dtype=torch.float64)
    function, address = _kernel(width, panel, levels == 1)
    arguments = Arguments(
        *(0, threads, pairs, heads, panels, queries, tokens, wide_k, wide_v, a, o, constant),
        *(scale_.data_ptr(), rows.data_ptr()),
        *(q.data_ptr(), *q.stride()[:3], k.data_ptr(), *k.stride()[:3]),
        *(v.data_ptr(), *v.stride()[:3], out.data_ptr(), *out.stride()[:3]),
    )
    run(function, address, arguments, threads)
    return out
