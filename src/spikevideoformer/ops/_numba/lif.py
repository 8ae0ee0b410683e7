# mypy: disable-error-code="no-untyped-def"
"""Neurons over time on a CPU: the kernels behind ``ops/affine_lif.py``.

Every neuron of a time step is independent of the others, so memory is cut into chunks of about a
thousand neighbours, in whatever order they lie, and each chunk is run through all time steps while
its membranes stay in the first-level cache. Input is read once and output written once.

The backward pass saves nothing of the forward one but its input: it runs each chunk forward again,
keeping the membranes H of all steps in the second-level cache, and then back.
"""

import ctypes
import math
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spikevideoformer.ops._layout import dense, empty_as, empty_step_as, is_dense
from spikevideoformer.ops._numba.compile import KIND, SERIAL, Arguments, compile_kernel, jit
from spikevideoformer.ops._numba.threads import run, thread_count
from spikevideoformer.ops._numba.vector import (
    FLOAT32,
    ITEM_BYTES,
    LANES,
    add_to_float64,
    both,
    divide,
    fma,
    load,
    magnitude,
    prefetch_to_read,
    prefetch_to_write,
    round_to_even,
    splat,
    splat_double_at,
    store,
    store_truth,
    take_part,
    two_to_the,
    where,
)
from spikevideoformer.ops.neuron_config import NeuronConfig

ABSENT = -1
MULTIPLY, DIVIDE, PLAIN = range(3)  # H = V + (X - V) * (1/tau); ... / tau; beta * V + X
HARD, SOFT, INTEGER, INTEGER_UP = range(4)  # what firing does; the last rounds halves up
SIGMOID, ARCTAN, TRIANGLE = range(3)
SURROGATE = {"sigmoid": SIGMOID, "arctan": ARCTAN, "triangle": TRIANGLE}
USUAL = (MULTIPLY, 0, HARD, SIGMOID, 1)
CHUNK = 1024  # neurons that are run through time together


# --- One row of a chunk ---------------------------------------------------------------------------


@jit
def _fill(address, value, n):
    wide = splat(value, LANES)
    whole = n - n % LANES
    for i in range(0, whole, LANES):
        store(address, i, wide, FLOAT32)
    for i in range(whole, n):
        store(address, i, value, FLOAT32)


@jit
def _copy(target, source, n):
    whole = n - n % LANES
    for i in range(0, whole, LANES):
        store(target, i, load(source, i, FLOAT32, LANES), FLOAT32)
    for i in range(whole, n):
        store(target, i, load(source, i, FLOAT32, 1), FLOAT32)


@jit
def _fill_tiles(tile, rows, count, r, n, chunk, channels, inner):
    """Tiles of the first ``count`` of three rows of values, one after the other.

    ``tile[i]`` = value of the channel of the neuron at place ``r + i`` of a time step.
    """
    for k in range(count):
        values = rows[k]
        at, stop = tile + 4 * k * chunk, tile + 4 * (k * chunk + n)
        if inner == 1:
            c = r % channels
            while at < stop:
                length = min((stop - at) // 4, channels - c)
                _copy(at, values + 4 * c, length)
                at += 4 * length
                c = 0
        else:
            c = (r // inner) % channels
            length = min(n, inner - r % inner)
            while at < stop:
                _fill(at, load(values, c, FLOAT32, 1), length)
                at += 4 * length
                length = min((stop - at) // 4, inner)
                c = 0 if c + 1 == channels else c + 1


# What a neuron does comes as one tuple: its constants (``_constants``), each in every lane, and its
# form, five integers (charge, rest, fire, surrogate, detach). Branches on them cost little beside
# memory; for the usual neuron the form is a constant of the kernel, and the branches are gone (but
# backward on bfloat16, where they cost nothing).


@jit
def _charge(v, y, neuron):
    """H from V and Y: the operations of ``ops/lif.py::_charge`` in their order."""
    constants, form = neuron
    tau, beta, resting = constants[0], constants[1], constants[4]
    rest = form[1]
    gap = v
    if rest:
        gap = v - resting
    if form[0] == MULTIPLY:
        return v + (y - gap) * tau
    if form[0] == DIVIDE:
        return v + divide(y - gap, tau)
    h = beta * gap + y
    if rest:
        h = h + resting
    return h


@jit
def _units(h, neuron):
    """Spikes 0..D of an Integer-LIF."""
    constants, form = neuron
    theta, zero, top = constants[2], constants[5], constants[6]
    z = divide(h, theta)
    units = round_to_even(z)
    if form[2] == INTEGER_UP:
        # z - units is 1/2 where a tie went down to the even integer, and never more
        units = units + where(z - units >= constants[11], constants[12], zero)
    return where(units < zero, zero, where(top < units, top, units))


@jit
def _after(h, neuron):
    """V from H."""
    constants, form = neuron
    theta = constants[2]
    if form[2] >= INTEGER:
        return h - theta * _units(h, neuron)
    if form[2] == HARD:
        return where(h >= theta, constants[3], h)
    return where(h >= theta, h - theta, h)


def _make_step(width, x_kind, spike_kind, residual_kind, y_kind, affine):
    """``width`` neighbours, one time step."""
    with_residual = residual_kind != ABSENT

    @jit
    def step(i, x, scale, shift, residual, y_out, v_at, spikes, neuron):
        constants, form = neuron
        y = load(x, i, x_kind, width)
        if affine:
            y = fma(y, load(scale, i, FLOAT32, width), load(shift, i, FLOAT32, width))
        if with_residual:
            y = y + load(residual, i, residual_kind, width)
            store(y_out, i, y, y_kind)
            if y_kind != FLOAT32:  # what is integrated is what is kept
                y = load(y_out, i, y_kind, width)
        h = _charge(load(v_at, i, FLOAT32, width), y, neuron)
        if form[2] >= INTEGER:
            store(spikes, i, _units(h, neuron), spike_kind)
        else:
            store_truth(spikes, i, h >= constants[2], spike_kind)
        store(v_at, i, _after(h, neuron), FLOAT32)

    return step


# --- A whole tensor -------------------------------------------------------------------------------


@jit
def _constants(params, width):
    """Of a neuron; in every lane.

    tau (or 1/tau), beta, theta, v after a spike, v at rest, 0, D, theta D, and of the surrogate
    alpha, alpha / 2, pi alpha / 2; 1/2, 1.
    """
    return (
        splat_double_at(params, 0, width),
        splat_double_at(params, 1, width),
        splat_double_at(params, 2, width),
        splat_double_at(params, 3, width),
        splat_double_at(params, 4, width),
        splat(np.float32(0), width),
        splat_double_at(params, 5, width),
        splat_double_at(params, 6, width),
        splat_double_at(params, 7, width),
        splat_double_at(params, 8, width),
        splat_double_at(params, 9, width),
        splat(np.float32(0.5), width),
        splat(np.float32(1), width),
    )


@cache
def _forward_kernel(
    x_kind: int,
    spike_kind: int,
    residual_kind: int,
    y_kind: int,
    affine: bool,
    usual: bool,
) -> tuple[Any, int]:
    with_residual = residual_kind != ABSENT
    x_bytes, spike_bytes, y_bytes = ITEM_BYTES[x_kind], ITEM_BYTES[spike_kind], ITEM_BYTES[y_kind]
    residual_bytes = ITEM_BYTES[max(residual_kind, 0)]
    variant = (x_kind, spike_kind, residual_kind, y_kind, affine)
    wide, narrow = _make_step(LANES, *variant), _make_step(1, *variant)
    line = 64 // spike_bytes  # spikes in a cache line

    @jit
    def row(
        n, x, scale, shift, residual, y, v, spikes, neuron, narrow_neuron,
        next_x, next_residual, next_spikes, next_y,
    ):  # fmt: skip
        whole = n - n % LANES
        blocks = n - n % 64
        for start in range(0, blocks, 64):
            # the next row starts far from here, where no hardware foresees it
            for j in range(start, start + 64, 64 // x_bytes):
                prefetch_to_read(next_x + j * x_bytes)
            for j in range(start, start + 64, line):
                prefetch_to_write(next_spikes + j * spike_bytes)
            if with_residual:
                for j in range(start, start + 64, 64 // residual_bytes):
                    prefetch_to_read(next_residual + j * residual_bytes)
                for j in range(start, start + 64, 64 // y_bytes):
                    prefetch_to_write(next_y + j * y_bytes)
            for i in range(start, start + 64, LANES):
                wide(i, x, scale, shift, residual, y, v, spikes, neuron)
        for i in range(blocks, whole, LANES):
            wide(i, x, scale, shift, residual, y, v, spikes, neuron)
        for i in range(whole, n):
            narrow(i, x, scale, shift, residual, y, v, spikes, narrow_neuron)

    def kernel(a):
        parts, steps, size, chunk = a[1], a[2], a[3], a[4]
        channels, inner = a[5], a[6]
        x_start, x_step, residual_start, residual_step = a[7], a[8], a[9], a[10]
        spikes_start, y_start, v_init, v_start = a[11], a[12], a[13], a[14]
        scales, shifts, params = a[15], a[16], a[18]
        form = USUAL if usual else (a[19], a[20], a[21], a[22], a[23])
        scalars = _constants(params, 1)
        neuron, narrow_neuron = (_constants(params, LANES), form), (scalars, form)
        chunks = (size + chunk - 1) // chunk
        part = take_part(a)
        while part < parts:
            scale = a[17] + part * (8 * chunk)
            shift = scale + 4 * chunk
            r = chunks * part // parts * chunk
            stop = min(chunks * (part + 1) // parts * chunk, size)
            same_tile, filled = inner == 1 and chunk % channels == 0, False
            while r < stop:
                n = min(chunk, stop - r)
                if affine and not (same_tile and filled):
                    _fill_tiles(scale, (scales, shifts, 0), 2, r, n, chunk, channels, inner)
                    filled = True
                v = v_start + 4 * r
                if v_init != 0:
                    _copy(v, v_init + 4 * r, n)
                else:
                    _fill(v, scalars[4], n)
                for t in range(steps):
                    # what comes after this row: the next step, or the next chunk's first one
                    last = t + 1 == steps
                    following = min(r + n, size - n) if last else r + t * size + size
                    next_x = following if last else r + t * x_step + x_step
                    next_residual = following if last else r + t * residual_step + residual_step
                    row(
                        n,
                        x_start + (t * x_step + r) * x_bytes,
                        scale,
                        shift,
                        residual_start + (t * residual_step + r) * residual_bytes,
                        y_start + (t * size + r) * y_bytes,
                        v,
                        spikes_start + (t * size + r) * spike_bytes,
                        neuron,
                        narrow_neuron,
                        x_start + next_x * x_bytes,
                        residual_start + next_residual * residual_bytes,
                        spikes_start + following * spike_bytes,
                        y_start + following * y_bytes,
                    )
                r += n
            part = take_part(a)

    return compile_kernel(kernel, "forward", usual, *variant)


# --- Backward -------------------------------------------------------------------------------------


def _make_slope(width):
    """dS/dH, as ``ops/surrogate.py`` has it."""

    @jit
    def exponential(z):
        """exp(z) for z <= 0 to about an ulp (Cody-Waite reduction, polynomial of degree 6)."""
        z = where(z < splat(np.float32(-87), width), splat(np.float32(-87), width), z)
        k = round_to_even(z * splat(np.float32(1.4426950408889634), width))
        r = fma(k, splat(np.float32(-0.693359375), width), z)
        r = fma(k, splat(np.float32(2.12194440e-4), width), r)
        p = splat(np.float32(1 / 720), width)
        p = fma(p, r, splat(np.float32(1 / 120), width))
        p = fma(p, r, splat(np.float32(1 / 24), width))
        p = fma(p, r, splat(np.float32(1 / 6), width))
        p = fma(p, r, splat(np.float32(1 / 2), width))
        p = fma(p, r, splat(np.float32(1), width))
        p = fma(p, r, splat(np.float32(1), width))
        return p * two_to_the(k)

    @jit
    def slope_of(h, neuron):
        constants, form = neuron
        zero, one = constants[5], splat(np.float32(1), width)
        if form[2] >= INTEGER:
            inside = both(h >= zero, h <= constants[7])
            return divide(where(inside, one, zero), constants[2])
        x = h - constants[2]
        if form[3] == SIGMOID:  # s (1 - s) = e / (1 + e)^2 with e = exp(-|alpha x|)
            e = exponential(zero - magnitude(constants[8] * x))
            return divide(constants[8] * e, (one + e) * (one + e))
        if form[3] == ARCTAN:
            u = constants[10] * x
            return divide(constants[9], one + u * u)
        u = one - constants[8] * magnitude(x)
        return constants[8] * where(u < zero, zero, u)

    return slope_of


def _make_replay(width, source_kind, affine):
    """One step of the forward pass that keeps H and no spikes."""

    @jit
    def replay(i, source, scale, shift, h_at, v_at, neuron):
        y = load(source, i, source_kind, width)
        if affine:
            y = fma(y, load(scale, i, FLOAT32, width), load(shift, i, FLOAT32, width))
        h = _charge(load(v_at, i, FLOAT32, width), y, neuron)
        store(h_at, i, h, FLOAT32)
        store(v_at, i, _after(h, neuron), FLOAT32)

    return replay


def _make_back_step(
    width, x_kind, above_kind, y_above_kind, out_y_kind, out_x_kind, sums
):  # fmt: skip
    """One step back: from the gradients of S[t] and V[t] to those of Y[t] and V[t-1]."""
    slope_of = _make_slope(width)

    @jit
    def step(i, h_at, above, y_above, later, x, out_y, out_x, tiles, chunk, neuron):
        constants, form = neuron
        h = load(h_at, i, FLOAT32, width)
        one = splat(np.float32(1), width)
        slope = slope_of(h, neuron)
        through = one  # dV/dH
        if form[2] == HARD:
            through = where(h < constants[2], one, constants[5])
            if not form[4]:
                through = through + (constants[3] - h) * slope
        elif not form[4]:
            through = one - constants[2] * slope
        g = slope * load(above, i, above_kind, width)
        g = g + through * load(later, i, FLOAT32, width)
        store(later, i, g * constants[1], FLOAT32)
        if form[0] == MULTIPLY:
            g = g * constants[0]
        elif form[0] == DIVIDE:
            g = divide(g, constants[0])
        if y_above_kind != ABSENT:
            g = g + load(y_above, i, y_above_kind, width)
        if out_y_kind != ABSENT:
            store(out_y, i, g, out_y_kind)
        if out_x_kind != ABSENT:
            store(out_x, i, g * load(tiles, i, FLOAT32, width), out_x_kind)
        if sums:
            centred = load(x, i, x_kind, width) - load(tiles, i + 2 * chunk, FLOAT32, width)
            store(tiles, i + 3 * chunk, load(tiles, i + 3 * chunk, FLOAT32, width) + g, FLOAT32)
            total = load(tiles, i + 4 * chunk, FLOAT32, width) + g * centred
            store(tiles, i + 4 * chunk, total, FLOAT32)

    return step


@jit
def _add_up(sums, tile, lanes, r, n, channels, inner):
    """Add a tile to the float64 sums of its channels."""
    c = (r // inner) % channels
    if inner == 1:
        for i in range(n):
            add_to_float64(sums, c, np.float64(load(tile, i, FLOAT32, 1)))
            c = 0 if c + 1 == channels else c + 1
        return
    length = min(n, inner - r % inner)
    while n > 0:
        whole = length - length % LANES
        total = splat(np.float32(0), LANES)
        for i in range(0, whole, LANES):
            total = total + load(tile, i, FLOAT32, LANES)
        store(lanes, 0, total, FLOAT32)
        single = 0.0
        for i in range(LANES):
            single += np.float64(load(lanes, i, FLOAT32, 1))
        for i in range(whole, length):
            single += np.float64(load(tile, i, FLOAT32, 1))
        add_to_float64(sums, c, single)
        tile += 4 * length
        n -= length
        length = min(n, inner)
        c = 0 if c + 1 == channels else c + 1


@cache
def _backward_kernel(
    x_kind: int,
    y_kind: int,
    above_kind: int,
    y_above_kind: int,
    out_y_kind: int,
    out_x_kind: int,
    affine: bool,
    usual: bool,
) -> tuple[Any, int]:
    from_y = y_kind != ABSENT
    source_kind = y_kind if from_y else x_kind
    x_bytes, above_bytes = ITEM_BYTES[x_kind], ITEM_BYTES[above_kind]
    source_bytes = ITEM_BYTES[source_kind]
    y_above_bytes, out_y_bytes, out_x_bytes = (
        ITEM_BYTES[max(kind, 0)] for kind in (y_above_kind, out_y_kind, out_x_kind)
    )
    writes_y, writes_x = out_y_kind != ABSENT, out_x_kind != ABSENT
    replayed = (source_kind, affine and not from_y)
    wide_replay, narrow_replay = _make_replay(LANES, *replayed), _make_replay(1, *replayed)
    variant = (x_kind, above_kind, y_above_kind, out_y_kind, out_x_kind, affine)
    wide_step, narrow_step = _make_back_step(LANES, *variant), _make_back_step(1, *variant)

    @jit
    def replay_row(n, source, scale, shift, h, v, neuron, narrow_neuron):
        whole = n - n % LANES
        for i in range(0, whole, LANES):
            wide_replay(i, source, scale, shift, h, v, neuron)
        for i in range(whole, n):
            narrow_replay(i, source, scale, shift, h, v, narrow_neuron)

    @jit
    def back_row(
        n, h, above, y_above, later, x, out_y, out_x, tiles, chunk,
        neuron, narrow_neuron, next_y, next_x,
    ):  # fmt: skip
        whole = n - n % LANES
        for i in range(0, whole, LANES):
            if writes_y:
                prefetch_to_write(next_y + i * out_y_bytes)
            if writes_x:
                prefetch_to_write(next_x + i * out_x_bytes)
            wide_step(i, h, above, y_above, later, x, out_y, out_x, tiles, chunk, neuron)
        for i in range(whole, n):
            narrow_step(i, h, above, y_above, later, x, out_y, out_x, tiles, chunk, narrow_neuron)

    def kernel(a):
        parts, steps, size, chunk = a[1], a[2], a[3], a[4]
        channels, inner = a[5], a[6]
        x_start, x_step, y_start, y_step = a[7], a[8], a[9], a[10]
        above_start, above_step, y_above_start, y_above_step = a[11], a[12], a[13], a[14]
        v_above, later_start, out_y_start, out_x_start = a[15], a[16], a[17], a[18]
        v_init, columns = a[19], (a[20], a[21], a[22])  # scales, shifts, centres
        params = a[25]
        form = USUAL if usual else (a[26], a[27], a[28], a[29], a[30])
        scalars = _constants(params, 1)
        neuron, narrow_neuron = (_constants(params, LANES), form), (scalars, form)
        chunks = (size + chunk - 1) // chunk
        source_start, source_step = (y_start, y_step) if from_y else (x_start, x_step)
        same_tile = inner == 1 and chunk % channels == 0
        row = 4 * chunk  # bytes of a tile, or of H of one step
        part = take_part(a)
        while part < parts:
            # scale, shift, centre, sums of g, sums of g (x - centre), V, then H of all steps
            tiles = a[23] + part * (row * (6 + steps))
            v, h = tiles + 5 * row, tiles + 6 * row
            sums = a[24] + part * (16 * channels)
            r = chunks * part // parts * chunk
            stop = min(chunks * (part + 1) // parts * chunk, size)
            filled = False
            while r < stop:
                n = min(chunk, stop - r)
                if affine:
                    if not (same_tile and filled):
                        _fill_tiles(tiles, columns, 3, r, n, chunk, channels, inner)
                        filled = True
                    _fill(tiles + 3 * row, np.float32(0), n)
                    _fill(tiles + 4 * row, np.float32(0), n)
                if v_init != 0:
                    _copy(v, v_init + 4 * r, n)
                else:
                    _fill(v, scalars[4], n)
                for t in range(steps):
                    replay_row(
                        n,
                        source_start + (t * source_step + r) * source_bytes,
                        tiles,
                        tiles + row,
                        h + t * row,
                        v,
                        neuron,
                        narrow_neuron,
                    )
                later = later_start + 4 * r
                if v_above != 0:
                    _copy(later, v_above + 4 * r, n)
                else:
                    _fill(later, np.float32(0), n)
                for back in range(steps):
                    t = steps - 1 - back
                    following = r + t * size - size if t > 0 else r
                    back_row(
                        n,
                        h + t * row,
                        above_start + (t * above_step + r) * above_bytes,
                        y_above_start + (t * y_above_step + r) * y_above_bytes,
                        later,
                        x_start + (t * x_step + r) * x_bytes,
                        out_y_start + (t * size + r) * out_y_bytes,
                        out_x_start + (t * size + r) * out_x_bytes,
                        tiles,
                        chunk,
                        neuron,
                        narrow_neuron,
                        out_y_start + following * out_y_bytes,
                        out_x_start + following * out_x_bytes,
                    )
                if affine:
                    _add_up(sums, tiles + 3 * row, v, r, n, channels, inner)
                    _add_up(sums + 8 * channels, tiles + 4 * row, v, r, n, channels, inner)
                r += n
            part = take_part(a)

    return compile_kernel(kernel, "backward", usual, y_kind, *variant)


@cache
def _combine_kernel(x_kind: int, g_kind: int) -> tuple[Any, int]:
    x_bytes, g_bytes = ITEM_BYTES[x_kind], ITEM_BYTES[g_kind]

    def make(width):
        @jit
        def step(i, x, g, tiles, chunk):
            total = load(tiles, i, FLOAT32, width) * load(x, i, x_kind, width)
            gain = load(tiles, i + chunk, FLOAT32, width)
            total = fma(gain, load(g, i, g_kind, width), total)
            store(g, i, total + load(tiles, i + 2 * chunk, FLOAT32, width), g_kind)

        return step

    wide, narrow = make(LANES), make(1)

    def kernel(a):
        parts, steps, size, chunk = a[1], a[2], a[3], a[4]
        channels, inner = a[5], a[6]
        x_start, x_step, g_start = a[7], a[8], a[9]
        rows = (a[10], a[10] + 4 * channels, a[10] + 8 * channels)
        chunks = (size + chunk - 1) // chunk
        same_tile = inner == 1 and chunk % channels == 0
        part = take_part(a)
        while part < parts:
            tiles = a[11] + part * (12 * chunk)
            r = chunks * part // parts * chunk
            stop = min(chunks * (part + 1) // parts * chunk, size)
            filled = False
            while r < stop:
                n = min(chunk, stop - r)
                if not (same_tile and filled):
                    _fill_tiles(tiles, rows, 3, r, n, chunk, channels, inner)
                    filled = True
                whole = n - n % LANES
                for t in range(steps):
                    x = x_start + (t * x_step + r) * x_bytes
                    g = g_start + (t * size + r) * g_bytes
                    for i in range(0, whole, LANES):
                        wide(i, x, g, tiles, chunk)
                    for i in range(whole, n):
                        narrow(i, x, g, tiles, chunk)
                r += n
            part = take_part(a)

    return compile_kernel(kernel, "combine", x_kind, g_kind)


# --- Tensors --------------------------------------------------------------------------------------


class Layout(NamedTuple):
    """How the neurons of a time step lie in memory.

    Attributes:
        size: neurons of a time step.
        stride: numbers from one time step to the next.
        inner: neighbours in memory that share a channel; 1 for channels-last.
    """

    size: int
    stride: int
    inner: int


@lru_cache(maxsize=4096)
def layout_of(shape: torch.Size, strides: tuple[int, ...]) -> Layout | None:
    """Layout of ``[T, B, C, ...]``; None where a time step is not dense."""
    if not is_dense(shape, strides):
        return None
    size = shape[1:].numel()
    inner = strides[2] if len(shape) > 2 and shape[2] > 1 else size
    return Layout(size, strides[0] if shape[0] > 1 else size, max(inner, 1))


def chunk_length(channels: int, inner: int, limit: int = CHUNK) -> int:
    """Neurons of a chunk, near ``limit``: whole vectors, and whole sets of channels."""
    if inner == 1:
        unit = math.lcm(channels, 64)
        if unit <= 2 * limit:
            return max(limit // unit, 1) * unit
    return limit


class Constants(NamedTuple):
    """A neuron in the form that kernels take."""

    form: tuple[int, int, int, int, int]
    parameters: Any  # ctypes array of float64, kept alive by the cache of ``constants_of``
    address: int


@lru_cache(maxsize=256)
def constants_of(neuron: NeuronConfig) -> Constants:
    """Compile-time choices and run-time constants of a neuron."""
    tau, theta, resting, alpha = neuron.tau, neuron.v_threshold, neuron.v_start, neuron.alpha
    # multiplying by 1/tau rounds as dividing by tau does where 1/tau is a power of two
    exact = math.frexp(tau)[0] == 0.5
    charge = PLAIN if not neuron.decay_input else MULTIPLY if exact else DIVIDE
    fire = SOFT if neuron.v_reset is None else HARD
    if neuron.fires_integers:
        fire = INTEGER_UP if neuron.rounding == "half_up" else INTEGER
    parameters = (ctypes.c_double * 10)(
        1 / tau if charge == MULTIPLY else tau,
        neuron.beta,
        theta,
        resting,
        resting,
        neuron.levels,
        theta * neuron.levels,
        alpha,
        alpha / 2,
        math.pi * alpha / 2,
    )
    surrogate, detach = SURROGATE[neuron.surrogate], int(neuron.detach_reset)
    form = (charge, int(resting != 0), fire, surrogate, detach)
    return Constants(form, parameters, ctypes.addressof(parameters))


def laid_out_as(x: Tensor, other: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """``other`` with the steps of ``x`` (and of ``dtype``): itself where it has them already."""
    dtype = dtype or other.dtype
    strides = x.stride()
    if other.dtype == dtype and (
        other.stride()[1:] == strides[1:]
        or [a for a in zip(other.shape[1:], other.stride()[1:], strict=True) if a[0] != 1]
        == [a for a in zip(x.shape[1:], strides[1:], strict=True) if a[0] != 1]
    ):
        return other
    return empty_as(x, dtype).copy_(other)


def forward(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    residual: Tensor | None,
    v_init: Tensor | None,
    spike_dtype: torch.dtype,
    neuron: NeuronConfig,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Spikes, last membrane and new residual stream; see ``ops/affine_lif.py``.

    ``x`` is float32 or bfloat16.
    """
    layout = layout_of(x.shape, x.stride())
    if layout is None:
        x = x.contiguous()
        layout = layout_of(x.shape, x.stride())
        assert layout is not None
    size, stride, inner = layout
    spikes = empty_as(x, spike_dtype)
    v = empty_step_as(x, torch.float32)
    y = None
    residual_kind, y_kind, residual_at, residual_stride, y_at = ABSENT, FLOAT32, 0, 0, 0
    if residual is not None:
        y = empty_as(x, torch.promote_types(x.dtype, residual.dtype))
        residual = laid_out_as(x, residual)
        residual_kind, y_kind = KIND[residual.dtype], KIND[y.dtype]
        residual_at, y_at = residual.data_ptr(), y.data_ptr()
        residual_stride = residual.stride(0) if x.shape[0] > 1 else size
    if size == 0:
        return spikes, v, y
    if v_init is not None:
        v_init = laid_out_as(x[:1], v_init.unsqueeze(0), torch.float32)
    form, _, constants_at = constants_of(neuron)
    channels, chunk, scale_at, shift_at, tiles_at, threads = 1, CHUNK, 0, 0, 0, 1
    steps = x.shape[0]
    if size * steps > SERIAL:
        threads = thread_count()
    if scale is not None:
        assert shift is not None
        scale, shift = scale.float().contiguous(), shift.float().contiguous()
        channels = x.shape[2]
        chunk = chunk_length(channels, inner)
        tiles = torch.empty(threads * 2 * chunk, dtype=torch.float32)
        scale_at, shift_at, tiles_at = scale.data_ptr(), shift.data_ptr(), tiles.data_ptr()
    kinds = (KIND[x.dtype], KIND[spike_dtype], residual_kind, y_kind)
    usual = form[:3] == USUAL[:3]
    function, address = _forward_kernel(*kinds, scale is not None, usual)
    arguments = Arguments(
        *(0, threads, steps, size, chunk, channels, inner),
        *(x.data_ptr(), stride, residual_at, residual_stride, spikes.data_ptr(), y_at),
        *(_address(v_init), v.data_ptr(), scale_at, shift_at, tiles_at, constants_at, *form),
    )
    run(function, address, arguments, threads)
    return spikes, v, y


def backward(
    grad_spikes: Tensor,
    grad_v: Tensor | None,
    grad_y: Tensor | None,
    x: Tensor,
    y: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    centre: Tensor | None,
    v_init: Tensor | None,
    want_grad_y: bool,
    want_grad_x: bool,
    neuron: NeuronConfig,
) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor | None, Tensor | None]:
    """Gradients; see ``ops/affine_lif.py``."""
    x = dense(x)
    layout = layout_of(x.shape, x.stride())
    assert layout is not None
    size, stride, inner = layout
    steps = x.shape[0]
    want_grad_x = want_grad_x and scale is not None
    # behind a residual and an affine part a network wants both, and there is no kernel for less
    both_grads = y is not None and scale is not None
    out_y = empty_as(x, x.dtype if y is None else y.dtype) if want_grad_y or both_grads else None
    out_x = empty_as(x, x.dtype) if want_grad_x or both_grads else None
    out_v = empty_step_as(x, torch.float32)
    threads = thread_count() if size * steps > SERIAL else 1
    channels = 1 if scale is None else x.shape[2]
    sums = torch.zeros(threads, 2, channels, dtype=torch.float64)  # of each part by itself
    if size > 0:
        # H of all steps, and what is read, stay in the second-level cache
        chunk = chunk_length(channels, inner, min(max(32_768 // steps, 64), CHUNK))
        scratch = torch.empty(threads * chunk * (6 + steps), dtype=torch.float32)
        grad_spikes = laid_out_as(x, grad_spikes)
        grad_y = None if grad_y is None else laid_out_as(x, grad_y)
        y = None if y is None else laid_out_as(x, y)
        if grad_v is not None:
            grad_v = laid_out_as(x[:1], grad_v.unsqueeze(0), torch.float32)
        if v_init is not None:
            v_init = laid_out_as(x[:1], v_init.unsqueeze(0), torch.float32)
        if scale is not None:
            assert shift is not None
            scale, shift = scale.float().contiguous(), shift.float().contiguous()
            centre = torch.zeros_like(scale) if centre is None else centre.float().contiguous()
        constants = constants_of(neuron)
        function, address = _backward_kernel(
            KIND[x.dtype],
            ABSENT if y is None else KIND[y.dtype],
            KIND[grad_spikes.dtype],
            ABSENT if grad_y is None else KIND[grad_y.dtype],
            ABSENT if out_y is None else KIND[out_y.dtype],
            ABSENT if out_x is None else KIND[out_x.dtype],
            scale is not None,
            x.dtype == torch.float32 and constants.form == USUAL,
        )
        arguments = Arguments(
            *(0, threads, steps, size, chunk, channels, inner),
            *(x.data_ptr(), stride, *_time(y), *_time(grad_spikes), *_time(grad_y)),
            *(_address(grad_v), out_v.data_ptr(), _address(out_y), _address(out_x)),
            *(_address(v_init), _address(scale), _address(shift)),
            *(0 if scale is None else _address(centre), scratch.data_ptr()),
            *(sums.data_ptr(), constants.address, *constants.form),
        )
        run(function, address, arguments, threads)
    grad_y, grad_x = out_y if want_grad_y else None, out_x if want_grad_x else None
    if scale is None:
        return grad_y, None, out_v, None, None
    grad_shift, grad_scale = sums[:, 0].sum(0), sums[:, 1].sum(0)
    return grad_y, grad_x, out_v, grad_shift, grad_scale


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _time(x: Tensor | None) -> tuple[int, int]:
    """Address and numbers from one time step to the next."""
    return (0, 0) if x is None else (x.data_ptr(), x.stride(0))


def combine(x: Tensor, grad_y: Tensor, slope: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    """``slope_c * x + gain_c * grad_y + offset_c``, written over ``grad_y``."""
    x = dense(x)
    layout = layout_of(x.shape, x.stride())
    assert layout is not None
    size, stride, inner = layout
    if size == 0:
        return grad_y
    grad_y = laid_out_as(x, grad_y)
    if x.shape[0] > 1 and grad_y.stride(0) != size:
        grad_y = empty_as(x, grad_y.dtype).copy_(grad_y)
    steps, _, channels = x.shape[:3]
    threads = thread_count() if size * steps > SERIAL else 1
    chunk = chunk_length(channels, inner)
    values = torch.stack((slope.float(), gain.float(), offset.float()))
    tiles = torch.empty(threads * 3 * chunk, dtype=torch.float32)
    function, address = _combine_kernel(KIND[x.dtype], KIND[grad_y.dtype])
    arguments = Arguments(
        *(0, threads, steps, size, chunk, channels, inner),
        *(x.data_ptr(), stride, grad_y.data_ptr(), values.data_ptr(), tiles.data_ptr()),
    )
    run(function, address, arguments, threads)
    return grad_y
