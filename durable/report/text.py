"""Text of the report: HTML in which everything foreign is escaped, and figures as people write them. Pure."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

# What no page may hold, and what would turn the text around it: names and messages come from anywhere.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_LARGEST = 10**300
_SIZES = ("B", "KB", "MB", "GB", "TB", "PB")
_VOID = frozenset({"meta", "img", "br", "line", "rect", "circle", "path"})


class Html(str):
    """Text that is HTML already; any other is escaped."""

    __slots__ = ()

    def __add__(self, other: Any) -> Html:
        return Html(str.__add__(self, escape(other)))


def escape(value: Any) -> Html:
    """Anything as HTML: text is escaped, HTML stays as it is."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(_UNPRINTABLE.sub("\ufffd", str(value))))


def join(parts: Iterable[Any], separator: str = "") -> Html:
    """Parts as one piece of HTML."""
    return Html(escape(separator).join(map(escape, parts)))


def tag(name: str, /, *content: Any, **attributes: Any) -> Html:
    """An element. ``class_`` is written class, ``_`` in names ``-``; attributes that are None are left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID and not content:
        return Html(f"<{name}{written}/>")
    return Html(f"<{name}{written}>{join(content)}</{name}>")


def clip(value: Any, length: int = 160) -> str:
    """A text of at most so many characters."""
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def duration(seconds: float) -> str:
    """Seconds in the units that people use: "340 ms", "3.2 s", "12 min 5 s", "1 h 12 min", "2 d 3 h"."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 0.9995:
        milliseconds = seconds * 1000
        return "0 s" if not seconds else f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.2g} ms"
    if seconds < 59.5:
        return f"{seconds:.1f}".removesuffix(".0") + " s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    for unit, name, part, part_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        # Rounded to the smaller of the two units first: never "1 h 60 min".
        rounded = round(whole / part) * part
        if rounded >= unit:
            rest = rounded % unit // part
            return f"{rounded // unit} {name}" + (f" {rest} {part_name}" if rest else "")
    return f"{whole} s"


def size(count: float) -> str:
    """Bytes: "512 B", "3.4 MB", "1.2 GB" (1 GB is 1024**3 bytes)."""
    amount, unit = float(count), 0
    while abs(amount) >= 999.5 and unit < len(_SIZES) - 1:
        amount, unit = amount / 1024, unit + 1
    written = f"{amount:.0f}" if unit == 0 or abs(amount) >= 99.5 else f"{amount:.3g}" if unit > 2 else f"{amount:.2g}"
    return f"{written} {_SIZES[unit]}"


def figure(value: float) -> str:
    """A number with as many digits as a person reads."""
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return str(int(value)) if abs(value) < 10**20 else f"{float(value):.4g}"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.6g}"


def count_of(number: int, one: str, many: str | None = None) -> str:
    """How many of something: "1 step", "10,000 steps"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def when(seconds: float | None, pattern: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A moment (seconds since the epoch) as this machine's clocks show it."""
    try:
        return "" if seconds is None else datetime.fromtimestamp(seconds).astimezone().strftime(pattern)
    except (OverflowError, ValueError, OSError):
        return "?"


def number_of(value: Any) -> float | None:
    """A finite number that a chart can show; None for anything else. Truth values are none."""
    kind = type(value)
    if kind is float:
        return value if math.isfinite(value) else None
    # A larger one is no float.
    return value if kind is int and -_LARGEST < value < _LARGEST else None
