"""Fast inference: the same network, with less memory traffic.

* On a CPU the network takes a few frames at a time as far as it can. Convolutions know no time and
  neurons carry their membranes from piece to piece, so only attention over time waits for all
  frames. Buffers stay small: the allocator reuses them instead of fetching them from the system,
  and memory hardly grows with the clip. On CUDA all frames go through each layer at once.
* Batch norm, residual addition and neuron are one pass over memory (``ops/affine_lif.py``).
* Weights are integers of 24, 16 or 8 bits (``deploy/exact.py``) and spikes bytes: all sums are
  exact, and spikes the same bits for any batch, pieces, threads and processor. With
  ``precision="exact"`` weights stay float32, and every sum has torch's order and rounding: the
  spikes are those that the model fires on the same machine.
"""

import copy
import threading
from contextlib import nullcontext
from functools import partial
from itertools import pairwise
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from spikevideoformer.deploy.steps import Build, Fire, Stream, for_each, join
from spikevideoformer.messages import require_known
from spikevideoformer.models.config import STRIDE
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.attention import TransformerBlock
from spikevideoformer.nn.conv import ConvBlock, Projection
from spikevideoformer.nn.neuron import FiringRates, Neuron, record_firing_rates, watch_neurons
from spikevideoformer.ops.neuron_config import kinds_of_kernels

Precision = Literal["float", "int16", "int8", "exact"]
BITS: dict[Precision, int] = {"float": 24, "int16": 16, "int8": 8}

# Size aimed at for the widest tensor of a piece. Blocks above 32 MB go back to the system when
# they are freed (glibc), and fetching them again costs more than the convolution that fills them;
# smaller ones also stay in the last-level cache. docs/speed.md has the measurement.
PIECE_BYTES = 16 * 2**20


class InferenceEngine:
    """A network for inference, made from a model and on its device.

    Args:
        model: as it is to be used; later changes of its weights are not seen.
        precision: ``float`` has weights of 24 bits, as accurate as float32; ``int16`` and
            ``int8`` round them to 16 and 8. The spikes of each are the same bits for any batch,
            pieces, threads and processor. ``exact`` fires the spikes that the model fires in
            float32 on this machine (on CUDA but for the rounding of batch norms that end a
            branch, and of TF32 where torch's settings allow it).

    Several threads may call it; they take turns. A copy is a new engine.

    Raises:
        ValueError: a model that is not float32 on a CPU or a CUDA device or has parts of another
            kind, weights that cannot be integers, or a device that has no unit to add them up.
    """

    def __init__(self, model: SpikeVideoFormer, *, precision: Precision = "exact") -> None:
        require_known("precision", precision, get_args(Precision))
        if reason := cannot_run(model):
            raise ValueError(reason)
        first = next(model.parameters())
        if first.dtype != torch.float32 or first.device.type not in ("cpu", "cuda"):
            raise ValueError(
                f"the model is {first.dtype} on {first.device}; the engine runs float32 models on "
                "a CPU or a CUDA device: use model.float().cpu(), or the model itself"
            )
        self.precision = precision
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        build = Build(BITS.get(precision), self.model.config.neuron.levels, first.device)
        stages = self.model.backbone.stages()
        self._frame_steps = [
            step
            for stage in stages[:3]
            for step in (build.downsample(stage.downsample), *map(build.conv_block, stage.blocks))
        ]
        self._frame_steps.append(build.downsample(stages[3].downsample))
        self._clip_steps = list(map(build.transformer_block, stages[3].blocks))
        for stage in stages[4:]:
            self._clip_steps.append(for_each(build.downsample(stage.downsample)))
            self._clip_steps += map(build.transformer_block, stage.blocks)
        self._head = build.head(self.model.head)
        # A head with maps reads all stages: those before the last end where a downsample fires.
        self._ends: list[Fire] = []
        if self.model.head.reads_all_stages:
            ends = [stages[i + 1].downsample for i in self.model.backbone.read_stages()[:-1]]
            self._ends = [build.fires[cast(Neuron, downsample.neuron)] for downsample in ends]
        for fire in self._ends:
            fire.keeps_values = True
        names = {module: name for name, module in self.model.named_modules()}
        self._fires = {names[neuron]: fire for neuron, fire in build.fires.items()}
        self._lock = threading.Lock()  # the neurons hold the membranes of one clip

    def __reduce__(self) -> Any:
        return partial(InferenceEngine, precision=self.precision), (self.model,)

    def __call__(self, video: Tensor) -> Any:
        """Logits or poses, as the model gives them for ``[B, T, C, H, W]``."""
        return self.run(video, record=False)[0]

    @torch.inference_mode()
    def run(self, video: Tensor, *, record: bool = True) -> tuple[Any, FiringRates]:
        """What the model gives and, where asked for, the firing rates of all neurons.

        Raises:
            ValueError: as the model does.
        """
        logits, rates = self.run_checked(self.model.checked(video), record=record)
        return self.model.finished(logits, video), rates

    @torch.inference_mode()
    def spikes(self, video: Tensor) -> dict[str, Tensor]:
        """What every neuron fires, by name: bytes ``[T, B, ...]``. For comparisons.

        Raises:
            ValueError: as the model does.
        """
        found: dict[str, list[Tensor]] = {}

        def keep(name: str, spikes: Tensor) -> None:
            found.setdefault(name, []).append(spikes.to(torch.uint8).contiguous())

        with self._lock:
            try:
                for name, fire in self._fires.items():
                    fire.seen = partial(keep, name)
                with watch_neurons(self._head, lambda name, s: keep(f"head.{name}", s)):
                    self._run_clips(self.model.checked(video).transpose(0, 1), record=False)
            finally:
                for fire in self._fires.values():
                    fire.seen = None
                    fire.start(record=False)
        return {name: torch.cat(pieces) for name, pieces in found.items()}

    @torch.inference_mode()
    def run_checked(self, video: Tensor, *, record: bool = True) -> tuple[Tensor, FiringRates]:
        """:meth:`run` on what ``model.checked`` returned, as the head gives it, padding and all.

        Nothing here waits for a device, so that a CUDA graph can be recorded of it. (The checks
        must know on the CPU whether all values are finite.)
        """
        video = video.transpose(0, 1)  # [T, B, C, H, W]
        frames, clips = video.shape[:2]
        at_once = self._piece_images(video)[0] // frames
        logits, rates = zip(
            *(self._run(video[:, group], record) for group in _split(clips, at_once)), strict=True
        )
        names = rates[0].keys()
        return torch.cat(logits), FiringRates(
            {name: torch.cat([of_group[name] for of_group in rates], dim=1) for name in names}
        )

    def _run(self, video: Tensor, record: bool) -> tuple[Tensor, dict[str, Tensor]]:
        with self._lock:
            try:
                return self._run_clips(video, record)
            finally:
                for fire in self._fires.values():
                    fire.start(record=False)  # nothing of a clip is kept

    def _run_clips(self, video: Tensor, record: bool) -> tuple[Tensor, dict[str, Tensor]]:
        for fire in self._fires.values():
            fire.start(record)
        frames, clips = video.shape[:2]
        first, last = self._piece_images(video)
        pieces = []
        for span in _split(frames, first // clips):
            stream = Stream(video[span])
            for step in self._frame_steps:
                stream = step(stream)
            pieces.append(stream.x)
        u = join(pieces)
        streams = [Stream(u[span]) for span in _split(frames, last // clips)]
        for clip_step in self._clip_steps:
            streams = clip_step(streams)
        features = (
            *(join(fire.values) for fire in self._ends),
            join([stream.value() for stream in streams]),
        )
        with record_firing_rates(self._head) if record else nullcontext() as of_head:
            logits = self._head(features)
        rates = {name: torch.cat(fire.rates) for name, fire in self._fires.items() if fire.rates}
        if of_head is not None:
            rates |= {f"head.{name}": rate for name, rate in of_head.per_frame.items()}
        return logits, rates

    def _piece_images(self, video: Tensor) -> tuple[int, int]:
        """Images of a piece where the convolutions are, and where attention is."""
        if video.device.type == "cuda":
            images = video.shape[0] * video.shape[1]
            return images, images
        config = self.model.config
        pixels = video.shape[3] * video.shape[4]
        wide = 4 * config.mlp_ratio  # bytes of the widest layer for each channel
        half, last_width = config.widths[0] // 2, config.widths[-1]
        sizes = (wide * half * pixels // 4, wide * last_width * pixels // STRIDE**2)
        # In float32 an image alone may round differently: it has a path of its own in oneDNN.
        fewest = 2 if self.precision == "exact" else 1
        first, last = (max(fewest, PIECE_BYTES // max(1, size)) for size in sizes)
        return first, last


def cannot_run(model: SpikeVideoFormer) -> str | None:
    """Why the engine has no way to run this model; None where it has."""
    if type(model) is not SpikeVideoFormer:
        return f"the engine runs a SpikeVideoFormer, not a {type(model).__name__}"
    if not model.config.neuron.kernels:
        return (
            f"the engine runs neurons of kind {kinds_of_kernels()}, and those of this network are "
            f"of kind {model.config.neuron.kind}; call the model itself (engine model)"
        )
    known = (ConvBlock, TransformerBlock)
    for name, module in model.backbone.named_modules():
        part = name.rpartition(".")[2]
        expected: Any = Neuron if part.endswith("neuron") else None
        if part in ("q_conv", "k_conv", "v_conv", "proj"):
            expected = Projection
        elif part.startswith("bn"):
            expected = nn.BatchNorm2d
        elif ".blocks." in name and name.count(".") == 2:
            expected = known
        if expected is not None and not isinstance(module, expected):
            return f"backbone.{name} is a {type(module).__name__}, which the engine does not know"
    return None


def _split(total: int, size: int) -> list[slice]:
    """Even parts of at least ``size`` (and less than two times it), or one."""
    count = max(1, total // max(1, size))
    edges = [total * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]
