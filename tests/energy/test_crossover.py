"""The rate at which an ordinary layer becomes cheaper is that at which both cost the same."""

from dataclasses import replace

import pytest

from spikevideoformer.energy.cost import HOROWITZ_45NM, CostTable
from spikevideoformer.energy.crossover import crossovers, plot_crossover
from spikevideoformer.energy.record import OperationCount

LAYER = OperationCount(
    module="conv", operation="conv2d", kind="conv", shapes=(), operand="spikes", macs=1000, rate=0.2
)


@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
def test_both_cost_the_same_there(precision: str) -> None:
    name = {"float32": "float32", "int8": "8 bit", "int4": "4 bit"}[precision]
    (found,) = [c for c in crossovers([LAYER], 4, HOROWITZ_45NM) if c.rival == name]
    cost = CostTable(precision=precision)  # type: ignore[arg-type]
    ordinary = replace(LAYER, rate=None, operand="real", multiplications=1000, additions=1000)
    spiking = replace(LAYER, rate=found.rate, additions=1000 * found.rate)
    assert cost.arithmetic_pj(spiking) == pytest.approx(cost.arithmetic_pj(ordinary))
    now = replace(LAYER, additions=200)
    assert found.ratio == pytest.approx(cost.arithmetic_pj(ordinary) / cost.arithmetic_pj(now))


def test_matched_in_bits() -> None:
    """By hand: 0..4 are three bits, so a product with 8-bit weights is three eighths of 0.2 pJ."""
    found = {c.rival: c for c in crossovers([LAYER], 4, HOROWITZ_45NM)}
    matched = found["8-bit weights, 3-bit activations (matched)"]
    assert matched.mac_pj == pytest.approx(0.2 * 3 / 8 + 0.1)
    assert matched.rate == pytest.approx(1.75)
    binary = {c.rival: c.rate for c in crossovers([LAYER], 1, HOROWITZ_45NM)}
    assert binary["4-bit weights, 1-bit activations (matched)"] == pytest.approx(1.25)
    assert crossovers([replace(LAYER, rate=None, operand="real")], 1, HOROWITZ_45NM) == []


def test_share_below_and_picture(tmp_path) -> None:
    busy = replace(LAYER, macs=3000, rate=2.5)
    found = {c.rival: c for c in crossovers([LAYER, busy], 4, HOROWITZ_45NM)}
    assert found["4 bit"].below == pytest.approx(0.25)  # from rate 2 on
    assert found["float32"].below == 1
    plot_crossover([LAYER, busy], list(found.values()), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000
