"""Layers that fall silent in training, or that fire all the time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.neuron import FiringRates, Neuron, record_firing_rates
from spikevideoformer.training.logs import TensorBoardLog, shortened

SILENT, SATURATED = 0.001, 0.95
"""Share of its possible spikes under (over) which a layer of neurons is worth a warning."""
_FIRST_STEPS = 3  # each of which is watched; later, one step an epoch
log = logging.getLogger(__name__)


class FiringWatch:
    """Warns of layers that are silent or saturated, once for each set of them.

    Args:
        model: the network.
        steps_per_epoch: of its training.
    """

    def __init__(self, model: SpikeVideoFormer, steps_per_epoch: int) -> None:
        self._model, self._steps_per_epoch = model, steps_per_epoch
        self._levels = {
            name: m.config.levels for name, m in model.named_modules() if isinstance(m, Neuron)
        }
        self._reported: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    @contextmanager
    def step(self, step: int, board: TensorBoardLog | None) -> Iterator[None]:
        """Watch the forward pass of a step, if it is one of those that are, and log the rates."""
        last_of_epoch = (step + 1) % self._steps_per_epoch == 0
        if board is None or not (step < _FIRST_STEPS or last_of_epoch):
            yield
            return
        with record_firing_rates(self._model) as rates:
            yield
        shares = self._shares(rates)
        board.add(shares, step=step, prefix="firing_rate")
        silent = tuple(name for name, share in shares.items() if share < SILENT)
        saturated = tuple(name for name, share in shares.items() if share > SATURATED)
        if (silent, saturated) != self._reported:
            self._reported = silent, saturated
            log.warning(
                "step %d: of %d layers of neurons, silent (under %g %% of possible spikes): %s; "
                "saturated (over %g %%): %s",
                step,
                len(shares),
                100 * SILENT,
                shortened(silent),
                100 * SATURATED,
                shortened(saturated),
            )

    def _shares(self, rates: FiringRates) -> dict[str, float]:
        """Firing rates as shares of the possible: an Integer-LIF neuron fires up to D a frame."""
        return {name: rate / self._levels[name] for name, rate in rates.mean.items()}
