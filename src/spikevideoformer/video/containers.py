"""What containers say of their own structure: holes and cuts that demuxers pass over in silence.

Each function reads a file's frame of boxes, blocks or packets, not what is in them, and raises
`StructureError` where it is not whole. A demuxer looks for the next place that it understands.
"""

from __future__ import annotations

import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

import numpy as np

from spikevideoformer.video.matroska import StructureError, check_matroska, damaged

_JOINED = "a second recording is joined to it, which is not shown; join them with ffmpeg"
_CUT = "it is cut short: its data ends inside {}"


def check_container(name: str, file: BinaryIO) -> Mapping[int, int]:
    """See whether a file is whole, as far as its container tells.

    Args:
        name: FFmpeg's name of the container; one that is not known here is not looked at.
        file: at any place.

    Returns:
        How many parts with a time each stream has, by its number in the file. Only of MPEG's own
        containers, where each is one picture or more.

    Raises:
        StructureError: says where the damage is.
    """
    if name in _CHECKS:
        file_bytes = file.seek(0, os.SEEK_END)
        file.seek(0)
        return _CHECKS[name](file, file_bytes) or {}
    return {}


_GIF_NEXT_PICTURE = re.compile(rb"\0\x21\xf9\x04.{4}\0\x2c", re.DOTALL)
"""The end of a picture's blocks, a control of one picture, and the head of its picture."""


def _gif(file: BinaryIO, file_bytes: int) -> None:
    """Source: GIF89a specification, sections 17 to 27."""

    def skip_colours(flags: int) -> None:
        if flags & 0x80:
            file.seek(3 << (flags & 7) + 1, os.SEEK_CUR)

    file.seek(10)
    skip_colours(_byte(file))
    file.seek(2, os.SEEK_CUR)
    while True:
        at = file.tell()
        kind = file.read(1)
        if kind == b"\x3b":
            break
        if kind == b"\x2c":
            file.seek(8, os.SEEK_CUR)
            skip_colours(_byte(file))
            file.seek(1, os.SEEK_CUR)
        elif kind == b"\x21":  # controls of a picture and of a program have one form
            head = file.read(7)
            ends = head[6:] == b"\0"
            if (head[:1] == b"\xf9" and not (head[1:2] == b"\4" and ends)) or (
                head[:1] == b"\xff" and head[1:2] != b"\x0b"
            ):
                raise damaged(at)
            file.seek(at + 2)
        else:
            raise damaged(at) if kind else StructureError("it is cut short: it lacks its end mark")
        begin = file.tell()
        while size := _byte(file):
            file.seek(size, os.SEEK_CUR)
        end = file.tell()
        file.seek(begin)
        if _GIF_NEXT_PICTURE.search(file.read(end - begin)):
            raise damaged(begin)  # a false size of a block swallows the pictures that follow
    if file.read(4) == b"GIF8":
        raise StructureError(_JOINED)


def _byte(file: BinaryIO) -> int:
    if not (byte := file.read(1)):
        raise StructureError(_CUT.format("a block"))
    return byte[0]


def _png(file: BinaryIO, file_bytes: int) -> None:
    """Source: PNG (third edition), section 5.3, and its animation, section 11.3.6."""
    file.seek(8)
    announced = pictures = 0
    while True:
        at = file.tell()
        if at == file_bytes:
            raise StructureError("it is cut short: it lacks its end mark")
        head = file.read(8)
        size = int.from_bytes(head[:4])
        if len(head) < 8 or at + 12 + size > file_bytes:
            raise StructureError(_CUT.format("a chunk"))
        content = file.read(size)
        if zlib.crc32(head[4:] + content) != int.from_bytes(file.read(4)):
            raise damaged(at)
        if head[4:] == b"acTL":
            announced = int.from_bytes(content[:4])
        pictures += head[4:] == b"fcTL"
        if head[4:] == b"IEND":
            break
    if pictures < announced:
        raise StructureError(f"it holds {pictures} of {announced} pictures announced")


def _mpegts(file: BinaryIO, file_bytes: int) -> Mapping[int, int]:
    """Packets of 188 bytes, with a time stamp before (M2TS) or a check sum after: 192 or 204."""
    head = np.frombuffer(file.read(5 * 204), np.uint8)
    for size in (188, 192, 204):
        for begin in range(size):
            marks = head[begin::size]
            if len(marks) >= min(4, file_bytes // size) > 0 and (marks == 0x47).all():
                break
        else:
            continue
        break
    else:
        raise damaged(0)
    file.seek(begin)
    at, timed = begin, Counter[int]()  # the latter: of streams in packets of their own (PES)
    while chunk := file.read(size << 12):
        packets = np.frombuffer(chunk[: len(chunk) // size * size], np.uint8).reshape(-1, size)
        wrong = packets[:, 0] != 0x47
        for row in np.flatnonzero(packets[:, 1] & 0x40):  # those in which a part begins
            packet = packets[row]
            stream = int(packet[1] & 0x1F) << 8 | int(packet[2])
            payload = packet[5 + int(packet[4]) if packet[3] & 0x20 else 4 :][:8].tolist()
            if payload[:3] == [0, 0, 1]:
                timed[stream] += len(payload) == 8 and payload[7] >> 7
            elif stream in timed:
                wrong[row] = True
        if wrong.any():
            raise damaged(at + size * int(wrong.argmax()))
        at += len(chunk)
    if 0 < (at - begin) % size < 188:  # what follows a packet's own bytes may lack
        raise StructureError(_CUT.format("a packet"))
    return timed


def _mpegps(file: BinaryIO, file_bytes: int) -> Mapping[int, int]:
    """Source: ISO/IEC 13818-1, 2.5.3, and 11172-1 for packs of 12 bytes."""
    at, timed = 0, Counter[int]()
    while at < file_bytes:
        file.seek(at)
        head = file.read(14)
        if head[:3] != b"\0\0\1" or len(head) < 4 or head[3] < 0xB9:
            raise damaged(at)
        if head[3] == 0xB9:
            at += 4
        elif head[3] == 0xBA:
            of_mpeg2 = len(head) == 14 and head[4] >> 6 == 1
            at += 14 + (head[13] & 7) if of_mpeg2 else 12
        else:
            size = int.from_bytes(head[4:6])
            if len(head) < 6 or size == 0:
                raise damaged(at)
            of_mpeg2 = len(head) > 7 and head[6] >> 6 == 2
            timed[0x100 | head[3]] += of_mpeg2 and head[7] >> 7
            at += 6 + size
    if at > file_bytes:
        raise StructureError(_CUT.format("a packet"))
    return timed


def _flv(file: BinaryIO, file_bytes: int) -> None:
    """Source: Adobe Flash Video File Format 10.1, annex E."""
    at, codecs, formats, sounds = 0, set[int](), set[int](), True
    while at < file_bytes:
        file.seek(at)
        head = file.read(12)
        if head[:3] == b"FLV" and at == 0:
            at += max(9, int.from_bytes(head[5:9])) + 4
            sounds = bool(head[4] & 4)
            continue
        if head[:3] == b"FLV":
            raise StructureError(_JOINED)
        size = 11 + int.from_bytes(head[1:4])
        kind = head[0] & 0x1F
        if kind not in (8, 9, 15, 18) or any(head[8:11]) or (kind == 8 and not sounds):
            raise damaged(at)
        if kind == 8 and size > 11 and len(head) == 12:
            formats.add(head[11] >> 4)
            if len(formats) > 1:  # a picture that calls itself sound
                raise damaged(at)
        if kind == 9 and size > 11 and len(head) == 12:  # kind of picture, codec
            shows, codec = head[11] >> 4 & 7, head[11] & 0xF
            if shows < 5:  # with the highest bit the codec stands elsewhere
                codecs.add(0x80 if head[11] >> 7 else codec)
            # 5 is no picture but a command: a byte behind a head of one byte, or of five.
            if not 1 <= shows <= 5 or len(codecs) > 1 or (shows == 5 and size - 11 > 6):
                raise damaged(at)
        if len(head) < 11 or at + size > file_bytes:
            raise StructureError(_CUT.format("a tag"))
        file.seek(at + size)
        behind = file.read(4)
        # Some writers count without the head, or not at all.
        if len(behind) == 4 and int.from_bytes(behind) not in (size, size - 11, 0):
            raise damaged(at)
        at += size + 4


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_sum(page: bytes) -> int:
    """CRC-32 of a page, whose own is 0: highest bits first, from 0, and not inverted.

    zlib's takes the lowest first, from all ones, and inverts: so bits are turned round.
    """
    lowest_first = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(lowest_first.to_bytes(4, "little").translate(_REVERSED))


def _ogg(file: BinaryIO, file_bytes: int) -> None:
    """Source: RFC 3533, section 6."""
    at, pages, open_streams = 0, dict[bytes, int](), set[bytes]()
    while at < file_bytes:
        file.seek(at)
        head = file.read(27)
        if head[:5] != b"OggS\0":
            raise damaged(at)
        table = file.read(head[26]) if len(head) == 27 else b""
        serial = head[14:18]
        if len(head) < 27 or at + 27 + len(table) + sum(table) > file_bytes:
            raise StructureError(_CUT.format("a page"))
        page = head[:22] + bytes(4) + head[26:] + table + file.read(sum(table))
        if _ogg_sum(page) != int.from_bytes(head[22:26], "little"):
            raise damaged(at)
        number = int.from_bytes(head[18:22], "little")
        first, last = head[5] & 2, head[5] & 4
        if not first and number != pages.get(serial, -1) + 1:
            raise damaged(at)
        pages[serial] = number
        (open_streams.discard if last else open_streams.add)(serial)
        at += 27 + head[26] + sum(table)
    if open_streams:
        raise StructureError("it is cut short: it lacks its last page")


def _boxes(file: BinaryIO, file_bytes: int) -> None:
    """MP4 and QuickTime; source: ISO/IEC 14496-12, sections 4.2 and 8.8.

    The table of samples tells what lies where. In a file of fragments each brings its own, so there
    the boxes must follow each other to the end, and agree with themselves.
    """
    at, recordings = 0, 0
    tracks: set[bytes] | None = None  # of a file of fragments
    while at < file_bytes:
        file.seek(at)
        head = file.read(16)
        size, kind = int.from_bytes(head[:4]), head[4:8]
        least = 8
        if size == 1:
            size, least = int.from_bytes(head[8:16]), 16
        elif size == 0:
            size = file_bytes - at
        whole = len(head) >= least <= size and all(32 <= byte < 127 or byte == 169 for byte in kind)
        if not whole or at + size > file_bytes:
            if tracks is not None:
                raise damaged(at) if not whole else StructureError(_CUT.format("a fragment"))
            break
        if kind in (b"moov", b"moof"):
            file.seek(at + 8)
            content = file.read(size - 8)
            recordings += kind == b"moov"
            if kind == b"moov" and b"mvex" in content:
                tracks = set(_track_ids(content))
            if kind == b"moof" and tracks is not None and not _fragment_agrees(content, tracks):
                raise damaged(at)
        at += size
    if recordings > 1:
        raise StructureError(_JOINED)


def _track_ids(moov: bytes) -> Iterator[bytes]:
    at = moov.find(b"tkhd")
    while at >= 0:
        begin = at + (24 if moov[at + 4] == 1 else 16)  # times of 8 bytes in version 1
        yield moov[begin : begin + 4]
        at = moov.find(b"tkhd", at + 4)


def _fragment_agrees(content: bytes, tracks: set[bytes]) -> bool:
    """Whether the boxes of a fragment, or of a track in it, are sound."""
    at = 0
    while at < len(content):
        size, kind = int.from_bytes(content[at : at + 4]), content[at + 4 : at + 8]
        box = content[at + 8 : at + size]
        if size < 8 or at + size > len(content) or kind not in _IN_FRAGMENT:
            return False
        if kind == b"traf" and not _fragment_agrees(box, tracks):
            return False
        if kind == b"tfhd" and box[4:8] not in tracks:
            return False
        if kind == b"trun":
            flags, count = int.from_bytes(box[1:4]), int.from_bytes(box[4:8])
            entry = 4 * (flags & 0xF00).bit_count()
            if len(box) != 8 + 4 * (flags & 5).bit_count() + count * entry:
                return False
        at += size
    return True


_IN_FRAGMENT = frozenset(
    b"mfhd traf tfhd tfdt trun saiz saio sbgp sgpd senc subs pssh meta free skip udta uuid".split()
)


def _asf(file: BinaryIO, file_bytes: int) -> None:
    """Source: Advanced Systems Format 1.2, sections 3.2 and 5.2."""
    head = file.read(1 << 16)
    at = head.find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))  # file properties
    if at < 0 or len(head) < at + 104:
        return
    said_bytes = int.from_bytes(head[at + 40 : at + 48], "little")
    is_live = head[at + 88] & 1
    if not is_live and said_bytes > file_bytes:
        raise StructureError("it is cut short: it ends before its announced size")


def _riff(file: BinaryIO, file_bytes: int) -> None:
    """AVI: parts say how long they are, and data are chunks of a stream one behind the other.

    A recorder that was switched off leaves 0 for a length; then nothing is known of what follows.
    Source: Microsoft, "AVI RIFF File Reference", and OpenDML 1.02 for more than one RIFF.
    """
    at, streams = 0, 0
    while (head := _chunk(file, at)) is not None and head[0] == b"RIFF":
        end = at + 8 + head[1]
        if not 0 < head[1] < 2**32 - 1:
            return
        if end > file_bytes:
            raise StructureError("it is cut short: it ends before its announced size")
        at += 12
        while at < end and (part := _chunk(file, at)) is not None:
            kind, size = part
            inner = file.read(4) if kind == b"LIST" else b""
            if inner == b"hdrl":
                streams += file.read(max(0, min(size - 4, _MOST_HEAD))).count(b"strl")
            if inner == b"movi":
                if not 4 <= size <= end - at - 8:
                    return
                _movi(file, at + 12, at + 8 + size, streams)
            at += 8 + size + size % 2
        at = end + end % 2


_MOST_HEAD = 2**20  # bytes of the headers of streams
_DATA = frozenset({b"dc", b"db", b"wb", b"pc", b"tx", b"sb"})


def _chunk(file: BinaryIO, at: int) -> tuple[bytes, int] | None:
    """Name and length of a chunk of RIFF; None at the end."""
    file.seek(at)
    head = file.read(8)
    return (head[:4], int.from_bytes(head[4:], "little")) if len(head) == 8 else None


def _movi(file: BinaryIO, at: int, end: int, streams: int) -> None:
    """The data of an AVI: each chunk is of a stream that there is."""
    while at < end and (head := _chunk(file, at)) is not None:
        kind, size = head
        number = int(kind[:2]) if kind[:2].isdigit() else streams
        known = kind in (b"JUNK", b"LIST", b"idx1") or kind[:2] == b"ix"
        if not (known or (number < streams and kind[2:] in _DATA)) or at + 8 + size > end:
            raise damaged(at)
        at += 12 if kind == b"LIST" else 8 + size + size % 2  # a list holds chunks


_CHECKS: dict[str, Callable[[BinaryIO, int], Mapping[int, int] | None]] = {
    "apng": _png,
    "asf": _asf,
    "avi": _riff,
    "flv": _flv,
    "gif": _gif,
    "matroska,webm": check_matroska,
    "mov,mp4,m4a,3gp,3g2,mj2": _boxes,
    "mpeg": _mpegps,
    "mpegts": _mpegts,
    "ogg": _ogg,
    "png_pipe": _png,  # what a damaged animation is taken for
}
