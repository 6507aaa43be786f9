"""The browser that converts workflows: is there one, and does it start?"""

from __future__ import annotations

import os
import sys

from .checkup import Machine, Result, broken, command, ok, setting, warning
from .programs import Part, PartFailed

#: seconds that a browser may take to start here; a conversion gives it more
_LIMIT = 30.0

_INSTALL = ("-m", "playwright", "install", "--with-deps", "chromium")


def look_at_browser(machine: Machine) -> Result:
    named = machine.config.BROWSER_PATH or os.environ.get("DISCOMFORT_BROWSER", "")
    advice = [
        "Install a browser that works (Chromium, Chrome or Edge), or Playwright's own:",
        command(sys.executable, *_INSTALL),
        "A browser that is found nowhere is named by:",
        setting("DISCOMFORT_BROWSER", "/path/to/chromium"),
    ]
    source = "BROWSER_PATH" if machine.config.BROWSER_PATH else "DISCOMFORT_BROWSER"
    if named and not os.path.isfile(named):
        return broken(f"{named}, which {source} names, does not exist", *advice)
    if named and not os.access(named, os.X_OK):
        return broken(f"{named}, which {source} names, is no program that can be run", *advice)
    part = Part("browser", machine)
    try:
        told = part.wait_for("browser", _LIMIT + 30)
    except PartFailed as failure:
        return broken(f"could not be looked at: {failure}", *advice)
    finally:
        part.end(patience=5)
    if told["problem"]:
        if not named and not told["failures"] and machine.config.AUTO_INSTALL_BROWSER:
            return warning(
                "none was found; the first conversion would download Playwright's Chromium (about 150 MB)",
                "Do it now:",
                command(sys.executable, *_INSTALL),
            )
        failures = [f"{program} does not start: {complaint}" for program, complaint in told["failures"]]
        return broken("; ".join(failures) or told["problem"], *advice)
    machine.browser = machine.versions["browser"] = told["version"]
    return ok(f"{told['version']} ({told['path']}), started in {told['seconds']:.1f} s")
