"""Legends cover nothing, in every picture that has one; axes end where values can."""

from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from spikevideoformer.bench.plots import plot_growth as plot_bench
from spikevideoformer.bench.results import Measurement
from spikevideoformer.energy.growth import attention_growth, plot_growth
from spikevideoformer.figures import axis_from_zero, epoch_axis, legend_above
from spikevideoformer.models.config import PRESETS
from spikevideoformer.theory import plots as theory
from spikevideoformer.theory.projections import measure_errors, measure_order
from spikevideoformer.training.plots import plot_learning_curves

ERRORS = measure_errors((8, 64, 512), pairs=100)
ORDERS = measure_order((8, 64), (0.5, 0.2), queries=4, keys=20)
SHARES = ("train_pixel_accuracy", "val_miou", "val_pixel_accuracy")
EPOCHS = [
    {"epoch": i, "train_loss": 2.0, "val_loss": 2.1, **dict.fromkeys(SHARES, 1.0)} for i in (1, 2)
]
CLIPS = {"8": 1.0, "16": 2.0}
BENCH = [
    Measurement(
        row="clip_scaling",
        work="growth",
        against="SpikingJelly",
        why_not="of no matter here",
        details={"axis": "T", "side": side, "seconds_per_frame": CLIPS, "peak_mib": CLIPS},
    )
    for side in ("ours", "SpikingJelly")
]

DRAWN: dict[str, Callable[[Path], object]] = {
    "learning curves": lambda path: plot_learning_curves(
        EPOCHS, "pixel_accuracy", ("miou", "pixel_accuracy"), path
    ),
    "growth": lambda path: plot_growth(attention_growth(PRESETS["svf_nano"]), path),
    "benchmark": lambda path: plot_bench(BENCH, "T", path),
    "errors": lambda path: theory.plot_errors(ERRORS, path),
    "tail": lambda path: theory.plot_tail(ERRORS, path),
    "orders": lambda path: theory.plot_orders(ORDERS, path),
}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is written as PNG."""
    written: list[Figure] = []
    write = FigureCanvasAgg.print_png

    def note(canvas: FigureCanvasAgg, *args: object, **options: object) -> None:
        write(canvas, *args, **options)
        written.append(canvas.figure)

    monkeypatch.setattr(FigureCanvasAgg, "print_png", note)
    return written


@pytest.mark.parametrize("name", DRAWN)
def test_no_legend_covers_data(name: str, figures: list[Figure], tmp_path: Path) -> None:
    DRAWN[name](tmp_path / "picture.png")
    (figure,) = figures
    legends = figure.findobj(Legend)
    assert legends
    for legend in legends:
        box = legend.get_window_extent()
        assert not any(box.overlaps(panel.bbox) for panel in figure.axes)
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height


def test_shares_end_at_one_and_losses_begin_at_zero(figures: list[Figure], tmp_path: Path) -> None:
    DRAWN["learning curves"](tmp_path / "curves.png")
    losses, shares = figures[0].axes
    assert shares.get_ylim() == (0, 1)
    assert losses.get_ylim()[0] == 0
    assert 2.1 < losses.get_ylim()[1] < 2.5
    assert losses.get_xlim() == shares.get_xlim() == (1, 2)


def test_a_title_goes_over_the_legend() -> None:
    panel = Figure().subplots()
    panel.plot([1], [3.0], label="a")
    panel.set_title("title")
    legend = legend_above(panel, 3)
    assert legend.get_title().get_text() == "title"
    assert panel.get_title() == ""
    epoch_axis(panel, 1)
    assert panel.get_xlim() == (1, 2)
    axis_from_zero(panel)
    assert panel.get_ylim()[0] == 0
