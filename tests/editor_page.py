"""The editor in a browser of its own, as a person opens it: loads workflows and says what became of them.

Written for test_templates.py. It is independent of the connector's own page, which it is compared with.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from conformance import driver

# window.app comes before the editor's first graph, which would then replace ours.
READY = """() => window.app && app.graph && app.canvas && app.extensionManager && window.LiteGraph
    && Object.keys(LiteGraph.registered_node_types).length > 50
    && app.extensionManager.workflow?.activeWorkflow"""

# The user's settings as the page believes them to be. Dialogs about models stay closed: the templates' are not here.
# What tells of a broken workflow is on: the dialog about missing nodes, and the validation.
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.InstalledVersion": "99.0.0",
    "Comfy.Release.Status": "skipped",
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Workflow.ShowMissingNodesWarning": True,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "Comfy.Validation.Workflows": True,
}

# Into the tab that is open: with a tab for each workflow the page would become slow.
LOAD = """async (workflow) => {
    const tab = app.extensionManager.workflow.activeWorkflow
    // What is read below must be this one: the page keeps the one before where it cannot load this one.
    app.graph.clear()
    if ((await app.loadGraphData(workflow, true, false, tab)) === false) throw new Error("the editor refused it")
    const { output } = await app.graphToPrompt()
    return { output, saved: (app.rootGraph ?? app.graph).serialize() }
}"""

# What a person would see of a problem, once: a message fades for a while after it was closed.
COMPLAINTS = """() => {
    const all = [...document.querySelectorAll('.p-dialog, .p-toast-message, [role="dialog"]')]
    const shown = all.filter((one) => one.checkVisibility() && !one.dataset.wasSeen)
    for (const one of shown) one.dataset.wasSeen = "yes"
    for (const button of document.querySelectorAll(".p-toast-close-button")) button.click()
    return shown.map((one) => one.innerText.trim().slice(0, 200))
}"""

# A person adds a node.
ADD_NODE = """() => {
    const node = LiteGraph.createNode("Note")
    app.graph.add(node)
    return node.id
}"""

ADD_INNER_NODES = """() => Object.fromEntries([...app.graph.subgraphs.values()].map((subgraph) => {
    const node = LiteGraph.createNode("Note")
    subgraph.add(node)
    return [subgraph.id, node.id]
}))"""

FIT = """async () => {
    app.canvas.setDirty(true, true)
    await new Promise((done) => setTimeout(done, 300))
    const boxes = app.graph._nodes.map((node) => node.boundingRect ?? node.getBounding())
    const left = Math.min(...boxes.map((b) => b[0])), top = Math.min(...boxes.map((b) => b[1]))
    const right = Math.max(...boxes.map((b) => b[0] + b[2])), bottom = Math.max(...boxes.map((b) => b[1] + b[3]))
    const view = app.canvas.ds, { width, height } = app.canvas.canvas.getBoundingClientRect()
    view.scale = 0.9 * Math.min((width - 120) / (right - left), (height - 120) / (bottom - top))
    view.offset = [100 / view.scale - left, 100 / view.scale - top]
    app.canvas.draw(true, true)
    await new Promise((done) => setTimeout(done, 300))
}"""


@dataclass
class Opened:
    """What became of a workflow in the editor."""

    # The prompt it would queue.
    prompt: dict[str, Any]
    # What it would save.
    saved: dict[str, Any]
    # Errors in its console, uncaught exceptions, dialogs and messages.
    complaints: list[str] = field(default_factory=list)


class EditorPage:
    """One page of the editor, which changes nothing on the server."""

    # Every load leaves some memory behind: the page is loaded anew after so many.
    LOADS = 200

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        self.address = address
        self._errors: list[str] = []
        self._loads = 0
        page.on("pageerror", lambda error: self._errors.append(f"exception: {error}"))
        page.on("console", self._hear)

    def _hear(self, message: Any) -> None:
        # Pictures and the like that a workflow names and the server has not.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self._errors.append(message.text[:300])

    async def open(self) -> None:
        """Load the editor itself."""
        await self.page.goto(f"{self.address}/", wait_until="commit")
        await self.page.wait_for_function(READY)
        self._loads = 0

    async def load(self, workflow: Mapping[str, Any]) -> Opened:
        """Open a workflow in place of the one that is there."""
        if self._loads >= self.LOADS:
            await self.open()
        self._loads += 1
        self._errors.clear()
        result = await self.page.evaluate(LOAD, dict(workflow))
        shown = await self.page.evaluate(COMPLAINTS)
        return Opened(result["output"], result["saved"], [*self._errors, *shown])

    async def add_node(self) -> int:
        """Add a node as the menu does; returns its id."""
        return int(await self.page.evaluate(ADD_NODE))

    async def add_inner_nodes(self) -> dict[str, int]:
        """Add a node to each subgraph; returns their ids, by the subgraph's."""
        return dict(await self.page.evaluate(ADD_INNER_NODES))

    async def screenshot(self, path: str) -> None:
        """A picture of the whole graph."""
        await self.page.evaluate(FIT)
        await self.page.screenshot(path=path)


@asynccontextmanager
async def open_editor(address: str) -> AsyncIterator[EditorPage]:
    """A browser with the editor of the server at this address."""
    from playwright.async_api import async_playwright

    async def read_only(route: Any) -> None:
        request = route.request
        if not request.url.startswith((f"{address}/", "data:", "blob:")):
            await route.abort()
        elif request.url.endswith("/api/settings") and request.method == "GET":
            await route.fulfill(json=SETTINGS)
        else:
            await (route.fallback() if request.method in ("GET", "HEAD") else route.fulfill(json={}))

    async with async_playwright() as playwright:
        args = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        browser = await playwright.chromium.launch(executable_path=driver.browser_path(), args=args)
        context = await browser.new_context(viewport={"width": 400, "height": 300}, service_workers="block")
        await context.route("**/*", read_only)
        editor = EditorPage(await context.new_page(), address)
        await editor.open()
        yield editor
        await browser.close()
