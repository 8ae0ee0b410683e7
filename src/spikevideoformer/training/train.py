"""`train`: from a configuration to a run folder."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import nn

from spikevideoformer.data.check import check_index
from spikevideoformer.data.clip import ClipBatch
from spikevideoformer.data.dataset import ClipDataset
from spikevideoformer.data.index import ClipIndex, read_index
from spikevideoformer.data.video import DecodeLimits
from spikevideoformer.files import write_text
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, create_model
from spikevideoformer.tasks.classification import ClassificationResult
from spikevideoformer.training.batches import MicroBatches, StepPlan, clip_loader
from spikevideoformer.training.checkpoint import load_checkpoint
from spikevideoformer.training.config import TrainConfig
from spikevideoformer.training.devices import from_first_process, launch
from spikevideoformer.training.evaluate import evaluate
from spikevideoformer.training.logs import progress_on_stderr, shortened
from spikevideoformer.training.loop import Loop
from spikevideoformer.training.plots import plot_confusion, plot_learning_curves

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a finished run leaves.

    Attributes:
        out: the run folder.
        model: folder of the released form of the best weights.
        best_epoch: the epoch they are from, counted from 1.
        evaluation: metrics of the best weights on the validation split.
        history: the rows of metrics.csv.
        is_main_process: whether this process is the one that wrote the files and should report.
    """

    out: Path
    model: Path
    best_epoch: int
    evaluation: ClassificationResult
    history: tuple[dict[str, float | int], ...]
    is_main_process: bool


def train(
    config: TrainConfig, *, index: ClipIndex | None = None, resume: bool = False
) -> TrainResult:
    """Train a model and write the run folder.

    The folder gets config.yaml, metrics.csv, TensorBoard events, checkpoints/, model/ (the released
    form of the best epoch), evaluation.json, confusion.png and learning_curves.png.

    Args:
        config: the run.
        index: the clips, such as a fold of `ClipIndex.folds`; None: read from `config.data`.
        resume: go on from the newest checkpoint in `config.out`; without one, begin.

    Raises:
        ValueError: anything about the configuration, the data or the folder that cannot be used.
        SystemExit: in another process than the first, where that one found the data unusable.
        KeyboardInterrupt: Ctrl-C; the run can be resumed.
    """
    if not resume and any((config.out / "checkpoints").glob("*.pt")):
        raise ValueError(
            f"{config.out} already holds a training run; continue it with --resume, "
            "or choose another --out"
        )
    fabric = launch(device=config.device, devices=config.devices, precision=config.precision)
    if not fabric.is_global_zero:  # what the first process tells need not be told again
        logging.getLogger("spikevideoformer").setLevel(logging.ERROR)
    training, validation = from_first_process(fabric, lambda: _splits(config, index))
    limits = DecodeLimits.unlimited() if config.unlimited_decoding else None
    spec = config.clip_spec
    train_set = ClipDataset(
        training,
        spec,
        augmentation=config.augmentation,
        seed=config.seed,
        cache=config.cache,
        limits=limits,
    )
    val_set = ClipDataset(validation, spec, cache=config.cache, limits=limits)
    plan = _plan(config, len(train_set), fabric.world_size)

    torch.manual_seed(config.seed)
    model = create_model(
        config.model,
        task=config.task,
        num_classes=len(training.classes),
        **config.model_options,
    )
    model.backbone.spike_memory = config.spike_memory
    model.backbone.gradient_checkpointing = config.gradient_checkpointing
    model.classes, model.clip = training.classes, spec.to_dict()

    def batches(steps: range) -> Iterator[ClipBatch]:
        keys = MicroBatches(plan, steps, rank=fabric.global_rank, world_size=fabric.world_size)
        return iter(clip_loader(train_set, keys, workers=config.workers, device=fabric.device))

    def validate(model: nn.Module, after_batch: Callable[[], None]) -> ClassificationResult:
        return evaluate(
            model,
            val_set,
            batch_size=config.batch_size,
            workers=config.workers,
            fabric=fabric,
            after_batch=after_batch,
        )

    loop = Loop(
        config,
        fabric,
        model,
        plan=plan,
        batches=batches,
        validate=validate,
        data=_fingerprint(training, validation),
    )
    if not (resume and _resume(loop, fabric)) and config.init_from is not None:
        start_from(model, config.init_from)
    if fabric.is_global_zero:
        _write_config(config, plan, fabric, model)
    loop.run()
    return _finish(loop, validation, fabric)


def start_from(model: SpikeVideoFormer, folder: Path) -> tuple[list[str], list[str]]:
    """Take weights from a released model where name and shape agree.

    The head is taken only where both models name the same classes in the same order: of another
    list it would be the answer to another question.

    Args:
        model: changed in place.
        folder: what `save_pretrained` wrote.

    Returns:
        Names of the tensors that were taken, and of those that keep their initial values.

    Raises:
        ValueError: no model there, or nothing of its backbone fits.
    """
    source = SpikeVideoFormer.from_pretrained(folder)
    offered, own = source.state_dict(), model.state_dict()
    with_head = source.classes is not None and source.classes == model.classes
    taken = [
        name
        for name, value in own.items()
        if name in offered
        and offered[name].shape == value.shape
        and (with_head or not name.startswith("head."))
    ]
    # Scales, shifts and counters fit many models by chance; kernels do not.
    if not any(name.startswith("backbone.") and own[name].ndim > 1 for name in taken):
        raise ValueError(
            f"no weight of {folder} fits the model; set --model, as it was there, or leave out "
            "--init-from"
        )
    model.load_state_dict({**own, **{name: offered[name] for name in taken}})
    left = [name for name in own if name not in taken]
    log.info(
        "took %d of %d tensors from %s; new: %s",
        len(taken),
        len(own),
        folder,
        shortened(left),
    )
    return taken, left


def _splits(config: TrainConfig, index: ClipIndex | None) -> tuple[ClipIndex, ClipIndex]:
    """The checked clips to train and to validate on."""
    if index is None:
        if config.data is None:
            raise ValueError("no data is given; set --data to the folder of the data set")
        index = read_index(config.data, layout=config.layout, fold=config.fold)
    for split in (config.train_split, config.val_split):
        if split != "val" or split in index.splits:
            index.select(split)  # complains of a name that is not there before the long check
    with progress_on_stderr("checked file") as progress:
        report = check_index(
            index,
            required_splits=[config.train_split],
            decode=config.check,
            limits=DecodeLimits.unlimited() if config.unlimited_decoding else None,
            progress=progress,
        )
    index = report.settle(skip_bad=config.skip_bad, folder=config.out)
    if config.val_split == "val" and "val" not in index.splits:
        index = index.with_validation(seed=config.seed)
        log.info("the data set has no split val: a fifth of its training clips is set aside")
    return index.select(config.train_split), index.select(config.val_split)


def _plan(config: TrainConfig, clips: int, processes: int) -> StepPlan:
    plan = StepPlan(
        clips=clips,
        batch_size=config.batch_size,
        micro_batches=config.accumulate * processes,
        seed=config.seed,
    )
    if plan.steps_per_epoch == 0:
        raise ValueError(
            f"{clips} training clips do not fill one step of {plan.effective_batch} "
            f"(batch_size {config.batch_size} x accumulate {config.accumulate} x "
            f"{processes} processes); lower batch_size"
        )
    return plan


def _fingerprint(*indices: ClipIndex) -> str:
    """What a run learns from: files by name, not by where the data set lies."""
    digest = hashlib.blake2b(digest_size=16)
    for index in indices:
        digest.update(repr(index.classes).encode())
        for s in index.samples:
            path = s.path.relative_to(index.root) if s.path.is_relative_to(index.root) else s.path
            digest.update(repr((str(path), s.label, s.start_s, s.end_s)).encode())
    return digest.hexdigest()


def _resume(loop: Loop, fabric: Fabric) -> bool:
    """Take up the newest whole checkpoint; False where there is none."""

    def newest() -> Path | None:
        found = loop.checkpoints.newest()
        return None if found is None else found[0]

    path = from_first_process(fabric, newest)
    if path is None:
        log.info("no checkpoint in %s yet: beginning at step 0", loop.checkpoints.folder)
        return False
    loop.resume(load_checkpoint(path), path)
    log.info("resuming %s", path)
    return True


def _write_config(config: TrainConfig, plan: StepPlan, fabric: Fabric, model: nn.Module) -> None:
    facts = (
        f"effective batch size {plan.effective_batch} (batch_size {config.batch_size} x "
        f"accumulate {config.accumulate} x {fabric.world_size} processes)",
        f"peak learning rate {config.learning_rate:g}",
        f"{plan.clips} training clips, {plan.steps_per_epoch} steps an epoch, "
        f"{plan.steps_per_epoch * config.epochs} in all",
        f"{sum(p.numel() for p in model.parameters()):,} parameters",
    )
    for fact in facts:
        log.info(fact)
    text = "".join(f"# {fact}\n" for fact in facts) + config.to_yaml()
    write_text(config.out / "config.yaml", text)


def _finish(loop: Loop, validation: ClipIndex, fabric: Fabric) -> TrainResult:
    """Release the best weights, evaluate them, draw the plots."""
    config, model, history = loop.config, loop.model, loop.state.history
    best: dict[str, Any] = load_checkpoint(loop.checkpoints.best)
    model.load_state_dict(best["model"])
    dataset = ClipDataset(
        validation,
        config.clip_spec,
        clips_per_video=config.eval_clips,
        limits=DecodeLimits.unlimited() if config.unlimited_decoding else None,
    )
    evaluation = evaluate(
        model, dataset, batch_size=config.batch_size, workers=config.workers, fabric=fabric
    )
    folder = config.out / "model"
    if fabric.is_global_zero:
        model.save_pretrained(folder)
        text = json.dumps(evaluation.to_dict(), indent=2) + "\n"
        write_text(config.out / "evaluation.json", text)
        plot_confusion(evaluation, config.out / "confusion.png")
        plot_learning_curves(history, config.out / "learning_curves.png")
    fabric.barrier()
    return TrainResult(
        out=config.out,
        model=folder,
        best_epoch=best["row"]["epoch"],
        evaluation=evaluation,
        history=tuple(history),
        is_main_process=fabric.is_global_zero,
    )
