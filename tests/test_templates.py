"""The official workflow templates: read, converted, cut in two by ports and stitched again, and opened in the editor.

Ground truth is a page of the editor that the tests drive themselves (editor_page.py). What cuts a workflow, and what
tells whether two prompts compute the same, is in workflow_cutting.py. The templates are those in the environment of the
ComfyUI that COMFYUI_PATH names; DISCOMFORT_CUTS=20 cuts each of them that often, instead of once.
"""

from __future__ import annotations

import json
import os
import random
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from editor_page import EditorPage, Opened, open_editor
from workflow_cutting import Cut, cut_workflow, difference, ports_in, without_ports

from discomfort import ComfyConnector
from discomfort import flat_graph as fg
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


def small_prompt(source: str = "0", reader: str = "2") -> dict[str, Any]:
    return {
        reader: {"class_type": "A", "inputs": {"v": 1, "x": [source, 1]}},
        "1": {"class_type": "A", "inputs": {"v": 1, "x": [source, 0]}},
        source: {"class_type": "B", "inputs": {"list": {"__value__": ["0", 0]}}},
    }


def test_prompts_are_compared_by_what_they_compute() -> None:
    """Whatever the ids; a value, a link or its slot that is another tells, and so does a node more."""
    prompt = small_prompt()
    ported = {**prompt, "9": {"class_type": "DiscomfortPort", "inputs": {"input_data": ["0", 1]}}}
    ported["2"] = {"class_type": "A", "inputs": {"v": 1, "x": ["9", 0]}}
    assert difference(prompt, small_prompt("8:3", "5")) == difference(prompt, without_ports(ported)) == ""
    for other in ({"v": 2, "x": ["0", 1]}, {"v": 1, "x": ["0", 0]}, {"v": 1, "x": ["1", 1]}):
        assert difference(prompt, {**prompt, "2": {"class_type": "A", "inputs": other}})
    assert difference(prompt, {**prompt, "3": prompt["2"]})
    assert difference(prompt, ported)


def unread_values(cut: Cut) -> list[str]:
    """The unique_ids of cut links that lead to nothing that runs, such as a bypassed node; their ports stay."""
    graph = fg.FlatGraph(cut.second)
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
    """Or the tests below would say little. In version 0.1.95 they are 171 of 172, and 150 are asked for."""
    core = [file for file in FILES if not unknown_types(read(file), known_types)]
    assert len(core) >= 0.87 * len(FILES)


@pytest.mark.real_comfyui
@on_server
@EVERY_TEMPLATE
async def test_a_template_becomes_the_prompt_that_the_editor_makes(
    file: Path, template: Workflow, comfyui: ComfyConnector, editor: EditorPage, originals: dict[str, Opened]
) -> None:
    """But for the nulls that it replaces: see "What a conversion leaves out" in docs/concepts/processes.md."""
    expected = (await opened(file, editor, originals)).prompt
    replaced = [n for n in await comfyui.explain_conversion(template) if n.kind == "null_replaced"]
    prompt = await comfyui.get_prompt_from_workflow(template)
    for note in replaced:
        assert expected[note.node_id]["inputs"][note.input] is None
        prompt[note.node_id]["inputs"][note.input] = None
    if prompt != expected:
        # Lists that a combo asks the server for come while a template is open, and can change its value.
        expected = (await editor.load(template)).prompt
    assert prompt == expected


@pytest.mark.real_comfyui
@on_server
@EVERY_TEMPLATE
async def test_a_template_cut_and_stitched_opens_and_is_the_same(
    file: Path, template: Workflow, editor: EditorPage, originals: dict[str, Opened]
) -> None:
    """Its prompt computes what the template's does, and the editor has nothing to say against it."""
    original = await opened(file, editor, originals)
    for number, cut in enumerate(cuts_of(file, CUTS), start=FILES.index(file)):
        is_deleted = number % 2 == 0  # the ports that were joined, all of them or none
        stitched = stitch(cut, is_deleted)
        result = await editor.load(stitched)
        if difference(original.prompt, without_ports(result.prompt)):  # as above
            original = originals[file.stem] = await editor.load(template)
        assert difference(original.prompt, without_ports(result.prompt)) == ""
        assert not is_deleted or ports_in(result.prompt) == sorted(2 * unread_values(cut))
        if not set(result.complaints) <= set(original.complaints):
            # A message about the workflow before may come late; one about this one comes again.
            result = await editor.load(stitched)
        assert set(result.complaints) <= set(original.complaints)
        assert changes(stitched, result.saved) == []
        assert await editor.add_node() not in all_ids(stitched)


def changes(workflow: Workflow, saved: Workflow) -> list[str]:
    """What the editor would save otherwise than it is in the file, in words; whatever it adds is its own affair."""
    found = []
    shapes = {"nodes": shape_of_nodes, "links": shape_of_links, "groups": shape_of_groups, "places": shape_of_places}
    if workflow["extra"].get("workflowRendererVersion") == "Vue":
        del shapes["groups"], shapes["places"]  # laid out for nodes of another size: the editor scales it
    for name, shape in shapes.items():
        ours, theirs = shape(workflow), shape(saved)
        if ours != theirs:
            found.append(f"{name}: {[x for x in ours if x not in theirs]} -> {[x for x in theirs if x not in ours]}")
    for last in ("last_node_id", "last_link_id"):
        # Newer frontends count what subgraphs say they have had, and give their links ids of their own.
        if workflow[last] > saved[last]:
            found.append(f"{last}: {workflow[last]} -> {saved[last]}")
    before = {d["id"]: shape_of_nodes(d) for d in wj.subgraph_definitions(workflow)}
    after = {d["id"]: shape_of_nodes(d) for d in wj.subgraph_definitions(saved)}
    if before != after:
        found.append(f"definitions: {before} -> {after}")
    return found


def shape_of_nodes(level: Mapping[str, Any]) -> list[Any]:
    return sorted([node["id"], node["type"], node.get("mode", 0)] for node in level["nodes"])


def shape_of_places(workflow: Workflow) -> list[Any]:
    return sorted([node["id"], *map(round, pair(node["pos"]))] for node in workflow["nodes"])


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


def inside(*links: list[Any]) -> Workflow:
    """A workflow with a subgraph of one node (1) and these links: [id, origin, slot, target, slot]."""
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
    definition = {"id": str(uuid.UUID(int=3)), "name": "Inside", "nodes": [{"id": 1, "type": "KSampler"}]}
    definition["links"] = [dict(zip(keys, link, strict=True)) for link in links]
    nodes = [{"id": 7, "type": definition["id"], "pos": [0, 0], "properties": {}}]
    return {**app("mine"), "nodes": nodes, "links": [], "definitions": {"subgraphs": [definition]}, "extra": {}}


def test_a_link_to_nowhere_inside_a_subgraph_is_no_problem() -> None:
    """An official template has some (image_flux2_klein_image_edit_9b_distilled). One from nowhere is a problem, and at
    the root, where editors say so, both.
    """
    assert wg.check_workflow(inside([1, 1, 0, 79, 0])) == []
    assert len(wg.check_workflow(inside([1, 79, 0, 1, 0]))) == 1
    assert len(wg.check_workflow({**inside(), "links": [[1, 7, 0, 79, 0, "IMAGE"]]})) == 1


def app(workflow_id: str) -> Workflow:
    """A workflow that is shown as an app with two inputs and one output, by an editor with the pack Use Everywhere."""
    output, reader = ({"name": "image", "type": "IMAGE", **more} for more in ({"links": [1]}, {"link": 1}))
    nodes = [{"id": 7, "type": "LoadImage", "pos": [0, 0], "outputs": [output]}]
    nodes.append({"id": 9, "type": "PreviewImage", "pos": [300, 0], "inputs": [reader]})
    shown = {"inputs": [["7", "image", {"height": 90}], [f"{workflow_id}:7:upload", "upload"]], "outputs": [9]}
    others = {"links_added_by_ue": [1], "ue_links": [{"upstream": 7}], "favoritedWidgets": {"favorites": [{"id": "7"}]}}
    extra = {"linearMode": True, "linearData": shown, "mine": 1, **others}
    content = {"id": workflow_id, "nodes": nodes, "links": [[1, 7, 0, 9, 0, "IMAGE"]], "extra": extra}
    return {**content, "last_node_id": 9, "last_link_id": 1, "groups": [], "config": {}, "version": 0.4}


def test_what_names_nodes_by_id_in_the_stitched_workflow_names_the_same_nodes() -> None:
    """What an app shows is joined; what other packs keep, and make anew, is left out."""
    workflow = ws.stitch_workflows([app(str(uuid.UUID(int=1))), app(str(uuid.UUID(int=2)))])["stitched_workflow"]
    assert [node["type"] for node in workflow["nodes"]] == ["LoadImage", "PreviewImage"] * 2
    first, second, third, fourth = (node["id"] for node in workflow["nodes"])
    inputs = [[i, *rest] for i in (first, third) for rest in (["image", {"height": 90}], ["upload"])]
    assert workflow["extra"] == {"mine": 1, "linearData": {"inputs": inputs, "outputs": [second, fourth]}}


def test_a_subgraph_node_goes_on_showing_the_same_inner_nodes() -> None:
    """Widgets, those that an editor once did not find, and pictures; the id of an inner node was taken here."""
    shown = {"previewExposures": [{"name": "p", "sourceNodeId": "1", "sourcePreviewName": "p"}, {"sourceNodeId": "-1"}]}
    shown |= {"proxyWidgets": [["1", "seed"], ["-1", "text"]]}
    shown |= {"proxyWidgetErrorQuarantine": [{"originalEntry": ["1", "steps"], "reason": "missingSourceWidget"}, {}]}
    workflow = inside()
    workflow["nodes"][0]["properties"] = shown
    stitched = ws.stitch_workflows([app("first"), workflow])["stitched_workflow"]
    new_id = str(stitched["definitions"]["subgraphs"][0]["nodes"][0]["id"])
    assert new_id not in {"1", *(str(node["id"]) for node in stitched["nodes"])}
    properties = stitched["nodes"][-1]["properties"]
    assert properties["proxyWidgets"] == [[new_id, "seed"], ["-1", "text"]]
    assert [entry.get("sourceNodeId") for entry in properties["previewExposures"]] == [new_id, "-1"]
    assert properties["proxyWidgetErrorQuarantine"][0]["originalEntry"] == [new_id, "steps"]


def test_an_app_whose_nodes_are_gone_shows_nothing() -> None:
    workflow = app("mine")
    workflow["extra"]["linearData"] = {"inputs": [["8", "image"], ["other:7:image", "image"], [], "7"], "outputs": [8]}
    assert ws.stitch_workflows([workflow])["stitched_workflow"]["extra"] == {"mine": 1}


BOTH = ["embedded", pytest.param("real", marks=pytest.mark.real_comfyui)]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=BOTH)
async def either_editor(request: pytest.FixtureRequest) -> AsyncIterator[EditorPage]:
    """The editor of the embedded server, of the version that the tests install, and that of the real ComfyUI."""
    connector = await ComfyConnector.create(request.getfixturevalue(f"{request.param}_config"))
    async with open_editor(connector.server_address) as page:
        yield page
    await connector.kill_api()


@on_server
@pytest.mark.parametrize("is_deleted", [True, False], ids=["ports deleted", "ports kept"])
@pytest.mark.parametrize("names", SEQUENCES, ids=lambda names: "-".join(n[:6] for n in names))
async def test_stitched_workflows_open_in_the_editor_as_they_are(
    names: list[str], is_deleted: bool, either_editor: EditorPage
) -> None:
    """Without a complaint; the prompt has the nodes and ports that were told of it, under the ids told."""
    files = [WORKFLOWS / f"{name}.json" for name in names]
    told = ws.stitch_workflows(files, is_deleted, is_deleted)
    workflow = told["stitched_workflow"]
    result = await either_editor.load(workflow)
    # The file of an old editor has nodes without slots, which the editor complains of wherever it finds them.
    assert not result.complaints or "old_frontend" in names
    assert changes(workflow, result.saved) == []
    prompt = without_switched_off(result.prompt, workflow)
    assert set(prompt) == set(told["execution_order"])
    ports = {(p.node_id, p.unique_id, p.mode, *p.tags) for p in pg.prompt_ports(prompt)}
    assert ports == {(p.node_id, p.unique_id, p.mode, *p.tags) for p in wg.discover_ports(workflow)}
    assert await either_editor.add_node() not in all_ids(workflow)
    added = await either_editor.add_inner_nodes()
    definitions = {d["id"]: d for d in wj.subgraph_definitions(workflow)}
    assert definitions.keys() <= added.keys()  # frontend 1.27 keeps those of workflows before
    assert [i for i, d in definitions.items() if added[i] in {n["id"] for n in d["nodes"]}] == []


def without_switched_off(prompt: Mapping[str, Any], workflow: Workflow) -> dict[str, Any]:
    """The prompt without the content of switched-off subgraphs, which frontend 1.27 has in it."""
    on = {str(node["id"]) for node in workflow["nodes"] if not node.get("mode")}
    return {flat_id: entry for flat_id, entry in prompt.items() if flat_id.partition(":")[0] in on}
