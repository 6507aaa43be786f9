"""The tables of docs/reference/events.md: what `progress=` is called with, and what ComfyConnector.events() yields."""

from __future__ import annotations

import dataclasses

from docstring_text import attribute_comments, summary, table

from discomfort import comfy_serverless, progress_events


def _type_name(field: dataclasses.Field[object]) -> str:
    """An annotation as its source has it (annotations of both modules are texts)."""
    return str(field.type).replace("|", "\\|")


def _fields(event: type, comments: dict[tuple[str, str], str], left_out: frozenset[str] = frozenset()) -> str:
    """`name` type: what it is; one after the other."""
    found = []
    assert dataclasses.is_dataclass(event)
    for field in dataclasses.fields(event):
        if field.name not in left_out:
            comment = comments.get((event.__name__, field.name), "")
            found.append(f"`{field.name}` {_type_name(field)}{f' ({comment})' if comment else ''}")
    return ", ".join(found)


def progress_table() -> str:
    """Every progress event: its name, when it comes, its fields. Those of the base are told once, above the table."""
    comments = attribute_comments(progress_events.__name__)
    base = frozenset(field.name for field in dataclasses.fields(progress_events.ProgressEvent))
    rows = [
        [f"`{event.__name__}`", summary(event), _fields(event, comments, base)]
        for event in vars(progress_events).values()
        if isinstance(event, type) and progress_events.ProgressEvent in event.__bases__
    ]
    return table(["event", "when", "fields, besides `run_id`"], rows)


def server_table() -> str:
    """The fields of ServerEvent."""
    comments = attribute_comments(comfy_serverless.__name__)
    event = comfy_serverless.ServerEvent
    rows = []
    for field in dataclasses.fields(event):
        fallback = {"type": "the kind, see below", "data": "the message's own data, as the server sent it"}
        fallback["image_format"] = "see `image`"
        comment = comments.get((event.__name__, field.name)) or fallback[field.name]
        rows.append([f"`{field.name}`", f"`{_type_name(field)}`", comment])
    return table(["field", "type", "meaning"], rows)
