"""Names of ComfyUI that the embedded server does not have: what packages can do with them, and what they are told.

What ComfyUI does too is in conformance/test_packs.py. Here the modules are used in this process, without a server.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import subprocess
import sys
from collections.abc import Iterator
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from discomfort.embedded import (
    conditioning,
    import_names,
    latent_preview,
    model_management,
    recorded_names,
    samplers,
    tensor_files,
    tiles,
)
from discomfort.embedded.recorded_names import NotInEmbeddedServer


@pytest.fixture(scope="module", autouse=True)
def finder() -> Iterator[None]:
    """ComfyUI's recorded modules can be imported, and are forgotten afterwards."""
    before = set(sys.modules)
    recorded_names.install_finder()
    for name in recorded_names.record():
        # Before the modules of this package, which pytest may have put on sys.path.
        if "." not in name:
            recorded_names.import_recorded(name)
    yield
    sys.meta_path[:] = [entry for entry in sys.meta_path if not isinstance(entry, recorded_names.Finder)]
    for name in set(sys.modules) - before:
        if recorded_names.find_module(name) is not None:
            del sys.modules[name]


def _load(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.mark.parametrize(("record", "least"), [("record", 4000), ("later_record", 3000)])
def test_every_recorded_name_can_be_had(record: str, least: int) -> None:
    count = 0
    for module_name, described in getattr(recorded_names, record)().items():
        module = _load(module_name)
        for name in described["names"]:
            getattr(module, name)
            count += 1
    assert count > least


def test_names_of_later_versions_are_there_where_the_first_record_lacks_them() -> None:
    assert "comfy.nested_tensor" not in recorded_names.record()
    with pytest.raises(NotInEmbeddedServer, match=r"comfy\.nested_tensor\.NestedTensor: the embedded server runs no"):
        _load("comfy.nested_tensor").NestedTensor([])
    # A module of both, and a name that only the later one has.
    assert "Anima" not in recorded_names.record()["comfy.supported_models"]["names"]
    assert isinstance(_load("comfy.supported_models").Anima, type)
    assert "Anima" in dir(_load("comfy.supported_models"))
    # A package of the first record, a module of the later one.
    assert _load("comfy").nested_tensor is _load("comfy.nested_tensor")
    assert recorded_names.later_record().keys() >= {"comfy.supported_models", "comfy.nested_tensor"}
    for name, known in recorded_names.record().items():
        added = recorded_names.later_record().get(name, {"names": {}})["names"]
        assert not known["names"].keys() & added.keys(), name


def test_a_module_of_the_embedded_server_takes_no_later_names() -> None:
    """Packages ask it what it can do; with a placeholder it would say yes and then fail."""
    own = ModuleType("discomfort.embedded.some_module")
    recorded_names.add_recorded_names(own, "comfy.model_management")
    later = recorded_names.later_record()["comfy.model_management"]["names"]
    assert "is_wsl" in later
    assert not hasattr(own, "is_wsl")
    assert own.load_models_gpu.__name__ == "load_models_gpu"
    assert not set(later) & set(dir(own))


def test_the_later_names_are_read_when_the_first_ones_do_not_do() -> None:
    code = """if True:
        from discomfort.embedded import recorded_names
        recorded_names.install_finder()
        import comfy.sd
        comfy.sd.VAE
        assert not recorded_names.later_record.cache_info().currsize
        import comfy.quant_ops
        assert recorded_names.later_record.cache_info().currsize
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("module", "use", "named"),
    [
        ("comfy.sd", lambda m: m.load_lora_for_models(1, 2), "comfy.sd.load_lora_for_models"),
        ("comfy.sd", lambda m: m.VAE(), "comfy.sd.VAE"),
        ("comfy.model_base", lambda m: m.SDXL(None), "comfy.model_base.SDXL"),
        ("comfy.ops", lambda m: m.disable_weight_init.Linear(1, 1), "comfy.ops.disable_weight_init.Linear"),
        ("nodes", lambda m: m.KSampler().sample(), "nodes.KSampler.sample"),
        ("nodes", lambda m: m.common_ksampler(None), "nodes.common_ksampler"),
        ("comfy.utils", lambda m: m.UNET_MAP_RESNET["x"], "comfy.utils.UNET_MAP_RESNET"),
        ("comfy.utils", lambda m: list(m.UNET_MAP_RESNET), "comfy.utils.UNET_MAP_RESNET"),
        ("comfy.utils", lambda m: m.UNET_MAP_RESNET.items(), "comfy.utils.UNET_MAP_RESNET"),
    ],
)
def test_what_needs_a_model_says_which_name_it_was(module: str, use: Any, named: str) -> None:
    with pytest.raises(NotInEmbeddedServer) as caught:
        use(_load(module))
    assert str(caught.value) == f"{named}: the embedded server runs no models. Run this node on a ComfyUI installation."


def test_what_is_no_matter_of_models_is_told_otherwise() -> None:
    with pytest.raises(NotInEmbeddedServer, match=r"app\.frontend_management.*does not have this part of ComfyUI"):
        _load("app.frontend_management").FrontendManager()


def test_an_object_of_a_derived_class_cannot_be_made_either() -> None:
    base = _load("comfy.model_patcher").ModelPatcher

    class Mine(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            raise AssertionError("not reached")

    with pytest.raises(NotInEmbeddedServer, match=r"comfy\.model_patcher\.ModelPatcher: the embedded server"):
        Mine()
    assert issubclass(Mine, base)


def test_a_node_derived_from_a_node_of_models_keeps_what_it_overrides() -> None:
    base = _load("nodes").LoraLoader

    class Mine(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.mine = 1

        def load_lora(self) -> str:
            return "mine"

    assert (Mine().mine, Mine().load_lora()) == (1, "mine")
    with pytest.raises(AttributeError, match=r"'loaded_lora'.*derives from nodes\.LoraLoader"):
        _ = Mine().loaded_lora
    assert base.INPUT_TYPES() == base.INPUT_TYPES()
    assert base.INPUT_TYPES()["required"] is not base.INPUT_TYPES()["required"]


def test_names_are_the_same_wherever_they_are_imported_from() -> None:
    attention, openaimodel = "comfy.ldm.modules.attention", "comfy.ldm.modules.diffusionmodules.openaimodel"
    assert _load(openaimodel).SpatialTransformer is _load(attention).SpatialTransformer
    assert _load("comfy.samplers").torch is _load("torch")
    assert _load("comfy.ldm.modules").attention is _load(attention)


def test_enums_and_exceptions_are_what_they_are() -> None:
    model_type = _load("comfy.model_base").ModelType
    assert issubclass(model_type, Enum)
    assert model_type.EPS.value == 1
    with pytest.raises(ValueError, match="99"):
        model_type(99)


def test_a_name_comfyui_does_not_have_fails_as_there() -> None:
    with pytest.raises(AttributeError, match=r"module 'comfy.sd' has no attribute 'NoSuchName'"):
        _ = _load("comfy.sd").NoSuchName
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'comfy.no_such'"):
        _load("comfy.no_such")
    with pytest.raises(AttributeError):
        _ = _load("comfy.model_base").SDXL.no_such_member


def test_a_module_that_comfyui_has_not_imported_is_no_attribute_until_somebody_does() -> None:
    extras = _load("comfy_extras")
    vars(extras).pop("nodes_webcam", None)
    sys.modules.pop("comfy_extras.nodes_webcam", None)
    assert not hasattr(extras, "nodes_webcam")
    _load("comfy_extras.nodes_webcam")
    assert extras.nodes_webcam.MAX_RESOLUTION == 16384


def test_star_imports_and_dir_name_what_there_is() -> None:
    module = _load("comfy.conds")
    assert "CONDRegular" in dir(module)
    assert "CONDRegular" in module.__all__
    assert not [name for name in module.__all__ if name.startswith("_")]


def test_placeholders_bear_what_python_does_with_any_object() -> None:
    value = _load("comfy.utils").UNET_MAP_RESNET
    assert repr(value) == "<comfy.utils.UNET_MAP_RESNET, of which the embedded server has only the name>"
    assert not hasattr(value, "__wrapped__")
    function = _load("comfy.sd").load_clip
    assert (function.__name__, function.__module__) == ("load_clip", "comfy.sd")
    assert inspect.isfunction(function)
    with pytest.raises(NotInEmbeddedServer, match=r"comfy\.utils\.UNET_MAP_RESNET"):
        _ = value == {}
    with pytest.raises(NotInEmbeddedServer, match=r"comfy\.utils\.UNET_MAP_RESNET"):
        _ = value != 3
    assert value in [value]
    assert {value: 1}[value] == 1
    assert copy.copy(_load("comfy.sd").VAE) is _load("comfy.sd").VAE
    assert pickle.loads(pickle.dumps(_load("comfy.sd").VAE)) is _load("comfy.sd").VAE


def test_a_finder_leaves_other_imports_alone() -> None:
    assert {name.partition(".")[0] for name in recorded_names.record()} == recorded_names.ROOTS
    assert recorded_names.Finder().find_spec("json", None) is None
    recorded_names.install_finder()
    assert sum(isinstance(entry, recorded_names.Finder) for entry in sys.meta_path) == 1


@pytest.mark.parametrize("name", import_names._SINGLE)
def test_single_names_are_ours_and_recorded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ComfyUI does not have could never be asked for."""
    module_name, _, short_name = name.rpartition(".")
    own_name = f"{import_names.__package__}.{import_names._SINGLE[name]}"
    monkeypatch.setitem(recorded_names._served, name, own_name)
    module = _load(module_name)
    vars(module).pop(short_name, None)
    own_module, _, own_short_name = own_name.rpartition(".")
    assert getattr(module, short_name) is getattr(_load(own_module), own_short_name)
    delattr(module, short_name)


# -- what needs no model -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["simple", "sgm_uniform", "ddim_uniform", "beta", "normal", "linear_quadratic"])
def test_schedulers_that_ask_a_model_say_so(scheduler: str) -> None:
    with pytest.raises(NotInEmbeddedServer, match=r"comfy\.samplers\..*: the embedded server runs no models"):
        samplers.calculate_sigmas(object(), scheduler, 3)


def test_a_sampler_cannot_be_made() -> None:
    with pytest.raises(NotInEmbeddedServer, match=r"comfy\.samplers\.KSampler"):
        samplers.KSampler(None, 3, "cpu")


def test_previews_by_a_model_give_way_to_colours(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    monkeypatch.setattr(latent_preview.args, "preview_method", latent_preview.LatentPreviewMethod.TAESD)
    latent_format = SimpleNamespace(
        latent_rgb_factors=[[0.0, 0.0, 1.0]],
        latent_rgb_factors_bias=None,
        latent_rgb_factors_reshape=lambda latent: latent[:, 1:],
    )
    previewer = latent_preview.get_previewer("cpu", latent_format)
    assert previewer is not None
    latent = torch.stack([torch.zeros(1, 2, 3), torch.ones(1, 2, 3)], dim=1)
    assert previewer.decode_latent_to_preview(latent).getpixel((0, 0)) == (127, 127, 255)
    assert "taesd" in caplog.text
    latent_format.latent_rgb_factors = None
    assert latent_preview.get_previewer("cpu", latent_format) is None


def test_numbers_of_pictures_are_scaled_or_not() -> None:
    import torch

    picture = torch.full((1, 1, 3), 0.5)
    shown = [latent_preview.preview_to_image(picture, scale).getpixel((0, 0)) for scale in (True, False)]
    assert shown == [(191, 191, 191), (127, 127, 127)]


@pytest.mark.parametrize(
    ("flag", "vram", "weights", "texts"),
    [
        (None, "NORMAL_VRAM", "cpu", "cuda"),
        ("highvram", "HIGH_VRAM", "cuda", "cuda"),
        ("gpu_only", "HIGH_VRAM", "cuda", "cuda"),
        ("lowvram", "LOW_VRAM", "cpu", "cpu"),
        ("novram", "NO_VRAM", "cpu", "cpu"),
        ("force_fp32", "NORMAL_VRAM", "cpu", "cpu"),
    ],
)
def test_where_models_would_be_is_what_the_flags_say(
    monkeypatch: pytest.MonkeyPatch, flag: str | None, vram: str, weights: str, texts: str
) -> None:
    """On a GPU; as ComfyUI 0.3.64 decides it."""
    import torch

    monkeypatch.setattr(model_management, "get_torch_device", lambda: torch.device("cuda"))
    if flag is not None:
        monkeypatch.setattr(model_management.args, flag, True)
    assert model_management.vram_state.name == vram
    assert model_management.unet_offload_device().type == weights
    assert model_management.text_encoder_device().type == texts
    assert model_management.FORCE_FP32 is (flag == "force_fp32")


@pytest.mark.parametrize(
    ("given", "part", "parts"),
    [
        ({}, (0.25, 0.5), [(None, 0.0, 0.24999), (1, 0.25, 0.5), (None, 0.50001, 1.0)]),
        ({}, (0.0, 1.0), [(1, 0.0, 1.0)]),
        ({"start_percent": 0.3, "end_percent": 0.6}, (0.0, 0.5), [(1, 0.3, 0.5), (None, 0.50001, 0.6)]),
        ({"start_percent": 0.6}, (0.0, 0.6), [(None, 0.6, None)]),
        ({}, (0.6, 0.5), [(None, None, None)]),
    ],
)
def test_conditioning_can_be_changed_for_a_part_of_the_sampling(given: Any, part: Any, parts: Any) -> None:
    """As ComfyUI 0.29.0 returns it."""
    changed = conditioning.conditioning_set_values_with_timestep_range([["text", given]], {"new": 1}, *part)
    shown = [(o.get("new"), o.get("start_percent"), o.get("end_percent")) for _, o in changed]
    assert shown == [tuple(None if n is None else pytest.approx(n) for n in expected) for expected in parts]


def test_safetensors_files_need_their_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(RuntimeError, match=r"x\.safetensors: .*pip install safetensors"):
        tensor_files.load_torch_file(str(tmp_path / "x.safetensors"))


def test_code_in_a_file_of_tensors_is_not_run(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    class Code:
        def __reduce__(self) -> Any:
            return (print, ("run",))

    torch.save({"a": Code()}, tmp_path / "x.pt")
    with pytest.raises(pickle.UnpicklingError):
        tensor_files.load_torch_file(str(tmp_path / "x.pt"))
    assert "run" not in capsys.readouterr().out


def test_tiles_cover_everything_once_blended() -> None:
    """A function that changes nothing gives the picture back, whatever the tiles."""
    import torch

    picture = torch.rand(2, 3, 23, 17)
    for tile, overlap in ((8, 2), (9, 4), (64, 8), (5, 0)):
        same = tiles.tiled_scale(picture, lambda part: part, tile, tile, overlap, 1, 3)
        assert torch.allclose(same, picture, atol=1e-6)


def test_a_start_imports_the_heavy_libraries_side_by_side() -> None:
    """What comes before the thread that imports torch needs no aiohttp; what comes beside it does not need torch."""
    code = (
        "import sys\n"
        "from discomfort.embedded import import_names, launch\n"
        "print('aiohttp' in sys.modules, 'torch' in sys.modules)\n"
        "import_names.install_early(); import_names.install_late()\n"
        "import discomfort.embedded.server, discomfort.embedded.progress, discomfort.embedded.worker\n"
        "print('aiohttp' in sys.modules, 'torch' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["False", "False", "True", "False"], run.stderr
