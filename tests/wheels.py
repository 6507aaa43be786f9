"""The package as others get it, without a network: archives of a copy of the clone, environments to install into."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What tools leave in a clone, and what is too large to copy.
LEFT_BEHIND = (".*cache", ".dev", ".git", ".venv", "__pycache__", "*.egg-info", "build", "dist", "discomfort-results")


def copy_clone(folder: Path) -> Path:
    """A copy to build in, since setuptools leaves build/ and egg-info behind. Returns its folder."""
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
    return folder


def build_wheel(source: Path, folder: Path) -> Path:
    """The wheel as pip builds it."""
    pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(folder), str(source))
    (wheel,) = folder.glob("*.whl")
    return wheel


def build_sdist(source: Path, folder: Path) -> Path:
    """The source archive as `python -m build` makes it."""
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, folder], cwd=source, capture_output=True, check=True)
    (archive,) = folder.glob("*.tar.gz")
    return archive


def make_environment(folder: Path, wheel: Path, with_developers: bool = True) -> Path:
    """A virtual environment with the wheel in it; returns its Python.

    What the package depends on is found in the developers' environment, whose folder stands behind its own, unless
    *with_developers* is false. The clone is not found there: a folder that is added by a .pth file does not have its
    own .pth files read, and the editable package is one of those.
    """
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    if not with_developers:
        return python
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    place = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    Path(place, "developers.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


def pip(*words: str) -> None:
    """Run this environment's pip, without what variables or files say."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    command = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", *words]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert run.returncode == 0, run.stdout + run.stderr
