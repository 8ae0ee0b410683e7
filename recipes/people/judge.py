"""A person mask on the held-out recordings: python judge.py MODEL (see README.md).

IoU of each recording over its frames with masks checked by hand, and their mean; beside it what
"everything is a person" has. With ``--log`` a row is added to a CSV file, with ``--every`` again
and again as weights change: a training run seen from outside. With ``--pictures`` the worst five;
with ``--metrics`` a file for the card (recipes/pack.py).
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from real import interval, iou, read_masks

import spikevideoformer as svf
from spikevideoformer.models.spikevideoformer import load_state
from spikevideoformer.training.checkpoint import load_checkpoint


def masks_of(segmenter, picture: np.ndarray) -> np.ndarray:
    """Where the network sees a person, bool [H, W]."""
    person = segmenter.classes.index("person")
    return next(iter(segmenter.segment(picture[None], frame_rate_hz=1.0))).mask == person


def judge(segmenter, data: Path, split: str) -> tuple[dict[str, tuple[float, float]], list]:
    """IoU of the network and of "everything" by recording, and all frames."""
    scores, frames = {}, []
    for name, labelled in read_masks(data, split).items():
        said = [masks_of(segmenter, picture) for _, picture, _ in labelled]
        truth = [mask for *_, mask in labelled]
        scores[name] = (
            iou(list(zip(said, truth, strict=True))),
            iou([(np.ones_like(mask), mask) for mask in truth]),
        )
        frames += [
            (iou([(mine, mask)]), name, number, picture, mine, mask)
            for (number, picture, mask), mine in zip(labelled, said, strict=True)
        ]
    return scores, sorted(frames, key=lambda frame: frame[0])


def empty_share(segmenter, folder: Path, most: int) -> float:
    """Mean share of pixels called person in rendered pictures that show none."""
    shares = []
    for labels in sorted(folder.glob("[0-9]*/labels.npz"))[:most]:
        with np.load(labels) as file:
            if file["people"].any():
                continue
        picture = np.array(Image.open(sorted(labels.parent.glob("*.jpg"))[0]).convert("RGB"))
        shares.append(masks_of(segmenter, picture).mean())
    return float(np.mean(shares)) if shares else float("nan")


def sheet(frames: list, path: Path) -> None:
    """Pictures, what the network says (green) and what is right (red), side by side."""
    rows = []
    for *_, picture, mine, mask in frames:
        row = [picture]
        for seen, channel in ((mine, 1), (mask, 0)):
            tinted = picture.copy()
            tinted[seen, channel] = 255 - (255 - tinted[seen, channel]) // 3
            row.append(tinted)
        rows.append(np.hstack(row))
    image = Image.fromarray(np.vstack(rows))
    image.resize((image.width // 2, image.height // 2)).save(path)


def main() -> None:
    """Read the options and do it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a released folder, RUN/model")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/people/real"))
    parser.add_argument("--split", default="test", choices=["test", "val"])
    parser.add_argument("--rendered", type=Path, help="rendered validation clips, DATA/val")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--every", type=float, metavar="SECONDS")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--metrics", type=Path)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help="the weights of this one instead, or of the newest of a folder",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    seen = None
    while True:
        source = options.checkpoint or options.model / "model.safetensors"
        if source.is_dir():
            source = max(source.glob("step-*.pt"), default=source)
        if source.is_file() and (stamp := (source, source.stat().st_mtime)) != seen:
            seen = stamp
            _report(options, source)
        if options.every is None:
            break
        time.sleep(options.every)


def _report(options: argparse.Namespace, source: Path) -> None:
    model = svf.SpikeVideoFormer.from_pretrained(options.model)
    step = ""
    if options.checkpoint:
        state = load_checkpoint(source)
        load_state(model, {**state["model"], **state["measured"]}, source)
        step = str(state["step"])
    segmenter = svf.VideoSegmenter(model)
    scores, frames = judge(segmenter, options.data, options.split)
    for name, (mine, everything) in scores.items():
        print(f"{name}: {mine:.3f} (everything: {everything:.3f})")
    mean, everything = np.mean(list(scores.values()), 0)
    low, high = interval([mine for mine, _ in scores.values()])
    print(
        f"mean of {len(scores)} recordings: {mean:.3f}, 95 % {low:.3f} to {high:.3f} "
        f"(everything: {everything:.3f})"
    )
    empty = float("nan")
    if options.rendered:
        empty = empty_share(segmenter, options.rendered, 200)
        print(f"rendered pictures without people: {empty:.2%} called person")
    if options.pictures:
        sheet(frames[:5], options.pictures)
    if options.metrics:
        metrics = [
            {
                "what": "IoU of people",
                "on": f"{len(frames)} real frames of {len(scores)} recordings, mean of recordings",
                "value": float(mean),
                "low": low,
                "high": high,
                "beside": f"everything is a person: {everything:.3f}",
            },
            *(
                {
                    "what": "IoU",
                    "on": name,
                    "value": float(mine),
                    "beside": f"everything: {other:.3f}",
                }
                for name, (mine, other) in scores.items()
            ),
        ]
        if options.rendered:
            on = "rendered clips without people, never trained on"
            metrics.append({"what": "share of pixels called person", "on": on, "value": empty})
        options.metrics.write_text(json.dumps({"metrics": metrics}, indent=1) + "\n")
    if options.log:
        new = not options.log.exists()
        with options.log.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["time", "step", "mean_iou", "empty", *scores])
            now = time.strftime("%Y-%m-%d %H:%M")
            values = [f"{value:.4f}" for value in (mean, empty, *(m for m, _ in scores.values()))]
            writer.writerow([now, step, *values])


if __name__ == "__main__":
    main()
