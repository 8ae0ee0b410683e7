"""SIGTERM and Ctrl-C end a process alike: what is half done is put away first."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SAME_S = 1.0
"""Seconds in which several signals count as one."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C under `terminable`.

    A class of its own: after a plain `KeyboardInterrupt` inside `exec` of a string, which libraries
    do while they are imported, ``python -m`` ends by the signal even where it was caught.
    """


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


_arrived: type[KeyboardInterrupt] | None = None
"""Python drops what a signal raises inside a destructor; `Interrupt` looks here once more."""


@contextmanager
def terminable() -> Iterator[None]:
    """In the main thread SIGTERM raises `Terminated`, and Ctrl-C, unless ignored, `Interrupted`."""
    global _arrived
    _arrived = None
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _raise)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, _raise)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _arrived = None


def _raise(number: int, _frame: FrameType | None) -> None:
    global _arrived
    _arrived = Interrupted if number == signal.SIGINT else Terminated
    raise _arrived


class InterruptedBetweenSteps(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, held back until the state was whole."""


class Interrupt:
    """Lets Ctrl-C and SIGTERM wait until the state is whole; a second one does not wait.

    One that follows within `SAME_S` is the same: to a process group, and passed on by a parent.
    """

    def __init__(self) -> None:
        self._since_s = time.monotonic()
        self.requested = _arrived is not None
        self.terminated = _arrived is Terminated
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.terminated = self.terminated or number == signal.SIGTERM
        now_s = time.monotonic()
        if self.requested and now_s - self._since_s > SAME_S:
            raise self.reason()
        if not self.requested:
            self.requested, self._since_s = True, now_s

    def reason(self) -> KeyboardInterrupt:
        """What to end with; outside of `terminable` Ctrl-C stays Python's own."""
        if self.terminated:
            return Terminated()
        return Interrupted() if self._before.get(signal.SIGINT) is _raise else KeyboardInterrupt()

    def check(self) -> None:
        """Raise if there was one. To be called only where the state is whole."""
        if self.requested:
            raise InterruptedBetweenSteps
