"""`train`: from a configuration to a run folder."""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import nn

from spikevideoformer.data.index import DatasetIndex
from spikevideoformer.files import locked, write_text
from spikevideoformer.models.config import STRIDE
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.training.advice import Evaluation, about_training
from spikevideoformer.training.batches import StepPlan
from spikevideoformer.training.checkpoint import load_checkpoint
from spikevideoformer.training.config import TrainConfig, check_paths
from spikevideoformer.training.devices import end_others, from_first_process, launch
from spikevideoformer.training.logs import shortened
from spikevideoformer.training.loop import Loop
from spikevideoformer.training.plots import plot_learning_curves
from spikevideoformer.training.task_training import TaskTraining

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
        notes: signs that the network does not work, a line each with what to try.
    """

    out: Path
    model: Path
    best_epoch: int
    evaluation: Evaluation
    history: tuple[dict[str, float | int], ...]
    is_main_process: bool
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        epochs = f"epoch {self.best_epoch} of {len(self.history)}"
        return f"TrainResult({str(self.model)!r}, {epochs}, {self.evaluation!r})"


def train(
    config: TrainConfig,
    *,
    index: DatasetIndex[Any] | None = None,
    resume: bool = False,
    about: str = "",
) -> TrainResult:
    """Train a model and write the run folder.

    The folder gets config.yaml, metrics.csv, TensorBoard events, checkpoints/, model/ (the released
    form of the best epoch), evaluation.json, learning_curves.png and, by task, confusion.png, or
    iou.png and contact_sheet.png, or errors.png. With `config.init_from`, init_from.csv says where
    each tensor's first values are from.

    Args:
        config: the run.
        index: the clips, such as a fold of `ClipIndex.folds`, or the sequences of a segmentation
            or pose run; None: read from `config.data`.
        resume: go on from the newest checkpoint in `config.out`; without one, begin.
        about: a line on the settings, logged and written with the facts of the run.

    Raises:
        ValueError: anything about the configuration, the data or the folder that cannot be used.
        SystemExit: in another process than the first, where that one found the data unusable.
        KeyboardInterrupt: Ctrl-C; the run can be resumed.
    """
    check_paths(config, resume=resume)
    fabric = launch(device=config.device, devices=config.devices, precision=config.precision)
    if not fabric.is_global_zero:  # what the first process tells need not be told again
        logging.getLogger("spikevideoformer").setLevel(logging.ERROR)
    config.out.mkdir(parents=True, exist_ok=True)
    with locked(config.out) if fabric.is_global_zero else nullcontext():
        try:
            return _trained(config, index, fabric, resume=resume, about=about)
        except KeyboardInterrupt:
            end_others(fabric)
            raise


def _trained(
    config: TrainConfig,
    index: DatasetIndex[Any] | None,
    fabric: Fabric,
    *,
    resume: bool,
    about: str,
) -> TrainResult:
    check_paths(config, resume=resume)  # once more: another run may have ended meanwhile
    task = _task(config, index, fabric)
    plan = _plan(config, task.clips, fabric.world_size)

    torch.manual_seed(config.seed)
    model = task.create_model()
    model.backbone.spike_memory = config.spike_memory
    model.backbone.gradient_checkpointing = config.gradient_checkpointing
    loop = Loop(task, fabric, model, plan=plan)
    if not (resume and _resume(loop, fabric)) and config.init_from is not None:
        taken, left = start_from(model, config.init_from)
        if fabric.is_global_zero:
            _write_origins(config.out / "init_from.csv", model, taken, left)
    if fabric.is_global_zero:
        _write_config(config, plan, fabric, model, about)
    loop.run()
    return _finish(loop, fabric)


def _task(
    config: TrainConfig, index: DatasetIndex[Any] | None, fabric: Fabric
) -> TaskTraining[Any]:
    kind = config.of_task.training()
    if index is not None and not isinstance(index, kind.index_type):
        raise ValueError(
            f"the index is a {type(index).__name__}; {config.task} needs a "
            f"{kind.index_type.__name__}"
        )
    return kind(config, index, fabric)


def start_from(model: SpikeVideoFormer, folder: Path) -> tuple[list[str], list[str]]:
    """Take weights from a released model where name and shape agree.

    The head is taken only where both models do the same task, and its last layer only where they
    name the same classes in the same order: of another list it would answer another question.

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
    same_classes = source.classes is not None and source.classes == model.classes
    last_layer = () if same_classes else ("head.fc.", "head.fc_kd.")
    apart = last_layer if source.task == model.task else ("head.",)
    taken = [
        name
        for name, value in own.items()
        if name in offered and offered[name].shape == value.shape and not name.startswith(apart)
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


def _plan(config: TrainConfig, clips: int, processes: int) -> StepPlan:
    plan = StepPlan(
        clips=clips,
        batch_size=config.batch_size,
        micro_batches=config.accumulate * processes,
        seed=config.seed,
        passes=config.passes,
    )
    height, width = config.of_task.height_and_width(config.spec)
    values = config.batch_size * config.spec.frames * (height // STRIDE) * (width // STRIDE)
    if values < 2:
        raise ValueError(
            f"a batch of {config.batch_size} clip of {config.spec.frames} frame of "
            f"{height}x{width} pixels has one value for each channel of the last stage, of which "
            "a batch norm makes nothing; raise batch_size, frames or size"
        )
    if plan.steps_per_epoch == 0:
        raise ValueError(
            f"{clips} training clips do not fill one step of {plan.effective_batch} "
            f"(batch_size {config.batch_size} x accumulate {config.accumulate} x "
            f"{processes} processes); lower batch_size"
        )
    return plan


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


def _write_config(
    config: TrainConfig, plan: StepPlan, fabric: Fabric, model: nn.Module, about: str
) -> None:
    facts = (
        *([about] if about else []),
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


def _write_origins(path: Path, model: nn.Module, taken: list[str], left: list[str]) -> None:
    rows = [f"{name},taken" for name in taken] + [f"{name},new" for name in left]
    order = {name: i for i, name in enumerate(model.state_dict())}
    rows.sort(key=lambda row: order[row.partition(",")[0]])
    write_text(path, "\n".join(["tensor,origin", *rows]) + "\n")


def _finish(loop: Loop, fabric: Fabric) -> TrainResult:
    """Release the best weights, evaluate them, draw the plots."""
    task, config, model, history = loop.task, loop.config, loop.model, loop.state.history
    best: dict[str, Any] = load_checkpoint(loop.checkpoints.best)
    model.load_state_dict(best["model"])
    evaluation = task.judge(model, fabric, finally_=True)
    folder = config.out / "model"
    if fabric.is_global_zero:
        if (line := task.calibrate(model)) is not None:
            log.info(line)
        model.save_pretrained(folder)
        write_text(
            config.out / "evaluation.json", json.dumps(evaluation.to_dict(), indent=2) + "\n"
        )
        task.report(evaluation, history, config.out)
        plot_learning_curves(
            history,
            task.measure,
            task.watched,
            config.out / "learning_curves.png",
            loss_unit=task.loss_unit,
        )
    fabric.barrier()
    return TrainResult(
        out=config.out,
        model=folder,
        best_epoch=best["row"]["epoch"],
        evaluation=evaluation,
        history=tuple(history),
        is_main_process=fabric.is_global_zero,
        notes=tuple(about_training(config, evaluation, history)),
    )
