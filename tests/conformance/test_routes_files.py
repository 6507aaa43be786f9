"""Files of clients: POST /upload/image and /upload/mask, GET /view."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from conformance.asking import ANY, Answer, File, Row, ask, check, form, has
from conformance.differences import expected
from conformance.driver import Server
from PIL import Image
from PIL.PngImagePlugin import PngInfo


def picture(mode: str, colour: Any, size: tuple[int, int] = (4, 2), kind: str = "PNG", **texts: str) -> bytes:
    """An image file of one colour."""
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, kind, **({"pnginfo": info} if kind == "PNG" else {}))
    return file.getvalue()


RED, BLUE = picture("RGB", "red"), picture("RGB", "blue")
HALF = picture("RGBA", (10, 20, 30, 128))


def shows(kind: str, mode: str, pixel: Any) -> Callable[[Answer], bool]:
    """The answer is an image of that format and mode whose pixels are (about) that."""

    def check_image(answer: Answer) -> bool:
        with Image.open(io.BytesIO(answer.body)) as image:
            seen = image.getpixel((0, 0))
            near = all(abs(a - b) <= 3 for a, b in zip(_channels(seen), _channels(pixel), strict=True))
            return (image.format, image.mode) == (kind, mode) and near

    return check_image


def _channels(pixel: Any) -> tuple[int, ...]:
    return pixel if isinstance(pixel, tuple) else (pixel,)


def upload(file: File | str | None, status: int, content: Any = ANY, to: str = "/upload/image", **fields: str) -> Row:
    """One upload."""
    return Row("POST", to, status, content, body=form(**({"image": file} if file is not None else {}), **fields))


def stored(name: str, subfolder: str = "", type: str = "input") -> dict[str, str]:
    """The answer to an upload."""
    return {"name": name, "subfolder": subfolder, "type": type}


# -- uploading -----------------------------------------------------------------------------------------------


async def test_an_upload_gets_the_name_it_asks_for_unless_another_content_has_it(server: Server) -> None:
    """Then it is numbered; the same content gets the name under which it is there already."""
    await check(
        server,
        [
            upload(File("u1.png", RED), 200, stored("u1.png")),
            upload(File("u1.png", RED), 200, stored("u1.png")),
            upload(File("u1.png", BLUE), 200, stored("u1 (1).png")),
            upload(File("u1.png", HALF), 200, stored("u1 (2).png")),
            upload(File("u1.png", BLUE), 200, stored("u1 (1).png")),
            upload(File("u1.png", RED), 200, stored("u1.png"), overwrite="false"),
            upload(File("u1 (1).png", RED), 200, stored("u1 (1) (1).png")),
            upload(File("u1.png", HALF), 200, stored("u1.png"), overwrite="1"),
            upload(File("u1.png", BLUE), 200, stored("u1.png"), overwrite="true"),
            upload(File("u1.png", RED), 200, stored("u1 (3).png"), overwrite="TRUE"),
            upload(File("noending", b"1"), 200, stored("noending")),
            upload(File("noending", b"2"), 200, stored("noending (1)")),
            upload(File("two.tar.gz", b"1"), 200, stored("two.tar.gz")),
            upload(File("two.tar.gz", b"2"), 200, stored("two.tar (1).gz")),
            upload(File("empty.txt", b""), 200, stored("empty.txt")),
        ],
    )
    folder = server.base / "input"
    contents = {path.name: path.read_bytes() for path in folder.glob("u1*")}
    assert contents == {
        "u1.png": BLUE,
        "u1 (1).png": BLUE,
        "u1 (2).png": HALF,
        "u1 (1) (1).png": RED,
        "u1 (3).png": RED,
    }


async def test_an_upload_goes_into_the_folder_it_names(server: Server) -> None:
    """input, output or temp, and any folder below it, which is made."""
    await check(
        server,
        [
            upload(File("u2.png", RED), 200, stored("u2.png", "", "temp"), type="temp"),
            upload(File("u2.png", RED), 200, stored("u2.png", "", "output"), type="output"),
            upload(File("u2.png", RED), 200, stored("u2.png", "a/b"), subfolder="a/b"),
            upload(File("u2.png", RED), 200, stored("u2.png", "a/../u2"), subfolder="a/../u2"),
            upload(File("u2.png", RED), 200, stored("u2.png", "u2/"), subfolder="u2/"),
            upload(File("u2.png", RED), 200, stored("u2.png", "."), subfolder="."),
            upload(File("a/b/u3.png", RED), 200, stored("a/b/u3.png")),
            upload(File("u2/../u3.png", RED), 200, stored("u2/../u3.png")),
        ],
    )
    for path in ("temp/u2.png", "output/u2.png", "input/a/b/u2.png", "input/u2/u2.png", "input/a/b/u3.png"):
        assert (server.base / path).read_bytes() == RED, path
    assert (server.base / "input/u3.png").exists()


@pytest.mark.parametrize(
    "name",
    [
        "a b.png",
        "ä漢字 🎈.png",
        "100%.png",
        "a%20b.png",
        "C:\\x\\y.png",
        "..\\up.png",
        "a;b.png",
        "a'b.png",
        "-.png",
        ".hidden",
    ],
)
async def test_any_name_can_be_uploaded_and_viewed(server: Server, name: str) -> None:
    """Spaces, other alphabets, percent signs, backslashes: the name is what it says, and comes back."""
    from urllib.parse import quote

    subfolder = "any names"
    dotted = ".." in name
    await check(
        server,
        [
            upload(File(name, RED), 200, stored(name, subfolder), subfolder=subfolder),
            Row(
                "GET",
                f"/view?filename={quote(name)}&type=input&subfolder={quote(subfolder)}",
                400 if dotted else 200,
                b"" if dotted else RED,
            ),
        ],
    )
    assert (server.base / "input" / subfolder / name).read_bytes() == RED


async def test_an_upload_cannot_leave_its_folder(server: Server) -> None:
    """400, and nothing is written."""
    await check(
        server,
        [
            upload(File("a.out", RED), 400, "", subfolder="../x"),
            upload(File("a.out", RED), 400, "", subfolder="/etc"),
            upload(File("a.out", RED), 400, "", subfolder="a/../../x"),
            upload(File("../a.out", RED), 400, ""),
            # A leading slash is taken off a form's file names.
            upload(File("/a.out", RED), 200, stored("a.out")),
            upload(File("x/../../a.out", RED), 400, ""),
            upload(File("../a.out", RED), 400, "", overwrite="true"),
        ],
    )
    assert list(server.base.rglob("*.out")) == [server.base / "input/a.out"]
    (server.base / "input/a.out").unlink()


async def test_a_form_without_an_image_is_refused(server: Server) -> None:
    """400; what is no form at all as well."""
    await check(
        server,
        [
            upload(None, 400, ""),
            upload(None, 400, "", subfolder="x"),
            Row("POST", "/upload/image", 400, "", body={"image": "x"}),
            Row("POST", "/upload/image", 400, ""),
            Row("POST", "/upload/image", 400, "", body="image=x", sent={"Content-Type": "text/plain"}),
            upload(None, 400, "", to="/upload/mask"),
        ],
    )


async def test_uploads_that_cannot_be_meant(server: Server) -> None:
    """An unknown type, a text in place of the file: the embedded server says that the request is at fault."""
    status = expected(server, "bad requests", comfyui=500, embedded=400)
    await check(
        server,
        [
            upload(File("u4.png", RED), status, type="user"),
            upload("not a file", status),
            upload(File("u4.png", RED), status, to="/upload/mask"),
            upload(File("u4.png", RED), status, to="/upload/mask", original_ref="no JSON"),
            upload(File("u4.png", RED), status, to="/upload/mask", original_ref="{}"),
        ],
    )


# -- masks ---------------------------------------------------------------------------------------------------


async def test_a_mask_gives_its_transparency_to_the_image_it_was_drawn_on(server: Server) -> None:
    """Colours and texts are the original's; its reference is as in executed messages or annotated."""
    texts = picture("RGB", (200, 100, 50), prompt="{}", note="n")
    clipspace = '{"filename": "m1.png", "subfolder": "clipspace", "type": "input"}'
    jpeg = picture("RGB", (200, 100, 50), kind="JPEG")

    def combined(answer: Answer) -> bool:
        with Image.open(io.BytesIO(answer.body)) as image:
            return (
                image.getpixel((0, 0)) == (200, 100, 50, 128)
                and image.text == {"prompt": "{}", "note": "n"}
                and image.format == "PNG"
            )

    mask = File("m2.png", HALF)
    await check(
        server,
        [
            upload(File("m1.png", texts), 200, type="output"),
            upload(File("m1.png", texts), 200, subfolder="clipspace"),
            upload(File("m1.jpg", jpeg), 200),
            upload(mask, 200, stored("m2.png"), "/upload/mask", original_ref='{"filename": "m1.png"}'),
            Row("GET", "/view?filename=m2.png&type=input", 200, combined),
            upload(
                File("m3.png", HALF),
                200,
                stored("m3.png", "clipspace"),
                "/upload/mask",
                original_ref=clipspace,
                subfolder="clipspace",
            ),
            Row("GET", "/view?filename=m3.png&type=input&subfolder=clipspace", 200, combined),
            upload(
                File("m4.png", HALF),
                200,
                stored("m4.png"),
                "/upload/mask",
                original_ref='{"filename": "clipspace/m1.png [input]"}',
            ),
            Row("GET", "/view?filename=m4.png&type=input", 200, combined),
            upload(
                File("m5.png", HALF),
                200,
                stored("m5.png"),
                "/upload/mask",
                original_ref='{"filename": "m1.jpg", "type": "input"}',
            ),
            Row("GET", "/view?filename=m5.png&type=input", 200, shows("PNG", "RGBA", (200, 100, 50, 128))),
            # A mask without transparency is opaque.
            upload(File("m6.png", RED), 200, stored("m6.png"), "/upload/mask", original_ref='{"filename": "m1.png"}'),
            Row("GET", "/view?filename=m6.png&type=input", 200, shows("PNG", "RGBA", (200, 100, 50, 255))),
            # The same mask again is not the file that is there, which has the original's colours.
            upload(mask, 200, stored("m2 (1).png"), "/upload/mask", original_ref='{"filename": "m1.png"}'),
            upload(
                mask, 200, stored("m2.png"), "/upload/mask", original_ref='{"filename": "m1.png"}', overwrite="true"
            ),
            # The format is that of the name.
            upload(
                File("m7.webp", HALF), 200, stored("m7.webp"), "/upload/mask", original_ref='{"filename": "m1.png"}'
            ),
            Row(
                "GET",
                "/view?filename=m7.webp&type=input",
                200,
                shows("WEBP", "RGBA", (200, 100, 50, 128)),
                {"Content-Type": "image/webp"},
            ),
            upload(File("m8.jpg", HALF), 500, to="/upload/mask", original_ref='{"filename": "m1.png"}'),
            # Another size does not fit.
            upload(
                File("m9.png", picture("RGBA", "red", (3, 3))),
                500,
                to="/upload/mask",
                original_ref='{"filename": "m1.png"}',
            ),
        ],
    )


@pytest.mark.parametrize(
    "reference",
    [
        '{"filename": "nosuch.png"}',
        '{"filename": ""}',
        '{"filename": "/etc/passwd"}',
        '{"filename": "../x.png"}',
        '{"filename": "m1.png", "type": "user"}',
        '{"filename": "m1.png", "subfolder": "../user"}',
    ],
)
async def test_a_mask_of_no_image_is_stored_nowhere(server: Server, reference: str) -> None:
    """It is answered as if it were, because the editor does not look further."""
    await check(server, [upload(File("mx.png", HALF), 200, stored("mx.png"), "/upload/mask", original_ref=reference)])
    assert not (server.base / "input/mx.png").exists()


# -- viewing -------------------------------------------------------------------------------------------------


@pytest.fixture
def files(server: Server) -> dict[str, bytes]:
    """Files to look at, in the output and the input folder."""
    contents = {
        "output/v/rgb.png": RED,
        "output/v/rgba.png": HALF,
        "output/v/grey.png": picture("L", 77),
        "output/v/palette.gif": picture("P", 0, kind="GIF"),
        "output/v/text.txt": b"0123456789",
        "output/v/page.html": b"<script>",
        "output/v/page.xhtml": b"<script>",
        "output/v/script.js": b"1",
        "output/v/style.css": b"a{}",
        "output/v/drawing.svg": b"<svg/>",
        "output/v/film.mp4": b"film",
        "output/v/sound.flac": b"sound",
        "output/v/model.glb": b"model",
        "output/v/data.json": b"{}",
        "output/v/unknown.xyzzy": b"?",
        "output/v/noending": b"!",
        "output/v/deep/er.txt": b"deep",
        "output/v/top.txt": b"v's",
        "output/top.txt": b"top",
        "input/v/in.txt": b"in",
        "temp/v/temp.txt": b"temp",
        "user/secret.txt": b"secret",
    }
    for name, content in contents.items():
        path = server.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for link, target in (("output/v/link.txt", server.base / "user/secret.txt"), ("output/v/nowhere.txt", "nowhere")):
        if not (server.base / link).is_symlink():
            (server.base / link).symlink_to(target)
    return contents


async def test_a_file_is_found_by_its_folder_and_subfolder(server: Server, files: dict[str, bytes]) -> None:
    """Output unless it says otherwise; an annotation wins over the type; folders in the name are left out."""
    rows = []
    for query, status, content in (
        ("filename=top.txt", 200, "top"),
        ("filename=top.txt&subfolder=v", 200, "v's"),
        ("filename=top.txt&subfolder=v/", 200, "v's"),
        ("filename=top.txt&subfolder=", 200, "top"),
        ("filename=top.txt&subfolder=.", 200, "top"),
        ("filename=top.txt&subfolder=v/../v", 200, "v's"),
        ("filename=er.txt&subfolder=v/deep", 200, "deep"),
        ("filename=er.txt&subfolder=v%2Fdeep", 200, "deep"),
        ("filename=v/top.txt", 200, "top"),
        ("filename=in.txt&subfolder=v&type=input", 200, "in"),
        ("filename=in.txt%20[input]&subfolder=v", 200, "in"),
        ("filename=in.txt+[input]&subfolder=v&type=temp", 200, "in"),
        ("filename=temp.txt%20[temp]&subfolder=v", 200, "temp"),
        ("filename=top.txt%20[output]", 200, "top"),
        ("filename=top.txt%20[output]&type=user", 200, "top"),
        ("filename=top.txt&filename=nosuch.txt", 200, "top"),
        ("filename=link.txt&subfolder=v", 200, "secret"),
        ("filename=nosuch.txt", 404, ""),
        ("filename=nowhere.txt&subfolder=v", 404, ""),
        ("filename=v", 404, ""),
        ("filename=deep&subfolder=v", 404, ""),
        ("filename=v/", 404, ""),
        ("filename=top.txt&subfolder=nosuch", 404, ""),
        ("filename=top.txt%00.png", 404, ""),
        ("filename=TOP.TXT", 404, ""),
        ("", 404, ""),
        ("type=output", 404, ""),
        ("filename=", 400, ""),
        ("filename=[output]", 400, ""),
        ("filename=../user/secret.txt", 400, ""),
        ("filename=..%2Fuser%2Fsecret.txt", 400, ""),
        ("filename=%2e%2e/user/secret.txt", 400, ""),
        ("filename=a..b.txt", 400, ""),
        ("filename=/etc/passwd", 400, ""),
        ("filename=%2Fetc%2Fpasswd", 400, ""),
        ("filename=secret.txt&type=user", 400, ""),
        ("filename=top.txt&type=", 400, ""),
        ("filename=top.txt&type=OUTPUT", 400, ""),
        ("filename=secret.txt&subfolder=../user", 403, ""),
        ("filename=secret.txt&subfolder=..%2Fuser", 403, ""),
        ("filename=passwd&subfolder=/etc", 403, ""),
        ("filename=x&subfolder=v/../..", 403, ""),
        ("filename=secret.txt&subfolder=..%5Cuser", 404, ""),
        ("filename=..%5Cuser%5Csecret.txt", 400, ""),
    ):
        for prefix in ("", "/api"):
            rows.append(Row("GET", f"{prefix}/view?{query}", status, content))
    await check(server, rows)


async def test_a_file_comes_with_its_type_and_name(server: Server, files: dict[str, bytes]) -> None:
    """What a browser would run as a page of this server comes as plain data."""
    since_28 = has(server, 0, 28)
    data = "application/octet-stream"

    def row(name: str, type: str | re.Pattern[str]) -> Row:
        active = type == data and name.split(".")[-1] not in ("xyzzy", "noending")
        kind = "attachment; " if active and since_28 else ""
        headers = {
            "Content-Type": type,
            "Content-Disposition": f'{kind}filename="{name}"',
            "X-Content-Type-Options": "nosniff" if since_28 else None,
        }
        return Row("GET", f"/view?filename={name}&subfolder=v", 200, files[f"output/v/{name}"], headers)

    before = server.version < (0, 28)
    # Since 0.30 a drawing is one for an <img>, which runs nothing of it.
    varies = {"Vary": "Sec-Fetch-Dest", "Cache-Control": "no-store"} if has(server, 0, 30) else {}
    script = expected(
        server, "active files", comfyui="application/javascript; charset=utf-8" if before else data, embedded=data
    )
    drawing = expected(server, "active files", comfyui="image/svg+xml" if before else data, embedded=data)
    in_an_image = {"Sec-Fetch-Dest": "image"}
    shown = row("drawing.svg", drawing)
    if varies:
        headers = {**shown.headers, "Content-Type": "image/svg+xml", "Content-Disposition": 'filename="drawing.svg"'}
        shown = shown._replace(headers=headers)
    await check(
        server,
        [
            row("rgb.png", "image/png"),
            row("palette.gif", "image/gif"),
            row("text.txt", "text/plain"),
            row("film.mp4", "video/mp4"),
            row("sound.flac", re.compile("audio/(x-)?flac")),
            row("data.json", "application/json"),
            row("unknown.xyzzy", data),
            row("noending", data),
            row("page.html", data),
            row("page.xhtml", data),
            row("style.css", data),
            row("script.js", script),
            row("drawing.svg", drawing),
            *(
                row("drawing.svg", drawing)._replace(sent={"Sec-Fetch-Dest": other})
                for other in ("document", "iframe", "")
            ),
            *(row(name, data)._replace(sent=in_an_image) for name in ("page.html", "style.css")),
            shown._replace(sent=in_an_image),
            row("rgb.png", "image/png")._replace(sent=in_an_image),
            Row("GET", "/view?filename=drawing.svg&subfolder=v", 200, headers={"Vary": None, **varies}),
            Row("GET", "/view?filename=drawing.svg&subfolder=v", 200, headers=varies, sent=in_an_image),
            Row("GET", "/view?filename=rgb.png&subfolder=v", 200, headers={"Vary": None}, sent=in_an_image),
        ],
    )


async def test_parts_of_files_and_unchanged_files(server: Server, files: dict[str, bytes]) -> None:
    """Ranges, HEAD, and 304 for what the client has already."""
    path = "/view?filename=text.txt&subfolder=v"
    whole = await ask(server, "GET", path)
    etag, modified = whole.headers["ETag"], whole.headers["Last-Modified"]
    await check(
        server,
        [
            Row("GET", path, 200, headers={"Accept-Ranges": "bytes", "Content-Length": "10"}),
            Row("GET", path, 206, "234", {"Content-Range": "bytes 2-4/10"}, sent={"Range": "bytes=2-4"}),
            Row("GET", path, 206, "789", {"Content-Range": "bytes 7-9/10"}, sent={"Range": "bytes=-3"}),
            Row("GET", path, 206, "89", {"Content-Range": "bytes 8-9/10"}, sent={"Range": "bytes=8-"}),
            Row("GET", path, 206, "9", {"Content-Range": "bytes 9-9/10"}, sent={"Range": "bytes=9-99"}),
            Row("GET", path, 416, "", {"Content-Range": "bytes */10"}, sent={"Range": "bytes=10-"}),
            Row("GET", path, 416, sent={"Range": "lines=1-2"}),
            Row("GET", path, 304, "", sent={"If-None-Match": etag}),
            Row("GET", path, 200, "0123456789", sent={"If-None-Match": '"other"'}),
            Row("GET", path, 304, "", sent={"If-Modified-Since": modified}),
            Row("GET", path, 200, sent={"If-Modified-Since": "Thu, 01 Jan 1998 00:00:00 GMT"}),
            Row("GET", path, 412, sent={"If-Match": '"other"'}),
            Row("HEAD", path, 200, "", {"Content-Length": "10", "Content-Type": "text/plain"}),
            Row("HEAD", "/view?filename=nosuch.txt", 404, ""),
            Row("POST", path, 405),
        ],
    )


async def test_previews_and_channels(server: Server, files: dict[str, bytes]) -> None:
    """A smaller file, the colours alone, the transparency alone."""
    webp, jpeg, png = "image/webp", "image/jpeg", "image/png"
    rgb, half = (254, 0, 0), (10, 20, 30, 128)
    rows = []
    for name, query, type, content in (
        ("rgb.png", "preview=webp;90", webp, shows("WEBP", "RGB", rgb)),
        ("rgb.png", "preview=jpeg;90", jpeg, shows("JPEG", "RGB", rgb)),
        ("rgb.png", "preview=jpeg", jpeg, shows("JPEG", "RGB", rgb)),
        ("rgb.png", "preview=webp;x", webp, shows("WEBP", "RGB", rgb)),
        ("rgb.png", "preview=png;50", webp, shows("WEBP", "RGB", rgb)),
        ("rgb.png", "preview=", webp, shows("WEBP", "RGB", rgb)),
        ("rgba.png", "preview=webp;80", webp, shows("WEBP", "RGBA", half)),
        ("rgba.png", "preview=jpeg;80", jpeg, shows("JPEG", "RGB", (10, 20, 30))),
        ("rgba.png", "preview=webp;90&channel=rgb", webp, shows("WEBP", "RGB", (10, 20, 30))),
        ("rgba.png", "preview=jpeg;90&channel=a", webp, shows("WEBP", "RGBA", half)),
        ("rgba.png", "preview=jpeg;90&channel=rgba", webp, shows("WEBP", "RGBA", half)),
        ("rgba.png", "channel=rgb", png, shows("PNG", "RGB", (10, 20, 30))),
        ("rgba.png", "channel=a", png, shows("PNG", "RGBA", (0, 0, 0, 128))),
        ("rgba.png", "channel=rgba", png, HALF),
        ("rgba.png", "channel=nosuch", png, HALF),
        ("rgb.png", "channel=rgb", png, shows("PNG", "RGB", (255, 0, 0))),
        ("rgb.png", "channel=a", png, shows("PNG", "RGBA", (0, 0, 0, 255))),
        ("grey.png", "channel=rgb", png, shows("PNG", "RGB", (77, 77, 77))),
        ("grey.png", "channel=a", png, shows("PNG", "RGBA", (0, 0, 0, 255))),
        ("grey.png", "preview=jpeg;90", jpeg, shows("JPEG", "RGB", (77, 77, 77))),
    ):
        path = f"/api/view?filename={name}&subfolder=v&{query}"
        headers = {"Content-Type": type, "Content-Disposition": f'filename="{name}"'}
        rows.append(Row("GET", path, 200, content, headers))
    for query in ("preview=webp;90", "channel=rgb", "channel=a"):
        rows.append(Row("GET", f"/view?filename=text.txt&subfolder=v&{query}", 500))
        rows.append(Row("GET", f"/view?filename=nosuch.png&{query}", 404, ""))
    await check(server, rows)
