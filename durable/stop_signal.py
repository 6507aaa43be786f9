"""Ctrl-C in a run that is kept: once, and it ends behind the step that runs; twice, and it ends now."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from types import FrameType
from typing import Any


class RunInterrupted(KeyboardInterrupt):
    """The run was ended by Ctrl-C. Every finished step is in its folder, and the same call goes on from there."""


class StopSignal:
    """Listens to SIGINT while a run goes on. A context manager for the main thread; elsewhere it does nothing.

    The first signal only sets `is_asked`, which the run looks at between two steps; the second cancels the run's task,
    which interrupts the step; the third is Python's own business.
    """

    def __init__(self, folder: str = "") -> None:
        """`folder`: where the run is kept; "" and this does nothing."""
        self._folder = folder
        self._previous: Any = None
        self._is_installed = False
        self._task: asyncio.Task[Any] | None = None
        #: how often the user has pressed Ctrl-C
        self.count = 0

    @property
    def is_asked(self) -> bool:
        """Whether the run is to end behind the present step."""
        return self.count > 0

    def __enter__(self) -> StopSignal:
        self._task = asyncio.current_task()
        if self._folder and threading.current_thread() is threading.main_thread():
            self._previous = signal.getsignal(signal.SIGINT)
            # One that somebody has set for a purpose of their own (or a shell's "ignore") stays.
            owner = getattr(self._previous, "__self__", None)
            is_asyncio = type(owner).__module__ == "asyncio.runners" if owner is not None else False
            name = getattr(self._previous, "__module__", "") or ""
            if self._previous is signal.default_int_handler or is_asyncio or name.startswith(("asyncio", "functools")):
                signal.signal(signal.SIGINT, self._on_signal)
                self._is_installed = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_installed:
            self._is_installed = False
            with contextlib.suppress(ValueError):
                signal.signal(signal.SIGINT, self._previous)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, between two of its bytecodes."""
        self.count += 1
        if self.count == 1:
            self._say("Ctrl-C: the step that runs is finished and recorded first. Press it again to interrupt it now.")
        elif self.count == 2 and self._task is not None:
            self._say("Ctrl-C: the step is interrupted.")
            self._task.get_loop().call_soon_threadsafe(self._task.cancel)
        else:
            signal.default_int_handler(number, frame)

    @staticmethod
    def _say(text: str) -> None:
        with contextlib.suppress(Exception):  # there may be no stderr
            print(f"\n{text}", file=sys.stderr, flush=True)

    def check(self) -> None:
        """Between two steps.

        Raises:
            RunInterrupted: Ctrl-C was pressed.
        """
        if self.is_asked:
            raise self.interrupted()

    def interrupted(self) -> RunInterrupted:
        """The error that ends the run; it says how to go on."""
        return RunInterrupted(
            f"The run was stopped by Ctrl-C. Everything that is finished is in {self._folder}: call run() again with "
            "the same arguments, or start the same script again, and it goes on from there."
        )

    def was_cancelled(self) -> bool:
        """Whether a cancellation that has arrived is ours: of the second Ctrl-C. Then it is over with this."""
        if self.count < 2 or self._task is None:
            return False
        uncancel = getattr(self._task, "uncancel", None)  # Python 3.11
        if uncancel is not None:
            uncancel()
        return True
