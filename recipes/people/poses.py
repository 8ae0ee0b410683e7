"""Poses of rendered people, for ``svf train --task pose``: python poses.py DATA POSES.

DATA is what make.py wrote. Each person of a clip who can be seen well enough becomes a clip of its
own in POSES, in the layout of ``svf render``: the video of the whole picture, and beside it the
joints of this person. A joint outside of the picture has no place in it (NaN), so the square around
the person shows what can be seen; its place in space is known all the same.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from spikevideoformer.files import write_atomically, write_text
from spikevideoformer.video.writing import write_video

COCO = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
    "right_knee", "left_ankle", "right_ankle", "left_big_toe", "right_big_toe", "left_small_toe",
    "right_small_toe", "left_heel", "right_heel",
)  # fmt: skip
"""As anny counts them."""
PARENTS = {
    "pelvis": None, "left_hip": "pelvis", "left_knee": "left_hip", "left_ankle": "left_knee",
    "left_toe": "left_ankle", "right_hip": "pelvis", "right_knee": "right_hip",
    "right_ankle": "right_knee", "right_toe": "right_ankle", "neck": "pelvis",
    "left_shoulder": "neck", "left_elbow": "left_shoulder", "left_wrist": "left_elbow",
    "right_shoulder": "neck", "right_elbow": "right_shoulder", "right_wrist": "right_elbow",
    "nose": "neck", "left_eye": "nose", "left_ear": "left_eye", "right_eye": "nose",
    "right_ear": "right_eye",
}  # fmt: skip
"""The joints of the network and what each hangs on."""
MEANS = {
    "pelvis": ("left_hip", "right_hip"),
    "neck": ("left_shoulder", "right_shoulder"),
    "left_toe": ("left_big_toe", "left_small_toe"),
    "right_toe": ("right_big_toe", "right_small_toe"),
}
RATE_HZ = 20.0
"""Of clips of 10 to 25 frames a second: metrics want one rate. Only that of acceleration uses it,
which means nothing here."""
LEAST_PX, LEAST_JOINTS, LEAST_SEEN = 28, 8, 0.5
"""Of a person: extent in the picture, joints inside of it, and the share of these not hidden."""


def joints_of(values: np.ndarray) -> np.ndarray:
    """[T, 23, D] as anny counts joints, [T, J, D] as the network does."""
    columns = {name: values[:, COCO.index(name)] for name in COCO}
    columns |= {name: (columns[a] + columns[b]) / 2 for name, (a, b) in MEANS.items()}
    return np.stack([columns[name] for name in PARENTS], 1)


def focal_of(joints: np.ndarray, points: np.ndarray, height: int, width: int) -> float:
    """The focal length in pixels, from places in space and in the picture, its middle known."""
    near = joints[..., 2] > 0.05
    rays = (joints[..., :2] / joints[..., 2:])[near]
    seen = (points - [width / 2, height / 2])[near]
    return float(np.median(np.linalg.norm(seen, axis=-1) / np.linalg.norm(rays, axis=-1)))


def people_of(labels: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """What the layout of `svf render` keeps of each person who can be seen."""
    T, height, width = labels["people"].shape
    found = []
    for number in range(labels["joints_3d"].shape[1]):
        joints = joints_of(labels["joints_3d"][:, number])
        points = joints_of(labels["joints_2d"][:, number])
        # A joint that is the mean of two is seen where one of them is.
        seen = joints_of(labels["seen"][:, number, :, None].astype(float))[..., 0] > 0
        inside = ((points >= 0) & (points < [width, height])).all(-1) & (joints[..., 2] > 0)
        focal_px = focal_of(joints, points, height, width)
        shown = np.where(inside[..., None], points, np.nan)
        if inside.sum(1).min() < LEAST_JOINTS or not np.isfinite(focal_px):
            continue
        extent = np.nanmax(shown, (0, 1)) - np.nanmin(shown, (0, 1))
        if extent.max() < LEAST_PX or seen.sum() < LEAST_SEEN * inside.sum():
            continue
        found.append(
            {
                "joints3d": joints.astype(np.float32),
                "joints2d": shown.astype(np.float32),
                "rotations": np.full((T, len(PARENTS), 3, 3), np.nan, np.float32),
                "focal_px": np.float32(focal_px),
                "centre_px": np.array([width / 2, height / 2], np.float32),
                "times_s": np.arange(T) / RATE_HZ,
                "joint_names": np.array(list(PARENTS)),
                "parents": np.array(
                    [-1 if p is None else list(PARENTS).index(p) for p in PARENTS.values()]
                ),
            }
        )
    return found


def main() -> None:
    """Read the options and do it; what is there already is not made again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("poses", type=Path)
    options = parser.parse_args()
    rows: list[str] = []
    for path in tqdm(sorted(options.data.glob("*/[0-9]*/labels.npz"))):
        split, name = path.parts[-3:-1]
        with np.load(path) as file:
            labels = dict(file)
        (options.poses / split).mkdir(parents=True, exist_ok=True)
        for number, person in enumerate(people_of(labels)):
            clip = options.poses / split / f"{name}_{number}.npz"
            rows.append(f"{split}/{clip.stem}.mp4,person,{split}")
            if clip.exists():
                continue
            pictures = [np.asarray(Image.open(p)) for p in sorted(path.parent.glob("*.jpg"))]
            write_video(clip.with_suffix(".mp4"), pictures, RATE_HZ)
            write_atomically(clip, partial(np.savez, **person))
    lines = ["path,label,split", *rows, ""]
    write_text(options.poses / "splits.csv", "\n".join(lines))


if __name__ == "__main__":
    main()
