"""Errors of joints and actions as pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from spikevideoformer.tasks.pose import plots
from spikevideoformer.tasks.pose.metrics import PoseMetrics, PoseResult
from spikevideoformer.tasks.pose.plots import plot_errors

JOINTS = ("root", "left_hip", "right_hip", "head")


def result_of(*, lost: str = "") -> PoseResult:
    """Of two actions; a joint of the truth may be labelled nowhere."""
    metrics = PoseMetrics(
        JOINTS,
        root="root",
        hips=("left_hip", "right_hip"),
        actions=("walk", "jump", "sit"),
        frame_rate_hz=10.0,
    )
    for action in ("walk", "jump"):
        metrics.start_sequence(action)
        truth = torch.randn(4, 4, 3)
        predicted = truth + 0.1 * torch.randn(4, 4, 3)
        if lost:
            truth[:, JOINTS.index(lost)] = torch.nan
        metrics.add_frames(predicted, truth)
    return metrics.compute()


def rows(*mpjpe_mm: float) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "val_mpjpe_mm": value, "val_pa_mpjpe_mm": 100.0 / epoch}
        for epoch, value in enumerate(mpjpe_mm, start=1)
    ]


def drawn(
    result: PoseResult, monkeypatch: pytest.MonkeyPatch, history: list[dict[str, float]]
) -> Figure:
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    plot_errors(result, Path("errors.png"), history)
    return figures[0]


@pytest.mark.parametrize("lost", ["", "head", "root"])
def test_a_picture_is_written(lost: str, tmp_path: Path) -> None:
    """Without a root in any frame there is no MPJPE at all; warnings are errors."""
    result = result_of(lost=lost)
    assert (result.overall.mpjpe_mm is None) == (lost == "root")
    widths = []
    mpjpe_mm = float("nan") if lost == "root" else 80.0
    for name, history in (("alone.png", []), ("run.png", rows(mpjpe_mm, mpjpe_mm))):
        plot_errors(result, tmp_path / name, history)
        with Image.open(tmp_path / name) as picture:
            picture.verify()
            widths.append(picture.width)
    assert widths[1] > 1.3 * widths[0]  # a panel more
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone.png", "run.png"]


def test_bars_are_the_errors_and_what_is_not_known_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = result_of(lost="head")
    joints, actions = drawn(result, monkeypatch, []).axes
    for panel, scores in ((joints, result.joints), (actions, result.actions)):
        assert [label.get_text() for label in panel.get_yticklabels()] == list(scores)
        widths = [bar.get_width() for bar in panel.patches]
        expected = [s.mpjpe_mm for s in scores.values()] + [s.pa_mpjpe_mm for s in scores.values()]
        assert None in expected  # the head, and the action that does not occur
        np.testing.assert_allclose(widths, np.array(expected, float))


def test_curves_go_over_the_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = drawn(result_of(), monkeypatch, rows(90.0, float("nan"), 70.0))
    mpjpe, pa_mpjpe = figure.axes[2].lines
    assert mpjpe.get_xdata().tolist() == [1, 2, 3]
    np.testing.assert_array_equal(mpjpe.get_ydata(), [90, np.nan, 70])
    np.testing.assert_allclose(pa_mpjpe.get_ydata(), [100, 50, 100 / 3])
