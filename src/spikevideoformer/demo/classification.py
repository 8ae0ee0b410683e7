"""``svf demo``: classification of clips that it makes itself, with a report to look at.

Clips are made whose class lies in the motion alone. The same small network learns them twice: in
the joint space-time design, and in the spatial-only design whose neurons forget every frame before
the next, which therefore should not rise above chance. The first of them is then used on files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from spikevideoformer.data.index import read_index
from spikevideoformer.data.synthetic import FRAMES, SIZE, write_direction_clips
from spikevideoformer.data.transforms import Augmentation
from spikevideoformer.demo.report import learning_curves, next_commands, share, stage
from spikevideoformer.files import write_text
from spikevideoformer.inference.annotate import write_annotated
from spikevideoformer.inference.document import document, picture, player, table
from spikevideoformer.inference.predictor import PredictionResult, VideoPredictor
from spikevideoformer.tasks.classification import ClassificationResult
from spikevideoformer.training import TrainConfig, train


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the demo makes and how it trains.

    Args:
        train_clips: to make and train on, over all classes.
        val_clips: to make and measure on, over all classes.
        training: of both networks; folders and design are filled in.
        spatial_epochs: epochs of the spatial-only design. It sees the same frames whatever the
            class, so more of them cannot help it.
        seed: of the clips.
    """

    train_clips: int = 1200
    val_clips: int = 240
    training: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            out=Path("run"),
            model="svf_nano",
            readout="membrane",
            frames=FRAMES,
            size=SIZE // 2,
            epochs=8,
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
    spatial_epochs: int = 4
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Used:
    """One clip that the trained network was tried on."""

    path: Path
    truth: str
    result: PredictionResult
    annotated: Path


def run_demo(out: Path, *, recipe: Recipe = Recipe(), tell: Callable[[str], None]) -> str:
    """Make clips, train two designs, measure both, predict, and write a report.

    What is already there from an earlier, interrupted demo is not done again.

    Args:
        out: an existing folder; gets clips/, joint/ and spatial_only/ (run folders), predictions/
            and report.html.
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
    with stage(tell, "1/5 making clips"):
        if not made.exists():
            write_direction_clips(
                clips, train=recipe.train_clips, val=recipe.val_clips, seed=recipe.seed
            )
            write_text(made, "all clips are whole\n")
    with stage(tell, "2/5 training the joint space-time design"):
        joint = _train(recipe.training, clips, out, "joint")
    with stage(tell, "3/5 training the spatial-only design, for comparison"):
        shorter = replace(recipe.training, epochs=recipe.spatial_epochs)
        spatial = _train(shorter, clips, out, "spatial_only")
    with stage(tell, "4/5 predicting on video files"):
        used = _predict(clips, out)
    with stage(tell, "5/5 writing the report"):
        report = out / "report.html"
        minutes = (time.monotonic() - begin_s) / 60
        text = _report(out, joint, spatial, used, minutes)
        write_text(report, text)
    chance = 1 / len(joint.classes)
    example = used[0]
    return "\n".join(
        [
            f"joint space-time design:  top-1 {joint.top1:6.1%} of {joint.clips} validation clips",
            f"spatial-only design:      top-1 {spatial.top1:6.1%}   (chance {chance:.1%})",
            f"{example.path}: {example.result.labels[0].name} "
            f"{example.result.labels[0].probability:.1%} (it is {example.truth})",
            f"annotated video: {example.annotated}",
            f"model:           {out / 'joint' / 'model'}",
            f"report:          {report}",
            f"total time:      {minutes:.1f} min",
        ]
    )


def _train(
    recipe: TrainConfig, clips: Path, out: Path, design: Literal["joint", "spatial_only"]
) -> ClassificationResult:
    config = replace(recipe, data=clips, out=out / design, design=design)
    evaluation = train(config, resume=True).evaluation
    assert isinstance(evaluation, ClassificationResult)
    return evaluation


def _predict(clips: Path, out: Path) -> list[Used]:
    """Try the joint network on the first validation clip of each class."""
    index = read_index(clips, split="val")
    first = {sample.label: sample for sample in reversed(index.samples)}
    predictor = VideoPredictor.from_pretrained(out / "joint" / "model", device="cpu")
    folder = out / "predictions"
    folder.mkdir(exist_ok=True)
    used = []
    for label, truth in enumerate(index.classes):
        path = first[label].path
        result = predictor.predict(path)
        annotated = write_annotated(path, result, folder / f"{truth}.mp4")
        used.append(Used(path=path, truth=truth, result=result, annotated=annotated))
    return used


def _report(
    out: Path,
    joint: ClassificationResult,
    spatial: ClassificationResult,
    used: list[Used],
    minutes: float,
) -> str:
    """One HTML page with pictures and videos inside it."""
    chance = share(1 / len(joint.classes))
    rows = [
        ("top-1", share(joint.top1), share(spatial.top1)),
        ("chance", chance, chance),
        *(
            (name, share(a), share(b))
            for name, a, b in zip(
                joint.classes, joint.class_accuracy, spatial.class_accuracy, strict=True
            )
        ),
    ]
    clips = len(read_index(out / "clips", split="train").samples)
    designs = (("joint", "Joint"), ("spatial_only", "Spatial only"))
    matrices = "".join(
        picture(out / design / "confusion.png", f"{title}: confusion matrix")
        for design, title in designs
    )
    videos = "".join(_video(one) for one in used)
    spiking = used[0].result.firing_rate is not None
    kind, rates = "", ""
    if spiking:
        kind = " spiking"
        rates = ", and the mean\nfiring rate of all layers of neurons at each frame"
    parts = [
        f"""<p>A small{kind} network learned {len(joint.classes)} kinds of motion from clips that
were made for this demo. The class of a clip lies in its motion alone, so a network that forgets
each frame before the next cannot tell it: that is the spatial-only design.</p>""",
        table([f"validation, {joint.clips} clips", "joint space-time", "spatial only"], rows),
        "<h2>Training</h2>",
        *(
            learning_curves(out / design, clips, f"{title}: learning curves")
            for design, title in designs
        ),
        f'<div class="row">{matrices}</div>',
        "<h2>Predictions of the joint network on video files</h2>",
        f'<div class="videos">{videos}</div>',
        f"""<p>The band under each clip shows the most probable classes and the best label over
time{rates}.</p>""",
        next_commands(out / "joint" / "model", out / "joint"),
        f"<p>Made in {minutes:.1f} minutes.</p>",
    ]
    return document("SpikeVideoFormer demo", parts)


def _video(one: Used) -> str:
    best = one.result.labels[0]
    caption = f"{one.truth}, recognised as {best.name} ({best.probability:.0%})"
    return player(one.annotated, caption, wrong=best.name != one.truth)
