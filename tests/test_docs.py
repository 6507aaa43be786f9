"""The documentation names only what exists."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FAULTS = ROOT / "docs" / "measured" / "faults.md"


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
