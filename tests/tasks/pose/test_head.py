"""Networks with a pose head: what its numbers mean, and the body that travels with the model."""

import json
import math

import pytest
import torch
from safetensors import safe_open
from torch import nn

import spikevideoformer as svf
from spikevideoformer.body.rotations import matrix_from_axis_angle
from spikevideoformer.body.skeleton import Skeleton
from spikevideoformer.body.smpl import NUM_BETAS
from spikevideoformer.body.stored import AbsentBody, AbsentSmpl, body_from_dict, body_to_dict
from spikevideoformer.deploy.fold import fold_for_inference
from spikevideoformer.energy.count import count_clips
from spikevideoformer.models.config import preset
from spikevideoformer.models.heads import part_of
from spikevideoformer.tasks.pose.head import (
    USUAL_WIDTH_M,
    Pose,
    PoseHead,
    PoseOutput,
    RegressedOutput,
    between_frames,
    focal_of_view,
    mean_rotations,
    pose_from_output,
    with_rotations,
)
from spikevideoformer.tasks.pose.metrics import MIN_DEPTH_M, in_front, project_perspective

from .poses import random_smpl

NAMES, J = ("hips", "left_hip", "left_knee", "right_hip"), 4
BODY = Skeleton(
    NAMES,
    (-1, 0, 1, 0),
    [[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, -0.4, 0.0], [-0.1, 0.0, 0.0]],
    {"left_knee": [0.0, -0.4, 0.01]},
)
FOCAL, CENTRE = torch.tensor([90.0, 110.0]), torch.tensor([30.0, 34.0])
SIZE = 64


def _model(name="svf_nano", body=BODY, seed=0, **overrides):
    torch.manual_seed(seed)
    return svf.create_model(name, task="pose", body=body, **overrides)


def _video(*shape, dtype=torch.float32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape or (2, 3, 3, 32, 32), dtype=dtype, generator=generator)


def _rotations(*shape, seed=2):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    return matrix_from_axis_angle(vectors)


def _output(numbers, body=BODY) -> PoseOutput:
    end = 6 * len(body.joint_names)
    sixd = numbers[..., :end].reshape(*numbers.shape[:-1], -1, 6)
    return PoseOutput(sixd, numbers[..., end:-3], numbers[..., -3:])


def _meaning(output, body=BODY, **changes) -> Pose:
    options = {"size": SIZE, "focal_px": FOCAL, "centre_px": CENTRE} | changes
    return pose_from_output(output, body, **options)


# --- The network ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("svf_nano", {"readout": "spike"}),
        ("svf_nano", {"in_channels": 2, "readout": "membrane"}),
        ("ann_nano", {}),
    ],
)
def test_numbers_of_each_frame(name, options, lively):
    model = lively(_model(name, **options)).eval()
    video = _video(2, 3, model.config.in_channels, 32, 32)
    with torch.no_grad():
        output = model(video)
    assert output._fields == ("rotations_6d", "shape", "camera")
    assert [x.shape for x in output] == [(2, 3, J, 6), (2, 3, J), (2, 3, 3)]
    for numbers in output:
        assert numbers.isfinite().all()
        assert (numbers.std((0, 1)) > 0).all()  # each number says something
    assert (model.task, model.num_classes, model.classes) == ("pose", J, NAMES)
    assert model.body is BODY


@pytest.mark.parametrize("readout", ["spike", "membrane"])
def test_every_parameter_receives_a_gradient(readout, lively):
    model = lively(_model(readout=readout)).double()
    pose = _meaning(model(_video(dtype=torch.float64)))
    (pose.joints.square().sum() + pose.shape.sum()).backward()
    without = (  # a bias before a batch norm is subtracted again with the mean
        *("downsample.conv.bias", "mlp.fc1.bias", "mlp.fc2.bias", "proj.bn2.bias"),
        *(f"{name}_conv.bn2.bias" for name in "qkv"),
    )
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if not name.endswith(without):
            assert parameter.grad.norm() > 1e-12, name


@pytest.mark.parametrize("readout", ["spike", "membrane"])
@pytest.mark.parametrize(("design", "reach"), [("spatial_only", 1), ("neuron_only", 2)])
def test_frames_know_each_other_by_design_alone(design, reach, readout, lively):
    """A change of the second of three frames shows in it, and in the third through membranes."""
    model = lively(_model(design=design, readout=readout)).double().eval()
    video = _video(1, 3, 3, 32, 32, dtype=torch.float64)
    other = video.clone()
    other[:, 1] = _video(3, 32, 32, seed=3)
    with torch.no_grad():
        before, after = (torch.cat([x[0].flatten(1) for x in model(v)], 1) for v in (video, other))
    changed = [not torch.allclose(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [False, True, reach > 1]


def test_where_something_is_matters_as_far_as_the_grid_tells():
    head = PoseHead(preset("svf_nano").with_overrides({"readout": "membrane"}), BODY).double()

    def output(row, column):
        features = torch.zeros(1, 1, preset("svf_nano").widths[-1], 16, 16, dtype=torch.float64)
        features[..., row, column] = 1.0
        with torch.no_grad():
            return head((features,))

    assert torch.allclose(output(5, 9), output(7, 11))  # of one cell of 4 x 4 pixels
    assert not torch.allclose(output(5, 9), output(8, 9))
    assert not torch.allclose(output(5, 9), output(5, 12))


@pytest.mark.parametrize("readout", ["spike", "membrane"])
def test_a_new_network_says_the_pose_that_it_starts_at(readout):
    """Untrained it is silent; then the body stands in the middle, of the usual shape."""
    model = _model(readout=readout).eval()
    rotations = _rotations(J)
    for start in (torch.eye(3).expand(J, 3, 3), rotations):
        model.head.start_at(start)
        nn.init.zeros_(model.head.fc.weight)
        with torch.no_grad():
            pose = _meaning(model(_video(1, 2, 3, 32, 32)), centre_px=torch.full((2,), SIZE / 2))
        torch.testing.assert_close(pose.rotations, start.float().expand(1, 2, J, 3, 3))
        assert (pose.shape == 0).all()
        expected = torch.tensor([0, 0, USUAL_WIDTH_M * 90 / SIZE]).expand(1, 2, 3)
        torch.testing.assert_close(pose.joints[..., 0, :], expected)


def test_a_fresh_head_starts_unturned():
    """The pose of a new model, without start_at, at its small first weights."""
    pose = _meaning(_model().eval()(_video(1, 1, 3, 32, 32)))
    torch.testing.assert_close(pose.rotations[0, 0], torch.eye(3).expand(J, 3, 3), atol=0.2, rtol=0)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_a_body_is_for_pose(task):
    with pytest.raises(ValueError, match=f"a body is given, and the task is {task}; set task"):
        svf.create_model("svf_nano", task=task, body=BODY)


@pytest.mark.parametrize(
    ("options", "poses", "readout"),
    [
        ({"pose_head": "regressor"}, 3, "membrane"),
        ({"pose_head": "regressor", "poses": "between"}, 4, "membrane"),
        ({"pose_head": "regressor", "poses": "between", "readout": "spike"}, 4, "spike"),
        ({"poses": "between"}, 4, "spike"),
    ],
)
def test_the_published_head(options, poses, readout, lively):
    """It reads membranes unless told otherwise, and says where the body is in metres."""
    model = lively(_model(**options)).eval()
    assert model.config.readout == readout
    video = _video(2, 3, 3, 32, 32)
    with torch.no_grad():
        output = model(video)
    assert [x.shape for x in output] == [(2, poses, J, 6), (2, poses, J), (2, poses, 3)]
    pose = _meaning(output)
    assert part_of(output, 0)[0].shape == (poses, J, 6)
    if "pose_head" in options:
        assert isinstance(output, RegressedOutput)
        assert torch.equal(pose.translation, output.translation)
        other = _meaning(output, focal_px=FOCAL * 2)
        assert torch.equal(pose.joints, other.joints)
    own = BODY.joints(pose.rotations, pose.translation, pose.shape)
    torch.testing.assert_close(pose.joints, own)


# --- The head with maps ---------------------------------------------------------------------------


def _read(model, maps):
    """What the head says of such maps, in whose place those of no network are."""
    model.head.maps = lambda _features: maps.transpose(0, 1)
    return model.finished(model.head(()), torch.empty(*maps.shape[:2], 3, 32, 32))


def test_joints_are_seen_where_the_maps_say(lively):
    """One cell of each joint's map is hot; offsets and depths are those of that cell."""
    model = lively(_model(pose_head="heatmap"))
    maps = torch.zeros(1, 2, 4 * J + 1, 8, 8)
    cells = [(1, 6), (0, 0), (7, 2), (4, 4)]  # row, column
    for joint, (row, column) in enumerate(cells):
        maps[:, :, joint, row, column] = 60.0
        maps[:, :, J + joint, row, column] = 0.25 * joint
        maps[:, :, 2 * J + joint, row, column] = -0.125
        maps[:, :, 3 * J + joint, row, column] = 0.1 * joint
    maps[:, :, -1, 1, 6] = 0.5
    output = _read(model, maps)
    expected = [
        [(x + 0.5) / 8 - 0.5 + 0.25 * j, (y + 0.5) / 8 - 0.625] for j, (y, x) in enumerate(cells)
    ]
    torch.testing.assert_close(output.places[0, 1], torch.tensor(expected))
    torch.testing.assert_close(output.heat.exp().sum((-1, -2)), torch.ones(1, 2, J))
    pose = _meaning(output)
    points = project_perspective(pose.joints, FOCAL, CENTRE)
    torch.testing.assert_close(points[0, 1], (torch.tensor(expected) + 0.5) * SIZE)
    width_m = USUAL_WIDTH_M * math.exp(0.5)
    depths = 90 / SIZE * width_m + width_m * 0.1 * torch.arange(4)
    torch.testing.assert_close(pose.joints[0, 0, :, 2], depths)
    assert pose.rotations is None and pose.shape is None
    posed = with_rotations(pose, BODY)
    assert torch.equal(posed.joints, pose.joints)
    assert posed.rotations.shape == (1, 2, J, 3, 3)


def test_the_likelier_of_two_places_counts_for_more(lively):
    """Shares of 3/4 and 1/4: their squares are as 9 to 1."""
    model = lively(_model(pose_head="heatmap"))
    maps = torch.full((1, 1, 4 * J + 1, 8, 8), -100.0)
    maps[:, :, J:] = 0
    maps[:, :, :J, 4, 0], maps[:, :, :J, 4, 7] = math.log(3), 0
    output = _read(model, maps)
    left, right = 0.5 / 8 - 0.5, 7.5 / 8 - 0.5
    torch.testing.assert_close(
        output.places[..., 0], torch.full((1, 1, J), 0.9 * left + 0.1 * right)
    )


def test_no_joint_is_behind_the_camera(lively):
    model = lively(_model(pose_head="heatmap"))
    maps = torch.zeros(1, 1, 4 * J + 1, 8, 8)
    maps[:, :, 3 * J : 4 * J] = -100.0
    for width, depth in ((0, 0.1 * 90 / SIZE * 2.5), (-3, MIN_DEPTH_M)):
        maps[:, :, -1] = width
        joints = _meaning(_read(model, maps)).joints
        torch.testing.assert_close(joints[..., 2], torch.full((1, 1, J), depth))
        assert in_front(joints).all()


def test_reading_the_maps_is_counted():
    """Two softmaxes over the cells of each joint and frame are work of the network."""
    counts = count_clips(_model(pose_head="heatmap").eval(), _video(1, 2, 3, 32, 32))
    assert counts.total.exponentials == 2 * 2 * J * 8 * 8


def test_maps_learn_in_every_part(lively):
    model = lively(_model(pose_head="heatmap")).double()
    nn.init.normal_(model.head.fc.weight, std=0.1)
    output = model(_video(dtype=torch.float64))
    assert [x.shape for x in output] == [(2, 3, J, 2), (2, 3, J), (2, 3, 1), (2, 3, J, 8, 8)]
    _meaning(output).joints.square().sum().backward()
    for name, parameter in model.head.named_parameters():
        assert parameter.grad is not None and parameter.grad.norm() > 1e-12, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"body": random_smpl()}, "finds joints, of which it poses a skeleton"),
        ({"body": None}, "the body is SMPL; give body="),
        ({"poses": "between"}, "reads frames; choose grid"),
        ({"readout": "membrane"}, "one that makes maps reads spikes"),
    ],
)
def test_what_maps_cannot_do(options, message):
    with pytest.raises(ValueError, match=message):
        _model(pose_head="heatmap", **options)


def test_poses_between_frames_see_their_neighbours():
    values = torch.tensor([1.0, 3.0, 7.0])[:, None, None]
    assert between_frames(values).flatten().tolist() == [1, 2, 5, 7]
    assert between_frames(values[:1]).flatten().tolist() == [1, 1]


@pytest.mark.parametrize("place", [None, torch.tensor([0.1, -0.2, 3.0])])
def test_a_new_regressor_starts_before_the_camera(place):
    model = _model(pose_head="regressor").eval()
    model.head.start_at(torch.eye(3).expand(J, 3, 3), place)
    nn.init.zeros_(model.head.fc.weight)
    with torch.no_grad():
        pose = _meaning(model(_video(1, 1, 3, 32, 32)))
    expected = torch.tensor([0.0, 0.0, USUAL_WIDTH_M]) if place is None else place
    torch.testing.assert_close(pose.joints[0, 0, 0], expected)


def test_a_gru_reads_no_frames():
    with pytest.raises(ValueError, match=r"readout 'gru' is for classification.*membrane or spike"):
        _model("gru_nano")
    assert _model("gru_nano", readout="membrane").num_classes == J


def test_as_many_joints_as_the_body_has():
    with pytest.raises(ValueError, match="num_classes is 3; the body has 4"):
        svf.SpikeVideoFormer(preset("svf_nano"), task="pose", num_classes=3, body=BODY)


def test_without_a_body_it_is_smpl():
    """The documented call; the classes of other tasks have nothing to say."""
    model = svf.create_model("svf_nano", task="pose", num_classes=400)
    assert isinstance(model.body, AbsentSmpl)
    with torch.no_grad():
        output = model(_video(1, 2, 3, 32, 32))
    assert [x.shape for x in output] == [(1, 2, 24, 6), (1, 2, NUM_BETAS), (1, 2, 3)]
    with pytest.raises(ValueError, match="a network for pose needs a body"):
        svf.SpikeVideoFormer(preset("svf_nano"), task="pose", num_classes=24)


def test_numbers_by_name():
    """In the order of the published head: rotations, shape, camera."""
    head = PoseHead(preset("svf_nano"), BODY)
    numbers = torch.randn(2, 7 * J + 3)
    for mine, expected in zip(head.named(numbers), _output(numbers), strict=True):
        assert torch.equal(mine, expected)
    assert torch.equal(part_of(head.named(numbers), 1).camera, numbers[1, -3:])


def test_the_folded_network_has_the_body(lively):
    model = lively(_model()).double().eval()
    folded = fold_for_inference(model)
    assert folded.body is BODY
    assert folded.classes == NAMES
    video = _video(dtype=torch.float64)
    with torch.no_grad():
        ours, theirs = _meaning(folded(video), folded.body), _meaning(model(video))
    torch.testing.assert_close(ours.joints, theirs.joints, atol=1e-8, rtol=0)
    assert theirs.joints.std(1).max() > 1e-3  # frames differ


# --- What the numbers mean ------------------------------------------------------------------------


@pytest.mark.parametrize("body", [BODY, random_smpl()], ids=["skeleton", "smpl"])
def test_the_root_is_seen_where_the_head_says(body):
    """(u, v) in picture widths from the middle of the input, whatever the camera is."""
    count, shapes = len(body.joint_names), body.num_shape
    output = torch.randn(5, 2, 6 * count + shapes + 3, dtype=torch.float64)
    output[..., -3:] = torch.tensor([0.25, -0.125, 0.5])
    pose = _meaning(_output(output, body), body)
    points = project_perspective(pose.joints, FOCAL.double(), CENTRE.double())
    expected = torch.tensor([0.75 * SIZE, 0.375 * SIZE], dtype=torch.float64).expand(5, 2, 2)
    torch.testing.assert_close(points[..., 0, :], expected)
    depth = 90 / SIZE * 2.5 * math.exp(0.5)
    torch.testing.assert_close(pose.joints[..., 0, 2], torch.full((5, 2), depth).double())
    own = body.joints(pose.rotations, pose.translation, pose.shape)
    torch.testing.assert_close(pose.joints, own)
    torch.testing.assert_close(pose.shape, output[..., 6 * count : -3])


def test_the_focal_length_sets_the_depth_only():
    output = torch.randn(1, 7 * J + 3, dtype=torch.float64) / 3
    near, far = (_meaning(_output(output), focal_px=f * FOCAL, centre_px=CENTRE) for f in (1, 2))
    torch.testing.assert_close(far.joints[..., 0, 2], 2 * near.joints[..., 0, 2])
    torch.testing.assert_close(far.rotations, near.rotations)
    bones = [pose.joints - pose.joints[..., :1, :] for pose in (near, far)]
    torch.testing.assert_close(*bones)


def test_cameras_of_a_batch():
    """One for each clip, as a batch gives them, is the same as each clip with its own."""
    output = torch.randn(2, 3, 7 * J + 3, dtype=torch.float64)
    focal, centre = torch.stack((FOCAL, 2 * FOCAL)), torch.stack((CENTRE, CENTRE - 9))
    together = _meaning(_output(output), focal_px=focal[:, None], centre_px=centre[:, None])
    for clip in range(2):
        alone = _meaning(_output(output[clip]), focal_px=focal[clip], centre_px=centre[clip])
        torch.testing.assert_close(together.joints[clip], alone.joints)


@pytest.mark.parametrize(("said", "width_m"), [(1e4, 50.2), (-1e4, 0.1245)])
def test_depth_stays_within_reason(said, width_m):
    output = torch.zeros(1, 7 * J + 3)
    output[:, :6] = output[:, 6:12] = torch.tensor([1.0, 0, 0, 0, 1, 0])
    output[:, 12:24] = output[:, :12]
    output[:, -1] = said
    depth = _meaning(_output(output)).joints[:, 0, 2]
    assert float(depth) == pytest.approx(90 / SIZE * width_m, rel=1e-3)


def test_half_precision_is_computed_in_single():
    output = torch.randn(2, 7 * J + 3).half()
    expected = _meaning(_output(output.float()))
    with torch.autocast("cpu", torch.bfloat16):
        pose = _meaning(_output(output))
    assert pose.joints.dtype == torch.float32
    assert torch.equal(pose.joints, expected.joints)
    assert _meaning(_output(output.double())).joints.dtype == torch.float64


@pytest.mark.parametrize(("degrees", "focal_px"), [(90, 32.0), (53.130102354, 64.0)])
def test_focal_length_of_a_view(degrees, focal_px):
    assert focal_of_view(SIZE, degrees) == pytest.approx(focal_px)


# --- The mean pose --------------------------------------------------------------------------------


def test_mean_of_turns_to_both_sides_is_the_middle():
    middle = _rotations(J)
    turn = matrix_from_axis_angle(torch.tensor([0.0, 0.7, 0.0], dtype=torch.float64))
    mean = mean_rotations(torch.stack((middle @ turn, middle @ turn.mT)))
    torch.testing.assert_close(mean, middle)


def test_mean_rotation_is_a_rotation_and_the_nearest():
    """Of rotations all over, some of whose mean matrices would be turned inside out."""
    rotations = _rotations(3, 200)
    mean = mean_rotations(rotations)
    assert (torch.linalg.det(rotations.mean(0)) < 0).any()
    torch.testing.assert_close(mean @ mean.mT, torch.eye(3).double().expand_as(mean))
    torch.testing.assert_close(torch.linalg.det(mean), torch.ones(200).double())

    def distance(rotation):
        return (rotations - rotation).square().sum((0, -1, -2))

    for seed in range(20):
        nudge = matrix_from_axis_angle(0.05 * torch.randn(200, 3, dtype=torch.float64))
        assert (distance(mean) < distance(mean @ nudge)).all(), seed


# --- The body in the model's folder ---------------------------------------------------------------


@pytest.mark.parametrize("readout", ["spike", "membrane"])
def test_a_saved_model_finds_the_same_poses(readout, lively, tmp_path):
    model = lively(_model(readout=readout, in_channels=2)).eval()
    clip = {"frames": 3, "size": 32}
    model.save_pretrained(tmp_path, clip=clip)
    loaded = svf.SpikeVideoFormer.from_pretrained(tmp_path)
    assert (loaded.task, loaded.classes, loaded.clip) == ("pose", NAMES, clip)
    assert isinstance(loaded.body, Skeleton)
    assert loaded.body.to_dict() == BODY.to_dict()
    video = _video(2, 3, 2, 32, 32)
    with torch.no_grad():
        expected = _meaning(model(video), model.body)
        assert torch.equal(_meaning(loaded(video), loaded.body).joints, expected.joints)


def test_smpl_does_not_travel_with_the_model(lively, tmp_path):
    body = random_smpl()
    model = lively(_model(body=body)).eval()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["body"] == {"kind": "smpl"}
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == {n for n in model.state_dict() if not n.startswith("body")}
    loaded = svf.SpikeVideoFormer.from_pretrained(tmp_path)
    assert isinstance(loaded.body, AbsentSmpl)
    assert loaded.classes == body.joint_names
    with torch.no_grad():
        output = loaded(_video())
        for mine, expected in zip(output, model(_video()), strict=True):
            assert torch.equal(mine, expected)
    with pytest.raises(ValueError, match=r"--body smpl\.safetensors, or in Python.*body=load"):
        _meaning(output, loaded.body)
    loaded.body = body
    assert torch.equal(_meaning(output, loaded.body).joints, _meaning(output, body).joints)


def test_bodies_as_json():
    values = json.loads(json.dumps(body_to_dict(BODY)))
    assert values["kind"] == "skeleton"
    again = body_from_dict(values)
    assert body_to_dict(again) == body_to_dict(BODY)
    assert body_to_dict(body_from_dict(body_to_dict(random_smpl()))) == {"kind": "smpl"}
    absent = body_from_dict(body_to_dict(AbsentBody(3, 5)))
    assert (absent.joint_names, absent.num_shape) == (("joint_0", "joint_1", "joint_2"), 5)
    with pytest.raises(ValueError, match="3 joints and 5 shape values that its file does not"):
        absent.joints(torch.eye(3).expand(3, 3, 3), torch.zeros(3))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "body of kind None is unknown; expected skeleton or smpl"),
        ({"kind": "smplx"}, "body of kind 'smplx' is unknown"),
        ({"kind": "smpl", "joint_template": []}, "body of kind 'smpl' is unknown"),
        ({"kind": "skeleton"}, "the skeleton has no joint_names, parents, offsets"),
        ({"kind": "skeleton", "bones": 1}, "unknown entry bones of a skeleton"),
        ({"kind": "absent", "joints": 0, "num_shape": 3}, "expected numbers from 1 to 1024"),
    ],
)
def test_no_body_in_json(values, message):
    with pytest.raises(ValueError, match=message):
        body_from_dict(values)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "a network for pose needs a body"),
        ("smpl", "body is 'smpl', of another kind than was saved"),
        ({"kind": "robot"}, "body of kind 'robot' is unknown"),
    ],
)
def test_a_model_folder_with_a_broken_body(body, message, tmp_path):
    _model().save_pretrained(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(about | {"body": body}))
    with pytest.raises(ValueError, match=message):
        svf.SpikeVideoFormer.from_pretrained(tmp_path)
