"""From a video to a mask for each frame, as a stream: memory does not grow with the video.

Pictures are read one at a time and go through the network as clips of T frames, cut as in training:
with a ``step`` of s, s clips lie interleaved in s * T frames, and no more than these are in memory.
At the end of the video clips are shorter, for membranes and attention take any number of frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from torch import Tensor

from spikevideoformer.files import write_atomically
from spikevideoformer.inference.answer import Tally, Tell
from spikevideoformer.inference.base import Engine, Precision
from spikevideoformer.inference.stream import StreamPredictor, mean_rates
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.tasks.segmentation.answer import SegmentationPrediction, SegmentedFrame
from spikevideoformer.tasks.segmentation.dataset import picture_input
from spikevideoformer.tasks.segmentation.draw import Overlay, plot_areas
from spikevideoformer.tasks.segmentation.masks import distinct_palette, write_mask
from spikevideoformer.tasks.segmentation.sequence import IGNORED
from spikevideoformer.tasks.segmentation.spec import SegmentationSpec
from spikevideoformer.tasks.segmentation.tiling import class_scores, upsampled_classes
from spikevideoformer.video.frames import Pictures
from spikevideoformer.video.inputs import VideoArray, VideoPath
from spikevideoformer.video.interface import Reading


class VideoSegmenter(StreamPredictor[SegmentationPrediction]):
    """A network that segments, and all that it takes to use it on videos.

    ``clip`` is a `SegmentationSpec`, names of ``classes`` are all different, and ``palette`` has a
    colour for each (None: those of the model, or colours that differ). ``window``, ``scales`` and
    ``flip`` are those of `tiling.class_scores`; the network learned from windows of ``clip.crop``.
    Other arguments and errors as of :class:`~spikevideoformer.inference.base.Predictor`.
    """

    task: ClassVar[str] = "segmentation"
    _kept = ("area",)
    clip: SegmentationSpec

    def __init__(
        self,
        model: SpikeVideoFormer,
        *,
        clip: SegmentationSpec | None = None,
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

    segment = StreamPredictor.stream

    def _answers(self, pictures: Pictures) -> Iterator[SegmentedFrame]:
        T, step, frames = self.clip.frames, self.clip.step, pictures.frames
        while held := list(islice(frames, T * step)):
            inputs = [picture_input(torch.from_numpy(f.image)[None], self.clip) for f in held]
            video = torch.cat(inputs)  # [t, 3, h, w]
            seen: list[Any] = [None] * len(held)  # of each frame: scores [K, h, w], rate, distance
            for first in range(min(step, len(held))):
                seen[first::step] = zip(*self._scores(video[first::step]), strict=True)
            for frame, (scores, firing_rate, distance) in zip(held, seen, strict=True):
                mask = upsampled_classes(scores, frame.image.shape[:2]).cpu().numpy()
                counts = np.bincount(mask.ravel(), minlength=len(self.classes))
                yield SegmentedFrame(
                    timestamp_s=frame.timestamp_s,
                    duration_s=frame.duration_s,
                    image=frame.image,
                    mask=mask,
                    area=(counts / mask.size).astype(np.float32),
                    firing_rate=firing_rate,
                    distance=distance,
                )
            held.clear()  # before the next clip is read

    def _scores(
        self, video: Tensor
    ) -> tuple[Tensor, list[float] | list[None], list[float] | list[None]]:
        """Of each frame: probabilities ``[t, K, h, w]``, firing rate, and distance of the clip.

        Firing rates are means over all looks at the clip; the distance is known of whole pictures
        only, as they were measured.
        """
        firing: list[Tensor] = []
        distances: list[float] | list[None] = [None]
        whole = self.window is None and self.scales == (1.0,) and not self.flip

        def look(video: Tensor) -> Tensor:
            nonlocal distances
            logits, rates = self._run_network(video)
            if (mean := mean_rates(rates.per_frame, video.shape[1])) is not None:
                firing.append(mean)  # [t]
            if whole:
                distances = self.distances(video, rates)
            return logits

        with torch.inference_mode():
            scores = class_scores(
                look,
                video.to(self.device),
                window=self.window,
                scales=self.scales,
                flip=self.flip,
            )
        t = len(video)
        rates = torch.stack(firing).mean(0).tolist() if firing else [None] * t
        return scores, rates, distances * t

    def predict(
        self,
        video: VideoPath | VideoArray,
        *,
        frame_rate_hz: float | None = None,
        keep_masks: bool = True,
        progress: Tell | None = None,
        **reading: Unpack[Reading],
    ) -> SegmentationPrediction:
        """What is to be seen where in one video; arguments and errors as of the base class.

        With ``keep_masks`` the masks are returned: a byte for each pixel of the video, and as much
        again while they are put together; :meth:`segment` gives them one at a time.
        """
        pictures = self._open(video, frame_rate_hz, reading)
        tally = self._tally(pictures, progress)
        frames = tally.watch(self._answers(pictures))
        masks = [frame.mask if keep_masks else None for frame in frames]
        kept = np.stack(masks) if keep_masks else None  # type: ignore[arg-type]
        return self._result(tally, pictures.path, kept)

    def write(
        self,
        video: VideoPath,
        out: str | Path,
        *,
        masks: bool = False,
        progress: Tell | None = None,
        **reading: Unpack[Reading],
    ) -> tuple[SegmentationPrediction, dict[str, str]]:
        """Segment a video and draw its masks over it, in one pass; otherwise as the base class.

        Args:
            video: a video file or a folder of numbered images.
            out: file to write (``.mp4``); areas stand beside it as numbers and as a plot.
            masks: also write the mask of each frame of the source into ``<stem>.masks``, as
                ``000000.png`` and so on, whose pixel values are class indices. Those of a longer
                video that was written there before are removed.
            progress: told about each frame.
            **reading: as of :meth:`segment`.
        """
        target = self._target(video, out)
        folder = target.with_suffix(".masks")
        if masks:
            folder.mkdir(parents=True, exist_ok=True)

        def keep(number: int, frame: SegmentedFrame) -> None:
            if masks:
                write_mask(folder / f"{number:06d}.png", frame.mask, self.palette)

        result, files = self._write(video, target, progress, reading, keep)
        if masks:
            for old in folder.glob("*.png"):
                if old.stem.isdecimal() and int(old.stem) >= len(result.timestamps_s):
                    old.unlink()
            files["masks"] = str(folder)
        return result, files

    def _result(
        self, tally: Tally[SegmentedFrame], path: str | None, masks: np.ndarray | None = None
    ) -> SegmentationPrediction:
        area = tally.values("area")
        return SegmentationPrediction(
            path=path,
            classes=self.classes,
            masks=masks,
            area=area,
            mean_area=area.mean(axis=0, dtype=np.float64).astype(np.float32),
            engine=self.engine,
            **tally.about(),
        )

    def _drawer(self) -> Callable[[SegmentedFrame], np.ndarray]:
        return Overlay(self.classes, self.palette).draw

    def _beside(self, result: SegmentationPrediction, out: Path) -> dict[str, str]:
        """The areas of classes as numbers and as a plot."""
        data, plot = map(out.with_suffix, (".json", ".areas.png"))
        plot_areas(result, self.palette, plot)
        write_atomically(data, result.write_json)
        return {"json": str(data), "plot": str(plot)}
