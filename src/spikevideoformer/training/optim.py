"""The optimizers with their parameter groups, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.training.config import OptimizerName, Schedule

_Tensors = tuple[Tensor, ...] | list[Tensor]


def build_optimizer(
    model: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float,
    kind: OptimizerName = "adamw",
    factors: Mapping[nn.Parameter, float] | None = None,
    fused: bool = False,
) -> torch.optim.Optimizer:
    """An optimizer; tensors of one dimension (biases, norm weights, neurons) are not decayed.

    Decay pulls weights to zero; for the scale and shift of a batch norm, or a threshold, zero is
    not a simpler function but a dead channel.

    Args:
        model: its trainable parameters are taken.
        learning_rate: peak of the schedule, > 0.
        weight_decay: decoupled decay per unit of learning rate, >= 0.
        kind: adamw or lamb.
        factors: of the learning rate, by parameter, where it is not 1; `rate_factors` makes them.
            A group has its own as ``lr_factor``.
        fused: AdamW moves all tensors in one call, a twentieth of a step of `svf_nano`.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    factor = {p: (factors or {}).get(p, 1.0) for p in trained}
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in trained if factor[p] == value and (p.ndim > 1) == decayed],
            "weight_decay": weight_decay if decayed else 0.0,
            "lr_factor": value,
        }
        for value in sorted(set(factor.values()))
        for decayed in (True, False)
    ]
    groups = [g for g in groups if g["params"]]
    if kind == "lamb":
        return Lamb(groups, lr=learning_rate)
    return torch.optim.AdamW(groups, lr=learning_rate, fused=fused or None)


def rate_factors(
    model: SpikeVideoFormer, *, layer_decay: float, head_lr: float
) -> dict[nn.Parameter, float]:
    """By what each parameter's learning rate is multiplied.

    Equation: ``layer_decay^(L + 1 - l)`` in block l of L of the backbone, and in the convolution
    that brings pictures down before it; ``head_lr`` in the head.

    Args:
        model: the network.
        layer_decay: in (0, 1].
        head_lr: above 0.

    Source: Clark et al., "ELECTRA" (2020), appendix A, with a block for a layer.
    """
    factors = dict.fromkeys(model.head.parameters(), head_lr)
    stages = model.backbone.stages()
    above, depth = sum(len(stage.blocks) for stage in stages) + 1, 1
    for stage in stages:
        for layer in (stage.downsample, *stage.blocks):
            factors |= dict.fromkeys(layer.parameters(), layer_decay ** (above - depth))
            depth += layer is not stage.downsample
    return factors


class Lamb(torch.optim.Optimizer):
    """Adam whose step is scaled, tensor by tensor, to the norm of the weights.

    Equation: of a gradient g in step t, ``m = b1 m + (1 - b1) g``, ``v = b2 v + (1 - b2) g^2``,
    ``u = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay x`` and
    ``x = x - lr min(|x| / |u|, most_trust) u``. The ratio is 1 where a norm is 0, and for tensors
    that are not decayed.

    Written here because kept libraries have no limit on the ratio, with which the published
    networks were trained.

    Args:
        params: tensors or groups of them.
        lr: learning rate, > 0.
        betas: b1 and b2, in [0, 1).
        eps: above 0.
        weight_decay: >= 0.
        most_trust: limit of the ratio; infinity for none.

    Source: You et al., "Large Batch Optimization for Deep Learning" (2020), algorithm 2, with phi
        the identity; the limit of 1 as in SDT-V2's training code.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        most_trust: float = 1.0,
    ) -> None:
        usual = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, usual | {"most_trust": most_trust})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step, by the gradients that are there."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, p.grad, group)
        return loss

    def _move(self, p: Tensor, grad: Tensor, group: Mapping[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        state["step"] += 1
        b1, b2 = group["betas"]
        m = state["exp_avg"].lerp_(grad, 1 - b1)
        v = state["exp_avg_sq"].mul_(b2).addcmul_(grad, grad, value=1 - b2)
        root = (v / (1 - b2 ** state["step"])).sqrt_().add_(group["eps"])
        update = (m / (1 - b1 ** state["step"])).div_(root)
        if group["weight_decay"]:
            update.add_(p, alpha=group["weight_decay"])
            size, wanted = p.norm(), update.norm()
            ratio = (size / wanted).clamp_(max=group["most_trust"])
            update.mul_(torch.where((size > 0) & (wanted > 0), ratio, 1.0))
        p.add_(update, alpha=-group["lr"])


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """The moving average of a network's weights and statistics, as a network of its own.

    Equation: ``a = a + (1 - d) (x - a)`` with ``d = min(decay, (1 + n) / (10 + n))`` after n steps;
    after the first one ``a = x``.

    Args:
        model: with its initial weights, on the CPU.
        decay: the most of the average that is kept in a step, in (0, 1).

    Source: Polyak and Juditsky (1992); the growing decay as in TensorFlow's
        ExponentialMovingAverage with ``num_updates``.
    """

    def average(averages: _Tensors, values: _Tensors, steps: Tensor | int) -> None:
        n = int(steps)
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, values, 1 - min(decay, (1 + n) / (10 + n)))
        else:  # how many batches were seen
            torch._foreach_copy_(averages, values)

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)


def learning_rate_at(
    step: int,
    *,
    peak: float,
    warmup_steps: int,
    total_steps: int,
    schedule: Schedule = "cosine",
) -> float:
    """Linear warm-up, then half a cosine, or a straight line, down to zero.

    Equation: ``peak (s + 1) / w`` for s < w, then with ``r = (s - w) / (S - w)``
    ``peak (1 + cos(pi r)) / 2`` (cosine) or ``peak (1 - r)`` (poly, of power 1).
    It depends on the step alone, so resuming needs no scheduler state.

    Args:
        step: optimiser steps taken before this one, in [0, total_steps).
        peak: the highest learning rate.
        warmup_steps: w, in [0, total_steps).
        total_steps: S.
        schedule: cosine or poly.

    Source: Loshchilov and Hutter, "SGDR" (2017), equation 5, without restarts; Chen et al.,
        "DeepLab" (2017), section 4.1, with the power that SDT-V2 has.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    if schedule == "poly":
        return peak * (1.0 - progress)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
