"""To the nearest integer."""

import torch
from torch import Tensor


def rounded(x: Tensor, half_up: bool) -> Tensor:
    """The nearest integers; a tie goes to the even one, or with ``half_up`` to the larger one.

    Exact, where ``floor(x + 0.5)`` rounds the sum first.
    """
    even = torch.round(x)
    return even + (x - even == 0.5) if half_up else even
