"""Whole runs on a nested server with nodes that can be counted: references, lists, seeds, caches, pre-flight.

On the embedded server, and on the ComfyUI that COMFYUI_PATH names.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from discomfort.comfy_serverless import UnknownNodeError
from discomfort.control_flow import ConditionError
from discomfort.progress_events import NodeStarted, StepStarted
from discomfort.run_plan import MissingValueError, PortTypeError, PreflightError, ProtocolError
from discomfort.workflow_tools import StaleReferenceError
from editor_page import open_editor
from prompt_parts import executions, node, port

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
    folder = tmp_path_factory.mktemp("packs")
    if request.param == "comfyui":
        make_vaes(Path(path), folder)
    places = {"custom_nodes": {"base_path": str(TESTS), "custom_nodes": "run_packs"}}
    places["models"] = {"base_path": str(folder), "vae": "vae"}
    packs = folder / "packs.yaml"
    packs.write_text(json.dumps(places))
    command = f"python3 main.py --extra-model-paths-config '{packs}'"
    async with await Discomfort.create(write_config(COMFYUI_PATH=path, API_COMMAND_LINE=command)) as discomfort:
        yield discomfort


# Tiny VAEs of the architecture "TAESD", with random weights: what VAELoader takes for a model like any other.
MAKE_VAES = """
import sys, torch
from comfy.cli_args import args
args.cpu = True
from comfy.taesd.taesd import TAESD
from safetensors.torch import save_file

for seed, name in enumerate(("one", "two")):
    torch.manual_seed(seed)
    # ComfyUI leaves the weights of a new model as they lie in memory.
    weights = {key: torch.randn(value.shape) / 20 for key, value in TAESD(latent_channels=4).state_dict().items()}
    save_file(weights, f"{sys.argv[1]}/{name}.safetensors")
"""


def make_vaes(comfyui: Path, folder: Path) -> None:
    """Have ComfyUI's own code make two tiny VAEs in folder/vae."""
    (folder / "vae").mkdir()
    python = next(p for p in (*comfyui.glob("*venv/bin/python"), Path(sys.executable)) if p.exists())
    command = [str(python), "-c", MAKE_VAES, str(folder / "vae")]
    subprocess.run(command, cwd=comfyui, env={**os.environ, "PYTHONPATH": str(comfyui)}, check=True)


@pytest.fixture
def log(tmp_path: Path) -> str:
    """The file in which the pack's nodes note their executions."""
    return str(tmp_path / "executions.txt")


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


async def test_alternating_workflows_load_a_real_vae_once_each(d: Discomfort) -> None:
    """On ComfyUI, told by its own messages about what came from the cache."""
    if "VAELoader" not in await d.Worker.node_definitions():
        pytest.skip("the embedded server has no models")
    load = {
        name: {"1": node("VAELoader", vae_name=f"{name}.safetensors"), "2": port("vae", ["1", 0])}
        for name in ("one", "two")
    }
    use = {
        "1": port("vae"),
        "2": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "3": node("VAEDecode", samples=["2", 0], vae=["1", 0]),
        "4": port("image", ["3", 0]),
    }
    nodes: list[str] = []

    def listen(event: Any) -> None:
        if isinstance(event, StepStarted):
            nodes.append(event.workflow)
        elif isinstance(event, NodeStarted):
            nodes.append(event.class_type)

    def loads_and_decodes() -> tuple[int, int]:
        found = nodes.count("VAELoader"), nodes.count("VAEDecode")
        nodes.clear()
        return found

    result = await d.run([load["one"], use, load["two"], use], iterations=3, progress=listen)
    assert loads_and_decodes() == (2, 2)
    assert result["image"].shape == (1, 64, 64, 3)
    other = await d.run([load["one"], use], progress=listen)
    assert loads_and_decodes() == (0, 0)
    assert not torch.equal(other["image"], result["image"])
    # It left the server for good, and is loaded from its recipe.
    await d.Worker.free()
    again = await d.run([use], inputs={"vae": other["vae"]}, progress=listen)
    assert loads_and_decodes() == (1, 1)
    assert torch.equal(again["image"], other["image"])


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


async def test_a_recipe_that_reads_a_value_follows_it_and_says_when_it_has_changed(
    d: Discomfort, log: str, caplog: pytest.LogCaptureFixture
) -> None:
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
    with pytest.raises(StaleReferenceError, match=r"from 'amount', which this run does not have\. Give it"):
        await d.run([use], inputs={"image": picture(), "patched": result["patched"]})
    # As an input it is used, although no port of this run reads it.
    caplog.clear()
    await d.run([use], inputs={"image": picture(0.0), "patched": result["patched"], "amount": 2.0})
    assert "is used by no INPUT port" not in caplog.text


async def test_what_is_handed_on_stays_a_reference(d: Discomfort, log: str) -> None:
    """From port to port, through nothing, whatever the rules say of a type that nobody knows."""
    renames = {"1": port("model"), "2": port("other", ["1", 0])}
    use = {**uses(log), "1": port("other")}
    result = await d.run([loads(log), renames, use], inputs={"image": picture(0.0)})
    assert torch.allclose(result["image"], picture(0.04))
    assert result["other"]["prompt"] == result["model"]["prompt"]


async def test_a_switch_hands_a_reference_on_too(d: Discomfort, log: str) -> None:
    """Whose output is of no type that a definition tells: what comes into it does, here or in the workflow before."""
    here = {**loads(log), "5": node("RunTestPass", anything=["1", 0]), "2": port("model", ["5", 0])}
    there = {"1": port("model"), "5": node("RunTestPass", anything=["1", 0]), "2": port("other", ["5", 0])}
    use = {**uses(log), "1": port("other")}
    result = await d.run([here, there, use], inputs={"image": picture(0.0)})
    assert torch.allclose(result["image"], picture(0.04))
    assert (result["model"]["type"], result["other"]["type"]) == ("MODEL", "MODEL")
    assert executions(log) == ["load base", "use"]
    # A number goes through the same node by value.
    numbers = {**there, "1": port("number")}
    assert (await d.run([numbers], inputs={"number": 3}))["other"] == 3


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


async def test_an_editor_workflow_delivers_by_reference_too(d: Discomfort, log: str) -> None:
    workflow = seeded()
    load, delivers = workflow["nodes"]
    load.update(type="RunTestLoadModel", widgets_values=["base", log])
    load["outputs"] = [
        {"name": kind, "type": kind, "links": [1] if kind == "MODEL" else []} for kind in ("MODEL", "CLIP", "VAE")
    ]
    delivers["widgets_values"] = ["model", ""]
    workflow["links"] = [[1, 1, 0, 2, 0, "MODEL"]]
    result = await d.run([workflow, uses(log)], inputs={"image": picture(0.0)}, iterations=2)
    assert torch.allclose(result["image"], picture(0.08))
    assert executions(log) == ["load base", "use", "use"]


async def test_what_is_no_recipe_is_told(d: Discomfort, log: str) -> None:
    """A dict that somebody saved by reference, or that changes from iteration to iteration."""
    with WorkflowContext() as context:
        context.save("model", {"class_type": "CheckpointLoaderSimple"}, pass_by="ref")
        with pytest.raises(WorkflowExecutionError, match=r"'model' .*not whole|version None"):
            await d.run([uses(log)], inputs={"image": picture()}, context=context)
    changed = PerIteration([{"discomfort_recipe": 1, "prompt": {}}])
    with pytest.raises(WorkflowExecutionError, match=r"'model'.*not whole"):
        await d.run([uses(log)], inputs={"image": picture(), "model": changed})


async def test_a_collected_reference_is_the_recipe_of_each_iteration(d: Discomfort, log: str) -> None:
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


# ------------------------------------------------------------------------------------------------------------- caching


async def test_what_the_docs_say_of_the_cache_is_what_the_server_tells(
    d: Discomfort, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both tables of docs/concepts/cache.md: one input of five changes; two workflows in turn."""
    monkeypatch.syspath_prepend(str(TESTS.parent / "benchmarks"))
    import caching

    docs = (TESTS.parent / "docs" / "concepts" / "cache.md").read_text(encoding="utf-8")
    for table in await caching.tables(d):
        assert table in docs


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


# --------------------------------------------------------------------------------- seeds, as the editor itself does it

# What the editor's button does to its widgets, without queueing: the prompt that it would send, again and again.
QUEUE = """async (count) => {
    const root = app.rootGraph ?? app.graph
    const graphs = [root, ...(root.subgraphs?.values() ?? [])]
    const widgets = graphs.flatMap((graph) => graph._nodes.flatMap((node) => node.widgets ?? []))
    const prompts = []
    for (let i = 0; i < count; i++) {
        for (const widget of widgets) widget.beforeQueued?.()
        prompts.push((await app.graphToPrompt()).output)
        for (const widget of widgets) widget.afterQueued?.()
    }
    return prompts
}"""


def driven(target: str, kind: str, values: list[Any]) -> dict[str, Any]:
    """The workflow of `seeded`, with a PrimitiveNode that drives one of its widgets."""
    workflow = seeded("increment")  # as for the second seed
    names = ["mode", "seed", "steps", "noise_seed", "sampler"]
    types = ["COMBO", "INT", "INT", "INT", "COMBO"]
    workflow["nodes"][0]["inputs"] = [
        {"name": name, "type": type_, "link": 2 if name == target else None, "widget": {"name": name}}
        for name, type_ in zip(names, types, strict=True)
    ]
    primitive = {
        "id": 3,
        "type": "PrimitiveNode",
        "pos": [-300, 0],
        "size": [200, 100],
        "outputs": [{"name": kind, "type": kind, "links": [2], "widget": {"name": target}}],
        "properties": {"Run widget replace on values": False},
        "widgets_values": values,
    }
    workflow["nodes"].append(primitive)
    workflow["links"].append([2, 3, 0, 1, names.index(target), kind])
    return workflow


def in_subgraph(mode: str) -> dict[str, Any]:
    """The workflow of `seeded`, with its first node inside a subgraph."""
    workflow = seeded(mode)
    inner, outer_port = workflow["nodes"]
    identity = "0c1f0a52-6d3f-4b7e-9a52-1f6a3f0f9b11"
    inner["outputs"][0]["links"] = [1]
    definition = {
        "id": identity,
        "version": 1,
        "name": "Seeds",
        "state": {"lastNodeId": 1, "lastLinkId": 1, "lastGroupId": 0, "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "inputNode": {"id": -10, "bounding": [-200, 0, 120, 60]},
        "outputNode": {"id": -20, "bounding": [400, 0, 120, 60]},
        "inputs": [],
        "outputs": [{"id": "4b0d2f6e-7f5f-4a55-8f9a-2f1d7d8f7c01", "name": "STRING", "type": "STRING", "linkIds": [1]}],
        "widgets": [],
        "nodes": [inner],
        "groups": [],
        "links": [{"id": 1, "origin_id": 1, "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": "STRING"}],
        "extra": {},
    }
    host = {
        "id": 5,
        "type": identity,
        "pos": [0, 0],
        "size": [200, 100],
        "inputs": [],
        "outputs": [{"name": "STRING", "type": "STRING", "links": [1]}],
        "properties": {},
        "widgets_values": [],
    }
    return {
        **workflow,
        "nodes": [host, outer_port],
        "links": [[1, 5, 0, 2, 0, "STRING"]],
        "definitions": {"subgraphs": [definition]},
        "last_node_id": 5,
    }


def shown_by_a_subgraph(mode: str, inner_links: bool) -> dict[str, Any]:
    """The workflow of `in_subgraph`, whose node shows the seed as its own widget: linked inside, or merely listed."""
    workflow = in_subgraph(mode)
    host, definition = workflow["nodes"][0], workflow["definitions"]["subgraphs"][0]
    if not inner_links:
        host["properties"] = {"proxyWidgets": [["1", "seed"], ["1", "control_after_generate"]]}
        return workflow
    widget = {"name": "seed", "type": "INT", "widget": {"name": "seed"}}
    definition["nodes"][0]["inputs"] = [{**widget, "link": 2}]
    definition["inputs"] = [
        {"id": "7a0d2f6e-7f5f-4a55-8f9a-2f1d7d8f7c02", "name": "seed", "type": "INT", "linkIds": [2]}
    ]
    inner_link = {"id": 2, "origin_id": -10, "origin_slot": 0, "target_id": 1, "target_slot": 0, "type": "INT"}
    definition["links"].append(inner_link)
    definition["state"]["lastLinkId"] = 2
    host.update(inputs=[{**widget, "link": None}], widgets_values=[40], properties={"proxyWidgets": [["-1", "seed"]]})
    return workflow


# Without a filter of choices: frontend 1.58 shows it and forgets it, 1.27 goes by it, and so does a run.
CONTROLLED = {
    "its own widgets": seeded("increment"),
    "downwards, to the bound": seeded("decrement", 2),
    "fixed": seeded("fixed"),
    "a primitive's seed": driven("seed", "INT", [5, "increment"]),
    "a primitive's number, to the bound": driven("steps", "INT", [98, "increment"]),
    "a primitive that says nothing": driven("steps", "INT", [50]),
    "a primitive's choice": driven("sampler", "COMBO", ["heun", "increment", ""]),
    "a primitive's choice, round": driven("sampler", "COMBO", ["heun", "increment-wrap", ""]),
    "a primitive's choice of a misleading name": driven("mode", "COMBO", ["random", "decrement", ""]),
    "in a subgraph": in_subgraph("increment"),
    "the widget of a subgraph": shown_by_a_subgraph("increment", inner_links=True),
    "listed by a subgraph": shown_by_a_subgraph("increment", inner_links=False),
}


async def test_seeds_go_exactly_as_in_the_editor(d: Discomfort) -> None:
    """Each workflow is queued five times there, in the real frontend, and run five times here."""

    def modes_of(workflow: dict[str, Any]) -> list[Any]:
        subgraphs = (workflow.get("definitions") or {}).get("subgraphs") or []
        nodes = [node for level in (workflow, *subgraphs) for node in level["nodes"]]
        values = next(node["widgets_values"] for node in nodes if node["type"] == "RunTestSeeds")
        return [values[2], values[5]]

    misread: list[str] = []
    async with open_editor(d.Worker.server_address) as editor:
        version = await editor.page.evaluate("window.__COMFYUI_FRONTEND_VERSION__")
        is_old = tuple(map(int, version.split(".")[:2])) < (1, 49)
        for name, workflow in CONTROLLED.items():
            # From 7 the second seed reaches its bound, 9, which the editor does not leave: that far they agree.
            if is_old and name == "listed by a subgraph":
                continue  # 1.27 still changed those; the newest frontends count
            opened = await editor.load(workflow)
            if modes_of(opened.saved) != modes_of(workflow):
                misread.append(name)
                continue
            prompts = await editor.page.evaluate(QUEUE, 3)
            expected = [next(n for n in p.values() if n["class_type"] == "RunTestSeeds")["inputs"] for p in prompts]
            result = await d.run([workflow], iterations=3, collect=["seeds"])
            fields = ("seed", "noise_seed", "steps", "sampler", "mode")
            assert result["seeds"] == [" ".join(str(e[f]) for f in fields) for e in expected], name
    # Frontend 1.49 takes the two modes of a node with two seeds for one; it agrees wherever they are the same.
    assert len(misread) < len(CONTROLLED) / 2, misread


# ------------------------------------------------------------------------------------- whole, in sequence, stitched

# node type -> (names of its image inputs, its other widgets drawn at random)
OPERATIONS: dict[str, tuple[tuple[str, ...], Callable[[random.Random], list[Any]]]] = {
    "ImageInvert": (("image",), lambda rng: []),
    "ImageBlur": (("image",), lambda rng: [rng.randint(1, 2), rng.choice([0.5, 1.0])]),
    "ImageSharpen": (("image",), lambda rng: [1, 1.0, rng.choice([0.5, 1.5])]),
    "ImageBlend": (("image1", "image2"), lambda rng: [rng.choice([0.25, 0.5]), rng.choice(["normal", "multiply"])]),
    "ImageFlip": (("image",), lambda rng: [rng.choice(["x-axis: vertically", "y-axis: horizontally"])]),
}


class Drawing:
    """Builds an editor workflow."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.links: list[list[Any]] = []

    def add(
        self, kind: str, names: Sequence[str], origins: Sequence[int], values: list[Any], type_: str = "IMAGE"
    ) -> int:
        identity = len(self.nodes) + 1
        slots = []
        for slot, (name, origin) in enumerate(zip(names, origins, strict=True)):
            link = len(self.links) + 1
            self.links.append([link, origin, 0, identity, slot, "IMAGE"])
            self.nodes[origin - 1]["outputs"][0]["links"].append(link)
            slots.append({"name": name, "type": type_, "link": link})
        self.nodes.append(
            {
                "id": identity,
                "type": kind,
                "pos": [identity * 250, identity % 3 * 150],
                "size": [200, 100],
                "inputs": slots,
                "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": []}],
                "widgets_values": values,
            }
        )
        return identity

    def port(self, name: str, *origin: int) -> int:
        return self.add("DiscomfortPort", ["input_data"] if origin else [], origin, [name, ""], "*")

    def reroute(self, origin: int) -> int:
        return self.add("Reroute", [""], [origin], [], "*")

    def done(self, version: float) -> dict[str, Any]:
        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        links: list[Any] = [dict(zip(keys, link, strict=True)) for link in self.links] if version == 1 else self.links
        ids = {"last_node_id": len(self.nodes), "last_link_id": len(self.links)}
        if version == 1:
            ids = {"state": {"lastNodeId": len(self.nodes), "lastLinkId": len(self.links), "lastGroupId": 0}}
        return {"nodes": self.nodes, "links": links, "groups": [], "version": version, **ids}


def random_workflows(rng: random.Random) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A random graph of image operations cut into partial workflows, with ports on the cuts; and the same in one."""
    size, pieces = rng.randint(3, 12), rng.randint(2, 4)
    kinds = [rng.choice(list(OPERATIONS)) for _ in range(size)]
    # -1 is the picture that is given.
    parents = [[rng.randrange(-1, i) for _ in OPERATIONS[kind][0]] for i, kind in enumerate(kinds)]
    values = [OPERATIONS[kind][1](rng) for kind in kinds]
    home = sorted(rng.randrange(pieces) for _ in range(size))
    needed = {size - 1}
    for i in reversed(range(size)):
        needed |= set(parents[i]) if i in needed else set()
    crossing = {p for i in needed - {-1} for p in parents[i] if p >= 0 and home[p] != home[i]}

    def draw(mine: list[int], version: float, is_whole: bool) -> dict[str, Any]:
        drawing, made = Drawing(), dict[int, int]()
        for i in mine:
            for p in parents[i]:
                if p not in made:
                    made[p] = drawing.port("start" if p < 0 else f"v{p}")
            origins = [made[p] if rng.random() < 0.7 else drawing.reroute(made[p]) for p in parents[i]]
            made[i] = drawing.add(kinds[i], OPERATIONS[kinds[i]][0], origins, values[i])
            if not is_whole and i in crossing:
                drawing.port(f"v{i}", made[i])
        if size - 1 in mine:
            drawing.port("result", made[size - 1])
        return drawing.done(version)

    parts = [[i for i in range(size) if i in needed and home[i] == piece] for piece in range(pieces)]
    drawn = [draw(mine, rng.choice([0.4, 1]), False) for mine in parts if mine]
    return drawn, draw(sorted(needed - {-1}), 0.4, True)


@pytest.mark.parametrize("seed", range(8))
async def test_whole_in_sequence_and_stitched_give_the_same_picture(d: Discomfort, seed: int) -> None:
    rng = random.Random(seed)
    parts, whole = random_workflows(rng)
    inputs = {"start": torch.rand(1, 8, 8, 3, generator=torch.Generator().manual_seed(seed))}
    expected = (await d.run([whole], inputs))["result"]
    mixed = [await d.Worker.get_prompt_from_workflow(part) if rng.random() < 0.4 else part for part in parts]
    assert torch.equal((await d.run(mixed, inputs))["result"], expected)
    for delete_in, delete_out in ((False, False), (True, True)):
        stitched = d.Tools.stitch_workflows(parts, delete_in, delete_out)
        result = await d.run([stitched["stitched_workflow"]], inputs)
        assert torch.equal(result["result"], expected)
        assert set(result) == set(stitched["outputs"])
