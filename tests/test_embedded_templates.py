"""Workflow templates: this server's, and those of the installed package, in all the ways it has been laid out."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from discomfort.embedded import frontend, workflow_templates
from discomfort.embedded.workflow_templates import WorkflowTemplates

NAME = workflow_templates.PACKAGE
CATEGORIES = {
    "index.json": [{"title": "Getting Started", "templates": [{"name": "one"}]}, {"title": "Video", "templates": []}],
    "index.fr.json": [{"title": "Premiers pas", "templates": [{"name": "one"}]}],
}
SPREAD = """
from types import SimpleNamespace
from pathlib import Path

NAMES = ("index.json", "index.fr.json", "index_logo.json", "one.json", "one-1.webp")

def iter_templates():
    files = [SimpleNamespace(filename=name) for name in NAMES]
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
        for name in ("index_logo.json", "one.json", "secret.txt", *CATEGORIES):
            (tmp_path / NAME / folder / name).write_text(json.dumps(CATEGORIES.get(name, [name])))
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


LAID_OUT = pytest.mark.parametrize(
    "client", [("templates", ""), ("files", SPREAD)], indirect=True, ids=["one folder", "spread"]
)


@LAID_OUT
async def test_templates_of_the_package_are_served(client: TestClient[Any, Any]) -> None:
    """Before 0.3 it had one folder of all files, since then it says where each one is."""
    assert await get(client, "/templates/one.json") == (200, '["one.json"]')
    assert await get(client, "/templates/index_logo.json") == (200, '["index_logo.json"]')
    for path in ("one-1.webp", "nosuch.json", "..%2F__init__.py", ""):
        assert (await get(client, f"/templates/{path}"))[0] in (403, 404), path


@LAID_OUT
@pytest.mark.parametrize(
    ("language", "titles"),
    [
        pytest.param("", ["Getting Started", "Video"], id="English"),
        pytest.param(".fr", ["Getting Started", "Premiers pas"], id="a language of the package"),
        pytest.param(".xx", ["Getting Started", "Video"], id="a language it has not"),
    ],
)
async def test_templates_of_the_package_come_behind(
    client: TestClient[Any, Any], language: str, titles: list[str]
) -> None:
    """In the editor's language where the package has it; a category of the same title is one with ours."""
    categories = json.loads((await get(client, f"/templates/index{language}.json"))[1])
    assert [category["title"] for category in categories] == titles
    names = [template["name"] for template in categories[0]["templates"]]
    assert names[0] == "sunset"
    assert ("one" in names) == (language != ".fr")


@pytest.mark.parametrize("client", [("files", SPREAD)], indirect=True)
async def test_only_files_of_templates_are_served(client: TestClient[Any, Any]) -> None:
    """Not what else lies beside them."""
    assert (await get(client, "/templates/secret.txt"))[0] == 404


@pytest.mark.parametrize("client", [None], indirect=True)
async def test_without_the_package_there_are_this_servers_templates(client: TestClient[Any, Any]) -> None:
    """And the lists beside them that newer editors ask for."""
    for name in ("index.json", "index.fr.json", "sunset.json", "sunset-1.webp", "index_logo.json", "fuse_options.json"):
        async with client.get(f"/templates/{name}") as answer:
            assert answer.status == 200, name
    assert (await get(client, "/templates/one.json"))[0] == 404


def test_every_template_of_this_server_is_complete() -> None:
    """Each one listed has its workflow and its thumbnail, and nothing else lies there."""
    folder = Path(workflow_templates.__file__).with_name("templates")
    own = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    names = [template["name"] for category in own for template in category["templates"]]
    lists = {"index.json", "index_logo.json", "fuse_options.json"}
    files = {f"{name}{ending}" for name in names for ending in (".json", "-1.webp")}
    assert {file.name for file in folder.iterdir()} == lists | files
    for name in names:
        path = WorkflowTemplates().find(f"{name}.json")
        assert path is not None
        workflow = json.loads(path.read_text(encoding="utf-8"))
        # Older editors refuse null where newer ones leave something out.
        nulls = {key for node in workflow["nodes"] for slot in node["outputs"] for key in slot if slot[key] is None}
        assert not nulls | {key for key in workflow if workflow[key] is None}
