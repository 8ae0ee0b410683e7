"""One opened video file: which of its streams is shown, and what it announces of itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import av
import av.logging
from av.video.stream import VideoStream

from spikevideoformer.video.clock import Clock, ClockError, is_broadcast
from spikevideoformer.video.decoding import DecodingPass
from spikevideoformer.video.ffmpeg import Ffmpeg
from spikevideoformer.video.interface import (
    SEQUENCE_RATE_HZ,
    VIDEO_SUFFIXES,
    DecodeLimits,
    VideoError,
    VideoInfo,
    check_frame_size,
    check_total,
)
from spikevideoformer.video.matroska import is_joined
from spikevideoformer.video.picture import WIDEST_PIXEL, Picture, square
from spikevideoformer.video.stills import pages_and_turn

# FFmpeg renders text files as pictures of text; nobody means that by a video.
_TEXT_FORMATS = frozenset({"adf", "bin", "idf", "tty", "xbin"})
# Streams without a container. FFmpeg takes anything that looks a little like one for it, such as a
# file with a damaged head, and what it then finds is not all that the file holds.
_SUFFIXES_OF_RAW = {
    "av1": ".av1 .obu",
    "avs2": ".avs .avs2",
    "avs3": ".avs3",
    "cavsvideo": ".avs .cavs",
    "dirac": ".dirac .drc .vc2",
    "dnxhd": ".dnxhd .dnxhr",
    "dv": ".dif .dv",
    "evc": ".evc",
    "h261": ".h261",
    "h263": ".263 .h263",
    "h264": ".264 .26l .avc .h264 .h26l .jsv .jvt",
    "hevc": ".265 .h265 .hevc",
    "ingenient": ".cgi",
    "m4v": ".cmp4 .m4v .mpeg4",
    "mjpeg": ".mjpeg .mjpg .mpo",
    "mjpeg_2000": ".j2k",
    "mpegvideo": ".m1v .m2v .mpgv .mpv",
    "obu": ".obu",
    "vc1": ".vc1",
    "vvc": ".266 .h266 .vvc",
}
_MATROSKA = "matroska,webm"
_STILL = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails


class VideoFile:
    """One opened video file and the video stream that players show."""

    def __init__(self, path: Path, limits: DecodeLimits) -> None:
        self.path, self.limits = path, limits
        self.ffmpeg = Ffmpeg(path)
        if path.stat().st_size == 0:
            raise VideoError(path, "the file is empty")
        with self.ffmpeg("cannot be opened") as messages:
            # The prefix keeps a colon in a name from being read as a protocol; the list keeps a
            # playlist from reaching into the network.
            self.container = av.open(
                f"file:{path}",
                options={"protocol_whitelist": "file"},
                metadata_errors="replace",
            )
        try:
            self.format = self.container.format.name
            self._refuse_guesses()
            self.stream = self._choose_stream()
            # A length that FFmpeg estimated from the bit rate is not an announcement.
            self.estimated = any("Estimating duration" in text for _, _, text in messages)
            self.pixel_ratio = self._pixel_ratio()
            # FFmpeg tells nothing of the mirrors of Exif.
            self.turn = pages_and_turn(path.read_bytes())[1] if self.is_still else None
            self._prepare()
        except BaseException:
            self.container.close()
            raise

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    @property
    def is_still(self) -> bool:
        """Whether it is a picture, and no video."""
        return self.format.endswith("_pipe")

    @property
    def may_begin_amid(self) -> bool:
        """Whether it may begin between key frames, being cut out of a stream."""
        return is_broadcast(self.format) or self.format in _SUFFIXES_OF_RAW

    def _refuse_guesses(self) -> None:
        suffix = self.path.suffix.lower()
        if self.format in _TEXT_FORMATS:
            raise VideoError(self.path, "a text file, not a video")
        suffixes = _SUFFIXES_OF_RAW.get(self.format, "").split()
        if suffixes and suffix not in suffixes:
            raise VideoError(
                self.path,
                f"damaged, or a raw {self.format} stream under another name; if it is one, call it "
                f"{suffixes[0]}",
            )
        if self.is_still and suffix in VIDEO_SUFFIXES:
            raise VideoError(self.path, "damaged, or a picture under the name of a video")

    def _choose_stream(self) -> VideoStream:
        default = av.stream.Disposition.default
        every = self.container.streams
        streams = [s for s in every.video if not s.disposition & _STILL]
        if not streams:
            kinds = sorted({str(s.type) for s in every if s.type != "video"})
            if every.video:
                kinds.append("a cover picture")
            found = " and ".join(filter(None, [", ".join(kinds[:-1]), *kinds[-1:]]))
            raise VideoError(self.path, f"no video in it, only {found or 'nothing'}")
        streams.sort(key=lambda s: not s.disposition & default)  # otherwise as they come
        if len(streams) > 1:
            moving = self._moving()
            streams.sort(key=lambda s: s.index not in moving)
        return streams[0]

    def _moving(self) -> set[int]:
        """The streams that hold more than one picture; the others are thumbnails and covers."""
        found: set[int] = set()
        videos, seen = {s.index for s in self.container.streams.video}, set[int]()
        with (
            self.ffmpeg("cannot be read"),
            av.open(f"file:{self.path}", options={"protocol_whitelist": "file"}) as again,
        ):
            for packet in again.demux(video=tuple(range(len(videos)))):
                if packet.size:
                    (found if packet.stream_index in seen else seen).add(packet.stream_index)
                if found >= videos:
                    break
        return found

    def _pixel_ratio(self) -> float:
        """Width of a pixel by its height."""
        if self.is_still or self.format in ("gif", "apng"):
            return 1.0  # viewers of pictures take their density for one of prints
        ratio = self.stream.sample_aspect_ratio
        if not ratio:
            return 1.0
        if not 1 / WIDEST_PIXEL <= ratio <= WIDEST_PIXEL:
            raise VideoError(
                self.path,
                f"its pixels are said to be {float(ratio):g} times as wide as high; if that is "
                "wrong, set it with ffmpeg -bsf:v or -aspect",
            )
        return float(ratio)

    def _prepare(self) -> None:
        stream, context = self.stream, self.stream.codec_context
        if context is None:
            raise VideoError(self.path, "FFmpeg has no decoder for its video")
        # Its own decoder of VP8 and VP9 knows no alpha, that of libvpx does.
        self.decoder: Any = context
        if stream.metadata.get("alpha_mode") == "1" and context.name in ("vp8", "vp9"):
            name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}[context.name]
            self.decoder = av.CodecContext.create(name, "r")
        width, height = square(context.width, context.height, self.pixel_ratio)
        check_frame_size(self.path, width, height, self.limits)
        check_total(self.path, stream.frames, stream.frames * width * height, self.limits)
        # One thread: the same messages in the same order every time, and loader workers that do
        # not fight for cores.
        self.decoder.thread_type = "NONE"
        self.decoder.thread_count = 1
        if self.limits.max_frame_pixels is not None:
            # Guards against a stream whose pictures are larger than its container says.
            most = max(self.limits.max_frame_pixels, 128 * 128)
            self.decoder.options = {"max_pixels": str(most)}

    @property
    def frame_rate_hz(self) -> float:
        for rate in (self.stream.average_rate, self.stream.guessed_rate, self.stream.base_rate):
            if rate is not None and 1e-3 <= rate <= 1e4:
                return float(rate)
        return SEQUENCE_RATE_HZ

    @property
    def declared_frames(self) -> int:
        """Number of pictures that it states; 0 where it does not."""
        for key, value in self.stream.metadata.items():  # of mkvmerge
            if key.upper().startswith("NUMBER_OF_FRAMES") and value.isdecimal():
                return max(self.stream.frames, int(value))
        return self.stream.frames

    def packets(self) -> Iterator[av.Packet[Any]]:
        """Packets of all streams, as they come, with corrected times."""
        self.clock = Clock(self.format, 1 / self.frame_rate_hz)
        packets = self.container.demux()
        while True:
            try:
                packet = next(packets, None)
            except IndexError:  # PyAV knows the streams that a file had when it was opened
                raise self.ffmpeg.error("a further stream begins in the midst of it") from None
            if packet is None:
                return
            try:
                self.clock.set(packet)
            except ClockError as error:
                raise self.ffmpeg.error(str(error)) from None
            yield packet

    def decode(self, packet: av.Packet[Any]) -> list[av.VideoFrame]:
        """The pictures that a packet of its stream completes; one without data: those left over."""
        if self.decoder is self.stream.codec_context:
            return packet.decode()
        return cast(list[av.VideoFrame], self.decoder.decode(packet if packet.size else None))

    def announced_s(self) -> float | None:
        """Length of the video stream as the file states it, None where it does not."""
        stream = self.stream
        if self._announces_nothing():
            return None
        # Of Matroska, FFmpeg gives the length of the longest stream to each.
        own = self.format != _MATROSKA
        if own and stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        for key, value in stream.metadata.items():
            if key.upper().startswith("DURATION") and (seconds := _clock_s(value)) is not None:
                return seconds
        return self.container_s() if len(self.container.streams) == 1 else None

    def container_s(self) -> float | None:
        """Length of the longest stream as the file states it, None where it does not."""
        duration = self.container.duration
        if duration is None or self._announces_nothing():
            return None
        return duration / av.time_base

    def _announces_nothing(self) -> bool:
        """Whether what FFmpeg calls the length is a guess, or that of a part."""
        return self.estimated or is_broadcast(self.format) or self.joined

    @property
    def joined(self) -> bool:
        """Whether recordings follow each other in one Matroska file."""
        if not hasattr(self, "_joined"):
            self._joined = False
            if self.format == _MATROSKA:
                with self.ffmpeg("cannot be read"), self.path.open("rb") as file:
                    self._joined = is_joined(file)
        return self._joined

    def length_s(self) -> float:
        """Length of the video: as announced, or else as its packets (not decoded) tell."""
        announced = self.announced_s()
        # Matroska may say where a video ends, or how long it lasts.
        begins_late = self.format == _MATROSKA and (self.container.start_time or 0) > av.time_base
        if announced is not None and announced > 0 and not begins_late:
            return announced
        last_s = first_s = None
        untimed = 0
        with self.ffmpeg("cannot be read"), VideoFile(self.path, self.limits) as again:
            for packet in again.packets():
                time = packet.dts if packet.pts is None else packet.pts
                if packet.stream_index != again.stream.index or not packet.size:
                    continue
                begun = untimed or packet.is_keyframe or not self.may_begin_amid
                untimed += bool(begun) and time is None
                if time is not None:
                    begin = float(time * packet.time_base)
                    end = begin + float((packet.duration or 0) * packet.time_base)
                    first_s = begin if first_s is None else min(first_s, begin)
                    last_s = end if last_s is None else max(last_s, end)
        picture_s = 1 / self.frame_rate_hz
        if last_s is None or first_s is None:  # pictures of a raw stream follow each other
            return max(untimed, 1) * picture_s
        return max(last_s - first_s, picture_s)

    def info(self, first: Picture) -> VideoInfo:
        width, height = first.size()
        return VideoInfo(
            path=self.path,
            codec=self.stream.codec_context.name,
            width=width,
            height=height,
            rotation_deg=first.turn.quarters * 90,
            frame_rate_hz=self.frame_rate_hz,
            duration_s=self.announced_s(),
            declared_frames=self.stream.frames or None,
        )

    def pictures(self, *, from_s: float = 0.0) -> Iterator[Picture]:
        """Decode in order, from the key frame before `from_s`, to the end; then take stock."""
        yield from DecodingPass(self, from_s).run()


def _clock_s(text: str) -> float | None:
    """Seconds of a Matroska duration tag such as 00:00:10.333000000."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)\s*", text)
    if match is None:
        return None
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
