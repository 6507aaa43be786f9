"""The helpers of run_sequential, each by itself: plain data in, plain data out, no server behind them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from discomfort.comfy_serverless import NodeExecutionError, ServerDiedError, UnknownNodeError
from discomfort.control_flow import Branch, Condition, ConditionError
from discomfort.nodes_internal import PROTOCOL_VERSION
from discomfort.prompt_graph import PromptTemplate, make_recipe
from discomfort.run_plan import MissingValueError, PreparedWorkflow
from discomfort.run_record import IterationFailure, NotDeliveredError, RunRecord, RunResult, StepRecord
from discomfort.workflow_tools import (
    ContextValues,
    DiscomfortWorkflowTools,
    StaleReferenceError,
    WorkflowExecutionError,
    _Run,
)
from test_prompt_graph import node, port

from discomfort import WorkflowContext, get_context

DEFINITIONS: dict[str, Any] = {
    "DiscomfortPort": {"output_node": True, "output": ["*"]},
    "DiscomfortDataLoader": {
        "input": {"required": {"content": ["STRING", {"discomfort_protocol": PROTOCOL_VERSION}]}},
        "output": ["*"],
    },
    "Load": {"input": {"required": {"seed": ["INT", {"max": 99}]}}, "output": ["MODEL"]},
    "Use": {"input": {"required": {"model": ["MODEL"], "x": ["INT"]}}, "output": ["IMAGE"]},
}

# model by reference out of nothing; and what reads it
LOAD = {"1": node("Load", seed=5), "2": port("model", ["1", 0])}
USE = {"1": port("model"), "2": port("x"), "3": node("Use", model=["1", 0], x=["2", 0]), "4": port("x", ["3", 0])}


class Peer:
    """What run_sequential needs of a connector; every prompt ends as the script says."""

    server_description = "a scripted server"
    failed_packs: ClassVar[dict[str, str]] = {"/packs/broken.py": "no module named x"}

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.prompts: list[dict[str, Any]] = []
        self.extra_data: list[dict[str, Any]] = []

    async def node_definitions(self) -> dict[str, Any]:
        return DEFINITIONS

    async def run_workflow(self, prompt: Any, extra_data: Any, **_: Any) -> dict[str, Any]:
        self.prompts.append(prompt)
        self.extra_data.append(extra_data)
        turn = self.script.pop(0)
        if isinstance(turn, Exception):
            raise turn
        return {"prompt-1": turn}


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> DiscomfortWorkflowTools:
    monkeypatch.setattr(DiscomfortWorkflowTools, "RETRY_DELAY", 0.001)
    return DiscomfortWorkflowTools()


@pytest.fixture
def context() -> Iterator[WorkflowContext]:
    with WorkflowContext() as made:
        yield made


@pytest.fixture
def make_run(context: WorkflowContext) -> Callable[..., _Run]:
    """``make_run(peer)``: what the helpers of one run share."""

    def make(peer: Any = None) -> _Run:
        record = RunRecord(context.run_id)
        return _Run(context, peer or Peer(), record, ContextValues(context, record), True, None, (), {})

    return make


async def prepare(tools: DiscomfortWorkflowTools, prompt: dict[str, Any], name: str = "w") -> PreparedWorkflow:
    return await tools._prepare_workflow(prompt, name, Peer())  # type: ignore[arg-type]


# ---- _setup_storage and _cleanup ----


async def test_storage_of_its_own_is_there_and_gone(tools: DiscomfortWorkflowTools) -> None:
    async with tools._setup_storage(None) as store:
        store.save("a", [1])
        assert get_context(store.run_id) is store
        value = store.load("a")
    assert not store.is_alive()
    with pytest.raises(KeyError, match=store.run_id):
        get_context(store.run_id)
    assert value == [1]


async def test_storage_is_gone_after_an_error_too(tools: DiscomfortWorkflowTools) -> None:
    with pytest.raises(RuntimeError, match="no luck"):
        async with tools._setup_storage(None) as store:
            raise RuntimeError("no luck")
    assert not store.is_alive()


async def test_a_callers_storage_stays(tools: DiscomfortWorkflowTools, context: WorkflowContext) -> None:
    async with tools._setup_storage(context) as store:
        assert store is context
        store.save("a", 1)
    assert context.load("a") == 1
    await tools._cleanup(None, lambda run_id: pytest.fail("it is not ours"))


# ---- _init_connector ----


async def test_a_given_connector_is_used_and_left_alone() -> None:
    peer = SimpleNamespace(users=1)
    async with DiscomfortWorkflowTools(peer)._init_connector() as connector:  # type: ignore[arg-type]
        assert connector is peer
    assert peer.users == 1


# ---- _prepare_workflow ----


async def test_a_prompt_is_prepared_with_its_ports_types_and_seeds(tools: DiscomfortWorkflowTools) -> None:
    load, use = await prepare(tools, LOAD, "load.json"), await prepare(tools, USE)
    assert (load.name, load.workflow, load.inputs, load.outputs) == ("load.json", None, (), {"model": "2"})
    assert load.output_types == {"model": "MODEL"}
    assert [widget.targets for widget in load.controlled] == [(("1", "seed"),)]
    assert use.inputs == ("model", "x")
    assert use.input_types == {"model": "MODEL", "x": "INT"}
    assert use.output_types == {"x": "IMAGE"}


async def test_what_cannot_be_prepared_is_told(tools: DiscomfortWorkflowTools, tmp_path: Path) -> None:
    says = r"w: the server does not have Nowhere #1 .*scripted server.*loaded: broken\.py \(no module named x\)"
    with pytest.raises(UnknownNodeError, match=says):
        await prepare(tools, {"1": node("Nowhere")})
    with pytest.raises(ValueError, match=r"w: The OUTPUT ports .*#2.*#3.* 'a'"):
        await prepare(tools, {"1": node("Load", seed=1), "2": port("a", ["1", 0]), "3": port("a", ["1", 0])})
    with pytest.raises(ValueError, match="w delivers nothing"):
        await prepare(tools, {"1": port("a"), "2": node("Use", model=["1", 0], x=1)})
    with pytest.raises(ValueError, match=r"w: no class_type .* '2'"):
        await prepare(tools, {**LOAD, "2": {"inputs": {}}})
    with pytest.raises(ValueError, match=r"w: Input 'model' of Use #3 reads node 9, which does not exist"):
        await prepare(tools, {**USE, "3": node("Use", model=["9", 0], x=1)})
    with pytest.raises(FileNotFoundError, match=r"nothing\.json"):
        await tools._prepare_workflow(tmp_path / "nothing.json", "w", Peer())  # type: ignore[arg-type]


# ---- _inject_inputs ----


async def test_values_become_loaders_and_recipes_their_nodes(
    tools: DiscomfortWorkflowTools, context: WorkflowContext
) -> None:
    use = await prepare(tools, USE)
    context.save("x", 1)
    context.save("model", make_recipe(LOAD, "2", "MODEL", "load.json"), pass_by="ref")
    prompt = tools._inject_inputs(use, context)
    reader = prompt["3"]["inputs"]
    assert prompt[reader["x"][0]]["inputs"] == {"unique_id": "x", "content": context.digest("x")}
    assert prompt[reader["model"][0]]["class_type"] == "Load"
    assert "1" not in prompt
    assert prompt["4"]["inputs"]["mode"] == "OUTPUT"


async def test_types_by_the_rules_are_asked_for_their_recipe(
    tools: DiscomfortWorkflowTools, context: WorkflowContext
) -> None:
    load = await prepare(tools, LOAD)
    assert tools._inject_inputs(load, context)["2"]["inputs"]["mode"] == "REF"
    tools.pass_by_rules = {}
    assert tools._inject_inputs(load, context)["2"]["inputs"]["mode"] == "OUTPUT"


async def test_seeds_of_the_step_are_in_the_prompt(tools: DiscomfortWorkflowTools, context: WorkflowContext) -> None:
    load = await prepare(tools, LOAD)
    step = StepRecord((0,), "w", seeds={"1": {"seed": 77}})
    assert tools._inject_inputs(load, context, step)["1"]["inputs"]["seed"] == 77
    assert LOAD["1"]["inputs"]["seed"] == 5


async def test_a_value_that_is_not_there_is_named(tools: DiscomfortWorkflowTools, context: WorkflowContext) -> None:
    context.save("y", 1)
    with pytest.raises(MissingValueError, match=r"'model' of w has no value.*There are: 'y'"):
        tools._inject_inputs(await prepare(tools, USE), context)


async def test_a_recipe_of_a_value_that_changed_is_refused(
    tools: DiscomfortWorkflowTools, context: WorkflowContext
) -> None:
    makes = PromptTemplate({"1": port("x"), "2": node("Load", seed=["1", 0]), "3": port("model", ["2", 0])})
    context.save("x", 1)
    recipe = make_recipe(makes.fill({"x": context.digest("x")}), "3", "MODEL", "load.json")
    context.save("model", recipe, pass_by="ref")
    use = await prepare(tools, USE)
    tools._inject_inputs(use, context)
    context.save("x", 2)
    with pytest.raises(StaleReferenceError, match=r"w, iteration 4\.1: .*'model'.*MODEL.*load\.json.*'x'") as caught:
        tools._inject_inputs(use, context, StepRecord((4, 1), "w"))
    assert (caught.value.iteration, caught.value.workflow) == ((4, 1), "w")
    context.save("x", 1)  # the same value again is the value it depends on
    tools._inject_inputs(use, context)


# ---- _execute_workflow ----


async def test_a_prompt_runs_with_the_runs_name_beside_it(
    tools: DiscomfortWorkflowTools, make_run: Callable[..., _Run]
) -> None:
    peer, load = Peer({"outputs": {}}), await prepare(tools, LOAD)
    run, step = make_run(peer), StepRecord((0,), "w")
    assert await tools._execute_workflow(run, load, {"1": {}}, step) == {"outputs": {}}
    assert step.prompt_id == "prompt-1"
    assert peer.extra_data == [
        {"extra_pnginfo": {"discomfort": {"run_id": run.context.run_id, "use_ram": True}}},
    ]


async def test_a_server_that_dies_is_asked_again_with_the_values_it_had_read(
    tools: DiscomfortWorkflowTools, make_run: Callable[..., _Run]
) -> None:
    peer, load = Peer(ServerDiedError("gone"), ServerDiedError("gone"), {"outputs": {}}), await prepare(tools, LOAD)
    run, step = make_run(peer), StepRecord((0,), "w")
    run.context.save("x", "before")
    held = [run.context.hold("x")]
    run.context.save("x", "written by the attempt that died")
    await tools._execute_workflow(run, load, {}, step, held)
    assert step.attempts == 3
    assert run.context.load("x") == "before"


async def test_it_is_not_asked_for_ever(tools: DiscomfortWorkflowTools, make_run: Callable[..., _Run]) -> None:
    peer, step = Peer(*[ServerDiedError("gone")] * 9), StepRecord((0,), "w")
    with pytest.raises(ServerDiedError):
        await tools._execute_workflow(make_run(peer), await prepare(tools, LOAD), {}, step)
    assert step.attempts == len(peer.prompts) == tools.SERVER_ATTEMPTS


async def test_an_error_of_a_node_is_not_repeated(
    tools: DiscomfortWorkflowTools, make_run: Callable[..., _Run]
) -> None:
    error = NodeExecutionError("prompt-1", {"node_id": "3", "node_type": "Use", "exception_message": "no"})
    peer = Peer(error)
    with pytest.raises(NodeExecutionError):
        await tools._execute_workflow(make_run(peer), await prepare(tools, LOAD), {}, StepRecord((0,), "w"))
    assert len(peer.prompts) == 1


# ---- _extract_outputs, _keep_recipes ----


def entry(outputs: Mapping[str, Any], cached: list[str] | None = None) -> dict[str, Any]:
    messages = [
        ["execution_start", {"timestamp": 1000}],
        ["execution_cached", {"nodes": cached or []}],
        ["execution_success", {"timestamp": 3500}],
    ]
    return {"outputs": outputs, "status": {"messages": messages}}


async def test_outputs_are_noted_with_what_the_server_said(tools: DiscomfortWorkflowTools) -> None:
    prepared, step = await prepare(tools, USE), StepRecord((0,), "w")
    said = {"unique_id": "x", "digest": "xxh3:1", "seconds": 0.5}
    tools._extract_outputs(prepared, entry({"4": {"discomfort": [said]}}, ["3"]), step)
    assert step.outputs == {"x": "xxh3:1"}
    assert (step.saving_seconds, step.server_seconds, step.cached_nodes) == (0.5, 2.0, ["3"])


@pytest.mark.parametrize("outputs", [{}, {"4": {}}, {"4": {"discomfort": []}}, {"4": {"text": ["x"]}}, {"3": {}}])
async def test_a_port_that_said_nothing_is_an_error(tools: DiscomfortWorkflowTools, outputs: dict[str, Any]) -> None:
    with pytest.raises(WorkflowExecutionError, match=r"'x' \(node #4\) delivered nothing"):
        tools._extract_outputs(await prepare(tools, USE), entry(outputs), StepRecord((0,), "w"))


async def test_recipes_are_kept_in_place_of_values(
    tools: DiscomfortWorkflowTools, make_run: Callable[..., _Run]
) -> None:
    run, load, step = make_run(), await prepare(tools, LOAD, "load.json"), StepRecord((0,), "w")
    tools._keep_recipes(run, load, tools._inject_inputs(load, run.context, step), step)
    assert step.references == {"model": "MODEL"}
    info = run.context.get_storage_info("model")
    assert info is not None
    assert info["pass_by"] == "ref"
    assert step.outputs == {"model": run.context.digest("model")}
    assert run.context.load("model")["workflow"] == "load.json"


# ---- _evaluate_condition, _process_branch ----


async def test_conditions_are_asked_about_the_runs_values(
    tools: DiscomfortWorkflowTools, make_run: Callable[..., _Run]
) -> None:
    run = make_run()
    assert await tools._evaluate_condition(run, None, 0)
    run.context.save("score", 0.5)
    assert await tools._evaluate_condition(run, Condition.parse("score < 0.6 and iteration == 3"), 3)
    assert not await tools._evaluate_condition(run, "score > 0.6", 0)
    assert await tools._evaluate_condition(run, "score", 0)
    assert await tools._evaluate_condition(run, lambda values, iteration: values["score"] < iteration, 1)


async def test_before_the_first_iteration_a_value_may_be_missing(
    tools: DiscomfortWorkflowTools, make_run: Callable[..., _Run]
) -> None:
    run = make_run()
    assert await tools._evaluate_condition(run, "score < 1", 0, first=True)
    assert await tools._evaluate_condition(run, lambda values: values["score"] < 1, 0, first=True)
    with pytest.raises(ConditionError, match="'score', which has no value"):
        await tools._evaluate_condition(run, "score < 1", 1)
    with pytest.raises(KeyError):
        await tools._evaluate_condition(run, lambda values: values["score"] < 1, 1)


@pytest.mark.parametrize(("value", "side"), [(1, "then"), (0, "otherwise")])
async def test_a_branch_runs_one_of_its_sides(
    tools: DiscomfortWorkflowTools,
    make_run: Callable[..., _Run],
    monkeypatch: pytest.MonkeyPatch,
    value: int,
    side: str,
) -> None:
    ran: list[Any] = []

    async def note(run: Any, steps: Any, path: Any) -> None:
        ran.append((steps, path))

    monkeypatch.setattr(tools, "_run_steps", note)
    run = make_run()
    run.context.save("flag", value)
    await tools._process_branch(run, Branch("flag", ["then.json"], ["otherwise.json"]), (2, 5))
    assert ran == [((f"{side}.json",), (2, 5))]


# ---- the rules ----


def test_rules_come_from_a_mapping_or_a_file(tmp_path: Path) -> None:
    assert DiscomfortWorkflowTools().pass_by_rules["MODEL"] == "ref"
    assert DiscomfortWorkflowTools(pass_by_rules={"A": "ref"}).pass_by_rules == {"A": "ref"}
    file = tmp_path / "rules.json"
    file.write_text(json.dumps({"B": "val"}))
    tools = DiscomfortWorkflowTools(pass_by_rules=file)
    assert tools.pass_by_rules == {"B": "val"}
    tools.pass_by_rules["B"] = "ref"  # a copy
    assert tools.pass_by_rules == {"B": "val"}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"MODEL": "reference"}, "'MODEL' is 'reference'; allowed are 'val' and 'ref'"),
        ({1: "ref"}, "1 is 'ref'"),
        ("[1]", "must be an object"),
        ("{", r"rules\.json\) is not JSON"),
    ],
)
def test_bad_rules_are_refused(rules: Any, message: str, tmp_path: Path) -> None:
    if isinstance(rules, str):
        file = tmp_path / "rules.json"
        file.write_text(rules)
        rules = file
    with pytest.raises(ValueError, match=message):
        DiscomfortWorkflowTools(pass_by_rules=rules)
    with pytest.raises(FileNotFoundError):
        DiscomfortWorkflowTools(pass_by_rules=tmp_path / "none.json")


# ---- RunResult ----


@pytest.mark.parametrize(
    ("values", "iterations", "skipped", "says"),
    [
        ({"score": 1, "image": 2}, 3, [1], "There is 'image', 'score'. A branch that was not taken, or a loop that"),
        ({}, 2, [0], "No port delivered anything. A branch that was not taken, or a loop that never began, delivers"),
        ({}, 0, [], "No port delivered anything. The run had no iteration: its condition was false before the first"),
        ({}, 2, [0, 1], "No port delivered anything. All of the run's iterations failed and were skipped"),
    ],
)
def test_a_name_that_no_port_delivered_is_told_with_those_that_there_are(
    values: dict[str, Any], iterations: int, skipped: list[int], says: str
) -> None:
    record = RunRecord("x", iterations=iterations, skipped=[IterationFailure(n, "no") for n in skipped])
    result = RunResult(values, record)
    with pytest.raises(KeyError) as caught:
        result["imgae"]
    assert type(caught.value) is NotDeliveredError
    assert str(caught.value).startswith(f"The run has delivered no 'imgae'. {says}")
    assert result.get("imgae") is None
    assert "imgae" not in result
    assert dict(result) == values
