"""Targets, verdicts, the table, JSON, pictures."""

import json
from pathlib import Path

import pytest

from spikevideoformer.bench.plots import plot_growth, plot_ratios
from spikevideoformer.bench.results import (
    BenchResult,
    Measurement,
    Target,
    format_markdown,
    format_ratio,
    format_table,
)
from spikevideoformer.bench.run import write
from spikevideoformer.bench.timing import Spread


def spread(median: float) -> Spread:
    return Spread(median=median, low=0.9 * median, high=1.2 * median, rounds=5)


MET = Measurement(
    row="a",
    work="training",
    against="theirs",
    target=Target(bound="at least", value=3),
    ratio=spread(3.5),
    equivalence="same",
)
MISSED = Measurement(
    row="b",
    work="copy",
    against="memory",
    ratio_of="times the time",
    target=Target(bound="at most", value=1.3),
    ratio=spread(1.4),
)
UNMEASURED = Measurement(
    row="c",
    work="GPU",
    against="theirs",
    target=Target(bound="at least", value=2),
    why_not="not measured: no CUDA device",
)
PLAIN = Measurement(
    row="d",
    work="growth",
    against="itself",
    ratio=spread(0.01),
    details={
        "axis": "T",
        "side": "exact",
        "seconds_per_frame": {"8": 0.1, "16": 0.09},
        "peak_mib": {"8": 10.0, "16": 12.0},
    },
)
ALL = (MET, MISSED, UNMEASURED, PLAIN)


def test_targets_have_a_direction() -> None:
    assert MET.met is True
    assert MISSED.met is False
    assert UNMEASURED.met is None
    assert PLAIN.met is None
    assert Target(bound="at most", value=4.0).met(4.0)


def test_a_ratio_or_a_reason() -> None:
    with pytest.raises(ValueError, match="either a ratio or the reason"):
        Measurement(row="x", work="x", against="x")


def test_table() -> None:
    lines = format_table(ALL).splitlines()
    assert len(lines) == 2 + len(ALL)
    assert "at least 3x" in lines[2] and "3.50 (3.15-4.20)" in lines[2] and lines[2].endswith("met")
    assert lines[3].endswith("NOT met")
    assert lines[4].endswith("not measured: no CUDA device")
    assert lines[5].endswith("-")


def test_markdown() -> None:
    lines = format_markdown(ALL).splitlines()
    assert all(line.count("|") == 6 for line in lines)
    assert "not measured" in lines[4]


@pytest.mark.parametrize(
    ("median", "text"), [(0.01234, "0.0123"), (1.0, "1.00"), (12.34, "12.3"), (1234.5, "1234")]
)
def test_three_digits(median: float, text: str) -> None:
    assert format_ratio(spread(median)).startswith(f"{text} (")


def test_files(tmp_path: Path) -> None:
    result = BenchResult(machine={"cores": 2}, quick=True, measurements=ALL)
    written = write(result, tmp_path / "out")
    assert {path.name for path in written} == {
        "bench.json",
        "bench.txt",
        "bench.md",
        "ratios.png",
        "growth_T.png",
    }
    assert all(path.stat().st_size for path in written)
    found = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert [m["met"] for m in found["measurements"]] == [True, False, None, None]
    assert found["measurements"][0]["ratio"]["median"] == 3.5


def test_nothing_to_draw(tmp_path: Path) -> None:
    assert not plot_ratios([UNMEASURED], tmp_path / "a.png")
    assert not plot_growth([MET], "T", tmp_path / "b.png")
    assert not list(tmp_path.iterdir())
