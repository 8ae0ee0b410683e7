r"""Judge a network on recordings that no training has seen, neither pictures nor videos.

    python recipes/scene_motion/held_out.py --shared ../shared/data --out runs/sm/held_out

cuts clips out of real recordings: known camera motion over a still picture of each or over the
recording while it plays, and pieces of other recordings that move through it. Beside them stand
stretches of recordings of fixed cameras in which people move, as they are. Intervals are of the
mean over recordings (bootstrap over recordings, 95 %).
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cameras import CLASSES
from clips import CHANGED, SHARE, random_view, rendered, write_clip
from recordings import FIXED, OTHER, Footage, footage
from worlds import Plane

import spikevideoformer as svf
from spikevideoformer.files import write_text

KINDS = {
    "cut": "cut out of real recordings, camera motion known",
    "recorded": "of fixed cameras as they were recorded, people moving: moving_object",
}


def cut(
    name: str, own: Footage, others: list[Footage], rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """A clip of a class with the texture of a recording, and its rate."""
    while True:
        view = random_view(rng)
        pictures = None
        if name not in ("still", "moving_object") and rng.random() < 0.5:
            pictures = own.playing(view.moments_s, rng)
        if pictures is None:
            pictures = own.picture(rng)
        sprites = [others[int(rng.integers(len(others)))].picture(rng) for _ in range(3)]
        # the view is 45 to 70 % of the short side of the recording
        world = Plane(pictures, 2 * view.reach / rng.uniform(0.45, 0.7))
        with torch.inference_mode():
            clip = rendered(name, view, world, sprites, rng)
        if clip is not None:
            return clip, view.rate_hz


def stretches(own: Footage, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Stretches of 1.15 s in which something moves, at the rate of the recording."""
    length, gap = round(1.15 * own.rate_hz), max(1, round(own.rate_hz / 4))
    for start in rng.permutation(max(0, len(own.frames) - length))[:60]:
        piece = own.frames[start : start + length]
        grey = piece[:, ::4, ::4].mean(-1) / 255
        moved = (np.abs(grey[gap:] - grey[:-gap]) > CHANGED).mean((1, 2))
        if np.median(moved) > SHARE:
            yield piece
            count -= 1
        if count == 0:
            return


def write_clips(shared: Path, out: Path, count: int, seed: int) -> dict[Path, tuple[str, str, str]]:
    """Clips of all recordings: by path the kind, the recording and the class."""
    found = [footage(shared, name) for name in (*FIXED, *OTHER)]
    known: dict[Path, tuple[str, str, str]] = {}
    for number, own in enumerate(found):
        others = [f for f in found if f is not own]
        for label in CLASSES:
            for i in range(count):
                path = out / "cut" / f"{number:02d}_{label}_{i}.mp4"
                known[path] = ("cut", own.name, label)
                rng = np.random.default_rng([seed, number, CLASSES.index(label), i])
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    clip, rate_hz = cut(label, own, others, rng)
                    write_clip(path, clip, rate_hz, rng)
        rng = np.random.default_rng([seed, number])
        pieces = stretches(own, 2 * count, rng) if own.name in FIXED else ()
        for i, piece in enumerate(pieces):
            path = out / "recorded" / f"{number:02d}_{i}.mp4"
            known[path] = ("recorded", own.name, "moving_object")
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                even = piece[:, : piece.shape[1] // 2 * 2, : piece.shape[2] // 2 * 2]
                write_clip(path, even, max(1, round(own.rate_hz)), rng)
        print(own.name, flush=True)
    return known


def interval(by_recording: list[float], draws: int = 4000) -> tuple[float, float, float]:
    """Mean over recordings and its 95 % interval, by drawing recordings with replacement."""
    values = np.asarray(by_recording)
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(draws, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def judged(model: str, known: dict[Path, tuple[str, str, str]]) -> dict[str, Any]:
    """How often the network is right, by kind, class and recording."""
    predictor = svf.VideoPredictor.from_pretrained(model)
    right: dict[tuple[str, str], dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    confusion: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    unlike = 0
    for path, (kind, recording, label) in known.items():
        result = predictor.predict(path)
        said = result.labels[0].name
        unlike += bool(result.unlike_training)
        right[kind, "all"][recording].append(said == label)
        if kind == "cut":
            right[kind, label][recording].append(said == label)
            confusion[label][said] += 1
    metrics = []
    for (kind, label), recordings in right.items():
        share, low, high = interval([float(np.mean(v)) for v in recordings.values()])
        clips = sum(map(len, recordings.values()))
        metrics.append(
            {
                "what": "top-1" if label == "all" else f"recall of {label}",
                "on": f"{clips} clips {KINDS[kind]} ({len(recordings)} recordings)",
                "value": share,
                "low": low,
                "high": high,
                "beside": f"chance {1 / len(CLASSES):.3f}",
            }
        )
    metrics.append(
        {
            "what": "share marked as unlike the training clips",
            "on": f"the same {len(known)} clips",
            "value": unlike / len(known),
        }
    )
    return {"metrics": metrics, "confusion": confusion}


def of_made_clips(evaluation: Path) -> dict[str, Any]:
    """What the run says of its validation clips."""
    found = json.loads(evaluation.read_text("utf-8"))
    on = f"{found['clips']} made clips of panoramas never seen, which chose the epoch"
    return {"what": "top-1", "on": on, "value": found["top1"], "beside": "chance 0.143"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True, help="folder of the real data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--evaluation", type=Path, help="evaluation.json of the run")
    parser.add_argument("--model", default="svf/scene-motion")
    parser.add_argument("--clips", type=int, default=3, help="of each recording and class")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known = write_clips(arguments.shared, arguments.out, arguments.clips, arguments.seed)
    values = judged(arguments.model, known)
    if arguments.evaluation is not None:
        values["metrics"].append(of_made_clips(arguments.evaluation))
    write_text(arguments.out / "held_out.json", json.dumps(values, indent=1) + "\n")
    print(json.dumps(values, indent=1))


if __name__ == "__main__":
    main()
