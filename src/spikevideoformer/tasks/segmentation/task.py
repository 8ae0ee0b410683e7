"""Segmentation of every frame, as the rest of the house asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from spikevideoformer.models.config import STRIDE, ModelConfig, preset
from spikevideoformer.task import PredictSettings, Recipe, Task
from spikevideoformer.tasks.segmentation.spec import SegmentationOptions, SegmentationSpec
from spikevideoformer.video.spec import ClipSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spikevideoformer.body.skeleton import BodyModel
    from spikevideoformer.data.index import Layout
    from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
    from spikevideoformer.tasks.segmentation.demo import Demo
    from spikevideoformer.tasks.segmentation.predictor import VideoSegmenter
    from spikevideoformer.tasks.segmentation.sequence import SequenceIndex
    from spikevideoformer.tasks.segmentation.training import SegmentationTraining
    from spikevideoformer.training.config import TrainConfig
    from spikevideoformer.video.clip import Clip

_FEW_MASKS = 1000  # below, frames are learnt one by one (docs/first_hour.md)
_FRAME_STEPS, _FRAME_PASSES = 640, 50  # likewise: so many at least, the passes over all frames


@dataclass(frozen=True, kw_only=True)
class Looks:
    """How often a picture is looked at.

    Args:
        sliding_window: look at windows as large as training crops, instead of the picture as a
            whole.
        scales: average over these multiples of the size, such as 0.75,1,1.25 (default 1).
        flip: average with the mirrored picture.
    """

    sliding_window: bool = False
    scales: tuple[float, ...] | None = field(default=None, metadata={"metavar": "X,X,..."})
    flip: bool = False


@dataclass(frozen=True, kw_only=True)
class PredictOptions(Looks):
    """Of `svf predict`.

    Args:
        masks: with --out, also the mask of each frame as a PNG file of class indices.
    """

    masks: bool = field(default=False, metadata={"needs_out": "PNG files"})


class Segmentation(Task):
    """The class of every pixel of every frame."""

    name = "segmentation"
    options, spec_type = SegmentationOptions, SegmentationSpec
    eval_options, predict_options = Looks, PredictOptions
    unused: ClassVar[Mapping[str, Any]] = {
        **Task.unused,
        "frame_rate_hz": None,
        "readout": None,
    }
    instead = "segmentation.scale"
    defaults: ClassVar[Mapping[str, Any]] = {"frames": 4, "size": 128, "label_smoothing": 0.0}
    demo_folder = "demo_masks"

    def spec(self, config: TrainConfig) -> SegmentationSpec:
        side = -(-config.size // STRIDE) * STRIDE
        options: SegmentationOptions = config.options
        return SegmentationSpec(
            frames=config.frames,
            short_side=config.size,
            crop=(options.crop_height or side, options.crop_width or side),
            step=options.step,
            input=config.input,
            events=config.events,
        )

    def model_options(self, config: TrainConfig) -> dict[str, Any]:
        options: SegmentationOptions = config.options
        head: dict[str, Any] = {"kind": options.head}
        if options.head == "fpn":  # as published for E-SpikeFormer and for SDT-V2
            head["neck_norm"] = not preset(config.model).neuron.remembers
        return {"pad_input": True, "mask_head": head}  # pictures have any height and width

    def recipe(self, config: TrainConfig, given: Mapping[str, Any]) -> Recipe:
        """Few pictures go frame by frame, which learns masks far better (docs/first_hour.md).

        With whole numbers of spikes (an ordinary network keeps its rectifiers), and wider
        augmentation.
        """
        from spikevideoformer.tasks.segmentation.dataset import evaluation_cuts

        index = self.read(config.data or "", layout=config.layout).select(config.train_split)
        spec, passes = self.spec(config), config.options.passes
        if index.labelled >= _FEW_MASKS or "frames" in given:
            clips = len(evaluation_cuts(index, spec)) * passes
            return Recipe(clips=clips, settings={"augmentation": {"flip": 0.5}})
        clips = len(evaluation_cuts(index, replace(spec, frames=1))) * passes
        binary = preset(config.model).neuron.kind == "lif"
        integers = {"neuron": "integer_lif"} if binary else {}
        wide = dict.fromkeys(("flip", "brightness", "contrast", "saturation"), 0.5)
        return Recipe(
            clips=clips,
            settings={
                **integers,
                "design": "spatial_only",
                "frames": 1,
                "segmentation": {"scale": [0.5, 2.0]},
                "augmentation": wide,
            },
            seen=max(_FRAME_STEPS * 8, _FRAME_PASSES * clips),
        )

    def published_spec(self, config: ModelConfig, given: Mapping[str, Any]) -> SegmentationSpec:
        side = given.get("size", 512)
        if "frame_rate_hz" in given:
            raise ValueError("a segmenter sees every frame of a video; leave out --frame-rate-hz")
        return SegmentationSpec(frames=1, short_side=side, crop=(side, side))

    def kept(self, clip: Mapping[str, Any], model: ModelConfig) -> dict[str, Any]:
        frames = {"frames": clip["frames"]} if clip else {}
        return {**frames, "segmentation": {"head": model.mask_head.kind}}

    holds = "frames with masks"
    expected = (
        "splits.csv (image,label,split) with classes.csv (id,name), folders"
        " <split>/<sequence>/images and labels, or the official layout of CamVid, Cityscapes or"
        " VSPW"
    )

    @property
    def layouts(self) -> Mapping[str, Layout[SequenceIndex]]:
        from spikevideoformer.tasks.segmentation.index import SEQUENCE_LAYOUTS

        return SEQUENCE_LAYOUTS

    def head(self, config: ModelConfig, outputs: int, body: BodyModel | None) -> nn.Module:
        from spikevideoformer.tasks.segmentation.head import SegmentationHead
        from spikevideoformer.tasks.segmentation.other_heads import MLPHead, PanopticHead

        heads = {"pyramid": SegmentationHead, "fpn": PanopticHead, "mlp": MLPHead}
        return heads[config.mask_head.kind](config, outputs)

    def training(self) -> type[SegmentationTraining]:
        from spikevideoformer.tasks.segmentation.training import SegmentationTraining

        return SegmentationTraining

    def predictor(self) -> type[VideoSegmenter]:
        from spikevideoformer.tasks.segmentation.predictor import VideoSegmenter

        return VideoSegmenter

    def demo(self) -> Demo:
        from spikevideoformer.tasks.segmentation.demo import Demo

        return Demo()

    def eval_settings(self, options: Looks) -> dict[str, Any]:
        return asdict(options) | {"scales": options.scales or (1.0,)}

    def predict_settings(
        self, options: PredictOptions, model: SpikeVideoFormer, tell: Callable[[str], None]
    ) -> PredictSettings:
        looks: dict[str, Any] = {"scales": options.scales or (1.0,), "flip": options.flip}
        if options.sliding_window:
            looks["window"] = self.spec_type.from_dict(model.clip or {}).crop
        return PredictSettings(
            predictor=looks, predict={"keep_masks": False}, write={"masks": options.masks}
        )

    def counted_spec(
        self, clip: Mapping[str, Any] | None, frames: int | None, size: int | None
    ) -> SegmentationSpec:
        values = {"frames": 8, "short_side": None, "crop": (224, 224)} if clip is None else clip
        given = {"frames": frames, "crop": size and (size, size)}
        return SegmentationSpec.from_dict(
            {**values, **{name: value for name, value in given.items() if value is not None}}
        )

    def height_and_width(self, spec: SegmentationSpec) -> tuple[int, int]:
        return spec.crop

    def cut(self, spec: SegmentationSpec, rate_hz: Callable[[], float]) -> tuple[ClipSpec, None]:
        """Frames that follow each other, as in sequences."""
        return ClipSpec(frames=spec.frames, size=1, frame_rate_hz=rate_hz() / spec.step), None

    def network_input(self, clip: Clip, spec: SegmentationSpec) -> Tensor:
        """The middle crop of the pictures, enlarged where it does not fit into them."""
        from spikevideoformer.tasks.segmentation.dataset import picture_input

        (height, width), (h, w) = spec.crop, clip.frames.shape[1:3]
        least = -(-max(height * w, width * h) // max(h, w))  # it fits: h/short <= h/height ...
        short = max(spec.short_side or min(h, w), least)
        video = picture_input(clip.frames, replace(spec, short_side=short))
        top, left = ((a - b) // 2 for a, b in zip(video.shape[2:], spec.crop, strict=True))
        return video[..., top : top + height, left : left + width]
