"""The hub: what runs say reaches the browsers, coalesced, and what the browsers want reaches the runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from discomfort.editor.hub import Hub, NotAttachedError

RUN, OTHER = "a" * 32, "b" * 32


class Browsers:
    """What was sent to them."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, str, dict[str, Any]]] = []

    def send(self, event: str, data: dict[str, Any]) -> None:
        self.heard.append((time.monotonic(), event, data))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [data for _, one, data in self.heard if one == event]


@pytest.fixture
def browsers() -> Browsers:
    return Browsers()


@pytest.fixture
def hub(browsers: Browsers) -> Iterator[Hub]:
    hub = Hub(browsers.send)
    yield hub
    hub.close()


def test_a_run_that_attaches_learns_the_breakpoints_at_once_and_when_they_change(hub: Hub) -> None:
    hub.change_settings(["image"], None)
    told: list[dict[str, Any]] = []
    link = hub.attach(RUN, "/x", told.append)
    assert told == [{"command": "breakpoints", "names": ["image"], "pause_at_start": False}]
    assert hub.change_settings(None, True) == {"breakpoints": ["image"], "pause_at_start": True}
    assert told[1:] == [{"command": "breakpoints", "names": ["image"], "pause_at_start": True}]
    link.close()
    hub.change_settings([], False)
    assert len(told) == 2


def test_news_of_a_run_reach_the_browsers_at_most_ten_times_a_second_and_the_last_one_always(
    hub: Hub, browsers: Browsers, wait_for: Callable[..., Any]
) -> None:
    link = hub.attach(RUN, "/x", lambda command: None)
    other = hub.attach(OTHER, "/y", lambda command: None)
    start = time.monotonic()
    for number in range(500):
        link.publish({"state": "running", "offset": number, "secret": "never said"})
        time.sleep(0.001)
    other.publish({"state": "paused", "offset": 7})
    took = time.monotonic() - start

    def said(run_id: str) -> list[dict[str, Any]]:
        return [one for one in browsers.of("discomfort.run") if one["run_id"] == run_id]

    wait_for(lambda: said(RUN) and said(RUN)[-1]["offset"] == 499)
    wait_for(lambda: said(OTHER))
    assert said(OTHER)[-1]["state"] == "paused"
    assert 2 <= len(said(RUN)) <= took / 0.1 + 2
    assert said(RUN)[-1] == {
        "run_id": RUN, "state": "running", "offset": 499,
        "node": None, "percent": None, "iteration": None, "iterations": None, "paused_at": None,
    }  # fmt: skip
    assert hub.status_of(RUN) == {key: value for key, value in said(RUN)[-1].items() if key != "run_id"}


def test_browsers_hear_that_the_list_of_runs_has_changed(
    hub: Hub, browsers: Browsers, wait_for: Callable[..., Any]
) -> None:
    link = hub.attach(RUN, "/x", lambda command: None)
    wait_for(lambda: len(browsers.of("discomfort.runs")) == 1)
    assert hub.is_attached(RUN)
    link.close()
    link.close()
    wait_for(lambda: len(browsers.of("discomfort.runs")) == 2)
    assert not hub.is_attached(RUN)
    assert hub.status_of(RUN) is None
    with pytest.raises(NotAttachedError, match="it is over"):
        hub.link_of(RUN)


def test_a_run_that_comes_back_by_a_new_wire_is_not_lost_when_the_old_one_closes(hub: Hub) -> None:
    told: list[str] = []
    old = hub.attach(RUN, "/x", lambda command: told.append("old"))
    new = hub.attach(RUN, "/x", lambda command: told.append("new"))
    old.publish({"state": "ended"})
    old.close()
    told.clear()
    hub.link_of(RUN).tell({"command": "pause"})
    assert told == ["new"]
    assert hub.status_of(RUN) is None
    new.close()


def test_an_edit_waits_for_the_runs_answer_whichever_thread_it_comes_from(hub: Hub) -> None:
    def obey(command: dict[str, Any]) -> None:
        if command["command"] == "set":
            problem = None if command["value"] == 1 else "it must be 1"
            threading.Thread(target=link.answer, args=(command["id"], problem)).start()

    link = hub.attach(RUN, "/x", obey)
    assert link.ask({"command": "set", "name": "x", "value": 1}).result(5) is None
    assert link.ask({"command": "set", "name": "x", "value": 2}).result(5) == "it must be 1"
    link.answer("nobody asked this", "x")


def test_who_waits_for_a_run_that_ends_is_told(hub: Hub) -> None:
    link = hub.attach(RUN, "/x", lambda command: None)
    waiting = link.ask({"command": "set", "name": "x", "value": 1})
    link.close()
    assert waiting.result(1) == "The run has ended meanwhile."
    assert link.ask({"command": "set", "name": "x", "value": 1}).result(1) == "The run has ended meanwhile."


def test_a_run_that_fails_to_take_a_command_keeps_the_others_from_nothing(hub: Hub) -> None:
    def broken(command: dict[str, Any]) -> None:
        raise RuntimeError("its loop is closed")

    told: list[dict[str, Any]] = []
    hub.attach(RUN, "/x", broken)
    hub.attach(OTHER, "/y", told.append)
    hub.change_settings(["x"], None)
    assert told[-1]["names"] == ["x"]


def test_browsers_that_cannot_be_told_do_not_end_the_telling(wait_for: Callable[..., Any]) -> None:
    heard: list[str] = []

    def send(event: str, data: dict[str, Any]) -> None:
        heard.append(event)
        if len(heard) == 1:
            raise RuntimeError("the server's loop is closed")

    hub = Hub(send)
    hub.attach(RUN, "/x", lambda command: None).publish({"state": "running"})
    wait_for(lambda: "discomfort.run" in heard and len(heard) >= 2)
    hub.close()


def test_the_hubs_thread_ends_with_the_hub(hub: Hub, wait_for: Callable[..., Any]) -> None:
    before = set(threading.enumerate())  # other tests' hubs may be among them, about to end

    def own() -> list[str]:
        return [thread.name for thread in set(threading.enumerate()) - before]

    hub.attach(RUN, "/x", lambda command: None)
    assert own() == ["discomfort-editor-hub"]
    hub.close()
    wait_for(lambda: not own())
    hub.attach(OTHER, "/x", lambda command: None)
    assert not own()


def test_runs_attach_publish_and_leave_from_many_threads_at_once(hub: Hub) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(50):
                link = hub.attach(f"{number:032x}", "/x", lambda command: None)
                link.publish({"state": "running", "offset": 1})
                hub.change_settings([str(number)], None)
                link.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures
    assert not any(hub.is_attached(f"{number:032x}") for number in range(8))
