"""SIGTERM ends a process as Ctrl-C does: what is half done is put away first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


_arrived = False
"""Python drops what a signal raises inside a destructor; `Interrupt` looks here once more."""


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises `Terminated` in the main thread."""
    global _arrived
    _arrived = False
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _arrived = False


def _raise(_number: int, _frame: FrameType | None) -> None:
    global _arrived
    _arrived = True
    raise Terminated


class InterruptedBetweenSteps(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, held back until the state was whole."""


class Interrupt:
    """Lets Ctrl-C and SIGTERM wait until the state is whole; a second one does not wait."""

    def __init__(self) -> None:
        self.requested = self.terminated = _arrived

    def __enter__(self) -> Interrupt:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.terminated = self.terminated or number == signal.SIGTERM
        if self.requested:
            raise self.reason()
        self.requested = True

    def reason(self) -> KeyboardInterrupt:
        """What to end with."""
        return Terminated() if self.terminated else KeyboardInterrupt()

    def check(self) -> None:
        """Raise if there was one. To be called only where the state is whole."""
        if self.requested:
            raise InterruptedBetweenSteps
