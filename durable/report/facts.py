"""What a journal says, put together for the report: sessions, bars of the timeline, figures, pictures, errors. Pure.

The journal is read once, from front to back. Whatever is missing in an entry, or is of another type than it should be,
is left out of the report: a record may come from elsewhere, and a report of a broken run is wanted most.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .text import clip, number_of

Json = dict[str, Any]

#: characters of a name that the report shows
NAME_LENGTH = 120
# Seconds that no clock shows and no run takes.
_FOREVER = 1e11
# Ports whose numbers are kept; a chart is drawn of the first few.
_MOST_PORTS = 200


def mapping(value: Any) -> Mapping[str, Any]:
    """A JSON object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def listing(value: Any) -> list[Any]:
    """A JSON array; an empty one for anything else."""
    return value if isinstance(value, list) else []


def name_of(value: Any) -> str:
    """A name that a user gave, not too long."""
    return clip(value if isinstance(value, str) else "?", NAME_LENGTH)


def path_of(entry: Mapping[str, Any]) -> tuple[int, ...]:
    """The iteration of an entry, a number for each nested loop."""
    path = listing(entry.get("path"))
    for number in path:
        if type(number) is not int:
            return ()
    return tuple(path[:20])


def path_text(path: Iterable[int]) -> str:
    """An iteration for people: "12", or "12.3" in a nested loop."""
    return ".".join(map(str, path))


@dataclass(slots=True)
class Session:
    """A process that wrote: when, and how it ended."""

    entry: Json
    begin: float
    #: time of its last entry
    last: float
    #: its ``end`` entry; None if it has none (yet)
    end: Json | None = None

    @property
    def seconds(self) -> float:
        """How long it worked, by its own word or as far as it is seen."""
        said = number_of((self.end or {}).get("seconds"))
        return max(0.0, said if said is not None and said < _FOREVER else self.last - self.begin)

    @property
    def state(self) -> str:
        """ "finished", "failed", "interrupted"; "" without an end."""
        return str((self.end or {}).get("state") or "")


@dataclass(slots=True)
class Happening:
    """An entry with its place in time: a bar of the timeline (``begin`` before ``time``), or a mark on it."""

    session: int
    begin: float
    time: float
    #: "done" or "failed"; an iteration's may be "skipped" or "retried"
    state: str
    #: the workflow of a step
    workflow: str
    path: tuple[int, ...]
    entry: Mapping[str, Any]


@dataclass(slots=True)
class Point:
    """A number that a port had: after so many steps, in this iteration."""

    order: int
    path: tuple[int, ...]
    value: float


@dataclass(slots=True)
class Picture:
    """A value of which there is a small picture."""

    path: tuple[int, ...]
    port: str
    file: str
    #: full-size file, relative to the folder; None if there is none
    original: str | None = None


@dataclass
class Facts:
    """A journal, put together."""

    sessions: list[Session] = field(default_factory=list)
    #: finished and failed steps, in order
    steps: list[Happening] = field(default_factory=list)
    #: ended iterations, in order; one that was tried again has several
    iterations: list[Happening] = field(default_factory=list)
    retries: list[Happening] = field(default_factory=list)
    recycles: list[Happening] = field(default_factory=list)
    #: {number of an iteration: its last entry}
    states: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    #: iterations that began
    begun: set[int] = field(default_factory=set)
    #: {source: {port: numbers}}; sources are "writes", "input" and "collected"
    numbers: dict[str, dict[str, list[Point]]] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)

    @property
    def finished_steps(self) -> int:
        """How many steps were finished."""
        return sum(step.state == "done" for step in self.steps)

    @property
    def state(self) -> str:
        """The run's: "finished", "failed", "interrupted", "open" (running, or died), or "unstarted"."""
        if not self.sessions:
            return "unstarted"
        return self.sessions[-1].state or "open"

    @property
    def restarts(self) -> int:
        """How often the server was started again, whatever for."""
        asked = sum(1 for one in self.retries if one.entry.get("action") == "restart")
        return asked + sum(1 for one in self.recycles if one.entry.get("action") == "restarted")

    def count(self, *states: str) -> int:
        """How many iterations ended in one of these states."""
        return sum(entry.get("state") in states for entry in self.states.values())

    def memory_of(self, *keys: str, less: str | None = None) -> tuple[list[Happening], list[float]]:
        """Steps, and of each so many bytes: a figure of its memory, or the sum of several, *less* another one."""
        steps: list[Happening] = []
        amounts: list[float] = []
        for step in self.steps:
            memory = step.entry.get("memory")
            if not isinstance(memory, dict):
                continue
            amount = number_of(memory.get(keys[0]))
            for key in keys[1:]:
                more = number_of(memory.get(key))
                amount = more if amount is None else amount + (more or 0)
            if amount is not None and less is not None:
                free = number_of(memory.get(less))
                amount = None if free is None else amount - free
            if amount is not None:
                steps.append(step)
                amounts.append(amount)
        return steps, amounts

    def last_memory(self, key: str) -> float | None:
        """A figure of the memory of the last step that knows it."""
        amounts = (number_of(mapping(step.entry.get("memory")).get(key)) for step in reversed(self.steps))
        return next((amount for amount in amounts if amount is not None), None)

    def ports(self) -> dict[str, list[Point]]:
        """{port: numbers} from the best source that has any: what was written, else collected, else put in."""
        found: dict[str, list[Point]] = {}
        for source in ("writes", "collected", "input"):
            for port, points in self.numbers.get(source, {}).items():
                found.setdefault(port, points)
        return found


def gather(entries: Iterable[Mapping[str, Any]], thumbnails: Collection[str] = ()) -> Facts:
    """Read a journal.

    Args:
        thumbnails: names of the files that are in thumbnails/.
    """
    facts = Facts()
    reader = _Reader(facts, thumbnails)
    for entry in entries:
        reader.read(entry)
    facts.pictures = list(reader.pictures.values())
    # A batch may be worked on in any order.
    facts.pictures.sort(key=lambda picture: picture.path[:1])
    return facts


class _Reader:
    """Reads one entry after the other into the facts."""

    def __init__(self, facts: Facts, thumbnails: Collection[str]):
        self.facts = facts
        self.thumbnails = thumbnails
        # By iteration, port and file: what was collected was written before.
        self.pictures: dict[tuple[tuple[int, ...], str, str], Picture] = {}
        self.time = 0.0
        self.order = 0

    def read(self, entry: Mapping[str, Any]) -> None:
        kind = entry.get("kind")
        time = number_of(entry.get("t"))
        if time is not None and abs(time) < _FOREVER:
            self.time = time
        if kind == "session" or not self.facts.sessions:
            self.facts.sessions.append(Session(dict(entry) if kind == "session" else {}, self.time, self.time))
        session = self.facts.sessions[-1]
        # Clocks are set back now and then.
        if self.time > session.last:
            session.last = self.time
        if kind == "step":
            self._read_step(entry)
        elif kind == "step_failed":
            path = path_of(entry)
            self._add(self.facts.steps, entry, "failed", path)
            self._read_retries(entry, path)
        elif kind == "iteration":
            self._read_iteration(entry)
        elif kind == "input":
            name = entry.get("name")
            if isinstance(name, str):
                self._read_notes("input", {name: entry.get("value")}, path_of(entry))
        elif kind == "recycle":
            self._add(self.facts.recycles, entry, "done", ())
        elif kind == "end":
            session.end = dict(entry)

    def _add(self, happenings: list[Happening], entry: Mapping[str, Any], state: str, path: tuple[int, ...]) -> None:
        seconds = number_of(entry.get("seconds")) or 0.0
        begin = self.time - seconds if 0 < seconds < _FOREVER else self.time
        earliest = self.facts.sessions[-1].begin
        if begin < earliest:
            begin = min(earliest, self.time)
        session = len(self.facts.sessions) - 1
        happenings.append(Happening(session, begin, self.time, state, name_of(entry.get("workflow")), path, entry))
        if path:
            self.facts.begun.add(path[0])

    def _read_step(self, entry: Mapping[str, Any]) -> None:
        path = path_of(entry)
        self._add(self.facts.steps, entry, "done", path)
        self._read_retries(entry, path)
        self._read_notes("writes", mapping(entry.get("writes")), path)
        self.order += 1

    def _read_retries(self, entry: Mapping[str, Any], path: tuple[int, ...]) -> None:
        for retry in listing(entry.get("retries")):
            if isinstance(retry, Mapping):
                self._add(self.facts.retries, {**retry, "workflow": entry.get("workflow")}, "done", path)

    def _read_iteration(self, entry: Mapping[str, Any]) -> None:
        number = entry.get("iteration")
        if not isinstance(number, int):
            return
        state = entry.get("state")
        self._add(
            self.facts.iterations, entry, state if state in ("done", "skipped", "retried") else "failed", (number,)
        )
        self.facts.states[number] = entry
        files = mapping(entry.get("files"))
        originals = {port: paths[0] for port, paths in files.items() if isinstance(paths, list) and paths}
        self._read_notes("collected", mapping(entry.get("collected")), (number,), originals)

    def _read_notes(
        self,
        source: str,
        notes: Mapping[str, Any],
        path: tuple[int, ...],
        originals: Mapping[str, Any] | None = None,
    ) -> None:
        numbers = self.facts.numbers.setdefault(source, {})
        for port, note in notes.items():
            if not isinstance(note, Mapping):
                continue
            value = number_of(note.get("value"))
            if value is not None and (port in numbers or len(numbers) < _MOST_PORTS):
                numbers.setdefault(port, []).append(Point(self.order, path, value))
            file = thumbnail_name(note.get("digest")) if self.thumbnails else None
            if file in self.thumbnails:
                self._add_picture(port, file or "", path, (originals or {}).get(port))

    def _add_picture(self, port: str, file: str, path: tuple[int, ...], original: Any) -> None:
        key = (path[:1], port, file)
        picture = self.pictures.setdefault(key, Picture(path, port, file))
        if isinstance(original, str):
            picture.original = original


def thumbnail_name(digest: Any) -> str | None:
    """The file in thumbnails/ of a value; None for what is no digest."""
    return f"{digest.replace(':', '-').replace('/', '-')}.jpg" if isinstance(digest, str) else None


def failures(facts: Facts) -> Iterator[tuple[Happening, Mapping[str, Any]]]:
    """What failed, with its error: steps; iterations and sessions whose error is not the one of such a step."""
    told: dict[Any, str] = {}
    for step in facts.steps:
        if step.state == "failed":
            error = mapping(step.entry.get("error"))
            told[step.path[:1]] = told[step.session] = str(error.get("message"))
            yield step, error
    for iteration in facts.iterations:
        error = mapping(iteration.entry.get("error"))
        if (error or iteration.state == "skipped") and not _is_told(error, told.get(iteration.path)):
            told[iteration.session] = str(error.get("message"))
            yield iteration, error
    for number, session in enumerate(facts.sessions):
        error = mapping((session.end or {}).get("error"))
        # Being stopped is none.
        if error and session.state != "interrupted" and not _is_told(error, told.get(number)):
            yield Happening(number, session.last, session.last, "failed", "", (), session.end or {}), error


def _is_told(error: Mapping[str, Any], before: str | None) -> bool:
    """Whether an error is the one that was told before, perhaps with words around it."""
    return before is not None and (not error or before in str(error.get("message")))
