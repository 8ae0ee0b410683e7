"""Legends that cover nothing and axes that end where values can; imports nothing of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend


def legend_above(panel: Axes, columns: int = 2, **options: Any) -> Legend:
    """A legend over the upper edge of a panel, where it covers no data; a title goes over both.

    Args:
        panel: with labelled curves or bars, and with its title, if any.
        columns: names beside each other.
        **options: of ``Axes.legend``.
    """
    legend = panel.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=columns,
        frameon=False,
        borderaxespad=0.2,
        **{"fontsize": 8, **options},
    )
    if title := panel.get_title():
        legend.set_title(title)
        panel.set_title("")
    return legend


def epoch_axis(panel: Axes, epochs: int) -> None:
    """Whole epochs from the first to the last; dots on the border are drawn whole."""
    from matplotlib.ticker import MaxNLocator

    panel.set(xlabel="epoch", xlim=(1, max(epochs, 2)))
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    for line in panel.lines:
        line.set_clip_on(False)


def axis_from_zero(panel: Axes) -> None:
    """The upright axis from 0 to a little over the largest value."""
    panel.update_datalim([(panel.dataLim.x0, 0.0)])
    panel.autoscale_view(scalex=False)
    panel.set_ylim(bottom=0)
