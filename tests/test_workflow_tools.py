"""run_sequential and its helpers, on a real nested server: the embedded one, and ComfyUI where COMFYUI_PATH names
one.
"""

from __future__ import annotations

import asyncio
import dataclasses
import glob
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from discomfort.comfy_serverless import UnknownNodeError
from discomfort.nodes_internal import RUN_KEY
from discomfort.progress_events import (
    IterationFinished,
    IterationStarted,
    NodeStarted,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
)
from discomfort.run_record import RunRecord, StepRecord
from discomfort.workflow_tools import DiscomfortWorkflowTools, MissingValueError, PreparedWorkflow
from prompt_parts import node, port

from discomfort import Branch, Discomfort, Loop, PerIteration, WorkflowContext, WorkflowExecutionError

EXAMPLES = Path(__file__).parent.parent / "examples" / "workflows"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["embedded", pytest.param("comfyui", marks=pytest.mark.real_comfyui)]
)
async def d(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Discomfort]:
    """A running Discomfort, shared by the tests of this file."""
    path = "embedded"
    if request.param == "comfyui":
        path = os.environ.get("COMFYUI_PATH", "")
        if path in ("", "embedded"):
            pytest.skip("COMFYUI_PATH names no ComfyUI")
    config = tmp_path_factory.mktemp("config") / "comfy_serverless.json"
    config.write_text(json.dumps({"COMFYUI_PATH": path, "INITIAL_PORT": 18600}))
    async with await Discomfort.create(config) as discomfort:
        yield discomfort


def passes(*names: str) -> dict[str, Any]:
    """A prompt that hands every name from an INPUT port to an OUTPUT port, through nothing."""
    prompt = {}
    for name in names:
        prompt[f"in {name}"] = port(name)
        prompt[f"out {name}"] = port(f"{name} out", [f"in {name}", 0])
    return prompt


# image -> 1 - image -> image
INVERT = {"1": port("image"), "2": node("ImageInvert", image=["1", 0]), "3": port("image", ["2", 0])}

# image -> image blended with white by half -> image: 1 - (1 - x) / 2
LIGHTEN = {
    "1": port("image"),
    "2": node("EmptyImage", width=8, height=8, batch_size=1, color=0xFFFFFF),
    "3": node("ImageBlend", image1=["1", 0], image2=["2", 0], blend_factor=0.5, blend_mode="normal"),
    "4": port("image", ["3", 0]),
}


def picture(value: float = 0.25) -> torch.Tensor:
    return torch.full((1, 8, 8, 3), value)


# ---- data flow ----


async def test_an_output_port_feeds_the_input_port_of_its_name_in_the_next_iteration(d: Discomfort) -> None:
    image = torch.rand(1, 8, 8, 3)
    result = await d.run([INVERT], inputs={"image": image}, iterations=3)
    assert torch.allclose(result["image"], 1 - image, atol=1e-6)
    assert result.record.iterations == 3


async def test_workflows_of_one_iteration_run_in_sequence(d: Discomfort) -> None:
    result = await d.run([INVERT, LIGHTEN], inputs={"image": picture(0.25)}, iterations=2)
    value = 0.25
    for _ in range(2):
        value = 1 - (1 - (1 - value)) / 2
    assert torch.allclose(result["image"], picture(value), atol=1e-6)


@pytest.mark.parametrize(
    "value",
    [3, 0.5, "text", True, None, [1, [2, 3]], {"a": (1, 2)}, {"samples": torch.ones(1, 4, 8, 8), "batch_index": [0]}],
    ids=repr,
)
async def test_any_value_arrives_as_it_was_given(d: Discomfort, value: Any) -> None:
    result = await d.run([passes("thing")], inputs={"thing": value})
    got = result["thing out"]
    if isinstance(value, dict) and "samples" in value:
        assert torch.equal(got["samples"], value["samples"])
        assert got["batch_index"] == [0]
    else:
        assert got == value
        assert type(got) is type(value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.bool], ids=str)
async def test_tensors_keep_dtype_shape_and_values(d: Discomfort, dtype: torch.dtype) -> None:
    value = (torch.rand(2, 3, 5) * 7).to(dtype)
    result = await d.run([passes("tensor")], inputs={"tensor": value})
    assert result["tensor out"].dtype == dtype
    assert torch.equal(result["tensor out"], value)


async def test_results_stay_readable_and_private_after_the_run(d: Discomfort) -> None:
    image = picture()
    first = await d.run([INVERT], inputs={"image": image})
    first["image"].mul_(0)
    second = await d.run([INVERT], inputs={"image": image})
    assert float(first["image"].sum()) == 0
    assert torch.allclose(second["image"], 1 - image)
    assert torch.equal(image, picture())


async def test_several_input_ports_of_one_name_get_the_same_value(d: Discomfort) -> None:
    blend = node("ImageBlend", image1=["1", 0], image2=["2", 0], blend_factor=0.5, blend_mode="normal")
    prompt = {"1": port("image"), "2": port("image"), "3": blend, "4": port("blended", ["3", 0])}
    result = await d.run([prompt], inputs={"image": picture(0.5)})
    assert torch.allclose(result["blended"], picture(0.5))


async def test_a_value_may_be_given_to_a_widget(d: Discomfort) -> None:
    empty = node("EmptyImage", width=["1", 0], height=4, batch_size=1, color=0)
    result = await d.run([{"1": port("width"), "2": empty, "3": port("image", ["2", 0])}], inputs={"width": 13})
    assert result["image"].shape == (1, 4, 13, 3)


async def test_an_editor_workflow_runs_from_its_file(d: Discomfort) -> None:
    image = torch.rand(1, 16, 16, 3)
    result = await d.run([EXAMPLES / "refine.json"], inputs={"image": image, "amount": 0.02}, iterations=2)
    assert result["image"].shape == image.shape
    assert not torch.allclose(result["image"], image)
    assert result.record.steps[0].workflow == "refine.json"


async def test_the_given_workflow_is_not_changed(d: Discomfort) -> None:
    before = json.dumps(INVERT)
    await d.run([INVERT], inputs={"image": picture()})
    assert json.dumps(INVERT) == before


async def test_concurrent_runs_get_their_own_results(d: Discomfort) -> None:
    runs = [d.run([LIGHTEN], inputs={"image": picture(i / 20)}, iterations=2) for i in range(12)]
    for i, result in enumerate(await asyncio.gather(*runs)):
        assert torch.allclose(result["image"], picture(1 - (1 - i / 20) / 4), atol=1e-6)


# ---- contexts ----


async def test_a_callers_context_is_left_as_it_is(d: Discomfort) -> None:
    with WorkflowContext() as context:
        context.save("mine", 7)
        await d.run([INVERT], inputs={"image": picture()}, context=context)
        assert context.load("mine") == 7
        assert torch.allclose(context.load("image"), 1 - picture())
        again = await d.run([INVERT], context=context)  # reads what the first run left
        assert torch.allclose(again["image"], picture())


async def test_collecting_leaves_nothing_of_its_own_in_a_callers_context(d: Discomfort) -> None:
    with WorkflowContext() as context:
        result = await d.run(
            [LIGHTEN], inputs={"image": picture(0.0)}, iterations=3, collect=["image"], context=context
        )
        assert context.list_keys() == ["image"]
    assert [float(image.mean()) for image in result["image"]] == pytest.approx([0.5, 0.75, 0.875])


async def test_a_failed_run_leaves_what_it_collected_in_a_callers_context(d: Discomfort) -> None:
    values = PerIteration([picture(0.5), "no picture"])
    prompt = {"1": port("given"), "2": node("ImageInvert", image=["1", 0]), "3": port("image", ["2", 0])}
    with WorkflowContext() as context:
        with pytest.raises(WorkflowExecutionError):
            await d.run([prompt], inputs={"given": values}, iterations=2, collect=["image"], context=context)
        assert float(context.load("image (iteration 0)").mean()) == pytest.approx(0.5)


async def test_a_run_removes_its_own_context(d: Discomfort) -> None:
    result = await d.run([INVERT], inputs={"image": picture()})
    with pytest.raises(FileNotFoundError):
        WorkflowContext(run_id=result.record.run_id, create=False)


async def test_use_ram_false_keeps_values_on_disk(d: Discomfort) -> None:
    with WorkflowContext() as context:
        await d.run([INVERT], inputs={"image": torch.rand(1, 256, 256, 3)}, context=context, use_ram=False)
        info = context.get_storage_info("image")
        assert info is not None
        assert info["storage_type"] == "disk"


# ---- loops, branches, conditions ----


async def test_collect_keeps_the_value_of_every_iteration(d: Discomfort) -> None:
    result = await d.run([LIGHTEN], inputs={"image": picture(0.0)}, iterations=4, collect=["image"])
    values = [float(image[0, 0, 0, 0]) for image in result["image"]]
    assert values == pytest.approx([0.5, 0.75, 0.875, 0.9375])
    assert result.collected["image"] is result["image"]


async def test_a_per_iteration_input_is_a_sequence_or_a_function_of_the_last_values(d: Discomfort) -> None:
    solid = {"1": port("color"), "2": node("EmptyImage", width=1, height=1, batch_size=1, color=["1", 0])}
    prompt = {**solid, "3": port("image", ["2", 0])}
    by_list = await d.run([prompt], inputs={"color": PerIteration([255, 65280])}, iterations=2, collect=["image"])
    assert [image.flatten().tolist() for image in by_list["image"]] == [[0, 0, 1], [0, 1, 0]]

    async def next_color(iteration: int, values: Any) -> int:
        return 255 if iteration == 0 else int(values["image"].flatten()[2]) * 65280

    by_function = await d.run([prompt], inputs={"color": PerIteration(next_color)}, iterations=2, collect=["image"])
    assert [image.flatten().tolist() for image in by_function["image"]] == [[0, 0, 1], [0, 1, 0]]


async def is_dark(values: Any) -> bool:
    return bool(values["image"].mean() < 0.9)


@pytest.mark.parametrize(
    "condition", ["mean(image) < 0.9", "iteration < 4", is_dark, lambda values: values["image"].mean() < 0.9]
)
async def test_a_loop_ends_when_its_condition_is_false(d: Discomfort, condition: Any) -> None:
    result = await d.run([LIGHTEN], inputs={"image": picture(0.0)}, iterations=50, loop_condition=condition)
    assert result.record.iterations == 4
    assert float(result["image"].mean()) == pytest.approx(0.9375)


async def test_a_loop_that_never_began_says_so_where_its_result_is_read(d: Discomfort) -> None:
    inputs = {"image": picture(1.0)}
    result = await d.run([LIGHTEN], inputs=inputs, iterations=5, loop_condition="mean(image) < 0.9")
    with pytest.raises(KeyError, match=r"no 'image'. No port delivered anything. The run had no iteration"):
        result["image"]


async def test_a_condition_on_an_output_that_does_not_exist_yet_lets_the_first_iteration_run(d: Discomfort) -> None:
    prompt = {"1": port("a"), "2": port("again", ["1", 0])}
    for condition in ("again", "again == 1", lambda values: values["again"]):
        result = await d.run([prompt], inputs={"a": PerIteration([1, 1, 0, 1])}, iterations=4, loop_condition=condition)
        assert result.record.iterations == 3


async def test_branches_and_nested_loops_compute_what_python_computes(d: Discomfort) -> None:
    steps = [
        Loop(body=[LIGHTEN], iterations=2),
        Branch("mean(image) > 0.8", then=[INVERT], otherwise=[LIGHTEN]),
        ("loop", [("branch", "iteration == 1", [INVERT])], 3),
    ]
    result = await d.run(steps, inputs={"image": picture(0.1)}, iterations=3)
    value = 0.1
    for _ in range(3):
        for _ in range(2):
            value = 1 - (1 - value) / 2
        value = 1 - value if value > 0.8 else 1 - (1 - value) / 2
        for i in range(3):
            value = 1 - value if i == 1 else value
    assert torch.allclose(result["image"], picture(value), atol=1e-5)


# ---- the cache ----


async def test_unchanged_inputs_leave_everything_cached_across_runs_and_changed_ones_do_not(d: Discomfort) -> None:
    image = torch.rand(1, 8, 8, 3)
    await d.run([INVERT], inputs={"image": image})
    same = await d.run([INVERT], inputs={"image": image.clone()})
    assert {"1", "2"} <= set(same.record.steps[0].cached_nodes)
    assert torch.allclose(same["image"], 1 - image)
    other = await d.run([INVERT], inputs={"image": image + 0.001})
    assert not {"1", "2"} & set(other.record.steps[0].cached_nodes)
    assert torch.allclose(other["image"], 1 - image - 0.001, atol=1e-6)


async def test_alternating_workflows_stay_cached(d: Discomfort) -> None:
    image = torch.rand(1, 8, 8, 3)
    for attempt in range(3):
        for prompt in (INVERT, LIGHTEN):
            result = await d.run([prompt], inputs={"image": image})
            if attempt:
                assert {"1", "2"} <= set(result.record.steps[0].cached_nodes)


async def test_a_server_that_holds_too_much_memory_is_asked_to_empty_its_cache(
    d: Discomfort, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    image = torch.rand(1, 8, 8, 3)
    await d.run([INVERT], inputs={"image": image})
    small = dataclasses.replace(d.Worker.config, MAX_SERVER_MEMORY_PERCENT=0.001)
    monkeypatch.setattr(d.Worker, "config", small)
    for _ in range(10):  # ComfyUI may run a prompt that is queued at once before it empties the cache
        result = await d.run([INVERT], inputs={"image": image})
        if "2" not in result.record.steps[0].cached_nodes:
            break
    else:
        pytest.fail("the cache was never emptied")
    assert "its cache is emptied" in caplog.text
    assert torch.allclose(result["image"], 1 - image)


# ---- refusals before anything runs ----


async def nothing_queued(d: Discomfort) -> bool:
    queue = await d.Worker._request("GET", "/queue")
    return not queue["queue_running"] and not queue["queue_pending"]


async def test_an_input_port_without_a_value_is_refused_naming_port_workflow_and_what_exists(d: Discomfort) -> None:
    ran: list[Any] = []
    with pytest.raises(MissingValueError) as error:
        await d.run([INVERT], inputs={"imagee": picture()}, progress=ran.append)
    text = str(error.value)
    assert "'image'" in text
    assert "workflow 1" in text
    assert "'imagee'" in text
    assert not any(isinstance(event, RunStarted) for event in ran)
    assert await nothing_queued(d)


async def test_a_later_workflow_that_nobody_feeds_is_refused_before_the_first_one_runs(d: Discomfort) -> None:
    ran: list[Any] = []
    with pytest.raises(MissingValueError, match="'mask'"):
        await d.run([INVERT, passes("mask")], inputs={"image": picture()}, progress=ran.append)
    assert not any(isinstance(event, StepStarted) for event in ran)


async def test_too_few_values_for_the_iterations_are_refused_before_the_first(d: Discomfort) -> None:
    ran: list[Any] = []
    values = PerIteration([picture(), picture()])
    with pytest.raises(ValueError, match=r"'image'.* 2 values .* 3 iterations"):
        await d.run([INVERT], inputs={"image": values}, iterations=3, progress=ran.append)
    assert not any(isinstance(event, RunStarted) for event in ran)


async def test_an_unused_input_is_reported(d: Discomfort, caplog: pytest.LogCaptureFixture) -> None:
    await d.run([INVERT], inputs={"image": picture(), "ammount": 1})
    assert "'ammount'" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iterations": 0}, "at least 1"),
        ({"iterations": 2.5}, "at least 1"),
        ({"loop_condition": "image <"}, "image <"),
        ({"loop_condition": "__import__('os')"}, "__import__"),
        ({"collect": ["nothing"]}, "nothing"),
        ({"collect": "image"}, "list of names"),
        ({"progress": 7}, "progress"),
    ],
)
async def test_bad_arguments_are_refused_with_a_sentence(d: Discomfort, arguments: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as error:
        await d.run([INVERT], inputs={"image": picture()}, **arguments)
    assert message in str(error.value)


async def test_an_unknown_argument_is_a_type_error(d: Discomfort) -> None:
    with pytest.raises(TypeError, match="loop_conditon"):
        await d.run([INVERT], inputs={"image": picture()}, loop_conditon="image")


async def test_a_missing_workflow_file_is_named(d: Discomfort) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        await d.run(["nowhere.json"])


async def test_two_output_ports_of_one_name_are_refused_naming_both(d: Discomfort) -> None:
    prompt = {"1": node("EmptyImage", width=1, height=1, batch_size=1, color=0)}
    prompt |= {"2": port("image", ["1", 0]), "3": port("image", ["1", 0])}
    with pytest.raises(ValueError, match=r"#?2.*#?3"):
        await d.run([prompt])


# ---- failures while it runs ----


async def test_a_node_that_raises_names_iteration_workflow_and_node_and_keeps_what_was_made(d: Discomfort) -> None:
    values = PerIteration([picture(0.5), picture(0.75), "no picture"])
    prompt = {"1": port("given"), "2": node("ImageInvert", image=["1", 0]), "3": port("image", ["2", 0])}
    with WorkflowContext() as context:
        with pytest.raises(WorkflowExecutionError) as caught:
            await d.run([prompt], inputs={"given": values}, iterations=3, context=context)
        assert float(context.load("image").mean()) == pytest.approx(0.25)
    error = caught.value
    assert (error.iteration, error.workflow, error.node_id, error.class_type) == (
        (2,),
        "workflow 1",
        "2",
        "ImageInvert",
    )
    assert error.title == "my ImageInvert"
    assert "TypeError" in str(error)
    assert error.server_traceback
    # the fault of the predecessor: the next run waited for ever, or gave the old picture
    result = await d.run([prompt], inputs={"given": picture(0.5)})
    assert float(result["image"].mean()) == pytest.approx(0.5)


async def test_the_servers_refusal_reaches_the_caller(d: Discomfort) -> None:
    prompt = {"1": node("EmptyImage", width=-3, height=1, batch_size=1, color=0), "2": port("image", ["1", 0])}
    with pytest.raises(WorkflowExecutionError, match=r"EmptyImage #1.*smaller than min"):
        await d.run([prompt])


async def test_an_unknown_node_in_a_prompt_is_named_with_its_title(d: Discomfort) -> None:
    with pytest.raises(UnknownNodeError, match=r"Nowhere #1 'my Nowhere'"):
        await d.run([{"1": node("Nowhere")}])


async def test_a_server_that_dies_is_restarted_and_the_step_runs_again(d: Discomfort) -> None:
    killed: list[int] = []

    def kill_once(event: Any) -> None:
        if isinstance(event, NodeStarted) and not killed:
            assert d.Worker._server is not None
            assert d.Worker._server.pid is not None
            killed.append(d.Worker._server.pid)
            os.kill(killed[0], signal.SIGKILL)

    result = await d.run([LIGHTEN], inputs={"image": picture(0.0)}, iterations=2, progress=kill_once)
    assert killed
    assert float(result["image"].mean()) == pytest.approx(0.75)
    # It died inside a step, which was repeated, or just after one, and the next step found it dead.
    assert d.Worker._server is not None
    assert d.Worker._server.pid not in (None, killed[0])


async def test_a_step_that_is_run_again_reads_the_loop_variable_that_it_had_read(d: Discomfort) -> None:
    """Its first execution had overwritten it already when the server died."""
    prompt = {
        "1": port("image"),
        "2": node("ImageInvert", image=["1", 0]),
        "3": port("image", ["2", 0]),
        # Enough work behind it for the server to be killed in the middle.
        "4": node("EmptyImage", width=1024, height=1024, batch_size=1, color=1),
        **{str(i): node("ImageBlur", image=[str(i - 1), 0], blur_radius=31, sigma=10.0) for i in range(5, 13)},
        "13": port("blurred", ["12", 0]),
    }
    begin = picture(0.25)
    killed: list[int] = []
    with WorkflowContext() as context:
        context.save("image", begin)
        first = context.digest("image")

        def kill_when_overwritten() -> None:
            deadline = time.monotonic() + 60
            while context.digest("image") == first:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            assert d.Worker._server is not None
            assert d.Worker._server.pid is not None
            killed.append(d.Worker._server.pid)
            os.kill(killed[0], signal.SIGKILL)

        killer = asyncio.create_task(asyncio.to_thread(kill_when_overwritten))
        result = await d.run([prompt], context=context)
        await killer
        assert [step.attempts for step in result.record.steps] == [2]
        assert float(result["image"].mean()) == pytest.approx(0.75)
        assert float(context.load("image").mean()) == pytest.approx(0.75)
    assert d.Worker._server is not None
    assert d.Worker._server.pid != killed[0]


async def test_cancelling_a_run_frees_the_server_and_removes_its_context(d: Discomfort) -> None:
    before = set(glob.glob("/dev/shm/discomfort-*/run-*"))
    started = asyncio.Event()

    def note(event: Any) -> None:
        if isinstance(event, NodeStarted):
            started.set()

    image = torch.rand(1, 512, 512, 3)
    run = asyncio.create_task(d.run([LIGHTEN], inputs={"image": image}, iterations=10_000, progress=note))
    await asyncio.wait_for(started.wait(), 60)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert set(glob.glob("/dev/shm/discomfort-*/run-*")) <= before
    deadline = time.monotonic() + 10
    while not await nothing_queued(d):
        assert time.monotonic() < deadline, "the cancelled prompt still runs"
        await asyncio.sleep(0.02)
    assert (await d.run([INVERT], inputs={"image": picture()}))["image"].shape == (1, 8, 8, 3)


# ---- progress and record ----


async def test_progress_events_tell_the_run_in_order(d: Discomfort) -> None:
    events: list[Any] = []
    await d.run([INVERT], inputs={"image": torch.rand(1, 8, 8, 3)}, iterations=2, progress=events.append)
    outline = [type(event) for event in events if not isinstance(event, NodeStarted)]
    one = [IterationStarted, StepStarted, StepFinished, IterationFinished]
    assert outline == [RunStarted, *one, *one, RunFinished]
    # The node that stands in for an INPUT port is told as the port that the user has drawn.
    classes = {event.class_type for event in events if isinstance(event, NodeStarted)}
    assert classes == {"ImageInvert", "DiscomfortPort"}
    assert events[-1].error is None


async def test_a_failed_run_ends_with_its_error(d: Discomfort) -> None:
    events: list[Any] = []
    with pytest.raises(WorkflowExecutionError) as caught:
        await d.run([INVERT], inputs={"image": "no picture"}, progress=events.append)
    assert isinstance(events[-1], RunFinished)
    assert events[-1].error is caught.value


async def test_the_record_says_what_it_cost_and_where(d: Discomfort) -> None:
    record = (await d.run([INVERT], inputs={"image": picture()}, iterations=2)).record
    parts = record.server_seconds + record.transfer_seconds + record.orchestrator_seconds
    assert 0 < parts + record.conversion_seconds + record.caller_seconds <= record.seconds * 1.001
    assert len(record.steps) == 2
    assert d.Worker.server_address in record.server
    assert json.loads(json.dumps(record.to_dict()))["steps"][1]["iteration"] == [1]
    assert "2 iterations" in record.summary()


# ---- helpers, one by one ----


async def test_extract_outputs_refuses_a_port_that_did_not_deliver_in_this_execution() -> None:
    from discomfort.prompt_graph import PromptTemplate

    prepared = PreparedWorkflow("w", None, PromptTemplate(INVERT), ("image",), {"image": "3"})
    step = StepRecord((4,), "w")
    messages = [["execution_start", {"timestamp": 1000}], ["execution_success", {"timestamp": 1250}]]
    good = {"outputs": {"3": {"discomfort": [{"unique_id": "image", "digest": "x", "seconds": 0.05}]}}}
    tools = DiscomfortWorkflowTools()
    tools._extract_outputs(prepared, {**good, "status": {"messages": messages}}, step)
    assert step.outputs == {"image": "x"}
    assert step.server_seconds == pytest.approx(0.2)
    with pytest.raises(WorkflowExecutionError, match=r"'image'.*delivered nothing"):
        tools._extract_outputs(prepared, {"outputs": {}, "status": {"messages": messages}}, step)


async def test_inject_inputs_names_content_and_marks_output_ports() -> None:
    from discomfort.prompt_graph import PromptTemplate

    prepared = PreparedWorkflow("w", None, PromptTemplate(INVERT), ("image",), {"image": "3"})
    with WorkflowContext() as context:
        context.save("image", picture())
        prompt = DiscomfortWorkflowTools()._inject_inputs(prepared, context)
        assert prompt["1"]["class_type"] == "DiscomfortDataLoader"
        assert prompt["1"]["inputs"] == {"unique_id": "image", "content": context.digest("image")}
        assert prompt["3"]["inputs"]["mode"] == "OUTPUT"
        assert RUN_KEY not in json.dumps(prompt)  # the run's id must not be part of ComfyUI's cache key
    assert INVERT["1"]["class_type"] == "DiscomfortPort"


async def test_the_record_adds_up() -> None:
    record = RunRecord("id", seconds=2.0, loading_seconds=0.25, conversion_seconds=0.5, caller_seconds=0.125)
    record.steps = [StepRecord((0,), "w", server_seconds=0.5, saving_seconds=0.125)]
    assert (record.server_seconds, record.transfer_seconds, record.orchestrator_seconds) == (0.5, 0.375, 0.5)
