"""Attention of a whole network over the number of frames: closed form and counter agree."""

from pathlib import Path

import pytest

from spikevideoformer.energy.growth import (
    attention_growth,
    counted_growth,
    format_growth,
    plot_growth,
)
from spikevideoformer.models.config import preset

SMALL = {"frames": (2, 4, 8), "tokens_per_frame": 10, "value_rate": 0.25}


def test_counted_is_the_closed_form() -> None:
    config = preset("svf_nano")
    assert counted_growth(config, **SMALL) == attention_growth(config, **SMALL)


@pytest.mark.slow
def test_counted_is_the_closed_form_for_the_published_model() -> None:
    """14 x 14 tokens a frame, 8 to 128 frames."""
    config = preset("svf_15m")
    for counted, closed in zip(counted_growth(config), attention_growth(config), strict=True):
        # the rate of V is a whole number of spikes
        assert counted.spiking_additions == pytest.approx(closed.spiking_additions, rel=1e-6)
        assert counted.softmax_macs == closed.softmax_macs
        assert counted.softmax_exponentials == closed.softmax_exponentials


def test_spiking_grows_as_frames_and_softmax_as_their_square() -> None:
    first, *others = attention_growth(preset("svf_15m"))
    for point in others:
        times = point.frames / first.frames
        assert point.spiking_additions == pytest.approx(times * first.spiking_additions, rel=1e-12)
        assert point.softmax_macs == times**2 * first.softmax_macs


def test_closed_form_by_hand() -> None:
    (point,) = attention_growth(preset("svf_15m"), frames=(8,), value_rate=0.2)
    N = 8 * 14 * 14
    # six blocks of 256 channels and two of 360, in 8 heads
    assert point.spiking_additions == pytest.approx(N * 1.2 * (6 * 256 * 32 + 2 * 360 * 45))
    assert point.softmax_macs == 2 * N * N * (6 * 256 + 2 * 360)
    assert point.softmax_exponentials == 8 * 8 * N * N


def test_picture_and_table(tmp_path: Path) -> None:
    points = attention_growth(preset("svf_nano"), **SMALL)
    plot_growth(points, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert len(format_growth(points).splitlines()) == 4


@pytest.mark.parametrize("wrong", [{"value_rate": 1.5}, {"frames": ()}, {"tokens_per_frame": 0}])
def test_wrong_arguments(wrong) -> None:
    with pytest.raises(ValueError, match=r"give a firing rate|needs at least one"):
        attention_growth(preset("svf_nano"), **wrong)
