# mypy: disable-error-code="no-untyped-def, untyped-decorator, import, assignment, var-annotated"
# ruff: noqa: RUF005 - Triton adds tuples up, it does not unpack them
"""Affine, residual and neuron over time in one kernel, forward and backward.

Only time is recurrent, so one program owns a tile of neurons and walks through the frames with
their membranes in registers: the forward pass reads its input once and writes spikes. The
backward pass saves nothing but that input: it walks forwards again, keeps the membranes of up to
``_STRETCH`` frames in registers, and walks back.

The order of operations is that of ``ops/lif.py`` and contraction is off (``enable_fp_fusion``),
so that spikes are the reference's bit for bit; the one fused multiply-add is the affine part,
which the reference defines that way. A tau or threshold that is no power of two is divided by
with correct rounding, as the reference on a CPU does.

A step is seen as a dense matrix ``[rows, cols]``: with channels last, a row is a pixel and the
columns are channels; otherwise a row is one channel of one clip and the columns are its pixels.
"""

import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from spikevideoformer.ops._layout import dense, empty_as, empty_step_as
from spikevideoformer.ops.neuron_config import NeuronConfig

# Tiles. 8 elements in a thread and 4 frames loaded ahead: 64 or 128 bytes in flight in each thread
# with 40 to 90 registers, several times what hides the latency of HBM3. The backward pass keeps
# the membranes of a stretch of frames in registers, so it has 8 bytes of input in a thread. A small
# layer is cut into smaller tiles, down to one warp each, so that every multiprocessor has work.
_FORWARD_ELEMENTS = 8
_BACKWARD_BYTES = 8
_WARPS = 4
_PROGRAMS = 1024  # enough for the 132 multiprocessors of an H100 or H200
_AHEAD = 4
_STRETCH = 16  # frames whose membranes a thread keeps; longer clips go in stretches


# ---- kernels -------------------------------------------------------------------------------------


@triton.jit
def _divide(x, DIVISOR: tl.constexpr, IS_POWER_OF_TWO: tl.constexpr):
    if IS_POWER_OF_TWO:
        return x * (1.0 / DIVISOR)
    else:
        return tl.div_rn(x, tl.full(x.shape, DIVISOR, tl.float32))


@triton.jit
def _charge(v, y, TAU: tl.constexpr, EXACT_TAU: tl.constexpr, BETA: tl.constexpr,
            REST: tl.constexpr, DECAY: tl.constexpr):  # fmt: skip
    gap = v - REST if REST != 0.0 else v
    if DECAY:
        return v + _divide(y - gap, TAU, EXACT_TAU)
    elif REST != 0.0:
        return gap * BETA + y + REST
    else:
        return gap * BETA + y


@triton.jit
def _fire(h, THETA: tl.constexpr, EXACT_THETA: tl.constexpr, LEVELS: tl.constexpr,
          INTEGER: tl.constexpr, HALF_UP: tl.constexpr):  # fmt: skip
    if INTEGER:
        # clamp and round commute here; 1.5 * 2^23 rounds what is small to the even integer
        z = tl.clamp(_divide(h, THETA, EXACT_THETA), 0.0, LEVELS, tl.PropagateNan.ALL)
        s = (z + 12582912.0) - 12582912.0
        if HALF_UP:  # 1/2 where a tie went down to the even integer, and never more
            s += tl.where(z - s >= 0.5, 1.0, 0.0)
        return s
    else:
        return h >= THETA


@triton.jit
def _after(h, s, THETA: tl.constexpr, REST: tl.constexpr, INTEGER: tl.constexpr,
           HARD: tl.constexpr):  # fmt: skip
    if INTEGER:
        return h - s * THETA
    elif HARD:
        return tl.where(s, REST, h)
    else:
        return tl.where(s, h - THETA, h)


@triton.jit
def _store_spikes(at, s, mask):
    if at.dtype.element_ty.is_floating():
        s = s.to(tl.float32)
    tl.store(at, s.to(at.dtype.element_ty), mask)


@triton.jit
def _slope(h, THETA: tl.constexpr, LEVELS: tl.constexpr, INTEGER: tl.constexpr,
           SURROGATE: tl.constexpr, ALPHA: tl.constexpr):  # fmt: skip
    if INTEGER:
        return tl.where((h >= 0.0) & (h <= THETA * LEVELS), 1.0 / THETA, 0.0)
    else:
        d = h - THETA
        if SURROGATE == "sigmoid":
            # even in d, and in this form nothing overflows
            e = tl.exp(-ALPHA * tl.abs(d))
            return ALPHA * e / ((1.0 + e) * (1.0 + e))
        elif SURROGATE == "arctan":
            z = d * (1.5707963267948966 * ALPHA)
            return (ALPHA / 2) / (1.0 + z * z)
        else:
            return ALPHA * tl.maximum(1.0 - ALPHA * tl.abs(d), 0.0)


@triton.jit
def _tile(rows, cols, channels, UNIT: tl.constexpr, CHANNEL_IS_COL: tl.constexpr,
          BM: tl.constexpr, BN: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """Offsets, mask and channels of this program's tile; ``cols`` counts units of UNIT."""
    n = cols * UNIT  # the compiler sees that UNIT divides it, and takes vector loads
    tiles = tl.cdiv(n, BN)
    pid = tl.program_id(0)
    row = pid // tiles * BM + tl.arange(0, BM)
    if WIDE:
        first = (pid % tiles).to(tl.int64) * BN
        row = row.to(tl.int64)
        n = n.to(tl.int64)
    else:
        first = pid % tiles * BN
    col = first + tl.arange(0, BN)
    offs = row[:, None] * n + col[None, :]
    mask = (row < rows)[:, None] & (col < n)[None, :]
    if CHANNEL_IS_COL:
        channel, known = col[None, :], (col < n)[None, :]
    else:
        channel, known = (row % channels)[:, None], (row < rows)[:, None]
    return offs, mask, channel, known


_SIZES = ["frames", "rows", "cols", "channels", "x_step", "step"]


@triton.jit
def _in_time(mask, t, frames):
    # a block, since the interpreter does not spread a scalar condition
    return tl.full(mask.shape, 0, tl.int32) + t < frames


@triton.jit(do_not_specialize=[*_SIZES, "residual_step"])
def _forward_kernel(
    x_ptr, scale_ptr, shift_ptr, residual_ptr, v_init_ptr, spikes_ptr, v_ptr, y_ptr,
    frames, rows, cols, channels, x_step, residual_step, step,
    TAU: tl.constexpr, EXACT_TAU: tl.constexpr, BETA: tl.constexpr, REST: tl.constexpr,
    DECAY: tl.constexpr, THETA: tl.constexpr, EXACT_THETA: tl.constexpr, LEVELS: tl.constexpr,
    INTEGER: tl.constexpr, HALF_UP: tl.constexpr, HARD: tl.constexpr,
    AFFINE: tl.constexpr, RESIDUAL: tl.constexpr, V_INIT: tl.constexpr, V_OUT: tl.constexpr,
    UNIT: tl.constexpr, STEP_UNIT: tl.constexpr, CHANNEL_IS_COL: tl.constexpr, WIDE: tl.constexpr,
    AHEAD: tl.constexpr, EVEN: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    offs, mask, channel, known = _tile(rows, cols, channels, UNIT, CHANNEL_IS_COL, BM, BN, WIDE)
    x_step = (x_step * STEP_UNIT).to(tl.int64)  # steps count units too
    residual_step = (residual_step * STEP_UNIT).to(tl.int64)
    step = (step * STEP_UNIT).to(tl.int64)
    a = 0.0
    b = 0.0
    if AFFINE:
        a = tl.load(scale_ptr + channel, known, other=0.0).to(tl.float32)
        b = tl.load(shift_ptr + channel, known, other=0.0).to(tl.float32)
    if V_INIT:
        v = tl.load(v_init_ptr + offs, mask, other=0.0).to(tl.float32)
    else:
        v = tl.full((BM, BN), REST, tl.float32)
    for t0 in range(0, frames, AHEAD):
        # all loads of AHEAD frames first, so that they are in flight together
        xs = ()
        rs = ()
        for k in tl.static_range(AHEAD):
            there = mask if EVEN else mask & _in_time(mask, t0 + k, frames)
            xs = xs + (tl.load(x_ptr + k * x_step + offs, there, other=0.0),)
            if RESIDUAL:
                rs = rs + (tl.load(residual_ptr + k * residual_step + offs, there, other=0.0),)
        for k in tl.static_range(AHEAD):
            there = mask if EVEN else mask & _in_time(mask, t0 + k, frames)
            y = xs[k].to(tl.float32)
            if AFFINE:
                y = tl.fma(y, a, b)
            if RESIDUAL:
                # what is stored is integrated: the backward pass starts from it
                stored = (y + rs[k].to(tl.float32)).to(y_ptr.dtype.element_ty)
                tl.store(y_ptr + k * step + offs, stored, there)
                y = stored.to(tl.float32)
            h = _charge(v, y, TAU, EXACT_TAU, BETA, REST, DECAY)
            s = _fire(h, THETA, EXACT_THETA, LEVELS, INTEGER, HALF_UP)
            after = _after(h, s, THETA, REST, INTEGER, HARD)
            v = after if EVEN else tl.where(there, after, v)
            _store_spikes(spikes_ptr + k * step + offs, s, there)
        x_ptr += AHEAD * x_step
        if RESIDUAL:
            residual_ptr += AHEAD * residual_step
            y_ptr += AHEAD * step
        spikes_ptr += AHEAD * step
    if V_OUT:
        tl.store(v_ptr + offs, v, mask)


@triton.jit(do_not_specialize=[*_SIZES, "y_step", "grad_spikes_step", "grad_y_step"])
def _backward_kernel(
    x_ptr, y_ptr, scale_ptr, shift_ptr, centre_ptr, v_init_ptr, scratch_ptr,
    grad_spikes_ptr, grad_v_ptr, grad_y_ptr,
    grad_x_ptr, grad_g_ptr, grad_v_init_ptr, sum_g_ptr, sum_gx_ptr,
    frames, rows, cols, channels, x_step, y_step, grad_spikes_step, grad_y_step, step,
    TAU: tl.constexpr, EXACT_TAU: tl.constexpr, BETA: tl.constexpr, REST: tl.constexpr,
    DECAY: tl.constexpr, THETA: tl.constexpr, EXACT_THETA: tl.constexpr, LEVELS: tl.constexpr,
    INTEGER: tl.constexpr, HALF_UP: tl.constexpr, HARD: tl.constexpr,
    SURROGATE: tl.constexpr, ALPHA: tl.constexpr, DETACH: tl.constexpr,
    AFFINE: tl.constexpr, FROM_Y: tl.constexpr, CENTRE: tl.constexpr, V_INIT: tl.constexpr,
    GRAD_V: tl.constexpr, GRAD_Y: tl.constexpr, WRITE_X: tl.constexpr,
    WRITE_G: tl.constexpr, WRITE_V_INIT: tl.constexpr, SUMS: tl.constexpr,
    UNIT: tl.constexpr, STEP_UNIT: tl.constexpr, CHANNEL_IS_COL: tl.constexpr, WIDE: tl.constexpr,
    AHEAD: tl.constexpr, STRETCH: tl.constexpr, STRETCHES: tl.constexpr, EVEN: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    offs, mask, channel, known = _tile(rows, cols, channels, UNIT, CHANNEL_IS_COL, BM, BN, WIDE)
    x_step = (x_step * STEP_UNIT).to(tl.int64)
    y_step = (y_step * STEP_UNIT).to(tl.int64)
    grad_spikes_step = (grad_spikes_step * STEP_UNIT).to(tl.int64)
    grad_y_step = (grad_y_step * STEP_UNIT).to(tl.int64)
    step = (step * STEP_UNIT).to(tl.int64)
    a = 0.0
    b = 0.0
    if AFFINE:
        a = tl.load(scale_ptr + channel, known, other=0.0).to(tl.float32)
        b = tl.load(shift_ptr + channel, known, other=0.0).to(tl.float32)
    if CENTRE:
        centre = tl.load(centre_ptr + channel, known, other=0.0).to(tl.float32)
    if V_INIT:
        v = tl.load(v_init_ptr + offs, mask, other=0.0).to(tl.float32)
    else:
        v = tl.full((BM, BN), REST, tl.float32)

    if STRETCHES > 1:
        # a first walk leaves the membrane before each later stretch in scratch
        for t0 in range(0, (STRETCHES - 1) * STRETCH, AHEAD):
            zs = ()
            for k in tl.static_range(AHEAD):
                at = y_ptr + (t0 + k) * y_step if FROM_Y else x_ptr + (t0 + k) * x_step
                zs = zs + (tl.load(at + offs, mask, other=0.0),)
            for k in tl.static_range(AHEAD):
                y = zs[k].to(tl.float32)
                if AFFINE and not FROM_Y:
                    y = tl.fma(y, a, b)
                h = _charge(v, y, TAU, EXACT_TAU, BETA, REST, DECAY)
                s = _fire(h, THETA, EXACT_THETA, LEVELS, INTEGER, HALF_UP)
                v = _after(h, s, THETA, REST, INTEGER, HARD)
            if (t0 + AHEAD) % STRETCH == 0:
                tl.store(scratch_ptr + ((t0 + AHEAD) // STRETCH - 1) * step + offs, v, mask)
        tl.debug_barrier()

    if GRAD_V:
        later = tl.load(grad_v_ptr + offs, mask, other=0.0).to(tl.float32)
        if BETA != 0.0:
            later = later / BETA
    else:
        later = tl.zeros((BM, BN), tl.float32)
    sum_g = tl.zeros((BM, BN), tl.float32)
    sum_gx = tl.zeros((BM, BN), tl.float32)

    for stretch in range(STRETCHES):
        first = (STRETCHES - 1 - stretch) * STRETCH
        if STRETCHES > 1:
            if first > 0:
                v = tl.load(
                    scratch_ptr + ((STRETCHES - 2 - stretch) * step) + offs, mask, other=0.0
                )
            elif V_INIT:
                v = tl.load(v_init_ptr + offs, mask, other=0.0).to(tl.float32)
            else:
                v = tl.full((BM, BN), REST, tl.float32)
        hs = ()
        for k in tl.static_range(STRETCH):
            there = mask if EVEN else mask & _in_time(mask, first + k, frames)
            at = y_ptr + (first + k) * y_step if FROM_Y else x_ptr + (first + k) * x_step
            y = tl.load(at + offs, there, other=0.0).to(tl.float32)
            if AFFINE and not FROM_Y:
                y = tl.fma(y, a, b)
            h = _charge(v, y, TAU, EXACT_TAU, BETA, REST, DECAY)
            s = _fire(h, THETA, EXACT_THETA, LEVELS, INTEGER, HALF_UP)
            v = _after(h, s, THETA, REST, INTEGER, HARD)
            hs = hs + (h,)
        for k0 in tl.static_range(0, STRETCH, AHEAD):
            gs = ()
            xs = ()
            ys = ()
            for j in tl.static_range(AHEAD):
                k = STRETCH - 1 - k0 - j
                there = mask if EVEN else mask & _in_time(mask, first + k, frames)
                at = grad_spikes_ptr + (first + k) * grad_spikes_step + offs
                gs = gs + (tl.load(at, there, other=0.0),)
                if SUMS:
                    at = x_ptr + (first + k) * x_step + offs
                    xs = xs + (tl.load(at, there, other=0.0),)
                if GRAD_Y:
                    at = grad_y_ptr + (first + k) * grad_y_step + offs
                    ys = ys + (tl.load(at, there, other=0.0),)
            for j in tl.static_range(AHEAD):
                k = STRETCH - 1 - k0 - j
                t = first + k
                there = mask if EVEN else mask & _in_time(mask, t, frames)
                h = hs[STRETCH - 1 - k0 - j]
                slope = _slope(h, THETA, LEVELS, INTEGER, SURROGATE, ALPHA)
                if HARD:
                    carry = tl.where(h >= THETA, 0.0, BETA)
                    if not DETACH:
                        carry += BETA * ((REST - h) * slope)
                elif DETACH:
                    carry = BETA if BETA != 0.0 else 1.0  # without memory: the last step only
                else:
                    carry = BETA * (1.0 - THETA * slope)
                back = slope * gs[j].to(tl.float32) + carry * later
                later = back if EVEN else tl.where(there, back, later)
                g = _divide(later, TAU, True) if DECAY else later
                if BETA == 0.0:
                    later = later * 0.0 if EVEN else tl.where(there, 0.0, later)
                if GRAD_Y:
                    g += ys[j].to(tl.float32)
                if not EVEN:
                    g = tl.where(there, g, 0.0)
                if SUMS:
                    sum_g += g
                    x = xs[j].to(tl.float32)
                    sum_gx += g * (x - centre if CENTRE else x)
                if WRITE_G:
                    at = grad_g_ptr + t * step + offs
                    tl.store(at, g.to(grad_g_ptr.dtype.element_ty), there)
                if WRITE_X:
                    if AFFINE:
                        g = a * g
                    at = grad_x_ptr + t * step + offs
                    tl.store(at, g.to(grad_x_ptr.dtype.element_ty), there)
    if WRITE_V_INIT:
        tl.store(grad_v_init_ptr + offs, later * BETA, mask)
    if SUMS:
        # one partial sum for each tile and channel: added up in a fixed order afterwards
        sum_g = tl.where(mask, sum_g, 0.0)
        sum_gx = tl.where(mask, sum_gx, 0.0)
        n = cols * UNIT
        tiles = tl.cdiv(n, BN)
        pid = tl.program_id(0)
        if CHANNEL_IS_COL:  # [tiles over rows, cols]
            col = pid % tiles * BN + tl.arange(0, BN)
            at = (pid // tiles).to(tl.int64) * n + col
            tl.store(sum_g_ptr + at, tl.sum(sum_g, 0), col < n)
            tl.store(sum_gx_ptr + at, tl.sum(sum_gx, 0), col < n)
        else:  # [rows, tiles over cols]
            row = pid // tiles * BM + tl.arange(0, BM)
            at = row.to(tl.int64) * tiles + pid % tiles
            tl.store(sum_g_ptr + at, tl.sum(sum_g, 1), row < rows)
            tl.store(sum_gx_ptr + at, tl.sum(sum_gx, 1), row < rows)


@triton.jit(do_not_specialize=["frames", "rows", "cols", "channels", "x_step", "step"])
def _combine_kernel(
    x_ptr, g_ptr, slope_ptr, gain_ptr, offset_ptr, out_ptr,
    frames, rows, cols, channels, x_step, step,
    UNIT: tl.constexpr, STEP_UNIT: tl.constexpr, CHANNEL_IS_COL: tl.constexpr, WIDE: tl.constexpr,
    AHEAD: tl.constexpr, EVEN: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    offs, mask, channel, known = _tile(rows, cols, channels, UNIT, CHANNEL_IS_COL, BM, BN, WIDE)
    x_step = (x_step * STEP_UNIT).to(tl.int64)
    step = (step * STEP_UNIT).to(tl.int64)
    slope = tl.load(slope_ptr + channel, known, other=0.0)
    gain = tl.load(gain_ptr + channel, known, other=0.0)
    offset = tl.load(offset_ptr + channel, known, other=0.0)
    for t0 in range(0, frames, AHEAD):
        xs = ()
        gs = ()
        for k in tl.static_range(AHEAD):
            there = mask if EVEN else mask & _in_time(mask, t0 + k, frames)
            xs = xs + (tl.load(x_ptr + k * x_step + offs, there, other=0.0),)
            gs = gs + (tl.load(g_ptr + k * step + offs, there, other=0.0),)
        for k in tl.static_range(AHEAD):
            there = mask if EVEN else mask & _in_time(mask, t0 + k, frames)
            out = slope * xs[k].to(tl.float32) + gain * gs[k].to(tl.float32) + offset
            tl.store(out_ptr + k * step + offs, out.to(out_ptr.dtype.element_ty), there)
        x_ptr += AHEAD * x_step
        g_ptr += AHEAD * step
        out_ptr += AHEAD * step


# ---- what the ops call ---------------------------------------------------------------------------


def _constants(neuron: NeuronConfig, backward: bool) -> dict[str, Any]:
    """What the kernels are compiled for."""
    values: dict[str, Any] = {
        "TAU": float(neuron.tau),
        "EXACT_TAU": _is_power_of_two(neuron.tau),
        "BETA": neuron.beta,
        "REST": float(neuron.v_start),
        "DECAY": neuron.decay_input,
        "THETA": float(neuron.v_threshold),
        "EXACT_THETA": _is_power_of_two(neuron.v_threshold),
        "LEVELS": neuron.levels,
        "INTEGER": neuron.fires_integers,
        "HALF_UP": neuron.rounding == "half_up",
        "HARD": neuron.v_reset is not None,
    }
    if backward:
        values |= {
            "SURROGATE": neuron.surrogate,
            "ALPHA": float(neuron.alpha),
            "DETACH": neuron.detach_reset,
        }
    return values


class _Matrix(NamedTuple):
    """A step of ``[B, C, ...]`` as ``[rows, cols]`` in memory, and the tile of one program."""

    rows: int
    cols: int
    channels: int
    channel_is_col: bool
    bm: int
    bn: int
    warps: int

    @property
    def tiles(self) -> tuple[int, int]:
        return -(-self.rows // self.bm), -(-self.cols // self.bn)

    @property
    def grid(self) -> tuple[int]:
        return (math.prod(self.tiles),)

    def sizes(self, frames: int, ahead: int, *steps: int) -> dict[str, Any]:
        """Arguments that say where things lie; ``steps`` are strides of the time axis."""
        unit, step_unit = _unit(self.cols), _unit(*steps)
        return {
            "frames": frames,
            "rows": self.rows,
            "cols": self.cols // unit,
            "channels": self.channels,
            "UNIT": unit,
            "STEP_UNIT": step_unit,
            "CHANNEL_IS_COL": self.channel_is_col,
            "WIDE": (self.rows + self.bm) * (self.cols + self.bn) >= 2**31,
            "AHEAD": ahead,
            "EVEN": frames % ahead == 0,
            "BM": self.bm,
            "BN": self.bn,
        }


def forward(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    residual: Tensor | None,
    v_init: Tensor | None,
    spike_dtype: torch.dtype,
    neuron: NeuronConfig,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Spikes ``[T, ...]``, last membrane in float32, and ``affine(x) + residual`` if there is one.

    ``x`` is ``[T, B, C, ...]``, ``scale`` and ``shift`` are ``[C]``. The results have the memory
    layout of a step of ``x``.
    """
    _check_runs(x)
    x = dense(x)
    matrix = _matrix(x, scale is not None, _FORWARD_ELEMENTS)
    residual = None if residual is None else _laid_out_as(residual, x)
    v_init = None if v_init is None else _laid_out_as(v_init.unsqueeze(0), x)
    spikes = empty_as(x, spike_dtype)
    v = empty_step_as(x, torch.float32)
    y = None if residual is None else empty_as(x, torch.promote_types(x.dtype, residual.dtype))
    frames, step = x.shape[0], x[0].numel()
    x_step = _step(x)
    residual_step = 0 if residual is None else _step(residual)
    sizes = matrix.sizes(frames, min(_AHEAD, frames), x_step, residual_step, step)
    unit = sizes["STEP_UNIT"]
    with torch.cuda.device_of(x):
        _forward_kernel[matrix.grid](
            x, scale, shift, residual, v_init, spikes, v, y,
            x_step=x_step // unit,
            residual_step=residual_step // unit,
            step=step // unit,
            AFFINE=scale is not None,
            RESIDUAL=residual is not None,
            V_INIT=v_init is not None,
            V_OUT=True,
            **sizes,
            **_constants(neuron, backward=False),
            num_warps=matrix.warps,
            enable_fp_fusion=False,
        )  # fmt: skip
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
    """Gradients; ``y`` is what was integrated where that is not ``affine(x)``.

    Returns:
        The gradient of ``y`` ``[T, ...]``, of ``x``, of ``v_init`` and, with ``scale``, those of
        ``shift`` and ``scale`` in float64: sums over g and over ``g * (x - centre)``.
    """
    _check_runs(x)
    x = dense(x)
    sums = scale is not None
    matrix = _matrix(x, sums, _BACKWARD_BYTES // x.element_size())
    frames, step = x.shape[0], x[0].numel()
    grad_spikes = _laid_out_as(grad_spikes, x)
    grad_y = None if grad_y is None else _laid_out_as(grad_y, x)
    y = None if y is None else _laid_out_as(y, x)
    grad_v = None if grad_v is None else _laid_out_as(grad_v.unsqueeze(0), x)
    v_init = None if v_init is None else _laid_out_as(v_init.unsqueeze(0), x)
    stretch = min(_STRETCH, -(-frames // _AHEAD) * _AHEAD)
    stretches = -(-frames // stretch)
    scratch = (
        torch.empty((stretches - 1, step), dtype=torch.float32, device=x.device)
        if stretches > 1
        else None
    )
    out_y = empty_as(x, x.dtype if y is None else y.dtype) if want_grad_y else None
    out_x = empty_as(x, x.dtype) if want_grad_x else None
    out_v = empty_step_as(x, torch.float32)
    partial_shape = (
        (matrix.tiles[0], matrix.cols) if matrix.channel_is_col else (matrix.rows, matrix.tiles[1])
    )
    partial = (
        torch.empty((2, *partial_shape), dtype=torch.float32, device=x.device) if sums else None
    )
    steps = [0 if z is None else _step(z) for z in (x, y, grad_spikes, grad_y)]
    sizes = matrix.sizes(frames, _AHEAD, *steps, step)
    sizes["EVEN"] = frames % stretch == 0
    unit = sizes["STEP_UNIT"]
    with torch.cuda.device_of(x):
        _backward_kernel[matrix.grid](
            x, y, scale, shift, centre, v_init, scratch,
            grad_spikes, grad_v, grad_y, out_x, out_y, out_v,
            None if partial is None else partial[0],
            None if partial is None else partial[1],
            x_step=steps[0] // unit,
            y_step=steps[1] // unit,
            grad_spikes_step=steps[2] // unit,
            grad_y_step=steps[3] // unit,
            step=step // unit,
            AFFINE=scale is not None,
            FROM_Y=y is not None,
            CENTRE=centre is not None,
            V_INIT=v_init is not None,
            GRAD_V=grad_v is not None,
            GRAD_Y=grad_y is not None,
            WRITE_X=want_grad_x,
            WRITE_G=want_grad_y,
            WRITE_V_INIT=True,
            SUMS=sums,
            STRETCH=stretch,
            STRETCHES=stretches,
            **sizes,
            **_constants(neuron, backward=True),
            num_warps=matrix.warps,
            enable_fp_fusion=False,
        )  # fmt: skip
    if partial is None:
        return out_y, out_x, out_v, None, None
    if not matrix.channel_is_col:  # rows are clips x channels
        partial = partial.unflatten(1, (-1, matrix.channels)).transpose(2, 3).flatten(1, 2)
    grad_shift, grad_scale = partial.sum(1, dtype=torch.float64)
    return out_y, out_x, out_v, grad_shift, grad_scale


def combine(x: Tensor, grad_y: Tensor, slope: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    """``slope_c * x + gain_c * grad_y + offset_c``: the second half of a batch norm's backward.

    Args:
        x: input ``[T, B, C, ...]``.
        grad_y: gradient of the normalised input, shaped as ``x``; the result may lie in its memory.
        slope: ``[C]``, like ``gain`` and ``offset`` in float32.
        gain: see there.
        offset: see there.
    """
    _check_runs(x)
    x = dense(x)
    grad_y = _laid_out_as(grad_y, x)
    if _step(grad_y) != x[0].numel():
        grad_y = empty_as(x, grad_y.dtype).copy_(grad_y)
    out = grad_y if grad_y.dtype == x.dtype else empty_as(x, x.dtype)
    matrix = _matrix(x, True, _FORWARD_ELEMENTS)
    frames, step, x_step = x.shape[0], x[0].numel(), _step(x)
    sizes = matrix.sizes(frames, min(_AHEAD, frames), x_step, step)
    unit = sizes["STEP_UNIT"]
    with torch.cuda.device_of(x):
        _combine_kernel[matrix.grid](
            x, grad_y, slope.float(), gain.float(), offset.float(), out,
            x_step=x_step // unit,
            step=step // unit,
            **sizes,
            num_warps=matrix.warps,
        )  # fmt: skip
    return out


def _check_runs(x: Tensor) -> None:
    if not (x.is_cuda or triton.knobs.runtime.interpret):
        raise ValueError(f"the input is on {x.device}; the Triton kernels take CUDA tensors")
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"the input is {x.dtype}; the kernels take float32, bfloat16 and float16")


def _is_power_of_two(value: float) -> bool:
    return math.frexp(value)[0] == 0.5


def _unit(*sizes: int) -> int:
    """Largest power of two up to 16 that divides them all."""
    return math.gcd(16, *sizes)


def _step_strides(x: Tensor) -> list[tuple[int, int]]:
    """Sizes and strides of one step, without axes of one element, whose stride means nothing."""
    axes = zip(x.shape[1:], x.stride()[1:], strict=True)
    return [(size, stride) for size, stride in axes if size > 1]


def _step(x: Tensor) -> int:
    """Stride of the time axis."""
    return x.stride(0) if x.shape[0] > 1 else x[0].numel()


def _laid_out_as(z: Tensor, x: Tensor) -> Tensor:
    """``z`` with the layout of a step of ``x``, copied where it has another."""
    if _step_strides(z) == _step_strides(x):
        return z
    out = empty_as(x[: z.shape[0]], z.dtype)
    return out.copy_(z)


def _matrix(x: Tensor, with_channels: bool, elements: int) -> _Matrix:
    """How programs of so many ``elements`` in each thread cover a step."""
    total = x[0].numel()
    warps = _WARPS
    while warps > 1 and total < _PROGRAMS * warps * 32 * elements:
        warps //= 2
    size = warps * 32 * elements
    channels = x.shape[2] if with_channels else 1
    if channels == 1:
        return _Matrix(1, total, 1, False, 1, size, warps)
    inner = x.stride(2)
    cols = channels if inner == 1 else inner
    if _unit(cols) < 4:
        size //= 2  # no vector accesses: addresses take registers
    rows = total // cols
    bn = min(
        (n for n in (16, 32, 64, 128, 256) if n <= size),
        key=lambda n: (-(-cols // n) * n * -(-rows // (size // n)) * (size // n), -n),
    )
    return _Matrix(rows, cols, channels, inner == 1, size // bn, bn, warps)
