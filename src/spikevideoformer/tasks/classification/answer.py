"""What a network says of a video: labels with probabilities."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from spikevideoformer.inference.answer import about_run, doubt, rate_curve
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


@dataclass(frozen=True, kw_only=True)
class PredictionResult:
    """What the network sees in one video.

    Attributes:
        path: as it was given; None for an array.
        duration_s: of the video.
        labels: the most probable labels of the whole video, best first: the mean of the
            probabilities of its windows.
        windows: the same for each stretch of the video, in order of time.
        timestamps_s: when each frame that the network saw appears in the video.
        firing_rate: spikes per neuron and frame, mean over all layers of neurons and these frames;
            None for an ordinary network, which has no spikes.
        firing_rate_per_frame: the same for each of these frames, or None.
        engine: what ran the network: exact, int8 or model.
        distance: how unlike the training clips the video is, about 1 for one of them; None for a
            model that does not know (:class:`~spikevideoformer.models.familiarity.Familiarity`).
        unlike_training: whether that is beyond the model's limit, so that the labels say little;
            None where it does not know.
    """

    path: str | None
    duration_s: float
    labels: tuple[Label, ...]
    windows: tuple[WindowPrediction, ...]
    timestamps_s: tuple[float, ...] = field(repr=False)
    firing_rate: float | None
    firing_rate_per_frame: tuple[float, ...] | None = field(repr=False)
    engine: str
    distance: float | None = None
    unlike_training: bool | None = None

    def __repr__(self) -> str:
        labels = ", ".join(f"{label.name} {label.probability:.1%}" for label in self.labels[:3])
        about = about_run(self.duration_s, self.firing_rate, self.engine)
        return one_line(
            f"PredictionResult({self.path!r}, {doubt(self.unlike_training)}{labels}, {about})"
        )

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
        labels = ", ".join(f"{label.name} {label.probability:.1%}" for label in self.labels)
        about = about_run(self.duration_s, self.firing_rate, self.engine)
        shown = [f"{self.path}: {doubt(self.unlike_training)}{labels} ({about})"]
        if len(self.windows) > 1:
            for window in self.windows:
                best, span = window.labels[0], f"{window.start_s:.2f}-{window.end_s:.2f} s"
                shown.append(f"  {span}: {best.name} {best.probability:.1%}")
        return list(map(one_line, shown))
