"""What the generated tables of docs/ take from the code: docstrings and `#:` comments, as Markdown."""

from __future__ import annotations

import inspect
import re

from sphinx.pycode import ModuleAnalyzer


def markdown(text: str) -> str:
    """Text of a docstring, which is reStructuredText, for a cell of a Markdown table: one line, roles as code."""
    text = re.sub(r":\w+:`~?\.?([^`]+)`", lambda m: f"`{m[1].rpartition('.')[2] or m[1]}`", text)
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    return " ".join(text.split()).replace("|", "\\|")


def escaped(text: str) -> str:
    """Plain text, as a tooltip is, for a cell of a Markdown table."""
    return re.sub(r"([*_<>\[\]`|])", r"\\\1", " ".join(text.split()))


def paragraphs(thing: object) -> list[str]:
    """The paragraphs of a docstring; [] where there is none of its own."""
    own = vars(thing).get("__doc__") if isinstance(thing, type) else getattr(thing, "__doc__", None)
    return re.split(r"\n\s*\n", inspect.cleandoc(own)) if own else []


def summary(thing: object) -> str:
    """The first paragraph of a docstring."""
    return markdown(paragraphs(thing)[0]) if paragraphs(thing) else ""


def attribute_comments(module: str) -> dict[tuple[str, str], str]:
    """{(class, attribute): what its `#:` comment says} of a module. Of a dataclass's fields and of `self.x = ...`."""
    found = ModuleAnalyzer.for_module(module).find_attr_docs()
    return {key: markdown(" ".join(lines)) for key, lines in found.items()}


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines)
