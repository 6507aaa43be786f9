"""What is wrong with a condition that a person is writing. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any

from ..control_flow import Condition, ConditionError

Json = dict[str, Any]


def check_condition(text: str, known: Collection[str] | None = None) -> Json:
    """Look at a condition without running it.

    Args:
        text: a port's name or an expression; "" for no condition, which is fine.
        known: the names that have a value by then; None where that is not known.

    Returns:
        ``problem``: a sentence, or None; ``reads``: the names that it reads; ``names``: those that it may read, sorted.
    """
    names = sorted(known or ())
    if not text.strip():
        return {"problem": None, "reads": [], "names": names}
    try:
        condition = Condition.parse(text)
    except ConditionError as error:
        return {"problem": str(error), "reads": [], "names": names}
    missing = [] if known is None else sorted(condition.missing(known))
    problem = _missing(missing, names) if missing else None
    return {"problem": problem, "reads": sorted(condition.names), "names": names}


def _missing(names: list[str], known: list[str]) -> str:
    close = difflib.get_close_matches(names[0], known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    has = ", ".join(map(repr, known)) or "none"
    return f"The condition reads {', '.join(map(repr, names))}, but no port has that name.{hint} Ports: {has}."
