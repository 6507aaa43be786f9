"""A prompt as a graph: its ports, what becomes of them when a run fills them, and recipes of values. Pure.

*prompt*: what the server executes ("API format"), ``{node id: {"class_type": ..., "inputs": {...}}}``; a link is
``[node id, slot]``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeGuard

Prompt = dict[str, Any]

PORT_TYPE = "DiscomfortPort"
LOADER_TYPE = "DiscomfortDataLoader"
INPUT, OUTPUT, PASSTHRU = "INPUT", "OUTPUT", "PASSTHRU"
# What a run tells an OUTPUT port that delivers by reference.
REFERENCE = "REF"

# What an OUTPUT port of a type that is passed by reference delivers; see `make_recipe`.
Recipe = dict[str, Any]
RECIPE_KEY = "discomfort_recipe"
_RECIPE_NODE = "ref_"


class PromptPort(NamedTuple):
    """A DiscomfortPort of a prompt: what a run goes by."""

    # Flat id: the key in the prompt.
    node_id: str
    unique_id: str
    # "INPUT", "OUTPUT" or "PASSTHRU", as in PortInfo; a port linked to nothing is an INPUT.
    mode: str
    tags: list[str]


def is_api_format(obj: Any) -> bool:
    """Whether this is a prompt (``{id: {"class_type": ..., "inputs": ...}}``) rather than a workflow."""
    if not isinstance(obj, Mapping) or isinstance(obj.get("nodes"), list):
        return False
    return any(isinstance(node, Mapping) and isinstance(node.get("class_type"), str) for node in obj.values())


def prompt_ports(prompt: Mapping[str, Any]) -> list[PromptPort]:
    """The ports of a prompt, in the prompt's order.

    Raises:
        ValueError: a port's unique_id is missing, empty or comes by a link (names the node); or two OUTPUT ports have
            the same (names both).
    """
    linked = {str(value[0]) for _, _, value in prompt_links(prompt)}
    ports = []
    for node_id, entry in prompt.items():
        if isinstance(entry, Mapping) and entry.get("class_type") == PORT_TYPE:
            inputs = entry.get("inputs") or {}
            mode = port_mode(is_link(inputs.get("input_data")), str(node_id) in linked)
            ports.append(
                PromptPort(str(node_id), _literal_unique_id(str(node_id), entry), mode, port_tags(inputs.get("tags")))
            )
    problems = duplicate_outputs(
        [(p.unique_id, p.mode, prompt_node_words(p.node_id, prompt[p.node_id])) for p in ports]
    )
    if problems:
        raise ValueError(" ".join(problems))
    return ports


def _literal_unique_id(node_id: str, entry: Mapping[str, Any]) -> str:
    raw: Any = (entry.get("inputs") or {}).get("unique_id")
    if is_link(raw):
        raise ValueError(
            f"The unique_id of {prompt_node_words(node_id, entry)} comes from node {raw[0]}, but ports are matched "
            "before the workflow runs: type the name into the port."
        )
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError(
            f"{prompt_node_words(node_id, entry)} has no unique_id (it is {raw!r}): type a name into the port."
        )
    return raw.strip()


def is_link(value: Any) -> TypeGuard[Sequence[Any]]:
    """The server's own rule: a node id and a slot number in a list (an array widget is {"__value__": [...]})."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return False
    return isinstance(value[0], (str, int)) and isinstance(value[1], int) and not isinstance(value[0], bool)


def prompt_links(prompt: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(node id, input name, [origin id, slot]) for each link of a prompt."""
    for node_id, entry in prompt.items():
        inputs = entry.get("inputs") if isinstance(entry, Mapping) else None
        for name, value in inputs.items() if isinstance(inputs, Mapping) else ():
            if is_link(value):
                yield str(node_id), str(name), value


def prompt_problems(prompt: Mapping[str, Any]) -> list[str]:
    """What is wrong with a prompt, one sentence each; [] if nothing is."""
    problems = [
        f"Node #{node_id} of the prompt has no class_type."
        for node_id, entry in prompt.items()
        if not (isinstance(entry, Mapping) and entry.get("class_type"))
    ]
    problems += [
        f"Input {name!r} of {prompt_node_words(node_id, prompt[node_id])} reads node {value[0]}, which does not exist."
        for node_id, name, value in prompt_links(prompt)
        if str(value[0]) not in prompt
    ]
    try:
        prompt_ports(prompt)
    except ValueError as error:
        problems.append(str(error))
    return problems


def link_problems(prompt: Mapping[str, Any], ends: Iterable[str]) -> list[str]:
    """What is wrong with the links that some nodes depend on, one sentence each: ends that do not exist, and cycles.

    The server looks at nothing else either: a broken node that no output depends on does no harm.
    """
    import networkx as nx

    graph: nx.DiGraph[str] = nx.DiGraph()
    problems: list[str] = []
    pending, seen = list(ends), set(ends)
    while pending:
        node_id = pending.pop()
        inputs = prompt[node_id].get("inputs")
        for name, value in inputs.items() if isinstance(inputs, Mapping) else ():
            if not is_link(value):
                continue
            origin = str(value[0])
            if not isinstance(prompt.get(origin), Mapping):
                words = prompt_node_words(node_id, prompt[node_id])
                problems.append(f"Input {name!r} of {words} reads node {origin}, which does not exist.")
                continue
            graph.add_edge(origin, node_id)
            if origin not in seen:
                seen.add(origin)
                pending.append(origin)
    if not nx.is_directed_acyclic_graph(graph):
        names = " -> ".join(prompt_node_words(edge[0], prompt[edge[0]]) for edge in nx.find_cycle(graph))
        problems.append(f"It has a cycle, so it cannot be run: {names} -> back again.")
    return problems


def prompt_node_words(node_id: str, entry: Mapping[str, Any]) -> str:
    """A node of a prompt in words for a message: ``KSampler #3 'My title'``."""
    kind = entry.get("class_type") or "node"
    meta = entry.get("_meta")
    title = meta.get("title") if isinstance(meta, Mapping) else None
    return f"{kind} #{node_id}" + (f" {title!r}" if title and title != kind else "")


def port_mode(has_origin: bool, has_consumer: bool) -> str:
    """What a port is, from its wires alone: "INPUT", "OUTPUT" or "PASSTHRU"."""
    if not has_origin:
        return INPUT
    return PASSTHRU if has_consumer else OUTPUT


def port_tags(raw: Any) -> list[str]:
    """A port's tags from its widget: text with commas, or a list; without blanks and empty ones."""
    parts = raw.split(",") if isinstance(raw, str) else raw if isinstance(raw, list) else []
    return [part.strip() for part in map(str, parts) if part.strip()]


def duplicate_outputs(ports: Iterable[tuple[str, str, str]]) -> list[str]:
    """Sentences about unique_ids that more than one OUTPUT port has. `ports`: (unique_id, mode, words for the node)."""
    holders: dict[str, list[str]] = {}
    for unique_id, mode, words in ports:
        if mode == OUTPUT and unique_id:
            holders.setdefault(unique_id, []).append(words)
    return [
        f"The OUTPUT ports {' and '.join(words)} have the same unique_id {unique_id!r}, so one value would overwrite "
        "the other: give each its own."
        for unique_id, words in holders.items()
        if len(words) > 1
    ]


class PromptTemplate:
    """A prompt analysed once, to be filled for every iteration at the cost of one dict copy.

    `fill` shares the nodes that stay the same between the prompts it returns: treat them as read-only.
    """

    def __init__(self, prompt: Mapping[str, Any]) -> None:
        """Raises ValueError as `prompt_ports`. The prompt is not modified, and must not be afterwards."""
        # All ports, in the prompt's order.
        self.ports: list[PromptPort] = prompt_ports(prompt)
        # unique_id -> the ports of that name (several INPUT ports may share one value).
        self.inputs: dict[str, list[PromptPort]] = {}
        # unique_id -> the port.
        self.outputs: dict[str, PromptPort] = {}
        self._base: Prompt = dict(prompt)
        # Node id -> [(id of a node that reads it, name of its input)]; only for INPUT ports.
        self._readers: dict[str, list[tuple[str, str]]] = {}
        for port in self.ports:
            if port.mode == INPUT:
                self.inputs.setdefault(port.unique_id, []).append(port)
                self._readers[port.node_id] = []
                continue
            if port.mode == OUTPUT:
                self.outputs[port.unique_id] = port
            # Tags are for scripts: a prompt that was written by hand need not have them, but the node demands them.
            tags = (prompt[port.node_id].get("inputs") or {}).get("tags", "")
            self._base[port.node_id] = with_inputs(
                prompt[port.node_id], {"unique_id": port.unique_id, "tags": tags, "mode": port.mode}
            )
        for node_id, name, link in prompt_links(prompt):
            if str(link[0]) in self._readers:
                self._readers[str(link[0])].append((node_id, name))

    @property
    def prompt(self) -> Mapping[str, Any]:
        """The prompt as it was given, but for what ports are told of their mode."""
        return self._base

    def readers(self, unique_id: str) -> list[tuple[str, str]]:
        """(node id, input name) of all that read the INPUT ports of a name."""
        return [reader for port in self.inputs[unique_id] for reader in self._readers[port.node_id]]

    def origin(self, node_id: str) -> tuple[str, int] | None:
        """(node id, slot) of what makes the value that arrives at a port, past ports that only pass it on.

        An INPUT port is an origin. None where nothing arrives, or the ports feed each other.
        """
        return self.origin_of_link((self._base[node_id].get("inputs") or {}).get("input_data"))

    def origin_of_link(self, link: Any) -> tuple[str, int] | None:
        """(node id, slot) of what makes the value of a link; as `origin`."""
        passed: set[str] = set()
        while is_link(link) and str(link[0]) not in passed:
            node_id, slot = str(link[0]), int(link[1])
            node = self._base.get(node_id)
            if not isinstance(node, Mapping) or node.get("class_type") != PORT_TYPE or node_id in self._readers:
                return node_id, slot
            passed.add(node_id)
            link = (node.get("inputs") or {}).get("input_data")
        return None

    def input_at(self, origin: tuple[str, int] | None) -> str | None:
        """The unique_id of the INPUT port that an origin is; None for another node."""
        if origin is None or origin[0] not in self._readers:
            return None
        return str(self._base[origin[0]]["inputs"]["unique_id"]).strip()

    def fill(
        self,
        contents: Mapping[str, str],
        recipes: Mapping[str, Recipe] = MappingProxyType({}),
        references: Collection[str] = (),
        values: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    ) -> Prompt:
        """A prompt whose INPUT ports load their values, or are replaced by the nodes that make them.

        Args:
            contents: {unique_id: id of the value's content}, for at least every INPUT port that is not in *recipes*.
                It becomes part of what the server caches by, so equal content must have an equal id, and other content
                another.
            recipes: {unique_id: recipe} of INPUT ports whose value comes by reference.
            references: unique_ids of OUTPUT ports that only have to execute, as their recipe is kept instead of the
                value.
            values: {node id: {input: value}} to replace literals by, seeds say.

        Raises:
            KeyError: an INPUT port has no content; names port, node and what there is.
        """
        filled = dict(self._base)
        for node_id, literals in values.items():
            filled[node_id] = with_inputs(filled[node_id], literals)
        for unique_id in references:
            node_id = self.outputs[unique_id].node_id
            filled[node_id] = with_inputs(filled[node_id], {"mode": REFERENCE})
        for unique_id, ports in self.inputs.items():
            if unique_id in recipes:
                self._stitch(filled, ports, recipes[unique_id])
                continue
            if unique_id not in contents:
                words = " and ".join(prompt_node_words(p.node_id, self._base[p.node_id]) for p in ports)
                known = ", ".join(sorted(contents)) or "none"
                raise KeyError(f"INPUT port {unique_id!r} ({words}) has no value; there are values for: {known}.")
            for port in ports:
                filled[port.node_id] = _loader(self._base[port.node_id], unique_id, contents[unique_id])
        return filled

    def _stitch(self, filled: Prompt, ports: Iterable[PromptPort], recipe: Recipe) -> None:
        """Put a recipe's nodes in the place of INPUT ports."""
        filled.update(recipe["prompt"])
        for port in ports:
            del filled[port.node_id]
            for node_id, name in self._readers[port.node_id]:
                filled[node_id] = with_inputs(filled[node_id], {name: list(recipe["output"])})


def with_inputs(node: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a prompt's node in which some inputs are other ones."""
    return {**node, "inputs": {**(node.get("inputs") or {}), **inputs}}


def _loader(port_node: Mapping[str, Any], unique_id: str, content: str) -> dict[str, Any]:
    node: dict[str, Any] = {"class_type": LOADER_TYPE, "inputs": {"unique_id": unique_id, "content": content}}
    if "_meta" in port_node:
        node["_meta"] = port_node["_meta"]
    return node


def inject_loaders(prompt: Mapping[str, Any], contents: Mapping[str, str]) -> Prompt:
    """`PromptTemplate(prompt).fill(contents)`: for a prompt that is run once."""
    return PromptTemplate(prompt).fill(contents)


# ---------------------------------------------------------------------------------------------------------- recipes


def make_recipe(prompt: Mapping[str, Any], port_id: str, kind: str, workflow: str) -> Recipe:
    """What makes the value that arrives at a port: the nodes behind it, and nothing else.

    Its nodes are named by what they compute ("ref_" and a hash of class, values and what they read), so that recipes
    that share a node (model, clip and vae of one checkpoint loader) still share it when all of them are stitched into
    one prompt, and the server sees the same node in every prompt.

    Args:
        prompt: a filled prompt that ran; not modified.
        port_id: the OUTPUT port's node id.
        kind: the value's type ("MODEL").
        workflow: name of the workflow, for messages.

    Returns:
        JSON-safe dict: ``discomfort_recipe`` (version, 1), ``type``, ``workflow``, ``prompt`` ({id: node}), ``output``
        ([id, slot]) and ``values`` ({unique_id: content id} of the run's values that it reads).

    Raises:
        ValueError: nothing arrives at the port, or a node behind it does not exist or reads itself.
    """
    link = (prompt[port_id].get("inputs") or {}).get("input_data")
    if not is_link(link):
        raise ValueError(f"Nothing arrives at {prompt_node_words(port_id, prompt[port_id])}, so there is no recipe.")
    names: dict[str, str] = {}
    nodes: Prompt = {}
    values: dict[str, str] = {}
    for node_id in _ancestors_first(prompt, str(link[0])):
        node = prompt[node_id]
        inputs = {
            name: [names[str(value[0])], value[1]] if is_link(value) else value
            for name, value in (node.get("inputs") or {}).items()
        }
        if node["class_type"] == LOADER_TYPE:
            values[str(inputs["unique_id"])] = str(inputs["content"])
        names[node_id] = _recipe_node_id(node["class_type"], inputs)
        title = (node.get("_meta") or {}).get("title") or node["class_type"]
        origin = title if node_id.startswith(_RECIPE_NODE) else f"{title} (of {workflow}, by reference)"
        nodes[names[node_id]] = {"class_type": node["class_type"], "inputs": inputs, "_meta": {"title": origin}}
    return {
        RECIPE_KEY: 1,
        "type": kind,
        "workflow": workflow,
        "prompt": nodes,
        "output": [names[str(link[0])], int(link[1])],
        "values": values,
    }


def is_recipe(value: Any) -> bool:
    """Whether a value says of itself that it is what `make_recipe` made."""
    return isinstance(value, Mapping) and RECIPE_KEY in value


def check_recipe(value: Mapping[str, Any]) -> None:
    """Refuse a recipe that cannot be stitched in: one from elsewhere, that was changed, say.

    Raises:
        ValueError: says what is wrong with it.
    """
    version = value.get(RECIPE_KEY)
    if version != 1:
        raise ValueError(f"it is a recipe of version {version!r}, made by another version of Discomfort or by hand")
    output, nodes = value.get("output"), value.get("prompt")
    is_whole = isinstance(nodes, Mapping) and is_link(output) and output[0] in nodes
    if not is_whole or not isinstance(value.get("values"), Mapping):
        raise ValueError("it is a recipe that is not whole: pass what a run returned as it is")


def _ancestors_first(prompt: Mapping[str, Any], last: str) -> list[str]:
    """A node and all that it depends on, each behind what it reads. A loop: chains of a thousand nodes are fine."""
    order: list[str] = []
    done: set[str] = set()
    entered: set[str] = set()
    pending = [last]
    while pending:
        node_id = pending[-1]
        if node_id in done:
            pending.pop()
            continue
        if node_id not in prompt:
            raise ValueError(f"Node #{node_id} is read, but does not exist in the prompt.")
        inputs = prompt[node_id].get("inputs") or {}
        missing = [str(v[0]) for v in inputs.values() if is_link(v) and str(v[0]) not in done]
        if not missing:
            done.add(node_id)
            order.append(pending.pop())
        elif node_id in entered:
            raise ValueError(f"{prompt_node_words(node_id, prompt[node_id])} depends on itself.")
        else:
            entered.add(node_id)
            pending += missing
    return order


def _recipe_node_id(class_type: str, inputs: Mapping[str, Any]) -> str:
    text = json.dumps([class_type, inputs], sort_keys=True, default=str)
    return _RECIPE_NODE + hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
