"""Text for people, on any terminal."""


def one_line(text: str) -> str:
    """The text on one line that any terminal can print, whatever a file name contains."""
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return escaped.encode("utf-8", "backslashreplace").decode("utf-8")
