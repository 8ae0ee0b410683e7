"""Something of every frame of a video, as a stream: memory does not grow with the video."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from torch import Tensor

from spikevideoformer.data.transforms import eval_transform
from spikevideoformer.inference.answer import Tally, Tell
from spikevideoformer.inference.base import Predictor, Result, layers_added
from spikevideoformer.video.drawing import constant_rate, playable_rate, write_playable
from spikevideoformer.video.frames import Pictures
from spikevideoformer.video.inputs import VideoArray, VideoPath
from spikevideoformer.video.interface import Reading


class StreamPredictor(Predictor[Result]):
    """A network that says something of every frame, or of every few of them.

    A task says what: `_frame` and `_prediction` are its types, `_named` what the network says of
    frames by the names that they have there, and `_drawer` how a frame is drawn. Where frames are
    no squares of a video (`ClipSpec`) it has `_answers` and `_result` of its own, and `_beside`
    where something is written beside the drawn video.
    """

    _kept: ClassVar[tuple[str, ...]]
    """Arrays of a frame that the prediction keeps."""
    _frame: ClassVar[type[Any]]
    _prediction: ClassVar[type[Any]]

    def stream(
        self,
        video: VideoPath | VideoArray,
        *,
        frame_rate_hz: float | None = None,
        **reading: Unpack[Reading],
    ) -> Iterator[Any]:
        """The frames of a video with what there is in them, as they are computed.

        Args:
            video: a video file, a folder of numbered images, or frames as uint8 RGB.
            frame_rate_hz: of frames given as an array; files know their own.
            **reading: ``limits`` and ``sequence_rate_hz``, see `Reading`.

        Yields:
            Every ``step``-th picture of the video, in order.

        Raises:
            VideoError: the video cannot be read, as soon as damage shows.
            ValueError: wrong arguments, an array that is no video, or outputs of the model that
                are NaN or infinite.
        """
        return self._answers(self._open(video, frame_rate_hz, reading))

    def predict(
        self,
        video: VideoPath | VideoArray,
        *,
        frame_rate_hz: float | None = None,
        progress: Tell | None = None,
        **reading: Unpack[Reading],
    ) -> Result:
        """What there is in one video; ``progress`` is told about each frame.

        Other arguments and errors as of :meth:`stream`.
        """
        pictures = self._open(video, frame_rate_hz, reading)
        tally = self._tally(pictures, progress)
        for _ in tally.watch(self._answers(pictures)):
            pass
        return self._result(tally, pictures.path)

    def write(
        self,
        video: VideoPath,
        out: str | Path,
        *,
        progress: Tell | None = None,
        **reading: Unpack[Reading],
    ) -> tuple[Result, dict[str, str]]:
        """Predict a video and draw what there is in it, in one pass.

        Until the drawn video is complete it is ``<stem>.part.mp4``, which can be played at any
        time; an interrupted run leaves it there, and the next one overwrites it.

        Args:
            video: a video file or a folder of numbered images.
            out: file to write (``.mp4``), with a constant frame rate.
            progress: told about each frame.
            **reading: as of :meth:`stream`.

        Returns:
            The prediction, and the files that were written by what they are.

        Raises:
            VideoError: the video cannot be decoded or written.
            ValueError: as in :meth:`stream`.
        """
        return self._write(video, self._target(video, out), progress, reading)

    def _write(
        self,
        video: VideoPath,
        out: Path,
        progress: Tell | None,
        reading: Reading,
        each: Callable[[int, Any], None] = lambda _number, _frame: None,
    ) -> tuple[Result, dict[str, str]]:
        """As `write`; `each` is called with every frame and its number."""
        pictures = self._open(video, None, reading)
        tally = self._tally(pictures, progress)

        def frames() -> Iterator[tuple[float, Any]]:
            for number, frame in enumerate(tally.watch(self._answers(pictures))):
                each(number, frame)
                yield frame.timestamp_s, frame

        rate_hz = playable_rate(pictures.frame_rate_hz / self._step(pictures.frame_rate_hz))
        shown = constant_rate(frames(), rate_hz)
        draw = self._drawer()
        write_playable(out, (draw(frame) for _, frame in shown), rate_hz)
        result = self._result(tally, pictures.path)
        return result, {"annotated": str(out), **self._beside(result, out)}

    def _tally(self, pictures: Pictures, progress: Tell | None) -> Tally[Any]:
        total = pictures.count
        if total is not None:
            total = math.ceil(total / self._step(pictures.frame_rate_hz))
        return Tally(self._kept, progress, total, self.limit)

    def _step(self, frame_rate_hz: float) -> int:
        """Pictures of a video from one frame to the next."""
        return 1

    def _answers(self, pictures: Pictures) -> Iterator[Any]:
        """The frames with what there is in them: T go through the network at a time.

        At the end of the video the last one is repeated.
        """
        T = self.clip.frames
        while held := list(islice(pictures.frames, T)):
            images = np.stack([frame.image for frame in held + held[-1:] * (T - len(held))])
            video = eval_transform(torch.from_numpy(images), self.clip)[None].to(self.device)
            output, rates = self._run_network(video)
            fired = mean_rates(rates.per_frame, T)
            (distance,) = self.distances(video, rates)
            named = self._named(output)
            for t, frame in enumerate(held):
                yield self._frame(
                    timestamp_s=frame.timestamp_s,
                    duration_s=frame.duration_s,
                    image=frame.image,
                    firing_rate=None if fired is None else float(fired[t]),
                    distance=distance,
                    **{name: values[t] for name, values in named.items()},
                )
            held.clear()  # before the next pictures are read

    def _named(self, output: Any) -> dict[str, np.ndarray]:
        """What the network says of T frames, `[T, ...]` by the names in `_kept`."""
        raise NotImplementedError

    def _result(self, tally: Tally[Any], path: str | None) -> Result:
        """What stays of the frames."""
        kept = {name: tally.values(name) for name in self._kept}
        result: Result = self._prediction(path=path, engine=self.engine, **kept, **tally.about())
        return result

    def _drawer(self) -> Callable[[Any], np.ndarray]:
        """What draws the frames of one video, one after the other, uint8 [H', W', 3]."""
        raise NotImplementedError

    def _beside(self, result: Result, out: Path) -> dict[str, str]:
        """Write what stands beside the drawn video; the files by what they are."""
        return {}


def mean_rates(per_frame: dict[str, Tensor], frames: int) -> Tensor | None:
    """Spikes per neuron in each frame, mean over layers and clips ``[T]``; None without spikes."""
    added = layers_added(per_frame, frames)
    return None if added is None else added.mean(1) / len(per_frame)
