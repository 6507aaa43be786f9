"""How the commands say sizes, times and numbers to people."""

from __future__ import annotations

import datetime
import shlex
import time
from pathlib import Path

import click


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3.5 h``, ``4 days``."""
    if seconds < 90:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.0f} days"


def size(count: float) -> str:
    """``0 B``, ``812 B``, ``48.0 MB``; in units of 1024, as in the configuration."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KB", "MB", "GB"):
        count /= 1024
        if count < 999.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TB"


def counted(number: int, one: str, many: str = "") -> str:
    """``1 run``, ``3 runs``, ``3 entries``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def ago(moment: float) -> str:
    """How long ago a moment (seconds since the epoch) was."""
    return f"{duration(time.time() - moment)} ago"


def date(moment: float) -> str:
    """A moment (seconds since the epoch) in local time."""
    return datetime.datetime.fromtimestamp(moment).strftime("%Y-%m-%d %H:%M:%S")


def shortened(text: str, limit: int) -> str:
    """A text of at most *limit* characters."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def command(words: str, config_path: Path | None = None) -> str:
    """A command of this program, as it can be copied: ``python -m discomfort context list``."""
    name = click.get_current_context().find_root().info_name
    options = ["--config", shlex.quote(str(config_path))] if config_path else []
    return " ".join([f"{name} {words}", *options])
