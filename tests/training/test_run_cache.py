"""The cache of a run: its size, and the line about it."""

import logging

import pytest
import torch

from spikevideoformer.training import run_cache, train
from spikevideoformer.training.run_cache import RunCache

GB = 10**9


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 GB are available."""
    monkeypatch.setattr(run_cache, "available_bytes", lambda: 20 * GB)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "cach" in r.getMessage()]


@pytest.mark.parametrize(
    ("cache", "processes", "budget"),
    [
        ("auto", 1, 5 * GB),
        ("auto", 4, 1.25 * GB),
        ("memory", 1, 15 * GB),
        (True, 1, 15 * GB),
        ("off", 1, 0),
        (False, 2, 0),
    ],
)
def test_its_share_of_the_memory(tiny, cache, processes, budget):
    assert RunCache(tiny(cache=cache), processes).frames.budget_bytes == budget


def test_copies_of_workers_that_are_not_forked_share_the_budget(tiny, monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    assert RunCache(tiny(workers=2), 1).frames.budget_bytes == GB


def test_memory_that_is_not_to_be_had(tiny, monkeypatch, caplog):
    def refuse(budget_bytes: int = 0) -> object:
        if budget_bytes:
            raise OSError(12, "Cannot allocate memory")
        return "empty"

    monkeypatch.setattr(run_cache, "FrameCache", refuse)
    with caplog.at_level(logging.INFO):
        cache = RunCache(tiny(), 1)
        cache.tell()
    assert cache.frames == "empty"
    assert lines(caplog) == [
        "no cache: a quarter of the 20.0 GB available are not to be had (Cannot allocate memory)"
    ]


def test_one_line_says_what_is_kept(tiny, monkeypatch, caplog):
    with caplog.at_level(logging.INFO):
        train(tiny())
    (line,) = lines(caplog)
    # 12 clips of 8 pictures with a short side of 28 or 32 pixels to train, 4 of 16 to validate
    assert line.startswith("caching 16 files in memory: 0.")
    assert line.endswith(" MB, within a quarter of the 20.0 GB available")


def test_nothing_is_said_where_it_is_off(tiny, caplog):
    with caplog.at_level(logging.INFO):
        train(tiny(cache="off", epochs=1))
    assert lines(caplog) == []


def test_a_full_one_says_so(tiny, caplog, monkeypatch):
    monkeypatch.setattr(run_cache, "available_bytes", lambda: 4 * 100_000)
    with caplog.at_level(logging.INFO):
        cache = RunCache(tiny(), 2)
        for i in range(9):
            cache.frames.put(str(i), (torch.zeros(20_000, dtype=torch.uint8),))
            cache.frames.put("long", ())
        cache.tell()
        cache.tell()
    assert lines(caplog) == [
        "caching 2 files in memory: 0.0 MB, within a quarter of the 0.2 MB available to each of 2"
        " processes; there is no room for the others, which are decoded each time"
    ]


def test_those_left_out_are_counted(tiny, caplog):
    with caplog.at_level(logging.INFO):
        cache = RunCache(tiny(), 1)
        cache.frames.put("long", ())
        cache.tell()
    assert lines(caplog)[0].endswith("; left out, too long or damaged: 1")
