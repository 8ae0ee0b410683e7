"""Moments at which stretches are looked at."""

import pytest
import torch

from spikevideoformer.video.sampling import multi_clip_times, window_times
from spikevideoformer.video.spec import ClipSpec


def test_window_times() -> None:
    spread = ClipSpec(frames=4, size=32)
    assert window_times(spread, 1.0, 3.0) == [1.25, 1.75, 2.25, 2.75]
    rated = ClipSpec(frames=4, size=32, frame_rate_hz=10.0)
    assert window_times(rated, 0.0, 1.0) == pytest.approx([0.35, 0.45, 0.55, 0.65])
    assert window_times(rated, 0.0, 0.1) == pytest.approx([0.05, 0.15, 0.25, 0.35])
    times = [
        window_times(rated, 0.0, 1.0, jitter=1.0, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert times[0] == times[1] != times[2]
    for spec in (spread, rated):
        generator = torch.Generator().manual_seed(0)
        for _ in range(100):
            drawn = window_times(spec, 2.0, 3.0, jitter=1.0, generator=generator)
            assert drawn == sorted(drawn)
            assert drawn[0] >= 2.0
            assert drawn[-1] <= 3.0
    for wrong in ((2.0, 2.0), (-1.0, 2.0), (0.0, float("nan"))):
        with pytest.raises(ValueError, match="start_s < end_s"):
            window_times(spread, *wrong)
    with pytest.raises(ValueError, match="Generator"):
        window_times(spread, 0.0, 1.0, jitter=0.5)


def test_several_clips_cover_a_stretch() -> None:
    rated = ClipSpec(frames=2, size=32, frame_rate_hz=2.0)
    assert multi_clip_times(rated, 0.0, 5.0, clips=1) == [window_times(rated, 0.0, 5.0)]
    assert multi_clip_times(rated, 0.0, 5.0, clips=2) == [[1.25, 1.75], [3.25, 3.75]]
    spread = ClipSpec(frames=2, size=32)
    assert multi_clip_times(spread, 0.0, 4.0, clips=2) == [[0.5, 2.5], [1.5, 3.5]]
    assert multi_clip_times(spread, 0.0, 4.0, clips=1) == [window_times(spread, 0.0, 4.0)]
