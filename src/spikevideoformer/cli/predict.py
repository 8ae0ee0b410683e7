"""``svf predict``: what a model says of videos, printed and drawn."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spikevideoformer.cli.options import DIR, LABELS, MASKS, POSE, Json, Limits, OnModel
from spikevideoformer.cli.output import folder_to_write, note, note_failure, show
from spikevideoformer.messages import one_line

if TYPE_CHECKING:
    from spikevideoformer.models.spikevideoformer import SpikeVideoFormer


def _box(text: str) -> tuple[int, int, int]:
    if not re.fullmatch(r"-?\d+,-?\d+,\d+", text):
        raise ArgumentTypeError(f"{text!r} is no box like 120,40,300")
    left, top, side = map(int, text.split(","))
    return left, top, side


@dataclass(frozen=True, kw_only=True)
class Options(Json, Limits, OnModel):
    """Recognise what happens in videos, what is where, or the pose of a body.

    Example: svf predict --model demo/run/model demo/clips/val --json

    Args:
        inputs: video files, folders of videos, folders of numbered images, or globs in quotes.
        engine: exact: the fast one that fires the model's own spikes; int8: faster, with rounded
            weights; model: the model as it is; auto: exact on a CPU, model on CUDA.
        out: also write annotated videos into this folder (for segmentation with a JSON file and a
            plot of areas for each; for pose with a side view, a BVH and a JSON file).
        sequence_rate_hz: pictures per second of folders of numbered images.
        html: with --out, also a page for each video: where and when neurons fire, what it costs.
        top_k: labels to report (default 5).
        window_s: judge the video in windows of S seconds (default: the whole of it as one, or the
            length that the model was made for).
        batch_size: clips at a time (default 1 on a CPU, 8 on CUDA).
        masks: with --out, also the mask of each frame as a PNG file of class indices.
        box: square around the person, in pixels, the same for the whole video (default: all of the
            picture); a negative LEFT needs an equals sign: --box=-5,10,300.
        field_of_view_deg: angle that the longer side of the picture spans (default 55); it sets the
            distance.
        focal_px: focal length, where it is known.
    """

    inputs: tuple[str, ...] = field(metadata={"metavar": "INPUT", "positional": True})
    engine: Literal["auto", "exact", "int8", "model"] = "auto"
    out: Path | None = field(default=None, metadata=DIR)
    sequence_rate_hz: float = field(default=25.0, metadata={"metavar": "HZ", "above": 0})
    html: bool = field(default=False, metadata=LABELS)
    top_k: int | None = field(default=None, metadata=LABELS | {"metavar": "K", "at_least": 1})
    window_s: float | None = field(default=None, metadata=LABELS | {"metavar": "S", "above": 0})
    batch_size: int | None = field(default=None, metadata=LABELS | {"at_least": 1})
    masks: bool = field(default=False, metadata=MASKS)
    box: tuple[int, int, int] | None = field(
        default=None, metadata=POSE | {"metavar": "LEFT,TOP,SIDE", "type": _box}
    )
    field_of_view_deg: float | None = field(default=None, metadata=POSE | {"metavar": "DEG"})
    focal_px: float | None = field(default=None, metadata=POSE | {"metavar": "PIXELS", "above": 0})


def run(options: Options) -> int:
    """Predict and print, draw where there is a folder; how many videos could not be read."""
    from spikevideoformer.video.inputs import videos_among

    for name, what in (("html", "pages"), ("masks", "PNG files")):
        if getattr(options, name) and options.out is None:
            raise ValueError(f"--{name} writes {what} into a folder; give one with --out")
    videos, absent = videos_among(options.inputs)
    options.checked_task()
    out = folder_to_write(options.out)

    from spikevideoformer.inference.base import annotated_names
    from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
    from spikevideoformer.nn.neuron import silence
    from spikevideoformer.tasks.answer import FailedPrediction

    model = SpikeVideoFormer.from_pretrained(options.model)
    targets = {} if out is None else annotated_names(videos, out)
    for error in absent:
        note_failure(error)
    failures = len(absent)
    for result, files in _results(options, model, videos, targets):
        if isinstance(result, FailedPrediction):
            failures += 1
            note_failure(result)
            continue
        if (line := silence(result.firing_rate)) is not None:
            note(one_line(f"svf: {result.path}: {line}"))
        # what is drawn of poses has a file with all frames beside it
        less = {"frames": not files} if model.task == "pose" else {}
        lines = [*result.lines(), *(f"  {what}: {path}" for what, path in files.items())]
        show(options.json, partial(_values, result, less, files), "\n".join(lines))
    return failures


def _values(result: Any, less: dict[str, bool], files: dict[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = result.to_dict(**less)
    return values | files


def _results(
    options: Options, model: SpikeVideoFormer, videos: Sequence[str], targets: dict[str, Path]
) -> Iterator[tuple[Any, dict[str, str]]]:
    """A prediction or a `FailedPrediction` of each video, and what files were written."""
    from spikevideoformer.inference.predictor import predictor_for
    from spikevideoformer.progress import progress_on_stderr
    from spikevideoformer.tasks.answer import FailedPrediction
    from spikevideoformer.video.sources import VideoError

    settings, keep, draw = _settings(options, model.task)
    predictor = predictor_for(model.task)(model, **settings)
    if options.sliding_window:
        predictor.window = predictor.clip.crop  # type: ignore[attr-defined]
    reading: dict[str, Any] = {
        "limits": options.limits,
        "sequence_rate_hz": options.sequence_rate_hz,
    }
    if not targets and model.task == "classification":  # videos share batches
        for result in predictor.predict_many(videos, **keep, **reading):
            yield result, {}
        return
    for video in videos:
        try:
            with progress_on_stderr("frame") as tell:
                if targets:
                    out = targets[video]
                    yield predictor.write(video, out, progress=tell, **draw, **reading)
                else:
                    yield predictor.predict(video, progress=tell, **keep, **reading), {}
        except VideoError as error:
            yield FailedPrediction(path=str(error.path), reason=error.reason), {}


def _settings(options: Options, task: str) -> tuple[dict[str, Any], ...]:
    """Of the predictor of a task, of predictions that are only printed, and of drawn ones."""
    of_all = {name: getattr(options, name) for name in ("device", "precision", "engine")}
    if task == "classification":
        labels = {name: getattr(options, name) for name in ("window_s", "batch_size")}
        labels["top_k"] = options.top_k or 5
        return of_all, labels, {**labels, "html": options.html, "tell": note}
    if task == "segmentation":
        pictures = {"scales": options.scales or (1.0,), "flip": options.flip}
        return of_all | pictures, {"keep_masks": False}, {"masks": options.masks}
    from spikevideoformer.body.smpl import load_body

    camera = {name: getattr(options, name) for name in ("field_of_view_deg", "focal_px", "box")}
    body = None if options.body is None else load_body(options.body)
    return {**of_all, **camera, "body": body}, {}, {}
