"""Pictures: what is drawn is what was measured, and every word lies inside."""

from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from spikevideoformer.theory import plots
from spikevideoformer.theory.collision import find_collision
from spikevideoformer.theory.network import LayerOrder, NetworkOrder
from spikevideoformer.theory.projections import measure_errors, measure_order

ERRORS = measure_errors((8, 64, 512), pairs=100)
ORDERS = measure_order((8, 64), (0.5, 0.2), queries=4, keys=20)
NETWORK = NetworkOrder(
    model="model",
    attention="hamming",
    videos=("a.mp4",),
    layers=tuple(
        LayerOrder(
            layer=f"blocks.{i}",
            axes="space_time",
            width=32,
            levels=1,
            queries=10,
            q_firing_rate=0.1 + 0.1 * i,
            k_firing_rate=0.2,
            hamming=0.5 - 0.3 * i,
            dot=0.4,
            hamming_undecided=0.0,
            dot_undecided=0.1,
            hamming_decided=0.5 if i else None,
            dot_decided=0.45 if i else None,
        )
        for i in range(3)
    ),
)

DRAWN: dict[str, Callable[[Path], None]] = {
    "errors": lambda path: plots.plot_errors(ERRORS, path),
    "tail": lambda path: plots.plot_tail(ERRORS, path),
    "orders": lambda path: plots.plot_orders(ORDERS, path),
    "collision": lambda path: plots.plot_collision(find_collision(), path),
    "network": lambda path: plots.plot_network(NETWORK, path),
}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is saved."""
    saved: list[Figure] = []
    save = plots.save_figure

    def note(figure: Figure, path: Path) -> None:
        saved.append(figure)
        save(figure, path)

    monkeypatch.setattr(plots, "save_figure", note)
    return saved


@pytest.mark.parametrize("name", DRAWN)
def test_words_lie_inside_the_picture(name: str, figures: list[Figure], tmp_path: Path) -> None:
    DRAWN[name](tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    (figure,) = figures
    renderer = FigureCanvasAgg(figure).get_renderer()
    width, height = figure.canvas.get_width_height()
    words = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text()]
    assert words
    for panel in figure.axes:
        box = panel.get_tightbbox(renderer)
        assert box.x0 >= -1 and box.y0 >= -1
        assert box.x1 <= width + 1 and box.y1 <= height + 1


def test_values_are_those_measured(figures: list[Figure], tmp_path: Path) -> None:
    for draw in DRAWN.values():
        draw(tmp_path / "picture.png")
    errors, _, orders, collision, network = figures
    drawn = {line.get_label(): list(line.get_ydata()) for line in errors.axes[0].lines}
    assert drawn["mean"] == [e.mean for e in ERRORS]
    assert drawn["95 % below"] == [e.quantile_95 for e in ERRORS]
    for panel, rate in zip(orders.axes, (0.5, 0.2), strict=True):
        row = [o for o in ORDERS if o.firing_rate == rate]
        assert [list(line.get_ydata()) for line in panel.lines] == [
            [o.hamming for o in row],
            [o.dot for o in row],
        ]
    filled = [p for p in collision.axes[0].patches if p.get_facecolor()[:3] != (1, 1, 1)]
    found = find_collision()
    assert len(filled) == sum(map(sum, (found.query, *found.keys)))
    heights = [bar.get_height() for bar in network.axes[0].patches]
    assert heights == pytest.approx([x.hamming for x in NETWORK.layers] + [0.4] * 3)
