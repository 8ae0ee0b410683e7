"""Text for people, on any terminal."""

import math
from collections.abc import Iterable, Sequence


def one_line(text: str) -> str:
    """The text on one line that any terminal can print, whatever a file name contains."""
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return escaped.encode("utf-8", "backslashreplace").decode("utf-8")


def require_known(what: str, value: object, known: Iterable[str]) -> None:
    """Raise ValueError for a value that is none of the known ones."""
    known = tuple(known)
    if value not in known:
        raise ValueError(f"{what} {value!r} is unknown; choose one of {', '.join(known)}")


def require_finite(finite: bool) -> None:
    """Refuse outputs that hold NaN or infinity, of which nothing can be said.

    Raises:
        ValueError: they are not finite.
    """
    if not finite:
        raise ValueError(
            "the outputs of the model are NaN or infinite; use precision 32-true, or other "
            "weights: where training diverged, train with a lower learning_rate"
        )


def three_digits(value: float) -> str:
    """Without exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def with_prefix(value: float) -> str:
    """Three digits and a letter: 12.3 G."""
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * unit:
            return f"{three_digits(value / unit)} {letter}"
    return three_digits(value)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    """Columns under their names, to the left; to the right but for the first if ``numbers``."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if numbers and i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, ["-" * width for width in widths], *rows]
    )
