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
attention        see ``layer_rules.product``
bias             an addition for each output
batch norm       in evaluation: a multiplication and an addition for each element
neuron           see ``layer_rules.neuron_step``
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

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from spikevideoformer.energy import element_rules, layer_rules
from spikevideoformer.energy.provenance import CONSTANT, Source, Tag, join
from spikevideoformer.energy.record import Call, Counts, Kind, NeuronActivity, OperationCount, Rule
from spikevideoformer.energy.twin import mean
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.backend import computed_by
from spikevideoformer.nn.neuron import Neuron


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
    with torch.no_grad(), Counter(module, inputs).following() as counter:
        (module if run is None else run)(*inputs)
    return counter.counts()


def count_clips(model: nn.Module, video: Tensor) -> Counts:
    """The mean over clips, one at a time: a device that has one clip reads all weights for it.

    Args:
        model: in evaluation mode.
        video: normalised clips ``[B, T, C, H, W]``.
    """
    run: Callable[..., Any] | None = None
    if isinstance(model, SpikeVideoFormer):
        video = model.checked(video)  # looks for NaN, which is no part of the network
        backbone, head = model.backbone, model.head

        def run(x: Tensor) -> Tensor:
            out: Tensor = head(backbone(x.transpose(0, 1)))
            return out

    return mean([count_operations(model, clip, run=run) for clip in video.split(1)])


class Counter(TorchDispatchMode):
    """The dispatch mode behind :func:`count_operations`.

    Args:
        module: whose parameters and buffers are the constants, and whose parts name the places.
        inputs: what the run is given.

    Attributes:
        layers_of_spikes: how many have read spikes so far.
        neuron_operations: fused neurons that ran so far.
    """

    def __init__(self, module: nn.Module, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self._module = module
        self._operations: list[OperationCount] = []
        self._neurons: list[NeuronActivity] = []
        self._outputs: dict[str, tuple[int, ...]] = {}
        self._constants, self.layers_of_spikes, self.neuron_operations = 0, 0, 0
        self._watching = True
        self._names = {part: name for name, part in module.named_modules()}
        self._running: list[tuple[nn.Module, int]] = []
        self._tags = WeakIdKeyDictionary()  # of storages
        self._owners = WeakIdKeyDictionary()  # storage of a weight -> name of its module
        for place, part in module.named_modules():
            for weight in [*part.parameters(False), *part.buffers(False)]:
                self._tags[weight.untyped_storage()] = CONSTANT
                self._owners[weight.untyped_storage()] = place
        for x in inputs:
            self._tags[x.untyped_storage()] = Tag("real")

    @contextmanager
    def following(self) -> Iterator["Counter"]:
        """Count while the context is open, and know which module runs."""
        # hooks of all modules rather than of each: RepConv and Neuron take another way where one
        # of their parts has a hook
        begin = register_module_forward_pre_hook(self._begin)
        end = register_module_forward_hook(self._end, always_call=True)
        try:
            # attention by its equation, with Q' and K'
            with computed_by(self._module, attention="reference"), self:
                yield self
        finally:
            begin.remove()
            end.remove()

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
            self._running.append((module, self.neuron_operations))

    def _end(self, module: nn.Module, _args: object, out: object) -> None:
        if module not in self._names:
            return
        _, neuron_ops = self._running.pop()
        if not isinstance(out, Tensor):
            return
        self._outputs[self._names[module]] = tuple(out.shape)
        if isinstance(module, Neuron):
            if neuron_ops == self.neuron_operations:  # no fused one: steps were counted as they ran
                work: dict[str, Any] = {
                    "neuron_updates": out.numel(),
                    "membrane_bits": 64 * out.numel() if module.config.remembers else 0,
                }
                call = Call("membranes", {}, out)
                self.add(call, "neuron", [], "real", place=self._names[module], **work)
            self._mark(out, replace(self.tag(out), neuron=self._names[module]))
            with self._unwatched():
                self._neurons.append(_activity(self._names[module], module, out))

    @property
    def place(self) -> str:
        """The innermost module that runs."""
        return self._names[self._running[-1][0]] if self._running else ""

    @property
    def in_neuron(self) -> bool:
        """Whether that is a layer of neurons."""
        return bool(self._running) and isinstance(self._running[-1][0], Neuron)

    @contextmanager
    def _unwatched(self) -> Iterator[None]:
        self._watching = False
        try:
            yield
        finally:
            self._watching = True

    # Tags

    def tag(self, x: Any) -> Tag:
        """Of a tensor; numbers are constants."""
        if not isinstance(x, Tensor):
            return CONSTANT
        tag = self._tags.get(x.untyped_storage())
        if tag is None:
            raise RuntimeError(
                f"{self.place or 'the module'} uses a tensor {tuple(x.shape)} that is neither an "
                "input, a weight, a buffer nor a result: its origin is lost, so that it cannot be "
                "counted; register it as a buffer, or pass it as an input"
            )
        return tag

    def _mark(self, x: Tensor, tag: Tag, *, written: bool = False) -> None:
        """Give memory a tag; where only a part of it is ``written``, it keeps what it had too."""
        storage = x.untyped_storage()
        if written and x.numel() * x.element_size() < storage.nbytes():
            tag = join(self._tags.get(storage, CONSTANT), tag)
        self._tags[storage] = tag

    def owner(self, *tensors: Any) -> str:
        """The module that has one of these as its weight, else the one that runs."""
        for x in tensors:
            if isinstance(x, Tensor) and x.untyped_storage() in self._owners:
                return cast(str, self._owners[x.untyped_storage()])
        return self.place

    # Records

    def add(
        self,
        call: Call,
        kind: Kind,
        read: Sequence[Any],
        operand: Source,
        *,
        made: Tag | None = None,
        place: str | None = None,
        **work: Any,
    ) -> None:
        """Record an operation, or a part of one.

        Args:
            call: it.
            kind: what it is for.
            read: the tensors that this part reads from memory.
            operand: what its input is.
            made: tag of its result; None where this part writes none.
            place: the module; the innermost running one where None.
            **work: amounts, and what else the record holds.
        """
        tensors = [x for x in read if isinstance(x, Tensor)]
        computed = [x for x in tensors if self.tag(x) != CONSTANT]
        constants = sum(x.numel() for x in tensors) - sum(x.numel() for x in computed)
        work.setdefault("weights_read", constants)
        work.setdefault("bits_in", sum(x.numel() * self.tag(x).bits for x in computed))
        work.setdefault("bits_out", 0 if made is None else call.out.numel() * made.bits)
        self._operations.append(
            OperationCount(
                module=self.place if place is None else place,
                operation=call.name,
                kind=kind,
                shapes=tuple(tuple(x.shape) for x in tensors),
                operand=operand,
                **work,
            )
        )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self._watching:
            return func(*args, **kwargs)
        name, mutates = func.overloadpacket.__name__, func._schema.is_mutable
        if name.removesuffix("_") not in RULES:  # made of others (as in inference mode)?
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        names = [argument.name for argument in func._schema.arguments]
        arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        if mutates:  # rules look at operands after the operation: those that it overwrites go now
            name = name.removesuffix("_")
            arguments["self"] = self._as_it_was(arguments.get("self"))
        read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        result = func(*args, **kwargs)
        made = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        if name in FACTORIES:
            tags = [CONSTANT] * len(made)
        elif not mutates and made and all(_is_view(x, read) for x in made):
            return result  # the tag is the memory's
        elif name not in LAYER_OPERATIONS and all(self.tag(x) == CONSTANT for x in read):
            self._constants += 1
            tags = [CONSTANT] * len(made)
        else:
            rule = RULES.get(name) if func.namespace in ("aten", "spikevideoformer") else None
            if rule is None:
                raise ValueError(
                    f"{self.place or 'the module'} runs {func.namespace}::{name}, an operation "
                    "that is not known to the counter; add a rule for it to energy/element_rules.py"
                )
            if made:
                tag = rule(self, Call(name, arguments, made[0]))
                tags = list(tag) if isinstance(tag, tuple) else [tag] * len(made)
        for x, tag in zip(made, tags if made else [], strict=True):
            self._mark(x, tag, written=mutates)
        return result

    def _as_it_was(self, x: Any) -> Any:
        """A copy of spikes and signs, whose values are to be measured; other tensors themselves."""
        if not isinstance(x, Tensor) or not self.tag(x).is_unit:
            return x
        tag, x = self.tag(x), x.clone()
        self._mark(x, tag)
        return x


RULES: dict[str, Rule] = {**layer_rules.RULES, **element_rules.RULES}

# What makes constants, whatever tensors it takes a shape from.
FACTORIES = frozenset(
    """lift_fresh lift_fresh_copy empty empty_strided empty_like new_empty new_empty_strided zeros
    zeros_like new_zeros ones ones_like new_ones full full_like new_full arange linspace eye
    scalar_tensor""".split()
)

# Counted even where all operands are constant: the state that a recurrent network starts from is.
LAYER_OPERATIONS = frozenset({"convolution", "linear", *layer_rules.OPERANDS})


def _is_view(x: Tensor, read: Sequence[Tensor]) -> bool:
    storage = x.untyped_storage()
    return any(storage is z.untyped_storage() for z in read)


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
