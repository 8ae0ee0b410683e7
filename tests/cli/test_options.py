"""What a dataclass makes of the arguments of a verb."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from spikevideoformer.cli.options import Json, add_options, flag, read_options
from spikevideoformer.cli.parser import Parser


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Settings within settings.

    Args:
        share: of something.
    """

    share: float = 0.5


@dataclass(frozen=True, kw_only=True)
class File:
    """Settings of a file.

    Args:
        name: of a class.
        inner: more.
    """

    name: str | None = None
    inner: Inner = field(default_factory=Inner)


@dataclass(frozen=True, kw_only=True)
class Options(Json):
    """Try everything.

    Args:
        inputs: files.
        kind: one of two.
        out: a folder.
        count_at_most: how many, 100 % of them.
        factors: several.
        rate_hz: pictures a second.
        fast: a switch
            of two lines.
        own: of tasks.
        settings: of the file.
    """

    inputs: tuple[str, ...] = field(metadata={"positional": True, "metavar": "INPUT"})
    kind: Literal["a", "b"] = "a"
    out: Path | None = None
    count_at_most: int = field(default=4, metadata={"at_least": 1, "multiple_of": 2})
    factors: tuple[float, ...] | None = None
    rate_hz: float = field(default=1.0, metadata={"above": 0, "metavar": "HZ"})
    fast: bool = False
    own: dict[str, Any] = field(metadata={"of_task": "predict_options"})
    settings: dict[str, Any] = field(metadata={"settings": File})


def parser() -> Parser:
    made = Parser(prog="try")
    add_options(made, Options)
    return made


def read(*words: str) -> Options:
    return read_options(Options, parser().parse_args(words))


def test_defaults() -> None:
    assert read("x") == Options(inputs=("x",), own={}, settings={})


def test_values_have_the_types_of_the_fields() -> None:
    words = "x y --kind b --out ~/z --count-at-most 6 --factors 0.5,2 --rate-hz 3 --fast --json"
    settings = "--top-k 3 --flip --name null --inner.share 0.25"
    assert read(*words.split(), *settings.split()) == Options(
        inputs=("x", "y"),
        kind="b",
        out=Path.home() / "z",
        count_at_most=6,
        factors=(0.5, 2.0),
        rate_hz=3.0,
        fast=True,
        json=True,
        own={"top_k": 3, "flip": True},
        settings={"name": None, "inner": {"share": 0.25}},
    )


def test_help_is_the_docstring() -> None:
    text = " ".join(parser().format_help().split())
    for part in (
        "INPUT files",
        "--kind {a,b} one of two (default a)",
        "--out PATH a folder",
        "--count-at-most N how many, 100 % of them (default 4)",
        "--rate-hz HZ pictures a second (default 1.0)",
        "--json print JSON and nothing else",
        "--fast a switch of two lines",
        "only for segmentation: --sliding-window",
        "--name NAME of a class",
        "--inner.share X of something (default 0.5)",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "INPUT; see `try --help`"),
        ("x --kind c", "choose from"),
        ("x --count-at-most 0", "--count-at-most is 0; give at least 1"),
        ("x --count-at-most 3", "--count-at-most is 3; give a multiple of 2"),
        ("x --rate-hz 0", "--rate-hz is 0.0; give a number above 0"),
        ("x --top-k 0", "--top-k is 0; give at least 1"),
        ("x --rate-hz inf", "--rate-hz is inf; give a number above 0"),
        ("x --factors 1,b", "'1,b' is no list of numbers like 0.75,1"),
        ("x --out {file}", "is a file; give --out a folder"),
    ],
)
def test_mistakes(words: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=re.escape(message)):
        read(*words.format(file=tmp_path / "file").split())


def test_flags_have_dashes() -> None:
    assert flag("batch_size") == "--batch-size"
