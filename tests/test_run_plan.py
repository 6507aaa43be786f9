"""run_plan: what is wrong with a plan, and which types its ports have, before anything runs. Pure."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from discomfort.control_flow import Branch, Loop, PerIteration
from discomfort.prompt_graph import PromptTemplate
from discomfort.run_plan import (
    MissingValueError,
    PlanCheck,
    PortTypeError,
    PreflightError,
    PreparedWorkflow,
    ProtocolError,
    check_protocol,
    identity,
    port_types,
    raise_problems,
    unknown_nodes,
)
from discomfort.workflow_graph import PortInfo
from test_prompt_graph import node, port


def prepared(name: str, reads: dict[str, str], writes: dict[str, str]) -> PreparedWorkflow:
    """A workflow of which only its ports and their types are known."""
    outputs = dict.fromkeys(writes, "1")
    return PreparedWorkflow(name, None, PromptTemplate({}), tuple(reads), outputs, reads, writes)


def problems_of(
    steps: list[Any], workflows: dict[str, PreparedWorkflow], available: Any = (), has_gaps: bool = False, **more: Any
) -> list[str]:
    """What is wrong with steps that name workflows by their key."""
    check = PlanCheck({identity(key): workflow for key, workflow in workflows.items()}, available, has_gaps)
    outer = Loop(steps, more.pop("iterations", 1), more.pop("condition", None))
    return [str(problem) for problem in check.problems(outer, more.pop("inputs", {}), more.pop("collect", ()))]


MAKE = prepared("make", {}, {"x": "IMAGE"})
USE = prepared("use", {"x": "IMAGE"}, {"y": "IMAGE"})
MASK = prepared("mask", {"x": "MASK"}, {})
FLOWS = {"make": MAKE, "use": USE, "mask": MASK}


def test_a_plan_that_works_has_no_problems() -> None:
    assert problems_of(["make", "use"], FLOWS) == []
    assert problems_of(["use"], FLOWS, ["x"]) == []
    assert problems_of([Branch("x", ["use"]), "use"], FLOWS, ["x"], collect=["y"]) == []


def test_every_missing_value_is_told() -> None:
    found = problems_of(["use", "mask", "make"], FLOWS, ["z"])
    assert len(found) == 2
    assert "INPUT port 'x' of use" in found[0]
    assert "INPUT port 'x' of mask" in found[1]
    assert "'z'" in found[0]
    assert "inputs={'x': ...}" in found[0]


def test_what_a_branch_may_deliver_counts() -> None:
    """Which side runs is known later."""
    assert problems_of([Branch("z", ["make"]), "use"], FLOWS, ["z"]) == []
    assert problems_of([Branch("z", ["make"], ["use"])], FLOWS, ["z"]) != []


def test_a_value_that_only_a_later_iteration_has_is_missing_in_the_first() -> None:
    assert problems_of(["use", "make"], FLOWS, iterations=5) != []


def test_behind_a_gap_nothing_is_missing() -> None:
    """A workflow that could not be prepared, or a step that could not be read, may deliver anything."""
    assert problems_of(["broken", "use"], FLOWS, collect=["z"]) == []
    assert problems_of(["use", "broken"], FLOWS) != []
    assert problems_of(["use"], FLOWS, has_gaps=True) == []


def test_conditions_name_what_does_not_exist() -> None:
    assert "branch, 'z > 1', reads 'z', which does not exist" in problems_of([Branch("z > 1", ["make"])], FLOWS)[0]
    found = problems_of([Loop(["make"], 2, "w < 1")], FLOWS, condition="v")
    assert "loop, 'w < 1', reads 'w', which nothing in the run delivers" in found[0]
    assert "loop_condition, 'v', reads 'v'" in found[1]
    assert problems_of(["make"], FLOWS, condition="len(x) > 0") == []


def test_types_that_do_not_fit() -> None:
    (problem,) = problems_of(["make", "mask"], FLOWS)
    assert "'x' of mask feeds inputs of type MASK" in problem
    assert "IMAGE (from make)" in problem
    # One of two writers would do; numbers and texts go into each other; and nothing is known of "*".
    other = prepared("other", {}, {"x": "MASK"})
    flows = {**FLOWS, "other": other, "any": prepared("any", {"x": "*"}, {})}
    assert problems_of([Branch("z", ["make"], ["other"]), "mask"], flows, ["z"]) == []
    assert problems_of(["make", "any"], flows) == []
    assert problems_of(["mask"], flows, ["x"]) == []
    numbers = {"a": prepared("a", {}, {"n": "FLOAT"}), "b": prepared("b", {"n": "INT"}, {})}
    assert problems_of(["a", "b"], numbers) == []


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("cat.png", "inputs['x'] is 'cat.png' (str), but the INPUT port 'x' of use feeds inputs of type IMAGE"),
        (None, "is None (NoneType)"),
        (0.5, "is 0.5 (float)"),
        ({"discomfort_recipe": 1, "type": "VAE"}, "inputs['x'] is the recipe of a VAE"),
        ({"discomfort_recipe": 1, "type": "IMAGE"}, ""),
        ([[1.0]], ""),
        (PerIteration(["cat.png"]), ""),
    ],
)
def test_a_value_that_can_be_no_picture_is_told(value: Any, problem: str, caplog: pytest.LogCaptureFixture) -> None:
    """A recipe of another type is refused, as the server would; on everything else the node has the last word."""
    with caplog.at_level(logging.WARNING, logger="discomfort.run_plan"):
        found = problems_of(["use"], FLOWS, ["x"], inputs={"x": value})
    told = {record.getMessage() for record in caplog.records} | set(found)
    assert [problem in text for text in told] == [True] * bool(problem)
    assert bool(found) == ("recipe" in problem)


def test_types_are_compared_round_the_loop() -> None:
    """What an iteration leaves is what the next one reads; in inner loops, too."""
    flows = {"use": USE, "spoil": prepared("spoil", {}, {"x": "MODEL"})}
    assert problems_of(["use", "spoil"], flows, ["x"]) == []
    assert any("MODEL (from spoil)" in p for p in problems_of(["use", "spoil"], flows, ["x"], iterations=2))
    assert any("MODEL" in p for p in problems_of([Loop(["use", "spoil"], 3)], flows, ["x"]))
    assert any("MODEL" in p for p in problems_of([Loop(["use", "spoil"], None, "x")], flows, ["x"]))


def test_deeply_nested_loops_are_walked_in_no_time() -> None:
    step: Any = "make"
    for _ in range(60):
        step = Loop([step], 2)
    assert problems_of([step], FLOWS) == []


def test_inputs_and_collected_names(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="discomfort.run_plan"):
        found = problems_of(["make"], FLOWS, inputs={"q": 1, "r": PerIteration([1])}, iterations=3, collect=["w"])
    assert "'r' has 1 values (PerIteration) for 3 iterations" in found[0]
    assert "collect names 'w'" in found[1]
    assert [record.getMessage().split("'")[1] for record in caplog.records] == ["q", "r"]


# ---- how problems are raised ----


def test_one_problem_is_raised_as_it_is() -> None:
    raise_problems([])
    with pytest.raises(FileNotFoundError, match=r"^a$"):
        raise_problems([FileNotFoundError("a"), FileNotFoundError("a")])


def test_several_are_raised_in_one_list() -> None:
    problems = [FileNotFoundError("no file"), MissingValueError("no value"), ValueError("no use")]
    with pytest.raises(PreflightError) as caught:
        raise_problems(problems)
    assert caught.value.problems == tuple(problems)
    assert str(caught.value).splitlines() == [
        "The run was not started; it has 3 problems:",
        "1. no file",
        "2. no value",
        "3. no use",
    ]


def test_several_missing_values_are_still_missing_values() -> None:
    with pytest.raises(MissingValueError, match=r"a\nb"):
        raise_problems([MissingValueError("a"), MissingValueError("b")])


# ---- types of ports ----

DEFINITIONS: dict[str, Any] = {
    "Load": {"input": {"required": {"name": [["a", "b"]]}}, "output": ["MODEL", "CLIP"]},
    "Use": {"input": {"required": {"model": ["MODEL"]}, "optional": {"text": ["STRING", {}]}}, "output": ["IMAGE"]},
    "Switch": {"input": {"required": {"on": ["*"]}}, "output": ["*"]},
}


def test_types_come_from_the_nodes_definitions() -> None:
    prompt = {
        "1": node("Load", name=["n", 0]),
        "2": port("clip", ["p", 0]),
        "p": port("passed", ["1", 1]),
        "n": port("name"),
        "m": port("m"),
        "3": node("Use", model=["m", 0], text=["t", 0]),
        "t": port("t"),
        "4": port("image", ["3", 0]),
        "5": port("m2", ["m", 0]),
        "6": node("Switch", on=["s", 0]),
        "s": port("s"),
        "7": port("switched", ["6", 0]),
    }
    inputs, outputs, handed_on = port_types(PromptTemplate(prompt), DEFINITIONS)
    assert inputs == {"name": "COMBO", "m": "MODEL", "t": "STRING", "s": "*"}
    assert outputs == {"clip": "CLIP", "image": "IMAGE", "m2": "*", "switched": "*"}
    assert handed_on == {"m2": ("m",), "switched": ("s",)}


def test_the_drawn_workflow_tells_what_definitions_do_not() -> None:
    prompt = {"6": node("Switch", on=["s", 0]), "s": port("s"), "7": port("switched", ["6", 0])}
    drawn = [
        PortInfo("7", "switched", "OUTPUT", "VAE", "VAE", "*", []),
        PortInfo("s", "s", "INPUT", "MODEL", "*", "MODEL", []),
    ]
    inputs, outputs, _ = port_types(PromptTemplate(prompt), DEFINITIONS, drawn)
    assert (inputs, outputs) == ({"s": "MODEL"}, {"switched": "VAE"})


def test_nodes_that_the_server_does_not_have() -> None:
    assert unknown_nodes({"1": node("Load"), "2": node("Nowhere")}, DEFINITIONS) == {"2": "Nowhere"}


# ---- the nodes in the server ----


def discomfort_nodes(**options: Any) -> dict[str, Any]:
    loader = {"input": {"required": {"content": ["STRING", options]}}, "python_module": "custom_nodes.old copy"}
    return {"DiscomfortPort": {}, "DiscomfortDataLoader": loader}


def test_this_version_is_right_and_every_other_one_is_told() -> None:
    from discomfort.nodes_internal import PROTOCOL_VERSION

    assert check_protocol(discomfort_nodes(discomfort_protocol=PROTOCOL_VERSION), "server") == []
    for nodes, version in ((discomfort_nodes(), 1), (discomfort_nodes(discomfort_protocol=99), 99)):
        (problem,) = check_protocol(nodes, "server X")
        assert isinstance(problem, ProtocolError)
        assert f"speak protocol {version}, this script speaks {PROTOCOL_VERSION}" in str(problem)
        assert "custom_nodes.old copy" in str(problem)
        assert "server X" in str(problem)


def test_a_server_without_our_nodes_is_told() -> None:
    (problem,) = check_protocol({"LoadImage": {}}, "server X")
    assert "no nodes of Discomfort (DiscomfortPort, DiscomfortDataLoader)" in str(problem)


def test_errors_are_of_kinds_that_callers_know() -> None:
    assert issubclass(PortTypeError, ValueError)
    assert issubclass(PreflightError, ValueError)
    assert issubclass(MissingValueError, (ValueError, KeyError))
    assert str(MissingValueError("a sentence")) == "a sentence"


def test_a_socket_that_takes_any_type_tells_none() -> None:
    """V3 nodes, such as the switch of ComfyUI, name the type of such sockets by what they are."""
    switch = {"input": {"required": {"on_true": ["COMFY_MATCHTYPE_V3", {}]}}, "output": ["COMFY_MATCHTYPE_V3"]}
    prompt = {"1": port("a"), "2": node("Switch", on_true=["1", 0]), "3": port("b", ["2", 0])}
    assert port_types(PromptTemplate(prompt), {"Switch": switch}) == ({"a": "*"}, {"b": "*"}, {"b": ("a",)})
    # But what comes into it may tell.
    definitions = {**DEFINITIONS, "Switch": switch}
    loads = {
        "1": node("Load"),
        "2": node("Switch", on_true=["p", 1]),
        "p": port("x", ["1", 1]),
        "3": port("b", ["2", 0]),
    }
    loads["2"]["inputs"]["on_true"] = ["p", 0]
    assert port_types(PromptTemplate(loads), definitions)[1:] == ({"b": "CLIP"}, {})
    ring = {"1": node("Switch", on_true=["2", 0]), "2": node("Switch", on_true=["1", 0]), "3": port("b", ["2", 0])}
    assert port_types(PromptTemplate(ring), definitions)[1:] == ({"b": "*"}, {})
