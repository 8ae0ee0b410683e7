"""Training and evaluating a network for the pose of a body in every frame."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from spikevideoformer.body.skeleton import BodyModel
from spikevideoformer.body.smpl import load_body
from spikevideoformer.body.stored import AbsentSmpl
from spikevideoformer.data.check import Report, split_names
from spikevideoformer.data.problems import DatasetError
from spikevideoformer.models.heads import part_of
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, create_model
from spikevideoformer.progress import progress_on_stderr
from spikevideoformer.tasks.pose.check import check_poses
from spikevideoformer.tasks.pose.dataset import PoseBatch, PoseDataset, collate_poses
from spikevideoformer.tasks.pose.head import (
    AnyPoseOutput,
    HeatmapHead,
    Pose,
    PoseHead,
    SeenOutput,
    mean_rotations,
    pose_from_output,
)
from spikevideoformer.tasks.pose.loss import PoseTensors, heat_loss, pose_loss
from spikevideoformer.tasks.pose.metrics import (
    PCK_MM,
    PoseMetrics,
    PoseResult,
    in_front,
    project_perspective,
)
from spikevideoformer.tasks.pose.plots import plot_errors
from spikevideoformer.tasks.pose.sequence import PoseIndex, fit_skeleton
from spikevideoformer.tasks.pose.spec import PoseLossWeights, PoseOptions, PoseSpec
from spikevideoformer.training.devices import Fabric, over_processes
from spikevideoformer.training.judging import Judging, fabric_for, judged_batches
from spikevideoformer.training.task_training import Row, TaskTraining

log = logging.getLogger(__name__)

_SAME_POSE = 0.1  # spread of predicted poses beside that of labelled ones
_MOST_POSES = 20_000  # of which the mean is taken


@dataclass(frozen=True, kw_only=True)
class PoseEvaluation:
    """Metrics of one evaluation, and the loss.

    Attributes:
        loss: mean over windows.
        result: the metrics.
        variation: how much the joints about the root vary over all frames, as a share of how much
            the labelled ones do; None where these do not.
    """

    loss: float
    result: PoseResult
    variation: float | None = None

    def _repr_html_(self) -> str:
        return self.result._repr_html_()

    def lines(self) -> list[str]:
        """The metrics as a command prints them."""
        return self.result.lines()

    def signs(self) -> Iterator[str]:
        """Lines about answers that do not depend on the input; none where they do."""
        if self.variation is not None and self.variation < _SAME_POSE:
            yield (
                "nearly the same pose is found in every frame (it varies "
                f"{self.variation:.0%} as much as the labels): the network does not see the "
                "body; train it longer, or show it larger (--pose.crop person)"
            )

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dicts and numbers, ready for JSON."""
        return {"loss": self.loss, "variation": self.variation, **asdict(self.result)}


class PoseTraining(TaskTraining[PoseIndex]):
    """Videos with a body in every frame; arguments and errors as of `TaskTraining`."""

    name = "pose"
    index_type = PoseIndex
    checked = "checked sequence"
    collate = collate_poses
    measure = "pck_3d"
    watched = ("pck_3d", "pck_3d")
    loss_unit = ""

    def check(
        self, index: PoseIndex, required: Sequence[str], progress: Callable[[int, int], None]
    ) -> Report[PoseIndex]:
        parts = split_names(required)  # of the others nothing is wanted, so nothing is looked for
        items = [s for s in index.sequences if s.split in parts]
        problems = [p for p in index.problems if p.split in (None, *parts)]
        return check_poses(
            index.with_items(items, problems),
            required_splits=required,
            decode=self.config.check,
            spec=self.config.spec,
            progress=progress,
        )

    def prepare(
        self, training: PoseIndex, validation: PoseIndex, prepared: None, device: torch.device
    ) -> None:
        path = self.config.options.body
        self.body: BodyModel = fit_skeleton(training) if path is None else load_body(path)
        if self.body.joint_names != training.joint_names and path is not None:
            raise ValueError(
                f"{training.root} has the joints {', '.join(training.joint_names)}, and pose.body"
                " is SMPL; leave pose.body out"
            )
        pose_metrics(validation, self.config.spec, self.body)
        if not any(np.isfinite(s.truth.joints[:, 1:]).any() for s in validation.sequences):
            raise DatasetError(
                f"poses are measured in space, and the joints of {validation.root} to validate on"
                " are labelled in the picture alone; choose another val_split, or none"
            )

    def names(self, index: PoseIndex) -> tuple[str, ...]:
        return index.joint_names

    def dataset(self, index: PoseIndex, *, augmented: bool = False) -> PoseDataset:
        options = self.config.options
        varied: dict[str, Any] = {
            "augmentation": self.config.augmentation,
            "zoom": options.zoom,
            "shift": options.shift,
            "gap": options.gap,
            "seed": self.config.seed,
        }
        return PoseDataset(
            index,
            self.config.spec,
            self.body,
            cache=self.cache.frames,
            **varied if augmented else {},
        )

    def create_model(self) -> SpikeVideoFormer:
        model = create_model(
            self.config.model, task="pose", body=self.body, **self.config.model_options
        )
        model.clip = self.config.spec.to_dict()
        index = self.train_set.index
        mean = _mean_pose(index)
        if mean is None:
            mean = torch.eye(3).expand(len(self.body.parents), 3, 3)
        cast(PoseHead | HeatmapHead, model.head).start_at(mean, _mean_place(index, self.body))
        return model

    def loss(self, output: AnyPoseOutput, batch: PoseBatch) -> Tensor:
        return _loss(output, self._pose(output, batch), batch, self.config.options.weights)

    def count(self, output: AnyPoseOutput, batch: PoseBatch) -> tuple[Tensor, Tensor]:
        joints = self._pose(output, batch).joints
        error = joints - batch.joints
        distance_mm = 1000 * (error - error[..., :1, :]).norm(dim=-1)
        known = distance_mm.isfinite()  # NaN where the joint or the root is not labelled
        return ((distance_mm < PCK_MM) & known).sum(), known.sum()

    def weight(self, batch: PoseBatch, labels: Tensor | int) -> Tensor:
        """Its joints that are labelled, in space or in the picture."""
        joints = batch.joints.isfinite().all(-1)
        return (joints & joints[..., :1] | batch.points.isfinite().all(-1)).sum()

    def _pose(self, output: AnyPoseOutput, batch: PoseBatch) -> Pose:
        return batch_pose(output, batch, self.body.to(output[0].device))

    def judge(
        self,
        model: nn.Module,
        fabric: Fabric,
        after_batch: Callable[[], None] = lambda: None,
        *,
        finally_: bool = False,
    ) -> PoseEvaluation:
        return evaluate_pose(
            model,
            self.val_set,
            self.body,
            weights=self.config.options.weights,
            batch_size=self.config.batch_size,
            workers=self.config.workers,
            fabric=fabric,
            after_batch=after_batch,
        )

    def row(self, result: PoseEvaluation) -> dict[str, float | int]:
        scores = result.result.overall
        values = {
            "loss": result.loss,
            "pck_3d": scores.pck_3d,
            "mpjpe_mm": scores.mpjpe_mm,
            "pa_mpjpe_mm": scores.pa_mpjpe_mm,
        }
        # Without a root in any frame there is no MPJPE.
        return {f"val_{name}": math.nan if v is None else v for name, v in values.items()}

    def rank(self, row: Row) -> tuple[float, ...]:
        """The smaller the MPJPE, the better, and without one PA-MPJPE."""
        return tuple(
            -value if math.isfinite(value) else -math.inf
            for value in (row["val_mpjpe_mm"], row["val_pa_mpjpe_mm"], row["val_loss"])
        )

    def told(self, row: Row) -> str:
        """MPJPE and PA-MPJPE."""
        return f"MPJPE {row['val_mpjpe_mm']:.0f} mm PA-MPJPE {row['val_pa_mpjpe_mm']:.0f} mm"

    def report(self, result: PoseEvaluation, history: Sequence[Row], out: Path) -> None:
        plot_errors(result.result, out / "errors.png", history)

    @staticmethod
    def judge_released(  # type: ignore[override]  # settings of its own
        model: SpikeVideoFormer,
        folder: Path,
        index: PoseIndex,
        judging: Judging,
        *,
        body: Path | None = None,
    ) -> PoseEvaluation:
        """As `evaluate_folder` has it done.

        The loss is that of the default weights, which a model does not carry with it.

        Args:
            model: from the folder.
            folder: for errors.
            index: the sequences, of the same joints.
            judging: how.
            body: the SMPL file, where the model was trained with one.
        """
        assert model.body is not None  # a model for pose has one
        usual = PoseOptions()
        if isinstance(model.body, AbsentSmpl):
            model.body, usual = load_body(body), PoseOptions(body=body)
        elif body is not None:
            raise ValueError(
                f"{folder} has a skeleton of its own, and {body} is SMPL; leave body out"
            )
        if model.body.joint_names != index.joint_names:
            raise ValueError(
                f"the joints of {index.root} are {', '.join(index.joint_names)}, those of {folder}"
                f" {', '.join(model.body.joint_names)}; evaluate on data with the same joints"
            )
        spec = PoseSpec.from_dict(model.clip or {})
        index = judging.checked(index, check_poses, "checked sequence", spec=spec)
        dataset = PoseDataset(index, spec, model.body)
        with progress_on_stderr("window") as progress:
            evaluation = evaluate_pose(
                model,
                dataset,
                model.body,
                weights=usual.weights,
                batch_size=judging.batch_size,
                workers=judging.workers,
                fabric=judging.fabric,
                progress=progress,
            )
        if judging.out is not None:
            plot_errors(evaluation.result, judging.out / "errors.png")
        return evaluation


def batch_pose(output: AnyPoseOutput, batch: PoseBatch, body: BodyModel) -> Pose:
    """Bodies in the frames of a batch from what the network gives, with the cameras of the batch.

    Args:
        output: of the batch.
        batch: what the network saw.
        body: as the model was made for, on the device of `output`.
    """
    return pose_from_output(
        output,
        body,
        size=batch.video.shape[-1],
        focal_px=batch.focal_px[:, None],
        centre_px=batch.centre_px[:, None],
    )


def _loss(output: AnyPoseOutput, pose: Pose, batch: PoseBatch, weights: PoseLossWeights) -> Tensor:
    """The loss of a batch; the translation is compared by where the root is."""
    T, size = pose.joints.shape[1], batch.video.shape[-1]
    points = project_perspective(pose.joints, batch.focal_px[:, None], batch.centre_px[:, None])
    if pose.rotations is None:
        weights = replace(weights, rotation=0, shape=0)
    predicted = PoseTensors(
        rotations=pose.rotations,
        joints=pose.joints,
        points=points,
        shape=pose.shape,
        translation=pose.joints[..., 0, :],
    )
    truth = PoseTensors(
        rotations=batch.rotations,
        joints=batch.joints,
        points=batch.points.where(in_front(pose.joints)[..., None], math.nan),
        shape=batch.shape[:, None].expand(-1, T, -1),
        translation=batch.joints[..., 0, :],
    )
    loss, _ = pose_loss(predicted, truth, root=0, image_size=(size, size), weights=weights)
    if isinstance(output, SeenOutput) and weights.heat:
        loss = loss + weights.heat * heat_loss(output.heat, batch.points, size=size)
    return loss


@torch.no_grad()
def evaluate_pose(
    model: nn.Module,
    dataset: PoseDataset,
    body: BodyModel,
    *,
    weights: PoseLossWeights = PoseLossWeights(),  # noqa: B008 - frozen
    batch_size: int = 16,
    workers: int = 0,
    fabric: Fabric | None = None,
    after_batch: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> PoseEvaluation:
    """Metrics of a model on all frames of a data set, over all processes.

    Process r of w evaluates the sequences r, r + w, ...; then the sums of all are added, so every
    process returns the same result.

    Args:
        model: for pose, on the device of `fabric`. Its training mode is put back.
        dataset: windows, unaugmented.
        body: as the model was made for.
        weights: of the loss.
        batch_size: windows of a forward pass.
        workers: loader processes.
        fabric: device, precision and processes; None: where the model is, in full precision.
        after_batch: called after every batch; may raise to stop.
        progress: told how many windows are done, and of how many.

    Raises:
        ValueError: outputs that are NaN or infinite, the same in every process; or sequences of
            several frame rates.
    """
    fabric = fabric_for(model, fabric)
    device = fabric.device
    body = body.to(device)
    index, rank, world_size = dataset.index, fabric.global_rank, fabric.world_size
    metrics = pose_metrics(index, dataset.spec, body)
    keys = [i for i, window in enumerate(dataset.windows) if window[0] % world_size == rank]
    groups = [keys[i : i + batch_size] for i in range(0, len(keys), batch_size)]
    losses = torch.zeros(2, dtype=torch.float64)
    variation = _Variation(len(index.joint_names), device)
    current, done = -1, 0
    judged = judged_batches(
        model, dataset, collate_poses, fabric, batch_size, workers, after_batch, groups=groups
    )
    with closing(judged):
        for output, batch in judged:
            pose = batch_pose(output, batch, body)
            for b in range(len(batch)):  # each for itself: labels are not spread evenly
                one = slice(b, b + 1)
                own = _loss(part_of(output, one), pose.part(one), batch.window(b), weights)
                losses += torch.tensor([float(own), 1])
            points = project_perspective(
                pose.joints, batch.focal_px[:, None], batch.centre_px[:, None]
            )
            # What is behind the camera is nowhere near its point.
            points = points.where(in_front(pose.joints)[..., None], -1e6)
            for b, number in enumerate(batch.sequences.tolist()):
                if number != current:
                    current = number
                    metrics.start_sequence(index.sequences[number].action)
                fresh = batch.fresh[b]
                metrics.add_frames(pose.joints[b, fresh], batch.joints[b, fresh])
                variation.add(pose.joints[b, fresh], batch.joints[b, fresh])
                metrics.add_points(points[b, fresh], batch.points[b, fresh])
            done += len(batch)
            progress(done, len(keys))
    metrics.sums = over_processes(fabric, metrics.sums.to(device), "sum").cpu()
    loss, count = over_processes(fabric, losses.to(device), "sum").tolist()
    variation.sums = over_processes(fabric, variation.sums, "sum")
    return PoseEvaluation(
        loss=loss / count, result=metrics.compute(), variation=variation.compute()
    )


class _Variation:
    """How much joints about the root vary over frames, predicted ones beside labelled ones."""

    def __init__(self, joints: int, device: torch.device) -> None:
        # of both: number, sum and sum of squares of each coordinate of each joint
        self.sums = torch.zeros(3, 2, joints, 3, dtype=torch.float64, device=device)

    def add(self, predicted: Tensor, labelled: Tensor) -> None:
        """Count frames ``[t, J, 3]``; those of joints without a label are left out."""
        both = torch.stack([predicted, labelled]).double()  # [2, t, J, 3]
        both = both - both[:, :, :1]
        both = both.where(both[1].isfinite() & both[0].isfinite(), math.nan)
        self.sums[0] += both.isfinite().sum(1)
        self.sums[1] += both.nansum(1)
        self.sums[2] += both.square().nansum(1)

    def compute(self) -> float | None:
        number, total, squares = (z.clamp(min=1) if i == 0 else z for i, z in enumerate(self.sums))
        variance = (squares / number - (total / number).square()).clamp(min=0).sum((1, 2))
        predicted, labelled = variance.tolist()
        return math.sqrt(predicted / labelled) if labelled > 1e-12 else None


_HEAD = re.compile(r"head$", re.IGNORECASE)


def pose_metrics(index: PoseIndex, spec: PoseSpec, body: BodyModel) -> PoseMetrics:
    """Empty metrics for the sequences of an index, seen as `spec` says.

    PCKh takes the bone that ends in a joint named head, where there is one.

    Raises:
        ValueError: sequences whose frames follow each other at several rates; or no joints that
            are named like hips.
    """
    rates = {s.frame_rate_hz / spec.step(s.frame_rate_hz) for s in index.sequences}
    if max(rates) > 1.01 * min(rates):
        raise ValueError(
            f"{index.root} has sequences of {min(rates):g} to {max(rates):g} frames per second;"
            " train with --frame-rate-hz, so that errors of acceleration can be compared"
        )
    names, parents = body.joint_names, body.parents
    left, right = body.hips
    head = next((j for j, name in enumerate(names) if _HEAD.search(name) and parents[j] >= 0), None)
    return PoseMetrics(
        names,
        root=names[0],
        hips=(names[left], names[right]),
        actions=index.actions,
        frame_rate_hz=min(rates),
        head=None if head is None else (names[head], names[parents[head]]),
    )


def _mean_pose(index: PoseIndex) -> Tensor | None:
    """The mean of the labelled rotations; None where there are none."""
    labelled = [s.truth.rotations for s in index.sequences if s.truth.rotations is not None]
    if not labelled:
        return None
    poses = torch.cat([torch.from_numpy(rotations) for rotations in labelled])
    poses = poses[poses.isfinite().all(-1).all(-1).all(-1)]
    return mean_rotations(poses[:: len(poses) // _MOST_POSES + 1]) if len(poses) else None


def _mean_place(index: PoseIndex, body: BodyModel) -> Tensor | None:
    """The mean translation of a body whose root is where the labels say; None where there are none.

    At translation 0 a body need not have its root at the origin (SMPL has not).
    """
    roots = torch.cat([torch.from_numpy(s.truth.joints[:, 0]) for s in index.sequences])
    roots = roots[roots.isfinite().all(-1)].double()
    if not len(roots):
        return None
    J = len(body.parents)
    at_zero = body.joints(torch.eye(3).expand(J, 3, 3), torch.zeros(3))[0].cpu()
    return roots.mean(0) - at_zero
