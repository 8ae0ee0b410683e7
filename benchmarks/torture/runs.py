"""Trainings that are killed, told to end or meet a NaN: nothing is lost, nothing bad is saved."""

import math
import multiprocessing
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from workshop import COMMAND, Tally, Workshop

from spikevideoformer.training import TrainConfig, train
from spikevideoformer.training.checkpoint import load_checkpoint
from spikevideoformer.training.loop import Loop

# Processes are forked from one that has imported everything, so that each starts at once.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["spikevideoformer.training", "torch.utils.tensorboard"])
END_S = 25
"""How long a training may take to end when it is told to."""


def config(shop: Workshop, out: str, workers: int = 0) -> TrainConfig:
    return TrainConfig(
        data=shop.clips,
        out=shop.folder / out,
        model="svf_nano",
        frames=2,
        size=32,
        epochs=6,
        batch_size=2,
        warmup_epochs=0.0,
        check="none",
        checkpoint_every_steps=1,
        workers=workers,
        seed=shop.seed,
    )


def kills(shop: Workshop) -> Tally:
    """SIGKILL at any moment: each checkpoint is whole, and a resumed run has the same bits."""
    tally, draw, number = Tally(), shop.random, 0
    whole = outcome(_finish(config(shop, "whole")).out)
    while tally.cases < shop.count(50):
        run, before = config(shop, f"run{number}"), tally.cases
        number += 1
        for _ in range(5):
            process = _start(run)
            time.sleep(draw.uniform(0, 3))
            if not process.is_alive():
                break
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
            with tally.case(f"run {number}, kill {tally.cases - before}"):
                for path in (run.out / "checkpoints").glob("*.pt"):
                    load_checkpoint(path)
        process.join()
        if process.exitcode not in (0, -signal.SIGKILL):
            tally.wrong.append(f"run {number}: status {process.exitcode}")
        if different := differing(whole, outcome(_finish(run).out)):
            tally.wrong.append(f"run {number}: other bits in {different[0]} and {len(different)}")
        if leftovers := [*run.out.rglob("*.tmp"), *run.out.rglob(".*.tmp*")]:
            tally.wrong.append(f"run {number}: {leftovers[0].name} is left")
    tally.notes.append(f"{number} runs, each compared with one that was never killed")
    return tally


def terms(shop: Workshop) -> Tally:
    """SIGTERM: status 143 within 25 s, and a resumed run has the same bits."""
    tally, slowest_s = Tally(), 0.0
    for number in range(shop.count(20)):
        processes, workers = 1 + number % 2, 2 * (number // 2 % 2)
        name = f"{processes} processes, {workers} workers, signal {number}"
        run = config(shop, f"run{number}", workers)
        process = _launch(replace(run, epochs=300, device="cpu", devices=processes))
        checkpoints, wanted = run.out / "checkpoints", shop.random.randint(0, 3)
        _wait(lambda r=run.out, n=wanted: r.exists() and _steps(r) >= n, process)
        time.sleep(shop.random.uniform(0, 0.5))
        process.send_signal(signal.SIGTERM)
        begin_s = time.monotonic()
        try:
            said = process.communicate(timeout=2 * END_S)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            said = process.communicate()[1]
        seconds = time.monotonic() - begin_s
        slowest_s = max(slowest_s, seconds)
        if process.returncode != _TERMINATED or seconds > END_S:
            tally.wrong.append(
                f"{name}: status {process.returncode} after {seconds:.0f} s: {said[-300:]!r}"
            )
            continue
        with tally.case(name):
            saved = [load_checkpoint(path)["step"] for path in checkpoints.glob("step-*.pt")]
            if wanted and not saved:
                raise AssertionError("no checkpoint is left")
    tally.notes.append(f"the slowest ended after {slowest_s:.1f} s")
    return tally


def nans(shop: Workshop) -> Tally:
    """NaN or infinity in weights, gradients, moments, statistics or the loss is never saved."""
    tally, draw = Tally(), shop.random
    for number in range(shop.count(20)):
        place = ("weight", "gradient", "moment", "statistic", "loss")[number % 5]
        value, at_step = draw.choice((math.nan, math.inf, -math.inf)), draw.randrange(1, 10)
        run = config(shop, f"run{number}")
        refused = tally.refused
        with (
            tally.case(f"{value} in a {place} at step {at_step}"),
            _spoilt(place, value, at_step, draw),
        ):
            train(run)
        if tally.refused == refused:
            tally.wrong.append(f"{value} in a {place} at step {at_step}: trained on")
        for path in (run.out / "checkpoints").glob("*.pt"):
            state = load_checkpoint(path)
            if not all(v.isfinite().all() for v in tensors(state) if v.is_floating_point()):
                tally.wrong.append(f"{value} in a {place}: it is in {path.name}")
    return tally


def outcome(out: Path) -> dict[str, Any]:
    return load_checkpoint(max((out / "checkpoints").glob("step-*.pt")))


def tensors(value: Any) -> list[torch.Tensor]:
    """All tensors of a state, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value
    return [t for v in inner for t in tensors(v)] if isinstance(value, dict | list | tuple) else []


def differing(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Parts of two states whose tensors do not have the same bits."""
    wrong = []
    for name in ("model", "optimizer"):
        a, b = tensors(ours[name]), tensors(theirs[name])
        same = len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        wrong += [] if same else [name]
    return wrong


def _start(run: TrainConfig) -> Any:
    process = PROCESSES.Process(target=train, args=(run,), kwargs={"resume": True})
    process.start()
    return process


def _finish(run: TrainConfig) -> TrainConfig:
    process = _start(run)
    process.join()
    if process.exitcode != 0:
        raise AssertionError(f"{run.out}: status {process.exitcode}")
    return run


_TERMINATED = 143


def _launch(run: TrainConfig) -> subprocess.Popen[str]:
    path = run.out.with_suffix(".yaml")
    path.write_text(run.to_yaml())
    return subprocess.Popen(
        [*COMMAND, "train", "--config", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _steps(out: Path) -> int:
    return len(list((out / "checkpoints").glob("step-*.pt")))


def _wait(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not condition():
        time.sleep(0.02)


def _put(tensor: torch.Tensor, number: int, value: float) -> None:
    """Set the value of this number, however the tensor lies in memory."""
    index = torch.unravel_index(torch.tensor(number), tensor.shape)
    tensor[index] = value


def _spoilt(place: str, value: float, at_step: int, draw: random.Random) -> Any:
    """A training in which one number goes wrong at one step."""
    step = Loop._step

    def spoil(loop: Loop, batches: Any) -> None:
        if loop.state.step == at_step:
            weight = draw.choice(list(loop.model.parameters()))
            if place == "gradient":
                weight.register_hook(lambda gradient: torch.full_like(gradient, value))
            elif place == "loss":
                loss = loop.task.loss
                loop.task.loss = lambda *a: loss(*a) * value  # type: ignore[method-assign]
            elif place == "statistic":
                draw.choice([b for n, b in loop.model.named_buffers() if "running" in n])[0] = value
            elif place == "moment":
                moment = draw.choice(list(loop.optimizer.state.values()))["exp_avg_sq"]
                _put(moment, 0, value)
            else:
                _put(weight.data, draw.randrange(weight.numel()), value)
        step(loop, batches)

    return patch.object(Loop, "_step", spoil)
