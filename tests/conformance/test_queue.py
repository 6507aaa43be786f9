"""The queue at work: in which order prompts run, what waits and is taken out, who is told; handlers of packages.

The routes and what they answer are in test_routes_prompts.py.
"""

from __future__ import annotations

import uuid
from typing import Any

from conformance.differences import expected
from conformance.driver import Client, Server, connect, link, node, show


class _Held:
    """While entered, a prompt holds up the queue."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.name = uuid.uuid4().hex
        self.prompt_id = ""

    async def __aenter__(self) -> _Held:
        prompt = {"1": node("ExecHold", name=self.name, value=self.name), "9": node("TinyShow", value=link("1"))}
        status, response = await self.client.queue(prompt)
        assert status == 200
        self.prompt_id = response["prompt_id"]
        await self.client.receive_until("executing", node="1")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.client.get_text(f"/tiny/release/{self.name}")


async def _order_run(client: Client, number: int) -> list[str]:
    """The ids of the next prompts, in the order they end."""
    ended = []
    while len(ended) < number:
        messages = await client.receive_until("executing", node=None)
        ended.append(messages[-1][1]["prompt_id"])
    return ended


async def test_prompts_run_by_their_number(client: Client) -> None:
    """Front before all that wait, the last front first; a number of one's own goes where it belongs."""
    async with _Held(client) as held:
        asked: list[tuple[str, dict[str, Any]]] = [
            ("late", {}),
            ("later", {}),
            ("front", {"front": True}),
            ("more front", {"front": True}),
            ("not front", {"front": False}),
            ("very first", {"number": -1e9}),
            ("very last", {"number": 1e9}),
        ]
        numbers, names = [], {}
        for name, fields in asked:
            status, response = await client.queue(show(name), **fields)
            assert status == 200
            assert set(response) == {"prompt_id", "number", "node_errors"}
            numbers.append(response["number"])
            names[response["prompt_id"]] = name
        first = numbers[0]
        assert numbers == [first, first + 1, -(first + 2), -(first + 3), first + 4, -1e9, 1e9]
        queue = await client.get("/queue")
        assert [item[1] for item in queue["queue_running"]] == [held.prompt_id]
        pending = sorted(queue["queue_pending"])
        assert [names[item[1]] for item in pending] == [
            *("very first", "more front", "front", "late", "later", "not front", "very last")
        ]
        assert pending[0][2] == show("very first")
        assert pending[0][3]["client_id"] == client.sid
        assert pending[0][4] == ["9"]
        assert (await client.get("/prompt"))["exec_info"]["queue_remaining"] == 8
    ran = await _order_run(client, 8)
    assert [names.get(prompt_id, "held") for prompt_id in ran] == [
        *("held", "very first", "more front", "front", "late", "later", "not front", "very last")
    ]


async def test_waiting_prompts_can_be_deleted(client: Client) -> None:
    """By id, several at once, unknown ones ignored; they never run and are in no history."""
    async with _Held(client) as held:
        ids = [(await client.queue(show(i)))[1]["prompt_id"] for i in range(4)]
        assert (await client.post("/queue", {"delete": [ids[0], "nosuch", ids[2]]}))[0] == 200
        assert sorted(item[1] for item in (await client.get("/queue"))["queue_pending"]) == sorted([ids[1], ids[3]])
        # The running one is not there to be deleted.
        await client.post("/queue", {"delete": [held.prompt_id]})
        assert len((await client.get("/queue"))["queue_running"]) == 1
    assert await _order_run(client, 3) == [held.prompt_id, ids[1], ids[3]]
    for prompt_id, there in zip(ids, (False, True, False, True), strict=True):
        assert (prompt_id in await client.get(f"/history/{prompt_id}")) == there


async def test_the_queue_can_be_cleared(client: Client) -> None:
    """What waits is gone, what runs runs on; everybody is told how many are left."""
    async with _Held(client) as held:
        for i in range(3):
            await client.queue(show(i))
        await client.receive_until("status", status={"exec_info": {"queue_remaining": 4}})
        await client.post("/queue", {"clear": True})
        await client.receive_until("status", status={"exec_info": {"queue_remaining": 1}})
        assert (await client.get("/queue"))["queue_pending"] == []
    assert await _order_run(client, 1) == [held.prompt_id]
    assert (await client.run(show("next"))).shown("9") == ["next"]


async def test_the_running_prompt_is_in_the_queue_as_it_came(client: Client) -> None:
    """Number, id, prompt, extra data and outputs; without what the execution has written into it."""
    name = uuid.uuid4().hex
    held = node("ExecHold", name=name, value=link("1"))
    prompt = show(link("2"), **{"1": node("ExecChanged", how="none", value=1), "2": held})
    _, response = await client.queue(prompt)
    # By then IS_CHANGED has been asked, and its answer written into the prompt that nodes see.
    await client.receive_until("executing", node="2")
    ((number, prompt_id, shown, extra_data, outputs, *_),) = (await client.get("/queue"))["queue_running"]
    assert (number, prompt_id) == (response["number"], response["prompt_id"])
    assert shown == prompt
    assert extra_data["client_id"] == client.sid
    assert outputs == ["9"]
    await client.get_text(f"/tiny/release/{name}")
    await client.receive_until("executing", node=None)


async def test_outputs_and_errors_are_in_an_order(server: Server, client: Client) -> None:
    """All are there; in the order of the prompt here, in that of a set in ComfyUI."""
    ids = [str(i) for i in range(20)]
    run = await client.run({node_id: node("TinyShow", value=node_id) for node_id in ids})
    outputs = run.history["prompt"][4]
    assert sorted(outputs) == sorted(ids)
    assert outputs == expected(server, "order", comfyui=outputs, embedded=ids)
    shown = [data["node"] for data in run.data("executed")]
    assert sorted(shown) == sorted(ids)
    assert shown == expected(server, "order", comfyui=shown, embedded=ids)
    bad = node("ExecChecks", answer="no", number=50, choice="z", link="x")
    run = await client.run({"1": bad, "9": node("TinyShow", value=link("1"))})
    errors = [error["extra_info"]["input_name"] for error in run.response["node_errors"]["1"]["errors"]]
    assert sorted(errors) == ["answer", "choice", "link", "number"]
    assert errors == expected(server, "order", comfyui=errors, embedded=["number", "choice", "link", "answer"])


async def test_two_clients_are_told_their_own(server: Server, client: Client) -> None:
    """Messages go to the client of a prompt; how much is left goes to all."""
    async with connect(server) as other:
        async with _Held(client):
            status, response = await other.queue(show("other"))
            assert status == 200
        mine = await client.receive_until("executing", node=None)
        theirs = await other.receive_until("executing", node=None)
        assert {data.get("prompt_id") for kind, data in theirs if kind != "status"} == {response["prompt_id"]}
        assert response["prompt_id"] not in {data.get("prompt_id") for _, data in mine}
        await client.receive_until("status", status={"exec_info": {"queue_remaining": 0}})


async def test_the_same_id_twice(client: Client) -> None:
    """The later prompt takes the place of the earlier one in the history."""
    prompt_id = str(uuid.uuid4())
    first = await client.run(show("first"), prompt_id=prompt_id)
    assert first.prompt_id == prompt_id
    second = await client.run(show("second"), prompt_id=prompt_id)
    assert second.shown("9") == ["second"]
    assert list(await client.get(f"/history/{prompt_id}")) == [prompt_id]


async def test_a_node_without_a_class_is_refused(server: Server, client: Client) -> None:
    """400 with an error of the same form as any other; named otherwise by later versions."""
    status, refusal = await client.queue({"1": {"inputs": {}}})
    assert status == 400
    assert set(refusal) == {"error", "node_errors"}
    assert set(refusal["error"]) == {"type", "message", "details", "extra_info"}
    assert refusal["error"]["type"] == ("missing_node_type" if server.version >= (0, 12) else "invalid_prompt")
    assert refusal["node_errors"] in ({}, [])


async def test_handlers_of_packages_may_change_a_request(client: Client) -> None:
    """All see it in turn; one that raises is passed over."""
    run = await client.run(show("MARK"), tiny_mark="changed")
    assert run.shown("9") == ["changed"]
    assert (await client.get("/tiny/handled"))[-1] == "changed"
