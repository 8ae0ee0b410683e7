"""The clips of svf/scene-motion: cameras do what labels say, and a seed decides every byte."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from spikevideoformer.training import TrainConfig
from spikevideoformer.video.writing import write_video

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "scene_motion"
NAMES = ("cameras", "worlds", "recordings", "clips", "make_clips", "held_out", "sheet")


@pytest.fixture(scope="module")
def recipe():
    """The modules of the recipe, which is no package: its scripts import each other by name."""
    sys.path.insert(0, str(RECIPE))
    yield SimpleNamespace(**{name: import_module(name) for name in NAMES})
    sys.path.remove(str(RECIPE))
    for name in NAMES:
        del sys.modules[name]


@pytest.fixture(scope="module")
def panoramas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two panoramas as OpenEXR, one of which validates."""
    folder = tmp_path_factory.mktemp("panoramas")
    for seed, name in enumerate(("street", "lobby")):
        light = np.random.default_rng(seed).uniform(0, 4, (3, 16, 32)).astype(np.float32)
        with av.open(str(folder / f"{name}.exr"), "w", format="image2") as container:
            stream = container.add_stream("exr", rate=1)
            stream.width, stream.height, stream.pix_fmt = 32, 16, "gbrpf32le"
            frame = av.VideoFrame(32, 16, "gbrpf32le")
            for plane, values in zip(frame.planes, light[[1, 2, 0]], strict=True):
                row = np.zeros((16, plane.line_size // 4), np.float32)
                row[:, :32] = values
                plane.update(row.tobytes())
            for packet in (*stream.encode(frame), *stream.encode(None)):
                container.mux(packet)
        np.save(folder / f"{name}.npy", light)
    return folder


def test_panoramas_are_read_in_linear_light(recipe, panoramas) -> None:
    world = recipe.worlds.read_panorama(panoramas / "street.exr")
    wrap = recipe.worlds.WRAP
    light = torch.from_numpy(np.load(panoramas / "street.npy"))
    torch.testing.assert_close(world.picture[0, :, :, wrap:-wrap], light, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(world.picture[..., :wrap], world.picture[..., -2 * wrap : -wrap])


def _view(recipe, **values):
    usual = {"height": 32, "width": 48, "rate_hz": 24, "shutter": 0.5, "reach": 0.5}
    return recipe.clips.View(**{**usual, **values})


def _path(recipe, **moved):
    zero = np.zeros(2)
    values = {"x": zero, "y": zero, "roll": zero, "zoom": zero + 1}
    return recipe.cameras.CameraPath(**values | {k: np.array(v) for k, v in moved.items()})


def _seen(recipe, world, view, path):
    x, y = view.plane()
    rays = recipe.clips._rays(world, view, path, x, y, np.random.default_rng(0))
    return world.seen(rays)


@pytest.mark.parametrize("way", ["x", "y"])
def test_a_camera_that_is_shifted_by_pixels_shifts_pixels(recipe, way) -> None:
    world = recipe.worlds.Plane(torch.rand(1, 3, 128, 128), 4.0)
    view = _view(recipe)
    first, second = _seen(recipe, world, view, _path(recipe, **{way: [0.0, 5 / 32]}))
    dim = 2 if way == "x" else 1
    assert not torch.equal(first, second)
    torch.testing.assert_close(
        first.narrow(dim, 5, 27), second.narrow(dim, 0, 27), rtol=0, atol=1e-4
    )


def test_roll_and_zoom_are_about_the_middle(recipe) -> None:
    world = recipe.worlds.Plane(torch.rand(1, 3, 64, 64), 2.0)
    view = _view(recipe, width=32)
    first, turned = _seen(recipe, world, view, _path(recipe, roll=[0.0, np.pi / 2]))
    torch.testing.assert_close(turned, first.rot90(1, (1, 2)), rtol=0, atol=1e-4)
    near = _seen(recipe, world, view, _path(recipe, zoom=[1.0, 2.0]))[1]
    wide = _seen(recipe, world, _view(recipe, width=32, reach=0.25), _path(recipe))[0]
    torch.testing.assert_close(near, wide)


def test_a_whole_turn_ends_where_it_began(recipe, panoramas) -> None:
    world = recipe.worlds.read_panorama(panoramas / "street.exr")
    view = _view(recipe)
    turn = 2 * np.pi / (2 * np.arctan(view.reach))
    first, last, half = (
        _seen(recipe, world, view, _path(recipe, x=[0.0, part * turn]))[1] for part in (0, 1, 0.5)
    )
    torch.testing.assert_close(first, last, rtol=0, atol=2e-2)
    assert (first - half).abs().mean() > 0.1


@pytest.mark.parametrize("name", ["still", "pan", "tilt", "roll", "zoom", "shake", "moving_object"])
def test_cameras_do_what_the_label_says(recipe, name) -> None:
    t = np.linspace(0, 1.15, 200)
    for seed in range(30):
        path = recipe.cameras.camera_path(name, t, np.random.default_rng(seed))
        speed = {k: np.abs(np.diff(getattr(path, k)).sum()) / 1.15 for k in ("x", "y", "roll")}
        speed["zoom"] = abs(np.log(path.zoom[-1] / path.zoom[0])) / 1.15
        shaken = max(np.std(path.x), np.std(path.y))
        if name in ("still", "moving_object"):
            assert shaken < 3 * recipe.cameras.TREMOR
            assert speed["roll"] == speed["zoom"] == 0
        elif name in ("pan", "tilt"):
            along, across = ("x", "y") if name == "pan" else ("y", "x")
            assert 0.06 < speed[along] < 1.6 and speed[across] < 0.45 * speed[along]
        elif name == "roll":
            assert np.degrees(speed["roll"]) > 7 and speed["x"] < 0.1
        elif name == "zoom":
            assert speed["zoom"] > 0.6 * np.log(1.2) and speed["x"] < 0.1
        else:
            assert shaken > 0.005 and max(speed["x"], speed["y"]) < 0.3


def test_the_seed_decides_every_byte(recipe, panoramas, tmp_path, monkeypatch) -> None:
    shared = tmp_path / "shared"
    (shared / "people").mkdir(parents=True)
    (shared / "people" / "hdri").symlink_to(panoramas)
    frames = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), dtype=np.uint8)
    write_video(shared / "people" / "seen.mp4", frames, 25.0)
    monkeypatch.setattr(recipe.make_clips, "TRAINED", ("people/seen.mp4",))
    work = {"shared": shared, "seed": 3}
    for out in ("one", "two"):
        for name in ("pan", "moving_object"):
            (tmp_path / out / "train" / name).mkdir(parents=True)
        order = [("train", "pan", n) for n in range(5)] + [("train", "moving_object", 4)]
        for task in order if out == "one" else order[::-1]:
            recipe.make_clips.make(task, out=tmp_path / out, **work)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.mp4"))
    assert len(files) == 6
    contents = [(tmp_path / "one" / f).read_bytes() for f in files]
    assert contents == [(tmp_path / "two" / f).read_bytes() for f in files]
    assert len(set(contents)) == 6


def test_splits_do_not_share_a_panorama(recipe, panoramas) -> None:
    with pytest.raises(ValueError, match="no panorama"):
        recipe.make_clips.panoramas(panoramas / "nowhere", "train")
    train, val = (recipe.make_clips.panoramas(panoramas, s)[0] for s in ("train", "val"))
    assert not torch.equal(train.picture, val.picture)


def test_recordings_that_judge_are_not_trained_on(recipe) -> None:
    judges = {*recipe.recordings.FIXED, *recipe.recordings.OTHER}
    assert judges.isdisjoint(recipe.recordings.TRAINED)


def test_intervals_are_over_recordings(recipe) -> None:
    mean, low, high = recipe.held_out.interval([1.0, 1.0, 0.0, 0.5])
    assert mean == 0.625 and 0 <= low < 0.625 < high <= 1
    assert recipe.held_out.interval([0.75, 0.75]) == (0.75, 0.75, 0.75)


def test_commands_of_the_readme_are_understood(recipe, monkeypatch) -> None:
    page = (RECIPE / "README.md").read_text()
    lines = [line.split() for line in page.splitlines() if line.startswith(("python ", "svf "))]
    assert len(lines) >= 4

    class UnderstoodError(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser: argparse.ArgumentParser) -> None:
        parse(parser)
        raise UnderstoodError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    for program, *words in lines:
        if program == "svf":
            assert words[:3] == ["train", "--config", "recipes/scene_motion/train.yaml"]
            config = TrainConfig.from_yaml(RECIPE / "train.yaml")
            assert config.spec.input == "events"
            continue
        path = RECIPE.parents[1] / words[0]
        assert path.is_file()
        if path.parent == RECIPE:  # pack.py is tested with the box
            monkeypatch.setattr(sys, "argv", words)
            with pytest.raises(UnderstoodError):
                getattr(recipe, path.stem).main()
