"""The cache of decoded pictures: what it gives back, its budget, and what processes share."""

import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from spikevideoformer.data import frame_cache
from spikevideoformer.data.frame_cache import FrameCache, pictures_at
from spikevideoformer.video.frames import DecodeLimits, iter_frames

MakeVideo = Callable[..., Path]
LIMITS = DecodeLimits()


def picture(level: int, *shape: int) -> torch.Tensor:
    return torch.full(shape, level, dtype=torch.uint8)


def kept(cache: FrameCache, keys: str) -> str:
    return "".join(key for key in keys if cache.get(key) is not None)


def test_gives_back_what_was_put() -> None:
    cache = FrameCache(2**16)
    values = {
        "a": (picture(1, 3, 5, 3), torch.tensor([0.1, 0.25, 1 / 3], dtype=torch.float64)),
        "ü \udcff": (picture(7, 1, 1, 3).expand(2, 4, 4, 3),),
        "nothing": (),
    }
    for key, value in values.items():
        cache.put(key, value)
    for key, value in values.items():
        found = cache.get(key)
        assert found is not None
        for a, b in zip(found, value, strict=True):
            assert a.dtype == b.dtype and torch.equal(a, b)
    assert cache.get("b") is None
    assert (cache.kept, cache.refused) == (2, 1)


def test_the_first_value_stays() -> None:
    cache = FrameCache(2**12)
    for level in (1, 2):
        cache.put("a", (picture(level, 2),))
    assert cache.get("a")[0].tolist() == [1, 1]
    assert cache.get_or_make("a", lambda: [picture(3, 2)])[0].tolist() == [1, 1]
    assert cache.get_or_make("b", lambda: [picture(4, 1)])[0].tolist() == [4]
    assert cache.get("b")[0].tolist() == [4]


@pytest.mark.parametrize("budget", [0, 1, 999, 1000, 2500, 4000])
def test_never_exceeds_its_budget(budget: int) -> None:
    cache = FrameCache(budget)
    for key in "abc":
        cache.put(key, (picture(1, 1000),))
    assert cache.used_bytes <= budget
    assert kept(cache, "abc") == "abc"[: budget // 1024]
    assert cache.full == (budget < 3 * 1024)


def test_takes_no_more_once_it_is_full() -> None:
    cache = FrameCache(2000)
    for key, size in (("a", 1000), ("b", 1000), ("c", 10)):
        cache.put(key, (picture(1, size),))
    assert kept(cache, "abc") == "a"
    assert cache.full


def test_processes_share_it() -> None:
    cache = FrameCache(2**20)
    context = multiprocessing.get_context("fork")

    def fill(number: int) -> None:
        torch.set_num_threads(1)
        for i in range(20):  # half of the keys are those of its neighbour, too
            cache.put(f"{10 * number + i}", (picture(10 * number + i, 100),))

    # Keys from both sides, before and after the workers.
    cache.put("first", (picture(1, 1),))
    workers = [context.Process(target=fill, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    cache.put("last", (picture(2, 1),))
    assert cache.kept == 52
    for i in range(50):
        assert cache.get(f"{i}")[0].tolist() == 100 * [i]
    assert cache.get("first") is not None and cache.get("last") is not None


def test_goes_on_without_a_process_that_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_cache, "_PATIENCE_S", 0.01)
    cache = FrameCache(2**12)
    cache.put("a", (picture(1, 1),))
    cache._lock.acquire()  # and never release it
    cache.put("b", (picture(1, 1),))
    assert cache.full
    assert kept(cache, "ab") == "a"


def test_a_pickled_copy_begins_empty() -> None:
    cache = FrameCache(2**12)
    cache.put("a", (picture(1, 1),))
    copy = pickle.loads(pickle.dumps(cache))
    assert copy.budget_bytes == 2**12
    assert kept(copy, "a") == ""


class TestVideo:
    def test_is_all_its_pictures(self, make_video: MakeVideo, tmp_path: Path) -> None:
        path = make_video(tmp_path / "v.mp4", frames=10, size=48)
        cache = FrameCache(2**20)
        for resize_short in (None, 16):
            expected = list(iter_frames(path, resize_short=resize_short))
            for _ in range(2):
                found = cache.video(path, resize_short=resize_short, limits=LIMITS)
                assert found is not None
                assert torch.equal(
                    found[0], torch.stack([torch.from_numpy(f.image) for f in expected])
                )
                assert found[1].tolist() == [f.timestamp_s for f in expected]
        assert cache.kept == 2

    def test_too_long_ones_are_left_out(
        self, make_video: MakeVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = make_video(tmp_path / "v.mp4", frames=10, size=48)
        size = 10 * 48 * 48 * 3
        announced = frame_cache._announced_bytes
        assert announced(path, None, LIMITS) == size
        assert announced(path, 24, LIMITS) == size / 4
        for says in (announced, lambda *_: 0.0):  # before or while it is decoded
            monkeypatch.setattr(frame_cache, "_announced_bytes", says)
            cache = FrameCache(8 * size - 8)
            assert cache.video(path, resize_short=None, limits=LIMITS) is None
            assert (cache.kept, cache.refused, cache.full) == (0, 1, False)
            assert cache.video(path, resize_short=24, limits=LIMITS) is not None

    def test_damaged_and_absent_ones_are_left_out(self, tmp_path: Path) -> None:
        (tmp_path / "torn.mp4").write_bytes(b"no video")
        cache = FrameCache(2**20)
        for name in ("torn.mp4", "absent.mp4"):
            assert cache.video(tmp_path / name, resize_short=None, limits=LIMITS) is None
        assert cache.refused == 2

    def test_a_full_cache_decodes_nothing(
        self, make_video: MakeVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = make_video(tmp_path / "v.mp4", frames=4, size=16)
        monkeypatch.setattr(frame_cache, "_all_pictures", None)
        assert FrameCache().video(path, resize_short=None, limits=LIMITS) is None


def test_the_picture_at_a_time_is_the_last_that_appeared() -> None:
    pictures = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 1, 1, 3)
    shown_s = torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64)
    times_s = [-1.0, 0.0, 0.05, 0.0995, 0.1, 0.15, 7.0]  # Matroska rounds to 1 ms
    found = pictures_at(pictures, shown_s, times_s)
    assert found[:, 0, 0, 0].tolist() == [0, 0, 0, 1, 1, 1, 2]
