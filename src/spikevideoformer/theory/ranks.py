"""Rank correlation: whether two scores put the same things in the same order."""

import torch
from torch import Tensor


def mean_ranks(x: Tensor) -> Tensor:
    """Rank of each value among those of its row, from 1; equal values share their mean rank.

    Args:
        x: ``[..., K]``.

    Returns:
        ``[..., K]`` in float64.
    """
    x = x.contiguous()  # searchsorted warns of copies that it makes itself
    in_order = x.sort(-1).values
    below = torch.searchsorted(in_order, x)  # how many are smaller
    up_to = torch.searchsorted(in_order, x, right=True)  # how many are smaller or equal
    return (below + up_to + 1).double() / 2


def rank_correlation(x: Tensor, y: Tensor) -> Tensor:
    """Spearman's rank correlation of ``x`` and ``y`` along the last axis.

    Equation:
        the Pearson correlation of the mean ranks; it is 1 where both have one order, -1 where the
        orders are opposite, and ties count as neither.

    Args:
        x: ``[..., K]``.
        y: ``[..., K]``; the other axes may broadcast.

    Returns:
        ``[...]`` in [-1, 1], float64; NaN where a side has one value only and so no order.
    """
    a, b = (r - r.mean(-1, keepdim=True) for r in (mean_ranks(x), mean_ranks(y)))
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
