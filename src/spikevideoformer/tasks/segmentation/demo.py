"""``svf demo --task segmentation``: masks of moving shapes, with a report to look at.

Textured shapes move over a textured ground and hide one another; the class of a pixel is the shape
in front there. Now and then a frame shows nothing of the scene while its mask stays. A small
network learns to name the shapes, and is then used on video files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from spikevideoformer.data.specs import Augmentation
from spikevideoformer.demo.driver import Driver
from spikevideoformer.demo.report import share
from spikevideoformer.inference.document import picture, player
from spikevideoformer.synth.moving_shapes import SIZE, write_scene_video, write_scenes
from spikevideoformer.tasks.segmentation.metrics import SegmentationResult
from spikevideoformer.tasks.segmentation.predictor import VideoSegmenter
from spikevideoformer.training import SegmentationOptions, TrainConfig


@dataclass(frozen=True, kw_only=True)
class Demo(Driver):
    """Scenes of moving shapes.

    Args:
        train_clips: to make and train on.
        val_clips: to make and measure on.
        videos: further clips to try the network on, as video files.
    """

    train_clips: int = 400
    val_clips: int = 60
    training: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            out=Path("run"),
            task="segmentation",
            model="svf_nano",
            frames=4,
            size=SIZE,
            epochs=7,
            batch_size=8,
            learning_rate=4e-3,
            warmup_epochs=0.5,
            label_smoothing=0.0,
            augmentation=Augmentation(flip=0.5, brightness=0.2, contrast=0.2, saturation=0.2),
            options=SegmentationOptions(
                scale=(1.0, 1.0), one_class=1.0, class_weights="inverse_log"
            ),
            check="none",  # the clips were written a moment ago
            cache=True,
            workers=0,
        )
    )
    videos: int = 4

    title: ClassVar[str] = "SpikeVideoFormer demo: segmentation"
    making: ClassVar[str] = "making clips with masks"
    clips: ClassVar[str] = "scenes"

    def make(self, clips: Path) -> None:
        write_scenes(clips, train=self.train_clips, val=self.val_clips, seed=self.seed)

    def use(self, out: Path, config: TrainConfig) -> list[Path]:
        """On video files of scenes that neither split holds."""
        segmenter = VideoSegmenter.from_pretrained(out / "run" / "model", device="cpu")
        folder = out / "predictions"
        folder.mkdir(exist_ok=True)
        written = []
        for i in range(self.videos):
            clip, target = folder / f"scene{i}.mp4", folder / f"scene{i}.masks.mp4"
            write_scene_video(clip, seed=self.seed * 1_000_000 + 900_000 + i)
            segmenter.write(clip, target)
            written.append(target)
        return written

    def told(self, out: Path, evaluation: SegmentationResult, used: list[Path]) -> dict[str, str]:
        return {
            "network": f"mIoU {evaluation.miou:6.1%}, pixel accuracy "
            f"{evaluation.pixel_accuracy:.1%} of {evaluation.frames} validation frames",
            "ground everywhere": f"mIoU {_ground_everywhere(evaluation):6.1%}",
            "video with masks": str(used[0]),
        }

    def page(self, out: Path, evaluation: SegmentationResult, used: list[Path]) -> dict[str, Any]:
        rows = [
            ("mean", share(evaluation.miou), ""),
            *(
                (name, share(iou), share(pixels / evaluation.pixels))
                for name, iou, pixels in zip(
                    evaluation.classes, evaluation.class_iou, evaluation.class_pixels, strict=True
                )
            ),
        ]
        return {
            "clips": self.train_clips,
            "head": [f"{evaluation.frames} validation frames", "IoU", "share of pixels"],
            "rows": rows,
            "ground_everywhere": share(_ground_everywhere(evaluation)),
            "contact_sheet": picture(
                out / "run" / "contact_sheet.png", "Frames of validation clips"
            ),
            "videos": [player(path, path.name) for path in used],
        }


def _ground_everywhere(result: SegmentationResult) -> float:
    """The mIoU of naming every pixel the most frequent class."""
    return max(result.class_pixels) / result.pixels / len(result.classes)
