"""The sections of the report that list: errors, items, retries, plan, inputs, sessions, environment. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ..compare import data_differences
from .facts import Happening, Session, failures, listing, mapping, name_of
from .page import (
    ACTIONS,
    MEMORY,
    REASONS,
    ROWS,
    STATES,
    Page,
    code,
    facts_list,
    link_to,
    message_of,
    more,
    node_of,
    said,
    seconds_of,
    size_of,
    table,
)
from .text import Html, clip, count_of, duration, join, number_of, tag, when

_ITEMS, _PLAN_STEPS = 500, 300

# ------------------------------------------------------------------------------------------------------------- tables


def failed_ones(page: Page) -> Html:
    found = list(failures(page.facts))
    rows = [
        (
            page.short_place(one.path),
            one.workflow if "workflow" in one.entry else "",
            node_of(error),
            message_of(error),
            _outcome(page, one),
            when(one.time),
        )
        for one, error in found[:ROWS]
    ]
    return table((page.iteration_word(), "Workflow", "Node", "Error", "Then", "When"), rows, "---tww", len(found))


def _outcome(page: Page, one: Happening) -> Html:
    """What came of an iteration in which something failed."""
    state = str(page.facts.states.get(one.path[0], {}).get("state")) if one.path else ""
    words = {"skipped": "skipped", "retried": "tried again", "done": "done at last"}
    return tag("span", words.get(state, "the run ended"), class_=f"{state if state in words else 'failed'}-text")


def items(page: Page) -> Html:
    """A batch's items: the first ones, and those that failed."""
    if not page.is_batch:
        return Html("")
    states = page.facts.states
    first = sorted(states)[:_ITEMS]
    failed = [number for number in sorted(states) if states[number].get("state") != "done"]
    shown = sorted({*first, *failed[:_ITEMS]})
    rows = [_item(page, number, states[number]) for number in shown]
    return table(("", "Item", "State", "Time", "Error"), rows, "n-wn-", len(states), is_list=True)


def _item(page: Page, number: int, entry: Mapping[str, Any]) -> Sequence[Any]:
    state, error = str(entry.get("state")), mapping(entry.get("error"))
    link = next(
        (
            link_to(files[0])
            for files in mapping(entry.get("files")).values()
            if listing(files) and isinstance(files[0], str)
        ),
        None,
    )
    name = page.place_of((number,))
    is_known = state in ("done", "skipped", "retried")
    return (
        number,
        tag("a", name, href=link) if link else name,
        tag("span", clip(state, 40), class_=f"{state if is_known else 'failed'}-text"),
        seconds_of(entry),
        clip(error.get("message") or "", 200),
    )


def retries(page: Page) -> Html:
    retries = page.facts.retries
    rows = [
        (
            page.short_place(one.path),
            one.workflow,
            REASONS.get(str(one.entry.get("reason")), said(one.entry.get("reason"))),
            ACTIONS.get(str(one.entry.get("action")), said(one.entry.get("action"))),
            seconds_of(one.entry, "delay"),
            tag("span", clip(one.entry.get("error") or "", 500), class_="message"),
        )
        for one in retries[:ROWS]
    ]
    return table(
        (page.iteration_word(), "Workflow", "Because of", "Action", "Waited", "Error"),
        rows,
        "--wwnt",
        len(retries),
    )


def recycles(page: Page) -> Html:
    recycles = page.facts.recycles
    rows = [
        (
            when(one.time),
            MEMORY.get(str(one.entry.get("what")), said(one.entry.get("what"))),
            *(size_of(one.entry, key) for key in ("limit", "before", "after")),
            ACTIONS.get(str(one.entry.get("action")), said(one.entry.get("action"))),
            seconds_of(one.entry),
        )
        for one in recycles[:ROWS]
    ]
    headings = ("When", "What", "Ceiling", "Before", "After", "Action", "It took")
    return table(headings, rows, "wwnnnwn", len(recycles))


def _ending(session: Session, is_last: bool) -> str | Html:
    """How a session ended. One without a word, after which there was another one, died."""
    if session.state or is_last:
        return STATES.get(session.state, clip(session.state, 40)) if session.state else "no end yet"
    return tag("span", "died", class_="failed-text")


def sessions(page: Page) -> Html:
    sessions = page.facts.sessions
    rows = [
        (
            number,
            when(session.begin),
            duration(session.seconds),
            _ending(session, number == len(sessions)),
            session.entry.get("pid"),
            session.entry.get("steps"),
            clip(session.entry.get("server") or "", 300),
        )
        for number, session in enumerate(sessions[:ROWS], start=1)
    ]
    headings = ("#", "Began", "Worked", "Ended", "Process", "After step", "Server")
    return table(headings, rows, "nwnwnnt", len(sessions))


# ---------------------------------------------------------------------------------------------------- plan and inputs


def plan(page: Page) -> Html:
    """The steps as an outline, and how they were run."""
    loop = mapping(page.plan.get("loop"))
    outline = _Outline().steps([{"loop": loop}]) if loop else Html("")
    outline = join([tag("b", "For each item"), outline]) if page.is_batch and outline else outline
    about = facts_list(
        [
            ("Collected", ", ".join(map(name_of, listing(page.plan.get("collect"))[:50]))),
            ("Seeds", said(page.plan["seed_policy"]) if page.plan.get("seed_policy") else ""),
            *((name_of(key), said(value)) for key, value in list(page.options.items())[:40] if value is not None),
        ]
    )
    return join([tag("div", outline, class_="plan"), about]) if outline or about else Html("")


class _Outline:
    """A plan's steps as nested lists, so many of them at most."""

    def __init__(self) -> None:
        self.left = _PLAN_STEPS

    def steps(self, notes: Any, depth: int = 0) -> Html:
        shown = []
        for note in listing(notes):
            self.left -= 1
            if self.left < 0 or depth > 30:
                shown.append(tag("li", "..."))
                break
            shown.append(tag("li", self._step(mapping(note), depth)))
        return tag("ul", *shown) if shown else Html("")

    def _step(self, note: Mapping[str, Any], depth: int) -> Html:
        if "loop" in note:
            loop = mapping(note["loop"])
            return join([self._loop_words(loop), self.steps(loop.get("body"), depth + 1)])
        if "branch" in note:
            branch = mapping(note["branch"])
            other = self.steps(branch.get("otherwise"), depth + 1)
            then = self.steps(branch.get("then"), depth + 1) or tag("ul", tag("li", "nothing", class_="quiet"))
            parts = [tag("b", "If "), _condition(branch.get("condition")), then]
            return join([*parts, *([tag("b", "otherwise"), other] if other else [])])
        prompt = note.get("prompt")
        digest = (
            tag("span", clip(prompt[:12], 12), class_="quiet mono", title=prompt) if isinstance(prompt, str) else ""
        )
        return join([name_of(note.get("workflow")), " ", digest])

    @staticmethod
    def _loop_words(loop: Mapping[str, Any]) -> Html:
        count, condition = loop.get("iterations"), loop.get("condition")
        times = "Once" if count == 1 else f"{count:,} times" if isinstance(count, int) else "Again and again"
        if condition is None:
            return tag("b", times)
        times = f"Up to {times}" if isinstance(count, int) and count > 1 else times
        return join([tag("b", times), " while ", _condition(condition)])


def _condition(note: Any) -> Html:
    if isinstance(note, Mapping):
        return code(f"{name_of(note.get('function'))}()")
    return code(said(note))


def inputs(page: Page) -> Html:
    inputs, sequences = mapping(page.record.manifest.get("inputs")), mapping(page.plan.get("per_iteration"))
    rows = [(name_of(name), _value(note), _digest(note)) for name, note in inputs.items()]
    rows += [
        (name_of(name), _sequence(note), _digest({"digest": mapping(note).get("values")}))
        for name, note in sequences.items()
    ]
    return table(("Port", "Value", "Digest"), rows[:ROWS], "wtw", len(rows))


def _value(note: Any) -> str | Html:
    """A noted value for people."""
    note = mapping(note)
    if note.get("secret"):
        return tag("span", "secret, not recorded", class_="quiet")
    if "value" in note:
        return tag("span", said(note["value"]), class_="message")
    if "sequence" in note:
        return f"item {said(note['sequence'])} of its sequence"
    shape = " \u00d7 ".join(map(str, listing(note.get("shape"))[:10]))
    words = [
        *([clip(note["dtype"], 40)] if note.get("dtype") else []),
        *([shape] if shape else []),
        size_of(note, "object"),
    ]
    return ", ".join(word for word in words if word) or "known by its digest"


def _sequence(note: Any) -> str | Html:
    note = mapping(note)
    if isinstance(note.get("length"), int):
        return f"another one in each iteration, {count_of(note['length'], 'value')}"
    return join(["in each iteration ", _condition(note)])


def _digest(note: Any) -> Html | str:
    digest = mapping(note).get("digest")
    if not isinstance(digest, str) or mapping(note).get("secret"):
        return ""
    return tag("span", clip(digest, 20), class_="mono quiet", title=clip(digest, 200))


# -------------------------------------------------------------------------------------------------------- environment


def environment(page: Page) -> Html:
    """Versions, devices and packs of the last session, and what was different before."""
    known = [mapping(session.entry.get("environment")) for session in page.facts.sessions]
    if not known or not known[-1]:
        return Html("")
    found = known[-1]
    orchestrator = mapping(found.get("orchestrator"))
    names = {"comfyui": "ComfyUI", "frontend": "Frontend", "python": "Python", "pytorch": "PyTorch"}
    names |= {"discomfort": "Discomfort", "protocol": "Protocol", "os": "System"}
    about = facts_list(
        [
            *((name, said(found[key])) for key, name in names.items() if found.get(key) is not None),
            ("Embedded server", "yes" if found.get("embedded") is True else ""),
            ("Devices", ", ".join(map(_device, listing(found.get("device"))[:16]))),
            (
                "This script",
                ", ".join(f"{names.get(k, name_of(k))} {said(v)}" for k, v in list(orchestrator.items())[:8]),
            ),
        ]
    )
    packs = [
        (name_of(name), clip(mapping(pack).get("version") or "", 60), clip(mapping(pack).get("commit") or "", 12))
        for name, pack in mapping(found.get("packs")).items()
    ]
    shown = table(("Pack", "Version", "Commit"), packs[:ROWS], "---", len(packs))
    return join([about, *([tag("h3", "Packs"), shown] if packs else []), _changes(known)])


def _device(note: Any) -> str:
    note = mapping(note)
    words = [clip(note.get("type") or "", 20), size_of(note, "vram_total")]
    return f"{name_of(note.get('name'))} ({', '.join(word for word in words if word)})".replace(" ()", "")


def _changes(known: Sequence[Mapping[str, Any]]) -> Html:
    """What changed from session to session."""
    found = [
        f"Session {number}: {clip(text, 300)}"
        for number, (before, after) in enumerate(pairwise(known[:ROWS]), start=2)
        if before and after
        for text in data_differences(before, after)[:10]
    ]
    if not found:
        return Html("")
    return join(
        [tag("h3", "Changed between sessions"), *(tag("p", text) for text in found[:30]), more(len(found) - 30)]
    )


def models(page: Page) -> Html:
    """The model files of all sessions, as they were last."""
    models = {
        (str(model.get("folder")), str(model.get("name"))): model
        for session in page.facts.sessions
        for model in listing(session.entry.get("models"))
        if isinstance(model, Mapping)
    }
    rows = [
        (
            name_of(model.get("name")),
            name_of(model.get("folder")),
            size_of(model, "size"),
            when(number_of(model.get("modified")), "%Y-%m-%d"),
            tag("span", clip(model["sha256"], 64), class_="mono quiet") if model.get("sha256") else "",
        )
        for model in list(models.values())[:ROWS]
    ]
    return table(("Model", "Folder", "Size", "Modified", "SHA-256"), rows, "--nw-", len(models))
