"""What computes the neurons and the attention of a network: kernels, or equations as written.

Each of these modules has a field ``backend``: ``auto``, ``fused`` or ``reference``, as the argument
of its operation (``ops.lif.lif``, ``ops.hamming.hamming_attention``). The numbers are the same, so
that a network needs no copy to be counted, compared or exported.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from spikevideoformer.nn.attention import SpikeAttention
from spikevideoformer.nn.neuron import Neuron
from spikevideoformer.ops.lif import check_backend


def set_backend(
    model: nn.Module, *, neurons: str | None = None, attention: str | None = None
) -> None:
    """Choose what computes the neurons and the products of attention in ``model``.

    Args:
        model: changed in place.
        neurons: ``auto``, ``fused`` or ``reference``; as they are where None.
        attention: the same for attention.

    Raises:
        ValueError: an unknown backend.
    """
    for kind, backend in ((Neuron, neurons), (SpikeAttention, attention)):
        if backend is not None:
            check_backend(backend)
            for module in model.modules():
                if isinstance(module, kind):
                    module.backend = backend


@contextmanager
def computed_by(
    model: nn.Module, *, neurons: str | None = None, attention: str | None = None
) -> Iterator[None]:
    """:func:`set_backend` while the context is open."""
    parts = [m for m in model.modules() if isinstance(m, (Neuron, SpikeAttention))]
    before = [m.backend for m in parts]
    try:
        set_backend(model, neurons=neurons, attention=attention)
        yield
    finally:
        for module, backend in zip(parts, before, strict=True):
            module.backend = backend
