"""UCF-101 in its official layout (Soomro, Zamir, Shah 2012; 101 classes, three train/test splits).

    root/UCF-101/<Class>/v_<Class>_g01_c01.avi      (or the class folders directly in the root)
    root/ucfTrainTestlist/classInd.txt              1 ApplyEyeMakeup
    root/ucfTrainTestlist/trainlist01.txt           ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1
    root/ucfTrainTestlist/testlist01.txt            ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi

Classes keep the official order. The group of a clip is its source video (class and g number).
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from spikevideoformer.data.lists import empty_split, malformed, numbered_lines
from spikevideoformer.data.problems import DatasetError, Problem, relative
from spikevideoformer.tasks.classification.layouts.lists import label_problem
from spikevideoformer.tasks.classification.sample import ClipIndex, ClipSample


def find_ucf101(root: Path) -> Path | None:
    """The folder with `classInd.txt` and the lists, or None where this is no UCF-101."""
    for folder in (root / "ucfTrainTestlist", root):
        if (folder / "classInd.txt").is_file():
            return folder
    return None


def read_ucf101(root: Path, fold: int = 1) -> ClipIndex:
    """Read one of the three official splits.

    Args:
        root: the folder with the videos and `ucfTrainTestlist`.
        fold: which official split, 1 to 3.

    Raises:
        DatasetError: the lists of this split are not there.
    """
    lists = find_ucf101(root)
    if lists is None:
        raise DatasetError(
            f"{root} has no ucfTrainTestlist/classInd.txt; unpack the official lists there"
        )
    classes, problems = _read_classes(lists / "classInd.txt", root)
    videos = root / "UCF-101" if (root / "UCF-101").is_dir() else root
    samples: list[ClipSample] = []
    for split in ("train", "test"):
        path = lists / f"{split}list{fold:02d}.txt"
        if not path.is_file():
            raise DatasetError(
                f"{path} is missing; unpack the official lists, or choose a fold 1-3"
            )
        listed = False
        for number, line in numbered_lines(path):
            listed = True
            source = f"{relative(path, root)}:{number}"
            read = _read_line(line, source, split, videos, classes)
            if isinstance(read, Problem):
                problems.append(read)
            else:
                samples.append(read)
        if not listed:
            problems.append(empty_split(relative(path, root), split))
    return ClipIndex(root=root, classes=classes, samples=tuple(samples), problems=tuple(problems))


def _read_classes(path: Path, root: Path) -> tuple[tuple[str, ...], list[Problem]]:
    classes: list[str] = []
    problems: list[Problem] = []
    for number, line in numbered_lines(path):
        fields = line.split()
        if len(fields) != 2 or fields[0] != str(len(classes) + 1) or fields[1] in classes:
            source = f"{relative(path, root)}:{number}"
            reason = f"not the number {len(classes) + 1} and a new class name"
            problems.append(malformed(source, reason, "restore the official file"))
        else:
            classes.append(fields[1])
    return tuple(classes), problems


def _read_line(
    line: str, source: str, split: str, videos: Path, classes: tuple[str, ...]
) -> ClipSample | Problem:
    # Test lists give only the path; its folder is the class in both kinds of list.
    match = re.fullmatch(r"\s*(\S+/\S+)(?:\s+(-?\d+))?\s*", line)
    if match is None or "\0" in line:
        return malformed(
            source, "not <Class>/<clip>.avi with an optional number", "restore the list", split
        )
    file, number = match.groups()
    path, class_name = videos / file, PurePosixPath(file).parent.name
    wrong: tuple[str, str] | None = None
    if number is not None and not 1 <= int(number) <= len(classes):
        wrong = "label out of range", f"label {number} is not one of 1 to {len(classes)}"
    elif class_name not in classes:
        return label_problem(source, class_name, split, path, len(classes), numeric=False)
    elif number is not None and int(number) != (own := classes.index(class_name) + 1):
        wrong = "unknown label", f"label {number} is not the {own} of its folder {class_name!r}"
    if wrong is not None:
        kind, reason = wrong
        remedy = "restore the official list"
        return Problem(kind, source, reason, remedy, path=path, split=split)
    group = re.fullmatch(r"v_(.+_g\d+)_c\d+", path.stem)
    return ClipSample(
        path=path,
        label=classes.index(class_name),
        split=split,
        group=group[1] if group else None,
        source=source,
    )
