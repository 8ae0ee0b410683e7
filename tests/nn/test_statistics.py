"""Statistics of batch norms measured anew."""

import pytest
import torch

from spikevideoformer import create_model
from spikevideoformer.bench.inputs import random_video
from spikevideoformer.nn.conv import RepConv
from spikevideoformer.nn.statistics import batch_norms, kept_statistics, measure_statistics


def model(**options):
    torch.manual_seed(0)
    return create_model("svf_nano", num_classes=3, **options)


def test_the_border_of_a_repconv_belongs_to_the_measured_statistics():
    """What training computes of a large batch by its own statistics, evaluation computes again."""
    torch.manual_seed(0)
    rep = RepConv(8).double()
    torch.nn.init.normal_(rep.bn1.bias)
    spikes = (torch.rand(64, 8, 6, 6) < 0.2).double()
    measure_statistics(rep, [spikes])
    with torch.no_grad(), kept_statistics(rep):
        for norm in batch_norms(rep):
            norm.momentum = 1.0  # training pads with running statistics: those of this batch
        trained = rep.train()(spikes)
    evaluated = rep.eval()(spikes)
    # 64 x 36 values a channel: variances that are unbiased and biased differ by 1 / 2304
    torch.testing.assert_close(evaluated, trained, rtol=2e-3, atol=2e-3)
    # with the running averages that a fresh module pads with, the border would be another one
    fresh = RepConv(8).double()
    fresh.load_state_dict(rep.state_dict())
    for norm in batch_norms(fresh):
        norm.reset_running_stats()
    assert (fresh.train()(spikes) - trained)[..., 0, :].abs().max() > 0.1


def test_mean_and_variance_over_batches():
    norm = torch.nn.BatchNorm2d(2).double()
    batches = [torch.randn(4, 2, 3, 3, dtype=torch.float64) * (i + 1) + i for i in range(3)]
    measure_statistics(norm, batches)
    means = torch.stack([b.mean((0, 2, 3)) for b in batches])
    variances = torch.stack([b.transpose(0, 1).flatten(1).var(1) for b in batches])
    torch.testing.assert_close(norm.running_mean, means.mean(0))
    torch.testing.assert_close(
        norm.running_var, variances.mean(0) + means.var(0, correction=0), rtol=1e-12, atol=0
    )


def test_nothing_else_is_changed():
    net = model(drop_path=0.5)
    net.train()
    net.head.eval()
    norm = batch_norms(net)[3]
    norm.momentum = 0.3
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.get_rng_state()
    with kept_statistics(net):
        measure_statistics(net, [random_video(1, 2, 3, 32, 32)])
        changed = {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert all(k.endswith(("running_mean", "running_var")) for k in changed)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())  # no branch was dropped
    assert (norm.momentum, net.training, net.head.training) == (0.3, True, False)


def test_no_batch_is_refused():
    with pytest.raises(ValueError, match="no batch"):
        measure_statistics(model(), [])


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        measure_statistics(torch.nn.BatchNorm2d(1), [torch.full((1, 1, 2, 2), torch.inf)])
