# mypy: disable-error-code="no-untyped-def, untyped-decorator, import"
"""Convolutions of byte spikes with int8 weights on tensor cores, summed in int32.

Images lie channels-last, so a convolution is a product of matrices without a copy: rows are
output pixels, columns output channels, and the inner axis runs over the taps of the kernel and,
within a tap, over channels, which are contiguous in spikes and weights alike. What lies outside
the image is masked to zero as it is loaded. Integer sums are exact in any order; each is
multiplied by the step of its output channel, the bias is added, and the result is written once.

Tensor cores multiply signed bytes by signed bytes. Spikes up to 127 are such as they are; larger
ones are taken 128 lower, and 128 times the sum of the weights is added at the end.

A depthwise convolution has nothing to multiply on tensor cores. Its 49 products are added up in
int32 too: sums of int8 weights pass 2^11, where float16 (and bfloat16 far sooner) skips integers.
"""

from collections.abc import Sequence
from math import gcd

import torch
import triton
import triton.language as tl
from torch import Tensor

# Tiles for Hopper: 128 x 128 sums are 64 registers in each thread of two warpgroups, and a stage
# of at most 128 inner elements is 32 KB, so that four of them fit into shared memory. Reckoned,
# not tuned: no such device was at hand.
_ROWS, _COLS, _INNER = 128, 128, 128
_STAGES = 4
_PROGRAMS = 264  # two for each multiprocessor of an H100: below that, tiles are halved
_DEPTHWISE_ROWS, _DEPTHWISE_COLS = 32, 64  # 16 sums and 16 bytes of a load in a thread
_SMALLEST = 32  # inner elements of one int8 instruction
_VECTOR = 16  # bytes that a thread loads at once where channels are a multiple of it


@triton.jit
def _windows(pixels, height, width, out_height, out_width, stride_y, stride_x, pad_y, pad_x,
             tile, BM: tl.constexpr):  # fmt: skip
    """Numbers of output pixels, and row, column and number of the input pixel each begins at."""
    m = tile * BM + tl.arange(0, BM)
    top = m // out_width % out_height * stride_y - pad_y
    left = m % out_width * stride_x - pad_x
    image = (m // (out_width * out_height)).to(tl.int64)
    return m, top, left, (image * height + top) * width + left


@triton.jit
def _inside(m, pixels, y, x, height, width):
    return (m < pixels) & (y >= 0) & (y < height) & (x >= 0) & (x < width)


@triton.jit
def _write(out_ptr, sums, step_ptr, bias_ptr, m, pixels, n, out_channels, BIAS: tl.constexpr):
    known = n < out_channels
    y = sums.to(tl.float32) * tl.load(step_ptr + n, known, other=0.0)[None, :]
    if BIAS:
        y += tl.load(bias_ptr + n, known, other=0.0)[None, :]
    at = m.to(tl.int64)[:, None] * out_channels + n[None, :]
    tl.store(out_ptr + at, y.to(out_ptr.dtype.element_ty), (m < pixels)[:, None] & known[None, :])


@triton.jit
def _dense_kernel(
    spikes_ptr, weight_ptr, step_ptr, bias_ptr, lowered_ptr, out_ptr,
    pixels, height, width, out_height, out_width, stride_y, stride_x, pad_y, pad_x,
    channels, out_channels,
    KH: tl.constexpr, KW: tl.constexpr, UNIT: tl.constexpr, OUT_UNIT: tl.constexpr,
    BIAS: tl.constexpr, LOWER: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    channels *= UNIT  # counted in units: the compiler sees that UNIT divides them, see lif.py
    out_channels *= OUT_UNIT
    tiles = tl.cdiv(out_channels, BN)  # neighbouring programs share their spikes
    pid = tl.program_id(0)
    m, top, left, first = _windows(pixels, height, width, out_height, out_width,
                                   stride_y, stride_x, pad_y, pad_x, pid // tiles, BM)  # fmt: skip
    n = pid % tiles * BN + tl.arange(0, BN)
    blocks = tl.cdiv(channels, BK)
    acc = tl.zeros((BM, BN), tl.int32)
    # one loop over taps and channels, since the compiler overlaps loads of the innermost one
    for k in range(KH * KW * blocks):
        tap = k // blocks
        y, x = tap // KW, tap % KW
        c = k % blocks * BK + tl.arange(0, BK)
        inside = _inside(m, pixels, top + y, left + x, height, width)
        at = (first + (y * width + x)) * channels
        mask = inside[:, None] & (c < channels)[None, :]
        s = tl.load(spikes_ptr + at[:, None] + c[None, :], mask, other=0)
        if LOWER:
            s = s ^ tl.full(s.shape, -128, tl.int8)  # as signed bytes: 128 less, outside too
        at = (n * (KH * KW) + tap) * channels
        mask = (n < out_channels)[None, :] & (c < channels)[:, None]
        w = tl.load(weight_ptr + at[None, :] + c[:, None], mask, other=0)
        acc = tl.dot(s, w, acc, out_dtype=tl.int32)
    if LOWER:
        acc += tl.load(lowered_ptr + n, n < out_channels, other=0)[None, :]
    _write(out_ptr, acc, step_ptr, bias_ptr, m, pixels, n, out_channels, BIAS)


@triton.jit
def _depthwise_kernel(
    spikes_ptr, weight_ptr, step_ptr, bias_ptr, out_ptr,
    pixels, height, width, out_height, out_width, stride_y, stride_x, pad_y, pad_x, channels,
    KH: tl.constexpr, KW: tl.constexpr, UNIT: tl.constexpr, BIAS: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    channels *= UNIT
    tiles = tl.cdiv(channels, BN)
    pid = tl.program_id(0)
    m, top, left, first = _windows(pixels, height, width, out_height, out_width,
                                   stride_y, stride_x, pad_y, pad_x, pid // tiles, BM)  # fmt: skip
    c = pid % tiles * BN + tl.arange(0, BN)
    known = c < channels
    acc = tl.zeros((BM, BN), tl.int32)
    for y in range(KH):
        for x in tl.static_range(KW):
            inside = _inside(m, pixels, top + y, left + x, height, width)
            at = (first + (y * width + x)) * channels
            mask = inside[:, None] & known[None, :]
            s = tl.load(spikes_ptr + at[:, None] + c[None, :], mask, other=0).to(tl.int32)
            w = tl.load(weight_ptr + (y * KW + x) * channels + c, known, other=0).to(tl.int32)
            acc += s * w[None, :]
    _write(out_ptr, acc, step_ptr, bias_ptr, m, pixels, c, channels, BIAS)


@torch.library.custom_op("spikevideoformer::int8_conv", mutates_args=())
def int8_conv(
    spikes: Tensor,
    weight: Tensor,
    step: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    groups: int,
    out_dtype: torch.dtype,
    levels: int,
) -> Tensor:
    """``step * (spikes * weight) + bias`` of each output channel, rounded three times at most.

    The conversion of a sum to float32 rounds above 2^24, the product and the sum once each; what
    comes out in bfloat16 once more.

    Args:
        spikes: 0..``levels``, uint8 ``[N, C, H, W]``; taken without a copy where channels-last.
        weight: int8 ``[C', C/groups, kh, kw]``; without a copy where it lies as
            :func:`arranged` leaves it.
        step: float32 ``[C']``.
        bias: float32 ``[C']``.
        stride: rows and columns.
        padding: zeros on each side, rows and columns.
        groups: 1, or as many as there are channels in and out.
        out_dtype: float32 or bfloat16.
        levels: the largest spike, at most 255. Sums must fit 32 bits.

    Returns:
        ``[N, C', H', W']``, channels-last.

    Raises:
        ValueError: other groups, or more than 2^31 output pixels.
    """
    channels, (out_channels, _, kernel_y, kernel_x) = spikes.shape[1], weight.shape
    out = _empty_out(spikes, weight, stride, padding, out_dtype)
    pixels = out.shape[0] * out.shape[2] * out.shape[3]
    if reason := refuses(channels, out_channels, groups):
        raise ValueError(reason)
    if pixels >= 2**31:
        raise ValueError(f"got {pixels} output pixels; take fewer than 2^31, in several calls")
    if out.numel() == 0:
        return out
    s = spikes.permute(0, 2, 3, 1).contiguous()  # [N, H, W, C]
    sizes = (pixels, *s.shape[1:3], *out.shape[2:], *stride, *padding)
    unit, out_unit = gcd(channels, _VECTOR), gcd(out_channels, _VECTOR)
    # no contraction of the product and the sum: the numbers of the convolution on a CPU
    form = {"KH": kernel_y, "KW": kernel_x, "UNIT": unit, "BIAS": bias is not None,
            "enable_fp_fusion": False}  # fmt: skip
    with torch.cuda.device_of(spikes):
        if groups > 1:
            w = weight.permute(2, 3, 1, 0).contiguous()  # [kh, kw, 1, C]
            rows, cols = _DEPTHWISE_ROWS, min(_DEPTHWISE_COLS, triton.next_power_of_2(channels))
            grid = (triton.cdiv(pixels, rows) * triton.cdiv(channels, cols),)
            _depthwise_kernel[grid](
                s, w, step, bias, out, *sizes, channels // unit, BM=rows, BN=cols, **form
            )
            return out
        w = weight.permute(0, 2, 3, 1).contiguous()  # [C', kh, kw, C]
        lowered = 128 * w.flatten(1).sum(1, dtype=torch.int32) if levels > 127 else None
        rows, cols, inner = _tile(pixels, channels, out_channels)
        grid = (triton.cdiv(pixels, rows) * triton.cdiv(out_channels, cols),)
        _dense_kernel[grid](
            s.view(torch.int8), w, step, bias, lowered, out,
            *sizes, channels // unit, out_channels // out_unit,
            OUT_UNIT=out_unit, LOWER=levels > 127, BM=rows, BN=cols, BK=inner,
            num_warps=8 if rows * cols > 64 * 128 else 4, num_stages=_STAGES, **form,
        )  # fmt: skip
    return out


@int8_conv.register_fake
def _(
    spikes: Tensor,
    weight: Tensor,
    step: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    groups: int,
    out_dtype: torch.dtype,
    levels: int,
) -> Tensor:
    return _empty_out(spikes, weight, stride, padding, out_dtype)


def refuses(channels: int, out_channels: int, groups: int) -> str | None:
    """Why there is no kernel for such groups; None where there is."""
    if groups == 1 or groups == channels == out_channels:
        return None
    return (
        f"groups is {groups} for {channels} channels in and {out_channels} out; on CUDA choose 1, "
        "or as many as there are channels in and out"
    )


def arranged(weight: Tensor) -> Tensor:
    """The same weights ``[C', C/groups, kh, kw]``, in the memory order in which they are read."""
    if weight.shape[1] == 1:
        return weight.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)
    return weight.contiguous(memory_format=torch.channels_last)


def _empty_out(
    spikes: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    out_dtype: torch.dtype,
) -> Tensor:
    size = (
        (length + 2 * pad - kernel) // step + 1
        for length, pad, kernel, step in zip(
            spikes.shape[2:], padding, weight.shape[2:], stride, strict=True
        )
    )
    shape = (spikes.shape[0], weight.shape[0], *size)
    return torch.empty(
        shape, dtype=out_dtype, device=spikes.device, memory_format=torch.channels_last
    )


def _tile(pixels: int, channels: int, out_channels: int) -> tuple[int, int, int]:
    """Rows and columns of a program, and the inner elements it takes at once."""
    cols = min(_COLS, max(_SMALLEST, triton.next_power_of_2(out_channels)))
    programs = triton.cdiv(pixels, _ROWS) * triton.cdiv(out_channels, cols)
    rows = _ROWS if programs >= _PROGRAMS else _ROWS // 2
    # the largest of those that read the fewest masked channels
    sizes = (_INNER, _INNER // 2, _SMALLEST)
    inner = min(sizes, key=lambda size: triton.cdiv(channels, size) * size)
    return rows, cols, inner
