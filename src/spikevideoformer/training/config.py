"""Everything that decides a training run, in one validated, frozen place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Self

from spikevideoformer.data.index import check_data_folder, check_layout
from spikevideoformer.data.specs import Augmentation, Decode
from spikevideoformer.events.spec import EventView
from spikevideoformer.models.config import Readout, SpikeMemory, check_spike_memory, preset
from spikevideoformer.models.folder import read_about
from spikevideoformer.settings import (
    Stored,
    check_types,
    merged,
    plain,
    read_settings,
    require,
    yaml_text,
)
from spikevideoformer.shapes import AttentionKind, Design
from spikevideoformer.task import TASKS, Task, get_task
from spikevideoformer.video.spec import Input

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Cache = Literal["auto", "memory", "off"]
OptimizerName = Literal["adamw", "lamb"]
Schedule = Literal["cosine", "poly"]
Distillation = Literal["hard", "soft"]

# Fields of ModelConfig that a run may set; None leaves the preset's value.
_MODEL_OPTIONS = (
    *("design", "attention", "neuron", "block"),
    *("drop_path", "readout", "residual_gain"),
)

# What these settings of an augmentation are in `Augmentation.off`, which any task may use.
_OFF = vars(Augmentation.off())

# Fields that change where, how fast or how often, but not which weights come out, and which may
# therefore differ when a run is resumed.
_FREE_ON_RESUME = frozenset(
    {"data", "teacher", "out", "device", "workers", "cache", "check", "keep"}
    | {"checkpoint_every_steps", "gradient_checkpointing", "spike_memory"}
    | {"unlimited_decoding", "eval_clips", "eval_crops"}
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Stored):
    """A training run.

    Args:
        out: the run folder to write; made where it is missing.
        data: root folder of the data set; not needed where `train` is given an index.
        task: what the network is for: classification; segmentation of every frame; or pose, of the
            body in every frame.
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
        block: fields of BlockConfig that differ from the preset's, in a file.
        drop_path: stochastic depth of the last block, in [0, 1); None for the preset's.
        readout: what the classifier reads: membrane; spike as published, which starts silent and
            does not train from scratch (docs/initialisation.md); or gru, of an ordinary network.
            None: gru for the presets that have it, else membrane for classification, and spike for
            pose, which learns faster from spikes (docs/pose.md). Heads with maps read spikes.
        residual_gain: initial weight of each residual branch, in [0, 1]; None for the preset's.
        init_from: a released model folder whose weights to start from, where they fit.
        frames: T, frames per clip.
        input: rgb pictures, or events (docs/events.md): of recordings, or simulated of video.
        events: how events are seen; for pose `pose.polarity` and the like say it too.
        size: height and width of the model input in pixels, a multiple of 16; for segmentation the
            short side to which pictures are brought, any number.
        frame_rate_hz: sampling rate of the frames; None spreads them over the whole clip, and for
            pose takes every frame.
        augmentation: what is varied at random in training clips (for segmentation flip and
            colours, for pose colours; the rest is in `options`).
        options: what only a run of this task decides, of `get_task(task).options`; None: its
            defaults. In files it is a section with the name of the task.
        epochs: how often the network is validated, after `passes` over the training clips each.
        passes: over the training clips in an epoch; more, for a small data set, mean fewer
            validations.
        batch_size: clips per process and forward pass.
        accumulate: forward passes per optimiser step; the effective batch is
            batch_size x accumulate x processes.
        optimizer: adamw, or lamb as published for SDT-V2 (`training.optim.Lamb`).
        learning_rate: peak of the schedule. It is not scaled by the batch.
        schedule: of the learning rate, step by step, after a linear warm-up: cosine, or poly of
            power 1, a straight line; both end at zero.
        head_lr: factor of the learning rate in the head, above 0.
        layer_decay: factor of the learning rate from each block of the backbone to the one before
            it, in (0, 1]; 1 for one learning rate.
        ema: a moving average of the weights is validated and released, of which a step keeps at
            most this share, in (0, 1), such as 0.999; None for the weights themselves.
        weight_decay: of weights only (not of biases and norms).
        warmup_epochs: length of the warm-up, in epochs; may be a fraction.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        clip_grad_norm: gradients are scaled down to this norm; None for no limit.
        rate_budget: the mean firing rate that a term of the loss holds the network at, weighted by
            the operations that spikes cause (`training.rate_budget`), at least 1e-6, such as 0.05;
            None for no limit.
        rate_weight: of that term, above 0.
        teacher: a model folder, or an ONNX file, whose answers to the training clips are learned
            besides the labels (docs/training.md); of classification only.
        distillation: what is learned of it: hard, the class that it names, or soft, its
            probabilities.
        distillation_weight: of that in the loss, in [0, 1]; the labels have the rest.
        distillation_temperature: by which soft divides logits, above 0.
        distillation_head: the teacher is learned by a second last layer, which the answer is the
            mean of with the first, as in published files with `head_kd`.
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
        eval_crops: squares along the longer side of each of these clips, likewise averaged; 3 as
            published for video.
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
    task: str = field(default="classification", metadata={"choices": TASKS})
    layout: str | None = None
    fold: int = 1
    train_split: str = "train"
    val_split: str = "val"

    model: str = "svf_nano"
    design: Design | None = None
    attention: AttentionKind | None = None
    neuron: str | dict[str, Any] | None = None
    block: dict[str, Any] | None = None
    drop_path: float | None = None
    readout: Readout | None = None
    residual_gain: float | None = None
    init_from: Path | None = None

    frames: int = 8
    input: Input = "rgb"
    events: EventView = field(default_factory=EventView)
    size: int = 64
    frame_rate_hz: float | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    options: Any = None

    epochs: int = 20
    passes: int = 1
    batch_size: int = 16
    accumulate: int = 1
    optimizer: OptimizerName = "adamw"
    learning_rate: float = 4e-3
    schedule: Schedule = "cosine"
    head_lr: float = 1.0
    layer_decay: float = 1.0
    ema: float | None = None
    weight_decay: float = 0.05
    warmup_epochs: float = 0.5
    label_smoothing: float = 0.1
    clip_grad_norm: float | None = 1.0
    rate_budget: float | None = None
    rate_weight: float = 1.0
    teacher: Path | None = None
    distillation: Distillation = "hard"
    distillation_weight: float = 0.5
    distillation_temperature: float = 3.0
    distillation_head: bool = False
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
    eval_crops: int = 1
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
            "eval_crops",
            "fold",
            at_least=1,
        )
        require(self, "workers", "seed", "weight_decay", "warmup_epochs", "norm_clips", at_least=0)
        require(self, "learning_rate", "head_lr", "clip_grad_norm", "rate_weight", above=0)
        require(self, "distillation_temperature", above=0)
        require(self, "distillation_weight", at_least=0, at_most=1)
        require(self, "rate_budget", at_least=1e-6)  # float32 has no room far below
        if self.learning_rate > 1:
            raise ValueError(
                f"learning_rate is {self.learning_rate:g}; a step moves every weight by about as "
                "much: give at most 1, usually less than 0.01"
            )
        require(self, "label_smoothing", at_least=0, below=1)
        require(self, "layer_decay", above=0, at_most=1)
        require(self, "ema", above=0, below=1)
        require(self, "checkpoint_every_steps", at_least=1)
        if self.warmup_epochs >= self.epochs and self.warmup_epochs > 0:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs:g} of {self.epochs} epochs; "
                "give a smaller number, 0 for no warm-up"
            )
        self._check_task()
        model = preset(self.model).with_overrides(self.model_options)
        check_spike_memory(self.spike_memory, model)
        if self.rate_budget is not None and not model.neuron.spiking:
            raise ValueError(
                f"rate_budget is {self.rate_budget:g}, and a neuron of kind {model.neuron.kind} "
                "fires no spikes; leave it out, or take a preset svf_* with its own neuron"
            )
        if self.rate_budget is not None and self.gradient_checkpointing:
            raise ValueError(
                "rate_budget needs the spikes that gradient_checkpointing does not keep; leave one "
                "out (spike_memory: packed saves memory as well)"
            )
        if self.teacher is None:
            for own in (f for f in fields(self) if f.name.startswith("distillation")):
                if getattr(self, own.name) != own.default:
                    raise ValueError(
                        f"{own.name} has nothing to learn; set teacher, or leave it out"
                    )

    def _check_task(self) -> None:
        """Refuse what belongs to another task, and values that only a task's own type refuses."""
        task = self.of_task
        if self.options is None:
            object.__setattr__(self, "options", task.options())
        if not isinstance(self.options, task.options):
            raise ValueError(
                f"options are a {type(self.options).__name__}; task {self.task} has "
                f"{task.options.__name__}"
            )
        for name, value in task.unused.items():
            if (own := getattr(self, name)) != value:
                said = own if isinstance(own, Path) else repr(own)
                raise ValueError(
                    f"{name} is {said}, which task {self.task} does not have; leave it out"
                )
        usual = Augmentation()
        for name in task.unvaried:
            if getattr(self.augmentation, name) not in (getattr(usual, name), _OFF[name]):
                instead = f", and set {task.instead}" if task.instead else ""
                raise ValueError(
                    f"augmentation.{name} is {getattr(self.augmentation, name)!r}, which task "
                    f"{self.task} does not have; leave it out{instead}"
                )
        task.check(self)

    @property
    def of_task(self) -> Task:
        """What the network is for."""
        return get_task(self.task)

    @property
    def validates(self) -> bool:
        """Whether there are clips to validate on that are not trained on."""
        return self.val_split != "none"

    @property
    def model_options(self) -> dict[str, Any]:
        """What is set of the architecture, for `create_model`."""
        values = {name: getattr(self, name) for name in _MODEL_OPTIONS}
        values |= self.of_task.model_options(self)
        return {name: value for name, value in values.items() if value is not None}

    @property
    def spec(self) -> Any:
        """How pictures become model input, as the task stores it with a model."""
        return self.of_task.spec(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON and YAML have them; `from_dict` reads them back."""
        values = plain(self)
        options = values.pop("options")
        return values | ({self.task: options} if options else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read plain values; what is left out keeps its default.

        Raises:
            ValueError: an unknown name (the nearest known one is suggested), one that is missing,
                or a value that is not accepted.
        """
        if "options" in values:
            raise ValueError(
                f"unknown {cls._what} options; what is special to a task is in a section with its "
                "name, such as segmentation"
            )
        known = {name: value for name, value in values.items() if name not in TASKS}
        wanted = values.get("task", cls.task)
        for name in TASKS:
            if name not in values:
                continue
            kind = get_task(name).options
            section = values[name]
            if isinstance(section, Mapping):
                section = read_settings(kind, section, what=cls._what, prefix=f"{name}.")
            if name == wanted:
                known["options"] = section
            elif section != kind():  # as files had it that named all tasks
                raise ValueError(f"settings of {name} are given; set task to {name}")
        return read_settings(cls, known, what=cls._what)

    def to_yaml(self) -> str:
        """The configuration as YAML."""
        return yaml_text(self.to_dict())

    def differences(self, earlier: Mapping[str, Any]) -> list[str]:
        """What would change the outcome of a run begun with another configuration.

        Args:
            earlier: what `to_dict` gave when the run began.

        Returns:
            One text for each difference, such as "epochs: 10 then, 20 now".
        """
        now = self.to_dict()
        # A run that was begun before there was a setting has its default.
        earlier = merged(type(self)(out=self.out, task=self.task).to_dict(), earlier)
        others = TASKS.keys() - {self.task}
        names = [n for n in {**now, **earlier} if n not in _FREE_ON_RESUME and n not in others]
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
    if config.layout is not None:
        check_layout(config.layout, config.of_task.layouts)
    if config.init_from is not None:
        read_about(config.init_from)
    if config.teacher is not None:
        _check_teacher(config.teacher, config.task)
    config.of_task.check_paths(config)


def is_onnx(path: Path) -> bool:
    """Whether a teacher is an ONNX file, by its name."""
    return path.suffix.lower() == ".onnx"


def _check_teacher(path: Path, task: str) -> None:
    if is_onnx(path):
        if not path.is_file():
            raise ValueError(f"{path} is no file; give --teacher a model folder or an ONNX file")
        if find_spec("onnxruntime") is None:
            raise ValueError(
                f"{path} is run by onnxruntime; pip install 'spikevideoformer[onnx]', or give "
                "--teacher a model folder"
            )
    elif path.is_file():
        raise ValueError(
            f"{path} is a file, and not of ONNX; other formats may hold code, so export it to ONNX "
            "or give --teacher a model folder"
        )
    elif (other := read_about(path)["task"]) != task:
        raise ValueError(f"the teacher {path} is for {other}; give one for {task}")
