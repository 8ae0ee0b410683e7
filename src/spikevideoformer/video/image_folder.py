"""A folder of images, taken as a video."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path

import av
import av.logging

from spikevideoformer.video.ffmpeg import Ffmpeg, os_reason
from spikevideoformer.video.interface import (
    IMAGE_SUFFIXES,
    DecodeLimits,
    VideoError,
    VideoInfo,
    check_frame_size,
    check_total,
    natural_key,
)
from spikevideoformer.video.picture import Picture
from spikevideoformer.video.stills import pages_and_turn


class ImageFolder:
    """A folder of images, in natural order, as a video of constant frame rate."""

    def __init__(self, path: Path, limits: DecodeLimits, frame_rate_hz: float) -> None:
        self.path, self.limits, self.frame_rate_hz = path, limits, frame_rate_hz
        try:
            files = [f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES]
        except OSError as error:
            raise VideoError(path, f"cannot be listed: {os_reason(error)}") from error
        self.images = sorted((f for f in files if not f.name.startswith(".")), key=natural_key)
        if not self.images:
            endings = " ".join(sorted(IMAGE_SUFFIXES))
            raise VideoError(
                path, f"a folder without images ({endings}); give a video file instead?"
            )
        self._refuse_doubles()
        check_total(path, len(self.images), 0, limits)

    def _refuse_doubles(self) -> None:
        """A picture under two endings would be shown twice."""
        seen: dict[str, Path] = {}
        for image in self.images:
            first = seen.setdefault(image.stem, image)
            if first is not image:
                raise VideoError(
                    self.path,
                    f"repeated frame: {first.name} and {image.name} have one name; keep one of the "
                    "two kinds in the folder",
                )

    def __enter__(self) -> ImageFolder:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def length_s(self) -> float:
        """Length of the video: one slot per image."""
        return len(self.images) / self.frame_rate_hz

    def info(self, first: Picture) -> VideoInfo:
        width, height = first.size()
        return VideoInfo(
            path=self.path,
            codec="images",
            width=width,
            height=height,
            rotation_deg=first.turn.quarters * 90,
            frame_rate_hz=self.frame_rate_hz,
            duration_s=self.length_s(),
            declared_frames=len(self.images),
        )

    def pictures(self, *, from_s: float = 0.0) -> Iterator[Picture]:
        """Decode in order, from the image before `from_s`."""
        size = None
        begin = min(max(0, math.floor(from_s * self.frame_rate_hz) - 1), len(self.images) - 1)
        pixels = 0
        for index in range(begin, len(self.images)):
            picture = self._image(index)
            size = size or picture.size()
            if picture.size() != size:
                raise VideoError(
                    self.path,
                    f"{self.images[index].name} is {'x'.join(map(str, picture.size()))}, "
                    f"{self.images[begin].name} is {'x'.join(map(str, size))}; "
                    "all images of a sequence must have one size; for pictures that are no video "
                    "give --stills (svf predict) or the files themselves",
                )
            pixels += size[0] * size[1]
            check_total(self.path, index + 1, pixels, self.limits)
            yield picture

    def _image(self, index: int) -> Picture:
        image = self.images[index]
        ffmpeg = Ffmpeg(self.path, within=f"{image.name}: ")
        with ffmpeg("cannot be read"):
            # Opened by us: FFmpeg takes a % in the name of an image for a pattern.
            data = image.read_bytes()
        pages, turn = pages_and_turn(data)
        if pages > 1:
            raise ffmpeg.error(
                f"holds {pages} pictures; give the file itself to see them as a video, or save "
                "them one by one"
            )
        with (
            ffmpeg("cannot be decoded") as messages,
            av.open(io.BytesIO(data), "r", metadata_errors="replace") as container,
        ):
            if not container.streams.video:
                raise ffmpeg.error("not an image")
            stream = container.streams.video[0]
            context = stream.codec_context
            check_frame_size(self.path, context.width, context.height, self.limits)
            context.thread_type, context.thread_count = "NONE", 1
            if self.limits.max_frame_pixels is not None:
                context.options = {"max_pixels": str(max(self.limits.max_frame_pixels, 128 * 128))}
            frame = next(container.decode(stream), None)
            said = [text for level, name, text in messages if level <= av.logging.ERROR]
            if frame is None or frame.is_corrupt or said:
                raise ffmpeg.error(f"damaged ({said[-1] if said else 'no picture in it'})")
        return Picture(frame, index / self.frame_rate_hz, 1 / self.frame_rate_hz, turn)
