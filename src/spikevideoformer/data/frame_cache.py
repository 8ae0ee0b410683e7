"""Decoded pictures in memory, within a budget that all loader processes share."""

from __future__ import annotations

import json
import math
import mmap
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from torch import Tensor

from spikevideoformer.video.frames import (
    PRECISION_S,
    DecodeLimits,
    VideoError,
    iter_frames,
    probe,
)
from spikevideoformer.video.interface import VideoName

_HEAD_BYTES = 64
_END, _FULL, _KEPT, _REFUSED = range(4)  # places of the numbers in the head
_ALIGNED = 8  # so that whatever is kept can be looked at as numbers of 8 bytes
_PATIENCE_S = 10.0  # far longer than a copy takes: then whoever holds the lock was killed


class FrameCache:
    """Tensors by key, in memory that processes forked from here on share.

    What one loader worker decodes, the others find, and so do the workers of the next validation.
    Values are put one after the other, in the order in which they come; none is replaced or
    removed. The first that finds no room closes the cache, so that nobody decodes more than is
    asked for just to fill it. Memory is taken as it is written to, not before.

    A copy that is pickled, as for workers that are not forked, begins empty with the same budget.

    Args:
        budget_bytes: the most it takes; 0 keeps nothing.

    Raises:
        OSError: the system does not promise so much memory.
    """

    def __init__(self, budget_bytes: int = 0) -> None:
        self.budget_bytes = budget_bytes
        # The others of its methods would start a process to watch over the lock.
        self._lock = multiprocessing.get_context("fork" if sys.platform == "linux" else None).Lock()
        # The mapping lives as long as a tensor looks at it. Anonymous: /dev/shm may be small.
        self._bytes = torch.frombuffer(
            mmap.mmap(-1, _HEAD_BYTES + budget_bytes), dtype=torch.uint8
        )  # [head and budget]
        self._head = self._bytes[:_HEAD_BYTES].view(torch.int64)
        self._head[_END] = _HEAD_BYTES
        self._head[_FULL] = int(budget_bytes == 0)
        self._places: dict[str, int] = {}
        self._seen = _HEAD_BYTES  # how far `_places` is up to date

    def __reduce__(self) -> tuple[type[FrameCache], tuple[int]]:
        return type(self), (self.budget_bytes,)

    @property
    def full(self) -> bool:
        """Whether it takes no more."""
        return bool(self._head[_FULL])

    @property
    def used_bytes(self) -> int:
        """What is taken of the budget."""
        return int(self._head[_END]) - _HEAD_BYTES

    @property
    def kept(self) -> int:
        """How many values there are."""
        return int(self._head[_KEPT])

    @property
    def refused(self) -> int:
        """How many videos were left out, too long or damaged."""
        return int(self._head[_REFUSED])

    def get(self, key: str) -> tuple[Tensor, ...] | None:
        """The value of a key, not to be written to; None where there is none."""
        if key not in self._places and self._seen != int(self._head[_END]):
            with self._alone() as alone:
                if alone:
                    self._catch_up()
        place = self._places.get(key)
        return None if place is None else self._read(place)[1]

    def put(self, key: str, value: Sequence[Tensor]) -> None:
        """Keep a value, where there is room for it and the key has none yet.

        Args:
            key: of the value.
            value: tensors on the CPU.
        """
        if self.full:
            return
        forms = [[str(t.dtype).removeprefix("torch."), list(t.shape)] for t in value]
        head = json.dumps([key, forms]).encode()
        with self._alone() as alone:
            if not alone:
                return
            self._catch_up()
            if key not in self._places:
                self._append(head, value)
                self._catch_up()

    def _append(self, head: bytes, value: Sequence[Tensor]) -> None:
        """Write after the last value: the length of the head, the head, and the tensors."""
        begin = self._seen
        place = begin + _aligned(_ALIGNED + len(head))
        end = place + sum(_aligned(t.nbytes) for t in value)
        if end > len(self._bytes):
            self._head[_FULL] = 1
            return
        self._bytes[begin : begin + _ALIGNED].view(torch.int64)[0] = len(head)
        self._write(begin + _ALIGNED, torch.frombuffer(bytearray(head), dtype=torch.uint8))
        for tensor in value:
            self._write(place, tensor.contiguous().flatten().view(torch.uint8))
            place += _aligned(tensor.nbytes)
        self._head[_KEPT if value else _REFUSED] += 1
        self._head[_END] = end  # last: until here nothing has happened

    def get_or_make(self, key: str, make: Callable[[], Sequence[Tensor]]) -> Sequence[Tensor]:
        """The value of a key, made and kept where it is not there yet."""
        value = self.get(key)
        if value is None:
            value = tuple(make())
            self.put(key, value)
        return value

    def video(
        self, path: VideoName, *, resize_short: int | None, limits: DecodeLimits
    ) -> tuple[UInt8[Tensor, "N H W 3"], Float64[Tensor, " N"]] | None:
        """All pictures of a video, decoded where they are not there yet and it is not full.

        Args:
            path: video file or folder of images.
            resize_short: shrink pictures to this short side, in pixels; smaller ones stay.
            limits: see `DecodeLimits`.

        Returns:
            The pictures, and when each appears, in seconds, rising. None where the cache is full,
            where the video is damaged somewhere, or where it would take more than an eighth of the
            budget, since for a moment the process that decodes it needs as much twice more.
        """
        key = f"{resize_short} {path}"
        value = self.get(key)
        if value is None and not self.full:
            value = _all_pictures(path, resize_short, limits, self.budget_bytes // 8)
            self.put(key, value)
        return (value[0], value[1]) if value else None

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Around what only one process may do at a time; False: it can no longer be done."""
        alone = self._lock.acquire(timeout=_PATIENCE_S)
        if not alone:
            self._head[_FULL], self._seen = 1, int(self._head[_END])
        try:
            yield alone
        finally:
            if alone:
                self._lock.release()

    def _catch_up(self) -> None:
        """Learn where the values are that other processes put."""
        end = int(self._head[_END])
        while self._seen < end:
            key, _, after = self._read(self._seen)
            self._places[key] = self._seen
            self._seen = after

    def _read(self, place: int) -> tuple[str, tuple[Tensor, ...], int]:
        """Key and value that stand at a place, and where the next ones do."""
        begin = place + _ALIGNED
        head_bytes = int(self._bytes[place:begin].view(torch.int64)[0])
        key, forms = json.loads(bytes(self._bytes[begin : begin + head_bytes].numpy()))
        place += _aligned(_ALIGNED + head_bytes)
        value = []
        for name, shape in forms:
            dtype: torch.dtype = getattr(torch, name)
            size = math.prod(shape) * dtype.itemsize
            value.append(self._bytes[place : place + size].view(dtype).view(shape))
            place += _aligned(size)
        return key, tuple(value), place

    def _write(self, place: int, data: Tensor) -> None:
        self._bytes[place : place + len(data)] = data


def pictures_at(
    pictures: UInt8[Tensor, "N H W 3"], shown_s: Float64[Tensor, " N"], times_s: Sequence[float]
) -> UInt8[Tensor, "n H W 3"]:
    """What is on screen at these times: the last picture that has appeared, as in `read_clip`.

    Args:
        pictures: all of a video, as `FrameCache.video` gives them.
        shown_s: when each appears.
        times_s: in seconds.
    """
    wanted_s = torch.tensor(times_s, dtype=torch.float64)
    appeared = torch.searchsorted(shown_s, wanted_s + PRECISION_S, right=True)
    return pictures[(appeared - 1).clamp_(min=0)]


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _all_pictures(
    path: VideoName, resize_short: int | None, limits: DecodeLimits, most_bytes: int
) -> tuple[Tensor, ...]:
    """Pictures of a video and when they appear; nothing where they are not to be kept."""
    images, shown_s, size = [], [], 0
    try:
        if _announced_bytes(path, resize_short, limits) > most_bytes:
            return ()
        for frame in iter_frames(path, resize_short=resize_short, limits=limits):
            images.append(frame.image)
            shown_s.append(frame.timestamp_s)
            size += frame.image.nbytes
            if size > most_bytes:
                return ()
    except VideoError:  # a part of it may be whole, and whoever reads that part is told
        return ()
    return torch.from_numpy(np.stack(images)), torch.tensor(shown_s, dtype=torch.float64)


def _announced_bytes(path: VideoName, resize_short: int | None, limits: DecodeLimits) -> float:
    """What all pictures take by what the file says of itself; 0 where it says nothing."""
    info = probe(path, limits=limits)
    short = min(info.width, info.height)
    scale = 1.0 if resize_short is None else min(1.0, resize_short / short)
    frames = info.declared_frames or (info.duration_s or 0.0) * info.frame_rate_hz
    return frames * 3 * info.width * info.height * scale**2
