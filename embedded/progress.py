"""How far the nodes of the running prompt are, told to the client (``comfy_execution.progress``).

Whenever a node starts, moves or ends, the client gets one ``progress_state`` message with all nodes that have
started. Nodes report through ``comfy.utils.ProgressBar``, see :func:`report_progress`.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import TYPE_CHECKING, Any, TypedDict

from . import model_management
from .graph import DynamicPrompt
from .messages import BinaryEventTypes
from .node_context import get_executing_context

if TYPE_CHECKING:
    from .messages import Preview
    from .server import PromptServer


class NodeState(Enum):
    """Where a node is."""

    Pending = "pending"
    Running = "running"
    Finished = "finished"
    Error = "error"


class NodeProgressState(TypedDict):
    """A node's state and its progress from 0 to ``max``."""

    state: NodeState
    value: float
    max: float


class ProgressRegistry:
    """The nodes' progress in one prompt. Used by the executor thread."""

    def __init__(self, prompt_id: str, dynprompt: DynamicPrompt, server: PromptServer | None = None) -> None:
        self.prompt_id = prompt_id
        self.dynprompt = dynprompt
        self.server = server
        self.nodes: dict[str, NodeProgressState] = {}
        # Node -> its part of the message as JSON. A message repeats all nodes, and is sent twice for each:
        # writing all of them anew every time would be most of the cost of a prompt of a few hundred nodes.
        self._fragments: dict[str, str] = {}

    def start_progress(self, node_id: str) -> None:
        """A node begins."""
        self._set(node_id, NodeState.Running, 0.0, 1.0)

    def update_progress(self, node_id: str, value: float, max_value: float, image: Preview | None = None) -> None:
        """A node is at ``value`` of ``max_value``; ``image`` goes to clients that take metadata with it."""
        self._set(node_id, NodeState.Running, value, max_value)
        server = self.server
        if image is not None and server is not None and server.client_takes_metadata():
            metadata = {"node_id": node_id, "prompt_id": self.prompt_id, **self._relatives(node_id)}
            event = BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA
            server.send_sync(event, (image, metadata), server.client_id)

    def finish_progress(self, node_id: str) -> None:
        """A node has ended."""
        maximum = self.nodes[node_id]["max"] if node_id in self.nodes else 1
        self._set(node_id, NodeState.Finished, maximum, maximum)

    def _set(self, node_id: str, state: NodeState, value: float, maximum: float) -> None:
        self.nodes[node_id] = NodeProgressState(state=state, value=value, max=maximum)
        if self.server is None:
            return
        description = {
            "value": value,
            "max": maximum,
            "state": state.value,
            "node_id": node_id,
            "prompt_id": self.prompt_id,
            **self._relatives(node_id),
        }
        self._fragments[node_id] = f"{json.dumps(node_id)}: {json.dumps(description)}"
        if self.server.has_listener(self.server.client_id):
            nodes = ", ".join(self._fragments.values())
            data = f'{{"prompt_id": {json.dumps(self.prompt_id)}, "nodes": {{{nodes}}}}}'
            self.server.send_encoded(f'{{"type": "progress_state", "data": {data}}}', self.server.client_id)

    def _relatives(self, node_id: str) -> dict[str, Any]:
        """The nodes of the client's prompt a node stands for."""
        return {
            "display_node_id": self.dynprompt.get_display_node_id(node_id),
            "parent_node_id": self.dynprompt.get_parent_node_id(node_id),
            "real_node_id": self.dynprompt.get_real_node_id(node_id),
        }


_registry = ProgressRegistry("", DynamicPrompt({}))


def reset_progress_state(prompt_id: str, dynprompt: DynamicPrompt, server: PromptServer | None = None) -> None:
    """Begin a prompt."""
    global _registry
    _registry = ProgressRegistry(prompt_id, dynprompt, server)


def get_progress_state() -> ProgressRegistry:
    """The progress of the running prompt, or the last one."""
    return _registry


def report_progress(
    server: PromptServer,
    value: float,
    total: float,
    preview_image: Preview | None,
    prompt_id: str | None = None,
    node_id: str | None = None,
) -> None:
    """What a node's ProgressBar calls at each step: a message, perhaps a preview, and a chance to stop.

    Args:
        preview_image: sent as event 4 with metadata, or as event 1 to clients that did not ask for that.
        prompt_id, node_id: by default the call that is running in this thread or task.

    Raises:
        InterruptProcessingException: the prompt was interrupted.
    """
    context = get_executing_context()
    if context is not None:
        prompt_id = prompt_id if prompt_id is not None else context.prompt_id
        node_id = node_id if node_id is not None else context.node_id
    model_management.throw_exception_if_processing_interrupted()
    prompt_id = prompt_id if prompt_id is not None else server.last_prompt_id
    node_id = node_id if node_id is not None else server.last_node_id
    if node_id is not None:
        _registry.update_progress(node_id, value, total, preview_image)
    data = {"value": value, "max": total, "prompt_id": prompt_id, "node": node_id}
    server.send_sync("progress", data, server.client_id)
    if preview_image is not None and not server.client_takes_metadata():
        server.send_sync(BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, preview_image, server.client_id)
