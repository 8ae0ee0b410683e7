"""One self-contained HTML page about one clip of a video.

It shows what the network saw, when and where its neurons fired, what it made of it, and what that
cost.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from spikevideoformer.data.transforms import eval_transform, to_pictures
from spikevideoformer.energy.crossover import draw_crossover
from spikevideoformer.energy.growth import GrowthPoint, attention_growth, draw_growth
from spikevideoformer.energy.report import EnergyReport, energy_report
from spikevideoformer.figures import legend_above
from spikevideoformer.inference.answer import doubt
from spikevideoformer.inference.document import document, drawing, inline
from spikevideoformer.messages import with_prefix
from spikevideoformer.models.config import STRIDE
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.neuron import layer_name
from spikevideoformer.tasks.classification.answer import PredictionResult
from spikevideoformer.tasks.classification.observe import observe
from spikevideoformer.tasks.classification.predictor import VideoPredictor
from spikevideoformer.video.clip import Clip
from spikevideoformer.video.spec import ClipSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN_FRAMES = 16  # pictures in a row; more are left out evenly
PICTURE_PIXELS = 128  # height of a picture of a frame


def frame_numbers(frames: int, shown: int = SHOWN_FRAMES) -> list[int]:
    """At most ``shown`` of ``frames`` numbers from 0, the first and the last among them."""
    if frames <= shown:
        return list(range(frames))
    return [round(i * (frames - 1) / (shown - 1)) for i in range(shown)]


def picture(image: Tensor, height: int = PICTURE_PIXELS) -> str:
    """A frame ``[H, W, 3]`` (uint8 RGB) as the address of a JPEG of at most that height."""
    from PIL import Image

    photo = Image.fromarray(image.cpu().numpy())
    if photo.height > height:
        width = max(1, round(photo.width * height / photo.height))
        photo = photo.resize((width, height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=88)
    return inline(file.getvalue(), "image/jpeg")


def heat_map(values: Tensor, largest: float) -> str:
    """Values ``[h, w]`` between 0 and ``largest`` as the address of a PNG of h by w pixels."""
    from matplotlib import colormaps
    from PIL import Image

    share = (values / (largest or 1.0)).clamp(0, 1).cpu().numpy()
    colours = (colormaps["inferno"](share)[..., :3] * 255).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours).save(file, "PNG")
    return inline(file.getvalue(), "image/png")


def clip_page(
    model: SpikeVideoFormer,
    clip: Clip,
    spec: ClipSpec,
    *,
    title: str,
    about: Sequence[tuple[str, str]],
    classes: Sequence[str],
    windows: Sequence[tuple[float, float, str, float]] = (),
    energy: EnergyReport | None = None,
) -> str:
    """The page as text; the network runs on the clip once more, to be looked at.

    Args:
        model: in evaluation mode.
        clip: what the network sees.
        spec: how the clip becomes its input.
        title: heading of the page, such as the name of the video.
        about: facts that stand above everything else, each a name and a text.
        classes: names of the network's outputs.
        windows: of the whole video, each with start and end in seconds, its best label and the
            probability of that.
        energy: what the clip costs.
    """
    video = eval_transform(clip.frames, spec)  # [T, 3, H, W]
    seen = observe(model, video.unsqueeze(0).to(next(model.parameters()).device))
    times = clip.timestamps_s.tolist()
    numbers = frame_numbers(len(video))
    pictures = to_pictures(video, spec)
    curve = [] if seen.evidence is None else [_prediction_curve(seen.evidence, classes, clip)]
    bars = [_window_bars(windows)] if len(windows) > 1 else []
    rates = [_rate_map(seen.rates, times), _spike_bars(seen.spikes, times)] if seen.rates else []
    growth = None
    if energy is not None and model.config.neuron.spiking:
        tokens = (spec.size // STRIDE) ** 2
        growth = _growth(attention_growth(model.config, tokens_per_frame=tokens))
    return document(
        "clip.html",
        title,
        about=about,
        times_s=[times[t] for t in numbers],
        pictures=[picture(pictures[t]) for t in numbers],
        stages=[_stage(module, maps, numbers) for module, maps in seen.maps.items()],
        predictions=curve + bars,
        rates=rates,
        energy=None if energy is None else _energy(energy),
        growth=growth,
    )


def prediction_page(
    predictor: VideoPredictor,
    result: PredictionResult,
    clip: Clip,
    *,
    tell: Callable[[str], None] = lambda _line: None,
) -> str:
    """The page about a video that was predicted.

    Args:
        predictor: what predicted it.
        result: of a file.
        clip: what the network saw in the window that is shown.
        tell: called with a line on what is being counted.
    """
    best = [window.labels[0] for window in result.windows]
    number = [window.start_s for window in result.windows].index(clip.start_s)
    video = eval_transform(clip.frames, predictor.clip).unsqueeze(0).to(predictor.device)
    about = [
        ("video", f"{result.path}, {result.duration_s:.2f} s"),
        ("prediction", ", ".join(f"{x.name} {x.probability:.1%}" for x in result.labels)),
        ("network", f"{predictor.model.num_parameters():,} parameters, engine {result.engine}"),
        (
            "shown below",
            f"window {number + 1} of {len(best)}, {clip.start_s:.2f} to {clip.end_s:.2f} s",
        ),
    ]
    if result.unlike_training:
        about[1] = ("prediction", f"{doubt(True)}{about[1][1]}")
    if result.firing_rate is not None:
        about.append(("firing rate", f"{result.firing_rate:.4f} spikes per neuron and frame"))
    return clip_page(
        predictor.model,
        clip,
        predictor.clip,
        title=clip.path.name,
        about=about,
        classes=predictor.classes,
        windows=[
            (window.start_s, window.end_s, label.name, label.probability)
            for window, label in zip(result.windows, best, strict=True)
        ],
        energy=energy_report(predictor.model, video, rates_from="of this clip", tell=tell),
    )


def _stage(module: str, maps: Tensor, numbers: Sequence[int]) -> dict[str, Any]:
    """The heat maps of a stage at some frames."""
    largest = maps.max().item()
    return {
        "name": layer_name(module),
        "height": maps.shape[1],
        "width": maps.shape[2],
        "largest": largest,
        "maps": [(heat_map(maps[t], largest), maps[t].mean().item()) for t in numbers],
    }


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _legend(panel: Axes, handles: Sequence[Any], names: Sequence[str]) -> None:
    """A legend of class names, which may hold dollar signs or begin with an underscore."""
    numbers = [str(i) for i in range(len(handles))]
    legend = legend_above(panel, 3, handles=handles, labels=numbers)
    for text, name in zip(legend.get_texts(), names, strict=False):
        text.set_parse_math(False)
        text.set_text(shortened(name))


def shortened(name: str, most: int = 24) -> str:
    """A name of at most so many letters."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _prediction_curve(evidence: Tensor, classes: Sequence[str], clip: Clip) -> str:
    """What the classifier would say if it averaged up to each frame."""
    so_far = evidence.cumsum(0) / torch.arange(1, len(evidence) + 1).unsqueeze(1)
    probabilities = so_far.softmax(1).numpy()  # [T, K]
    best = (-probabilities[-1]).argsort()[:5]
    figure = _figure(7, 3.4)
    panel = figure.subplots()
    lines = [
        panel.plot(clip.timestamps_s, probabilities[:, i], marker=".", clip_on=False)[0]
        for i in best
    ]
    panel.set(xlabel="time in the video (s)", xlim=(clip.start_s, clip.end_s))
    panel.set(ylabel="probability", ylim=(0, 1))
    panel.grid(alpha=0.3)
    _legend(panel, lines, [classes[i] for i in best])
    return drawing(
        figure,
        "The classifier averages over frames: what it would answer with the frames up to each. "
        "(Attention spans the whole clip, so early frames know of later ones.)",
    )


def _window_bars(windows: Sequence[tuple[float, float, str, float]]) -> str:
    figure = _figure(7, 3.4)
    panel = figure.subplots()
    names = sorted({name for _, _, name, _ in windows})
    colours = {name: f"C{i % 10}" for i, name in enumerate(names)}
    for start_s, end_s, name, probability in windows:
        panel.bar(
            start_s, probability, end_s - start_s, align="edge", color=colours[name], alpha=0.85
        )
    bars = [panel.bar(0, 0, 0, color=colours[name]) for name in names[:10]]
    panel.set(xlabel="time in the video (s)", xlim=(0, max(end_s for _, end_s, _, _ in windows)))
    panel.set(ylabel="probability", ylim=(0, 1))
    _legend(panel, bars, names)
    return drawing(figure, "The best label of each window of the video, and its probability.")


def _rate_map(rates: dict[str, Tensor], timestamps_s: Sequence[float]) -> str:
    """Layers by frames."""
    rows = torch.stack(list(rates.values())).numpy()  # [L, T]
    figure = _figure(11, max(3.0, 1.0 + 0.15 * len(rows)))
    panel = figure.subplots()
    image = panel.imshow(rows, aspect="auto", cmap="inferno", vmin=0, interpolation="nearest")
    figure.colorbar(image, label="spikes per neuron", pad=0.01)
    panel.set_yticks(range(len(rates)), list(map(layer_name, rates)), fontsize=7.5)
    numbers = frame_numbers(len(timestamps_s))
    panel.set_xticks(numbers, [f"{timestamps_s[t]:.2f}" for t in numbers])
    panel.set(xlabel="time in the video (s)")
    return drawing(
        figure, "Firing rate of every layer of neurons at every frame; input at the top."
    )


def _spike_bars(spikes: Tensor, timestamps_s: Sequence[float]) -> str:
    figure = _figure(11, 3)
    panel = figure.subplots()
    numbers = range(len(spikes))
    panel.bar(numbers, spikes.tolist(), color="tab:blue", alpha=0.85)
    panel.set(xlim=(-0.5, len(spikes) - 0.5))
    shown = frame_numbers(len(spikes))
    panel.set_xticks(shown, [f"{timestamps_s[t]:.2f}" for t in shown])
    panel.set(xlabel="time in the video (s)", ylabel="spikes")
    panel.grid(axis="y", alpha=0.3)
    return drawing(figure, "Spikes of all neurons together in each frame.")


def _energy(report: EnergyReport) -> dict[str, Any]:
    """Totals by convention, and where in the network they come from."""
    frames, _, height, width = report.clip
    head = ["convention", "arithmetic, mJ", "memory, mJ", "multiplications", "additions"]
    return {
        "frames": frames,
        "height": height,
        "width": width,
        "cost": report.cost,
        "rates_from": report.rates_from,
        "head": [*head, f"ms on {report.throughput.name}"],
        "rows": [
            [
                t.convention,
                f"{t.energy_mj:.4g}",
                "-" if t.memory_mj is None else f"{t.memory_mj:.4g}",
                *(with_prefix(n) for n in (t.work.multiplications, t.work.additions)),
                f"{1e3 * t.latency_s:.3g}",
            ]
            for t in report.totals
        ],
        "bars": _energy_bars(report),
        "crossover": _crossover(report) if report.crossovers else "",
        "channels": sum(n.channels for n in report.neurons),
        "silent": sum(len(n.silent) for n in report.neurons),
        "saturated": sum(len(n.saturated) for n in report.neurons),
    }


def part_of(module: str) -> str:
    """The part of the network that a module belongs to, folded or not, in words."""
    inner = re.match(r"(backbone\.\w+\.blocks\.\d+)(?:\.(\w+))?", module)
    if inner:
        block, part = inner.groups()
        return layer_name(f"{block}.{part or 'residuals'}")
    first, *rest = module.split(".")
    return layer_name(".".join((first, *rest[:2])) if first == "backbone" else first)


def _energy_bars(report: EnergyReport) -> str:
    ways = {
        "paper": ("executed", report.cost.paper_pj),
        "executed": ("executed", report.cost.arithmetic_pj),
        "merged": ("merged", report.cost.arithmetic_pj),
    }
    ways = {name: (form, pj) for name, (form, pj) in ways.items() if form in report.forms}
    sums: dict[str, dict[str, float]] = {}
    for name, (form, energy_pj) in ways.items():
        for o in report.forms[form].operations:  # type: ignore[index]
            part = sums.setdefault(part_of(o.module) or "between stages", {})
            part[name] = part.get(name, 0.0) + energy_pj(o) * 1e-9
    figure = _figure(11, 1.2 + 0.26 * len(sums))
    panel = figure.subplots()
    height = 0.8 / len(ways)
    for i, name in enumerate(ways):
        places = [row + (i - (len(ways) - 1) / 2) * height for row in range(len(sums))]
        values = [part.get(name, 0.0) for part in sums.values()]
        panel.barh(places, values, height, label=name)
    panel.set_yticks(range(len(sums)), list(sums), fontsize=7.5)
    panel.invert_yaxis()
    largest = max(value for part in sums.values() for value in part.values())
    panel.set(xlabel="energy of arithmetic (mJ)", xscale="log", xlim=(largest / 1e5, largest * 1.5))
    panel.grid(axis="x", alpha=0.3)
    panel.margins(y=0.01)
    legend_above(panel, len(ways))
    return drawing(figure, "Energy of each part of the network by convention (logarithmic).")


def _crossover(report: EnergyReport) -> str:
    figure = _figure(9, 4.5)
    draw_crossover(report.layers, report.crossovers, figure.subplots())
    return drawing(
        figure,
        "Spikes that each layer reads, and the rates from which ordinary layers in other formats "
        "would take less energy for their arithmetic.",
    )


def _growth(points: Sequence[GrowthPoint]) -> str:
    figure = _figure(7, 4)
    draw_growth(points, figure.subplots())
    return drawing(figure, "All blocks together, joint over space and time; closed forms.")
