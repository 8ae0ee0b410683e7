"""Two processes do what one does that accumulates twice."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from spikevideoformer.models.spikevideoformer import create_model
from spikevideoformer.training import train
from spikevideoformer.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.processes

SCRIPT = Path(__file__).with_name("train_from_yaml.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def run(arguments: list[str], config) -> dict[str, object]:
    path = config.out.with_suffix(".yaml")
    path.write_text(config.to_yaml())
    done = subprocess.run(
        [sys.executable, *arguments, str(SCRIPT), str(path)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # one process reports, not two


def assert_equal_runs(a: Path, b: Path, steps: int) -> None:
    a, b = (load_checkpoint(p / "checkpoints" / f"step-{steps:08d}.pt") for p in (a, b))
    worst = 0.0
    assert a["measured"]
    for part in ("model", "measured"):
        for name, value in a[part].items():
            if not name.endswith("num_batches_tracked"):  # counts micro-batches of a process
                worst = max(worst, (value - b[part][name]).abs().max().item())
    print(f"largest difference in weights and statistics after {steps} steps: {worst:g}")
    assert worst <= 1e-6
    for one, other in zip(a["history"], b["history"], strict=True):
        one.pop("clips_per_second"), other.pop("clips_per_second")
        assert one == pytest.approx(other, abs=1e-6)


def compare(tiny, tmp_path, arguments: list[str], *, devices: int = 1, **settings: object) -> None:
    # 12 clips make 2 steps of 3 clips x 2: 2 epochs are 4 steps.
    base = {"epochs": 2, "batch_size": 3, "residual_gain": 0.2, **settings}
    train(tiny(**base, accumulate=2, out=tmp_path / "one"))
    report = run(arguments, tiny(**base, devices=devices, out=tmp_path / "two"))
    assert (
        report["top1"] == load_checkpoint(tmp_path / "two/checkpoints/best.pt")["row"]["val_top1"]
    )
    assert "x 2 processes" in (tmp_path / "two" / "config.yaml").read_text()
    assert_equal_runs(tmp_path / "one", tmp_path / "two", steps=4)


def test_torchrun_equals_accumulation(tiny, tmp_path):
    compare(tiny, tmp_path, TORCHRUN)


@pytest.mark.slow
def test_torchrun_equals_accumulation_with_the_published_recipe(tiny, tmp_path):
    published = {"optimizer": "lamb", "schedule": "poly", "layer_decay": 0.8, "ema": 0.9}
    compare(tiny, tmp_path, TORCHRUN, **published)


@pytest.mark.slow
def test_torchrun_equals_accumulation_with_a_teacher(tiny, tmp_path):
    teacher = create_model("ann_nano", num_classes=2)
    teacher.save_pretrained(tmp_path / "teacher", classes=("left", "right"))
    compare(tiny, tmp_path, TORCHRUN, teacher=tmp_path / "teacher", distillation_head=True)


@pytest.mark.slow
def test_devices_equals_accumulation(tiny, tmp_path):
    compare(tiny, tmp_path, [], devices=2)


@pytest.mark.slow
def test_two_processes_resume_to_the_same_bits(tiny, tmp_path):
    whole = tiny(epochs=2, batch_size=2, out=tmp_path / "whole")
    half = tiny(epochs=2, batch_size=2, out=tmp_path / "half", checkpoint_every_steps=2, keep=9)
    run(TORCHRUN, whole)
    run(TORCHRUN, half)
    for path in (half.out / "checkpoints").glob("step-*.pt"):
        if path.name > "step-00000002.pt":
            path.unlink()
    run(TORCHRUN, half)
    a, b = (load_checkpoint(c.out / "checkpoints" / "step-00000006.pt") for c in (whole, half))
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])


def test_bad_data_are_told_once_and_all_leave(tiny, clips, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(clips, data)
    (data / "train" / "left" / "0.mp4").write_bytes(b"")
    config = tiny(data=data, devices=2)
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    done = subprocess.run(
        [sys.executable, "-m", "spikevideoformer", "train", "--config", str(path)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("svf: ")]
    assert len(lines) == 1
    assert "empty file" in lines[0]
    assert "Traceback" not in done.stderr


def test_sigterm_to_the_first_of_two_processes_ends_both(tiny, tmp_path):
    """Also where the other one has only just started, and would wait for it for hours."""
    config = tiny(epochs=50, devices=2)
    path = tmp_path / "run.yaml"
    path.write_text(config.to_yaml())
    command = [sys.executable, "-m", "spikevideoformer", "train", "--config", str(path)]
    said = tmp_path / "said.txt"
    with said.open("w") as stderr, subprocess.Popen(command, stderr=stderr) as process:
        while process.poll() is None and not config.out.exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=100)
    assert process.returncode == 143, said.read_text()
    assert "please report it" not in said.read_text()
