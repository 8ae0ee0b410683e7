"""Classification of clips, as the rest of the house asks for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from spikevideoformer.models.config import STRIDE, ModelConfig
from spikevideoformer.models.folder import read_about
from spikevideoformer.settings import check_types, require
from spikevideoformer.task import PredictSettings, Recipe, Task
from spikevideoformer.video.interface import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from torch import nn

    from spikevideoformer.body.skeleton import BodyModel
    from spikevideoformer.data.index import Layout
    from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
    from spikevideoformer.tasks.classification.demo import Demo
    from spikevideoformer.tasks.classification.predictor import VideoPredictor
    from spikevideoformer.tasks.classification.sample import ClipIndex
    from spikevideoformer.tasks.classification.training import ClassificationTraining
    from spikevideoformer.training.config import TrainConfig

_SIDES = re.compile(r"(^|[^a-z])(left|right|clockwise|counterclockwise)([^a-z]|$)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ClassificationOptions:
    """What only a classification run decides.

    Args:
        mixup: a of Beta(a, a), from which the shares of two clips are drawn that are laid over each
            other, labels and all; 0 for none.
        cutmix: the same for a box of one clip in another; with both, a batch has either.

    Raises:
        ValueError: a value below 0.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        check_types(self)
        require(self, "mixup", "cutmix", at_least=0)


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Of `svf eval`.

    Args:
        batch_size: clips at a time (default 8).
        fold: official fold, where there are some.
        clips: clips to average a video over (default 1).
        crops: squares along the longer side to average each clip over (default 1, the middle).
        no_decode_limits: decode files that unpack to huge videos, too.
    """

    batch_size: int | None = field(default=None, metadata={"at_least": 1})
    fold: int | None = field(default=None, metadata={"at_least": 1})
    clips: int | None = field(default=None, metadata={"at_least": 1})
    crops: int | None = field(default=None, metadata={"at_least": 1})
    no_decode_limits: bool = False


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Of `svf predict`.

    Args:
        html: with --out, also a page for each video: where and when neurons fire, what it costs.
        top_k: labels to report (default 5).
        window_s: judge the video in windows of S seconds (default: the whole of it as one, or the
            length that the model was made for).
        batch_size: clips at a time (default 1 on a CPU, 8 on CUDA).
    """

    html: bool = field(default=False, metadata={"needs_out": "pages"})
    top_k: int | None = field(default=None, metadata={"metavar": "K", "at_least": 1})
    window_s: float | None = field(default=None, metadata={"metavar": "S", "above": 0})
    batch_size: int | None = field(default=None, metadata={"at_least": 1})


class Classification(Task):
    """One label of each clip."""

    name = "classification"
    options = ClassificationOptions
    eval_options, predict_options = EvalOptions, PredictOptions
    unused: ClassVar[Mapping[str, Any]] = {}
    unvaried: ClassVar[tuple[str, ...]] = ()
    readout = "membrane"
    recipe_steps, recipe_epochs = 640, 16

    def check(self, config: TrainConfig) -> None:
        if config.size % STRIDE:
            near = max(config.size // STRIDE, 1) * STRIDE
            raise ValueError(f"size is {config.size}; give a multiple of 16, such as {near}")
        if config.input == "events" and config.augmentation.rand_augment:
            raise ValueError(
                "augmentation.rand_augment changes colours, which events do not have; leave it out"
            )
        mixes = config.options.mixup or config.options.cutmix
        if mixes and config.batch_size == 1:
            raise ValueError("a batch of one clip has none to mix it with; raise batch_size")
        super().check(config)

    def model_options(self, config: TrainConfig) -> dict[str, Any]:
        return {"distilled": True} if config.distillation_head else {}

    def recipe(self, config: TrainConfig, given: Mapping[str, Any]) -> Recipe:
        index = self.read(config.data or "", layout=config.layout, fold=config.fold)
        index.select(config.train_split)  # complains of a name that is not there
        if config.val_split == "val" and not index.problems:
            index = index.with_validation(seed=config.seed)
        still = all(s.path.suffix.lower() in IMAGE_SUFFIXES for s in index.samples)
        sided = any(map(_SIDES.search, index.classes))  # which a mirror makes another
        return Recipe(
            clips=len(index.select(config.train_split)),
            settings={
                "augmentation": {"flip": 0.0 if sided else 0.5, "crop_scale": [0.6, 1.0]},
                **({"frames": 1} if still else self._frames(config, given)),
            },
        )

    def _frames(self, config: TrainConfig, given: Mapping[str, Any]) -> dict[str, int]:
        """Of the first weights, which know what moves at the speed at which they saw it."""
        if config.init_from is None or "frames" in given:
            return {}
        about = read_about(config.init_from)
        frames = (about["clip"] or {}).get("frames", 1) if about["task"] == self.name else 1
        return {"frames": frames} if frames > 1 else {}

    def kept(self, clip: Mapping[str, Any], model: ModelConfig) -> dict[str, Any]:
        return {n: clip[n] for n in ("input", "events") if n in clip}

    holds = "clips"
    expected = (
        "class folders (train/<class>/<clip>), splits.csv, train.csv and val.csv, or an"
        " official layout"
    )

    @property
    def layouts(self) -> Mapping[str, Layout[ClipIndex]]:
        from spikevideoformer.tasks.classification.index import LAYOUTS

        return LAYOUTS

    def head(self, config: ModelConfig, outputs: int, body: BodyModel | None) -> nn.Module:
        from spikevideoformer.tasks.classification.head import ClassificationHead

        return ClassificationHead(config, outputs)

    def training(self) -> type[ClassificationTraining]:
        from spikevideoformer.tasks.classification.training import ClassificationTraining

        return ClassificationTraining

    def predictor(self) -> type[VideoPredictor]:
        from spikevideoformer.tasks.classification.predictor import VideoPredictor

        return VideoPredictor

    def demo(self) -> Demo:
        from spikevideoformer.tasks.classification.demo import Demo

        return Demo()

    def eval_settings(self, options: EvalOptions) -> dict[str, Any]:
        from spikevideoformer.video.interface import DecodeLimits

        unlimited = options.no_decode_limits
        return {
            "batch_size": options.batch_size or 8,
            "clips_per_video": options.clips or 1,
            "crops": options.crops or 1,
            "limits": DecodeLimits.unlimited() if unlimited else DecodeLimits(),
        }

    def clip_page(self, *about: Any, **more: Any) -> str:
        """A page about a clip, as `page.clip_page` makes it."""
        from spikevideoformer.tasks.classification.page import clip_page

        return clip_page(*about, **more)

    def predict_settings(
        self, options: PredictOptions, model: SpikeVideoFormer, tell: Callable[[str], None]
    ) -> PredictSettings:
        labels = {**asdict(options), "top_k": options.top_k or 5}
        html = labels.pop("html")
        return PredictSettings(predict=labels, write={**labels, "html": html, "tell": tell})
