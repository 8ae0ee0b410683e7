"""Each question is about one thing, and each of its networks can be trained."""

from pathlib import Path

import pytest

from spikevideoformer.ablation.questions import QUESTIONS, question
from spikevideoformer.models.spikevideoformer import create_model
from spikevideoformer.training import TrainConfig

RECIPE = TrainConfig(out="runs", neuron="integer_lif", design="neuron_only", init_from="start")


@pytest.mark.parametrize("name", QUESTIONS)
def test_variants_differ_in_what_is_asked(name: str) -> None:
    asked = question(name, starts=["a", "b"] if name == "initialisation" else [])
    base = asked.base(RECIPE)
    runs = [v.of(base, 1, Path("x")) for v in asked.variants.values()]
    changed = {line.partition(":")[0] for run in runs for line in run.differences(base.to_dict())}
    expected = {
        "attention": {"attention"},
        "design": {"design"},
        "neuron": {"neuron"},
        "twin": {"model", "neuron", "design"},  # neuron_only is of memory, which a twin lacks
        "ladder": {"model", "neuron", "design", "attention"},
        "scale": {"block"},
        "rate": {"rate_budget"},
        "initialisation": {"init_from"},
    }[name]
    assert changed - {"seed"} == expected
    for run in runs:
        create_model(run.model, num_classes=2, **run.model_options)


def test_some_variants_and_what_is_refused() -> None:
    assert list(question("neuron", variants=["integer8", "binary"]).variants) == [
        "integer8",
        "binary",
    ]
    with pytest.raises(ValueError, match=r"variant 'x' is unknown; choose of hamming, dot"):
        question("attention", variants=["x"])
    with pytest.raises(ValueError, match=r"--variants names dot twice"):
        question("attention", variants=["dot", "hamming", "dot"])
    with pytest.raises(ValueError, match=r"initialisation needs --start"):
        question("initialisation")
    with pytest.raises(ValueError, match=r"--start is given, which question design"):
        question("design", starts=["a"])


def test_only_spiking_presets_have_a_twin() -> None:
    for model in ("ann_nano", "espike_5m"):
        base = TrainConfig(out="runs", model=model)
        with pytest.raises(ValueError, match=rf"'{model}' has no ordinary twin"):
            question("twin").variants["ordinary"].of(base, 0, Path("x"))
