"""``svf convert``: a published checkpoint becomes a model folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from spikevideoformer.cli.options import Json
from spikevideoformer.cli.output import folder_to_write, require_file, show
from spikevideoformer.models.config import STRIDE
from spikevideoformer.video.spec import ClipSpec


@dataclass(frozen=True, kw_only=True)
class Options(Json):
    """Turn a published checkpoint into a model folder.

    Example: svf convert metaspikformer.pth --attention joint_hamming --out model

    Args:
        checkpoint: published file.
        attention: what it was trained with.
        out: model folder.
        heads: heads.
        classes: class names, one on each line, in order.
        frames: frames of a clip.
        size: input size.
        frame_rate_hz: frames per second (default: spread over the whole video).
    """

    checkpoint: Path = field(metadata={"metavar": "CHECKPOINT.pth", "positional": True})
    attention: Literal["joint_hamming", "joint_dot", "spatial_dot"]
    out: Path = field(metadata={"metavar": "FOLDER"})
    heads: int = field(default=8, metadata={"at_least": 1})
    classes: Path | None = field(default=None, metadata={"metavar": "FILE"})
    frames: int = field(default=8, metadata={"metavar": "T"})
    size: int = field(default=224, metadata={"metavar": "PIXELS", "multiple_of": STRIDE})
    frame_rate_hz: float | None = field(default=None, metadata={"metavar": "HZ"})


def run(options: Options) -> None:
    """Read the checkpoint, write the folder, and say what the model is."""
    clip = ClipSpec(frames=options.frames, size=options.size, frame_rate_hz=options.frame_rate_hz)
    require_file(options.checkpoint, "a published .pth checkpoint")
    require_file(options.classes, "--classes a file with one class name on each line")
    classes = None if options.classes is None else _lines(options.classes)

    from spikevideoformer.models.published import load_published

    model = load_published(options.checkpoint, attention=options.attention, heads=options.heads)
    model.save_pretrained(folder_to_write(options.out), classes=classes, clip=clip.to_dict())
    about = {
        "model": str(options.out),
        "parameters": model.num_parameters(),
        "classes": model.num_classes,
        "widths": list(model.config.widths),
        "design": model.config.design,
        "attention": model.config.attention,
    }
    text = (
        f"wrote {options.out}: {about['parameters']:,} parameters, widths "
        f"{'/'.join(map(str, model.config.widths))}, {model.num_classes} classes, "
        f"{model.config.design} {model.config.attention} attention"
    )
    show(options.json, about, text)


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text; give one class name on each line") from None
    return [line.strip() for line in lines if line.strip()]
