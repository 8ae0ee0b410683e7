"""Skeletons drawn: over the pictures where the joints are seen, and from the side."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spikevideoformer.models.spikevideoformer import create_model
from spikevideoformer.synth.motions import procedural_motion, standing_skeleton
from spikevideoformer.synth.render import RenderedClip, render_motion
from spikevideoformer.synth.spec import RenderSpec
from spikevideoformer.tasks.pose.answer import PosePrediction, TrackedFrame
from spikevideoformer.tasks.pose.draw import (
    LEFT,
    MIDDLE,
    RIGHT,
    RIM,
    SIDE_GROUND,
    SIDE_HEIGHT,
    SIDE_WIDTH,
    draw_bones,
    overlaid,
    side_views,
    write_side_view,
)
from spikevideoformer.tasks.pose.predictor import PoseTracker
from spikevideoformer.tasks.pose.spec import PoseSpec
from spikevideoformer.video.frames import (
    Pictures,
    VideoError,
    check_decodes,
    iter_frames,
    write_video,
)

FRAMES, RATE_HZ = 9, 30.0
BODY = standing_skeleton()


@pytest.fixture(scope="module")
def clip() -> RenderedClip:
    motion = procedural_motion("wave-left-hand", 0, frames=20, frame_rate_hz=RATE_HZ)
    spec = RenderSpec(size=96, frames=FRAMES, frame_rate_hz=RATE_HZ, supersampling=1)
    return render_motion(motion, seed=3, spec=spec)


@pytest.fixture(scope="module")
def video(clip: RenderedClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("poses") / "wave.mp4"
    write_video(path, clip.pictures, RATE_HZ)
    return path


class Knowing(PoseTracker):
    """Finds the poses that were drawn."""

    clip_drawn: RenderedClip

    def _answers(self, pictures: Pictures) -> Iterator[TrackedFrame]:
        for i, frame in enumerate(super()._answers(pictures)):
            known = tracked(self.clip_drawn, i % FRAMES)
            yield replace(frame, joints=known.joints, points=known.points)


@pytest.fixture(scope="module")
def tracker(clip: RenderedClip) -> Knowing:
    model = create_model("svf_nano", task="pose", body=BODY)
    found = Knowing(model, clip=PoseSpec(frames=4, size=32), device="cpu", engine="model")
    found.clip_drawn = clip
    return found


def tracked(clip: RenderedClip, i: int) -> TrackedFrame:
    return TrackedFrame(
        timestamp_s=i / RATE_HZ,
        duration_s=1 / RATE_HZ,
        image=clip.pictures[i],
        joints=clip.joints_camera[i].astype(np.float32),
        points=clip.joints_2d[i].astype(np.float32),
        rotations=clip.rotations[i].astype(np.float32),
        translation=clip.translation[i].astype(np.float32),
        shape=clip.shape.astype(np.float32),
        firing_rate=None,
    )


def side_of(joint: int) -> tuple[int, int, int]:
    name = BODY.joint_names[joint]
    return LEFT if name.endswith("_L") else RIGHT if name.endswith("_R") else MIDDLE


def drawn(points: np.ndarray, near: np.ndarray | None = None, size: int = 100) -> np.ndarray:
    picture = np.zeros((size, size, 3), np.uint8)
    near = np.zeros(len(points)) if near is None else near
    draw_bones(picture, points, near, BODY, 5.0)
    return picture


def joint(name: str) -> int:
    return BODY.joint_names.index(name)


def one_bone(name: str, start: tuple[float, float], end: tuple[float, float]) -> np.ndarray:
    """Points of which only this joint and its parent are known."""
    points = np.full((len(BODY.parents), 2), np.nan)
    points[BODY.parents[joint(name)]], points[joint(name)] = start, end
    return points


# --- Lines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "colour"), [("LowerArm_L", LEFT), ("LowerArm_R", RIGHT), ("Neck", MIDDLE)]
)
def test_bones_have_the_colour_of_their_side(name: str, colour: tuple[int, int, int]) -> None:
    picture = drawn(one_bone(name, (20, 50), (80, 50)))
    core = (picture == colour).all(-1)
    rows, columns = np.nonzero(core)
    assert (rows.min(), rows.max()) == (48, 51)  # five wide: between 47.5 and 52.5
    assert (columns.min(), columns.max()) == (18, 81)  # with round ends
    assert core[48:52, 20:80].all()
    # a pixel at the edge is half covered, and beyond is the rim
    assert picture[47, 30] == pytest.approx((np.array(colour) + RIM) / 2, abs=1)
    assert 0 < picture[46, 30].max() <= max(RIM)
    assert picture[40, 30].tolist() == [0, 0, 0]


def test_near_bones_hide_far_ones() -> None:
    near = np.zeros(len(BODY.parents))
    points = one_bone("LowerArm_L", (20, 50), (80, 50))
    points[[joint("UpperArm_R"), joint("LowerArm_R")]] = (50, 20), (50, 80)
    for side, colour in (("L", LEFT), ("R", RIGHT)):
        near[:] = 0
        near[joint(f"LowerArm_{side}")] = 1.0
        assert tuple(drawn(points, near)[50, 50]) == colour


@pytest.mark.parametrize(
    "end",
    [(1e9, 50.0), (-1e9, -1e9), (np.nan, 50.0), (np.inf, 3.0), (20.0, 50.0), (50.0, -1e4)],
)
def test_joints_anywhere(end: tuple[float, float]) -> None:
    picture = drawn(one_bone("LowerArm_L", (20, 50), end))
    assert picture.any() == np.isfinite(end).all()


def test_a_body_outside_leaves_the_picture_as_it_is() -> None:
    points = np.random.default_rng(0).uniform(120, 900, (len(BODY.parents), 2))
    assert not drawn(points).any()
    assert not drawn(-points).any()


# --- Over the pictures ----------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "factor"), [(32, 8), (96, 3), (255, 2), (256, 1), (400, 1)])
def test_small_pictures_are_enlarged(clip: RenderedClip, size: int, factor: int) -> None:
    frame = tracked(clip, 0)
    image = np.zeros((size, size + 7, 3), np.uint8)
    picture = overlaid(replace(frame, image=image), BODY)
    assert picture.shape == (factor * size, factor * (size + 7), 3)
    assert not image.any()  # what is drawn on is a copy


def test_bones_are_where_joints_are_seen(clip: RenderedClip) -> None:
    frame = tracked(clip, 4)
    picture = overlaid(frame, BODY)
    hits = [
        tuple(picture[int(y), int(x)]) == side_of(j)
        for j, (parent, end) in enumerate(zip(BODY.parents, frame.points, strict=True))
        if parent >= 0
        for x, y in [3 * (0.4 * frame.points[parent] + 0.6 * end)]
    ]
    assert sum(hits) > 0.7 * len(hits)  # others are hidden by nearer bones
    assert np.mean((picture != frame.image.repeat(3, 0).repeat(3, 1)).any(-1)) < 0.3


def test_overlay_is_written_in_one_pass(
    tracker: Knowing, video: Path, clip: RenderedClip, tmp_path: Path
) -> None:
    told: list[tuple[int, int | None]] = []
    out = tmp_path / "wave.svf.mp4"
    result, written = tracker.write(video, out, progress=lambda *counts: told.append(counts))
    assert told == [(done, FRAMES) for done in range(1, FRAMES + 1)]
    np.testing.assert_array_equal(result.joints, clip.joints_camera.astype(np.float32))
    assert result.path == str(video)
    names = [path.name for path in map(Path, written.values())]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert names[0] == "wave.svf.mp4"
    info = check_decodes(out)
    assert (info.decoded_frames, info.width, info.height) == (FRAMES, 288, 288)
    assert info.frame_rate_hz == pytest.approx(RATE_HZ)
    sources = iter_frames(video)
    for i, (source, written) in enumerate(zip(sources, iter_frames(out), strict=True)):
        expected = overlaid(replace(tracked(clip, i), image=source.image), BODY)
        assert np.abs(written.image.astype(int) - expected).mean() < 8  # encoding blurs
        blue = written.image[..., 2].astype(int) - written.image[..., 0] > 90
        assert blue.sum() > 100


def test_overlay_at_the_rate_of_the_model(tracker: Knowing, video: Path, tmp_path: Path) -> None:
    spec = PoseSpec(frames=4, size=32, frame_rate_hz=10.0)
    slow = PoseTracker(tracker.model, clip=spec, device="cpu", engine="model")
    result, _ = slow.write(video, tmp_path / "out.mp4")
    info = check_decodes(tmp_path / "out.mp4")
    assert info.frame_rate_hz == pytest.approx(10.0)
    assert info.decoded_frames == len(result.timestamps_s) == 3


def test_damaged_video_leaves_nothing(tracker: Knowing, video: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[:-400])
    with pytest.raises(VideoError):
        tracker.write(cut, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["cut.mp4"]


def test_interruption_leaves_what_is_done(
    tracker: Knowing, clip: RenderedClip, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupt(done: int, total: int | None) -> None:
        if done == 28:
            raise KeyboardInterrupt

    video, out, part = (tmp_path / name for name in ("long.mp4", "out.mp4", "out.part.mp4"))
    write_video(video, np.tile(clip.pictures, (4, 1, 1, 1)), 10.0)
    with caplog.at_level(logging.INFO), pytest.raises(KeyboardInterrupt):
        tracker.write(video, out, progress=interrupt)
    assert str(part) in caplog.text
    assert 1 <= check_decodes(part).decoded_frames <= 28
    assert not out.exists()
    tracker.write(video, out)
    assert not part.exists()
    assert check_decodes(out).decoded_frames == 4 * FRAMES


# --- From the side --------------------------------------------------------------------------------


def prediction(joints: np.ndarray) -> PosePrediction:
    count = len(joints)
    return PosePrediction(
        path=None,
        duration_s=count / RATE_HZ,
        joint_names=BODY.joint_names,
        parents=BODY.parents,
        timestamps_s=tuple(i / RATE_HZ for i in range(count)),
        joints=joints.astype(np.float32),
        points=np.zeros((*joints.shape[:2], 2), np.float32),
        rotations=np.zeros((*joints.shape, 3), np.float32),
        translation=joints[:, 0].astype(np.float32),
        shape=np.zeros((count, BODY.num_shape), np.float32),
        focal_px=100.0,
        firing_rate=None,
        firing_rate_per_frame=None,
        engine="model",
    )


def test_uneven_times_are_evened_out_for_motion_capture():
    """At 0, 1 and 4 units of time: a BVH file has one rate, and the body is where it was then."""
    joints = np.zeros((3, len(BODY.joint_names), 3))
    joints[:, :, 0] = np.array([0.0, 1.0, 4.0])[:, None]
    even = prediction(joints)
    even = replace(even, rotations=np.tile(np.eye(3, dtype=np.float32), (*joints.shape[:2], 1, 1)))
    uneven = replace(even, timestamps_s=(0.0, 0.1, 0.4), duration_s=0.5)
    assert even.motion(BODY).translation[:, 0].tolist() == [0.0, 1.0, 4.0]
    motion = uneven.motion(BODY)
    assert motion.frame_rate_hz == pytest.approx(5.0)
    assert motion.translation[:, 0].tolist() == pytest.approx([0.0, 2.0, 4.0])
    stands = replace(even, timestamps_s=(0.2, 0.2, 0.2), duration_s=0.3)
    assert stands.motion(BODY).frame_rate_hz == pytest.approx(10.0)


def views(joints: np.ndarray) -> list[np.ndarray]:
    return list(side_views(((0.0, frame) for frame in joints), joints, BODY))


def extent(picture: np.ndarray) -> tuple[int, int, int, int]:
    """Of what is coloured as a side of the body: top, bottom, left, right."""
    rows, columns = np.nonzero((picture == LEFT).all(-1) | (picture == RIGHT).all(-1))
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_far_is_right_and_up_is_up() -> None:
    """A body that faces the camera from 4 m; then its left hand is farther, its head higher."""
    rest = BODY.joints(torch.eye(3).expand(len(BODY.parents), 3, 3), torch.zeros(3)).numpy()
    joints = np.stack([rest * (1, -1, -1) + (0, 0, 4)] * 3)
    joints[1, joint("Hand_L")] += (0, 0, 0.6)
    joints[2, joint("Head")] -= (0, 0.3, 0)
    still, away, up = views(joints)
    blue = [np.nonzero((p == LEFT).all(-1))[1].max() for p in (still, away)]
    assert blue[1] - blue[0] > 30
    white = [np.nonzero((p == MIDDLE).all(-1))[0].min() for p in (still, up)]
    assert white[1] < white[0] - 30
    assert extent(still)[1] == pytest.approx(SIDE_HEIGHT - SIDE_GROUND, abs=6)


def test_the_view_has_all_of_the_motion_and_its_scale(clip: RenderedClip) -> None:
    """A body that walks 3 m away: the bar says how many pixels a metre has."""
    joints = np.stack([clip.joints_camera[0] + (0, 0, z) for z in (0.0, 1.5, 3.0)])
    pictures = views(joints)
    assert all(picture.shape == (SIDE_HEIGHT, SIDE_WIDTH, 3) for picture in pictures)
    lefts = [extent(picture)[2] for picture in pictures]
    assert lefts[0] > 20
    assert extent(pictures[2])[3] < SIDE_WIDTH - 20
    foot = pictures[0][SIDE_HEIGHT - SIDE_GROUND // 2]  # the row of the bar
    light = np.nonzero((foot > 200).all(-1))[0]
    bar = np.split(light, np.nonzero(np.diff(light) > 3)[0] + 1)[0]
    metre = bar.max() - bar.min()
    assert lefts[2] - lefts[0] == pytest.approx(3 * metre, abs=6)
    assert lefts[1] - lefts[0] == pytest.approx(1.5 * metre, abs=6)
    # of all that is not the body nothing changes
    still = (pictures[0] == pictures[2]).all(-1)
    assert still[SIDE_HEIGHT - SIDE_GROUND + 8 :].all()


def test_a_body_that_is_a_point_can_be_drawn() -> None:
    (picture,) = views(np.zeros((1, len(BODY.parents), 3)))
    assert picture.shape == (SIDE_HEIGHT, SIDE_WIDTH, 3)


def test_side_view_is_written(clip: RenderedClip, tmp_path: Path) -> None:
    out = tmp_path / "wave.side.mp4"
    write_side_view(prediction(clip.joints_camera), BODY, out)
    assert [path.name for path in tmp_path.iterdir()] == ["wave.side.mp4"]
    info = check_decodes(out)
    assert (info.decoded_frames, info.width, info.height) == (FRAMES, SIDE_WIDTH, SIDE_HEIGHT)
    assert info.frame_rate_hz == pytest.approx(RATE_HZ)
    expected = views(clip.joints_camera)
    for frame, picture in zip(iter_frames(out), expected, strict=True):
        assert np.abs(frame.image.astype(int) - picture).mean() < 4
        assert (np.abs(frame.image.astype(int) - LEFT).max(-1) < 60).sum() > 50
