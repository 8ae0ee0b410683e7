"""What we compare with: the published structure on SpikingJelly, and an ordinary network.

The published structure is written here anew on SpikingJelly's public interface: stepwise neurons
in front of every convolution, contiguous NCHW frames, RepConv and batch norms left as they are.
Its parameters have the names of ours, so that one state dict serves both.
"""

import importlib
import importlib.metadata
import importlib.util
import inspect
import os
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevideoformer.models.config import ModelConfig
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.conv import ConvBlock, Downsample, RepConv
from spikevideoformer.nn.neuron import Neuron
from spikevideoformer.ops.lif import NeuronConfig, lif_reference
from spikevideoformer.tasks.classification.head import ClassificationHead


class BaselineMissingError(RuntimeError):
    """What should be compared with is not installed, or cannot do it; the message says why."""


# --- SpikingJelly, whichever version is installed -------------------------------------------------


def spikingjelly_version() -> str:
    """Version of the installed SpikingJelly.

    Raises:
        BaselineMissingError: none is installed.
    """
    if importlib.util.find_spec("spikingjelly") is None:
        raise BaselineMissingError(
            "SpikingJelly is not installed (pip install --no-deps spikingjelly==0.0.0.0.12)"
        )
    return importlib.metadata.version("spikingjelly")


def _spikingjelly() -> tuple[ModuleType, ModuleType, ModuleType]:
    """Modules neuron, surrogate and functional of the installed version."""
    version = spikingjelly_version()
    # up to 0.0.0.0.12 the package of clocked neurons was called clock_driven
    old = importlib.util.find_spec("spikingjelly.clock_driven") is not None
    package = f"spikingjelly.{'clock_driven' if old else 'activation_based'}"
    # Not an import statement: SpikingJelly is no dependency, and is compared with if present.
    try:
        neuron, surrogate, functional = (
            importlib.import_module(f"{package}.{name}")
            for name in ("neuron", "surrogate", "functional")
        )
    except ImportError as error:
        raise BaselineMissingError(f"SpikingJelly {version} does not import: {error}") from error
    return neuron, surrogate, functional


def spikingjelly_neuron(config: NeuronConfig, backend: str = "torch") -> nn.Module:
    """A multi-step LIF node, ``[T, ...]`` in and out; it keeps its membrane until it is reset.

    Args:
        config: a binary neuron with the sigmoid surrogate.
        backend: torch, or another of the installed version (cupy, triton). From version 2.0 on
            SpikingJelly chooses by device, or by the variable SJ_LIF_CUDA_IMPLEMENTATION; only
            ``auto``, and ``torch`` on a CPU, are accepted there.

    Raises:
        ValueError: a neuron that SpikingJelly does not have in this form.
        BaselineMissingError: SpikingJelly, or this back end of it, is missing.
    """
    if config.kind != "lif" or config.surrogate != "sigmoid":
        raise ValueError(
            f"got a {config.kind} neuron with surrogate {config.surrogate}; the baseline is "
            "built of lif neurons with the sigmoid surrogate"
        )
    neuron, surrogate, _ = _spikingjelly()
    values = {
        "tau": float(config.tau),
        "decay_input": config.decay_input,
        "v_threshold": config.v_threshold,
        "v_reset": config.v_reset,
        "surrogate_function": surrogate.Sigmoid(alpha=config.alpha),
        "detach_reset": config.detach_reset,
    }
    if hasattr(neuron, "MultiStepLIFNode"):
        node, multi_step = neuron.MultiStepLIFNode, {}
    else:
        node, multi_step = neuron.LIFNode, {"step_mode": "m"}
    if "backend" in inspect.signature(node).parameters:
        made = node(**values, **multi_step, backend=backend)
    elif backend in ("auto", "torch"):
        made = node(**values, **multi_step)
    else:
        raise BaselineMissingError(
            f"SpikingJelly {spikingjelly_version()} chooses its back end itself; set "
            f"SJ_LIF_CUDA_IMPLEMENTATION={backend} instead"
        )
    return cast(nn.Module, made)


def reset_spikingjelly(net: nn.Module) -> None:
    """Put every SpikingJelly neuron in ``net`` back to rest."""
    _spikingjelly()[2].reset_net(net)


# --- The published structure ----------------------------------------------------------------------

MakeNeuron = Callable[[NeuronConfig], nn.Module]


class _Downsample(nn.Module):
    def __init__(self, ours: Downsample, make: MakeNeuron) -> None:
        super().__init__()
        self.neuron = None if ours.neuron is None else make(ours.neuron.config)
        self.conv = _conv_like(ours.conv)
        self.bn = _norm_like(ours.bn)

    def forward(self, x: Tensor) -> Tensor:
        if self.neuron is not None:
            x = self.neuron(x)
        frames, clips = x.shape[:2]
        y: Tensor = self.bn(self.conv(x.flatten(0, 1)))
        return y.unflatten(0, (frames, clips))


class _Branch(nn.Module):
    """A neuron, convolutions and a norm, twice, under the names that ours have."""

    def __init__(
        self, ours: nn.Module, make: MakeNeuron, first: Sequence[str], second: Sequence[str]
    ) -> None:
        super().__init__()
        for name in (*first, *second):
            self.add_module(name, _conv_like(getattr(ours, name)))
        for i in (1, 2):
            self.add_module(f"neuron{i}", make(_config(ours, i)))
            self.add_module(f"bn{i}", _norm_like(getattr(ours, f"bn{i}")))
        self._units = [("neuron1", [*first, "bn1"]), ("neuron2", [*second, "bn2"])]

    def forward(self, x: Tensor) -> Tensor:
        frames, clips = x.shape[:2]
        for neuron, layers in self._units:
            x = getattr(self, neuron)(x).flatten(0, 1)
            for layer in layers:
                x = getattr(self, layer)(x)
            x = x.unflatten(0, (frames, clips))
        return x


class _ConvBlock(nn.Module):
    def __init__(self, ours: ConvBlock, make: MakeNeuron) -> None:
        super().__init__()
        self.sep_conv = _Branch(cast(nn.Module, ours.sep_conv), make, ["pw1"], ["dw", "pw2"])
        self.channel_conv = _Branch(ours.channel_conv, make, ["conv1"], ["conv2"])

    def forward(self, u: Tensor) -> Tensor:
        u = u + self.sep_conv(u)
        return cast(Tensor, u + self.channel_conv(u))


class _RepConv(nn.Module):
    """Unmerged, with the border written into a zero-padded tensor as the published code does."""

    def __init__(self, ours: RepConv) -> None:
        super().__init__()
        self.pw1, self.dw, self.pw2 = (_conv_like(getattr(ours, n)) for n in ("pw1", "dw", "pw2"))
        self.bn1, self.bn2, self.bn_out = (
            _norm_like(getattr(ours, n)) for n in ("bn1", "bn2", "bn_out")
        )

    def forward(self, x: Tensor) -> Tensor:
        bn = self.bn1
        y = bn(self.pw1(x))  # moves the running statistics, which the border is made of
        assert bn.running_mean is not None and bn.running_var is not None
        slope = bn.weight.detach() / torch.sqrt(bn.running_var + bn.eps)
        border = (bn.bias.detach() - bn.running_mean * slope).reshape(1, -1, 1, 1)
        y = F.pad(y, (1, 1, 1, 1))
        y[:, :, :1], y[:, :, -1:] = border, border
        y[..., :1], y[..., -1:] = border, border
        return cast(Tensor, self.bn_out(self.bn2(self.pw2(self.dw(y)))))


class _Attention(nn.Module):
    def __init__(self, ours: nn.Module, make: MakeNeuron) -> None:
        super().__init__()
        step = cast(nn.ModuleList, ours.steps)[0]
        self.neuron = make(_config(ours, None))
        inner = nn.Module()
        for z in ("q", "k", "v"):
            inner.add_module(f"{z}_conv", _RepConv(getattr(step, f"{z}_conv")))
            inner.add_module(f"{z}_neuron", make(getattr(step, f"{z}_neuron").config))
        inner.bn = _norm_like(cast(nn.BatchNorm2d, step.bn))
        inner.out_neuron = make(cast(Neuron, step.out_neuron).config)
        self.steps = nn.ModuleList([inner])
        self.proj = _RepConv(cast(RepConv, ours.proj))
        self.heads, self.scale = cast(int, step.heads), cast(float, step.scale)

    def forward(self, x: Tensor) -> Tensor:
        step = self.steps[0]
        frames, clips, channels, height, width = x.shape
        x = self.neuron(x)
        heads = []
        for z in ("q", "k", "v"):
            y = getattr(step, f"{z}_conv")(x.flatten(0, 1)).unflatten(0, (frames, clips))
            spikes = getattr(step, f"{z}_neuron")(y)
            spikes = spikes.reshape(frames, clips, self.heads, -1, height * width)
            spikes = spikes.permute(1, 2, 0, 4, 3)  # B h T N d
            heads.append(spikes.reshape(clips, self.heads, frames * height * width, -1))
        q, k, v = heads
        y = (2 * q - 1) @ ((2 * k - 1).transpose(-2, -1) @ v) * self.scale
        y = y.reshape(clips, self.heads, frames, height * width, -1).permute(2, 0, 1, 4, 3)
        y = y.reshape(frames, clips, channels, height, width)  # contiguous again
        y = cast(Tensor, step.bn(y.flatten(0, 1))).unflatten(0, (frames, clips))  # type: ignore[operator]
        y = step.out_neuron(y)  # type: ignore[operator]
        return cast(Tensor, self.proj(y.flatten(0, 1))).unflatten(0, (frames, clips))


class _TransformerBlock(nn.Module):
    def __init__(
        self,
        ours: nn.Module,
        make: MakeNeuron,
        attention: Callable[[nn.Module, MakeNeuron], nn.Module],
    ) -> None:
        super().__init__()
        self.attention = nn.ModuleList(
            attention(a, make) for a in cast(nn.ModuleList, ours.attention)
        )
        self.mlp = _Branch(cast(nn.Module, ours.mlp), make, ["fc1"], ["fc2"])

    def forward(self, u: Tensor) -> Tensor:
        for attention in self.attention:
            u = u + attention(u)
        return cast(Tensor, u + self.mlp(u))


class PublishedStructure(nn.Module):
    """The network of the published code, of the given neurons and attention.

    Args:
        model: ours, the template of all shapes; its parameters are copied where ``attention`` is
            the spiking one.
        make: builds what stands in place of a neuron.
        attention: the attention module.
    """

    def __init__(
        self,
        model: SpikeVideoFormer,
        make: MakeNeuron,
        attention: Callable[[nn.Module, MakeNeuron], nn.Module],
    ) -> None:
        super().__init__()
        self.config = _checked(model.config)
        self.backbone = nn.Module()
        for name in ("stage1a", "stage1b", "stage2", "stage3", "stage4"):
            ours = getattr(model.backbone, name)
            stage = nn.Module()
            stage.downsample = _Downsample(ours.downsample, make)
            stage.blocks = nn.ModuleList(
                _ConvBlock(block, make)
                if isinstance(block, ConvBlock)
                else _TransformerBlock(block, make, attention)
                for block in ours.blocks
            )
            self.backbone.add_module(name, stage)
        assert isinstance(model.head, ClassificationHead)
        readout, fc = model.head.neuron, model.head.fc
        self.head = nn.Module()
        self.head.neuron = make(readout.config) if isinstance(readout, Neuron) else nn.Identity()
        self.head.fc = nn.Linear(fc.in_features, fc.out_features)
        self.to(fc.weight.device, fc.weight.dtype)

    def forward(self, video: Tensor) -> Tensor:
        """Logits ``[B, K]`` of ``[B, T, C, H, W]``."""
        x = video.transpose(0, 1).contiguous()  # [T, B, C, H, W]
        for stage in self.backbone.children():
            x = stage.downsample(x)  # type: ignore[operator]
            for block in cast(nn.ModuleList, stage.blocks):
                x = block(x)
        x = x.flatten(3).mean(3)  # [T, B, C]
        logits: Tensor = self.head.fc(self.head.neuron(x)).mean(0)  # type: ignore[operator]
        return logits

    def copying(self, model: SpikeVideoFormer) -> Self:
        """With the parameters and the mode of ``model``."""
        # contiguous, whatever the layout of ours
        self.load_state_dict({k: v.contiguous() for k, v in model.state_dict().items()})
        return self.train(model.training)


class SpikingJellyModel(PublishedStructure):
    """The published structure of one of our networks, on the installed SpikingJelly."""

    def forward(self, video: Tensor) -> Tensor:
        """Logits ``[B, K]`` of ``[B, T, C, H, W]``, from the resting membrane."""
        reset_spikingjelly(self)
        return super().forward(video)


def spikingjelly_model(model: SpikeVideoFormer, backend: str = "torch") -> SpikingJellyModel:
    """The published structure with a copy of the parameters of ``model``.

    Args:
        model: a network of the joint design with Hamming attention and no constant term.
        backend: of the neurons, see :func:`spikingjelly_neuron`.

    Raises:
        ValueError: a network that was not published in this structure.
        BaselineMissingError: SpikingJelly is missing.
    """
    return SpikingJellyModel(
        model, lambda config: spikingjelly_neuron(config, backend), _Attention
    ).copying(model)


def compiled_spikingjelly_model(model: SpikeVideoFormer) -> nn.Module:
    """The same for a GPU: Triton neurons, compiled.

    Raises:
        BaselineMissingError: SpikingJelly is missing or older than 2.
    """
    os.environ.setdefault("SJ_LIF_CUDA_IMPLEMENTATION", "triton")
    version = spikingjelly_version()
    if version.startswith("0."):
        raise BaselineMissingError(f"SpikingJelly {version} is installed, 2 is needed")
    return cast(nn.Module, torch.compile(spikingjelly_model(model, "auto")))


class _Stepwise(Neuron):
    """A neuron in plain torch, one step after the other, its gradient left to autograd."""

    def forward(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        return lif_reference(x, self.config)[0]


def stepwise_model(model: SpikeVideoFormer) -> PublishedStructure:
    """The published structure with a copy of the parameters of ``model``, in plain torch."""
    return PublishedStructure(model, _Stepwise, _Attention).copying(model)


def _checked(config: ModelConfig) -> ModelConfig:
    if (config.design, config.attention, config.constant_term) != ("joint", "hamming", False):
        raise ValueError(
            f"got design {config.design}, attention {config.attention}, constant_term "
            f"{config.constant_term}; the baseline is joint Hamming attention without the constant"
        )
    if config.drop_path:
        raise ValueError(f"got drop_path {config.drop_path}; the baseline has none")
    return config


def _config(ours: nn.Module, index: int | None) -> NeuronConfig:
    return cast(Neuron, getattr(ours, "neuron" if index is None else f"neuron{index}")).config


def _conv_like(conv: nn.Conv2d) -> nn.Conv2d:
    return nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        cast(tuple[int, int], conv.kernel_size),
        stride=cast(tuple[int, int], conv.stride),
        padding=cast(tuple[int, int], conv.padding),
        groups=conv.groups,
        bias=conv.bias is not None,
    )


def _norm_like(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(norm.num_features, eps=norm.eps, momentum=norm.momentum)


# --- The ordinary network of the same shape -------------------------------------------------------


def ann_model(config: ModelConfig, num_classes: int = 400) -> SpikeVideoFormer:
    """The ordinary network of the shape of ``config``, with fresh weights (presets ann_*)."""
    return SpikeVideoFormer(config.ann_twin(), task="classification", num_classes=num_classes)
