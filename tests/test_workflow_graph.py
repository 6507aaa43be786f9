"""workflow_graph: ports, checks, stitching and prompt templates, against conversions that real frontends made."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from discomfort import prompt_graph as pg
from discomfort import workflow_graph as wg
from discomfort import workflow_json as wj
from discomfort import workflow_stitching as ws

WORKFLOWS = Path(__file__).parent / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))


def read(name: str) -> dict[str, Any]:
    return json.loads((WORKFLOWS / f"{name}.json").read_text())


def golden(name: str) -> dict[str, Any]:
    """What frontend 1.58.1 converted the fixture to; of group nodes 1.27.10, whose ids for what is inside are ours."""
    return json.loads((WORKFLOWS / "prompts" / f"{name}.json").read_text())


# ------------------------------------------------------------------------------------------- building small workflows


class Build:
    """Writes a workflow the way the editor does."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.links: list[list[Any]] = []

    def node(self, kind: str, inputs: tuple[str, ...] = ("image",), outputs: int = 1, **more: Any) -> int:
        node_id = len(self.nodes) + 1
        slots = [{"name": name, "type": more.pop("type", "IMAGE"), "link": None} for name in inputs]
        outs = [{"name": f"out{i}", "type": "IMAGE", "links": []} for i in range(outputs)]
        node = {"id": node_id, "type": kind, "pos": [node_id * 250, 0], "size": [200, 80], "mode": 0}
        self.nodes.append({**node, "inputs": slots, "outputs": outs, "widgets_values": [], **more})
        return node_id

    def port(self, unique_id: str, source: int | None = None, **more: Any) -> int:
        node_id = self.node("DiscomfortPort", ("input_data",), type="*", widgets_values=[unique_id, ""], **more)
        self.nodes[-1]["outputs"][0]["type"] = "*"
        if source is not None:
            self.link(source, node_id)
        return node_id

    def reroute(self, source: int) -> int:
        node_id = self.node("Reroute", ("",), type="*")
        self.link(source, node_id)
        return node_id

    def link(self, origin: int, target: int, slot: int = 0, origin_slot: int = 0, kind: str = "IMAGE") -> int:
        link_id = len(self.links) + 1
        self.nodes[origin - 1]["outputs"][origin_slot]["links"].append(link_id)
        self.nodes[target - 1]["inputs"][slot]["link"] = link_id
        self.links.append([link_id, origin, origin_slot, target, slot, kind])
        return link_id

    def done(self) -> dict[str, Any]:
        return {
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": self.nodes,
            "links": self.links,
            "groups": [],
            "config": {},
            "extra": {},
            "version": 0.4,
        }


LINK_KEYS = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")


def as_version_1(workflow: dict[str, Any]) -> dict[str, Any]:
    links = [dict(zip(LINK_KEYS, link, strict=True)) for link in workflow["links"]]
    return {**copy.deepcopy(workflow), "links": links, "version": 1}


def through_port(name: str = "image") -> Build:
    build = Build()
    port = build.port(name)
    build.link(port, build.node("ImageInvert"))
    build.port(name, 2)
    return build


# ------------------------------------------------------------------------------------------------------------ loading


def test_load_returns_a_copy_of_its_own() -> None:
    original = read("loop_image")
    loaded = wj.load_workflow(original)
    loaded["nodes"][0]["widgets_values"][0] = "changed"
    assert original == read("loop_image")


def test_load_reads_a_file_by_str_and_path() -> None:
    path = WORKFLOWS / "loop_image.json"
    assert wj.load_workflow(path) == wj.load_workflow(str(path)) == read("loop_image")


def test_load_accepts_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "bom.json"
    file.write_text(json.dumps(read("loop_image")), encoding="utf-8-sig")
    assert wj.load_workflow(file) == read("loop_image")


def test_load_takes_the_workflow_out_of_a_png(tmp_path: Path) -> None:
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", json.dumps(read("loop_image")))
    Image.new("RGB", (2, 2)).save(tmp_path / "with.png", pnginfo=info)
    Image.new("RGB", (2, 2)).save(tmp_path / "without.png")
    assert wj.load_workflow(tmp_path / "with.png") == read("loop_image")
    with pytest.raises(ValueError, match=r"without\.png.*carries no workflow"):
        wj.load_workflow(tmp_path / "without.png")


def test_a_missing_file_is_named_with_the_current_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        wj.load_workflow("no/such.json")
    assert "no/such.json" in str(error.value).replace("\\\\", "/")
    assert repr(str(Path.cwd())) in str(error.value)
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"mine\.json.*did you mean"):
        wj.load_workflow(tmp_path / "mine")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"nodes": [\n  1,,]}', r"not JSON: .* line 2, column 5"),
        ("", "is empty"),
        ("null", "null"),
        ("[1]", "a JSON list"),
        ("{}", "empty object"),
        ('{"prompt": 1}', r"no 'nodes' list.*prompt"),
        ('{"3": {"class_type": "KSampler", "inputs": {}}}', r"API format.*Workflow > Export"),
    ],
    ids=["syntax", "empty file", "null", "list", "empty object", "other object", "prompt"],
)
def test_content_that_is_no_workflow_is_explained(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        wj.load_workflow(file)
    assert "bad.json" in str(error.value)
    assert wg.check_workflow(file) == ([] if "class_type" in text else [str(error.value)])


def test_other_kinds_of_input_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match="not UTF-8"):
        wj.load_workflow(tmp_path / "binary.json")
    with pytest.raises(ValueError, match="folder"):
        wj.load_workflow(tmp_path)
    with pytest.raises(ValueError, match=r"json\.loads"):
        wj.load_workflow('{"nodes": []}')
    with pytest.raises(TypeError, match="not int"):
        wj.load_workflow(3)  # type: ignore[arg-type]


def test_api_format_is_told_apart() -> None:
    assert pg.is_api_format(golden("loop_image"))
    assert not pg.is_api_format(read("loop_image"))
    assert not pg.is_api_format({"nodes": [], "links": []})
    assert not pg.is_api_format([])
    assert wj.load_workflow(golden("loop_image"), allow_prompt=True) == golden("loop_image")


# ---------------------------------------------------------------------------------------------------------- discovery


@pytest.mark.parametrize("name", NAMES)
def test_nodes_and_links_are_those_of_the_frontends_conversion(name: str) -> None:
    found = wg.discover_port_nodes(read(name))
    prompt = golden(name)
    links = {(c.target_id, c.target_input): (c.origin_id, c.origin_slot) for c in found["links"]}
    theirs = {
        (node_id, key): (value[0], value[1])
        for node_id, node in prompt.items()
        for key, value in node["inputs"].items()
        if isinstance(value, list)
    }
    assert set(found["nodes"]) == set(prompt)
    assert links == theirs


@pytest.mark.parametrize("name", NAMES)
def test_ports_of_workflow_and_prompt_agree(name: str) -> None:
    ours = {(p.node_id, p.unique_id, p.mode, tuple(p.tags)) for p in wg.discover_ports(read(name))}
    assert ours == {(p.node_id, p.unique_id, p.mode, tuple(p.tags)) for p in pg.prompt_ports(golden(name))}
    assert ours == {(p.node_id, p.unique_id, p.mode, tuple(p.tags)) for p in wg.discover_ports(golden(name))}


@pytest.mark.parametrize("name", NAMES)
def test_reading_changes_nothing(name: str) -> None:
    workflow = read(name)
    for function in (wg.discover_ports, wg.discover_port_nodes, wg.check_workflow, wg.node_types):
        function(workflow)
    ws.stitch_workflows([workflow, workflow], delete_input_ports=True, delete_output_ports=True)
    assert workflow == read(name)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "links_as_objects"])
def test_links_as_objects_mean_the_same(name: str) -> None:
    assert wg.discover_ports(as_version_1(read(name))) == wg.discover_ports(read(name))


def test_types_and_tags() -> None:
    ports = {p.node_id: p for p in wg.discover_ports(WORKFLOWS / "modes_and_reroutes.json")}
    assert ports["1"].type == "IMAGE", "through two reroutes and two bypassed nodes"
    assert ports["16"].type == "IMAGE", "from a port that only its other reader gives a type"
    assert ports["16"].tags == ["a", "b", "c"]
    assert ports["13"].unique_id == "named by a primitive"
    amount = next(p for p in wg.discover_ports(read("loop_image")) if p.unique_id == "amount")
    assert amount == ("2", "amount", "INPUT", "FLOAT", "*", "FLOAT", [])
    assert json.loads(json.dumps(amount.to_dict()))["type"] == "FLOAT"


def test_types_are_found_over_borders_reroutes_and_other_ports() -> None:
    """In both directions: from what makes a value, and from what reads it."""
    nested = {p.node_id: p for p in wg.discover_ports(read("group_nodes"))}
    assert {p.type for p in nested.values()} == {"IMAGE"}
    assert (nested["7"].input_type, nested["7"].output_type) == ("*", "IMAGE"), "from inside the group node"
    assert (nested["4:2"].input_type, nested["4:2"].output_type) == ("IMAGE", "*")
    # mask port -> reroute -> [ port -> reroute -> port ] -> reroute -> port: told by the first, or by the last.
    for kind, first, last in (("told before", "MASK", "*"), ("told behind", "*", "MASK")):
        inner = Build()
        inner.port("a")
        inner.reroute(1)
        inner.port("b", 2)
        links = [dict(zip(LINK_KEYS, link, strict=True)) for link in inner.links]
        ends = ([8, -10, 0, 1, 0, "*"], [9, 3, 0, -20, 0, "*"])
        links += [dict(zip(LINK_KEYS, end, strict=True)) for end in ends]
        inner.nodes[0]["inputs"][0]["link"] = 8
        inner.nodes[2]["outputs"][0]["links"] = [9]
        border = {"name": "x", "type": "*"}
        definition = {
            "id": "aaaaaaaa-0000-4000-8000-000000000001", "name": "Two ports", "nodes": inner.nodes, "links": links,
            "inputs": [{**border, "linkIds": [8]}], "outputs": [{**border, "linkIds": [9]}],
        }  # fmt: skip
        root = Build()
        source = root.node("Maker", (), 1) if first != "*" else root.port("in")
        root.nodes[0]["outputs"][0]["type"] = first
        host = root.node(str(definition["id"]), ("x",), 1)
        root.nodes[host - 1]["inputs"][0]["type"] = root.nodes[host - 1]["outputs"][0]["type"] = "*"
        root.link(root.reroute(source), host, kind="*")
        reader = root.node("Reader", ("mask",), 0)
        root.nodes[reader - 1]["inputs"][0]["type"] = last
        root.link(root.reroute(host), reader, kind="*")
        workflow = {**root.done(), "definitions": {"subgraphs": [definition]}}
        for link in workflow["links"]:
            link[5] = "*"
        ports = wg.discover_ports(workflow)
        assert {p.type for p in ports} == {"MASK"}, kind
        assert len(ports) == (2 if first != "*" else 3)


def test_ports_come_before_what_reads_them() -> None:
    build = Build()
    late = build.port("late")
    invert = build.node("ImageInvert")
    first = build.port("first")
    build.link(first, invert)
    build.link(invert, late)
    assert [p.unique_id for p in wg.discover_ports(build.done())] == ["first", "late"]


def test_grouping() -> None:
    found = wg.discover_port_nodes(read("part_use"))
    assert list(found["inputs"]) == ["picture", "inverted"]
    assert list(found["outputs"]) == ["blend", "picture"]
    assert found["passthrus"] == {}
    assert found["unique_id_to_node"] == {"picture": "1", "inverted": "2", "blend": "4"}
    assert found["execution_order"].index("3") > found["execution_order"].index("2")


def test_an_unlinked_port_is_an_input() -> None:
    build = Build()
    build.port("alone")
    assert wg.discover_ports(build.done())[0].mode == "INPUT"


def test_several_readers_narrow_the_type() -> None:
    build = Build()
    port = build.port("x")
    build.link(port, build.node("Any", type="IMAGE,MASK"))
    build.link(port, build.node("Mask", type="MASK"))
    assert wg.discover_ports(build.done())[0].type == "MASK"


def test_a_bypassed_node_hands_on_the_input_that_fits() -> None:
    build = Build()
    build.port("mask")
    build.port("image")
    both = build.node("Two", ("mask", "image"), mode=4)
    build.nodes[both - 1]["inputs"][0]["type"] = "MASK"
    build.link(1, both, 0)
    build.link(2, both, 1)
    build.link(both, build.node("ImageInvert"))
    (link,) = wg.discover_port_nodes(build.done())["links"]
    assert link[:4] == ("2", 0, "4", "image")


def test_a_long_chain_of_reroutes_is_followed() -> None:
    build = Build()
    last = build.port("in")
    for _ in range(3000):
        last = build.reroute(last)
    build.port("out", last)
    assert [p.mode for p in wg.discover_ports(build.done())] == ["INPUT", "OUTPUT"]


def test_reroutes_that_feed_each_other_end() -> None:
    build = Build()
    one = build.node("Reroute", ("",))
    build.link(build.reroute(one), one)
    build.port("x", one)
    assert wg.discover_ports(build.done())[0].mode == "INPUT"


def test_a_promoted_unique_id_is_that_of_the_subgraph_node() -> None:
    inner = Build()
    inner.port("inside")
    slot = {"name": "unique_id", "type": "STRING", "widget": {"name": "unique_id"}, "link": 9}
    inner.nodes[0]["inputs"].append(slot)
    definition = {
        "id": "aaaaaaaa-0000-4000-8000-000000000001",
        "name": "Named outside",
        "nodes": inner.nodes,
        "links": [{"id": 9, "origin_id": -10, "origin_slot": 0, "target_id": 1, "target_slot": 1, "type": "STRING"}],
        "inputs": [{"name": "unique_id", "type": "STRING", "linkIds": [9]}],
        "outputs": [],
    }
    root = Build()
    for value in ("left", "right", None):
        root.node(definition["id"], (), 0, widgets_values=[value])
    workflow = {**root.done(), "definitions": {"subgraphs": [definition]}}
    assert [p.unique_id for p in wg.discover_ports(workflow)] == ["left", "right", "inside"]


# ------------------------------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize("name", NAMES)
def test_the_fixtures_are_valid(name: str) -> None:
    assert wg.check_workflow(WORKFLOWS / f"{name}.json") == []
    assert wg.validate_workflow(WORKFLOWS / f"{name}.json")
    assert wg.check_workflow(golden(name)) == []


def _duplicate_ids(build: Build) -> None:
    build.nodes[1]["id"] = 1


def _link_from_nowhere(build: Build) -> None:
    build.links.append([9, 77, 0, 2, 0, "IMAGE"])


def _unknown_link(build: Build) -> None:
    build.nodes[1]["inputs"][0]["link"] = 55


def _two_outputs(build: Build) -> None:
    build.port("image", 2, title="Second")


def _no_name(build: Build) -> None:
    build.nodes[0]["widgets_values"] = ["  ", ""]


def _cycle(build: Build) -> None:
    build.link(build.node("ImageInvert", ("image", "other")), 4, 1)


def _undefined_subgraph(build: Build) -> None:
    build.node("1b22e000-2222-4222-8222-222222222222")


def _wrong_type(build: Build) -> None:
    build.link(2, build.node("VAEDecode", ("samples",), type="LATENT"))


def _two_types(build: Build) -> None:
    build.link(1, build.node("VAEDecode", ("samples",), type="LATENT"))


def _bad_slot(build: Build) -> None:
    build.links[0][2] = 3


def _no_type(build: Build) -> None:
    del build.nodes[1]["type"]


def _bad_link(build: Build) -> None:
    build.links.append(["x"])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_duplicate_ids, ["node id 1 is used 2 times", "ImageInvert"]),
        (_link_from_nowhere, ["link 9 comes from node 77"]),
        (_unknown_link, ["'image' of ImageInvert #2", "link 55"]),
        (_two_outputs, ["DiscomfortPort #3", "DiscomfortPort #4 'Second'", "'image'"]),
        (_no_name, ["INPUT port DiscomfortPort #1", "no unique_id"]),
        (_cycle, ["cycle", "ImageInvert #4"]),
        (_undefined_subgraph, ["#4", "1b22e000", "not in the file"]),
        (_wrong_type, ["VAEDecode #4", "wants LATENT", "gives it IMAGE"]),
        (_two_types, ["DiscomfortPort #1", "IMAGE, LATENT", "no value fits"]),
        (_bad_slot, ["reads output 3 of node 1"]),
        (_no_type, ["without id or type"]),
        (_bad_link, ["neither of the two known shapes"]),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
@pytest.mark.parametrize("where", ["root", "subgraph"])
def test_each_fault_is_a_sentence(damage: Any, words: list[str], where: str) -> None:
    build = through_port()
    damage(build)
    workflow = build.done()
    if where == "subgraph":
        identity = "aaaaaaaa-0000-4000-8000-000000000001"
        definition = {**workflow, "id": identity, "name": "Inner", "inputs": [], "outputs": []}
        host = Build()
        host.node("PreviewImage", ())
        host.node(identity, (), 0)
        workflow = {**host.done(), "definitions": {"subgraphs": [definition]}}
        words = [word.replace("#", "#2:") if word.startswith("DiscomfortPort") else word for word in words]
        words = [w.replace("INPUT port DiscomfortPort #", "INPUT port DiscomfortPort #2:") for w in words]
        words = [w.replace("ImageInvert #4", "ImageInvert #2:4") for w in words]
    problems = wg.check_workflow(workflow)
    assert any(all(word in problem for word in words) for problem in problems), problems
    assert not wg.validate_workflow(workflow)


def test_two_outputs_of_one_name_stop_the_grouping() -> None:
    build = through_port()
    _two_outputs(build)
    with pytest.raises(ValueError, match=r"DiscomfortPort #3 and DiscomfortPort #4 'Second'.*'image'"):
        wg.discover_port_nodes(build.done())


def test_a_cycle_is_an_error_that_names_it() -> None:
    build = through_port()
    _cycle(build)
    with pytest.raises(nx.NetworkXUnfeasible, match="ImageInvert #4"):
        wg.discover_ports(build.done())


def test_a_subgraph_inside_itself_ends() -> None:
    identity = "aaaaaaaa-0000-4000-8000-000000000001"
    inner, root = Build(), Build()
    inner.node(identity, (), 0)
    root.node(identity, (), 0)
    definition = {"id": identity, "name": "Ouroboros", "nodes": inner.nodes, "links": [], "inputs": [], "outputs": []}
    assert any(
        "contains itself" in p for p in wg.check_workflow({**root.done(), "definitions": {"subgraphs": [definition]}})
    )


def test_what_is_inside_a_group_node_counts_by_its_place_there() -> None:
    build = through_port()
    build.node("workflow>Mine")
    workflow = build.done()
    port = {"type": "DiscomfortPort", "widgets_values": ["saved", ""]}
    workflow["extra"] = {"groupNodes": {"Mine": {"nodes": [{"type": "ImageInvert"}, port], "links": []}}}
    workflow["nodes"][3]["widgets_values"] = ["shown", "x, y"]
    assert wg.check_workflow(workflow) == []
    assert wg.node_types(workflow)["ImageInvert"] == ["2", "4:0"]
    assert ("4:1", "shown", ["x", "y"]) in [(p.node_id, p.unique_id, p.tags) for p in wg.discover_ports(workflow)]
    assert wg.describe_node(workflow, "4") == "workflow>Mine #4"
    assert wg.describe_node(workflow, "4:1") == "DiscomfortPort #4:1 in subgraph 'Mine'"


def _group_workflow(**host: Any) -> dict[str, Any]:
    """A group node "Mine" that holds one port, and a primitive that does nothing."""
    build = Build()
    build.node("workflow>Mine", (), 0, widgets_values=["shown", ""], **host)
    port = {"type": "DiscomfortPort", "widgets_values": ["saved", ""]}
    group = {"nodes": [port, {"type": "PrimitiveNode"}], "links": []}
    return {**build.done(), "extra": {"groupNodes": {"Mine": group}}}


def test_faults_of_group_nodes() -> None:
    assert wg.check_workflow(_group_workflow()) == []
    (problem,) = wg.check_workflow(_group_workflow(mode=4))
    assert "workflow>Mine #1 is bypassed, but frontends run its content" in problem
    driven = _group_workflow()
    group = driven["extra"]["groupNodes"]["Mine"]
    widget = {"name": "unique_id", "type": "STRING", "widget": {"name": "unique_id"}}
    group["nodes"][0]["inputs"] = [{"name": "input_data", "type": "*"}, widget]
    group["nodes"][1]["outputs"] = [{"name": "STRING", "type": "STRING"}]
    group["links"] = [[1, 0, 0, 1, 7, "STRING"]]
    (problem,) = wg.check_workflow(driven)
    assert "workflow>Mine #1 a primitive names a port" in problem


def test_a_group_node_whose_values_are_ambiguous_is_not_stitched() -> None:
    workflow = _group_workflow()
    scale = {"type": "ImageScaleBy", "widgets_values": ["area", 2.0]}
    scale["inputs"] = [{"name": "scale_by", "type": "FLOAT", "widget": {"name": "scale_by"}}]
    workflow["extra"]["groupNodes"]["Mine"]["nodes"].append(scale)
    with pytest.raises(ValueError, match=r"In workflow 1: Group node #1 'Mine'.*Convert it to a subgraph"):
        ws.stitch_workflows([workflow])
    assert [p.unique_id for p in wg.discover_ports(workflow)] == ["shown"]


def test_faults_of_a_prompt() -> None:
    prompt = {"1": {"class_type": "ImageInvert", "inputs": {"image": ["9", 0]}}, "2": {"inputs": {}}}
    problems = wg.check_workflow(prompt)
    assert any("'image' of ImageInvert #1 reads node 9" in p for p in problems)
    assert any("#2 of the prompt has no class_type" in p for p in problems)


# ----------------------------------------------------------------------------------------------- meaning, symbolically


def evaluate(workflow: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
    """Runs a workflow on symbols: every node's value is (type, its widgets, its input values). Returns the outputs."""
    found = wg.discover_port_nodes(workflow)
    sources = {(c.target_id, c.target_input): c.origin_id for c in found["links"]}
    modes = {p.node_id: p for p in wg.discover_ports(workflow)}
    values: dict[str, Any] = {}
    outputs = {}
    for node_id in found["execution_order"]:
        node = found["nodes"][node_id]
        inputs = [values.get(sources.get((node_id, slot["name"]))) for slot in node["inputs"]]
        port = modes.get(node_id)
        if port is None:
            values[node_id] = (node["type"], str(node.get("widgets_values")), *inputs)
        elif port.mode == "INPUT":
            values[node_id] = context.get(port.unique_id)
        else:
            values[node_id] = inputs[0]
            if port.mode == "OUTPUT":
                outputs[port.unique_id] = inputs[0]
    return outputs


def in_sequence(parts: list[dict[str, Any]], context: dict[str, Any]) -> dict[str, Any]:
    written: dict[str, Any] = {}
    for part in parts:
        written.update(evaluate(part, {**context, **written}))
    return written


VARIANTS = [(False, False), (True, False), (False, True), (True, True)]


def random_parts(rng: random.Random) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A random DAG cut into partial workflows at random, with ports on the cut edges; and the same DAG whole."""
    size, pieces = rng.randint(3, 14), rng.randint(1, 4)
    parents = [rng.sample(range(i), k=min(i, rng.randint(0, 2))) for i in range(size)]
    home = sorted(rng.randrange(pieces) for _ in range(size))
    read_later = {p for i in range(size) for p in parents[i] if home[p] != home[i]}
    parts = []
    for piece in [*range(pieces), None]:
        build = Build()
        mine = [i for i in range(size) if piece is None or home[i] == piece]
        node_of: dict[int, int] = {}
        if piece is None or piece == 0:
            build.port("start")
        for i in mine:
            for p in parents[i]:
                if p not in node_of:
                    node_of[p] = build.port(f"v{p}")
            inputs = tuple(f"in{k}" for k in range(max(1, len(parents[i]))))
            node_of[i] = build.node("Op", inputs, widgets_values=[i])
            for slot, p in enumerate(parents[i]):
                hop = build.reroute(node_of[p]) if rng.random() < 0.2 and piece is not None else node_of[p]
                build.link(hop, node_of[i], slot)
            if piece is not None and i in read_later:
                build.port(f"v{i}", node_of[i])
        if piece is None or piece == home[-1]:
            build.port("result", node_of[size - 1])
        parts.append(build.done())
    return [p for p in parts[:-1] if p["nodes"]], parts[-1]


@pytest.mark.parametrize("seed", range(60))
def test_whole_sequence_and_stitched_compute_the_same(seed: int) -> None:
    rng = random.Random(seed)
    parts, whole = random_parts(rng)
    expected = evaluate(whole, {"start": "s"})["result"]
    assert in_sequence(parts, {"start": "s"})["result"] == expected
    sources = [as_version_1(p) if rng.random() < 0.5 else p for p in parts]
    before = copy.deepcopy(sources)
    for delete_in, delete_out in VARIANTS:
        stitched = ws.stitch_workflows(sources, delete_in, delete_out)
        workflow = stitched["stitched_workflow"]
        assert wg.check_workflow(workflow) == []
        assert evaluate(workflow, {"start": "s"})["result"] == expected
        assert_consistent(workflow)
    assert sources == before


def assert_consistent(workflow: dict[str, Any]) -> None:
    """Ids are unique integers up to last_node_id and last_link_id; both ends of every link know it."""
    nodes = {n["id"]: n for n in workflow["nodes"]}
    links = {link[0]: link for link in workflow["links"]}
    assert len(nodes) == len(workflow["nodes"])
    assert len(links) == len(workflow["links"])
    assert max(nodes, default=0) <= workflow["last_node_id"]
    assert max(links, default=0) <= workflow["last_link_id"]
    for link_id, origin, slot, target, target_slot, _ in workflow["links"]:
        assert nodes[target]["inputs"][target_slot]["link"] == link_id
        if nodes[origin].get("outputs"):
            assert link_id in nodes[origin]["outputs"][slot]["links"]
    for node in workflow["nodes"]:
        for slot in node.get("outputs") or []:
            assert set(slot["links"]) <= set(links)


# ---------------------------------------------------------------------------------------------------------- stitching

SEQUENCES = [
    ["part_make", "part_use"],
    ["loop_image", "nested_subgraphs", "part_make", "old_frontend", "part_use"],
    ["ports_only_in_subgraph"] * 3,
    ["nested_subgraphs", "nested_subgraphs", "ports_only_in_subgraph"],
    ["modes_and_reroutes", "links_as_objects", "loop_image"],
]


@pytest.mark.parametrize(("delete_in", "delete_out"), VARIANTS)
@pytest.mark.parametrize("names", SEQUENCES, ids=lambda names: "-".join(n[:6] for n in names))
def test_stitched_fixtures_compute_what_the_sequence_does(names: list[str], delete_in: bool, delete_out: bool) -> None:
    parts = [read(name) for name in names]
    context = {"image": "i", "amount": "a", "offset": "o", "picture": "p", "start": "s"}
    stitched = ws.stitch_workflows(parts, delete_in, delete_out)
    workflow = stitched["stitched_workflow"]
    assert wg.check_workflow(workflow) == []
    assert_consistent(workflow)
    results = evaluate(workflow, context)
    expected = in_sequence(parts, context)
    assert results
    assert results == {name: expected[name] for name in results}
    last_written = {p.unique_id for p in wg.discover_ports(parts[-1]) if p.mode == "OUTPUT"}
    assert last_written <= set(results) == set(stitched["outputs"])


def test_an_output_port_is_wired_to_the_input_port_after_it() -> None:
    stitched = ws.stitch_workflows([read("part_make"), read("part_use")])
    workflow = stitched["stitched_workflow"]
    types = {n["id"]: n["widgets_values"] for n in workflow["nodes"] if n["type"] == "DiscomfortPort"}
    joined = [
        (types[link[1]][0], types[link[3]][0]) for link in workflow["links"] if link[1] in types and link[3] in types
    ]
    assert sorted(joined) == [("inverted", "inverted"), ("picture", "picture")]
    assert list(stitched["inputs"]) == ["picture"]
    assert set(stitched["outputs"]) == {"blend", "picture"}
    assert stitched["execution_order"] == wg.discover_port_nodes(workflow)["execution_order"]


@pytest.mark.parametrize(("delete_in", "delete_out", "left"), [(0, 0, 7), (1, 0, 5), (0, 1, 5), (1, 1, 3)])
def test_joined_ports_go_when_asked(delete_in: int, delete_out: int, left: int) -> None:
    stitched = ws.stitch_workflows([read("part_make"), read("part_use")], bool(delete_in), bool(delete_out))
    ports = [n for n in stitched["stitched_workflow"]["nodes"] if n["type"] == "DiscomfortPort"]
    assert len(ports) == left


def test_an_output_overwritten_unread_is_left_out() -> None:
    stitched = ws.stitch_workflows([read("loop_image"), through_port("other").done(), _only_writes("image")])
    assert set(stitched["outputs"]) == {"other", "image"}
    assert wg.check_workflow(stitched["stitched_workflow"]) == []


def _only_writes(name: str) -> dict[str, Any]:
    build = Build()
    build.port(name, build.node("EmptyImage", ()))
    return build.done()


def test_parts_stand_side_by_side_with_their_groups() -> None:
    parts = [read("loop_image"), read("old_frontend"), read("loop_image")]
    workflow = ws.stitch_workflows(parts)["stitched_workflow"]
    spans = []
    start = 0
    for part in parts:
        mine = workflow["nodes"][start : start + len(part["nodes"])]
        start += len(part["nodes"])
        spans.append((min(n["pos"][0] for n in mine), max(n["pos"][0] + 200 for n in mine)))
        assert min(n["pos"][1] for n in mine) >= -100
    assert spans[0][1] < spans[1][0] <= spans[1][1] < spans[2][0]
    assert workflow["nodes"][0]["pos"] == parts[0]["nodes"][0]["pos"]
    boxes = [g["bounding"] for g in workflow["groups"]]
    assert [g["id"] for g in workflow["groups"]] == [1, 2]
    assert boxes[1][0] - boxes[0][0] == workflow["nodes"][9]["pos"][0] - workflow["nodes"][0]["pos"][0]


def test_native_reroutes_follow_their_links() -> None:
    workflow = ws.stitch_workflows([read("loop_image"), read("links_as_objects")])["stitched_workflow"]
    (reroute,) = workflow["extra"]["reroutes"]
    (extension,) = workflow["extra"]["linkExtensions"]
    assert reroute["linkIds"] == [extension["id"]]
    assert extension["parentId"] == reroute["id"]
    assert next(link for link in workflow["links"] if link[0] == extension["id"])[5] == "IMAGE"
    assert reroute["pos"][0] > 1000, "moved with its workflow"


def test_equal_definitions_are_shared_and_others_kept_apart() -> None:
    one, two = read("nested_subgraphs"), read("nested_subgraphs")
    same = ws.stitch_workflows([one, two])["stitched_workflow"]
    assert len(same["definitions"]["subgraphs"]) == 2
    inner = next(d for d in two["definitions"]["subgraphs"] if d["name"] == "Inner")
    inner["nodes"][0]["type"] = "ImageBlur"
    third = copy.deepcopy(two)
    apart = ws.stitch_workflows([one, two, third])["stitched_workflow"]
    definitions = {d["id"]: d for d in apart["definitions"]["subgraphs"]}
    assert len(definitions) == 4, "both that changed and the one that contains it; the third workflow shares them"
    ids = [n["id"] for d in definitions.values() for n in d["nodes"]] + [n["id"] for n in apart["nodes"]]
    assert len(ids) == len(set(ids))
    context = {"image": "i", "offset": "o"}
    assert evaluate(apart, context) == in_sequence([one, two, third], context)


def test_stitching_is_reproducible() -> None:
    names = ["nested_subgraphs", "ports_only_in_subgraph", "loop_image"]
    first, second = (ws.stitch_workflows([read(n) for n in names]) for _ in range(2))
    assert first == second


def test_a_type_clash_names_both_sides(tmp_path: Path) -> None:
    file = tmp_path / "latent.json"
    build = Build()
    build.link(build.port("image"), build.node("VAEDecode", ("samples",), type="LATENT"), kind="LATENT")
    file.write_text(json.dumps(build.done()))
    with pytest.raises(
        ValueError, match=r"'image'.*#5 of workflow 1 gives IMAGE.*#1 of workflow 2 \(latent\.json\).*LATENT"
    ):
        ws.stitch_workflows([read("loop_image"), file])


def test_what_cannot_be_stitched() -> None:
    cyclic = through_port()
    _cycle(cyclic)
    with pytest.raises(nx.NetworkXUnfeasible, match=r"In workflow 2: .*cycle"):
        ws.stitch_workflows([read("loop_image"), cyclic.done()])
    double = through_port()
    _two_outputs(double)
    with pytest.raises(ValueError, match=r"In workflow 1: .*same unique_id"):
        ws.stitch_workflows([double.done()])
    with pytest.raises(ValueError, match="API format"):
        ws.stitch_workflows([golden("loop_image")])
    with pytest.raises(ValueError, match="at least one"):
        ws.stitch_workflows([])
    with pytest.raises(TypeError, match="a list"):
        ws.stitch_workflows(WORKFLOWS / "loop_image.json")  # type: ignore[arg-type]


def test_group_nodes_with_one_name_and_other_content_are_kept_apart() -> None:
    parts = []
    for kind in ("ImageInvert", "ImageBlur"):
        build = Build()
        build.node("workflow>Mine", ())
        parts.append({**build.done(), "extra": {"groupNodes": {"Mine": {"nodes": [{"type": kind}], "links": []}}}})
    workflow = ws.stitch_workflows(parts)["stitched_workflow"]
    assert [n["type"] for n in workflow["nodes"]] == ["workflow>Mine", "workflow>Mine (2)"]
    assert wg.node_types(workflow) == {"ImageInvert": ["1:0"], "ImageBlur": ["2:0"]}


# ----------------------------------------------------------------------------------------------------------- reroutes


def random_with_reroutes(rng: random.Random) -> dict[str, Any]:
    build = Build()
    made = [build.node("Op", ())]
    for _ in range(rng.randint(3, 25)):
        source = rng.choice(made)
        if rng.random() < 0.5:
            made.append(build.reroute(source) if rng.random() < 0.95 else build.node("Reroute", ("",)))
        else:
            made.append(build.node("Op", ("a", "b")))
            build.link(source, made[-1], rng.randint(0, 1))
    return build.done()


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("version", [0.4, 1])
def test_without_reroutes_everything_is_fed_by_the_same(seed: int, version: float) -> None:
    workflow = random_with_reroutes(random.Random(seed))
    workflow = as_version_1(workflow) if version == 1 else workflow
    before = copy.deepcopy(workflow)
    nodes, links, id_map = ws.remove_reroute_nodes(workflow["nodes"], workflow["links"])
    assert workflow == before
    assert not [n for n in nodes if n["type"] == "Reroute"]
    result = {**workflow, "nodes": nodes, "links": links}
    assert _feeds(result) == _feeds(workflow)
    assert [p for p in wg.check_workflow(result) if "port" not in p] == []
    ids = {link["id"] if isinstance(link, dict) else link[0] for link in links}
    assert set(id_map.values()) <= ids
    assert {i for i in ids if i in id_map} == ids
    assert all(isinstance(link, dict) == (version == 1) for link in links)


def _feeds(workflow: dict[str, Any]) -> set[tuple[str, int, str, str]]:
    return {c[:4] for c in wg.discover_port_nodes(workflow)["links"]}


def test_a_chain_of_reroutes_maps_to_the_link_that_is_left() -> None:
    build = Build()
    source = build.node("Op", ())
    chain = build.reroute(build.reroute(source))
    build.link(chain, build.node("Op"))
    nodes, links, id_map = ws.remove_reroute_nodes(build.nodes, build.links)
    assert links == [[3, 1, 0, 4, 0, "IMAGE"]]
    assert id_map == {1: 3, 2: 3, 3: 3}
    assert nodes[0]["outputs"][0]["links"] == [3]


# ------------------------------------------------------------------------------------------------------------ prompts


def prompt_with_ports() -> dict[str, Any]:
    return {
        "1": {
            "class_type": "DiscomfortPort",
            "inputs": {"unique_id": "image", "tags": "a, b"},
            "_meta": {"title": "In"},
        },
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "DiscomfortPort", "inputs": {"unique_id": "half", "tags": "", "input_data": ["2", 0]}},
        "4": {"class_type": "DiscomfortPort", "inputs": {"unique_id": "image", "tags": "", "input_data": ["3", 0]}},
        "5": {"class_type": "DiscomfortPort", "inputs": {"unique_id": "image"}},
    }


def test_a_template_loads_inputs_and_tells_outputs_their_mode() -> None:
    prompt = prompt_with_ports()
    template = pg.PromptTemplate(prompt)
    filled = template.fill({"image": "abc", "unused": "x"})
    assert filled["1"] == {
        "class_type": "DiscomfortDataLoader",
        "inputs": {"unique_id": "image", "content": "abc"},
        "_meta": {"title": "In"},
    }
    assert filled["5"]["class_type"] == "DiscomfortDataLoader", "several INPUT ports of one name all get the value"
    assert filled["2"] == prompt["2"]
    assert filled["3"]["inputs"]["mode"] == "PASSTHRU"
    assert filled["4"]["inputs"] == {"unique_id": "image", "tags": "", "input_data": ["3", 0], "mode": "OUTPUT"}
    assert list(template.inputs) == ["image"]
    assert {p.node_id for p in template.inputs["image"]} == {"1", "5"}
    assert template.outputs["image"].node_id == "4"
    assert template.ports[0] == ("1", "image", "INPUT", ["a", "b"])


def test_filling_twice_leaves_prompt_and_earlier_result_alone() -> None:
    prompt = prompt_with_ports()
    template = pg.PromptTemplate(prompt)
    first = template.fill({"image": "one"})
    second = template.fill({"image": "two"})
    assert prompt == prompt_with_ports()
    assert first["1"]["inputs"]["content"] == "one"
    assert second["1"]["inputs"]["content"] == "two"
    assert pg.inject_loaders(prompt, {"image": "one"}) == first


def test_an_input_without_content_is_named() -> None:
    with pytest.raises(KeyError, match=r"'image' \(DiscomfortPort #1 'In' and DiscomfortPort #5\).*for: mask"):
        pg.inject_loaders(prompt_with_ports(), {"mask": "x"})


@pytest.mark.parametrize(
    ("unique_id", "message"),
    [("", "no unique_id"), (None, "no unique_id"), (5, "no unique_id"), (["2", 0], "comes from node 2")],
)
def test_a_unique_id_must_be_a_text(unique_id: Any, message: str) -> None:
    prompt = prompt_with_ports()
    prompt["4"]["inputs"]["unique_id"] = unique_id
    with pytest.raises(ValueError, match=rf"DiscomfortPort #4.*{message}"):
        pg.prompt_ports(prompt)


def test_two_output_ports_of_one_name_in_a_prompt() -> None:
    prompt = prompt_with_ports()
    second = {"unique_id": "image", "input_data": ["2", 0]}
    prompt["9"] = {"class_type": "DiscomfortPort", "inputs": second, "_meta": {"title": "Twin"}}
    with pytest.raises(ValueError, match="DiscomfortPort #4 and DiscomfortPort #9 'Twin'"):
        pg.PromptTemplate(prompt)


# -------------------------------------------------------------------------------------------------------------- words


def test_nodes_in_words() -> None:
    nested = read("nested_subgraphs")
    assert wg.describe_node(read("loop_image"), 3) == "ImageScaleBy #3 'By the amount'"
    assert wg.describe_node(nested, "2:31:21") == "DiscomfortPort #2:31:21 in subgraph 'Inner'"
    assert wg.describe_node(nested, "2") == "subgraph #2"
    assert wg.describe_node(nested, "2:99") == "node #2:99 (not in the workflow)"
    assert wg.describe_node(golden("loop_image"), "3") == "ImageScaleBy #3 'By the amount'"
    assert wg.describe_node(golden("loop_image"), "99") == "node #99 (not in the prompt)"


def test_types_that_run() -> None:
    types = wg.node_types(read("modes_and_reroutes"))
    assert "Reroute" not in types
    assert "Note" not in types
    assert "ImageScaleBy" not in types, "only a bypassed one is there"
    assert types["ImageInvert"] == ["6"]
    assert wg.node_types(read("nested_subgraphs"))["ImageInvert"] == ["2:31:20"]
    assert wg.node_types(golden("loop_image"))["ImageInvert"] == ["4"]


def test_the_pack_of_a_node() -> None:
    build = Build()
    build.node("A", properties={"cnr_id": "comfyui-kjnodes", "ver": "1.0.6"})
    build.node("B", properties={"aux_id": "someone/pack"})
    build.node("C")
    workflow = build.done()
    packs = [wg.known_pack(workflow, i) for i in (1, 2, 3, 4)]
    assert packs == ["comfyui-kjnodes 1.0.6", "someone/pack", None, None]


@pytest.fixture(autouse=True)
def _no_output(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert capfd.readouterr().out == "", "the library never prints"


# ------------------------------------------------------------------------------------------------------------- damage

JUNK = [None, "x", 7, -3, [], {}, [1, 2], {"a": 1}, True, 2.5]


def _paths(value: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield (*prefix, key)
        yield from _paths(child, (*prefix, key))


@pytest.mark.parametrize("name", NAMES)
def test_damaged_workflows_give_sentences_not_tracebacks(name: str) -> None:
    paths = list(_paths(read(name)))
    for seed in range(60):
        rng = random.Random(seed)
        workflow = read(name)
        for path in rng.sample(paths, 2):
            holder: Any = workflow
            for key in path[:-1]:
                holder = holder[key] if isinstance(holder, (dict, list)) and _has(holder, key) else {}
            if isinstance(holder, (dict, list)) and _has(holder, path[-1]):
                holder[path[-1]] = rng.choice(JUNK)
        for function in (wg.check_workflow, wg.node_types):
            function(workflow)
        for raising in (wg.discover_ports, wg.discover_port_nodes, lambda w: ws.stitch_workflows([w, w], True, True)):
            with contextlib.suppress(ValueError, nx.NetworkXUnfeasible):
                raising(workflow)


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else isinstance(key, int) and key < len(holder)
