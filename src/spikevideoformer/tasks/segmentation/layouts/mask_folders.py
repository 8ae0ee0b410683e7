"""Folders of pictures with masks beside them: one folder a sequence.

    root/<split>/<sequence>/images/*            split: train, val or test (also validation, ...)
    root/<split>/<sequence>/labels/<stem>.png   masks; frames without one are not labelled
    root/classes.csv                            id,name and optionally r,g,b; see `mask_table`

The frames of a sequence follow each other in natural order of their names: 2 before 10. In place of
pictures there may be recordings of the events since the frame before.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from itertools import pairwise
from pathlib import Path

from spikevideoformer.data.lists import split_folders, subfolders
from spikevideoformer.data.problems import Problem, relative
from spikevideoformer.events.spec import EVENT_SUFFIXES
from spikevideoformer.tasks.segmentation.layouts.mask_table import read_class_table
from spikevideoformer.tasks.segmentation.sequence import (
    FrameSequence,
    SequenceFrame,
    SequenceIndex,
    number_by_position,
)
from spikevideoformer.video.inputs import names_of_no_clip, tell_passed_over
from spikevideoformer.video.interface import IMAGE_SUFFIXES, natural_key


def find_mask_folders(root: Path) -> bool:
    """Whether a split folder of the root holds a sequence."""
    return any(
        (sequence / "images").is_dir()
        for _, folder in split_folders(root)
        for sequence in subfolders(folder)
    )


def pictures_in(folder: Path, suffixes: Set[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The files directly inside, in natural order, without hidden ones; [] if no folder.

    Args:
        folder: where to look.
        suffixes: endings of the files; those of images.
    """
    if not folder.is_dir():
        return []
    shown = [f for f in folder.iterdir() if f.is_file() and not f.name.startswith(".")]
    others = tuple(sorted(names_of_no_clip(f.name for f in shown)))
    tell_passed_over(folder, "files that are no pictures", others, "save them as PNG")
    return sorted((f for f in shown if f.suffix.lower() in suffixes), key=natural_key)


def pair(
    images: list[Path],
    labels: list[Path],
    *,
    root: Path,
    split: str | None,
    name_of_label: Callable[[Path], str] = lambda label: label.stem,
) -> tuple[dict[Path, Path | None], list[Problem]]:
    """Find the mask of each image: the one whose name is the image's without its ending.

    Args:
        images: of one folder.
        labels: of one folder.
        root: what problems name files relative to.
        split: of the images; None: of several.
        name_of_label: the stem of the image that a mask belongs to.

    Returns:
        The mask of each image, or None; and a problem for each mask without an image.
    """
    label_of_name = {name_of_label(label): label for label in labels}
    found = {image: label_of_name.get(image.stem) for image in images}
    used = set(found.values())
    problems = [
        Problem(
            kind="label without image",
            source=relative(label.parent, root),
            reason=f"{label.name} belongs to no image",
            remedy="add the image, or remove the mask",
            path=label,
            split=split,
        )
        for label in labels
        if label not in used
    ]
    return found, problems


def read_mask_folders(root: Path) -> SequenceIndex:
    """Read all split folders.

    Raises:
        DatasetError: `classes.csv` cannot be used.
    """
    table = read_class_table(root)
    sequences: list[FrameSequence] = []
    problems: list[Problem] = []
    for split, split_folder in split_folders(root):
        for folder in subfolders(split_folder):
            source = relative(folder, root)
            images = pictures_in(folder / "images")
            images = images or pictures_in(folder / "images", EVENT_SUFFIXES)
            label_of_image, unpaired = pair(
                images, pictures_in(folder / "labels"), root=root, split=split
            )
            problems += unpaired
            problems += [
                Problem(
                    kind="repeated frame",
                    source=source,
                    reason=f"{second.name} and {first.name} have one name",
                    remedy="keep one of the two",
                    path=second,
                    split=split,
                )
                for first, second in pairwise(images)
                if first.stem == second.stem
            ]
            if not images:
                reason = "no picture in its folder images"
                remedy = "add pictures, or remove the folder"
                problems.append(Problem("empty sequence", source, reason, remedy, folder, split))
                continue
            frames = number_by_position(
                SequenceFrame(image=image, label=label, number=0, source=source)
                for image, label in label_of_image.items()
            )
            sequences.append(FrameSequence(name=source, split=split, frames=tuple(frames)))
    return SequenceIndex(
        root=root,
        classes=table.names,
        palette=table.palette,
        code=table.code,
        sequences=tuple(sequences),
        problems=tuple(problems),
    )
