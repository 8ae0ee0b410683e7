"""The pose of a body in every frame, as the rest of the house asks for it."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from spikevideoformer.body.smpl_file import require_smpl_file
from spikevideoformer.events.spec import EventChannels
from spikevideoformer.models.config import ModelConfig
from spikevideoformer.task import PredictSettings, Recipe, Task
from spikevideoformer.tasks.pose.spec import PoseOptions, PoseSpec
from spikevideoformer.video.spec import ClipSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spikevideoformer.body.skeleton import BodyModel
    from spikevideoformer.data.index import Layout
    from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
    from spikevideoformer.tasks.pose.answer import PosePrediction
    from spikevideoformer.tasks.pose.demo import Demo
    from spikevideoformer.tasks.pose.predictor import PoseTracker
    from spikevideoformer.tasks.pose.sequence import PoseIndex
    from spikevideoformer.tasks.pose.training import PoseTraining
    from spikevideoformer.training.config import TrainConfig
    from spikevideoformer.video.clip import Clip


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Of `svf eval`.

    Args:
        batch_size: clips at a time (default 8).
        body: SMPL as convert_smpl wrote it, for a model that was trained with it.
    """

    batch_size: int | None = field(default=None, metadata={"at_least": 1})
    body: Path | None = field(default=None, metadata={"metavar": "FILE"})


def _box(text: str) -> tuple[int, int, int]:
    if not re.fullmatch(r"-?\d+,-?\d+,\d+", text):
        raise ArgumentTypeError(f"{text!r} is no box like 120,40,300")
    left, top, side = map(int, text.split(","))
    return left, top, side


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Of `svf predict`.

    Args:
        body: SMPL as convert_smpl wrote it, for a model that was trained with it.
        box: square around the person, in pixels; a negative LEFT needs an equals sign:
            --box=-5,10,300 (default: where svf/person-mask finds somebody, for a model that was
            trained on squares around the person; else all of the picture).
        no_follow: keep to that square for the whole video instead of going with the person.
        field_of_view_deg: angle that the longer side of the picture spans (default 55); it sets the
            distance.
        focal_px: focal length, where it is known.
    """

    body: Path | None = field(default=None, metadata={"metavar": "FILE"})
    box: tuple[int, int, int] | None = field(
        default=None, metadata={"metavar": "LEFT,TOP,SIDE", "type": _box}
    )
    no_follow: bool = False
    field_of_view_deg: float | None = field(default=None, metadata={"metavar": "DEG"})
    focal_px: float | None = field(default=None, metadata={"metavar": "PIXELS", "above": 0})


class PoseTracking(Task):
    """A body in every frame."""

    name = "pose"
    options, spec_type = PoseOptions, PoseSpec
    eval_options, predict_options = EvalOptions, PredictOptions
    # A mirrored body has its joints on the other side, and other rotations.
    unvaried: ClassVar[tuple[str, ...]] = (*Task.unvaried, "flip")
    instead = "pose.zoom and pose.shift"
    needs_body = True
    demo_folder = "demo_pose"

    def check_paths(self, config: TrainConfig) -> None:
        if config.options.body is not None:
            require_smpl_file(config.options.body)
        if config.options.head == "heatmap" and config.readout not in (None, "spike"):
            raise ValueError(
                f"pose.head heatmap reads spikes, and the readout is {config.readout}; leave it out"
            )

    def spec(self, config: TrainConfig) -> PoseSpec:
        options: PoseOptions = config.options
        return PoseSpec(
            frames=config.frames,
            size=config.size,
            frame_rate_hz=config.frame_rate_hz,
            input="events" if config.input == "events" else options.input,
            events=config.events,
            crop=options.crop,
            poses=options.poses,
            channels=options.channels,
        )

    def published_spec(self, config: ModelConfig, given: Mapping[str, Any]) -> PoseSpec:
        """Events of yes and no in as many channels, unless there are three: then it sees pictures.

        How events were split into channels no file tells: by polarity, then by time.
        """
        channels = EventChannels()
        if config.in_channels != 3:
            even = config.in_channels % 2 == 0
            channels = EventChannels(
                polarity="both" if even else "merged",
                mode="binary",
                bins=config.in_channels // 2 if even else config.in_channels,
            )
        return PoseSpec(
            **{"frames": 8, "size": 256, **given},
            input="rgb" if config.in_channels == 3 else "events",
            poses=config.poses,
            channels=channels,
        )

    def model_options(self, config: TrainConfig) -> dict[str, Any]:
        options: PoseOptions = config.options
        kind = {"pose_head": options.head, "poses": options.poses}
        return {"in_channels": self.spec(config).in_channels, **kind}

    def recipe(self, config: TrainConfig, given: Mapping[str, Any]) -> Recipe:
        from spikevideoformer.tasks.pose.sequence import window_positions

        index = self.read(config.data or "", layout=config.layout).select(config.train_split)
        spec = self.spec(config)
        windows = (
            window_positions(len(s), spec, spec.step(s.frame_rate_hz)) for s in index.sequences
        )
        return Recipe(clips=sum(map(len, windows)))

    def kept(self, clip: Mapping[str, Any], model: ModelConfig) -> dict[str, Any]:
        eyes = {"head": model.pose_head, "poses": model.poses}
        if not clip:
            return {"pose": eyes}
        channels = {n: clip["channels"][n] for n in ("polarity", "bins")}
        eyes |= {"input": clip["input"], "crop": clip["crop"], **channels}
        eyes["event_mode"] = clip["channels"]["mode"]
        return {**{n: clip[n] for n in ("frames", "size", "frame_rate_hz")}, "pose": eyes}

    holds = "poses"
    expected = (
        "splits.csv (path,label,split) with an .npz beside each clip, or the official"
        " layout of MMHPSD (mmhpsd_events; or pose_events), Human3.6M"
        " (S1/MyPoseFeatures/D3_Positions_mono) or 3DPW (sequenceFiles)"
    )

    @property
    def layouts(self) -> Mapping[str, Layout[PoseIndex]]:
        from spikevideoformer.tasks.pose.index import POSE_LAYOUTS

        return POSE_LAYOUTS

    def head(self, config: ModelConfig, outputs: int, body: BodyModel | None) -> nn.Module:
        from spikevideoformer.tasks.pose.head import HeatmapHead, PoseHead

        assert body is not None  # which `needs_body` says
        return (HeatmapHead if config.pose_head == "heatmap" else PoseHead)(config, body)

    def training(self) -> type[PoseTraining]:
        from spikevideoformer.tasks.pose.training import PoseTraining

        return PoseTraining

    def predictor(self) -> type[PoseTracker]:
        from spikevideoformer.tasks.pose.predictor import PoseTracker

        return PoseTracker

    def demo(self) -> Demo:
        from spikevideoformer.tasks.pose.demo import Demo

        return Demo()

    def check_files(self, options: EvalOptions | PredictOptions) -> None:
        if options.body is not None:
            require_smpl_file(options.body)

    def eval_settings(self, options: EvalOptions) -> dict[str, Any]:
        return {"batch_size": options.batch_size or 8, "body": options.body}

    def predict_settings(
        self, options: PredictOptions, model: SpikeVideoFormer, tell: Callable[[str], None]
    ) -> PredictSettings:
        from spikevideoformer.body.smpl import load_body

        body = None if options.body is None else load_body(options.body)
        settings = asdict(options) | {"body": body}
        follow = False if settings.pop("no_follow") else None
        return PredictSettings(predictor=settings | {"follow": follow})

    def values(self, result: PosePrediction, files: Mapping[str, str]) -> dict[str, Any]:
        return result.to_dict(frames=not files)  # a drawn video has a file with all frames beside

    def cut(self, spec: PoseSpec, rate_hz: Callable[[], float]) -> tuple[ClipSpec, int | None]:
        """Frames that follow each other; events are seen between all pictures."""
        rate, frames = rate_hz(), spec.frames
        step = spec.step(rate)
        if spec.input == "events":
            frames, step = 1 + frames * step, 1
        return ClipSpec(frames=frames, size=1, frame_rate_hz=rate / step), None

    def about_counted(self, spec: PoseSpec) -> Iterator[str]:
        if spec.crop == "person":
            yield "the model was trained on squares around the person; here it sees whole pictures"

    def network_input(self, clip: Clip, spec: PoseSpec) -> Tensor:
        """The whole picture; events lie between every n-th picture and the one n later."""
        from spikevideoformer.tasks.pose.dataset import event_input, picture_input
        from spikevideoformer.tasks.pose.square import Square

        square = Square.of_picture(*clip.frames.shape[1:3])
        if spec.input != "events":
            return picture_input(clip.frames, square, spec)
        picture_s = (clip.end_s - clip.start_s) / clip.real_frames
        times = [picture_s * i for i in range(len(clip.frames))]
        borders = times[:: (len(times) - 1) // spec.frames]
        return event_input(clip.frames, times, borders, square, spec)
