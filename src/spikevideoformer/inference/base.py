"""A trained network, its settings and engine: what the predictors of all tasks share.

What a task does with it is in `predictor` (labels of windows), `segmenter` and `pose_tracker`
(something of every frame, see `stream`).
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

from spikevideoformer.deploy.engine import InferenceEngine, cannot_run
from spikevideoformer.files import part_of
from spikevideoformer.inference.answer import FailedPrediction
from spikevideoformer.messages import one_line, require_finite, require_known
from spikevideoformer.models.familiarity import profile
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, unusable
from spikevideoformer.nn.neuron import FiringRates, record_firing_rates
from spikevideoformer.task import get_task
from spikevideoformer.video.event_pictures import seen
from spikevideoformer.video.frames import Pictures, VideoError, VideoFrame, open_pictures
from spikevideoformer.video.inputs import VideoArray, VideoPath, expand_inputs
from spikevideoformer.video.interface import Reading

log = logging.getLogger("spikevideoformer")

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Engine = Literal["auto", "model", "exact", "float", "int16", "int8"]
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}

Result = TypeVar("Result")


class Predictor(Generic[Result]):
    """A trained network and all that it takes to use it on videos.

    Args:
        model: a network for the task.
        clip: how pictures become its input; None for ``model.clip``.
        classes: names of its outputs; None for ``model.classes``.
        device: auto (CUDA where there is one), cpu, cuda or cuda:1.
        precision: 32-true, bf16-mixed, or 16-mixed (CUDA only): as in training.
        engine: what runs the network: ``float``, ``int16`` and ``int8``, with integer weights of
            24, 16 and 8 bits, each with the same spikes on every machine; ``exact``, with the
            spikes of the model in float32 on this machine (on CUDA but for rounding); ``model``,
            the model as it is; ``auto``, float on a CPU where it is possible, else the model.

    Attributes:
        engine: the one in use, never ``auto``.

    Raises:
        ValueError: settings that are unknown, absent from the model, or not possible here.
    """

    task: ClassVar[str]
    shares_batches: ClassVar[bool] = False
    """Whether `predict_many` puts several videos into one batch."""

    # Of each task its own: what there is in one video; and the same drawn into a video, in one pass
    # over the pictures, with the files that were written by what they are.
    predict: Callable[..., Result]
    write: Callable[..., tuple[Result, dict[str, str]]]

    def __init__(
        self,
        model: SpikeVideoFormer,
        *,
        clip: Any = None,
        classes: Sequence[str] | None = None,
        device: str = "auto",
        precision: Precision = "32-true",
        engine: Engine = "auto",
    ) -> None:
        spec_type: Any = get_task(self.task).spec_type
        if model.task != self.task:
            raise ValueError(
                f"the model is made for {model.task}, and {type(self).__name__} for {self.task}; "
                "VideoPredictor.from_pretrained(folder) chooses the right one"
            )
        if clip is None and model.clip is None:
            raise ValueError(
                f"{model.source or 'the model'} does not say how clips are made; "
                f"give clip={spec_type.__name__}(...)"
            )
        if precision not in get_args(Precision):
            raise ValueError(
                f"precision {precision!r} is unknown; "
                f"choose one of {', '.join(get_args(Precision))}"
            )
        given = clip if clip is not None else spec_type.from_dict(model.clip or {})
        if not isinstance(given, spec_type):
            raise ValueError(
                f"clip is a {type(given).__name__}; {self.task} takes a {spec_type.__name__}"
            )
        self.clip: Any = given
        names = model.classes if classes is None else tuple(classes)
        self.classes = names or tuple(str(index) for index in range(model.num_classes))
        if len(self.classes) != model.num_classes:
            raise ValueError(
                f"got {len(self.classes)} class names for {model.num_classes} outputs of the model"
            )
        if (fault := unusable(model.state_dict())) is not None:  # neurons would hide it
            raise ValueError(f"the model cannot be used: {fault}; train it again")
        self.device = choose_device(device)
        if precision == "16-mixed" and self.device.type != "cuda":
            raise ValueError("precision 16-mixed needs CUDA; choose bf16-mixed or 32-true")
        self.precision = precision
        self._lock = threading.Lock()
        self.model = model.to(self.device).eval()
        self.engine = _choose_engine(engine, self.model, self.device, precision)
        self._network = self._run_model
        if self.engine != "model":
            try:
                self._network = InferenceEngine(self.model, precision=self.engine).run
            except ValueError as error:
                if engine != "auto" or next(self.model.parameters()).dtype != torch.float32:
                    raise
                log.warning("%s; the model runs as it is", error)
                self.engine = "model"

    def __repr__(self) -> str:
        what = "classes" if self.model.body is None else "joints"
        names = ", ".join(self.classes[:3]) + (", ..." if len(self.classes) > 3 else "")
        side = getattr(self.clip, "size", None) or getattr(self.clip, "short_side", None)
        pixels = "whole pictures" if side is None else f"{side} pixels"
        return one_line(
            f"{type(self).__name__}({self.task}, {len(self.classes)} {what}: {names}; "
            f"{self.clip.frames} frames of {pixels}; {self.model.num_parameters():,} parameters; "
            f"engine {self.engine} on {self.device})"
        )

    @classmethod
    def from_pretrained(cls, folder: VideoPath, **settings: Any) -> Self:
        """Load a model folder, or a model of the Hugging Face hub.

        Args:
            folder: ``config.json`` and ``model.safetensors``; svf/NAME, of the networks in the box
                (`models.box`); or a hub id (owner/name).
            **settings: as of the class.

        Raises:
            ValueError: no usable model folder, or settings as of the class.
        """
        return cls(SpikeVideoFormer.from_pretrained(folder), **settings)

    def predict_many(
        self,
        inputs: VideoPath | VideoArray | Iterable[VideoPath | VideoArray],
        *,
        frame_rate_hz: float | None = None,
        **options: Any,
    ) -> Iterator[Result | FailedPrediction]:
        """Predict many videos, one after the other.

        Args:
            inputs: one or several of: video files, folders of videos or of numbered images, globs,
                arrays of frames. `inputs.expand_inputs` says what each stands for; a file that is
                meant twice is predicted once.
            frame_rate_hz: of the arrays among them.
            **options: as of ``predict``.

        Yields:
            One result for each video, in order: a prediction, or why there is none; the latter,
            too, for an input in which there is no video.

        Raises:
            ValueError: wrong arguments, or an array that is no video.
        """
        for video in expanded(inputs):
            try:
                if isinstance(video, VideoError):
                    raise video
                rate_hz = None if isinstance(video, str) else frame_rate_hz
                yield self.predict(video, frame_rate_hz=rate_hz, **options)
            except VideoError as error:
                yield FailedPrediction(path=str(error.path), reason=error.reason)

    def _target(self, video: VideoPath, out: str | Path) -> Path:
        """Where a video is drawn; ValueError for an array, which is no file."""
        if isinstance(video, (np.ndarray, Tensor)):
            raise ValueError(
                "write takes a video file or a folder of images; for an array use predict"
            )
        return Path(out)

    def _open(
        self, video: VideoPath | VideoArray, frame_rate_hz: float | None, reading: Reading
    ) -> Pictures:
        """A video of any kind, opened."""
        if isinstance(video, (np.ndarray, Tensor)):
            return _array_pictures(*checked_array(video, frame_rate_hz, self.clip))
        return open_pictures(seen(path_of(video, frame_rate_hz), self.clip), **reading)

    @property
    def limit(self) -> float | None:
        """Distance from which a video is unlike the training clips; None where it is not known."""
        return None if self.model.familiarity is None else self.model.familiarity.limit

    def distances(self, video: Tensor, rates: FiringRates) -> list[float] | list[None]:
        """How unlike the training clips those of a batch are, by what fired; None unknown."""
        if self.model.familiarity is None:
            return [None] * len(video)
        return self.model.familiarity.distances(profile(video, rates)).tolist()

    def _run_network(self, video: Tensor) -> tuple[Any, FiringRates]:
        """Output and firing rates; ValueError for an output that is NaN or infinite."""
        output, rates = self._network(video)
        parts = output if isinstance(output, tuple) else (output,)
        require_finite(all(bool(part.isfinite().all()) for part in parts))
        return output, rates

    def _run_model(self, video: Tensor) -> tuple[Any, FiringRates]:
        low = _AUTOCAST.get(self.precision)
        autocast = nullcontext() if low is None else torch.autocast(self.device.type, low)
        # one clip at a time: threads would count each other's spikes
        with self._lock, torch.inference_mode(), autocast, record_firing_rates(self.model) as rates:
            return self.model(video), rates


def annotated_names(videos: Sequence[str], out: Path) -> dict[str, Path]:
    """Where the annotated form of each video goes: no two to one file, none onto an input.

    Nor does the file go onto an input that holds a video until it is complete.
    """
    taken = {os.path.realpath(video).casefold() for video in videos}
    targets = {}
    for video in videos:
        stem = Path(os.path.abspath(video)).stem
        number = 1
        while True:
            target = out / (f"{stem}.svf.mp4" if number == 1 else f"{stem}-{number}.svf.mp4")
            whole = (target, target.with_suffix(".side.mp4"))
            # Some file systems take names that differ in case only for the same.
            keys = {os.path.realpath(p).casefold() for p in (*whole, *map(part_of, whole))}
            if not keys & taken:
                break
            number += 1
        taken |= keys
        targets[video] = target
    return targets


def layers_added(per_frame: Mapping[str, Tensor], frames: int) -> Tensor | None:
    """Firing rates ``[T, B]`` of all layers added up; None without spikes.

    One after the other: torch's own sum rounds by the place in the batch. Of a layer that ran on
    more frames than there are, or fewer (a picture repeated, a mean over time), the mean counts.
    """
    if not per_frame:
        return None
    first, *others = (
        rate if len(rate) == frames else rate.mean(0).expand(frames, -1)
        for rate in per_frame.values()
    )
    return sum(others, first)


def expanded(
    inputs: VideoPath | VideoArray | Iterable[VideoPath | VideoArray],
) -> Iterator[str | VideoArray | VideoError]:
    """The videos that one or several inputs stand for, as `expand_inputs` gives them."""
    if isinstance(inputs, (str, int, os.PathLike, np.ndarray, Tensor)):
        inputs = [inputs]
    return expand_inputs(inputs)


def path_of(video: VideoPath, frame_rate_hz: float | None) -> str:
    """The path of a video that is no array; ValueError where a rate is given with it."""
    if frame_rate_hz is not None:
        raise ValueError(
            "frame_rate_hz is for arrays; a video file knows its own times, and a folder of images "
            "takes sequence_rate_hz"
        )
    return str(video) if isinstance(video, int) else os.fspath(video)  # the number of a camera


def checked_array(
    video: VideoArray, frame_rate_hz: float | None, spec: Any
) -> tuple[Tensor, float]:
    """An array as tensor ``[T, H, W, 3]``, and its rate; ValueError where it is no video."""
    if getattr(spec, "input", "rgb") == "events" and not hasattr(spec, "camera"):
        raise ValueError("the network sees events, and an array holds pictures; give a file")
    if isinstance(video, np.ndarray):  # torch takes no views that run backwards: BGR read as RGB
        video = np.ascontiguousarray(video)
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


def _array_pictures(frames: Tensor, frame_rate_hz: float) -> Pictures:
    images = frames.cpu().numpy()
    return Pictures(
        path=None,
        frame_rate_hz=frame_rate_hz,
        count=len(images),
        height=images.shape[1],
        width=images.shape[2],
        frames=(
            VideoFrame(timestamp_s=i / frame_rate_hz, duration_s=1 / frame_rate_hz, image=image)
            for i, image in enumerate(images)
        ),
    )


def _choose_engine(
    name: Engine, model: SpikeVideoFormer, device: torch.device, precision: Precision
) -> Literal["model", "exact", "float", "int16", "int8"]:
    require_known("engine", name, get_args(Engine))
    possible = precision == "32-true"
    if name == "auto":  # on CUDA no engine has been timed
        return "float" if possible and device.type == "cpu" and not cannot_run(model) else "model"
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
