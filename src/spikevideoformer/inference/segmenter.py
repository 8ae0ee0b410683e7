"""From a video to a mask for each frame, as a stream: memory does not grow with the video.

Pictures are read one at a time and go through the network as clips of T frames, cut as in training:
with a ``step`` of s, s clips lie interleaved in s * T frames, and no more than these are in memory.
At the end of the video clips are shorter, for membranes and attention take any number of frames.
"""

from __future__ import annotations

import json
import math
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch
from torch import Tensor

from spikevideoformer.inference.predictor import (
    AnySpec,
    Engine,
    FailedPrediction,
    Precision,
    VideoPredictor,
    about_run,
    checked_array,
    path_of,
    rate_curve,
)
from spikevideoformer.messages import one_line
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.models.tiling import class_scores, upsampled_classes
from spikevideoformer.tasks.segmentation.dataset import picture_input
from spikevideoformer.tasks.segmentation.masks import distinct_palette
from spikevideoformer.tasks.segmentation.sequence import IGNORED
from spikevideoformer.tasks.segmentation.spec import SegmentationSpec
from spikevideoformer.video.frames import (
    SEQUENCE_RATE_HZ,
    DecodeLimits,
    VideoError,
    VideoFrame,
    iter_frames,
    probe,
)
from spikevideoformer.video.inputs import VideoArray, VideoPath, expand_inputs

Tell = Callable[[int, int | None], None]
"""Is told how many frames are done, and of how many, or None where the video does not say."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SegmentedFrame:
    """One picture of a video and the class of each of its pixels.

    Attributes:
        timestamp_s: when it appears.
        duration_s: how long it is shown.
        image: RGB, uint8 [H, W, 3].
        mask: class index, uint8 [H, W].
        area: share of the pixels that each class has, float32 [K], sum 1.
        firing_rate: spikes per neuron in this frame, mean over all layers of neurons; None for an
            ordinary network, which has no spikes.
    """

    timestamp_s: float
    duration_s: float
    image: np.ndarray
    mask: np.ndarray
    area: np.ndarray
    firing_rate: float | None

    def __repr__(self) -> str:
        H, W = self.mask.shape
        return f"SegmentedFrame({self.timestamp_s:.3f} s, [H={H}, W={W}])"


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentationPrediction:
    """What the network sees where in one video.

    Attributes:
        path: as it was given; None for an array.
        duration_s: of the video.
        classes: their names, K of them.
        masks: class index of each pixel, uint8 [T, H, W], T frames of the whole video; None where
            they were not to be kept.
        timestamps_s: when each frame appears.
        area: share of the pixels that each class has, float32 [T, K].
        mean_area: the same for the video, float32 [K]: the mean over its frames.
        firing_rate: spikes per neuron and frame, mean over all layers of neurons and all frames;
            None for an ordinary network, which has no spikes.
        firing_rate_per_frame: the same for each frame, or None.
        engine: what ran the network: exact, int8 or model.
    """

    path: str | None
    duration_s: float
    classes: tuple[str, ...] = field(repr=False)
    masks: np.ndarray | None = field(repr=False)
    timestamps_s: tuple[float, ...] = field(repr=False)
    area: np.ndarray = field(repr=False)
    mean_area: np.ndarray
    firing_rate: float | None
    firing_rate_per_frame: tuple[float, ...] | None = field(repr=False)
    engine: str

    def __repr__(self) -> str:
        largest = sorted(zip(self.mean_area.tolist(), self.classes, strict=True), reverse=True)[:3]
        shares = ", ".join(f"{name} {share:.1%}" for share, name in largest if share > 0)
        about = about_run(self.duration_s, self.firing_rate, self.engine)
        frames = f"{len(self.timestamps_s)} frames"
        return one_line(f"SegmentationPrediction({self.path!r}, {shares}, {frames}, {about})")

    def _repr_html_(self) -> str:
        from spikevideoformer import notebook

        return notebook.card(
            repr(self),
            notebook.areas(
                self.timestamps_s,
                self.area.tolist(),
                self.classes,
                distinct_palette(len(self.classes)),
                caption="share of the pixels, by class",
            ),
            rate_curve(self.timestamps_s, self.firing_rate_per_frame),
        )

    def to_dict(self, *, areas: bool = True) -> dict[str, Any]:
        """Plain values for JSON: all but the masks, areas by class name to six digits.

        Args:
            areas: whether to give the area of each class in each frame.
        """
        columns = zip(self.classes, self.area.T, strict=True)
        area = {"area": {name: _rounded(column) for name, column in columns}} if areas else {}
        return {
            "path": self.path,
            "duration_s": self.duration_s,
            "engine": self.engine,
            "firing_rate": self.firing_rate,
            "classes": list(self.classes),
            "timestamps_s": list(self.timestamps_s),
            "mean_area": dict(zip(self.classes, _rounded(self.mean_area), strict=True)),
            **area,
        }

    def write_json(self, file: BinaryIO) -> None:
        """Write `to_dict` as one line of JSON, one class after the other.

        All areas as Python numbers would take many times the memory of the array.
        """
        about = self.to_dict(areas=False)
        file.write(json.dumps(about, allow_nan=False)[:-1].encode())
        file.write(b', "area": {')
        for k, name in enumerate(self.classes):
            shares = json.dumps(_rounded(self.area[:, k]), allow_nan=False)
            file.write(f"{', ' if k else ''}{json.dumps(name)}: {shares}".encode())
        file.write(b"}}\n")


class VideoSegmenter(VideoPredictor):
    """A network that segments, and all that it takes to use it on videos.

    Args:
        model: a network for segmentation.
        clip: how pictures become its input, a ``SegmentationSpec``; None for ``model.clip``.
        classes: their names, all different; None for ``model.classes``.
        palette: a colour for each class; None for ``model.palette``, or colours that differ.
        device: as for a :class:`VideoPredictor`.
        precision: as for a :class:`VideoPredictor`.
        engine: as for a :class:`VideoPredictor`.
        window: see `tiling.class_scores`; ``clip.crop`` is what the network was trained on.
        scales: see `tiling.class_scores`.
        flip: see `tiling.class_scores`.

    Raises:
        ValueError: settings that are unknown, absent from the model, or not possible here.
    """

    task: ClassVar[str] = "segmentation"
    _spec = SegmentationSpec
    clip: SegmentationSpec  # type: ignore[assignment]  # each task has its own

    def __init__(
        self,
        model: SpikeVideoFormer,
        *,
        clip: AnySpec | None = None,
        classes: Sequence[str] | None = None,
        palette: Sequence[tuple[int, ...]] | None = None,
        device: str = "auto",
        precision: Precision = "32-true",
        engine: Engine = "auto",
        window: tuple[int, int] | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
    ) -> None:
        super().__init__(
            model, clip=clip, classes=classes, device=device, precision=precision, engine=engine
        )
        K = len(self.classes)
        if K > IGNORED:
            raise ValueError(f"the model has {K} classes; a mask can hold {IGNORED}")
        if len(set(self.classes)) < K:
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise ValueError(f"two classes are named {twice!r}; give different names as classes")
        colours = palette or model.palette or distinct_palette(K)
        if len(colours) != K or any(len(colour) != 3 for colour in colours):
            raise ValueError(f"got a palette of {len(colours)} colours; expected {K} of (R, G, B)")
        self.palette = tuple((int(r), int(g), int(b)) for r, g, b in colours)
        self.window, self.scales, self.flip = window, tuple(scales), flip

    @classmethod
    def from_pretrained(
        cls,
        folder: VideoPath,
        *,
        clip: AnySpec | None = None,
        device: str = "auto",
        precision: Precision = "32-true",
        engine: Engine = "auto",
        window: tuple[int, int] | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
    ) -> VideoSegmenter:
        """Load a model folder, or a model of the Hugging Face hub.

        Args:
            folder: ``config.json`` and ``model.safetensors``, or a hub id (owner/name).
            clip: as in :class:`VideoSegmenter`.
            device: as in :class:`VideoSegmenter`.
            precision: as in :class:`VideoSegmenter`.
            engine: as in :class:`VideoSegmenter`.
            window: as in :class:`VideoSegmenter`.
            scales: as in :class:`VideoSegmenter`.
            flip: as in :class:`VideoSegmenter`.

        Raises:
            ValueError: no usable model folder, or settings as in :class:`VideoSegmenter`.
        """
        return cls(
            SpikeVideoFormer.from_pretrained(folder),
            clip=clip,
            device=device,
            precision=precision,
            engine=engine,
            window=window,
            scales=scales,
            flip=flip,
        )

    def segment(
        self,
        video: VideoPath | VideoArray,
        *,
        frame_rate_hz: float | None = None,
        limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
        sequence_rate_hz: float = SEQUENCE_RATE_HZ,
    ) -> Iterator[SegmentedFrame]:
        """The frames of a video with their masks, as they are computed.

        Args:
            video: a video file, a folder of numbered images, or frames as uint8 RGB.
            frame_rate_hz: of frames given as an array; files know their own.
            limits: against files that unpack to far more than they seem.
            sequence_rate_hz: pictures per second of a folder of numbered images.

        Yields:
            Every frame of the video, in order.

        Raises:
            VideoError: the video cannot be read; as soon as damage shows.
            ValueError: wrong arguments, or an array that is no video.
        """
        if isinstance(video, (np.ndarray, Tensor)):
            frames = array_frames(*checked_array(video, frame_rate_hz))
        else:
            path = path_of(video, frame_rate_hz)
            frames = iter_frames(path, limits=limits, sequence_rate_hz=sequence_rate_hz)
        return self._segment(frames)

    def predict(  # type: ignore[override]  # another task, another result
        self,
        video: VideoPath | VideoArray,
        *,
        frame_rate_hz: float | None = None,
        keep_masks: bool = True,
        progress: Tell | None = None,
        limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
        sequence_rate_hz: float = SEQUENCE_RATE_HZ,
    ) -> SegmentationPrediction:
        """What is to be seen where in one video.

        Args:
            video: as in :meth:`segment`.
            frame_rate_hz: as in :meth:`segment`.
            keep_masks: whether the masks are returned. They take a byte for each pixel of the
                video, and as much again while they are put together; :meth:`segment` gives them
                one at a time.
            progress: told about each frame.
            limits: as in :meth:`segment`.
            sequence_rate_hz: as in :meth:`segment`.

        Raises:
            VideoError: the video cannot be read.
            ValueError: wrong arguments, or an array that is no video.
        """
        reading: dict[str, Any] = {"limits": limits, "sequence_rate_hz": sequence_rate_hz}
        frames = self.segment(video, frame_rate_hz=frame_rate_hz, **reading)
        is_array = isinstance(video, (np.ndarray, Tensor))
        total: int | None = None
        if progress is not None:
            total = len(video) if is_array else probe(video, **reading).declared_frames  # type: ignore[arg-type]
        tally = SegmentationTally(progress, total)
        masks = [frame.mask if keep_masks else None for frame in tally.watch(frames)]
        return tally.result(
            self,
            None if is_array else os.fspath(video),  # type: ignore[arg-type]
            np.stack(masks) if keep_masks else None,  # type: ignore[arg-type]
        )

    def predict_many(  # type: ignore[override]
        self,
        inputs: VideoPath | VideoArray | Iterable[VideoPath | VideoArray],
        *,
        frame_rate_hz: float | None = None,
        keep_masks: bool = True,
        limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
        sequence_rate_hz: float = SEQUENCE_RATE_HZ,
    ) -> Iterator[SegmentationPrediction | FailedPrediction]:
        """Predict many videos, one after the other.

        Args:
            inputs: as for a :class:`VideoPredictor`.
            frame_rate_hz: of the arrays among them.
            keep_masks: as in :meth:`predict`.
            limits: as in :meth:`segment`.
            sequence_rate_hz: as in :meth:`segment`.

        Yields:
            One result for each video, in order: a prediction, or why there is none; the latter,
            too, for an input in which there is no video.

        Raises:
            ValueError: wrong arguments, or an array that is no video.
        """
        if isinstance(inputs, (str, int, os.PathLike, np.ndarray, Tensor)):
            inputs = [inputs]
        for video in expand_inputs(inputs):
            result: SegmentationPrediction | FailedPrediction
            try:
                if isinstance(video, VideoError):
                    raise video
                result = self.predict(
                    video,
                    frame_rate_hz=None if isinstance(video, str) else frame_rate_hz,
                    keep_masks=keep_masks,
                    limits=limits,
                    sequence_rate_hz=sequence_rate_hz,
                )
            except VideoError as error:
                result = FailedPrediction(path=str(error.path), reason=error.reason)
            yield result

    def _segment(self, frames: Iterator[VideoFrame]) -> Iterator[SegmentedFrame]:
        T, step = self.clip.frames, self.clip.step
        while held := list(islice(frames, T * step)):
            inputs = [picture_input(torch.from_numpy(f.image)[None], self.clip) for f in held]
            video = torch.cat(inputs)  # [t, 3, h, w]
            seen: list[Any] = [None] * len(held)  # scores [K, h, w] and firing rate of each frame
            for first in range(min(step, len(held))):
                seen[first::step] = zip(*self._scores(video[first::step]), strict=True)
            for frame, (scores, firing_rate) in zip(held, seen, strict=True):
                mask = upsampled_classes(scores, frame.image.shape[:2]).cpu().numpy()
                counts = np.bincount(mask.ravel(), minlength=len(self.classes))
                yield SegmentedFrame(
                    timestamp_s=frame.timestamp_s,
                    duration_s=frame.duration_s,
                    image=frame.image,
                    mask=mask,
                    area=(counts / mask.size).astype(np.float32),
                    firing_rate=firing_rate,
                )
            held.clear()  # before the next clip is read

    def _scores(self, video: Tensor) -> tuple[Tensor, list[float] | list[None]]:
        """Probabilities ``[t, K, h, w]`` and firing rates, means over all looks at the clip."""
        firing: list[Tensor] = []

        def look(video: Tensor) -> Tensor:
            logits, rates = self._run_network(video)
            if rates.per_frame:
                firing.append(torch.stack(list(rates.per_frame.values())).mean((0, 2)))  # [t]
            return logits

        with torch.inference_mode():
            scores = class_scores(
                look,
                video.to(self.device),
                window=self.window,
                scales=self.scales,
                flip=self.flip,
            )
            if not firing:
                return scores, [None] * len(video)
            return scores, torch.stack(firing).mean(0).tolist()


class SegmentationTally:
    """What stays of the frames that pass: times, areas and firing rates.

    Args:
        progress: told about each frame.
        total: frames that are announced.
    """

    def __init__(self, progress: Tell | None, total: int | None) -> None:
        self._progress, self._total = progress, total
        # Blocks of numbers: small objects that stay, strewn between the pictures that go, would
        # keep the allocator from using their room again.
        self._timestamps_s, self._areas, self._rates = array("d"), array("f"), array("d")
        self._end_s = 0.0

    def watch(self, frames: Iterable[SegmentedFrame]) -> Iterator[SegmentedFrame]:
        """The same frames."""
        for frame in frames:
            self._timestamps_s.append(frame.timestamp_s)
            self._areas.extend(frame.area)
            if frame.firing_rate is not None:
                self._rates.append(frame.firing_rate)
            self._end_s = frame.timestamp_s + frame.duration_s
            if self._progress is not None:
                self._progress(len(self._timestamps_s), self._total)
            yield frame

    def result(
        self, segmenter: VideoSegmenter, path: str | None, masks: np.ndarray | None
    ) -> SegmentationPrediction:
        """The prediction, when all frames have passed."""
        area = np.frombuffer(self._areas, dtype=np.float32).reshape(len(self._timestamps_s), -1)
        return SegmentationPrediction(
            path=path,
            duration_s=self._end_s,
            classes=segmenter.classes,
            masks=masks,
            timestamps_s=tuple(self._timestamps_s),
            area=area,
            mean_area=area.mean(axis=0, dtype=np.float64).astype(np.float32),
            firing_rate=math.fsum(self._rates) / len(self._rates) if self._rates else None,
            firing_rate_per_frame=tuple(self._rates) or None,
            engine=segmenter.engine,
        )


def array_frames(frames: Tensor, frame_rate_hz: float) -> Iterator[VideoFrame]:
    """The pictures of an array, with their times."""
    for i, image in enumerate(frames.cpu().numpy()):
        yield VideoFrame(timestamp_s=i / frame_rate_hz, duration_s=1 / frame_rate_hz, image=image)


def _rounded(shares: np.ndarray) -> list[float]:
    return [round(share, 6) for share in shares.tolist()]
