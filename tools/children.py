"""Child processes: starting one at a time, passing signals on, showing progress, and ending it for sure.

Every child gets a session of its own. A Ctrl-C on the terminal then reaches `./dev` alone, which passes it on
exactly once; without that, pytest would get it twice (from the terminal and from us) and skip its clean-up.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

# Lines of a failed child's output that are shown; the whole is in the log file.
TAIL_LINES = 25

# Seconds between two lines of progress where there is no terminal to redraw one on (a CI log).
LOG_INTERVAL = 15.0


class Stopped(BaseException):
    """The user or the system told us to stop (Ctrl-C, SIGTERM, SIGHUP); no child of ours is left.

    A BaseException, like KeyboardInterrupt, so that no `except Exception` on the way swallows it.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class StepFailed(Exception):
    """A step of the set-up failed; the message is complete and meant for the user."""


def say(text: str) -> None:
    """Writes one line to stderr: stdout belongs to the commands that ./dev runs."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """One step's progress: a line that redraws itself on a terminal, a line now and then in a log."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.detail = ""
        self._started = time.monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._next_line = self._started + LOG_INTERVAL
        if not self._is_terminal:
            say(f"{title} ...")

    @property
    def seconds(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self._started

    def draw(self) -> None:
        """Shows where the step stands. Cheap: call it as often as you like."""
        if self._is_terminal:
            # A line that wraps could not be redrawn. Some terminals say they have no columns.
            width = max(40, os.get_terminal_size(sys.stderr.fileno()).columns or 80)
            line = f"{self.title}: {self.detail or '...'}"[: width - 10] + f" ({self.seconds:.0f} s)"
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LOG_INTERVAL
            say(f"    {self.detail} ({self.seconds:.0f} s)")

    def end(self, result: str) -> None:
        """Replaces the line by the step's result: "done", "failed", "stopped"."""
        start = "\r\033[K" if self._is_terminal else ""
        say(f"{start}{self.title}: {result} ({self.seconds:.1f} s)")


class Supervisor:
    """Runs one child at a time; what we are told by a signal, the child is told too.

    The handler never raises while there is a child (or one is being started): the child ends first, then
    `Stopped` is raised from the wait. That order is what keeps a Ctrl-C from leaving a pip or a browser
    behind.
    """

    def __init__(self) -> None:
        # The child that runs now, the leader of its own session; None between two children.
        self._child: subprocess.Popen[bytes] | None = None
        # True from before a child is started until it is in `_child`.
        self._is_starting = False
        # The last signal we got; None as long as there was none.
        self._signum: int | None = None

    def install(self) -> None:
        """Takes over the signals that mean "stop". Call once, from the main thread."""
        signals = [signal.SIGINT, signal.SIGTERM]
        if sys.platform != "win32":
            signals.append(signal.SIGHUP)
        for signum in signals:
            signal.signal(signum, self._on_signal)

    def call(
        self, argv: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None, grace: float = 60.0
    ) -> int:
        """Runs a child on our own stdin, stdout and stderr and returns its exit status.

        Args:
            argv: The command.
            cwd: Its working directory.
            env: Its environment; None means ours.
            grace: Seconds it has for its clean-up after a signal, before it is killed.

        Raises:
            Stopped: We were told to stop; the child has ended.
        """
        child = self._start(argv, cwd=cwd, env=env)
        try:
            return self._wait(child, grace, lambda: None)
        finally:
            self._child = None

    def step(
        self,
        title: str,
        argv: Sequence[str | Path],
        *,
        cwd: Path,
        log: Path,
        describe: Callable[[str], str | None] = lambda line: line,
        env: Mapping[str, str] | None = None,
        limit: float | None = None,
        silence: float | None = None,
        keep_open: Sequence[int] = (),
    ) -> None:
        """Runs a child behind a progress line; its whole output goes to a log file.

        Args:
            title: What the step does, as the user should read it.
            argv: The command.
            cwd: Its working directory.
            log: File that the output is appended to.
            describe: Makes a few words for the progress line from a line of output; None keeps the old.
            env: Its environment; None means ours.
            limit: Seconds it may take in all; None means no limit.
            silence: Seconds without a line of output after which it counts as hung; None means no limit.
            keep_open: File descriptors the child inherits (the set-up's lock).

        Raises:
            StepFailed: It ended with another status than 0, could not be started, or ran over a limit.
            Stopped: We were told to stop; the child has ended.
        """
        progress = Progress(title)
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        result = "failed"
        try:
            problem = self._watch(argv, cwd, log, describe, env, limit, silence, keep_open, progress, tail)
            result = "failed" if problem else "done"
        except Stopped:
            result = "stopped"
            raise
        finally:
            progress.end(result)
        if problem:
            shown = "\n".join(f"    {line}" for line in tail)
            command = " ".join(map(str, argv))
            raise StepFailed(f"{title}: {problem}.\n{shown}\nThe command was: {command}\nAll of its output: {log}")

    def _watch(
        self,
        argv: Sequence[str | Path],
        cwd: Path,
        log: Path,
        describe: Callable[[str], str | None],
        env: Mapping[str, str] | None,
        limit: float | None,
        silence: float | None,
        keep_open: Sequence[int],
        progress: Progress,
        tail: deque[str],
    ) -> str | None:
        """Runs the child of `step`; returns what went wrong in a few words, None where nothing did."""
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            child = self._start(argv, cwd=cwd, env=env, is_piped=True, keep_open=keep_open)
        except OSError as error:
            return f"cannot be started: {error}"
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        reader = threading.Thread(target=_read_lines, args=(child, log, lines), daemon=True)
        reader.start()
        last_output = time.monotonic()
        overrun: list[str] = []

        def tick() -> None:
            nonlocal last_output
            while True:
                try:
                    line = lines.get_nowait()
                except queue.Empty:
                    break
                last_output = time.monotonic()
                tail.append(line)
                progress.detail = describe(line) or progress.detail
            progress.draw()
            if overrun:
                return
            if limit is not None and progress.seconds > limit:
                overrun.append(f"stopped after {limit:.0f} s")
            elif silence is not None and time.monotonic() - last_output > silence:
                overrun.append(f"stopped after {silence:.0f} s without progress")
            if overrun:
                _kill_group(child)

        try:
            status = self._wait(child, grace=10.0, tick=tick)
            reader.join(timeout=5.0)
            tick()
        finally:
            self._child = None
        if overrun:
            return overrun[0]
        return f"ended with status {status}" if status else None

    def _start(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: Path,
        env: Mapping[str, str] | None,
        is_piped: bool = False,
        keep_open: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        self._is_starting = True
        try:
            child = subprocess.Popen(
                [str(word) for word in argv],
                cwd=cwd,
                env=None if env is None else dict(env),
                stdin=subprocess.DEVNULL if is_piped else None,
                stdout=subprocess.PIPE if is_piped else None,
                stderr=subprocess.STDOUT if is_piped else None,
                start_new_session=True,
                preexec_fn=_interrupt_when_orphaned(),
                # Handles are not inherited this way on Windows, and naming one there is an error.
                pass_fds=() if sys.platform == "win32" else tuple(keep_open),
            )
            self._child = child
        finally:
            self._is_starting = False
        if self._signum is not None:  # it came between the two lines above that start and note the child
            _signal_group(child, self._signum)
        return child

    def _wait(self, child: subprocess.Popen[bytes], grace: float, tick: Callable[[], None]) -> int:
        """Waits for the child's end, calling `tick` five times a second; raises Stopped after a signal."""
        deadline: float | None = None
        while True:
            try:
                status = child.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                tick()
            if self._signum is not None and deadline is None:
                deadline = time.monotonic() + grace
            if deadline is not None and time.monotonic() > deadline:
                _kill_group(child)
        if self._signum is not None:
            _kill_group(child)  # what the child itself started and did not end
            raise Stopped(self._signum)
        return status

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self._signum = signum
        if self._child is not None:
            _signal_group(self._child, signum)
        elif not self._is_starting:
            raise Stopped(signum)


def _read_lines(child: subprocess.Popen[bytes], log: Path, lines: queue.SimpleQueue[str]) -> None:
    """Thread: copies the child's output to the log and hands out its lines (a carriage return ends one)."""
    assert child.stdout is not None
    with child.stdout, log.open("ab") as file:
        rest = b""
        while chunk := os.read(child.stdout.fileno(), 65536):
            file.write(chunk)
            file.flush()
            *complete, rest = re.split(rb"[\r\n]", rest + chunk)
            for line in complete:
                if text := line.decode("utf-8", "replace").rstrip():
                    lines.put(text)
        if rest:
            lines.put(rest.decode("utf-8", "replace"))


def _interrupt_when_orphaned() -> Callable[[], object] | None:
    """What a child runs before its command, so that it gets a Ctrl-C when we are killed (kill -9); None off Linux.

    Other systems have no such thing: there, an orphaned pip or pytest runs to its end.
    """
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl  # looked up before the fork: little is safe between fork and exec
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG in <linux/prctl.h>
    return lambda: prctl(set_parent_death_signal, int(signal.SIGINT), 0, 0, 0)


def _signal_group(child: subprocess.Popen[bytes], signum: int) -> None:
    """Sends a signal to the child and everything it started. On Windows the console has told them already."""
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signum)


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """Ends the child and everything it started that is still in its session."""
    if sys.platform == "win32":
        child.kill()
    else:
        _signal_group(child, signal.SIGKILL)
