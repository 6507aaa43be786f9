"""Prompts over HTTP: POST /prompt and what is around it, without what nodes do."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from operator import itemgetter
from typing import Any

from conformance import driver
from conformance.asking import ANY, Answer, Row, ask, check, has
from conformance.differences import expected
from conformance.driver import Server, link, node

SHOW = {"9": node("TinyShow", value="x")}
_NO_PROMPT = {
    "error": {
        "type": "no_prompt",
        "message": "No prompt provided",
        "details": "No prompt provided",
        "extra_info": {},
    },
    "node_errors": {},
}
_EMPTY = {
    "error": {
        "type": "prompt_no_outputs",
        "message": "Prompt has no outputs",
        "details": "",
        "extra_info": {},
    },
    "node_errors": {},
}


def new_id() -> str:
    """A prompt's id, in the form later versions insist on."""
    return str(uuid.uuid4())


def spin() -> dict[str, Any]:
    """A prompt that runs until it is interrupted."""
    return {"1": node("TinySpin", seconds=60, seed=time.time_ns() % 10**9), "9": node("TinyShow", value=link("1"))}


# -- POST /prompt --------------------------------------------------------------------------------------------


async def test_a_prompt_that_cannot_be_read_is_refused(client: Any, server: Server) -> None:
    """What is no JSON object is a server error, as is a number that is none; nothing is queued."""
    rows = []
    for path in ("/prompt", "/api/prompt"):
        rows += [
            Row("POST", path, 500, re.compile("Server got itself in trouble"), body="no JSON"),
            Row("POST", path, 500, body=""),
            Row("POST", path, 400, _NO_PROMPT, body=[1]),
            Row("POST", path, 500, body=5),
            Row("POST", path, 500, body={"prompt": SHOW, "number": "x"}),
            Row("POST", path, 500, body={"prompt": SHOW, "extra_data": 5, "client_id": "x"}),
            Row("POST", path, 500, body={"prompt": 5}),
            Row("POST", path, 500, body={"prompt": None}),
            Row("POST", path, 400, _NO_PROMPT, {"Content-Type": "application/json; charset=utf-8"}, body={}),
            Row("POST", path, 400, _NO_PROMPT, body={"prompts": SHOW}),
            Row("POST", path, 400, _EMPTY, body={"prompt": {}}),
            Row("POST", path, 400, _EMPTY, body={"prompt": {"1": node("TinyNumber", value=1)}}),
            Row("GET", path, 200, {"exec_info": {"queue_remaining": 0}}),
        ]
    await check(server, rows)


async def test_a_prompt_is_queued_under_its_number_and_id(client: Any, server: Server) -> None:
    """The server counts; front counts backwards; a chosen number and id are kept. The body's type does not matter."""
    numbers = []
    for fields in ({}, {}, {"front": True}, {"front": False}, {"number": -7.5}, {"number": "3"}):
        answer = await ask(server, "POST", "/prompt", {"prompt": SHOW, **fields})
        assert answer.status == 200
        assert set(answer.json) == {"prompt_id", "number", "node_errors"}
        assert answer.json["node_errors"] == {}
        assert uuid.UUID(answer.json["prompt_id"])
        numbers.append(answer.json["number"])
    first = numbers[0]
    assert numbers == [first, first + 1, -(first + 2), first + 3, -7.5, 3.0]
    chosen = new_id()
    answer = await ask(server, "POST", "/api/prompt", {"prompt": SHOW, "prompt_id": chosen})
    assert answer.json["prompt_id"] == chosen
    text = '{"prompt": {"9": {"class_type": "TinyShow", "inputs": {"value": "x"}}}}'
    answer = await ask(server, "POST", "/prompt", text, Content_Type="text/plain")
    assert answer.status == 200
    await client.run(SHOW)


async def test_extra_data_is_kept_and_secrets_are_not(client: Any, server: Server) -> None:
    """The history has what the client sent and its id; the nodes alone see the tokens."""
    tokens = {"auth_token_comfy_org": "secret", "api_key_comfy_org": "secret"}
    run = await client.run(SHOW, extra_data={"mine": [1], "extra_pnginfo": {"workflow": {"id": "w"}}, **tokens})
    extra_data = run.history["prompt"][3]
    created = extra_data.pop("create_time", None)
    assert (created is not None) is has(server, 0, 8)
    assert extra_data == {"mine": [1], "extra_pnginfo": {"workflow": {"id": "w"}}, "client_id": client.sid}
    running, waiting = new_id(), new_id()
    await client.queue(spin(), prompt_id=running)
    await client.receive_until("executing", node="1")
    await client.queue(SHOW, prompt_id=waiting, extra_data=dict(tokens))
    (item,) = (await ask(server, "GET", "/queue")).json["queue_pending"]
    item[3].pop("create_time", None)
    seen = {} if server.version >= (0, 8) else tokens
    assert item[3] == {"client_id": client.sid} | expected(server, "secrets", comfyui=seen, embedded={})
    await check(server, [Row("POST", "/queue", 200, body={"clear": True}), Row("POST", "/interrupt", 200)])
    await client.receive_until("executing", node=None, prompt_id=running)


# -- queue ---------------------------------------------------------------------------------------------------


async def test_the_queue_shows_what_runs_and_what_waits(client: Any, server: Server) -> None:
    """In the order in which it will run; deleting and clearing take from what waits only."""
    running, a, b, c = (new_id() for _ in range(4))
    await client.queue(spin(), prompt_id=running)
    await client.receive_until("executing", node="1")
    for prompt_id, fields in ((a, {}), (b, {"number": 10**6}), (c, {"front": True})):
        await client.queue(SHOW, prompt_id=prompt_id, **fields)

    def shows(*waiting: str) -> Row:
        def look(answer: Answer) -> bool:
            pending = answer.json["queue_pending"]
            heap = sorted(pending, key=itemgetter(0))
            in_order = expected(server, "queue order", comfyui=heap, embedded=pending)
            return [item[1] for item in answer.json["queue_running"]] == [running] and [
                item[1] for item in in_order
            ] == list(waiting)

        return Row("GET", "/api/queue", 200, look)

    queue = (await ask(server, "GET", "/queue")).json
    assert set(queue) == {"queue_running", "queue_pending"}
    (item,) = [item for item in queue["queue_pending"] if item[1] == b]
    item[3].pop("create_time", None)
    assert item == [10**6, b, SHOW, {"client_id": client.sid}, ["9"]]
    await check(
        server,
        [
            shows(c, a, b),
            Row("GET", "/prompt", 200, {"exec_info": {"queue_remaining": 4}}),
            Row("POST", "/queue", 200, "", body={}),
            Row("POST", "/queue", 200, "", body={"delete": [], "clear": False}),
            Row("POST", "/queue", 200, "", body={"delete": ["nosuch", running]}),
            Row("POST", "/queue", 500, body="no JSON"),
            Row("POST", "/queue", 500, body={"delete": 5}),
            Row("POST", "/interrupt", 200, "", body={"prompt_id": a}),
            shows(c, a, b),
            Row("POST", "/api/queue", 200, "", body={"delete": [a, a]}),
            shows(c, b),
            Row("POST", "/queue", 200, "", body={"clear": True}),
            shows(),
            Row("POST", "/interrupt", 200, "", body={"prompt_id": running}),
        ],
    )
    await client.receive_until("executing", node=None, prompt_id=running)
    await check(
        server,
        [
            Row("GET", "/queue", 200, {"queue_running": [], "queue_pending": []}),
            Row("GET", f"/history/{a}", 200, {}),
        ],
    )


async def test_interrupt_and_free_take_what_they_are_given(client: Any, server: Server) -> None:
    """No body, no JSON, unknown ids are fine for the one; the other wants JSON."""
    rows = []
    for prefix in ("", "/api"):
        rows += [
            Row("POST", f"{prefix}/interrupt", 200, ""),
            Row("POST", f"{prefix}/interrupt", 200, "", body="no JSON"),
            Row("POST", f"{prefix}/interrupt", 200, "", body={"prompt_id": "nosuch"}),
            Row("POST", f"{prefix}/interrupt", 200, "", body={"prompt_id": None}),
            Row("POST", f"{prefix}/interrupt", 500, body=[1]),
            Row("POST", f"{prefix}/free", 200, "", body={}),
            Row("POST", f"{prefix}/free", 200, "", body={"unload_models": True, "free_memory": False}),
            Row("POST", f"{prefix}/free", 500, body="no JSON"),
            Row("POST", f"{prefix}/free", 500),
            Row("POST", f"{prefix}/free", 500, body=[1]),
            Row("GET", f"{prefix}/free", (404, 405)),
            Row("GET", f"{prefix}/interrupt", (404, 405)),
        ]
    await check(server, rows)
    assert (await client.run(SHOW)).shown("9") == ["x"]


# -- history -------------------------------------------------------------------------------------------------


async def test_the_history_is_paged(client: Any, server: Server) -> None:
    """max_items takes the newest, offset counts from the oldest; odd numbers have odd, known results."""
    ids = []
    await client.post("/history", {"clear": True})
    for _ in range(4):
        ids.append((await client.run(SHOW)).prompt_id)

    def row(query: str, *expected_ids: str) -> Row:
        return Row("GET", f"/history{query}", 200, lambda answer: list(answer.json) == list(expected_ids))

    _, two, three, four = ids
    await check(
        server,
        [
            row("", *ids),
            row("?max_items=2", three, four),
            row("?max_items=9", *ids),
            row("?offset=2", three, four),
            row("?offset=0", *ids),
            row("?offset=9"),
            row("?max_items=1&offset=1", two),
            row("?max_items=2&offset=3", four),
            row("?max_items=2&offset=-1", three, four),
            row("?max_items=2&offset=-3", three, four),
            row("?offset=-5", *ids),
            row("?max_items=0"),
            row("?max_items=0&offset=1", two),
            row("?max_items=-1"),
            row("?max_items=-1&offset=1", two),
            row("?max_items=+2", three, four),
            row("?max_items=%2B2", three, four),
            row(f"/{two}", two),
            row(f"/{two}?max_items=0", two),
            row("/nosuch"),
            Row("GET", "/history?max_items=x", 500),
            Row("GET", "/history?max_items=", 500),
            Row("GET", "/history?max_items=1.5", 500),
            Row("GET", "/history?offset=x", 500),
            Row("GET", "/history/", 404),
        ],
    )


async def test_the_history_is_deleted(client: Any, server: Server) -> None:
    """One entry, several, all; unknown ones do not matter."""
    await client.post("/history", {"clear": True})
    ids = [(await client.run(SHOW)).prompt_id for _ in range(4)]

    def holds(*left: str) -> Row:
        return Row("GET", "/api/history", 200, lambda answer: list(answer.json) == list(left))

    await check(
        server,
        [
            Row("POST", "/history", 200, "", body={}),
            Row("POST", "/history", 200, "", body={"delete": ["nosuch", ids[1]]}),
            holds(ids[0], ids[2], ids[3]),
            Row("POST", "/api/history", 200, "", body={"delete": [ids[0], ids[0]], "clear": False}),
            holds(ids[2], ids[3]),
            Row("POST", "/history", 500, body="no JSON"),
            Row("POST", "/history", 500, body={"delete": None}),
            holds(ids[2], ids[3]),
            Row("POST", "/history", 200, "", body={"clear": True, "delete": [ids[2]]}),
            holds(),
        ],
    )
    # What is kept for the next prompt does not depend on it.
    assert (await client.run(SHOW)).cached() == {"9"}


# -- jobs ----------------------------------------------------------------------------------------------------

_STATUSES = "pending, in_progress, completed, failed"


async def another_millisecond() -> None:
    """Return in a later millisecond: jobs are listed by the one they were queued in, and come in no order within it."""
    await asyncio.sleep(0.002)


async def test_jobs_can_be_listed(client: Any, server: Server) -> None:
    """Waiting, running and past prompts in one list, filtered, sorted and paged; 404 before 0.8."""
    if not has(server, 0, 8):
        await check(server, [Row("GET", "/api/jobs", 404), Row("GET", "/api/jobs/x", 404)])
        return
    statuses = _STATUSES + (", cancelled" if has(server, 0, 11) else "")
    await client.post("/history", {"clear": True})
    workflow = {"extra_data": {"extra_pnginfo": {"workflow": {"id": "w1"}}}}
    image = {"9": node("TinyPreview", kind="PNG", mode="RGB", width=4, height=4, largest=0, steps=1)}
    done = (await client.run(SHOW, **workflow)).prompt_id
    await another_millisecond()
    other = (await client.run(image)).prompt_id
    await another_millisecond()
    failed = (
        await client.run({"1": node("TinyFail", a=1, what="value"), "9": node("TinyShow", value=link("1"))})
    ).prompt_id
    running, waiting = new_id(), new_id()
    await another_millisecond()
    await client.queue(spin(), prompt_id=running)
    await client.receive_until("executing", node="1")
    await another_millisecond()
    await client.queue(SHOW, prompt_id=waiting, **workflow)

    def lists(query: str, *ids: str, total: int | None = None, offset: int = 0, limit: int | None = None) -> Row:
        count = len(ids) if total is None else total
        pagination = {"offset": offset, "limit": limit, "total": count, "has_more": offset + len(ids) < count}
        return Row(
            "GET",
            f"/api/jobs{query}",
            200,
            lambda answer: (
                [job["id"] for job in answer.json["jobs"]] == list(ids) and answer.json["pagination"] == pagination
            ),
        )

    def refuses(query: str, error: str) -> Row:
        return Row("GET", f"/api/jobs?{query}", 400, {"error": error})

    newest = [waiting, running, failed, other, done]
    await check(
        server,
        [
            lists("", *newest),
            lists("?sort_order=asc", *reversed(newest)),
            lists("?sort_order=ASC&sort_by=Created_At", *reversed(newest)),
            lists("?status=pending", waiting),
            lists("?status=in_progress", running),
            lists("?status=completed", other, done),
            lists("?status=failed", failed),
            lists("?status=Pending,%20FAILED,", waiting, failed),
            lists("?status=", *newest),
            lists("?workflow_id=w1", waiting, done),
            lists("?workflow_id=nosuch"),
            lists("?limit=2", waiting, running, total=5, limit=2),
            lists("?limit=2&offset=4", done, total=5, limit=2, offset=4),
            lists("?offset=3", other, done, total=5, offset=3),
            lists("?offset=9", total=5, offset=9),
            lists("?offset=-9", *newest),
            refuses("limit=0", "limit must be a positive integer"),
            refuses("limit=-1", "limit must be a positive integer"),
            refuses("limit=x", "limit must be an integer"),
            refuses("limit=", "limit must be an integer"),
            refuses("offset=x", "offset must be an integer"),
            refuses("status=done", f"Invalid status value(s): done. Valid values: {statuses}"),
            refuses("status=failed,a,b", f"Invalid status value(s): a, b. Valid values: {statuses}"),
            refuses("sort_by=name", "sort_by must be 'created_at' or 'execution_duration'"),
            refuses("sort_order=up", "sort_order must be 'asc' or 'desc'"),
            Row("GET", "/api/jobs/nosuch", 404, {"error": "Job not found"}),
            Row("GET", f"/api/jobs/{waiting}", 200, lambda answer: answer.json["status"] == "pending"),
            Row("GET", f"/api/jobs/{running}", 200, lambda answer: answer.json["status"] == "in_progress"),
        ],
    )
    by_duration = (await ask(server, "GET", "/api/jobs?sort_by=execution_duration")).json["jobs"]
    durations = [job.get("execution_end_time", 0) - job.get("execution_start_time", 0) for job in by_duration]
    assert durations == sorted(durations, reverse=True)
    await client.post("/queue", {"clear": True})
    await client.post("/interrupt")
    await client.receive_until("executing", node=None, prompt_id=running)
    ended = (await ask(server, "GET", f"/api/jobs/{running}")).json
    assert ended["status"] == ("cancelled" if has(server, 0, 11) else "failed")


async def test_a_job_says_what_became_of_it(client: Any, server: Server) -> None:
    """Times, error, outputs with a preview of them, and, of one job, everything."""
    if not has(server, 0, 8):
        return
    picture = {
        "1": node("EmptyImage", width=8, height=8, batch_size=2, color=0),
        "2": node("PreviewImage", images=link("1")),
        "3": node("SaveImage", images=link("1"), filename_prefix="job"),
    }
    run = await client.run(picture, extra_data={"extra_pnginfo": {"workflow": {"id": "w2"}}})
    (listed,) = (await ask(server, "GET", "/api/jobs?workflow_id=w2&limit=1")).json["jobs"]
    assert listed.keys() == {
        *("id", "status", "priority", "create_time", "execution_start_time", "execution_end_time"),
        *("outputs_count", "preview_output", "workflow_id"),
        *(("previewable_outputs_count",) if has(server, 0, 32) else ()),
    }
    assert (listed["id"], listed["status"], listed["priority"]) == (run.prompt_id, "completed", run.response["number"])
    assert listed["outputs_count"] == 4
    assert listed.get("previewable_outputs_count", 4) == 4
    saved = run.history["outputs"]["3"]["images"][0]
    assert listed["preview_output"] == {**saved, "nodeId": "3", "mediaType": "images"}
    assert listed["create_time"] <= listed["execution_start_time"] <= listed["execution_end_time"]
    job = (await ask(server, "GET", f"/api/jobs/{run.prompt_id}")).json
    assert job == {
        **listed,
        "outputs": run.history["outputs"],
        "execution_status": run.history["status"],
        "workflow": {"prompt": picture, "extra_data": run.history["prompt"][3]},
    }
    broken = await client.run({"1": node("TinyFail", a=1, what="value"), "9": node("TinyShow", value=link("1"))})
    job = (await ask(server, "GET", f"/api/jobs/{broken.prompt_id}")).json
    assert job["status"] == "failed"
    assert job["execution_error"] == broken.data("execution_error")[0] | {
        "timestamp": job["execution_error"]["timestamp"]
    }
    assert (job["outputs_count"], job.get("preview_output")) == (0, None)


async def test_jobs_can_be_cancelled(client: Any, server: Server) -> None:
    """One or several, running or waiting; those that are past or unknown are no error. Since 0.26."""
    if not has(server, 0, 26):
        await check(server, [Row("POST", "/api/jobs/cancel", (404, 405), body={"job_ids": []})])
        return
    running, a, b, c = (new_id() for _ in range(4))
    await client.queue(spin(), prompt_id=running)
    await client.receive_until("executing", node="1")
    for prompt_id in (a, b, c):
        await client.queue(SHOW, prompt_id=prompt_id)
    no, yes = {"cancelled": False}, {"cancelled": True}
    bad = "job_ids contains invalid id(s)"
    await check(
        server,
        [
            Row("POST", "/api/jobs/nosuch/cancel", 200, no),
            Row("POST", f"/api/jobs/{a}/cancel", 200, yes),
            Row("POST", f"/api/jobs/{a}/cancel", 200, no),
            Row("POST", "/api/jobs/cancel", 400, {"error": "Request body must be valid JSON"}, body="no JSON"),
            Row("POST", "/api/jobs/cancel", 400, {"error": "job_ids must be a list"}, body={}),
            Row("POST", "/api/jobs/cancel", 400, {"error": "job_ids must be a list"}, body=[b]),
            Row(
                "POST",
                "/api/jobs/cancel",
                400,
                {"error": bad, "invalid_ids": ["x", "5"]},
                body={"job_ids": [b, "x", 5]},
            ),
            Row(
                "POST",
                "/api/jobs/cancel",
                400,
                {"error": bad, "invalid_ids": [b.upper()]},
                body={"job_ids": [b.upper()]},
            ),
            Row("POST", "/api/jobs/cancel", 200, no, body={"job_ids": []}),
            Row("POST", "/api/jobs/cancel", 200, no, body={"job_ids": [a, new_id()]}),
            Row("GET", "/queue", 200, lambda answer: [item[1] for item in answer.json["queue_pending"]] == [b, c]),
            Row("POST", "/api/jobs/cancel", 200, yes, body={"job_ids": [a, b, c, running]}),
            Row("GET", "/queue", 200, lambda answer: answer.json["queue_pending"] == []),
        ],
    )
    await client.receive_until("execution_interrupted", prompt_id=running)
    await client.receive_until("executing", node=None, prompt_id=running)
    await check(server, [Row("POST", f"/api/jobs/{running}/cancel", 200, no)])


# -- descriptions --------------------------------------------------------------------------------------------


async def test_nodes_are_described(client: Any, server: Server) -> None:
    """All, or one; an unknown one is an empty answer."""
    everything = (await ask(server, "GET", "/api/object_info")).json
    for name in ("TinyNumber", "TinyImage", "TinyHidden"):
        answer = await ask(server, "GET", f"/object_info/{name}")
        assert answer.json == {name: everything[name]}
    image = everything["TinyImage"]
    known = {
        "input": {"required": {"size": ["INT", {"default": 8}], "grey": ["FLOAT", {"default": 0.5}]}},
        "input_order": {"required": ["size", "grey"]},
        "output": ["IMAGE", "MASK"],
        "output_is_list": [False, False],
        "output_name": ["picture", "hole"],
        "output_tooltips": ["an image", "a mask"],
        "name": "TinyImage",
        "display_name": "TinyImage",
        "description": "",
        "python_module": "custom_nodes.tiny",
        "category": "tiny",
        "output_node": False,
        "experimental": True,
    }
    assert {key: image.get(key) for key in known} == known
    assert everything["TinyNumber"]["display_name"] == "Tiny number"
    await check(
        server,
        [
            Row("GET", "/object_info/NoSuch", 200, {}),
            Row("GET", "/object_info/Tiny%20Number", 200, {}),
            Row("GET", "/object_info/", 404),
            Row("POST", "/object_info", (404, 405)),
            Row("HEAD", "/object_info/NoSuch", 200, "", {"Content-Length": "2"}),
        ],
    )


async def test_the_state_of_the_machine(client: Any, server: Server) -> None:
    """All keys of 0.3.64 with values of their types."""
    for path in ("/system_stats", "/api/system_stats"):
        stats = (await ask(server, "GET", path)).json
        types = {
            "os": str,
            "ram_total": int,
            "ram_free": int,
            "comfyui_version": str,
            "required_frontend_version": str,
            "installed_templates_version": (str, type(None)),
            "required_templates_version": (str, type(None)),
            "python_version": str,
            "pytorch_version": str,
            "embedded_python": bool,
            "argv": list,
        }
        assert {key: isinstance(stats["system"].get(key), kind) for key, kind in types.items()} == dict.fromkeys(
            types, True
        )
        assert 0 < stats["system"]["ram_free"] <= stats["system"]["ram_total"]
        assert f"--port={server.port}" in stats["system"]["argv"]
        (device,) = stats["devices"]
        assert device.keys() == {
            *("name", "type", "index", "vram_total", "vram_free", "torch_vram_total", "torch_vram_free")
        }
        assert (device["name"], device["type"], device["index"]) == ("cpu", "cpu", None)
    os_name = stats["system"]["os"]
    assert os_name == ("posix" if not has(server, 0, 8) or server.is_embedded else "linux")


async def test_features_are_announced(server: Server) -> None:
    """What 0.3.64 says is there; later versions say more."""
    for path in ("/features", "/api/features"):
        features = (await ask(server, "GET", path)).json
        assert features["supports_preview_metadata"] is True
        assert features["max_upload_size"] == 100 * 1024 * 1024
        # No asset routes unless somebody asks for them.
        assert not features.get("assets")


async def test_node_replacements_can_be_asked_for(server: Server) -> None:
    """Of packages that register some; since 0.29."""
    status = 200 if has(server, 0, 14) else 404
    content = (lambda answer: isinstance(answer.json, dict)) if has(server, 0, 14) else ANY
    await check(server, [Row("GET", f"{prefix}/node_replacements", status, content) for prefix in ("", "/api")])
    assert driver.ROOT.exists()
