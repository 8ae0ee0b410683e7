"""``svf eval``: what a model is worth on a data set."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikevideoformer.cli.options import DIR, LABELS, Json, Limits, OnModel
from spikevideoformer.cli.output import folder_to_write, note, show
from spikevideoformer.files import write_text

if TYPE_CHECKING:
    from spikevideoformer.training.advice import Evaluation

NOT_MASKS = {"tasks": ("classification", "pose")}


@dataclass(frozen=True, kw_only=True)
class Options(Json, Limits, OnModel):
    """Measure a model on a folder of videos.

    Example: svf eval --model demo/run/model --data demo/clips --split val

    Args:
        data: folder of the data set.
        split: one of the data set, such as train or test.
        layout: how the data lies (default: recognised).
        batch_size: clips at a time (default 8).
        workers: processes that decode.
        skip_bad: go on without videos that cannot be read.
        out: also write evaluation.json, plots (and skipped.csv) into this folder.
        fold: official fold, where there are some.
        clips: clips to average a video over (default 1).
    """

    data: Path = field(metadata=DIR)
    split: str = "val"
    layout: str | None = None
    batch_size: int | None = field(default=None, metadata=NOT_MASKS | {"at_least": 1})
    workers: int = field(default=2, metadata={"at_least": 0})
    skip_bad: bool = False
    out: Path | None = field(default=None, metadata=DIR)
    fold: int | None = field(default=None, metadata=LABELS | {"at_least": 1})
    clips: int | None = field(default=None, metadata=LABELS | {"at_least": 1})
    no_decode_limits: bool = field(default=False, metadata=LABELS)


def run(options: Options) -> None:
    """Measure, and print the metrics."""
    from spikevideoformer.data.index import check_data_folder

    task = options.checked_task()
    check_data_folder(options.data, "data set")
    out = folder_to_write(options.out)
    result = _evaluated(options, task, out)

    from spikevideoformer.training.advice import about_answers

    for line in about_answers(result):
        note(f"note: {line}")
    values = result.to_dict()
    if out is not None:
        write_text(out / "evaluation.json", json.dumps(values, indent=2) + "\n")
    show(options.json, values, "\n".join(result.lines()))


def _evaluated(options: Options, task: str, out: Path | None) -> Evaluation:
    """The metrics of the model. Data are looked at before torch is imported."""
    model, data, split, layout = Path(options.model), options.data, options.split, options.layout
    names = ("workers", "device", "precision", "skip_bad")
    how: dict[str, Any] = {name: getattr(options, name) for name in names}
    how |= {"check": "full" if options.skip_bad else "open", "out": out}
    if task == "segmentation":
        from spikevideoformer.tasks.segmentation.index import read_sequences

        index: Any = read_sequences(data, split=split, layout=layout)
        how |= {"sliding_window": options.sliding_window, "flip": options.flip}
        how["scales"] = options.scales or (1.0,)
    elif task == "pose":
        from spikevideoformer.tasks.pose.index import read_poses

        index = read_poses(data, split=split, layout=layout)
        how["body"] = options.body
    else:
        from spikevideoformer.tasks.classification.index import read_index

        index = read_index(data, split=split, layout=layout, fold=options.fold or 1)
        how |= {"clips_per_video": options.clips or 1, "limits": options.limits}
    from spikevideoformer.training import evaluate_folder
    from spikevideoformer.video.sources import VideoError

    try:
        return evaluate_folder(model, index, batch_size=options.batch_size or 8, **how)
    except VideoError as error:
        raise ValueError(f"{error}; leave such files out with --skip-bad") from error
