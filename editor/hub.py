"""The runs that go on, seen from the editor: what they say goes to the browsers, what the browsers want goes to them.

A run of this process attaches directly (``observing/editors.py`` finds the hub), one of a script by ``link_socket.py``.
Everything here may be called from any thread, and nothing waits: a run is never slowed down by who looks at it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

log = logging.getLogger("discomfort.editor")

Json = dict[str, Any]

#: seconds between two messages about one run to the browsers, at least
INTERVAL = 0.1
# Seconds without news after which the thread that tells them ends.
_IDLE = 5.0

_STATUS_KEYS = ("state", "offset", "node", "percent", "iteration", "iterations", "paused_at")


class NotAttachedError(LookupError):
    """No run of this id is attached: it is over, or was started where this editor is not seen."""

    def __str__(self) -> str:
        return "This run cannot be told anything: it is over, or it has lost its connection to this editor."


class Link:
    """The wire of one run."""

    def __init__(self, hub: Hub, run_id: str, folder: str, command: Callable[[Json], None]) -> None:
        self.run_id = run_id
        #: its folder of events
        self.folder = folder
        #: what it said last; None before it has said anything
        self.status: Json | None = None
        self._hub = hub
        self._command = command
        self._lock = threading.Lock()
        # Commands that wait for an answer, by their ids.
        self._waiting: dict[str, Future[str | None]] = {}
        self._is_closed = False

    def publish(self, status: Mapping[str, Any]) -> None:
        """The run says how it stands."""
        self.status = {key: status.get(key) for key in _STATUS_KEYS}
        self._hub.run_has_changed(self)

    def answer(self, command_id: str, problem: str | None) -> None:
        """The run answers a command; answers nobody waits for are ignored."""
        with self._lock:
            waiting = self._waiting.pop(command_id, None)
        if waiting is not None:
            _resolve(waiting, problem)

    def close(self) -> None:
        """The run is over, or the wire broke. Idempotent."""
        with self._lock:
            is_first, self._is_closed = not self._is_closed, True
            waiting, self._waiting = self._waiting, {}
        for one in waiting.values():
            _resolve(one, "The run has ended meanwhile.")
        if is_first:
            self._hub.run_has_left(self)

    def tell(self, command: Json) -> None:
        """Hand a command to the run. Never raises: a run that cannot take it is on its way out."""
        try:
            self._command(command)
        except Exception:
            log.exception("The run %s did not take the command %r", self.run_id, command.get("command"))

    def ask(self, command: Json) -> Future[str | None]:
        """Hand a command to the run; the future has the problem, or None when it was obeyed."""
        command_id, waiting = uuid.uuid4().hex, Future[str | None]()
        with self._lock:
            if not self._is_closed:
                self._waiting[command_id] = waiting
        if command_id not in self._waiting:
            _resolve(waiting, "The run has ended meanwhile.")
        else:
            self.tell({**command, "id": command_id})
        return waiting

    def forget(self, answer: Future[str | None]) -> None:
        """Nobody waits for this answer of :meth:`ask` any more."""
        with self._lock:
            self._waiting = {key: one for key, one in self._waiting.items() if one is not answer}


def _resolve(waiting: Future[str | None], problem: str | None) -> None:
    with contextlib.suppress(Exception):  # whoever waited has given up: the future is cancelled
        waiting.set_result(problem)


class Hub:
    """All runs that are attached, and what is set for all of them: breakpoints."""

    def __init__(self, send: Callable[[str, Json], None], interval: float = INTERVAL) -> None:
        """
        Args:
            send: tells all browsers (event, data); called from a thread of the hub's own, one message after the other.
            interval: seconds.
        """
        self._notifier = Notifier(send, interval)
        # Reentrant: a command may be answered by a status at once, in this thread.
        self._lock = threading.RLock()
        self._links: dict[str, Link] = {}
        self._breakpoints: tuple[str, ...] = ()
        self._pauses_at_start = False

    # ---- the runs' side ----

    def attach(self, run_id: str, folder: str, command: Callable[[Json], None]) -> Link:
        """A run begins, or is back after its wire broke: then the new wire takes the old one's place.

        Args:
            folder: of its events.
            command: hands it a command; called from any thread, does not block.
        """
        link = Link(self, run_id, folder, command)
        with self._lock:
            self._links[run_id] = link
            link.tell(self._breakpoint_command())
        self._tell_of_runs()
        return link

    def run_has_changed(self, link: Link) -> None:
        """Called by a link that has a new status."""
        if self._links.get(link.run_id) is link:
            # Taken when it is sent: the newest.
            self._notifier.post(link.run_id, "discomfort.run", {"run_id": link.run_id, **(link.status or {})})

    def run_has_left(self, link: Link) -> None:
        """Called by a link that is closed."""
        with self._lock:
            if self._links.get(link.run_id) is link:
                del self._links[link.run_id]
        self._tell_of_runs()

    # ---- the browsers' side ----

    def status_of(self, run_id: str) -> Json | None:
        """What a run said last; None where it is not attached, or has said nothing yet."""
        link = self._links.get(run_id)
        return None if link is None else link.status

    def is_attached(self, run_id: str) -> bool:
        """Whether a run can be told anything."""
        return run_id in self._links

    def link_of(self, run_id: str) -> Link:
        """The wire of a run. NotAttachedError: there is none."""
        link = self._links.get(run_id)
        if link is None:
            raise NotAttachedError(run_id)
        return link

    def settings(self) -> Json:
        """What is set for all runs."""
        with self._lock:
            return {"breakpoints": list(self._breakpoints), "pause_at_start": self._pauses_at_start}

    def change_settings(self, breakpoints: Sequence[str] | None, pause_at_start: bool | None) -> Json:
        """Set breakpoints (names of ports), and whether runs pause before their first step; None leaves them."""
        with self._lock:
            if breakpoints is not None:
                self._breakpoints = tuple(dict.fromkeys(breakpoints))
            if pause_at_start is not None:
                self._pauses_at_start = pause_at_start
            # In the lock: a run that attaches meanwhile gets the newer ones, not first these and then the old ones.
            for link in self._links.values():
                link.tell(self._breakpoint_command())
            settings = self.settings()
        self._notifier.post("settings", "discomfort.settings", settings)
        return settings

    def close(self) -> None:
        """The server goes down. Idempotent."""
        self._notifier.close()

    def _breakpoint_command(self) -> Json:
        return {
            "command": "breakpoints",
            "names": list(self._breakpoints),
            "pause_at_start": self._pauses_at_start,
        }

    def _tell_of_runs(self) -> None:
        self._notifier.post("runs", "discomfort.runs", {})


class Notifier:
    """Sends the newest message of each topic, at most one in *interval* seconds; what it replaces is never sent.

    The first message of a topic goes out at once. A thread does it, which is there only while there is something to do.
    """

    def __init__(self, send: Callable[[str, Json], None], interval: float) -> None:
        self._send = send
        self._interval = interval
        self._changed = threading.Condition()
        # Topic -> (event, data); in the order in which they came.
        self._pending: dict[str, tuple[str, Json]] = {}
        # Topic -> when it was sent last; those of the last interval only.
        self._sent: dict[str, float] = {}
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def post(self, topic: str, event: str, data: Json) -> None:
        """Send this, unless something newer of the topic comes before its turn. From any thread; does not wait."""
        with self._changed:
            if self._is_closed:
                return
            self._pending[topic] = (event, data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="discomfort-editor-hub", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Nothing is sent any more. Idempotent."""
        with self._changed:
            self._is_closed = True
            self._pending.clear()
            self._changed.notify()

    def _work(self) -> None:
        while (due := self._wait_for_due()) is not None:
            for event, data in due:
                try:
                    self._send(event, data)
                except Exception:  # the server's loop is closed, or a pack has replaced its method by a broken one
                    log.debug("%r was not sent to the browsers", event, exc_info=True)

    def _wait_for_due(self) -> list[tuple[str, Json]] | None:
        """What is to be sent now; waits until there is something. None: the thread is not needed any more."""
        with self._changed:
            idle_since = time.monotonic()
            while not self._is_closed:
                now = time.monotonic()
                self._sent = {topic: at for topic, at in self._sent.items() if now < at + self._interval}
                due = [topic for topic in self._pending if topic not in self._sent]
                if due:
                    self._sent.update(dict.fromkeys(due, now))
                    return [self._pending.pop(topic) for topic in due]
                if self._pending:
                    self._changed.wait(min(self._sent[topic] for topic in self._pending) + self._interval - now)
                elif now >= idle_since + _IDLE:
                    break
                else:
                    self._changed.wait(idle_since + _IDLE - now)
            self._thread = None
            return None
