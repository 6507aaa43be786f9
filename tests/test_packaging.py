"""The package as others get it: metadata, requirements, wheel, source archive, and a cheap import."""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent

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
    """A copy of the clone to build in, since setuptools leaves build/ and egg-info behind."""
    folder = tmp_path_factory.mktemp("source") / "some clone"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "discomfort-results")
    shutil.copytree(ROOT, folder, ignore=ignored)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as pip builds it, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(folder), str(source))
    (wheel,) = folder.glob("*.whl")
    return wheel


def pip(*words: str) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    command = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", *words]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert all(name.startswith("discomfort/") for name in names)
    held = {name.removeprefix("discomfort/") for name in names}
    expected = package_files(".py", "py.typed") | {path for path in package_files(".json") if "/" not in path}
    data = ("web/", "embedded/", "locales/", "example_workflows/")
    expected |= {path for path in package_files("") if path.startswith(data)}
    assert held == expected


def test_the_installed_wheel_works_outside_of_the_clone(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    pip("install", "--no-deps", "--no-index", "--target", str(target), str(wheel))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import json, pathlib, discomfort, discomfort.embedded\n"
        "print(pathlib.Path(discomfort.__file__).parent)\n"
        "print(pathlib.Path(discomfort.embedded.__file__).parent)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, target], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert out.splitlines() == [str(target / "discomfort"), str(target / "discomfort" / "embedded")]


def test_the_source_archive_holds_the_package_the_tests_and_the_tools(source: Path, tmp_path: Path) -> None:
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=source, capture_output=True, check=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        modes = {member.name.partition("/")[2]: member.mode for member in file.getmembers() if member.isfile()}
    expected = package_files(".py", ".json", "py.typed") | {"LICENSE", "dev", "tools/dev.py", "tests/test_dev.py"}
    assert expected <= set(modes)
    assert modes["dev"] & 0o100


# Import -----------------------------------------------------------------------------------------------------
# --------


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
