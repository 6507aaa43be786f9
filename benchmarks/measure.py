"""What the benchmarks share: medians, ratios, Markdown tables, goals."""

from __future__ import annotations

import json
import platform
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple


def median(values: Sequence[float]) -> float:
    """The median; nan for nothing."""
    return statistics.median(values) if values else float("nan")


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


class Goal(NamedTuple):
    """One figure and the bound that it has to keep."""

    #: what was measured, a phrase
    what: str
    #: the figure; None where this run could not measure it
    measured: float | None
    #: the bound
    threshold: float
    #: whether the bound is the most that is accepted; else it is the least
    at_most: bool = False
    #: of figure and bound, with a leading space: " ms"; "" for ratios
    unit: str = ""

    @property
    def is_kept(self) -> bool | None:
        """None where nothing was measured."""
        if self.measured is None:
            return None
        return self.measured <= self.threshold if self.at_most else self.measured >= self.threshold


def goals_table(goals: Sequence[Goal]) -> str:
    """A Markdown table of figures, bounds and verdicts."""
    verdicts = {None: "not measured", True: "kept", False: "**not kept**"}
    rows = []
    for goal in goals:
        measured = "-" if goal.measured is None else f"{goal.measured:.3g}{goal.unit}"
        bound = f"at {'most' if goal.at_most else 'least'} {goal.threshold:g}{goal.unit}"
        rows.append([goal.what, measured, bound, verdicts[goal.is_kept]])
    return markdown(["goal", "measured", "threshold", ""], rows)


def all_kept(goals: Sequence[Goal]) -> bool:
    """Whether no goal that was measured is missed. Benchmarks are not tests: they say it, the exit status tells."""
    return all(goal.is_kept is not False for goal in goals)


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
    cells = []
    for what, seconds, ratio in rows:
        text = "" if ratio is None else f"{ratio:.2f}"
        verdict = f"{'ok' if kept[what] else 'TOO MUCH'}: at most {limit[what]:g}" if what in kept else ""
        cells.append([what, milliseconds(seconds), text, verdict])
    print(f"\n{title}\n")
    print(markdown(["what", "median", "ratio", ""], cells))
    return all(kept.values())
