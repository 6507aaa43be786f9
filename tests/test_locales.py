"""The texts that the editor shows of this package: English as in the code, and every other language complete."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCALES = ROOT / "locales"
LANGUAGES = sorted(folder.name for folder in LOCALES.iterdir() if folder.is_dir())
# Those that the editor's setting offers in every version from 1.27 on; texts of others would never be seen.
OFFERED = {"en", "zh", "zh-TW", "ru", "ja", "ko", "fr", "es", "ar"}


@pytest.fixture(scope="module")
def writer() -> Any:
    """tools/write_locales.py."""
    spec = importlib.util.spec_from_file_location("write_locales", ROOT / "tools" / "write_locales.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(language: str, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((LOCALES / language / f"{name}.json").read_text(encoding="utf-8"))
    return content


def leaves(tree: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """(path, text) of all texts of a file."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}/{key}")
        else:
            yield f"{path}/{key}", value


@pytest.mark.parametrize("name", ["main", "nodeDefs", "settings", "commands"])
def test_english_says_what_the_code_says(writer: Any, name: str) -> None:
    """locales/en is what tools/write_locales.py writes."""
    assert read("en", name) == writer.english()[name], "run: ./dev run python tools/write_locales.py"


def test_english_has_every_node_input_and_setting(writer: Any) -> None:
    """The tool finds them all: each node with a display name and a description, each input with a tooltip."""
    from discomfort import nodes

    texts = read("en", "nodeDefs")
    assert set(texts) == set(nodes.NODE_CLASS_MAPPINGS)
    for name, kind in nodes.NODE_CLASS_MAPPINGS.items():
        types: Any = kind.INPUT_TYPES()
        inputs = {*types.get("required", {}), *types.get("optional", {}).keys()}
        assert set(texts[name]["inputs"]) == inputs
        assert texts[name]["display_name"]
        assert texts[name]["description"]
    registered = re.findall(r'id: "(Discomfort\.[\w.]+)"', "\n".join(writer.scripts()))
    found = {*read("en", "settings"), *read("en", "commands")}
    assert {identifier.replace(".", "_") for identifier in registered} == found


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", ["main", "nodeDefs", "settings", "commands"])
def test_languages_are_complete(language: str, name: str) -> None:
    """Each has the texts that English has, none of them empty, with the same placeholders."""
    assert language in OFFERED
    english, translated = dict(leaves(read("en", name))), dict(leaves(read(language, name)))
    assert sorted(translated) == sorted(english)
    for path, words in translated.items():
        assert words.strip(), path
        placeholders = re.compile(r"\{\w+\}")
        assert sorted(placeholders.findall(words)) == sorted(placeholders.findall(english[path])), path


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", ["nodeDefs", "settings", "commands"])
def test_texts_are_no_messages_with_meaning(language: str, name: str) -> None:
    """The editor's translations give braces, at signs, bars and dollars a meaning: they are escaped."""
    for path, words in leaves(read(language, name)):
        plain = re.sub(r"\{'[{}@|$]'\}", "", words)
        assert not set("{}@|$") & set(plain), f"{path}: {words}"


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_languages_are_translated(language: str) -> None:
    """No text of a node is left in English."""
    english, translated = dict(leaves(read("en", "nodeDefs"))), dict(leaves(read(language, "nodeDefs")))
    assert [path for path, words in translated.items() if words == english[path]] == []
