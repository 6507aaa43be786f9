"""Prompts as the editor's job list wants them (GET /jobs): waiting, running and past ones in one list.

ComfyUI 0.3.64 has no such route, 0.8.0 does; the status "cancelled" for interrupted prompts is of later versions,
whose editor asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .prompt_queue import QueueItem

STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")

_PREVIEWABLE = frozenset({"images", "video", "audio"})
_MODEL_ENDINGS = (".obj", ".fbx", ".gltf", ".glb")
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
            "outputs": entry["outputs"],
            "execution_status": entry["status"],
            "workflow": workflow,
        }
    for items, status in ((running, "in_progress"), (pending, "pending")):
        for item in items:
            if item[1] == job_id:
                return _describe_queued(item, status)
    return None


def _describe_queued(item: QueueItem, status: str) -> dict[str, Any]:
    """A waiting or running prompt."""
    return _without_none(
        {
            "id": item[1],
            "status": status,
            "priority": item[0],
            "create_time": item[3].get("create_time"),
            "outputs_count": 0,
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
    items = [
        {**item, "nodeId": node_id, "mediaType": media_type}
        for node_id, shown in entry.get("outputs", {}).items()
        for media_type, values in shown.items()
        if media_type != "animated" and isinstance(values, list)
        for item in values
        if isinstance(item, dict)
    ]
    previews = [item for item in items if _is_previewable(item)]
    saved = [item for item in previews if item.get("type") == "output"]
    return _without_none(
        {
            "id": prompt_id,
            "status": ending,
            "priority": number,
            "create_time": extra_data.get("create_time"),
            "execution_start_time": times.get("start"),
            "execution_end_time": times.get("end"),
            "execution_error": error,
            "outputs_count": len(items),
            "preview_output": next(iter(saved + previews), None),
            "workflow_id": _workflow_id(extra_data),
        }
    )


def _is_previewable(item: Mapping[str, Any]) -> bool:
    """Whether the editor can show an output."""
    return (
        item["mediaType"] in _PREVIEWABLE
        or str(item.get("format") or "").startswith(("video/", "audio/"))
        or str(item.get("filename") or "").lower().endswith(_MODEL_ENDINGS)
    )


def _workflow_id(extra_data: Mapping[str, Any]) -> str | None:
    """The id of the workflow a prompt was made from, if it says so."""
    workflow = (extra_data.get("extra_pnginfo") or {}).get("workflow") or {}
    return workflow.get("id") if isinstance(workflow, dict) else None


def _created(job: Mapping[str, Any]) -> Any:
    return job.get("create_time", 0)


def _duration(job: Mapping[str, Any]) -> float:
    start, end = job.get("execution_start_time", 0), job.get("execution_end_time", 0)
    return float(end - start) if start and end else 0.0


def _without_none(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if value is not None}


def _integer(query: Mapping[str, str], name: str) -> int | None:
    """A whole number of the query; only a bad ``limit`` is an error."""
    if name not in query:
        return None
    try:
        return int(query[name])
    except ValueError:
        if name == "limit":
            raise ValueError("limit must be an integer") from None
        return None
