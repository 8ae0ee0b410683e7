"""Whether an input is like the clips a network was trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from spikevideoformer.nn.neuron import FiringRates

_FALSE_ALARMS = 0.05
_MARGIN = 1.25
_SHRINKAGE = 0.2  # docs/first_hour.md; covariances of few clips are mostly chance
_LEAST_LIMIT = 0.05  # of clips that are all the same
_FEWEST = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Familiarity:
    """How the layers of a network fire on clips like those it was trained on.

    A clip's profile x is the firing rate of each layer of neurons, and simple facts of its pictures
    (see :func:`profile`); P numbers.

    Equation: distance = |(x - mean) W| / sqrt(P), W W^T the inverse of the covariance of profiles,
    of which a fifth is replaced by its diagonal. About 1 for a training clip.

    Attributes:
        mean: of profiles of training clips, ``[P]``.
        whitening: W, ``[P, P]``.
        limit: distance from which a clip counts as unlike.
        false_alarms: share of validation clips beyond the limit; None without validation clips.

    Source: Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples", 2018
    (Mahalanobis distance); Ledoit & Wolf, 2004 (shrinkage, here by a fixed share).
    """

    mean: Tensor = field(repr=False)
    whitening: Tensor = field(repr=False)
    limit: float
    false_alarms: float | None

    def __post_init__(self) -> None:
        size = self.mean.numel()
        if self.mean.shape != (size,) or self.whitening.shape != (size, size):
            raise ValueError(
                f"familiarity has a mean {tuple(self.mean.shape)} and a whitening "
                f"{tuple(self.whitening.shape)}; expected [P] and [P, P]"
            )
        if not bool(self.mean.isfinite().all() & self.whitening.isfinite().all()):
            raise ValueError("familiarity holds numbers that are not finite")
        if not 0 < self.limit < math.inf:
            raise ValueError(f"limit of a familiarity is {self.limit!r}; expected a number above 0")

    @classmethod
    def of(cls, training: Tensor, validation: Tensor | None) -> Familiarity | None:
        """Measured on the profiles of clips.

        The limit is such that at most a twentieth of the clips known to be right lies beyond it,
        with a margin for those that nobody has seen.

        Args:
            training: profiles ``[N, P]``, float64.
            validation: of clips that were not trained on, ``[M, P]``, or None.

        Returns:
            None for so few clips that they say nothing about others.
        """
        if len(training) < _FEWEST:
            return None
        mean = training.mean(0)
        deviation = training.std(0).clamp(min=1e-3)
        correlation = torch.corrcoef(((training - mean) / deviation).T).nan_to_num(0.0)
        correlation = (1 - _SHRINKAGE) * correlation
        correlation.fill_diagonal_(1.0)
        whitening = torch.linalg.cholesky(torch.linalg.inv(correlation)) / deviation[:, None]
        familiar = cls(
            mean=mean.float(),
            whitening=whitening.float().contiguous(),
            limit=1.0,
            false_alarms=None,
        )
        known = [familiar.distances(z) for z in (training, validation) if z is not None]
        limit = _MARGIN * max(float(d.quantile(1 - _FALSE_ALARMS)) for d in known)
        limit = round(max(limit, _LEAST_LIMIT), 4)
        alarms = None if validation is None else float((known[1] > limit).double().mean())
        return cls(
            mean=familiar.mean, whitening=familiar.whitening, limit=limit, false_alarms=alarms
        )

    def distances(self, profiles: Tensor) -> Tensor:
        """Of clips with these profiles ``[N, P]``: ``[N]``, float64.

        Raises:
            ValueError: profiles of another network.
        """
        if profiles.shape[1] != self.mean.numel():
            raise ValueError(
                f"the model knows profiles of {self.mean.numel()} numbers, and its layers give "
                f"{profiles.shape[1]}: its familiarity is of another network; save or train it anew"
            )
        away = (profiles - self.mean.double()) @ self.whitening.double()
        return away.square().mean(1).sqrt()

    def tensors(self) -> dict[str, Tensor]:
        """What is kept beside the weights."""
        return {"familiarity.mean": self.mean, "familiarity.whitening": self.whitening}

    def to_dict(self) -> dict[str, Any]:
        """The rest, as plain values for JSON."""
        return {"limit": self.limit, "false_alarms": self.false_alarms}

    @classmethod
    def taken_from(cls, about: Mapping[str, Any], state: dict[str, Tensor]) -> Familiarity:
        """Inverse of :meth:`to_dict` and :meth:`tensors`, which are removed from the state.

        Raises:
            ValueError: something is missing, or is not what training wrote.
        """
        missing = [k for k in ("limit", "false_alarms") if k not in about]
        missing += [k for k in ("familiarity.mean", "familiarity.whitening") if k not in state]
        if missing:
            raise ValueError(f"familiarity lacks {missing[0]}; save or train the model anew")
        for name in ("limit", "false_alarms"):
            value = about[name]
            if type(value) not in (int, float) and not (value is None and name == "false_alarms"):
                raise ValueError(f"{name} of the familiarity is {value!r}; expected a number")
        return cls(
            mean=state.pop("familiarity.mean"),
            whitening=state.pop("familiarity.whitening"),
            limit=about["limit"],
            false_alarms=about["false_alarms"],
        )


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
        layers = torch.stack([rates.per_frame[name].double().mean(0) for name in names])  # [L, B]
        parts.append(layers.T.to(x.device))
    return torch.cat(parts, dim=1).cpu()
