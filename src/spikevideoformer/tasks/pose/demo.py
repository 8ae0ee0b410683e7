"""``svf demo --task pose``: skeletons of bodies in motion, with a report to look at.

Bodies of random proportions and clothes are rendered in motions that are computed, before random
cameras that see them from the front; their joints are known exactly. A small network learns to find
them, and is then used on video files. Beside it stands the mean pose of the training motions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure

from spikevideoformer.body.skeleton import BodyModel
from spikevideoformer.data.transforms import to_pictures
from spikevideoformer.demo.driver import Driver
from spikevideoformer.files import save_figure
from spikevideoformer.inference.document import picture, player
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.synth.motions import procedural_motions
from spikevideoformer.synth.render import write_motion_clips
from spikevideoformer.synth.spec import RenderSpec
from spikevideoformer.tasks.pose.dataset import PoseDataset, collate_poses
from spikevideoformer.tasks.pose.draw import draw_bones, side_views
from spikevideoformer.tasks.pose.head import mean_rotations
from spikevideoformer.tasks.pose.index import read_poses
from spikevideoformer.tasks.pose.metrics import PoseResult, PoseScores, project_perspective
from spikevideoformer.tasks.pose.predictor import PoseTracker
from spikevideoformer.tasks.pose.sequence import PoseIndex
from spikevideoformer.tasks.pose.spec import PoseSpec
from spikevideoformer.tasks.pose.square import Square
from spikevideoformer.tasks.pose.training import batch_pose, pose_metrics
from spikevideoformer.training import PoseEvaluation, PoseOptions, TrainConfig
from spikevideoformer.video.spec import ClipSpec

ENLARGED = 4  # the pictures of poses.png over what the network sees


@dataclass(frozen=True, kw_only=True)
class Used:
    """What the trained network was tried on.

    Attributes:
        videos: with the skeletons that it found.
        mean: what the mean pose of the training motions scores.
        clips: that it was trained on.
    """

    videos: list[Path]
    mean: PoseResult
    clips: int


@dataclass(frozen=True, kw_only=True)
class Demo(Driver):
    """Rendered clips of bodies in motion.

    Args:
        motions: of each kind; the last fifth of them is to measure on.
        clips_per_motion: each with its own body, camera and light.
        clip: size and length of the clips. The square around a person is about 0.8 of it.
    """

    motions: int = 50
    clips_per_motion: int = 2
    clip: RenderSpec = field(
        # From all sides, a few minutes are too short to learn which way a body faces.
        default_factory=lambda: RenderSpec(size=80, frames=16, frame_rate_hz=10.0, view_deg=60.0)
    )
    training: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            out=Path("run"),
            task="pose",
            model="svf_nano",
            frames=8,
            size=64,
            epochs=8,
            batch_size=8,
            learning_rate=4e-3,
            warmup_epochs=0.25,
            options=PoseOptions(crop="person", rotation_weight=3),
            check="none",  # the clips were written a moment ago
            cache=True,
            workers=0,
        )
    )

    title: ClassVar[str] = "SpikeVideoFormer demo: pose"
    making: ClassVar[str] = "rendering clips of bodies in motion"

    def make(self, clips: Path) -> None:
        write_motion_clips(
            procedural_motions(self.motions),
            clips,
            spec=self.clip,
            seed=self.seed,
            clips_per_motion=self.clips_per_motion,
        )

    def use(self, out: Path, config: TrainConfig) -> Used:
        """On video files, told where the person is and what the camera is."""
        index = read_poses(out / self.clips)
        model = SpikeVideoFormer.from_pretrained(out / "run" / "model")
        assert model.body is not None
        seen = index.select("val")
        first = {s.action: s for s in reversed(seen.sequences)}
        shown = seen.with_items([first[action] for action in seen.actions])
        draw_poses(model, model.body, shown, config.spec, out / "poses.png")
        folder = out / "predictions"
        folder.mkdir(exist_ok=True)
        written = []
        for sequence in shown.sequences:
            square = Square.of_person(sequence.truth.points)
            assert square is not None
            assert isinstance(sequence.pictures, Path)
            tracker = PoseTracker(
                model,
                device="cpu",
                focal_px=sequence.truth.focal_px[0],
                box=(square.left, square.top, square.side),
            )
            target = folder / f"{sequence.action}.mp4"
            tracker.write(sequence.pictures, target)
            written.append(target)
        return Used(
            videos=written,
            mean=mean_pose(index, config.spec, model.body),
            clips=len(index.select("train").sequences),
        )

    def told(self, out: Path, evaluation: PoseEvaluation, used: Used) -> dict[str, str]:
        result = evaluation.result
        return {
            "network": f"{_errors(result.overall)} of {result.frames} validation frames",
            "mean pose": _errors(used.mean.overall),
            "truth beside it": str(out / "poses.png"),
            "video with skeleton": str(used.videos[0]),
        }

    def page(self, out: Path, evaluation: PoseEvaluation, used: Used) -> dict[str, Any]:
        result = evaluation.result
        rows = [
            ("all", *_cells(result.overall), *_cells(used.mean.overall)),
            *(
                (name, *_cells(scores), *_cells(used.mean.actions[name]))
                for name, scores in result.actions.items()
            ),
        ]
        head = ("network: MPJPE", "PA-MPJPE", "mean pose: MPJPE", "PA-MPJPE")
        return {
            "clips": used.clips,
            "joints": len(result.joints),
            "actions": len(result.actions),
            "head": [f"{result.frames} validation frames", *head],
            "rows": rows,
            "poses": picture(out / "poses.png", "Frames of validation clips"),
            "errors": picture(out / "run" / "errors.png", "Errors by joint and action"),
            "videos": [player(path, path.stem) for path in used.videos],
        }


def mean_pose(
    index: PoseIndex, spec: PoseSpec, body: BodyModel, *, turned: bool = False
) -> PoseResult:
    """What the mean pose of the training motions scores on the validation motions.

    Args:
        index: with both splits, whose rotations are labelled.
        spec: which frames count.
        body: the usual one.
        turned: its root as in the truth, which no constant pose could know.
    """
    training, validation = index.select("train"), index.select("val")
    mean = mean_rotations(
        torch.cat([torch.from_numpy(s.truth.rotations) for s in training.sequences])
    ).float()
    metrics = pose_metrics(validation, spec, body)
    for sequence in validation.sequences:
        metrics.start_sequence(sequence.action)
        some = slice(None, None, spec.step(sequence.frame_rate_hz))
        joints = torch.from_numpy(sequence.truth.joints[some])
        rotations = mean.expand(len(joints), -1, -1, -1).clone()
        assert sequence.truth.rotations is not None
        if turned:
            rotations[:, 0] = torch.from_numpy(sequence.truth.rotations[some, 0])
        metrics.add_frames(body.joints(rotations, joints[:, 0]), joints)
    return metrics.compute()


@torch.no_grad()
def draw_poses(
    model: SpikeVideoFormer, body: BodyModel, index: PoseIndex, spec: PoseSpec, path: Path
) -> None:
    """Draw the true skeleton beside the predicted one, over a frame of each sequence, as PNG.

    Args:
        model: in evaluation mode, on a CPU.
        body: as the model was made for.
        index: the sequences, of pictures.
        spec: how they become input.
        path: the PNG to write.
    """
    dataset = PoseDataset(index, spec, body)
    begins = [i for i, window in enumerate(dataset.windows) if window[1][0] == 0]
    batch = collate_poses([dataset[i] for i in begins])
    predicted = batch_pose(model(batch.video), batch, body).joints
    colours = ClipSpec(frames=1, size=1, mean=spec.mean, std=spec.std)
    figure = Figure(figsize=(11, 2.5 * len(begins)), layout="constrained")
    panels = figure.subplots(len(begins), 4, squeeze=False)
    t = spec.frames // 2
    for b, (row, sequence) in enumerate(zip(panels, index.sequences, strict=True)):
        both = torch.stack((batch.joints[b, t], predicted[b, t]))
        points = project_perspective(both, batch.focal_px[b], batch.centre_px[b]).numpy()
        joints = (both - both[:, :1]).numpy()
        frame = to_pictures(batch.video[b, t : t + 1], colours)[0].numpy()
        frame = frame.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)
        for k in range(2):
            drawn = frame.copy()
            draw_bones(drawn, ENLARGED * points[k], -both[k, :, 2].numpy(), body, 3.0)
            row[k].imshow(drawn)
        for k, side in enumerate(side_views(enumerate(joints), joints, body)):
            row[2 + k].imshow(side)
        error_mm = 1000 * float((both[0] - both[0, 0] - both[1] + both[1, 0]).norm(dim=-1).mean())
        titles = (
            *(f"{sequence.action}: truth", f"prediction, {error_mm:.0f} mm off"),
            *("truth, from the side", "prediction, from the side"),
        )
        for panel, title in zip(row, titles, strict=True):
            panel.set_title(title, fontsize=9)
            panel.set_axis_off()
    save_figure(figure, path)


def _errors(scores: PoseScores) -> str:
    return f"MPJPE {scores.mpjpe_mm:5.1f} mm, PA-MPJPE {scores.pa_mpjpe_mm:5.1f} mm"


def _cells(scores: PoseScores) -> tuple[str, str]:
    return f"{scores.mpjpe_mm:.0f} mm", f"{scores.pa_mpjpe_mm:.0f} mm"
