"""Event frames as data sets store them: PNGs in the order of time, and channels that must fit."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from spikevideoformer.data.problems import DatasetError
from spikevideoformer.events.spec import EventChannels
from spikevideoformer.tasks.pose.event_frames import (
    read_event_png,
    refuse_other_channels,
    stored_event_input,
)
from spikevideoformer.tasks.pose.index import read_poses
from spikevideoformer.tasks.pose.spec import PoseSpec
from spikevideoformer.tasks.pose.square import Square

from ..segmentation.frames import save
from .poses import write_mmhpsd

H = W = 16
SPEC = PoseSpec(frames=1, size=16, input="events")
WHOLE = Square.of_picture(H, W)


def frames(number: int, channels: int = 4) -> np.ndarray:
    return np.random.default_rng(0).random((number, H, W, channels)) < 0.3


def stored(folder: Path, pixels: np.ndarray) -> list[Path]:
    """As OpenCV writes arrays: the first channel is blue."""
    order = [2, 1, 0, 3][: pixels.shape[3]] if pixels.shape[3] > 2 else list(range(pixels.shape[3]))
    return [
        save(folder / f"{i}.png", (255 * frame[..., order]).squeeze())
        for i, frame in enumerate(pixels)
    ]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_of_a_png(channels: int, tmp_path: Path) -> None:
    (expected,) = frames(1, channels)
    (path,) = stored(tmp_path, expected[None])
    np.testing.assert_array_equal(read_event_png(path).permute(1, 2, 0), expected)


@pytest.mark.parametrize(
    ("number", "parts"), [(2, [1] * 8), (3, [1] * 7 + [5]), (4, [2] * 8), (7, [3] * 7 + [7])]
)
def test_channels_of_a_stretch_are_united(number: int, parts: list[int], tmp_path: Path) -> None:
    """Of 12 channels the last of 8 parts has five, as in EventHPE's loader."""
    pixels = frames(number)
    row = np.concatenate(list(pixels), -1)
    spec = replace(SPEC, channels=EventChannels(bins=4))
    video = stored_event_input([stored(tmp_path, pixels)], H, W, WHOLE, spec)
    edges = np.cumsum([0, *parts])
    assert edges[-1] == 4 * number
    for part, (a, b) in enumerate(pairwise(edges)):
        np.testing.assert_array_equal(video[0, part], row[..., a:b].any(-1))


def test_frames_of_which_nothing_is_known(tmp_path: Path) -> None:
    files = stored(tmp_path, frames(2))
    spec = replace(SPEC, channels=EventChannels(bins=2))
    video = stored_event_input([[None], [None, files[0]], files[:1]], H, W, WHOLE, spec)
    assert not bool(video[0].any()) and torch.equal(video[1], video[2]) and bool(video[2].any())


def test_what_is_refused(tmp_path: Path) -> None:
    files = stored(tmp_path, frames(1))
    eight = replace(SPEC, channels=EventChannels(bins=4))
    with pytest.raises(
        DatasetError, match="1 event frames has 4 channels, fewer than the 8 of the"
    ):
        stored_event_input([files], H, W, WHOLE, eight)
    with pytest.raises(DatasetError, match=r"0\.png is not 8x8"):
        stored_event_input([files], 8, 8, Square.of_picture(8, 8), eight)
    save(tmp_path / "deep.png", np.full((H, W), 300), np.uint16)
    (tmp_path / "broken.png").write_bytes(files[0].read_bytes()[:60])
    for name, says in (("deep.png", "pixels of kind I;16"), ("broken.png", "damaged")):
        with pytest.raises(ValueError, match=says) as error:
            read_event_png(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("channels", "says"),
    [
        (
            EventChannels(),
            "frames of 4 channels, and the settings make 2: set polarity to both and bins to 2",
        ),
        (EventChannels(bins=2, mode="voxel"), "take a model of them, or set polarity to both"),
        (EventChannels(bins=4, polarity="signed"), "got signed and count"),
        (EventChannels(bins=2, mode="binary"), None),
        (EventChannels(bins=4, polarity="merged"), None),
    ],
)
def test_channels_must_be_those_of_the_files(
    channels: EventChannels, says: str | None, tmp_path: Path
) -> None:
    index = read_poses(write_mmhpsd(tmp_path, (3,), 2))
    spec = replace(SPEC, channels=channels)
    refuse_other_channels(index, replace(spec, input="rgb"))
    if says is None:
        refuse_other_channels(index, spec)
        return
    with pytest.raises(DatasetError, match=says):
        refuse_other_channels(index, spec)
