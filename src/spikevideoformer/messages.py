"""Text for people, on any terminal."""


def one_line(text: str) -> str:
    """The text on one line that any terminal can print, whatever a file name contains."""
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return escaped.encode("utf-8", "backslashreplace").decode("utf-8")


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
