"""``svf demo --task segmentation``: masks of moving shapes, with a report to look at.

Textured shapes move over a textured ground and hide one another; the class of a pixel is the shape
in front there. Now and then a frame shows nothing of the scene while its mask stays. A small
network learns to name the shapes, and is then used on video files.
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
from spikevideoformer.inference.segmenter import VideoSegmenter
from spikevideoformer.synth.moving_shapes import SIZE, write_scene_video, write_scenes
from spikevideoformer.tasks.segmentation.metrics import SegmentationResult
from spikevideoformer.training import SegmentationOptions, TrainConfig, train


@dataclass(frozen=True, kw_only=True)
class SegmentationRecipe:
    """What the demo makes and how it trains.

    Args:
        train_clips: to make and train on.
        val_clips: to make and measure on.
        training: of the network; folders are filled in.
        videos: further clips to try the network on, as video files.
        seed: of the clips.
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
            segmentation=SegmentationOptions(
                scale=(1.0, 1.0), one_class=1.0, class_weights="inverse_log"
            ),
            check="none",  # the clips were written a moment ago
            cache=True,
            workers=0,
        )
    )
    videos: int = 4
    seed: int = 0


def run_segmentation_demo(
    out: Path,
    *,
    recipe: SegmentationRecipe = SegmentationRecipe(),
    tell: Callable[[str], None],
) -> str:
    """Make clips with masks, train, measure, predict, and write a report.

    What is already there from an earlier, interrupted demo is not done again.

    Args:
        out: an existing folder; gets scenes/, run/, predictions/ and report.html.
        recipe: sizes and settings.
        tell: called with a line on each thing that begins or is done.

    Returns:
        The outcome in a few lines of text.

    Raises:
        ValueError: `out` holds a demo with another recipe.
    """
    begin_s = time.monotonic()
    scenes = out / "scenes"
    made = out / "scenes.done"
    with stage(tell, "1/4 making clips with masks"):
        if not made.exists():
            write_scenes(scenes, train=recipe.train_clips, val=recipe.val_clips, seed=recipe.seed)
            write_text(made, "all clips are whole\n")
    with stage(tell, "2/4 training"):
        config = replace(recipe.training, data=scenes, out=out / "run")
        evaluation = train(config, resume=True).evaluation
        assert isinstance(evaluation, SegmentationResult)
    with stage(tell, "3/4 predicting on video files"):
        videos = _predict(recipe, out)
    with stage(tell, "4/4 writing the report"):
        minutes = (time.monotonic() - begin_s) / 60
        write_text(out / "report.html", _report(recipe, out, evaluation, videos, minutes))
    return "\n".join(
        [
            f"network:           mIoU {evaluation.miou:6.1%}, pixel accuracy "
            f"{evaluation.pixel_accuracy:.1%} of {evaluation.frames} validation frames",
            f"ground everywhere: mIoU {_ground_everywhere(evaluation):6.1%}",
            f"video with masks:  {videos[0]}",
            f"model:             {out / 'run' / 'model'}",
            f"report:            {out / 'report.html'}",
            f"total time:        {minutes:.1f} min",
        ]
    )


def _ground_everywhere(result: SegmentationResult) -> float:
    """The mIoU of naming every pixel the most frequent class."""
    return max(result.class_pixels) / result.pixels / len(result.classes)


def _predict(recipe: SegmentationRecipe, out: Path) -> list[Path]:
    """Use the network on video files of scenes that neither split holds."""
    segmenter = VideoSegmenter.from_pretrained(out / "run" / "model", device="cpu")
    folder = out / "predictions"
    folder.mkdir(exist_ok=True)
    written = []
    for i in range(recipe.videos):
        clip = folder / f"scene{i}.mp4"
        write_scene_video(clip, seed=recipe.seed * 1_000_000 + 900_000 + i)
        target = folder / f"scene{i}.masks.mp4"
        segmenter.write(clip, target)
        written.append(target)
    return written


def _report(
    recipe: SegmentationRecipe,
    out: Path,
    result: SegmentationResult,
    videos: list[Path],
    minutes: float,
) -> str:
    """One HTML page with pictures and videos inside it."""
    rows = [
        ("mean", share(result.miou), ""),
        *(
            (name, share(iou), share(pixels / result.pixels))
            for name, iou, pixels in zip(
                result.classes, result.class_iou, result.class_pixels, strict=True
            )
        ),
    ]
    players = "".join(player(path, path.name) for path in videos)
    parts = [
        """<p>A small spiking network learned to name the shape at every pixel of every frame, from
clips that were made for this demo. Colours and textures do not tell one shape from another. One
frame in ten is hidden: what is there then can only be remembered.</p>""",
        table([f"{result.frames} validation frames", "IoU", "share of pixels"], rows),
        "<p>IoU is the area where prediction and label agree over the area that either has. Naming "
        f"every pixel ground would have a mean IoU of {_ground_everywhere(result):.1%}.</p>",
        "<h2>Predictions beside labels</h2>",
        picture(out / "run" / "contact_sheet.png", "Frames of validation clips"),
        "<h2>Training</h2>",
        learning_curves(out / "run", recipe.train_clips),
        f'<h2>Video files with masks</h2><div class="videos">{players}</div>',
        next_commands(out / "run" / "model", out / "run"),
        f"<p>Made in {minutes:.1f} minutes.</p>",
    ]
    return document("SpikeVideoFormer demo: segmentation", parts)
