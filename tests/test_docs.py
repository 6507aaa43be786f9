"""The documentation names only what exists, and all that has to be named."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import itertools
import json
import re
import subprocess
import sys
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from discomfort.comfy_serverless import ConnectorConfig
from discomfort.workflow_context import ContextConfig
from markdown_it import MarkdownIt
from markdown_it.token import Token

import discomfort
from discomfort import control_flow

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
FAULTS = DOCS / "measured" / "faults.md"


def rows() -> list[list[str]]:
    """The cells of all rows of the tables of faults, without their heads."""
    found = []
    for line in FAULTS.read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if cells[-1] != "tests" and set(cells[0]) - set("- "):
                found.append(cells)
    return found


@pytest.fixture(scope="module")
def all_tests() -> set[str]:
    """The names of all tests there are."""
    found = set()
    for file in (ROOT / "tests").glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
                found.add(node.name)
    return found


def run_on_real_comfyui() -> set[str]:
    """The names of the tests with a variant that runs on a real ComfyUI, as pytest itself finds them."""
    files = [str(f) for f in (ROOT / "tests").glob("test_*.py") if "mark.real_comfyui" in f.read_text(encoding="utf-8")]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-m", "real_comfyui"]
    done = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(re.findall(r"::(\w+)(?:\[.*\])?$", done.stdout, re.MULTILINE))


def test_every_fault_names_tests_that_exist(all_tests: set[str]) -> None:
    assert len(rows()) > 130
    for cells in rows():
        names = re.findall(r"`(test_\w+)`", cells[-1])
        assert names, f"{cells[0]!r} names no test"
        missing = set(names) - all_tests
        assert not missing, f"{cells[0]!r} names tests that do not exist: {missing}"
        assert len(cells) in (2, 3, 5), f"{cells[0]!r} has {len(cells)} cells"
    assert set(re.findall(r"`(test_\w+)`", FAULTS.read_text(encoding="utf-8"))) <= all_tests


def test_faults_marked_real_are_tested_on_real_comfyui_and_the_others_are_not() -> None:
    real = run_on_real_comfyui()
    marked = [cells for cells in rows() if len(cells) == 5 and cells[3] == "real"]
    assert len(marked) > 12
    for cells in rows():
        if len(cells) == 5:
            on_real = set(re.findall(r"`(test_\w+)`", cells[4])) & real
            assert bool(on_real) == (cells[3] == "real"), f"{cells[0]!r}: {on_real or 'none on real ComfyUI'}"


# --------------------------------------------------------------------------------------------------------------- links


def pages() -> list[Path]:
    """Every Markdown file that people read."""
    folders = [DOCS, ROOT / "web" / "docs", ROOT / "examples"]
    return [*sorted(ROOT.glob("*.md")), *(file for folder in folders for file in sorted(folder.rglob("*.md")))]


def tokens(file: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(file.read_text(encoding="utf-8"))


def inline(found: list[Token]) -> Iterator[Token]:
    for token in found:
        yield from token.children or ()


def links(file: Path) -> set[str]:
    """Where a page's links and pictures lead."""
    found = {str(token.attrs.get("href", token.attrs.get("src", ""))) for token in inline(tokens(file))}
    return found - {""}


@functools.cache
def anchors(file: Path) -> frozenset[str]:
    """The anchors of a page's headings, by the rules that GitHub and MyST share."""
    found: Counter[str] = Counter()
    names = set(re.findall(r'<a id="([^"]+)">', file.read_text(encoding="utf-8")))
    parsed = tokens(file)
    for opening, heading in itertools.pairwise(parsed):
        if opening.type == "heading_open":
            text = "".join(part.content for part in heading.children or () if part.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
            names.add(f"{slug}-{found[slug]}" if found[slug] else slug)
            found[slug] += 1
    return frozenset(names)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    """Files and anchors are looked up; other sites are asked by ./dev docs --links, which needs a network."""
    for link in links(page):
        target = urllib.parse.urlsplit(link)
        if target.scheme:
            assert target.scheme in ("https", "mailto") or target.hostname in ("127.0.0.1", "localhost"), link
            continue
        file = (page.parent / urllib.parse.unquote(target.path)).resolve() if target.path else page
        assert file.exists(), f"{page.name} links to {link}"
        assert ROOT in file.parents, f"{page.name} links out of the repository: {link}"
        if target.fragment:
            assert file.suffix == ".md", link
            assert target.fragment in anchors(file), f"{page.name}: {link}; there are {sorted(anchors(file))}"


def test_the_link_checker_sees_links_and_anchors(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `code` title, twice\n\n## A code title twice\n\n| a |\n| --- |\n| [in a table](b.md#c) |\n\n"
        "![picture](d.png) `[no link](e.md)`\n\n```text\n[no link](f.md)\n```\n",
        encoding="utf-8",
    )
    assert links(page) == {"b.md#c", "d.png"}
    assert anchors(page) == {"a-code-title-twice", "a-code-title-twice-1"}


# ---------------------------------------------------------------------------------------------- what has to be named


@pytest.fixture(scope="module")
def error_tables() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        yield importlib.import_module("error_tables")


def package_files() -> list[Path]:
    """The Python files of the package itself."""
    folders = [folder for folder in ROOT.iterdir() if (folder / "__init__.py").exists() and folder.name != "tests"]
    return [*ROOT.glob("*.py"), *(file for folder in folders for file in folder.rglob("*.py"))]


def code_of(page: Path) -> set[str]:
    """What a page has in `code`."""
    return {token.content for token in inline(tokens(page)) if token.type == "code_inline"}


def test_every_error_is_in_the_catalogue_or_has_a_reason_not_to_be(error_tables: ModuleType) -> None:
    told = {place for group in error_tables.CATALOGUE.values() for place in group}
    assert not told & set(error_tables.INTERNAL)
    assert error_tables.exception_classes() == told | set(error_tables.INTERNAL)
    assert all(error_tables.INTERNAL.values())


def test_every_environment_variable_that_is_read_is_told_of_and_the_other_way_round() -> None:
    pattern = re.compile(r"\bDISCOMFORT_[A-Z]+(?:_[A-Z]+)*\b")
    read = {name for file in package_files() for name in pattern.findall(file.read_text(encoding="utf-8"))}
    told = set(pattern.findall((REFERENCE / "configuration.md").read_text(encoding="utf-8")))
    assert read == told
    development = [*(ROOT / "tools").glob("*.py"), ROOT / "dev"]
    read_there = {name for file in development for name in pattern.findall(file.read_text(encoding="utf-8"))}
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    # Set by tools/run_page.py for its own session.
    assert read_there - told - {"DISCOMFORT_CLONE", "DISCOMFORT_RUN"} <= set(pattern.findall(contributing))


def test_every_configuration_key_is_told_of_with_its_default() -> None:
    page = (REFERENCE / "configuration.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `([A-Z_]+)` \| `(.+?)` \|", page, re.MULTILINE))
    keys = {name.upper(): default for name, default in ContextConfig()._asdict().items()}
    for field in dataclasses.fields(ConnectorConfig):
        if not field.metadata.get("internal"):
            keys[field.name] = json.loads(json.dumps(field.default))
    assert {name: json.loads(default) for name, default in told.items()} == keys


def test_every_public_name_has_a_page() -> None:
    assert set(discomfort.__all__) <= code_of(REFERENCE / "python.md")


def test_every_function_of_conditions_is_told_of() -> None:
    calls = {text.partition("(")[0] for text in code_of(REFERENCE / "python" / "steps.md") if "(" in text}
    assert {*control_flow.FUNCTIONS, "value"} <= calls


def test_every_file_and_folder_has_its_line_in_the_architecture() -> None:
    named = code_of(DOCS / "architecture.md")
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if tracked.returncode != 0:
        pytest.skip("not a clone")
    # Documents at the top speak for themselves.
    left_out = {"LICENSE", ".gitignore", *(document.name for document in ROOT.glob("*.md"))}
    files = {line for line in tracked.stdout.splitlines() if (ROOT / line).exists()}
    top = {f"{line.split('/')[0]}/" if "/" in line else line for line in files}
    packages = {line.rpartition("/")[0] + "/" for line in files if line.endswith("/__init__.py")}
    missing = top | {one for one in packages if not one.startswith("tests/run_packs")}
    missing = {one for one in missing - left_out if one not in named and not one.startswith("tests/")}
    assert not missing
    assert {one for one in named if re.fullmatch(r"[\w./-]+\.py|[\w./-]+/", one)} <= existing_names()


def existing_names() -> set[str]:
    """Paths as pages write them: from the top, or a file's name alone where its folder was named."""
    files = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    folders = {f"{path.relative_to(ROOT).as_posix()}/" for path in ROOT.glob("*/**/") if ".venv" not in path.parts}
    return files | folders | {file.rpartition("/")[2] for file in files} | {f"{one.name}/" for one in ROOT.iterdir()}


def test_every_benchmark_is_named_by_a_page_about_figures() -> None:
    measured = [DOCS / "measured" / name for name in ("index.md", "performance.md")] + [DOCS / "concepts" / "cache.md"]
    text = "".join(page.read_text(encoding="utf-8") for page in measured)
    for file in (ROOT / "benchmarks").glob("*.py"):
        assert file.name in text, f"no page about figures names {file.name}"
    for named in re.findall(r"benchmarks/(\w+\.py)", text):
        assert (ROOT / "benchmarks" / named).exists(), named


def test_a_section_of_figures_names_the_command_that_makes_them() -> None:
    page = (DOCS / "measured" / "performance.md").read_text(encoding="utf-8")
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        before_table = section.partition("\n| ")[0]
        command = re.search(r"^(COMFYUI_PATH=\S+ )?\./dev run python benchmarks/\w+\.py", before_table, re.MULTILINE)
        assert command, section


def test_pages_begin_with_what_they_are_about() -> None:
    """A title, then sentences: no table, list, code or further heading."""
    for page in DOCS.rglob("*.md"):
        if page.read_text(encoding="utf-8").startswith("<!-- page:"):
            continue
        kinds = [token.type for token in tokens(page) if token.type != "html_block"]
        assert kinds[0] == "heading_open", page
        assert kinds[3] == "paragraph_open", page
