"""A contact sheet of rendered clips: python sheet.py DIR sheet.jpg --clips 64 --columns 8."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np


def main() -> None:
    """Read the options and do it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--split", default="train")
    options = parser.parse_args()
    clips = sorted((options.data / options.split).glob("*/labels.npz"))[options.first :]
    cells = []
    for clip in clips[: options.clips]:
        frame = len(list(clip.parent.glob("*.jpg"))) // 2
        picture = cv2.imread(str(clip.parent / f"{frame:03d}.jpg"))
        mask = cv2.imread(str(clip.parent / f"{frame:03d}.png"), cv2.IMREAD_GRAYSCALE)
        edge = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        picture[edge] = (40, 140, 240)
        cell = np.zeros((128, 160, 3), np.uint8)
        left = (picture.shape[1] - 160) // 2
        cell[:] = picture[:, left : left + 160]
        cells.append(cell)
    cells += [np.zeros_like(cells[0])] * (-len(cells) % options.columns)
    rows = [
        np.hstack(cells[i : i + options.columns]) for i in range(0, len(cells), options.columns)
    ]
    cv2.imwrite(str(options.out), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
