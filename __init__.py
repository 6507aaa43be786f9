"""Discomfort: loops, decisions and state around ComfyUI workflows.

A table of contents, no more: every name loads its module on first use, so that ``import discomfort`` costs a
millisecond and imports neither torch nor playwright. ComfyUI finds the nodes by the same road: it asks for
NODE_CLASS_MAPPINGS.

The package works under any name: ``discomfort`` (installed), ``custom_nodes.discomfort`` (from the ComfyUI folder) or
the absolute path that ComfyUI itself imports it by. All imports inside are relative.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name -> module it lives in
_NAMES = {
    "Discomfort": ".discomfort",
    "ComfyConnector": ".comfy_serverless",
    "ConnectorConfig": ".comfy_serverless",
    "DiscomfortWorkflowTools": ".workflow_tools",
    "WorkflowTools": ".workflow_tools",
    "WorkflowExecutionError": ".workflow_tools",
    "WorkflowContext": ".workflow_context",
    "get_context": ".workflow_context",
    "register_context": ".workflow_context",
    "unregister_context": ".workflow_context",
    "Branch": ".control_flow",
    "Loop": ".control_flow",
    "PerIteration": ".control_flow",
    "Step": ".control_flow",
    "load_steps": ".control_flow",
    "PreflightError": ".run_plan",
    "RunResult": ".run_record",
    "IterationFailure": ".run_record",
    "Retry": ".durable.retry",
    "RunChangedError": ".durable.run_folder",
    "RunFolderError": ".durable.run_folder",
    "RunInterrupted": ".durable.stop_signal",
    "RunStoppedError": ".observing.run_control",
    "ItemFinished": ".progress_events",
    "IterationFinished": ".progress_events",
    "IterationStarted": ".progress_events",
    "NodeProgress": ".progress_events",
    "NodeStarted": ".progress_events",
    "PreviewImage": ".progress_events",
    "ProgressEvent": ".progress_events",
    "RunFinished": ".progress_events",
    "RunStarted": ".progress_events",
    "StepFinished": ".progress_events",
    "StepStarted": ".progress_events",
    "BatchItem": ".batch",
    "BatchResult": ".batch",
    # what ComfyUI asks a custom-node package for
    "NODE_CLASS_MAPPINGS": ".nodes",
    "NODE_DISPLAY_NAME_MAPPINGS": ".nodes",
}

#: folder with the nodes' help pages (docs/<node>.md), served by ComfyUI
WEB_DIRECTORY = "./web"

__all__ = [
    "NODE_CLASS_MAPPINGS",
    "NODE_DISPLAY_NAME_MAPPINGS",
    "WEB_DIRECTORY",
    "BatchItem",
    "BatchResult",
    "Branch",
    "ComfyConnector",
    "ConnectorConfig",
    "Discomfort",
    "DiscomfortWorkflowTools",
    "ItemFinished",
    "IterationFailure",
    "IterationFinished",
    "IterationStarted",
    "Loop",
    "NodeProgress",
    "NodeStarted",
    "PerIteration",
    "PreflightError",
    "PreviewImage",
    "ProgressEvent",
    "Retry",
    "RunChangedError",
    "RunFinished",
    "RunFolderError",
    "RunInterrupted",
    "RunResult",
    "RunStarted",
    "RunStoppedError",
    "Step",
    "StepFinished",
    "StepStarted",
    "WorkflowContext",
    "WorkflowExecutionError",
    "WorkflowTools",
    "__version__",
    "get_context",
    "load_steps",
    "register_context",
    "unregister_context",
]

if TYPE_CHECKING:
    from .batch import BatchItem, BatchResult
    from .comfy_serverless import ComfyConnector, ConnectorConfig
    from .control_flow import Branch, Loop, PerIteration, Step, load_steps
    from .discomfort import Discomfort
    from .durable.retry import Retry
    from .durable.run_folder import RunChangedError, RunFolderError
    from .durable.stop_signal import RunInterrupted
    from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
    from .observing.run_control import RunStoppedError
    from .progress_events import (
        ItemFinished,
        IterationFinished,
        IterationStarted,
        NodeProgress,
        NodeStarted,
        PreviewImage,
        ProgressEvent,
        RunFinished,
        RunStarted,
        StepFinished,
        StepStarted,
    )
    from .run_plan import PreflightError
    from .run_record import IterationFailure, RunResult
    from .workflow_context import WorkflowContext, get_context, register_context, unregister_context
    from .workflow_tools import DiscomfortWorkflowTools, WorkflowExecutionError, WorkflowTools


if not TYPE_CHECKING:  # a type checker would believe that there is every name

    def __getattr__(name: str) -> Any:
        if name not in _NAMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_NAMES[name], __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
