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


class ProgressHandler:
    """Is told how far nodes are; node packages derive their own from it, see :func:`add_progress_handler`."""

    def __init__(self, name: str) -> None:
        """Args: ``name`` tells it from other handlers; one of the same name takes its place."""
        self.name = name
        self.enabled = True

    def set_registry(self, registry: ProgressRegistry) -> None:
        """It is added to this prompt's registry now."""

    def start_handler(self, node_id: str, state: NodeProgressState, prompt_id: str) -> None:
        """A node begins."""

    def update_handler(
        self,
        node_id: str,
        value: float,
        max_value: float,
        state: NodeProgressState,
        prompt_id: str,
        image: Preview | None = None,
    ) -> None:
        """A node has moved on; ``image`` is a preview of what it makes."""

    def finish_handler(self, node_id: str, state: NodeProgressState, prompt_id: str) -> None:
        """A node has ended."""

    def reset(self) -> None:
        """The next prompt begins, or it is taken out."""

    def enable(self) -> None:
        """Go on telling it."""
        self.enabled = True

    def disable(self) -> None:
        """Stop telling it."""
        self.enabled = False


class WebUIProgressHandler(ProgressHandler):
    """Tells the client of the running prompt."""

    def __init__(self, server_instance: PromptServer) -> None:
        super().__init__("webui")
        self.server_instance = server_instance
        self.registry = ProgressRegistry("", DynamicPrompt({}))
        # Node -> its part of the message as JSON. A message repeats all nodes, and is sent twice for each:
        # writing all of them anew every time would be most of the cost of a prompt of a few hundred nodes.
        self._fragments: dict[str, str] = {}

    def set_registry(self, registry: ProgressRegistry) -> None:
        """What is told from now on is of this prompt."""
        self.registry = registry
        self._fragments = {}

    def start_handler(self, node_id: str, state: NodeProgressState, prompt_id: str) -> None:
        """A message with all nodes."""
        self._send(node_id, state, prompt_id)

    def finish_handler(self, node_id: str, state: NodeProgressState, prompt_id: str) -> None:
        """A message with all nodes."""
        self._send(node_id, state, prompt_id)

    def update_handler(
        self,
        node_id: str,
        value: float,
        max_value: float,
        state: NodeProgressState,
        prompt_id: str,
        image: Preview | None = None,
    ) -> None:
        """A message with all nodes; the preview goes to clients that take metadata with it."""
        self._send(node_id, state, prompt_id)
        server = self.server_instance
        if image is not None and server.client_takes_metadata():
            metadata = {"node_id": node_id, "prompt_id": prompt_id, **self._relatives(node_id)}
            event = BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA
            server.send_sync(event, (image, metadata), server.client_id)

    def enable(self) -> None:
        """Go on telling the client, also of what it was not told meanwhile."""
        super().enable()
        for node_id, state in self.registry.nodes.items():
            if state["state"] is not NodeState.Pending:
                self._write(node_id, state, self.registry.prompt_id)

    def _write(self, node_id: str, state: NodeProgressState, prompt_id: str) -> None:
        """Bring a node's part of the message up to date."""
        description = {
            "value": state["value"],
            "max": state["max"],
            "state": state["state"].value,
            "node_id": node_id,
            "prompt_id": prompt_id,
            **self._relatives(node_id),
        }
        self._fragments[node_id] = f"{json.dumps(node_id)}: {json.dumps(description)}"

    def _send(self, node_id: str, state: NodeProgressState, prompt_id: str) -> None:
        self._write(node_id, state, prompt_id)
        server = self.server_instance
        wants_data = server.wants_data()
        if wants_data or server.has_listener(server.client_id):
            nodes = ", ".join(self._fragments.values())
            data = f'{{"prompt_id": {json.dumps(prompt_id)}, "nodes": {{{nodes}}}}}'
            if wants_data:
                server.send_sync("progress_state", json.loads(data), server.client_id)
                return
            server.send_encoded(f'{{"type": "progress_state", "data": {data}}}', server.client_id)

    def _relatives(self, node_id: str) -> dict[str, Any]:
        """The nodes of the client's prompt a node stands for."""
        dynprompt = self.registry.dynprompt
        return {
            "display_node_id": dynprompt.get_display_node_id(node_id),
            "parent_node_id": dynprompt.get_parent_node_id(node_id),
            "real_node_id": dynprompt.get_real_node_id(node_id),
        }


class ProgressRegistry:
    """The nodes' progress in one prompt, and who is told of it. Used by the executor thread."""

    def __init__(self, prompt_id: str, dynprompt: DynamicPrompt) -> None:
        self.prompt_id = prompt_id
        self.dynprompt = dynprompt
        # The nodes that have begun; also waiting ones where somebody has asked for their entry.
        self.nodes: dict[str, NodeProgressState] = {}
        self.handlers: dict[str, ProgressHandler] = {}

    def register_handler(self, handler: ProgressHandler) -> None:
        """Tell a handler from now on."""
        self.handlers[handler.name] = handler

    def unregister_handler(self, handler_name: str) -> None:
        """Take a handler out, if it is there."""
        if handler_name in self.handlers:
            self.handlers.pop(handler_name).reset()

    def enable_handler(self, handler_name: str) -> None:
        """Go on telling a handler, if it is there."""
        if handler_name in self.handlers:
            self.handlers[handler_name].enable()

    def disable_handler(self, handler_name: str) -> None:
        """Stop telling a handler, if it is there."""
        if handler_name in self.handlers:
            self.handlers[handler_name].disable()

    def ensure_entry(self, node_id: str) -> NodeProgressState:
        """A node's entry, made if it is not there."""
        if node_id not in self.nodes:
            self.nodes[node_id] = NodeProgressState(state=NodeState.Pending, value=0, max=1)
        return self.nodes[node_id]

    def start_progress(self, node_id: str) -> None:
        """A node begins."""
        state = self._set(node_id, NodeState.Running, 0.0, 1.0)
        for handler in self._enabled():
            handler.start_handler(node_id, state, self.prompt_id)

    def update_progress(self, node_id: str, value: float, max_value: float, image: Preview | None = None) -> None:
        """A node is at ``value`` of ``max_value``, with a preview perhaps."""
        state = self._set(node_id, NodeState.Running, value, max_value)
        for handler in self._enabled():
            handler.update_handler(node_id, value, max_value, state, self.prompt_id, image)

    def finish_progress(self, node_id: str) -> None:
        """A node has ended."""
        maximum = self.ensure_entry(node_id)["max"]
        state = self._set(node_id, NodeState.Finished, maximum, maximum)
        for handler in self._enabled():
            handler.finish_handler(node_id, state, self.prompt_id)

    def reset_handlers(self) -> None:
        """This prompt is over."""
        for handler in self.handlers.values():
            handler.reset()

    def _set(self, node_id: str, state: NodeState, value: float, maximum: float) -> NodeProgressState:
        entry = self.ensure_entry(node_id)
        entry["state"], entry["value"], entry["max"] = state, value, maximum
        return entry

    def _enabled(self) -> list[ProgressHandler]:
        return [handler for handler in self.handlers.values() if handler.enabled]


_registry = ProgressRegistry("", DynamicPrompt({}))


def reset_progress_state(prompt_id: str, dynprompt: DynamicPrompt) -> None:
    """Begin a prompt, with no handlers."""
    global _registry
    _registry.reset_handlers()
    _registry = ProgressRegistry(prompt_id, dynprompt)


def add_progress_handler(handler: ProgressHandler) -> None:
    """Tell a handler of the running prompt's nodes, until the next prompt begins."""
    handler.set_registry(_registry)
    _registry.register_handler(handler)


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
