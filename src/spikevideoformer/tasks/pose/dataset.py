"""Clips of bodies as model input: the square that is cut out, the truth in it, and the data set.

A square of the picture becomes the input; points and the camera go with it. A pinhole camera stays
one when its picture is cut and scaled, so poses in space stay exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor

from spikevideoformer.body.skeleton import BodyModel
from spikevideoformer.data.frame_cache import FrameCache, pictures_at
from spikevideoformer.data.items import Items
from spikevideoformer.data.pictures import read_picture
from spikevideoformer.data.problems import DatasetError
from spikevideoformer.data.specs import Augmentation
from spikevideoformer.data.transforms import coloured, grey, normalised, resized, scaled
from spikevideoformer.events.camera import EventSimulator
from spikevideoformer.events.recording import open_recording
from spikevideoformer.events.stream import EventAccumulator, EventStream
from spikevideoformer.tasks.pose.event_frames import refuse_other_channels, stored_event_input
from spikevideoformer.tasks.pose.sequence import (
    PoseIndex,
    PoseSequence,
    shape_values,
    window_positions,
)
from spikevideoformer.tasks.pose.spec import PoseSpec
from spikevideoformer.tasks.pose.square import MOST_SIDE, Square
from spikevideoformer.video.clip import Batch
from spikevideoformer.video.event_pictures import is_event_file
from spikevideoformer.video.frames import DecodeLimits, iter_frames, read_clip
from spikevideoformer.video.spec import ClipSpec

# --- Frames as input ------------------------------------------------------------------------------


def picture_input(
    pictures: UInt8[Tensor, "T H W 3"],
    square: Square,
    spec: PoseSpec,
    colours: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Float[Tensor, "T 3 size size"]:
    """Pictures as the network sees them, for an input of rgb or grey.

    Args:
        pictures: RGB.
        square: what of them is seen; outside of the picture is the mean colour, after
            normalisation zero.
        spec: size, input and normalisation.
        colours: factors of brightness, contrast and saturation.
    """
    margin = (255 * torch.tensor(spec.mean)).round()
    video = scaled(square.cut(pictures, spec.size, margin))
    if colours != (1.0, 1.0, 1.0):
        video = coloured(video, *colours)
    if spec.input == "grey":
        video = grey(video).expand(-1, 3, -1, -1)
    return normalised(video, ClipSpec(frames=1, size=1, mean=spec.mean, std=spec.std))


def event_input(
    pictures: UInt8[Tensor, "N H W 3"],
    times_s: Sequence[float],
    borders_s: Sequence[float],
    square: Square,
    spec: PoseSpec,
) -> Float[Tensor, "T C size size"]:
    """What an event camera sees between moments, simulated from pictures.

    The camera sees the square, one pixel to a pixel of the network, and is switched on at the
    first picture.

    Args:
        pictures: RGB, all those between the first and the last border.
        times_s: when each appears; rises.
        borders_s: T + 1 rising times; frame i holds the events after border i, up to border i + 1.
        square: what of them is seen.
        spec: size, channels and camera.
    """
    accumulator = EventAccumulator(borders_s, spec.channels, height=spec.size, width=spec.size)
    simulator = EventSimulator(spec.camera)
    margin = (255 * torch.tensor(spec.mean)).round()
    seen = square.cut(pictures, spec.size, margin).permute(0, 2, 3, 1).numpy()
    for image, time_s in zip(seen, times_s, strict=True):
        accumulator.add(simulator.step(image, time_s))
    return accumulator.frames()


def recorded_event_input(
    streams: Iterable[EventStream], borders_s: Sequence[float], square: Square, spec: PoseSpec
) -> Float[Tensor, "T C size size"]:
    """What an event camera saw between moments.

    Args:
        streams: of events, in order.
        borders_s: T + 1 rising times; frame i holds the events after border i, up to border i + 1.
        square: what of them is seen; where it has fewer pixels than the input, each is repeated.
        spec: size and channels.
    """
    side = min(square.side, spec.size)
    accumulator = EventAccumulator(borders_s, spec.channels, height=side, width=side)
    for stream in streams:
        x, y = stream.x.astype(np.int32) - square.left, stream.y.astype(np.int32) - square.top
        inside = (x >= 0) & (x < square.side) & (y >= 0) & (y < square.side)
        accumulator.add(
            EventStream.trusted(
                t_s=stream.t_s[inside],
                x=x[inside],
                y=y[inside],
                polarity=stream.polarity[inside],
                height=square.side,
                width=square.side,
                path=stream.path,
            )
        )
    return F.interpolate(accumulator.frames(), (spec.size, spec.size), mode="nearest")


def filled(video: Tensor | None, spec: PoseSpec) -> Float[Tensor, "T C size size"]:
    """Frames of events, and those in which nothing happens because poses are repeated."""
    if video is None:
        return torch.zeros(spec.frames, spec.in_channels, spec.size, spec.size)
    return F.pad(video, (0, 0, 0, 0, 0, 0, 0, spec.frames - len(video)))


# --- Items and batches ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PoseClip:
    """One window of a sequence as model input, with what is known of the body in it (else NaN).

    It has T frames and P poses, as many or one more (`PoseSpec.poses`).

    Args:
        video: normalised frames.
        joints: in metres, camera coordinates.
        points: the joints in pixels of the input.
        rotations: of joints against their parents.
        shape: shape values, as the body counts them.
        focal_px: focal lengths in pixels of the input.
        centre_px: principal point, likewise.
        fresh: poses that no earlier window of the sequence shows.
        sequence: index of the sequence.
    """

    video: Float[Tensor, "T C size size"]
    joints: Float32[Tensor, "P J 3"]
    points: Float32[Tensor, "P J 2"]
    rotations: Float32[Tensor, "P J 3 3"]
    shape: Float32[Tensor, " S"]
    focal_px: Float32[Tensor, " 2"]
    centre_px: Float32[Tensor, " 2"]
    fresh: Bool[Tensor, " P"]
    sequence: int


_FIELDS = ("video", "joints", "points", "rotations", "shape", "focal_px", "centre_px", "fresh")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PoseBatch(Batch):
    """Windows of one forward pass; the fields are those of `PoseClip`, stacked."""

    video: Float[Tensor, "B T C size size"]
    joints: Float32[Tensor, "B P J 3"]
    points: Float32[Tensor, "B P J 2"]
    rotations: Float32[Tensor, "B P J 3 3"]
    shape: Float32[Tensor, "B S"]
    focal_px: Float32[Tensor, "B 2"]
    centre_px: Float32[Tensor, "B 2"]
    fresh: Bool[Tensor, "B P"]
    sequences: Int64[Tensor, " B"]

    _stays = ("sequences",)

    def window(self, i: int) -> PoseBatch:
        """A batch of one of its windows."""
        return PoseBatch(**{name: values[i : i + 1] for name, values in vars(self).items()})


def collate_poses(items: Sequence[PoseClip]) -> PoseBatch:
    """Stack items into a batch: the loader's ``collate_fn``."""
    values = {name: torch.stack([getattr(item, name) for item in items]) for name in _FIELDS}
    return PoseBatch(**values, sequences=torch.tensor([item.sequence for item in items]))


# --- The data set ---------------------------------------------------------------------------------


class PoseDataset(Items[PoseClip]):
    """Windows of T frames of the sequences of an index.

    Without augmentation they cover every frame (at the spec's frame rate), in order. The last one
    of a sequence may show frames of the one before again; `PoseClip.fresh` leaves these out, so
    that each frame counts once. With augmentation each window begins at random.

    Event frames that a sequence has are used as they are, else they are simulated. An input frame
    is the sum of all since the input frame before it (or whether there was an event, where they are
    to be binary). Before the first frame of a sequence nothing happened. Where poses lie between
    frames, a window has a pose before its first frame, too: the last one of the window before it.

    Args:
        index: one split, checked (without problems).
        spec: how frames become model input. A square around the person that is more than
            `MOST_SIDE` times as large as the picture is taken for a mistake; then the whole picture
            is seen.
        body: which counts the shape values; with the joints of the index.
        augmentation: colours of training clips; None: evaluation. Events have no colours, and stay
            as they are.
        zoom: range of the factor on the side of the square, for training.
        shift: how far its middle moves at most, as part of its side, for training.
        gap: pictures from one frame of a training clip to the next, drawn between these two for
            each clip; None: as the frame rate of the spec says.
        seed: of the augmentation.
        cache: keeps decoded pictures; None: nothing does. The items are the same, bit for bit.
        limits: against files that unpack to far more than they seem; None: the usual ones.

    Raises:
        DatasetError: the index has problems or no sequence, or its event frames cannot have the
            channels of the spec.
    """

    drawn = "pose"
    checked_by = "check_poses"
    spec: PoseSpec

    def __init__(
        self,
        index: PoseIndex,
        spec: PoseSpec,
        body: BodyModel,
        *,
        augmentation: Augmentation | None = None,
        zoom: tuple[float, float] = (1.0, 1.0),
        shift: float = 0.0,
        gap: tuple[int, int] | None = None,
        seed: int = 0,
        cache: FrameCache | None = None,
        limits: DecodeLimits | None = None,
    ) -> None:
        super().__init__(index, spec, augmentation, seed)
        if not index.sequences:
            raise DatasetError(f"no sequence of {index.root} is left; choose a split that has some")
        refuse_other_channels(index, spec)
        self.index, self.zoom, self.shift, self.gap = index, zoom, shift, gap
        self._limits = limits or DecodeLimits()
        self._shapes = [shape_values(sequence, body) for sequence in index.sequences]
        self.windows = [
            (number, positions, fresh)
            for number, sequence in enumerate(index.sequences)
            for positions, fresh in window_positions(
                len(sequence), spec, spec.step(sequence.frame_rate_hz)
            )
        ]
        self._cache = cache or FrameCache()

    def __len__(self) -> int:
        return len(self.windows)

    def item(self, i: int, generator: torch.Generator | None) -> PoseClip:
        """As `Items`."""
        number, positions, fresh = self.windows[i]
        sequence, truth = self.index.sequences[number], self.index.sequences[number].truth
        step = self.spec.step(sequence.frame_rate_hz)
        colours, move = (1.0, 1.0, 1.0), (1.0, 0.0, 0.0)
        if self.augmentation is not None and generator is not None:
            # Always the same draws, so that switching one part off leaves the others as they are.
            start, zoom, right, down, *draws = torch.rand(
                7, generator=generator, dtype=torch.float64
            ).tolist()
            poses = len(positions)
            if self.gap is not None:
                # those for which the sequence is long enough
                gaps = [
                    g
                    for g in range(self.gap[0], self.gap[1] + 1)
                    if (poses - 1) * g < len(sequence)
                ]
                draw = torch.rand(1, generator=generator, dtype=torch.float64).item()
                step = gaps[int(draw * len(gaps))] if gaps else step
            last = len(sequence) - 1 - (poses - 1) * step
            if last >= 0:
                begin = int(start * (last + 1))
                positions = list(range(begin, begin + poses * step, step))
                fresh = [True] * len(positions)
            low, high = self.zoom
            move = (
                low + (high - low) * zoom,
                self.shift * (2 * right - 1),
                self.shift * (2 * down - 1),
            )
            a = self.augmentation
            b, c, s = (
                1 + strength * (2 * draw - 1)
                for strength, draw in zip(
                    (a.brightness, a.contrast, a.saturation), draws, strict=True
                )
            )
            colours = (b, c, s)
        video, square = self._input(number, positions, step, move, colours)
        size, scale = self.spec.size, self.spec.size / square.side
        points = square.to_input(truth.points[positions], size).astype(np.float32)
        rotations = truth.rotations
        if rotations is None:
            rotations = np.full(
                (len(truth.joints), truth.joints.shape[1], 3, 3), np.nan, np.float32
            )
        centre = square.to_input(np.array(truth.centre_px), size)
        return PoseClip(
            video=video,
            joints=torch.from_numpy(truth.joints[positions]),
            points=torch.from_numpy(points),
            rotations=torch.from_numpy(rotations[positions]),
            shape=self._shapes[number],
            focal_px=torch.tensor(truth.focal_px) * scale,
            centre_px=torch.from_numpy(centre.astype(np.float32)),
            fresh=torch.tensor(fresh),
            sequence=number,
        )

    def _input(
        self,
        number: int,
        positions: list[int],
        step: int,
        move: tuple[float, float, float],
        colours: tuple[float, float, float],
    ) -> tuple[Float[Tensor, "T C size size"], Square]:
        """The frames at these positions as model input, and what of the picture they show."""
        sequence, spec = self.index.sequences[number], self.spec
        files = sequence.pictures
        if spec.input == "events" and isinstance(files, Path) and is_event_file(files):
            return self._recorded(files, sequence, positions, step, move)
        stored = spec.input == "events" and bool(sequence.events)
        edges = _edges(positions, step, spec)
        if spec.input == "events" and not stored:
            # every picture since the moment at which the first frame begins
            wanted = list(range(max(0, edges[0]), positions[-1] + 1))
        else:
            wanted = positions[:1] if stored else positions
        if stored and sequence.size_px is not None:
            H, W = sequence.size_px
        else:
            pictures = self._read(sequence, wanted)
            H, W = pictures.shape[1:3]
        square = self._square(H, W, sequence, positions, move)
        if spec.input != "events":
            return picture_input(pictures, square, spec, colours), square
        if len(edges) < 2:
            return filled(None, spec), square
        if stored:
            stretches = [sequence.events[max(0, a + 1) : b + 1] for a, b in pairwise(edges)]
            return filled(stored_event_input(stretches, H, W, square, spec), spec), square
        rate = sequence.frame_rate_hz
        times, borders = [p / rate for p in wanted], [p / rate for p in edges]
        return filled(event_input(pictures, times, borders, square, spec), spec), square

    def _square(
        self,
        height: int,
        width: int,
        sequence: PoseSequence,
        positions: list[int],
        move: tuple[float, float, float],
    ) -> Square:
        """What is seen of pictures of this size."""
        square = Square.of_picture(height, width)
        if self.spec.crop == "person":
            person = Square.of_person(sequence.truth.points[positions])
            if person is not None and person.side <= MOST_SIDE * square.side:
                square = person
        return square.moved(*move)

    def _recorded(
        self,
        path: Path,
        sequence: PoseSequence,
        positions: list[int],
        step: int,
        move: tuple[float, float, float],
    ) -> tuple[Float[Tensor, "T C size size"], Square]:
        """As `_input`, of a recording that begins with the first pose."""
        spec, rate = self.spec, sequence.frame_rate_hz
        recording = open_recording(path, spec.events)
        square = self._square(recording.height, recording.width, sequence, positions, move)
        edges = _edges(positions, step, spec)
        if len(edges) < 2:
            return filled(None, spec), square
        first = max(0, edges[0])
        slices = islice(recording.slices(rate, first=first), edges[-1] + 1 - first)
        borders = [p / rate for p in edges]
        return filled(recorded_event_input(slices, borders, square, spec), spec), square

    def _read(self, sequence: PoseSequence, positions: list[int]) -> UInt8[Tensor, "n H W 3"]:
        """Pictures of a sequence."""
        files = sequence.pictures
        if isinstance(files, tuple):
            if not files:
                raise DatasetError(
                    f"{sequence.name} has event frames and no pictures; set pose.input to events"
                )
            pictures = torch.stack([self._picture(files[p]) for p in positions])
            if sequence.size_px not in (None, tuple(pictures.shape[1:3])):
                pictures = resized(pictures, sequence.size_px).permute(0, 2, 3, 1)
            return pictures
        kept = self._cache.video(files, resize_short=None, limits=self._limits)
        if kept is not None:
            _check_length(files, len(kept[0]), sequence)
        everything = len(set(positions)) == len(sequence)
        if everything and kept is not None:
            return kept[0][positions]
        if everything:
            images = [f.image for f in iter_frames(files, limits=self._limits)]
            _check_length(files, len(images), sequence)
            return torch.from_numpy(np.stack([images[p] for p in positions]))
        # In the middle of the time at which each is shown, wherever a container rounds to.
        times = [(p + 0.5) / sequence.frame_rate_hz for p in positions]
        if kept is not None:
            return pictures_at(*kept, times)
        spec = ClipSpec(frames=len(times), size=self.spec.size)
        end_s = (positions[-1] + 1) / sequence.frame_rate_hz
        return read_clip(
            files, spec, times_s=times, start_s=times[0], end_s=end_s, limits=self._limits
        ).frames

    def _picture(self, path: Path) -> UInt8[Tensor, "H W 3"]:
        return self._cache.get_or_make(str(path), lambda: [torch.from_numpy(read_picture(path))])[0]


def _edges(positions: Sequence[int], step: int, spec: PoseSpec) -> list[int]:
    """Frames of a sequence between which those of the network lie, in order and each once.

    The last pose of a short sequence is repeated: nothing happens then.
    """
    moments = sorted(set(positions))
    return moments if spec.poses == "between" else [moments[0] - step, *moments]


def _check_length(path: Path, pictures: int, sequence: PoseSequence) -> None:
    if pictures < len(sequence):
        raise DatasetError(
            f"{path} has {pictures} pictures and {len(sequence)} poses; give a video"
            " with a picture for each pose"
        )
