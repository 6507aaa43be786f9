"""Packages and what they may take the place of, without a server; what ComfyUI does too: conformance/test_packs.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from discomfort.embedded import folder_paths, node_registry, packs, websocket_images
from discomfort.embedded.routes_packs import add_pack_statics

_NODE = """
class Mine:
    @classmethod
    def INPUT_TYPES(cls):
        return {}

NODE_CLASS_MAPPINGS = {"SaveImageWebsocket": Mine, "Core": Mine, "KSampler": Mine}
"""


@pytest.fixture
def classes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the server knows: a core node, and this project's own. One package is installed."""
    known: dict[str, Any] = {"Core": object, "DiscomfortPort": object}
    monkeypatch.setattr(node_registry, "NODE_CLASS_MAPPINGS", known)
    monkeypatch.setattr(node_registry, "LOADED_MODULE_DIRS", {})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "custom_nodes", ([str(tmp_path)], set()))
    (tmp_path / "a_package.py").write_text(_NODE)
    return known


async def test_the_package_comfyui_comes_with_can_be_replaced(classes: dict[str, Any]) -> None:
    """Core nodes cannot, nor those of ComfyUI that this server has not."""
    await packs.load_packages()
    assert classes["Core"] is object
    assert "KSampler" not in classes
    assert classes["SaveImageWebsocket"].__name__ == "Mine"


@pytest.mark.parametrize(("allowed", "names"), [([], set()), ([websocket_images.FILE_NAME], {"SaveImageWebsocket"})])
async def test_packages_are_left_out(
    classes: dict[str, Any], monkeypatch: pytest.MonkeyPatch, allowed: list[str], names: set[str]
) -> None:
    """Also the one ComfyUI comes with, unless it is allowed by its file's name."""
    monkeypatch.setattr(packs.args, "disable_all_custom_nodes", True)
    monkeypatch.setattr(packs.args, "whitelist_custom_nodes", allowed)
    await packs.load_packages()
    assert set(classes) == {"Core", "DiscomfortPort"} | names


async def test_browser_files_that_are_not_there_do_not_end_the_server(tmp_path: Path) -> None:
    """A package may have added any path to the table."""
    app = web.Application()
    add_pack_statics(app, {"gone": str(tmp_path / "gone"), "here": str(tmp_path)}, {})
    assert [resource.canonical for resource in app.router.resources()] == ["/extensions/here"]
