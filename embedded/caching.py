"""Results kept between nodes and between prompts, found again by what they were made from.

A node's key says everything its result depends on: its class, its constant inputs, what IS_CHANGED said, and
the same of every node upstream, with the links between them. Hidden inputs are not part of it. The node's own
id is, for classes that ask for UNIQUE_ID or say NOT_IDEMPOTENT. All of this is ComfyUI 0.3.64's, and so are the
three ways of forgetting:

- :class:`LastPromptCache` ("classic"): what the last prompt did not use is dropped when the next one starts.
- :class:`LRUCache`: what was not used for longest is dropped when a prompt starts and more than N are kept.
- :class:`NoCache`: a result is dropped as soon as everything that uses it has run.

and, of later versions (0.29.0), :class:`RamCache`: results are dropped when memory runs short.

Equality is Python's: a seed of 1 and of 1.0 are the same key, NaN is unlike any other NaN (but like itself: an
IS_CHANGED that returns the one object ``math.nan`` every time counts as unchanged, in ComfyUI as here).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .graph import DynamicPrompt
from .graph_utils import is_link

logger = logging.getLogger("discomfort.embedded.caching")

# Asks a node's IS_CHANGED; see execution.ChangeDetector.get.
IsChanged = Callable[[str], Awaitable[Any]]
# A linked input: its name, the node it is linked to, and which of its outputs.
Link = tuple[str, str, Any]


# -- keys ----------------------------------------------------------------------------------------------------


class Signature:
    """An immutable value whose hash is computed once: keys are long and are looked up often."""

    __slots__ = ("_hash", "parts")

    def __init__(self, parts: tuple[Hashable, ...]) -> None:
        self.parts = parts
        self._hash = hash(parts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Signature) and self._hash == other._hash and self.parts == other.parts

    @property
    def links(self) -> tuple[Any, ...]:
        """Of a nested key: (input, key of the source, slot) of each link."""
        links: Any = self.parts[1]
        return tuple(links)


class Unhashable:
    """Stands for a value that cannot be compared: equal to itself alone, so what depends on it runs again."""


def to_hashable(value: Any) -> Hashable:
    """A JSON-like value as something to compare and to hash; a tuple counts as a list."""
    if value is None or isinstance(value, (int, float, str, bytes)):
        return value
    if isinstance(value, Mapping):
        return frozenset((to_hashable(key), to_hashable(item)) for key, item in value.items())
    if isinstance(value, Sequence):
        return tuple(to_hashable(item) for item in value)
    return Unhashable()


class KeyTable:
    """What the key sets of successive prompts share, so that equal keys are one object and are compared at a glance."""

    def __init__(self) -> None:
        self._interned: dict[Signature, Signature] = {}
        # Class -> whether its nodes share results with equal nodes of other ids; asked once, as in ComfyUI.
        self._depends_on_id: dict[Any, bool] = {}

    def intern(self, key: Signature) -> Signature:
        """The one object for all keys equal to this one."""
        return self._interned.setdefault(key, key)

    def depends_on_id(self, class_def: Any) -> bool:
        """See :func:`_depends_on_id`."""
        if class_def not in self._depends_on_id:
            self._depends_on_id[class_def] = _depends_on_id(class_def)
        return self._depends_on_id[class_def]

    def forget_unused(self, roots: Collection[Any]) -> None:
        """Keep, of the keys, these and those they are made of. Does nothing until most are unused."""
        if len(self._interned) < 1000 + 8 * len(roots):
            return
        left, kept = list(roots), dict[Signature, Signature]()
        while left:
            key = left.pop()
            if isinstance(key, Signature) and self._interned.get(key) is key and key not in kept:
                kept[key] = key
                left.extend(link[1] for link in key.links)
        self._interned = kept


class KeySet:
    """The keys of a prompt's nodes. One is made per prompt, its caches share it.

    A node's key must tell two shapes of the graph upstream apart: an input used twice is not the same as two equal
    inputs. Written out, with all nodes upstream, keys cost the square of a prompt's size. So a key is made of the
    keys of the node's sources, which says the same as long as no two nodes upstream have equal keys, and written out
    only for nodes where two have.
    """

    def __init__(self, dynprompt: DynamicPrompt, is_changed: IsChanged, table: KeyTable | None = None) -> None:
        self.dynprompt = dynprompt
        self._is_changed = is_changed
        self._table = table or KeyTable()
        self._keys: dict[str, Signature] = {}
        # Node -> (what it is apart from its links, its links as (input, source, slot) by input name).
        self._immediate: dict[str, tuple[Signature, list[Link]]] = {}
        # Node -> its key made of those of its sources; None behind a cycle or a link to nowhere, where there is none.
        self._nested: dict[str, Signature | None] = {}
        # Sets of nodes are numbers with a bit for each. Node -> itself and all upstream; nested key -> the nodes that
        # have it, and the same of those keys that several nodes have.
        self._upstream: dict[str, int] = {}
        self._having: dict[Signature, int] = {}
        self._twins: dict[Signature, int] = {}

    async def add(self, node_ids: Iterable[str]) -> None:
        """Make the keys of these nodes; calls IS_CHANGED of those not seen before."""
        for node_id in node_ids:
            if node_id not in self._keys and self.dynprompt.has_node(node_id):
                if node_id not in self._nested:
                    await self._nest(node_id)
                key = self._nested[node_id]
                self._keys[node_id] = (
                    key if key and not self._has_twins_upstream(node_id) else await self._write(node_id)
                )

    def get(self, node_id: str) -> Signature | None:
        """A node's key, None before :meth:`add`."""
        return self._keys.get(node_id)

    def all(self) -> Collection[Signature]:
        """All keys made so far."""
        return self._keys.values()

    async def _nest(self, node_id: str) -> None:
        """Make the nested keys of a node and of all upstream, sources first, without recursion."""
        # The path from the node to one upstream, each with its links still to be followed.
        path: dict[str, Iterator[Link]] = {}
        wanted: str | None = node_id
        while wanted is not None or path:
            if wanted is not None:
                path[wanted] = iter((await self._describe(wanted))[1])
            current, links = next(reversed(path.items()))
            wanted = next((link[1] for link in links if link[1] not in self._nested and link[1] not in path), None)
            if wanted is None:
                del path[current]
                await self._nest_one(current)

    async def _nest_one(self, node_id: str) -> None:
        """The nested key of a node whose sources have theirs (or are not there, or part of a cycle with it)."""
        if not self.dynprompt.has_node(node_id):
            return
        immediate, links = await self._describe(node_id)
        mine = upstream = 1 << len(self._upstream)
        key = None
        sources = [self._nested.get(source) for _, source, _ in links]
        for _, source, _ in links:
            upstream |= self._upstream.get(source, 0)
        if all(source is not None for source in sources):
            nested = tuple((name, source, slot) for (name, _, slot), source in zip(links, sources, strict=True))
            key = self._table.intern(Signature((immediate, nested)))
            if key in self._having:
                self._twins[key] = self._having[key] = self._having[key] | mine
            else:
                self._having[key] = mine
        self._nested[node_id], self._upstream[node_id] = key, upstream

    def _has_twins_upstream(self, node_id: str) -> bool:
        """Whether two nodes upstream have equal keys."""
        upstream = self._upstream[node_id]
        return any((upstream & twins).bit_count() > 1 for twins in self._twins.values())

    async def _write(self, node_id: str) -> Signature:
        """The node, then all nodes upstream in the order their links are met, links given by position."""
        order: dict[str, int] = {}
        members = [node_id]
        stack = [iter((await self._describe(node_id))[1])]
        while stack:
            link = next(stack[-1], None)
            if link is None:
                stack.pop()
                continue
            source = link[1]
            if source in order:
                continue
            order[source] = len(members) - 1
            members.append(source)
            stack.append(iter((await self._describe(source))[1]))
        parts: list[Hashable] = []
        for member in members:
            immediate, links = await self._describe(member)
            parts.append(immediate)
            parts.append(tuple((name, order[source], slot) for name, source, slot in links))
        return Signature(tuple(parts))

    async def _describe(self, node_id: str) -> tuple[Signature, list[Link]]:
        """A node apart from its links, and its links."""
        if node_id in self._immediate:
            return self._immediate[node_id]
        description = await self._describe_anew(node_id)
        # A node that is not there may be added later.
        if self.dynprompt.has_node(node_id):
            self._immediate[node_id] = description
        return description

    async def _describe_anew(self, node_id: str) -> tuple[Signature, list[Link]]:
        if not self.dynprompt.has_node(node_id):
            # A link to nowhere: nothing that depends on it can be found again.
            return Signature((Unhashable(),)), []
        node = self.dynprompt.get_node(node_id)
        class_def = self.dynprompt.class_of(node_id)
        inputs = node["inputs"]
        parts: list[Hashable] = [node["class_type"], to_hashable(await self._is_changed(node_id))]
        if self._table.depends_on_id(class_def):
            parts.append(node_id)
        links = []
        for name in sorted(inputs):
            if is_link(inputs[name]):
                links.append((name, inputs[name][0], inputs[name][1]))
            else:
                parts.append((name, to_hashable(inputs[name])))
        return Signature(tuple(parts)), links


def _depends_on_id(class_def: Any) -> bool:
    """Whether nodes of a class must not share results with an equal node of another id."""
    if getattr(class_def, "NOT_IDEMPOTENT", False):
        return True
    return "UNIQUE_ID" in class_def.INPUT_TYPES().get("hidden", {}).values()


class IdKeySet(KeySet):
    """Keys that are just id and class: under these a node's *object* is kept, whatever its inputs."""

    def __init__(self, dynprompt: DynamicPrompt) -> None:
        self.dynprompt = dynprompt

    async def add(self, node_ids: Iterable[str]) -> None:
        """Nothing to prepare."""

    def get(self, node_id: str) -> Any:
        """Id and class of a node."""
        if not self.dynprompt.has_node(node_id):
            return None
        return node_id, self.dynprompt.get_node(node_id)["class_type"]


# -- caches --------------------------------------------------------------------------------------------------


class Cache:
    """One kind of result (outputs, ui, node objects) of nodes, for the prompt set last.

    Nodes that were added by an expanding node are kept in a cache of that node, so that they are forgotten
    with it; see :meth:`ensure_subcache_for`.
    """

    def __init__(self) -> None:
        self.entries: dict[Any, Any] = {}
        # (id, class) of an expanding node -> the cache of what it expands into.
        self.subcaches: dict[tuple[str, str], Cache] = {}
        # Set by set_prompt; before that the cache is empty and answers None.
        self.dynprompt: DynamicPrompt | None = None
        self.keys: KeySet | None = None
        # The prompt's nodes this cache is for, in order.
        self.node_ids: list[str] = []

    async def set_prompt(self, dynprompt: DynamicPrompt, node_ids: Collection[str], keys: KeySet) -> None:
        """Start a prompt."""
        self.dynprompt, self.keys, self.node_ids = dynprompt, keys, list(node_ids)
        await keys.add(node_ids)

    def clean_unused(self) -> None:
        """Forget what the prompt just set will not use; called once after set_prompt."""

    def get(self, node_id: str) -> Any:
        """What is kept for a node, None when nothing is."""
        cache = self._cache_of(node_id)
        if cache is None or cache.keys is None:
            return None
        return cache.entries.get(cache.keys.get(node_id))

    def set(self, node_id: str, value: Any) -> None:
        """Keep a value for a node."""
        cache = self._cache_of(node_id)
        if cache is None or cache.keys is None:
            raise KeyError(f"node {node_id} is not part of the prompt being executed")
        cache.entries[cache.keys.get(node_id)] = value

    async def ensure_subcache_for(self, node_id: str, children_ids: Collection[str]) -> Cache:
        """Make room for the nodes that ``node_id`` has expanded into."""
        cache = self._cache_of(node_id)
        if cache is None:
            raise KeyError(f"node {node_id} is not part of the prompt being executed")
        subcache = cache.subcaches.setdefault(cache._scope(node_id), type(self)())
        await subcache.set_prompt(self._require_prompt(), children_ids, self._require_keys())
        return subcache

    def all_node_ids(self) -> list[str]:
        """The prompt's nodes in order, added ones after them."""
        ids = dict.fromkeys(self.node_ids)
        for subcache in self.subcaches.values():
            ids.update(dict.fromkeys(subcache.all_node_ids()))
        return list(ids)

    def stored_keys(self) -> Iterator[Any]:
        """The keys of everything that is kept."""
        yield from self.entries
        for subcache in self.subcaches.values():
            yield from subcache.stored_keys()

    def _cache_of(self, node_id: str) -> Cache | None:
        """The cache a node's results are in: this one, or a subcache for an added node."""
        if self.dynprompt is None:
            return None
        parents = []
        parent = self.dynprompt.get_parent_node_id(node_id)
        while parent is not None:
            parents.append(parent)
            parent = self.dynprompt.get_parent_node_id(parent)
        cache: Cache | None = self
        for parent in reversed(parents):
            cache = cache.subcaches.get(cache._scope(parent)) if cache else None
        return cache

    def _scope(self, node_id: str) -> tuple[str, str]:
        """Under what a node's subcache is found: id and class."""
        return node_id, self._require_prompt().get_node(node_id)["class_type"]

    def _clean_subcaches(self) -> None:
        """Forget the subcaches of nodes that are no longer there."""
        dynprompt = self._require_prompt()
        present = {self._scope(node_id) for node_id in self.node_ids if dynprompt.has_node(node_id)}
        self.subcaches = {scope: cache for scope, cache in self.subcaches.items() if scope in present}

    def _require_prompt(self) -> DynamicPrompt:
        if self.dynprompt is None:
            raise RuntimeError("no prompt has been set")
        return self.dynprompt

    def _require_keys(self) -> KeySet:
        if self.keys is None:
            raise RuntimeError("no prompt has been set")
        return self.keys


class LastPromptCache(Cache):
    """Keeps what the last prompt used."""

    def clean_unused(self) -> None:
        """Forget what no node of the prompt would look up."""
        keys = self._require_keys()
        used = {keys.get(node_id) for node_id in self.node_ids}
        self.entries = {key: value for key, value in self.entries.items() if key in used}
        self._clean_subcaches()


class LRUCache(Cache):
    """Keeps up to ``max_size`` node results, counted when a prompt starts, so one prompt may exceed it.

    What one prompt used is of one age, and ages are dropped whole. Added nodes are kept here beside all
    others and not in subcaches.
    """

    def __init__(self, max_size: int = 100) -> None:
        super().__init__()
        self.max_size = max_size
        # Number of the current prompt, and of the last prompt that used each key.
        self.generation = 0
        self.used_generation: dict[Any, int] = {}
        # Expanding node -> what it expanded into, for all_node_ids.
        self._children: dict[str, list[str]] = {}

    async def set_prompt(self, dynprompt: DynamicPrompt, node_ids: Collection[str], keys: KeySet) -> None:
        """Start a prompt: whatever of its nodes is kept counts as used."""
        await super().set_prompt(dynprompt, node_ids, keys)
        self._children.clear()
        self.generation += 1
        for node_id in node_ids:
            self._mark_used(node_id)

    def clean_unused(self) -> None:
        """Forget the oldest prompts' results until no more than ``max_size`` are kept."""
        while len(self.entries) > self.max_size:
            oldest = min(self.used_generation.get(key, 0) for key in self.entries)
            if oldest >= self.generation:
                break
            self.entries = {
                key: value for key, value in self.entries.items() if self.used_generation.get(key, 0) > oldest
            }
        self._forget_uses()

    def _forget_uses(self) -> None:
        """Forget when keys were used of which nothing is kept."""
        self.used_generation = {
            key: used for key, used in self.used_generation.items() if key in self.entries or used == self.generation
        }

    def get(self, node_id: str) -> Any:
        """What is kept for a node, which counts as used now."""
        self._mark_used(node_id)
        return super().get(node_id)

    def set(self, node_id: str, value: Any) -> None:
        """Keep a value for a node."""
        self._mark_used(node_id)
        super().set(node_id, value)

    async def ensure_subcache_for(self, node_id: str, children_ids: Collection[str]) -> Cache:
        """Make room for added nodes: here."""
        await self._require_keys().add(children_ids)
        self._children[node_id] = list(children_ids)
        for child_id in children_ids:
            self._mark_used(child_id)
        return self

    def all_node_ids(self) -> list[str]:
        """The prompt's nodes in order, added ones after them."""
        return list(dict.fromkeys([*self.node_ids, *(c for ids in self._children.values() for c in ids)]))

    def _cache_of(self, node_id: str) -> Cache | None:
        return self if self.dynprompt is not None else None

    def _mark_used(self, node_id: str) -> None:
        key = self.keys.get(node_id) if self.keys is not None else None
        if key is not None:
            self.used_generation[key] = self.generation


class NoCache(LRUCache):
    """Keeps a result until all nodes that use it have run, nothing from one prompt to the next."""

    def __init__(self) -> None:
        super().__init__(max_size=0)
        self._used_by: dict[str, set[str]] = {}
        self._uses: dict[str, set[str]] = {}
        self._done: set[str] = set()

    async def set_prompt(self, dynprompt: DynamicPrompt, node_ids: Collection[str], keys: KeySet) -> None:
        """Start a prompt with nothing."""
        self.entries.clear()
        self._used_by.clear()
        self._uses.clear()
        self._done.clear()
        await super().set_prompt(dynprompt, node_ids, keys)
        self._note_links(node_ids)

    def set(self, node_id: str, value: Any) -> None:
        """Keep a value, and forget those that were needed for it alone."""
        super().set(node_id, value)
        self._done.add(node_id)
        for source in self._uses.get(node_id, ()):
            if source in self._done and self._used_by.get(source, set()) <= self._done:
                self.entries.pop(self._require_keys().get(source), None)

    async def ensure_subcache_for(self, node_id: str, children_ids: Collection[str]) -> Cache:
        """Make room for added nodes. What they use is kept until the expanding node is done with them."""
        cache = await super().ensure_subcache_for(node_id, children_ids)
        self._note_links(children_ids)
        for child_id in children_ids:
            self._used_by.setdefault(child_id, set()).add(node_id)
            self._uses.setdefault(node_id, set()).add(child_id)
        return cache

    def _note_links(self, node_ids: Collection[str]) -> None:
        """Write down who uses whom."""
        dynprompt = self._require_prompt()
        for node_id in node_ids:
            for value in dynprompt.get_node(node_id)["inputs"].values():
                if is_link(value):
                    self._used_by.setdefault(value[0], set()).add(node_id)
                    self._uses.setdefault(node_id, set()).add(value[0])


class OnePromptCache(LastPromptCache):
    """Keeps everything until the next prompt starts."""

    async def set_prompt(self, dynprompt: DynamicPrompt, node_ids: Collection[str], keys: KeySet) -> None:
        """Start a prompt with nothing."""
        self.entries.clear()
        await super().set_prompt(dynprompt, node_ids, keys)


_GIB = 1024**3
# Of this prompt only results of at least so many bytes are dropped: smaller ones would not help.
_LARGE = 512 * 1024**2
# What a result without tensors counts, and how much more one of the prompt before counts than the same of this one.
_SMALL = 0.05
_AGEING = 1.3


def memory_to_keep_free(values: Sequence[float]) -> tuple[float, float]:
    """What ``--cache-ram`` means, in GiB, with ComfyUI 0.29.0's defaults for what it does not say.

    Returns:
        Below so much free memory results of the running prompt are dropped, and below so much those of others.
    """
    import psutil

    total = psutil.virtual_memory().total / _GIB
    defaults = (min(10.0, max(2.0, total * 0.1)), min(128.0, total))
    own, others = [*values, *defaults[len(values) :]]
    return own, others


class RamCache(LRUCache):
    """Keeps results until memory runs short: then the largest of the oldest prompts are dropped first."""

    def __init__(self, keep_free: float, keep_free_for_others: float) -> None:
        """Args: GiB, see :func:`memory_to_keep_free`."""
        super().__init__()
        self.keep_free = keep_free * _GIB
        self.keep_free_for_others = keep_free_for_others * _GIB

    def clean_unused(self) -> None:
        """No result is forgotten because a prompt starts."""
        self._forget_uses()

    def relieve_memory(self, find_needed: Callable[[], Collection[str]]) -> None:
        """Called after each node: drop what there is no memory for.

        Args:
            find_needed: the nodes whose results are still needed; asked only when it matters.
        """
        if self._free() < self.keep_free_for_others:
            self._drop(self.keep_free_for_others, [k for k in self.entries if self._age(k) > 0])
        if self._free() < self.keep_free:
            keys = self._require_keys()
            needed = {keys.get(node_id) for node_id in find_needed()}
            large = [k for k, v in self.entries.items() if k not in needed and tensor_bytes(v) >= _LARGE]
            self._drop(self.keep_free, large)

    def _drop(self, keep_free: float, candidates: list[Any]) -> None:
        def weight(key: Any) -> float:
            return max(tensor_bytes(self.entries[key]), _SMALL) * _AGEING ** self._age(key)

        # Stable: of equal ones, the one that was kept first.
        for key in sorted(candidates, key=weight, reverse=True):
            if self._free() >= keep_free:
                break
            del self.entries[key]
            self.used_generation.pop(key, None)

    def _age(self, key: Any) -> int:
        """How many prompts ago it was used."""
        return self.generation - self.used_generation.get(key, 0)

    @staticmethod
    def _free() -> int:
        """Bytes of memory that are free."""
        import psutil

        return int(psutil.virtual_memory().available)


class FollowingCache(LRUCache):
    """Keeps what belongs to the results of another cache, as long as that keeps them."""

    def __init__(self, leader: Cache) -> None:
        super().__init__()
        self.leader = leader
        # What the prompt set last has given it: kept to its end, whether the leader has something yet, or no more.
        self._new: set[Any] = set()

    async def set_prompt(self, dynprompt: DynamicPrompt, node_ids: Collection[str], keys: KeySet) -> None:
        """Start a prompt: nothing is new."""
        self._new.clear()
        await super().set_prompt(dynprompt, node_ids, keys)

    def set(self, node_id: str, value: Any) -> None:
        """Keep a value for a node."""
        super().set(node_id, value)
        self._new.add(self._require_keys().get(node_id))

    def clean_unused(self) -> None:
        """Forget what the other cache has dropped. Called when a prompt starts, and when a node has expanded."""
        kept = self.leader.entries.keys() | self._new
        self.entries = {key: value for key, value in self.entries.items() if key in kept}
        self._forget_uses()


def tensor_bytes(outputs: Any) -> int:
    """The size of the CPU tensors in a node's outputs, in bytes."""
    import torch

    if isinstance(outputs, torch.Tensor):
        return outputs.numel() * outputs.element_size() if outputs.device.type == "cpu" else 0
    if isinstance(outputs, (list, tuple)):
        return sum(tensor_bytes(item) for item in outputs)
    return 0


class CacheSet:
    """The caches of an executor: nodes' outputs, what they show (ui), and their objects."""

    def __init__(self, lru_size: int = 0, none: bool = False, ram: tuple[float, float] | None = None) -> None:
        """Args: ``lru_size`` results under LRU; ``none`` at all; as ``ram`` allows; by default the last prompt's."""

        # node -> list per output slot of a list of values
        self.outputs: Cache
        # node -> {"meta": {...}, "output": what it shows}; small, and history needs it to the end
        self.ui: Cache
        # node -> instance of its class, so that a node keeps its own state while its id is in the prompt
        self.objects: Cache
        self._keys = KeyTable()
        if none:
            self.outputs, self.ui, self.objects = NoCache(), OnePromptCache(), NoCache()
        elif ram is not None:
            self.outputs = RamCache(*ram)
            self.ui, self.objects = FollowingCache(self.outputs), LastPromptCache()
        elif lru_size > 0:
            self.outputs, self.ui, self.objects = LRUCache(lru_size), LRUCache(lru_size), LastPromptCache()
        else:
            self.outputs, self.ui, self.objects = LastPromptCache(), LastPromptCache(), LastPromptCache()

    def relieve_memory(self, find_needed: Callable[[], Collection[str]]) -> None:
        """Called after each node; see :meth:`RamCache.relieve_memory`."""
        if isinstance(self.outputs, RamCache):
            self.outputs.relieve_memory(find_needed)

    @property
    def all(self) -> list[Cache]:
        """The caches, in the order they are started."""
        return [self.outputs, self.ui, self.objects]

    async def set_prompt(self, dynprompt: DynamicPrompt, is_changed: IsChanged) -> None:
        """Start a prompt in all caches and forget what it will not use."""
        node_ids = dynprompt.original_prompt.keys()
        keys = KeySet(dynprompt, is_changed, self._keys)
        for cache in (self.outputs, self.ui):
            await cache.set_prompt(dynprompt, node_ids, keys)
        await self.objects.set_prompt(dynprompt, node_ids, IdKeySet(dynprompt))
        for cache in self.all:
            cache.clean_unused()
        self._keys.forget_unused([*self.outputs.stored_keys(), *self.ui.stored_keys(), *keys.all()])
