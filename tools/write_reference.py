"""Write the tables of docs/ that come from the code: the keys of comfy_serverless.json.

./dev run python tools/write_reference.py           write them
./dev run python tools/write_reference.py --check   exit 1 where a table is not up to date
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from discomfort.comfy_serverless import ConnectorConfig

DOCS = Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- begin: configuration keys -->", "<!-- end: configuration keys -->"


def key_table() -> str:
    """Every configuration key with its default and its meaning, as a Markdown table."""
    rows = ["| key | default | meaning |", "| --- | --- | --- |"]
    for field in dataclasses.fields(ConnectorConfig):
        if not field.metadata.get("internal"):
            rows.append(f"| `{field.name}` | `{json.dumps(field.default)}` | {field.metadata['help']} |")
    return "\n".join(rows)


def renewed(text: str) -> str:
    """The page with its table written anew."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{key_table()}\n{END}{rest.split(END)[1]}"


def main() -> int:
    page = DOCS / "configuration.md"
    text = page.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        if renewed(text) != text:
            print(f"{page} is not up to date: run tools/write_reference.py", file=sys.stderr)
            return 1
    else:
        page.write_text(renewed(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
