"""How prompts are executed: order, inputs, lazy inputs, async nodes, what nodes show, errors and interruption."""

from __future__ import annotations

import itertools
import json
import uuid
from typing import Any

import pytest
from conformance.differences import expected
from conformance.driver import Client, Run, Server, link, node, show

_SUM = {
    "1": node("TinyNumber", value=3),
    "2": node("TinyAdd", a=link("1"), b=4),
    "9": node("TinyShow", value=link("2")),
}


def _error(run: Run) -> dict[str, Any]:
    """The one error of a prompt that failed, which the history has too."""
    assert run.history["status"]["status_str"] == "error"
    assert run.history["status"]["completed"] is False
    assert run.types()[-2] in ("execution_error", "status")
    assert "execution_success" not in run.types()
    return run.error()


# -- order, messages, history --------------------------------------------------------------------------------


async def test_a_prompt_runs_in_the_order_of_its_links(client: Client) -> None:
    """Three nodes, one after the other, and what the last one shows is in the history."""
    run = await client.run(_SUM)
    assert run.ran() == ["1", "2", "9"]
    assert run.shown("9") == [7]
    assert run.history["status"]["status_str"] == "success"


async def test_the_client_is_told_every_step(client: Client) -> None:
    """The messages of a prompt of three nodes, all of them, in order."""
    run = await client.run(_SUM)
    steps = []
    for kind, data in run.messages:
        if kind == "progress_state":
            assert data["prompt_id"] == run.prompt_id
            steps.append("".join(f"{i}{n['state'][0]}" for i, n in data["nodes"].items()))
        elif kind != "status":
            steps.append(f"{kind} {data.get('node', '')}".strip())
    assert steps == [
        *("execution_start", "execution_cached"),
        *("1r", "executing 1", "1f"),
        *("1f2r", "executing 2", "1f2f"),
        *("1f2f9r", "executing 9", "executed 9", "1f2f9f"),
        *("execution_success", "executing None"),
    ]
    assert [data["status"]["exec_info"]["queue_remaining"] for data in run.data("status")][-1] == 0
    for kind in ("execution_start", "execution_cached", "execution_success"):
        (data,) = run.data(kind)
        assert set(data) == {"prompt_id", "timestamp"} | ({"nodes"} if kind == "execution_cached" else set())
        assert data["timestamp"] > 1.6e12
    assert run.data("executed")[0] == {
        "node": "9",
        "display_node": "9",
        "output": {"values": [7]},
        "prompt_id": run.prompt_id,
    }
    assert run.data("executing")[0] == {"node": "1", "display_node": "1", "prompt_id": run.prompt_id}


async def test_the_history_has_the_prompt_its_outputs_and_its_messages(client: Client) -> None:
    """The whole entry, ``_meta`` and inputs nobody knows included."""
    prompt = json.loads(json.dumps(_SUM))
    prompt["1"]["_meta"] = {"title": "A number"}
    prompt["1"]["inputs"]["nobody"] = {"knows": ["this"]}
    prompt["2"]["more"] = 5
    run = await client.run(prompt, extra_data={"extra_pnginfo": {"workflow": {"id": "w"}}})
    number, prompt_id, kept, extra, outputs = run.history["prompt"][:5]
    assert number == run.response["number"]
    assert prompt_id == run.prompt_id
    assert kept == prompt
    assert extra["extra_pnginfo"] == {"workflow": {"id": "w"}}
    assert extra["client_id"] == client.sid
    assert outputs == ["9"]
    assert run.history["outputs"] == {"9": {"values": [7]}}
    assert run.history["meta"] == {"9": {"node_id": "9", "display_node": "9", "parent_node": None, "real_node_id": "9"}}
    status = run.history["status"]
    assert (status["status_str"], status["completed"]) == ("success", True)
    assert [event for event, _ in status["messages"]] == ["execution_start", "execution_cached", "execution_success"]
    assert [data for _, data in status["messages"]] == [run.data(event)[0] for event, _ in status["messages"]]


async def test_progress_says_which_node_it_is_of(server: Server, client: Client) -> None:
    """``progress`` for old clients, ``progress_state`` for new ones; the last value is the node's maximum."""
    prompt = show(link("1"), **{"1": node("ExecSteps", values="1,3,+2,9", total=4)})
    run = await client.run(prompt)
    told = [1, 3, 4, 4] if server.version < (0, 11) else [p["value"] for p in run.data("progress")]
    # Later versions leave out steps that come right after another.
    assert (told[0], told[-1]) == (1, 4)
    assert [(p["value"], p["max"], p["node"], p["prompt_id"]) for p in run.data("progress")] == [
        (value, 4, "1", run.prompt_id) for value in told
    ]
    states = [data["nodes"]["1"] for data in run.data("progress_state")]
    assert [(s["value"], s["max"], s["state"]) for s in states[: len(told) + 2]] == [
        (0.0, 1.0, "running"),
        *((value, 4, "running") for value in told),
        (4, 4, "finished"),
    ]
    assert set(states[0]) == {
        *("value", "max", "state", "node_id", "prompt_id"),
        *("display_node_id", "parent_node_id", "real_node_id"),
    }


async def test_progress_of_another_node(client: Client) -> None:
    """A progress bar may be given another node's id."""
    run = await client.run(show(link("1"), **{"1": node("ExecSteps", values="1", total=2, node="77")}))
    assert [(p["value"], p["node"]) for p in run.data("progress")] == [(1, "77")]
    last = run.data("progress_state")[-1]["nodes"]
    assert (last["77"]["value"], last["77"]["max"], last["77"]["state"]) == (1, 2, "running")
    assert last["1"]["state"] == "finished"


async def test_without_a_client_nobody_is_told(server: Server, client: Client) -> None:
    """A prompt without client_id: no messages but the status, and one entry in the history."""
    prompt_id = str(uuid.uuid4())
    async with client.session.post(server.url + "/prompt", json={"prompt": _SUM, "prompt_id": prompt_id}) as answer:
        assert answer.status == 200
        assert (await answer.json())["prompt_id"] == prompt_id
    messages = await _until_done(client)
    # How far its nodes are is told to all.
    assert {kind for kind, _ in messages} == {"status", "progress_state"}
    entry = (await client.get(f"/history/{prompt_id}"))[prompt_id]
    assert entry["outputs"] == {"9": {"values": [7]}}
    assert "client_id" not in entry["prompt"][3]
    # Errors are not sent to everybody either.
    failing = show(link("1"), **{"1": node("TinyFail", a=1, what="value")})
    async with client.session.post(server.url + "/prompt", json={"prompt": failing}) as answer:
        prompt_id = (await answer.json())["prompt_id"]
    assert {kind for kind, _ in await _until_done(client)} == {"status", "progress_state"}
    events = [event for event, _ in (await client.get(f"/history/{prompt_id}"))[prompt_id]["status"]["messages"]]
    assert events == ["execution_start", "execution_cached", "execution_error"]


async def test_a_blocked_value_and_an_interruption_are_told_to_everybody_where_there_is_no_client(
    server: Server, client: Client
) -> None:
    """These two messages are sent to all when the prompt names no client."""
    blocked = show(link("1"), **{"1": node("TinyBlock", message="no", bare=False)})
    async with client.session.post(server.url + "/prompt", json={"prompt": blocked}) as answer:
        prompt_id = (await answer.json())["prompt_id"]
    messages = await _until_done(client)
    assert [data["exception_type"] for kind, data in messages if kind == "execution_error"] == ["ExecutionBlocked"]
    spinning = show(link("1"), **{"1": node("TinySpin", seconds=30, seed=1)})
    async with client.session.post(server.url + "/prompt", json={"prompt": spinning}) as answer:
        prompt_id = (await answer.json())["prompt_id"]
    await client.receive_until("progress_state", prompt_id=prompt_id)
    await client.post("/interrupt")
    messages = await client.receive_until("execution_interrupted")
    assert messages[-1][1]["prompt_id"] == prompt_id
    await _until_done(client)


async def _until_done(client: Client) -> list[tuple[Any, Any]]:
    """The messages until all prompts queued so far are done."""
    status, response = await client.queue({"1": node("TinyShow", value=1)})
    assert status == 200
    messages = await client.receive_until("execution_start", prompt_id=response["prompt_id"])
    await client.receive_until("executing", node=None, prompt_id=response["prompt_id"])
    return messages[:-1]


# -- what nodes get ------------------------------------------------------------------------------------------


async def test_nodes_get_their_declared_inputs(client: Client) -> None:
    """Constants that are not declared are left out, links that are not are passed; defaults are the node's."""
    prompt = {
        "1": node("TinyNumber", value=3),
        "2": node("ExecDeclared", a=1, b=link("1"), raw=link("1"), other="left out", linked=link("1")),
        "3": node("ExecDeclared", a=1, secret="told"),
        "8": node("TinyShow", value=link("3")),
        "9": node("TinyShow", value=link("2")),
    }
    run = await client.run(prompt)
    assert run.shown("9") == ["a=1 b=3 linked=3 raw=['1', 0]"]
    assert run.shown("8") == ["a=1 secret=told"]


async def test_optional_inputs_of_any_name(client: Client) -> None:
    """A dict that claims to have every name makes all inputs declared: links, constants and raw links."""
    prompt = {
        "1": node("TinyNumber", value=3),
        "2": node("ExecDynamic", any_1=link("1"), any_2="text", any_3={"x": 1}, raw_4=link("1")),
        "9": node("TinyShow", value=link("2")),
    }
    run = await client.run(prompt)
    assert run.shown("9") == ["any_1=3 any_2=text any_3={'x': 1} node_id=2 raw_4=['1', 0]"]


async def test_hidden_inputs(client: Client) -> None:
    """All of them; what extra_data does not have is None."""
    prompt = {"1": {**node("ExecHidden", seed=1), "_meta": {"title": "t"}}}
    extra = {
        "extra_pnginfo": {"workflow": {"id": 5}},
        "auth_token_comfy_org": "token",
        "api_key_comfy_org": "key",
    }
    run = await client.run(prompt, extra_data=extra)
    (shown,) = run.shown("1", "hidden")
    assert shown == {
        "seed": 1,
        "extra_pnginfo": {"workflow": {"id": 5}},
        "unique_id": "1",
        "auth_token_comfy_org": "token",
        "api_key_comfy_org": "key",
        "prompt_is_original": True,
        "node": prompt["1"],
        "relatives": ["1", "1", None],
        "nodes": ["1"],
    }
    run = await client.run({"1": node("ExecHidden", seed=2)})
    (shown,) = run.shown("1", "hidden")
    assert [shown[key] for key in ("extra_pnginfo", "auth_token_comfy_org", "api_key_comfy_org")] == [None] * 3


async def test_secrets_of_extra_data_are_in_no_history(client: Client) -> None:
    """Nodes get the tokens, clients do not."""
    extra = {"auth_token_comfy_org": "a secret", "api_key_comfy_org": "a secret", "other": "to be seen"}
    run = await client.run({"1": node("ExecHidden", seed=3)}, extra_data=extra)
    assert "a secret" not in json.dumps(run.history["prompt"])
    assert run.history["prompt"][3]["other"] == "to be seen"


async def test_secrets_in_an_error(client: Client, server: Server) -> None:
    """It shows what the failing node was called with, to its client and to whoever reads the history."""
    extra = {"auth_token_comfy_org": "a secret", "api_key_comfy_org": "a key", "extra_pnginfo": "to be seen"}
    run = await client.run({"1": node("ExecHidden", seed=-1)}, extra_data=extra)
    (error,) = run.data("execution_error")
    token, key = expected(server, "secrets", comfyui=("a secret", "a key"), embedded=("(secret)", "(secret)"))
    assert error["current_inputs"] == {
        **error["current_inputs"],
        "seed": [-1],
        "extra_pnginfo": ["to be seen"],
        "auth_token_comfy_org": [token],
        "api_key_comfy_org": [key],
    }
    assert ("a secret" in json.dumps(run.history)) == expected(server, "secrets", comfyui=True, embedded=False)


async def test_node_ids_may_be_any_text(client: Client) -> None:
    """Also with dots, colons, spaces and more, and in links."""
    ids = ["a:b", "1.0.0.1", " ", "é\n", "0"]
    prompt = {ids[0]: node("TinyNumber", value=1)}
    for before, after in itertools.pairwise(ids):
        prompt[after] = node("TinyAdd", a=link(before), b=1)
    prompt["show it"] = node("TinyShow", value=link(ids[-1]))
    run = await client.run(prompt)
    assert run.ran() == [*ids, "show it"]
    assert run.shown("show it") == [5]


async def test_a_link_may_have_a_float_as_slot(client: Client) -> None:
    """Some clients' JSON has them; but validation takes it as an index first."""
    run = await client.run(show(["1", 0.0], **{"1": node("TinyNumber", value=3)}))
    assert run.status == 400
    (error,) = run.response["node_errors"]["9"]["errors"]
    assert error["type"] == "exception_during_validation"
    assert error["extra_info"]["exception_type"] == "TypeError"


async def test_a_link_to_a_number_is_refused(client: Client) -> None:
    """Node ids are texts."""
    run = await client.run(show([1, 0], **{"1": node("TinyNumber", value=3)}))
    assert run.status == 400
    (error,) = run.response["node_errors"]["9"]["errors"]
    assert (error["type"], error["details"]) == ("exception_during_validation", "1")


# -- lazy inputs ---------------------------------------------------------------------------------------------


def _lazy(wants: str, class_type: str = "ExecLazy", **inputs: Any) -> dict[str, Any]:
    """A prompt with three numbers behind lazy inputs a, b and c."""
    numbers = {str(i): node("ExecNote", name=f"ran {i}", value=i * 10) for i in (1, 2, 3)}
    linked = {"a": link("1"), "b": link("2"), "c": link("3"), **inputs}
    return show(link("5"), **numbers, **{"5": node(class_type, wants=wants, **linked)})


@pytest.mark.parametrize("class_type", ["ExecLazy", "ExecLazyAsync"])
async def test_lazy_inputs_are_computed_when_asked_for(client: Client, class_type: str) -> None:
    """One after the other, two at once; what was not asked for is None."""
    await client.notes()
    run = await client.run(_lazy("b a", class_type))
    assert run.shown("9") == ["a=10 b=20 c=None"]
    assert await client.notes() == [
        "asked a=None b=None c=None",
        "ran 2",
        "asked a=None b=20 c=None",
        "ran 1",
        "asked a=10 b=20 c=None",
    ]
    # The node is said to be executing at each turn.
    assert [data["node"] for data in run.data("executing")] == ["5", "2", "5", "1", "5", "9", None]
    await client.forget()
    run = await client.run(_lazy("a+c", class_type))
    assert run.shown("9") == ["a=10 b=None c=30"]
    assert sorted(await client.notes()) == ["asked a=10 b=None c=30", "asked a=None b=None c=None", "ran 1", "ran 3"]


async def test_a_cached_lazy_input_is_there_at_once(server: Server, client: Client) -> None:
    """What was computed before needs not be asked for, and is passed even if it is not; not in later versions."""
    await client.run(_lazy("a b c"))
    await client.notes()
    run = await client.run({**_lazy(""), "5": {**_lazy("")["5"]}})
    had = "a=10 b=20 c=30" if server.version < (0, 8) else "a=None b=None c=None"
    assert run.shown("9") == [had]
    assert await client.notes() == [f"asked {had}"]


async def test_lazy_inputs_may_be_constants_or_left_out(client: Client) -> None:
    """A constant is there at once; an optional one that is missing is not even named."""
    prompt = _lazy("a b", b="constant")
    del prompt["5"]["inputs"]["c"]
    run = await client.run(prompt)
    assert run.shown("9") == ["a=10 b=constant"]
    assert run.ran() == ["5", "1", "9"]


async def test_asking_for_an_input_that_is_not_there_fails(client: Client) -> None:
    """The node's mistake is an error of the prompt."""
    prompt = _lazy("c")
    del prompt["5"]["inputs"]["c"]
    error = _error(await client.run(prompt))
    assert error["exception_type"] == "comfy_execution.graph.NodeInputError"
    assert error["exception_message"] == ("Node 5 says it needs input c, but there is no input to that node at all\n")
    assert error["node_id"] == "5"
    assert error["current_inputs"] == {"wants": ["c"], "a": [None], "b": [None]}


@pytest.mark.parametrize("how", ["none", "text", "tuple", "mixed", "self"])
async def test_answers_that_are_no_list_of_names_are_passed_over(client: Client, how: str) -> None:
    """The node then runs without its input. So it does when it names one that it has."""
    run = await client.run(
        show(link("2"), **{"1": node("TinyNumber", value=1), "2": node("ExecLazyOdd", how=how, a=link("1"))})
    )
    assert run.shown("9") == [f"{how} None"]


async def test_check_lazy_status_may_raise(client: Client) -> None:
    """As if the node itself had."""
    prompt = show(link("2"), **{"1": node("TinyNumber", value=1), "2": node("ExecLazyOdd", how="raise", a=link("1"))})
    error = _error(await client.run(prompt))
    assert (error["exception_type"], error["exception_message"]) == ("RuntimeError", "cannot say what is needed\n")


async def test_lazy_inputs_of_a_node_that_takes_lists(client: Client) -> None:
    """It gets lists also when it is asked what it needs; a missing input is a tuple of None."""
    await client.notes()
    prompt = {
        "1": node("ExecList", items="[1, 2]"),
        "2": node("ExecList", items="[true, false]"),
        "5": node("ExecLazyLists", flags=link("2"), a=link("1")),
        "9": node("TinyShow", value=link("5")),
    }
    run = await client.run(prompt)
    assert run.shown("9") == ["flags=[True, False] a=[1, 2]"]
    assert await client.notes() == ["asked flags=[True, False] a=[None]", "asked flags=[True, False] a=[1, 2]"]


async def test_lazy_inputs_are_asked_for_by_any_item(client: Client) -> None:
    """A node that is called per item computes what one of its calls needs, for all of them."""
    prompt = {
        "1": node("TinyCount", n=3),
        "2": node("TinyCount", n=2),
        "3": node("ExecList", items="[false, true]"),
        "5": node("TinyLazy", second=link("3"), a=link("1"), b=link("2")),
        "6": node("TinyJoin", values=link("5"), mark="m"),
        "9": node("TinyShow", value=link("6")),
    }
    run = await client.run(prompt)
    # Three calls, as the longest list has three items; the others repeat their last.
    assert run.shown("9") == ["[0, 1, 1] ['m'] ['6']"]


async def test_partial_execution_does_not_wake_lazy_inputs(client: Client) -> None:
    """What leads only to other outputs, or to inputs nobody asks for, is not run."""
    prompt = {**_lazy("a"), "8": node("TinyShow", value=link("2"))}
    run = await client.run(prompt, partial_execution_targets=["9"])
    assert run.ran() == ["5", "1", "9"]
    assert run.history["prompt"][4] == ["9"]
    assert set(run.history["outputs"]) == {"9"}
    # An output that was chosen but does not exist, or is none, is not there.
    run = await client.run(prompt, partial_execution_targets=["5", "77"])
    assert run.status == 400
    assert run.response["error"]["type"] == "prompt_no_outputs"
    run = await client.run(prompt, partial_execution_targets=[])
    assert run.status == 400


# -- what nodes show -----------------------------------------------------------------------------------------


async def test_what_a_node_shows_is_joined_over_its_calls(client: Client) -> None:
    """Each key's items in order of the calls; a text counts as its characters."""
    prompt = {"1": node("TinyCount", n=2), "9": node("ExecUi", value=link("1"), how="both")}
    run = await client.run(prompt)
    assert run.history["outputs"]["9"] == {"values": [0, 1], "text": ["a", "b", "a", "b"]}
    assert [data["output"] for data in run.data("executed")] == [run.history["outputs"]["9"]]


@pytest.mark.parametrize("how", ["ui", "result", "nothing"])
async def test_nodes_may_show_or_return_nothing(client: Client, how: str) -> None:
    """A node without a result is done all the same; one that shows nothing is not in the history."""
    run = await client.run({"9": node("ExecUi", value=5, how=how)})
    assert ("9" in run.history["outputs"]) == (how == "ui")
    assert len(run.data("executed")) == (1 if how == "ui" else 0)
    again = await client.run({"9": node("ExecUi", value=5, how=how)})
    assert again.cached() == {"9"}
    # A cached output node is shown again, with nothing if it has shown nothing.
    (shown,) = again.data("executed")
    assert (shown["output"] is not None) == (how == "ui")


async def test_a_node_that_uses_a_result_that_is_not_there(server: Server, client: Client) -> None:
    """It is called with None; in 0.29 the node that gave no result fails."""
    run = await client.run({"1": node("ExecUi", value=5, how="ui"), "9": node("TinyShow", value=link("1"))})
    if server.version >= (0, 29):
        error = _error(run)
        assert (error["node_id"], error["exception_type"]) == ("1", "IndexError")
    else:
        assert run.shown("9") == [None]


async def test_a_result_that_is_no_tuple_is_taken_apart(client: Client) -> None:
    """A text's first character is the first output."""
    run = await client.run(show(link("1"), **{"1": node("ExecDynamic", x=1)}))
    assert run.shown("9") == ["node_id=1 x=1"]


# -- async nodes ---------------------------------------------------------------------------------------------


async def test_async_nodes_run_at_once(client: Client) -> None:
    """Three nodes that wait for each other can only end if they run concurrently; so do the calls of one."""
    await client.notes()
    prompt = {
        **{i: node("ExecMeet", name="m", parties=3, value=int(i)) for i in "123"},
        "4": node("TinyAdd", a=link("1"), b=link("2")),
        "5": node("TinyAdd", a=link("4"), b=link("3")),
        "9": node("TinyShow", value=link("5")),
    }
    run = await client.run(prompt)
    assert run.shown("9") == [6]
    # Each knows which call it is.
    assert sorted(await client.notes()) == ["1.0", "2.0", "3.0"]
    assert [data["node"] for data in run.data("executing")] == ["3", "2", "1", "4", "5", "9", None]
    prompt = {
        "1": node("TinyCount", n=3),
        "2": node("ExecMeet", name="l", parties=3, value=link("1")),
        "3": node("TinyJoin", values=link("2"), mark=""),
        "9": node("TinyShow", value=link("3")),
    }
    run = await client.run(prompt)
    assert run.shown("9") == ["[0, 1, 2] [''] ['3']"]
    assert sorted(await client.notes()) == ["2.0", "2.1", "2.2"]


async def test_async_nodes_may_expand(server: Server, client: Client) -> None:
    """Also while others wait. In ComfyUI the ids then start with that of any of these nodes, whichever it was."""
    prompt = {
        **{i: node("ExecMeetExpand", name="x", parties=2, value=int(i)) for i in "12"},
        "4": node("TinyAdd", a=link("1"), b=link("2")),
        "9": node("TinyShow", value=link("4")),
    }
    run = await client.run(prompt)
    assert run.shown("9") == [3]
    made = {node_id.split(".")[0] for node_id in run.ran() if "." in node_id}
    assert len(run.ran()) == 6
    assert len(made) == expected(server, "async ids", comfyui=len(made), embedded=2)


async def test_an_error_of_an_async_node_ends_the_prompt(client: Client) -> None:
    """Nodes that ran before have run; calls that are still running are cancelled."""
    await client.notes()
    prompt = {
        "1": node("ExecAfter", how="raise", value=1),
        "2": node("ExecAfter", how="cancelled", value=2),
        "3": node("TinyAdd", a=link("1"), b=link("2")),
        "8": node("TinyShow", value=8),
        "9": node("TinyShow", value=link("3")),
    }
    run = await client.run(prompt)
    error = _error(run)
    assert (error["node_id"], error["node_type"]) == ("1", "ExecAfter")
    assert error["exception_message"] == "raised later\n"
    assert error["current_inputs"] == {}
    assert run.shown("8") == [8]
    assert await client.notes() == ["cancelled"]


async def test_an_async_node_may_interrupt(client: Client) -> None:
    """The exception says so, whenever it is raised."""
    run = await client.run(show(link("1"), **{"1": node("ExecAfter", how="interrupt", value=1)}))
    (message,) = run.data("execution_interrupted")
    assert (message["node_id"], message["node_type"]) == ("1", "ExecAfter")


# -- errors --------------------------------------------------------------------------------------------------


async def test_an_error_says_what_where_and_with_which_inputs(client: Client) -> None:
    """All fields; tensors and other values are given as text."""
    prompt = {
        "1": node("TinyImage", size=1, grey=0.5),
        "2": node("ExecWhole", a=link("1"), b=5),
        "3": node("ExecUi", value=link("2"), how="nosuch"),
        "5": node("TinyFail", a=7, what="value"),
        "9": node("TinyShow", value=link("5")),
    }
    del prompt["3"]
    run = await client.run(prompt)
    error = _error(run)
    timestamp = error.pop("timestamp")
    assert timestamp >= run.data("execution_start")[0]["timestamp"]
    traceback = error.pop("traceback")
    assert "in run" in traceback[-1]
    assert "boom" in traceback[-1]
    assert sorted(error.pop("current_outputs")) == ["1", "2", "5", "9"]
    assert error == {
        "prompt_id": run.prompt_id,
        "node_id": "5",
        "node_type": "TinyFail",
        "executed": [],
        "exception_message": "boom 7\n",
        "exception_type": "ValueError",
        "current_inputs": {"a": [7], "what": ["value"]},
    }
    assert run.history["status"]["messages"][-1] == ["execution_error", run.data("execution_error")[0]]
    assert run.history["outputs"] == {}


async def test_an_error_ends_the_prompt_for_all_its_outputs(client: Client) -> None:
    """What ran before it stays; nothing runs after it; and the server goes on."""
    prompt = {
        "1": node("TinyNumber", value=3),
        "2": node("TinyFail", a=link("1"), what="value"),
        "7": node("TinyShow", value=5),
        "8": node("TinyShow", value=link("2")),
        "9": node("TinyAdd", a=link("1"), b=1),
        "10": node("TinyShow", value=link("9")),
    }
    run = await client.run(prompt)
    error = _error(run)
    assert error["node_id"] == "2"
    assert set(error["executed"]) == set(run.ran()) - {"2"}
    assert set(run.history["outputs"]) == set(run.ran()) & {"7", "10"}
    # What has run is kept.
    again = await client.run({**prompt, "2": node("TinyNumber", value=link("1"))})
    assert again.cached() == set(run.ran()) - {"2"}
    assert again.shown("8") == [3]


async def test_running_out_of_memory_comes_with_advice(client: Client) -> None:
    """The message goes on with a tip."""
    run = await client.run(show(link("1"), **{"1": node("TinyFail", a=3, what="memory")}))
    error = _error(run)
    assert error["exception_type"].endswith("OutOfMemoryError")
    assert error["exception_message"].startswith("no more\nThis error means you ran out of memory on your GPU.")


async def test_no_inputs_are_shown_with_an_error_they_have_nothing_to_do_with(server: Server, client: Client) -> None:
    """An error after an expansion: the inputs belong to a turn that went well. 0.29 notices it earlier."""
    graph = {"nodes": {"$id.x": node("TinyNumber", value=1)}, "result": [["$id.x", 5], 1]}
    error = _error(await client.run(show(link("1"), **{"1": node("ExecExpand", graph=json.dumps(graph))})))
    assert (error["node_id"], error["exception_type"]) == ("1", "IndexError")
    assert error["current_inputs"] == ({} if server.version < (0, 29) else {"value": [1]})


# -- interruption --------------------------------------------------------------------------------------------


async def _interrupted(client: Client, prompt: dict[str, Any], body: Any = None) -> Run:
    """Interrupt a prompt while its node "1" runs."""
    status, response = await client.queue(prompt)
    run = Run(status, response)
    run.messages = await client.receive_until("executing", node="1")
    await client.post("/interrupt", body(run) if body else None)
    run.messages += await client.receive_until("executing", node=None, prompt_id=run.prompt_id)
    run.history = (await client.get(f"/history/{run.prompt_id}"))[run.prompt_id]
    return run


@pytest.mark.parametrize("by_id", [False, True])
async def test_a_node_can_be_interrupted(client: Client, by_id: bool) -> None:
    """By all, or by id: one message, history of status "error", nothing of an error."""
    prompt = show(link("1"), **{"1": node("TinySpin", seconds=30, seed=int(by_id))})
    run = await _interrupted(client, prompt, (lambda run: {"prompt_id": run.prompt_id}) if by_id else None)
    (message,) = run.data("execution_interrupted")
    del message["timestamp"]
    assert message == {"prompt_id": run.prompt_id, "node_id": "1", "node_type": "TinySpin", "executed": []}
    assert run.data("execution_error") == []
    assert run.history["status"]["status_str"] == "error"
    assert run.history["status"]["completed"] is False
    assert run.history["status"]["messages"][-1][0] == "execution_interrupted"


async def test_a_node_with_a_progress_bar_is_interrupted_by_it(client: Client) -> None:
    """It does not have to look for it itself."""
    run = await _interrupted(
        client, show(link("1"), **{"1": node("TinySteps", steps=3000, seconds=0.01, preview=False, seed=3)})
    )
    assert len(run.data("execution_interrupted")) == 1


async def test_a_prompt_is_interrupted_between_nodes(client: Client) -> None:
    """A node that does not look ends; the next one is where it stops."""
    name = str(uuid.uuid4())
    prompt = {"1": node("ExecDeaf", name=name, value=4), "2": node("TinyAdd", a=link("1"), b=1), **show(link("2"))}
    run = Run(*await client.queue(prompt))
    await client.receive_until("tiny.begun", name=name)
    await client.post("/interrupt")
    await client.get_text(f"/tiny/release/{name}")
    run.messages = await client.receive_until("executing", node=None, prompt_id=run.prompt_id)
    (message,) = run.data("execution_interrupted")
    assert (message["node_id"], message["executed"]) == ("2", ["1"])
    # What ran is kept.
    assert (await client.run(prompt)).cached() == {"1"}


async def test_interrupting_another_prompt_does_nothing(client: Client) -> None:
    """The id of one that waits or is not there leaves the running one alone."""
    prompt = show(link("1"), **{"1": node("ExecHold", name="alone", value=str(uuid.uuid4()))})
    _, running = await client.queue(prompt)
    await client.receive_until("executing", node="1")
    _, waiting = await client.queue(_SUM)
    for prompt_id in ("nosuch", waiting["prompt_id"]):
        assert (await client.post("/interrupt", {"prompt_id": prompt_id}))[0] == 200
    await client.get_text("/tiny/release/alone")
    for response in (running, waiting):
        messages = await client.receive_until("executing", node=None, prompt_id=response["prompt_id"])
        assert "execution_success" in [kind for kind, _ in messages]


async def test_an_old_interruption_does_not_stop_the_next_prompt(client: Client) -> None:
    """Whoever interrupts when nothing runs has interrupted nothing."""
    await client.post("/interrupt")
    run = await client.run(_SUM)
    assert run.history["status"]["status_str"] == "success"


# -- validation errors beside good outputs -------------------------------------------------------------------


async def test_outputs_that_are_refused_leave_the_others_alone(client: Client) -> None:
    """The prompt is accepted; the rest runs, and the refused part does not."""
    prompt = {**_SUM, "7": node("TinyAdd", a=link("1"), b="x"), "8": node("TinyShow", value=link("7"))}
    run = await client.run(prompt)
    assert run.status == 200
    assert list(run.response["node_errors"]) == ["7"]
    assert run.response["node_errors"]["7"]["dependent_outputs"] == ["8"]
    assert run.ran() == ["1", "2", "9"]
    assert run.history["prompt"][4] == ["9"]


async def test_a_cycle_is_refused(server: Server, client: Client) -> None:
    """Nodes that wait for each other."""
    prompt = {"1": node("TinyAdd", a=link("2"), b=1), "2": node("TinyAdd", a=link("1"), b=1), **show(link("2"))}
    run = await client.run(prompt)
    assert run.status == 400
    kinds = {error["type"] for entry in run.response["node_errors"].values() for error in entry["errors"]}
    told = {"dependency_cycle"} if server.version >= (0, 20) else set()
    assert kinds == expected(server, "cycle", comfyui=told, embedded={"dependency_cycle"})
    assert run.response["error"]["type"] == "prompt_outputs_failed_validation"


async def test_a_chain_of_hundreds_of_nodes_runs(client: Client) -> None:
    """Python's recursion limit is far away."""
    prompt = {"0": node("TinyNumber", value=0)}
    for i in range(1, 400):
        prompt[str(i)] = node("TinyUnique", value=link(str(i - 1)))
    run = await client.run({**prompt, "end": node("TinyShow", value=link("399"))}, partial_execution_targets=["end"])
    assert run.shown("end") == [0]
    assert len(run.ran()) == 401
