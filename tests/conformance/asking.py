"""Requests in tables: what is asked, and what a server answers.

A path goes over the wire exactly as it is written here (no ``..`` is resolved, nothing is escaped once more), so the
tables can say what a hostile or careless client sends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import aiohttp
from conformance.driver import Server
from yarl import URL

# Seconds an answer may take; test machines can be slow.
TIMEOUT = 60.0

# "Do not look at this": for a content or a status that says nothing.
ANY = re.compile("")


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Row(NamedTuple):
    """One request and its answer."""

    # "GET", and the path with its query as it goes over the wire
    method: str
    path: str
    # The status the answer has, or those it may have.
    status: int | tuple[int, ...]
    # What the answer has: a text, bytes, JSON (a dict, a list, True, a number, None for "null"), a pattern the text
    # contains, or a function that says whether the Answer is right.
    content: Any = ANY
    # Headers of the answer; None: it has none of that name; a pattern: its value contains that.
    headers: Mapping[str, str | re.Pattern[str] | None] = {}
    # The body of the request: text and bytes as they are, a form, anything else as JSON.
    body: Any = b""
    # Headers of the request.
    sent: Mapping[str, str] = {}


class File(NamedTuple):
    """A file in a form."""

    name: str
    content: bytes
    type: str = "image/png"


def form(**fields: str | File) -> aiohttp.FormData:
    """A multipart form of texts and files."""
    data = aiohttp.FormData(quote_fields=False)
    # Without files too, so that the form is a multipart one.
    data._is_multipart = True
    for name, value in fields.items():
        if isinstance(value, File):
            data.add_field(name, value.content, filename=value.name, content_type=value.type)
        else:
            data.add_field(name, value)
    return data


async def ask(server: Server, method: str, path: str, body: Any = b"", **headers: str) -> Answer:
    """Send one request; redirects are not followed.

    Args:
        body: as in :class:`Row`.
        headers: with ``_`` for ``-``.
    """
    return await _ask(
        server, Row(method, path, 0, body=body, sent={k.replace("_", "-"): v for k, v in headers.items()})
    )


async def check(server: Server, rows: Sequence[Row]) -> None:
    """Ask everything in order; fails with all rows that were answered otherwise."""
    wrong = []
    for row in rows:
        answer = await _ask(server, row)
        problem = _problem(row, answer)
        if problem:
            wrong.append(f"{row.method} {row.path} {row.body if row.body != b'' else ''}: {problem}")
    assert not wrong, "\n".join(wrong)


async def _ask(server: Server, row: Row) -> Answer:
    is_raw = isinstance(row.body, (bytes, str, aiohttp.FormData))
    body: dict[str, Any] = {"data": row.body} if is_raw else {"json": row.body}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(TIMEOUT)) as session,
        session.request(
            row.method, URL(server.url + row.path, encoded=True), headers=row.sent, allow_redirects=False, **body
        ) as answer,
    ):
        return Answer(answer.status, answer.headers, await answer.read())


def _problem(row: Row, answer: Answer) -> str | None:
    """In what an answer is not as a row says."""
    allowed = row.status if isinstance(row.status, tuple) else (row.status,)
    if answer.status not in allowed:
        return f"status {answer.status}, not {row.status}: {answer.body[:200]!r}"
    for name, value in row.headers.items():
        if not _matches(value, answer.headers.get(name)):
            return f"{name}: {answer.headers.get(name)!r}, not {value!r}"
    return _content_problem(row.content, answer)


def _content_problem(content: Any, answer: Answer) -> str | None:
    if isinstance(content, re.Pattern):
        fits = content is ANY or content.search(answer.text) is not None
    elif isinstance(content, bytes):
        fits = answer.body == content
    elif isinstance(content, str):
        fits = answer.text == content
    elif isinstance(content, Callable):  # type: ignore[arg-type]
        fits = content(answer)
    else:
        fits = answer.json == content
    return None if fits else f"content {answer.body[:1000]!r}, not {content!r}"


def _matches(expected: str | re.Pattern[str] | None, value: str | None) -> bool:
    if isinstance(expected, re.Pattern):
        return value is not None and expected.search(value) is not None
    return value == expected


def has(server: Server, *version: int) -> bool:
    """Whether a server has what ComfyUI has since a version: the embedded one has what was added later, too."""
    return server.is_embedded or server.version >= version
