"""The torch data set: item i of epoch e is a pure function of (seed, e, i) and of the files."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from spikevideoformer.data.frame_cache import FrameCache, pictures_at
from spikevideoformer.data.items import Items
from spikevideoformer.data.problems import DatasetError
from spikevideoformer.data.specs import Augmentation
from spikevideoformer.data.transforms import eval_transform, train_transform
from spikevideoformer.tasks.classification.sample import ClipIndex, ClipSample
from spikevideoformer.video.clip import LabelledClip
from spikevideoformer.video.event_pictures import seen
from spikevideoformer.video.frames import (
    DecodeLimits,
    VideoError,
    check_decodes,
    multi_clip_times,
    probe,
    read_clip,
    window_times,
)
from spikevideoformer.video.spec import ClipSpec

_MOST_MAGNIFIED = 2
"""Pictures are kept at most this many times as large as the model sees them: a very small random
crop is then magnified, which costs less than the memory of its full resolution."""


class ClipDataset(Items[LabelledClip]):
    """Labelled clips of an index as model input.

    Several views of one video are items of their own: item i is view `i % views` of sample
    `i // views`, the crops of a clip following each other, and the `index` that it carries is the
    position of the sample.

    Args:
        index: one split, checked (without problems).
        spec: how a video becomes model input.
        augmentation: what is varied at random, for training (of events all but colours); None:
            evaluation, which sees exactly what prediction sees.
        seed: of the augmentation.
        clips_per_video: evaluation clips, spread evenly in time: over the video where the spec has
            a frame rate, otherwise as shifted samples of the whole.
        crops: squares of each evaluation clip, spread evenly along the longer side; 1: the middle.
        cache: keeps each video's pictures, shrunk to what the transforms need; None: nothing does.
            The items are the same, bit for bit.
        limits: against files that unpack to far more than they seem; None: the usual ones.

    Raises:
        DatasetError: the index has problems or no samples.
        ValueError: `clips_per_video` or `crops` is not at least 1, or goes with augmentation.
    """

    drawn = "clip"
    checked_by = "check_index"
    spec: ClipSpec

    def __init__(
        self,
        index: ClipIndex,
        spec: ClipSpec,
        *,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        clips_per_video: int = 1,
        crops: int = 1,
        cache: FrameCache | None = None,
        limits: DecodeLimits | None = None,
    ) -> None:
        super().__init__(index, spec, augmentation, seed)
        if not index.samples:
            raise DatasetError(f"no clip of {index.root} is left; choose a split that has some")
        for name, count in (("clips_per_video", clips_per_video), ("crops", crops)):
            if count < 1 or (count > 1 and augmentation is not None):
                raise ValueError(
                    f"{name} is {count}; give at least 1, and exactly 1 with augmentation"
                )
        self.index = index
        self.clips_per_video, self.crops = clips_per_video, crops
        self._limits = limits or DecodeLimits()
        self._resize_short = _kept_short_side(spec, self.augmentation)
        self._length_s: dict[Path, float] = {}
        self._cache = cache or FrameCache()
        self._decoded: tuple[int, list[UInt8[Tensor, "T H W 3"]]] = (-1, [])

    @property
    def views(self) -> int:
        """Items of each video."""
        return self.clips_per_video * self.crops

    def __len__(self) -> int:
        return len(self.index.samples) * self.views

    def item(self, i: int, generator: torch.Generator | None) -> LabelledClip:
        """As `Items`."""
        position, view = divmod(i, self.views)
        sample = self.index.samples[position]
        if self.augmentation is None or generator is None:
            clip, crop = divmod(view, self.crops)
            place = crop / (self.crops - 1) if self.crops > 1 else 0.5
            frames = self._evaluation_clips(position)[clip]
            video = eval_transform(frames, self.spec, place=place)
        else:
            begin_s, end_s = self._stretch(sample)
            jitter = self.augmentation.temporal_jitter
            times_s = window_times(self.spec, begin_s, end_s, jitter=jitter, generator=generator)
            frames = self._frames(sample, times_s)
            video = train_transform(frames, self.spec, self.augmentation, generator)
        return LabelledClip(video=video, label=sample.label, index=position, path=sample.path)

    def _stretch(self, sample: ClipSample) -> tuple[float, float]:
        """Begin and end of the sample in its file, in seconds."""
        path = sample.path
        if path not in self._length_s:
            video = seen(path, self.spec)
            announced_s = probe(video, limits=self._limits).duration_s
            # Some formats do not say how long they are.
            self._length_s[path] = (
                announced_s or check_decodes(video, limits=self._limits).duration_s or 0.0
            )
        length_s = self._length_s[path]
        begin_s = sample.start_s or 0.0
        if begin_s >= length_s:
            raise VideoError(path, f"start_s {begin_s:g} lies past the end at {length_s:.2f} s")
        return begin_s, length_s if sample.end_s is None else min(sample.end_s, length_s)

    def _evaluation_clips(self, position: int) -> list[UInt8[Tensor, "T H W 3"]]:
        """All clips of one video, decoded in one pass and kept until another video is asked for."""
        if self._decoded[0] != position:
            sample = self.index.samples[position]
            clips_s = multi_clip_times(
                self.spec, *self._stretch(sample), clips=self.clips_per_video
            )
            moments_s = sorted({time_s for times_s in clips_s for time_s in times_s})
            frames = self._frames(sample, moments_s)
            place = {time_s: i for i, time_s in enumerate(moments_s)}
            clips = [frames[[place[time_s] for time_s in times_s]] for times_s in clips_s]
            self._decoded = (position, clips)
        return self._decoded[1]

    def _frames(self, sample: ClipSample, times_s: list[float]) -> UInt8[Tensor, "n H W 3"]:
        """What is on screen at the given times of the sample's file."""
        video = seen(sample.path, self.spec)
        kept = self._cache.video(video, resize_short=self._resize_short, limits=self._limits)
        if kept is None:
            return read_clip(
                video,
                replace(self.spec, frames=len(times_s)),
                start_s=sample.start_s,
                end_s=sample.end_s,
                times_s=times_s,
                resize_short=self._resize_short,
                limits=self._limits,
            ).frames
        return pictures_at(*kept, times_s)


def _kept_short_side(spec: ClipSpec, augmentation: Augmentation | None) -> int:
    """Short side to which decoded pictures are shrunk: enough for the smallest random crop."""
    if augmentation is None or augmentation.crop_scale is None:
        return spec.size
    magnified = 1 / math.sqrt(augmentation.crop_scale[0])
    return math.ceil(spec.size * min(magnified, _MOST_MAGNIFIED))
