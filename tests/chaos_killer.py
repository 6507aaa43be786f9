"""Kills tests/chaos_run.py again and again until it has ended, and checks that nobody could tell from what it made.

Two processes die: the orchestrator, which is started again with the same arguments, and the nested server, which the
run itself restarts. When is chosen by a seeded generator, among moments that are watched for from outside::

    starting    seconds after the start of the process (of the server: after it has appeared)
    preparing   between the server's being there and the run's beginning
    resuming    while the record is read, values are restored, and the session is described
    step        while a node executes
    between     after a step's line has come into the journal
    objects     when a file appears in objects/, or goes
    journal     when the journal grows
    pictures    when a thumbnail or a collected picture is written
    report      when report.html is written

A process that has ended by itself in the meantime is started again too: a finished run is asked for once more.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import chaos_run
import psutil
from discomfort.durable.run_folder import from_line, object_name

Json = dict[str, Any]

TESTS = Path(__file__).resolve().parent
SHM = "/dev/shm" if os.path.isdir("/dev/shm") else None

#: (who is killed, at which moment): how often it is chosen in comparison with the others
MOMENTS = {
    ("orchestrator", "starting"): 2,
    ("orchestrator", "preparing"): 2,
    ("orchestrator", "resuming"): 2,
    ("orchestrator", "step"): 3,
    ("orchestrator", "between"): 3,
    ("orchestrator", "objects"): 4,
    ("orchestrator", "journal"): 3,
    ("orchestrator", "pictures"): 2,
    ("orchestrator", "report"): 2,
    ("server", "starting"): 1,
    ("server", "preparing"): 1,
    ("server", "step"): 4,
    ("server", "between"): 2,
}
# What a short test takes. A killed orchestrator costs a new session, a killed server less.
SHORT = (
    ("orchestrator", "objects"), ("server", "step"), ("orchestrator", "pictures"), ("server", "between"),
    ("orchestrator", "resuming"), ("orchestrator", "journal"), ("orchestrator", "report"),
)  # fmt: skip
# Those that come in a run whose steps are all done.
_WITHOUT_STEPS = frozenset({"starting", "preparing", "report"})
# Seconds that pass between a moment and the kill, at most.
_DELAYS = {
    "starting": 3.0, "preparing": 0.5, "resuming": 0.3, "step": 0.04, "between": 0.03,
    "objects": 0.004, "journal": 0.002, "pictures": 0.004, "report": 0.01,
}  # fmt: skip
# Seconds after which a session that shows no progress, or does not end, counts as stuck.
_PATIENCE, _LONG_PATIENCE = 120.0, 900.0
# Clocks: the journal's times are rounded to milliseconds.
_GRANULARITY = 0.002


class Kill(NamedTuple):
    """One kill that happened."""

    target: str
    moment: str
    # Finished steps when it came.
    steps: int


@dataclasses.dataclass
class Outcome:
    """What a disturbed run was like."""

    kills: list[Kill] = dataclasses.field(default_factory=list)
    #: exit statuses of the sessions, -9 for a killed one
    sessions: list[int] = dataclasses.field(default_factory=list)
    #: executions that had to be done again, because their step was not in the journal yet
    repeated: int = 0
    executed: int = 0
    seconds: float = 0.0
    #: sentences; empty for a run that went as it should
    problems: list[str] = dataclasses.field(default_factory=list)


class _Session:
    """The process that runs, and what it has said so far."""

    def __init__(self, words: list[str], environment: dict[str, str], errors: Path) -> None:
        self.said: list[str] = []
        with errors.open("ab") as file:
            file.write(f"---- session at {time.time():.3f}\n".encode())
            file.flush()
            self.process = subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=file, text=True, env=environment, start_new_session=True
            )
        self._reader = threading.Thread(target=self._read, name="chaos-reader", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.strip())

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def end(self) -> int:
        """Wait for its end, or end it where it hangs, and for the last of what it said."""
        try:
            code = self.process.wait(_LONG_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def server(self) -> int | None:
        """The nested server's process."""
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.Error):
                    if "--port" in child.cmdline():
                        return child.pid
        return None


class Chaos:
    """A folder in which a run goes on, however often it is killed; ``with`` removes it.

    Args:
        base: where the folder is made.
        config: keys of the server's configuration.
        rounds: of ten steps each. seconds: that a step takes.
        seed: of the moments.
    """

    def __init__(self, base: Path, config: Json, rounds: int, seconds: float = 0.02, seed: int = 0) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="c", dir=base))
        self.ram = Path(tempfile.mkdtemp(prefix="discomfort-chaos-", dir=SHM or str(self.root)))
        self.rounds = rounds
        self.steps = rounds * chaos_run.STEPS_PER_ROUND
        self.random = random.Random(seed)
        self.run = self.root / "run"
        self._log = self.root / "executed"
        self.environment = {**os.environ, "DISCOMFORT_RAM_ROOT": str(self.ram)}
        for variable, name in (
            ("TMPDIR", "t"), ("XDG_CACHE_HOME", "cache"), ("XDG_DATA_HOME", "data"), ("DISCOMFORT_DISK_ROOT", "disk"),
        ):  # fmt: skip
            (self.root / name).mkdir()
            self.environment[variable] = str(self.root / name)
        packs = self.root / "packs.yaml"
        packs.write_text(json.dumps({"custom_nodes": {"base_path": str(TESTS), "custom_nodes": "run_packs"}}))
        self._config = self.root / "config.json"
        command = f"python3 main.py --extra-model-paths-config '{packs}'"
        self._config.write_text(json.dumps({"STOP_TIMEOUT": 3.0, "API_COMMAND_LINE": command, **config}))
        self._seconds = seconds
        self._plan = self._write_plan("plan.json", str(self.run), self._log, "result.json")
        # The journal's whole lines, as they were seen last.
        self._journal_seen = b""
        # The journal's size and time, and the steps that were counted in it then.
        self._counted: tuple[Any, int] = (None, 0)
        self._outcome = Outcome()
        self._order: list[tuple[str, str]] = []

    def __enter__(self) -> Chaos:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.rmtree(self.ram, ignore_errors=True)

    def _write_plan(self, name: str, checkpoint: str | None, log: Path, result: str) -> Path:
        plan = {
            "config": str(self._config), "checkpoint": checkpoint, "log": str(log), "result": str(self.root / result),
            "rounds": self.rounds, "seconds": self._seconds,
        }  # fmt: skip
        (self.root / name).write_text(json.dumps(plan))
        return self.root / name

    def _start(self, plan: Path) -> _Session:
        words = [sys.executable, str(TESTS / "chaos_run.py"), str(plan)]
        return _Session(words, self.environment, self.root / "errors.txt")

    # ---- the two runs ----

    def undisturbed(self) -> Json:
        """The result of the same run that nobody disturbs, and that nobody keeps."""
        plan = self._write_plan("plain.json", None, self.root / "executed-plain", "plain-result.json")
        code = self._start(plan).end()
        assert code == 0, self.errors()
        return dict(json.loads((self.root / "plain-result.json").read_text()))

    def errors(self) -> str:
        """The end of what the sessions wrote to stderr."""
        return (self.root / "errors.txt").read_text(errors="replace")[-4000:]

    def disturb(self, kills: int, order: Sequence[tuple[str, str]] = ()) -> Outcome:
        """Run it, with so many kills, to its end.

        Args:
            order: who is killed at which moment, each as soon as it can be; then it is drawn.
        """
        started, outcome, session = time.monotonic(), self._outcome, None
        stuck = 0
        self._order = list(order)
        while True:
            if session is None:
                session = self._start(self._plan)
            left = kills - len(outcome.kills)
            kill = self._wait_and_kill(session, left) if left > 0 else None
            if kill is not None:
                outcome.kills.append(kill)
                stuck = 0
            if left > 0 and (kill is None or kill.target == "server") and not session.has_ended():
                continue
            code = session.end()
            outcome.sessions.append(code)
            self._note_session(session, code, kill)
            self._look_at_journal()
            if outcome.problems or (code == 0 and left <= 0):
                break
            stuck += kill is None
            if stuck > 20:
                outcome.problems.append(f"20 sessions in a row ended before anybody could be killed: {self.errors()}")
                break
            session = None
            # Or else the old server and its guard may still be there.
            if self.random.random() < 0.5:
                self._wait(lambda: not self._processes(), 10.0, 0.5)
        outcome.seconds = time.monotonic() - started
        return outcome

    def _note_session(self, session: _Session, code: int, kill: Kill | None) -> None:
        """A session that ends by itself has to end well, or to have lost a server before its first step."""
        if kill is not None or code == 0:
            return
        last = self._outcome.kills[-1] if self._outcome.kills else None
        if last is None or last.target != "server" or last.moment not in ("starting", "preparing"):
            self._outcome.problems.append(f"a session ended with status {code} by itself: {self.errors()[-1500:]}")

    # ---- moments ----

    def _wait_and_kill(self, session: _Session, left: int) -> Kill | None:
        """Choose a moment, wait for it and kill; None: the session ended before it came."""
        done = self._finished_steps()
        remaining = self.steps - done
        choices = {
            key: weight
            for key, weight in MOMENTS.items()
            if (remaining or key[1] in _WITHOUT_STEPS)
            # What is behind us in this session does not come any more.
            and not (key[1] == "starting" and session.said)
            and not (key[1] == "preparing" and "RunStarted" in session.said)
            and not (key[1] == "resuming" and "StepStarted" in session.said)
        }
        if not choices:
            choices = {("orchestrator", "report"): 1}
        ordered = next((one for one in self._order if one in choices), None)
        if ordered is not None:
            self._order.remove(ordered)
        target, moment = ordered or self.random.choices(list(choices), list(choices.values()))[0]
        # So many steps before, that kills and steps are used up together.
        ahead = min(int(self.random.uniform(0, 2 * remaining / (left + 1))), max(remaining - 1, 0))
        delay = self.random.uniform(0, _DELAYS[moment])
        if moment in ("step", "between", "objects", "journal", "pictures", "report"):
            goal = done + ahead
            if not self._wait(lambda: self._finished_steps() >= goal or session.has_ended(), _PATIENCE, 0.005):
                self._outcome.problems.append(f"no step was finished within {_PATIENCE:g} s: {self.errors()[-1500:]}")
        if not self._wait_for_moment(session, target, moment):
            return None
        self._sleep(delay)
        pid = session.process.pid if target == "orchestrator" else session.server()
        if pid is None or session.has_ended():
            return None
        steps = self._finished_steps()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            if target == "orchestrator" and session.process.wait() != -signal.SIGKILL:
                return None  # it came to its own end first
            return Kill(target, moment, steps)
        return None

    def _wait_for_moment(self, session: _Session, target: str, moment: str) -> bool:
        """Whether it came; False: the session ended before, or it did not come for a while."""
        happened: Callable[[], bool]
        if moment == "starting":
            happened = (lambda: True) if target == "orchestrator" else (lambda: session.server() is not None)
        elif moment in ("preparing", "resuming"):
            word = "created" if moment == "preparing" else "RunStarted"
            happened = lambda: word in session.said  # noqa: E731
        elif moment == "report":
            names = ("report.html.tmp", "report.html")
            happened = self._change(lambda: [_stamp(self.run / name) for name in names])
        else:
            happened = self._change(
                {
                    "step": lambda: _stamp(self._log),
                    "between": self._finished_steps,
                    "objects": lambda: sorted(_names(self.run / "objects")),
                    "journal": lambda: _stamp(self.run / "run.jsonl"),
                    "pictures": lambda: [
                        sorted(_names(self.run / name)) for name in ("thumbnails", "outputs/picture", "outputs/report")
                    ],
                }[moment]
            )
        # Where a file is being written, every half millisecond counts, and nobody can tell how long it takes to begin.
        is_soon = "StepStarted" in session.said
        return self._wait(lambda: happened() or session.has_ended(), 30.0, 0.0005 if is_soon else 0.005)

    @staticmethod
    def _change(look: Callable[[], Any]) -> Callable[[], bool]:
        """Whether what is looked at is something else than now."""
        before = look()
        return lambda: look() != before

    @staticmethod
    def _wait(condition: Callable[[], Any], timeout: float, pause: float = 0.02) -> bool:
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(pause)
        return True

    @staticmethod
    def _sleep(seconds: float) -> None:
        """More exact than the system's sleep, for short times."""
        end = time.perf_counter() + seconds
        if seconds > 0.01:
            time.sleep(seconds - 0.005)
        while time.perf_counter() < end:
            pass

    def _finished_steps(self) -> int:
        """How many steps the journal has. Asked all the time: the file is only read when it has changed."""
        stamp = _stamp(self.run / "run.jsonl")
        if stamp != self._counted[0]:
            content = (self.run / "run.jsonl").read_bytes() if stamp else b""
            self._counted = stamp, content.count(b'"kind":"step",')
        return self._counted[1]

    # ---- what is checked ----

    def _look_at_journal(self) -> None:
        """Between two sessions: its whole lines are still there, as they were."""
        content = b""
        with contextlib.suppress(FileNotFoundError):
            content = (self.run / "run.jsonl").read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if not whole.startswith(self._journal_seen):
            self._outcome.problems.append("the journal lost lines, or they changed")
        self._journal_seen = whole

    def check(self, expected: Json) -> list[str]:
        """All that is not as it should be after the end: sentences."""
        outcome = self._outcome
        if not (self.root / "result.json").exists():
            return [*outcome.problems, "it did not come to its end"]
        found = json.loads((self.root / "result.json").read_text())
        for what in ("values", "collected", "iterations", "steps"):
            if found[what] != expected[what]:
                outcome.problems.append(f"{what} of the result differ: {found[what]!r} instead of {expected[what]!r}")
        entries = self._entries()
        self._check_steps(entries, expected["steps"])
        self._check_executions([e for e in entries if e["kind"] == "step"])
        self._check_files(entries)
        self._check_for_people(expected)
        self._check_nothing_left()
        return outcome.problems

    def _entries(self) -> list[Json]:
        lines = (self.run / "run.jsonl").read_bytes().splitlines(keepends=True)
        entries = [from_line(line) for line in lines]
        if None in entries:
            self._outcome.problems.append(f"line {entries.index(None) + 1} of the journal has a wrong checksum")
        return [entry for entry in entries if entry is not None]

    def _check_steps(self, entries: list[Json], expected: list[Any]) -> None:
        """Every step once and in order, with its seeds and what it wrote; the same for all else that was decided."""
        steps = [
            [e["path"], e["workflow"], e["seeds"], {name: note["digest"] for name, note in e["writes"].items()}]
            for e in entries
            if e["kind"] == "step"
        ]
        if steps != expected:
            self._outcome.problems.append(f"the journal's steps differ: {steps!r} instead of {expected!r}")
        walked = [
            (e["kind"], str(e.get("path", e.get("iteration"))), e.get("what"), e.get("name"))
            for e in entries
            if e["kind"] in ("condition", "input", "iteration")
        ]
        twice = [one for one, count in collections.Counter(walked).items() if count > 1]
        if twice:
            self._outcome.problems.append(f"noted more than once: {twice}")
        if sum(e["kind"] == "iteration" for e in entries) != self.rounds:
            self._outcome.problems.append("not every iteration's end is noted")

    def _check_executions(self, steps: list[Json]) -> None:
        """Nothing was executed after the journal said that it was done. (Before that a step may be cut off at will.)"""
        executed = [line.split() for line in self._log.read_text().splitlines()]
        names: dict[int, str] = {}
        for number, name, when, _ in executed:
            step = int(number)
            if step < len(steps) and float(when) > steps[step]["t"] + _GRANULARITY:
                self._outcome.problems.append(f"step {step} was executed {float(when) - steps[step]['t']:.3f} s late")
            if names.setdefault(step, name) != name:
                self._outcome.problems.append(f"step {step} was {names[step]} and {name}")
        if sorted(names) != list(range(self.steps)):
            self._outcome.problems.append(f"executed were the steps {sorted(names)}")
        self._outcome.executed = len(executed)
        self._outcome.repeated = len(executed) - len(names)

    def _check_files(self, entries: list[Json]) -> None:
        """The folder has the objects that are needed, and nothing that is half written."""
        manifest = json.loads((self.run / "manifest.json").read_text())
        state = dict(manifest["inputs"])
        kept = list(manifest["inputs"].values())
        for entry in entries:
            if entry["kind"] == "step":
                state.update(entry["writes"])
            elif entry["kind"] == "input":
                state[entry["name"]] = entry["value"]
            elif entry["kind"] == "iteration":
                kept += entry["collected"].values()
        needed = {object_name(note["digest"]) for note in [*state.values(), *kept] if "object" in note}
        there = _names(self.run / "objects")
        if there != needed:
            self._outcome.problems.append(f"objects: missing {needed - there}, not needed {there - needed}")
        # Pictures have a hidden name until they are whole.
        temporary = [
            str(path.relative_to(self.run))
            for path in self.run.rglob("*")
            if path.suffix == ".tmp" or path.name.startswith(".")
        ]
        if temporary:
            self._outcome.problems.append(f"half written files are left: {temporary}")

    def _check_for_people(self, expected: Json) -> None:
        """Collected pictures and texts, and the report, are there and whole."""
        from PIL import Image

        for round_number in range(self.rounds):
            text = self.run / "outputs" / "report" / f"iteration-{round_number:05d}.txt"
            wanted = json.loads(expected["collected"]["report"][round_number])
            if not text.exists() or text.read_text() != wanted:
                self._outcome.problems.append(f"{text.relative_to(self.run)} is not there, or not whole")
        pictures = [self.run / "outputs" / "picture" / f"iteration-{number:05d}.png" for number in range(self.rounds)]
        for file in [*pictures, *(self.run / "thumbnails").glob("*.jpg")]:
            try:
                with Image.open(file) as image:
                    image.load()
            except OSError as e:
                self._outcome.problems.append(f"{file.relative_to(self.run)} is not there, or not whole: {e}")
        if not (self.run / "report.html").exists():
            self._outcome.problems.append("there is no report")

    def _processes(self) -> list[str]:
        """What runs with our folder in its arguments, or as its TMPDIR."""
        found = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            words = [*(process.info["cmdline"] or []), (process.info["environ"] or {}).get("TMPDIR", "")]
            if any(str(self.root) in word for word in words):
                found.append(" ".join(process.info["cmdline"] or ["?"])[:200])
        return found

    def _left(self) -> list[str]:
        places = [self.ram, self.root / "disk", *(self.root / "t").glob("discomfort-servers-*")]
        return [*self._processes(), *(str(path) for place in places for path in place.rglob("*"))]

    def _check_nothing_left(self) -> None:
        """No process, no shared memory, no temporary folder."""
        if not self._wait(lambda: not self._left(), 10.0, 0.2):
            self._outcome.problems.append(f"these are left: {self._left()}")


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()


def _stamp(file: Path) -> Any:
    """What changes with a file."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns
