"""The spiking neuron as a module, SN(.) in the paper, and the rectifier that can stand for it."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevideoformer.ops.batch_norm_lif import batch_norm_lif
from spikevideoformer.ops.lif import NeuronConfig, check_kind, lif


class Neuron(nn.Module):
    """A layer of neurons run over the time axis; it keeps no state from call to call.

    This one is LIF and Integer-LIF (normalised or not: it fires the integers), which kernels
    compute, and has no weights. Other kinds of
    spiking neurons are made of :class:`SteppedNeuron`.

    Args:
        config: what the neuron does.
        reset_each_frame: start every frame from the resting membrane (the spatial-only
            ablation), so that no information passes from frame to frame.

    Attributes:
        backend: what computes it, as in ``ops.lif.lif``; ``nn.backend`` sets it for a network.

    Raises:
        ValueError: a rectifier or another kind, which :func:`make_neuron` makes.
    """

    backend = "auto"
    fuses_batch_norm = True

    def __init__(self, config: NeuronConfig, reset_each_frame: bool = False) -> None:
        super().__init__()
        self.check(config)
        self.config = config
        self.reset_each_frame = reset_each_frame

    def check(self, config: NeuronConfig) -> None:
        """Raise ValueError for a neuron that this module does not compute."""
        check_kind(config)

    def forward(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        """Spikes ``[T, ...]`` for input current ``[T, ...]``, from the resting membrane.

        Args:
            x: input current ``[T, ...]``; ``[T, B, C, H, W]`` with a norm.
            norm: an image module that the current passes first. A plain ``nn.BatchNorm2d`` is
                computed together with the neuron: the same numbers without a normalised tensor.
        """
        if norm is not None and not (self.fuses_batch_norm and _can_be_fused(norm)):
            x, norm = _normalised(x, norm), None
        shape = x.shape
        if self.reset_each_frame:  # frames that know nothing of each other are clips of one frame
            x = x.reshape(1, -1, *shape[2:])
        if norm is None:
            spikes, _ = self.integrate(x)
        else:
            of_norm = _batch_norm_arguments(norm)
            spikes, _ = batch_norm_lif(x, self.config, *of_norm, backend=self.backend)
        return spikes.reshape(shape)

    def run(self, x: Tensor, v_init: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Spikes and final membrane, from a given membrane: time can be cut into pieces.

        Args:
            x: input current ``[T, ...]``.
            v_init: membrane ``[...]`` before the first frame; at rest where None.

        Raises:
            ValueError: the neuron is reset at each frame, so it has no state to pass.
        """
        if self.reset_each_frame:
            raise ValueError("reset_each_frame neurons have no state; use forward")
        return self.integrate(x, v_init)

    def integrate(self, x: Tensor, v_init: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Spikes and final membrane of all frames of ``x``, whatever ``reset_each_frame``."""
        return lif(x, self.config, v_init, backend=self.backend)

    def extra_repr(self) -> str:
        return f"{self.config}" + (", reset_each_frame" if self.reset_each_frame else "")


class SteppedNeuron(Neuron):
    """A kind of neuron given by :meth:`step`: what it does in one frame, in plain torch.

    Time, batch norms, half precision, pieces of clips, firing rates and the counting of operations
    (of the steps as they run) are what every neuron has. It may have weights.
    """

    fuses_batch_norm = False

    def check(self, config: NeuronConfig) -> None:
        """As :class:`Neuron`; any kind that fires spikes."""
        if not config.spiking:
            check_kind(config)

    def start(self, x: Tensor) -> Tensor:
        """State before the first frame, whose input is ``x`` ``[...]``: the resting membrane."""
        return torch.full_like(x, self.config.v_start)

    def step(self, v: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes ``[...]`` and state after a frame, of the state before it and its input."""
        raise NotImplementedError

    def integrate(self, x: Tensor, v_init: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :class:`Neuron`; half precision is integrated in float32."""
        if self.backend == "fused":
            check_kind(self.config)
        dtype = torch.promote_types(x.dtype, torch.float32)
        spikes = []
        with torch.autocast(device_type=x.device.type, enabled=False):
            frames = x.to(dtype).unbind()
            v = self.start(frames[0]) if v_init is None else v_init.to(dtype)
            for frame in frames:
                s, v = self.step(v, frame)
                spikes.append(s)
        return torch.stack(spikes).to(x.dtype), v


class Rectifier(nn.Module):
    """max(0, x), what an ordinary network has in a neuron's place: no spikes, no state.

    Called as a :class:`Neuron`; a frame knows nothing of the frames before.

    Args:
        config: of kind ``relu``.
    """

    def __init__(self, config: NeuronConfig) -> None:
        super().__init__()
        assert not config.spiking
        self.config = config

    def forward(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        """Real values ``[T, ...]`` of at least 0 for ``[T, ...]``.

        Args:
            x: input ``[T, ...]``; ``[T, B, C, H, W]`` with a norm.
            norm: an image module that the input passes first.
        """
        return F.relu(x if norm is None else _normalised(x, norm))


AnyNeuron = Neuron | Rectifier


NEURONS: dict[str, type[Neuron] | type[Rectifier]] = {
    "lif": Neuron,
    "integer_lif": Neuron,
    "ni_lif": Neuron,
    "relu": Rectifier,
}
"""The module of each kind in ``ops.neuron_config.KINDS``."""


def make_neuron(config: NeuronConfig, reset_each_frame: bool = False) -> AnyNeuron:
    """What stands in a neuron's place in a network of this kind.

    Args:
        config: what it does.
        reset_each_frame: see :class:`Neuron`; a rectifier has nothing to reset.
    """
    module = NEURONS[config.kind]
    return module(config, reset_each_frame) if issubclass(module, Neuron) else module(config)


def _normalised(x: Tensor, norm: nn.Module) -> Tensor:
    """``[T, B, C, H, W]`` through an image module."""
    y: Tensor = norm(x.flatten(0, 1))  # [T*B, C, H, W]
    return y.unflatten(0, x.shape[:2])


def _can_be_fused(norm: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    """Whether calling ``norm`` does nothing but ``F.batch_norm``: no subclass, no hooks."""
    return type(norm) is nn.BatchNorm2d and not (
        norm._forward_hooks
        or norm._forward_pre_hooks
        or norm._backward_hooks
        or norm._backward_pre_hooks
    )


def _batch_norm_arguments(norm: nn.BatchNorm2d) -> tuple[Any, ...]:
    """What ``nn.BatchNorm2d.forward`` passes to ``F.batch_norm``, and its count of batches."""
    momentum = 0.0 if norm.momentum is None else norm.momentum
    if norm.training and norm.track_running_stats and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:  # the mean over all batches so far
            momentum = 1.0 / float(norm.num_batches_tracked)
    mean, var = norm.running_mean, norm.running_var
    if norm.training and not norm.track_running_stats:
        mean = var = None
    of_batch = norm.training or (mean is None and var is None)
    return mean, var, norm.weight, norm.bias, of_batch, momentum, norm.eps


SILENT_RATE = 0.003
"""Mean rate over the layers of a network under which it is called silent. Trained networks fire ten
to a hundred times as much; what still fires below it are the first layers, and nothing reaches the
end."""


@dataclass
class FiringRates:
    """Firing rates of one forward pass, by neuron name, in order of execution.

    Attributes:
        per_frame: mean spikes per neuron and frame, ``[T, B]`` (up to D for Integer-LIF).
    """

    per_frame: dict[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        means = self.mean
        if not means:
            return "FiringRates(no neuron has fired in a forward pass)"
        low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
        return (
            f"FiringRates({len(means)} layers, mean {sum(means.values()) / len(means):.3f}, from "
            f"{means[low]:.3f} ({low}) to {means[high]:.3f} ({high}))"
        )

    def _repr_html_(self) -> str:
        from spikevideoformer import notebook

        rows = [(layer_name(name), rate) for name, rate in self.mean.items()]
        caption = "spikes per neuron and frame, by layer"
        return notebook.card(repr(self), notebook.bars(rows, show="{:.3f}".format, caption=caption))

    @property
    def mean(self) -> dict[str, float]:
        """Mean over frames and clips of each layer of neurons."""
        return {name: rate.double().mean().item() for name, rate in self.per_frame.items()}

    @property
    def overall(self) -> float | None:
        """Mean of :attr:`mean` over the layers; None without neurons that fire."""
        rates = self.mean.values()
        return sum(rates) / len(rates) if rates else None


def silence(rate: float | None) -> str | None:
    """A line about a network whose layers fire so little on average; None where it is not silent.

    Args:
        rate: spikes per neuron and frame; None for an ordinary network.
    """
    if rate is None or rate >= SILENT_RATE:
        return None
    return (
        f"the network is silent: its layers fire {rate:.4f} spikes a neuron and frame, so that "
        "its answer hardly depends on the input; train it longer, or start from another network"
    )


@contextmanager
def record_firing_rates(model: nn.Module) -> Iterator[FiringRates]:
    """Record what every neuron in ``model`` fires while the context is open.

    The last forward pass counts. Recording changes no output. An ordinary network has no neurons
    that fire, and leaves the record empty.
    """
    rates = FiringRates()

    def record(name: str, spikes: Tensor) -> None:
        spikes = spikes.detach()
        dims = tuple(range(2, spikes.ndim))
        # sums of spikes are integers: exact in float64 whatever the layer's size
        rates.per_frame[name] = spikes.double().mean(dims) if dims else spikes.double()

    with watch_neurons(model, record):
        yield rates


@contextmanager
def watch_neurons(model: nn.Module, see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Show what every neuron fires, by its name, while the context is open; no output changes.

    Spikes come as they are, with their gradients where these are recorded.
    """
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, Neuron):

            def show(_module: nn.Module, _args: object, out: Tensor, name: str = name) -> None:
                see(name, out)

            handles.append(module.register_forward_hook(show))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


_SPOKEN = {
    "downsample": "downsampling",
    "sep_conv": "SepConv",
    "channel_conv": "ChannelConv",
    "mlp": "MLP",
    "blocks": "block",
    "steps": "step",
}
_NEURONS = {
    "neuron": "",
    "neuron1": "input",
    "neuron2": "hidden",
    "q_neuron": "q",
    "k_neuron": "k",
    "v_neuron": "v",
    "out_neuron": "output",
}


def layer_name(module: str) -> str:
    """What people call a layer, for pages and pictures; files for programs keep the module's name.

    ``backbone.stage3.blocks.1.attention.0.steps.0.q_neuron`` is ``stage 3, block 2, attention: q``.
    Blocks count from 1; a second attention or step of a block has its number, the first one none.
    """
    parts = module.removeprefix("backbone.").split(".")
    last = _NEURONS.get(parts[-1])
    if last is not None:
        parts.pop()
        if last == "" and "attention" in parts:
            last = "input"
    words: list[str] = []
    for part in parts:
        if not (part.isdecimal() and words):
            spoken = _SPOKEN.get(part, part.replace("_", " "))
            words.append(re.sub(r"(?<=[a-z])(?=\d)", " ", spoken))
        elif part != "0" or words[-1] == "block":
            words[-1] += f" {int(part) + 1}"
        elif words[-1] == "step":
            words.pop()
    return ", ".join(words) + (f": {last}" if last else "")
