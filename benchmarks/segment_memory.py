"""Peak memory of `svf predict` for segmentation, on a short and on a long video.

    python benchmarks/segment_memory.py --work /tmp/segment-memory

Makes an untrained network (svf_nano, short side 96, T = 8, 19 classes) and two videos of 480x360
pixels, 10 s and 10 min long, and runs `svf predict --out` on each in a process of its own:
decoding, network, masks drawn over the video, legend, JSON and the plot of areas. The peak is the
highest resident memory of the process, by the kernel's count. What grows with the video by rights
is four bytes for each frame and class (their areas) and some dozens for each frame.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from spikevideoformer.models.spikevideoformer import create_model
from spikevideoformer.tasks.segmentation.spec import SegmentationSpec
from spikevideoformer.video.frames import write_video

KIB = 1024 if sys.platform == "darwin" else 1  # of ru_maxrss, in bytes there
CLASSES = tuple(f"class {i}" for i in range(19))  # as many as Cityscapes has


def make_model(folder: Path) -> None:
    """An untrained network whose masks change from frame to frame."""
    torch.manual_seed(0)
    model = create_model(
        "svf_nano",
        task="segmentation",
        num_classes=len(CLASSES),
        pad_input=True,
        residual_gain=1.0,
        neuron={"v_threshold": 0.1},
    )
    torch.nn.init.normal_(model.head.fc.weight, std=3.0)
    spec = SegmentationSpec(frames=8, short_side=96, crop=(96, 96))
    model.save_pretrained(folder, classes=CLASSES, clip=spec.to_dict())


def scenes(count: int) -> Iterator[np.ndarray]:
    """A patterned ground that drifts, under a disc that circles."""
    y, x = np.mgrid[:360, :480]
    ground = np.stack([128 + 90 * np.sin(x / 15), 128 + 90 * np.cos(y / 23), (x + y) % 256], axis=2)
    ground = ground.astype(np.uint8)
    for t in range(count):
        picture = np.roll(ground, 2 * t, axis=1)
        disc = (x - 240 - 120 * np.sin(t / 20)) ** 2 + (y - 180 - 80 * np.cos(t / 20)) ** 2 < 50**2
        picture[disc] = (240, 200, (5 * t) % 256)
        yield picture


def predict(model: Path, video: Path, out: Path) -> tuple[float, float]:
    """Peak resident memory in MiB and seconds of one `svf predict`."""
    command = [sys.executable, "-m", "spikevideoformer", "predict", "--model", str(model)]
    begin = time.perf_counter()
    process = subprocess.Popen(
        [*command, str(video), "--out", str(out), "--device", "cpu"], stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"svf predict failed on {video}")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if used.ru_maxrss <= own:  # a child inherits the peak of its parent
        raise SystemExit("this process took more memory than svf predict; nothing is measured")
    return used.ru_maxrss / KIB / 1024, time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for videos and results")
    parser.add_argument("--seconds", type=int, nargs=2, default=[10, 600], help="of the two videos")
    parser.add_argument("--frame-rate-hz", type=int, default=25)
    arguments = parser.parse_args()
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    make_model(work / "model")
    print("| video | frames | peak, MiB | of the first | time, s |\n|---|---|---|---|---|")
    first = None
    for seconds in arguments.seconds:
        frames = seconds * arguments.frame_rate_hz
        video = work / f"{seconds}s.mp4"
        write_video(video, scenes(frames), arguments.frame_rate_hz)
        peak, took = predict(work / "model", video, work / "out")
        first = first or peak
        row = f"| {seconds} s | {frames} | {peak:.1f} | {peak / first:.3f} | {took:.0f} |"
        print(row, flush=True)


if __name__ == "__main__":
    main()
