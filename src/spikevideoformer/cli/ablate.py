"""``svf ablate``: a question of the paper, asked of one's own data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from spikevideoformer.ablation.questions import QUESTIONS, question
from spikevideoformer.cli.options import Json
from spikevideoformer.cli.output import note, refuse_file, show
from spikevideoformer.settings import merged, read_yaml
from spikevideoformer.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Options(Json):
    """Train variants of a network that differ in one thing, and compare them.

    Usage: svf ablate QUESTION --data DIR --out DIR [--seeds 0 1 2] [--config FILE.yaml] ...
    Example: svf ablate attention --data demo/clips --epochs 1 --passes 1 --out runs/attention

    Args:
        question: what is compared.
        seeds: of the runs; three or more give an interval.
        variants: only these; the first is what the others are held against.
        start: model folders, for the question of initialisation.
        equal: what all runs have the same of: steps; or time, the CPU time of the first variant, to
            half an epoch.
        jobs: runs side by side, each in a process of its own.
        videos: also count firing rate and energy on the first clip of each of these.
        config: settings; options given here override it. Without a file they suit the data.
        settings: those that are given as options.
    """

    question: str = field(metadata={"positional": True, "choices": QUESTIONS})
    seeds: tuple[int, ...] = field(default=(0,), metadata={"type": int, "nargs": "+"})
    variants: tuple[str, ...] = field(default=(), metadata={"type": str, "nargs": "+"})
    start: tuple[str, ...] = field(
        default=(), metadata={"type": str, "nargs": "+", "metavar": "FOLDER"}
    )
    equal: Literal["steps", "time"] = "steps"
    jobs: int = field(default=1, metadata={"at_least": 1})
    videos: tuple[str, ...] = field(
        default=(), metadata={"type": str, "nargs": "+", "metavar": "PATH"}
    )
    config: Path | None = field(default=None, metadata={"metavar": "FILE.yaml"})
    settings: dict[str, Any] = field(metadata={"settings": TrainConfig})


def run(options: Options) -> None:
    """Train what is not trained yet, and print the table."""
    asked = question(options.question, options.start, options.variants)
    given = merged({} if options.config is None else read_yaml(options.config), options.settings)
    for name in ("data", "out"):
        if name not in given:
            raise ValueError(f"--{name} is missing; give it a folder")
    if "seed" in options.settings:
        raise ValueError("--seed is given; the runs of a study have --seeds")
    if len(set(options.seeds)) < len(options.seeds):
        raise ValueError(f"--seeds names one twice: {' '.join(map(str, options.seeds))}")

    from spikevideoformer.ablation.report import to_dict, write_report
    from spikevideoformer.ablation.study import run_study
    from spikevideoformer.data.index import check_data_folder
    from spikevideoformer.training.recipe import with_recipe
    from spikevideoformer.video.inputs import videos_among

    check_data_folder(Path(given["data"]), "data set")
    if options.videos:
        _, failed = videos_among(options.videos)
        if failed:
            raise failed[0]
    if options.config is None:
        given, chosen = with_recipe(given)
        if chosen:
            note(chosen)
    base = TrainConfig.from_dict(given)
    refuse_file(base.out)
    base.out.mkdir(parents=True, exist_ok=True)
    study = run_study(
        options.question,
        asked,
        base,
        options.seeds,
        jobs=options.jobs,
        videos=options.videos,
        equal=options.equal,
        tell=note,
    )
    write_report(study, base.out)
    text = [(base.out / "table.md").read_text().rstrip(), *study.verdicts()]
    show(options.json, to_dict(study), "\n".join([*text, f"report: {base.out / 'report.html'}"]))
