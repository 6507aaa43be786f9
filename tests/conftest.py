"""What tests share: private folders for everything we keep, ComfyUI trees to start, and a check for leaks.

Every session works in folders of its own: caches, the embedded server's data and the nested servers' private folders
are neither the user's nor those of another test run on the same machine.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import importlib.util
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import psutil
import pytest
import pytest_asyncio

# Nested servers of the tests take ports from here on: away from ComfyUI's 8188, and a hundred for each of the test runs
# that may go on at once on a machine.
FIRST_PORT = 18200 + 100 * (os.getpid() % 50)

# Seconds for which nothing may hold a connector's event loop. asyncio complains after 0.1; on a machine whose cores are
# lent to others, unseen, plain code takes that long now and then. What waits for a process or a lock takes longer.
SLOW_CALLBACK = 0.25
# What the machine took of a callback's time is measured beside it; it may be wrong by this part.
_UNCERTAINTY = 0.25


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests marked ``soak``, unless they are asked for: ``-m soak``, or DISCOMFORT_SOAK."""
    if "soak" in config.option.markexpr or os.environ.get("DISCOMFORT_SOAK"):
        return
    left_out = [item for item in items if item.get_closest_marker("soak")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session", autouse=True)
def private_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """TMPDIR, XDG_CACHE_HOME and XDG_DATA_HOME of this process and its children; removed at the end.

    The path is short (/tmp/dt-xxxxxxxx): Chromium makes a socket below TMPDIR, whose path may have 104 bytes. The
    embedded server keeps input, output and models below XDG_DATA_HOME.
    """
    tmp_path_factory.getbasetemp()  # pytest's own folder stays where it was
    base = "/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()
    remove_folders_of_killed_runs(Path(base))
    root, lock = locked_folder(base)
    with pytest.MonkeyPatch.context() as patch:
        for variable, name in (("TMPDIR", "t"), ("XDG_CACHE_HOME", "cache"), ("XDG_DATA_HOME", "data")):
            (root / name).mkdir()
            patch.setenv(variable, str(root / name))
        patch.setattr(tempfile, "tempdir", os.environ["TMPDIR"])
        yield root
    shutil.rmtree(root, ignore_errors=True)
    lock.release()


def locked_folder(base: str) -> tuple[Path, filelock.BaseFileLock]:
    """A new private folder and the lock that says that its run lives.

    Another run that starts just now may take the folder for a dead one's, between the making of the lock file and its
    locking, and remove it; then there is another folder.
    """
    while True:
        root = Path(tempfile.mkdtemp(prefix="dt-", dir=base))
        lock = filelock.FileLock(root / "lock")
        with contextlib.suppress(FileNotFoundError):
            lock.acquire()
            if (root / "lock").exists():
                return root, lock
            lock.release()


def remove_folders_of_killed_runs(base: Path) -> None:
    """A test run that was killed leaves its private folder; whoever holds no lock any more is dead."""
    for lock_file in base.glob("dt-*/lock"):
        try:
            with filelock.FileLock(lock_file, timeout=0):
                shutil.rmtree(lock_file.parent, ignore_errors=True)
        except (filelock.Timeout, OSError):
            continue  # it runs, or it is another user's


@pytest.fixture(scope="session")
def first_port() -> int:
    """INITIAL_PORT of the tests' configurations; the hundred from here on are this test run's."""
    return FIRST_PORT


@pytest.fixture(scope="session")
def write_config(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``write_config(KEY=value, ...)`` writes a configuration file of a nested server and returns its path.

    Ports are the tests' own, and stopping is quick; everything else has its default.
    """

    def write(**keys: Any) -> Path:
        file = tmp_path_factory.mktemp("config") / "comfy_serverless.json"
        file.write_text(json.dumps({"INITIAL_PORT": FIRST_PORT, "STOP_TIMEOUT": 3.0, **keys}), encoding="utf-8")
        return file

    return write


@pytest.fixture(scope="session")
def embedded_config(write_config: Callable[..., Path]) -> Path:
    """A configuration that starts the embedded server, whatever COMFYUI_PATH says."""
    return write_config(COMFYUI_PATH="embedded")


@pytest.fixture(scope="session")
def real_comfyui() -> Path:
    """The ComfyUI tree that COMFYUI_PATH names; without it the test is skipped."""
    path = os.environ.get("COMFYUI_PATH", "")
    if not path or path == "embedded":
        pytest.skip("needs a real ComfyUI: set COMFYUI_PATH to its folder")
    return Path(path).expanduser().resolve()


@pytest.fixture(scope="session")
def real_config(real_comfyui: Path, write_config: Callable[..., Path]) -> Path:
    """A configuration that starts the real ComfyUI of COMFYUI_PATH, on the CPU."""
    return write_config(COMFYUI_PATH=str(real_comfyui), DEVICE="cpu")


def nested_processes() -> list[psutil.Process]:
    """Processes that were started on a private folder of a nested server: servers, browsers with driver, guards."""
    root = os.path.join(tempfile.gettempdir(), "discomfort-servers-")
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = [*(process.info["cmdline"] or []), (process.info["environ"] or {}).get("TMPDIR", "")]
        if any(root in word for word in words):
            found.append(process)
    return found


def nested_folders() -> list[str]:
    """What lies in the folder that holds the nested servers' private folders."""
    return sorted(str(path) for path in Path(tempfile.gettempdir()).glob("discomfort-servers-*/*"))


def programs_in(folder: Path) -> list[str]:
    """Processes with this folder in their arguments, or as their TMPDIR."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = [*(process.info["cmdline"] or []), (process.info["environ"] or {}).get("TMPDIR", "")]
        if any(word == str(folder) or f"{folder}/" in word for word in words):
            found.append(" ".join(process.info["cmdline"] or ["?"])[:200])
    return found


@pytest.fixture(scope="session")
def left_of_killed(private_folders: Path) -> Callable[..., str]:
    """``left_of_killed([script, argument, ...], part, delay)`` runs a script, in a TMPDIR of its own, kills it (-9)
    *delay* seconds after it has printed *part*, and returns what is left of it five seconds later, "" for nothing.
    """

    def end(words: list[str], part: str, delay: float) -> str:
        folder = Path(tempfile.mkdtemp(prefix="k", dir=private_folders))  # everything it starts can be told by that
        process = subprocess.Popen(
            [sys.executable, "-c", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "TMPDIR": str(folder)}, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            while (line := process.stdout.readline()) != part + "\n":
                assert line, process.communicate()
            time.sleep(delay)
        finally:
            process.kill()
            process.communicate()
        killed, left = time.monotonic(), "?"
        while left and time.monotonic() < killed + 5.0:
            time.sleep(0.1)
            left = ", ".join([*map(str, folder.glob("discomfort-servers-*/*")), *programs_in(folder)])
        shutil.rmtree(folder, ignore_errors=True)
        return f"{part} + {delay:.3f} s: {left}" if left else ""

    return end


@pytest.fixture(scope="session")
def nested() -> SimpleNamespace:
    """``nested.processes()`` and ``nested.folders()``: what nested servers of this session have on the machine."""
    return SimpleNamespace(processes=nested_processes, folders=nested_folders)


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., Any]:
    """``wait_for(condition, timeout=10, what="...")``: call it until it is true; returns what it said.

    Blocks; in a coroutine that needs its loop meanwhile: ``await asyncio.to_thread(wait_for, ...)``.
    """

    def wait(condition: Callable[[], Any], timeout: float = 10.0, what: str = "what the test waits for") -> Any:
        deadline = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < deadline, f"{what} did not come within {timeout:g} s"
            time.sleep(0.02)

    return wait


@pytest.fixture(scope="session")
def make_fake_tree(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Any]:
    """Makes a folder that looks like a ComfyUI checkout and starts tests/fake_comfyui.py; see ``behave()`` there."""
    spec = importlib.util.spec_from_file_location("fake_comfyui", Path(__file__).with_name("fake_comfyui.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda: module.FakeTree(tmp_path_factory.mktemp("comfyui") / "fake")


@pytest.fixture
def data_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """(in shared memory, on disk): folders for the values of this test alone; fails it if anything is left in them."""
    ram = tempfile.mkdtemp(prefix="discomfort-test-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    disk = tmp_path / "disk root"
    disk.mkdir()
    monkeypatch.setenv("DISCOMFORT_RAM_ROOT", ram)
    monkeypatch.setenv("DISCOMFORT_DISK_ROOT", str(disk))

    def left() -> list[str]:
        return [str(path) for root in (ram, disk) for path in Path(root).rglob("*")]

    try:
        yield ram, str(disk)
        if left():
            # What only the garbage collector can end is no leak.
            gc.collect()
        assert left() == []
    finally:
        shutil.rmtree(ram, ignore_errors=True)


@pytest.fixture(scope="session")
def start_second() -> Callable[..., Any]:
    """``start_second()`` makes another process that runs the functions it is sent; see tests/second_process.py."""
    spec = importlib.util.spec_from_file_location("second_process", Path(__file__).with_name("second_process.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda: module.SecondProcess()


@pytest.fixture(scope="module")
def second(start_second: Callable[..., Any]) -> Iterator[Any]:
    """One such process for all tests of a module."""
    process = start_second()
    yield process
    process.stop()


@pytest.fixture
def fake_tree(make_fake_tree: Callable[[], Any]) -> Any:
    """A folder that looks like a ComfyUI checkout."""
    return make_fake_tree()


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """After the test: no process, folder, port lock or thread of a nested server is left.

    For tests that start and end their own connector.
    """
    mine = psutil.Process()
    children = {process.pid for process in mine.children(recursive=True)}
    yield
    problems = []
    left = [p for p in mine.children(recursive=True) if p.pid not in children]
    _, left = psutil.wait_procs(left, timeout=2)
    for process in {*left, *nested_processes()}:
        with contextlib.suppress(psutil.NoSuchProcess):
            problems.append(f"the process {' '.join(process.cmdline())}")
            process.kill()
    if any(thread.name == "discomfort-server-log" for thread in threading.enumerate()):
        problems.append("the thread that reads a server's output")
    for folder in nested_folders():
        problems.append(folder)
        shutil.rmtree(os.path.dirname(folder), ignore_errors=True)  # not to be found again after the next test
    assert not problems, f"these are left: {problems}"


class Metronome(threading.Thread):
    """Tells how much of a span of time the machine took from the main thread: other programs, and other threads.

    It does nothing but sleep for short times. While a callback computes, or waits for a process, a file or a lock,
    it wakes up in time; where it is late, another thread kept the interpreter. For how long the main thread was ready
    to run and did not, because other programs did, Linux tells.
    """

    BEAT = 0.01

    def __init__(self) -> None:
        super().__init__(name="metronome", daemon=True)
        self._is_over = False
        self._due = time.monotonic() + self.BEAT
        # (when it should have woken up, when it did, how long the main thread had waited for a processor by then)
        self._beats: collections.deque[tuple[float, float, float]] = collections.deque(maxlen=2000)
        self._statistics = Path(f"/proc/self/task/{threading.main_thread().native_id}/schedstat")

    def _waited(self) -> float:
        try:
            return int(self._statistics.read_text().split()[1]) / 1e9
        except (OSError, ValueError, IndexError):  # another system than Linux
            return 0.0

    def run(self) -> None:
        while not self._is_over:
            time.sleep(max(0.0, self._due - time.monotonic()))
            now = time.monotonic()
            self._beats.append((self._due, now, self._waited()))
            self._due = now + self.BEAT

    def end(self) -> None:
        self._is_over = True
        self.join()

    def taken(self, seconds: float) -> float:
        """Seconds, of the last *seconds*, that the machine took."""
        now = time.monotonic()
        beats = [*self._beats, (min(self._due, now), now, self._waited())]
        late = sum(max(0.0, end - max(begin, now - seconds)) for begin, end, _ in beats)
        before = next((waited for _, end, waited in reversed(beats) if end < now - seconds), beats[0][2])
        return late + beats[-1][2] - before


@pytest.fixture(scope="module")
def debugged_loops() -> Iterator[Metronome]:
    """Every event loop that is made while a module's tests run is in asyncio's debug mode.

    Not by PYTHONASYNCIODEBUG, which the servers and orchestrators of the tests would inherit.
    """
    metronome = Metronome()
    metronome.start()
    set_debug = asyncio.BaseEventLoop.set_debug
    with pytest.MonkeyPatch.context() as patch:
        # Called for every loop that is made; pytest's plugin switches it off once more.
        patch.setattr(asyncio.BaseEventLoop, "set_debug", lambda loop, enabled: set_debug(loop, True))
        yield metronome
    metronome.end()


class Complaints(logging.Handler):
    """Collects what asyncio warns of."""

    def __init__(self, metronome: Metronome) -> None:
        super().__init__(logging.WARNING)
        self.metronome = metronome
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        slow = re.search(r"^Executing .* took ([0-9.]+) seconds$", text, re.DOTALL)
        if slow is not None:
            taken = self.metronome.taken(float(slow[1]))
            if float(slow[1]) - taken > SLOW_CALLBACK + _UNCERTAINTY * taken:
                self.texts.append(f"{text}, for {taken:.3f} of which the machine was busy otherwise")
        # A future of Playwright's own that nobody ever awaits; it fails when its driver is killed.
        elif "Connection closed while reading from the driver" not in text:
            self.texts.append(text)


@pytest.fixture
def strict_loop(debugged_loops: Metronome) -> Iterator[Complaints]:
    """The test fails when asyncio complains, in debug mode: of a callback that held the loop for SLOW_CALLBACK seconds,
    of exceptions that nobody retrieved, of tasks, sessions and sockets that nobody closed.

    What only garbage collection tells (also "coroutine was never awaited" and ResourceWarning, which pytest makes an
    error) is told before the next test. Not for tests whose own code blocks.
    """
    complaints, logger = Complaints(debugged_loops), logging.getLogger("asyncio")
    logger.addHandler(complaints)
    yield complaints
    gc.collect()
    logger.removeHandler(complaints)
    assert not complaints.texts, "\n".join(complaints.texts)


@pytest_asyncio.fixture
async def start(
    fake_tree: Any, write_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> AsyncIterator[Any]:
    """``await start(KEY=value)`` creates a connector to the fake tree; it is killed at the end."""
    from discomfort import comfy_serverless as connector_module

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    async def create(**keys: Any) -> Any:
        return await connector_module.ComfyConnector.create(
            write_config(**{"COMFYUI_PATH": str(fake_tree.path), "DEVICE": "cpu", **keys})
        )

    yield create
    connector = connector_module._process_state().connector
    if connector is not None:
        await connector.kill_api()
