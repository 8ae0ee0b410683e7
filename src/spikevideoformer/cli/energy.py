"""``svf energy``: every operation of a network on clips, and what it costs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikevideoformer.cli.options import DIR, Json, Limits, flag
from spikevideoformer.cli.output import folder_to_write, note, note_failure, require_file, show
from spikevideoformer.files import write_text
from spikevideoformer.models.config import STRIDE, list_models, preset
from spikevideoformer.task import Task, get_task

if TYPE_CHECKING:
    from spikevideoformer.models.spikevideoformer import SpikeVideoFormer

LARGEST_COUNT = 128 * 1024**2  # pixels of a clip whose operations are counted


@dataclass(frozen=True, kw_only=True)
class Options(Json, Limits):
    """Count every operation and what it costs, by several conventions.

    Example: svf energy --model demo/run/model demo/clips/val

    Args:
        model: model folder, hub id (owner/name), or a preset with random weights.
        inputs: what it looks at, as for predict (default: a made clip).
        frames: frames of a clip (default: the model's, or 8).
        size: input size (default: the model's, for segmentation its crop; or 224).
        cost: energies (default: 45 nm).
        clips: count N clips at most: of N videos taken evenly, or the first windows of fewer.
        no_merge: leave out the merged forms and the ordinary twin, in a quarter of the time.
        growth: count attention alone, spiking and softmax, for 8 to 128 frames.
        csv: write every operation as CSV.
        out: write energy.txt, .json and .csv, and crossover.png (and growth.png).
        html: with --out, also energy.html about the first clip.
    """

    model: str = field(metadata={"metavar": "FOLDER|PRESET"})
    inputs: tuple[str, ...] = field(default=(), metadata={"metavar": "VIDEO", "positional": True})
    frames: int | None = field(default=None, metadata={"metavar": "T", "at_least": 1})
    size: int | None = field(
        default=None, metadata={"metavar": "PIXELS", "at_least": 1, "multiple_of": STRIDE}
    )
    cost: Path | None = field(default=None, metadata={"metavar": "FILE.yaml"})
    clips: int = field(default=8, metadata={"at_least": 1})
    no_merge: bool = False
    growth: bool = False
    csv: Path | None = field(default=None, metadata={"metavar": "FILE"})
    out: Path | None = field(default=None, metadata=DIR)
    html: bool = False


def run(options: Options) -> int:
    """Count, and print tables; how many videos could not be read."""
    from spikevideoformer.models.folder import read_about
    from spikevideoformer.video.inputs import videos_among

    if options.html and options.out is None:
        raise ValueError("--html writes a page into a folder; give one with --out")
    csv = options.csv
    if csv is not None and (csv.is_dir() or not csv.parent.is_dir()):
        raise ValueError(f"--csv {csv} cannot be written; give a file in a folder that exists")
    if options.growth:
        for name in ("inputs", "cost", "csv", "html", "frames", "no_merge"):
            if getattr(options, name):
                option = "VIDEO" if name == "inputs" else flag(name)
                raise ValueError(f"--growth counts attention alone; leave out {option}")
    require_file(options.cost, "--cost a file like configs/energy/45nm.yaml")
    is_preset = options.model in list_models("all") and not Path(options.model).exists()
    if not is_preset:
        read_about(options.model)
    videos_among(options.inputs)
    out = folder_to_write(options.out)

    from spikevideoformer.models.spikevideoformer import SpikeVideoFormer

    model = None if is_preset else SpikeVideoFormer.from_pretrained(options.model)
    task = get_task("classification" if model is None else model.task)
    clip = None if model is None else model.clip
    spec = task.counted_spec(clip, options.frames, options.size)
    if options.growth:
        _growth(options, model, task.height_and_width(spec), out)
        return 0
    return _count(options, model, task, spec, out)


def _count(
    options: Options, model: SpikeVideoFormer | None, task: Task, spec: Any, out: Path | None
) -> int:
    """Count all operations; how many videos could not be read."""
    import torch

    from spikevideoformer.bench.inputs import lively_model, made_clip
    from spikevideoformer.energy.cost import HOROWITZ_45NM, CostTable
    from spikevideoformer.energy.crossover import plot_crossover
    from spikevideoformer.energy.report import energy_report
    from spikevideoformer.inference.counted_clips import clips_of
    from spikevideoformer.models.spikevideoformer import SpikeVideoFormer

    cost = HOROWITZ_45NM if options.cost is None else CostTable.from_yaml(options.cost)
    height, width = task.height_and_width(spec)
    if spec.frames * height * width > LARGEST_COUNT:
        raise ValueError(
            f"T={spec.frames} frames of {height}x{width} are more than can be counted; "
            "lower --frames or --size"
        )
    if options.html and task.clip_page is None:
        raise ValueError(f"there is no page about a clip of {task.name}; leave out --html")
    for line in task.about_counted(spec):
        note(line)
    if model is None:
        model = lively_model(options.model, frames=spec.frames, size=height)
        rates_from = "of UNTRAINED weights, batch norms set so that neurons fire"
    else:
        rates_from = "of this trained model"
    spiking = model.config.neuron.spiking
    if not spiking:
        rates_from = "none, an ordinary network"
    if inputs := options.inputs:
        clips, failed = clips_of(
            inputs, task, spec, options.clips, limits=options.limits, tell=note
        )
        for failure in failed:
            note_failure(failure)
        rates_from += f", on {len(clips)} clip{'s' * (len(clips) != 1)} of the videos given"
    else:
        clips, failed = [made_clip(task, spec)], []
        rates_from += ", on a MADE clip (moving shapes): give videos for rates that mean something"
    compare = spiking and not options.no_merge
    twin = None
    if compare:  # what it would do does not depend on its weights
        same: dict[str, Any] = {
            "task": model.task,
            "num_classes": model.num_classes,
            "body": model.body,
        }
        twin = SpikeVideoFormer(model.config.ann_twin(), **same).eval()
    video = torch.stack([task.network_input(clip, spec) for clip in clips])  # [B, T, C, H, W]
    report = energy_report(
        model, video, cost=cost, merge=compare, twin=twin, rates_from=rates_from, tell=note
    )
    values, text = report.to_dict(), str(report)
    if options.csv is not None:
        write_text(options.csv, report.to_csv())
    if out is not None:
        write_text(out / "energy.txt", f"{text}\n")
        write_text(out / "energy.json", json.dumps(values, allow_nan=False, indent=2) + "\n")
        write_text(out / "energy.csv", report.to_csv())
        if report.crossovers:
            plot_crossover(report.layers, report.crossovers, out / "crossover.png")
        if options.html:
            assert task.clip_page is not None
            title, about = f"{options.model}: {clips[0].path.name}", [("firing rates", rates_from)]
            names = model.classes or tuple(map(str, range(model.num_classes)))
            page = task.clip_page(
                model, clips[0], spec, title=title, about=about, classes=names, energy=report
            )
            write_text(out / "energy.html", page)
    show(options.json, values, text)
    return len(failed)


def _growth(
    options: Options,
    model: SpikeVideoFormer | None,
    size: tuple[int, int],
    out: Path | None,
) -> None:
    """Count attention alone, for more and more frames."""
    from spikevideoformer.energy.growth import counted_growth, format_growth, plot_growth

    config = preset(options.model) if model is None else model.config
    if not config.neuron.spiking:
        raise ValueError(
            f"{options.model} is an ordinary network; --growth is of spiking attention (beside "
            "softmax attention of the same shape): give a spiking model"
        )
    rows, columns = (side // STRIDE for side in size)
    points = counted_growth(config, tokens_per_frame=rows * columns)
    if out is not None:
        plot_growth(points, out / "growth.png")
    title = f"attention of {options.model}, joint, {rows}x{columns} tokens a frame, V fires 0.2"
    values = {"model": options.model, "growth": [p.to_dict() for p in points]}
    show(options.json, values, f"{title}\n{format_growth(points)}")
