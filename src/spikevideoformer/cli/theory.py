"""``svf theory``: Proposition 3.1 in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from spikevideoformer.cli.options import DIR, Json, Limits
from spikevideoformer.cli.output import folder_to_write, note, note_failure, show

if TYPE_CHECKING:
    from spikevideoformer.video.interface import VideoError


@dataclass(frozen=True, kw_only=True)
class Options(Json, Limits):
    """Show Proposition 3.1 in numbers: what Hamming similarity keeps of the cosine.

    Usage: svf theory [--out DIR] [--model FOLDER VIDEO ...] [--seed N] [--json]
    Example: svf theory --out svf-theory --model demo/run/model demo/clips/val/up

    Args:
        model: also measure q and k of this model (or hub id).
        videos: what the model sees: video files, folders of videos, or globs in quotes.
        out: write theory.json and pictures into this folder.
        seed: of all draws.
    """

    model: str | None = field(default=None, metadata={"metavar": "FOLDER"})
    videos: tuple[str, ...] = field(default=(), metadata={"metavar": "VIDEO", "positional": True})
    out: Path | None = field(default=None, metadata=DIR)
    seed: int = 0


def run(options: Options) -> int:
    """Measure, and print tables; how many videos could not be read."""
    from spikevideoformer.models.folder import read_about
    from spikevideoformer.theory.options import check_options
    from spikevideoformer.video.inputs import videos_among

    check_options(options.seed, options.model, options.videos)
    if options.model is not None:
        task = read_about(options.model)["task"]
        if task != "classification":
            raise ValueError(f"{options.model} is made for {task}; give a model for classification")
        videos_among(options.videos)

    from spikevideoformer.theory.run import format_table, run

    failures: list[VideoError] = []
    result = run(
        seed=options.seed,
        model=options.model,
        inputs=options.videos,
        limits=options.limits,
        out=folder_to_write(options.out),
        tell=note,
        failed=failures.append,
    )
    for failure in failures:
        note_failure(failure)
    show(options.json, result.to_dict(), format_table(result))
    return len(failures)
