"""``svf eval``: what a model is worth on a data set."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spikevideoformer.cli.options import DIR, Json, OfEvents, OnModel
from spikevideoformer.cli.output import folder_to_write, note, show
from spikevideoformer.files import write_text

if TYPE_CHECKING:
    from spikevideoformer.task import Task
    from spikevideoformer.training.advice import Evaluation


@dataclass(frozen=True, kw_only=True)
class Options(Json, OnModel, OfEvents):
    """Measure a model on a folder of videos.

    Example: svf eval --model demo/run/model --data demo/clips --split val

    Args:
        data: folder of the data set.
        split: one of the data set, such as train or test.
        layout: how the data lies (default: recognised).
        engine: what runs the network: model, as in training; float, int16, int8: integer weights of
            24, 16 and 8 bits, as `svf predict` does.
        workers: processes that decode.
        skip_bad: go on without videos that cannot be read.
        out: also write evaluation.json, plots (and skipped.csv) into this folder.
        task_options: that only models of one task have.
    """

    data: Path = field(metadata=DIR)
    split: str = "val"
    layout: str | None = None
    engine: Literal["model", "float", "int16", "int8"] = "model"
    workers: int = field(default=2, metadata={"at_least": 0})
    skip_bad: bool = False
    out: Path | None = field(default=None, metadata=DIR)
    task_options: dict[str, Any] = field(metadata={"of_task": "eval_options"})


def run(options: Options) -> None:
    """Measure, and print the metrics."""
    from spikevideoformer.data.index import check_data_folder

    task = options.checked_task()
    own = options.own(task, options.task_options)
    task.check_files(own)
    check_data_folder(options.data, "data set")
    out = folder_to_write(options.out)
    result = _evaluated(options, task, own, out)

    for line in result.signs():
        note(f"note: {line}")
    values = result.to_dict()
    if options.engine != "model":
        values["engine"] = options.engine
        note(f"by engine {options.engine}")
    if out is not None:
        write_text(out / "evaluation.json", json.dumps(values, indent=2) + "\n")
    show(options.json, values, "\n".join(result.lines()))


def _evaluated(options: Options, task: Task, own: Any, out: Path | None) -> Evaluation:
    """The metrics of the model. Data are looked at before torch is imported."""
    index = task.read(
        options.data, split=options.split, layout=options.layout, fold=getattr(own, "fold", 0) or 1
    )
    names = ("workers", "device", "precision", "skip_bad", "engine")
    how: dict[str, Any] = {name: getattr(options, name) for name in names}
    how["events"] = options.settings.get("events", {})
    how |= {"check": "full" if options.skip_bad else "open", "out": out}
    how |= task.eval_settings(own)
    from spikevideoformer.training import evaluate_folder
    from spikevideoformer.video.interface import VideoError

    try:
        return evaluate_folder(Path(options.model), index, **how)
    except VideoError as error:
        raise ValueError(f"{error}; leave such files out with --skip-bad") from error
