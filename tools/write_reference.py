"""Write the tables of docs/ that come from the code, between <!-- begin: NAME --> and <!-- end: NAME -->.

./dev run python tools/write_reference.py           write them
./dev run python tools/write_reference.py --check   exit 1 where a table is not up to date
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import error_tables
import event_tables
import node_tables
import own_node_tables
import type_tables
from discomfort.comfy_serverless import ConnectorConfig

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def key_table() -> str:
    """Every configuration key with its default and its meaning, as a Markdown table."""
    rows = ["| key | default | meaning |", "| --- | --- | --- |"]
    for field in dataclasses.fields(ConnectorConfig):
        if not field.metadata.get("internal"):
            meaning = re.sub(r"(__\w+__\.py)", r"`\1`", field.metadata["help"])  # else Markdown makes it bold
            rows.append(f"| `{field.name}` | `{json.dumps(field.default)}` | {meaning} |")
    return "\n".join(rows)


def difference_table() -> str:
    """What the embedded server does otherwise than ComfyUI, as the conformance suite shows it."""
    sys.path.insert(0, str(ROOT / "tests"))
    differences = importlib.import_module("conformance.differences").DIFFERENCES.values()
    rows = ["| what | ComfyUI | here | why |", "| --- | --- | --- | --- |"]
    rows += [f"| {row.what} | {row.comfyui} | {row.here} | {row.why} |" for row in differences]
    return "\n".join(rows)


# Page and name of a table -> what writes it.
TABLES: dict[tuple[str, str], Callable[[], str]] = {
    ("reference/configuration.md", "configuration keys"): key_table,
    **{
        ("reference/errors.md", f"errors: {group}"): functools.partial(error_tables.error_table, group)
        for group in error_tables.CATALOGUE
    },
    ("reference/events.md", "progress events"): event_tables.progress_table,
    ("reference/events.md", "server event"): event_tables.server_table,
    ("reference/python/tools.md", "types"): type_tables.alias_table,
    ("reference/nodes.md", "discomfort nodes"): own_node_tables.node_sections,
    ("reference/embedded-server.md", "differences"): difference_table,
    ("reference/embedded-server.md", "nodes"): node_tables.node_table,
    ("reference/embedded-server.md", "missing nodes"): node_tables.missing_table,
}


def renewed(text: str, name: str, table: str) -> str:
    """A page with one of its tables written anew."""
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    head, rest = text.split(begin)
    return f"{head}{begin}\n{table}\n{end}{rest.split(end)[1]}"


def main() -> int:
    status = 0
    for (page_name, name), write in TABLES.items():
        page = DOCS / page_name
        text = page.read_text(encoding="utf-8")
        new = renewed(text, name, write())
        if "--check" not in sys.argv:
            page.write_text(new, encoding="utf-8")
        elif new != text:
            print(f"{page}, {name}: not up to date: run tools/write_reference.py", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    raise SystemExit(main())
