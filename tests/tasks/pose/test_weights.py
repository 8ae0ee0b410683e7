"""Weights of losses; what they do is tested beside the losses."""

import math
from typing import get_args

import pytest

from spikevideoformer.tasks.pose.spec import PoseLossWeights
from spikevideoformer.tasks.segmentation.metrics import class_weights_from_pixels
from spikevideoformer.tasks.segmentation.spec import Weighting


@pytest.mark.parametrize("value", [-1.0, math.inf, math.nan])
def test_a_weight_is_a_number_from_0_up(value: float) -> None:
    with pytest.raises(ValueError, match="shape must be a number from 0 up"):
        PoseLossWeights(shape=value)


@pytest.mark.parametrize("scheme", get_args(Weighting))
def test_every_scheme_is_known_to_the_loss(scheme: Weighting) -> None:
    class_weights_from_pixels([1, 2], scheme)
