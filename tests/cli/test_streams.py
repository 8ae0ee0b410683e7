"""Standard streams that are closed, full or no longer read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

SVF = f"{sys.executable} -m spikevideoformer"


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True, timeout=100
    )


@pytest.mark.parametrize("streams", ["<&- 2>&-", ">&- 2>/dev/full"])
def test_the_work_is_done_all_the_same(model_folder, video_folder, tmp_path, streams):
    """Nor does what a library prints land in the files."""
    clip = video_folder / "one.mp4"
    words = f"--model {model_folder} {clip} --json --out {tmp_path}"
    done = shell(f"{SVF} predict {words} {streams}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "one.svf.mp4").read_bytes()[4:8] == b"ftyp"
    assert done.stderr == ""
    if streams.startswith("<"):
        assert json.loads(done.stdout)["path"] == str(clip)


def test_a_full_stdout_is_told_and_a_reader_may_leave(model_folder, video_folder):
    full = shell(f"{SVF} models >/dev/full")
    assert full.returncode == 2
    told = "svf: stdout: No space left on device; check the path, permissions and free space"
    assert full.stderr.splitlines() == [told]
    words = f"--model {model_folder} {video_folder}/one.mp4 {video_folder}/two.mkv"
    left = shell(f"{SVF} predict {words} | true")
    assert (left.returncode, left.stderr) == (0, "")


def test_wrong_usage_with_nobody_to_tell():
    assert shell(f"{SVF} predict --model {Path('/nowhere')} x.mp4 >&- 2>&-").returncode == 2
