"""Clips of bodies as model input: the square that is cut out, the truth in it, and the data set.

A square of the picture becomes the input; points and the camera go with it. A pinhole camera stays
one when its picture is cut and scaled, so poses in space stay exact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from spikevideoformer.body.skeleton import BodyModel
from spikevideoformer.data.frame_cache import FrameCache, pictures_at
from spikevideoformer.data.pictures import read_picture
from spikevideoformer.data.problems import DatasetError
from spikevideoformer.data.specs import Augmentation
from spikevideoformer.data.transforms import coloured, normalised, resized, scaled
from spikevideoformer.events.camera import EventSimulator
from spikevideoformer.events.recording import open_recording
from spikevideoformer.events.stream import EventAccumulator, EventStream, read_packed_frames
from spikevideoformer.tasks.pose.sequence import (
    PoseIndex,
    PoseSequence,
    shape_values,
    window_positions,
)
from spikevideoformer.tasks.pose.spec import PoseSpec
from spikevideoformer.video.event_pictures import is_event_file
from spikevideoformer.video.frames import DecodeLimits, iter_frames, read_clip
from spikevideoformer.video.spec import ClipSpec

PERSON_MARGIN = 1.25
"""Side of the square around a person, over the larger extent of the labelled joints."""
MOST_SIDE = 4
"""Side of a square over the longer side of the picture, at most: a cut holds all of it in memory,
and points that are labelled wrongly can ask for any."""
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, section 2.5.1

# --- The square -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Square:
    """The part of a picture that the network sees, in whole pixels; may reach over its borders."""

    left: int
    top: int
    side: int

    @classmethod
    def of_picture(cls, height: int, width: int) -> Square:
        """The smallest square, in the middle, that shows the whole picture."""
        side = max(height, width)
        return cls(left=(width - side) // 2, top=(height - side) // 2, side=side)

    @classmethod
    def of_person(cls, points: Float[np.ndarray, "*n 2"]) -> Square | None:
        """Around points (x, y) in pixels, those that are NaN left out; None where there are none.

        Its side is `PERSON_MARGIN` times their larger extent.
        """
        known = points[np.isfinite(points).all(-1)]
        if not len(known):
            return None
        low, high = known.min(0), known.max(0)
        side = max(2, round(float((high - low).max()) * PERSON_MARGIN))
        left, top = (round(float(middle) - side / 2) for middle in (low + high) / 2)
        return cls(left=left, top=top, side=side)

    def moved(self, zoom: float, right: float, down: float) -> Square:
        """Another one, its side times `zoom`, its middle moved by parts of the side."""
        side = max(2, round(self.side * zoom))
        left = round(self.left + self.side * (0.5 + right) - side / 2)
        return Square(
            left=left, top=round(self.top + self.side * (0.5 + down) - side / 2), side=side
        )

    def to_input(self, points: Float[np.ndarray, "*n 2"], size: int) -> Float[np.ndarray, "*n 2"]:
        """Points of the picture as points of an input of `size` pixels."""
        return (points - np.array([self.left, self.top])) * (size / self.side)

    def cut(self, pictures: Tensor, size: int, margin: Tensor) -> Tensor:
        """The square as pictures of `size` pixels.

        Args:
            pictures: [T, H, W, C], uint8.
            size: height and width of the result.
            margin: colour [C] of what lies outside of the picture.

        Returns:
            [T, C, size, size].
        """
        return resized(self.part(pictures, margin), (size, size))

    def part(self, pictures: Tensor, margin: Tensor) -> Tensor:
        """The same as `cut`, in the pixels of the pictures and any type: [T, side, side, C]."""
        bottom, right = self.top + self.side, self.left + self.side
        inside = pictures[:, max(0, self.top) : max(0, bottom), max(0, self.left) : max(0, right)]
        if inside.shape[1:3] == (self.side, self.side):
            return inside
        whole = margin.to(pictures).expand(len(pictures), self.side, self.side, -1).clone()
        if inside.numel():
            y, x = max(0, -self.top), max(0, -self.left)
            whole[:, y : y + inside.shape[1], x : x + inside.shape[2]] = inside
        return whole


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
        luma = video.new_tensor(_LUMA).view(1, 3, 1, 1)
        video = (video * luma).sum(1, keepdim=True).expand(-1, 3, -1, -1)
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


def _stored_event_input(
    stretches: Sequence[Sequence[Path]], height: int, width: int, square: Square, spec: PoseSpec
) -> Float[Tensor, "T C size size"]:
    """Packed event frames of a data set, the sum of those of each stretch.

    Each pixel of the input is the mean of those it covers.
    """
    channels = spec.channels
    frames = []
    for paths in stretches:
        frame = torch.zeros(channels.count, height, width)
        for path in paths:
            stored = read_packed_frames(path, height=height, width=width, channels=channels.count)
            if len(stored) != 1:
                raise DatasetError(f"{path} holds {len(stored)} event frames; expected one")
            frame += stored[0]
        frames.append(frame.sign() if channels.mode == "binary" else frame)
    seen = torch.stack(frames).permute(0, 2, 3, 1)
    part = square.part(seen, torch.zeros(channels.count)).permute(0, 3, 1, 2)
    return F.interpolate(part, (spec.size, spec.size), mode="area")


# --- Items and batches ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PoseClip:
    """One window of a sequence as model input, with what is known of the body in it (else NaN).

    Args:
        video: normalised frames.
        joints: in metres, camera coordinates.
        points: the joints in pixels of the input.
        rotations: of joints against their parents.
        shape: shape values, as the body counts them.
        focal_px: focal lengths in pixels of the input.
        centre_px: principal point, likewise.
        fresh: frames that no earlier window of the sequence shows.
        sequence: index of the sequence.
    """

    video: Float[Tensor, "T C size size"]
    joints: Float32[Tensor, "T J 3"]
    points: Float32[Tensor, "T J 2"]
    rotations: Float32[Tensor, "T J 3 3"]
    shape: Float32[Tensor, " S"]
    focal_px: Float32[Tensor, " 2"]
    centre_px: Float32[Tensor, " 2"]
    fresh: Bool[Tensor, " T"]
    sequence: int


_FIELDS = ("video", "joints", "points", "rotations", "shape", "focal_px", "centre_px", "fresh")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PoseBatch:
    """Windows of one forward pass; the fields are those of `PoseClip`, stacked."""

    video: Float[Tensor, "B T C size size"]
    joints: Float32[Tensor, "B T J 3"]
    points: Float32[Tensor, "B T J 2"]
    rotations: Float32[Tensor, "B T J 3 3"]
    shape: Float32[Tensor, "B S"]
    focal_px: Float32[Tensor, "B 2"]
    centre_px: Float32[Tensor, "B 2"]
    fresh: Bool[Tensor, "B T"]
    sequences: Int64[Tensor, " B"]

    def __len__(self) -> int:
        return len(self.video)

    def window(self, i: int) -> PoseBatch:
        """A batch of one of its windows."""
        return PoseBatch(**{name: values[i : i + 1] for name, values in vars(self).items()})

    def pin_memory(self) -> PoseBatch:
        """The batch in page-locked memory; the loader calls this where it is asked to pin."""
        values = {name: getattr(self, name).pin_memory() for name in _FIELDS}
        return PoseBatch(**values, sequences=self.sequences)

    def to(self, device: torch.device | str) -> PoseBatch:
        """The batch on `device`."""
        values = {name: getattr(self, name).to(device, non_blocking=True) for name in _FIELDS}
        return PoseBatch(**values, sequences=self.sequences)


def collate_poses(items: Sequence[PoseClip]) -> PoseBatch:
    """Stack items into a batch: the loader's ``collate_fn``."""
    values = {name: torch.stack([getattr(item, name) for item in items]) for name in _FIELDS}
    return PoseBatch(**values, sequences=torch.tensor([item.sequence for item in items]))


# --- The data set ---------------------------------------------------------------------------------


class PoseDataset(Dataset[PoseClip]):
    """Windows of T frames of the sequences of an index.

    The key of an item is `(epoch, i)` as in `ClipDataset`, or i for epoch 0. Without augmentation
    the windows cover every frame (at the spec's frame rate), in order. The last one of a sequence
    may show frames of the one before again; `PoseClip.fresh` leaves these out, so that each frame
    counts once. With augmentation each window begins at random.

    Event frames that a sequence has are used as they are, else they are simulated. An input frame
    is the sum of all since the input frame before it (or whether there was an event, where they are
    to be binary). Before the first frame of a sequence nothing happened.

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
        seed: of the augmentation.
        cache: keeps decoded pictures; None: nothing does. The items are the same, bit for bit.
        limits: against files that unpack to far more than they seem; None: the usual ones.

    Raises:
        DatasetError: the index has problems or no sequence, or its event frames cannot have the
            channels of the spec.
    """

    def __init__(
        self,
        index: PoseIndex,
        spec: PoseSpec,
        body: BodyModel,
        *,
        augmentation: Augmentation | None = None,
        zoom: tuple[float, float] = (1.0, 1.0),
        shift: float = 0.0,
        seed: int = 0,
        cache: FrameCache | None = None,
        limits: DecodeLimits | None = None,
    ) -> None:
        if index.problems or not index.sequences:
            first = f"; first: {index.problems[0]}" if index.problems else ""
            raise DatasetError(
                f"{index.root} has {len(index.sequences)} sequences and {len(index.problems)}"
                f" problems{first}; `check_poses(index).settle()` settles them",
                index.problems,
            )
        channels = spec.channels
        if (channels.polarity != "both" or channels.mode == "voxel") and (
            spec.input == "events" and any(sequence.events for sequence in index.sequences)
        ):
            raise DatasetError(
                f"{index.root} has event frames of its own, which say for both polarities whether"
                " there was an event: take a model of them, or set polarity to both and event_mode"
                f" to count or binary, got {channels.polarity} and {channels.mode}"
            )
        self.index, self.spec = index, spec
        self.augmentation, self.zoom, self.shift, self.seed = augmentation, zoom, shift, seed
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

    def __getitem__(self, key: int | tuple[int, int]) -> PoseClip:
        """One window, decoded and transformed.

        Args:
            key: `(epoch, i)`, or i for epoch 0.

        Raises:
            ValueError: a file cannot be used (any more); names it.
        """
        epoch, i = (0, key) if isinstance(key, int) else key
        if not 0 <= i < len(self):
            raise IndexError(f"item {i} of {len(self)}")
        number, positions, fresh = self.windows[i]
        sequence, truth = self.index.sequences[number], self.index.sequences[number].truth
        step = self.spec.step(sequence.frame_rate_hz)
        colours, move = (1.0, 1.0, 1.0), (1.0, 0.0, 0.0)
        if self.augmentation is not None:
            generator = _generator(self.seed, epoch, i)
            # Always the same draws, so that switching one part off leaves the others as they are.
            start, zoom, right, down, *draws = torch.rand(
                7, generator=generator, dtype=torch.float64
            ).tolist()
            last = len(sequence) - 1 - (self.spec.frames - 1) * step
            if last > 0:
                begin = int(start * (last + 1))
                positions = list(range(begin, begin + self.spec.frames * step, step))
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
        if spec.input == "events" and not stored:
            # every picture since the moment at which the first frame begins
            before = max(0, positions[0] - step)
            wanted = list(range(before, positions[-1] + 1))
        else:
            wanted = positions[:1] if stored else positions
        pictures = self._read(sequence, wanted)
        H, W = pictures.shape[1:3]
        square = self._square(H, W, sequence, positions, move)
        if spec.input != "events":
            return picture_input(pictures, square, spec, colours), square
        # The last frame of a short sequence is repeated: nothing happens then.
        moments = sorted(set(positions))
        if stored:
            stretches = [sequence.events[max(0, p - step + 1) : p + 1] for p in moments]
            video = _stored_event_input(stretches, H, W, square, spec)
        else:
            rate = sequence.frame_rate_hz
            borders = [(moments[0] - step) / rate, *(p / rate for p in moments)]
            video = event_input(pictures, [p / rate for p in wanted], borders, square, spec)
        return F.pad(video, (0, 0, 0, 0, 0, 0, 0, len(positions) - len(moments))), square

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
        recording, rate = open_recording(path, self.spec.events), sequence.frame_rate_hz
        square = self._square(recording.height, recording.width, sequence, positions, move)
        moments = sorted(set(positions))
        first = max(0, moments[0] - step)
        slices = islice(recording.slices(rate, first=first), moments[-1] + 1 - first)
        borders = [(moments[0] - step) / rate, *(p / rate for p in moments)]
        video = recorded_event_input(slices, borders, square, self.spec)
        return F.pad(video, (0, 0, 0, 0, 0, 0, 0, len(positions) - len(moments))), square

    def _read(self, sequence: PoseSequence, positions: list[int]) -> UInt8[Tensor, "n H W 3"]:
        """Pictures of a sequence."""
        files = sequence.pictures
        if isinstance(files, tuple):
            return torch.stack([self._picture(files[p]) for p in positions])
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


def _check_length(path: Path, pictures: int, sequence: PoseSequence) -> None:
    if pictures < len(sequence):
        raise DatasetError(
            f"{path} has {pictures} pictures and {len(sequence)} poses; give a video"
            " with a picture for each pose"
        )


def _generator(seed: int, epoch: int, item: int) -> torch.Generator:
    """A generator for one item; neighbouring numbers give unrelated streams."""
    digest = hashlib.blake2b(f"pose {seed} {epoch} {item}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
