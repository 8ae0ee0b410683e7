"""Accuracy against energy: spiking networks, their ordinary twin, and the twin in 8 and 4 bits.

    svf ablate ladder --config configs/camvid_nano.yaml --data ../shared/data/vss --seeds 0 1 2 \
        --variants twin integer4 --out runs/ladder
    python benchmarks/pareto.py --study runs/ladder --data ../shared/data/vss \
        --videos ../shared/data/vss/0006R0/images --out runs/pareto

takes every run of a study, counts its energy on the first clip of each video, evaluates spiking
networks by the int8 engine as well, and trains each `twin-SEED` on for --epochs with its layers
quantised (weights by channel and symmetric, their input by the smallest and largest value of each
call; pixels always in 8 bits), so that the twin in few bits is one that learned to be it, with
more steps than the others had. Its attention is not quantised, but counted as if it were. Metrics
are of the last epoch. It writes results.json, table.md and pareto.png.

What is done already in --out is not done again.
"""

import argparse
import json
import logging
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any, cast
from unittest.mock import patch

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from spikevideoformer.ablation.study import counted, finished, is_higher_better
from spikevideoformer.figures import legend_above
from spikevideoformer.files import save_figure, write_text
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.task import get_task
from spikevideoformer.training import TrainConfig, evaluate_folder
from spikevideoformer.training.task_training import TaskTraining

FORMATS = {32: "float32", 8: "int8", 4: "int4"}


def quantised(x: Tensor, bits: int) -> Tensor:
    """Rounded to 2^bits levels between its smallest and largest value; gradients pass through."""
    low, high = x.detach().amin().clamp(max=0), x.detach().amax().clamp(min=0)
    scale = float((high - low).clamp(min=1e-8)) / (2**bits - 1)
    zero = round(-float(low) / scale)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 2**bits - 1)


def quantised_weight(w: Tensor, bits: int) -> Tensor:
    """Rounded by output channel, symmetric about zero."""
    most = 2 ** (bits - 1) - 1
    scale = w.detach().flatten(1).abs().amax(1).clamp(min=1e-8) / most
    zeros = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(w, scale, zeros, 0, -most, most)


def quantise(model: nn.Module, bits: int) -> None:
    """Quantise every convolution and linear layer, and what it reads, in each forward pass."""
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for number, layer in enumerate(layers):
        pixels = 8 if number == 0 else bits

        def forward(self: Any, x: Tensor, read: int = pixels) -> Tensor:
            x, weight = quantised(x, read), quantised_weight(self.weight, bits)
            if isinstance(self, nn.Linear):
                return nn.functional.linear(x, weight, self.bias)
            return self._conv_forward(x, weight, self.bias)

        layer.forward = types.MethodType(forward, layer)  # type: ignore[method-assign]


@contextmanager
def trained_in(bits: int, task: type[TaskTraining[Any]]) -> Iterator[None]:
    """Trainings of a task make quantised networks meanwhile."""
    create = task.create_model

    def make(self: Any) -> SpikeVideoFormer:
        model = create(self)
        quantise(model, bits)
        return model

    with patch.object(task, "create_model", make):
        yield


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", type=Path, required=True, help="folder of svf ablate ladder")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--videos", nargs="+", required=True, help="to count energy on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=2, help="of a twin in few bits")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--bits", type=int, nargs="*", default=[8, 4], choices=(8, 4))
    parser.add_argument("--metric", default=None, help="a column of metrics.csv")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    points: dict[str, dict[str, Any]] = {}
    for folder in sorted(p.parent for p in options.study.glob("*/last.json")):
        variant, _, seed = folder.name.rpartition("-")
        entry = json.loads((folder / "last.json").read_text())
        totals = counted(folder / "model", options.videos).totals
        energy = {t.convention: t.energy_mj for t in totals}
        add(points, variant, entry, {k: v for k, v in energy.items() if k in SHOWN})
        if "merged" in energy:  # it fires
            config = TrainConfig.from_dict(entry["config"])
            task = get_task(config.task)
            index = task.read(options.data, split="val", layout=config.layout, fold=config.fold)
            judged = evaluate_folder(folder / "model", index, device="cpu", engine="int8")
            row = task.training().row(cast(Any, None), judged)  # it says what is in the result
            cost = {way: energy[f"{way}, int8"] for way in ("executed", "merged")}
            add(points, f"{variant}, 8 bit", {"history": [row]}, cost)
        if variant != "twin":
            continue
        for bits in options.bits:
            base = TrainConfig.from_dict(entry["config"])
            config = replace(
                base,
                data=options.data,
                out=options.out / f"twin{bits}-{seed}",
                init_from=folder / "model",
                epochs=options.epochs,
                learning_rate=options.learning_rate,
            )
            config.out.mkdir(parents=True, exist_ok=True)
            with trained_in(bits, get_task(config.task).training()):
                found = finished(config, lambda result: {"history": result.history})
            cost = {"executed": energy[f"executed, {FORMATS[bits]}"]}
            add(points, f"twin, {bits} bit", found, cost)
    columns = (
        points["twin"]["rows"][0] if "twin" in points else next(iter(points.values()))["rows"][0]
    )
    metric = options.metric or next(c for c in columns if c.startswith("val_") and "loss" not in c)
    write_text(options.out / "results.json", json.dumps(points, indent=1) + "\n")
    write_text(options.out / "table.md", text := table(points, metric))
    draw(points, metric, options.out / "pareto.png")
    print(text)


SHOWN = ("executed", "merged", "executed, int8", "merged, int8", "executed, int4", "merged, int4")


def add(
    points: dict[str, dict[str, Any]], name: str, entry: dict[str, Any], mj: dict[str, float]
) -> None:
    point = points.setdefault(name, {"rows": [], "mj": []})
    point["rows"].append({k: v for k, v in entry["history"][-1].items() if k.startswith("val_")})
    point["mj"].append(mj)


def table(points: dict[str, dict[str, Any]], metric: str) -> str:
    columns = [k for k in next(iter(points.values()))["rows"][0] if "loss" not in k]
    lines = [f"| | seeds | {' | '.join([*columns, *(f'{s}, mJ' for s in SHOWN)])} |"]
    lines.append("|---" * (2 + len(columns) + len(SHOWN)) + "|")
    order = sorted(
        points,
        key=lambda n: mean([row[metric] for row in points[n]["rows"]]),
        reverse=is_higher_better(metric),
    )
    for name in order:
        rows, mj = points[name]["rows"], points[name]["mj"]
        cells = [f"{mean([row[c] for row in rows]):.4g}" for c in columns]
        cells += [f"{mean([m[s] for m in mj]):.3g}" if s in mj[0] else "" for s in SHOWN]
        lines.append(f"| {name} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(points: dict[str, dict[str, Any]], metric: str, path: Path) -> None:
    """Full dots: all operations as executed; rings: merged."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    panel = figure.subplots()
    for number, (name, point) in enumerate(points.items()):
        value = mean([row[metric] for row in point["rows"]])
        colour = f"C{number % 10}"
        ways = {
            way: mean([m[way] for m in point["mj"]]) for way in SHOWN[:2] if way in point["mj"][0]
        }
        panel.plot(list(ways.values()), [value] * len(ways), "-", color=colour, linewidth=0.8)
        marker = "s" if name.startswith("twin") else "o"
        panel.plot(ways["executed"], value, marker, color=colour, label=name)
        if "merged" in ways:
            panel.plot(ways["merged"], value, marker, color=colour, markerfacecolor="white")
        for row, mj in zip(point["rows"], point["mj"], strict=True):
            panel.plot(mj["executed"], row[metric], ".", color=colour, markersize=4, alpha=0.6)
    panel.set(xscale="log", xlabel="energy of a clip, arithmetic, mJ", ylabel=metric)
    if not is_higher_better(metric):
        panel.invert_yaxis()
    panel.grid(alpha=0.3)
    legend_above(panel, columns=3)
    save_figure(figure, path)


if __name__ == "__main__":
    main()
