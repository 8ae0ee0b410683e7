"""What results look like in a notebook: a short line, a drawing that is XML, escaped names."""

import math
import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from spikevideoformer import notebook
from spikevideoformer.nn.neuron import FiringRates
from spikevideoformer.tasks.classification.answer import Label, PredictionResult, WindowPrediction
from spikevideoformer.tasks.classification.metrics import ClassificationResult
from spikevideoformer.tasks.pose.answer import PosePrediction
from spikevideoformer.tasks.pose.metrics import PoseResult, PoseScores
from spikevideoformer.tasks.pose.training import PoseEvaluation
from spikevideoformer.tasks.segmentation.answer import SegmentationPrediction
from spikevideoformer.tasks.segmentation.metrics import SegmentationResult

EVIL = "<script>alert('&')</script>"


def drawings(html: str) -> list[ElementTree.Element]:
    """The pictures in it, which must be XML."""
    found = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    return [ElementTree.fromstring(svg) for svg in found]


def prediction(**changes: object) -> PredictionResult:
    labels = (
        Label(name=EVIL, index=0, probability=0.75),
        Label(name="b", index=1, probability=0.25),
    )
    values = {
        "path": "a.mp4",
        "duration_s": 2.0,
        "labels": labels,
        "windows": (WindowPrediction(start_s=0.0, end_s=2.0, labels=labels),),
        "timestamps_s": (0.0, 1.0),
        "firing_rate": 0.15,
        "firing_rate_per_frame": (0.1, 0.2),
        "engine": "exact",
    }
    return PredictionResult(**(values | changes))  # type: ignore[arg-type]


def segmentation() -> SegmentationPrediction:
    return SegmentationPrediction(
        path=None,
        duration_s=1.0,
        classes=("road", EVIL, "never"),
        masks=None,
        timestamps_s=(0.0, 0.5),
        area=np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]], np.float32),
        mean_area=np.array([0.75, 0.25, 0.0], np.float32),
        firing_rate=0.1,
        firing_rate_per_frame=(0.1, 0.1),
        engine="model",
    )


def pose(joints: float = 1.0) -> PosePrediction:
    return PosePrediction(
        path="a.mp4",
        duration_s=0.1,
        joint_names=("hip", EVIL),
        parents=(-1, 0),
        timestamps_s=(0.0,),
        joints=np.array([[[0, 0, 2], [joints, joints, 2]]], np.float32),
        points=np.zeros((1, 2, 2), np.float32),
        rotations=np.zeros((1, 2, 3, 3), np.float32),
        translation=np.zeros((1, 3), np.float32),
        shape=np.zeros((1, 1), np.float32),
        focal_px=100.0,
        firing_rate=None,
        firing_rate_per_frame=None,
        engine="model",
    )


def scores(error: float | None) -> PoseScores:
    return PoseScores(
        mpjpe_mm=error,
        pa_mpjpe_mm=error,
        pel_mpjpe_mm=None,
        absolute_mpjpe_mm=None,
        pel_pck_3d=None,
        pck_3d=None,
        acceleration_error_mm_per_frame2=None,
        acceleration_error_mm_per_s2=None,
        pck_2d=None,
        pckh=None,
    )


def pose_evaluation() -> PoseEvaluation:
    result = PoseResult(
        frames=3,
        action_frames={"walk": 3},
        overall=scores(12.0),
        joints={"hip": scores(10.0), EVIL: scores(14.0), "tip": scores(None)},
        actions={"walk": scores(12.0)},
    )
    return PoseEvaluation(loss=0.5, result=result)


def rates() -> FiringRates:
    layers = {EVIL: 0.25, "head.neuron": 0.75}
    return FiringRates({name: torch.full((2, 1), rate) for name, rate in layers.items()})


def classification_result() -> ClassificationResult:
    return ClassificationResult(
        clips=4,
        loss=0.5,
        top1=0.75,
        top5=1.0,
        mean_class_accuracy=0.75,
        classes=(EVIL, "b", "empty"),
        class_accuracy=(0.5, 1.0, None),
        confusion=((1, 1, 0), (0, 2, 0), (0, 0, 0)),
    )


def segmentation_result() -> SegmentationResult:
    return SegmentationResult(
        frames=2,
        pixels=8,
        loss=None,
        miou=0.5,
        pixel_accuracy=0.75,
        mean_class_accuracy=0.6,
        classes=(EVIL, "b"),
        class_iou=(0.5, None),
        class_pixels=(8, 0),
        confusion=((6, 2), (0, 0)),
        mvc8=None,
        mvc16=None,
    )


RESULTS: dict[str, tuple[Callable[[], object], str, int]] = {
    "prediction": (
        prediction,
        "alert('&')</script> 75.0%, b 25.0%, 2 frames, 2.00 s, firing rate 0.150",
        2,
    ),
    "segmentation": (segmentation, "None, road 75.0%, <script>", 2),
    "pose": (pose, "PosePrediction('a.mp4', 2 joints, hip on average at 0.00 0.00 2.00 m", 1),
    "rates": (rates, "FiringRates(2 layers, mean 0.500, from 0.250 (", 1),
    "accuracy": (classification_result, "top-1 75.0%, top-5 100.0% of 4 videos, 3 classes", 1),
    "iou": (segmentation_result, "mIoU 50.0%, pixel accuracy 75.0% of 2 frames, 2 classes", 1),
    "errors": (pose_evaluation, "PoseResult(MPJPE 12.0 mm, PA-MPJPE 12.0 mm of 3 frames, 3", 1),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results(name: str) -> None:
    make, words, pictures = RESULTS[name]
    result = make()
    line = repr(result)
    assert words in line
    assert "\n" not in line
    assert len(line) < 300
    html = result._repr_html_()  # type: ignore[attr-defined]
    assert "<script" not in html
    assert len(drawings(html)) == pictures


def test_a_class_name_cannot_break_the_line() -> None:
    label = Label(name="a\nb", index=0, probability=1.0)
    assert "\n" not in repr(prediction(labels=(label,)))


def test_networks_without_spikes_have_no_curve() -> None:
    html = prediction(firing_rate=None, firing_rate_per_frame=None)._repr_html_()
    assert len(drawings(html)) == 1
    assert repr(FiringRates()) == "FiringRates(no neuron has fired in a forward pass)"
    assert drawings(FiringRates()._repr_html_()) == []


def test_a_bar_is_as_long_as_its_value() -> None:
    html = notebook.bars([("a", 1.0), ("b", 0.5), ("c", 0.0)], show="{:.1f}".format)
    (svg,) = drawings(html)
    widths = [float(bar.attrib["width"]) for bar in svg.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[0] > 200
    assert widths == pytest.approx([widths[0], widths[0] / 2, 0.0])
    many = notebook.bars([(str(i), 0.0) for i in range(50)], show=str, caption="all")
    assert "all (and 10 more)" in many


def test_long_videos_make_small_drawings() -> None:
    times = [i / 30 for i in range(100_000)]
    assert len(notebook.curve(times, times, caption="")) < 10_000
    shares = [[0.25, 0.75]] * len(times)
    html = notebook.areas(times, shares, "ab", [(255, 0, 0), (0, 0, 255)], caption="")
    assert len(html) < 20_000
    assert html.count("<polygon") == 2
    assert "#ff0000" in html


def test_one_frame_and_unknown_joints() -> None:
    one = notebook.areas([0.0], [[1.0]], ["a"], [(1, 2, 3)], caption="")
    assert 'points="0.0,0.0 560.0,0.0 560.0,110.0 0.0,110.0"' in one
    assert len(drawings(notebook.curve([0.0], [0.0], caption=""))) == 1
    assert notebook.skeleton([[math.nan, 0.0]], [-1], caption="") == ""
    html = notebook.skeleton([[0, 0], [math.nan, 1], [2, 2]], [-1, 0, 1], caption="")
    assert (html.count("<circle"), html.count("<line")) == (2, 0)
