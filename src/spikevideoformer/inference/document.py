"""What all pages share: one self-contained HTML file, its style, its pieces and its glossary.

Nothing is fetched when a page is opened: pictures and videos are inside it, and there are no
scripts. From 400 pixels of width on nothing but tables and pictures needs to be scrolled sideways,
and these only inside their own boxes.
"""

from __future__ import annotations

import base64
import io
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikevideoformer.video import frames as video_io

if TYPE_CHECKING:
    from jinja2 import Template
    from matplotlib.figure import Figure

LEAST_REM_PER_INCH, REM_PER_INCH = 3.2, 6.6  # a figure is not shown smaller or larger

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


@cache
def _template(name: str) -> Template:
    """A file in `templates/`; every value is escaped where it enters it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("spikevideoformer"),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelt name is an error, not an empty place
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)


def _piece(macro: str, *values: Any) -> str:
    """What a macro of `pieces.html` makes of these values: `Markup`, which no template escapes."""
    made: str = getattr(_template("pieces.html").module, macro)(*values)
    return made


def document(template: str, title: str, **values: Any) -> str:
    """A whole page: heading, body, and the words of the glossary that it uses.

    Args:
        template: name of a template that extends `document.html`.
        title: plain text.
        **values: what the template names.
    """
    return _template(template).render(title=title, words_of=words_of, **values) + "\n"


def words_of(body: str) -> list[tuple[str, str]]:
    """The words of the glossary that a page uses, and what they mean.

    Args:
        body: HTML; tags and what stands in them are not looked at.
    """
    text = re.sub(r"<[^>]*>", " ", body)
    return [
        (word, meaning)
        for word, pattern, meaning in GLOSSARY
        if re.search(pattern, text, re.IGNORECASE)
    ]


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
    least, most = (rem * width_inches for rem in (LEAST_REM_PER_INCH, REM_PER_INCH))
    return _piece("figure", source, least, most, caption)


def player(path: Path, caption: str, *, wrong: bool = False) -> str:
    """An MP4 file with a caption; the browser's controls stand below its pictures.

    Args:
        path: the file, which is not changed.
        caption: plain text.
        wrong: whether the caption is to stand out.
    """
    info = video_io.probe(path)
    source = inline(path.read_bytes(), "video/mp4")
    return _piece("player", source, info.width, info.height, caption, wrong)
