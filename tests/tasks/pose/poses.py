"""Small data sets with poses, in the layouts of their releases; the body is known exactly."""

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spikevideoformer.body.rotations import axis_angle_from_matrix, matrix_from_axis_angle
from spikevideoformer.body.skeleton import forward_kinematics
from spikevideoformer.body.smpl import NUM_BETAS, SMPL_PARENTS, SmplBody
from spikevideoformer.data.problems import Problem
from spikevideoformer.tasks.pose.check import check_poses
from spikevideoformer.tasks.pose.layouts.human36m import HUMAN36M_PARENTS
from spikevideoformer.tasks.pose.layouts.mmhpsd import CAMERA as MMHPSD_CAMERA
from spikevideoformer.tasks.pose.layouts.pinhole import Pinhole
from spikevideoformer.tasks.pose.sequence import PoseIndex, PoseSequence, fit_skeleton
from spikevideoformer.video.frames import write_video

from ..segmentation.frames import picture, save

Array = NDArray[Any]
CAMERA = Pinhole(focal_px=(90.0, 100.0), centre_px=(30.0, 34.0))
PARENTS = (-1, 0, 1, 0)
NAMES = ("hips", "left_hip", "left_knee", "right_hip")


@dataclass(frozen=True, kw_only=True)
class Body:
    """A body that moves before `CAMERA`."""

    offsets: Array
    rotations: Array
    joints: Array
    points: Array


def body(parents: tuple[int, ...], frames: int, seed: int = 0, scale: float = 1.0) -> Body:
    """Bones of 10 to 30 cm times `scale`, the same for all seeds; random turns, some metres off."""
    rng = np.random.default_rng(len(parents))
    offsets = rng.normal(size=(len(parents), 3))
    offsets *= scale * rng.uniform(0.1, 0.3, (len(parents), 1)) / np.linalg.norm(offsets, axis=1)[
        :, None
    ]  # fmt: skip
    offsets[0] = 0
    rng = np.random.default_rng(seed)
    rotations = matrix_from_axis_angle(torch.tensor(rng.normal(size=(frames, len(parents), 3))))
    joints = forward_kinematics(parents, rotations, torch.tensor(offsets))[0].numpy()
    joints += rng.normal(size=(frames, 1, 3)) / 3 + np.array([0, 0, 5])
    return Body(
        offsets=offsets, rotations=rotations.numpy(), joints=joints, points=CAMERA.project(joints)
    )


def random_smpl() -> SmplBody:
    """With joints and shapes of nobody."""
    generator = torch.Generator().manual_seed(0)
    template = torch.randn(24, 3, generator=generator) * 0.3
    return SmplBody(template, torch.randn(24, 3, NUM_BETAS, generator=generator) * 0.02)


def video(path: Path, frames: int, rate_hz: float = 20.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    write_video(path, iter(rng.integers(0, 256, (frames, 32, 32, 3), np.uint8)), rate_hz)


def edit_npz(path: Path, **changes: Any) -> None:
    """Write an archive again with other arrays; None takes one away."""
    with np.load(path) as file:
        arrays = dict(file) | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def write_rendered(root: Path, frames: int = 4) -> Path:
    """Three clips, two in train, of one skeleton in two sizes."""
    lines = ["path,label,group,split,style"]
    for seed, (split, label) in enumerate((("train", "walk"), ("train", "bow"), ("val", "walk"))):
        name = f"{split}/{label}/{seed}"
        video(root / f"{name}.mp4", frames)
        truth = body(PARENTS, frames, seed, scale=2.0 if seed == 1 else 1.0)
        np.savez(
            root / f"{name}.npz",
            joints3d=truth.joints.astype(np.float32),
            joints2d=truth.points,
            rotations=truth.rotations.astype(np.float32),
            focal_px=np.float32(100),
            centre_px=np.array([30, 34], np.float32),
            times_s=0.3 + np.arange(frames) / 20,
            joint_names=np.array(NAMES),
            parents=np.array(PARENTS),
        )
        lines.append(f"{name}.mp4,{label},{seed},{split},calm")
    (root / "splits.csv").write_text("\n".join(lines) + "\n")
    return root


def _mmhpsd_poses(subject: int, frames: int) -> Iterator[dict[str, Array]]:
    """The arrays of each pose, as MMHPSD's own camera sees the body."""
    truth = mmhpsd_body(subject, frames)
    vectors = axis_angle_from_matrix(torch.tensor(truth.rotations)).numpy()
    for i in range(frames):
        pixels = np.column_stack([truth.points[i], truth.joints[i, :, 2]])
        yield {
            "joints3d": truth.joints[i].astype(np.float32),
            "joints2d": pixels,
            "trans": truth.joints[i, :1],
            "body_pose": vectors[i].reshape(1, 72),
            "beta": np.full((1, 10), subject / 10),
        }


def mmhpsd_body(subject: int, frames: int) -> Body:
    truth = body(SMPL_PARENTS, frames, subject)
    return replace(truth, points=MMHPSD_CAMERA.project(truth.joints))


def mmhpsd_name(subject: int) -> str:
    return f"subject{subject:02d}_group{1 + subject % 2}_time1"


def mmhpsd_events(subject: int, frame: int) -> Array:
    """Channels in the order of time, bool [256, 256, 4]."""
    rng = np.random.default_rng(1000 * subject + frame)
    return np.repeat(np.repeat(rng.random((32, 32, 4)) < 0.2, 8, 0), 8, 1)


def write_mmhpsd(
    root: Path,
    subjects: Sequence[int] = (1, 3, 4),
    frames: int = 5,
    absent: Sequence[int] = (),
    *,
    first: int = 0,
    pictures: bool = True,
    events: bool = True,
) -> Path:
    """The layout of HumanPoseTracking_SNN; `absent` numbers have no pose."""
    for subject in subjects:
        folder = root / "mmhpsd_events" / mmhpsd_name(subject)
        for part in ("poses", *["events_frame_04"] * events):
            (folder / part).mkdir(parents=True)
        for i, pose in enumerate(_mmhpsd_poses(subject, frames), first):
            if i not in absent:
                np.savez(folder / "poses" / f"pose_{i:04d}.npz", **pose)
            if pictures:
                imgs = root / "mmhpsd_grayscale_img" / folder.name / "imgs"
                picture(imgs / f"fullpic{i:04d}.jpg", 32, 32)
            if events:
                packed = np.packbits(mmhpsd_events(subject, i))
                np.savez(folder / "events_frame_04" / f"events_{i:04d}.npz", events_frame=packed)
    return root


def write_eventhpe(
    root: Path,
    subjects: Sequence[int] = (1, 3, 4),
    frames: int = 5,
    absent: Sequence[int] = (),
    *,
    compress: int = 0,
) -> Path:
    """The layout of EventHPE; `absent` numbers have no pose."""
    import joblib

    for subject in subjects:
        name = mmhpsd_name(subject)
        folder, numbers = root / "pose_events" / name, [i for i in range(frames) if i not in absent]
        folder.mkdir(parents=True)
        for i, pose in enumerate(_mmhpsd_poses(subject, frames)):
            if i in numbers:
                names = ("beta", "body_pose", "trans", "joints3d", "joints2d")
                held = [pose[key] for key in names]
                joblib.dump(held, folder / f"pose{i:04d}.pkl", compress=compress)
            picture(root / "full_pic_256" / name / f"fullpic{i:04d}.jpg", 256, 256)
            red_to_blue = mmhpsd_events(subject, i)[..., [2, 1, 0, 3]]  # as OpenCV writes
            save(root / "events_256" / name / f"event{i:04d}.png", red_to_blue * 255)
        joblib.dump(numbers, folder / "pose_info.pkl", compress=compress)
    return root


def write_cdf(path: Path, values: Array, name: str = "Pose") -> None:
    from cdflib.cdfwrite import CDF

    path.parent.mkdir(parents=True, exist_ok=True)
    file = CDF(path, cdf_spec={"Compressed": 6}, delete=True)
    spec = {"Variable": name, "Data_Type": 44, "Num_Elements": 1, "Rec_Vary": True}
    file.write_var(spec | {"Dim_Sizes": list(values.shape[1:])}, var_data=np.float32(values))
    file.close()


def write_human36m(root: Path, frames: int = 4) -> Path:
    """Two takes in train and one in val; the videos go on for a frame."""
    used = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]  # the field's 17 of 32
    for subject, take in (("S1", "Directions 1"), ("S1", "Walking"), ("S9", "Directions")):
        truth = body(HUMAN36M_PARENTS, frames, seed=len(take))
        for folder, values in (
            ("D3_Positions_mono", truth.joints * 1000),
            ("D2_Positions", truth.points),
        ):
            every = np.full((frames, 32, values.shape[-1]), 7.0)
            every[:, used] = values
            path = root / subject / "MyPoseFeatures" / folder / f"{take}.54138969.cdf"
            write_cdf(path, every.reshape(1, frames, -1))
        video(root / subject / "Videos" / f"{take}.54138969.mp4", frames + 1, 50.0)
    return root


def entries_3dpw(frames: int = 3, people: int = 2) -> tuple[dict[str, Any], list[Body]]:
    """What a pickle holds, of a camera that moves through the world, and the bodies before it."""
    rng = np.random.default_rng(9)
    camera = np.tile(np.eye(4), (frames, 1, 1))  # from the world
    camera[:, :3, :3] = matrix_from_axis_angle(torch.tensor(rng.normal(size=(frames, 3)))).numpy()
    camera[:, :3, 3] = rng.normal(size=(frames, 3))
    turn, shift = camera[:, None, :3, :3], camera[:, None, :3, 3]
    bodies = [body(SMPL_PARENTS, frames, seed) for seed in range(people)]
    poses, positions = [], []
    for truth in bodies:
        rotations = truth.rotations.copy()
        rotations[:, :1] = turn.swapaxes(-1, -2) @ rotations[:, :1]
        vectors = axis_angle_from_matrix(torch.tensor(rotations)).numpy()
        poses.append(vectors.reshape(frames, 72))
        world = ((truth.joints - shift)[..., None, :] @ turn)[..., 0, :]
        positions.append(world.reshape(frames, 72))
    (fx, fy), (cx, cy) = CAMERA.focal_px, CAMERA.centre_px
    entries = {
        "sequence": "downtown_walking_00",
        "poses": poses,
        "jointPositions": positions,
        "betas": [np.full(10, 0.5 + person) for person in range(people)],
        "trans": [position[:, :3] for position in positions],
        "genders": ["m", "f"][:people],
        "campose_valid": [np.ones(frames, bool) for _ in range(people)],
        "cam_poses": camera,
        "cam_intrinsics": np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]),
        "img_frame_ids": np.arange(frames) * 2,
    }
    return entries, bodies


def write_3dpw(root: Path, frames: int = 3, **changes: Any) -> Path:
    """A sequence of two people in train and one of one in validation; changes are of the former."""
    for split, name, people in (
        ("train", "downtown_walking_00", 2),
        ("validation", "courtyard_basketball_01", 1),
    ):
        entries, _ = entries_3dpw(frames, people)
        if split == "train":
            entries |= changes
        path = root / "sequenceFiles" / split / f"{name}.pkl"
        path.parent.mkdir(parents=True, exist_ok=True)
        held = {key: value for key, value in entries.items() if value is not None}
        path.write_bytes(pickle.dumps(held, protocol=2))
        for i in range(frames):
            picture(root / "imageFiles" / name / f"image_{i:05d}.jpg")
    return root


def assert_truth(
    sequence: PoseSequence, expected: Body, *, turned: bool = True, camera: Pinhole = CAMERA
) -> None:
    """The truth of a sequence is that body, seen by the camera."""
    truth = sequence.truth
    np.testing.assert_allclose(truth.joints, expected.joints, atol=1e-5)
    np.testing.assert_allclose(truth.points, expected.points, atol=1e-3)
    np.testing.assert_allclose(truth.focal_px, camera.focal_px, rtol=1e-3)
    np.testing.assert_allclose(truth.centre_px, camera.centre_px, atol=0.05)
    assert (truth.rotations is not None) == turned
    if truth.rotations is not None:
        np.testing.assert_allclose(truth.rotations, expected.rotations, atol=1e-5)


def assert_skeleton(index: PoseIndex, expected: Body) -> None:
    """The skeleton of a data set has these bones, and moves as its bodies do."""
    skeleton = fit_skeleton(index)
    np.testing.assert_allclose(skeleton.offsets, expected.offsets, atol=1e-5)
    for sequence in index.sequences:
        truth = sequence.truth
        assert truth.rotations is not None
        joints, rotations = torch.from_numpy(truth.joints), torch.from_numpy(truth.rotations)
        torch.testing.assert_close(
            skeleton.joints(rotations, joints[:, 0]), joints, atol=1e-4, rtol=0
        )


def only_problem(index: PoseIndex) -> Problem:
    (problem,) = index.problems
    assert "\n" not in str(problem) and problem.remedy and problem.source
    return problem


def assert_sound(index: PoseIndex) -> None:
    assert index.problems == ()
    assert check_poses(index).settle().sequences == index.sequences
