"""Clips with masks: how sequences are cut, and item i of epoch e as a pure function of the files.

Every labelled frame is in at least one clip. A training clip is anchored at a labelled frame and
begins at random as long as it holds that frame; an evaluation clip ends with a labelled frame where
the sequence reaches back that far, so that few labels (Cityscapes has one in thirty) get all the
context there is. Pictures and masks go through the same scale, crop and flip, alike in all frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from spikevideoformer.data.frame_cache import FrameCache
from spikevideoformer.data.items import Items
from spikevideoformer.data.pictures import read_picture
from spikevideoformer.data.problems import DatasetError
from spikevideoformer.data.specs import Augmentation
from spikevideoformer.data.transforms import (
    checked_pictures,
    coloured,
    normalised,
    resized,
    scaled,
    short_side_size,
)
from spikevideoformer.tasks.segmentation.masks import read_mask
from spikevideoformer.tasks.segmentation.sequence import (
    IGNORED,
    FrameSequence,
    SequenceFrame,
    SequenceIndex,
)
from spikevideoformer.tasks.segmentation.spec import MaskAugmentation as MaskAugmentation
from spikevideoformer.tasks.segmentation.spec import SegmentationSpec
from spikevideoformer.video.clip import Batch

_CROP_ATTEMPTS = 10
"""Draws before a crop that shows little but one class is taken all the same. Source: mmseg."""


@dataclass(frozen=True, kw_only=True)
class ClipCut:
    """Which frames of a sequence make a clip.

    Args:
        sequence: position of the sequence in its index.
        positions: T rising positions in the sequence; where it is too short, the last is repeated.
        fresh: for each, whether it has a mask that no earlier clip of the cutting showed.
    """

    sequence: int
    positions: tuple[int, ...]
    fresh: tuple[bool, ...]


def evaluation_cuts(index: SequenceIndex, spec: SegmentationSpec) -> list[ClipCut]:
    """Clips in which every labelled frame of the index is fresh exactly once, in order of time."""
    return [cut for i, sequence in enumerate(index.sequences) for cut in _cuts(i, sequence, spec)]


def _cuts(i: int, sequence: FrameSequence, spec: SegmentationSpec) -> list[ClipCut]:
    span = (spec.frames - 1) * spec.step
    waiting = [p for p, frame in enumerate(sequence.frames) if frame.label is not None]
    left = set(waiting)
    cuts = []
    for first in waiting:
        if first not in left:
            continue
        end = max(p for p in range(first, first + span + 1, spec.step) if p in left)
        positions = _positions(end - span, len(sequence), spec)
        fresh = _first_of_its_kind(positions, left)
        left -= set(positions)
        cuts.append(ClipCut(sequence=i, positions=positions, fresh=fresh))
    return cuts


def _positions(start: int, length: int, spec: SegmentationSpec) -> tuple[int, ...]:
    """T positions from `start`, or from the first of its phase; the last one that is there repeats.

    A sequence that is too short is repeated at its end and not at its beginning: a neuron at rest
    then sees what it saw in training.
    """
    if start < 0:
        start %= spec.step
    steps = [start + k * spec.step for k in range(spec.frames)]
    last = max(p for p in steps if p < length)
    return tuple(min(p, last) for p in steps)


def _first_of_its_kind(positions: Sequence[int], left: set[int]) -> tuple[bool, ...]:
    return tuple(p in left and p not in positions[:k] for k, p in enumerate(positions))


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentationClip:
    """One item of a data set, before it is batched.

    Args:
        video: one normalised clip.
        labels: class index of each pixel, or `IGNORED`; for evaluation in the size of the files,
            which the video need not have.
        index: position in the data set.
        cut: the frames it shows.
    """

    video: Float[Tensor, "T 3 h w"]
    labels: UInt8[Tensor, "T H W"]
    index: int
    cut: ClipCut


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SegmentationBatch(Batch):
    """What training reads from a loader.

    Args:
        video: normalised clips.
        labels: class index of each pixel, or `IGNORED`.
        indices: position of every clip in its data set.
    """

    video: Float[Tensor, "B T 3 H W"]
    labels: UInt8[Tensor, "B T H W"]
    indices: Int64[Tensor, " B"]

    _stays = ("indices",)

    def __repr__(self) -> str:
        B, T, _, H, W = self.video.shape
        return f"SegmentationBatch([B={B}, T={T}, 3, H={H}, W={W}])"


def collate_segmentation(items: Sequence[SegmentationClip]) -> SegmentationBatch:
    """Stack training items into a batch: the loader's ``collate_fn``."""
    return SegmentationBatch(
        video=torch.stack([item.video for item in items]),
        labels=torch.stack([item.labels for item in items]),
        indices=torch.tensor([item.index for item in items], dtype=torch.int64),
    )


class SegmentationDataset(Items[SegmentationClip]):
    """Clips with masks of an index.

    Args:
        index: one split, checked (without problems).
        spec: how frames become model input.
        augmentation: flip and colours of training clips; None: evaluation, which shows whole
            pictures, and masks as they are on disk.
        masks: scale and crop of training clips.
        passes: how often the items of an epoch go over the clips.
        seed: of the augmentation.
        cache: keeps pictures and masks, for training shrunk to what the transforms need; None:
            nothing does. The items are the same, bit for bit.

    Raises:
        DatasetError: the index has problems or no labelled frame.
    """

    drawn = "masks"
    checked_by = "check_sequences"
    spec: SegmentationSpec

    def __init__(
        self,
        index: SequenceIndex,
        spec: SegmentationSpec,
        *,
        augmentation: Augmentation | None = None,
        masks: MaskAugmentation = MaskAugmentation(),  # noqa: B008 - frozen
        passes: int = 1,
        seed: int = 0,
        cache: FrameCache | None = None,
    ) -> None:
        super().__init__(index, spec, augmentation, seed)
        self.cuts = evaluation_cuts(index, spec)
        if not self.cuts:
            raise DatasetError(
                f"no labelled frame of {index.root} is left; choose a split that has some"
            )
        self.index, self.masks = index, masks
        self._passes = passes
        self._cache = cache or FrameCache()

    def __len__(self) -> int:
        return len(self.cuts) * self._passes

    def item(self, i: int, generator: torch.Generator | None) -> SegmentationClip:
        """As `Items`."""
        cut = self.cuts[i % len(self.cuts)]
        sequence = self.index.sequences[cut.sequence]
        if self.augmentation is None or generator is None:
            frames = [self._frame(sequence.frames[p]) for p in cut.positions]
            pictures = self._stacked(frames, cut, sequence)
            video = picture_input(pictures, self.spec)
            labels = _stacked_masks(frames)
        else:
            cut = self._moved(cut, sequence, generator)
            frames = [self._frame(sequence.frames[p], self._largest) for p in cut.positions]
            pictures = self._stacked(frames, cut, sequence)
            video, labels = train_crop(
                pictures, _stacked_masks(frames), self.spec, self.augmentation, self.masks,
                generator,
            )  # fmt: skip
        # Of a sequence that is too short, the last frame counts once.
        labels[[k for k, p in enumerate(cut.positions) if p in cut.positions[:k]]] = IGNORED
        return SegmentationClip(video=video, labels=labels, index=i, cut=cut)

    @staticmethod
    def _stacked(
        frames: Sequence[tuple[Tensor, Tensor | None]], cut: ClipCut, sequence: FrameSequence
    ) -> UInt8[Tensor, "T H W 3"]:
        sizes = [picture.shape[:2] for picture, _ in frames]
        for p, size in zip(cut.positions, sizes, strict=True):
            if size != sizes[0]:
                raise DatasetError(
                    f"{sequence.frames[p].image} is {size[0]}x{size[1]} and other frames of its "
                    f"sequence {sizes[0][0]}x{sizes[0][1]}; give the pictures of a sequence one "
                    "size, or leave it out with --skip-bad and check full"
                )
        return torch.stack([picture for picture, _ in frames])

    def _moved(self, cut: ClipCut, sequence: FrameSequence, generator: torch.Generator) -> ClipCut:
        """A clip that begins at random and still holds the first fresh frame of `cut`."""
        spec, length = self.spec, len(sequence)
        anchor = cut.positions[cut.fresh.index(True)]
        starts = [
            start
            for start in (anchor - k * spec.step for k in range(spec.frames))
            if start >= 0 and start + (spec.frames - 1) * spec.step < length
        ] or [anchor % spec.step]
        draw = int(torch.randint(len(starts), (), generator=generator))
        positions = _positions(starts[draw], length, spec)
        labelled = {p for p in positions if sequence.frames[p].label is not None}
        fresh = _first_of_its_kind(positions, labelled)
        return ClipCut(sequence=cut.sequence, positions=positions, fresh=fresh)

    def _read(self, frame: SequenceFrame) -> tuple[UInt8[Tensor, "H W 3"], Tensor | None]:
        picture = torch.from_numpy(read_picture(frame.image, self.spec))
        if frame.label is None:
            return picture, None
        mask = torch.from_numpy(read_mask(frame.label, self.index.code))
        if mask.shape != picture.shape[:2]:
            raise DatasetError(
                f"{frame.label} is {mask.shape[0]}x{mask.shape[1]} and its picture "
                f"{picture.shape[0]}x{picture.shape[1]}; give masks of the height and width of "
                "their pictures"
            )
        return picture, mask

    @property
    def _largest(self) -> int | None:
        """The largest short side that the augmentation asks for."""
        short = self.spec.short_side
        return None if short is None else round(short * self.masks.scale[1])

    def _frame(
        self, frame: SequenceFrame, largest: int | None = None
    ) -> tuple[UInt8[Tensor, "h w 3"], Tensor | None]:
        """Picture and mask, whole or with a short side of at most `largest`."""

        def made() -> tuple[Tensor, ...]:
            picture, mask = self._read(frame)
            if largest is not None and min(picture.shape[:2]) > largest:
                H, W = picture.shape[:2]
                size = short_side_size(H, W, largest)
                picture = resized(picture[None], size)[0].permute(1, 2, 0).contiguous()
                mask = None if mask is None else nearest(mask[None], size)[0]
            return (picture,) if mask is None else (picture, mask)

        picture, *mask = self._cache.get_or_make(f"{largest} {frame.image} {frame.label}", made)
        return picture, mask[0] if mask else None


def picture_input(
    frames: UInt8[Tensor, "T H W 3"], spec: SegmentationSpec
) -> Float[Tensor, "T 3 h w"]:
    """Whole pictures brought to the short side `spec.short_side`, and normalised.

    Args:
        frames: RGB pictures.
        spec: short side and normalisation.

    Raises:
        ValueError: frames of another type or shape.
    """
    _, H, W, _ = checked_pictures(frames).shape
    size = (H, W) if spec.short_side is None else short_side_size(H, W, spec.short_side)
    return normalised(scaled(resized(frames, size)), spec)


def train_crop(
    pictures: UInt8[Tensor, "T H W 3"],
    labels: UInt8[Tensor, "T H W"],
    spec: SegmentationSpec,
    augmentation: Augmentation,
    masks: MaskAugmentation,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "T 3 h w"], UInt8[Tensor, "T h w"]]:
    """A crop of ``spec.crop``, scaled, placed, flipped and coloured at random, alike in all frames.

    Where the scaled picture is smaller than the crop, it is filled up at the right and bottom with
    the mean colour, which is zero after normalisation, and with ignored pixels.

    Args:
        pictures: RGB, at the size that `spec` and a scale of 1 stand for, or larger.
        labels: class index of each pixel, or `IGNORED`.
        spec: size and normalisation.
        augmentation: flip and colours.
        masks: scale and crop.
        generator: source of every draw.
    """
    # Always the same number of draws, so that switching one part off leaves the others as they are.
    flip, factor, *colours = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
    places = torch.rand(_CROP_ATTEMPTS, 2, generator=generator, dtype=torch.float64).tolist()
    low, high = masks.scale
    H, W = pictures.shape[1:3]
    short = min(H, W) if spec.short_side is None else spec.short_side
    size = short_side_size(H, W, max(1, round(short * (low + (high - low) * factor))))
    labels = nearest(labels, size)
    height, width = (min(a, b) for a, b in zip(spec.crop, size, strict=True))
    for down, right in places:
        top, left = int((size[0] - height + 1) * down), int((size[1] - width + 1) * right)
        box = (slice(None), slice(top, top + height), slice(left, left + width))
        if _largest_share(labels[box]) <= masks.one_class:
            break
    labels = labels[box]
    video = scaled(resized(pictures, size)[:, :, *box[1:]])
    strengths = (augmentation.brightness, augmentation.contrast, augmentation.saturation)
    if any(strengths):
        video = coloured(
            video, *(1 + s * (2 * draw - 1) for s, draw in zip(strengths, colours, strict=True))
        )
    video = normalised(video, spec)
    if flip < augmentation.flip:
        video, labels = video.flip(-1), labels.flip(-1)
    pad = (0, spec.crop[1] - width, 0, spec.crop[0] - height)
    return F.pad(video, pad), F.pad(labels, pad, value=IGNORED)


def nearest(labels: UInt8[Tensor, "T H W"], size: tuple[int, int]) -> UInt8[Tensor, "T h w"]:
    """Masks in another size: each pixel takes the class at its centre."""
    if labels.shape[1:] == size:
        return labels
    return F.interpolate(labels[:, None], size, mode="nearest-exact")[:, 0]


def _largest_share(labels: UInt8[Tensor, "T h w"]) -> float:
    counts = torch.bincount(labels.flatten(), minlength=IGNORED + 1)[:IGNORED]
    return float(counts.max() / counts.sum().clamp(min=1))


def _stacked_masks(frames: Sequence[tuple[Tensor, Tensor | None]]) -> UInt8[Tensor, "T H W"]:
    empty = torch.full(frames[0][0].shape[:2], IGNORED, dtype=torch.uint8)
    return torch.stack([empty if mask is None else mask for _, mask in frames])
