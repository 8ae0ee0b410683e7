"""The check before step 0: everything that is wrong with a data set, in one list.

A run that stops after three hours at a broken file has wasted them. So every line, file and split
is looked at first, all problems are listed together, and what is left out is written down. Here is
what the checks of all tasks share.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from spikevideoformer.data.index import DatasetIndex
from spikevideoformer.data.problems import DatasetError, Problem, listed_split, relative
from spikevideoformer.data.specs import Decode
from spikevideoformer.files import write_text
from spikevideoformer.messages import one_line
from spikevideoformer.video.event_pictures import seen
from spikevideoformer.video.frames import DecodeLimits, VideoError, check_decodes, probe

log = logging.getLogger(__name__)

Index = TypeVar("Index", bound=DatasetIndex[Any])
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

Fault = tuple[str, str, str]
"""Kind, reason and remedy."""

Progress = Callable[[int, int], None]
"""Told how many of how many are done."""


@dataclass(frozen=True, kw_only=True)
class Report(Generic[Index]):
    """What the check found.

    Args:
        index: the index that was checked.
        problems: everything that is wrong: first in the lists, then in the files, then duplicates
            and splits.
        required: splits that must hold something.
    """

    index: Index
    problems: tuple[Problem, ...]
    required: tuple[str, ...] = ()

    _bad: ClassVar[str] = "sequences"
    _without: ClassVar[str] = "is empty"

    @property
    def cleaned(self) -> Index:
        """The index without the items that have problems; all else stays."""
        bad = {id(problem.sample) for problem in self.problems}
        return self.index.with_items([item for item in self.index.items if id(item) not in bad])

    def looked_at(self) -> str:
        """How much was looked at, in words."""
        return f"{len(self.index.items)} {self._bad}"

    def emptied(self, cleaned: Index) -> list[str]:
        """Splits that have nothing left."""
        wanted = dict.fromkeys([*self.index.splits, *self.required])
        return [split for split in wanted if split not in cleaned.splits]

    def also_lost(self, cleaned: Index) -> Iterator[Problem]:
        """What else is worth a line, where the rest is left out."""
        yield from ()

    def summary(self) -> str:
        """How many problems there are of each kind, and the first of them, in one line."""
        root, problems = self.index.root, self.problems
        if not problems:
            return f"no problem in {self.looked_at()} of {root}"
        kinds = Counter(problem.kind for problem in problems)
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        total = f"{len(problems)} problem" + "s" * (len(problems) > 1)
        return one_line(f"{total} in {root} ({counts}); first: {problems[0]}")

    def settle(self, *, skip_bad: bool = False, folder: Path | None = None) -> Index:
        """Go on with the data set, or stop.

        Args:
            skip_bad: go on without what has a problem. What is left out is written to
                `folder/skipped.csv` (path, source, kind, reason), one line for each problem.
            folder: where the list of problems goes: `skipped.csv`, or `problems.csv` where the run
                stops here; None: what is left out goes to the log, a line each.

        Returns:
            The index, cleaned where there were problems.

        Raises:
            DatasetError: there are problems and `skip_bad` is not set, or skipping would leave a
                split with nothing in it.
        """
        if not self.problems:
            return self.index
        cleaned = self.cleaned
        emptied = self.emptied(cleaned)
        lost = bool(emptied) or not cleaned.items
        stop = not skip_bad or lost
        problems = self.problems if stop else (*self.problems, *self.also_lost(cleaned))
        where = ""
        if folder is not None:
            file = folder / ("problems.csv" if stop else "skipped.csv")
            _write_problems(file, problems, self.index.root)
            where = f"; all are listed in {file}"
        if not skip_bad:
            raise DatasetError(
                f"{self.summary()}{where}; correct them, or leave them out with --skip-bad",
                problems,
            )
        if lost:
            name = f"split {' and '.join(emptied)}" if emptied else "data set"
            raise DatasetError(
                f"without its bad {self._bad} the {name} {self._without}: {self.summary()}{where}",
                problems,
            )
        if folder is None:
            for problem in problems:
                log.warning("left out: %s", problem)
        else:
            log.warning("left out what has problems: %s%s", self.summary(), where)
        return cleaned


def split_names(splits: Iterable[str]) -> tuple[str, ...]:
    """Splits by the names that an index has for them."""
    return tuple(listed_split(split) or split for split in splits)


def absent_splits(
    index: DatasetIndex[Any], required: Iterable[str], what: str, present: Iterable[str]
) -> Iterator[Problem]:
    """A problem for each split that must be present and is not, unless its list told so already.

    Args:
        index: of the data set.
        required: splits, by the names that the index has for them.
        what: they lack, as in "no clip of {split} is listed".
        present: splits that do not.
    """
    reported = {p.split for p in index.problems if p.kind == "split without samples"}
    for split in required:
        if split not in present and split not in reported:
            reason = what.format(split=split)
            remedy = f"add a {split} split"
            yield Problem("split without samples", str(index.root), reason, remedy, split=split)


def _write_problems(file: Path, problems: Iterable[Problem], root: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("path", "source", "kind", "reason"))
    for problem in problems:
        path = "" if problem.path is None else relative(problem.path, root)
        writer.writerow((path, problem.source, problem.kind, one_line(problem.reason)))
    # File names that are not UTF-8 are written with escapes.
    write_text(file, table.getvalue().encode("utf-8", "backslashreplace").decode("utf-8"))


# --- Files ---------------------------------------------------------------------------------------


def in_threads(
    look: Callable[[_Item], _Result],
    items: Sequence[_Item],
    progress: Progress | None = None,
) -> Iterator[_Result]:
    """The results in order.

    Threads, one for each CPU core and at most 8, suffice: FFmpeg and Pillow decode without the
    interpreter's lock.

    Args:
        look: what to do with each item.
        items: all of them.
        progress: told after each item.
    """
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        for done, result in enumerate(pool.map(look, items), start=1):
            yield result
            if progress is not None:
                progress(done, len(items))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the rest


def file_fault(path: Path) -> Fault | None:
    """What is wrong with a file, or folder of files, that is not there, unreadable or empty."""
    try:
        size_bytes = _content_bytes(path)
    except FileNotFoundError:
        return "missing file", f"{path} does not exist", "restore the file or remove the entry"
    except OSError as error:
        reason = f"{path} cannot be read ({error.strerror or error})"
        return "unreadable file", reason, "check the permissions"
    return None if size_bytes else ("empty file", f"{path.name} holds nothing", "replace the file")


def video_fault(
    path: Path, decode: Decode, limits: DecodeLimits, spec: Any = None
) -> tuple[Fault | None, float | None]:
    """What is wrong with a video as `spec` sees it, and how long it is in seconds."""
    if (fault := file_fault(path)) is not None or decode == "none":
        return fault, None
    try:
        look = check_decodes if decode == "full" else probe
        return None, look(seen(path, spec), limits=limits).duration_s
    except VideoError as error:
        return ("unreadable video", str(error), "replace the file or remove the entry"), None


def problem_of(item: Any, kind: str, reason: str, remedy: str) -> Problem:
    """The problem of an item or use that has `path`, `split` and `source`."""
    sample = item.sample if isinstance(item, Use) else item
    return Problem(kind, item.source, reason, remedy, item.path, item.split, sample)


def check_videos(
    index: Index,
    *,
    required: Sequence[str] = (),
    decode: Decode = "full",
    progress: Progress | None = None,
) -> Report[Index]:
    """What is wrong with a data set whose items are videos: `path`, `split` and `source`.

    Args:
        index: whose lists told their own problems.
        required: splits that must hold something.
        decode: how closely to look.
        progress: told how many files are done.
    """
    required = split_names(required)
    problems, sound = list(index.problems), []
    paths = list(dict.fromkeys(item.path for item in index.items))
    looked = in_threads(lambda p: video_fault(p, decode, DecodeLimits())[0], paths, progress)
    faults = dict(zip(paths, looked, strict=True))
    for item in index.items:
        if (fault := faults[item.path]) is None:
            sound.append(item.path)
        else:
            problems.append(problem_of(item, *fault))
    uses = [Use(path=i.path, split=i.split, source=i.source, sample=i) for i in index.items]
    problems += in_several_splits(uses, sound, index.root)
    problems += absent_splits(index, required, "no clip of {split} is listed", index.splits)
    return Report(index=index, problems=tuple(problems), required=required)


def _files_of(path: Path) -> list[Path]:
    """The file, or those in the folder."""
    return sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]


def _content_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in _files_of(path))


def _digest(path: Path) -> bytes:
    digest = hashlib.blake2b(digest_size=20)
    for file in _files_of(path):
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.digest()


# --- Duplicates ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Use:
    """A file, and the place in a data set where it is used."""

    path: Path
    split: str
    source: str
    sample: object


def in_several_splits(
    uses: Sequence[Use],
    sound: Iterable[Path],
    root: Path,
    overlap: Callable[[Use, Use], bool] | None = None,
) -> Iterator[Problem]:
    """What is in one split and in another too: the same file, or one with the same content.

    A duplicate costs a little training, but it would make an evaluation worthless. So it is kept
    in test, else in val, in splits of other names, and last in train.

    Args:
        uses: all files of a data set.
        sound: those that can be read.
        root: of the data set.
        overlap: whether two uses of one file have anything in common; None: they always do.
    """
    splits_of_path: defaultdict[Path, set[str]] = defaultdict(set)
    for use in uses:
        splits_of_path[use.path].add(use.split)
    content = _shared_content({path: splits_of_path[path] for path in sound})
    alike: defaultdict[Hashable, list[Use]] = defaultdict(list)
    for use in uses:
        alike[content.get(use.path) or os.path.normpath(use.path)].append(use)
    for same in alike.values():
        if len({use.split for use in same}) < 2:
            continue
        first = min(same, key=_rank)
        for use in same:
            others = [first] if overlap is None else [o for o in same if overlap(use, o)]
            kept = min(others, key=_rank)
            if _rank(kept) >= _rank(use):
                continue
            name, twin = relative(use.path, root), relative(kept.path, root)
            reason = f"{name}, here in {use.split}, is also in {kept.split} ({kept.source})"
            if name != twin:
                reason += f" with the same content as {twin}"
            yield problem_of(use, "duplicate across splits", reason, "keep it in one split")


def _rank(use: Use) -> tuple[int, str]:
    return ({"test": 0, "val": 1, "train": 3}.get(use.split, 2), use.split)


def _shared_content(splits_of_path: Mapping[Path, set[str]]) -> dict[Path, bytes]:
    """The digest of each file that could have a twin in another split.

    Only files of equal size can be equal, so of a large data set few files are read.
    """
    paths_of_size: defaultdict[int, list[Path]] = defaultdict(list)
    for path in splits_of_path:
        paths_of_size[_content_bytes(path)].append(path)
    return {
        path: _digest(path)
        for paths in paths_of_size.values()
        if len(paths) > 1 and len(set().union(*(splits_of_path[path] for path in paths))) > 1
        for path in paths
    }
