"""Whether an input is like the clips a network was trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from spikevideoformer.nn.neuron import FiringRates

_FALSE_ALARMS = 0.05
_FEWEST = 8


@dataclass(frozen=True, kw_only=True)
class Familiarity:
    """How the layers of a network fire on clips like those it was trained on.

    A clip's profile is the firing rate of each layer of neurons, and simple facts of its pictures
    (see :func:`profile`). Its distance is the root mean square of how many standard deviations
    each entry lies from the mean of the training clips: about 1 for one of them.

    Attributes:
        mean: of each entry of the profile over training clips.
        deviation: its standard deviation, with a floor.
        limit: distance from which a clip counts as unlike.
        false_alarms: share of validation clips beyond the limit; None without validation clips.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    limit: float
    false_alarms: float | None

    def __post_init__(self) -> None:
        numbers = (*self.mean, *self.deviation, self.limit)
        if len(self.mean) != len(self.deviation) or not all(map(math.isfinite, numbers)):
            raise ValueError("familiarity needs as many means as deviations, all of them finite")
        if min((*self.deviation, self.limit), default=1.0) <= 0:
            raise ValueError("deviations and limit of a familiarity must be above 0")

    @classmethod
    def of(cls, training: Tensor, validation: Tensor | None) -> Familiarity | None:
        """Measured on the profiles of clips.

        The limit is such that at most a twentieth of the clips known to be right lies beyond it,
        with a margin for those that nobody has seen.

        Args:
            training: profiles ``[N, P]``.
            validation: of clips that were not trained on, ``[M, P]``, or None.

        Returns:
            None for so few clips that they say nothing about others.
        """
        if len(training) < _FEWEST:
            return None
        mean = training.mean(0)
        # Layers that fire the same on all clips must not make a hair's breadth a surprise.
        deviation = training.std(0).clamp(min=1e-3) + 0.05 * mean.abs()
        known = [_distances(training, mean, deviation)]
        if validation is not None:
            known.append(_distances(validation, mean, deviation))
        limit = 1.25 * max(float(d.quantile(1 - _FALSE_ALARMS)) for d in known)
        alarms = None if validation is None else float((known[1] > limit).double().mean())
        return cls(
            mean=tuple(round(v, 6) for v in mean.tolist()),
            deviation=tuple(round(v, 6) for v in deviation.tolist()),
            limit=round(limit, 4),
            false_alarms=alarms,
        )

    def distances(self, profiles: Tensor) -> Tensor:
        """Of clips with these profiles ``[N, P]``: ``[N]``."""
        mean = torch.tensor(self.mean, dtype=torch.float64)
        return _distances(profiles, mean, torch.tensor(self.deviation, dtype=torch.float64))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Familiarity:
        """Inverse of :meth:`to_dict`; ValueError for anything else."""
        try:
            numbers = {name: _numbers(values[name]) for name in ("mean", "deviation")}
            alarms = values["false_alarms"]
            return cls(
                **numbers,
                limit=float(values["limit"]),
                false_alarms=None if alarms is None else float(alarms),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"familiarity is {values!r}; expected what training wrote") from error


def profile(video: Tensor, rates: FiringRates) -> Tensor:
    """What is compared of clips ``[B, T, C, H, W]``: ``[B, P]``, float64 on the CPU.

    The mean firing rate of each layer, the mean of each input channel and its deviation, and how
    much the input changes from frame to frame and from pixel to pixel.
    """
    x = video.detach().double()
    within = x.std((1, 3, 4), correction=0)  # [B, C]
    across = (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3, 4))  # [B]
    change = (x[:, 1:] - x[:, :-1]).abs().mean((1, 2, 3, 4)) if x.shape[1] > 1 else 0 * across
    parts = [x.mean((1, 3, 4)), within, across[:, None], change[:, None]]
    if rates.per_frame:
        names = sorted(rates.per_frame)  # each engine has an order of its own
        layers = torch.stack([rates.per_frame[name] for name in names])  # [L, T, B]
        parts.append(layers.double().mean(1).T.to(x.device))
    return torch.cat(parts, dim=1).cpu()


def _distances(profiles: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    return ((profiles - mean) / deviation).square().mean(1).sqrt()


def _numbers(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(map(float, values))
