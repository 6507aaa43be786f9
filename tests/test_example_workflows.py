"""The examples that ComfyUI shows in Browse Templates: each opens without complaint, and runs.

On the embedded server and the ComfyUI of COMFYUI_PATH, whose editors are of different ages. The examples are made by
tools/example_workflows.py. The model that describes pictures is a fake on this machine.
"""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from editor_page import EditorPage, Opened, open_editor
from fake_openai import FakeOpenAI, Reply
from outer_server import PACK_NAME, OuterServer, outer_server_fixture
from PIL import Image

in_browser = pytest.mark.asyncio(loop_scope="module")

FOLDER = Path(__file__).resolve().parent.parent / "example_workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
# Those that others run: by themselves they have nothing to work on.
INNER = ["Enlarge a picture", "Paint new room", "Refine a picture"]
# Seconds: a run may have to start a nested server.
RUN_TIMEOUT = 180.0
DESCRIPTION = "A calm evening."

outer = outer_server_fixture()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def editor(outer: OuterServer) -> AsyncIterator[EditorPage]:
    pytest.importorskip("playwright")
    async with open_editor(outer.url) as page:
        yield page


@pytest.fixture(scope="module")
def pictures(outer: OuterServer) -> list[str]:
    """The names of the pictures in the server's input folder."""
    names = ["evening.png", "morning.png"]
    for name, colour in zip(names, ("#264653", "#f4a261"), strict=True):
        Image.new("RGB", (64, 48), colour).save(outer.input_folder / name)
    return names


def read(name: str) -> dict[str, Any]:
    return dict(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


async def opened(editor: EditorPage, name: str) -> Opened:
    """An example in the editor, which has nothing to say against it."""
    found = await editor.load(read(name))
    # The editor's own first workflow may look for its models outside, and is still at it.
    assert [one for one in found.complaints if "huggingface.co" not in one] == []
    return found


async def run(outer: OuterServer, prompt: dict[str, Any]) -> dict[str, Any]:
    """Run a prompt to its end; returns what its nodes show, by their titles."""
    status, answer = await asyncio.to_thread(outer.request, "POST", "/prompt", {"prompt": prompt})
    assert (status, answer.get("node_errors")) == (200, {}), answer
    deadline = time.monotonic() + RUN_TIMEOUT
    while not (history := await asyncio.to_thread(outer.get, f"/history/{answer['prompt_id']}")):
        assert time.monotonic() < deadline, f"the run does not end\n{outer.log()[-3000:]}"
        await asyncio.sleep(0.1)
    (entry,) = history.values()
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"]
    return {prompt[node]["_meta"]["title"]: shown for node, shown in entry["outputs"].items()}


def sizes(outer: OuterServer, shown: dict[str, Any]) -> list[tuple[int, int]]:
    """Width and height of the pictures that a preview shows."""
    found = []
    for image in shown["images"]:
        content = outer.request("GET", f"/view?filename={quote(image['filename'])}&type={image['type']}")[1]
        with Image.open(io.BytesIO(content)) as picture:
            found.append(picture.size)
    return found


# ---------------------------------------------------------------------------------------------------- all of them


def test_every_example_is_offered_with_its_picture(outer: OuterServer) -> None:
    """They are in the list of templates; workflow and picture are served."""
    listed = outer.get("/workflow_templates")[PACK_NAME]
    assert sorted(listed) == sorted(NAMES)  # others would be offered and not found
    for name in NAMES:
        path = f"/api/workflow_templates/{PACK_NAME}/{quote(name)}"
        assert outer.get(f"{path}.json") == read(name)
        with Image.open(io.BytesIO(outer.get(f"{path}.jpg"))) as picture:
            assert (picture.format, picture.width * 9) == ("JPEG", picture.height * 16)
        assert (FOLDER / f"{name}.jpg").stat().st_size <= 60_000


def test_runner_nodes_find_every_example(outer: OuterServer) -> None:
    """By the names that the examples use for each other."""
    offered = {one["name"] for one in outer.get("/discomfort/workflows")["workflows"]}
    assert {f"{name}.json" for name in NAMES} <= offered


def test_examples_hold_nothing_of_the_machine_they_were_made_on() -> None:
    """Neither a path, nor a key, nor what is another every time they are made."""
    for name in NAMES:
        text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
        assert not any(word in text for word in ("/root", "/home", "/tmp", "127.0.0.1", "sk-")), name
        assert read(name)["extra"] == {}


@in_browser
@pytest.mark.parametrize("name", NAMES)
async def test_it_opens_without_complaint(editor: EditorPage, name: str) -> None:
    """No dialog, no message, no error; and every node, value and wire is there."""
    found = await opened(editor, name)
    saved = read(name)
    nodes = {node["id"]: node for node in found.saved["nodes"]}
    assert sorted(nodes) == sorted(node["id"] for node in saved["nodes"])
    for node in saved["nodes"]:
        assert nodes[node["id"]]["type"] == node["type"]
        assert nodes[node["id"]]["widgets_values"] == node["widgets_values"] if "widgets_values" in node else True
    assert sorted(link[:5] for link in found.saved["links"]) == sorted(link[:5] for link in saved["links"])


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_shows(name: str) -> None:
    """A note in the workflow says so, and how it is run."""
    (note,) = [node for node in read(name)["nodes"] if node["type"] == "MarkdownNote"]
    (text,) = note["widgets_values"]
    assert 100 < len(text) < 450
    assert "Press *Run*" in text or "run that" in text or "run those" in text or "start " in text


# ---------------------------------------------------------------------------------------------------------- each


@in_browser
@pytest.mark.parametrize("name", INNER)
async def test_a_workflow_for_others_does_nothing_by_itself(editor: EditorPage, outer: OuterServer, name: str) -> None:
    """Queued alone it ends without an error: its INPUT ports have nothing."""
    assert await run(outer, (await opened(editor, name)).prompt) == {}


@in_browser
async def test_test_a_workflow(editor: EditorPage, outer: OuterServer) -> None:
    """One picture, of the size that went in."""
    shown = await run(outer, (await opened(editor, "Test a workflow")).prompt)
    assert sizes(outer, shown["Preview Image"]) == [(512, 512)]


@in_browser
async def test_loop(editor: EditorPage, outer: OuterServer) -> None:
    """A picture of each of the six iterations."""
    shown = await run(outer, (await opened(editor, "Loop")).prompt)
    assert sizes(outer, shown["Every iteration"]) == [(256, 256)] * 6


@in_browser
async def test_loop_until_large_enough(editor: EditorPage, outer: OuterServer) -> None:
    """It ends by its condition, after five of twenty iterations."""
    shown = await run(outer, (await opened(editor, "Loop until large enough")).prompt)
    assert shown["Its width"]["text"] == ["1172"]
    assert [width for width, _ in sizes(outer, shown["Large enough"])] == [1172]
    assert "5 iterations" in shown["Discomfort Loop Executor"]["text"][0]


@in_browser
async def test_extend_a_picture(editor: EditorPage, outer: OuterServer) -> None:
    """192 pixels more with each of two passes; what was there stays as it was."""
    shown = await run(outer, (await opened(editor, "Extend a picture")).prompt)
    assert sizes(outer, shown["After each pass"]) == [(448, 384), (640, 384)]
    assert sizes(outer, shown["Extended"]) == [(640, 384)]


@in_browser
async def test_folder_of_pictures(editor: EditorPage, outer: OuterServer, pictures: list[str]) -> None:
    """The pictures of the input folder, in one size."""
    shown = await run(outer, (await opened(editor, "Folder of pictures")).prompt)
    assert sizes(outer, shown["The pictures"]) == [(512, 384)] * 2
    assert [name for text in shown["Their names"]["text"] for name in text.split()] == pictures


@in_browser
async def test_describe_pictures(editor: EditorPage, outer: OuterServer, pictures: list[str]) -> None:
    """A text for each, of the model on this machine, which gets no key."""
    prompt = (await opened(editor, "Describe pictures")).prompt
    (node,) = [one for one in prompt.values() if one["class_type"] == "DiscomfortImageDescriber"]
    assert node["inputs"]["base_url"].startswith("http://localhost:")
    with FakeOpenAI(default=Reply(text=DESCRIPTION)) as fake:
        node["inputs"]["base_url"] = fake.url
        shown = await run(outer, prompt)
        assert shown["In words"]["text"] == [DESCRIPTION] * 2
        assert [request.prompt for request in fake.requests] == ["Describe this picture in one sentence."] * 2
        assert [request.json["model"] for request in fake.requests] == ["llava"] * 2
