"""Frames with masks listed in a table: the layout for data of one's own.

    root/splits.csv          image,label,split and optionally segment, sequence, frame
    root/classes.csv         id,name and optionally r,g,b

`label` is the mask of a frame, a picture of one channel whose values are the ids; empty where the
frame is not labelled. Frames with the same `segment` follow each other in one video; where there
is no such column `sequence` says so, else the folder of the image. Their order is that of `frame`,
a whole number, else of their names. Paths are relative to the root, or absolute; other columns are
not read. A class called unlabelled (or unlabeled, void, ignore, ignored) is none: its pixels count
nowhere, and neither do those of value 255 unless a class has that id.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from spikevideoformer.data.lists import csv_records, listed_path, malformed, split_records
from spikevideoformer.data.problems import DatasetError, Problem, relative
from spikevideoformer.tasks.segmentation.masks import distinct_palette
from spikevideoformer.tasks.segmentation.sequence import (
    IGNORED,
    Colour,
    FrameSequence,
    MaskCode,
    SequenceFrame,
    SequenceIndex,
    in_order,
    number_by_position,
)
from spikevideoformer.video.interface import natural_key

_NO_CLASS = frozenset({"unlabelled", "unlabeled", "void", "ignore", "ignored"})
_MOST_CLASSES = 254


@dataclass(frozen=True, kw_only=True)
class ClassTable:
    """The classes of a `classes.csv`, in the order of their ids.

    Args:
        names: without the classes that stand for "none".
        palette: a colour for each.
        code: class index of each id.
    """

    names: tuple[str, ...]
    palette: tuple[Colour, ...]
    code: MaskCode


def read_class_table(root: Path) -> ClassTable:
    """Read `root/classes.csv`.

    Raises:
        DatasetError: no such file, a line that is no class, an id or name that comes twice, or no
            class in it. Nothing can be read without the classes, so the first mistake stops.
    """
    path = root / "classes.csv"
    if not path.is_file():
        raise DatasetError(
            f"{path} does not exist; write the classes of the masks there, first a line id,name and"
            " then one line a class, such as 0,road (r,g,b may follow)"
        )
    name_of_id: dict[int, str] = {}
    colour_of_id: dict[int, Colour] = {}
    for source, record in csv_records(path, ("id", "name")):
        where = f"{path.parent / source}"
        if isinstance(record, Problem):
            raise DatasetError(f"{where}: {record.reason}; {record.remedy}")
        number, name = _whole(record["id"], 65535), record["name"]
        if number is None or not name:
            raise DatasetError(
                f"{where}: id is {record['id']!r} and name {name!r}; give a whole number of 0 to"
                " 65535 and a name"
            )
        if number in name_of_id or name in name_of_id.values():
            raise DatasetError(f"{where}: id {number} or name {name!r} comes twice; keep one line")
        name_of_id[number] = name
        texts = [record.get(channel, "") for channel in "rgb"]
        if any(texts):
            colour = [_whole(text, 255) for text in texts]
            if None in colour:
                raise DatasetError(
                    f"{where}: r,g,b is {','.join(texts)}; give three whole numbers of 0 to 255,"
                    " or none"
                )
            colour_of_id[number] = (colour[0] or 0, colour[1] or 0, colour[2] or 0)
    ids = [i for i in sorted(name_of_id) if name_of_id[i].lower() not in _NO_CLASS]
    if not 0 < len(ids) <= _MOST_CLASSES:
        raise DatasetError(f"{path} has {len(ids)} classes; list 1 to {_MOST_CLASSES}")
    spare = distinct_palette(len(ids))
    class_of_id = {i: ids.index(i) if i in ids else IGNORED for i in name_of_id}
    return ClassTable(
        names=tuple(name_of_id[i] for i in ids),
        palette=tuple(colour_of_id.get(i, spare[label]) for label, i in enumerate(ids)),
        code=MaskCode(values={IGNORED: IGNORED} | class_of_id),
    )


def read_mask_table(root: Path) -> SequenceIndex:
    """Read `splits.csv` and `classes.csv`.

    Raises:
        DatasetError: `classes.csv` cannot be used.
    """
    table = read_class_table(root)
    problems: list[Problem] = []
    listed: defaultdict[tuple[str, str], list[tuple[int | None, SequenceFrame]]] = defaultdict(list)
    source_of_image: dict[tuple[str, Path], str] = {}
    for source, split, record in split_records(root / "splits.csv", ("image", "label"), problems):
        number = _whole(record.get("frame", ""))
        image = listed_path(root, record["image"])
        if not record["image"] or "\0" in record["image"] + record["label"]:
            reason, remedy = "no usable image or label", "give the image, and the label or nothing"
        elif number is None and record.get("frame"):
            reason, remedy = f"frame is {record['frame']!r}", "give a whole number, or leave it out"
        elif (split, image) in source_of_image:
            reason = f"{record['image']} is already listed in {source_of_image[split, image]}"
            remedy = "remove one of the two lines"
        else:
            source_of_image[split, image] = source
            group = record.get("segment") or record.get("sequence") or relative(image.parent, root)
            label = listed_path(root, record["label"]) if record["label"] else None
            frame = SequenceFrame(image=image, label=label, number=number or 0, source=source)
            listed[split, group].append((number, frame))
            continue
        problems.append(malformed(source, reason, remedy, split))
    splits_of_group: defaultdict[str, int] = defaultdict(int)
    for _, group in listed:
        splits_of_group[group] += 1
    sequences: list[FrameSequence] = []
    for (split, group), entries in listed.items():
        if all(number is None for number, _ in entries):
            by_name = sorted((frame for _, frame in entries), key=lambda f: natural_key(f.image))
            frames = number_by_position(by_name)
        else:
            problems += [
                malformed(
                    f.source, "no frame, but others of its sequence have one", "fill it in", split
                )
                for number, f in entries
                if number is None
            ]
            frames, repeated = in_order((f for n, f in entries if n is not None), split)
            problems += repeated
        name = group if splits_of_group[group] == 1 else f"{split}/{group}"
        sequences.append(FrameSequence(name=name, split=split, frames=tuple(frames)))
    return SequenceIndex(
        root=root,
        classes=table.names,
        palette=table.palette,
        code=table.code,
        sequences=tuple(sequences),
        problems=tuple(problems),
    )


def _whole(text: str, most: int = 10**15) -> int | None:
    """A whole number of 0 to `most`; None for any other text."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 17 else -1
    return number if 0 <= number <= most else None
