"""``svf demo``: classification of clips that it makes itself, with a report to look at.

Clips are made whose class lies in the motion alone: a network that forgot every frame before the
next could not tell them (docs/initialisation.md). A small network learns them, and is then used on
files. It is also what the README starts from to learn one's own clips.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikevideoformer.data.specs import Augmentation
from spikevideoformer.demo.driver import Driver
from spikevideoformer.demo.report import share
from spikevideoformer.inference.document import picture, player
from spikevideoformer.synth.directions import FRAMES, SIZE, write_direction_clips
from spikevideoformer.tasks.classification.answer import PredictionResult
from spikevideoformer.tasks.classification.index import read_index
from spikevideoformer.tasks.classification.metrics import ClassificationResult
from spikevideoformer.tasks.classification.predictor import VideoPredictor
from spikevideoformer.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Used:
    """One clip that the trained network was tried on."""

    path: Path
    truth: str
    result: PredictionResult
    annotated: Path


@dataclass(frozen=True, kw_only=True)
class Demo(Driver):
    """Clips of directions of motion.

    Args:
        train_clips: to make and train on, over all classes.
        val_clips: to make and measure on, over all classes.
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

    def make(self, clips: Path) -> None:
        write_direction_clips(clips, train=self.train_clips, val=self.val_clips, seed=self.seed)

    def use(self, out: Path, config: TrainConfig) -> list[Used]:
        """On the first validation clip of each class."""
        index = read_index(out / self.clips, split="val")
        first = {sample.label: sample for sample in reversed(index.samples)}
        predictor = VideoPredictor.from_pretrained(out / "run" / "model", device="cpu")
        folder = out / "predictions"
        folder.mkdir(exist_ok=True)
        used = []
        for label, truth in enumerate(index.classes):
            path, annotated = first[label].path, folder / f"{truth}.mp4"
            result, _ = predictor.write(path, annotated)
            used.append(Used(path=path, truth=truth, result=result, annotated=annotated))
        return used

    def told(self, out: Path, evaluation: ClassificationResult, used: list[Used]) -> dict[str, str]:
        example = used[0]
        best = example.result.labels[0]
        return {
            "network": f"top-1 {evaluation.top1:.1%} of {evaluation.clips} validation clips "
            f"(chance {1 / len(evaluation.classes):.1%})",
            "one of them": f"{best.name} {best.probability:.1%} (it is {example.truth}): "
            f"{example.path}",
            "annotated video": str(example.annotated),
        }

    def page(self, out: Path, evaluation: ClassificationResult, used: list[Used]) -> dict[str, Any]:
        rows = [
            ("top-1", share(evaluation.top1)),
            ("chance", share(1 / len(evaluation.classes))),
            *(
                (name, share(accuracy))
                for name, accuracy in zip(
                    evaluation.classes, evaluation.class_accuracy, strict=True
                )
            ),
        ]
        return {
            "clips": len(read_index(out / self.clips, split="train").samples),
            "spiking": used[0].result.firing_rate is not None,
            "classes": len(evaluation.classes),
            "head": [f"validation, {evaluation.clips} clips", "recognised"],
            "rows": rows,
            "confusion": picture(out / "run" / "confusion.png", "Confusion matrix"),
            "videos": [_video(one) for one in used],
        }


def _video(one: Used) -> str:
    best = one.result.labels[0]
    caption = f"{one.truth}, recognised as {best.name} ({best.probability:.0%})"
    return player(one.annotated, caption, wrong=best.name != one.truth)
