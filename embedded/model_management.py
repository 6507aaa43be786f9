"""Devices, memory and interruption (``comfy.model_management`` for node packages).

There are no models here, so what remains of ComfyUI's module is: on which device nodes compute, how much
memory there is, and the flag by which a running prompt is stopped. torch is imported by the functions that
need it, not by this module.
"""

from __future__ import annotations

import threading
from enum import Enum
from typing import TYPE_CHECKING, Any

import psutil

from .arguments import args

if TYPE_CHECKING:
    import torch


class VRAMState(Enum):
    """How ComfyUI shares out GPU memory; without models only NO_VRAM (CPU) and NORMAL_VRAM occur."""

    DISABLED = 0
    NO_VRAM = 1
    LOW_VRAM = 2
    NORMAL_VRAM = 3
    HIGH_VRAM = 4
    SHARED = 5


class CPUState(Enum):
    """The kind of main device."""

    GPU = 0
    CPU = 1
    MPS = 2


class InterruptProcessingException(Exception):
    """The prompt was interrupted; it ends as interrupted, not as failed."""


# The devices' memory is managed by torch alone; packages read this switch.
DISABLE_SMART_MEMORY = False

_interrupted = False
_interrupted_lock = threading.RLock()


# -- interruption --------------------------------------------------------------------------------------------


def interrupt_current_processing(value: bool = True) -> None:
    """Ask the running prompt to stop at its next check, or (False) withdraw that. Any thread."""
    global _interrupted
    with _interrupted_lock:
        _interrupted = value


def processing_interrupted() -> bool:
    """Whether a stop was asked for and not yet obeyed."""
    with _interrupted_lock:
        return _interrupted


def throw_exception_if_processing_interrupted() -> None:
    """Obey a request to stop; nodes with long loops call this.

    Raises:
        InterruptProcessingException: a stop was asked for; the request is thereby used up.
    """
    global _interrupted
    with _interrupted_lock:
        if _interrupted:
            _interrupted = False
            raise InterruptProcessingException()


# -- devices -------------------------------------------------------------------------------------------------


def get_torch_device() -> torch.device:
    """The device nodes compute on: CUDA, else Apple's MPS, else the CPU; ``--cpu`` chooses the CPU."""
    import torch

    if not args.cpu:
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        if torch.backends.mps.is_available():
            return torch.device("mps")
    return torch.device("cpu")


def get_torch_device_name(device: torch.device) -> str:
    """A device's name as /system_stats gives it, such as ``"cuda:0 NVIDIA H200"`` or ``"cpu"``."""
    import torch

    if device.type == "cuda":
        return f"{device} {torch.cuda.get_device_name(device)}"
    return device.type


def intermediate_device() -> torch.device:
    """Where results wait between nodes: the CPU, with ``--gpu-only`` the main device."""
    import torch

    return get_torch_device() if args.gpu_only else torch.device("cpu")


def unet_offload_device() -> torch.device:
    """Where unused weights rest."""
    return intermediate_device()


def text_encoder_device() -> torch.device:
    """Where text encoders would run."""
    return intermediate_device()


def text_encoder_offload_device() -> torch.device:
    """Where unused text encoders rest."""
    return intermediate_device()


def vae_device() -> torch.device:
    """Where image encoders would run."""
    import torch

    return torch.device("cpu") if args.cpu_vae else get_torch_device()


def vae_offload_device() -> torch.device:
    """Where unused image encoders rest."""
    return intermediate_device()


def is_device_type(device: Any, type: str) -> bool:
    """Whether a device is of a type such as ``"cuda"``."""
    return getattr(device, "type", None) == type


def is_device_cpu(device: Any) -> bool:
    """Whether a device is the CPU."""
    return is_device_type(device, "cpu")


def is_device_mps(device: Any) -> bool:
    """Whether a device is Apple's GPU."""
    return is_device_type(device, "mps")


def is_device_cuda(device: Any) -> bool:
    """Whether a device is a CUDA GPU."""
    return is_device_type(device, "cuda")


def cpu_mode() -> bool:
    """Whether nodes compute on the CPU."""
    return is_device_cpu(get_torch_device())


def mps_mode() -> bool:
    """Whether nodes compute on Apple's GPU."""
    return is_device_mps(get_torch_device())


def is_nvidia() -> bool:
    """Whether nodes compute on an NVIDIA GPU."""
    import torch

    return is_device_cuda(get_torch_device()) and bool(torch.version.cuda)


def should_use_fp16(device: Any = None, *_: Any, **__: Any) -> bool:
    """Whether half precision pays off: on GPUs."""
    return not is_device_cpu(device if device is not None else get_torch_device())


def should_use_bf16(device: Any = None, *_: Any, **__: Any) -> bool:
    """Whether bfloat16 pays off: where CUDA says so."""
    import torch

    device = device if device is not None else get_torch_device()
    return is_device_cuda(device) and torch.cuda.is_bf16_supported()


def xformers_enabled() -> bool:
    """The xformers library is never used."""
    return False


# -- memory --------------------------------------------------------------------------------------------------


def get_total_memory(dev: Any = None, torch_total_too: bool = False) -> Any:
    """A device's memory in bytes; with ``torch_total_too`` also what torch has reserved of it."""
    import torch

    dev = dev if dev is not None else get_torch_device()
    if is_device_cuda(dev):
        total = torch.cuda.mem_get_info(dev)[1]
        torch_total = torch.cuda.memory_stats(dev).get("reserved_bytes.all.current", 0)
    else:
        total = torch_total = psutil.virtual_memory().total
    return (total, torch_total) if torch_total_too else total


def get_free_memory(dev: Any = None, torch_free_too: bool = False) -> Any:
    """A device's free bytes; with ``torch_free_too`` also what torch holds in reserve and does not use."""
    import torch

    dev = dev if dev is not None else get_torch_device()
    if is_device_cuda(dev):
        stats = torch.cuda.memory_stats(dev)
        torch_free = stats.get("reserved_bytes.all.current", 0) - stats.get("active_bytes.all.current", 0)
        free = torch.cuda.mem_get_info(dev)[0] + torch_free
    else:
        free = torch_free = psutil.virtual_memory().available
    return (free, torch_free) if torch_free_too else free


def soft_empty_cache(force: bool = False) -> None:
    """Give the GPU memory torch holds in reserve back to the system."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.ipc_collect()  # type: ignore[no-untyped-call]
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def unload_all_models() -> None:
    """There are no models to unload; memory held in reserve is given back."""
    soft_empty_cache()


def free_memory(memory_required: int, device: Any, keep_loaded: Any = ()) -> list[Any]:
    """There are no models to make room with. Returns the unloaded ones: none."""
    return []


def load_models_gpu(models: Any, *_: Any, **__: Any) -> None:
    """There are no models to load.

    Raises:
        RuntimeError: some were given.
    """
    if models:
        raise RuntimeError("the embedded server runs no models; use a ComfyUI installation for this workflow")


def cleanup_models_gc() -> None:
    """There are no models whose memory could leak."""


def __getattr__(name: str) -> Any:
    """torch's own names that packages find here, looked up when asked for so that torch loads late."""
    import torch

    if name == "torch":
        return torch
    if name == "OOM_EXCEPTION":
        return torch.cuda.OutOfMemoryError
    if name == "torch_version":
        return torch.version.__version__
    if name == "vram_state":
        return VRAMState.DISABLED if cpu_mode() else VRAMState.NORMAL_VRAM
    if name == "cpu_state":
        return CPUState.CPU if cpu_mode() else CPUState.MPS if mps_mode() else CPUState.GPU
    raise AttributeError(f"the embedded server's comfy.model_management has no {name!r}")
