"""The spatio-temporal CNN + Transformer backbone, top down."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # of BatchNorm2d and SyncBatchNorm
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from spikevideoformer.models.config import ModelConfig
from spikevideoformer.models.config import SpikeMemory as SpikeMemory
from spikevideoformer.models.config import check_spike_memory as check_spike_memory
from spikevideoformer.nn.attention import Axes, SpikeAttention, TransformerBlock
from spikevideoformer.nn.conv import ConvBlock, Downsample, SpikeConv2d
from spikevideoformer.nn.neuron import AnyNeuron, make_neuron
from spikevideoformer.nn.statistics import momentum_of
from spikevideoformer.shapes import Design

KEEPS_SPIKES = (SpikeConv2d, SpikeAttention)  # what the backward pass needs spikes for


# One residual attention module per inner tuple; the axes inside it follow each other.
ATTENTION_AXES: dict[Design, tuple[tuple[Axes, ...], ...]] = {
    "joint": (("space_time",),),
    "hierarchical": (("space",), ("time",)),
    "factorized": (("space", "time"),),
    "neuron_only": (("space",),),
    "spatial_only": (("space",),),
}


class Stage(nn.Module):
    """A Downsample and the blocks at its resolution."""

    def __init__(self, downsample: Downsample, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)
        self.gradient_checkpointing = False

    def forward(self, u: Tensor) -> Tensor:
        u = self.downsample(u)
        for block in self.blocks:
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                u = _checkpointed(block, u)
            else:
                u = block(u)
        return u


def _checkpointed(block: nn.Module, u: Tensor) -> Tensor:
    # Neuron state lives inside one call of a block, so running it again is exact.
    contexts = (
        partial(create_selective_checkpoint_contexts, _kept_by_compiler)
        if torch.compiler.is_compiling()
        else partial(_recompute, block)
    )
    out = checkpoint(block, u, use_reentrant=False, context_fn=contexts)
    assert isinstance(out, Tensor)
    return out


def _kept_by_compiler(_context: Any, _op: Any, *args: Any, **_options: Any) -> CheckpointPolicy:
    """In a compiled graph, what is computed from vectors of one value a channel is kept.

    RepConv's border is: computed again, it would see statistics that have moved on.
    """
    small = all(a.ndim < 2 for a in args if isinstance(a, Tensor))
    return CheckpointPolicy.MUST_SAVE if small else CheckpointPolicy.PREFER_RECOMPUTE


def _recompute(
    block: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    # Without this a recomputed block would count every batch twice. A momentum of 0 adds nothing to
    # the statistics, yet saves the same tensors for backward as the first pass did, which
    # checkpoint() insists on.
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm)]
    return nullcontext(), momentum_of(norms, 0.0)


class Backbone(nn.Module):
    """Four stages, the first of them in two steps: ``[T, B, C, H, W]`` in, features out.

    Args:
        config: the architecture; without its last width there are three stages.

    Attributes:
        from_half: whether the features begin with the map at half the size of the input; set for
            the head.

    Source: Zou et al., ICML 2025; the layout is Meta-SpikeFormer's (ICLR 2024).
    """

    from_half = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        reset = config.design == "spatial_only"
        widths = (config.widths[0] // 2, *config.widths)
        strides = (2, 2, 2, 2, 1)[: len(widths)]
        total = sum(config.depths)
        # stochastic depth grows linearly from the first block to the last
        drop_paths = iter(config.drop_path * i / max(total - 1, 1) for i in range(total))

        def neuron() -> AnyNeuron:
            return make_neuron(config.neuron, reset)

        def block(width: int, is_conv: bool) -> nn.Module:
            if is_conv:
                return ConvBlock(
                    width,
                    mlp_ratio=config.mlp_ratio,
                    drop_path=next(drop_paths),
                    neuron=config.neuron,
                    reset_each_frame=reset,
                    parts=config.block,
                )
            return TransformerBlock(
                width,
                heads=config.heads,
                attention_axes=ATTENTION_AXES[config.design],
                kind=config.attention,
                constant_term=config.constant_term,
                mlp_ratio=config.mlp_ratio,
                drop_path=next(drop_paths),
                neuron=config.neuron,
                reset_each_frame=reset,
                parts=config.block,
            )

        only_conv = 5 if config.attention == "none" else 3
        stages = []
        in_channels = config.in_channels
        for i, (width, stride, depth) in enumerate(
            zip(widths, strides, config.depths, strict=True)
        ):
            downsample = Downsample(
                in_channels,
                width,
                kernel_size=7 if i == 0 else 3,
                stride=stride,
                neuron=None if i == 0 else neuron(),
            )
            stages.append(Stage(downsample, [block(width, i < only_conv) for _ in range(depth)]))
            in_channels = width
        self.stage1a, self.stage1b, self.stage2, self.stage3 = stages[:4]
        self.stage4 = stages[4] if len(stages) > 4 else None
        self._init_weights()

    def _init_weights(self) -> None:
        for stage in self.stages():
            for block in stage.blocks:
                for norm in block.last_norms():  # type: ignore[operator]
                    nn.init.constant_(norm.weight, self.config.residual_gain)

    def stages(self) -> tuple[Stage, ...]:
        """In order of execution."""
        stages = (self.stage1a, self.stage1b, self.stage2, self.stage3)
        return stages if self.stage4 is None else (*stages, self.stage4)

    @property
    def gradient_checkpointing(self) -> bool:
        """Recompute each block in the backward pass instead of keeping what it computed.

        The same bits, as long as each forward pass is followed by its backward pass: RepConv pads
        with running statistics, which a second forward pass would move on.
        """
        return self.stage1a.gradient_checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, on: bool) -> None:
        for stage in self.stages():
            stage.gradient_checkpointing = on

    @property
    def spike_memory(self) -> SpikeMemory:
        """How spikes are kept for the backward pass: plain floats, or packed bits (or bytes).

        The same bits come out. A network of rectifiers has nothing to pack: ValueError.
        """
        packed = any(m.packed for m in self.modules() if isinstance(m, KEEPS_SPIKES))
        return "packed" if packed else "plain"

    @spike_memory.setter
    def spike_memory(self, memory: SpikeMemory) -> None:
        check_spike_memory(memory, self.config)
        for module in self.modules():
            if isinstance(module, KEEPS_SPIKES):
                module.packed = memory == "packed"

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Membranes after each stage: ``[T, B, e, H/s, W/s]`` at s = 4, 8, 16, 16.

        With :attr:`from_half` of the stages at s = 2, 4, 8 and of the last one, at 16.
        """
        maps = []
        for stage in self.stages():
            x = stage(x)
            maps.append(x)
        return tuple(maps[i] for i in self.read_stages())

    def read_stages(self) -> list[int]:
        """Which of :meth:`stages` the features are from."""
        last = len(self.stages()) - 1
        return [0, 1, 2, last] if self.from_half else list(range(1, last + 1))
