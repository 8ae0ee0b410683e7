"""What memory is worth: masks of frames that show nothing, joint against spatial-only design.

    python benchmarks/hidden_frames.py --out runs/hidden

makes the scenes of the segmentation demo with a quarter of the frames hidden, trains the demo's
network in both designs, and prints the mIoU of hidden and of shown validation frames. What is done
already in --out is not done again.
"""

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from spikevideoformer.files import write_text
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.synth.moving_shapes import render_scene, write_scenes
from spikevideoformer.tasks.segmentation.dataset import SegmentationDataset
from spikevideoformer.tasks.segmentation.demo import Demo
from spikevideoformer.tasks.segmentation.index import read_sequences
from spikevideoformer.tasks.segmentation.metrics import SegmentationMetrics
from spikevideoformer.tasks.segmentation.plots import JudgedFrame
from spikevideoformer.training import TrainConfig, evaluate_segmentation, train

DROPOUT = 0.25


def judged(config: TrainConfig) -> dict[str, SegmentationMetrics]:
    """Metrics of hidden and of shown validation frames."""
    result = train(config, resume=True)
    model = SpikeVideoFormer.from_pretrained(result.model)
    assert config.data is not None
    index = read_sequences(config.data, split="val")
    metrics = {kind: SegmentationMetrics(index.classes) for kind in ("hidden", "shown")}
    hidden: dict[str, np.ndarray] = {}

    def count(frame: JudgedFrame) -> None:
        scene, number = frame.image.parts[-3], int(frame.image.stem)
        if scene not in hidden:  # hiding frames changes nothing of the others
            seen, all_shown = (render_scene(int(scene), dropout=d)[0] for d in (DROPOUT, 0.0))
            hidden[scene] = (seen != all_shown).any(axis=(1, 2, 3))
        kind = "hidden" if hidden[scene][number] else "shown"
        metrics[kind].update(frame.predicted, frame.labels)

    evaluate_segmentation(model, SegmentationDataset(index, config.spec), after_frame=count)
    return metrics


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/hidden"))
    out = parser.parse_args().out
    recipe = Demo()
    scenes = out / "scenes"
    if not (out / "scenes.done").exists():
        write_scenes(
            scenes,
            train=recipe.train_clips,
            val=recipe.val_clips,
            seed=recipe.seed,
            dropout=DROPOUT,
        )
        write_text(out / "scenes.done", "whole\n")
    print("| design | hidden frames: mIoU | shown frames: mIoU |\n|---|---|---|")
    for design in ("joint", "spatial_only"):
        config = replace(recipe.training, data=scenes, out=out / design, design=design)
        config.out.mkdir(parents=True, exist_ok=True)
        results = {kind: metrics.compute() for kind, metrics in judged(config).items()}
        cells = [f"{results[k].miou:.1%} of {results[k].frames}" for k in ("hidden", "shown")]
        print(f"| {design} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
