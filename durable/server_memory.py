"""Memory, looked at after every step, and what is done where it goes over a ceiling.

What counts for ``max_server_ram_gb`` is the *private* memory of the server's process and its children: neither the
values of the run, which lie in shared memory and are counted in the context, nor mapped files, model files say, which
the system takes back by itself. On systems other than Linux it is the resident memory. ``max_vram_gb`` counts what
PyTorch has reserved on the device, or, where the server does not tell that, all that is in use there.

A ceiling is kept by looking ahead: a step is not begun if the memory, and what the recent steps added at most, would
go over it. Then the server is asked to free what it can, and if that does not help it is restarted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from ..comfy_serverless import ComfyConnector
    from ..workflow_context import WorkflowContext

log = logging.getLogger("discomfort.durable")

Json = dict[str, Any]

GB = 2**30
# Seconds for which figures count as the present ones: a loop of quick steps does not ask for them each time.
FRESH = 1.0
# Seconds that a server has to give memory back after it was asked to.
_PATIENCE = 3.0
# Steps whose growth is remembered.
_RECENT = 8


def process_memory(pid: int) -> tuple[int, int]:
    """(resident, private) memory of a process and its children, in bytes; zeros where it is gone."""
    try:
        main = psutil.Process(pid)
        processes = [main, *main.children(recursive=True)]
    except psutil.Error:
        return 0, 0
    resident = private = 0
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            rss, own = _memory_of(process)
            resident, private = resident + rss, private + own
    return resident, private


def _memory_of(process: psutil.Process) -> tuple[int, int]:
    if sys.platform != "linux":
        rss = int(process.memory_info().rss)
        return rss, rss
    found = {}
    with open(f"/proc/{process.pid}/status", encoding="ascii", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in ("VmRSS", "RssAnon"):
                found[name] = int(value.split()[0]) * 1024
    return found.get("VmRSS", 0), found.get("RssAnon", found.get("VmRSS", 0))


def device_figures(stats: Any) -> Json:
    """Memory figures of a server's /system_stats (ComfyUI 0.3.64): of the machine, and of all devices together.

    What is missing, or no number, is left out. A "cpu" device repeats the machine's figures and is left out too.
    """
    found: Json = {}
    system = stats.get("system") if isinstance(stats, dict) else None
    for name in ("ram_total", "ram_free"):
        value = system.get(name) if isinstance(system, dict) else None
        if isinstance(value, (int, float)):
            found[name] = int(value)
    devices = stats.get("devices") if isinstance(stats, dict) else None
    for device in devices if isinstance(devices, list) else []:
        if not isinstance(device, dict) or device.get("type") == "cpu":
            continue
        for name in ("vram_total", "vram_free", "torch_vram_total", "torch_vram_free"):
            value = device.get(name)
            if isinstance(value, (int, float)):
                found[name] = found.get(name, 0) + int(value)
    return found


def vram_used(sample: Json) -> int:
    """What counts for ``max_vram_gb``, in bytes."""
    reserved = sample.get("torch_vram_total")
    if reserved:
        return int(reserved)
    return int(sample.get("vram_total", 0) - sample.get("vram_free", sample.get("vram_total", 0)))


def check_ceiling(name: str, value: Any) -> float | None:
    """A ceiling in GB (1024**3 bytes), None for none.

    Raises:
        ValueError: it is no positive number.
    """
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value!r}; it must be a number of GB above 0, or None for no ceiling.")
    return float(value)


class Ceiling:
    """One kind of memory and how much of it there may be. Pure: it is told figures and says what to do."""

    def __init__(self, what: str, limit: float | None) -> None:
        #: "server_ram" or "vram"
        self.what = what
        #: bytes; None: no limit
        self.limit = None if limit is None else int(limit * GB)
        self._last: int | None = None
        #: what the server was asked to free before did not count: it leaks, and is restarted at once
        self.is_leak = False
        # Nothing of a fresh server is growth: its first steps load what the others use.
        self._steps, self._is_fresh = 0, False
        self._growth: deque[int] = deque(maxlen=_RECENT)

    def is_near(self, used: int) -> bool:
        """Whether the next step could go over the limit; called once after each step."""
        if self._last is not None and self._steps >= 2:
            self._growth.append(max(0, used - self._last))
        self._last = used
        self._steps += 1
        return self.is_over(used)

    def is_over(self, used: int) -> bool:
        """Whether this much, and what a step adds, is too much."""
        return self.limit is not None and used + max(self._growth, default=0) > self.limit

    def freed(self, used: int) -> None:
        """The server freed memory."""
        self._last = used

    def restarted(self) -> None:
        """The server is a fresh one. What its steps add is known by now."""
        self._last, self._steps, self._is_fresh = None, 0, True

    def is_too_low(self, used: int) -> bool:
        """Whether a server that has just begun is over the limit: then restarting it cannot help."""
        return self._is_fresh and self._steps <= 1 and self.is_over(used)

    def raise_to(self, used: int) -> None:
        """Take a higher limit, because the given one cannot be kept."""
        self.limit = int((used + max(self._growth, default=0)) * 1.25)


class ServerMemory:
    """Looks at the memory of a run's server, and keeps it under its ceilings between two steps."""

    def __init__(
        self,
        connector: ComfyConnector,
        context: WorkflowContext,
        max_server_ram_gb: float | None = None,
        max_vram_gb: float | None = None,
    ) -> None:
        self._connector = connector
        self._context = context
        self._ceilings = [Ceiling("server_ram", max_server_ram_gb), Ceiling("vram", max_vram_gb)]
        self._sample: Json = {}
        self._sampled = 0.0
        self._own = psutil.Process().pid
        self._is_told: set[str] = set()

    @property
    def has_ceilings(self) -> bool:
        """Whether there is a limit to anything."""
        return any(ceiling.limit is not None for ceiling in self._ceilings)

    async def look(self, anew: bool = False) -> Json:
        """``memory`` of docs/reference/run-record.md, at most FRESH seconds old unless the figures are wanted *anew*.

        What cannot be found out (a server elsewhere, one that has just died) is left out; never raises for that.
        """
        if not anew and time.monotonic() - self._sampled < FRESH:
            return self._sample
        sample = await asyncio.to_thread(self._look_at_processes)
        with contextlib.suppress(Exception):  # figures are not worth a run
            sample.update(device_figures(await self._connector.system_stats()))
        self._sample, self._sampled = sample, time.monotonic()
        return sample

    def _look_at_processes(self) -> Json:
        sample: Json = {"orchestrator_rss": _memory_of(psutil.Process(self._own))[0]}
        pid = self._connector.server_pid
        if pid is not None:
            resident, private = process_memory(pid)
            if resident:
                sample.update(server_rss=resident, server_private=private)
        with contextlib.suppress(Exception):  # a context that is shut down at this moment
            usage = self._context.get_usage()
            sample.update(context_ram=usage["ram_usage_bytes"], context_disk=usage["temp_disk_usage_bytes"])
        return sample

    def _used(self, ceiling: Ceiling, sample: Json) -> int:
        return int(sample.get("server_private", 0)) if ceiling.what == "server_ram" else vram_used(sample)

    async def relieve(self) -> list[Json]:
        """Between two steps: where the next one could go over a ceiling, free memory, or restart the server.

        Returns:
            What was done: ``{"what", "limit", "before", "after", "action", "seconds"}``, bytes and seconds.

        Raises:
            ConnectorError: the server cannot be restarted.
        """
        if not self.has_ceilings:
            return []
        sample = await self.look(anew=True)
        done = []
        for ceiling in self._ceilings:
            used = self._used(ceiling, sample)
            if ceiling.limit is None or not ceiling.is_near(used):
                continue
            if ceiling.is_too_low(used):
                self._tell_too_low(ceiling, used)
                continue
            done.append(await self._relieve_one(ceiling, used))
            if done[-1]["action"] == "restarted":
                break
            sample = self._sample
        return done

    async def _relieve_one(self, ceiling: Ceiling, used: int) -> Json:
        assert ceiling.limit is not None
        started = time.monotonic()
        entry: Json = {"what": ceiling.what, "limit": ceiling.limit, "before": used, "action": "freed"}
        after = used if ceiling.is_leak else await self._free(ceiling, used)
        # Freed memory that is full again after a step or two would be a loop of freeing.
        if ceiling.is_over(after) or after > 0.9 * ceiling.limit:
            ceiling.is_leak = after > 0.9 * used
            if self._connector.can_restart:
                await self._connector.restart(
                    f"{ceiling.what} is at {after / GB:.2f} GB, near its ceiling of {ceiling.limit / GB:.2f} GB"
                )
                for one in self._ceilings:
                    one.restarted()
                entry["action"] = "restarted"
                after = self._used(ceiling, await self.look(anew=True))
            else:
                self._tell_no_restart(ceiling, after)
                ceiling.raise_to(after)
        entry.update(after=after, seconds=round(time.monotonic() - started, 3))
        log.warning(
            "%s: %.2f GB, near the ceiling of %.2f GB: the server was %s, which took %.1f s; now it is %.2f GB",
            ceiling.what, used / GB, entry["limit"] / GB, entry["action"], entry["seconds"], after / GB,
        )  # fmt: skip
        return entry

    async def _free(self, ceiling: Ceiling, used: int) -> int:
        """Ask the server to free what it can, and wait until that shows; returns what is used then."""
        await self._connector.free(unload_models=True, free_memory=True)
        end, lowest, since = time.monotonic() + _PATIENCE, used, time.monotonic()
        while time.monotonic() < end and time.monotonic() - since < 0.6:
            await asyncio.sleep(0.1)
            now = self._used(ceiling, await self.look(anew=True))
            if now < lowest - 2**20:
                lowest, since = now, time.monotonic()
        ceiling.freed(lowest)
        return lowest

    def _tell_too_low(self, ceiling: Ceiling, used: int) -> None:
        assert ceiling.limit is not None
        if ceiling.what not in self._is_told:
            self._is_told.add(ceiling.what)
            log.warning(
                "max_%s_gb=%.2f cannot be kept: a server that has run a single step uses %.2f GB already. The run goes "
                "on, and the server is restarted when it has grown by a quarter.",
                ceiling.what, ceiling.limit / GB, used / GB,
            )  # fmt: skip
        ceiling.raise_to(used)

    def _tell_no_restart(self, ceiling: Ceiling, used: int) -> None:
        if ceiling.what not in self._is_told:
            self._is_told.add(ceiling.what)
            log.warning(
                "The server at %s was not started by this process, so it is not restarted: %s stays at %.2f GB, above "
                "its ceiling.",
                self._connector.server_address, ceiling.what, used / GB,
            )  # fmt: skip
