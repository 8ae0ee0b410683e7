"""Contact sheets and the IoU of classes as pictures."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from spikevideoformer.tasks.segmentation.metrics import SegmentationMetrics
from spikevideoformer.tasks.segmentation.plots import SHOWN, ContactSheet, plot_iou
from spikevideoformer.tasks.segmentation.sequence import IGNORED

PALETTE = ((0, 0, 0), (255, 0, 0))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "scene" / "images" / "0.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(path)
    return path


def sheet_of(total: int, picture: Path, label: int = 1) -> ContactSheet:
    sheet = ContactSheet(PALETTE, ("ground", "car"))
    labels = torch.full((8, 8), label, dtype=torch.uint8)
    for number in range(total):
        sheet.offer(
            SimpleNamespace(
                number=number,
                total=total,
                image=picture,
                labels=labels,
                predicted=torch.ones(8, 8, dtype=torch.uint8),
            )
        )
    return sheet


@pytest.mark.parametrize("total", [1, 2, 5, 6, 7, 101, 960])
def test_a_few_frames_spread_over_all(total, picture):
    numbers = [frame.number for frame in sheet_of(total, picture)._frames]
    assert len(numbers) == min(SHOWN, total)
    if total > SHOWN:
        gaps = np.diff(numbers)
        assert gaps.max() - gaps.min() <= 1


def test_a_sheet_is_a_picture(picture, tmp_path):
    sheet_of(3, picture).write(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        image.verify()


def test_a_frame_without_a_labelled_pixel(picture, tmp_path):
    sheet_of(1, picture, label=IGNORED).write(tmp_path / "sheet.png")  # warnings are errors
    assert (tmp_path / "sheet.png").exists()


def test_no_frame_no_sheet(picture, tmp_path):
    sheet_of(0, picture).write(tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


def test_iou_with_a_class_that_is_absent(tmp_path):
    metrics = SegmentationMetrics(("ground", "car", "bus"))
    metrics.update(torch.tensor([[0, 1]]), torch.tensor([[0, 0]]))
    plot_iou(metrics.compute(), (*PALETTE, (0, 0, 255)), tmp_path / "iou.png")
    with Image.open(tmp_path / "iou.png") as image:
        image.verify()
