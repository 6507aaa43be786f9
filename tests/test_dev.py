"""The developer entry: ./dev finds a Python, sets up once and safely, finds a browser, and runs its commands.

Everything runs in a copy of the entry in a folder with a space and a dash. The peers are faked: pip (a package that
PYTHONPATH puts before the real one), the programs that pip would have installed, browsers, package managers.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="./dev is a POSIX sh script")

# Notes what is done with it; obeys FAKE_PIP: "ok" (the default), "fail", "hang", "ignore signals" (and hang).
FAKE_PIP = """
import os, signal, sys, time
def note(text):
    with open(os.environ["FAKE_PIP_LOG"], "a") as log:
        log.write(f"{text}\\n")
mode = os.environ.get("FAKE_PIP", "ok")
note(f"begin {os.getpid()} {' '.join(sys.argv[1:])}")
if mode == "fail":
    print("ERROR: No matching distribution found for unobtainium")
    sys.exit(1)
if mode in ("hang", "ignore signals"):
    def interrupted(signum, frame):
        note("interrupted")
        if mode == "hang":
            sys.exit(1)
    signal.signal(signal.SIGINT, interrupted)
    note("hanging")
    while True:
        signal.pause()
time.sleep(0.2)
note("end")
"""

# Stands for ruff, mypy, sphinx-build and pytest: notes its arguments, ends with the status that FAKE_STATUS names.
FAKE_PROGRAM = """
import json, os, sys
name = os.path.basename(sys.argv[0]).removesuffix(".py")
with open(os.environ["FAKE_PROGRAM_LOG"], "a") as log:
    log.write(json.dumps([name, sys.argv[1:], os.getcwd()]) + "\\n")
sys.exit(int(json.loads(os.environ.get("FAKE_STATUS", "{}")).get(name, 0)))
"""


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


class Clone:
    """A copy of the developer entry, with faked peers and the environment variables that lead to them."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a clone-of it"
        self.bin = folder / "bin"
        self.pip_log = folder / "pip.log"
        self.program_log = folder / "programs.log"
        shutil.copytree(ROOT / "tools", self.root / "tools", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy2(ROOT / "dev", self.root / "dev")
        for name in ("pyproject.toml", "requirements.txt", "constraints-dev.txt"):
            (self.root / name).write_text(f"# {name}\n")
        fake_pip = folder / "fakes" / "pip"
        write_program(fake_pip / "__main__.py", FAKE_PIP)
        (fake_pip / "__init__.py").touch()
        write_program(self.bin / "python3", f"#!/bin/sh\nexec '{sys.executable}' \"$@\"\n")
        # Its presence alone keeps ./dev from asking PyTorch's index, so that no test needs a network.
        write_program(self.bin / "nvidia-smi", "#!/bin/sh\n")
        self.environ = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(folder / "home"),
            "PYTHONPATH": str(fake_pip.parent),
            "FAKE_PIP_LOG": str(self.pip_log),
            "FAKE_PROGRAM_LOG": str(self.program_log),
            "DISCOMFORT_BROWSER": str(write_program(self.bin / "browser", "#!/bin/sh\n")),
        }

    def start(self, *arguments: str, cwd: Path | None = None, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "dev", *arguments],
            cwd=cwd or self.root,
            env=self.environ | environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, cwd: Path | None = None, **environ: str) -> tuple[int, str, str]:
        """Exit status, stdout and stderr."""
        child = self.start(*arguments, cwd=cwd, **environ)
        out, err = child.communicate(timeout=120)
        return child.returncode, out, err

    def pip_calls(self) -> list[str]:
        """What pip was told to do, without its options."""
        return [line.partition("constraints-dev.txt ")[2] for line in self.pip_lines() if line.startswith("begin")]

    def pip_lines(self) -> list[str]:
        return self.pip_log.read_text().splitlines() if self.pip_log.exists() else []

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.root / ".venv" / "discomfort-dev.json").read_text())
        return state


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


@pytest.fixture(scope="module")
def ready_clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone that is set up; for tests that do not touch its environment."""
    clone = Clone(tmp_path_factory.mktemp("ready"))
    status, _, err = clone.run("setup")
    assert status == 0, err
    return clone


# Finding a Python ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_usage_is_printed_without_any_set_up(clone: Clone, arguments: tuple[str, ...]) -> None:
    status, out, _ = clone.run(*arguments)
    assert status == 0
    assert all(f"  {command} " in out for command in ("demo", "test", "setup", "run"))
    assert not (clone.root / ".venv").exists()


def test_an_unknown_command_is_refused_by_name(clone: Clone) -> None:
    status, out, err = clone.run("tset")
    assert (status, out) == (2, "")
    assert "'tset'" in err
    assert "usage:" in err


def test_a_newer_python_beside_an_old_python3_is_found(clone: Clone, tmp_path: Path) -> None:
    used = tmp_path / "used"
    write_program(clone.bin / "python3", "#!/bin/sh\nexit 1\n")  # as one that is too old answers
    write_program(clone.bin / "python3.14", "#!/bin/sh\necho 'pyenv: python3.14: command not found'; exit 127\n")
    write_program(clone.bin / "python3.13", f"#!/bin/sh\necho x >'{used}'\nexec '{sys.executable}' \"$@\"\n")
    status, out, _ = clone.run("--help")
    assert status == 0
    assert "usage:" in out
    assert used.exists()


def test_the_python_that_the_user_names_is_used_or_complained_about(clone: Clone) -> None:
    write_program(clone.bin / "python3", "#!/bin/sh\nexit 1\n")
    assert clone.run("--help", DISCOMFORT_PYTHON=sys.executable)[0] == 0
    status, _, err = clone.run("--help", DISCOMFORT_PYTHON="/no/such/python")
    assert status == 1
    assert "DISCOMFORT_PYTHON is '/no/such/python'" in err


# Setting up ---------------------------------------------------------------------------------------------------------


def test_the_second_set_up_does_nothing_until_an_input_changes(clone: Clone) -> None:
    status, out, err = clone.run("setup")
    assert (status, out) == (0, ""), err
    assert clone.pip_calls() == ["torch", "-e .[dev]"]
    assert "PyTorch: done" in err

    started = time.monotonic()
    assert clone.run("setup")[0] == 0
    assert time.monotonic() - started < 3
    assert len(clone.pip_calls()) == 2

    mark = clone.root / ".venv" / "mark"
    mark.touch()
    (clone.root / "requirements.txt").write_text("# changed\n")
    assert clone.run("setup")[0] == 0
    assert len(clone.pip_calls()) == 4
    assert mark.exists()  # brought up to date, not made again


def test_a_failing_pip_shows_its_last_lines_and_the_next_set_up_starts_afresh(clone: Clone) -> None:
    status, _, err = clone.run("setup", FAKE_PIP="fail")
    assert status == 1
    assert "ERROR: No matching distribution found for unobtainium" in err
    assert str(clone.root / ".dev" / "setup.log") in err
    assert "Traceback" not in err
    mark = clone.root / ".venv" / "mark"
    mark.touch()
    status, _, err = clone.run("setup")
    assert status == 0
    assert "interrupted" in err
    assert not mark.exists()


def test_ctrl_c_reaches_pip_and_ends_with_130(clone: Clone) -> None:
    child = clone.start("setup", FAKE_PIP="hang")
    wait_for(lambda: "hanging" in clone.pip_lines(), "pip to start")
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert clone.pip_lines()[-1] == "interrupted"
    assert "Traceback" not in err
    assert clone.state["status"] == "working"


def test_after_kill_9_the_lock_lasts_as_long_as_pip_and_the_environment_is_made_again(clone: Clone) -> None:
    child = clone.start("setup", FAKE_PIP="ignore signals")
    wait_for(lambda: "hanging" in clone.pip_lines(), "pip to start")
    pip = int(clone.pip_lines()[0].split()[1])
    try:
        child.kill()
        child.wait(timeout=30)
        if sys.platform == "linux":
            wait_for(lambda: "interrupted" in clone.pip_lines(), "pip to hear of our death")
        with (clone.root / ".dev" / "lock").open("a") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.kill(pip, signal.SIGKILL)
        child.communicate(timeout=30)
    mark = clone.root / ".venv" / "mark"
    mark.touch()
    status, _, err = clone.run("setup")
    assert status == 0, err
    assert "interrupted" in err
    assert not mark.exists()
    assert clone.state["status"] == "ready"


def test_two_at_once_set_up_only_once(clone: Clone) -> None:
    children = [clone.start("run", "python", "-c", "print('ran')") for _ in range(2)]
    results = [child.communicate(timeout=120) for child in children]
    assert [child.returncode for child in children] == [0, 0], results
    assert [out for out, _ in results] == ["ran\n", "ran\n"]
    assert [line.split()[0] for line in clone.pip_lines()] == ["begin", "end"] * 2
    assert sum("waiting for it" in err for _, err in results) == 1


def test_a_venv_that_the_user_made_is_used_and_never_deleted(clone: Clone) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", clone.root / ".venv"], check=True)
    mark = clone.root / ".venv" / "mark"
    mark.touch()
    assert clone.run("setup", FAKE_PIP="fail")[0] == 1
    assert clone.run("setup")[0] == 0
    assert mark.exists()


def test_a_folder_in_the_way_of_the_venv_is_left_alone(clone: Clone) -> None:
    (clone.root / ".venv").mkdir()
    (clone.root / ".venv" / "precious").touch()
    status, _, err = clone.run("setup")
    assert status == 1
    assert "was not made by ./dev" in err
    assert (clone.root / ".venv" / "precious").exists()


def test_a_chosen_browser_that_does_not_exist_is_refused(ready_clone: Clone) -> None:
    status, _, err = ready_clone.run("setup", DISCOMFORT_BROWSER="/no/such/chrome")
    assert status == 1
    assert "'/no/such/chrome'" in err


# Running commands ---------------------------------------------------------------------------------------------------


def test_run_gives_the_command_its_words_folder_status_and_environment(ready_clone: Clone, tmp_path: Path) -> None:
    code = "import os, sys; print([sys.argv[1:], os.getcwd(), sys.prefix, os.environ['VIRTUAL_ENV']]); sys.exit(7)"
    status, out, err = ready_clone.run("run", "python", "-c", code, "two words", "$HOME", cwd=tmp_path)
    venv = str(ready_clone.root / ".venv")
    assert (status, err) == (7, "")
    assert out == f"{[['two words', '$HOME'], str(tmp_path), venv, venv]}\n"


def test_run_says_when_there_is_no_such_command(ready_clone: Clone) -> None:
    status, _, err = ready_clone.run("run", "no-such-program")
    assert status == 127
    assert "'no-such-program'" in err
    assert ready_clone.run("run")[0] == 2


def test_the_environment_works_without_home(ready_clone: Clone) -> None:
    code = "import os; print(bool(os.environ['HOME']))"
    assert ready_clone.run("run", "python", "-c", code, HOME="")[:2] == (0, "True\n")


def test_demo_runs_the_example_with_its_arguments_and_a_quiet_ctrl_c(ready_clone: Clone) -> None:
    example = ready_clone.root / "examples" / "refine.py"
    example.parent.mkdir(exist_ok=True)
    example.write_text("import sys; print(__name__, sys.argv[1:], sys.path[0])\n")
    status, out, _ = ready_clone.run("demo", "--target", "9")
    assert (status, out) == (0, f"__main__ ['--target', '9'] {example.parent}\n")

    example.write_text("import signal; print('up', flush=True); signal.pause()\n")
    child = ready_clone.start("demo")
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "Traceback" not in err


@pytest.fixture
def checks(ready_clone: Clone) -> Callable[..., tuple[int, str, list[Any]]]:
    """Runs `./dev test` with all programs of the checks faked; returns status, stderr and the calls they got."""
    programs = Path(ready_clone.environ["PYTHONPATH"])
    for name in ("ruff", "mypy", "sphinx-build", "pytest"):
        fake = write_program(programs / f"{name}.py", FAKE_PROGRAM)
        write_program(
            ready_clone.root / ".venv" / "bin" / name, f"#!/bin/sh\nexec '{sys.executable}' '{fake}' \"$@\"\n"
        )

    def run(*arguments: str, **statuses: int) -> tuple[int, str, list[Any]]:
        ready_clone.program_log.unlink(missing_ok=True)
        status, _, err = ready_clone.run("test", *arguments, FAKE_STATUS=json.dumps(statuses))
        return status, err, [json.loads(line) for line in ready_clone.program_log.read_text().splitlines()]

    return run


def test_test_runs_every_check_and_hands_arguments_to_pytest(
    ready_clone: Clone, checks: Callable[..., tuple[int, str, list[Any]]]
) -> None:
    status, err, calls = checks("-k", "a and b")
    root = str(ready_clone.root)
    assert status == 0, err
    assert [name for name, _, _ in calls] == ["ruff", "ruff", "mypy", "mypy", "sphinx-build", "pytest"]
    assert calls[0][1:] == [["check", "."], root]
    assert calls[1][1:] == [["format", "--check", "."], root]
    assert calls[4][1][-2:] == [f"{root}/docs", f"{root}/build/docs"]
    assert {"-W", "--keep-going"} <= set(calls[4][1])
    assert calls[5][1:] == [["-k", "a and b"], root]
    assert "passed" in err.rpartition("Summary")[2]


def test_the_whole_suite_runs_its_files_side_by_side(
    ready_clone: Clone, checks: Callable[..., tuple[int, str, list[Any]]]
) -> None:
    """A file in one process: its tests share a server."""
    _, _, calls = checks()
    option, workers, *rest = calls[5][1]
    assert (option, rest) == ("-n", ["--dist", "loadfile"])
    assert 1 <= int(workers) <= 4


def test_mypy_sees_the_clone_under_the_packages_name(
    ready_clone: Clone, checks: Callable[..., tuple[int, str, list[Any]]]
) -> None:
    _, arguments, folder = checks()[2][2]
    assert arguments[-2:] == ["-p", "discomfort"]
    assert Path(folder, "discomfort").resolve() == ready_clone.root


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ({"pytest": 5}, 5),
        ({"ruff": 1}, 1),
        ({"mypy": 2}, 1),
        ({"sphinx-build": 2}, 1),
        ({"ruff": 1, "pytest": 3}, 3),
    ],
    ids=["pytest's own status", "lint alone", "types alone", "documentation alone", "pytest's before lint's"],
)
def test_a_failed_check_fails_the_test_command_but_stops_no_other_check(
    checks: Callable[..., tuple[int, str, list[Any]]], statuses: dict[str, int], expected: int
) -> None:
    status, err, calls = checks(**statuses)
    assert status == expected
    assert len(calls) == 6
    assert "FAILED" in err.rpartition("Summary")[2]


def test_docs_builds_the_pages_or_looks_at_their_links(
    ready_clone: Clone, checks: Callable[..., tuple[int, str, list[Any]]]
) -> None:
    checks()  # puts the fake programs there
    for arguments, builder in ([], "html"), (["--links"], "linkcheck"):
        ready_clone.program_log.unlink()
        status, out, err = ready_clone.run("docs", *arguments)
        assert (status, out) == (0, "")
        name, words, _ = json.loads(ready_clone.program_log.read_text())
        assert name == "sphinx-build"
        assert words[words.index("-b") + 1] == builder
        assert ("index.html" in err) == (builder == "html")
    status, _, err = ready_clone.run("docs", "--fast")
    assert status == 2
    assert "--fast" in err


def test_continuous_integration_runs_exactly_dev_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "./dev test"


# Finding a browser --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tools() -> Iterator[SimpleNamespace]:
    """The modules of tools/, which is no package: the entry runs it as a folder of scripts."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import browser
        import children
        import environment

        yield SimpleNamespace(browser=browser, children=children, environment=environment)
    finally:
        sys.path.remove(str(ROOT / "tools"))


class Machine:
    """A machine with exactly the browsers and package managers a test gives it; `can_start` names what starts."""

    def __init__(self, folder: Path, tools: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bin = folder / "bin"
        self.own = folder / "ms-playwright" / "chrome"
        self.can_start = folder / "can-start"
        self.calls = folder / "calls"
        self.can_start.touch()
        self.calls.touch()
        self.tools = tools
        self.monkeypatch = monkeypatch
        self.bin.mkdir()
        monkeypatch.setenv("PATH", str(self.bin))
        monkeypatch.delenv("DISCOMFORT_BROWSER", raising=False)
        self.environment = tools.environment.Environment(folder, tools.children.Supervisor())
        # Stands for the environment's Python: answers where Playwright's browser is, "starts" browsers, "downloads".
        program = write_program(
            folder / "python.py",
            f"""
import pathlib, sys
own, can_start, calls = {str(self.own)!r}, pathlib.Path({str(self.can_start)!r}), pathlib.Path({str(self.calls)!r})
with calls.open("a") as log:
    log.write(" ".join(sys.argv[2:] if sys.argv[1] == "-m" else ["start", *sys.argv[3:]]) + "\\n")
if sys.argv[1] == "-m":
    if not pathlib.Path({str(folder / "download-works")!r}).exists():
        sys.exit("Error: getaddrinfo ENOTFOUND the.download.host")
    pathlib.Path(own).parent.mkdir()
    pathlib.Path(own).touch()
    can_start.write_text("own\\n")
elif "executable_path)" in sys.argv[2]:
    print('"' + own + '"')
else:
    name = pathlib.Path(sys.argv[3]).name or "own"
    if name not in can_start.read_text().split():
        sys.exit("chrome: error while loading shared libraries: libnss3.so")
""",
        )
        self.environment.python = write_program(
            self.environment.python, f"#!/bin/sh\nexec '{sys.executable}' '{program}' \"$@\"\n"
        )

    def become(self, *, is_root: bool) -> None:
        self.monkeypatch.setattr(self.tools.browser, "is_root", lambda: is_root)

    def search(self) -> dict[str, Any]:
        self.tools.browser.ensure_browser(self.environment)
        note: dict[str, Any] = self.environment.read_state()["browser"]
        return note


@pytest.fixture
def machine(tmp_path: Path, tools: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path, tools, monkeypatch)
    machine.become(is_root=False)
    return machine


def test_playwrights_own_browser_comes_first(machine: Machine) -> None:
    write_program(machine.bin / "chromium", "")
    write_program(machine.own, "")
    machine.can_start.write_text("own chromium")
    assert machine.search() == {"path": str(machine.own), "is_own": True}
    assert machine.tools.browser.exported(machine.search()) == {}  # Playwright picks its headless build itself


def test_an_installed_browser_that_starts_comes_next(machine: Machine) -> None:
    write_program(machine.bin / "chromium", "")  # a stub, as Ubuntu's, that wants a snap
    chrome = write_program(machine.bin / "google-chrome", "")
    machine.can_start.write_text("google-chrome")
    note = machine.search()
    assert note == {"path": str(chrome), "is_own": False}
    assert machine.tools.browser.exported(note) == {"DISCOMFORT_BROWSER": str(chrome)}
    assert "playwright" not in machine.calls.read_text()


def test_a_browser_that_was_found_is_not_searched_again_until_it_vanishes(machine: Machine) -> None:
    chromium = write_program(machine.bin / "chromium", "")
    chrome = write_program(machine.bin / "chrome", "")
    machine.can_start.write_text("chromium chrome")
    assert machine.search()["path"] == str(chromium)
    calls = machine.calls.read_text()
    machine.search()
    assert machine.calls.read_text() == calls
    chromium.unlink()
    assert machine.search()["path"] == str(chrome)


def test_playwright_downloads_its_browser_where_none_is_installed(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "download-works").touch()
    assert machine.search() == {"path": str(machine.own), "is_own": True}
    assert "playwright install chromium" in machine.calls.read_text()


def test_root_falls_back_on_the_package_manager(machine: Machine) -> None:
    machine.become(is_root=True)
    machine.can_start.write_text("chromium")
    # An apt-get that knows no package before its first update, as in a fresh container.
    write_program(
        machine.bin / "apt-get",
        f"""#!/bin/sh
echo "apt-get $*" >>'{machine.calls}'
case $1 in
    update) : >'{machine.bin}/lists' ;;
    install) test -e '{machine.bin}/lists' || exit 100
        : >'{machine.bin}/chromium'; /bin/chmod 755 '{machine.bin}/chromium' ;;
esac
""",
    )
    assert machine.search() == {"path": str(machine.bin / "chromium"), "is_own": False}
    calls = [line for line in machine.calls.read_text().splitlines() if not line.startswith("start")]
    assert calls == [
        "playwright install chromium",
        "apt-get install -y --no-install-recommends chromium",
        "apt-get update",
        "apt-get install -y --no-install-recommends chromium",
    ]


def test_when_all_fails_one_message_says_what_was_tried(machine: Machine) -> None:
    write_program(machine.bin / "chromium", "")
    write_program(machine.bin / "apt-get", "#!/bin/sh\nexit 1\n")
    with pytest.raises(machine.tools.children.StepFailed) as failure:
        machine.search()
    message = str(failure.value)
    assert f"{machine.bin}/chromium: chrome: error while loading shared libraries: libnss3.so" in message
    assert "ENOTFOUND the.download.host" in message
    assert "apt-get needs root" in message
    assert "DISCOMFORT_BROWSER=" in message


@pytest.mark.parametrize(
    ("platform", "environ", "place"),
    [
        ("darwin", "HOME", "Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
        ("win32", "LOCALAPPDATA", "Google/Chrome/Application/chrome.exe"),
        ("win32", "PROGRAMFILES(X86)", "Microsoft/Edge/Application/msedge.exe"),
    ],
)
def test_browsers_are_found_where_other_systems_keep_them(
    tools: SimpleNamespace, tmp_path: Path, platform: str, environ: str, place: str
) -> None:
    path = write_program(tmp_path / place, "")
    found = tools.browser.installed_browsers(platform, {environ: str(tmp_path)}, lambda name: None)
    assert path in list(found)


def test_a_hanging_download_is_stopped(tools: SimpleNamespace, tmp_path: Path) -> None:
    supervisor = tools.children.Supervisor()
    started = time.monotonic()
    with pytest.raises(tools.children.StepFailed, match=r"after 1 s without progress[\s\S]*last words"):
        supervisor.step(
            "Download",
            ["/bin/sh", "-c", "echo last words; sleep 60 & wait"],
            cwd=tmp_path,
            log=tmp_path / "log",
            silence=1.0,
        )
    assert time.monotonic() - started < 15


def test_a_child_that_ignores_a_signal_is_killed_with_all_it_started(tools: SimpleNamespace, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"trap '' INT; sleep 600 & echo $! >'{pid_file}.part'; mv '{pid_file}.part' '{pid_file}'; wait"
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from children import Supervisor, Stopped\n"
        "supervisor = Supervisor(); supervisor.install()\n"
        "try: supervisor.call(['/bin/sh', '-c', sys.argv[2]], cwd=Path.cwd(), grace=0.5)\n"
        "except Stopped as stop: sys.exit(128 + stop.signum)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, ROOT / "tools", script])
    wait_for(pid_file.exists, "the child's child")
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=30) == 130
    grandchild = int(pid_file.read_text())

    def is_gone() -> bool:
        with contextlib.suppress(ProcessLookupError):
            os.kill(grandchild, 0)
            status = Path(f"/proc/{grandchild}/stat")
            return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"
        return True

    wait_for(is_gone, "the grandchild's end", 10)
