"""The real editor, in a real browser, works with the embedded server."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from conformance import driver

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The page has loaded its first graph and knows the nodes.
READY = """() => window.app && app.graph && app.canvas && app.extensionManager && window.LiteGraph
    && Object.keys(LiteGraph.registered_node_types).length > 5
    && app.extensionManager.workflow?.activeWorkflow"""

# Files the editor asks for that need not be there; ComfyUI answers 404, too.
OPTIONAL = ("/user.css", "/api/userdata", "/api/workflow_templates/", "/templates/")

WORKFLOW: dict[str, Any] = {
    "last_node_id": 2,
    "last_link_id": 1,
    "nodes": [
        {
            "id": 1,
            "type": "EmptyImage",
            "pos": [0, 0],
            "size": [200, 150],
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": [],
            "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}],
            "properties": {},
            "widgets_values": [48, 32, 1, 255],
        },
        {
            "id": 2,
            "type": "PreviewImage",
            "pos": [300, 0],
            "size": [200, 150],
            "flags": {},
            "order": 1,
            "mode": 0,
            "inputs": [{"name": "images", "type": "IMAGE", "link": 1}],
            "outputs": [],
            "properties": {},
        },
    ],
    "links": [[1, 1, 0, 2, 0, "IMAGE"]],
    "groups": [],
    "config": {},
    "extra": {},
    "version": 0.4,
}


def _browser_path() -> str | None:
    """An installed browser; None: Playwright's own."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
    return next((path for path in map(shutil.which, names) if path), None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    """A page with the editor, ready. ``page.problems`` collects answers of 400 and above, and exceptions."""
    playwright_api = pytest.importorskip("playwright.async_api")
    pytest.importorskip("comfyui_frontend_package")
    base = tmp_path_factory.mktemp("frontend")
    driver.install_pack(base)
    server = driver.Server.embedded(base)
    try:
        await server.wait_until_ready()
        async with playwright_api.async_playwright() as playwright:
            try:
                browser = await playwright.chromium.launch(executable_path=_browser_path(), args=["--no-sandbox"])
            except playwright_api.Error as exc:
                pytest.skip(f"no browser: {exc}")
            page = await browser.new_page()
            page.server, page.problems = server, []

            def note(response: Any) -> None:
                path = response.url.replace(server.url, "")
                if response.status >= 400 and not path.startswith(OPTIONAL):
                    page.problems.append((response.status, path))

            page.on("response", note)
            page.on("pageerror", lambda error: page.problems.append(("exception", str(error))))
            # Nothing outside is asked.
            foreign = lambda url: not url.startswith(server.url)  # noqa: E731
            await page.route(foreign, lambda route: route.abort())
            await page.goto(server.url)
            await page.wait_for_function(READY, timeout=120_000)
            yield page
            await browser.close()
    finally:
        server.stop()


async def test_the_editor_opens_without_a_failing_request(page: Any) -> None:
    """No answer of 400 or above but to what may be absent, and no exception."""
    assert page.problems == []


async def test_a_packages_script_runs_in_the_editor(page: Any) -> None:
    """WEB_DIRECTORY's script has been loaded and its setup called."""
    await page.wait_for_function("() => document.documentElement.dataset.tiny === 'loaded'")


async def test_the_editor_turns_a_workflow_into_a_prompt(page: Any) -> None:
    """graphToPrompt gives both nodes with their values and the link."""
    prompt = await page.evaluate(
        "async (workflow) => { await app.loadGraphData(workflow); return (await app.graphToPrompt()).output; }",
        WORKFLOW,
    )
    assert {node_id: (n["class_type"], n["inputs"]) for node_id, n in prompt.items()} == {
        "1": ("EmptyImage", {"width": 48, "height": 32, "batch_size": 1, "color": 255}),
        "2": ("PreviewImage", {"images": ["1", 0]}),
    }


async def test_a_workflow_queued_in_the_editor_shows_its_result(page: Any) -> None:
    """The queue button's call runs it, and the preview appears on the node."""
    await page.evaluate(
        "async (workflow) => { await app.loadGraphData(workflow); await app.queuePrompt(0); }", WORKFLOW
    )
    await page.wait_for_function("() => app.nodeOutputs?.['2']?.images?.length === 1", timeout=60_000)
    (image,) = await page.evaluate("() => app.nodeOutputs['2'].images")
    size = await page.evaluate(
        """async (image) => {
            const url = `/view?filename=${image.filename}&type=${image.type}&subfolder=${image.subfolder}`;
            const bitmap = await createImageBitmap(await (await fetch(url)).blob());
            return [bitmap.width, bitmap.height];
        }""",
        image,
    )
    assert size == [48, 32]
    assert page.problems == []


async def test_dynamic_inputs_grow_and_are_chosen_in_the_editor(page: Any) -> None:
    """A batch of three images, resized by a choice that brings its own widget, comes back in the right size."""
    prompt = await page.evaluate(
        """async () => {
            await app.loadGraphData({ nodes: [], links: [], version: 0.4 });
            const add = (type) => { const node = LiteGraph.createNode(type); app.graph.add(node); return node; };
            const batch = add("BatchImagesNode"), resize = add("ResizeImageMaskNode"), preview = add("PreviewImage");
            for (let i = 0; i < 3; i++) {
                const source = add("EmptyImage");
                // Each link makes room for the next one.
                const slot = batch.inputs.findIndex((input) => input.link == null);
                source.connect(0, batch, slot);
                await new Promise((done) => requestAnimationFrame(done));
            }
            batch.connect(0, resize, resize.inputs.findIndex((input) => input.name === "input"));
            resize.connect(0, preview, 0);
            const choice = resize.widgets.find((widget) => widget.name === "resize_type");
            choice.value = "scale width";
            await new Promise((done) => requestAnimationFrame(done));
            resize.widgets.find((widget) => widget.name === "resize_type.width").value = 48;
            const prompt = (await app.graphToPrompt()).output;
            await app.queuePrompt(0);
            window.previewId = String(preview.id);
            return prompt;
        }"""
    )
    inputs = {node["class_type"]: node["inputs"] for node in prompt.values()}
    assert sorted(inputs["BatchImagesNode"]) == ["images.image0", "images.image1", "images.image2"]
    chosen = {name: value for name, value in inputs["ResizeImageMaskNode"].items() if name.startswith("resize_type")}
    assert chosen == {"resize_type": "scale width", "resize_type.width": 48}
    await page.wait_for_function("() => app.nodeOutputs?.[previewId]?.images?.length === 3", timeout=60_000)
    assert page.problems == []
