"""Finds damage in Matroska and WebM files that their demuxer passes over in silence."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import BinaryIO

# Element names. Source: RFC 8794 (EBML), section 11.2, and RFC 9559 (Matroska), section 5.1.
_EBML_HEADER, _SEGMENT, _CRC_32, _VOID = 0x1A45DFA3, 0x18538067, 0xBF, 0xEC
_INFO, _TRACKS, _CLUSTER = 0x1549A966, 0x1654AE6B, 0x1F43B675
_SEEK_HEAD, _CUES, _ATTACHMENTS, _CHAPTERS, _TAGS = (
    0x114D9B74, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367,
)  # fmt: skip
_IN_SEGMENT = {
    _INFO, _TRACKS, _CLUSTER, _SEEK_HEAD, _CUES, _ATTACHMENTS, _CHAPTERS, _TAGS, _CRC_32, _VOID,
}  # fmt: skip
# Timestamp, SilentTracks, Position, PrevSize, BlockGroup, EncryptedBlock, SimpleBlock.
_IN_CLUSTER = {0xE7, 0x5854, 0xA7, 0xAB, 0xA0, 0xAF, 0xA3, _CRC_32, _VOID}
_NUMBERS_IN_CLUSTER = {0xE7, 0xA7, 0xAB}  # of eight bytes at most


# A track and its number; a group of blocks and the block in it.
_TRACK, _TRACK_NUMBER, _BLOCK_GROUP, _BLOCK, _SIMPLE_BLOCK = 0xAE, 0xD7, 0xA0, 0xA1, 0xA3
_TRACK_TYPE, _VIDEO = 0x83, 1
_LACES = 0x06  # of the flags of a block: it holds several frames, as sound may


class StructureError(Exception):
    """The elements of a Matroska file do not fit together."""


def damaged(at: int, why: str = "") -> StructureError:
    """What lies there does not fit."""
    return StructureError(f"its structure is damaged at byte {at}{why and ': '}{why}")


def check_matroska(file: BinaryIO, file_bytes: int) -> None:
    """See whether the elements of a Matroska or WebM file are all there and undamaged.

    Its demuxer skips what it does not understand without a word, so pictures can go missing
    between others. The elements show that: each must be known and whole, and agree with its CRC-32
    where the writer stored one (FFmpeg does, in mkv).

    Args:
        file: at its begin.
        file_bytes: its size.

    Raises:
        StructureError: says where the damage is.
    """
    for name, end in _elements(file, file_bytes, {_EBML_HEADER, _SEGMENT, _VOID}):
        if name != _SEGMENT:
            continue
        tracks: dict[int | None, int] = {}  # numbers and kinds
        for inner, inner_end in _elements(file, end, _IN_SEGMENT):
            if inner not in (_INFO, _TRACKS, _CLUSTER):
                continue
            begin = file.tell()
            if not _crc_agrees(file, inner_end):
                raise StructureError(
                    f"its data is damaged between bytes {begin} and {inner_end}: wrong CRC-32"
                )
            file.seek(begin)
            if inner == _TRACKS:
                for entry, entry_end in _elements(file, inner_end):
                    if entry == _TRACK:
                        told = {
                            item: int.from_bytes(file.read(item_end - file.tell()))
                            for item, item_end in _elements(file, entry_end)
                            if item in (_TRACK_NUMBER, _TRACK_TYPE)
                        }
                        tracks[told.get(_TRACK_NUMBER)] = told.get(_TRACK_TYPE, 0)
            if inner == _CLUSTER:
                for block, block_end in _elements(file, inner_end, _IN_CLUSTER):
                    at = file.tell()
                    if block in _NUMBERS_IN_CLUSTER and block_end - at > 8:
                        raise damaged(at)
                    if block == _SIMPLE_BLOCK:
                        _check_track(file, tracks)
                    elif block == _BLOCK_GROUP:
                        for item, _ in _elements(file, block_end):
                            if item == _BLOCK:
                                _check_track(file, tracks)


def _check_track(file: BinaryIO, tracks: dict[int | None, int]) -> None:
    """A block of a track that is not there is passed over, and so is a false lace."""
    at = file.tell()
    track = _ebml_number(file)
    if track not in tracks:
        raise damaged(at, "a block of no track")
    flags = file.read(3)[2:]  # behind two bytes of time
    if tracks[track] == _VIDEO and flags and flags[0] & _LACES:
        raise damaged(at, "several pictures in a block")


def is_joined(file: BinaryIO) -> bool:
    """Whether a second recording follows the first, as `cat` leaves them; damage is not told."""
    file_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        names = [name for name, _ in _elements(file, file_bytes, {_EBML_HEADER, _SEGMENT, _VOID})]
    except StructureError:
        return False
    return names.count(_SEGMENT) > 1


def _elements(file: BinaryIO, end: int, known: set[int] | None = None) -> Iterator[tuple[int, int]]:
    """Name and end of each element up to `end`; the file stands at its content meanwhile."""
    while (at := file.tell()) < end:
        name, size = _ebml_number(file, keep_marker=True), _ebml_number(file)
        if size == -1 and name in (_SEGMENT, _CLUSTER):
            inner = _IN_SEGMENT if name == _SEGMENT else _IN_CLUSTER
            if file.tell() < end and _ebml_number(file, keep_marker=True) not in inner:
                raise damaged(at)
            return  # a live recording, written before its sizes were known
        if size == -1 or (known is not None and name not in known) or name is None or size is None:
            raise damaged(at)
        element_end = file.tell() + size
        if element_end > end:
            raise StructureError(f"it is cut short or damaged: byte {element_end} is not there")
        yield name, element_end
        file.seek(element_end)


def _ebml_number(file: BinaryIO, *, keep_marker: bool = False) -> int | None:
    """A variable-length integer: None at the end of the file, -1 for a size that is not known."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    extra = 8 - first[0].bit_length()
    rest = file.read(extra)
    if len(rest) < extra:
        return None
    value = int.from_bytes(first + rest)
    if keep_marker:
        return value
    mask = (1 << 7 * (extra + 1)) - 1
    return -1 if value & mask == mask else value & mask


def _crc_agrees(file: BinaryIO, end: int) -> bool:
    """Read one element's content; False where it begins with a CRC-32 that does not fit it."""
    head = file.read(min(6, end - file.tell()))
    if head[:2] != b"\xbf\x84":
        return True
    crc = 0
    while chunk := file.read(min(end - file.tell(), 1 << 20)):
        crc = zlib.crc32(chunk, crc)
    return crc == int.from_bytes(head[2:], "little")
