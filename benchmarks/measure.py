"""What the benchmarks share: medians, ratios, a table."""

from __future__ import annotations

import json
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def median(values: Sequence[float]) -> float:
    """The median; nan for nothing."""
    return statistics.median(values) if values else float("nan")


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def report(
    title: str, rows: Sequence[tuple[str, float, float | None]], limit: Mapping[str, float] | None = None
) -> bool:
    """Print a table of (what, seconds, ratio to the baseline or None); ``--json`` prints data instead.

    Args:
        limit: {what: greatest ratio that is accepted}.

    Returns:
        Whether every limit was kept. Benchmarks are not tests: they say it, and the exit status tells.
    """
    limit = limit or {}
    kept = {what: ratio <= limit[what] for what, _, ratio in rows if what in limit and ratio is not None}
    if "--json" in sys.argv:
        data: dict[str, Any] = {"title": title, "machine": platform.platform(), "limits": dict(limit)}
        data["rows"] = [{"what": what, "seconds": seconds, "ratio": ratio} for what, seconds, ratio in rows]
        print(json.dumps(data))
        return all(kept.values())
    print(f"\n{title}\n")
    print("| what | median | ratio | |\n| --- | --- | --- | --- |")
    for what, seconds, ratio in rows:
        text = "" if ratio is None else f"{ratio:.2f}"
        verdict = f"{'ok' if kept[what] else 'TOO MUCH'}: at most {limit[what]:g}" if what in kept else ""
        print(f"| {what} | {milliseconds(seconds)} | {text} | {verdict} |")
    return all(kept.values())
