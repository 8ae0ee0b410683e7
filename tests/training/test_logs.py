import io

import pytest

from spikevideoformer.tasks.classification import ClassificationMetrics
from spikevideoformer.training.logs import (
    Progress,
    TensorBoardLog,
    format_duration,
    progress_on_stderr,
    write_metrics,
)
from spikevideoformer.training.plots import plot_confusion, plot_learning_curves

ROW = {"train_loss": 1.0, "val_loss": 1.2, "train_top1": 0.5, "val_top1": 0.4}


def test_metrics_file_is_the_history(tmp_path):
    path = tmp_path / "metrics.csv"
    write_metrics([], path)
    assert path.read_text() == ""
    write_metrics([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}], path)
    assert path.read_text() == "epoch,loss\n1,0.5\n2,0.25\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.2, "0:01:00"), (3661, "1:01:01"), (90000, "25:00:00")]
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


def test_progress_counts_only_its_own_steps(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = Progress(total_steps=30, first_step=10, stream=stream)
    assert not progress.due()
    now[0] += 40.0
    assert progress.due()
    progress.show(20, "epoch 2/3")
    assert stream.getvalue() == "step 20/30  epoch 2/3  ETA 0:00:40\n"


def test_plots_are_png_files(tmp_path):
    metrics = ClassificationMetrics("ab")
    metrics.sums[2:] += 3
    plot_confusion(metrics.compute(), tmp_path / "confusion.png")
    history = [{"epoch": 1, **ROW}, {"epoch": 2, **ROW}]
    plot_learning_curves(history, "top1", ("top1", "top5"), tmp_path / "curves.png")
    for path in tmp_path.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_tensorboard_hides_what_is_done_again(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first_step, value in ((0, 1.0), (2, 2.0)):
        board = TensorBoardLog(tmp_path, first_step=first_step)
        for step in range(first_step, 4):
            board.add({"loss": value}, step=step, prefix="step")
        board.close()
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("step/loss")
    assert [(e.step, e.value) for e in events] == [(0, 1.0), (1, 1.0), (2, 2.0), (3, 2.0)]


def test_progress_of_a_long_check(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with progress_on_stderr("checked file") as tell:
        for done in range(1, 6):
            tell(done, 5)
            now[0] += 20.0
    assert (
        capsys.readouterr().err == "checked file 3/5  ETA 0:00:40\nchecked file 5/5  ETA 0:00:00\n"
    )
