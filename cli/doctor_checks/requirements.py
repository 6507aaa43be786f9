"""What must be installed, and in which version: read from the package's own metadata and from requirements files.

Without the library ``packaging``, which may be missing; it understands what those files have: names with bounds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .checkup import PACKAGE

#: what is imported of a distribution, where that is not its name, or not all that is needed
_MODULES = {
    "pillow": "PIL",
    "pyyaml": "yaml",
    "playwright": "playwright.async_api",
    "websockets": "websockets.asyncio.client",
}


class Requirement(NamedTuple):
    """A distribution, and the versions that will do."""

    name: str
    #: (operator, version), all of which must hold
    bounds: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.name + ",".join(operator + version for operator, version in self.bounds)

    @property
    def module(self) -> str:
        return _MODULES.get(self.name.lower(), self.name.replace("-", "_"))

    def is_met_by(self, version: str) -> bool:
        return all(_holds(version, operator, bound) for operator, bound in self.bounds)


def parse(line: str) -> Requirement | None:
    """A line of a requirements file; None for comments, options, addresses, and what other systems need."""
    text, _, marker = line.partition("#")[0].partition(";")
    found = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^]]*\])?\s*\(?([^()]*)\)?", text.strip())
    if found is None or marker.strip():
        return None
    bounds = re.findall(r"(===|==|>=|<=|~=|!=|<|>)\s*([\w.*+!-]+)", found[2])
    return Requirement(found[1], tuple(bounds))


def parse_all(lines: Iterable[str]) -> list[Requirement]:
    return [requirement for line in lines if (requirement := parse(line)) is not None]


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version: (2, 13, 0) of ``2.13.0+cpu``, (1, 0) of ``1.0rc1``."""
    numbers = re.match(r"\D*(\d+(?:\.\d+)*)", version.partition("+")[0])
    return tuple(map(int, numbers[1].split("."))) if numbers else ()


def is_older(version: str, bound: str) -> bool:
    return _compare(version, bound) < 0


def _compare(a: str, b: str) -> int:
    left, right = release(a), release(b)
    length = max(len(left), len(right))
    padded = [numbers + (0,) * (length - len(numbers)) for numbers in (left, right)]
    return (padded[0] > padded[1]) - (padded[0] < padded[1])


def _holds(version: str, operator: str, bound: str) -> bool:
    order = _compare(version, bound)
    if operator in ("==", "==="):
        wanted = release(bound)
        return release(version)[: len(wanted)] == wanted if bound.endswith("*") else order == 0
    if operator == "~=":
        return order >= 0 and release(version)[: len(release(bound)) - 1] == release(bound)[:-1]
    return {">=": order >= 0, "<=": order <= 0, ">": order > 0, "<": order < 0, "!=": order != 0}[operator]


def compare(wanted: Iterable[Requirement], versions: Mapping[str, str | None]) -> tuple[list[Requirement], list[str]]:
    """Return (what is missing, sentences about what is there in another version)."""
    missing, others = [], []
    for requirement in wanted:
        version = versions.get(requirement.name)
        if version is None:
            missing.append(requirement)
        elif not requirement.is_met_by(version):
            others.append(f"{requirement.name} is {version}, needed is {str(requirement)[len(requirement.name) :]}")
    return missing, others


# ---- our own ----


def of_package() -> list[Requirement]:
    """What Discomfort needs in the Python that it runs in."""
    text = _pyproject()
    if text:
        return parse_all(_texts_in(text, "dependencies"))
    return parse_all(_metadata())


def of_embedded_server() -> list[Requirement]:
    """What the embedded server needs beyond that."""
    text = _pyproject()
    if text:
        return parse_all(_texts_in(text, "embedded"))
    lines = [line.partition(";") for line in _metadata()]
    return parse_all(line for line, _, marker in lines if re.search(r"extra\s*==\s*['\"]embedded['\"]", marker))


def of_nodes() -> list[Requirement]:
    """What Discomfort needs beyond ComfyUI's own requirements in the Python of a ComfyUI."""
    file = PACKAGE / "requirements.txt"
    if file.is_file():
        return parse_all(file.read_text(encoding="utf-8").splitlines())
    return of_package()  # installed as a package, which leaves that file behind


def _pyproject() -> str:
    """The text of pyproject.toml where the package runs from its clone, else ""."""
    file = PACKAGE / "pyproject.toml"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _texts_in(toml: str, name: str) -> list[str]:
    """The texts of a list in our own pyproject.toml; Python 3.10 has no reader for such files."""
    found = re.search(rf"^{name} = \[(.*?)\]\s*$", toml, re.MULTILINE | re.DOTALL)
    return re.findall(r'"([^"]*)"', re.sub(r"(?m)#.*$", "", found[1])) if found else []


def _metadata() -> list[str]:
    from importlib import metadata

    try:
        return metadata.requires("discomfort") or []
    except metadata.PackageNotFoundError:
        return []
