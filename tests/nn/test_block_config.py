"""The settings of blocks refuse what no block is made of, and need no torch."""

import subprocess
import sys

import pytest

from spikevideoformer.nn.block_config import E_SPIKEFORMER_LARGE, BlockConfig


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"separable": "deep"}, "expected real or spiking or none"),
        ({"token_conv": "deep"}, "expected none or spiking or pair"),
        ({"projection": "dense"}, "expected rep or plain or pair"),
        ({"kernel_size": 4}, "an odd integer"),
        ({"token_kernel_size": True}, "a whole number"),
        ({"value_ratio": 0, "projection": "plain"}, "at least 1 and at most 64"),
        ({"value_ratio": 2}, "belongs to projections"),
        ({"pair_width": 0}, "a number above 0"),
        ({"pair_width": None}, "expected a number"),
        ({"dot_scale": "small"}, "expected a number, or null"),
        ({"conv_bias": 1}, "true or false"),
        ({"layer_scale": None}, "true or false"),
    ],
)
def test_wrong_values_are_refused_in_one_line(values, says):
    with pytest.raises(ValueError, match=says):
        BlockConfig(**values)


def test_channels_between_two_convolutions():
    assert [E_SPIKEFORMER_LARGE.between_pair(c) for c in (28, 27, 1)] == [42, 40, 1]
    for channels in range(1, 2000):  # a ratio read off a file gives its width again
        between = channels * 3 // 2 or 1
        config = BlockConfig(pair_width=between / channels)
        assert config.between_pair(channels) == between


def test_it_needs_no_torch():
    code = """
import sys
from spikevideoformer.nn.block_config import BlockConfig
BlockConfig()
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
