r"""The spiking network against its ordinary twin in ONNX Runtime, with float32 and int8 weights.

    pip install onnx onnxscript onnxruntime
    python benchmarks/twin_int8.py --model svf_15m --frames 16 --size 224

The twin (`ann_*`: rectifiers, softmax attention, the same convolutions) is exported to ONNX and
quantised statically by ONNX Runtime: bytes for activations, int8 weights for each channel; all its
convolutions and matrix products, or its convolutions alone. In turn in one process, on one thread,
every other round in reverse; CPU time, which leaves out what neighbours take.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from cpu_time import cpu_seconds

import spikevideoformer as svf
from spikevideoformer.bench.inputs import random_video
from spikevideoformer.bench.network_rows import _inference_call

QUANTISED = {
    "int8 convolutions and products": ["Conv", "MatMul", "Gemm"],
    "int8 convolutions": ["Conv"],
}


class Clips:
    """Two clips for the ranges of activations, as ONNX Runtime asks for them."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.clips: Iterator[Any] = (
            {"video": random_video(*shape, seed=seed).numpy()} for seed in (1, 2)
        )

    def get_next(self) -> Any:
        return next(self.clips, None)


def session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def twin_calls(model: str, shape: tuple[int, ...], work: Path) -> dict[str, Any]:
    """Of the twin, by torch and by ONNX Runtime, float32 and quantised."""
    from onnxruntime.quantization import quant_pre_process, quantize_static

    twin = svf.create_model(model.replace("svf_", "ann_"), num_classes=10).eval()
    video = random_video(*shape)
    exported, shaped = work / "twin.onnx", work / "shaped.onnx"
    torch.onnx.export(twin, (video,), str(exported), dynamo=True, input_names=["video"])
    quant_pre_process(exported, shaped)
    paths = {"float32": exported}
    for name, kinds in QUANTISED.items():
        paths[name] = work / f"{len(paths)}.onnx"
        quantize_static(
            shaped, paths[name], Clips(shape), op_types_to_quantize=kinds, per_channel=True
        )
    with torch.inference_mode():
        expected = twin(video)
    calls: dict[str, Any] = {"ordinary, torch": torch.inference_mode()(lambda: twin(video))}
    for name, path in paths.items():
        runs = session(path)
        found = torch.from_numpy(runs.run(None, {"video": video.numpy()})[0])
        error = float((found - expected).abs().max() / expected.abs().max())
        print(f"ONNX Runtime, {name}: logits within {error:.1e} of the largest")
        calls[f"ordinary, ONNX Runtime, {name}"] = lambda runs=runs: runs.run(
            None, {"video": video.numpy()}
        )
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="svf_15m")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shape = (1, arguments.frames, 3, arguments.size, arguments.size)
    with tempfile.TemporaryDirectory() as work:
        calls = twin_calls(arguments.model, shape, Path(work))
        for precision in ("exact", "float", "int8"):
            calls[f"spiking, {precision}"] = _inference_call(
                precision, arguments.model, arguments.frames, arguments.size
            )
        seconds = cpu_seconds(calls, arguments.rounds)
    best = min(median(took) for name, took in seconds.items() if name.startswith("ordinary"))
    for name, took in seconds.items():
        print(f"{name}: {median(took) / best:.2f} of the fastest ordinary one's time")


if __name__ == "__main__":
    main()
