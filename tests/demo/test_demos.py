"""The demo of each task goes the whole way; all look at one run of each, made in conftest.py."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import matplotlib.image
import pytest

from spikevideoformer.cli import main

from .small import small_demo

TASKS = ("classification", "segmentation", "pose")
TOLD = {
    "classification": ("network:         top-1", "chance"),
    "segmentation": ("network:           mIoU", "ground everywhere: mIoU"),
    "pose": ("network:", "mean pose:"),
}
VIDEOS_AND_PICTURES = {"classification": (8, 2), "segmentation": (1, 2), "pose": (6, 3)}


@pytest.mark.parametrize("task", TASKS)
def test_the_whole_way(task: str, demo_of: Callable[[str], Path]) -> None:
    folder = demo_of(task)
    told = json.loads((folder / "told.json").read_text())
    assert told["status"] == 0
    for words in (*TOLD[task], "total time:"):
        assert words in told["out"]
    for stage in range(1, 5):
        assert f"[{stage}/4" in told["err"]
    page = (folder / "demo" / "report.html").read_text()
    videos, pictures = VIDEOS_AND_PICTURES[task]
    assert page.count("data:video/mp4;base64,") == page.count("<video") == videos
    assert page.count("data:image/png;base64,") == pictures
    assert "://" not in page  # base64 has no colon; plain "http" turns up in it by chance
    if task == "classification":
        assert "firing rate" in page and "spiking network" in page


def test_errors_of_poses_are_told(demo_of: Callable[[str], Path]) -> None:
    folder = demo_of("pose")
    out = json.loads((folder / "told.json").read_text())["out"]
    lines = dict(line.split(":", 1) for line in out.splitlines())
    assert "mm of 24 validation frames" in lines["network"]  # 6 motions of 4 frames
    errors = [
        [float(mm) for mm in re.findall(r"([\d.]+) mm", lines[name])]
        for name in ("network", "mean pose")
    ]
    assert all(0 < pa < mpjpe < 1000 for mpjpe, pa in errors)
    # after so few steps the network says little but the mean pose, from which it starts
    assert errors[0][1] == pytest.approx(errors[1][1], rel=0.2)
    assert matplotlib.image.imread(folder / "demo" / "poses.png").size


def test_what_is_done_is_not_done_again(
    demo_of: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """But a network of clips of another recipe is not taken for one of this one."""
    demo = shutil.copytree(demo_of("classification") / "demo", tmp_path / "demo")
    module = import_module("spikevideoformer.tasks.classification.demo")
    clips = sorted((demo / "clips").rglob("*.mp4"))
    before, written = [path.read_bytes() for path in clips], clips[0].stat().st_mtime_ns
    for seed, status, says in (
        (0, 0, "resuming"),
        (1, 2, "is of clips of another recipe; give another --out"),
    ):
        small = replace(small_demo("classification"), seed=seed)
        monkeypatch.setattr(module, "Demo", lambda small=small: small)
        assert main(["demo", "--out", str(demo)]) == status
        assert says in capfd.readouterr().err
        assert [path.read_bytes() for path in clips] == before
        assert clips[0].stat().st_mtime_ns == written
    shutil.rmtree(demo / "run")
    assert main(["demo", "--out", str(demo)]) == 0
    assert [path.read_bytes() for path in clips] != before
    assert json.loads((demo / "clips.done").read_text())["seed"] == 1


@pytest.mark.slow
def test_an_ordinary_network_has_no_firing_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = small_demo("classification")
    training = replace(demo.training, model="ann_nano", neuron=None)
    module = import_module("spikevideoformer.tasks.classification.demo")
    monkeypatch.setattr(module, "Demo", lambda: replace(demo, training=training))
    assert main(["demo", "--out", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "firing rate" not in page and "spiking network" not in page
