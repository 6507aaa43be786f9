"""Prompts as the editor's job list wants them (GET /jobs): waiting, running and past ones in one list.

ComfyUI 0.3.64 has no such route, 0.8.0 does. The status "cancelled" for interrupted prompts is of 0.9, previews of
texts are of 0.16, cancelling by id is of 0.26, the preference for pictures over texts of 0.30, the number of outputs
that the editor can show of 0.32; an editor of any version finds what it asks for.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .prompt_queue import QueueItem

STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")

_PREVIEWABLE = frozenset({"images", "video", "audio", "3d", "text"})
_MODEL_ENDINGS = (".obj", ".fbx", ".gltf", ".glb", ".usdz")
_TEXT_ENDINGS = (".txt", ".md", ".json")
# Characters of a text that a preview shows.
_MAX_TEXT = 1024
_END_EVENTS = frozenset({"execution_success", "execution_error", "execution_interrupted"})


class JobQuery(NamedTuple):
    """What was asked for."""

    statuses: frozenset[str]
    workflow_id: str | None
    # "created_at" or "execution_duration"
    sort_by: str
    descending: bool
    # at most so many, None: all
    limit: int | None
    # so many left out first
    offset: int

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> JobQuery:
        """From a URL's query.

        Raises:
            ValueError: a bad value, with the sentence ComfyUI answers.
        """
        statuses = [s.strip().lower() for s in query.get("status", "").split(",") if s.strip()]
        invalid = [status for status in statuses if status not in STATUSES]
        if invalid:
            raise ValueError(f"Invalid status value(s): {', '.join(invalid)}. Valid values: {', '.join(STATUSES)}")
        sort_by = query.get("sort_by", "created_at").lower()
        if sort_by not in ("created_at", "execution_duration"):
            raise ValueError("sort_by must be 'created_at' or 'execution_duration'")
        sort_order = query.get("sort_order", "desc").lower()
        if sort_order not in ("asc", "desc"):
            raise ValueError("sort_order must be 'asc' or 'desc'")
        limit = _integer(query, "limit")
        if limit is not None and limit <= 0:
            raise ValueError("limit must be a positive integer")
        offset = max(_integer(query, "offset") or 0, 0)
        chosen = frozenset(statuses or STATUSES)
        return cls(chosen, query.get("workflow_id"), sort_by, sort_order == "desc", limit, offset)


def list_jobs(
    query: JobQuery, running: Sequence[QueueItem], pending: Sequence[QueueItem], history: Mapping[str, Any]
) -> dict[str, Any]:
    """The jobs asked for, with what is needed to ask for the next page."""
    jobs = [_describe_queued(item, "in_progress") for item in running]
    jobs += [_describe_queued(item, "pending") for item in pending]
    jobs += [_describe_past(prompt_id, entry) for prompt_id, entry in history.items()]
    jobs = [job for job in jobs if job["status"] in query.statuses]
    if query.workflow_id:
        jobs = [job for job in jobs if job.get("workflow_id") == query.workflow_id]
    key = _duration if query.sort_by == "execution_duration" else _created
    jobs.sort(key=key, reverse=query.descending)
    page = jobs[query.offset :][: query.limit]
    pagination = {
        "offset": query.offset,
        "limit": query.limit,
        "total": len(jobs),
        "has_more": query.offset + len(page) < len(jobs),
    }
    return {"jobs": page, "pagination": pagination}


def describe_job(
    job_id: str, running: Sequence[QueueItem], pending: Sequence[QueueItem], history: Mapping[str, Any]
) -> dict[str, Any] | None:
    """One job, with all its outputs if it is past; None if there is none of this id."""
    if job_id in history:
        entry = history[job_id]
        workflow = {"prompt": entry["prompt"][2], "extra_data": entry["prompt"][3]}
        return {
            **_describe_past(job_id, entry),
            "outputs": _whole_outputs(entry["outputs"]),
            "execution_status": entry["status"],
            "workflow": workflow,
        }
    for items, status in ((running, "in_progress"), (pending, "pending")):
        for item in items:
            if item[1] == job_id:
                return _describe_queued(item, status)
    return None


def bad_ids(job_ids: Sequence[Any]) -> list[str]:
    """Those of a client's job ids that can be none: an id is a UUID in small letters with hyphens."""
    return [value if isinstance(value, str) else repr(value) for value in job_ids if not _is_job_id(value)]


def _is_job_id(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


def _describe_queued(item: QueueItem, status: str) -> dict[str, Any]:
    """A waiting or running prompt."""
    return _without_none(
        {
            "id": item[1],
            "status": status,
            "priority": item[0],
            "create_time": item[3].get("create_time"),
            "outputs_count": 0,
            "previewable_outputs_count": 0,
            "workflow_id": _workflow_id(item[3]),
        }
    )


def _describe_past(prompt_id: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """A prompt of the history."""
    number, _, _, extra_data, _ = entry["prompt"]
    status = entry.get("status") or {}
    times: dict[str, Any] = {}
    error = None
    ending = "failed" if status.get("status_str") == "error" else "completed"
    for event, data in status.get("messages", ()):
        if event == "execution_start":
            times["start"] = data.get("timestamp")
        elif event in _END_EVENTS:
            times["end"] = data.get("timestamp")
            error = data if event == "execution_error" else error
            ending = "cancelled" if event == "execution_interrupted" else ending
    outputs = list(_outputs(entry.get("outputs", {})))
    files = [(kind, item) for _, kind, item in outputs if isinstance(item, dict)]
    return _without_none(
        {
            "id": prompt_id,
            "status": ending,
            "priority": number,
            "create_time": extra_data.get("create_time"),
            "execution_start_time": times.get("start"),
            "execution_end_time": times.get("end"),
            "execution_error": error,
            "outputs_count": len(files),
            "previewable_outputs_count": sum(_is_previewable(kind, item) for kind, item in files),
            "preview_output": _best_preview(outputs),
            "workflow_id": _workflow_id(extra_data),
        }
    )


def _outputs(outputs: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """What nodes show, one thing after the other: node id, kind ("images", "text", ...), the thing.

    A thing is a file (a dict), or a text that is just to be read; names of 3D models are files, too.
    """
    for node_id, shown in outputs.items():
        if not isinstance(shown, Mapping):
            continue
        for kind, items in shown.items():
            # "animated" has a flag for each image, which is nothing to show.
            if kind != "animated" and isinstance(items, list):
                yield from ((node_id, kind, _as_file(item)) for item in items)


def _as_file(item: Any) -> Any:
    """The name of a 3D model as a file of the output folder; anything else as it is."""
    if isinstance(item, str) and item.lower().endswith(_MODEL_ENDINGS):
        return {"filename": item, "type": "output", "subfolder": "", "mediaType": "3d"}
    return item


def _best_preview(outputs: Sequence[tuple[str, str, Any]]) -> dict[str, Any] | None:
    """The output that stands for a job: of the things the editor can show the first of the best rank, None without any.

    A picture, sound, film or model that was saved comes before one that was only shown, that before a saved text, and
    that before a text that was only shown: a text of a node that ran earlier must not hide the picture.
    """
    ranked: dict[int, dict[str, Any]] = {}
    for node_id, kind, item in outputs:
        preview = _preview_of(node_id, kind, item)
        if preview is None:
            continue
        if not isinstance(item, dict):
            rank = 3
        elif kind == "text" or str(item.get("filename") or "").lower().endswith(_TEXT_ENDINGS):
            rank = 2
        else:
            rank = 0 if item.get("type") == "output" else 1
        ranked.setdefault(rank, preview)
    return ranked[min(ranked)] if ranked else None


def _preview_of(node_id: str, kind: str, item: Any) -> dict[str, Any] | None:
    """An output as the editor's list shows it, None if it cannot."""
    if isinstance(item, dict):
        return {"mediaType": kind, **item, "nodeId": node_id} if _is_previewable(kind, item) else None
    if kind != "text" or item is None:
        return None
    text = str(next(iter(item), "") if isinstance(item, (list, tuple)) else item)
    content = {"content": text} if len(text) <= _MAX_TEXT else {"content": text[:_MAX_TEXT], "truncated": True}
    return {**content, "nodeId": node_id, "mediaType": kind}


def _is_previewable(kind: str, item: Mapping[str, Any]) -> bool:
    """Whether the editor can show a file."""
    return (
        kind in _PREVIEWABLE
        or str(item.get("format") or "").startswith(("video/", "audio/"))
        or str(item.get("filename") or "").lower().endswith(_MODEL_ENDINGS + _TEXT_ENDINGS)
    )


def _whole_outputs(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a job without empty places, and names of 3D models as files."""
    return {
        node_id: {
            kind: [_as_file(item) for item in items if item is not None]
            if kind != "animated" and isinstance(items, list)
            else items
            for kind, items in shown.items()
        }
        if isinstance(shown, Mapping)
        else shown
        for node_id, shown in outputs.items()
    }


def _workflow_id(extra_data: Mapping[str, Any]) -> Any:
    """The id of the workflow a prompt was made from, if it says so."""
    # A client may have said anything.
    found: Any = extra_data
    for key in ("extra_pnginfo", "workflow", "id"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _created(job: Mapping[str, Any]) -> Any:
    return job.get("create_time", 0)


def _duration(job: Mapping[str, Any]) -> float:
    start, end = job.get("execution_start_time", 0), job.get("execution_end_time", 0)
    return float(end - start) if start and end else 0.0


def _without_none(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if value is not None}


def _integer(query: Mapping[str, str], name: str) -> int | None:
    """A whole number of the query, None if it is not there.

    Raises:
        ValueError: it is no whole number.
    """
    if name not in query:
        return None
    try:
        return int(query[name])
    except ValueError:
        raise ValueError(f"{name} must be an integer") from None
