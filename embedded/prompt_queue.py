"""Prompts waiting to be run, the one being run, and the history of those that were."""

from __future__ import annotations

import copy
import heapq
import itertools
import threading
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

from . import model_management

# Older entries are forgotten beyond this.
MAXIMUM_HISTORY_SIZE = 10000

# Keys of extra_data that reach nodes but are never shown by the server.
SENSITIVE_EXTRA_DATA_KEYS = ("auth_token_comfy_org", "api_key_comfy_org")

# (number, prompt_id, prompt, extra_data, outputs_to_execute), as clients see it.
QueueItem = tuple[float, str, dict[str, Any], dict[str, Any], list[str]]


class ExecutionStatus(NamedTuple):
    """How a prompt ended. An interrupted one is an "error", too; its last message says which."""

    status_str: Literal["success", "error"]
    completed: bool
    # (event, data) as they were sent to the client
    messages: list[tuple[str, dict[str, Any]]]


# In the class below, the name is that of an attribute.
_Status = ExecutionStatus


class PromptQueue:
    """Shared by the event loop, which adds and reads, and the executor thread, which takes and finishes.

    Lower numbers run first, equal ones in order of arrival. All methods may be called from any thread.
    """

    # Packages look for it here.
    ExecutionStatus: ClassVar[type[_Status]] = ExecutionStatus

    def __init__(self, on_change: Callable[[], None]) -> None:
        """Args: ``on_change`` is called whenever the number of prompts to do may have changed."""
        self._on_change = on_change
        self.mutex = threading.RLock()
        self.not_empty = threading.Condition(self.mutex)
        self._arrivals = itertools.count()
        # Heap of (number, arrival, item, sensitive extra data).
        self._heap: list[tuple[float, int, QueueItem, dict[str, Any]]] = []
        # Ticket -> item as it was put in: the executor works on its own copy.
        self.currently_running: dict[int, QueueItem] = {}
        self._tickets = itertools.count()
        # prompt_id -> entry of /history, oldest first.
        self.history: dict[str, dict[str, Any]] = {}
        # What POST /free asked for.
        self._flags: dict[str, Any] = {}

    # -- waiting and running -------------------------------------------------------------------------------

    def put(self, item: QueueItem) -> None:
        """Add a prompt. Sensitive keys are taken out of its extra_data and given to the nodes only."""
        extra_data = dict(item[3])
        sensitive = {k: extra_data.pop(k) for k in SENSITIVE_EXTRA_DATA_KEYS if k in extra_data}
        public = (item[0], item[1], item[2], extra_data, item[4])
        with self.mutex:
            heapq.heappush(self._heap, (item[0], next(self._arrivals), public, sensitive))
            self._on_change()
            self.not_empty.notify()

    def get(self, timeout: float | None = None) -> tuple[QueueItem, int] | None:
        """Take the next prompt to run, waiting for one.

        Args:
            timeout: seconds; None: forever.

        Returns:
            The prompt with its sensitive data, and the ticket for :meth:`task_done`; None when the time is
            up or a flag was set.
        """
        with self.not_empty:
            if not self._heap and not self._flags:
                self.not_empty.wait(timeout=timeout)
            # Flags first: whoever asked to free memory and then queued a prompt means it in that order.
            if not self._heap or self._flags:
                return None
            _, _, item, sensitive = heapq.heappop(self._heap)
            ticket = next(self._tickets)
            # An interruption of what ran before, or of nothing, is not of this prompt; every later one is.
            model_management.interrupt_current_processing(False)
            # Execution writes into the prompt (is_changed); the history shows it as it was validated.
            self.currently_running[ticket] = copy.deepcopy(item)
            self._on_change()
            return (item[0], item[1], item[2], {**item[3], **sensitive}, item[4]), ticket

    def task_done(self, item_id: int, history_result: dict[str, Any], status: _Status | None) -> None:
        """A prompt has ended: from the running ones into the history.

        Args:
            item_id: the ticket.
            history_result: "outputs" and "meta".
        """
        with self.mutex:
            prompt = self.currently_running.pop(item_id)
            if len(self.history) > MAXIMUM_HISTORY_SIZE:
                self.history.pop(next(iter(self.history)))
            self.history[prompt[1]] = {
                "prompt": prompt,
                "outputs": {},
                "status": copy.deepcopy(status._asdict()) if status is not None else None,
                **history_result,
            }
            self._on_change()

    def get_current_queue(self) -> tuple[list[QueueItem], list[QueueItem]]:
        """Copies of the running and of the waiting prompts."""
        return copy.deepcopy(self.get_current_queue_volatile())

    def get_current_queue_volatile(self) -> tuple[list[QueueItem], list[QueueItem]]:
        """The running prompts, and the waiting ones next first; not to be changed."""
        with self.mutex:
            return list(self.currently_running.values()), [entry[2] for entry in sorted(self._heap, key=_order)]

    @property
    def queue(self) -> list[QueueItem]:
        """The waiting prompts, next first; packages read it. A copy: changing it changes nothing."""
        return self.get_current_queue_volatile()[1]

    def get_tasks_remaining(self) -> int:
        """How many prompts wait or run."""
        with self.mutex:
            return len(self._heap) + len(self.currently_running)

    def wipe_queue(self) -> None:
        """Remove all waiting prompts."""
        with self.mutex:
            self._heap = []
            self._on_change()

    def delete_queue_item(self, function: Callable[[QueueItem], bool]) -> bool:
        """Remove the first waiting prompt a function says True to; whether there was one."""
        with self.mutex:
            waiting = sorted(self._heap, key=_order)
            for index, entry in enumerate(waiting):
                if function(entry[2]):
                    # A sorted list is a heap.
                    self._heap = waiting[:index] + waiting[index + 1 :]
                    self._on_change()
                    return True
        return False

    def interrupt_if_running(self, prompt_id: str) -> bool:
        """Interrupt a prompt if it is the one that runs at this moment, so that no other is hit; whether it was."""
        with self.mutex:
            is_running = any(item[1] == prompt_id for item in self.currently_running.values())
            if is_running:
                model_management.interrupt_current_processing()
        return is_running

    # -- history -------------------------------------------------------------------------------------------

    def get_history(
        self,
        prompt_id: str | None = None,
        max_items: int | None = None,
        offset: int = -1,
        map_function: Callable[[dict[str, Any]], Any] | None = None,
    ) -> dict[str, Any]:
        """Entries by prompt id, oldest first.

        Args:
            prompt_id: only this one; an unknown one gives ``{}``.
            max_items: at most so many.
            offset: entries to skip from the oldest; negative: the newest ``max_items``.
            map_function: applied to each entry.
        """
        with self.mutex:
            if prompt_id is not None:
                chosen = {prompt_id: self.history[prompt_id]} if prompt_id in self.history else {}
            else:
                if offset < 0 and max_items is not None:
                    offset = len(self.history) - max_items
                start = max(offset, 0)
                stop = None if max_items is None else start + max(max_items, 1)
                chosen = dict(itertools.islice(self.history.items(), start, stop))
            if map_function is not None:
                return {key: map_function(entry) for key, entry in chosen.items()}
            return copy.deepcopy(chosen) if prompt_id is not None else chosen

    def wipe_history(self) -> None:
        """Forget all entries."""
        with self.mutex:
            self.history = {}

    def delete_history_item(self, id_to_delete: str) -> None:
        """Forget one entry, if it is there."""
        with self.mutex:
            self.history.pop(id_to_delete, None)

    # -- flags ---------------------------------------------------------------------------------------------

    def set_flag(self, name: str, data: Any) -> None:
        """Ask the executor for something between two prompts."""
        with self.mutex:
            self._flags[name] = data
            self.not_empty.notify()

    def get_flags(self, reset: bool = True) -> dict[str, Any]:
        """What was asked for, which with ``reset`` is then done with."""
        with self.mutex:
            flags = dict(self._flags)
            if reset:
                self._flags = {}
            return flags


def _order(entry: tuple[float, int, QueueItem, dict[str, Any]]) -> tuple[float, int]:
    """What waiting prompts are sorted by."""
    return entry[0], entry[1]
