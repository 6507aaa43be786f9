"""What users keep on the server: settings, workflows and other files, with and without --multi-user."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from conformance.asking import ANY, Answer, Row, ask, check, has
from conformance.differences import expected
from conformance.driver import Server

SERVER_ERROR = re.compile("^500 Internal Server Error")


@pytest.fixture(scope="session")
def shared_server(kind: str, start_server: Callable[..., Server]) -> Server:
    """A server of several users."""
    return start_server(kind, "--multi-user")


def same_set(*items: Any) -> Callable[[Answer], bool]:
    """The answer is a list of these, in any order: ComfyUI's is that of the file system."""
    return lambda answer: sorted(map(str, answer.json)) == sorted(map(str, items))


# -- settings ------------------------------------------------------------------------------------------------


async def test_settings_are_kept(server: Server) -> None:
    """One at a time or several; what is not there is null."""
    file = server.base / "user/default/comfy.settings.json"
    rows = [Row("POST", "/settings", 200, "", body={"first": 1})]
    for prefix in ("", "/api"):
        rows += [
            Row("POST", f"{prefix}/settings/a.b", 200, "", body={"x": [1, None, "ä"]}),
            Row("POST", f"{prefix}/settings/null", 200, "", body="null"),
            Row("POST", f"{prefix}/settings/a%2Fb%20c", 200, "", body=True),
            Row("POST", f"{prefix}/settings", 200, "", body={"c": 2, "first": 3}),
            Row("POST", f"{prefix}/settings", 200, "", body={}),
            Row("GET", f"{prefix}/settings/a.b", 200, {"x": [1, None, "ä"]}),
            Row("GET", f"{prefix}/settings/a%2Fb%20c", 200, True),
            Row("GET", f"{prefix}/settings/null", 200, None),
            Row("GET", f"{prefix}/settings/nosuch", 200, None),
            Row("GET", f"{prefix}/settings/first", 200, 3),
            Row(
                "GET",
                f"{prefix}/settings",
                200,
                lambda answer: answer.json | {"c": 2, "a/b c": True, "null": None} == answer.json,
            ),
            Row("POST", f"{prefix}/settings", 500, SERVER_ERROR, body="no JSON"),
            Row("POST", f"{prefix}/settings", 500, SERVER_ERROR, body=[1]),
            Row("POST", f"{prefix}/settings/a.b", 500, SERVER_ERROR, body="no JSON"),
            Row("GET", f"{prefix}/settings/a.b", 200, {"x": [1, None, "ä"]}),
            Row("DELETE", f"{prefix}/settings/a.b", (404, 405)),
            Row("GET", f"{prefix}/settings/", 404),
        ]
    await check(server, rows)
    before = file.read_text()
    file.write_text("damaged {")
    await check(server, [Row("GET", "/settings", 200, {}), Row("GET", "/settings/first", 200, None)])
    file.write_text(before)
    await check(server, [Row("GET", "/settings/first", 200, 3)])


# -- files ---------------------------------------------------------------------------------------------------


def is_file_info(path: str, size: int) -> Callable[[Answer], bool]:
    """The answer describes a file."""
    return lambda answer: (
        (answer.json["path"], answer.json["size"], set(answer.json))
        == (
            path,
            size,
            {"path", "size", "modified", "created"},
        )
    )


async def test_files_are_written_read_moved_and_deleted(server: Server) -> None:
    """Under any path in the user's folder; what is there already is kept on request."""
    root = server.base / "user/default"
    odd = "u1/a%20b%20%C3%A4%F0%9F%8E%88.json"
    rows = []
    for prefix in ("", "/api"):
        rows += [
            Row("POST", f"{prefix}/userdata/u1%2Fa.json", 200, "u1/a.json", body=b"\x00\xff"),
            Row("GET", f"{prefix}/userdata/u1%2Fa.json", 200, b"\x00\xff"),
            Row("HEAD", f"{prefix}/userdata/u1%2Fa.json", 200, b"", {"Content-Length": "2"}),
            Row("POST", f"{prefix}/userdata/u1%2Fa.json", 200, "u1/a.json", body=b"new"),
            Row("POST", f"{prefix}/userdata/u1%2Fa.json?overwrite=true", 200, "u1/a.json", body=b"newer"),
            Row("POST", f"{prefix}/userdata/u1%2Fa.json?overwrite=false", 409, "File already exists", body=b"no"),
            Row("POST", f"{prefix}/userdata/u1%2Fa.json?overwrite=False", 200, "u1/a.json", body=b"yes"),
            Row("GET", f"{prefix}/userdata/u1%2Fa.json", 200, b"yes"),
            Row(
                "POST", f"{prefix}/userdata/u1%2Fa.json?full_info=true", 200, is_file_info("u1/a.json", 4), body=b"1234"
            ),
            Row("POST", f"{prefix}/userdata/u1%2Fa.json?full_info=1", 200, "u1/a.json", body=b"1234"),
            Row("POST", f"{prefix}/userdata/{odd.replace('/', '%2F')}", 200, ANY, body=b"odd"),
            Row("GET", f"{prefix}/userdata/{odd.replace('/', '%2F')}", 200, b"odd"),
            Row("POST", f"{prefix}/userdata/u1%252Fdouble.json", 200, "u1/double.json", body=b"2"),
            Row("POST", f"{prefix}/userdata/empty.txt", 200, "empty.txt"),
            Row("GET", f"{prefix}/userdata/empty.txt", 200, b""),
            Row("POST", f"{prefix}/userdata/u1%2Fa.json/move/u1%2Fdeep%2Fb.json", 200, "u1/deep/b.json"),
            Row("GET", f"{prefix}/userdata/u1%2Fa.json", 404, b""),
            Row("GET", f"{prefix}/userdata/u1%2Fdeep%2Fb.json", 200, b"1234"),
            Row("POST", f"{prefix}/userdata/u1%2Fa.json/move/u1%2Fc.json", 404, b""),
            Row("POST", f"{prefix}/userdata/u1%2Fa.json", 200, body=b"again"),
            Row(
                "POST",
                f"{prefix}/userdata/u1%2Fa.json/move/u1%2Fdeep%2Fb.json?overwrite=false",
                409,
                "File already exists",
            ),
            Row("GET", f"{prefix}/userdata/u1%2Fa.json", 200, b"again"),
            Row(
                "POST",
                f"{prefix}/userdata/u1%2Fa.json/move/u1%2Fdeep%2Fb.json?full_info=true",
                200,
                is_file_info("u1/deep/b.json", 5),
            ),
            Row("DELETE", f"{prefix}/userdata/u1%2Fdeep%2Fb.json", 204, b""),
            Row("DELETE", f"{prefix}/userdata/u1%2Fdeep%2Fb.json", 404, b""),
            Row("GET", f"{prefix}/userdata/u1", (403, 404)),
            Row("DELETE", f"{prefix}/userdata/u1", 500, SERVER_ERROR),
            Row("POST", f"{prefix}/userdata/u1", 400, headers={"Content-Length": "0"}, body=b"a folder"),
            Row("GET", f"{prefix}/userdata/u1/a.json", 404),
        ]
    # A text stands for its JSON here.
    rows = [
        row._replace(content=(lambda text: lambda answer: answer.json == text)(row.content))
        if isinstance(row.content, str) and row.content.endswith((".json", ".txt"))
        else row
        for row in rows
    ]
    await check(server, rows)
    assert (root / "u1/a b ä🎈.json").read_bytes() == b"odd"
    assert (root / "u1/double.json").read_bytes() == b"2"


async def test_nothing_outside_the_users_folder_can_be_reached(server: Server) -> None:
    """403 for what leads out, also when it is escaped twice."""
    (server.base / "user/other").mkdir(exist_ok=True)
    (server.base / "user/other/secret").write_bytes(b"secret")
    rows = []
    for path in ("..%2Fother%2Fsecret", "%2Fetc%2Fpasswd", "a%2F..%2F..%2Fother%2Fsecret", "..%252Fother%252Fsecret"):
        rows += [
            Row("GET", f"/userdata/{path}", 403, b""),
            Row("POST", f"/userdata/{path}", 403, b"", body=b"x"),
            Row("DELETE", f"/userdata/{path}", 403, b""),
            Row("POST", f"/userdata/{path}/move/mine", 403, b""),
            Row("GET", f"/userdata?dir={path}", 403, "Invalid directory"),
            Row("GET", f"/v2/userdata?path={path}", 400, "Invalid path requested"),
        ]
    rows += [
        Row("POST", "/userdata/victim", 200, body=b"x"),
        # 0.3.64 failed over it.
        Row("POST", "/userdata/victim/move/..%2Fother%2Fstolen", 403 if has(server, 0, 8) else 500),
        Row("GET", "/userdata/victim", 200, b"x"),
        Row("GET", "/userdata/..%5Cother%5Csecret", 404, b""),
        Row("GET", "/userdata/../other/secret", (403, 404)),
        Row("GET", "/userdata/victim%00", (404, 500)),
    ]
    await check(server, rows)
    assert (server.base / "user/other/secret").read_bytes() == b"secret"
    assert not (server.base / "user/other/stolen").exists()


async def test_stored_files_are_not_run_by_browsers(server: Server) -> None:
    """They are to be saved, whatever they contain; since 0.28."""
    safe = has(server, 0, 28)

    def row(name: str, type: str, old: str) -> Row:
        headers = {
            "Content-Type": type if safe else old,
            "Content-Disposition": "attachment" if safe else None,
            "X-Content-Type-Options": "nosniff" if safe else None,
        }
        return Row("GET", f"/userdata/{name}", 200, b"x", headers)

    data = "application/octet-stream"
    names = {
        "s.html": (data, "text/html"),
        "s.svg": (data, "image/svg+xml"),
        "s.json": ("application/json", "application/json"),
        "s.txt": ("text/plain", "text/plain"),
        "s.xyzzy": (data, data),
    }
    for name, (type, old) in names.items():
        await check(server, [Row("POST", f"/userdata/{name}", 200, body=b"x"), row(name, type, old)])


async def test_a_users_styles_are_a_style_sheet(server: Server) -> None:
    """The editor links them; 0.28 and 0.29 sent them as data to be saved, which browsers do not take as styles."""
    styles = b"body { --mine: 1px }"
    wrong = not has(server, 0, 30) and has(server, 0, 28)
    sheet = "application/octet-stream" if wrong else "text/css"
    rows = [
        Row("POST", "/userdata/user.css", 200, body=styles),
        Row("POST", "/userdata/sub%2Fuser.css", 200, body=styles),
    ]
    for path in ("/userdata/user.css", "/api/userdata/user.css", "/api/userdata/x%2F..%2Fuser.css"):
        rows.append(Row("GET", path, 200, styles, {"Content-Type": sheet}))
    if has(server, 0, 30):
        saved = {"Content-Type": "application/octet-stream", "Content-Disposition": "attachment"}
        rows.append(Row("GET", "/userdata/sub%2Fuser.css", 200, styles, saved))
        rows.append(Row("GET", "/userdata/user.css", 200, styles, {"Content-Disposition": "inline"}))
    await check(server, [*rows, Row("DELETE", "/userdata/user.css", 204), Row("GET", "/userdata/user.css", 404)])


@pytest.fixture
def tree(server: Server) -> None:
    """A folder with files, hidden ones and folders."""
    root = server.base / "user/default/tree"
    for name in ("b.json", "A.txt", "sub/c.json", "sub/deep/d.json", ".hidden", ".cache/e", "sub/.f"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"12")
    (root / "empty").mkdir(exist_ok=True)


async def test_a_folder_is_listed(server: Server, tree: None) -> None:
    """Its files, on request with those below; as paths, in parts, or with size and times. Hidden ones are not."""
    everything = ["b.json", "A.txt", "sub/c.json", "sub/deep/d.json"]
    parts = [
        ["b.json", "b.json"],
        ["A.txt", "A.txt"],
        ["sub/c.json", "sub", "c.json"],
        ["sub/deep/d.json", "sub", "deep", "d.json"],
    ]

    def infos(*paths: str) -> Callable[[Answer], bool]:
        def look(answer: Answer) -> bool:
            scale = 1000 if server.version >= (0, 21) else 1
            return sorted((i["path"], i["size"]) for i in answer.json) == sorted((p, 2) for p in paths) and all(
                set(i) == {"path", "size", "modified", "created"} and 1.7e9 < i["modified"] / scale < 4e9
                for i in answer.json
            )

        return look

    rows = []
    for prefix in ("", "/api"):
        for query, status, content in (
            ("dir=tree", 200, same_set("b.json", "A.txt")),
            ("dir=tree/", 200, same_set("b.json", "A.txt")),
            ("dir=tree%2Fsub", 200, same_set("c.json")),
            ("dir=tree%252Fsub", 200, same_set("c.json")),
            ("dir=tree/empty", 200, []),
            ("dir=tree&recurse=true", 200, same_set(*everything)),
            ("dir=tree&recurse=TRUE", 200, same_set(*everything)),
            ("dir=tree&recurse=1", 200, same_set("b.json", "A.txt")),
            ("dir=tree&recurse=true&split=true", 200, same_set(*parts)),
            ("dir=tree&split=true", 200, same_set(*parts[:2])),
            ("dir=tree&split=false", 200, same_set("b.json", "A.txt")),
            ("dir=tree&full_info=true", 200, infos("b.json", "A.txt")),
            ("dir=tree&recurse=true&split=true&full_info=true", 200, infos(*everything)),
            ("dir=tree/b.json", 200, []),
            ("dir=tree/nosuch", 404, "Directory not found"),
            ("dir=", 400, "Directory not provided"),
            ("", 400, "Directory not provided"),
            ("dir=..", 403, "Invalid directory"),
            ("dir=/", 403, "Invalid directory"),
        ):
            rows.append(Row("GET", f"{prefix}/userdata?{query}", status, content))
    await check(server, rows)


async def test_a_folder_is_listed_with_its_folders(server: Server, tree: None) -> None:
    """Everything below, hidden ones too, folders first and then by name; paths begin at the user's folder."""

    def file(path: str) -> tuple[str, ...]:
        return (path.rsplit("/", 1)[1], path, "file")

    def folder(path: str) -> tuple[str, ...]:
        return (path.rsplit("/", 1)[1], path, "directory")

    def shows(*entries: tuple[str, ...]) -> Callable[[Answer], bool]:
        def look(answer: Answer) -> bool:
            keys = {"file": {"name", "path", "type", "size", "modified"}, "directory": {"name", "path", "type"}}
            return [(e["name"], e["path"], e["type"]) for e in answer.json] == list(entries) and all(
                set(e) == keys[e["type"]] and e.get("size", 2) == 2 and 1.7e9 < e.get("modified", 2e9) < 4e9
                for e in answer.json
            )

        return look

    everything = [
        *map(folder, ("tree/.cache", "tree/sub/deep", "tree/empty", "tree/sub")),
        *map(file, ("tree/sub/.f", "tree/.hidden", "tree/A.txt", "tree/b.json", "tree/sub/c.json")),
        *map(file, ("tree/sub/deep/d.json", "tree/.cache/e")),
    ]
    rows = []
    for prefix in ("", "/api"):
        for query, status, content in (
            ("path=tree", 200, shows(*everything)),
            ("path=tree%2Fsub%2Fdeep", 200, shows(file("tree/sub/deep/d.json"))),
            ("path=tree%252Fsub%252Fdeep", 200, shows(file("tree/sub/deep/d.json"))),
            ("path=tree/empty", 200, []),
            ("path=tree/b.json", 400, "Requested path is not a directory"),
            ("path=nosuch", 404, "Requested path not found"),
            ("path=../..", 400, "Invalid path requested"),
            ("path=", 200, lambda answer: {"tree", "sub"} <= {entry["name"] for entry in answer.json}),
            ("", 200, lambda answer: {"tree", "sub"} <= {entry["name"] for entry in answer.json}),
        ):
            rows.append(Row("GET", f"{prefix}/v2/userdata?{query}", status, content))
    await check(server, rows)


# -- users ---------------------------------------------------------------------------------------------------


async def test_one_user_needs_no_name(server: Server) -> None:
    """Without --multi-user the header says nothing."""
    await check(
        server,
        [
            Row("POST", "/settings/mine", 200, body=1),
            Row("GET", "/users", 200, {"storage": "server", "migrated": True}),
            Row("GET", "/settings/mine", 200, 1, sent={"comfy-user": "nosuch"}),
            Row("GET", "/userdata?dir=nosuch", 404, sent={"comfy-user": "nosuch"}),
        ],
    )


async def test_users_are_kept_apart(shared_server: Server) -> None:
    """Each has settings and files of its own; without a name there is nothing."""
    server = shared_server
    unknown = {"comfy-user": "nosuch"}
    refused = expected(server, "bad users", comfyui=500 if server.version < (0, 8) else 400, embedded=400)
    ids = []
    for name in ("Ann", "Bob Ä. <b>"):
        answer = await ask(server, "POST", "/users", {"username": name})
        assert answer.status == 200
        ids.append(answer.json)
    ann, bob = ids
    assert re.fullmatch(r"Ann_[0-9a-f]{8}-[0-9a-f-]{27}", ann)
    assert re.fullmatch(r"Bob-b-_[0-9a-f]{8}-[0-9a-f-]{27}", bob)
    system_user = (400, {"error": "System User prefix not allowed"}) if has(server, 0, 8) else (200, ANY)
    empty = {"error": "username not provided"} if has(server, 0, 8) else ANY
    rows = [
        Row("GET", "/users", 200, {"storage": "server", "users": {ann: "Ann", bob: "Bob Ä. <b>"}}),
        Row("POST", "/users", 400, {"error": "Duplicate username."}, body={"username": "Ann"}),
        Row("POST", "/users", refused, empty, body={"username": " "}),
        Row("POST", "/users", 500, body={}),
        Row("POST", "/users", 500, body="no JSON"),
        Row("POST", "/settings/x", 200, body="1", sent={"comfy-user": ann}),
        Row("POST", "/api/settings/x", 200, body="2", sent={"comfy-user": bob}),
        Row("GET", "/settings", 200, {"x": 1}, sent={"comfy-user": ann}),
        Row("GET", "/settings/x", 200, 2, sent={"comfy-user": bob}),
        Row("POST", "/userdata/f", 200, body=b"ann's", sent={"comfy-user": ann}),
        Row("GET", "/userdata/f", 200, b"ann's", sent={"Comfy-User": ann}),
        Row("GET", "/userdata/f", 404, b"", sent={"comfy-user": bob}),
        Row("GET", "/userdata/..%2F" + ann + "%2Ff", 403, b"", sent={"comfy-user": bob}),
        Row(
            "GET",
            "/v2/userdata",
            200,
            lambda answer: [e["name"] for e in answer.json] == ["comfy.settings.json"],
            sent={"comfy-user": bob},
        ),
    ]
    for sent in ({}, unknown, {"comfy-user": "default"}, {"comfy-user": ".."}, {"comfy-user": "__system"}):
        rows += [
            Row("GET", "/settings", 401, sent=sent),
            Row("GET", "/settings/x", 401, sent=sent),
            Row("POST", "/settings/x", 401, body=1, sent=sent),
            Row("GET", "/userdata/f", 500, sent=sent),
            Row("GET", "/userdata?dir=x", 500, sent=sent),
            Row("GET", "/v2/userdata", 403, "Invalid user specified in request", sent=sent),
        ]
    # Last: before 0.8 it adds a user.
    rows.append(Row("POST", "/users", system_user[0], system_user[1], body={"username": "__x"}))
    await check(server, rows)
    assert (server.base / f"user/{ann}/f").read_bytes() == b"ann's"
    assert (server.base / "user/users.json").exists()
