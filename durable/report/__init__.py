"""A run's record as one HTML page, for people. Pure: it reads the folder and writes nothing.

The page needs nothing else: pictures are in it, charts are inline SVG, no script, no font, no network; its policy
forbids all of them, as names and messages in it come from anywhere. It is bounded: the record of ten thousand
iterations makes a page that a phone can show.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from ..run_folder import RunRecordFolder
from .facts import Facts, mapping
from .figures import course, curves, memory, pictures
from .page import STATES, Page, code, facts_list, message_of, said, section
from .style import STYLE
from .tables import environment, failed_ones, inputs, items, models, plan, recycles, retries, sessions
from .text import Html, clip, count_of, duration, escape, join, number_of, tag, when

# Nothing but the page's own style and the pictures in it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def build_report(record: RunRecordFolder, now: float | None = None) -> str:
    """The report of a run.

    Args:
        record: the run's folder. Its thumbnails are read from it.
        now: seconds since the epoch; given, the page says how long ago a run without an end was heard of.

    Returns:
        A whole HTML document, to be written as UTF-8.
    """
    page = Page.of(record, now)
    parts = [
        _header(page),
        section("Timeline", course(page)),
        section("Pictures", pictures(page)),
        section("Values", curves(page)),
        section("Memory", memory(page)),
        section(f"Errors and skipped {page.iteration_word().lower()}s", failed_ones(page)),
        section("Items", items(page)),
        section("Retries", retries(page)),
        section("Memory recycled", recycles(page)),
        section("Plan", plan(page)),
        section("Inputs", inputs(page)),
        section("Sessions", sessions(page)),
        section("Environment", environment(page)),
        section("Models", models(page)),
        _footer(page),
    ]
    head = join(
        [
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="referrer", content="no-referrer"),
            tag("title", f"{page.title} \u00b7 {STATES.get(page.facts.state, page.facts.state)}"),
            tag("style", Html(STYLE)),
        ],
        "\n",
    )
    body = tag("main", *(part for part in parts if part))
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


# ------------------------------------------------------------------------------------------------------------- header


def _header(page: Page) -> Html:
    facts, manifest = page.facts, page.record.manifest
    kicker = tag(
        "div",
        tag("span", STATES.get(facts.state, clip(facts.state, 40)), class_=f"pill {clip(facts.state, 40)}"),
        tag("span", "Batch of items" if page.is_batch else "Run"),
        class_="kicker",
    )
    last = facts.sessions[-1] if facts.sessions else None
    began = facts.sessions[0].begin if facts.sessions else number_of(manifest.get("created"))
    ended = "" if last is None else when(last.last)
    # The same day is not said twice.
    ended = ended[11:] if ended[:10] == when(began)[:10] else ended
    server = "" if last is None else clip(last.entry.get("server") or "", 400)
    about = facts_list(
        [
            ("When", f"{when(began)} to {ended}" if ended else when(began)),
            ("Where", server),
            ("Folder", code(page.record.path)),
            ("Record", code(manifest.get("run_id") or "")),
        ]
    )
    return tag("header", kicker, tag("h1", page.title), about, _tiles(page), _progress(page), *_notes(page))


def _tiles(page: Page) -> Html:
    """The figures of a run."""
    facts, done = page.facts, page.facts.count("done")
    asides = [
        *([f"{skipped:,} skipped"] if (skipped := facts.count("skipped")) else []),
        *([f"{unfinished:,} begun, not ended"] if (unfinished := len(facts.begun - set(facts.states))) else []),
    ]
    seconds = [number_of(one.entry.get("seconds")) for one in facts.iterations if one.state == "done"]
    known = [value for value in seconds if value is not None]
    failed = len(facts.steps) - facts.finished_steps
    worked = sum(session.seconds for session in facts.sessions)
    spread = facts.sessions[-1].last - facts.sessions[0].begin if facts.sessions else 0.0
    sessions = f"in {len(facts.sessions)} sessions over {duration(spread)}" if len(facts.sessions) > 1 else ""
    seed, policy = page.plan.get("master_seed"), page.plan.get("seed_policy")
    figures: list[tuple[str, Any, str]] = [
        (f"{page.iteration_word()}s done", _of(done, page.planned), ", ".join(asides)),
        ("Steps", f"{facts.finished_steps:,}", f"{failed:,} failed" if failed else ""),
        ("Time", duration(worked), sessions),
        (f"{page.iteration_word()}, median", duration(statistics.median(known)) if known else "", _slowest(known)),
        ("Retries", f"{len(facts.retries):,}", _restarts(facts)),
        ("Master seed", "" if seed is None else clip(seed, 40), "" if policy is None else f"policy {said(policy)}"),
    ]
    return tag("div", *(_tile(*one) for one in figures if one[1] != ""), class_="tiles")


def _tile(what: str, value: Any, sub: str) -> Html:
    is_long = len(value) > 14 and not isinstance(value, Html)
    parts = [("what", what), ("figure long" if is_long else "figure", value), ("sub", sub)]
    return tag("div", *(tag("div", part, class_=name) for name, part in parts), class_="wide" if is_long else None)


def _of(done: int, planned: int | None) -> Html:
    return escape(f"{done:,}") + tag("small", f" of {planned:,}") if planned is not None else escape(f"{done:,}")


def _slowest(seconds: Sequence[float]) -> str:
    return f"slowest {duration(max(seconds))}" if len(seconds) > 1 else ""


def _restarts(facts: Facts) -> str:
    words = [count_of(facts.restarts, "restart")] if facts.restarts else []
    words += [f"memory recycled {len(facts.recycles):,}\u00d7"] if facts.recycles else []
    return ", ".join(words)


def _progress(page: Page) -> Html:
    """A bar of how far it came."""
    if not page.planned or page.facts.state == "unstarted":
        return Html("")
    parts = [(state, page.facts.count(state) / max(page.planned, 1)) for state in ("done", "skipped")]
    return tag(
        "div",
        *(tag("i", class_=state, style=f"width:{100 * min(1.0, share):.2f}%") for state, share in parts),
        class_="progress",
    )


def _notes(page: Page) -> Iterator[Html]:
    """What somebody who opens the page must know first."""
    facts = page.facts
    if page.record.damage is not None:
        text = (
            f"The journal is damaged at line {page.record.damage[0]}: what was written after it is not in this report."
        )
        yield tag("p", text, class_="note bad")
    if facts.state == "finished":
        return
    sentences = []
    error = mapping((facts.sessions[-1].end or {}).get("error")) if facts.sessions else {}
    if error.get("message"):
        sentences.append(tag("p", message_of(error)))
    if facts.state == "open":
        last = facts.sessions[-1].last
        ago = "" if page.now is None else f", {duration(max(0.0, page.now - last))} before this report"
        text = f"No end is recorded: it still runs, or its process died. Last heard of {when(last)}{ago}."
        sentences.append(tag("p", text))
    kept = f" {count_of(facts.finished_steps, 'finished step')} will not be run again." if facts.finished_steps else ""
    how = join(
        ["Run the same script again with ", code(f"checkpoint={str(page.record.path)!r}"), f" and it goes on.{kept}"]
    )
    sentences.append(tag("p", how))
    yield tag("div", *sentences, class_=f"note {'bad' if facts.state == 'failed' else 'warn'}")


def _footer(page: Page) -> Html:
    manifest = page.record.manifest
    made = f" on {when(page.now)}" if page.now is not None else ""
    version = f" Recorded by Discomfort {clip(manifest.get('discomfort'), 40)}." if manifest.get("discomfort") else ""
    zone = when(page.now or number_of(manifest.get("created")) or 0.0, "%z")
    counted = f"Iterations are counted from 0, times are UTC{zone[:3]}:{zone[3:]}, a GB has 1024\u00b3 bytes."
    text = f"Made{made} from {count_of(len(page.record.entries), 'entry', 'entries')} of run.jsonl.{version} {counted}"
    return tag("footer", text)
