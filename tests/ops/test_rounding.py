"""Ties are what tells one rounding from the other."""

import pytest
import torch

from spikevideoformer.ops.rounding import rounded


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties_and_what_lies_beside_them(dtype):
    ties = torch.arange(-3, 6, dtype=dtype) + 0.5
    assert torch.equal(rounded(ties, True), ties + 0.5)
    assert torch.equal(rounded(ties, False), torch.round(ties))
    below = torch.nextafter(ties, torch.full_like(ties, -torch.inf))
    above = torch.nextafter(ties, torch.full_like(ties, torch.inf))
    for half_up in (False, True):
        assert torch.equal(rounded(below, half_up), ties - 0.5)
        assert torch.equal(rounded(above, half_up), ties + 0.5)
