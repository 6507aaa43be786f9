"""Small functions over tensors, dicts of tensors and attributes (in ``comfy.utils`` for node packages).

Results are those of ComfyUI 0.3.64; torch is imported by the functions that need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


# -- dicts of tensors ----------------------------------------------------------------------------------------


def calculate_parameters(sd: Mapping[str, Tensor], prefix: str = "") -> int:
    """How many numbers the tensors whose names start with ``prefix`` have together."""
    return sum(tensor.nelement() for name, tensor in sd.items() if name.startswith(prefix))


def weight_dtype(sd: Mapping[str, Tensor], prefix: str = "") -> torch.dtype | None:
    """The data type most numbers have, of the tensors whose names start with ``prefix``; None without any."""
    counts: dict[torch.dtype, int] = {}
    for name, tensor in sd.items():
        if name.startswith(prefix):
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.numel()
    return max(counts, key=counts.__getitem__, default=None)


def convert_sd_to(state_dict: MutableMapping[str, Tensor], dtype: torch.dtype) -> MutableMapping[str, Tensor]:
    """Convert all tensors, in the dict itself, which is returned."""
    for name, tensor in state_dict.items():
        state_dict[name] = tensor.to(dtype)
    return state_dict


def state_dict_key_replace(
    state_dict: MutableMapping[str, Any], keys_to_replace: Mapping[str, str]
) -> MutableMapping[str, Any]:
    """Rename keys (old -> new), in the dict itself, which is returned."""
    for old, new in keys_to_replace.items():
        if old in state_dict:
            state_dict[new] = state_dict.pop(old)
    return state_dict


def state_dict_prefix_replace(
    state_dict: MutableMapping[str, Any], replace_prefix: Mapping[str, str], filter_keys: bool = False
) -> MutableMapping[str, Any]:
    """Rename keys by their start (old -> new).

    Args:
        filter_keys: move the renamed ones into a new dict, which is returned; otherwise the dict itself.
    """
    target = {} if filter_keys else state_dict
    for old, new in replace_prefix.items():
        for key in [key for key in state_dict if key.startswith(old)]:
            target[new + key[len(old) :]] = state_dict.pop(key)
    return target


# -- attributes ----------------------------------------------------------------------------------------------


def get_attr(obj: Any, attr: str) -> Any:
    """A nested attribute, named with dots."""
    return reduce(getattr, attr.split("."), obj)


def set_attr(obj: Any, attr: str, value: Any) -> Any:
    """Set a nested attribute, named with dots; returns what it was.

    Raises:
        AttributeError: there is none of that name.
    """
    *path, name = attr.split(".")
    holder = reduce(getattr, path, obj)
    before = getattr(holder, name)
    setattr(holder, name, value)
    return before


def set_attr_param(obj: Any, attr: str, value: Tensor) -> Any:
    """As :func:`set_attr`, with a tensor that becomes a module's parameter, without gradients."""
    import torch

    return set_attr(obj, attr, torch.nn.Parameter(value, requires_grad=False))


def copy_to_param(obj: Any, attr: str, value: Tensor) -> None:
    """Copy a tensor into a nested parameter, which stays the same object."""
    get_attr(obj, attr).data.copy_(value)


# -- batches and masks ---------------------------------------------------------------------------------------


def _picker(length: int, wanted: int) -> Callable[[int], int]:
    """Which of ``length`` items comes at a place of ``wanted`` ones, spread evenly."""
    if wanted < length:
        shrink = (length - 1) / (wanted - 1)
        return lambda place: min(round(place * shrink), length - 1)
    return lambda place: min(int((place + 0.5) * (length / wanted)), length - 1)


def resize_to_batch_size(tensor: Tensor, batch_size: int) -> Tensor:
    """A batch [B, ...] with its items repeated or left out, evenly, so that there are ``batch_size``."""
    if tensor.shape[0] == batch_size:
        return tensor
    if batch_size <= 1:
        return tensor[:batch_size]
    pick = _picker(tensor.shape[0], batch_size)
    return tensor[[pick(place) for place in range(batch_size)]]


def resize_list_to_batch_size(l: Sequence[Any], batch_size: int) -> Sequence[Any]:  # noqa: E741 - ComfyUI's name
    """As :func:`resize_to_batch_size`, for a list; an empty one stays empty."""
    if len(l) in (batch_size, 0):
        return l
    if batch_size <= 1:
        return l[:batch_size]
    pick = _picker(len(l), batch_size)
    return [l[pick(place)] for place in range(batch_size)]


def reshape_mask(input_mask: Tensor, output_shape: Sequence[int]) -> Tensor:
    """A mask scaled, and repeated over channels and batch, to the shape of a latent.

    Args:
        input_mask: [..., H, W] (for a shape of three dimensions: as interpolate takes it, [B, C, L]).
        output_shape: [B, C, L], [B, C, H, W] or [B, C, T, H, W].
    """
    import torch

    from .core_nodes.align import repeat_to_batch_size

    dims = len(output_shape) - 2
    if dims == 2:
        input_mask = input_mask.reshape((-1, 1, *input_mask.shape[-2:]))
    elif dims == 3 and input_mask.ndim < 5:
        input_mask = input_mask.reshape((1, 1, -1, *input_mask.shape[-2:]))
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[dims]
    mask = torch.nn.functional.interpolate(input_mask, size=tuple(output_shape[2:]), mode=mode)
    channels = output_shape[1]
    if mask.shape[1] < channels:
        mask = mask.repeat((1, channels, *[1] * dims))[:, :channels]
    return repeat_to_batch_size(mask, output_shape[0])
