"""Tests for spikevideoformer.video.spool."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from spikevideoformer.video import spool as module
from spikevideoformer.video.interface import VideoError
from spikevideoformer.video.spool import Spool

RNG = np.random.default_rng(0)


@dataclass
class Kept:
    """A picture of one colour, which survives 4:2:0."""

    timestamp_s: float
    colour: np.ndarray
    duration_s: float = 0.1

    @property
    def end_s(self) -> float:
        return self.timestamp_s + self.duration_s

    def size(self, resize_short: int | None = None) -> tuple[int, int]:
        return 33, 21  # odd, as phones do not make them and tools do

    def rgb(self, *, width: int, height: int) -> np.ndarray:
        return np.broadcast_to(self.colour, (height, width, 3))


@pytest.mark.parametrize("raw", [1, 3, 100])
def test_pictures_and_times_come_back_in_order(
    raw: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_RAW_BYTES", raw * 34 * 22 * 3 // 2)
    times_s = [0.0, 0.1, 0.35, 0.4, 0.9]
    pictures = [Kept(t, RNG.integers(30, 220, 3).astype(np.uint8)) for t in times_s]
    with Spool(tmp_path) as spool:
        for picture in pictures:
            spool.add(picture)
        assert spool.frame_rate_hz == 5.0
        found = list(spool)
        assert len(list(tmp_path.iterdir())) == (1 if raw > len(pictures) else 2)
    assert list(tmp_path.iterdir()) == []
    assert [t for t, _ in found] == times_s
    for (_, image), picture in zip(found, pictures, strict=True):
        assert image.shape == (21, 33, 3)
        assert abs(image.astype(int) - picture.colour).max() <= 6


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="cannot wait in a file here"):
        Spool(tmp_path / "none")
