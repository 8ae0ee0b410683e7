"""The check before step 0 for videos with poses. Each problem costs a whole sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from spikevideoformer.data.check import (
    Fault,
    Progress,
    Report,
    absent_splits,
    file_fault,
    in_threads,
    split_names,
)
from spikevideoformer.data.pictures import picture_size
from spikevideoformer.data.problems import Problem
from spikevideoformer.data.specs import Decode
from spikevideoformer.tasks.pose.sequence import PoseIndex, PoseSequence
from spikevideoformer.tasks.pose.spec import PoseSpec
from spikevideoformer.video.event_pictures import EventPath, seen
from spikevideoformer.video.frames import check_decodes, probe
from spikevideoformer.video.interface import VideoError, VideoName


def check_poses(
    index: PoseIndex,
    *,
    required_splits: Sequence[str] = (),
    decode: Decode = "full",
    spec: PoseSpec | None = None,
    progress: Progress | None = None,
) -> Report[PoseIndex]:
    """Look for everything that is wrong with a data set.

    The list holds: what was wrong with the poses; sequences without any joint that is labelled, in
    space or in the picture; missing and empty files; videos and pictures that cannot be read;
    videos with fewer frames than poses, or at another frame rate; splits without sequences.

    Args:
        index: as `read_poses` returns it, or one split of it.
        required_splits: splits that must have sequences.
        decode: "full" decodes videos to their ends and opens pictures; "open" opens videos; "none"
            only looks whether the files are there.
        spec: how the network sees videos; None: as pictures.
        progress: called with the number of sequences that are done and their total.
    """
    required = split_names(required_splits)
    problems = list(index.problems)
    findings = in_threads(lambda s: _look_at(s, decode, spec), index.sequences, progress)
    for sequence, found in zip(index.sequences, findings, strict=True):
        if found is not None:
            path, (kind, reason, remedy) = found
            split = sequence.split
            problems.append(Problem(kind, sequence.name, reason, remedy, path, split, sequence))
    problems += absent_splits(index, required, "no sequence of {split} is there", index.splits)
    return Report(index=index, problems=tuple(problems), required=required)


def _look_at(
    sequence: PoseSequence, decode: Decode, spec: PoseSpec | None
) -> tuple[Path | None, Fault] | None:
    """The first thing that is wrong with a sequence."""
    truth = sequence.truth
    if not (np.isfinite(truth.joints).any() or np.isfinite(truth.points).any()):
        reason = "no joint is labelled in any frame"
        return None, ("no labelled frame", reason, "restore its poses, or leave it out")
    pictures = sequence.pictures
    files = (pictures,) if isinstance(pictures, Path) else pictures
    for path in (*files, *sequence.events):
        if path is None:  # nothing is known of that frame
            continue
        if (fault := file_fault(path)) is not None:
            return path, fault
    for path in files:
        try:
            if isinstance(pictures, Path) and decode != "none":
                look = check_decodes if decode == "full" else probe
                info = look(_video(path, sequence, spec))
                frames = info.decoded_frames or info.declared_frames
                if info.codec == "events":  # which end with the last event: all may be still
                    frames = None
                if frames is not None and frames < len(sequence):
                    reason = f"{path.name} has {frames} frames, but there are {len(sequence)} poses"
                    return path, ("short video", reason, "restore the whole video")
                # Pictures are found by their times; of one pose it is the first of all.
                drift = abs(info.frame_rate_hz / sequence.frame_rate_hz - 1) * len(sequence)
                if len(sequence) > 1 and drift >= 0.5:
                    reason = (
                        f"{path.name} has {info.frame_rate_hz:g} frames a second, but its poses"
                        f" {sequence.frame_rate_hz:g}"
                    )
                    return path, ("other frame rate", reason, "restore the video of these poses")
            elif decode == "full":
                picture_size(path)
        except VideoError as error:
            return path, ("unreadable pictures", str(error), "replace the file")
    return None


def _video(path: Path, sequence: PoseSequence, spec: PoseSpec | None) -> VideoName:
    """A video, or a recording of which each pose has a picture."""
    video = seen(path, spec)
    if isinstance(video, EventPath):
        return replace(video, view=replace(video.view, rate_hz=sequence.frame_rate_hz))
    return video
