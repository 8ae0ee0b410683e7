# mypy: disable-error-code="no-untyped-def, untyped-decorator, import"
"""Convolutions of byte spikes with int8 weights on tensor cores, summed in int32.

Images lie channels-last, so a convolution is a product of matrices without a copy: rows are
output pixels, columns output channels, and the inner axis runs over the taps of the kernel and,
within a tap, over channels, which are contiguous in spikes and weights alike. What lies outside
the image is masked to zero as it is loaded. Integer sums are exact in any order.

Tensor cores multiply signed bytes by signed bytes. Spikes up to 127 are such as they are; larger
ones are taken 128 lower, and 128 times the sum of the weights is added at the end.
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
_SMALLEST = 32  # inner elements of one int8 instruction
_VECTOR = 16  # bytes that a thread loads at once where channels are a multiple of it


@triton.jit
def _kernel(
    spikes_ptr, weight_ptr, lowered_ptr, out_ptr,
    pixels, height, width, out_height, out_width, stride_y, stride_x, pad_y, pad_x,
    channels, out_channels,
    KH: tl.constexpr, KW: tl.constexpr, UNIT: tl.constexpr, OUT_UNIT: tl.constexpr,
    LOWER: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    channels *= UNIT  # counted in units: the compiler sees that UNIT divides them, see lif.py
    out_channels *= OUT_UNIT
    tiles = tl.cdiv(out_channels, BN)  # neighbouring programs share their spikes
    pid = tl.program_id(0)
    # numbers of output pixels, and row, column and number of the input pixel each begins at
    m = pid // tiles * BM + tl.arange(0, BM)
    top = m // out_width % out_height * stride_y - pad_y
    left = m % out_width * stride_x - pad_x
    image = (m // (out_width * out_height)).to(tl.int64)
    first = (image * height + top) * width + left
    n = pid % tiles * BN + tl.arange(0, BN)
    known = n < out_channels
    blocks = tl.cdiv(channels, BK)
    acc = tl.zeros((BM, BN), tl.int32)
    # one loop over taps and channels, since the compiler overlaps loads of the innermost one
    for k in range(KH * KW * blocks):
        tap = k // blocks
        y, x = tap // KW, tap % KW
        c = k % blocks * BK + tl.arange(0, BK)
        row, col = top + y, left + x
        inside = (m < pixels) & (row >= 0) & (row < height) & (col >= 0) & (col < width)
        at = (first + (y * width + x)) * channels
        mask = inside[:, None] & (c < channels)[None, :]
        s = tl.load(spikes_ptr + at[:, None] + c[None, :], mask, other=0)
        if LOWER:
            s = s ^ tl.full(s.shape, -128, tl.int8)  # as signed bytes: 128 less, outside too
        at = (n * (KH * KW) + tap) * channels
        mask = known[None, :] & (c < channels)[:, None]
        w = tl.load(weight_ptr + at[None, :] + c[:, None], mask, other=0)
        acc = tl.dot(s, w, acc, out_dtype=tl.int32)
    if LOWER:
        acc += tl.load(lowered_ptr + n, known, other=0)[None, :]
    at = m.to(tl.int64)[:, None] * out_channels + n[None, :]
    tl.store(out_ptr + at, acc.to(tl.float32), (m < pixels)[:, None] & known[None, :])


@torch.library.custom_op("spikevideoformer::int8_conv", mutates_args=())
def int8_conv(
    spikes: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], levels: int
) -> Tensor:
    """Sums of weights over spikes, in float32: they are rounded above 2^24.

    Args:
        spikes: 0..``levels``, uint8 ``[N, C, H, W]``; taken without a copy where channels-last.
        weight: int8 ``[C', C, kh, kw]``; without a copy where it lies as :func:`arranged` leaves
            it.
        stride: rows and columns.
        padding: zeros on each side, rows and columns.
        levels: the largest spike, at most 255. Sums must fit 32 bits.

    Returns:
        ``[N, C', H', W']``, channels-last.

    Raises:
        ValueError: more than 2^31 output pixels.
    """
    channels, (out_channels, _, kernel_y, kernel_x) = spikes.shape[1], weight.shape
    out = _empty_out(spikes, weight, stride, padding, levels)
    pixels = out.shape[0] * out.shape[2] * out.shape[3]
    if pixels >= 2**31:
        raise ValueError(f"got {pixels} output pixels; take fewer than 2^31, in several calls")
    if out.numel() == 0:
        return out
    s = spikes.permute(0, 2, 3, 1).contiguous()  # [N, H, W, C]
    w = weight.permute(0, 2, 3, 1).contiguous()  # [C', kh, kw, C]
    lowered = 128 * w.flatten(1).sum(1, dtype=torch.int32) if levels > 127 else None
    unit, out_unit = gcd(channels, _VECTOR), gcd(out_channels, _VECTOR)
    rows, cols, inner = _tile(pixels, channels, out_channels)
    grid = (triton.cdiv(pixels, rows) * triton.cdiv(out_channels, cols),)
    with torch.cuda.device_of(spikes):
        _kernel[grid](
            s.view(torch.int8), w, lowered, out,
            pixels, *s.shape[1:3], *out.shape[2:], *stride, *padding,
            channels // unit, out_channels // out_unit,
            KH=kernel_y, KW=kernel_x, UNIT=unit, OUT_UNIT=out_unit, LOWER=levels > 127,
            BM=rows, BN=cols, BK=inner,
            num_warps=8 if rows * cols > 64 * 128 else 4, num_stages=_STAGES,
        )  # fmt: skip
    return out


def arranged(weight: Tensor) -> Tensor:
    """The same weights ``[C', C, kh, kw]``, in the memory order in which they are read."""
    return weight.contiguous(memory_format=torch.channels_last)


@int8_conv.register_fake
def _empty_out(
    spikes: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], levels: int
) -> Tensor:
    size = (
        (length + 2 * pad - kernel) // step + 1
        for length, pad, kernel, step in zip(
            spikes.shape[2:], padding, weight.shape[2:], stride, strict=True
        )
    )
    shape = (spikes.shape[0], weight.shape[0], *size)
    return torch.empty(
        shape, dtype=torch.float32, device=spikes.device, memory_format=torch.channels_last
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
