"""Progress bars, image scaling and files of tensors for nodes (``comfy.utils`` for node packages)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

# Packages find these under comfy.utils; the core nodes use the same ones.
from .core_nodes.align import repeat_to_batch_size as repeat_to_batch_size
from .core_nodes.resize import bislerp as bislerp
from .core_nodes.resize import common_upscale as common_upscale
from .core_nodes.resize import lanczos as lanczos
from .tensor_files import load_torch_file as load_torch_file
from .tensor_files import safetensors_header as safetensors_header
from .tensor_files import save_torch_file as save_torch_file
from .tensor_helpers import calculate_parameters as calculate_parameters
from .tensor_helpers import convert_sd_to as convert_sd_to
from .tensor_helpers import copy_to_param as copy_to_param
from .tensor_helpers import get_attr as get_attr
from .tensor_helpers import reshape_mask as reshape_mask
from .tensor_helpers import resize_list_to_batch_size as resize_list_to_batch_size
from .tensor_helpers import resize_to_batch_size as resize_to_batch_size
from .tensor_helpers import set_attr as set_attr
from .tensor_helpers import set_attr_param as set_attr_param
from .tensor_helpers import state_dict_key_replace as state_dict_key_replace
from .tensor_helpers import state_dict_prefix_replace as state_dict_prefix_replace
from .tensor_helpers import weight_dtype as weight_dtype
from .tiles import get_tiled_scale_steps as get_tiled_scale_steps
from .tiles import tiled_scale as tiled_scale
from .tiles import tiled_scale_multidim as tiled_scale_multidim

if TYPE_CHECKING:
    from .messages import Preview

# Called by every ProgressBar: (value, total, preview, node_id=...). Set by the server, read by packages.
PROGRESS_BAR_HOOK: Callable[..., None] | None = None
PROGRESS_BAR_ENABLED = True
# How weights are read from files, which packages look at.
ALWAYS_SAFE_LOAD = True
DISABLE_MMAP = MMAP_TORCH_FILES = False


def set_progress_bar_global_hook(function: Callable[..., None] | None) -> None:
    """Set what progress bars made from now on call."""
    global PROGRESS_BAR_HOOK
    PROGRESS_BAR_HOOK = function


def set_progress_bar_enabled(enabled: bool) -> None:
    """Whether packages should show bars of their own on the terminal."""
    global PROGRESS_BAR_ENABLED
    PROGRESS_BAR_ENABLED = enabled


class ProgressBar:
    """A node's progress in the editor. Each update is also a point at which the prompt can be interrupted."""

    def __init__(self, total: float, node_id: str | None = None) -> None:
        """
        Args:
            total: the value that means done.
            node_id: by default the node that is running.
        """
        self.total = total
        self.current: float = 0
        self.hook = PROGRESS_BAR_HOOK
        self.node_id = node_id

    def update_absolute(self, value: float, total: float | None = None, preview: Preview | None = None) -> None:
        """Go to a value.

        Args:
            preview: ("JPEG" or "PNG", PIL image, largest edge in pixels or None).

        Raises:
            InterruptProcessingException: the prompt was interrupted.
        """
        if total is not None:
            self.total = total
        self.current = min(value, self.total)
        if self.hook is not None:
            self.hook(self.current, self.total, preview, node_id=self.node_id)

    def update(self, value: float) -> None:
        """Go forward by a value; raises as :meth:`update_absolute`."""
        self.update_absolute(self.current + value)
