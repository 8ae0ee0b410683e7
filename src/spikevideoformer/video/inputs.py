"""What is meant by the inputs of a prediction: files, folders, globs and arrays become videos."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from spikevideoformer.events.spec import EVENT_SUFFIXES, TABLE_SUFFIXES
from spikevideoformer.messages import one_line
from spikevideoformer.video.interface import IMAGE_SUFFIXES, VIDEO_SUFFIXES, VideoError
from spikevideoformer.video.sources import live_source

if TYPE_CHECKING:  # paths are looked at before torch is there
    import numpy as np
    from jaxtyping import UInt8
    from torch import Tensor

log = logging.getLogger(__name__)

_OUTPUT = re.compile(r"\.svf\.((side\.|part\.)*mp4|masks)$")
"""Names of what predictions write beside videos."""

_BESIDE = frozenset(
    ".cff .csv .db .html .ini .json .jsonl .log .md .pdf .py .rst .sh .sha256 .srt .tsv .txt .vtt "
    ".xml .yaml .yml".split()
)
"""Endings of what lies beside videos and is not meant to be one."""

VideoPath = str | os.PathLike[str]
VideoArray: TypeAlias = "UInt8[np.ndarray, 'T H W 3'] | UInt8[Tensor, 'T H W 3']"


def expand_inputs(
    inputs: Iterable[VideoPath | VideoArray], *, stills: bool = False
) -> Iterator[str | VideoArray | VideoError]:
    """The videos that are meant, in a fixed order and each file once.

    A folder stands for the videos and image sequences in it, at any depth, sorted by name, and
    where a folder has neither for recordings of events (no tables); a folder of images is a video
    itself; a glob stands for what it matches, sorted; an array is one video. What is hidden (its
    name begins with a dot) is passed over in folders, and with a line in the log so are what `svf
    predict` wrote there, pictures beside videos and files of unknown endings. Links to folders are
    followed. ``~`` is the home folder where nothing has that name. Cameras and addresses are not
    read yet.

    Args:
        inputs: taken one at a time, as videos are asked for.
        stills: whether each picture of a folder stands for itself, beside its videos, too; else a
            folder of pictures is one video.

    Yields:
        Paths of videos, and arrays as they are; in the place of an input that stands for nothing,
        the error that says so.
    """
    seen = set()
    for given in inputs:
        if isinstance(given, int):  # the number of a camera
            given = str(given)
        if not isinstance(given, (str, os.PathLike)):
            yield given
            continue
        path = os.fspath(given)
        if (live := live_source(path)) is not None:
            yield VideoError(path, live)
            continue
        if not os.path.lexists(path):  # a quoted glob has kept its ~
            path = os.path.expanduser(path)
        if os.path.lexists(path):  # a name with brackets is that file before it is a pattern
            found = _videos_at(path, stills)
            reason = "no video in this folder; give a folder of videos or of numbered images"
        elif glob.has_magic(path):
            matches = sorted(glob.glob(path, recursive=True))
            found = [video for match in matches for video in _videos_at(match, stills)]
            reason = "matches no video; check the pattern"
        else:
            found, reason = [], "no such file or folder; check the spelling"
        if not found:
            yield VideoError(path, reason)
        for video in found:
            name = os.path.normpath(video)
            if name not in seen:
                seen.add(name)
                yield video


def videos_among(
    inputs: Iterable[VideoPath], *, stills: bool = False
) -> tuple[list[str], list[VideoError]]:
    """The videos that are meant, and the errors of inputs that stand for nothing.

    Arguments as of `expand_inputs`.

    Raises:
        VideoError: no input stands for a video.
    """
    found = list(expand_inputs(inputs, stills=stills))
    videos = [video for video in found if isinstance(video, str)]
    errors = [error for error in found if isinstance(error, VideoError)]
    if errors and not videos:
        raise errors[0]
    return videos, errors


def _videos_at(path: str, each_still: bool) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    found, seen, own, stills, others = [], set[str](), list[str](), list[str](), list[str]()
    for folder, folders, files in os.walk(path, followlinks=True):
        whole = os.path.realpath(folder)
        if whole in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(whole)
        shown = [name for name in sorted(files) if not name.startswith(".")]
        own += [name for name in (*folders, *shown) if _OUTPUT.search(name)]
        folders[:] = sorted(n for n in folders if not (n.startswith(".") or _OUTPUT.search(n)))
        suffix_of_file = {
            name: Path(name).suffix.lower() for name in shown if not _OUTPUT.search(name)
        }
        kinds = VIDEO_SUFFIXES | IMAGE_SUFFIXES if each_still else VIDEO_SUFFIXES
        videos = [name for name, suffix in suffix_of_file.items() if suffix in kinds]
        others += names_of_no_clip(suffix_of_file)
        if videos:
            found += [os.path.join(folder, name) for name in videos]
            pictures = [] if each_still else IMAGE_SUFFIXES
            stills += [name for name, suffix in suffix_of_file.items() if suffix in pictures]
        elif any(suffix in IMAGE_SUFFIXES for suffix in suffix_of_file.values()):
            found.append(folder)
        else:
            found += [
                os.path.join(folder, name)
                for name, suffix in suffix_of_file.items()
                if suffix in EVENT_SUFFIXES - TABLE_SUFFIXES
            ]
    remedy = "name such a file itself to predict it"
    tell_passed_over(path, "what svf predict wrote there", tuple(own), remedy)
    tell_passed_over(path, "pictures beside videos", tuple(stills), remedy)
    if found:  # else the error tells
        tell_passed_over(path, "files whose ending is of no video", tuple(others), remedy)
    return found


def names_of_no_clip(names: Iterable[str]) -> list[str]:
    """Of names in a folder those that are no clip by their ending, without notes and lists."""
    known = VIDEO_SUFFIXES | IMAGE_SUFFIXES | EVENT_SUFFIXES | _BESIDE
    return [name for name in names if (ending := Path(name).suffix.lower()) and ending not in known]


@cache  # a folder may be looked through more than once
def tell_passed_over(folder: VideoPath, what: str, names: tuple[str, ...], remedy: str) -> None:
    """Log how many files were passed over, one of them by name, and what takes them; or nothing."""
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        log.info(one_line(f"{folder}: passed over {what} ({names[0]}{more}); {remedy}"))
