"""A run as one workflow, for people who want to see it in the editor. Blocks for as long as reading its files takes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..observing import run_history
from ..workflow_stitching import stitch_workflows

log = logging.getLogger("discomfort.editor")

Json = dict[str, Any]


class CannotStitchError(ValueError):
    """The run's workflows cannot be joined; says why."""


def stitched_run(head: run_history.RunHead) -> Json:
    """The run's workflows joined into one, as they ran in one pass.

    Returns:
        ``workflow`` in the editor's format, and ``notes``: sentences about what of the run it does not show.

    Raises:
        CannotStitchError: none of them is known in the editor's format, or they cannot be joined.
    """
    parts = run_history.workflows(head.folder)
    known = [part for part in parts if part is not None]
    if not known:
        raise CannotStitchError(
            "This run has no workflow in the editor's format: they were given in API format, which has no layout."
            if parts
            else "This run's workflows were not recorded."
        )
    try:
        stitched = stitch_workflows(known)
    except Exception as error:  # a workflow of any age may be wrong in any way
        log.info("The workflows of the run %s cannot be joined", head.run_id, exc_info=True)
        raise CannotStitchError(f"The workflows of this run cannot be joined: {error}") from error
    events, _ = run_history.read_events(head.folder, 0)
    return {"workflow": stitched["stitched_workflow"], "notes": notes(head.first, parts, events)}


def notes(first: Mapping[str, Any], parts: Sequence[Json | None], events: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the stitched workflow does not show. Pure.

    Args:
        first: the run's ``run`` event.
        parts: its workflows, None for those in API format.
        events: what happened.
    """
    found = []
    known = first.get("workflows")
    names = [str(one.get("name") or "") for one in known] if isinstance(known, list) else []
    missing = [
        name or f"number {n}" for n, (name, part) in enumerate(zip(names, parts, strict=False), 1) if part is None
    ]
    if missing:
        found.append(f"Left out, because they were given in API format, which has no layout: {', '.join(missing)}.")
    iterations = first.get("iterations")
    condition = first.get("condition")
    if iterations != 1 or condition:
        times = f"{iterations:,} times" if isinstance(iterations, int) and iterations > 1 else "again and again"
        until = f", as long as this holds: {condition}" if condition else ""
        found.append(f"The run does all of this {times}{until}. A workflow has no loops: one pass is shown.")
    kinds = [(event.get("kind"), event) for event in events]
    if any(kind == "condition" and event.get("what") == "branch" for kind, event in kinds):
        found.append("The run decides which of its workflows to run: here all of them stand one behind the other.")
    if any(kind == "iteration" and len(event.get("path") or ()) > 1 for kind, event in kinds):
        found.append("The run has loops inside its loop; of each, one pass is shown.")
    return found
