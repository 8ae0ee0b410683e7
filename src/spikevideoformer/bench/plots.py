"""Pictures of a benchmark as PNG files: ratios beside their targets, and growth with the clip."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from spikevideoformer.bench.results import Measurement
from spikevideoformer.figures import axis_from_zero, legend_above
from spikevideoformer.files import save_figure


def plot_ratios(measurements: Sequence[Measurement], path: Path) -> bool:
    """Draw each ratio as a bar with its quartiles, and its target as a black line.

    Args:
        measurements: those that were not measured are left out.
        path: the PNG to write.

    Returns:
        Whether there was anything to draw.
    """
    shown = [m for m in measurements if m.ratio is not None]
    if not shown:
        return False
    figure = Figure(figsize=(12, 1.2 + 0.42 * len(shown)), layout="constrained")
    panel = figure.subplots()
    colours = {True: "tab:green", False: "tab:red", None: "tab:grey"}
    for i, m in enumerate(shown):
        assert m.ratio is not None
        panel.barh(i, m.ratio.median, color=colours[m.met], alpha=0.8)
        panel.plot([m.ratio.low, m.ratio.high], [i, i], color="black", linewidth=1)
        if m.target is not None:
            panel.plot([m.target.value] * 2, [i - 0.45, i + 0.45], color="black", linewidth=2.5)
        panel.annotate(
            f" {m.ratio.median:.3g} {m.ratio_of}",
            (max(m.ratio.high, m.ratio.median), i),
            va="center",
        )
    panel.set_yticks(
        range(len(shown)), [f"{m.work}\nagainst {m.against}" for m in shown], fontsize=7
    )
    panel.set(xlabel="ratio (thick line: target; green: met)", xscale="log")
    panel.margins(x=0.25)
    panel.invert_yaxis()
    save_figure(figure, path)
    return True


def plot_growth(measurements: Sequence[Measurement], axis: str, path: Path) -> bool:
    """Draw time per frame and peak memory against T or batch.

    Args:
        measurements: only those of the full clip_scaling row hold such values.
        axis: T or batch.
        path: the PNG to write.

    Returns:
        Whether there was anything to draw.
    """
    shown = [m.details for m in measurements if m.details.get("axis") == axis]
    if not shown:
        return False
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, key, unit in zip(
        panels,
        ("seconds_per_frame", "peak_mib"),
        ("time per frame (s)", "peak memory of a call (MiB)"),
        strict=True,
    ):
        for details in shown:
            values = details[key]
            panel.plot(
                [int(t) for t in values], list(values.values()), marker="o", label=details["side"]
            )
        ticks = [int(t) for t in shown[0][key]]
        panel.set_xscale("log", base=2)
        panel.set_xticks(ticks, [str(t) for t in ticks])
        panel.set(xlabel="frames T" if axis == "T" else "clips in a batch", ylabel=unit)
        axis_from_zero(panel)
        panel.grid(alpha=0.3)
        legend_above(panel, 2)
    save_figure(figure, path)
    return True
