"""The examples: each script is run as a user runs it, in an empty folder, and what it made is looked at.

On the embedded server, and, where COMFYUI_PATH names one, on a real ComfyUI, whose pictures must be the same. The two
that need models run on the embedded server with a pack that stands in for the nodes, and on the real one with models
that are made here: tiny, with random weights. examples/refine.py has a file of its own, test_demo.py.
"""

from __future__ import annotations

import ast
import csv
import glob
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
MODEL_PACK = ROOT / "tests" / "model_pack"
PHOTOS = ["meadow", "mountains", "night", "sea"]

# Those that can be started; the others are helpers.
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py") if "__main__" in path.read_text(encoding="utf-8"))
WITH_MODELS = ["text_to_image.py", "upscale_folder.py"]
# Those whose pictures are the same on every server: all that need no model and draw no seeds.
SAME_EVERYWHERE = [
    name for name in SCRIPTS if name not in (*WITH_MODELS, "refine.py", "survive_a_crash.py")
]  # fmt: skip
# Seconds that a script may take, where eight others compute on the same machine.
PATIENCE = 500

Picture = np.ndarray[Any, Any]


class Made(NamedTuple):
    """What a script printed, and the folder of its results."""

    printed: str
    folder: Path

    def picture(self, name: str) -> Picture:
        return read_picture(self.folder / name)


def read_picture(path: Path) -> Picture:
    """A picture [H,W,C] of integers."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def run_script(name: str, folder: Path, comfyui: str, *words: str, status: int = 0, **environment: str) -> Made:
    """Run an example in a folder; fails where it does not end as it should, or complains."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *words],
        cwd=folder,
        env={**os.environ, "COMFYUI_PATH": comfyui, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == status, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    return Made(done.stdout + done.stderr, folder / "discomfort-results" / Path(name).stem)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Made]:
    """``made(name)``: what the example of this name makes on the embedded server; it runs once."""
    known: dict[str, Made] = {}

    def make(name: str) -> Made:
        if name not in known:
            folder = tmp_path_factory.mktemp("example")
            known[name] = run_script(name, folder, "embedded")
            assert [path.name for path in folder.iterdir()] == ["discomfort-results"]
            assert [path.name for path in known[name].folder.parent.iterdir()] == [Path(name).stem]
        return known[name]

    return make


@pytest.fixture(autouse=True)
def nothing_is_left(nested: SimpleNamespace) -> Iterator[None]:
    """No process, no private folder, and no values of runs whose script has ended."""
    yield
    from discomfort.workflow_context import list_contexts

    def left() -> list[Any]:
        dead = [one.run_id for one in list_contexts() if not one.is_alive]
        return [*nested.processes(), *nested.folders(), *dead, *glob.glob("/dev/shm/discomfort-test-*")]

    deadline = time.monotonic() + 15
    while found := left():
        assert time.monotonic() < deadline, f"left behind: {found}"
        time.sleep(0.05)


# ------------------------------------------------------------------------------------------------------ what they are


def test_there_are_enough_and_the_readme_lists_them() -> None:
    """Each with its workflows; and no row is about a script that is not there."""
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    rows = {row.split("](")[0].removeprefix("| ["): row for row in readme.splitlines() if row.startswith("| [")}
    assert len(SCRIPTS) >= 8
    assert sorted(rows) == SCRIPTS
    for name, row in rows.items():
        linked = re.findall(r"\]\(workflows/([^)]+)\)", row)
        assert sorted(linked) == [workflow for workflow in workflows() if uses(name, workflow)], name
        assert ("ComfyUI;" in row) == (name in WITH_MODELS)
    for link in re.findall(r"\]\(([^)]+)\)", readme):
        assert (EXAMPLES / link).exists(), link


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_is_short_and_says_what_it_does(name: str) -> None:
    source = (EXAMPLES / name).read_text(encoding="utf-8")
    assert len(source.splitlines()) < 60
    tree = ast.parse(source)
    docstring = ast.get_docstring(tree) or ""
    assert re.fullmatch(r"[A-Z].{30,}[.:]", docstring.splitlines()[0]), docstring
    assert 'Path.cwd() / "discomfort-results"' in source
    assert "Path(__file__).parent" in source


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != "refine.py"])
def test_it_needs_nothing_but_the_package(name: str) -> None:
    """What `pip install discomfort[embedded]` brings, and Python's own modules."""
    brought = {"discomfort", "torch", "PIL", "numpy", "aiohttp"} | {path.stem for path in EXAMPLES.glob("*.py")}
    tree = ast.parse((EXAMPLES / name).read_text(encoding="utf-8"))
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module.split(".")[0] for module in found} <= brought | set(sys.stdlib_module_names)
    assert "matplotlib" not in found


@pytest.mark.parametrize("name", WITH_MODELS)
def test_its_docstring_says_which_model_it_needs(name: str) -> None:
    docstring = ast.get_docstring(ast.parse((EXAMPLES / name).read_text(encoding="utf-8"))) or ""
    assert re.search(r"It needs a ComfyUI \(COMFYUI_PATH\) with .*models/", docstring, flags=re.DOTALL)


def workflows() -> list[str]:
    """Those that scripts use, in the order of their names."""
    return sorted(
        {name for script in SCRIPTS for name in re.findall(r"\w+\.json", (EXAMPLES / script).read_text("utf-8"))}
        & {path.name for path in (EXAMPLES / "workflows").glob("*.json")}
    )


@pytest.mark.parametrize("name", workflows())
def test_its_workflow_can_be_read_in_the_editor(name: str) -> None:
    """No node lies on another; ports have titles, a note says what it does; core nodes only, where no model is."""
    text = (EXAMPLES / "workflows" / name).read_text(encoding="utf-8")
    assert not any(word in text for word in ("/root", "/home", "/tmp", "127.0.0.1"))
    nodes = json.loads(text)["nodes"]
    for one in nodes:
        for other in nodes:
            if one["id"] < other["id"]:
                (x, y), (w, h), (u, v), (s, t) = (one["pos"], one["size"], other["pos"], other["size"])
                # The title bar stands 30 pixels above a node.
                assert x + w < u or u + s < x or y + h < v - 30 or v + t < y - 30, f"{one['id']} on {other['id']}"
    ports = [node for node in nodes if node["type"] == "DiscomfortPort"]
    assert all(node["title"].startswith(node["widgets_values"][0]) for node in ports)
    if name != "refine.json":
        [note] = [node for node in nodes if node["type"] == "MarkdownNote"]
        assert "It is run by **" in note["widgets_values"][0]
        assert all(f"**{script}**" in note["widgets_values"][0] for script in SCRIPTS if uses(script, name))
    from discomfort.embedded.core_nodes import NODE_CLASS_MAPPINGS

    unknown = {node["type"] for node in nodes} - set(NODE_CLASS_MAPPINGS) - {"DiscomfortPort", "MarkdownNote"}
    assert bool(unknown) == (name in ("load.json", "sample.json", "upscale.json")), unknown


def uses(script: str, workflow: str) -> bool:
    return f'"{workflow}"' in (EXAMPLES / script).read_text(encoding="utf-8")


def test_the_photographs_are_small_and_can_be_drawn_again(tmp_path: Path) -> None:
    """By the tool that made them; the JPEG encoder may be another."""
    subprocess.run([sys.executable, str(ROOT / "tools" / "make_photos.py"), str(tmp_path)], check=True)
    files = sorted((EXAMPLES / "photos").iterdir())
    assert [path.name for path in files] == [f"{name}.jpg" for name in PHOTOS]
    pictures = [read_picture(path) for path in files]
    for path, picture in zip(files, pictures, strict=True):
        assert path.stat().st_size <= 80_000
        assert picture.shape == (512, 768, 3)
        assert np.abs(picture - read_picture(tmp_path / path.name)).mean() < 3
    assert all(np.abs(one - other).mean() > 25 for i, one in enumerate(pictures) for other in pictures[:i])


# --------------------------------------------------------------------------------------------------- what they make


def test_sweep(made: Callable[[str], Made]) -> None:
    """A row and a picture for each combination; more colours, less error."""
    found = made("sweep.py")
    with (found.folder / "sweep.csv").open() as file:
        rows = [(row["dither"], int(row["colors"]), float(row["error"])) for row in csv.DictReader(file)]
    assert [row[:2] for row in rows] == [
        (dither, colors) for dither in ("none", "bayer-4", "floyd-steinberg") for colors in (4, 8, 16, 32)
    ]
    for dither in ("none", "bayer-4", "floyd-steinberg"):
        errors = [error for name, _, error in rows if name == dither]
        assert errors == sorted(errors, reverse=True)
        assert 0 < errors[-1] < errors[0] < 0.15
    sheet = found.picture("sweep.png")
    assert sheet.shape == (900, 1600, 3)
    few, many = (len(np.unique(sheet[8:264, x : x + 384].reshape(-1, 3), axis=0)) for x in (8, 1208))
    assert few < many


def test_branch(made: Callable[[str], Made]) -> None:
    """The dark picture is brightened, the others are sharpened."""
    found = made("branch.py")
    ways = dict(re.findall(r"^(\w+)\.jpg .* -> (\w+)\.json", found.printed, flags=re.MULTILINE))
    assert ways == {name: "brighten" if name == "night" else "sharpen" for name in PHOTOS}
    for name in PHOTOS:
        before, after = read_picture(EXAMPLES / "photos" / f"{name}.jpg"), found.picture(f"{name}.png")
        assert after.shape == before.shape
        if name == "night":
            assert after.mean() > before.mean() * 1.4
        else:
            assert abs(after.mean() - before.mean()) < 3
            assert roughness(after) > 1.15 * roughness(before)


def roughness(picture: Picture) -> float:
    """How much neighbours differ."""
    return float(np.abs(np.diff(picture, axis=1)).mean())


def test_batch_folder(made: Callable[[str], Made]) -> None:
    """A postcard of each picture, in a table."""
    found = made("batch_folder.py")
    assert "4 items: 4 done" in found.printed
    for name in PHOTOS:
        picture = found.picture(f"outputs/image/{name}.png")
        assert picture.shape == (336, 480, 3)
        assert picture[:24].min() == 255  # the paper
        assert picture[24:-24, 24:-24].mean() < 200
    with (found.folder / "results.csv").open() as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["done"] * 4


def test_batch_folder_goes_on(tmp_path: Path) -> None:
    """The second time only what is missing is made; a broken file among them does not end it."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("night", "sea"):
        shutil.copy(EXAMPLES / "photos" / f"{name}.jpg", folder)
    first = run_script("batch_folder.py", tmp_path, "embedded", str(folder))
    assert "2 items: 2 done" in first.printed
    (first.folder / "outputs" / "image" / "sea.png").unlink()
    (folder / "broken.jpg").write_bytes(b"no picture")
    second = run_script("batch_folder.py", tmp_path, "embedded", str(folder))
    states = dict(re.findall(r"^(\w+)\.jpg: ([\w ]+) after", second.printed, flags=re.MULTILINE))
    assert states == {"night": "done before", "sea": "done", "broken": "failed"}
    assert "3 items: 1 done, 1 done before, 1 failed" in second.printed
    assert second.picture("outputs/image/sea.png").shape == (336, 480, 3)


def test_survive_a_crash(made: Callable[[str], Made]) -> None:
    """The child is killed, five of its steps are taken over, and the pictures are those of an undisturbed run."""
    found = made("survive_a_crash.py")
    check_survival(found)
    frames = [found.picture(f"outputs/image/iteration-{number:05}.png") for number in range(8)]
    photo = read_picture(EXAMPLES / "photos" / "mountains.jpg")
    distances = [np.abs(frame - photo).mean() for frame in frames]
    assert all(later > earlier for earlier, later in itertools.pairwise(distances))  # grain adds up


def check_survival(found: Made) -> None:
    assert "ended with status -9" in found.printed
    assert "5 steps of 8 were taken" in found.printed
    assert "identical, bit for bit" in found.printed
    [seeds] = [line.split() for line in found.printed.splitlines() if re.fullmatch(r"[\d ]{20,}", line)]
    assert len(set(seeds)) == 8
    assert (found.folder / "report.html").stat().st_size > 10_000


def test_many_contexts(made: Callable[[str], Made]) -> None:
    """Each run has its own picture; the second run and the other process see the shared one."""
    found = made("many_contexts.py")
    assert len(set(re.findall(r": run (\w{8}),", found.printed))) == 4
    assert "Another process sees ['image'], the image has the shape (1, 336, 480, 3)" in found.printed
    for name in PHOTOS:
        before, after = read_picture(EXAMPLES / "photos" / f"{name}.jpg"), found.picture(f"{name}.png")
        assert np.abs(after - before).mean() < 12
    assert found.picture("postcard.png").shape == (336, 480, 3)


def test_connector_alone(made: Callable[[str], Made]) -> None:
    """The photograph above its reflection; what was uploaded is gone."""
    found = made("connector_alone.py")
    picture = found.picture("mirror.png")
    assert picture.shape == (1024, 768, 3)
    assert np.array_equal(picture[512:], picture[511::-1])
    assert np.abs(picture[:512] - read_picture(EXAMPLES / "photos" / "night.jpg")).max() <= 1
    assert "execution_success" in found.printed
    assert "It is killed." in found.printed
    assert not list(Path(os.environ["XDG_DATA_HOME"]).rglob("night.jpg"))


def test_stitch(made: Callable[[str], Made]) -> None:
    """One workflow with one port on each side, without those between the two."""
    from discomfort.workflow_graph import discover_ports

    found = made("stitch.py")
    assert "They give the same picture: True" in found.printed
    ports = discover_ports(found.folder / "stitched.json")
    assert [(port.unique_id, port.mode) for port in ports] == [("image", "INPUT"), ("image", "OUTPUT")]
    types = [node["type"] for node in json.loads((found.folder / "stitched.json").read_text())["nodes"]]
    assert types.count("DiscomfortPort") == 2
    assert {"ImageBlend", "ImageCompositeMasked"} <= set(types)
    assert found.picture("stitched.png").shape == (336, 480, 3)


def test_watch(made: Callable[[str], Made]) -> None:
    """Every iteration, step and node, in their order, at times that go up."""
    lines = [line for line in made("watch.py").printed.splitlines() if re.match(r" *\d+\.\d{3} s ", line)]
    times = [float(line.split()[0]) for line in lines]
    assert times == sorted(times)
    said = [line[11:].strip() for line in lines]
    assert [line for line in said if line.startswith("iteration")] == [f"iteration {n} of 3" for n in (1, 2, 3)]
    assert [line for line in said if line.endswith(".json")] == ["brighten.json", "sharpen.json"] * 3
    assert said.count("Screen with itself (ImageBlend)") == said.count("Sharpen (ImageSharpen)") == 3
    assert said[-1] == "3 iterations are done"


def test_zoom(made: Callable[[str], Made]) -> None:
    """A film that goes there and back; the last picture is what lies around the boat."""
    found = made("zoom.py")
    with Image.open(found.folder / "zoom.webp") as film:
        assert (film.n_frames, film.size) == (64, (480, 320))
    with Image.open(EXAMPLES / "photos" / "sea.jpg") as photo:
        part = (738 / 768) ** 32
        left, top = 19 * 768 / 30 * (1 - part), 12 * 512 / 20 * (1 - part)
        seen = photo.resize((768, 512), box=(left, top, left + 768 * part, top + 512 * part))
        assert np.abs(np.asarray(seen).astype(int) - found.picture("nearest.png")).mean() < 8
        assert np.abs(np.asarray(photo).astype(int) - found.picture("nearest.png")).mean() > 20


@pytest.mark.real_comfyui
@pytest.mark.parametrize("name", SAME_EVERYWHERE)
def test_comfyui_makes_the_same_pictures(
    made: Callable[[str], Made], tmp_path: Path, real_comfyui: Path, name: str
) -> None:
    """Within one step of 255: float rounding may fall on either side.

    But where the server itself opens a JPEG: late ComfyUI (0.33.0) has another decoder.
    """
    before = sorted(path for path in (real_comfyui / "input").rglob("*") if path.is_file())
    ours, theirs = made(name), run_script(name, tmp_path, str(real_comfyui))
    names = sorted(str(path.relative_to(ours.folder)) for path in ours.folder.rglob("*.png"))
    assert names
    for picture in names:
        difference = np.abs(ours.picture(picture) - theirs.picture(picture))
        if name == "connector_alone.py":
            assert difference.mean() < 2, picture
        else:
            assert difference.max() <= 1, picture
    assert sorted(path for path in (real_comfyui / "input").rglob("*") if path.is_file()) == before


@pytest.mark.real_comfyui
def test_a_crash_is_survived_on_comfyui(tmp_path: Path, real_comfyui: Path) -> None:
    """Its seeds are drawn, so its pictures are others; they are compared with each other."""
    check_survival(run_script("survive_a_crash.py", tmp_path, str(real_comfyui)))


# ------------------------------------------------------------------------------------------------ those with models


@pytest.mark.parametrize("name", WITH_MODELS)
def test_without_a_model_it_ends_with_one_sentence(tmp_path: Path, name: str) -> None:
    found = run_script(name, tmp_path, "embedded", status=1)
    [line] = found.printed.splitlines()
    assert re.search(r"no models\).* has no model for this: put one into models/\w+ of your ComfyUI", line)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def stand_ins(tmp_path: Path) -> dict[str, str]:
    """Variables that give the embedded server the pack and the names of two models."""
    base = tmp_path / "data" / "discomfort" / "embedded"
    (base / "custom_nodes").mkdir(parents=True)
    (base / "custom_nodes" / "model_pack").symlink_to(MODEL_PACK, target_is_directory=True)
    for model in ("checkpoints/tiny.safetensors", "upscale_models/tiny.pth"):
        (base / "models" / model).parent.mkdir(parents=True)
        (base / "models" / model).touch()
    return {"XDG_DATA_HOME": str(tmp_path / "data"), "MODEL_PACK_LOG": str(tmp_path / "log.txt")}


@pytest.fixture
def small_photos(tmp_path: Path) -> Path:
    """A folder of two small pictures."""
    folder = tmp_path / "small"
    folder.mkdir()
    for name in ("night", "sea"):
        with Image.open(EXAMPLES / "photos" / f"{name}.jpg") as photo:
            photo.resize((48, 32)).save(folder / f"{name}.png")
    return folder


def check_paintings(found: Made, size: int) -> None:
    """A picture for each prompt and seed; each is another."""
    files = sorted(path.name for path in found.folder.iterdir())
    assert files == [f"{prompt}-seed-{seed}.png" for prompt in range(3) for seed in (1, 2)]
    pictures = [found.picture(name) for name in files]
    assert all(picture.shape == (size, size, 3) for picture in pictures)
    for i, one in enumerate(pictures):
        assert one.std() > 1
        assert all(not np.array_equal(one, other) for other in pictures[:i]), files[i]


def check_enlarged(found: Made, folder: Path) -> None:
    """Both pictures, twice as large."""
    assert "2 items: 2 done" in found.printed
    for path in folder.iterdir():
        assert found.picture(f"outputs/image/{path.stem}.png").shape == (64, 96, 3)


def test_text_to_image_loads_the_checkpoint_once(tmp_path: Path, stand_ins: dict[str, str]) -> None:
    words = ("--steps", "3", "--size", "64")
    found = run_script("text_to_image.py", tmp_path, "embedded", *words, **stand_ins)
    check_paintings(found, 64)
    notes = Path(stand_ins["MODEL_PACK_LOG"]).read_text().splitlines()
    assert notes == ["load tiny.safetensors", *["sample tiny.safetensors"] * 6]
    unknown = run_script("text_to_image.py", tmp_path, "embedded", "--checkpoint", "no.ckpt", status=1, **stand_ins)
    assert unknown.printed == "no.ckpt is not in models/checkpoints; there are: tiny.safetensors.\n"


def test_upscale_folder_loads_the_model_once_and_goes_on(
    tmp_path: Path, stand_ins: dict[str, str], small_photos: Path
) -> None:
    found = run_script("upscale_folder.py", tmp_path, "embedded", str(small_photos), **stand_ins)
    check_enlarged(found, small_photos)
    assert Path(stand_ins["MODEL_PACK_LOG"]).read_text() == "load tiny.pth\n"
    again = run_script("upscale_folder.py", tmp_path, "embedded", str(small_photos), **stand_ins)
    assert "2 items: 2 done before" in again.printed


# Models that ComfyUI takes for a Stable Diffusion 1.x checkpoint and for an ESRGAN, made by its own code: a UNet of two
# levels with the widths by which it is recognised, the text encoder, and a TAESD; and one block with eight features.
MAKE_MODELS = """
import sys, torch
from pathlib import Path
from comfy.cli_args import args
args.cpu = True
import comfy.ops
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.sd1_clip import SDClipModel
from comfy.taesd.taesd import TAESD
from spandrel.architectures.ESRGAN import ESRGAN

random = torch.Generator().manual_seed(1)

def fill(model, prefix):
    filled = {}
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            # Rows overlap in memory, so that a file of some megabytes holds millions of weights.
            strides = [1 + 2 * i for i in reversed(range(value.dim()))]
            length = 1 + sum(stride * (size - 1) for stride, size in zip(strides, value.shape))
            value = (torch.randn(length, generator=random) / 20).as_strided(value.shape, strides)
            if "norm" in key and key.endswith("weight"):
                value = value + 1
        filled[prefix + key] = value
    return filled

unet = UNetModel(
    image_size=32, in_channels=4, out_channels=4, model_channels=320, num_res_blocks=[1, 1], channel_mult=[1, 1],
    transformer_depth=[0, 1], transformer_depth_output=[0, 0, 1, 1], transformer_depth_middle=1, num_heads=8,
    context_dim=768, use_spatial_transformer=True, legacy=False, dtype=torch.float32,
    operations=comfy.ops.disable_weight_init,
)
folder = Path(sys.argv[1])
for name in ("checkpoints", "upscale_models"):
    (folder / name).mkdir()
clip = SDClipModel(device="cpu", dtype=torch.float32).transformer
weights = {
    **fill(unet, "model.diffusion_model."),
    **fill(clip, "cond_stage_model.transformer."),
    **fill(TAESD(latent_channels=4), "first_stage_model."),
}
torch.save(weights, folder / "checkpoints" / "tiny.ckpt")
torch.save(fill(ESRGAN(num_filters=8, num_blocks=1, scale=2), ""), folder / "upscale_models" / "tiny.pth")
"""


@pytest.fixture(scope="module")
def python_with_models(real_comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter for the real ComfyUI, which tells it of a folder with tiny models; its own tree is as it was."""
    folder = tmp_path_factory.mktemp("models")
    python = next(p for p in (*real_comfyui.glob("*venv/bin/python"), Path(sys.executable)) if p.exists())
    environment = {**os.environ, "PYTHONPATH": str(real_comfyui), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([str(python), "-c", MAKE_MODELS, str(folder)], cwd=real_comfyui, env=environment, check=True)
    paths = folder / "paths.yaml"
    models = {"base_path": str(folder), "checkpoints": "checkpoints", "upscale_models": "upscale_models"}
    paths.write_text(json.dumps({"tiny": models}))
    script = folder / "python"
    script.write_text(
        f"#!/bin/sh\ncase \" $* \" in\n  *main.py*) exec '{python}' \"$@\" --extra-model-paths-config '{paths}' ;;\n"
        f"  *) exec '{python}' \"$@\" ;;\nesac\n"
    )
    script.chmod(0o755)
    return str(script)


@pytest.mark.real_comfyui
@pytest.mark.timeout(600)
def test_text_to_image_on_comfyui(tmp_path: Path, real_comfyui: Path, python_with_models: str) -> None:
    words = ("--checkpoint", "tiny.ckpt", "--steps", "2", "--size", "64")
    found = run_script("text_to_image.py", tmp_path, str(real_comfyui), *words, COMFYUI_PYTHON=python_with_models)
    check_paintings(found, 64)


@pytest.mark.real_comfyui
@pytest.mark.timeout(600)
def test_upscale_folder_on_comfyui(
    tmp_path: Path, real_comfyui: Path, python_with_models: str, small_photos: Path
) -> None:
    words = ("--model", "tiny.pth", str(small_photos))
    found = run_script("upscale_folder.py", tmp_path, str(real_comfyui), *words, COMFYUI_PYTHON=python_with_models)
    check_enlarged(found, small_photos)
