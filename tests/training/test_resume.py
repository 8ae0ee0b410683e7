"""SIGKILL at any moment, then --resume: no checkpoint is ever broken, and no bit differs."""

import csv
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spikevideoformer.training import TrainConfig, train
from spikevideoformer.training.checkpoint import load_checkpoint

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


def wait_for_a_write(folder: Path, process: multiprocessing.Process) -> None:
    """Return in the middle of a checkpoint write: its temporary file is there and not complete."""
    while process.is_alive():
        try:
            if any(entry.name.endswith(".pt.tmp") for entry in os.scandir(folder)):
                return
        except FileNotFoundError:
            continue


def kill_and_resume(config: TrainConfig, kills: int, seed: int) -> tuple[int, int]:
    """Kill so many times and let the last process finish; how many kills hit, and hit a write."""
    draw, hits, hits_in_a_write = random.Random(seed), 0, 0
    checkpoints = config.out / "checkpoints"
    for i in range(kills):
        process = start(config)
        if i % 2:
            # Let it get some way first, so that not only the first write is hit.
            time.sleep(draw.uniform(0.3, 1.0))
            wait_for_a_write(checkpoints, process)
        else:
            time.sleep(draw.uniform(0.2, 1.5))
        hits += kill(process)
        hits_in_a_write += any(checkpoints.glob("*.pt.tmp"))
        for path in checkpoints.glob("*.pt"):
            load_checkpoint(path)  # raises where it is not whole
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
        epochs=8, checkpoint_every_steps=1, workers=workers, out=tmp_path / "killed", accumulate=2,
        batch_size=2,
    )  # fmt: skip
    train(replace(config, out=tmp_path / "whole", workers=0))
    hits, hits_in_a_write = kill_and_resume(config, kills, seed=workers)
    print(f"{hits} kills, {hits_in_a_write} inside a checkpoint write")
    assert hits >= kills - 1
    assert hits_in_a_write >= kills // 3

    whole, killed = outcome(tmp_path / "whole"), outcome(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    assert [name for name in whole if not torch.equal(whole[name], killed[name])] == []
    assert table(tmp_path / "whole") == table(tmp_path / "killed")
    assert len(table(tmp_path / "whole")) == 1 + config.epochs


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed(tiny, tmp_path, workers):
    check(tiny, tmp_path, kills=3, workers=workers)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_ten_times_and_resumed(tiny, tmp_path, workers):
    check(tiny, tmp_path, kills=10, workers=workers)
