"""Runs that are looked at: what they tell, and how they are held, changed and stopped from outside.

The editor is the peer here: a hub in this process, or a small server with a websocket, which may also be rude. On the
embedded server, and on the ComfyUI that COMFYUI_PATH names.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from aiohttp import WSMsgType, web
from discomfort.durable.replay import replay
from discomfort.durable.run_folder import RunRecordFolder
from discomfort.observing import editors, observer, run_history
from pack_server import discomfort_fixture
from prompt_parts import node, port

from discomfort import Discomfort, RunStoppedError, WorkflowContext, WorkflowExecutionError

TESTS = Path(__file__).parent

in_module_loop = pytest.mark.asyncio(loop_scope="module")


d = discomfort_fixture()


class Hub:
    """An editor in this process, as a run sees it; `act` is called with every status, once for each state."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.pause_at_start = False
        self.folders: list[Path] = []
        self.statuses: list[dict[str, Any]] = []
        self.answers: list[tuple[str, str | None]] = []
        self.is_closed = False
        self.act: Callable[[Mapping[str, Any]], None] = lambda status: None

    def attach(self, run_id: str, folder: str, command: Callable[[dict[str, Any]], None]) -> Hub:
        assert Path(folder).name == run_id
        self.folders.append(Path(folder))
        self.is_closed = False
        self._command = command
        self.tell("breakpoints", names=self.names, pause_at_start=self.pause_at_start)
        return self

    def tell(self, command: str, **fields: Any) -> None:
        self._command({"command": command, **fields})

    def publish(self, status: Mapping[str, Any]) -> None:
        self.statuses.append(dict(status))
        self.act(status)

    def answer(self, command_id: str, problem: str | None) -> None:
        self.answers.append((command_id, problem))

    def close(self) -> None:
        self.is_closed = True

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        found, _ = run_history.read_events(self.folders[-1])
        return [event for event in found if not kind or event["kind"] == kind]

    def on_pause(self, act: Callable[[Mapping[str, Any]], None]) -> None:
        """Call *act* with the status whenever the run has just been held."""
        seen: list[int] = []

        def listen(status: Mapping[str, Any]) -> None:
            if status["state"] == "paused" and status["paused_at"]["number"] not in seen:
                seen.append(status["paused_at"]["number"])
                act(status)

        self.act = listen


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    editors.set_local_hub(made)
    yield made
    editors.set_local_hub(None)


def double() -> dict[str, Any]:
    """number -> number: twice as much; and the words that come in."""
    return {
        "1": port("number"),
        "2": node("RunTestDouble", number=["1", 0]),
        "3": port("number", ["2", 0]),
        "4": port("words"),
        "5": node("RunTestPass", anything=["4", 0]),
        "6": port("said", ["5", 0]),
    }


def invert() -> dict[str, Any]:
    return {"1": port("image"), "2": node("ImageInvert", image=["1", 0]), "3": port("image", ["2", 0])}


INPUTS: dict[str, Any] = {"number": 1, "words": "hello"}


# ---- what it tells ----


@in_module_loop
async def test_a_run_tells_everything(d: Discomfort, hub: Hub) -> None:
    image = torch.rand(1, 96, 64, 3)
    await d.run([double(), invert()], {**INPUTS, "image": image}, iterations=3, loop_condition="number < 5")
    run, *events = hub.events()
    assert run["kind"] == "run"
    assert (run["name"], run["source"], run["iterations"]) == ("workflow 1, workflow 2", "script", 3)
    assert run["condition"] == "number < 5"
    assert run["inputs"]["number"]["value"] == 1
    assert run["inputs"]["image"]["size"] >= image.numel() * 4
    assert [note["name"] for note in run["workflows"]] == ["workflow 1", "workflow 2"]
    ports = {(one["unique_id"], one["mode"], one["node_id"]) for one in run["workflows"][0]["ports"]}
    assert ports == {
        ("number", "INPUT", "1"),
        ("words", "INPUT", "4"),
        ("number", "OUTPUT", "3"),
        ("said", "OUTPUT", "6"),
    }

    assert [event["result"] for event in events if event["kind"] == "condition"] == [True, True, True]
    steps = [event for event in events if event["kind"] == "step"]
    assert [(step["path"], step["workflow"]) for step in steps] == [
        ([n], name) for n in range(3) for name in ("workflow 1", "workflow 2")
    ]
    numbers = [step["outputs"]["number"]["value"] for step in steps if "number" in step["outputs"]]
    assert numbers == [2, 4, 8]
    assert {step["outputs"]["said"]["text"] for step in steps if "said" in step["outputs"]} == {"hello"}

    pictures = {event["path"][0]: event["value"] for event in events if event["kind"] == "sketch"}
    assert set(pictures) == {0, 1, 2}
    last = pictures[2]
    assert (last["kind"], last["shape"]) == ("image", [1, 96, 64, 3])
    assert last["mean"] == pytest.approx(1 - float(image.mean()), abs=1e-5)
    content = run_history.thumbnail(hub.folders[-1], last["thumbnail"])
    assert content is not None
    assert content.startswith(b"\xff\xd8")

    end = events[-1]
    assert (end["kind"], end["state"], end["iterations"], end["error"]) == ("end", "finished", 3, None)
    assert hub.statuses[-1]["state"] == "ended"
    assert hub.is_closed
    assert hub.statuses[-1]["offset"] == (hub.folders[-1] / "events.jsonl").stat().st_size
    head = run_history.list_runs()[0]
    assert (head.run_id, head.is_alive, head.name) == (hub.folders[-1].name, False, "workflow 1, workflow 2")


@in_module_loop
async def test_nothing_is_written_without_an_editor(d: Discomfort) -> None:
    before = run_history.list_runs()
    await d.run([double()], INPUTS)
    assert run_history.list_runs() == before


@in_module_loop
async def test_an_editor_that_is_opened_meanwhile(d: Discomfort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "_LOOK_EVERY", 0.0)
    hub = Hub()

    def listen(event: Any) -> None:
        if type(event).__name__ == "StepFinished" and event.path == (1,):
            editors.set_local_hub(hub)

    try:
        await d.run([double()], INPUTS, iterations=4, progress=listen)
    finally:
        editors.set_local_hub(None)
    steps = hub.events("step")
    assert [step["path"] for step in steps] == [[0], [1], [2], [3]]
    assert "note" in steps[0]["outputs"]["number"]
    assert steps[3]["outputs"]["number"]["value"] == 16


@in_module_loop
async def test_a_failure_tells_where(d: Discomfort, hub: Hub) -> None:
    prompt = {
        "1": port("number"),
        "2": node("RunTestRefuse", number=["1", 0], refused=4, log=""),
        "3": port("number", ["2", 0]),
    }
    with pytest.raises(WorkflowExecutionError):
        await d.run([double(), prompt], {**INPUTS, "number": 2})
    (failed,) = hub.events("step_failed")
    assert failed["error"]["node_id"] == "2"
    (end,) = hub.events("end")
    assert end["state"] == "failed"
    assert (end["error"]["class_type"], end["error"]["workflow"]) == ("RunTestRefuse", "workflow 2")
    assert end["error"]["path"] == [0]
    assert any("in check" in line for line in end["error"]["traceback"])


@in_module_loop
async def test_skipped_iterations_are_told(d: Discomfort, hub: Hub) -> None:
    prompt = {
        "1": port("number"),
        "2": node("RunTestRefuse", number=["1", 0], refused=1, log=""),
        "3": port("out", ["2", 0]),
    }
    await d.run([prompt], {"number": 1}, iterations=2, on_error="skip")
    assert [(e["iteration"], e["state"]) for e in hub.events("iteration_failed")] == [(0, "skipped"), (1, "skipped")]


@in_module_loop
async def test_secrets_are_not_told(d: Discomfort, hub: Hub) -> None:
    prompt = {
        "1": port("api_key"), "2": node("RunTestPass", anything=["1", 0]), "3": port("api_key", ["2", 0]),
        "4": port("number"), "5": node("RunTestDouble", number=["4", 0]), "6": port("number", ["5", 0]),
    }  # fmt: skip
    problems: list[Any] = []

    def look(status: Mapping[str, Any]) -> None:
        assert "api_key" not in status["paused_at"]["values"]
        hub.tell("set", id="1", name="api_key", value="other")
        hub.tell("continue")

    hub.names = ["api_key"]
    hub.on_pause(look)
    result = await d.run([prompt], {"api_key": "sk-very-secret", "number": 1})
    problems = hub.answers
    assert result["api_key"] == "sk-very-secret"
    assert problems[0][1] == "'api_key' is a secret: it can be neither seen nor changed here."
    for file in hub.folders[-1].rglob("*"):
        assert not file.is_file() or b"very-secret" not in file.read_bytes(), file
    (step,) = hub.events("step")
    assert step["outputs"]["api_key"] == {"kind": "secret", "type": "secret"}


@in_module_loop
async def test_an_error_that_repeats_a_secret_does_not_tell_it(d: Discomfort, hub: Hub) -> None:
    prompt = {
        "1": port("token"), "2": node("RunTestSecret", api_key="sk-in-a-widget", token=["1", 0], fail=True),
        "3": port("out", ["2", 0]),
    }  # fmt: skip
    with pytest.raises(WorkflowExecutionError, match="sk-in-a-widget"):
        await d.run([prompt], {"token": "sk-in-a-port"})
    assert hub.events("end")[0]["state"] == "failed"
    assert "(secret, not recorded)" in hub.events("step_failed")[0]["error"]["message"]
    for file in hub.folders[-1].rglob("*"):
        assert not file.is_file() or not any(key in file.read_bytes() for key in (b"sk-in-a-widget", b"sk-in-a-port"))


@in_module_loop
async def test_latents_masks_and_other_tensors(d: Discomfort, hub: Hub) -> None:
    values = {
        "latent": {"samples": torch.randn(2, 4, 16, 24)},
        "wide": {"samples": torch.randn(1, 16, 16, 24)},
        "mask": torch.rand(1, 300, 400),
        "weights": torch.randn(7, 5, 3, 20, 20),
        "flat": torch.full((40000,), float("nan")),
    }
    prompt: dict[str, Any] = {}
    for number, name in enumerate(values):
        first, second, third = (str(3 * number + n) for n in range(3))
        prompt[first] = port(name)
        prompt[second] = node("RunTestPass", anything=[first, 0])
        prompt[third] = port(f"{name} out", [second, 0])
    await d.run([prompt], values)
    found = dict(hub.events("step")[0]["outputs"])
    found.update({event["name"]: event["value"] for event in hub.events("sketch")})
    assert {name: one["kind"] for name, one in found.items()} == {
        "latent out": "latent", "wide out": "latent", "mask out": "mask", "weights out": "tensor", "flat out": "tensor",
    }  # fmt: skip
    assert found["latent out"]["shape"] == [2, 4, 16, 24]
    assert found["flat out"]["nan"] == 40000
    assert found["weights out"]["mean"] == pytest.approx(float(values["weights"].mean()), abs=1e-5)  # type: ignore[attr-defined]
    thumbnails = {name for name, one in found.items() if "thumbnail" in one}
    assert thumbnails <= {"latent out", "wide out", "mask out"}
    assert "mask out" in thumbnails


@in_module_loop
async def test_a_short_loop_of_quick_steps_is_seen_in_full(d: Discomfort, hub: Hub) -> None:
    """There is no time for all of its pictures while it runs; what is left is looked at when it is over."""
    await d.run([invert()], {"image": torch.rand(1, 64, 64, 3)}, iterations=30)
    shown = {event["path"][0] for event in hub.events("sketch") if "thumbnail" in event["value"]}
    assert shown == set(range(30))


@in_module_loop
async def test_what_waits_to_be_looked_at_is_bounded(d: Discomfort, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "_WAITING_BYTES", 4 * 10**6)
    monkeypatch.setattr(observer, "_SKETCH_SHARE", 1e-9)  # never, until it is over
    await d.run([invert(), double()], {**INPUTS, "image": torch.rand(1, 300, 300, 3)}, iterations=20)  # 1.08 MB each
    shown = sorted(event["path"][0] for event in hub.events("sketch"))
    assert shown[-3:] == [17, 18, 19]
    assert len(shown) <= 5  # the first one was looked at before it was known how long that takes


@in_module_loop
async def test_small_pictures_of_a_long_run_are_fewer(
    d: Discomfort, hub: Hub, monkeypatch: pytest.MonkeyPatch, wait_for: Callable[..., Any]
) -> None:
    monkeypatch.setattr(observer, "_THUMBNAILS", 4)
    monkeypatch.setattr(observer, "_SKETCH_SHARE", 1000.0)  # there is time for all of them

    async def wait(values: Any, iteration: int) -> bool:
        if iteration:
            await asyncio.to_thread(wait_for, lambda: len(hub.events("sketch")) >= iteration)
        return True

    dim = {
        "1": port("image"), "2": node("ImageScaleBy", image=["1", 0], upscale_method="nearest-exact", scale_by=1.1),
        "3": port("image", ["2", 0]),
    }  # fmt: skip
    await d.run([dim], {"image": torch.rand(1, 100, 100, 3)}, iterations=12, loop_condition=wait)
    shown = sorted(event["path"][0] for event in hub.events("sketch") if "thumbnail" in event["value"])
    assert shown == [0, 1, 2, 3, 4, 6, 8, 10, 11]  # the last one in any case


# ---- how it is held ----


@in_module_loop
async def test_an_edit_at_a_breakpoint_changes_the_outcome(d: Discomfort, hub: Hub) -> None:
    looked: list[Any] = []

    def act(status: Mapping[str, Any]) -> None:
        looked.append(status["paused_at"])
        if status["paused_at"]["path"] == [2] and status["paused_at"]["before"] != "the end":
            hub.tell("set", id="a", name="number", value=100)
            hub.tell("set", id="b", name="words", value="<b>other</b>")
            hub.tell("set", id="c", name="number", value="text")
            hub.tell("set", id="d", name="absent", value=1)
        hub.tell("continue")

    hub.names = ["number"]
    hub.on_pause(act)
    started = time.monotonic()
    result = await d.run([double()], INPUTS, iterations=3, progress=False)
    assert result["number"] == 200
    assert result["said"] == "<b>other</b>"
    # Before the first step (it reads it), behind each step.
    assert [(one["reason"], one["port"], one["path"], one["before"]) for one in looked] == [
        ("breakpoint", "number", [0], "step workflow 1"),
        ("breakpoint", "number", [1], "step workflow 1"),
        ("breakpoint", "number", [2], "step workflow 1"),
        ("breakpoint", "number", [2], "the end"),
    ]
    assert looked[1]["values"]["number"]["value"] == 2
    assert looked[1]["values"]["words"]["text"] == "hello"
    assert [problem for _, problem in hub.answers] == [
        None, None, "This value is a whole number, not 'text'.", "The run has no value 'absent'.",
    ]  # fmt: skip
    edits = hub.events("edited")
    assert [(e["name"], e["after"].get("value", e["after"].get("text"))) for e in edits] == [
        ("number", 100), ("words", "<b>other</b>"),
    ]  # fmt: skip
    assert edits[0]["before"]["value"] == 4
    assert 0 < result.record.paused_seconds < time.monotonic() - started
    assert "paused" in result.record.summary()
    assert [event["how"] for event in hub.events("resumed")] == ["continue"] * 4


@in_module_loop
async def test_an_edit_decides_a_condition(d: Discomfort, hub: Hub) -> None:
    """The run is held before the condition is asked, so that it is asked about the new value."""

    def act(status: Mapping[str, Any]) -> None:
        if status["paused_at"]["path"] == [2]:
            assert status["paused_at"]["before"] == "the loop's condition"
            hub.tell("set", id="a", name="number", value=1000)
        hub.tell("continue")

    hub.names = ["number"]
    hub.on_pause(act)
    result = await d.run([double()], INPUTS, iterations=50, loop_condition="number < 900")
    assert result["number"] == 1000
    assert result.record.iterations == 2


@in_module_loop
async def test_steps_one_by_one(d: Discomfort, hub: Hub) -> None:
    places: list[Any] = []

    def act(status: Mapping[str, Any]) -> None:
        places.append((status["paused_at"]["reason"], status["paused_at"]["before"], status["iteration"]))
        hub.tell("step" if len(places) < 4 else "continue")

    hub.pause_at_start = True
    hub.on_pause(act)
    await d.run([double(), invert()], {**INPUTS, "image": torch.rand(1, 8, 8, 3)}, iterations=10)
    assert places == [
        ("start", "step workflow 1", 0),
        ("step", "step workflow 2", 0),
        ("step", "step workflow 1", 1),
        ("step", "step workflow 2", 1),
    ]


@in_module_loop
async def test_stopped_in_the_middle_of_a_step(d: Discomfort, hub: Hub, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    slow = {
        "1": port("number"), "2": node("RunTestSlow", number=["1", 0], seconds=30.0, log=log),
        "3": port("number", ["2", 0]),
    }  # fmt: skip
    told: list[str] = []

    def act(status: Mapping[str, Any]) -> None:
        if (status["node"] or {}).get("class_type") == "RunTestSlow" and not told:
            told.append("stop")
            hub.tell("stop")

    hub.act = act
    started = time.monotonic()
    with pytest.raises(RunStoppedError, match="stopped from the editor's sidebar"):
        await d.run([slow], {"number": 1})
    assert time.monotonic() - started < 15
    assert hub.events("end")[0]["state"] == "stopped"
    # The server is free again, and so is the task.
    result = await d.run([double()], INPUTS)
    assert result["number"] == 2


@in_module_loop
async def test_stopped_while_it_is_held(d: Discomfort, hub: Hub, tmp_path: Path) -> None:
    hub.pause_at_start = True
    hub.on_pause(lambda status: hub.tell("stop"))
    with pytest.raises(RunStoppedError, match="the same call goes on from there"):
        await d.run([double()], INPUTS, iterations=3, checkpoint=tmp_path / "run")
    assert hub.events("resumed")[0]["how"] == "stop"
    assert RunRecordFolder.open(tmp_path / "run").entries[-1]["state"] == "interrupted"
    hub.pause_at_start = False
    result = await d.run([double()], INPUTS, iterations=3, checkpoint=tmp_path / "run")
    assert result["number"] == 8


@in_module_loop
async def test_edits_survive_a_crash(d: Discomfort, hub: Hub, tmp_path: Path) -> None:
    """The journal has them: the run that goes on has the values that somebody gave it."""

    def act(status: Mapping[str, Any]) -> None:
        if status["paused_at"]["path"] == [1]:
            hub.tell("set", id="a", name="number", value=10)
            hub.tell("set", id="b", name="words", value="x" * 100_000)
        hub.tell("continue")

    class CrashError(Exception):
        pass

    def crash(event: Any) -> None:
        if type(event).__name__ == "StepFinished" and event.path == (2,):
            raise CrashError

    hub.names = ["number"]
    hub.on_pause(act)
    folder = tmp_path / "run"
    with pytest.raises(CrashError):
        await d.run([double()], INPUTS, iterations=4, checkpoint=folder, progress=crash)
    edited = [entry for entry in RunRecordFolder.open(folder).entries if entry.get("edited")]
    assert [(entry["name"], entry["path"]) for entry in edited] == [("number", [1]), ("words", [1])]
    editors.set_local_hub(None)
    result = await d.run([double()], INPUTS, iterations=4, checkpoint=folder)
    assert result["number"] == 10 * 2 * 2 * 2
    assert result["said"] == "x" * 100_000
    again = await d.run([double()], INPUTS, iterations=4, checkpoint=folder)
    assert again["number"] == 80
    assert again.record.recalled_steps == 4


@in_module_loop
async def test_a_run_that_was_changed_by_hand_can_be_replayed(d: Discomfort, hub: Hub, tmp_path: Path) -> None:
    """The record has what somebody did: it is reproducible all the same, and one iteration by itself is, too."""

    def act(status: Mapping[str, Any]) -> None:
        if status["paused_at"]["path"] == [1]:
            hub.tell("set", id="a", name="number", value=10)
        hub.tell("continue")

    hub.names = ["number"]
    hub.on_pause(act)
    folder = tmp_path / "run"
    result = await d.run([double()], INPUTS, iterations=3, checkpoint=folder, keep="all")
    assert result["number"] == 40
    editors.set_local_hub(None)
    again = await replay(d, RunRecordFolder.open(folder))
    assert again.is_identical, again.differences
    one = await replay(d, RunRecordFolder.open(folder), 1)
    assert one.is_identical, one.differences


@in_module_loop
async def test_recalled_steps_are_shown_and_hold_nothing(d: Discomfort, hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    await d.run([double()], INPUTS, iterations=3, checkpoint=folder)
    hub.names = ["number"]
    held: list[Any] = []
    hub.on_pause(lambda status: (held.append(status["paused_at"]), hub.tell("continue")))  # type: ignore[func-returns-value]
    await d.run([double()], INPUTS, iterations=3, checkpoint=folder)
    assert held == []
    assert [step["recalled"] for step in hub.events("step")] == [True] * 3


@in_module_loop
async def test_a_batch_is_shown_too(d: Discomfort, hub: Hub) -> None:
    items = [{"number": n, "words": "w"} for n in (1, 2, 3)]
    values = [item.outputs["number"] async for item in d.run_batch([double()], items)]
    assert values == [2, 4, 6]
    run = hub.events("run")[0]
    assert (run["unit"], run["iterations"]) == ("item", 3)
    assert [event["path"] for event in hub.events("step")] == [[0], [1], [2]]


@in_module_loop
async def test_an_edit_stays_for_the_items_that_follow(d: Discomfort, hub: Hub) -> None:
    def act(status: Mapping[str, Any]) -> None:
        if status["paused_at"]["path"] == [1]:
            hub.tell("set", id="a", name="words", value="changed")
        hub.tell("continue")

    hub.names = ["number"]
    hub.on_pause(act)
    batch = d.run_batch([double()], [1, 2, 3], inputs={"words": "as given"}, input="number")
    said = [item.outputs["said"] async for item in batch]
    assert said == ["as given", "changed", "changed"]


@in_module_loop
async def test_two_runs_at_once_are_told_apart(d: Discomfort, hub: Hub) -> None:
    await asyncio.gather(*(d.run([double()], {**INPUTS, "number": n}, iterations=2) for n in (1, 10)))
    assert len(set(hub.folders)) == 2
    ends = {run_history.read_events(folder)[0][-1]["state"] for folder in hub.folders}
    assert ends == {"finished"}


@in_module_loop
async def test_an_observer_that_cannot_write_lets_the_run_go_on(
    d: Discomfort, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "no folder").write_text("")
    monkeypatch.setattr(run_history, "history_root", lambda: tmp_path / "no folder" / "runs")
    result = await d.run([double()], INPUTS, iterations=2)
    assert result["number"] == 4
    assert hub.folders == []


# ---- an editor in another process ----


class Editor:
    """A server with the websocket of an editor, as a run in another process meets it."""

    def __init__(self) -> None:
        self.hello: dict[str, Any] = {}
        self.messages: list[dict[str, Any]] = []
        self.socket: web.WebSocketResponse | None = None
        self.first: Any = {"command": "breakpoints", "names": [], "pause_at_start": False}
        self.refuses = False
        self.token = ""
        self.has_status = asyncio.Event()

    async def link(self, request: web.Request) -> web.StreamResponse:
        if self.refuses or request.headers.get("Authorization") != f"Bearer {self.token}":
            raise web.HTTPForbidden
        self.socket = socket = web.WebSocketResponse()
        await socket.prepare(request)
        if isinstance(self.first, dict):
            await socket.send_json(self.first)
        elif self.first is not None:
            await socket.send_str(self.first)
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                content = json.loads(message.data)
                self.messages.append(content)
                if content["type"] == "attach":
                    self.hello = content
                self.has_status.set()
        return socket

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async def wait() -> dict[str, Any]:
            while True:
                for message in self.messages:
                    if condition(message):
                        return message
                self.has_status.clear()
                await self.has_status.wait()

        return await asyncio.wait_for(wait(), 30)

    async def until_state(self, state: str) -> dict[str, Any]:
        return await self.until(lambda message: message.get("state") == state)

    async def tell(self, command: str, **fields: Any) -> None:
        assert self.socket is not None
        await self.socket.send_json({"command": command, **fields})


@pytest_asyncio.fixture(loop_scope="module")
async def editor(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Editor]:
    """An editor that runs can find. It is in this process, which is why they are told that it is in another one."""
    made = Editor()
    app = web.Application()
    app.router.add_get("/discomfort/link", made.link)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = "http://{}:{}".format(*runner.addresses[0])
    published = editors.publish_editor(address)
    made.token = published.token
    note = Path(published._folder) / "editor.json"
    content = json.loads(note.read_text())
    note.write_text(json.dumps({**content, "pid": 1}))
    yield made
    published.withdraw()
    assert not note.parent.exists()
    await runner.cleanup()


@in_module_loop
async def test_a_script_is_held_and_changed_from_another_process(d: Discomfort, editor: Editor) -> None:
    editor.first = {"command": "breakpoints", "names": [], "pause_at_start": True}
    running = asyncio.create_task(d.run([double()], INPUTS, iterations=2))
    status = await editor.until_state("paused")
    assert status["paused_at"]["reason"] == "start"
    assert Path(editor.hello["folder"]).name == editor.hello["run_id"]
    await editor.tell("set", id="7", name="number", value=50)
    answer = await editor.until(lambda message: message["type"] == "answer")
    assert answer == {"type": "answer", "id": "7", "problem": None}
    await editor.tell("continue")
    result = await running
    assert result["number"] == 200
    await editor.until_state("ended")


@in_module_loop
@pytest.mark.parametrize("rudeness", ["refuses", "silent", "rubbish", "closes"])
async def test_a_rude_editor_does_not_disturb(d: Discomfort, editor: Editor, rudeness: str) -> None:
    editor.refuses = rudeness == "refuses"
    editor.first = {"silent": None, "rubbish": "]{ no JSON"}.get(rudeness, editor.first)

    closing: list[Any] = []

    def listen(event: Any) -> None:
        if rudeness == "closes" and editor.socket is not None and not editor.socket.closed:
            closing.append(asyncio.ensure_future(editor.socket.close()))

    started = time.monotonic()
    result = await d.run([double()], INPUTS, iterations=5, progress=listen)
    assert result["number"] == 32
    assert time.monotonic() - started < 10


@in_module_loop
async def test_a_held_run_goes_on_when_its_editor_dies(d: Discomfort, editor: Editor) -> None:
    editor.first = {"command": "breakpoints", "names": ["number"], "pause_at_start": True}
    running = asyncio.create_task(d.run([double()], INPUTS, iterations=3))
    await editor.until_state("paused")
    assert editor.socket is not None
    editor.refuses = True
    await editor.socket.close()
    result = await asyncio.wait_for(running, 20)
    assert result["number"] == 8
    events, _ = run_history.read_events(Path(editor.hello["folder"]))
    assert [event["how"] for event in events if event["kind"] == "resumed"] == ["editor gone"]


def test_an_editor_of_a_killed_process_is_not_found(private_folders: Path) -> None:
    """Its file is still there, and its lock is free."""
    script = textwrap.dedent(
        """
        from discomfort.observing.editors import publish_editor
        editor = publish_editor("http://127.0.0.1:9")
        print("published", flush=True)
        input()
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TESTS.parent
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "published\n"
        found = [one for one in editors.find_editors() if one.pid == process.pid]
        assert [one.address for one in found] == ["http://127.0.0.1:9"]
        assert found[0].token
    finally:
        process.kill()
        process.communicate()
    assert [one for one in editors.find_editors() if one.pid == process.pid] == []


def test_other_users_cannot_read_an_editors_token() -> None:
    published = editors.publish_editor("http://127.0.0.1:9")
    try:
        assert published._folder.stat().st_mode & 0o077 == 0
        assert (published._folder / "editor.json").stat().st_mode & 0o077 == 0
        assert editors.find_editors() == []  # of this process itself
    finally:
        published.withdraw()
    published.withdraw()
    assert not published._folder.exists()


def test_an_editor_that_cannot_say_so_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(editors.PublishedEditor, "_write", full)
        with pytest.raises(OSError, match="No space left"):
            editors.publish_editor("http://127.0.0.1:9")
    editors.publish_editor("http://127.0.0.1:9").withdraw()  # neither folder nor lock is in its way


# ---- the history ----


def make_run(run_id: str, started: float, size: int = 10, ended: bool = True) -> run_history.RunHistory:
    history = run_history.RunHistory(run_id)
    history.append("run", run_id=run_id, started=started, name=f"run {run_id[:4]}", filler="x" * size)
    if ended:
        history.append("end", state="finished")
        history.close()
    return history


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A history of its own."""
    monkeypatch.setattr(run_history, "history_root", lambda: tmp_path / "runs")
    return tmp_path / "runs"


def test_old_runs_go_and_live_ones_stay(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_history, "KEPT_RUNS", 3)
    live = make_run("0" * 32, 1.0, ended=False)
    for number in range(1, 6):
        make_run(f"{number}" * 32, float(number))
    run_history.prune()
    assert [head.run_id[0] for head in run_history.list_runs()] == ["5", "4", "3", "0"]
    assert run_history.list_runs()[-1].is_alive
    assert not run_history.remove_run("0" * 32)
    live.close()
    assert run_history.remove_run("0" * 32)
    monkeypatch.setattr(run_history, "KEPT_BYTES", 5000)
    make_run("9" * 32, 9.0, size=4500)
    run_history.prune()
    assert [head.run_id[0] for head in run_history.list_runs()] == ["9", "5"]


def test_a_killed_run_has_no_end_and_is_not_alive(root: Path) -> None:
    history = make_run("a" * 32, 1.0, ended=False)
    assert run_history.list_runs()[0].is_alive
    history.close()  # as the system does it for a process that is killed
    (head,) = run_history.list_runs()
    assert (head.is_alive, head.end) == (False, None)


def test_half_a_line_is_not_read(root: Path) -> None:
    history = make_run("a" * 32, 1.0, ended=False)
    with open(history.folder / "events.jsonl", "ab") as file:
        file.write(b'{"kind":"st')
    events, offset = run_history.read_events(history.folder)
    assert [event["kind"] for event in events] == ["run"]
    with open(history.folder / "events.jsonl", "ab") as file:
        file.write(b'ep"}\nrubbish\n{"kind":"end"}\n')
    more, end = run_history.read_events(history.folder, offset)
    assert [event["kind"] for event in more] == ["step", "end"]
    assert run_history.read_events(history.folder, end) == ([], end)
    one_line, _ = run_history.read_events(history.folder, 0, limit=5)
    assert [event["kind"] for event in one_line] == ["run"]
    history.close()


def test_a_run_of_very_many_steps_ends_all_the_same(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_history, "EVENTS_LIMIT", 2000)
    history = make_run("a" * 32, 1.0, ended=False)
    for number in range(1000):
        history.append("step", path=[number])
    history.append("end", state="finished")
    history.close()
    assert (history.folder / "events.jsonl").stat().st_size < 3000
    assert run_history.list_runs()[0].end is not None


def test_a_full_disk_is_no_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = make_run("a" * 32, 1.0, ended=False)

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        history.append("step")
        history.append("end")
    history.close()


def test_a_folder_that_cannot_be_begun_is_not_left(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def refuse(path: Any, *rest: Any, **more: Any) -> int:
        if str(path).endswith("events.jsonl"):
            raise OSError(28, "No space left on device")
        return opened(path, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(OSError, match="No space left"):
            run_history.RunHistory("a" * 32)
    assert list(root.iterdir()) == []


def test_old_runs_are_not_weighed_at_every_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_history, "KEPT_RUNS", 1)
    monkeypatch.setattr(run_history, "_next_prune", 0.0)
    for number in range(3):
        make_run(f"{number}" * 32, float(number))
    run_history.prune_sometimes()
    assert len(run_history.list_runs()) == 1
    make_run("8" * 32, 8.0)
    run_history.prune_sometimes()
    assert len(run_history.list_runs()) == 2


@pytest.mark.parametrize("name", ["../run", "..", "a/b.jpg", "", "x.png", "é.jpg"])
def test_only_plain_names_are_files(root: Path, name: str) -> None:
    history = make_run("a" * 32, 1.0)
    assert run_history.thumbnail(history.folder, name) is None


@pytest.mark.parametrize("run_id", ["", "..", "../" + "a" * 29, "A" * 32, "a" * 31])
def test_only_a_run_id_finds_a_run(root: Path, run_id: str) -> None:
    make_run("a" * 32, 1.0)
    assert run_history.find_run(run_id) is None
    assert not run_history.remove_run(run_id)


def test_an_observer_of_a_context_does_not_need_a_loop() -> None:
    """A run's parts are made before it is known whether anybody looks."""
    from discomfort.run_record import RunRecord

    with WorkflowContext() as context:
        made = observer.Observer(context, RunRecord(context.run_id), context.save)
        assert not made.is_active
        made.begin_step((0,), "w")
        made.note("recycle")
