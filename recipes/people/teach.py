"""Masks of the real recordings by two teachers: python teach.py --out DIR (see README.md).

Runs in the environment of mediapipe. The teachers are mediapipe's selfie segmentation and the mask
of its pose network. A frame is kept where both say the same: IoU at least 0.8, or both see nobody.
Written is what ``make.py`` writes, beside the rendered clips of DIR.
"""

from __future__ import annotations

import argparse
import sys
import types
from pathlib import Path

import cv2
import numpy as np
from real import RECORDINGS, iou, read_frames, read_masks

AGREE = 0.8
NOBODY = 0.002  # share of the picture
SHORT = 128


def without_extras() -> None:
    """Stand in for what mediapipe imports but these two networks never call."""

    class Anything(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            if name.startswith("__"):
                raise AttributeError(name)
            return Anything(name)

    for name in (
        "matplotlib",
        "matplotlib.pyplot",
        "sounddevice",
        "jax",
        "jax.numpy",
        "mediapipe.tasks",
        "mediapipe.tasks.python",
    ):
        sys.modules[name] = Anything(name)


class Teachers:
    """Two masks of a picture."""

    def __init__(self) -> None:
        without_extras()
        from mediapipe.python.solutions.pose import Pose
        from mediapipe.python.solutions.selfie_segmentation import SelfieSegmentation

        self.selfie = SelfieSegmentation(model_selection=0)
        self.pose = Pose(
            static_image_mode=True,
            model_complexity=1,
            enable_segmentation=True,
            min_detection_confidence=0.3,
        )

    def __call__(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the selfie network and of the pose network, bool [H, W]."""
        one = self.selfie.process(picture).segmentation_mask > 0.5
        two = self.pose.process(picture).segmentation_mask
        return one, (np.zeros_like(one) if two is None else two > 0.5)


def main() -> None:
    """Read the options and do it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/people/real"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--splits", nargs="+", default=["train", "val"])
    parser.add_argument("--every", type=int, default=2, help="of long recordings, every N-th frame")
    parser.add_argument(
        "--judge",
        action="store_true",
        help="instead, say how good the teachers are on masks checked by hand",
    )
    options = parser.parse_args()
    cv2.setNumThreads(1)
    teachers = Teachers()
    if options.judge:
        means = []
        for name, frames in read_masks(options.data, "test").items():
            pairs = [(teachers(picture), mask) for _, picture, mask in frames]
            means.append([iou([(said[k], mask) for said, mask in pairs]) for k in range(2)])
            print(f"{name}: selfie {means[-1][0]:.3f}, pose {means[-1][1]:.3f}")
        print("mean of recordings: selfie {:.3f}, pose {:.3f}".format(*np.mean(means, 0)))
        return
    for split in options.splits:
        for name in RECORDINGS[split]:
            frames = read_frames(options.data / name)
            frames = frames[:: options.every] if len(frames) > 200 else frames
            folder = options.out / split / f"real_{name.split('.')[0]}"
            folder.mkdir(parents=True, exist_ok=True)
            kept = 0
            for number, picture in enumerate(frames):
                one, two = teachers(picture)
                agree = iou([(one, two)]) >= AGREE and two.mean() > NOBODY
                nobody = max(one.mean(), two.mean()) <= NOBODY
                scale = SHORT / min(picture.shape[:2])
                size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
                small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
                cv2.imwrite(
                    str(folder / f"{number:03d}.jpg"),
                    small[..., ::-1],
                    [cv2.IMWRITE_JPEG_QUALITY, 95],
                )
                if agree or nobody:
                    both = (
                        (one.astype(np.float32) + two) / 2
                        if agree
                        else np.zeros(one.shape, np.float32)
                    )
                    # where only one sees somebody, the pose network, whose edges are finer, decides
                    mask = (
                        cv2.resize(both * 0.5 + two * 0.5, size, interpolation=cv2.INTER_AREA) > 0.5
                    )
                    cv2.imwrite(str(folder / f"{number:03d}.png"), mask.astype(np.uint8))
                    kept += 1
            np.savez(folder / "labels.npz", real=True)
            print(f"{split} {name}: {kept} of {len(frames)} frames kept", flush=True)


if __name__ == "__main__":
    main()
