"""``svf models``: the presets."""

from __future__ import annotations

from dataclasses import dataclass, field

from spikevideoformer.cli.options import Json
from spikevideoformer.cli.output import show


@dataclass(frozen=True, kw_only=True)
class Options(Json):
    """List the models that can be trained.

    Example: svf models

    Args:
        num_classes: classes to count.
    """

    num_classes: int = field(default=400, metadata={"metavar": "K", "at_least": 1})


def run(options: Options) -> None:
    """Print what can be trained, by family."""
    import torch

    from spikevideoformer.models.config import FAMILIES, list_models
    from spikevideoformer.models.spikevideoformer import create_model

    rows = []
    text = f"{'name':<10} {'parameters':>12}  {'widths':<16} {'blocks':<10} heads"
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
            text += f"\n{name:<10} {parameters:>12,}  {widths:<16} {depths:<10} {heads}"
    show(options.json, {"num_classes": options.num_classes, "models": rows}, text)
