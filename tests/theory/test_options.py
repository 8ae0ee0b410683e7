"""What may be asked of `svf theory`."""

import pytest

from spikevideoformer.theory.options import check_options


def test_accepted() -> None:
    check_options(0, None, [])
    check_options(2**63 - 1, "model", ["a.mp4"])


@pytest.mark.parametrize(
    ("seed", "model", "inputs", "message"),
    [
        (-1, None, [], "from 0 to"),
        (2**63, None, [], "from 0 to"),
        (0, "model", [], "at least one"),
        (0, None, ["a.mp4"], "--model FOLDER a.mp4"),
    ],
)
def test_refused(seed: int, model: str | None, inputs: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_options(seed, model, inputs)
