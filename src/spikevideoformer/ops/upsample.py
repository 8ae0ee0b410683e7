"""Bilinear upsampling by whole factors, rounded the same way everywhere.

Equation, along rows first and then along columns (n the old place, k = 0..f-1):
    p = (k + 1/2) / f - 1/2
    y[f n + k] = x[n] * (1 - |p|) + x[n - 1 if p < 0 else n + 1] * |p|
with the edge repeated: ``F.interpolate(..., align_corners=False)``, each operation rounded to
float32 by itself (torch's own leaves that to the processor).
"""

from typing import Any

import torch
from torch import Tensor

from spikevideoformer.ops._kernels import load


def upsample_reference(x: Tensor, factor: int) -> Tensor:
    """``[N, C, H, W]`` to ``[N, C, factor*H, factor*W]``, float32.

    Args:
        x: float32.
        factor: at least 1.
    """
    for axis in (2, 3):
        last = x.shape[axis] - 1
        before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, last)], axis)
        after = torch.cat([x.narrow(axis, 1, last), x.narrow(axis, last, 1)], axis)
        parts = []
        for place in places(factor):
            other = before if place < 0 else after
            parts.append(x * (1 - abs(place)) + other * abs(place))
        x = torch.stack(parts, axis + 1).flatten(axis, axis + 1)
    return x


def upsample(x: Tensor, factor: int) -> Tensor:
    """Same contract and bits as :func:`upsample_reference`; channels-last where a kernel runs."""
    found: Any = load("_numba", "upsample")
    if x.device.type == "cpu" and x.dtype == torch.float32 and not isinstance(found, str):
        out: Tensor = found.upsample(x, places(factor))
        return out
    return upsample_reference(x, factor)


def places(factor: int) -> list[float]:
    """Where the new pixels lie, seen from the old one: between -1/2 and 1/2."""
    return [(k + 0.5) / factor - 0.5 for k in range(factor)]
