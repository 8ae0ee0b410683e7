"""Integer spikes as binary ones: what a network of integers is on hardware that knows one spike.

A spike k in 0..D is k binary spikes in D virtual sub-steps (``ops/lif.py`` unrolls spikes and
neurons). A layer then runs D times a frame, on bits: additions of weights, no products. What it
adds once a frame, its bias, must be shared out among the sub-steps, or it would be added D times.
In integer arithmetic both forms are the same numbers, bit for bit.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from spikevideoformer.ops.exact_conv import FLOAT64_EXACT, largest_sums
from spikevideoformer.ops.lif import unroll_integer_spikes


def bias_of_sub_steps(bias: Tensor, levels: int) -> Tensor:
    """An integer bias shared out among D sub-steps, as evenly as integers can be.

    Args:
        bias: ``[C']``, integers.
        levels: D, at least 1.

    Returns:
        ``[D, C']``, int64, whose sum over the first axis is ``bias``.

    Raises:
        ValueError: a bias that is no integers, or no sub-steps.
    """
    if bias.is_floating_point() or levels < 1:
        raise ValueError(
            f"got a bias in {bias.dtype} and {levels} sub-steps; expected integers and at least 1"
        )
    share = torch.div(bias.long(), levels, rounding_mode="floor")
    rest = bias.long() - levels * share  # 0..D-1: so many sub-steps add one more
    more = torch.arange(levels, device=bias.device)[:, None] < rest
    return share + more


def integer_conv(
    spikes: Tensor,
    integers: Tensor,
    bias: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> Tensor:
    """A convolution of integer spikes with integer weights and bias, exactly.

    Args:
        spikes: ``[N, C, H, W]``, integers of any dtype, at least 0.
        integers: weights ``[C', C/groups, kh, kw]``.
        bias: ``[C']`` in units of the weights, added once; None: none.
        stride: of rows and columns.
        padding: with zeros, of rows and columns.
        groups: of channels that do not mix.

    Returns:
        ``[N, C', H', W']``, int64.

    Raises:
        ValueError: sums beyond 2^53, up to which float64 adds up whole numbers exactly.
    """
    most = int(spikes.max()) if spikes.numel() else 0
    largest = most * int(largest_sums(integers.flatten(1).long()).max())
    if largest > FLOAT64_EXACT:
        raise ValueError(f"sums may reach {largest}, more than 2^53; use smaller weights")
    sums = F.conv2d(spikes.double(), integers.double(), None, stride, padding, 1, groups).long()
    return sums if bias is None else sums + bias.long()[:, None, None]


def unrolled_conv(
    spikes: Tensor,
    integers: Tensor,
    bias: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
    *,
    levels: int,
) -> Tensor:
    """What each of D sub-steps adds to the currents of :func:`integer_conv`.

    Equation (s_i the binary spikes of sub-step i, b_i its share of the bias)::

        y_i = W s_i + b_i,    sum_i y_i = W k + b

    Args:
        spikes: as of :func:`integer_conv`, in 0..``levels``.
        integers: see there.
        bias: see there.
        stride: see there.
        padding: see there.
        groups: see there.
        levels: D.

    Returns:
        ``[D, N, C', H', W']``, int64; its sum over the first axis is what :func:`integer_conv`
        gives, bit for bit.

    Raises:
        ValueError: spikes outside 0..D, or as :func:`integer_conv`.
    """
    steps = unroll_integer_spikes(spikes, levels)
    biases = [None] * levels if bias is None else bias_of_sub_steps(bias, levels)
    return torch.stack(
        [
            integer_conv(step, integers, b, stride, padding, groups)
            for step, b in zip(steps, biases, strict=True)
        ]
    )


def unrolled_products(q: Tensor, k: Tensor, v: Tensor, levels: int) -> Tensor:
    """Attention by the dot product, ``Q (K^T V)``, of integer spikes by binary ones.

    Equation (indices are sub-steps)::

        Q (K^T V) = sum_i Q_i (sum_{j, l} K_j^T V_l)

    Every product on the right has a factor 0 or 1.

    Args:
        q: integers 0..``levels``, ``[..., N, d]``.
        k: as ``q``, ``[..., M, d]``.
        v: as ``k``; its width may be another.
        levels: D.

    Returns:
        ``[..., N, width of v]``, int64: ``dot_attention`` with a scale of D^2, bit for bit.

    Raises:
        ValueError: spikes outside 0..D.
    """
    q_, k_, v_ = (unroll_integer_spikes(z.long(), levels).double() for z in (q, k, v))
    inner = torch.einsum("j...md,l...me->...de", k_, v_)
    return torch.einsum("i...nd,...de->...ne", q_, inner).long()
