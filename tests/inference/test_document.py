"""What pages share: the glossary, players whose controls cover nothing, tables in their own box."""

from pathlib import Path

import numpy as np

from spikevideoformer.inference.document import GLOSSARY, document, glossary, player, table
from spikevideoformer.video.frames import write_video


def test_glossary_has_the_words_that_are_used_and_no_others() -> None:
    assert glossary("<p>A SpikeVideoFormer in action.</p>") == ""
    text = glossary('<p title="merged">Spikes.</p><td>ZCU104</td> 3 MACs')
    terms = [term for term, _, _ in GLOSSARY if f"<dt>{term}</dt>" in text]
    assert terms == ["spike", "MAC, AC", "ZCU104"]
    assert text.startswith("<details>")  # folded up


def test_every_word_is_found_where_it_is_used() -> None:
    for term, _, meaning in GLOSSARY:
        for word in term.split(", "):
            if word != "AC":
                assert f"<dt>{term}</dt><dd>{meaning}</dd>" in glossary(f"<p>the {word}</p>")


def test_document_escapes_its_title() -> None:
    text = document("<b>&", ["<p>firing rate</p>"])
    assert "<title>&lt;b&gt;&amp;</title>" in text
    assert "<b>" not in text
    assert text.index("<p>firing rate</p>") < text.index("<dt>firing rate</dt>")


def test_controls_stand_below_the_pictures(tmp_path: Path) -> None:
    """The box of the pictures has their shape; that of the video reaches further down."""
    path = tmp_path / "clip.mp4"
    write_video(path, iter([np.zeros((32, 48, 3), np.uint8)] * 3), 10.0)
    text = player(path, "a < b", wrong=True)
    assert 'style="aspect-ratio: 48 / 32"' in text
    assert '<figcaption class="wrong">a &lt; b</figcaption>' in text
    style = document("x", [])
    assert "height: calc(100% + 5rem)" in style
    assert "object-position: top" in style


def test_tables_are_scrolled_in_their_own_box() -> None:
    for head in ([], ["name", "number"]):
        text = table(head, [["<i>", "1"]])
        assert text.startswith('<div class="wide"><table')
        assert "<td>&lt;i&gt;</td>" in text
        assert ('<td class="number">1</td>' in text) == bool(head)
