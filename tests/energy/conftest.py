"""Parts that tests of the counter put together."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from spikevideoformer.bench.inputs import lively_model, random_video
from spikevideoformer.energy.count import count_operations
from spikevideoformer.energy.record import Counts, OperationCount
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, create_model
from spikevideoformer.nn.neuron import Neuron
from spikevideoformer.nn.statistics import measure_statistics
from spikevideoformer.ops.lif import NeuronConfig
from spikevideoformer.synth.motions import standing_skeleton


class Fires(nn.Module):
    """Neurons whose first frame fires where the input is at least 2 (tau = 2, threshold 1).

    Takes ``[frames, ...]`` that are no frames of a video but images: each fires by itself.
    """

    def __init__(self, config: NeuronConfig | None = None) -> None:
        super().__init__()
        self.neuron = Neuron(config or NeuronConfig(), reset_each_frame=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(x.unsqueeze(1)).squeeze(1)  # [T, B=1, ...]


@pytest.fixture(scope="session")
def fires() -> type[Fires]:
    return Fires


@pytest.fixture(scope="session")
def layers() -> Callable[..., list[OperationCount]]:
    """Count a module; the operations of some kinds."""

    def run(module: nn.Module, *inputs: Tensor, kinds: str = "conv linear attention") -> list:
        counts = count_operations(module.eval(), *inputs)
        return [o for o in counts.operations if o.kind in kinds.split()]

    return run


@pytest.fixture(scope="session")
def counted() -> Callable[..., Counts]:
    """Count a module."""

    def run(module: nn.Module, *inputs: Tensor) -> Counts:
        return count_operations(module.eval(), *inputs)

    return run


@pytest.fixture(scope="session")
def currents() -> Callable[..., Tensor]:
    """Random input of which a share fires."""

    def make(*shape: int, rate: float = 0.3, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return 4.0 * (torch.rand(shape, generator=generator) < rate)

    return make


@pytest.fixture(scope="session")
def nano() -> tuple[SpikeVideoFormer, Tensor]:
    """The nano network, firing, and a clip ``[1, 2, 3, 32, 32]``."""
    model = lively_model("svf_nano", num_classes=5, frames=2, size=32)
    return model, random_video(1, 2, 3, 32, 32)


@pytest.fixture(scope="session")
def segmenting() -> tuple[SpikeVideoFormer, Tensor]:
    """The same with a segmentation head of five classes."""
    model = lively_model("svf_nano", task="segmentation", num_classes=5, frames=2, size=32)
    return model, random_video(1, 2, 3, 32, 32)


@pytest.fixture(scope="session")
def posing() -> Callable[..., tuple[SpikeVideoFormer, Tensor]]:
    """The same with a pose head of a readout, and a clip of two frames of a size."""

    def make(readout: str = "spike", size: int = 32) -> tuple[SpikeVideoFormer, Tensor]:
        torch.manual_seed(0)
        model = create_model(
            "svf_nano", "pose", body=standing_skeleton(), readout=readout, residual_gain=1.0
        )
        measure_statistics(model, [random_video(2, 2, 3, size, size)])
        model.eval()
        return model, random_video(1, 2, 3, size, size)

    return make


@pytest.fixture(scope="session")
def by_module() -> Callable[..., dict[str, list[OperationCount]]]:
    """Count a network; its operations by the module they belong to."""

    def run(model: SpikeVideoFormer, video: Tensor) -> dict[str, list[OperationCount]]:
        found: dict[str, list[OperationCount]] = {}
        counts = count_operations(
            model, video, run=lambda v: model.head(model.backbone(v.transpose(0, 1)))
        )
        for operation in counts.operations:
            found.setdefault(operation.module, []).append(operation)
        return found

    return run


@pytest.fixture(scope="session")
def spikes_of() -> Callable[..., Tensor]:
    """What the layer of neurons ``name`` fires, ``[T, B, C, H, W]`` in float64."""

    def run(model: nn.Module, video: Tensor, name: str) -> Tensor:
        seen: list[Tensor] = []
        handle = model.get_submodule(name).register_forward_hook(lambda *a: seen.append(a[2]))
        with torch.no_grad():
            model(video)
        handle.remove()
        return seen[0].double()

    return run
