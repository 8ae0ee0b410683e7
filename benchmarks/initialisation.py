"""Does a fresh network train? The published initialisation beside ours (docs/initialisation.md).

    python benchmarks/initialisation.py --out docs/initialisation

Three looks at two rules. Published: the last BN of every residual branch starts with weight 1, and
the classifier reads spikes. Ours: ``residual_gain`` at its default, and the mean membrane.

1. gradients: norm per stage at the start, and how far two batches agree on the direction;
2. one batch: whether 20 steps lower the loss on eight clips, for all presets and designs;
3. learning curves: the nano preset on the direction clips, validated on clips never trained on.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spikevideoformer.data.specs import Augmentation
from spikevideoformer.data.transforms import eval_transform
from spikevideoformer.figures import axis_from_zero, epoch_axis, legend_above
from spikevideoformer.files import write_text
from spikevideoformer.models.config import ModelConfig, list_models
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, create_model
from spikevideoformer.synth.directions import DIRECTIONS, render_direction, write_direction_clips
from spikevideoformer.training import TrainConfig, train
from spikevideoformer.video.spec import ClipSpec

matplotlib.use("Agg")

RULES: dict[str, dict[str, Any]] = {
    "published": {"residual_gain": 1.0, "readout": "spike"},
    "ours": {"residual_gain": ModelConfig().residual_gain, "readout": "membrane"},
}
STAGES = ("1/2", "1/4", "1/8", "1/16", "1/16'")
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in list_models()),
    *(
        ("svf_nano", {"design": d})
        for d in ("hierarchical", "factorized", "neuron_only", "spatial_only")
    ),
    ("svf_nano", {"attention": "dot"}),
    ("svf_nano", {"neuron": "integer_lif"}),
]


def batch(seed: int, frames: int = 8) -> tuple[Tensor, Tensor]:
    """One clip of each direction at 32x32."""
    spec = ClipSpec(frames=frames, size=32)
    clips = [
        eval_transform(
            torch.from_numpy(np.stack(list(render_direction(d, seed + i))))[:frames], spec
        )
        for i, d in enumerate(DIRECTIONS)
    ]
    return torch.stack(clips), torch.arange(len(clips))


def fresh(name: str, options: dict[str, Any], rule: str) -> SpikeVideoFormer:
    torch.manual_seed(0)
    return create_model(name, num_classes=len(DIRECTIONS), **RULES[rule], **options)


def gradients(model: SpikeVideoFormer) -> tuple[list[float], list[float]]:
    """Norm of each stage's gradient, and its cosine between two batches."""
    per_batch = []
    for seed in (0, 1000):
        video, labels = batch(seed)
        model.zero_grad()
        F.cross_entropy(model(video), labels).backward()
        per_batch.append(
            [
                torch.cat([p.grad.flatten() for p in s.parameters() if p.grad is not None])
                for s in model.backbone.stages()
            ]
        )
    cosines = [float(F.cosine_similarity(a, b, dim=0)) for a, b in zip(*per_batch, strict=True)]
    return [float(g.norm()) for g in per_batch[0]], cosines


def fit_one_batch(model: SpikeVideoFormer, steps: int = 20) -> list[float]:
    """Losses of a few steps of AdamW on the same eight clips."""
    video, labels = batch(0, frames=2)
    labels = labels % 2  # arbitrary: memorising is the point
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(model(video), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def learn(rule: str, out: Path, epochs: int) -> list[dict[str, float]]:
    """Learning curve of the nano preset."""
    clips = out.parent / "clips"
    if not (out.parent / "clips.done").exists():
        write_direction_clips(clips, train=1200, val=240)
        write_text(out.parent / "clips.done", "whole\n")
    config = TrainConfig(
        data=clips,
        out=out,
        **RULES[rule],
        frames=16,
        size=32,
        epochs=epochs,
        batch_size=8,
        learning_rate=3e-3,
        label_smoothing=0.0,
        warmup_epochs=1,
        augmentation=Augmentation.off(),
        check="none",
        cache=True,
        workers=0,
    )
    return [dict(row) for row in train(config, resume=True).history]


def plot(result: dict[str, Any], path: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    colours = {"published": "#d1495b", "ours": "#30638e"}
    for name, by_rule in result["cases"].items():
        if "," in name:
            continue
        for rule, case in by_rule.items():
            axes[0].semilogy(STAGES, case["norm"], "o-", color=colours[rule], alpha=0.6, ms=3)
            axes[1].plot(case["losses"], color=colours[rule], alpha=0.7)
    axes[0].set(title="gradient norm per stage, six presets", xlabel="resolution of the stage")
    axes[1].set(title="eight clips again and again, six presets", xlabel="step", ylabel="loss")
    axes[1].set(xlim=(0, None))
    axis_from_zero(axes[1])
    for rule, rows in result["curves"].items():
        axes[2].plot(
            [r["epoch"] for r in rows],
            [r["val_top1"] for r in rows],
            "o-",
            color=colours[rule],
            label=rule,
        )
    axes[2].axhline(1 / len(DIRECTIONS), color="#888888", linestyle="--", label="chance")
    axes[2].set(title="directions, nano: validation top-1", ylim=(0, 1))
    epoch_axis(axes[2], max(len(rows) for rows in result["curves"].values()))
    legend_above(axes[2], 3)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="gets results.json and study.png")
    parser.add_argument("--runs", type=Path, default=Path("runs/initialisation"))
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    args.runs.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"rules": RULES, "cases": {}, "curves": {}}
    print(
        "| network | rule | gradient norm per stage | agreement of two batches | loss, 20 steps |"
    )
    print("|---|---|---|---|---|")
    for name, options in CASES:
        title = ", ".join([name, *map(str, options.values())])
        result["cases"][title] = {}
        for rule in RULES:
            norm, cosine = gradients(fresh(name, options, rule))
            losses = fit_one_batch(fresh(name, options, rule))
            result["cases"][title][rule] = {"norm": norm, "cosine": cosine, "losses": losses}
            print(
                f"| {title} | {rule} | {' '.join(f'{v:.2g}' for v in norm)} "
                f"| {' '.join(f'{v:.2f}' for v in cosine)} "
                f"| {losses[0]:.2f} -> {np.mean(losses[-5:]):.2f} |",
                flush=True,
            )
    for rule in RULES:
        result["curves"][rule] = learn(rule, args.runs / rule, args.epochs)
        print(rule, [round(row["val_top1"], 3) for row in result["curves"][rule]], flush=True)
    text = json.dumps(result) + "\n"
    write_text(args.out / "results.json", text)
    plot(result, args.out / "study.png")


if __name__ == "__main__":
    main()
