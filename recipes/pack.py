r"""Put a trained network into the box of the package, and make its card.

    python recipes/pack.py svf/scene-motion --model runs/sm/run/model
    python recipes/pack.py svf/scene-motion --facts facts.yaml --metrics held_out.json --clips val
    python recipes/pack.py svf/scene-motion

The first line rounds kernels to half precision and writes the weights; measure those, not the ones
of the run. The second writes card.json: the entries of `models.box.Card` as a YAML file has them,
but for the metrics, which are the entry "metrics" of a JSON file, and for firing rate and energy,
which are counted here on the videos of --clips. Every line makes docs/weights/NAME.md again, once
there is a card.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from safetensors.torch import load_file, save_file

from spikevideoformer.energy.report import energy_report
from spikevideoformer.files import write_text
from spikevideoformer.inference.counted_clips import clips_of
from spikevideoformer.models.box import BOX, CARD_FILE, OF_TASK, PREFIX, Card
from spikevideoformer.models.folder import CONFIG_FILE, WEIGHTS_FILE, read_about, sha256_of
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.neuron import record_firing_rates
from spikevideoformer.settings import read_yaml
from spikevideoformer.task import get_task
from spikevideoformer.video.interface import DecodeLimits

HERE = Path(__file__).resolve().parent
PAGES = HERE.parent / "docs" / "weights"


def rounded(model: Path, folder: Path) -> None:
    """A model folder with kernels in half precision; norms, biases and profiles stay."""
    SpikeVideoFormer.from_pretrained(model)  # refuses what is damaged
    state = load_file(model / WEIGHTS_FILE)
    state = {
        name: value.half() if value.ndim > 1 and not name.startswith("familiarity.") else value
        for name, value in state.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / WEIGHTS_FILE)
    about = json.loads((model / CONFIG_FILE).read_text("utf-8"))
    about["sha256"] = sha256_of(folder / WEIGHTS_FILE)
    write_text(folder / CONFIG_FILE, json.dumps(about, indent=2) + "\n")
    SpikeVideoFormer.from_pretrained(folder)


def counted(model: SpikeVideoFormer, videos: Path, clips: int) -> dict[str, Any]:
    """Firing rate and energy of a network on clips of videos."""
    task = get_task(model.task)
    spec = task.counted_spec(model.clip, None, None)
    found, failed = clips_of(
        [str(videos)], task, spec, clips, limits=DecodeLimits(), tell=lambda line: None
    )
    if failed:
        raise ValueError(f"{failed[0].path}: {failed[0].reason}")
    video = torch.stack([task.network_input(clip, spec) for clip in found])
    with torch.inference_mode(), record_firing_rates(model) as rates:
        model(video)
    report = energy_report(model, video, merge=False)
    energies = {way: report.by_convention(way).energy_mj for way in ("paper", "executed")}
    layers = rates.mean.values()
    return {"firing_rate": sum(layers) / len(layers), "energy_mj": energies}


def page(name: str) -> str:
    """The card of a network in the box, as a page of the documentation."""
    folder = BOX / name.removeprefix(PREFIX)
    about, model = read_about(folder), SpikeVideoFormer.from_pretrained(folder)
    environment = Environment(
        loader=FileSystemLoader(HERE),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # it is Markdown
    )
    return environment.get_template("card.md.jinja").render(
        name=name,
        card=Card.read(folder),
        task=about["task"],
        default=OF_TASK[about["task"]] == name,
        classes=about["classes"],
        sees=_sees(about["clip"]),
        parameters=model.num_parameters(),
        size=(folder / WEIGHTS_FILE).stat().st_size,
        sha256=about["sha256"],
    )


def _sees(clip: dict[str, Any]) -> str:
    """How a video becomes input, in words."""
    side = clip.get("size") or clip.get("short_side")
    count = "a frame" if clip["frames"] == 1 else f"{clip['frames']} frames"
    what = f"{count} of {side or 'all their'} pixels"
    if clip.get("frame_rate_hz"):
        return f"{what}, {clip['frame_rate_hz']:g} a second"
    return what if "step" in clip else f"{what}, spread over the video"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="svf/NAME")
    parser.add_argument("--model", type=Path, help="model folder of the run")
    parser.add_argument("--facts", type=Path, help="YAML of the card")
    parser.add_argument("--metrics", type=Path, help="JSON of the metrics of the card")
    parser.add_argument("--clips", type=Path, help="videos on which spikes are counted")
    parser.add_argument("--count", type=int, default=64, help="clips of them")
    arguments = parser.parse_args()
    if not arguments.name.startswith(PREFIX):
        sys.exit(f"{arguments.name} does not begin with {PREFIX}")
    given = [v is not None for v in (arguments.facts, arguments.metrics, arguments.clips)]
    if len(set(given)) > 1:
        sys.exit("--facts, --metrics and --clips go together")
    folder = BOX / arguments.name.removeprefix(PREFIX)
    if arguments.model is not None:
        rounded(arguments.model, folder)
        print(f"{folder}: {(folder / WEIGHTS_FILE).stat().st_size:,} bytes")
    if arguments.facts is not None:
        facts = read_yaml(arguments.facts)
        metrics = json.loads(arguments.metrics.read_text("utf-8"))["metrics"]
        model = SpikeVideoFormer.from_pretrained(folder)
        measured = counted(model, arguments.clips, arguments.count)
        card = Card.from_dict({**facts, "metrics": metrics, **measured})
        write_text(folder / CARD_FILE, json.dumps(card.to_dict(), indent=2) + "\n")
    if (folder / CARD_FILE).is_file():
        PAGES.mkdir(parents=True, exist_ok=True)
        path = PAGES / f"{folder.name}.md"
        write_text(path, page(arguments.name))
        print(path)


if __name__ == "__main__":
    main()
