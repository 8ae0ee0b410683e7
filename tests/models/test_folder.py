"""Which folder is meant: no network is asked for a name that is plainly a path."""

import socket
import threading
import time
from pathlib import Path

import huggingface_hub
import pytest

from spikevideoformer.models import folder as module
from spikevideoformer.models.folder import local_folder, read_about


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(*_args: object, **_options: object) -> str:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize(
    "name",
    [
        "nowhere",
        "a/b/c",
        "./owner/name",
        "../name",
        "/owner/name",
        "~/name",
        "~nobody-of-that-name/m",
        "owner/",
        "here/name",
    ],
)
def test_paths_that_are_not_there(name: str) -> None:
    Path("here").mkdir()
    with pytest.raises(ValueError, match=r"does not exist; give a model folder or a hub id"):
        local_folder(name)


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("demo/run/model", "svf demo"),
        ("demo/joint/model", "svf demo"),
        ("demo_masks/run/model", "svf demo --task segmentation"),
        ("demo_pose/run/model", "svf demo --task pose"),
    ],
)
def test_demos_that_were_not_made(name: str, command: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} does not exist; `{command}` makes it"):
        local_folder(name)


@pytest.mark.usefixtures("no_hub")
def test_the_home_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert local_folder("~/model") == tmp_path / "model"
    with pytest.raises(ValueError, match=r"config.json is missing"):
        read_about("~/model")


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HUB_TIMEOUT_S", 0.2)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, and says nothing
        monkeypatch.setattr(
            huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}"
        )
        threading.Thread(target=_accept, args=(server,), daemon=True).start()
        begin = time.monotonic()
        with pytest.raises(ValueError, match=r"^no folder owner/name here, and the hub"):
            local_folder("owner/name")
        assert time.monotonic() - begin < 20


def _accept(server: socket.socket) -> None:
    held = []
    while True:
        try:
            held.append(server.accept())
        except OSError:
            return
