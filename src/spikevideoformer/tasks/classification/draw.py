"""Annotated video: the source frames above a band of labels, probabilities and firing rates.

The band is drawn once per window and only the cursor moves from frame to frame, so the cost per
frame is that of copying pixels::

    +--------------------------------------+
    |             source frame             |
    +--------------------------------------+
    | wave     |########          |  78 %  |   labels of the window being shown
    | jump     |##                |  14 %  |
    | label    |====|=====|=======|        |   best label of each window, height = probability
    | firing   |..--^^--..--^^^--....|        |   firing rate of each frame the network saw
    +--------------------------------------+

A network without spikes has no firing rate, and its band no such row.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator

import numpy as np

from spikevideoformer.tasks.classification.answer import PredictionResult, WindowPrediction
from spikevideoformer.video.drawing import MUTED, OTHER, TRACK, Drawing, fit_frame

LABEL_ROWS = 3
CURSOR = (255, 255, 255)
COLOURS = ("#4cc38a", "#f5a524", "#5b9dff", "#e5679b", "#b48ef0", "#3fc7d4", "#e2745b", "#c3c94b")


def annotate_frames(
    frames: Iterable[tuple[float, np.ndarray]], result: PredictionResult
) -> Iterator[np.ndarray]:
    """Draw the prediction of a clip under each of its frames.

    Args:
        frames: pairs of timestamp in seconds and RGB frame, uint8 [H, W, 3], all of one size.
        result: the prediction of these frames.

    Yields:
        RGB frames, uint8 [H', W', 3].
    """
    band: _Band | None = None
    for timestamp_s, frame in frames:
        picture = fit_frame(frame)
        if band is None:
            band = _Band(result, picture.shape[1])
        yield np.concatenate([picture, band.at(timestamp_s)], axis=0)


class _Band:
    """The band under the frames: label rows of the current window, and the strips over time."""

    def __init__(self, result: PredictionResult, width: int) -> None:
        self._result = result
        self._width = width
        # Text grows with the frame, but slower than it, and never under a legible size.
        self._unit = max(0.85, math.sqrt(width / 640))
        self._margin = 12 * self._unit
        self._left, self._right = 100 * self._unit, width - self._margin
        self._duration_s = max(result.duration_s, 1e-6)
        self._starts = [window.start_s for window in result.windows]
        # The overall best labels are named first, so they get the colours; the long tail is grey.
        names = [label.name for label in result.labels]
        names += [window.labels[0].name for window in result.windows]
        self._colours = dict(zip(dict.fromkeys(names), COLOURS, strict=False))
        self._strip, self._plot_height = self._draw_strip()
        self._shown = 0
        self._rows = self._draw_rows(result.windows[0])

    def at(self, timestamp_s: float) -> np.ndarray:
        """The band at a time: uint8 [height, width, 3]."""
        shown = max(0, bisect_right(self._starts, timestamp_s) - 1)
        if shown != self._shown:
            self._rows, self._shown = self._draw_rows(self._result.windows[shown]), shown
        band = np.concatenate([self._rows, self._strip], axis=0)
        x, thickness = round(self._x(timestamp_s)), max(2, round(1.5 * self._unit))
        x = min(x, int(self._right) - thickness)
        top = len(self._rows)
        band[top : top + self._plot_height, x : x + thickness] = CURSOR
        return band

    def _x(self, time_s: float) -> float:
        share = min(1.0, max(0.0, time_s / self._duration_s))
        return self._left + share * (self._right - self._left)

    def _draw_rows(self, window: WindowPrediction) -> np.ndarray:
        unit, row_height = self._unit, 25 * self._unit
        labels = window.labels[:LABEL_ROWS]
        drawing = Drawing(self._width, round(row_height * len(labels) + 12 * unit), unit)
        bar_left, bar_right = 0.55 * self._width, self._right - 46 * unit
        for row, label in enumerate(labels):
            y = 10 * unit + row_height * (row + 0.5)
            room = bar_left - self._margin - 12 * unit
            drawing.text(self._margin, y, label.name, size=15, bold=row == 0, room=room)
            drawing.bar(bar_left, y - 6 * unit, bar_right - bar_left, 12 * unit, TRACK)
            length = label.probability * (bar_right - bar_left)
            drawing.bar(bar_left, y - 6 * unit, length, 12 * unit, self._colour(label.name))
            drawing.text(self._right, y, f"{100 * label.probability:.0f} %", size=14, align="right")
        return drawing.pixels()

    def _draw_strip(self) -> tuple[np.ndarray, int]:
        """The plots over time without their cursor, and how far down the cursor reaches."""
        unit, result = self._unit, self._result
        label_height, rate_height, gap, axis_height = 30 * unit, 46 * unit, 8 * unit, 22 * unit
        plot_height = gap + label_height
        if result.firing_rate_per_frame is not None:
            plot_height += gap + rate_height
        drawing = Drawing(self._width, round(plot_height + axis_height), unit)
        span = self._right - self._left

        bottom = gap + label_height
        drawing.caption(self._margin, gap + label_height / 2, "label", "0 to 100 %")
        drawing.bar(self._left, gap, span, label_height, TRACK)
        for window in result.windows:
            best = window.labels[0]
            x, tall = self._x(window.start_s), best.probability * label_height
            wide = self._x(window.end_s) - x
            wide -= min(1.0, wide / 4)  # a hair of space between neighbours
            drawing.bar(x, bottom - tall, wide, tall, self._colour(best.name))

        y = plot_height + axis_height / 2
        if result.firing_rate_per_frame is not None:
            top, bottom = bottom + gap, plot_height
            ceiling = _round_up(max(result.firing_rate_per_frame))
            drawing.caption(self._margin, top + rate_height / 2, "firing rate", f"0 to {ceiling:g}")
            drawing.bar(self._left, top, span, rate_height, TRACK)
            drawing.curve(
                [self._x(time_s) for time_s in result.timestamps_s],
                [bottom - rate_height * rate / ceiling for rate in result.firing_rate_per_frame],
                bottom,
            )
            mean, middle = f"mean firing rate {result.firing_rate:.3f}", span / 2 + self._left
            drawing.text(middle, y, mean, size=11, colour=MUTED, align="center")

        drawing.text(self._left, y, "0 s", size=11, colour=MUTED)
        digits = 1 if result.duration_s >= 1 else 2
        end = f"{result.duration_s:.{digits}f} s"
        drawing.text(self._right, y, end, size=11, colour=MUTED, align="right")
        return drawing.pixels(), round(plot_height)

    def _colour(self, name: str) -> str:
        return self._colours.get(name, OTHER)


def _round_up(rate: float) -> float:
    """The top of the firing-rate axis: the next of 0.05, 0.1, 0.2, 0.5, 1, 2, ..."""
    steps = (step * 10.0**power for power in range(-2, 6) for step in (1, 2, 5))
    return next((step for step in steps if step >= max(rate, 0.05)), rate)
