import pytest
import torch
from torch import nn

from spikevideoformer.data.clip import ClipSpec
from spikevideoformer.data.dataset import ClipDataset
from spikevideoformer.data.index import read_index
from spikevideoformer.models.spikevideoformer import create_model
from spikevideoformer.training import evaluate, evaluate_folder

SPEC = ClipSpec(frames=2, size=16)


class Linear(nn.Module):
    """Logits that depend on every pixel of every frame, so that clips in time differ."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2 * 3 * 16 * 16, 2)

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        return self.fc(video.flatten(1))


@pytest.mark.parametrize(("clips_per_video", "batch_size"), [(1, 3), (3, 7), (3, 1)])
def test_probabilities_are_averaged_over_the_clips_of_a_video(clips, clips_per_video, batch_size):
    dataset = ClipDataset(read_index(clips, split="train"), SPEC, clips_per_video=clips_per_video)
    model = Linear()
    result = evaluate(model, dataset, batch_size=batch_size)
    assert result.clips == 12

    loss, correct = 0.0, 0
    for video in range(12):
        items = [dataset[video * clips_per_video + i] for i in range(clips_per_video)]
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
