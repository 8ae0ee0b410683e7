"""What a network says of a video: the class of each pixel of each frame."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from spikevideoformer.inference.answer import Prediction, SeenFrame, rate_curve
from spikevideoformer.tasks.segmentation.masks import distinct_palette


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SegmentedFrame(SeenFrame):
    """One picture of a video and the class of each of its pixels.

    Attributes:
        mask: class index, uint8 [H, W].
        area: share of the pixels that each class has, float32 [K], sum 1.
    """

    mask: np.ndarray
    area: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SegmentationPrediction(Prediction):
    """What the network sees where in one video.

    Attributes:
        classes: their names, K of them.
        masks: class index of each pixel, uint8 [T, H, W], T frames of the whole video; None where
            they were not to be kept.
        area: share of the pixels that each class has, float32 [T, K].
        mean_area: the same for the video, float32 [K]: the mean over its frames.
    """

    classes: tuple[str, ...]
    masks: np.ndarray | None
    area: np.ndarray
    mean_area: np.ndarray

    def says(self) -> str:
        """The largest areas."""
        pairs = sorted(zip(self.mean_area.tolist(), self.classes, strict=True), reverse=True)
        return ", ".join(f"{name} {share:.1%}" for share, name in pairs[:5] if share > 0)

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
        about = self.about()
        times_s = about.pop("timestamps_s")
        return about | {
            "classes": list(self.classes),
            "timestamps_s": times_s,
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
