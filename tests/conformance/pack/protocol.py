"""What a package does with clients: messages of its own, previews, a log line."""

from __future__ import annotations

import logging
import threading
from typing import Any

from aiohttp import web
from comfy.utils import ProgressBar
from PIL import Image
from server import PromptServer


@PromptServer.instance.routes.post("/tiny/send")
async def send(request: web.Request) -> web.Response:
    """Send a message: {event, data or hex or size, sid, how, times}.

    how is "sync", "async", "thread", or "unwritable" for data that is no JSON.
    """
    body = await request.json()
    server = PromptServer.instance
    data = body.get("data")
    if "hex" in body:
        data = bytes.fromhex(body["hex"])
    elif "size" in body:
        data = {"text": "x" * body["size"]}
    message = (body["event"], data, body.get("sid"))

    def repeat() -> None:
        for _ in range(body.get("times", 1)):
            server.send_sync(*message)

    how = body.get("how", "sync")
    if how == "unwritable":
        message = (body["event"], object(), body.get("sid"))
    if how == "async":
        await server.send(*message)
    elif how == "thread":
        threading.Thread(target=repeat).start()
    else:
        repeat()
    return web.Response()


@PromptServer.instance.routes.post("/tiny/text")
async def send_text(request: web.Request) -> web.Response:
    """Show a text on a node: {text, node, sid}."""
    body = await request.json()
    PromptServer.instance.send_progress_text(body["text"], body["node"], body.get("sid"))
    return web.Response()


@PromptServer.instance.routes.post("/tiny/picture")
async def send_picture(request: web.Request) -> web.Response:
    """Send a preview without a prompt: {sid, metadata}."""
    body = await request.json()
    server = PromptServer.instance
    picture = ("PNG", Image.new("RGB", (8, 4), 77), 4)
    if "metadata" in body:
        await server.send_image_with_metadata(picture, body["metadata"], body["sid"])
    else:
        await server.send_image(picture, body["sid"])
    return web.Response()


@PromptServer.instance.routes.get("/tiny/instance")
async def get_instance(request: web.Request) -> web.Response:
    """What packages find at the server object."""
    server = PromptServer.instance
    assert server.client_session is not None
    async with server.client_session.get(f"http://127.0.0.1:{server.port}/prompt") as answer:
        asked = await answer.json()
    return web.json_response(
        {
            "asked": asked,
            "bytes": server.encode_bytes(3, b"x").hex(),
            "setting": server.user_manager.settings.get_settings(request).get("of.a.package"),
            "file": server.user_manager.get_request_user_filepath(request, "a/b.txt", create_dir=False),
            "supports": server.supports,
        }
    )


@PromptServer.instance.routes.post("/tiny/log")
async def write_log(request: web.Request) -> web.Response:
    """Log a text, or {print: text} it."""
    body = await request.json()
    if "print" in body:
        print(body["print"], flush=True)
    else:
        logging.info(body["log"])
    return web.Response()


@PromptServer.instance.routes.get("/tiny/sockets")
async def get_sockets(_: web.Request) -> web.Response:
    """The clients, and what they said about themselves."""
    server = PromptServer.instance
    return web.json_response({sid: server.sockets_metadata.get(sid) for sid in server.sockets})


class TinyPreview:
    """Sends previews of an image of one grey."""

    CATEGORY = "tiny"
    FUNCTION = "run"
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "kind": (["JPEG", "PNG"],),
                "mode": ("STRING", {"default": "RGB"}),
                "width": ("INT", {"default": 40}),
                "height": ("INT", {"default": 20}),
                "largest": ("INT", {"default": 0}),
                "steps": ("INT", {"default": 1}),
            }
        }

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:
        return float("nan")

    def run(self, kind: str, mode: str, width: int, height: int, largest: int, steps: int) -> dict[str, Any]:
        bar = ProgressBar(steps)
        for step in range(steps):
            bar.update_absolute(step + 1, steps, (kind, Image.new(mode, (width, height), 77), largest or None))
        return {"ui": {}}


NODE_CLASS_MAPPINGS = {"TinyPreview": TinyPreview}
