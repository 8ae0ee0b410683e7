"""What inputs stand for: order, each once, and a reason for those that stand for nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from spikevideoformer.video.frames import VideoError
from spikevideoformer.video.inputs import expand_inputs, videos_among


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    """A folder of empty files; what is a video in it, in order."""
    for name in (
        "b.mp4",
        "a.MKV",
        "notes.txt",
        "sub/z.avi",
        ".hidden/x.mp4",
        ".x.mp4",
        "odd[1].mp4",
        "sub2/frames/0.png",
        "sub2/frames/1.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    names = ("a.MKV", "b.mp4", "odd[1].mp4", "sub/z.avi", "sub2/frames")
    return [tmp_path / name for name in names]


def test_folders(tmp_path: Path, videos: list[Path]) -> None:
    found = list(expand_inputs([tmp_path]))
    assert found == [str(path) for path in videos]
    assert list(expand_inputs(found)) == found
    assert list(expand_inputs([str(videos[-1])])) == [str(videos[-1])]


def test_recordings_of_events_where_there_is_no_video(tmp_path: Path, videos: list[Path]) -> None:
    for name in ("rec/b.npz", "rec/a.aedat4", "rec/list.csv", "rec/note.txt", "sub/truth.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(expand_inputs([tmp_path / "rec"])) == [
        str(tmp_path / "rec" / name) for name in ("a.aedat4", "b.npz")
    ]
    assert list(expand_inputs([tmp_path / "sub"])) == [str(tmp_path / "sub" / "z.avi")]
    table = str(tmp_path / "rec" / "list.csv")
    assert list(expand_inputs([table])) == [table]


def test_globs_and_each_once(tmp_path: Path, videos: list[Path]) -> None:
    """A name with brackets is that file before it is a pattern."""
    inputs = [tmp_path / "odd[1].mp4", tmp_path / "*.mp4", f"{tmp_path}/./b.mp4"]
    assert list(expand_inputs([*inputs, tmp_path / "notes.txt"])) == [
        str(tmp_path / name) for name in ("odd[1].mp4", "b.mp4", "notes.txt")
    ]
    assert list(expand_inputs([f"{tmp_path}/**/*.avi"])) == [str(tmp_path / "sub" / "z.avi")]


def test_pictures_by_themselves(tmp_path: Path, videos: list[Path]) -> None:
    """One that is named is meant; those of a folder are where it is said."""
    (tmp_path / "cover.jpg").touch()
    still = str(videos[-1] / "1.png")
    assert list(expand_inputs([still, f"{tmp_path}/*.jpg"])) == [still, str(tmp_path / "cover.jpg")]
    found = list(expand_inputs([tmp_path], stills=True))
    names = ("a.MKV", "b.mp4", "cover.jpg", "odd[1].mp4", "sub/z.avi")
    names += ("sub2/frames/0.png", "sub2/frames/1.png")
    assert found == [str(tmp_path / name) for name in names]
    assert videos_among([f"{tmp_path}/sub2/*"], stills=True)[0] == found[-2:]


def test_arrays_stay_as_they_are(videos: list[Path]) -> None:
    array = np.zeros((2, 8, 8, 3), np.uint8)
    tensor = torch.from_numpy(array)
    found = list(expand_inputs([array, videos[1], tensor, array]))
    assert found[1] == str(videos[1])
    assert [found[i] is given for i, given in ((0, array), (2, tensor), (3, array))] == [True] * 3


def test_inputs_that_stand_for_nothing(tmp_path: Path, videos: list[Path]) -> None:
    inputs = [tmp_path / "empty", tmp_path / "b.mp4", tmp_path / "no.mp4", tmp_path / "*.webm"]
    empty, video, absent, pattern = expand_inputs(inputs)
    assert video == str(tmp_path / "b.mp4")
    for error, given, reason in (
        (empty, inputs[0], "no video in this folder"),
        (absent, inputs[2], "no such file"),
        (pattern, inputs[3], "matches no video"),
    ):
        assert isinstance(error, VideoError)
        assert str(error).startswith(f"{given}: {reason}")


@pytest.mark.parametrize(
    "given", ["0", 7, "/dev/video0", "http://h/a.mp4", "https://h/*.mp4", "rtsp://h:554/live"]
)
def test_cameras_and_addresses_are_not_read_yet(given: str | int) -> None:
    (error,) = expand_inputs([given])
    assert isinstance(error, VideoError)
    what = "cameras" if str(given)[0] in "07/" else "addresses"
    assert str(error).startswith(f"{given}: {what} are not read yet; ")
    assert "give the file" in error.reason


def test_a_file_may_have_a_number_for_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("0").touch()
    Path("a:b").touch()
    assert list(expand_inputs(["0", "a:b"])) == ["0", "a:b"]


def test_the_home_folder_in_a_glob(
    tmp_path: Path, videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list(expand_inputs(["~/sub/*.avi"])) == [str(tmp_path / "sub" / "z.avi")]


def test_videos_and_errors_apart(tmp_path: Path, videos: list[Path]) -> None:
    found, errors = videos_among([str(videos[0]), str(tmp_path / "no.mp4")])
    assert found == [str(videos[0])]
    assert [str(error.path) for error in errors] == [str(tmp_path / "no.mp4")]
    assert videos_among([]) == ([], [])
    with pytest.raises(VideoError, match="no such file"):
        videos_among([str(tmp_path / "no.mp4")])


def test_what_was_predicted_before_is_passed_over_and_told(tmp_path, videos, caplog) -> None:
    for name in ("b.svf.mp4", "b.svf.side.mp4", "b.svf.part.mp4", "sub/b.svf.masks/000000.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with caplog.at_level("INFO"):
        assert list(expand_inputs([tmp_path])) == [str(path) for path in videos]
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path}: passed over what svf predict wrote there (b.svf")
    assert "and 3 more" in line
    one = str(tmp_path / "b.svf.mp4")
    assert list(expand_inputs([one])) == [one]


def test_pictures_beside_videos_are_passed_over_and_told(tmp_path, videos, caplog) -> None:
    for name in ("thumb.jpg", "sub/cover.PNG"):
        (tmp_path / name).touch()
    with caplog.at_level("INFO"):
        assert list(expand_inputs([tmp_path])) == [str(path) for path in videos]
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path}: passed over pictures beside videos (thumb.jpg and 1 more)")


def test_links_to_folders_are_followed_once(tmp_path: Path, videos: list[Path]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "sub", target_is_directory=True)
    (tmp_path / "sub" / "round").symlink_to(tmp_path / "in", target_is_directory=True)
    assert list(expand_inputs([tmp_path / "in"])) == [str(tmp_path / "in" / "link" / "z.avi")]


def test_unknown_endings_are_told(tmp_path, videos, caplog) -> None:
    for name in ("a.heic", "b.r3d", "notes.txt", "Makefile"):
        (tmp_path / name).write_bytes(b"")
    with caplog.at_level("INFO", logger="spikevideoformer"):
        list(expand_inputs([tmp_path]))
    assert "files whose ending is of no video (a.heic and 1 more)" in caplog.text
