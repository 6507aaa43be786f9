"""Devices, memory and interruption (``comfy.model_management`` for node packages).

There are no models here, so what remains of ComfyUI's module is: on which device nodes compute, how much
memory there is, and the flag by which a running prompt is stopped. torch is imported by the functions that
need it, not by this module.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

import psutil

from .arguments import args
from .recorded_names import NotInEmbeddedServer

if TYPE_CHECKING:
    import torch


class VRAMState(Enum):
    """How ComfyUI shares out GPU memory; here it says what the flags say, and nothing depends on it."""

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


# The models in memory: none, ever.
current_loaded_models: list[Any] = []
# What ComfyUI found of further kinds of devices and of attention libraries; none of them is used here.
directml_enabled = xpu_available = npu_available = mlu_available = ixuca_available = False
XFORMERS_IS_AVAILABLE = XFORMERS_ENABLED_VAE = False
XFORMERS_VERSION = ""
PRIORITIZE_FP16 = SUPPORT_FP8_OPS = False
lowvram_available = True
WINDOWS = os.name == "nt"
# AMD's architectures up to RDNA2, which have no bfloat16.
_AMD_WITHOUT_BF16 = ("gfx803", "gfx900", "gfx906", "gfx1010", "gfx1011", "gfx1012", "gfx1030", "gfx1031")
# Bytes that ComfyUI leaves free on a GPU for others.
EXTRA_RESERVED_VRAM = (600 if WINDOWS else 400) * 1024 * 1024

_interrupted = False
interrupt_processing_mutex = _interrupted_lock = threading.RLock()


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


def intermediate_dtype() -> torch.dtype:
    """The data type of images and latents between nodes: float32, as ComfyUI 0.29.0 without --fp16-intermediates."""
    import torch

    return torch.float32


def unet_offload_device() -> torch.device:
    """Where unused weights rest: the CPU, with ``--highvram`` or ``--gpu-only`` the main device."""
    import torch

    return get_torch_device() if _vram_state() is VRAMState.HIGH_VRAM else torch.device("cpu")


def text_encoder_device() -> torch.device:
    """Where text encoders would run: the main device if it has memory and half precision, else the CPU."""
    import torch

    roomy = _vram_state() in (VRAMState.HIGH_VRAM, VRAMState.NORMAL_VRAM) and should_use_fp16()
    return get_torch_device() if args.gpu_only or roomy else torch.device("cpu")


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
    """Whether half precision pays off: on GPUs, unless ``--force-fp32``; on the main device with ``--force-fp16``.

    ComfyUI also asks how old an NVIDIA GPU is and how large the model; this is its answer for those since 2020.
    """
    if device is None and args.force_fp16:
        return True
    return not args.force_fp32 and not is_device_cpu(device if device is not None else get_torch_device())


def should_use_bf16(device: Any = None, *_: Any, **__: Any) -> bool:
    """Whether bfloat16 pays off: on NVIDIA since 2020, newer AMD and macOS 14, unless ``--force-fp32``."""
    import torch

    device = device if device is not None else get_torch_device()
    if args.force_fp32 or not (is_device_cuda(device) or is_device_mps(device)):
        return False
    if is_device_mps(device):
        return (mac_version() or (0,)) >= (14,)
    if is_amd():
        architecture = torch.cuda.get_device_properties(device).gcnArchName
        return not any(name in architecture for name in _AMD_WITHOUT_BF16)
    return torch.cuda.get_device_capability(device)[0] >= 8


def is_device_xpu(device: Any) -> bool:
    """Whether a device is an Intel GPU."""
    return is_device_type(device, "xpu")


def is_intel_xpu() -> bool:
    """Whether nodes compute on an Intel GPU: never here."""
    return xpu_available


def is_ascend_npu() -> bool:
    """Whether nodes compute on a Huawei NPU: never here."""
    return npu_available


def is_mlu() -> bool:
    """Whether nodes compute on a Cambricon MLU: never here."""
    return mlu_available


def is_ixuca() -> bool:
    """Whether nodes compute on an Iluvatar GPU: never here."""
    return ixuca_available


def is_directml_enabled() -> bool:
    """Whether DirectML is used: never here."""
    return directml_enabled


def is_amd() -> bool:
    """Whether nodes compute on an AMD GPU."""
    import torch

    return is_device_cuda(get_torch_device()) and bool(torch.version.hip)


def mac_version() -> tuple[int, ...] | None:
    """The version of macOS, such as ``(14, 5)``; None elsewhere."""
    version = platform.mac_ver()[0]
    return tuple(int(part) for part in version.split(".")) if version else None


def get_autocast_device(dev: Any) -> str:
    """The device type torch.autocast is told."""
    return str(getattr(dev, "type", "cuda"))


def device_supports_non_blocking(device: Any) -> bool:
    """Whether copies to a device may overlap with other work."""
    if args.force_non_blocking:
        return True
    return not (is_device_mps(device) or args.deterministic)


def device_should_use_non_blocking(device: Any) -> bool:
    """Whether they should: ComfyUI says no for all devices."""
    return False


def force_channels_last() -> bool:
    """Whether convolutions are laid out channels last (``--force-channels-last``)."""
    return bool(args.force_channels_last)


def xformers_enabled() -> bool:
    """The xformers library is never used."""
    return False


def xformers_enabled_vae() -> bool:
    """The xformers library is never used."""
    return False


def sage_attention_enabled() -> bool:
    """Whether ``--use-sage-attention`` was given."""
    return bool(args.use_sage_attention)


def flash_attention_enabled() -> bool:
    """Whether ``--use-flash-attention`` was given."""
    return bool(args.use_flash_attention)


def pytorch_attention_enabled() -> bool:
    """Whether ComfyUI would use torch's own attention: asked for, or by default on NVIDIA."""
    if args.use_pytorch_cross_attention:
        return True
    return is_nvidia() and not args.use_split_cross_attention and not args.use_quad_cross_attention


def pytorch_attention_enabled_vae() -> bool:
    """As :func:`pytorch_attention_enabled`, but not on AMD."""
    return pytorch_attention_enabled() and not is_amd()


def pytorch_attention_flash_attention() -> bool:
    """Whether torch's own attention is used and fast on this device."""
    return pytorch_attention_enabled() and (is_nvidia() or is_amd())


def get_offload_stream(device: Any) -> None:
    """The CUDA stream weights are copied on: none, for there are no weights."""


def sync_stream(device: Any, stream: Any) -> None:
    """Wait for a stream of :func:`get_offload_stream`."""
    if stream is not None and is_device_cuda(device):
        import torch

        torch.cuda.current_stream().wait_stream(stream)


# -- data types ----------------------------------------------------------------------------------------------


def get_supported_float8_types() -> list[torch.dtype]:
    """The 8 bit float types this torch has."""
    import torch

    names = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")
    return [getattr(torch, name) for name in names if hasattr(torch, name)]


def dtype_size(dtype: torch.dtype) -> int:
    """Bytes per element."""
    return dtype.itemsize


def module_size(module: torch.nn.Module) -> int:
    """Bytes of a module's weights."""
    return sum(tensor.nelement() * tensor.element_size() for tensor in module.state_dict().values())


def supports_dtype(device: Any, dtype: torch.dtype) -> bool:
    """Whether models would compute with a data type on a device."""
    import torch

    return dtype == torch.float32 or (dtype in (torch.float16, torch.bfloat16) and not is_device_cpu(device))


def supports_cast(device: Any, dtype: torch.dtype) -> bool:
    """Whether tensors of a data type can be moved to a device."""
    import torch

    everywhere = (torch.float32, torch.float16, torch.bfloat16)
    return dtype in everywhere or (
        not is_device_mps(device) and str(dtype) in ("torch.float8_e4m3fn", "torch.float8_e5m2")
    )


def pick_weight_dtype(dtype: torch.dtype | None, fallback_dtype: torch.dtype, device: Any = None) -> torch.dtype:
    """The data type, or the fallback where it is None, larger, or not for this device."""
    if dtype is None or dtype_size(dtype) > dtype_size(fallback_dtype) or not supports_cast(device, dtype):
        return fallback_dtype
    return dtype


def vae_dtype(device: Any = None, allowed_dtypes: Any = ()) -> torch.dtype:
    """The data type image encoders would compute with: the flags', else the first allowed one that pays off."""
    import torch

    flags = ((args.fp16_vae, torch.float16), (args.bf16_vae, torch.bfloat16), (args.fp32_vae, torch.float32))
    for given, dtype in flags:
        if given:
            return dtype
    for dtype in allowed_dtypes:
        pays_off = {torch.float16: should_use_fp16, torch.bfloat16: should_use_bf16}.get(dtype)
        if pays_off is not None and pays_off(device):
            return dtype  # type: ignore[no-any-return]
    return torch.float32


def text_encoder_dtype(device: Any = None) -> torch.dtype:
    """The data type text encoders would be kept in: the flags', else float16."""
    import torch

    for name, dtype_name in (
        ("fp8_e4m3fn_text_enc", "float8_e4m3fn"),
        ("fp8_e5m2_text_enc", "float8_e5m2"),
        ("fp16_text_enc", "float16"),
        ("bf16_text_enc", "bfloat16"),
        ("fp32_text_enc", "float32"),
    ):
        if getattr(args, name):
            return getattr(torch, dtype_name)  # type: ignore[no-any-return]
    return torch.float16


def cast_to(
    weight: torch.Tensor,
    dtype: torch.dtype | None = None,
    device: Any = None,
    non_blocking: bool = False,
    copy: bool = False,
    stream: Any = None,
) -> torch.Tensor:
    """A tensor in another data type and on another device; itself if nothing changes and ``copy`` is false.

    Args:
        weight: of any shape.
        dtype, device: None: as it is.
        non_blocking: let the copy overlap with other work.
        stream: the CUDA stream to copy on.
    """
    import contextlib

    with stream if stream is not None else contextlib.nullcontext():
        return weight.to(device=device, dtype=dtype, non_blocking=non_blocking, copy=copy)


def cast_to_device(tensor: torch.Tensor, device: Any, dtype: torch.dtype, copy: bool = False) -> torch.Tensor:
    """As :func:`cast_to`, overlapping with other work where the device can."""
    return cast_to(tensor, dtype, device, device_supports_non_blocking(device), copy)


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
        NotInEmbeddedServer: some were given.
    """
    if models:
        raise NotInEmbeddedServer("comfy.model_management.load_models_gpu")


def load_model_gpu(model: Any) -> None:
    """As :func:`load_models_gpu`."""
    load_models_gpu([model])


def loaded_models(only_currently_used: bool = False) -> list[Any]:
    """The models in memory: none."""
    return []


def cleanup_models() -> None:
    """There are no models to forget."""


def extra_reserved_memory() -> int:
    """Bytes to be left free on a GPU (``--reserve-vram``, in GiB)."""
    return EXTRA_RESERVED_VRAM if args.reserve_vram is None else int(args.reserve_vram * 1024**3)


def minimum_inference_memory() -> float:
    """Bytes ComfyUI keeps free for the computation itself."""
    return 1024**3 * 0.8 + extra_reserved_memory()


def maximum_vram_for_weights(device: Any = None) -> float:
    """Bytes of a device that weights may take."""
    return float(get_total_memory(device) * 0.88 - minimum_inference_memory())


def cleanup_models_gc() -> None:
    """There are no models whose memory could leak."""


def _asked_vram_state() -> VRAMState:
    """What the flags say of GPU memory."""
    asked = {
        VRAMState.LOW_VRAM: args.lowvram,
        VRAMState.NO_VRAM: args.novram,
        VRAMState.HIGH_VRAM: args.highvram or args.gpu_only,
    }
    return next((state for state, given in asked.items() if given), VRAMState.NORMAL_VRAM)


def _vram_state() -> VRAMState:
    """What the flags say, where there is GPU memory to share out."""
    return VRAMState.SHARED if mps_mode() else VRAMState.DISABLED if cpu_mode() else _asked_vram_state()


def __getattr__(name: str) -> Any:
    """Names whose values are known only when they are asked for: most are torch's, which is to load late."""
    if name == "interrupt_processing":
        return _interrupted
    find = _LATE_VALUES.get(name)
    # ``from .model_management import ...`` asks for __path__: an answer that imported torch would hold up the start.
    if find is None:
        raise AttributeError(f"the embedded server's comfy.model_management has no {name!r}")
    import torch

    return find(torch)


# Name -> how to get its value from torch.
_LATE_VALUES: dict[str, Callable[[Any], Any]] = {
    "torch": lambda torch: torch,
    "OOM_EXCEPTION": lambda torch: torch.cuda.OutOfMemoryError,
    "torch_version": lambda torch: torch.version.__version__,
    "torch_version_numeric": lambda torch: tuple(int(part) for part in torch.version.__version__.split(".")[:2]),
    "FLOAT8_TYPES": lambda _: get_supported_float8_types(),
    "ENABLE_PYTORCH_ATTENTION": lambda _: pytorch_attention_enabled(),
    "total_vram": lambda _: get_total_memory() / 1024**2,
    "total_ram": lambda _: psutil.virtual_memory().total / 1024**2,
    "FORCE_FP32": lambda _: bool(args.force_fp32),
    "DISABLE_SMART_MEMORY": lambda _: bool(args.disable_smart_memory),
    # --highvram does not get here in ComfyUI either.
    "set_vram_to": lambda _: _asked_vram_state() if args.lowvram or args.novram else VRAMState.NORMAL_VRAM,
    "vram_state": lambda _: _vram_state(),
    "cpu_state": lambda _: CPUState.CPU if cpu_mode() else CPUState.MPS if mps_mode() else CPUState.GPU,
}
