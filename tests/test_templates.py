"""The official workflow templates: read, converted, cut in two by ports and stitched again, and opened in the editor.

Ground truth is a page of the editor that the tests drive themselves (editor_page.py). What cuts a workflow, and what
tells whether two prompts compute the same, is in workflow_cutting.py. The templates are those in the environment of the
ComfyUI that COMFYUI_PATH names; DISCOMFORT_CUTS=20 cuts each of them that often, instead of once.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from editor_page import EditorPage, Opened, open_editor
from workflow_cutting import Cut, cut_workflow, difference, ports_in, without_ports

from discomfort import ComfyConnector
from discomfort import prompt_graph as pg
from discomfort import workflow_graph as wg
from discomfort import workflow_json as wj
from discomfort import workflow_stitching as ws

Workflow = dict[str, Any]

on_server = pytest.mark.asyncio(loop_scope="module")

WORKFLOWS = Path(__file__).with_name("workflows")

CUTS = int(os.environ.get("DISCOMFORT_CUTS", "1"))
# Of cuts that no browser looks at.
QUICK_CUTS = 4 * CUTS
# What becomes of the joined ports: all are taken out, or all stay.
ENDS = [pytest.param(True, id="ports deleted"), pytest.param(False, id="ports kept")]


def template_files() -> list[Path]:
    """The templates in the environment of the ComfyUI at COMFYUI_PATH, in both ways their package has been laid out."""
    comfyui = Path(os.environ.get("COMFYUI_PATH", "")).expanduser()
    packages = [p for lib in ("lib/python*", "Lib") for p in comfyui.glob(f"*venv/{lib}/site-packages")]
    folders = ("comfyui_workflow_templates/templates", "comfyui_workflow_templates_json/templates")
    files = [f for package in packages for folder in folders for f in sorted((package / folder).glob("*.json"))]
    # Lists of the templates lie beside them.
    return [f for f in files if isinstance(content := read(f), dict) and isinstance(content.get("nodes"), list)]


def read(file: Path) -> Workflow:
    content: Workflow = json.loads(file.read_text(encoding="utf-8"))
    return content


_NO_TEMPLATES = pytest.mark.skip(
    "needs a real ComfyUI with its templates: set COMFYUI_PATH to a folder with a venv in which "
    "comfyui-workflow-templates is installed"
)
FILES = template_files() if os.environ.get("COMFYUI_PATH", "embedded") != "embedded" else []
EVERY_TEMPLATE = pytest.mark.parametrize(
    "file", FILES or [pytest.param(None, marks=_NO_TEMPLATES)], ids=lambda file: file.stem if file else "none"
)


def cuts_of(file: Path, count: int) -> list[Cut]:
    """Random cuts of a template: the same in every run."""
    cuts = (cut_workflow(read(file), random.Random(f"{file.stem} {seed}")) for seed in range(count))
    return [cut for cut in cuts if cut is not None]


def stitch(cut: Cut, is_deleted: bool) -> Workflow:
    stitched = ws.stitch_workflows([cut.first, cut.second], is_deleted, is_deleted)["stitched_workflow"]
    assert isinstance(stitched, dict)
    return stitched


# ------------------------------------------------------------------------------------------------ without a frontend


def as_prompt(workflow: Workflow) -> dict[str, Any]:
    """What our own reading of a workflow says of its prompt: its nodes that run, their saved values and their links."""
    found = wg.discover_port_nodes(workflow)
    sources = {(c.target_id, c.target_input): [c.origin_id, c.origin_slot] for c in found["links"]}
    prompt = {}
    for flat_id in found["execution_order"]:
        node = found["nodes"][flat_id]
        names = [slot["name"] for slot in node.get("inputs") or [] if (flat_id, slot["name"]) in sources]
        inputs = {name: sources[flat_id, name] for name in names}
        prompt[flat_id] = {"class_type": node["type"], "inputs": {**inputs, "saved": {"v": node.get("widgets_values")}}}
    return prompt


def unread_values(cut: Cut) -> list[str]:
    """The unique_ids of cut links that lead to nothing that runs, such as a bypassed node; their ports stay."""
    graph = wj.FlatGraph(cut.second)
    ports = [port for port in wg.discover_ports(cut.second) if not graph.consumers[port.node_id]]
    return sorted(port.unique_id for port in ports)


def ports_left(workflow: Workflow) -> list[str]:
    return sorted(port.unique_id for port in wg.discover_ports(workflow))


@EVERY_TEMPLATE
def test_a_template_has_no_ports_and_no_problems(file: Path) -> None:
    assert wg.discover_ports(file) == []
    assert wg.check_workflow(file) == []


@EVERY_TEMPLATE
def test_a_template_cut_and_stitched_is_read_as_the_same(file: Path) -> None:
    expected = as_prompt(read(file))
    for cut in cuts_of(file, QUICK_CUTS):
        for is_deleted in (True, False):
            stitched = stitch(cut, is_deleted)
            assert wg.check_workflow(stitched) == wg.check_workflow(file)
            assert difference(expected, without_ports(as_prompt(stitched))) == ""
            left = sorted(2 * unread_values(cut))
            assert not is_deleted or ports_left(stitched) == left


# --------------------------------------------------------------------------------------------------- on real ComfyUI


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def comfyui(real_config: Path) -> AsyncIterator[ComfyConnector]:
    """A running real ComfyUI."""
    connector = await ComfyConnector.create(real_config)
    yield connector
    await connector.kill_api()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def known_types(comfyui: ComfyConnector) -> frozenset[str]:
    """The node types of the server, and those of the editor."""
    return frozenset(await comfyui.object_info()) | wj.REROUTE_TYPES | wj.VIRTUAL_TYPES


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def editor(comfyui: ComfyConnector) -> AsyncIterator[EditorPage]:
    """The editor of the real ComfyUI."""
    async with open_editor(comfyui.server_address) as page:
        yield page


def unknown_types(workflow: Workflow, known: frozenset[str]) -> set[str]:
    """The node types of a workflow, at all levels, that neither it nor the server defines."""
    definitions = wj.subgraph_definitions(workflow)
    nodes = [node for level in (workflow, *definitions) for node in level["nodes"]]
    return {node["type"] for node in nodes} - known - {definition["id"] for definition in definitions}


@pytest.fixture
def template(file: Path, known_types: frozenset[str]) -> Workflow:
    """A template of core nodes."""
    workflow = read(file)
    unknown = unknown_types(workflow, known_types)
    if unknown:
        pytest.skip(f"not of core nodes only: {', '.join(sorted(unknown))}")
    return workflow


@pytest.fixture(scope="module")
def originals() -> dict[str, Opened]:
    """What became of the templates that were opened so far."""
    return {}


async def opened(file: Path, editor: EditorPage, originals: dict[str, Opened]) -> Opened:
    if file.stem not in originals:
        originals[file.stem] = await editor.load(read(file))
    return originals[file.stem]


@pytest.mark.real_comfyui
@pytest.mark.skipif(not FILES, reason="needs a real ComfyUI with its templates: set COMFYUI_PATH")
def test_nearly_all_templates_are_of_core_nodes(known_types: frozenset[str]) -> None:
    """Or the tests below would say little: 171 of 172 in version 0.1.95."""
    core = [file for file in FILES if not unknown_types(read(file), known_types)]
    assert len(core) >= 0.87 * len(FILES)
    assert len(FILES) >= 172


@pytest.mark.real_comfyui
@on_server
@EVERY_TEMPLATE
async def test_a_template_becomes_the_prompt_that_the_editor_makes(
    file: Path, template: Workflow, comfyui: ComfyConnector, editor: EditorPage, originals: dict[str, Opened]
) -> None:
    """But for the nulls that the connector replaces: see "What a conversion leaves out" in docs/how-it-works.md."""
    expected = (await opened(file, editor, originals)).prompt
    replaced = [n for n in await comfyui.explain_conversion(template) if n.kind == "null_replaced"]
    prompt = await comfyui.get_prompt_from_workflow(template)
    for note in replaced:
        assert expected[note.node_id]["inputs"][note.input] is None
        prompt[note.node_id]["inputs"][note.input] = None
    assert prompt == expected


@pytest.mark.real_comfyui
@on_server
@pytest.mark.parametrize("is_deleted", ENDS)
@EVERY_TEMPLATE
async def test_a_template_cut_and_stitched_opens_and_is_the_same(
    file: Path, template: Workflow, is_deleted: bool, editor: EditorPage, originals: dict[str, Opened]
) -> None:
    """Its prompt computes what the template's does, and the editor has nothing to say against it."""
    original = await opened(file, editor, originals)
    for cut in cuts_of(file, CUTS):
        stitched = stitch(cut, is_deleted)
        result = await editor.load(stitched)
        if difference(original.prompt, without_ports(result.prompt)):
            # Lists that a combo asks the server for come while a template is open, and can change its value.
            original = originals[file.stem] = await editor.load(template)
        assert difference(original.prompt, without_ports(result.prompt)) == ""
        assert not is_deleted or ports_in(result.prompt) == sorted(2 * unread_values(cut))
        assert set(result.complaints) <= set(original.complaints)
        assert changes(stitched, result.saved) == []
        assert await editor.add_node() not in all_ids(stitched)


def changes(workflow: Workflow, saved: Workflow) -> list[str]:
    """What the editor would save otherwise than it is in the file, in words; whatever it adds is its own affair."""
    found = []
    for name, shape in {"nodes": shape_of_nodes, "links": shape_of_links, "groups": shape_of_groups}.items():
        ours, theirs = shape(workflow), shape(saved)
        if ours != theirs:
            found.append(f"{name}: {[x for x in ours if x not in theirs]} -> {[x for x in theirs if x not in ours]}")
    for last in ("last_node_id", "last_link_id"):
        if workflow[last] != saved[last]:
            found.append(f"{last}: {workflow[last]} -> {saved[last]}")
    before = {d["id"]: shape_of_nodes(d) for d in wj.subgraph_definitions(workflow)}
    after = {d["id"]: shape_of_nodes(d) for d in wj.subgraph_definitions(saved)}
    if before != after:
        found.append(f"definitions: {before} -> {after}")
    return found


def shape_of_nodes(level: Mapping[str, Any]) -> list[Any]:
    nodes = [[node["id"], node["type"], node.get("mode", 0), *map(round, pair(node["pos"]))] for node in level["nodes"]]
    return sorted(nodes)


def pair(raw: Any) -> tuple[float, float]:
    return (raw["0"], raw["1"]) if isinstance(raw, dict) else (raw[0], raw[1])


def shape_of_links(workflow: Workflow) -> list[Any]:
    """Links by the names of the inputs they lead to: an editor may add inputs, and move others."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    links = [(i, *origin, target, slot) for i, *origin, target, slot, _ in workflow["links"]]
    return sorted([*link[:4], nodes[link[3]]["inputs"][link[4]]["name"]] for link in links)


def shape_of_groups(workflow: Workflow) -> list[Any]:
    return sorted([group["title"], *map(round, group["bounding"])] for group in workflow["groups"])


def all_ids(workflow: Workflow) -> set[int]:
    """The node ids at all levels."""
    return {node["id"] for level in (workflow, *wj.subgraph_definitions(workflow)) for node in level["nodes"]}


# --------------------------------------------------------------------------------------------------------- everywhere

SEQUENCES = [
    ["loop_image", "nested_subgraphs", "part_make", "old_frontend", "part_use"],
    ["ports_only_in_subgraph"] * 3,
    ["nested_subgraphs", "nested_subgraphs", "ports_only_in_subgraph"],
    ["modes_and_reroutes", "links_as_objects", "loop_image"],
]


BOTH = ["embedded", pytest.param("real", marks=pytest.mark.real_comfyui)]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=BOTH)
async def either_editor(request: pytest.FixtureRequest) -> AsyncIterator[EditorPage]:
    """The editor of the embedded server, of the version that the tests install, and that of the real ComfyUI."""
    connector = await ComfyConnector.create(request.getfixturevalue(f"{request.param}_config"))
    async with open_editor(connector.server_address) as page:
        yield page
    await connector.kill_api()


@on_server
@pytest.mark.parametrize("is_deleted", ENDS)
@pytest.mark.parametrize("names", SEQUENCES, ids=lambda names: "-".join(n[:6] for n in names))
async def test_stitched_workflows_open_in_the_editor_as_they_are(
    names: list[str], is_deleted: bool, either_editor: EditorPage
) -> None:
    """Without a complaint; the prompt has the nodes and ports that were told of it, under the ids told."""
    files = [WORKFLOWS / f"{name}.json" for name in names]
    told = ws.stitch_workflows(files, is_deleted, is_deleted)
    workflow = told["stitched_workflow"]
    result = await either_editor.load(workflow)
    # A file of an old editor, whose nodes may have no slots, is complained of by itself.
    assert not result.complaints or any([(await either_editor.load(read(file))).complaints for file in files])
    assert changes(workflow, result.saved) == []
    assert set(result.prompt) == set(told["execution_order"])
    ports = {(p.node_id, p.unique_id, p.mode, *p.tags) for p in pg.prompt_ports(result.prompt)}
    assert ports == {(p.node_id, p.unique_id, p.mode, *p.tags) for p in wg.discover_ports(workflow)}
    added = [await either_editor.add_node(), *await either_editor.add_inner_nodes()]
    assert len(added) == 1 + len(wj.subgraph_definitions(workflow))
    assert len(set(added) - all_ids(workflow)) == len(added)
