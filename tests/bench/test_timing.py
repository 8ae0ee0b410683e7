"""Times in turn, their spread, and the peak memory of a call."""

import functools
import sys
import time

import pytest
import torch

from spikevideoformer.bench.timing import Spread, peak_memory, ratios, time_in_turn


def test_candidates_run_in_turn_and_every_other_round_in_reverse() -> None:
    order: list[str] = []
    calls = {name: functools.partial(order.append, name) for name in "ab"}
    seconds = time_in_turn(calls, rounds=3, warm_up=1)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_short_calls_are_repeated() -> None:
    count = [0]

    def call() -> None:
        count[0] += 1
        time.sleep(0.001)

    seconds = time_in_turn({"it": call}, rounds=2, least_s=0.02)["it"]
    assert count[0] > 5  # more than one in each round
    assert all(0.001 <= s < 0.02 for s in seconds)


def test_a_round_is_needed() -> None:
    with pytest.raises(ValueError, match="got 0 rounds"):
        time_in_turn({"it": lambda: None}, rounds=0)


def test_ratios_are_taken_round_by_round() -> None:
    # a machine that becomes ten times slower slows both sides
    spread = ratios([2.0, 20.0, 2.2, 22.0], [1.0, 10.0, 1.0, 10.0])
    assert spread.median == pytest.approx(2.1)
    assert (spread.low, spread.high) == (pytest.approx(2.0), pytest.approx(2.2))
    assert spread.rounds == 4


def test_spread_of_few_values_is_their_range() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(median=2.0, low=1.0, high=3.0, rounds=3)
    with pytest.raises(ValueError, match="no values"):
        Spread.of([])


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_peak_memory_is_what_a_call_holds() -> None:
    mib = 200
    # what is measured is imported by the child process, so it cannot be a function of this file
    peak = peak_memory(functools.partial, torch.ones, mib * 2**18) / 2**20
    assert 0.95 * mib < peak < 1.1 * mib + 8
