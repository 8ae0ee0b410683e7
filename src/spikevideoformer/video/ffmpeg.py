"""Calls into FFmpeg for one file: what it says stays quiet, what it raises becomes `VideoError`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import av.logging
from av.codec.codec import UnknownCodecError

from spikevideoformer.video.interface import VideoError

# FFmpeg's messages reach us (they say why a file is bad) and nobody else: a logger with a handler
# of its own no longer falls back to printing. Repeated messages are kept, because the second file
# with the same fault must be told apart from a good one.
av.logging.set_level(av.logging.WARNING)
av.logging.set_skip_repeated(False)
logging.getLogger("libav").addHandler(logging.NullHandler())


class Ffmpeg:
    """Runs calls into FFmpeg for one file; its exceptions become `VideoError`."""

    def __init__(self, path: Path, within: str = "") -> None:
        self.path, self.within = path, within

    @contextmanager
    def __call__(self, doing: str) -> Iterator[list[tuple[int, str, str]]]:
        with av.logging.Capture() as messages:
            try:
                yield messages
            except UnknownCodecError as error:
                raise self.error(f"{doing}: FFmpeg has no codec {error}") from error
            except (av.FFmpegError, OSError, OverflowError, UnicodeError, MemoryError) as error:
                reason = os_reason(error)
                said = [m.strip() for level, _, m in messages if level <= av.logging.ERROR]
                if said:
                    reason += f" ({said[-1]})"
                raise self.error(f"{doing}: {reason}") from error

    def error(self, reason: str) -> VideoError:
        return VideoError(self.path, f"{self.within}{reason}")


def os_reason(error: Exception) -> str:
    """What the system says of an error, without the path."""
    return getattr(error, "strerror", None) or str(error)
