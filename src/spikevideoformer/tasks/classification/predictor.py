"""From a video to labels with probabilities and firing rates.

A video is read once, as a stream of windows; every window becomes one clip of the network, and
windows of several videos share a batch. The answer for the video is the mean of the probabilities
of its windows.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from torch import Tensor

from spikevideoformer.data.transforms import eval_transform
from spikevideoformer.inference.answer import FailedPrediction, Tell, is_beyond, mean
from spikevideoformer.inference.base import (
    Predictor,
    checked_array,
    expanded,
    layers_added,
    path_of,
)
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.task import get_task
from spikevideoformer.tasks.classification.answer import Label, PredictionResult, WindowPrediction
from spikevideoformer.tasks.classification.draw import annotate_frames
from spikevideoformer.video.clip import Clip
from spikevideoformer.video.drawing import constant_rate, playable_rate
from spikevideoformer.video.event_pictures import seen
from spikevideoformer.video.frames import (
    VideoError,
    checked_window_s,
    iter_windows,
    probe,
    window_times,
    write_video,
)
from spikevideoformer.video.inputs import VideoArray, VideoPath
from spikevideoformer.video.interface import Reading, VideoName
from spikevideoformer.video.spec import ClipSpec
from spikevideoformer.video.spool import Spool


class VideoPredictor(Predictor[PredictionResult]):
    """A network for classification, and all that it takes to use it on videos.

    Arguments, attributes and errors as of :class:`~spikevideoformer.inference.base.Predictor`.
    """

    task: ClassVar[str] = "classification"
    shares_batches: ClassVar[bool] = True
    clip: ClipSpec

    @classmethod
    def from_pretrained(cls, folder: VideoPath, **settings: Any) -> Any:
        """Load a model folder, or a model of the Hugging Face hub.

        For a model of another task this is the predictor of that task, such as
        :class:`~spikevideoformer.tasks.segmentation.predictor.VideoSegmenter`. Arguments and errors
        as of the base class.
        """
        model = SpikeVideoFormer.from_pretrained(folder)
        return get_task(model.task).predictor()(model, **settings)

    def predict(
        self,
        video: VideoPath | VideoArray,
        *,
        frame_rate_hz: float | None = None,
        top_k: int = 5,
        window_s: float | None = None,
        batch_size: int | None = None,
        **reading: Unpack[Reading],
    ) -> PredictionResult:
        """What is to be seen in one video.

        Args:
            video: a video file, a folder of numbered images, or frames as uint8 RGB.
            frame_rate_hz: of frames given as an array; files know their own.
            top_k: labels to report, at least 1.
            window_s: length of the windows the video is cut into, for a model that spreads its
                frames evenly; None takes the whole video as one, and for a model of single frames
                each picture. Models with a frame rate of their own have a fixed window.
            batch_size: windows that go through the network together, at least 1; None for 1 on a
                CPU, where more are hardly faster, and 8 on CUDA.
            **reading: ``limits`` and ``sequence_rate_hz``, see `Reading`.

        Raises:
            VideoError: the video cannot be read.
            ValueError: wrong arguments, or an array that is no video.
        """
        path, windows = self._windows(video, frame_rate_hz, window_s, reading)
        return self._result(path, windows, top_k, batch_size)

    def predict_many(  # type: ignore[override]  # says which options there are
        self,
        inputs: VideoPath | VideoArray | Iterable[VideoPath | VideoArray],
        *,
        frame_rate_hz: float | None = None,
        top_k: int = 5,
        window_s: float | None = None,
        batch_size: int | None = None,
        **reading: Unpack[Reading],
    ) -> Iterator[PredictionResult | FailedPrediction]:
        """Predict many videos, with windows of different videos in one batch.

        No more than a batch of windows is in memory at a time. A result does not depend on the
        other videos: every batch has the same shape (the last one is filled up), because sums of
        another shape round differently and a spike more or less follows from that.

        Inputs, results and errors as of the base class, the others as of :meth:`predict`.
        """

        def read() -> Iterator[tuple[str | None, Iterator[Clip]]]:
            for video in expanded(inputs):
                if isinstance(video, VideoError):
                    yield str(video.path), _unreadable(video)
                else:
                    rate_hz = None if isinstance(video, str) else frame_rate_hz
                    yield self._windows(video, rate_hz, window_s, reading)

        yield from self._run(read(), top_k, batch_size)

    def write(
        self,
        video: VideoPath,
        out: str | Path,
        *,
        progress: Tell | None = None,
        top_k: int = 5,
        window_s: float | None = None,
        batch_size: int | None = None,
        html: bool = False,
        tell: Callable[[str], None] = lambda _line: None,
        **reading: Unpack[Reading],
    ) -> tuple[PredictionResult, dict[str, str]]:
        """Predict a video and write it with its labels drawn underneath, from one decoding.

        The written video has a constant frame rate: frames of a source with a variable rate are
        held or dropped so that every picture stands at its own time. Labels are known at the end
        of the video only, so its pictures wait in a file beside `out`.

        ``out`` (``.mp4``) appears complete or not at all. With ``html`` there is a page about the
        surest window, too, and ``tell`` is called with a line on what is being counted for it.
        ``progress`` is not used: the network sees few frames of a video. Other arguments as of
        :meth:`predict`.

        Returns:
            The prediction, and the files that were written by what they are.

        Raises:
            VideoError: the video cannot be decoded or written.
        """
        out = self._target(video, out)
        surest: list[tuple[float, Clip]] = []

        def kept(clip: Clip, probability: float) -> None:
            if html and (not surest or probability > surest[0][0]):
                surest[:] = [(probability, clip)]

        with Spool(out.parent) as spool:
            watched = {**reading, "watch": spool.add}
            path, windows = self._windows(video, None, window_s, watched)
            result = self._result(path, windows, top_k, batch_size, kept)
            rate_hz = playable_rate(spool.frame_rate_hz)
            write_video(out, annotate_frames(constant_rate(spool, rate_hz), result), rate_hz)
        files = {"annotated": str(out)}
        if html:
            from spikevideoformer.files import write_text
            from spikevideoformer.tasks.classification.page import prediction_page

            page = out.with_suffix(".html")
            write_text(page, prediction_page(self, result, surest[0][1], tell=tell))
            files["page"] = str(page)
        return result, files

    def _windows(
        self,
        video: VideoPath | VideoArray,
        frame_rate_hz: float | None,
        window_s: float | None,
        reading: Mapping[str, Any],
    ) -> tuple[str | None, Iterator[Clip]]:
        """The path of a video, and what the network sees of it: a clip for each window."""
        spec = self.clip
        each = spec.frames == 1 and spec.frame_rate_hz is None and window_s is None
        if isinstance(video, (np.ndarray, Tensor)):
            if each and frame_rate_hz:
                window_s = 1 / frame_rate_hz
            return None, _array_windows(video, frame_rate_hz, spec, window_s)
        path = path_of(video, frame_rate_hz)
        reading = {"resize_short": spec.size, **reading}
        if each:
            return path, _each_picture(seen(path, spec), spec, reading)
        return path, iter_windows(seen(path, spec), spec, window_s=window_s, **reading)

    def _result(
        self,
        path: str | None,
        windows: Iterator[Clip],
        top_k: int,
        batch_size: int | None,
        kept: Callable[[Clip, float], None] | None = None,
    ) -> PredictionResult:
        (result,) = self._run([(path, windows)], top_k, batch_size, kept)
        if isinstance(result, FailedPrediction):
            raise VideoError(result.path, result.reason)
        return result

    def _run(
        self,
        videos: Iterable[tuple[str | None, Iterator[Clip]]],
        top_k: int,
        batch_size: int | None,
        kept: Callable[[Clip, float], None] | None = None,
    ) -> Iterator[PredictionResult | FailedPrediction]:
        if batch_size is None:
            batch_size = 1 if self.device.type == "cpu" else 8
        for name, value in (("top_k", top_k), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name} is {value}; give at least 1")
        about = self.classes, top_k, self.engine, self.limit
        under_way: deque[_Tally] = deque()
        batch: list[tuple[_Tally, Clip]] = []
        for path, windows in videos:
            tally = _Tally(path)
            under_way.append(tally)
            try:
                for clip in windows:
                    tally.add_window(clip)
                    batch.append((tally, clip))
                    if len(batch) == batch_size:
                        self._forward(batch, batch_size, kept)
                        batch = []
            except VideoError as error:
                tally.failed = error.reason
                batch = [(other, clip) for other, clip in batch if other is not tally]
            tally.read = True
            while under_way and under_way[0].complete:
                yield under_way.popleft().result(*about)
        if batch:
            self._forward(batch, batch_size, kept)
        for tally in under_way:
            yield tally.result(*about)

    def _forward(
        self,
        batch: list[tuple[_Tally, Clip]],
        batch_size: int,
        kept: Callable[[Clip, float], None] | None,
    ) -> None:
        clips = [eval_transform(clip.frames, self.clip) for _, clip in batch]
        clips += [clips[0]] * (batch_size - len(clips))
        video = torch.stack(clips).to(self.device)  # [B, T, 3, H, W]
        logits, rates = self._run_network(video)
        logits = logits.double() / (self.model.temperature or 1.0)
        probabilities = logits.softmax(dim=1).cpu().numpy()  # [B, K]
        firing: Iterable[np.ndarray | None] = repeat(None)  # of a network without spikes
        if (added := layers_added(rates.per_frame, video.shape[1])) is not None:
            firing = (added / len(rates.per_frame)).T.cpu().numpy()  # [B, T]
        distances = self.distances(video, rates)
        for (tally, clip), p, r, d in zip(batch, probabilities, firing, distances, strict=False):
            tally.add_output(p, r, d)
            if kept is not None:
                kept(clip, float(p.max()))


@dataclass
class _Tally:
    """What is known of one video while its windows pass through the network."""

    path: str | None
    windows: list[tuple[float, float]] = field(default_factory=list)
    timestamps_s: list[list[float]] = field(default_factory=list)
    probabilities: list[np.ndarray] = field(default_factory=list)  # one [K] a window
    rates: list[float] = field(default_factory=list)  # one a frame; none without spikes
    distances: list[float] = field(default_factory=list)  # one a window, where they are known
    read: bool = False
    failed: str | None = None

    @property
    def complete(self) -> bool:
        have_all = len(self.probabilities) == len(self.windows)
        return self.read and (self.failed is not None or have_all)

    def add_window(self, clip: Clip) -> None:
        self.windows.append((clip.start_s, clip.end_s))
        # Frames past the end of the video, which repeat the last one, are not reported.
        self.timestamps_s.append(clip.timestamps_s[: clip.real_frames].tolist())

    def add_output(
        self, probabilities: np.ndarray, rates: np.ndarray | None, distance: float | None
    ) -> None:
        frames = len(self.timestamps_s[len(self.probabilities)])
        self.probabilities.append(probabilities)
        if rates is not None:
            self.rates += rates[:frames].tolist()
        if distance is not None:
            self.distances.append(distance)

    def result(
        self, classes: Sequence[str], top_k: int, engine: str, limit: float | None
    ) -> PredictionResult | FailedPrediction:
        if self.failed is not None:
            return FailedPrediction(path=self.path or "array", reason=self.failed)
        lasting = np.array([end - start for start, end in self.windows])
        shares = lasting / lasting.sum()  # of one window exactly 1
        distance = float(shares @ self.distances) if self.distances else None
        return PredictionResult(
            path=self.path,
            duration_s=self.windows[-1][1],
            labels=_best(shares @ np.stack(self.probabilities), classes, top_k),
            windows=tuple(
                WindowPrediction(start_s=start, end_s=end, labels=_best(p, classes, top_k))
                for (start, end), p in zip(self.windows, self.probabilities, strict=True)
            ),
            timestamps_s=tuple(time for window in self.timestamps_s for time in window),
            firing_rate=mean(self.rates),
            firing_rate_per_frame=tuple(self.rates) or None,
            engine=engine,
            distance=distance,
            unlike_training=is_beyond(distance, limit),
        )


def _best(probabilities: np.ndarray, classes: Sequence[str], top_k: int) -> tuple[Label, ...]:
    # Stable: of equally probable classes the one with the lower index comes first.
    order = np.argsort(-probabilities, kind="stable")[:top_k].tolist()
    return tuple(
        Label(name=classes[i], index=i, probability=float(probabilities[i])) for i in order
    )


def _unreadable(error: VideoError) -> Iterator[Clip]:
    """Windows of what is no video: the first of them is the error."""
    raise error
    yield  # never reached; with it the error waits until windows are asked for


def _each_picture(path: VideoName, spec: ClipSpec, reading: Mapping[str, Any]) -> Iterator[Clip]:
    """A window for each picture of a video, as long as one is shown at its mean rate."""
    opened = {n: reading[n] for n in ("limits", "sequence_rate_hz") if n in reading}
    window_s = 1 / probe(path, **opened).frame_rate_hz
    yield from iter_windows(path, spec, window_s=window_s, **reading)


def _array_windows(
    video: VideoArray, frame_rate_hz: float | None, spec: ClipSpec, window_s: float | None
) -> Iterator[Clip]:
    """Windows of an array, cut and sampled as `iter_windows` does it with a file."""
    frames, frame_rate_hz = checked_array(video, frame_rate_hz, spec)
    T = len(frames)
    duration_s = T / frame_rate_hz
    window_s = checked_window_s(spec, window_s) or duration_s
    # A sliver left over by rounding does not make a window.
    for i in range(max(1, math.ceil((duration_s - 1e-3) / window_s))):
        start_s, end_s = i * window_s, (i + 1) * window_s
        times = window_times(spec, start_s, end_s)
        shown = torch.tensor([min(int(time * frame_rate_hz + 1e-9), T - 1) for time in times])
        yield Clip(
            frames=frames[shown],
            timestamps_s=shown.double() / frame_rate_hz,
            path=Path("array"),
            start_s=start_s,
            end_s=min(end_s, duration_s),
            real_frames=max(1, sum(time < duration_s for time in times)),
        )
