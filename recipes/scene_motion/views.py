r"""Pictures of places to pre-train on: views out of panoramas, and which of them it is.

    python recipes/scene_motion/views.py --panoramas ../shared/data/people/hdri --out runs/views
    svf train --config recipes/scene_motion/places.yaml

A folder a panorama, as ImageNet lies on disk. The same seed makes the same pictures.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import torch
from cameras import CameraPath
from clips import View, _photographed, _rays, _shown
from PIL import Image
from worlds import Panorama, read_panorama

from spikevideoformer.files import write_atomically

SIDE = 96


def view_of(world: Panorama, rng: np.random.Generator) -> np.ndarray:
    """A picture in a random direction, uint8 ``[SIDE, SIDE, 3]``."""
    reach = float(np.tan(np.radians(rng.uniform(50, 95)) / 2))
    view = View(height=SIDE, width=SIDE, rate_hz=1, shutter=0.0, reach=reach)
    zero = np.zeros(1)
    path = CameraPath(x=zero, y=zero, roll=zero + rng.normal(0, 0.1), zoom=zero + 1)
    x, y = view.plane()
    rays = _rays(world, view, path, x, y, rng)
    return _photographed(_shown(world, rays, int(rng.integers(2**63))), rng)[0]


def save(picture: np.ndarray, path: Path) -> None:
    held = io.BytesIO()
    Image.fromarray(picture).save(held, "jpeg", quality=92)
    write_atomically(path, lambda file: file.write(held.getvalue()))


def main() -> None:
    """Read the options and do it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--panoramas", type=Path, required=True, help="folder of OpenEXR files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=400, help="pictures of each panorama")
    parser.add_argument("--val", type=int, default=40, help="the same, to validate on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for place, file in enumerate(sorted(options.panoramas.glob("*.exr"))):
        world = read_panorama(file)
        for split, count in (("train", options.train), ("val", options.val)):
            folder = options.out / split / file.stem
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                rng = np.random.default_rng([place, split == "val", number])
                save(view_of(world, rng), folder / f"{number:04d}.jpg")
        print(file.stem, flush=True)


if __name__ == "__main__":
    main()
