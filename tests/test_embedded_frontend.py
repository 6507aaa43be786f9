"""What the embedded server adds to the editor: templates that run without models. (The editor itself: conformance/.)"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from discomfort.embedded import frontend


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The templates folder of an installed package."""
    categories = [{"title": "Getting Started", "templates": [{"name": "flux"}]}, {"title": "Images", "templates": []}]
    (tmp_path / "index.json").write_text(json.dumps(categories))
    (tmp_path / "index.fr.json").write_text(json.dumps([{"title": "Images fr", "templates": []}]))
    (tmp_path / "flux.json").write_text("{}")
    (tmp_path / "index_logo.json").write_text('{"Google": "google.svg"}')
    return tmp_path


def test_every_template_is_complete() -> None:
    """Each one listed has its workflow and its thumbnail, and nothing else lies there."""
    (category,) = frontend.list_templates(None)
    names = [template["name"] for template in category["templates"]]
    folder = Path(frontend.__file__).with_name("templates")
    lists = {"index.json", "index_logo.json", "fuse_options.json"}
    files = {f"{name}{ending}" for name in names for ending in (".json", "-1.webp")}
    assert {file.name for file in folder.iterdir()} == lists | files
    for name in names:
        workflow = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        assert workflow["nodes"]
        # Older editors refuse null where newer ones leave something out.
        nulls = {key for node in workflow["nodes"] for slot in node["outputs"] for key in slot if slot[key] is None}
        assert not nulls | {key for key in workflow if workflow[key] is None}


@pytest.mark.parametrize(
    ("language", "title"),
    [
        pytest.param("", "Images", id="English"),
        pytest.param(".fr", "Images fr", id="a language of the package"),
        pytest.param(".xx", "Images", id="a language it has not"),
    ],
)
def test_an_installed_packages_templates_come_behind(package: Path, language: str, title: str) -> None:
    """In the editor's language where the package has it; a category of the same title is one with ours."""
    categories = frontend.list_templates(str(package), language)
    assert [category["title"] for category in categories] == ["Getting Started", title]
    names = [template["name"] for template in categories[0]["templates"]]
    assert names[0] == "sunset"
    assert ("flux" in names) == (title == "Images")


@pytest.mark.parametrize("has_package", [True, False])
async def test_templates_are_served(package: Path, has_package: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list in any language, both kinds of files, and the package's logos."""
    folder = str(package) if has_package else None
    monkeypatch.setattr(frontend, "_package_folder", lambda name, _: folder if "templates" in name else None)
    app = web.Application()
    frontend.add_statics(app, None)
    async with TestClient(TestServer(app)) as client:
        statuses = {
            name: (await client.get(f"/templates/{name}")).status
            for name in (
                "index.json",
                "index.fr.json",
                "sunset.json",
                "sunset-1.webp",
                "fuse_options.json",
                "flux.json",
            )
        }
        expected = dict.fromkeys(statuses, 200)
        assert statuses == (expected if has_package else {**expected, "flux.json": 404})
        logos = await (await client.get("/templates/index_logo.json")).json()
        assert logos == ({"Google": "google.svg"} if has_package else {})
