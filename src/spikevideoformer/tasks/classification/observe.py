"""What goes on inside a network while it watches one clip: where and when its neurons fire."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.neuron import watch_neurons
from spikevideoformer.tasks.classification.head import ClassificationHead


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """One clip, seen from inside the network.

    Attributes:
        rates: mean spikes per neuron in each frame, ``[T]``, by layer of neurons in order of
            execution; empty for a network without spikes.
        maps: mean spikes per neuron at each place, ``[T, h, w]``, by stage of the backbone: over
            the channels of all its layers of neurons that have the stage's resolution.
        spikes: how many spikes all neurons together fire in each frame, ``[T]``.
        evidence: logits that each frame adds to the mean that is the answer, ``[T, K]``; None
            where the classifier reads all frames at once.
    """

    rates: dict[str, Tensor]
    maps: dict[str, Tensor]
    spikes: Tensor
    evidence: Tensor | None


@torch.inference_mode()
def observe(model: SpikeVideoFormer, video: Tensor) -> Observation:
    """Run a network on one clip and look at its neurons.

    Args:
        model: in evaluation mode.
        video: normalised, ``[1, T, C, H, W]``, on the model's device.

    Raises:
        ValueError: a network for another task than classification, more than one clip, or what
            the model refuses.
    """
    if not isinstance(model.head, ClassificationHead):
        raise ValueError(f"the page about a clip shows classification, not {model.task}")
    if video.ndim != 5 or video.shape[0] != 1:
        raise ValueError(f"got shape {tuple(video.shape)}; expected one clip [1, T, C, H, W]")
    rates: dict[str, Tensor] = {}
    places: dict[str, list[Tensor]] = {}
    spikes = torch.zeros(video.shape[1], dtype=torch.float64)
    evidence: list[Tensor] = []

    def keep(name: str, fired: Tensor) -> None:  # [T, 1, C] or [T, 1, C, h, w]
        fired = fired[:, 0].double().cpu()
        rates[name] = fired.flatten(1).mean(1)
        spikes.add_(fired.flatten(1).sum(1))
        if fired.ndim == 4:
            places.setdefault(name.split(".")[1], []).append(fired.mean(1))  # of backbone.STAGE...

    reads = model.head.fc.register_forward_hook(lambda _m, _args, out: evidence.append(out))
    try:
        with watch_neurons(model, keep):
            model(video)
    finally:
        reads.remove()
    (logits,) = evidence  # [T, 1, K]; of a GRU [1, 1, K]
    per_frame = model.head.gru is None
    return Observation(
        rates=rates,
        maps={stage: _smallest(maps) for stage, maps in places.items()},
        spikes=spikes,
        evidence=logits[:, 0].double().cpu() if per_frame else None,
    )


def _smallest(maps: list[Tensor]) -> Tensor:
    """Mean of the maps of the stage's own resolution; its first neuron still has the last one's."""
    least = min(z.shape[-1] for z in maps)
    return torch.stack([z for z in maps if z.shape[-1] == least]).mean(0)
