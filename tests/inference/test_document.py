"""What pages share: the glossary, players whose controls cover nothing, tables in their own box."""

import re
from pathlib import Path

import numpy as np
import pytest
from jinja2 import UndefinedError

from spikevideoformer.inference.document import GLOSSARY, document, player, words_of
from spikevideoformer.video.frames import write_video


def test_glossary_has_the_words_that_are_used_and_no_others() -> None:
    assert words_of("<p>A SpikeVideoFormer in action.</p>") == []
    words = words_of('<p title="merged">Spikes.</p><td>ZCU104</td> 3 MACs')
    assert [word for word, _ in words] == ["spike", "MAC, AC", "ZCU104"]


def test_every_word_is_found_where_it_is_used() -> None:
    for term, _, meaning in GLOSSARY:
        for word in term.split(", "):
            if word != "AC":
                assert (term, meaning) in words_of(f"<p>the {word}</p>")


def page(title: str = "x", **values: object) -> str:
    """The page of a demo, of which the rest is empty."""
    empty = {"clips": 0, "curves": "", "training": [], "commands": "", "minutes": 0.0}
    shown = {"head": [], "rows": [], "classes": 2, "spiking": True, "confusion": "", "videos": []}
    return document("demo_classification.html", title, **(empty | shown | values))


def test_whatever_enters_a_page_is_escaped() -> None:
    text = page("<b>&", classes="<i>", rows=[["<i>", "1"]], commands="<i>", confusion="<i>")
    assert "<title>&lt;b&gt;&amp;</title>" in text
    assert text.count("&lt;i&gt;") == 4
    assert "<b>" not in text and "<i>" not in text


def test_words_stand_below_the_page_folded_up() -> None:
    text = page()
    assert (
        text.index("firing rate of all")
        < text.index("<details>")
        < text.index("<dt>firing rate</dt>")
    )
    assert "<dt>membrane</dt>" not in text
    assert "<details>" not in document("document.html", "x")


def test_what_a_template_names_must_be_given() -> None:
    with pytest.raises(UndefinedError, match="'about' is undefined"):
        document("clip.html", "x")


def test_controls_stand_below_the_pictures(tmp_path: Path) -> None:
    """The box of the pictures has their shape; that of the video reaches further down."""
    path = tmp_path / "clip.mp4"
    write_video(path, iter([np.zeros((32, 48, 3), np.uint8)] * 3), 10.0)
    text = player(path, "a < b", wrong=True)
    assert 'style="aspect-ratio: 48 / 32"' in text
    assert '<figcaption class="wrong">a &lt; b</figcaption>' in text
    style = page()
    assert "height: calc(100% + 5rem)" in style
    assert "object-position: top" in style


def test_tables_are_scrolled_in_their_own_box() -> None:
    for head in ([], ["name", "number"]):
        text = page(head=head, rows=[["<i>", "1"]])
        mark = "" if head else ' class="facts"'
        assert re.search(rf'<div class="wide"><table{mark}>\s*<tr>', text)
        assert "<td>&lt;i&gt;</td>" in text
        assert ('<td class="number">1</td>' in text) == bool(head)
