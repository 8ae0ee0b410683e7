"""Where the values of a tensor come from, followed through every operation.

Whether a product is an addition depends on what its operands are, and that cannot be read off
values alone: a membrane may happen to be 0 or 1. So each tensor carries a tag from the operation
that made it. The tag belongs to the memory, not to the tensor: all views of it share one.

========= ==========================================================================
constant  depends on no input: weights, buffers and what is computed of them alone
spikes    what a neuron or a comparison gives: integers 0..D
signs     spikes shifted and scaled by integers, element by element: 2Q - 1
integers  sums of products of the two above: K^T V
real      everything else
========= ==========================================================================
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Source = Literal["constant", "spikes", "signs", "integers", "real"]
_RANK: dict[Source, int] = {"constant": 0, "spikes": 1, "signs": 2, "integers": 3, "real": 4}


class Front(NamedTuple):
    """The last spikes that a layer read in front of some values.

    Attributes:
        order: of the layer in the run; later layers have larger ones.
        rate: mean of the integers that it read.
        neuron: the layer of neurons that fired them; empty where there is no single one.
    """

    order: int
    rate: float
    neuron: str = ""


@dataclass(frozen=True)
class Tag:
    """What is known of the values in one piece of memory.

    Attributes:
        source: see the top of the file.
        low: smallest value, of spikes and signs.
        high: largest value, of spikes and signs.
        front: the spikes in front of other values (or that signs were made of), if any.
        neuron: the layer of neurons that fired these very spikes; empty of other values.
    """

    source: Source
    low: float = -math.inf
    high: float = math.inf
    front: Front | None = None
    neuron: str = ""

    @property
    def is_unit(self) -> bool:
        """Whether the values are spikes or signs: a product with k of them is k additions."""
        return self.source in ("spikes", "signs")

    @property
    def is_integer(self) -> bool:
        """Whether the values are integers that come from spikes."""
        return self.is_unit or self.source == "integers"

    @property
    def bits(self) -> int:
        """Bits of one value in memory; 32 for sums and real values."""
        if not self.is_unit or math.isinf(self.high - self.low):
            return 32
        return max(1, math.ceil(math.log2(self.high - self.low + 1)))


CONSTANT = Tag("constant")


def spikes(levels: float) -> Tag:
    """The tag of what a neuron of D = ``levels`` fires."""
    return Tag("spikes", 0, levels)


def unit(low: float, high: float, front: Front | None) -> Tag:
    """Spikes or signs, as the range has it."""
    return Tag("spikes" if low >= 0 else "signs", low, high, front)


def later(*fronts: Front | None) -> Front | None:
    """The front of what is computed from several tensors: the one nearest to it."""
    return max((front for front in fronts if front is not None), default=None)


def join(*tags: Tag) -> Tag:
    """The tag of memory that holds values of several origins (cat, stack, where, a part written).

    Constants among spikes are taken for spikes: zeros that pad them. Were they others, the check
    of values (:func:`magnitude`) would say so.
    """
    widest = max(tags, key=lambda tag: _RANK[tag.source])
    known = [tag for tag in tags if tag.source != "constant"]
    front = later(*(tag.front for tag in tags))
    if not known or not widest.is_unit:
        return Tag(widest.source, front=front)
    made = unit(min(tag.low for tag in known), max(tag.high for tag in known), front)
    return replace(made, neuron=known[0].neuron) if len(known) == 1 else made


def real(*tags: Tag) -> Tag:
    """Real values computed from tensors with these tags."""
    return Tag("real", front=later(*(tag.front for tag in tags)))


def shifted(tag: Tag, low: float, high: float, front: Front | None) -> Tag:
    """Sum of integers and integers in ``[low, high]`` with another front."""
    front = later(tag.front, front)
    if not tag.is_unit:
        return replace(tag, front=front)
    return unit(tag.low + low, tag.high + high, front)


def scaled(tag: Tag, low: float, high: float, front: Front | None) -> Tag:
    """Product of integers and integers in ``[low, high]`` with another front."""
    front = later(tag.front, front)
    if not tag.is_unit:
        return replace(tag, front=front)
    ends = [a * b for a in (tag.low, tag.high) for b in (low, high)]
    return unit(min(ends), max(ends), front)


def integer_range(value: Tensor | float) -> tuple[float, float] | None:
    """Smallest and largest value of a constant whose values are all integers, else None."""
    if not isinstance(value, Tensor):
        return (value, value) if math.isfinite(value) and value == round(value) else None
    if value.is_meta or not value.numel() or not bool((value == value.round()).all()):
        return None
    return float(value.min()), float(value.max())


def factor(value: Tensor | float) -> Literal["none", "shift", "multiply"]:
    """What multiplying by a constant takes.

    ``none`` for values in {-1, 0, 1}, ``shift`` for powers of two among them (of either sign),
    else ``multiply``.
    """
    values = torch.as_tensor(value).abs()
    if values.is_meta or not values.numel():
        return "multiply"
    if not values.is_floating_point():
        values = values.double()
    if bool(((values == 0) | (values == 1)).all()):
        return "none"
    mantissa = torch.frexp(values).mantissa
    return "shift" if bool(((values == 0) | (mantissa == 0.5)).all()) else "multiply"


def magnitude(x: Tensor, tag: Tag, where: str) -> Tensor:
    """Absolute values of spikes or signs in float64, after a check that they are what they claim.

    Raises:
        RuntimeError: values that are no integers of the tag's range.
    """
    if x.is_meta:
        raise ValueError(f"{where}: spikes without values (meta device) cannot be counted")
    x = x.double()
    low, high = (float(end) for end in torch.aminmax(x)) if x.numel() else (0.0, 0.0)
    if low < tag.low or high > tag.high or not bool((x == x.round()).all()):
        raise RuntimeError(
            f"{where}: a tensor that counts as {tag.source} in {tag.low:g}..{tag.high:g} holds "
            f"other values ({low:g}..{high:g}); its origin was followed wrongly, please report it"
        )
    return x.abs()
