"""What a network says of a video: the class of each pixel of each frame."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from spikevideoformer.messages import one_line
from spikevideoformer.tasks.answer import about_run, doubt, rate_curve
from spikevideoformer.tasks.segmentation.masks import distinct_palette


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
        distance: how unlike the training clips the clip is that it was seen in, about 1 for one of
            them; None for a model that does not know.
    """

    timestamp_s: float
    duration_s: float
    image: np.ndarray
    mask: np.ndarray
    area: np.ndarray
    firing_rate: float | None
    distance: float | None = None

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
        distance: how unlike the training clips the video is, about 1 for one of them; None for a
            model that does not know (:class:`~spikevideoformer.models.familiarity.Familiarity`).
        unlike_training: whether that is beyond the model's limit, so that the answer says little;
            None where it does not know.
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
    distance: float | None = None
    unlike_training: bool | None = None

    def __repr__(self) -> str:
        largest = sorted(zip(self.mean_area.tolist(), self.classes, strict=True), reverse=True)[:3]
        shares = ", ".join(f"{name} {share:.1%}" for share, name in largest if share > 0)
        about = about_run(self.duration_s, self.firing_rate, self.engine)
        frames = f"{len(self.timestamps_s)} frames"
        shares = doubt(self.unlike_training) + shares
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

    def lines(self) -> list[str]:
        """The prediction as a command prints it."""
        pairs = zip(self.mean_area.tolist(), self.classes, strict=True)
        areas = ", ".join(
            f"{n} {share:.1%}" for share, n in sorted(pairs, reverse=True)[:5] if share
        )
        areas = doubt(self.unlike_training) + areas
        about = about_run(self.duration_s, self.firing_rate, self.engine)
        return [one_line(f"{self.path}: {areas} ({len(self.timestamps_s)} frames in {about})")]

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
            "distance": self.distance,
            "unlike_training": self.unlike_training,
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


def _rounded(shares: np.ndarray) -> list[float]:
    return [round(share, 6) for share in shares.tolist()]
