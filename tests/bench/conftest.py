"""SpikingJelly is no dependency: what compares with it is skipped, visibly, where it is absent."""

import pytest

from spikevideoformer.bench.baselines import BaselineMissingError, spikingjelly_version


@pytest.fixture(scope="session")
def spikingjelly() -> str:
    """Its version."""
    try:
        return spikingjelly_version()
    except BaselineMissingError as error:
        pytest.skip(str(error))
