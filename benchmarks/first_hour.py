r"""The first hour of a stranger: small data sets, the README's command as printed, and rivals.

    python benchmarks/first_hour.py --shared ../shared/data --demo demo --out runs/first_hour

makes five small data sets of real and rendered video and trains on each what
`svf train --data DATA --out RUN` chooses, with and without `--init-from`, and ten recipes tuned by
hand, each of as many steps. Validation clips are of other videos, subjects, drives or
performers than the training clips. Beside them stand baselines that need no network.

    clips2    2 classes x 10 clips of a second, portraits and people in a hall, cut from four videos
    action3   3 classes x 5 clips of two seconds: handshake, kick, punch; other pairs validate
    motion8   8 classes x 30 rendered clips of motion capture; other performers or styles validate
    masks12   12 labelled frames of two drives; 26 of a third drive validate
    pose20    20 rendered clips of 20 motions; 40 of other performers or styles validate

--only DATASET ... takes these. What is done already in --out is not done again.
"""

import argparse
import csv
import json
import shutil
import time
from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from camvid import most_frequent

from spikevideoformer.body.skeleton import Skeleton
from spikevideoformer.files import write_text
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.settings import merged
from spikevideoformer.synth.motions import read_mocap_table
from spikevideoformer.synth.render import write_motion_clips
from spikevideoformer.synth.spec import RenderSpec
from spikevideoformer.tasks.classification.index import read_index
from spikevideoformer.tasks.pose.demo import mean_pose
from spikevideoformer.tasks.pose.index import read_poses
from spikevideoformer.tasks.pose.spec import PoseSpec
from spikevideoformer.tasks.segmentation.index import read_sequences
from spikevideoformer.training import TrainConfig, train
from spikevideoformer.training.recipe import with_recipe
from spikevideoformer.video.frames import iter_frames, write_video

VIDEOS = {  # class -> video to train on, video to validate on
    "portrait": (
        "people/real/head-pose-face-detection-male.gif",
        "people/real/head-pose-face-detection-female-and-male.gif",
    ),
    "hall": (
        "people/real/one-by-one-person-detection.mp4",
        "people/real/worker-zone-detection.gif",
    ),
}
ACTIONS = ("handshake", "kick", "punch")
CONTENTS = ("bow", "bye", "dash", "guide", "run", "walk", "walk-back", "wave-both-hands")
TUNED: dict[str, list[dict[str, Any]]] = {
    "classification": [
        {"learning_rate": 6e-3},
        {"learning_rate": 1e-3},
        {"frames": 16},
        {"size": 96},
        {"size": 48, "frames": 16},
        {"design": "spatial_only"},
        {"neuron": "integer_lif"},
        {"label_smoothing": 0.0, "augmentation": {"crop_scale": None}},
        {"batch_size": 4, "learning_rate": 2e-3},
        {"design": "neuron_only"},
    ],
    "segmentation": [
        {"learning_rate": 6e-3},
        {"learning_rate": 1.5e-3},
        {"neuron": "lif"},
        {"design": "joint", "neuron": "lif", "frames": 4},
        {"frames": 4, "learning_rate": 6e-3},
        {"size": 96},
        {"segmentation": {"class_weights": "inverse_log"}},
        {"batch_size": 4},
        {"segmentation": {"scale": [0.75, 1.5]}},
        {"attention": "dot"},
    ],
    "pose": [
        {"learning_rate": 6e-3},
        {"learning_rate": 1.5e-3},
        {"design": "spatial_only"},
        {"neuron": "integer_lif"},
        {"frames": 4, "batch_size": 16},
        {"size": 96},
        {"pose": {"crop": "person"}},
        {"batch_size": 4},
        {"attention": "dot"},
        {"pose": {"rotation_weight": 3.0}},
    ],
}


def clips2(shared: Path, root: Path) -> None:
    """Ten clips of a second from each of four videos."""
    for name, videos in VIDEOS.items():
        for split, video in zip(("train", "val"), videos, strict=True):
            folder = root / split / name
            folder.mkdir(parents=True)
            frames = list(iter_frames(shared / video, resize_short=128))
            length_s = frames[-1].timestamp_s
            for i in range(10):
                start_s = i * (length_s - 1) / 9
                shown = [f.image for f in frames if start_s <= f.timestamp_s < start_s + 1]
                write_video(folder / f"{i:02d}.mp4", shown, len(shown))


def action3(shared: Path, root: Path) -> None:
    """Five clips of each class; subjects that have none of them validate."""
    rows = list(csv.DictReader((shared / "action" / "splits.csv").open()))
    rows = [row for row in rows if row["label"] in ACTIONS]
    taken: dict[str, int] = defaultdict(int)
    training = set()
    for subject in sorted({row["subject"] for row in rows}):
        own = [row["label"] for row in rows if row["subject"] == subject]
        if all(taken[label] + own.count(label) <= 5 for label in ACTIONS):
            training.add(subject)
            for label in own:
                taken[label] += 1
    lines = ["path,label,subject,split"]
    for row in rows:
        split = "train" if row["subject"] in training else "val"
        lines.append(f"{shared.resolve() / 'action' / row['path']},{row['label']},,{split}")
    root.mkdir(parents=True)
    write_text(root / "splits.csv", "\n".join(lines) + "\n")


def motion8(shared: Path, root: Path) -> None:
    """Thirty training clips of each of eight contents."""
    rows = [row for row in read_mocap_table(shared / "mocap") if row.content in CONTENTS]
    rows = [row for row in rows if row.split != "test"]
    per_content = {
        name: [r for r in rows if r.content == name and r.split == "train"] for name in CONTENTS
    }
    spec = RenderSpec(size=96, frames=32, frame_rate_hz=10.0)
    chosen = [motions[i % len(motions)] for motions in per_content.values() for i in range(10)]
    unique = list({row.path: row for row in chosen}.values())
    unique += [row for row in rows if row.split == "val"]
    write_motion_clips((row.load() for row in unique), root, spec=spec, clips_per_motion=3)


def masks12(shared: Path, root: Path) -> None:
    """Runs of three labelled frames, two of each of the training drives."""
    source = shared / "vss"
    rows = list(csv.DictReader((source / "splits.csv").open()))
    by_drive: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        by_drive[row["sequence"]].append(row)
    lines = ["image,label,segment,frame,split"]
    for drive, frames in by_drive.items():
        split = frames[0]["split"]
        starts = (len(frames) // 4, 3 * len(frames) // 4) if split == "train" else ()
        kept = [frames[s + k] for s in starts for k in range(3)] or frames[::4]
        for k, row in enumerate(kept):
            image, label = (source.resolve() / row[name] for name in ("image", "label"))
            segment = f"{drive}_{k // 3}" if split == "train" else drive
            lines.append(f"{image},{label},{segment},{row['frame']},{split}")
    root.mkdir(parents=True)
    write_text(root / "splits.csv", "\n".join(lines) + "\n")
    shutil.copy(source / "classes.csv", root / "classes.csv")


def pose20(shared: Path, root: Path) -> None:
    """One clip of each of twenty training and forty validation motions."""
    rows = read_mocap_table(shared / "mocap")
    rng = np.random.default_rng(0)
    chosen = []
    for split, count in (("train", 20), ("val", 40)):
        own = [row for row in rows if row.split == split]
        chosen += [own[i] for i in rng.permutation(len(own))[:count]]
    spec = RenderSpec(size=96, frames=32, frame_rate_hz=10.0)
    write_motion_clips((row.load() for row in chosen), root, spec=spec, clips_per_motion=1)


DATASETS = {
    "clips2": ("classification", clips2),
    "action3": ("classification", action3),
    "motion8": ("classification", motion8),
    "masks12": ("segmentation", masks12),
    "pose20": ("pose", pose20),
}


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """What `svf train` does with these settings, or what it did before."""
    out = Path(settings["out"])
    done = out / "first_hour.json"
    if not done.exists():
        full, _ = with_recipe(settings)
        begin_s, cpu_s = time.monotonic(), time.process_time()
        result = train(TrainConfig.from_dict(full), resume=True)
        entry = {
            "settings": settings,
            "minutes": (time.monotonic() - begin_s) / 60,
            "cpu_minutes": (time.process_time() - cpu_s) / 60,
            "evaluation": result.evaluation.to_dict(),
        }
        write_text(done, json.dumps(entry, indent=1, default=str) + "\n")
    return json.loads(done.read_text())


def told(task: str, evaluation: dict[str, Any]) -> str:
    if task == "classification":
        return f"top-1 {evaluation['top1']:.1%} of {evaluation['clips']}"
    if task == "segmentation":
        return f"mIoU {evaluation['miou']:.1%}, pixels {evaluation['pixel_accuracy']:.1%}"
    overall = evaluation["overall"]
    return f"MPJPE {overall['mpjpe_mm']:.0f} mm, PA-MPJPE {overall['pa_mpjpe_mm']:.0f} mm"


def trivial(task: str, data: Path, model: Path) -> str:
    """What an answer is worth that does not look at the input."""
    if task == "classification":
        labels = [sample.label for sample in read_index(data, split="val").samples]
        return f"most frequent class {max(map(labels.count, labels)) / len(labels):.1%}"
    if task == "segmentation":
        index = read_sequences(data)
        result = most_frequent(index.select("train"), index.select("val"))
        return f"most frequent class at each pixel: {told(task, result.to_dict())}"
    poses = read_poses(data)
    network = SpikeVideoFormer.from_pretrained(model)
    assert isinstance(network.body, Skeleton) and network.clip is not None
    spec = PoseSpec.from_dict(network.clip)
    constant, turned = (
        told(task, mean_pose(poses, spec, network.body, turned=turned).to_dict())
        for turned in (False, True)
    )
    return f"mean pose {constant}; turned as in the truth {turned}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True, help="folder of the real data")
    parser.add_argument("--demo", type=Path, help="model folder to start from")
    parser.add_argument("--out", type=Path, default=Path("runs/first_hour"))
    parser.add_argument("--only", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--tuned", type=int, default=10, help="recipes tuned by hand to run")
    parser.add_argument("--threads", type=int, help="of torch")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    for name in arguments.only:
        task, make = DATASETS[name]
        data = arguments.out / "data" / name
        if not (data / "whole").exists():
            shutil.rmtree(data, ignore_errors=True)
            make(arguments.shared, data)
            write_text(data / "whole", "yes\n")
        common = {"data": str(data), "task": task, "model": "svf_nano"}
        runs: dict[str, dict[str, Any]] = {"chosen": {}}
        if arguments.demo is not None:
            runs["chosen, from the demo"] = {"init_from": str(arguments.demo)}
        for i, change in enumerate(islice(TUNED[task], arguments.tuned)):
            start = runs["chosen, from the demo"] if i % 2 and arguments.demo is not None else {}
            runs[f"tuned {i}: {json.dumps(change)}"] = merged(start, change)
        for title, change in runs.items():
            slug = title.partition(":")[0].replace(", ", "-").replace(" ", "-")
            entry = run({**common, **change, "out": str(arguments.out / name / slug)})
            if title == "chosen":
                print(f"{name:8} {trivial(task, data, arguments.out / name / slug / 'model')}")
            print(
                f"{name:8} {told(task, entry['evaluation']):36} {entry['minutes']:5.1f} min "
                f"({entry['cpu_minutes']:.1f} of CPU)  {title}",
                flush=True,
            )


if __name__ == "__main__":
    main()
