"""Times of packets on one line, where a file's own clock starts again or jumps."""

from __future__ import annotations

from typing import Any

import av

JUMP_S = 10.0
"""Longest pause of all streams of a broadcast that is believed: FFmpeg's dts_delta_threshold."""
LEAP_S = 60.0
"""Longest pause of another file that is believed where its clock later falls back."""

_BROADCAST = frozenset({"mpegts", "mpeg"})
"""Containers whose clock may jump where no time passes. Source: ISO/IEC 13818-1, 2.4.3.5."""


def is_broadcast(container: str) -> bool:
    """Whether a container, by FFmpeg's name, may jump with its clock and announces no length."""
    return container in _BROADCAST


class ClockError(Exception):
    """The times in a file contradict each other."""


class Clock:
    """Moves the times of packets so that joined recordings follow each other.

    Decoding times of a stream never fall, nor the times at which its key frames are shown. Where
    they do, a recording was joined, and it begins where the one before ends. In broadcasts a jump
    ahead of all streams is taken out as well: a pause in one stream is bridged by another, such as
    sound, and stays.

    Args:
        container: FFmpeg's name of the format.
        picture_s: how long a picture is shown, as a rule; clocks that fall by less than two of them
            are only untidy.
    """

    def __init__(self, container: str, picture_s: float) -> None:
        self._jumps = is_broadcast(container)
        self._keys_only = container == "matroska,webm"  # it stores no decoding times
        self._untidy_s = 2 * picture_s
        self._picture_s = picture_s
        self._move_s = self._move_before_s = 0.0
        self._behind: set[int] = set()  # streams that have not yet come to the last move
        self.moved_s: dict[int, float] = {}  # by how much the last packet of each stream was moved
        self._last_s: dict[int, float] = {}  # when the last packet of each stream is due, moved
        self._end_s: float | None = None  # where the last packets end: as they are due, ...
        self._shown_end_s = 0.0  # ... and as they are shown
        self._leap: tuple[float, float] | None = None

    def set(self, packet: av.Packet[Any]) -> None:
        """Correct the times of the next packet of the file.

        Raises:
            ClockError: its clock leaps ahead and comes back.
        """
        if not packet.size:
            return
        index = packet.stream_index
        due = packet.pts if self._keys_only else _due(packet)
        move_s = self._move_before_s if index in self._behind else self._move_s
        if due is not None and (packet.is_keyframe or not self._keys_only):
            move_s = self._move_of(packet, float(due * packet.time_base))
        self.moved_s[index] = move_s
        if move_s:
            ticks = round(move_s / packet.time_base)
            packet.dts = None if packet.dts is None else packet.dts + ticks
            packet.pts = None if packet.pts is None else packet.pts + ticks
        shown = packet.dts if packet.pts is None else packet.pts
        duration_s = float((packet.duration or 0) * packet.time_base) or self._picture_s
        if due is not None:
            due_s = float(due * packet.time_base) + move_s
            self._last_s[index] = max(due_s, self._last_s.get(index, due_s))
            self._end_s = max(due_s + duration_s, self._end_s or due_s)
        if shown is not None:
            shown_s = float(shown * packet.time_base) + duration_s
            self._shown_end_s = max(self._shown_end_s, shown_s)

    def _move_of(self, packet: av.Packet[Any], own_s: float) -> float:
        """By how much a packet is moved that is due at a time of the file's own, in seconds."""
        if self._end_s is None:
            return 0.0
        index, move_s = packet.stream_index, self._move_s
        last_s = self._last_s.get(index)
        if index in self._behind:
            expected_s = self._end_s if last_s is None else last_s
            ways = (self._move_s, self._move_before_s)
            move_s = min(ways, key=lambda way: abs(own_s + way - expected_s))
        falls = last_s is not None and own_s + move_s < last_s - self._untidy_s
        ahead_s = own_s + move_s - self._end_s
        if falls and self._leap:
            before_s, after_s = self._leap
            leap = f"from {before_s:.2f} s to {after_s:.2f} s"
            raise ClockError(f"its clock jumps {leap}, and later back")
        if falls or (self._jumps and ahead_s > JUMP_S):
            self._move_before_s, self._behind = move_s, set(self._last_s)
            if packet.is_keyframe and packet.pts is not None:
                self._move_s = self._shown_end_s - float(packet.pts * packet.time_base)
            else:
                self._move_s = self._end_s - own_s
            move_s = self._move_s
        elif ahead_s > LEAP_S:
            self._leap = (self._end_s, own_s + move_s)
        if move_s == self._move_s:
            self._behind.discard(index)
        return move_s


def _due(packet: av.Packet[Any]) -> int | None:
    """When a packet is decoded; where FFmpeg carried that over a jump by counting, when shown."""
    dts, pts = packet.dts, packet.pts
    if dts is not None and pts is not None and abs(pts - dts) * packet.time_base > JUMP_S:
        return pts
    return dts
