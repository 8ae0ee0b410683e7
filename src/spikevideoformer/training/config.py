"""Everything that decides a training run, in one validated, frozen place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from spikevideoformer.body.smpl_file import require_smpl_file
from spikevideoformer.data.index import check_data_folder, check_layout
from spikevideoformer.data.specs import Augmentation, Decode
from spikevideoformer.events.spec import EventChannels
from spikevideoformer.models.config import (
    STRIDE,
    Readout,
    SpikeMemory,
    check_spike_memory,
    preset,
)
from spikevideoformer.models.folder import read_about
from spikevideoformer.settings import Stored, check_types, require
from spikevideoformer.shapes import AttentionKind, Design
from spikevideoformer.tasks.pose.spec import PoseSpec
from spikevideoformer.tasks.segmentation.spec import MaskAugmentation, SegmentationSpec
from spikevideoformer.tasks.weights import PoseLossWeights, Weighting
from spikevideoformer.video.spec import ClipSpec

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Cache = Literal["auto", "memory", "off"]

# Fields of ModelConfig that a run may set; None leaves the preset's value.
_MODEL_OPTIONS = ("design", "attention", "neuron", "drop_path", "readout", "residual_gain")

# What these settings of an augmentation are in `Augmentation.off`, which any task may use.
_OFF = vars(Augmentation.off())

# Fields that change where, how fast or how often, but not which weights come out, and which may
# therefore differ when a run is resumed.
_FREE_ON_RESUME = frozenset(
    {"data", "out", "device", "workers", "cache", "check", "keep"}
    | {"checkpoint_every_steps", "gradient_checkpointing", "spike_memory"}
    | {"unlimited_decoding", "eval_clips"}
)


@dataclass(frozen=True, kw_only=True)
class SegmentationOptions:
    """What only a segmentation run decides.

    Args:
        crop_height: of training crops and sliding windows, in pixels, a multiple of 16; None: the
            size, rounded up to one.
        crop_width: the same for the width.
        scale: range of the factor by which pictures are resized before a crop is cut.
        one_class: a crop is drawn again while one class has more than this share of it.
        step: frames of the sequence from one frame of a clip to the next.
        passes: times that an epoch goes over the training clips; more, for a small data set, means
            fewer validations.
        class_weights: of the cross entropy: none, inverse_log or median_frequency, from the pixels
            of each class in the training masks.
        dice_weight: weight of the Dice loss beside the cross entropy.
        lovasz_weight: weight of the Lovasz softmax loss beside the cross entropy.
        sliding_window: validate with windows of the size of a crop; false takes whole pictures.

    Raises:
        ValueError: a value outside its range.
    """

    crop_height: int | None = None
    crop_width: int | None = None
    scale: tuple[float, float] = (0.75, 1.5)
    one_class: float = 0.75
    step: int = 1
    passes: int = 1
    class_weights: Weighting = "none"
    dice_weight: float = 0.0
    lovasz_weight: float = 0.0
    sliding_window: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        require(self, "step", "passes", at_least=1)
        require(self, "dice_weight", "lovasz_weight", at_least=0)
        self.augmentation  # noqa: B018 - it knows its own ranges

    @property
    def augmentation(self) -> MaskAugmentation:
        """How crops are drawn."""
        return MaskAugmentation(scale=self.scale, one_class=self.one_class)


@dataclass(frozen=True, kw_only=True)
class PoseOptions:
    """What only a run of pose tracking decides.

    Args:
        input: rgb; grey, the same in three channels; or events, those of the data set or, where it
            has none, simulated from its pictures.
        crop: what the square input shows: the whole picture, or the person (with the labelled
            joints in training; whoever predicts says where).
        zoom: range of the factor on the side of that square, in training.
        shift: how far its middle moves at most, as part of its side, in training.
        polarity: of events: both, in channels of their own; positive, negative, signed or merged.
        event_mode: what event frames hold: count, binary or voxel.
        bins: parts of time that an event frame tells apart, at least 1.
        body: an SMPL file that `convert_smpl` wrote; None: the skeleton of the data set.
        rotation_weight: of the angle of rotations, in 1 / rad.
        joints3d_weight: of the distance of joints from the root, in 1 / m.
        joints2d_weight: of the distance in the picture, as a share of its side.
        shape_weight: of the squared error of shape values; None: 0.1 with SMPL, whose values are in
            standard deviations, and 10 with a skeleton, whose values are logarithms of lengths.
        translation_weight: of the error of the place of the root, in 1 / m.
        smoothness_weight: of the error of the acceleration, in frame^2 / m.

    Raises:
        ValueError: a value outside its range.
    """

    input: Literal["rgb", "grey", "events"] = "rgb"
    crop: Literal["picture", "person"] = "picture"
    zoom: tuple[float, float] = (0.85, 1.1)
    shift: float = 0.05
    polarity: str = "both"
    event_mode: str = "count"
    bins: int = 1
    body: Path | None = None
    rotation_weight: float = 1.0
    joints3d_weight: float = 5.0
    joints2d_weight: float = 5.0
    shape_weight: float | None = None
    translation_weight: float = 1.0
    smoothness_weight: float = 1.0

    def __post_init__(self) -> None:
        check_types(self)
        if not (
            len(self.zoom) == 2
            and all(isinstance(v, (int, float)) for v in self.zoom)
            and 0 < self.zoom[0] <= self.zoom[1] < math.inf
        ):
            raise ValueError(f"zoom must be two numbers 0 < low <= high, got {self.zoom!r}")
        object.__setattr__(self, "zoom", tuple(map(float, self.zoom)))
        require(self, "shift", at_least=0, below=1)
        self.weights, self.channels  # noqa: B018 - they know their own ranges

    @property
    def weights(self) -> PoseLossWeights:
        """Of the terms of the loss."""
        names = [f.name for f in fields(PoseLossWeights)]
        weights = {name: getattr(self, f"{name}_weight") for name in names}
        if self.shape_weight is None:
            weights["shape"] = 10.0 if self.body is None else 0.1
        return PoseLossWeights(**weights)

    @property
    def channels(self) -> EventChannels:
        """What event frames hold."""
        return EventChannels(polarity=self.polarity, mode=self.event_mode, bins=self.bins)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Stored):
    """A training run.

    Args:
        out: the run folder to write; made where it is missing.
        data: root folder of the data set; not needed where `train` is given an index.
        task: classification; segmentation of every frame; or pose, of the body in every frame.
        layout: how the data set lies on disk (docs/data.md); None recognises it.
        fold: which of the official folds, for data sets that have them.
        train_split: the split to train on.
        val_split: the split to validate on and to choose the best epoch by. Where it is "val" and
            the data set has none, classification sets a fifth of the training clips aside; "none"
            sets none aside: the training clips themselves are looked at, and the last epoch is
            released.
        model: a preset, see `svf models`.
        design: how attention spans space and time; None for the preset's.
        attention: hamming or dot, or softmax or none of an ordinary network; None for the preset's.
        neuron: lif, integer_lif, relu, or fields of NeuronConfig; None for the preset's.
        drop_path: stochastic depth of the last block, in [0, 1); None for the preset's.
        readout: what the classifier reads: membrane; spike as published, which starts silent and
            does not train from scratch (docs/initialisation.md); or gru, of an ordinary network.
            None: gru for the presets that have it, else membrane for classification, and spike for
            pose, which learns faster from spikes (docs/pose.md). Segmentation reads spikes.
        residual_gain: initial weight of each residual branch, in [0, 1]; None for the preset's.
        init_from: a released model folder whose weights to start from, where they fit.
        frames: T, frames per clip.
        size: height and width of the model input in pixels, a multiple of 16; for segmentation the
            short side to which pictures are brought, any number.
        frame_rate_hz: sampling rate of the frames; None spreads them over the whole clip, and for
            pose takes every frame.
        augmentation: what is varied at random in training clips (for segmentation flip and
            colours, for pose colours; the rest is in `segmentation` and `pose`).
        segmentation: what only a segmentation run decides.
        pose: what only a run of pose tracking decides.
        epochs: how often the network is validated, after `passes` over the training clips each.
        passes: over the training clips in an epoch; more, for a small data set, mean fewer
            validations.
        batch_size: clips per process and forward pass.
        accumulate: forward passes per optimiser step; the effective batch is
            batch_size x accumulate x processes.
        learning_rate: peak of the schedule (linear warm-up, then cosine to zero). It is not scaled
            by the batch.
        weight_decay: of AdamW, on weights only (not on biases and norms).
        warmup_epochs: length of the warm-up, in epochs; may be a fraction.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        clip_grad_norm: gradients are scaled down to this norm; None for no limit.
        norm_clips: training clips over which the statistics of batch norms are measured anew before
            each validation, for it and for the released weights; 0 leaves them at the running
            averages, which are wrong after few steps.
        precision: 32-true, bf16-mixed, or 16-mixed (CUDA only, with a gradient scaler).
        device: auto (CUDA where there is one), cpu or cuda.
        devices: processes on this machine, one device each; under torchrun, leave it at 1.
        spike_memory: how spikes are kept for the backward pass: plain, or packed, a bit each. The
            same weights come out (docs/memory.md).
        gradient_checkpointing: recompute blocks in the backward pass, to save more memory.
        workers: loader processes per training process.
        cache: keep decoded clips in memory, once for all loader processes of a training process:
            auto, in up to a quarter of the memory that is available when the run begins; memory
            (or true), in up to three quarters; off (or false). The same weights come out.
        seed: decides initial weights, order of clips, augmentation and stochastic depth.
        checkpoint_every_steps: write a checkpoint after so many optimiser steps; there is one after
            every epoch in any case. None for epochs only.
        keep: how many checkpoints to keep, besides the best.
        eval_clips: clips in time over which the final evaluation averages each video; the
            validation after each epoch takes one.
        check: check of the files before the first step: full decodes all of each, open reads only
            its header, none looks only at the lists.
        skip_bad: go on without the files that the check refuses, and list them in skipped.csv.
        unlimited_decoding: lift the limits that protect from files that unfold to huge videos.

    Raises:
        ValueError: a value outside its range, in one line with what is accepted.
    """

    _what = "setting"

    out: Path
    data: Path | None = None
    task: Literal["classification", "segmentation", "pose"] = "classification"
    layout: str | None = None
    fold: int = 1
    train_split: str = "train"
    val_split: str = "val"

    model: str = "svf_nano"
    design: Design | None = None
    attention: AttentionKind | None = None
    neuron: str | dict[str, Any] | None = None
    drop_path: float | None = None
    readout: Readout | None = None
    residual_gain: float | None = None
    init_from: Path | None = None

    frames: int = 8
    size: int = 64
    frame_rate_hz: float | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    segmentation: SegmentationOptions = field(default_factory=SegmentationOptions)
    pose: PoseOptions = field(default_factory=PoseOptions)

    epochs: int = 20
    passes: int = 1
    batch_size: int = 16
    accumulate: int = 1
    learning_rate: float = 4e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 0.5
    label_smoothing: float = 0.1
    clip_grad_norm: float | None = 1.0
    norm_clips: int = 128

    precision: Precision = "32-true"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 1
    spike_memory: SpikeMemory = "plain"
    gradient_checkpointing: bool = False
    workers: int = 2
    cache: Cache | bool = "auto"
    seed: int = 0
    checkpoint_every_steps: int | None = None
    keep: int = 2
    eval_clips: int = 1
    check: Decode = "full"
    skip_bad: bool = False
    unlimited_decoding: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        if isinstance(self.cache, bool):  # in YAML, off is false
            object.__setattr__(self, "cache", "memory" if self.cache else "off")
        require(
            self,
            "epochs",
            "passes",
            "batch_size",
            "accumulate",
            "devices",
            "keep",
            "eval_clips",
            "fold",
            at_least=1,
        )
        require(self, "workers", "seed", "weight_decay", "warmup_epochs", "norm_clips", at_least=0)
        require(self, "learning_rate", above=0)
        require(self, "label_smoothing", at_least=0, below=1)
        if self.clip_grad_norm is not None:
            require(self, "clip_grad_norm", above=0)
        if self.checkpoint_every_steps is not None:
            require(self, "checkpoint_every_steps", at_least=1)
        if self.warmup_epochs >= self.epochs and self.warmup_epochs > 0:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs:g} of {self.epochs} epochs; "
                "give a smaller number, 0 for no warm-up"
            )
        self._check_task()
        model = preset(self.model).with_overrides(self.model_options)
        check_spike_memory(self.spike_memory, model)

    def _check_task(self) -> None:
        """Refuse what belongs to another task, and values that only a task's own type refuses."""
        for task, options in (("segmentation", SegmentationOptions()), ("pose", PoseOptions())):
            if self.task != task and getattr(self, task) != options:
                raise ValueError(f"settings of {task} are given; set task to {task}")
        if self.task != "classification":
            self._refuse_settings_of_classification()
        if self.task == "segmentation":
            self.segmentation_spec  # noqa: B018
            return
        if self.task == "pose":
            self.pose_spec  # noqa: B018
            return
        if self.size % STRIDE:
            near = max(self.size // STRIDE, 1) * STRIDE
            raise ValueError(f"size is {self.size}; give a multiple of 16, such as {near}")
        self.clip_spec  # noqa: B018

    def _refuse_settings_of_classification(self) -> None:
        unset: dict[str, Any] = {"eval_clips": 1, "fold": 1, "unlimited_decoding": False}
        if self.task == "segmentation":
            unset |= {"frame_rate_hz": None, "readout": None}
        for name, value in unset.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, and it belongs to classification; "
                    "leave it out"
                )
        usual = Augmentation()
        others = ["crop_scale", "crop_ratio", "temporal_jitter"]
        instead = "segmentation.scale"
        if self.task == "pose":
            # A mirrored body has its joints on the other side, and other rotations.
            others, instead = [*others, "flip"], "pose.zoom and pose.shift"
        for name in others:
            if getattr(self.augmentation, name) not in (getattr(usual, name), _OFF[name]):
                raise ValueError(
                    f"augmentation.{name} is {getattr(self.augmentation, name)!r}, and it "
                    f"belongs to classification; leave it out, and set {instead}"
                )

    @property
    def validates(self) -> bool:
        """Whether there are clips to validate on that are not trained on."""
        return self.val_split != "none"

    @property
    def model_options(self) -> dict[str, Any]:
        """What is set of the architecture, for `create_model`."""
        values = {name: getattr(self, name) for name in _MODEL_OPTIONS}
        if self.task == "segmentation":
            values["pad_input"] = True  # pictures have any height and width
        if self.task == "pose":
            values["in_channels"] = self.pose_spec.in_channels
        return {name: value for name, value in values.items() if value is not None}

    @property
    def spec(self) -> ClipSpec | SegmentationSpec | PoseSpec:
        """How pictures become model input."""
        if self.task == "segmentation":
            return self.segmentation_spec
        return self.pose_spec if self.task == "pose" else self.clip_spec

    @property
    def clip_spec(self) -> ClipSpec:
        """How a video becomes model input."""
        return ClipSpec(frames=self.frames, size=self.size, frame_rate_hz=self.frame_rate_hz)

    @property
    def segmentation_spec(self) -> SegmentationSpec:
        """How frames become model input, for segmentation."""
        side = -(-self.size // STRIDE) * STRIDE
        options = self.segmentation
        return SegmentationSpec(
            frames=self.frames,
            short_side=self.size,
            crop=(options.crop_height or side, options.crop_width or side),
            step=options.step,
        )

    @property
    def pose_spec(self) -> PoseSpec:
        """How frames become model input, for pose."""
        return PoseSpec(
            frames=self.frames,
            size=self.size,
            frame_rate_hz=self.frame_rate_hz,
            input=self.pose.input,
            crop=self.pose.crop,
            channels=self.pose.channels,
        )

    def to_yaml(self) -> str:
        """The configuration as YAML."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def differences(self, earlier: Mapping[str, Any]) -> list[str]:
        """What would change the outcome of a run begun with another configuration.

        Args:
            earlier: what `to_dict` gave when the run began.

        Returns:
            One text for each difference, such as "epochs: 10 then, 20 now".
        """
        now = self.to_dict()
        # A run that was begun before there was a setting has its default.
        earlier = {**type(self)(out=self.out).to_dict(), **earlier}
        names = [name for name in {**now, **earlier} if name not in _FREE_ON_RESUME]
        return [
            f"{name}: {earlier.get(name)!r} then, {now.get(name)!r} now"
            for name in names
            if earlier.get(name) != now.get(name)
        ]


def check_paths(config: TrainConfig, *, resume: bool) -> None:
    """Raise ValueError for a folder or file of a run that cannot be used; reads no data.

    Args:
        config: the run.
        resume: whether a run that was begun in `config.out` is wanted there.
    """
    if not resume and any((config.out / "checkpoints").glob("*.pt")):
        raise ValueError(
            f"{config.out} already holds a training run; continue it with --resume, "
            "or choose another --out"
        )
    if config.data is not None:
        check_data_folder(config.data, "data set")
    if config.layout is not None and config.task == "classification":
        from spikevideoformer.tasks.classification.index import LAYOUTS

        check_layout(config.layout, LAYOUTS)
    if config.layout is not None and config.task == "segmentation":
        from spikevideoformer.tasks.segmentation.index import SEQUENCE_LAYOUTS

        check_layout(config.layout, SEQUENCE_LAYOUTS)
    if config.init_from is not None:
        read_about(config.init_from)
    if config.pose.body is not None:
        require_smpl_file(config.pose.body)
