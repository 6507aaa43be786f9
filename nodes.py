"""The registration of all nodes: which there are, and what the editor calls them.

The classes are thin, one file each in ``editor_nodes/``, over plain functions; all in ComfyUI's V1 form, which loads on
every version. Node ids, input names and their order are part of saved workflows and never change after release.

Loaded inside a ComfyUI, this also gives the editor its routes (editor/registration.py).
"""

from __future__ import annotations

from .editor.registration import register
from .editor_nodes.extender import DiscomfortExtenderWorkflowRunner
from .editor_nodes.folder_image_loader import DiscomfortFolderImageLoader
from .editor_nodes.image_describer import DiscomfortImageDescriber
from .editor_nodes.loop_executor import DiscomfortLoopExecutor
from .editor_nodes.port import DiscomfortPort
from .editor_nodes.test_runner import DiscomfortTestRunner
from .nodes_internal import DiscomfortDataLoader

NODE_CLASS_MAPPINGS: dict[str, type] = {
    "DiscomfortPort": DiscomfortPort,
    "DiscomfortTestRunner": DiscomfortTestRunner,
    "DiscomfortLoopExecutor": DiscomfortLoopExecutor,
    "DiscomfortExtenderWorkflowRunner": DiscomfortExtenderWorkflowRunner,
    "DiscomfortFolderImageLoader": DiscomfortFolderImageLoader,
    "DiscomfortImageDescriber": DiscomfortImageDescriber,
    "DiscomfortDataLoader": DiscomfortDataLoader,
}

NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {
    "DiscomfortPort": "Discomfort Port",
    "DiscomfortTestRunner": "Discomfort Test Runner",
    "DiscomfortLoopExecutor": "Discomfort Loop Executor",
    "DiscomfortExtenderWorkflowRunner": "Discomfort Extender",
    "DiscomfortFolderImageLoader": "Discomfort Folder Image Loader",
    "DiscomfortImageDescriber": "Discomfort Image Describer",
    "DiscomfortDataLoader": "Discomfort Data Loader (internal)",
}

register()

__all__ = [
    "NODE_CLASS_MAPPINGS",
    "NODE_DISPLAY_NAME_MAPPINGS",
    "DiscomfortDataLoader",
    "DiscomfortExtenderWorkflowRunner",
    "DiscomfortFolderImageLoader",
    "DiscomfortImageDescriber",
    "DiscomfortLoopExecutor",
    "DiscomfortPort",
    "DiscomfortTestRunner",
]
