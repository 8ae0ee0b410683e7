"""Mixup and CutMix: what is shown of each clip is the share of its label."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from spikevideoformer.tasks.classification.metrics import classification_loss
from spikevideoformer.tasks.classification.mixing import MixedBatch, mix, mixed_loss
from spikevideoformer.training import TrainConfig
from spikevideoformer.video.clip import ClipBatch


def batch(size: int = 32) -> ClipBatch:
    """Four clips of one value each, 1 to 4, of classes 0 to 3."""
    values = torch.arange(1.0, 5).view(4, 1, 1, 1, 1).expand(4, 2, 3, size, size)
    labels = torch.arange(4)
    paths = tuple(Path(f"{i}.mp4") for i in range(4))
    return ClipBatch(video=values.contiguous(), labels=labels, indices=labels, paths=paths)


def mixed(seed: int, **how: float) -> MixedBatch:
    torch.manual_seed(seed)
    return mix(batch(), **{"mixup": 0.0, "cutmix": 0.0, **how})


def test_mixup_lays_clips_over_each_other() -> None:
    shares = set()
    for seed in range(20):
        got = mixed(seed, mixup=0.8).to("cpu")
        own, other = torch.arange(1.0, 5), torch.arange(4.0, 0, -1)
        want = (got.share * own + (1 - got.share) * other).view(4, 1, 1, 1, 1)
        assert torch.allclose(got.video, want.expand_as(got.video))
        assert got.others.tolist() == [3, 2, 1, 0]
        assert 0 <= got.share <= 1
        shares.add(got.share)
    assert len(shares) == 20


def test_cutmix_cuts_one_box_of_all_frames() -> None:
    for seed in range(20):
        got = mixed(seed, cutmix=1.0)
        foreign = got.video != batch().video
        assert (foreign == foreign[:1, :1, :1]).all()  # one box for all clips, frames and colours
        box = foreign[0, 0, 0]
        assert got.share == pytest.approx(1 - box.float().mean().item())
        assert torch.equal(box, box.any(1)[:, None] & box.any(0)[None])
        assert set(got.video[0].unique().tolist()) <= {1.0, 4.0}


def test_with_both_a_batch_has_either() -> None:
    cut = [
        set(mixed(s, mixup=1.0, cutmix=1.0).video[0].unique().tolist()) <= {1, 4} for s in range(40)
    ]
    assert 10 < sum(cut) < 30


def test_the_loss_is_that_of_soft_targets() -> None:
    got, logits = mixed(0, mixup=1.0), torch.randn(4, 5)
    soft = got.share * F.one_hot(got.labels, 5) + (1 - got.share) * F.one_hot(got.others, 5)
    soft = 0.9 * soft + 0.1 / 5
    want = F.cross_entropy(logits, soft)
    assert mixed_loss(logits, got, label_smoothing=0.1).item() == pytest.approx(want.item())
    plain = batch()
    assert torch.equal(
        mixed_loss(logits, plain, label_smoothing=0.1),
        classification_loss(logits, plain.labels, label_smoothing=0.1),
    )


def test_what_cannot_be_mixed_is_refused() -> None:
    settings = {"out": "run", "batch_size": 1, "classification": {"mixup": 0.8}}
    with pytest.raises(ValueError, match="a batch of one clip has none to mix it with; raise"):
        TrainConfig.from_dict(settings)
    with pytest.raises(ValueError, match=r"mixup is -1\.0; give a number at least 0"):
        TrainConfig.from_dict({"out": "run", "classification": {"mixup": -1}})
    with pytest.raises(ValueError, match="rand_augment changes colours, which events do not have"):
        TrainConfig.from_dict(
            {"out": "run", "input": "events", "augmentation": {"rand_augment": 9}}
        )
