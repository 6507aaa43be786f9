"""Makes examples/workflows/: builds each workflow that the scripts in examples/ run, in the real editor.

    ./dev run python tools/example_scripts_workflows.py [NAME ...]

Built as in example_workflows.py, but neither run nor photographed: the scripts run them. The embedded server has a pack
that stands in for the nodes that need models (tests/model_pack); their names, inputs and outputs are ComfyUI's.
refine.json is older than this file, and is not made here.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.async_api import async_playwright

from example_workflows import (
    ADD_NODES,
    ARRANGE,
    DRAW_WIRE,
    PATIENCE,
    SETTINGS,
    SIZE,
    SLOTS,
    Example,
    Part,
    driver,
    note,
    outer_server,
    stable,
)

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "examples" / "workflows"
MODEL_PACK = ROOT / "tests" / "model_pack"
# Files that only have to be there, so that the loaders offer their names.
MODELS = ("checkpoints/v1-5-pruned-emaonly-fp16.safetensors", "upscale_models/RealESRGAN_x4plus.pth")


def port(unique_id: str, column: int, direction: str) -> Part:
    """A port; its name among the nodes is "image in", say, and so is its title."""
    name = f"{unique_id} {direction}"
    return Part(name, "DiscomfortPort", column, {"unique_id": unique_id}, name, (270, 0))


def filter_of_pictures(
    text: str, ports: list[str], parts: list[Part], wires: list[str], result: str = "image"
) -> Example:
    """A workflow that makes one picture of another: ports on the left, nodes, and the port of the result."""
    last = max(part.column for part in parts) + 1
    inputs = [port(name, 0, "in") for name in ports]
    return Example([note(text), *inputs, *parts, port(result, last, "out")], wires)


BRIGHTEN = filter_of_pictures(
    "Brightens a picture: **image** goes in, **image** comes out. Blending a picture with itself by *screen* lifts "
    "what is dark and leaves white as it is.\n\nIt is run by **branch.py**, **many_contexts.py**, **stitch.py** and "
    "**watch.py**.",
    ["image"],
    [
        Part(
            "screen",
            "ImageBlend",
            1,
            {"blend_factor": 0.8, "blend_mode": "screen"},
            "Screen with itself",
            (270, 0),
        )
    ],
    ["image in.output > screen.image1", "image in.output > screen.image2", "screen.IMAGE > image out.input_data"],
)

SHARPEN = filter_of_pictures(
    "Sharpens a picture: **image** goes in, **image** comes out.\n\nIt is run by **branch.py**, **many_contexts.py** "
    "and **watch.py**.",
    ["image"],
    [Part("sharpen", "ImageSharpen", 1, {"sharpen_radius": 2, "sigma": 1.0, "alpha": 0.12}, "Sharpen", (270, 0))],
    ["image in.output > sharpen.image", "sharpen.IMAGE > image out.input_data"],
)

QUANTIZE = filter_of_pictures(
    "Draws a picture with few colours. **image**, the number of **colors** and the **dither** pattern go in; "
    "**poster** comes out: another name than *image*, so that in a loop every iteration begins with the same picture. "
    "A port may feed a choice, too: *dither* takes a text.\n\nIt is run by **sweep.py**.",
    ["image", "colors", "dither"],
    [Part("quantize", "ImageQuantize", 1, {"colors": 16, "dither": "none"}, "Few colours", (270, 0))],
    [
        "image in.output > quantize.image",
        "colors in.output > quantize.colors",
        "dither in.output > quantize.dither",
        "quantize.IMAGE > poster out.input_data",
    ],
    "poster",
)

POSTCARD = filter_of_pictures(
    "Makes a postcard: **image** goes in; scaled and on white paper it comes out as **image**.\n\nIt is run by "
    "**batch_folder.py** on each picture of a folder, and by **many_contexts.py** and **stitch.py**.",
    ["image"],
    [
        Part(
            "scale",
            "ImageScale",
            1,
            {"upscale_method": "lanczos", "width": 432, "height": 288, "crop": "center"},
            "To its size",
            (270, 0),
        ),
        Part("paper", "EmptyImage", 1, {"width": 480, "height": 336, "color": 0xFFFFFF}, "Paper", (270, 0)),
        Part("paste", "ImageCompositeMasked", 2, {"x": 24, "y": 24, "resize_source": False}, "On paper", (270, 0)),
    ],
    [
        "image in.output > scale.image",
        "paper.IMAGE > paste.destination",
        "scale.IMAGE > paste.source",
        "paste.IMAGE > image out.input_data",
    ],
)

GRAIN = filter_of_pictures(
    "Adds grain to a picture and softens it: **image** goes in, **image** comes out, so that in a loop each iteration "
    "adds to the one before. The seed changes from iteration to iteration.\n\nIt is run by **survive_a_crash.py**.",
    ["image"],
    [
        Part(
            "noise",
            "ImageAddNoise",
            1,
            {"seed": 1, "control_after_generate": "randomize", "strength": 0.12},
            "Grain",
            (270, 0),
        ),
        Part("soften", "ImageBlur", 2, {"blur_radius": 1, "sigma": 0.6}, "Soften", (270, 0)),
    ],
    ["image in.output > noise.image", "noise.* > soften.image", "soften.IMAGE > image out.input_data"],
)

ZOOM = filter_of_pictures(
    "Goes a little nearer: **image** goes in; its part around the boat, as large as the whole was, comes out as "
    "**image**. In a loop that is a flight.\n\nIt is run by **zoom.py**.",
    ["image"],
    [
        Part("crop", "ImageCrop", 1, {"width": 738, "height": 492, "x": 19, "y": 12}, "A part of it", (270, 0)),
        Part(
            "scale",
            "ImageScale",
            2,
            {"upscale_method": "lanczos", "width": 768, "height": 512, "crop": "disabled"},
            "As large as the whole",
            (270, 0),
        ),
    ],
    [
        "image in.output > crop.image",
        "crop.IMAGE > scale.image",
        "scale.IMAGE > image out.input_data",
    ],
)

MIRROR = Example(
    [
        note(
            "Puts a picture above its reflection. It has no ports: it is an ordinary workflow, as any that you have "
            "saved.\n\nIt is run by **connector_alone.py**, which puts another picture into *Load Image*. Or choose "
            "one there and press *Run*.",
        ),
        Part("load", "LoadImage", 0, size=(270, 320)),
        Part("flip", "ImageFlip", 1, {"flip_method": "x-axis: vertically"}, "Upside down", (270, 0)),
        Part("stitch", "ImageStitch", 1, {"direction": "down"}, "Above each other", (270, 0)),
        Part("preview", "PreviewImage", 2, size=(400, 420)),
    ],
    [
        "load.IMAGE > flip.image",
        "load.IMAGE > stitch.image1",
        "flip.* > stitch.image2",
        "stitch.* > preview.images",
    ],
)

LOAD = Example(
    [
        note(
            "Loads a checkpoint, whose name goes in as **checkpoint**: **model**, **clip** and **vae** come out, as "
            "references. Whoever reads them gets the loaded model; nothing is copied, nothing is loaded twice.\n\nIt "
            "is run by **text_to_image.py**. It needs a checkpoint of Stable Diffusion 1.x.",
        ),
        port("checkpoint", 0, "in"),
        Part("load", "CheckpointLoaderSimple", 1, {}, "Load the checkpoint", (330, 0)),
        port("model", 2, "out"),
        port("clip", 2, "out"),
        port("vae", 2, "out"),
    ],
    [
        "checkpoint in.output > load.ckpt_name",
        "load.MODEL > model out.input_data",
        "load.CLIP > clip out.input_data",
        "load.VAE > vae out.input_data",
    ],
)

SAMPLE = Example(
    [
        note(
            "Paints a picture: **model**, **clip** and **vae** go in, as load.json delivered them, with a **prompt**, "
            "a **seed**, the number of **steps** and the **size** in pixels; **image** comes out.\n\nIt is run by "
            "**text_to_image.py**.",
        ),
        *[port(name, 0, "in") for name in ("prompt", "clip", "model", "seed", "steps", "size", "vae")],
        Part("positive", "CLIPTextEncode", 1, {"text": ""}, "What is wanted", (330, 120)),
        Part("negative", "CLIPTextEncode", 1, {"text": "blurry, text, frame"}, "What is not", (330, 120)),
        Part("latent", "EmptyLatentImage", 1, {"width": 512, "height": 512}, "Room for it", (330, 0)),
        Part(
            "sample",
            "KSampler",
            2,
            {"control_after_generate": "fixed", "steps": 20, "cfg": 7.0, "sampler_name": "euler"},
            "Sample",
            (330, 0),
        ),
        Part("decode", "VAEDecode", 3, {}, "Decode", (240, 0)),
        port("image", 4, "out"),
    ],
    [
        "prompt in.output > positive.text",
        "clip in.output > positive.clip",
        "clip in.output > negative.clip",
        "size in.output > latent.width",
        "size in.output > latent.height",
        "model in.output > sample.model",
        "positive.CONDITIONING > sample.positive",
        "negative.CONDITIONING > sample.negative",
        "latent.LATENT > sample.latent_image",
        "seed in.output > sample.seed",
        "steps in.output > sample.steps",
        "sample.LATENT > decode.samples",
        "vae in.output > decode.vae",
        "decode.IMAGE > image out.input_data",
    ],
)

UPSCALE = filter_of_pictures(
    "Enlarges a picture with a model: **image** and the name of the **upscaler** go in, **image** comes out.\n\nIt is "
    "run by **upscale_folder.py** on each picture of a folder. It needs an upscale model.",
    ["upscaler", "image"],
    [
        Part("load", "UpscaleModelLoader", 1, {}, "Load the upscale model", (330, 0)),
        Part("enlarge", "ImageUpscaleWithModel", 2, {}, "Enlarge", (270, 0)),
    ],
    [
        "upscaler in.output > load.model_name",
        "load.UPSCALE_MODEL > enlarge.upscale_model",
        "image in.output > enlarge.image",
        "enlarge.IMAGE > image out.input_data",
    ],
)

#: by the name of the file
WORKFLOWS = {
    "brighten": BRIGHTEN,
    "grain": GRAIN,
    "load": LOAD,
    "mirror": MIRROR,
    "postcard": POSTCARD,
    "quantize": QUANTIZE,
    "sample": SAMPLE,
    "sharpen": SHARPEN,
    "upscale": UPSCALE,
    "zoom": ZOOM,
}


async def make(page: Any, name: str, example: Example) -> None:
    """Build one workflow and save it."""
    # The note has a column to itself, left of the others.
    parts = [{**part._asdict(), "column": part.column + (part.name != "note")} for part in example.parts]
    await page.evaluate(ADD_NODES, parts)
    for wire in example.wires:
        (source, output), (target, socket) = (end.split(".") for end in wire.split(" > "))
        handle = await page.wait_for_function(SLOTS, arg=[source, output, target, socket], timeout=PATIENCE)
        one, other = await handle.json_value()
        await page.evaluate(DRAW_WIRE, [source, one, target, other])
    await page.evaluate(ARRANGE, parts)
    await page.wait_for_timeout(300)  # the canvas gives widgets their places when it draws
    saved = stable(f"examples/{name}", json.loads(await page.evaluate("() => JSON.stringify(app.graph.serialize())")))
    (FOLDER / f"{name}.json").write_text(json.dumps(saved, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{name}: {len(saved['nodes'])} nodes")


async def main(names: list[str]) -> None:
    """Make the workflows of these names; all if there is none."""
    with tempfile.TemporaryDirectory() as base:
        for model in MODELS:
            path = Path(base) / "models" / model
            path.parent.mkdir(parents=True)
            path.touch()
        (Path(base) / "input").mkdir()
        (Path(base) / "input" / "example.png").touch()
        with outer_server.outer_server("embedded", Path(base), packs=[MODEL_PACK]) as server:
            (server.user_folder / "comfy.settings.json").write_text(json.dumps(SETTINGS))
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(executable_path=driver.browser_path(), args=["--no-sandbox"])
                page = await browser.new_page(viewport=SIZE)
                await page.goto(server.url)
                await page.wait_for_function(
                    "() => window.app?.extensionManager?.workflow?.activeWorkflow && app.canvas", timeout=PATIENCE
                )
                for name in names or WORKFLOWS:
                    await make(page, name, WORKFLOWS[name])
                await browser.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
