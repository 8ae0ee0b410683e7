"""MPEG-1 and MPEG-2 pictures are numbered within their group: numbers that lack are lost pictures.

Source: ISO/IEC 13818-2, 6.3.8 (time code of a group), 6.3.9 (temporal reference) and 6.3.10
(repeated fields).
"""

from __future__ import annotations

import math
from itertools import pairwise

from spikevideoformer.video.matroska import StructureError

_PICTURE, _EXTENSION, _GROUP = 0x00, 0xB5, 0xB8
_CODING = 8  # the extension of a picture that says how its fields are shown
_SEQUENCE = 0xB3
_RATES_HZ = {1: 24, 2: 24, 3: 25, 4: 30, 5: 30, 6: 50, 7: 60, 8: 60}
"""By which time codes count, of the codes in the head of a sequence (6.3.3)."""
_B = 3  # a picture that others do not refer to
_NUMBERS = 1024
_CUT_S = 1.0
"""Where more is missing, by time code and clock alike, it was cut out rather than lost."""


class MpegGroups:
    """Counts the pictures of one stream, packet by packet in the order of decoding.

    Args:
        rate_hz: pictures a second, as time codes count.
    """

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._nominal_hz = round(rate_hz)  # 30 where 29.97 pictures a second are shown
        self._cut = False  # whether the group lost the pictures that its first ones refer to
        self._numbers: dict[int, int] | None = None  # kinds by number; None before the first group
        self._number = 0  # of the last picture
        self._first = True  # whether this is the file's first group
        self._begin = 0  # of the first picture of the group
        self._code: int | None = None  # time code of the group, in pictures
        self._repeats = False  # whether a picture of the group is shown longer than others
        self._lost = 0  # pictures since the group before that lack by the time codes
        self._apart = 0  # pictures from the group before to this one, by the time codes
        self._begins = False  # whether the packet that comes begins a group
        self._group_due_s: float | None = None  # when its first packet was due
        self._due_s: float | None = None  # when the last packet was due

    def take(self, data: bytes, due_s: float | None) -> None:
        """Look at the heads in one packet, a picture as a rule, and at when it is decoded.

        Raises:
            StructureError: pictures between those that came are missing.
        """
        at = data.find(b"\0\0\1")
        while 0 <= at < len(data) - 7:
            code = data[at + 3]
            if code == _SEQUENCE:
                self._nominal_hz = _RATES_HZ.get(data[at + 7] & 15, self._nominal_hz)
            elif code == _GROUP:
                self._end_group(data[at + 4 : at + 8])
            elif code == _PICTURE and self._numbers is not None:
                number = data[at + 4] << 2 | data[at + 5] >> 6
                # Fields of one picture follow each other.
                again = number in self._numbers and number != self._number
                if again and len(self._numbers) < _NUMBERS // 2:
                    raise StructureError(f"picture {number} of a group comes twice")
                self._number = number
                self._begin = self._begin if self._numbers else number
                self._numbers[number] = data[at + 5] >> 3 & 7
            elif code == _EXTENSION and data[at + 4] >> 4 == _CODING:
                self._repeats |= bool(data[at + 7] & 2)
            at = data.find(b"\0\0\1", at + 3)
        if due_s is not None:
            # The clock tells a loss where it stands next: behind it, or at the group that follows.
            pause = self._since(self._due_s, due_s) - 1
            apart = self._since(self._group_due_s, due_s) if self._begins else math.inf
            told = abs(pause - self._lost) < 0.4 or abs(apart - self._apart) < 0.4
            if self._lost and told:
                raise StructureError(f"{self._lost} of the pictures of a group are missing")
            self._due_s = due_s
            if self._begins:
                self._group_due_s, self._begins = due_s, False

    def _since(self, before_s: float | None, due_s: float) -> float:
        """Pictures from one time to another; 1 where the first is not known."""
        return 1.0 if before_s is None else (due_s - before_s) * self._rate_hz

    def end(self) -> None:
        """At the end of a recording, which may lie inside a group; what follows is another one."""
        if self._numbers:
            self._check()
        self._numbers, self._code, self._due_s, self._group_due_s = None, None, None, None
        self._first, self._repeats, self._lost, self._begins = True, False, 0, False

    def _end_group(self, head: bytes) -> None:
        bits = int.from_bytes(head)
        hours, minutes = bits >> 26 & 31, bits >> 20 & 63
        seconds, pictures = bits >> 13 & 63, bits >> 7 & 63
        code = round((hours * 3600 + minutes * 60 + seconds) * self._nominal_hz) + pictures
        if self._numbers == {}:
            raise StructureError("a group without a picture")
        if self._numbers:
            self._check()
            if self._code is not None and not self._repeats:  # films on DVD: 24 pictures as 30
                self._apart = code - self._code
                lost = self._apart - len(self._numbers)
                self._lost = lost if 0 < lost <= _CUT_S * self._rate_hz else 0
            else:
                self._lost = 0
            self._first = False
        self._numbers, self._code, self._repeats, self._begins = {}, code, False, True
        self._cut = bool(bits >> 5 & 1)  # broken_link

    def _check(self) -> None:
        """All numbers must have come."""
        assert self._numbers is not None
        # The first pictures of a recording may refer to those before it, and are not shown.
        begin = self._begin if self._first or self._cut else 0
        upto = max(self._numbers) + 1
        if _B in self._numbers.values():  # a cut may lie before those that the last anchor is for
            anchors = sorted(n for n, kind in self._numbers.items() if kind != _B)
            upto = anchors[-2] + 1 if len(anchors) > 1 else 0
        present = [begin - 1, *sorted(n for n in self._numbers if begin <= n < upto)]
        if len(present) >= _NUMBERS // 2:
            return  # so long a group counts round
        for before, number in pairwise(present):
            if number > before + 1:
                raise StructureError(
                    f"pictures {before + 1} to {number - 1} of a group are missing"
                )
