"""What V3 nodes return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ..graph_utils import ExecutionBlocker


class NodeOutputBase:
    """Base of what V3 nodes return (``_NodeOutputInternal`` in ComfyUI)."""


class UIOutput(ABC):
    """Something a node shows (``_UIOutput`` in ComfyUI)."""

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """As the client gets it: name -> list."""


class NodeOutput(NodeOutputBase):
    """The result of one call.

    Args:
        args: the outputs, in the schema's order.
        ui: what the node shows.
        expand: nodes to run in place of this one, whose outputs ``args`` link to; see ``enable_expand``.
        block_execution: the message of an :class:`ExecutionBlocker` that takes the place of all ``args``.
    """

    def __init__(
        self,
        *args: Any,
        ui: UIOutput | dict[str, Any] | None = None,
        expand: dict[str, Any] | None = None,
        block_execution: str | None = None,
    ) -> None:
        self.args = args
        self.ui = ui
        self.expand = expand
        self.block_execution = block_execution

    @property
    def result(self) -> tuple[Any, ...] | None:
        """The outputs, None without any."""
        return self.args if self.args else None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> NodeOutput:
        """From what a V1 node returns: ``result``, ``ui``, ``expand``."""
        result = data.get("result", ())
        if isinstance(result, ExecutionBlocker):
            return cls(block_execution=result.message)
        return cls(*result, ui=data.get("ui"), expand=data.get("expand"))

    @classmethod
    def of(cls, returned: Any) -> NodeOutputBase:
        """Whatever an ``execute`` returned.

        Raises:
            Exception: nothing a node can return.
        """
        if returned is None:
            return cls()
        if isinstance(returned, NodeOutput):
            return returned
        if isinstance(returned, tuple):
            return cls(*returned)
        if isinstance(returned, dict):
            return cls.from_dict(returned)
        if isinstance(returned, ExecutionBlocker):
            return cls(block_execution=returned.message)
        raise Exception(f"Invalid return type from node: {type(returned)}")

    def as_v1(self, output_count: int) -> dict[str, Any]:
        """As a V1 node would have returned it, for the executor.

        A blocked result needs outputs to take the place of: without ``args`` nothing is blocked, and what comes
        behind gets None. So it is in ComfyUI 0.3.64 and 0.29.0.

        Args:
            output_count: how many outputs the node has.
        """
        returned: dict[str, Any] = {}
        if self.ui is not None:
            returned["ui"] = self.ui if isinstance(self.ui, dict) else self.ui.as_dict()
        if self.expand is not None:
            returned["expand"] = self.expand
        if self.expand is not None or self.result is not None:
            returned["result"] = self.result
            if self.block_execution is not None:
                returned["result"] = (ExecutionBlocker(self.block_execution),) * output_count
        return returned

    def __getitem__(self, index: Any) -> Any:
        return self.args[index]
