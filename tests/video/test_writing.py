"""Video files appear whole or not at all, and the same for the same pictures."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from spikevideoformer.video.frames import VideoError, check_decodes, iter_frames, probe
from spikevideoformer.video.writing import write_video

from .clips import grey


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi", ".mov"])
def test_written_video_reads_back(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"out{ending}"
    images = [grey(index, 47, 63) for index in range(20)]
    write_video(path, iter(images), 30000 / 1001)
    info = check_decodes(path)
    assert (info.width, info.height, info.decoded_frames) == (64, 48, 20)
    assert info.frame_rate_hz == pytest.approx(29.97, abs=0.01)
    for frame, image in zip(iter_frames(path), images, strict=True):
        assert np.abs(frame.image[:47, :63].astype(int) - image).max() <= 3
    again = tmp_path / f"again{ending}"
    write_video(again, (torch.from_numpy(image) for image in images), 30000 / 1001)
    assert path.read_bytes() == again.read_bytes()


def test_interrupted_writing_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"the old file")

    def interrupted() -> Iterator[np.ndarray]:
        yield from (grey(index) for index in range(5))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(path, interrupted(), 10.0)
    with pytest.raises(ValueError, match="no frames"):
        write_video(path, [], 10.0)
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\]"):
        write_video(path, iter([np.zeros((4, 4), np.uint8)]), 10.0)
    with pytest.raises(ValueError, match=r"one size: got \[48, 64\] after \[32, 32\]"):
        write_video(path, [grey(0, 32, 32), grey(1)], 10.0)
    with pytest.raises(ValueError, match="frame_rate_hz"):
        write_video(path, [grey(0)], 0.0)
    with pytest.raises(VideoError, match="cannot be written"):
        write_video(path, [grey(0)], 10.0, codec="no_such_codec")
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]
    assert path.read_bytes() == b"the old file"
    with pytest.raises(VideoError, match="cannot be written"):
        write_video(tmp_path / "absent" / "out.mp4", [grey(0)], 10.0)


def test_the_same_pictures_give_the_same_bytes(tmp_path: Path) -> None:
    """Forty times, with other things in memory each time."""
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (12, 12, 3), np.uint8).repeat(12, 0).repeat(12, 1)
    images = [np.roll(scene, 3 * index, 1)[:80, :80] // 2 + 40 for index in range(16)]
    path, seen = tmp_path / "out.mp4", set()
    for _ in range(40):
        clutter = rng.integers(0, 256, rng.integers(10_000, 3_000_000), np.uint8)
        write_video(path, images, 10.0)
        seen.add(hash(path.read_bytes()))
        del clutter
    assert len(seen) == 1


def test_a_part_file_becomes_an_ordinary_video(tmp_path: Path) -> None:
    path, part = tmp_path / "out.mp4", tmp_path / "out.part.mp4"
    part.write_bytes(b"of an earlier run")
    write_video(path, (grey(index % 20) for index in range(40)), 10.0, part=part)
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]
    assert probe(path).declared_frames == 40  # which a file in fragments does not say
    assert check_decodes(path).decoded_frames == 40


def test_a_part_file_of_an_interrupted_run_can_be_played(tmp_path: Path) -> None:
    path, part = tmp_path / "out.mp4", tmp_path / "out.part.mp4"
    path.write_bytes(b"the old file")

    def interrupted() -> Iterator[np.ndarray]:
        yield from (grey(index % 20) for index in range(60))
        assert 20 <= check_decodes(part).decoded_frames <= 60  # already now, while it is written
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(path, interrupted(), 10.0, part=part)
    assert 30 <= check_decodes(part).decoded_frames <= 60
    assert path.read_bytes() == b"the old file"
    with pytest.raises(ValueError, match="one size"):
        write_video(path, [grey(0, 32, 32), grey(1)], 10.0, part=part)
    assert not part.exists()
