"""Video with masks drawn over it, and the share of each class in the picture.

Frames stand above a legend::

    +--------------------------------------+
    |     source frame, coloured masks     |
    +--------------------------------------+
    | # road   |#####   | 52 %  # car | ...|
    +--------------------------------------+

Names are drawn once; from frame to frame only bars and percentages change. Of many classes, those
with the largest area so far are shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spikevideoformer.files import save_figure
from spikevideoformer.tasks.segmentation.answer import SegmentationPrediction, SegmentedFrame
from spikevideoformer.tasks.segmentation.sequence import Colour
from spikevideoformer.video.drawing import (
    MUTED,
    OTHER,
    TEXT,
    TRACK,
    Drawing,
    fit_frame,
    missing_glyphs_allowed,
)

LEGEND_CLASSES = 40  # that a legend has room for
PLOT_CLASSES = 20  # that the plot of areas tells apart
PLOT_COLUMNS = 1000  # of the plot of areas; more moments than these are averaged


class Overlay:
    """Draws masks over the frames of one video.

    Args:
        classes: names of the classes.
        palette: a colour for each.
    """

    def __init__(self, classes: Sequence[str], palette: Sequence[Colour]) -> None:
        self._classes, self._palette = classes, palette
        self._colours = np.array(palette, dtype=np.uint8)  # [K, 3]
        self._legend: _Legend | None = None

    def draw(self, frame: SegmentedFrame) -> np.ndarray:
        """The next frame with its legend, uint8 [H', W', 3]."""
        picture = fit_frame(blended(frame.image, frame.mask, self._colours))
        if self._legend is None:
            self._legend = _Legend(self._classes, self._palette, picture.shape[1])
        return np.concatenate([picture, self._legend.at(frame.area)], axis=0)


def blended(image: np.ndarray, mask: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """A picture half covered by the colours of its mask, and fully where a region ends.

    Args:
        image: uint8 [H, W, 3].
        mask: class indices, uint8 [H, W].
        colours: uint8 [K, 3].

    Returns:
        uint8 [H, W, 3].
    """
    flat = np.take(colours, mask, axis=0)  # [H, W, 3]
    mixed = (image & flat) + ((image ^ flat) >> 1)  # (image + flat) // 2 without a ninth bit
    edge = np.zeros(mask.shape, dtype=bool)
    edge[:, 1:] = mask[:, 1:] != mask[:, :-1]
    edge[1:] |= mask[1:] != mask[:-1]
    mixed[edge] = flat[edge]
    return mixed


class _Legend:
    """The band under the frames: a cell for each class with colour, name, bar and percentage."""

    def __init__(self, classes: Sequence[str], palette: Sequence[Colour], width: int) -> None:
        self._classes, self._palette, self._width = classes, palette, width
        # Text grows with the frame, but slower than it, and never under a legible size.
        unit = self._unit = max(0.85, math.sqrt(width / 640))
        count = min(len(classes), LEGEND_CLASSES)
        self._margin, self._row_height = round(16 * unit), round(22 * unit)
        most_columns = max(1, int((width - self._margin) / (200 * unit)))
        self._rows = math.ceil(count / most_columns)
        columns = math.ceil(count / self._rows)
        self._cell_width = (width - self._margin) // columns
        self._percent_width = round(44 * unit)
        self._bar_left = round(0.5 * self._cell_width)
        self._bar_width = (
            self._cell_width - self._margin - self._percent_width - self._bar_left - round(4 * unit)
        )
        self._seen = np.zeros(len(classes))
        self._shown = list(range(count))
        self._names = self._draw_names()
        self._percentages: dict[str, np.ndarray] = {}

    def at(self, area: np.ndarray) -> np.ndarray:
        """The band of the next frame, uint8 [height, width, 3].

        Args:
            area: share of each class, [K].
        """
        self._seen += area
        largest = np.argsort(-self._seen, kind="stable")[: len(self._shown)]
        if (shown := sorted(largest.tolist())) != self._shown:
            self._shown = shown
            self._names = self._draw_names()
        band = self._names.copy()
        thickness = round(10 * self._unit)
        for place, index in enumerate(self._shown):
            share = float(area[index])
            x, y = self._corner(place)
            top, left = y + (self._row_height - thickness) // 2, x + self._bar_left
            length = math.ceil(share * self._bar_width - 1e-6)
            band[top : top + thickness, left : left + length] = self._palette[index]
            text = self._percentage(share)
            right = x + self._cell_width - self._margin
            band[y : y + len(text), right - text.shape[1] : right] = text
        return band

    def _corner(self, place: int) -> tuple[int, int]:
        column, row = divmod(place, self._rows)
        return self._margin + column * self._cell_width, self._margin // 2 + row * self._row_height

    def _draw_names(self) -> np.ndarray:
        unit, height = self._unit, self._rows * self._row_height + self._margin
        drawing = Drawing(self._width, height, unit)
        side, thickness = round(13 * unit), round(10 * unit)
        for place, index in enumerate(self._shown):
            x, y = self._corner(place)
            middle = y + self._row_height / 2
            top = y + (self._row_height - side) // 2
            drawing.bar(x - 1, top - 1, side + 2, side + 2, MUTED)  # for colours like the ground
            drawing.bar(x, top, side, side, _hex(self._palette[index]))
            room = self._bar_left - side - 14 * unit
            drawing.text(x + side + 7 * unit, middle, self._classes[index], size=13, room=room)
            top = y + (self._row_height - thickness) // 2
            drawing.bar(x + self._bar_left, top, self._bar_width, thickness, TRACK)
        return drawing.pixels()

    def _percentage(self, share: float) -> np.ndarray:
        text = "< 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"
        if text not in self._percentages:
            drawing = Drawing(self._percent_width, self._row_height, self._unit)
            y, colour = self._row_height / 2, TEXT if share > 0 else MUTED
            drawing.text(self._percent_width, y, text, size=12, align="right", colour=colour)
            self._percentages[text] = drawing.pixels()
        return self._percentages[text]


def plot_areas(result: SegmentationPrediction, palette: Sequence[Colour], path: Path) -> None:
    """Draw the share of each class over time, stacked; small classes of many are one.

    Args:
        result: the prediction.
        palette: a colour for each class.
        path: the PNG to write.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    order = np.argsort(-result.mean_area, kind="stable")
    order = order[result.mean_area[order] > 0]
    area, starts_s = _averaged(result.area, np.array(result.timestamps_s))
    layers = [area[:, k] for k in order[:PLOT_CLASSES]]
    names = [result.classes[k] for k in order[:PLOT_CLASSES]]
    colours = [_hex(palette[k]) for k in order[:PLOT_CLASSES]]
    if len(order) > PLOT_CLASSES:
        layers.append(area[:, order[PLOT_CLASSES:]].sum(axis=1))
        names.append(f"{len(order) - PLOT_CLASSES} others")
        colours.append(OTHER)
    figure = Figure(figsize=(9, max(3.6, 0.24 * len(names) + 1)), layout="constrained")
    panel = figure.subplots()
    # Each frame is shown until the next one comes, the last one to the end.
    times_s = np.append(starts_s, result.duration_s)
    stacked = [100 * np.append(layer, layer[-1]) for layer in layers]
    panel.stackplot(times_s, stacked, colors=colours, step="post", edgecolor="white", linewidth=0.3)
    panel.set(xlabel="time (s)", ylabel="share of the picture (%)", ylim=(0, 100))
    panel.set_xlim(0, result.duration_s)
    # From the top as in the stack. Names are set as plain text: they may hold dollar signs.
    patches = [Patch(facecolor=colour, label=" ", edgecolor="grey") for colour in colours[::-1]]
    legend = figure.legend(handles=patches, loc="outside right upper", fontsize=8, frameon=False)
    for text, name in zip(legend.get_texts(), names[::-1], strict=True):
        text.set_parse_math(False)
        text.set_text(name if len(name) <= 28 else f"{name[:27]}…")
    with missing_glyphs_allowed():
        save_figure(figure, path)


def _averaged(area: np.ndarray, timestamps_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas and times of at most as many moments as the plot has columns."""
    count = min(len(area), PLOT_COLUMNS)
    starts = np.arange(count) * len(area) // count
    lengths = np.diff(np.append(starts, len(area)))
    return np.add.reduceat(area, starts, axis=0) / lengths[:, None], timestamps_s[starts]


def _hex(colour: Colour) -> str:
    return f"#{bytes(colour).hex()}"
