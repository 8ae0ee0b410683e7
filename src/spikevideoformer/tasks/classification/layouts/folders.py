"""Class folders: the folder that a clip lies in is its class.

    root/<split>/<class>/<clip>     split: train, val or test (also validation, testing, ...)
    root/<class>/<clip>             no splits: all of it is train

A clip is a video file or a folder of numbered images; in a class folder without either, a recording
of events, and without these a picture. So a folder of pictures inside a class folder is one clip,
and pictures in the class folder itself are a clip each. With the layout ``stills`` every picture
below a class folder is a clip, in whatever folder, and nothing else is. Hidden files are left out,
and so are, with a line in the log, pictures beside videos and files that are no clips by their
suffix; notes and lists (README, .json) without one. The classes are the names of the class
folders of all splits, sorted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from spikevideoformer.data.lists import empty_split, is_image_sequence, split_folders, subfolders
from spikevideoformer.data.problems import DatasetError, Problem, relative
from spikevideoformer.events.spec import EVENT_SUFFIXES
from spikevideoformer.tasks.classification.sample import ClipIndex, ClipSample
from spikevideoformer.video.inputs import names_of_no_clip, tell_passed_over
from spikevideoformer.video.interface import IMAGE_SUFFIXES, VIDEO_SUFFIXES


def read_folders(root: Path) -> ClipIndex:
    """Read class folders, with or without split folders above them."""
    return _read(root, _clips)


def read_stills(root: Path) -> ClipIndex:
    """The same of pictures, each of which is a clip."""
    return _read(root, lambda folder: (_pictures(folder, "**/*"), []))


def _read(root: Path, clips_of: Callable[[Path], tuple[list[Path], list[Path]]]) -> ClipIndex:
    parts = split_folders(root) or [("train", root)]
    _refuse_class_named_like_a_split(root, parts)
    classes = tuple(sorted({c.name for _, folder in parts for c in subfolders(folder)}))
    label_of_class = {name: label for label, name in enumerate(classes)}
    samples: list[ClipSample] = []
    problems: list[Problem] = []
    passed_over: list[str] = []
    for split, folder in parts:
        class_folders = subfolders(folder)
        if not class_folders:
            problems.append(empty_split(relative(folder, root), split))
        for class_folder in class_folders:
            source = relative(class_folder, root)
            clips, strays = clips_of(class_folder)
            passed_over += _passed_over(class_folder, clips)
            samples.extend(
                ClipSample(
                    path=clip, label=label_of_class[class_folder.name], split=split, source=source
                )
                for clip in clips
            )
            problems.extend(
                Problem(
                    kind="folder is no clip",
                    source=relative(stray, root),
                    reason="a folder inside a class folder is no clip: it would hold images only",
                    remedy="move its videos into the class folder, or remove it",
                    path=stray,
                    split=split,
                )
                for stray in strays
            )
            if not clips and not strays:
                reason = f"no clip in the folder of class {class_folder.name!r}"
                remedy = "add clips, or remove the folder"
                problems.append(Problem("empty class", source, reason, remedy, class_folder, split))
    remedy = "a splits.csv can name any file as a clip, and --layout stills takes pictures"
    tell_passed_over(root, "files that are no clips here", tuple(passed_over), remedy)
    return ClipIndex(root=root, classes=classes, samples=tuple(samples), problems=tuple(problems))


def _refuse_class_named_like_a_split(root: Path, parts: list[tuple[str, Path]]) -> None:
    """Where train/ holds clips itself, beside car/ and bus/, it is the class of trains.

    Raises:
        DatasetError: so it is.
    """
    taken = {folder for _, folder in parts}
    beside = [folder.name for folder in subfolders(root) if folder not in taken]
    for split, folder in parts:
        if folder != root and beside and _holds_clips(folder):
            others = ", ".join(f"{name}/" for name in beside[:3])
            more = f" and {len(beside) - 3} more" if len(beside) > 3 else ""
            raise DatasetError(
                f"{folder} was taken for the split {split}, but it holds clips itself, and {others}"
                f"{more} beside it were not read; if it is a class, move all classes into a folder"
                f" {root / 'train'}, or rename it"
            )


def _holds_clips(folder: Path) -> bool:
    """Whether clips lie in the folder itself and not in class folders."""
    folders = subfolders(folder)
    kinds = VIDEO_SUFFIXES | IMAGE_SUFFIXES
    files = [p for p in folder.iterdir() if p.suffix.lower() in kinds and p.is_file()]
    return bool(files or folders) and all(map(is_image_sequence, folders))


def _clips(class_folder: Path) -> tuple[list[Path], list[Path]]:
    """The clips of a class folder, and the folders in it that are none."""
    clips: list[Path] = []
    strays: list[Path] = []
    recordings: list[Path] = []
    for path in sorted(class_folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            (clips if is_image_sequence(path) else strays).append(path)
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            clips.append(path)
        elif path.suffix.lower() in EVENT_SUFFIXES - {".txt"}:  # which may be a note
            recordings.append(path)
    return clips or recordings or _pictures(class_folder, "*"), strays


def _passed_over(class_folder: Path, clips: list[Path]) -> list[str]:
    """Files of the folder itself that are not among its clips, without notes and lists."""
    known = VIDEO_SUFFIXES | IMAGE_SUFFIXES
    names = [
        path.name
        for path in set(class_folder.iterdir()) - set(clips)
        if path.is_file() and not path.name.startswith(".")
    ]
    media = [name for name in names if Path(name).suffix.lower() in known]
    return [f"{class_folder.name}/{name}" for name in sorted(media + names_of_no_clip(names))]


def _pictures(folder: Path, pattern: str) -> list[Path]:
    """The pictures in a folder, without hidden ones and those in hidden folders."""
    return [
        path
        for path in sorted(folder.glob(pattern))
        if path.suffix.lower() in IMAGE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
