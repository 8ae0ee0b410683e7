"""Tags of results, ranges, and the check of values."""

import pytest
import torch

from spikevideoformer.energy.provenance import (
    CONSTANT,
    Front,
    Tag,
    factor,
    integer_range,
    join,
    later,
    magnitude,
    scaled,
    shifted,
    spikes,
)


def test_signs_come_from_spikes() -> None:
    doubled = scaled(spikes(1), 2, 2, None)
    signs = shifted(doubled, -1, -1, Front(3, 0.2))
    assert (signs.source, signs.low, signs.high) == ("signs", -1, 1)
    assert signs.front == Front(3, 0.2)
    assert shifted(scaled(spikes(4), -1, -1, None), 4, 4, None) == spikes(4)  # D - S


def test_bits() -> None:
    assert [spikes(levels).bits for levels in (1, 2, 3, 4, 8)] == [1, 2, 2, 3, 4]
    assert Tag("integers").bits == Tag("real").bits == 32


def test_join_takes_the_widest() -> None:
    assert join(CONSTANT, spikes(2), spikes(1)) == spikes(2)
    assert join(spikes(1), Tag("integers")).source == "integers"
    assert join(spikes(1), Tag("real", front=Front(1, 0.5))) == Tag("real", front=Front(1, 0.5))
    assert join(CONSTANT) == CONSTANT


def test_later_is_the_nearest() -> None:
    assert later(None, Front(2, 0.9), Front(5, 0.1)) == Front(5, 0.1)
    assert later(None) is None


@pytest.mark.parametrize(
    ("value", "takes"),
    [
        (1, "none"),
        (-1.0, "none"),
        (torch.tensor([0.0, 1.0, -1.0]), "none"),
        (0.5, "shift"),
        (-4, "shift"),
        (torch.tensor([0.0, 1.0, 8.0]), "shift"),
        (3, "multiply"),
        (torch.tensor([0.5, 0.3]), "multiply"),
        (torch.empty(2, device="meta"), "multiply"),
    ],
)
def test_what_a_factor_takes(value, takes: str) -> None:
    assert factor(value) == takes


def test_integer_range() -> None:
    assert integer_range(3) == (3, 3)
    assert integer_range(0.5) is None
    assert integer_range(torch.tensor([2.0, -1.0])) == (-1.0, 2.0)
    assert integer_range(torch.tensor([2.0, 0.1])) is None


@pytest.mark.parametrize("values", [[0.0, 0.5], [0.0, 2.0], [-1.0, 1.0], [0.0, float("nan")]])
def test_values_that_are_no_spikes_are_found(values: list[float]) -> None:
    with pytest.raises(RuntimeError, match=r"fc: a tensor that counts as spikes in 0\.\.1 holds"):
        magnitude(torch.tensor(values), spikes(1), "fc")


def test_spikes_need_values() -> None:
    with pytest.raises(ValueError, match="without values"):
        magnitude(torch.empty(2, device="meta"), spikes(1), "fc")


def test_magnitude_leaves_the_tensor_alone() -> None:
    signs = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    assert magnitude(signs, Tag("signs", -1, 1), "q").tolist() == [1.0, 1.0]
    assert signs.tolist() == [-1.0, 1.0]
