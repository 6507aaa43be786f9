"""Lists between nodes: broadcasting, INPUT_IS_LIST, OUTPUT_IS_LIST; and blocked values, alone and in lists."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from conformance.driver import Client, link, node


def _items(a: list[Any], b: list[Any], class_type: str = "ExecItems") -> dict[str, Any]:
    """A prompt that calls a node over two lists, and shows what comes out."""
    return {
        "1": node("ExecList", items=json.dumps(a)),
        "2": node("ExecList", items=json.dumps(b)),
        "3": node(class_type, a=link("1"), b=link("2")),
        "4": node("TinyJoin", values=link("3"), mark="m"),
        "9": node("TinyShow", value=link("4")),
    }


@pytest.mark.parametrize(("length_a", "length_b"), list(itertools.product((1, 2, 4), repeat=2)))
async def test_a_node_is_called_for_each_position(client: Client, length_a: int, length_b: int) -> None:
    """As often as the longest list is long; shorter ones repeat their last item; each call knows its position."""
    a, b = list("pqrs"[:length_a]), list(range(length_b))
    run = await client.run(_items(a, b))
    calls = [f"{a[min(i, length_a - 1)]}{b[min(i, length_b - 1)]}-@{i}" for i in range(max(length_a, length_b))]
    assert run.shown("9") == [f"{calls} ['m'] ['4']"]
    # It is said to be executing once.
    assert run.ran().count("3") == 1


async def test_an_empty_list_beside_a_longer_one_fails(client: Client) -> None:
    """It has no last item to repeat."""
    run = await client.run(_items([], [1, 2]))
    (error,) = run.data("execution_error")
    assert (error["node_id"], error["exception_type"]) == ("3", "IndexError")
    assert error["current_inputs"] == {"a": [], "b": [1, 2]}


async def test_only_empty_lists_are_no_inputs(client: Client) -> None:
    """The node is called once, without any."""
    run = await client.run(_items([], []))
    (error,) = run.data("execution_error")
    assert error["exception_type"] == "TypeError"
    assert "missing 2 required positional arguments" in error["exception_message"]


async def test_empty_lists_reach_nodes_that_take_lists(client: Client) -> None:
    """And come out of them."""
    prompt = _items([], [], "ExecWhole")
    run = await client.run({**prompt, "8": node("TinyShow", value=link("3", 1))})
    assert run.shown("9") == ["[] ['m'] ['4']"]
    assert run.shown("8") == ["[] [] ['3']"]


async def test_nodes_that_take_lists_are_called_once(client: Client) -> None:
    """Constants and hidden inputs are lists of one item then."""
    prompt = _items([1, 2, 3], [4], "ExecWhole")
    prompt["3"]["inputs"]["b"] = "constant"
    run = await client.run({**prompt, "8": node("TinyShow", value=link("3", 1))})
    assert run.shown("9") == ["[1, 2, 3, 'constant'] ['m'] ['4']"]
    assert run.shown("8") == ["[1, 2, 3] ['constant'] ['3']"]


async def test_list_outputs_of_several_calls_are_joined(client: Client) -> None:
    """0; 0 1; 0 1 2."""
    prompt = {
        "1": node("ExecList", items="[1, 2, 3]"),
        "2": node("TinyCount", n=link("1")),
        "3": node("TinyJoin", values=link("2"), mark=link("4")),
        "4": node("ExecList", items='["x", "y"]'),
        "9": node("TinyShow", value=link("3")),
    }
    run = await client.run(prompt)
    assert run.shown("9") == ["[0, 0, 1, 0, 1, 2] ['x', 'y'] ['3']"]


async def test_an_output_node_shows_each_item(client: Client) -> None:
    """In one message."""
    run = await client.run({"1": node("TinyCount", n=3), "9": node("TinyShow", value=link("1"))})
    assert run.shown("9") == [0, 1, 2]
    assert len(run.data("executed")) == 1


# -- blocked values ------------------------------------------------------------------------------------------


async def test_a_blocked_node_is_not_called(client: Client) -> None:
    """Nothing of what uses it is; nothing is said; the prompt is a success and what was blocked is cached."""
    prompt = {
        "1": node("TinyBlock", message="", bare=False),
        "2": node("ExecNote", name="called", value=link("1")),
        "8": node("TinyShow", value=link("2")),
        "9": node("TinyShow", value=1),
    }
    await client.notes()
    run = await client.run(prompt)
    assert await client.notes() == []
    assert run.data("execution_error") == []
    assert set(run.history["outputs"]) == {"9"}
    assert run.history["status"]["status_str"] == "success"
    # They have had their turn all the same.
    assert set(run.ran()) == {"1", "2", "8", "9"}
    assert (await client.run(prompt)).cached() == {"1", "2", "8", "9"}


async def test_a_message_is_told_by_the_first_node_that_is_blocked(client: Client) -> None:
    """As an error that ends nothing; nodes after that one are silent."""
    prompt = {
        "1": node("TinyBlock", message="not now", bare=True),
        "2": node("TinyAdd", a=link("1"), b=1),
        "3": node("TinyAdd", a=link("2"), b=1),
        "9": node("TinyShow", value=link("3")),
    }
    run = await client.run(prompt)
    (error,) = run.data("execution_error")
    assert error == {
        "prompt_id": run.prompt_id,
        "node_id": "2",
        "node_type": "TinyAdd",
        "executed": ["1"],
        "exception_message": "Execution Blocked: not now",
        "exception_type": "ExecutionBlocked",
        "traceback": [],
        "current_inputs": [],
        "current_outputs": [],
    }
    assert "execution_success" in run.types()
    events = [event for event, _ in run.history["status"]["messages"]]
    assert events == ["execution_start", "execution_cached", "execution_success"]


async def test_a_blocker_in_a_list_blocks_its_call_only(client: Client) -> None:
    """The other items pass."""
    run = await client.run(_items([1, {"block": None}, 3], [7]))
    # The node that joins them all is blocked.
    assert run.history["outputs"] == {}
    prompt = {
        "1": node("ExecList", items='[1, {"block": "second"}, 3]'),
        "2": node("TinyAdd", a=link("1"), b=10),
        "9": node("TinyShow", value=link("2")),
    }
    run = await client.run(prompt)
    assert run.shown("9") == [11, 13]
    assert [error["exception_message"] for error in run.data("execution_error")] == ["Execution Blocked: second"]


async def test_a_node_that_takes_lists_is_blocked_by_any_item(client: Client) -> None:
    """One call, blocked as a whole."""
    run = await client.run(_items([1, {"block": "in list"}, 3], [7], "ExecWhole"))
    assert run.history["outputs"] == {}
    (error,) = run.data("execution_error")
    assert (error["node_id"], error["exception_message"]) == ("3", "Execution Blocked: in list")


async def test_a_list_output_may_be_one_blocker(client: Client) -> None:
    """The other output is not affected."""
    prompt = {
        "1": node("ExecListBlocked", message=""),
        "8": node("TinyShow", value=link("1")),
        "9": node("TinyShow", value=link("1", 1)),
    }
    run = await client.run(prompt)
    assert run.history["outputs"] == {"9": {"values": [1]}}


async def test_every_call_tells_its_message(client: Client) -> None:
    """One error per blocked call."""
    prompt = {
        "1": node("ExecList", items='[{"block": "one"}, {"block": "two"}]'),
        "9": node("TinyShow", value=link("1")),
    }
    run = await client.run(prompt)
    messages = [error["exception_message"] for error in run.data("execution_error")]
    assert messages == ["Execution Blocked: one", "Execution Blocked: two"]


async def test_a_blocked_output_node_shows_nothing_but_may_have_shown(client: Client) -> None:
    """ui beside a blocked result is shown."""
    run = await client.run({"1": node("ExecUi", value=1, how="blocker"), "9": node("TinyShow", value=link("1"))})
    assert set(run.history["outputs"]) == {"1"}
    assert [error["exception_message"] for error in run.data("execution_error")] == ["Execution Blocked: from ui"]


async def test_a_blocker_asks_for_no_lazy_inputs(client: Client) -> None:
    """A node that is blocked is not asked what it needs."""
    await client.notes()
    prompt = {
        "1": node("TinyBlock", message="", bare=False),
        "2": node("ExecNote", name="ran", value=1),
        "3": node("ExecLazy", wants="a", a=link("2"), eager=link("1")),
        "9": node("TinyShow", value=link("3")),
    }
    run = await client.run(prompt)
    assert await client.notes() == []
    assert run.history["outputs"] == {}
