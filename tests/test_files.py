"""Files are whole or absent, and nothing is left beside them."""

import multiprocessing
import time
from pathlib import Path

import matplotlib.image
import pytest
from matplotlib.figure import Figure

from spikevideoformer.files import hidden_part, locked, save_figure, write_atomically, write_text


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    write_atomically(path, lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"new")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_names_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("folder", "absent/a"):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - which error it is differs
            write_text(tmp_path / name, "text")
        assert caught.value.filename == str(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_texts_are_utf8_and_figures_png(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "T² µ")
    assert (tmp_path / "a.txt").read_bytes() == "T² µ".encode()
    save_figure(Figure(figsize=(2, 1), dpi=50), tmp_path / "a.png")
    assert matplotlib.image.imread(tmp_path / "a.png").shape == (50, 100, 4)


@pytest.mark.parametrize("name", ["x" * 251 + ".txt", "é" * 125 + ".txt", "." + "y" * 250])
def test_names_as_long_as_they_may_be(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    hidden_part(tmp_path / name).touch()  # its name fits, too


def test_a_folder_is_locked_for_others_and_not_by_what_is_forked(tmp_path: Path) -> None:
    with locked(tmp_path):
        fork = multiprocessing.get_context("fork")
        started = fork.Event()
        other = fork.Process(target=lambda: (started.set(), time.sleep(30)))
        other.start()
        assert started.wait(30)
        with pytest.raises(ValueError, match="is in use by another process"), locked(tmp_path):
            pass
    try:
        with locked(tmp_path):  # free, though a child of its holder lives
            pass
    finally:
        other.kill()
        other.join()
