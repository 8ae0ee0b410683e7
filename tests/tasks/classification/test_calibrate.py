"""Temperature, familiarity, and what is said of networks that do not work."""

import json
import math
from dataclasses import replace

import pytest
import torch

from spikevideoformer import SpikeVideoFormer, create_model
from spikevideoformer.models.familiarity import Familiarity, profile
from spikevideoformer.nn.neuron import FiringRates, silence
from spikevideoformer.tasks.classification.calibrate import calibration_error, fit_temperature
from spikevideoformer.tasks.classification.metrics import ClassificationResult
from spikevideoformer.tasks.pose.training import _Variation
from spikevideoformer.training import TrainConfig
from spikevideoformer.training.advice import about_training


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
    # two clips, and one of every class alike: (2 + 1/2) / (2 + 1)
    assert (logits / temperature).softmax(1).max().item() == pytest.approx(5 / 6, abs=1e-3)


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


def test_layers_that_fire_together_must_stay_together():
    """Each rate is usual, the two together are not: a diagonal would not see it."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(60, 1, generator=generator, dtype=torch.float64)
    known = 0.2 + 0.05 * common + 0.002 * torch.randn(60, 6, generator=generator).double()
    familiar = Familiarity.of(known[:50], known[50:])
    odd = torch.full((1, 6), 0.2, dtype=torch.float64)
    odd[:, ::2] += 0.04
    odd[:, 1::2] -= 0.04
    assert (odd - known.mean(0)).abs().max() < known.std(0).min()
    assert familiar.distances(odd) > familiar.limit


def test_it_is_kept_beside_the_weights(tmp_path):
    model = create_model("svf_nano", num_classes=2)
    model.familiarity = Familiarity.of(clips(20, 0.0, 0), clips(20, 0.0, 1))
    model.temperature = 1.5
    model.save_pretrained(tmp_path)
    again = SpikeVideoFormer.from_pretrained(tmp_path)
    assert again.temperature == 1.5
    assert torch.equal(again.familiarity.whitening, model.familiarity.whitening)
    assert again.familiarity.limit == model.familiarity.limit
    about = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(about | {"familiarity": None}))
    assert SpikeVideoFormer.from_pretrained(tmp_path).familiarity is None  # its tensors stay unread
    (tmp_path / "config.json").write_text(json.dumps(about | {"temperature": True}))
    with pytest.raises(ValueError, match="temperature is True"):
        SpikeVideoFormer.from_pretrained(tmp_path)


def test_clips_that_are_all_the_same_leave_a_limit():
    known = torch.full((10, 5), 0.1, dtype=torch.float64)
    familiar = Familiarity.of(known, known)
    assert familiar.limit > 0
    assert (familiar.distances(known) < familiar.limit).all()
    assert familiar.distances(known + 0.1)[0] > familiar.limit


def test_profiles_of_another_network_are_refused():
    familiar = Familiarity.of(clips(9, 0.0, 0), None)
    with pytest.raises(ValueError, match="of another network"):
        familiar.distances(torch.zeros(1, 3, dtype=torch.float64))


def test_too_few_clips_say_nothing_of_others():
    assert Familiarity.of(clips(4, 0.0, 0), None) is None


@pytest.mark.parametrize(
    ("about", "state"),
    [
        ({"limit": 0.0}, {}),
        ({"limit": math.nan}, {}),
        ({"limit": None}, {}),
        ({"limit": "x"}, {}),
        ({"limit": True}, {}),
        ({}, {"familiarity.mean": torch.zeros(3)}),
        ({}, {"familiarity.whitening": torch.full((14, 14), math.inf)}),
    ],
)
def test_familiarity_that_nobody_wrote_is_refused(about, state):
    good = Familiarity.of(clips(9, 0.0, 0), None)
    with pytest.raises(ValueError, match="familiarity"):
        Familiarity.taken_from(good.to_dict() | about, good.tensors() | state)


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
    (line,) = result(((5, 0), (5, 0))).signs()
    assert "'a'" in line
    assert "tells nothing apart" in line
    assert not list(result(((5, 0), (4, 1))).signs())
    assert not list(result(((5, 0), (0, 0))).signs())  # one class only was asked for


def test_what_is_said_of_a_training(tmp_path):
    config = TrainConfig(out=tmp_path)
    good = result(((5, 0), (0, 5)))

    def said(history, evaluation=good, config=config):
        return " ".join(about_training(config, evaluation, history))

    assert said(rows([0.5, 0.2, 0.1], [0.4, 0.2, 0.1], 1.0)) == ""
    poor = result(((4, 1), (4, 1)))
    guessing = said(rows([0.69] * 3, [0.70, 0.69, 0.71], 0.5), poor)
    assert "guessing (0.69 at best, ln 2 = 0.69)" in guessing
    assert "more --epochs" in guessing
    assert "known by heart" in said(rows([0.1] * 3, [0.70, 0.69, 0.71], 1.0), poor)
    assert said(rows([0.1] * 3, [0.70, 0.69, 0.71], 1.0)) == ""  # unsure, and right every time
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
