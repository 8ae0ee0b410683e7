"""HMDB-51 in its official layout (Kuehne et al., ICCV 2011; 51 classes, three 70/30 splits).

    root/<class>/<clip>.avi                                 (or root/hmdb51_org/<class>/<clip>.avi)
    root/testTrainMulti_7030_splits/<class>_test_split1.txt     <clip>.avi 1

The number on each line is 1 for train, 2 for test, 0 for a clip that the split does not use.
The group of a clip is its source, the part of its name before the class.
"""

from __future__ import annotations

import re
from pathlib import Path

from spikevideoformer.data.lists import malformed, numbered_lines
from spikevideoformer.data.problems import DatasetError, Problem, relative
from spikevideoformer.tasks.classification.sample import ClipIndex, ClipSample

_LIST_FOLDERS = (
    "testTrainMulti_7030_splits",
    "test_train_splits/testTrainMulti_7030_splits",
    "test_train_splits",
    ".",
)
_VIDEO_FOLDERS = ("hmdb51_org", "hmdb51", "videos")
_SPLIT_OF_NUMBER = {"1": "train", "2": "test"}


def find_hmdb51(root: Path) -> Path | None:
    """The folder with the `<class>_test_split<k>.txt` lists, or None where this is no HMDB-51."""
    for name in _LIST_FOLDERS:
        folder = root / name
        if next(folder.glob("*_test_split[123].txt"), None) is not None:
            return folder
    return None


def read_hmdb51(root: Path, fold: int = 1) -> ClipIndex:
    """Read one of the three official splits.

    Args:
        root: the folder with the class folders and the lists.
        fold: which official split, 1 to 3.

    Raises:
        DatasetError: the lists of this split are not there.
    """
    folder = find_hmdb51(root)
    suffix = f"_test_split{fold}.txt"
    lists = [] if folder is None else sorted(folder.glob(f"*{suffix}"))
    if not lists:
        raise DatasetError(
            f"{root} has no testTrainMulti_7030_splits/<class>{suffix};"
            " unpack the official lists there, or choose a fold 1-3"
        )
    videos = next((root / name for name in _VIDEO_FOLDERS if (root / name).is_dir()), root)
    # Sorted as names, not as file names: the suffix would put "shoot_ball" before "shoot".
    classes = tuple(sorted(path.name.removesuffix(suffix) for path in lists))
    samples: list[ClipSample] = []
    problems: list[Problem] = []
    for label, class_name in enumerate(classes):
        path = lists[0].with_name(class_name + suffix)
        for number, line in numbered_lines(path):
            source = f"{relative(path, root)}:{number}"
            match = re.fullmatch(r"\s*(\S.*?)\s+([012])\s*", line)
            if match is None or "\0" in line:
                problems.append(
                    malformed(source, "not <clip>.avi and 0, 1 or 2", "restore the official list")
                )
            elif match[2] != "0":
                samples.append(
                    ClipSample(
                        path=videos / class_name / match[1],
                        label=label,
                        split=_SPLIT_OF_NUMBER[match[2]],
                        group=match[1].partition(f"_{class_name}_")[0],
                        source=source,
                    )
                )
    return ClipIndex(root=root, classes=classes, samples=tuple(samples), problems=tuple(problems))
