"""The whole way of a task in one function; the task says what is made, tried and told."""

from __future__ import annotations

import json
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from spikevideoformer.demo.report import next_commands, stage, training_facts
from spikevideoformer.files import write_text
from spikevideoformer.inference.document import document, picture
from spikevideoformer.settings import plain
from spikevideoformer.training import TrainConfig, train

_BEFORE_RECIPES = "all clips are whole\n"  # what stood there before the recipe did


def _same(before: str | None, about: str) -> bool:
    """Whether two recipes say the same, in whatever order."""
    try:
        return before is not None and json.loads(before) == json.loads(about)
    except ValueError:
        return False


@dataclass(frozen=True, kw_only=True)
class Driver(ABC):
    """What a demo makes and how it trains.

    Args:
        training: of the network; folders are filled in.
        seed: of the clips.
    """

    training: TrainConfig
    seed: int = 0

    title: ClassVar[str] = "SpikeVideoFormer demo"
    making: ClassVar[str] = "making clips"
    clips: ClassVar[str] = "clips"

    @abstractmethod
    def make(self, clips: Path) -> None:
        """Write the data set."""

    @abstractmethod
    def use(self, out: Path, config: TrainConfig) -> Any:
        """Try the network on video files."""

    @abstractmethod
    def told(self, out: Path, evaluation: Any, used: Any) -> dict[str, str]:
        """What the outcome is, each a name and a text."""

    @abstractmethod
    def page(self, out: Path, evaluation: Any, used: Any) -> dict[str, Any]:
        """What the template `demo_TASK.html` names; `clips` is how many it was trained on."""

    def run(self, out: Path, *, tell: Callable[[str], None]) -> str:
        """Make clips, train, measure, predict, and write a report.

        What is already there from an earlier, interrupted demo is not done again; clips of another
        recipe are replaced.

        Args:
            out: an existing folder; gets the clips, run/, predictions/ and report.html.
            tell: called with a line on each thing that begins or is done.

        Returns:
            The outcome in a few lines of text.

        Raises:
            ValueError: `out` holds a network of another recipe, or of clips of another.
        """
        begin_s = time.monotonic()
        clips, made = out / self.clips, out / f"{self.clips}.done"
        recipe = {name: value for name, value in plain(self).items() if name != "training"}
        about = json.dumps(recipe) + "\n"
        with stage(tell, f"1/4 {self.making}"):
            before = made.read_text() if made.exists() else None
            if before != _BEFORE_RECIPES and not _same(before, about):
                if before is not None:
                    # its clips have the same names: it would be taken for one of these
                    if (out / "run").exists():
                        raise ValueError(
                            f"{out / 'run'} is of clips of another recipe; give another --out, or "
                            "delete it"
                        )
                    tell(f"{clips} holds clips of another recipe, which are made anew")
                    made.unlink()
                    shutil.rmtree(clips, ignore_errors=True)
                self.make(clips)
                write_text(made, about)
        with stage(tell, "2/4 training"):
            config = replace(self.training, data=clips, out=out / "run")
            evaluation = train(config, resume=True).evaluation
        with stage(tell, "3/4 predicting on video files"):
            used = self.use(out, config)
        with stage(tell, "4/4 writing the report"):
            minutes = (time.monotonic() - begin_s) / 60
            shown = self.page(out, evaluation, used)
            page = document(
                f"demo_{config.task}.html",
                self.title,
                curves=picture(out / "run" / "learning_curves.png", "Learning curves"),
                training=training_facts(out / "run", shown.pop("clips")),
                commands=next_commands(out / "run" / "model", out / "run"),
                minutes=minutes,
                **shown,
            )
            write_text(out / "report.html", page)
        lines = self.told(out, evaluation, used) | {
            "model": str(out / "run" / "model"),
            "report": str(out / "report.html"),
            "total time": f"{minutes:.1f} min",
        }
        width = max(map(len, lines)) + 2
        return "\n".join(f"{name + ':':<{width}}{text}" for name, text in lines.items())
