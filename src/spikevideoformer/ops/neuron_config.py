"""What a neuron does, in numbers that check themselves. Nothing here needs torch."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from spikevideoformer.messages import require_known

Surrogate = Literal["sigmoid", "arctan", "triangle"]
SURROGATES: tuple[str, ...] = get_args(Surrogate)
Rounding = Literal["half_even", "half_up"]

# Width parameters that each shape is used with in the field: sigmoid as in the published
# checkpoints' code, arctan as in Fang et al. (ICCV 2021), triangle with support [-1, 1].
DEFAULT_ALPHA: dict[str, float] = {"sigmoid": 4.0, "arctan": 2.0, "triangle": 1.0}

BINARY = (
    *("tau", "v_threshold", "v_reset", "decay_input", "detach_reset"),
    *("surrogate", "surrogate_alpha"),
)
"""The fields of a neuron that fires 0 or 1."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What is true of every neuron of a kind; ``nn.neuron.NEURONS`` has the module that runs it.

    Attributes:
        called: what it is in words, for errors.
        has: the fields of :class:`NeuronConfig` that it reads; others keep their defaults.
        chosen: values of a neuron of which only the kind is named, where they are not the
            defaults.
        check: raises ValueError for fields that do not go together.
        spiking: whether it fires spikes; else real values pass.
        kernels: whether ``ops.lif`` and its kernels compute it. Folding and the inference engine
            are made of these, and refuse other kinds.
        integer: whether it fires integers 0..D.
        normalised: whether what reads its integers k takes them for k / D.
    """

    called: str
    has: tuple[str, ...] = BINARY
    chosen: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[["NeuronConfig"], None] = lambda config: None
    spiking: bool = True
    kernels: bool = False
    integer: bool = False
    normalised: bool = False


def _check_integer(config: "NeuronConfig") -> None:
    if not (isinstance(config.levels, int) and 1 <= config.levels <= 255):
        raise ValueError(
            f"levels is {config.levels}; {config.kind} needs an integer, 1 to 255 (paper: 4)"
        )
    if config.v_reset is not None:
        raise ValueError(f"{config.kind} subtracts what it fires; set v_reset=None")


def _check_normalised(config: "NeuronConfig") -> None:
    _check_integer(config)
    if config.tau != 1 or config.decay_input:
        raise ValueError(
            "ni_lif has no memory; set tau=1 and decay_input=False, or name the kind alone "
            "(NeuronConfig.of_kind('ni_lif'))"
        )


KINDS: dict[str, Kind] = {
    "lif": Kind(called="a binary lif", kernels=True),
    "integer_lif": Kind(
        called="an integer_lif",
        has=(*BINARY, "levels", "rounding"),
        chosen={"v_reset": None, "decay_input": False, "levels": 4},
        check=_check_integer,
        kernels=True,
        integer=True,
    ),
    "ni_lif": Kind(
        called="a normalised integer_lif",
        has=("tau", "v_threshold", "v_reset", "decay_input", "levels", "rounding"),
        chosen={"tau": 1.0, "v_reset": None, "decay_input": False, "levels": 4},
        check=_check_normalised,
        kernels=True,
        integer=True,
        normalised=True,
    ),
    "relu": Kind(called="a rectifier (kind relu)", has=(), spiking=False),
}
"""Every kind of neuron. docs/new_neuron.md adds one."""


@dataclass(frozen=True, kw_only=True)
class NeuronConfig:
    """What a neuron does; the defaults are those of the published checkpoints.

    Attributes:
        kind: one of :data:`KINDS`. ``lif`` fires 0 or 1; ``integer_lif`` fires an integer in
            0..``levels``; ``ni_lif`` (normalised Integer-LIF, of E-SpikeFormer) does so, too, but
            forgets its membrane after each frame (``tau`` 1), and the layers that read its
            integers k take them for k / D; ``relu`` is the rectifier max(0, x) of an ordinary
            network in their place, for which every other field keeps its default.
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
        rounding: of a membrane of k + 1/2 thresholds to an integer: ``half_even`` as torch.round,
            or ``half_up``.

    Raises:
        ValueError: a value outside its range.

    Source: Zou et al., ICML 2025; the defaults are those of its code.
    """

    kind: str = "lif"
    tau: float = 2.0
    v_threshold: float = 1.0
    v_reset: float | None = 0.0
    decay_input: bool = True
    detach_reset: bool = True
    surrogate: Surrogate = "sigmoid"
    surrogate_alpha: float | None = None
    levels: int = 1
    rounding: Rounding = "half_even"

    def __post_init__(self) -> None:
        if not (isinstance(self.kind, str) and self.kind in KINDS):
            raise ValueError(f"neuron kind {self.kind!r} is unknown; choose {_listed(KINDS)}")
        kind = KINDS[self.kind]
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name != "kind" and f.name not in kind.has and value != f.default:
                raise ValueError(
                    f"{f.name} is {value!r}, which {kind.called} does not have; leave it out "
                    f"({f.name}={f.default!r})"
                )
        for name in ("tau", "v_threshold", "v_reset", "surrogate_alpha"):
            value = getattr(self, name)
            optional = name in ("v_reset", "surrogate_alpha")
            if not (isinstance(value, (int, float)) or (optional and value is None)):
                raise ValueError(f"{name} is {value!r}; expected a number")
        for name in ("decay_input", "detach_reset"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected true or false")
        if not (self.tau > 1 or (kind.normalised and self.tau == 1)):
            raise ValueError(f"tau is {self.tau}; it must be above 1 frame (beta = 1 - 1/tau)")
        if math.isinf(self.tau) and self.decay_input:
            raise ValueError("tau is infinite: the input would vanish; set decay_input=False")
        if not self.v_threshold > 0:
            raise ValueError(f"v_threshold is {self.v_threshold}; it must be positive")
        if self.v_reset is not None and not self.v_reset < self.v_threshold:
            raise ValueError(
                f"v_reset {self.v_reset} must lie below v_threshold {self.v_threshold}"
            )
        require_known("surrogate", self.surrogate, SURROGATES)
        if self.surrogate_alpha is not None and not self.surrogate_alpha > 0:
            raise ValueError(f"surrogate_alpha is {self.surrogate_alpha}; it must be positive")
        require_known("rounding", self.rounding, get_args(Rounding))
        kind.check(self)

    @classmethod
    def of_kind(cls, kind: str, **overrides: Any) -> "NeuronConfig":
        """The usual neuron of a kind, and what is to be different of it."""
        chosen = next((k.chosen for name, k in KINDS.items() if name == kind), {})
        return cls(kind=kind, **{**chosen, **overrides})

    @classmethod
    def integer(cls, levels: int = 4, **overrides: Any) -> "NeuronConfig":
        """Integer-LIF as the paper states it: H = beta*U + X, soft reset, D = ``levels``."""
        return cls.of_kind("integer_lif", levels=levels, **overrides)

    @classmethod
    def from_beta(cls, beta: float, **overrides: Any) -> "NeuronConfig":
        """The same neuron given by what a membrane keeps per frame, 0 < beta <= 1."""
        if not 0 < beta <= 1:
            raise ValueError(f"beta is {beta}; it must lie in (0, 1]")
        return cls(tau=math.inf if beta == 1 else 1 / (1 - beta), **overrides)

    @property
    def spiking(self) -> bool:
        """Whether it fires spikes; a rectifier passes real values."""
        return KINDS[self.kind].spiking

    @property
    def kernels(self) -> bool:
        """Whether ``ops.lif`` and its kernels compute it."""
        return KINDS[self.kind].kernels

    @property
    def fires_integers(self) -> bool:
        """Whether it fires integers 0..``levels``."""
        return KINDS[self.kind].integer

    @property
    def unit(self) -> float:
        """What a spike is worth to the layers that read it: 1, or 1 / D where normalised."""
        return 1 / self.levels if KINDS[self.kind].normalised else 1.0

    @property
    def remembers(self) -> bool:
        """Whether a frame leaves something for the next."""
        return self.beta > 0

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


def _listed(names: Mapping[str, Kind]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"


def kinds_of_kernels() -> str:
    """The kinds that ``ops.lif`` computes, in words, for refusals."""
    return _listed({name: kind for name, kind in KINDS.items() if kind.kernels})
