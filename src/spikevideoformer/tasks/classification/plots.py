"""What there is to look at of a classifier that was evaluated."""

from pathlib import Path

from matplotlib.figure import Figure

from spikevideoformer.files import save_figure
from spikevideoformer.tasks.classification.metrics import ClassificationResult


def plot_confusion(result: ClassificationResult, path: Path) -> None:
    """Draw the confusion matrix: the share of each true class (row) given to each class.

    Names and counts are written only where they can be read (up to 30 classes).

    Args:
        result: an evaluation.
        path: the PNG to write.
    """
    counts = result.confusion
    shares = [[n / max(sum(row), 1) for n in row] for row in counts]
    size = len(counts)
    side = min(max(3.5, 0.5 * size + 2.0), 16.0)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    panel = figure.subplots()
    image = panel.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    figure.colorbar(image, label="share of the true class")
    panel.set(xlabel="predicted", ylabel="true", title=f"top-1 {result.top1:.1%}")
    if size <= 30:
        panel.set_xticks(range(size), result.classes, rotation=60, ha="right")
        panel.set_yticks(range(size), result.classes)
        for i, row in enumerate(counts):
            for j, n in enumerate(row):
                if n:
                    shade = "white" if shares[i][j] > 0.5 else "black"
                    panel.text(j, i, str(n), ha="center", va="center", color=shade, fontsize=8)
    save_figure(figure, path)
