"""Ranks and Spearman's correlation against values computed by hand."""

import pytest
import torch

from spikevideoformer.theory.ranks import mean_ranks, rank_correlation


def test_equal_values_share_their_mean_rank() -> None:
    x = torch.tensor([[3.0, 1.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    assert mean_ranks(x).tolist() == [[3.5, 1.0, 3.5, 2.0], [2.5, 2.5, 2.5, 2.5]]


def test_without_ties() -> None:
    # sum of squared differences of ranks: 0 + 1 + 1 + 1 + 1 = 4; 1 - 6 * 4 / (5 * 24) = 0.8
    x, y = torch.tensor([10, 20, 30, 40, 50]), torch.tensor([1, 3, 2, 9, 4])
    assert rank_correlation(x, y).item() == pytest.approx(0.8)


def test_with_ties() -> None:
    # ranks 1, 2.5, 2.5, 4 and 1, 3, 2, 4: covariance sum 4.5, squares 4.5 and 5
    x, y = torch.tensor([0.0, 1.0, 1.0, 2.0]), torch.tensor([0.1, 0.3, 0.2, 0.4])
    assert rank_correlation(x, y).item() == pytest.approx(4.5 / (4.5 * 5) ** 0.5)


def test_order_is_all_that_counts() -> None:
    x = torch.rand(3, 50, dtype=torch.float64)
    assert rank_correlation(x, x.exp()).tolist() == pytest.approx([1.0] * 3)
    assert rank_correlation(x, -(x**3)).tolist() == pytest.approx([-1.0] * 3)


def test_rows_broadcast_and_may_be_transposed() -> None:
    x, y = torch.rand(7, 4).T, torch.rand(7)
    got = rank_correlation(x, y)
    assert got.tolist() == [rank_correlation(row, y).item() for row in x.clone()]


def test_one_value_has_no_order() -> None:
    assert rank_correlation(torch.ones(4), torch.arange(4)).isnan()
