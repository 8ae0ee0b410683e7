"""What a network says of a video: labels with probabilities."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from spikevideoformer.inference.answer import Prediction, rate_curve
from spikevideoformer.messages import one_line


@dataclass(frozen=True, kw_only=True)
class Label:
    """One class and how probable it is.

    Attributes:
        name: of the class; its index as text where the model knows no names.
        index: position among the outputs of the model, from 0.
        probability: in [0, 1]; over all classes they sum to 1.
    """

    name: str
    index: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class WindowPrediction:
    """The most probable labels of one stretch of a video, best first."""

    start_s: float
    end_s: float
    labels: tuple[Label, ...]


@dataclass(frozen=True, kw_only=True, repr=False)
class PredictionResult(Prediction):
    """What the network sees in one video.

    Attributes:
        labels: the most probable labels of the whole video, best first: the mean of the
            probabilities of its windows, each for as long as it is.
        windows: the same for each stretch of the video, in order of time.
    """

    labels: tuple[Label, ...]
    windows: tuple[WindowPrediction, ...]

    def says(self) -> str:
        """The labels."""
        return ", ".join(f"{label.name} {label.probability:.1%}" for label in self.labels)

    def _repr_html_(self) -> str:
        from spikevideoformer import notebook

        labels = [(label.name, label.probability) for label in self.labels]
        return notebook.card(
            repr(self),
            notebook.bars(labels, show="{:.1%}".format, largest=1.0, caption="probability"),
            rate_curve(self.timestamps_s, self.firing_rate_per_frame),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The prediction as a command prints it."""
        shown = super().lines()
        if len(self.windows) > 1:
            for window in self.windows:
                best, span = window.labels[0], f"{window.start_s:.2f}-{window.end_s:.2f} s"
                shown.append(one_line(f"  {span}: {best.name} {best.probability:.1%}"))
        return shown
