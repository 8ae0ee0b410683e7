# mypy: disable-error-code="no-untyped-def"
"""Bilinear upsampling on a CPU, for ``ops/upsample.py``.

An output row is first mixed from two input rows, then its pixels from that row's.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from spikevideoformer.ops._numba.compile import SERIAL, Arguments, compile_kernel, jit
from spikevideoformer.ops._numba.threads import run, thread_count
from spikevideoformer.ops._numba.vector import (
    FLOAT32,
    LANES,
    load,
    splat,
    store,
    take_part,
)


@jit
def _mix(out, a, b, share_a, share_b, n):
    """``out[i] = a[i] * share_a + b[i] * share_b``, each rounded."""
    wide_a, wide_b = splat(share_a, LANES), splat(share_b, LANES)
    whole = n - n % LANES
    for i in range(0, whole, LANES):
        mixed = load(a, i, FLOAT32, LANES) * wide_a + load(b, i, FLOAT32, LANES) * wide_b
        store(out, i, mixed, FLOAT32)
    for i in range(whole, n):
        mixed = load(a, i, FLOAT32, 1) * share_a + load(b, i, FLOAT32, 1) * share_b
        store(out, i, mixed, FLOAT32)


@cache
def upsample_kernel() -> tuple[Any, int]:
    """Channels-last; ``a[10]`` has, of each new place, its shares of the old pixel and the other.

    The first half of the places has its other pixel before, the rest after.
    """

    def kernel(a):
        parts, images, height, width, channels, factor = a[1], a[2], a[3], a[4], a[5], a[6]
        line = width * channels
        part = take_part(a)
        while part < parts:
            row = a[9] + 4 * part * line
            work = images * height * factor
            for item in range(work * part // parts, work * (part + 1) // parts):
                image, y = item // (height * factor), item % (height * factor)
                k, y = y % factor, y // factor
                other = max(y - 1, 0) if 2 * k + 1 < factor else min(y + 1, height - 1)
                x = a[7] + 4 * image * height * line
                shares = load(a[10], 2 * k, FLOAT32, 1), load(a[10], 2 * k + 1, FLOAT32, 1)
                _mix(row, x + 4 * y * line, x + 4 * other * line, shares[0], shares[1], line)
                out = a[8] + 4 * item * factor * line
                for c in range(width):
                    for k in range(factor):
                        other = max(c - 1, 0) if 2 * k + 1 < factor else min(c + 1, width - 1)
                        shares = load(a[10], 2 * k, FLOAT32, 1), load(a[10], 2 * k + 1, FLOAT32, 1)
                        here, there = row + 4 * c * channels, row + 4 * other * channels
                        _mix(out, here, there, shares[0], shares[1], channels)
                        out += 4 * channels
            part = take_part(a)

    return compile_kernel(kernel, "upsample")


def upsample(x: Tensor, places: list[float]) -> Tensor:
    """See ``ops/upsample.py``."""
    x = x.contiguous(memory_format=torch.channels_last)
    images, channels, height, width = x.shape
    factor = len(places)
    out = torch.empty(
        (images, channels, height * factor, width * factor),
        dtype=torch.float32,
        memory_format=torch.channels_last,
    )
    if out.numel() == 0:
        return out
    threads = min(thread_count(), images * height * factor) if out.numel() > SERIAL else 1
    rows = torch.empty(threads * width * channels, dtype=torch.float32)
    shares = torch.tensor([[1 - abs(z), abs(z)] for z in places], dtype=torch.float32)
    function, address = upsample_kernel()
    arguments = Arguments(
        *(0, threads, images, height, width, channels, factor),
        *(x.data_ptr(), out.data_ptr(), rows.data_ptr(), shares.data_ptr()),
    )
    run(function, address, arguments, threads)
    return out
