"""Poses as a stream: those of evaluation in training, whatever the length, the rate and the input.

The videos are rendered motions, written as mp4.
"""

import io
import json
import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from spikevideoformer.body.bvh import read_bvh, write_bvh
from spikevideoformer.body.rotations import matrix_from_axis_angle
from spikevideoformer.body.skeleton import Skeleton
from spikevideoformer.body.stored import AbsentSmpl
from spikevideoformer.events.spec import EventView
from spikevideoformer.files import write_atomically
from spikevideoformer.inference.answer import FailedPrediction
from spikevideoformer.models.heads import part_of
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, create_model
from spikevideoformer.nn.neuron import record_firing_rates
from spikevideoformer.synth.motions import procedural_motion, standing_skeleton
from spikevideoformer.synth.render import RenderedClip, render_motion
from spikevideoformer.synth.spec import RenderSpec
from spikevideoformer.tasks.classification.predictor import VideoPredictor
from spikevideoformer.tasks.pose.answer import PosePrediction
from spikevideoformer.tasks.pose.dataset import PoseDataset
from spikevideoformer.tasks.pose.follow import Follower, overlap
from spikevideoformer.tasks.pose.head import pose_from_output
from spikevideoformer.tasks.pose.predictor import PoseTracker
from spikevideoformer.tasks.pose.sequence import PoseIndex, PoseSequence, PoseTruth
from spikevideoformer.tasks.pose.spec import PoseSpec
from spikevideoformer.tasks.pose.square import MOST_SIDE, Square
from spikevideoformer.video.frames import VideoError, iter_frames, write_video
from spikevideoformer.video.spec import ClipSpec

from ...lively import random_norms
from ...video.clips import encode
from .poses import random_smpl

FRAMES, RATE_HZ = 11, 30.0
SPEC = PoseSpec(frames=4, size=32)
SPECS = {
    "rgb": SPEC,  # 11 frames: three windows, the last of which begins a frame earlier
    "grey at half the rate": replace(SPEC, input="grey", frame_rate_hz=15.0),
    "events": replace(SPEC, input="events"),
    "events at a third of the rate": replace(SPEC, frames=2, input="events", frame_rate_hz=10.0),
    "poses between": replace(SPEC, input="events", poses="between"),
    "poses between at half the rate": replace(
        SPEC, frames=2, input="events", poses="between", frame_rate_hz=15.0
    ),
}


def lively_model(
    spec: PoseSpec = SPEC, body: nn.Module | None = None, **options: str
) -> SpikeVideoFormer:
    """Batch norms as after training, so that neurons fire, and poses differ from frame to frame."""
    torch.manual_seed(0)
    model = create_model(
        "svf_nano",
        task="pose",
        body=body or standing_skeleton(),
        in_channels=spec.in_channels,
        **({"readout": "membrane", "poses": spec.poses} | options),
    )
    random_norms(model)
    nn.init.normal_(model.head.fc.weight, std=0.004)
    model.clip = spec.to_dict()
    return model.eval()


@pytest.fixture(scope="module")
def tracker() -> PoseTracker:
    return PoseTracker(lively_model(), device="cpu", engine="model")


@pytest.fixture(scope="module")
def clip() -> RenderedClip:
    motion = procedural_motion("walk-in-place", 0, frames=20, frame_rate_hz=RATE_HZ)
    spec = RenderSpec(size=48, frames=FRAMES, frame_rate_hz=RATE_HZ, supersampling=1)
    return render_motion(motion, seed=1, spec=spec)


@pytest.fixture(scope="module")
def video(clip: RenderedClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("poses") / "walk.mp4"
    write_video(path, clip.pictures, RATE_HZ)
    return path


def pictures(video: Path) -> np.ndarray:
    return np.stack([frame.image for frame in iter_frames(video)])


def by_dataset(
    model: SpikeVideoFormer, video: Path, clip: RenderedClip, spec: PoseSpec, frames: int = FRAMES
) -> dict[str, torch.Tensor]:
    """Poses of the frames as evaluation in training finds them."""
    focal = float(clip.camera.focal_px)
    truth = PoseTruth(
        joints=clip.joints_camera[:frames].astype(np.float32),
        points=clip.joints_2d[:frames].astype(np.float32),
        focal_px=(focal, focal),
        centre_px=clip.camera.centre_px,
    )
    sequence = PoseSequence(
        name="walk", action="walk", split="val", pictures=video, frame_rate_hz=RATE_HZ, truth=truth
    )
    body = model.body
    index = PoseIndex(
        root=video.parent,
        layout="rendered",
        joint_names=body.joint_names,
        parents=body.parents,
        sequences=(sequence,),
    )
    dataset = PoseDataset(index, spec, body)
    found: dict[str, list[torch.Tensor]] = {}
    for i in range(len(dataset)):
        item = dataset[i]
        with torch.no_grad(), record_firing_rates(model) as rates:
            output = part_of(model(item.video[None]), 0)
            pose = pose_from_output(
                output, body, size=spec.size, focal_px=item.focal_px, centre_px=item.centre_px
            )
        firing = torch.stack(list(rates.per_frame.values())).mean((0, 2))
        firing = firing[[0, *range(spec.frames)]] if spec.poses == "between" else firing
        for name, values in (vars(pose) | {"firing": firing}).items():
            found.setdefault(name, []).append(values[item.fresh])
    return {name: torch.cat(values) for name, values in found.items()}


# --- What is found --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECS)
def test_poses_are_those_of_evaluation(name: str, video: Path, clip: RenderedClip) -> None:
    spec = SPECS[name]
    model = lively_model(spec)
    focal = float(clip.camera.focal_px)
    tracker = PoseTracker(model, device="cpu", engine="model", focal_px=focal)
    result = tracker.predict(video)
    expected = by_dataset(model, video, clip, spec)
    step = spec.step(RATE_HZ)
    assert isinstance(result, PosePrediction)
    assert len(result.joints) == math.ceil(FRAMES / step)
    for field in ("joints", "rotations", "translation", "shape"):
        np.testing.assert_allclose(getattr(result, field), expected[field], rtol=1e-5, atol=1e-6)
    assert result.firing_rate_per_frame == pytest.approx(expected["firing"].tolist(), abs=1e-6)
    assert result.firing_rate == pytest.approx(expected["firing"].mean().item(), abs=1e-6)
    assert 0.01 < result.firing_rate < 1
    assert np.abs(np.diff(result.joints, axis=0)).max() > 0.01  # frames differ
    np.testing.assert_allclose(result.points, clip.camera.project(result.joints), rtol=1e-4)
    times = [i * step / RATE_HZ for i in range(len(result.joints))]
    assert result.timestamps_s == pytest.approx(times, abs=1e-4)
    assert result.frame_rate_hz == pytest.approx(RATE_HZ / step, rel=1e-3)
    assert result.duration_s == pytest.approx(FRAMES / RATE_HZ, rel=1e-3)
    assert result.focal_px == focal
    assert result.joint_names == model.body.joint_names
    assert result.parents == model.body.parents
    assert (result.path, result.engine) == (str(video), "model")


def test_joints_that_were_seen_pose_the_body(video: Path, tmp_path: Path) -> None:
    """A head with maps: joints as they are seen, and a skeleton that comes near them."""
    model = lively_model(readout="spike", pose_head="heatmap")
    nn.init.normal_(model.head.fc.weight, std=0.3)
    result = PoseTracker(model, device="cpu").predict(video)
    bones = result.joints - result.joints[:, [max(p, 0) for p in result.parents]]
    rest = model.body.offsets.norm(dim=-1).numpy()
    lengths = np.exp(result.shape) * rest
    np.testing.assert_allclose(lengths[:, 1:], np.linalg.norm(bones, axis=-1)[:, 1:], rtol=1e-4)
    np.testing.assert_allclose(result.translation, result.joints[:, 0], rtol=1e-5)
    own = model.body.joints(*map(torch.tensor, (result.rotations, result.translation)))
    assert np.isfinite(own.numpy()).all()
    write_bvh(tmp_path / "walk.bvh", result.motion(model.body))
    assert len(read_bvh(tmp_path / "walk.bvh").rotations) == FRAMES


@pytest.mark.parametrize("name", ["rgb", "events", "poses between"])
@pytest.mark.parametrize("count", [1, 3, 4, 5, 8])
def test_videos_of_few_frames(name: str, count: int, clip: RenderedClip, tmp_path: Path) -> None:
    path = tmp_path / "short.mkv"
    write_video(path, clip.pictures[:count], RATE_HZ, codec="ffv1")
    model = lively_model(SPECS[name])
    tracker = PoseTracker(model, device="cpu", engine="model", focal_px=float(clip.camera.focal_px))
    result = tracker.predict(path)
    expected = by_dataset(model, path, clip, SPECS[name], frames=count)
    assert len(result.timestamps_s) == count
    np.testing.assert_allclose(result.joints, expected["joints"], rtol=1e-5, atol=1e-6)
    assert result.frame_rate_hz == pytest.approx(RATE_HZ, rel=0.03)


def test_recordings_with_poses_between(tmp_path: Path) -> None:
    """A frame of the network has the events of the pictures from one pose to the next."""
    rng = np.random.default_rng(0)
    columns = {"x": rng.integers(0, 32, 2000), "y": rng.integers(0, 32, 2000)}
    columns |= {"t_s": np.sort(rng.uniform(0, 0.5, 2000)), "p": rng.integers(0, 2, 2000)}
    columns["t_s"][0] = 0
    np.savez(tmp_path / "r.npz", **columns, height=32, width=32)
    spec = replace(SPECS["poses between"], events=EventView(rate_hz=10.0))
    model = lively_model(spec)
    seen = []
    model.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    tracker = PoseTracker(model, device="cpu", engine="model")
    assert len(tracker.predict(tmp_path / "r.npz").joints) == 5
    (clip,) = seen  # [1, 4, 2, 32, 32]
    for frame in range(4):
        inside = (columns["t_s"] >= 0.1 * (frame + 1)) & (columns["t_s"] < 0.1 * (frame + 2))
        assert float(clip[0, frame].sum()) == inside.sum() > 0


def test_clips_with_other_poses_than_the_network(video: Path) -> None:
    model = lively_model(SPECS["poses between"])
    with pytest.raises(ValueError, match="the network has poses between, and clips are made with"):
        PoseTracker(model, clip=SPECS["events"], device="cpu")


def test_frames_are_shown_until_the_next(video: Path) -> None:
    spec = replace(SPEC, frame_rate_hz=7.5)  # every fourth of eleven pictures
    tracker = PoseTracker(lively_model(spec), device="cpu", engine="model")
    frames = list(tracker.track(video))
    assert [f.duration_s * RATE_HZ for f in frames] == pytest.approx([4, 4, 3], abs=0.01)
    assert np.array_equal(np.stack([f.image for f in frames]), pictures(video)[::4])


@pytest.mark.parametrize("engine", ["exact", "int8"])
def test_engines(tracker: PoseTracker, video: Path, engine: str) -> None:
    expected = tracker.predict(video)
    result = PoseTracker(tracker.model, device="cpu", engine=engine).predict(video)
    assert result.engine == engine
    if engine == "exact":
        assert result.firing_rate_per_frame == expected.firing_rate_per_frame
        np.testing.assert_allclose(result.joints, expected.joints, rtol=1e-4, atol=1e-4)
    else:
        assert result.firing_rate == pytest.approx(expected.firing_rate, rel=0.1)
        assert 0 < np.abs(result.joints - expected.joints).mean() < 0.3


# --- The camera and the box -----------------------------------------------------------------------


def test_the_view_sets_the_distance(tracker: PoseTracker, video: Path) -> None:
    """The root stays where it is in the picture, and depth goes with the focal length."""
    usual = tracker.predict(video)
    assert usual.focal_px == pytest.approx(24 / math.tan(math.radians(27.5)))
    wide = PoseTracker(tracker.model, device="cpu", engine="model", field_of_view_deg=90)
    other = wide.predict(video)
    assert other.focal_px == pytest.approx(24)
    ratio = other.joints[:, 0, 2] / usual.joints[:, 0, 2]
    assert ratio == pytest.approx(24 / usual.focal_px, rel=1e-5)
    np.testing.assert_allclose(other.points[:, 0], usual.points[:, 0], rtol=1e-4)
    np.testing.assert_array_equal(other.rotations, usual.rotations)


@pytest.mark.parametrize("left", [3, -10])
def test_a_box_is_what_is_seen(tracker: PoseTracker, video: Path, left: int) -> None:
    """As the same square cut out before, but for where it is in the picture."""
    frames = pictures(video)
    square = Square(left=left, top=5, side=32)
    boxed = PoseTracker(
        tracker.model, device="cpu", engine="model", box=(left, 5, 32), focal_px=50.0
    )
    found = boxed.predict(frames, frame_rate_hz=RATE_HZ)
    margin = (255 * torch.tensor(SPEC.mean)).round()
    cut = square.cut(torch.from_numpy(frames), 32, margin).permute(0, 2, 3, 1)
    plain = PoseTracker(tracker.model, device="cpu", engine="model", focal_px=50.0)
    expected = plain.predict(cut, frame_rate_hz=RATE_HZ)
    np.testing.assert_array_equal(found.rotations, expected.rotations)
    np.testing.assert_allclose(
        found.points[:, 0], expected.points[:, 0] + (left, 5), rtol=1e-4, atol=1e-3
    )
    assert not np.array_equal(found.rotations, tracker.predict(video).rotations)


def test_joints_behind_the_camera_have_no_point(video: Path) -> None:
    """A body so near that the far end of its first bone is behind the camera."""
    long = Skeleton(["root", "tip"], [-1, 0], [[0.0, 0.0, 0.0], [0.0, 0.0, -40.0]])
    result = PoseTracker(lively_model(body=long), device="cpu").predict(video)
    behind = result.joints[..., 2] < 0
    assert behind.any()
    assert not behind[:, 0].any()
    assert np.array_equal(np.isnan(result.points).all(-1), behind)
    written = json.loads(json.dumps(result.to_dict(), allow_nan=False))["points_px"]
    np.testing.assert_allclose(np.array(written, float), result.points, atol=0.006)


# --- What is written ------------------------------------------------------------------------------


def test_json_is_in_millimetres(tracker: PoseTracker, video: Path) -> None:
    result = tracker.predict(video)
    about = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert list(about) == (
        "path duration_s engine firing_rate distance unlike_training focal_px joint_names parents"
        " timestamps_s joints_mm points_px rotation_vectors_rad translation_mm shape".split()
    )
    assert about["timestamps_s"] == list(result.timestamps_s)
    assert about["joint_names"] == list(tracker.body.joint_names)
    assert about["parents"] == list(tracker.body.parents)
    np.testing.assert_allclose(about["joints_mm"], 1000 * result.joints, atol=0.06)
    np.testing.assert_allclose(about["points_px"], result.points, atol=0.006)
    np.testing.assert_allclose(about["translation_mm"], 1000 * result.translation, atol=0.06)
    np.testing.assert_allclose(about["shape"], result.shape, atol=1e-5)
    turned = matrix_from_axis_angle(torch.tensor(about["rotation_vectors_rad"]))
    np.testing.assert_allclose(turned, result.rotations, atol=1e-4)
    # the same, written frame by frame
    written = io.BytesIO()
    result.write_json(written)
    assert written.getvalue().count(b"\n") == 1
    assert json.loads(written.getvalue()) == about


def test_json_that_cannot_be_written_leaves_what_was_there(
    tracker: PoseTracker, video: Path, tmp_path: Path
) -> None:
    """JSON knows no infinity; the error comes when much is written already."""
    result = tracker.predict(video)
    shape = result.shape.copy()
    shape[-1] = np.inf
    path = tmp_path / "a.json"
    for before in ([], ["a.json"]):
        with pytest.raises(ValueError, match="JSON"):
            write_atomically(path, replace(result, shape=shape).write_json)
        assert [path.name for path in tmp_path.iterdir()] == before
        write_atomically(path, result.write_json)
        assert json.loads(path.read_text())["path"] == str(video)


@pytest.mark.parametrize("kind", ["skeleton", "smpl"])
def test_motion_as_a_file(kind: str, video: Path, tmp_path: Path) -> None:
    """Read back it is the prediction with the mean shape, turned upright."""
    body = standing_skeleton() if kind == "skeleton" else random_smpl()
    result = PoseTracker(lively_model(body=body), device="cpu").predict(video)
    assert result.shape.std(0).max() > 1e-4
    write_bvh(tmp_path / "walk.bvh", result.motion(body))
    motion = read_bvh(tmp_path / "walk.bvh")
    shape = torch.from_numpy(result.shape).mean(0)
    joints = body.joints(
        torch.from_numpy(result.rotations), torch.from_numpy(result.translation), shape
    ).numpy()
    joints += result.joints[:, :1] - joints[:, :1]
    own = [motion.skeleton.joint_names.index(name) for name in body.joint_names]
    np.testing.assert_allclose(motion.joints()[:, own], joints * (1, -1, -1), atol=1e-4)
    assert motion.frame_rate_hz == pytest.approx(RATE_HZ, rel=1e-3)
    lengths = np.linalg.norm(np.diff(motion.joints().numpy()[:, :2], axis=1), axis=-1)
    assert np.ptp(lengths) < 1e-4  # bones do not change


def test_motion_of_another_body(tracker: PoseTracker, video: Path) -> None:
    result = tracker.predict(video)
    with pytest.raises(ValueError, match=r"other joints than the prediction; give tracker\.body"):
        result.motion(random_smpl())


# --- Settings -------------------------------------------------------------------------------------


def test_smpl_needs_its_file(video: Path, tmp_path: Path) -> None:
    lively_model(body=random_smpl()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"give your own with --body smpl\.safetensors"):
        VideoPredictor.from_pretrained(tmp_path, device="cpu")
    given = PoseTracker.from_pretrained(tmp_path, device="cpu", body=random_smpl())
    assert isinstance(given.model.body, AbsentSmpl)
    own = PoseTracker(lively_model(body=random_smpl()), device="cpu")
    np.testing.assert_array_equal(given.predict(video).joints, own.predict(video).joints)
    with pytest.raises(ValueError, match="give the body that the model was trained with"):
        PoseTracker.from_pretrained(tmp_path, device="cpu", body=standing_skeleton())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"field_of_view_deg": 50, "focal_px": 40.0}, "say the same; give one of them"),
        ({"field_of_view_deg": math.nan}, "field_of_view_deg is nan; it must be above 0"),
        ({"field_of_view_deg": 180}, "field_of_view_deg is 180; it must be above 0 and below 180"),
        ({"field_of_view_deg": 0}, "field_of_view_deg is 0; it must be above 0"),
        ({"focal_px": math.inf}, "focal_px is inf; it must be above 0"),
        ({"focal_px": -3.0}, r"focal_px is -3\.0; it must be above 0"),
        ({"box": (0, 0, 1)}, r"box is \(0, 0, 1\); give left, top and side"),
        ({"box": (0, 0)}, r"box is \(0, 0\); give left, top and side"),
        ({"clip": ClipSpec(frames=2, size=32)}, "clip is a ClipSpec; pose takes a PoseSpec"),
        ({"engine": "magic"}, "engine 'magic' is unknown"),
    ],
)
def test_wrong_settings(tracker: PoseTracker, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PoseTracker(tracker.model, device="cpu", **settings)


@pytest.mark.parametrize("box", [(48, 0, 20), (0, 48, 20), (-20, 0, 20), (0, -20, 20)])
def test_boxes_outside_of_the_picture(
    tracker: PoseTracker, video: Path, box: tuple[int, int, int]
) -> None:
    aside = PoseTracker(tracker.model, device="cpu", engine="model", box=box)
    message = "lies outside of the picture of 48x48 pixels; give one"
    with pytest.raises(ValueError, match=message) as error:
        aside.track(np.zeros((2, 48, 48, 3), np.uint8), frame_rate_hz=RATE_HZ)
    assert not isinstance(error.value, VideoError)
    (failure,) = aside.predict_many(video)  # of many videos it may be outside of one only
    assert isinstance(failure, FailedPrediction)
    assert failure.path == str(video)
    assert message in failure.reason


def test_a_box_far_larger_than_the_picture(tracker: PoseTracker, video: Path) -> None:
    for side, fits in ((MOST_SIDE * 48, True), (MOST_SIDE * 48 + 1, False), (10**9, False)):
        wide = PoseTracker(tracker.model, device="cpu", engine="model", box=(0, 0, side))
        if fits:
            assert len(list(wide.track(video))) == FRAMES
        else:
            with pytest.raises(VideoError, match=r"more than 4 times as large as the picture"):
                wide.track(video)


def test_a_model_that_gives_nan(tracker: PoseTracker, video: Path) -> None:
    for number in (-1, 6 * (len(tracker.body.parents) - 1)):  # the depth; how a leaf is turned
        model = lively_model()
        broken = PoseTracker(model, device="cpu", engine="model")
        with torch.no_grad():
            model.head.fc.bias[number] = torch.nan
        with pytest.raises(ValueError, match="outputs of the model are NaN or infinite"):
            broken.predict(video)


def test_a_still_square_around_a_person_is_asked_for(
    tracker: PoseTracker, caplog: pytest.LogCaptureFixture
) -> None:
    spec = replace(SPEC, crop="person")
    PoseTracker(tracker.model, clip=spec, device="cpu", engine="model", box=(0, 0, 40))
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        PoseTracker(tracker.model, clip=spec, device="cpu", engine="model", follow=False)
    (record,) = caplog.records
    assert "give a square with --box LEFT,TOP,SIDE" in record.message
    assert "\n" not in record.message


def test_windows_are_those_of_a_box_that_stands_where_the_follower_says(video: Path) -> None:
    def nobody(_image: np.ndarray) -> list[Square]:
        return []

    model = lively_model()
    spec, box = replace(SPEC, crop="person"), (4, 3, 40)

    def track(**settings: object) -> np.ndarray:
        tracker = PoseTracker(model, clip=spec, device="cpu", engine="model", **settings)
        tracker._finder = nobody
        return tracker.predict(video).points

    followed = track(box=box)
    still = track(box=box, follow=False)
    assert len(followed) == FRAMES
    np.testing.assert_array_equal(followed[:4], still[:4])
    follower = Follower(nobody, Square(left=4, top=3, side=40))
    follower.saw(followed[3], 48, 48)
    second = follower.square(np.zeros((48, 48, 3), np.uint8), 0.0)
    assert overlap(second, Square(left=4, top=3, side=40)) < 1
    moved = track(box=(second.left, second.top, second.side), follow=False)
    np.testing.assert_array_equal(followed[4:8], moved[4:8])
    follower.saw(followed[7], 48, 48)
    third = follower.square(np.zeros((48, 48, 3), np.uint8), 0.0)
    moved = track(box=(third.left, third.top, third.side), follow=False)
    np.testing.assert_array_equal(followed[8:], moved[8:])  # begins a frame earlier


def test_what_cannot_follow_says_so() -> None:
    with pytest.raises(ValueError, match="this one has crop picture and input rgb"):
        PoseTracker(lively_model(), device="cpu", follow=True)


def test_nobody_is_told(video: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = PoseTracker(
        lively_model(), clip=replace(SPEC, crop="person"), device="cpu", engine="model"
    )
    tracker._finder = lambda _image: []
    with caplog.at_level(logging.WARNING):
        tracker.predict(video)
    (record,) = caplog.records
    assert f"nobody was found in {video}" in record.message
    assert "\n" not in record.message


def test_uneven_pictures_are_told(
    clip: RenderedClip, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every second picture, and long pauses between: the time is the players'."""
    pts = [0, 40, 80, 1120, 1160, 1200, 2240, 2280, 2320, 2360, 2400]
    path = encode(tmp_path / "uneven.mkv", clip.pictures[: len(pts)], pts=pts)
    spec = replace(SPEC, frame_rate_hz=8.0)
    result = PoseTracker(lively_model(spec), device="cpu").predict(path)
    assert result.duration_s == pytest.approx(2.44, abs=0.05)
    assert "has a variable frame rate: the network saw pictures" in caplog.text
    caplog.clear()
    PoseTracker(lively_model(SPEC), device="cpu").predict(path)  # takes each picture as it comes
    assert "variable" not in caplog.text
