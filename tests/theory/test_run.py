"""The whole of `svf theory`: files, table, and arguments that make no sense."""

import json
from pathlib import Path

import pytest

from spikevideoformer.theory import run as theory
from spikevideoformer.theory.collision import find_collision
from spikevideoformer.theory.network import measure_files
from spikevideoformer.theory.projections import measure_errors, measure_order
from spikevideoformer.theory.run import TheoryResult, format_table, run, write
from spikevideoformer.video.frames import VideoError


def refuse(error: VideoError) -> None:
    raise AssertionError(error)


@pytest.fixture(scope="module")
def result(model_folder: Path, video_folder: Path) -> TheoryResult:
    """A small one."""
    return TheoryResult(
        seed=0,
        errors=measure_errors((8, 64, 512), pairs=200),
        orders=measure_order((8, 64), (0.5, 0.1), queries=5, keys=20),
        collision=find_collision(),
        network=measure_files(model_folder, [video_folder / "one.mp4"], failed=refuse),
    )


def test_what_is_written(result: TheoryResult, tmp_path: Path) -> None:
    pictures = {"error_vs_D.png", "tail.png", "rank_correlation.png", "collision.png", "qk.png"}
    assert {path.name for path in write(result, tmp_path)} == {"theory.json", *pictures}
    assert {path.name for path in tmp_path.iterdir()} == {"theory.json", *pictures}
    for name in pictures:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "theory.json").read_text()) == json.loads(
        json.dumps(result.to_dict())
    )


def test_json_has_the_bounds_beside_the_tail(result: TheoryResult) -> None:
    found = result.to_dict()
    of_64 = found["errors"][1]
    assert of_64["width"] == 64
    assert of_64["paper_bound"][found["deltas"].index(0.2)] == pytest.approx(0.1546, abs=1e-4)
    assert of_64["hoeffding_bound"][found["deltas"].index(0.2)] == pytest.approx(0.0120, abs=1e-4)
    assert len(of_64["tail"]) == len(of_64["paper_bound"])


def test_table(result: TheoryResult) -> None:
    text = format_table(result)
    assert all(len(line) <= 130 for line in text.splitlines() if "videos:" not in line)
    errors, orders, collision, network = text.split("\n\n")
    assert errors.splitlines()[2].split()[0] == "8"
    assert errors.splitlines()[2].endswith("-          -")  # bounds of 2 exp(-0.08) and more
    assert errors.splitlines()[4].split()[-2:] == ["0.012", "7.1e-05"]
    wanted = [f"{o.hamming:.3f} / {o.dot:.3f}" for o in result.orders if o.width == 64]
    assert all(cell in orders.splitlines()[-1] for cell in wanted)
    assert collision.count(f"q.k = {result.collision.dot[0]}") == 4
    assert result.network is not None
    assert [line.split()[0] for line in network.splitlines()[2:]] == [
        layer.layer for layer in result.network.layers
    ]


def test_run_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seeds = []

    def small_errors(*, seed: int) -> object:
        seeds.append(seed)
        return measure_errors((8, 64), pairs=20, seed=seed)

    def small_order(*, seed: int) -> object:
        seeds.append(seed)
        return measure_order((8, 64), queries=2, keys=10, seed=seed)

    monkeypatch.setattr(theory, "measure_errors", small_errors)
    monkeypatch.setattr(theory, "measure_order", small_order)
    told: list[str] = []
    result = run(seed=5, out=tmp_path, tell=told.append, failed=refuse)
    assert seeds == [5, 5]
    assert len(told) == 3
    assert result.network is None
    assert result.to_dict()["network"] is None
    assert not (tmp_path / "qk.png").exists()
    assert (tmp_path / "tail.png").exists()
