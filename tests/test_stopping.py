"""SIGTERM ends a run, even one that arrives where Python drops what a handler raises."""

import os
import signal
import sys

import pytest

from spikevideoformer.stopping import Interrupt, InterruptedBetweenSteps, Terminated, terminable


def test_sigterm_raises() -> None:
    with pytest.raises(Terminated), terminable():
        os.kill(os.getpid(), signal.SIGTERM)


def test_one_that_a_destructor_swallowed_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    class Thing:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    dropped: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", dropped.append)
    with terminable():
        thing = Thing()
        del thing
        with Interrupt() as interrupt, pytest.raises(InterruptedBetweenSteps):
            interrupt.check()
        assert isinstance(interrupt.reason(), Terminated)
    assert dropped
    with Interrupt() as interrupt:  # of the next run
        interrupt.check()
