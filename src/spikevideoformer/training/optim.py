"""AdamW with its parameter groups, and the learning rate as a function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn


def build_optimizer(
    model: nn.Module, *, learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW; tensors of one dimension (biases, norm weights, neuron parameters) are not decayed.

    Decay pulls weights to zero; for the scale and shift of a batch norm, or a threshold, zero is
    not a simpler function but a dead channel.

    Args:
        model: its trainable parameters are taken.
        learning_rate: peak of the schedule, > 0.
        weight_decay: decoupled decay per unit of learning rate, >= 0.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate)


def learning_rate_at(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up, then half a cosine down to zero.

    Equation: ``peak (s + 1) / w`` for s < w, then ``peak (1 + cos(pi (s - w) / (S - w))) / 2``.
    It depends on the step alone, so resuming needs no scheduler state.

    Args:
        step: optimiser steps taken before this one, in [0, total_steps).
        peak: the highest learning rate.
        warmup_steps: w, in [0, total_steps).
        total_steps: S.

    Source: Loshchilov and Hutter, "SGDR" (2017), equation 5, without restarts.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
