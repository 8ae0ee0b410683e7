"""What reports of checks say."""

import csv
from pathlib import Path
from typing import Any, TypeVar

Report = TypeVar("Report", bound=Any)


def explained(report: Report) -> Report:
    """The same; each problem is one line with its place and what to do."""
    for problem in report.problems:
        assert "\n" not in str(problem)
        assert problem.source
        assert problem.remedy
    return report


def found(report: Any) -> list[tuple[str, str]]:
    return [(p.kind, p.source) for p in report.problems]


def skipped(folder: Path, name: str = "skipped.csv") -> list[dict[str, str]]:
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))
