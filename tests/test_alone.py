"""comfy_serverless.py copied alone in an empty folder: the example of docs/reference/connector.md, run as it stands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from discomfort import comfy_serverless as cs

ROOT = Path(cs.__file__).resolve().parent
BOTH = ["fake", pytest.param("real", marks=pytest.mark.real_comfyui)]

# Runs the example, then looks whether anything of the project was imported.
RUN = (
    "import runpy, sys\n"
    "runpy.run_path('example.py', run_name='__main__')\n"
    "print([name for name in sys.modules if name.split('.')[0] == 'discomfort'])\n"
)


def example() -> str:
    """The code block of the documentation."""
    page = (ROOT / "docs" / "reference" / "connector.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- test: alone -->\n```python\n(.*?)```", page, re.DOTALL)
    assert found is not None, "docs/reference/connector.md has lost its example"
    return found.group(1)


@pytest.fixture(params=BOTH)
def tree(request: pytest.FixtureRequest) -> tuple[Path, dict[str, Any], str]:
    """(a ComfyUI folder, a workflow for it, what its output says)."""
    if request.param == "fake":
        workflow = {"nodes": [{"id": 1, "type": "Echo", "widgets_values": {"value": "alone"}}], "links": []}
        return request.getfixturevalue("fake_tree").path, workflow, "1 {'text': ['alone']}"
    workflow = json.loads((ROOT / "test_server.json").read_text(encoding="utf-8"))
    return request.getfixturevalue("real_comfyui"), workflow, "2 {'images': [{'filename': 'ComfyUI_temp_"


def run_alone(folder: Path, tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path), **variables}
    if "COMFYUI_PATH" not in variables:
        environment.pop("COMFYUI_PATH", None)
    return subprocess.run(
        [sys.executable, "-c", RUN], cwd=folder, env=environment, capture_output=True, text=True, timeout=180
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the one file and the example, and nothing else."""
    folder = tmp_path / "alone"
    folder.mkdir()
    shutil.copy(cs.__file__, folder)
    (folder / "example.py").write_text(example(), encoding="utf-8")
    return folder


def test_example_of_the_documentation_runs_a_workflow(
    folder: Path, tree: tuple[Path, dict[str, Any], str], tmp_path: Path, no_leaks: None
) -> None:
    path, workflow, says = tree
    (folder / "workflow.json").write_text(json.dumps(workflow), encoding="utf-8")
    done = run_alone(folder, tmp_path, COMFYUI_PATH=str(path))
    assert done.returncode == 0, done.stderr
    output, imported = done.stdout.splitlines()
    assert output.startswith(says)
    assert imported == "[]"
    assert sorted(entry.name for entry in folder.iterdir() if entry.name != "__pycache__") == [
        "comfy_serverless.py", "example.py", "workflow.json",
    ]  # fmt: skip


def test_without_a_comfyui_it_says_what_to_set(folder: Path, tmp_path: Path, no_leaks: None) -> None:
    done = run_alone(folder, tmp_path)
    assert "ServerNotFoundError: No ComfyUI was found: COMFYUI_PATH is not set" in done.stderr
    assert "Set COMFYUI_PATH to the folder that contains ComfyUI's main.py." in done.stderr


def test_it_uses_a_server_that_runs_already(
    folder: Path, fake_tree: Any, first_port: int, wait_for: Any, tmp_path: Path, no_leaks: None
) -> None:
    port = next(port for port in range(first_port + 60, first_port + 90) if cs.port_is_free("127.0.0.1", port))
    (folder / "comfy_serverless.json").write_text(json.dumps({"API_URL": f"127.0.0.1:{port}"}), encoding="utf-8")
    workflow = {"nodes": [{"id": 1, "type": "Echo", "widgets_values": {"value": "there"}}], "links": []}
    (folder / "workflow.json").write_text(json.dumps(workflow), encoding="utf-8")
    server = subprocess.Popen([sys.executable, "main.py", "--port", str(port)], cwd=fake_tree.path)
    try:
        wait_for(lambda: not cs.port_is_free("127.0.0.1", port), 20)
        done = run_alone(folder, tmp_path)
        assert done.stdout == "1 {'text': ['there']}\n[]\n", done.stderr
        assert server.poll() is None
    finally:
        server.kill()
        server.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no guard process")
def test_file_that_is_updated_under_a_running_process_has_its_old_guard(
    folder: Path, wait_for: Any, nested: Any, no_leaks: None
) -> None:
    """The guard's program is a function of the file, which may be another version's by the time a server is started."""
    code = (
        "import os, pathlib, comfy_serverless as cs\n"
        "file = pathlib.Path(cs.__file__)\n"
        "file.write_text('# of a newer version\\n' * 50 + file.read_text())\n"
        "folder = cs.RuntimeFolder()\n"
        "folder.open()\n"
        "print(folder.path, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)
    assert Path(done.stdout.strip()).is_absolute(), done.stderr
    wait_for(lambda: not Path(done.stdout.strip()).exists(), 8, "the work of the guard")
    wait_for(lambda: not nested.processes(), 2, "the end of the guard")
