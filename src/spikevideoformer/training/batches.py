"""Which clips a step sees: a pure function of (seed, step), so a run can go on from any step."""

from __future__ import annotations

import hashlib
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from spikevideoformer.video.clip import collate_clips


def mixed_seed(*parts: int | str) -> int:
    """A 63-bit seed from several numbers; close tuples give unrelated seeds."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """How the clips of each epoch are cut into optimiser steps and these into micro-batches.

    An epoch is a permutation of the clips, or `passes` of them one after the other. A step takes
    the next `micro_batches` x `batch_size` of it; micro-batch m is the m-th contiguous slice, and
    process r of w takes the micro-batches with m % w == r. So w processes see what one process sees
    that accumulates w times. What is left at the end of an epoch and does not fill a step is
    dropped.

    Args:
        clips: size of the training split.
        batch_size: clips of a micro-batch.
        micro_batches: forward passes per step, over all processes.
        seed: of the permutations.
        passes: over the clips, in an epoch.
    """

    clips: int
    batch_size: int
    micro_batches: int
    seed: int
    passes: int = 1

    @property
    def effective_batch(self) -> int:
        """Clips per optimiser step."""
        return self.batch_size * self.micro_batches

    @property
    def steps_per_epoch(self) -> int:
        """Whole steps that an epoch's clips make."""
        return self.clips * self.passes // self.effective_batch

    def order(self, epoch: int) -> list[tuple[int, int]]:
        """The (pass, clip) pairs of an epoch, passes being counted from the first epoch on."""
        pairs = []
        for number in range(epoch * self.passes, (epoch + 1) * self.passes):
            generator = torch.Generator().manual_seed(mixed_seed("order", self.seed, number))
            clips = torch.randperm(self.clips, generator=generator).tolist()
            pairs += [(number, clip) for clip in clips]
        return pairs

    def micro_batch(self, order: list[tuple[int, int]], step: int, m: int) -> list[tuple[int, int]]:
        """What micro-batch m of a step holds, out of the order of the step's epoch."""
        start = (step % self.steps_per_epoch) * self.effective_batch + m * self.batch_size
        return order[start : start + self.batch_size]


class MicroBatches(Sampler[list[tuple[int, int]]]):
    """(pass, clip) pairs of the micro-batches of one process, over all epochs in one go.

    One stream for the whole run means that loader workers live through it, with their caches, and
    fetch the next epoch while this one is validated.

    Args:
        plan: the cutting.
        steps: the optimiser steps to cover.
        rank: this process.
        world_size: number of processes; divides the plan's micro-batches.
    """

    def __init__(self, plan: StepPlan, steps: range, *, rank: int, world_size: int) -> None:
        self._plan, self._steps, self._rank, self._world_size = plan, steps, rank, world_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        plan, order_epoch = self._plan, -1
        order: list[tuple[int, int]] = []
        for step in self._steps:
            epoch = step // plan.steps_per_epoch
            if epoch != order_epoch:
                order, order_epoch = plan.order(epoch), epoch
            for m in range(self._rank, plan.micro_batches, self._world_size):
                yield plan.micro_batch(order, step, m)


_LATER_S = 20


def leave_signals_to_parent(_worker: int) -> None:
    """Loader workers leave Ctrl-C and SIGTERM to the main process, which stops them at its end.

    Both may be sent to all processes of a group. One that is still there some seconds after SIGTERM
    ends: the main process sends it, too, to those that do not hear it otherwise.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _number, _frame: signal.alarm(_LATER_S) and None)


def clip_loader(
    dataset: Dataset[Any],
    batches: Iterable[list[int]] | Iterable[list[tuple[int, int]]],
    *,
    workers: int,
    device: torch.device,
    collate: Callable[[Sequence[Any]], Any] = collate_clips,
) -> DataLoader[Any]:
    """A loader of given batches.

    Args:
        dataset: gives an item for each key.
        batches: the keys of each batch, `(epoch, i)` or i.
        collate: makes a batch of the items.
        workers: loader processes; 0 loads in this one.
        device: where the batches will go; for CUDA they wait in page-locked memory.
    """
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=leave_signals_to_parent,
        # A forked worker sees when its parent is killed, and ends; others would stay behind.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        # The loader draws a seed for its workers; taken from here, not from the global generator.
        generator=torch.Generator().manual_seed(0),
    )
