"""Other programs, each with a deadline, and ended with everything they started where it passes."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .checkup import PACKAGE, Machine

#: what begins a line that is meant for us, among whatever libraries print
MARK = "discomfort-doctor:"

#: seconds that a part has to close its browser and server when it is interrupted
_PATIENCE = 8.0

# The programs that run now, for end_all(), and those of them that are parts.
_running: set[subprocess.Popen[str]] = set()
_parts: set[subprocess.Popen[str]] = set()


class Ended(NamedTuple):
    """A program that is over."""

    #: None where its time was over
    returncode: int | None
    stdout: str
    stderr: str
    #: seconds that it could take
    limit: float

    def describe(self) -> str:
        """How it ended, as the end of a sentence whose subject is the program."""
        return describe_end(self.returncode, self.stderr or self.stdout, self.limit)


def describe_end(returncode: int | None, output: str, limit: float) -> str:
    """How a program ended, with the last line that it printed."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith(MARK)]
    said = f": {lines[-1][:300]}" if lines else ""
    if returncode is None:
        return f"did not answer within {limit:g} s"
    if returncode >= 0:
        return f"ended with exit status {returncode}{said}"
    name = str(-returncode)
    with contextlib.suppress(ValueError):
        name += f" ({signal.Signals(-returncode).name})"
    return f"crashed, by signal {name}{said}"


def run(words: Sequence[str], limit: float, environment: Mapping[str, str] | None = None) -> Ended:
    """Run a program to its end, at most *limit* seconds.

    Raises:
        OSError: it cannot be started at all.
    """
    process = _start(words, environment)
    try:
        out, err = process.communicate(timeout=limit)
        return Ended(process.returncode, out, err, limit)
    except subprocess.TimeoutExpired:
        _end(process)
        out, err = "", ""
        # What it started may have left its group and hold the pipes.
        with contextlib.suppress(subprocess.TimeoutExpired):
            out, err = process.communicate(timeout=1)
        return Ended(None, out, err, limit)
    finally:
        _running.discard(process)


def _start(words: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        list(words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **(environment or {})},
        start_new_session=sys.platform != "win32",
    )
    _running.add(process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    """Kill a program and its group. A part is interrupted first: it closes its browser and its server then. Where it
    does not, their guard ends them.
    """
    if process in _parts and sys.platform != "win32":
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_PATIENCE)
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)


def end_all() -> None:
    """End what still runs: at the doctor's own end, after Ctrl-C or a deadline."""
    for process in list(_running):
        if process.poll() is None:
            _end(process)
        _running.discard(process)
        _parts.discard(process)


# ---- questions to an interpreter ----


class Answer(NamedTuple):
    """What probe.py told about an interpreter."""

    #: what it told, by subject
    facts: dict[str, Any]
    #: module -> why it cannot be imported, "" where it can
    imports: dict[str, str]
    ended: Ended

    @property
    def is_complete(self) -> bool:
        return bool(self.facts.get("done"))


def ask(python: Sequence[str], question: Mapping[str, Any], limit: float = 60.0) -> Answer:
    """Run probe.py in an interpreter. A module whose import ends the process has that as its error.

    Args:
        question: see probe.py.

    Raises:
        OSError: the interpreter cannot be started.
    """
    ended = run([*python, str(Path(__file__).with_name("probe.py")), json.dumps(question)], limit)
    facts: dict[str, Any] = {}
    imports: dict[str, str] = {}
    for told in _told(ended.stdout):
        if "import" in told:
            imports[told["import"]] = told["error"]
        else:
            facts.update(told)
    unfinished = facts.get("importing", "")
    if unfinished and unfinished not in imports:
        imports[unfinished] = f"Python {ended.describe()}"
    return Answer(facts, imports, ended)


def _told(output: str) -> list[dict[str, Any]]:
    lines = [line[len(MARK) :] for line in output.splitlines() if line.startswith(MARK)]
    told = []
    for line in lines:
        with contextlib.suppress(ValueError):  # cut in the middle
            told.append(json.loads(line))
    return told


# ---- parts of the doctor that run in a process of their own ----


class PartFailed(Exception):
    """The process ended, or its time did, before it had told what it was asked for."""


class Part:
    """``doctor --part NAME``: what may hang, crash or use much memory; see parts.py. It tells step by step."""

    def __init__(self, name: str, machine: Machine, *options: str) -> None:
        words = [sys.executable, str(PACKAGE), "doctor", "--part", name, *options]
        if machine.config_path is not None:
            words += ["--config", str(machine.config_path)]
        # Runs of the doctor are nobody's to watch.
        self._process = _start(words, {"DISCOMFORT_OBSERVE": "0"})
        _parts.add(self._process)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._complaints: list[str] = []
        self._steps: dict[str, dict[str, Any]] = {}
        #: whether it was ended before it came to its own end
        self.was_stopped = False
        for target in (self._read_output, self._read_complaints):
            threading.Thread(target=target, daemon=True).start()

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _read_complaints(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._complaints = [*self._complaints[-20:], line]

    def wait_for(self, step: str, limit: float) -> dict[str, Any]:
        """What was told about a step. Blocks until it is, at most *limit* seconds.

        Raises:
            PartFailed: it never will be; the process is ended.
        """
        deadline = time.monotonic() + limit
        while step not in self._steps:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self.end()
                raise PartFailed(f"it did not come to an end within {limit:g} s, and was stopped") from None
            if line is None:
                returncode = self._process.wait()
                raise PartFailed(f"its process {describe_end(returncode, ''.join(self._complaints), limit)}")
            for told in _told(line):
                self._steps[told["step"]] = told
        return self._steps[step]

    def end(self, patience: float = 0.0) -> None:
        """End the process, unless it ends by itself within so many seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=0 if self.was_stopped else patience)
        if self._process.poll() is None:
            self.was_stopped = True
            _end(self._process)
        _running.discard(self._process)
        _parts.discard(self._process)
