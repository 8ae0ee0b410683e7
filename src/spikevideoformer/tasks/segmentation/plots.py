"""What a segmentation run is looked at by: IoU of each class, predictions beside labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from spikevideoformer.data.pictures import read_picture
from spikevideoformer.files import save_figure
from spikevideoformer.tasks.segmentation.metrics import SegmentationResult
from spikevideoformer.tasks.segmentation.sequence import IGNORED, Colour
from spikevideoformer.tasks.segmentation.spec import SegmentationSpec

SHOWN = 6  # frames of a contact sheet
LEGEND = 24  # most classes that a legend names


@dataclass(frozen=True, kw_only=True)
class JudgedFrame:
    """One labelled frame of an evaluation, with what the network makes of it.

    Args:
        number: how many labelled frames came before it in this process.
        total: how many this process judges.
        image: the picture file.
        labels: class index of each pixel, or `IGNORED`.
        predicted: class index of each pixel.
    """

    number: int
    total: int
    image: Path
    labels: UInt8[Tensor, "H W"]
    predicted: UInt8[Tensor, "H W"]


class ContactSheet:
    """Pictures, labels and predictions of a few frames, spread evenly over an evaluation.

    Args:
        palette: a colour for each class.
        classes: their names.
        spec: how the network sees frames; None: as pictures.
    """

    def __init__(
        self,
        palette: Sequence[Colour],
        classes: Sequence[str],
        spec: SegmentationSpec | None = None,
    ) -> None:
        self._spec = spec
        self._colours = np.zeros((IGNORED + 1, 3), dtype=np.uint8)  # ignored pixels are black
        self._colours[: len(palette)] = palette
        self._classes = tuple(classes)
        self._frames: list[JudgedFrame] = []

    def offer(self, frame: JudgedFrame) -> None:
        """Keep the frame if it is one of those to be shown."""
        shown = min(SHOWN, frame.total)
        if frame.number == round((len(self._frames) + 0.5) * frame.total / shown - 0.5):
            self._frames.append(frame)

    def write(self, path: Path) -> None:
        """Draw the sheet as PNG; of no frame there is none (another process has them all)."""
        if not self._frames:
            return
        rows = len(self._frames)
        figure = Figure(figsize=(10.5, 2.6 * rows + 0.8), layout="constrained")
        panels = figure.subplots(rows, 3, squeeze=False)
        for row, frame in zip(panels, self._frames, strict=True):
            labels, predicted = frame.labels.numpy(), frame.predicted.numpy()
            known = labels != IGNORED
            right = float((labels == predicted)[known].sum() / max(known.sum(), 1))
            row[0].imshow(read_picture(frame.image, self._spec))
            # The folder above that of the pictures is the sequence in most layouts.
            row[0].set_title("/".join((*frame.image.parts[-3:-2], frame.image.stem)), fontsize=9)
            row[1].imshow(self._colours[labels])
            row[1].set_title("labels", fontsize=9)
            row[2].imshow(self._colours[predicted])
            row[2].set_title(f"prediction, {right:.1%} of labelled pixels right", fontsize=9)
            for panel in row:
                panel.set_axis_off()
        patches = [
            Patch(color=self._colours[i] / 255, label=name)
            for i, name in enumerate(self._classes[:LEGEND])
        ]
        figure.legend(handles=patches, loc="outside lower center", ncols=6, fontsize=9)
        save_figure(figure, path)


def plot_iou(result: SegmentationResult, palette: Sequence[Colour], path: Path) -> None:
    """Draw the IoU of each class beside its share of the labelled pixels.

    Args:
        result: an evaluation.
        palette: a colour for each class.
        path: the PNG to write.
    """
    size = len(result.classes)
    figure = Figure(figsize=(8, min(0.28 * size + 1.4, 40)), layout="constrained")
    panel = figure.subplots()
    values = [iou or 0.0 for iou in result.class_iou]
    shares = [n / max(sum(result.class_pixels), 1) for n in result.class_pixels]
    colours = [tuple(v / 255 for v in colour) for colour in palette]
    panel.barh(range(size), values, color=colours, edgecolor="0.4", linewidth=0.5)
    for i, (iou, share) in enumerate(zip(result.class_iou, shares, strict=True)):
        text = "absent" if iou is None else f"{iou:.1%}  ({share:.1%} of pixels)"
        panel.text(1.01, i, text, va="center", fontsize=8)
    panel.axvline(result.miou, color="black", linewidth=1, linestyle="--")
    panel.set_yticks(range(size), result.classes, fontsize=9)
    panel.set(xlim=(0, 1), xlabel="IoU", title=f"mIoU {result.miou:.1%}")
    panel.invert_yaxis()
    save_figure(figure, path)
