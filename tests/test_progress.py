"""Progress: pace, time left, and a total that nobody knows."""

import io

from spikevideoformer.progress import Progress, progress_on_stderr


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


def test_progress_counts_only_its_own_steps(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = Progress(total_steps=30, first_step=10, stream=stream)
    assert not progress.due()
    now[0] += 40.0
    assert progress.due()
    progress.show(20, "epoch 2/3")
    progress.clear()
    assert stream.getvalue() == "step:  67% 20/30 [00:40<00:40,  4.00s/it, epoch 2/3]\n"
    assert progress.left(20) == "00:40"


def test_progress_fits_the_terminal_and_is_wiped(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    progress = Progress(total_steps=30, first_step=0, stream=stream)
    progress.show(20, "epoch 2/3  loss 0.123, and much more that has no room")
    *_, line = stream.getvalue().split("\x1b[2K")
    assert line.startswith("step:  67%|") and len(line) == 59
    progress.clear()
    assert stream.getvalue().endswith("\r\x1b[2K")
    assert "\n" not in stream.getvalue()


def test_progress_of_a_long_check(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with progress_on_stderr("checked file") as tell:
        for done in range(1, 6):
            tell(done, 5)
            now[0] += 20.0
    assert capsys.readouterr().err == (
        "checked file:  60% 3/5 [00:40<00:40, 20.00s/it]\n"
        "checked file: 100% 5/5 [01:20<00:00, 20.00s/it]\n"
    )


def test_progress_without_a_known_end(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with progress_on_stderr("frame") as tell:
        for done in range(1, 4):
            tell(done, None)
            now[0] += 20.0
    assert capsys.readouterr().err == "frame: 3it [00:40, 20.00s/it]\n"
