r"""Rendered motion capture: pose from pictures and from events, and actions.

    svf render --mocap ../shared/data/mocap --out runs/motions --clips-per-motion 8 --size 96 \
        --frame-rate-hz 10
    svf render --mocap ../shared/data/mocap --out runs/motions20 --clips-per-motion 8 --size 96 \
        --frame-rate-hz 20 --frames 64
    svf render --mocap ../shared/data/mocap --out runs/front --clips-per-motion 8 --size 96 \
        --frame-rate-hz 10 --view-deg 60
    python benchmarks/motion.py --data runs/motions --event-data runs/motions20 \
        --front-data runs/front

trains the recipes of configs/motion_pose_nano.yaml and configs/motion_actions_nano.yaml in these
variants and measures the LAST epoch of each on the validation motions, whose performer or style is
not in training (no epoch is chosen by looking at it).

    pose-hamming-S     attention and memory over all frames, seed S = 0, 1, 2
    pose-dot-S         attention by the dot product, the same seeds
    pose-spatial-0     every frame for itself: the recipe
    pose-membrane-0    a head that reads mean membranes instead of spikes
    pose-heatmap-0     a head with maps of where each joint is seen
    pose-front-0       clips from cameras within 60 degrees of where the body faces
    pose-long-0, pose-longspatial-0
                       six epochs instead of two, with and without time
    pose-events-0      an event camera instead of pictures, simulated from the same clips at twice
                       their frame rate
    actions-hamming-S, actions-dot-S, actions-spatial-S
                       what is done, of the same designs and three seeds each, from the backbone
                       that learned poses with seed 0 of that design

Beside them stand the mean joints about the root, the mean pose of the training motions turned as
in the truth and, for cameras in front, not turned, and the most frequent action.

What is done already in --out is not done again. --only NAME ... trains these and draws nothing, so
that several processes can share the work; a call without it then makes table, curves and figures.
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
from spikevideoformer.body.skeleton import Skeleton
from spikevideoformer.figures import axis_from_zero, epoch_axis
from spikevideoformer.files import save_figure, write_text
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.tasks.classification.dataset import ClipDataset
from spikevideoformer.tasks.classification.index import read_index
from spikevideoformer.tasks.pose.dataset import PoseDataset
from spikevideoformer.tasks.pose.demo import mean_pose
from spikevideoformer.tasks.pose.index import read_poses
from spikevideoformer.tasks.pose.metrics import PoseResult
from spikevideoformer.tasks.pose.sequence import PoseIndex
from spikevideoformer.tasks.pose.spec import PoseSpec
from spikevideoformer.tasks.pose.training import pose_metrics
from spikevideoformer.training import TrainConfig, evaluate, evaluate_pose
from spikevideoformer.training.train import TrainResult

CONFIGS = Path(__file__).parents[1] / "configs"
DESIGNS: dict[str, dict[str, Any]] = {
    "hamming": {"design": "joint"},
    "dot": {"design": "joint", "attention": "dot"},
    "spatial": {"design": "spatial_only"},
}
NAMES = {
    "hamming": "joint, Hamming attention",
    "dot": "joint, dot product",
    "spatial": "spatial-only",
    "membrane": "joint, Hamming attention, the head on membranes",
    "heatmap": "joint, Hamming attention, heat maps",
    "front": "joint, Hamming attention, cameras in front",
    "long": "joint, Hamming attention, 6 epochs",
    "longspatial": "spatial-only, 6 epochs",
    "events": "joint, Hamming attention, from events",
}
COLOURS = {
    "hamming": "tab:blue",
    "dot": "tab:red",
    "spatial": "tab:gray",
    "membrane": "tab:pink",
    "heatmap": "black",
    "front": "tab:orange",
    "long": "tab:cyan",
    "longspatial": "tab:olive",
    "events": "tab:green",
}


def variants(arguments: argparse.Namespace) -> dict[str, TrainConfig]:
    pose = replace(TrainConfig.from_yaml(CONFIGS / "motion_pose_nano.yaml"), design="joint")
    actions = TrainConfig.from_yaml(CONFIGS / "motion_actions_nano.yaml")
    configs: dict[str, TrainConfig] = {}
    for seed in arguments.seeds:
        for design, change in DESIGNS.items():
            if design != "spatial" or seed == 0:
                configs[f"pose-{design}-{seed}"] = replace(pose, seed=seed, **change)
            configs[f"actions-{design}-{seed}"] = replace(
                actions,
                seed=seed,
                init_from=arguments.out / f"pose-{design}-0/last_model",
                **change,
            )
    configs["pose-membrane-0"] = replace(pose, readout="membrane")
    configs["pose-heatmap-0"] = replace(pose, options=replace(pose.options, head="heatmap"))
    configs["pose-long-0"] = replace(pose, epochs=6)
    configs["pose-longspatial-0"] = replace(pose, epochs=6, **DESIGNS["spatial"])
    configs["pose-events-0"] = replace(pose, options=replace(pose.options, input="events"))
    configs["pose-front-0"] = pose
    places = {"events": arguments.event_data, "front": arguments.front_data}
    return {
        name: replace(
            config,
            data=places.get(name.split("-")[1], arguments.data),
            out=arguments.out / name,
        )
        for name, config in configs.items()
    }


def run(config: TrainConfig) -> dict[str, Any]:
    """Train one network to the end and judge its last weights, or read what was found before."""
    return finished(config, lambda result: measured(result, config))


def measured(result: TrainResult, config: TrainConfig) -> dict[str, Any]:
    model = SpikeVideoFormer.from_pretrained(result.model)
    weights, statistics_anew = last_weights(config)
    model.load_state_dict(weights)
    running = judged(model, config)
    model.load_state_dict(weights | statistics_anew)
    model.save_pretrained(config.out / "last_model")
    return {
        "parameters": model.num_parameters(),
        "history": result.history,
        "last": judged(model, config),
        "running": running,  # the same weights, by the running averages of batch norms
    }


def judged(model: SpikeVideoFormer, config: TrainConfig) -> dict[str, Any]:
    """Metrics on the validation motions."""
    assert config.data is not None
    if config.task == "pose":
        assert model.body is not None
        poses = PoseDataset(read_poses(config.data, split="val"), config.spec, model.body)
        return evaluate_pose(model, poses, model.body, weights=config.options.weights).to_dict()
    clips = ClipDataset(read_index(config.data, split="val"), config.spec)
    return evaluate(model, clips).to_dict()


def validation_of(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key == "epoch" or key.startswith("val_")}


def mean_joints(index: PoseIndex, body: Skeleton, spec: PoseSpec) -> PoseResult:
    """The mean of the joints about the root, as the camera sees them, on the validation motions.

    That is a mean of all directions, so that little but a post is left of the body.
    """
    training, validation = index.select("train"), index.select("val")
    joints = torch.cat(
        [torch.from_numpy(s.truth.joints - s.truth.joints[:, :1]) for s in training.sequences]
    ).mean(0)
    metrics = pose_metrics(validation, spec, body)
    for sequence in validation.sequences:
        metrics.start_sequence(sequence.action)
        truth = torch.from_numpy(sequence.truth.joints[:: spec.step(sequence.frame_rate_hz)])
        metrics.add_frames(joints.expand(len(truth), -1, -1), truth)
    return metrics.compute()


def spread(values: list[float], digits: int = 1) -> str:
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    several = ", ".join(f"{v:.{digits}f}" for v in values)
    return (
        f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f} ({several})"
    )


def pose_table(constant: dict[str, PoseResult], found: dict[str, dict[str, Any]]) -> str:
    keys = ("mpjpe_mm", "pa_mpjpe_mm", "pel_mpjpe_mm", "acceleration_error_mm_per_s2")
    lines = [
        "| pose, validation motions | MPJPE, mm | PA-MPJPE, mm | PEL-MPJPE, mm"
        " | acceleration error, m/s² |",
        "|---|---|---|---|---|",
    ]
    titles = {
        "joints": "mean joints, about the root",
        "pose": "mean pose, turned as in the truth",
        "front": "mean pose, not turned, cameras in front",
    }
    rows = [(titles[name], [result.to_dict()["overall"]]) for name, result in constant.items()]
    for kind, title in NAMES.items():
        entries = [e["last"]["overall"] for n, e in found.items() if n.startswith(f"pose-{kind}-")]
        if entries:
            rows.append((title, entries))
    for title, scores in rows:
        cells = [spread([score[key] for score in scores]) for key in keys[:3]]
        cells.append(spread([score[keys[3]] / 1000 for score in scores]))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def action_table(found: dict[str, dict[str, Any]]) -> str:
    lines = ["| actions, validation motions | top-1, % | top-5, % |", "|---|---|---|"]
    for kind in DESIGNS:
        entries = [e["last"] for n, e in found.items() if n.startswith(f"actions-{kind}-")]
        if entries:
            cells = [spread([100 * e[key] for e in entries]) for key in ("top1", "top5")]
            lines.append(f"| {NAMES[kind]} | {' | '.join(cells)} |")
    some = next(e["last"] for n, e in found.items() if n.startswith("actions-"))
    most = max(sum(row) for row in some["confusion"]) / some["clips"]
    lines.append(f"| most frequent action | {100 * most:.1f} | |")
    columns = [n for n in found if n.startswith("actions-") and n.endswith("-0")]
    lines += [
        "",
        f"| action | clips | {' | '.join(columns)} |",
        "|---|---|" + "---|" * len(columns),
    ]
    for k, name in enumerate(some["classes"]):
        if clips := sum(some["confusion"][k]):
            shares = " | ".join(f"{found[c]['last']['class_accuracy'][name]:.0%}" for c in columns)
            lines.append(f"| {name} | {clips} | {shares} |")
    return "\n".join(lines) + "\n"


def draw(constant: dict[str, PoseResult], found: dict[str, dict[str, Any]], path: Path) -> None:
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, entry in found.items():
        task, kind, seed = name.split("-")
        panel, metric = (left, "val_pa_mpjpe_mm") if task == "pose" else (right, "val_top1")
        panel.plot(
            [row["epoch"] for row in entry["history"]],
            [row[metric] for row in entry["history"]],
            color=COLOURS[kind],
            label=NAMES[kind] if seed == "0" else None,
            alpha=0.9 if seed == "0" else 0.5,
            marker=".",
        )
    mean = constant["pose"].overall.pa_mpjpe_mm
    left.axhline(mean, color="black", linestyle="--", linewidth=1)
    left.text(1.05, mean, "mean pose", fontsize=8, va="bottom")
    left.set(ylabel="validation PA-MPJPE, mm")
    axis_from_zero(left)
    right.set(ylabel="validation top-1", ylim=(0, 1))
    for panel in (left, right):
        epoch_axis(panel, max(max(line.get_xdata()) for line in panel.lines))
        panel.grid(alpha=0.3)
    names = left.get_legend_handles_labels()
    figure.legend(*names, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    save_figure(figure, path)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="what svf render wrote")
    parser.add_argument("--event-data", type=Path, required=True, help="the same, at 20 Hz")
    parser.add_argument("--front-data", type=Path, required=True, help="the same, from the front")
    parser.add_argument("--out", type=Path, default=Path("runs/motion"))
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
    model = SpikeVideoFormer.from_pretrained(configs["pose-hamming-0"].out / "model")
    assert isinstance(model.body, Skeleton)
    spec = configs["pose-hamming-0"].spec
    index = read_poses(arguments.data)
    constant = {
        "joints": mean_joints(index, model.body, spec),
        "pose": mean_pose(index, spec, model.body, turned=True),
        "front": mean_pose(read_poses(arguments.front_data), spec, model.body),
    }
    text = f"{pose_table(constant, found)}\n{action_table(found)}"
    write_text(arguments.out / "table.md", text)
    write_text(
        arguments.out / "results.json",
        json.dumps(
            {
                **{f"mean {name}": result.to_dict() for name, result in constant.items()},
                **{
                    name: {
                        "parameters": entry["parameters"],
                        "validation": [validation_of(row) for row in entry["history"]],
                        "last": entry["last"],
                        "running": entry["running"],
                    }
                    for name, entry in found.items()
                },
            },
        )
        + "\n",
    )
    draw(constant, found, arguments.out / "curves.png")
    print(text)


if __name__ == "__main__":
    main()
