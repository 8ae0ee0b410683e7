"""The simulated event camera against cases that can be worked out by hand, and on real clips."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from spikevideoformer.events.camera import EventSimulator, log_light
from spikevideoformer.events.spec import EventCamera
from spikevideoformer.events.stream import EventStream, joined

IDEAL = EventCamera(threshold_noise=0.0)


def grey(values: Any) -> np.ndarray:
    """RGB pictures [T, H, W, 3] of these grey bytes [T, H, W]."""
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, axis=-1)


def log_of(values: Any, camera: EventCamera = IDEAL) -> np.ndarray:
    """Log light of grey bytes, by the definition of sRGB."""
    share = np.asarray(values) / 255
    light = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return np.log(camera.log_eps + light)


def times(frames: np.ndarray, rate_hz: float = 10.0) -> list[float]:
    return [i / rate_hz for i in range(len(frames))]


def net(events: EventStream) -> np.ndarray:
    """Positive minus negative events of each pixel, [H, W]."""
    sums = np.zeros((events.height, events.width))
    np.add.at(sums, (events.y, events.x), np.where(events.polarity, 1, -1))
    return sums


def columns(events: EventStream) -> tuple[list[Any], ...]:
    return tuple(a.tolist() for a in (events.t_s, events.x, events.y, events.polarity))


def simulate_events(
    frames: Any, times_s: list[float], camera: EventCamera | None = None
) -> EventStream:
    """All events of a video in one stream."""
    simulator = EventSimulator(camera or EventCamera())
    return joined([simulator.step(f, time_s) for f, time_s in zip(frames, times_s, strict=True)])


class TestLight:
    def test_of_greys_is_the_curve_of_srgb(self) -> None:
        every = np.arange(256)
        np.testing.assert_allclose(log_light(grey([[every]])[0], 0.01)[0], log_of(every))

    def test_weighs_colours(self) -> None:
        red, green, blue, white = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
        light = np.exp(log_light(np.array([[red, green, blue, white]], np.uint8), 0.01)) - 0.01
        np.testing.assert_allclose(light[0], [0.2126, 0.7152, 0.0722, 1.0])

    def test_rounding_of_a_picture_fires_nothing(self) -> None:
        """What the documentation of `log_eps` says."""
        assert np.diff(log_of(np.arange(256))).max() < 0.04


class TestRamp:
    def test_gives_evenly_spaced_events(self) -> None:
        frames = grey([[[50]], [[200]]])
        events = simulate_events(frames, [1.0, 3.0], IDEAL)
        change = float(log_of(200) - log_of(50))
        assert len(events) == int(change / 0.2)
        assert events.polarity.all()
        want = 1 + 2 * 0.2 / change * np.arange(1, len(events) + 1)
        np.testing.assert_allclose(events.t_s, want)

    def test_remembers_its_level_across_pictures(self) -> None:
        """Many small steps, none of which reaches the threshold, fire as one large one does."""
        values = np.arange(50, 201)
        assert np.diff(log_of(values)).max() < 0.2
        events = simulate_events(grey(values[:, None, None]), times(values), IDEAL)
        change = log_of(values) - log_of(50)
        assert len(events) == int(change[-1] / 0.2)
        levels = 0.2 * np.arange(1, len(events) + 1)
        np.testing.assert_allclose(events.t_s, np.interp(levels, change, times(values)))

    def test_falling_light_gives_negative_events(self) -> None:
        events = simulate_events(grey([[[200]], [[50]]]), [0.0, 1.0], IDEAL)
        assert len(events) == int((log_of(200) - log_of(50)) / 0.2)
        assert not events.polarity.any()

    def test_a_pixel_is_deaf_after_an_event(self) -> None:
        frames = grey([[[50]], [[200]]])
        every = simulate_events(frames, [0.0, 1.0], IDEAL).t_s
        spacing = every[1] - every[0]
        camera = EventCamera(threshold_noise=0.0, refractory_s=2.5 * spacing)
        deaf = simulate_events(frames, [0.0, 1.0], camera).t_s
        np.testing.assert_array_equal(deaf, every[::3])

    def test_changes_at_one_moment(self) -> None:
        events = simulate_events(grey([[[50]], [[200]]]), [1.0, 1.0], IDEAL)
        assert set(events.t_s) == {1.0}


class TestEdge:
    def test_moves_from_pixel_to_pixel(self) -> None:
        """A bright edge that enters one column more at each picture, from the left."""
        W, rate_hz = 8, 20.0
        frames = grey([[[200] * i + [50] * (W - i)] * 2 for i in range(W + 1)])
        events = simulate_events(frames, times(frames, rate_hz), IDEAL)
        each = int((log_of(200) - log_of(50)) / 0.2)
        assert (net(events) == each).all()
        # The edge crosses column x between pictures x and x + 1.
        assert (events.t_s > events.x / rate_hz).all()
        assert (events.t_s <= (events.x + 1) / rate_hz).all()

    def test_comes_when_the_true_edge_does(self) -> None:
        """Of an edge of a quarter pixel a picture, events are on time to within one picture."""
        W, rate_hz, speed = 6, 40.0, 10.0  # pixels a second
        dark, bright = 0.05, 0.6
        moments = np.arange(25) / rate_hz
        cover = np.clip(speed * moments[:, None] - np.arange(W), 0, 1)  # [T, W]
        light = dark + (bright - dark) * cover
        bytes_ = np.round(255 * (1.055 * light ** (1 / 2.4) - 0.055))[:, None]
        events = simulate_events(grey(bytes_), moments.tolist(), IDEAL)
        start = log_of(bytes_[0, 0, 0])
        for x in range(W):
            t_s = events.t_s[events.x == x]
            levels = start + 0.2 * np.arange(1, len(t_s) + 1)
            true = (x + (np.exp(levels) - 0.01 - dark) / (bright - dark)) / speed
            assert len(t_s) == int((log_of(bytes_[-1, 0, 0]) - start) / 0.2)
            np.testing.assert_allclose(t_s, true, atol=1 / rate_hz)
            assert np.abs(t_s - true).mean() < 0.25 / rate_hz


class TestProperties:
    def test_still_video_gives_none(self) -> None:
        picture = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
        assert len(simulate_events([picture] * 20, times(np.zeros(20)), EventCamera())) == 0

    @pytest.mark.parametrize("bright", [16, 38, 41, 73, 74, 200])
    def test_a_pixel_that_stays_a_threshold_away_is_silent(self, bright: int) -> None:
        """Rounding decides whether the last level is met at once; it is not met later."""
        levels = log_light(grey([[0, bright]]), 0.01)[0]
        camera = EventCamera(threshold_noise=0.0, threshold=float(levels[1] - levels[0]) / 13)
        events = simulate_events(grey([[[0]], [[bright]], [[bright]]]), [0.0, 1.0, 2.0], camera)
        assert len(events) in (12, 13)
        assert (events.t_s <= 1).all()

    @given(
        arrays.arrays(np.uint8, st.tuples(st.integers(1, 6), st.just(2), st.just(3), st.just(3))),
        st.sampled_from([0.05, 0.2, 0.7]),
    )
    def test_events_add_up_to_the_change_of_light(
        self, frames: np.ndarray, threshold: float
    ) -> None:
        camera = EventCamera(threshold_noise=0.0, threshold=threshold)
        events = simulate_events(frames, times(frames), camera)
        change = log_light(frames[-1], 0.01) - log_light(frames[0], 0.01)
        assert (np.abs(threshold * net(events) - change) < threshold + 1e-9).all()
        assert ((events.t_s >= 0) & (events.t_s <= times(frames)[-1])).all()

    @given(arrays.arrays(np.uint8, (2, 2, 3, 3)))
    def test_time_reversal_turns_the_sign(self, frames: np.ndarray) -> None:
        forth = simulate_events(frames, [0.0, 1.0], IDEAL)
        back = simulate_events(frames[::-1], [0.0, 1.0], IDEAL)
        # Of a change within rounding of a whole number of thresholds either number may come.
        assert (np.abs(net(forth) + net(back)) <= 1).all()
        assert abs(len(forth) - len(back)) <= 1

    def test_reversal_of_a_longer_video(self) -> None:
        """The level that a pixel starts from differs then, by less than a threshold."""
        frames = np.random.default_rng(1).integers(0, 256, (9, 5, 6, 3), np.uint8)
        forth = simulate_events(frames, times(frames), IDEAL)
        back = simulate_events(frames[::-1], times(frames), IDEAL)
        assert (np.abs(net(forth) + net(back)) <= 1).all()
        assert len(forth) == pytest.approx(len(back), rel=0.05)

    def test_noise_is_that_of_the_seed(self) -> None:
        frames = np.random.default_rng(0).integers(0, 256, (4, 6, 7, 3), np.uint8)

        def events(**kwargs: Any) -> tuple[list[Any], ...]:
            return columns(simulate_events(frames, times(frames), EventCamera(**kwargs)))

        assert events(seed=1) == events(seed=1)
        assert events(seed=1) != events(seed=2)
        assert events(seed=1, threshold_noise=0.0) == events(seed=2, threshold_noise=0.0)

    def test_noise_is_one_threshold_a_pixel_and_polarity(self) -> None:
        """Fast ramps up and down: the counts of a pixel tell its thresholds."""
        frames = grey(np.array([0, 255, 0])[:, None, None] * np.ones((40, 40), int))
        events = simulate_events(frames, times(frames), EventCamera(threshold_noise=0.03))
        change = float(log_of(255) - log_of(0))
        for positive in (True, False):
            kept = events.polarity == positive
            number = np.zeros((40, 40))
            np.add.at(number, (events.y[kept], events.x[kept]), 1)
            estimate = change / (number + 0.5)
            assert estimate.mean() == pytest.approx(0.2, abs=0.01)
            assert estimate.std() == pytest.approx(0.03, abs=0.01)


class TestRefused:
    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"threshold": 0.0}, "threshold must be at least 0.01, got 0.0"),
            ({"threshold": float("nan")}, "threshold must be at least 0.01, got nan"),
            ({"threshold_noise": -0.1}, "threshold_noise must be at least 0, got -0.1"),
            ({"refractory_s": float("inf")}, "refractory_s must be at least 0, got inf"),
            ({"log_eps": 0.0}, "log_eps must be above 0, got 0.0"),
            ({"seed": -1}, "seed must be at least 0, got -1"),
        ],
    )
    def test_camera(self, kwargs: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            EventCamera(**kwargs)

    def test_pictures_and_times(self) -> None:
        frames = grey(np.zeros((2, 3, 4)))
        with pytest.raises(ValueError, match=r"must not fall: got 0\.5 s after 1\.0 s"):
            simulate_events(frames, [1.0, 0.5])
        with pytest.raises(ValueError, match="timestamp_s must be a finite number, got nan"):
            simulate_events(frames, [1.0, float("nan")])
        with pytest.raises(ValueError, match=r"one size: got \(3, 3\) after \(3, 4\)"):
            simulate_events([frames[0], frames[0, :, :3]], [0.0, 1.0])
        with pytest.raises(ValueError, match=r"uint8 RGB \[H, W, 3\], got uint8 \[0, 4, 3\]"):
            simulate_events([frames[0, :0]], [0.0])
