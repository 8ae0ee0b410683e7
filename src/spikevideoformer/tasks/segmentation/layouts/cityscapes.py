"""Cityscapes in its official layout (Cordts et al., CVPR 2016; 19 classes for evaluation).

    root/leftImg8bit_sequence/<split>/<city>/<city>_<seq>_<frame>_leftImg8bit.png
    root/leftImg8bit/<split>/<city>/<city>_<seq>_<frame>_leftImg8bit.png        without sequences
    root/gtFine/<split>/<city>/<city>_<seq>_<frame>_gtFine_labelIds.png

Of each snippet of 30 frames the 20th has a mask. Sequences are runs of frame numbers that follow
each other; the labelled pictures alone, where a split has no others, give sequences of one frame.
The masks of the official test split are dummies in which every pixel is ignored.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from spikevideoformer.data.lists import empty_split, subfolders
from spikevideoformer.data.problems import SPLITS, Problem, relative
from spikevideoformer.tasks.segmentation.layouts.mask_folders import pair, pictures_in
from spikevideoformer.tasks.segmentation.sequence import (
    IGNORED,
    FrameSequence,
    MaskCode,
    SequenceFrame,
    SequenceIndex,
    cut,
    in_order,
)

_IMAGE_FOLDERS = ("leftImg8bit_sequence", "leftImg8bit")
_LABEL_SUFFIX = "_gtFine_labelIds"
_IMAGE_SUFFIX = "_leftImg8bit"
_NAME = re.compile(r"(\w+_\d+)_(\d{1,15})" + _IMAGE_SUFFIX, re.ASCII)

# id, name and colour of the classes that are evaluated: labels.py of cityscapesScripts. The ids
# run from 0 to 33, and the licence plate is -1; files store it as 255, some writers as 34.
_CLASSES = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
_IGNORED_IDS = (*range(35), 255)


def find_cityscapes(root: Path) -> bool:
    """Whether the folders of images and labels are there."""
    images = any((root / name).is_dir() for name in _IMAGE_FOLDERS)
    return images and (root / "gtFine").is_dir()


def read_cityscapes(root: Path) -> SequenceIndex:
    """Read the splits that are there; a frame without a mask is not labelled."""
    sequences: list[FrameSequence] = []
    problems: list[Problem] = []
    for split in SPLITS:
        folders = (root / name / split for name in _IMAGE_FOLDERS)
        images = next((folder for folder in folders if folder.is_dir()), None)
        if images is None:
            continue
        cities = subfolders(images)
        if not cities:
            problems.append(empty_split(relative(images, root), split))
        for city in cities:
            labels = [
                label
                for label in pictures_in(root / "gtFine" / split / city.name)
                if label.stem.endswith(_LABEL_SUFFIX)  # beside them lie colours and instances
            ]
            label_of_image, unpaired = pair(
                pictures_in(city),
                labels,
                root=root,
                split=split,
                name_of_label=lambda label: label.stem.removesuffix(_LABEL_SUFFIX) + _IMAGE_SUFFIX,
            )
            problems += unpaired
            sequences += _sequences(label_of_image, relative(city, root), split, problems)
    return SequenceIndex(
        root=root,
        classes=tuple(name for _, name, _ in _CLASSES),
        palette=tuple(colour for _, _, colour in _CLASSES),
        code=MaskCode(
            values=dict.fromkeys(_IGNORED_IDS, IGNORED)
            | {number: label for label, (number, _, _) in enumerate(_CLASSES)}
        ),
        sequences=tuple(sequences),
        problems=tuple(problems),
    )


def _sequences(
    label_of_image: dict[Path, Path | None], source: str, split: str, problems: list[Problem]
) -> list[FrameSequence]:
    """The sequences of one city."""
    frames_of_drive: defaultdict[str, list[SequenceFrame]] = defaultdict(list)
    for image, label in label_of_image.items():
        match = _NAME.fullmatch(image.stem)
        if match is None:
            reason = f"{image.name} is not <city>_<seq>_<frame>{_IMAGE_SUFFIX}"
            remedy = "restore the official name, or remove the file"
            problems.append(Problem("unknown name", source, reason, remedy, image, split))
        else:
            frames_of_drive[match[1]].append(
                SequenceFrame(image=image, label=label, number=int(match[2]), source=source)
            )
    sequences = []
    for drive, unordered in frames_of_drive.items():
        frames, repeated = in_order(unordered, split)
        problems += repeated
        gaps = {i for i, f in enumerate(frames) if f.number != frames[i - 1].number + 1}
        sequences += [
            FrameSequence(name=f"{drive}_{piece[0].number:06d}", split=split, frames=piece)
            for piece in cut(frames, gaps.__contains__)
        ]
    return sequences
