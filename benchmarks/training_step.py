"""CPU time of a training step: this code against another checkout of it, or against SpikingJelly.

    git worktree add --detach ../other COMMIT
    python benchmarks/training_step.py --against ../other
    python benchmarks/training_step.py --against spikingjelly --model svf_tiny --size 112

Against a checkout: whole steps of `svf train` (decoded clips, the network, the loss, every check,
AdamW), by the defaults of each, in two processes that take turns of a few steps. Against
SpikingJelly: network, loss and AdamW of one clip, in one process. One thread; CPU time, so that it
can be measured on a busy machine.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from cpu_time import cpu_seconds

FRAMES = 8


def steps(clips: Path, out: Path, model: str, size: int) -> None:
    """Train until told to end: a number of steps comes in, their CPU seconds go out."""
    from spikevideoformer.training import TrainConfig, loop, train

    step, left, spent = loop.Loop._step, 0, 0.0
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what training prints

    def counted(self: loop.Loop, batches: object) -> None:
        nonlocal left, spent
        if left == 0:
            answers.write(f"{spent}\n")
            wanted = sys.stdin.readline().strip()
            if not wanted:
                os._exit(0)
            left, spent = int(wanted), 0.0
        start = time.process_time()
        step(self, batches)  # type: ignore[arg-type]
        spent += time.process_time() - start  # what an epoch ends with does not count
        left -= 1

    loop.Loop._step = counted  # type: ignore[method-assign]
    torch.set_num_threads(1)
    train(
        TrainConfig(
            out=out, data=clips, model=model, frames=FRAMES, size=size, batch_size=8, epochs=10**6,
            learning_rate=3e-4, warmup_epochs=1, check="none", cache=True, workers=0,
        )
    )  # fmt: skip


def against_checkout(
    other: Path, model: str, size: int, rounds: int, each: int
) -> dict[str, list[float]]:
    """CPU seconds of a step in each round."""
    from spikevideoformer.synth.directions import write_direction_clips

    here = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        clips = Path(folder) / "clips"
        write_direction_clips(clips, train=64, val=8, seed=0)
        ask: dict[str, Callable[[int], float]] = {}
        running = []
        for name, tree in (("other", other), ("this", here)):
            process = subprocess.Popen(
                [sys.executable, __file__, "--steps", clips, Path(folder) / name, model, str(size)],
                env=os.environ | {"PYTHONPATH": str(tree.resolve() / "src")},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            running.append(process)
            ask[name] = _asking(process)
        for call in ask.values():
            call(each)  # compiles kernels, and decodes
        seconds: dict[str, list[float]] = {name: [] for name in ask}
        for i in range(rounds):
            for name in list(ask) if i % 2 == 0 else reversed(list(ask)):
                seconds[name].append(ask[name](each))
        for process in running:
            process.communicate("\n")
    return seconds


def _asking(process: subprocess.Popen[str]) -> Callable[[int], float]:
    assert process.stdin and process.stdout
    answers, orders = process.stdout, process.stdin

    def answer() -> float:
        line = answers.readline()
        if not line:
            raise SystemExit("a training ended early; run svf train in that checkout to see why")
        return float(line)

    def ask(count: int) -> float:
        orders.write(f"{count}\n")
        orders.flush()
        return answer() / count

    answer()  # it is before its first step
    return ask


def against_spikingjelly(model: str, size: int, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of a step in each round."""
    from spikevideoformer.bench.network_rows import _training_call

    torch.set_num_threads(1)
    sides = {"other": "spikingjelly", "this": "ours", "spikes kept as bits": "packed"}
    calls = {name: _training_call(side, model, FRAMES, size) for name, side in sides.items()}
    return cpu_seconds(calls, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", required=True, help="a checkout, or spikingjelly")
    parser.add_argument("--model", default="svf_nano")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--each", type=int, default=8, help="steps of a round")
    given = parser.parse_args()
    if given.against == "spikingjelly":
        seconds = against_spikingjelly(given.model, given.size, given.rounds)
    else:
        other = Path(given.against)
        seconds = against_checkout(other, given.model, given.size, given.rounds, given.each)
    print(f"load {os.getloadavg()[0]:.1f}, {given.rounds} rounds")
    for name, took in seconds.items():
        ratios = [a / b for a, b in zip(seconds["other"], took, strict=True)]
        print(f"{name}: {median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) times less time")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--steps"]:
        steps(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
    else:
        main()
