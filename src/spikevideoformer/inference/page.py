"""One self-contained HTML page about one clip of a video.

It shows what the network saw, when and where its neurons fired, what it made of it, and what that
cost. Nothing is fetched when the page is opened: pictures are inside it, and there are no scripts.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from spikevideoformer.data.clip import Clip, ClipSpec
from spikevideoformer.data.transforms import eval_transform, to_pictures
from spikevideoformer.energy.growth import GrowthPoint, attention_growth, draw_growth
from spikevideoformer.energy.report import EnergyReport, energy_report, with_prefix
from spikevideoformer.inference.observe import Observation, observe
from spikevideoformer.inference.predictor import PredictionResult, VideoPredictor
from spikevideoformer.models.config import STRIDE
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN_FRAMES = 16  # pictures in a row; more are left out evenly
PICTURE_PIXELS = 128  # height of a picture of a frame

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c2128; background: #fff; }
h1 { margin-bottom: .2rem; } h2 { margin-top: 2.4rem; } code { font-size: .92em; }
table { border-collapse: collapse; } td, th { padding: .2rem .9rem .2rem 0; text-align: left; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; } figure { margin: 0; }
figcaption, .note { font-size: .9rem; color: #57606a; }
.row { display: flex; flex-wrap: wrap; gap: 1.2rem; } .row > * { flex: 1 1 20rem; }
.wide { overflow-x: auto; } table.maps { width: 100%; min-width: 50rem; table-layout: fixed; }
table.maps td, table.maps th { padding: 1px; font-size: .8rem; }
table.maps th { width: 7rem; font-weight: 500; } table.maps img { display: block; width: 100%; }
table.maps img.map { image-rendering: pixelated; }
video { width: 100%; background: #14171c; } .wrong { color: #b3261e; }
"""


def inline(data: bytes, kind: str) -> str:
    """A file as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


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


def drawing(figure: Figure, caption: str) -> str:
    """A figure of matplotlib as vector graphics, with a caption."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    file = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    source = inline(file.getvalue(), "image/svg+xml")
    text = html.escape(caption)
    return f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'


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
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f"<title>{html.escape(title)}</title>",
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>',
        f"<h1>{html.escape(title)}</h1>",
        _table([], [[name, text] for name, text in about]),
        "<h2>What the network saw, and where it fired</h2>",
        _maps(to_pictures(video, spec), times, seen),
    ]
    if seen.evidence is not None or len(windows) > 1:
        parts.append('<h2>Predictions over time</h2><div class="row">')
        if seen.evidence is not None:
            parts.append(_prediction_curve(seen.evidence, classes, times))
        if len(windows) > 1:
            parts.append(_window_bars(windows))
        parts.append("</div>")
    if seen.rates:
        parts += [
            '<h2>Firing rates</h2><div class="row">',
            _rate_map(seen.rates, times),
            _spike_bars(seen.spikes, times),
            "</div>",
        ]
    if energy is not None:
        parts += _energy(energy)
        if model.config.neuron.spiking:
            tokens = (spec.size // STRIDE) ** 2
            parts += _growth(attention_growth(model.config, tokens_per_frame=tokens))
    parts.append("</body></html>\n")
    return "\n".join(parts)


def prediction_page(
    predictor: VideoPredictor,
    result: PredictionResult,
    *,
    window_s: float | None = None,
    tell: Callable[[str], None] = lambda _line: None,
    **reading: Any,
) -> str:
    """The page about a video that was predicted; of several windows, the surest one is shown.

    Args:
        predictor: what predicted it.
        result: of a file.
        window_s: as for the prediction.
        tell: called with a line on what is being counted.
        **reading: as for the prediction: ``limits`` and ``sequence_rate_hz``.

    Raises:
        ValueError: the prediction of an array.
        VideoError: the file cannot be read any more.
    """
    if result.path is None:
        raise ValueError("the prediction is of an array; a page needs a file to read frames from")
    best = [window.labels[0] for window in result.windows]
    surest = max(range(len(best)), key=lambda i: best[i].probability)
    clip = next(islice(predictor.clips(result.path, window_s=window_s, **reading), surest, None))
    video = eval_transform(clip.frames, predictor.clip).unsqueeze(0).to(predictor.device)
    about = [
        ("video", f"{result.path}, {result.duration_s:.2f} s"),
        ("prediction", ", ".join(f"{x.name} {x.probability:.1%}" for x in result.labels)),
        ("network", f"{predictor.model.num_parameters():,} parameters, engine {result.engine}"),
        (
            "shown below",
            f"window {surest + 1} of {len(best)}, {clip.start_s:.2f} to {clip.end_s:.2f} s",
        ),
    ]
    if result.firing_rate is not None:
        about.append(("firing rate", f"{result.firing_rate:.4f} spikes per neuron and frame"))
    return clip_page(
        predictor.model,
        clip,
        predictor.clip,
        title=Path(result.path).name,
        about=about,
        classes=predictor.classes,
        windows=[
            (window.start_s, window.end_s, label.name, label.probability)
            for window, label in zip(result.windows, best, strict=True)
        ],
        energy=energy_report(predictor.model, video, rates_from="of this clip", tell=tell),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column holds names, the others are numbers where there is a head."""
    kind = ' class="number"' if head else ""

    def cells(tag: str, row: Sequence[str]) -> str:
        first, *others = map(html.escape, row)
        return f"<{tag}>{first}</{tag}>" + "".join(f"<{tag}{kind}>{o}</{tag}>" for o in others)

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    top = f"<tr>{cells('th', head)}</tr>" if head else ""
    return f"<table>{top}{body}</table>"


def _maps(pictures: Tensor, timestamps_s: Sequence[float], seen: Observation) -> str:
    """Frames, and below each the heat map of every stage."""
    numbers = frame_numbers(len(pictures))
    rows = [
        "<tr><th>video</th>"
        + "".join(f'<td><img src="{picture(pictures[t])}" alt=""></td>' for t in numbers)
        + "</tr>"
    ]
    for stage, maps in seen.maps.items():
        largest = maps.max().item()
        cells = "".join(
            f'<td><img class="map" src="{heat_map(maps[t], largest)}" alt="" '
            f'title="{stage}, {timestamps_s[t]:.2f} s: mean rate {maps[t].mean().item():.3f}"></td>'
            for t in numbers
        )
        rows.append(
            f"<tr><th>{html.escape(stage)}<br>{maps.shape[1]}x{maps.shape[2]}, "
            f"to {largest:.2f}</th>{cells}</tr>"
        )
    times = "".join(f"<td>{timestamps_s[t]:.2f} s</td>" for t in numbers)
    note = (
        "Below each frame: spikes per neuron at each place, mean over the channels of all layers "
        "of a stage; black is silence, the brightest place of a row fires as often as it says."
        if seen.maps
        else "The network has no spikes."
    )
    return (
        f'<div class="wide"><table class="maps">{"".join(rows)}<tr><th></th>{times}</tr></table>'
        f'</div><p class="note">{note}</p>'
    )


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _legend(panel: Axes, handles: Sequence[Any], names: Sequence[str]) -> None:
    """A legend of class names, which may hold dollar signs or begin with an underscore."""
    legend = panel.legend(handles, [str(i) for i in range(len(handles))], fontsize=8)
    for text, name in zip(legend.get_texts(), names, strict=False):
        text.set_parse_math(False)
        text.set_text(name)


def _prediction_curve(
    evidence: Tensor, classes: Sequence[str], timestamps_s: Sequence[float]
) -> str:
    """What the classifier would say if it averaged up to each frame."""
    so_far = evidence.cumsum(0) / torch.arange(1, len(evidence) + 1).unsqueeze(1)
    probabilities = so_far.softmax(1).numpy()  # [T, K]
    best = (-probabilities[-1]).argsort()[:5]
    figure = _figure(7, 3.4)
    panel = figure.subplots()
    lines = [panel.plot(timestamps_s, probabilities[:, i], marker=".")[0] for i in best]
    panel.set(xlabel="time in the video (s)", ylabel="probability", ylim=(0, 1.02))
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
    panel.set(xlabel="time in the video (s)", ylabel="probability", ylim=(0, 1.02))
    _legend(panel, bars, names)
    return drawing(figure, "The best label of each window of the video, and its probability.")


def _rate_map(rates: dict[str, Tensor], timestamps_s: Sequence[float]) -> str:
    """Layers by frames."""
    table = torch.stack(list(rates.values())).numpy()  # [L, T]
    figure = _figure(7, max(3.0, 1.0 + 0.11 * len(table)))
    panel = figure.subplots()
    image = panel.imshow(table, aspect="auto", cmap="inferno", vmin=0, interpolation="nearest")
    figure.colorbar(image, label="spikes per neuron")
    names = [name.removeprefix("backbone.") for name in rates]
    panel.set_yticks(range(len(names)), names, fontsize=4.5)
    numbers = frame_numbers(len(timestamps_s), 8)
    panel.set_xticks(numbers, [f"{timestamps_s[t]:.2f}" for t in numbers])
    panel.set(xlabel="time in the video (s)")
    return drawing(
        figure, "Firing rate of every layer of neurons at every frame; input at the top."
    )


def _spike_bars(spikes: Tensor, timestamps_s: Sequence[float]) -> str:
    figure = _figure(7, 3.4)
    panel = figure.subplots()
    numbers = range(len(spikes))
    panel.bar(numbers, spikes.tolist(), color="tab:blue", alpha=0.85)
    shown = frame_numbers(len(spikes), 8)
    panel.set_xticks(shown, [f"{timestamps_s[t]:.2f}" for t in shown])
    panel.set(xlabel="time in the video (s)", ylabel="spikes")
    panel.grid(axis="y", alpha=0.3)
    return drawing(figure, "Spikes of all neurons together in each frame.")


def _energy(report: EnergyReport) -> list[str]:
    """Totals by convention, and where in the network they come from."""
    T, _, H, W = report.clip
    rows = [
        [
            t.convention,
            f"{t.energy_mj:.4g}",
            "-" if t.memory_mj is None else f"{t.memory_mj:.4g}",
            *(with_prefix(n) for n in (t.work.multiplications, t.work.additions)),
            f"{1e3 * t.latency_s:.3g}",
        ]
        for t in report.totals
    ]
    head = ["convention", "arithmetic, mJ", "memory, mJ", "multiplications", "additions"]
    note = (
        f"One clip of {T} frames of {H}x{W}; {report.cost.name}, {report.cost.precision}: "
        f"{report.cost.mac_pj:.3g} pJ for a multiply-accumulate, {report.cost.ac_pj:.3g} pJ for an "
        f"accumulate. Firing rates {report.rates_from}. Memory is an upper bound: nothing stays in "
        "registers from one operation to the next."
    )
    found = [
        "<h2>Energy</h2>",
        '<div class="wide">',
        _table([*head, f"ms on {report.throughput.name}"], rows),
        f'</div><p class="note">{html.escape(note)}</p>',
        _energy_bars(report),
    ]
    if report.neurons:
        silent = sum(len(n.silent) for n in report.neurons)
        saturated = sum(len(n.saturated) for n in report.neurons)
        channels = sum(n.channels for n in report.neurons)
        found.append(
            f"<p>{silent} of {channels} channels of neurons are silent throughout, {saturated} "
            "fire at every place in every frame.</p>"
        )
    return found


def part_of(module: str) -> str:
    """The part of the network that a module belongs to, folded or not: ``stage3.0.mlp``."""
    inner = re.match(r"backbone\.(\w+)\.blocks\.(\d+)(?:\.(\w+))?", module)
    if inner:
        stage, block, part = inner.groups()
        return f"{stage}.{block}.{part or 'residuals'}"
    first, _, rest = module.partition(".")
    return ".".join(rest.split(".")[:2]) if first == "backbone" else first


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
    figure = _figure(10, 1.2 + 0.26 * len(sums))
    panel = figure.subplots()
    height = 0.8 / len(ways)
    for i, name in enumerate(ways):
        places = [row + (i - (len(ways) - 1) / 2) * height for row in range(len(sums))]
        values = [part.get(name, 0.0) for part in sums.values()]
        panel.barh(places, values, height, label=name)
    panel.set_yticks(range(len(sums)), list(sums), fontsize=7)
    panel.invert_yaxis()
    largest = max(value for part in sums.values() for value in part.values())
    panel.set(xlabel="energy of arithmetic (mJ)", xscale="log", xlim=(largest / 1e5, largest * 1.5))
    panel.grid(axis="x", alpha=0.3)
    panel.legend()
    return drawing(figure, "Energy of each part of the network by convention (logarithmic).")


def _growth(points: Sequence[GrowthPoint]) -> list[str]:
    figure = _figure(7, 4)
    draw_growth(points, figure.subplots())
    return [
        "<h2>Operations of attention against the number of frames</h2>",
        '<div class="row">',
        drawing(figure, "All blocks together, joint over space and time; closed forms."),
        "</div>",
    ]
