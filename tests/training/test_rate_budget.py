"""A budget of spikes: the term by hand, and runs that keep to it."""

import pytest
import torch

from spikevideoformer.ablation.study import counted
from spikevideoformer.energy.report import energy_report
from spikevideoformer.models.spikevideoformer import create_model
from spikevideoformer.training import train
from spikevideoformer.training.rate_budget import RateBudget

from .tiny import assert_resumes_to_the_same_bits


def test_the_term_by_hand(lively) -> None:
    model = lively(create_model("svf_nano", num_classes=3)).eval().requires_grad_(False)
    video = torch.randn(2, 2, 3, 32, 32)
    rate = energy_report(model, video).rate
    for share, expected in ((0.5, torch.tensor(2.0).log() ** 2), (2.0, 0.0)):
        budget = RateBudget(model, share * rate)
        with budget.watch(video):
            model(video)
        assert budget.rate == pytest.approx(rate, rel=1e-5)
        assert float(budget.penalty()) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("memory", ["plain", "packed"])
def test_its_gradient_lowers_the_rate_and_leaves_the_network_in_training(lively, memory) -> None:
    model = lively(create_model("svf_nano", num_classes=3, neuron="integer_lif"))
    model.backbone.spike_memory = memory
    optimizer, rates = torch.optim.Adam(model.parameters(), lr=1e-1), []
    video = torch.randn(2, 2, 3, 32, 32)
    budget = RateBudget(model, 0.02)
    for _ in range(12):
        with budget.watch(video):
            model(video)
        assert model.training
        budget.penalty().backward()
        optimizer.step()
        optimizer.zero_grad()
        rates.append(budget.rate)
    assert rates[0] > 0.1
    assert rates[-1] < 0.5 * rates[0]


def test_a_silent_network_is_within_it() -> None:
    model = create_model("svf_nano", num_classes=3, neuron={"v_threshold": 1e3})
    budget = RateBudget(model, 0.05)
    video = torch.randn(1, 2, 3, 32, 32)
    with budget.watch(video):
        model(video)
    penalty = budget.penalty()
    penalty.backward()
    assert float(penalty.detach()) == 0
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_a_run_keeps_to_it_and_resumes_to_the_same_bits(tiny, clips, tmp_path) -> None:
    train(tiny(out=tmp_path / "free", epochs=6))
    held = tiny(out=tmp_path / "held", epochs=6, rate_budget=0.015)
    train(held)
    videos = [str(path) for path in sorted((clips / "train").rglob("*.mp4"))]
    free, kept = (counted(tmp_path / name / "model", videos).rate for name in ("free", "held"))
    assert kept < 0.6 * free

    assert_resumes_to_the_same_bits(held)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate_budget": 0.0}, "rate_budget"),
        ({"rate_budget": 1e-40}, "rate_budget"),
        ({"rate_budget": 0.1, "rate_weight": -1.0}, "rate_weight"),
        ({"rate_budget": 0.1, "model": "ann_nano"}, "fires no spikes"),
        ({"rate_budget": 0.1, "gradient_checkpointing": True}, "leave one out"),
    ],
)
def test_what_it_cannot_hold_is_refused(tiny, changes, words) -> None:
    with pytest.raises(ValueError, match=words):
        tiny(**changes)
