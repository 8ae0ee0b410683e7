"""A spiking network, its ordinary twin and a recurrent one, trained alike (docs/ann.md).

    python benchmarks/twin.py --demo-clips --out runs/twin

trains svf_X, ann_X and gru_X with one and the same configuration, the demo's, once for each seed,
on the demo's clips of eight directions (--data DIR: on a data set of your own). It writes table.md
and results.json: accuracy of the LAST epoch on the validation clips (no epoch is chosen by looking
at them) with its 95 % interval, parameters, and training time as a ratio.

What is done already in --out is not done again, so it can be stopped and restarted.
"""

import argparse
import json
import logging
import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from finished import parameters

from spikevideoformer.ablation.study import finished
from spikevideoformer.files import write_text
from spikevideoformer.models.config import list_models
from spikevideoformer.synth.directions import write_direction_clips
from spikevideoformer.tasks.classification.demo import Demo
from spikevideoformer.training import TrainConfig
from spikevideoformer.training.train import TrainResult

FAMILIES = {
    "svf": "spiking, Hamming attention",
    "ann": "rectifiers, softmax attention",
    "gru": "rectifiers, convolutions and GRU",
}
Z_95 = 1.959964  # quantile of the normal distribution, two-sided


def demo_clips(out: Path, recipe: Demo) -> Path:
    """The demo's clips, made where they are not there yet; returns their folder."""
    clips = out / "clips"
    if not (out / "clips.done").exists():
        print(f"making {recipe.train_clips + recipe.val_clips} clips in {clips}", flush=True)
        write_direction_clips(
            clips, train=recipe.train_clips, val=recipe.val_clips, seed=recipe.seed
        )
        write_text(out / "clips.done", "whole\n")
    return clips


def run(config: TrainConfig) -> dict[str, Any]:
    """Train one network to the end, or read what an earlier call found."""
    return finished(config, measured)


def measured(result: TrainResult) -> dict[str, Any]:
    last, rows = result.history[-1], result.history
    return {
        "top1": last["val_top1"],
        "train_top1": last["train_top1"],
        "clips": result.evaluation.to_dict()["clips"],
        "classes": len(result.evaluation.to_dict()["classes"]),
        "parameters": parameters(result),
        # of training steps alone; the first epoch also decodes the clips and compiles the kernels
        "clips_per_second": statistics.median(r["clips_per_second"] for r in rows[1:] or rows),
        "top1_of_epochs": [r["val_top1"] for r in rows],
    }


def wilson(share: float, clips: int) -> tuple[float, float]:
    """95 % interval of a share of independent clips, which holds at 0 and 1 too.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    z2 = Z_95**2 / clips
    centre = share + z2 / 2
    half = math.sqrt(share * (1 - share) * z2 + z2**2 / 4)
    return max(0.0, (centre - half) / (1 + z2)), min(1.0, (centre + half) / (1 + z2))


def summary(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """A row for each network: mean over seeds.

    All seeds are judged on the same clips, so the interval is that of one pass over them: more
    seeds do not make it narrower.
    """
    first = next(iter(runs.values()))
    rows = {}
    for name, entries in runs.items():
        top1 = [entry["top1"] for entry in entries]
        mean, clips = statistics.mean(top1), entries[0]["clips"]
        times = [
            a["clips_per_second"] / b["clips_per_second"]
            for a, b in zip(first, entries, strict=True)
        ]
        rows[name] = {
            "top1": mean,
            "interval_95": wilson(mean, clips),
            "top1_of_seeds": top1,
            "clips": clips,
            "classes": entries[0]["classes"],
            "parameters": entries[0]["parameters"],
            "time_ratio": statistics.median(times),
            "time_ratio_of_seeds": times,
        }
    return rows


def table(rows: dict[str, dict[str, Any]], base: TrainConfig) -> str:
    """The rows as Markdown."""
    first = next(iter(rows))
    one = rows[first]
    lines = [
        f"| network | | parameters | top-1 (95 %) | seeds | training time over that of {first} |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        low, high = row["interval_95"]
        seeds = ", ".join(f"{100 * value:.1f}" for value in row["top1_of_seeds"])
        lines.append(
            f"| `{name}` | {FAMILIES[name.partition('_')[0]]} | {row['parameters']:,} | "
            f"{100 * row['top1']:.1f} % ({100 * low:.1f} to {100 * high:.1f}) | {seeds} | "
            f"{row['time_ratio']:.2f} |"
        )
    lines.append(
        f"\n{one['clips']} validation clips, {one['classes']} classes (chance "
        f"{100 / one['classes']:.1f} %), {base.epochs} epochs at {base.frames} frames of "
        f"{base.size}x{base.size}; last epochs, mean over seeds, interval over clips."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    sizes = [name.removeprefix("svf_") for name in list_models()]
    recipe = Demo()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="DIR", help="a data set with train and val")
    source.add_argument("--demo-clips", action="store_true", help="make the clips of the demo")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--shape", choices=sizes, default="nano", help="of all networks")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=recipe.training.epochs)
    parser.add_argument("--train-clips", type=int, default=recipe.train_clips, help="to make")
    parser.add_argument("--val-clips", type=int, default=recipe.val_clips, help="to make")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args.out.mkdir(parents=True, exist_ok=True)
    data = args.data
    if data is None:
        made = replace(recipe, train_clips=args.train_clips, val_clips=args.val_clips)
        data = demo_clips(args.out, made)
    base = replace(
        recipe.training,
        data=data,
        epochs=args.epochs,
        readout=None,  # each network's own: the mean membrane (what stands for it), or the GRU
        check="none" if args.demo_clips else "full",
    )
    runs: dict[str, list[dict[str, Any]]] = {f"{f}_{args.shape}": [] for f in args.families}
    for seed in args.seeds:  # networks in turn, so that a slow hour of the machine meets them all
        for name, entries in runs.items():
            entry = run(replace(base, model=name, seed=seed, out=args.out / name / f"seed{seed}"))
            entries.append(entry)
            print(
                f"{name}, seed {seed}: top-1 {entry['top1']:.1%} of {entry['clips']} clips, "
                f"{entry['clips_per_second']:.1f} clips/s",
                flush=True,
            )
    rows = summary(runs)
    text = table(rows, base)
    print(f"\n{text}")
    write_text(args.out / "table.md", text)
    results = json.dumps({"rows": rows, "config": base.to_dict()}, indent=2) + "\n"
    write_text(args.out / "results.json", results)


if __name__ == "__main__":
    main()
