"""The animated picture docs/images/loop.gif: the loop of examples/refine.py, as the editor's sidebar shows it.

    ./dev run python tools/animation.py

A server with the editor, a browser on its page, and a run in this process: a script's run, which an open editor of the
same user shows. After each iteration the page is photographed. Nothing else writes the file.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.async_api import Page, ViewportSize, async_playwright

ROOT = Path(__file__).resolve().parent.parent
# Servers and photographs are those of the tests and of the demo, which are not part of the typed package.
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "examples")]

TARGET = ROOT / "docs" / "images" / "loop.gif"
WORKFLOW = ROOT / "examples" / "workflows" / "refine.json"
VIEW = ViewportSize(width=1120, height=740)
# Pixels of the picture's width, bytes of the file at most, milliseconds of a frame and of the last one.
WIDTH, LIMIT, FRAME, LAST = 900, 2_000_000, 450, 3000
# Seconds that the page has to show an iteration.
PAUSE = 0.8

SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.InstalledVersion": "99.0.0",
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.UseNewMenu": "Top",
    "Comfy.VueNodes.Enabled": False,
}

READY = "() => window.app?.graph && app.extensionManager?.workflow?.activeWorkflow"
LOAD = "async (workflow) => { await app.loadGraphData(workflow, true, false, 'refine') }"
# The workflow in the part of the canvas that the sidebar leaves free.
PLACE = """() => {
    const boxes = app.graph._nodes.map((node) => node.boundingRect ?? node.getBounding())
    const left = Math.min(...boxes.map((b) => b[0])), top = Math.min(...boxes.map((b) => b[1]))
    const right = Math.max(...boxes.map((b) => b[0] + b[2])), bottom = Math.max(...boxes.map((b) => b[1] + b[3]))
    const view = app.canvas.ds, from = 400, wide = window.innerWidth - from - 30, high = window.innerHeight - 250
    view.scale = Math.min(wide / (right - left), high / (bottom - top), 1)
    view.offset = [from / view.scale - left, (150 / view.scale) - top]
    app.canvas.draw(true, true)
}"""
HIDE = "[data-testid=queue-notification-banner], .p-toast { display: none }"
STYLE = "(text) => document.head.append(Object.assign(document.createElement('style'), { textContent: text }))"
LOADED = "() => [...document.images].every((image) => image.complete && image.naturalWidth)"


async def main() -> None:
    """Film the loop."""
    with tempfile.TemporaryDirectory(prefix="dc-") as folder:
        # The run, the servers and the editor find each other below these, and nobody else does.
        for name in ("TMPDIR", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
            (Path(folder) / name.lower()).mkdir()
            os.environ[name] = str(Path(folder) / name.lower())
        tempfile.tempdir = os.environ["TMPDIR"]
        frames = await film(Path(folder))
    write(frames)
    print(f"{TARGET}: {len(frames)} frames, {TARGET.stat().st_size // 1000} kB")


async def film(folder: Path) -> list[Image.Image]:
    """Run the loop before the open editor; returns a picture of each iteration."""
    outer: Any = importlib.import_module("outer_server")
    driver: Any = importlib.import_module("conformance.driver")
    with outer.outer_server("embedded", folder / "outer") as server:
        (server.user_folder / "comfy.settings.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=driver.browser_path(), args=["--no-sandbox"])
            page = await browser.new_page(viewport=VIEW)
            await page.goto(server.url)
            await page.wait_for_function(READY)
            await page.evaluate(STYLE, HIDE)
            await page.evaluate(LOAD, json.loads(WORKFLOW.read_text(encoding="utf-8")))
            await page.evaluate("() => { app.extensionManager.sidebarTab.activeSidebarTabId = 'discomfort' }")
            await page.locator(".discomfort-sidebar .dc-footer").wait_for()
            await page.evaluate(PLACE)
            frames = await run_before(page)
            await browser.close()
    return frames


async def run_before(page: Page) -> list[Image.Image]:
    """The loop of the demo, and a picture of the page after each iteration."""
    from discomfort import Discomfort, PerIteration

    pictures: Any = importlib.import_module("pictures")
    sample: Any = importlib.import_module("matplotlib.cbook")
    frames: list[Image.Image] = []
    async with await Discomfort.create() as d:
        file = sample.get_sample_data("grace_hopper.jpg", asfileobj=False)
        photo = pictures.out_of_focus(d.Tools.open_image_as_tensor(file))
        goal = 7 * pictures.sharpness(photo)

        async def amount(iteration: int, values: Mapping[str, Any]) -> float:
            await photograph(page, frames, iteration)
            return float(0.008 + 0.024 * (1 - pictures.sharpness(values["image"]) / goal))

        await d.run(
            [WORKFLOW],
            inputs={"image": photo, "amount": PerIteration(amount)},
            iterations=20,
            loop_condition=functools.partial(is_soft, pictures, goal),
            collect=["image"],
        )
        await page.locator(".dc-run-head [data-state=finished]").wait_for()
        await photograph(page, frames, len(frames))
    return frames


def is_soft(pictures: Any, goal: float, values: Mapping[str, Any]) -> bool:
    """Whether the picture is less sharp than it shall be."""
    return bool(pictures.sharpness(values["image"]) < goal)


async def photograph(page: Page, frames: list[Image.Image], iteration: int) -> None:
    """Take a picture of the page as it is before an iteration. Before the first, open the run and its picture."""
    if not iteration:
        await page.locator("[aria-label='Runs that go on'] .dc-card").first.click()
        await page.locator("[data-port=image]").first.click()
        return
    await asyncio.sleep(PAUSE)  # for what the page draws, and fades
    await page.wait_for_function(LOADED)
    shown = await page.screenshot(animations="disabled")
    with Image.open(io.BytesIO(shown)) as image:
        size = (WIDTH, WIDTH * image.height // image.width)
        frames.append(image.convert("RGB").resize(size, Image.Resampling.LANCZOS))


def write(frames: Sequence[Image.Image]) -> None:
    """Write the animation.

    Raises:
        ValueError: it is larger than LIMIT.
    """
    # One palette for all frames, without dithering: what does not change stays still, and costs nothing.
    palette = frames[-1].quantize(256)
    few = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    file = io.BytesIO()
    durations = [FRAME] * (len(few) - 1) + [LAST]
    few[0].save(file, "GIF", save_all=True, append_images=few[1:], duration=durations, loop=0, optimize=True)
    if file.tell() > LIMIT:
        raise ValueError(f"the animation has {file.tell()} bytes, more than {LIMIT}: show less")
    TARGET.write_bytes(file.getvalue())


if __name__ == "__main__":
    asyncio.run(main())
