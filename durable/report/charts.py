"""Charts of the report as inline SVG: a time scale, a timeline, lines. Pure.

Places from left to right are percentages, from top to bottom pixels: so a chart is as wide as the page, and its text as
large as any other. Colours are classes (``c0`` to ``c7``, ``failed``, ...), which the page's style knows in
light and dark. However much there is to show, the number of elements is bounded.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from .text import Html, clip, duration, escape, join, tag

#: points of a line, bars of a timeline, at most about
MOST = 800
#: colours in the style
COLOURS = 8

# Percent of the width that a pause between two sessions takes, and all of them together.
_PAUSE, _ALL_PAUSES = 2.0, 20.0
_LABEL, _BAR, _ROW = 16, 14, 38
_NICE_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)

T = TypeVar("T")


# ------------------------------------------------------------------------------------------------------------- scales


def evenly(things: Sequence[T], most: int) -> list[T]:
    """At most so many of these, evenly chosen, the first and the last among them."""
    if len(things) <= most:
        return list(things)
    if most < 2:
        return list(things[-most:]) if most else []
    return [things[round(n * (len(things) - 1) / (most - 1))] for n in range(most)]


def downsample(points: Sequence[T], value: Callable[[T], float], most: int = MOST) -> list[T]:
    """At most so many points, in order: of each stretch the lowest and the highest, so that no peak is lost."""
    if len(points) <= most:
        return list(points)
    kept = [points[0]]
    inner, buckets = points[1:-1], (most - 2) // 2
    for n in range(buckets):
        stretch = range(n * len(inner) // buckets, (n + 1) * len(inner) // buckets)
        low, high = min(stretch, key=lambda i: value(inner[i])), max(stretch, key=lambda i: value(inner[i]))
        kept += [inner[i] for i in sorted({low, high})]
    return [*kept, points[-1]]


def nice_step(span: float, count: int = 4) -> float:
    """A round step (1, 2 or 5 and zeros) of which about *count* fill a span."""
    if not 0 < span < math.inf:
        return 1.0 if span < math.inf else span
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    return next((n * power for n in (1, 2, 5) if n * power >= rough * 0.999), 10 * power)


def nice_seconds(span: float, count: int) -> float:
    """A step of time that people count in, of which at most *count* fill a span."""
    rough = span / count
    if rough <= 1:
        return nice_step(span, count)
    found = next((float(step) for step in _NICE_SECONDS if step >= rough), 0.0)
    return found or max(1.0, nice_step(span / 86400, count)) * 86400


@dataclass
class TimeScale:
    """Where a moment of a session is: all sessions side by side, the time between them as narrow pauses.

    Args:
        spans: (begin, end) of each session, in seconds.
    """

    spans: Sequence[tuple[float, float]]
    #: percent where each session begins and ends
    places: list[tuple[float, float]] = field(init=False)
    #: seconds of all sessions before each one
    before: list[float] = field(init=False)
    total: float = field(init=False)

    def __post_init__(self) -> None:
        lengths = [max(0.0, end - begin) for begin, end in self.spans]
        self.total = sum(lengths)
        pauses = max(0, len(lengths) - 1)
        self.pause = min(_PAUSE, _ALL_PAUSES / pauses) if pauses else 0.0
        room = 100.0 - pauses * self.pause
        self.before, self.places = [], []
        seconds = place = 0.0
        for length in lengths:
            width = room * length / self.total if self.total else room / len(lengths)
            self.before.append(seconds)
            self.places.append((place, place + width))
            seconds, place = seconds + length, place + width + self.pause

    def place(self, session: int, time: float) -> float:
        """Percent of the width at which a moment of a session is."""
        (begin, end), (left, right) = self.spans[session], self.places[session]
        if time <= begin:
            return left
        return right if time >= end else left + (right - left) * (time - begin) / (end - begin)

    def pauses(self) -> list[tuple[float, float, float]]:
        """(percent from, percent to, seconds) of the time between sessions."""
        return [
            (self.places[n][1], self.places[n + 1][0], self.spans[n + 1][0] - self.spans[n][1])
            for n in range(len(self.spans) - 1)
        ]

    def ticks(self) -> list[tuple[float, str]]:
        """(percent, label) of round amounts of time worked."""
        if not self.total:
            return []
        step = nice_seconds(self.total, 5)
        found = []
        for n in range(int(self.total / step * 1.0001) + 1):
            seconds = min(n * step, self.total)
            session = max(0, bisect.bisect_right(self.before, seconds) - 1)
            found.append(
                (self.place(session, self.spans[session][0] + seconds - self.before[session]), duration(n * step))
            )
        return found


def percent(place: float) -> str:
    """A place from left to right, to a tenth of a pixel."""
    return f"{place:.2f}".rstrip("0").rstrip(".") + "%"


# ----------------------------------------------------------------------------------------------------------- elements


def _text(x: float, y: float, text: str, class_: str) -> Html:
    """Text at a place; near the edges it is turned inwards."""
    anchor = "start" if x < 12 else "end" if x > 92 else "middle"
    return tag("text", text, x=percent(x), y=f"{y:g}", text_anchor=anchor, class_=class_)


def _upright(x: float, top: float, bottom: float, class_: str, title: str = "") -> Html:
    """A line from top to bottom."""
    line = tag("line", x1=percent(x), x2=percent(x), y1=f"{top:g}", y2=f"{bottom:g}", class_=class_)
    # A line of one pixel is hard to point at.
    wide = tag("line", tag("title", title), x1=percent(x), x2=percent(x), y1=f"{top:g}", y2=f"{bottom:g}", class_="aim")
    return join([line, wide]) if title else line


_SHAPES = {
    "retry": "M-5 4.5 0 -5 5 4.5Z",
    "recycle": "M0 -6 6 0 0 6 -6 0Z",
    "end": "M-4.5 -4.5H4.5V4.5H-4.5Z",
}


def shape(kind: str) -> Html:
    """The shape of a mark ("retry", "recycle" or "end"), for timeline and legend."""
    return tag("path", d=_SHAPES[kind], class_=f"mark {kind}")


@dataclass(slots=True)
class Bar:
    """A stretch of time in a row of the timeline; what it is is for ``tell``."""

    left: float
    right: float
    class_: str
    what: object


# What the tooltip of one bar, or of several that are drawn as one, says.
Teller = Callable[[Sequence[Bar]], str]


@dataclass(slots=True)
class Mark:
    """Something that happened at a moment."""

    place: float
    kind: str
    title: str


def bars(row: Sequence[Bar], top: float, height: float, tell: Teller, most: int = MOST) -> Html:
    """A row of bars. Where there are more than *most*, neighbours of one kind are drawn and told as one, the fainter
    the less of the time they took.
    """
    is_exact = len(row) <= most
    groups: dict[tuple[int, str], list[Bar]] = {}
    for number, bar in enumerate(row):
        key = (number, "") if is_exact else (int(bar.left / 100 * most), bar.class_.partition(" ")[0])
        group = groups.get(key)
        if group is None:
            groups[key] = [bar]
        else:
            group.append(bar)
    # What failed lies on top: it is what people look for.
    drawn = sorted(groups.values(), key=lambda group: "failed" in group[0].class_)
    return join(_bar(group, top, height, tell) for group in drawn)


def _bar(group: Sequence[Bar], top: float, height: float, tell: Teller) -> Html:
    left, right = min(bar.left for bar in group), max(bar.right for bar in group)
    is_failed = "failed" in group[0].class_
    width = max(right - left, 0.4 if is_failed else 0.12)
    is_faint = len(group) > 1 and not is_failed
    busy = sum(bar.right - bar.left for bar in group) / width
    return tag(
        "rect",
        tag("title", tell(group)),
        x=percent(min(left, 100 - width)),
        y=f"{top:g}",
        width=percent(width),
        height=f"{height:g}",
        class_=group[0].class_ if len(group) == 1 else group[0].class_.split(" ")[0],
        fill_opacity=f"{min(1.0, 0.25 + 0.75 * busy):.2f}" if is_faint else None,
    )


def merged(marks: Iterable[Mark], most: int = 60) -> list[Mark]:
    """Marks of one kind that would lie on one another as one, whose title has the first few."""
    cells: dict[tuple[str, int], list[Mark]] = {}
    for mark in marks:
        cells.setdefault((mark.kind, int(mark.place / 100 * most)), []).append(mark)
    return [
        Mark(
            group[0].place,
            group[0].kind,
            "\n".join(
                [*(mark.title for mark in group[:3]), *([f"and {len(group) - 3} more"] if len(group) > 3 else [])]
            ),
        )
        for group in cells.values()
    ]


# ----------------------------------------------------------------------------------------------------------- timeline


def timeline(
    rows: Sequence[tuple[str, Sequence[Bar]]],
    marks: Sequence[Mark],
    scale: TimeScale,
    tell: Teller,
    label: str,
) -> Html:
    """Rows of bars over time, marks below them, pauses and beginnings of sessions across all.

    Args:
        rows: (name, bars) from top to bottom.
        tell: what the tooltip of one bar, or of several that are drawn as one, says.
        label: what it is, for who does not see it.
    """
    bottom = len(rows) * _ROW + 4
    most = max(100, MOST // max(1, len(rows)))
    tracks = [n * _ROW + _LABEL for n in range(len(rows))]
    parts = [tag("rect", x="0", y=f"{y}", width="100%", height=f"{_BAR}", class_="track") for y in tracks]
    parts += [_pauses(scale, bottom), *(_upright(place, 0, bottom, "tick") for place, _ in scale.ticks())]
    for number, (name, row) in enumerate(rows):
        parts.append(tag("text", clip(name, 60), x="0", y=f"{tracks[number] - 4}", class_="name halo"))
        few = " few" if len(row) <= 120 else ""
        parts.append(tag("g", bars(row, tracks[number], _BAR, tell, most), class_=f"bars{few}"))
    lane = 0
    if marks:
        lane = 22
        found = [_mark(mark, bottom + 10) for mark in merged(marks)]
        parts += [tag("line", x1="0", x2="100%", y1=f"{bottom + 10}", y2=f"{bottom + 10}", class_="lane"), *found]
    parts += [_text(place, bottom + lane + 14, text, "axis") for place, text in scale.ticks()]
    return _svg(join(parts), bottom + lane + 20, label)


def _mark(mark: Mark, y: float) -> Html:
    return tag(
        "svg",
        tag("g", tag("title", mark.title), shape(mark.kind)),
        x=percent(min(99.3, max(0.7, mark.place))),
        y=f"{y:g}",
        class_="at",
    )


def _pauses(scale: TimeScale, bottom: float) -> Html:
    """The time between sessions, hatched; only the title of it where there are many."""
    stripe = tag("path", d="M-1 7 7 -1M5 7 7 5M-1 1 1 -1", class_="stripe")
    pattern = tag("pattern", stripe, id="pause", width="6", height="6", patternUnits="userSpaceOnUse")
    found = [
        tag(
            "rect",
            tag(
                "title", f"Session {number} begins, {duration(max(0.0, seconds))} after the last word of the one before"
            ),
            x=percent(left),
            y="0",
            width=percent(max(0.05, right - left)),
            height=f"{bottom:g}",
            class_="pause",
        )
        for number, (left, right, seconds) in list(enumerate(scale.pauses(), start=2))[:200]
    ]
    return join([tag("defs", pattern), *found]) if found else Html("")


def _svg(content: Html, height: float, label: str, class_: str = "chart") -> Html:
    return tag("svg", content, width="100%", height=f"{height:g}", class_=class_, role="img", aria_label=label)


# -------------------------------------------------------------------------------------------------------------- lines


@dataclass(slots=True)
class Dot:
    """A point of a line. Lines are not drawn from one ``group`` to the next."""

    place: float
    value: float
    group: int = 0
    title: str = ""


@dataclass
class Line:
    """A line of a chart."""

    class_: str
    dots: Sequence[Dot]


def line_chart(
    lines: Sequence[Line],
    written: Callable[[float], str],
    label: str,
    height: int = 120,
    levels: Sequence[tuple[float, str]] = (),
    uprights: Sequence[Mark] = (),
    ticks: Sequence[tuple[float, str]] = (),
    from_zero: bool = False,
    unit: float = 1.0,
    dots: Sequence[Dot] = (),
) -> Html:
    """Lines over what the places mean.

    Args:
        written: how a value is written at the axis.
        levels: (value, name) of horizontal lines.
        uprights: vertical lines, with titles.
        ticks: (percent, label) below.
        from_zero: whether the axis begins at 0.
        unit: what round numbers of the axis are multiples of.
        dots: drawn on top, with their titles.
    """
    low, high = _range([dot.value for line in lines for dot in line.dots] + [value for value, _ in levels], from_zero)
    top, foot = 6, 20 if ticks else 4
    bottom = height - foot
    # Halves first: the difference of two huge numbers may be infinite.
    span = (high / 2 - low / 2) or 0.5

    def y(value: float) -> float:
        return bottom - (bottom - top) * ((value / 2 - low / 2) / span)

    parts = [_upright(place, top, bottom, "tick") for place, _ in ticks]
    parts += [
        tag("line", x1="0", x2="100%", y1=f"{y(value):.1f}", y2=f"{y(value):.1f}", class_="grid")
        for value in _grid(low, high, unit)
    ]
    shown = merged(uprights)
    many = " many" if len(shown) > 25 else ""
    parts += [_upright(mark.place, top, bottom, f"upright {mark.kind}{many}", mark.title) for mark in shown]
    for value, name in levels:
        parts.append(tag("line", x1="0", x2="100%", y1=f"{y(value):.1f}", y2=f"{y(value):.1f}", class_="level"))
        parts.append(tag("text", name, x="100%", y=f"{y(value) + 12:.1f}", text_anchor="end", class_="halo levelname"))
    parts += [_line(line, y) for line in lines]
    parts += [
        tag("text", written(value), x="-8", y=f"{y(value) + 4:.1f}", text_anchor="end", class_="axis")
        for value in _grid(low, high, unit)
    ]
    parts += [_dot(dot, y, lines[0].class_) for dot in dots]
    parts += [_text(place, height - 5, text, "axis") for place, text in ticks]
    return _svg(join(parts), height, label, "chart gutter")


def _range(values: Sequence[float], from_zero: bool) -> tuple[float, float]:
    """(lowest, highest) that a chart shows, with a little room."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if from_zero:
        return min(0.0, low), (high * 1.06) or 1.0
    room = (high / 2 - low / 2) * 0.12 or abs(high) * 0.1 or 1.0
    return low - room, high + room


def _grid(low: float, high: float, unit: float = 1.0) -> list[float]:
    """Round values for horizontal lines."""
    step = nice_step((high / 2 - low / 2) * 2 / unit, 5) * unit
    if not (math.isfinite(step) and abs(low) / step < 1e12 and abs(high) / step < 1e12):
        return []
    first = math.ceil(low / step)
    return [n * step for n in range(first, min(math.floor(high / step), first + 10) + 1)]


def _line(line: Line, y: Callable[[float], float]) -> Html:
    """A line, as a drawing that is stretched to the width while its stroke stays as it is."""
    commands: list[str] = []
    group: int | None = None
    for dot in line.dots:
        commands.append(f"{'L' if dot.group == group else 'M'}{dot.place * 10:.4g} {y(dot.value):.4g}")
        group = dot.group
    # A line to itself, so that a single point shows as a round dot.
    last = commands[-1][1:] if commands else "0 0"
    path = tag(
        "path", d="".join(commands) + f"L{last}", class_=f"line {line.class_}", vector_effect="non-scaling-stroke"
    )
    height = 1000  # pixels, one to one
    return tag(
        "svg",
        path,
        x="0",
        y="0",
        width="100%",
        height=f"{height}",
        viewBox=f"0 0 1000 {height}",
        preserveAspectRatio="none",
        class_="stretched",
    )


def _dot(dot: Dot, y: Callable[[float], float], class_: str) -> Html:
    # The ends of a line stay inside.
    return tag(
        "circle",
        tag("title", dot.title),
        cx=percent(min(99.6, max(0.4, dot.place))),
        cy=f"{y(dot.value):.1f}",
        r="3",
        class_=f"dot {class_}",
    )


def swatch(class_: str) -> Html:
    """A colour for a legend."""
    return tag("span", class_=f"swatch {class_}")


def mark_sample(kind: str) -> Html:
    """A mark for a legend."""
    return tag(
        "svg", shape(kind), width="12", height="12", viewBox="-6.5 -6.5 13 13", aria_hidden="true", class_="sample"
    )


def colour(number: int) -> str:
    """The class of the colour of a row, port or line."""
    return f"c{number % COLOURS}"


def legend(items: Iterable[tuple[Html, str]]) -> Html:
    """Samples with what they mean."""
    entries = [tag("span", sample, " ", escape(text)) for sample, text in items]
    return tag("p", join(entries, " "), class_="legend") if entries else Html("")
