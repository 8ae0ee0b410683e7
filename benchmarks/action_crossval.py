"""Real clips of two people: cross-validation by subject, from scratch and after pre-training.

    python benchmarks/action_crossval.py --data ../shared/data/action --out runs/crossval

1. makes procedural clips of interacting puppets and trains a network on them;
2. for each fold trains one network from scratch and one that starts from the first, with the same
   budget, and takes the accuracy of the LAST epoch (no epoch is chosen by looking at the fold);
3. measures two simple baselines on the same folds, and writes results.json, results.png and
   confusion.png.

What is done already in --out is not done again, so it can be stopped and restarted.
--set KEY=VALUE changes a setting of all networks: --set neuron=integer_lif.
"""

import argparse
import json
import logging
import math
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import yaml

from spikevideoformer.data.specs import Augmentation
from spikevideoformer.figures import legend_above
from spikevideoformer.files import write_text
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.synth.directions import write_interaction_clips
from spikevideoformer.tasks.classification.dataset import ClipDataset
from spikevideoformer.tasks.classification.index import read_index
from spikevideoformer.tasks.classification.sample import ClipIndex
from spikevideoformer.training import TrainConfig, evaluate, train
from spikevideoformer.training.checkpoint import load_checkpoint
from spikevideoformer.video.frames import read_clip
from spikevideoformer.video.spec import ClipSpec

matplotlib.use("Agg")

TITLES = {"scratch": "svf_nano from scratch", "transfer": "svf_nano pre-trained"}
ARMS = tuple(TITLES)
FOLDS = 5
EVAL_CLIPS = 3
T_95 = 2.776  # Student's t, 4 degrees of freedom, two-sided
INPUT: dict[str, Any] = {"model": "svf_nano", "readout": "membrane", "frames": 12, "size": 64}
AUGMENTATION = Augmentation(
    crop_scale=(0.6, 1.0),
    flip=0.5,
    brightness=0.3,
    contrast=0.3,
    saturation=0.3,
    temporal_jitter=0.5,
)


def pretrain(out: Path, clips: int, epochs: int, settings: dict[str, Any]) -> Path:
    """A network trained on puppets; returns its model folder."""
    puppets = out / "puppets"
    if not (out / "puppets.done").exists():
        print(f"making {clips} puppet clips in {puppets}", flush=True)
        write_interaction_clips(puppets, train=clips, val=240)
        write_text(out / "puppets.done", "whole\n")
    result = train(
        TrainConfig(
            **settings,
            data=puppets,
            out=out / "pretrain",
            augmentation=AUGMENTATION,
            epochs=epochs,
            batch_size=8,
            learning_rate=3e-3,
            warmup_epochs=1,
            check="none",  # written a moment ago
            cache=True,
            workers=0,
        ),
        resume=True,
    )
    print(f"puppets: {result.evaluation.to_dict()['top1']:.1%} of the validation clips", flush=True)
    return result.model


def run_fold(
    arm: str,
    fold: int,
    data: Path,
    out: Path,
    start: Path | None,
    epochs: int,
    settings: dict[str, Any],
) -> Any:
    """Train one arm on one fold; returns the confusion matrix and the minutes it took."""
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)  # several folds run side by side
    index = read_index(data).folds(FOLDS)[fold]
    config = TrainConfig(
        **settings,
        out=out / arm / f"fold{fold}",
        init_from=start if arm == "transfer" else None,
        augmentation=AUGMENTATION,
        epochs=epochs,
        batch_size=8,
        learning_rate=3e-3 if arm == "scratch" else 1.5e-3,
        warmup_epochs=2,
        cache=True,
        workers=0,
        seed=fold,
    )
    done = config.out / "last.json"
    if not done.exists():
        begin = time.monotonic()
        result = train(config, index=index, resume=True)
        seconds = time.monotonic() - begin
        # the weights of the last epoch, not of the best one
        newest = max((config.out / "checkpoints").glob("step-*.pt"))
        model = SpikeVideoFormer.from_pretrained(result.model)
        saved = load_checkpoint(newest)
        validation = ClipDataset(index.select("val"), config.spec, clips_per_video=EVAL_CLIPS)
        entry = {"minutes": seconds / 60, "start": str(config.init_from)}
        for name, statistics in (("running", {}), ("confusion", saved["measured"])):
            model.load_state_dict(saved["model"] | statistics)
            entry[name] = evaluate(model, validation, batch_size=12).to_dict()["confusion"]
        write_text(done, json.dumps(entry))
    found = json.loads(done.read_text())
    if found["start"] != str(config.init_from):
        raise SystemExit(f"{done} starts from {found['start']}; give another --out")
    return found


def baseline(index: ClipIndex, motion: bool) -> list[float]:
    """Accuracy per fold of ridge regression on the first frame, or on maps of frame differences."""
    spec = ClipSpec(frames=16, size=64)

    def features(path: Path) -> np.ndarray:
        frames = read_clip(path, spec, resize_short=64).frames.float().mean(-1)  # [T, H, W]
        if motion:
            maps = frames.diff(dim=0).abs()  # [15, H, W]
            pooled = torch.nn.functional.adaptive_avg_pool3d(maps[None, None], (5, 8, 8))
        else:
            pooled = torch.nn.functional.adaptive_avg_pool2d(frames[:1, None], (16, 16))
        return pooled.flatten().double().numpy()

    data = {s.path: features(s.path) for s in index.samples}
    scores = []
    for fold in index.folds(FOLDS):
        parts = {}
        for split in ("train", "val"):
            samples = fold.select(split).samples
            parts[split] = (
                np.stack([data[s.path] for s in samples]),
                np.array([s.label for s in samples]),
            )
        x, y = parts["train"]
        mean, std = x.mean(0), x.std(0) + 1e-6
        z = (x - mean) / std
        targets = np.eye(len(index.classes))[y]
        kernel = z @ z.T + 100 * np.eye(len(z))
        weights = z.T @ np.linalg.solve(kernel, targets - targets.mean(0))
        xv, yv = parts["val"]
        guesses = (((xv - mean) / std) @ weights + targets.mean(0)).argmax(1)
        scores.append(float((guesses == yv).mean()))
    return scores


def interval(scores: list[float]) -> tuple[float, float]:
    """Mean and half width of the 95 % interval over folds."""
    spread = float(np.std(scores, ddof=1)) / math.sqrt(len(scores))
    return float(np.mean(scores)), T_95 * spread


def plot(
    rows: dict[str, list[float]], confusion: np.ndarray, classes: Any, title: str, out: Path
) -> None:
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for i, scores in enumerate(rows.values()):
        mean, half = interval(scores)
        axis.barh(i, mean, xerr=half, color="#4c78a8", ecolor="#333333", capsize=4)
        axis.plot(scores, [i] * len(scores), "o", color="#f58518", markersize=4)
        axis.text(0.01, i, f"{mean:.2f}", va="center", color="white", weight="bold")
    axis.axvline(1 / len(classes), color="#888888", linestyle="--", label="chance")
    axis.set(yticks=range(len(rows)), yticklabels=list(rows), xlim=(0, 1), xlabel="accuracy")
    axis.set_title("five folds by subject: mean, 95 % interval, each fold")
    legend_above(axis)
    figure.savefig(out / "results.png", dpi=120)

    figure, axis = plt.subplots(figsize=(4.6, 4), layout="constrained")
    axis.imshow(confusion, cmap="Blues")
    for (i, j), n in np.ndenumerate(confusion):
        axis.text(j, i, f"{n:.0f}", ha="center", va="center", color="white" if n > 8 else "black")
    axis.set(xticks=range(len(classes)), yticks=range(len(classes)), yticklabels=classes)
    axis.set_xticklabels(classes, rotation=45, ha="right")
    axis.set(xlabel="predicted", ylabel="true", title=f"{title}, all folds")
    figure.savefig(out / "confusion.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="class folders with splits.csv")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--puppets", type=int, default=2400, help="clips to pre-train on")
    parser.add_argument("--pretrain-epochs", type=int, default=8)
    parser.add_argument("--start", help="a network to transfer, instead of one of puppets")
    parser.add_argument("--epochs", type=int, default=30, help="of each fold")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="for all networks"
    )
    parser.add_argument("--jobs", type=int, default=2, help="folds trained side by side")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    args.out.mkdir(parents=True, exist_ok=True)
    index = read_index(args.data)
    settings = dict(INPUT)
    for pair in args.set:
        key, _, value = pair.partition("=")
        settings[key] = yaml.safe_load(value)
    start = None
    if "transfer" in args.arms and args.start:
        start = Path(args.start)
    elif "transfer" in args.arms:
        start = pretrain(args.out, args.puppets, args.pretrain_epochs, settings)

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        futures = {
            (arm, fold): pool.submit(
                run_fold, arm, fold, args.data, args.out, start, args.epochs, settings
            )
            for fold in range(FOLDS)
            for arm in args.arms
        }
        entries = {}
        for (arm, fold), future in futures.items():
            entries[arm, fold] = entry = future.result()
            table = np.array(entry["confusion"])
            print(
                f"{arm}, fold {fold}: {np.trace(table)} of {table.sum()} right, "
                f"{entry['minutes']:.1f} min",
                flush=True,
            )

    tables = {k: np.array(e["confusion"]) for k, e in entries.items()}
    before = {k: np.array(e["running"]) for k, e in entries.items()}
    rows = {
        "first frame, ridge": baseline(index, motion=False),
        "frame differences, ridge": baseline(index, motion=True),
    }
    for arm in args.arms:
        shares = [np.trace(tables[arm, f]) / tables[arm, f].sum() for f in range(FOLDS)]
        rows[TITLES[arm]] = [float(share) for share in shares]
        shares = [np.trace(before[arm, f]) / before[arm, f].sum() for f in range(FOLDS)]
        rows[f"{TITLES[arm]}, running averages"] = [float(share) for share in shares]
    last = args.arms[-1]
    total = np.sum([tables[last, f] for f in range(FOLDS)], axis=0)
    plot(rows, total, index.classes, TITLES[last], args.out)
    results = {}
    for name, scores in rows.items():
        mean, half = interval(scores)
        results[name] = {"mean": mean, "half_width_95": half, "folds": scores}
        print(f"{name:26s} {mean:.3f} +- {half:.3f}   folds {[round(s, 2) for s in scores]}")
    text = json.dumps(results, indent=2) + "\n"
    write_text(args.out / "results.json", text)


if __name__ == "__main__":
    main()
