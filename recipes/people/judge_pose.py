"""Poses on real recordings: python judge_pose.py MODEL --teachers FILE (see README.md).

FILE is what teach_pose.py wrote. A joint counts where both teachers are sure of it and agree,
within a tenth of the box around the person; it is right within a tenth of the box of their mean
(PCK at 0.1). Each frame is shown to the network as the square around that box, and each recording
twice more as a video, in which it follows the person whom the mask finds, or who is in the first
square: where there are several it may be another than the teachers'. Beside it stand the mean pose
of rendered clips, put into the same square, and one teacher held against the other. Jitter is the
mean second difference of a joint over three frames in a row, as a share of the box; of the network
that follows, beside that of mediapipe. ``--metrics`` writes a file for the card (recipes/pack.py).

``joints_by_hand.json`` says who is right where the teachers do not agree. Its entries are frames,
with the box around one person and the joints that can be told, of some a second time (``again``).
There the square is that around this box, and each labelled joint counts.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import poses
from PIL import Image, ImageDraw
from real import interval, read_frames, read_joints

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


def given(tracker: svf.PoseTracker, square: Square, picture: np.ndarray) -> np.ndarray:
    """All joints that the network sees in the square."""
    tracker.box = square
    return tracker.predict(picture[None], frame_rate_hz=1.0).points[0]


def placed(usual: np.ndarray, square: Square) -> np.ndarray:
    """The mean pose in the square."""
    return usual * square.side + [square.left, square.top]


def score(guess: np.ndarray, truth: np.ndarray, counted: np.ndarray, side: float) -> np.ndarray:
    """Right joints and counted ones."""
    near = np.linalg.norm(guess - truth, axis=1) < poses.WITHIN * side
    return np.array([(near & counted).sum(), counted.sum()])


def by_hand(joints: dict[str, list[int]]) -> np.ndarray:
    """Places of joints by their names, [17, 2]; NaN of those that are not labelled."""
    return np.array([joints.get(name, (np.nan, np.nan)) for name in COCO])


def box_of(label: dict) -> tuple[np.ndarray, float]:
    """Two corners of the box by hand, and its longer side."""
    corners = np.array(label["box"], float).reshape(2, 2)
    return corners, float(np.ptp(corners, axis=0).max())


def against_hand(
    label: dict, entry: dict, picture: np.ndarray, tracker: svf.PoseTracker, usual: np.ndarray
) -> dict[str, np.ndarray]:
    """Right joints and counted ones of a frame: all, and where teachers do and do not agree."""
    corners, side = box_of(label)
    square, truth = Square.of_person(corners), by_hand(label["joints"])
    assert square is not None
    rows = [tracker.body.joint_names.index(name) for name in COCO]
    guesses = {
        "given the square": given(tracker, square, picture)[rows],
        "mean pose": placed(usual, square),
    } | {who: np.array(entry[who])[:, :2] for who in poses.SURE}
    known, agree = np.isfinite(truth[:, 0]), poses.labelled(entry)[2]
    kinds = {"all": known, "agreed": known & agree, "not agreed": known & ~agree}
    return {
        f"by hand, {kind}: {what}": score(guess, truth, counted, side)
        for kind, counted in kinds.items()
        for what, guess in guesses.items()
    }


def apart(labels: list[dict]) -> np.ndarray:
    """Distances of joints labelled twice, as shares of the box."""
    twice = [
        np.linalg.norm(by_hand(label["again"]) - by_hand(label["joints"]), axis=1)
        / box_of(label)[1]
        for label in labels
        if "again" in label
    ]
    shares = np.concatenate(twice)
    return shares[np.isfinite(shares)]


def tell(shares: dict[str, list[float]]) -> None:
    """Means over recordings, with intervals."""
    for what, values in shares.items():
        low, high = interval(values)
        print(
            f"{what}: {np.mean(values):.3f} ({low:.3f} to {high:.3f}) of {len(values)} recordings"
        )


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
    labels, hand, joints = read_joints(), defaultdict(list), defaultdict(int)
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
            points = given(tracker, square, frames[entry["frame"]])
            guesses = {"given the square": points[rows]}
            for way, walked in ways.items():
                nearest = np.abs(np.array(walked.timestamps_s) - times[entry["frame"]]).argmin()
                guesses[way] = walked.points[nearest][rows]
            guesses["mean pose"] = placed(usual, square)
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
        own: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
        at = {entry["frame"]: entry for entry in found}
        for label in (label for label in labels if label["recording"] == name):
            if (entry := at.get(label["frame"])) is None:
                raise SystemExit(f"{options.teachers} has no frame {label['frame']} of {name}")
            picture = frames[entry["frame"]]
            for what, counts in against_hand(label, entry, picture, tracker, usual).items():
                own[what] += counts
        for what, (right, counted) in own.items():
            joints[what] += int(counted)
            if counted:
                hand[what].append(right / counted)
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
    tell(shares)
    steady = {what: float(np.nanmean(values)) for what, values in jitters.items()}
    print("jitter: " + ", ".join(f"{what} {value:.4f}" for what, value in steady.items()))
    if hand:
        tell({f"{what} ({joints[what]} joints)": values for what, values in hand.items()})
        shares_apart = apart(labels)
        near = (shares_apart < poses.WITHIN).mean()
        print(
            f"by hand, a second time: {near:.3f} of {len(shares_apart)} joints, "
            f"median distance {np.median(shares_apart):.3f} of the box"
        )
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
