"""Which node is being executed, for code that is called by nodes (``comfy_execution.utils`` for packages)."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import NamedTuple


class ExecutionContext(NamedTuple):
    """The call that is running."""

    prompt_id: str
    node_id: str
    # The position in the lists a node is called over, None where there is none.
    list_index: int | None


current_executing_context: ContextVar[ExecutionContext | None] = ContextVar(
    "discomfort_executing_context", default=None
)


def get_executing_context() -> ExecutionContext | None:
    """The call that is running in this task, None outside of nodes."""
    return current_executing_context.get()


class CurrentNodeContext:
    """While entered, :func:`get_executing_context` answers with this call."""

    def __init__(self, prompt_id: str, node_id: str, list_index: int | None = None) -> None:
        self.context = ExecutionContext(prompt_id, node_id, list_index)
        self._token: Token[ExecutionContext | None] | None = None

    def __enter__(self) -> CurrentNodeContext:
        self._token = current_executing_context.set(self.context)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._token is not None:
            current_executing_context.reset(self._token)
            self._token = None
