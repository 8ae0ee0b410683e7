r"""How the time of a clip grows with its frames, for poses: linear, or faster?

    python benchmarks/latency.py --model svf_15m --size 224 --frames 8 32
    python benchmarks/latency.py --model svf_nano --size 64 --frames 8 16 32 128 --clips 1000

Networks of the same widths that give a body for each frame: the spiking one by the engine, its
ordinary twin with softmax attention over all frames, and convolutions with a GRU over frames. Four
times the frames should cost four times the time; the paper (A6000) reports 4.6 times from 8 to 32
frames for SpikeVideoFormer, 9.8 for GLoT (softmax), 5.1 for VIBE (GRU). CPU time of one thread,
medians of rounds in turn. Many clips go through in pieces of `--piece`.
"""

import argparse
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from cpu_time import cpu_seconds
from torch import Tensor, nn

import spikevideoformer as svf
from spikevideoformer.bench.inputs import lively_model, random_video
from spikevideoformer.nn.statistics import measure_statistics
from spikevideoformer.synth.motions import standing_skeleton


class GRUPose(nn.Module):
    """Convolutions on each frame, a GRU over frames, a linear layer: numbers of a pose a frame."""

    def __init__(self, preset: str, numbers: int) -> None:
        super().__init__()
        self.backbone = svf.create_model(preset, num_classes=1).backbone
        width = self.backbone.config.widths[-1]
        self.gru = nn.GRU(width, width)
        self.fc = nn.Linear(width, numbers)

    def forward(self, video: Tensor) -> Tensor:
        """``[B, T, C, H, W]`` to ``[B, T, numbers]``."""
        features = self.backbone(video.transpose(0, 1))[-1].mean((-2, -1))  # [T, B, C]
        states, _ = self.gru(features)
        numbers: Tensor = self.fc(states)
        return numbers.transpose(0, 1)


def networks(model: str, size: int, frames: int) -> dict[str, Callable[[Tensor], Any]]:
    """What is compared, ready to run."""
    body, family = standing_skeleton(), model.partition("_")[2]
    joints = len(body.joint_names)
    spiking = lively_model(
        model, task="pose", num_classes=joints, size=size, frames=frames, body=body
    )
    twin = svf.create_model(f"ann_{family}", task="pose", body=body)
    recurrent = GRUPose(f"gru_{family}", 6 * len(body.parents) + body.num_shape + 3)
    for ordinary in (twin, recurrent):
        measure_statistics(ordinary, [random_video(2, 4, 3, size, size)])
    return {
        "spiking, Hamming attention": svf.InferenceEngine(spiking, precision="float").run,
        "the same, int8": svf.InferenceEngine(spiking, precision="int8").run,
        "twin, softmax attention": twin.eval(),
        "convolutions and GRU": recurrent.eval(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="svf_15m")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--clips", type=int, default=1)
    parser.add_argument("--piece", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    piece = min(arguments.piece, arguments.clips)
    pieces = -(-arguments.clips // piece)
    took: dict[str, list[float]] = {}
    for frames in arguments.frames:
        video = random_video(piece, frames, 3, arguments.size, arguments.size)

        def call(net: Callable[[Tensor], Any], video: Tensor = video) -> None:
            with torch.inference_mode():
                for _ in range(pieces):
                    net(video)

        nets = networks(arguments.model, arguments.size, frames)
        calls = {name: (lambda net=net: call(net)) for name, net in nets.items()}
        for name, seconds in cpu_seconds(calls, arguments.rounds).items():
            took.setdefault(name, []).append(median(seconds))
    first = arguments.frames[0]
    print(f"{arguments.model}, {arguments.size} pixels, {arguments.clips} clips: CPU seconds")
    for name, seconds in took.items():
        shown = [
            f"T = {frames}: {s:.3g}" + (f" ({s / seconds[0]:.1f}x)" if frames != first else "")
            for frames, s in zip(arguments.frames, seconds, strict=True)
        ]
        print(f"{name}: {', '.join(shown)}")


if __name__ == "__main__":
    main()
