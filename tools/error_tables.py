"""The tables of docs/reference/errors.md: every exception class that somebody outside may meet, and what to do then.

Names, bases, meanings and attributes come from the classes; what to do is said here. tests/test_docs.py sees to it that
every exception class of the package is in one of the two lists below.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
from pathlib import Path

from docstring_text import attribute_comments, markdown, summary, table

import discomfort

PACKAGE = Path(discomfort.__file__).resolve().parent

#: heading of a table -> {"module.Class": what to do}
CATALOGUE: dict[str, dict[str, str]] = {
    "connector": {
        "comfy_serverless.ConnectorError": "catch it where any of the following will do",
        "comfy_serverless.ConfigError": "correct the key that it names; [all keys](configuration.md)",
        "comfy_serverless.ServerNotFoundError": (
            "name a ComfyUI (`COMFYUI_PATH`), or start the server that `API_URL` names"
        ),
        "comfy_serverless.ServerStartError": (
            "read the server's last lines, which are in the message; the whole log is at `log_path`"
        ),
        "comfy_serverless.ServerDiedError": (
            "call again: there is a server again then. In a run the step was tried three times; where `out_of_memory` "
            "is true, give it less to do at once"
        ),
        "comfy_serverless.NotOurServerError": "use a server that is started here, or do it on that machine",
        "comfy_serverless.BrowserError": (
            "install a Chromium, Chrome or Edge, or `python -m playwright install chromium`"
        ),
        "comfy_serverless.ConversionError": "open the workflow in the editor, and save it there",
        "comfy_serverless.ConversionTimeoutError": "call again; raise `CONVERSION_TIMEOUT` on a slow machine",
        "comfy_serverless.UnknownNodeError": "install the pack that it names",
        "comfy_serverless.PromptRejectedError": "correct the node and the input that it names",
        "comfy_serverless.NodeExecutionError": "the node's own message says what; `server_traceback` says where",
        "comfy_serverless.OutOfMemoryError": "smaller pictures or batches; `await connector.free()` first",
        "comfy_serverless.PromptInterruptedError": "nothing: somebody pressed Cancel",
        "comfy_serverless.RunTimeoutError": "raise `RUN_TIMEOUT` or `STALL_TIMEOUT`, or find out why the node hangs",
        "warm_server.WarmServerError": "do what the message says",
        "warm_server.WarmServerInUseError": "wait for the scripts that it names, or `--force`",
    },
    "run": {
        "workflow_tools.WorkflowExecutionError": (
            "see its cause; [`on_error` and `retry`](../concepts/recovery.md#when-a-step-fails) let a run go on"
        ),
        "workflow_tools.StaleReferenceError": (
            "run the workflow that delivers the reference again; [references](../concepts/references.md)"
        ),
        "run_plan.PreflightError": "correct what each of `problems` says",
        "run_plan.MissingValueError": "give the value in `inputs`, or correct the name",
        "run_plan.PortTypeError": "correct the wires of the ports that it names, or rename one of them",
        "run_plan.ProtocolError": "install the same version on both sides, and restart the server",
        "run_record.NotDeliveredError": "correct the name; `result.get(name)`, where a port may deliver nothing",
        "control_flow.ConditionError": "correct the condition; [what it may say](python/steps.md#expressions)",
        "observing.run_control.RunStoppedError": "nothing: somebody pressed Stop",
    },
    "kept runs": {
        "durable.run_folder.RunFolderError": "do what the message says: another folder, or wait for who uses it",
        "durable.run_folder.RunChangedError": 'call it as it was; or `resume="force"`, or `resume=False`',
        "durable.stop_signal.RunInterrupted": "the same call goes on",
        "durable.replay_plan.ReplayError": "do what the message says",
        "durable.replay_plan.MissingValuesError": "give the values in `inputs=`, or replay from the first iteration",
        "durable.replay_plan.NoSuchIterationError": "ask for one that the record has",
    },
    "values": {
        "object_store.errors.StoreError": "catch it where any of the following will do",
        "object_store.errors.StoreClosed": "make the context live as long as it is used",
        "object_store.errors.StoreCorrupt": "save the value again",
        "object_store.errors.StoreFull": "free memory or disk; the message has the sizes",
        "object_store.errors.StoreInsecure": "remove the folder that it names, if you know how it came there",
        "object_store.errors.StoreUnserializable": "leave out the part that the message names, or pass it by reference",
        "object_store.errors.StoreUnloadable": "install or import what the message names; the value is unharmed",
        "object_store.errors.UnknownKeyError": "correct the name; the message lists those that exist",
        "object_store.safe_loading.UntrustedError": "`trust=True` or `--trust`, if you trust who made the folder",
        "workflow_context.UnknownRunError": "correct the id, or keep the run's owner alive",
    },
    "nodes": {
        "editor_nodes.describer_answers.DescribingError": "do what the message says",
        "editor_nodes.endpoint_access.AccessError": "allow the endpoint, or set the key, as the message says",
        "editor_nodes.running.ServerBusyError": "wait for the run, or stop it",
        "embedded.recorded_names.NotInEmbeddedServer": "run this node on a real ComfyUI",
    },
}

#: classes that nobody outside meets -> why
INTERNAL = {
    "durable.checkpoint.RecordedFailureError": "a signal inside of a run that goes on",
    "durable.checkpoint.JournalCutError": "a signal inside of a run that goes on",
    "editor.answering.RefusedError": "becomes an HTTP answer",
    "editor.hub.NotAttachedError": "becomes an HTTP answer",
    "editor.stitching.CannotStitchError": "becomes an HTTP answer",
    "editor.values.NoValueError": "becomes an HTTP answer",
    "editor_nodes.fitted_images.Unreadable": "a file that the folder loader skips and lists",
    "embedded.execution.DuplicateNodeError": "becomes an execution_error, as in ComfyUI",
    "embedded.graph.DependencyCycleError": "becomes an execution_error, as in ComfyUI",
    "embedded.graph.NodeInputError": "becomes an execution_error, as in ComfyUI",
    "embedded.graph.NodeNotFoundError": "becomes an execution_error, as in ComfyUI",
    "embedded.launch.CannotStart": "becomes a sentence of the embedded server's command line",
    "embedded.model_management.InterruptProcessingException": "ComfyUI's own name for an interruption",
    "embedded.routes_files.Refused": "becomes an HTTP answer",
    "object_store.segments.SegmentLostError": "a race inside of the store, which is tried again",
}


def exception_classes() -> set[str]:
    """Every exception class of the package without a leading underscore, as "module.Class", by reading its source.

    Not those of the command line: they become a paragraph and an exit status.
    """
    packages = [folder for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists() and folder.name != "cli"]
    files = [*PACKAGE.glob("*.py"), *(file for folder in packages for file in folder.rglob("*.py"))]
    bases: dict[str, list[str]] = {}
    places: dict[str, set[str]] = {}
    for file in files:
        module = ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases.setdefault(node.name, []).extend(ast.unparse(base).rpartition(".")[2] for base in node.bases)
                places.setdefault(node.name, set()).add(f"{module}.{node.name}")
    found = {name for name in bases if _is_exception(name, bases, set())}
    return {place for name in found if not name.startswith("_") for place in places[name]}


def _is_exception(name: str, bases: dict[str, list[str]], seen: set[str]) -> bool:
    """Whether a class, by the names of its bases, is an exception: one of Python's at the end, or click's."""
    known = getattr(builtins, name, None)
    if isinstance(known, type) and issubclass(known, BaseException):
        return True
    if name in seen:
        return False
    return name.endswith("Exception") or any(_is_exception(base, bases, seen | {name}) for base in bases.get(name, ()))


def error_table(group: str) -> str:
    """The catalogue of one group."""
    rows = []
    for place, what_to_do in CATALOGUE[group].items():
        module, _, name = place.rpartition(".")
        kind = getattr(importlib.import_module(f"{discomfort.__name__}.{module}"), name)
        bases = ", ".join(f"`{base.__name__}`" for base in kind.__bases__)
        about = " ".join(filter(None, [summary(kind), _attributes(kind)]))
        rows.append(
            [f'<a id="{name.lower()}"></a>`{name}`, a {bases}, of `{_import_from(name, module)}`', about, what_to_do]
        )
    return table(["error", "means", "what to do"], rows)


def _import_from(name: str, module: str) -> str:
    return "discomfort" if name in discomfort.__all__ else f"discomfort.{module}"


def _attributes(kind: type[BaseException]) -> str:
    """What the class itself adds: attributes that its own body or constructor sets."""
    comments = attribute_comments(kind.__module__)
    tree = ast.parse(inspect.getsource(kind))
    names: dict[str, None] = {}
    for node in ast.walk(tree):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                names[target.attr] = None
            elif isinstance(target, ast.Name) and isinstance(node, ast.AnnAssign):
                names[target.id] = None
    told = [f"`{name}`{_told(comments.get((kind.__name__, name), ''))}" for name in names if not name.startswith("_")]
    return f"Has {', '.join(told)}." if told else ""


def _told(comment: str) -> str:
    return f" ({markdown(comment)})" if comment else ""
