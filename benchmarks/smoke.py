"""The whole way on one device in a few minutes: is this machine fit for the work?

    python benchmarks/smoke.py --device cuda

All presets run forward and backward in each precision that the device has; attention in half
precision is compared with float32; a small network is trained for some steps, checkpointed,
resumed, evaluated and used on a video file. Any failure ends it with a traceback.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from spikevideoformer.data.specs import Augmentation
from spikevideoformer.models.config import list_models
from spikevideoformer.models.spikevideoformer import create_model
from spikevideoformer.ops.hamming import hamming_attention
from spikevideoformer.synth.directions import write_direction_clips
from spikevideoformer.tasks.classification.predictor import VideoPredictor
from spikevideoformer.training import TrainConfig, train


def presets(device: torch.device, size: int) -> None:
    """One training step of every preset, in float32 and under autocast."""
    kinds: list[torch.dtype | None] = [None, torch.bfloat16]
    if device.type == "cuda":
        kinds.append(torch.float16)
    for name in list_models():
        for dtype in kinds:
            begin = time.perf_counter()
            model = create_model(name, num_classes=10).to(device)
            video = torch.randn(2, 4, 3, size, size, device=device)
            labels = torch.tensor([1, 7], device=device)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                loss = F.cross_entropy(model(video), labels)
            loss.backward()
            norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
            if not (torch.isfinite(loss) and torch.stack(norms).isfinite().all()):
                raise SystemExit(f"{name} in {dtype}: loss or gradients are not finite")
            print(
                f"{name:9s} {dtype or torch.float32!s:14s} loss {loss.item():.3f}  "
                f"{len(norms)} gradients  {time.perf_counter() - begin:.1f} s",
                flush=True,
            )


def attention(device: torch.device) -> None:
    """T = 32, 14x14 tokens: half precision and TF32 must not change a single sum."""
    shape = (2, 8, 32 * 14 * 14, 45)
    q, k, v = ((torch.rand(shape, device=device) < 0.3).double() for _ in range(3))
    exact = hamming_attention(q, k, v, scale=1).float()
    halves = (torch.bfloat16, torch.float16) if device.type == "cuda" else (torch.bfloat16,)
    before = torch.get_float32_matmul_precision()
    for autocast in halves:
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            for matmul in ("highest", "high"):
                torch.set_float32_matmul_precision(matmul)
                with torch.autocast(device.type, dtype=autocast):
                    out = hamming_attention(q.to(dtype), k.to(dtype), v.to(dtype), scale=1)
                if not torch.equal(out, exact):
                    raise SystemExit(f"attention on {dtype} under {autocast}, {matmul}: not exact")
    torch.set_float32_matmul_precision(before)
    print(f"attention: every sum up to {exact.abs().max():.0f} exact in all precisions")


def whole_way(device: str, folder: Path) -> None:
    """Clips, training with a resume, evaluation, prediction."""
    write_direction_clips(folder / "clips", train=64, val=16)
    config = TrainConfig(
        data=folder / "clips",
        out=folder / "run",
        readout="membrane",
        frames=16,
        size=32,
        epochs=2,
        batch_size=8,
        warmup_epochs=0,
        augmentation=Augmentation.off(),
        device="cuda" if device == "cuda" else "cpu",
        precision="bf16-mixed",
        workers=2,
    )
    result = train(config)
    found = result.evaluation.to_dict()
    print(f"trained 2 epochs: top-1 {found['top1']:.1%} of {found['clips']}")
    max((config.out / "checkpoints").glob("step-*.pt")).unlink()  # as if killed in epoch 2
    again = train(config, resume=True)
    losses = [r.history[-1]["train_loss"] for r in (result, again)]
    print(f"epoch 2, and again from the checkpoint of epoch 1: train loss {losses}")
    if device == "cpu" and losses[0] != losses[1]:
        raise SystemExit("the resumed run differs")
    predictor = VideoPredictor.from_pretrained(result.model, device=device)
    clip = next((folder / "clips" / "val").rglob("*.mp4"))
    label = predictor.predict(clip).labels[0]
    print(f"{clip.parent.name}/{clip.name}: {label.name} {label.probability:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--size", type=int, default=224, help="pixels, for the presets")
    args = parser.parse_args()
    device = torch.device(args.device)
    if args.device == "cuda":
        print(torch.cuda.get_device_name(), "torch", torch.__version__)
    attention(device)
    presets(device, args.size)
    with tempfile.TemporaryDirectory() as folder:
        whole_way(args.device, Path(folder))
    print("all good")


if __name__ == "__main__":
    main()
