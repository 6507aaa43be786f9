"""The developers' commands: demo, test, docs, setup, run. `./dev` finds a Python and starts this file.

Only the standard library may be used here: it runs before anything is installed. Everything ./dev itself has
to say goes to stderr; stdout belongs to the command.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import browser
from children import StepFailed, Stopped, Supervisor, say
from environment import Environment, clean_environ

ROOT = Path(__file__).resolve().parent.parent

USAGE = """\
usage: ./dev COMMAND

  demo [ARGS]   run the demo: a workflow in a loop, until the picture is sharp enough
  test [ARGS]   lint, types, documentation and all tests; ARGS go to pytest, for example: ./dev test -k store
  docs          build the documentation into build/docs; warnings are errors
  docs --links  ask the network whether the links to other sites still work
  setup         only what each command does first: .venv, dependencies, a browser
  run CMD ...   run a command inside the environment, for example: ./dev run python my_script.py

Every command sets up by itself what is missing; when nothing is, it starts at once.

Environment variables:
  DISCOMFORT_PYTHON    the Python (3.10 to 3.14) that .venv is made from
  DISCOMFORT_BROWSER   the Chromium, Chrome or Edge that converts workflows
  COMFYUI_PATH         a ComfyUI to run on instead of the embedded server; turns on the tests that need one
"""


class Check(NamedTuple):
    """One step of `./dev test`."""

    name: str
    argv: list[str | Path]
    cwd: Path
    # Seconds between Ctrl-C and the kill: tests end servers and browsers, the others have nothing to clean up.
    grace: float = 2.0


def main(arguments: Sequence[str]) -> int:
    """Runs one command; returns the exit status, unless the command takes over this process."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    commands: dict[str, Callable[[Environment, Sequence[str]], int]] = {
        "demo": demo,
        "test": test,
        "docs": docs,
        "setup": setup,
        "run": run,
    }
    name, *rest = arguments
    if name not in commands:
        say(f"./dev: there is no command '{name}'.\n\n{USAGE}")
        return 2
    _ensure_home()
    supervisor = Supervisor()
    supervisor.install()
    try:
        return commands[name](Environment(ROOT, supervisor), rest)
    except StepFailed as failure:
        say(f"\n./dev {name}: {failure}")
        return 1
    except OSError as error:  # a full disk, a folder that may not be written to
        say(f"\n./dev {name}: {error}")
        return 1
    except Stopped as stop:
        say(f"./dev {name}: stopped.")
        return 128 + stop.signum


def setup(environment: Environment, arguments: Sequence[str]) -> int:
    """Sets up, and says with what."""
    if arguments:
        say(f"./dev setup takes no arguments; got {' '.join(arguments)}")
        return 2
    set_up(environment)
    found = environment.read_state().get("browser") or {}
    say(f"Ready: {environment.python}, browser {os.environ.get('DISCOMFORT_BROWSER') or found.get('path')}")
    return 0


def demo(environment: Environment, arguments: Sequence[str]) -> int:
    """Runs examples/refine.py in the caller's folder."""
    set_up(environment)
    runner = ROOT / "tools" / "run_script.py"
    return _become(environment, [environment.python, runner, ROOT / "examples" / "refine.py", *arguments])


def run(environment: Environment, arguments: Sequence[str]) -> int:
    """Runs a command inside the environment, in the caller's folder."""
    if not arguments:
        say("./dev run needs a command, for example: ./dev run python")
        return 2
    set_up(environment)
    command = shutil.which(arguments[0], path=_environ(environment)["PATH"])
    if command is None:
        say(f"./dev run: there is no command '{arguments[0]}', neither in .venv nor on PATH.")
        return 127
    return _become(environment, [command, *arguments[1:]])


def test(environment: Environment, arguments: Sequence[str]) -> int:
    """Runs every check, also after one has failed.

    Returns pytest's exit status; where pytest passed and another check did not, 1.
    """
    set_up(environment)
    environ = _environ(environment)
    results: list[tuple[str, int, float]] = []
    for check in _checks(environment, arguments):
        say(f"\n== {check.name}")
        started = time.monotonic()
        status = environment.supervisor.call(check.argv, cwd=check.cwd, env=environ, grace=check.grace)
        results.append((check.name, status, time.monotonic() - started))
    say("\n== Summary")
    for name, status, seconds in results:
        say(f"{name:<22} {'passed' if status == 0 else f'FAILED ({status})':<12} {seconds:7.1f} s")
    return results[-1][1] or int(any(status for _, status, _ in results))


def docs(environment: Environment, arguments: Sequence[str]) -> int:
    """Builds the documentation, or looks at its links to other sites."""
    if arguments not in ([], ["--links"]):
        say(f"./dev docs takes no arguments but --links; got {' '.join(arguments)}")
        return 2
    set_up(environment)
    folder = ROOT / "build" / ("links" if arguments else "docs")
    command = _sphinx(environment, "linkcheck" if arguments else "html", folder)
    status = environment.supervisor.call(command, cwd=ROOT, env=_environ(environment))
    if status == 0 and not arguments:
        say(f"Built: {(folder / 'index.html').as_uri()}")
    return status


def _sphinx(environment: Environment, builder: str, folder: Path) -> list[str | Path]:
    """A build of docs/ from scratch: what Sphinx remembers of pages it does not warn of again."""
    words: list[str | Path] = [environment.script("sphinx-build"), "-b", builder, "-E", "-q", "-W", "--keep-going"]
    return [*words, "-j", "auto", "-d", ROOT / "build" / "doctrees", ROOT / "docs", folder]


def set_up(environment: Environment) -> None:
    """Environment and browser; returns within a tenth of a second where both are there.

    Raises:
        StepFailed: With the message for the user.
        Stopped: After a signal.
    """
    browser.check_choice()
    is_chosen = bool(os.environ.get("DISCOMFORT_BROWSER"))
    if environment.is_ready() and (is_chosen or browser.is_known(environment)):
        return
    with environment.locked() as lock:
        if not environment.is_ready():
            say(f"Setting up {environment.root} (once; the log is {environment.log})")
            environment.prepare(lock)
        browser.ensure_browser(environment)


def _checks(environment: Environment, arguments: Sequence[str]) -> list[Check]:
    ruff = environment.script("ruff")
    mypy: list[str | Path] = [environment.python, "-m", "mypy", "--config-file", ROOT / "pyproject.toml"]
    mypy += ["--cache-dir", ROOT / ".mypy_cache"]
    # As modules, not as files: from a file, mypy climbs to the clone's __init__.py and trips over its folder's name.
    tools = [word for path in sorted((ROOT / "tools").glob("*.py")) for word in ("-m", path.stem)]
    return [
        Check("ruff check", [ruff, "check", "."], ROOT),
        Check("ruff format --check", [ruff, "format", "--check", "."], ROOT),
        Check("mypy (package)", [*mypy, "-p", "discomfort"], _typing_folder()),
        Check("mypy (tools)", [*mypy, *tools], ROOT / "tools"),
        Check("docs", _sphinx(environment, "html", ROOT / "build" / "docs"), ROOT),
        # Not `python -m pytest`: that puts the current folder first in sys.path, and there `import
        # discomfort` would find the module discomfort.py instead of the package it belongs to.
        Check("pytest", [environment.script("pytest"), *(arguments or _in_parallel())], ROOT, grace=60.0),
    ]


def _in_parallel() -> list[str]:
    """Arguments for the whole suite: files side by side (pytest-xdist), for much of their time is waiting for servers
    and browsers. A file stays in one process, because its tests share a server. More than four would want more memory
    than a laptop has.
    """
    return ["-n", str(max(1, min(4, os.cpu_count() or 1))), "--dist", "loadfile"]


def _typing_folder() -> Path:
    """A folder in which the clone is called `discomfort`, whatever its real name: mypy goes by folder names.

    mypy has to run inside it. In the clone itself it would take discomfort.py for the whole package, as
    above.
    """
    folder = ROOT / ".dev" / "typing"
    link = folder / "discomfort"
    folder.mkdir(parents=True, exist_ok=True)
    if not link.exists() or link.resolve() != ROOT:
        if link.is_symlink():
            link.unlink()
        if sys.platform == "win32":
            # A junction needs no administrator, a symbolic link does.
            subprocess.run(["cmd", "/c", "mklink", "/J", str(link), str(ROOT)], check=True, capture_output=True)
        else:
            link.symlink_to(ROOT, target_is_directory=True)
    return folder


def _environ(environment: Environment) -> dict[str, str]:
    """The variables of a command inside the environment: what `activate` sets, and the browser."""
    environ = clean_environ()
    environ["VIRTUAL_ENV"] = str(environment.venv)
    environ["PATH"] = os.pathsep.join([str(environment.scripts), environ.get("PATH", os.defpath)])
    return environ | browser.exported(environment.read_state().get("browser"))


def _become(environment: Environment, argv: Sequence[str | Path]) -> int:
    """Lets the command take over this process: signals, terminal and exit status are then its own."""
    words = [str(word) for word in argv]
    if sys.platform == "win32":  # has no exec that keeps the process
        return subprocess.run(words, env=_environ(environment), check=False).returncode
    sys.stdout.flush()
    # No shell between: every word reaches the command as it was typed.
    os.execve(words[0], words, _environ(environment))  # noqa: S606


def _ensure_home() -> None:
    """Gives HOME a value where it has none (some CI runners): Playwright would use the current folder."""
    if sys.platform == "win32" or os.environ.get("HOME"):
        return
    import pwd

    try:
        home = pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:  # a container's user without a name
        home = ""
    os.environ["HOME"] = home if home and os.access(home, os.W_OK) else str(ROOT / ".dev")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
