"""The embedded data set: clips whose class is only in the motion.

A wallpaper of bright discs on a dark ground moves in one of eight directions, a quarter of its
period a frame. Shifted by whole periods it is the same picture, so there are sixteen different
pictures, a 4 x 4 lattice of shifts; every class shows each of them exactly once, line after line
along its direction. For one wallpaper all eight classes show the same frames: only their order
differs. A single frame, or all frames shuffled, tell nothing, and each frame is compressed by
itself so that the files keep this property bit by bit.

The discs are always brighter than the ground. With contrast of either sign the direction is harder
to learn by far, because a moving edge then leaves opposite traces in the membranes
(docs/initialisation.md).
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikevideoformer.synth.puppets import ACTIONS, render_interaction
from spikevideoformer.video.frames import write_video

Image = NDArray[np.uint8]

# x to the right, y down, as in images
DIRECTIONS: dict[str, tuple[int, int]] = {
    "down": (0, 1),
    "down_left": (-1, 1),
    "down_right": (1, 1),
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "up_left": (-1, -1),
    "up_right": (1, -1),
}

LATTICE = 4  # shifts along each side
FRAMES = LATTICE**2
FRAME_RATE_HZ = 8.0
SIZE = 64  # pixels
PERIOD = 16  # pixels, of the wallpaper
STEP = PERIOD // LATTICE  # pixels between neighbouring shifts

# Every frame a key frame at a fixed quality: how a frame is stored does not depend on the others.
_INTRA_ONLY = {"qp": "20", "g": "1", "bf": "0", "preset": "veryfast"}


def visiting_order(direction: str, rng: np.random.Generator) -> list[tuple[int, int]]:
    """All shifts of the lattice, line after line along a direction.

    The lattice has no border: a step beyond one side comes in at the other. After each line of
    four, one step goes to a neighbouring line as well as ahead.

    Args:
        direction: a key of :data:`DIRECTIONS`.
        rng: decides the first shift, and to which side the lines follow each other.

    Returns:
        (x, y) in 0..LATTICE-1, each pair once.
    """
    dx, dy = DIRECTIONS[direction]
    x, y = rng.integers(0, LATTICE, 2)
    side = int(rng.choice([-1, 1]))
    # to the neighbouring line: across a straight direction, and along either axis of a diagonal
    aside = (0, side) if dy == 0 or (dx and rng.random() < 0.5) else (side, 0)
    order = []
    for _ in range(LATTICE):
        for _ in range(LATTICE):
            order.append((int(x) % LATTICE, int(y) % LATTICE))
            x, y = x + dx, y + dy
        x, y = x + aside[0], y + aside[1]
    return order


def _wallpaper(rng: np.random.Generator) -> NDArray[np.float64]:
    """One period, ``[PERIOD, PERIOD, 3]`` in 0..1: a disc somewhere on a ground.

    A single one, because among several the eye, and a network, cannot tell which went where.
    """
    image = np.broadcast_to(rng.uniform(0.0, 0.3, 3), (PERIOD, PERIOD, 3)).copy()
    centre, radius = rng.uniform(0, PERIOD, 2), rng.uniform(2.0, 4.5)
    y, x = np.mgrid[:PERIOD, :PERIOD]
    # distance to the nearest copy of the disc
    across, down = (
        np.abs((z - c + PERIOD / 2) % PERIOD - PERIOD / 2)
        for z, c in ((x, centre[0]), (y, centre[1]))
    )
    cover = np.clip(radius + 0.5 - np.hypot(across, down), 0, 1)[..., None]
    image += cover * (rng.uniform(0.7, 1.0, 3) - image)
    return image


def render_direction(direction: str, seed: int) -> Iterator[Image]:
    """Frames of one clip.

    Args:
        direction: a key of :data:`DIRECTIONS`, the class.
        seed: the wallpaper follows from it alone, the order of frames from it and the direction.

    Returns:
        Iterator over FRAMES pictures, uint8 RGB ``[SIZE, SIZE, 3]``.
    """
    paper = (_wallpaper(np.random.default_rng(seed)) * 255).astype(np.uint8)
    order = visiting_order(
        direction, np.random.default_rng([seed, list(DIRECTIONS).index(direction)])
    )
    tiles = SIZE // PERIOD
    for x, y in order:
        yield np.tile(np.roll(paper, (y * STEP, x * STEP), (0, 1)), (tiles, tiles, 1))


def write_direction_clips(
    root: Path,
    *,
    train: int = 1200,
    val: int = 240,
    seed: int = 0,
) -> None:
    """Write the data set as mp4 files, ``root/<split>/<direction>/<n>.mp4``.

    Args:
        root: made where it is missing; files of the same name are replaced.
        train: clips to train on, spread evenly over the classes.
        val: clips to validate on; no wallpaper is shared with training.
        seed: the same seed gives the same files.
    """
    names = list(DIRECTIONS)

    def clip(i: int) -> tuple[str, Iterator[Image]]:
        return names[i % len(names)], render_direction(names[i % len(names)], seed * 1_000_000 + i)

    _write(root, train, val, clip, FRAME_RATE_HZ)


def write_interaction_clips(
    root: Path,
    *,
    train: int = 2400,
    val: int = 240,
    seed: int = 0,
) -> None:
    """Write clips of interacting puppets, ``root/<split>/<action>/<n>.mp4``.

    Richer motion than directions, to pre-train on before real clips of people. The arguments are
    those of :func:`write_direction_clips`.
    """
    names = list(ACTIONS)

    def clip(i: int) -> tuple[str, Iterator[Image]]:
        name = names[i % len(names)]
        return name, render_interaction(name, seed * 1_000_000 + i)

    _write(root, train, val, clip, 12.0)


def _write(
    root: Path,
    train: int,
    val: int,
    clip: Callable[[int], tuple[str, Iterator[Image]]],
    frame_rate_hz: float,
) -> None:
    if train < 1 or val < 1:
        raise ValueError(f"train is {train}, val is {val}; each split needs at least one clip")
    for i in range(train + val):
        name, frames = clip(i)
        folder = root / ("train" if i < train else "val") / name
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{i:06d}.mp4", frames, frame_rate_hz, options=_INTRA_ONLY)
