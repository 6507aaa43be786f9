"""Logging of the server process, and the last lines of it for the editor's log panel.

Everything written to stdout and stderr is kept, so print() in node packages shows up as well. Messages are
logged without level or name in front, as ComfyUI does: start-up scripts look for its lines.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TextIO

logger = logging.getLogger("discomfort.embedded.log")

# A level between DEBUG and INFO (ComfyUI 0.30).
DETAIL = 15
logging.addLevelName(DETAIL, "DETAIL")

# How many writes are kept.
_CAPACITY = 300

Entry = dict[str, str]

_entries: deque[Entry] = deque(maxlen=_CAPACITY)
_lock = threading.Lock()
_listeners: list[Callable[[list[Entry]], None]] = []


class _Tee:
    """A stream that also keeps what is written to it, and passes it on at once.

    At once, because a stream into a pipe or file would hold it back in a buffer that is lost when the process
    is killed.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        # Kept, and not yet told to the listeners; print() does not flush, so for no more than are kept.
        self._untold: deque[Entry] = deque(maxlen=_CAPACITY)

    def write(self, text: str) -> int:
        """Write and keep."""
        written = self._stream.write(text)
        self._stream.flush()
        self._untold.append(_keep(text))
        return written

    def flush(self) -> None:
        """Tell the listeners what was written since the last time: a line, not each of the parts print() writes."""
        self._stream.flush()
        entries: list[Entry] = []
        # One by one: another thread may be writing.
        while self._untold:
            entries.append(self._untold.popleft())
        if entries:
            for listener in list(_listeners):
                listener(entries)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _keep(text: str) -> Entry:
    """Keep one write."""
    entry = {"t": datetime.now().isoformat(), "m": text}
    with _lock:
        # A progress bar that overwrites its line overwrites its entry, too.
        if text.startswith("\r") and _entries and not _entries[-1]["m"].endswith("\n"):
            _entries.pop()
        _entries.append(entry)
    return entry


def get_logs() -> list[Entry]:
    """The last writes, oldest first: {"t": time as ISO 8601, "m": text}."""
    with _lock:
        return list(_entries)


def on_entries(listener: Callable[[list[Entry]], None]) -> None:
    """Have a function called with the new entries at each flush, in the thread that flushes; it must not log."""
    _listeners.append(listener)


def set_up(level: str, use_stdout: bool, files: Sequence[tuple[str, str]] = ()) -> None:
    """Configure the process's logging. Called once, by the server's start.

    Args:
        level: such as "INFO".
        use_stdout: everything below ERROR to stdout in place of stderr.
        files: (level, path) of what is logged into files beside; one that cannot be written is warned of.
    """
    sys.stdout, sys.stderr = _Tee(sys.stdout), _Tee(sys.stderr)
    root = logging.getLogger()
    root.setLevel(min(_number_of(each) for each in (level, *(file_level for file_level, _ in files))))
    errors = logging.StreamHandler(sys.stderr)
    handlers = [errors]
    if use_stdout:
        others = logging.StreamHandler(sys.stdout)
        errors.addFilter(lambda record: record.levelno >= logging.ERROR)
        others.addFilter(lambda record: record.levelno < logging.ERROR)
        handlers.append(others)
    for handler in handlers:
        handler.setLevel(level)
        handler.setFormatter(logging.Formatter("%(message)s"))
        root.addHandler(handler)
    for file_level, path in files:
        try:
            to_file = logging.FileHandler(path, encoding="utf-8")
        except OSError as exc:
            logger.warning("Could not open %s for what is logged of level %s: %s", path, file_level, exc)
            continue
        to_file.setLevel(file_level)
        to_file.setFormatter(logging.Formatter("[%(asctime)s] [%(levelname)s] %(message)s"))
        root.addHandler(to_file)


def _number_of(level: str) -> int:
    """A level's number."""
    number: int = logging.getLevelName(level)
    return number
