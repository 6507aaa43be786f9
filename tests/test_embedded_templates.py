"""The workflow templates of the installed package, in all the ways that package has been laid out."""

from __future__ import annotations

import importlib
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from discomfort.embedded import frontend

NAME = "comfyui_workflow_templates"
SPREAD = """
from types import SimpleNamespace
from pathlib import Path

def iter_templates():
    files = [SimpleNamespace(filename=name) for name in ("index.json", "one.json", "one-1.webp")]
    yield SimpleNamespace(template_id="one", assets=files)

def get_asset_path(template_id, filename):
    path = Path(__file__).parent / "files" / filename
    if not path.exists():
        raise FileNotFoundError(filename)
    return str(path)
"""


@pytest_asyncio.fixture
async def client(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[TestClient[Any, Any]]:
    """A server with the package laid out as the test says."""
    if request.param is None:
        find: Callable[..., Any] = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == NAME else find(name))
    else:
        folder, code = request.param
        (tmp_path / NAME / folder).mkdir(parents=True)
        (tmp_path / NAME / "__init__.py").write_text(code)
        for name in ("index.json", "one.json", "secret.txt"):
            (tmp_path / NAME / folder / name).write_text(f'["{name}"]')
        monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    app = web.Application()
    frontend.add_statics(app, None)
    async with TestClient(TestServer(app)) as connected:
        yield connected
    sys.modules.pop(NAME, None)


async def get(client: TestClient[Any, Any], path: str) -> tuple[int, str]:
    """Status and text of an answer."""
    async with client.get(path) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("client", [("templates", ""), ("files", SPREAD)], indirect=True, ids=["one folder", "spread"])
async def test_templates_of_the_package_are_served(client: TestClient[Any, Any]) -> None:
    """Before 0.3 it had one folder of all files, since then it says where each one is."""
    assert await get(client, "/templates/index.json") == (200, '["index.json"]')
    assert await get(client, "/templates/one.json") == (200, '["one.json"]')
    for path in ("one-1.webp", "nosuch.json", "..%2F__init__.py", ""):
        assert (await get(client, f"/templates/{path}"))[0] in (403, 404), path


@pytest.mark.parametrize("client", [("files", SPREAD)], indirect=True)
async def test_only_files_of_templates_are_served(client: TestClient[Any, Any]) -> None:
    """Not what else lies beside them."""
    assert (await get(client, "/templates/secret.txt"))[0] == 404


@pytest.mark.parametrize("client", [None], indirect=True)
async def test_without_the_package_there_are_no_templates(client: TestClient[Any, Any]) -> None:
    """The list is empty, so that the editor has something to read."""
    assert await get(client, "/templates/index.json") == (200, "[]")
    assert (await get(client, "/templates/one.json"))[0] == 404
