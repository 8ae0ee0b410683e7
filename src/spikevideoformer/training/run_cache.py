"""The cache of a run: how large it may be, and one line about it."""

from __future__ import annotations

import logging
import sys

from spikevideoformer.data.frame_cache import FrameCache
from spikevideoformer.training.config import TrainConfig
from spikevideoformer.training.memory import available_bytes

log = logging.getLogger(__name__)

_SHARES = {"auto": (0.25, "a quarter"), "memory": (0.75, "three quarters"), "off": (0.0, "none")}


class RunCache:
    """What all data sets of a training process keep their pictures in.

    Args:
        config: of the run; its `cache` decides.
        processes: of the run; each takes its part of the share.

    Attributes:
        frames: the cache.
    """

    def __init__(self, config: TrainConfig, processes: int) -> None:
        share, words = _SHARES[str(config.cache)]
        available = available_bytes() // processes
        self._within = f"{words} of the {_size(available)} available"
        if processes > 1:
            self._within += f" to each of {processes} processes"
        self._told = config.cache == "off"
        copies = 1 if sys.platform == "linux" else 1 + 2 * config.workers  # not forked: not shared
        try:
            self.frames = FrameCache(int(share * available) // copies)
        except OSError as error:
            log.info("no cache: %s are not to be had (%s)", self._within, error.strerror)
            self.frames, self._told = FrameCache(), True

    def tell(self) -> None:
        """Log what is kept; once, to be called when all clips have been read."""
        if self._told:
            return
        self._told = True
        frames, others = self.frames, ""
        if not (frames.kept or frames.refused or frames.full):
            return  # the task keeps none
        if frames.refused:
            others = f"; left out, too long or damaged: {frames.refused}"
        if frames.full:
            others = "; there is no room for the others, which are decoded each time"
        log.info(
            "caching %d files in memory: %s, within %s%s",
            frames.kept,
            _size(frames.used_bytes),
            self._within,
            others,
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
