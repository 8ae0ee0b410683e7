"""What can be asked, and the networks that answer it. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from spikevideoformer.training.config import TrainConfig

ORDINARY = "ann_"
"""The twin of `svf_NAME`, an ordinary network of the same shape, is `ann_NAME`."""


@dataclass(frozen=True)
class Variant:
    """One network.

    Attributes:
        about: what it is, for tables.
        changes: to the settings of the run; a neuron, design, attention and model of its own.
        ordinary: whether it is the twin of the network that is asked about.
    """

    about: str
    changes: Mapping[str, Any]
    ordinary: bool = False

    def of(self, base: TrainConfig, seed: int, out: Path) -> TrainConfig:
        """Its run.

        Raises:
            ValueError: the twin of a network that has none.
        """
        changes = dict(self.changes)
        if self.ordinary:
            if not base.model.startswith("svf_"):
                raise ValueError(f"model {base.model!r} has no ordinary twin; take a preset svf_*")
            changes["model"] = base.model.replace("svf_", ORDINARY, 1)
            changes = {"attention": None, "neuron": None} | changes
            if base.design == "neuron_only":  # without memory
                changes = {"design": "spatial_only"} | changes
        return replace(base, seed=seed, out=out, **changes)


@dataclass(frozen=True)
class Question:
    """What is compared.

    Attributes:
        asks: in a line.
        variants: by name; the others are held against the first.
        published: settings that start from those of the preset, whatever the recipe says.
        better, worse: variants that the paper compares, and what it found.
        paper: its figures.
    """

    asks: str
    variants: Mapping[str, Variant]
    published: tuple[str, ...] = ()
    better: str | None = None
    worse: str | None = None
    paper: str = ""

    def base(self, config: TrainConfig) -> TrainConfig:
        """The run that the variants change."""
        presets: dict[str, Any] = dict.fromkeys(self.published)
        return replace(config, **presets)

    def only(self, names: Sequence[str]) -> Self:
        """The same with some of its variants.

        Raises:
            ValueError: a name that is none of them, or given twice.
        """
        for i, name in enumerate(names):
            if name not in self.variants:
                raise ValueError(
                    f"variant {name!r} is unknown; choose of {', '.join(self.variants)}"
                )
            if name in names[:i]:
                raise ValueError(f"--variants names {name} twice; leave one out")
        return replace(self, variants={name: self.variants[name] for name in names})


def _integer(levels: int, **others: Any) -> dict[str, Any]:
    return {"neuron": {"kind": "integer_lif", "levels": levels, **others}}


def _threshold(scale: str | float) -> dict[str, Any]:
    return {"block": {"attention_norm": False, "threshold_scale": scale}}


_FRAME: dict[str, Any] = {"design": "spatial_only"}
_FIGURES = "pose at T = 8, PA-MPJPE in mm, and Cityscapes, mIoU in %"

QUESTIONS: dict[str, Question] = {
    "attention": Question(
        "Hamming attention or the dot product that it replaces?",
        {
            "hamming": Variant("Hamming attention", {"attention": "hamming"}),
            "dot": Variant("dot product", {"attention": "dot"}),
        },
        better="hamming",
        worse="dot",
        paper=f"39.8 against 45.7, and 73.1 against 65.9 ({_FIGURES})",
    ),
    "design": Question(
        "Over which frames should attention and memory reach?",
        {
            "joint": Variant("attention over all frames", {"design": "joint"}),
            "hierarchical": Variant("over ever more frames", {"design": "hierarchical"}),
            "factorized": Variant("over space, then over time", {"design": "factorized"}),
            "neuron_only": Variant("inside each frame, with memory", {"design": "neuron_only"}),
            "spatial_only": Variant("each frame by itself", {"design": "spatial_only"}),
        },
        better="joint",
        worse="spatial_only",
        paper=f"39.8 against 54.2, and 73.1 against 62.1 ({_FIGURES})",
    ),
    "neuron": Question(
        "Spikes of 0 and 1, or whole numbers?",
        {
            "binary": Variant("LIF, spikes of 0 and 1", {"neuron": "lif"}),
            "integer2": Variant("Integer-LIF, 0 to 2", _integer(2)),
            "integer4": Variant("Integer-LIF, 0 to 4", _integer(4)),
            "integer8": Variant("Integer-LIF, 0 to 8", _integer(8)),
        },
    ),
    "twin": Question(
        "As good as an ordinary network of the same shape?",
        {
            "spiking": Variant("the recipe", {}),
            "ordinary": Variant("rectifiers and softmax", {}, ordinary=True),
        },
    ),
    "rate": Question(
        "What does a budget of spikes cost?",
        {
            "free": Variant("no budget", {"rate_budget": None}),
            **{
                f"at_{rate:g}": Variant(
                    f"{rate:g} spikes a neuron and frame", {"rate_budget": rate}
                )
                for rate in (0.2, 0.1, 0.05, 0.025)
            },
        },
    ),
    "ladder": Question(
        "What does each ingredient cost, from the ordinary network to the published one?",
        {
            "twin": Variant("the ordinary twin: rectifiers, softmax, all frames", {}, True),
            "twin_frame": Variant("the twin, each frame by itself", _FRAME, True),
            "fine": Variant(
                "rectifiers in 255 steps of 1/32, dot product",
                {**_integer(255, v_threshold=1 / 32), **_FRAME, "attention": "dot"},
            ),
            "integer8_dot": Variant(
                "0 to 8 spikes, dot product", {**_integer(8), **_FRAME, "attention": "dot"}
            ),
            "integer4_dot": Variant(
                "0 to 4 spikes, dot product", {**_integer(4), **_FRAME, "attention": "dot"}
            ),
            "integer8": Variant("0 to 8 spikes, Hamming attention", {**_integer(8), **_FRAME}),
            "integer4": Variant("0 to 4 spikes, Hamming attention", {**_integer(4), **_FRAME}),
            "integer2": Variant("0 to 2 spikes, Hamming attention", {**_integer(2), **_FRAME}),
            "binary_frame": Variant("0 or 1, each frame by itself", _FRAME),
            "binary_short": Variant(
                "0 or 1, all frames, memory tau = 1.05", {"neuron": {"tau": 1.05}}
            ),
            "integer4_short": Variant(
                "0 to 4 spikes, all frames, memory tau = 1.2", _integer(4, tau=1.2)
            ),
            "integer4_memory": Variant("0 to 4 spikes, all frames, memory tau = 2", _integer(4)),
            "binary": Variant("0 or 1, all frames, memory tau = 2: as published", {}),
        },
        published=("design", "attention", "neuron"),
    ),
    "scale": Question(
        "Which threshold scale s of Hamming attention, and with or without a batch norm?",
        {
            "published": Variant("1/(2C), then a batch norm: the published code", {}),
            "width": Variant("1/(2C) in the threshold, no batch norm", _threshold("width")),
            "head": Variant("1/(2 C/h) in the threshold: D of a head", _threshold("head")),
            "eighth": Variant("1/8 in the threshold", _threshold(0.125)),
        },
        published=("attention",),
        better="width",
        worse="eighth",
        paper="a fixed 1/8 is worse than 1/(2D)",
    ),
    "initialisation": Question(
        "From random weights, or from those of another network?",
        {"random": Variant("random weights", {"init_from": None})},
        better="start",
        worse="random",
        paper=f"from ImageNet-1K 39.8 against 53.8, and 73.1 against 61.3 ({_FIGURES})",
    ),
}


def question(name: str, starts: Sequence[str] = (), variants: Sequence[str] = ()) -> Question:
    """A question by name.

    Args:
        name: of `QUESTIONS`.
        starts: model folders, only for the question of initialisation.
        variants: some of its variants, all where none is named.

    Raises:
        ValueError: an unknown variant, or starts that are missing or mean nothing.
    """
    asked = QUESTIONS[name]
    if (name == "initialisation") != bool(starts):
        raise ValueError(
            "question initialisation needs --start, the folders of networks to start from"
            if not starts
            else f"--start is given, which question {name} does not use; leave it out"
        )
    if starts:
        found = {
            f"start{i}" if i > 1 else "start": Variant(
                f"from {folder}", {"init_from": Path(folder)}
            )
            for i, folder in enumerate(starts, 1)
        }
        asked = replace(asked, variants={**found, **asked.variants})
    return asked.only(variants) if variants else asked
