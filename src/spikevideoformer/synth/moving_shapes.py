"""The embedded segmentation data set: textured shapes that move over a textured ground.

The class of a pixel is the outline of the shape in front there and nothing else. Colours, textures,
places and movements of all shapes come from the same distributions, so that neither colour nor
texture tells one from another; the ground is dimmer, without which a small network needs hours to
find shapes at all. The masks are exact: a pixel belongs to the front-most piece that covers its
centre. A hidden frame shows nothing of the scene while its mask
stays, so that only a network that remembers can fill it in.

A piece has coordinates of its own, in units of its radius, that move, turn and grow with it. In
these its outline is a signed distance, negative inside, and its texture a wave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image

from spikevideoformer.files import write_text
from spikevideoformer.video.frames import write_video

Array = NDArray[np.float64]
Field = Callable[[Array, Array], Array]

FRAMES = 16
FRAME_RATE_HZ = 8.0
SIZE = 64  # pixels
RADIUS = (12.0, 17.0)  # pixels, in a picture of SIZE
DROPOUT = 0.1  # the part of frames that is hidden
DIM = 0.35  # brightness of the ground, of what shapes have


def _bar(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x) - 1.2, np.abs(y) - 0.4)


# The sizes give all shapes about the area of the disc.
_OUTLINES: dict[str, Field] = {
    "ground": lambda x, y: np.full_like(x, -np.inf),
    "disc": lambda x, y: np.hypot(x, y) - 1.0,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.9,
    "triangle": lambda x, y: np.maximum(y, 0.5 * (np.sqrt(3) * np.abs(x) - y)) - 0.75,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.9) - 0.3,
    "cross": lambda x, y: np.minimum(_bar(x, y), _bar(y, x)),
}

CLASSES: tuple[str, ...] = tuple(_OUTLINES)
"""Pixels of class i are `CLASSES[i]`."""

PALETTE: tuple[tuple[int, int, int], ...] = (
    (38, 42, 54),
    (239, 111, 108),
    (86, 180, 233),
    (240, 196, 83),
    (92, 184, 122),
    (186, 132, 214),
)
"""A colour for each class, to draw it in; the pictures know nothing of it."""


def _edged(wave: Array) -> Array:
    """0 or 1 by the sign of a wave, with edges about a pixel wide."""
    return np.clip(0.5 + 1.5 * wave, 0, 1)


# How much of its second colour a piece has where; one period is 2 pi.
_TEXTURES: dict[str, Field] = {
    "stripes": lambda x, y: _edged(np.sin(x)),
    "checks": lambda x, y: _edged(np.sin(x) * np.sin(y)),
    "dots": lambda x, y: _edged(np.cos(x) + np.cos(y) - 0.6),
    "gradient": lambda x, y: 0.5 + 0.5 * np.sin(0.3 * x),
    "smooth noise": lambda x, y: (
        0.5 + 0.25 * (np.sin(0.7 * x + 2 * np.sin(0.4 * y)) + np.sin(0.6 * y + 2 * np.sin(0.5 * x)))
    ),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Piece:
    """The ground or a shape, over the frames of a clip.

    Args:
        kind: one of `CLASSES`.
        x: of the centre to the right, in pixels from the left edge of the picture, [T].
        y: of the centre downwards, likewise, [T].
        angle: in radians, [T].
        radius: in pixels, [T].
        texture: a key of `_TEXTURES`.
        period: of the texture, in radii.
        offset: of the texture, in radians.
        colours: RGB in [0, 1], the two between which the texture goes, [2, 3].
    """

    kind: str
    x: Array
    y: Array
    angle: Array
    radius: Array
    texture: str
    period: float
    offset: tuple[float, float]
    colours: Array


def _paint(pieces: list[_Piece], size: int) -> tuple[Array, UInt8[np.ndarray, "T H W"]]:
    """Put pieces in front of each other; the first is behind all others.

    Returns:
        The pictures in [0, 1], ``[T, H, W, 3]``, their outlines smoothed over a pixel; the masks.
    """
    frames = len(pieces[0].x)
    image = np.zeros((frames, size, size, 3))
    mask = np.zeros((frames, size, size), np.uint8)
    row, column = np.mgrid[:size, :size] + 0.5  # the centres of pixels
    for piece in pieces:
        x, y, angle, radius = (
            v[:, None, None] for v in (piece.x, piece.y, piece.angle, piece.radius)
        )
        right, down = (column - x) / radius, (row - y) / radius
        u = np.cos(angle) * right + np.sin(angle) * down
        v = np.cos(angle) * down - np.sin(angle) * right
        distance = _OUTLINES[piece.kind](u, v) * radius
        mask[distance < 0] = CLASSES.index(piece.kind)
        seen = distance < 0.5
        turns = 2 * np.pi / piece.period
        share = _TEXTURES[piece.texture](
            turns * u[seen] + piece.offset[0], turns * v[seen] + piece.offset[1]
        )[:, None]
        colour = piece.colours[0] + share * (piece.colours[1] - piece.colours[0])
        cover = np.clip(0.5 - distance[seen], 0, 1)[:, None]
        image[seen] += cover * (colour - image[seen])
    return image, mask


# --- Random scenes ------------------------------------------------------------------------------


def _swing(rng: np.random.Generator, t: Array, reach: float) -> Array:
    """A slow to and fro around 0, up to `reach`, in 32 to 64 frames."""
    return reach * np.sin(2 * np.pi * (t / rng.uniform(32, 64) + rng.random()))


def _colours(rng: np.random.Generator, hue: float) -> Array:
    """A light and a dark colour around a hue (one turn is 1), ``[2, 3]``."""
    hues = hue + rng.uniform(-0.06, 0.06, (2, 1)) - np.arange(3) / 3
    saturation = rng.uniform(0.5, 0.9)
    light = rng.uniform(0.75, 1.0)
    value = np.array([[light], [light * rng.uniform(0.45, 0.7)]])
    return np.asarray(value * (1 - saturation * (0.5 - 0.5 * np.cos(2 * np.pi * hues))))


def _piece(rng: np.random.Generator, kind: str, hue: float, t: Array, scale: float) -> _Piece:
    size = scale * SIZE
    colours = _colours(rng, hue)
    if kind == "ground":
        colours = DIM * colours
    across, down = size * rng.uniform(0.15, 0.85, 2)
    return _Piece(
        kind=kind,
        x=across + _swing(rng, t, size * rng.uniform(0.1, 0.35)),
        y=down + _swing(rng, t, size * rng.uniform(0.1, 0.35)),
        angle=rng.uniform(-0.3, 0.3) + t * rng.uniform(-0.03, 0.03),
        radius=scale * rng.uniform(*RADIUS) * (1 + _swing(rng, t, rng.uniform(0.0, 0.15))),
        texture=str(rng.choice(list(_TEXTURES))),
        period=rng.uniform(0.6, 1.2),
        offset=(rng.uniform(0, 100), rng.uniform(0, 100)),
        colours=colours,
    )


def render_scene(
    seed: int, *, frames: int = FRAMES, size: int = SIZE, dropout: float = DROPOUT
) -> tuple[UInt8[np.ndarray, "T H W 3"], UInt8[np.ndarray, "T H W"]]:
    """One clip: two or three shapes over a ground, as a slightly noisy camera sees them.

    Args:
        seed: everything random follows from it; at least 0.
        frames: T, at least 1.
        size: height and width in pixels, a multiple of 16. The scene grows with it.
        dropout: chance of each frame but the first to be hidden behind a flat or noisy picture,
            0 to 1. The masks, and the frames that stay, do not depend on it.

    Returns:
        RGB pictures, and masks whose pixels index `CLASSES`.

    Raises:
        ValueError: a value outside these ranges.
    """
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if frames < 1:
        raise ValueError(f"frames must be at least 1, got {frames}")
    if size < 16 or size % 16:
        raise ValueError(f"size must be a multiple of 16 pixels, at least 16, got {size}")
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout must be a probability from 0 to 1, got {dropout}")
    rng = np.random.default_rng(seed)
    t = np.arange(frames, dtype=float)
    kinds = ["ground", *rng.choice(CLASSES[1:], rng.integers(2, 4))]
    # Evenly round the circle: any two pieces differ, and the hue of each by itself is uniform.
    hues = rng.random() + rng.permutation(len(kinds)) / len(kinds)
    pieces = [
        _piece(rng, str(kind), hue, t, size / SIZE) for kind, hue in zip(kinds, hues, strict=True)
    ]
    image, mask = _paint(pieces, size)

    image *= (1 + _swing(rng, t, rng.uniform(0.0, 0.15)))[:, None, None, None]  # brightness
    noise = np.full(frames, rng.uniform(0.005, 0.025))
    hidden = rng.random(frames) < dropout
    hidden[0] = False
    flat, strength = rng.uniform(0.2, 0.8, (frames, 1, 1, 3)), rng.uniform(0.0, 0.3, frames)
    image = np.where(hidden[:, None, None, None], flat, image)
    noise = np.where(hidden, strength, noise)
    image += noise[:, None, None, None] * rng.standard_normal(image.shape)
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8), mask


# --- Files --------------------------------------------------------------------------------------


def write_scenes(
    root: Path,
    *,
    train: int = 400,
    val: int = 80,
    seed: int = 0,
    label_every: int = 1,
    dropout: float = DROPOUT,
) -> None:
    """Write the data set as folders of PNG files, lossless.

    ``root/<split>/<name>/images/<frame>.png`` are the pictures, ``.../labels/<frame>.png`` the
    masks, in one channel with a palette, and ``root/classes.csv`` names the classes.

    Args:
        root: made where it is missing; files of the same name are replaced.
        train: clips to train on, at least 1.
        val: clips to validate on, at least 1; none is among those to train on.
        seed: the same seed gives the same files; at least 0.
        label_every: every n-th frame from the first on has a mask; 1: all.
        dropout: as in :func:`render_scene`.

    Raises:
        ValueError: a value outside these ranges.
    """
    if train < 1 or val < 1:
        raise ValueError(f"train is {train}, val is {val}; each split needs at least one clip")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if label_every < 1:
        raise ValueError(f"label_every must be at least 1, got {label_every}")
    root.mkdir(parents=True, exist_ok=True)
    for i in range(val + train):  # val first: it stays the same when more clips are trained on
        folder = root / ("val" if i < val else "train") / f"{i:06d}"
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        images, masks = render_scene(seed * 1_000_000 + i, dropout=dropout)
        for n, (image, mask) in enumerate(zip(images, masks, strict=True)):
            Image.fromarray(image).save(folder / "images" / f"{n:06d}.png")
            if n % label_every == 0:
                label = Image.fromarray(mask)
                label.putpalette([channel for colour in PALETTE for channel in colour])
                label.save(folder / "labels" / f"{n:06d}.png")
    rows = [
        f"{i},{name},{r},{g},{b}"
        for i, (name, (r, g, b)) in enumerate(zip(CLASSES, PALETTE, strict=True))
    ]
    write_text(root / "classes.csv", "\n".join(["id,name,r,g,b", *rows, ""]))


def write_scene_video(path: Path, seed: int) -> None:
    """Write the pictures of one scene as a video file, to try prediction on.

    Args:
        path: its ending names the container (.mp4); the folder must exist.
        seed: of :func:`render_scene`.
    """
    write_video(path, iter(render_scene(seed)[0]), FRAME_RATE_HZ)
