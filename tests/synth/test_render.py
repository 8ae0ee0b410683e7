"""Rendered motion: the truth that comes with the pictures is that of the body in them."""

import csv
import itertools
import math
import zlib

import numpy as np
import pytest
import torch

from spikevideoformer.body.motion import Motion
from spikevideoformer.body.skeleton import Skeleton, forward_kinematics
from spikevideoformer.data.problems import DatasetError
from spikevideoformer.synth import performer, shading, viewpoint
from spikevideoformer.synth.motions import (
    LabelledMotion,
    procedural_motion,
    read_mocap_table,
)
from spikevideoformer.synth.render import render_motion, write_motion_clips
from spikevideoformer.synth.spec import RenderSpec
from spikevideoformer.tasks.classification.index import read_index
from spikevideoformer.video.frames import iter_frames, probe

SMALL = RenderSpec(size=64, frames=6, frame_rate_hz=10.0)


def bone_lengths(clip):
    parents = clip.skeleton.parents
    ends, starts = clip.joints_camera[:, 1:], clip.joints_camera[:, parents[1:]]
    return np.linalg.norm(ends - starts, axis=-1)  # [T, J - 1]


def alone(starts, ends, radii, colours):
    """A body of one frame."""
    return performer.Body(
        starts=np.array([starts], float),
        ends=np.array([ends], float),
        radii=np.array(radii, float),
        colours=np.array(colours, float),
        thickness=np.zeros(1),
        floor=-1.0,
    )


def painted(body, size=64):
    """Colours before a black ground, and depths, by a camera at 0 that looks along -z."""
    camera = viewpoint.Camera(
        focal_px=float(size),
        centre_px=(size / 2, size / 2),
        rotation=np.diag([1.0, -1.0, -1.0]),
        translation=np.zeros(3),
    )
    place = (np.arange(size) + 0.5 - size / 2) / size
    rays = np.stack(np.broadcast_arrays(place, place[:, None], 1.0), -1).astype(np.float32)
    image = np.zeros((1, size, size, 3), np.float32)
    depth = np.full((1, size, size), np.inf, np.float32)
    light = shading._Light(direction=np.array([0.0, 0.0, 1.0]), strength=0.5, ambient=0.5)
    shading._draw_cones(image, depth, body, slice(0, 1), camera, rays, light)
    return image[0], depth[0], rays


# --- Truth --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_joints_are_inside_the_body_that_is_seen(seed, monkeypatch):
    motion = procedural_motion("walk-in-place", seed)
    monkeypatch.setattr(shading, "_cast_shadow", lambda *_: None)
    clip = render_motion(motion, seed=seed, spec=SMALL)
    monkeypatch.setattr(shading, "_draw_cones", lambda *_: None)
    empty = render_motion(motion, seed=seed, spec=SMALL)
    x, y = clip.joints_2d.astype(int)[clip.visible].T
    frame = np.nonzero(clip.visible)[0]
    assert len(frame) > 60
    difference = np.abs(clip.pictures.astype(int) - empty.pictures)[frame, y, x].max(-1)
    assert (difference > 0).mean() > 0.97  # clothes may happen to have the colour behind them
    row, column = np.mgrid[:64, :64] + 0.5
    places = clip.joints_2d[:, :, None, None]  # [T, J, 1, 1, 2]
    far = (np.hypot(places[..., 0] - column, places[..., 1] - row) > 14).all(1)
    assert far.mean() > 0.2
    assert np.array_equal(clip.pictures[far], empty.pictures[far])


def test_joints_behind_other_parts_are_not_visible():
    """Of two limbs that lie over each other, only the nearer one is visible."""
    motion = procedural_motion("walk-in-place", 1)
    counts = []
    for seed in range(6):
        clip = render_motion(motion, seed=seed, spec=SMALL)
        assert clip.visible.shape == (6, 21)
        pairs = clip.skeleton.symmetric_pairs
        for left, right in pairs:
            near = clip.joints_camera[:, left, 2] < clip.joints_camera[:, right, 2]
            overlap = (
                np.linalg.norm(clip.joints_2d[:, left] - clip.joints_2d[:, right], axis=-1) < 1
            )
            nearer = np.where(near, clip.visible[:, left], clip.visible[:, right])
            farther = np.where(near, clip.visible[:, right], clip.visible[:, left])
            gap = np.abs(clip.joints_camera[:, left, 2] - clip.joints_camera[:, right, 2])
            assert not (overlap & (gap > 0.3) & farther).any()
            counts.append((nearer.sum(), farther.sum()))
    nearer, farther = np.sum(counts, 0)
    assert nearer > 1.2 * farther


def test_joints_in_pixels_are_projected_by_the_camera():
    clip = render_motion(procedural_motion("squat", 0), seed=5, spec=SMALL)
    camera = clip.camera
    for frame, joint in ((0, 0), (3, 7), (5, 20)):
        x, y, z = clip.joints_camera[frame, joint]
        u = camera.focal_px * x / z + 32
        v = camera.focal_px * y / z + 32
        assert clip.joints_2d[frame, joint] == pytest.approx([u, v])
    assert ((clip.joints_2d > 0) & (clip.joints_2d < 64)).all()
    # It is a camera above the floor that stands upright: heads are above feet in the picture.
    names = clip.skeleton.joint_names
    head, foot = (clip.joints_2d[:, names.index(name), 1] for name in ("Head", "Foot_L"))
    assert (head < foot - 10).all()
    np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(camera.rotation) == pytest.approx(1)


def test_the_camera_takes_the_world_to_its_coordinates():
    """There y is up: the body stands upright, and the camera is not below the floor."""
    clip = render_motion(procedural_motion("walk-in-place", 0), seed=2, spec=SMALL)
    world = (clip.joints_camera - clip.camera.translation) @ clip.camera.rotation
    names = clip.skeleton.joint_names
    head, hips = world[:, names.index("Head")], world[:, names.index("Hips")]
    upright = (head - hips) / np.linalg.norm(head - hips, axis=-1, keepdims=True)
    assert (upright[:, 1] > 0.95).all()
    eye = -clip.camera.rotation.T @ clip.camera.translation
    assert eye[1] > world[..., 1].min()


def test_rotations_translation_and_skeleton_give_the_joints():
    motion = procedural_motion("wave-left-hand", 0)
    clip = render_motion(motion, seed=1, spec=SMALL, start_s=0.5)
    joints = clip.skeleton.joints(torch.tensor(clip.rotations), torch.tensor(clip.translation))
    np.testing.assert_allclose(joints.numpy(), clip.joints_camera, atol=1e-12)
    by_shape = motion.skeleton.joints(
        torch.tensor(clip.rotations), torch.tensor(clip.translation), torch.tensor(clip.shape)
    )
    np.testing.assert_allclose(by_shape.numpy(), clip.joints_camera, atol=1e-12)
    # Below the root, rotations are the motion's own.
    torch.testing.assert_close(torch.tensor(clip.rotations)[:, 1:], motion.rotations[15:33:3, 1:])
    np.testing.assert_allclose(clip.times_s, 0.5 + np.arange(6) / 10)


def test_proportions_differ_between_bodies_are_symmetric_and_constant_in_time():
    motion = procedural_motion("walk-in-place", 0)
    own = np.linalg.norm(motion.skeleton.offsets[1:].numpy(), axis=-1)
    ratios = []
    for seed in range(6):
        clip = render_motion(motion, seed=seed, spec=RenderSpec(size=16, frames=5))
        lengths = bone_lengths(clip)
        np.testing.assert_allclose(lengths, lengths[:1].repeat(5, 0), rtol=1e-10)
        ratios.append(lengths[0] / own)
        for left, right in clip.skeleton.symmetric_pairs:
            assert lengths[0, left - 1] == pytest.approx(lengths[0, right - 1])
    ratios = np.array(ratios)
    assert (ratios.std(0) > 0.02).all() and (ratios.std(1) > 0.01).all()
    assert ratios.min() > 0.6 and ratios.max() < 1.6


def test_a_body_with_longer_legs_walks_as_much_farther():
    motion = procedural_motion("walk-in-place", 0)
    path = motion.translation + torch.linspace(0, 2, 90, dtype=torch.float64)[:, None]
    walking = Motion(
        skeleton=motion.skeleton, rotations=motion.rotations, translation=path, frame_rate_hz=30.0
    )
    clip = render_motion(walking, seed=3, spec=SMALL)
    world = (clip.translation - clip.camera.translation) @ clip.camera.rotation
    step = (world[-1] - world[0]) / (path[15] - path[0]).numpy()
    names = motion.skeleton.joint_names
    before, after = (
        sum(torch.linalg.vector_norm(s.offsets[names.index(f"{b}_L")]) for b in LEG)
        for s in (motion.skeleton, clip.skeleton)
    )
    assert step == pytest.approx([float(after / before)] * 3)


LEG = ("UpperLeg", "LowerLeg", "Foot", "Toes")


# --- Drawing ------------------------------------------------------------------------------------


def test_a_nearer_cone_hides_a_farther_one_in_either_order():
    far, near = ([-0.3, 0, -3.0], [0.3, 0, -3.0]), ([0, -0.3, -2.0], [0, 0.3, -2.0])
    red, blue = [1.0, 0, 0], [0, 0, 1.0]
    for order in ((far, near), (near, far)):
        starts, ends = zip(*order, strict=True)
        colours = [red if bone is far else blue for bone in order]
        image, depth, _ = painted(alone(starts, ends, [(0.05, 0.05)] * 2, colours))
        assert image[32, 32, 2] > 0.5 and image[32, 32, 0] == 0
        assert image[32, 28, 0] > 0.5 and image[32, 28, 2] == 0
        assert depth[32, 32] == pytest.approx(1.95, abs=0.01)
        assert depth[32, 28] == pytest.approx(2.95, abs=0.01)


@pytest.mark.parametrize(
    ("start", "end", "radii"),
    [
        ([-0.4, 0.2, -2.0], [0.3, -0.3, -2.5], (0.1, 0.1)),  # a capsule
        ([-0.4, 0.2, -2.0], [0.3, -0.3, -2.5], (0.2, 0.05)),  # tapered
        ([0.05, 0.0, -1.5], [0.1, 0.05, -3.0], (0.1, 0.25)),  # pointing at the camera
        ([0.05, 0.0, -1.5], [0.1, 0.05, -3.0], (0.3, 0.1)),
        ([0.1, 0.1, -2.0], [0.1, 0.1, -2.0], (0.3, 0.3)),  # a sphere
        ([0.1, 0.1, -2.0], [0.1, 0.15, -2.0], (0.3, 0.1)),  # one sphere inside the other
    ],
)
def test_depth_and_normals_of_a_cone_are_those_of_the_hull_of_its_spheres(start, end, radii):
    """Against many spheres along the axis, met one by one."""
    image, depth, rays = painted(alone([start], [end], [radii], [[1.0, 1, 1]]), 32)
    share = np.linspace(0, 1, 401)[:, None, None]
    flip = np.array([1.0, -1.0, -1.0])  # to camera coordinates
    centres = flip * (np.array(start) + share * (np.array(end) - np.array(start)))  # [n, 1, 3]
    radius = (radii[0] + share * (radii[1] - radii[0]))[..., 0]
    rays = rays.reshape(-1, 3).astype(float)
    length, ahead = (rays**2).sum(-1), (centres * rays).sum(-1)
    root = ahead**2 - length * ((centres**2).sum(-1) - radius**2)
    depths = np.where(root >= 0, (ahead - np.sqrt(np.maximum(root, 0))) / length, np.inf)
    expected = depths.min(0).reshape(32, 32)
    seen = np.isfinite(depth)
    assert seen.sum() > 20
    assert (seen != np.isfinite(expected)).sum() <= 2  # rays that graze it
    both = seen & np.isfinite(expected)
    off = np.abs(depth[both] - expected[both])
    assert np.quantile(off, 0.98) < 2e-3 and off.max() < 0.05
    # The lamp is behind the camera: brightest where the surface faces it.
    nearest = depths.argmin(0).reshape(32, 32)
    point = expected[..., None] * rays.reshape(32, 32, 3)
    inside = both.copy()
    inside[both] = off < 1e-3
    normal = (point[inside] - centres[nearest[inside], 0]) / radius[nearest[inside]]
    shade = 0.5 * (0.75 - 0.25 * normal[:, 1]) + 0.5 * np.maximum(-normal[:, 2], 0)
    assert np.quantile(np.abs(image[inside][:, 0] - shade), 0.98) < 0.02


def test_a_shadow_lies_on_the_floor_beside_the_body():
    light = shading._Light(direction=np.array([0.6, 0.8, 0.0]), strength=0.5, ambient=0.5)
    body = alone([[0, 1.0, 0]], [[0, 1.0, 0]], [(0.2, 0.2)], [[1.0, 1, 1]])
    x, z = np.meshgrid(np.linspace(-2, 2, 81), np.linspace(-2, 2, 81))
    ground = np.stack((x, np.full_like(x, -1.0), z), -1)
    image = np.ones((1, 81, 81, 3), np.float32)
    shading._cast_shadow(image, ground, body, slice(0, 1), light)
    dark = image[0, ..., 0] < 0.8
    # The lamp is at +x, and the ball 2 m above the floor: its shadow lies at 2 * 0.6 / 0.8.
    assert x[dark].mean() == pytest.approx(-1.5, abs=0.02)
    assert z[dark].mean() == pytest.approx(0, abs=0.02)
    assert np.ptp(z[dark]) == pytest.approx(0.4, abs=0.1)
    assert np.ptp(x[dark]) == pytest.approx(0.5, abs=0.1)
    assert image.min() == pytest.approx(0.5 / 0.9)


def test_everything_follows_from_the_seed():
    motion = procedural_motion("turn-left", 0)
    clip, again, other = (render_motion(motion, seed=seed, spec=SMALL) for seed in (7, 7, 8))
    assert clip.pictures.shape == (6, 64, 64, 3) and clip.pictures.dtype == np.uint8
    assert np.array_equal(clip.pictures, again.pictures)
    assert np.array_equal(clip.joints_camera, again.joints_camera)
    assert not np.array_equal(clip.pictures, other.pictures)
    assert not np.allclose(clip.camera.rotation, other.camera.rotation)


def test_size_and_supersampling_change_pixels_and_not_the_scene():
    motion = procedural_motion("turn-left", 0)
    clips = {
        (size, n): render_motion(
            motion, seed=7, spec=RenderSpec(size=size, frames=2, supersampling=n)
        )
        for size, n in ((64, 1), (64, 3), (128, 1))
    }
    small = clips[64, 1]
    for clip in clips.values():
        np.testing.assert_allclose(clip.joints_camera, small.joints_camera)
    np.testing.assert_allclose(clips[128, 1].joints_2d, 2 * small.joints_2d)
    halved = clips[128, 1].pictures.reshape(2, 64, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(halved - clips[64, 3].pictures).mean() < 6
    assert np.abs(small.pictures.astype(float) - clips[64, 3].pictures).mean() < 10


def test_a_skeleton_with_other_names_is_drawn_as_bones():
    skeleton = Skeleton(["root", "tip"], [-1, 0], [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    motion = Motion(
        skeleton=skeleton,
        rotations=torch.eye(3, dtype=torch.float64).expand(4, 2, 3, 3),
        translation=torch.zeros(4, 3, dtype=torch.float64),
        frame_rate_hz=30.0,
    )
    clip = render_motion(motion, seed=0, spec=SMALL)
    assert clip.visible.all()


def test_where_the_motion_ends_the_body_stands_still():
    motion = procedural_motion("squat", 0, frames=7)
    clip = render_motion(motion, seed=0, spec=RenderSpec(size=16, frames=6))
    joints = clip.joints_camera
    assert np.array_equal(joints[3], joints[5]) and not np.array_equal(joints[2], joints[3])


@pytest.mark.parametrize("view_deg", [10.0, 180.0])
def test_cameras_stand_before_the_body_as_far_as_asked(view_deg):
    """The angle between where the hips face and the camera, seen from above."""
    motion = procedural_motion("turn-left", 3, frames=60, frame_rate_hz=20.0)
    angles = []
    for seed in range(24):  # of a body that has turned by about 90 degrees
        spec = RenderSpec(size=16, frames=2, supersampling=1, view_deg=view_deg)
        clip = render_motion(motion, seed=seed, spec=spec, start_s=1.0)
        left, right = clip.skeleton.hips
        world = clip.joints_camera @ clip.camera.rotation  # but for a translation
        across = (world[:, left] - world[:, right]).mean(0)
        front = np.cross(across, [0.0, 1.0, 0.0])
        back = -clip.camera.rotation[2] * [1.0, 0.0, 1.0]  # from the body to the camera
        cosine = front @ back / np.linalg.norm(front) / np.linalg.norm(back)
        angles.append(np.degrees(np.arccos(cosine)))
    assert 0.7 * view_deg < max(angles) < view_deg + 1e-6
    assert min(angles) < 0.3 * view_deg


# --- Arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"size": 0}, "size must be a multiple of 16 pixels, at least 16, got 0"),
        ({"size": 40}, "size must be a multiple of 16"),
        ({"frames": 0}, "frames must be at least 1, got 0"),
        ({"frame_rate_hz": 0.0}, "frame_rate_hz must be above 0, got 0"),
        ({"frame_rate_hz": math.inf}, "frame_rate_hz must be above 0"),
        ({"frame_rate_hz": math.nan}, "frame_rate_hz must be above 0"),
        ({"supersampling": 0}, "supersampling must be 1 to 4, got 0"),
        ({"view_deg": 0.0}, "view_deg must be above 0 and at most 180 degrees, got 0"),
        ({"view_deg": 181.0}, "view_deg must be above 0 and at most 180 degrees, got 181"),
        ({"supersampling": 5}, "supersampling must be 1 to 4, got 5"),
    ],
)
def test_specs_refuse_values_outside_their_ranges(given, reason):
    with pytest.raises(ValueError, match=reason):
        RenderSpec(**given)


def test_rendering_refuses_bad_seeds_and_starts():
    motion = procedural_motion("squat", 0, frames=30)
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        render_motion(motion, seed=-1, spec=SMALL)
    for start_s in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"the motion lasts 1.000 s; start inside it"):
            render_motion(motion, seed=0, spec=SMALL, start_s=start_s)


# --- Files --------------------------------------------------------------------------------------


def labelled(action, seed, split, frames=60):
    return LabelledMotion(
        motion=procedural_motion(action, seed, frames=frames),
        name=f"{action}_{seed}",
        label=action,
        split=split,
        style="calm",
    )


@pytest.fixture(scope="module")
def motions():
    return [
        labelled("squat", 0, "train"),
        labelled("wave-left-hand", 1, "train"),
        labelled("squat", 2, "val", frames=12),
    ]


SPEC = RenderSpec(size=32, frames=8, frame_rate_hz=10.0, supersampling=1)  # 0.8 s


def test_files_hold_the_clips_and_serve_classification(motions, tmp_path):
    assert write_motion_clips(iter(motions), tmp_path / "new", spec=SPEC, seed=1) == 5
    index = read_index(tmp_path / "new")
    assert index.layout == "splits" and not index.problems
    assert index.classes == ("squat", "wave-left-hand")
    found = [(index.classes[s.label], s.split, s.group) for s in index.samples]
    assert found == [
        ("squat", "train", "squat_0"),
        ("squat", "train", "squat_0"),
        ("wave-left-hand", "train", "wave-left-hand_1"),
        ("wave-left-hand", "train", "wave-left-hand_1"),
        ("squat", "val", "squat_2"),
    ]
    with (tmp_path / "new" / "splits.csv").open() as file:
        assert {row["style"] for row in csv.DictReader(file)} == {"calm"}
    for sample in index.samples:
        assert probe(sample.path).frame_rate_hz == pytest.approx(10.0)
        pictures = [frame.image for frame in iter_frames(sample.path)]
        assert len(pictures) == 8
        with np.load(sample.path.with_suffix(".npz"), allow_pickle=False) as truth:
            data = dict(truth)
        assert data["joints3d"].shape == (8, 21, 3) and data["joints3d"].dtype == np.float32
        assert data["visible"].dtype == bool and data["visible"].shape == (8, 21)
        camera = data["joints3d"]
        projected = data["focal_px"] * camera[..., :2] / camera[..., 2:] + data["centre_px"]
        np.testing.assert_allclose(projected, data["joints2d"], atol=1e-3)
        offsets = data["offsets"][None].repeat(8, 0)
        offsets[:, 0] = data["translation"]
        again, _ = forward_kinematics(
            data["parents"].tolist(), torch.tensor(data["rotations"]), torch.tensor(offsets)
        )
        np.testing.assert_allclose(again.numpy(), camera, atol=1e-5)
        assert data["joint_names"].tolist() == list(motions[0].motion.skeleton.joint_names)
        assert data["times_s"][1] - data["times_s"][0] == pytest.approx(0.1)


def test_a_file_shows_the_clip_that_its_truth_describes(motions, tmp_path):
    write_motion_clips(motions[:1], tmp_path, spec=SPEC, clips_per_motion=1)
    (sample,) = read_index(tmp_path).samples
    pictures = np.stack([frame.image for frame in iter_frames(sample.path)])
    seed = zlib.crc32(b"train/squat/squat_0_00")
    clip = render_motion(motions[0].motion, seed=seed, spec=SPEC, start_s=0.6)
    assert np.abs(pictures.astype(float) - clip.pictures).mean() < 6
    with np.load(sample.path.with_suffix(".npz"), allow_pickle=False) as truth:
        np.testing.assert_allclose(truth["joints3d"], clip.joints_camera, rtol=1e-6)


def test_the_same_seed_writes_the_same_files_whatever_else_is_written(motions, tmp_path):
    write_motion_clips(motions, tmp_path / "a", spec=SPEC, clips_per_motion=1)
    write_motion_clips(motions[1:2], tmp_path / "b", spec=SPEC, clips_per_motion=1)
    write_motion_clips(motions[1:2], tmp_path / "c", spec=SPEC, clips_per_motion=1, seed=1)
    for ending in ("mp4", "npz"):
        name = f"train/wave-left-hand/wave-left-hand_1_00.{ending}"
        a, b, c = ((tmp_path / folder / name).read_bytes() for folder in "abc")
        assert a == b != c


def test_writing_refuses_bad_arguments(motions, tmp_path):
    with pytest.raises(ValueError, match="no motion to render into"):
        write_motion_clips([], tmp_path)
    with pytest.raises(ValueError, match="seed must be at least 0, got -2"):
        write_motion_clips(motions, tmp_path, seed=-2)
    with pytest.raises(ValueError, match="clips_per_motion must be at least 1"):
        write_motion_clips(motions, tmp_path, clips_per_motion=0)
    with pytest.raises(ValueError, match="two motions of val/squat are named squat_2; rename"):
        write_motion_clips([motions[2]] * 2, tmp_path, spec=SPEC)
    with pytest.raises(DatasetError, match="holds no clips"):
        read_index(tmp_path)


@pytest.mark.parametrize("table", ["path,content,style,split\na.bvh,a,b,train\n", "\xff", ""])
def test_no_other_list_is_replaced(motions, tmp_path, table):
    """Such as that of motion capture, where clips are written into its folder."""
    (tmp_path / "splits.csv").write_text(table)
    with pytest.raises(ValueError, match=r"splits\.csv lists other .*another folder"):
        write_motion_clips(motions, tmp_path, spec=SPEC)
    assert [path.name for path in tmp_path.iterdir()] == ["splits.csv"]
    assert (tmp_path / "splits.csv").read_text() == table


def test_what_was_interrupted_is_not_listed(motions, tmp_path):
    def interrupted():
        yield motions[0]
        raise KeyboardInterrupt

    write_motion_clips(motions, tmp_path, spec=SPEC, clips_per_motion=1)
    with pytest.raises(ValueError, match="no motion to render into"):
        write_motion_clips([], tmp_path)
    assert (tmp_path / "splits.csv").exists()  # as no clip has changed
    with pytest.raises(KeyboardInterrupt):
        write_motion_clips(interrupted(), tmp_path, spec=SPEC, clips_per_motion=1, seed=1)
    with pytest.raises(DatasetError, match="holds no clips"):  # nor are folders taken for classes
        read_index(tmp_path)
    assert write_motion_clips(motions, tmp_path, spec=SPEC, clips_per_motion=1) == 3
    assert len(read_index(tmp_path).samples) == 3


def test_recorded_motion_is_rendered_with_its_joints_in_the_picture(shared_data):
    rows = read_mocap_table(shared_data / "mocap")
    assert {row.split for row in rows} >= {"train", "val"}
    for row in itertools.islice(rows, 0, None, 130):
        item = row.load()
        clip = render_motion(item.motion, seed=0, spec=SMALL, start_s=0.5)
        assert clip.skeleton.joint_names[0] == "Hips" and len(clip.skeleton.parents) == 21
        assert ((clip.joints_2d >= 0) & (clip.joints_2d < 64)).all()
        assert clip.visible.mean() > 0.4
        lengths = bone_lengths(clip)
        np.testing.assert_allclose(lengths, lengths[:1].repeat(6, 0), rtol=1e-9)
