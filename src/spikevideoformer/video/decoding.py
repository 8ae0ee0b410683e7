"""One walk through a video file: its pictures in order, and what came held against what was due."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import av
import av.logging

from spikevideoformer.video.containers import check_container
from spikevideoformer.video.interface import SeekMissedError, check_frame_size, check_total
from spikevideoformer.video.matroska import StructureError
from spikevideoformer.video.mpeg_groups import MpegGroups
from spikevideoformer.video.picture import Picture, Turn

if TYPE_CHECKING:
    from spikevideoformer.video.video_file import VideoFile

# These demuxers know decoding times only; their presentation times are guesses.
_DECODING_TIME_FORMATS = frozenset({"avi"})
_MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
# Containers whose announced length is exact and whose seeking lands on true timestamps.
_EXACT_FORMATS = frozenset({"avi", "flv", "matroska,webm", _MP4})
_SEEKABLE_FORMATS = frozenset({"matroska,webm", _MP4})

_JOINED = "; recordings that were joined byte by byte are joined anew with ffmpeg -f concat"

_SEEK_MARGIN_S = 1.0
"""Seeking aims this much early: key frames are found by decoding time, which runs ahead."""
_JUMP_S = 60.0
"""Longest step of the clock that is believed past the announced end."""
_LONGEST_STEP_S = 86_400.0
"""Longest step of the clock that is believed where no end is announced: a day."""


class DecodingPass:
    """One walk through the packets of a file that counts what came against what was promised."""

    def __init__(self, file: VideoFile, from_s: float) -> None:
        self.file, self.from_s = file, from_s
        self.announced_s = file.announced_s()
        self.nominal_s = 1 / file.frame_rate_hz
        self.timed = False  # whether any picture has a time of its own
        self.origin_s: float | None = None  # the file's own time of its first picture
        self.last: Picture | None = None
        self.pictures = 0
        self.pixels = 0
        self.interlaced = False
        self.packets = 0  # that should give a picture each
        self.all_packets = 0  # of this stream, also those that show nothing
        self.begun = False  # whether a key frame has come
        self.early_packets: list[float] = []  # times of packets before the first picture
        self.packet_s: float | None = None  # time of the packet before
        of_mpeg = file.stream.codec_context.name in ("mpeg1video", "mpeg2video")
        self.groups = MpegGroups(file.frame_rate_hz) if of_mpeg else None
        self.moved_s = 0.0  # by how much the clock of a joined recording is moved
        self.streams_end_s = 0.0  # where the last packet of any stream ends, in the file's time

    def run(self) -> Iterator[Picture]:
        seeks = (
            self.from_s > _SEEK_MARGIN_S
            and self.file.format in _SEEKABLE_FORMATS
            and not self.file.joined
        )
        walk = self._walk()
        if not seeks:
            yield from walk
            self._take_stock()
            return
        next(walk)  # the first picture sets the clock
        assert self.origin_s is not None
        stream = self.file.stream
        assert stream.time_base is not None
        with self.file.ffmpeg("cannot seek"):
            target_s = self.origin_s + self.from_s - _SEEK_MARGIN_S
            self.file.container.seek(round(target_s / stream.time_base), stream=stream)
        self.last = None
        walk = self._walk()
        first = next(walk, None)
        if first is None or first.timestamp_s > self.from_s:
            raise SeekMissedError
        yield first
        yield from walk

    def _walk(self) -> Iterator[Picture]:
        file, stream = self.file, self.file.stream
        packets = file.packets()
        while True:
            where = f"decoding fails after {self.pictures} pictures"
            if self.announced_s is not None and self.last is not None:
                where += f", {self.last.end_s:.2f} s of {self.announced_s:.2f} s"
            with file.ffmpeg(where) as messages:
                packet = next(packets, None)
                if packet is None:
                    return
                ours = packet.stream.index == stream.index  # one without data has no other
                # Without data, a packet with a time is a dropped picture, one without is the end.
                flushes = packet.size == 0 and packet.dts is None
                self.begun |= ours and packet.is_keyframe
                useful = flushes or (packet.size and (self.begun or not file.may_begin_amid))
                frames = file.decode(packet) if ours and useful else []
                if packet.is_corrupt:
                    joined = "" if file.format != "mpegts" else _JOINED
                    raise file.ffmpeg.error(f"{where}: its data ends inside a packet{joined}")
            self._listen(messages, where)
            self.all_packets += ours and not flushes
            if packet.size and useful:
                try:
                    self._count(packet, ours)
                except StructureError as error:
                    raise file.ffmpeg.error(f"{where}: {error}") from None
            for frame in frames:
                yield self._picture(frame, where)

    def _listen(self, messages: list[tuple[int, str, str]], where: str) -> None:
        """Decoders hide what they cannot decode, and say so only in their messages."""
        speakers = (self.file.stream.codec_context.name, self.file.format)
        for level, speaker, text in messages:
            if level <= av.logging.ERROR and speaker in speakers:
                raise self.file.ffmpeg.error(f"{where}: {text}")

    def _count(self, packet: av.Packet[Any], ours: bool) -> None:
        time = packet.dts if packet.pts is None else packet.pts
        time_s = None if time is None else float(time * packet.time_base)
        if time_s is not None:
            end_s = time_s + float((packet.duration or 0) * packet.time_base)
            self.streams_end_s = max(self.streams_end_s, end_s)
        if not ours:
            return
        if self.groups is not None:
            moved_s = self.file.clock.moved_s.get(packet.stream_index, 0.0)
            if moved_s != self.moved_s:  # a recording was joined, and this one may end in a group
                self.groups.end()
            self.moved_s = moved_s
            due_s = None if packet.dts is None else float(packet.dts * packet.time_base)
            self.groups.take(bytes(packet), due_s)
        since_s = 0.0 if time_s is None or self.packet_s is None else time_s - self.packet_s
        self.packet_s = time_s
        if packet.is_discard or _shows_nothing(packet, at_once=since_s < 0.5 * self.nominal_s):
            return
        # A recording cut out of a longer one may begin with pictures whose references are gone.
        if time_s is None or self.file.format in _DECODING_TIME_FORMATS:
            self.packets += 1
        elif self.origin_s is None:
            self.early_packets.append(time_s)
        else:
            self.packets += time_s >= self.origin_s

    def _picture(self, frame: av.VideoFrame, where: str) -> Picture:
        file, limits = self.file, self.file.limits
        if frame.is_corrupt:
            raise file.ffmpeg.error(f"{where}: the next picture is damaged")
        self.pictures += 1
        self.pixels += frame.width * frame.height
        self.interlaced |= frame.interlaced_frame
        check_total(file.path, self.pictures, self.pixels, limits)
        picture = self._timed(frame)
        check_frame_size(file.path, *picture.size(), limits)
        before_s = picture.timestamp_s if self.last is None else self.last.timestamp_s
        if self.announced_s is None:
            believed_s = before_s + _LONGEST_STEP_S
        else:
            believed_s = max(before_s, self.announced_s) + _JUMP_S
        if picture.timestamp_s > believed_s:
            raise file.ffmpeg.error(
                f"{where}: its clock jumps from {before_s:.2f} s to {picture.timestamp_s:.2f} s"
            )
        self.last = picture
        return picture

    def _timed(self, frame: av.VideoFrame) -> Picture:
        decodes_only = self.file.format in _DECODING_TIME_FORMATS
        time = frame.dts if decodes_only else frame.pts
        time_base = frame.time_base or self.file.stream.time_base
        follows_s = 0.0 if self.last is None else self.last.end_s
        timestamp_s = follows_s
        duration_s = self.nominal_s
        if time_base is not None:
            if time is not None:
                self.timed = True
                file_s = float(time * time_base)
                if self.origin_s is None:
                    self.origin_s = file_s - follows_s
                    self.packets += sum(t >= self.origin_s for t in self.early_packets)
                timestamp_s = file_s - self.origin_s
            if self.last is not None:
                timestamp_s = max(timestamp_s, self.last.timestamp_s)
            if frame.duration > 0:
                # Only as far as the file reaches: the last duration of a file is often invented.
                rest_s = (self.announced_s or 0.0) - timestamp_s
                duration_s = min(float(frame.duration * time_base), max(rest_s, self.nominal_s))
        turn = self.file.turn or Turn.of_frame(frame, self.file.path)
        return Picture(frame, timestamp_s, duration_s, turn, self.file.pixel_ratio)

    def _take_stock(self) -> None:
        """At the end of a whole file: did it give all that it announces?"""
        file = self.file
        if self.last is None:
            raise file.ffmpeg.error("no picture in it can be decoded")
        declared = file.declared_frames
        got = f"decoded {self.pictures}" + (f" of {declared} announced" if declared else "")
        # Fields of interlaced video may come in a packet each.
        if self.pictures < self.packets and not self.interlaced:
            raise file.ffmpeg.error(
                f"decoded {self.pictures} pictures from {self.packets} packets: some are damaged"
            )
        tolerance_s = 0.6 * self.nominal_s
        if file.format not in _EXACT_FORMATS:
            tolerance_s += 0.5
        # Some files announce where they end, others how long they last.
        end_s = self.last.end_s + max(0.0, self.origin_s or 0.0)
        container_s = file.container_s()
        if self.announced_s is not None:
            if end_s + tolerance_s < self.announced_s:
                raise file.ffmpeg.error(
                    f"{got} pictures, {self.last.end_s:.2f} s of {self.announced_s:.2f} s: "
                    "the file is cut short or damaged"
                )
        elif container_s is not None:
            if self.streams_end_s + tolerance_s + 0.1 < container_s:
                raise file.ffmpeg.error(
                    f"{got} pictures; data ends at {self.streams_end_s:.2f} s of "
                    f"{container_s:.2f} s: the file is cut short or damaged"
                )
        # An mp4 may be trimmed: its edit list leaves pictures out that its tables announce.
        elif self.pictures < declared:
            raise file.ffmpeg.error(f"{got} pictures: the file is cut short or damaged")
        if file.format != _MP4 and max(self.all_packets, self._places()) < declared:
            raise file.ffmpeg.error(f"{got} pictures: the file is cut short or damaged")
        if self.pictures > 1 and self.last.timestamp_s == 0 and self.timed:
            raise file.ffmpeg.error(
                f"all of its {self.pictures} pictures have one time; write it anew with a rate, "
                "for example with ffmpeg -r"
            )
        try:
            if self.groups is not None:
                self.groups.end()
            with file.ffmpeg("cannot be read"), file.path.open("rb") as stream:
                timed = check_container(file.format, stream).get(file.stream.id, 0)
        except StructureError as error:
            raise file.ffmpeg.error(str(error)) from None
        if self.all_packets < timed and not self.interlaced:
            raise file.ffmpeg.error(
                f"{self.all_packets} pictures in {timed} parts with a time: some are damaged"
            )

    def _places(self) -> int:
        """How many pictures have room until the end; some containers leave gaps for repeats."""
        return 0 if self.last is None else round(self.last.end_s / self.nominal_s)


def _shows_nothing(packet: av.Packet[Any], *, at_once: bool) -> bool:
    """Whether a packet rightly gives no picture: hidden references and "as before" markers."""
    name = packet.stream.codec_context.name
    if name == "vp8":
        # show_frame (RFC 6386, section 9.1). Encoders stamp a hidden picture right after the one
        # before (libvpx, vp8_cx_iface.c); one with a time slot of its own was meant to be seen.
        return at_once and not memoryview(packet)[0] >> 4 & 1
    # An MPEG-4 picture that is not coded is its start code and a few bits of time.
    return name == "mpeg4" and packet.size <= 8
