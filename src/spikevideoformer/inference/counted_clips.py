"""Clips whose operations are counted: cut from videos, and as the network of a task sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, TypeAlias

from torch import Tensor

from spikevideoformer.data.transforms import eval_transform
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.tasks.pose.dataset import Square, event_input
from spikevideoformer.tasks.pose.dataset import picture_input as square_input
from spikevideoformer.tasks.pose.spec import PoseSpec
from spikevideoformer.tasks.segmentation.dataset import picture_input
from spikevideoformer.tasks.segmentation.spec import SegmentationSpec
from spikevideoformer.video.clip import Clip
from spikevideoformer.video.frames import DecodeLimits, VideoError, iter_windows, probe
from spikevideoformer.video.inputs import videos_among
from spikevideoformer.video.spec import ClipSpec

Spec: TypeAlias = ClipSpec | SegmentationSpec | PoseSpec


def clip_spec(model: SpikeVideoFormer | None, *, frames: int | None, size: int | None) -> Spec:
    """How clips are made: as the model says (None: as a preset would), but for what is given."""
    clip: dict[str, Any] = {"frames": 8, "size": 224}
    given: dict[str, Any] = {"frames": frames, "size": size}
    task = "classification" if model is None else model.task
    if task == "segmentation":
        clip = {"frames": 8, "short_side": None, "crop": (224, 224)}
        given = {"frames": frames, "crop": size and (size, size)}
    if model is not None and model.clip is not None:
        clip = model.clip
    clip = {**clip, **{name: value for name, value in given.items() if value is not None}}
    if task == "pose":
        return PoseSpec.from_dict(clip)
    return (SegmentationSpec if task == "segmentation" else ClipSpec).from_dict(clip)


def height_and_width(spec: Spec) -> tuple[int, int]:
    """Of what the network sees, in pixels."""
    return spec.crop if isinstance(spec, SegmentationSpec) else (spec.size, spec.size)


def clips_of(
    inputs: Sequence[str],
    spec: Spec,
    most: int,
    *,
    limits: DecodeLimits,
    tell: Callable[[str], None],
) -> tuple[list[Clip], list[VideoError]]:
    """Clips of the videos, evenly taken where there are too many, and what could not be read.

    Args:
        inputs: as `expand_inputs` takes them, at least one.
        spec: how clips are made.
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
        try:
            if isinstance(spec, ClipSpec):
                cut, short = spec, spec.size
            else:  # frames that follow each other, as in sequences
                rate, frames, short = probe(video, limits=limits).frame_rate_hz, spec.frames, None
                step = spec.step(rate) if isinstance(spec, PoseSpec) else spec.step
                if isinstance(spec, PoseSpec) and spec.input == "events":
                    frames, step = 1 + frames * step, 1  # events are seen between all pictures
                cut = ClipSpec(frames=frames, size=1, frame_rate_hz=rate / step)
            clips += islice(iter_windows(video, cut, resize_short=short, limits=limits), share)
        except VideoError as error:
            errors.append(error)
    if not clips:
        raise errors[0]
    return clips[:most], errors


def network_input(clip: Clip, spec: Spec) -> Tensor:
    """What the network sees, ``[T, C, H, W]``: for segmentation the middle crop of the pictures.

    Pictures that the crop does not fit into are enlarged. For pose it is the whole picture; frames
    of events lie between every n-th picture and the one n later.
    """
    if isinstance(spec, ClipSpec):
        return eval_transform(clip.frames, spec)
    if isinstance(spec, SegmentationSpec):
        (height, width), (h, w) = spec.crop, clip.frames.shape[1:3]
        least = -(-max(height * w, width * h) // max(h, w))  # it fits: h/short <= h/height ...
        short = max(spec.short_side or min(h, w), least)
        video = picture_input(clip.frames, replace(spec, short_side=short))
        top, left = ((a - b) // 2 for a, b in zip(video.shape[2:], spec.crop, strict=True))
        return video[..., top : top + height, left : left + width]
    square = Square.of_picture(*clip.frames.shape[1:3])
    if spec.input != "events":
        return square_input(clip.frames, square, spec)
    picture_s = (clip.end_s - clip.start_s) / clip.real_frames
    times = [picture_s * i for i in range(len(clip.frames))]
    borders = times[:: (len(times) - 1) // spec.frames]
    return event_input(clip.frames, times, borders, square, spec)
