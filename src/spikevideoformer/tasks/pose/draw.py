"""Video with the skeleton drawn over the pictures, and the skeleton as seen from the side.

Bones on the body's left are blue, those on its right orange, those in the middle white: colours
that are told apart with any kind of colour vision, each with a dark rim so that they show on any
picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spikevideoformer.body.skeleton import BodyModel
from spikevideoformer.tasks.pose.answer import PosePrediction, TrackedFrame
from spikevideoformer.video.drawing import (
    MUTED,
    TEXT,
    Drawing,
    constant_rate,
    playable_rate,
    write_playable,
)

Colour = tuple[int, int, int]

# Of the palette of Okabe and Ito, "Color Universal Design" (2008).
LEFT, RIGHT, MIDDLE = (86, 180, 233), (230, 159, 0), (255, 255, 255)
RIM = (20, 23, 28)

MIN_SHORT_SIDE = 256  # smaller pictures are enlarged by a whole number up to this at least
SIDE_WIDTH, SIDE_HEIGHT = 640, 480  # of the side view
SIDE_MARGIN, SIDE_GROUND, SIDE_LINE = 48, 72, 5.0  # in it: at three sides, below the ground, bones
LEAST_SPAN_M = 1.2  # that the side view shows, so that the bar of 1 m fits


def overlaid(frame: TrackedFrame, body: BodyModel) -> np.ndarray:
    """A picture with the skeleton over it, uint8 [H', W', 3].

    Args:
        frame: the picture and its joints.
        body: the sides of its joints.
    """
    short = min(frame.image.shape[:2])
    factor = math.ceil(MIN_SHORT_SIDE / short)
    picture = frame.image.repeat(factor, axis=0).repeat(factor, axis=1)
    width = 1 + factor * short / 120
    draw_bones(picture, factor * frame.points, -frame.joints[:, 2], body, width)
    return picture


def write_side_view(prediction: PosePrediction, body: BodyModel, out: str | Path) -> None:
    """Write the skeleton as seen from the side, from x of the camera: it looks from left to right.

    The view is the same in all frames and has all of the motion in it. The ground line is at the
    lowest joint of the video.

    Args:
        prediction: the motion.
        body: the sides of its joints.
        out: file to write (``.mp4``), ``<stem>.part.mp4`` until it is complete.

    Raises:
        VideoError: the video cannot be written.
    """
    rate_hz = playable_rate(prediction.frame_rate_hz)
    frames = zip(prediction.timestamps_s, prediction.joints, strict=True)
    pictures = side_views(constant_rate(frames, rate_hz), prediction.joints, body)
    write_playable(Path(out), pictures, rate_hz)


def side_views(
    frames: Iterator[tuple[float, np.ndarray]], joints: np.ndarray, body: BodyModel
) -> Iterator[np.ndarray]:
    """Pictures of the side view, uint8 [480, 640, 3].

    Args:
        frames: times and joints [J, 3], in metres.
        joints: of the whole video, [F, J, 3]: they set the view.
        body: the sides of the joints.
    """
    places = joints[..., [2, 1]].reshape(-1, 2).astype(np.float64)  # depth, down
    low, high = places.min(0), places.max(0)
    room = np.array((SIDE_WIDTH - 2 * SIDE_MARGIN, SIDE_HEIGHT - SIDE_MARGIN - SIDE_GROUND))
    scale = float((room / np.maximum(high - low, LEAST_SPAN_M)).min())  # pixels per metre
    ground = SIDE_HEIGHT - SIDE_GROUND
    origin = np.array((SIDE_WIDTH / 2 - scale * (low[0] + high[0]) / 2, ground - scale * high[1]))
    stage = _stage(scale)
    for _, frame in frames:
        picture = stage.copy()
        draw_bones(picture, origin + scale * frame[:, [2, 1]], frame[:, 0], body, SIDE_LINE)
        yield picture


def _stage(scale: float) -> np.ndarray:
    """What the side view has in all frames: ground line, scale bar and its length."""
    drawing = Drawing(SIDE_WIDTH, SIDE_HEIGHT, 1.0)
    drawing.bar(0, SIDE_HEIGHT - SIDE_GROUND, SIDE_WIDTH, 2, MUTED)
    middle = SIDE_HEIGHT - SIDE_GROUND / 2
    drawing.bar(SIDE_MARGIN, middle - 2, scale, 4, TEXT)
    for end in (0, scale):
        drawing.bar(SIDE_MARGIN + end - 1, middle - 7, 2, 14, TEXT)
    drawing.text(SIDE_MARGIN + scale + 12, middle, "1 m", size=14)
    note = "from the side; the camera is on the left"
    drawing.text(SIDE_MARGIN / 2, SIDE_MARGIN / 2, note, size=12, colour=MUTED)
    return drawing.pixels()


def draw_bones(
    picture: np.ndarray, points: np.ndarray, near: np.ndarray, body: BodyModel, width: float
) -> None:
    """Draw a skeleton into a picture, near bones over far ones.

    Args:
        picture: uint8 [H, W, 3], drawn into.
        points: of the joints (x, y) in pixels, [J, 2]. A bone with an end that is not finite is
            left out; ends may lie outside of the picture.
        near: of each joint, [J]; larger is nearer to the viewer.
        body: the joints and their sides.
        width: of bones, in pixels.
    """
    colours = [MIDDLE] * len(body.parents)
    for left, right in body.symmetric_pairs:
        colours[left], colours[right] = LEFT, RIGHT
    bones = list(enumerate(body.parents))[1:]
    for joint, parent in sorted(bones, key=lambda bone: near[bone[0]] + near[bone[1]]):
        ends = points[joint], points[parent]
        if np.isfinite(ends).all():
            _draw_line(picture, *ends, width + max(2.0, width / 2), RIM)
            _draw_line(picture, *ends, width, colours[joint])


def _draw_line(
    picture: np.ndarray, start: np.ndarray, end: np.ndarray, width: float, colour: Colour
) -> None:
    """Draw a line with round ends; pixels at its edge are covered in part."""
    size = np.array((picture.shape[1], picture.shape[0]))
    reach = width / 2 + 1
    left, top = np.clip(np.floor(np.minimum(start, end) - reach), 0, size).astype(int)
    right, bottom = np.clip(np.ceil(np.maximum(start, end) + reach), 0, size).astype(int)
    x = np.arange(left, right) + 0.5 - start[0]
    y = np.arange(top, bottom)[:, None] + 0.5 - start[1]
    dx, dy = end - start
    along = np.clip((x * dx + y * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
    away = np.hypot(x - along * dx, y - along * dy)
    cover = np.clip(width / 2 + 0.5 - away, 0, 1)[..., None]
    part = picture[top:bottom, left:right]
    part[:] = np.rint(part + cover * (np.array(colour) - part))
