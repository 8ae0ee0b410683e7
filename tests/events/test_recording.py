"""Recordings of events: every format, how they are told apart, slices, and what is refused."""

import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikevideoformer.events import formats, recording
from spikevideoformer.events.recording import Recording, open_recording
from spikevideoformer.events.spec import EventFiles, is_recording
from spikevideoformer.events.stream import EventError, EventStream, joined

from ..video.malformed import damages
from .streams import ROWS, assert_same, saved, stream

T, X, Y, P = ROWS.T
WANTED = stream()


def everything(recording: Recording) -> EventStream:
    return joined([recording.nothing(), *recording.streams()])


def read(path: Path, **settings: Any) -> EventStream:
    told: dict[str, Any] = {"height": 2, "width": 4, "time_unit": "us"}
    return everything(open_recording(path, EventFiles(**told | settings)))


@pytest.fixture(autouse=True)
def several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are gone through three events at a time, and what is guessed is told each time."""
    monkeypatch.setattr(formats, "_PIECE", 3)
    monkeypatch.setattr(recording, "_SAID", set())


class TestReaders:
    def test_npy_of_four_columns(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "e.npy", np.save, ROWS)
        assert_same(read(path), WANTED)
        assert read(path).path == path

    def test_npy_in_another_order(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "e.npy", np.save, ROWS[:, [1, 2, 0, 3]])
        assert_same(read(path, columns="xytp"), WANTED)

    def test_npy_of_records(self, tmp_path: Path) -> None:
        records = np.zeros(4, [("x", "<u2"), ("y", "<u2"), ("p", "?"), ("t", "<i8"), ("id", "u1")])
        for name, column in zip("txyp", ROWS.T, strict=True):
            records[name] = column
        assert_same(read(saved(tmp_path / "e.npy", np.save, records)), WANTED)

    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_npz_of_one_array(
        self, tmp_path: Path, save: Callable[..., object], order: Any
    ) -> None:
        path = saved(tmp_path / "e.npz", save, np.asarray(ROWS, order=order))
        assert_same(read(path), WANTED)
        records = np.zeros(4, [("p", "i1"), ("t", "<i8"), ("x", "<u2"), ("y", "<u2")])
        for name, column in zip("txyp", ROWS.T, strict=True):
            records[name] = column
        assert_same(read(saved(tmp_path / "f.npz", save, events=records)), WANTED)

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_npz(self, tmp_path: Path, save: Callable[..., object]) -> None:
        columns = dict(zip("txyp", ROWS.T, strict=True))
        assert_same(read(saved(tmp_path / "e.npz", save, **columns, other=0)), WANTED)

    @pytest.mark.parametrize(
        "text",
        [
            "0 0 1 1\n250000 3 0 0\n250000 2 1 1\n2000000 3 1 0\n",
            "# a camera\nx, y, T, p, id\n0,1,0,1,7\n3,0,2.5e5,0,7\n\n2,1,250000,1,7\n3,1,2e6,0,7",
            "0;0;1;1\r\n250000;3;0;-0\r\n250000;2;1;1\r\n2000000;3;1;0\r\n",
            "t\tx\ty\tp\n0\t0\t1\t1\n250000\t3\t0\t-1\n250000\t2\t1\t1\n2000000\t3\t1\t-1\n",
        ],
    )
    @pytest.mark.parametrize("ending", ["csv", "txt"])
    def test_text(self, tmp_path: Path, text: str, ending: str) -> None:
        path = tmp_path / f"e.{ending}"
        path.write_text(text)
        assert_same(read(path), WANTED)

    def test_text_in_another_order(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "e.txt", np.savetxt, ROWS[:, [3, 0, 2, 1]])
        assert_same(read(path, columns="ptyx"), WANTED)

    @pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)])
    def test_units_of_time(self, tmp_path: Path, unit: str, factor: float) -> None:
        path = saved(tmp_path / "e.npy", np.save, ROWS * [factor / 1e6, 1, 1, 1])
        assert_same(read(path, time_unit=unit), WANTED)

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("e.npy", ROWS[::-1], "event 1 .*sort them by time"),
            ("e.npy", ROWS[:0], "holds no events"),
            ("e.npy", ROWS - [1, 0, 0, 0], "begins at time -1, before 0; are the columns in"),
            ("e.npy", ROWS[:, :3], r"is int64 \[4, 3\]; give \[N, 4\]"),
            ("e.npy", ROWS.astype(object), "holds Python objects, which are not loaded"),
            ("e.npy", ROWS.astype(str), "t is <U21"),
            ("e.npy", ROWS + np.array([0, 9, 0, 0]), "x is 9, outside of 0 to 3; give the height"),
            ("e.npy", np.zeros(4, [("t", "f8"), ("x", "i2")]), "holds 't', 'x', no column for y"),
            ("e.npy", b"", "cannot be read"),
            ("e.npy", b"\x93NUMPY\1\0\x10\0{'descr': '<i8'}", "cannot be read"),
            ("e.npz", {"t": [0], "x": [0]}, "holds 't', 'x', no column for y; name them"),
            ("e.npz", {"t": [0, 1], "x": [0], "y": [0], "p": [0]}, "have 2, 1, 1 and 1 values"),
            ("e.npz", {n: np.array([0], object) for n in "txyp"}, "holds Python objects"),
            ("e.npz", {"t": 0, "x": 0, "y": 0, "p": 0}, r"t is int64 \[\]; give a row"),
            ("e.npz", b"PK\3\4 no archive", "cannot be read"),
            ("e.csv", b"", "holds no events"),
            ("e.csv", b"t,x,y,p\n", "holds no events"),
            ("e.csv", b"when,x,y,p\n0,0,0,0\n", "line 1: holds 'when', 'x', 'y', 'p', no column"),
            ("e.csv", b"t,ts,x,y,p\n", "two columns for t"),
            ("e.csv", b"0,0,0,0\n\n1,0,0\n", "line 3 is '1 0 0'; it should be 4 numbers"),
            ("e.csv", b"t,x,y,p\n0,0,0,one\n", "line 2 is '0 0 0 one'; it should be 4"),
            ("e.csv", b"0,0,0,0\n0,nan,0,0\n", "x is nan, not a finite number"),
            ("e.txt", b"0 0 0 0\n\xff\xfe 0 0 0\n", "line 2 is .*; it should be 4 numbers"),
            ("e.txt", b"0 0 0 0 0\n", "line 1 is '0 0 0 0 0'; it should be 4 numbers"),
            ("e.txt", b"0 1_0 0 0\n", "line 1 is '0 1_0 0 0'; it should be 4"),
            ("e.aedat", b"", "events are read from .aedat4 .csv .dat .es"),
        ],
    )
    def test_malformed(self, tmp_path: Path, name: str, content: Any, message: str) -> None:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, dict):
            np.savez(path, **content)
        else:
            np.save(path, content)
        with pytest.raises(EventError, match=message) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: ")

    @pytest.mark.parametrize("name", ["e.npy", "e.npz", "e.csv"])
    def test_a_missing_file(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(EventError, match="does not exist or is no file"):
            read(tmp_path / name)

    def test_arguments(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "e.npy", np.save, ROWS)
        with pytest.raises(ValueError, match=r"events.columns must be t, x, y and p in some order"):
            read(path, columns="txy")

    @pytest.mark.parametrize("ending", ["npy", "npz"])
    def test_damage_gives_a_message_or_events(self, tmp_path: Path, ending: str) -> None:
        """Whatever a file holds, the reader gives events of the sensor or one line."""
        sound = tmp_path / f"sound.{ending}"
        if ending == "npy":
            np.save(sound, ROWS)
        else:
            np.savez_compressed(sound, **dict(zip("txyp", ROWS.T, strict=True)))
        messages = []
        for _, data in damages(sound.read_bytes(), random.Random(ending), 300):
            path = tmp_path / f"broken.{ending}"
            path.write_bytes(data)
            try:
                assert (read(path).x < 4).all()
            except EventError as error:
                messages.append(str(error))
        assert not any("\n" in message for message in messages)
        assert len(messages) > 150


class TestGuesses:
    @pytest.mark.parametrize(
        ("rows", "names", "unit"),
        [
            (ROWS, "txyp", 1e6),
            (ROWS / [1e6, 1, 1, 1], "txyp", 1.0),
            (ROWS, ("ts_us", "x", "y", "pol"), 1e6),
            (ROWS * [1000, 1, 1, 1], ("timestamp[ns]", "x", "y", "on"), 1e9),
            (ROWS // [1000, 1, 1, 1], ("Time (ms)", "X", "Y", "polarity"), 1e3),
        ],
    )
    def test_unit_and_sensor(
        self, tmp_path: Path, rows: np.ndarray, names: Any, unit: float,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        path = saved(tmp_path / "e.npz", np.savez, **dict(zip(names, rows.T, strict=True)))
        with caplog.at_level(logging.WARNING):
            recording = open_recording(path)
            open_recording(saved(tmp_path / "f.npy", np.save, rows[:3]))
        assert recording.per_second == unit
        assert_same(everything(recording), WANTED)
        said = caplog.text
        assert ("times are taken for" in said) == (tuple(names) == tuple("txyp") or unit != 1.0)
        assert said.count("the sensor for 4x2 pixels, its largest coordinates") == 1

    def test_nothing_is_said_of_what_is_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = saved(tmp_path / "e.npz", np.savez, t_us=T, x=X, y=Y, p=P, height=2, width=4)
        assert_same(everything(open_recording(path)), WANTED)
        assert caplog.text == ""

    def test_polarity_has_one_encoding_in_all_pieces(self, tmp_path: Path) -> None:
        mixed = np.concatenate([ROWS[:3], ROWS[3:] * [1, 1, 1, 0] - [0, 0, 0, 1]])
        with pytest.raises(EventError, match="p is 0 and -1 in one file"):
            read(saved(tmp_path / "e.npy", np.save, mixed))
        want = EventStream(t_s=T / 1e6, x=X, y=Y, polarity=2 * P - 1, height=2, width=4)
        assert_same(
            read(saved(tmp_path / "f.npy", np.save, ROWS * [1, 1, 1, 2] - [0, 0, 0, 1])), want
        )

    def test_order_is_that_of_the_file_not_of_a_piece(self, tmp_path: Path) -> None:
        rows = np.concatenate([ROWS, ROWS[:1]])
        with pytest.raises(EventError, match=r"event 4 \(from 0\): time 0, before that of"):
            read(saved(tmp_path / "e.npy", np.save, rows))

    def test_a_frame_may_hold_none(self, tmp_path: Path) -> None:
        none = saved(tmp_path / "e.npz", np.savez, t=T[:0], x=T[:0], y=T[:0], p=T[:0])
        recording = open_recording(none, EventFiles(height=2, width=4), may_be_empty=True)
        assert len(everything(recording)) == 0
        with pytest.raises(EventError, match="holds no events"):
            open_recording(none, may_be_empty=True)  # of what size would its picture be?


class TestSlices:
    def test_each_event_is_in_that_of_its_time(self, tmp_path: Path) -> None:
        recording = open_recording(saved(tmp_path / "e.npy", np.save, ROWS))
        slices = list(recording.slices(4.0))
        assert [len(events) for events in slices] == [1, 2, 0, 0, 0, 0, 0, 0, 1]
        assert len(slices) == recording.count_slices(4.0)
        assert_same(joined(slices), WANTED)
        assert [len(events) for events in recording.slices(4.0, first=1)] == [2, *6 * [0], 1]

    def test_times_count_from_the_first_event(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "e.npy", np.save, ROWS + np.array([2**53, 0, 0, 0]))
        assert_same(read(path), WANTED)  # whole numbers that no float holds


class TestCameras:
    def test_dat(self, tmp_path: Path) -> None:
        path = tmp_path / "e.dat"
        path.write_bytes(dat())
        assert is_recording(path)
        recording = open_recording(path)
        assert (recording.height, recording.width, recording.per_second) == (2, 4, 1e6)
        assert_same(everything(recording), WANTED)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (lambda: dat()[:-3], "ends inside an event; is it cut short"),
            (lambda: dat().replace(b"Version 2", b"Version 1"), "is version 1 with events"),
            (lambda: dat()[:-32], "holds no events"),
            (lambda: b"", "it is cut short"),
        ],
    )
    def test_dat_that_is_damaged(
        self, tmp_path: Path, data: Callable[[], bytes], message: str
    ) -> None:
        path = tmp_path / "e.dat"
        path.write_bytes(data())
        with pytest.raises(EventError, match=message):
            open_recording(path)

    @pytest.mark.parametrize("ending", ["aedat4", "raw", "es"])
    def test_what_faery_writes(self, tmp_path: Path, ending: str) -> None:
        faery = pytest.importorskip("faery")
        events = np.zeros(4, faery.EVENTS_DTYPE)
        for name, column in zip(events.dtype.names, ROWS.T, strict=True):
            events[name] = column
        path = tmp_path / f"e.{ending}"
        faery.events_stream_from_array(events, (4, 2)).to_file(path)
        assert_same(everything(open_recording(path)), WANTED)
        path.write_bytes(path.read_bytes()[:20])
        with pytest.raises(EventError, match=r"cannot be read|holds no events"):
            open_recording(path)

    def test_what_to_install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(formats, "find_spec", lambda _: None)
        path = tmp_path / "e.aedat4"
        path.write_bytes(b"#!AER-DAT4.0\r\n")
        with pytest.raises(EventError, match=r"read by faery; pip install 'spikevideoformer\[ev"):
            open_recording(path)

    def test_other_files_of_these_names(self, tmp_path: Path) -> None:
        path = tmp_path / "e.raw"
        path.write_bytes(b"\0\1\2")
        assert not is_recording(path)


def dat() -> bytes:
    """The events as Prophesee's cameras write them."""
    records = np.zeros(4, [("t", "<u4"), ("place", "<u4")])
    records["t"], records["place"] = T, X | Y << 14 | P << 28
    header = b"% Data file of CD events\n% Version 2\n% Height 2\n% Width 4\n"
    return header + bytes([0x0C, 8]) + records.tobytes()
