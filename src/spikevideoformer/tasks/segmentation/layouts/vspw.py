"""VSPW in its official layout (Miao et al., CVPR 2021; 124 classes, every frame labelled).

    root/train.txt, val.txt, test.txt           names of videos, one a line
    root/data/<video>/origin/<frame>.jpg        or .png
    root/data/<video>/mask/<frame>.png          1 to 124 are classes; 0 and 255 are ignored
    root/label_num_dic_final.json               optional: {"wall": 1, ...}

Without the last file the classes are called class_1 to class_124.
The masks of the official test split are not public.
"""

from __future__ import annotations

import json
from pathlib import Path

from spikevideoformer.data.lists import empty_split, malformed, numbered_lines
from spikevideoformer.data.problems import SPLITS, DatasetError, Problem, relative
from spikevideoformer.tasks.segmentation.layouts.mask_folders import pair, pictures_in
from spikevideoformer.tasks.segmentation.masks import distinct_palette
from spikevideoformer.tasks.segmentation.sequence import (
    IGNORED,
    FrameSequence,
    MaskCode,
    SequenceFrame,
    SequenceIndex,
    in_order,
)

_CLASSES = 124
_CLASS_FILE = "label_num_dic_final.json"


def find_vspw(root: Path) -> bool:
    """Whether there are a list of videos and a folder of videos with frames in `origin`."""
    listed = any((root / f"{split}.txt").is_file() for split in SPLITS)
    return listed and next((root / "data").glob("*/origin"), None) is not None


def read_vspw(root: Path) -> SequenceIndex:
    """Read the splits that have a list; a video is one sequence.

    Raises:
        DatasetError: `label_num_dic_final.json` does not name the classes 1 to 124.
    """
    sequences: list[FrameSequence] = []
    problems: list[Problem] = []
    for split in SPLITS:
        path = root / f"{split}.txt"
        if not path.is_file():
            continue
        source_of_video: dict[str, str] = {}
        for number, line in numbered_lines(path):
            source, video = f"{path.name}:{number}", line.strip()
            if "/" in video or "\0" in video:
                reason = "not the name of a video"
                problems.append(malformed(source, reason, "restore the official list", split))
            elif video in source_of_video:
                reason = f"{video} is already listed in {source_of_video[video]}"
                problems.append(malformed(source, reason, "remove one of the two lines", split))
            else:
                source_of_video[video] = source
                frames = _frames(root, video, source, split, problems)
                if frames:
                    name = f"{split}/{video}"
                    sequences.append(FrameSequence(name=name, split=split, frames=tuple(frames)))
        if not source_of_video:
            problems.append(empty_split(path.name, split))
    ignored = {0: IGNORED, 255: IGNORED}
    return SequenceIndex(
        root=root,
        classes=_class_names(root),
        palette=distinct_palette(_CLASSES),
        code=MaskCode(values=ignored | {i + 1: i for i in range(_CLASSES)}),
        sequences=tuple(sequences),
        problems=tuple(problems),
    )


def _frames(
    root: Path, video: str, source: str, split: str, problems: list[Problem]
) -> list[SequenceFrame]:
    folder = root / "data" / video
    images = pictures_in(folder / "origin")
    label_of_image, unpaired = pair(images, pictures_in(folder / "mask"), root=root, split=split)
    problems += unpaired
    if not images:
        reason = f"no picture in {relative(folder / 'origin', root)}"
        remedy = "unpack the video there, or remove the line"
        problems.append(Problem("missing file", source, reason, remedy, folder, split))
    frames: list[SequenceFrame] = []
    for image, label in label_of_image.items():
        if image.stem.isascii() and image.stem.isdecimal() and len(image.stem) < 16:
            frames.append(
                SequenceFrame(image=image, label=label, number=int(image.stem), source=source)
            )
        else:
            reason = f"{relative(image, root)} is not a frame number"
            remedy = "restore the official name, or remove the file"
            problems.append(Problem("unknown name", source, reason, remedy, image, split))
    ordered, repeated = in_order(frames, split)
    problems += repeated
    return ordered


def _class_names(root: Path) -> tuple[str, ...]:
    path = root / _CLASS_FILE
    if not path.is_file():
        return tuple(f"class_{number}" for number in range(1, _CLASSES + 1))
    try:
        name_of_number = {int(n): str(k) for k, n in json.loads(path.read_text("utf-8")).items()}
        return tuple(name_of_number[number] for number in range(1, _CLASSES + 1))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise DatasetError(
            f"{path} does not map names to the numbers 1 to {_CLASSES} ({error!r}); restore the"
            " official file, or remove it"
        ) from error
