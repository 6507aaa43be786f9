"""Reading and writing files of tensors (in ``comfy.utils`` for node packages).

What a file's tensors mean is no business of this module: a package that keeps tables or embeddings of its own in such
files works without models.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_SAFETENSORS = (".safetensors", ".sft")


def load_torch_file(ckpt: str, safe_load: bool = False, device: Any = None, return_metadata: bool = False) -> Any:
    """The tensors of a file, by name.

    Args:
        ckpt: a path; by its ending a safetensors file, or else one of torch.save, of which only tensors and plain
            values are loaded, never code.
        safe_load: no difference here: loading is always safe.
        device: a torch.device; None: the CPU.
        return_metadata: return ``(tensors, metadata)``; the metadata is None where a file has none.

    Raises:
        OSError: the file cannot be read.
        RuntimeError: it is a safetensors file, and the safetensors library is not installed.
        ValueError: it is no safetensors file in spite of its ending, or not all of it is there.
        safetensors.SafetensorError: it is damaged otherwise.
        pickle.UnpicklingError: a file of torch.save has more than tensors and plain values in it.
    """
    import torch

    device = device if device is not None else torch.device("cpu")
    metadata = None
    if ckpt.lower().endswith(_SAFETENSORS):
        tensors, metadata = _load_safetensors(ckpt, device)
    else:
        tensors = _unwrap(torch.load(ckpt, map_location=device, weights_only=True))
    return (tensors, metadata) if return_metadata else tensors


def _load_safetensors(file: str, device: torch.device) -> tuple[dict[str, torch.Tensor], dict[str, str] | None]:
    """The tensors and the metadata of a safetensors file."""
    safetensors = _safetensors(file)
    try:
        with safetensors.safe_open(file, framework="pt", device=device.type) as content:
            return {name: content.get_tensor(name) for name in content.keys()}, content.metadata()  # noqa: SIM118
    except Exception as exc:
        message = str(exc.args[0]) if exc.args else ""
        if "HeaderTooLarge" in message:
            what = "The file is corrupt or invalid: make sure that it is a safetensors file and no ckpt or pt file."
        elif "MetadataIncompleteBuffer" in message:
            what = "The file is corrupt or incomplete: compare its size with the original's."
        else:
            raise
        raise ValueError(f"{message}\n\nFile path: {file}\n\n{what}") from exc


def _safetensors(file: str) -> Any:
    """The safetensors library.

    Raises:
        RuntimeError: it is not installed.
    """
    try:
        import safetensors.torch
    except ImportError as exc:
        raise RuntimeError(f"{file}: safetensors files need the safetensors library (pip install safetensors)") from exc
    return safetensors


def _unwrap(content: Any) -> Any:
    """The tensors, without what trainers wrap them in."""
    if "state_dict" in content:
        return content["state_dict"]
    if len(content) == 1:
        inner = next(iter(content.values()))
        return inner if isinstance(inner, dict) else content
    return content


def save_torch_file(sd: Mapping[str, Any], ckpt: str, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors, and texts about them, as a safetensors file.

    Raises:
        OSError: the file cannot be written.
        RuntimeError: the safetensors library is not installed.
    """
    safetensors = _safetensors(ckpt)
    safetensors.torch.save_file(dict(sd), ckpt, metadata=None if metadata is None else dict(metadata))


def safetensors_header(safetensors_path: str, max_size: int = 100 * 1024 * 1024) -> bytes | None:
    """The header of a safetensors file: JSON; None if it has more than ``max_size`` bytes.

    Raises:
        OSError: the file cannot be read.
        struct.error: it has fewer than 8 bytes.
    """
    with open(safetensors_path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return file.read(length) if length <= max_size else None
