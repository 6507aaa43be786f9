"""How a request is read and answered: who may ask, how much may be sent, and what an error looks like.

Every handler of this package is wrapped by :func:`guarded`. Errors are ``{"error": sentence}``.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from ..durable.run_folder import finite
from .same_origin import why_foreign

log = logging.getLogger("discomfort.editor")

Json = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: bytes of a request, unless its handler says otherwise
BODY_LIMIT = 2**20

_RUN_ID = re.compile(r"[0-9a-f]{32}")
# Characters of a value's name.
_NAME_LIMIT = 1000
# ComfyUI lets browsers keep pictures, also the news that there is none, by the ending of their path (0.3.64).
_NEVER_KEPT = {"Cache-Control": "no-store"}


class RefusedError(Exception):
    """The answer is an error."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        #: HTTP status
        self.status = status
        #: for people
        self.sentence = sentence


def guarded(handler: Handler) -> Handler:
    """A handler that refuses foreign pages, and whose errors are JSON."""

    async def guard(request: web.Request) -> web.StreamResponse:
        try:
            problem = why_foreign(request.headers)
            if problem is not None:
                log.warning("%s %s is refused: %s", request.method, request.path, problem)
                raise RefusedError(403, problem)
            return await handler(request)
        except RefusedError as refused:
            return error_answer(refused.status, refused.sentence)
        except web.HTTPException as error:
            return error_answer(error.status, error.reason)
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            return error_answer(500, f"The server could not answer: {type(error).__name__}: {error}")

    return guard


def error_answer(status: int, sentence: str) -> web.Response:
    """An error as the sidebar takes it."""
    return web.json_response({"error": sentence}, status=status, headers=_NEVER_KEPT)


def answer(content: Mapping[str, Any]) -> web.Response:
    """JSON; numbers that JSON does not have become text."""
    return encoded_answer(encode(content))


def encode(content: Mapping[str, Any]) -> bytes:
    """The body of an answer. Large ones are made in a thread."""
    return json.dumps(finite(content), separators=(",", ":"), default=str).encode()


def encoded_answer(body: bytes) -> web.Response:
    """What :func:`encode` made."""
    return web.Response(body=body, content_type="application/json", charset="utf-8", headers=_NEVER_KEPT)


async def read_json(request: web.Request, limit: int = BODY_LIMIT) -> Json:
    """The JSON object of a request.

    Raises:
        RefusedError: it is not declared to be JSON (a form of a foreign page cannot do that), is none, or is too large.
    """
    if request.content_type != "application/json":
        raise RefusedError(415, f"This takes JSON (Content-Type: application/json), not {request.content_type!r}.")
    if (request.content_length or 0) > limit:
        raise RefusedError(413, f"The request has more than the {limit:,} bytes that are taken here.")
    body = bytearray()
    async for chunk in request.content.iter_chunked(2**16):
        body += chunk
        if len(body) > limit:
            raise RefusedError(413, f"The request has more than the {limit:,} bytes that are taken here.")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"The request is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise RefusedError(400, "The request is no JSON object.")
    return content


def run_id_of(request: web.Request) -> str:
    """The run that the path names. RefusedError: it cannot be one."""
    run_id = request.match_info["run_id"]
    if not _RUN_ID.fullmatch(run_id):
        raise RefusedError(400, f"{run_id[:100]!r} is no run's id: those have 32 hex digits.")
    return run_id


def name_of(request: web.Request) -> str:
    """The value that the path names. RefusedError: it is too long."""
    name = request.match_info["name"]
    if len(name) > _NAME_LIMIT:
        raise RefusedError(400, f"A value's name has at most {_NAME_LIMIT:,} characters.")
    return name


def number_of(request: web.Request, name: str, otherwise: int, least: int, most: int) -> int:
    """A whole number of the query. RefusedError: it is none, or out of bounds."""
    text = request.query.get(name, str(otherwise))
    if not re.fullmatch(r"\d{1,18}", text) or not least <= int(text) <= most:
        raise RefusedError(400, f"{name}={text[:40]!r} is no whole number from {least:,} to {most:,}.")
    return int(text)


def texts_of(content: Mapping[str, Any], key: str, most: int = 200, length: int = 4096) -> list[str]:
    """A list of texts in a request; [] where it is left out. RefusedError: it is none, or too large."""
    texts = content.get(key, [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise RefusedError(400, f"{key!r} is a list of texts.")
    if len(texts) > most or any(len(text) > length for text in texts):
        raise RefusedError(400, f"{key!r} has at most {most} texts of at most {length:,} characters.")
    return texts
