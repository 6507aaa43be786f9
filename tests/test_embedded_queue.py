"""The queue as the executor and node packages use it."""

from __future__ import annotations

from typing import Any

import pytest
from discomfort.embedded import model_management
from discomfort.embedded.prompt_queue import ExecutionStatus, PromptQueue


def item(number: float, prompt_id: str, **extra: Any) -> Any:
    return (number, prompt_id, {"1": {"class_type": "X", "inputs": {}}}, extra, ["1"])


def test_packages_read_what_waits_and_how_a_prompt_ended() -> None:
    """``queue`` in the order it will run, a copy; ``ExecutionStatus`` of the class; secrets in neither."""
    changes: list[None] = []
    queue = PromptQueue(lambda: changes.append(None))
    queue.put(item(2, "b", api_key_comfy_org="secret", kept=1))
    queue.put(item(1, "a"))
    assert [entry[1] for entry in queue.queue] == ["a", "b"]
    assert queue.queue[1][3] == {"kept": 1}
    queue.queue.clear()
    assert queue.get_tasks_remaining() == 2
    for prompt_id, extra in (("a", {}), ("b", {"kept": 1, "api_key_comfy_org": "secret"})):
        taken = queue.get(timeout=0)
        assert taken is not None
        assert (taken[0][1], taken[0][3]) == (prompt_id, extra)
        status = PromptQueue.ExecutionStatus("success", True, [])
        assert isinstance(status, ExecutionStatus)
        queue.task_done(taken[1], {"outputs": {}}, status)
    assert queue.queue == []
    assert queue.get(timeout=0) is None
    assert list(queue.history) == ["a", "b"]
    assert queue.history["b"]["prompt"][3] == {"kept": 1}
    # Two put, two taken, two done.
    assert len(changes) == 6


def test_an_interruption_is_of_the_prompt_that_runs_at_that_moment() -> None:
    """Also in the moment between taking a prompt and running it; not of the one that is taken next."""
    queue = PromptQueue(lambda: None)
    queue.put(item(1, "a"))
    model_management.interrupt_current_processing()
    assert queue.get(timeout=0) is not None
    model_management.throw_exception_if_processing_interrupted()
    assert queue.interrupt_if_running("a")
    assert not queue.interrupt_if_running("b")
    with pytest.raises(model_management.InterruptProcessingException):
        model_management.throw_exception_if_processing_interrupted()
