"""What a benchmark found: ratios with spread, targets, and how both are written down."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from spikevideoformer.bench.timing import Spread
from spikevideoformer.messages import table, three_digits

Bound = Literal["at least", "at most"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a ratio should reach.

    Attributes:
        bound: whether more or less is better.
        value: of the ratio.
    """

    bound: Bound
    value: float

    def met(self, ratio: float) -> bool:
        """Whether ``ratio`` reaches it."""
        return ratio >= self.value if self.bound == "at least" else ratio <= self.value

    def __str__(self) -> str:
        return f"{self.bound} {self.value:g}x"


def at_least(value: float) -> Target:
    """More is better."""
    return Target(bound="at least", value=value)


def at_most(value: float) -> Target:
    """Less is better."""
    return Target(bound="at most", value=value)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One ratio of one row.

    Attributes:
        row: name of the row, as ``rows`` takes it.
        work: what was done, with its size.
        against: what it was compared with.
        ratio_of: what the ratio says, such as "times faster" or "of its peak memory".
        target: what was aimed at, where something was.
        ratio: what was measured; None where it was not.
        why_not: why nothing was measured, or the difference found by the check.
        equivalence: what the check before the measurement found.
        details: absolute values, for reading only: they hold for one machine.
    """

    row: str
    work: str
    against: str
    ratio_of: str = "times faster"
    target: Target | None = None
    ratio: Spread | None = None
    why_not: str | None = None
    equivalence: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.ratio is None) == (self.why_not is None):
            raise ValueError(f"row {self.row}: either a ratio or the reason why there is none")

    def found(self, ratio: Spread, equivalence: str, **details: Any) -> Self:
        """The same, measured."""
        return replace(self, ratio=ratio, why_not=None, equivalence=equivalence, details=details)

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None without target or measurement."""
        if self.target is None or self.ratio is None:
            return None
        return self.target.met(self.ratio.median)

    @property
    def verdict(self) -> str:
        """One word, or the reason."""
        if self.why_not is not None:
            return self.why_not
        return {True: "met", False: "NOT met", None: "-"}[self.met]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "met": self.met}


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """All measurements of a run, and the machine they hold for.

    Attributes:
        machine: cores, libraries, load and so on.
        quick: whether the short form was run.
        measurements: in the order they were made.
    """

    machine: dict[str, Any]
    quick: bool
    measurements: tuple[Measurement, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "machine": self.machine,
            "quick": self.quick,
            "measurements": [m.to_dict() for m in self.measurements],
        }


def format_ratio(spread: Spread | None) -> str:
    """Median and quartiles, such as ``3.1 (2.9-3.3)``."""
    if spread is None:
        return "-"
    return f"{three_digits(spread.median)} ({three_digits(spread.low)}-{three_digits(spread.high)})"


def format_table(measurements: Sequence[Measurement]) -> str:
    """The table as text: work, against, target, ratio with quartiles, verdict."""
    head = ("work", "against", "target", "measured", "", "verdict")
    rows = [
        (
            m.work,
            m.against,
            "-" if m.target is None else str(m.target),
            format_ratio(m.ratio),
            m.ratio_of,
            m.verdict,
        )
        for m in measurements
    ]
    return table(head, rows)


def format_markdown(measurements: Sequence[Measurement]) -> str:
    """The same table for a page of documentation."""
    lines = ["| work | against | target | measured | verdict |", "|---|---|---|---|---|"]
    for m in measurements:
        target = "-" if m.target is None else str(m.target)
        ratio = f"{format_ratio(m.ratio)} {m.ratio_of}" if m.ratio else "-"
        lines.append(f"| {m.work} | {m.against} | {target} | {ratio} | {m.verdict} |")
    return "\n".join(lines)
