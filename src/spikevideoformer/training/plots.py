"""Learning curves and the confusion matrix as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from spikevideoformer.figures import axis_from_zero, epoch_axis, legend_above
from spikevideoformer.files import save_figure

_SPOKEN = {
    "top1": "top-1",
    "top5": "top-5",
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "pck_3d": "joints within 150 mm",
}


def spoken(metric: str) -> str:
    """A metric as people write it."""
    return _SPOKEN.get(metric, metric.replace("_", " "))


def plot_learning_curves(
    history: Sequence[Mapping[str, float]],
    measure: str,
    watched: Sequence[str],
    path: Path,
    *,
    loss_unit: str = "nats",
) -> None:
    """Draw the loss and the metrics over the epochs.

    Args:
        history: the rows of metrics.csv.
        measure: the metric that is counted in training.
        watched: the metrics of validation, of which the first is drawn, and those that are counted
            in training too.
        path: the PNG to write.
        loss_unit: empty where it has none.
    """
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, shares = figure.subplots(1, 2)
    for split, colour in (("train", "tab:blue"), ("val", "tab:orange")):
        values = [row[f"{split}_loss"] for row in history]
        losses.plot(epochs, values, marker=".", color=colour, label=split)
    curves = [("train", measure, "tab:blue"), ("val", watched[0], "tab:orange")]
    alone = measure == watched[0]
    if measure in watched and not alone:
        curves.insert(1, ("val", measure, "tab:green"))
    for split, metric, colour in curves:
        values = [row[f"{split}_{metric}"] for row in history]
        label = split if alone else f"{split} {spoken(metric)}"
        shares.plot(epochs, values, marker=".", color=colour, label=label)
    losses.set(ylabel=f"loss ({loss_unit})" if loss_unit else "loss")
    axis_from_zero(losses)
    shares.set(ylabel=spoken(measure) if alone else "share", ylim=(0, 1))
    for panel in (losses, shares):
        panel.grid(alpha=0.3)
        epoch_axis(panel, len(epochs))
        legend_above(panel)
    save_figure(figure, path)
