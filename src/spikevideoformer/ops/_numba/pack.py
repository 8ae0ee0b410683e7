# mypy: disable-error-code="no-untyped-def"
"""Spikes to bits and back on a CPU: the kernels behind ``ops/pack.py``."""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikevideoformer.ops._numba.compile import KIND, SERIAL, Arguments, compile_kernel, jit
from spikevideoformer.ops._numba.threads import run, thread_count
from spikevideoformer.ops._numba.vector import (
    ITEM_BYTES,
    LANES,
    UINT8,
    differ,
    load,
    load_bits,
    prefetch_to_write,
    splat,
    store,
    store_bits,
    store_truth,
    take_part,
)

BLOCK = 4096  # spikes that threads share out


@cache
def _pack_kernel(kind: int) -> tuple[Any, int]:
    @jit
    def tail(source, data, start, count):
        byte, weight = splat(np.float32(0), 1), splat(np.float32(1), 1)
        for i in range(start, count):
            if load(source, i, kind, 1) != 0:
                byte += weight
            weight += weight
            if i % 8 == 7 or i == count - 1:
                store(data, i // 8, byte, UINT8)
                byte, weight = splat(np.float32(0), 1), splat(np.float32(1), 1)

    def kernel(a):
        parts, count, source, data = a[1], a[2], a[3], a[4]
        zero = splat(np.float32(0), LANES)
        whole = count - count % LANES
        blocks = (whole + BLOCK - 1) // BLOCK
        part = take_part(a)
        while part < parts:
            stop = min(blocks * (part + 1) // parts * BLOCK, whole)
            for i in range(blocks * part // parts * BLOCK, stop, LANES):
                s = load(source, i, kind, LANES)
                store_bits(data, i // LANES, differ(s, zero))
            if part == parts - 1:
                tail(source, data, whole, count)
            part = take_part(a)

    return compile_kernel(kernel, "pack", kind)


@cache
def _unpack_kernel(kind: int) -> tuple[Any, int]:
    item_bytes = ITEM_BYTES[kind]

    def kernel(a):
        parts, count, data, out = a[1], a[2], a[3], a[4]
        whole = count - count % LANES
        blocks = (whole + BLOCK - 1) // BLOCK
        part = take_part(a)
        while part < parts:
            stop = min(blocks * (part + 1) // parts * BLOCK, whole)
            for i in range(blocks * part // parts * BLOCK, stop, LANES):
                prefetch_to_write(out + i * item_bytes + 1024)
                store_truth(out, i, load_bits(data, i // LANES), kind)
            if part == parts - 1:
                for i in range(whole, count):
                    byte = int(load(data, i // 8, UINT8, 1))
                    store_truth(out, i, (byte >> (i % 8)) & 1 != 0, kind)
            part = take_part(a)

    return compile_kernel(kernel, "unpack", kind)


def _call(kernel: tuple[Any, int], count: int, source: Tensor, target: Tensor) -> None:
    threads = thread_count() if count > SERIAL else 1
    arguments = Arguments(0, threads, count, source.data_ptr(), target.data_ptr())
    run(*kernel, arguments, threads)


def pack_bits(flat: Tensor) -> Tensor:
    """uint8 ``[ceil(n / 8)]`` from contiguous spikes ``[n]``; what is not 0 is 1."""
    data = torch.empty(-(-flat.numel() // 8), dtype=torch.uint8)
    _call(_pack_kernel(KIND[flat.dtype]), flat.numel(), flat, data)
    return data


def unpack_bits(data: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """The ``count`` spikes that :func:`pack_bits` packed, ``[count]`` in ``dtype``."""
    flat = torch.empty(count, dtype=dtype)
    _call(_unpack_kernel(KIND[dtype]), count, data, flat)
    return flat
