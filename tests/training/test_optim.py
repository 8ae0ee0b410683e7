from itertools import pairwise

import pytest
from torch import nn

from spikevideoformer.training.optim import build_optimizer, learning_rate_at


def rates(steps: int, **kwargs) -> list[float]:
    return [learning_rate_at(s, total_steps=steps, **kwargs) for s in range(steps)]


def test_schedule_by_hand():
    got = rates(6, peak=0.8, warmup_steps=2)
    assert got == pytest.approx([0.4, 0.8, 0.8, 0.8 * 0.853553, 0.4, 0.8 * 0.146447], rel=1e-5)


def test_schedule_without_warmup_starts_at_the_peak_and_falls():
    got = rates(50, peak=1.0, warmup_steps=0)
    assert got[0] == 1.0
    assert all(a > b for a, b in pairwise(got))
    assert 0 < got[-1] < 0.01


def test_norms_and_biases_are_not_decayed():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    model[3].bias.requires_grad = False
    optimizer = build_optimizer(model, learning_rate=1e-3, weight_decay=0.1)
    decayed, free = (group["params"] for group in optimizer.param_groups)
    assert [p.shape for p in decayed] == [(4, 3, 3, 3), (2, 4)]
    assert [p.shape for p in free] == [(4,)] * 3
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
