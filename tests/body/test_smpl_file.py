"""A missing file of SMPL: the line says where to get it."""

from pathlib import Path

import pytest

from spikevideoformer.body.smpl_file import require_smpl_file


def test_missing_and_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^no file .*a.safetensors\. SMPL is licensed to "):
        require_smpl_file(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").touch()
    require_smpl_file(tmp_path / "a.safetensors")
