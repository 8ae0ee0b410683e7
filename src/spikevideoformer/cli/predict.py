"""``svf predict``: what a model says of videos, printed and drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spikevideoformer.cli.options import DIR, Json, Limits, OfEvents, OnModel, task_options
from spikevideoformer.cli.output import folder_to_write, note, note_failure, show
from spikevideoformer.files import locked
from spikevideoformer.messages import one_line
from spikevideoformer.models.box import OF_TASK, Card, boxed_folder
from spikevideoformer.task import get_task

if TYPE_CHECKING:
    from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
    from spikevideoformer.task import PredictSettings, Task


@dataclass(frozen=True, kw_only=True)
class Options(Json, Limits, OnModel, OfEvents):
    """Recognise what happens in videos, what is where, or the pose of a body.

    Example: svf predict demo/clips/val --json

    Args:
        inputs: video files, pictures, folders of videos, folders of numbered images, recordings of
            events (docs/events.md), or globs in quotes.
        stills: take each picture of a folder by itself, not the folder as a video.
        model: model folder, svf/NAME of the box (`svf models --weights`), or a hub id (owner/name).
            Default: from the box what --task says: scene motion, or person masks for segmentation,
            or poses of people for pose.
        engine: float: weights of 24 bits, and the same spikes on every machine; int16, int8:
            rounded to 16 and 8 bits, int8 is the fastest; exact: the spikes that the model fires on
            this machine; model: the model as it is; auto: float on a CPU, model on CUDA.
        out: also write annotated videos into this folder (for segmentation with a JSON file and a
            plot of areas for each; for pose with a side view, a BVH and a JSON file).
        sequence_rate_hz: pictures per second of folders of numbered images.
        task_options: that only models of one task have.
    """

    inputs: tuple[str, ...] = field(metadata={"metavar": "INPUT", "positional": True})
    model: str = field(default="", metadata={"metavar": "FOLDER"})
    engine: Literal["auto", "exact", "float", "int16", "int8", "model"] = "auto"
    out: Path | None = field(default=None, metadata=DIR)
    stills: bool = False
    sequence_rate_hz: float = field(default=25.0, metadata={"metavar": "HZ", "above": 0})
    task_options: dict[str, Any] = field(metadata={"of_task": "predict_options"})


def run(options: Options) -> int:
    """Predict and print, draw where there is a folder; how many videos could not be read."""
    from spikevideoformer.video.inputs import videos_among

    if not options.model:
        name = OF_TASK[options.task or "classification"]
        options = replace(options, model=name)
        note(f"svf: no --model is given: {name}, {Card.read(boxed_folder(name)).about}")
    for name in options.task_options:
        kind, _ = task_options("predict_options")[name]
        what = next(f for f in fields(kind) if f.name == name).metadata.get("needs_out")
        if what and options.out is None:
            raise ValueError(f"--{name} writes {what} into a folder; give one with --out")
    videos, absent = videos_among(options.inputs, stills=options.stills)
    task = options.checked_task()
    own = options.own(task, options.task_options)
    task.check_files(own)
    out = folder_to_write(options.out)

    from spikevideoformer.inference.base import annotated_names
    from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
    from spikevideoformer.video.spec import told_of_events

    model = SpikeVideoFormer.from_pretrained(options.model)
    if options.settings:
        model.clip = told_of_events(model.clip, options.settings["events"])
    targets = {} if out is None else annotated_names(videos, out)
    for error in absent:
        note_failure(error)
    failures = len(absent)
    settings = task.predict_settings(own, model, note)
    with locked(out) if out is not None else nullcontext():
        failures += _show_all(options, task, _results(options, model, settings, videos, targets))
    return failures


def _show_all(options: Options, task: Task, results: Iterator[tuple[Any, dict[str, str]]]) -> int:
    """Print each result as it comes; how many are failures."""
    from spikevideoformer.inference.answer import FailedPrediction
    from spikevideoformer.nn.neuron import silence

    failures = 0
    for result, files in results:
        if isinstance(result, FailedPrediction):
            failures += 1
            note_failure(result)
            continue
        if (line := silence(result.firing_rate)) is not None:
            note(one_line(f"svf: {result.path}: {line}"))
        lines = [*result.lines(), *(one_line(f"  {what}: {path}") for what, path in files.items())]
        show(options.json, partial(_values, task, result, files), "\n".join(lines))
    return failures


def _values(task: Task, result: Any, files: dict[str, str]) -> dict[str, Any]:
    return task.values(result, files) | files


def _results(
    options: Options,
    model: SpikeVideoFormer,
    settings: PredictSettings,
    videos: Sequence[str],
    targets: dict[str, Path],
) -> Iterator[tuple[Any, dict[str, str]]]:
    """A prediction or a `FailedPrediction` of each video, and what files were written."""
    from spikevideoformer.inference.answer import FailedPrediction
    from spikevideoformer.progress import progress_on_stderr
    from spikevideoformer.video.interface import VideoError

    of_all = {name: getattr(options, name) for name in ("device", "precision", "engine")}
    predictor = get_task(model.task).predictor()(model, **of_all, **settings.predictor)
    reading: dict[str, Any] = {
        "limits": options.limits,
        "sequence_rate_hz": options.sequence_rate_hz,
    }
    if not targets and predictor.shares_batches:
        for result in predictor.predict_many(videos, **settings.predict, **reading):
            yield result, {}
        return
    for video in videos:
        try:
            with progress_on_stderr("frame") as tell:
                if targets:
                    out = targets[video]
                    yield predictor.write(video, out, progress=tell, **settings.write, **reading)
                else:
                    yield predictor.predict(video, progress=tell, **settings.predict, **reading), {}
        except VideoError as error:
            yield FailedPrediction(path=str(error.path), reason=error.reason), {}
        except OSError as error:  # a name that is too long with what is added, a full disk
            where = "" if error.filename is None else f"{Path(error.filename).name}: "
            reason = f"{where}{error.strerror or error}; check the name and the free space"
            yield FailedPrediction(path=str(video), reason=reason), {}
