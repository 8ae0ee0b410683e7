"""From runs to the person mask that is released: python release.py RUN [RUN ...] (see README.md).

The weights of the runs' released models are averaged (runs that began from each other's weights
lie close enough for that; alone one is taken as it is), the statistics of batch norms are measured
over training clips, and the bias of "person" is moved to where the IoU of people in rendered
validation clips is highest while at most --empty of the pixels of clips without people are called
person; then it learns what its training clips are like. Real recordings have no say in any of it.

Source: Wortsman et al., "Model soups", 2022.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from judge import masks_of
from PIL import Image
from real import iou

import spikevideoformer as svf
from spikevideoformer.nn.statistics import measure_statistics
from spikevideoformer.settings import read_yaml
from spikevideoformer.training import TrainConfig
from spikevideoformer.training.devices import launch

SHIFTS = np.arange(-1.0, 2.01, 0.25)
CLIPS, BATCH = 512, 16  # over which statistics are measured


def averaged(runs: list[Path]) -> svf.SpikeVideoFormer:
    """The last run's network with the mean of all weights and statistics."""
    models = [svf.SpikeVideoFormer.from_pretrained(run / "model") for run in runs]
    states = [model.state_dict() for model in models]
    mean = {
        name: sum(state[name] for state in states) / len(states)
        if value.is_floating_point()
        else value
        for name, value in states[-1].items()
    }
    models[-1].load_state_dict(mean)
    return models[-1]


def training_of(run: Path, data: Path) -> Any:
    """The data of a run, as it saw them."""
    config = TrainConfig.from_dict(read_yaml(run / "config.yaml"))
    config = replace(config, data=data, check="none", workers=0, cache="off")
    fabric = launch(device="cpu", devices=1, precision="32-true")
    return config.of_task.training()(config, None, fabric)


def measured(model: svf.SpikeVideoFormer, training: Any) -> None:
    """Give its batch norms the statistics of training clips, varied as in training."""
    order = torch.randperm(training.clips, generator=torch.Generator().manual_seed(0)).tolist()
    keys = [[(0, i) for i in order[a : a + BATCH]] for a in range(0, CLIPS, BATCH)]
    model.train()
    measure_statistics(
        model, (batch.video for batch in training.batches(keys, torch.device("cpu")))
    )
    model.eval()


def rendered(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """A picture of each rendered clip, and where people are in it."""
    found = []
    for labels in sorted(folder.glob("[0-9]*/labels.npz")):
        pictures = sorted(labels.parent.glob("*.jpg"))
        middle = len(pictures) // 2
        with np.load(labels) as file:
            people = file["people"][middle] > 0
        found.append((np.array(Image.open(pictures[middle]).convert("RGB")), people))
    return found


def shifted(model: svf.SpikeVideoFormer, clips: list, most: float) -> tuple[float, float, float]:
    """Move the bias of "person"; returns by how much, IoU of people and share in empty clips."""
    bias, person = model.head.fc.bias, model.classes.index("person")
    start, best = float(bias[person].detach()), None
    for shift in SHIFTS:
        with torch.no_grad():
            bias[person] = start + float(shift)
        segmenter = svf.VideoSegmenter(model)
        said = [(masks_of(segmenter, picture), people) for picture, people in clips]
        empty = float(np.mean([mine.mean() for mine, people in said if not people.any()]))
        score = iou([pair for pair in said if pair[1].any()])
        if empty <= most and (best is None or score > best[1]):
            best = float(shift), score, empty
    if best is None:
        raise SystemExit(f"at every bias more than {most:.1%} of empty clips is called person")
    with torch.no_grad():
        bias[person] = start + best[0]
    return best


def main() -> None:
    """Read the options and do it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders; the last has the recipe")
    parser.add_argument("--data", type=Path, required=True, help="what they were trained on")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--empty", type=float, default=0.01)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = averaged(options.runs)
    training = training_of(options.runs[-1], options.data)
    measured(model, training)
    shift, score, empty = shifted(model, rendered(options.data / "val"), options.empty)
    print(f"bias moved by {shift:+.1f}: rendered people {score:.3f}, {empty:.2%} of empty clips")
    print(training.calibrate(model))
    model.save_pretrained(options.out, classes=list(model.classes), clip=model.clip)


if __name__ == "__main__":
    main()
