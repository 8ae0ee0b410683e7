"""Something-Something v2 in its official layout (Goyal et al., ICCV 2017; 174 classes).

    root/labels/labels.json         {"Approaching something with your camera": "0", ...}
    root/labels/train.json          [{"id": "78687", "template": "Holding [something]", ...}, ...]
    root/labels/validation.json     likewise
    root/labels/test.json           ids only; read where test-answers.csv (id;label) is beside it
    root/20bn-something-something-v2/<id>.webm

The lists may also lie in the root, under these names or as `something-something-v2-train.json`;
the videos also in `videos/` or in the root. The class of a clip is its template without the
brackets around the placeholders; classes keep the order of `labels.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spikevideoformer.data.lists import empty_split, malformed, numbered_lines
from spikevideoformer.data.problems import DatasetError, Problem, relative
from spikevideoformer.tasks.classification.layouts.lists import label_problem
from spikevideoformer.tasks.classification.sample import ClipIndex, ClipSample

_PREFIXES = ("", "something-something-v2-")
_VIDEO_FOLDERS = ("20bn-something-something-v2", "videos")
_FILE_OF_SPLIT = {"train": "train.json", "val": "validation.json"}


def find_something(root: Path) -> Path | None:
    """`labels.json` under one of its names, or None where this is no Something-Something."""
    return _find(root, "labels.json")


def _find(root: Path, name: str) -> Path | None:
    for folder in (root / "labels", root):
        for prefix in _PREFIXES:
            if (folder / f"{prefix}{name}").is_file():
                return folder / f"{prefix}{name}"
    return None


def read_something(root: Path) -> ClipIndex:
    """Read the lists of all splits that are there and have labels.

    Raises:
        DatasetError: `labels.json` is missing or is not a mapping from templates to 0, 1, ...
    """
    classes = _read_classes(root)
    label_of_class = {name: label for label, name in enumerate(classes)}
    videos = next((root / name for name in _VIDEO_FOLDERS if (root / name).is_dir()), root)
    samples: list[ClipSample] = []
    problems: list[Problem] = []

    def add(source: str, split: str, clip: object, template: object) -> None:
        if not (isinstance(clip, str) and re.fullmatch(r"[\w-]+", clip)):
            problems.append(malformed(source, "no clip id", "restore the official entry", split))
            return
        if not isinstance(template, str):
            problems.append(malformed(source, "no template", "restore the official entry", split))
            return
        path = videos / f"{clip}.webm"
        name = _without_brackets(template)
        if name not in label_of_class:
            problems.append(label_problem(source, name, split, path, len(classes), numeric=False))
            return
        label = label_of_class[name]
        samples.append(ClipSample(path=path, label=label, split=split, source=source))

    for split, file in _FILE_OF_SPLIT.items():
        path = _find(root, file)
        if path is None:
            continue
        listed = False
        for number, entry in _json_entries(path):
            listed = True
            source = f"{relative(path, root)}:{number}"
            if isinstance(entry, str):
                problems.append(malformed(source, entry, "restore the official file", split))
            else:
                add(source, split, entry.get("id"), entry.get("template"))
        if not listed:
            problems.append(empty_split(relative(path, root), split))
    answers = _find(root, "test-answers.csv")
    if answers is not None:
        for number, line in numbered_lines(answers):
            clip, _, template = line.strip().partition(";")
            add(f"{relative(answers, root)}:{number}", "test", clip, template)
    return ClipIndex(root=root, classes=classes, samples=tuple(samples), problems=tuple(problems))


def _without_brackets(template: str) -> str:
    return template.replace("[", "").replace("]", "").strip()


def _read_classes(root: Path) -> tuple[str, ...]:
    path = find_something(root)
    if path is None:
        raise DatasetError(f"{root} has no labels/labels.json; unpack the official lists there")
    try:
        index_of_template = json.loads(path.read_text(encoding="utf-8-sig"))
        by_index = {int(i): _without_brackets(t) for t, i in index_of_template.items()}
        return tuple(by_index[i] for i in range(len(index_of_template)))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise DatasetError(
            f"{path} is not a mapping from templates to the indices 0, 1, ... ({error!r});"
            " restore the official file"
        ) from error


def _json_entries(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """The objects of a JSON array with the line that each begins on.

    A string in place of an object says what is wrong there. Where the text stops being JSON, that
    is the last thing that comes: nothing after it can be read.
    """
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    decoder = json.JSONDecoder()
    gap = re.compile(r"[\s,]*")
    position, line, counted = 0, 1, 0
    opening = re.match(r"\s*\[", text)
    if opening is None:
        yield 1, "not a JSON array"
        return
    position = opening.end()
    while True:
        position = gap.match(text, position).end()  # type: ignore[union-attr]  # always matches
        line += text.count("\n", counted, position)
        counted = position
        if text.startswith("]", position):
            return
        try:
            entry, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            yield line, f"not JSON from here on ({error.__class__.__name__})"
            return
        yield line, entry if isinstance(entry, dict) else "not an object"
