"""Small drawings for notebooks, as HTML with inline SVG; imports nothing of ours.

What has a picture of itself (predictions, firing rates, energy, metrics) makes it of these, when a
notebook asks for its ``_repr_html_``. All texts are escaped here.
"""

import math
from collections.abc import Callable, Sequence
from html import escape

Colour = tuple[int, int, int]

WIDTH = 560  # of a drawing, in pixels
MOST_ROWS = 40  # bars; more are counted
MOST_POINTS = 300  # along time; more are thinned out
_NAMES, _ROW, _HEIGHT = 220, 20, 110
_FILL = "#4c78a8"
_MOST_LETTERS = 32  # of a name beside a bar


def card(title: str, *parts: str) -> str:
    """A title and what stands below it.

    Args:
        title: plain text.
        *parts: HTML, such as the functions below return.
    """
    below = "".join(f"<div>{part}</div>" for part in parts if part)
    return f'<div style="font-family:sans-serif"><b>{escape(title)}</b>{below}</div>'


def text(content: str) -> str:
    """Preformatted text, such as a table."""
    style = "overflow-x:auto;font-family:monospace;line-height:1.2"
    return f'<pre style="{style}">{escape(content)}</pre>'


def bars(
    rows: Sequence[tuple[str, float]],
    *,
    show: Callable[[float], str],
    largest: float | None = None,
    caption: str = "",
) -> str:
    """A horizontal bar for each row, in the order given.

    Args:
        rows: name and value, from 0 up; the first ones are shown.
        show: the value as text.
        largest: value of a bar of full length; None: the largest one.
        caption: what is shown.
    """
    shown = rows[:MOST_ROWS]
    full = max((value for _, value in rows), default=0.0) if largest is None else largest
    room = WIDTH - _NAMES - 80
    drawn = []
    for i, (name, value) in enumerate(shown):
        y = i * _ROW
        length = room * min(value / full, 1) if full > 0 else 0
        short = name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…"
        drawn.append(
            f"<title>{escape(name)}</title>"
            f'<text x="{_NAMES - 6}" y="{y + 14}" text-anchor="end">{escape(short)}</text>'
            f'<rect x="{_NAMES}" y="{y + 3}" width="{length:.1f}" height="14" fill="{_FILL}"/>'
            f'<text x="{_NAMES + length + 4:.1f}" y="{y + 14}">{escape(show(value))}</text>'
        )
    more = len(rows) - len(shown)
    note = f"{caption}{f' (and {more} more)' if more else ''}"
    groups = "".join(f"<g>{part}</g>" for part in drawn)
    return _svg(groups, len(shown) * _ROW, note) if shown else ""


def curve(times_s: Sequence[float], values: Sequence[float], *, caption: str) -> str:
    """Values over time, from 0 up to the largest.

    Args:
        times_s: when, rising; at least one.
        values: as many.
        caption: what is shown.
    """
    kept = _thinned(len(values))
    top = max(values)
    x = _across(times_s)
    points = " ".join(
        f"{x(times_s[i]):.1f},{_HEIGHT - 4 - (_HEIGHT - 20) * (values[i] / top if top else 0):.1f}"
        for i in kept
    )
    line = f'<polyline points="{points}" fill="none" stroke="{_FILL}" stroke-width="2"/>'
    peak = f'<text x="2" y="12">{top:.3g}</text>'
    return _svg(line + peak + _time_axis(times_s), _HEIGHT + 16, caption)


def areas(
    times_s: Sequence[float],
    shares: Sequence[Sequence[float]],
    names: Sequence[str],
    colours: Sequence[Colour],
    *,
    caption: str,
) -> str:
    """Shares of a whole over time, one coloured area on the other, and a legend.

    Args:
        times_s: when, rising; at least one.
        shares: for each time one share for each name; they sum to 1 at most.
        names: of the parts.
        colours: R, G, B of each.
        caption: what is shown.
    """
    kept = _thinned(len(shares))
    kept = kept * 2 if len(kept) == 1 else kept  # one frame is a stripe
    x = _across(times_s)
    places = [x(times_s[i]) for i in kept] if len(times_s) > 1 else [0.0, float(WIDTH)]
    below = [0.0] * len(kept)
    drawn, legend = [], []
    for k, (name, colour) in enumerate(zip(names, colours, strict=True)):
        above = [b + shares[i][k] for b, i in zip(below, kept, strict=True)]
        if above == below:
            continue
        rim = [*zip(places, above, strict=True), *reversed(list(zip(places, below, strict=True)))]
        points = " ".join(f"{px:.1f},{_HEIGHT * (1 - share):.1f}" for px, share in rim)
        fill = "#{:02x}{:02x}{:02x}".format(*colour)
        drawn.append(f'<polygon points="{points}" fill="{fill}"><title>{escape(name)}</title>')
        drawn.append("</polygon>")
        legend.append(f'<span style="color:{fill}">■</span> {escape(name)}')
        below = above
    names_shown = legend[:MOST_ROWS] + ["…"] * (len(legend) > MOST_ROWS)
    return _svg("".join(drawn) + _time_axis(times_s), _HEIGHT + 16, caption) + " ".join(names_shown)


def skeleton(points: Sequence[Sequence[float]], parents: Sequence[int], *, caption: str) -> str:
    """A body: lines from each joint to its parent.

    Args:
        points: x to the right and y down of each joint; not finite where it is unknown.
        parents: index of each joint's parent, -1 for the first.
        caption: what is shown.
    """
    known = [all(map(math.isfinite, point)) for point in points]
    seen = [point for point, there in zip(points, known, strict=True) if there]
    if not seen:
        return ""
    left, top = (min(point[axis] for point in seen) for axis in (0, 1))
    spans = (max(point[axis] for point in seen) - (left, top)[axis] for axis in (0, 1))
    side = 2 * _HEIGHT
    scale = (side - 20) / (max(spans) or 1.0)

    def at(j: int) -> tuple[float, float]:
        return 10 + (points[j][0] - left) * scale, 10 + (points[j][1] - top) * scale

    drawn = []
    for j, parent in enumerate(parents):
        if not known[j]:
            continue
        x, y = at(j)
        if parent >= 0 and known[parent]:
            px, py = at(parent)
            drawn.append(
                f'<line x1="{px:.1f}" y1="{py:.1f}" x2="{x:.1f}" y2="{y:.1f}" stroke="{_FILL}"'
                ' stroke-width="3"/>'
            )
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#e45756"/>')
    return _svg("".join(drawn), side, caption)


def _svg(content: str, height: float, caption: str) -> str:
    below = f'<div style="font-size:85%">{escape(caption)}</div>' if caption else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
        f'font-size="12" fill="currentColor" role="img">{content}</svg>{below}'
    )


def _thinned(count: int) -> list[int]:
    step = max(1, -(-count // MOST_POINTS))
    return list(range(0, count, step))


def _across(times_s: Sequence[float]) -> Callable[[float], float]:
    first, last = times_s[0], times_s[-1]
    return lambda time_s: WIDTH * (time_s - first) / (last - first) if last > first else 0.0


def _time_axis(times_s: Sequence[float]) -> str:
    y = _HEIGHT + 12
    return (
        f'<text x="0" y="{y}">{times_s[0]:.2f} s</text>'
        f'<text x="{WIDTH}" y="{y}" text-anchor="end">{times_s[-1]:.2f} s</text>'
    )
