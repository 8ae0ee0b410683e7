"""Pieces of the demos' pages: what learned how long, and the commands that come next."""

import shlex
from pathlib import Path

import pytest

from spikevideoformer.demo.report import next_commands, share, training_facts
from spikevideoformer.machine import machine
from spikevideoformer.training import TrainConfig


def run_of(folder: Path, **settings: object) -> Path:
    """A run folder of 3 epochs of 10 steps: 80 clips each, at 2, 4 and 4 clips a second."""
    config = TrainConfig.from_dict({"out": str(folder), "batch_size": 8, **settings})
    folder.mkdir()
    (folder / "config.yaml").write_text(f"# a comment\n{config.to_yaml()}")
    rows = "".join(f"{i},{10 * i},{2.0 if i == 1 else 4.0}\n" for i in (1, 2, 3))
    (folder / "metrics.csv").write_text(f"epoch,step,clips_per_second\n{rows}")
    return folder


def test_what_learned_how_long(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", frames=4, size=32, device="cpu", readout="membrane")
    assert dict(training_facts(run, 1200)) == {
        "model": "svf_nano, readout membrane",
        "clips": "1,200, each 4 frames of 32 pixels",
        "epochs": "3",
        "steps": "30, each 8 clips",
        "time": "1.3 minutes, without validation",
        "machine": machine("cpu"),
    }


@pytest.mark.parametrize("task", ["classification", "segmentation", "pose"])
@pytest.mark.parametrize("preset", ["svf_nano", "svf_tiny"])
def test_next_commands_can_be_copied(task: str, preset: str, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", task=task, model=preset)
    model = Path("my demo/model")
    commands = next_commands(model, run)
    *_, train, predict = commands.splitlines()
    expected = ["--data", "my_videos", "--init-from", "my demo/model"]
    expected += [] if preset == TrainConfig.model else ["--model", preset]
    expected += ["--out", "my_run"]
    kind = [] if task == "classification" else ["--task", task]
    assert shlex.split(train) == ["svf", "train", *kind, *expected]
    assert predict == "svf predict --model my_run/model new_clip.mp4 --out annotated"
    assert commands.startswith("svf render --out my_videos") == (task == "pose")


def test_share() -> None:
    assert (share(0.125), share(None)) == ("12.5%", "")
