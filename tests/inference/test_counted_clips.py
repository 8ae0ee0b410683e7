"""Clips whose operations are counted; `tests/test_cli.py` counts those of all tasks."""

from pathlib import Path
from typing import Any

import pytest
import torch

from spikevideoformer.bench.inputs import made_clip
from spikevideoformer.inference.counted_clips import clips_of
from spikevideoformer.task import get_task
from spikevideoformer.tasks.pose.spec import PoseSpec
from spikevideoformer.tasks.segmentation.spec import SegmentationSpec
from spikevideoformer.video.clip import Clip
from spikevideoformer.video.frames import DecodeLimits, VideoError
from spikevideoformer.video.spec import ClipSpec


def test_a_preset_sees_the_usual_clip_but_for_what_is_given() -> None:
    task = get_task("classification")
    assert task.counted_spec(None, None, None) == ClipSpec(frames=8, size=224)
    assert task.counted_spec(None, 2, 32) == ClipSpec(frames=2, size=32)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("classification", ClipSpec(frames=2, size=32)),
        ("segmentation", SegmentationSpec(frames=2, short_side=None, crop=(32, 48))),
        ("pose", PoseSpec(frames=2, size=32)),
        ("pose", PoseSpec(frames=2, size=32, input="events")),
    ],
    ids=["labels", "masks", "pose", "events"],
)
def test_input_has_the_size_of_the_network(name: str, spec: Any) -> None:
    task = get_task(name)
    video = task.network_input(made_clip(task, spec), spec)
    assert video.shape[0] == 2
    assert video.shape[2:] == task.height_and_width(spec)


def test_clips_are_taken_evenly_and_bad_videos_named(video_folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    task = get_task("classification")
    spec, limits, told = ClipSpec(frames=2, size=16), DecodeLimits(), list[str]()
    names = sorted(map(str, video_folder.iterdir()))
    clips, failed = clips_of([*names[:1], str(bad)], task, spec, 4, limits=limits, tell=told.append)
    assert (len(clips), [str(error.path) for error in failed], told) == (1, [str(bad)], [])
    clips, failed = clips_of(names, task, spec, 2, limits=limits, tell=told.append)
    assert (len(clips), failed) == (2, [])
    assert told == [f"counting 2 of {len(names)} videos; --clips {len(names)} for all"]
    with pytest.raises(VideoError):
        clips_of([str(bad)], task, spec, 2, limits=limits, tell=told.append)


@pytest.mark.parametrize(("changed", "frame"), [(1, 0), (2, 0), (3, 1), (4, 1)])
def test_energy_of_pose_counts_events_between_all_pictures(changed: int, frame: int) -> None:
    pictures = torch.full((5, 16, 16, 3), 50, dtype=torch.uint8)
    pictures[changed:] = 200  # two frames of two pictures each follow the first picture
    clip = Clip(
        frames=pictures,
        timestamps_s=torch.arange(5, dtype=torch.float64) / 10,
        path=Path("made"),
        start_s=0.0,
        end_s=0.5,
        real_frames=5,
    )
    spec = PoseSpec(frames=2, size=16, frame_rate_hz=5.0, input="events")
    video = get_task("pose").network_input(clip, spec)
    assert [float(events.sum()) > 0 for events in video] == [frame == 0, frame == 1]
