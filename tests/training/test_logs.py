from spikevideoformer.tasks.classification.metrics import ClassificationMetrics
from spikevideoformer.tasks.classification.plots import plot_confusion
from spikevideoformer.training.logs import TensorBoardLog, write_metrics
from spikevideoformer.training.plots import plot_learning_curves

ROW = {"train_loss": 1.0, "val_loss": 1.2, "train_top1": 0.5, "val_top1": 0.4}


def test_metrics_file_is_the_history(tmp_path):
    path = tmp_path / "metrics.csv"
    write_metrics([], path)
    assert path.read_text() == ""
    write_metrics([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}], path)
    assert path.read_text() == "epoch,loss\n1,0.5\n2,0.25\n"


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
