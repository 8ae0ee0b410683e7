"""The network as users meet it: checked input, a backbone, a head, a folder on disk."""

import errno
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spikevideoformer.body.skeleton import BodyModel
from spikevideoformer.body.stored import AbsentSmpl, body_from_dict, body_to_dict
from spikevideoformer.models.backbone import Backbone
from spikevideoformer.models.config import STRIDE, MaskHeadConfig, ModelConfig, preset
from spikevideoformer.models.familiarity import Familiarity
from spikevideoformer.models.folder import (
    CONFIG_FILE,
    FORMAT_VERSION,
    WEIGHTS_FILE,
    local_folder,
    read_config,
    sha256_of,
    weights_file,
)
from spikevideoformer.models.heads import Head
from spikevideoformer.models.initialise import start_statistics
from spikevideoformer.ops._kernels import is_traced
from spikevideoformer.task import get_task

COMPILED = "_orig_mod."
"""What torch.compile puts before the names of tensors."""


class SpikeVideoFormer(nn.Module):
    """A spike-driven video Transformer with a head for one task.

    With neurons of kind ``relu`` (presets ann_* and gru_*) it is an ordinary network of the same
    shape, to compare with: no spikes, no membranes.

    Args:
        config: the architecture.
        task: what the head is for, see `spikevideoformer.task`: classification of a clip;
            segmentation, which is the classification of every pixel of every frame; or the pose of
            a human body in every frame.
        num_classes: classes to tell apart; for pose, joints to find.
        body: for pose, the body whose joints they are.

    Attributes:
        classes: their names, where known.
        palette: a colour (R, G, B, each 0 to 255) for each class, where known.
        clip: how a video becomes input (the spec of the task, as a dict), where known.
        temperature: by which a classifier's logits are divided to give probabilities that can be
            believed; None: 1.
        familiarity: what its training clips are like, where known.
        source: the config.json that it was read from.

    Raises:
        ValueError: an unknown task, a wrong class count, no body for pose or one for others.
    """

    body: BodyModel | None

    def __init__(
        self,
        config: ModelConfig,
        *,
        task: str,
        num_classes: int,
        body: BodyModel | None = None,
    ) -> None:
        super().__init__()
        of_task = get_task(task)
        if (body is not None) != of_task.needs_body:
            raise ValueError(
                f"a network for {task} needs a body, such as fit_skeleton(index) or "
                "standing_skeleton()"
                if body is None
                else f"a body is given, and the task is {task}; set task='pose'"
            )
        if body is not None and num_classes != len(body.joint_names):
            raise ValueError(f"num_classes is {num_classes}; the body has {len(body.joint_names)}")
        self.config, self.task, self.num_classes = config, task, num_classes
        self.classes: tuple[str, ...] | None = None
        self.palette: tuple[tuple[int, ...], ...] | None = None
        self.clip: dict[str, Any] | None = None
        self.temperature: float | None = None
        self.familiarity: Familiarity | None = None
        self.source: Path | None = None
        self.backbone = Backbone(config)
        self.head = cast(Head, of_task.head(config, num_classes, body))
        if config.distilled and not self.head.may_be_distilled:
            raise ValueError(
                f"distilled is for classification, and the task is {task}; set distilled=False"
            )
        if body is None and (config.pose_head, config.poses) != ("grid", "frames"):
            raise ValueError(f"pose_head and poses are for pose, and the task is {task}")
        if config.mask_head != MaskHeadConfig() and task != "segmentation":
            raise ValueError(f"mask_head is for segmentation, and the task is {task}; leave it out")
        if config.still_frames > 1 and not self.head.one_answer:
            raise ValueError(
                f"still_frames is {config.still_frames}, and the head answers for each frame; "
                "set still_frames=1"
            )
        self.backbone.from_half = self.head.reads_half
        self.body = body  # without weights of its own
        if body is not None:
            self.classes = body.joint_names
        # three quarters of the time of a training step on a CPU, and what tensor cores want
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, video: Tensor) -> Any:
        """Logits of normalised clips ``[B, T, C, H, W]``.

        ``[B, num_classes]``; for segmentation ``[B, T, num_classes, H, W]``; for pose a
        :class:`~spikevideoformer.tasks.pose.head.PoseOutput` (or what another head says,
        ``RegressedOutput`` or ``SeenOutput``), of which ``pose_from_output`` makes
        bodies. No membrane outlives the call. Raises ValueError for anything but a finite,
        floating-point video of this shape.
        """
        checked = self.checked(video)
        return self.finished(self.head(self.backbone(checked.transpose(0, 1))), video)

    def checked(self, video: Tensor) -> Tensor:
        """The video, padded where the model pads; ValueError as :meth:`forward` says."""
        want = f"a float video [B, T, {self.config.in_channels}, H, W]"
        if not isinstance(video, Tensor):
            raise ValueError(f"got {type(video).__name__}; expected {want} as a torch tensor")
        shape = tuple(video.shape)
        if video.ndim != 5:
            raise ValueError(f"got shape {shape}; expected {want}; add the missing axes")
        if not video.is_floating_point():
            raise ValueError(
                f"got {video.dtype}; expected {want}; convert with .float() and normalise"
            )
        own = self.head.fc.weight.dtype
        if video.dtype != own and not torch.is_autocast_enabled(video.device.type):
            raise ValueError(f"got {video.dtype} for a model in {own}; convert one with .to(dtype)")
        if shape[2] != self.config.in_channels:
            raise ValueError(f"got {shape[2]} channels in {shape}; expected {want}")
        if min(shape) < 1:
            raise ValueError(f"got shape {shape}; expected {want} with no empty axis")
        pad_h, pad_w = -shape[3] % STRIDE, -shape[4] % STRIDE
        if (pad_h or pad_w) and not (self.config.any_size and self.head.any_size):
            if not self.config.pad_input:
                raise ValueError(
                    f"got {shape[3]}x{shape[4]} pixels; height and width must be multiples of "
                    f"{STRIDE}: resize, or create the model with pad_input=True"
                )
            video = F.pad(video, (0, pad_w, 0, pad_h))
        if not torch.compiler.is_compiling() and not _is_finite(video):
            raise ValueError("the video holds NaN or infinite values; check the normalisation")
        if shape[1] == 1 and self.config.still_frames > 1:
            video = video.expand(-1, self.config.still_frames, -1, -1, -1)
        return video

    def finished(self, output: Tensor, video: Tensor) -> Any:
        """What :meth:`forward` returns, of what the head gave for `checked(video)`."""
        return self.head.finished(output, video)

    def num_parameters(self) -> int:
        """Trainable values."""
        return sum(p.numel() for p in self.parameters())

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        classes: Sequence[str] | None = None,
        clip: Mapping[str, Any] | None = None,
    ) -> None:
        """Write ``config.json`` and ``model.safetensors``, each in one step.

        Args:
            folder: made where it is missing.
            classes: names of the classes, kept with the model; ``self.classes`` where None.
            clip: how a video becomes input; ``self.clip`` where None.

        Raises:
            ValueError: as many names as classes are needed.
        """
        classes = self.classes if classes is None else tuple(classes)
        clip = self.clip if clip is None else dict(clip)
        if classes is not None and len(classes) != self.num_classes:
            raise ValueError(f"got {len(classes)} class names for {self.num_classes} classes")
        if self.palette is not None and len(self.palette) != self.num_classes:
            raise ValueError(f"got {len(self.palette)} colours for {self.num_classes} classes")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            "format_version": FORMAT_VERSION,
            "task": self.task,
            "num_classes": self.num_classes,
            "model": self.config.to_dict(),
            "classes": classes,
            "palette": self.palette,
            "body": None if self.body is None else body_to_dict(self.body),
            "clip": clip,
            "temperature": self.temperature,
            "familiarity": None if self.familiarity is None else self.familiarity.to_dict(),
        }
        state = {k: v.contiguous() for k, v in self.state_dict().items()}
        if (fault := unusable(state)) is not None:
            raise ValueError(
                f"the model is not saved: {fault}; train it with a lower learning_rate"
            )
        if self.familiarity is not None:
            state |= self.familiarity.tensors()
        _write_atomically(folder / WEIGHTS_FILE, lambda path: _save_weights(state, path))
        about["sha256"] = sha256_of(folder / WEIGHTS_FILE)
        text = json.dumps(about, indent=2) + "\n"
        _write_atomically(folder / CONFIG_FILE, lambda path: path.write_text(text, "utf-8"))

    @classmethod
    def from_pretrained(cls, folder_or_hub_id: str | os.PathLike[str]) -> "SpikeVideoFormer":
        """Read a model folder, in evaluation mode; or svf/NAME of the box, or one of the hub.

        Nothing in the files is executed.

        Raises:
            ValueError: no such folder, or files that are missing, damaged or of another format.
        """
        folder = local_folder(folder_or_hub_id)
        about = read_config(folder / CONFIG_FILE)
        weights = weights_file(folder)
        try:
            config = ModelConfig.from_dict(about["model"])
            body = None if about["body"] is None else body_from_dict(about["body"])
            if about["clip"] is not None:
                spec: Any = get_task(about["task"]).spec_type
                spec.from_dict(about["clip"])
            what = {"task": about["task"], "num_classes": about["num_classes"], "body": body}
            with torch.device("meta"):  # takes no memory, however wide it says that it is
                own = {k: tuple(v.shape) for k, v in cls(config, **what).state_dict().items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{folder / CONFIG_FILE}: {error}") from error
        try:
            with safe_open(weights, framework="pt") as file:
                shapes = {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()}  # noqa: SIM118 - no dict
            check_shapes(own, shapes, weights, extra="familiarity.")
            state = load_file(weights)
        except SafetensorError as error:
            raise ValueError(
                f"{weights} is no readable safetensors file ({error}); copy or train it again"
            ) from error
        if (fault := unusable(state)) is not None:
            raise ValueError(f"{weights}: {fault}; train it again")
        if about["sha256"] is not None and sha256_of(weights) != about["sha256"]:
            raise ValueError(
                f"{weights} is not the file that {folder / CONFIG_FILE} was written with (another "
                "SHA-256); copy the folder again, both files together"
            )
        model = cls(config, **what)
        model.source = folder / CONFIG_FILE
        model.classes = None if about["classes"] is None else tuple(about["classes"])
        if about["palette"] is not None:
            model.palette = tuple(map(tuple, about["palette"]))
        model.clip = about["clip"]
        model.temperature = about["temperature"]
        if about["familiarity"] is not None:
            try:
                model.familiarity = Familiarity.taken_from(about["familiarity"], state)
            except ValueError as error:
                raise ValueError(f"{folder}: {error}") from error
        else:  # tensors of an earlier save beside a config without them
            state = {k: v for k, v in state.items() if not k.startswith("familiarity.")}
        load_state(model, state, weights)
        return model.eval()


def create_model(
    name: str,
    task: str = "classification",
    num_classes: int = 400,
    *,
    body: BodyModel | None = None,
    **overrides: Any,
) -> SpikeVideoFormer:
    """A fresh network, whose neurons fire on natural pictures before it is trained.

    Its classifier reads membranes; ``readout="spike"`` is the published way, which starts silent
    and does not train from scratch (docs/initialisation.md).

    Args:
        name: a preset, see :func:`list_models`.
        task: classification, segmentation or pose.
        num_classes: classes to tell apart; not used for pose, where the body decides.
        body: for pose, whose joints are to be found; None: SMPL, without its file.
        **overrides: fields of :class:`ModelConfig`, such as ``design="factorized"``,
            ``attention="dot"``, ``neuron="integer_lif"``, ``drop_path=0.1``.

    Raises:
        ValueError: an unknown name, task or option, or a value outside its range.
    """
    config = preset(name)
    of_task = get_task(task)
    if of_task.readout is not None and config.readout != "gru":
        config = replace(config, readout=of_task.readout)
    config = config.with_overrides(overrides)
    if of_task.needs_body and config.pose_head == "regressor" and "readout" not in overrides:
        config = replace(config, readout="membrane")
    if body is None and of_task.needs_body:
        body = AbsentSmpl()
    if body is not None:
        num_classes = len(body.joint_names)
    model = SpikeVideoFormer(config, task=task, num_classes=num_classes, body=body)
    start_statistics(model, config.in_channels)
    return model


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Load every tensor, or raise a ValueError of one line that names the first misfit."""
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    check_shapes(own, {name: tuple(value.shape) for name, value in state.items()}, source)
    model.load_state_dict(state)


def check_shapes(
    own: Mapping[str, tuple[int, ...]],
    offered: Mapping[str, tuple[int, ...]],
    source: Path,
    extra: str | None = None,
) -> None:
    """Raise ValueError for the first tensor that is missing, has no place or another shape.

    Args:
        own: shapes that the architecture has.
        offered: those of the file.
        source: the file.
        extra: what the names of tensors that are no weights begin with.
    """
    if any(key.startswith(COMPILED) for key in offered):
        raise ValueError(
            f"the tensors of {source} are named {COMPILED}..., as those of a compiled model; save "
            "the model itself (save_pretrained does)"
        )
    for key in own:
        if key not in offered:
            raise ValueError(f"{source} lacks the tensor {key}; it belongs to another architecture")
    for key, shape in offered.items():
        if extra is not None and key.startswith(extra):
            continue
        if key not in own:
            raise ValueError(f"{source} has a tensor {key} that the architecture has no place for")
        if shape != own[key]:
            raise ValueError(
                f"{source}: {key} has shape {shape}; the architecture needs {own[key]}"
            )


def _is_finite(video: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    # a sum is one pass where the exact question takes five; it may overflow
    if not is_traced(video) and math.isfinite(float(video.detach().sum())):
        return True
    return bool(torch.isfinite(video).all())


def unusable(state: Mapping[str, Tensor]) -> str | None:
    """What is wrong with the values of weights; None where nothing is."""
    for name, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            return f"{name} holds NaN or infinite values"
        if name.endswith("running_var") and bool((value < 0).any()):
            return f"{name} holds a variance below 0"
    return None


def _save_weights(state: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(state, path)
    except SafetensorError as error:
        number = errno.ENOSPC if "No space left" in str(error) else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from error


def _write_atomically(path: Path, write: Any) -> None:
    """Write beside ``path`` and rename, so that it is never seen half-written."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
