"""The real recordings: how they are split, their pictures, and masks and joints by hand."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

# Split by recording, fixed before any training. Recordings that share people or a corridor are on
# one side: the five of "face-demographics" and "head-pose" are.
RECORDINGS = {
    "train": ("one-by-one-person-detection.mp4",),
    "val": ("classroom.gif", "people-detection.gif"),
    "test": (
        "face-demographics-walking.gif",
        "face-demographics-walking-and-pause.gif",
        "head-pose-face-detection-female.gif",
        "head-pose-face-detection-male.gif",
        "head-pose-face-detection-female-and-male.gif",
        "store-aisle-detection.gif",
        "worker-zone-detection.gif",
    ),
    # not used: a hand alone is no person to the teachers, and they miss people ten pixels high
    "unused": ("asl_hand.25fps.mp4", "person-bicycle-car-detection.gif"),
}


def read_frames(path: Path) -> list[np.ndarray]:
    """All pictures of a recording, RGB."""
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def read_masks(data: Path, split: str) -> dict[str, list[tuple[int, np.ndarray, np.ndarray]]]:
    """Frame numbers, pictures [H, W, 3] and masks (bool) of the recordings of a split.

    ``masks.json`` holds polygons, outer ones and holes, as x, y, x, y, ..., and how each mask came
    about: drawn, or a teacher's, accepted or corrected by eye.
    """
    polygons = json.loads((Path(__file__).parent / "masks.json").read_text())
    found: dict[str, list[tuple[int, np.ndarray, np.ndarray]]] = {}
    for name in RECORDINGS[split]:
        frames = read_frames(data / name)
        for key, value in polygons.items():
            recording, number = key.split()
            if recording != name:
                continue
            picture = frames[int(number)]
            mask = Image.new("1", picture.shape[1::-1])
            draw = ImageDraw.Draw(mask)
            for colour, kind in ((1, "outer"), (0, "holes")):
                for polygon in value[kind]:
                    draw.polygon(polygon, fill=colour)
            found.setdefault(name, []).append((int(number), picture, np.array(mask)))
    return {name: sorted(frames, key=lambda f: f[0]) for name, frames in found.items()}


def read_joints() -> list[dict]:
    """Frames of the test recordings whose joints were labelled by hand, in pixels."""
    return json.loads((Path(__file__).parent / "joints_by_hand.json").read_text())


def iou(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Of all pixels of pairs of masks; 1 where there is nobody in any."""
    union = sum(int((a | b).sum()) for a, b in pairs)
    return sum(int((a & b).sum()) for a, b in pairs) / union if union else 1.0


def interval(scores: list[float]) -> tuple[float, float]:
    """95 % interval of the mean over recordings, by resampling them."""
    drawn = np.random.default_rng(0).choice(scores, (10_000, len(scores)))
    low, high = np.percentile(drawn.mean(1), [2.5, 97.5])
    return float(low), float(high)
