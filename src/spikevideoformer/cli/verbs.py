"""What ``svf`` can do."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spikevideoformer.cli import (
    bench,
    convert,
    demo,
    energy,
    eval,
    models,
    predict,
    render,
    theory,
    train,
)


@dataclass(frozen=True)
class Verb:
    """One thing that ``svf`` does.

    Attributes:
        options: a dataclass, as `options` describes; its docstring is the help.
        run: takes such options, and returns how many inputs failed.
    """

    options: type
    run: Callable[[Any], int | None]

    @property
    def example(self) -> str:
        """A command that works as printed."""
        return self.said("Example: ") or ""

    def said(self, word: str) -> str | None:
        """What follows a word at the beginning of a line of that docstring."""
        lines = (inspect.getdoc(self.options) or "").splitlines()
        return next((line.removeprefix(word) for line in lines if line.startswith(word)), None)


VERBS = {
    "demo": Verb(demo.Options, demo.run),
    "train": Verb(train.Options, train.run),
    "eval": Verb(eval.Options, eval.run),
    "predict": Verb(predict.Options, predict.run),
    "convert": Verb(convert.Options, convert.run),
    "bench": Verb(bench.Options, bench.run),
    "theory": Verb(theory.Options, theory.run),
    "energy": Verb(energy.Options, energy.run),
    "render": Verb(render.Options, render.run),
    "models": Verb(models.Options, models.run),
}
