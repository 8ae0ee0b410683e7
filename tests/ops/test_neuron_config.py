"""The settings of a neuron need no torch; what they accept is tested in `test_lif`."""

import subprocess
import sys

from spikevideoformer.ops import lif, neuron_config, surrogate


def test_it_is_the_same_beside_the_neuron() -> None:
    assert lif.NeuronConfig is neuron_config.NeuronConfig
    assert surrogate.SURROGATES is neuron_config.SURROGATES
    assert set(neuron_config.DEFAULT_ALPHA) == set(neuron_config.SURROGATES)


def test_presets_are_known_without_torch() -> None:
    code = """
import sys
from spikevideoformer.models.config import preset
assert preset("svf_nano").neuron.spiking
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
