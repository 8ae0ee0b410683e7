"""Real people before rendered places: python paste.py --out DIR --count 2000 (see README.md).

Runs in the environment of mediapipe, after ``make.py`` and ``teach.py``. People whom both teachers
see alike in the training recordings are cut out, varied in size, place, colour and tilt, and put
before rendered pictures that show nobody. Their light does not fit; their clothes, hair and skin
are real, which no rendering of this recipe is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from real import RECORDINGS, iou, read_frames
from teach import AGREE, NOBODY, Teachers

FIRST = 20_000_000  # seeds begin here


def cut_outs(data: Path, every: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures and masks [h, w] (0 to 1), each no larger than the person."""
    teachers = Teachers()
    found = []
    for name in RECORDINGS["train"]:
        for picture in read_frames(data / name)[::every]:
            one, two = teachers(picture)
            if two.mean() <= NOBODY or iou([(one, two)]) < AGREE:
                continue
            ys, xs = np.nonzero(two)
            box = np.s_[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
            thin = cv2.erode(two[box].astype(np.uint8), np.ones((3, 3), np.uint8))
            found.append((picture[box], thin.astype(np.float32)))
    return found


def pasted(
    rng: np.random.Generator, place: np.ndarray, people: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """A picture with one to three people, and where they are."""
    height, width = place.shape[:2]
    picture = place.astype(np.float32)
    mask = np.zeros((height, width), np.float32)
    for _ in range(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15])):
        cut, inside = people[rng.integers(len(people))]
        scale = np.exp(rng.uniform(np.log(0.3), np.log(2.2))) * height / cut.shape[0]
        turn = rng.normal(0, 6) if rng.random() < 0.9 else rng.uniform(-90, 90)
        move = cv2.getRotationMatrix2D((cut.shape[1] / 2, cut.shape[0] / 2), turn, scale)
        if rng.random() < 0.5:
            move[:, 2] += move[:, 0] * cut.shape[1]
            move[:, 0] *= -1
        middle = move @ [cut.shape[1] / 2, cut.shape[0] / 2, 1]
        tall = cut.shape[0] * scale
        low = min(0.5 * tall, height * 0.6) - 0.1 * height
        aim = [rng.uniform(-0.05, 1.05) * width, height * rng.uniform(0.3, 0.8) + max(low, 0) * 0.6]
        move[:, 2] += np.array(aim) - middle
        blur = max(0.5 / scale - 0.5, 0.01)
        cut = cv2.GaussianBlur(cut, (0, 0), blur).astype(np.float32)
        cut = cv2.warpAffine(cut, move, (width, height), borderMode=cv2.BORDER_REPLICATE)
        soft = cv2.GaussianBlur(inside, (0, 0), blur)
        soft = cv2.warpAffine(soft, move, (width, height))
        soft = cv2.GaussianBlur(soft, (0, 0), rng.uniform(0.3, 0.9))
        gain = rng.uniform(0.6, 1.6) * np.clip(rng.normal(1, 0.15, 3), 0.5, 1.5)
        grey = cut.mean(-1, keepdims=True)
        cut = (grey + (cut - grey) * rng.uniform(0.5, 1.6)) * gain + rng.uniform(0, 50)
        picture += (np.clip(cut, 0, 255) - picture) * soft[..., None]
        mask = np.maximum(mask, soft)
    picture += rng.normal(0, np.exp(rng.uniform(np.log(0.3), np.log(6))), picture.shape)
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8), (mask > 0.5).astype(np.uint8)


def main() -> None:
    """Read the options and do it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/people/real"))
    parser.add_argument("--out", type=Path, required=True, help="where make.py has written")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--every", type=int, default=3, help="cut out of every N-th frame")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    places = []
    for labels in sorted((options.out / "train").glob("[0-9]*/labels.npz")):
        with np.load(labels) as file:
            if not file["people"].any():
                places.append(labels.parent)
    if not places:
        raise SystemExit(f"{options.out}: no rendered clip without people; run make.py first")
    people = cut_outs(options.data, options.every)
    print(f"{len(people)} cut-outs, {len(places)} places", flush=True)
    for number in range(options.count):
        folder = options.out / "train" / f"paste_{number:06d}"
        if (folder / "labels.npz").exists():
            continue
        rng = np.random.default_rng(FIRST + number)
        frames = sorted(places[rng.integers(len(places))].glob("*.jpg"))
        place = cv2.imread(str(frames[rng.integers(len(frames))]))[..., ::-1]
        picture, mask = pasted(rng, place, people)
        folder.mkdir(parents=True, exist_ok=True)
        name = str(folder / "000.jpg")
        cv2.imwrite(name, picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        cv2.imwrite(str(folder / "000.png"), mask)
        np.savez(folder / "labels.npz", real=True)


if __name__ == "__main__":
    main()
