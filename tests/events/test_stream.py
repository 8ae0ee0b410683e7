"""Streams of events and event frames; and what is refused in which words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikevideoformer.events.spec import EventChannels
from spikevideoformer.events.stream import (
    EventAccumulator,
    EventError,
    EventStream,
    read_packed_frames,
)

from .streams import ROWS, assert_same, saved, stream


class TestStream:
    def test_holds_typed_arrays(self) -> None:
        events = stream()
        assert [getattr(events, n).dtype for n in ("t_s", "x", "y", "polarity")] == [
            np.float64,
            np.int16,
            np.int16,
            np.bool_,
        ]
        assert len(events) == 4
        assert events.polarity.tolist() == [True, False, True, False]
        assert repr(events) == "EventStream(4 events, 0.000-2.000 s, [H=2, W=4])"

    @pytest.mark.parametrize(
        "polarity",
        [
            np.array([True, False, True, False]),
            np.array([1, -1, 1, -1], np.int8),
            np.array([1, 0, 1, 0], np.uint8),
        ],
    )
    def test_takes_polarity_as_cameras_write_it(self, polarity: np.ndarray) -> None:
        assert_same(stream(polarity=polarity), stream())

    def test_polarity_of_one_kind_only(self) -> None:
        assert stream(polarity=np.ones(4, bool)).polarity.all()
        assert not stream(polarity=-np.ones(4)).polarity.any()
        assert not stream(polarity=np.zeros(4)).polarity.any()

    def test_may_be_empty(self) -> None:
        assert len(stream([])) == 0
        assert repr(stream([])) == "EventStream(0 events, [H=2, W=4])"

    @pytest.mark.parametrize(
        ("replaced", "message"),
        [
            ({"t_s": np.array([0, 2, 1, 3])}, r"event 2 \(from 0\): time 1, before that of"),
            ({"t_s": np.array([0, np.nan, 1, 3])}, r"event 1 .*t is nan, not a finite number"),
            ({"t_s": np.array([0, 1, 2, np.inf])}, r"event 3 .*t is inf"),
            ({"x": np.array([0, 4, 0, 0])}, r"event 1 .*x is 4, outside of 0 to 3"),
            ({"x": np.array([0, 1e300, 0, 0])}, r"x is 1e\+300, outside"),
            ({"y": np.array([0, 0, -1, 0])}, r"event 2 .*y is -1, outside of 0 to 1"),
            ({"y": np.array([0, 0.5, 0, 0])}, r"y is 0.5, not a whole number"),
            ({"y": np.array([0, np.nan, 0, 0])}, r"y is nan"),
            ({"polarity": np.array([0, 1, 2, 0])}, r"event 2 .*p is 2; polarity is 1 and 0, or"),
            ({"polarity": np.array([0, 1, -1, 0])}, r"p is -1; polarity"),
            ({"x": np.zeros(3)}, r"t, x, y and p have 4, 3, 4 and 4 values"),
            ({"x": np.zeros((4, 1))}, r"x is float64 \[4, 1\]; give a row"),
            ({"t_s": np.array(["a", "b", "c", "d"])}, r"t is <U1 \[4\]; give a row of numbers"),
            ({"height": 0}, r"height must be 1 to 32767 pixels, got 0"),
            ({"width": 40_000}, r"width must be 1 to 32767 pixels, got 40000"),
            ({"path": Path("a.npy"), "x": np.zeros(3)}, r"^a\.npy: t, x, y and p have"),
        ],
    )
    def test_refuses(self, replaced: dict[str, Any], message: str) -> None:
        with pytest.raises(EventError, match=message):
            stream(**replaced)


class TestPackedFrames:
    @pytest.mark.parametrize("shape", [(3, 5, 4, 2), (1, 3, 3, 8), (2, 4, 4, 9)])
    def test_gives_what_was_packed(self, tmp_path: Path, shape: tuple[int, int, int, int]) -> None:
        T, H, W, C = shape
        frames = np.random.default_rng(0).random(shape) < 0.5
        want = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
        kwargs: Any = {"height": H, "width": W, "channels": C}
        whole = np.packbits(frames.reshape(T, -1), axis=1)
        along = np.packbits(frames, axis=-1)
        for packed, part in (
            (whole, want),
            (along, want),
            (whole[0], want[:1]),
            (along[0], want[:1]),
        ):
            path = saved(tmp_path / "f.npy", np.save, packed)
            assert torch.equal(read_packed_frames(path, **kwargs), part)

    def test_npz(self, tmp_path: Path) -> None:
        frames = np.eye(8, dtype=np.uint8)
        path = saved(tmp_path / "f.npz", np.savez, a=np.packbits(frames), b=np.zeros(8, np.uint8))
        kwargs: Any = {"height": 8, "width": 8, "channels": 1}
        with pytest.raises(EventError, match="should hold one array; it holds a, b"):
            read_packed_frames(path, **kwargs)
        path = saved(tmp_path / "f.npz", np.savez, np.packbits(frames))
        assert torch.equal(read_packed_frames(path, **kwargs)[0, 0], torch.eye(8))

    @pytest.mark.parametrize(
        ("packed", "message"),
        [
            (np.zeros((2, 3), np.uint8), r"is uint8 \[2, 3\]; frames 2x3x2 are uint8 \[T, 2\] or"),
            (np.zeros((2, 2)), r"is float64 \[2, 2\]"),
            (np.zeros((1, 1, 2, 3, 1), np.uint8), r"is uint8 \[1, 1, 2, 3, 1\]"),
            (np.uint8(3), r"is uint8 \[\]"),
            (np.full((2, 2), 1, np.uint8), "has bits set beyond the frame"),
            (np.array([None]), "holds Python objects"),
        ],
    )
    def test_malformed(self, tmp_path: Path, packed: np.ndarray, message: str) -> None:
        path = saved(tmp_path / "f.npy", np.save, packed)
        with pytest.raises(EventError, match=message):
            read_packed_frames(path, height=2, width=3, channels=2)

    def test_arguments(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="a frame is 2x0x1; each must be at least 1"):
            read_packed_frames(tmp_path / "f.npy", height=2, width=0, channels=1)


def event_frames(
    events: EventStream,
    borders: list[float],
    channels: EventChannels = EventChannels(),  # noqa: B008 - frozen
    *,
    height: int | None = None,
    width: int | None = None,
) -> torch.Tensor:
    height, width = (
        own if asked is None else asked
        for own, asked in ((events.height, height), (events.width, width))
    )
    accumulator = EventAccumulator(borders, channels, height=height, width=width)
    accumulator.add(events)
    return accumulator.frames()


def frames_of(borders: list[float], events: EventStream | None = None, **channels: Any) -> Any:
    return event_frames(
        stream() if events is None else events,
        [float(b) for b in borders],
        EventChannels(**channels),
    )


class TestFrames:
    def test_a_border_belongs_to_the_frame_before_it(self) -> None:
        # Events at 0, 0.25, 0.25 and 2 s; the one at the first border is not inside.
        counts = frames_of([0, 0.25, 1, 2], polarity="merged")
        assert counts.sum((1, 2, 3)).tolist() == [2, 0, 1]
        assert frames_of([-1, 0, 0.2, 1.999], polarity="merged").sum((1, 2, 3)).tolist() == [
            1,
            0,
            2,
        ]

    def test_channels_by_polarity(self) -> None:
        rows = [[1, 0, 0, 1], [2, 0, 0, 1], [3, 0, 0, 0], [4, 1, 0, 0]]
        events = stream(rows, 1, 2)

        def values(polarity: str, mode: str) -> list[Any]:
            return frames_of([0, 1], events, polarity=polarity, mode=mode)[0, :, 0].tolist()

        assert values("both", "count") == [[2, 0], [1, 1]]
        assert values("positive", "count") == [[2, 0]]
        assert values("negative", "count") == [[1, 1]]
        assert values("signed", "count") == [[1, -1]]
        assert values("merged", "count") == [[3, 1]]
        assert values("both", "binary") == [[1, 0], [1, 1]]
        assert values("signed", "binary") == [[1, -1]]
        assert values("merged", "voxel") == [[3, 1]]

    def test_bins_of_counts_are_parts_of_the_stretch(self) -> None:
        events = stream([[t * 1e6, 0, 0, float(t != 3)] for t in (0.5, 1, 1.5, 2, 3, 4)], 1, 1)
        frames = frames_of([0, 2, 4], events, bins=2)
        assert frames.shape == (2, 4, 1, 1)
        # positive in (0, 1] and (1, 2], then negative
        assert frames[..., 0, 0].tolist() == [[2, 2, 0, 0], [0, 1, 1, 0]]

    def test_voxels_share_an_event_by_its_time(self) -> None:
        events = stream([[t * 1e6, 0, 0, 1] for t in (0.25, 1, 2)], 1, 1)
        frames = frames_of([0, 2], events, polarity="merged", mode="voxel", bins=3)
        # Bins stand at 0, 1 and 2 s.
        assert frames[0, :, 0, 0].tolist() == [0.75, 1.25, 1.0]

    def test_smaller_frames_keep_every_event(self) -> None:
        rows = [[1, x, y, 1] for y in range(5) for x in range(6)]
        frames = event_frames(stream(rows, 5, 6), [0.0, 1.0], height=2, width=3)
        assert frames[0, 0].tolist() == [[6, 6, 6], [4, 4, 4]]

    @given(
        times=st.lists(st.integers(-2, 10), max_size=30),
        cuts=st.sets(st.integers(0, 8), min_size=2),
        polarity=st.sampled_from(["both", "merged"]),
        mode=st.sampled_from(["count", "voxel"]),
        bins=st.integers(1, 5),
        seed=st.integers(0, 99),
    )
    def test_every_event_inside_counts_once(
        self, times: list[int], cuts: set[int], polarity: str, mode: str, bins: int, seed: int
    ) -> None:
        draw = np.random.default_rng(seed).integers(0, 4, (3, len(times)))
        rows = np.stack([np.sort(times) * 1e6, draw[0], draw[1] % 2, draw[2] % 2], axis=1)
        borders = [float(cut) for cut in sorted(cuts)]
        frames = frames_of(borders, stream(rows), polarity=polarity, mode=mode, bins=bins)
        for frame, start, end in zip(frames, borders[:-1], borders[1:], strict=True):
            inside = rows[(rows[:, 0] > start * 1e6) & (rows[:, 0] <= end * 1e6)]
            per_pixel = frame.sum(0)
            want = torch.zeros(2, 4)
            for _, x, y, _ in inside:
                want[int(y), int(x)] += 1
            assert torch.allclose(per_pixel, want, atol=1e-5)
            if polarity == "both":
                assert frame[:bins].sum() == pytest.approx(inside[:, 3].sum(), abs=1e-4)
            if mode == "count":
                assert torch.equal(per_pixel, want)

    @given(st.integers(0, 4), st.sampled_from(["count", "voxel", "binary"]))
    def test_pieces_add_up(self, cut: int, mode: Any) -> None:
        channels = EventChannels(mode=mode, bins=2)
        accumulator = EventAccumulator([0.0, 1.0, 2.0], channels, height=2, width=4)
        accumulator.add(stream(ROWS[:cut]))
        before = accumulator.frames()
        accumulator.add(stream(ROWS[cut:]))
        assert torch.equal(before, event_frames(stream(ROWS[:cut]), [0.0, 1.0, 2.0], channels))
        assert torch.equal(accumulator.frames(), event_frames(stream(), [0.0, 1.0, 2.0], channels))

    @pytest.mark.parametrize(
        ("borders", "message"),
        [
            ([0.0], r"borders_s must be at least two rising times, got \[0.0\]"),
            ([0.0, 1.0, 1.0], "rising"),
            ([0.0, float("nan")], "rising"),
        ],
    )
    def test_borders_rise(self, borders: list[float], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            frames_of(borders)

    def test_frames_are_no_larger_than_the_sensor(self) -> None:
        with pytest.raises(EventError, match="has 2x4 pixels, fewer than event frames of 2x5"):
            event_frames(stream(), [0.0, 1.0], width=5)
        with pytest.raises(ValueError, match="event frames are 0x4"):
            event_frames(stream(), [0.0, 1.0], height=0)

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"polarity": "all"}, "polarity must be one of both, positive, .*got 'all'"),
            ({"mode": "sum"}, "mode must be one of binary, count, voxel, got 'sum'"),
            ({"bins": 0}, "bins must be at least 1, got 0"),
        ],
    )
    def test_channels_check_themselves(self, kwargs: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            EventChannels(**kwargs)

    def test_channels_say_how_many_they_are(self) -> None:
        assert EventChannels().count == 2
        assert EventChannels(polarity="signed", mode="voxel", bins=5).count == 5
        assert EventChannels(bins=3).count == 6
