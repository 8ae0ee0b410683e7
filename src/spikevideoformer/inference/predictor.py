"""From a video to labels with probabilities and firing rates.

Masks are in `segmenter`, poses in `pose_tracker`.

A video is read once, as a stream of windows; every window becomes one clip of the network, and
windows of several videos share a batch. The answer for the video is the mean of the probabilities
of its windows.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from spikevideoformer.data.transforms import eval_transform
from spikevideoformer.deploy.engine import InferenceEngine, cannot_run
from spikevideoformer.messages import one_line
from spikevideoformer.models.familiarity import profile
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.neuron import FiringRates, record_firing_rates
from spikevideoformer.tasks.pose.spec import PoseSpec
from spikevideoformer.tasks.segmentation.spec import SegmentationSpec
from spikevideoformer.video.clip import Clip
from spikevideoformer.video.frames import (
    SEQUENCE_RATE_HZ,
    DecodeLimits,
    VideoError,
    iter_windows,
    window_times,
)
from spikevideoformer.video.inputs import VideoArray, VideoPath, expand_inputs
from spikevideoformer.video.spec import ClipSpec

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Engine = Literal["auto", "model", "exact", "int8"]
AnySpec = ClipSpec | SegmentationSpec | PoseSpec
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Label:
    """One class and how probable it is.

    Attributes:
        name: of the class; its index as text where the model knows no names.
        index: position among the outputs of the model, from 0.
        probability: in [0, 1]; over all classes they sum to 1.
    """

    name: str
    index: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class WindowPrediction:
    """The most probable labels of one stretch of a video, best first."""

    start_s: float
    end_s: float
    labels: tuple[Label, ...]


@dataclass(frozen=True, kw_only=True)
class PredictionResult:
    """What the network sees in one video.

    Attributes:
        path: as it was given; None for an array.
        duration_s: of the video.
        labels: the most probable labels of the whole video, best first: the mean of the
            probabilities of its windows.
        windows: the same for each stretch of the video, in order of time.
        timestamps_s: when each frame that the network saw appears in the video.
        firing_rate: spikes per neuron and frame, mean over all layers of neurons and these frames;
            None for an ordinary network, which has no spikes.
        firing_rate_per_frame: the same for each of these frames, or None.
        engine: what ran the network: exact, int8 or model.
        distance: how unlike the training clips the video is, about 1 for one of them; None for a
            model that does not know (:class:`~spikevideoformer.models.familiarity.Familiarity`).
        unlike_training: whether that is beyond the model's limit, so that the labels say little;
            None where it does not know.
    """

    path: str | None
    duration_s: float
    labels: tuple[Label, ...]
    windows: tuple[WindowPrediction, ...]
    timestamps_s: tuple[float, ...] = field(repr=False)
    firing_rate: float | None
    firing_rate_per_frame: tuple[float, ...] | None = field(repr=False)
    engine: str
    distance: float | None = None
    unlike_training: bool | None = None

    def __repr__(self) -> str:
        labels = ", ".join(f"{label.name} {label.probability:.1%}" for label in self.labels[:3])
        about = about_run(self.duration_s, self.firing_rate, self.engine)
        doubt = "UNLIKE THE TRAINING CLIPS: " if self.unlike_training else ""
        return one_line(f"PredictionResult({self.path!r}, {doubt}{labels}, {about})")

    def _repr_html_(self) -> str:
        from spikevideoformer import notebook

        labels = [(label.name, label.probability) for label in self.labels]
        return notebook.card(
            repr(self),
            notebook.bars(labels, show="{:.1%}".format, largest=1.0, caption="probability"),
            rate_curve(self.timestamps_s, self.firing_rate_per_frame),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def about_run(duration_s: float, firing_rate: float | None, engine: str) -> str:
    """What all predictions say of themselves, in a few words."""
    rate = "" if firing_rate is None else f"firing rate {firing_rate:.3f}, "
    return f"{duration_s:.2f} s, {rate}engine {engine}"


def rate_curve(timestamps_s: Sequence[float], rates: Sequence[float] | None) -> str:
    """Firing rates over time for a notebook; nothing for a network without spikes."""
    from spikevideoformer import notebook

    if not rates:
        return ""
    return notebook.curve(timestamps_s, rates, caption="firing rate, spikes per neuron and frame")


@dataclass(frozen=True, kw_only=True)
class FailedPrediction:
    """A video that could not be read, and why, in one line."""

    path: str
    reason: str


class VideoPredictor:
    """A trained network and all that it takes to use it on videos.

    Args:
        model: a network for classification.
        clip: how a stretch of video becomes its input; None for ``model.clip``.
        classes: names of its outputs; None for ``model.classes``.
        device: auto (CUDA where there is one), cpu, cuda or cuda:1.
        precision: 32-true, bf16-mixed, or 16-mixed (CUDA only): as in training.
        engine: what runs the network: ``exact``, the fastest that fires the same spikes as the
            model in float32 (on CUDA but for rounding); ``int8``, faster still, with rounded
            weights; ``model``, the model as it is; ``auto``, exact on a CPU where it is possible,
            else the model.

    Attributes:
        engine: the one in use, never ``auto``.

    Raises:
        ValueError: settings that are unknown, absent from the model, or not possible here.
    """

    task: ClassVar[str] = "classification"
    _spec: ClassVar[type[AnySpec]] = ClipSpec
    clip: ClipSpec

    def __init__(
        self,
        model: SpikeVideoFormer,
        *,
        clip: AnySpec | None = None,
        classes: Sequence[str] | None = None,
        device: str = "auto",
        precision: Precision = "32-true",
        engine: Engine = "auto",
    ) -> None:
        if model.task != self.task:
            raise ValueError(
                f"the model is made for {model.task}, and {type(self).__name__} for {self.task}; "
                "VideoPredictor.from_pretrained(folder) chooses the right one"
            )
        if clip is None and model.clip is None:
            raise ValueError(
                f"the model does not say how clips are made; give clip={self._spec.__name__}(...)"
            )
        if precision not in get_args(Precision):
            raise ValueError(
                f"precision {precision!r} is unknown; "
                f"choose one of {', '.join(get_args(Precision))}"
            )
        given = clip if clip is not None else self._spec.from_dict(model.clip or {})
        if not isinstance(given, self._spec):
            raise ValueError(
                f"clip is a {type(given).__name__}; {self.task} takes a {self._spec.__name__}"
            )
        self.clip = given  # type: ignore[assignment]  # of the task's own class
        names = model.classes if classes is None else tuple(classes)
        self.classes = names or tuple(str(index) for index in range(model.num_classes))
        if len(self.classes) != model.num_classes:
            raise ValueError(
                f"got {len(self.classes)} class names for {model.num_classes} outputs of the model"
            )
        self.device = choose_device(device)
        if precision == "16-mixed" and self.device.type != "cuda":
            raise ValueError("precision 16-mixed needs CUDA; choose bf16-mixed or 32-true")
        self.precision = precision
        self.model = model.to(self.device).eval()
        self.engine = _choose_engine(engine, self.model, self.device, precision)
        self._run_network = self._run_model
        if self.engine in ("exact", "int8"):
            self._run_network = InferenceEngine(self.model, precision=self.engine).run

    def __repr__(self) -> str:
        what = "joints" if self.task == "pose" else "classes"
        names = ", ".join(self.classes[:3]) + (", ..." if len(self.classes) > 3 else "")
        side = getattr(self.clip, "size", None) or getattr(self.clip, "short_side", None)
        pixels = "whole pictures" if side is None else f"{side} pixels"
        return one_line(
            f"{type(self).__name__}({self.task}, {len(self.classes)} {what}: {names}; "
            f"{self.clip.frames} frames of {pixels}; {self.model.num_parameters():,} parameters; "
            f"engine {self.engine} on {self.device})"
        )

    @classmethod
    def from_pretrained(
        cls,
        folder: VideoPath,
        *,
        clip: AnySpec | None = None,
        device: str = "auto",
        precision: Precision = "32-true",
        engine: Engine = "auto",
    ) -> VideoPredictor:
        """Load a model folder, or a model of the Hugging Face hub.

        For a model that segments this is a ``segmenter.VideoSegmenter``, for one that finds poses
        a ``pose_tracker.PoseTracker``.

        Args:
            folder: ``config.json`` and ``model.safetensors``, or a hub id (owner/name).
            clip: as in :class:`VideoPredictor`.
            device: as in :class:`VideoPredictor`.
            precision: as in :class:`VideoPredictor`.
            engine: as in :class:`VideoPredictor`.

        Raises:
            ValueError: no usable model folder, or settings as in :class:`VideoPredictor`.
        """
        model = SpikeVideoFormer.from_pretrained(folder)
        if cls is VideoPredictor and model.task == "segmentation":
            from spikevideoformer.inference.segmenter import VideoSegmenter

            cls = VideoSegmenter
        if cls is VideoPredictor and model.task == "pose":
            from spikevideoformer.inference.pose_tracker import PoseTracker

            cls = PoseTracker
        return cls(model, clip=clip, device=device, precision=precision, engine=engine)

    def predict(
        self,
        video: VideoPath | VideoArray,
        *,
        frame_rate_hz: float | None = None,
        top_k: int = 5,
        window_s: float | None = None,
        batch_size: int | None = None,
        limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
        sequence_rate_hz: float = SEQUENCE_RATE_HZ,
    ) -> PredictionResult:
        """What is to be seen in one video.

        Args:
            video: a video file, a folder of numbered images, or frames as uint8 RGB.
            frame_rate_hz: of frames given as an array; files know their own.
            top_k: labels to report, at least 1.
            window_s: length of the windows the video is cut into, for a model that spreads its
                frames evenly; None takes the whole video as one. Models with a frame rate of their
                own have a fixed window.
            batch_size: windows that go through the network together, at least 1; None for 1 on a
                CPU, where more are hardly faster, and 8 on CUDA.
            limits: against files that unpack to far more than they seem.
            sequence_rate_hz: pictures per second of a folder of numbered images.

        Raises:
            VideoError: the video cannot be read.
            ValueError: wrong arguments, or an array that is no video.
        """
        if isinstance(video, (np.ndarray, Tensor)):
            windows = _array_windows(video, frame_rate_hz, self.clip, window_s)
            path = None
        else:
            path = path_of(video, frame_rate_hz)
            windows = self.clips(
                path, window_s=window_s, limits=limits, sequence_rate_hz=sequence_rate_hz
            )
        (result,) = self._run([(path, windows)], top_k, batch_size)
        if isinstance(result, FailedPrediction):
            raise VideoError(result.path, result.reason)
        return result

    def predict_many(
        self,
        inputs: VideoPath | VideoArray | Iterable[VideoPath | VideoArray],
        *,
        frame_rate_hz: float | None = None,
        top_k: int = 5,
        window_s: float | None = None,
        batch_size: int | None = None,
        limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
        sequence_rate_hz: float = SEQUENCE_RATE_HZ,
    ) -> Iterator[PredictionResult | FailedPrediction]:
        """Predict many videos, with windows of different videos in one batch.

        No more than a batch of windows is in memory at a time. A result does not depend on the
        other videos: every batch has the same shape (the last one is filled up), because sums of
        another shape round differently and a spike more or less follows from that.

        Args:
            inputs: one or several of: video files, folders of videos or of numbered images, globs,
                arrays of frames. `inputs.expand_inputs` says what each stands for; a file that is
                meant twice is predicted once.
            frame_rate_hz: of the arrays among them.
            top_k: as in :meth:`predict`.
            window_s: as in :meth:`predict`.
            batch_size: as in :meth:`predict`.
            limits: as in :meth:`predict`.
            sequence_rate_hz: as in :meth:`predict`.

        Yields:
            One result for each video, in order: a prediction, or why there is none; the latter,
            too, for an input in which there is no video.

        Raises:
            ValueError: wrong arguments, or an array that is no video.
        """
        if isinstance(inputs, (str, int, os.PathLike, np.ndarray, Tensor)):
            inputs = [inputs]

        reading: dict[str, Any] = {"limits": limits, "sequence_rate_hz": sequence_rate_hz}

        def read() -> Iterator[tuple[str | None, Iterator[Clip]]]:
            for video in expand_inputs(inputs):
                if isinstance(video, VideoError):
                    yield str(video.path), _unreadable(video)
                elif isinstance(video, str):
                    yield video, self.clips(video, window_s=window_s, **reading)
                else:
                    yield None, _array_windows(video, frame_rate_hz, self.clip, window_s)

        yield from self._run(read(), top_k, batch_size)

    def clips(
        self,
        path: VideoPath,
        *,
        window_s: float | None = None,
        limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
        sequence_rate_hz: float = SEQUENCE_RATE_HZ,
    ) -> Iterator[Clip]:
        """What the network sees of a file: one clip for each window of its prediction.

        Arguments and errors as :meth:`predict`.
        """
        return iter_windows(
            os.fspath(path),
            self.clip,
            window_s=window_s,
            resize_short=self.clip.size,
            limits=limits,
            sequence_rate_hz=sequence_rate_hz,
        )

    def _run(
        self,
        videos: Iterable[tuple[str | None, Iterator[Clip]]],
        top_k: int,
        batch_size: int | None,
    ) -> Iterator[PredictionResult | FailedPrediction]:
        if batch_size is None:
            batch_size = 1 if self.device.type == "cpu" else 8
        for name, value in (("top_k", top_k), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name} is {value}; give at least 1")
        familiarity = self.model.familiarity
        limit = None if familiarity is None else familiarity.limit
        about = self.classes, top_k, self.engine, limit
        under_way: deque[_Tally] = deque()
        batch: list[tuple[_Tally, Tensor]] = []
        for path, windows in videos:
            tally = _Tally(path)
            under_way.append(tally)
            try:
                for clip in windows:
                    tally.add_window(clip)
                    batch.append((tally, eval_transform(clip.frames, self.clip)))
                    if len(batch) == batch_size:
                        self._forward(batch, batch_size)
                        batch = []
            except VideoError as error:
                tally.failed = error.reason
                batch = [(other, video) for other, video in batch if other is not tally]
            tally.read = True
            while under_way and under_way[0].complete:
                yield under_way.popleft().result(*about)
        if batch:
            self._forward(batch, batch_size)
        for tally in under_way:
            yield tally.result(*about)

    def _forward(self, batch: list[tuple[_Tally, Tensor]], batch_size: int) -> None:
        clips = [clip for _, clip in batch]
        clips += [clips[0]] * (batch_size - len(clips))
        video = torch.stack(clips).to(self.device)  # [B, T, 3, H, W]
        logits, rates = self._run_network(video)
        logits = logits.double() / (self.model.temperature or 1.0)
        probabilities = logits.softmax(dim=1).cpu().numpy()  # [B, K]
        firing: Iterable[np.ndarray | None] = repeat(None)  # of a network without spikes
        if rates.per_frame:
            layers = list(rates.per_frame.values())  # [T, B] each
            # added one after the other: torch's own sum rounds by the place in the batch
            firing = (sum(layers[1:], layers[0]) / len(layers)).T.cpu().numpy()  # [B, T]
        distances: Iterable[float | None] = repeat(None)
        if self.model.familiarity is not None:
            distances = self.model.familiarity.distances(profile(video, rates)).tolist()
        for (tally, _), p, r, d in zip(batch, probabilities, firing, distances, strict=False):
            tally.add_output(p, r, d)

    def _run_model(self, video: Tensor) -> tuple[Any, FiringRates]:
        low = _AUTOCAST.get(self.precision)
        autocast = nullcontext() if low is None else torch.autocast(self.device.type, low)
        with torch.inference_mode(), autocast, record_firing_rates(self.model) as rates:
            return self.model(video), rates


def path_of(video: VideoPath, frame_rate_hz: float | None) -> str:
    """The path of a video that is no array; ValueError where a rate is given with it."""
    if frame_rate_hz is not None:
        raise ValueError(
            "frame_rate_hz is for arrays; a video file knows its own times, and a folder of images "
            "takes sequence_rate_hz"
        )
    return str(video) if isinstance(video, int) else os.fspath(video)  # the number of a camera


def checked_array(video: VideoArray, frame_rate_hz: float | None) -> tuple[Tensor, float]:
    """An array as tensor ``[T, H, W, 3]``, and its rate; ValueError where it is no video."""
    frames = torch.as_tensor(video)
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != torch.uint8 or 0 in frames.shape:
        raise ValueError(
            f"got an array {frames.dtype} {tuple(frames.shape)}; expected uint8 RGB frames "
            "[T, H, W, 3] with values 0 to 255"
        )
    if frame_rate_hz is None or not (math.isfinite(frame_rate_hz) and frame_rate_hz > 0):
        raise ValueError(
            f"frame_rate_hz is {frame_rate_hz}; an array does not know its times, give the rate"
        )
    return frames, frame_rate_hz


def _choose_engine(
    name: Engine, model: SpikeVideoFormer, device: torch.device, precision: Precision
) -> Literal["model", "exact", "int8"]:
    if name not in get_args(Engine):
        raise ValueError(f"engine {name!r} is unknown; choose one of {', '.join(get_args(Engine))}")
    possible = precision == "32-true"
    if name == "auto":  # only where it changes no number, which on CUDA is not promised
        same = possible and device.type == "cpu" and cannot_run(model) is None
        return "exact" if same else "model"
    if name != "model" and not possible:
        raise ValueError(
            f"engine {name} runs in precision 32-true, not in {precision}; choose engine model or "
            "auto"
        )
    return name


def choose_device(name: str) -> torch.device:
    """The device that a user asks for.

    Args:
        name: auto (CUDA where there is one), cpu, cuda, or cuda with a number.

    Raises:
        ValueError: unknown, or not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name!r} is unknown; choose auto, cpu, cuda or cuda:0")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"device {name!r} is not there ({count} CUDA devices found); choose cpu")
    return device


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
        distance = math.fsum(self.distances) / len(self.distances) if self.distances else None
        return PredictionResult(
            path=self.path,
            duration_s=self.windows[-1][1],
            labels=_best(np.mean(self.probabilities, axis=0), classes, top_k),
            windows=tuple(
                WindowPrediction(start_s=start, end_s=end, labels=_best(p, classes, top_k))
                for (start, end), p in zip(self.windows, self.probabilities, strict=True)
            ),
            timestamps_s=tuple(time for window in self.timestamps_s for time in window),
            firing_rate=math.fsum(self.rates) / len(self.rates) if self.rates else None,
            firing_rate_per_frame=tuple(self.rates) or None,
            engine=engine,
            distance=distance,
            unlike_training=None if distance is None or limit is None else distance > limit,
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


def _array_windows(
    video: VideoArray, frame_rate_hz: float | None, spec: ClipSpec, window_s: float | None
) -> Iterator[Clip]:
    """Windows of an array, cut and sampled as `iter_windows` does it with a file."""
    frames, frame_rate_hz = checked_array(video, frame_rate_hz)
    T = len(frames)
    duration_s = T / frame_rate_hz
    if spec.frame_rate_hz is not None:
        if window_s is not None:
            raise ValueError(
                f"the windows of this model last {spec.frames / spec.frame_rate_hz:g} s; "
                "leave out window_s"
            )
        window_s = spec.frames / spec.frame_rate_hz
    elif window_s is None:
        window_s = duration_s
    elif not (math.isfinite(window_s) and window_s > 0):
        raise ValueError(f"window_s must be above 0, got {window_s}")
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
