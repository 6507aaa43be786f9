"""A node that asks ComfyUI's modules something and shows the answer as JSON.

Its top imports model code as packages of many nodes do. Each function named ``ask_...`` is one question.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

import comfy.controlnet
import comfy.k_diffusion.sampling
import comfy.ldm.modules.attention as attention
import comfy.lora
import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.utils
import comfy_extras.nodes_mask
import comfy_extras.nodes_post_processing
import execution
import folder_paths
import latent_preview
import node_helpers
import server
import torch
from comfy.cli_args import LatentPreviewMethod, args
from comfy.comfy_types import IO
from comfy.comfy_types.node_typing import ComfyNodeABC, InputTypeDict
from comfy.ldm.modules.attention import optimized_attention
from comfy_execution.graph import ExecutionBlocker
from comfy_execution.graph_utils import GraphBuilder, is_link

import nodes

PATCHED: list[str] = []


class Patcher(comfy.model_patcher.ModelPatcher):
    """Model code can be derived from."""


class Linear(comfy.ops.disable_weight_init.Linear):
    """So can classes inside of classes."""


class Wide(nodes.SaveImage):
    """And core nodes."""


class Loader(nodes.LoraLoader):
    """And nodes of models."""

    def __init__(self) -> None:
        super().__init__()
        self.made = True


def _raised(call: Any) -> str:
    """What a call raises."""
    try:
        call()
    except Exception as exc:
        return type(exc).__name__
    return "nothing"


def _import(name: str) -> str:
    """What an import statement raises, in a file of its own: ``from a.b import c`` for "a.b.c"."""
    module, _, short_name = name.rpartition(".")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "statement.py")
        file.write_text(f"from {module} import {short_name}" if module else f"import {name}", encoding="utf-8")
        return _raised(lambda: runpy.run_path(str(file)))


# -- names that exist, and names that do not -----------------------------------------------------------------


def ask_kinds() -> Any:
    return [
        callable(optimized_attention),
        isinstance(comfy.sd.VAE, type),
        issubclass(comfy.model_base.SDXL, comfy.model_base.BaseModel),
        issubclass(Patcher, comfy.model_patcher.ModelPatcher),
        isinstance(torch.zeros(1), comfy.model_patcher.ModelPatcher),
        attention is comfy.ldm.modules.attention,
        Linear.__mro__[1] is comfy.ops.disable_weight_init.Linear,
        comfy.model_base.ModelType.EPS.name,
        comfy.patcher_extension.WrappersMP.OUTER_SAMPLE,
    ]


def ask_absent() -> Any:
    names = ["comfy.sd.NoSuchName", "comfy.no_such_module.Name", "comfy_extras.nodes_none.Name", "nodes.NamesProbe"]
    return [_import(name) for name in names]


def ask_absent_attributes() -> Any:
    modules = (comfy.sd, comfy.utils, nodes, folder_paths, execution, mm, comfy.samplers)
    return [hasattr(module, "no_such_name") for module in modules]


def ask_other_imports() -> Any:
    names = [
        "comfy.clip_vision.Output", "comfy.latent_formats.SDXL", "comfy.lora.load_lora",
        "comfy.controlnet.ControlNet", "comfy.sd1_clip.token_weights", "comfy.supported_models.SD15",
        "comfy.conds.CONDRegular", "comfy.hooks.HookGroup", "comfy.taesd.taesd.TAESD", "comfy.model_sampling.EPS",
        "comfy.k_diffusion.utils.FolderOfImages", "comfy_extras.nodes_upscale_model.ImageUpscaleWithModel",
        "comfy_extras.nodes_custom_sampler.SamplerCustom", "comfy_extras.nodes_post_processing.Blend",
        "comfy_extras.nodes_latent.LatentBatch", "server.web", "server.uuid", "execution.validate_prompt",
        "execution.PromptExecutor", "execution.full_type_name", "protocol.BinaryEventTypes",
        "nodes.common_ksampler", "nodes.MAX_RESOLUTION", "utils.json_util", "utils.install_util",
        "utils.extra_config", "app.user_manager.UserManager", "cuda_malloc.cuda_malloc_supported",
        "comfy.options.enable_args_parsing", "comfy.sampler_helpers.prepare_mask",
        "comfy.comfy_types.CheckLazyMixin", "comfyui_version.__version__",
        "comfy_execution.utils.get_executing_context", "comfy_execution.progress.get_progress_state",
        "custom_nodes",
    ]  # fmt: skip
    return {name: _import(name) for name in names if _import(name) != "nothing"}


def ask_top_level() -> Any:
    """Modules that packages find without importing them themselves."""
    names = ["app", "comfy", "comfy_extras", "cuda_malloc", "execution", "folder_paths", "latent_preview", "nodes"]
    return [name for name in [*names, "node_helpers", "server", "utils", "protocol"] if name not in sys.modules]


def ask_patching() -> Any:
    """Names of model code can be replaced, and are then what was put there."""
    before = comfy.samplers.sampling_function
    comfy.samplers.sampling_function = "mine"
    try:
        from comfy.samplers import sampling_function

        return [sampling_function, callable(before)]
    finally:
        comfy.samplers.sampling_function = before


# -- values --------------------------------------------------------------------------------------------------


def ask_samplers() -> Any:
    sampler = comfy.samplers.KSampler
    return [
        sampler.SAMPLERS[:4],
        sampler.SAMPLERS[-3:],
        sampler.SCHEDULERS,
        sampler.SAMPLERS == comfy.samplers.SAMPLER_NAMES,
        list(comfy.samplers.SCHEDULER_HANDLERS) == sampler.SCHEDULERS,
        sorted(sampler.DISCARD_PENULTIMATE_SIGMA_SAMPLERS),
    ]


def ask_core_nodes() -> Any:
    return [
        nodes.MAX_RESOLUTION,
        nodes.ImageScale.upscale_methods,
        nodes.ImageScale.crop_methods,
        nodes.SaveImage().type,
        nodes.PreviewImage().type,
        Wide.OUTPUT_NODE,
        Wide().output_dir == folder_paths.get_output_directory(),
        nodes.NODE_CLASS_MAPPINGS["ImageScale"] is nodes.ImageScale,
    ]


def ask_model_nodes() -> Any:
    """Node classes of models declare themselves, with the files there are."""
    return [
        Loader().made,
        Loader.RETURN_TYPES,
        Loader.FUNCTION,
        list(Loader.INPUT_TYPES()["required"]),
        Loader.INPUT_TYPES()["required"]["lora_name"][0],
        nodes.KSampler.INPUT_TYPES()["required"]["sampler_name"][0] == comfy.samplers.KSampler.SAMPLERS,
        nodes.KSampler.INPUT_TYPES()["required"]["cfg"][1]["max"],
        nodes.CheckpointLoaderSimple.RETURN_TYPES,
    ]


def ask_arguments() -> Any:
    return [
        args.preview_method is LatentPreviewMethod.NoPreviews,
        args.preview_size,
        args.disable_metadata,
        sorted(args.fast),
        args.cpu,
        args.listen,
        latent_preview.get_previewer(torch.device("cpu"), None),
        latent_preview.MAX_PREVIEW_RESOLUTION,
    ]


def ask_devices() -> Any:
    return [
        str(mm.get_torch_device()),
        str(mm.intermediate_device()),
        str(mm.unet_offload_device()),
        str(mm.vae_device()),
        str(mm.text_encoder_device()),
        mm.is_device_cpu(mm.get_torch_device()),
        mm.is_nvidia(),
        mm.is_intel_xpu(),
        mm.should_use_fp16(mm.get_torch_device()),
        mm.cpu_state.name,
        mm.vram_state.name,
        mm.loaded_models(),
        mm.dtype_size(torch.float16),
        mm.xformers_enabled(),
        mm.pytorch_attention_enabled(),
        mm.device_supports_non_blocking(torch.device("cpu")),
        str(mm.vae_dtype(torch.device("cpu"), [torch.float16])),
        str(mm.pick_weight_dtype(torch.float64, torch.float32)),
        mm.get_free_memory() > 0,
        mm.get_total_memory() >= mm.get_free_memory(),
        mm.total_ram > 0,
        mm.get_autocast_device(torch.device("cpu")),
    ]


def ask_types() -> Any:
    return [
        IO.ANY,
        IO.IMAGE,
        str(IO.NUMBER),
        isinstance(IO.INT, str),
        issubclass(ComfyNodeABC, object),
        bool(InputTypeDict),
    ]


def ask_graph() -> Any:
    graph = GraphBuilder(prefix="p.")
    first = graph.node("A", x=1)
    graph.node("B", y=first.out(0))
    return [graph.finalize(), is_link(["1", 0]), is_link(["1"]), ExecutionBlocker("why").message]


# -- results without models ----------------------------------------------------------------------------------


def _ramp(*shape: int) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape) / 100


def _digits(tensor: torch.Tensor) -> Any:
    return [[round(value, 4) for value in tensor.flatten().tolist()][:12], list(tensor.shape), str(tensor.dtype)]


def ask_noise() -> Any:
    latent = torch.zeros(2, 1, 1, 2)
    return [
        _digits(comfy.sample.prepare_noise(latent, 7)),
        _digits(comfy.sample.prepare_noise(latent, 7, [1, 1])),
        _digits(comfy.sample.prepare_noise(latent, 7, [3, 1])),
    ]


def ask_sigmas() -> Any:
    sampling = comfy.k_diffusion.sampling

    class Levels:
        sigma_min, sigma_max = 0.1, 10.0

    return [
        _digits(sampling.get_sigmas_karras(4, 0.1, 10.0)),
        _digits(sampling.get_sigmas_exponential(4, 0.1, 10.0)),
        _digits(sampling.get_sigmas_polyexponential(4, 0.1, 10.0, 2.0)),
        _digits(sampling.get_sigmas_vp(4)),
        *[
            _digits(comfy.samplers.calculate_sigmas(Levels(), name, 3))
            for name in ("karras", "exponential", "kl_optimal")
        ],
        _raised(lambda: comfy.samplers.calculate_sigmas(Levels(), "no such", 3)),
    ]


def ask_batches() -> Any:
    return [
        _digits(comfy.utils.repeat_to_batch_size(_ramp(2, 2), 5)),
        _digits(comfy.utils.resize_to_batch_size(_ramp(3, 1), 5)),
        _digits(comfy.utils.resize_to_batch_size(_ramp(5, 1), 3)),
        _digits(comfy.utils.resize_to_batch_size(_ramp(5, 1), 1)),
        comfy.utils.resize_list_to_batch_size([1, 2, 3, 4, 5, 6], 4),
        comfy.utils.resize_list_to_batch_size([1, 2], 5),
    ]


def ask_masks() -> Any:
    mask = _ramp(1, 2, 2)
    return [
        _digits(comfy.utils.reshape_mask(mask, (2, 3, 4, 4))),
        _digits(comfy.utils.reshape_mask(_ramp(2, 2, 2), (1, 1, 2, 3))),
        _digits(comfy.utils.reshape_mask(mask, (1, 1, 3, 2, 2))),
        _digits(comfy_extras.nodes_mask.composite(_ramp(1, 1, 4, 4), _ramp(1, 1, 2, 2) + 5, 8, 16)),
        _digits(comfy_extras.nodes_mask.composite(_ramp(1, 1, 4, 4), _ramp(1, 1, 2, 2) + 5, 3, 1, mask, 1)),
        _digits(comfy_extras.nodes_mask.composite(_ramp(1, 1, 2, 2), _ramp(1, 1, 4, 4), 0, 0, None, 8, True)),
    ]


def ask_tiles() -> Any:
    def double(tile: torch.Tensor) -> torch.Tensor:
        sizes.append(list(tile.shape))
        return tile.repeat_interleave(2, -1).repeat_interleave(2, -2) + tile.mean()

    sizes: list[Any] = []
    bar = comfy.utils.ProgressBar(comfy.utils.get_tiled_scale_steps(9, 7, 4, 4, 1))
    scaled = comfy.utils.tiled_scale(_ramp(1, 1, 7, 9), double, 4, 4, 1, 2, 1, pbar=bar)
    halved = comfy.utils.tiled_scale_multidim(
        _ramp(1, 1, 8), lambda tile: tile[..., ::2], (4,), 2, 2, out_channels=1, downscale=True
    )
    whole = comfy.utils.tiled_scale(_ramp(2, 1, 2, 2), double, upscale_amount=2, out_channels=1)
    return [_digits(scaled), bar.current, bar.total, sizes[:3], _digits(halved), _digits(whole)]


def ask_tensor_dicts() -> Any:
    def weights() -> dict[str, torch.Tensor]:
        return {"a.x": torch.zeros(2), "a.y": torch.zeros(3, dtype=torch.float16), "b": torch.zeros(4)}

    utils = comfy.utils
    module = torch.nn.Linear(1, 1)
    before = utils.set_attr(module, "in_features", 5)
    utils.set_attr_param(module, "weight", torch.ones(1, 1))
    utils.copy_to_param(module, "bias", torch.ones(1) * 2)
    left = weights()
    return [
        utils.calculate_parameters(weights()),
        utils.calculate_parameters(weights(), "a."),
        str(utils.weight_dtype(weights(), "a.")),
        str(utils.weight_dtype({})),
        list(utils.state_dict_prefix_replace(weights(), {"a.": "c."})),
        list(utils.state_dict_prefix_replace(left, {"a.": ""}, filter_keys=True)),
        list(left),
        list(utils.state_dict_key_replace(weights(), {"b": "z", "q": "r"})),
        [before, utils.get_attr(module, "in_features"), module.weight.item(), module.bias.item()],
        module.weight.requires_grad,
    ]


def ask_files() -> Any:
    folder = folder_paths.get_temp_directory()
    os.makedirs(folder, exist_ok=True)
    tensors, wrapped, broken = (os.path.join(folder, name) for name in ("t.safetensors", "t.pt", "broken.safetensors"))
    comfy.utils.save_torch_file({"a": _ramp(2)}, tensors, metadata={"made": "here"})
    torch.save({"state_dict": {"a": _ramp(3)}}, wrapped)
    with open(broken, "wb") as file:
        file.write(b"\xff" * 16)
    loaded, metadata = comfy.utils.load_torch_file(tensors, return_metadata=True)
    return [
        _digits(loaded["a"]),
        metadata,
        _digits(comfy.utils.load_torch_file(wrapped)["a"]),
        sorted(json.loads(comfy.utils.safetensors_header(tensors))),
        comfy.utils.safetensors_header(tensors, max_size=3),
        _raised(lambda: comfy.utils.load_torch_file(broken)),
        _raised(lambda: comfy.utils.load_torch_file(os.path.join(folder, "absent.safetensors"))),
    ]


def ask_prompt_weights() -> Any:
    from comfy.sd1_clip import escape_important, parse_parentheses, token_weights, unescape_important

    texts = ["a (red:1.5) cat", "((a) b:2) (c", "a) (b) c", "(no: number)", "(a\\) b", "", "(:3)", "(a (b:0.5) c)"]
    return [
        [token_weights(escape_important(text), 1.0) for text in texts],
        [parse_parentheses(text) for text in texts],
        [unescape_important(escape_important(text)) for text in texts],
    ]


def ask_save_paths() -> Any:
    folder = folder_paths.get_temp_directory()
    answers: list[Any] = []
    for prefix, output in (("a/b%width%", folder), ("a", folder + "/"), ("../a", folder), ("a", "relative")):
        try:
            saved = folder_paths.get_save_image_path(prefix, output, 3, 4)
            answers.append([os.path.relpath(saved[0], folder), *saved[1:]])
        except Exception as exc:
            answers.append(
                [type(exc).__name__, str(exc).replace(folder, "TEMP").replace(os.path.dirname(folder), "BASE")]
            )
    return answers


def ask_casts() -> Any:
    values = _ramp(2)
    return [
        _digits(mm.cast_to(values, torch.float16)),
        mm.cast_to(values) is values,
        mm.cast_to(values, copy=True) is values,
        _digits(mm.cast_to_device(values, torch.device("cpu"), torch.float64)),
    ]


def ask_conditioning() -> Any:
    changed = node_helpers.conditioning_set_values([[1, {"a": [1]}]], {"a": [2], "b": 3})
    added = node_helpers.conditioning_set_values([[1, {"a": [1]}]], {"a": [2]}, append=True)
    return [changed, added, str(node_helpers.string_to_torch_dtype("bf16")), node_helpers.string_to_torch_dtype("x")]


def ask_latent_colours() -> Any:
    previewer = latent_preview.Latent2RGBPreviewer([[0.5, 0, 0], [0, 1, 0]], [0.0, 0.0, 0.25])
    kind, picture, size = previewer.decode_latent_to_preview_image("PNG", _ramp(1, 2, 2, 3) * 10)
    return [kind, list(picture.size), size, [list(picture.getpixel((x, 0))) for x in range(3)]]


def ask_nodes_called() -> Any:
    """Core nodes are called by packages, with their own methods."""
    image = _ramp(1, 2, 2, 3)
    (scaled,) = nodes.ImageScale().upscale(image, "nearest-exact", 4, 4, "disabled")
    (inverted,) = nodes.ImageInvert().invert(image)
    (latent,) = nodes.EmptyLatentImage().generate(16, 8, 2)
    blended = comfy_extras.nodes_post_processing.Blend.execute(image, image * 2, 0.5, "normal")[0]
    saved = nodes.PreviewImage().save_images(image)["ui"]["images"][0]
    return [_digits(scaled), _digits(inverted), _digits(latent["samples"]), _digits(blended), saved["type"]]


def ask_conditioning_nodes() -> Any:
    def call(name: str, *values: Any) -> Any:
        node_class = getattr(nodes, name)
        (result,) = getattr(node_class(), node_class.FUNCTION)(*values)
        return [[_digits(tensor), {key: _shown(value) for key, value in options.items()}] for tensor, options in result]

    def _shown(value: Any) -> Any:
        return _digits(value) if isinstance(value, torch.Tensor) else value

    first = [[_ramp(1, 3, 2), {"pooled_output": _ramp(1, 2)}], [_ramp(1, 1, 2), {"a": 1}]]
    second = [[_ramp(1, 2, 2) + 1, {"pooled_output": _ramp(1, 2) + 1}]]
    return [
        call("ConditioningCombine", first, second),
        call("ConditioningAverage", first, second, 0.25),
        call("ConditioningAverage", first, [[_ramp(1, 4, 2), {}]], 0.25),
        call("ConditioningConcat", first, second),
        call("ConditioningSetArea", second, 64, 128, 8, 20, 0.5),
        call("ConditioningSetAreaPercentage", second, 0.5, 0.25, 0, 1, 2),
        call("ConditioningSetAreaStrength", second, 0.5),
        call("ConditioningSetMask", second, _ramp(2, 2), "mask bounds", 0.5),
        call("ConditioningSetMask", second, _ramp(1, 2, 2), "default", 0.5),
        call("ConditioningZeroOut", first),
        call("ConditioningSetTimestepRange", second, 0.1, 0.9),
    ]


# -- models --------------------------------------------------------------------------------------------------


def ask_models() -> Any:
    """Model code called as nobody calls it: ComfyUI has it and wants its arguments."""
    calls = (comfy.sd.load_lora_for_models, comfy.samplers.CFGGuider, nodes.LoraLoader().load_lora)
    return [_raised(call) for call in calls]


# -- the server ----------------------------------------------------------------------------------------------


def ask_server() -> Any:
    instance = server.PromptServer.instance
    return [
        type(instance).__name__,
        isinstance(instance.client_id, str),
        instance.last_node_id,
        isinstance(instance.number, int),
        instance.prompt_queue.get_tasks_remaining(),
        server.BinaryEventTypes.PREVIEW_IMAGE,
        instance.app is not None and instance.loop.is_running(),
        "custom_nodes_from_web" in instance.supports,
    ]


def ask_root() -> Any:
    """The folder of ComfyUI's modules is one packages may look into; the files of packages are elsewhere."""
    root = os.path.dirname(folder_paths.__file__)
    return [os.path.isdir(root), os.path.dirname(nodes.__file__) == root, os.path.dirname(server.__file__) == root]


class NamesProbe:
    """Shows the answer to one of the questions above."""

    RETURN_TYPES = ()
    FUNCTION = "ask"
    OUTPUT_NODE = True
    CATEGORY = "conformance"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"question": ("STRING", {"default": ""})}}

    @classmethod
    def IS_CHANGED(cls, question: str) -> float:
        return float("nan")

    def ask(self, question: str) -> dict[str, Any]:
        return {"ui": {"values": [json.dumps(globals()[f"ask_{question}"](), default=str)]}}


NODE_CLASS_MAPPINGS = {"NamesProbe": NamesProbe, "NamesLoader": Loader}
