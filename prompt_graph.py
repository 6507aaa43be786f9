"""A prompt as a graph: its ports, and what becomes of them when a run fills them. Pure.

*prompt*: what the server executes ("API format"), ``{node id: {"class_type": ..., "inputs": {...}}}``; a link is
``[node id, slot]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

Prompt = dict[str, Any]

PORT_TYPE = "DiscomfortPort"
LOADER_TYPE = "DiscomfortDataLoader"
INPUT, OUTPUT, PASSTHRU = "INPUT", "OUTPUT", "PASSTHRU"


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
    linked = {str(value[0]) for _, _, value in _prompt_links(prompt)}
    ports = []
    for node_id, entry in prompt.items():
        if isinstance(entry, Mapping) and entry.get("class_type") == PORT_TYPE:
            inputs = entry.get("inputs") or {}
            mode = port_mode(_is_link(inputs.get("input_data")), str(node_id) in linked)
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
    if _is_link(raw):
        raise ValueError(
            f"The unique_id of {prompt_node_words(node_id, entry)} comes from node {raw[0]}, but ports are matched "
            "before the workflow runs: type the name into the port."
        )
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError(
            f"{prompt_node_words(node_id, entry)} has no unique_id (it is {raw!r}): type a name into the port."
        )
    return raw.strip()


def _is_link(value: Any) -> bool:
    """The server's own rule: a node id and a slot number in a list (an array widget is {"__value__": [...]})."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return False
    return isinstance(value[0], (str, int)) and isinstance(value[1], int) and not isinstance(value[0], bool)


def _prompt_links(prompt: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(node id, input name, [origin id, slot]) for each link of a prompt."""
    for node_id, entry in prompt.items():
        inputs = entry.get("inputs") if isinstance(entry, Mapping) else None
        for name, value in inputs.items() if isinstance(inputs, Mapping) else ():
            if _is_link(value):
                yield str(node_id), str(name), value


def prompt_problems(prompt: Mapping[str, Any]) -> list[str]:
    problems = [
        f"Node #{node_id} of the prompt has no class_type."
        for node_id, entry in prompt.items()
        if not (isinstance(entry, Mapping) and entry.get("class_type"))
    ]
    problems += [
        f"Input {name!r} of {prompt_node_words(node_id, prompt[node_id])} reads node {value[0]}, which does not exist."
        for node_id, name, value in _prompt_links(prompt)
        if str(value[0]) not in prompt
    ]
    try:
        prompt_ports(prompt)
    except ValueError as error:
        problems.append(str(error))
    return problems


def prompt_node_words(node_id: str, entry: Mapping[str, Any]) -> str:
    kind = entry.get("class_type") or "node"
    meta = entry.get("_meta")
    title = meta.get("title") if isinstance(meta, Mapping) else None
    return f"{kind} #{node_id}" + (f" {title!r}" if title and title != kind else "")


def port_mode(has_origin: bool, has_consumer: bool) -> str:
    if not has_origin:
        return INPUT
    return PASSTHRU if has_consumer else OUTPUT


def port_tags(raw: Any) -> list[str]:
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
        for port in self.ports:
            if port.mode == INPUT:
                self.inputs.setdefault(port.unique_id, []).append(port)
                continue
            if port.mode == OUTPUT:
                self.outputs[port.unique_id] = port
            node = prompt[port.node_id]
            inputs = {**node["inputs"], "unique_id": port.unique_id, "mode": port.mode}
            self._base[port.node_id] = {**node, "inputs": inputs}

    def fill(self, contents: Mapping[str, str]) -> Prompt:
        """A prompt whose INPUT ports load their values.

        Args:
            contents: {unique_id: id of the value's content}, for at least every INPUT port. It becomes part of what the
                server caches by, so equal content must have an equal id, and other content another.

        Raises:
            KeyError: an INPUT port has no content; names port, node and what there is.
        """
        filled = dict(self._base)
        for unique_id, ports in self.inputs.items():
            if unique_id not in contents:
                words = " and ".join(prompt_node_words(p.node_id, self._base[p.node_id]) for p in ports)
                known = ", ".join(sorted(contents)) or "none"
                raise KeyError(f"INPUT port {unique_id!r} ({words}) has no value; there are values for: {known}.")
            for port in ports:
                filled[port.node_id] = _loader(self._base[port.node_id], unique_id, contents[unique_id])
        return filled


def _loader(port_node: Mapping[str, Any], unique_id: str, content: str) -> dict[str, Any]:
    node: dict[str, Any] = {"class_type": LOADER_TYPE, "inputs": {"unique_id": unique_id, "content": content}}
    if "_meta" in port_node:
        node["_meta"] = port_node["_meta"]
    return node


def inject_loaders(prompt: Mapping[str, Any], contents: Mapping[str, str]) -> Prompt:
    """`PromptTemplate(prompt).fill(contents)`: for a prompt that is run once."""
    return PromptTemplate(prompt).fill(contents)
