"""How the neurons of a time step lie in memory.

Only time is recurrent, so kernels take neurons in whatever order they lie, as long as each step
``x[t]`` of ``[T, B, C, ...]`` is dense and the steps are alike. Results have the layout of a step
of the input, with the steps one after the other.
"""

import torch
from torch import Tensor


def is_dense(shape: torch.Size, strides: tuple[int, ...]) -> bool:
    """Whether the steps of a tensor of that shape are dense; axes of one element do not count."""
    expected = 1
    axes = zip(strides[1:], shape[1:], strict=True)
    for stride, length in sorted(axis for axis in axes if axis[1] != 1):
        if stride != expected:
            return False
        expected *= length
    return True


def dense(x: Tensor) -> Tensor:
    """``x`` itself where its steps are dense, else a contiguous copy."""
    return x if is_dense(x.shape, x.stride()) else x.contiguous()


def empty_as(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Uninitialised, with the steps of ``x`` (which are dense) one after the other."""
    strides = (x.shape[1:].numel(), *x.stride()[1:])
    return torch.empty_strided(x.shape, strides, dtype=dtype, device=x.device)


def empty_step_as(x: Tensor, dtype: torch.dtype) -> Tensor:
    """One uninitialised step of the layout of ``x``."""
    return torch.empty_strided(x.shape[1:], x.stride()[1:], dtype=dtype, device=x.device)
