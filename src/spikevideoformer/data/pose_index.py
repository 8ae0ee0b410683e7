"""`read_poses` recognises the layout of videos with poses and has them read; `settle_poses` checks.

The types are defined in `pose_sequence`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from spikevideoformer.data.check import Decode, stop_or_skip, summary_of
from spikevideoformer.data.human36m import find_human36m, read_human36m
from spikevideoformer.data.masks import picture_size
from spikevideoformer.data.mmhpsd import find_mmhpsd, read_mmhpsd
from spikevideoformer.data.pose_sequence import PoseIndex, PoseSequence
from spikevideoformer.data.rendered_pose import find_rendered, read_rendered
from spikevideoformer.data.sample import (
    DatasetError,
    Problem,
    check_data_folder,
    check_layout,
    listed_split,
    note_other_splits,
)
from spikevideoformer.data.sequence_check import Fault, file_fault, in_threads
from spikevideoformer.data.sources import VideoError
from spikevideoformer.data.threedpw import find_3dpw, read_3dpw
from spikevideoformer.data.video import check_decodes, probe

_LAYOUTS: dict[str, tuple[Callable[[Path], bool], Callable[[Path], PoseIndex]]] = {
    "mmhpsd": (find_mmhpsd, read_mmhpsd),
    "human36m": (find_human36m, read_human36m),
    "3dpw": (find_3dpw, read_3dpw),
    "rendered": (find_rendered, read_rendered),
}

POSE_LAYOUTS = tuple(_LAYOUTS)
"""The layouts that `read_poses` knows, in the order in which it tries them."""


def read_poses(
    root: Path | str, *, split: str | None = None, layout: str | None = None
) -> PoseIndex:
    """Read the poses of a data set; no picture is opened.

    What is wrong with them does not stop it: it is collected in `problems`, and `settle_poses`
    reports it together with what is wrong with the pictures.

    Args:
        root: the folder of the data set.
        split: train, val or test: only this part; None: all of them.
        layout: one of `POSE_LAYOUTS`; None: recognised by the files in the root.

    Raises:
        DatasetError: no folder, no layout that is known, no sequence, or no such split.
    """
    root = Path(root)
    check_data_folder(root, "poses")
    check_layout(layout, POSE_LAYOUTS)
    layout = layout or _recognise(root)
    try:
        index = _LAYOUTS[layout][1](root)
    except OSError as error:
        raise DatasetError(
            f"{error.filename or root} cannot be read ({error.strerror or error});"
            f" check that it exists, or that {root} has the layout {layout}"
        ) from error
    if not index.sequences and not index.problems:
        raise DatasetError(f"{root}, read as {layout}, holds no pose; add some to it")
    if split is not None:
        return index.select(split)
    note_other_splits(root, index.splits)
    return index


def _recognise(root: Path) -> str:
    """The most specific layout that the files in the root fit."""
    for layout, (find, _) in _LAYOUTS.items():
        if find(root):
            return layout
    raise DatasetError(
        f"{root} holds no poses: expected splits.csv (path,label,split) with an .npz beside each"
        " clip, or the official layout of MMHPSD (pose_events, full_pic_256), Human3.6M"
        " (S1/MyPoseFeatures/D3_Positions_mono) or 3DPW (sequenceFiles)"
    )


def settle_poses(
    index: PoseIndex,
    *,
    decode: Decode = "full",
    required_splits: Sequence[str] = (),
    skip_bad: bool = False,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PoseIndex:
    """Look for everything that is wrong with a data set; go on with what is sound, or stop.

    The list holds: what was wrong with the poses; sequences without any labelled joint; missing and
    empty files; videos and pictures that cannot be read; videos with fewer frames than poses, or at
    another frame rate; splits without sequences. Each problem costs a whole sequence.

    Args:
        index: as `read_poses` returns it, or one split of it.
        decode: "full" decodes videos to their ends and opens pictures; "open" opens videos; "none"
            only looks whether the files are there.
        required_splits: splits that must have sequences.
        skip_bad: go on without what has a problem. What is left out is written to
            `folder/skipped.csv` (path, source, kind, reason), one line for each problem.
        folder: where the list of problems goes: `skipped.csv`, or `problems.csv` where the run
            stops here; None: what is left out goes to the log, a line each.
        progress: called with the number of sequences that are done and their total.

    Returns:
        The sound sequences.

    Raises:
        DatasetError: there are problems and `skip_bad` is not set, or skipping would leave a split
            without a sequence.
    """
    problems = list(index.problems)
    sound: list[PoseSequence] = []
    findings = in_threads(lambda s: _look_at(s, decode), index.sequences, None, progress)
    for sequence, found in zip(index.sequences, findings, strict=True):
        if found is None:
            sound.append(sequence)
            continue
        path, (kind, reason, remedy) = found
        problems.append(
            Problem(
                kind=kind,
                source=sequence.name,
                reason=reason,
                remedy=remedy,
                path=path,
                split=sequence.split,
            )
        )
    required = [listed_split(split) or split for split in required_splits]
    problems += [
        Problem(
            kind="split without samples",
            source=str(index.root),
            reason=f"no sequence of {split} is there",
            remedy=f"add a {split} split",
            split=split,
        )
        for split in required
        if split not in index.splits
    ]
    cleaned = replace(index, sequences=tuple(sound), problems=())
    if not problems:
        return cleaned
    emptied = [s for s in dict.fromkeys([*index.splits, *required]) if s not in cleaned.splits]
    lost = None
    if emptied or not sound:
        name = f"split {' and '.join(emptied)}" if emptied else "data set"
        lost = f"without its bad sequences the {name} is empty"
    stop_or_skip(
        problems,
        index.root,
        summary=summary_of(problems, f"{len(index.sequences)} sequences", index.root),
        skip_bad=skip_bad,
        lost=lost,
        folder=folder,
    )
    return cleaned


def _look_at(sequence: PoseSequence, decode: Decode) -> tuple[Path | None, Fault] | None:
    """The first thing that is wrong with a sequence."""
    if not np.isfinite(sequence.truth.joints).any():
        reason = "no joint is labelled in any frame"
        return None, ("no labelled frame", reason, "restore its poses, or leave it out")
    pictures = sequence.pictures
    files = (pictures,) if isinstance(pictures, Path) else pictures
    for path in (*files, *sequence.events):
        if (fault := file_fault(path)) is not None:
            return path, fault
    for path in files:
        try:
            if isinstance(pictures, Path) and decode != "none":
                info = check_decodes(path) if decode == "full" else probe(path)
                frames = info.decoded_frames or info.declared_frames
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
