"""A scripted endpoint of OpenAI's chat API on this machine, which misbehaves on demand and keeps what it is asked.

    with FakeOpenAI(Reply(429), Reply(429)) as fake:   # the first two requests; all others get *default*
        ask(fake.url)                                  # http://127.0.0.1:PORT/v1
        fake.requests[0].json["messages"]

It runs in a thread of its own, so tests may block, and servers in other processes may ask it.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiohttp import web
from PIL import Image


class Request(NamedTuple):
    """What was asked."""

    path: str
    headers: Mapping[str, str]
    json: Any
    #: time.monotonic()
    at: float

    @property
    def prompt(self) -> str:
        return str(self.content[0]["text"])

    @property
    def content(self) -> list[dict[str, Any]]:
        """The parts of the user's message."""
        return list(self.json["messages"][-1]["content"])

    @property
    def pictures(self) -> list[Image.Image]:
        """The pictures of the user's message, decoded."""
        urls = [part["image_url"]["url"] for part in self.content if part["type"] == "image_url"]
        return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]


@dataclass
class Reply:
    """One answer; the default is a good one."""

    status: int = 200
    #: the text of the description; a function is given the request
    text: Any = "A picture."
    #: the complaint of an answer that is no success; a function is given the request
    message: str | Callable[[Request], str] = "no"
    #: fields of the complaint
    error: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    finish_reason: str = "stop"
    refusal: str | None = None
    #: in place of everything above: the very bytes of the body
    body: bytes | None = None
    content_type: str = "application/json"
    #: seconds before the answer; a function is given the request
    delay: float | Callable[[Request], float] = 0.0
    #: never answers
    hangs: bool = False
    #: cuts the connection instead of answering
    drops: bool = False
    #: seconds between two bytes of the answer, which never ends
    drips: float = 0.0


class FakeOpenAI:
    """The endpoint; a context manager."""

    def __init__(self, *script: Reply, default: Reply | Callable[[Request], Reply] | None = None) -> None:
        self.script = list(script)
        self.default = default or Reply()
        self.requests: list[Request] = []
        #: how many are being answered now, and the most that ever were
        self.open = 0
        self.most_open = 0
        self.url = ""

    @property
    def origin(self) -> str:
        return self.url.removesuffix("/v1")

    def __enter__(self) -> FakeOpenAI:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-openai")
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application(client_max_size=256 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        # A handler ends with its connection: one that hangs, too.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _answer(self, http: web.Request) -> web.StreamResponse:
        request = Request(http.path_qs, dict(http.headers), json.loads(await http.read() or b"null"), time.monotonic())
        self.requests.append(request)
        reply = self.script.pop(0) if self.script else self.default
        if callable(reply):
            reply = reply(request)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            return await self._reply(http, request, reply)
        finally:
            self.open -= 1

    async def _reply(self, http: web.Request, request: Request, reply: Reply) -> web.StreamResponse:
        await asyncio.sleep(reply.delay(request) if callable(reply.delay) else reply.delay)
        if reply.hangs:
            await asyncio.Event().wait()
        if reply.drops:
            assert http.transport is not None
            http.transport.abort()
        if reply.drips:
            stream = web.StreamResponse(headers={"Content-Type": "application/json"})
            await stream.prepare(http)
            while True:
                await stream.write(b" ")
                await asyncio.sleep(reply.drips)
        body = reply.body if reply.body is not None else json.dumps(_body(request, reply)).encode()
        return web.Response(status=reply.status, body=body, content_type=reply.content_type, headers=reply.headers)


def _body(request: Request, reply: Reply) -> dict[str, Any]:
    if reply.status != 200:
        message = reply.message(request) if callable(reply.message) else reply.message
        return {"error": {"message": message, "type": None, "code": None, **reply.error}}
    text = reply.text(request) if callable(reply.text) else reply.text
    message = {"role": "assistant", "content": text, "refusal": reply.refusal}
    return {
        "id": "1", "object": "chat.completion", "created": 1, "model": request.json["model"],
        "choices": [{"index": 0, "finish_reason": reply.finish_reason, "message": message}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13},
    }  # fmt: skip
