"""The table of docs/reference/python/tools.md about names that stand for types in signatures: `SeedPolicy`, `Step`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from docstring_text import table

import discomfort

PACKAGE = Path(discomfort.__file__).resolve().parent

#: whose functions are documented; where two have a name, the first one's counts
MODULES = ("run_request.py", "control_flow.py", "workflow_tools.py", "progress_events.py")


def alias_table() -> str:
    """Name and meaning of each, as the source has it."""
    rows: dict[str, list[str]] = {}
    for module in MODULES:
        source = (PACKAGE / module).read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and _is_type(node):
                meaning = " ".join(ast.unparse(node.value).replace("'", '"').split()).replace("|", "\\|")
                rows.setdefault(node.targets[0].id, [f"`{node.targets[0].id}`", f"`{meaning}`"])
    return table(["name", "stands for"], [rows[name] for name in sorted(rows)])


def _is_type(node: ast.Assign) -> bool:
    """Whether an assignment at the top of a module gives a type a name: `Name = A | B` or `Name = A[B]`."""
    name = node.targets[0]
    is_named_like_one = isinstance(name, ast.Name) and re.fullmatch(r"[A-Z]\w*[a-z]\w*", name.id) is not None
    return is_named_like_one and isinstance(node.value, (ast.BinOp, ast.Subscript))
