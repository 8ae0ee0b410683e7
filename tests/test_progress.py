"""Progress: pace, time left, and a total that nobody knows."""

import io

import pytest

from spikevideoformer.progress import Progress, format_duration, progress_on_stderr


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


def test_progress_without_a_known_end(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with progress_on_stderr("frame") as tell:
        for done in range(1, 4):
            tell(done, None)
            now[0] += 20.0
    assert capsys.readouterr().err == "frame 3\n"
