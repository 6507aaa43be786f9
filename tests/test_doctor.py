"""``discomfort doctor``: every breakage is made for real, and found, with what to do about it.

Most tests ask for a few checks only (``--only``); the healthy machine, at the end, for all.
"""

from __future__ import annotations

import contextlib
import errno
import http.server
import json
import os
import re
import select as select_module
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import click
import packaging.requirements
import pytest
from discomfort.cli.doctor_checks import CHECKS, comfyui_checks, programs, requirements
from discomfort.cli.doctor_checks.checkup import Check, Machine, Result, SkipCheck, State, broken, examine, ok, select
from discomfort.cli.doctor_checks.comfyui_checks import OLDEST_COMFYUI
from discomfort.cli.doctor_checks.disk_checks import judge_room
from discomfort.cli.doctor_checks.memory_checks import GB, MB, judge_memory, judge_shared_memory
from discomfort.cli.doctor_checks.python_checks import OLDEST_PYTHON
from discomfort.cli.doctor_checks.system_checks import judge_limits
from discomfort.comfy_serverless import ConnectorConfig
from packaging.specifiers import SpecifierSet

import discomfort

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CLONE = Path(discomfort.__file__).resolve().parent
SITE = Path(click.__file__).resolve().parent.parent
NEEDS_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")
# What a machine of somebody else may lack without being broken.
OF_THE_MACHINE = {"system", "shared-memory", "memory", "temp", "cache", "limits", "runs", "environment", "warm"}


class Seen(NamedTuple):
    """What a doctor said."""

    status: int
    checks: dict[str, SimpleNamespace]
    versions: dict[str, str | None]
    output: str

    def __getattr__(self, name: str) -> SimpleNamespace:
        """``seen.server_python``: a check."""
        try:
            return self.checks[name.replace("_", "-")]
        except KeyError:
            raise AttributeError(name) from None

    def states(self) -> dict[str, str]:
        return {key: check.state for key, check in self.checks.items()}


def environment(**variables: str | Path | None) -> dict[str, str]:
    """That of this process, without what would change the answers; None takes a variable away."""
    dropped = {"PYTHONPATH", "COMFYUI_PATH", "COMFYUI_PYTHON", "DISCOMFORT_RAM_ROOT", "DISCOMFORT_DISK_ROOT"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    kept |= {name: str(value) for name, value in variables.items() if value is not None}
    return {name: value for name, value in kept.items() if variables.get(name, "") is not None}


@pytest.fixture
def doctor(tmp_path: Path) -> Callable[..., Seen]:
    """``doctor("check", ..., config=FILE, VARIABLE=value)`` asks for these checks, as a program does."""

    def run(
        *checks: str, config: Path | None = None, wrapper: Sequence[str] = (), python: str | Path = sys.executable,
        options: Sequence[str] = (), **variables: str | Path | None,
    ) -> Seen:  # fmt: skip
        words = [*wrapper, str(python), str(CLONE), "doctor", "--json", *options]
        words += [word for check in checks for word in ("--only", check)]
        words += ["--config", str(config)] if config else []
        done = subprocess.run(
            words, cwd=tmp_path, env=environment(**variables), capture_output=True, text=True, timeout=110
        )
        assert done.stderr == "", done.stderr
        content = json.loads(done.stdout)
        assert set(content) == {"checks", "versions"}
        found = {check["id"]: SimpleNamespace(**check) for check in content["checks"]}
        expected = 4 if any(check.state == "broken" for check in found.values()) else 0
        assert done.returncode == expected, "the exit status says whether something is broken"
        for check in found.values():
            assert check.found, check
            assert check.state in ("warning", "broken") or not check.advice, check
        return Seen(done.returncode, found, content["versions"], done.stdout)

    return run


@pytest.fixture
def make_tree(tmp_path: Path) -> Callable[..., Path]:
    """``make_tree(version, requirements)`` makes what looks like a ComfyUI checkout."""

    def make(version: str | None = "0.3.64", needs: str = "numpy\n") -> Path:
        tree = tmp_path / "ComfyUI"
        (tree / "comfy").mkdir(parents=True)
        (tree / "main.py").write_text("raise SystemExit('not meant to be started')\n")
        (tree / "requirements.txt").write_text(needs)
        if version is not None:
            (tree / "comfyui_version.py").write_text(f'# generated\n__version__ = "{version}"\n')
        return tree

    return make


def make_venv(folder: Path) -> tuple[Path, Path]:
    """A real environment with nothing in it: (its interpreter, its folder of packages)."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    return folder / "bin" / "python", next((folder / "lib").glob("python3*")) / "site-packages"


def fake_metadata(folder: Path, name: str, version: str) -> None:
    """What an installed distribution leaves, and nothing else of it."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


# ---- Python and packages -------------------------------------------------------------------------------------------


def test_a_package_that_cannot_be_imported(doctor: Callable[..., Seen], tmp_path: Path) -> None:
    """Its metadata is there, as after an upgrade of Python; so only importing it tells."""
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "simpleeval.py").write_text("raise ModuleNotFoundError(\"No module named 'simpleeval'\")\n")
    seen = doctor("packages", PYTHONPATH=tmp_path / "stub")
    assert seen.packages.state == "broken"
    assert "cannot be imported (ModuleNotFoundError: No module named 'simpleeval')" in seen.packages.found
    assert f"{sys.executable} -m pip install --force-reinstall 'simpleeval>=1.0'" in seen.packages.advice


def test_a_package_that_crashes_when_it_is_imported(doctor: Callable[..., Seen], tmp_path: Path) -> None:
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "xxhash.py").write_text("import os\nos.abort()\n")
    seen = doctor("packages", PYTHONPATH=tmp_path / "stub")
    assert "Python crashed, by signal 6 (SIGABRT)" in seen.packages.found
    assert seen.status == 4


def test_a_package_that_is_too_old(doctor: Callable[..., Seen], tmp_path: Path) -> None:
    fake_metadata(tmp_path / "old", "rich", "1.3")
    seen = doctor("packages", PYTHONPATH=tmp_path / "old")
    assert seen.packages.state == "broken"
    assert seen.packages.found == "rich is 1.3, needed is >=13.0"
    assert seen.packages.advice.endswith("-m pip install 'rich>=13.0'")
    assert seen.versions["rich"] == "1.3"


def test_it_runs_with_nothing_but_click(doctor: Callable[..., Seen], tmp_path: Path) -> None:
    python, site = make_venv(tmp_path / "bare")
    (site / "click").symlink_to(SITE / "click")
    seen = doctor(python=python)
    assert seen.status == 4
    assert {key for key, state in seen.states().items() if state == "broken"} == {"packages"}
    for name in ("aiohttp", "psutil", "playwright", "rich", "websockets"):
        assert re.search(rf"missing: .*\b{name}\b", seen.packages.found)
        assert seen.versions[name] is None
    assert "-m pip install 'click>=" in seen.packages.advice
    assert " 'aiohttp>=" in seen.packages.advice
    assert seen.configuration.found == "needs the package aiohttp, which is missing (see Packages)"
    for key in ("browser", "ports", "start", "stop"):
        assert (seen.checks[key].state, seen.checks[key].found) == (
            "skipped",
            "not looked at, because Packages is broken",
        )
    # What the standard library can see is looked at all the same.
    assert {seen.states()[key] for key in ("python", "system", "limits")} <= {"ok", "warning"}
    assert seen.states()["shared-memory"] != "skipped"
    assert "not installed" in seen.torch.found


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("import os\nos.abort()\n", "Python crashed, by signal 6 (SIGABRT)"),
        ("raise ImportError('libcudart.so.12: cannot open')\n", "ImportError: libcudart.so.12: cannot open"),
        ("import sys\nsys.exit('no licence')\n", "SystemExit: no licence"),
    ],
    ids=["crashes", "raises", "exits"],
)
def test_a_torch_that_cannot_be_imported(
    doctor: Callable[..., Seen], tmp_path: Path, embedded_config: Path, code: str, complaint: str
) -> None:
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "torch.py").write_text(code)
    seen = doctor("comfyui", "server-python", "torch", config=embedded_config, PYTHONPATH=tmp_path / "stub")
    assert seen.torch.state == "broken"
    assert seen.torch.found.endswith(f"cannot be imported: {complaint}")
    assert f"{sys.executable} -m pip install --force-reinstall torch" in seen.torch.advice
    assert "https://pytorch.org" in seen.torch.advice


GPU_TORCH = """
import os
__version__ = "2.9.0+cu128"
class version:
    cuda, hip = {cuda!r}, None
class cuda:
    is_available = staticmethod(lambda: {available})
    device_count = staticmethod(lambda: 1)
    @staticmethod
    def get_device_properties(index):
        class properties:
            name, total_memory = "NVIDIA H200", 140 * 2**30
        return properties
class backends:
    pass
"""


@pytest.mark.parametrize(
    ("available", "state", "found"),
    [
        ("True", "ok", "2.9.0+cu128, NVIDIA H200, 140 GB"),
        ("os.abort()", "broken", "2.9.0+cu128, but asking it for a GPU fails: Python crashed, by signal 6"),
    ],
    ids=["works", "crashes"],
)
def test_a_torch_for_gpus(
    doctor: Callable[..., Seen], tmp_path: Path, embedded_config: Path, available: str, state: str, found: str
) -> None:
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "torch.py").write_text(GPU_TORCH.format(cuda="12.8", available=available))
    seen = doctor("server-python", "torch", config=embedded_config, PYTHONPATH=tmp_path / "stub")
    assert seen.torch.state == state
    assert seen.torch.found.startswith(found)


@pytest.mark.parametrize(("cuda", "kind"), [(None, "a build without GPU support"), ("12.8", "one that finds no GPU")])
def test_a_gpu_that_torch_does_not_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cuda: str | None, kind: str
) -> None:
    (tmp_path / "torch.py").write_text(GPU_TORCH.format(cuda=cuda, available="False"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(comfyui_checks, "_shows_gpu", lambda: True)
    machine = Machine(None, "discomfort")
    machine.server_python, machine.server_versions = [sys.executable], {"torch": "2.9.0"}
    machine.config = ConnectorConfig()
    result = comfyui_checks.look_at_torch(machine)
    assert result.state is State.WARNING
    assert kind in result.found
    assert "https://pytorch.org/get-started/locally/" in result.advice[0]
    machine.config = ConnectorConfig(DEVICE="cpu")
    assert comfyui_checks.look_at_torch(machine).state is State.OK


def test_no_torch_and_no_comfyui(doctor: Callable[..., Seen], tmp_path: Path) -> None:
    """The embedded server, which runs where there is no ComfyUI, needs PyTorch."""
    python, site = make_venv(tmp_path / "bare")
    for entry in SITE.iterdir():
        if not re.match(r"(torch|functorch|discomfort|__editable)", entry.name):
            (site / entry.name).symlink_to(entry)
    seen = doctor("comfyui", "torch", python=python)
    assert seen.comfyui.state == "broken"
    assert "the server that comes with Discomfort needs PyTorch" in seen.comfyui.found
    assert re.search(r"-m pip install 'torch>=\S+' comfyui-frontend-package==\S+", seen.comfyui.advice)
    assert "export COMFYUI_PATH=/path/to/ComfyUI" in seen.comfyui.advice.splitlines()
    assert seen.torch.state == "warning"
    assert "not installed; scripts need it for pictures" in seen.torch.found


# ---- configuration and environment ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"COMFYUI_PAHT": "/x"}', "unknown key 'COMFYUI_PAHT'. Allowed keys: API_COMMAND_LINE"),
        ('{"INITIAL_PORT": "8188"}', "INITIAL_PORT is '8188', it must be a whole number"),
        ('{"DEVICE": "gpu",}', "is not valid JSON"),
        (None, "does not exist"),
        ('{"API_URL": "http://me:hunter2@host:1"}', "API_URL has a user name or password in it"),
        ('{"API_TOKEN": "hunter2 with a space"}', "API_TOKEN has a space"),
    ],
)
def test_a_bad_configuration(doctor: Callable[..., Seen], tmp_path: Path, text: str | None, complaint: str) -> None:
    file = tmp_path / "mine.json"
    if text is not None:
        file.write_text(text)
    seen = doctor("comfyui", config=file)
    assert seen.configuration.state == "broken"
    assert complaint in seen.configuration.found
    assert f"Correct {file}" in seen.configuration.advice
    assert (seen.comfyui.state, seen.comfyui.found) == ("skipped", "not looked at, because Configuration is broken")
    assert "hunter2" not in seen.output


def test_variables_that_point_nowhere(doctor: Callable[..., Seen], tmp_path: Path) -> None:
    names = ("COMFYUI_PATH", "DISCOMFORT_BROWSER", "DISCOMFORT_RAM_ROOT", "DISCOMFORT_DISK_ROOT", "TMPDIR")
    lost = {name: tmp_path / f"no-{name}" for name in names}
    seen = doctor("environment", **lost, COMFYUI_PYTHON="python-of-nobody", DISCOMFORT_API_TOKEN="hunter2")
    assert (seen.status, seen.environment.state) == (0, "warning")
    for name in names:
        assert f"{name}={lost[name]} (no such f" in seen.environment.found
        assert f"unset {name}" in seen.environment.advice.splitlines()
    assert "COMFYUI_PYTHON=python-of-nobody (no program that can be run)" in seen.environment.found
    assert "DISCOMFORT_API_TOKEN is set" in seen.environment.found
    assert "hunter2" not in seen.output


def test_variables_that_point_somewhere(doctor: Callable[..., Seen], tmp_path: Path) -> None:
    seen = doctor(
        "environment", COMFYUI_PATH="embedded", COMFYUI_PYTHON="sh", DISCOMFORT_BROWSER=sys.executable,
        DISCOMFORT_RAM_ROOT="none", DISCOMFORT_DISK_ROOT=tmp_path,
    )  # fmt: skip
    assert seen.environment.state == "ok"


# ---- ComfyUI --------------------------------------------------------------------------------------------------------


def test_a_folder_without_main_py(doctor: Callable[..., Seen], tmp_path: Path) -> None:
    seen = doctor("nodes", COMFYUI_PATH=tmp_path)
    assert seen.comfyui.state == "broken"
    assert f"No ComfyUI at {tmp_path}: the folder holds no ComfyUI (no main.py" in seen.comfyui.found
    assert "export COMFYUI_PATH=/path/to/ComfyUI" in seen.comfyui.advice.splitlines()
    assert "export COMFYUI_PATH=embedded" in seen.comfyui.advice.splitlines()
    assert (seen.nodes.state, seen.nodes.found) == ("skipped", "not looked at, because ComfyUI is broken")


def test_an_old_comfyui(doctor: Callable[..., Seen], make_tree: Callable[..., Path]) -> None:
    tree = make_tree("0.3.30")
    seen = doctor("comfyui", COMFYUI_PATH=tree)
    assert (seen.status, seen.comfyui.state) == (4, "broken")
    assert seen.comfyui.found == (
        f"0.3.30 in {tree} (the environment variable COMFYUI_PATH names it): too old, Discomfort needs 0.3.64 or newer"
    )
    assert f"git -C {tree} pull" in seen.comfyui.advice.splitlines()
    assert f"{sys.executable} -m pip install -r {tree}/requirements.txt" in seen.comfyui.advice
    assert seen.versions["comfyui"] == "0.3.30"


def test_a_comfyui_of_an_unknown_version(doctor: Callable[..., Seen], make_tree: Callable[..., Path]) -> None:
    seen = doctor("comfyui", COMFYUI_PATH=make_tree(version=None))
    assert (seen.status, seen.comfyui.state) == (0, "warning")
    assert "it has no comfyui_version.py" in seen.comfyui.found


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        (
            "#!/bin/sh\necho 'libpython3.12.so: cannot open' >&2\nexit 127\n",
            "ended with exit status 127: libpython3.12",
        ),
        ("#!/bin/sh\nkill -SEGV $$\n", "crashed, by signal 11 (SIGSEGV)"),
        ("#!/nowhere/python\n", "cannot be started: No such file or directory"),
    ],
    ids=["fails", "crashes", "moved"],
)
def test_a_python_of_comfyui_that_does_not_run(
    doctor: Callable[..., Seen], make_tree: Callable[..., Path], script: str, complaint: str
) -> None:
    tree = make_tree()
    program = tree / "venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text(script)
    program.chmod(0o755)
    seen = doctor("server-packages", "nodes", "frontend", COMFYUI_PATH=tree)
    assert seen.server_python.state == "broken"
    assert f"{program} {complaint}" in seen.server_python.found
    assert f"{sys.executable} -m venv --clear {tree}/venv" in seen.server_python.advice.splitlines()
    assert f"{program} -m pip install -r {tree}/requirements.txt -r {CLONE}/requirements.txt" in seen.output
    for key in ("server-packages", "nodes", "frontend"):
        assert seen.checks[key].found == "not looked at, because Server's Python is broken"


def test_an_empty_environment_of_comfyui(doctor: Callable[..., Seen], make_tree: Callable[..., Path]) -> None:
    """requirements.txt, ComfyUI's and ours, was never installed there."""
    tree = make_tree(
        needs="comfyui-frontend-package==1.27.10\ntorch\nnumpy>=1.25.0\n\n#non essential dependencies:\nkornia>=0.7\n"
    )
    python, _ = make_venv(tree / "venv")
    seen = doctor("server-packages", "nodes", "torch", "frontend", COMFYUI_PATH=tree)
    assert seen.server_python.state == "ok"
    assert str(python) in seen.server_python.found
    assert (seen.server_packages.state, seen.server_packages.found) == ("broken", "missing: torch, numpy")
    assert f"{python} -m pip install -r {tree}/requirements.txt" in seen.server_packages.advice.splitlines()
    assert seen.nodes.state == "broken"
    assert "cannot be loaded: ModuleNotFoundError: No module named" in seen.nodes.found
    assert re.search(r"missing there: click, cloudpickle, filelock, .*xxhash", seen.nodes.found)
    assert f"{python} -m pip install -r {CLONE}/requirements.txt" in seen.nodes.advice.splitlines()
    assert seen.torch.state == "broken"
    assert "not installed in the server's Python" in seen.torch.found
    assert f"{python} -m pip install torch" in seen.torch.advice.splitlines()
    assert seen.frontend.state == "broken"
    assert f"{python} -m pip install comfyui-frontend-package==1.27.10" in seen.frontend.advice.splitlines()


def test_an_environment_of_comfyui_in_which_versions_are_wrong(
    doctor: Callable[..., Seen], make_tree: Callable[..., Path], tmp_path: Path
) -> None:
    """It works, so these are warnings: an old package of ours, another editor, and a second copy of the nodes."""
    tree = make_tree(
        needs="comfyui-frontend-package==1.0.5\nnumpy>=9999\n# non-essential dependencies\nno-such-thing\n"
    )
    _, site = make_venv(tree / "venv")
    (site / "all.pth").write_text(f"{SITE}\n")
    fake_metadata(site, "networkx", "2.8")
    seen = doctor("server-packages", "nodes", "frontend", COMFYUI_PATH=tree)
    assert seen.status == 0
    assert seen.nodes.state == "warning"
    assert re.search(r"7 load in the server's Python, but networkx is 2.8, needed is >=3.0", seen.nodes.found)
    assert seen.server_packages.state == "warning"
    assert "needed is >=9999" in seen.server_packages.found
    assert "needed by single nodes only: no-such-thing" in seen.server_packages.found
    assert seen.frontend.state == "warning"
    assert "this server is made for 1.0.5" in seen.frontend.found
    # A second copy.
    shutil.rmtree(next(site.glob("networkx-*")))
    copy = tree / "custom_nodes" / "old-discomfort"
    copy.mkdir(parents=True)
    for name in ("nodes_internal.py", "comfy_serverless.py"):
        (copy / name).write_text("")
    again = doctor("nodes", COMFYUI_PATH=tree)
    assert again.nodes.state == "warning"
    assert f"another copy of Discomfort, in {copy}" in again.nodes.found


def test_a_command_whose_python_cannot_be_asked(
    doctor: Callable[..., Seen], make_tree: Callable[..., Path], write_config: Callable[..., Path]
) -> None:
    config = write_config(COMFYUI_PATH=str(make_tree()), API_COMMAND_LINE="./start.sh --lowvram")
    seen = doctor("nodes", config=config)
    assert {seen.states()[key] for key in ("server-python", "nodes")} == {"skipped"}
    assert seen.nodes.found == "API_COMMAND_LINE starts a program whose Python cannot be asked"


# ---- a server that runs already -------------------------------------------------------------------------------------


@pytest.fixture
def listening() -> Iterator[Callable[[int, str], int]]:
    """``listening(status, body)`` starts a server that answers everything so; returns its port."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(status: int, body: str) -> int:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return int(servers[-1].server_address[1])

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


STATS = json.dumps({"system": {"comfyui_version": "0.3.99"}})


@pytest.mark.parametrize(
    ("status", "body", "state", "found", "advice"),
    [
        (200, STATS, "ok", "0.3.99, runs at", ""),
        (401, "", "broken", "answers with status 401", "set API_TOKEN or DISCOMFORT_API_TOKEN"),
        (302, STATS, "broken", "answers with status 302", "Start that server"),
        (200, "<html>", "broken", "is no ComfyUI", "Start that server"),
        (200, "[]", "broken", "is no ComfyUI", "Start that server"),
    ],
    ids=["good", "login", "redirect", "page", "other"],
)
def test_a_server_that_api_url_names(
    doctor: Callable[..., Seen], listening: Callable[[int, str], int], write_config: Callable[..., Path],
    status: int, body: str, state: str, found: str, advice: str,
) -> None:  # fmt: skip
    port = listening(status, body)
    config = write_config(API_URL=f"127.0.0.1:{port}", API_TOKEN="hunter2")
    seen = doctor("comfyui", "ports", config=config)
    assert seen.comfyui.state == state
    assert found in seen.comfyui.found
    assert f"http://127.0.0.1:{port}" in seen.comfyui.found
    assert advice in seen.comfyui.advice
    assert seen.ports.state == "skipped"
    assert "hunter2" not in seen.output


def test_nobody_at_api_url(doctor: Callable[..., Seen], write_config: Callable[..., Path]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and nobody listens
        port = unused.getsockname()[1]
        seen = doctor("nodes", config=write_config(API_URL=f"127.0.0.1:{port}"))
    assert f"http://127.0.0.1:{port}, which API_URL names, does not answer" in seen.comfyui.found
    assert seen.nodes.state == "skipped"


# ---- the browser ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "mode", "found"),
    [
        (None, 0, "does not exist"),
        ("#!/bin/sh\n", 0o644, "is no program that can be run"),
        ("#!/bin/sh\necho 'error while loading libnss3.so' >&2\nexit 127\n", 0o755, "libnss3.so"),
        ("#!/bin/sh\nexec sleep 1000\n", 0o755, "Timeout 1000ms exceeded"),
    ],
    ids=["missing", "no program", "ends", "hangs"],
)
def test_a_browser_that_does_not_start(
    doctor: Callable[..., Seen], tmp_path: Path, write_config: Callable[..., Path], nested: SimpleNamespace,
    script: str | None, mode: int, found: str,
) -> None:  # fmt: skip
    before = nested.folders()  # of other tests' editors that were killed, say
    program = tmp_path / "browser"
    if script is not None:
        program.write_text(script)
        program.chmod(mode)
    seen = doctor("browser", config=write_config(CONVERSION_TIMEOUT=1), DISCOMFORT_BROWSER=program)
    assert seen.browser.state == "broken"
    assert str(program) in seen.browser.found
    assert found in seen.browser.found
    advice = seen.browser.advice.splitlines()
    assert f"{sys.executable} -m playwright install --with-deps chromium" in advice
    assert "export DISCOMFORT_BROWSER=/path/to/chromium" in advice
    assert set(nested.folders()) <= set(before)


def test_no_browser_at_all(doctor: Callable[..., Seen], tmp_path: Path) -> None:
    """The first conversion would download one; the doctor does not."""
    nothing = {"DISCOMFORT_BROWSER": None, "PATH": tmp_path / "none", "PLAYWRIGHT_BROWSERS_PATH": tmp_path / "none"}
    seen = doctor("browser", **nothing)
    assert (seen.status, seen.browser.state) == (0, "warning")
    assert "the first conversion would download" in seen.browser.found
    assert f"{sys.executable} -m playwright install --with-deps chromium" in seen.browser.advice.splitlines()
    assert not (tmp_path / "none").exists()


# ---- memory and disk ------------------------------------------------------------------------------------------------


@NEEDS_LINUX
def test_shared_memory_that_cannot_be_used(doctor: Callable[..., Seen], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place, complaint in (
        (tmp_path / "file", "it is no folder"),
        (tmp_path / "none", "there is no such folder"),
        (Path("/proc"), "nothing can be written there"),
    ):
        seen = doctor("shared-memory", DISCOMFORT_RAM_ROOT=place)
        assert seen.shared_memory.state == "broken"
        assert f"{place}: {complaint}" in seen.shared_memory.found
        assert "unset DISCOMFORT_RAM_ROOT" in seen.shared_memory.advice.splitlines()


def test_a_folder_of_runs_that_others_may_have_written(doctor: Callable[..., Seen], tmp_path: Path) -> None:
    home = tmp_path / f"discomfort-{os.geteuid()}"
    home.mkdir()
    home.chmod(0o777)
    seen = doctor("shared-memory", "temp", "runs", DISCOMFORT_RAM_ROOT=tmp_path, DISCOMFORT_DISK_ROOT=tmp_path)
    for key in ("shared-memory", "temp", "runs"):
        assert seen.checks[key].state == "broken"
        assert f"{home} is open to other users" in seen.checks[key].found


@NEEDS_LINUX
def test_folders_of_the_user_that_cannot_be_written(doctor: Callable[..., Seen], embedded_config: Path) -> None:
    """Without the cache everything works, and is slower; without its folder the embedded server cannot start."""
    seen = doctor("cache", XDG_CACHE_HOME="/proc/cache")
    assert (seen.status, seen.cache.state) == (0, "warning")
    assert "/proc/cache/discomfort: nothing can be written there" in seen.cache.found
    assert "export XDG_CACHE_HOME=/path/to/a/folder/with/room" in seen.cache.advice.splitlines()
    seen = doctor("comfyui", "cache", config=embedded_config, XDG_DATA_HOME="/proc/data")
    assert (seen.status, seen.cache.state) == (4, "broken")
    assert "/proc/data/discomfort/embedded: nothing can be written there" in seen.cache.found
    assert "export XDG_DATA_HOME=/path/to/a/folder/with/room" in seen.cache.advice.splitlines()


def in_small_filesystem(folder: Path, size: str) -> list[str]:
    """What to put before a command so that it sees a small filesystem in this folder, and nobody else does."""
    script = f'mount -t tmpfs -o size={size},mode=1777 tmpfs {shlex.quote(str(folder))} && exec "$@"'
    wrapper = ["unshare", "--mount", "sh", "-c", script, "sh"]
    try:
        can = subprocess.run([*wrapper, "true"], capture_output=True, timeout=10).returncode == 0
    except OSError:
        can = False
    if not can:
        pytest.skip("mounting needs root, and unshare")
    return wrapper


@NEEDS_LINUX
def test_a_small_shared_memory(doctor: Callable[..., Seen], tmp_path: Path) -> None:
    seen = doctor("shared-memory", wrapper=in_small_filesystem(tmp_path, "64m"), DISCOMFORT_RAM_ROOT=tmp_path)
    assert (seen.status, seen.shared_memory.state) == (0, "warning")
    assert "free of 64.0 MB" in seen.shared_memory.found
    assert "Larger values go to disk" in seen.shared_memory.advice


@NEEDS_LINUX
def test_a_full_disk(doctor: Callable[..., Seen], tmp_path: Path) -> None:
    seen = doctor("temp", wrapper=in_small_filesystem(tmp_path, "30m"), TMPDIR=tmp_path)
    assert seen.temp.state == "broken"
    assert re.search(rf"{tmp_path}: 30.0 MB free: no server can be started in so little", seen.temp.found)
    assert "export TMPDIR=/path/to/a/folder/with/room" in seen.temp.advice.splitlines()


def test_sizes_are_judged() -> None:
    assert judge_shared_memory(8 * GB, 7 * GB, True).state is State.OK
    container = judge_shared_memory(64 * MB, 64 * MB, True)
    assert container.state is State.WARNING
    assert "docker run --shm-size=8g ..." in container.advice
    assert "mount -o remount,size=8g /dev/shm" in judge_shared_memory(64 * MB, 64 * MB, False).advice
    full = judge_shared_memory(8 * GB, 10 * MB, False, "python -m discomfort")
    assert full.state is State.WARNING
    assert "python -m discomfort context sweep" in full.advice
    assert [judge_room(free).state for free in (MB, GB, 10 * GB)] == [State.BROKEN, State.WARNING, State.OK]
    assert [judge_memory(free).state for free in (GB, 8 * GB)] == [State.WARNING, State.OK]
    assert judge_limits(20_000, None, None).state is State.OK
    assert "ulimit -n 4096" in judge_limits(256, None, None).advice
    assert "ulimit -v unlimited" in judge_limits(None, None, 4 * GB).advice
    assert "--pids-limit" in judge_limits(None, 100, None).advice[0]


@NEEDS_LINUX
def test_few_open_files(doctor: Callable[..., Seen]) -> None:
    seen = doctor("limits", wrapper=["sh", "-c", 'ulimit -n 200 && exec "$@"', "sh"])
    assert (seen.status, seen.limits.state) == (0, "warning")
    assert seen.limits.found.startswith("200 open files")
    assert "ulimit -n 4096" in seen.limits.advice.splitlines()


def test_what_a_dead_script_left(doctor: Callable[..., Seen], data_roots: tuple[str, str]) -> None:
    roots = dict(zip(("DISCOMFORT_RAM_ROOT", "DISCOMFORT_DISK_ROOT"), data_roots, strict=True))
    code = "import os; from discomfort import WorkflowContext as C; c = C(); c.save('a', b'x' * 10**6); os._exit(0)"
    subprocess.run([sys.executable, "-c", code], env=environment(**roots), check=True, timeout=60)
    seen = doctor("runs", **roots)
    assert (seen.status, seen.runs.state) == (0, "warning")
    assert re.search(r"1 run of dead scripts left \d.* in memory", seen.runs.found)
    line = seen.runs.advice.splitlines()[-1]
    assert line == f"python {CLONE} context sweep"
    # The advice, word for word.
    subprocess.run(
        [sys.executable, *line.split()[1:]], env=environment(**roots), check=True, capture_output=True, timeout=60
    )
    assert doctor("runs", **roots).runs.state == "ok"


# ---- the network ----------------------------------------------------------------------------------------------------


def listen(port: int) -> socket.socket:
    taken = socket.socket()
    try:
        taken.bind(("127.0.0.1", port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    else:
        taken.listen(1)
    return taken


def test_no_port_is_free(doctor: Callable[..., Seen], write_config: Callable[..., Path]) -> None:
    with listen(65534), listen(65535):
        seen = doctor("ports", config=write_config(INITIAL_PORT=65534))
    assert seen.ports.state == "broken"
    assert seen.ports.found == "none is free on 127.0.0.1 from 65534 to 65535"
    assert "INITIAL_PORT" in seen.ports.advice


def test_who_has_the_first_port(
    doctor: Callable[..., Seen], listening: Callable[[int, str], int], write_config: Callable[..., Path]
) -> None:
    port = listening(200, STATS)
    seen = doctor("ports", config=write_config(INITIAL_PORT=port))
    assert seen.ports.state == "ok"
    assert f"{port} is taken by a ComfyUI 0.3.99, which is left alone" in seen.ports.found
    tree_config = write_config(COMFYUI_PATH="embedded", API_COMMAND_LINE=f"python3 main.py --port {port}")
    seen = doctor("comfyui", "ports", config=tree_config)
    assert seen.ports.state == "broken"
    assert f"{port}, which API_COMMAND_LINE demands, is taken by a ComfyUI 0.3.99" in seen.ports.found
    assert "Leave --port out" in seen.ports.advice


def test_an_address_of_another_machine(doctor: Callable[..., Seen], write_config: Callable[..., Path]) -> None:
    seen = doctor("ports", config=write_config(API_URL="192.0.2.7"))
    assert seen.loopback.state == "broken"
    assert "192.0.2.7, which API_URL names, is no address of this machine" in seen.loopback.found
    assert "http://192.0.2.7:8188" in seen.loopback.advice
    assert seen.ports.found == "not looked at, because Network is broken"


def test_proxies_are_named_without_their_passwords(doctor: Callable[..., Seen]) -> None:
    seen = doctor("loopback", HTTPS_PROXY="http://me:hunter2@proxy:3128")
    assert seen.loopback.state == "ok"
    assert "https_proxy set, which Discomfort does not use" in seen.loopback.found
    assert "hunter2" not in seen.output


@NEEDS_LINUX
def test_a_machine_without_loopback(doctor: Callable[..., Seen]) -> None:
    wrapper = ["unshare", "--net"]
    if subprocess.run([*wrapper, "true"], capture_output=True).returncode:
        pytest.skip("a network of its own needs root")
    seen = doctor("ports", wrapper=wrapper)
    assert seen.loopback.state == "broken"
    assert "127.0.0.1 cannot be reached from here" in seen.loopback.found
    assert "ip link set lo up" in seen.loopback.advice.splitlines()


# ---- how checks are done --------------------------------------------------------------------------------------------


def findings(*checks: Check) -> dict[str, Any]:
    return {found.check.key: found for found in examine(Machine(None, "discomfort"), checks, lambda check: None)}


def test_nothing_that_a_check_does_ends_or_holds_the_doctor() -> None:
    def fail(machine: Machine) -> Result:
        raise ValueError("no idea")

    def skip(machine: Machine) -> Result:
        raise SkipCheck("not here")

    hangs = threading.Event()

    def hang(machine: Machine) -> Result:
        hangs.wait(30)
        return ok("late")

    began = time.monotonic()
    found = findings(
        Check("a", "Failing", fail),
        Check("b", "Hanging", hang, deadline=0.2),
        Check("c", "Skipped", skip),
        Check("d", "Broken", lambda machine: broken("in two")),
        Check("e", "On all", lambda machine: ok("fine"), ("a", "b", "c", "d")),
        Check("f", "On that", lambda machine: ok("fine"), ("e",)),
        Check("g", "On what is skipped for a reason", lambda machine: ok("fine"), ("c",)),
        Check("h", "On nothing", lambda machine: ok("fine")),
    )
    assert time.monotonic() - began < 5
    hangs.set()
    assert [one.result.state.value for one in found.values()] == [
        "broken", "broken", "skipped", "broken", "skipped", "skipped", "ok", "ok",
    ]  # fmt: skip
    assert found["a"].result.found.startswith("the check itself failed: ValueError: no idea (test_doctor.py:")
    assert found["b"].result.found == "no result within 0.2 s"
    assert found["c"].result.found == "not here"
    assert found["f"].result.found == "not looked at, because Failing, Hanging, Broken are broken"


def test_a_program_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    began = time.monotonic()
    script = f"sleep 1000 & echo $! > {tmp_path}/pid; trap '' TERM; sleep 1000"
    done = programs.run(["sh", "-c", script], 0.5)
    assert (done.returncode, done.describe()) == (None, "did not answer within 0.5 s")
    assert time.monotonic() - began < 5
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_checks_are_selected_with_what_they_rest_on() -> None:
    keys = [check.key for check in CHECKS]
    assert len(set(keys)) == len(keys)
    for index, check in enumerate(CHECKS):
        assert set(check.needs) <= set(keys[:index]), f"{check.key} comes before what it rests on"
    assert [check.key for check in select(CHECKS, ["nodes"], False)] == [
        "configuration", "comfyui", "server-python", "nodes",
    ]  # fmt: skip
    assert [check.key for check in CHECKS if check not in select(CHECKS, [], True)] == [
        "start", "convert", "use-ports", "stop",
    ]  # fmt: skip


def test_requirements_are_read_as_pip_reads_them() -> None:
    pyproject = tomllib.loads((CLONE / "pyproject.toml").read_text("utf-8"))
    for ours, theirs in (
        (requirements.of_package(), pyproject["project"]["dependencies"]),
        (requirements.of_embedded_server(), pyproject["project"]["optional-dependencies"]["embedded"]),
    ):
        parsed = [packaging.requirements.Requirement(text) for text in theirs]
        assert [(one.name, SpecifierSet(",".join(a + b for a, b in one.bounds))) for one in ours] == [
            (one.name, one.specifier) for one in parsed
        ]
    assert pyproject["tool"]["comfy"]["requires-comfyui"] == f">={OLDEST_COMFYUI}"
    assert pyproject["project"]["requires-python"] == ">=" + ".".join(map(str, OLDEST_PYTHON))
    assert requirements.parse("  # a comment") is None
    assert requirements.parse("--index-url x") is None
    assert requirements.parse("tomli; python_version < '3.11'") is None
    for text, versions in {
        "a>=1.25": ["1.24", "1.25", "1.25.0", "2"],
        "a==1.27.10": ["1.27.10", "1.27.1"],
        "a~=2.0": ["1.9", "2.0", "2.11", "3.0"],
        "a>=1,<2": ["0.9", "1.0+cpu", "2.0"],
        "a==2.*": ["2.5", "3"],
        "a!=1.5": ["1.5", "1.6"],
    }.items():
        requirement = requirements.parse(text)
        assert requirement is not None
        specifier = packaging.requirements.Requirement(text).specifier
        for version in versions:
            assert requirement.is_met_by(version) == specifier.contains(version), (text, version)


def test_requirements_of_an_installed_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """There is neither pyproject.toml nor requirements.txt beside it: its metadata has them."""
    info = tmp_path / "discomfort-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: discomfort\nVersion: 0.1.0\nRequires-Dist: click>=8.1\n"
        'Requires-Dist: torch>=2.1; extra == "embedded"\nRequires-Dist: matplotlib; extra == "demo"\n'
    )
    monkeypatch.setattr(requirements, "PACKAGE", tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(map(str, requirements.of_package())) == ["click>=8.1"]
    assert list(map(str, requirements.of_nodes())) == ["click>=8.1"]
    assert list(map(str, requirements.of_embedded_server())) == ["torch>=2.1"]


# ---- for people -----------------------------------------------------------------------------------------------------


def on_terminal(words: Sequence[str], columns: int, **variables: str | Path) -> str:
    """What a command prints on a terminal of so many columns."""
    import pty  # not on Windows

    master, slave = pty.openpty()
    values = environment(COLUMNS=str(columns), TERM="xterm", **variables)
    with contextlib.closing(os.fdopen(master, "rb", buffering=0)) as screen:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, env=values)
        os.close(slave)
        output = b""
        with contextlib.suppress(OSError):  # Linux says so that nobody has the other side any more
            while select_readable(screen) and (part := screen.read(65536)):
                output += part
        process.wait(timeout=10)
    return output.decode()


def select_readable(file: Any) -> bool:
    return bool(select_module.select([file], [], [], 60)[0])


def test_on_a_terminal_and_in_a_pipe() -> None:
    words = [sys.executable, "-m", "discomfort", "doctor", "--only", "environment", "--only", "comfyui"]
    lost = Path("/nowhere/a folder that is not there")
    shown = on_terminal(words, 80, COMFYUI_PATH=lost)
    assert "\x1b[31m\x1b[1mbroken" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", re.sub(r"[^\n]*\r\x1b\[K", "", shown)).replace("\r\n", "\n")
    assert max(map(len, plain.splitlines())) <= 80
    assert "             export COMFYUI_PATH=embedded\n" in plain
    assert "\x1b" not in on_terminal(words, 80, COMFYUI_PATH=lost, NO_COLOR="1")
    piped = subprocess.run(words, env=environment(COMFYUI_PATH=lost), capture_output=True, text=True, timeout=60)
    assert (piped.returncode, piped.stderr) == (4, "")
    lines = piped.stdout.splitlines()
    assert lines[0] == f"Discomfort {discomfort.__version__} in {CLONE}"
    assert any(line.startswith(f"warning  Environment         COMFYUI_PATH={lost} (no such folder)") for line in lines)
    assert "             unset COMFYUI_PATH" in lines
    assert f"broken   ComfyUI             No ComfyUI at {lost}: the folder does not exist." in piped.stdout
    assert "             export COMFYUI_PATH=/path/to/ComfyUI" in lines
    assert lines[-1] == "1 thing is broken, and 1 warning. What to do is below each."


def test_help_says_what_it_does_and_names_the_checks() -> None:
    done = subprocess.run([sys.executable, str(CLONE), "doctor", "--help"], capture_output=True, text=True, timeout=60)
    text = " ".join(done.stdout.split())
    assert "Look at this machine: what is there, what is missing, what to do." in text
    assert "--part" not in text
    assert all(check.key in text.replace("- ", "-") for check in CHECKS)


# ---- the real start -------------------------------------------------------------------------------------------------


def test_a_server_that_does_not_start(
    doctor: Callable[..., Seen], fake_tree: Any, write_config: Callable[..., Path], no_leaks: None
) -> None:
    fake_tree.behave(start="exit")
    (fake_tree.path / "comfyui_version.py").write_text('__version__ = "0.3.70"\n')
    seen = doctor("stop", "use-ports", config=write_config(COMFYUI_PATH=str(fake_tree.path), DEVICE="cpu"))
    assert seen.start.state == "broken"
    assert "The ComfyUI server ended with exit status 1 before it was ready" in seen.start.found
    assert "ImportError: No module named 'frobnicate'" in seen.start.found
    assert "The server's Python lacks frobnicate" in seen.start.advice
    assert f"{sys.executable} -m pip install ..." in seen.start.advice.splitlines()
    assert "--disable-all-custom-nodes" in seen.start.advice
    assert "docs/troubleshooting.md" in seen.start.advice
    for key in ("use-ports", "stop"):
        assert seen.checks[key].found == "not looked at, because Start is broken"


@NEEDS_LINUX
def test_ctrl_c_leaves_nothing(
    tmp_path: Path, embedded_config: Path, no_leaks: None, nested: SimpleNamespace, wait_for: Callable[..., Any]
) -> None:
    before = set(nested.folders())
    program = tmp_path / "browser"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/began\nexec sleep 1000\n")
    program.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, str(CLONE), "doctor", "--only", "browser", "--config", str(embedded_config)],
        env=environment(DISCOMFORT_BROWSER=program), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for((tmp_path / "began").exists, 60, "the start of the browser")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    gone = lambda: not nested.processes() and set(nested.folders()) <= before  # noqa: E731
    wait_for(gone, 10, "the end of what the doctor started")


def assert_healthy(seen: Seen) -> None:
    states = seen.states()
    assert seen.status == 0
    assert {key: state for key, state in states.items() if key not in OF_THE_MACHINE and state != "ok"} == {}
    assert {states[key] for key in OF_THE_MACHINE} <= {"ok", "warning"}
    assert list(states) == [check.key for check in CHECKS]
    assert re.match(r"\d+\.\d s: .* at http://127\.0\.0\.1:\d+, chosen because", seen.start.found)
    assert re.match(r"\d+\.\d s: test_server.json was converted and run", seen.convert.found)
    assert re.match(r"\d+\.\d s: 1 MB went into the server and came back", seen.use_ports.found)
    assert re.match(r"\d+\.\d s: the server ended", seen.stop.found)
    assert all(seen.versions[name] for name in ("discomfort", "python", "torch", "aiohttp", "browser", "comfyui"))


def test_a_healthy_machine(doctor: Callable[..., Seen], write_config: Callable[..., Path], no_leaks: None) -> None:
    seen = doctor(config=write_config(COMFYUI_PATH="embedded", DEVICE="cpu"))
    assert_healthy(seen)
    assert "embedded server" in seen.comfyui.found


@pytest.mark.real_comfyui
def test_a_healthy_machine_with_a_real_comfyui(
    doctor: Callable[..., Seen], real_comfyui: Path, real_config: Path, no_leaks: None
) -> None:
    seen = doctor(config=real_config)
    assert_healthy(seen)
    assert str(real_comfyui) in seen.comfyui.found
