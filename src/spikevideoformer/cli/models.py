"""``svf models``: the presets, and the trained networks in the box."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from spikevideoformer.cli.options import Json
from spikevideoformer.cli.output import show
from spikevideoformer.models.box import Card, Metric, boxed
from spikevideoformer.models.folder import WEIGHTS_FILE, local_folder, read_about


@dataclass(frozen=True, kw_only=True)
class Options(Json):
    """List the models that can be trained, or those that come trained.

    Example: svf models --weights

    Args:
        num_classes: classes to count.
        weights: the trained networks in the box: what they are worth, and their licences.
    """

    num_classes: int = field(default=400, metadata={"metavar": "K", "at_least": 1})
    weights: bool = False


def run(options: Options) -> None:
    """Print what can be trained, by family, or what is in the box."""
    if options.weights:
        rows = [_boxed(name) for name in boxed()]
        show(options.json, {"weights": rows}, "\n\n".join(map(_told, rows)))
    else:
        _presets(options)


def _boxed(name: str) -> dict[str, Any]:
    """What is known of a network in the box."""
    folder = local_folder(name)
    about = read_about(name)
    return {
        "name": name,
        "task": about["task"],
        "classes": about["classes"],
        **asdict(Card.read(folder)),
        "sha256": about["sha256"],
        "bytes": (folder / WEIGHTS_FILE).stat().st_size,
    }


def _told(row: dict[str, Any]) -> str:
    lines = [
        f"{row['name']}: {row['about']}",
        f"  task {row['task']}, {row['bytes']:,} bytes, licence {row['licence']}",
        *(f"  trained on {line}" for line in row["data"]),
        *(f"  {Metric(**m)}" for m in row["metrics"]),
        f"  firing rate {row['firing_rate']:.3f}; energy of a clip "
        + ", ".join(f"{mj:.3g} mJ {way}" for way, mj in row["energy_mj"].items()),
        f"  SHA-256 {row['sha256']}",
    ]
    return "\n".join(lines)


def _presets(options: Options) -> None:
    """Print what can be trained, by family."""
    import torch

    from spikevideoformer.models.config import FAMILIES, list_models
    from spikevideoformer.models.spikevideoformer import create_model

    rows = []
    text = f"{'name':<12} {'parameters':>12}  {'widths':<16} {'blocks':<10} heads"
    for family, what in FAMILIES.items():
        text += f"\n\n{what}"
        for name in list_models(family):
            with torch.device("meta"):  # counts without making the weights
                model = create_model(name, num_classes=options.num_classes)
            config, parameters = model.config, model.num_parameters()
            rows.append(
                {
                    "name": name,
                    "family": family,
                    "parameters": parameters,
                    "widths": list(config.widths),
                    "depths": list(config.depths),
                    "heads": config.heads,
                }
            )
            widths, depths = ("/".join(map(str, v)) for v in (config.widths, config.depths))
            heads = "-" if config.attention == "none" else config.heads
            text += f"\n{name:<12} {parameters:>12,}  {widths:<16} {depths:<10} {heads}"
    show(options.json, {"num_classes": options.num_classes, "models": rows}, text)
