"""Evaluation of released models, of every task."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from spikevideoformer.data.index import DatasetIndex
from spikevideoformer.data.specs import Decode
from spikevideoformer.deploy.engine import InferenceEngine
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.neuron import silence
from spikevideoformer.task import get_task
from spikevideoformer.training.config import Precision
from spikevideoformer.training.devices import Device, launch
from spikevideoformer.training.judging import Judging
from spikevideoformer.video.spec import told_of_events

log = logging.getLogger(__name__)

EvalEngine = Literal["model", "float", "int16", "int8"]


def evaluate_folder(
    folder: Path,
    index: DatasetIndex[Any],
    *,
    batch_size: int = 8,
    workers: int = 0,
    device: Device = "auto",
    precision: Precision = "32-true",
    check: Decode = "none",
    skip_bad: bool = False,
    out: Path | None = None,
    events: Mapping[str, Any] | None = None,
    engine: EvalEngine = "model",
    **options: Any,
) -> Any:
    """Metrics of a released model on data that it was not trained on.

    Args:
        folder: what `save_pretrained` or a training run wrote.
        index: one split of a data set for the task of the model, with the same classes or joints
            (clips are matched by the names of their classes).
        batch_size: most clips of a forward pass; segmentation takes one at a time.
        workers: loader processes.
        device: auto, cpu or cuda.
        precision: as in training.
        check: check of the files beforehand.
        skip_bad: go on without the files that the check refuses.
        out: folder for pictures, and `skipped.csv` or `problems.csv`; None: what is left out is
            logged.
        events: settings of recordings, `EventFiles`, that differ from those of the model.
        engine: what runs the network: the model, as in training, or integer weights of an
            `InferenceEngine`, as in prediction.
        **options: of the task: `clips_per_video`, `crops` and `limits`; `sliding_window`, `scales`
            and `flip`; or `body`.

    Raises:
        ValueError: a folder that is no model for such data, other classes or joints, bad files,
            outputs that are NaN or infinite, a network or precision that the engine does not run.
    """
    if engine != "model" and precision != "32-true":
        raise ValueError(f"engine {engine} runs in precision 32-true, not in {precision}")
    model = SpikeVideoFormer.from_pretrained(folder)
    task = get_task(model.task).training()
    if not isinstance(index, task.index_type):
        raise ValueError(
            f"{folder} is made for {model.task}, and the data are a {type(index).__name__}; "
            f"give a {task.index_type.__name__}"
        )
    if model.clip is None or (model.classes is None and model.body is None):
        raise ValueError(
            f"{folder} does not say how clips become input, or what its classes are; "
            f"give one that svf train --task {model.task} wrote, or save it with classes and clip"
        )
    if events:
        model.clip = told_of_events(model.clip, events)
    fabric = launch(device=device, devices=1, precision=precision)
    fabric.to_device(model)
    if engine != "model":
        forward: Any = _by_engine(InferenceEngine(model, precision=engine))
        model.forward = forward  # type: ignore[method-assign]
    judging = Judging(
        fabric=fabric,
        batch_size=batch_size,
        workers=workers,
        check=check,
        skip_bad=skip_bad,
        out=out,
    )
    return task.judge_released(model, folder, index, judging, **options)


def _by_engine(engine: InferenceEngine) -> Callable[[Tensor], Any]:
    """A forward pass that says so, once, where hardly any neuron fires."""
    first = True

    def forward(video: Tensor) -> Any:
        nonlocal first
        output, rates = engine.run(video, record=first)
        if first and (line := silence(rates.overall)) is not None:
            log.warning(line)
        first = False
        return output

    return forward
