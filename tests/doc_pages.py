"""The pages of docs/, followed word for word in a fresh folder: what the files test_doc_pages*.py share.

A file for each section, so that they run side by side.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def load_runner() -> ModuleType:
    """tools/run_page.py."""
    if "run_page" not in sys.modules:
        spec = importlib.util.spec_from_file_location("run_page", ROOT / "tools" / "run_page.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules["run_page"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["run_page"]


run_page = load_runner()


def pages_with_code(*sections: str) -> list[str]:
    """The pages of these folders of docs/ ("" for docs/ itself) that have code blocks: ``how-to/notebooks``."""
    files = [file for section in sections for file in sorted((DOCS / section).glob("*.md"))]
    return [file.relative_to(DOCS).with_suffix("").as_posix() for file in files if run_page.blocks_of(file)]


def environment(folder: Path) -> dict[str, str]:
    """That of a new user without a ComfyUI. The store of conversions is shared: a browser need not start each time."""
    left_out = ("COMFYUI_", "DISCOMFORT_RUN", "PYTHONPATH")
    own = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return {**own, "HOME": str(folder), "COMFYUI_PATH": "embedded", "PYTHONDONTWRITEBYTECODE": "1"}


def follow(page: str, folder: Path, nested: SimpleNamespace, python: Path = Path(sys.executable)) -> None:
    """Follow a page, with what *python* has installed; nothing may be left running."""
    for name in ("page", "home"):
        (folder / name).mkdir()
    with run_page.PageRun(DOCS / f"{page}.md", folder / "page", python, environment(folder / "home")) as run:
        for _ in run.all_blocks():
            pass
    assert not nested.processes()
