"""The developers' virtual environment in `.venv`: made once, updated when its inputs change.

What is known about it stands in `.venv/discomfort-dev.json`:

    {"status": "working" | "ready",   # "working" found under the lock means: a set-up was interrupted
     "key": "<hash of all inputs>",   # pyproject.toml, requirements.txt, constraints-dev.txt, Python, folder
     "is_ours": true,                 # false: the user made .venv; it is used, but never deleted
     "browser": {...} | null}         # see browser.py

The file is written before anything else happens in `.venv`, so that an interrupted set-up is always seen.
Such an environment is made again from nothing: pip leaves no trace that would tell a half-installed package
from a whole one.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from children import StepFailed, Supervisor, say

# Raise it when the set-up does something that an existing environment lacks.
SCHEMA = 1

# What decides the environment's contents.
INPUTS = ("pyproject.toml", "requirements.txt", "constraints-dev.txt")

# PyTorch's own index of builds without CUDA. On Linux, PyPI's build brings several GB of CUDA libraries.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"

# Seconds in which that index must answer. It is a fallback, not worth a wait.
CPU_INDEX_TIMEOUT = 5.0


class Environment:
    """The virtual environment of one clone.

    Args:
        root: The clone's folder.
        supervisor: Runs the children.
    """

    def __init__(self, root: Path, supervisor: Supervisor) -> None:
        self.root = root
        self.venv = root / ".venv"
        self.scripts = self.venv / ("Scripts" if sys.platform == "win32" else "bin")
        self.python = self.scripts / ("python.exe" if sys.platform == "win32" else "python")
        self.log = root / ".dev" / "setup.log"
        self.supervisor = supervisor
        self._state_file = self.venv / "discomfort-dev.json"

    def script(self, name: str) -> Path:
        """A program that the environment brings, for example "ruff"."""
        return self.scripts / (f"{name}.exe" if sys.platform == "win32" else name)

    def is_ready(self) -> bool:
        """True where nothing is to be done. Takes a few hundredths of a second."""
        state = self.read_state()
        return state.get("status") == "ready" and state.get("key") == self._key() and self._starts()

    def prepare(self, lock: int) -> None:
        """Makes the environment, or brings it up to date. Call it with the lock held.

        Args:
            lock: The lock's file descriptor. pip inherits it: were we killed, the lock would be held until
                pip ends.

        Raises:
            StepFailed: With the message for the user.
            Stopped: After a signal; the next call makes the environment again.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        state = self.read_state()
        is_ours = bool(state.get("is_ours", True))
        if self.venv.exists() and not state:
            is_ours = False
            self._adopt()
        elif not self._is_reusable(state):
            self._make(lock)
        self._write_state({"status": "working", "is_ours": is_ours, "browser": None})
        self._install(lock)
        self._write_state({"status": "ready", "is_ours": is_ours, "browser": None, "key": self._key()})

    def read_state(self) -> dict[str, Any]:
        """What is known about the environment; {} where nothing is."""
        try:
            state = json.loads(self._state_file.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def note(self, **changes: Any) -> None:
        """Changes single keys of what is known."""
        self._write_state(self.read_state() | changes)

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Holds the set-up's lock, waiting for another ./dev that has it. The system frees it however we end.

        Yields the descriptor of the lock file, for children that must keep the lock alive.
        """
        path = self.root / ".dev" / "lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as file:
            if not _try_lock(file.fileno()):
                say("Another ./dev is setting up this clone: waiting for it.")
                while not _try_lock(file.fileno()):
                    time.sleep(0.2)
            yield file.fileno()

    def _key(self) -> str:
        """A hash of everything the environment depends on."""
        digest = hashlib.sha256(f"{SCHEMA}\n{self.root}\n{self._version()}\n".encode())
        for name in INPUTS:
            path = self.root / name
            digest.update(f"{name}\n".encode())
            digest.update(path.read_bytes() if path.exists() else b"")
        return digest.hexdigest()

    def _version(self) -> str:
        """The environment's Python version, "3.11.7", from pyvenv.cfg; "" where there is no such file."""
        with contextlib.suppress(OSError):
            for line in (self.venv / "pyvenv.cfg").read_text("utf-8").splitlines():
                name, _, value = line.partition("=")
                if name.strip() in ("version", "version_info"):
                    return value.strip()
        return ""

    def _starts(self) -> bool:
        """True where the environment's Python is the wanted one and runs (its base may have been removed)."""
        wanted = "{}.{}".format(*sys.version_info[:2])
        if os.environ.get("DISCOMFORT_PYTHON") and not self._version().startswith(f"{wanted}."):
            return False
        try:
            return subprocess.run([self.python, "-c", ""], check=False, capture_output=True).returncode == 0
        except OSError:
            return False

    def _is_reusable(self, state: dict[str, Any]) -> bool:
        """True where pip can bring the environment up to date; else it has to be made (again)."""
        if state.get("is_ours") is False:
            self._adopt()
            return True
        if not self.venv.exists():
            return False
        if state.get("status") != "ready":
            say("An earlier set-up was interrupted: making .venv again.")
            return False
        if not self._starts():
            say("The Python of .venv does not start any more, or another one is wanted: making .venv again.")
            return False
        return True

    def _adopt(self) -> None:
        """Checks that a `.venv` which we did not make can be used as it is."""
        check = "import sys, pip; sys.exit(sys.version_info < (3, 10))"
        try:
            is_usable = subprocess.run([self.python, "-c", check], check=False, capture_output=True).returncode == 0
        except OSError:
            is_usable = False
        if not is_usable:
            raise StepFailed(
                f"{self.venv} was not made by ./dev, and it is no virtual environment with Python 3.10 or "
                "newer and pip. Rename or delete it, then run ./dev again."
            )

    def _make(self, lock: int) -> None:
        """Makes an empty environment from the Python that runs us."""
        self._ensure_venv_module()
        if self.venv.exists():
            shutil.rmtree(self.venv)
        self.venv.mkdir(parents=True)
        self._write_state({"status": "working", "is_ours": True, "browser": None})
        version = ".".join(map(str, sys.version_info[:3]))
        self.supervisor.step(
            f"Virtual environment .venv, Python {version}",
            [sys.executable, "-m", "venv", self.venv],
            cwd=self.root,
            log=self.log,
            env=clean_environ(),
            keep_open=[lock],
        )

    def _ensure_venv_module(self) -> None:
        """Installs ensurepip where it is missing (Debian has it apart): `python3 -m venv` needs it."""
        if _has_module("venv") and _has_module("ensurepip"):
            return
        package = "python{}.{}-venv".format(*sys.version_info[:2])
        apt = shutil.which("apt-get")
        if apt is None or not is_root():
            _refuse_without_venv(package)
        environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        install = ["install", "-y", "--no-install-recommends", package]
        # Without the update first: it is slow, and needed only where the lists are missing or too old.
        for words in (install, ["update"], install):
            with contextlib.suppress(StepFailed):
                self.supervisor.step(
                    f"System's packages: apt-get {words[0]}", [apt, *words], cwd=self.root, log=self.log, env=environ
                )
            importlib.invalidate_caches()
            if _has_module("ensurepip"):
                return
        _refuse_without_venv(package)

    def _install(self, lock: int) -> None:
        """PyTorch first, alone: it is most of the download, and only it may come from PyTorch's own index."""
        pip: list[str | Path] = [self.python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
        pip += ["--progress-bar", "off", "-c", "constraints-dev.txt"]
        for title, words in (
            ("PyTorch", [*self._torch_index(), "torch"]),
            ("Discomfort and its dependencies", ["-e", ".[dev]"]),
        ):
            self.supervisor.step(
                title,
                [*pip, *words],
                cwd=self.root,
                log=self.log,
                describe=_describe_pip,
                env=clean_environ(),
                keep_open=[lock],
            )

    def _torch_index(self) -> list[str]:
        """The option that shows pip PyTorch's builds without CUDA, where those are wanted and in reach.

        pip prefers such a build (2.13.0+cpu counts as newer than 2.13.0), wherever it finds it. Where the
        index cannot be reached, pip takes what the user's own configuration offers.
        """
        has_nvidia = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
        if sys.platform != "linux" or has_nvidia:
            return []
        try:
            # A fixed https address, nothing the user or a file could have changed.
            urllib.request.urlopen(f"{CPU_INDEX}/torch/", timeout=CPU_INDEX_TIMEOUT).close()  # noqa: S310
        except (OSError, http.client.HTTPException):
            say("PyTorch's index of builds without CUDA cannot be reached: pip takes the build it finds itself.")
            return []
        return ["--extra-index-url", CPU_INDEX]

    def _write_state(self, state: dict[str, Any]) -> None:
        """Replaces the state in one go: a reader sees the old one or the new one."""
        partial = self._state_file.with_suffix(".part")
        partial.write_text(json.dumps(state, indent=1) + "\n", "utf-8")
        partial.replace(self._state_file)


def clean_environ() -> dict[str, str]:
    """Our environment variables without those that lead Python or pip out of the virtual environment."""
    outside = ("PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    return {name: value for name, value in os.environ.items() if name not in outside}


def is_root() -> bool:
    """True where we may install system packages."""
    return sys.platform != "win32" and os.geteuid() == 0


def _has_module(name: str) -> bool:
    """True where Python can import it. A folder that a package left behind has a spec too, but no loader."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.loader is not None


def _try_lock(descriptor: int) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _describe_pip(line: str) -> str | None:
    """pip's output in a few words: what it fetches and installs; None for the rest."""
    words = line.split()
    noise = {
        "Requirement",
        "Looking",
        "WARNING:",
        "[notice]",
        "Attempting",
        "Found",
        "Uninstalling",
        "Stored",
        "Created",
    }
    if not words or words[0] in noise or words[0].startswith("Success"):
        return None
    if words[:3] == ["Installing", "collected", "packages:"]:
        return f"installing {len(words) - 3} packages"
    if words[0] in ("Collecting", "Downloading", "Using", "Processing"):
        what = next((word for word in words[1:] if word != "cached"), "")
        size = line[line.rfind("(") :] if line.endswith("B)") else ""
        return f"{words[0].lower()} {what.rpartition('/')[2]} {size}".rstrip()
    return line.strip()


def _refuse_without_venv(package: str) -> NoReturn:
    raise StepFailed(
        f"The Python at {sys.executable} cannot make virtual environments: its ensurepip module is missing, "
        f"which Debian and Ubuntu put into a package of its own. Run `sudo apt-get install {package}`, or "
        "name another Python: DISCOMFORT_PYTHON=/path/to/python3 ./dev ..."
    )
