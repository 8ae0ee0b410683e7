"""At which firing rate a layer of spikes beats an ordinary one of the same width, in closed form.

Equation (a layer of M multiply-accumulates, firing rate r in spikes a neuron and frame):
    spiking   M r E_AC
    ordinary  M (E_mul + E_AC)
    crossover r* = 1 + E_mul / E_AC

Both add up in the same format and read the same weights. Matched in bits, the ordinary layer has
activations of b = ceil(log2(D + 1)) bits, as many as the spikes 0..D tell, and its product of b
bits and w costs E_mul(w, w) b / w: a multiplier has a row of cells for each bit. Arithmetic of
layers only: neurons, norms and memory are in the other tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from spikevideoformer.energy.cost import CostTable, Precision
from spikevideoformer.energy.record import OperationCount
from spikevideoformer.figures import legend_above
from spikevideoformer.files import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True)
class Crossover:
    """A rival in one format, and how the layers of a network stand against it.

    Attributes:
        rival: the ordinary layer.
        mac_pj: its multiply-accumulate.
        ac_pj: an accumulation in the same format.
        rate: at which both cost the same, in spikes a neuron and frame.
        below: share of the multiply-accumulates of layers of spikes whose rate is lower.
        ratio: what those layers of the rival cost in all, over what spikes cost.
    """

    rival: str
    mac_pj: float
    ac_pj: float
    rate: float
    below: float
    ratio: float


def crossovers(layers: Sequence[OperationCount], levels: int, cost: CostTable) -> list[Crossover]:
    """Hold the layers of spikes of a network against ordinary ones.

    Args:
        layers: as counted; those whose input is no spikes are left out.
        levels: D of the neurons.
        cost: prices of single operations.

    Returns:
        For each rival one; nothing where no layer has spikes for its input.
    """
    spiking = [o for o in layers if o.rate is not None and o.macs]
    bits = math.ceil(math.log2(levels + 1))
    rivals: list[tuple[Precision, int | None, str]] = [
        ("float32", None, "float32"),
        ("int8", None, "8 bit"),
        ("int8", bits, f"8-bit weights, {bits}-bit activations (matched)"),
        ("int4", None, "4 bit"),
        ("int4", bits, f"4-bit weights, {bits}-bit activations (matched)"),
    ]
    return [
        _crossover(spiking, name, replace(cost, precision=precision), width)
        for precision, width, name in rivals
        if spiking and (width is None or width <= cost_bits(precision))
    ]


def cost_bits(precision: Precision) -> int:
    """Bits of a weight, and of an ordinary activation, in a layer."""
    return CostTable(precision=precision).weight_bits


def _crossover(
    layers: Sequence[OperationCount], rival: str, cost: CostTable, bits: int | None
) -> Crossover:
    product_pj = cost.mac_pj - cost.ac_pj
    if bits is not None:
        product_pj *= bits / cost.weight_bits
    rate = 1 + product_pj / cost.ac_pj
    macs = math.fsum(o.macs for o in layers)
    spikes = math.fsum(o.macs * (o.rate or 0.0) for o in layers)
    return Crossover(
        rival=rival,
        mac_pj=product_pj + cost.ac_pj,
        ac_pj=cost.ac_pj,
        rate=rate,
        below=math.fsum(o.macs for o in layers if (o.rate or 0.0) < rate) / macs,
        ratio=rate * macs / spikes if spikes else math.inf,
    )


def plot_crossover(
    layers: Sequence[OperationCount], found: Sequence[Crossover], path: Path
) -> None:
    """Draw `draw_crossover` as a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    draw_crossover(layers, found, figure.subplots())
    save_figure(figure, path)


def draw_crossover(
    layers: Sequence[OperationCount], found: Sequence[Crossover], panel: Axes
) -> None:
    """Rate of each layer of spikes against its share of the work, and where rivals begin."""
    spiking = [o for o in layers if o.rate is not None and o.macs]
    rates = sorted((o.rate or 0.0, o.macs) for o in spiking)
    macs = math.fsum(m for _, m in rates)
    left = 0.0
    for rate, work in rates:
        panel.bar(left, rate, width=work / macs, align="edge", color="#4c78a8", linewidth=0)
        left += work / macs
    colours = ("tab:red", "tab:orange", "tab:green", "tab:purple", "tab:brown")
    for crossover, colour in zip(found, colours, strict=False):
        label = f"{crossover.rival}: {crossover.rate:.2f}"
        panel.axhline(crossover.rate, color=colour, linewidth=1.2, label=label)
    panel.set(
        xlim=(0, 1),
        ylim=(0, None),
        xlabel="share of the multiply-accumulates of layers of spikes, sorted by rate",
        ylabel="spikes a neuron and frame",
    )
    legend_above(panel, columns=1, title="lines: from here on an ordinary layer is cheaper")
