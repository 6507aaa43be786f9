"""The documentation names only what exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FAULTS = ROOT / "docs" / "faults.md"


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
def collected() -> dict[str, set[str]]:
    """The names of all tests ("all"), and of those that run on a real ComfyUI ("real")."""

    def collect(*more: str) -> list[str]:
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *more, "tests"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "500"})
        assert done.returncode == 0, done.stdout + done.stderr
        return re.findall(r"::(\w+)(?:\[.*\])?$", done.stdout, re.MULTILINE)

    return {"all": set(collect()), "real": set(collect("-m", "real_comfyui"))}


def test_every_fault_names_tests_that_exist(collected: dict[str, set[str]]) -> None:
    assert len(rows()) > 60
    for cells in rows():
        names = re.findall(r"`(test_\w+)`", cells[-1])
        assert names, f"{cells[0]!r} names no test"
        missing = set(names) - collected["all"]
        assert not missing, f"{cells[0]!r} names tests that do not exist: {missing}"
        assert len(cells) in (2, 5), f"{cells[0]!r} has {len(cells)} cells"
    assert set(re.findall(r"`(test_\w+)`", FAULTS.read_text(encoding="utf-8"))) <= collected["all"]


def test_faults_marked_real_are_tested_on_real_comfyui_and_the_others_are_not(collected: dict[str, set[str]]) -> None:
    marked = [cells for cells in rows() if len(cells) == 5 and cells[3] == "real"]
    assert len(marked) > 12
    for cells in rows():
        if len(cells) == 5:
            on_real = set(re.findall(r"`(test_\w+)`", cells[4])) & collected["real"]
            assert bool(on_real) == (cells[3] == "real"), f"{cells[0]!r}: {on_real or 'none on real ComfyUI'}"
