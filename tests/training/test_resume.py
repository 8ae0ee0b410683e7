"""SIGKILL at any moment, then --resume: no checkpoint is ever broken, and no bit differs."""

import csv
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spikevideoformer.cli import main
from spikevideoformer.training import TrainConfig, train
from spikevideoformer.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.processes

# Processes are forked from one that has imported everything, so that each starts at once.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["spikevideoformer.training", "torch.utils.tensorboard"])


def start(config: TrainConfig) -> multiprocessing.Process:
    process = PROCESSES.Process(target=train, args=(config,), kwargs={"resume": True})
    process.start()
    return process


def kill(process: multiprocessing.Process) -> bool:
    """Kill it; whether it was still running."""
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def wait_until(condition: Callable[[], bool], process: multiprocessing.Process) -> None:
    while process.is_alive() and not condition():
        pass  # a sleep would miss the short time in which a temporary file exists


def names(folder: Path, ending: str) -> set[str]:
    found = os.listdir(folder) if folder.exists() else []
    return {name for name in found if name.endswith(ending)}


def kill_and_resume(config: TrainConfig, kills: int, seed: int) -> tuple[int, int]:
    """Kill so many times and let the last process finish; how many kills hit, and hit a write."""
    draw, hits, hits_in_a_write = random.Random(seed), 0, 0
    checkpoints = config.out / "checkpoints"
    for i in range(kills):
        process, before = start(config), names(checkpoints, ".pt")
        if i % 3 == 0:  # any moment of the start
            time.sleep(draw.uniform(0, 1))
        else:  # after a step or more: in a checkpoint write, or at any moment
            new = draw.randint(0, 1)
            wait_until(lambda b=before, n=new: len(names(checkpoints, ".pt") - b) >= n, process)
            if i % 3 == 1:
                wait_until(lambda: bool(names(checkpoints, ".tmp")), process)
            else:
                time.sleep(draw.uniform(0, 0.2))
        hits += kill(process)
        hits_in_a_write += bool(names(checkpoints, ".tmp"))
        for name in names(checkpoints, ".pt"):
            load_checkpoint(checkpoints / name)  # raises where it is not whole
    process = start(config)
    process.join()
    assert process.exitcode == 0
    assert not any(checkpoints.glob("*.tmp"))
    return hits, hits_in_a_write


def outcome(out: Path) -> dict[str, torch.Tensor]:
    state = load_checkpoint(sorted((out / "checkpoints").glob("step-*.pt"))[-1])
    moments = state["optimizer"]["state"]
    tensors = {f"moment {i} {k}": v for i, s in moments.items() for k, v in s.items()}
    return tensors | state["model"] | load_file(out / "model" / "model.safetensors")


def table(out: Path) -> list[list[str]]:
    with (out / "metrics.csv").open() as file:
        return [row[:-1] for row in csv.reader(file)]  # the last column is a speed


def check(tiny: Callable[..., TrainConfig], tmp_path: Path, *, kills: int, workers: int) -> None:
    config = tiny(
        out=tmp_path / "killed",
        epochs=kills,  # of 3 steps each, so that every kill finds some left
        batch_size=2,
        accumulate=2,
        checkpoint_every_steps=1,
        workers=workers,
    )
    train(replace(config, out=tmp_path / "whole", workers=0))
    hits, hits_in_a_write = kill_and_resume(config, kills, seed=workers)
    print(f"{hits} kills, {hits_in_a_write} inside a checkpoint write")
    assert hits == kills
    assert hits_in_a_write >= 1

    whole, killed = outcome(tmp_path / "whole"), outcome(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    assert [name for name in whole if not torch.equal(whole[name], killed[name])] == []
    assert table(tmp_path / "whole") == table(tmp_path / "killed")
    assert len(table(tmp_path / "whole")) == 1 + config.epochs


def test_killed_and_resumed(tiny, tmp_path):
    """With workers; without them tests/training/killing.py ends runs."""
    check(tiny, tmp_path, kills=2, workers=2)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_ten_times_and_resumed(tiny, tmp_path, workers):
    check(tiny, tmp_path, kills=10, workers=workers)


def test_ctrl_c_in_a_terminal(tiny):
    """SIGINT reaches the loader's workers too; none of them may spoil the orderly end."""
    config = tiny(epochs=50, workers=2, checkpoint_every_steps=1)
    path = config.out.with_suffix(".yaml")
    path.write_text(config.to_yaml())
    process = subprocess.Popen(
        [sys.executable, "-m", "spikevideoformer", "train", "--config", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    checkpoints = config.out / "checkpoints"
    while process.poll() is None and not names(checkpoints, ".pt"):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, told = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, ""), told
    assert "continue with --resume" in told
    assert "Traceback" not in told
    assert told.splitlines()[-1] == "svf: interrupted"
    newest = max(names(checkpoints, ".pt") - {"best.pt"})
    assert load_checkpoint(checkpoints / newest)["step"] >= 1


@pytest.mark.parametrize("group", [False, True], ids=["process", "group with loader workers"])
def test_sigterm_leaves_a_checkpoint_and_status_143(tiny, capsys, group):
    config = tiny(epochs=50, workers=2, checkpoint_every_steps=1)
    path = config.out.with_suffix(".yaml")
    path.write_text(config.to_yaml())
    words = ["train", "--config", str(path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "spikevideoformer", *words],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=group,
    )
    checkpoints = config.out / "checkpoints"
    while process.poll() is None and not names(checkpoints, ".pt"):
        time.sleep(0.05)
    assert main([*words, "--resume"]) == 2  # into the same folder, while the first writes there
    assert "is in use by another process; wait for it" in capsys.readouterr().err
    if group:
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.terminate()
    _, told = process.communicate(timeout=25)
    assert process.returncode == 143, told
    assert "continue with --resume" in told
    assert told.rstrip().endswith("svf: terminated")
    newest = max(names(checkpoints, ".pt") - {"best.pt"})
    assert load_checkpoint(checkpoints / newest)["step"] >= 1
