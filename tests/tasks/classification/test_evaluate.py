import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, create_model
from spikevideoformer.progress import Progress
from spikevideoformer.tasks.classification.dataset import ClipDataset
from spikevideoformer.tasks.classification.index import read_index
from spikevideoformer.training import evaluate, evaluate_folder
from spikevideoformer.video.spec import ClipSpec

SPEC = ClipSpec(frames=2, size=16)


class Linear(nn.Module):
    """Logits that depend on every pixel of every frame, so that clips in time differ."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2 * 3 * 16 * 16, 2)

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        return self.fc(video.flatten(1))


@pytest.mark.parametrize(
    ("clips_per_video", "crops", "batch_size"), [(1, 1, 3), (3, 1, 7), (3, 1, 1), (2, 3, 7)]
)
def test_probabilities_are_averaged_over_the_views_of_a_video(
    clips, clips_per_video, crops, batch_size
):
    dataset = ClipDataset(
        read_index(clips, split="train"), SPEC, clips_per_video=clips_per_video, crops=crops
    )
    model = Linear()
    result = evaluate(model, dataset, batch_size=batch_size)
    assert result.clips == 12

    loss, correct = 0.0, 0
    for video in range(12):
        items = [dataset[video * dataset.views + i] for i in range(dataset.views)]
        p = torch.stack([model(item.video[None])[0].softmax(0) for item in items]).mean(0)
        loss -= p[items[0].label].log().item() / 12
        correct += int(p.argmax()) == items[0].label
    assert result.loss == pytest.approx(loss, rel=1e-5)
    assert result.top1 == pytest.approx(correct / 12)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_the_model_as_it_was(clips, training):
    dataset = ClipDataset(read_index(clips, split="val"), SPEC)
    model = create_model("svf_nano", num_classes=2).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, dataset)
    assert model.training == training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_model_that_does_not_know_its_clips(tmp_path, clips):
    create_model("svf_nano", num_classes=2).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="does not say how clips become input"):
        evaluate_folder(tmp_path / "model", read_index(clips, split="val"), device="cpu")


def test_unknown_classes_are_refused(tmp_path, clips):
    model = create_model("svf_nano", num_classes=2)
    model.save_pretrained(tmp_path / "model", classes=["up", "down"], clip=SPEC.to_dict())
    with pytest.raises(ValueError, match="the model has no class"):
        evaluate_folder(tmp_path / "model", read_index(clips, split="val"), device="cpu")


@pytest.mark.parametrize(("clips_per_video", "batch_size", "shape"), [(1, 5, 5), (3, 16, 15)])
def test_every_forward_pass_has_the_same_shape(clips, clips_per_video, batch_size, shape):
    dataset = ClipDataset(read_index(clips, split="train"), SPEC, clips_per_video=clips_per_video)
    model, seen = Linear(), []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    result = evaluate(model, dataset, batch_size=batch_size)
    assert set(seen) == {shape}
    assert result.clips == 12  # what fills a batch up is not counted


def test_a_clip_does_not_depend_on_its_batch(clips, model_folder):
    index = read_index(clips, split="train")
    model = SpikeVideoFormer.from_pretrained(model_folder)
    index = replace(index, classes=model.classes)

    def loss(samples) -> float:
        dataset = ClipDataset(replace(index, samples=samples), ClipSpec(frames=4, size=32))
        result = evaluate(model, dataset, batch_size=5)
        return result.loss * result.clips

    alone = sum(loss((sample,)) for sample in index.samples[:6])
    assert loss(index.samples[:6]) == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_are_an_error(clips, value):
    model = Linear()
    model.fc.bias.data[1] = value
    dataset = ClipDataset(read_index(clips, split="train"), SPEC)
    batches = []
    with pytest.raises(ValueError, match="are NaN or infinite; use precision 32-true"):
        evaluate(model, dataset, batch_size=4, after_batch=lambda: batches.append(None))
    assert len(batches) == 1  # the rest is not waited for


def test_the_check_tells_how_far_it_is(tmp_path, clips, monkeypatch, capsys):
    monkeypatch.setattr(Progress, "due", lambda _: True)
    model = create_model("svf_nano", num_classes=2)
    model.save_pretrained(tmp_path, classes=["left", "right"], clip=SPEC.to_dict())
    evaluate_folder(tmp_path, read_index(clips, split="val"), device="cpu", check="open")
    assert "checked file:  50% 2/4 [" in capsys.readouterr().err
