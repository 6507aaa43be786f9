"""What a run does about a step that fails: why it failed, how often it is tried, and what is done before. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Retry:
    """How often a step is tried, the first time included.

    Attributes:
        server: where the server died, hung (STALL_TIMEOUT, RUN_TIMEOUT) or ran out of memory.
        node: where a node raised an error. 1: never again, as an error mostly comes again.
        delay: seconds before the second attempt; doubles up to ``max_delay``.
    """

    server: int = 3
    node: int = 1
    delay: float = 0.5
    max_delay: float = 30.0

    def __post_init__(self) -> None:
        for name in ("server", "node"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"Retry({name}={value!r}): it must be a whole number of at least 1 (1: no second attempt)."
                )
        for name in ("delay", "max_delay"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < float("inf"):
                raise ValueError(f"Retry({name}={value!r}): it must be a number of seconds of at least 0.")

    @classmethod
    def parse(cls, value: Any) -> Retry | None:
        """The argument ``retry`` of a run: None for the default, a Retry, or a number of attempts at a failing node.

        Raises:
            TypeError, ValueError: anything else.
        """
        if value is None or isinstance(value, Retry):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return cls(node=value)
        raise TypeError(f"retry is {value!r}; it must be a Retry, or how often a step whose node fails is tried.")


class Attempts:
    """The attempts at one step. `next_action` decides after each failure."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._counts = {"server": 1, "node": 1}
        self._memory = 0
        self._delay = retry.delay

    def next_action(self, reason: str) -> str | None:
        """What to do before the next attempt.

        Args:
            reason: "died", "hung", "memory" or "error".

        Returns:
            "restart", "free" (empty the server's memory) or "wait"; None: it has been tried often enough.
        """
        kind = "node" if reason == "error" else "server"
        if self._counts[kind] >= getattr(self._retry, kind):
            return None
        self._counts[kind] += 1
        if reason == "memory":
            self._memory += 1
            # What unloading its models does not free, only a fresh process does.
            return "free" if self._memory == 1 else "restart"
        return "wait" if reason == "error" else "restart"

    def next_delay(self) -> float:
        """Seconds to wait before the next attempt."""
        delay, self._delay = self._delay, min(self._delay * 2, self._retry.max_delay)
        return delay


def may_be_skipped(error: BaseException | None) -> bool:
    """Whether a failed iteration says nothing about the next one. Without a server, without room for values, without
    the run's own folder, the next one would fail too.
    """
    from ..comfy_serverless import ConfigError, ServerNotFoundError, ServerStartError
    from ..object_store import StoreError
    from .checkpoint import JournalCutError
    from .run_folder import RunFolderError

    hopeless = (
        JournalCutError,
        RunFolderError,
        StoreError,
        MemoryError,
        ConfigError,
        ServerNotFoundError,
        ServerStartError,
    )
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, hopeless):
            return False
        cause = cause.__cause__
    return error is not None


def reason_of(error: Exception) -> str | None:
    """Why a step failed, as far as another attempt may help: "died", "hung", "memory" or "error"; None: it cannot."""
    from ..comfy_serverless import (
        NodeExecutionError,
        OutOfMemoryError,
        RunTimeoutError,
        ServerDiedError,
        ServerStartError,
    )

    kinds = ((ServerDiedError, "died"), (ServerStartError, "died"), (RunTimeoutError, "hung"))
    for kind, reason in (*kinds, (OutOfMemoryError, "memory"), (NodeExecutionError, "error")):
        if isinstance(error, kind):
            return reason
    return None
