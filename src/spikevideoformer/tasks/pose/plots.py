"""Errors of poses as PNG files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spikevideoformer.figures import axis_from_zero, epoch_axis, legend_above
from spikevideoformer.files import save_figure
from spikevideoformer.tasks.pose.metrics import PoseResult, PoseScores


def plot_errors(
    result: PoseResult, path: Path, history: Sequence[Mapping[str, float]] = ()
) -> None:
    """Draw the errors of each joint and each action, and over the epochs of a run.

    What is not known has no bar.

    Args:
        result: an evaluation.
        path: the PNG to write.
        history: the rows of metrics.csv; none for an evaluation alone.
    """
    panels = [("joint", result.joints), ("action", result.actions)]
    height = 1.2 + 0.2 * max(len(scores) for _, scores in panels)
    figure = Figure(figsize=(4.6 * (2 + bool(history)), max(3.6, height)), layout="constrained")
    axes = figure.subplots(1, 2 + bool(history), squeeze=False)[0]
    for panel, (what, scores) in zip(axes, panels, strict=False):
        panel.set_title(f"by {what}")
        _bars(panel, scores)
    if history:
        epochs = [row["epoch"] for row in history]
        for name, label in (("mpjpe_mm", "MPJPE"), ("pa_mpjpe_mm", "PA-MPJPE")):
            axes[2].plot(epochs, [row[f"val_{name}"] for row in history], marker=".", label=label)
        axes[2].set(ylabel="mm", title="validation")
        axes[2].grid(alpha=0.3)
        axis_from_zero(axes[2])
        epoch_axis(axes[2], len(epochs))
        legend_above(axes[2])
    save_figure(figure, path)


def _bars(panel: Axes, scores: Mapping[str, PoseScores]) -> None:
    places = range(len(scores))
    for shift, attribute, label in ((-0.2, "mpjpe_mm", "MPJPE"), (0.2, "pa_mpjpe_mm", "PA-MPJPE")):
        known = [getattr(score, attribute) for score in scores.values()]
        values = [math.nan if value is None else value for value in known]
        panel.barh([place + shift for place in places], values, height=0.4, label=label)
    panel.set_yticks(list(places), list(scores))
    panel.set(xlabel="mm")
    panel.invert_yaxis()
    panel.grid(alpha=0.3, axis="x")
    legend_above(panel)
