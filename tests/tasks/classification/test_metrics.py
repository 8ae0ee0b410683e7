import json
import math

import pytest
import torch

from spikevideoformer.tasks.classification.metrics import (
    ClassificationMetrics,
    classification_loss,
    count_correct,
)


def test_loss_without_smoothing_is_the_negative_log_likelihood():
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    expected = (math.log(1 + math.exp(-2)) + math.log(2)) / 2
    assert classification_loss(logits, torch.tensor([0, 1])).item() == pytest.approx(expected)


def test_smoothing_spreads_its_share_over_all_classes():
    logits = torch.tensor([[math.log(4.0), math.log(1.0), math.log(3.0)]])  # p = 1/2, 1/8, 3/8
    nll = [-math.log(p) for p in (1 / 2, 1 / 8, 3 / 8)]
    expected = 0.7 * nll[1] + 0.3 * sum(nll) / 3
    loss = classification_loss(logits, torch.tensor([1]), label_smoothing=0.3)
    assert loss.item() == pytest.approx(expected)


def test_count_correct_by_hand():
    scores = torch.tensor([[0.1, 0.5, 0.4], [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]])
    labels = torch.tensor([2, 0, 0])
    assert [int(count_correct(scores, labels, k=k)) for k in (1, 2, 3, 5)] == [1, 2, 3, 3]


def test_a_constant_output_does_not_count_as_correct_for_every_label():
    assert int(count_correct(torch.zeros(4, 4), torch.arange(4))) == 1


def test_nan_scores_are_wrong():
    assert int(count_correct(torch.full((2, 3), math.nan), torch.tensor([0, 1]), k=5)) == 0


def test_metrics_by_hand():
    metrics = ClassificationMetrics(("run", "jump", "fall"))
    metrics.update(torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]]), torch.tensor([0, 1]))
    metrics.update(torch.tensor([[0.1, 0.8, 0.1]]), torch.tensor([1]))
    result = metrics.compute()
    assert result.confusion == ((1, 0, 0), (1, 1, 0), (0, 0, 0))
    assert (result.clips, result.top5) == (3, 1.0)
    assert result.top1 == pytest.approx(2 / 3)
    assert result.class_accuracy == (1.0, 0.5, None)
    assert result.mean_class_accuracy == pytest.approx(0.75)
    assert result.loss == pytest.approx(-(math.log(0.7) + math.log(0.3) + math.log(0.8)) / 3)
    assert json.loads(json.dumps(result.to_dict()))["class_accuracy"]["fall"] is None


def test_top5_among_more_than_five_classes():
    metrics = ClassificationMetrics([str(i) for i in range(7)])
    scores = torch.tensor([0.25, 0.2, 0.17, 0.14, 0.11, 0.08, 0.05])
    metrics.update(scores.expand(7, 7), torch.arange(7))
    result = metrics.compute()
    assert result.top5 == pytest.approx(5 / 7)
    assert result.top1 == pytest.approx(1 / 7)


def test_sums_of_two_processes_add_up_to_those_of_one():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(20, 6, generator=generator).softmax(1)
    labels = torch.randint(6, (20,), generator=generator)
    whole, a, b = (ClassificationMetrics("abcdef") for _ in range(3))
    whole.update(probabilities, labels)
    a.update(probabilities[::2], labels[::2])
    b.update(probabilities[1::2], labels[1::2])
    a.sums += b.sums
    assert a.compute().confusion == whole.compute().confusion
    assert a.compute().loss == pytest.approx(whole.compute().loss)


def test_zero_probability_gives_a_finite_loss():
    metrics = ClassificationMetrics("ab")
    metrics.update(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert 80 < metrics.compute().loss < 100


def test_nothing_evaluated_is_an_error():
    with pytest.raises(ValueError, match="at least one clip"):
        ClassificationMetrics("ab").compute()


def test_nan_probabilities_give_no_metrics():
    metrics, other = ClassificationMetrics("ab"), ClassificationMetrics("ab")
    metrics.update(torch.tensor([[0.5, 0.5]]), torch.tensor([1]))
    assert metrics.finite
    other.update(torch.full((1, 2), math.nan), torch.tensor([0]))
    assert not other.finite
    metrics.sums += other.sums
    with pytest.raises(ValueError, match="NaN or infinite; use precision 32-true, or other"):
        metrics.compute()
