"""The Python that runs this, and what is installed in it."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

from . import requirements
from .checkup import Machine, Result, broken, command, ok, one_line, warning
from .programs import ask

#: as in pyproject.toml
OLDEST_PYTHON = (3, 10)


def look_at_python(machine: Machine) -> Result:
    version = platform.python_version()
    machine.versions["python"] = version
    found = f"{version} ({sys.executable})"
    if platform.python_implementation() != "CPython":
        return warning(f"{platform.python_implementation()} {found}", "Discomfort is tested with CPython.")
    if sys.version_info < OLDEST_PYTHON:
        return broken(found, "Discomfort needs Python 3.10 or newer. Install one, and Discomfort in it.")
    if sys.maxsize <= 2**32:
        return warning(f"{found}, 32 bit", "A program of 32 bit has at most 4 GB of memory. Use a Python of 64 bit.")
    return ok(found)


def look_at_packages(machine: Machine) -> Result:
    wanted = requirements.of_package()
    if not wanted:
        return broken(
            "what Discomfort needs is not written down: neither its pyproject.toml nor its metadata is there",
            "Install it again, from a clone:",
            command(sys.executable, "-m", "pip", "install", "--force-reinstall", "."),
        )
    versions = {requirement.name: _version(requirement.name) for requirement in wanted}
    machine.versions.update(versions)
    missing, others = requirements.compare(wanted, versions)
    there = [requirement for requirement in wanted if requirement not in missing]
    answer = ask([sys.executable], {"imports": [requirement.module for requirement in there]})
    damaged = [
        f"{requirement.name} {versions[requirement.name]} cannot be imported ({one_line(error, 200)})"
        for requirement in there
        if (error := answer.imports.get(requirement.module, f"the interpreter {answer.ended.describe()}"))
    ]
    absent = [f"missing: {', '.join(requirement.name for requirement in missing)}"] if missing else []
    problems = absent + others + damaged
    if not problems:
        return ok(f"all {len(wanted)} that Discomfort needs are there")
    names = {text.split(" ", 1)[0] for text in others + damaged}
    renewed = [str(requirement) for requirement in wanted if requirement in missing or requirement.name in names]
    options = ["--force-reinstall"] if damaged else []
    return broken(
        "; ".join(problems),
        "Install what is missing or wrong into this Python:",
        command(sys.executable, "-m", "pip", "install", *options, *renewed),
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
