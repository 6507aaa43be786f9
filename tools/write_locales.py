"""Write locales/en from the code: what the editor shows of this package in English, and what translations start from.

./dev run python tools/write_locales.py           write it
./dev run python tools/write_locales.py --check   exit 1 where it is not up to date

nodeDefs.json comes from the node classes, settings.json and commands.json from the scripts in web/ that register
them, main.json from their calls of ``text("key", "English")``. Names of inputs are not among the texts: they are what
messages, prompts and scripts call them, so they are the same in every language.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCALES = ROOT / "locales"
FILES = ("main", "nodeDefs", "settings", "commands")

Texts = dict[str, Any]

# One or more JavaScript texts in double quotes, added to each other.
_TEXT = r'((?:"(?:[^"\\]|\\.)*"\s*\+?\s*)+)'
_CALL = re.compile(r'\btext\(\s*"([\w.]+)",\s*' + _TEXT)
_ID = re.compile(r'\bid:\s*"(Discomfort\.[\w.]+)"')
_CATEGORY = re.compile(r'category:\s*\[\s*"([^"]+)",\s*"([^"]+)"')


def node_definitions() -> Texts:
    """nodeDefs.json: display name, description and tooltips of every node."""
    nodes = importlib.import_module("discomfort.nodes")
    return {
        name: node_texts(kind, nodes.NODE_DISPLAY_NAME_MAPPINGS[name])
        for name, kind in nodes.NODE_CLASS_MAPPINGS.items()
    }


def node_texts(kind: Any, display_name: str) -> Texts:
    """The texts of one node class."""
    types = kind.INPUT_TYPES()
    inputs = {**types.get("required", {}), **dict(types.get("optional", {}).items())}
    tooltips = {name: options[0]["tooltip"] for name, (_, *options) in inputs.items() if options}
    texts: Texts = {
        "display_name": display_name,
        "description": escaped(kind.DESCRIPTION),
        "inputs": {name: {"tooltip": escaped(tooltip)} for name, tooltip in tooltips.items()},
    }
    # The outputs of runners are ports, which have names of their own.
    if len(set(kind.RETURN_NAMES)) == len(set(kind.OUTPUT_TOOLTIPS)):
        texts["outputs"] = {str(i): {"tooltip": escaped(tip)} for i, tip in enumerate(kind.OUTPUT_TOOLTIPS)}
    return texts


def escaped(words: str) -> str:
    """A text as the editor's translations are written: there these characters mean something."""
    return re.sub(r"[{}@|$]", r"{'\g<0>'}", words)


def main_texts() -> Texts:
    """main.json: the texts of scripts, as a tree by the dots of their keys, and the categories of settings."""
    tree: Texts = {}
    for source in scripts():
        for key, quoted in _CALL.findall(source):
            *path, last = key.split(".")
            branch = tree
            for part in path:
                branch = branch.setdefault(part, {})
            if branch.setdefault(last, joined(quoted)) != joined(quoted):
                raise ValueError(f"The text {key!r} is written in two ways in web/")
    categories = {name: name for source in scripts() for names in _CATEGORY.findall(source) for name in names}
    return {"discomfort": tree, "settingsCategories": categories}


def settings() -> Texts:
    """settings.json: name and tooltip of every setting."""
    return _registered("settings: [", ("name", "tooltip"))


def commands() -> Texts:
    """commands.json: the label of every command."""
    return _registered("commands: [", ("label",))


def _registered(beginning: str, keys: tuple[str, ...]) -> Texts:
    """The texts of what scripts register in a list, by id with dots written as underscores."""
    found: Texts = {}
    for source in scripts():
        for block in source.split(beginning)[1:]:
            entries = _ID.split(block.split("\n  ],")[0])[1:]
            for identifier, rest in zip(entries[::2], entries[1::2], strict=True):
                texts = {key: re.search(rf"\b{key}:\s*{_TEXT}", rest) for key in keys}
                found[identifier.replace(".", "_")] = {
                    key: escaped(joined(text[1])) for key, text in texts.items() if text
                }
    return found


def scripts() -> list[str]:
    """The scripts of this package for the editor."""
    return [file.read_text(encoding="utf-8") for file in sorted((ROOT / "web").rglob("*.js"))]


def joined(quoted: str) -> str:
    """The value of JavaScript texts that are added to each other."""
    return "".join(json.loads(part) for part in re.findall(r'"(?:[^"\\]|\\.)*"', quoted))


def english() -> dict[str, Texts]:
    """File name without ending -> its content."""
    return {"main": main_texts(), "nodeDefs": node_definitions(), "settings": settings(), "commands": commands()}


def main() -> int:
    status = 0
    for name, texts in english().items():
        file = LOCALES / "en" / f"{name}.json"
        content = json.dumps(texts, indent=2, ensure_ascii=False) + "\n"
        if file.is_file() and file.read_text(encoding="utf-8") == content:
            continue
        status = 1
        print(f"{file.relative_to(ROOT)} {'is not up to date' if '--check' in sys.argv else 'was written'}")
        if "--check" not in sys.argv:
            file.write_text(content, encoding="utf-8")
    return status if "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
