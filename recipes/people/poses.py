"""Poses of rendered people, for ``svf train --task pose``: python poses.py DATA POSES.

DATA is what make.py wrote. Each person of a clip who can be seen well enough becomes a clip of its
own in POSES, in the layout of ``svf render``: the video of the whole picture, and beside it the
joints of this person. Who lies or rolls is left out: a small network has enough to learn of people
who do not. A joint outside of the picture has no place in it (NaN), so the square around the person
shows what can be seen; its place in space is known all the same.

With ``--teachers FILE --real FOLDER`` the recordings of the training split follow, with the joints
on which the teachers of teach_pose.py agree, in the picture alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from real import RECORDINGS, read_frames
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
NECK = list(PARENTS).index("neck")
MEANS = {
    "pelvis": ("left_hip", "right_hip"),
    "neck": ("left_shoulder", "right_shoulder"),
    "left_toe": ("left_big_toe", "left_small_toe"),
    "right_toe": ("right_big_toe", "right_small_toe"),
}
SURE = {"mediapipe": 0.5, "movenet": 0.3}
WITHIN = 0.1
"""Teachers agree within this share of the box around the person, where both are sure."""
SHOULDERS = ("left_shoulder", "right_shoulder")
COPIES = 4
"""Of real recordings, so that one training frame in thirteen is real."""
USUAL_FOCAL = 1.2
"""Of recordings whose camera is not known, in picture widths."""
RATE_HZ = 20.0
"""Of clips of 10 to 25 frames a second: metrics want one rate. Only that of acceleration uses it,
which means nothing here."""
MOST_TILT_DEG = 60.0
"""Of the line from pelvis to neck, as it is seen, against the upright."""
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
    height, width = labels["people"].shape[1:]
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
        right, down = (points[:, NECK] - points[:, 0]).mean(0)
        tilt = np.degrees(np.arctan2(abs(right), -down))
        if (
            tilt > MOST_TILT_DEG
            or extent.max() < LEAST_PX
            or seen.sum() < LEAST_SEEN * inside.sum()
        ):
            continue
        found.append(labels_of(joints, shown, focal_px, (width, height)))
    return found


def labels_of(
    joints: np.ndarray, points: np.ndarray, focal_px: float, size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """As `svf render` keeps them: joints [T, J, 3], points [T, J, 2]; size is width, height."""
    return {
        "joints3d": joints.astype(np.float32),
        "joints2d": points.astype(np.float32),
        "rotations": np.full((*joints.shape[:2], 3, 3), np.nan, np.float32),
        "focal_px": np.float32(focal_px),
        "centre_px": np.array([size[0] / 2, size[1] / 2], np.float32),
        "times_s": np.arange(len(joints)) / RATE_HZ,
        "joint_names": np.array(list(PARENTS)),
        "parents": np.array(
            [-1 if p is None else list(PARENTS).index(p) for p in PARENTS.values()]
        ),
    }


def in_picture(entry: dict) -> np.ndarray:
    """Which of mediapipe's joints lie in the picture; their box is that of the person."""
    joints = np.array(entry["mediapipe"])[:, :2]
    return ((joints >= 0) & (joints < entry["size"])).all(1)


def labelled(entry: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean of the teachers [17, 2]; where both are sure; where they agree, too; side of the box."""
    one, two = np.array(entry["mediapipe"]), np.array(entry["movenet"])
    inside = in_picture(entry)
    side = float(np.ptp(one[inside, :2], axis=0).max())
    sure = inside & (one[:, 2] > SURE["mediapipe"]) & (two[:, 2] > SURE["movenet"])
    agree = sure & (np.linalg.norm(one[:, :2] - two[:, :2], axis=1) < WITHIN * side)
    return (one[:, :2] + two[:, :2]) / 2, sure, agree, side


def taught(entries: list[dict]) -> dict[str, np.ndarray]:
    """Labels of the frames of one recording, of what its two teachers say."""
    points = np.full((len(entries), len(PARENTS), 2), np.nan)
    for row, entry in zip(points, entries, strict=True):
        middle, _, agree, _ = labelled(entry)
        if agree.sum() < LEAST_JOINTS:
            continue
        for name, place, known in zip(COCO, middle, agree, strict=False):
            if known:
                row[list(PARENTS).index(name)] = place
        for name, pair in (("pelvis", ("left_hip", "right_hip")), ("neck", SHOULDERS)):
            row[list(PARENTS).index(name)] = np.mean([row[list(PARENTS).index(n)] for n in pair], 0)
    width, height = entries[0]["size"]
    nowhere = np.full((*points.shape[:2], 3), np.nan)
    return labels_of(nowhere, points, USUAL_FOCAL * width, (width, height))


def write_clip(clip: Path, pictures: Iterable[np.ndarray], labels: dict[str, np.ndarray]) -> None:
    """The video, and the labels beside it."""
    clip.parent.mkdir(parents=True, exist_ok=True)
    write_video(clip.with_suffix(".mp4"), pictures, RATE_HZ)
    write_atomically(clip, partial(np.savez, **labels))


def main() -> None:
    """Read the options and do it; rendered clips that are there are not made again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("poses", type=Path)
    parser.add_argument("--teachers", type=Path)
    parser.add_argument("--real", type=Path)
    options = parser.parse_args()
    if (options.teachers is None) != (options.real is None):
        parser.error("--teachers and --real go together")
    rows: list[str] = []
    for path in tqdm(sorted(options.data.glob("*/[0-9]*/labels.npz"))):
        split, name = path.parts[-3:-1]
        with np.load(path) as file:
            labels = dict(file)
        for number, person in enumerate(people_of(labels)):
            clip = options.poses / split / f"{name}_{number}.npz"
            rows.append(f"{split}/{clip.stem}.mp4,person,{split}")
            if not clip.exists():
                pictures = [np.asarray(Image.open(p)) for p in sorted(path.parent.glob("*.jpg"))]
                write_clip(clip, pictures, person)
    if options.teachers is not None:
        entries = json.loads(options.teachers.read_text())
        for name in RECORDINGS["train"]:
            own = [entry for entry in entries if entry["recording"] == name]
            if not own:
                raise SystemExit(f"{options.teachers} has no frame of {name}; teach it again")
            frames = read_frames(options.real / name)
            for copy in range(COPIES):
                clip = options.poses / "train" / f"{Path(name).stem}_{copy}.npz"
                write_clip(clip, (frames[entry["frame"]] for entry in own), taught(own))
                rows.append(f"train/{clip.stem}.mp4,person,train")
    lines = ["path,label,split", *rows, ""]
    write_text(options.poses / "splits.csv", "\n".join(lines))


if __name__ == "__main__":
    main()
