"""Pictures that lack in a group are told; cut or joined recordings are not taken for damaged."""

import pytest

from spikevideoformer.video.matroska import StructureError
from spikevideoformer.video.mpeg_groups import MpegGroups

INTRA, PREDICTED, BETWEEN = 1, 2, 3


def picture(number: int, kind: int) -> bytes:
    return b"\0\0\1\0" + bytes([number >> 2, (number & 3) << 6 | kind << 3]) + bytes(4)


def group(pictures: int) -> bytes:
    """A group's head with its time code."""
    seconds, rest = divmod(pictures, 25)
    return b"\0\0\1\xb8" + (seconds << 13 | rest << 7 | 1 << 19).to_bytes(4)


def repeated(packet: bytes) -> bytes:
    """A picture whose first field is shown twice."""
    return packet + b"\0\0\1\xb5\x8f\xff\xf7\x82" + bytes(4)


def take(*packets: tuple[bytes, float]) -> None:
    groups = MpegGroups(25.0)
    for data, due in packets:
        groups.take(data, due / 25)
    groups.end()


FIRST = [(group(0) + picture(2, INTRA), 0), (picture(0, BETWEEN), 1), (picture(1, BETWEEN), 2)]
OPEN = [(group(3) + picture(2, INTRA), 3), (picture(0, BETWEEN), 4), (picture(1, BETWEEN), 5)]


def test_whole_cut_and_joined_recordings() -> None:
    take(*FIRST, *OPEN)
    take(OPEN[0], (group(6) + picture(0, INTRA), 4))  # it begins without what its B pictures need
    take(
        *FIRST,
        (group(3) + picture(0, INTRA), 3),
        (picture(3, PREDICTED), 4),
        (picture(1, BETWEEN), 5),
    )  # it ends
    take(*FIRST, (group(500) + picture(0, INTRA), 3))  # twenty seconds cut out
    take(*FIRST, (group(8) + picture(0, INTRA), 3), (picture(1, PREDICTED), 4))  # wrong time codes
    take(
        (picture(7, PREDICTED), 0), (picture(9, PREDICTED), 1)
    )  # numbers mean nothing without groups


def test_films_of_24_pictures_shown_as_30() -> None:
    """Groups of five pictures last 12.5: time codes and clock are half a picture apart."""
    pictures = [picture(0, INTRA), *(picture(n, PREDICTED) for n in range(1, 5))]
    fields, packets = 0, []
    for n in range(20):
        head = group(fields // 2) if n % 5 == 0 else b""
        shown = 3 - n % 2
        data = pictures[n % 5]
        # A clock of 90 kHz rounds.
        packets.append((head + (repeated(data) if shown == 3 else data), fields / 2 + 2e-4))
        fields += shown
    take(*packets)


def test_recording_joined_behind_one_that_ends_in_a_group() -> None:
    groups = MpegGroups(25.0)
    for _ in range(2):
        for data, due in [*FIRST, (group(3) + picture(2, INTRA), 3), (picture(0, BETWEEN), 4)]:
            groups.take(data, due / 25)
        groups.end()


def test_missing_pictures() -> None:
    with pytest.raises(StructureError, match="1 of the pictures of a group"):
        take(*FIRST, *OPEN[:2], (group(6) + picture(0, INTRA), 6))
    with pytest.raises(StructureError, match="1 to 2 of a group"):
        take(
            *FIRST,
            (group(3) + picture(0, INTRA), 3),
            (picture(3, PREDICTED), 6),
            (picture(4, PREDICTED), 7),
        )
    with pytest.raises(StructureError, match="3 of the pictures"):  # the last of them is there
        take(
            (group(0) + picture(0, INTRA), 0),
            (picture(1, PREDICTED), 1),
            (picture(2, PREDICTED), 5),
            (group(6) + picture(0, INTRA), 6),
        )
    with pytest.raises(StructureError, match="picture 2 of a group comes twice"):  # a head is gone
        take(*FIRST, (picture(2, PREDICTED), 4))
    with pytest.raises(StructureError, match="a group without a picture"):
        take(*FIRST, (group(3) + group(13) + picture(0, INTRA), 3))
    with pytest.raises(StructureError, match="4 of the pictures"):
        take(*FIRST, (group(7) + picture(0, INTRA), 3), (picture(1, PREDICTED), 8))


def test_pieces_put_together_without_new_clocks() -> None:
    """As `ffmpeg -f concat -c copy` leaves them, or an editor that says so (broken_link)."""
    cut = (group(3) + picture(0, INTRA), 3), (picture(3, PREDICTED), 4), (picture(1, BETWEEN), 5)
    take(*FIRST, *cut, (group(0) + picture(0, INTRA), 6))
    broken = bytearray(group(3))
    broken[7] |= 1 << 5
    take(*FIRST, (bytes(broken) + picture(2, INTRA), 3), (picture(3, PREDICTED), 4))


def test_time_codes_count_thirty_where_less_are_shown() -> None:
    sequence = b"\0\0\1\xb3" + bytes([0, 0, 0, 4]) + bytes(4)
    groups = MpegGroups(30_000 / 1001)
    for second in range(5):
        for i in range(30):
            code = (second << 13 | 1 << 19).to_bytes(4)
            head = sequence + b"\0\0\1\xb8" + code if i == 0 else b""
            kind = INTRA if i == 0 else PREDICTED
            groups.take(head + picture(i, kind), (second * 30 + i) * 1001 / 30_000)
    groups.end()
