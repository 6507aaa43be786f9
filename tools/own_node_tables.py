"""The part of docs/reference/nodes.md that comes from the node classes: what each does, its inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from discomfort.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from docstring_text import escaped, table

HELP = Path(__file__).resolve().parent.parent / "web" / "docs"


def node_sections() -> str:
    """A section for each node, in the order of the mapping."""
    return "\n\n".join(_section(name, node) for name, node in NODE_CLASS_MAPPINGS.items())


def _section(name: str, node: Any) -> str:
    parts = [f"## {NODE_DISPLAY_NAME_MAPPINGS[name]}", f"`{name}`, in *{node.CATEGORY.replace('/', ' / ')}*."]
    parts.append(escaped(node.DESCRIPTION))
    if (HELP / f"{name}.md").exists():
        parts.append(f"At length, as the editor's help shows it: [{NODE_DISPLAY_NAME_MAPPINGS[name]}](help/{name}.md)")
    parts.append(_inputs(node.INPUT_TYPES()))
    parts.append(_outputs(node))
    return "\n\n".join(parts)


def _inputs(declared: Mapping[str, Any]) -> str:
    rows = []
    for kind in ("required", "optional"):
        # An optional dict may take any name (the sockets of a workflow's ports): then it lists only what it has always.
        for name, spec in dict(declared.get(kind, {})).items():
            options = spec[1] if len(spec) > 1 else {}
            rows.append([f"`{name}`", _type(spec[0]), _default(spec[0], options), escaped(options.get("tooltip", ""))])
    return table(["input", "type", "default", "meaning"], rows)


def _type(kind: Any) -> str:
    if isinstance(kind, (list, tuple)):
        return ", ".join(f"`{choice}`" for choice in kind)
    return "any" if kind == "*" else f"`{kind}`"


def _default(kind: Any, options: Mapping[str, Any]) -> str:
    """The default, and the range where it is not simply everything."""
    if isinstance(kind, (list, tuple)):
        return f"`{options.get('default', kind[0])}`"
    if "default" not in options:
        return ""
    default = options["default"]
    shown = "" if default == "" else f"`{_shortened(str(default))}`"
    if "min" in options and "max" in options:
        return f"{shown} ({options['min']:,} to {options['max']:,})"
    return shown


def _shortened(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= 60 else f"{one_line[:57]}..."


def _outputs(node: Any) -> str:
    names = getattr(node, "RETURN_NAMES", None) or node.RETURN_TYPES
    tooltips = getattr(node, "OUTPUT_TOOLTIPS", None) or ("",) * len(names)
    lists = getattr(node, "OUTPUT_IS_LIST", None) or (False,) * len(names)
    rows = []
    for name, kind, tooltip, is_list in zip(names, node.RETURN_TYPES, tooltips, lists, strict=True):
        text = escaped(tooltip) + (" A list: what comes behind it is executed for each item." if is_list else "")
        rows.append([f"`{name}`", _type(kind), text.strip()])
    # Runner nodes have as many outputs as a workflow may have ports; the editor shows those that it has.
    if len(rows) > 6 and len({row[2] for row in rows}) == 1:
        rows = [[f"{rows[0][0]} to {rows[-1][0]}", rows[0][1], rows[0][2]]]
    return table(["output", "type", "meaning"], rows)
