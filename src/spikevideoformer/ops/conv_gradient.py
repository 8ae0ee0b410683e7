"""Convolutions whose backward pass is faster on a CPU than torch's; forward they are torch's own.

Three kinds that small networks are made of, in float32, stride 1 and channels-last memory:

    depthwise       gradient of the input as a convolution with the turned kernel, that of the
                    weights by a kernel of ours (``_numba/depthwise.py``)
    1x1             two matrix products
    few channels    fewer come out than go in, and less than a vector: the gradient of the weights
                    with input and gradient exchanged, which are each other's turned

All others are left to ``aten::convolution_backward``, which is the reference.
"""

from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from spikevideoformer.ops._kernels import HOME, is_traced, load

_VECTOR = 16  # numbers; torch's kernels take as long for fewer channels
_PAIR = tuple[int, int]


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _PAIR = (1, 1),
    padding: _PAIR = (0, 0),
    groups: int = 1,
) -> Tensor:
    """``F.conv2d``, bit for bit, with gradients by :func:`convolution_backward`.

    Differentiable once where a gradient is asked for and one of the faster forms fits; else it is
    ``F.conv2d``. Arguments as there.
    """
    if (
        torch.is_grad_enabled()
        and weight.requires_grad
        and not is_traced(x)
        and forward_ad._current_level < 0
        and not torch._C._are_functorch_transforms_active()
        and _form(x, weight, stride, padding, groups) is not None
        and not torch.is_autocast_enabled("cpu")
    ):
        out: Tensor = _Conv2d.apply(x, weight, bias, stride, padding, groups)
        return out
    return F.conv2d(x, weight, bias, stride, padding, groups=groups)


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: _PAIR,
        padding: _PAIR,
        groups: int,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.bias_shape = None if bias is None else bias.shape
        ctx.geometry = stride, padding, groups
        return F.conv2d(x, weight, bias, stride, padding, groups=groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        what = *ctx.saved_tensors, ctx.bias_shape, *ctx.geometry, ctx.needs_input_grad[:3]
        return *convolution_backward(grads[0], *what), None, None, None


def convolution_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_shape: torch.Size | None,
    stride: _PAIR,
    padding: _PAIR,
    groups: int,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of input, weights and bias of a 2-d convolution, by the fastest way there is.

    Args:
        grad: of the output ``[N, C', H', W']``.
        x: input ``[N, C, H, W]``.
        weight: ``[C', C / groups, kh, kw]``.
        bias_shape: ``[C']``; None without a bias.
        stride: rows and columns.
        padding: zeros on each side, rows and columns.
        groups: of channels.
        wanted: which of the three are needed; the others are None.
    """
    form = None if is_traced(x) else _form(x, weight, stride, padding, groups)
    if form is None:
        arguments = (stride, padding, (1, 1), False, (0, 0), groups, list(wanted))
        found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
            grad, x, weight, bias_shape, *arguments
        )
        return found[0], found[1], found[2]
    x, grad = (z.contiguous(memory_format=torch.channels_last) for z in (x, grad))
    grad_bias = grad.sum((0, 2, 3)) if wanted[2] else None
    if form == "pointwise":
        return *_pointwise(grad, x, weight, wanted), grad_bias
    if form == "depthwise":
        return *_depthwise(grad, x, weight, padding, groups, wanted), grad_bias
    return *_few_channels(grad, x, weight, padding, wanted), grad_bias


def _form(x: Tensor, weight: Tensor, stride: _PAIR, padding: _PAIR, groups: int) -> str | None:
    out, inner, *kernel = weight.shape
    if not (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.ndim == 4
        and x.numel() > 0
        and tuple(stride) == (1, 1)
        and kernel[0] == kernel[1]
        and padding[0] == padding[1] < kernel[0]
    ):
        return None
    if groups == 1:
        if kernel[0] == 1:
            return "pointwise"
        few = out < min(inner, _VECTOR) and kernel[0] == 2 * padding[0] + 1
        return "few channels" if few else None
    fits = inner == 1 and groups == out and kernel[0] in (3, 5, 7)
    return "depthwise" if fits and isinstance(load(HOME["cpu"], "depthwise"), ModuleType) else None


def _pointwise(
    grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    out, inner = weight.shape[:2]
    rows = grad.permute(0, 2, 3, 1).reshape(-1, out)
    grad_x = grad_weight = None
    if wanted[0]:
        images, _, height, width = x.shape
        mixed = rows @ weight.reshape(out, inner)
        grad_x = mixed.reshape(images, height, width, inner).permute(0, 3, 1, 2)
    if wanted[1]:
        columns = x.permute(0, 2, 3, 1).reshape(-1, inner)
        grad_weight = (rows.T @ columns).reshape(weight.shape)
    return grad_x, grad_weight


def _depthwise(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    padding: _PAIR,
    groups: int,
    wanted: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None]:
    size = weight.shape[2]
    grad_x = grad_weight = None
    if wanted[0]:
        grad_x = F.conv2d(grad, weight.flip(2, 3), padding=size - 1 - padding[0], groups=groups)
    if wanted[1]:
        kernels: Any = load(HOME["cpu"], "depthwise")
        grad_weight = kernels.weight_gradient(x, grad, size, padding[0])
    return grad_x, grad_weight


def _few_channels(
    grad: Tensor, x: Tensor, weight: Tensor, padding: _PAIR, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    backward = torch.ops.aten.convolution_backward
    geometry = ((1, 1), padding, (1, 1), False, (0, 0), 1)
    grad_x = grad_weight = None
    if wanted[0]:
        grad_x = backward(grad, x, weight, None, *geometry, [True, False, False])[0]
    if wanted[1]:
        exchanged = weight.transpose(0, 1)  # only its shape matters
        turned = backward(x, grad, exchanged, None, *geometry, [False, True, False])[1]
        grad_weight = turned.transpose(0, 1).flip(2, 3).contiguous()
    return grad_x, grad_weight
