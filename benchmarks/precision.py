"""What 24, 16 and 8 bits of weights change: spikes, labels and pixels against float64.

    python benchmarks/precision.py --model demo/run/model demo/clips/val

Runs the model in float64 and each precision of the engine on the same windows of the videos there,
and prints for each precision how many spikes differ (of all neurons, frames and clips), and for
how many clips (or pixels, for a segmentation model) the answer is the same.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import spikevideoformer as svf
from spikevideoformer.deploy.engine import InferenceEngine
from spikevideoformer.nn.neuron import FiringRates, Neuron
from spikevideoformer.task import get_task
from spikevideoformer.video.inputs import expand_inputs


def inputs_of(model: svf.SpikeVideoFormer, data: Path, limit: int) -> list[Tensor]:
    """What the network gets to see of each video."""
    predictor: Any = get_task(model.task).predictor()(model, device="cpu", engine="model")
    run = predictor._run_network
    seen: list[Tensor] = []

    def look(video: Tensor) -> tuple[Any, FiringRates]:
        seen.append(video.clone())
        return run(video)

    predictor._run_network = look
    for video in list(expand_inputs([data]))[:limit]:
        if not isinstance(video, str):
            raise SystemExit(str(video))
        if model.task == "segmentation":
            for _ in predictor.segment(video):
                pass
        else:
            predictor.predict(video)
    return seen


@torch.inference_mode()
def in_float64(model: svf.SpikeVideoFormer, video: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Spikes by neuron and the output."""
    spikes: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(
            lambda _m, _a, out, name=name: spikes.update({name: out.to(torch.uint8)})
        )
        for name, module in model.named_modules()
        if isinstance(module, Neuron)
    ]
    out = model(video.double())
    for hook in hooks:
        hook.remove()
    return spikes, out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="model folder")
    parser.add_argument("--limit", type=int, default=10**9, help="videos at most")
    parser.add_argument("--precisions", nargs="+", default=["float", "int16", "int8"])
    parser.add_argument("--layers", action="store_true", help="the layers that change most, too")
    parser.add_argument("data", type=Path, help="videos, or folders of them")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    model = svf.SpikeVideoFormer.from_pretrained(arguments.model)
    if model.task == "pose":
        raise SystemExit("this compares classes; give a model of classification or segmentation")
    axis = 2 if model.task == "segmentation" else 1
    engines = {p: InferenceEngine(model, precision=p) for p in arguments.precisions}
    videos = inputs_of(model, arguments.data, arguments.limit)
    model.double()
    flipped: dict[str, dict[str, float]] = {p: {} for p in engines}
    same = dict.fromkeys(engines, 0)
    total = answers = 0
    for video in videos:
        wanted, expected = in_float64(model, video)
        total += sum(spikes.numel() for spikes in wanted.values())
        best = expected.argmax(axis)
        answers += best.numel()
        for precision, engine in engines.items():
            counts = flipped[precision]
            for name, spikes in engine.spikes(video).items():
                differ = int((spikes != wanted[name]).sum())
                counts[name] = counts.get(name, 0) + differ / wanted[name].numel() / len(videos)
                counts["all"] = counts.get("all", 0) + differ
            same[precision] += int((engine(video).argmax(axis) == best).sum())
    what = "pixels" if model.task == "segmentation" else "clips"
    for precision, counts in flipped.items():
        flips = counts.pop("all")
        print(
            f"{precision}: {flips} of {total} spikes differ ({flips / total:.2e}); the same answer "
            f"for {same[precision]} of {answers} {what} ({same[precision] / answers:.2%})"
        )
        if arguments.layers:
            for name in counts:
                print(f"    {counts[name]:.2e} {name}")


if __name__ == "__main__":
    main()
