"""Segmentation of CamVid: Hamming against dot product, LIF against Integer-LIF, fine-tuning.

    python benchmarks/camvid.py --data ../shared/data/vss --classifier demo/run/model

trains the recipe of configs/camvid_nano.yaml, with neurons and design as published, in these
variants and measures the LAST epoch of each on the validation sequence (no epoch is chosen by
looking at it), beside the baseline that knows no picture: at each pixel the class that is most
frequent there in the training masks.

    hamming-S          LIF, all frames, Hamming attention, seed S = 0, 1, 2
    dot-S              attention by the dot product, the same seeds
    spatial-S          every frame for itself, the same seeds
    integer-0          Integer-LIF neurons, D = 4
    finetuned-0        the backbone of a classification model at the start

What is done already in --out is not done again. --only NAME ... trains these and draws nothing, so
that several processes can share the work; a call without it then draws table, curves and figures.
"""

import argparse
import json
import logging
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from finished import last_weights
from matplotlib.figure import Figure

from spikevideoformer.ablation.study import finished
from spikevideoformer.figures import axis_from_zero, epoch_axis
from spikevideoformer.files import save_figure, write_text
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.tasks.segmentation.dataset import SegmentationDataset
from spikevideoformer.tasks.segmentation.index import read_sequences
from spikevideoformer.tasks.segmentation.masks import read_mask
from spikevideoformer.tasks.segmentation.metrics import SegmentationMetrics, SegmentationResult
from spikevideoformer.tasks.segmentation.plots import ContactSheet, plot_iou
from spikevideoformer.tasks.segmentation.sequence import IGNORED, SequenceIndex
from spikevideoformer.training import TrainConfig, evaluate_segmentation
from spikevideoformer.training.train import TrainResult

RECIPE = Path(__file__).parents[1] / "configs" / "camvid_nano.yaml"
NAMES = {
    "hamming": "Hamming attention, LIF (as published)",
    "dot": "dot product, LIF",
    "spatial": "Hamming attention, LIF, every frame for itself",
    "integer": "Hamming attention, Integer-LIF D = 4",
    "finetuned": "as published, from a classification model",
}
COLOURS = {
    "hamming": "tab:blue",
    "dot": "tab:red",
    "spatial": "tab:gray",
    "integer": "tab:green",
    "finetuned": "tab:purple",
}


def variants(arguments: argparse.Namespace) -> dict[str, TrainConfig]:
    recipe = replace(TrainConfig.from_yaml(RECIPE), data=arguments.data, neuron=None, design=None)
    changes: dict[str, dict[str, Any]] = {
        **{f"hamming-{seed}": {"seed": seed} for seed in arguments.seeds},
        **{f"dot-{seed}": {"seed": seed, "attention": "dot"} for seed in arguments.seeds},
        **{f"spatial-{s}": {"seed": s, "design": "spatial_only"} for s in arguments.seeds},
        "integer-0": {"neuron": {"kind": "integer_lif", "levels": 4}},
    }
    if arguments.classifier is not None:
        changes["finetuned-0"] = {"init_from": arguments.classifier}
    return {
        name: replace(recipe, out=arguments.out / name, **change)
        for name, change in changes.items()
    }


def run(config: TrainConfig) -> dict[str, Any]:
    """Train one network to the end and judge its last weights, or read what was found before."""
    return finished(config, lambda result: judged(result, config))


def judged(result: TrainResult, config: TrainConfig) -> dict[str, Any]:
    model = SpikeVideoFormer.from_pretrained(result.model)
    weights, measured = last_weights(config)
    assert config.data is not None
    val = read_sequences(config.data, split="val")
    dataset = SegmentationDataset(val, config.spec)
    model.load_state_dict(weights)
    running = evaluate_segmentation(model, dataset)
    model.load_state_dict(weights | measured)
    sheet = ContactSheet(val.palette, val.classes)
    last = evaluate_segmentation(model, dataset, after_frame=sheet.offer)
    sheet.write(config.out / "last_contact_sheet.png")
    plot_iou(last, val.palette, config.out / "last_iou.png")
    several = evaluate_segmentation(model, dataset, scales=(0.75, 1.0, 1.25), flip=True)
    return {
        "parameters": model.num_parameters(),
        "history": result.history,
        "last": last.to_dict(),
        "running": running.to_dict(),  # the same weights, by the running averages of batch norms
        "several": several.to_dict(),
    }


def most_frequent(train_split: SequenceIndex, val: SequenceIndex) -> SegmentationResult:
    """The class most frequent at each pixel of the training masks, held against the others."""
    counts: torch.Tensor | None = None
    for labels in masks(train_split):
        if counts is None:
            counts = torch.zeros(len(val.classes), *labels.shape, dtype=torch.int32)
        known = labels != IGNORED
        counts.scatter_add_(0, labels.where(known, 0)[None].long(), known[None].to(torch.int32))
    assert counts is not None
    predicted = counts.argmax(0).to(torch.uint8)
    metrics = SegmentationMetrics(val.classes)
    for sequence in val.sequences:
        metrics.start_video()
        for frame in sequence.frames:
            assert frame.label is not None
            metrics.add_frame(predicted, torch.from_numpy(read_mask(frame.label, val.code)))
    return metrics.compute()


def masks(index: SequenceIndex) -> Any:
    for sequence in index.sequences:
        for frame in sequence.frames:
            assert frame.label is not None
            yield torch.from_numpy(read_mask(frame.label, index.code))


def spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.1%}"
    several = ", ".join(f"{100 * v:.1f}" for v in values)
    return f"{statistics.mean(values):.1%} ± {100 * statistics.stdev(values):.1f} ({several})"


def table(baseline: SegmentationResult, found: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| | mIoU | pixel accuracy | mVC8 | scales 0.75, 1, 1.25 and mirrored: mIoU "
        "| running averages: mIoU |",
        "|---|---|---|---|---|---|",
        f"| most frequent class per pixel position | {baseline.miou:.1%} "
        f"| {baseline.pixel_accuracy:.1%} | {baseline.mvc8:.1%} | | |",
    ]
    for kind, title in NAMES.items():
        entries = [entry for name, entry in found.items() if name.startswith(f"{kind}-")]
        if entries:
            cells = [
                spread([entry["last"][key] for entry in entries])
                for key in ("miou", "pixel_accuracy", "mvc8")
            ]
            cells.append(spread([entry["several"]["miou"] for entry in entries]))
            cells.append(spread([entry["running"]["miou"] for entry in entries]))
            lines.append(f"| {title} | {' | '.join(cells)} |")
    classes = list(baseline.classes)
    columns = [name for name in found if name.endswith("-0")]
    lines += ["", f"| IoU | share of pixels | most frequent | {' | '.join(columns)} |"]
    lines.append("|---|---|---|" + "---|" * len(columns))
    for i, name in enumerate(classes):
        row = [baseline.class_iou[i], *(found[c]["last"]["class_iou"][name] for c in columns)]
        ious = " | ".join("" if iou is None else f"{iou:.1%}" for iou in row)
        lines.append(f"| {name} | {baseline.class_pixels[i] / baseline.pixels:.1%} | {ious} |")
    return "\n".join(lines) + "\n"


def draw(baseline: SegmentationResult, found: dict[str, dict[str, Any]], path: Path) -> None:
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, entry in found.items():
        kind, _, seed = name.partition("-")
        for panel, metric in ((left, "val_miou"), (right, "val_loss")):
            panel.plot(
                [row["epoch"] for row in entry["history"]],
                [row[metric] for row in entry["history"]],
                color=COLOURS[kind],
                label=NAMES[kind] if seed == "0" and panel is left else None,
                alpha=0.9 if seed == "0" else 0.5,
            )
    left.axhline(baseline.miou, color="black", linestyle="--", linewidth=1)
    left.text(1.05, baseline.miou + 0.004, "most frequent class per pixel position", fontsize=8)
    left.set(ylabel="validation mIoU")
    right.set(ylabel="validation loss (nats)")
    figure.legend(loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    for panel in (left, right):
        axis_from_zero(panel)
        epoch_axis(panel, max(row["epoch"] for e in found.values() for row in e["history"]))
        panel.grid(alpha=0.3)
    save_figure(figure, path)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--classifier", type=Path, help="model folder to fine-tune from")
    parser.add_argument("--out", type=Path, default=Path("runs/camvid"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="train these and draw nothing")
    arguments = parser.parse_args()
    configs = variants(arguments)
    if unknown := set(arguments.only or ()) - set(configs):
        parser.error(f"unknown variant {min(unknown)}; choose among {', '.join(configs)}")
    found = {}
    for name in arguments.only or configs:
        print(f"== {name}", flush=True)
        configs[name].out.mkdir(parents=True, exist_ok=True)
        found[name] = run(configs[name])
    if arguments.only:
        return
    index = read_sequences(arguments.data)
    baseline = most_frequent(index.select("train"), index.select("val"))
    text = table(baseline, found)
    write_text(arguments.out / "table.md", text)
    write_text(
        arguments.out / "results.json",
        json.dumps(
            {
                "most_frequent": baseline.to_dict(),
                **{
                    name: {key: entry[key] for key in entry if key != "config"}
                    for name, entry in found.items()
                },
            },
            indent=1,
        )
        + "\n",
    )
    draw(baseline, found, arguments.out / "curves.png")
    print(text)


if __name__ == "__main__":
    main()
