"""The demo, as a person runs it: both kinds of server, interrupted, killed; and what the README shows of it."""

from __future__ import annotations

import glob
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "examples" / "refine.py"


def start_demo(folder: Path, comfyui_path: str, **environment: str) -> subprocess.Popen[str]:
    """The demo in a folder of its own, on a server of the tests' own port range."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "run_script.py"), str(DEMO)],
        cwd=folder,
        env={**os.environ, "COMFYUI_PATH": comfyui_path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_demo(folder: Path, comfyui_path: str) -> tuple[str, list[np.ndarray[Any, Any]]]:
    """(what it printed, the pictures of all iterations)."""
    demo = start_demo(folder, comfyui_path)
    out, err = demo.communicate(timeout=240)
    assert demo.returncode == 0, err
    files = sorted((folder / "discomfort-results").glob("iteration-*.png"))
    pictures = []
    for file in files:
        with Image.open(file) as image:
            pictures.append(np.asarray(image).astype(int))
    return out + err, pictures


def test_it_refines_until_the_goal_and_leaves_pictures_and_nothing_else(
    tmp_path: Path, nested: SimpleNamespace
) -> None:
    printed, pictures = run_demo(tmp_path, "embedded")
    assert 5 <= len(pictures) - 1 < 20  # the condition ended it, not the limit
    with Image.open(tmp_path / "discomfort-results" / "contact-sheet.png") as sheet:
        assert sheet.size[0] > 1000
    assert "embedded server" in printed
    assert str(tmp_path / "discomfort-results" / "contact-sheet.png") in printed
    assert re.search(r"server \d+\.\d+ s, data transfer \d+\.\d+ s, orchestrator \d+\.\d+ s", printed)
    assert "100%" in printed  # the progress bar
    assert not nested.processes()
    assert not nested.folders()
    assert not shared_memory()


@pytest.mark.real_comfyui
def test_the_embedded_server_and_comfyui_make_the_same_pictures(tmp_path: Path, real_comfyui: Path) -> None:
    results = {}
    for name, path in (("embedded", "embedded"), ("comfyui", str(real_comfyui))):
        (tmp_path / name).mkdir()
        _, results[name] = run_demo(tmp_path / name, path)
    assert len(results["embedded"]) == len(results["comfyui"])
    for ours, theirs in zip(results["embedded"], results["comfyui"], strict=True):
        # One step of 255: float rounding may fall on either side.
        assert int(np.abs(ours - theirs).max()) <= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
@pytest.mark.parametrize("moment", ["server", "browser"])
def test_a_demo_that_is_stopped_leaves_nothing(
    tmp_path: Path, nested: SimpleNamespace, wait_for: Callable[..., Any], number: signal.Signals, moment: str
) -> None:
    # A cache of its own: the workflow must be converted, so that there is a browser.
    demo = start_demo(tmp_path, "embedded", XDG_CACHE_HOME=str(tmp_path / "cache"))

    def is_there() -> bool:
        wanted = "embedded" if moment == "server" else "--user-data-dir"
        return any(wanted in " ".join(process.cmdline()) for process in nested.processes() if process.is_running())

    try:
        wait_for(is_there, timeout=60, what=f"the {moment}")
        demo.send_signal(number)
        _, err = demo.communicate(timeout=30)
    finally:
        demo.kill()
        demo.wait()
    assert demo.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), err
    assert "Traceback" not in err
    deadline = time.monotonic() + 15
    while nested.processes() or nested.folders():
        left = [" ".join(p.cmdline())[:200] for p in nested.processes() if p.is_running()], nested.folders()
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.05)
    if number == signal.SIGKILL:  # contexts of a killed process are swept by the next start
        run_demo(tmp_path, "embedded")
    assert not shared_memory()


def shared_memory() -> list[str]:
    """Contexts in shared memory, and on disk, whose owner is gone."""
    from discomfort.workflow_context import sweep

    left = glob.glob("/dev/shm/discomfort-*/run-*")
    return [path for path in left if Path(path).name.removeprefix("run-") in " ".join(sweep())]


def test_the_readme_shows_the_demo_word_for_word() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(import asyncio.*?)```", readme, flags=re.DOTALL)
    assert script.strip() in DEMO.read_text(encoding="utf-8")
    assert len(script.splitlines()) <= 45


def test_the_demos_workflow_has_the_ports_that_the_readme_names() -> None:
    from discomfort.workflow_graph import discover_ports

    ports = discover_ports(ROOT / "examples" / "workflows" / "refine.json")
    assert {(port.unique_id, port.mode) for port in ports} == {
        ("image", "INPUT"),
        ("amount", "INPUT"),
        ("image", "OUTPUT"),
    }
    workflow = json.loads((ROOT / "examples" / "workflows" / "refine.json").read_text())
    assert {node["type"] for node in workflow["nodes"]} == {"DiscomfortPort", "ImageSharpen"}


def test_every_page_that_the_readme_links_to_exists() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_the_tables_in_the_docs_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "write_reference.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_docs_list_every_node_once_as_there_or_not() -> None:
    """The embedded server's own nodes, and of ComfyUI's those of the same families that it does not have."""
    from discomfort.embedded.core_nodes import NODE_CLASS_MAPPINGS

    page = (ROOT / "docs" / "reference" / "embedded-server.md").read_text(encoding="utf-8")

    def listed(name: str) -> list[str]:
        table = page.split(f"<!-- begin: {name} -->")[1].split("<!-- end")[0]
        rows = [row.strip("|").split("|")[1:] for row in table.splitlines() if row.startswith("|")][2:]
        return [node.strip() for row in rows for cell in row for node in cell.split(",") if node.strip()]

    assert sorted(listed("nodes")) == sorted(NODE_CLASS_MAPPINGS)
    missing = listed("missing nodes")
    assert "VAEDecode" in missing
    assert len(missing) == len(set(missing))
    assert not set(missing) & set(NODE_CLASS_MAPPINGS)
