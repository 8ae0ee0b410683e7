"""What is chosen for a small data set, and what is left alone."""

import json

import pytest

from spikevideoformer.events.spec import EventChannels, EventView
from spikevideoformer.models.config import ModelConfig, preset
from spikevideoformer.models.spikevideoformer import create_model
from spikevideoformer.synth.moving_shapes import write_scenes
from spikevideoformer.task import get_task
from spikevideoformer.tasks.classification.index import read_index
from spikevideoformer.tasks.pose.spec import PoseSpec
from spikevideoformer.tasks.segmentation.dataset import evaluation_cuts
from spikevideoformer.tasks.segmentation.index import read_sequences
from spikevideoformer.tasks.segmentation.spec import SegmentationSpec
from spikevideoformer.training import TrainConfig
from spikevideoformer.training.batches import MicroBatches, StepPlan
from spikevideoformer.training.recipe import FEW, _as_before, _time, with_recipe
from spikevideoformer.video.spec import ClipSpec


def model_folder(folder, task, **options):
    """A released model that was made with these options."""
    model = create_model("svf_nano", task=task, num_classes=6, **options)
    spec = SegmentationSpec(frames=3, short_side=32, crop=(32, 32))
    clip = spec if task == "segmentation" else ClipSpec(frames=3, size=32)
    model.save_pretrained(folder, clip=clip.to_dict())
    return folder


def chosen(data, **given):
    settings, line = with_recipe({"data": str(data), "out": "run", **given})
    return TrainConfig.from_dict(settings), line


def test_few_clips_get_hundreds_of_steps(clips):
    config, line = chosen(clips)
    steps = 12 * config.passes // config.batch_size * config.epochs
    assert 600 <= steps <= 680
    assert f"12 clips to train on: 16 epochs of {config.passes} passes" in line
    assert "from scratch" in line
    assert config.warmup_epochs < 1
    # left and right are classes here: a mirrored clip would be of the other one
    assert config.augmentation.flip == 0
    assert "not mirrored" in line


def test_what_is_given_stays(clips, tmp_path):
    start = str(model_folder(tmp_path / "m", "classification"))
    config, line = chosen(
        clips, epochs=3, learning_rate=1e-2, init_from=start, augmentation={"contrast": 0.7}
    )
    assert (config.epochs, config.passes, config.learning_rate) == (3, 1, 1e-2)
    assert "3 epochs of 1 pass," in line
    assert config.augmentation.contrast == 0.7
    assert config.augmentation.brightness == 0.3
    assert f"from {start}" in line
    assert chosen(clips, init_from=start)[0].learning_rate < chosen(clips)[0].learning_rate


def test_a_classifier_goes_on_with_its_own_neurons_and_eyes(clips, tmp_path):
    """Those of events would make nothing of pictures."""
    model = create_model("svf_nano", num_classes=6, neuron="integer_lif", design="factorized")
    clip = ClipSpec(frames=3, size=32, input="events", events=EventView(rate_hz=4.0))
    model.save_pretrained(tmp_path / "m", clip=clip.to_dict())
    config, _ = chosen(clips, init_from=str(tmp_path / "m"))
    assert (config.input, config.events.rate_hz, config.design) == ("events", 4.0, "factorized")
    assert create_model("svf_nano", **config.model_options).config.neuron == model.config.neuron
    other, _ = chosen(clips, init_from=str(tmp_path / "m"), input="rgb", neuron="lif")
    assert (other.input, other.neuron) == ("rgb", "lif")
    ann = create_model("ann_nano", num_classes=6)
    ann.save_pretrained(tmp_path / "a", clip=ClipSpec(frames=3, size=32).to_dict())
    assert chosen(clips, init_from=str(tmp_path / "a"), model="ann_nano")[0].neuron is None


def test_a_network_goes_on_as_it_was_made(clips, tmp_path):
    block = {"kernel_size": 3}
    model = create_model("svf_tiny", num_classes=6, attention="dot", block=block)
    model.save_pretrained(tmp_path / "m", clip=ClipSpec(frames=3, size=32).to_dict())
    config, _ = chosen(clips, init_from=str(tmp_path / "m"))
    assert (config.model, config.attention, config.block) == ("svf_tiny", "dot", block)
    assert create_model(config.model, num_classes=6, **config.model_options).config == model.config
    other, _ = chosen(clips, init_from=str(tmp_path / "m"), model="svf_nano")
    assert (other.attention, other.block) == (None, None)  # its tensors do not fit


def test_a_pose_network_goes_on_with_its_head_and_its_eyes(tmp_path):
    channels = EventChannels(polarity="merged", mode="voxel", bins=5)
    clip = PoseSpec(
        frames=3, size=32, crop="person", input="events", frame_rate_hz=5.0, channels=channels
    )
    kept = get_task("pose").kept(clip.to_dict(), ModelConfig(pose_head="regressor"))
    config = TrainConfig.from_dict({"task": "pose", "out": tmp_path, **kept})
    assert config.spec == clip
    assert config.model_options["pose_head"] == "regressor"


def test_a_start_of_the_published_family_stays_of_its_family(tmp_path):
    write_scenes(tmp_path, train=2, val=1)
    model = create_model("espike_5m", task="segmentation", num_classes=6, mask_head="fpn")
    spec = SegmentationSpec(frames=1, short_side=32, crop=(32, 32))
    model.save_pretrained(tmp_path / "m", clip=spec.to_dict())
    config, _ = chosen(tmp_path, task="segmentation", init_from=str(tmp_path / "m"))
    assert (config.model, config.options.head) == ("espike_5m", "fpn")
    # of the same widths and depths as svf_15m
    assert get_task("segmentation").kept({}, preset("espike_19m"))
    four_heads = create_model("svf_nano", num_classes=6, heads=4)
    four_heads.save_pretrained(tmp_path / "h", clip=ClipSpec(frames=3, size=32).to_dict())
    start = TrainConfig(out=tmp_path, init_from=tmp_path / "h")
    assert _as_before(start, {}) == {}  # which no option can say


def test_a_damaged_start_is_named(clips, tmp_path):
    model_folder(tmp_path / "m", "classification")
    file = tmp_path / "m" / "config.json"
    whole = json.loads(file.read_text())
    for part, value, says in (
        ("model", {"foo": 1}, "unknown model option 'foo'"),
        ("model", {"widths": [10**6, 64, 128, 360]}, "at most 16384"),
        ("clip", {"frames": "8"}, "frames"),
    ):
        file.write_text(json.dumps({**whole, part: {**whole[part], **value}}))
        with pytest.raises(ValueError, match=rf"m/config.json: .*{says}"):
            chosen(clips, init_from=str(tmp_path / "m"))


def test_a_classifier_goes_on_with_its_frames(clips, tmp_path):
    """What moves looks different at twice the step. Longer clips are fewer: as much time."""
    model = create_model("svf_nano", num_classes=6)
    steps = {}
    for frames in (1, 4, 16):
        start = tmp_path / str(frames)
        model.save_pretrained(start, clip=ClipSpec(frames=frames, size=32).to_dict())
        config, line = chosen(clips, init_from=str(start))
        assert config.frames == (8 if frames == 1 else frames)  # one is of pictures
        assert f"{config.frames} frames a clip" in line
        steps[frames] = 12 * config.passes // config.batch_size * config.epochs
        assert chosen(clips, init_from=str(start), frames=2)[0].frames == 2
    assert 600 <= steps[1] == steps[4] <= 680
    assert 300 <= steps[16] <= 340


def test_all_processes_and_forward_passes_count(clips):
    for options in ({"devices": 2}, {"accumulate": 2}):
        config, line = chosen(clips, **options)
        assert 600 <= 12 * config.passes // (2 * config.batch_size) * config.epochs <= 680
        assert f"steps of {2 * config.batch_size} clips" in line


def test_fewer_clips_than_a_batch_still_make_a_step(clips, tmp_path):
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.mp4").symlink_to(clips / "train" / name / f"{i}.mp4")
    config, line = chosen(tmp_path, epochs=2)  # one or two of the six are set aside
    training = len(read_index(tmp_path).with_validation(seed=0).select("train"))
    assert line.startswith(f"{training} clips to train on")
    assert config.batch_size == training


def test_data_without_a_clip_are_left_to_the_check(tmp_path):
    (tmp_path / "splits.csv").write_text("path,label,split\n,left,train\n,right,train\n")
    assert read_index(tmp_path).problems
    config, line = chosen(tmp_path)
    assert (config, line) == (TrainConfig(out="run", data=tmp_path), "")


def test_a_long_warm_up_that_is_given_fits(clips, tmp_path):
    assert chosen(clips, warmup_epochs=10)[0].epochs == 20
    write_scenes(tmp_path, train=2, val=1)
    assert chosen(tmp_path, task="segmentation", warmup_epochs=10)[0].epochs == 20


@pytest.mark.parametrize(
    ("clips", "epochs", "passes"), [(12, 16, 27), (224, 12, 2), (320, 16, 1), (1000, 16, 1)]
)
def test_of_several_passes_there_are_no_more_than_the_steps_need(clips, epochs, passes):
    assert _time(640 * 8, 16, clips, {}) == (epochs, passes)


def test_masks_are_learnt_by_whole_numbers_of_spikes_inside_each_frame(tmp_path):
    write_scenes(tmp_path, train=2, val=1)
    config, line = chosen(tmp_path, task="segmentation")
    assert (config.neuron, config.design, config.frames) == ("integer_lif", "spatial_only", 1)
    assert config.options.scale == (0.5, 2.0)
    assert "1 frame a clip, neuron integer_lif, design spatial_only;" in line
    # Weights of a model of the same task go on in the same network.
    start = model_folder(tmp_path / "masks", "segmentation", design="joint", neuron="lif")
    config, line = chosen(tmp_path, task="segmentation", init_from=start)
    assert (config.neuron["kind"], config.design, config.frames) == ("lif", "joint", 3)
    # and what is told of the steps is what is done
    clips = len(evaluation_cuts(read_sequences(tmp_path).select("train"), config.spec))
    assert f"in all {clips * config.passes // 8 * config.epochs} steps of 8 clips" in line
    start = model_folder(tmp_path / "labels", "classification")
    config, _ = chosen(tmp_path, task="segmentation", init_from=start)
    assert (config.neuron, config.design) == ("integer_lif", "spatial_only")
    config, _ = chosen(tmp_path, task="segmentation", model="ann_nano", design="joint")
    assert (config.neuron, config.design) == (None, "joint")


def test_classes_without_sides_are_mirrored(clips, tmp_path):
    for name, other in (("left", "brightleft"), ("right", "jump")):
        for split in ("train", "val"):
            (tmp_path / split).mkdir(exist_ok=True)
            (tmp_path / split / other).symlink_to(clips / split / name)
    assert chosen(tmp_path)[0].augmentation.flip == 0.5


def test_enough_data_keep_the_defaults(clips, monkeypatch):
    monkeypatch.setattr("spikevideoformer.training.recipe.FEW", 12)
    assert FEW > 1000
    config, line = chosen(clips)
    assert line == ""
    assert config == TrainConfig(out="run", data=clips)


def test_an_epoch_of_several_passes_sees_every_clip_as_often():
    plan = StepPlan(clips=5, batch_size=2, micro_batches=1, seed=0, passes=4)
    assert plan.steps_per_epoch == 10
    steps = range(2 * plan.steps_per_epoch)
    seen = [key for batch in MicroBatches(plan, steps, rank=0, world_size=1) for key in batch]
    assert sorted(seen) == [(number, clip) for number in range(8) for clip in range(5)]
    one = StepPlan(clips=5, batch_size=2, micro_batches=1, seed=0)
    assert [clip for _, clip in one.order(3)] == [clip for number, clip in plan.order(0)[15:]]


@pytest.mark.parametrize("task", ["segmentation", "pose"])
def test_data_of_another_task_are_refused_as_always(clips, task):
    with pytest.raises(ValueError, match=str(clips)):
        chosen(clips, task=task)
