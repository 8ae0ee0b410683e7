r"""Draw clips of each class, six moments of each, as the contact sheet of the documentation.

python recipes/scene_motion/sheet.py --clips runs/scene_motion/clips/train --out sheet.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from cameras import CLASSES
from PIL import Image, ImageDraw

from spikevideoformer.data.transforms import cut_square
from spikevideoformer.video.frames import iter_frames

SIDE, MOMENTS = 56, 6


def strip(path: Path) -> np.ndarray:
    """Moments of a clip in a row, uint8 ``[SIDE, MOMENTS * SIDE, 3]``."""
    import torch

    frames = torch.from_numpy(np.stack([frame.image for frame in iter_frames(path)]))
    chosen = frames[np.linspace(0, len(frames) - 1, MOMENTS).astype(int)]
    return np.concatenate(list(cut_square(chosen, SIDE).permute(0, 2, 3, 1).numpy()), axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True, help="folder of class folders")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    parser.add_argument("--rows", type=int, default=2, help="of each class")
    parser.add_argument("--columns", type=int, default=3)
    arguments = parser.parse_args()
    wide = arguments.columns * (MOMENTS * SIDE + 4)
    sheet = Image.new("RGB", (wide, len(CLASSES) * (arguments.rows * SIDE + 14)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, name in enumerate(CLASSES):
        top = i * (arguments.rows * SIDE + 14)
        draw.text((2, top + 1), name.replace("_", " "), fill="black")
        paths = sorted((arguments.clips / name).glob("*.mp4"))
        for k, path in enumerate(paths[: arguments.rows * arguments.columns]):
            row, column = divmod(k, arguments.columns)
            place = (column * (MOMENTS * SIDE + 4), top + 14 + row * SIDE)
            sheet.paste(Image.fromarray(strip(path)), place)
    sheet.quantize(128).save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
