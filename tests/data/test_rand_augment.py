"""RandAugment: every operation, alike in all frames, and draws that follow from the generator."""

import numpy as np
import pytest
import torch

from spikevideoformer.data.rand_augment import OPERATIONS, operate, rand_augment

GREY = (128, 128, 128)
draw = np.random.default_rng(0)
PICTURE = draw.integers(20, 200, (1, 24, 32, 3), np.uint8)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("strength", [-1.0, 0.9])
def test_frames_that_are_alike_stay_alike(name: str, strength: float) -> None:
    clip = PICTURE.repeat(3, 0)
    got = operate(clip, name, strength, GREY)
    assert got.shape == clip.shape
    assert got.dtype == np.uint8
    assert (got == got[:1]).all()
    assert (got == clip).all() == (name == "identity")


def test_strength_zero_changes_nothing_but_histograms() -> None:
    same = [n for n in OPERATIONS if (operate(PICTURE, n, 0.0, GREY) == PICTURE).all()]
    assert set(OPERATIONS) - set(same) == {"auto_contrast", "equalize"}


@pytest.mark.parametrize("name", ["auto_contrast", "equalize", "contrast"])
def test_colours_follow_the_whole_clip_not_each_frame(name: str) -> None:
    """A frame that is darker than the others stays darker; one histogram a frame would hide it."""
    clip = np.concatenate([np.full((1, 8, 8, 3), value, np.uint8) for value in (60, 90, 120)])
    dark, middle, light = operate(clip, name, 0.5, GREY)[:, 0, 0, 0].astype(int)
    assert dark < middle < light
    assert light - dark >= 60


def test_by_hand() -> None:
    value = np.array([0, 100, 200, 255], np.uint8).reshape(1, 1, 4, 1).repeat(3, 3)

    def row(name: str, strength: float) -> list[int]:
        return operate(value, name, strength, (7, 7, 7))[0, 0, :, 0].tolist()

    assert row("posterize", -1.0) == [0, 96, 192, 240]  # four bits are left
    assert row("solarize", 0.5) == [0, 100, 55, 0]  # from 128 on inverted
    assert row("solarize", 1.0) == [255, 155, 55, 0]
    assert row("brightness", -0.5) == [0, 55, 110, 140]  # times 0.55
    wide = np.arange(331, dtype=np.int64)[None, None, :, None] % 251
    wide = wide.astype(np.uint8).repeat(3, 3).repeat(4, 1)
    moved = operate(wide, "translate_x", 1.0, (7, 7, 7))  # by 150 of 331 pixels
    assert (moved[0, :, :181] == wide[0, :, 150:]).all()
    assert (moved[0, :, 181:] == 7).all()
    high = operate(wide.transpose(0, 2, 1, 3).copy(), "translate_y", -1.0, (7, 7, 7))
    assert (high[0, 150:] == wide.transpose(0, 2, 1, 3)[0, :181]).all()


def test_all_operations_are_drawn_and_the_generator_decides() -> None:
    clip = PICTURE.repeat(2, 0)
    frames = torch.from_numpy(clip).permute(0, 3, 1, 2)

    def augmented(seed: int, operations: int = 2) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return rand_augment(frames, 9.0, generator, fill=GREY, operations=operations)

    results = [augmented(seed, 1) for seed in range(100)]
    alone = [operate(clip, n, s, GREY)[0] for n in OPERATIONS for s in (0.9, -0.9)]
    met = {
        i
        for r in results
        for i, want in enumerate(alone)
        if np.array_equal(r[0].permute(1, 2, 0).numpy(), want)
    }
    assert {i // 2 for i in met} == set(range(len(OPERATIONS)))
    assert torch.equal(augmented(3), augmented(3))
    assert not torch.equal(augmented(3), augmented(4))
