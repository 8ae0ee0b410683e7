"""Temperature, familiarity, and what is said of networks that do not work."""

import math
from dataclasses import replace

import pytest
import torch

from spikevideoformer.models.familiarity import Familiarity, profile
from spikevideoformer.nn.neuron import FiringRates, silence
from spikevideoformer.tasks.classification import ClassificationResult
from spikevideoformer.training import TrainConfig
from spikevideoformer.training.advice import about_answers, about_training
from spikevideoformer.training.calibrate import calibration_error, fit_temperature
from spikevideoformer.training.pose import _Variation


def overconfident(count, factor):
    """Logits whose softmax is right as often as it says, and then made `factor` times as large."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(count, 4, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return factor * logits, labels


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_that_makes_probabilities_true_is_found(factor):
    logits, labels = overconfident(4000, factor)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(factor, rel=0.08)
    after = calibration_error((logits / temperature).softmax(1), labels)
    assert after < 0.03
    if factor == 3.0:
        assert calibration_error(logits.softmax(1), labels) > 0.08


def test_few_clips_that_are_all_right_do_not_make_certain():
    logits = torch.tensor([[9.0, 0.0], [0.0, 9.0]], dtype=torch.float64)
    temperature = fit_temperature(logits, torch.tensor([0, 1]))
    # the rule of succession: two clips of two classes, (2 + 1) / (2 + 2)
    assert (logits / temperature).softmax(1).max().item() == pytest.approx(0.75, abs=1e-3)


def test_calibration_error_of_a_known_case():
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert calibration_error(probabilities, torch.tensor([0, 1, 0, 0])) == pytest.approx(0.4)


def clips(count, shift, seed):
    generator = torch.Generator().manual_seed(seed)
    rates = {
        name: 0.2 + shift + 0.02 * torch.rand(4, count, generator=generator) for name in "abcdef"
    }
    video = torch.rand(count, 4, 3, 8, 8, generator=generator)
    return profile(video, FiringRates(rates))


def test_clips_that_fire_otherwise_are_unlike():
    familiar = Familiarity.of(clips(40, 0.0, 0), clips(40, 0.0, 1))
    assert familiar.false_alarms <= 0.05
    assert (familiar.distances(clips(40, 0.0, 2)) <= familiar.limit).double().mean() > 0.9
    assert (familiar.distances(clips(40, 0.2, 3)) > familiar.limit).all()
    again = Familiarity.from_dict(familiar.to_dict())
    assert again == familiar


def test_too_few_clips_say_nothing_of_others():
    assert Familiarity.of(clips(4, 0.0, 0), None) is None


@pytest.mark.parametrize(
    "change",
    [{"mean": [1.0]}, {"limit": 0.0}, {"limit": math.nan}, {"deviation": "x"}, {"limit": None}],
)
def test_familiarity_that_nobody_wrote_is_refused(change):
    values = Familiarity.of(clips(9, 0.0, 0), None).to_dict()
    with pytest.raises(ValueError, match=r"familiarity|could not convert"):
        Familiarity.from_dict(values | change)


def test_the_order_of_layers_does_not_matter():
    video = torch.rand(2, 3, 3, 8, 8)
    a, b = torch.rand(3, 2), torch.rand(3, 2)
    there, back = (profile(video, FiringRates(r)) for r in ({"a": a, "b": b}, {"b": b, "a": a}))
    assert torch.equal(there, back)


def result(confusion, loss=0.5):
    total = sum(map(sum, confusion))
    right = sum(row[i] for i, row in enumerate(confusion))
    return ClassificationResult(
        clips=total,
        loss=loss,
        top1=right / total,
        top5=1.0,
        mean_class_accuracy=right / total,
        classes=("a", "b"),
        class_accuracy=(None, None),
        confusion=confusion,
    )


def rows(losses, val_losses, share):
    return [
        {"epoch": i + 1, "train_loss": t, "val_loss": v, "train_top1": share}
        for i, (t, v) in enumerate(zip(losses, val_losses, strict=True))
    ]


def test_a_constant_answer_is_said():
    (line,) = about_answers(result(((5, 0), (5, 0))))
    assert "'a'" in line
    assert "tells nothing apart" in line
    assert not list(about_answers(result(((5, 0), (4, 1)))))
    assert not list(about_answers(result(((5, 0), (0, 0)))))  # one class only was asked for


def test_what_is_said_of_a_training(tmp_path):
    config = TrainConfig(out=tmp_path)
    good = result(((5, 0), (0, 5)))

    def said(history, evaluation=good, config=config):
        return " ".join(about_training(config, evaluation, history, "top1"))

    assert said(rows([0.5, 0.2, 0.1], [0.4, 0.2, 0.1], 1.0)) == ""
    guessing = said(rows([0.69] * 3, [0.70, 0.69, 0.71], 0.5))
    assert "guessing (0.69 at best, ln 2 = 0.69)" in guessing
    assert "more --epochs" in guessing
    assert "known by heart" in said(rows([0.1] * 3, [0.70, 0.69, 0.71], 1.0))
    assert "cut short" in said(rows([0.69, 0.6, 0.4], [0.6, 0.5, 0.4], 0.8))
    assert "no clips were set aside" in said(
        rows([0.1] * 3, [0.1] * 3, 1.0), config=replace(config, val_split="none")
    )


def test_silence():
    assert silence(None) is None
    assert silence(0.1) is None
    assert "silent" in silence(0.001)


def test_the_variation_of_poses():
    torch.manual_seed(0)
    truth = torch.randn(50, 5, 3)
    for scale in (1.0, 0.05):
        variation = _Variation(5, torch.device("cpu"))
        variation.add(scale * truth, truth)
        assert variation.compute() == pytest.approx(scale, rel=1e-6)
    unlabelled = _Variation(5, torch.device("cpu"))
    unlabelled.add(truth, torch.full_like(truth, math.nan))
    assert unlabelled.compute() is None
