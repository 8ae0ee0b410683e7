"""Results on stdout, notes on stderr, and folders to write into."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from spikevideoformer.cli.streams import write_result
from spikevideoformer.messages import one_line

if TYPE_CHECKING:
    from spikevideoformer.inference.answer import FailedPrediction
    from spikevideoformer.video.interface import VideoError

_P = TypeVar("_P", bound=Path | None)


def show(
    as_json: bool, values: Mapping[str, Any] | Callable[[], Mapping[str, Any]], text: str
) -> None:
    """Print a result: one object on one line, in which NaN is an error, or the text.

    Values that are many may come from a function, which is called where they are printed.
    """
    if as_json:
        text = json.dumps(values() if callable(values) else values, allow_nan=False)
    write_result(_printable(text))


def note(text: str) -> None:
    """Print a line that is no result."""
    print(_printable(text), file=sys.stderr, flush=True)


def _printable(text: str) -> str:
    """Control characters of a name do not reach the terminal."""
    return "\n".join(map(one_line, text.split("\n")))


def note_failure(failure: FailedPrediction | VideoError) -> None:
    """Name a video that could not be used."""
    note(one_line(f"svf: {failure.path}: {failure.reason}"))


def folder_to_write(path: _P) -> _P:
    """Make the folder that is given, if one is."""
    refuse_file(path)
    if path is not None:
        path.mkdir(parents=True, exist_ok=True)
    return path


def refuse_file(out: Path | None) -> None:
    """What --out names is a folder, or is still to be made."""
    if out is not None and out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give --out a folder")


def require_file(path: Path | None, what: str) -> None:
    """What is given is a file; `what` says what to give instead."""
    if path is not None and not path.is_file():
        state = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"{path} {state}; give {what}")
