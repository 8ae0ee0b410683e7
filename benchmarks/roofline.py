"""How near each convolution of the engine comes to what its unit can do, on one thread.

    python benchmarks/roofline.py --precision float int8 --out roofline.png

Runs svf_15m once, keeps the spikes that reach each convolution, and times each by itself: multiply-
accumulates a second that a dense convolution would have needed, and additions a second that were
really made by events. Beside it stands what one large 1x1 convolution reaches in the same process
in float32 and int8. CPU time of the thread, so that a busy neighbour counts less.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from spikevideoformer.bench.inputs import lively_model, random_video
from spikevideoformer.deploy.engine import InferenceEngine
from spikevideoformer.deploy.exact import ExactConvs
from spikevideoformer.deploy.int8 import Int8Digits
from spikevideoformer.figures import legend_above
from spikevideoformer.files import save_figure
from spikevideoformer.ops.exact_conv import as_integers


def seconds(call: Callable[[], Any], rounds: int) -> float:
    """Fastest of several, CPU time of this thread."""
    call()
    found = []
    for _ in range(rounds):
        start = time.thread_time()
        call()
        found.append(time.thread_time() - start)
    return min(found)


def ceilings(rounds: int) -> dict[str, float]:
    """Multiply-accumulates a second of one large layer: float32 and int8, by oneDNN."""
    spikes = (torch.rand(4, 1024, 28, 28) < 0.2).to(torch.uint8)
    spikes = spikes.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(1024, 1024, 1, 1)
    conv = torch.nn.Conv2d(1024, 1024, 1, bias=False)
    conv.weight = torch.nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
    real, int8 = spikes.float(), Int8Digits(as_integers(weight, 8))
    macs = spikes.numel() * 1024
    return {
        "float32": macs / seconds(lambda: conv(real), rounds),
        "int8": macs / seconds(lambda: int8(spikes), rounds),
    }


def layers(precision: Any, frames: int, size: int, rounds: int) -> list[dict[str, Any]]:
    """Of each shape of convolution: calls, seconds, work and firing rate."""
    model = lively_model("svf_15m", frames=frames, size=size)
    engine = InferenceEngine(model, precision=precision)
    seen: dict[tuple[int, ...], list[tuple[ExactConvs, Tensor]]] = {}
    run = ExactConvs.__call__

    def look(self: ExactConvs, spikes: Tensor) -> tuple[Tensor, ...]:
        outputs, *rest = self.weights[0].integers.shape
        shape = (len(self.weights) * outputs, *rest, *spikes.shape[2:])
        seen.setdefault(shape, []).append((self, spikes))
        return run(self, spikes)

    ExactConvs.__call__ = look  # type: ignore[method-assign]
    try:
        engine(random_video(1, frames, 3, size, size))
    finally:
        ExactConvs.__call__ = run  # type: ignore[method-assign]
    rows = []
    for shape, calls in seen.items():
        conv, spikes = calls[len(calls) // 2]
        took = seconds(partial(run, conv, spikes), rounds)
        pixels = run(conv, spikes)[0][:, 0].numel()
        macs = pixels * conv.weights[0].integers[0].numel() * shape[0]
        rate = spikes.float().mean().item()
        rows.append(
            {
                "name": f"{shape[1]} to {shape[0]}, {shape[2]}x{shape[3]} at {shape[4]}x{shape[5]}",
                "calls": len(calls),
                "seconds": took * len(calls),
                "macs_per_s": macs / took,
                "additions_per_s": macs * rate / took,
                "rate": rate,
            }
        )
    return sorted(rows, key=lambda row: -row["seconds"])


def draw(found: dict[str, list[dict[str, Any]]], limits: dict[str, float], path: Path) -> None:
    """Bars of dense multiply-accumulates a second by layer, lines for the ceilings."""
    figure = Figure(figsize=(6.5 * len(found), 6), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for panel, (precision, rows) in zip(panels, found.items(), strict=True):
        names = [f"{row['name']}, rate {row['rate']:.2f}" for row in rows]
        panel.barh(names, [row["macs_per_s"] / 1e9 for row in rows], color="tab:blue", alpha=0.8)
        panel.invert_yaxis()
        for (unit, value), style in zip(limits.items(), (":", "--"), strict=True):
            label = f"one large layer in {unit}"
            panel.axvline(value / 1e9, color="black", linestyle=style, label=label)
        panel.set_xlabel(f"precision {precision}: dense multiply-accumulates, G/s on one thread")
        panel.tick_params(axis="y", labelsize=7)
        legend_above(panel)
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", nargs="+", default=["float", "int8"])
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="picture")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        limits = ceilings(arguments.rounds)
        print(", ".join(f"large {u} layer: {v / 1e9:.0f} G MAC/s" for u, v in limits.items()))
        found = {}
        for precision in arguments.precision:
            rows = found[precision] = layers(
                precision, arguments.frames, arguments.size, arguments.rounds
            )
            total = sum(row["seconds"] for row in rows)
            print(f"{precision}: convolutions {total / arguments.frames * 1e3:.0f} ms a frame")
            for row in rows:
                print(
                    f"  {row['seconds'] / total:5.1%}  {row['macs_per_s'] / 1e9:4.0f} G MAC/s, "
                    f"{row['additions_per_s'] / 1e9:3.0f} G additions/s, rate {row['rate']:.2f}  "
                    f"{row['name']} ({row['calls']} calls)"
                )
    if arguments.out is not None:
        draw(found, limits, arguments.out)


if __name__ == "__main__":
    main()
