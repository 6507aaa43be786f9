"""The Discomfort tab of the editor's sidebar, in a real browser: runs of a script are looked at, paused and changed.

On the embedded server, and on the ComfyUI that COMFYUI_PATH names. The script (sidebar_script.py) is a process of its
own, whose runs happen on a nested server of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from conformance import driver
from editor_page import READY, SETTINGS
from outer_server import OuterServer, outer_server_fixture
from pack_server import TESTS, pack_config
from prompt_parts import node, port
from sidebar_script import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The editor shows workflows of the script: it has their nodes.
outer = outer_server_fixture(packs=[TESTS / "run_packs" / "run_test"])

MODULES = "/extensions/comfyui-discomfort/sidebar"
PATIENCE = 30_000.0

# Errors in the console that are not ours: files that the editor looks for itself (of our own, see _judge); that it is
# not ready yet when READY asks for its graph (1.49); models of its first workflow, on the internet.
FOREIGN = ("Failed to load resource", "graph accessed before initialization", "Content Security Policy")

# Colours of a text and of what is behind it, as a contrast (WCAG 2).
CONTRAST = """(element) => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 })
    const paint = canvas.getContext("2d", { willReadFrequently: true })
    const light = (color) => {
        paint.fillStyle = color
        paint.fillRect(0, 0, 1, 1)
        const parts = [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3).map((one) => one / 255)
        const [r, g, b] = parts.map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }
    let behind = element
    const isClear = (one) => /rgba\\(0, 0, 0, 0\\)|transparent/.test(getComputedStyle(one).backgroundColor)
    while (isClear(behind)) behind = behind.parentElement
    const [a, b] = [light(getComputedStyle(element).color), light(getComputedStyle(behind).backgroundColor)]
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
}"""


# ---------------------------------------------------------------------------------------------------------- the page


class Sidebar:
    """The editor in a browser, with our tab; notes everything that it complains of and asks for."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        #: paths below /discomfort/ that were asked for
        self.asked: list[str] = []
        page.on("pageerror", self._catch)
        page.on("console", self._hear)
        page.on("request", self._note)
        page.on("response", self._judge)

    def _catch(self, error: Any) -> None:
        # Frontend 1.27.10 fails in a setting of its own while it starts, without any pack.
        stack = str(error.stack)
        if "addSetting" not in stack or "/extensions/" in stack:
            self.complaints.append(f"exception: {stack}")

    def _hear(self, message: Any) -> None:
        if message.type == "error" and not any(one in message.text for one in FOREIGN):
            self.complaints.append(message.text[:300])

    def _note(self, request: Any) -> None:
        if "/discomfort/" in request.url and "/extensions/" not in request.url:
            self.asked.append(request.url.partition("/discomfort")[2])

    def _judge(self, response: Any) -> None:
        if "discomfort" in response.url and response.status >= 400 and response.status != 409:
            self.complaints.append(f"{response.status} {response.url}")

    async def load(self) -> None:
        """Load the page."""
        await self.page.goto(f"{self.url}/", wait_until="commit")
        await self.page.wait_for_function(READY)

    async def open(self) -> None:
        """Open the tab."""
        await self.page.evaluate("() => { app.extensionManager.sidebarTab.activeSidebarTabId = 'discomfort' }")
        await self.shown(".discomfort-sidebar .dc-footer")

    async def shown(self, selector: str, text: str | re.Pattern[str] | None = None, patience: float = PATIENCE) -> Any:
        """Wait until an element is there, with a text in it if one is given."""
        found = self.page.locator(selector)
        if text is not None:
            found = found.filter(has_text=text)
        await self._with_diagnosis(found.first.wait_for(timeout=patience), f"{selector} ({text!r})")
        return found.first

    async def until(self, condition: str) -> None:
        """Wait until a JavaScript function says yes."""
        await self._with_diagnosis(self.page.wait_for_function(condition, timeout=PATIENCE), condition)

    async def _with_diagnosis(self, waiting: Awaitable[Any], what: str) -> None:
        try:
            await waiting
        except Exception as e:
            seen = await self.page.evaluate(
                "() => document.querySelector('.discomfort-sidebar')?.innerText.slice(0, 2000)"
            )
            raise AssertionError(f"{what} did not come; the tab shows:\n{seen}\n{self.complaints}") from e

    async def choose_live(self, patience: float = PATIENCE) -> None:
        """Choose the run that goes on."""
        await (await self.shown("[aria-label='Runs that go on'] .dc-card", patience=patience)).click()
        await self.shown(".dc-run .dc-run-name")

    async def choose_last(self, outer: OuterServer) -> None:
        """Choose the run that has ended last."""
        newest = outer.get("/discomfort/state")["runs"][0]["run_id"]
        await (await self.shown(f".dc-past [data-run='{newest}']")).click()

    async def state(self, state: str) -> None:
        """Wait until the run that is shown is in this state."""
        await self.shown(f".dc-run-head [data-state={state}]")

    async def press(self, command: str) -> None:
        """Press one of the run's buttons."""
        await self.page.click(f"[data-command={command}]", timeout=PATIENCE)

    async def edit(self, name: str, text: str) -> None:
        """Type a value and save it."""
        await self.page.fill(f"#discomfort-edit-{name}", text)
        await self.page.get_by_role("button", name=f"Save {name}", exact=True).click()

    async def saved(self, name: str) -> None:
        await self.shown(f"[data-value={name}] .dc-saved", "saved")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Any]:
    from playwright.async_api import async_playwright

    args = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=driver.browser_path(), args=args)
        yield browser
        await browser.close()


def stop_all(outer: OuterServer) -> None:
    """End the runs that a failed test has left."""
    for run in outer.get("/discomfort/state")["runs"]:
        if run["live"]:
            outer.request("POST", f"/discomfort/runs/{run['run_id']}/command", {"command": "stop"})


@pytest_asyncio.fixture(loop_scope="module")
async def sidebar(outer: OuterServer, browser: Any) -> AsyncIterator[Sidebar]:
    """A page with the tab open; the test fails where anything is complained of in it."""
    outer.post("/discomfort/settings", {"breakpoints": [], "pause_at_start": False})
    await asyncio.to_thread(stop_all, outer)
    context = await browser.new_context(viewport={"width": 1280, "height": 900}, service_workers="block")

    async def settings(route: Any) -> None:
        # The user's settings are those of a person who has been here before; nothing is written.
        await route.fulfill(json=SETTINGS if route.request.method == "GET" else {})

    await context.route("**/api/settings**", settings)
    await context.route(lambda url: not url.startswith((outer.url, "data:", "blob:")), lambda route: route.abort())
    page = Sidebar(await context.new_page(), outer.url)
    await page.load()
    await page.open()
    yield page
    await context.close()
    assert not page.complaints, "\n".join(page.complaints)


@pytest.fixture(scope="module")
def script(write_config: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Script]:
    """A script, whose server has the nodes of tests/run_packs."""
    folder = tmp_path_factory.mktemp("script")
    running = Script(pack_config(write_config, folder), folder / "script.log")
    yield running
    running.stop()


# ----------------------------------------------------------------------------------------------------- what is run


def doubling(log: str = "", seconds: float = 0.0) -> dict[str, Any]:
    """count -> count, twice as much, after some time; prompt -> prompt."""
    return {
        "1": port("count"),
        "2": node("RunTestSlow", number=["1", 0], seconds=seconds, log=log or os.devnull),
        "3": node("RunTestDouble", number=["2", 0]),
        "4": port("count", ["3", 0]),
        "5": port("prompt"),
        "6": node("RunTestPass", anything=["5", 0]),
        "7": port("prompt", ["6", 0]),
    }


def painting() -> dict[str, Any]:
    """picture -> picture: inverted."""
    return {
        "1": port("picture"),
        "2": node("ImageInvert", image=["1", 0]),
        "3": port("picture", ["2", 0]),
    }


def refusing() -> dict[str, Any]:
    """A workflow as the editor saves it, count -> count, whose node 7 fails for 8."""
    places = ((1, "DiscomfortPort"), (7, "RunTestRefuse"), (9, "DiscomfortPort"))
    nodes: list[dict[str, Any]] = [
        {"id": number, "type": kind, "pos": [400 * at, 100], "size": [300, 120], "flags": {}, "order": at, "mode": 0,
         "inputs": [], "outputs": [], "properties": {}}
        for at, (number, kind) in enumerate(places)
    ]  # fmt: skip
    first, check, last = nodes
    first.update(inputs=[{"name": "input_data", "type": "*", "link": None}], widgets_values=["count", ""])
    first["outputs"] = [{"name": "output", "type": "*", "links": [1]}]
    widget = {"name": "number", "type": "INT", "link": 1, "widget": {"name": "number"}}
    check.update(
        inputs=[widget], outputs=[{"name": "INT", "type": "INT", "links": [2]}], widgets_values=[0, 8, os.devnull]
    )
    last.update(inputs=[{"name": "input_data", "type": "*", "link": 2}], widgets_values=["count", ""])
    last["outputs"] = [{"name": "output", "type": "*", "links": []}]
    links = [[1, 1, 0, 7, 0, "INT"], [2, 7, 0, 9, 0, "INT"]]
    return {
        "last_node_id": 9, "last_link_id": 2, "nodes": nodes, "links": links, "groups": [], "config": {}, "extra": {},
        "version": 0.4,
    }  # fmt: skip


PLAIN = {"count": 1, "prompt": "a <b>calm</b> sea"}


@pytest.fixture
def paused_at_start(outer: OuterServer, sidebar: Sidebar) -> None:
    """Runs begin paused."""
    outer.post("/discomfort/settings", {"pause_at_start": True})


# ------------------------------------------------------------------------------------------------------ live, ended


async def test_a_script_s_run_is_seen_live_and_stays_in_the_list(sidebar: Sidebar, script: Script) -> None:
    """It comes by itself, with its iteration and values; a badge counts it; at its end it is among the past ones."""
    script.run([doubling(seconds=0.3)], PLAIN, iterations=6)
    card = await sidebar.shown("[aria-label='Runs that go on'] .dc-card", "of 6")
    assert (
        await sidebar.page.locator(".discomfort-tab-button, [data-testid=discomfort-tab-button]")
        .filter(has_text="1")
        .count()
    )
    await card.click()
    await sidebar.state("running")
    await sidebar.shown(".dc-stats", re.compile("[2-6] of 6 iterations"))
    await sidebar.state("finished")
    assert (await asyncio.to_thread(script.answer))["values"] == {"count": 64, "prompt": PLAIN["prompt"]}
    await sidebar.shown(".dc-stats", "6 of 6 iterations")
    await sidebar.shown("[data-port=count] .dc-short", "64")
    assert await sidebar.page.locator(".dc-iteration").count() == 6
    assert await sidebar.page.locator(".dc-controls").is_hidden()
    await sidebar.page.click(".dc-back")
    await sidebar.shown(".dc-past .dc-card [data-state=finished]")
    assert await sidebar.page.locator("[aria-label='Runs that go on'] .dc-card").count() == 0


async def test_what_a_value_says_is_text(sidebar: Sidebar, script: Script, outer: OuterServer) -> None:
    """Markup in a value, or in the name of a run, is shown as it was written, and does nothing."""
    evil = "<img src=x onerror=\"document.title='hacked'\"><b>bold</b>"
    script.run([doubling()], {"count": 1, "prompt": evil}, iterations=2)
    await asyncio.to_thread(script.answer)
    await sidebar.choose_last(outer)
    await (await sidebar.shown("[data-port=prompt]")).click()
    await sidebar.shown(".dc-details pre", evil)
    assert await sidebar.page.locator(".discomfort-sidebar img, .dc-details b").count() == 0
    assert await sidebar.page.title() != "hacked"


async def test_pictures_have_thumbnails_over_the_iterations_and_a_large_one(
    sidebar: Sidebar, script: Script, paused_at_start: None, tmp_path: Path
) -> None:
    """A strip and a slider lead through them; of a live run the whole picture is made on demand."""
    from PIL import Image

    Image.new("RGB", (400, 300), (200, 40, 40)).save(tmp_path / "red.png")
    script.run([painting()], {"picture": str(tmp_path / "red.png")}, iterations=4)
    await sidebar.choose_live()
    for iteration in (1, 2):
        await sidebar.press("step")
        await sidebar.shown(".dc-paused", f"in iteration {iteration}")
    await (await sidebar.shown("[data-port=picture]")).click()
    await sidebar.until(
        "() => [...document.querySelectorAll('.dc-strip img')].filter((image) => image.naturalWidth).length === 2"
    )
    pixel = """async (selector) => {
        const image = document.querySelector(selector)
        await image.decode()
        const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 })
        canvas.getContext("2d").drawImage(image, 0, 0, 1, 1)
        return [image.naturalWidth, canvas.getContext("2d").getImageData(0, 0, 1, 1).data[0]]
    }"""
    # The last was inverted twice; the one before once.
    width, red = await sidebar.page.evaluate(pixel, ".dc-stage img")
    assert (width <= 256, red > 150) == (True, True)
    slider = sidebar.page.locator(".dc-scrub input")
    await slider.focus()
    await slider.press("ArrowLeft")
    await sidebar.shown(".dc-caption", "iteration 0")
    assert (await sidebar.page.evaluate(pixel, ".dc-stage img"))[1] < 100
    await sidebar.page.locator(".dc-strip button").last.click()
    await sidebar.page.click("text=Full picture")
    await sidebar.shown(".dc-stage img.dc-whole")
    width, red = await sidebar.page.evaluate(pixel, ".dc-stage img.dc-whole")
    assert (width, red > 150) == (400, True)
    await sidebar.press("continue")
    await asyncio.to_thread(script.answer)
    await sidebar.state("finished")
    assert await sidebar.page.locator("text=Full picture").is_hidden()


# ---------------------------------------------------------------------------------------------------------- control


async def test_a_paused_run_goes_on_with_what_was_changed(
    sidebar: Sidebar, script: Script, paused_at_start: None
) -> None:
    """A number and a text are changed, and the outcome is another."""
    script.run([doubling()], PLAIN, iterations=3)
    await sidebar.choose_live()
    await sidebar.state("paused")
    await sidebar.shown(".dc-paused", "Paused at its start")
    await sidebar.edit("count", "10")
    await sidebar.saved("count")
    await sidebar.edit("prompt", "a storm, <i>at night</i>\nand rain")
    await sidebar.saved("prompt")
    await sidebar.press("continue")
    answer = await asyncio.to_thread(script.answer)
    assert answer["values"] == {"count": 80, "prompt": "a storm, <i>at night</i>\nand rain"}
    await sidebar.state("finished")


async def test_a_value_that_cannot_be_is_refused_beside_its_box(
    sidebar: Sidebar, script: Script, paused_at_start: None
) -> None:
    """What was typed stays; both what the browser sees, and what only the run can know."""
    script.run([doubling()], PLAIN, iterations=1)
    await sidebar.choose_live()
    await sidebar.state("paused")
    await sidebar.edit("count", "many")
    await sidebar.shown("[data-value=count] .dc-problem", "“many” is no number.")
    await sidebar.edit("count", "1.5")
    await sidebar.shown("[data-value=count] .dc-problem", "1.5")
    assert await sidebar.page.input_value("#discomfort-edit-count") == "1.5"
    await sidebar.edit("count", "18446744073709551615")
    await sidebar.saved("count")
    # Every digit of it arrived, and came back.
    await sidebar.shown("[data-port=count] .dc-short", "18446744073709551615")
    await sidebar.edit("count", "3")
    await sidebar.saved("count")
    await sidebar.press("continue")
    assert (await asyncio.to_thread(script.answer))["values"]["count"] == 6


async def test_step_lets_one_workflow_run(
    sidebar: Sidebar, script: Script, paused_at_start: None, tmp_path: Path
) -> None:
    """One more each time, and the run is held again."""
    log = tmp_path / "executions.txt"
    script.run([doubling(str(log))], PLAIN, iterations=3)
    await sidebar.choose_live()
    await sidebar.state("paused")
    for count in (1, 2):
        await sidebar.press("step")
        await sidebar.shown(".dc-paused", "One step done")
        await sidebar.shown(".dc-paused", f"in iteration {count}")
        assert log.read_text().count("end") == count
        await sidebar.shown("[data-port=count] .dc-short", str(2**count))
    await sidebar.press("continue")
    assert (await asyncio.to_thread(script.answer))["values"]["count"] == 8


async def test_a_breakpoint_pauses_every_run_at_its_value(sidebar: Sidebar, script: Script, outer: OuterServer) -> None:
    """It is set by the dot before a value, and removed in the list."""
    outer.post("/discomfort/settings", {"pause_at_start": True})
    script.run([doubling(), painting_of_numbers()], PLAIN, iterations=2)
    await sidebar.choose_live()
    await sidebar.state("paused")
    dot = await sidebar.shown("[aria-label='Breakpoint at other']")
    await dot.click()
    await sidebar.shown("[aria-label='Breakpoint at other'][aria-pressed=true]")
    assert outer.get("/discomfort/state")["breakpoints"] == ["other"]
    await sidebar.press("continue")
    await sidebar.shown(".dc-paused", "Breakpoint “other”")
    await sidebar.page.click(".dc-back")
    await sidebar.page.click("[aria-label='Remove the breakpoint other']")
    await sidebar.page.locator(".dc-chips li").wait_for(state="detached")
    await sidebar.choose_live()
    await sidebar.press("continue")
    assert (await asyncio.to_thread(script.answer))["values"]["count"] == 4
    await sidebar.state("finished")


def painting_of_numbers() -> dict[str, Any]:
    """count -> other."""
    return {"1": port("count"), "2": node("RunTestPass", anything=["1", 0]), "3": port("other", ["2", 0])}


async def test_pause_holds_a_run_and_stop_ends_it(sidebar: Sidebar, script: Script) -> None:
    """Stop asks once more, and No leaves the run alone."""
    script.run([doubling(seconds=0.2)], PLAIN, iterations=500)
    await sidebar.choose_live()
    await sidebar.shown(".dc-stats", re.compile(r"[1-9]\d* of 500 iterations"))
    await sidebar.press("pause")
    await sidebar.state("paused")
    await sidebar.shown(".dc-paused-head", "Paused")
    await sidebar.page.get_by_role("button", name="Stop", exact=True).click()
    await sidebar.page.get_by_role("button", name="No", exact=True).click()
    await sidebar.press("continue")
    await sidebar.state("running")
    await sidebar.page.get_by_role("button", name="Stop", exact=True).click()
    await sidebar.page.get_by_role("button", name="Stop it").click()
    assert (await asyncio.to_thread(script.answer)) == {"error": "RunStoppedError"}
    await sidebar.state("stopped")
    assert await sidebar.page.locator(".dc-failure").is_hidden()


async def test_a_refreshed_page_shows_what_it_showed(sidebar: Sidebar, script: Script, paused_at_start: None) -> None:
    """The tab, the run that was chosen, and what it is paused at."""
    script.run([doubling()], PLAIN, iterations=2)
    await sidebar.choose_live()
    await sidebar.press("step")
    await sidebar.shown(".dc-paused", "in iteration 1")
    await sidebar.load()
    await sidebar.shown(".dc-paused", "in iteration 1")
    assert await sidebar.page.input_value("#discomfort-edit-count") == "2"
    assert await sidebar.page.locator(".dc-iteration").count() == 2
    await sidebar.edit("count", "50")
    await sidebar.saved("count")
    await sidebar.press("continue")
    assert (await asyncio.to_thread(script.answer))["values"]["count"] == 100


async def test_two_pages_see_the_same(sidebar: Sidebar, script: Script, paused_at_start: None) -> None:
    """What is done in one window is there in the other."""
    other = Sidebar(await sidebar.page.context.new_page(), sidebar.url)
    await other.load()
    await other.open()
    script.run([doubling()], PLAIN, iterations=2)
    for one in (sidebar, other):
        await one.choose_live()
        await one.state("paused")
    await sidebar.edit("count", "7")
    await other.until("() => document.querySelector('#discomfort-edit-count').value === '7'")
    await other.press("continue")
    assert (await asyncio.to_thread(script.answer))["values"]["count"] == 28
    await sidebar.state("finished")
    await other.state("finished")
    assert other.complaints == []


# --------------------------------------------------------------------------------------------------------- how it ends


async def test_a_killed_script_s_run_is_shown_as_killed(sidebar: Sidebar, script: Script) -> None:
    """At once, in the run and in the list."""
    script.run([doubling(seconds=0.2)], PLAIN, iterations=500)
    await sidebar.choose_live()
    await sidebar.shown(".dc-stats", re.compile(r"[1-9]\d* of 500 iterations"))
    await asyncio.to_thread(script.kill)
    await sidebar.state("killed")
    await sidebar.shown(".dc-failure", "The process of this run is gone")
    assert await sidebar.page.locator(".dc-controls").is_hidden()
    await sidebar.page.click(".dc-back")
    await sidebar.shown(".dc-past .dc-card [data-state=killed]")


async def test_an_error_leads_to_its_node(sidebar: Sidebar, script: Script, tmp_path: Path, outer: OuterServer) -> None:
    """Show node opens the workflow that failed in a tab of its own, and chooses the node there."""
    file = tmp_path / "check.json"
    file.write_text(json.dumps(refusing()))
    script.run([doubling(), str(file)], PLAIN, iterations=5)
    assert (await asyncio.to_thread(script.answer)) == {"error": "WorkflowExecutionError"}
    await sidebar.choose_last(outer)
    failure = await sidebar.shown(".dc-failure", "8 is refused")
    await sidebar.shown(".dc-failure", "check.json · iteration 2")
    await failure.locator("summary").click()
    await sidebar.shown(".dc-failure pre", "raise ValueError")
    before = await sidebar.page.evaluate("() => app.extensionManager.workflow.openWorkflows.length")
    await sidebar.page.click("text=Show node")
    await sidebar.until("() => Object.values(app.canvas.selected_nodes).some((node) => node.id == 7)")
    found = await sidebar.page.evaluate("""() => {
        const node = Object.values(app.canvas.selected_nodes)[0]
        const { ds, canvas } = app.canvas, box = canvas.getBoundingClientRect()
        const x = (node.pos[0] + node.size[0] / 2 + ds.offset[0]) * ds.scale
        const y = (node.pos[1] + node.size[1] / 2 + ds.offset[1]) * ds.scale
        return [node.type, app.extensionManager.workflow.openWorkflows.length,
            app.extensionManager.workflow.activeWorkflow.filename.startsWith("check"),
            Math.abs(x - box.width / 2) < 5 && Math.abs(y - box.height / 2) < 5]
    }""")
    assert found == ["RunTestRefuse", before + 1, True, True]


async def test_a_run_s_workflows_open_as_one(
    sidebar: Sidebar, script: Script, tmp_path: Path, outer: OuterServer
) -> None:
    """Open stitched workflow: a new tab with the nodes of all of them."""
    files = [tmp_path / "first.json", tmp_path / "second.json"]
    for file in files:
        file.write_text(json.dumps(refusing()))
    script.run([str(file) for file in files], {"count": 3}, iterations=1)
    await asyncio.to_thread(script.answer)
    await sidebar.choose_last(outer)
    await sidebar.page.click("text=Open stitched workflow", timeout=PATIENCE)
    await sidebar.until("() => app.graph._nodes.filter((node) => node.type === 'RunTestRefuse').length === 2")
    await sidebar.until("() => app.extensionManager.workflow.activeWorkflow.filename.includes('stitched')")


async def test_a_node_inside_a_subgraph_is_shown_by_the_outermost(sidebar: Sidebar) -> None:
    """ "57:35" is in node 57; what is no node of the workflow is not found."""
    chosen = await sidebar.page.evaluate(
        """async (modules) => {
            const { openWorkflow, showNode } = await import(`${modules}/editor_graph.js`)
            const node = { id: 57, type: "Note", pos: [9000, 9000], size: [200, 100], flags: {}, order: 0, mode: 0,
                inputs: [], outputs: [], properties: {}, widgets_values: [""] }
            await openWorkflow({ last_node_id: 57, last_link_id: 0, nodes: [node], links: [], groups: [], config: {},
                extra: {}, version: 0.4 }, "inner.json", false)
            const found = [showNode("57:35"), showNode("58"), showNode("57", "Note"), showNode("57", "KSampler")]
            return [found, Object.values(app.canvas.selected_nodes).map((one) => String(one.id))]
        }""",
        MODULES,
    )
    assert chosen == [[True, False, True, False], ["57"]]


async def test_a_past_run_can_be_forgotten(sidebar: Sidebar, script: Script, outer: OuterServer) -> None:
    """After one more question; then it is not in the list, and not on the disk."""
    script.run([doubling()], PLAIN, iterations=1)
    await asyncio.to_thread(script.answer)
    await sidebar.choose_last(outer)
    run_id = await sidebar.page.get_attribute(".dc-run", "data-run")
    await sidebar.page.get_by_role("button", name="Forget", exact=True).click()
    await sidebar.page.get_by_role("button", name="Forget it").click()
    await sidebar.shown(".dc-list")
    assert run_id not in [run["run_id"] for run in outer.get("/discomfort/state")["runs"]]
    await sidebar.page.locator(f"[data-run='{run_id}']").wait_for(state="detached")


# --------------------------------------------------------------------------------------------- a run of the editor


async def test_a_run_of_a_node_is_paused_changed_and_leads_back_to_it(
    sidebar: Sidebar, outer: OuterServer, paused_at_start: None, tmp_path: Path
) -> None:
    """Its run is one like that of a script, and knows the node that it came from."""
    file = tmp_path / "check.json"
    file.write_text(json.dumps(refusing()))
    node_id = await sidebar.page.evaluate("""() => {
        const node = LiteGraph.createNode("DiscomfortLoopExecutor")
        app.graph.add(node)
        return String(node.id)
    }""")
    known = outer.get("/object_info/DiscomfortLoopExecutor")["DiscomfortLoopExecutor"]["input"]
    widgets = {name: about[1]["default"] for name, about in known["required"].items() if "default" in about[1]}
    inputs = {**widgets, "workflows": str(file), "iterations": 2, "in:count": 3}
    prompt = {node_id: {"class_type": "DiscomfortLoopExecutor", "inputs": inputs, "_meta": {"title": "My loop"}}}
    outer.post("/prompt", {"prompt": prompt})
    # Its nested server has to start first.
    try:
        await sidebar.choose_live(4 * PATIENCE)
    except AssertionError as e:
        raise AssertionError(f"{e}\n{outer.get('/history')}\n{outer.log()[-3000:]}") from e
    await sidebar.state("paused")
    await sidebar.shown(".dc-links", "My loop")
    await sidebar.edit("count", "8")
    await sidebar.saved("count")
    await sidebar.press("continue")
    await sidebar.shown(".dc-failure", "8 is refused")
    await sidebar.page.click("text=Show runner node")
    chosen = await sidebar.page.evaluate("() => Object.values(app.canvas.selected_nodes).map((one) => String(one.id))")
    assert chosen == [node_id]
    # The server that the node's workflows ran on is kept; it can be ended from here.
    await sidebar.page.click(".dc-back")
    server = await sidebar.shown(".dc-server", "Server of the runner nodes")
    await server.get_by_role("button", name="Stop", exact=True).click()
    await server.get_by_role("button", name="Stop it").click()
    await sidebar.page.locator(".dc-server").wait_for(state="hidden", timeout=PATIENCE)


# ------------------------------------------------------------------------------------------------- how it is used


async def test_the_keyboard_is_enough(sidebar: Sidebar, script: Script, paused_at_start: None) -> None:
    """From the key that opens the tab to the end of a run; what is typed never reaches the canvas."""
    page = sidebar.page
    await page.evaluate(
        "() => { app.extensionManager.sidebarTab.activeSidebarTabId = null; document.activeElement.blur() }"
    )
    await page.locator(".discomfort-sidebar").wait_for(state="detached")
    await page.keyboard.press("d")
    await sidebar.shown(".discomfort-sidebar .dc-footer")
    nodes = await page.evaluate("() => app.graph._nodes.length")
    script.run([doubling()], PLAIN, iterations=2)
    await sidebar.shown("[aria-label='Runs that go on'] .dc-card [data-state=paused]")

    async def tab_to(selector: str) -> None:
        """Press Tab until an element has the focus, which can be seen then."""
        for _ in range(80):
            if await page.evaluate("(selector) => document.activeElement?.matches(selector) ?? false", selector):
                style = await page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
                assert style != "none", f"the focus on {selector} cannot be seen"
                return
            await page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach {selector}")

    # Where a person is who has looked at the tab's first button.
    await page.evaluate("() => document.querySelector('.discomfort-sidebar .dc-footer button').focus()")
    await page.evaluate("() => { const s = document.querySelector('.discomfort-sidebar'); s.tabIndex = -1; s.focus() }")
    await tab_to(".dc-card")
    await page.keyboard.press("Enter")
    await sidebar.state("paused")
    assert await page.evaluate("() => document.activeElement.className") == "dc-back"
    await tab_to("#discomfort-edit-count")
    await page.keyboard.press("Control+a")
    await page.keyboard.type("5")
    await page.keyboard.press("Enter")
    await sidebar.saved("count")
    await tab_to("#discomfort-edit-prompt")
    await page.keyboard.press("Control+a")
    await page.keyboard.press("Delete")
    await page.keyboard.type("dm")
    await page.keyboard.press("Control+Enter")
    await sidebar.saved("prompt")
    await tab_to("[data-port=count]")
    await page.keyboard.press("Enter")
    await sidebar.shown(".dc-details")
    await page.evaluate("() => document.querySelector('.dc-back').focus()")
    await tab_to("[data-command=continue]")
    await page.keyboard.press("Enter")
    assert (await asyncio.to_thread(script.answer))["values"] == {"count": 20, "prompt": "dm"}
    await sidebar.state("finished")
    assert await page.evaluate("() => app.graph._nodes.length") == nodes


@pytest.mark.parametrize("palette", ["dark", "light", "solarized"])
async def test_every_theme_can_be_read(sidebar: Sidebar, script: Script, paused_at_start: None, palette: str) -> None:
    """Texts have enough contrast to what is behind them, also after the palette was changed."""
    await sidebar.page.evaluate("(palette) => app.extensionManager.setting.set('Comfy.ColorPalette', palette)", palette)
    script.run([doubling()], PLAIN, iterations=2)
    await sidebar.choose_live()
    await sidebar.state("paused")
    theme = "dark" if palette == "dark" else "light" if palette == "light" else None
    if theme:
        await sidebar.shown(f".discomfort-sidebar[data-theme={theme}]")
    for selector in (
        ".dc-run-name", ".dc-state", ".dc-paused strong", ".dc-type", ".dc-short", "[data-command=continue]",
        "#discomfort-edit-prompt", ".dc-port-name", ".dc-stats span",
    ):  # fmt: skip
        contrast = await sidebar.page.locator(f".dc-run {selector}").first.evaluate(CONTRAST)
        # 4.5 is what WCAG asks of small texts; Solarized itself has less between its own colours.
        assert contrast >= (4.5 if theme else 3), (selector, contrast)
    await sidebar.press("continue")
    await asyncio.to_thread(script.answer)
    await sidebar.page.evaluate("() => app.extensionManager.setting.set('Comfy.ColorPalette', 'dark')")


async def test_a_closed_tab_asks_for_nothing(sidebar: Sidebar, script: Script) -> None:
    """Neither before it was opened nor after it was closed, whatever runs; the badge tells of the run all the same."""
    page = sidebar.page
    await page.evaluate("() => { app.extensionManager.sidebarTab.activeSidebarTabId = null }")
    await page.locator(".discomfort-sidebar").wait_for(state="detached")
    await sidebar.load()
    # What other parts of the editor ask is theirs.
    sidebar.asked.clear()
    script.run([doubling(seconds=0.1)], PLAIN, iterations=5)
    await sidebar.shown(".discomfort-tab-button, [data-testid=discomfort-tab-button]", "1")
    await asyncio.to_thread(script.answer)
    await sidebar.until("() => !app.extensionManager.getSidebarTabs().find((one) => one.id === 'discomfort').iconBadge")
    # The end of a run is told by an event, and makes the one question that is asked.
    assert [path for path in sidebar.asked if "/runs/" in path] == []
    assert len([path for path in sidebar.asked if path == "/state"]) <= 3


async def test_a_lost_connection_is_made_up_for(sidebar: Sidebar, script: Script, paused_at_start: None) -> None:
    """What happened while the browser was not connected is there afterwards."""
    script.run([doubling()], PLAIN, iterations=2)
    await sidebar.choose_live()
    await sidebar.state("paused")
    await sidebar.page.evaluate("() => { app.api.socket.onmessage = null; app.api.socket.close() }")
    await sidebar.press("continue")
    await asyncio.to_thread(script.answer)
    await sidebar.state("finished")


# --------------------------------------------------------------------------------------------------- ten thousand


async def test_five_thousand_iterations_do_not_slow_the_page(sidebar: Sidebar, outer: OuterServer) -> None:
    """The page holds few of them, draws a new event quickly, and shows more on demand."""
    run_id, events, page = "f" * 32, long_run(5000), sidebar.page
    status = {
        "state": "running", "offset": len(events), "node": None, "percent": None, "iteration": 4999, "paused_at": None
    }  # fmt: skip
    entry = {
        "run_id": run_id, "name": "long.json", "source": "script", "started": 1.0, "live": True, "end": None,
        "status": status, "iterations": 10_000, "checkpoint": "", "has_report": False, "outer_node": None,
    }  # fmt: skip

    async def give_state(route: Any) -> None:
        await route.fulfill(json={**outer.get("/discomfort/state"), "runs": [entry]})

    async def give_events(route: Any) -> None:
        offset = int(route.request.url.rpartition("=")[2])
        part = events[offset : offset + 4000]
        await route.fulfill(json={"events": part, "offset": offset + len(part), "live": True, "status": status})

    await page.route("**/discomfort/state", give_state)
    await page.route("**/discomfort/runs/*/events*", give_events)
    await page.evaluate("() => app.api.dispatchEvent(new CustomEvent('discomfort.runs', { detail: {} }))")
    await sidebar.choose_live()
    await sidebar.shown(".dc-stats", "5000 of 10000 iterations")
    await sidebar.shown(".dc-count", "5,000")
    assert await page.locator(".dc-iteration").count() == 40
    assert await page.evaluate("() => document.querySelectorAll('.discomfort-sidebar *').length") < 1500
    await page.evaluate("""() => {
        window.longTasks = []
        new PerformanceObserver((list) => longTasks.push(...list.getEntries().map((one) => one.duration)))
            .observe({ entryTypes: ["longtask"] })
    }""")
    for more in range(5):
        events.extend(long_run(1, first=5000 + more))
        status.update(offset=len(events), iteration=5000 + more)
        detail = json.dumps({"run_id": run_id, **status})
        await page.evaluate(
            "(detail) => app.api.dispatchEvent(new CustomEvent('discomfort.run', { detail: JSON.parse(detail) }))",
            detail,
        )
        await sidebar.shown(".dc-count", f"5,00{1 + more}")
    assert max([0, *await page.evaluate("() => longTasks")]) < 500
    await page.click("text=Show more")
    await sidebar.until("() => document.querySelectorAll('.dc-iteration').length === 240")
    await page.unroute_all()


def long_run(count: int, first: int = 0) -> list[dict[str, Any]]:
    """The events of so many iterations, as a run writes them; with the first one those of its beginning."""
    ports = [{"unique_id": "loss", "mode": "OUTPUT", "type": "FLOAT", "node_id": "3"}]
    events: list[dict[str, Any]] = []
    if not first:
        workflows = [{"name": "long.json", "nodes": 4, "ports": ports, "file": None}]
        events.append(
            {
                "kind": "run",
                "t": 1.0,
                "name": "long.json",
                "source": "script",
                "iterations": 10_000,
                "workflows": workflows,
            }
        )
    for index in range(first, first + count):
        at = {"t": 1.0 + index, "path": [index]}
        value = {"kind": "number", "type": "float", "value": 100 / (1 + index)}
        events += [
            {"kind": "iteration", **at},
            {"kind": "step_started", **at, "workflow": "long.json"},
            {"kind": "step", **at, "workflow": "long.json", "seconds": 0.9 + index % 7 / 10, "cached": 1, "nodes": 4,
             "attempts": 1, "retries": [], "memory": {"server_rss": 2**30 + index}, "outputs": {"loss": value}},
        ]  # fmt: skip
    return events


# ---------------------------------------------------------------------------------------------------- pure parts


async def reduce(sidebar: Sidebar, events: list[dict[str, Any]], question: str) -> Any:
    """What run_model.js makes of events; *question* is a JavaScript expression over ``run`` and ``model``."""
    return await sidebar.page.evaluate(
        f"""async ([modules, events]) => {{
            const model = await import(`${{modules}}/run_model.js`)
            const run = model.newRun()
            // In two parts, as they come.
            model.addEvents(run, events.slice(0, 2))
            model.addEvents(run, events.slice(2))
            return {question}
        }}""",
        [MODULES, events],
    )


def number(value: Any) -> dict[str, Any]:
    return {"kind": "number", "type": "int", "value": value}


async def test_model_iterations_and_steps(sidebar: Sidebar) -> None:
    """Nested iterations keep their order and place; a failed step and a failed iteration are known as such."""
    events = [
        {"kind": "iteration", "t": 1, "path": [0]},
        {"kind": "iteration", "t": 2, "path": [0, 0]},
        {"kind": "step_started", "t": 2, "path": [0, 0], "workflow": "a"},
        {"kind": "step", "t": 3, "path": [0, 0], "workflow": "a", "seconds": 1, "cached": 1, "nodes": 3,
         "retries": [{"reason": "memory"}], "outputs": {}},
        {"kind": "condition", "t": 3, "path": [0, 1], "what": "loop", "text": "x < 1", "result": False},
        {"kind": "step_started", "t": 4, "path": [0, 1], "workflow": "a"},
        {"kind": "step_failed", "t": 5, "path": [0, 1], "workflow": "a", "error": {"message": "no"}},
        {"kind": "iteration_failed", "t": 5, "iteration": 0, "state": "skipped", "error": {"message": "no"}},
    ]  # fmt: skip
    found = await reduce(
        sidebar, events,
        """[run.iterations.map((one) => [one.key, one.steps.map((step) => step.error?.message ?? step.seconds)]),
            run.cachedNodes, run.allNodes, run.retries, run.openSteps.size,
            run.iterationByKey.get("0").failure.state, run.iterationByKey.get("0.1").conditions[0].result]""",
    )  # fmt: skip
    assert found == [[["0", []], ["0.0", [1]], ["0.1", ["no"]]], 1, 3, 1, 0, "skipped", False]


async def test_model_values_seen_late(sidebar: Sidebar) -> None:
    """What was only weighed at first is shown when it has been looked at; until then the one before stays."""
    unseen = {"kind": "other", "type": "", "size": 100, "note": "not looked at yet"}
    seen = {"kind": "image", "type": "Tensor", "thumbnail": "a.jpg"}
    step = {"kind": "step", "workflow": "a", "seconds": 1, "outputs": {"x": unseen}}
    events = [
        {**step, "t": 1, "path": [0]},
        {"kind": "sketch", "t": 1.5, "path": [0], "name": "x", "value": seen},
        {**step, "t": 2, "path": [1]},
    ]
    question = """[run.values.get("x").history.map((one) => one.key), model.latest(run.values.get("x")).isOld,
        run.iterations.map((one) => one.steps[0].outputs.x.kind)]"""
    assert await reduce(sidebar, events, question) == [["0"], True, ["image", "other"]]
    later = {"kind": "sketch", "t": 3, "path": [1], "name": "x", "value": seen}
    assert await reduce(sidebar, [*events, later], question) == [["0", "1"], False, ["image", "image"]]


async def test_model_pictures_that_come_in_any_order(sidebar: Sidebar) -> None:
    """The pictures of quick iterations come when there is time for them, the newest first: each has its place."""
    unseen = {"kind": "other", "type": "", "size": 100, "note": "not looked at yet"}
    steps = [
        {"kind": "step", "workflow": "a", "seconds": 1, "t": at, "path": [at], "outputs": {"x": unseen}}
        for at in range(11)
    ]
    sketches = [
        {
            "kind": "sketch",
            "t": 20 - at,
            "path": [at],
            "name": "x",
            "value": {"kind": "image", "thumbnail": f"{at}.jpg"},
        }
        for at in (10, 2, 9, 1, 0)
    ]
    given = {"kind": "run", "t": 0, "inputs": {"x": {"kind": "image", "thumbnail": "given.jpg"}}}
    found = await reduce(
        sidebar, [given, *steps, *sketches],
        """[run.values.get("x").history.map((one) => one.sketch.thumbnail), model.latest(run.values.get("x")).isOld]""",
    )  # fmt: skip
    assert found == [["given.jpg", "0.jpg", "1.jpg", "2.jpg", "9.jpg", "10.jpg"], False]


async def test_model_pauses_and_edits(sidebar: Sidebar) -> None:
    """An edit changes what the pause shows, and is a point of the value's curve; going on ends the pause."""
    paused = {"kind": "paused", "t": 1, "path": [2], "reason": "pause", "before": "step a", "values": {"x": number(1)}}
    edited = {"kind": "edited", "t": 2, "name": "x", "before": number(1), "after": number(9)}
    question = """[run.paused?.values.x.value ?? null, model.curveOf(run.values.get("x")).map((one) => one.value),
        run.iterationByKey.get("2").edits.length]"""
    assert await reduce(sidebar, [paused, edited], question) == [9, [9], 1]
    assert await reduce(sidebar, [paused, edited, {"kind": "resumed", "t": 3, "how": "continue"}], question) == [
        None,
        [9],
        1,
    ]


async def test_model_pace_and_state(sidebar: Sidebar) -> None:
    """The rate is the middle one: a pause of an hour does not count. What lives no more and has no end was killed."""
    events = [{"kind": "iteration", "t": 10 * at + (3600 if at > 4 else 0), "path": [at]} for at in range(8)]
    found = await reduce(
        sidebar, events,
        """[model.pace(run, 20), model.outerCount(run), model.stateOf(false, null, null),
            model.stateOf(true, { state: "paused" }, null), model.stateOf(false, null, { state: "failed" })]""",
    )  # fmt: skip
    assert found == [{"perIteration": 10, "left": 130}, 8, "killed", "paused", "failed"]


async def test_curves_keep_their_peaks(sidebar: Sidebar) -> None:
    """Of ten thousand points some hundred are drawn, the highest and lowest among them."""
    found = await sidebar.page.evaluate(
        """async (modules) => {
            const { thin, bounds } = await import(`${modules}/curve.js`)
            const values = Array.from({ length: 10000 }, (_, at) => (at === 7777 ? 99 : at === 1234 ? -5 : at % 10))
            const points = thin(values)
            const isSorted = points.every(([index], at) => at === 0 || index > points[at - 1][0])
            return [points.length < 500, bounds(points.map(([, value]) => value)), isSorted, thin([3]), bounds(values)]
        }""",
        MODULES,
    )
    assert found == [True, [-5, 99], True, [[0, 3]], [-5, 99]]


async def test_long_integers_keep_their_digits(sidebar: Sidebar) -> None:
    """A seed has up to twenty digits, more than JavaScript's numbers; other numbers stay numbers."""
    text = '{"seed": 18446744073709551615, "small": 7, "part": 0.1234567890123456789, "digest": "12345678901234567890"}'
    found = await sidebar.page.evaluate(
        "async ([modules, text]) => (await import(`${modules}/routes.js`)).parseExactly(text)", [MODULES, text]
    )
    assert found == {
        "seed": "18446744073709551615", "small": 7, "part": 0.12345678901234568, "digest": "12345678901234567890"
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------ for the documentation


def refining() -> dict[str, Any]:
    """A photograph out of focus becomes sharper: picture, prompt and strength in, picture, prompt and round out."""
    return {
        "1": port("picture"),
        "2": port("strength"),
        "3": node("ImageSharpen", image=["1", 0], sharpen_radius=3, sigma=0.6, alpha=["2", 0]),
        "4": port("picture", ["3", 0]),
        "5": port("prompt"),
        "6": node("RunTestPass", anything=["5", 0]),
        "7": port("prompt", ["6", 0]),
        "8": port("round"),
        "9": node("RunTestSlow", number=["8", 0], seconds=0.4, log=os.devnull),
        "10": node("RunTestDouble", number=["9", 0]),
        "11": port("round", ["10", 0]),
    }


@pytest.mark.skipif("DISCOMFORT_SCREENSHOTS" not in os.environ, reason="DISCOMFORT_SCREENSHOTS names no folder")
async def test_pictures_for_the_documentation(
    sidebar: Sidebar, script: Script, tmp_path: Path, outer: OuterServer
) -> None:
    """The sidebar live, paused, after an error, and in the light theme."""
    from matplotlib.cbook import get_sample_data
    from PIL import Image, ImageFilter

    folder, page = os.environ["DISCOMFORT_SCREENSHOTS"], sidebar.page
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as photo:
        photo.resize((512, 600)).filter(ImageFilter.GaussianBlur(3)).save(tmp_path / "photo.png")
    refine, check = tmp_path / "refine portrait.json", tmp_path / "check.json"
    refine.write_text(json.dumps(refining()))
    check.write_text(json.dumps(refusing()))
    # As wide as people drag it.
    await page.add_style_tag(content=".side-bar-panel { flex: 0 0 400px !important; max-width: 400px !important }")
    inputs = {
        "picture": str(tmp_path / "photo.png"), "prompt": "portrait of an admiral in uniform, sharp focus, soft light",
        "strength": 0.02, "round": 3, "hires": True,
    }  # fmt: skip

    async def picture(name: str) -> None:
        await page.mouse.move(900, 500)
        await page.wait_for_load_state("networkidle")
        await page.screenshot(path=f"{folder}/{name}.png", animations="disabled")

    script.run([str(refine)], inputs, iterations=16)
    await sidebar.choose_live()
    await sidebar.shown(".dc-stats", re.compile(r"iteration ([6-9]|1\d) of"))
    await (await sidebar.shown("[data-port=picture]")).click()
    await picture("sidebar-live")
    await sidebar.press("pause")
    await sidebar.state("paused")
    await picture("sidebar-paused")
    await page.evaluate("() => app.extensionManager.setting.set('Comfy.ColorPalette', 'light')")
    await sidebar.shown(".discomfort-sidebar[data-theme=light]")
    await picture("sidebar-light")
    await page.evaluate("() => app.extensionManager.setting.set('Comfy.ColorPalette', 'dark')")
    await page.get_by_role("button", name="Stop", exact=True).click()
    await page.get_by_role("button", name="Stop it").click()
    await asyncio.to_thread(script.answer)
    script.run([doubling(seconds=0.2), str(check)], PLAIN, iterations=5)
    await asyncio.to_thread(script.answer)
    await page.click(".dc-back")
    await sidebar.choose_last(outer)
    await sidebar.shown(".dc-failure", "8 is refused")
    await picture("sidebar-error")
    await page.click(".dc-back")
    await sidebar.shown(".dc-list")
    await picture("sidebar-list")
