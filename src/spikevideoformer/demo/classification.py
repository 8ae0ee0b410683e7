"""``svf demo``: classification of clips that it makes itself, with a report to look at.

Clips are made whose class lies in the motion alone: a network that forgot every frame before the
next could not tell them (docs/initialisation.md). A small network learns them, and is then used on
files. It is also what the README starts from to learn one's own clips.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from spikevideoformer.data.specs import Augmentation
from spikevideoformer.demo.report import learning_curves, next_commands, share, stage
from spikevideoformer.files import write_text
from spikevideoformer.inference.document import document, picture, player, table
from spikevideoformer.inference.predictor import VideoPredictor
from spikevideoformer.synth.directions import FRAMES, SIZE, write_direction_clips
from spikevideoformer.tasks.classification.answer import PredictionResult
from spikevideoformer.tasks.classification.index import read_index
from spikevideoformer.tasks.classification.metrics import ClassificationResult
from spikevideoformer.training import TrainConfig, train


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the demo makes and how it trains.

    Args:
        train_clips: to make and train on, over all classes.
        val_clips: to make and measure on, over all classes.
        training: of the network; folders are filled in.
        seed: of the clips.
    """

    train_clips: int = 1200
    val_clips: int = 240
    training: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            out=Path("run"),
            model="svf_nano",
            frames=FRAMES,
            size=SIZE // 2,
            epochs=7,
            batch_size=8,
            learning_rate=3e-3,
            warmup_epochs=1,
            label_smoothing=0.0,
            augmentation=Augmentation.off(),
            check="none",  # the clips were written a moment ago
            cache=True,
            workers=0,
        )
    )
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Used:
    """One clip that the trained network was tried on."""

    path: Path
    truth: str
    result: PredictionResult
    annotated: Path


def run_demo(out: Path, *, recipe: Recipe = Recipe(), tell: Callable[[str], None]) -> str:
    """Make clips, train, measure, predict, and write a report.

    What is already there from an earlier, interrupted demo is not done again.

    Args:
        out: an existing folder; gets clips/, run/, predictions/ and report.html.
        recipe: sizes and settings.
        tell: called with a line on each thing that begins or is done.

    Returns:
        The outcome in a few lines of text.

    Raises:
        ValueError: `out` holds a demo with another recipe.
    """
    begin_s = time.monotonic()
    clips = out / "clips"
    made = out / "clips.done"
    with stage(tell, "1/4 making clips"):
        if not made.exists():
            write_direction_clips(
                clips, train=recipe.train_clips, val=recipe.val_clips, seed=recipe.seed
            )
            write_text(made, "all clips are whole\n")
    with stage(tell, "2/4 training"):
        config = replace(recipe.training, data=clips, out=out / "run")
        evaluation = train(config, resume=True).evaluation
        assert isinstance(evaluation, ClassificationResult)
    with stage(tell, "3/4 predicting on video files"):
        used = _predict(clips, out)
    with stage(tell, "4/4 writing the report"):
        report = out / "report.html"
        minutes = (time.monotonic() - begin_s) / 60
        write_text(report, _report(out, evaluation, used, minutes))
    example = used[0]
    return "\n".join(
        [
            f"network:         top-1 {evaluation.top1:.1%} of {evaluation.clips} validation clips "
            f"(chance {1 / len(evaluation.classes):.1%})",
            f"{example.path}: {example.result.labels[0].name} "
            f"{example.result.labels[0].probability:.1%} (it is {example.truth})",
            f"annotated video: {example.annotated}",
            f"model:           {out / 'run' / 'model'}",
            f"report:          {report}",
            f"total time:      {minutes:.1f} min",
        ]
    )


def _predict(clips: Path, out: Path) -> list[Used]:
    """Try the network on the first validation clip of each class."""
    index = read_index(clips, split="val")
    first = {sample.label: sample for sample in reversed(index.samples)}
    predictor = VideoPredictor.from_pretrained(out / "run" / "model", device="cpu")
    folder = out / "predictions"
    folder.mkdir(exist_ok=True)
    used = []
    for label, truth in enumerate(index.classes):
        path = first[label].path
        annotated = folder / f"{truth}.mp4"
        result, _ = predictor.write(path, annotated)
        used.append(Used(path=path, truth=truth, result=result, annotated=annotated))
    return used


def _report(out: Path, evaluation: ClassificationResult, used: list[Used], minutes: float) -> str:
    """One HTML page with pictures and videos inside it."""
    rows = [
        ("top-1", share(evaluation.top1)),
        ("chance", share(1 / len(evaluation.classes))),
        *(
            (name, share(accuracy))
            for name, accuracy in zip(evaluation.classes, evaluation.class_accuracy, strict=True)
        ),
    ]
    clips = len(read_index(out / "clips", split="train").samples)
    run = out / "run"
    videos = "".join(_video(one) for one in used)
    spiking = used[0].result.firing_rate is not None
    kind, rates = "", ""
    if spiking:
        kind = " spiking"
        rates = ", and the mean\nfiring rate of all layers of neurons at each frame"
    parts = [
        f"""<p>A small{kind} network learned {len(evaluation.classes)} kinds of motion from clips
that were made for this demo. The class of a clip lies in its motion alone: all classes show the
same pictures, in another order.</p>""",
        '<div class="row">',
        table([f"validation, {evaluation.clips} clips", "recognised"], rows),
        picture(run / "confusion.png", "Confusion matrix"),
        "</div><h2>Training</h2>",
        learning_curves(run, clips),
        "<h2>Predictions on video files</h2>",
        f'<div class="videos">{videos}</div>',
        f"""<p>The band under each clip shows the most probable classes and the best label over
time{rates}.</p>""",
        next_commands(run / "model", run),
        f"<p>Made in {minutes:.1f} minutes.</p>",
    ]
    return document("SpikeVideoFormer demo", parts)


def _video(one: Used) -> str:
    best = one.result.labels[0]
    caption = f"{one.truth}, recognised as {best.name} ({best.probability:.0%})"
    return player(one.annotated, caption, wrong=best.name != one.truth)
