"""seeds: what becomes of seeds from execution to execution, as pure data. Against the editor itself: test_runs.py."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from discomfort import seeds

LARGEST = 0xFFFFFFFFFFFFFFFF
DEFINITIONS: dict[str, Any] = {
    "Sampler": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "seed": ["INT", {"default": 0, "min": 0, "max": LARGEST, "control_after_generate": True}],
                "steps": ["INT", {"min": 1, "max": 100}],
                "behavior": [["random", "fixed"]],
            },
            "optional": {"noise_seed": ["INT", {"min": 0, "max": 9}]},
        }
    },
    "Quiet": {"input": {"required": {"seed": ["INT", {"control_after_generate": False}]}}},
    "Style": {
        "input": {"required": {"style": ["COMBO", {"options": ["a", "b", "c"], "control_after_generate": True}]}}
    },
    "PrimitiveInt": {
        "input": {"required": {"value": ["INT", {"min": -(2**63), "max": 2**63, "control_after_generate": True}]}}
    },
    "Resize": {"input": {"required": {"width": ["INT", {"min": 1, "max": 64}], "seed": ["INT", {}]}}},
}


def workflow_node(node_id: int, kind: str, values: Any, *inputs: tuple[str, int | None]) -> dict[str, Any]:
    slots = [{"name": name, "type": "INT", "link": link, "widget": {"name": name}} for name, link in inputs]
    return {"id": node_id, "type": kind, "inputs": slots, "outputs": [], "widgets_values": values}


def workflow(*nodes: dict[str, Any], links: Any = (), **more: Any) -> dict[str, Any]:
    return {"nodes": list(nodes), "links": list(links), "version": 0.4, **more}


def sampler(seed: int = 5, noise_seed: int = 7) -> dict[str, Any]:
    return {
        "class_type": "Sampler",
        "inputs": {"model": ["9", 0], "seed": seed, "steps": 4, "behavior": "fixed", "noise_seed": noise_seed},
    }


def values(widgets: Any, policy: str, count: int, master: int = 1) -> list[Any]:
    return [seeds.seed_values(widgets, policy, master, "w", n) for n in range(count)]


def only_values(widgets: Any, policy: str, count: int, master: int = 1) -> list[Any]:
    """The values of the one controlled widget there is."""
    return [next(iter(next(iter(v.values())).values())) for v in values(widgets, policy, count, master)]


# --------------------------------------------------------------------------------------------------- what is controlled


def test_the_modes_are_found_among_the_saved_values() -> None:
    """Though another widget's value looks like a mode."""
    saved = workflow(workflow_node(1, "Sampler", [5, "increment", 4, "fixed", 7, "decrement"]))
    widgets = seeds.find_controlled_widgets({"1": sampler()}, DEFINITIONS, saved)
    assert [(w.targets, w.saved, w.mode, w.is_seed) for w in widgets] == [
        ((("1", "seed"),), 5, "increment", True),
        ((("1", "noise_seed"),), 7, "decrement", True),
    ]
    assert [w.place for w in widgets] == [(None, "1", 0), (None, "1", 4)]
    assert widgets[0].maximum == LARGEST


@pytest.mark.parametrize(
    ("saved", "mode"),
    [
        pytest.param([5, 4, "fixed", 7], "fixed", id="a file from before there were such widgets"),
        pytest.param(None, "randomize", id="no values at all: the editor takes its defaults"),
        pytest.param({"seed": 5}, "fixed", id="values by name"),
        pytest.param(
            ["more", 5, "decrement", 4, "random", 7, "fixed", "x", "y"], "decrement", id="a pack adds widgets"
        ),
    ],
)
def test_files_that_say_less(saved: Any, mode: str) -> None:
    widgets = seeds.find_controlled_widgets({"1": sampler()}, DEFINITIONS, workflow(workflow_node(1, "Sampler", saved)))
    assert widgets[0].mode == mode


def test_a_prompt_alone_says_of_nothing_that_it_varies() -> None:
    widgets = seeds.find_controlled_widgets({"1": sampler()}, DEFINITIONS)
    assert [(w.mode, w.is_seed) for w in widgets] == [("fixed", True), ("fixed", True)]
    assert values(widgets, "as_saved", 2) == [{"1": {"seed": 5, "noise_seed": 7}}] * 2


def test_what_is_no_seed() -> None:
    """A definition that says no, a link, a node that the server does not have, a damaged entry."""
    prompt = {
        "1": {"class_type": "Quiet", "inputs": {"seed": 1}},
        "2": {**sampler(), "inputs": {"seed": ["7", 0], "noise_seed": True}},
        "3": {"class_type": "Unknown", "inputs": {"seed": 1}},
        "4": "nothing",
        "5": {"class_type": "Sampler"},
    }
    assert seeds.find_controlled_widgets(prompt, DEFINITIONS) == []


@pytest.mark.parametrize(
    ("reader", "mode", "is_seed"),
    [
        pytest.param({"class_type": "Resize", "inputs": {"width": ["1", 0], "seed": 1}}, "fixed", False, id="a width"),
        pytest.param(
            {"class_type": "Resize", "inputs": {"width": ["1", 0], "seed": 1}}, "increment", True, id="that grows"
        ),
        pytest.param({"class_type": "Resize", "inputs": {"width": 8, "seed": ["1", 0]}}, "fixed", True, id="a seed"),
        pytest.param({"class_type": "DiscomfortPort", "inputs": {"input_data": ["1", 0]}}, "fixed", True, id="a port"),
    ],
)
def test_a_number_node_is_a_seed_by_its_use(reader: dict[str, Any], mode: str, is_seed: bool) -> None:
    """Nobody who asks for random seeds wants random widths."""
    prompt = {"1": {"class_type": "PrimitiveInt", "inputs": {"value": 64}}, "2": reader}
    saved = workflow(workflow_node(1, "PrimitiveInt", [64, mode]))
    (widget, *_) = seeds.find_controlled_widgets(prompt, DEFINITIONS, saved)
    assert widget.targets == (("1", "value"),)
    assert widget.is_seed == is_seed
    assert (only_values([widget], "randomize", 2)[0] == 64) == (not is_seed)


def test_a_primitive_drives_all_its_readers_alike() -> None:
    """Also across a reroute; and its mode counts, not theirs."""
    saved = workflow(
        workflow_node(1, "Sampler", [0, "randomize", 4, "fixed", 7, "fixed"], ("seed", 11)),
        workflow_node(2, "Sampler", [0, "fixed", 4, "fixed", 7, "fixed"], ("seed", 12)),
        workflow_node(3, "PrimitiveNode", [5, "increment"]),
        {"id": 4, "type": "Reroute", "inputs": [{"name": "", "link": 13}], "outputs": [{}]},
        links=[[11, 3, 0, 1, 0, "INT"], [12, 4, 0, 2, 0, "INT"], [13, 3, 0, 4, 0, "INT"]],
    )
    prompt = {"1": sampler(), "2": sampler()}
    first = seeds.find_controlled_widgets(prompt, DEFINITIONS, saved)[0]
    assert first.targets == (("1", "seed"), ("2", "seed"))
    assert [v["1"]["seed"] for v in values([first], "as_saved", 3)] == [5, 6, 7]
    drawn = values([first], "randomize", 2)
    assert drawn[0]["1"]["seed"] == drawn[0]["2"]["seed"] != drawn[1]["1"]["seed"]


def test_a_primitive_that_does_not_reach_the_widget_has_no_say() -> None:
    """As frontend 1.58 has it past a reroute: the prompt has the widget's own value then."""
    saved = workflow(
        workflow_node(1, "Sampler", [5, "randomize", 4, "fixed", 7, "fixed"], ("seed", 12)),
        workflow_node(3, "PrimitiveNode", [77, "increment"]),
        {"id": 4, "type": "Reroute", "inputs": [{"name": "", "link": 13}], "outputs": [{}]},
        links=[[12, 4, 0, 1, 0, "INT"], [13, 3, 0, 4, 0, "INT"]],
    )
    widget = seeds.find_controlled_widgets({"1": sampler()}, DEFINITIONS, saved)[0]
    assert only_values([widget], "as_saved", 3) == [5, 5, 5]


def test_a_primitive_of_a_combo_walks_through_its_choices() -> None:
    """As saved; no policy about seeds concerns it."""
    style = {"1": {"class_type": "Style", "inputs": {"style": "b"}}}
    node = workflow_node(1, "Style", ["b", "fixed"], ("style", 11))
    for saved, expected in (
        (["b", "increment"], ["b", "c", "c", "c"]),
        (["b", "increment-wrap", ""], ["b", "c", "a", "b"]),
        (["b", "decrement"], ["b", "a", "a", "a"]),
        (["b", "increment-wrap", "/[bc]/"], ["b", "c", "b", "c"]),
        (["b", "increment-wrap", "B"], ["b", "b", "b", "b"]),
        (["b", "increment", "/(/"], ["b", "c", "c", "c"]),
        (["b"], ["b", "b", "b", "b"]),
    ):
        flow = workflow(node, workflow_node(2, "PrimitiveNode", saved), links=[[11, 2, 0, 1, 0, "COMBO"]])
        (widget,) = seeds.find_controlled_widgets(style, DEFINITIONS, flow)
        assert only_values([widget], "as_saved", 4) == expected, saved
        assert only_values([widget], "randomize", 4) == expected
        assert only_values([widget], "fixed", 4) == ["b"] * 4


def subgraph(inner: dict[str, Any], links: Any = (), inputs: Any = ()) -> dict[str, Any]:
    return {
        "id": "11111111-2222-3333-4444-555555555555",
        "name": "Inner",
        "nodes": [inner],
        "links": list(links),
        "inputs": list(inputs),
        "outputs": [],
    }


def test_a_seed_in_a_subgraph_goes_as_saved_there() -> None:
    inner = workflow_node(1, "Sampler", [5, "increment", 4, "fixed", 7, "fixed"])
    host = workflow_node(8, "11111111-2222-3333-4444-555555555555", [])
    saved = workflow(host, definitions={"subgraphs": [subgraph(inner)]})
    widgets = seeds.find_controlled_widgets({"8:1": sampler()}, DEFINITIONS, saved)
    assert [v["8:1"]["seed"] for v in values(widgets, "as_saved", 2)] == [5, 6]
    changed = seeds.workflow_with_values(saved, widgets, values(widgets, "as_saved", 3)[2])
    assert changed["definitions"]["subgraphs"][0]["nodes"][0]["widgets_values"][0] == 7
    # Twice used, one file cannot say what both did.
    twice = workflow(host, {**host, "id": 9}, definitions={"subgraphs": [subgraph(inner)]})
    widgets = seeds.find_controlled_widgets({"8:1": sampler(), "9:1": sampler(6)}, DEFINITIONS, twice)
    assert all(widget.place is None for widget in widgets)
    assert [v["9:1"]["seed"] for v in values(widgets, "as_saved", 2)] == [6, 7]


def test_a_seed_that_a_subgraph_shows_is_left_alone_as_by_the_editor() -> None:
    """But it is a seed, and policies concern it."""
    inner = workflow_node(1, "Sampler", [0, "randomize", 4, "fixed", 7, "fixed"], ("seed", 3))
    link = {"id": 3, "origin_id": -10, "origin_slot": 0, "target_id": 1, "target_slot": 0, "type": "INT"}
    shown = {"id": "x", "name": "seed", "type": "INT", "linkIds": [3]}
    host = workflow_node(8, "11111111-2222-3333-4444-555555555555", [5])
    saved = workflow(host, definitions={"subgraphs": [subgraph(inner, [link], [shown])]})
    widget = seeds.find_controlled_widgets({"8:1": sampler()}, DEFINITIONS, saved)[0]
    assert only_values([widget], "as_saved", 3) == [5, 5, 5]
    assert only_values([widget], "increment", 3) == [5, 6, 7]


# -------------------------------------------------------------------------------------------------------------- values


def widget(**parts: Any) -> seeds.ControlledWidget:
    return seeds.ControlledWidget(
        **{"targets": (("1", "seed"),), "saved": 5, "mode": "fixed", "is_seed": True, **parts}
    )


@pytest.mark.parametrize(
    ("parts", "policy", "expected"),
    [
        ({}, "increment", [5, 6, 7]),
        ({"step": 10}, "increment", [5, 15, 25]),
        ({"maximum": 6}, "increment", [5, 6, 0]),
        ({"saved": LARGEST - 1, "maximum": LARGEST}, "increment", [LARGEST - 1, LARGEST, 0]),
        ({"mode": "decrement", "minimum": 4, "maximum": 9}, "as_saved", [5, 4, 9]),
        ({"mode": "increment", "is_seed": False, "maximum": 6}, "as_saved", [5, 6, 6]),
        ({"mode": "increment", "is_seed": False}, "randomize", [5, 6, 7]),
        (
            {"mode": "increment", "is_seed": False, "saved": 0.5, "step": 0.1, "maximum": 0.65},
            "as_saved",
            [0.5, 0.6, 0.65],
        ),
        ({"mode": "randomize"}, "fixed", [5, 5, 5]),
        ({"mode": "increment"}, "as_saved", [5, 6, 7]),
        ({"saved": "text", "mode": "increment"}, "as_saved", ["text"] * 3),
    ],
)
def test_how_values_go(parts: dict[str, Any], policy: str, expected: list[Any]) -> None:
    assert only_values([widget(**parts)], policy, 3) == expected


def test_what_is_drawn() -> None:
    """From the first execution on if a policy asks for it, from the second as the editor does; always the same."""
    asked = only_values([widget()], "randomize", 50)
    assert len(set(asked)) == 50
    assert all(0 <= value <= 2**50 for value in asked)
    assert only_values([widget()], "randomize", 50) == asked
    assert only_values([widget()], "randomize", 50, master=2) != asked
    saved = only_values([widget(mode="randomize")], "as_saved", 50)
    assert saved == [5, *asked[1:]]
    # Written down: a later version must draw the same, or old runs cannot be repeated.
    assert asked[:2] == [433428374019058, 496717955616260]


def test_what_is_drawn_stays_in_its_bounds() -> None:
    assert set(only_values([widget(minimum=3, maximum=5)], "randomize", 60)) == {3, 4, 5}
    assert min(only_values([widget(minimum=-9, maximum=5)], "randomize", 60)) == 0
    even = only_values([widget(minimum=0, maximum=10, step=2)], "randomize", 60)
    assert set(even) == {0, 2, 4, 6, 8, 10}
    parts = {"mode": "randomize", "is_seed": False, "saved": 0.5, "minimum": 0.0, "maximum": 1.0, "step": 0.25}
    assert set(only_values([widget(**parts)], "as_saved", 60)) == {0.0, 0.25, 0.5, 0.75, 1.0}


def test_workflows_draw_apart() -> None:
    a, b = (seeds.seed_values([widget()], "randomize", 1, name, 0) for name in ("a.json", "b.json"))
    assert a != b


def test_a_workflow_with_its_values_is_another_one() -> None:
    saved = workflow(
        workflow_node(1, "Sampler", [5, "increment", 4, "fixed", 7, "fixed"]), workflow_node(2, "Note", ["n"])
    )
    before = copy.deepcopy(saved)
    widgets = seeds.find_controlled_widgets({"1": sampler()}, DEFINITIONS, saved)
    first, second = values(widgets, "as_saved", 2)
    assert seeds.workflow_with_values(saved, widgets, first) is saved
    changed = seeds.workflow_with_values(saved, widgets, second)
    assert changed["nodes"][0]["widgets_values"] == [6, "increment", 4, "fixed", 7, "fixed"]
    assert changed["nodes"][1] is saved["nodes"][1]
    assert saved == before


@pytest.mark.parametrize("policy", ["random", "", None, 1])
def test_an_unknown_policy_is_refused(policy: Any) -> None:
    with pytest.raises(ValueError, match="'as_saved', 'fixed', 'increment', 'randomize'"):
        seeds.check_policy(policy)
