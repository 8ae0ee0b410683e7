"""What the demos share: telling of stages, and pieces of their pages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from spikevideoformer.inference.page import inline


@contextmanager
def stage(tell: Callable[[str], None], name: str) -> Iterator[None]:
    """Tell that a part of the demo begins, and how long it took."""
    tell(f"[{name}]")
    begin_s = time.monotonic()
    yield
    tell(f"[{name}: {time.monotonic() - begin_s:.1f} s]")


def share(value: float | None) -> str:
    """A table cell with a percentage; an empty one for None."""
    return f'<td class="number">{"" if value is None else f"{value:.1%}"}</td>'


def picture(path: Path, caption: str) -> str:
    """A PNG file with a caption, inside the page."""
    source = inline(path.read_bytes(), "image/png")
    return f'<figure><img src="{source}" alt=""><figcaption>{caption}</figcaption></figure>'
