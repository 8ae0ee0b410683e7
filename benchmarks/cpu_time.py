"""Ratios of CPU time on one thread: the engine's precisions and the published structure.

    python benchmarks/cpu_time.py                     # needs SpikingJelly, see docs/speed.md
    python benchmarks/cpu_time.py --presets svf_pico svf_nano --frames 8 --size 64

With ``--presets`` networks of ours beside each other, a training step of four clips as well.
In turn in one process, every other round in reverse. CPU time leaves out what neighbours take, so
that it can be measured on a busy machine; `svf bench` measures what a user waits for.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch

from spikevideoformer.bench.network_rows import _inference_call, _training_call

BASELINE = "spikingjelly"


def cpu_seconds(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each call in each round, in turn, every other round in reverse."""
    for call in calls.values():
        call()  # compiles kernels
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds):
        for name in list(calls) if i % 2 == 0 else reversed(list(calls)):
            start = time.process_time()
            calls[name]()
            seconds[name].append(time.process_time() - start)
    return seconds


def compare(presets: list[str], frames: int, size: int, rounds: int) -> None:
    """What each preset takes of the last one's time."""
    print(f"load {os.getloadavg()[0]:.1f}, {rounds} rounds, {frames} frames of {size}x{size}")
    of_last: dict[str, dict[str, list[float]]] = {}
    for side in ("float", "int8", "training"):
        if side == "training":
            calls = {name: _training_call("ours", name, frames, size, 4) for name in presets}
        else:
            calls = {name: _inference_call(side, name, frames, size) for name in presets}
        seconds = cpu_seconds(calls, rounds)
        of_last[side] = {
            name: [a / b for a, b in zip(took, seconds[presets[-1]], strict=True)]
            for name, took in seconds.items()
        }
    for name in presets:
        shares = (
            f"{side} {median(of_last[side][name]):.2f} "
            f"({min(of_last[side][name]):.2f}-{max(of_last[side][name]):.2f})"
            for side in of_last
        )
        print(f"{name}: {', '.join(shares)} of {presets[-1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="svf_15m")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--presets", nargs="+", help="compare these, the last of which is 1")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.presets:
        compare(arguments.presets, arguments.frames, arguments.size, arguments.rounds)
        return
    calls = {
        side: _inference_call(side, arguments.model, arguments.frames, arguments.size)
        for side in (BASELINE, "exact", "float", "int16", "int8")
    }
    seconds = cpu_seconds(calls, arguments.rounds)
    print(f"load {os.getloadavg()[0]:.1f}, {arguments.rounds} rounds")
    for side, took in seconds.items():
        ratios = [a / b for a, b in zip(seconds[BASELINE], took, strict=True)]
        print(
            f"{side}: {median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) times less time "
            f"than the published structure"
        )


if __name__ == "__main__":
    main()
