"""What the sections of the report share: what they are about, tables, lists, and words. Pure."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from ..run_folder import RunRecordFolder
from .charts import TimeScale
from .facts import Facts, gather, mapping, name_of, path_text
from .text import Html, clip, duration, join, number_of, size, tag

#: rows of a table
ROWS = 200
# Characters of a message.
_MESSAGE = 500

#: what the record's words are called here

STATES = {
    "finished": "Finished",
    "failed": "Failed",
    "interrupted": "Interrupted",
    "open": "Running or died",
    "unstarted": "Not started",
}
REASONS = {
    "died": "the server died",
    "hung": "the server hung",
    "memory": "out of memory",
    "error": "an error",
}
ACTIONS = {
    "restart": "server restarted",
    "restarted": "server restarted",
    "free": "memory freed",
    "freed": "memory freed",
    "wait": "waited",
}
MEMORY = {"server_ram": "server's memory", "vram": "VRAM"}


@dataclass
class Page:
    """What all sections need."""

    record: RunRecordFolder
    facts: Facts
    scale: TimeScale
    now: float | None
    #: {number of an iteration: key of its item}, of a batch
    items: dict[int, str]
    #: names of the workflows, in order of the plan
    workflows: list[str]

    @classmethod
    def of(cls, record: RunRecordFolder, now: float | None) -> Page:
        facts = gather(record.entries, _names_in(record.path / "thumbnails"))
        scale = TimeScale([(session.begin, session.last) for session in facts.sessions])
        items = {
            number: clip(str(entry["item"]), 120)
            for number, entry in facts.states.items()
            if entry.get("item") is not None
        }
        planned = [
            name_of(step.get("workflow")) for step in _steps_of(mapping(record.manifest.get("plan")).get("loop"))
        ]
        ran = [step.workflow for step in facts.steps]
        return cls(record, facts, scale, now, items, list(dict.fromkeys([*planned, *ran])))

    @property
    def is_batch(self) -> bool:
        return self.record.manifest.get("kind") == "batch"

    @property
    def plan(self) -> Mapping[str, Any]:
        return mapping(self.record.manifest.get("plan"))

    @property
    def options(self) -> Mapping[str, Any]:
        return mapping(self.record.manifest.get("options"))

    @property
    def planned(self) -> int | None:
        """How many iterations there are at most, of a batch items; None where a condition alone decides, or where an
        iterator gives them.
        """
        count = mapping(self.plan.get("loop")).get("iterations")
        if self.is_batch:
            count = self.facts.sessions[-1].entry.get("total") if self.facts.sessions else None
        return count if isinstance(count, int) and not isinstance(count, bool) else None

    def number_text(self, path: Sequence[int]) -> str:
        """The number of an iteration: "12", or "12.3" in a nested loop. That of a batch's only one is left out."""
        is_single = self.is_batch and mapping(self.plan.get("loop")).get("iterations") == 1
        return path_text([*path[:1], *path[2:]] if is_single else path)

    @property
    def title(self) -> str:
        shown = ", ".join(self.workflows[:5]) or "A run"
        return shown + (f" and {len(self.workflows) - 5} more" if len(self.workflows) > 5 else "")

    def place_of(self, path: Sequence[int]) -> str:
        """An iteration, or the item that it is, for a sentence."""
        if not path:
            return "the run"
        item = self.items.get(path[0])
        if item is None:
            return f"{self.iteration_word().lower()} {self.number_text(path)}"
        rest = self.number_text(path).partition(".")[2]
        return f"{item}, {rest}" if rest else item

    def short_place(self, path: Sequence[int]) -> str:
        """An iteration, or the item that it is, where it is said already what it is."""
        return self.number_text(path) if path and path[0] not in self.items else self.place_of(path)

    def iteration_word(self) -> str:
        """What an iteration is called at the beginning of a sentence."""
        return "Item" if self.is_batch else "Iteration"


def _names_in(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def _steps_of(note: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """The workflows of a plan, in order."""
    if depth > 60:
        return
    if isinstance(note, Mapping):
        if "workflow" in note:
            yield note
        for key in ("loop", "branch", "then", "otherwise", "body"):
            yield from _steps_of(note.get(key), depth + 1)
    elif isinstance(note, list):
        for one in note:
            yield from _steps_of(one, depth + 1)


def section(title: str, content: Html) -> Html:
    """A section; nothing where there is nothing in it."""
    return tag("section", tag("h2", title), content) if content else Html("")


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[Any]],
    classes: str = "",
    total: int | None = None,
    is_list: bool = False,
) -> Html:
    """A table; columns that are empty in all rows are left out.

    Args:
        classes: of the columns, one letter each: "n" number, "w" words that stay on a line, "t" text, "-" none.
        total: how many rows there would be.
        is_list: whether it has many short rows, which stay rows on a phone.
    """
    if not rows:
        return Html("")
    shown = [n for n in range(len(headings)) if any(row[n] not in ("", None) for row in rows)]
    names = {"n": "n", "w": "w", "t": "text"}
    column = [names.get(classes[n : n + 1]) for n in range(len(headings))]
    # On a phone the rows of these are cards, in which each cell has its heading beside it.
    is_wide = not is_list and (len(shown) > 4 or "t" in classes)
    labels = [headings[n] if is_wide else None for n in range(len(headings))]
    head = tag("tr", *(tag("th", headings[n], class_="n" if column[n] == "n" else None) for n in shown))
    body = [
        tag("tr", *(tag("td", "" if row[n] is None else row[n], class_=column[n], data_label=labels[n]) for n in shown))
        for row in rows
    ]
    found = tag("table", tag("thead", head), tag("tbody", join(body, "\n")), class_="stacks" if is_wide else None)
    return join(
        [tag("div", found, class_="scroll tall" if len(rows) > 25 else "scroll"), more((total or 0) - len(rows))]
    )


def more(count: int, what: str = "more in run.jsonl") -> Html:
    return tag("p", f"and {count:,} {what}", class_="more") if count > 0 else Html("")


def facts_list(rows: Iterable[tuple[str, Any]]) -> Html:
    """Names and what they are; empty ones are left out."""
    shown = [tag("dt", name) + tag("dd", content) for name, content in rows if content not in ("", None)]
    return tag("dl", Html("".join(shown)), class_="facts") if shown else Html("")


def code(value: Any) -> Html:
    return tag("code", clip(value, 300))


def said(value: Any) -> str:
    """JSON data for people: text as it is."""
    return clip(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), 300)


def seconds_of(entry: Mapping[str, Any], key: str = "seconds") -> str:
    value = number_of(entry.get(key))
    return "" if value is None else duration(value)


def size_of(entry: Mapping[str, Any], key: str) -> str:
    value = number_of(entry.get(key))
    return "" if value is None else size(value)


def message_of(error: Mapping[str, Any]) -> Html:
    """An error's message, with its type."""
    text, kind = error.get("message"), error.get("type")
    parts = [tag("span", clip(text, _MESSAGE), class_="message")] if text else []
    return join([*parts, *([tag("span", clip(kind, 80), class_="quiet")] if kind else [])], " ")


def node_of(error: Mapping[str, Any]) -> str:
    """The node of an error: its number, class and title."""
    if error.get("node_id") is None:
        return ""
    kind, title = error.get("class_type"), error.get("title")
    words = [
        f"#{error['node_id']}",
        *([str(kind)] if kind else []),
        *([f"({title})"] if title and title != kind else []),
    ]
    return clip(" ".join(words), 120)


def link_to(path: str | None) -> str | None:
    """The address of a file among the outputs, beside the page; None for any other."""
    if not path or "\\" in path or len(path) > 500:
        return None
    parts = PurePosixPath(path).parts
    return quote(path, errors="replace") if parts[0] == "outputs" and ".." not in parts else None
