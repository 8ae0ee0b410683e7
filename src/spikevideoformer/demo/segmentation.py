"""``svf demo --task segmentation``: masks of moving shapes, with a report to look at.

Textured shapes move over a textured ground and hide one another; the class of a pixel is the shape
in front there. Now and then a frame shows nothing of the scene while its mask stays. The same small
network learns this twice: in the joint space-time design, which can remember what it saw, and in
the spatial-only design, which sees each frame alone.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from spikevideoformer.data.moving_shapes import SIZE, write_scene_video, write_scenes
from spikevideoformer.data.transforms import Augmentation
from spikevideoformer.demo.report import picture, share, stage
from spikevideoformer.files import write_text
from spikevideoformer.inference.overlay import write_segmentation
from spikevideoformer.inference.page import STYLE, inline
from spikevideoformer.inference.segmenter import VideoSegmenter
from spikevideoformer.tasks.segmentation import SegmentationResult
from spikevideoformer.training import SegmentationOptions, TrainConfig, train


@dataclass(frozen=True, kw_only=True)
class SegmentationRecipe:
    """What the demo makes and how it trains.

    Args:
        train_clips: to make and train on.
        val_clips: to make and measure on.
        training: of both networks; folders and design are filled in.
        videos: further clips to try the joint network on, as video files.
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
    """Make clips with masks, train two designs, measure both, predict, and write a report.

    What is already there from an earlier, interrupted demo is not done again.

    Args:
        out: an existing folder; gets scenes/, joint/ and spatial_only/ (run folders), predictions/
            and report.html.
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
    with stage(tell, "1/5 making clips with masks"):
        if not made.exists():
            write_scenes(scenes, train=recipe.train_clips, val=recipe.val_clips, seed=recipe.seed)
            write_text(made, "all clips are whole\n")
    with stage(tell, "2/5 training the joint space-time design"):
        joint = _train(recipe.training, scenes, out, "joint")
    with stage(tell, "3/5 training the spatial-only design, for comparison"):
        spatial = _train(recipe.training, scenes, out, "spatial_only")
    with stage(tell, "4/5 predicting on video files"):
        videos = _predict(recipe, out)
    with stage(tell, "5/5 writing the report"):
        minutes = (time.monotonic() - begin_s) / 60
        write_text(out / "report.html", _report(out, joint, spatial, videos, minutes))
    return "\n".join(
        [
            f"joint space-time design:  mIoU {joint.miou:6.1%} of {joint.frames} validation frames",
            f"spatial-only design:      mIoU {spatial.miou:6.1%}",
            f"ground everywhere:        mIoU {_ground_everywhere(joint):6.1%}",
            f"video with masks: {videos[0]}",
            f"model:            {out / 'joint' / 'model'}",
            f"report:           {out / 'report.html'}",
            f"total time:       {minutes:.1f} min",
        ]
    )


def _train(
    recipe: TrainConfig, scenes: Path, out: Path, design: Literal["joint", "spatial_only"]
) -> SegmentationResult:
    config = replace(recipe, data=scenes, out=out / design, design=design)
    evaluation = train(config, resume=True).evaluation
    assert isinstance(evaluation, SegmentationResult)
    return evaluation


def _ground_everywhere(result: SegmentationResult) -> float:
    """The mIoU of naming every pixel the most frequent class."""
    return max(result.class_pixels) / result.pixels / len(result.classes)


def _predict(recipe: SegmentationRecipe, out: Path) -> list[Path]:
    """Use the joint network on video files of scenes that neither split holds."""
    segmenter = VideoSegmenter.from_pretrained(out / "joint" / "model", device="cpu")
    folder = out / "predictions"
    folder.mkdir(exist_ok=True)
    written = []
    for i in range(recipe.videos):
        clip = folder / f"scene{i}.mp4"
        write_scene_video(clip, seed=recipe.seed * 1_000_000 + 900_000 + i)
        target = folder / f"scene{i}.masks.mp4"
        write_segmentation(clip, segmenter, target)
        written.append(target)
    return written


def _report(
    out: Path,
    joint: SegmentationResult,
    spatial: SegmentationResult,
    videos: list[Path],
    minutes: float,
) -> str:
    """One HTML page with pictures and videos inside it."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td>{share(a)}{share(b)}{share(n / joint.pixels)}</tr>"
        for name, a, b, n in zip(
            joint.classes, joint.class_iou, spatial.class_iou, joint.class_pixels, strict=True
        )
    )
    sheets = picture(out / "joint" / "contact_sheet.png", "Joint: predictions beside labels")
    curves = "".join(
        picture(out / design / "learning_curves.png", f"{title}: learning curves")
        for design, title in (("joint", "Joint"), ("spatial_only", "Spatial only"))
    )
    players = "".join(_video(path) for path in videos)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>SpikeVideoFormer demo: segmentation</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style>
<h1>SpikeVideoFormer demo: segmentation</h1>
<p>A small spiking network learned to name the shape at every pixel of every frame, from clips that
were made for this demo. Colours and textures say nothing of the shape, and one frame in four is
hidden: what is there then must be remembered. The spatial-only design sees each frame alone.</p>
<table>
<tr><th>IoU, {joint.frames} validation frames</th><th>joint space-time</th><th>spatial only</th>
<th>share of pixels</th></tr>
<tr><td><b>mean</b></td>{share(joint.miou)}{share(spatial.miou)}<td></td></tr>
{rows}</table>
<h2>Predictions beside labels</h2><div class="row">{sheets}</div>
<h2>Training</h2><div class="row">{curves}</div>
<h2>Video files with masks</h2><div class="row">{players}</div>
<p>Made in {minutes:.1f} minutes. The trained model is the folder
<code>{html.escape(str(out / "joint" / "model"))}</code>.</p></html>
"""


def _video(path: Path) -> str:
    source = inline(path.read_bytes(), "video/mp4")
    return (
        f'<figure><video src="{source}" controls loop muted></video>'
        f"<figcaption>{html.escape(path.name)}</figcaption></figure>"
    )
