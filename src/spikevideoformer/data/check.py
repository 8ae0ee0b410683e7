"""The check before step 0: everything that is wrong with a data set, in one list.

A run that stops after three hours at a broken file has wasted them. So every line, file and split
is looked at first, all problems are listed together, and what is left out is written down.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from spikevideoformer.data.sample import (
    ClipIndex,
    ClipSample,
    DatasetError,
    Problem,
    listed_split,
    one_line,
    relative,
)
from spikevideoformer.data.specs import Decode as Decode
from spikevideoformer.data.video import DecodeLimits, VideoError, check_decodes, probe

log = logging.getLogger(__name__)


def kept_rank(split: str) -> tuple[int, str]:
    """Of a clip that is in several splits, the one of the lowest rank is kept.

    A duplicate costs a little training, but it would make an evaluation worthless: test, val,
    splits of other names, and last train.
    """
    return ({"test": 0, "val": 1, "train": 3}.get(split, 2), split)


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What the check found.

    Args:
        index: the index that was checked.
        problems: everything that is wrong: first in the lists, then in the files, then duplicates,
            classes and splits.
    """

    index: ClipIndex
    problems: tuple[Problem, ...]

    @property
    def cleaned(self) -> ClipIndex:
        """The index without the samples that have problems; classes and their order stay."""
        bad = {id(problem.sample) for problem in self.problems}
        good = tuple(s for s in self.index.samples if id(s) not in bad)
        return replace(self.index, samples=good, problems=())

    def summary(self) -> str:
        """How many problems there are of each kind, and the first of them, in one line."""
        return summary_of(self.problems, f"{len(self.index)} clips", self.index.root)

    def settle(self, *, skip_bad: bool = False, folder: Path | None = None) -> ClipIndex:
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
                split without a clip.
        """
        if not self.problems:
            return self.index
        cleaned = self.cleaned
        emptied = [split for split in self.index.splits if split not in cleaned.splits]
        stop = not skip_bad or bool(emptied) or not cleaned.samples
        problems = self.problems if stop else (*self.problems, *self._classes_lost(cleaned))
        lost = f"split {' and '.join(emptied)}" if emptied else "data set"
        stop_or_skip(
            problems,
            self.index.root,
            summary=self.summary(),
            skip_bad=skip_bad,
            lost=f"without its bad clips the {lost} is empty" if stop else None,
            folder=folder,
        )
        return cleaned

    def _classes_lost(self, cleaned: ClipIndex) -> Iterator[Problem]:
        """A class whose training clips were all left out is worth a line of its own."""
        before, after = (_train_labels(index) for index in (self.index, cleaned))
        for label in sorted(before - after):
            yield _class_without_clips(self.index, label, "all its train clips have problems")


def check_index(
    index: ClipIndex,
    *,
    required_splits: Sequence[str] = (),
    decode: Decode = "full",
    limits: DecodeLimits | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Look for everything that is wrong with a data set.

    The list holds: malformed lines, unknown labels and labels out of range (found while reading);
    missing, empty, unreadable, corrupt and short files; repeated lines; clips in more than one
    split, by path and by content; classes and splits without clips. Each problem names its file
    and line and says what to do.

    Args:
        index: as `read_index` returns it, or one split of it.
        required_splits: splits that must have clips; in `train` each class must have some.
        decode: "full" decodes every frame; "open" only reads the header, fast, and blind to damage
            further in; "none" does not open the videos.
        limits: against files that unpack to far more than they seem; None: the usual ones.
        workers: threads that decode; None: one for each CPU core, at most 8.
        progress: called with the number of files that are done and their total.
    """
    required_splits = [listed_split(split) or split for split in required_splits]
    problems = list(index.problems)
    paths = list(dict.fromkeys(sample.path for sample in index.samples))
    finding_of_path = _look_at_files(paths, decode, limits or DecodeLimits(), workers, progress)
    for sample in index.samples:
        fault = finding_of_path[sample.path].fault_of(sample)
        if fault is not None:
            problems.append(_problem_of_sample(index, sample, *fault))
    problems += _repeated_lines(index)
    problems += _in_several_splits(
        index, [path for path in paths if finding_of_path[path].fault is None]
    )

    trained = _train_labels(index)
    if "train" in required_splits and trained:
        for label in range(len(index.classes)):
            if label not in trained:
                problems.append(_class_without_clips(index, label, "no train clip has this label"))
    reported = {p.split for p in index.problems if p.kind == "split without samples"}
    for split in required_splits:
        if split not in index.splits and split not in reported:
            problems.append(
                Problem(
                    kind="split without samples",
                    source=str(index.root),
                    reason=f"no clip of {split} is listed",
                    remedy=f"add a {split} split",
                    split=split,
                )
            )
    return CheckReport(index=index, problems=tuple(problems))


# --- What is done with problems ------------------------------------------------------------------


def summary_of(problems: Sequence[Problem], what: str, root: Path) -> str:
    """How many problems there are of each kind, and the first of them, in one line.

    Args:
        problems: of the data set.
        what: was looked at, as in "12 clips".
        root: of the data set.
    """
    if not problems:
        return f"no problem in {what} of {root}"
    kinds = Counter(problem.kind for problem in problems)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    total = f"{len(problems)} problem" + "s" * (len(problems) > 1)
    return one_line(f"{total} in {root} ({counts}); first: {problems[0]}")


def stop_or_skip(
    problems: Sequence[Problem],
    root: Path,
    *,
    summary: str,
    skip_bad: bool,
    lost: str | None,
    folder: Path | None,
) -> None:
    """Record problems and, unless they can be and shall be skipped, stop.

    Args:
        problems: at least one.
        root: of the data set.
        summary: of the problems, in one line.
        skip_bad: whether what has problems shall be left out.
        lost: what would be missing without it, so that nobody can go on; None: enough is left.
        folder: where `skipped.csv`, or `problems.csv` where the run stops here, is written; None:
            what is left out goes to the log, a line each.

    Raises:
        DatasetError: the run stops here.
    """
    stop = not skip_bad or lost is not None
    where = ""
    if folder is not None:
        file = folder / ("problems.csv" if stop else "skipped.csv")
        _write_problems(file, problems, root)
        where = f"; all are listed in {file}"
    if not skip_bad:
        raise DatasetError(
            f"{summary}{where}; correct them, or leave them out with --skip-bad", problems
        )
    if lost is not None:
        raise DatasetError(f"{lost}: {summary}{where}", problems)
    if folder is None:
        for problem in problems:
            log.warning("left out: %s", problem)
    else:
        log.warning("left out what has problems: %s%s", summary, where)


# --- Files ---------------------------------------------------------------------------------------

_Fault = tuple[str, str, str]
"""Kind, reason and remedy."""


@dataclass(frozen=True, kw_only=True)
class _Finding:
    """What looking at one file gave."""

    fault: _Fault | None = None
    duration_s: float | None = None

    def fault_of(self, sample: ClipSample) -> _Fault | None:
        """What is wrong with the file, or with the part of it that the sample is."""
        if self.fault is not None or self.duration_s is None or sample.start_s is None:
            return self.fault
        if sample.start_s < self.duration_s:
            return None
        reason = f"start_s is {sample.start_s:g}, but {sample.path.name} ends at"
        return "part outside the file", f"{reason} {self.duration_s:.2f} s", "correct start_s"


def _look_at_files(
    paths: list[Path],
    decode: Decode,
    limits: DecodeLimits,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> dict[Path, _Finding]:
    findings: dict[Path, _Finding] = {}
    # Threads suffice: the decoder works without the interpreter's lock.
    pool = ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1))
    try:
        results = pool.map(lambda path: _look_at_file(path, decode, limits), paths)
        for done, (path, finding) in enumerate(zip(paths, results, strict=True), start=1):
            findings[path] = finding
            if progress is not None:
                progress(done, len(paths))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the rest
    return findings


def _look_at_file(path: Path, decode: Decode, limits: DecodeLimits) -> _Finding:
    try:
        if _content_bytes(path) == 0:
            return _Finding(fault=("empty file", f"{path.name} holds nothing", "replace the file"))
        if decode == "full":
            return _Finding(duration_s=check_decodes(path, limits=limits).duration_s)
        if decode == "open":
            return _Finding(duration_s=probe(path, limits=limits).duration_s)
    except FileNotFoundError:
        remedy = "restore the file or remove the entry"
        return _Finding(fault=("missing file", f"{path} does not exist", remedy))
    except OSError as error:
        reason = f"{path} cannot be read ({error.strerror or error})"
        return _Finding(fault=("unreadable file", reason, "check the permissions"))
    except VideoError as error:
        remedy = "replace the file or remove the entry"
        return _Finding(fault=("unreadable video", str(error), remedy))
    return _Finding()


def _files_of_clip(path: Path) -> list[Path]:
    """The files whose content is the clip: the video, or the images of a sequence."""
    return sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]


def _content_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in _files_of_clip(path))


def _digest(path: Path) -> bytes:
    digest = hashlib.blake2b(digest_size=20)
    for file in _files_of_clip(path):
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.digest()


# --- Duplicates ----------------------------------------------------------------------------------


def _repeated_lines(index: ClipIndex) -> Iterator[Problem]:
    """The same part of the same file, twice in one split."""
    alike: defaultdict[Hashable, list[ClipSample]] = defaultdict(list)
    for s in index.samples:
        alike[os.path.normpath(s.path), s.split, s.start_s, s.end_s].append(s)
    for first, *others in alike.values():
        labels = {s.label for s in (first, *others)}
        if len(labels) > 1:
            names = " and ".join(repr(index.classes[label]) for label in sorted(labels))
            for sample in (first, *others):
                yield _problem_of_sample(
                    index,
                    sample,
                    "contradictory labels",
                    f"{_name(index, sample)} is listed as {names}",
                    "keep the line that is right",
                )
        else:
            for sample in others:
                yield _problem_of_sample(
                    index,
                    sample,
                    "repeated clip",
                    f"{_name(index, sample)} is already listed in {first.source}",
                    "remove one of the two entries",
                )


def _in_several_splits(index: ClipIndex, sound: list[Path]) -> Iterator[Problem]:
    """Clips of one split that are in another too: the same file, or one with the same content."""
    splits_of_path: defaultdict[Path, set[str]] = defaultdict(set)
    for sample in index.samples:
        splits_of_path[sample.path].add(sample.split)
    content = shared_content({path: splits_of_path[path] for path in sound})
    alike: defaultdict[Hashable, list[ClipSample]] = defaultdict(list)
    for sample in index.samples:
        alike[content.get(sample.path) or os.path.normpath(sample.path)].append(sample)
    for samples in alike.values():
        if len({sample.split for sample in samples}) < 2:
            continue
        for sample in samples:
            rank = kept_rank(sample.split)
            kept = next(
                (
                    other
                    for other in samples
                    if kept_rank(other.split) < rank and _overlap(sample, other)
                ),
                None,
            )
            if kept is None:
                continue
            name, twin = _name(index, sample), _name(index, kept)
            reason = f"{name}, here in {sample.split}, is also in {kept.split} ({kept.source})"
            if name != twin:
                reason += f" with the same content as {twin}"
            yield _problem_of_sample(
                index,
                sample,
                "duplicate across splits",
                reason,
                "keep it in one split",
            )


def shared_content(splits_of_path: Mapping[Path, set[str]]) -> dict[Path, bytes]:
    """The digest of each file that could have a twin in another split.

    Only files of equal size can be equal, so of a large data set few files are read.

    Args:
        splits_of_path: the splits that each readable file or folder of images is in.
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


def _overlap(a: ClipSample, b: ClipSample) -> bool:
    def part(sample: ClipSample) -> tuple[float, float]:
        return sample.start_s or 0.0, math.inf if sample.end_s is None else sample.end_s

    (a_start, a_end), (b_start, b_end) = part(a), part(b)
    return a_start < b_end and b_start < a_end


# --- Lines ---------------------------------------------------------------------------------------


def _train_labels(index: ClipIndex) -> set[int]:
    return {sample.label for sample in index.samples if sample.split == "train"}


def _class_without_clips(index: ClipIndex, label: int, reason: str) -> Problem:
    return Problem(
        kind="empty class",
        source=str(index.root),
        reason=f"class {index.classes[label]!r}: {reason}",
        remedy="add clips of it, or remove the class",
        split="train",
    )


def _name(index: ClipIndex, sample: ClipSample) -> str:
    return relative(sample.path, index.root)


def _problem_of_sample(
    index: ClipIndex, sample: ClipSample, kind: str, reason: str, remedy: str
) -> Problem:
    return Problem(
        kind=kind,
        source=sample.source,
        reason=reason,
        remedy=remedy,
        path=sample.path,
        split=sample.split,
        sample=sample,
    )


def _write_problems(file: Path, problems: Iterable[Problem], root: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    # File names that are not UTF-8 are written with escapes.
    with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("path", "source", "kind", "reason"))
        for problem in problems:
            path = "" if problem.path is None else relative(problem.path, root)
            writer.writerow((path, problem.source, problem.kind, one_line(problem.reason)))
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, file)
