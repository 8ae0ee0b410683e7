"""Every recipe in configs/: two steps on small files in the layout of its data set."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spikevideoformer.cli import main
from spikevideoformer.settings import merged, read_yaml
from spikevideoformer.training import TrainConfig, train
from spikevideoformer.training.checkpoint import load_checkpoint

from .tasks.pose.poses import write_3dpw, write_human36m, write_mmhpsd, write_rendered
from .tasks.segmentation import test_camvid, test_cityscapes
from .tasks.segmentation.frames import flat, picture, write

pytestmark = pytest.mark.usefixtures("undrawn")

Make = Callable[[Path, Callable[..., Path]], object]
CONFIGS = Path(__file__).parents[1] / "configs"
RECIPES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
SMALL: dict[str, Any] = {
    "model": "svf_nano",
    "frames": 2,
    "size": 32,
    "epochs": 1,
    "passes": 1,
    "batch_size": 2,
    "accumulate": 1,
    "warmup_epochs": 0,
    "norm_clips": 2,
    "device": "cpu",
    "precision": "32-true",
    "workers": 0,
    "init_from": None,
}


def kinetics(root: Path, make_video: Callable[..., Path]) -> None:
    header = "label,youtube_id,time_start,time_end,split\n"
    for split, ids in (("train", "abcd"), ("val", "ef")):
        rows = [f"{('bowing', 'waving')[i % 2]},{name},0,10,{split}" for i, name in enumerate(ids)]
        write(root / f"annotations/{split}.csv", header + "\n".join(rows) + "\n")
        for name in ids:
            make_video(root / split / f"{name}_000000_000010.mp4")


def something(root: Path, make_video: Callable[..., Path]) -> None:
    labels = ["Holding something", "Pushing something"]
    write(root / "labels/labels.json", json.dumps({name: str(i) for i, name in enumerate(labels)}))
    for split, ids in (("train", range(4)), ("validation", range(4, 6))):
        rows = [
            {"id": str(i), "template": labels[i % 2].replace("some", "[some") + "]"} for i in ids
        ]
        write(root / f"labels/{split}.json", json.dumps(rows))
        for i in ids:
            make_video(root / f"20bn-something-something-v2/{i}.webm")


def ucf101(root: Path, make_video: Callable[..., Path]) -> None:
    lists, classes = root / "ucfTrainTestlist", ("Archery", "Bowling")
    write(lists / "classInd.txt", "".join(f"{i} {name}\n" for i, name in enumerate(classes, 1)))
    for file, groups in (("trainlist01", (8, 9)), ("testlist01", (1,))):
        clips = [f"{name}/v_{name}_g{g:02d}_c01.avi" for name in classes for g in groups]
        write(lists / f"{file}.txt", "".join(f"{c} {1 + ('Bow' in c)}\n" for c in clips))
        for clip in clips:
            make_video(root / "UCF-101" / clip)


def hmdb51(root: Path, make_video: Callable[..., Path]) -> None:
    for name in ("brush_hair", "shoot_ball"):
        clips = [f"{film}_{name}_u_nm_np1_fr_goo_0.avi" for film in ("April", "May", "June")]
        rows = [f"{clip} {kind} \n" for clip, kind in zip(clips, (1, 1, 2), strict=True)]
        write(root / f"testTrainMulti_7030_splits/{name}_test_split1.txt", "".join(rows))
        for clip in clips:
            make_video(root / name / clip)


def imagenet(root: Path, _: object) -> None:
    for split, count in (("train", 2), ("val", 1)):
        for name in ("n01440764", "n01443537"):
            for i in range(count):
                picture(root / split / name / f"{name}_{i}.JPEG", 40, 48)


def cityscapes(root: Path, _: object) -> None:
    for split, city, numbers in (("train", "aachen", range(4)), ("val", "lindau", range(1))):
        for number in numbers:
            stem = f"{city}_{number:06d}_000019"
            picture(test_cityscapes.image(root, split, stem), 32, 64)
            label = test_cityscapes.label(root, split, stem)
            flat(label, 7 + number % 2, 32, 64)


def camvid(root: Path, _: object) -> None:
    for stem in (
        "0001TP_006690",
        "0001TP_006720",
        "0001TP_006750",
        "0001TP_006780",
        "0006R0_f00930",
    ):
        picture(root / test_camvid.IMAGES / f"{stem}.png", 32, 48)
        flat(root / test_camvid.LABELS / f"{stem}_L.png", test_camvid.BUILDING, 32, 48)


def vspw(root: Path, _: object) -> None:
    for split, count in (("train", 4), ("val", 1)):
        videos = [f"{split}{i}" for i in range(count)]
        write(root / f"{split}.txt", "\n".join(videos) + "\n")
        for video in videos:
            picture(root / f"data/{video}/origin/00000001.jpg", 32, 48)
            flat(root / f"data/{video}/mask/00000001.png", 1 + count % 2, 32, 48)


CROP = {"crop_height": 32, "crop_width": 32}
LAID_OUT: dict[str, tuple[Make, dict[str, Any]]] = {
    "kinetics400_15m": (kinetics, {}),
    "ssv2_15m": (something, {}),
    "ucf101_15m": (ucf101, {}),
    "hmdb51_15m": (hmdb51, {}),
    "imagenet1k_15m": (imagenet, {"frames": 1}),
    "motion_actions_nano": (kinetics, {}),
    "cityscapes_15m": (cityscapes, {"segmentation": CROP}),
    "camvid_nano": (camvid, {"frames": 1, "segmentation": {**CROP, "passes": 1}}),
    "vspw_15m": (vspw, {"segmentation": CROP}),
    "mmhpsd_pose": (lambda root, _: write_mmhpsd(root, frames=9, pictures=False), {}),
    "human36m_pose": (lambda root, _: write_human36m(root, frames=8), {}),
    "3dpw_pose": (lambda root, _: write_3dpw(root), {}),
    "motion_pose_nano": (lambda root, _: write_rendered(root, frames=8), {}),
}
"""What lays out the data of each recipe, and what makes it small besides `SMALL`."""


def test_every_recipe_is_tried() -> None:
    assert sorted(LAID_OUT) == RECIPES


# the longer ones, of settings tried by others
SLOW = {"cityscapes_15m", "hmdb51_15m", "ucf101_15m", "vspw_15m", "3dpw_pose", "human36m_pose"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in RECIPES]
)
def test_two_steps(name: str, tmp_path: Path, make_video: Callable[..., Path]) -> None:
    make, smaller = LAID_OUT[name]
    make(tmp_path / "data", make_video)
    given = {"data": str(tmp_path / "data"), "out": str(tmp_path / "run")}
    settings = merged(merged(read_yaml(CONFIGS / f"{name}.yaml"), {**SMALL, **given}), smaller)
    result = train(TrainConfig.from_dict(settings))
    assert [row["step"] for row in result.history] == [2]
    assert load_checkpoint(tmp_path / "run/checkpoints/best.pt")["row"] == result.history[0]
    assert (result.model / "model.safetensors").is_file()


@pytest.mark.parametrize("name", RECIPES)
def test_absent_data_are_named_in_one_line(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", str(CONFIGS / f"{name}.yaml")]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    data = read_yaml(CONFIGS / f"{name}.yaml")["data"]
    assert f"data folder {data} does not exist; give the folder that holds" in line
    assert not list(tmp_path.iterdir())
