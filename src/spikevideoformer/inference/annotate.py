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

import logging
import math
import warnings
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch

from spikevideoformer.files import part_of
from spikevideoformer.inference.predictor import PredictionResult, WindowPrediction
from spikevideoformer.video import frames as video_io

MAX_WIDTH, MAX_HEIGHT = 1280, 960  # larger frames are scaled down; text stays legible at these
MIN_WIDTH = 480  # narrower frames are centred on a canvas this wide
SMALL_WIDTH, SMALL_HEIGHT = 640, 480  # small frames are enlarged by a whole number up to this
LABEL_ROWS = 3

BACKGROUND = "#14171c"
TEXT = "#e8eaed"
MUTED = "#8b929c"
TRACK = "#262b33"
OTHER = "#6b7280"
CURVE = "#e8eaed"
CURSOR = (255, 255, 255)
COLOURS = ("#4cc38a", "#f5a524", "#5b9dff", "#e5679b", "#b48ef0", "#3fc7d4", "#e2745b", "#c3c94b")

Shown = TypeVar("Shown")

log = logging.getLogger(__name__)


def write_annotated(
    path: str | Path,
    result: PredictionResult,
    out: str | Path,
    *,
    limits: video_io.DecodeLimits = video_io.DecodeLimits(),  # noqa: B008 - frozen
    sequence_rate_hz: float = video_io.SEQUENCE_RATE_HZ,
) -> Path:
    """Decode a video once more and write it with its prediction drawn underneath.

    The written video has a constant frame rate: frames of a source with a variable rate are held
    or dropped so that every picture stands at its own time. Only one frame is in memory at a time.

    Args:
        path: the video file or image-sequence folder that was predicted.
        result: what :meth:`VideoPredictor.predict` returned for it.
        out: file to write (``.mp4``); it appears complete or not at all.
        limits: as for the prediction.
        sequence_rate_hz: as for the prediction.

    Returns:
        The path written.

    Raises:
        VideoError: the video cannot be decoded.
    """
    info = video_io.probe(path, limits=limits, sequence_rate_hz=sequence_rate_hz)
    rate_hz = playable_rate(info.frame_rate_hz)
    source = video_io.iter_frames(path, limits=limits, sequence_rate_hz=sequence_rate_hz)
    pictures = ((frame.timestamp_s, frame.image) for frame in source)
    frames = annotate_frames(constant_rate(pictures, rate_hz), result)
    video_io.write_video(out, frames, rate_hz)
    return Path(out)


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


def fit_frame(frame: np.ndarray) -> np.ndarray:
    """Bring a frame to a size at which a band of text fits under it.

    Frames keep their resolution, except that very large ones are scaled down to at most
    1280 x 960 pixels, very small ones are enlarged by a whole number (pixels stay pixels), and
    narrow ones are centred on a canvas of 480 pixels.

    Args:
        frame: uint8 [H, W, 3].

    Returns:
        uint8 [H', W', 3].
    """
    height, width = frame.shape[:2]
    shrink = min(1.0, MAX_WIDTH / width, MAX_HEIGHT / height)
    if shrink < 1:
        height, width = max(1, round(height * shrink)), max(1, round(width * shrink))
        pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None]
        scaled = torch.nn.functional.interpolate(
            pixels, size=(height, width), mode="bilinear", antialias=True
        )
        frame = scaled[0].permute(1, 2, 0).numpy()
    enlarge = max(1, min(SMALL_WIDTH // width, SMALL_HEIGHT // height))
    frame = frame.repeat(enlarge, axis=0).repeat(enlarge, axis=1)
    height, width = frame.shape[:2]
    if width >= MIN_WIDTH:
        return frame
    canvas = np.empty((height, MIN_WIDTH, 3), dtype=np.uint8)
    canvas[:] = tuple(bytes.fromhex(BACKGROUND[1:]))
    left = (MIN_WIDTH - width) // 2
    canvas[:, left : left + width] = frame
    return canvas


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


class Drawing:
    """A picture of exactly width x height pixels; positions in pixels from the top left corner."""

    def __init__(self, width: int, height: int, unit: float) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self._unit = unit
        self._points = 72 / 100  # of one pixel at 100 dots per inch
        figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor=BACKGROUND)
        self._canvas = FigureCanvasAgg(figure)
        self._axes = figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        self._axes.set(xlim=(0, width), ylim=(height, 0))

    def bar(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        from matplotlib.patches import Rectangle

        self._axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, linewidth=0))

    def curve(self, x: list[float], y: list[float], bottom: float) -> None:
        thickness = 1.5 * self._unit * self._points
        self._axes.fill_between(x, y, bottom, color=CURVE, alpha=0.2, linewidth=0)
        self._axes.plot(x, y, color=CURVE, linewidth=thickness)
        if len(x) <= 64:  # few frames: show which
            self._axes.plot(x, y, ".", color=CURVE, markersize=3 * thickness)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float,
        colour: str = TEXT,
        align: Literal["left", "center", "right"] = "left",
        bold: bool = False,
        room: float = math.inf,
    ) -> None:
        """Write one line, vertically centred on y, cut with an ellipsis where room is short."""
        words = " ".join(words.split())
        text = self._axes.text(
            x,
            y,
            words,
            color=colour,
            fontsize=size * self._unit * self._points,
            fontweight="bold" if bold else "normal",
            ha=align,
            va="center_baseline",
            parse_math=False,  # class names may hold dollar signs
        )
        with missing_glyphs_allowed():
            while words and text.get_window_extent(self._canvas.get_renderer()).width > room:
                words = words[:-1].rstrip()
                text.set_text(words + "…")

    def caption(self, x: float, y: float, title: str, note: str) -> None:
        self.text(x, y - 8 * self._unit, title, size=12)
        self.text(x, y + 8 * self._unit, note, size=10, colour=MUTED)

    def pixels(self) -> np.ndarray:
        with missing_glyphs_allowed():
            self._canvas.draw()
        return np.asarray(self._canvas.buffer_rgba())[:, :, :3].copy()


@contextmanager
def missing_glyphs_allowed() -> Iterator[None]:
    """Matplotlib's font lacks some scripts; it then draws a box, which is not worth a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _round_up(rate: float) -> float:
    """The top of the firing-rate axis: the next of 0.05, 0.1, 0.2, 0.5, 1, 2, ..."""
    steps = (step * 10.0**power for power in range(-2, 6) for step in (1, 2, 5))
    return next((step for step in steps if step >= max(rate, 0.05)), rate)


def playable_rate(rate_hz: float) -> float:
    """Frames per second of a written video, for a source of this rate."""
    # Browsers and players do not take just any rate, and more than 60 Hz shows nothing more.
    return min(max(rate_hz, 1.0), 60.0)


def constant_rate(
    frames: Iterable[tuple[float, Shown]], rate_hz: float
) -> Iterator[tuple[float, Shown]]:
    """Hold or drop frames so that picture k is the one on show at k / rate_hz seconds."""
    count = 0
    held: tuple[float, Shown] | None = None
    for timestamp_s, frame in frames:
        while held is not None and count / rate_hz < timestamp_s - 0.5 / rate_hz:
            yield count / rate_hz, held[1]
            count += 1
        held = timestamp_s, frame
    if held is not None:
        yield count / rate_hz, held[1]


def write_playable(out: Path, pictures: Iterable[np.ndarray], rate_hz: float) -> None:
    """Write a video that can be played while it grows.

    Until it is complete it is ``<stem>.part.mp4``; an interrupted run leaves it there, and says so.

    Args:
        out: file to write (``.mp4``).
        pictures: uint8 [H, W, 3], all of one size.
        rate_hz: pictures per second.

    Raises:
        VideoError: the video cannot be written.
    """
    part = part_of(out)
    try:
        video_io.write_video(out, pictures, rate_hz, part=part)
    except KeyboardInterrupt:
        if part.exists():
            log.warning("%s holds what was done before the interruption", part)
        raise
