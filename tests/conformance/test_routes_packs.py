"""What packages bring for the editor: scripts, translations, example workflows, subgraphs."""

from __future__ import annotations

import json
import re
from typing import Any

from conformance.asking import Answer, Row, ask, check, has
from conformance.driver import PACK, Server

_TEXT = re.compile("^(text|application)/javascript")


async def test_scripts_are_listed_and_served(server: Server) -> None:
    """The editor's own and those of packages, never from a browser's cache."""
    listed = (await ask(server, "GET", "/extensions")).json
    assert "/extensions/tiny/tiny.js" in listed
    assert any(path.startswith("/extensions/core/") for path in listed)
    script = (PACK / "web/tiny.js").read_bytes()
    fresh = {"Cache-Control": "no-store" if server.version >= (0, 18) else "no-cache"}
    await check(
        server,
        [
            Row("GET", "/api/extensions", 200, lambda answer: sorted(answer.json) == sorted(listed)),
            Row("GET", "/extensions/tiny/tiny.js", 200, script, {**fresh, "Content-Type": _TEXT}),
            Row("HEAD", "/extensions/tiny/tiny.js", 200, b"", fresh),
            Row("GET", listed[0], 200, headers=fresh),
            Row("GET", "/extensions/tiny/nosuch.js", 404),
            Row("GET", "/extensions/tiny/../__init__.py", 404),
            Row("GET", "/extensions/tiny/..%2F__init__.py", (403, 404)),
            Row("GET", "/extensions/tiny/%2Fetc%2Fpasswd", (403, 404)),
            Row("GET", "/extensions/tiny/", 403),
            Row("GET", "/extensions/tiny", 403),
            Row("GET", "/extensions/nosuch/x.js", 404),
            Row("GET", "/api/extensions/tiny/tiny.js", 404),
            Row("POST", "/extensions/tiny/tiny.js", 405),
        ],
    )


async def test_translations_of_all_packages_are_merged(server: Server) -> None:
    """main.json, and the other files as keys of it; a damaged file is left out. Lists are one behind the other."""
    english = {
        "tiny": {"title": "Later", "lines": ["one", "two"], "only": {"here": 1, "there": 2}},
        "nodeDefs": {"TinyNumber": {"display_name": "Number"}},
        "commands": {"Tiny_command": {"label": "Do"}},
        "settings": {"Tiny_setting": {"name": "Set"}},
    }

    def look(answer: Answer) -> bool:
        texts = answer.json  # Discomfort's own may be among them
        return (
            all(texts["en"].get(key, {}) | value == texts["en"].get(key) for key, value in english.items())
            and texts["de"] == {"tiny": {"title": "Winzig"}}
            and "tiny" not in texts.get("fr", {})
            and "zh" not in texts
        )

    await check(server, [Row("GET", f"{prefix}/i18n", 200, look) for prefix in ("", "/api")])


async def test_example_workflows_are_listed_and_served(server: Server) -> None:
    """From any of the folders packages use for them; of one that has several, only the first is served."""
    content = json.loads((PACK / "example_workflows/one.json").read_text())
    # A package need not have been loaded to have examples, but to have them served.
    later = server.base / "custom_nodes/later/workflows/x.json"
    later.parent.mkdir(parents=True, exist_ok=True)
    later.write_text("{}")
    listed = (await ask(server, "GET", "/workflow_templates")).json
    assert sorted(listed["tiny"]) == ["old", "one"]
    assert listed["later"] == ["x"]
    await check(
        server,
        [
            Row("GET", "/api/workflow_templates", 200, lambda answer: sorted(answer.json) == sorted(listed)),
            Row("GET", "/api/workflow_templates/tiny/one.json", 200, content),
            Row("GET", "/api/workflow_templates/tiny/old.json", 404),
            Row("GET", "/api/workflow_templates/tiny/nosuch.json", 404),
            Row("GET", "/api/workflow_templates/tiny/one.jpg", 404),
            Row("GET", "/api/workflow_templates/later/x.json", 404),
            Row("GET", "/workflow_templates/tiny/one.json", 404),
        ],
    )


async def test_subgraphs_of_packages_can_be_loaded(server: Server) -> None:
    """A list without the data, and one with it; since 0.8."""
    if not has(server, 0, 8):
        await check(server, [Row("GET", "/api/global_subgraphs", 404)])
        return
    data = '{"nodes": []}'
    file = server.base / "custom_nodes/tiny/subgraphs/Sum of two.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(data)
    listed = (await ask(server, "GET", "/global_subgraphs")).json
    ((key, entry),) = [(key, entry) for key, entry in listed.items() if entry["name"] == "Sum of two"]
    assert re.fullmatch("[0-9a-f]{64}", key)
    assert entry == {"source": "custom_node", "name": "Sum of two", "info": {"node_pack": "custom_nodes.tiny"}}
    whole: Any = {**entry, "data": data}
    await check(
        server,
        [
            Row("GET", "/api/global_subgraphs", 200, listed),
            Row("GET", f"/api/global_subgraphs/{key}", 200, whole),
            Row("GET", f"/global_subgraphs/{key}", 200, whole),
            Row("GET", "/api/global_subgraphs/nosuch", 200, None),
            Row("GET", "/api/global_subgraphs", 200, listed),
        ],
    )


async def test_a_packages_own_routes(server: Server) -> None:
    """With and without /api, for the method it named and HEAD."""
    await check(
        server,
        [
            Row("GET", "/tiny/calls", 200),
            Row("GET", "/api/tiny/calls", 200),
            Row("HEAD", "/tiny/calls", 200, b""),
            Row("POST", "/tiny/calls", 405, "405: Method Not Allowed"),
            Row("GET", "/tiny/nosuch", 404, b""),
            Row("POST", "/tiny/send", 500, body="no JSON"),
        ],
    )


async def test_a_package_is_loaded_under_a_name_made_of_its_path(server: Server) -> None:
    """In the server's process, where it finds the server's folders and limits."""
    environment = (await ask(server, "GET", "/tiny/environment")).json
    assert environment["module"] == str(server.base / "custom_nodes/tiny").replace(".", "_x_")
    assert environment["largest"] == 16384
    assert environment["temp"] == str(server.base / "temp")
    assert environment["pid"] == server.process.pid
