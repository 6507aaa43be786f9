"""Parts of the prompts that tests of whole runs are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def port(unique_id: str, source: list[Any] | None = None) -> dict[str, Any]:
    """A DiscomfortPort in a prompt; with a source its value comes in."""
    inputs = {"unique_id": unique_id, "tags": "", **({"input_data": source} if source else {})}
    return {"class_type": "DiscomfortPort", "inputs": inputs, "_meta": {"title": f"port {unique_id}"}}


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """Any other node; its title is "my" and its class."""
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": f"my {class_type}"}}


def executions(log: str) -> list[str]:
    """What the nodes that write into this file have executed since the last call."""
    file = Path(log)
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return lines
