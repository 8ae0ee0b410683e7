"""At which moments a stretch of video is looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from spikevideoformer.video.spec import ClipSpec


def window_times(
    spec: ClipSpec,
    start_s: float,
    end_s: float,
    *,
    jitter: float = 0.0,
    generator: torch.Generator | None = None,
) -> list[float]:
    """The T moments at which a stretch of video is sampled.

    The stretch is cut into T equal slices and each is sampled at its centre. Where the spec has a
    frame rate, the slices last one frame each, and T of them lie in the middle of the stretch (or,
    where it is shorter, start with it and run past its end).

    Args:
        spec: gives T and the frame rate.
        start_s: start of the stretch.
        end_s: its end, above `start_s`.
        jitter: in [0, 1]; each moment moves by up to this part of half a slice either way, and a
            clip shorter than its stretch moves by up to this part of the room it has.
        generator: source of the jitter; needed where `jitter` is not 0.

    Returns:
        T rising times in seconds.

    Raises:
        ValueError: an empty stretch, a jitter outside [0, 1], or jitter without a generator.
    """
    check_stretch(start_s, end_s)
    if not 0 <= jitter <= 1:
        raise ValueError(f"jitter must be between 0 and 1, got {jitter}")
    if jitter and generator is None:
        raise ValueError("jitter needs a torch.Generator, so that clips repeat by seed")
    shift, moves = 0.5, [0.5] * spec.frames
    if jitter:
        draws = torch.rand(spec.frames + 1, generator=generator, dtype=torch.float64) - 0.5
        shift, *moves = (0.5 + jitter * draws).tolist()
    return _times(spec, start_s, end_s, shift, moves)


def multi_clip_times(
    spec: ClipSpec, start_s: float, end_s: float, *, clips: int
) -> list[list[float]]:
    """The moments of several clips that together cover a stretch, for averaging over them.

    Clips shorter than the stretch are spread over it evenly; clips as long as the stretch sample
    its slices at different places. One clip is that of `window_times`.

    Args:
        spec: gives T and the frame rate.
        start_s: start of the stretch.
        end_s: its end, above `start_s`.
        clips: how many, at least 1.

    Raises:
        ValueError: an empty stretch or no clips.
    """
    if clips < 1:
        raise ValueError(f"clips must be at least 1, got {clips}")
    check_stretch(start_s, end_s)
    slice_s, room_s = _layout(spec, start_s, end_s)
    times = []
    for place in ((index + 0.5) / clips for index in range(clips)):
        within = 0.5 if room_s >= slice_s else place
        times.append(_times(spec, start_s, end_s, place, [within] * spec.frames))
    return times


def check_stretch(start_s: float, end_s: float) -> None:
    """Raise ValueError for a stretch that is empty, or begins before 0."""
    if not (math.isfinite(start_s) and math.isfinite(end_s) and 0 <= start_s < end_s):
        raise ValueError(f"a clip needs 0 <= start_s < end_s, got {start_s} and {end_s}")


def _layout(spec: ClipSpec, start_s: float, end_s: float) -> tuple[float, float]:
    """Length of a slice, and what T slices leave free of the stretch."""
    if spec.frame_rate_hz is None:
        return (end_s - start_s) / spec.frames, 0.0
    slice_s = 1 / spec.frame_rate_hz
    return slice_s, max(0.0, end_s - start_s - spec.frames * slice_s)


def _times(
    spec: ClipSpec, start_s: float, end_s: float, place: float, within: Sequence[float]
) -> list[float]:
    """Times at `within` (0 to 1) of each slice, the slices at `place` (0 to 1) of the free room."""
    slice_s, room_s = _layout(spec, start_s, end_s)
    first_s = start_s + room_s * place
    return [first_s + (index + part) * slice_s for index, part in enumerate(within)]
