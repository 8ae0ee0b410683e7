"""Transforms: alike in all frames, decided by the generator, and nothing when switched off."""

from typing import Any

import pytest
import torch
from torch import Tensor

from spikevideoformer.data.specs import Augmentation
from spikevideoformer.data.transforms import eval_transform, to_pictures, train_transform
from spikevideoformer.video.spec import ClipSpec

SPEC = ClipSpec(frames=5, size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
PLAIN = ClipSpec(frames=5, size=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
OFF: dict[str, Any] = {
    "crop_scale": None,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "temporal_jitter": 0.0,
}


def noise(T: int = 5, H: int = 48, W: int = 64) -> Tensor:
    """The same picture T times: any difference between frames comes from the transform."""
    picture = torch.randint(0, 256, (1, H, W, 3), generator=seeded(7), dtype=torch.uint8)
    return picture.expand(T, H, W, 3).contiguous()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_evaluation_crops_the_middle_and_normalises() -> None:
    frames = torch.zeros(5, 64, 96, 3, dtype=torch.uint8)
    frames[:, :, 16:80] = 255  # exactly the middle square
    video = eval_transform(frames, SPEC)
    assert video.shape == (5, 3, 32, 32)
    assert video.dtype == torch.float32
    assert video.is_contiguous()
    white = (1 - torch.tensor(SPEC.mean)) / torch.tensor(SPEC.std)
    assert torch.allclose(video, white.view(1, 3, 1, 1).expand_as(video))
    assert torch.equal(eval_transform(frames.transpose(1, 2).contiguous(), SPEC), video)


def test_pictures_of_the_right_size_are_not_resampled() -> None:
    frames = noise(H=32, W=32)
    video = eval_transform(frames, PLAIN)
    assert torch.equal(video, frames.permute(0, 3, 1, 2).float() / 255)


def test_shrinking_averages() -> None:
    """A fine chequered pattern becomes grey: without antialiasing it would stay a pattern."""
    frames = ((torch.arange(256)[:, None] + torch.arange(256)) % 2 * 255).to(torch.uint8)
    frames = frames[None, :, :, None].expand(2, -1, -1, 3)
    video = eval_transform(frames, PLAIN)
    assert (video - 0.5).abs().max() < 0.02


def test_augmentation_that_is_off_changes_nothing() -> None:
    frames = noise()
    expected = eval_transform(frames, SPEC)
    assert Augmentation.off() == Augmentation(**OFF, flip=0.0)
    for seed in range(5):
        video = train_transform(frames, SPEC, Augmentation.off(), seeded(seed))
        assert torch.equal(video, expected)


def test_frames_are_treated_alike() -> None:
    augmentation = Augmentation(flip=0.5, brightness=0.5, contrast=0.5, saturation=0.5)
    frames = noise()
    seen = []
    for seed in range(10):
        video = train_transform(frames, SPEC, augmentation, seeded(seed))
        assert video.shape == (5, 3, 32, 32)
        assert torch.equal(video, video[:1].expand_as(video))
        assert torch.equal(video, train_transform(frames, SPEC, augmentation, seeded(seed)))
        seen.append(video)
    assert not any(torch.equal(seen[0], other) for other in seen[1:])


def test_flip_mirrors_left_and_right() -> None:
    frames = noise()
    plain = eval_transform(frames, SPEC)
    always = train_transform(frames, SPEC, Augmentation(**OFF, flip=1.0), seeded(0))
    assert torch.equal(always, plain.flip(-1))
    half = Augmentation(**OFF, flip=0.5)
    flips = sum(
        not torch.equal(train_transform(frames, SPEC, half, seeded(seed)), plain)
        for seed in range(200)
    )
    assert 70 < flips < 130


def test_crop_keeps_to_its_ranges() -> None:
    """On a ramp of columns and rows, the values at the edges tell where the crop was."""
    ramp = torch.arange(200, dtype=torch.uint8)
    frames = torch.zeros(1, 200, 200, 3, dtype=torch.uint8)
    frames[..., 0], frames[..., 1] = ramp[None, None, :], ramp[None, :, None]
    augmentation = Augmentation(
        crop_scale=(0.2, 0.4),
        crop_ratio=(0.5, 2.0),
        brightness=0.0,
        contrast=0.0,
        saturation=0.0,
    )
    areas, ratios = [], []
    for seed in range(200):
        video = train_transform(frames, PLAIN, augmentation, seeded(seed))[0] * 255
        # A crop of w columns is sampled at the centres of 32 cells: the range is w * 31 / 32.
        width = (video[0, 0, -1] - video[0, 0, 0]).item() * 32 / 31
        height = (video[1, -1, 0] - video[1, 0, 0]).item() * 32 / 31
        areas.append(width * height / 200**2)
        ratios.append(width / height)
    assert min(areas) > 0.18
    assert max(areas) < 0.42
    assert max(areas) - min(areas) > 0.15
    assert min(ratios) > 0.45
    assert max(ratios) < 2.2
    assert max(ratios) > 1.6
    assert min(ratios) < 0.65


@pytest.mark.parametrize("part", ["brightness", "contrast", "saturation"])
def test_each_colour_change_does_its_own(part: str) -> None:
    frames = noise() // 4 + 96  # away from black and white, where nothing is cut off
    plain = eval_transform(frames, PLAIN)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    augmentation = Augmentation(**{**OFF, part: 0.3})
    factors = []
    for seed in range(50):
        video = train_transform(frames, PLAIN, augmentation, seeded(seed))
        mean = (plain * luma).sum(1).mean()
        grey = (plain * luma).sum(1, keepdim=True)
        centre = {"brightness": 0.0, "contrast": mean, "saturation": grey}[part]
        factor = ((video - centre) / (plain - centre)).nanmedian()
        assert torch.allclose(video, centre + factor * (plain - centre), atol=1e-4)
        factors.append(factor.item())
    assert 0.69 < min(factors) < 0.8
    assert 1.2 < max(factors) < 1.31


def test_colours_stay_in_range() -> None:
    augmentation = Augmentation(brightness=1.0, contrast=1.0, saturation=1.0)
    for seed in range(20):
        video = train_transform(noise(), PLAIN, augmentation, seeded(seed))
        assert video.min() >= 0
        assert video.max() <= 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flip": 1.5}, "flip must be between 0 and 1"),
        ({"brightness": -0.1}, "brightness must be between 0 and 1"),
        ({"temporal_jitter": float("nan")}, "temporal_jitter must be between 0 and 1"),
        ({"crop_scale": (0.5, 1.5)}, "crop_scale must be two numbers 0 < low <= high <= 1"),
        ({"crop_scale": (0.9, 0.5)}, "crop_scale must be two numbers"),
        ({"crop_ratio": (0.0, 1.0)}, "crop_ratio must be two numbers 0 < low <= high"),
    ],
)
def test_values_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**values)


def test_wrong_frames_are_refused() -> None:
    # Tests check shapes at every call; users do not, and get our message.
    transform = getattr(eval_transform, "__wrapped__", eval_transform)
    for frames in (torch.zeros(2, 8, 8, 3), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(Exception, match=r"uint8 RGB \[T, H, W, 3\]|UInt8\[Tensor"):
            transform(frames, SPEC)


def test_pictures_come_back_from_what_the_network_sees() -> None:
    spec = ClipSpec(frames=2, size=16)
    pictures = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    assert torch.equal(to_pictures(eval_transform(pictures, spec), spec), pictures)


def test_what_is_erased_is_the_same_noise_in_all_frames() -> None:
    frames = noise()
    augmentation = Augmentation(**OFF, erasing=1.0)
    plain = eval_transform(frames, SPEC)
    changed = 0
    for seed in range(5):
        video = train_transform(frames, SPEC, augmentation, seeded(seed))
        assert all(torch.equal(frame, video[0]) for frame in video)
        other = (video[0] != plain[0]).any(0)  # [H, W]
        rows, columns = other.any(1).nonzero(), other.any(0).nonzero()
        top, bottom = int(rows.min()), int(rows.max()) + 1
        left, right = int(columns.min()), int(columns.max()) + 1
        assert other[top:bottom, left:right].all()
        area = (bottom - top) * (right - left) / other.numel()
        assert 0.01 < area < 0.35
        changed += area
    assert 0.1 < changed / 5 < 0.25
    never = train_transform(frames, SPEC, Augmentation(**OFF), seeded(0))
    assert torch.equal(never, plain)


def test_places_along_the_longer_side() -> None:
    """Three squares of a wide picture show its left, middle and right; of a tall one likewise."""
    ramp = torch.arange(64, dtype=torch.uint8).repeat(32, 1)  # [H, W]
    wide = ramp[None, :, :, None].expand(2, 32, 64, 3).contiguous()
    for frames, along in ((wide, -1), (wide.transpose(1, 2).contiguous(), -2)):
        begins = [
            round(255 * float(eval_transform(frames, PLAIN, place=place)[0, 0].select(along, 0)[0]))
            for place in (0.0, 0.5, 1.0)
        ]
        assert begins == [0, 16, 32]
    middle = eval_transform(wide, PLAIN)
    assert torch.equal(middle, eval_transform(wide, PLAIN, place=0.5))


def test_rand_augment_is_drawn_after_all_else() -> None:
    """Switching it on leaves crop and flip as they were; next to no magnitude shows it."""
    frames = noise()
    usual = Augmentation(flip=0.5)
    faint = Augmentation(flip=0.5, rand_augment=1e-6)
    seeds = [
        s for s in range(30)
        if torch.allclose(
            train_transform(frames, PLAIN, usual, seeded(s)),
            train_transform(frames, PLAIN, faint, seeded(s)),
            atol=1.5 / 255,
        )
    ]  # fmt: skip
    assert 15 < len(seeds) < 30  # the others have their histogram changed, which knows no magnitude
