"""The tasks there are, and what the rest of the house asks of each. Nothing here needs torch.

All of one task is in one folder of `tasks/`. The machines that train, predict, count and
demonstrate know no task: they ask the `Task` of that name (docs/new_task.md).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from spikevideoformer.messages import require_known
from spikevideoformer.video.spec import ClipSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spikevideoformer.body.skeleton import BodyModel
    from spikevideoformer.data.index import Layout
    from spikevideoformer.demo.driver import Driver
    from spikevideoformer.inference.base import Predictor
    from spikevideoformer.models.config import ModelConfig
    from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
    from spikevideoformer.training.config import TrainConfig
    from spikevideoformer.training.task_training import TaskTraining
    from spikevideoformer.video.clip import Clip

TASKS: dict[str, str] = {
    "classification": "spikevideoformer.tasks.classification.task:Classification",
    "segmentation": "spikevideoformer.tasks.segmentation.task:Segmentation",
    "pose": "spikevideoformer.tasks.pose.task:PoseTracking",
}
"""A name, and where its `Task` is. A new task is one line here."""


def get_task(name: str) -> Task:
    """The task of a name; ValueError where there is none."""
    require_known("task", name, TASKS)
    return _made(TASKS[name])


@cache
def _made(place: str) -> Task:
    module, _, kind = place.partition(":")
    task: Task = getattr(import_module(module), kind)()
    return task


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """Of a task that has none of its own."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What suits the data that there are.

    Attributes:
        clips: that a pass goes over.
        settings: of a run, besides those that suit all tasks.
        seen: clips, however often the same, that training should see; None: `Task.recipe_steps`.
    """

    clips: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    seen: int | None = None


@dataclass(frozen=True, kw_only=True)
class PredictSettings:
    """What options of `svf predict` mean.

    Attributes:
        predictor: arguments of the predictor.
        predict: of `predict`, for what is only printed.
        write: of `write`, for what is drawn.
    """

    predictor: Mapping[str, Any] = field(default_factory=dict)
    predict: Mapping[str, Any] = field(default_factory=dict)
    write: Mapping[str, Any] = field(default_factory=dict)


class Task(ABC):
    """What a network is for.

    A task gives its data, its head, and classes that train and predict; the rest has an answer here
    that suits a task whose clips are squares of a video (`ClipSpec`).
    """

    name: ClassVar[str]

    # --- Settings --------------------------------------------------------------------------------

    options: ClassVar[type] = NoOptions
    """Settings that only a training run of this task has: a section with its name in a file."""
    eval_options: ClassVar[type] = NoOptions
    """Options of `svf eval` that only models of this task have; of a name once for all tasks."""
    predict_options: ClassVar[type] = NoOptions
    """The same of `svf predict`."""
    spec_type: ClassVar[type] = ClipSpec
    """How pictures become input, as a model folder stores it."""
    unused: ClassVar[Mapping[str, Any]] = {
        "eval_clips": 1,
        "eval_crops": 1,
        "fold": 1,
        "unlimited_decoding": False,
        "teacher": None,
        "distillation_head": False,
    }
    """General settings of a run that mean nothing here, and the only value they may have."""
    unvaried: ClassVar[tuple[str, ...]] = (
        *("crop_scale", "crop_ratio", "temporal_jitter"),
        *("rand_augment", "erasing"),
    )
    """The same of augmentation, which may also be off."""
    instead: ClassVar[str] = ""
    """What to set in their place."""

    def check(self, config: TrainConfig) -> None:
        """Refuse settings of a run that this task cannot use; ValueError."""
        self.spec(config)

    def check_paths(self, config: TrainConfig) -> None:
        """Refuse files of its own that are not there, before the long work; ValueError."""
        return

    def spec(self, config: TrainConfig) -> Any:
        """How pictures become input in a run."""
        return ClipSpec(
            frames=config.frames,
            size=config.size,
            frame_rate_hz=config.frame_rate_hz,
            input=config.input,
            events=config.events,
        )

    def model_options(self, config: TrainConfig) -> dict[str, Any]:
        """What the architecture needs for a run of this task, for `create_model`."""
        return {}

    # --- How long to train on few clips, where nobody says (training/recipe.py) ------------------

    recipe_steps: ClassVar[int] = 320
    """Of eight clips each."""
    recipe_epochs: ClassVar[int] = 8
    """Validations in that time."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Settings that suit the task better than those of `TrainConfig`."""

    def recipe(self, config: TrainConfig, given: Mapping[str, Any]) -> Recipe:
        """What suits the data, by their lists alone, where `given` says nothing else."""
        index = self.read(config.data or "", layout=config.layout, fold=config.fold)
        return Recipe(clips=len(index.select(config.train_split).items))

    def kept(self, clip: Mapping[str, Any], model: ModelConfig) -> dict[str, Any]:
        """Settings by which such a network, which saw such clips, goes on as it did."""
        return {}

    # --- Data ------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def layouts(self) -> Mapping[str, Layout[Any]]:
        """Families of data sets that are read, by name."""

    holds: ClassVar[str] = "clips"
    """What lies in a data folder, for errors."""
    expected: ClassVar[str] = "a layout of docs/data.md"
    """What a folder that fits no layout was expected to hold."""

    def read(
        self,
        root: Path | str,
        *,
        split: str | None = None,
        layout: str | None = None,
        fold: int = 1,
    ) -> Any:
        """The index of a data set, as `read_dataset` makes it."""
        from spikevideoformer.data.index import read_dataset

        return read_dataset(
            root,
            self.layouts,
            holds=self.holds,
            expected=self.expected,
            split=split,
            layout=layout,
            fold=fold,
        )

    # --- The network and its machines, imported where they are asked for -------------------------

    needs_body: ClassVar[bool] = False
    """Whether a network is made for a body."""
    readout: ClassVar[Any] = None
    """What the head reads where nobody says; None: what the preset has."""

    @abstractmethod
    def head(self, config: ModelConfig, outputs: int, body: BodyModel | None) -> nn.Module:
        """A fresh `Head` of so many outputs."""

    @abstractmethod
    def training(self) -> type[TaskTraining[Any]]:
        """What the training loop and `evaluate_folder` ask."""

    @abstractmethod
    def predictor(self) -> type[Predictor[Any]]:
        """What uses a network on videos."""

    def demo(self) -> Driver:
        """The whole way on made clips; ValueError where there is none."""
        raise ValueError(f"there is no demo of {self.name}")

    demo_folder: ClassVar[str] = "demo"

    # --- The command line ------------------------------------------------------------------------

    def check_files(self, options: Any) -> None:
        """Refuse files that options name and that are not there; ValueError."""
        return

    def eval_settings(self, options: Any) -> dict[str, Any]:
        """Arguments of `evaluate_folder` that options mean."""
        return asdict(options)

    def predict_settings(
        self, options: Any, model: SpikeVideoFormer, tell: Callable[[str], None]
    ) -> PredictSettings:
        """Arguments of the predictor that options mean; `tell` takes lines on what is done."""
        return PredictSettings(predict=asdict(options), write=asdict(options))

    def values(self, result: Any, files: Mapping[str, str]) -> dict[str, Any]:
        """A prediction as JSON has it, where these files were written beside it."""
        values: dict[str, Any] = result.to_dict()
        return values

    def published_spec(self, config: ModelConfig, given: Mapping[str, Any]) -> Any:
        """How pictures become input of a published network.

        Args:
            config: of the network.
            given: ``frames``, ``size`` and ``frame_rate_hz``, as far as they are told.
        """
        return ClipSpec(**{"frames": 8 if config.design == "joint" else 1, "size": 224, **given})

    # --- Clips whose operations are counted (`svf energy`) ---------------------------------------

    def counted_spec(
        self, clip: Mapping[str, Any] | None, frames: int | None, size: int | None
    ) -> Any:
        """How they are made: as a model says, but for what is given."""
        values = {"frames": 8, "size": 224} if clip is None else dict(clip)
        given = {"frames": frames, "size": size}
        return self.spec_type.from_dict(  # type: ignore[attr-defined]  # they are Stored
            {**values, **{name: value for name, value in given.items() if value is not None}}
        )

    def height_and_width(self, spec: Any) -> tuple[int, int]:
        """Of what the network sees, in pixels."""
        return spec.size, spec.size

    def cut(self, spec: Any, rate_hz: Callable[[], float]) -> tuple[ClipSpec, int | None]:
        """How they are cut from a video of that frame rate, and the short side to decode to."""
        return spec, spec.size

    clip_page: Callable[..., str] | None = None
    """A page about a clip, where there is one; arguments as of `classification.page.clip_page`."""

    def about_counted(self, spec: Any) -> Iterator[str]:
        """Lines on how the counted clips differ from those of training."""
        yield from ()

    def network_input(self, clip: Clip, spec: Any) -> Tensor:
        """What the network sees of one, ``[T, C, H, W]``."""
        from spikevideoformer.data.transforms import eval_transform

        return eval_transform(clip.frames, spec)
