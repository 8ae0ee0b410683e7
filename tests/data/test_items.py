"""Items by epoch and number."""

import pytest
import torch

from spikevideoformer.data.items import Items
from spikevideoformer.data.specs import Augmentation


class Draws(Items[float | None]):
    drawn = "draw"

    def __init__(self, augmentation: Augmentation | None = None, seed: int = 0) -> None:
        self.augmentation, self.seed = augmentation, seed

    def __len__(self) -> int:
        return 4

    def item(self, i: int, generator: torch.Generator | None) -> float | None:
        return None if generator is None else float(torch.rand((), generator=generator))


def test_draws_follow_from_seed_epoch_and_number() -> None:
    varied = Augmentation()
    found = {(e, i): Draws(varied)[e, i] for e in range(3) for i in range(4)}
    assert len(set(found.values())) == 12
    assert all(Draws(varied)[key] == value for key, value in found.items())
    assert Draws(varied)[2] == found[0, 2]
    assert Draws(varied, seed=1)[2] != found[0, 2]


def test_without_augmentation_nothing_is_drawn() -> None:
    assert Draws()[3] is None
    with pytest.raises(IndexError, match="item 4 of 4"):
        Draws()[1, 4]
