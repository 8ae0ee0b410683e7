"""The box: trained networks that come with the package, and what is known of each.

A network is a folder of ``weights/``: a model folder (``config.json``, ``model.safetensors``) with
a ``card.json`` beside it. Adding one is adding its folder. Nothing here needs torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from spikevideoformer.settings import Stored, read_settings

BOX = Path(__file__).resolve().parents[1] / "weights"
PREFIX = "svf/"
CARD_FILE = "card.json"
OF_TASK = {
    "classification": "svf/scene-motion",
    "segmentation": "svf/person-mask",
    "pose": "svf/person-pose",
}
"""What is used of a task where no model is named."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure of a network, on recordings that it was not trained on.

    Args:
        what: it is, such as top-1.
        on: which recordings.
        value: the figure.
        low: end of its 95 % interval over recordings; None where there is none.
        high: the other end.
        beside: what it is to be compared with, such as chance, or the like of a teacher.
    """

    what: str
    on: str
    value: float
    low: float | None = None
    high: float | None = None
    beside: str = ""

    def __str__(self) -> str:
        known = self.low is not None and self.high is not None
        interval = f" ({self.low:.3g} to {self.high:.3g})" if known else ""
        beside = f"; {self.beside}" if self.beside else ""
        return f"{self.what} {self.value:.3g}{interval} on {self.on}{beside}"


@dataclass(frozen=True, kw_only=True)
class Card(Stored):
    """What is known of a network in the box, besides what its model folder says.

    Args:
        about: what it tells, in a sentence.
        licence: of the weights.
        data: what it was trained on, a line each with its licence.
        recipe: folder of the repository that makes data and network again.
        training: how it was trained, in a line.
        metrics: how good it is.
        firing_rate: spikes for each neuron and frame, mean over layers, on its validation clips.
        energy_mj: of the arithmetic of a clip, by convention (docs/energy.md), in millijoules.
        limits: what it cannot do, a line each.
    """

    _what = "entry of a card"

    about: str
    licence: str
    data: tuple[str, ...]
    recipe: str
    training: str
    metrics: tuple[Metric, ...]
    firing_rate: float
    energy_mj: dict[str, float]
    limits: tuple[str, ...]

    def __post_init__(self) -> None:
        figures = tuple(
            m if isinstance(m, Metric) else read_settings(Metric, m) for m in self.metrics
        )
        object.__setattr__(self, "metrics", figures)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The card of a folder of the box; ValueError for damage."""
        path = folder / CARD_FILE
        if not path.is_file():
            raise ValueError(f"{path} is missing; install the package again")
        try:
            values: dict[str, Any] = json.loads(path.read_text("utf-8"))
            return cls.from_dict(values)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error


def boxed() -> Iterator[str]:
    """Names of the networks in the box, in their order."""
    if BOX.is_dir():
        yield from sorted(PREFIX + path.parent.name for path in BOX.glob("*/config.json"))


def boxed_folder(name: str) -> Path:
    """The model folder of a network in the box.

    Raises:
        ValueError: it is not there (yet).
    """
    if name not in (known := tuple(boxed())):
        state = "not in the box of this version yet" if name in OF_TASK.values() else "unknown"
        raise ValueError(
            f"{name} is {state}; it holds {', '.join(known) or 'nothing'} "
            "(`svf models --weights`); give one of these, or a model folder"
        )
    return BOX / name.removeprefix(PREFIX)
