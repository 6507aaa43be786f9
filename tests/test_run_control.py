"""Pausing, stepping, breakpoints and edits, without a run: a task that passes gates."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from discomfort.observing.run_control import Gate, RunControl


class Walker:
    """A task that passes gates as a run does, and says where it is held."""

    def __init__(self, steps: int = 3, reads: tuple[str, ...] = ("x",), writes: tuple[str, ...] = ("x",)):
        self.values: dict[str, Any] = {"x": 1.0}
        self.answers: list[tuple[str, str | None]] = []
        self.control = RunControl(lambda: None, self._edit, lambda *answer: self.answers.append(answer))
        self.held: list[tuple[str, str, str]] = []
        self.done: list[int] = []
        self._looked_at = 0
        self._steps, self._reads, self._writes = steps, reads, writes
        self._has_changed = asyncio.Event()
        self.control.on_change = self._has_changed.set
        self.task = asyncio.create_task(self._walk())

    def _edit(self, name: str, value: Any) -> None:
        if name not in self.values:
            raise ValueError(f"no {name!r}")
        self.values[name] = value

    async def _walk(self) -> str:
        self.control.bind()
        await asyncio.sleep(0.05)  # what a test says first is said before the run begins
        for number in range(self._steps):
            await self._pass(Gate((number,), f"condition {number}"))
            await self._pass(Gate((number,), f"step {number}", self._reads))
            self.done.append(number)
            await asyncio.sleep(0)
            self.control.note_written(self._writes)
        await self._pass(Gate((self._steps,), "the end"))
        return "done"

    async def _pass(self, gate: Gate) -> None:
        async def look() -> None:
            pass

        if self.control.should_pause(gate):
            self.held.append((gate.before, self.control.reason, self.control.port))
            await self.control.hold(gate, look)

    async def until_held(self) -> str:
        """Until it is held once more; where."""

        async def wait() -> None:
            while len(self.held) <= self._looked_at or self.control.state != "paused":
                self._has_changed.clear()
                await self._has_changed.wait()

        await asyncio.wait_for(wait(), 5)
        self._looked_at += 1
        return self.held[-1][0]

    def tell(self, command: str, **fields: Any) -> None:
        self.control.tell({"command": command, **fields})


async def test_pause_holds_before_the_next_gate_and_continue_goes_on() -> None:
    walker = Walker()
    await asyncio.sleep(0)
    walker.tell("pause")
    await asyncio.sleep(0)
    assert walker.control.state == "pausing"
    assert await walker.until_held() == "condition 0"
    assert walker.done == []
    walker.tell("continue")
    assert await asyncio.wait_for(walker.task, 5) == "done"
    assert walker.held == [("condition 0", "pause", "")]
    assert walker.control.resumed_by == "continue"


async def test_a_step_ends_behind_one_step() -> None:
    walker = Walker()
    await asyncio.sleep(0)
    walker.tell("pause")
    await walker.until_held()
    seen = []
    for _ in range(3):
        walker.tell("step")
        seen.append((await walker.until_held(), list(walker.done)))
    assert seen == [("condition 1", [0]), ("condition 2", [0, 1]), ("the end", [0, 1, 2])]
    assert [reason for _, reason, _ in walker.held] == ["pause", "step", "step", "step"]
    walker.tell("continue")
    assert await asyncio.wait_for(walker.task, 5) == "done"


async def test_a_breakpoint_holds_once_between_two_steps() -> None:
    walker = Walker(steps=2)
    await asyncio.sleep(0)
    walker.tell("breakpoints", names=["x"])
    for _ in range(3):
        await walker.until_held()
        walker.tell("continue")
    assert await asyncio.wait_for(walker.task, 5) == "done"
    # Before the first step, which reads it; behind each step, which writes it, and before the condition.
    assert walker.held == [
        ("step 0", "breakpoint", "x"),
        ("condition 1", "breakpoint", "x"),
        ("the end", "breakpoint", "x"),
    ]


async def test_a_breakpoint_on_what_is_only_read_holds_before_every_step() -> None:
    walker = Walker(steps=2, reads=("y",))
    await asyncio.sleep(0)
    walker.tell("breakpoints", names=["y", 3])
    for _ in range(2):
        await walker.until_held()
        walker.tell("continue")
    assert await asyncio.wait_for(walker.task, 5) == "done"
    assert walker.held == [("step 0", "breakpoint", "y"), ("step 1", "breakpoint", "y")]


async def test_no_breakpoint_for_another_port() -> None:
    walker = Walker()
    await asyncio.sleep(0)
    walker.tell("breakpoints", names=["z"])
    assert await asyncio.wait_for(walker.task, 5) == "done"
    assert walker.held == []


async def test_paused_at_the_start() -> None:
    walker = Walker()
    await asyncio.sleep(0)
    walker.tell("breakpoints", names=[], pause_at_start=True)
    await walker.until_held()
    assert walker.held == [("condition 0", "start", "")]
    walker.tell("continue")
    await asyncio.wait_for(walker.task, 5)
    assert len(walker.held) == 1


async def test_values_are_changed_while_it_is_paused_only() -> None:
    walker = Walker()
    await asyncio.sleep(0)
    walker.tell("set", id="1", name="x", value=2.0)
    walker.tell("pause")
    await walker.until_held()
    walker.tell("set", id="2", name="x", value=3.0)
    walker.tell("set", id="3", name="nothing", value=3.0)
    walker.tell("continue")
    await asyncio.wait_for(walker.task, 5)
    assert walker.answers == [
        ("1", "Values can be changed while the run is paused."),
        ("2", None),
        ("3", "no 'nothing'"),
    ]
    assert walker.values == {"x": 3.0}


@pytest.mark.parametrize("while_paused", [True, False])
async def test_stop_cancels_the_task(while_paused: bool) -> None:
    walker = Walker(steps=10**6)
    await asyncio.sleep(0)
    if while_paused:
        walker.tell("pause")
        await walker.until_held()
    walker.tell("stop")
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(walker.task, 5)
    assert walker.control.is_stopped
    assert walker.control.paused_at is None


async def test_nobody_looks_any_more() -> None:
    walker = Walker()
    await asyncio.sleep(0)
    walker.tell("breakpoints", names=["x"], pause_at_start=True)
    await walker.until_held()
    walker.control.release()
    assert await asyncio.wait_for(walker.task, 5) == "done"
    assert walker.control.resumed_by == "editor gone"
    assert len(walker.held) == 1


async def test_what_looks_may_end_the_wait() -> None:
    control = RunControl()
    control.bind()
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        await control.hold(Gate((0,), "a step"), look)
    assert control.state == "running"


async def test_rubbish_is_no_command() -> None:
    walker = Walker(steps=1)
    await asyncio.sleep(0)
    for command in ({}, {"command": "explode"}, {"command": "breakpoints", "names": None}, {"command": ["pause"]}):
        walker.control.tell(command)
    assert await asyncio.wait_for(walker.task, 5) == "done"
    walker.control.tell({"command": "pause"})  # too late, and no error


def test_a_command_before_the_run_and_after_its_loop_is_no_error() -> None:
    control = RunControl()
    control.tell({"command": "stop"})
    assert not control.was_stopped()

    async def bind() -> None:
        control.bind()

    asyncio.run(bind())
    control.tell({"command": "pause"})
    assert control.state == "running"
