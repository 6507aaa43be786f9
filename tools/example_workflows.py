"""Makes example_workflows/: builds every example in the real editor, runs it, and takes the picture of it.

    ./dev run python tools/example_workflows.py [NAME ...]

ComfyUI shows the examples in Browse Templates, each with the picture of its name; runner nodes find them by name.
They are made of this package's nodes and of core nodes that every ComfyUI has, so that all of them run without a model.
Each is built as a person would: nodes are added, workflows chosen, and wires drawn to the sockets that then appear.
"""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import math
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from playwright.async_api import ViewportSize, async_playwright

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "example_workflows"
# The driver and the server of the tests. Tests are not part of the typed package.
sys.path.insert(0, str(ROOT / "tests"))
driver: Any = importlib.import_module("conformance.driver")
outer_server: Any = importlib.import_module("outer_server")
fake_openai: Any = importlib.import_module("fake_openai")

# Of the page, and of the picture that is made of it: both 16:9.
SIZE = ViewportSize(width=1600, height=900)
THUMBNAIL = (960, 540)
# Bytes of a picture.
LIMIT = 60_000
# Milliseconds: for what the page does, and for a run, which has to start a server first.
PATIENCE, RUN_PATIENCE = 30_000, 180_000

SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.InstalledVersion": "99.0.0",
    "Comfy.Release.Status": "skipped",
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.VueNodes.Enabled": False,
    "Comfy.Graph.CanvasMenu": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.UseNewMenu": "Disabled",
    "Comfy.Sidebar.Location": "right",
}


class Part(NamedTuple):
    """A node. Nodes of a column stand below each other."""

    #: what wires call it
    name: str
    type: str
    column: int
    widgets: dict[str, Any] = {}  # noqa: RUF012 - a default that nobody changes
    title: str | None = None
    #: at least so large
    size: tuple[int, int] = (0, 0)


class Example(NamedTuple):
    """A workflow: its nodes, and its wires, each "node.output > node.input"."""

    parts: list[Part]
    wires: list[str]


def note(text: str) -> Part:
    """What the workflow shows, and how it is run."""
    lines = sum(math.ceil(len(paragraph) / 46) + 1 for paragraph in text.split("\n\n"))
    return Part("note", "MarkdownNote", 0, {"text": text}, "What this shows", (320, 40 + 17 * lines))


def port(name: str, unique_id: str, column: int) -> Part:
    return Part(name, "DiscomfortPort", column, {"unique_id": unique_id}, size=(240, 0))


def noise(column: int = 0, width: int = 512, height: int = 512) -> list[Part]:
    """Where pictures come from that need no file: grey noise."""
    return [
        Part("grey", "EmptyImage", column, {"width": width, "height": height, "color": 0x808080}, "Grey", (240, 0)),
        Part(
            "noise", "ImageAddNoise", column, {"seed": 7, "control_after_generate": "fixed", "strength": 0.6}, "Noise"
        ),
        Part("channel", "ImageToMask", column, {"channel": "red"}, "Its red channel", (240, 0)),
        Part("source", "MaskToImage", column, {}, "as a grey picture", (240, 0)),
    ]


NOISE_WIRES = ["grey.IMAGE > noise.image", "noise.* > channel.image", "channel.MASK > source.mask"]
PREVIEW = (380, 420)

REFINE = Example(
    [
        note(
            "A workflow that others run: **image** and **strength** go in, **image** comes out. As *image* goes in and "
            "comes out, it is a *loop variable*: in a loop each iteration refines what the one before made.\n\n"
            "It is not run by itself: nothing would go in. Open **Test a workflow** or **Loop** and run those.",
        ),
        port("image", "image", 0),
        port("strength", "strength", 0),
        Part("blur", "ImageBlur", 1, {"blur_radius": 4, "sigma": 1.0}, "Soften"),
        Part("sharpen", "ImageSharpen", 1, {"sharpen_radius": 12, "sigma": 1.0, "alpha": 0.3}, "Sharpen"),
        port("result", "image", 2),
    ],
    [
        "image.output > blur.image",
        "blur.IMAGE > sharpen.image",
        "strength.output > sharpen.alpha",
        "sharpen.IMAGE > result.input_data",
    ],
)

ENLARGE = Example(
    [
        note(
            "A workflow that others run: **image** goes in; **image**, larger and sharper, and its **width** come out. "
            "The condition of a loop can read *width*: open **Loop until large enough** and run that.",
        ),
        port("image", "image", 0),
        Part("scale", "ImageScaleBy", 1, {"upscale_method": "lanczos", "scale_by": 1.25}, "Enlarge"),
        Part("sharpen", "ImageSharpen", 1, {"sharpen_radius": 2, "sigma": 1.0, "alpha": 0.2}, "Sharpen"),
        Part("measure", "GetImageSize", 2, {}, "Measure", (240, 0)),
        port("result", "image", 3),
        port("width", "width", 3),
    ],
    [
        "image.output > scale.image",
        "scale.IMAGE > sharpen.image",
        "sharpen.IMAGE > result.input_data",
        "sharpen.IMAGE > measure.image",
        "measure.width > width.input_data",
    ],
)


def painting_passes(count: int) -> tuple[list[Part], list[str]]:
    """Soften and sharpen, several times in a row, from "noise" on; the last one is "sharpen<count>"."""
    parts, wires, before = [], [], "noise.*"
    for number in range(1, count + 1):
        blur, sharpen = f"blur{number}", f"sharpen{number}"
        parts += [
            Part(blur, "ImageBlur", 1 + number, {"blur_radius": 4, "sigma": 1.0}, "Soften"),
            Part(sharpen, "ImageSharpen", 1 + number, {"sharpen_radius": 12, "sigma": 1.0, "alpha": 0.6}, "Sharpen"),
        ]
        wires += [f"{before} > {blur}.image", f"{blur}.IMAGE > {sharpen}.image"]
        before = f"{sharpen}.IMAGE"
    return parts, wires


_PASSES, _PASS_WIRES = painting_passes(3)

PAINT = Example(
    [
        note(
            "A workflow that the Extender runs: a picture with new, empty room comes in as **image**, and **mask** is "
            "1 where the room is. What is painted there goes on from what is beside it. With a model you would have "
            "*VAE Encode (for Inpainting)* and a sampler here.\n\nOpen **Extend a picture** and run that.",
        ),
        port("image", "image", 0),
        port("mask", "mask", 0),
        Part("noise", "ImageAddNoise", 1, {"seed": 3, "control_after_generate": "increment", "strength": 0.6}, "Noise"),
        Part("channel", "ImageToMask", 1, {"channel": "red"}, "Its red channel", (240, 0)),
        Part("source", "MaskToImage", 1, {}, "as a grey picture", (240, 0)),
        *_PASSES,
        Part("paste", "ImageCompositeMasked", 5, {"x": 0, "y": 0, "resize_source": False}, "Only where there is room"),
        port("result", "image", 5),
    ],
    [
        "image.output > noise.image",
        "noise.* > channel.image",
        "channel.MASK > source.mask",
        *[wire.replace("noise.*", "source.IMAGE") for wire in _PASS_WIRES],
        "image.output > paste.destination",
        "sharpen3.IMAGE > paste.source",
        "mask.output > paste.mask",
        "paste.IMAGE > result.input_data",
    ],
)

TEST = Example(
    [
        note(
            "Runs the workflow **Refine a picture** once, as a script would: its ports are the sockets of the node.\n\n"
            "Press *Run*. The first run starts a second ComfyUI for it, which takes some seconds.",
        ),
        *noise(),
        Part("strength", "PrimitiveFloat", 1, {"value": 0.5}, "How strongly", (240, 0)),
        Part("runner", "DiscomfortTestRunner", 1, {"workflow": "Refine a picture.json"}, size=(330, 0)),
        Part("preview", "PreviewImage", 2, size=PREVIEW),
    ],
    [
        *NOISE_WIRES,
        "source.IMAGE > runner.in:image",
        "strength.* > runner.in:strength",
        "runner.image > preview.images",
    ],
)

LOOP = Example(
    [
        note(
            "Runs **Refine a picture** six times. What comes out of one iteration goes into the next, and *collect* "
            "keeps the picture of each: the preview shows how a pattern grows out of noise.\n\n"
            "Press *Run*, and the key **D** to watch it in the sidebar.",
        ),
        *noise(width=256, height=256),
        Part("strength", "PrimitiveFloat", 1, {"value": 0.3}, "How strongly", (240, 0)),
        Part(
            "loop",
            "DiscomfortLoopExecutor",
            1,
            {"workflows": "Refine a picture.json", "iterations": 6, "collect": "image"},
            size=(380, 560),
        ),
        Part("preview", "PreviewImage", 2, title="Every iteration", size=(620, 520)),
    ],
    [*NOISE_WIRES, "source.IMAGE > loop.in:image", "strength.* > loop.in:strength", "loop.image > preview.images"],
)

UNTIL = Example(
    [
        note(
            "Runs two workflows, **Refine a picture** and **Enlarge a picture**, as long as the *condition* holds: "
            "`width < 1000`. *width* is an OUTPUT port of the second one. Conditions can also look at pictures, "
            "`std(image) < 0.3`, or count: `iteration < 5`.\n\nPress *Run*: it takes five iterations, of the twenty "
            "that it may.",
        ),
        *noise(width=384, height=256),
        Part("strength", "PrimitiveFloat", 1, {"value": 0.3}, "How strongly", (240, 0)),
        Part(
            "loop",
            "DiscomfortLoopExecutor",
            1,
            {
                "workflows": "Refine a picture.json\nEnlarge a picture.json",
                "iterations": 20,
                "condition": "width < 1000",
            },
            size=(380, 560),
        ),
        Part("preview", "PreviewImage", 2, title="Large enough", size=(620, 460)),
        Part("width", "PreviewAny", 2, title="Its width", size=(300, 90)),
    ],
    [
        *NOISE_WIRES,
        "source.IMAGE > loop.in:image",
        "strength.* > loop.in:strength",
        "loop.image > preview.images",
        "loop.width > width.source",
    ],
)

EXTEND = Example(
    [
        note(
            "Gives a picture more room on its right side, twice, and lets **Paint new room** fill it. *steps* has the "
            "picture after each pass.\n\nPress *Run*. For pictures of your own, exchange that workflow for one with a "
            "model for inpainting.",
        ),
        *noise(width=256, height=384),
        Part("blur", "ImageBlur", 1, {"blur_radius": 4, "sigma": 1.0}, "Soften"),
        Part("sharpen", "ImageSharpen", 1, {"sharpen_radius": 12, "sigma": 1.0, "alpha": 2.0}, "Sharpen"),
        Part(
            "extender",
            "DiscomfortExtenderWorkflowRunner",
            1,
            {"workflow": "Paint new room.json", "times": 2, "direction": "right", "pixels": 192, "feathering": 16},
            size=(360, 0),
        ),
        Part("steps", "PreviewImage", 2, title="After each pass", size=(560, 300)),
        Part("preview", "PreviewImage", 2, title="Extended", size=(560, 380)),
    ],
    [
        *NOISE_WIRES,
        "source.IMAGE > blur.image",
        "blur.IMAGE > sharpen.image",
        "sharpen.IMAGE > extender.image",
        "extender.steps > steps.images",
        "extender.image > preview.images",
    ],
)

FOLDER_OF_PICTURES = Example(
    [
        note(
            "Loads up to eight pictures of ComfyUI's *input* folder as one batch, all of one size. Put pictures there, "
            "or write another folder into *folder*. A folder in which nothing changed is not read again.\n\n"
            "Press *Run*.",
        ),
        Part(
            "loader",
            "DiscomfortFolderImageLoader",
            0,
            {"limit": 8, "size_policy": "crop to fill", "width": 512, "height": 384},
            size=(360, 0),
        ),
        Part("preview", "PreviewImage", 1, title="The pictures", size=(620, 420)),
        Part("names", "PreviewAny", 1, title="Their names", size=(620, 200)),
    ],
    ["loader.images > preview.images", "loader.file_names > names.source"],
)

DESCRIBER_URL = "http://localhost:11434/v1"

DESCRIBE = Example(
    [
        note(
            "Describes the pictures of ComfyUI's *input* folder in words. It asks a model on **this machine**: start "
            "[Ollama](https://ollama.com) and `ollama pull llava`, or change *base_url* and *model*.\n\nFor OpenAI "
            "write `https://api.openai.com/v1`; the key belongs into *Settings > Discomfort*, never into a workflow.",
        ),
        Part("loader", "DiscomfortFolderImageLoader", 0, {"limit": 2, "output": "list"}, size=(360, 0)),
        Part(
            "describer",
            "DiscomfortImageDescriber",
            1,
            {
                "prompt": "Describe this picture in one sentence.",
                "model": "llava",
                "base_url": DESCRIBER_URL,
                "timeout": 300.0,
            },
            size=(400, 520),
        ),
        Part("texts", "PreviewAny", 2, title="In words", size=(420, 200)),
        Part("preview", "PreviewImage", 2, title="The pictures", size=(420, 320)),
    ],
    ["loader.images > describer.image", "loader.images > preview.images", "describer.text > texts.source"],
)

#: by the name of the file; those that others run come first
EXAMPLES = {
    "Refine a picture": REFINE,
    "Enlarge a picture": ENLARGE,
    "Paint new room": PAINT,
    "Test a workflow": TEST,
    "Loop": LOOP,
    "Loop until large enough": UNTIL,
    "Extend a picture": EXTEND,
    "Folder of pictures": FOLDER_OF_PICTURES,
    "Describe pictures": DESCRIBE,
}

# What is not the canvas.
HIDDEN = """.comfyui-body-top, .comfyui-body-left, .comfyui-body-right, .comfyui-body-bottom, .side-tool-bar-container,
.comfy-menu, .p-toast, [data-testid=queue-notification-banner] { visibility: hidden !important }"""

# Nodes, each with its widgets' values.
ADD_NODES = """async (parts) => {
    app.graph.clear()
    window.parts = {}
    for (const part of parts) {
        const node = LiteGraph.createNode(part.type)
        if (part.title) node.title = part.title
        app.graph.add(node)
        for (const [name, value] of Object.entries(part.widgets)) {
            const widget = node.widgets.find((one) => one.name === name)
            if (!widget) throw new Error(`${part.type} has no widget ${name}`)
            widget.value = value
            widget.callback?.(value, app.canvas, node)
        }
        window.parts[part.name] = node
    }
}"""

# The sockets of a wire, once they are there: [slot of the output, slot of the input] or null. "*": the first one.
SLOTS = """([source, output, target, input]) => {
    const outputs = window.parts[source].outputs ?? [], inputs = window.parts[target].inputs ?? []
    const one = output === '*' ? 0 : outputs.findIndex((socket) => socket.name === output)
    const other = inputs.findIndex((socket) => socket.name === input)
    return one < 0 || other < 0 ? null : [one, other]
}"""

DRAW_WIRE = """([source, output, target, input]) => {
    if (!window.parts[source].connect(output, window.parts[target], input)) throw new Error(`${source} > ${target}`)
}"""

# Nodes of a column below each other, columns side by side.
ARRANGE = """(parts) => {
    let x = 0
    for (let column = 0; parts.some((part) => part.column === column); column++) {
        let y = 0, width = 0
        for (const part of parts.filter((one) => one.column === column)) {
            const node = window.parts[part.name], [w, h] = node.computeSize()
            node.setSize([Math.max(w, part.size[0]), Math.max(h, part.size[1])])
            node.pos = [x, y]
            y += node.size[1] + 60
            width = Math.max(width, node.size[0])
        }
        x += width + 70
    }
    app.canvas.setDirty(true, true)
}"""

# All of it, in the middle.
FIT = """() => {
    const boxes = app.graph._nodes.map((node) => node.getBounding())
    const left = Math.min(...boxes.map((b) => b[0])), top = Math.min(...boxes.map((b) => b[1]))
    const right = Math.max(...boxes.map((b) => b[0] + b[2])), bottom = Math.max(...boxes.map((b) => b[1] + b[3]))
    const view = app.canvas.ds, { width, height } = app.canvas.canvas.getBoundingClientRect()
    view.scale = Math.min((width - 60) / (right - left), (height - 60) / (bottom - top), 1)
    view.offset = [width / 2 / view.scale - (left + right) / 2, height / 2 / view.scale - (top + bottom) / 2]
    app.canvas.deselectAll()
    app.canvas.draw(true, true)
}"""

SET_URL = "(url) => { window.parts.describer.widgets.find((one) => one.name === 'base_url').value = url }"

RUN = """() => { window.ended = undefined; app.queuePrompt(0, 1) }"""

# The page tells of the end of a run once; what went wrong, or "" for nothing.
WATCH = """async () => {
    const { api } = await import('/scripts/api.js')
    api.addEventListener('execution_success', () => { window.ended = '' })
    api.addEventListener('execution_error', (event) => { window.ended = JSON.stringify(event.detail).slice(0, 2000) })
}"""


def stable(name: str, saved: dict[str, Any]) -> dict[str, Any]:
    """What the editor saved, without what is another every time."""
    saved["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"discomfort/example_workflows/{name}"))
    saved["extra"] = {}
    for node in saved["nodes"]:
        node["pos"], node["size"] = [round(x) for x in node["pos"]], [round(x) for x in node["size"]]
    return saved


def compress(picture: bytes) -> bytes:
    """The thumbnail, as good as fits into its limit."""
    with Image.open(io.BytesIO(picture)) as image:
        small = image.convert("RGB").resize(THUMBNAIL, Image.Resampling.LANCZOS)
    for quality in range(88, 30, -4):
        file = io.BytesIO()
        small.save(file, "JPEG", quality=quality, optimize=True, progressive=True)
        if file.tell() <= LIMIT:
            break
    return file.getvalue()


async def make(page: Any, name: str, example: Example, endpoint: str) -> None:
    """Build one example, save it, run it, and take its picture. *endpoint*: of a model that describes pictures."""
    is_describing = "describer" in {part.name for part in example.parts}
    parts = [part._asdict() for part in example.parts]
    await page.evaluate(ADD_NODES, parts)
    for wire in example.wires:
        (source, output), (target, socket) = (end.split(".") for end in wire.split(" > "))
        handle = await page.wait_for_function(SLOTS, arg=[source, output, target, socket], timeout=PATIENCE)
        one, other = await handle.json_value()
        await page.evaluate(DRAW_WIRE, [source, one, target, other])
    await page.evaluate(ARRANGE, parts)
    await page.wait_for_timeout(300)  # the canvas gives widgets their places when it draws
    saved = stable(name, json.loads(await page.evaluate("() => JSON.stringify(app.graph.serialize())")))
    (FOLDER / f"{name}.json").write_text(json.dumps(saved, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if is_describing:
        await page.evaluate(SET_URL, endpoint)
    await page.evaluate(RUN)
    await page.wait_for_function("() => window.ended !== undefined", timeout=RUN_PATIENCE)
    problem = await page.evaluate("() => window.ended")
    if problem:
        raise RuntimeError(f"{name} failed: {problem}")
    await page.wait_for_function(
        """() => app.graph._nodes.filter((node) => node.type === 'PreviewImage')
            .every((node) => node.imgs?.length && node.imgs.every((image) => image.naturalWidth))""",
        timeout=PATIENCE,
    )
    if is_describing:
        await page.evaluate(SET_URL, DESCRIBER_URL)
    await page.evaluate(ARRANGE, parts)
    await page.evaluate(FIT)
    await page.wait_for_timeout(700)  # texts on the canvas are moved into their places after it was drawn
    await page.add_style_tag(content=HIDDEN)
    (FOLDER / f"{name}.jpg").write_bytes(compress(await page.screenshot(animations="disabled")))
    print(f"{name}: {len(saved['nodes'])} nodes")


def draw_pictures(folder: Path) -> None:
    """What lies in the input folder: two plain pictures."""
    for name, (one, other) in {"evening.png": ("#f4a261", "#264653"), "morning.png": ("#ffe8a3", "#5fa8d3")}.items():
        mask = Image.linear_gradient("L").resize((640, 480))
        Image.composite(Image.new("RGB", mask.size, one), Image.new("RGB", mask.size, other), mask).save(folder / name)


async def main(names: list[str]) -> None:
    """Make the examples of these names; all if there is none."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as base, fake_openai.FakeOpenAI() as fake:
        fake.default = fake_openai.Reply(text="A clear sky over the sea, with the sun just below the horizon.")
        with outer_server.outer_server("embedded", Path(base)) as server:
            (server.user_folder / "comfy.settings.json").write_text(json.dumps(SETTINGS))
            draw_pictures(server.input_folder)
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(executable_path=driver.browser_path(), args=["--no-sandbox"])
                for name in names or EXAMPLES:
                    page = await browser.new_page(viewport=SIZE)
                    await page.goto(server.url)
                    await page.wait_for_function(
                        "() => window.app?.extensionManager?.workflow?.activeWorkflow && app.canvas", timeout=PATIENCE
                    )
                    await page.evaluate(WATCH)
                    # Somebody is there: runner nodes ask for ports only then.
                    await page.mouse.move(700, 500)
                    await page.mouse.move(710, 510)
                    await make(page, name, EXAMPLES[name], fake.url)
                    await page.close()
                await browser.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
