"""The embedded data set: clips whose class is only in the motion.

Bright discs over a dark ground move as one in one of eight directions. The positions that they
take form a square lattice, and every class visits every position of it exactly once, line after
line along its direction, the lines in random order. So for one scene all eight classes show the
same frames: only their order differs. A single frame, or all frames shuffled, tell nothing, and
each frame is compressed by itself so that the files keep this property bit by bit.

The discs are always brighter than the ground. With random contrast the direction is harder to
learn by far, because a moving edge leaves opposite traces in the membranes (docs/initialisation.md).
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikevideoformer.data.puppets import ACTIONS, render_interaction
from spikevideoformer.data.video import write_video

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

LATTICE = 4  # positions along each side
FRAMES = LATTICE**2
FRAME_RATE_HZ = 8.0
SIZE = 64  # pixels
STEP = 4  # pixels between neighbouring positions

# Every frame a key frame at a fixed quality: how a frame is stored does not depend on the others.
_INTRA_ONLY = {"qp": "20", "g": "1", "bf": "0", "preset": "veryfast"}

Progress = Callable[[Iterable[int]], Iterable[int]]


def visiting_order(direction: str, rng: np.random.Generator) -> list[tuple[int, int]]:
    """All positions of the lattice, line after line along a direction.

    Args:
        direction: a key of :data:`DIRECTIONS`.
        rng: decides the order of the lines.

    Returns:
        (x, y) in 0..LATTICE-1, each pair once.
    """
    dx, dy = DIRECTIONS[direction]
    lines: dict[int, list[tuple[int, int]]] = {}
    for x in range(LATTICE):
        for y in range(LATTICE):
            lines.setdefault(x * dy - y * dx, []).append((x, y))
    order: list[tuple[int, int]] = []
    for key in rng.permutation(sorted(lines)):
        order += sorted(lines[int(key)], key=lambda p: p[0] * dx + p[1] * dy)
    return order


def _scene(rng: np.random.Generator) -> NDArray[np.float64]:
    """Discs on a ground, ``[SIZE + margin, SIZE + margin, 3]`` in 0..1, all lattice shifts of it."""
    extent = SIZE + STEP * (LATTICE - 1)
    ground = rng.uniform(0.0, 0.3, 3)
    image = np.broadcast_to(ground, (extent, extent, 3)).copy()
    y, x = np.mgrid[:extent, :extent]
    for _ in range(rng.integers(8, 17)):
        centre, radius = rng.uniform(0, extent, 2), rng.uniform(2.4, 5.0)
        cover = np.clip(radius + 0.5 - np.hypot(x - centre[0], y - centre[1]), 0, 1)[..., None]
        image += cover * (rng.uniform(0.7, 1.0, 3) - image)
    return image


def render_direction(direction: str, seed: int) -> Iterator[Image]:
    """Frames of one clip.

    Args:
        direction: a key of :data:`DIRECTIONS`, the class.
        seed: the scene follows from it alone, the order of frames from it and the direction.

    Returns:
        Iterator over FRAMES pictures, uint8 RGB ``[SIZE, SIZE, 3]``.
    """
    scene = (_scene(np.random.default_rng(seed)) * 255).astype(np.uint8)
    order = visiting_order(
        direction, np.random.default_rng([seed, list(DIRECTIONS).index(direction)])
    )
    for x, y in order:
        top, left = (LATTICE - 1 - y) * STEP, (LATTICE - 1 - x) * STEP
        yield scene[top : top + SIZE, left : left + SIZE]


def write_direction_clips(
    root: Path,
    *,
    train: int = 1200,
    val: int = 240,
    seed: int = 0,
    progress: Progress = iter,
) -> None:
    """Write the data set as mp4 files, ``root/<split>/<direction>/<n>.mp4``.

    Args:
        root: made where it is missing; files of the same name are replaced.
        train: clips to train on, spread evenly over the classes.
        val: clips to validate on; no scene is shared with training.
        seed: the same seed gives the same files.
        progress: wraps the iteration over clips, for a progress bar.
    """
    names = list(DIRECTIONS)

    def clip(i: int) -> tuple[str, Iterator[Image]]:
        return names[i % len(names)], render_direction(names[i % len(names)], seed * 1_000_000 + i)

    _write(root, train, val, clip, FRAME_RATE_HZ, progress)


def write_interaction_clips(
    root: Path,
    *,
    train: int = 2400,
    val: int = 240,
    seed: int = 0,
    progress: Progress = iter,
) -> None:
    """Write clips of interacting puppets, ``root/<split>/<action>/<n>.mp4``.

    Richer motion than directions, to pre-train on before real clips of people. The arguments are
    those of :func:`write_direction_clips`.
    """
    names = list(ACTIONS)

    def clip(i: int) -> tuple[str, Iterator[Image]]:
        name = names[i % len(names)]
        return name, render_interaction(name, seed * 1_000_000 + i)

    _write(root, train, val, clip, 12.0, progress)


def _write(
    root: Path,
    train: int,
    val: int,
    clip: Callable[[int], tuple[str, Iterator[Image]]],
    frame_rate_hz: float,
    progress: Progress,
) -> None:
    if train < 1 or val < 1:
        raise ValueError(f"train is {train}, val is {val}; each split needs at least one clip")
    for i in progress(range(train + val)):
        name, frames = clip(i)
        folder = root / ("train" if i < train else "val") / name
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{i:06d}.mp4", frames, frame_rate_hz, options=_INTRA_ONLY)
