"""The pictures of the editor in docs/images: taken of the embedded server, in a real browser, as a newcomer sees it.

    ./dev run python tools/screenshots.py

They are taken anew when the editor or the templates have changed; nothing else is needed, and nothing else writes them.
"""

from __future__ import annotations

import asyncio
import importlib
import io
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.async_api import ViewportSize, async_playwright

ROOT = Path(__file__).resolve().parent.parent
# The driver of the conformance suite starts the server. Tests are not part of the typed package.
sys.path.insert(0, str(ROOT / "tests"))
driver: Any = importlib.import_module("conformance.driver")

FOLDER = ROOT / "docs" / "images"
SIZE = ViewportSize(width=1280, height=760)
# Bytes; a larger file would make the documentation heavy.
LIMIT = 150_000

# As the tests find it: the page knows the nodes and shows its first workflow.
READY = "() => window.app?.graph && app.extensionManager?.workflow?.activeWorkflow"
# All pictures of the page are there.
LOADED = "() => [...document.images].every((image) => image.complete && image.naturalWidth)"


async def templates(page: Any) -> None:
    """What a newcomer sees first."""
    await page.get_by_role("dialog").get_by_text("A sunset out of nothing").wait_for()


async def result(page: Any) -> None:
    """A template that was opened and run."""
    await page.get_by_role("dialog").get_by_text("A sunset out of nothing").click()
    await run(page)


async def history(page: Any) -> None:
    """Another one, run four times, with the panel of results."""
    await page.get_by_role("button", name="Templates", exact=True).click()
    await page.get_by_role("dialog").get_by_text("Islands").click()
    await page.wait_for_function("() => app.graph._nodes.some((node) => node.title === 'Relief')")
    for _ in range(4):
        await run(page)
    await page.get_by_test_id("assets-tab-button").click()
    await page.locator("[data-asset-id]").nth(1).wait_for()
    # The right part of the workflow, large enough to read, beside the panel.
    await page.evaluate(
        "() => { app.canvas.ds.scale = 0.75; app.canvas.ds.offset = [-350, 60]; app.canvas.draw(true) }"
    )


async def run(page: Any) -> None:
    """Press Run, and wait for the picture in its node."""
    await page.evaluate("() => { app.nodeOutputs = {} }")
    await page.get_by_test_id("queue-button").click()
    await page.wait_for_function("() => Object.values(app.nodeOutputs).some((shown) => shown.images)")
    await page.wait_for_function("() => app.graph._nodes.some((node) => node.imgs?.[0]?.naturalWidth)")


PICTURES: dict[str, Callable[[Any], Awaitable[None]]] = {
    "editor-templates.png": templates,
    "editor-result.png": result,
    "editor-history.png": history,
}


def compress(picture: bytes) -> bytes:
    """A PNG with 256 colours at most.

    Raises:
        ValueError: it is too large all the same.
    """
    file = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").quantize(256).save(file, "PNG", optimize=True)
    if file.tell() > LIMIT:
        raise ValueError(f"a picture has {file.tell()} bytes, more than {LIMIT}: show less")
    return file.getvalue()


async def main() -> None:
    """Take all pictures."""
    with tempfile.TemporaryDirectory() as base:
        server = driver.Server.embedded(Path(base))
        try:
            await server.wait_until_ready()
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(executable_path=driver.browser_path(), args=["--no-sandbox"])
                page = await browser.new_page(viewport=SIZE)
                await page.goto(server.url)
                await page.wait_for_function(READY)
                # What comes and goes by itself is not part of any picture.
                await page.add_style_tag(content="[data-testid=queue-notification-banner] { display: none }")
                # The map in the corner covers what is to be seen.
                await page.evaluate("() => app.extensionManager.setting.set('Comfy.Minimap.Visible', false)")
                for name, prepare in PICTURES.items():
                    await prepare(page)
                    await page.mouse.move(SIZE["width"] / 2, 5)
                    await page.wait_for_function(LOADED)
                    (FOLDER / name).write_bytes(compress(await page.screenshot(animations="disabled")))
                await browser.close()
        finally:
            server.stop()


if __name__ == "__main__":
    asyncio.run(main())
