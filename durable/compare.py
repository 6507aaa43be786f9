"""What differs between two prompts, two plans, two records; in sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Json = dict[str, Any]

_LENGTH = 120


def short(value: Any) -> str:
    """A value for a sentence."""
    text = repr(value)
    return text if len(text) <= _LENGTH else f"{text[:_LENGTH]}..."


def node_words(node_id: str, node: Any) -> str:
    """A node for a sentence: its id, class and title."""
    if not isinstance(node, Mapping):
        return f"node #{node_id}"
    kind = node.get("class_type", "?")
    title = (node.get("_meta") or {}).get("title")
    return f"node #{node_id} {kind}" + (f" ({title!r})" if title and title != kind else "")


def prompt_differences(a: Mapping[str, Any], b: Mapping[str, Any], names: Sequence[str] = ("was", "is")) -> list[str]:
    """Where prompt b differs from prompt a: nodes, classes, inputs. Titles do not count."""
    found = []
    for node_id in sorted({*a, *b}, key=lambda i: (len(i), i)):
        if node_id not in b:
            found.append(f"{node_words(node_id, a[node_id])} is only in the first")
        elif node_id not in a:
            found.append(f"{node_words(node_id, b[node_id])} is only in the second")
        elif a[node_id] is not b[node_id]:
            found += _node_differences(node_id, a[node_id], b[node_id], names)
    return found


def _node_differences(node_id: str, a: Any, b: Any, names: Sequence[str]) -> list[str]:
    words = node_words(node_id, b)
    if a.get("class_type") != b.get("class_type"):
        return [f"{words}: its class {names[0]} {a.get('class_type')}, {names[1]} {b.get('class_type')}"]
    left, right = a.get("inputs") or {}, b.get("inputs") or {}
    return [
        f"{words}, input {key!r}: {names[0]} {_or_nothing(left, key)}, {names[1]} {_or_nothing(right, key)}"
        for key in sorted({*left, *right})
        if left.get(key) != right.get(key) or (key in left) != (key in right)
    ]


def _or_nothing(values: Mapping[str, Any], key: str) -> str:
    return short(values[key]) if key in values else "not there"


def data_differences(a: Any, b: Any, where: str = "", names: Sequence[str] = ("was", "is")) -> list[str]:
    """Where JSON data b differs from a: the places, and what is there."""
    if a == b:
        return []
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        found: list[str] = []
        for key in sorted({*a, *b}, key=str):
            place = f"{where}.{key}" if where else str(key)
            if key not in a or key not in b:
                found.append(f"{place}: {names[0]} {_or_nothing(a, key)}, {names[1]} {_or_nothing(b, key)}")
            else:
                found += data_differences(a[key], b[key], place, names)
        return found
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [
            text
            for index, (left, right) in enumerate(zip(a, b, strict=True))
            for text in data_differences(left, right, f"{where}[{index}]", names)
        ]
    if isinstance(a, list) and isinstance(b, list):
        return [f"{where or 'it'}: {names[0]} {len(a)} long, {names[1]} {len(b)}"]
    return [f"{where or 'it'}: {names[0]} {short(a)}, {names[1]} {short(b)}"]


def listed(sentences: Iterable[str], most: int = 12) -> str:
    """Sentences as the lines of a message, the first ones of many."""
    lines = list(sentences)
    more = [f"  and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join([*(f"  - {line}" for line in lines[:most]), *more])
