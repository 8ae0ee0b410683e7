"""recipes/people: the split of the real recordings, masks and joints by hand, and rendered clips.

Rendering needs packages that the library does not (recipes/people/README.md): where they are
absent its tests are skipped.
"""

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import spikevideoformer as svf
from spikevideoformer.tasks.segmentation.spec import SegmentationSpec
from spikevideoformer.training import TrainConfig

RECIPE = Path(__file__).parents[2] / "recipes" / "people"
RENDERING = ("anny", "cv2", "moderngl", "OpenEXR", "scipy")


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch):
    """Imports a module of the recipe by its name."""
    monkeypatch.syspath_prepend(str(RECIPE))
    return importlib.import_module


@pytest.fixture
def real(recipe) -> ModuleType:
    return recipe("real")


def test_a_recording_is_in_one_split(real) -> None:
    names = [name for recordings in real.RECORDINGS.values() for name in recordings]
    assert len(names) == len(set(names)) == 12


def test_hand_masks_are_of_recordings_that_are_not_trained_on(real) -> None:
    labelled = {key.split()[0] for key in json.loads((RECIPE / "masks.json").read_text())}
    assert set(real.RECORDINGS["test"]) < labelled
    assert not labelled & {*real.RECORDINGS["train"], *real.RECORDINGS["unused"]}


def test_iou_is_of_all_pixels_of_a_recording(real) -> None:
    whole, half, none = (np.zeros((2, 4), bool) for _ in range(3))
    whole[:], half[0] = True, True
    assert real.iou([(whole, half)]) == 0.5
    assert real.iou([(whole, half), (none, none)]) == 0.5
    assert real.iou([(whole, half), (whole, whole)]) == 0.75
    assert real.iou([(none, none)]) == 1


def test_hand_masks_lie_on_their_pictures(real, shared_data: Path) -> None:
    folder = shared_data / "people" / "real"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    frames = [f for of in real.read_masks(folder, "test").values() for f in of]
    assert len(frames) == 21
    for number, picture, mask in frames:
        assert mask.shape == picture.shape[:2], number
        assert 0.03 < mask.mean() < 0.6, number
    val = real.read_masks(folder, "val")
    assert [mask.any() for *_, mask in val["people-detection.gif"]] == [True, False]


def test_the_judge_counts_all_recordings_alike(recipe, real, shared_data: Path) -> None:
    folder = shared_data / "people" / "real"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")

    class Everybody:
        classes = ("background", "person")

        def segment(self, video, frame_rate_hz):
            for image in video:
                yield type("Frame", (), {"mask": np.ones(image.shape[:2], int)})

    scores, frames = recipe("judge").judge(Everybody(), folder, "test")
    assert set(scores) == set(real.RECORDINGS["test"])
    assert all(mine == everything for mine, everything in scores.values())
    assert frames == sorted(frames, key=lambda frame: frame[0])


def test_hand_joints_are_of_test_recordings(recipe, real) -> None:
    labels = real.read_joints()
    frames = [(label["recording"], label["frame"]) for label in labels]
    recordings = [recording for recording, _ in frames]
    assert len(frames) == len(set(frames)) >= 60
    assert set(recordings) <= set(real.RECORDINGS["test"])
    assert max(map(recordings.count, recordings)) <= 12
    assert sum("again" in label for label in labels) == 10
    for label in labels:
        names = set(label["joints"])
        assert names and names <= set(recipe("poses").COCO[:17]), label
        assert set(label.get("again", names)) == names, label


def test_hand_joints_lie_on_their_pictures(real, shared_data: Path) -> None:
    folder = shared_data / "people" / "real"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    labels = real.read_joints()
    shapes = {
        name: [f.shape for f in real.read_frames(folder / name)]
        for name in {label["recording"] for label in labels}
    }
    for label in labels:
        height, width, _ = shapes[label["recording"]][label["frame"]]
        left, top, right, bottom = label["box"]
        assert 0 <= left < right <= width and 0 <= top < bottom <= height, label
        for x, y in [*label["joints"].values(), *label.get("again", {}).values()]:
            assert 0 <= x < width and 0 <= y < height, label


def test_joints_by_hand_decide_between_teachers(recipe) -> None:
    judge = recipe("judge_pose")
    places = np.stack([np.arange(17) * 10.0, np.full(17, 50.0), np.ones(17)], 1)
    other = places.copy()
    other[0, 0] += 40
    entry = {"size": [200, 200], "mediapipe": places.tolist(), "movenet": other.tolist()}
    joints = {name: places[row, :2] for row, name in enumerate(judge.COCO[:3])}
    label = {"box": [0, 0, 160, 100], "joints": joints, "again": joints | {"nose": [8, 50]}}

    class Nowhere:
        body = type("Body", (), {"joint_names": judge.COCO})

        def predict(self, pictures, frame_rate_hz):
            return type("Poses", (), {"points": np.full((1, 17, 2), -100.0)})

    usual = np.full((17, 2), -1.0)
    counts = judge.against_hand(label, entry, np.zeros((200, 200, 3)), Nowhere(), usual)
    assert {what: tuple(value) for what, value in counts.items() if "all" not in what} == {
        "by hand, agreed: given the square": (0, 2),
        "by hand, agreed: mean pose": (0, 2),
        "by hand, agreed: mediapipe": (2, 2),
        "by hand, agreed: movenet": (2, 2),
        "by hand, not agreed: given the square": (0, 1),
        "by hand, not agreed: mean pose": (0, 1),
        "by hand, not agreed: mediapipe": (1, 1),
        "by hand, not agreed: movenet": (0, 1),
    }
    assert judge.apart([label, {"box": [0, 0, 1, 1], "joints": joints}]).tolist() == [0.05, 0, 0]


@pytest.fixture
def maker(recipe, shared_data: Path):
    """Makes the clip of a seed."""
    for name in RENDERING:
        pytest.importorskip(name, reason="only the recipe needs it", exc_type=ImportError)
    folder = shared_data / "people"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    body, motion, render, scene = map(recipe, ("body", "motion", "render", "scene"))
    scale = recipe("wear").SUPER
    wardrobe = body.Wardrobe(folder / "clothes")
    captures = [motion.read_capture(folder / "cmu" / "002_01.bvh.gz")]
    panoramas = [render.read_panorama(folder / "hdri" / "lobby.exr")]
    renderers = {w: render.Renderer(w * scale, scene.HEIGHT * scale) for w in scene.WIDTHS}

    def make(seed: int):
        return scene.make_clip(seed, wardrobe, captures, panoramas, renderers, frames=3)

    return make


def test_a_number_decides_its_clip_and_labels_fit_it(maker) -> None:
    clips = [maker(seed) for seed in range(8)]
    again = maker(3)
    np.testing.assert_array_equal(clips[3].pictures, again.pictures)
    np.testing.assert_array_equal(clips[3].joints_3d, again.joints_3d)
    assert len({clip.pictures.tobytes() for clip in clips}) == 8
    assert {bool(clip.masks.any()) for clip in clips} == {True, False}
    for clip in clips:
        for masks, boxes, flat, seen in zip(
            clip.masks, clip.boxes, clip.joints_2d, clip.seen, strict=True
        ):
            for number, (left, top, right, bottom) in enumerate(boxes):
                ys, xs = np.nonzero(masks == number + 1)
                if len(ys):
                    assert (left, top) == (xs.min(), ys.min())
                    assert (right, bottom) == (xs.max() + 1, ys.max() + 1)
                for x, y in flat[number][seen[number]].astype(int):
                    assert masks[y, x] == number + 1


def test_what_is_far_along_a_ray_is_drawn_where_it_is_projected(recipe) -> None:
    for name in RENDERING:
        pytest.importorskip(name, reason="only the recipe needs it", exc_type=ImportError)
    render, things = recipe("render"), recipe("things")
    camera = render.Camera(
        np.array([0.0, -4, 1]), np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]), 2.0, (0.3, -0.2)
    )
    piece = things.moved(things.box(np.full(3, 0.1)), (0.4, 0.5, 1.3))
    sky = render.light_of(np.full((8, 16, 3), 0.5, np.float32))
    renderer = render.Renderer(160, 120)
    renderer.load([render.Mesh(piece[0], piece[2], np.zeros((24, 12)), 7)], sky)
    renderer.place(0, piece[0], piece[1])
    light = {
        "harmonics": sky.harmonics, "to_light": np.eye(3), "sun_to": sky.sun_to, "sun": sky.sun,
        "detail": 0.0, "seed": 0.0, "gain": 1.0, "fog": np.zeros(3), "fog_density": 0.0,
        "blobs": np.zeros((8, 4)), "shadow": 0.0,
    }  # fmt: skip
    colour, label = renderer.draw(camera, light)
    pixels, depth = camera.project(np.array([0.4, 0.5, 1.3]), 160, 120)
    ys, xs = np.nonzero(label == 7)
    assert depth == pytest.approx(4.5)
    np.testing.assert_allclose([xs.mean() + 0.5, ys.mean() + 0.5], pixels, atol=1)
    np.testing.assert_allclose(colour[0, 0], 0.5, atol=1e-3)  # the sky where nothing stands


def test_a_lens_moves_points_as_it_moves_pictures(recipe) -> None:
    pytest.importorskip("cv2", reason="only the recipe needs it", exc_type=ImportError)
    wear = recipe("wear")
    bent = 0
    for seed in range(20):
        lens = wear.Wear(np.random.default_rng(seed), 160, 128)
        x, y = lens.map
        for column, row in ((20, 30), (250, 100), (160, 128), (300, 240)):
            seen = lens.bent(np.array([x[row, column], y[row, column]]) / wear.SUPER)
            np.testing.assert_allclose(seen * wear.SUPER, [column, row], atol=0.05)
        bent += lens.bend != 0
    assert 0 < bent < 20


def test_a_body_in_its_rest_pose_is_where_it_was(recipe) -> None:
    pytest.importorskip("scipy", reason="only the recipe needs it", exc_type=ImportError)
    motion = recipe("motion")
    rng = np.random.default_rng(0)
    vertices = rng.normal(size=(5, 3)).astype(np.float32)
    heads = rng.normal(size=(2, 3)).astype(np.float32)
    weights = np.full((5, 2), 0.5, np.float32)
    still, up = np.stack([np.eye(3)] * 2), np.array([0.0, 0, 1])
    moved, normals = motion.skin(vertices, vertices, weights, heads, still, heads + up)
    np.testing.assert_allclose(moved, vertices + up, atol=1e-6)
    np.testing.assert_allclose(normals, vertices, atol=1e-6)
    a, b = rng.normal(size=(2, 4, 3))
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    np.testing.assert_allclose((motion._swing(a, b) @ a[..., None])[..., 0], b, atol=1e-9)


def test_the_released_mask_is_the_mean_of_runs_at_the_bias_that_empty_pictures_allow(
    recipe, lively, tmp_path
) -> None:
    release, runs = recipe("release"), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = lively(
            svf.create_model("svf_nano", task="segmentation", num_classes=2, pad_input=True)
        )
        spec = SegmentationSpec(frames=1, short_side=32, crop=(32, 32))
        runs.append(tmp_path / f"run{seed}")
        model.save_pretrained(
            runs[-1] / "model", classes=["background", "person"], clip=spec.to_dict()
        )
    first, second = (svf.SpikeVideoFormer.from_pretrained(run / "model") for run in runs)
    model = release.averaged(runs)
    weight = model.head.fc.weight
    torch.testing.assert_close(weight, (first.head.fc.weight + second.head.fc.weight) / 2)

    draw = np.random.default_rng(0)
    clips = [
        (draw.integers(0, 256, (32, 32, 3), dtype=np.uint8), np.full((32, 32), i < 2))
        for i in range(4)
    ]
    bias = model.head.fc.bias.detach().clone()
    shift, score, empty = release.shifted(model, clips, 0.2)
    assert empty <= 0.2
    assert float((model.head.fc.bias - bias)[1].detach()) == pytest.approx(shift)
    with torch.no_grad():
        model.head.fc.bias.copy_(bias)
    looser = release.shifted(model, clips, 1.0)
    assert looser[1] >= score


def rendered_labels(poses: ModuleType) -> dict[str, np.ndarray]:
    """Two frames of 128x160 with a person whose joints are drawn at random, two of them outside."""
    rng = np.random.default_rng(0)
    joints = rng.uniform(-0.6, 0.6, (2, 1, len(poses.COCO), 3)) + np.array([0, 0, 3])
    joints[:, :, -2:, 0] = 9.0
    points = 120 * joints[..., :2] / joints[..., 2:] + np.array([80, 64])
    return {
        "people": np.zeros((2, 128, 160), np.uint8),
        "joints_3d": joints,
        "joints_2d": points,
        "seen": np.ones(joints.shape[:3], bool),
    }


def test_a_rendered_person_becomes_a_pose(recipe) -> None:
    poses = recipe("poses")
    labels = rendered_labels(poses)
    (person,) = poses.people_of(labels)
    names = person["joint_names"].tolist()
    assert person["focal_px"] == pytest.approx(120)
    hips = [poses.COCO.index(f"{side}_hip") for side in ("left", "right")]
    middle = labels["joints_3d"][:, 0, hips].mean(1)
    np.testing.assert_allclose(person["joints3d"][:, names.index("pelvis")], middle, rtol=1e-6)
    nose = labels["joints_2d"][:, 0, poses.COCO.index("nose")]
    np.testing.assert_allclose(person["joints2d"][:, names.index("nose")], nose, rtol=1e-6)
    assert all(0 <= parent < i for i, parent in enumerate(person["parents"][1:].tolist(), start=1))
    labels["seen"][:] = False  # behind somebody else
    assert poses.people_of(labels) == []


def test_the_pose_recipe_is_a_recipe() -> None:
    config = TrainConfig.from_yaml(RECIPE / "pose_nano.yaml")
    assert (config.task, config.spec.crop) == ("pose", "person")


def test_joints_count_where_both_teachers_are_sure_and_agree(recipe) -> None:
    judge = recipe("judge_pose")
    one = np.column_stack([np.linspace(10, 90, 17), np.linspace(10, 50, 17), np.ones(17)])
    two = one + np.array([2.0, 0.0, 0.0])
    two[3, 0] += 20  # they disagree by more than a tenth of 80
    two[4, 2] = 0.1  # not sure
    entry = {"mediapipe": one.tolist(), "movenet": two.tolist(), "size": [100, 100]}
    truth, sure, agree, side = judge.poses.labelled(entry)
    assert (sure.sum(), agree.sum(), side) == (16, 15, 80)
    np.testing.assert_allclose(truth[0], [11, 10])
    assert judge.score(truth + np.array([0, 7.9]), truth, agree, side).tolist() == [15, 15]
    assert judge.score(truth + np.array([0, 8.1]), truth, agree, side).tolist() == [0, 15]

    labels = judge.poses.taught([entry])
    names = list(judge.poses.PARENTS)
    np.testing.assert_allclose(labels["joints2d"][0, names.index("nose")], [11, 10])
    assert np.isnan(labels["joints2d"][0, names.index("left_ear")]).all()  # they disagree
    assert np.isnan(labels["joints3d"]).all()
    two[:10, 2] = 0.1  # fewer than eight joints are labelled
    few = judge.poses.taught([{**entry, "movenet": two.tolist()}])
    assert np.isnan(few["joints2d"]).all()


def test_jitter_is_of_joints_and_not_of_the_box(recipe) -> None:
    judge = recipe("judge_pose")
    still = {n: np.full((17, 2), 50.0) for n in range(5)}
    assert judge.jitter(still, {n: 80.0 + n for n in range(5)}) == 0
    still[2] = still[2] + [8.0, 0.0]  # one frame of three: 8, -16, 8 over 80
    expected = (8 + 16 + 8) / 3 / 80
    assert judge.jitter(still, dict.fromkeys(range(5), 80.0)) == pytest.approx(expected)
