"""Fast inference on a GPU: the whole network as one CUDA graph.

A network of this kind is hundreds of short kernels, and starting them one by one from Python
takes longer than a small clip needs to compute. A graph is recorded once for a shape of video and
then started as a whole; it holds the same kernels with the same numbers.
"""

import copy
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from spikevideoformer.deploy.engine import InferenceEngine
from spikevideoformer.messages import require_known
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer

Precision = Literal["bf16", "fp32", "int8"]
_WARM_UP = 3  # calls before recording: kernels are compiled and libraries set up in the first


@dataclass(frozen=True)
class _Recording:
    """A graph, and the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    video: Tensor
    logits: Tensor


class GraphedModel:
    """A model in evaluation mode whose calls are replays of a CUDA graph, one for each shape.

    Args:
        model: on a CUDA device, in evaluation mode. ``fp32`` uses its weights where they are;
            ``bf16`` copies them, in bfloat16 where a convolution or linear layer has them;
            ``int8`` makes an :class:`InferenceEngine` of a copy. What follows a change of the
            weights is therefore a new ``GraphedModel``.
        example_video: ``[B, T, C, H, W]`` of the first shape to record; others are recorded when
            they first come.
        precision: ``fp32`` computes what the model does. ``bf16`` multiplies and keeps membrane
            currents in bfloat16, as autocast; spikes stay exact, neurons integrate in float32.
            ``int8`` rounds the weights of the convolutions that receive spikes to 8 bits and sums
            exactly; of the engine, checks and locks run on the CPU before a replay or while
            recording, and firing rates are left out.

    Raises:
        ValueError: no CUDA device, a model or video that is elsewhere, a model in training mode,
            an unknown precision, or int8 for a model that the engine does not run.
    """

    def __init__(
        self, model: SpikeVideoFormer, example_video: Tensor, precision: Precision = "bf16"
    ) -> None:
        require_known("precision", precision, get_args(Precision))
        if not torch.cuda.is_available():
            raise ValueError("CUDA graphs need a CUDA device, and torch sees none; call the model")
        device = next(model.parameters()).device
        if device.type != "cuda":
            raise ValueError(f"the model is on {device}; move it to a GPU with .cuda()")
        if model.training:
            raise ValueError("the model is in training mode; a graph is for model.eval()")
        self.precision, self.device = precision, device
        self.model = _with_half_weights(model) if precision == "bf16" else model
        self._engine = InferenceEngine(model, precision="int8") if precision == "int8" else None
        self._pool = torch.cuda.graph_pool_handle()
        self._recordings: dict[torch.Size, _Recording] = {}
        self(example_video)

    def __call__(self, video: Tensor) -> Any:
        """Logits or poses of ``[B, T, C, H, W]``, checked and shaped as by the model."""
        with torch.no_grad(), torch.cuda.device(self.device):
            checked = self._checked(video)
            recording = self._recordings.get(checked.shape)
            if recording is None:
                recording = self._recordings[checked.shape] = self._record(checked)
            recording.video.copy_(checked)
            recording.graph.replay()
            # the next replay writes there again
            return self.model.finished(recording.logits.clone(), video)

    def eager(self, video: Tensor) -> Any:
        """What the graph was recorded from, run kernel by kernel."""
        with torch.no_grad(), torch.cuda.device(self.device):
            return self.model.finished(self._run(self._checked(video)), video)

    def _checked(self, video: Tensor) -> Tensor:
        if isinstance(video, Tensor) and video.device != self.device:
            raise ValueError(f"the video is on {video.device}, the model on {self.device}")
        # Whether all is finite must be known on the CPU, which cannot be asked in a graph.
        with self._autocast():
            return self.model.checked(video).float()

    def _run(self, video: Tensor) -> Tensor:
        if self._engine is not None:
            return self._engine.run_checked(video, record=False)[0]
        with self._autocast():
            logits = self.model.head(self.model.backbone(video.transpose(0, 1)))
        return cast(Tensor, logits.float())

    def _autocast(self) -> torch.autocast:
        # its cache of casted weights would keep tensors of a graph's memory alive
        on = self.precision == "bf16"
        return torch.autocast("cuda", torch.bfloat16, enabled=on, cache_enabled=False)

    def _record(self, video: Tensor) -> _Recording:
        own = video.clone()
        side, current = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._run(own)
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = self._run(own)
        return _Recording(graph, own, logits)


def _with_half_weights(model: SpikeVideoFormer) -> SpikeVideoFormer:
    """A copy whose convolutions and linear layers are bfloat16, so that no call casts them."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.to(torch.bfloat16)
    return model
