"""CamVid in its original release (Brostow et al., PRL 2009; 701 frames of four drives, 32 colours).

    root/701_StillsRaw_full/<recording>_<frame>.png         0001TP_006690.png, Seq05VD_f00000.png
    root/LabeledApproved_full/<recording>_<frame>_L.png
    root/label_colors.txt                                   R G B and the name of the class
    root/train.txt, val.txt, test.txt                       optional: the images, one a line

The lists are those of SegNet (of each line the first column, of that the file name); images that no
list names are not used. Without them whole recordings are held out, so that no split sees a street
of another: 0006R0 is val, Seq05VD is test. SegNet's lists put neighbours in time on both sides.

By default the 31 classes are joined to the usual 11; `camvid32` keeps them. Void is ignored.
"""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from spikevideoformer.data.lists import empty_split, find_lists, malformed, numbered_lines
from spikevideoformer.data.problems import Problem
from spikevideoformer.tasks.segmentation.layouts.mask_folders import pair, pictures_in
from spikevideoformer.tasks.segmentation.sequence import (
    IGNORED,
    Colour,
    FrameSequence,
    MaskCode,
    SequenceFrame,
    SequenceIndex,
    cut,
    in_order,
)

_IMAGES = "701_StillsRaw_full"
_LABELS = "LabeledApproved_full"
_NAME = re.compile(r"([0-9A-Za-z]+)_f?(\d{1,15})", re.ASCII)
_HELD_OUT = {"0006R0": "val", "Seq05VD": "test"}

# The official label_colors.txt.
_COLOURS: dict[str, Colour] = {
    "Animal": (64, 128, 64),
    "Archway": (192, 0, 128),
    "Bicyclist": (0, 128, 192),
    "Bridge": (0, 128, 64),
    "Building": (128, 0, 0),
    "Car": (64, 0, 128),
    "CartLuggagePram": (64, 0, 192),
    "Child": (192, 128, 64),
    "Column_Pole": (192, 192, 128),
    "Fence": (64, 64, 128),
    "LaneMkgsDriv": (128, 0, 192),
    "LaneMkgsNonDriv": (192, 0, 64),
    "Misc_Text": (128, 128, 64),
    "MotorcycleScooter": (192, 0, 192),
    "OtherMoving": (128, 64, 64),
    "ParkingBlock": (64, 192, 128),
    "Pedestrian": (64, 64, 0),
    "Road": (128, 64, 128),
    "RoadShoulder": (128, 128, 192),
    "Sidewalk": (0, 0, 192),
    "SignSymbol": (192, 128, 128),
    "Sky": (128, 128, 128),
    "SUVPickupTruck": (64, 128, 192),
    "TrafficCone": (0, 0, 64),
    "TrafficLight": (0, 64, 64),
    "Train": (192, 64, 128),
    "Tree": (128, 128, 0),
    "Truck_Bus": (192, 128, 192),
    "Tunnel": (64, 0, 64),
    "VegetationMisc": (192, 192, 0),
    "Void": (0, 0, 0),
    "Wall": (64, 192, 0),
}

# The 11 classes of Sturgess et al. (BMVC 2009) and SegNet, in SegNet's order. The first of the
# classes that are joined lends its colour.
_JOINED = {
    "Sky": ("Sky",),
    "Building": ("Building", "Archway", "Bridge", "Tunnel", "Wall"),
    "Pole": ("Column_Pole", "TrafficCone"),
    "Road": ("Road", "LaneMkgsDriv", "LaneMkgsNonDriv"),
    "Pavement": ("Sidewalk", "ParkingBlock", "RoadShoulder"),
    "Tree": ("Tree", "VegetationMisc"),
    "SignSymbol": ("SignSymbol", "Misc_Text", "TrafficLight"),
    "Fence": ("Fence",),
    "Car": ("Car", "SUVPickupTruck", "Truck_Bus", "Train", "OtherMoving"),
    "Pedestrian": ("Pedestrian", "Child", "CartLuggagePram", "Animal"),
    "Bicyclist": ("Bicyclist", "MotorcycleScooter"),
}
_APART = {name: (name,) for name in _COLOURS if name != "Void"}


def find_camvid(root: Path) -> bool:
    """Whether the folders of images and labels are there."""
    return (root / _IMAGES).is_dir() and (root / _LABELS).is_dir()


def read_camvid(root: Path, *, layout: str = "camvid") -> SequenceIndex:
    """Read the frames of all splits.

    Sequences are cut where a step of the frame number is more than 1.5 times a step beside it: the
    recordings have gaps, and one of them holds pieces at 1 Hz and at 15 Hz.

    Args:
        root: the folder with the two folders.
        layout: "camvid" joins the classes to 11, "camvid32" keeps all but Void.
    """
    colours, problems = _read_colours(root)
    joined = _APART if layout == "camvid32" else _JOINED
    class_of_colour = {colours["Void"]: IGNORED}
    for label, names in enumerate(joined.values()):
        class_of_colour |= {colours[name]: label for name in names}

    label_of_image, unpaired = pair(
        pictures_in(root / _IMAGES),
        pictures_in(root / _LABELS),
        root=root,
        split=None,
        name_of_label=lambda label: label.stem.removesuffix("_L"),
    )
    problems += unpaired
    frames_of_recording: defaultdict[tuple[str, str], list[SequenceFrame]] = defaultdict(list)
    for split, image, source in _images_with_split(root, list(label_of_image), problems):
        match = _NAME.fullmatch(image.stem)
        if match is None:
            reason = f"{image.name} is not <recording>_<frame>"
            remedy = "restore the official name, or remove the file"
            problems.append(Problem("unknown name", source, reason, remedy, image, split))
            continue
        recording = match[1]
        split = split or _HELD_OUT.get(recording, "train")
        frames_of_recording[split, recording].append(
            SequenceFrame(
                image=image, label=label_of_image[image], number=int(match[2]), source=source
            )
        )
    sequences: list[FrameSequence] = []
    for (split, recording), unordered in frames_of_recording.items():
        frames, repeated = in_order(unordered, split)
        problems += repeated
        sequences += [
            FrameSequence(
                name=f"{split}/{recording}_{piece[0].number:06d}", split=split, frames=piece
            )
            for piece in _even_pieces(frames)
        ]
    return SequenceIndex(
        root=root,
        classes=tuple(joined),
        palette=tuple(colours[names[0]] for names in joined.values()),
        code=MaskCode(values=class_of_colour),
        sequences=tuple(sequences),
        problems=tuple(problems),
    )


def _even_pieces(frames: list[SequenceFrame]) -> list[tuple[SequenceFrame, ...]]:
    steps = [b.number - a.number for a, b in pairwise(frames)]

    def before(position: int) -> bool:
        beside = steps[max(position - 2, 0) : position + 1]  # with the step itself in the middle
        return steps[position - 1] > 1.5 * min(beside)

    return cut(frames, before)


def _images_with_split(
    root: Path, images: list[Path], problems: list[Problem]
) -> list[tuple[str | None, Path, str]]:
    """Split, image and where that is declared; the split is None where no list says it."""
    lists = {split: path for split, path in find_lists(root).items() if path.suffix == ".txt"}
    if not lists:
        return [(None, image, _IMAGES) for image in images]
    image_of_name = {image.name: image for image in images}
    listed: dict[tuple[str, Path], str] = {}
    for split, path in lists.items():
        lines = list(numbered_lines(path))
        if not lines:
            problems.append(empty_split(path.name, split))
        for number, line in lines:
            source = f"{path.name}:{number}"
            name = line.split()[0].rpartition("/")[2]
            image = image_of_name.get(name)
            if image is None:
                reason, remedy = f"{name} is not in {_IMAGES}", "restore it, or remove the line"
                missing = root / _IMAGES / name
                problems.append(Problem("missing file", source, reason, remedy, missing, split))
            elif (split, image) in listed:
                reason = f"{name} is already listed in {listed[split, image]}"
                problems.append(malformed(source, reason, "remove one of the two lines", split))
            else:
                listed[split, image] = source
    return [(split, image, source) for (split, image), source in listed.items()]


def _read_colours(root: Path) -> tuple[dict[str, Colour], list[Problem]]:
    """The official colours, changed by what `label_colors.txt` says."""
    colours = dict(_COLOURS)
    path = root / "label_colors.txt"
    problems: list[Problem] = []
    for number, line in numbered_lines(path) if path.is_file() else ():
        fields = line.split()
        values = [int(f) for f in fields[:3] if re.fullmatch(r"\d{1,3}", f, re.ASCII)]
        if len(fields) == 4 and len(values) == 3 and max(values) < 256 and fields[3] in colours:
            colours[fields[3]] = (values[0], values[1], values[2])
        else:
            reason = "not R G B and the name of one of the 32 classes"
            problems.append(malformed(f"{path.name}:{number}", reason, "restore the official file"))
    return colours, problems
