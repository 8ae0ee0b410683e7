"""What is written down of every operation: amounts of work, and what a run consists of."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from torch import Tensor

from spikevideoformer.energy.provenance import Source, Tag

Kind = Literal[
    "conv",
    "linear",
    "attention",
    "bias",
    "norm",
    "neuron",
    "residual",
    "activation",
    "softmax",
    "pooling",
    "elementwise",
    "memory",
]
LAYERS: tuple[Kind, ...] = ("conv", "linear", "attention")


@dataclass(frozen=True, kw_only=True)
class Work:
    """Amounts of work; they add up. Fractions come from means over clips.

    Attributes:
        macs: dense multiply-accumulates of convolutions, linear layers and attention, as
            ``FlopCounterMode`` counts them (it reports two operations for each).
        padding_macs: those of them that fall on the zeros of a padding.
        acs: accumulations that spikes cause; they are in ``additions`` too.
        multiplications: by factors that are no power of two.
        additions: and subtractions.
        shifts: multiplications by powers of two.
        comparisons: thresholds, maxima.
        exponentials: and roots, logarithms.
        divisions: by what is no constant.
        neuron_updates: neurons times frames.
        weights_read: numbers, each once for every call of its layer.
        bits_in: of activations read.
        bits_out: of activations written.
        membrane_bits: of membranes, read and written.
    """

    macs: float = 0
    padding_macs: float = 0
    acs: float = 0
    multiplications: float = 0
    additions: float = 0
    shifts: float = 0
    comparisons: float = 0
    exponentials: float = 0
    divisions: float = 0
    neuron_updates: float = 0
    weights_read: float = 0
    bits_in: float = 0
    bits_out: float = 0
    membrane_bits: float = 0


WORK = tuple(f.name for f in fields(Work))


def total(works: Sequence[Work]) -> Work:
    """The sum of several amounts of work."""
    return Work(**{name: math.fsum(getattr(work, name) for work in works) for name in WORK})


@dataclass(frozen=True, kw_only=True)
class OperationCount(Work):
    """One operation that ran.

    Attributes:
        module: where it ran: the module that owns its weight, else the innermost one running.
        operation: its name in torch.
        kind: what it is for.
        shapes: of the tensors it read.
        operand: what its input is (for attention, the operand that decides).
        rate: mean of the integers in the input that is spikes, measured; None for other input.
        front_rate: of the last spikes in front of an input that is none; None where there are
            none, as before the first layer.
        fired_by: the layer of neurons that fired the spikes of either; None where there are none,
            empty where several did.
        pointwise_padded: a 1x1 convolution with padding, whose border reads nothing.
    """

    module: str
    operation: str
    kind: Kind
    shapes: tuple[tuple[int, ...], ...]
    operand: Source
    rate: float | None = None
    front_rate: float | None = None
    fired_by: str | None = None
    pointwise_padded: bool = False

    @property
    def paper_macs(self) -> float:
        """Multiply-accumulates as papers count them: kernel x channels x outputs.

        The border of a padded 1x1 convolution is a way to make RepConv's border, no layer's work.
        """
        return self.macs - self.padding_macs if self.pointwise_padded else self.macs

    @property
    def paper_rate(self) -> float | None:
        """The firing rate that papers multiply them with; None where the input is no spikes'."""
        return self.front_rate if self.rate is None else self.rate


@dataclass(frozen=True, kw_only=True)
class NeuronActivity:
    """What one layer of neurons fired.

    Attributes:
        module: its name.
        levels: D.
        rate_per_frame: mean integer fired per neuron, for each frame.
        channels: C.
        silent: channels of which no neuron fired in any frame.
        saturated: channels of which every neuron fired in every frame.
    """

    module: str
    levels: int
    rate_per_frame: tuple[float, ...]
    channels: int
    silent: tuple[int, ...]
    saturated: tuple[int, ...]

    @property
    def rate(self) -> float:
        """Mean over frames."""
        return math.fsum(self.rate_per_frame) / len(self.rate_per_frame)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """All that ran in one pass.

    Attributes:
        operations: in order of execution, those that depend on the input.
        neurons: in order of execution.
        constants: operations that depend on no input, and are not counted.
        outputs: shape of what each module returned, by its name (tensors only).
    """

    operations: tuple[OperationCount, ...]
    neurons: tuple[NeuronActivity, ...]
    constants: int
    outputs: dict[str, tuple[int, ...]] = field(repr=False)

    @property
    def total(self) -> Work:
        """The sum over all operations."""
        return total(self.operations)


@dataclass(frozen=True)
class Call:
    """An operation that has run.

    Attributes:
        name: in torch, without the underscore of one that works in place.
        arguments: by name.
        out: its first result.
    """

    name: str
    arguments: dict[str, Any]
    out: Tensor

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        """An argument that may be absent."""
        return self.arguments.get(name, default)


Rule = Callable[[Any, Call], Tag | tuple[Tag, ...]]
"""Records a call in a ``Counter``, and says what its results are."""
