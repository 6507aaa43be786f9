"""The versions of the API (``comfy_api.internal.api_registry``)."""

from __future__ import annotations

from typing import Any, NamedTuple

from .singleton import ProxiedSingleton


class ComfyAPIBase(ProxiedSingleton):
    """Base of the classes ``ComfyAPI``."""

    VERSION = ""
    STABLE = False


class ComfyAPIWithVersion(NamedTuple):
    """A version, and its class."""

    version: str
    api_class: type[ComfyAPIBase]


_versions: list[ComfyAPIWithVersion] = []


def parse_version(version_str: str) -> Any:
    """A version to compare; "latest" is above all others.

    Raises:
        packaging.version.InvalidVersion: it is none.
    """
    from packaging import version

    return version.parse("9999999.9999999.9999999" if version_str == "latest" else version_str)


def register_versions(versions: list[ComfyAPIWithVersion]) -> None:
    """Set the versions there are."""
    _versions[:] = versions


def get_all_versions() -> list[ComfyAPIWithVersion]:
    """The versions there are, the oldest first."""
    # Not when they are registered: that is while the server starts, and this takes an import.
    return sorted(_versions, key=lambda entry: parse_version(entry.version))
