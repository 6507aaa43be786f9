"""The embedded server's core nodes show the same interface as ComfyUI's and give the same results.

``CASES`` are calls of the nodes (``core_node_cases.py``). Their results in ComfyUI 0.3.64, and for the nodes it does
not have in 0.33.0, are recorded in ``data/core_nodes_<version>.npz``, so that every machine checks them; with
COMFYUI_PATH they are compared with that ComfyUI itself. With DISCOMFORT_RECORD set as well, the recordings of its
version are written anew. The tests behind the cases state what nodes do without any recording.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from core_node_cases import (
    DITHERS,
    METHODS,
    Cases,
    image,
    latent,
    later_cases,
    live_cases,
    mask,
    more_cases,
    odd_cases,
    plain_cases,
    write_input_files,
)
from discomfort.embedded import folder_paths, node_registry, routes_prompts
from discomfort.embedded.core_nodes import (
    NODE_CLASS_MAPPINGS,
    NODE_DISPLAY_NAME_MAPPINGS,
    ORIGINS,
    color_transfer,
    save_image_advanced,
)
from discomfort.embedded.core_nodes.align import image_alpha_fix, repeat_to_batch_size
from discomfort.embedded.core_nodes.origin import BASELINE, LATER
from discomfort.embedded.core_nodes.preview import AnyType
from discomfort.embedded.core_nodes.resize import common_upscale
from discomfort.embedded.core_nodes.svg import SVG
from PIL import Image
from safetensors import safe_open

DATA = Path(__file__).parent / "data"
TOLERANCE = 1e-5


CASES = Cases()
for add_cases in (plain_cases, more_cases, odd_cases, later_cases):
    add_cases(CASES)
# Not recorded: compared where there is a ComfyUI.
LIVE_CASES = Cases()
live_cases(LIVE_CASES)

# Classes that have tests of their own below instead of cases.
WITHOUT_CASES = {
    "SaveImage",
    "PreviewImage",
    "MaskPreview",
    "SaveAnimatedWEBP",
    "SaveAnimatedPNG",
    "SaveSVGNode",
    "SaveLatent",
    "SaveText",
    "SaveImageDataSetToFolder",
    "SaveImageTextDataSetToFolder",
    "ImageCompare",
    "WebcamCapture",
    # Their result is a function; LatentApplyOperation's cases call it.
    "LatentOperationTonemapReinhard",
    "LatentOperationSharpen",
}


# Cases of the baseline that a later ComfyUI (0.33.0) answers differently, by the beginning of their names.
_LOADED_BY_VIDEO_CODE = "reads pictures as videos: other rounding, all frames, no grey"
_TELLS_SCALE = "the latent also tells its scale"
CHANGED_LATER = {
    "ImageScaleToTotalPixels-": "has one more input, resolution_steps",
    "PreviewAny-": "shows JSON indented, and has an output",
    "FeatherMask-": "a bug mended: the far ramps began at the wrong end",
    "JoinImageWithAlpha-": "a batch as large as the larger one, not the smaller one",
    "LoadImage-": _LOADED_BY_VIDEO_CODE,
    "LoadImageMask-": _LOADED_BY_VIDEO_CODE,
    "EmptyLatentImage-": _TELLS_SCALE,
    "EmptySD3LatentImage-": _TELLS_SCALE,
    "EmptyHunyuanLatentVideo-": _TELLS_SCALE,
    "EmptyLTXVLatentVideo-": _TELLS_SCALE,
    "EmptyLatentAudio-": _TELLS_SCALE,
    "ImageBatch-": "a bug mended: RGB beside RGBA",
    "ImageFromBatch-negative": "counts from the end",
    "LatentFromBatch-negative": "counts from the end",
    "ImageBlend-": "a bug mended: RGB onto RGBA; grey onto RGB fails",
    "ImageCompositeMasked-": "a bug mended: RGB onto RGBA; grey onto RGB fails",
    "LatentApplyOperation-": "a bug mended: videos and sounds are tone-mapped",
}

# Cases that fail in ComfyUI and work here.
WORKS_HERE = {
    "ImageScale-1-channel-lanczos",
    "ImageScaleBy-1-channel-lanczos",
    "ImageStitch-with-1-channel",
    "ImageColorToMask-1-channel",
    "ImageBlend-onto-4-channels",
    "ImageCompositeMasked-onto-4-channels",
    "SplitImageWithAlpha-nothing",
    "JoinImageWithAlpha-nothing",
    "PorterDuffImageComposite-onto-nothing",
    "PorterDuffImageComposite-with-nothing",
    "RegexExtract-lines-4-All Groups",
}


# -- running and comparing ---------------------------------------------------------------------------------


def run_ours(class_type: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """A node's result, as run_real_nodes.py gives it."""
    node = NODE_CLASS_MAPPINGS[class_type]()
    output = getattr(node, node.FUNCTION)(**{name: resolve(value) for name, value in inputs.items()})
    if not isinstance(output, dict):
        return {"outputs": list(output)}
    return {"ui": output["ui"], **({"outputs": list(output["result"])} if "result" in output else {})}


def resolve(value: Any) -> Any:
    """An input, or what it stands for."""
    if isinstance(value, dict) and "$node" in value:
        return run_ours(*value["$node"])["outputs"][0]
    if isinstance(value, dict) and "$svg" in value:
        return SVG([io.BytesIO(text.encode()) for text in value["$svg"]])
    return value


def run_or_error(class_type: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """The result, or what went wrong."""
    try:
        return run_ours(class_type, inputs)
    except Exception as error:
        return {"error": type(error).__name__}


def comparable(result: dict[str, Any]) -> dict[str, np.ndarray]:
    """What of a result is compared: outputs, or that there was an error; a preview's name is random."""
    if "error" in result:
        return flatten({"error": True})
    ui = {key: value for key, value in result.get("ui", {}).items() if key != "images"}
    return flatten({"outputs": result.get("outputs", []), "ui": ui})


def flatten(value: Any, path: str = "") -> dict[str, np.ndarray]:
    """A nested result as arrays by their path."""
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in flatten(part, f"{path}/{key}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for key, part in enumerate(value) for k, v in flatten(part, f"{path}/{key}").items()}
    array = value.numpy() if isinstance(value, torch.Tensor) else np.array(value)
    return {path: np.array(repr(value)) if array.dtype == object else array}


def assert_equal_results(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Same parts; numbers within the tolerance, everything else exactly."""
    assert list(actual) == list(expected)
    for path, wanted in expected.items():
        got = actual[path]
        assert got.shape == wanted.shape, path
        assert got.dtype.kind == wanted.dtype.kind, path
        if wanted.dtype.kind == "f":
            assert got.dtype == wanted.dtype, path
            np.testing.assert_allclose(got, wanted, rtol=TOLERANCE, atol=TOLERANCE, err_msg=path)
        else:
            np.testing.assert_array_equal(got, wanted, err_msg=path)


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base folder with the input files."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "input").mkdir()
    write_input_files(folder / "input")
    return folder


@pytest.fixture
def base(base_folder: Path) -> Path:
    """The base folder with the input files; folder_paths points there."""
    folder_paths.configure(base_folder)
    return base_folder


def results_file(version: str) -> Path:
    """Where the results of a version are recorded."""
    return DATA / f"core_nodes_{version}.npz"


@pytest.fixture(scope="module")
def recorded() -> dict[str, dict[str, np.ndarray]]:
    """Case -> its recorded result, flat."""
    results = {}
    for version in (BASELINE, LATER):
        with np.load(results_file(version)) as file:
            index, data = json.loads(file["index"].tobytes()), file["data"].tobytes()
        for case, parts in index.items():
            results[case] = {
                path: np.frombuffer(data[start:end], dtype=dtype).reshape(shape)
                for path, (dtype, shape, start, end) in parts.items()
            }
    return results


def record(results: dict[str, dict[str, np.ndarray]], version: str) -> None:
    """Write what the fixture ``recorded`` reads: all values in one block, as a file of 1200 arrays is twice as big."""
    index: dict[str, dict[str, Any]] = {}
    data = bytearray()
    for case, parts in results.items():
        index[case] = {}
        for path, array in parts.items():
            index[case][path] = (array.dtype.str, array.shape, len(data), len(data) + array.nbytes)
            data += array.tobytes()
    blocks = {"index": json.dumps(index).encode(), "data": bytes(data)}
    np.savez_compressed(results_file(version), **{name: np.frombuffer(b, np.uint8) for name, b in blocks.items()})


def test_every_node_has_cases() -> None:
    cases = [*CASES.values(), *LIVE_CASES.values()]
    assert {case.class_type for case in cases} == set(ORIGINS) - WITHOUT_CASES


@pytest.mark.filterwarnings("ignore:std.*degrees of freedom:UserWarning")  # of single values
@pytest.mark.parametrize("name", CASES)
def test_result_equals_the_recorded_one(name: str, base: Path, recorded: dict[str, dict[str, np.ndarray]]) -> None:
    """And the inputs, which other nodes and the cache share, are as they were."""
    case = CASES[name]
    before = {path: array.copy() for path, array in flatten(case.inputs).items()}
    ours = comparable(run_or_error(*case))
    after = flatten(case.inputs)
    assert list(after) == list(before)
    for path, array in before.items():
        np.testing.assert_array_equal(after[path], array, err_msg=path)
    if name in WORKS_HERE:
        assert "/error" in recorded[name]
        assert "/error" not in ours
    else:
        assert_equal_results(ours, recorded[name])


# -- the real ComfyUI --------------------------------------------------------------------------------------


def run_real(calls: list[tuple[str, dict[str, Any]]], base: Path, scratch: Path, *options: str) -> dict[str, Any]:
    """Version and results of node calls in the ComfyUI at COMFYUI_PATH; skips the test without one.

    Args:
        options: of ComfyUI's command line.
    """
    root = os.environ.get("COMFYUI_PATH")
    if not root:
        pytest.skip("needs a real ComfyUI: set COMFYUI_PATH to its folder")
    python = Path(root) / "venv" / "bin" / "python"
    folders = {name: str(base / name) for name in ("input", "output", "temp")}
    torch.save({**folders, "calls": calls}, scratch / "calls.pt")
    command = [str(python if python.exists() else sys.executable), str(DATA / "run_real_nodes.py")]
    done = subprocess.run(
        [*command, str(scratch / "calls.pt"), str(scratch / "results.pt"), *options],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(scratch / "results.pt", weights_only=True)


def is_before_its_definition(class_type: str, version: str) -> bool:
    """Whether a ComfyUI is older than the one a node's definition is from: its own may be another then."""
    numbers = [tuple(map(int, text.split("."))) for text in (version, ORIGINS[class_type].version)]
    return numbers[0] < numbers[1]


@pytest.fixture(scope="module")
def real(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """``version`` and ``results`` (by case) of all cases in the real ComfyUI."""
    cases = {**CASES, **LIVE_CASES}
    for name in ("output", "temp"):
        (base_folder / name).mkdir(exist_ok=True)
    job = run_real([tuple(case) for case in cases.values()], base_folder, tmp_path_factory.mktemp("real"))
    job["results"] = dict(zip(cases, job["results"], strict=True))
    if os.environ.get("DISCOMFORT_RECORD"):
        own = [name for name, case in CASES.items() if ORIGINS[case.class_type].version == job["version"]]
        record({name: comparable(job["results"][name]) for name in own}, job["version"])
    return job


@pytest.mark.filterwarnings("ignore:std.*degrees of freedom:UserWarning")  # of single values
@pytest.mark.real_comfyui
@pytest.mark.parametrize("name", [*CASES, *LIVE_CASES])
def test_result_equals_the_real_one(name: str, base: Path, real: dict[str, Any]) -> None:
    expected, case = real["results"][name], {**CASES, **LIVE_CASES}[name]
    if "missing" in expected:
        pytest.skip(f"ComfyUI {real['version']} has no {case.class_type}")
    if is_before_its_definition(case.class_type, real["version"]):
        pytest.skip(f"the definition of {case.class_type} is that of a later version than {real['version']}")
    if name in WORKS_HERE:
        return
    reason = next((why for start, why in CHANGED_LATER.items() if name.startswith(start)), None)
    if reason is not None and real["version"] != BASELINE:
        pytest.skip(f"ComfyUI {real['version']}: {reason}")
    assert_equal_results(comparable(run_or_error(*case)), comparable(expected))


PROMPT = {"1": {"class_type": "SaveImage", "inputs": {"text": "Grüße 😀", "b": 1.0, "a": [1e-7, None, True]}}}
# Hidden inputs by their names, as the server passes them: with and without each.
METADATA = {
    "both": {"prompt": PROMPT, "extra_pnginfo": {"workflow": {"nodes": [1.5, None]}, "more": "ü", "a\tb": [2**70]}},
    "prompt": {"prompt": PROMPT},
    "extra": {"extra_pnginfo": {"workflow": {"z": 1, "a": 2}}},
    "none": {},
    "empty": {"prompt": {}, "extra_pnginfo": {}},
    "nulls": {"prompt": None, "extra_pnginfo": None},
    "null-workflow": {"prompt": PROMPT, "extra_pnginfo": {"workflow": None}},
}
SVG_TEXTS = ["<svg width='1'><g/></svg>", "<?xml version='1.0'?>\n<svg>ü<svg x='2'/></svg>", "no drawing"]
WEBP_OPTIONS = {"fps": 12.5, "lossless": True, "quality": 80, "method": "fastest"}


def save_calls() -> list[tuple[str, dict[str, Any]]]:
    """Calls of everything that saves: every kind of metadata, prefix and image."""
    calls: list[tuple[str, dict[str, Any]]] = []
    source = image(0, 2) * 1.2 - 0.1
    for name, metadata in METADATA.items():
        more = {"filename_prefix": f"{name}/x", **metadata}
        calls += [
            ("SaveImage", {"images": source, **more}),
            ("SaveAnimatedWEBP", {**WEBP_OPTIONS, "images": source, **more}),
            (
                "SaveAnimatedWEBP",
                {**WEBP_OPTIONS, "lossless": False, "method": "slowest", "images": source[:1], **more},
            ),
            ("SaveAnimatedPNG", {"images": source, "fps": 7, "compress_level": 9, **more}),
            ("SaveLatent", {"samples": latent(0, 1, 2, 3), **more}),
            ("SaveSVGNode", {"svg": {"$svg": SVG_TEXTS}, **more}),
            ("PreviewImage", {"images": source, **metadata}),
            ("MaskPreview", {"mask": mask(0, 2), **metadata}),
        ]
    prefixes = [
        "plain",
        "plain",
        "a/b-%batch_num%-%width%x%height%",
        "a/b",
        "a//b/../b",
        "./c",
        "with.dot",
        "%width%",
        "100%",
        "a/%batch_num%",
        "name_00007",
        "ends_",
        " spaced ",
        "ü/é",
        "../escaped",
        "a/../../escaped",
    ]
    for prefix in prefixes:
        for class_type, inputs in {
            "SaveImage": {"images": source[:1]},
            "SaveAnimatedPNG": {"images": source, "fps": 1000.0, "compress_level": 0},
            "SaveLatent": {"samples": latent(0, 1, 1, 1)},
            "SaveSVGNode": {"svg": {"$svg": SVG_TEXTS[:2]}},
        }.items():
            calls.append((class_type, {**inputs, "filename_prefix": prefix}))
    images = {
        "grey": image(0, 1, 3, 4, 1),
        "rgba": image(0, 1, 3, 4, 4),
        "pixel": image(0, 1, 1, 1),
        "nothing": image(0, 1, 3, 4)[:0],
        "nan": torch.full((1, 2, 2, 3), float("nan")),
    }
    for name, pictures in images.items():
        for class_type, options in {
            "SaveImage": {},
            "SaveAnimatedPNG": {"fps": 0.01, "compress_level": 4},
            "SaveAnimatedWEBP": WEBP_OPTIONS,
        }.items():
            calls.append((class_type, {"images": pictures, "filename_prefix": name, **options}))
    calls.append(("SaveLatent", {"samples": {"samples": noise_view()}, "filename_prefix": "view"}))
    calls.append(("SaveLatent", {"samples": {"samples": image().half()}, "filename_prefix": "half"}))
    return calls


def noise_view() -> torch.Tensor:
    """Samples that do not lie in one piece of memory."""
    return latent(0, 2, 3, 4)["samples"].transpose(2, 3)[:, 1:]


def later_save_calls() -> list[tuple[str, dict[str, Any]]]:
    """The same of what later versions added."""
    calls: list[tuple[str, dict[str, Any]]] = []
    for kind in ("txt", "csv", "md", "json"):
        for text in ("ü\nb", "", '{"b": [1, "é"], "a": null}', "[1"):
            for prefix in ("texts/%width%x%height%", "ComfyUI"):
                calls.append(("SaveText", {"text": text, "filename_prefix": prefix, "format": kind}))
    calls.append(("SaveText", {"text": "a", "filename_prefix": "../escaped", "format": "txt"}))
    pictures = [image(0), image(1, 1, 5, 6, 4), image(2)[0], image(3)[0].permute(2, 0, 1), image(4, 1, 2, 2)]
    for mode in ("overwrite", "increment", "overwrite", "increment"):
        for folder in ("dataset", "sets/a b", ".", "../escaped", ""):
            more = {"folder_name": [folder], "filename_prefix": ["a.png"], "mode": [mode]}
            calls.append(("SaveImageDataSetToFolder", {"images": pictures, **more}))
            more["filename_prefix"] = ["with"]
            calls.append(("SaveImageTextDataSetToFolder", {"images": pictures, "texts": ["é", "b"], **more}))
    more = {"folder_name": ["batch"], "filename_prefix": ["x"], "mode": ["overwrite"]}
    calls.append(("SaveImageDataSetToFolder", {"images": [image(0, 2)], **more}))
    calls.append(("SaveImageTextDataSetToFolder", {"images": [image(0)], **more}))
    for images in ({}, {"image_a": image(0, 2)}, {"image_a": image()[:0], "image_b": image(1)}):
        calls.append(("ImageCompare", {"compare_view": None, **images}))
    for name in ("image_b", "image_a"):
        calls.append(("ImageCompare", {name: image(2)}))
    calls.append(("ImageCropV2", {"image": image(5, 2), "crop_region": {"x": 1, "y": 1, "width": 3, "height": 2}}))
    calls.append(("Painter", {"mask": "", "width": 4, "height": 3}))
    return calls


def tree(folder: Path) -> dict[str, list[bytes]]:
    """The files below a folder by their paths; those whose names differ in the random part of previews together."""
    files: dict[str, list[bytes]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = re.sub(r"_temp_[a-z]{5}_", "_temp_*_", path.relative_to(folder).as_posix())
            files.setdefault(name, []).append(in_order(path) if path.suffix == ".latent" else path.read_bytes())
    return {name: sorted(contents) for name, contents in files.items()}


def in_order(path: Path) -> bytes:
    """A file in safetensors format, its metadata in order: the library writes them in any."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.dumps(json.loads(data[8:end]), sort_keys=True).encode() + data[end:]


def saved_result(result: dict[str, Any]) -> Any:
    """A ui result without the random part of names, or that there was an error."""
    if "error" in result:
        return "error"
    ui = dict(result.get("ui", {}))
    # Later versions leave it out where it is false.
    if "animated" in ui and not any(ui["animated"]):
        del ui["animated"]
    return json.loads(re.sub(r"_temp_[a-z]{5}_", "_temp_*_", json.dumps(ui)))


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")  # not-a-numbers as pixels
@pytest.mark.real_comfyui
@pytest.mark.parametrize("options", [(), ("--disable-metadata",)], ids=["metadata", "no-metadata"])
def test_saved_files_equal_the_real_ones(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same files with the same bytes, the same ui results; of previews, but for the random part of their names."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for name in ("input", "output", "temp"):
        (theirs / name).mkdir(parents=True)
    calls = save_calls() + later_save_calls()
    job = run_real(calls, theirs, tmp_path, *options)
    folder_paths.configure(ours)
    arguments = types.SimpleNamespace(args=types.SimpleNamespace(disable_metadata=bool(options)))
    monkeypatch.setitem(sys.modules, "comfy.cli_args", arguments)
    uncompared: set[Path] = set()
    for call, result in zip(calls, job["results"], strict=True):
        before = set(ours.rglob("*"))
        mine = saved_result(run_or_error(*call))
        is_other = job["version"] != BASELINE and call[0] in SAVED_OTHERWISE_LATER
        if "missing" in result or is_other or is_before_its_definition(call[0], job["version"]):
            uncompared |= set(ours.rglob("*")) - before
        else:
            assert mine == saved_result(result), call
    for path in uncompared:
        if path.is_file():
            path.unlink()
    expected, found = tree(theirs / "output"), tree(ours / "output")
    for name, contents in found.items():
        assert expected.get(name) == contents, name
    if job["version"] == BASELINE:
        assert list(expected) == list(found)
        assert tree(theirs / "temp") == tree(ours / "temp")


# Nodes whose files or ui results are others in later versions.
SAVED_OTHERWISE_LATER = {"SaveAnimatedPNG", "SaveAnimatedWEBP", "MaskPreview", "PreviewImage"}


def open_saved(base: Path, file: dict[str, str]) -> Any:
    """The PNG that a ui result names."""
    with Image.open(base / file["type"] / file["subfolder"] / file["filename"]) as opened:
        opened.load()
    return opened


# -- the interface -----------------------------------------------------------------------------------------


def recorded_nodes(version: str) -> dict[str, Any]:
    """What that ComfyUI says of the nodes whose definitions are its own, as GET /object_info."""
    found: dict[str, Any] = json.loads((DATA / f"object_info_{version}.json").read_text(encoding="utf-8"))
    return found


RECORDED_NODES = {**recorded_nodes(BASELINE), **recorded_nodes(LATER)}


@pytest.mark.parametrize("name", ORIGINS)
def test_interface_equals_the_recorded_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Key by key, whichever kind of node it is in ComfyUI; also the order of the inputs."""
    folder_paths.configure(tmp_path)
    monkeypatch.setattr(node_registry, "NODE_CLASS_MAPPINGS", NODE_CLASS_MAPPINGS)
    monkeypatch.setattr(node_registry, "NODE_DISPLAY_NAME_MAPPINGS", NODE_DISPLAY_NAME_MAPPINGS)
    ours = json.loads(json.dumps(routes_prompts.describe_node(name)))
    assert ours == RECORDED_NODES[name]
    assert {kind: list(group) for kind, group in ours["input"].items()} == ours["input_order"]


def test_a_package_s_own_class_is_described_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also under a core node's name, or derived from one."""

    class Replacement(NODE_CLASS_MAPPINGS["ImageBlend"]):  # type: ignore[misc]
        pass

    monkeypatch.setattr(node_registry, "NODE_CLASS_MAPPINGS", {"ImageBlend": Replacement})
    assert "api_node" not in routes_prompts.describe_node("ImageBlend")


@pytest.mark.parametrize("name", ORIGINS)
def test_every_required_and_optional_input_is_a_parameter(name: str, tmp_path: Path) -> None:
    folder_paths.configure(tmp_path)  # some nodes list the input folder
    node = NODE_CLASS_MAPPINGS[name]
    inputs = node.INPUT_TYPES()
    parameters = inspect.signature(getattr(node, node.FUNCTION)).parameters
    for kind in ("required", "optional", "hidden"):
        assert set(inputs.get(kind, {})) <= set(parameters)
    for optional in inputs.get("optional", {}):
        assert parameters[optional].default is not inspect.Parameter.empty


def test_importing_the_nodes_imports_no_torch(tmp_path: Path) -> None:
    code = "import sys, discomfort.embedded.core_nodes; sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    # Elsewhere than in the clone, whose discomfort.py would be found first.
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False, timeout=60).returncode == 0


def test_any_type_differs_from_nothing_and_is_a_star_in_json() -> None:
    wildcard = AnyType("*")
    image_type = "IMAGE"
    assert (wildcard != image_type) is False
    assert (image_type != wildcard) is False
    assert json.dumps(wildcard) == '"*"'
    assert {wildcard: 1} == {"*": 1}


# -- what nodes do, said without a recording ---------------------------------------------------------------


def first(class_type: str, **inputs: Any) -> Any:
    """A node's first output."""
    return run_ours(class_type, inputs)["outputs"][0]


@pytest.mark.parametrize(
    ("channels", "format", "bit_depth"), [(2, "png", "8-bit"), (5, "exr", "32-bit float"), (3, "exr", "8-bit")]
)
def test_an_image_that_no_format_can_hold_is_refused(channels: int, format: str, bit_depth: str) -> None:
    with pytest.raises(ValueError, match=f"^No {format}/{bit_depth} encoder for {channels}-channel images: supported"):
        save_image_advanced.encode(image(channels=channels)[0], format, bit_depth, "sRGB")


def test_more_than_8_bits_need_a_library_and_8_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for channels in (1, 3, 4):
        assert save_image_advanced.encode(image(channels=channels)[0], "png", "8-bit", "sRGB").startswith(b"\x89PNG")
        with pytest.raises(RuntimeError, match=r"Saving images as png of more than 8 bits needs av.*pip install av"):
            save_image_advanced.encode(image(channels=channels)[0], "png", "16-bit", "sRGB")


def test_empty_image_has_the_color_in_every_pixel() -> None:
    made = first("EmptyImage", width=3, height=2, batch_size=4, color=0xFF8000)
    assert made.shape == (4, 2, 3, 3)
    assert made.dtype == torch.float32
    assert torch.equal(made, torch.tensor([1.0, 128 / 255, 0.0]).expand(4, 2, 3, 3))


def test_scale_center_crop_keeps_the_middle() -> None:
    """A wide image made square loses the same number of columns left and right."""
    columns = torch.arange(12.0).expand(1, 4, 12)[..., None].expand(-1, -1, -1, 3)
    scaled = first("ImageScale", image=columns, upscale_method="nearest-exact", width=4, height=4, crop="center")
    assert scaled[0, 0, :, 0].tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("method", METHODS)
def test_scaling_keeps_a_flat_image_flat(method: str) -> None:
    flat = torch.full((1, 5, 7, 3), 51 / 255)
    for width, height in [(3, 2), (20, 11)]:
        scaled = common_upscale(flat.movedim(-1, 1), width, height, method, "disabled")
        assert scaled.shape == (1, 3, height, width)
        torch.testing.assert_close(scaled, torch.full_like(scaled, 51 / 255))


def test_area_scaling_takes_the_mean() -> None:
    source = image(0, 1, 6, 6)
    halved = first("ImageScale", image=source, upscale_method="area", width=3, height=3, crop="disabled")
    blocks = source.reshape(1, 3, 2, 3, 2, 3).mean(dim=(2, 4))
    torch.testing.assert_close(halved, blocks)


def test_lanczos_is_pillows() -> None:
    pixels = (image(0, 1, 9, 8)[0].numpy() * 255).astype(np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((5, 13), Image.Resampling.LANCZOS)) / 255
    source = torch.from_numpy(pixels.astype(np.float32) / 255 + 1e-4)[None]
    scaled = first("ImageScale", image=source, upscale_method="lanczos", width=5, height=13, crop="disabled")
    np.testing.assert_allclose(scaled[0].numpy(), expected, atol=1e-6)


def test_lanczos_takes_a_single_channel() -> None:
    grey = image(0, 1, 6, 6).movedim(-1, 1)[:, :1]
    scaled = common_upscale(grey, 3, 3, "lanczos", "disabled")
    assert scaled.shape == (1, 1, 3, 3)
    same = common_upscale(grey.expand(-1, 3, -1, -1), 3, 3, "lanczos", "disabled")
    assert torch.equal(scaled, same[:, :1])


def test_an_unknown_scaling_method_is_named() -> None:
    with pytest.raises(ValueError, match="Unknown upscale_method 'magic'"):
        common_upscale(torch.zeros(1, 3, 2, 2), 2, 2, "magic", "disabled")


def test_total_pixels_reaches_the_area_and_keeps_proportions() -> None:
    scaled = first("ImageScaleToTotalPixels", image=image(0, 1, 10, 40), upscale_method="area", megapixels=0.25)
    assert scaled.shape == (1, 256, 1024, 3)


def test_blur_equals_a_direct_sum() -> None:
    source = image(0, 1, 5, 5)
    blurred = first("ImageBlur", image=source, blur_radius=2, sigma=0.7)
    steps = np.linspace(-1, 1, 5)
    weights = np.exp(-(steps[:, None] ** 2 + steps**2) / (2 * 0.7**2))
    mirrored = np.pad(source[0].numpy(), ((2, 2), (2, 2), (0, 0)), mode="reflect")
    expected = sum(
        weights[row, column] * mirrored[row : row + 5, column : column + 5] for row in range(5) for column in range(5)
    )
    np.testing.assert_allclose(blurred[0].numpy(), expected / weights.sum(), atol=1e-6)


def test_sharpening_strengthens_an_edge_and_leaves_flat_areas() -> None:
    edge = torch.full((1, 9, 10, 3), 0.4)
    edge[:, :, 5:] = 0.6
    sharpened = first("ImageSharpen", image=edge, sharpen_radius=1, sigma=1.0, alpha=0.05)
    torch.testing.assert_close(sharpened[:, :, :4], edge[:, :, :4])
    assert (sharpened[:, :, 4] < 0.39).all()
    assert (sharpened[:, :, 5] > 0.61).all()


@pytest.mark.parametrize("dither", DITHERS)
def test_quantizing_leaves_few_colors(dither: str) -> None:
    quantized = first("ImageQuantize", image=image(0, 1, 16, 16), colors=4, dither=dither)
    assert len(torch.unique(quantized.reshape(-1, 3), dim=0)) <= 4


def test_quantizing_refuses_transparency_with_a_reason() -> None:
    with pytest.raises(ValueError, match="RGB images, this one has 4 channels"):
        first("ImageQuantize", image=image(channels=4), colors=4, dither="none")


def test_rotation_is_clockwise() -> None:
    corner = torch.zeros(1, 2, 3, 3)
    corner[0, 0, 0] = 1.0
    turned = first("ImageRotate", image=corner, rotation="90 degrees")
    assert turned.shape == (1, 3, 2, 3)
    assert turned[0, 0, 1].tolist() == [1.0, 1.0, 1.0]


def test_an_rgb_source_is_opaque_on_an_rgba_destination() -> None:
    """Where ComfyUI 0.3.64 fails."""
    put = first(
        "ImageCompositeMasked",
        destination=torch.zeros(1, 4, 4, 4),
        source=torch.full((1, 2, 2, 3), 0.5),
        x=1,
        y=1,
        resize_source=False,
    )
    assert put[0, 1, 1].tolist() == [0.5, 0.5, 0.5, 1.0]
    assert put[0, 0, 0].tolist() == [0.0, 0.0, 0.0, 0.0]


def test_composite_leaves_out_what_lies_outside() -> None:
    """Also to the left and above, which only a link can ask for."""
    source = torch.arange(1.0, 10.0).reshape(1, 3, 3, 1).expand(-1, -1, -1, 3)
    black = torch.zeros(1, 3, 3, 3)
    placed = {
        (1, 1): [[0, 0, 0], [0, 1, 2], [0, 4, 5]],
        (-1, -2): [[8, 9, 0], [0, 0, 0], [0, 0, 0]],
        (9, 0): [[0, 0, 0]] * 3,
    }
    for (x, y), rows in placed.items():
        put = first("ImageCompositeMasked", destination=black, source=source, x=x, y=y, resize_source=False)
        assert put[0, ..., 0].tolist() == rows


def test_mask_composite_beyond_the_edge_changes_nothing() -> None:
    source = mask()
    result = first("MaskComposite", destination=source, source=source, x=99, y=99, operation="add")
    assert torch.equal(result, source)


def test_growing_reaches_as_far_as_it_says() -> None:
    dot = torch.zeros(1, 7, 7)
    dot[0, 3, 3] = 1.0
    rows, columns = torch.meshgrid(torch.arange(7), torch.arange(7), indexing="ij")
    straight = (rows - 3).abs() + (columns - 3).abs()
    square = torch.maximum((rows - 3).abs(), (columns - 3).abs())
    tapered = first("GrowMask", mask=dot, expand=2, tapered_corners=True)
    full = first("GrowMask", mask=dot, expand=2, tapered_corners=False)
    assert torch.equal(tapered[0], (straight <= 2).float())
    assert torch.equal(full[0], (square <= 2).float())
    assert torch.equal(first("GrowMask", mask=full, expand=-2, tapered_corners=False), dot)


def test_latent_interpolation_treats_each_sample_of_a_batch_alone() -> None:
    """Where ComfyUI 0.3.64 fails (batch and channels differ) or mixes them up (they do not)."""
    one, two = latent(0, 3), latent(1, 3)
    together = first("LatentInterpolate", samples1=one, samples2=two, ratio=0.3)["samples"]
    for index in range(3):
        single = first(
            "LatentInterpolate",
            samples1={"samples": one["samples"][index : index + 1]},
            samples2={"samples": two["samples"][index : index + 1]},
            ratio=0.3,
        )
        torch.testing.assert_close(together[index : index + 1], single["samples"])


def test_bislerp_keeps_the_strength_between_opposite_directions() -> None:
    samples = torch.zeros(1, 2, 1, 2)
    samples[0, :, 0, 0] = torch.tensor([2.0, 0.0])
    samples[0, :, 0, 1] = torch.tensor([0.0, 2.0])
    resized = common_upscale(samples, 4, 1, "bislerp", "disabled")
    torch.testing.assert_close(torch.linalg.vector_norm(resized, dim=1), torch.full((1, 1, 4), 2.0))


def test_a_group_that_took_no_part_is_empty() -> None:
    """Where ComfyUI 0.3.64 hands on None, or fails."""
    extract = {"string": "b ab", "regex_pattern": "(a)?b", "group_index": 1}
    flags = {"case_insensitive": True, "multiline": False, "dotall": False}
    assert first("RegexExtract", mode="First Group", **extract, **flags) == ""
    assert first("RegexExtract", mode="All Groups", **extract, **flags) == "\na"


def test_replacing_by_a_broken_pattern_fails_the_node() -> None:
    with pytest.raises(re.error):
        first("RegexReplace", string="a", regex_pattern="(", replace="b")


def test_preview_survives_an_object_that_cannot_be_shown() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no")

    ui = run_ours("PreviewAny", {"source": Broken()})["ui"]
    assert ui == {"text": ("source exists, but could not be serialized.",)}


def test_image_size_is_shown_on_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    instance = types.SimpleNamespace(send_progress_text=lambda text, node_id: shown.append((text, node_id)))
    server = types.SimpleNamespace(PromptServer=types.SimpleNamespace(instance=instance))
    monkeypatch.setitem(sys.modules, "server", server)
    run_ours("GetImageSize", {"image": image(0, 2, 5, 7), "unique_id": "12"})
    assert shown == [("width: 7, height: 5\n batch size: 2", "12")]


def test_noise_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first("ImageAddNoise", image=image(), seed=5, strength=0.5)
    assert torch.equal(torch.rand(3), expected)


def test_repeat_to_batch_size_cuts_and_repeats() -> None:
    numbers = torch.arange(3)
    assert repeat_to_batch_size(numbers, 2).tolist() == [0, 1]
    assert repeat_to_batch_size(numbers, 7).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert repeat_to_batch_size(numbers[None], 4, dim=1).tolist() == [[0, 1, 2, 0]]


def test_alpha_is_taken_away_or_added_to_the_source() -> None:
    rgb, rgba = torch.zeros(1, 1, 1, 3), torch.zeros(1, 1, 1, 4)
    assert image_alpha_fix(rgb, rgba)[1].shape[-1] == 3
    assert image_alpha_fix(rgba, rgb)[1].tolist() == [[[[0.0, 0.0, 0.0, 1.0]]]]


# -- files -------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """An empty base folder that folder_paths points to."""
    folder_paths.configure(tmp_path)
    return tmp_path


def test_saved_image_is_rounded_down_and_cut_off(folders: Path) -> None:
    values = torch.tensor([-0.5, 0.0, 0.5, 0.999, 1.0, 7.0])
    run_ours("SaveImage", {"images": values[None, None, :, None].expand(1, 1, 6, 3)})
    with Image.open(folders / "output" / "ComfyUI_00001_.png") as saved:
        assert [saved.getpixel((x, 0))[0] for x in range(6)] == [0, 0, 127, 254, 255, 255]


def test_saved_image_counts_on_and_is_listed(folders: Path) -> None:
    for _ in range(2):
        ui = run_ours("SaveImage", {"images": image(0, 2), "filename_prefix": "sub/pic"})["ui"]
    assert ui["images"] == [
        {"filename": f"pic_0000{number}_.png", "subfolder": "sub", "type": "output"} for number in (3, 4)
    ]
    assert len(list((folders / "output" / "sub").iterdir())) == 4


def test_saved_image_carries_prompt_and_workflow(folders: Path) -> None:
    metadata = {"prompt": {"1": {"inputs": {"text": "ü"}}}, "extra_pnginfo": {"workflow": {"nodes": []}}}
    ui = run_ours("SaveImage", {"images": image(), **metadata})["ui"]
    saved = open_saved(folders, ui["images"][0])
    assert json.loads(saved.text["prompt"]) == metadata["prompt"]
    assert json.loads(saved.text["workflow"]) == {"nodes": []}


def test_animations_hold_every_image_and_their_metadata(folders: Path) -> None:
    metadata = {"prompt": {"1": {}}, "extra_pnginfo": {"workflow": {"nodes": [1]}}}
    source = image(0, 3)
    pixels = (source * 255).to(torch.uint8).numpy()
    calls = {"SaveAnimatedWEBP": WEBP_OPTIONS, "SaveAnimatedPNG": {"fps": 12.5, "compress_level": 1}}
    for class_type, options in calls.items():
        inputs = {"images": source, "filename_prefix": "a/b", **options, **metadata}
        ui = run_ours(class_type, inputs)["ui"]
        assert ui["animated"] == (True,)
        path = folders / "output" / "a" / ui["images"][0]["filename"]
        with Image.open(path) as saved:
            assert saved.n_frames == 3
            for number in range(3):
                saved.seek(number)
                np.testing.assert_array_equal(np.array(saved.convert("RGB")), pixels[number])
                assert saved.info["duration"] == 80
        assert b"prompt" in path.read_bytes()
        assert b'{"nodes": [1]}' in path.read_bytes()


def test_disable_metadata_leaves_the_file_bare(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = types.SimpleNamespace(args=types.SimpleNamespace(disable_metadata=True))
    monkeypatch.setitem(sys.modules, "comfy.cli_args", arguments)
    ui = run_ours("SaveImage", {"images": image(), "prompt": {"1": {}}, "extra_pnginfo": {"workflow": {}}})["ui"]
    assert open_saved(folders, ui["images"][0]).text == {}


def test_saving_outside_the_output_folder_is_refused(folders: Path) -> None:
    with pytest.raises(Exception, match="outside the output folder"):
        run_ours("SaveImage", {"images": image(), "filename_prefix": "../escaped"})
    assert not list(folders.glob("escaped*"))


@pytest.mark.parametrize(("class_type", "inputs"), [("PreviewImage", "images"), ("MaskPreview", "mask")])
def test_previews_go_to_the_temp_folder(folders: Path, class_type: str, inputs: str) -> None:
    source = image(0, 2) if inputs == "images" else mask(0, 2)
    files = run_ours(class_type, {inputs: source})["ui"]["images"]
    assert [file["type"] for file in files] == ["temp", "temp"]
    assert all(re.fullmatch(r"ComfyUI_temp_[a-z]{5}_0000\d_\.png", file["filename"]) for file in files)
    assert {path.name for path in (folders / "temp").iterdir()} == {file["filename"] for file in files}


def test_a_saved_image_loads_as_it_was(folders: Path) -> None:
    pixels = (image() * 255).floor() / 255
    run_ours("SaveImage", {"images": pixels + 1e-4})
    loaded, empty_mask = run_ours("LoadImage", {"image": "ComfyUI_00001_.png [output]"})["outputs"]
    torch.testing.assert_close(loaded, pixels)
    assert torch.equal(empty_mask, torch.zeros(1, 64, 64))


def test_transparency_becomes_the_mask(folders: Path) -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (255, 0, 0, 255)
    Image.fromarray(pixels).save(folders / "input" / "a.png")
    loaded, transparency = run_ours("LoadImage", {"image": "a.png"})["outputs"]
    assert loaded.shape == (1, 2, 2, 3)
    assert transparency.tolist() == [[[0.0, 1.0], [1.0, 1.0]]]
    alone = first("LoadImageMask", image="a.png", channel="alpha")
    assert torch.equal(alone, transparency)


def test_load_image_lists_pictures_and_its_mask_all_files(folders: Path) -> None:
    for name in ("b.png", "a.jpg", "notes.txt"):
        (folders / "input" / name).touch()
    (folders / "input" / "folder.png").mkdir()
    assert NODE_CLASS_MAPPINGS["LoadImage"].INPUT_TYPES()["required"]["image"][0] == ["a.jpg", "b.png"]
    listed = NODE_CLASS_MAPPINGS["LoadImageMask"].INPUT_TYPES()["required"]["image"][0]
    assert listed == ["a.jpg", "b.png", "notes.txt"]


@pytest.mark.parametrize(
    ("class_type", "more"), [("LoadImage", {}), ("LoadImageMask", {"channel": "red"}), ("LoadImageOutput", {})]
)
def test_a_loader_changes_with_the_files_content(folders: Path, class_type: str, more: dict[str, str]) -> None:
    path = folders / "input" / "a.png"
    path.write_bytes(b"one")
    node = NODE_CLASS_MAPPINGS[class_type]
    changed = node.IS_CHANGED(image="a.png", **more)
    assert changed == hashlib.sha256(b"one").hexdigest()
    os.utime(path, (1, 1))
    assert node.IS_CHANGED(image="a.png", **more) == changed
    path.write_bytes(b"two")
    assert node.IS_CHANGED(image="a.png", **more) != changed


def test_a_missing_file_is_named_before_the_run(folders: Path) -> None:
    (folders / "output" / "there.png").touch()
    validate = NODE_CLASS_MAPPINGS["LoadImage"].VALIDATE_INPUTS
    assert validate(image="there.png [output]") is True
    assert validate(image="gone.png") == "Invalid image file: gone.png"
    # Only inputs it names are exempt from the server's own check.
    assert list(inspect.signature(validate).parameters) == ["image"]


def test_damaged_files_do_not_change_pillows_settings(base: Path) -> None:
    from PIL import ImageFile

    first("LoadImage", image="truncated.png")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    (base / "input" / "no_image.png").write_bytes(b"nothing")
    with pytest.raises(OSError, match="cannot identify image file"):
        first("LoadImage", image="no_image.png")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def chunks(path: Path) -> list[tuple[bytes, bytes]]:
    """The chunks of a PNG file, those of pixels without their data."""
    data, found, position = path.read_bytes(), [], 8
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        found.append((kind, b"" if kind in (b"IDAT", b"fdAT") else data[position + 8 : position + 8 + length]))
        position += length + 12
    return found


@pytest.mark.parametrize("case", METADATA)
def test_png_chunks_are_prompt_workflow_and_more_in_order(case: str, folders: Path) -> None:
    """Before the pixels, as plain text chunks of JSON in ASCII with Python's separators; keys in the order given."""
    ui = run_ours("SaveImage", {"images": image(), **METADATA[case]})["ui"]
    entries = {}
    if METADATA[case].get("prompt") is not None:
        entries["prompt"] = METADATA[case]["prompt"]
    entries.update(METADATA[case].get("extra_pnginfo") or {})
    expected = [(b"tEXt", f"{key}\0{json.dumps(value)}".encode("latin-1")) for key, value in entries.items()]
    found = chunks(folders / "output" / ui["images"][0]["filename"])
    assert [kind for kind, _ in found] == [b"IHDR", *[b"tEXt"] * len(expected), b"IDAT", b"IEND"]
    assert found[1:-2] == expected


def test_the_metadata_of_animations_lie_behind_the_pixels_or_in_exif(folders: Path) -> None:
    metadata = {"prompt": {"1": {"b": 1, "a": "ü"}}, "extra_pnginfo": {"workflow": {"nodes": []}, "more": [1.0]}}
    png = {"images": image(0, 2), "fps": 1.0, "compress_level": 4, "filename_prefix": "p", **metadata}
    run_ours("SaveAnimatedPNG", png)
    found = chunks(folders / "output" / "p_00001_.png")
    expected = {"prompt": metadata["prompt"], **metadata["extra_pnginfo"]}
    comf = [data for kind, data in found if kind == b"comf"]
    assert comf == [f"{key}\0{json.dumps(value)}".encode() for key, value in expected.items()]
    assert [kind for kind, _ in found][-4:] == [b"comf"] * 3 + [b"IEND"]
    run_ours("SaveAnimatedWEBP", {**WEBP_OPTIONS, "images": image(0, 2), "filename_prefix": "w", **metadata})
    with Image.open(folders / "output" / "w_00001_.webp") as saved:
        exif = saved.getexif()
    tags = {0x0110: "prompt", 0x010F: "workflow", 0x010E: "more"}
    assert dict(exif) == {tag: f"{key}:{json.dumps(expected[key])}" for tag, key in tags.items()}


@pytest.mark.parametrize("prefix", ["", "folder/", "./"])
def test_a_prefix_without_a_name_overwrites_nothing(prefix: str, folders: Path) -> None:
    """Where ComfyUI counts from 1 again each time."""
    saved = [run_ours("SaveImage", {"images": image(), "filename_prefix": prefix})["ui"]["images"][0] for _ in range(3)]
    assert len({file["filename"] for file in saved}) == 3


def test_counters_go_on_behind_files_of_either_form(folders: Path) -> None:
    for name in ("a_00007_.png", "a_00009.txt", "a_x.txt", "ab_00050_.png"):
        (folders / "output" / name).touch()
    ui = run_ours("SaveText", {"text": "t", "filename_prefix": "a", "format": "txt"})["ui"]
    assert ui["files"] == [{"filename": "a_00010.txt", "subfolder": "", "type": "output"}]
    ui = run_ours("SaveImage", {"images": image(), "filename_prefix": "a"})["ui"]
    assert ui["images"][0]["filename"] == "a_00011_.png"


def test_a_saved_latent_loads_as_it_was(folders: Path) -> None:
    samples = latent(0, 2)["samples"].transpose(2, 3)
    metadata = {"prompt": {"1": {}}, "extra_pnginfo": {"workflow": {"nodes": []}}}
    ui = run_ours("SaveLatent", {"samples": {"samples": samples}, "filename_prefix": "l/x", **metadata})["ui"]
    assert ui == {"latents": [{"filename": "x_00001_.latent", "subfolder": "l", "type": "output"}]}
    loaded = first("LoadLatent", latent="l/x_00001_.latent [output]")
    assert torch.equal(loaded["samples"], samples)
    with safe_open(folders / "output" / "l" / "x_00001_.latent", "pt") as file:
        assert file.metadata() == {"prompt": '{"1": {}}', "workflow": '{"nodes": []}'}


def test_load_latent_lists_its_files_and_names_a_missing_one(folders: Path) -> None:
    for name in ("b.latent", "a.latent", "c.png"):
        (folders / "input" / name).touch()
    node = NODE_CLASS_MAPPINGS["LoadLatent"]
    assert node.INPUT_TYPES()["required"]["latent"] == [["a.latent", "b.latent"]]
    assert node.VALIDATE_INPUTS(latent="a.latent") is True
    assert node.VALIDATE_INPUTS(latent="gone.latent") == "Invalid latent file: gone.latent"
    assert node.IS_CHANGED(latent="a.latent") == hashlib.sha256(b"").hexdigest()


def test_a_drawing_carries_its_prompt(folders: Path) -> None:
    inputs = {"svg": {"$svg": SVG_TEXTS}, "filename_prefix": "%batch_num%", "prompt": {"1": "ü"}}
    names = [file["filename"] for file in run_ours("SaveSVGNode", inputs)["ui"]["images"]]
    assert names == ["0_00001_.svg", "1_00002_.svg", "2_00003_.svg"]
    first_text = (folders / "output" / names[0]).read_text(encoding="utf-8")
    assert first_text.startswith("<svg width='1'>\n  <metadata>")
    found = re.search(r"<!\[CDATA\[(.*)\]\]>", first_text, re.DOTALL)
    assert found is not None
    assert json.loads(found.group(1)) == {"prompt": {"1": "ü"}}
    assert (folders / "output" / names[2]).read_text(encoding="utf-8") == SVG_TEXTS[2]


def test_a_webcam_s_picture_is_read_where_the_editor_put_it(folders: Path) -> None:
    Image.new("RGB", (3, 2), (255, 0, 0)).save(folders / "temp" / "shot.png")
    camera = {"width": 3, "height": 2, "capture_on_queue": True}
    shot = first("WebcamCapture", image="shot.png [temp]", **camera)
    assert shot[0, 0, 0].tolist() == [1.0, 0.0, 0.0]
    changed = NODE_CLASS_MAPPINGS["WebcamCapture"].IS_CHANGED(image="shot.png [temp]", **camera)
    assert changed == NODE_CLASS_MAPPINGS["LoadImage"].IS_CHANGED(image="shot.png [temp]")


def test_compared_images_are_previews_of_both_sides(folders: Path) -> None:
    ui = run_ours("ImageCompare", {"image_a": image(0, 2), "image_b": image(), "compare_view": None})["ui"]
    names = [file["filename"] for side in ("a_images", "b_images") for file in ui[side]]
    assert [re.sub(r"_temp_[a-z]{5}_", "*", name) for name in names] == [
        "comfy.compare.a*00001_.png",
        "comfy.compare.a*00002_.png",
        "comfy.compare.b*00001_.png",
    ]
    assert set(names) == {path.name for path in (folders / "temp").iterdir()}
    assert run_ours("ImageCompare", {})["ui"] == {"a_images": [], "b_images": []}


def test_a_data_set_must_lie_in_the_output_folder(folders: Path) -> None:
    inputs = {"images": [image()], "filename_prefix": ["x"], "mode": ["overwrite"]}
    (folders / "elsewhere").mkdir()
    (folders / "output" / "link").symlink_to(folders / "elsewhere")
    for folder in ("../escaped", str(folders / "absolute"), "link"):
        with pytest.raises(ValueError, match="resolves outside of"):
            run_ours("SaveImageDataSetToFolder", {**inputs, "folder_name": [folder]})
    assert not (folders / "escaped").exists()
    for mode in ("overwrite", "increment"):
        with pytest.raises(Exception, match="outside"):
            run_ours(
                "SaveImageDataSetToFolder",
                {**inputs, "folder_name": ["set"], "filename_prefix": ["../../x"], "mode": [mode]},
            )
    assert not list(folders.glob("x*"))
    run_ours("SaveImageTextDataSetToFolder", {**inputs, "folder_name": ["set"], "texts": ["é"]})
    assert {path.name for path in (folders / "output" / "set").iterdir()} == {"x_00000.png", "x_00000.txt"}
    # What is in a folder's name stays there.
    run_ours("SaveImageTextDataSetToFolder", {**inputs, "folder_name": ["a.png"], "texts": ["é"]})
    assert {path.name for path in (folders / "output" / "a.png").iterdir()} == {"x_00000.png", "x_00000.txt"}


def test_text_is_drawn_at_its_edge_in_its_color() -> None:
    options = {"text": "Ay", "font_size": 20.0, "color": "#00ff00", "align": "center", "outline": False}
    black = torch.zeros(2, 60, 80, 3)
    drawn = {
        position: first("TextOverlay", images=black, position=position, **options) for position in ("top", "bottom")
    }
    for result in drawn.values():
        assert torch.equal(result[0], result[1])
        assert result[..., 1].max() > 0.8
        assert result[..., (0, 2)].max() == 0.0
    assert drawn["top"][:, 30:].max() == 0.0
    assert drawn["bottom"][:, :30].max() == 0.0


@pytest.mark.parametrize(
    ("size", "expected"), [((10, 10), (1024, 1024)), ((30, 10), (1568, 672)), ((9, 16), (752, 1392))]
)
def test_kontext_sizes_are_the_ones_of_the_nearest_proportions(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert first("FluxKontextImageScale", image=image(0, 1, *size)).shape[1:3] == expected


def test_tiles_too_small_to_get_on_are_refused() -> None:
    """Where ComfyUI never ends."""
    for width in (1, 2):
        tile = image(0, 1, 3, width)
        with pytest.raises(ValueError, match=f"tiles of {width} pixels that overlap by 5"):
            run_ours(
                "ImageMergeTileList", {"image_list": [tile], "final_width": [9], "final_height": [9], "overlap": [5]}
            )


@pytest.mark.parametrize("way", ["scale width", "scale height", "scale dimensions"])
def test_an_edge_of_0_leaves_a_picture_as_it_is(way: str) -> None:
    """To the last bit: lanczos goes by 8 bits per channel."""
    picture = torch.rand(1, 3, 4, 3)
    node_class: Any = NODE_CLASS_MAPPINGS["ResizeImageMaskNode"]
    chosen = {"resize_type": way, "width": 0, "height": 0, "crop": "center"}
    assert torch.equal(node_class.execute(picture, "lanczos", chosen)[0], picture)


# -- colours of other images -----------------------------------------------------------------------------------------


def _mild_images(seed: int, count: int, channels: int = 3) -> torch.Tensor:
    """Images of colours that stay within sRGB when they are moved a little."""
    spread, middle = torch.rand(channels, generator=torch.manual_seed(seed)) * 0.1 + 0.1, 0.4 + seed / 50
    return middle + spread * (torch.rand(count, 12, 10, channels) - 0.5)


def _transfer(target: torch.Tensor, reference: torch.Tensor, method: str, way: str, **more: Any) -> torch.Tensor:
    statistics = {"source_stats": way, "target_index": more.pop("index", 0)}
    node_class: Any = NODE_CLASS_MAPPINGS["ColorTransfer"]
    result: torch.Tensor = node_class.execute(target, reference, method, statistics, **more)[0]
    return result


def _lab_statistics(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of all pixels in L*a*b*."""
    lab = torch.cat([color_transfer.rgb_to_lab(image) for image in images], dim=1)
    return lab.mean(1), torch.cov(lab, correction=0)


@pytest.mark.parametrize("method", ["reinhard_lab", "mkl_lab"])
def test_recoloured_images_have_the_statistics_of_the_others(method: str) -> None:
    target, reference = _mild_images(1, 3), _mild_images(5, 2)
    mean, covariance = _lab_statistics(_transfer(target, reference, method, "uniform"))
    wanted_mean, wanted_covariance = _lab_statistics(reference)
    assert torch.allclose(mean, wanted_mean, atol=0.05)
    if method == "mkl_lab":
        assert torch.allclose(covariance, wanted_covariance, atol=0.3)
    else:
        assert torch.allclose(covariance.diag(), wanted_covariance.diag(), atol=0.3)
    # Frame by frame, those beyond the others are like the last of them.
    for number, frame in enumerate(_transfer(target, reference, method, "per_frame")):
        wanted_mean, _ = _lab_statistics(reference[min(number, 1)][None])
        assert torch.allclose(_lab_statistics(frame[None])[0], wanted_mean, atol=0.05)
    # By one frame: that one is then like the others, and the frames differ as before.
    by_one = _transfer(target, reference, method, "target_frame", index=99)
    assert torch.allclose(_lab_statistics(by_one[2:])[0], _lab_statistics(reference)[0], atol=0.05)


def test_a_histogram_keeps_the_order_of_values() -> None:
    """The darkest pixel gets the darkest value there is, and so on."""
    target = (torch.arange(4.0) / 10).reshape(1, 1, 4, 1).expand(1, 1, 4, 3)
    reference = torch.tensor([0.9, 0.1, 0.5, 0.7]).reshape(1, 1, 4, 1).expand(1, 1, 4, 3)
    matched = _transfer(target, reference, "histogram", "per_frame")
    assert torch.allclose(matched[0, 0, :, 0], torch.tensor([0.1, 0.5, 0.7, 0.9]), atol=1 / 255)
    half = _transfer(target, reference, "histogram", "uniform", strength=0.5)
    assert torch.allclose(half, (target + matched) / 2, atol=1e-6)


def test_the_statistics_of_all_images_are_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each image, which takes the square of their number."""
    converted: list[Any] = []
    convert = color_transfer.rgb_to_lab
    monkeypatch.setattr(color_transfer, "rgb_to_lab", lambda image: converted.append(1) or convert(image))
    _transfer(_mild_images(1, 6), _mild_images(2, 1), "reinhard_lab", "uniform")
    # Two passes over the seven images, and the transform.
    assert len(converted) == 2 * 7 + 6


@pytest.mark.parametrize(("method", "channels"), [("reinhard_lab", 4), ("mkl_lab", 4), ("histogram", 4)])
def test_colours_with_alpha_are_refused(method: str, channels: int) -> None:
    """Their numbers would be taken for others."""
    with pytest.raises(ValueError, match=f"image_target has {channels} channels and image_ref 3"):
        _transfer(_mild_images(1, 1, channels), _mild_images(2, 1), method, "uniform")
