"""Sign projections against what is known of them exactly: a binomial distribution, two bounds."""

import math

import pytest
import torch

from spikevideoformer.theory.projections import (
    DELTAS,
    SCALED_DELTAS,
    EmbeddingError,
    Order,
    expected_similarity,
    hoeffding_bound,
    measure_errors,
    measure_order,
    paper_bound,
)

PAIRS = 6000


@pytest.fixture(scope="module")
def errors() -> dict[int, EmbeddingError]:
    return {e.width: e for e in measure_errors((8, 32, 128, 512), pairs=PAIRS, seed=1)}


@pytest.fixture(scope="module")
def orders() -> dict[tuple[float, int], Order]:
    found = measure_order((8, 64, 512), (0.5, 0.2, 0.1), queries=30, seed=1)
    return {(order.firing_rate, order.width): order for order in found}


def test_similarity_that_is_expected() -> None:
    cosines = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0], dtype=torch.float64)
    assert expected_similarity(cosines).tolist() == pytest.approx([0, 1 / 3, 1 / 2, 2 / 3, 1])


def test_bounds() -> None:
    assert paper_bound(0.1, 100) == pytest.approx(2 / math.e)
    assert hoeffding_bound(0.1, 100) == pytest.approx(2 / math.e**2)


def test_observed_tail_is_below_both_bounds(errors: dict[int, EmbeddingError]) -> None:
    informative = 0
    for width, e in errors.items():
        scaled = [t / math.sqrt(width) for t in SCALED_DELTAS]
        for delta, share in [
            *zip(DELTAS, e.tail, strict=True),
            *zip(scaled, e.scaled_tail, strict=True),
        ]:
            bound = hoeffding_bound(delta, width)
            assert bound < paper_bound(delta, width)
            if bound * PAIRS >= 5:  # below it, a single pair may exceed the bound by chance
                assert share <= bound
                informative += bound < 1 and share > 0
    assert informative > 20


@pytest.mark.parametrize("width", [8, 32, 128])
def test_observed_tail_is_that_of_the_binomial(
    width: int, errors: dict[int, EmbeddingError]
) -> None:
    """Exact probabilities, which wrong projections (too few, shared by pairs) would miss."""
    g = expected_similarity(torch.linspace(-1, 1, PAIRS, dtype=torch.float64))[:, None]
    equal = torch.arange(width + 1, dtype=torch.float64)
    n = torch.tensor(float(width))
    log_choose = torch.lgamma(n + 1) - torch.lgamma(equal + 1) - torch.lgamma(n - equal + 1)
    log_p = log_choose + torch.xlogy(equal, g) + torch.xlogy(width - equal, 1 - g)
    error = (equal / width - g).abs()
    assert errors[width].mean == pytest.approx((log_p.exp() * error).sum(1).mean().item(), rel=0.04)
    for delta, share in zip(DELTAS, errors[width].tail, strict=True):
        tail = torch.where(error > delta, log_p.exp(), 0.0).sum(1).mean().item()
        deviation = math.sqrt(tail * (1 - tail) / PAIRS)
        assert share == pytest.approx(tail, abs=4 * deviation + 1e-9)


def test_error_shrinks_with_the_root_of_the_width(errors: dict[int, EmbeddingError]) -> None:
    assert errors[512].mean == pytest.approx(errors[32].mean / 4, rel=0.06)
    assert all(e.mean < e.quantile_95 for e in errors.values())


def test_order_is_kept_better_with_more_bits(orders: dict[tuple[float, int], Order]) -> None:
    for rate in (0.5, 0.2, 0.1):
        for score in ("hamming", "dot"):
            kept = [getattr(orders[rate, width], score) for width in (8, 64, 512)]
            assert kept == sorted(kept)
    assert orders[0.5, 512].hamming > 0.99


def test_hamming_orders_better_where_half_of_the_bits_are_one(
    orders: dict[tuple[float, int], Order],
) -> None:
    for width in (8, 64, 512):
        assert orders[0.5, width].hamming > orders[0.5, width].dot


def test_dot_product_orders_better_where_few_bits_are_one(
    orders: dict[tuple[float, int], Order],
) -> None:
    """Below a quarter the common zeros add more noise than order (docs/theory.md)."""
    for rate in (0.2, 0.1):
        for width in (64, 512):
            assert orders[rate, width].dot > orders[rate, width].hamming


def test_a_seed_decides_everything() -> None:
    assert measure_errors((8, 16), pairs=50, seed=3) == measure_errors((8, 16), pairs=50, seed=3)
    assert measure_errors((8, 16), pairs=50, seed=3) != measure_errors((8, 16), pairs=50, seed=4)
    first, again, other = (measure_order((8,), queries=3, keys=9, seed=s) for s in (3, 3, 4))
    assert first == again != other


def test_chunks_of_pairs_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pair is drawn and measured, however many at a time."""
    monkeypatch.setattr("spikevideoformer.theory.projections._AT_ONCE", 1)
    (one_at_a_time,) = measure_errors((64,), pairs=300)
    assert one_at_a_time.pairs == 300
    assert 0.02 < one_at_a_time.mean < 0.06  # half of sqrt(1/64) is 0.0625 for cosine 0


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 2.0])
def test_impossible_firing_rate(rate: float) -> None:
    with pytest.raises(ValueError, match=r"outside \(0, 1\); try 0.5"):
        measure_order((8,), (rate,))
