"""The nested server that runner nodes share, and how a node waits for what runs on it.

ComfyUI calls nodes in a thread of its own, without an event loop that would outlive the call; the server, its browser
and its websocket belong to one loop for as long as they live. So a process has one more thread, with a loop in it, and
runs are handed to it. The thread of the node waits meanwhile: it shows progress, because ComfyUI finds out by the
thread which node progress is about, and it looks whether the user has cancelled.

The server is started by the first run and ends some minutes after the last one (the setting ``IDLE_SETTING``), when
somebody stops it, and with the process, however that ends.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..object_store.shared_names import shared_module
from . import outer

if TYPE_CHECKING:
    from ..discomfort import Discomfort

log = logging.getLogger("discomfort.editor_nodes")

_T = TypeVar("_T")

#: minutes without a run after which the nested server ends, a setting of the editor; 0: never
IDLE_SETTING = "Discomfort.Server.IdleMinutes"
DEFAULT_IDLE_MINUTES = 10.0

# Seconds between two looks at progress and Cancel.
TICK = 0.1
# Seconds that a cancelled run may take to interrupt its prompt and to clean up, before the node stops waiting for it.
CANCEL_TIMEOUT = 10.0
# Seconds that stop_server() waits: for a start that is under way, or for the server's end.
STOP_TIMEOUT = 60.0

# Seconds that runs and server may take to end when the process ends.
EXIT_TIMEOUT = 10.0

# The name in the shared module: one background for all copies of this package in the process.
_SHARED_AS = "runner_background"


class ServerBusyError(RuntimeError):
    """The nested server cannot be stopped: a run is using it."""


class _Job:
    """A coroutine that runs in the background, seen from the thread that waits for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None
        #: its result, or what it raised, asyncio.CancelledError included; done when nothing of it runs any more
        self.outcome: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """In the loop's thread."""
        self._task = asyncio.ensure_future(work)
        self._task.add_done_callback(self._finish)
        return self._task

    def _finish(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self.outcome.set_exception(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(task.result())

    def cancel(self, timeout: float) -> bool:
        """Cancel it and wait for its end; whether it came within *timeout* seconds."""
        self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())
        return bool(concurrent.futures.wait([self.outcome], timeout).done)


class Background:
    """A thread with an event loop, and the one nested server that lives in it.

    What is not said to be of any thread belongs to the loop's. ``_gate`` is held while the server is started or
    stopped, and while a run says that it uses it: so a stop never meets a run that has just got the server.
    """

    def __init__(self) -> None:
        self._thread_lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._gate: asyncio.Lock | None = None
        self._discomfort: Discomfort | None = None
        self._is_starting = False
        # runs that were begun and have not ended; those of them that have the server
        self._jobs: set[asyncio.Task[Any]] = set()
        self._users = 0
        self._is_ending = False
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_minutes = DEFAULT_IDLE_MINUTES
        # keeps the task of an idle stop alive
        self._stopping: asyncio.Task[None] | None = None

    # ---- any thread ----

    def submit(self, work: Callable[[Discomfort], Awaitable[Any]], create: Callable[[], Awaitable[Discomfort]]) -> _Job:
        """Begin a run. Context variables of the caller hold in it.

        Args:
            work: called with the Discomfort to run on.
            create: starts the server, where there is none.
        """
        loop = self._running_loop()
        job = _Job(loop)
        loop.call_soon_threadsafe(lambda: self._begin(job, self._use(work, create)))
        return job

    def status(self) -> dict[str, Any]:
        """What server_status() returns."""
        discomfort = self._discomfort
        state, description = "stopped", ""
        if self._is_starting:
            state = "starting"
        elif discomfort is not None and discomfort.Worker.state in ("ready", "initializing", "error"):
            state, description = "ready", discomfort.Worker.server_description
        return {
            "state": state,
            "description": description,
            "idle_timeout": self._idle_minutes * 60,
            "runs": self._users,
        }

    def stop(self, timeout: float) -> bool:
        """What stop_server() does."""
        loop = self._loop
        if loop is None or self._thread is None or not self._thread.is_alive():
            return False
        stopping = asyncio.run_coroutine_threadsafe(self._stop(), loop)
        try:
            return stopping.result(timeout)
        except concurrent.futures.TimeoutError:
            stopping.cancel()
            raise TimeoutError(f"The nested server did not stop within {timeout:g} s.") from None

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._thread_lock:
            if self._loop is None or self._thread is None or not self._thread.is_alive():
                self._loop = _new_loop()
                self._gate = asyncio.Lock()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="discomfort-runner-nodes", daemon=True
                )
                self._thread.start()
                _call_at_exit(self._end_with_process)
            return self._loop

    def _end_with_process(self) -> None:
        """When the interpreter is about to exit: end runs and server in an orderly way. What that cannot do in time,
        the connector does by force a moment later.
        """
        loop, thread = self._loop, self._thread
        if loop is None or thread is None or not thread.is_alive():
            return
        ending = asyncio.run_coroutine_threadsafe(self._end(), loop)
        with contextlib.suppress(Exception):  # there is nobody left to tell
            ending.result(EXIT_TIMEOUT)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(2.0)
        if not thread.is_alive():
            loop.close()

    # ---- the loop's thread ----

    def _begin(self, job: _Job, work: Coroutine[Any, Any, Any]) -> None:
        task = job.begin(work)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def _end(self) -> None:
        """Cancel what runs, stop the server, and leave nothing in the loop."""
        self._is_ending = True
        self._disarm()
        for task in self._jobs:
            task.cancel()
        if self._jobs:
            await asyncio.wait(self._jobs)
        with contextlib.suppress(ServerBusyError):
            await self._stop()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for other in rest:
            other.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_asyncgens()

    async def _use(
        self, work: Callable[[Discomfort], Awaitable[_T]], create: Callable[[], Awaitable[Discomfort]]
    ) -> _T:
        assert self._gate is not None
        if self._is_ending:
            raise RuntimeError("No run can begin any more: ComfyUI is ending.")
        async with self._gate:
            self._disarm()
            discomfort = await self._ready(create)
            self._users += 1
        try:
            return await work(discomfort)
        finally:
            self._users -= 1
            if not self._users:
                self._arm()

    async def _ready(self, create: Callable[[], Awaitable[Discomfort]]) -> Discomfort:
        if self._discomfort is not None and self._discomfort.Worker.state not in ("killing", "killed"):
            return self._discomfort
        self._is_starting = True
        try:
            self._discomfort = await create()
        finally:
            self._is_starting = False
        return self._discomfort

    async def _stop(self) -> bool:
        assert self._gate is not None
        async with self._gate:
            if self._users:
                raise ServerBusyError(
                    f"The nested server is in use by {self._users} run{'s' if self._users != 1 else ''}. Cancel or "
                    "finish them first."
                )
            self._disarm()
            discomfort, self._discomfort = self._discomfort, None
            if discomfort is None:
                return False
            await discomfort.shutdown()
            return True

    def _disarm(self) -> None:
        timer, self._idle_timer = self._idle_timer, None
        if timer is not None:
            timer.cancel()

    def _arm(self) -> None:
        """Begin to wait for the idle server's end; the setting may have changed since the last time."""
        self._idle_minutes = idle_minutes()
        self._disarm()
        if self._idle_minutes > 0:
            self._idle_timer = asyncio.get_running_loop().call_later(self._idle_minutes * 60, self._stop_idle)

    def _stop_idle(self) -> None:
        async def stop() -> None:
            with contextlib.suppress(ServerBusyError):  # a run came at the last moment
                if await self._stop():
                    log.info("The nested server was stopped: no run for %g minutes", self._idle_minutes)

        self._stopping = asyncio.ensure_future(stop())


def _new_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":  # where only this kind can talk to processes, whatever kind ComfyUI has chosen
        return asyncio.ProactorEventLoop()
    return asyncio.new_event_loop()


def _call_at_exit(function: Callable[[], None]) -> None:
    """Have it called at interpreter exit, while threads can still be used: what stops a server uses some.

    The functions of ``atexit`` come later, when thread pools refuse; ``concurrent.futures`` itself uses this earlier
    list of ``threading``, which has no public name.
    """
    getattr(threading, "_register_atexit", atexit.register)(function)


def idle_minutes() -> float:
    """The user's wish, see IDLE_SETTING."""
    value = outer.setting(IDLE_SETTING, DEFAULT_IDLE_MINUTES)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and value >= 0 else DEFAULT_IDLE_MINUTES


def _background() -> Background:
    return cast("Background", vars(shared_module()).setdefault(_SHARED_AS, Background()))


async def _create_discomfort() -> Discomfort:
    from ..comfy_serverless import ConnectorConfig
    from ..discomfort import Discomfort
    from .nested_config import nested_config, refuse_own_address, surroundings

    config = nested_config(surroundings(), ConnectorConfig.load(), Path.cwd())
    refuse_own_address(config.attached_url, sys.modules.get("server"))
    return await Discomfort.create(config)


def refuse_in_nested_server() -> None:
    """Refuse to run workflows in a server that runs them for Discomfort already.

    Raises:
        RuntimeError: this process is such a server.
    """
    if os.environ.get("DISCOMFORT_NESTED"):
        raise RuntimeError(
            "A workflow that Discomfort runs contains a runner node, which would run workflows inside it in a further "
            "server. Take the runner node out of that workflow, and give its workflows to the run as steps instead: as "
            "further workflows, as a Branch or as a Loop."
        )


def run_in_background(
    work: Callable[[Discomfort], Awaitable[_T]], on_tick: Callable[[], None], *, cancel_timeout: float = CANCEL_TIMEOUT
) -> _T:
    """Run a coroutine on the nested server, from the thread that executes a node, and wait for it.

    Args:
        work: called in the background with the Discomfort to run on. It must not block for long.
        on_tick: called here, ten times a second and once at the end; shows progress. What it raises, the
            wish to cancel for one, ends the run.
        cancel_timeout: seconds that a cancelled run may take; after that it is left to itself.

    Raises:
        InterruptProcessingException: of ComfyUI: the user cancelled; the prompt inside was interrupted.
        RuntimeError: as refuse_in_nested_server. Else: what the work raises, and what starting a server raises.
    """
    refuse_in_nested_server()
    job = _background().submit(work, _create_discomfort)
    try:
        while not concurrent.futures.wait([job.outcome], TICK).done:
            on_tick()
            if outer.is_interrupted():
                break
    except BaseException:
        _cancel(job, cancel_timeout)
        raise
    if not job.outcome.done():
        _cancel(job, cancel_timeout)
        outer.check_interrupted()
    result = cast("_T", _result(job))
    on_tick()
    return result


def _cancel(job: _Job, timeout: float) -> None:
    if not job.cancel(timeout):
        log.warning("A cancelled run has not ended after %g s; it is left to itself", timeout)


def _result(job: _Job) -> Any:
    if not job.outcome.done():
        raise RuntimeError("The run was cancelled, and did not end in time.")
    try:
        return job.outcome.result()
    except asyncio.CancelledError:
        raise RuntimeError("The run was cancelled: this ComfyUI is ending.") from None


def server_status() -> dict[str, Any]:
    """The nested server of the runner nodes, as JSON. Any thread; never waits.

    Returns:
        state: "stopped", "starting" or "ready"; description: a sentence, "" where there is none; idle_timeout: seconds
        without a run after which it ends, 0: never; runs: how many use it now.
    """
    background = vars(shared_module()).get(_SHARED_AS)
    if background is None:
        return {"state": "stopped", "description": "", "idle_timeout": idle_minutes() * 60, "runs": 0}
    return cast("Background", background).status()


def stop_server(timeout: float = STOP_TIMEOUT) -> bool:
    """Stop the nested server of the runner nodes; whether there was one. The next run starts a fresh one.

    Blocks for some seconds: not for an event loop's thread.

    Raises:
        ServerBusyError: a run uses it. TimeoutError: it did not end within *timeout* seconds.
    """
    background = vars(shared_module()).get(_SHARED_AS)
    return background is not None and cast("Background", background).stop(timeout)
