"""Peak memory and time of a training step, by memory option and number of frames.

    python benchmarks/training_memory.py --plot docs/training_memory.png

Each peak comes from a process of its own. It is the highest resident memory during one forward and
backward pass, over the memory just before it, which already holds the network, the clip, gradients
and whatever a first small step has loaded and compiled. Linux only: the kernel is asked to forget
earlier peaks (/proc/self/clear_refs).

Times come from one process for each T, in which the options take turns: what slows the machine down
for a while slows all of them. Given are the median and the quartiles of the ratios of each round.

Options that promise the same bits are compared before anything is printed.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import quantiles
from typing import Any

import torch
import torch.nn.functional as F

from spikevideoformer.figures import legend_above
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, create_model
from spikevideoformer.nn.backend import set_backend

# what a child process runs, what the table calls it, and whether it must give the bits of "fused"
OPTIONS = {
    "stepwise": ("step by step, plain autograd", False),
    "fused": ("fused neurons", True),
    "packed": ("fused, packed spikes", True),
    "checkpointed": ("fused, packed, checkpointing", True),
}
MIB = 2**20


def choose(model: SpikeVideoFormer, option: str) -> None:
    """Set the network to an option."""
    backend = "reference" if option == "stepwise" else "auto"
    set_backend(model, neurons=backend, attention=backend)
    model.backbone.spike_memory = "packed" if option in ("packed", "checkpointed") else "plain"
    model.backbone.gradient_checkpointing = option == "checkpointed"


def build(preset: str) -> SpikeVideoFormer:
    """A network whose neurons fire."""
    torch.manual_seed(0)
    model = create_model(preset, num_classes=10, readout="membrane", residual_gain=1.0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.bias, 0.3, 0.5)
    return model


def step(model: SpikeVideoFormer, video: torch.Tensor) -> float:
    """Forward and backward; the loss."""
    loss = F.cross_entropy(model(video), torch.zeros(len(video), dtype=torch.long))
    loss.backward()
    return loss.item()


def memory_bytes(field: str) -> int:
    """VmRSS or VmHWM, resident memory now or at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {field}")


def peak_of(option: str, preset: str, frames: int, size: int) -> dict[str, Any]:
    """One process's work: a small step, then the measured one."""
    model = build(preset)
    choose(model, option)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    step(model, torch.rand(1, 2, 3, 32, 32))
    model.load_state_dict(state)  # running statistics, which pad RepConv
    model.zero_grad(set_to_none=False)
    video = torch.rand(1, frames, 3, size, size)
    before = memory_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    loss = step(model, video)
    peak = memory_bytes("VmHWM") - before
    gradients = [
        p.grad.double().square().sum().item() for p in model.parameters() if p.grad is not None
    ]
    return {"peak_mib": peak / MIB, "loss": loss, "gradients": gradients}


def times_of(preset: str, frames: int, size: int, rounds: int) -> dict[str, list[float]]:
    """Another process's work: seconds of each option in each round, after one that warms up."""
    model = build(preset)
    video = torch.rand(1, frames, 3, size, size)
    seconds: dict[str, list[float]] = {option: [] for option in OPTIONS}
    for i in range(rounds + 1):
        order = list(OPTIONS)[:: -1 if i % 2 else 1]
        for option in order:
            choose(model, option)
            begin = time.perf_counter()
            step(model, video)
            if i:
                seconds[option].append(time.perf_counter() - begin)
    return seconds


def child(arguments: argparse.Namespace, work: str, frames: int) -> dict[str, Any]:
    """Do one piece of work in a fresh process."""
    command = [sys.executable, __file__, "--child", work, "--frames", str(frames)]
    for name in ("preset", "size", "rounds", "threads"):
        command += [f"--{name}", str(getattr(arguments, name))]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result


def measure(arguments: argparse.Namespace, frames: int) -> list[dict[str, Any]]:
    """All options at one T."""
    print(f"T = {frames} ...", file=sys.stderr, flush=True)
    peaks = {option: child(arguments, option, frames) for option in OPTIONS}
    times = child(arguments, "times", frames)
    results = []
    for option, peak in peaks.items():
        ratios = [a / b for a, b in zip(times[option], times["stepwise"], strict=True)]
        results.append({"option": option, "frames": frames, **peak, "time_ratios": ratios})
    return results


def check(results: list[dict[str, Any]]) -> None:
    """Leave with an error where options that promise the same bits differ."""
    for frames in sorted({r["frames"] for r in results}):
        same = [r for r in results if r["frames"] == frames and OPTIONS[r["option"]][1]]
        for other in same[1:]:
            if (other["loss"], other["gradients"]) != (same[0]["loss"], same[0]["gradients"]):
                raise SystemExit(f"T = {frames}: {other['option']} differs from fused")


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: peak memory and time, each also as a ratio to the first option at the same T."""
    rows = [
        "| T | option | peak, MiB | of step by step | MiB a frame | time of step by step |",
        "|---|---|---|---|---|---|",
    ]
    for r in results:
        base = next(b for b in results if b["frames"] == r["frames"] and b["option"] == "stepwise")
        low, middle, high = quantiles(r["time_ratios"], n=4)
        rows.append(
            f"| {r['frames']} | {OPTIONS[r['option']][0]} | {r['peak_mib']:.0f} "
            f"| {r['peak_mib'] / base['peak_mib']:.2f} | {r['peak_mib'] / r['frames']:.1f} "
            f"| {middle:.2f} ({low:.2f}-{high:.2f}) |"
        )
    return "\n".join(rows)


def plot(results: list[dict[str, Any]], path: Path, title: str) -> None:
    """Peak memory against T, both axes logarithmic: linear growth is a slope of one."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4.2), layout="constrained")
    for option, marker in zip(OPTIONS, "os^D", strict=True):
        mine = [r for r in results if r["option"] == option]
        axes.plot(
            [r["frames"] for r in mine],
            [r["peak_mib"] for r in mine],
            marker=marker,
            label=OPTIONS[option][0],
        )
    ticks = sorted({r["frames"] for r in results})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("frames T")
    axes.set_ylabel("peak memory of a training step, MiB")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    legend_above(axes)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="svf_tiny")
    parser.add_argument("--size", type=int, default=112, help="height and width in pixels")
    parser.add_argument("--frames", type=int, nargs="+", default=[4, 8, 16, 32, 64])
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each option")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--plot", type=Path, help="where to write the picture")
    parser.add_argument("--child", choices=[*OPTIONS, "times"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.child:
        (frames,) = arguments.frames
        work = (arguments.preset, frames, arguments.size)
        if arguments.child == "times":
            print(json.dumps(times_of(*work, arguments.rounds)))
        else:
            print(json.dumps(peak_of(arguments.child, *work)))
        return
    results = [result for frames in arguments.frames for result in measure(arguments, frames)]
    check(results)
    print(table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    if arguments.plot:
        size = f"{arguments.size}x{arguments.size}"
        plot(results, arguments.plot, f"{arguments.preset}, {size}, one clip, CPU")


if __name__ == "__main__":
    main()
