"""Poses on real recordings: python judge_pose.py MODEL --teachers FILE (see README.md).

FILE is what teach_pose.py wrote. A joint counts where both teachers are sure of it and agree,
within a tenth of the box around the person; it is right within a tenth of the box of their mean
(PCK at 0.1). Each frame is shown to the network as the square around that box, and each recording
twice more as a video, in which it follows the person whom the mask finds, or who is in the first
square: where there are several it may be another than the teachers'. Beside it stand the mean pose
of rendered clips, put into the same square, and one teacher held against the other. Jitter is the
mean second difference of a joint over three frames in a row, as a share of the box; of the network
that follows, beside that of mediapipe. ``--metrics`` writes a file for the card (recipes/pack.py).
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import poses
from PIL import Image, ImageDraw
from real import interval, read_frames

import spikevideoformer as svf
from spikevideoformer.tasks.pose.square import Square
from spikevideoformer.video.frames import iter_frames

COCO = poses.COCO[:17]  # anny counts feet behind them


def square_of(entry: dict) -> Square:
    """Around the box of the person."""
    square = Square.of_person(np.array(entry["mediapipe"])[poses.in_picture(entry), :2])
    assert square is not None  # teach_pose.py leaves out who is not in the picture
    return square


def mean_pose(folder: Path) -> np.ndarray:
    """Where joints lie in the square around a rendered person, as shares of it, [17, 2]."""
    places = []
    for path in sorted(folder.glob("train/[0-9]*.npz")):
        with np.load(path) as file:
            points = file["joints2d"][0][[list(poses.PARENTS).index(name) for name in COCO]]
            square = Square.of_person(file["joints2d"][0])
        places.append((points - [square.left, square.top]) / square.side)
    return np.nanmean(places, 0)


def score(guess: np.ndarray, truth: np.ndarray, counted: np.ndarray, side: float) -> np.ndarray:
    """Right joints and counted ones."""
    near = np.linalg.norm(guess - truth, axis=1) < poses.WITHIN * side
    return np.array([(near & counted).sum(), counted.sum()])


def main() -> None:
    """Read the options and do it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--teachers", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/people/real"))
    parser.add_argument("--poses", type=Path, required=True, help="rendered, for the mean pose")
    parser.add_argument("--split", default="test")
    parser.add_argument("--metrics", type=Path)
    parser.add_argument("--pictures", type=Path, help="write some frames with both skeletons")
    options = parser.parse_args()
    entries = defaultdict(list)
    for entry in json.loads(options.teachers.read_text()):
        if entry["split"] == options.split:
            entries[entry["recording"]].append(entry)
    usual = mean_pose(options.poses)
    tracker = svf.PoseTracker.from_pretrained(
        options.model, device="cpu", follow=False, box=(0, 0, 2)
    )
    walker = svf.PoseTracker.from_pretrained(options.model, device="cpu")
    led = svf.PoseTracker.from_pretrained(options.model, device="cpu", box=(0, 0, 2))
    rows = [tracker.body.joint_names.index(name) for name in COCO]
    shares, jitters, judged, tiles = defaultdict(list), defaultdict(list), [], []
    for name, found in entries.items():
        frames = read_frames(options.data / name)
        times = [frame.timestamp_s for frame in iter_frames(options.data / name)]
        led.box = square_of(found[0])
        ways = {
            "following": walker.predict(options.data / name),
            "following from the first square": led.predict(options.data / name),
        }
        sums = defaultdict(lambda: np.zeros(2))
        sides: dict[int, float] = {}
        tracks: dict[str, dict[int, np.ndarray]] = {"following": {}, "mediapipe": {}}
        for place, entry in enumerate(found):
            truth, sure, agree, side = poses.labelled(entry)
            square = square_of(entry)
            if not agree.any() or square.side < 4:
                continue
            tracker.box = square
            points = tracker.predict(frames[entry["frame"]][None], frame_rate_hz=1.0).points[0]
            guesses = {"given the square": points[rows]}
            for way, walked in ways.items():
                nearest = np.abs(np.array(walked.timestamps_s) - times[entry["frame"]]).argmin()
                guesses[way] = walked.points[nearest][rows]
            guesses |= {
                "mean pose": usual * square.side + [square.left, square.top],
            }
            for what, guess in guesses.items():
                sums[what] += score(guess, truth, agree, side)
            two = np.array(entry["movenet"])[:, :2]
            sums["teacher and teacher"] += score(
                two, np.array(entry["mediapipe"])[:, :2], sure, side
            )
            for what, points_px in (
                ("following", guesses["following"]),
                ("mediapipe", np.array(entry["mediapipe"])[:, :2]),
            ):
                tracks[what][entry["frame"]] = np.where(agree[:, None], points_px, np.nan)
            sides[entry["frame"]] = side
            if options.pictures and place in (len(found) // 4, 3 * len(found) // 4):
                tiles.append(
                    drawn(frames[entry["frame"]], points, truth, agree, tracker.body.parents)
                )
        if not sums["mean pose"][1]:
            print(f"{name}: no joint on which the teachers agree")
            continue
        judged.append(name)
        for what, track in tracks.items():
            jitters[what].append(jitter(track, sides))
        for what, (right, counted) in sums.items():
            shares[what].append(right / counted)
        line = ", ".join(f"{what} {shares[what][-1]:.3f}" for what in sums)
        print(f"{name}: {line} ({int(sums['mean pose'][1])} joints)", flush=True)
    for what, values in shares.items():
        low, high = interval(values)
        print(
            f"{what}: {np.mean(values):.3f} ({low:.3f} to {high:.3f}) of {len(values)} recordings"
        )
    steady = {what: float(np.nanmean(values)) for what, values in jitters.items()}
    print("jitter: " + ", ".join(f"{what} {value:.4f}" for what, value in steady.items()))
    if options.metrics:
        write_metrics(options.metrics, judged, shares, steady)
    if options.pictures:
        height = sum(t.height for t in tiles[::2])
        sheet = Image.new("RGB", (2 * max(t.width for t in tiles), height))
        top = 0
        for i, tile in enumerate(tiles):
            sheet.paste(tile, ((i % 2) * tile.width, top))
            top += tile.height * (i % 2)
        sheet.save(options.pictures)


def jitter(track: dict[int, np.ndarray], sides: dict[int, float]) -> float:
    """Mean length of second differences of joints, over the box; NaN without frames in a row."""
    steps = [
        np.linalg.norm(track[n - 1] - 2 * track[n] + track[n + 1], axis=1) / sides[n]
        for n in track
        if n - 1 in track and n + 1 in track
    ]
    return float(np.nanmean(np.concatenate(steps))) if steps else float("nan")


def write_metrics(
    path: Path, names: list[str], shares: dict[str, list[float]], steady: dict[str, float]
) -> None:
    """The figures of the card."""
    mean = {what: float(np.mean(values)) for what, values in shares.items()}
    low, high = interval(shares["following"])
    what = "joints within a tenth of the box"
    metrics = [
        {
            "what": what,
            "on": f"{len(names)} real recordings, mean of recordings",
            "value": mean["following"],
            "low": low,
            "high": high,
            "beside": ", ".join(f"{way}: {mean[way]:.3f}" for way in mean if way != "following"),
        },
        *(
            {"what": what, "on": name, "value": value, "beside": f"teachers: {teachers:.3f}"}
            for name, value, teachers in zip(
                names, shares["following"], shares["teacher and teacher"], strict=True
            )
        ),
        {
            "what": "jitter, shares of the box",
            "on": "those recordings",
            "value": steady["following"],
            "beside": f"teacher: {steady['mediapipe']:.4f}",
        },
    ]
    path.write_text(json.dumps({"metrics": metrics}, indent=1) + "\n")


def drawn(picture, points, truth, agree, parents) -> Image.Image:
    """The skeleton of the network in green, joints of the teachers in red."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for joint, parent in enumerate(parents):
        if parent >= 0 and np.isfinite(points[[joint, parent]]).all():
            draw.line([*points[parent], *points[joint]], fill=(60, 255, 60), width=4)
    for (x, y), sure in zip(truth, agree, strict=True):
        if sure:
            draw.ellipse([x - 5, y - 5, x + 5, y + 5], outline=(255, 60, 60), width=3)
    return image.resize((480, round(480 * image.height / image.width)))


if __name__ == "__main__":
    main()
