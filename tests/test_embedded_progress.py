"""Who is told how far the nodes of a prompt are."""

from __future__ import annotations

import json
from typing import Any

from discomfort.embedded.graph import DynamicPrompt
from discomfort.embedded.progress import (
    NodeState,
    ProgressHandler,
    WebUIProgressHandler,
    add_progress_handler,
    get_progress_state,
    reset_progress_state,
)


class Recorder(ProgressHandler):
    """A package's own handler."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self.told: list[Any] = []

    def start_handler(self, node_id: str, state: Any, prompt_id: str) -> None:
        self.told.append(("start", node_id, state["value"], state["max"], prompt_id))

    def update_handler(
        self, node_id: str, value: float, max_value: float, state: Any, prompt_id: str, image: Any = None
    ) -> None:
        self.told.append(("update", node_id, value, max_value, image))

    def finish_handler(self, node_id: str, state: Any, prompt_id: str) -> None:
        self.told.append(("finish", node_id, state["value"], state["state"]))

    def reset(self) -> None:
        self.told.append("reset")


class Listener:
    """A server with one client."""

    client_id = "c"

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def has_listener(self, sid: str) -> bool:
        return sid == "c"

    def wants_data(self) -> bool:
        return False

    def client_takes_metadata(self) -> bool:
        return False

    def send_encoded(self, message: str, sid: str) -> None:
        self.sent.append(json.loads(message)["data"])


def test_handlers_are_told_until_the_next_prompt() -> None:
    """Every step, in order; not while they are disabled."""
    recorder = Recorder()
    reset_progress_state("p", DynamicPrompt({}))
    add_progress_handler(recorder)
    registry = get_progress_state()
    registry.start_progress("1")
    registry.update_progress("1", 2, 5, ("PNG", None, 1))  # type: ignore[arg-type]
    registry.disable_handler("recorder")
    registry.update_progress("1", 3, 5)
    registry.enable_handler("recorder")
    registry.finish_progress("1")
    registry.finish_progress("2")
    reset_progress_state("q", DynamicPrompt({}))
    get_progress_state().start_progress("1")
    assert recorder.told == [
        ("start", "1", 0.0, 1.0, "p"),
        ("update", "1", 2, 5, ("PNG", None, 1)),
        ("finish", "1", 5, NodeState.Finished),
        ("finish", "2", 1, NodeState.Finished),
        "reset",
    ]
    get_progress_state().register_handler(recorder)
    get_progress_state().unregister_handler("recorder")
    get_progress_state().unregister_handler("nobody")
    assert recorder.told[-1] == "reset"
    assert get_progress_state().handlers == {}


def test_the_client_gets_all_nodes_that_have_begun() -> None:
    """With each message; also what it was not told while the handler was disabled."""
    listener = Listener()
    reset_progress_state("p", DynamicPrompt({}))
    add_progress_handler(WebUIProgressHandler(listener))  # type: ignore[arg-type]
    registry = get_progress_state()
    registry.ensure_entry("waiting")
    registry.start_progress("1")
    registry.disable_handler("webui")
    registry.update_progress("1", 3, 4)
    registry.start_progress("2")
    assert len(listener.sent) == 1
    registry.enable_handler("webui")
    registry.finish_progress("3")
    assert {key: (n["state"], n["value"], n["max"]) for key, n in listener.sent[-1]["nodes"].items()} == {
        "1": ("running", 3, 4),
        "2": ("running", 0.0, 1.0),
        "3": ("finished", 1, 1),
    }
    assert listener.sent[-1]["prompt_id"] == "p"
