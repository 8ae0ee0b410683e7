"""Training video of people, rendered: python make.py --out DIR --clips 2000 (see README.md).

Writes what ``svf train --task segmentation`` reads (layout ``table``): ``splits.csv``,
``classes.csv``, a JPEG and a PNG mask for each frame, and for each clip ``labels.npz`` with the
masks of single people, joints and boxes. Clips are numbered; a number decides its clip. Started
again it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from pathlib import Path

os.environ.setdefault("LP_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from motion import read_capture
from render import Renderer, read_panorama
from scene import HEIGHT, WIDTHS, make_clip
from wear import SUPER

from body import Wardrobe

HELD_OUT_PANORAMAS = ("lobby", "park", "workshop")
HELD_OUT_SUBJECTS = ("003", "006")
FIRST = {"train": 0, "val": 10_000_000}  # seeds of a split begin here


def write_clip(folder: Path, clip) -> None:
    """The files of one clip; labels.npz is the last."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (picture, mask) in enumerate(zip(clip.pictures, clip.masks, strict=True)):
        options = [
            cv2.IMWRITE_JPEG_QUALITY,
            95,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
        ]
        cv2.imwrite(str(folder / f"{number:03d}.jpg"), picture[..., ::-1], options)
        cv2.imwrite(str(folder / f"{number:03d}.png"), (mask > 0).astype(np.uint8))
    part = folder / "part.npz"
    with part.open("wb") as file:
        np.savez_compressed(
            file,
            people=clip.masks,
            joints_2d=clip.joints_2d,
            joints_3d=clip.joints_3d,
            seen=clip.seen,
            boxes=clip.boxes,
            rate_hz=clip.rate_hz,
            about=json.dumps(clip.about),
        )
    part.rename(folder / "labels.npz")


def write_lists(out: Path) -> int:
    """splits.csv and classes.csv of what is there, whole clips only; the number of clips."""
    rows = []
    clips = sorted(p.parent for p in out.glob("*/*/labels.npz"))
    for clip in clips:
        for frame, picture in enumerate(sorted(clip.glob("*.jpg"))):
            name = picture.relative_to(out)
            mask = name.with_suffix(".png")
            rows.append(
                [
                    name,
                    mask if (out / mask).exists() else "",
                    clip.parent.name,
                    f"{clip.parent.name}/{clip.name}",
                    frame,
                ]
            )
    for name, head, lines in (
        ("splits.csv", ["image", "label", "split", "sequence", "frame"], rows),
        (
            "classes.csv",
            ["id", "name", "r", "g", "b"],
            [[0, "background", 40, 40, 40], [1, "person", 240, 140, 40]],
        ),
    ):
        part = out / f".{name}.part"
        with part.open("w", newline="") as file:
            csv.writer(file).writerows([head, *lines])
        part.rename(out / name)
    return len(clips)


def main() -> None:
    """Read the options and do it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("../shared/data/people"),
        help="folder with clothes, cmu and hdri",
    )
    parser.add_argument("--more-hdri", type=Path, help="further panoramas (OpenEXR)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", choices=list(FIRST), default="train")
    parser.add_argument("--clips", type=int, default=100, help="numbers 0 to this")
    parser.add_argument("--from-clip", type=int, default=0)
    parser.add_argument("--frames", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    held = options.split == "val"
    wardrobe = Wardrobe(options.data / "clothes")
    captures = [
        read_capture(p)
        for p in sorted((options.data / "cmu").glob("*.bvh.gz"))
        if p.name.startswith(HELD_OUT_SUBJECTS) == held
    ]
    skies = [
        *(options.data / "hdri").glob("*.exr"),
        *(options.more_hdri.glob("*.exr") if options.more_hdri else ()),
    ]
    panoramas = [
        read_panorama(p) for p in sorted(skies) if p.stem.startswith(HELD_OUT_PANORAMAS) == held
    ]
    if not captures or not panoramas:
        raise SystemExit(f"{options.data}: no motions in cmu or no panoramas in hdri")
    renderers = {w: Renderer(w * SUPER, HEIGHT * SUPER) for w in WIDTHS}
    begin = time.monotonic()
    made = 0
    for number in range(options.from_clip, options.clips):
        folder = options.out / options.split / f"{number:06d}"
        if (folder / "labels.npz").exists():
            continue
        write_clip(
            folder,
            make_clip(
                FIRST[options.split] + number,
                wardrobe,
                captures,
                panoramas,
                renderers,
                options.frames,
            ),
        )
        made += 1
        if made % 50 == 0:
            print(f"{made} clips, {(time.monotonic() - begin) / made:.2f} s each", flush=True)
    print(f"{options.out}: {write_lists(options.out)} clips")


if __name__ == "__main__":
    main()
