"""Files are whole or absent, and nothing is left beside them."""

from pathlib import Path

import matplotlib.image
import pytest
from matplotlib.figure import Figure

from spikevideoformer.files import save_figure, write_atomically, write_text


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
