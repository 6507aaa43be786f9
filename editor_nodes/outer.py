"""What the ComfyUI around this package offers to a node that executes: its progress bar, its Cancel button, its memory,
its settings.

The one place that asks for it. ComfyUI has loaded its modules before any node executes, so they are taken from where
they are, never imported: importing them elsewhere would read another program's command line. Outside a ComfyUI, in a
test or a script, there is nothing to tell and nothing to ask: progress goes nowhere, nothing is ever interrupted, every
setting has its default. Works with ComfyUI from 0.3.64 on and with the embedded server, whose modules have these names.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

#: largest edge, in pixels, of a preview that is sent to the editor; ComfyUI's own samplers have 512
PREVIEW_SIZE = 512


def _loaded(name: str) -> ModuleType | None:
    """A module of the surrounding ComfyUI, None outside one."""
    return sys.modules.get(name)


class Progress:
    """The progress bar of a node. Call :meth:`update` from the thread that executes the node only: ComfyUI finds out by
    the thread which node and prompt it is about.
    """

    def __init__(self, total: float, node_id: str | None = None) -> None:
        """
        Args:
            total: the value that means done.
            node_id: None for the node that executes.
        """
        self.total = total
        utils = _loaded("comfy.utils")
        self._bar: Any = None if utils is None else utils.ProgressBar(total, node_id=node_id)

    def update(self, value: float, total: float | None = None, preview: Image.Image | bytes | None = None) -> None:
        """Show that *value* of *total* is done.

        Args:
            total: a new total; None for the one as it is.
            preview: a picture to show on the node, as such or as the bytes of a JPEG or PNG. Bytes that are no picture
                are passed over: a preview is not worth a failure.

        Raises:
            InterruptProcessingException: of ComfyUI: the user cancelled; let it through.
        """
        if total is not None:
            self.total = total
        if self._bar is not None:
            self._bar.update_absolute(value, self.total, _preview(preview))


def _preview(picture: Image.Image | bytes | None) -> tuple[str, Image.Image, int] | None:
    """A picture as ComfyUI's progress bar takes it."""
    if picture is None:
        return None
    if isinstance(picture, bytes):
        from PIL import Image

        try:
            picture = Image.open(io.BytesIO(picture))
            picture.load()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None
    # JPEG knows no transparency and no palette.
    return "JPEG", picture if picture.mode in ("RGB", "L") else picture.convert("RGB"), PREVIEW_SIZE


def is_interrupted() -> bool:
    """Whether the user asked to cancel the prompt that executes. Any thread; it stays so until somebody obeys."""
    management = _loaded("comfy.model_management")
    return management is not None and bool(management.processing_interrupted())


def check_interrupted() -> None:
    """Obey a wish to cancel.

    Raises:
        InterruptProcessingException: of ComfyUI: the user cancelled; let it through. It is no Exception in newer
            versions, so that no ``except Exception`` takes it for an error.
    """
    management = _loaded("comfy.model_management")
    if management is not None:
        management.throw_exception_if_processing_interrupted()


def cancel() -> None:
    """Cancel the prompt that executes, as the user's Cancel button does. Outside a ComfyUI it returns.

    Raises:
        InterruptProcessingException: see :func:`check_interrupted`.
    """
    management = _loaded("comfy.model_management")
    if management is not None:
        management.interrupt_current_processing(True)
        management.throw_exception_if_processing_interrupted()


def free_memory() -> None:
    """Take the models of this ComfyUI off the GPU, and give what it holds in reserve there back to the system."""
    management = _loaded("comfy.model_management")
    if management is not None:
        management.unload_all_models()
        management.soft_empty_cache()


def setting(id: str, default: Any = None) -> Any:
    """A setting of the editor, as the user's ``comfy.settings.json`` has it.

    Of a server with several users it is the default user's: a node does not learn who queued it.
    """
    folders = _loaded("folder_paths")
    if folders is None:
        return default
    file = Path(folders.get_user_directory()) / "default" / "comfy.settings.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none before the first change
        return default
    return settings.get(id, default) if isinstance(settings, dict) else default


def output_folder() -> Path:
    """The folder that ComfyUI saves results in; outside one the current folder."""
    folders = _loaded("folder_paths")
    return Path.cwd() if folders is None else Path(folders.get_output_directory())


def node_title(extra_pnginfo: Any, prompt: Any, unique_id: Any) -> str:
    """What the user calls a node: its title in the editor, else its class, else "".

    Args:
        extra_pnginfo, prompt, unique_id: the node's hidden inputs, plain or in a list as INPUT_IS_LIST makes them.
    """
    node_id = str(_only(unique_id))
    workflow = _get(_only(extra_pnginfo), "workflow")
    node = _get(_only(prompt), node_id)
    for title in (_title_in_workflow(workflow, node_id), _get(_get(node, "_meta"), "title"), _get(node, "class_type")):
        if title and isinstance(title, str):
            return title
    return ""


def _title_in_workflow(workflow: Any, node_id: str) -> Any:
    """The title of a node of the editor's workflow; a node in a subgraph has the ids on the way to it, 57:35."""
    *outer, own = node_id.split(":")
    for level in outer:
        kind = _get(_node(workflow, level), "type")
        definitions = _get(_get(workflow, "definitions"), "subgraphs")
        found = next((one for one in _list(definitions) if _get(one, "id") == kind), None)
        # Definitions stand at the top of the workflow, also those that are used inside others.
        workflow = None if found is None else {**found, "definitions": _get(workflow, "definitions")}
    return _get(_node(workflow, own), "title")


def _node(workflow: Any, node_id: str) -> Any:
    return next((one for one in _list(_get(workflow, "nodes")) if str(_get(one, "id")) == node_id), None)


def _get(mapping: Any, key: str) -> Any:
    return mapping.get(key) if isinstance(mapping, Mapping) else None


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _only(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value
