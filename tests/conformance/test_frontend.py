"""The real editor, in a real browser, does with the server what a person does with mouse and keyboard.

One browser and one page; the tests are a person's session, in order, but each begins with a graph of its own and leaves
the server idle. The editor is the installed ``comfyui-frontend-package``, for ComfyUI, too: what differs is the
server's doing. No request may fail and no script may complain but where every server's editor does. Selectors hold for
that version (roles, ``data-testid``); nodes are drawn on a canvas, so where they are is asked of the page, and the
mouse goes there.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import io
import json
import re
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from conformance import asking, driver
from PIL import Image

playwright_api = pytest.importorskip("playwright.async_api")

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Milliseconds a condition may take, on a slow machine; nothing waits that long when all is well.
PATIENCE = 30_000

# The page has loaded its first graph and knows the nodes.
READY = """() => window.app && app.graph && app.canvas && app.extensionManager && window.LiteGraph
    && Object.keys(LiteGraph.registered_node_types).length > 5
    && app.extensionManager.workflow?.activeWorkflow"""

# What the editor asks for that need not be there; every ComfyUI answers 404, too.
OPTIONAL = (
    "/user.css",  # a user's own styles
    "/api/userdata/user.css",
    "/api/userdata/comfy.templates.json",  # node templates, before the first is stored
    "/api/userdata?dir=",  # a folder before the first file in it
    "/api/userdata/workflows%2F.index.json",  # bookmarks, before there is one
    "/docs/",  # help in Markdown, of the package comfyui-embedded-docs; without it the description is shown
)
# What this editor asks for and ComfyUI has only since later versions (or with a later package of templates).
LATER = ("/api/jobs", "/api/global_subgraphs", "/templates/index_logo.json")

# Whether the page has this background.
IS_BACKGROUND = "(color) => getComputedStyle(document.documentElement).getPropertyValue('--bg-color') === color"

# How large a picture is in an <img>; the promise fails if it cannot be shown.
SIZE_OF_IMAGE = """async (source) => {
    const shown = new Image()
    shown.src = source
    await shown.decode()
    return [shown.naturalWidth, shown.naturalHeight]
}"""

# Where a part of a node is in the window: its title, an input or output by number, a widget by name.
SPOT = """([id, part, which]) => {
    const node = app.graph.getNodeById(id), canvas = app.canvas, view = canvas.ds
    const box = canvas.canvas.getBoundingClientRect()
    const widget = node.widgets?.find((w) => w.name === which)
    const [x, y] = {
        title: () => [node.pos[0] + node.size[0] / 2, node.pos[1] - 15],
        body: () => [node.pos[0] + node.size[0] / 2, node.pos[1] + node.size[1] - 20],
        input: () => node.getConnectionPos(true, which),
        output: () => node.getConnectionPos(false, which),
        widget: () => [node.pos[0] + node.size[0] / 2, node.pos[1] + widget.last_y + 10],
    }[part]()
    return [box.left + (x + view.offset[0]) * view.scale, box.top + (y + view.offset[1]) * view.scale]
}"""

# Files given to the page as a mouse or the clipboard would: [event, [[name, type, base64], ...]].
HAND_OVER = """([event, files]) => {
    const data = new DataTransfer()
    for (const [name, type, content] of files) {
        const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0))
        data.items.add(new File([bytes], name, { type }))
    }
    const details = { bubbles: true, cancelable: true, composed: true }
    if (event === "paste") {
        document.dispatchEvent(new ClipboardEvent("paste", { ...details, clipboardData: data }))
        return
    }
    const target = app.canvas.canvas, box = target.getBoundingClientRect()
    const where = { clientX: box.left + box.width / 2, clientY: box.top + box.height - 60, dataTransfer: data }
    for (const name of ["dragenter", "dragover", "drop"])
        target.dispatchEvent(new DragEvent(name, { ...details, ...where }))
}"""


def make_node(
    node_id: int,
    class_type: str,
    x: int,
    inputs: list[tuple[str, str, int | None]] | None = None,
    outputs: list[tuple[str, str, list[int]]] | None = None,
    widgets: list[Any] | None = None,
) -> dict[str, Any]:
    """A node of a workflow; inputs and outputs as (name, type, link or links)."""
    return {
        "id": node_id,
        "type": class_type,
        "pos": [x, 80],
        "size": [230, 180],
        "flags": {},
        "order": node_id,
        "mode": 0,
        "inputs": [{"name": name, "type": kind, "link": link} for name, kind, link in inputs or []],
        "outputs": [{"name": name, "type": kind, "links": links} for name, kind, links in outputs or []],
        "properties": {},
        "widgets_values": widgets or [],
    }


def make_workflow(*nodes: dict[str, Any], links: list[list[Any]] | None = None) -> dict[str, Any]:
    """A workflow of nodes, with links [id, from, slot, to, slot, type]."""
    return {
        "last_node_id": max(node["id"] for node in nodes),
        "last_link_id": len(links or []),
        "nodes": list(nodes),
        "links": links or [],
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def picture(save: str = "PreviewImage", color: int = 0x3366CC, size: int = 48) -> dict[str, Any]:
    """A workflow: a picture [size, 32] of one colour is shown or saved, by node 2."""
    return make_workflow(
        make_node(1, "EmptyImage", 40, outputs=[("IMAGE", "IMAGE", [1])], widgets=[size, 32, 1, color]),
        make_node(2, save, 340, [("images", "IMAGE", 1)], widgets=["frontend"]),
        links=[[1, 1, 0, 2, 0, "IMAGE"]],
    )


def steps(count: int, seconds: float, seed: int = 0, preview: bool = True) -> dict[str, Any]:
    """A workflow: node 1 takes ``count`` steps of some seconds each, with previews; node 2 shows the count."""
    values = [count, seconds, preview, seed, "fixed"]
    return make_workflow(
        make_node(1, "TinySteps", 40, outputs=[("INT", "INT", [1])], widgets=values),
        make_node(2, "TinyShow", 340, [("value", "*", 1)], [("*", "*", [])]),
        links=[[1, 1, 0, 2, 0, "INT"]],
    )


def a_picture(file_format: str = "PNG", color: tuple[int, int, int] = (200, 60, 20)) -> bytes:
    """A picture file, 40 x 24, without a workflow."""
    file = io.BytesIO()
    Image.new("RGB", (40, 24), color).save(file, file_format)
    return file.getvalue()


# Longer than any test: it is there to be cancelled. Ten previews a second, as a model's steps come at most: two hundred
# kept a browser that draws without a GPU so busy that a click took it ten seconds.
LONG = {"count": 4000, "seconds": 0.1}


class Editor:
    """The editor in a page, and the server behind it."""

    def __init__(self, page: Any, server: driver.Server) -> None:
        self.page, self.server = page, server
        # (status, path) of answers of 400 and above, and ("exception", text), ("console", text), ("failed", text)
        self.problems: list[tuple[Any, str]] = []
        # Whether the server has the routes this editor's queue and history panels ask for.
        self.has_jobs = True
        page.set_default_timeout(PATIENCE)
        page.on("response", self._note_response)
        page.on("pageerror", lambda error: self.problems.append(("exception", str(error))))
        page.on("console", self._note_console)
        page.on("requestfailed", self._note_failure)

    def _note_response(self, response: Any) -> None:
        path = response.url.replace(self.server.url, "")
        allowed = OPTIONAL if self.server.is_embedded else OPTIONAL + LATER
        if response.status >= 400 and not path.startswith(allowed):
            self.problems.append((response.status, path))

    def _note_console(self, message: Any) -> None:
        # A failing request is noted by its answer.
        text = message.text
        if message.type != "error" or "Failed to load resource" in text:
            return
        # Without API nodes, ComfyUI 0.29 forbids the page to ask other machines, and the browser says so.
        allowed = () if self.server.is_embedded else ("Jobs", "Content Security Policy")
        if not any(part in text for part in allowed):
            self.problems.append(("console", text))

    def _note_failure(self, request: Any) -> None:
        # Aborted ones are those the page itself gave up, or whose answer it did not read.
        if request.url.startswith(self.server.url) and "ERR_ABORTED" not in (request.failure or ""):
            self.problems.append(("failed", f"{request.url} {request.failure}"))

    # -- the page --------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the editor, or open it anew."""
        await self.page.goto(self.server.url)
        await self.page.wait_for_function(READY, timeout=120_000)

    async def wait(self, condition: str, argument: Any = None) -> None:
        """Wait until a JavaScript function says true."""
        await self.page.wait_for_function(condition, arg=argument, timeout=PATIENCE)

    async def ask(self, code: str, argument: Any = None) -> Any:
        """What a JavaScript function returns."""
        return await self.page.evaluate(code, argument)

    async def load(self, workflow: dict[str, Any]) -> None:
        """Show a workflow in the present tab; a dialog that is open is closed."""
        dialogs = self.page.get_by_role("dialog")
        while await dialogs.count():
            await self.page.keyboard.press("Escape")
            await dialogs.last.wait_for(state="hidden")
        await self.ask(
            """async (workflow) => {
                app.nodeOutputs = {}; app.nodePreviewImages = {}
                await app.loadGraphData(workflow, true, true, app.extensionManager.workflow.activeWorkflow)
                app.canvas.ds.reset(); app.canvas.ds.offset = [60, 140]; app.canvas.deselectAll()
                app.canvas.draw(true, true)
            }""",
            workflow,
        )

    async def spot(self, node_id: int, part: str, which: Any = None) -> tuple[float, float]:
        """Where a part of a node is in the window, see ``SPOT``."""
        x, y = await self.ask(SPOT, [node_id, part, which])
        return x, y

    async def select(self, node_id: int, part: str = "title") -> None:
        """Click a node's title, or its body: a second click on the title would be a double click, which renames.

        A click while the editor still puts its graph together (after an undo, say) is lost, and made again.
        """
        selected = "(id) => Boolean(app.canvas.selected_nodes?.[id] || app.graph.getNodeById(id).selected)"
        deadline = time.monotonic() + PATIENCE / 1000
        while True:
            await self.page.mouse.click(*await self.spot(node_id, part))
            try:
                await self.page.wait_for_function(selected, arg=node_id, timeout=2000)
                return
            except playwright_api.TimeoutError:
                assert time.monotonic() < deadline, f"node {node_id} cannot be selected"

    async def run(self) -> None:
        """Press the Run button."""
        await self.page.get_by_test_id("queue-button").click()

    async def output(self, node_id: int = 2) -> dict[str, Any]:
        """What the page got as a node's result, when it has one."""
        await self.wait("(id) => app.nodeOutputs?.[id] && Object.keys(app.nodeOutputs[id]).length", str(node_id))
        shown: dict[str, Any] = await self.ask("(id) => app.nodeOutputs[id]", str(node_id))
        return shown

    async def hand_over(self, event: str, *files: tuple[str, str, bytes]) -> None:
        """Drop or paste files: (name, type, content)."""
        encoded = [[name, kind, base64.b64encode(content).decode()] for name, kind, content in files]
        await self.ask(HAND_OVER, [event, encoded])

    def needs_jobs(self) -> None:
        """Skip where the panels of queue and history can show nothing."""
        if not self.has_jobs:
            pytest.skip("this ComfyUI lacks the /api/jobs that this editor's queue and history panels ask for")

    # -- the server ------------------------------------------------------------------------------------------

    async def get(self, path: str) -> Any:
        """GET JSON from the server; None if it is not there."""
        answer = await asking.ask(self.server, "GET", path)
        return answer.json if answer.status == 200 else None

    async def read(self, path: str) -> bytes:
        """GET a file from the server."""
        answer = await asking.ask(self.server, "GET", path)
        assert answer.status == 200, path
        return answer.body

    async def post(self, path: str, body: Any) -> int:
        """POST JSON to the server; the answer's status."""
        return (await asking.ask(self.server, "POST", path, body)).status

    async def queue(self) -> tuple[list[Any], list[Any]]:
        """The ids of the running and of the waiting prompts, in order."""
        queue = await self.get("/queue")
        return (
            [item[1] for item in sorted(queue["queue_running"])],
            [item[1] for item in sorted(queue["queue_pending"], key=lambda item: item[0])],
        )

    async def wait_for_queue(self, running: int, pending: int) -> tuple[list[Any], list[Any]]:
        """Wait until so many prompts run and wait."""
        deadline = time.monotonic() + PATIENCE / 1000
        while True:
            ids = await self.queue()
            if (len(ids[0]), len(ids[1])) == (running, pending):
                return ids
            assert time.monotonic() < deadline, f"not {running} running and {pending} waiting, but {ids}"
            await asyncio.sleep(0.02)

    async def tidy(self) -> None:
        """Leave the server idle, with nothing remembered."""
        await self.post("/queue", {"clear": True})
        await self.post("/interrupt", {})
        await self.wait_for_queue(0, 0)
        await self.post("/history", {"clear": True})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def frontend_server(kind: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[driver.Server]:
    """A server nobody has opened an editor on, with the installed editor and a package that has a template."""
    package = importlib.util.find_spec("comfyui_frontend_package")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs the package comfyui-frontend-package")
    static = Path(package.submodule_search_locations[0], "static")
    base = tmp_path_factory.mktemp(f"frontend-{kind}")
    pack = driver.install_pack(base, "tiny_with_template")
    # Those the package has for other tests have no thumbnails, for which the editor would ask.
    for folder in ("example_workflows", "examples"):
        shutil.rmtree(pack / folder, ignore_errors=True)
    templates = pack / "example_workflows"
    templates.mkdir()
    (templates / "one picture.json").write_text(json.dumps(picture()))
    (templates / "one picture.jpg").write_bytes(a_picture("JPEG"))
    # Pictures that are there before the editor asks for the list.
    (base / "input").mkdir()
    (base / "input" / "there.png").write_bytes(a_picture())
    server = getattr(driver.Server, kind)(base, ["--front-end-root", str(static)])
    try:
        yield await server.wait_until_ready()
    finally:
        server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole_editor(frontend_server: driver.Server) -> AsyncIterator[Editor]:
    """The editor as a first-time user gets it."""
    async with playwright_api.async_playwright() as playwright:
        try:
            browser = await playwright.chromium.launch(executable_path=driver.browser_path(), args=["--no-sandbox"])
        except playwright_api.Error as exc:
            pytest.skip(f"no browser: {exc}")
        context = await browser.new_context(viewport={"width": 1400, "height": 880})
        editor = Editor(await context.new_page(), frontend_server)
        editor.has_jobs = await editor.get("/api/jobs?status=cancelled") is not None
        # Nothing outside is asked.
        foreign = lambda url: not url.startswith((frontend_server.url, "blob:", "data:"))  # noqa: E731
        await context.route(foreign, lambda route: route.abort())
        await editor.open()
        yield editor
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def editor(whole_editor: Editor) -> AsyncIterator[Editor]:
    """The editor; what the test leaves running is ended. No request or script may have failed in it."""
    whole_editor.problems.clear()
    yield whole_editor
    await whole_editor.tidy()
    assert whole_editor.problems == []


# -- opening -------------------------------------------------------------------------------------------------


async def test_a_first_user_is_offered_workflows_and_opens_one(whole_editor: Editor) -> None:
    """The editor opens without a failing request, with the templates; one of a package is opened by a click."""
    page = whole_editor.page
    assert whole_editor.problems == []
    await page.get_by_role("button", name="tiny_with_template", exact=True).click()
    card = page.get_by_role("dialog").get_by_text("one picture", exact=True)
    await card.wait_for()
    await whole_editor.wait(
        "() => [...document.querySelectorAll('[role=dialog] img')].some((i) => i.naturalWidth === 40)"
    )
    await card.click()
    await whole_editor.wait("() => app.graph._nodes.map((n) => n.type).sort().join() === 'EmptyImage,PreviewImage'")
    assert whole_editor.problems == []


async def test_what_the_embedded_server_offers_runs_without_models(editor: Editor) -> None:
    """Its own templates, which a newcomer sees first, all run; and one of them stands for the default workflow."""
    if not editor.server.is_embedded:
        pytest.skip("ComfyUI's templates are a package of their own, and need models")
    page = editor.page
    (category,) = await editor.get("/templates/index.json")
    for template in category["templates"]:
        await editor.load(make_workflow(make_node(99, "PreviewAny", 40, [("source", "*", None)])))
        await page.get_by_role("button", name="Templates", exact=True).click()
        await page.get_by_role("dialog").get_by_text(template["title"], exact=True).click()
        await editor.wait("() => app.graph._nodes.length > 1 && app.graph._nodes.every((node) => !node.has_errors)")
        await editor.run()
        await editor.wait("() => Object.values(app.nodeOutputs).some((shown) => shown.images ?? shown.text)")
        await editor.wait_for_queue(0, 0)
    await editor.load(picture())
    await editor.ask("() => app.loadGraphData()")
    types = await editor.ask("() => app.graph._nodes.map((node) => node.type)")
    assert "ImageCompositeMasked" in types
    assert "KSampler" not in types


async def test_a_packages_script_runs_in_the_editor(editor: Editor) -> None:
    """WEB_DIRECTORY's script has been loaded and its setup called."""
    await editor.wait("() => document.documentElement.dataset.tiny === 'loaded'")


async def test_settings_are_kept_on_the_server(editor: Editor) -> None:
    """What is set is in /settings, and there when the page is opened anew; a returning user gets no templates."""
    await editor.load(picture())
    await editor.page.keyboard.press("Control+,")
    await editor.page.get_by_role("dialog").get_by_placeholder("Search Settings").wait_for()
    await editor.page.keyboard.press("Escape")
    await editor.ask("() => app.extensionManager.setting.set('Comfy.ColorPalette', 'light')")
    assert (await editor.get("/settings"))["Comfy.ColorPalette"] == "light"
    await editor.open()
    assert await editor.ask("() => app.extensionManager.setting.get('Comfy.ColorPalette')") == "light"
    await editor.wait(IS_BACKGROUND, "#ffffff")
    assert await editor.page.get_by_role("dialog").count() == 0
    await editor.ask("() => app.extensionManager.setting.set('Comfy.ColorPalette', 'dark')")
    await editor.wait(IS_BACKGROUND, "#171718")


async def test_a_users_own_styles_and_drawings_are_shown(editor: Editor) -> None:
    """The user's style sheet applies, and an <img> shows a saved SVG file, in which a script would not run."""
    server = editor.server
    if not asking.has(server, 0, 30) and asking.has(server, 0, 28):
        pytest.skip("ComfyUI 0.28 and 0.29 sent both as data to be saved")
    styles, drawing = server.base / "user/default/user.css", server.base / "output/drawing.svg"
    drawing.parent.mkdir(exist_ok=True)
    drawing.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="7" height="5"><rect width="7" height="5"/></svg>'
    )
    styles.write_text(":root { --of-the-user: 7px }")
    try:
        await editor.open()
        await editor.wait(
            "() => getComputedStyle(document.documentElement).getPropertyValue('--of-the-user').trim() === '7px'"
        )
        assert await editor.ask(SIZE_OF_IMAGE, "/view?filename=drawing.svg&type=output") == [7, 5]
    finally:
        styles.unlink()
        drawing.unlink()


async def test_a_saved_workflow_is_opened_from_the_sidebar(editor: Editor) -> None:
    """Ctrl+S asks for a name and stores it among the user's files; the sidebar lists and opens it."""
    page = editor.page
    await editor.load(picture(color=0x112233))
    await page.keyboard.press("Control+s")
    await page.get_by_role("dialog").get_by_role("textbox").fill("my picture")
    async with page.expect_response(lambda answer: answer.request.method == "POST" and "/userdata/" in answer.url):
        await page.keyboard.press("Enter")
    await editor.wait("() => app.extensionManager.workflow.activeWorkflow.path === 'workflows/my picture.json'")
    (stored,) = await editor.get("/userdata?dir=workflows&full_info=true")
    assert stored["path"] == "my picture.json"
    # Another one, then the stored one again.
    await editor.ask("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    await editor.wait("() => app.graph._nodes.length === 0")
    await editor.ask(
        """() => {
            const workflows = app.extensionManager.workflow
            return workflows.closeWorkflow(workflows.getWorkflowByPath("workflows/my picture.json"))
        }"""
    )
    await page.get_by_test_id("workflows-tab-button").click()
    await page.locator(".workflows-sidebar-tab").get_by_text("my picture").first.click()
    await editor.wait("() => app.graph.getNodeById(1)?.widgets?.[3]?.value === 0x112233")
    await page.get_by_test_id("workflows-tab-button").click()


# -- opening files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["drop", "choose"])
async def test_a_workflow_file_is_opened(editor: Editor, way: str) -> None:
    """A JSON file dropped on the canvas, or chosen in the file dialog, is shown."""
    color = {"drop": 0x445566, "choose": 0x556677}[way]
    await editor.load(steps(1, 0.0))
    content = json.dumps(picture(color=color)).encode()
    if way == "drop":
        await editor.hand_over("drop", ("other.json", "application/json", content))
    else:
        file = {"name": "other.json", "mimeType": "application/json", "buffer": content}
        # What Ctrl+O and the menu's Open click.
        await editor.page.locator("#comfy-file-input").set_input_files(file)
    await editor.wait("(color) => app.graph.getNodeById(1)?.widgets?.[3]?.value === color", color)


@pytest.mark.parametrize(
    ("save", "media_type", "widgets"),
    [
        pytest.param("SaveImage", "image/png", ["frontend"], id="SaveImage"),
        pytest.param("PreviewImage", "image/png", [], id="PreviewImage"),
        pytest.param("SaveAnimatedWEBP", "image/webp", ["frontend", 6.0, True, 80, "default"], id="animated"),
    ],
)
async def test_a_picture_dropped_opens_its_workflow(
    editor: Editor, save: str, media_type: str, widgets: list[Any]
) -> None:
    """What the server writes into its files is what the editor reads from them."""
    workflow = picture(save, color=0x00AA11)
    workflow["nodes"][0]["widgets_values"][2] = 2
    workflow["nodes"][1]["widgets_values"] = widgets
    await editor.load(workflow)
    await editor.run()
    image = (await editor.output())["images"][0]
    content = await editor.read("/view?filename={filename}&type={type}&subfolder={subfolder}".format(**image))
    await editor.load(steps(1, 0.0))
    await editor.hand_over("drop", (image["filename"], media_type, content))
    await editor.wait("(type) => app.graph.getNodeById(2)?.type === type", save)
    assert await editor.ask("() => app.graph.getNodeById(1).widgets[3].value") == 0x00AA11


# -- editing -------------------------------------------------------------------------------------------------


async def test_a_node_is_added_by_search_wired_and_changed(editor: Editor) -> None:
    """Double click, type, choose; drag from output to input; a new value into the width. Then it runs."""
    page = editor.page
    await editor.load(make_workflow(make_node(1, "PreviewImage", 600, [("images", "IMAGE", None)])))
    search = page.get_by_role("dialog").get_by_placeholder("Add a node")
    for _ in range(10):
        # The editor wants two clicks within a third of a second, which a busy machine may not manage.
        await page.mouse.dblclick(300, 600)
        try:
            await search.fill("EmptyImage", timeout=2000)
            break
        except playwright_api.TimeoutError:
            continue
    # Its name is with or without a space, by version.
    await page.get_by_role("dialog").get_by_text(re.compile("^Empty ?Image$")).first.click()
    await editor.wait("() => app.graph._nodes.some((node) => node.type === 'EmptyImage')")
    new = await editor.ask("() => app.graph._nodes.find((node) => node.type === 'EmptyImage').id")
    # The new node hangs at the mouse until a click, which the closing dialog must not get.
    await editor.wait("(id) => app.graph.getNodeById(id).flags.ghost", new)
    await page.get_by_role("dialog").wait_for(state="detached")
    await page.mouse.click(300, 420)
    await editor.wait("(id) => !app.graph.getNodeById(id).flags.ghost", new)
    await editor.wait("(id) => app.graph.getNodeById(id).widgets.every((widget) => widget.last_y > 0)", new)
    await page.mouse.move(*await editor.spot(new, "output", 0))
    await page.mouse.down()
    await page.mouse.move(*await editor.spot(1, "input", 0), steps=6)
    await page.mouse.up()
    await editor.wait("() => app.graph.getNodeById(1).inputs[0].link != null")
    await page.mouse.dblclick(*await editor.spot(new, "widget", "width"))
    field = page.locator(".graphdialog input")
    await field.fill("56")
    await field.press("Enter")
    await editor.wait("(id) => app.graph.getNodeById(id).widgets[0].value === 56", new)
    prompt = (await editor.ask("() => app.graphToPrompt()"))["output"]
    assert prompt[str(new)]["inputs"] == {"width": 56, "height": 512, "batch_size": 1, "color": 0}
    assert prompt["1"]["inputs"] == {"images": [str(new), 0]}
    await editor.run()
    assert len((await editor.output(1))["images"]) == 1


async def test_nodes_are_muted_and_bypassed_and_that_is_undone(editor: Editor) -> None:
    """Ctrl+M leaves a node out, Ctrl+B passes its input on, Ctrl+Z takes that back."""
    page = editor.page
    workflow = make_workflow(
        make_node(1, "EmptyImage", 40, outputs=[("IMAGE", "IMAGE", [1])], widgets=[8, 8, 1, 0]),
        make_node(2, "ImageInvert", 320, [("image", "IMAGE", 1)], [("IMAGE", "IMAGE", [2])]),
        make_node(3, "PreviewImage", 600, [("images", "IMAGE", 2)]),
        links=[[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]],
    )
    await editor.load(workflow)
    prompt = "async () => (await app.graphToPrompt()).output"
    await editor.select(2)
    await page.keyboard.press("Control+b")
    await editor.wait("() => app.graph.getNodeById(2).mode === 4")
    assert (await editor.ask(prompt))["3"]["inputs"] == {"images": ["1", 0]}
    await page.keyboard.press("Control+z")
    # Undoing loads the graph anew, and drops what is selected meanwhile.
    await editor.wait(
        """() => app.graph.getNodeById(2)?.mode === 0
            && !app.extensionManager.workflow.activeWorkflow.changeTracker._restoringState"""
    )
    await editor.select(2, "body")
    await page.keyboard.press("Control+m")
    await editor.wait("() => app.graph.getNodeById(2).mode === 2")
    assert "2" not in await editor.ask(prompt)


# -- running -------------------------------------------------------------------------------------------------


async def test_a_run_shows_progress_previews_and_the_result(editor: Editor) -> None:
    """The Run button; the bar on the node, the preview in it, and the results when it is done."""
    await editor.load(steps(**LONG))
    await editor.run()
    await editor.wait("() => app.graph.getNodeById(1).progress > 0")
    await editor.wait("() => app.graph.getNodeById(1).imgs?.[0]?.naturalWidth === 16")
    await editor.wait("() => app.graph.getNodeById(1).strokeStyles.running.call(app.graph.getNodeById(1))?.color")
    await editor.tidy()
    await editor.load(steps(2, 0.0, seed=2))
    await editor.run()
    assert (await editor.output())["values"] == [2]
    await editor.wait("() => !app.graph.getNodeById(1).progress")


async def test_pictures_are_shown_in_their_node(editor: Editor) -> None:
    """An output node shows the pictures it saved, in their size."""
    await editor.load(picture("SaveImage"))
    await editor.page.keyboard.press("Control+Enter")
    await editor.wait("() => app.graph.getNodeById(2).imgs?.[0]?.naturalWidth === 48")


async def test_a_cached_workflow_shows_its_results_again(editor: Editor) -> None:
    """A run in which nothing is executed leaves the results on the nodes."""
    await editor.load(picture())
    await editor.run()
    first = await editor.output()
    await editor.load(picture())
    await editor.run()
    assert await editor.output() == first


# Three pictures into a node that makes room for each, resized by a choice that brings a widget of its own.
GROWING = """async () => {
    await app.loadGraphData({ nodes: [], links: [], version: 0.4 });
    const add = (type) => { const node = LiteGraph.createNode(type); app.graph.add(node); return node; };
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    const batch = add("BatchImagesNode"), resize = add("ResizeImageMaskNode"), preview = add("PreviewImage");
    for (let i = 0; i < 3; i++) {
        add("EmptyImage").connect(0, batch, batch.inputs.findIndex((input) => input.link == null));
        await frame();
    }
    batch.connect(0, resize, resize.inputs.findIndex((input) => input.name === "input"));
    resize.connect(0, preview, 0);
    resize.widgets.find((widget) => widget.name === "resize_type").value = "scale width";
    await frame();
    resize.widgets.find((widget) => widget.name === "resize_type.width").value = 48;
    return preview.id;
}"""


async def test_dynamic_inputs_grow_and_are_chosen(editor: Editor) -> None:
    """Inputs that come with what is linked and chosen are in the prompt, and the node runs with them."""
    if "BatchImagesNode" not in await editor.get("/object_info/BatchImagesNode"):
        pytest.skip("this ComfyUI has no core nodes with dynamic inputs")
    preview_id = await editor.ask(GROWING)
    prompt = (await editor.ask("async () => (await app.graphToPrompt()).output")).values()
    inputs = {node["class_type"]: node["inputs"] for node in prompt}
    assert sorted(inputs["BatchImagesNode"]) == ["images.image0", "images.image1", "images.image2"]
    chosen = {name: value for name, value in inputs["ResizeImageMaskNode"].items() if name.startswith("resize_type")}
    assert chosen == {"resize_type": "scale width", "resize_type.width": 48}
    await editor.run()
    assert len((await editor.output(preview_id))["images"]) == 3


async def test_a_batch_is_queued_at_once_and_cleared(editor: Editor) -> None:
    """The number beside Run queues so many prompts; the queue is cleared and the running one cancelled by buttons."""
    page = editor.page
    await editor.load(steps(**LONG))
    count = page.locator(".batch-count input")
    await count.fill("4")
    await count.press("Enter")
    await editor.run()
    await editor.wait_for_queue(1, 3)
    await count.fill("1")
    await count.press("Enter")
    if editor.has_jobs:
        await page.get_by_role("button", name="Clear queued").click()
    else:
        await editor.ask("() => app.extensionManager.command.execute('Comfy.ClearPendingTasks')")
    await editor.wait_for_queue(1, 0)
    await page.get_by_role("button", name="Cancel current run").click()
    await editor.wait_for_queue(0, 0)
    await editor.wait("() => !app.graph.getNodeById(1).progress")


async def test_the_running_prompt_is_interrupted_by_keyboard(editor: Editor) -> None:
    """Ctrl+Alt+Enter."""
    await editor.load(steps(**LONG))
    await editor.run()
    await editor.wait("() => app.graph.getNodeById(1).progress > 0")
    await editor.page.keyboard.press("Control+Alt+Enter")
    await editor.wait_for_queue(0, 0)


async def test_a_waiting_prompt_is_cancelled_in_the_panel(editor: Editor) -> None:
    """The panel of jobs lists running and waiting ones; the menu of one of them takes it out of the queue."""
    editor.needs_jobs()
    if await editor.post("/api/jobs/cancel", {"job_ids": []}) != 200:
        pytest.skip("this ComfyUI cannot cancel jobs as this editor does")
    page = editor.page
    await editor.load(steps(**LONG))
    for _ in range(3):
        await editor.run()
    (running,), (second, third) = await editor.wait_for_queue(1, 2)
    await page.get_by_role("button", name="View all jobs").click()
    jobs = page.get_by_test_id("job-assets-list")
    for job in (running, third):
        await jobs.locator(f"[data-job-id='{job}']").wait_for()
    await jobs.locator(f"[data-job-id='{second}']").click(button="right")
    await page.get_by_role("menuitem", name="Cancel job").click()
    assert await editor.wait_for_queue(1, 1) == ([running], [third])
    await jobs.locator(f"[data-job-id='{second}']").wait_for(state="detached")
    await page.get_by_test_id("queue-overlay-toggle").click()
    await jobs.wait_for(state="detached")


async def test_a_failing_node_is_shown_with_its_error(editor: Editor) -> None:
    """The node's border is red, and the panel of errors has message and traceback."""
    page = editor.page
    await editor.load(
        make_workflow(
            make_node(1, "TinyFail", 40, outputs=[("INT", "INT", [1])], widgets=[3, "value"]),
            make_node(2, "TinyShow", 340, [("value", "*", 1)], [("*", "*", [])]),
            links=[[1, 1, 0, 2, 0, "INT"]],
        )
    )
    await editor.run()
    await page.get_by_test_id("error-overlay").get_by_text("TinyFail failed").wait_for()
    await editor.wait(
        "() => { const n = app.graph.getNodeById(1); return n.strokeStyles.executionError.call(n)?.color }"
    )
    await page.get_by_test_id("error-overlay-see-errors").click()
    report = page.get_by_test_id("runtime-error-panel")
    await report.get_by_text("ValueError: boom 3").first.wait_for()
    await page.get_by_role("button", name="Toggle properties panel").click()


async def test_a_refused_value_is_shown_at_its_node(editor: Editor) -> None:
    """The answer of 400 becomes the node's red border and a sentence."""
    await editor.load(
        make_workflow(
            make_node(1, "TinyNumber", 40, outputs=[("INT", "INT", [1])], widgets=[200, "", 1.0]),
            make_node(2, "TinyShow", 340, [("value", "*", 1)], [("*", "*", [])]),
            links=[[1, 1, 0, 2, 0, "INT"]],
        )
    )
    await editor.run()
    shown = editor.page.get_by_test_id("error-overlay")
    await shown.get_by_text("above the maximum 100").wait_for()
    assert await editor.ask("() => app.graph._nodes.map((node) => !!node.has_errors)") == [True, False]
    await editor.page.get_by_test_id("error-overlay-dismiss").click()
    # These are what this test is about.
    assert (400, "/api/prompt") in editor.problems
    editor.problems[:] = [
        problem
        for problem in editor.problems
        if problem != (400, "/api/prompt") and "Prompt execution failed" not in problem[1]
    ]


async def test_a_page_opened_in_the_middle_of_a_run_shows_its_progress(editor: Editor) -> None:
    """A reload keeps the client's id, and the server tells it what is going on."""
    await editor.load(steps(**LONG))
    await editor.run()
    await editor.wait("() => app.graph.getNodeById(1).progress > 0")
    await editor.wait("() => Object.keys(sessionStorage).length > 0")
    await editor.open()
    await editor.wait("() => app.graph.getNodeById(1)?.progress > 0")
    await editor.wait("() => app.graph.getNodeById(1).imgs?.[0]?.naturalWidth === 16")


async def test_only_the_selected_output_is_run(editor: Editor) -> None:
    """The command for selected output nodes: the others get no result."""
    workflow = picture(color=0x404040)
    workflow["nodes"].append(make_node(3, "SaveImage", 640, [("images", "IMAGE", 2)], widgets=["frontend"]))
    workflow["links"].append([2, 1, 0, 3, 0, "IMAGE"])
    workflow["nodes"][0]["outputs"][0]["links"] = [1, 2]
    await editor.load(workflow)
    await editor.select(3)
    await editor.ask("() => app.extensionManager.command.execute('Comfy.QueueSelectedOutputNodes')")
    await editor.output(3)
    await editor.wait_for_queue(0, 0)
    (entry,) = (await editor.get("/history")).values()
    assert list(entry["outputs"]) == ["3"]


# -- what has been run ---------------------------------------------------------------------------------------


async def test_the_media_panel_lists_results_and_opens_their_workflow(editor: Editor) -> None:
    """A run's pictures, newest first; the menu of one opens its workflow, or takes its run out of the history."""
    editor.needs_jobs()
    page = editor.page
    for color in (0x101010, 0x202020):
        await editor.load(picture("SaveImage", color))
        await editor.run()
        await editor.output()
    await editor.load(steps(1, 0.0))
    await page.get_by_test_id("assets-tab-button").click()
    cards = page.locator("[data-asset-id]").filter(has_text="frontend_")
    await cards.nth(1).wait_for()
    assert await cards.count() == 2
    await editor.wait_for_queue(0, 0)
    older, _ = await editor.get("/history")
    await cards.nth(1).locator("img").click(button="right")
    await page.get_by_role("menuitem", name="Open as workflow in new tab").click()
    await editor.wait("() => app.graph.getNodeById(1)?.widgets?.[3]?.value === 0x101010")
    await cards.nth(0).locator("img").click(button="right")
    await page.get_by_role("menuitem", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await cards.nth(1).wait_for(state="detached")
    assert list(await editor.get("/history")) == [older]
    await page.get_by_test_id("assets-tab-button").click()


async def test_the_history_is_cleared(editor: Editor) -> None:
    """The panel of jobs lists what was run until its history is cleared."""
    editor.needs_jobs()
    page = editor.page
    await editor.load(picture("SaveImage", color=0x303030))
    await editor.run()
    await editor.output()
    await editor.wait_for_queue(0, 0)
    (job,) = await editor.get("/history")
    await page.get_by_test_id("queue-overlay-toggle").click()
    await page.get_by_test_id("job-assets-list").locator(f"[data-job-id='{job}'] img").wait_for()
    await page.get_by_role("button", name="More options").click()
    await page.get_by_text("Clear job history").click()
    await page.get_by_role("dialog").get_by_role("button", name="Clear").click()
    await page.locator(f"[data-job-id='{job}']").wait_for(state="detached")
    assert await editor.get("/history") == {}
    await page.get_by_test_id("queue-overlay-toggle").click()


# -- pictures in ---------------------------------------------------------------------------------------------


def a_loader(name: str) -> dict[str, Any]:
    """A workflow: node 1 loads a picture, node 2 shows it."""
    outputs: list[tuple[str, str, list[int]]] = [("IMAGE", "IMAGE", [1]), ("MASK", "MASK", [])]
    return make_workflow(
        make_node(1, "LoadImage", 40, outputs=outputs, widgets=[name, "image"]),
        make_node(2, "PreviewImage", 340, [("images", "IMAGE", 1)]),
        links=[[1, 1, 0, 2, 0, "IMAGE"]],
    )


# The picture the first LoadImage has chosen.
IMAGE_CHOSEN = """() => app.graph._nodes.find((node) => node.type === 'LoadImage')
    ?.widgets.find((widget) => widget.name === 'image').value"""


@pytest.mark.parametrize("way", ["choose", "paste", "drop"])
async def test_a_picture_is_uploaded_into_its_node(editor: Editor, way: str) -> None:
    """By the button's file dialog, from the clipboard, dropped on the canvas: it is on the server and in a node."""
    page = editor.page
    content = a_picture(color=(len(way) * 30, 10, 10))
    name = f"{way}.png"
    if way == "drop":
        # Onto an empty canvas: the picture gets a node of its own.
        await editor.load(make_workflow(make_node(2, "PreviewImage", 640, [("images", "IMAGE", None)])))
    else:
        await editor.load(a_loader("there.png"))
    if way == "choose":
        await editor.wait("() => app.graph.getNodeById(1).widgets.find((w) => w.name === 'upload').last_y > 0")
        async with page.expect_file_chooser() as choosing:
            await page.mouse.click(*await editor.spot(1, "widget", "upload"))
    elif way == "paste":
        await editor.select(1)
    async with page.expect_response("**/upload/image"):
        if way == "choose":
            await (await choosing.value).set_files({"name": name, "mimeType": "image/png", "buffer": content})
        else:
            await editor.hand_over(way, (name, "image/png", content))
    await editor.wait(f"(name) => ({IMAGE_CHOSEN})()?.endsWith(name)", name)
    # The editor shows the picture's name, and asks for it, before it has sent it.
    editor.problems[:] = [problem for problem in editor.problems if f"filename={name}" not in problem[1]]
    chosen = await editor.ask(IMAGE_CHOSEN)
    subfolder, _, filename = chosen.rpartition("/")
    assert await editor.read(f"/view?filename={filename}&type=input&subfolder={subfolder}") == content
    if way != "drop":
        await editor.run()
        assert len((await editor.output())["images"]) == 1


async def test_a_mask_is_painted(editor: Editor) -> None:
    """The mask editor opens on a picture, a stroke is painted, and saving uploads a picture the node then has."""
    page = editor.page
    await editor.load(a_loader("there.png"))
    await editor.select(1)
    await editor.ask("() => app.extensionManager.command.execute('Comfy.MaskEditor.OpenMaskEditor')")
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Save").wait_for()
    await editor.wait("() => [...document.querySelectorAll('[role=dialog] canvas')].some((c) => c.width === 40)")
    box = await dialog.locator("canvas[width='40']").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    await page.mouse.move(x - 40, y)
    await page.mouse.down()
    await page.mouse.move(x + 40, y, steps=8)
    await page.mouse.up()
    await dialog.get_by_role("button", name="Save").click()
    await editor.wait(f"() => ({IMAGE_CHOSEN})()?.includes('clipspace-painted-masked')")
    await dialog.wait_for(state="detached")
    chosen = (await editor.ask(IMAGE_CHOSEN)).removesuffix(" [input]")
    subfolder, _, filename = chosen.rpartition("/")
    content = await editor.read(f"/view?filename={filename}&type=input&subfolder={subfolder}")
    with Image.open(io.BytesIO(content)) as painted:
        alpha = painted.getchannel("A")
        assert painted.size == (40, 24)
        # The stroke is what LoadImage makes a mask of; its edge is soft.
        assert alpha.getpixel((20, 12)) < 20
        assert alpha.getpixel((0, 0)) == 255
    await editor.run()
    await editor.output()


# -- panels --------------------------------------------------------------------------------------------------


async def test_every_panel_opens(editor: Editor) -> None:
    """The sidebars, the log as it grows, the shortcuts and the templates show what they are for."""
    page = editor.page
    await editor.load(picture())
    for tab, content in {
        "node-library-tab-button": "image",
        "model-library-tab-button": "checkpoints",
        "workflows-tab-button": "Workflows",
        "assets-tab-button": "Generated",
    }.items():
        await page.get_by_test_id(tab).click()
        await page.locator(".side-bar-panel").get_by_text(content, exact=True).first.wait_for()
        await page.get_by_test_id(tab).click()
    await editor.ask("() => app.extensionManager.command.execute('Workspace.ToggleBottomPanelTab.logs-terminal')")
    await editor.run()
    await editor.output()
    await page.locator(".xterm-rows").get_by_text("Prompt executed in").first.wait_for()
    await page.keyboard.press("Control+Shift+k")
    await page.get_by_text("Essential", exact=True).wait_for()
    await page.keyboard.press("Control+Shift+k")
    await page.get_by_role("button", name="Templates", exact=True).click()
    await page.get_by_role("dialog").get_by_text("tiny_with_template").first.wait_for()
    await page.keyboard.press("Escape")


async def test_a_nodes_help_is_shown(editor: Editor) -> None:
    """The button above a selected node opens a description of it, its inputs and outputs."""
    page = editor.page
    await editor.load(picture())
    await editor.select(1)
    await page.get_by_test_id("info-button").click()
    await page.get_by_text("batch_size").first.wait_for()
