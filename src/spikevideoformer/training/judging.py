"""What evaluations of all tasks share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import nn

from spikevideoformer.data.check import Report
from spikevideoformer.data.specs import Decode
from spikevideoformer.models.heads import part_of
from spikevideoformer.nn.neuron import record_firing_rates, silence
from spikevideoformer.progress import progress_on_stderr
from spikevideoformer.training.batches import clip_loader

log = logging.getLogger(__name__)


@torch.no_grad()
def judged_batches(
    model: nn.Module,
    dataset: Any,
    collate: Callable[[Sequence[Any]], Any],
    fabric: Fabric,
    batch_size: int,
    workers: int = 0,
    after_batch: Callable[[], None] = lambda: None,
    *,
    groups: Sequence[Sequence[int]] | None = None,
) -> Generator[tuple[Any, Any]]:
    """What the model says of each batch of this process, and the batch.

    What it says of a clip does not depend on the other clips: every forward pass has the same shape
    (the last one is filled up), because sums of another shape round differently, and a spike more
    or less follows from that. What is left is rounding by the place in the batch.

    Args:
        model: on the device of `fabric`; its training mode is put back at the end.
        dataset: unaugmented.
        collate: makes a batch of the items, with `video` [B, T, C, H, W] and `to(device)`.
        fabric: device, precision and processes.
        batch_size: clips of a forward pass.
        workers: loader processes.
        after_batch: called after every forward pass; may raise to stop.
        groups: the items of each batch; None: those of process r of w are r, r + w, ...
    """
    if groups is None:
        keys = range(fabric.global_rank, len(dataset), fabric.world_size)
        groups = [keys[i : i + batch_size] for i in range(0, len(keys), batch_size)]
    device, was_training = fabric.device, model.training
    model.eval()
    watch = SilenceWatch(model)
    loader = clip_loader(
        dataset, [list(group) for group in groups], workers=workers, device=device, collate=collate
    )
    try:
        for batch in loader:
            batch = batch.to(device)
            count = len(batch)
            video = torch.cat(
                [batch.video, batch.video[:1].expand(batch_size - count, -1, -1, -1, -1)]
            )
            with fabric.autocast(), watch.first_pass():
                output = model(video)
            after_batch()
            yield part_of(output, slice(count)), batch
    finally:
        model.train(was_training)


def fabric_for(model: nn.Module, fabric: Fabric | None) -> Fabric:
    """The one that is given, or one process on the device of the model, in full precision."""
    if fabric is not None:
        return fabric
    return Fabric(accelerator=next(model.parameters()).device.type, devices=1)


class SilenceWatch:
    """Warns when a network fires next to nothing on the first batch that it is given.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model, self._waiting = model, True

    @contextmanager
    def first_pass(self) -> Iterator[None]:
        """Around every forward pass; only the first one is looked at."""
        if not self._waiting:
            yield
            return
        self._waiting = False
        with record_firing_rates(self._model) as rates:
            yield
        if (line := silence(rates.overall)) is not None:
            log.warning(line)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Metrics of one evaluation; a task adds them, and says them in `lines`."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def signs(self) -> Iterator[str]:
        """Lines about answers that do not depend on the input; none where they do."""
        yield from ()


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How a released model is evaluated: `released.evaluate_folder` says what each field is."""

    fabric: Fabric
    batch_size: int
    workers: int
    check: Decode
    skip_bad: bool
    out: Path | None

    def checked(
        self, index: Any, check: Callable[..., Report[Any]], noun: str, **settings: Any
    ) -> Any:
        """The index, looked over by ``check`` and without what is to be left out."""
        with progress_on_stderr(noun) as progress:
            report = check(index, decode=self.check, progress=progress, **settings)
        return report.settle(skip_bad=self.skip_bad, folder=self.out)
