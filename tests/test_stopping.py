"""Signals end a run, even one that arrives where Python drops what a handler raises."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spikevideoformer.stopping import (
    Interrupt,
    Interrupted,
    InterruptedBetweenSteps,
    Terminated,
    terminable,
)

ENDINGS = {signal.SIGTERM: Terminated, signal.SIGINT: Interrupted}


@pytest.mark.parametrize("number", ENDINGS)
def test_a_signal_raises(number: signal.Signals) -> None:
    with pytest.raises(ENDINGS[number]), terminable():
        os.kill(os.getpid(), number)


def test_ctrl_c_that_is_caught_inside_exec_does_not_kill_later(tmp_path: Path) -> None:
    """`python -m` ends by the signal where a plain KeyboardInterrupt passed `exec` of a string."""
    (tmp_path / "caught.py").write_text(
        "import os, signal, sys\n"
        "from spikevideoformer.stopping import terminable\n"
        "with terminable():\n"
        "    try:\n"
        "        exec('os.kill(os.getpid(), signal.SIGINT)')\n"
        "    except KeyboardInterrupt:\n"
        "        sys.exit(130)\n"
    )
    assert subprocess.run([sys.executable, "-m", "caught"], cwd=tmp_path).returncode == 130


@pytest.mark.parametrize("number", ENDINGS)
def test_one_that_a_destructor_swallowed_is_not_lost(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Thing:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)

    dropped: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", dropped.append)
    with terminable():
        thing = Thing()
        del thing
        with Interrupt() as interrupt, pytest.raises(InterruptedBetweenSteps):
            interrupt.check()
        assert type(interrupt.reason()) is ENDINGS[number]
    assert dropped
    with Interrupt() as interrupt:  # of the next run
        interrupt.check()
