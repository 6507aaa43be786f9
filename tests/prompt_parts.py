"""Parts of the prompts that tests of whole runs are made of."""

from __future__ import annotations

from typing import Any


def port(unique_id: str, source: list[Any] | None = None) -> dict[str, Any]:
    """A DiscomfortPort in a prompt; with a source its value comes in."""
    inputs = {"unique_id": unique_id, "tags": "", **({"input_data": source} if source else {})}
    return {"class_type": "DiscomfortPort", "inputs": inputs, "_meta": {"title": f"port {unique_id}"}}


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """Any other node; its title is "my" and its class."""
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": f"my {class_type}"}}
