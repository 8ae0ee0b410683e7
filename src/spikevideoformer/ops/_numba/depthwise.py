# mypy: disable-error-code="no-untyped-def"
"""Gradient of the weights of a depthwise convolution on a CPU, for ``ops/conv_gradient.py``.

It is, for each place of the kernel, a product of two pictures added up. Sixteen channels and a row
of the kernel stay in registers while an image goes by.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikevideoformer.ops._numba.compile import SERIAL, Arguments, compile_kernel, jit
from spikevideoformer.ops._numba.threads import run, thread_count
from spikevideoformer.ops._numba.vector import (
    FLOAT32,
    LANES,
    fma,
    load,
    splat,
    store,
    take_part,
)

SIZES = (3, 5, 7)  # of kernels


def _make_row(kernel, width):
    """Sums of a row of the kernel over an image, ``width`` channels at once."""

    @jit
    def row(x, grad, target, height, columns, line, grad_line, channels):
        step = 4 * channels
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = splat(np.float32(0), width)
        for y in range(height):
            source, above = x + y * line, grad + y * grad_line
            for column in range(columns):
                g = load(above + column * step, 0, FLOAT32, width)
                s0 = fma(g, load(source, column * width, FLOAT32, width), s0)
                s1 = fma(g, load(source, (column + 1) * width, FLOAT32, width), s1)
                s2 = fma(g, load(source, (column + 2) * width, FLOAT32, width), s2)
                if kernel > 3:
                    s3 = fma(g, load(source, (column + 3) * width, FLOAT32, width), s3)
                    s4 = fma(g, load(source, (column + 4) * width, FLOAT32, width), s4)
                if kernel > 5:
                    s5 = fma(g, load(source, (column + 5) * width, FLOAT32, width), s5)
                    s6 = fma(g, load(source, (column + 6) * width, FLOAT32, width), s6)
        store(target, 0, s0, FLOAT32)
        store(target + step, 0, s1, FLOAT32)
        store(target + 2 * step, 0, s2, FLOAT32)
        if kernel > 3:
            store(target + 3 * step, 0, s3, FLOAT32)
            store(target + 4 * step, 0, s4, FLOAT32)
        if kernel > 5:
            store(target + 5 * step, 0, s5, FLOAT32)
            store(target + 6 * step, 0, s6, FLOAT32)

    return row


@cache
def _kernel(kernel: int, width: int) -> tuple[Any, int]:
    sum_row = _make_row(kernel, width)

    def function(a):
        parts, images, channels = a[1], a[2], a[3]
        height, columns, pad = a[4], a[5], a[6]  # height and columns of the gradient
        tall, wide = height + kernel - 1, columns + kernel - 1
        inner_tall, inner_wide = tall - 2 * pad, wide - 2 * pad
        blocks = (channels + width - 1) // width
        work = images * blocks
        part = take_part(a)
        while part < parts:
            framed = a[7] + 4 * part * tall * wide * width
            for i in range(tall * wide * width):
                store(framed, i, np.float32(0), FLOAT32)
            for item in range(work * part // parts, work * (part + 1) // parts):
                n = item // blocks
                # the last block overlaps the one before: what it writes again is the same
                first = min(item % blocks * width, channels - width)
                x = a[8] + 4 * (n * inner_tall * inner_wide * channels + first)
                for y in range(inner_tall):
                    target = framed + 4 * ((y + pad) * wide + pad) * width
                    for column in range(inner_wide):
                        value = load(x, (y * inner_wide + column) * channels, FLOAT32, width)
                        store(target, column * width, value, FLOAT32)
                for j in range(kernel):
                    sum_row(
                        framed + 4 * j * wide * width,
                        a[9] + 4 * (n * height * columns * channels + first),
                        a[10] + 4 * ((n * kernel + j) * kernel * channels + first),
                        height,
                        columns,
                        4 * wide * width,
                        4 * columns * channels,
                        channels,
                    )
            part = take_part(a)

    return compile_kernel(function, "depthwise", kernel, width)


def weight_gradient(x: Tensor, grad: Tensor, kernel: int, padding: int) -> Tensor:
    """Gradient of the weights ``[C, 1, k, k]`` of a depthwise convolution of stride 1.

    Each image is added up in float32, in one order, and the images in float64: the bits do not
    depend on the number of threads.

    Args:
        x: float32 ``[N, C, H, W]``, channels-last.
        grad: of the output, ``[N, C, H + 2 p - k + 1, W + 2 p - k + 1]``, channels-last.
        kernel: k, one of ``SIZES``.
        padding: p, zeros on each side.
    """
    images, channels, height, columns = grad.shape
    width = LANES if channels >= LANES else 1
    work = images * -(-channels // width)
    threads = min(thread_count(), work) if grad.numel() > SERIAL else 1
    framed = threads * (height + kernel - 1) * (columns + kernel - 1) * width
    scratch = torch.empty(framed, dtype=torch.float32)
    sums = torch.empty(images, kernel, kernel, channels, dtype=torch.float32)
    function, address = _kernel(kernel, width)
    arguments = Arguments(
        *(0, threads, images, channels, height, columns, padding),
        *(scratch.data_ptr(), x.data_ptr(), grad.data_ptr(), sums.data_ptr()),
    )
    run(function, address, arguments, threads)
    total = sums.sum(0, dtype=torch.float64).float()
    return total.permute(2, 0, 1).unsqueeze(1).contiguous()
