"""The nodes in the real editor, in a real browser: what a person sees and does with ports and runners.

One server and one page per kind of server; on a real ComfyUI it is the editor of that ComfyUI, so that old and new ones
are tested. Where an editor can draw nodes in two ways, as a classic canvas and as Vue nodes, both are looked at. No
script may complain. With DISCOMFORT_SCREENSHOTS set to a folder, pictures for the documentation are put there.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from conformance import driver
from outer_server import OuterServer, outer_server_fixture

playwright_api = pytest.importorskip("playwright.async_api")

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Milliseconds a condition may take, on a slow machine; nothing waits that long when all is well.
PATIENCE = 60_000
# A nested server has to start for a run.
RUN_PATIENCE = 120_000

# The page has loaded its first graph and knows the nodes. Nothing of `app` is asked for before that.
READY = """() => window.app?.extensionManager?.workflow?.activeWorkflow && app.canvas
    && Object.keys(LiteGraph.registered_node_types).length > 50"""

# The marks of a node: what this package shows on it.
MARKS = """async (id) => {
    const marks = await import(document.querySelector('script[data-marks]').dataset.marks)
    return { ...marks.markOf(app.graph.getNodeById(id)), sockets: undefined }
}"""

# Where a part of a node is in the window.
SPOT = """([id, part, which]) => {
    const node = app.graph.getNodeById(id), view = app.canvas.ds
    const box = app.canvas.canvas.getBoundingClientRect()
    const widget = node.widgets?.find((one) => one.name === which)
    const slot = (side) => typeof which === 'number' ? which : node[side].findIndex((one) => one.name === which)
    const [x, y] = {
        title: () => [node.pos[0] + node.size[0] / 2, node.pos[1] - 15],
        input: () => node.getConnectionPos(true, slot('inputs')),
        output: () => node.getConnectionPos(false, slot('outputs')),
        widget: () => [node.pos[0] + node.size[0] / 2, node.pos[1] + widget.last_y + 10],
        below: () => [node.pos[0] + 3, node.pos[1] + node.size[1] + 12],
    }[part]()
    return [box.left + (x + view.offset[0]) * view.scale, box.top + (y + view.offset[1]) * view.scale]
}"""

# The sockets of a node: [inputs for ports, outputs], each [name, type, label, the title of the node at the other end].
SOCKETS = """(id) => {
    const node = app.graph.getNodeById(id)
    const link = (id) => app.graph.getLink?.(id) ?? app.graph.links.get?.(id) ?? app.graph.links[id]
    const title = (id) => id == null ? null : app.graph.getNodeById(id).title
    return [
        node.inputs.filter((one) => !one.widget).map((one) => [one.name, one.type, one.label ?? null,
            one.link == null ? null : title(link(one.link).origin_id)]),
        node.outputs.map((one) => [one.name, one.type, one.links?.length ? title(link(one.links[0]).target_id) : null]),
    ]
}"""

# Relative luminance after WCAG 2, and the contrast of two colours.
CONTRAST = """([one, other]) => {
    const probe = document.createElement('canvas').getContext('2d')
    const luminance = (colour) => {
        probe.fillStyle = colour
        probe.fillRect(0, 0, 1, 1)
        const parts = [...probe.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => part / 255)
        const [r, g, b] = parts.map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }
    const [a, b] = [luminance(one), luminance(other)].sort()
    return (b + 0.05) / (a + 0.05)
}"""

PROBLEM_RED = (0xB3, 0x26, 0x1E)

# What the editor asks for that need not be there.
OPTIONAL = (
    "user.css",
    "/docs/",
    "comfy.templates.json",
    "userdata?dir=",
    ".index.json",
    "/api/jobs",
    "global_subgraphs",
)


# ------------------------------------------------------------------------------------------------------- workflows


def a_node(
    node_id: int,
    class_type: str,
    x: int,
    inputs: list[tuple[str, str, int | None]] | None = None,
    outputs: list[tuple[str, str, list[int]]] | None = None,
    widgets: list[Any] | None = None,
    y: int = 80,
    **more: Any,
) -> dict[str, Any]:
    """A node of a workflow."""
    return {
        "id": node_id,
        "type": class_type,
        "pos": [x, y],
        "size": [230, 100],
        "flags": {},
        "order": node_id,
        "mode": 0,
        "inputs": [{"name": name, "type": kind, "link": link} for name, kind, link in inputs or []],
        "outputs": [{"name": name, "type": kind, "links": links} for name, kind, links in outputs or []],
        "properties": {},
        "widgets_values": widgets or [],
        **more,
    }


def a_port(
    node_id: int, name: str, x: int, arriving: int | None, leaving: list[int], y: int = 80, **more: Any
) -> dict[str, Any]:
    """A DiscomfortPort."""
    sockets = [("input_data", "*", arriving)], [("output", "*", leaving)]
    return a_node(node_id, "DiscomfortPort", x, *sockets, [name, ""], y, **more)


def a_workflow(*nodes: dict[str, Any], links: list[list[Any]] | None = None) -> dict[str, Any]:
    """A workflow of nodes, with links [id, from, slot, to, slot, type]."""
    return {
        "last_node_id": max(node["id"] for node in nodes),
        "last_link_id": len(links or []),
        "nodes": list(nodes),
        "links": links or [],
        "groups": [],
        "config": {},
        "extra": {"ds": {"scale": 1.0, "offset": [60, 140]}},
        "version": 0.4,
    }


def inverting(taken: str = "image", given: str = "image", **more: Any) -> dict[str, Any]:
    """A workflow that inverts the picture of one port and gives it to another."""
    return a_workflow(
        a_port(1, taken, 40, None, [1], **more),
        a_node(2, "ImageInvert", 340, [("image", "IMAGE", 1)], [("IMAGE", "IMAGE", [2])]),
        a_port(3, given, 640, 2, []),
        links=[[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]],
    )


def around(runner: str = "DiscomfortTestRunner", **widgets: Any) -> dict[str, Any]:
    """A workflow of a picture, a runner without sockets for ports yet, and a preview; none is wired."""
    return a_workflow(
        a_node(1, "EmptyImage", 40, outputs=[("IMAGE", "IMAGE", [])], widgets=[64, 48, 1, 0x3366CC], title="picture"),
        a_node(2, runner, 340, title="runner"),
        a_node(3, "PreviewImage", 740, [("images", "IMAGE", None)], title="preview"),
    )


# ---------------------------------------------------------------------------------------------------------- editor


class Editor:
    """A page with the editor, as a person has it before them."""

    def __init__(self, page: Any, server: OuterServer) -> None:
        self.page, self.server = page, server
        self.problems: list[str] = []
        # Of the editor, once it has been opened.
        self.version: tuple[int, ...] = ()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", self._catch)
        page.on("console", self._hear)
        page.on("response", self._see)

    def _catch(self, error: Any) -> None:
        # A setting of the editor 1.27's own that sets another one too early, whenever the page is loaded.
        if "addSetting" not in str(error.stack):
            self.problems.append(f"exception: {error}")

    def _hear(self, message: Any) -> None:
        # A request that fails is noted by its answer.
        own = "Failed to load resource|Content Security|Jobs"
        if self.version[:2] == (1, 49):  # this editor's own start does so
            own += "|graph accessed before initialization"
        if message.type == "error" and not re.search(own, message.text):
            self.problems.append(f"console: {message.text}")

    def _see(self, answer: Any) -> None:
        if answer.status >= 400 and not any(part in answer.url for part in OPTIONAL):
            self.problems.append(f"{answer.status}: {answer.url}")

    async def open(self) -> None:
        """Open the editor, or open it anew."""
        await self.page.goto(self.server.url)
        await self.page.wait_for_function(READY, timeout=4 * PATIENCE)
        version = str(await self.ask("() => window.__COMFYUI_FRONTEND_VERSION__"))
        self.version = tuple(map(int, version.split(".")[:2]))
        address = await self.ask(
            """async () => {
                const scripts = await (await fetch('/extensions')).json()
                const script = document.createElement('script')
                script.type = 'text/plain'
                script.dataset.marks = scripts.find((one) => one.endsWith('/shared/marks.js'))
                document.head.append(script)
                return script.dataset.marks
            }"""
        )
        assert address

    async def ask(self, code: str, argument: Any = None) -> Any:
        """What a JavaScript function returns."""
        return await self.page.evaluate(code, argument)

    async def wait(self, condition: str, argument: Any = None, patience: int = PATIENCE) -> None:
        """Wait until a JavaScript function says true."""
        await self.page.wait_for_function(condition, arg=argument, timeout=patience)

    async def until(self, look: Callable[[], Any], expected: Any) -> None:
        """Wait until a coroutine function gives what is expected; fails with what it gives instead."""
        deadline = time.monotonic() + PATIENCE / 1000
        while (found := await look()) != expected:
            assert time.monotonic() < deadline, f"{found!r} instead of {expected!r}"
            await asyncio.sleep(0.05)

    async def load(self, workflow: dict[str, Any], scale: float = 1.0) -> None:
        """Show a workflow in the present tab."""
        await self.ask(
            """async ([workflow, scale]) => {
                app.nodeOutputs = {}
                workflow.extra.ds = { scale, offset: [60, 140] }
                await app.loadGraphData(workflow, true, true, app.extensionManager.workflow.activeWorkflow)
                app.canvas.deselectAll()
                // Some editors move the view in the frames after that.
                const frame = () => new Promise((done) => requestAnimationFrame(done))
                for (let still = 0; still < 5; still++) {
                    const view = app.canvas.ds
                    if (view.scale !== scale || view.offset[0] !== 60 || view.offset[1] !== 140) still = 0
                    view.scale = scale
                    view.offset = [60, 140]
                    app.canvas.draw(true, true)
                    await frame()
                }
            }""",
            [workflow, scale],
        )
        # Somebody is there.
        await self.page.mouse.move(600, 600)
        await self.page.mouse.move(610, 605)

    async def set(self, setting: str, value: Any) -> None:
        """Change a setting of the editor."""
        await self.ask("([id, value]) => app.extensionManager.setting.set(id, value)", [setting, value])

    async def vue_nodes(self, wanted: bool) -> None:
        """Draw nodes by Vue, or on the canvas; skips where the editor has no Vue nodes."""
        if not wanted and not await self.ask("() => Boolean(LiteGraph.vueNodesMode)"):
            return
        if self.version < (1, 40):
            pytest.skip(f"the editor {self.version} has no Vue nodes that are fit for use")
        await self.set("Comfy.VueNodes.Enabled", wanted)
        await self.wait("(wanted) => Boolean(LiteGraph.vueNodesMode) === wanted", wanted)

    # -- nodes

    async def title(self, node_id: int) -> str:
        """The title that is drawn."""
        return str(await self.ask("(id) => app.graph.getNodeById(id).getTitle()", node_id))

    async def tone(self, node_id: int) -> str | None:
        """Which of the colours for ports its head has."""
        tone = (await self.ask(MARKS, node_id)).get("tone")
        return None if tone is None else str(tone)

    async def problem(self, node_id: int) -> str | None:
        """What is said to be wrong with a node."""
        problem = (await self.ask(MARKS, node_id)).get("problem")
        return None if problem is None else str(problem)

    async def until_problem(self, node_id: int, pattern: str) -> None:
        """Wait until what is said to be wrong with a node matches."""

        async def matches() -> bool:
            return re.search(pattern, await self.problem(node_id) or "") is not None

        await self.until(matches, True)

    async def sockets(self, node_id: int = 2) -> Any:
        """See SOCKETS."""
        return await self.ask(SOCKETS, node_id)

    async def spot(self, node_id: int, part: str, which: Any = None) -> tuple[float, float]:
        """Where a part of a node is, see SPOT."""
        x, y = await self.ask(SPOT, [node_id, part, which])
        return x, y

    async def try_again(self, do: Callable[[], Any], done: Callable[[], Any]) -> None:
        """Do something with the mouse until it has worked: clicks are lost while the editor puts its graph together."""
        deadline = time.monotonic() + PATIENCE / 1000
        while True:
            await do()
            try:
                await done()
                return
            except playwright_api.TimeoutError:
                assert time.monotonic() < deadline, "the editor does not react to the mouse"

    async def wire(self, source: int, output: int | str, target: int, name: str) -> None:
        """Draw a wire with the mouse."""
        wired = """([id, name]) => app.graph.getNodeById(id).inputs.find((one) => one.name === name).link != null"""

        async def drag() -> None:
            await self.ask("() => app.canvas.draw(true, true)")
            one = await self.spot(source, "output", output)
            other = await self.spot(target, "input", name)
            await self.page.mouse.move(*one)
            await self.page.mouse.down()
            await self.page.mouse.move((one[0] + other[0]) / 2, (one[1] + other[1]) / 2, steps=4)
            await self.page.mouse.move(*other, steps=4)
            await self.page.mouse.up()

        await self.try_again(drag, lambda: self.wait(wired, [target, name], 2000))

    async def type_into(self, node_id: int, widget: str, words: str) -> None:
        """Set a text widget on the canvas: a click on it opens a field."""
        field = self.page.locator(".graphdialog input.value, .graphdialog textarea.value")

        async def click() -> None:
            await self.ask("() => app.canvas.draw(true, true)")
            await self.page.mouse.click(*await self.spot(node_id, "widget", widget))

        await self.try_again(click, lambda: field.wait_for(timeout=2000))
        await field.fill(words)
        await field.press("Enter")
        await field.wait_for(state="hidden")

    async def set_widget(self, node_id: int, name: str, value: Any) -> None:
        """Set a widget as the editor itself does, for those that are drawn in several ways."""
        await self.ask(
            """([id, name, value]) => {
                const node = app.graph.getNodeById(id), widget = node.widgets.find((one) => one.name === name)
                widget.value = value
                widget.callback?.(value, app.canvas, node)
            }""",
            [node_id, name, value],
        )

    async def picture(self, name: str) -> None:
        """A picture of the page for the documentation, where one is wanted."""
        folder = os.environ.get("DISCOMFORT_SCREENSHOTS")
        if folder and self.server.kind == "embedded":
            await self.page.screenshot(path=str(Path(folder, name)), animations="disabled")


outer = outer_server_fixture()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole_editor(outer: OuterServer) -> AsyncIterator[Editor]:
    """The editor of somebody who has used it before."""
    settings = {
        "Comfy.TutorialCompleted": True,
        "Comfy.InstalledVersion": "99.0.0",
        "Comfy.Release.Status": "skipped",
        "Comfy.Notification.ShowVersionUpdates": False,
        "Comfy.Minimap.Visible": False,
        "Comfy.VueNodes.Enabled": False,
        "Comfy.VueNodes.AutoScaleLayout": False,
        "Comfy.Workflow.WarnBlueprintOverwrite": False,
    }
    (outer.user_folder / "comfy.settings.json").write_text(json.dumps(settings))
    async with playwright_api.async_playwright() as playwright:
        try:
            browser = await playwright.chromium.launch(executable_path=driver.browser_path(), args=["--no-sandbox"])
        except playwright_api.Error as error:
            pytest.skip(f"no browser: {error}")
        context = await browser.new_context(viewport={"width": 1280, "height": 760})
        # Nothing outside is asked.
        foreign = lambda url: not url.startswith((outer.url, "blob:", "data:"))  # noqa: E731
        await context.route(foreign, lambda route: route.abort())
        editor = Editor(await context.new_page(), outer)
        await editor.open()
        yield editor
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def editor(whole_editor: Editor) -> AsyncIterator[Editor]:
    """The editor with classic nodes; no script may complain in the test."""
    whole_editor.problems.clear()
    for file in whole_editor.server.workflows_folder.rglob("*.json"):
        file.unlink()
    await whole_editor.vue_nodes(False)
    yield whole_editor
    assert whole_editor.problems == []


@pytest.fixture
def save(editor: Editor) -> Callable[..., None]:
    """``save(name, workflow)`` puts a workflow among those that the user has saved."""

    def write(name: str, workflow: dict[str, Any]) -> None:
        file = editor.server.workflows_folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(workflow), encoding="utf-8")

    return write


# ----------------------------------------------------------------------------------------------------------- ports


async def test_a_port_is_found_by_the_search_box(editor: Editor) -> None:
    """Double click on the canvas, type, Enter: the port is there, without a colour and a complaint."""
    await editor.load(a_workflow(a_node(1, "EmptyImage", 40, widgets=[64, 48, 1, 0])))
    offer = editor.page.get_by_text("Discomfort Port").first
    is_there = "() => app.graph._nodes.some((node) => node.type === 'DiscomfortPort')"

    async def search() -> None:
        await editor.page.keyboard.press("Escape")
        await editor.page.mouse.dblclick(700, 450)
        await editor.page.keyboard.type("Discomfort Port", delay=10)

    async def add() -> None:
        await offer.wait_for(timeout=5000)
        await editor.page.keyboard.press("Enter")
        await editor.page.wait_for_function(is_there, timeout=5000)

    # A key is lost where the list is drawn anew at that moment, as one of a person's would be.
    await editor.try_again(search, add)
    port = await editor.ask("() => app.graph._nodes.find((node) => node.type === 'DiscomfortPort').id")
    # Some editors let the new node hang on the mouse until a click.
    await editor.page.mouse.click(700, 450)
    assert await editor.title(port) == "Discomfort Port"
    assert (await editor.tone(port), await editor.problem(port)) == (None, None)


async def test_title_and_colour_follow_the_wires(editor: Editor) -> None:
    """Wires drawn with the mouse make a port an INPUT, a pass-through and an OUTPUT, and taking them off undoes it."""
    await editor.load(
        a_workflow(
            a_node(1, "ImageInvert", 40, [("image", "IMAGE", None)], [("IMAGE", "IMAGE", [])]),
            a_port(2, "picture", 340, None, []),
            a_node(3, "ImageInvert", 740, [("image", "IMAGE", None)], [("IMAGE", "IMAGE", [])]),
        )
    )
    assert await editor.title(2) == "PORT picture"
    await editor.wire(2, "output", 3, "image")
    await editor.until(lambda: editor.title(2), "IN picture")
    assert await editor.tone(2) == "input"
    await editor.wire(1, "IMAGE", 2, "input_data")
    await editor.until(lambda: editor.title(2), "THROUGH picture")
    assert await editor.tone(2) == "passing"
    await editor.ask("() => app.graph.getNodeById(3).disconnectInput(0)")
    await editor.until(lambda: editor.title(2), "OUT picture")
    assert await editor.tone(2) == "output"
    await editor.ask("() => app.graph.getNodeById(2).disconnectInput(0)")
    await editor.until(lambda: editor.title(2), "PORT picture")
    assert await editor.tone(2) is None


async def test_a_name_in_and_out_is_shown_as_a_loop_variable(editor: Editor) -> None:
    """The same name on an INPUT and an OUTPUT gets a sign; several INPUT ports of a name are nothing special."""
    await editor.load(inverting())
    await editor.until(lambda: editor.title(1), "IN image ↻")
    assert await editor.title(3) == "OUT image ↻"
    await editor.picture("editor-ports.png")
    await editor.load(inverting("image", "result"))
    await editor.until(lambda: editor.title(3), "OUT result")
    assert await editor.title(1) == "IN image"
    two = inverting("image", "result")
    two["nodes"] += [
        a_port(4, "image", 40, None, [3], y=300),
        a_node(5, "PreviewImage", 340, [("images", "IMAGE", 3)], y=300),
    ]
    two["links"].append([3, 4, 0, 5, 0, "IMAGE"])
    await editor.load(two)
    await editor.until(lambda: editor.title(4), "IN image")
    assert [await editor.problem(node) for node in (1, 3, 4)] == [None, None, None]


async def test_two_outputs_of_one_name_are_flagged_while_it_is_typed(editor: Editor) -> None:
    """A second OUTPUT of a name: both say what is wrong, in red, until one is called otherwise; an empty name, too."""
    double = inverting("image", "result")
    double["nodes"].append(a_port(4, "other", 640, 3, [], y=320))
    double["links"].append([3, 2, 0, 4, 0, "IMAGE"])
    await editor.load(double)
    await editor.until(lambda: editor.title(4), "OUT other")
    assert [await editor.problem(node) for node in (1, 3, 4)] == [None, None, None]
    await editor.type_into(4, "unique_id", "result")
    said = "Two OUTPUT ports are called 'result': every output needs a name of its own."
    await editor.until(lambda: editor.problem(4), said)
    assert [await editor.problem(node) for node in (1, 3)] == [None, said]
    await editor.picture("editor-port-problem.png")
    await editor.ask("() => app.canvas.draw(true, true)")
    assert await colour_at(editor, *await editor.spot(4, "below")) == PROBLEM_RED
    await editor.type_into(4, "unique_id", "")
    await editor.until(lambda: editor.problem(4), "This port has no name: type one into unique_id.")
    assert (await editor.title(4), await editor.problem(3)) == ("OUT ?", None)
    await editor.type_into(4, "unique_id", "second")
    await editor.until(lambda: editor.title(4), "OUT second")
    assert await editor.problem(4) is None
    await editor.ask("() => app.canvas.draw(true, true)")
    assert await colour_at(editor, *await editor.spot(4, "below")) != PROBLEM_RED


async def colour_at(editor: Editor, x: float, y: float) -> tuple[int, ...]:
    """The colour of the page at a spot."""
    import io

    from PIL import Image

    shown = await editor.page.screenshot(clip={"x": x, "y": y, "width": 1, "height": 1})
    with Image.open(io.BytesIO(shown)) as image:
        pixel: Any = image.convert("RGB").getpixel((0, 0))
    return tuple(pixel)


async def test_what_the_user_has_chosen_stays(editor: Editor) -> None:
    """A title and a colour of the user's are neither changed nor hidden."""
    await editor.load(inverting(title="my door", color="#322", bgcolor="#533"))
    await editor.until(lambda: editor.title(3), "OUT image ↻")
    assert await editor.title(1) == "my door"
    # The editor itself may write the colour in another way.
    head = "() => app.graph.getNodeById(1).renderingColor"
    assert await editor.ask(CONTRAST, [await editor.ask(head), "#332222"]) < 1.05
    assert await editor.ask(CONTRAST, [await editor.ask(head.replace("1)", "3)")), "#332222"]) > 1.5
    # The title that the editor itself gives is nobody's choice, in whatever way it was saved.
    await editor.load(inverting(title="Discomfort Port"))
    await editor.until(lambda: editor.title(1), "IN image ↻")


async def test_opening_changes_neither_what_is_saved_nor_what_is_queued(editor: Editor) -> None:
    """Marks are no part of the workflow: it is not modified by being opened, and its prompt has nothing of them."""
    await editor.load(inverting())
    saved = await editor.ask("() => app.graph.serialize()")
    await editor.load(saved)
    await editor.until(lambda: editor.title(1), "IN image ↻")
    state = """() => {
        const workflow = app.extensionManager.workflow.activeWorkflow
        workflow.changeTracker.reset(workflow.changeTracker.activeState)
        workflow.changeTracker.checkState?.()
        return [app.graph.serialize().nodes, workflow.isModified]
    }"""
    nodes, _ = await editor.ask(state)
    assert nodes == saved["nodes"]
    assert not any({"color", "bgcolor", "title", "color_on"} & set(node) for node in nodes)
    prompt = (await editor.ask("() => app.graphToPrompt()"))["output"]
    assert prompt["1"] == {
        "class_type": "DiscomfortPort",
        "inputs": {"unique_id": "image", "tags": ""},
        "_meta": {"title": "Discomfort Port"},
    }
    assert prompt["3"]["inputs"] == {"unique_id": "image", "tags": "", "input_data": ["2", 0]}


async def test_ports_inside_of_subgraphs_see_what_is_outside(editor: Editor) -> None:
    """A port in a subgraph whose wires lead out of it is what they make of it; through Reroutes likewise."""
    await editor.load(
        a_workflow(
            a_node(1, "EmptyImage", 40, outputs=[("IMAGE", "IMAGE", [1])], widgets=[64, 48, 1, 0]),
            a_port(2, "inner", 340, 1, [2]),
            a_node(3, "Reroute", 640, [("", "*", 2)], [("", "IMAGE", [3])]),
            a_node(4, "ImageInvert", 800, [("image", "IMAGE", 3)], [("IMAGE", "IMAGE", [])]),
            links=[[1, 1, 0, 2, 0, "*"], [2, 2, 0, 3, 0, "*"], [3, 3, 0, 4, 0, "IMAGE"]],
        )
    )
    await editor.until(lambda: editor.title(2), "THROUGH inner")
    found = """() => [...app.graph.subgraphs.values()].flatMap((graph) => graph._nodes)
        .filter((node) => node.type === 'DiscomfortPort').map((node) => node.getTitle())"""
    await editor.ask("() => { app.graph.convertToSubgraph(new Set([app.graph.getNodeById(2)])) }")
    # As after every click.
    await editor.ask("() => app.extensionManager.workflow.activeWorkflow.changeTracker.checkState()")
    await editor.until(lambda: editor.ask(found), ["THROUGH inner"])
    await editor.ask("() => app.graph.getNodeById(4).disconnectInput(0)")
    await editor.ask("() => app.extensionManager.workflow.activeWorkflow.changeTracker.checkState()")
    await editor.until(lambda: editor.ask(found), ["OUT inner"])


async def test_heads_are_readable_in_dark_and_light_themes(editor: Editor) -> None:
    """The title on each colour has the contrast that WCAG asks for."""
    look = """() => app.graph._nodes.filter((node) => node.type === 'DiscomfortPort')
        .map((node) => [node.renderingColor, node.constructor.title_text_color])"""
    shown = inverting()
    shown["nodes"] += [
        a_port(4, "mid", 40, 3, [4], y=300),
        a_node(5, "PreviewImage", 340, [("images", "IMAGE", 4)], y=300),
        a_port(6, "alone", 640, None, [], y=300),
    ]
    shown["links"] += [[3, 2, 0, 4, 0, "IMAGE"], [4, 4, 0, 5, 0, "IMAGE"]]
    await editor.load(shown)
    seen = set()
    try:
        for palette in ("light", "dark"):
            await editor.set("Comfy.ColorPalette", palette)
            await editor.wait(
                "(colour) => LiteGraph.NODE_TITLE_COLOR === colour", {"light": "#222", "dark": "#999"}[palette]
            )
            for head, title in await editor.ask(look):
                assert await editor.ask(CONTRAST, [head, title]) >= 4.5, (palette, head, title)
                seen.add(head)
            await editor.picture(f"editor-ports-{palette}.png")
    finally:
        await editor.set("Comfy.ColorPalette", "dark")
    assert len(seen) == 8, "three colours and the neutral one, in each theme"


async def test_vue_nodes_show_the_same(editor: Editor) -> None:
    """Nodes that are drawn by Vue have the title, the colour and the problem, and the node itself none of it."""
    await editor.vue_nodes(True)
    double = inverting("image", "result")
    double["nodes"].append(a_port(4, "result", 640, 3, [], y=320))
    double["links"].append([3, 2, 0, 4, 0, "IMAGE"])
    await editor.load(double)
    look = """(id) => {
        const node = document.querySelector(`[data-node-id="${id}"]`)
        const title = node?.querySelector('[data-testid="node-title"] .editable-text span')
        if (!title) return null
        const head = getComputedStyle(node.querySelector('[data-testid="node-inner-wrapper"]'))
        const words = (element, which) => getComputedStyle(element, which).content.replace(/^"|"$/g, '')
        return [words(title, '::before'), head.backgroundColor, head.outlineStyle, words(node, '::after')]
    }"""
    await editor.until(lambda: editor.ask(look, 1), ["IN image", "rgb(39, 86, 58)", "none", "none"])
    said = "Two OUTPUT ports are called 'result': every output needs a name of its own."
    await editor.until(lambda: editor.ask(look, 4), ["OUT result", "rgb(107, 68, 32)", "solid", said])
    await editor.page.locator('[data-node-id="4"] input').first.fill("second")
    await editor.page.keyboard.press("Tab")
    await editor.until(lambda: editor.ask(look, 4), ["OUT second", "rgb(107, 68, 32)", "none", "none"])
    assert await editor.ask("() => app.graph.getNodeById(4).title") == "Discomfort Port"


# --------------------------------------------------------------------------------------------------------- runners


async def choose(editor: Editor, name: str) -> None:
    """Choose the workflow of runner 2 in its list, with the mouse."""
    entry = editor.page.locator(".litecontextmenu .litemenu-entry", has_text=name)

    async def click() -> None:
        await editor.ask("() => app.canvas.draw(true, true)")
        await editor.page.mouse.click(*await editor.spot(2, "widget", "workflow"))

    await editor.try_again(click, lambda: entry.wait_for(timeout=2000))
    await entry.click()


async def wired_runner(editor: Editor, save: Callable[..., None]) -> None:
    """A runner of invert.json, between a picture and a preview."""
    save("invert.json", inverting())
    await editor.load(around())
    await editor.set_widget(2, "workflow", "invert.json")
    await editor.until(lambda: editor.sockets(), [[["in:image", "IMAGE", "image", None]], [["image", "IMAGE", None]]])
    await editor.ask(
        """() => {
            const [picture, runner, preview] = [1, 2, 3].map((id) => app.graph.getNodeById(id))
            picture.connect(0, runner, runner.inputs.findIndex((one) => one.name === 'in:image'))
            runner.connect(0, preview, 0)
        }"""
    )
    await editor.until(lambda: editor.sockets(), WIRED)


WIRED = [[["in:image", "IMAGE", "image", "picture"]], [["image", "IMAGE", "preview"]]]


async def test_the_ports_of_a_chosen_workflow_become_sockets(editor: Editor, save: Callable[..., None]) -> None:
    """A new runner has no sockets; the list has the saved workflows; choosing one brings its ports, typed."""
    save("invert.json", inverting())
    save("sub/other.json", inverting("other", "result"))
    await editor.load(around())
    assert await editor.sockets() == [[], []]
    await editor.page.mouse.click(*await editor.spot(2, "title"))
    await editor.wait(
        "() => app.graph.getNodeById(2).widgets.find((one) => one.name === 'workflow').options.values.length >= 2"
    )
    await choose(editor, "sub/other.json")
    await editor.until(lambda: editor.sockets(), [[["in:other", "IMAGE", "other", None]], [["result", "IMAGE", None]]])
    await choose(editor, "invert.json")
    await editor.until(lambda: editor.sockets(), [[["in:image", "IMAGE", "image", None]], [["image", "IMAGE", None]]])
    await editor.wire(1, "IMAGE", 2, "in:image")
    await editor.wire(2, "image", 3, "images")
    await editor.until(lambda: editor.sockets(), WIRED)
    prompt = (await editor.ask("() => app.graphToPrompt()"))["output"]
    ports = {"inputs": [{"name": "image", "type": "IMAGE"}], "outputs": [{"name": "image", "type": "IMAGE"}]}
    assert json.loads(prompt["2"]["inputs"].pop("ports")) == ports
    assert prompt["2"]["inputs"] == {"workflow": "invert.json", "free_memory_first": False, "in:image": ["1", 0]}
    assert prompt["3"]["inputs"]["images"] == ["2", 0]
    await editor.picture("editor-runner.png")


async def test_the_hidden_widget_is_seen_nowhere(editor: Editor, save: Callable[..., None]) -> None:
    """What the runner notes of its sockets takes no room on the canvas, and no place in a Vue node."""
    await wired_runner(editor, save)
    shown = "() => app.graph.getNodeById(2).widgets.filter((one) => !one.hidden).map((one) => one.name)"
    assert await editor.ask(shown) == ["workflow", "free_memory_first"]
    assert await editor.ask("() => app.graph.getNodeById(2).inputs.every((one) => one.widget?.name !== 'ports')")
    await editor.vue_nodes(True)
    await editor.wait("() => document.querySelector('[data-node-id=\"2\"]')?.innerText.includes('free_memory_first')")
    words = await editor.ask("() => document.querySelector('[data-node-id=\"2\"]').innerText.split('\\n')")
    assert "image" in words
    assert "ports" not in words


async def test_sockets_and_wires_survive_saving_and_opening_without_a_server(
    editor: Editor, save: Callable[..., None]
) -> None:
    """They come from the workflow's own file: the page asks the server for nothing before somebody is there."""
    await wired_runner(editor, save)
    prompt = await editor.ask("async () => (await app.graphToPrompt()).output")
    save("around.json", await editor.ask("() => app.graph.serialize()"))
    asked: list[str] = []
    editor.page.on("request", lambda request: asked.append(request.url))
    await editor.open()
    await editor.ask(
        """async () => {
            const workflow = await (await fetch('/userdata/workflows%2Faround.json')).json()
            await app.loadGraphData(workflow, true, true, app.extensionManager.workflow.activeWorkflow)
        }"""
    )
    assert await editor.sockets() == WIRED
    assert await editor.ask("async () => (await app.graphToPrompt()).output") == prompt
    requests = [url for url in asked if re.search("/discomfort/(workflows|ports|condition)", url)]
    assert requests == []
    save("invert.json", inverting("image", "result"))
    await editor.page.mouse.move(500, 500)
    await editor.page.mouse.move(520, 500)
    # Now that somebody is, the files count.
    await editor.until(
        lambda: editor.sockets(),
        [WIRED[0], [["image", "IMAGE", "preview"], ["result", "IMAGE", None]]],
    )


async def test_a_changed_file_changes_the_sockets_and_keeps_wires_by_name(
    editor: Editor, save: Callable[..., None]
) -> None:
    """Coming back to the window is enough. A port that is gone keeps its socket, flagged, as long as it has a wire."""
    await wired_runner(editor, save)
    more = inverting()
    more["nodes"] += [
        a_port(4, "first", 40, None, [3], y=300),
        a_node(5, "InvertMask", 340, [("mask", "MASK", 3)], [("MASK", "MASK", [4])], y=300),
        a_port(6, "mask", 640, 4, [], y=300),
    ]
    more["links"] += [[3, 4, 0, 5, 0, "MASK"], [4, 5, 0, 6, 0, "MASK"]]
    save("invert.json", more)
    await editor.ask("() => { window.dispatchEvent(new Event('focus')) }")
    both = [[*WIRED[0], ["in:first", "MASK", "first", None]], [*WIRED[1], ["mask", "MASK", None]]]
    await editor.until(lambda: editor.sockets(), both)
    assert await editor.problem(2) is None
    gone = inverting("other", "image")
    save("invert.json", gone)
    await editor.ask("() => { window.dispatchEvent(new Event('focus')) }")
    kept = [[*WIRED[0], ["in:other", "IMAGE", "other", None]], WIRED[1]]
    await editor.until(lambda: editor.sockets(), kept)
    said = "The workflow has no port 'image' any more: take the wire off, or name a port so."
    await editor.until(lambda: editor.problem(2), said)
    await editor.picture("editor-runner-stale.png")
    await editor.ask(
        """() => {
            const node = app.graph.getNodeById(2)
            node.disconnectInput(node.inputs.findIndex((one) => one.name === 'in:image'))
        }"""
    )
    await editor.until(lambda: editor.sockets(), [[["in:other", "IMAGE", "other", None]], WIRED[1]])
    await editor.until(lambda: editor.problem(2), None)


async def test_a_file_that_cannot_be_read_takes_no_socket_away(editor: Editor, save: Callable[..., None]) -> None:
    """The sockets stay, and the node says what is wrong."""
    await wired_runner(editor, save)
    (editor.server.workflows_folder / "invert.json").unlink()
    await editor.ask("() => { window.dispatchEvent(new Event('focus')) }")
    await editor.until_problem(2, "no workflow 'invert.json'")
    assert await editor.sockets() == WIRED


async def test_the_menu_of_a_runner(editor: Editor, save: Callable[..., None]) -> None:
    """Refresh, and open the workflow in a tab of its own."""
    await wired_runner(editor, save)
    tabs = "() => app.extensionManager.workflow.openWorkflows.length"
    before = await editor.ask(tabs)
    save("invert.json", inverting("image", "result"))
    await press_menu(editor, 2, "Refresh ports")
    await editor.until(
        lambda: editor.sockets(),
        [WIRED[0], [["image", "IMAGE", "preview"], ["result", "IMAGE", None]]],
    )
    await press_menu(editor, 2, "Open workflow")
    await editor.until(
        lambda: editor.ask("() => app.graph._nodes.map((one) => one.type).sort().join()"),
        "DiscomfortPort,DiscomfortPort,ImageInvert",
    )
    assert await editor.ask(tabs) == before + 1
    await editor.ask(
        """async () => {
            const store = app.extensionManager.workflow, opened = store.activeWorkflow
            const first = store.openWorkflows.find((one) => one !== opened)
            await app.loadGraphData(JSON.parse(JSON.stringify(first.activeState)), true, true, first)
            await store.closeWorkflow(opened)
        }"""
    )
    assert await editor.ask(tabs) == before


async def test_the_menu_opens_examples_too(editor: Editor) -> None:
    """Of a workflow that is not saved, but among the examples of the pack."""
    example = json.loads(
        (Path(__file__).parent.parent / "example_workflows" / "Test a workflow.json").read_text(encoding="utf-8")
    )
    await editor.load(example)
    runner = next(node["id"] for node in example["nodes"] if node["type"] == "DiscomfortTestRunner")
    await press_menu(editor, runner, "Open workflow")
    await editor.wait("() => app.graph._nodes.filter((node) => node.type === 'DiscomfortPort').length === 3")
    await editor.ask("() => app.extensionManager.workflow.closeWorkflow(app.extensionManager.workflow.activeWorkflow)")


async def press_menu(editor: Editor, node_id: int, item: str) -> None:
    """Choose an item of a node's context menu, as the editor builds it."""
    await editor.ask(
        """([id, item]) => {
            const node = app.graph.getNodeById(id)
            const found = app.canvas.getNodeMenuOptions(node).find((one) => one?.content === item)
            found.callback.call(found, found, {}, new MouseEvent('click'), undefined, node)
        }""",
        [node_id, item],
    )


async def test_a_server_without_the_routes_is_asked_once(editor: Editor, save: Callable[..., None]) -> None:
    """As in a nested server, whose page only converts: the first 404 is the last one, and the sockets stay."""
    await wired_runner(editor, save)
    saved = await editor.ask("() => app.graph.serialize()")
    asked: list[str] = []

    async def refuse(route: Any) -> None:
        asked.append(route.request.url)
        await route.fulfill(status=404, body="404: Not Found", content_type="text/plain")

    mine = re.compile(r"/discomfort/(workflows|ports|condition)")
    await editor.page.route(mine, refuse)
    try:
        await editor.open()
        await editor.load(saved)
        deadline = time.monotonic() + PATIENCE / 1000
        while not asked:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        await editor.ask("() => { window.dispatchEvent(new Event('focus')) }")
        await editor.ask("() => app.graph.getNodeById(2).onSelected?.()")
        await editor.set_widget(2, "workflow", "other.json")
        # Longer than what waits for typing to pause.
        await editor.ask("() => new Promise((done) => setTimeout(done, 700))")
        assert len(asked) == 1
        assert await editor.sockets() == WIRED
    finally:
        await editor.page.unroute(mine)
        editor.problems[:] = [problem for problem in editor.problems if not problem.startswith("404")]
        await editor.open()


async def test_a_user_who_reads_french_is_spoken_to_in_french(editor: Editor, save: Callable[..., None]) -> None:
    """Names of nodes, titles of ports and sentences are the package's own translations."""
    await editor.set("Comfy.Locale", "fr")
    await editor.page.wait_for_load_state()
    try:
        await editor.open()
        double = inverting("image", "result")
        double["nodes"].append(a_port(4, "result", 640, 3, [], y=320))
        double["links"].append([3, 2, 0, 4, 0, "IMAGE"])
        await editor.load(double)
        await editor.until(lambda: editor.title(1), "ENTRÉE image")
        said = "Deux ports de SORTIE s'appellent « result » : chaque sortie doit avoir son propre nom."
        await editor.until(lambda: editor.problem(4), said)
        name = "() => LiteGraph.registered_node_types.DiscomfortPort.title"
        assert await editor.ask(name) == "Port Discomfort"
    finally:
        await editor.set("Comfy.Locale", "en")
        await editor.open()


async def test_conditions_of_a_loop_are_checked_while_they_are_typed(editor: Editor, save: Callable[..., None]) -> None:
    """The loop's ports are those of all its workflows; a bad condition is said on the node, and a good one is not."""
    save("invert.json", inverting())
    save("score.json", inverting("result", "score"))
    loop = around("DiscomfortLoopExecutor")
    loop["nodes"][1]["pos"] = [340, 60]
    await editor.load(loop, scale=0.8)
    await editor.set_widget(2, "workflows", "invert.json\n# not this one\nscore.json")
    await editor.until(
        lambda: editor.sockets(),
        [
            [["in:image", "IMAGE", "image", None], ["in:result", "IMAGE", "result", None]],
            [["image", "IMAGE", None], ["score", "IMAGE", None]],
        ],
    )
    assert await editor.problem(2) is None
    await editor.type_into(2, "condition", "score <")
    await editor.until_problem(2, "^condition: .*'score <'")
    await editor.picture("editor-condition.png")
    hint = "() => app.graph.getNodeById(2).widgets.find((one) => one.name === 'condition').tooltip"
    assert "Names: image, result, score, iteration" in await editor.ask(hint)
    await editor.type_into(2, "condition", "mean(score) < 0.5")
    await editor.until(lambda: editor.problem(2), None)


async def test_a_run_from_the_editor_shows_its_results(editor: Editor, save: Callable[..., None]) -> None:
    """Queued as a person does, the runner runs its workflow in a nested server; the preview shows what came out."""
    await wired_runner(editor, save)
    await editor.page.get_by_test_id("queue-button").click()
    await editor.wait("() => app.nodeOutputs?.['3']?.images?.length || app.lastExecutionError", patience=RUN_PATIENCE)
    assert await editor.ask("() => app.lastExecutionError") is None, editor.server.log()[-3000:]
    (image,) = await editor.ask("() => app.nodeOutputs['3'].images")
    assert image["type"] == "temp"
    note = (await editor.ask(MARKS, 2)).get("note")
    assert note
    await editor.wait("() => app.graph.getNodeById(3).imgs?.[0]?.naturalWidth === 64")
    await editor.picture("editor-run.png")
