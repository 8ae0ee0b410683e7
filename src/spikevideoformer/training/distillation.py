"""Distillation: a teacher says what it makes of the training clips, and a network learns that."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spikevideoformer.data.transforms import denormalised, normalised
from spikevideoformer.models.folder import CONFIG_FILE, WEIGHTS_FILE, local_folder, sha256_of
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.training.config import Distillation, is_onnx
from spikevideoformer.training.logs import shortened
from spikevideoformer.video.spec import ClipSpec

log = logging.getLogger(__name__)


def distillation_loss(
    logits: Tensor, taught: Tensor, *, kind: Distillation, temperature: float
) -> Tensor:
    """How far a network is from its teacher, the mean over clips.

    Equation: hard, ``CE(z, argmax z_t)``; soft, ``t^2 KL(softmax(z_t / t) || softmax(z / t))``.

    Args:
        logits: z, [B, K].
        taught: z_t, the teacher's, [B, K].
        kind: hard or soft.
        temperature: t of soft, above 0.

    Source: Touvron et al., "Training data-efficient image transformers & distillation through
        attention" (2021), equations 2 and 3.
    """
    if kind == "hard":
        return F.cross_entropy(logits, taught.argmax(1))
    own, other = (F.log_softmax(z / temperature, 1) for z in (logits, taught))
    return temperature**2 * F.kl_div(own, other, reduction="batchmean", log_target=True)


class Teacher:
    """A trained classifier that is shown the clips of a training run.

    Args:
        path: a model folder, or an ONNX file whose input is clips ``[B, T, 3, H, W]``, or pictures
            ``[B, 3, H, W]``, whose logits are averaged over frames.
        classes: those of the run, in its order.
        spec: how its clips are made.
        device: where they lie.

    Attributes:
        fingerprint: of what its files hold.

    Raises:
        ValueError: it cannot be read, sees something else or knows other classes.
    """

    def __init__(
        self, path: Path, classes: Sequence[str], spec: ClipSpec, device: torch.device
    ) -> None:
        self.path, self._given, self._wanted = path, spec, spec
        self._order: Any = slice(None)  # where the run's classes stand among its outputs
        if is_onnx(path):  # large weights lie in a second file, which begins with its name
            beside = (f for f in path.parent.iterdir() if f.name.startswith(path.name))
            files = sorted(f for f in beside if f.is_file())
            self._run, self._size = _onnx(path, spec, device)
        else:
            folder = local_folder(path)
            files = [folder / CONFIG_FILE, folder / WEIGHTS_FILE]
            model = SpikeVideoFormer.from_pretrained(folder).to(device)
            self._take_over(model, classes)
            self._run, self._size = model, (self._wanted.size, self._wanted.size)
        parts = "".join(map(sha256_of, files))
        self.fingerprint = hashlib.sha256(parts.encode()).hexdigest()
        video = torch.zeros(2, spec.frames, 3, spec.size, spec.size, device=device)
        logits = self(video)
        if (found := tuple(logits.shape)) != (2, len(classes)):
            raise ValueError(
                f"the teacher {path} gives {list(found)} of 2 clips; expected logits "
                f"[2, {len(classes)}], of the {len(classes)} classes of the data"
            )
        if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-3).all()):
            raise ValueError(
                f"the teacher {path} gives probabilities, not logits; export it without its softmax"
            )

    def _take_over(self, model: SpikeVideoFormer, classes: Sequence[str]) -> None:
        """Of a model folder: the order of its classes, and how it sees clips."""
        if (own := model.classes) is not None:
            if alone := sorted(set(own) ^ set(classes)):
                raise ValueError(
                    f"the teacher {self.path} knows other classes than the data; only one of them "
                    f"has {shortened(alone)}: give a teacher of the same classes"
                )
            self._order = [own.index(name) for name in classes]
        if model.clip is None:
            return
        given, wanted = self._given, ClipSpec.from_dict(model.clip)
        if wanted.input != given.input:
            raise ValueError(
                f"the teacher {self.path} sees {wanted.input}, and input is {given.input}; set "
                f"input to {wanted.input}, or take another teacher"
            )
        if (wanted.frames, wanted.frame_rate_hz) != (given.frames, given.frame_rate_hz):
            log.warning(
                "the teacher knows clips of %d frames (frame_rate_hz: %s), and is shown %d (%s)",
                *(wanted.frames, wanted.frame_rate_hz, given.frames, given.frame_rate_hz),
            )
        self._wanted = wanted

    @torch.no_grad()
    def __call__(self, video: Tensor) -> Tensor:
        """Logits ``[B, K]``, in the order of the run's classes, of its clips ``[B, T, 3, H, W]``.

        Raises:
            ValueError: they are NaN or infinite.
        """
        given, wanted, frames = self._given, self._wanted, video.flatten(0, 1)
        if (wanted.mean, wanted.std) != (given.mean, given.std):
            frames = normalised(denormalised(frames, given), wanted)
        if frames.shape[2:] != self._size:
            frames = F.interpolate(frames, self._size, mode="bilinear", antialias=True)
        logits = self._run(frames.unflatten(0, video.shape[:2])).float()
        if logits.ndim != 2:
            raise ValueError(
                f"the teacher {self.path} gives {list(logits.shape)} of {len(video)} clips; "
                "expected logits [B, K]"
            )
        if not bool(logits.isfinite().all()):
            raise ValueError(f"the logits of {self.path} are NaN or infinite; take another teacher")
        return logits[:, self._order]


def _onnx(
    path: Path, spec: ClipSpec, device: torch.device
) -> tuple[Callable[[Tensor], Tensor], tuple[int, int]]:
    """What runs the network of a file, and the height and width of its input."""
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.use_deterministic_compute, options.log_severity_level = True, 3
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in runtime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))

    def refused(error: Exception) -> ValueError:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return ValueError(f"{path} is no ONNX file that runs ({reason}); export it again")

    try:
        session = runtime.InferenceSession(path, options, providers=providers)
    except Exception as error:
        raise refused(error) from error
    if not (inputs := session.get_inputs()):
        raise ValueError(f"{path} takes no input; a teacher takes clips or pictures")
    (first, *others), output = inputs, session.get_outputs()[0].name
    shape = [n if isinstance(n, int) else None for n in first.shape]  # None: any
    pictures = len(shape) == 4
    accepted = ({None, 1}, *(() if pictures else ({None, spec.frames},)), {None, 3})
    if (
        others
        or first.type != "tensor(float)"
        or len(shape) not in (4, 5)
        or any(n not in fits for n, fits in zip(shape, accepted, strict=False))
    ):
        raise ValueError(
            f"{path} takes {first.type} {first.shape}; a teacher takes float32 clips [B, "
            f"{spec.frames}, 3, H, W] or pictures [B, 3, H, W], of any number B or one at a time"
        )

    def run(video: Tensor) -> Tensor:
        items = (video.flatten(0, 1) if pictures else video).cpu().numpy()
        parts = np.split(items, len(items)) if shape[0] else [items]
        try:
            rows = [session.run([output], {first.name: part})[0] for part in parts]
            logits = torch.from_numpy(np.concatenate(rows)).float().to(video.device)
            return logits.unflatten(0, video.shape[:2]).mean(1) if pictures else logits
        except Exception as error:
            raise refused(error) from error

    return run, (shape[-2] or spec.size, shape[-1] or spec.size)
