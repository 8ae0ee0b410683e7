"""``svf convert``: a published checkpoint becomes a model folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spikevideoformer.cli.options import Json, flag
from spikevideoformer.cli.output import folder_to_write, require_file, show
from spikevideoformer.messages import one_line
from spikevideoformer.models.config import STRIDE
from spikevideoformer.task import get_task
from spikevideoformer.video.spec import ClipSpec

if TYPE_CHECKING:
    from spikevideoformer.models.spikevideoformer import SpikeVideoFormer


@dataclass(frozen=True, kw_only=True)
class Options(Json):
    """Turn a published checkpoint into a model folder, and say what was recognised in it.

    Example: svf convert metaspikformer.pth --out model

    Args:
        checkpoint: published file (docs/checkpoints.md lists them).
        out: model folder.
        attention: what it was trained with (default: joint_hamming where there is a norm for it,
            else spatial_dot, as published).
        heads: attention heads (default 8).
        levels: D of the integer spikes of an E-SpikeFormer (default 4).
        frames: T over which the published code repeats a picture (default: 4 for a segmenter of
            SDT-V2, else 1); of networks for video and of poses: frames of a clip (default 8).
        num_classes: of the fresh classifier of a backbone without a head.
        poses: of a pose head: T + 1 poses between T frames, as published, or one on each.
        classes: class names, one on each line, in order.
        size: input size (default 224; short side 512 for segmentation; 256 for poses).
        frame_rate_hz: frames per second (default: spread over the whole video).
    """

    checkpoint: Path = field(metadata={"metavar": "CHECKPOINT.pth", "positional": True})
    out: Path = field(metadata={"metavar": "FOLDER"})
    attention: Literal["joint_hamming", "joint_dot", "spatial_dot"] | None = None
    heads: int | None = field(default=None, metadata={"at_least": 1})
    levels: int | None = field(default=None, metadata={"metavar": "D", "at_least": 1})
    frames: int | None = field(default=None, metadata={"metavar": "T", "at_least": 1})
    num_classes: int | None = field(default=None, metadata={"metavar": "N", "at_least": 1})
    poses: Literal["between", "frames"] | None = None
    classes: Path | None = field(default=None, metadata={"metavar": "FILE"})
    size: int | None = field(default=None, metadata={"metavar": "PIXELS", "multiple_of": STRIDE})
    frame_rate_hz: float | None = field(default=None, metadata={"metavar": "HZ"})


def run(options: Options) -> None:
    """Read the checkpoint, write the folder, and say what the model is."""
    clip = {name: getattr(options, name) for name in ("frames", "size", "frame_rate_hz")}
    clip = {name: value for name, value in clip.items() if value is not None}
    ClipSpec(**{"frames": 1, "size": 16, **clip})  # complains of values before the long work
    require_file(options.checkpoint, "a published .pth checkpoint")
    require_file(options.classes, "--classes a file with one class name on each line")
    classes = None if options.classes is None else _lines(options.classes)

    from spikevideoformer.models.published import family_of, load_published, sees_pictures

    names = ("attention", "heads", "levels", "num_classes", "poses")
    given = {n: getattr(options, n) for n in names if getattr(options, n) is not None}
    model = load_published(options.checkpoint, **given)
    if sees_pictures(model) and options.frames is not None:
        del clip["frames"]  # it repeats a picture so often, and a clip has one
        given["frames"] = options.frames
        model = load_published(options.checkpoint, **given)
    spec = get_task(model.task).published_spec(model.config, clip)
    model.save_pretrained(folder_to_write(options.out), classes=classes, clip=spec.to_dict())
    known = _what_it_was_told(model, given)
    about = {
        "model": str(options.out),
        "family": family_of(model.config),
        "task": model.task,
        "parameters": model.num_parameters(),
        "tensors": len(model.state_dict()),
        "classes": model.num_classes,
        "widths": list(model.config.widths),
        "depths": list(model.config.depths),
        "in_channels": model.config.in_channels,
        "design": model.config.design,
        "attention": model.config.attention,
        **known,
        "clip": spec.to_dict(),
    }
    show(options.json, about, "\n".join(_words(about, model)))


def _what_it_was_told(model: SpikeVideoFormer, given: dict[str, Any]) -> dict[str, Any]:
    """What the tensors do not tell of this network: what the user said of it, and what is assumed.

    Also what was said and is of other networks.
    """
    from spikevideoformer.models.published import untold

    values = untold(model)
    return {
        "told": {name: value for name, value in values.items() if name in given},
        "assumed": {name: value for name, value in values.items() if name not in given},
        "not_needed": [name for name in given if name not in (*values, "num_classes")],
    }


def _words(about: dict[str, Any], model: SpikeVideoFormer) -> list[str]:
    """The same as lines."""
    widths, depths = ("/".join(map(str, about[key])) for key in ("widths", "depths"))
    what = "joints" if model.body is not None else "classes"
    names = "" if model.body is not None or model.classes is None else ", named"
    lines = [
        f"wrote {about['model']}: {about['task']} by {about['family']}, "
        f"{about['parameters']:,} parameters in {about['tensors']} tensors",
        f"  read off the tensors: widths {widths}, blocks {depths}, {about['in_channels']} input "
        f"channels, {about['classes']} {what}{names}, {about['attention']} attention",
    ]
    for key, said in (("told", "told"), ("assumed", "assumed, as tensors do not tell it")):
        if about[key]:
            values = (f"{flag(name)} {value}" for name, value in about[key].items())
            lines.append(f"  {said}: {', '.join(values)}")
    if about["not_needed"]:
        lines.append(f"  of no meaning here: {', '.join(map(flag, about['not_needed']))}")
    return [one_line(line) for line in lines]


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text; give one class name on each line") from None
    return [line.strip() for line in lines if line.strip()]
