"""What the embedded server's caches keep, and what makes a node's key."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest
from discomfort.embedded import node_registry
from discomfort.embedded.caching import CacheSet, KeySet, KeyTable, RamCache, memory_to_keep_free
from discomfort.embedded.graph import DynamicPrompt


class Plain:
    """A node of no special kind."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}


class Unique(Plain):
    """A node that shares its result with no other."""

    NOT_IDEMPOTENT = True


class KnowsItsId(Plain):
    """A node that asks for its id."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"hidden": {"me": "UNIQUE_ID"}}


@pytest.fixture(autouse=True)
def classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server knows these three classes."""
    known = {c.__name__: c for c in (Plain, Unique, KnowsItsId)}
    monkeypatch.setattr(node_registry, "NODE_CLASS_MAPPINGS", known)


def node(class_type: str = "Plain", **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


async def begin(caches: CacheSet, prompt: dict[str, Any], changed: dict[str, Any] | None = None) -> set[str]:
    """Start a prompt and return its cached nodes; the others are then given a result, as if they had run."""

    async def is_changed(node_id: str) -> Any:
        return (changed or {}).get(node_id, False)

    await caches.set_prompt(DynamicPrompt(prompt), is_changed)
    cached = {node_id for node_id in prompt if caches.outputs.get(node_id) is not None}
    for node_id in prompt:
        if node_id not in cached:
            caches.outputs.set(node_id, [[node_id]])
    return cached


CHAIN = {"1": node(value=1), "2": node(a=["1", 0]), "3": node(a=["2", 0])}


@pytest.mark.parametrize(
    ("second", "changed", "expected"),
    [
        (CHAIN, {}, {"1", "2", "3"}),
        ({**CHAIN, "1": node(value=2)}, {}, set()),
        ({**CHAIN, "2": node(a=["1", 0], b=1)}, {}, {"1"}),
        ({**CHAIN, "2": node(a=["1", 1])}, {}, {"1"}),
        ({**CHAIN, "2": node(b=["1", 0])}, {}, {"1"}),
        ({**CHAIN, "1": node("Unique", value=1)}, {}, set()),
        ({**CHAIN, "4": node(value=9)}, {}, {"1", "2", "3"}),
        (CHAIN, {"2": [float("nan")]}, {"1"}),
        (CHAIN, {"3": ["another"]}, {"1", "2"}),
        # renumbered: the same nodes by content
        ({"x": node(value=1), "y": node(a=["x", 0])}, {}, {"x", "y"}),
        # 1 and 1.0 and True are equal in Python, and therefore here
        ({"1": node(value=1.0)}, {}, {"1"}),
        ({"1": node(value=[1])}, {}, set()),
        ({"1": node(value={"a": 1})}, {}, set()),
    ],
)
async def test_a_node_is_cached_if_nothing_it_depends_on_has_changed(
    second: dict[str, Any], changed: dict[str, Any], expected: set[str]
) -> None:
    """The second of two prompts finds exactly the unchanged nodes of the first."""
    caches = CacheSet()
    assert await begin(caches, CHAIN) == set()
    assert await begin(caches, second, changed) == expected


async def test_constants_are_compared_by_value_in_depth() -> None:
    """Equal lists and objects are equal keys, order of an object's keys apart."""
    caches = CacheSet()
    await begin(caches, {"1": node(value={"a": [1, {"b": None}], "c": "x"})})
    assert await begin(caches, {"1": node(value={"c": "x", "a": [1, {"b": None}]})}) == {"1"}
    assert await begin(caches, {"1": node(value={"c": "x", "a": [1, {"b": 0}]})}) == set()


async def test_nan_is_unlike_any_other_nan_but_like_itself() -> None:
    """float("nan") made anew never matches; the one object math.nan does, as in ComfyUI."""
    caches = CacheSet()
    prompt = {"1": node()}
    await begin(caches, prompt, {"1": [float("nan")]})
    assert await begin(caches, prompt, {"1": [float("nan")]}) == set()
    await begin(caches, prompt, {"1": [math.nan]})
    assert await begin(caches, prompt, {"1": [math.nan]}) == {"1"}


@pytest.mark.parametrize(("class_type", "shared"), [("Plain", True), ("Unique", False), ("KnowsItsId", False)])
async def test_equal_nodes_share_a_result_unless_their_class_depends_on_the_id(class_type: str, shared: bool) -> None:
    """Two nodes with equal inputs are one entry, except NOT_IDEMPOTENT ones and those with UNIQUE_ID."""
    caches = CacheSet()
    await begin(caches, {"1": node(class_type, value=1)})
    cached = await begin(caches, {"1": node(class_type, value=1), "2": node(class_type, value=1)})
    assert cached == ({"1", "2"} if shared else {"1"})


async def test_one_source_used_twice_differs_from_two_equal_sources() -> None:
    """The shape of the graph upstream is part of the key."""
    caches = CacheSet()
    await begin(caches, {"1": node(v=1), "3": node(a=["1", 0], b=["1", 0])})
    assert await begin(caches, {"1": node(v=1), "2": node(v=1), "3": node(a=["1", 0], b=["2", 0])}) == {"1", "2"}


def random_prompt(random: Random) -> dict[str, Any]:
    """A graph of few different nodes, so that many of them are equal; written down in any order, with a cycle now
    and then."""
    ids = list("abcdefgh")
    prompt = {}
    for index, node_id in enumerate(ids):
        inputs: dict[str, Any] = {"value": random.randrange(2)}
        for name in random.sample("xyz", random.randrange(4)):
            upstream = ids if random.random() < 0.02 else ids[:index] or ids[:1]
            inputs[name] = [random.choice(upstream), random.randrange(2)]
        prompt[node_id] = node(random.choice(["Plain", "Plain", "Plain", "Unique"]), **inputs)
    random.shuffle(ids)
    return {node_id: prompt[node_id] for node_id in ids}


async def test_keys_are_equal_where_the_graphs_upstream_are() -> None:
    """Short keys made of the sources' keys tell apart just what keys do in which everything upstream is written."""

    async def unchanged(_: str) -> bool:
        return False

    random, table = Random(5), KeyTable()
    made: list[tuple[Any, Any]] = []
    nested = 0
    for _ in range(60):
        prompt = random_prompt(random)
        keys = KeySet(DynamicPrompt(prompt), unchanged, table)
        await keys.add(prompt)
        for node_id in prompt:
            written = await keys._write(node_id)
            made.append((keys.get(node_id), written))
            nested += keys.get(node_id) != written or len(written.parts) == 2
    equal = 0
    for key, written in made:
        for other_key, other_written in made:
            assert (key == other_key) == (written == other_written)
            equal += key == other_key
    # Both cases occur, and so do both kinds of keys.
    assert len(made) < equal < len(made) ** 2 / 2
    assert len(made) / 4 < nested < len(made)


async def test_keys_of_a_large_graph_are_made_in_few_steps() -> None:
    """Not in the square of its size: each node is described once and its key is made of its sources' keys."""
    prompt = {"0": node(value=0)}
    for i in range(1, 2000):
        prompt[str(i)] = node(a=[str(i - 1), 0], b=[str(max(0, i - 7)), 0])
    asked: list[str] = []

    async def unchanged(node_id: str) -> bool:
        asked.append(node_id)
        return False

    keys = KeySet(DynamicPrompt(prompt), unchanged)
    await keys.add(reversed(prompt))
    assert sorted(asked) == sorted(prompt)
    # What a written key would be: two parts for each of the 2000 nodes.
    assert {len(key.parts) for key in keys.all()} == {2}


async def test_keys_that_are_no_longer_used_are_forgotten() -> None:
    """What a server has been asked once does not stay for ever."""
    caches = CacheSet()
    for i in range(3000):
        await begin(caches, {"1": node(value=i), "2": node(a=["1", 0])})
    assert len(caches._keys._interned) < 1500
    assert await begin(caches, {"1": node(value=2999), "2": node(a=["1", 0])}) == {"1", "2"}


async def test_a_node_that_is_added_later_has_a_key_of_its_own() -> None:
    """Also if something was linked to it before it was there."""

    async def unchanged(_: str) -> bool:
        return False

    table = KeyTable()
    found = []
    for _ in range(2):
        dynprompt = DynamicPrompt({"1": node(a=["2", 0])})
        keys = KeySet(dynprompt, unchanged, table)
        await keys.add(["1"])
        dynprompt.add_ephemeral_node("2", node(value=1), "1", "1")
        await keys.add(["2"])
        found.append((keys.get("1"), keys.get("2")))
    assert found[0][0] != found[1][0]
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize(("value", "same"), [(b"ab", True), (bytearray(b"ab"), True), (object(), False), ({1}, False)])
async def test_what_is_changed_may_answer(value: Any, same: bool) -> None:
    """Bytes, as of a file's hash, are compared; other things are never equal."""
    caches = CacheSet()
    for expected in (set(), {"1"} if same else set()):
        assert await begin(caches, {"1": node()}, {"1": [value]}) == expected


GIB = 1024**3


async def test_memory_decides_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """--cache-ram: results of other prompts go first, the largest of the oldest; then large ones of this prompt that
    nothing needs any more."""
    import torch

    caches = CacheSet(ram=(2.0, 4.0))
    assert isinstance(caches.outputs, RamCache)
    free = [8.0]
    monkeypatch.setattr(RamCache, "_free", staticmethod(lambda: int(free[0] * GIB)))
    sizes = {"small": 1000, "large": 2000, "huge": 600 * 1024**2}

    async def run(*names: str) -> None:
        await begin(caches, {name: node(value=name) for name in names})
        for name in names:
            caches.outputs.set(name, [[torch.empty(sizes[name], dtype=torch.uint8)], [name]])
        caches.ui.set(names[0], {"meta": {}, "output": {}})

    def kept() -> set[str]:
        return {entry[1][0] for entry in caches.outputs.entries.values()}

    await run("small", "large")
    await run("huge")
    caches.relieve_memory(list)
    assert kept() == {"small", "large", "huge"}
    # One is enough: the one that is dropped is said to free all there is.
    states = iter([3.0, 3.0, 5.0, 5.0, 5.0])
    monkeypatch.setattr(RamCache, "_free", staticmethod(lambda: int(next(states) * GIB)))
    caches.relieve_memory(list)
    assert kept() == {"small", "huge"}
    monkeypatch.setattr(RamCache, "_free", staticmethod(lambda: 1 * GIB))
    caches.relieve_memory(lambda: ["huge"])
    assert kept() == {"huge"}
    caches.relieve_memory(list)
    assert kept() == set()
    # What belonged to them goes when the next prompt starts.
    await begin(caches, {"other": node()})
    assert len(caches.ui.entries) == 0


async def test_what_a_node_shows_before_it_expands_is_kept_for_its_prompt() -> None:
    """--cache-ram: there is no result yet it could belong to. It goes with the next prompt if there never is one."""
    caches = CacheSet(ram=(2.0, 4.0))
    dynprompt = DynamicPrompt({"1": node(value=1)})
    await caches.set_prompt(dynprompt, _unchanged)
    caches.ui.set("1", {"meta": {}, "output": {"text": ["shown"]}})
    # As the executor does when the node has expanded into another.
    dynprompt.add_ephemeral_node("1.0.0.1", node(value=2), "1", "1")
    for cache in caches.all:
        (await cache.ensure_subcache_for("1", ["1.0.0.1"])).clean_unused()
    assert caches.ui.get("1")["output"] == {"text": ["shown"]}
    await caches.set_prompt(DynamicPrompt({"1": node(value=1)}), _unchanged)
    assert caches.ui.get("1") is None


@pytest.mark.parametrize("settings", [{}, {"none": True}, {"lru_size": 2}, {"ram": (0.0, 0.0)}])
async def test_nothing_is_kept_of_nodes_without_results(settings: Any) -> None:
    """A thousand prompts of which no node has come to an end leave nothing behind."""
    caches = CacheSet(**settings)
    for number in range(1000):
        await caches.set_prompt(DynamicPrompt({"1": node(value=number), "2": node(a=["1", 0])}), _unchanged)
    for cache in caches.all:
        assert len(cache.entries) == 0
        assert len(getattr(cache, "used_generation", {})) <= 2


async def _unchanged(_: str) -> bool:
    """IS_CHANGED of nodes that have none."""
    return False


def test_cache_ram_has_the_defaults_of_comfyui() -> None:
    """A tenth of the memory, 2 to 10 GiB, for this prompt; all of it for others."""
    import psutil

    total = psutil.virtual_memory().total / GIB
    assert memory_to_keep_free([]) == (min(10.0, max(2.0, total / 10)), min(128.0, total))
    assert memory_to_keep_free([1.5])[0] == 1.5
    assert memory_to_keep_free([1.5, 3]) == (1.5, 3)


A = {"1": node(value="a"), "2": node(a=["1", 0])}
B = {"1": node(value="b"), "2": node(a=["1", 0])}


@pytest.mark.parametrize(
    ("caches", "runs"),
    [
        # what each of A, B, A, A finds
        (CacheSet(), [0, 0, 0, 2]),
        (CacheSet(none=True), [0, 0, 0, 0]),
        (CacheSet(lru_size=100), [0, 0, 2, 2]),
        (CacheSet(lru_size=4), [0, 0, 2, 2]),
        # A prompt's results are dropped together, so room for three is room for one prompt of two.
        (CacheSet(lru_size=3), [0, 0, 2, 2]),
        (CacheSet(lru_size=1), [0, 0, 0, 2]),
    ],
    ids=["classic", "none", "lru 100", "lru 4", "lru 3", "lru 1"],
)
async def test_what_is_kept_when_prompts_alternate(caches: CacheSet, runs: list[int]) -> None:
    """Classic keeps the last prompt, LRU the last N results counted at a prompt's start, none nothing."""
    assert [len(await begin(caches, prompt)) for prompt in (A, B, A, A)] == runs


async def test_lru_drops_the_prompt_that_was_not_used_for_longest() -> None:
    """Using a prompt again makes it young; the oldest goes when there are too many."""
    caches = CacheSet(lru_size=4)
    prompts = [{"1": node(value=i), "2": node(a=["1", 0])} for i in range(3)]
    for index in (0, 1, 0, 2):
        await begin(caches, prompts[index])
    # 0, 1 and 2 are kept until the next start counts them; then 1 is the oldest.
    assert len(await begin(caches, prompts[0])) == 2
    assert len(await begin(caches, prompts[1])) == 0


async def test_without_a_cache_a_result_goes_when_all_its_users_have_run() -> None:
    """Memory is free as early as it can be."""
    caches = CacheSet(none=True)

    async def unchanged(_: str) -> bool:
        return False

    prompt = {"1": node(), "2": node(a=["1", 0]), "3": node(a=["1", 0], b=["2", 0])}
    await caches.set_prompt(DynamicPrompt(prompt), unchanged)
    for node_id, kept in (("1", {"1"}), ("2", {"1", "2"}), ("3", {"3"})):
        caches.outputs.set(node_id, [[node_id]])
        assert {n for n in prompt if caches.outputs.get(n) is not None} == kept


@pytest.mark.parametrize("caches", [CacheSet(), CacheSet(lru_size=10)], ids=["classic", "lru"])
async def test_added_nodes_are_found_again_when_their_node_expands_again(caches: CacheSet) -> None:
    """What a node expanded into keeps its results, though it has been added to another prompt."""
    found = []
    for _ in range(2):
        dynprompt = DynamicPrompt({"1": node(value=1)})

        async def unchanged(_: str) -> bool:
            return False

        await caches.set_prompt(dynprompt, unchanged)
        dynprompt.add_ephemeral_node("1.0.0.1", node(a=["1", 0]), "1", "1")
        for cache in caches.all:
            (await cache.ensure_subcache_for("1", ["1.0.0.1"])).clean_unused()
        found.append(caches.outputs.get("1.0.0.1"))
        caches.outputs.set("1", ["one"])
        caches.outputs.set("1.0.0.1", ["added"])
        assert caches.outputs.all_node_ids() == ["1", "1.0.0.1"]
    assert found == [None, ["added"]]
