"""``svf render``: motions become videos with exact joints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from spikevideoformer.cli.options import DIR, Json, flag
from spikevideoformer.cli.output import folder_to_write, require_file, show
from spikevideoformer.synth.spec import RenderSpec

if TYPE_CHECKING:
    from spikevideoformer.synth.motions import LabelledMotion


@dataclass(frozen=True, kw_only=True)
class Options(Json):
    """Turn motions into videos with exact joints, to learn pose or actions from.

    Example: svf render --out svf-motions --motions 5

    Args:
        out: the data set.
        mocap: folder of BVH files with splits.csv (path,content,style,split); default: motions that
            are computed.
        unit: of the lengths in BVH files (default: as they make a body of usual size).
        puppets: instead, N clips of two puppets who shake hands, hug, kick, point, punch or push,
            and a tenth as many for validation: motion of people to learn before one's own clips.
        motions: computed motions of each kind, a fifth of them for validation.
        clips_per_motion: clips of each motion, each with its own body, camera and light (default:
            as many as fit without overlap).
        size: height and width in pixels, a multiple of 16.
        frames: pictures of a clip.
        frame_rate_hz: pictures per second.
        view_deg: the camera stands at most so far beside the front of the body.
        seed: the same seed gives the same files.
    """

    out: Path = field(metadata=DIR)
    mocap: Path | None = field(default=None, metadata=DIR)
    unit: Literal["m", "cm", "mm", "inch"] | None = None
    puppets: int | None = field(default=None, metadata={"at_least": 6})  # one of each action
    motions: int = 20
    clips_per_motion: int | None = field(default=None, metadata={"at_least": 1})
    size: int = 64
    frames: int = 32
    frame_rate_hz: float = 20.0
    view_deg: float = 180.0
    seed: int = field(default=0, metadata={"at_least": 0})


def run(options: Options) -> None:
    """Write clips of motions."""
    if options.puppets is not None:
        _render_puppets(options, options.puppets)
        return
    if options.motions < 5:
        raise ValueError(f"--motions is {options.motions}; give at least 5, one for validation")
    if options.unit is not None and options.mocap is None:
        raise ValueError("--unit is of motion capture; give its folder with --mocap")
    settings = ("size", "frames", "frame_rate_hz", "view_deg")
    spec = RenderSpec(**{name: getattr(options, name) for name in settings})
    if options.mocap is not None:
        table = options.mocap / "splits.csv"
        require_file(table, "--mocap a folder of motion capture with a table")

    from spikevideoformer.progress import progress_on_stderr
    from spikevideoformer.synth.motions import ACTIONS, procedural_motions, read_mocap_table
    from spikevideoformer.synth.render import write_motion_clips

    out = folder_to_write(options.out)
    if options.mocap is None:
        motions, total = procedural_motions(options.motions), options.motions * len(ACTIONS)
    else:
        rows = read_mocap_table(options.mocap)
        motions, total = (row.load(options.unit) for row in rows), len(rows)
    with progress_on_stderr("motion") as tell:
        told, each = _told(motions, total, tell), options.clips_per_motion
        clips = write_motion_clips(told, out, spec=spec, seed=options.seed, clips_per_motion=each)
    values = {"out": str(out), "motions": total, "clips": clips}
    show(options.json, values, f"{clips} clips of {total} motions, with exact joints: {out}")


def _render_puppets(options: Options, train: int) -> None:
    from spikevideoformer.synth.directions import write_interaction_clips

    for f in fields(options):
        fits = f.name in ("out", "puppets", "seed", "json")
        if not fits and getattr(options, f.name) != f.default:
            raise ValueError(f"--puppets act by themselves, as they are; leave out {flag(f.name)}")
    val, out = max(6, train // 10), folder_to_write(options.out)
    write_interaction_clips(out, train=train, val=val, seed=options.seed)
    values = {"out": str(out), "clips": train + val}
    show(options.json, values, f"{train + val} clips of puppets: {out}")


def _told(
    motions: Iterator[LabelledMotion], total: int, tell: Callable[[int, int | None], None]
) -> Iterator[LabelledMotion]:
    for number, motion in enumerate(motions):
        tell(number, total)
        yield motion
