from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from spikevideoformer.models.spikevideoformer import create_model
from spikevideoformer.training.optim import (
    Lamb,
    build_optimizer,
    learning_rate_at,
    moving_average,
    rate_factors,
)


def rates(steps: int, **kwargs) -> list[float]:
    return [learning_rate_at(s, total_steps=steps, **kwargs) for s in range(steps)]


def test_schedule_by_hand():
    got = rates(6, peak=0.8, warmup_steps=2)
    assert got == pytest.approx([0.4, 0.8, 0.8, 0.8 * 0.853553, 0.4, 0.8 * 0.146447], rel=1e-5)


def test_poly_is_a_straight_line_to_zero():
    got = rates(6, peak=0.8, warmup_steps=2, schedule="poly")
    assert got == pytest.approx([0.4, 0.8, 0.8, 0.6, 0.4, 0.2])


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


def test_a_fused_step_is_the_same_step():
    """And what it leaves is taken up by the other kind: checkpoints are of one form."""
    fused, plain = (nn.Linear(5, 3), nn.Linear(5, 3))
    plain.load_state_dict(fused.state_dict())
    made = {"learning_rate": 1e-2, "weight_decay": 0.1}
    by_fused = build_optimizer(fused, **made, fused=True)
    by_plain = build_optimizer(plain, **made)
    for step in range(4):
        for model, optimizer in ((fused, by_fused), (plain, by_plain)):
            model.weight.grad = torch.full((3, 5), 0.5 + step)
            model.bias.grad = torch.full((3,), -0.1)
            optimizer.step()
        torch.testing.assert_close(fused.state_dict(), plain.state_dict(), rtol=1e-6, atol=1e-7)
        if step == 1:
            kept = by_fused.state_dict()
            by_fused.load_state_dict(by_plain.state_dict())
            by_plain.load_state_dict(kept)
            assert not by_fused.param_groups[0]["fused"]  # a run goes on as it began
            assert by_plain.param_groups[0]["fused"]


def lamb(x, gradients, *, lr, decay, most_trust, b1=0.9, b2=0.999, eps=1e-6):
    """Algorithm 2 of You et al. (2020), line by line, with a limit on the ratio."""
    m = v = np.zeros_like(x)
    for t, g in enumerate(gradients, 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        r = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        wanted = r + decay * x
        norms = np.linalg.norm(x), np.linalg.norm(wanted)
        ratio = min(norms[0] / norms[1], most_trust) if decay and all(norms) else 1.0
        x = x - lr * ratio * wanted
    return x


@pytest.mark.parametrize("scale", [0.01, 100.0, 0.0])
@pytest.mark.parametrize("most_trust", [1.0, np.inf])
def test_lamb_follows_its_paper(scale, most_trust):
    draw = np.random.default_rng(0)
    start, gradients = scale * draw.normal(size=(4, 3)), draw.normal(size=(5, 4, 3))
    kernel, bias = (nn.Parameter(torch.tensor(start[i])) for i in (slice(None), 0))
    optimizer = Lamb(
        [{"params": [kernel], "weight_decay": 0.05}, {"params": [bias]}],
        lr=0.1,
        most_trust=most_trust,
    )
    for g in gradients:
        kernel.grad, bias.grad = torch.tensor(g), torch.tensor(g[0])
        optimizer.step()
    for got, rows, decay in ((kernel, slice(None), 0.05), (bias, 0, 0.0)):
        want = lamb(start[rows], gradients[:, rows], lr=0.1, decay=decay, most_trust=most_trust)
        np.testing.assert_allclose(got.detach().numpy(), want, rtol=1e-12, atol=1e-15)


def test_lamb_is_built_with_the_same_groups():
    optimizer = build_optimizer(nn.Linear(2, 2), learning_rate=1e-3, weight_decay=0.1, kind="lamb")
    assert isinstance(optimizer, Lamb)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1, 0.0]


def test_learning_rates_fall_with_depth():
    model = create_model("svf_nano", num_classes=2)
    factors = rate_factors(model, layer_decay=0.5, head_lr=3.0)
    assert factors.keys() == set(model.parameters())
    blocks = sum(len(stage.blocks) for stage in model.backbone.stages())
    stages = model.backbone.stages()
    assert factors[stages[-1].blocks[-1].mlp.fc1.weight] == 0.5
    assert factors[stages[0].downsample.conv.weight] == 0.5**blocks
    assert factors[stages[1].downsample.conv.weight] == 0.5 ** (blocks - len(stages[0].blocks))
    assert factors[model.head.fc.weight] == 3.0
    optimizer = build_optimizer(model, learning_rate=1.0, weight_decay=0.1, factors=factors)
    found = {
        p: (g["lr_factor"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]
    }
    assert found == {p: (f, 0.1 if p.ndim > 1 else 0.0) for p, f in factors.items()}


def test_the_average_forgets_its_beginning():
    model = nn.BatchNorm1d(1)
    average = moving_average(model, 0.5)
    want = None
    for n, x in enumerate([1.0, 5.0, 2.0, -3.0, 4.0, 9.0, 1.0, 0.5, 8.0, 3.0, 2.0]):
        nn.init.constant_(model.weight, x)
        model.running_mean.fill_(x)
        model.num_batches_tracked.fill_(n)
        average.update_parameters(model)
        want = x if want is None else want + (1 - min(0.5, (1 + n) / (10 + n))) * (x - want)
        assert average.module.weight.item() == pytest.approx(want)
        assert average.module.running_mean.item() == pytest.approx(want)
        assert int(average.module.num_batches_tracked) == n
