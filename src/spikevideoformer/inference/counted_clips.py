"""Clips whose operations are counted, cut from videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any

from spikevideoformer.task import Task
from spikevideoformer.video.clip import Clip
from spikevideoformer.video.event_pictures import EventPath, seen
from spikevideoformer.video.frames import DecodeLimits, VideoError, iter_windows, probe
from spikevideoformer.video.inputs import videos_among
from spikevideoformer.video.interface import VideoName


def clips_of(
    inputs: Sequence[str],
    task: Task,
    spec: Any,
    most: int,
    *,
    limits: DecodeLimits,
    tell: Callable[[str], None],
) -> tuple[list[Clip], list[VideoError]]:
    """Clips of the videos, evenly taken where there are too many, and what could not be read.

    Args:
        inputs: as `expand_inputs` takes them, at least one.
        task: of the network.
        spec: how clips become its input.
        most: clips at most.
        limits: against files that unpack to far more than they seem.
        tell: takes a line where videos are left out.

    Raises:
        VideoError: there is no clip.
    """
    videos, errors = videos_among(inputs)
    if len(videos) > most:
        tell(f"counting {most} of {len(videos)} videos; --clips {len(videos)} for all")
        videos = [videos[i * len(videos) // most] for i in range(most)]
    share = -(-most // len(videos))  # windows of each video
    clips: list[Clip] = []
    for video in videos:
        shown = seen(video, spec)
        try:
            if isinstance(shown, EventPath) and hasattr(spec, "camera"):
                raise VideoError(
                    video, "a recording, and operations are counted on events that are simulated "
                    "of a video; give one",
                )  # fmt: skip
            cut, short = task.cut(spec, partial(_rate_hz, shown, limits))
            clips += islice(iter_windows(shown, cut, resize_short=short, limits=limits), share)
        except VideoError as error:
            errors.append(error)
    if not clips:
        raise errors[0]
    return clips[:most], errors


def _rate_hz(video: VideoName, limits: DecodeLimits) -> float:
    return probe(video, limits=limits).frame_rate_hz
