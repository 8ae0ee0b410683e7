"""From an ordinary network to a spiking one, one change a rung: what each ingredient costs.

    python benchmarks/ladder.py --config configs/camvid_nano.yaml --data ../shared/data/vss \
        --out runs/ladder/camvid --seeds 0 1 2

trains the configuration once for each rung and seed, all else alike, and takes the LAST epoch (no
epoch is chosen by looking at it). It writes table.md and results.json: the metric of the task on
the validation split, loss and gradient norm in training, CPU time against the first rung. With
--videos, also spikes a neuron and frame, and the energy of a clip of them in mJ, all operations as
executed and merged (docs/energy.md).

What is done already in --out is not done again, so it can be stopped and restarted; --rungs takes a
few of them, so that several processes can share the work. --set KEY=VALUE changes a setting of all.
"""

import argparse
import json
import logging
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from finished import finished, parameters

from spikevideoformer.energy.report import energy_report
from spikevideoformer.files import write_text
from spikevideoformer.inference.counted_clips import clips_of
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.task import get_task
from spikevideoformer.training import TrainConfig
from spikevideoformer.video.interface import DecodeLimits


def integer(levels: int, **others: Any) -> dict[str, Any]:
    return {"neuron": {"kind": "integer_lif", "levels": levels, **others}}


FRAME: dict[str, Any] = {"design": "spatial_only"}
RUNGS: dict[str, tuple[str, dict[str, Any]]] = {
    # name: what it is, changes to the configuration, whose model is svf_*
    "twin": ("the ordinary twin: rectifiers, softmax, all frames", {"model": "ann"}),
    "twin_frame": ("the twin, each frame by itself", {"model": "ann", **FRAME}),
    "fine": (
        "rectifiers in 255 steps of 1/32, dot product",
        {**integer(255, v_threshold=1 / 32), **FRAME, "attention": "dot"},
    ),
    "integer8_dot": ("0 to 8 spikes, dot product", {**integer(8), **FRAME, "attention": "dot"}),
    "integer4_dot": ("0 to 4 spikes, dot product", {**integer(4), **FRAME, "attention": "dot"}),
    "integer8": ("0 to 8 spikes, Hamming attention", {**integer(8), **FRAME}),
    "integer4": ("0 to 4 spikes, Hamming attention", {**integer(4), **FRAME}),
    "integer2": ("0 to 2 spikes, Hamming attention", {**integer(2), **FRAME}),
    "binary_frame": ("0 or 1, each frame by itself", FRAME),
    "integer4_short": ("0 to 4 spikes, all frames, memory tau = 1.2", integer(4, tau=1.2)),
    "integer4_memory": ("0 to 4 spikes, all frames, memory tau = 2", integer(4)),
    "binary": ("0 or 1, all frames, memory tau = 2: as published", {}),
}


def rung(base: TrainConfig, name: str, seed: int, out: Path) -> TrainConfig:
    changes = dict(RUNGS[name][1])
    if changes.get("model") == "ann":
        changes["model"] = base.model.replace("svf_", "ann_")
    return replace(base, seed=seed, out=out / f"{name}-{seed}", **changes)


def run(config: TrainConfig) -> dict[str, Any]:
    """Train one network to the end, or read what was found before."""
    start = time.process_time()
    return finished(
        config,
        lambda result: {
            # of the last part, where it was stopped and resumed
            "cpu_s": time.process_time() - start,
            "parameters": parameters(result),
            "history": result.history,
        },
    )


def counted(model: Path, videos: list[Path]) -> dict[str, float | None]:
    """Firing rate and energies on the first clip of each video."""
    network = SpikeVideoFormer.from_pretrained(model)
    task = get_task(network.task)
    spec = task.counted_spec(network.clip, None, None)
    clips, failed = clips_of(videos, task, spec, 1, limits=DecodeLimits(), tell=print)
    if failed:
        raise SystemExit("\n".join(map(str, failed)))
    batch = torch.stack([task.network_input(clip, spec) for clip in clips])
    spiking = network.config.neuron.spiking
    report = energy_report(network, batch, merge=spiking)
    energy = {t.convention: t.energy_mj for t in report.totals}
    return {
        "rate": statistics.mean(n.rate for n in report.neurons) if spiking else None,
        "executed_mj": energy["executed"],
        "merged_mj": energy.get("merged"),
    }


def spread(values: list[float], show: str) -> str:
    mean = format(statistics.mean(values), show)
    return mean if len(values) == 1 else f"{mean} ± {format(statistics.stdev(values), show)}"


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """A line for each rung; the spread is over seeds."""
    any_row = next(iter(found.values()))[0]["history"][-1]
    columns = [key for key in any_row if key.startswith(("train_", "val_", "gradient"))]
    first = statistics.mean(entry["cpu_s"] for entry in next(iter(found.values())))
    energies = [
        k for k in ("rate", "executed_mj", "merged_mj") if k in next(iter(found.values()))[0]
    ]
    lines = [f"| | seeds | {' | '.join([*columns, 'CPU time', *energies])} |"]
    lines.append("|---" * (len(columns) + len(energies) + 3) + "|")
    for name, entries in found.items():
        cells = [spread([e["history"][-1][key] for e in entries], ".3f") for key in columns]
        cells.append(f"{statistics.mean(e['cpu_s'] for e in entries) / first:.2f}")
        for key in energies:
            known = [e[key] for e in entries if e[key] is not None]
            cells.append(spread(known, ".3g") if known else "")
        lines.append(f"| {RUNGS[name][0]} | {len(entries)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="recipe of a svf_* network")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rungs", nargs="+", choices=RUNGS, default=list(RUNGS))
    parser.add_argument("--videos", type=Path, nargs="+", default=[], help="to count energy on")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="for all rungs")
    arguments = parser.parse_args()
    # as published, but for what a rung changes
    base = replace(
        TrainConfig.from_yaml(arguments.config),
        data=arguments.data,
        design=None,
        attention=None,
        neuron=None,
    )
    if arguments.set:
        pairs = [pair.partition("=")[::2] for pair in arguments.set]
        base = replace(base, **{key: yaml.safe_load(value) for key, value in pairs})
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in arguments.seeds:
        for name in arguments.rungs:
            config = rung(base, name, seed, arguments.out)
            print(f"== {config.out.name}", flush=True)
            config.out.mkdir(parents=True, exist_ok=True)
            entry = run(config)
            if arguments.videos:
                entry |= counted(config.out / "model", arguments.videos)
            found.setdefault(name, []).append(entry)
    text = table(found)
    write_text(arguments.out / "table.md", text)
    write_text(arguments.out / "results.json", json.dumps(found, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
