r"""Judge svf/two-people on real clips of people; it has seen none, nor any other recording.

    python recipes/two_people/held_out.py --data ../shared/data/action --out held_out.json

Intervals are of the mean over subjects (two people in one place; bootstrap, 95 %).
"""

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import bootstrap

import spikevideoformer as svf
from spikevideoformer.files import write_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="svf/two-people")
    parser.add_argument("--data", type=Path, required=True, help="folder with splits.csv")
    parser.add_argument("--evaluation", type=Path, help="evaluation.json of the training run")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = list(csv.DictReader((arguments.data / "splits.csv").open()))
    predictor = svf.VideoPredictor.from_pretrained(arguments.model)
    by_subject: dict[str, list[bool]] = defaultdict(list)
    by_class: dict[str, list[bool]] = defaultdict(list)
    unlike = 0
    for row in rows:
        result = predictor.predict(arguments.data / row["path"], top_k=6)
        right = result.labels[0].name == row["label"]
        by_subject[row["subject"]].append(right)
        by_class[row["label"]].append(right)
        unlike += bool(result.unlike_training)
    means = [float(np.mean(v)) for v in by_subject.values()]
    interval = bootstrap((means,), np.mean, method="percentile", rng=0).confidence_interval
    of_all = f"{len(rows)} real clips (UT-Interaction, {len(means)} subjects)"
    metrics: list[dict[str, Any]] = [
        {
            "what": "top-1",
            "on": of_all,
            "value": float(np.mean([right for v in by_class.values() for right in v])),
            "low": interval.low,
            "high": interval.high,
            "beside": f"chance {1 / len(by_class):.3f}",
        }
    ]
    for name, found in sorted(by_class.items()):
        on = f"{len(found)} of these clips"
        metrics.append({"what": f"recall of {name}", "on": on, "value": float(np.mean(found))})
    metrics.append(
        {
            "what": "share marked as unlike the training clips",
            "on": of_all,
            "value": unlike / len(rows),
        }
    )
    if arguments.evaluation is not None:
        made = json.loads(arguments.evaluation.read_text())
        on = f"{made['clips']} made clips never trained on"
        metrics.append({"what": "top-1", "on": on, "value": made["top1"]})
    write_text(arguments.out, json.dumps({"metrics": metrics}, indent=1) + "\n")
    print("\n".join(f"{m['what']}: {m['value']:.3f} on {m['on']}" for m in metrics))


if __name__ == "__main__":
    main()
