"""Lists of model files, what is in them, and pictures beside them."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import struct
from typing import Any

import pytest
from conformance.asking import Answer, Row, ask, check, has
from conformance.differences import expected
from conformance.driver import Server
from PIL import Image

# Folder names of 0.3.64, in their order.
FOLDERS = [
    *("checkpoints", "configs", "loras", "vae", "text_encoders", "diffusion_models", "clip_vision", "style_models"),
    *("embeddings", "diffusers", "vae_approx", "controlnet", "gligen", "upscale_models", "custom_nodes"),
    *("hypernetworks", "photomaker", "classifiers", "model_patches", "audio_encoders"),
]


def safetensors(header: Any, length: int | None = None) -> bytes:
    """A safetensors file without tensors."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


def png(colour: str) -> bytes:
    """An image file."""
    file = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(file, "PNG")
    return file.getvalue()


def is_webp(colour: tuple[int, int, int]) -> Any:
    """The answer is a WEBP image of (about) that colour."""

    def look(answer: Answer) -> bool:
        with Image.open(io.BytesIO(answer.body)) as image:
            seen = image.convert("RGB").getpixel((0, 0))
            return image.format == "WEBP" and all(abs(a - b) < 9 for a, b in zip(seen, colour, strict=True))

    return look


_COVER = json.dumps([base64.b64encode(png("blue")).decode()])
FILES = {
    "loras/with.safetensors": safetensors({"__metadata__": {"a": "1", "ä": "漢"}, "t": {}}),
    "loras/without.safetensors": safetensors({"t": {}}),
    "loras/empty.safetensors": safetensors({"__metadata__": {}}),
    "loras/cover.safetensors": safetensors({"__metadata__": {"ssmd_cover_images": _COVER}}),
    "loras/sub/deep.safetensors": safetensors({"__metadata__": {"deep": "1"}}),
    "loras/big.safetensors": safetensors({}, length=2 * 1024 * 1024),
    "loras/damaged.safetensors": safetensors(b"{no JSON"),
    "loras/short.safetensors": b"123",
    "loras/list.safetensors": safetensors([1]),
    "loras/other.ckpt": b"x",
    "loras/UPPER.CKPT": b"x",
    "loras/notes.txt": b"x",
    "loras/.hidden.ckpt": b"x",
    "loras/.hidden/in.ckpt": b"x",
    "loras/.git/in.ckpt": b"x",
    "loras/pictured.ckpt": b"x",
    "loras/pictured.png": png("red"),
    "loras/previewed.ckpt": b"x",
    "loras/previewed.preview.png": png("green"),
    "loras/text.ckpt": b"x",
    "loras/text.jpg": b"no image",
    "embeddings/one.pt": b"x",
    "embeddings/sub/two.safetensors": safetensors({}),
    "clip/old.safetensors": safetensors({"__metadata__": {"old": "1"}}),
    "outside.png": png("red"),
    "style_models/no_json.safetensors": safetensors({"__metadata__": {"ssmd_cover_images": "{no JSON"}}),
    "style_models/no_base64.safetensors": safetensors({"__metadata__": {"ssmd_cover_images": '["x"]'}}),
    "style_models/no_texts.safetensors": safetensors({"__metadata__": {"ssmd_cover_images": "[1]"}}),
}


@pytest.fixture(autouse=True)
def files(server: Server) -> None:
    """Files in the model folders."""
    for name, content in FILES.items():
        path = server.base / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(content)


async def test_folders_and_their_files_are_listed(server: Server) -> None:
    """All folder names; of one, the files of its kind, with sub-folders."""
    names = (await ask(server, "GET", "/models")).json
    assert [name for name in names if name in FOLDERS] == FOLDERS
    loras = [
        *(".hidden.ckpt", ".hidden/in.ckpt", "UPPER.CKPT", "big.safetensors", "cover.safetensors"),
        *("damaged.safetensors", "empty.safetensors", "list.safetensors", "other.ckpt", "pictured.ckpt"),
        *("previewed.ckpt", "short.safetensors", "sub/deep.safetensors", "text.ckpt", "with.safetensors"),
        "without.safetensors",
    ]
    rows = []
    for prefix in ("", "/api"):
        rows += [
            Row("GET", f"{prefix}/models", 200, names),
            Row("GET", f"{prefix}/models/loras", 200, loras),
            Row("GET", f"{prefix}/models/text_encoders", 200, ["old.safetensors"]),
            # A renamed folder is not listed under its old name.
            Row("GET", f"{prefix}/models/clip", 404, ""),
            Row("GET", f"{prefix}/models/nosuch", 404, ""),
            Row("GET", f"{prefix}/models/..%2Floras", 404, ""),
            Row("GET", f"{prefix}/models/", 404),
            Row("GET", f"{prefix}/embeddings", 200, ["one", "sub/two"]),
            Row("POST", f"{prefix}/models", (404, 405)),
        ]
    await check(server, rows)


async def test_model_files_are_described(server: Server) -> None:
    """Size, times, and in which of the folders; hidden ones are left out."""
    folders = (await ask(server, "GET", "/experiment/models")).json
    assert [folder["name"] for folder in folders if folder["name"] in FOLDERS] == [
        name for name in FOLDERS if name not in ("configs", "custom_nodes")
    ]
    (loras,) = [folder for folder in folders if folder["name"] == "loras"]
    assert loras["folders"] == [str(server.base / "models/loras"), str(server.base / "output/loras")]
    endings = [".bin", ".ckpt", ".pkl", ".pt", ".pt2", ".pth", ".safetensors", ".sft"]
    assert loras.get("extensions") == (endings if has(server, 0, 28) else None)
    described = {entry["name"]: entry for entry in (await ask(server, "GET", "/api/experiment/models/loras")).json}
    assert sorted(described) == [
        *("UPPER.CKPT", "big.safetensors", "cover.safetensors", "damaged.safetensors", "empty.safetensors"),
        *("list.safetensors", "other.ckpt", "pictured.ckpt", "previewed.ckpt", "short.safetensors"),
        *("sub/deep.safetensors", "text.ckpt", "with.safetensors", "without.safetensors"),
    ]
    stat = os.stat(server.base / "models/loras/other.ckpt")
    assert described["other.ckpt"] == {
        "name": "other.ckpt",
        "pathIndex": 0,
        "modified": stat.st_mtime,
        "created": stat.st_ctime,
        "size": 1,
    }
    await check(
        server,
        [
            Row("GET", "/experiment/models/nosuch", 404, ""),
            Row("GET", "/experiment/models/vae", 200, []),
            Row(
                "GET",
                "/experiment/models/text_encoders",
                200,
                lambda answer: [(e["name"], e["pathIndex"]) for e in answer.json] == [("old.safetensors", 1)],
            ),
        ],
    )


async def test_the_metadata_of_a_model_can_be_read(server: Server) -> None:
    """404 for files without; the embedded server says so of damaged ones, too."""
    broken = expected(server, "bad requests", comfyui=500, embedded=404)

    def row(name: str, status: int, content: Any = "", folder: str = "loras") -> Row:
        return Row("GET", f"/view_metadata/{folder}?filename={name}", status, content)

    await check(
        server,
        [
            row("with.safetensors", 200, {"a": "1", "ä": "漢"}),
            row("empty.safetensors", 200, {}),
            row("sub/deep.safetensors", 200, {"deep": "1"}),
            row("sub%2Fdeep.safetensors", 200, {"deep": "1"}),
            row("../with.safetensors", 200, {"a": "1", "ä": "漢"}),
            row("/with.safetensors", 200, {"a": "1", "ä": "漢"}),
            row("old.safetensors", 200, {"old": "1"}, "clip"),
            row("old.safetensors", 200, {"old": "1"}, "text_encoders"),
            row("without.safetensors", 404),
            row("big.safetensors", 404),
            row("nosuch.safetensors", 404),
            row("other.ckpt", 404),
            row("with.SAFETENSORS", 404),
            row("", 404),
            row("with.safetensors", 404, "", "nosuch"),
            row("damaged.safetensors", broken, re.compile("")),
            row("short.safetensors", broken, re.compile("")),
            row("list.safetensors", 404, ""),
            Row("GET", "/view_metadata/loras", 404, ""),
            Row("GET", "/view_metadata/", 404),
            Row("GET", "/api/view_metadata/loras?filename=empty.safetensors", 200, {}),
        ],
    )


async def test_pictures_of_models(server: Server) -> None:
    """A picture of the same name beside the file, or the cover inside it, as WEBP."""
    since_28 = has(server, 0, 28)
    broken = expected(server, "bad requests", comfyui=500, embedded=404)

    def row(path: str, status: Any, content: Any = re.compile("")) -> Row:
        headers = {"Content-Type": "image/webp"} if status == 200 else {}
        return Row("GET", f"/experiment/models/preview/{path}", status, content, headers)

    await check(
        server,
        [
            row("loras/0/pictured.ckpt", 200, is_webp((255, 0, 0))),
            row("loras/0/pictured", 200, is_webp((255, 0, 0))),
            row("loras/0/previewed.ckpt", 200, is_webp((0, 128, 0))),
            row("loras/0/cover.safetensors", 200, is_webp((0, 0, 255))),
            row("loras/0/other.ckpt", 404, ""),
            row("loras/0/text.ckpt", 404, ""),
            *(row(f"style_models/0/{name}.safetensors", broken) for name in ("no_json", "no_base64", "no_texts")),
            row("loras/0/sub/deep.safetensors", 404, ""),
            row("loras/0/nosuch/x.ckpt", 404, ""),
            row("loras/1/pictured.ckpt", 404, ""),
            row("nosuch/0/pictured.ckpt", 404, ""),
            row("loras/x/pictured.ckpt", 400 if since_28 else 500),
            row("loras/9/pictured.ckpt", 404 if since_28 else 500),
            row("loras/0/", 400 if since_28 else (404, 500)),
            row("loras/0/..%2Foutside.ckpt", 403 if since_28 else 200),
            row("loras/0/%2Fetc%2Fpasswd", 403 if since_28 else 404),
        ],
    )
