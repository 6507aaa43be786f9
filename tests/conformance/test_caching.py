"""What is kept between prompts and what is not, for each kind of cache; and when memory is given back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conformance import driver
from conformance.differences import expected
from conformance.driver import Client, Run, Server, link, node, show

# -- what makes a result the same ----------------------------------------------------------------------------

_BASE = {
    "1": node("TinyNumber", value=3),
    "2": node("TinyNumber", value=3),
    "3": node("ExecNote", name="n", value=link("1")),
    "4": node("ExecItems", a=link("3"), b=link("2")),
    "9": node("TinyShow", value=link("4")),
}


@pytest.mark.parametrize(
    ("change", "ran"),
    [
        ({}, ""),
        # equal in Python
        ({"1": node("TinyNumber", value=3.0)}, ""),
        ({"1": {**node("TinyNumber", value=3), "_meta": {"title": "other"}}}, ""),
        # an undeclared input counts
        ({"1": node("TinyNumber", value=3, unknown=1)}, "1349"),
        ({"2": node("TinyNumber", value=4)}, "249"),
        ({"3": node("ExecNote", name="other", value=link("1"))}, "349"),
        # the same value from another, equal node
        ({"3": node("ExecNote", name="n", value=link("2"))}, "49"),
        ({"4": node("ExecItems", a=link("3"), b=link("1"))}, "49"),
        # nodes that are not needed
        ({"7": node("TinyNumber", value=1)}, ""),
        # a constant in place of a link
        ({"3": node("ExecNote", name="n", value=3)}, "349"),
    ],
)
async def test_a_result_is_found_by_what_it_was_made_from(client: Client, change: dict[str, Any], ran: str) -> None:
    """Class, constants, links and the same of everything upstream."""
    await client.run(_BASE)
    run = await client.run({**_BASE, **change})
    assert set(run.ran()) == set(ran)


async def test_ids_do_not_count(client: Client) -> None:
    """Equal nodes of other ids share a result, but for classes that ask for their id or are not idempotent."""
    prompt = {
        "1": node("TinyNumber", value=3),
        "2": node("TinyUnique", value=3),
        "3": node("ExecWhole", a=1, b=2),
        "9": node("ExecItems", a=link("1"), b=link("2"), c=link("3")),
        "10": node("TinyShow", value=link("9")),
    }
    await client.run(prompt)
    text = json.dumps(prompt)
    for old in ("10", "9", "3", "2", "1"):
        text = text.replace(f'"{old}"', f'"x{old}"')
    run = await client.run(json.loads(text))
    assert run.cached() == {"x1"}
    assert set(run.ran()) == {"x2", "x3", "x9", "x10"}


async def test_equal_nodes_in_one_prompt_share_a_result(client: Client) -> None:
    """The second one is not run: it is said to be executed if it is an output, with what the first has shown."""
    prompt = {
        "1": node("ExecNote", name="once", value=3),
        "2": node("ExecNote", name="once", value=3),
        "8": node("TinyShow", value=link("1")),
        "9": node("TinyShow", value=link("2")),
    }
    await client.notes()
    run = await client.run(prompt)
    assert await client.notes() == ["once"]
    assert len(run.ran()) == 2
    # One of the two is told as if it were an output: whichever had its turn second.
    assert sorted(data["node"] for data in run.data("executed"))[1:] == ["8", "9"]
    assert run.shown("8") == run.shown("9") == [3]


async def test_cached_outputs_are_shown_again(client: Client) -> None:
    """Only those that were asked for; the history has all the prompt's nodes that have shown something."""
    prompt = {"1": node("TinyNumber", value=3), "8": node("TinyShow", value=link("1")), **show(link("1"))}
    await client.run(prompt)
    run = await client.run(prompt)
    assert run.cached() == {"1", "8", "9"}
    assert run.ran() == []
    assert sorted((data["node"], str(data["output"])) for data in run.data("executed")) == [
        ("8", "{'values': [3]}"),
        ("9", "{'values': [3]}"),
    ]
    assert run.history["status"]["status_str"] == "success"
    states = run.data("progress_state")[-1]["nodes"]
    assert set(states) == {"8", "9"}
    assert {(s["state"], s["value"], s["max"]) for s in states.values()} == {("finished", 1, 1)}


async def test_cached_outputs_that_were_not_asked_for(server: Server, client: Client) -> None:
    """0.3.64 puts them into the history, later versions do not."""
    prompt = {"1": node("TinyNumber", value=3), "8": node("TinyShow", value=link("1")), **show(link("1"))}
    await client.run(prompt)
    run = await client.run(prompt, partial_execution_targets=["9"])
    assert [data["node"] for data in run.data("executed")] == ["9"]
    assert set(run.history["outputs"]) == ({"9"} if server.version >= (0, 8) else {"8", "9"})


# -- IS_CHANGED ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_type", ["ExecChanged", "ExecChangedAsync"])
@pytest.mark.parametrize(
    ("how", "kept", "shown"),
    [
        ("none", True, "[None]"),
        ("true", True, "[True]"),
        ("bytes", True, "[b'\\x01\\x02']"),
        ("list", True, "[[1, [2, {'a': (3,)}]]]"),
        ("dict", True, "[{'b': 1, 'a': [2]}]"),
        ("blocker", True, "[None]"),
        ("raise", False, "nan"),
        ("object", False, "[<object object at 0x"),
    ],
)
async def test_is_changed_decides(client: Client, class_type: str, how: str, kept: bool, shown: str) -> None:
    """Equal answers: the result is kept. The answer is written into the prompt."""
    prompt = show(link("1"), **{"1": node(class_type, how=how, value=1)})
    first = await client.run(prompt)
    assert first.shown("9")[0].startswith(shown)
    again = await client.run(prompt)
    assert again.cached() == ({"1", "9"} if kept else set())
    # The history has the prompt as it came.
    assert "is_changed" not in first.history["prompt"][2]["1"]


async def test_is_changed_is_asked_once_with_constants(client: Client) -> None:
    """Linked inputs and hidden ones of the request are None, the id is not; before anything runs."""
    await client.notes()
    prompt = {
        "1": node("TinyNumber", value=3),
        "2": node("ExecChanged", how="value", value=link("1")),
        "3": node("ExecNote", name="ran", value=link("2")),
        **show(link("3")),
    }
    await client.run(prompt, extra_data={"extra_pnginfo": {"a": 1}})
    hidden = "{'prompt': {}, 'node_id': '2', 'extra': None, 'dynprompt': None}"
    assert [note.replace('"', "'") for note in await client.notes()] == [f"IS_CHANGED None {hidden}", "ran"]
    prompt["2"] = node("ExecChanged", how="value", value="constant")
    await client.run(prompt)
    assert await client.notes() == [f"IS_CHANGED constant {hidden}", "ran"]
    await client.run(prompt)
    assert await client.notes() == [f"IS_CHANGED constant {hidden}"]


async def test_is_changed_of_the_request_counts(client: Client) -> None:
    """A prompt whose node has is_changed already is not asked."""
    await client.notes()
    prompt = show(link("1"), **{"1": {**node("ExecChanged", how="none", value=1), "is_changed": ["given"]}})
    assert (await client.run(prompt)).shown("9")[0].startswith("['given']")
    assert await client.notes() == []
    assert (await client.run(prompt)).cached() == {"1", "9"}
    prompt["1"]["is_changed"] = ["other"]
    assert (await client.run(prompt)).cached() == set()


async def test_what_depends_on_a_changed_node_runs_too(client: Client) -> None:
    """And what does not, does not."""
    prompt = {
        "1": node("TinyNumber", value=1),
        "2": node("ExecChanged", how="object", value=1),
        "3": node("ExecItems", a=link("1"), b=link("2")),
        "8": node("TinyShow", value=link("1")),
        **show(link("3")),
    }
    await client.run(prompt)
    assert (await client.run(prompt)).cached() == {"1", "8"}


async def test_what_comes_with_a_request_is_no_part_of_the_key(client: Client) -> None:
    """A cached node shows the extra data it ran with; a hidden input that the prompt gives counts."""
    prompt = {"9": node("TinyHidden", seed=1, mode="a")}
    first = await client.run(prompt, extra_data={"extra_pnginfo": {"run": 1}})
    second = await client.run(prompt, extra_data={"extra_pnginfo": {"run": 2}})
    third = await client.run({"9": node("TinyHidden", seed=1, mode="b")}, extra_data={"extra_pnginfo": {"run": 3}})
    shown = [run.shown("9", "extra") + run.shown("9", "mode") for run in (first, second, third)]
    assert shown == [[{"run": 1}, "a"], [{"run": 1}, "a"], [{"run": 3}, "b"]]


# -- kinds of caches -----------------------------------------------------------------------------------------


def _track(name: str, **more: Any) -> dict[str, Any]:
    """A prompt with two tracked values: ``name`` a and b, and an output that holds on to ``name`` end."""
    return {
        f"{name}1": node("ExecTrack", name=f"{name} a"),
        f"{name}2": node("ExecTrack", name=f"{name} b", after=link(f"{name}1")),
        f"{name}9": node("ExecTrackEnd", name=f"{name} end", after=link(f"{name}2")),
        **more,
    }


async def _alive(client: Client) -> list[str]:
    names: list[str] = await client.get("/tiny/alive")
    return names


async def _history(client: Client, prompts: list[dict[str, Any]]) -> list[list[str]]:
    """The values that are alive after each of these prompts."""
    alive = []
    for prompt in prompts:
        run = await client.run(prompt)
        assert run.status == 200, run.response
        alive.append(await _alive(client))
    return alive


def _all_of(*names: str) -> list[str]:
    return sorted(f"{name} {part}" for name in names for part in ("a", "b", "end"))


# Prompts run one after the other, by name; those of _SPECIAL are written below.
_SERIES = ["A", "A", "B", "changed", "expand", "expand", "fail", "async", "object", "object again", "none"]


def _series() -> list[dict[str, Any]]:
    changed = _track("B")
    changed["B2"] = node("ExecTrack", name="B other", after=link("B1"))
    expand = {
        "e1": node("ExecTrackExpand", name="e"),
        "e9": node("ExecTrackEnd", name="e end", after=link("e1")),
    }
    fail = {
        **_track("B"),
        "f1": node("ExecTrack", name="f", fail=True, after=link("B9")),
        "f9": node("TinyShow", value=link("f1")),
    }
    later = {
        "a1": node("ExecTrackAsync", name="async 1"),
        "a2": node("ExecTrackAsync", name="async 2", after=link("a1")),
        "a9": node("ExecTrackEnd", name="async end", after=link("a2")),
    }
    keeping = {"k1": node("ExecKeep", name="k"), "k9": node("ExecTrackEnd", name="k end", after=link("k1"))}
    again = {**keeping, "k1": node("ExecKeep", name="k other")}
    special = {
        "changed": changed,
        "expand": expand,
        "fail": fail,
        "async": later,
        "object": keeping,
        "object again": again,
        "none": {"n": node("TinyShow", value=1)},
    }
    return [special.get(name) or _track(name) for name in _SERIES]


@pytest.fixture(scope="module")
def classic_server(kind: str, server: Server, start_server: Callable[..., Server]) -> Server:
    """A server with the classic cache: the default one, before 0.11."""
    return server if server.version < (0, 11) else start_server(kind, "--cache-classic")


async def test_the_last_prompt_is_kept(classic_server: Server) -> None:
    """Classic: when a prompt starts, what it does not use is forgotten. Objects stay while their ids are used."""
    async with driver.connect(classic_server) as client:
        await client.forget()
        alive = await _history(client, _series())
    assert alive == [
        _all_of("A"),
        _all_of("A"),
        _all_of("B"),
        ["B a", "B end", "B other"],
        ["e end", "e.1", "e.2"],
        ["e end", "e.1", "e.2"],
        _all_of("B"),
        ["async 1", "async 2", "async end"],
        ["k end", "object k"],
        ["k end", "object k"],
        [],
    ]


async def test_nodes_keep_their_state_while_their_id_is_in_the_prompt(client: Client) -> None:
    """Whatever their inputs; a prompt without them forgets it; another class of the same id is another node."""

    def prompt(name: str, node_id: str = "1") -> dict[str, Any]:
        return show(link(node_id), **{node_id: node("ExecKeep", name=name)})

    assert (await client.run(prompt("a"))).shown("9") == [1]
    assert (await client.run(prompt("b"))).shown("9") == [2]
    assert (await client.run(prompt("b"))).shown("9") == [2]
    assert (await client.run(prompt("c", "2"))).shown("9") == [1]
    assert (await client.run(prompt("d"))).shown("9") == [1]
    # A node that is there but does not run keeps it, too.
    await client.run({**prompt("e", "2"), "1": node("ExecKeep", name="x")})
    assert (await client.run(prompt("f"))).shown("9") == [2]


@pytest.fixture(scope="module")
def small_server(kind: str, start_server: Callable[..., Server]) -> Server:
    """A server that keeps the results of four nodes."""
    return start_server(kind, "--cache-lru", "4")


async def test_a_sized_cache_forgets_what_was_not_used_for_longest(small_server: Server) -> None:
    """Counted when a prompt starts: what one prompt has used goes together, and one prompt may exceed the size."""
    async with driver.connect(small_server) as client:
        await client.forget()
        a, b, c = _track("A"), _track("B"), {"c": node("ExecTrackEnd", name="c")}
        big = {**_track("D"), **_track("E")}
        alive = await _history(client, [a, b, c, a, c, big, c, c, {"n": node("TinyShow", value=1)}])
        assert alive == [
            _all_of("A"),
            # 3 + 1 of the prompt of forget() were kept when B started
            _all_of("A", "B"),
            # 7 when c started: the oldest went
            [*_all_of("B"), "c"],
            [*_all_of("A", "B"), "c"],
            [*_all_of("A"), "c"],
            [*_all_of("A", "D", "E"), "c"],
            # 10: the oldest until no more than 4 are left, which takes all six of the prompt before
            ["c"],
            ["c"],
            ["c"],
        ]


async def test_a_sized_cache_through_a_series(small_server: Server) -> None:
    """Expansions count with what they expand into; a failed prompt leaves what it has made; objects do not count."""
    async with driver.connect(small_server) as client:
        await client.forget()
        alive = await _history(client, _series())
    assert alive == [
        _all_of("A"),
        _all_of("A"),
        _all_of("A", "B"),
        # An end made from another b: another value of the same name.
        ["B a", "B b", "B end", "B end", "B other"],
        ["B a", "B end", "B other", "e end", "e.1", "e.2"],
        ["e end", "e.1", "e.2"],
        [*_all_of("B"), "e end", "e.1", "e.2"],
        [*_all_of("B"), "async 1", "async 2", "async end"],
        ["async 1", "async 2", "async end", "k end", "object k"],
        ["k end", "k end", "object k"],
        ["k end", "k end"],
    ]


async def test_a_sized_cache_finds_what_is_older(lru_server: Server) -> None:
    """A, B, A: nothing of A runs again, expansions included."""
    async with driver.connect(lru_server) as client:
        await client.forget()
        runs = [await client.run(prompt) for prompt in (_track("A"), show(1), _track("A"))]
        assert runs[2].ran() == []
        expand = show(link("1"), **{"1": node("TinyExpand", n=2)})
        first = await client.run(expand)
        await client.run(show("between"))
        again = await client.run(expand)
        assert again.ran() == []
        assert again.shown("9") == first.shown("9")
        assert set(again.history["outputs"]) == {"9"}
        # The inside of another expansion is found by what it is, if it is the same under the same id.
        other = await client.run({**expand, "8": node("TinyShow", value=link("1"))})
        assert other.ran() == []


async def test_a_sized_cache_keeps_objects_of_the_last_prompt_only(lru_server: Server) -> None:
    """The size is that of results."""
    async with driver.connect(lru_server) as client:
        await client.forget()
        for name, calls in (("a", 1), ("b", 2)):
            run = await client.run(show(link("1"), **{"1": node("ExecKeep", name=name)}))
            assert run.shown("9") == [calls]
        await client.run(show("between"))
        run = await client.run(show(link("1"), **{"1": node("ExecKeep", name="c")}))
        assert run.shown("9") == [1]


@pytest.fixture(params=[True, False], ids=["enough", "short"])
def ram_server(
    request: pytest.FixtureRequest, kind: str, server: Server, start_server: Callable[..., Server]
) -> Iterator[tuple[Server, bool]]:
    """A server with --cache-ram, and whether there is the memory it wants to keep free of other prompts' results."""
    if not server.is_embedded and server.version < (0, 21):
        pytest.skip("--cache-ram takes two values since a later version")
    started = start_server(kind, "--cache-ram", "0.01", "0.01" if request.param else "100000")
    yield started, request.param
    started.stop()


async def test_memory_decides_what_is_kept(ram_server: tuple[Server, bool]) -> None:
    """Results of other prompts stay while so many GiB are free; this prompt's stay in any case here."""
    started, kept = ram_server
    async with driver.connect(started) as client:
        await client.forget()
        a, b = _track("A"), _track("B")
        alive = await _history(client, [a, b, show(1)])
        assert alive == ([_all_of("A"), *[_all_of("A", "B")] * 2] if kept else [_all_of("A"), _all_of("B"), []])
        again = await client.run({**a, **show(1)})
        assert again.cached() == ({"A1", "A2", "A9", "9"} if kept else {"9"})
        assert (await client.run(show(1))).cached() == {"9"}
        await client.forget()
        assert await _alive(client) == []


async def test_without_a_cache_everything_runs_again(uncached_server: Server) -> None:
    """Each node once per prompt, and the history is complete."""
    async with driver.connect(uncached_server) as client:
        prompt = {
            **{"1": node("ExecNote", name="1", value=3), "2": node("ExecNote", name="2", value=link("1"))},
            **{"3": node("ExecItems", a=link("2"), b=link("1")), "9": node("TinyShow", value=link("3"))},
        }
        for _ in range(2):
            await client.notes()
            run = await client.run(prompt)
            assert run.cached() == set()
            assert run.ran() == ["1", "2", "3", "9"]
            assert await client.notes() == ["1", "2"]
            assert run.shown("9") == ["33-@0"]


async def test_what_was_shown_without_a_cache(uncached_server: Server) -> None:
    """0.3.64 forgets what a node has shown once all that use it have run."""
    async with driver.connect(uncached_server) as client:
        run = await client.run({"8": node("TinyShow", value=5), "9": node("TinyShow", value=link("8"))})
        lost = uncached_server.version < (0, 8)
        there = expected(
            uncached_server, "history without a cache", comfyui={"9"} if lost else {"8", "9"}, embedded={"8", "9"}
        )
        assert set(run.history["outputs"]) == there


async def test_without_a_cache_little_is_alive(uncached_server: Server) -> None:
    """0.3.64 keeps what nothing has used until the next prompt, later versions nothing."""
    async with driver.connect(uncached_server) as client:
        series = [prompt for name, prompt in zip(_SERIES, _series(), strict=True) if name != "expand"]
        alive = await _history(client, series)
        assert alive == (
            [[] for _ in series]
            if uncached_server.version >= (0, 8)
            else [
                *(["A end"], ["A end"], ["B end"], ["B end"]),
                *(["B end"], ["async end"], ["k end"], ["k end"], []),
            ]
        )


async def test_without_a_cache_nodes_expand(uncached_server: Server) -> None:
    """Which 0.3.64 cannot do without a cache."""
    async with driver.connect(uncached_server) as client:
        run = await client.run(show(link("1"), **{"1": node("TinyExpand", n=2)}))
        works = uncached_server.version >= (0, 8)
        done = expected(uncached_server, "expansion without a cache", comfyui=works, embedded=True)
        assert (run.history.get("status", {}).get("status_str") == "success") == done
        if done:
            assert run.shown("9") == [3]


async def test_lazy_inputs_without_a_cache(uncached_server: Server) -> None:
    """A node that is asked twice keeps what it has got."""
    async with driver.connect(uncached_server) as client:
        prompt = {
            **{str(i): node("ExecNote", name=str(i), value=i) for i in (1, 2)},
            "5": node("ExecLazy", wants="a b", a=link("1"), b=link("2")),
            **show(link("5")),
        }
        await client.notes()
        run = await client.run(prompt)
        assert run.shown("9") == ["a=1 b=2"]
        assert [note for note in await client.notes() if note in "12"] == ["1", "2"]


# -- /free ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kept"),
    [({"free_memory": True}, False), ({"unload_models": True}, True), ({"free_memory": False}, True), ({}, True)],
)
async def test_free_forgets_all_results(client: Client, body: dict[str, Any], kept: bool) -> None:
    """With free_memory; node objects, too. Unloading models forgets none."""
    prompt = {**_track("A"), "k": node("ExecKeep", name="k"), "s": node("TinyShow", value=link("k"))}
    await client.run(prompt)
    assert await _alive(client) == [*_all_of("A"), "object k"]
    assert (await client.post("/free", body))[0] == 200
    # Done between prompts: before or after one that comes right behind.
    between = await client.run({**prompt, "z": node("TinyShow", value="between")})
    alive = await _alive(client)
    again = await client.run({**prompt, "z": node("TinyShow", value="between")})
    assert ("A1" in between.cached() and "A1" in again.cached()) == kept
    assert (alive == [*_all_of("A"), "object k"]) or not kept
    assert run_is_complete(again)


def run_is_complete(run: Run) -> bool:
    """Whether it ended well and shows what it should."""
    return run.history["status"]["status_str"] == "success" and {"s", "z"} <= set(run.history["outputs"])


async def test_free_empties_other_caches(lru_server: Server, uncached_server: Server) -> None:
    """Nothing is alive after it and a prompt that makes nothing."""
    for server in (lru_server, uncached_server):
        async with driver.connect(server) as client:
            await client.run({**_track("A"), "k": node("ExecKeep", name="k"), "s": node("TinyShow", value=link("k"))})
            await client.forget()
            assert await _alive(client) == []
