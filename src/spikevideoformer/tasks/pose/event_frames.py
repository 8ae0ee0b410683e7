"""Event frames that a data set stores: of yes and no, one for each of its own frames.

What happened in a stretch of several frames is their union. There are two kinds: packed bits
(``.npy``, ``.npz``), whose channels are united one by one; and PNGs, whose channels follow each
other in time, so that those of a stretch are one row, cut into as many parts as the network has
channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from spikevideoformer.data.pictures import opened
from spikevideoformer.data.problems import DatasetError
from spikevideoformer.events.stream import read_packed_frames
from spikevideoformer.tasks.pose.sequence import PoseIndex
from spikevideoformer.tasks.pose.spec import PoseSpec
from spikevideoformer.tasks.pose.square import Square
from spikevideoformer.video.interface import VideoError

_CHANNELS_OF_MODE = {"1": 1, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


def stored_event_input(
    stretches: Sequence[Sequence[Path | None]],
    height: int,
    width: int,
    square: Square,
    spec: PoseSpec,
) -> Float[Tensor, "T C size size"]:
    """Event frames of a data set, those of each stretch united.

    Each pixel of the input is the mean of those it covers. With ``event_mode`` count packed frames
    are added up instead.

    Args:
        stretches: files of each frame of the network; None where nothing is known of one.
        height: of the frames.
        width: of the frames.
        square: what of them is seen.
        spec: size and channels.

    Raises:
        ValueError: a file that holds no such frame.
    """
    frames = []
    for paths in stretches:
        files = [path for path in paths if path is not None]
        if files and files[0].suffix.lower() == ".png":
            frames.append(_united(files, height, width, spec.channels.count))
            continue
        frame = torch.zeros(spec.channels.count, height, width)
        for path in files:
            frame += _packed(path, height, width, spec.channels.count)
        frames.append(frame.sign() if spec.channels.mode == "binary" else frame)
    seen = torch.stack(frames).permute(0, 2, 3, 1)
    part = square.part(seen, torch.zeros(spec.channels.count)).permute(0, 3, 1, 2)
    return F.interpolate(part, (spec.size, spec.size), mode="area")


def _packed(path: Path, height: int, width: int, channels: int) -> Float[Tensor, "C H W"]:
    stored = read_packed_frames(path, height=height, width=width, channels=channels)
    if len(stored) != 1:
        raise DatasetError(f"{path} holds {len(stored)} event frames; expected one")
    return stored[0]


def _united(paths: Sequence[Path], height: int, width: int, parts: int) -> Float[Tensor, "C H W"]:
    """The channels of all files in a row, each part of which is whether anything was in it.

    All parts are as long but the last, which has the rest (EventHPE, ``dataloader.py``).
    """
    row = torch.cat([read_event_png(path) for path in paths])
    if row.shape[1:] != (height, width):
        raise DatasetError(f"{paths[0]} is not {height}x{width}, as its data set has event frames")
    if len(row) < parts:
        raise DatasetError(
            f"{paths[0]}: a stretch of {len(paths)} event frames has {len(row)} channels, fewer "
            f"than the {parts} of the network; take longer ones (a lower frame_rate_hz, a larger "
            "pose.gap), or fewer pose.bins"
        )
    length = len(row) // parts
    edges = [*range(0, parts * length, length), len(row)]
    return torch.stack([row[a:b].any(0) for a, b in pairwise(edges)]).float()


def read_event_png(path: Path) -> torch.Tensor:
    """Which pixels of an event frame saw something: bool ``[C, H, W]``, in the order of time.

    OpenCV wrote the first channel as blue, the third as red.

    Raises:
        ValueError: no such file, damage, or pixels of another kind.
    """
    with opened(path, VideoError, ("PNG",)) as image:
        if image.mode not in _CHANNELS_OF_MODE:
            raise VideoError(path, f"holds pixels of kind {image.mode}; expected 1 to 4 channels")
        pixels = np.array(image)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if pixels.shape[2] >= 3:
        pixels = pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]]
    return torch.from_numpy(pixels != 0).permute(2, 0, 1)


def refuse_other_channels(index: PoseIndex, spec: PoseSpec) -> None:
    """Raise DatasetError where stored event frames cannot have the channels of the spec."""
    if spec.input != "events":
        return
    channels = spec.channels
    for sequence in index.sequences:
        stored = sequence.event_channels
        if not sequence.events:
            continue
        if channels.mode == "voxel" or channels.polarity not in ("both", "merged"):
            raise DatasetError(
                f"{index.root} has event frames of its own, which say for both polarities whether"
                " there was an event: take a model of them, or set polarity to both and event_mode"
                f" to count or binary, got {channels.polarity} and {channels.mode}"
            )
        if stored is not None and stored != channels.count:
            wanted = "both" if stored % 2 == 0 else "merged"
            bins = stored // 2 if stored % 2 == 0 else stored
            raise DatasetError(
                f"{index.root} has event frames of {stored} channels, and the settings make "
                f"{channels.count}: set polarity to {wanted} and bins to {bins}"
            )
