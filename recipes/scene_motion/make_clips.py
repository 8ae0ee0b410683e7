r"""Make the training and validation clips of svf/scene-motion (README.md).

    python recipes/scene_motion/make_clips.py --shared ../shared/data --out runs/sm

The same seed makes the same clips, whatever --jobs is. Clips that are there already stay.
"""

from __future__ import annotations

import argparse
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from cameras import CLASSES
from clips import random_view, random_world, rendered, write_clip
from recordings import TRAINED, Footage, footage
from worlds import Panorama, read_panorama

HELD_OUT = ("apartment", "city", "forest", "lobby")  # panoramas of the validation clips


@cache
def recordings(shared: Path, split: str) -> list[Footage]:
    """Those whose pictures are trained on; none to validate on."""
    return [footage(shared, name) for name in TRAINED] if split == "train" else []


@cache
def panoramas(folder: Path, split: str) -> list[Panorama]:
    """Those of a split, in the order of their names."""
    found = [p for p in sorted(folder.glob("*.exr")) if (p.stem in HELD_OUT) == (split == "val")]
    if not found:
        raise ValueError(f"{folder} holds no panorama for {split} (*.exr)")
    return [read_panorama(p) for p in found]


def make(task: tuple[str, str, int], *, shared: Path, out: Path, seed: int) -> None:
    """One clip: of a split, a class and a number."""
    split, name, number = task
    path = out / split / name / f"{name}_{number:05d}.mp4"
    if path.exists():
        return
    torch.set_num_threads(1)
    rng = np.random.default_rng([seed, split == "val", CLASSES.index(name), number])
    pictures = None
    with torch.inference_mode():
        while pictures is None:
            view = random_view(rng)
            world, sprites = random_world(
                name,
                panoramas(shared / "people/hdri", split),
                recordings(shared, split),
                rng,
                view,
            )
            pictures = rendered(name, view, world, sprites, rng)
    write_clip(path, pictures, view.rate_hz, rng)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True, help="folder of the real data")
    parser.add_argument("--out", type=Path, required=True, help="data set to write")
    parser.add_argument("--train", type=int, default=700, help="clips of each class")
    parser.add_argument("--val", type=int, default=60, help="the same, to validate on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    arguments = parser.parse_args()
    tasks = [("val", name, i) for i in range(arguments.val) for name in CLASSES]
    tasks += [("train", name, i) for i in range(arguments.train) for name in CLASSES]
    for split, name, _ in tasks:
        (arguments.out / split / name).mkdir(parents=True, exist_ok=True)
    work = partial(make, shared=arguments.shared, out=arguments.out, seed=arguments.seed)
    with get_context("spawn").Pool(arguments.jobs) as pool:
        for done, _ in enumerate(pool.imap_unordered(work, tasks, chunksize=8), start=1):
            if done % 500 == 0 or done == len(tasks):
                print(f"{done} of {len(tasks)} clips", flush=True)


if __name__ == "__main__":
    main()
