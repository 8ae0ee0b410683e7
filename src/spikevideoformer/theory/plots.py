"""Pictures of Proposition 3.1 as PNG files."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from spikevideoformer.figures import legend_above
from spikevideoformer.files import save_figure
from spikevideoformer.models.config import PRESETS
from spikevideoformer.nn.neuron import layer_name
from spikevideoformer.theory.collision import Collision
from spikevideoformer.theory.network import LayerOrder, NetworkOrder
from spikevideoformer.theory.projections import (
    DELTAS,
    SCALED_DELTAS,
    EmbeddingError,
    Order,
    hoeffding_bound,
    paper_bound,
)

FEW = 5
HAMMING, DOT = "tab:blue", "tab:orange"
HAMMING_NAME, DOT_NAME = r"Hamming similarity $f_H$", r"dot product $q \cdot k$"


def plot_errors(errors: Sequence[EmbeddingError], path: Path) -> None:
    """Draw mean and 95 % quantile of the error against D, and what the bounds allow.

    Args:
        errors: by width.
        path: the PNG to write.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    panel = figure.subplots()
    widths = [e.width for e in errors]
    # the delta that a bound leaves to one pair in twenty: 2 exp(-c delta^2 D) = 0.05
    for c, name, style in ((1, "paper's bound", "-"), (2, "Hoeffding's bound", "--")):
        allowed = [math.sqrt(math.log(2 / 0.05) / (c * d)) for d in widths]
        panel.plot(widths, allowed, style, color="black", label=f"95 % below, {name}")
    panel.plot(widths, [e.quantile_95 for e in errors], "o-", color=HAMMING, label="95 % below")
    panel.plot(widths, [e.mean for e in errors], "s-", color="tab:green", label="mean")
    _width_axis(panel, widths)
    panel.set_yscale("log")
    panel.set(ylabel=r"$|f_H - g(\cos)|$", title="Error of Hamming similarity")
    _mark_heads(panel)
    legend_above(panel)
    save_figure(figure, path)


def plot_tail(errors: Sequence[EmbeddingError], path: Path) -> None:
    """Draw how often the error exceeds delta, beside the bounds.

    At the left against D for some delta; at the right against delta sqrt(D), on which alone both
    bounds depend, for some D. Shares of fewer than ``FEW`` pairs are chance and are left out.

    Args:
        errors: by width.
        path: the PNG to write.
    """
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    widths = [e.width for e in errors]
    steps = 100  # between the first and the last width, for smooth curves
    between = [round(widths[0] * (widths[-1] / widths[0]) ** (i / steps)) for i in range(steps + 1)]
    for i, (delta, colour) in enumerate(
        zip(DELTAS, ("tab:blue", "tab:orange", "tab:green"), strict=True)
    ):
        label = rf"$\delta$ = {delta:g}"
        left.plot(
            widths, [_told(e.tail[i], e.pairs) for e in errors], "o", color=colour, label=label
        )
        left.plot(between, [paper_bound(delta, d) for d in between], "-", color=colour)
        left.plot(between, [hoeffding_bound(delta, d) for d in between], "--", color=colour)
    _width_axis(left, widths)
    left.set(ylabel=r"$P(|f_H - g(\cos)| > \delta)$", title=r"Fixed $\delta$")
    _mark_heads(left)
    shown = [e for e in errors if e.width in (8, 64, 512, 4096)]
    for e, marker in zip(shown, "osD^", strict=False):
        tail = [_told(share, e.pairs) for share in e.scaled_tail]
        right.plot(SCALED_DELTAS, tail, marker, markersize=5, label=f"D = {e.width}")
    right.plot(SCALED_DELTAS, [paper_bound(t, 1) for t in SCALED_DELTAS], "-", color="black")
    right.plot(SCALED_DELTAS, [hoeffding_bound(t, 1) for t in SCALED_DELTAS], "--", color="black")
    right.set(xlabel=r"$\delta \sqrt{D}$", title="All widths on one scale")
    for panel in (left, right):
        panel.plot([], [], "-", color="grey", label="paper's bound")
        panel.plot([], [], "--", color="grey", label="Hoeffding's bound")
        panel.set_yscale("log")
        panel.set_ylim(1 / errors[0].pairs, 1)
        panel.grid(alpha=0.3)
        legend_above(panel, 3)
    save_figure(figure, path)


def plot_orders(orders: Sequence[Order], path: Path) -> None:
    """Draw rank correlations against D, a panel for each firing rate, with quartiles.

    Args:
        orders: by firing rate and width.
        path: the PNG to write.
    """
    rates = list(dict.fromkeys(order.firing_rate for order in orders))
    figure = Figure(figsize=(1.2 + 3.6 * len(rates), 3.8), layout="constrained")
    panels = figure.subplots(1, len(rates), sharey=True, squeeze=False)[0]
    for panel, rate in zip(panels, rates, strict=True):
        row = [order for order in orders if order.firing_rate == rate]
        widths = [order.width for order in row]
        for name, colour, marker, mean, quartiles in (
            (
                HAMMING_NAME,
                HAMMING,
                "o-",
                [o.hamming for o in row],
                [o.hamming_quartiles for o in row],
            ),
            (DOT_NAME, DOT, "s-", [o.dot for o in row], [o.dot_quartiles for o in row]),
        ):
            panel.plot(widths, mean, marker, color=colour, markersize=5, label=name, clip_on=False)
            panel.fill_between(widths, *zip(*quartiles, strict=True), color=colour, alpha=0.2)
        _width_axis(panel, widths)
        signs = " (sign bits)" if rate == 0.5 else ""
        panel.set_title(f"firing rate {rate:g}{signs}")
        _mark_heads(panel)
    panels[0].set(ylabel="rank correlation with the cosine")
    panels[0].set_ylim(top=1)
    names = panels[0].get_legend_handles_labels()
    figure.legend(*names, fontsize=8, loc="outside lower center", ncols=2, frameon=False)
    save_figure(figure, path)


def plot_collision(found: Collision, path: Path) -> None:
    """Draw the bits of a query and of keys that share its dot product, with both scores.

    Args:
        found: query and keys.
        path: the PNG to write.
    """
    rows = [found.query, *found.keys]
    length = len(found.query)
    figure = Figure(figsize=(8.2, 2.8), layout="constrained")
    panel = figure.subplots()
    for y, bits in enumerate(rows):
        for column, (bit, asked) in enumerate(zip(bits, found.query, strict=True)):
            colour = "white"
            if bit:
                colour = HAMMING if asked else DOT
            panel.add_patch(_square(column, _row(y), colour))
    names = ["query", *(f"key {i}" for i in range(1, len(rows)))]
    panel.set_yticks([_row(y) + 0.5 for y in range(len(rows))], names)
    for text, x in (("dot product", length + 2.2), (r"Hamming $f_H$", length + 6.2)):
        panel.text(x, _row(0) + 0.5, text, ha="center", va="center")
    for y, (dot, hamming) in enumerate(zip(found.dot, found.hamming, strict=True), 1):
        panel.text(length + 2.2, _row(y) + 0.5, f"{dot}", ha="center", va="center")
        panel.text(length + 6.2, _row(y) + 0.5, f"{hamming:.3f}", ha="center", va="center")
    panel.set(xlim=(-0.2, length + 8.2), ylim=(_row(len(rows) - 1) + 1.1, -0.1), xticks=[])
    panel.set_aspect("equal")
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    panel.set_title(
        "Blue: spikes where the query fires, all that the dot product counts.\n"
        "Orange: spikes where it does not; they lower the Hamming similarity alone.",
        fontsize=9,
    )
    save_figure(figure, path)


def plot_network(network: NetworkOrder, path: Path) -> None:
    """Draw rank correlations with the cosine of currents, and firing rates, of a network.

    Args:
        network: what was measured.
        path: the PNG to write.
    """
    layers = network.layers
    places = range(len(layers))
    figure = Figure(figsize=(max(6.8, 2.6 + 0.9 * len(layers)), 6.6), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True)
    scores = ((HAMMING_NAME, HAMMING), (DOT_NAME, DOT))
    letters = (("q", "tab:green"), ("k", "tab:purple"))
    for panel, title, names, values in (
        (panels[0], "all queries", scores, [(x.hamming, x.dot) for x in layers]),
        (
            panels[1],
            "queries whose keys both scores tell apart",
            scores,
            [(_or_nan(x.hamming_decided), _or_nan(x.dot_decided)) for x in layers],
        ),
        (panels[2], "firing rates", letters, [(x.q_firing_rate, x.k_firing_rate) for x in layers]),
    ):
        for shift, (name, colour), heights in zip(
            (-0.2, 0.2), names, zip(*values, strict=True), strict=True
        ):
            drawn = panel.bar([x + shift for x in places], heights, 0.38, color=colour, label=name)
            labels = ["" if math.isnan(height) else f"{height:.2f}" for height in heights]
            panel.bar_label(drawn, labels, fontsize=8, padding=1)
        panel.set_title(title, fontsize=9, pad=12)
        panel.margins(y=0.2)
        panel.axhline(0, color="black", linewidth=0.8)
        panel.grid(alpha=0.3, axis="y")
        panel.set_axisbelow(True)
    # beside the bars, which it would hide
    for panel in (panels[0], panels[2]):
        panel.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    for panel in panels[:2]:
        panel.set_ylabel("rank correlation", fontsize=9)
        panel.set_ylim(top=min(1.0, panel.get_ylim()[1]))
        panel.spines.top.set_visible(False)  # where a bar of 1 has its number
    panels[2].set_ylabel("spikes per neuron\nand frame", fontsize=9)
    panels[2].set_xticks(places, [_place(i, layer) for i, layer in enumerate(layers, 1)])
    panels[2].set_xlabel("attention module, in order of execution")
    save_figure(figure, path)


def _place(number: int, layer: LayerOrder) -> str:
    """Which attention module this is, in a narrow column."""
    where = layer_name(layer.layer).replace(", attention", "").split(", ")
    return "\n".join([f"{number}: {where[0]}", *where[1:], layer.axes, f"d = {layer.width}"])


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _width_axis(panel: Axes, widths: Sequence[int]) -> None:
    panel.set_xscale("log", base=2)
    panel.set_xticks(widths, [str(width) for width in widths], fontsize=8)
    panel.set_xlabel("D, bits of a vector")
    panel.grid(alpha=0.3)


def _mark_heads(panel: Axes, at: float = 0.03) -> None:
    """Shade the widths that attention heads have in the presets, with a word at some height."""
    heads = [width // c.heads for c in PRESETS.values() for width in c.widths[2:]]
    panel.axvspan(min(heads), max(heads), color="tab:grey", alpha=0.12)
    panel.text(
        math.sqrt(min(heads) * max(heads)),
        at,
        "heads of the presets",
        transform=panel.get_xaxis_transform(),
        ha="center",
        va="center",
        fontsize=8,
        color="dimgrey",
    )


def _told(share: float, pairs: int) -> float:
    """The share, or NaN where too few pairs stand behind it."""
    return share if round(share * pairs) >= FEW else math.nan


def _row(y: int) -> float:
    """Where row y of bits begins; the query stands apart from the keys."""
    return 1.25 * y + (0.5 if y else 0.0)


def _square(x: float, y: float, colour: str) -> Rectangle:
    return Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="grey", linewidth=0.8)
