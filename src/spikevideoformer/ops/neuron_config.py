"""What a neuron does, in numbers that check themselves. Nothing here needs torch."""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

NeuronKind = Literal["lif", "integer_lif", "relu"]
Surrogate = Literal["sigmoid", "arctan", "triangle"]
SURROGATES: tuple[str, ...] = get_args(Surrogate)

# Width parameters that each shape is used with in the field: sigmoid as in the published
# checkpoints' code, arctan as in Fang et al. (ICCV 2021), triangle with support [-1, 1].
DEFAULT_ALPHA: dict[str, float] = {"sigmoid": 4.0, "arctan": 2.0, "triangle": 1.0}


@dataclass(frozen=True, kw_only=True)
class NeuronConfig:
    """What a neuron does; the defaults are those of the published checkpoints.

    Attributes:
        kind: ``lif`` fires 0 or 1; ``integer_lif`` fires an integer in 0..``levels``; ``relu`` is
            the rectifier max(0, x) of an ordinary network in their place, for which every other
            field keeps its default.
        tau: membrane time constant in frames, > 1 (``beta = 1 - 1/tau`` is kept from one frame
            to the next) or infinity (no leak; only without ``decay_input``).
        v_threshold: membrane at which a neuron fires, > 0.
        v_reset: membrane after a spike (hard reset), and at the start; None subtracts
            ``v_threshold`` for each spike instead (soft reset, start at 0).
        decay_input: whether the input is divided by ``tau`` too.
        detach_reset: whether the reset stays out of the gradient.
        surrogate: shape of the surrogate gradient (binary neurons).
        surrogate_alpha: its sharpness; the usual one of that shape where None.
        levels: D, largest integer fired by ``integer_lif``, at most 255: spikes are kept and
            passed as bytes too.

    Raises:
        ValueError: a value outside its range.

    Source: Zou et al., ICML 2025; the defaults are those of its code.
    """

    kind: NeuronKind = "lif"
    tau: float = 2.0
    v_threshold: float = 1.0
    v_reset: float | None = 0.0
    decay_input: bool = True
    detach_reset: bool = True
    surrogate: Surrogate = "sigmoid"
    surrogate_alpha: float | None = None
    levels: int = 1

    def __post_init__(self) -> None:
        if self.kind not in get_args(NeuronKind):
            raise ValueError(
                f"neuron kind {self.kind!r} is unknown; choose lif, integer_lif or relu"
            )
        if self.kind == "relu":
            for f in fields(self):
                if f.name != "kind" and getattr(self, f.name) != f.default:
                    raise ValueError(
                        f"{f.name} is {getattr(self, f.name)!r}, which a rectifier (kind relu) "
                        "does not have; leave it out"
                    )
            return
        for name in ("tau", "v_threshold", "v_reset", "surrogate_alpha"):
            value = getattr(self, name)
            optional = name in ("v_reset", "surrogate_alpha")
            if not (isinstance(value, (int, float)) or (optional and value is None)):
                raise ValueError(f"{name} is {value!r}; expected a number")
        for name in ("decay_input", "detach_reset"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected true or false")
        if not self.tau > 1:
            raise ValueError(f"tau is {self.tau}; it must be above 1 frame (beta = 1 - 1/tau)")
        if math.isinf(self.tau) and self.decay_input:
            raise ValueError("tau is infinite: the input would vanish; set decay_input=False")
        if not self.v_threshold > 0:
            raise ValueError(f"v_threshold is {self.v_threshold}; it must be positive")
        if self.v_reset is not None and not self.v_reset < self.v_threshold:
            raise ValueError(
                f"v_reset {self.v_reset} must lie below v_threshold {self.v_threshold}"
            )
        if self.surrogate not in SURROGATES:
            raise ValueError(
                f"surrogate {self.surrogate!r} is unknown; choose one of {', '.join(SURROGATES)}"
            )
        if self.surrogate_alpha is not None and not self.surrogate_alpha > 0:
            raise ValueError(f"surrogate_alpha is {self.surrogate_alpha}; it must be positive")
        if self.kind == "lif" and self.levels != 1:
            raise ValueError(f"levels is {self.levels}; a binary lif has levels=1")
        if self.kind == "integer_lif":
            if not (isinstance(self.levels, int) and 1 <= self.levels <= 255):
                raise ValueError(
                    f"levels is {self.levels}; integer_lif needs an integer, 1 to 255 (paper: 4)"
                )
            if self.v_reset is not None:
                raise ValueError("integer_lif subtracts what it fires; set v_reset=None")

    @classmethod
    def integer(cls, levels: int = 4, **overrides: Any) -> "NeuronConfig":
        """Integer-LIF as the paper states it: H = beta*U + X, soft reset, D = ``levels``."""
        defaults: dict[str, Any] = {"v_reset": None, "decay_input": False}
        return cls(kind="integer_lif", levels=levels, **{**defaults, **overrides})

    @classmethod
    def from_beta(cls, beta: float, **overrides: Any) -> "NeuronConfig":
        """The same neuron given by what a membrane keeps per frame, 0 < beta <= 1."""
        if not 0 < beta <= 1:
            raise ValueError(f"beta is {beta}; it must lie in (0, 1]")
        return cls(tau=math.inf if beta == 1 else 1 / (1 - beta), **overrides)

    @property
    def spiking(self) -> bool:
        """Whether it fires spikes; a rectifier passes real values."""
        return self.kind != "relu"

    @property
    def beta(self) -> float:
        """Share of the membrane that one frame keeps."""
        return 1 - 1 / self.tau

    @property
    def alpha(self) -> float:
        """Sharpness of the surrogate in use."""
        if self.surrogate_alpha is None:
            return DEFAULT_ALPHA[self.surrogate]
        return self.surrogate_alpha

    @property
    def v_start(self) -> float:
        """Membrane before the first frame."""
        return 0.0 if self.v_reset is None else self.v_reset
