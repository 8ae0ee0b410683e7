"""What all pages share: one self-contained HTML file, its style, its pieces and its glossary.

Nothing is fetched when a page is opened: pictures and videos are inside it, and there are no
scripts. From 400 pixels of width on nothing but tables and pictures needs to be scrolled sideways,
and these only inside their own boxes.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spikevideoformer.video import frames as video_io

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONTROLS_REM = 5  # height that browsers' video controls take
LEAST_REM_PER_INCH, REM_PER_INCH = 3.2, 6.6  # a figure is not shown smaller or larger

STYLE = f"""
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c2128; background: #fff; overflow-wrap: anywhere; }}
h1 {{ margin-bottom: .2rem; line-height: 1.25; }} h2 {{ margin-top: 2.4rem; line-height: 1.3; }}
code {{ font-size: .92em; white-space: nowrap; }}
pre {{ background: #f3f4f6; padding: .8rem 1rem; white-space: pre-wrap; }}
.wide {{ overflow-x: auto; overflow-wrap: normal; }} .wide > img {{ max-width: 100%; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top; }}
td.number, th.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
td.number {{ white-space: nowrap; }} table.facts td {{ overflow-wrap: anywhere; }}
table.facts td:first-child {{ white-space: nowrap; color: #57606a; }}
figure {{ margin: 0 0 1.2rem; min-width: 0; }}
figcaption, .note {{ font-size: .9rem; color: #57606a; }}
.row {{ display: flex; flex-wrap: wrap; gap: 1.2rem; margin-bottom: 1.2rem; }}
.row > * {{ flex: 1 1 min(20rem, 100%); min-width: 0; }}
.videos {{ display: grid; gap: 1.2rem; }}
.videos {{ grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }}
table.maps {{ width: 100%; table-layout: fixed; }}
table.maps td, table.maps th {{ padding: 1px; font-size: .8rem; vertical-align: middle; }}
table.maps th {{ width: 7rem; font-weight: 500; }} table.maps img {{ display: block; width: 100%; }}
table.maps img.map {{ image-rendering: pixelated; }}
.player {{ position: relative; margin-bottom: {CONTROLS_REM}rem; }}
.player video {{ position: absolute; top: 0; left: 0; width: 100%; background: #14171c;
  height: calc(100% + {CONTROLS_REM}rem); object-fit: contain; object-position: top; }}
.wrong {{ color: #b3261e; }}
details {{ margin: 2.4rem 0; }} summary {{ cursor: pointer; }} dt {{ font-weight: 600; }}
dd {{ margin: 0 0 .5rem 1rem; }}
"""

GLOSSARY = (
    (
        "spike",
        r"\bspik(e|es|ing)\b",
        "what a neuron sends on when what it has added up reaches its threshold: 1 where it fires, "
        "0 where it does not (an Integer-LIF neuron sends whole numbers).",
    ),
    (
        "membrane",
        r"\bmembranes?\b",
        "the state of a neuron: it adds up what comes in, loses part of it from frame to frame, "
        "and is set back where the neuron fires. It is what a network remembers of earlier frames.",
    ),
    (
        "firing rate",
        r"\bfiring rates?\b",
        "spikes for each neuron and frame: at 0 all are silent, at 1 all fire in every frame.",
    ),
    (
        "paper",
        r"\bpaper\b",
        "counted as papers of this field do: layers only, and of a layer that reads spikes only "
        "the additions that spikes cause.",
    ),
    (
        "executed",
        r"\bexecuted\b",
        "every operation counted, of the network as it was trained and saved.",
    ),
    (
        "merged",
        r"\bmerged\b",
        "the same, after layers without neurons between them were folded into one (dense: where "
        "possible into one ordinary convolution): the same answers from other operations.",
    ),
    (
        "ANN, twin",
        r"\b(ANN|twin)\b",
        "an ordinary network of the same shape, with numbers in place of spikes: an ANN worked "
        "out from the layers here, a twin built and counted.",
    ),
    (
        "MAC, AC",
        r"\b(MACs?|multiply-accumulates?|an accumulate)\b",
        "multiply-accumulate, a product added to a sum, and accumulate, an addition alone, which "
        "is all that a spike costs.",
    ),
    (
        "ZCU104",
        r"\bZCU104\b",
        "a board with a programmable chip (FPGA) of Xilinx. Times on it are worked out from its "
        "highest throughput, not measured.",
    ),
)
"""Each word, how it is recognised on a page, and what it means."""


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page: heading, parts, and the words of the glossary that they use.

    Args:
        title: plain text.
        parts: HTML.
    """
    heading, body = html.escape(title), "\n".join(parts)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{heading}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>
<body><h1>{heading}</h1>
{body}
{glossary(body)}</body></html>
"""


def glossary(body: str) -> str:
    """The words of the glossary that a page uses, folded up; empty without any.

    Args:
        body: HTML; tags and what stands in them are not looked at.
    """
    text = re.sub(r"<[^>]*>", " ", body)
    used = "".join(
        f"<dt>{word}</dt><dd>{meaning}</dd>\n"
        for word, pattern, meaning in GLOSSARY
        if re.search(pattern, text, re.IGNORECASE)
    )
    if not used:
        return ""
    return f"<details><summary>Words on this page</summary><dl>\n{used}</dl></details>\n"


def inline(data: bytes, kind: str) -> str:
    """A file as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def drawing(figure: Figure, caption: str) -> str:
    """A figure of matplotlib as vector graphics, with a caption."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    file = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    return _figure(inline(file.getvalue(), "image/svg+xml"), figure.get_figwidth(), caption)


def picture(path: Path, caption: str) -> str:
    """A PNG file, as ``save_figure`` writes it, with a caption."""
    from PIL import Image

    with Image.open(path) as image:
        inches = image.width / 100
    return _figure(inline(path.read_bytes(), "image/png"), inches, caption)


def _figure(source: str, width_inches: float, caption: str) -> str:
    text = html.escape(caption)
    least, most = (rem * width_inches for rem in (LEAST_REM_PER_INCH, REM_PER_INCH))
    return (
        f'<figure><div class="wide"><img src="{source}" alt="{text}" '
        f'style="width: {most:.1f}rem; min-width: {least:.1f}rem"></div>'
        f"<figcaption>{text}</figcaption></figure>"
    )


def player(path: Path, caption: str, *, wrong: bool = False) -> str:
    """An MP4 file with a caption; the browser's controls stand below its pictures.

    Browsers draw controls over the lower edge of a video's box, so the box reaches further down
    than the pictures. The file is not changed.

    Args:
        path: the file.
        caption: plain text.
        wrong: whether the caption is to stand out.
    """
    info = video_io.probe(path)
    source, mark = inline(path.read_bytes(), "video/mp4"), ' class="wrong"' if wrong else ""
    return (
        f'<figure><div class="player" style="aspect-ratio: {info.width} / {info.height}">'
        f'<video src="{source}" controls loop muted></video></div>'
        f"<figcaption{mark}>{html.escape(caption)}</figcaption></figure>"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Plain texts: the first column holds names, the others numbers where there is a head.

    It is scrolled inside its own box where the page is narrow.
    """
    kind = ' class="number"' if head else ""

    def cells(tag: str, row: Sequence[str]) -> str:
        first, *others = map(html.escape, row)
        return f"<{tag}>{first}</{tag}>" + "".join(f"<{tag}{kind}>{o}</{tag}>" for o in others)

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    top = f"<tr>{cells('th', head)}</tr>\n" if head else ""
    mark = "" if head else ' class="facts"'
    return f'<div class="wide"><table{mark}>\n{top}{body}</table></div>'
