import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from spikevideoformer.training.checkpoint import (
    FORMAT,
    CheckpointError,
    CheckpointFolder,
    load_checkpoint,
    save_checkpoint,
)

from ..payload import Payload

STATE = {"step": 7, "model": {"w": torch.arange(1000.0)}, "history": [{"loss": 0.5}], "best": None}


def refusal(path: Path) -> str | None:
    try:
        load_checkpoint(path)
    except CheckpointError as error:
        return str(error)
    return None


def test_round_trip(tmp_path):
    save_checkpoint(tmp_path / "a.pt", STATE)
    back = load_checkpoint(tmp_path / "a.pt")
    assert torch.equal(back["model"]["w"], STATE["model"]["w"])
    assert (back["step"], back["history"], back["best"]) == (7, [{"loss": 0.5}], None)
    assert os.listdir(tmp_path) == ["a.pt"]


def test_every_flipped_bit_is_noticed_or_harmless(tmp_path):
    path = tmp_path / "a.pt"
    save_checkpoint(path, STATE)
    good, refused = path.read_bytes(), 0
    for position in range(0, len(good), 29):
        bad = bytearray(good)
        bad[position] ^= 1 << (position % 8)
        path.write_bytes(bad)
        error = refusal(path)
        if error is None:  # padding, or a zip field that nothing reads
            back = load_checkpoint(path)
            assert torch.equal(back["model"]["w"], STATE["model"]["w"])
            assert back["step"] == 7
        else:
            assert "\n" not in error
            assert str(path) in error
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = tmp_path / "a.pt"
    save_checkpoint(path, STATE)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        load_checkpoint(path)


def test_a_pickle_payload_is_refused_unexecuted(tmp_path):
    canary = tmp_path / "executed"
    torch.save({"format": FORMAT, "step": Payload(canary)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="other than tensors"):
        load_checkpoint(tmp_path / "a.pt")
    assert not canary.exists()

    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Payload(canary)))
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "plain.pt")
    assert not canary.exists()


@pytest.mark.parametrize("name", ["data.pkl", "archive/data.pkl"])
def test_a_pickle_smuggled_into_a_good_zip_is_refused(tmp_path, name):
    good, path, canary = io.BytesIO(), tmp_path / "a.pt", tmp_path / "executed"
    torch.save({"format": FORMAT}, good)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "w") as target:
        for item in source.namelist():
            is_pickle = item.endswith("data.pkl")
            content = pickle.dumps(Payload(canary)) if is_pickle else source.read(item)
            target.writestr(name if is_pickle else item, content)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    assert not canary.exists()


def test_a_foreign_file_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of svf train"):
        load_checkpoint(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        load_checkpoint(tmp_path / "absent.pt")


def test_the_folder_keeps_the_newest(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints", keep=2)
    assert folder.newest() is None
    for step in (8, 90, 100):
        folder.save(step, {"step": step})
    assert [p.name for p in folder.steps()] == ["step-00000100.pt", "step-00000090.pt"]
    path, state = folder.newest()
    assert (path.name, state["step"]) == ("step-00000100.pt", 100)


def test_leftovers_go_and_damaged_files_are_passed_over(tmp_path, caplog):
    folder = CheckpointFolder(tmp_path, keep=3)
    for step in (1, 2):
        folder.save(step, {"step": step})
    newest, older = folder.steps()
    (tmp_path / "step-00000003.pt.tmp").write_bytes(b"half")
    newest.write_bytes(newest.read_bytes()[:-50])
    assert folder.newest()[1]["step"] == 1
    assert newest.name in caplog.text
    assert not list(tmp_path.glob("*.tmp"))
    older.write_bytes(b"")
    with pytest.raises(CheckpointError, match=newest.name):
        folder.newest()
