"""The browser that converts workflows: finding one that really starts, installing one where there is none.

The order, the same as the connector's own search: Playwright's own Chromium; a Chromium, Chrome or Edge that
is installed; `playwright install chromium`; the system's package manager where we are root. A browser counts
only after it has started once: a file that exists may still lack system libraries, or be a stub that wants a
snap.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from children import StepFailed, say
from environment import Environment, clean_environ, is_root

# Names on PATH, in the connector's order (comfy_serverless.py).
COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge", "chrome")

# Where browsers are on macOS, below /Applications or ~/Applications.
MAC_APPS = (
    "Google Chrome.app/Contents/MacOS/Google Chrome",
    "Chromium.app/Contents/MacOS/Chromium",
    "Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)

# Where browsers are on Windows, below the program folders.
WINDOWS_PROGRAMS = (
    "Google/Chrome/Application/chrome.exe",
    "Chromium/Application/chrome.exe",
    "Microsoft/Edge/Application/msedge.exe",
)

# The system's package managers: what installs Chromium without asking, and what fetches the lists of packages, which
# may be missing or too old for that; None where installing does it by itself.
PACKAGE_MANAGERS: dict[str, tuple[list[str], list[str] | None]] = {
    "apt-get": (["install", "-y", "--no-install-recommends", "chromium"], ["update"]),
    "dnf": (["install", "-y", "chromium"], None),
    "apk": (["add", "chromium"], ["update"]),
    "pacman": (["-S", "--noconfirm", "chromium"], ["-Sy", "--noconfirm"]),
    "zypper": (["--non-interactive", "install", "chromium"], None),
}

# Seconds for a browser's first start; a cold disk and a small machine need 10.
START_LIMIT = 90.0

# Playwright's download: seconds in all, and seconds without progress (it reports every tenth of the file).
DOWNLOAD_LIMIT = 900.0
DOWNLOAD_SILENCE = 120.0

# Run by the environment's Python. Without a path, Playwright starts its own browser.
START_CODE = """
import sys
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=sys.argv[1] or None, timeout=60000)
    page = browser.new_page()
    assert page.evaluate("6 * 7") == 42
    browser.close()
"""

WHERE_CODE = """
import json
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(json.dumps(playwright.chromium.executable_path))
"""


def ensure_browser(environment: Environment) -> None:
    """Finds or installs a browser and notes it in the environment's state.

    The note is {"path": file that must exist, "is_own": true for Playwright's own}.

    Raises:
        StepFailed: There is none and none could be installed; the message lists what was tried.
        Stopped: After a signal.
    """
    if os.environ.get("DISCOMFORT_BROWSER") or is_known(environment):
        return
    environment.note(browser=_Search(environment).run())


def is_known(environment: Environment) -> bool:
    """True where an earlier set-up found a browser that is still there."""
    note = environment.read_state().get("browser")
    return isinstance(note, dict) and Path(str(note.get("path"))).exists()


def check_choice() -> None:
    """Refuses a DISCOMFORT_BROWSER that names no file; nothing else about the user's choice is questioned."""
    chosen = os.environ.get("DISCOMFORT_BROWSER")
    if chosen and not Path(chosen).is_file():
        raise StepFailed(
            f"DISCOMFORT_BROWSER is '{chosen}', and there is no such file. Give the path of a Chromium, "
            "Chrome or Edge executable, or unset it and ./dev looks for one itself."
        )


def exported(note: object) -> dict[str, str]:
    """The variables that tell Discomfort which browser the set-up chose.

    None for Playwright's own: Playwright then picks its headless build, which starts faster than the full
    one.
    """
    if os.environ.get("DISCOMFORT_BROWSER") or not isinstance(note, dict) or note.get("is_own"):
        return {}
    return {"DISCOMFORT_BROWSER": str(note["path"])}


def installed_browsers(platform: str, environ: Mapping[str, str], which: Callable[[str], str | None]) -> Iterator[Path]:
    """The browsers installed on this machine, best first. Pure apart from asking which files exist.

    Args:
        platform: As in sys.platform.
        environ: The environment variables (HOME, and the program folders on Windows).
        which: Finds a command on PATH.
    """
    for command in COMMANDS:
        if path := which(command):
            yield Path(path)
    if platform == "darwin":
        folders = ["/Applications", f"{environ.get('HOME', '')}/Applications"]
        places = [Path(folder, app) for folder in folders for app in MAC_APPS]
    elif platform == "win32":
        folders = [environ.get(name, "") for name in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")]
        places = [Path(folder, program) for folder in folders if folder for program in WINDOWS_PROGRAMS]
    else:
        places = [Path("/snap/bin/chromium"), Path("/opt/google/chrome/chrome")]
    yield from (place for place in places if place.is_file())


class _Search:
    """One search for a browser; remembers what was tried, for the message at the end."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.tried: list[str] = []

    def run(self) -> dict[str, Any]:
        own = self._own_path()
        if own.exists() and self._own_starts():
            return {"path": str(own), "is_own": True}
        if found := self._first_installed():
            return found
        if not own.exists() and self._download() and self._own_starts():
            return {"path": str(own), "is_own": True}
        if self._install_package() and (found := self._first_installed()):
            return found
        tried = "\n".join(f"  - {line}" for line in self.tried)
        raise StepFailed(
            "No browser that starts was found, and none could be installed. Discomfort needs a Chromium, "
            f"Chrome or Edge: ComfyUI's frontend runs in it and converts workflows. Tried:\n{tried}\n"
            "Install Chromium or Chrome with the system's package manager (Debian: apt-get install chromium) "
            f"or name one: DISCOMFORT_BROWSER=/path/to/chrome ./dev ...\nDetails: {self.environment.log}"
        )

    def _own_path(self) -> Path:
        """Where Playwright keeps its own Chromium; the file need not exist."""
        run = subprocess.run(
            [self.environment.python, "-c", WHERE_CODE],
            capture_output=True,
            text=True,
            check=False,
            timeout=START_LIMIT,
            env=clean_environ(),
        )
        if run.returncode:
            raise StepFailed(f"Playwright does not start:\n{run.stderr.strip()}")
        return Path(json.loads(run.stdout))

    def _own_starts(self) -> bool:
        if self._starts("", "Playwright's own Chromium"):
            return True
        if is_root() and shutil.which("apt-get"):
            if self._step("System libraries for Playwright's Chromium", self._playwright("install-deps", "chromium")):
                return self._starts("", "Playwright's own Chromium, with its system libraries")
        else:
            python = self.environment.python
            self.tried.append(f"it may lack system libraries: sudo '{python}' -m playwright install-deps chromium")
        return False

    def _first_installed(self) -> dict[str, Any] | None:
        found = False
        for path in installed_browsers(sys.platform, os.environ, shutil.which):
            found = True
            if self._starts(str(path), str(path)):
                return {"path": str(path), "is_own": False}
        if not found:
            self.tried.append("an installed Chromium, Chrome or Edge: there is none on PATH or in the usual folders")
        return None

    def _download(self) -> bool:
        """Playwright's download, bounded: behind some firewalls it hangs instead of failing."""
        return self._step(
            "Playwright's Chromium (about 170 MB)",
            self._playwright("install", "chromium"),
            limit=DOWNLOAD_LIMIT,
            silence=DOWNLOAD_SILENCE,
        )

    def _install_package(self) -> bool:
        manager = next((name for name in PACKAGE_MANAGERS if shutil.which(name)), None)
        if manager is None:
            self.tried.append(f"the system's package manager: none of {', '.join(PACKAGE_MANAGERS)} is here")
            return False
        if not is_root():
            self.tried.append(f"the system's package manager: {manager} needs root, which we are not")
            return False
        install, refresh = PACKAGE_MANAGERS[manager]
        title = "System's packages"
        is_done = self._step(f"{title}: {manager} {' '.join(install)}", [manager, *install])
        if not is_done and refresh is not None:
            self._step(f"{title}: {manager} {' '.join(refresh)}", [manager, *refresh])
            is_done = self._step(f"{title}: {manager} {' '.join(install)}, again", [manager, *install])
        if is_done:
            self.tried.append(f"{title}: {manager} installed chromium")
        return is_done

    def _starts(self, path: str, title: str) -> bool:
        argv = [str(self.environment.python), "-c", START_CODE, path]
        return self._step(f"Browser: {title}", argv, limit=START_LIMIT)

    def _playwright(self, *words: str) -> list[str]:
        return [str(self.environment.python), "-m", "playwright", *words]

    def _step(self, title: str, argv: list[str], limit: float | None = None, silence: float | None = None) -> bool:
        """Runs one attempt; a failure is noted with its reason and is no error yet."""
        try:
            self.environment.supervisor.step(
                title,
                argv,
                cwd=self.environment.root,
                log=self.environment.log,
                env=clean_environ() | {"DEBIAN_FRONTEND": "noninteractive"},
                limit=limit,
                silence=silence,
            )
        except StepFailed as failure:
            self.tried.append(_reason(title, str(failure)))
            say("    it did not work; going on to the next way")
            return False
        return True


def _reason(title: str, message: str) -> str:
    """The line of a failed attempt's output that says why, behind its title."""
    head, *tail = [line.strip() for line in message.splitlines()]
    for line in tail:
        if any(word in line.lower() for word in ("error while loading", "unable to locate", "enoent", "snap")):
            return f"{title}: {line}"
    errors = [line for line in tail if "error" in line.lower() or line.startswith("E:")]
    return f"{title}: {errors[0]}" if errors else head
