"""The thread that runs prompts, one after the other, and gives memory back between them."""

from __future__ import annotations

import gc
import logging
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

from . import model_management
from .arguments import args
from .caching import memory_to_keep_free
from .execution import PromptExecutor
from .prompt_queue import ExecutionStatus, QueueItem
from .validation import full_type_name

if TYPE_CHECKING:
    from .server import PromptServer

logger = logging.getLogger("discomfort.embedded.worker")

# Seconds between collections of garbage while prompts come in.
_COLLECT_INTERVAL = 10.0
# Seconds to wait for a prompt when there is nothing else to do; just so that the wait is not endless.
_IDLE_WAIT = 1000.0


def start_worker(server: PromptServer) -> threading.Thread:
    """Start the thread. It ends with the process: what runs at that moment is not waited for."""
    thread = threading.Thread(target=_Worker(server).run, name="prompt_worker", daemon=True)
    thread.start()
    return thread


class _Worker:
    """The thread's work."""

    def __init__(self, server: PromptServer) -> None:
        self.server = server
        self.executor = PromptExecutor(
            server,
            cache_lru=args.cache_lru,
            cache_none=args.cache_none,
            cache_ram=None if args.cache_ram is None else memory_to_keep_free(args.cache_ram),
        )
        self._collected_at = 0.0
        self._has_garbage = False

    def run(self) -> None:
        """Forever: a prompt, then what POST /free asked for, then garbage."""
        while True:
            taken = self.server.prompt_queue.get(timeout=self._wait_time())
            if taken is not None:
                self._run_prompt(*taken)
                # Nothing of the prompt stays here while waiting for the next.
                del taken
                self._has_garbage = True
            self._obey_flags()
            if self._has_garbage and self._wait_time() == 0:
                self._collect()

    def _run_prompt(self, item: QueueItem, ticket: int) -> None:
        """Run one prompt and put it into the history, whatever happens."""
        start = time.perf_counter()
        _, prompt_id, prompt, extra_data, outputs = item
        self.server.last_prompt_id = prompt_id
        executor = self.executor
        try:
            executor.execute(prompt, prompt_id, extra_data, outputs)
        except BaseException as exc:
            # Not a node's exception, those are reported by the executor: a class that cannot be asked about
            # its inputs, a sys.exit(). The thread must go on.
            logger.error("Prompt %s could not be executed:\n%s", prompt_id, traceback.format_exc())
            executor.success = False
            message: dict[str, Any] = {
                "prompt_id": prompt_id,
                "node_id": None,
                "node_type": None,
                "executed": [],
                "exception_message": f"{exc}\n",
                "exception_type": full_type_name(type(exc)),
                "traceback": traceback.format_tb(exc.__traceback__),
                "current_inputs": {},
                "current_outputs": [],
            }
            executor.add_message("execution_error", message, broadcast=False)
            self.server.last_node_id = None
        status = ExecutionStatus("success" if executor.success else "error", executor.success, executor.status_messages)
        self.server.prompt_queue.task_done(ticket, executor.history_result, status)
        if self.server.client_id is not None:
            data = {"node": None, "prompt_id": prompt_id}
            self.server.send_sync("executing", data, self.server.client_id)
        logger.info("Prompt executed in %.2f seconds", time.perf_counter() - start)

    def _obey_flags(self) -> None:
        """What POST /free asked for: freeing memory forgets all cached results."""
        flags = self.server.prompt_queue.get_flags()
        free_memory = flags.get("free_memory", False)
        if flags.get("unload_models", free_memory):
            model_management.unload_all_models()
            self._has_garbage, self._collected_at = True, 0.0
        if free_memory:
            self.executor.reset()
            self._has_garbage, self._collected_at = True, 0.0

    def _wait_time(self) -> float:
        """Seconds to wait for a prompt before there is something else to do."""
        if not self._has_garbage:
            return _IDLE_WAIT
        return max(0.0, self._collected_at + _COLLECT_INTERVAL - time.monotonic())

    def _collect(self) -> None:
        """Free what is unreachable, and the GPU memory torch keeps in reserve."""
        gc.collect()
        model_management.soft_empty_cache()
        self._collected_at, self._has_garbage = time.monotonic(), False
