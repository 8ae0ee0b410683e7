"""Drawing on frames: pictures of text and bars, sizes that suit a screen, and constant rates."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch

from spikevideoformer.files import part_of
from spikevideoformer.video.frames import write_video

MAX_WIDTH, MAX_HEIGHT = 1280, 960  # larger frames are scaled down; text stays legible at these
MIN_WIDTH = 480  # narrower frames are centred on a canvas this wide
SMALL_WIDTH, SMALL_HEIGHT = 640, 480  # small frames are enlarged by a whole number up to this

BACKGROUND = "#14171c"
TEXT = "#e8eaed"
MUTED = "#8b929c"
TRACK = "#262b33"
OTHER = "#6b7280"
CURVE = "#e8eaed"

Shown = TypeVar("Shown")

log = logging.getLogger(__name__)


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


def shown_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of a picture that is scaled down where it is larger than a screen."""
    shrink = min(1.0, MAX_WIDTH / width, MAX_HEIGHT / height)
    return max(1, round(height * shrink)), max(1, round(width * shrink))


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
    height, width = shown_size(*frame.shape[:2])
    if (height, width) != frame.shape[:2]:
        pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None]
        scaled = torch.nn.functional.interpolate(
            pixels, size=(height, width), mode="bilinear", antialias=True
        )
        frame = scaled[0].permute(1, 2, 0).numpy()
    enlarge = max(1, min(SMALL_WIDTH // width, SMALL_HEIGHT // height))
    if enlarge > 1:
        frame = frame.repeat(enlarge, axis=0).repeat(enlarge, axis=1)
        height, width = frame.shape[:2]
    if width >= MIN_WIDTH:
        return frame
    canvas = np.empty((height, MIN_WIDTH, 3), dtype=np.uint8)
    canvas[:] = tuple(bytes.fromhex(BACKGROUND[1:]))
    left = (MIN_WIDTH - width) // 2
    canvas[:, left : left + width] = frame
    return canvas


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
        write_video(out, pictures, rate_hz, part=part)
    except KeyboardInterrupt:
        if part.exists():
            log.warning("%s holds what was done before the interruption", part)
        raise
