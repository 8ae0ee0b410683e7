"""The training loop: Fabric for devices, precision and processes; the rest is here in the open.

A run is a pure function of (config, step). Before every micro-batch torch's generator is seeded
from (seed, step, micro-batch), clips are ordered by (seed, epoch) and augmented by (seed, epoch,
clip), the learning rate follows from the step. So a checkpoint needs no generator state, and a run
that is killed and resumed ends with the same bits as one that is not.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.statistics import all_finite, kept_statistics, measure_statistics
from spikevideoformer.progress import Progress
from spikevideoformer.stopping import Interrupt, InterruptedBetweenSteps
from spikevideoformer.training.batches import MicroBatches, StepPlan, mixed_seed
from spikevideoformer.training.checkpoint import CheckpointFolder, save_checkpoint
from spikevideoformer.training.devices import deterministic, over_processes
from spikevideoformer.training.firing import FiringWatch
from spikevideoformer.training.logs import TensorBoardLog, shortened, write_metrics
from spikevideoformer.training.mean_statistics import MeanStatistics
from spikevideoformer.training.memory import freed_memory_kept
from spikevideoformer.training.optim import (
    build_optimizer,
    learning_rate_at,
    moving_average,
    rate_factors,
)
from spikevideoformer.training.plots import spoken
from spikevideoformer.training.rate_budget import RateBudget
from spikevideoformer.training.task_training import Batch, TaskTraining

REMEDY = (
    "nothing of it was saved; lower learning_rate, set clip_grad_norm, or use precision 32-true, "
    "and begin anew or go on from the last checkpoint with --resume"
)
_LOG_EVERY_STEPS = 10
log = logging.getLogger(__name__)


@dataclass
class RunState:
    """What, besides weights and optimiser, a run carries from step to step.

    Attributes:
        step: optimiser steps done.
        history: a row of metrics.csv for each epoch that was validated.
        sums: since the last row: loss, labels that are met, labels (clips, or pixels), gradient
            norm, steps it is finite in, weight of the loss.
        best: the row with the highest validation metric (the lowest val_loss among equals), or the
            last one without validation.
    """

    step: int = 0
    history: list[dict[str, float | int]] = field(default_factory=list)
    sums: Tensor = field(default_factory=lambda: torch.zeros(6, dtype=torch.float64))
    best: dict[str, float | int] | None = None


class Loop:
    """Runs the steps of one training, from whatever step its state is at.

    Args:
        task: the run: its data, loss and metrics.
        fabric: launched.
        model: on the CPU, with its initial (or resumed) weights.
        plan: how epochs are cut into steps.

    Attributes:
        judged: the network that is validated: `model`, or the average of its weights.
    """

    def __init__(
        self,
        task: TaskTraining[Any],
        fabric: Fabric,
        model: SpikeVideoFormer,
        *,
        plan: StepPlan,
    ) -> None:
        self.task, self.config, self.fabric, self.plan = task, task.config, fabric, plan
        self.model = model
        config = self.config
        self.optimizer = build_optimizer(
            model,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            kind=config.optimizer,
            factors=rate_factors(model, layer_decay=config.layer_decay, head_lr=config.head_lr),
            # the scaler of 16-mixed, on CUDA, does not go with gradient clipping and this
            fused=fabric.device.type == "cpu",
        )
        self.average = moving_average(model, config.ema).to(fabric.device) if config.ema else None
        self.judged = self.average.module if self.average else model
        self._wrapped, self._stepper = fabric.setup(model, self.optimizer)
        self._statistics = _running(model)
        self._lasting = [v for v in model.state_dict().values() if v.is_floating_point()]
        self.budget = RateBudget(model, config.rate_budget) if config.rate_budget else None
        self._firing = FiringWatch(model, plan.steps_per_epoch)
        self.state = RunState()
        self.state.sums = self.state.sums.to(fabric.device)
        self.total_steps = plan.steps_per_epoch * config.epochs
        self.checkpoints = CheckpointFolder(config.out / "checkpoints", keep=config.keep)

    # --- Checkpoints -----------------------------------------------------------------------------

    def resume(self, saved: dict[str, Any], path: Path) -> None:
        """Take up a run.

        Args:
            saved: what `load_checkpoint` gave.
            path: where it lay, for messages.

        Raises:
            ValueError: it belongs to a run that would end with other weights.
        """
        changed = self.config.differences(saved["config"])
        if saved["data"] != self.task.data:
            changed.append("the clips (files, labels or splits)")
        if saved.get("taught") != self.task.taught:  # earlier versions had no teachers
            changed.append("the teacher")
        if saved["processes"] != self.fabric.world_size:
            changed.append(f"processes: {saved['processes']} then, {self.fabric.world_size} now")
        if changed:
            raise ValueError(
                f"{path} is of a run with other settings ({'; '.join(changed)}); "
                "resume with the same ones, or start anew in another --out folder"
            )
        if saved["threads"] != torch.get_num_threads():
            log.warning(
                "the run began with %d torch threads and goes on with %d: sums may round "
                "differently (set OMP_NUM_THREADS for the same bits)",
                saved["threads"],
                torch.get_num_threads(),
            )
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.average:
            self.average.load_state_dict(saved["average"])
        self.fabric.strategy.precision.load_state_dict(saved["scaler"])
        sums = saved["sums"]
        self.state = RunState(
            step=saved["step"],
            history=saved["history"],
            # Earlier versions weighed the loss by labels.
            sums=torch.cat((sums, sums[2:3]))[:6].to(self.fabric.device),
            best=saved["best"],
        )
        if not self.fabric.is_global_zero:
            self.state.sums.zero_()  # the saved sums are those of all processes

    def save(self, measured: dict[str, Tensor] | None = None) -> None:
        """Write the checkpoint of this step, of finite values only. Every process must call it.

        Args:
            measured: the statistics by which these weights were validated, by their names in the
                state dict; `model` has the running averages, which training goes on with.
        """
        state, total = self.state, self._join_sums()
        self._require_finite_state()
        if self.fabric.is_global_zero:
            self.checkpoints.save(
                state.step,
                {
                    "config": self.config.to_dict(),
                    "data": self.task.data,
                    "taught": self.task.taught,
                    "processes": self.fabric.world_size,
                    "threads": torch.get_num_threads(),
                    "step": state.step,
                    "history": state.history,
                    "sums": total.cpu(),
                    "best": state.best,
                    "model": self.model.state_dict(),
                    "measured": measured or {},
                    "optimizer": self.optimizer.state_dict(),
                    "average": self.average.state_dict() if self.average else {},
                    "scaler": self.fabric.strategy.precision.state_dict(),
                },
            )
        self.fabric.barrier()

    def _join_sums(self) -> Tensor:
        """The sums of all processes, which from here on the first process carries alone."""
        total = over_processes(self.fabric, self.state.sums.clone(), "sum")
        self._refuse_nonfinite(total)
        self.state.sums = total if self.fabric.is_global_zero else torch.zeros_like(total)
        return total

    def _refuse_nonfinite(self, sums: Tensor) -> None:
        if not math.isfinite(float(sums[0])):
            raise ValueError(
                f"the training loss became {float(sums[0])} before step {self.state.step}; {REMEDY}"
            )

    # --- Steps -----------------------------------------------------------------------------------

    def run(self) -> None:
        """Train to the last step, validating and saving on the way.

        Raises:
            KeyboardInterrupt: Ctrl-C; a checkpoint was written.
        """
        state, fabric = self.state, self.fabric
        remaining = range(state.step, self.total_steps)
        self._progress = Progress(total_steps=self.total_steps, first_step=state.step)
        self._board = None
        if fabric.is_global_zero:
            write_metrics(state.history, self.config.out / "metrics.csv")
            self._board = TensorBoardLog(self.config.out, first_step=state.step)
        batches = self._batches(remaining)
        self._start_clock()
        try:
            with (
                Interrupt() as self._interrupt,
                deterministic(fabric.device),
                freed_memory_kept(fabric.device),
            ):
                if self._epoch_is_over():
                    self._end_epoch()
                for _ in remaining:
                    self._step(batches)
                    self._stop_if_interrupted()
                    if self._epoch_is_over():
                        self._end_epoch()
                        self._stop_if_interrupted()
                    elif (every := self.config.checkpoint_every_steps) and state.step % every == 0:
                        self.save()
        except InterruptedBetweenSteps:
            self.save()
            log.warning("interrupted at step %d; continue with --resume", state.step)
            raise self._interrupt.reason() from None
        finally:
            self._progress.clear()
            if self._board is not None:
                self._board.close()

    def _batches(self, steps: range) -> Iterator[Batch]:
        """This process's micro-batches of these steps."""
        fabric = self.fabric
        keys = MicroBatches(self.plan, steps, rank=fabric.global_rank, world_size=fabric.world_size)
        return self.task.batches(keys, fabric.device)

    def _epoch_is_over(self) -> bool:
        """Whether there is an epoch that was trained and not yet validated."""
        return self.state.step == (len(self.state.history) + 1) * self.plan.steps_per_epoch

    def _learning_rate(self, step: int) -> float:
        return learning_rate_at(
            step,
            peak=self.config.learning_rate,
            warmup_steps=round(self.config.warmup_epochs * self.plan.steps_per_epoch),
            total_steps=self.total_steps,
            schedule=self.config.schedule,
        )

    def _step(self, batches: Iterator[Batch]) -> None:
        """One optimiser step."""
        config, fabric, state = self.config, self.fabric, self.state
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(state.step) * group.get("lr_factor", 1.0)
        self._wrapped.train()
        statistics = MeanStatistics(
            list(self._statistics.values()) if self.plan.micro_batches > 1 else []
        )
        for a in range(config.accumulate):
            batch = next(batches).to(fabric.device)
            torch.manual_seed(
                mixed_seed(config.seed, state.step, a * fabric.world_size + fabric.global_rank)
            )
            batch = self.task.varied(batch)
            is_last = a == config.accumulate - 1
            with (
                fabric.no_backward_sync(self._wrapped, enabled=not is_last),
                self._firing.step(state.step, self._board) if is_last else nullcontext(),
                statistics.micro_batch(),
            ):
                with self.budget.watch(batch.video) if self.budget else nullcontext():
                    output = self._wrapped(batch.video)
                loss = self.task.loss(output, batch)
                extra = config.rate_weight * self.budget.penalty() if self.budget else 0.0
                fabric.backward((loss + extra) / config.accumulate)
            with torch.no_grad():
                right, labels = self.task.count(output, batch)
                weight = self.task.weight(batch, labels)
            state.sums[0] += loss.detach().double() * weight
            state.sums[1] += right
            state.sums[2] += labels
            state.sums[5] += weight
        statistics.apply(fabric)
        self._require_finite_state()
        if config.precision != "16-mixed":  # whose scaler skips such steps
            self._require_finite_gradients(batch)
        norm = fabric.clip_gradients(
            self._wrapped,
            self._stepper,
            max_norm=config.clip_grad_norm or math.inf,
            error_if_nonfinite=False,  # told above, with names
        )
        assert norm is not None
        self._stepper.step()
        self._stepper.zero_grad()
        if self.average:
            self.average.update_parameters(self.model)
        state.step += 1
        state.sums[3] += norm.nan_to_num(0.0, 0.0, 0.0)
        state.sums[4] += norm.isfinite()
        self._clips += self.plan.effective_batch
        if state.step % _LOG_EVERY_STEPS == 0:
            self._refuse_nonfinite(state.sums)
            self._log_step(float(loss.detach()), float(norm))

    def _require_finite_state(self) -> None:
        """Refuse weights, statistics and moments that are NaN or infinite, before they spread."""
        values = (v for state in self.optimizer.state.values() for v in state.values())
        moments = (v for v in values if torch.is_tensor(v) and v.ndim)  # the others count steps
        if all_finite((*self._lasting, *moments)):
            return
        names = [n for n, v in self.model.state_dict().items() if not bool(v.isfinite().all())]
        what = shortened(names) if names else "the moments of the optimizer"
        raise ValueError(f"{what} became NaN or infinite before step {self.state.step}; {REMEDY}")

    def _require_finite_gradients(self, batch: Batch) -> None:
        """Refuse a step that would make weights NaN, naming where, and in which clips.

        Where only the norm of gradients overflows, clipping would make them 0: they are brought to
        where it does not.
        """
        gradients = {n: p.grad for n, p in self.model.named_parameters() if p.grad is not None}
        if torch.nn.utils.get_total_norm(gradients.values()).isfinite():
            return
        names = [name for name, grad in gradients.items() if not bool(grad.isfinite().all())]
        limit = self.config.clip_grad_norm
        if not names and limit is not None:
            most = max(float(grad.abs().max()) for grad in gradients.values())
            for grad in gradients.values():
                grad.mul_(limit / most)  # at least as long as they may be: clipping does the rest
            return
        paths = [str(path) for path in getattr(batch, "paths", ())]
        clips = f", of clips {shortened(paths)}" if paths else ""
        raise ValueError(
            f"gradients became NaN or infinite in step {self.state.step}: "
            f"{shortened(names) if names else 'their norm'}{clips}; {REMEDY}"
        )

    def _stop_if_interrupted(self) -> None:
        """Ctrl-C reaches every process, but not in the same step: they agree on where to stop."""
        if self.fabric.world_size > 1:
            requested = torch.tensor(float(self._interrupt.requested), device=self.fabric.device)
            anyone = over_processes(self.fabric, requested, "sum")
            self._interrupt.requested = bool(anyone)
        self._interrupt.check()

    def _end_epoch(self) -> None:
        """Validate, and write the epoch's row, the best weights and a checkpoint."""
        state, config = self.state, self.config
        seconds = time.monotonic() - self._clock_s
        # Processes do not end a validation together, so they leave together, after it.
        interruptible = self._interrupt.check if self.fabric.world_size == 1 else (lambda: None)
        # Of a run that diverged, the training loss tells first.
        loss, right, labels, norm, finite_steps, weight = self._join_sums().tolist()
        with self._measured_statistics() as measured:
            result = self.task.validate(self.judged, self.fabric, interruptible)
            as_validated = self.judged.state_dict() | measured
        self._require_finite_state()
        if not all_finite(measured.values()):
            raise ValueError(f"measured statistics of batch norms are NaN or infinite; {REMEDY}")
        row = {
            "epoch": len(state.history) + 1,
            "step": state.step,
            "learning_rate": self._learning_rate(state.step - 1),
            "train_loss": loss / weight if weight else math.nan,
            f"train_{self.task.measure}": right / labels if labels else math.nan,
            "gradient_norm": norm / max(finite_steps, 1.0),
            **self.task.row(result),
            "clips_per_second": self._clips / seconds,
        }
        state.history.append(row)
        state.sums = torch.zeros_like(state.sums)
        if (
            state.best is None
            or not config.validates
            or self.task.rank(row) > self.task.rank(state.best)
        ):
            state.best = row
            if self.fabric.is_global_zero:
                save_checkpoint(self.checkpoints.best, {"row": row, "model": as_validated})
        self.save(measured)
        if self.fabric.is_global_zero:
            write_metrics(state.history, config.out / "metrics.csv")
            self._log_epoch(row)
        self._start_clock()

    @contextmanager
    def _measured_statistics(self) -> Iterator[dict[str, Tensor]]:
        """Batch norms have the statistics of the last training clips at the weights as they are.

        Running averages forget their beginning too slowly for a short run, and lag behind the
        weights in a long one. They are put back afterwards: training is not touched.
        """
        clips, fabric, state = self.config.norm_clips, self.fabric, self.state
        with kept_statistics(self.judged):
            if clips:
                steps = math.ceil(clips / self.plan.effective_batch)
                batches = self._batches(range(max(0, state.step - steps), state.step))
                with fabric.autocast():
                    measure_statistics(
                        self.judged,
                        (batch.to(fabric.device).video for batch in batches),
                        gather=self._in_order,
                    )
            yield {name: buffer.clone() for name, buffer in _running(self.judged).items()}

    def _in_order(self, rows: Tensor) -> Tensor:
        """Rows of the micro-batches of this process, with those of all others between them."""
        if self.fabric.world_size == 1:
            return rows
        gathered = cast(Tensor, self.fabric.all_gather(rows))  # [processes, rows, ...]
        return gathered.transpose(0, 1).flatten(0, 1)

    # --- What is told ----------------------------------------------------------------------------

    def _start_clock(self) -> None:
        self._clock_s, self._clips = time.monotonic(), 0

    def _log_step(self, loss: float, norm: float) -> None:
        if self._board is None:
            return
        step, rate = self.state.step, self._learning_rate(self.state.step - 1)
        values = {"loss": loss, "gradient_norm": norm, "learning_rate": rate}
        epoch = (step - 1) // self.plan.steps_per_epoch + 1
        shown = f"epoch {epoch}/{self.config.epochs}  loss {loss:.3f}"
        if self.budget:
            values["rate_by_operations"] = fired = self.budget.rate
            shown += f"  rate {fired:.3f} of {self.budget.target:g}"
        self._board.add(values, step=step, prefix="step")
        if self._progress.due():
            self._progress.show(step, shown)

    def _log_epoch(self, row: dict[str, float | int]) -> None:
        assert self._board is not None
        values = {k: v for k, v in row.items() if k not in ("epoch", "step")}
        self._board.add(values, step=self.state.step, prefix="epoch")
        self._progress.clear()
        log.info(
            "epoch %d/%d  train loss %.3f %s %.1f %%  val loss %.3f %s  %.1f clips/s  ETA %s",
            row["epoch"],
            self.config.epochs,
            row["train_loss"],
            spoken(self.task.measure),
            100 * row[f"train_{self.task.measure}"],
            row["val_loss"],
            self.task.told(row),
            row["clips_per_second"],
            self._progress.left(self.state.step),
        )


def _running(model: nn.Module) -> dict[str, Tensor]:
    """The running statistics of batch norms, by name."""
    ends = ("running_mean", "running_var")
    return {name: buffer for name, buffer in model.named_buffers() if name.endswith(ends)}
