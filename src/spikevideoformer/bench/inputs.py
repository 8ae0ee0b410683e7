"""Networks and videos to measure on: random, but with neurons that fire as trained ones do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevideoformer.body.skeleton import BodyModel
from spikevideoformer.data.transforms import to_pictures
from spikevideoformer.models.config import preset
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.attention import SpikeAttention
from spikevideoformer.nn.neuron import record_firing_rates
from spikevideoformer.nn.statistics import measure_statistics
from spikevideoformer.task import Task
from spikevideoformer.video.clip import Clip


def random_video(*shape: int, seed: int = 0) -> Tensor:
    """A normalised clip ``[B, T, C, H, W]``: soft shapes that drift, and noise."""
    clips, frames, channels, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(clips, channels, 8, 8, generator=generator)
    image = F.interpolate(coarse, (height, width), mode="bicubic")
    moving = torch.stack([image.roll(2 * t, -1) for t in range(frames)], 1)
    return moving + 0.3 * torch.randn(shape, generator=generator)


def made_clip(task: Task, spec: Any, seed: int = 0) -> Clip:
    """The same as pictures, at 25 frames a second, of which the task makes the spec's input."""
    cut, _ = task.cut(spec, lambda: 25.0)
    frames = cut.frames
    video = random_video(1, frames, 3, *task.height_and_width(spec), seed=seed)[0]
    return Clip(
        frames=to_pictures(video, cut),
        timestamps_s=torch.arange(frames, dtype=torch.float64) / 25,
        path=Path("made clip"),
        start_s=0.0,
        end_s=frames / 25,
        real_frames=frames,
    )


def lively_model(
    name: str,
    *,
    task: str = "classification",
    num_classes: int = 400,
    seed: int = 0,
    frames: int = 4,
    size: int = 64,
    body: BodyModel | None = None,
) -> SpikeVideoFormer:
    """A fresh network, its batch norms set so that its neurons fire, in evaluation mode.

    A fresh network is silent in depth: what is measured on it would hold for no spikes at all.
    Weights and biases of the norms are drawn at random, and their statistics are those of one
    random clip, as after training. Firing rates come out at about 0.1 to 0.4.

    Args:
        name: a preset.
        task: of the head.
        num_classes: its classes.
        seed: of weights and clip.
        frames: T of the clips to come; sums of attention grow with it.
        size: their height and width, likewise.
        body: of a network for poses.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = replace(preset(name), residual_gain=1.0)
        model = SpikeVideoFormer(config, task=task, num_classes=num_classes, body=body)
    generator = torch.Generator().manual_seed(seed)

    def noise(n: int) -> Tensor:
        return torch.randn(n, generator=generator)

    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    last = {id(n) for s in model.backbone.stages() for b in s.blocks for n in b.last_norms()}  # type: ignore[operator]
    with torch.no_grad():
        for norm in norms:
            gain, offset = (0.5, 0.0) if id(norm) in last else (1.0, 0.4)
            norm.weight.copy_(gain * (1 + 0.2 * noise(norm.num_features)))
            norm.bias.copy_(offset + 0.3 * noise(norm.num_features))
    measure_statistics(model, [random_video(2, 4, config.in_channels, 64, 64, seed=seed)])
    # As the sums over all tokens of a longer or larger clip are, without the time it takes.
    growth = frames * size**2 / (4 * 64**2)
    for module in model.modules():
        if isinstance(module, SpikeAttention) and module.bn is not None:
            statistics = module.bn.running_mean, module.bn.running_var
            assert statistics[0] is not None and statistics[1] is not None
            statistics[0].mul_(growth)
            statistics[1].mul_(growth**2)
    return model.eval()


@torch.no_grad()
def firing_rate(model: SpikeVideoFormer, video: Tensor) -> float:
    """Mean over the layers of neurons of the share that fires in a frame."""
    with record_firing_rates(model) as rates:
        model(video)
    return sum(rates.mean.values()) / len(rates.mean)
