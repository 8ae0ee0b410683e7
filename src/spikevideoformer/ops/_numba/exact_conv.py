# mypy: disable-error-code="no-untyped-def"
"""Exact convolutions of byte spikes on a CPU, by adding up rows of weights where a spike is.

Nothing is multiplied by a spike: a sum is made of the rows of weights (one for each input channel
and place in the kernel) that fired, an integer spike counting its row that many times. So the work
shrinks with the firing rate, and a weight may have as many bits as its sums leave room for.

A band of output rows is one piece of work. For a few input channels at a time (a tile, whose rows
of weights for 64 or 128 output channels fit into the first-level cache) the spikes of each input
pixel become a list of channels, those of each output pixel a list of rows, used for all output
channels. Sums are int32; with ``short`` rows are int16 and so are the sums of as many tiles as
cannot leave it, twice as many to a vector.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spikevideoformer.ops._numba.compile import SERIAL, Arguments, compile_kernel, jit, jit_loop
from spikevideoformer.ops._numba.threads import run, thread_count
from spikevideoformer.ops._numba.vector import (
    FLOAT32,
    INT32,
    LANES,
    UINT8,
    add_shorts,
    copy_indices,
    double_zeros,
    fma,
    fma_doubles,
    list_bytes,
    load,
    load_doubles,
    load_index,
    load_int,
    load_short,
    lower_shorts,
    splat_double,
    splat_int,
    store,
    store_byte,
    store_int,
    store_int_as_double,
    store_rounded,
    take_part,
    times_bytes,
    to_float,
    upper_shorts,
    where_bytes,
)

BLOCK = 4  # vectors of a row that are summed up in registers at a time
VECTOR_BYTES = 4 * LANES
PIXELS = 4  # output pixels whose float64 sums are in registers together


def _make_block(vectors, short):
    """Sums of listed rows of ``vectors`` vectors, added to sums in memory.

    Sums are int32. With ``short`` they are int16 where a sum starts (``fresh``) or goes on, and
    are added to the int32 ones where it ends (``last``).
    """

    @jit_loop
    def add_rows(rows, count, weights, sums, shorts, fresh, last):
        a0 = a1 = a2 = a3 = splat_int(0, LANES)
        held = shorts if short else sums
        if not fresh:
            a0 = load_int(held, 0, INT32, LANES)
            if vectors > 1:
                a1 = load_int(held, LANES, INT32, LANES)
            if vectors > 2:
                a2 = load_int(held, 2 * LANES, INT32, LANES)
            if vectors > 3:
                a3 = load_int(held, 3 * LANES, INT32, LANES)
        for j in range(count):
            row = weights + load_index(rows, j) * (vectors * VECTOR_BYTES)
            if short:
                a0 = add_shorts(a0, load_int(row, 0, INT32, LANES))
                if vectors > 1:
                    a1 = add_shorts(a1, load_int(row, LANES, INT32, LANES))
                if vectors > 2:
                    a2 = add_shorts(a2, load_int(row, 2 * LANES, INT32, LANES))
                if vectors > 3:
                    a3 = add_shorts(a3, load_int(row, 3 * LANES, INT32, LANES))
            else:
                a0 = a0 + load_int(row, 0, INT32, LANES)
                if vectors > 1:
                    a1 = a1 + load_int(row, LANES, INT32, LANES)
                if vectors > 2:
                    a2 = a2 + load_int(row, 2 * LANES, INT32, LANES)
                if vectors > 3:
                    a3 = a3 + load_int(row, 3 * LANES, INT32, LANES)
        if short and last:
            _widen(sums, a0)
            if vectors > 1:
                _widen(sums + 2 * VECTOR_BYTES, a1)
            if vectors > 2:
                _widen(sums + 4 * VECTOR_BYTES, a2)
            if vectors > 3:
                _widen(sums + 6 * VECTOR_BYTES, a3)
        else:
            store_int(held, 0, a0)
            if vectors > 1:
                store_int(held, LANES, a1)
            if vectors > 2:
                store_int(held, 2 * LANES, a2)
            if vectors > 3:
                store_int(held, 3 * LANES, a3)

    return add_rows


@jit
def _widen(sums, value):
    """Add int16 numbers, the lower halves first, to int32 sums."""
    store_int(sums, 0, load_int(sums, 0, INT32, LANES) + lower_shorts(value))
    store_int(sums, LANES, load_int(sums, LANES, INT32, LANES) + upper_shorts(value))


@jit
def _list_channels(spikes, channels, levels, target):
    """Channels of one pixel that fired, each as often as it did, as bytes; how many."""
    n = 0
    whole = channels - channels % LANES
    for level in range(1, levels + 1):
        for c in range(0, whole, LANES):
            n += list_bytes(target, n, spikes, c, level, c)
        for c in range(whole, channels):
            if load_int(spikes, c, UINT8, 1) >= level:
                store_byte(target, n, c)
                n += 1
    return n


@cache
def events_kernel(short: bool) -> tuple[Any, int]:
    """The kernel; ``EventConv`` makes its arguments."""
    add4, add2, add1 = (_make_block(n, short) for n in (BLOCK, 2, 1))
    widths = 2 if short else 1  # vectors of int32 sums for one of weights

    @jit
    def finish(sums, out, channels):
        """Sums of a pixel as float32."""
        whole = channels - channels % LANES
        for c in range(0, whole, LANES):
            store(out, c, to_float(load_int(sums, c, INT32, LANES)), FLOAT32)
        for c in range(whole, channels):
            store(out, c, to_float(load_int(sums, c, INT32, 1)), FLOAT32)

    @jit
    def finish_shorts(shorts, out, channels):
        """The same of int16 sums."""
        whole = channels - channels % (2 * LANES)
        for c in range(0, whole, 2 * LANES):
            value = load_int(shorts, c // 2, INT32, LANES)
            store(out, c, to_float(lower_shorts(value)), FLOAT32)
            store(out, c + LANES, to_float(upper_shorts(value)), FLOAT32)
        for c in range(whole, channels):
            lane, upper = (c - whole) % LANES, (c - whole) // LANES
            store(out, c, to_float(load_short(shorts, whole + 2 * lane + upper)), FLOAT32)

    @jit_loop
    def list_rows(a, picture, y0, y1, tile, place, pixel, lists, counts, rows, starts):
        """Lists of rows, one after the other, of the output pixels in rows ``y0`` to ``y1``.

        They go to ``rows[place]`` on, where each begins to ``starts[pixel]`` on; returns the place
        after them.
        """
        height, width, channels, out_width = a[3], a[4], a[5], a[7]
        kh, kw, tile_channels, pitch, levels = a[12], a[13], a[14], a[23], a[27]
        in0 = max(0, y0 * a[8] - a[10])
        in1 = min(height, (y1 - 1) * a[8] - a[10] + kh)
        first = tile * tile_channels
        here = min(tile_channels, channels - first)
        for p in range(in0 * width, in1 * width):
            at = p - in0 * width
            spikes = picture + p * channels + first
            store_int(counts, at, _list_channels(spikes, here, levels, lists + at * pitch))
        for y in range(y0, y1):
            top = y * a[8] - a[10]
            for x in range(out_width):
                left = x * a[9] - a[11]
                store_int(starts, pixel, place)
                for i in range(max(0, -top), min(kh, height - top)):
                    line = (top + i - in0) * width + left
                    for j in range(max(0, -left), min(kw, width - left)):
                        offset = (i * kw + j) * tile_channels
                        count = load_int(counts, line + j, INT32, 1)
                        listed = lists + (line + j) * pitch
                        copy_indices(rows, place, listed, 0, offset)  # mostly that is all
                        for k in range(LANES, count, LANES):
                            copy_indices(rows, place + k, listed, k, offset)
                        place += count
                pixel += 1
        store_int(starts, pixel, place)
        return place

    def kernel(a):
        parts, images, height, width, channels = a[1], a[2], a[3], a[4], a[5]
        out_height, out_width, tiles, vectors, out_channels = a[6], a[7], a[15], a[16], a[17]
        band, bands, outputs, only_shorts = a[18], a[19], a[33], a[34]
        tile_rows = a[12] * a[13] * a[14]
        row_bytes = outputs * vectors * VECTOR_BYTES  # of a row of weights
        numbers = LANES * widths  # sums of a vector
        all_rows = images * out_height
        part = take_part(a)
        while part < parts:
            lists = a[25] + part * a[26]
            counts, rows, starts = lists + a[28], lists + a[29], lists + a[30]
            sums, shorts = lists + a[31], lists + a[32]
            for item in range(bands * part // parts, bands * (part + 1) // parts):
                first, last_row = item * band, min((item + 1) * band, all_rows)
                pixels = (last_row - first) * out_width
                place = 0
                for tile in range(tiles):
                    row, pixel = first, tile * (pixels + 1)
                    while row < last_row:  # the rows of one picture after the other
                        image, y0 = row // out_height, row % out_height
                        y1 = min(out_height, y0 + last_row - row)
                        picture = a[20] + image * height * width * channels
                        place = list_rows(
                            a, picture, y0, y1, tile, place, pixel, lists, counts, rows, starts
                        )
                        pixel += (y1 - y0) * out_width
                        row += y1 - y0
                for output in range(outputs):
                    out = a[24] + 4 * (output * all_rows + first) * out_width * out_channels
                    v = 0
                    while v < vectors:
                        n = BLOCK if v + BLOCK <= vectors else (2 if v + 2 <= vectors else 1)
                        bytes_here = n * VECTOR_BYTES
                        if short and not only_shorts:
                            zero = splat_int(0, LANES)
                            for i in range(0, pixels * n * widths * LANES, LANES):
                                store_int(sums, i, zero)
                        for tile in range(tiles):
                            weights = a[21] + tile * tile_rows * row_bytes
                            weights += tile_rows * (output * vectors + v) * VECTOR_BYTES
                            ends = load_int(a[22], tile, INT32, 1)
                            fresh, last = ends & 1, ends & 2
                            into, held = sums, shorts
                            listed = starts + 4 * tile * (pixels + 1)
                            start = load_int(listed, 0, INT32, 1)
                            for pixel in range(pixels):
                                stop = load_int(listed, pixel + 1, INT32, 1)
                                of_pixel, count = rows + 2 * start, stop - start
                                if n == BLOCK:
                                    add4(of_pixel, count, weights, into, held, fresh, last)
                                elif n == 2:
                                    add2(of_pixel, count, weights, into, held, fresh, last)
                                else:
                                    add1(of_pixel, count, weights, into, held, fresh, last)
                                into += widths * bytes_here
                                held += bytes_here
                                start = stop
                        channels_here = min(n * numbers, out_channels - v * numbers)
                        for pixel in range(pixels):
                            target = out + 4 * (pixel * out_channels + v * numbers)
                            if only_shorts:
                                finish_shorts(shorts + pixel * bytes_here, target, channels_here)
                            else:
                                place = pixel * widths * bytes_here
                                finish(sums + place, target, channels_here)
                        v += n
            part = take_part(a)

    return compile_kernel(kernel, "events", short)


def _make_depthwise_row(binary, doubles):
    """A row of integer sums of a depthwise convolution, as float32 or float64 numbers."""

    @jit
    def put(out, c, value):
        if doubles:
            store_int_as_double(out, c, value)
        else:
            store(out, c, to_float(value), FLOAT32)

    @jit
    def times(w, spikes, place):
        if binary:
            return where_bytes(w, spikes, place)
        return times_bytes(w, spikes, place)

    @jit_loop
    def depthwise_row(a, spikes, y, out_row):
        """Row ``y`` of the picture at ``spikes``; weights are ``[kh, kw, C]``, int32."""
        height, width, channels, out_width, kh, kw = a[3], a[4], a[5], a[7], a[12], a[13]
        item_bytes = 8 if doubles else 4
        whole = channels - channels % LANES
        next_pixel = a[9] * channels  # from an output pixel's spikes to those of the next
        top = y * a[8] - a[10]
        i0, i1 = max(0, -top), min(kh, height - top)
        for c in range(0, whole, LANES):
            x = 0
            while x < out_width:
                left = x * a[9] - a[11]
                out = out_row + x * channels * item_bytes
                # four pixels at once where the kernel lies inside the picture for all
                if left >= 0 and x + 4 <= out_width and left + 3 * a[9] + kw <= width:
                    t0 = t1 = t2 = t3 = splat_int(0, LANES)
                    for i in range(i0, i1):
                        line = spikes + ((top + i) * width + left) * channels + c
                        weights = a[21] + 4 * (i * kw * channels + c)
                        for _ in range(kw):
                            w = load_int(weights, 0, INT32, LANES)
                            t0 = t0 + times(w, line, 0)
                            t1 = t1 + times(w, line, next_pixel)
                            t2 = t2 + times(w, line, 2 * next_pixel)
                            t3 = t3 + times(w, line, 3 * next_pixel)
                            weights += 4 * channels
                            line += channels
                    put(out, c, t0)
                    put(out, c + channels, t1)
                    put(out, c + 2 * channels, t2)
                    put(out, c + 3 * channels, t3)
                    x += 4
                else:
                    total = splat_int(0, LANES)
                    for i in range(i0, i1):
                        line = ((top + i) * width + left) * channels + c
                        for j in range(max(0, -left), min(kw, width - left)):
                            w = load_int(a[21], (i * kw + j) * channels + c, INT32, LANES)
                            total = total + times(w, spikes, line + j * channels)
                    put(out, c, total)
                    x += 1
        for x in range(out_width):
            left = x * a[9] - a[11]
            for c in range(whole, channels):
                single = 0
                for i in range(i0, i1):
                    line = ((top + i) * width + left) * channels + c
                    for j in range(max(0, -left), min(kw, width - left)):
                        w = load_int(a[21], (i * kw + j) * channels + c, INT32, 1)
                        single += w * load_int(spikes, line + j * channels, UINT8, 1)
                put(out_row + x * channels * item_bytes, c, single)

    return depthwise_row


@cache
def depthwise_kernel(binary: bool) -> tuple[Any, int]:
    """Integer sums of a depthwise convolution, rounded to float32."""
    depthwise_row = _make_depthwise_row(binary, False)

    def kernel(a):
        parts, images, height, width, channels = a[1], a[2], a[3], a[4], a[5]
        out_height, row_bytes = a[6], 4 * a[7] * channels
        part = take_part(a)
        while part < parts:
            work = images * out_height
            for item in range(work * part // parts, work * (part + 1) // parts):
                image, y = item // out_height, item % out_height
                spikes = a[20] + image * height * width * channels
                depthwise_row(a, spikes, y, a[24] + item * row_bytes)
            part = take_part(a)

    return compile_kernel(kernel, "depthwise", binary)


@cache
def separable_kernel(binary: bool) -> tuple[Any, int]:
    """A depthwise convolution of integers and a pointwise one of its sums.

    The second adds up products of whole numbers in float64, where they are exact in any order. Its
    weights are ``[blocks, C, LANES]``, float64: LANES of the output channels to a block.
    """
    depthwise_row = _make_depthwise_row(binary, True)

    @jit_loop
    def products(row, channels, x0, x1, x2, x3, weights, out, o0, o1, o2, o3):
        """LANES outputs of four pixels of the row, to the floats from ``out[o0]``, ... on."""
        s0 = s1 = s2 = s3 = double_zeros()
        p0, p1 = row + 8 * x0 * channels, row + 8 * x1 * channels
        p2, p3 = row + 8 * x2 * channels, row + 8 * x3 * channels
        for c in range(channels):
            w = load_doubles(weights, c * LANES)
            s0 = fma_doubles(splat_double(p0, c), w, s0)
            s1 = fma_doubles(splat_double(p1, c), w, s1)
            s2 = fma_doubles(splat_double(p2, c), w, s2)
            s3 = fma_doubles(splat_double(p3, c), w, s3)
        store_rounded(out, o0, s0)
        store_rounded(out, o1, s1)
        store_rounded(out, o2, s2)
        store_rounded(out, o3, s3)

    def kernel(a):
        parts, images, height, width, channels = a[1], a[2], a[3], a[4], a[5]
        out_height, out_width, out_channels = a[6], a[7], a[17]
        blocks = (out_channels + LANES - 1) // LANES
        part = take_part(a)
        while part < parts:
            row = a[25] + part * a[26]
            last = row + 8 * out_width * channels  # outputs of a block that is not full
            work = images * out_height
            for item in range(work * part // parts, work * (part + 1) // parts):
                image, y = item // out_height, item % out_height
                depthwise_row(a, a[20] + image * height * width * channels, y, row)
                out = a[24] + 4 * item * out_width * out_channels
                for block in range(blocks):
                    first = block * LANES
                    weights = a[22] + 8 * first * channels
                    here = min(LANES, out_channels - first)
                    for x in range(0, out_width, PIXELS):
                        # beyond the edge the last pixel once more
                        x1 = min(x + 1, out_width - 1)
                        x2 = min(x + 2, out_width - 1)
                        x3 = min(x + 3, out_width - 1)
                        if here == LANES:
                            products(
                                row, channels, x, x1, x2, x3, weights, out,
                                x * out_channels + first, x1 * out_channels + first,
                                x2 * out_channels + first, x3 * out_channels + first,
                            )  # fmt: skip
                        else:
                            products(
                                row, channels, x, x1, x2, x3, weights, last,
                                0, LANES, 2 * LANES, 3 * LANES,
                            )  # fmt: skip
                            for i in range(min(PIXELS, out_width - x)):
                                for c in range(here):
                                    value = load(last, i * LANES + c, FLOAT32, 1)
                                    store(out, (x + i) * out_channels + first + c, value, FLOAT32)
            part = take_part(a)

    return compile_kernel(kernel, "separable", binary)


@cache
def scaled_kernel() -> tuple[Any, int]:
    """``fma(x, unit, bias)`` of each row of channels."""

    def kernel(a):
        parts, pixels, channels = a[1], a[2], a[3]
        whole = channels - channels % LANES
        part = take_part(a)
        while part < parts:
            for p in range(pixels * part // parts, pixels * (part + 1) // parts):
                x, out = a[4] + 4 * p * channels, a[7] + 4 * p * channels
                for c in range(0, whole, LANES):
                    unit, bias = load(a[5], c, FLOAT32, LANES), load(a[6], c, FLOAT32, LANES)
                    store(out, c, fma(load(x, c, FLOAT32, LANES), unit, bias), FLOAT32)
                for c in range(whole, channels):
                    unit, bias = load(a[5], c, FLOAT32, 1), load(a[6], c, FLOAT32, 1)
                    store(out, c, fma(load(x, c, FLOAT32, 1), unit, bias), FLOAT32)
            part = take_part(a)

    return compile_kernel(kernel, "scaled")


@cache
def fixed_order_kernel(vectors: int) -> tuple[Any, int]:
    """A convolution of real values in one order: float64 sums over (channel, row, column).

    Products of float32 numbers are exact in float64, so that fusing them with the addition
    changes nothing. Pictures are padded, float64 ``[N, C, H, W]``; weights float64
    ``[C, kh, kw, vectors * LANES]``; the result is channels-last, padded to whole vectors.
    """

    def kernel(a):
        parts, images, height, width, channels = a[1], a[2], a[3], a[4], a[5]
        out_height, out_width, kh, kw = a[6], a[7], a[12], a[13]
        row = vectors * LANES
        part = take_part(a)
        while part < parts:
            work = images * out_height
            for item in range(work * part // parts, work * (part + 1) // parts):
                image, y = item // out_height, item % out_height
                picture = a[20] + 8 * image * channels * height * width
                out = a[24] + 4 * item * out_width * row
                for x in range(0, out_width, PIXELS):
                    # beyond the edge the last pixel once more
                    x1 = min(x + 1, out_width - 1)
                    x2 = min(x + 2, out_width - 1)
                    x3 = min(x + 3, out_width - 1)
                    p0 = picture + 8 * x * a[9]
                    p1, p2, p3 = (
                        picture + 8 * x1 * a[9],
                        picture + 8 * x2 * a[9],
                        picture + 8 * x3 * a[9],
                    )
                    for v in range(vectors):
                        s0 = s1 = s2 = s3 = load_doubles(a[22], v * LANES)
                        for c in range(channels):
                            for i in range(kh):
                                line = (c * height + y * a[8] + i) * width
                                weights = a[21] + 8 * ((c * kh + i) * kw * row + v * LANES)
                                for j in range(kw):
                                    w = load_doubles(weights, j * row)
                                    s0 = fma_doubles(splat_double(p0, line + j), w, s0)
                                    s1 = fma_doubles(splat_double(p1, line + j), w, s1)
                                    s2 = fma_doubles(splat_double(p2, line + j), w, s2)
                                    s3 = fma_doubles(splat_double(p3, line + j), w, s3)
                        store_rounded(out, x * row + v * LANES, s0)
                        store_rounded(out, x1 * row + v * LANES, s1)
                        store_rounded(out, x2 * row + v * LANES, s2)
                        store_rounded(out, x3 * row + v * LANES, s3)
            part = take_part(a)

    return compile_kernel(kernel, "fixed_order", vectors)


# --- Called from torch ----------------------------------------------------------------------------

LINES = 144  # rows of weights of a tile; of 64 int32 or 128 int16 numbers: 36 KB
BAND_BYTES = 2**19  # of lists, where a quarter fires, and sums: for the second-level cache
SHORT_EXACT = 2**15 - 1
Pair = tuple[int, int]


def _out_size(height: int, width: int, kernel: Any, stride: Pair, padding: Pair) -> Pair:
    return (
        (height + 2 * padding[0] - kernel[0]) // stride[0] + 1,
        (width + 2 * padding[1] - kernel[1]) // stride[1] + 1,
    )


def _aligned(count: int) -> int:
    return -(-count // 64) * 64


class EventConv:
    """A convolution of byte spikes by adding up rows; its weights packed once.

    Args:
        integers: ``[C', C, kh, kw]``, int32, whose sums stay within int32.
        levels: the largest spike.
        stride, padding: of rows and columns.
        outputs: into how many tensors the output channels go; their number is a multiple of it.
    """

    def __init__(
        self, integers: Tensor, levels: int, stride: Pair, padding: Pair, outputs: int = 1
    ) -> None:
        self.levels, self.stride, self.padding, self.outputs = levels, stride, padding, outputs
        self.channels, *self.kernel = integers.shape[1:]
        self.out_channels = len(integers) // outputs  # of each
        taps = self.kernel[0] * self.kernel[1]
        tile = max(1, LINES // taps)
        tile -= tile % LANES if tile > LANES else 0
        self.tile = tile = min(tile, self.channels, 256)
        self.tiles = -(-self.channels // tile)
        lines = F.pad(integers, (0, 0, 0, 0, 0, self.tiles * tile - self.channels))
        lines = lines.permute(2, 3, 1, 0).unflatten(2, (self.tiles, tile))
        lines = lines.movedim(2, 0).reshape(self.tiles, taps * tile, len(integers))
        runs = _short_runs(lines, levels)
        self.short, self.only_shorts = runs is not None, runs is not None and len(runs) == 1
        starts = {0} if runs is None else set(runs)
        # 1: sums start with this tile; 2: int16 sums end with it
        ends = [
            (t in starts) + 2 * (not self.only_shorts and (t + 1 in starts or t + 1 == self.tiles))
            for t in range(self.tiles)
        ]
        self.ends = torch.tensor(ends, dtype=torch.int32)
        numbers = 2 * LANES if self.short else LANES  # in a vector
        self.vectors = -(-self.out_channels // numbers)  # of each output
        more = self.vectors * numbers - self.out_channels
        lines = F.pad(lines.unflatten(2, (outputs, -1)), (0, more))
        if self.short:
            # lower halves of the lanes hold the first LANES numbers, upper halves the others
            lines = lines.unflatten(3, (self.vectors, 2, LANES)).transpose(4, 5)
            lines = lines.to(torch.int16).flatten(3)
        blocks = []
        for output in range(outputs):
            first = 0
            while first < self.vectors:
                left = self.vectors - first
                n = BLOCK if left >= BLOCK else (2 if left >= 2 else 1)
                part = lines[:, :, output, first * numbers : (first + n) * numbers]
                blocks.append(part.reshape(self.tiles, -1))
                first += n
        self.weights = torch.cat(blocks, 1).contiguous()

    def __call__(self, spikes: Tensor) -> tuple[Tensor, ...]:
        """Sums rounded to float32, each ``[N, C', H', W']``, for uint8 ``[N, C, H, W]``."""
        spikes = spikes.contiguous(memory_format=torch.channels_last)
        images, channels, height, width = spikes.shape
        rows, columns = _out_size(height, width, self.kernel, self.stride, self.padding)
        out = torch.empty(
            (self.outputs * images, self.out_channels, rows, columns),
            dtype=torch.float32,
            memory_format=torch.channels_last,
        )
        if out.numel() == 0:
            return out.chunk(self.outputs)
        threads = thread_count() if images * rows * columns * channels > SERIAL else 1
        lines = self.kernel[0] * self.kernel[1] * self.channels * self.levels
        row = min(self.vectors, BLOCK) * VECTOR_BYTES  # of weights, or of int16 sums
        of_pixel = lines // 2 + row * (3 if self.short else 1)
        band = max(1, min(-(-images * rows // threads), BAND_BYTES // of_pixel // columns))
        bands = -(-images * rows // band)
        threads = min(threads, bands)
        seen = min(height, (min(band, rows) - 1) * self.stride[0] + self.kernel[0])
        pitch = _aligned(self.tile * self.levels + LANES)
        pixels = band * columns
        sizes = (
            seen * width * pitch,
            4 * seen * width,
            2 * (pixels * lines + LANES),
            4 * self.tiles * (pixels + 1),
            0 if self.only_shorts else pixels * row * (2 if self.short else 1),
            pixels * row if self.short else 0,
        )
        places = [0]
        for size in sizes:
            places.append(places[-1] + _aligned(size))
        scratch = torch.empty(threads * places[-1] + 64, dtype=torch.uint8)
        start = scratch.data_ptr() + -scratch.data_ptr() % 64
        function, address = events_kernel(self.short)
        arguments = Arguments(
            *(0, threads, images, height, width, channels, rows, columns),
            *(*self.stride, *self.padding, *self.kernel),
            *(self.tile, self.tiles, self.vectors, self.out_channels, band, bands),
            *(spikes.data_ptr(), self.weights.data_ptr(), self.ends.data_ptr(), pitch),
            *(out.data_ptr(), start, places[-1], self.levels, *places[1:6]),
            *(self.outputs, self.only_shorts),
        )
        run(function, address, arguments, threads)
        return out.chunk(self.outputs)


def _short_runs(lines: Tensor, levels: int) -> list[int] | None:
    """Tiles at which int16 sums start, so that none can leave int16; None where one tile's may.

    Args:
        lines: ``[tiles, lines of a tile, C']``, int32.
        levels: the largest spike.
    """
    wide = levels * lines.long()
    of_tiles = wide.clamp(min=0).sum(1), -wide.clamp(max=0).sum(1)
    if max(int(z.max()) for z in of_tiles) > SHORT_EXACT:
        return None
    runs, reached = [0], [torch.zeros_like(z[0]) for z in of_tiles]
    for tile, found in enumerate(zip(*of_tiles, strict=True)):
        reached = [so_far + z for so_far, z in zip(reached, found, strict=True)]
        if max(int(z.max()) for z in reached) > SHORT_EXACT:
            runs.append(tile)
            reached = list(found)
    return runs


class DepthwiseSums:
    """Integer sums of a depthwise convolution of byte spikes.

    Args:
        integers: ``[C, 1, kh, kw]``, int32, whose sums stay within int32.
        levels: the largest spike.
        stride, padding: of rows and columns.
    """

    def __init__(self, integers: Tensor, levels: int, stride: Pair, padding: Pair) -> None:
        self.levels, self.stride, self.padding = levels, stride, padding
        self.kernel = integers.shape[2:]
        self.weights = integers[:, 0].permute(1, 2, 0).contiguous()

    def __call__(self, spikes: Tensor) -> Tensor:
        """Sums rounded to float32 ``[N, C, H', W']`` for uint8 ``[N, C, H, W]``."""
        spikes = spikes.contiguous(memory_format=torch.channels_last)
        images, channels, height, width = spikes.shape
        rows, columns = _out_size(height, width, self.kernel, self.stride, self.padding)
        out = torch.empty(
            (images, channels, rows, columns),
            dtype=torch.float32,
            memory_format=torch.channels_last,
        )
        if out.numel() == 0:
            return out
        threads = min(thread_count(), images * rows) if out.numel() > SERIAL else 1
        function, address = depthwise_kernel(self.levels == 1)
        arguments = Arguments(
            *(0, threads, images, height, width, channels, rows, columns),
            *(*self.stride, *self.padding, *self.kernel, 0, 0, 0, 0, 0, 0),
            *(spikes.data_ptr(), self.weights.data_ptr(), 0, 0, out.data_ptr()),
        )
        run(function, address, arguments, threads)
        return out


class SeparableConv:
    """A depthwise convolution of byte spikes and a pointwise one of its sums; weights are integers.

    Args:
        integers: ``[C, 1, kh, kw]``, int32, whose sums stay within int32.
        rows: ``[C, C']``, whole numbers in float64; no sum of products passes 2^53.
        levels: the largest spike.
        padding: of rows and columns.
    """

    def __init__(self, integers: Tensor, rows: Tensor, levels: int, padding: Pair) -> None:
        self.levels, self.padding, self.kernel = levels, padding, integers.shape[2:]
        self.depthwise = integers[:, 0].permute(1, 2, 0).contiguous()
        self.out_channels = rows.shape[1]
        blocks = F.pad(rows, (0, -self.out_channels % LANES)).unflatten(1, (-1, LANES))
        self.pointwise = blocks.movedim(1, 0).contiguous()

    def __call__(self, spikes: Tensor) -> Tensor:
        """Sums rounded to float32 ``[N, C', H', W']`` for uint8 ``[N, C, H, W]``."""
        spikes = spikes.contiguous(memory_format=torch.channels_last)
        images, channels, height, width = spikes.shape
        rows, columns = _out_size(height, width, self.kernel, (1, 1), self.padding)
        out = torch.empty(
            (images, self.out_channels, rows, columns),
            dtype=torch.float32,
            memory_format=torch.channels_last,
        )
        if out.numel() == 0:
            return out
        threads = min(thread_count(), images * rows) if spikes.numel() > SERIAL else 1
        row = _aligned(8 * columns * channels + 4 * PIXELS * LANES)
        scratch = torch.empty(threads * row + 64, dtype=torch.uint8)
        start = scratch.data_ptr() + -scratch.data_ptr() % 64
        function, address = separable_kernel(self.levels == 1)
        arguments = Arguments(
            *(0, threads, images, height, width, channels, rows, columns),
            *(1, 1, *self.padding, *self.kernel, 0, 0, 0, self.out_channels, 0, 0),
            *(spikes.data_ptr(), self.depthwise.data_ptr(), self.pointwise.data_ptr(), 0),
            *(out.data_ptr(), start, row),
        )
        run(function, address, arguments, threads)
        return out


def fixed_order_conv(
    pictures: Tensor, weight: Tensor, bias: Tensor, stride: Pair, padding: Pair
) -> Tensor:
    """See ``ops/exact_conv.py``."""
    out_channels, channels, *kernel = weight.shape
    pictures = F.pad(
        pictures.double(), (padding[1], padding[1], padding[0], padding[0])
    ).contiguous()
    images, _, height, width = pictures.shape
    rows, columns = _out_size(height, width, kernel, stride, (0, 0))
    vectors = -(-out_channels // LANES)
    more = vectors * LANES - out_channels
    weights = F.pad(weight.double().permute(1, 2, 3, 0), (0, more)).contiguous()
    biases = F.pad(bias.double(), (0, more))
    out = torch.empty(images, rows, columns, vectors * LANES, dtype=torch.float32)
    if out.numel():
        threads = min(thread_count(), images * rows) if out.numel() > SERIAL else 1
        function, address = fixed_order_kernel(vectors)
        arguments = Arguments(
            *(0, threads, images, height, width, channels, rows, columns),
            *(*stride, 0, 0, *kernel, 0, 0, 0, 0, 0, 0),
            *(pictures.data_ptr(), weights.data_ptr(), biases.data_ptr(), 0, out.data_ptr()),
        )
        run(function, address, arguments, threads)
    return out[..., :out_channels].permute(0, 3, 1, 2)


def scaled(x: Tensor, unit: Tensor, bias: Tensor) -> Tensor:
    """See ``ops/exact_conv.py``."""
    x = x.contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(x)
    pixels = x.numel() // max(1, len(unit))
    threads = min(thread_count(), pixels) if x.numel() > SERIAL else 1
    function, address = scaled_kernel()
    unit, bias = unit.contiguous(), bias.contiguous()
    places = (x.data_ptr(), unit.data_ptr(), bias.data_ptr(), out.data_ptr())
    run(function, address, Arguments(0, threads, pixels, len(unit), *places), threads)
    return out
