"""What docs/tutorial/in-the-editor.md tells a new user to do, done in a real browser with mouse and keyboard.

On the embedded server and on the ComfyUI of COMFYUI_PATH, whose editors are of different ages. With
DISCOMFORT_SCREENSHOTS set to a folder, the pictures of that page are put there, of the embedded server:

    DISCOMFORT_SCREENSHOTS=docs/images ./dev run python -m pytest tests/test_editor_walkthrough.py
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from conformance import driver
from outer_server import OuterServer, outer_server_fixture
from PIL import Image, ImageFilter
from test_editor_nodes import PATIENCE, RUN_PATIENCE, Editor

playwright_api = pytest.importorskip("playwright.async_api")

SIZE = {"width": 1280, "height": 760}
# Bytes of a picture in the documentation.
LIMIT = 150_000

SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.InstalledVersion": "99.0.0",
    "Comfy.Release.Status": "skipped",
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.UseNewMenu": "Top",
    "Comfy.Workflow.WorkflowTabsPosition": "Topbar",
    "Comfy.VueNodes.Enabled": False,
    "Comfy.VueNodes.AutoScaleLayout": False,
    "Comfy.Workflow.WarnBlueprintOverwrite": False,
}

outer = outer_server_fixture()


class Person(Editor):
    """Somebody before the editor, who has read the page."""

    #: names of the pictures that were taken
    taken: list[str]

    async def add(self, words: str, node_type: str, x: float, y: float) -> int:
        """Double click on the empty canvas, type, Enter: a node; returns its id."""
        ids = "() => app.graph._nodes.map((node) => node.id)"
        before = set(await self.ask(ids))
        found = self.page.get_by_role("option").filter(has_text=re.compile(words[-3:], re.IGNORECASE))

        async def search() -> None:
            await self.page.mouse.dblclick(x, y)

        await self.try_again(search, lambda: self.wait("() => document.activeElement?.matches('input')", None, 2000))
        await self.page.keyboard.type(words, delay=15)
        await found.first.wait_for()
        more = "(before) => app.graph._nodes.length > before"
        await self.try_again(
            # A list that is still being put together takes no key.
            lambda: self.page.keyboard.press("Enter"),
            lambda: self.wait(more, len(before), 3000),
        )
        # Some editors let the new node hang on the mouse until a click.
        placed = "() => app.canvas.state?.ghostNodeId == null && !document.querySelector('[role=option]')"
        await self.try_again(lambda: self.page.mouse.click(x, y), lambda: self.wait(placed, None, 1000))
        (made,) = set(await self.ask(ids)) - before
        assert await self.ask("(id) => app.graph.getNodeById(id).type", made) == node_type
        # Where it was clicked, whatever this editor thinks of it.
        await self.ask(
            """([id, x, y]) => {
                const view = app.canvas.ds, box = app.canvas.canvas.getBoundingClientRect()
                app.graph.getNodeById(id).pos = [
                    Math.round((x - box.left) / view.scale - view.offset[0]),
                    Math.round((y - box.top) / view.scale - view.offset[1]),
                ]
                app.canvas.draw(true, true)
            }""",
            [made, x, y],
        )
        return int(made)

    async def stretch(self, node_id: int, x: float, y: float) -> None:
        """Take the lower right corner of a node to another place."""
        corner = """(id) => {
            const node = app.graph.getNodeById(id), view = app.canvas.ds
            const box = app.canvas.canvas.getBoundingClientRect()
            return [0, 1].map((axis) => [box.left, box.top][axis]
                + (node.pos[axis] + node.size[axis] + view.offset[axis]) * view.scale)
        }"""

        async def drag() -> None:
            left, top = await self.ask(corner, node_id)
            await self.page.mouse.move(left - 3, top - 3)
            await self.page.mouse.down()
            await self.page.mouse.move((left + x) / 2, (top + y) / 2, steps=4)
            await self.page.mouse.move(x, y, steps=4)
            await self.page.mouse.up()

        grown = "([id, size]) => app.graph.getNodeById(id).size[0] > size[0]"
        size = await self.ask("(id) => [...app.graph.getNodeById(id).size]", node_id)
        await self.try_again(drag, lambda: self.wait(grown, [node_id, size], 1000))

    async def new_workflow(self) -> None:
        """The + beside the tabs."""
        plus = self.page.locator(".new-blank-workflow-button").or_(
            self.page.get_by_label(re.compile("new blank workflow", re.IGNORECASE))
        )
        tabs = "() => app.extensionManager.workflow.openWorkflows.length"
        before = await self.ask(tabs)
        await plus.first.click()
        await self.wait(f"(before) => ({tabs})() > before && app.graph._nodes.length === 0", before)
        await self.ask(
            "() => { app.canvas.ds.scale = 0.8; app.canvas.ds.offset = [0, 0]; app.canvas.draw(true, true) }"
        )

    async def save_as(self, name: str) -> None:
        """Ctrl+S, a name, Enter."""
        await self.page.keyboard.press("Control+s")
        field = self.page.locator("[role=dialog] input[type=text], .p-dialog input, .prompt-dialog-content input").first
        await field.fill(name)
        await field.press("Enter")
        await self.wait(
            "(name) => app.extensionManager.workflow.activeWorkflow.path === `workflows/${name}.json`"
            " && !app.extensionManager.workflow.activeWorkflow.isModified",
            name,
        )
        assert (self.server.workflows_folder / f"{name}.json").exists()

    async def run(self) -> None:
        """The button Run."""
        button = self.page.get_by_test_id("queue-button")
        if not await button.count():
            button = self.page.locator(".queue-button-group button")
        await button.first.click()

    async def write(self, node_id: int, widget: str, words: str) -> None:
        """Type into a field of several lines."""
        field = await self.ask(
            """([id, name]) => {
                const widget = app.graph.getNodeById(id).widgets.find((one) => one.name === name)
                const element = widget.element ?? widget.inputEl
                element.dataset.walkthrough = name
                return name
            }""",
            [node_id, widget],
        )
        box = self.page.locator(f"textarea[data-walkthrough={field}], [data-walkthrough={field}] textarea").first
        await box.click()
        await self.page.keyboard.type(words)

    async def shown(self, selector: str, text: str | re.Pattern[str] | None = None) -> Any:
        """Wait until an element of the sidebar is there, with a text in it if one is given."""
        found = self.page.locator(selector)
        if text is not None:
            found = found.filter(has_text=text)
        await found.first.wait_for(timeout=RUN_PATIENCE)
        return found.first

    async def preview(self, node_id: int, count: int) -> list[Image.Image]:
        """Wait until a preview shows so many pictures, and get them."""
        await self.wait(
            "([id, count]) => app.lastExecutionError || app.nodeOutputs?.[id]?.images?.length === count",
            [str(node_id), count],
            RUN_PATIENCE,
        )
        assert await self.ask("() => app.lastExecutionError ?? null") is None, self.server.log()[-3000:]
        found = []
        for image in await self.ask("(id) => app.nodeOutputs[id].images", str(node_id)):
            content = self.server.request("GET", f"/view?filename={image['filename']}&type={image['type']}")[1]
            found.append(Image.open(io.BytesIO(content)).convert("L"))
        return found

    async def picture(self, name: str, clip: tuple[int, int, int, int] | None = None) -> None:
        """A picture for the documentation, where one is wanted: of all, or (left, top, width, height) of it."""
        self.taken.append(name)
        folder = os.environ.get("DISCOMFORT_SCREENSHOTS")
        if not folder or self.server.kind != "embedded":
            return
        await self.page.mouse.move(SIZE["width"] / 2, SIZE["height"] - 4)
        await self.wait("() => [...document.images].every((image) => image.complete)")
        await self.page.wait_for_timeout(400)  # for what fades in; only where pictures are taken
        shown = await self.page.screenshot(animations="disabled")
        keep_picture(shown, (0, 0, SIZE["width"], SIZE["height"]) if clip is None else clip, Path(folder, name))


def keep_picture(shown: bytes, clip: tuple[int, int, int, int], path: Path) -> None:
    """Write a part of a picture of the page: a PNG with 256 colours."""
    left, top, width, height = clip
    with Image.open(io.BytesIO(shown)) as image:
        part = image.convert("RGB").crop((left, top, left + width, top + height))
    part.quantize(256).save(path, "PNG", optimize=True)
    assert path.stat().st_size <= LIMIT, f"{path.name} has {path.stat().st_size} bytes: show less"


def detail(picture: Image.Image) -> float:
    """How much there is to see in a picture: less in a soft one."""
    edges = picture.filter(ImageFilter.FIND_EDGES).crop((2, 2, picture.width - 2, picture.height - 2))
    return sum(level * count for level, count in enumerate(edges.histogram())) / (edges.width * edges.height)


def draw_photo(path: Path) -> None:
    """A picture to work on: a photograph that comes with Matplotlib (Grace Hopper, public domain)."""
    data = pytest.importorskip("matplotlib.cbook").get_sample_data("grace_hopper.jpg", asfileobj=False)
    with Image.open(data) as photo:
        photo.convert("RGB").crop((60, 20, 452, 412)).resize((320, 320)).save(path)


ADD_STYLE = "(text) => document.head.append(Object.assign(document.createElement('style'), { textContent: text }))"


@pytest_asyncio.fixture(loop_scope="module")
async def person(outer: OuterServer) -> AsyncIterator[Person]:
    """A person with an empty workflow before them; nothing may complain."""
    (outer.user_folder / "comfy.settings.json").write_text(json.dumps(SETTINGS))
    draw_photo(outer.input_folder / "photo.png")
    async with playwright_api.async_playwright() as playwright:
        try:
            browser = await playwright.chromium.launch(executable_path=driver.browser_path(), args=["--no-sandbox"])
        except playwright_api.Error as error:
            pytest.skip(f"no browser: {error}")
        context = await browser.new_context(viewport=SIZE)
        foreign = lambda url: not url.startswith((outer.url, "blob:", "data:"))  # noqa: E731
        await context.route(foreign, lambda route: route.abort())
        person = Person(await context.new_page(), outer)
        person.taken = []
        await person.open()
        # Said by the start of some editors themselves, before their version is known.
        person.problems = [one for one in person.problems if "graph accessed before initialization" not in one]
        # Not by add_style_tag: Playwright takes what the editor's first workflow asks of the network for its failure.
        await person.page.evaluate(ADD_STYLE, "[data-testid=queue-notification-banner], .p-toast { display: none }")
        yield person
        await browser.close()
        assert person.problems == []


@pytest.mark.timeout(600)
@pytest.mark.asyncio(loop_scope="module")
async def test_the_page_for_users_step_by_step(
    person: Person, outer: OuterServer, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    """From an empty canvas to a loop that is paused, changed and continued, and to the run of a script."""
    await make_a_workflow_with_ports(person)
    loop, preview = await make_a_loop(person)
    pictures = await run_it(person, preview)
    await look_into_the_sidebar(person)
    await pause_and_change(person, outer, loop, preview, pictures)
    await stop_at_a_breakpoint(person, outer, loop)
    await open_it_as_one_workflow(person)
    await see_the_run_of_a_script(person, outer, write_config(COMFYUI_PATH=outer.path, DEVICE="cpu"), tmp_path)
    told = set(re.findall(r"images/(editor-guide-[\w-]+\.png)", DOCS.read_text(encoding="utf-8")))
    assert told == set(person.taken), "the page and this test have the same pictures"


DOCS = driver.ROOT / "docs" / "tutorial" / "in-the-editor.md"


async def make_a_workflow_with_ports(person: Person) -> None:
    """Step 1: soften.json, whose ports are image and softness in, image out."""
    await person.new_workflow()
    image = await person.add("Discomfort Port", "DiscomfortPort", 100, 200)
    await person.type_into(image, "unique_id", "image")
    softness = await person.add("Discomfort Port", "DiscomfortPort", 100, 380)
    await person.type_into(softness, "unique_id", "softness")
    blur = await person.add("ImageBlur", "ImageBlur", 490, 230)
    await person.type_into(blur, "blur_radius", "12")
    result = await person.add("Discomfort Port", "DiscomfortPort", 780, 230)
    await person.type_into(result, "unique_id", "image")
    await person.wire(image, "output", blur, "image")
    await person.wire(softness, "output", blur, "sigma")
    await person.wire(blur, "IMAGE", result, "input_data")
    await person.until(lambda: titles(person, image, softness, result), ["IN image ↻", "IN softness", "OUT image ↻"])
    await person.page.mouse.click(640, 640)
    await person.picture("editor-guide-ports.png", (56, 90, 980, 400))
    await person.save_as("soften")


async def titles(person: Person, *nodes: int) -> list[str]:
    return [await person.title(node) for node in nodes]


async def make_a_loop(person: Person) -> tuple[int, int]:
    """Step 2: a picture and a number, the Loop Executor, a preview; returns the ids of the latter two."""
    await person.new_workflow()
    loop = await person.add("Discomfort Loop Executor", "DiscomfortLoopExecutor", 450, 150)
    await person.write(loop, "workflows", "soften.json")
    sockets = [
        [["in:image", "IMAGE", "image", None], ["in:softness", "FLOAT", "softness", None]],
        [["image", "IMAGE", None]],
    ]
    await person.until(lambda: person.sockets(loop), sockets)
    await person.type_into(loop, "iterations", "6")
    await person.type_into(loop, "collect", "image")
    await person.page.mouse.click(200, 700)
    await person.picture("editor-guide-sockets.png", (400, 90, 460, 440))
    photo = await person.add("Load Image", "LoadImage", 90, 150)
    number = await person.add("PrimitiveFloat", "PrimitiveFloat", 90, 560)
    preview = await person.add("Preview Image", "PreviewImage", 870, 150)
    await person.type_into(number, "value", "0.2")
    await person.wire(photo, "IMAGE", loop, "in:image")
    await person.wire(number, 0, loop, "in:softness")
    await person.wire(loop, "image", preview, "images")
    await person.save_as("softer and softer")
    return loop, preview


async def run_it(person: Person, preview: int) -> list[Image.Image]:
    """Step 3: Run; the preview has a picture of each iteration, each softer than the one before."""
    await person.run()
    pictures = await person.preview(preview, 6)
    details = [detail(picture) for picture in pictures]
    assert details == sorted(details, reverse=True)
    assert details[-1] < details[0] * 0.7
    await person.wait("(id) => app.graph.getNodeById(id).imgs?.length === 6", preview)
    await person.stretch(preview, 1260, 520)
    await person.page.mouse.click(640, 690)
    await person.picture("editor-guide-result.png", (56, 90, 1224, 530))
    return pictures


async def look_into_the_sidebar(person: Person) -> None:
    """Step 4: the tab has the run; its values are there with their pictures."""
    await person.page.locator(".discomfort-tab-button, [data-testid=discomfort-tab-button]").first.click()
    card = await person.shown(".dc-past .dc-card", "6 iterations")
    stats = person.page.locator(".dc-stats").filter(has_text="6 of 6 iterations").first
    # The list may just be put together anew.
    await person.try_again(card.click, lambda: stats.wait_for(timeout=5000))
    await (await person.shown("[data-port=image]")).click()
    await person.wait("() => [...document.querySelectorAll('.dc-strip img')].some((image) => image.naturalWidth)")
    await person.shown(".dc-caption", "iteration 5")
    await person.picture("editor-guide-sidebar.png", (0, 38, 800, 722))


async def pause_and_change(
    person: Person, outer: OuterServer, loop: int, preview: int, before: list[Image.Image]
) -> None:
    """Step 5: a run begins paused; a number is changed, and the pictures are softer than they were."""
    await person.page.click(".dc-back")
    await person.page.check("#discomfort-pause-at-start")
    await person.type_into(loop, "iterations", "7")
    await person.run()
    await (await person.shown("[aria-label='Runs that go on'] .dc-card")).click()
    await person.shown(".dc-paused", "Paused at its start")
    await person.page.click("[data-command=step]")
    await person.shown(".dc-paused", "One step done")
    await person.page.fill("#discomfort-edit-softness", "0.6")
    await person.picture("editor-guide-paused.png", (0, 38, 800, 650))
    await person.page.get_by_role("button", name="Save softness", exact=True).click()
    await person.shown("[data-value=softness] .dc-saved", "saved")
    await person.page.click("[data-command=continue]")
    await person.shown(".dc-run-head [data-state=finished]")
    pictures = await person.preview(preview, 7)
    assert detail(pictures[0]) == pytest.approx(detail(before[0]))
    assert detail(pictures[1]) < detail(before[1]) * 0.9
    await person.page.click(".dc-back")
    await person.page.uncheck("#discomfort-pause-at-start")
    await asyncio.to_thread(wait_for_settings, outer, {"breakpoints": [], "pause_at_start": False})


def wait_for_settings(outer: OuterServer, expected: dict[str, Any]) -> None:
    """Wait until the server has what the sidebar says of all runs."""
    deadline = time.monotonic() + PATIENCE / 1000
    while True:
        state = outer.get("/discomfort/state")
        found = {key: state[key] for key in expected}
        if found == expected:
            return
        assert time.monotonic() < deadline, f"{found} instead of {expected}"
        time.sleep(0.05)


async def stop_at_a_breakpoint(person: Person, outer: OuterServer, loop: int) -> None:
    """Step 6: the dot before a value; the next run stops where that value has been made."""
    await (await person.shown(".dc-past .dc-card", "7 iterations")).click()
    await (await person.shown("[aria-label='Breakpoint at image']")).click()
    await person.shown("[aria-label='Breakpoint at image'][aria-pressed=true]")
    await person.type_into(loop, "iterations", "4")
    await person.page.click(".dc-back")
    await person.run()
    await (await person.shown("[aria-label='Runs that go on'] .dc-card")).click()
    await person.shown(".dc-paused", "Breakpoint “image”")
    await person.page.click("[data-command=continue]")
    await person.shown(".dc-paused", "in iteration 1")
    await person.picture("editor-guide-breakpoint.png", (0, 38, 800, 680))
    await (await person.shown("[aria-label='Breakpoint at image']")).click()
    await asyncio.to_thread(wait_for_settings, outer, {"breakpoints": []})
    await person.page.click("[data-command=continue]")
    await person.shown(".dc-run-head [data-state=finished]")


async def open_it_as_one_workflow(person: Person) -> None:
    """Step 7: the run's workflow, in a tab of its own."""
    await person.page.click("text=Open stitched workflow", timeout=PATIENCE)
    await person.wait("() => app.extensionManager.workflow.activeWorkflow.path.includes('stitched')")
    await person.wait("() => app.graph._nodes.some((node) => node.type === 'ImageBlur')")
    await person.page.keyboard.press("d")
    await person.page.locator(".discomfort-sidebar").wait_for(state="hidden")
    await person.picture("editor-guide-stitched.png", (56, 90, 1224, 470))
    await person.page.keyboard.press("d")
    await person.shown(".dc-run")


async def see_the_run_of_a_script(person: Person, outer: OuterServer, config: Path, folder: Path) -> None:
    """Step 8: the run of the page's script comes by itself."""
    await person.page.click(".dc-back")
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    code = code.replace("Discomfort.create()", f"Discomfort.create({str(config)!r})")
    for file in (outer.workflows_folder / "soften.json", outer.input_folder / "photo.png"):
        shutil.copy(file, folder)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), RUN_PATIENCE / 1000)
    assert process.returncode == 0, said.decode()
    with Image.open(folder / "soft.png") as soft, Image.open(folder / "photo.png") as photo:
        assert soft.size == photo.size
        assert detail(soft.convert("L")) < detail(photo.convert("L")) * 0.7
    await person.shown(".dc-past .dc-card", "from a script")
    await person.picture("editor-guide-runs.png", (0, 38, 800, 450))


def test_the_messages_on_the_page_are_those_that_are_said() -> None:
    """Every message in the table of troubles is in the code, word for word."""
    said = ""
    for pattern in ("*.py", "editor*/**/*.py", "web/**/*.js"):
        for file in sorted(driver.ROOT.glob(pattern)):
            said += file.read_text(encoding="utf-8")
    # Neighbouring strings are one.
    said = re.sub(r"\"\s*f?\"", "", said)
    table = DOCS.read_text(encoding="utf-8").partition("## When something goes wrong")[2]
    messages = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(messages) >= 5
    for message in messages:
        for part in re.split(r"'?\.\.\.'?", message):
            assert part.strip(" .:") in said, f"nothing says {part!r} of {message!r}"


def test_the_links_on_the_page_lead_somewhere() -> None:
    """Other pages, pictures and help pages are there."""
    links = re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", DOCS.read_text(encoding="utf-8"))
    assert len(links) > 15
    for link in links:
        assert (DOCS.parent / link).exists(), f"{link} leads nowhere"
