"""Hamming similarity of random projections, whose cosine is known: what Proposition 3.1 is about.

Two unit vectors x and y become binary vectors q and k of D bits, ``q_i = 1[w_i . x > threshold]``
with Gaussian w_i that both share. At threshold 0, the proposition's case, each bit is equal in both
with probability g(cos) by itself, so that D times the Hamming similarity f_H is binomial:

    g(c) = 1 - arccos(c)/pi
    P(|f_H - g| > delta) <= 2 exp(-delta^2 D)       the paper's bound
    P(|f_H - g| > delta) <= 2 exp(-2 delta^2 D)     Hoeffding's for D independent bits: tighter

Above threshold 0 the bits are sparse, as spikes are. f_H then still grows with the cosine on
average, as the dot product q.k does: E[f_H] = 1 - 2p + 2 E[q.k]/D for bits that are 1 with
probability p. Which of the two orders better is a matter of their variance.

Source: Zou et al., ICML 2025, Proposition 3.1; Goemans & Williamson, J. ACM 1995 (g).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from spikevideoformer.theory.ranks import rank_correlation

WIDTHS = tuple(2**i for i in range(3, 13))
DELTAS = (0.05, 0.1, 0.2)
SCALED_DELTAS = tuple(i / 8 for i in range(1, 21))
"""delta * sqrt(D): what both bounds depend on."""
FIRING_RATES = (0.5, 0.2, 0.1)
LENGTH = 16
"""Length of the real vectors. For one pair it does not matter: the projections of two unit vectors
are two Gaussians, correlated by their cosine, whatever the length."""

_AT_ONCE = 1 << 22  # values drawn at a time


def paper_bound(delta: float, width: int) -> float:
    """``2 exp(-delta^2 D)``, at least P(|f_H - g| > delta) as the paper states it.

    At 1 and above it says nothing.
    """
    return 2 * math.exp(-(delta**2) * width)


def hoeffding_bound(delta: float, width: int) -> float:
    """``2 exp(-2 delta^2 D)``, Hoeffding's inequality for D independent bits: tighter."""
    return 2 * math.exp(-2 * delta**2 * width)


def expected_similarity(cosines: Tensor) -> Tensor:
    """``g(c) = 1 - arccos(c)/pi``: how probably a random projection of both has one sign."""
    return 1 - torch.arccos(cosines) / math.pi


@dataclass(frozen=True, kw_only=True)
class EmbeddingError:
    """How far f_H lies from g(cos) with D sign bits, over pairs of any cosine.

    Attributes:
        width: D.
        pairs: of vectors, each with projections of its own.
        mean: of |f_H - g|.
        quantile_95: what 95 % of the pairs stay below.
        tail: share of pairs with |f_H - g| > delta, for each of ``DELTAS``.
        scaled_tail: share of pairs with |f_H - g| sqrt(D) > t, for each of ``SCALED_DELTAS``.
    """

    width: int
    pairs: int
    mean: float
    quantile_95: float
    tail: tuple[float, ...]
    scaled_tail: tuple[float, ...]


def measure_errors(
    widths: Sequence[int] = WIDTHS, *, pairs: int = 4000, seed: int = 0
) -> tuple[EmbeddingError, ...]:
    """Draw pairs whose cosines cover [-1, 1] evenly, and compare f_H with g.

    Every pair has vectors and projections of its own, so pairs are independent and the shares are
    honest estimates of the probability: of 4,000 pairs, one is 0.00025. The widths share draws: a
    pair's first D projections are its embedding of width D.

    Args:
        widths: D of the embeddings, rising.
        pairs: at least 2.
        seed: decides all draws.

    Returns:
        One result for each width.
    """
    generator = torch.Generator().manual_seed(seed)
    cosines = torch.linspace(-1, 1, pairs, dtype=torch.float64)
    last = torch.tensor(widths) - 1
    similarity = []
    for some in cosines.split(max(1, _AT_ONCE // (widths[-1] * LENGTH))):
        x = _unit(torch.randn(len(some), LENGTH, generator=generator))
        y = _at_cosine(x, some, generator)
        w = torch.randn(len(some), widths[-1], LENGTH, generator=generator)
        q, k = (w @ torch.stack((x, y), -1) > 0).unbind(-1)  # each [pairs, D]
        similarity.append((q == k).cumsum(-1)[:, last] / (last + 1.0))  # [pairs, widths]
    error = (torch.cat(similarity).double() - expected_similarity(cosines)[:, None]).abs()
    return tuple(
        EmbeddingError(
            width=width,
            pairs=pairs,
            mean=e.mean().item(),
            quantile_95=e.quantile(0.95).item(),
            tail=tuple((e > delta).double().mean().item() for delta in DELTAS),
            scaled_tail=tuple(
                (e * math.sqrt(width) > t).double().mean().item() for t in SCALED_DELTAS
            ),
        )
        for width, e in zip(widths, error.T, strict=True)
    )


@dataclass(frozen=True, kw_only=True)
class Order:
    """How well two scores of binary vectors keep the order of cosines.

    Attributes:
        width: D.
        firing_rate: how probably a bit is 1.
        queries: each with projections and keys of its own.
        keys: of a query, with cosines that cover [-1, 1] evenly.
        hamming: rank correlation of f_H with the cosine, over the keys of a query, mean over
            queries. A query whose keys all score the same counts as 0: no order is kept.
        dot: the same of the dot product q.k.
        hamming_quartiles: of the queries.
        dot_quartiles: of the queries.
    """

    width: int
    firing_rate: float
    queries: int
    keys: int
    hamming: float
    dot: float
    hamming_quartiles: tuple[float, float]
    dot_quartiles: tuple[float, float]


def measure_order(
    widths: Sequence[int] = WIDTHS,
    firing_rates: Sequence[float] = FIRING_RATES,
    *,
    queries: int = 100,
    keys: int = 128,
    seed: int = 0,
) -> tuple[Order, ...]:
    """Rank keys for a query, as attention weighs them, by both scores of the same bits.

    Args:
        widths: D of the embeddings, rising.
        firing_rates: in (0, 1); 0.5 is the sign bit of the proposition.
        queries: at least 1.
        keys: of each query, at least 2.
        seed: decides all draws.

    Returns:
        One result for each firing rate and width, rates first.

    Raises:
        ValueError: a firing rate outside (0, 1).
    """
    for rate in firing_rates:
        if not 0 < rate < 1:
            raise ValueError(f"firing rate {rate} is outside (0, 1); try 0.5, the sign bits")
    generator = torch.Generator().manual_seed(seed)
    cosines = torch.linspace(-1, 1, keys, dtype=torch.float64)
    last = torch.tensor(widths) - 1
    thresholds = [NormalDist().inv_cdf(1 - rate) for rate in firing_rates]
    scores: list[list[Tensor]] = [[] for _ in thresholds]
    for _ in range(queries):
        x = _unit(torch.randn(LENGTH, generator=generator))
        y = _at_cosine(x.expand(keys, LENGTH), cosines, generator)
        w = torch.randn(LENGTH, widths[-1], generator=generator)
        x_w, y_w = x @ w, y @ w  # [D], [keys, D]
        for found, threshold in zip(scores, thresholds, strict=True):
            q, k = x_w > threshold, y_w > threshold
            equal, common = (z.cumsum(-1)[:, last].T for z in (q == k, q & k))  # [widths, keys]
            found.append(torch.stack((equal, common)))
    results = []
    for rate, found in zip(firing_rates, scores, strict=True):
        # counts of equal bits order keys as f_H = count / D does
        kept = rank_correlation(torch.stack(found), cosines).nan_to_num(0.0)  # [queries, 2, widths]
        mean, (low, high) = kept.mean(0), kept.quantile(torch.tensor([0.25, 0.75]).double(), 0)
        for i, width in enumerate(widths):
            quartiles = [(low[s, i].item(), high[s, i].item()) for s in range(2)]
            results.append(
                Order(
                    width=width,
                    firing_rate=rate,
                    queries=queries,
                    keys=keys,
                    hamming=mean[0, i].item(),
                    dot=mean[1, i].item(),
                    hamming_quartiles=quartiles[0],
                    dot_quartiles=quartiles[1],
                )
            )
    return tuple(results)


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def _at_cosine(x: Tensor, cosines: Tensor, generator: torch.Generator) -> Tensor:
    """Random unit vectors ``[K, n]`` with the cosines ``[K]`` to the unit vectors ``[K, n]``."""
    z = torch.randn(x.shape, generator=generator)
    z = _unit(z - (z * x).sum(-1, keepdim=True) * x)  # at a right angle to x
    c = cosines[:, None]
    return (c * x + (1 - c**2).sqrt() * z).float()
