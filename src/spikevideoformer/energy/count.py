"""What a network does, operation by operation, counted while it runs.

``count_operations`` runs a module once, on real input, under a dispatch mode of torch, which sees
every operation that is executed. An operation that is not known here is an error, never a zero.
``provenance`` says of each operand whether it holds spikes; the firing rate is measured on that
very tensor. What is counted:

================ ===============================================================================
convolution,     n = dense multiply-accumulates (``macs``). Input that is real: a multiplication
linear           and an addition for each. Input that is spikes: an addition for each output that
                 a spike reaches (``acs``); an integer spike k is k of them. What falls on the zeros
                 of a padding is in ``macs`` (and in what other counters report) but is no
                 operation of either kind.
attention        see :meth:`Counter._product`
bias             an addition for each output
batch norm       in evaluation: a multiplication and an addition for each element
neuron           see :func:`neuron_step`
element by       an addition, comparison ... for each element; a multiplication by constants in
element          {-1, 0, 1} is nothing, by powers of two a shift, by others a multiplication
softmax          of each element: exponential, division, comparison (maximum), two additions
data movement    views, casts, copies, padding: no arithmetic, memory traffic where bytes move
================ ===============================================================================

Memory traffic is what the operation reads and writes, each tensor once: weights in numbers (their
width is the cost table's matter), spikes in 1 bit (ceil(log2(D + 1)) for D levels), other values
in 32, and membranes, read and written once for each neuron and frame.

What depends on no input (the affine form of a batch norm, say) is the same for every clip and is
not counted.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from spikevideoformer.energy import provenance as origin
from spikevideoformer.energy.provenance import CONSTANT, Front, Tag
from spikevideoformer.nn.neuron import Neuron
from spikevideoformer.ops._kernels import NeuronArgs
from spikevideoformer.ops.hamming import as_written

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
        pointwise_padded: a 1x1 convolution with padding, whose border reads nothing.
    """

    module: str
    operation: str
    kind: Kind
    shapes: tuple[tuple[int, ...], ...]
    operand: origin.Source
    rate: float | None = None
    front_rate: float | None = None
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


def count_operations(
    module: nn.Module, *inputs: Tensor, run: Callable[..., Any] | None = None
) -> Counts:
    """Run a module once and count.

    Args:
        module: in evaluation mode, on whatever device.
        *inputs: its arguments, real values (the first layer multiplies).
        run: what to call instead of the module itself, with the same arguments; it may only use
            the weights of ``module``.

    Raises:
        ValueError: the module is in training mode, or does something that is not known here.
        RuntimeError: the origin of a tensor was lost or followed wrongly.
    """
    if module.training:
        raise ValueError("the module is in training mode; call .eval() first")
    with torch.no_grad(), Counter(module, inputs) as counter:
        (module if run is None else run)(*inputs)
    return counter.counts()


# --- Neurons --------------------------------------------------------------------------------------


def neuron_step(neuron: NeuronArgs) -> dict[str, int]:
    """Operations of one neuron in one frame, with everything that its update takes.

    Equation (as in ``ops/lif.py``):
        charge  H = V + (X - V) / tau           2 additions and a multiplication, a shift where tau
                                                is a power of two; 1 more addition for v_reset
                H = beta V + X                  1 addition and a multiplication or shift
        fire    H >= theta                      1 comparison; D for the D levels of Integer-LIF
        reset   V = v_reset or H                a selection: nothing
                V = H - theta S                 1 addition (and for D > 1 the product theta S)
    """
    work = {"additions": 0, "multiplications": 0, "shifts": 0, "comparisons": neuron.levels}

    def times(value: float) -> None:
        kind = origin.factor(value)
        if kind != "none":
            work["shifts" if kind == "shift" else "multiplications"] += 1

    rest = neuron.v_reset or 0.0
    if neuron.decay_input:
        work["additions"] += 2 + (rest != 0)
        times(1 / neuron.tau)
    else:
        work["additions"] += 1 + 2 * (rest != 0)
        times(1 - 1 / neuron.tau)
    if neuron.v_reset is None:
        work["additions"] += 1
        if neuron.levels > 1:
            times(neuron.v_threshold)
    return work


# --- Counter --------------------------------------------------------------------------------------


class _Call(NamedTuple):
    """An operation that has run: its name, its arguments by name, its first result."""

    name: str
    arguments: dict[str, Any]
    out: Tensor

    def __getitem__(self, name: Any) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.arguments.get(name, default)


class Counter(TorchDispatchMode):
    """The dispatch mode behind :func:`count_operations`.

    Args:
        module: whose parameters and buffers are the constants, and whose parts name the places.
        inputs: what the run is given.
    """

    def __init__(self, module: nn.Module, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self._operations: list[OperationCount] = []
        self._neurons: list[NeuronActivity] = []
        self._outputs: dict[str, tuple[int, ...]] = {}
        self._constants, self._layers_of_spikes, self._neuron_ops = 0, 0, 0
        self._watching = True
        self._names = {part: name for name, part in module.named_modules()}
        self._running: list[tuple[nn.Module, int]] = []
        self._exits = ExitStack()
        self._tags = WeakIdKeyDictionary()  # of storages
        self._owners = WeakIdKeyDictionary()  # storage of a weight -> name of its module
        for place, part in module.named_modules():
            for weight in [*part.parameters(False), *part.buffers(False)]:
                self._tags[weight.untyped_storage()] = CONSTANT
                self._owners[weight.untyped_storage()] = place
        for x in inputs:
            self._tags[x.untyped_storage()] = Tag("real")

    def __enter__(self) -> "Counter":
        # hooks of all modules rather than of each: RepConv and Neuron take another way where one
        # of their parts has a hook
        for handle in (
            register_module_forward_pre_hook(self._begin),
            register_module_forward_hook(self._end, always_call=True),
        ):
            self._exits.callback(handle.remove)
        self._exits.enter_context(as_written())
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._exits.close()

    def counts(self) -> Counts:
        """What was counted."""
        return Counts(
            operations=tuple(self._operations),
            neurons=tuple(self._neurons),
            constants=self._constants,
            outputs=self._outputs,
        )

    # Where we are

    def _begin(self, module: nn.Module, _args: object) -> None:
        if module in self._names:
            self._running.append((module, self._neuron_ops))

    def _end(self, module: nn.Module, _args: object, out: object) -> None:
        if module not in self._names:
            return
        _, neuron_ops = self._running.pop()
        if not isinstance(out, Tensor):
            return
        self._outputs[self._names[module]] = tuple(out.shape)
        if isinstance(module, Neuron):
            if neuron_ops == self._neuron_ops:  # its steps ran one by one, and were counted so
                updates = out.numel()
                self._add(
                    "membranes",
                    "neuron",
                    [],
                    self._tag(out).source,
                    place=self._names[module],
                    neuron_updates=updates,
                    membrane_bits=64 * updates,
                )
            with self._unwatched():
                self._neurons.append(_activity(self._names[module], module, out))

    @property
    def _place(self) -> str:
        return self._names[self._running[-1][0]] if self._running else ""

    @property
    def _in_neuron(self) -> bool:
        return bool(self._running) and isinstance(self._running[-1][0], Neuron)

    @contextmanager
    def _unwatched(self) -> Iterator[None]:
        self._watching = False
        try:
            yield
        finally:
            self._watching = True

    # Tags

    def _tag(self, x: Any) -> Tag:
        """Of a tensor; numbers are constants."""
        if not isinstance(x, Tensor):
            return CONSTANT
        tag = self._tags.get(x.untyped_storage())
        if tag is None:
            raise RuntimeError(
                f"{self._place or 'the module'} uses a tensor {tuple(x.shape)} that is neither an "
                "input, a weight, a buffer nor a result: its origin is lost, so that it cannot be "
                "counted; register it as a buffer, or pass it as an input"
            )
        return tag

    def _mark(self, x: Tensor, tag: Tag, *, written: bool = False) -> None:
        """Give memory a tag; where only a part of it is ``written``, it keeps what it had too."""
        storage = x.untyped_storage()
        if written and x.numel() * x.element_size() < storage.nbytes():
            tag = origin.join(self._tags.get(storage, CONSTANT), tag)
        self._tags[storage] = tag

    def _bits(self, *tensors: Any) -> float:
        """Of activations; constants are weights."""
        found = [(x, self._tag(x)) for x in tensors if isinstance(x, Tensor)]
        return sum(x.numel() * tag.bits for x, tag in found if tag.source != "constant")

    def _weights(self, *tensors: Any) -> int:
        return sum(
            x.numel()
            for x in tensors
            if isinstance(x, Tensor) and self._tag(x).source == "constant"
        )

    def _owner(self, *tensors: Any) -> str:
        """The module that has one of these as its weight, else the one that runs."""
        for x in tensors:
            if isinstance(x, Tensor) and x.untyped_storage() in self._owners:
                return cast(str, self._owners[x.untyped_storage()])
        return self._place

    # Records

    def _add(
        self,
        operation: str,
        kind: Kind,
        read: Sequence[Any],
        operand: origin.Source,
        *,
        place: str | None = None,
        out: Tensor | None = None,
        tag: Tag | None = None,
        **work: Any,
    ) -> None:
        """Record an operation that read some tensors and made ``out`` with this ``tag``."""
        work.setdefault("bits_in", self._bits(*read))
        work.setdefault("weights_read", self._weights(*read))
        if out is not None and tag is not None:
            work.setdefault("bits_out", out.numel() * tag.bits)
        self._operations.append(
            OperationCount(
                module=self._place if place is None else place,
                operation=operation,
                kind=kind,
                shapes=tuple(tuple(x.shape) for x in read if isinstance(x, Tensor)),
                operand=operand,
                **work,
            )
        )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not self._watching:
            return result
        name = func.overloadpacket.__name__
        read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        made = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        mutates = func._schema.is_mutable
        if name in _FACTORIES:
            for x in made:
                self._mark(x, CONSTANT)
            return result
        tags = [self._tag(x) for x in read]
        if not mutates and made and all(_is_view(x, read) for x in made):
            return result
        names = [argument.name for argument in func._schema.arguments]
        arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        base = name.removesuffix("_") if mutates else name
        if base not in _LAYER_OPS and all(tag.source == "constant" for tag in tags):
            self._constants += 1
            for x in made:
                self._mark(x, CONSTANT, written=mutates)
            return result
        rule = _RULES.get(base) if func.namespace in ("aten", "spikevideoformer") else None
        if rule is None:
            raise ValueError(
                f"{self._place or 'the module'} runs {func.namespace}::{name}, an operation that "
                "is not known to the counter; add a rule for it to energy/count.py"
            )
        if made:
            call = _Call(base, arguments, made[0])
            tag = rule(self, call)
            for x, own in zip(made, tag if isinstance(tag, tuple) else [tag] * len(made)):  # noqa: B905
                self._mark(x, own, written=mutates)
        return result

    # Convolutions and matrix products

    def _convolution(self, call: _Call) -> Tag:
        x, weight, bias = call["input"], call["weight"], call["bias"]
        if self._tag(weight).source != "constant":
            raise ValueError(f"{self._place}: a convolution with computed weights is not known")
        reach = [
            _taps(*geometry, transposed=call["transposed"])
            for geometry in zip(
                x.shape[2:],
                call.out.shape[2:],
                weight.shape[2:],
                call["stride"],
                call["padding"],
                call["dilation"],
                strict=True,
            )
        ]
        groups = call["groups"]
        outputs = weight.shape[1] if call["transposed"] else weight.shape[0] // groups
        space = (x if call["transposed"] else call.out).shape[2:]
        macs = x.shape[0] * weight.numel() * math.prod(space)  # kernel, channels, outputs
        inside = x.shape[0] * x.shape[1] * outputs * math.prod(int(r.sum()) for r in reach)

        def accumulations(values: Tensor) -> float:
            sums = values.sum((0, 1)).cpu()  # at each place, of all images and channels
            for axis, taps in enumerate(reach):
                sums = sums * taps.reshape(-1, *[1] * (sums.ndim - axis - 1))
            return float(sums.sum()) * outputs

        pointwise = math.prod(weight.shape[2:]) == 1
        return self._layer(
            call,
            "conv",
            x,
            weight,
            bias,
            macs,
            macs - inside,
            accumulations,
            pointwise_padded=pointwise and any(call["padding"]),
        )

    def _layer(
        self,
        call: _Call,
        kind: Kind,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        macs: float,
        padding_macs: float,
        accumulations: Callable[[Tensor], float],
        **details: Any,
    ) -> Tag:
        """A layer with constant weights; ``accumulations`` of absolute values of its input."""
        tag = self._tag(x)
        place = self._owner(weight)
        work: dict[str, float] = {"macs": macs, "padding_macs": padding_macs}
        rate, front = None, tag.front
        if tag.is_unit:
            values = origin.magnitude(x, tag, place)
            work["acs"] = work["additions"] = accumulations(values)
            front = self._front(values)
            rate = front.rate
        else:
            work["multiplications"] = work["additions"] = macs - padding_macs
        made = Tag("real", front=front)
        self._add(
            call.name,
            kind,
            [x, weight],
            tag.source,
            place=place,
            out=call.out,
            tag=made,
            rate=rate,
            front_rate=None if front is None else front.rate,
            **work,
            **details,
        )
        if bias is not None and not _is_zero(bias):
            self._add_bias(call, bias, place)
        return made

    def _add_bias(self, call: _Call, bias: Tensor, place: str) -> None:
        # added where the sums are made: it is read, they are not read again
        self._add(call.name, "bias", [bias], "real", place=place, additions=call.out.numel())

    def _front(self, values: Tensor) -> Front:
        self._layers_of_spikes += 1
        return Front(self._layers_of_spikes, float(values.mean()) if values.numel() else 0.0)

    def _matmul(self, call: _Call) -> Tag:
        """mm, bmm, addmm, baddbmm, mv, dot, linear."""
        if call.name == "linear":
            x, weight, bias = call["input"], call["weight"], call.get("bias")
            a, b = x.reshape(-1, x.shape[-1]), weight.mT
        else:
            left, right = _OPERANDS[call.name]
            a, b, bias = call[left], call[right], call.get("self")
            if not call.name.startswith(("add", "badd")) or call.get("beta", 1) == 0:
                bias = None
        for scale in ("alpha", "beta"):
            if call.get(scale, 1) not in (0, 1):
                raise ValueError(f"{self._place}: {call.name} with {scale} is not known")
        constant = [self._tag(z).source == "constant" for z in (a, b)]
        if not any(constant):
            return self._product(call, a, b, bias)
        x, weight = (b, a) if constant[0] and not constant[1] else (a, b)
        macs = _matmul_macs(a, b)
        fan_out = macs / max(x.numel(), 1)
        return self._layer(
            call, "linear", x, weight, bias, macs, 0, lambda values: float(values.sum()) * fan_out
        )

    def _product(self, call: _Call, a: Tensor, b: Tensor, offset: Any) -> Tag:
        """The product of two computed tensors, ``[..., m, k]`` and ``[..., k, n]``: attention.

        Hamming attention is counted as the paper has it, Q' [K'^T V] or [Q' K'^T] V with
        Q' = 2Q - 1 and K' = 2K - 1, since under the counter it runs that way (``as_written``). The
        same integers come out of what runs otherwise, Q (2A) - 1 (1^T A), which saves the pass
        over Q and K.

        With spikes or signs on both sides a multiply-accumulate adds (or subtracts) |a b|. So in
        K'^T V each value spike adds or subtracts a bit +1 or -1 to d sums: N d d rate(V) additions
        a head, and Q' K'^T takes all N N d. In K^T V of the dot product only pairs of spikes count.
        With spikes or signs on one side, k of them adds the other side's value k times:
        N d d rate(Q) for Q A, all N d d for Q' A. With none, each is a multiplication and an
        addition.
        """
        tags = [self._tag(a), self._tag(b)]
        macs = _matmul_macs(a, b)
        units = [
            origin.magnitude(z, tag, self._place) if tag.is_unit else None
            for z, tag in zip((a, b), tags, strict=True)
        ]
        rate, work = None, {"macs": float(macs)}
        operand = tags[1] if tags[1].source == "spikes" else tags[0]
        if units[0] is not None and units[1] is not None:
            work["acs"] = float((units[0].sum(-2) * units[1].sum(-1)).sum())
        elif units[0] is not None:
            work["acs"] = float(units[0].sum()) * b.shape[-1]
        elif units[1] is not None:
            work["acs"] = float(units[1].sum()) * a.shape[-2]
            operand = tags[1]
        if "acs" in work:
            work["additions"] = work["acs"]
            read = units[1] if operand is tags[1] else units[0]
            assert read is not None
            # of signs, the rate of the spikes that they stand for
            rate = self._front(read).rate if operand.front is None else operand.front.rate
        else:
            work["additions"] = work["multiplications"] = float(macs)
        if all(tag.is_integer for tag in tags):
            made = Tag("integers", front=origin.later(*(tag.front for tag in tags)))
        else:
            made = origin.real(*tags)
        if rate is not None:
            made = Tag(made.source, front=Front(self._layers_of_spikes, rate))
        self._add(
            call.name,
            "attention",
            [a, b],
            operand.source,
            out=call.out,
            tag=made,
            rate=rate,
            **work,
        )
        if offset is not None and not _is_zero(offset):
            self._add_bias(call, offset, self._place)
        return made

    def _fused_attention(self, call: _Call) -> Tag:
        """Softmax attention in one operation: two products, a scale and a softmax."""
        q, k, v = call["query"], call["key"], call["value"]
        made = origin.real(*(self._tag(z) for z in (q, k, v)))
        pairs = q[..., 0].numel() * k.shape[-2]
        macs = pairs * (q.shape[-1] + v.shape[-1])
        self._add(
            call.name,
            "attention",
            [q, k, v],
            "real",
            out=call.out,
            tag=made,
            macs=macs,
            multiplications=macs,
            additions=macs,
        )
        self._add(call.name, "elementwise", [], "real", multiplications=pairs)  # the scale
        self._add(call.name, "softmax", [], "real", **_softmax_of(pairs))
        mask = call.get("attn_mask", call.get("attn_bias"))
        if mask is not None:
            self._add(call.name, "bias", [mask], "real", additions=pairs)
        return made

    def _softmax(self, call: _Call) -> Tag:
        x = call["self"]
        made = origin.real(self._tag(x))
        self._add(
            call.name, "softmax", [x], "real", out=call.out, tag=made, **_softmax_of(x.numel())
        )
        return made

    # Norms

    def _batch_norm(self, call: _Call) -> Tag:
        if call.get("training", False):
            raise ValueError(f"{self._place}: a batch norm in training mode; call .eval() first")
        x = call["input"]
        made = origin.real(self._tag(x))
        self._norm(call, x, made, (call["weight"], call["bias"], call["running_mean"]))
        return made

    def _norm(self, call: _Call, x: Tensor, made: Tag, weights: Sequence[Any]) -> None:
        """A batch norm in evaluation: scale and shift of each channel."""
        self._add(
            call.name,
            "norm",
            [x],
            self._tag(x).source,
            place=self._owner(*weights),
            out=call.out,
            tag=made,
            multiplications=x.numel(),
            additions=x.numel(),
            weights_read=2 * x.shape[1],
        )

    def _statistics_norm(self, call: _Call) -> Tag:
        """Layer and group norm: mean, variance, and for each element their use and an affine."""
        x, n = call["input"], call["input"].numel()
        made = origin.real(self._tag(x))
        self._add(
            call.name,
            "norm",
            [x, call["weight"], call["bias"]],
            "real",
            place=self._owner(call["weight"]),
            out=call.out,
            tag=made,
            multiplications=(2 + (call["weight"] is not None)) * n,
            additions=(3 + (call["bias"] is not None)) * n,
        )
        return made

    # Neurons

    def _affine_lif(self, call: _Call) -> tuple[Tag, ...]:
        x, residual = call["x"], call["residual"]
        return self._neuron(call, x, call["scale"], residual, 2)

    def _batch_norm_lif(self, call: _Call) -> tuple[Tag, ...]:
        weights = (call["mean"], call["weight"], call["bias"])
        return self._neuron(call, call["x"], call["scale"], None, 2, self._owner(*weights))

    def _neuron(
        self,
        call: _Call,
        x: Tensor,
        scale: Tensor | None,
        residual: Tensor | None,
        channel: int,
        norm: str | None = None,
    ) -> tuple[Tag, ...]:
        """[Affine] [+ residual] + neuron in one operation: spikes, last membrane, stream."""
        self._neuron_ops += 1
        neuron = NeuronArgs(*(call[name] for name in NeuronArgs._fields))
        n, made = x.numel(), origin.spikes(neuron.levels)
        stream = origin.real(self._tag(x), self._tag(residual))
        if scale is not None:
            self._add(
                call.name,
                "norm",
                [],
                self._tag(x).source,
                place=self._place if norm is None else norm,
                multiplications=n,
                additions=n,
                weights_read=2 * x.shape[channel],
            )
        if residual is not None:
            self._add(
                *(call.name, "residual", [residual], "real"),
                bits_out=n * stream.bits,
                additions=n,
            )
        self._add(
            call.name,
            "neuron",
            [x],
            self._tag(x).source,
            out=call.out,
            tag=made,
            neuron_updates=n,
            membrane_bits=64 * n,
            **{name: count * n for name, count in neuron_step(neuron).items()},
        )
        return made, stream, stream

    # Element by element

    def _elementwise(self, call: _Call, read: Sequence[Any], made: Tag, **work: Any) -> Tag:
        """Record it; what runs in a neuron module is the neuron's."""
        kind: Kind = work.pop("kind", "elementwise")
        if self._in_neuron:
            kind = "neuron"
        source = origin.join(*(self._tag(z) for z in read)).source
        self._add(call.name, kind, read, source, out=call.out, tag=made, **work)
        return made

    def _sum_of_two(self, call: _Call) -> Tag:
        a, b = call["self"], call["other"]
        if call.name == "rsub":
            a, b = b, a
        alpha = call.get("alpha", 1)
        if call.name in ("sub", "rsub"):
            alpha = -alpha
        tags, n = (self._tag(a), self._tag(b)), call.out.numel()
        work: dict[str, Any] = dict.fromkeys(("additions",), 0 if _is_zero(a) or _is_zero(b) else n)
        _times(work, alpha, n)
        if all(tag.source != "constant" for tag in tags) and a.shape == b.shape:
            work["kind"] = "residual"
        made = origin.real(*tags)
        ranges = [self._range(z) for z in (a, b)]
        if ranges[0] and ranges[1] and alpha == round(alpha):
            low, high = sorted(alpha * end for end in ranges[1])
            if tags[0].source == "constant":
                made = origin.shifted(origin.scaled(tags[1], alpha, alpha, None), *ranges[0], None)
            else:
                made = origin.shifted(tags[0], low, high, tags[1].front)
            made = self._keep_front(made, a, b)
        elif all(tag.is_integer or z for tag, z in zip(tags, ranges, strict=True)):
            made = Tag("integers", front=origin.later(*(tag.front for tag in tags)))
        return self._elementwise(call, [a, b], made, **work)

    def _product_of_two(self, call: _Call) -> Tag:
        a, b = call["self"], call["other"]
        tags, n = (self._tag(a), self._tag(b)), call.out.numel()
        work: dict[str, Any] = {}
        if tags[0].source == "constant" or tags[1].source == "constant":
            constant = a if tags[0].source == "constant" else b
            _times(work, constant, n)
        elif not any(tag.is_unit and max(-tag.low, tag.high) <= 1 for tag in tags):
            work["multiplications"] = n  # with a spike or a sign: a selection
        made, ranges = origin.real(*tags), [self._range(z) for z in (a, b)]
        if ranges[0] and ranges[1]:
            if tags[0].source == "constant":
                made = origin.scaled(tags[1], *ranges[0], tags[1].front)
            else:
                made = origin.scaled(tags[0], *ranges[1], origin.later(*(t.front for t in tags)))
            made = self._keep_front(made, a, b)
        elif all(tag.is_integer or z for tag, z in zip(tags, ranges, strict=True)):
            made = Tag("integers", front=origin.later(*(tag.front for tag in tags)))
        return self._elementwise(call, [a, b], made, **work)

    def _range(self, x: Any) -> tuple[float, float] | None:
        """Smallest and largest value of spikes, signs and integer constants."""
        tag = self._tag(x)
        if tag.source == "constant":
            return origin.integer_range(x)
        return (tag.low, tag.high) if tag.is_unit else None

    def _keep_front(self, made: Tag, *read: Any) -> Tag:
        """Signs remember the rate of the spikes that they are made of."""
        if made.source != "signs" or made.front is not None:
            return made
        for x in read:
            tag = self._tag(x)
            if tag.source == "spikes":
                front = self._front(origin.magnitude(x, tag, self._place))
                return Tag(made.source, made.low, made.high, front)
        return made

    def _quotient(self, call: _Call) -> Tag:
        a, b = call["self"], call["other"]
        work: dict[str, Any] = {}
        n = call.out.numel()
        if self._tag(b).source != "constant":
            work["divisions"] = n
        elif isinstance(b, Tensor):
            _times(work, torch.where(b == 0, 0, 1 / b), n)
        else:
            _times(work, 1 / b, n)
        return self._elementwise(call, [a, b], origin.real(self._tag(a), self._tag(b)), **work)

    def _comparison(self, call: _Call) -> Tag:
        read = [z for z in (call["self"], call.get("other")) if z is not None]
        return self._elementwise(call, read, origin.spikes(1), comparisons=call.out.numel())

    def _selection(self, call: _Call) -> Tag:
        branches = [call["self"], call["other"]]
        tags = [self._tag(z) for z in branches]
        made = origin.join(*tags)
        if made.source == "constant":  # one constant or the other, as the condition says
            made = origin.real(self._tag(call["condition"]))
        return self._elementwise(call, [call["condition"], *branches], made)

    def _limits(self, call: _Call) -> Tag:
        """Rounding and clamping, which together make integers of a membrane."""
        x = call["self"]
        tag, n = self._tag(x), call.out.numel()
        if call.name == "round":
            made = tag if tag.is_integer else Tag("integers", front=tag.front)
            return self._elementwise(call, [x], made, additions=n)
        ends = [call.get(end) for end in ("min", "max")]
        made = tag
        if tag.is_integer and None not in ends and not isinstance(ends[0], Tensor):
            made = origin.unit(float(ends[0]), float(ends[1]), tag.front)
        return self._elementwise(
            call, [x], made, comparisons=n * sum(end is not None for end in ends)
        )

    def _extreme(self, call: _Call) -> Tag:
        """Maxima and minima over axes or windows, and of two tensors."""
        read = [z for z in (call["self"], call.get("other")) if isinstance(z, Tensor)]
        made = origin.join(*(self._tag(z) for z in read))
        n = call.out.numel()
        if "kernel_size" in call.arguments:
            n *= math.prod(call["kernel_size"]) - 1
        elif len(read) == 1:
            n = read[0].numel() - n
        return self._elementwise(call, read, made, kind="pooling", comparisons=n)

    def _activation(self, call: _Call) -> Tag:
        n = call.out.numel()
        work = {name: count * n for name, count in _ACTIVATIONS[call.name].items()}
        made = origin.real(self._tag(call["self"]))
        return self._elementwise(call, [call["self"]], made, kind="activation", **work)

    def _same(self, call: _Call) -> Tag:
        """Sign and absolute value: no arithmetic."""
        tag = self._tag(call["self"])
        return self._elementwise(call, [call["self"]], origin.real(tag))

    def _reduction(self, call: _Call) -> Tag:
        """Sums and means: of spikes an addition for each, else for each element beyond the first.

        A mean multiplies each result.
        """
        x, n = call["self"], call.out.numel()
        tag = self._tag(x)
        count = x.numel() / max(n, 1)
        if tag.is_unit:
            work = {"additions": float(origin.magnitude(x, tag, self._place).sum())}
        else:
            work = {"additions": float(x.numel() - n)}
        made = Tag("integers", front=tag.front) if tag.is_integer else origin.real(tag)
        kind: Kind = "elementwise"
        if call.name != "sum":
            _times(work, 1 / count, n)
            made, kind = origin.real(tag), "pooling"
        return self._elementwise(call, [x], made, kind=kind, **work)

    def _average_window(self, call: _Call) -> Tag:
        x, n = call["self"], call.out.numel()
        size = math.prod(call["kernel_size"])
        work: dict[str, Any] = {"additions": (size - 1) * n}
        _times(work, 1 / size, n)
        return self._elementwise(call, [x], origin.real(self._tag(x)), kind="pooling", **work)

    def _interpolation(self, call: _Call) -> Tag:
        """Bilinear: of four neighbours, three differences weighted in turn."""
        x, n = call["self"], call.out.numel()
        work = {"multiplications": 3 * n, "additions": 6 * n}
        return self._elementwise(call, [x], origin.real(self._tag(x)), kind="pooling", **work)

    # Data movement

    def _movement(self, call: _Call) -> Tag:
        read = [x for x in tree_leaves(call.arguments) if isinstance(x, Tensor)]
        if call.name == "copy":
            read = [call["src"]]
        made = origin.join(*(self._tag(x) for x in read))
        value = call.get("value") or 0
        if call.name == "constant_pad_nd" and made.is_unit and not made.low <= value <= made.high:
            made = origin.real(made)
        self._add(call.name, "memory", read, made.source, out=call.out, tag=made)
        return made

    def _scalar(self, call: _Call) -> Tag:
        """A value that Python looks at: nothing is computed."""
        return self._tag(call["self"])


# --- Rules ----------------------------------------------------------------------------------------


def _rules(rule: Any, *names: str) -> dict[str, Any]:
    return dict.fromkeys(names, rule)


# What makes constants, whatever tensors it takes a shape from.
_FACTORIES = frozenset(
    """lift_fresh lift_fresh_copy empty empty_strided empty_like new_empty new_empty_strided zeros
    zeros_like new_zeros ones ones_like new_ones full full_like new_full arange linspace eye
    scalar_tensor""".split()
)

_OPERANDS = {
    "mm": ("self", "mat2"),
    "bmm": ("self", "mat2"),
    "mv": ("self", "vec"),
    "addmm": ("mat1", "mat2"),
    "baddbmm": ("batch1", "batch2"),
}
# Counted even where all operands are constant: the state that a recurrent network starts from is.
_LAYER_OPS = frozenset({"convolution", "linear", *_OPERANDS})

# Operations of each element.
_ACTIVATIONS: dict[str, dict[str, int]] = {
    "relu": {"comparisons": 1},
    "leaky_relu": {"comparisons": 1, "multiplications": 1},
    "sigmoid": {"exponentials": 1, "additions": 1, "divisions": 1},
    "tanh": {"exponentials": 1, "additions": 2, "divisions": 1},
    "silu": {"exponentials": 1, "additions": 1, "divisions": 1, "multiplications": 1},
    "gelu": {"exponentials": 1, "additions": 1, "multiplications": 3},  # x/2 (1 + erf(x/sqrt 2))
    "exp": {"exponentials": 1},
    "log": {"exponentials": 1},
    "sqrt": {"exponentials": 1},
    "rsqrt": {"exponentials": 1, "divisions": 1},
    "reciprocal": {"divisions": 1},
}

_RULES: dict[str, Callable[[Counter, _Call], Any]] = {
    **_rules(Counter._convolution, "convolution"),
    **_rules(Counter._matmul, "linear", *_OPERANDS),
    **_rules(
        Counter._fused_attention,
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    ),
    **_rules(Counter._softmax, "_softmax", "_safe_softmax", "_log_softmax"),
    **_rules(
        Counter._batch_norm,
        "native_batch_norm",
        "cudnn_batch_norm",
        "_native_batch_norm_legit_no_training",
        "_batch_norm_no_update",
    ),
    **_rules(Counter._statistics_norm, "native_layer_norm", "native_group_norm"),
    **_rules(Counter._affine_lif, "affine_lif"),
    **_rules(Counter._batch_norm_lif, "batch_norm_lif"),
    **_rules(Counter._sum_of_two, "add", "sub", "rsub"),
    **_rules(Counter._product_of_two, "mul"),
    **_rules(Counter._quotient, "div"),
    **_rules(
        Counter._comparison,
        *"ge gt le lt eq ne logical_and logical_or logical_not".split(),
        *"bitwise_and bitwise_or bitwise_not".split(),
    ),
    **_rules(Counter._selection, "where"),
    **_rules(Counter._limits, "round", "clamp", "clamp_min", "clamp_max"),
    **_rules(
        Counter._extreme,
        *"amax amin max min maximum minimum max_pool2d_with_indices max_pool3d_with_indices".split(),
    ),
    **_rules(Counter._activation, *_ACTIVATIONS),
    **_rules(Counter._same, "neg", "abs"),
    **_rules(Counter._reduction, "sum", "mean", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
    **_rules(Counter._average_window, "avg_pool2d", "avg_pool3d"),
    **_rules(Counter._interpolation, "upsample_bilinear2d"),
    **_rules(
        Counter._movement,
        *"clone _to_copy copy cat stack constant_pad_nd roll flip repeat index_select index".split(),
        *"gather upsample_nearest2d _unsafe_view reflection_pad2d replication_pad2d".split(),
    ),
    **_rules(Counter._scalar, "_local_scalar_dense", "is_nonzero"),
}


# --- Arithmetic of shapes -------------------------------------------------------------------------


def _is_view(x: Tensor, read: Sequence[Tensor]) -> bool:
    storage = x.untyped_storage()
    return any(storage is z.untyped_storage() for z in read)


def _is_zero(x: Any) -> bool:
    """Whether nothing is added: the number 0 (a tensor of zeros is one that was computed)."""
    return not isinstance(x, Tensor) and x == 0


def _times(work: dict[str, Any], value: Any, n: float) -> None:
    """Add ``n`` multiplications by a constant, or shifts where they are."""
    kind = origin.factor(value)
    if kind != "none":
        name = "shifts" if kind == "shift" else "multiplications"
        work[name] = work.get(name, 0) + n


def _softmax_of(n: int) -> dict[str, int]:
    return {"exponentials": n, "divisions": n, "comparisons": n, "additions": 2 * n}


def _matmul_macs(a: Tensor, b: Tensor) -> int:
    """Of ``[..., m, k]`` and ``[..., k, n]`` (or a vector)."""
    return a.numel() * (b.shape[-1] if b.ndim > 1 else 1)


def _taps(
    size_in: int,
    size_out: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    *,
    transposed: bool,
) -> Tensor:
    """How many outputs (along one axis) each input reaches, ``[size_in]`` in float64."""
    if transposed:
        i = torch.arange(size_in).reshape(-1, 1)
        place = i * stride - padding + torch.arange(kernel) * dilation  # [in, kernel]
        return ((place >= 0) & (place < size_out)).sum(1).double()
    o = torch.arange(size_out).reshape(-1, 1)
    place = (o * stride - padding + torch.arange(kernel) * dilation).flatten()  # [out * kernel]
    place = place[(place >= 0) & (place < size_in)]
    return torch.bincount(place, minlength=size_in).double()


def _activity(name: str, neuron: Neuron, spikes: Tensor) -> NeuronActivity:
    """What a layer fired: spikes ``[T, B, C, ...]``."""
    frames = spikes.flatten(1).double().mean(1)
    by_channel = spikes.transpose(0, 2).flatten(1) if spikes.ndim > 2 else spikes.flatten()[None]
    silent, saturated = by_channel.amax(1) == 0, by_channel.amin(1) >= 1
    return NeuronActivity(
        module=name,
        levels=neuron.config.levels,
        rate_per_frame=tuple(frames.tolist()),
        channels=len(by_channel),
        silent=tuple(silent.nonzero().flatten().tolist()),
        saturated=tuple(saturated.nonzero().flatten().tolist()),
    )
