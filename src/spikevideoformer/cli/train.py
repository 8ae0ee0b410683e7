"""``svf train``: settings from a file and from flags, and a run with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikevideoformer.cli.options import Json, expand_home
from spikevideoformer.cli.output import note, refuse_file, show
from spikevideoformer.settings import merged, read_yaml
from spikevideoformer.training.config import TrainConfig, check_paths


@dataclass(frozen=True, kw_only=True)
class Options(Json):
    """Train a model on a folder of videos.

    Usage: svf train --data DIR [--out DIR] [--model NAME] [--task TASK] [--resume] ...
    Example: svf train --data demo/clips --model svf_nano --epochs 2 --out runs/first

    Args:
        config: settings; options given here override it.
        resume: go on with the run in --out (with its settings).
        settings: those that are given as options.
    """

    config: Path | None = field(default=None, metadata={"metavar": "FILE.yaml"})
    resume: bool = False
    settings: dict[str, Any] = field(metadata={"settings": TrainConfig})


def run(options: Options) -> None:
    """Train, and print the metrics of the best epoch."""
    settings, file = options.settings, options.config
    if file is None and options.resume:
        if "out" not in settings:
            raise ValueError("--resume needs --out, the folder of the run to go on with")
        file = expand_home(settings["out"]) / "config.yaml"
        if not file.is_file():
            raise ValueError(f"{file} is missing: no run to resume; start one without --resume")
    elif options.resume and file is not None and (file.parent / "checkpoints").is_dir():
        # the file of a run names its folder as seen from where it was begun
        given = settings.get("out")
        if given is not None and expand_home(str(given)).resolve() != file.parent.resolve():
            raise ValueError(
                f"{file} is of the run in {file.parent}, and --out is {given}; leave out --out, or "
                "--resume to begin another run"
            )
        settings = {**settings, "out": str(file.parent)}
    settings = merged({} if file is None else read_yaml(file), settings)
    data = settings.get("data")
    out = settings.get("out") or ("run" if data is None else _run_folder(data))
    config = TrainConfig.from_dict({**settings, "out": out})
    if data is None:
        raise ValueError("no data is given; set --data to the folder of the data set")
    refuse_file(config.out)
    check_paths(config, resume=options.resume)

    from spikevideoformer.training import train
    from spikevideoformer.training.recipe import with_recipe

    chosen = ""
    if file is None:  # which holds all that was chosen
        full, chosen = with_recipe({**settings, "out": str(out)})
        config = TrainConfig.from_dict(full)
    config.out.mkdir(parents=True, exist_ok=True)
    if "out" not in settings:
        note(f"writing into {out}; --out chooses another folder")
    result = train(config, resume=options.resume, about=chosen)
    if not result.is_main_process:
        return
    values = {
        "out": str(result.out),
        "model": str(result.model),
        "best_epoch": result.best_epoch,
        "evaluation": result.evaluation.to_dict(),
        "notes": list(result.notes),
    }
    best = f"model of epoch {result.best_epoch}: {result.model}"
    show(options.json, values, "\n".join([*result.evaluation.lines(), best]))
    for line in result.notes:
        note(f"note: {line}")


def _run_folder(data: Any) -> str:
    """Where a run goes that was given no folder: runs/NAME, by the name of its data."""
    return str(Path("runs") / expand_home(str(data)).resolve().name)
