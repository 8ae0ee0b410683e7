"""Runs of a question: each made once, some side by side, and what was found of each."""

from __future__ import annotations

import json
import logging
import math
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from itertools import islice
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any, Literal

import torch

from spikevideoformer.ablation.questions import Question
from spikevideoformer.energy.report import EnergyReport, energy_report
from spikevideoformer.files import write_text
from spikevideoformer.inference.base import choose_device
from spikevideoformer.inference.counted_clips import clips_of
from spikevideoformer.models.folder import read_about
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, create_model
from spikevideoformer.settings import plain
from spikevideoformer.stopping import Terminated
from spikevideoformer.task import get_task
from spikevideoformer.training import TrainConfig, train
from spikevideoformer.training.train import TrainResult
from spikevideoformer.video.interface import DecodeLimits

log = logging.getLogger(__name__)

Budget = Literal["steps", "time"]

_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t, two-sided 95 %, for 1 to 10 degrees of freedom; the last also stands for more."""


def finished(
    config: TrainConfig, measure: Callable[[TrainResult], dict[str, Any]]
) -> dict[str, Any]:
    """Train one network to the end and measure it, or read what an earlier call found.

    Args:
        config: of the run; `last.json` in its folder keeps the entry.
        measure: what is kept of it beside the configuration.

    Raises:
        ValueError: the folder holds a run of other settings.
    """
    done = config.out / "last.json"
    if done.exists():
        entry: dict[str, Any] = json.loads(done.read_text())
        changed = config.differences(entry["config"])
        before, now = entry["config"].get("teacher"), plain(config.teacher)
        if before != now:  # a run that goes on compares what it holds, and may find it elsewhere
            changed.append(f"teacher: {before!r} then, {now!r} now")
        if changed:
            raise ValueError(
                f"{config.out} is of other settings ({'; '.join(changed)}); use another --out"
            )
        return entry
    entry = {"config": config.to_dict(), **measure(train(config, resume=True))}
    write_text(done, json.dumps(entry, indent=1) + "\n")
    return entry


@dataclass(frozen=True)
class Study:
    """What was found of each variant, seed by seed.

    Attributes:
        name: of the question.
        question: what was asked.
        seeds: of the runs.
        entries: by the name of a variant, one for each seed: `history`, rows of metrics.csv;
            `cpu_s`; `parameters`; and, where energy was counted, `rate`, `executed_mj`,
            `merged_mj`.
    """

    name: str
    question: Question
    seeds: tuple[int, ...]
    entries: Mapping[str, Sequence[Mapping[str, Any]]] = field(repr=False)

    def values(self, variant: str, column: str) -> list[float]:
        """A figure of the last epoch (no epoch is chosen by looking at it), or of the run."""
        return [float(e.get(column, e["history"][-1].get(column))) for e in self.entries[variant]]

    @property
    def metrics(self) -> list[str]:
        """Columns of the validation, without its loss."""
        first = next(iter(self.entries.values()))[0]["history"][-1]
        return [c for c in first if c.startswith("val_") and c != "val_loss"]

    def difference(self, variant: str, against: str, metric: str) -> tuple[float, float]:
        """Mean of the differences, seed by seed, and half its 95 % interval (NaN of one seed)."""
        pairs = zip(self.values(variant, metric), self.values(against, metric), strict=True)
        return interval([ours - theirs for ours, theirs in pairs])

    def verdicts(self) -> Iterator[str]:
        """The paper's order: confirmed, the other way round, or undecidable; a line a metric."""
        better, worse = self.question.better, self.question.worse
        if better is None or worse is None or not {better, worse} <= self.entries.keys():
            return
        yield f"The paper: {better} before {worse}, {self.question.paper}."
        for metric in self.metrics:
            mean, half = self.difference(better, worse, metric)
            if math.isnan(half):
                yield f"{metric}: {mean:+.4g} with one seed, which decides nothing."
                continue
            order = "undecidable with so many seeds"
            if abs(mean) > half:
                order = "confirmed" if (mean > 0) == is_higher_better(metric) else "not confirmed"
            yield f"{metric}: {mean:+.4g} ({mean - half:+.4g} to {mean + half:+.4g}): {order}."


def is_higher_better(metric: str) -> bool:
    """Whether more of a metric is better: of losses and of errors in millimetres less is."""
    return not (metric.endswith("loss") or "_mm" in metric)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half of its 95 % interval by Student's t: NaN of a single value."""
    mean = statistics.mean(values)
    if len(values) == 1:
        return mean, math.nan
    t = _T_975[min(len(values) - 2, len(_T_975) - 1)]
    return mean, t * statistics.stdev(values) / math.sqrt(len(values))


def run_study(
    name: str,
    question: Question,
    base: TrainConfig,
    seeds: Sequence[int],
    *,
    jobs: int = 1,
    videos: Sequence[str] = (),
    equal: Budget = "steps",
    tell: Callable[[str], None] = log.info,
) -> Study:
    """Train every variant with every seed, or read what was found before.

    A run that was stopped goes on where it was.

    Args:
        name: of the question.
        question: what is compared.
        base: recipe and data; `out` is the folder of the study, with a run folder for each.
        seeds: different ones.
        jobs: runs side by side, each in a process of its own.
        videos: on whose first clips firing rate and energy are counted; none: not counted.
        equal: what all runs have the same of: steps, or, to half an epoch, CPU time of their
            process (of one without workers, on a CPU), that of the first variant.
        tell: takes a line when a run is done.

    Raises:
        ValueError: settings that a variant cannot have, or a folder of other settings.
    """
    base = question.base(base)
    runs = {
        (variant, seed): about.of(base, seed, base.out / f"{variant}-{seed}")
        for seed in seeds
        for variant, about in question.variants.items()
    }
    for variant, config in ((v, runs[v, seeds[0]]) for v in question.variants):
        _check(variant, config)
    if equal == "time":
        if base.workers or choose_device(base.device).type != "cpu":
            raise ValueError(
                "equal time is CPU time of one process: set workers to 0 and device to cpu"
            )
        epochs = _epochs_of_equal_time({v: runs[v, seeds[0]] for v in question.variants}, base.out)
        tell("epochs: " + ", ".join(f"{variant} {count}" for variant, count in epochs.items()))
        runs = {k: _of_epochs(config, epochs[k[0]]) for k, config in runs.items()}
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for key, entry in _entries(runs, jobs, list(videos)):
        found[key] = entry
        last = {k: v for k, v in entry["history"][-1].items() if k.startswith("val_")}
        figures = ", ".join(f"{k} {v:.4g}" for k, v in last.items())
        tell(f"{key[0]}, seed {key[1]}: {figures} ({len(found)} of {len(runs)} runs)")
    entries = {v: [found[v, seed] for seed in seeds] for v in question.variants}
    return Study(name, question, tuple(seeds), entries)


def _check(variant: str, config: TrainConfig) -> None:
    """Raise ValueError for a network or first weights that there cannot be, before any training."""
    try:
        create_model(config.model, config.task, num_classes=2, **config.model_options)
        if config.init_from is not None:
            read_about(config.init_from)
    except ValueError as error:
        raise ValueError(f"variant {variant}: {error}") from error


def _epochs_of_equal_time(first_runs: Mapping[str, TrainConfig], out: Path) -> dict[str, int]:
    """Epochs of each variant that take as long as those of the first variant.

    One epoch of each is trained to see how long it takes, once in a folder; of the first two, so
    that it does not pay for what is compiled.
    """
    first, *others = first_runs
    seconds: dict[str, float] = {}
    for name, variant in (("compiling", first), *((v, v) for v in (first, *others))):
        config = replace(
            first_runs[variant], epochs=1, warmup_epochs=0.0, seed=0, out=out / "timing" / name
        )
        if not (config.out / "last.json").exists():
            shutil.rmtree(config.out, ignore_errors=True)  # half an epoch tells nothing
        seconds[name] = _run(config, [])["cpu_s"]
    whole = seconds[first] * first_runs[first].epochs
    return {variant: max(1, round(whole / seconds[variant])) for variant in first_runs}


def _of_epochs(config: TrainConfig, epochs: int) -> TrainConfig:
    """With as large a share of warm-up."""
    warmup = config.warmup_epochs * epochs / config.epochs
    return replace(config, epochs=epochs, warmup_epochs=warmup)


def _entries(
    runs: Mapping[tuple[str, int], TrainConfig], jobs: int, videos: list[str]
) -> Iterator[tuple[tuple[str, int], dict[str, Any]]]:
    done = {k: c for k, c in runs.items() if not videos and (c.out / "last.json").exists()}
    for key, config in (runs if jobs == 1 else done).items():  # reading needs no process
        yield key, _run(config, videos)
    if jobs == 1:
        return
    threads = max(1, torch.get_num_threads() // jobs)
    waiting = iter([(key, config) for key, config in runs.items() if key not in done])
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        started: dict[Future[dict[str, Any]], tuple[str, int]] = {}
        try:
            # No more than run side by side: after Ctrl-C, or where one fails, no other begins.
            while True:
                for key, config in islice(waiting, jobs - len(started)):
                    started[pool.submit(_run, config, videos)] = key
                if not started:
                    return
                ended, _ = wait(started, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield started.pop(future), future.result()
        except Terminated:  # it reaches this process alone, unlike Ctrl-C; each run saves its state
            for process in active_children():
                process.terminate()
            raise


def _run(config: TrainConfig, videos: list[str]) -> dict[str, Any]:
    config.out.mkdir(parents=True, exist_ok=True)
    start = time.process_time()
    entry = finished(
        config,
        lambda result: {
            "cpu_s": time.process_time() - start,  # of the last part, where it was resumed
            "parameters": SpikeVideoFormer.from_pretrained(result.model).num_parameters(),
            "history": result.history,
        },
    )
    return entry | _costs(counted(config.out / "model", videos)) if videos else entry


def counted(model: Path, videos: Sequence[str]) -> EnergyReport:
    """Operations and energy of a released network on the first clip of each video.

    Raises:
        ValueError: a video that cannot be read.
    """
    network = SpikeVideoFormer.from_pretrained(model)
    task = get_task(network.task)
    spec = task.counted_spec(network.clip, None, None)
    clips, failed = clips_of(videos, task, spec, 1, limits=DecodeLimits(), tell=log.info)
    if failed:
        raise ValueError(str(failed[0]))
    batch = torch.stack([task.network_input(clip, spec) for clip in clips])
    return energy_report(network, batch, merge=network.config.neuron.spiking)


def _costs(report: EnergyReport) -> dict[str, float | None]:
    """What the table shows of it; an ordinary network has no rate, and nothing to merge."""
    energy = {t.convention: t.energy_mj for t in report.totals}
    return {
        "rate": report.rate,
        "executed_mj": energy["executed"],
        "merged_mj": energy.get("merged"),
    }
