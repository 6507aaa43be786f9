"""The sections of the report that show: the course over time, pictures, numbers, memory."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from .charts import (
    Bar,
    Dot,
    Line,
    Mark,
    colour,
    downsample,
    evenly,
    legend,
    line_chart,
    mark_sample,
    swatch,
    timeline,
)
from .facts import Happening, Picture, Point, listing, mapping, name_of
from .page import ACTIONS, MEMORY, REASONS, STATES, Page, link_to, more, seconds_of, size_of
from .text import Html, clip, count_of, duration, figure, join, number_of, size, tag, when

_GB = 2**30
# How much of everything is shown.
_PICTURES, _CHARTS, _WORKFLOWS = 60, 12, 10
# Bytes of all pictures, and of one: what is larger is no thumbnail.
_PICTURE_BYTES, _ONE_PICTURE = 1_400_000, 200_000

# ----------------------------------------------------------------------------------------------------------- timeline


def course(page: Page) -> Html:
    facts, scale = page.facts, page.scale
    if not facts.steps and not facts.iterations:
        return Html("")

    def bar(one: Happening, class_: str) -> Bar:
        return Bar(scale.place(one.session, one.begin), scale.place(one.session, one.time), class_, one)

    rows: dict[str, list[Bar]] = {}
    for one in facts.iterations:
        class_ = f"iter {'odd' if one.path[0] % 2 else ''}" if one.state == "done" else one.state
        rows.setdefault(f"{page.iteration_word()}s", []).append(bar(one, class_))
    colours = {name: colour(number) for number, name in enumerate(page.workflows)}
    shown = set(page.workflows[:_WORKFLOWS])
    others = f"{len(page.workflows) - _WORKFLOWS} other workflows"
    # In the order of the plan.
    steps: dict[str, list[Bar]] = {name: [] for name in [*page.workflows[:_WORKFLOWS], others]}
    for one in facts.steps:
        class_ = "failed" if one.state == "failed" else colours[one.workflow]
        steps[one.workflow if one.workflow in shown else others].append(bar(one, class_))
    drawn = [*rows.items(), *((name, row) for name, row in steps.items() if row)]
    words = f"{count_of(len(facts.steps), 'step')} of {count_of(len(shown), 'workflow')} over time"
    chart = timeline(drawn, list(_marks(page)), scale, lambda group: _tell(page, group), words)
    return join([chart, _timeline_legend(page)])


def _marks(page: Page) -> Iterator[Mark]:
    """What happened at a moment: below the timeline."""
    for one in page.facts.retries:
        action = ACTIONS.get(str(one.entry.get("action")), "")
        reason = REASONS.get(str(one.entry.get("reason")), "")
        title = f"Retry, {page.place_of(one.path)}, {one.workflow}: {reason}{f', {action}' if action else ''}"
        yield Mark(page.scale.place(one.session, one.begin), "retry", title)
    yield from _recycle_marks(page)
    for number, session in enumerate(page.facts.sessions):
        if session.state not in ("", "finished"):
            title = f"{STATES.get(session.state, 'Ended')} {when(session.last)}"
            yield Mark(page.scale.place(number, session.last), "end", title)


def _recycle_marks(page: Page, what: str | None = None) -> Iterator[Mark]:
    """Recycled memory; only that of a kind, if it is given."""
    for one in page.facts.recycles:
        if what in (None, one.entry.get("what")):
            kind = MEMORY.get(str(one.entry.get("what")), "memory")
            sizes = f"{size_of(one.entry, 'before') or '?'} before, {size_of(one.entry, 'after') or '?'} after"
            action = ACTIONS.get(str(one.entry.get("action")), "")
            title = f"Recycled, {kind}: {sizes}; {action}\n{when(one.time)}"
            yield Mark(page.scale.place(one.session, one.begin), "recycle", title)


def _tell(page: Page, group: Sequence[Bar]) -> str:
    """The tooltip of a bar, or of several that are drawn as one."""
    ones = [cast(Happening, bar.what) for bar in group]
    first, last = ones[0], ones[-1]
    lengths = [one.time - one.begin for one in ones]
    what = first.workflow if "workflow" in first.entry else ""
    if len(ones) > 1:
        words = f"{len(ones)} steps of {what}" if what else f"{len(ones)} {page.iteration_word().lower()}s"
        span = f"{page.place_of(first.path)} to {page.place_of(last.path)}"
        return f"{words}, {first.state}\n{span}\neach {duration(min(lengths))} to {duration(max(lengths))}"
    lines = [f"{page.place_of(first.path)}{f': {what}' if what else ''}", f"{first.state}, {duration(lengths[0])}"]
    if seconds_of(first.entry, "server_seconds"):
        lines[-1] += f" ({seconds_of(first.entry, 'server_seconds')} on the server)"
    cached, attempts = listing(first.entry.get("cached")), first.entry.get("attempts")
    lines += [f"{count_of(len(cached), 'node')} from the cache"] if cached else []
    lines += [f"{attempts} attempts"] if isinstance(attempts, int) and attempts > 1 else []
    error = mapping(first.entry.get("error")).get("message")
    lines += [clip(error, 200)] if error else []
    return "\n".join([*lines, when(first.begin)])


def _timeline_legend(page: Page) -> Html:
    """What of the timeline does not say it itself, as far as it occurs."""
    facts = page.facts
    states = {one.state for one in [*facts.steps, *facts.iterations]}
    items = [
        *([(swatch("failed"), "failed")] if "failed" in states else []),
        *([(swatch("skipped"), "skipped")] if "skipped" in states else []),
        *([(swatch("retried"), "tried again")] if "retried" in states else []),
        *([(mark_sample("retry"), "retry")] if facts.retries else []),
        *([(mark_sample("recycle"), "memory recycled")] if facts.recycles else []),
        *(
            [(mark_sample("end"), "ended early")]
            if any(s.state not in ("", "finished") for s in facts.sessions)
            else []
        ),
        *([(swatch("pause"), "pause between sessions, not to scale")] if len(facts.sessions) > 1 else []),
    ]
    return legend([*items, (Html(""), "The axis counts the time worked.")])


# ----------------------------------------------------------------------------------------------------------- pictures


def pictures(page: Page) -> Html:
    """Small pictures, by port and in the order of iterations."""
    ports: dict[str, list[Picture]] = {}
    for picture in page.facts.pictures:
        ports.setdefault(picture.port, []).append(picture)
    chosen = _choose(page.record.path / "thumbnails", dict(list(ports.items())[:_PICTURES]))
    parts = []
    for port, pictures in chosen.items():
        figures = [_figure(page, picture) for picture in pictures]
        shown = [one for one in figures if one]
        if shown:
            total = len(ports[port])
            some = [f"{len(shown)} of {total:,}"] if total > len(shown) else []
            by = f"by {page.iteration_word().lower()}"
            parts.append(tag("h3", name_of(port), " ", tag("span", ", ".join([by, *some]), class_="quiet")))
            parts.append(tag("div", *shown, class_="pictures"))
    return join([*parts, more(len(ports) - len(chosen), "more ports with pictures")]) if parts else Html("")


def _choose(folder: Path, ports: Mapping[str, Sequence[Picture]]) -> dict[str, list[Picture]]:
    """Pictures of all ports, evenly chosen, as many as a page may hold."""
    most = _PICTURES
    while ports:
        # Ports that have few leave room for those that have more.
        share, left, chosen = 0, most, dict[str, list[Picture]]()
        for number, (port, pictures) in enumerate(sorted(ports.items(), key=lambda item: len(item[1]))):
            share = max(1, left // (len(ports) - number))
            chosen[port] = evenly(pictures, share)
            left -= len(chosen[port])
        total = sum(_file_size(folder / one.file) for some in chosen.values() for one in some)
        if total <= _PICTURE_BYTES or most <= len(ports):
            return {port: chosen[port] for port in ports}
        most = max(len(ports), int(most * _PICTURE_BYTES / total))
    return {}


def _file_size(file: Path) -> int:
    try:
        return min(file.stat().st_size, _ONE_PICTURE)
    except OSError:
        return 0


def _figure(page: Page, picture: Picture) -> Html:
    """A picture with its caption; nothing where its file is no small JPEG."""
    try:
        with open(page.record.path / "thumbnails" / picture.file, "rb") as file:
            content = file.read(_ONE_PICTURE + 1)
    except OSError:
        return Html("")
    if not content.startswith(b"\xff\xd8") or len(content) > _ONE_PICTURE:
        return Html("")
    where = page.place_of(picture.path)
    source = Html("data:image/jpeg;base64," + base64.b64encode(content).decode())
    image = tag("img", src=source, alt=f"{name_of(picture.port)}, {where}")
    link = link_to(picture.original)
    shown = tag("a", image, href=link, title=f"{where}: {link}") if link else image
    return tag("figure", shown, tag("figcaption", _caption(page, picture), title=where))


def _caption(page: Page, picture: Picture) -> str:
    """Where a picture is of, in few letters: of an item that is a path, its last part."""
    return page.short_place(picture.path).rstrip("/").rsplit("/", 1)[-1]


# ------------------------------------------------------------------------------------------------------------- curves


def curves(page: Page) -> Html:
    """A small chart for each port that has numbers: those that change come first."""
    ports = page.facts.ports()
    order = sorted(ports, key=lambda port: len({point.value for point in ports[port][:1000]}) < 2)
    last = max((points[-1].order for points in ports.values()), default=0)
    charts = [_curve(page, port, ports[port], number, last) for number, port in enumerate(order[:_CHARTS])]
    return (
        join([tag("div", *charts, class_="charts"), more(len(order) - _CHARTS, "more ports with numbers")])
        if charts
        else Html("")
    )


def _iteration_ticks(page: Page, places: Sequence[tuple[float, Point]]) -> list[tuple[float, str]]:
    """(percent, label) of some points, as far as their labels have room."""
    ticks: list[tuple[float, str]] = []
    for place, point in places:
        if not ticks:
            ticks.append((place, f"{page.iteration_word().lower()} {page.number_text(point.path)}"))
        elif place - ticks[-1][0] > (35 if len(ticks) == 1 else 20):
            ticks.append((place, page.number_text(point.path)))
    return ticks


def _curve(page: Page, port: str, points: Sequence[Point], number: int, last: int) -> Html:
    low, high = min(points, key=lambda p: p.value), max(points, key=lambda p: p.value)

    def dot(point: Point) -> Dot:
        title = f"{page.place_of(point.path)}: {figure(point.value)}"
        return Dot(1 + 98 * point.order / max(1, last), float(point.value), 0, title)

    def at(point: Point) -> str:
        return f"{figure(point.value)} ({page.number_text(point.path)})"

    caption = tag("figcaption", tag("b", name_of(port)), tag("span", tag("small", "last "), figure(points[-1].value)))
    if low.value == high.value:
        same = f"the same {count_of(len(points), 'time')}" if len(points) > 1 else page.place_of(points[0].path)
        return tag("figure", caption, tag("p", same, class_="quiet"), class_=colour(number))
    marked = points if len(points) <= 60 else [low, high, points[-1]]
    chart = line_chart(
        [Line(colour(number), [dot(point) for point in downsample(points, lambda point: point.value)])],
        figure,
        f"{name_of(port)}: {count_of(len(points), 'value')} from {at(low)} to {at(high)}",
        dots=[dot(point) for point in marked],
        ticks=_iteration_ticks(page, [(dot(point).place, point) for point in evenly(points, 3)]),
    )
    words = f"min {at(low)} \u00b7 max {at(high)}"
    return tag("figure", caption, chart, tag("p", words, class_="quiet"), class_=colour(number))


# ------------------------------------------------------------------------------------------------------------- memory


def memory(page: Page) -> Html:
    """The server's, the script's and the values' memory over time, and VRAM."""
    facts = page.facts
    private = facts.memory_of("server_private")
    server = private if private[0] else facts.memory_of("server_rss")
    values, script = facts.memory_of("context_ram", "context_disk"), facts.memory_of("orchestrator_rss")
    ram = {"server": server, "the run's values (memory and disk)": values, "this script": script}
    vram = {"VRAM in use": facts.memory_of("vram_total", less="vram_free")}
    return join(
        [
            _memory_chart(page, "Memory", ram, "server_ram", "max_server_ram_gb", facts.last_memory("ram_total")),
            _memory_chart(page, "VRAM", vram, "vram", "max_vram_gb", facts.last_memory("vram_total")),
        ]
    )


Samples = tuple[list[Happening], list[float]]


def _memory_chart(
    page: Page, title: str, kinds: Mapping[str, Samples], what: str, ceiling: str, total: float | None
) -> Html:
    lines, samples = [], []
    for number, (name, (steps, amounts)) in enumerate(kinds.items()):
        if steps:
            some = [(steps[n], amounts[n]) for n in downsample(range(len(steps)), amounts.__getitem__)]
            dots = [Dot(page.scale.place(step.session, step.time), amount, step.session) for step, amount in some]
            class_ = colour(number if what == "server_ram" else 4)
            lines.append(Line(class_, dots))
            words = f"{name}: peak {size(max(amounts))}, last {size(amounts[-1])}"
            samples.append((swatch(class_), words))
    if not lines:
        return Html("")
    limit = number_of(page.options.get(ceiling))
    levels = [(limit * _GB, f"ceiling {size(limit * _GB)}")] if limit is not None else []
    highest = max([dot.value for line in lines for dot in line.dots] + [value for value, _ in levels])
    unit = next((float(n) for n in (2**40, 2**30, 2**20) if highest > 1.5 * n), 1024.0)
    marks = list(_recycle_marks(page, what))
    chart = line_chart(lines, size, f"{title} over time", 190, levels, marks, page.scale.ticks(), True, unit)
    whole = "" if total is None else f"of {size(total)}"
    recycled = [(mark_sample("recycle"), f"recycled {count_of(len(marks), 'time')}")] if marks else []
    heading = tag("h3", title, " ", tag("span", whole, class_="quiet"))
    return tag("div", heading, chart, legend([*samples, *recycled]))
