"""Whole runs on a nested server with nodes that can be counted: references, lists, seeds, caches, pre-flight.

On the embedded server, and on the ComfyUI that COMFYUI_PATH names.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from discomfort.comfy_serverless import UnknownNodeError
from discomfort.control_flow import ConditionError
from discomfort.run_plan import MissingValueError, PortTypeError, PreflightError, ProtocolError
from discomfort.workflow_tools import StaleReferenceError

from discomfort import Branch, Discomfort, Loop, PerIteration, WorkflowContext, WorkflowExecutionError

TESTS = Path(__file__).parent

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["embedded", pytest.param("comfyui", marks=pytest.mark.real_comfyui)]
)
async def d(
    request: pytest.FixtureRequest, write_config: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Discomfort]:
    """A running Discomfort whose server has the pack of tests/run_packs."""
    path = "embedded"
    if request.param == "comfyui":
        path = os.environ.get("COMFYUI_PATH", "")
        if path in ("", "embedded"):
            pytest.skip("COMFYUI_PATH names no ComfyUI")
    packs = tmp_path_factory.mktemp("packs") / "packs.yaml"
    packs.write_text(json.dumps({"tests": {"base_path": str(TESTS), "custom_nodes": "run_packs"}}))
    command = f"python3 main.py --extra-model-paths-config '{packs}'"
    async with await Discomfort.create(write_config(COMFYUI_PATH=path, API_COMMAND_LINE=command)) as discomfort:
        yield discomfort


@pytest.fixture
def log(tmp_path: Path) -> str:
    """The file in which the pack's nodes note their executions."""
    return str(tmp_path / "executions.txt")


def executions(log: str) -> list[str]:
    """What was executed since the last call."""
    file = Path(log)
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return lines


def port(unique_id: str, source: list[Any] | None = None) -> dict[str, Any]:
    """A DiscomfortPort in a prompt; with a source its value comes in."""
    inputs = {"unique_id": unique_id, "tags": "", **({"input_data": source} if source else {})}
    return {"class_type": "DiscomfortPort", "inputs": inputs, "_meta": {"title": f"port {unique_id}"}}


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": f"my {class_type}"}}


def picture(value: float = 0.25) -> torch.Tensor:
    return torch.full((1, 4, 4, 3), value)


def loads(log: str, name: str = "base", *outputs: str) -> dict[str, Any]:
    """A workflow that loads a model, and delivers it as "model"; its clip and vae where their names are given."""
    prompt = {"1": node("RunTestLoadModel", name=name, log=log), "2": port("model", ["1", 0])}
    for slot, output in enumerate(("clip", "vae"), start=1):
        if output in outputs:
            prompt[output] = port(output, ["1", slot])
    return prompt


def uses(log: str) -> dict[str, Any]:
    """model, image -> image: brighter by the model's strength in hundredths."""
    return {
        "1": port("model"),
        "2": port("image"),
        "3": node("RunTestUseModel", model=["1", 0], image=["2", 0], log=log),
        "4": port("image", ["3", 0]),
    }


# ---------------------------------------------------------------------------------------------------- by reference


async def test_a_model_travels_as_its_recipe_and_is_loaded_once(d: Discomfort, log: str) -> None:
    """Its lock could not be pickled, so it never left the server."""
    result = await d.run([loads(log), uses(log)], inputs={"image": picture(0.25)}, iterations=3)
    assert torch.allclose(result["image"], picture(0.25 + 3 * 0.04))
    assert executions(log) == ["load base", "use", "use", "use"]
    recipe = result["model"]
    assert recipe["type"] == "MODEL"
    assert [n["class_type"] for n in recipe["prompt"].values()] == ["RunTestLoadModel"]
    assert recipe["values"] == {}


async def test_a_recipe_is_an_input_of_another_run(d: Discomfort, log: str) -> None:
    recipe = (await d.run([loads(log)]))["model"]
    result = await d.run([uses(log)], inputs={"image": picture(0.5), "model": json.loads(json.dumps(recipe))})
    assert torch.allclose(result["image"], picture(0.54))
    assert executions(log) == ["load base", "use"]


async def test_alternating_workflows_load_their_models_once_each(d: Discomfort, log: str) -> None:
    a, b, use = loads(log, "a"), loads(log, "bb"), uses(log)
    result = await d.run([a, use, b, use] * 2, inputs={"image": picture(0.0)})
    assert torch.allclose(result["image"], picture(0.06))
    assert executions(log) == ["load a", "use", "load bb", "use", "use", "use"]
    # Another run and context: everything is cached, and everything is delivered.
    again = await d.run([a, use, b, use] * 2, inputs={"image": picture(0.0)})
    assert torch.equal(again["image"], result["image"])
    assert executions(log) == []


async def test_references_of_one_loader_share_it(d: Discomfort, log: str) -> None:
    """model and vae of one checkpoint are one node in the prompt that reads both."""
    reads = {
        "1": port("model"),
        "2": port("vae"),
        "3": node("RunTestStrength", model=["1", 0], vae=["2", 0]),
        "4": port("strength", ["3", 0]),
    }
    result = await d.run([loads(log, "base", "clip", "vae"), reads])
    assert result["strength"] == 6.0
    assert executions(log) == ["load base"]
    assert result["vae"]["prompt"] == result["model"]["prompt"]
    assert result["clip"]["type"] == "CLIP"


async def test_a_model_made_of_a_model_carries_the_whole_way_back(d: Discomfort, log: str) -> None:
    """A loop that patches a model again and again: its recipe grows, and nothing of it runs twice."""
    patch = {
        "1": port("model"),
        "2": node("RunTestPatchModel", model=["1", 0], by=1.0, log=log),
        "3": port("model", ["2", 0]),
    }
    steps = [loads(log), Loop([patch], iterations=3), uses(log)]
    result = await d.run(steps, inputs={"image": picture(0.0)})
    assert torch.allclose(result["image"], picture(0.07))
    assert executions(log) == ["load base", "patch 1.0", "patch 1.0", "patch 1.0", "use"]
    assert len(result["model"]["prompt"]) == 4


async def test_a_recipe_that_reads_a_value_follows_it_and_says_when_it_has_changed(d: Discomfort, log: str) -> None:
    patch = {
        "1": port("model"),
        "p": port("amount"),
        "2": node("RunTestPatchModel", model=["1", 0], by=["p", 0], log=log),
        "3": port("patched", ["2", 0]),
    }
    use = {**uses(log), "1": port("patched")}
    change = {"1": node("RunTestStrength", model=["m", 0], vae=["v", 0]), "m": port("model"), "v": port("vae")}
    change["2"] = port("amount", ["1", 0])
    given = {"amount": 2.0, "image": picture(0.0)}
    result = await d.run([loads(log), patch, use], inputs=given)
    assert torch.allclose(result["image"], picture(0.06))
    assert list(result["patched"]["values"]) == ["amount"]
    with pytest.raises(
        StaleReferenceError, match=r"workflow 4, iteration 0.*'patched'.*workflow 2.*'amount'"
    ) as caught:
        await d.run([loads(log, "base", "vae"), patch, change, use], inputs=given)
    assert caught.value.iteration == (0,)
    with pytest.raises(StaleReferenceError, match="'amount'"):
        await d.run([use], inputs={"image": picture(), "patched": result["patched"]})


async def test_what_is_handed_on_stays_a_reference(d: Discomfort, log: str) -> None:
    """From port to port, through nothing, whatever the rules say of a type that nobody knows."""
    renames = {"1": port("model"), "2": port("other", ["1", 0])}
    use = {**uses(log), "1": port("other")}
    result = await d.run([loads(log), renames, use], inputs={"image": picture(0.0)})
    assert torch.allclose(result["image"], picture(0.04))
    assert result["other"]["prompt"] == result["model"]["prompt"]


async def test_a_server_that_is_gone_loads_the_model_again(d: Discomfort, log: str) -> None:
    recipe = (await d.run([loads(log)]))["model"]
    await d.Worker.free()
    assert executions(log) == ["load base"]
    result = await d.run([uses(log)], inputs={"image": picture(0.5), "model": recipe})
    assert torch.allclose(result["image"], picture(0.54))
    assert executions(log) == ["load base", "use"]


async def test_rules_can_be_changed(d: Discomfort, log: str) -> None:
    """A float called VAE can well travel by value; the lock of a model cannot, and the error says so."""
    rules = d.Tools.pass_by_rules
    try:
        d.Tools.pass_by_rules = {**rules, "VAE": "val"}
        assert (await d.run([loads(log, "base", "vae")]))["vae"] == 2.0
        d.Tools.pass_by_rules = {"IMAGE": "ref"}
        with pytest.raises(WorkflowExecutionError, match=r"DiscomfortPort #2 .*lock at.*pass_by_rules"):
            await d.run([loads(log)])
    finally:
        d.Tools.pass_by_rules = rules


async def test_an_editor_workflow_tells_types_that_a_node_does_not(d: Discomfort, log: str) -> None:
    """A collected reference is the recipe of each iteration."""
    result = await d.run([loads(log)], iterations=2, collect=["model"])
    assert [recipe["type"] for recipe in result["model"]] == ["MODEL", "MODEL"]


# ------------------------------------------------------------------------------------------------------------- lists


def counts() -> dict[str, Any]:
    return {"1": node("RunTestCount", count=3), "2": port("numbers", ["1", 0])}


async def test_a_list_goes_on_item_by_item_as_in_one_workflow(d: Discomfort) -> None:
    double = {"1": port("numbers"), "2": node("RunTestDouble", number=["1", 0]), "3": port("doubled", ["2", 0])}
    join = {"1": port("doubled"), "2": node("RunTestJoin", number=["1", 0]), "3": port("text", ["2", 0])}
    whole = {
        "1": node("RunTestCount", count=3),
        "2": node("RunTestDouble", number=["1", 0]),
        "3": node("RunTestJoin", number=["2", 0]),
        "4": port("text", ["3", 0]),
    }
    result = await d.run([counts(), double, join])
    assert result["text"] == (await d.run([whole]))["text"] == "0 2 4"
    assert result["doubled"] == [0, 2, 4]


async def test_a_list_that_is_given_is_one_value(d: Discomfort) -> None:
    """Unlike the same list from a node: the two are told apart, also by the server's cache."""
    join = {"1": port("numbers"), "2": node("RunTestJoin", number=["1", 0]), "3": port("text", ["2", 0])}
    assert (await d.run([join], inputs={"numbers": [0, 1, 2]}))["text"] == "[0, 1, 2]"
    assert (await d.run([counts(), join]))["text"] == "0 1 2"
    assert (await d.run([join], inputs={"numbers": [0, 1, 2]}))["text"] == "[0, 1, 2]"


# ------------------------------------------------------------------------------------------------------------- seeds


def seeded(mode: str = "randomize", seed: int = 5) -> dict[str, Any]:
    """An editor workflow with two seeds and a port behind them."""
    values = ["random", seed, mode, 4, 7, "increment", "euler"]
    return {
        "nodes": [
            {
                "id": 1,
                "type": "RunTestSeeds",
                "pos": [0, 0],
                "size": [300, 200],
                "inputs": [],
                "outputs": [{"name": "STRING", "type": "STRING", "links": [1]}],
                "widgets_values": values,
            },
            {
                "id": 2,
                "type": "DiscomfortPort",
                "pos": [400, 0],
                "size": [200, 100],
                "inputs": [{"name": "input_data", "type": "*", "link": 1}],
                "outputs": [{"name": "output", "type": "*", "links": []}],
                "widgets_values": ["seeds", ""],
            },
        ],
        "links": [[1, 1, 0, 2, 0, "STRING"]],
        "groups": [],
        "last_node_id": 2,
        "last_link_id": 1,
        "version": 0.4,
    }


async def test_seeds_go_as_they_would_in_the_editor(d: Discomfort) -> None:
    result = await d.run([seeded()], iterations=4, collect=["seeds"], master_seed=1)
    texts = [text.split() for text in result["seeds"]]
    assert texts[0] == ["5", "7", "4", "euler", "random"]  # the editor changes them after the first one
    assert [text[1] for text in texts] == ["7", "8", "9", "0"]  # and this one begins again behind its largest value
    assert len({text[0] for text in texts}) == 4
    assert [[str(s["1"]["seed"]), str(s["1"]["noise_seed"])] for s in result.seeds] == [text[:2] for text in texts]
    again = await d.run([seeded()], iterations=4, collect=["seeds"], master_seed=1)
    assert again["seeds"] == result["seeds"]
    other = await d.run([seeded()], iterations=4, collect=["seeds"])
    assert other["seeds"][1:] != result["seeds"][1:]
    assert (await d.run([seeded()], iterations=4, collect=["seeds"], master_seed=other.master_seed)) == other


@pytest.mark.parametrize("form", ["workflow", "prompt"])
@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("fixed", [("5", "7")] * 3),
        ("increment", [("5", "7"), ("6", "8"), ("7", "9")]),
        ("randomize", None),
    ],
)
async def test_a_policy_overrules_what_was_saved(d: Discomfort, policy: str, expected: Any, form: str) -> None:
    """A prompt says of no widget that it varies, but its seeds can be told by the nodes' definitions."""
    workflow: Any = seeded()
    if form == "prompt":
        workflow = await d.Worker.get_prompt_from_workflow(workflow)
        saved = await d.run([workflow], iterations=2, collect=["seeds"])
        assert saved["seeds"][0] == saved["seeds"][1]
    result = await d.run([workflow], iterations=3, collect=["seeds"], seed_policy=policy, master_seed=3)
    found = [tuple(text.split()[:2]) for text in result["seeds"]]
    assert all(text.endswith("4 euler random") for text in result["seeds"])
    if expected is None:
        assert len({seed for seed, _ in found}) == 3
        assert found[0][0] != "5"
    else:
        assert found == expected


async def test_a_picture_carries_the_seed_that_made_it(d: Discomfort) -> None:
    """Opened in the editor, it shows what was used, not what had been saved."""
    workflow = seeded("increment")
    image = {**workflow["nodes"][0], "id": 3, "type": "EmptyImage", "widgets_values": [8, 8, 1, 0]}
    image["outputs"] = [{"name": "IMAGE", "type": "IMAGE", "links": [2]}]
    save = {**image, "id": 4, "type": "PreviewImage", "widgets_values": [], "outputs": []}
    save["inputs"] = [{"name": "images", "type": "IMAGE", "link": 2}]
    workflow["nodes"] += [image, save]
    workflow["links"].append([2, 3, 0, 4, 0, "IMAGE"])
    histories: list[Any] = []
    original = d.Worker.run_workflow

    async def spy(*args: Any, **kwargs: Any) -> Any:
        histories.append(kwargs["extra_data"]["extra_pnginfo"]["workflow"])
        return await original(*args, **kwargs)

    d.Worker.run_workflow = spy  # type: ignore[method-assign]
    try:
        await d.run([workflow], iterations=3)
    finally:
        del d.Worker.run_workflow
    assert [w["nodes"][0]["widgets_values"][1] for w in histories] == [5, 6, 7]
    assert [w["nodes"][0]["widgets_values"][4] for w in histories] == [7, 8, 9]
    assert workflow["nodes"][0]["widgets_values"][1] == 5


# ---------------------------------------------------------------------------------------------------------- pre-flight


async def test_all_problems_come_in_one_list_and_nothing_is_queued(d: Discomfort, log: str) -> None:
    broken = {**loads(log), "9": node("Nowhere")}
    lost = {"1": port("nobody gives this"), "2": port("out", ["1", 0])}
    clash = {"1": port("model"), "2": node("ImageInvert", image=["1", 0]), "3": port("picture", ["2", 0])}
    steps = [loads(log), clash, lost, ("branch", "a and", [lost], []), "no such file.json", broken]
    with pytest.raises(PreflightError) as caught:
        await d.run(steps, collect=["nothing"], loop_condition="1 +", seed_policy="often")
    kinds = [type(problem) for problem in caught.value.problems]
    assert kinds == [ConditionError, ConditionError, ValueError, FileNotFoundError, UnknownNodeError, PortTypeError]
    for text in ("steps[3]", "'1 +'", "seed_policy", "no such file.json", "Nowhere #9", "MODEL"):
        assert text in str(caught.value), text
    assert executions(log) == []


async def test_missing_values_come_together(d: Discomfort, log: str) -> None:
    with pytest.raises(MissingValueError) as caught:
        await d.run([uses(log)])
    assert "'model' of workflow 1" in str(caught.value)
    assert "'image' of workflow 1" in str(caught.value)


async def test_a_loop_condition_that_nothing_can_satisfy_is_refused(d: Discomfort) -> None:
    """A misspelt name would else be found after the first iteration."""
    with pytest.raises(MissingValueError, match=r"loop_condition.*'skore'"):
        await d.run([counts()], iterations=2, loop_condition="skore < 3")


async def test_a_type_clash_in_the_second_round_of_a_loop_is_found(d: Discomfort, log: str) -> None:
    swap = {**loads(log), "3": port("image"), "4": node("ImageInvert", image=["3", 0]), "5": port("done", ["4", 0])}
    swap["2"] = port("image", ["1", 0])
    assert (await d.run([swap], inputs={"image": picture()}))["done"].shape == (1, 4, 4, 3)
    with pytest.raises(PortTypeError, match=r"'image'.*IMAGE.*MODEL"):
        await d.run([swap], inputs={"image": picture()}, iterations=2)


async def test_nodes_of_another_version_are_refused(d: Discomfort, monkeypatch: pytest.MonkeyPatch) -> None:
    definitions = json.loads(json.dumps(await d.Worker.node_definitions()))
    del definitions["DiscomfortDataLoader"]["input"]["required"]["content"][1]["discomfort_protocol"]

    async def older() -> Any:
        return definitions

    monkeypatch.setattr(d.Worker, "node_definitions", older)
    with pytest.raises(ProtocolError, match=r"speak protocol 1, this script speaks 2"):
        await d.run([counts()])
    del definitions["DiscomfortPort"]
    with pytest.raises(PreflightError, match=r"no nodes of Discomfort \(DiscomfortPort\)"):
        await d.run([counts()])


# ------------------------------------------------------------------------------------- results are this run's own


async def test_a_blocked_port_is_an_error_that_names_it_and_no_older_value(d: Discomfort) -> None:
    blocked = {"1": port("image"), "2": node("RunTestBlock", image=["1", 0]), "3": port("result", ["2", 0])}
    with WorkflowContext() as context:
        context.save("result", "of an older run")
        with pytest.raises(WorkflowExecutionError, match=r"'result' \(node #3\) delivered nothing") as caught:
            await d.run([blocked], inputs={"image": picture()}, context=context)
        assert caught.value.node_id == "3"


async def test_a_branch_that_was_not_taken_leaves_no_older_value_in_the_result(d: Discomfort) -> None:
    with WorkflowContext() as context:
        context.save("numbers", "of an older run")
        result = await d.run([Branch(False, [counts()], [])], context=context)
    assert dict(result) == {}


# ------------------------------------------------------------------------------------------------ loops and branches


def arithmetic(operation: str, target: str, *sources: str) -> dict[str, Any]:
    """target = operation of the sources, on numbers; in a prompt of the pack's and core nodes."""
    prompt = {f"in{i}": port(source) for i, source in enumerate(sources)}
    if operation == "double":
        prompt["op"] = node("RunTestDouble", number=["in0", 0])
        prompt["out"] = port(target, ["op", 0])
    elif operation == "copy":
        prompt["out"] = port(target, ["in0", 0])
    return prompt


@pytest.mark.parametrize("start", [1, 2, 3])
async def test_loops_in_loops_in_loops_with_branches_compute_what_python_does(d: Discomfort, start: int) -> None:
    """Three levels, with branches on values and on the iteration, and a loop that its condition ends."""
    double = arithmetic("double", "x", "x")
    keep = arithmetic("copy", "best", "x")
    steps = [
        Loop(
            [
                Branch("x > 40", [arithmetic("copy", "x", "small")], [double]),
                Loop(
                    [
                        Loop([double], iterations=2, condition="x < 100"),
                        Branch("iteration == 1 and x < 300", [keep, double]),
                    ],
                    iterations=3,
                ),
            ],
            iterations=2,
        ),
        Branch("best > x", [arithmetic("copy", "x", "best")]),
    ]
    result = await d.run(
        steps, inputs={"x": start, "best": 0, "small": 3}, iterations=3, collect=["x"], loop_condition="x < 2000"
    )

    x, best, seen = start, 0, []
    for _ in range(3):
        if not x < 2000:
            break
        for _ in range(2):
            x = 3 if x > 40 else 2 * x
            for middle in range(3):
                for _ in range(2):
                    if not x < 100:
                        break
                    x *= 2
                if middle == 1 and x < 300:
                    best, x = x, 2 * x
        if best > x:
            x = best
        seen.append(x)
    assert result["x"] == seen
    assert result["best"] == best


async def test_a_per_iteration_list_and_a_condition_on_the_values(d: Discomfort) -> None:
    result = await d.run(
        [arithmetic("double", "y", "x")],
        inputs={"x": PerIteration([1, 5, 9, 13])},
        iterations=4,
        loop_condition=lambda values: values["y"] < 15 if "y" in values else True,
        collect=["y"],
    )
    assert result["y"] == [2, 10, 18]
