"""The package as others get it: metadata, requirements, wheel, source archive, and a cheap import."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pathspec
import pytest
import wheels
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]

# Folders of the clone that are no part of the package, and what tools leave in a clone.
OUTSIDE = {"benchmarks", "build", "dist", "docs", "examples", "tests", "tools", "discomfort-results"}

# Dependencies that every ComfyUI brings (its requirements.txt): in pyproject.toml for use without ComfyUI,
# not in ours.
BROUGHT_BY_COMFYUI = {"aiohttp", "numpy", "pillow", "psutil", "tqdm"}

# What pip must never touch in a user's ComfyUI.
TORCH_FAMILY = {"torch", "torchvision", "torchaudio", "torchsde", "xformers", "triton", "transformers", "safetensors"}


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def requirements(lines: list[str]) -> dict[str, Requirement]:
    parsed = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {requirement.name.lower(): requirement for requirement in parsed}


def package_files(*suffixes: str) -> set[str]:
    """The package's files in the clone with these suffixes, as paths below its root."""
    found = set()
    for folder, folders, names in os.walk(ROOT):
        place = Path(folder).relative_to(ROOT)
        folders[:] = [name for name in folders if not name.startswith((".", "__")) and not name.endswith(".egg-info")]
        if not place.parts:
            folders[:] = [name for name in folders if name not in OUTSIDE]
        found |= {(place / name).as_posix() for name in names if name.endswith(suffixes)}
    return found


# Metadata
# -----------------------------------------------------------------------------------------------------------


def test_requirements_are_what_comfyui_lacks_and_the_package_adds_only_what_comfyui_brings(
    pyproject: dict[str, Any],
) -> None:
    ours = requirements((ROOT / "requirements.txt").read_text("utf-8").splitlines())
    all_of_them = requirements(pyproject["project"]["dependencies"])
    assert {name: str(all_of_them[name]) for name in ours} == {name: str(ours[name]) for name in ours}
    assert set(all_of_them) - set(ours) == BROUGHT_BY_COMFYUI


def test_nothing_a_user_installs_can_replace_their_torch_or_pin_anything(pyproject: dict[str, Any]) -> None:
    everything = requirements((ROOT / "requirements.txt").read_text("utf-8").splitlines())
    everything |= requirements(pyproject["project"]["dependencies"])
    assert not TORCH_FAMILY & set(everything)
    for requirement in everything.values():
        assert {clause.operator for clause in requirement.specifier} == {">="}, requirement


def test_developers_get_one_torch() -> None:
    lines = (ROOT / "constraints-dev.txt").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line.startswith("torch==")]
    assert [str(pin.specifier) for pin in pins] == ["==2.13.0"]
    assert pins[0].marker is not None
    assert pins[0].marker.evaluate({"sys_platform": "linux", "platform_machine": "x86_64"})


def test_the_registry_finds_what_it_asks_for(pyproject: dict[str, Any]) -> None:
    project, comfy = pyproject["project"], pyproject["tool"]["comfy"]
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]{0,98}", project["name"])
    assert "comfyui" not in project["name"].lower()
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert project["urls"]["Repository"].startswith("https://")
    assert "Operating System :: OS Independent" in project["classifiers"]
    assert comfy["PublisherId"]
    assert comfy["DisplayName"]
    assert Requirement(f"comfyui{comfy['requires-comfyui']}").specifier.contains(Version("0.3.64"))
    assert (ROOT / "LICENSE").read_text("utf-8").startswith("MIT License")


def test_the_changelog_knows_the_version(pyproject: dict[str, Any]) -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(rf"^## \[{re.escape(pyproject['project']['version'])}\] - ", changelog, re.MULTILINE)


def test_the_registrys_archive_leaves_out_only_what_exists_or_may_exist_for_developers() -> None:
    lines = (ROOT / ".comfyignore").read_text("utf-8").splitlines()
    left_out = {line.strip("/") for line in lines if line and not line.startswith("#")}
    assert {"tests", "tools", "benchmarks", "dev"} <= left_out
    modules = {path.partition("/")[0] for path in package_files(".py", ".json")}
    assert not left_out & modules
    assert not left_out & {
        "web",
        "locales",
        "example_workflows",
        "examples",
        "requirements.txt",
        "pyproject.toml",
        "README.md",
        "LICENSE",
    }


def test_every_package_in_the_clone_is_listed(pyproject: dict[str, Any]) -> None:
    inits = [path for path in package_files("__init__.py") if Path(path).name == "__init__.py"]
    folders = {".".join(("discomfort", *Path(path).parent.parts)) for path in inits}
    assert set(pyproject["tool"]["setuptools"]["packages"]) == folders


# Archives
# -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the clone to build in, in a folder of another name."""
    return wheels.copy_clone(tmp_path_factory.mktemp("source") / "some clone")


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.build_wheel(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.build_sdist(source, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel in it."""
    return wheels.make_environment(tmp_path_factory.mktemp("installed") / "environment", wheel)


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert all(name.startswith("discomfort/") for name in names)
    held = {name.removeprefix("discomfort/") for name in names}
    expected = package_files(".py", "py.typed") | {path for path in package_files(".json") if "/" not in path}
    data = ("web/", "embedded/", "locales/", "example_workflows/")
    expected |= {path for path in package_files("") if path.startswith(data)} | example_files()
    assert held == expected
    # Examples are files to copy and run. As a package their pictures.py could be imported by its package's name.
    assert "examples/__init__.py" not in held
    assert {"examples/refine.py", "examples/workflows/refine.json"} <= held
    assert [name for name in held if name.startswith("examples/photos/")]


def example_files() -> set[str]:
    folder = ROOT / "examples"
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {path.relative_to(ROOT).as_posix() for path in found if "discomfort-results" not in path.parts}


def test_the_source_archive_holds_the_package_the_tests_and_the_tools(sdist: Path) -> None:
    with tarfile.open(sdist) as file:
        modes = {member.name.partition("/")[2]: member.mode for member in file.getmembers() if member.isfile()}
    expected = package_files(".py", ".json", "py.typed") | example_files()
    expected |= {"LICENSE", "THIRD_PARTY.md", "SECURITY.md", "dev", "tools/dev.py", "tests/test_dev.py"}
    assert expected <= set(modes)
    assert not [name for name in modes if "__pycache__" in name or "discomfort-results" in name]
    assert modes["dev"] & 0o100


def test_the_source_archive_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as file:
        file.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (folder,) = tmp_path.iterdir()
    again = wheels.build_wheel(folder, tmp_path)
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())
        assert not [name for name in first.namelist() if first.read(name) != second.read(name)]


def test_the_metadata_is_what_an_index_takes(source: Path, wheel: Path, sdist: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        of_wheel = Metadata.from_email(archive.read(name), validate=True)
    with tarfile.open(sdist) as file:
        (member,) = [one for one in file.getmembers() if one.name.count("/") == 1 and one.name.endswith("/PKG-INFO")]
        read = file.extractfile(member)
        assert read is not None
        of_sdist = Metadata.from_email(read.read(), validate=True)
    for metadata in (of_wheel, of_sdist):
        assert (metadata.name, str(metadata.version)) == ("discomfort", VERSION)
        assert metadata.license_expression == "MIT"
        assert metadata.license_files == ["LICENSE"]
        assert str(metadata.requires_python) == ">=3.10"
        assert metadata.description_content_type == "text/markdown"
        assert metadata.description == (source / "README.md").read_text("utf-8")
        assert set(metadata.project_urls or {}) == {"Homepage", "Documentation", "Repository", "Issues", "Changelog"}
        assert {"embedded", "demo", "all", "docs", "dev"} == set(metadata.provides_extra or [])


def test_the_readme_of_an_index_has_absolute_links_to_files_that_exist() -> None:
    spec = importlib.util.spec_from_file_location("absolute_readme", ROOT / "tools" / "absolute_readme.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    text = tool.absolute((ROOT / "README.md").read_text("utf-8"), "0.1.0")
    bases = tuple(base.format(version="0.1.0") for base in (tool.PAGES, tool.FILES))
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", prose)
    assert len(targets) > 10
    assert not [target for target in targets if not target.startswith(("https://", "#"))]
    for target in targets:
        for base in bases:
            if target.startswith(base):
                assert (ROOT / target.removeprefix(base).partition("#")[0]).exists(), target
    code = "x = a[0](b)"
    assert tool.absolute(f"```python\n{code}\n```\n", "0.1.0") == f"```python\n{code}\n```\n"


_LOOK = """
import importlib.resources, json, sys
import discomfort
from discomfort.cli import demo
root = importlib.resources.files("discomfort")
files = json.loads(sys.argv[1])
empty = [name for name in files if not root.joinpath(name).read_bytes() and name != "py.typed"]
names = [one.name for one in demo.examples().values()]
print(json.dumps({"file": discomfort.__file__, "empty": empty, "examples": names}))
"""


def run_installed(python: Path, home: Path, *words: str) -> str:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COMFYUI"))}
    environ |= {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
    }
    run = subprocess.run([str(python), *words], cwd=home, env=environ, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_the_installed_package_reads_all_of_its_files(installed: Path, wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = [name.removeprefix("discomfort/") for name in archive.namelist() if ".dist-info/" not in name]
    data = [name for name in held if not name.endswith(".py")]
    assert {"py.typed", "pass_by_rules.json", "comfy_serverless.json", "workflow_context.json"} <= set(data)
    seen = json.loads(run_installed(installed, tmp_path, "-c", _LOOK, json.dumps(data)))
    assert Path(seen["file"]).is_relative_to(installed.parent.parent)
    assert seen["empty"] == []
    assert "refine" in seen["examples"]


def test_the_installed_command_is_there(installed: Path, tmp_path: Path) -> None:
    command = installed.with_name("discomfort.exe" if os.name == "nt" else "discomfort")
    run = subprocess.run([command, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout == f"discomfort, version {VERSION}\n"
    listed = json.loads(run_installed(installed, tmp_path, "-m", "discomfort", "demo", "--list", "--json"))
    assert listed


_RUN = """
import asyncio, sys
from pathlib import Path
import discomfort
from discomfort import Discomfort

async def main():
    async with await Discomfort.create(sys.argv[1]) as d:
        result = await d.run([Path(discomfort.__file__).with_name("test_server.json")], iterations=2)
        print(result.record.iterations, discomfort.__file__)

asyncio.run(main())
"""


def test_the_embedded_server_runs_from_the_installed_wheel(
    installed: Path, embedded_config: Path, tmp_path: Path
) -> None:
    count, file = run_installed(installed, tmp_path, "-c", _RUN, str(embedded_config)).split(maxsplit=1)
    assert count == "2"
    assert Path(file.strip()).is_relative_to(installed.parent.parent)


# The registry's archive
# -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """What the registry's archive holds, in a folder of any name, among ComfyUI's custom nodes."""
    folder = tmp_path / "custom_nodes" / "anything-else"
    for name in archive_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def archive_files() -> list[str]:
    """The files that git keeps (or would keep, once added), less those that .comfyignore names."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.skip("the clone has no git history, by which the registry's archive is made")
    ignored = pathspec.GitIgnoreSpec.from_lines((ROOT / ".comfyignore").read_text("utf-8").splitlines())
    return [
        name for name in run.stdout.split("\0") if name and not ignored.match_file(name) and (ROOT / name).is_file()
    ]


def test_the_registrys_archive_is_the_package_and_little_else() -> None:
    names = set(archive_files())
    assert {name for name in package_files(".py") if (ROOT / name).is_file()} <= names
    assert not [name for name in names if name.startswith(("docs/", "tests/", "tools/", "benchmarks/", "."))]
    assert {"web/docs/DiscomfortPort.md", "examples/refine.py", "requirements.txt", "pyproject.toml"} <= names
    assert sum((ROOT / name).stat().st_size for name in names) < 6_000_000


def test_the_nodes_load_from_the_registrys_archive_in_any_folder(unpacked: Path) -> None:
    code = (
        "import importlib.util, json, sys\n"
        "spec = importlib.util.spec_from_file_location(sys.argv[1], sys.argv[1] + '/__init__.py')\n"
        "module = sys.modules[sys.argv[1]] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "print(json.dumps([sorted(module.NODE_CLASS_MAPPINGS), 'discomfort' in sys.modules]))\n"
    )
    names, is_loaded_twice = json.loads(run_python("-I", "-c", code, str(unpacked), cwd=unpacked.parent))
    assert "DiscomfortPort" in names
    assert not is_loaded_twice


@pytest.mark.real_comfyui
def test_comfyui_serves_the_nodes_of_the_registrys_archive(real_comfyui: Path, unpacked: Path, wait_for: Any) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    base = unpacked.parent.parent
    python = next((path for path in (real_comfyui / "venv/bin/python",) if path.exists()), Path(sys.executable))
    command = [python, real_comfyui / "main.py", "--cpu", "--base-directory", base, "--port", str(port)]
    log = base / "comfyui.log"
    with log.open("w") as output:
        server = subprocess.Popen(command, cwd=real_comfyui, stdout=output, stderr=subprocess.STDOUT)
    try:

        def nodes() -> dict[str, Any] | None:
            assert server.poll() is None, log.read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/object_info", timeout=30) as answer:
                    return dict(json.load(answer))
            except OSError:
                return None

        found = wait_for(nodes, timeout=200, what="ComfyUI's list of nodes")
        ours = {name: node for name, node in found.items() if "anything-else" in node["python_module"]}
        assert {"DiscomfortPort", "DiscomfortLoopExecutor"} <= set(ours), log.read_text()
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.mark.real_comfyui
def test_our_requirements_change_nothing_in_a_comfyui(real_comfyui: Path, tmp_path: Path) -> None:
    python = real_comfyui / "venv/bin/python"
    if not python.exists():
        pytest.skip(f"{real_comfyui} has no environment of its own in venv/")
    listing = "import importlib.metadata as m, json; print(json.dumps([d.metadata['Name'] for d in m.distributions()]))"
    there = {canonicalize_name(name) for name in json.loads(run_python_of(python, "-c", listing))}
    report = tmp_path / "report.json"
    words = [
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--quiet",
        "--report",
        str(report),
        "-r",
        str(ROOT / "requirements.txt"),
    ]
    run = subprocess.run([python, *words], capture_output=True, text=True, check=False)
    if run.returncode and re.search(
        r"connection|Could not find a version|timed out|resolution", run.stderr, re.IGNORECASE
    ):
        pytest.skip(f"no network to ask: {run.stderr.strip().splitlines()[-1]}")
    assert run.returncode == 0, run.stderr
    would = {canonicalize_name(one["metadata"]["name"]) for one in json.loads(report.read_text("utf-8"))["install"]}
    assert not would & there


def run_python_of(python: Path, *words: str) -> str:
    return subprocess.run([python, *words], capture_output=True, text=True, check=True).stdout


# The registry's rules
# -----------------------------------------------------------------------------------------------------------

# Which files of the package may start processes, and what for.
STARTS_PROCESSES = {
    "comfy_serverless.py": "the ComfyUI server, its guard, and Playwright's own installer where no browser is found",
    "warm_server.py": "the keeper of a warm server: this Python, with this package",
    "cli/doctor_checks/programs.py": "asks a Python or a browser, when `discomfort doctor` is called, for its version",
}


def package_trees() -> dict[str, ast.Module]:
    return {name: ast.parse((ROOT / name).read_text("utf-8"), name) for name in sorted(package_files(".py"))}


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return package_trees()


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def test_no_text_is_run_as_code(trees: dict[str, ast.Module]) -> None:
    found = []
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and called(node) in {
                "eval",
                "exec",
                "compile",
                "builtins.eval",
                "builtins.exec",
            }:
                found.append(f"{name}:{node.lineno} {called(node)}")
    assert found == []


def test_only_the_named_files_start_processes_and_none_starts_a_shell(trees: dict[str, ast.Module]) -> None:
    starting = re.compile(
        r"^(subprocess\.(run|Popen|call|check_call|check_output|getoutput|getstatusoutput)"
        r"|asyncio\.create_subprocess_(exec|shell)|os\.(system|popen|exec\w+|spawn\w+|posix_spawnp?|startfile)|pty\.spawn)$"
    )
    found: dict[str, set[str]] = {}
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and starting.match(called(node)):
                found.setdefault(name, set()).add(called(node))
                shell = [word for word in node.keywords if word.arg == "shell"]
                assert not shell, f"{name}:{node.lineno}"
    assert set(found) == set(STARTS_PROCESSES), found
    kinds = set().union(*found.values())
    assert kinds <= {"subprocess.run", "subprocess.Popen", "asyncio.create_subprocess_exec"}


def test_nothing_is_installed_by_pip_at_run_time(trees: dict[str, ast.Module]) -> None:
    # Words for people ("pip install ...") are fine everywhere; where processes are started they are no arguments.
    installers = {"pip", "uv", "ensurepip", "conda"}
    found = []
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if name in STARTS_PROCESSES and isinstance(node, ast.Constant) and node.value in installers:
                found.append(f"{name}:{node.lineno}")
            if isinstance(node, ast.Import) and installers & {one.name.partition(".")[0] for one in node.names}:
                found.append(f"{name}:{node.lineno}")
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in installers:
                found.append(f"{name}:{node.lineno}")
    assert found == []


def test_nothing_connects_when_the_package_and_its_nodes_are_imported(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "events = []\n"
        "watched = ('socket.', 'subprocess.', 'os.system', 'os.exec', 'os.posix_spawn')\n"
        "sys.addaudithook(lambda event, _: events.append(event) if event.startswith(watched) else None)\n"
        "import discomfort\n"
        "for name in discomfort.__all__: getattr(discomfort, name)\n"
        "print([event for event in events if event not in ('socket.__new__', 'socket.gethostname')])\n"
    )
    assert run_python("-c", code, cwd=tmp_path).strip() == "[]"


# Third parties
# -----------------------------------------------------------------------------------------------------------

# What may come in without a question: permissive, or the MPL's, which asks for changes of its own files alone.
ACCEPTED = {
    *("MIT", "MIT-CMU", "0BSD", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "BSL-1.0", "Zlib", "CC0-1.0", "ISC"),
    *("PSF-2.0", "Python-2.0", "Unlicense", "MPL-2.0", "LLVM-exception", "MIT License", "BSD License"),
    *("Apache Software License", "Python Software Foundation License", "Mozilla Public License 2.0 (MPL 2.0)"),
}
# The editor is a program of its own that is installed beside the package; see THIRD_PARTY.md.
NOT_STATED = {"comfyui-frontend-package"}


def licence(name: str) -> tuple[str, str]:
    """(licence, version) as the metadata of an installed package states them."""
    metadata = importlib.metadata.metadata(name)
    stated = metadata.get("License-Expression") or metadata.get("License") or ""
    if not stated or "\n" in stated or (len(stated) > 60 and "License-Expression" not in metadata):
        prefix = "License :: "
        kinds = [one for one in metadata.get_all("Classifier") or [] if one.startswith(prefix)]
        stated = ", ".join(one.rpartition(" :: ")[2] for one in kinds if not one.endswith("DFSG approved"))
    return stated or "not stated", metadata["Version"].partition("+")[0]


def test_third_party_names_every_dependency_and_its_licence(pyproject: dict[str, Any]) -> None:
    project = pyproject["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    names = {canonicalize_name(Requirement(one).name) for one in wanted} - {"discomfort"}
    rows: dict[str, list[str]] = {}
    for line in (ROOT / "THIRD_PARTY.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and cells[0] not in ("package", "---") and not cells[0].startswith("---"):
            assert canonicalize_name(cells[0]) not in rows, f"{cells[0]} is there twice"
            assert all(cells)
            rows[canonicalize_name(cells[0])] = cells
    assert set(rows) == names
    for name, cells in rows.items():
        try:
            stated, version = licence(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another Python or system
        if version == cells[3]:
            assert cells[2] == stated, name
        if name not in NOT_STATED:
            parts = [stated] if stated in ACCEPTED else re.split(r" AND | OR | WITH |, ", stated)
            assert {part if part in ACCEPTED else part.strip("() ") for part in parts} <= ACCEPTED, f"{name}: {stated}"


# What shows the project
# -----------------------------------------------------------------------------------------------------------


def test_icon_and_banner_are_what_the_registry_takes(pyproject: dict[str, Any]) -> None:
    from PIL import Image

    raw = "https://raw.githubusercontent.com/fidecastro/comfyui-discomfort/main/"
    for key in ("Icon", "Banner"):
        address = pyproject["tool"]["comfy"][key]
        assert address.startswith(raw)
        with Image.open(ROOT / address.removeprefix(raw)) as picture:
            width, height = picture.size
        if key == "Icon":
            assert max(width, height) <= 400
        else:
            assert width * 9 == height * 21


def test_the_files_for_github_can_be_read(pyproject: dict[str, Any]) -> None:
    import yaml

    folder = ROOT / ".github"
    files = {path.name: yaml.safe_load(path.read_text("utf-8")) for path in folder.rglob("*.yml")}
    assert set(files) == {"test.yml", "docs.yml", "publish.yml", "bug.yml"}
    for name in ("test.yml", "docs.yml", "publish.yml"):
        started_by = files[name].get(True)  # YAML takes the key `on` for true
        assert started_by, f"nothing starts {name}"
        assert files[name]["permissions"] == {"contents": "read"}
        for job in files[name]["jobs"].values():
            for step in job["steps"]:
                assert ("uses" in step) != ("run" in step)
                assert re.fullmatch(r"[\w.-]+/[\w.-]+@[\w./-]+", step.get("uses", "some/thing@v1"))
    versions = files["test.yml"]["jobs"]["test"]["strategy"]["matrix"]["python"]
    supported = [one.rpartition(" ")[2] for one in pyproject["project"]["classifiers"] if " :: 3." in one]
    assert [versions[0], versions[-1]] == [supported[0], supported[-1]]
    assert [field["id"] for field in files["bug.yml"]["body"]] == ["what", "how", "doctor", "log"]
    assert "discomfort doctor --json" in str(files["bug.yml"])


# Import
# -----------------------------------------------------------------------------------------------------------


def run_python(*words: str, cwd: Path) -> str:
    run = subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_editable_package_is_the_clone_whatever_its_folder_is_called(tmp_path: Path) -> None:
    out = run_python("-c", "import discomfort; print(discomfort.__file__)", cwd=tmp_path)
    assert Path(out.strip()) == ROOT / "__init__.py"


def test_importing_in_the_clones_own_folder_gives_the_package_too() -> None:
    # Python looks into the current folder first, and there is the front door's module, discomfort.py.
    out = run_python("-c", "import discomfort; print(discomfort.__path__[0])", cwd=ROOT)
    assert Path(out.strip()) == ROOT


def test_import_loads_neither_torch_nor_playwright(tmp_path: Path) -> None:
    code = "import sys, json, discomfort; print(json.dumps(list(sys.modules)))"
    loaded = set(json.loads(run_python("-c", code, cwd=tmp_path)))
    assert not loaded & {"torch", "playwright", "aiohttp", "numpy", "PIL", "networkx", "matplotlib", "websockets"}


def test_import_takes_less_than_50_ms(tmp_path: Path) -> None:
    code = "import time; started = time.perf_counter(); import discomfort; print(time.perf_counter() - started)"
    seconds = [float(run_python("-c", code, cwd=tmp_path)) for _ in range(6)][1:]  # the first may compile
    assert statistics.median(seconds) < 0.050


@pytest.mark.parametrize("where", ["clone", "elsewhere"])
def test_the_embedded_server_is_started_as_a_module_from_any_folder(where: str, tmp_path: Path) -> None:
    # In the clone, `python -m` finds discomfort.py first: it has to give way to the package.
    argv = [sys.executable, "-m", "discomfort.embedded", "--help"]
    folder = ROOT if where == "clone" else tmp_path
    assert "--port" in subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=True).stdout
