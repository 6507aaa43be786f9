"""Text about pictures, from any endpoint that speaks OpenAI's chat API, through the ``openai`` library.

    descriptions = describe(images, Question(...), Limits(...), access, watch=..., report=...)

The library tries again what may work the next time, with growing pauses, and waits as long as an endpoint asks for in
``Retry-After``; nothing is added to that here. Requests run in a thread with an event loop of its own: the loop of the
node that executes may be held up for minutes by a sampler, and every request would run out of time. The node's own
thread looks for the user's Cancel meanwhile.

The library's exceptions do not get out of this module: what an endpoint says, in ``describer_answers.py``, may repeat
the key.
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import importlib
import importlib.util
import io
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .describer_answers import DescribingError, Description, Limits, Question, explain, read_answer
from .endpoint_access import OPENAI_ORIGIN, Access

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")

#: values of the node's ``mode``
PER_IMAGE = "one text per image"
PER_BATCH = "one text for the batch"

# Seconds between two looks at the user's Cancel, and those that a cancelled request has to end.
_POLL = 0.1
_END_TIMEOUT = 0.7
# Seconds that the library waits at most when an endpoint asks for it (2 minutes as of version 3; older: 1).
_LONGEST_PAUSE = 120.0
# Seconds to reach an endpoint, of those that it has to answer.
_CONNECT_TIMEOUT = 15.0
# The thread that asks.
_THREAD = "discomfort-describer"
# Loggers of openai and of the HTTP libraries below it (httpx until its version 2). At the level DEBUG they write down
# the headers of answers, which may repeat the key; at INFO one line for every request.
_LOGGERS = [
    "openai._base_client",
    "openai._response",
    "openai._legacy_response",
    *(
        f"{name}{version}{part}"
        for version in ("", "2")
        for name, parts in (("httpx", [""]), ("httpcore", [".connection", ".http11", ".http2", ".proxy", ".socks"]))
        for part in parts
    ),
]
# Servers without keys ignore it; the library insists on something.
_NO_KEY = "none"
_INSTALL = (
    "The image describer needs the Python library openai, which is not there or cannot be loaded. Install it into "
    f"ComfyUI's Python and restart: {sys.executable} -m pip install openai"
)
# What a request needs. The library adds names of systems and versions, and what the environment says for OpenAI (the
# organization, custom headers): no business of other endpoints.
_HEADERS = {"host", "accept", "accept-encoding", "connection", "content-type", "content-length", "user-agent"}


# ---- the pictures ----


def data_url(image: Any, max_side: int = 0) -> str:
    """A picture as a ``data:image/jpeg`` URL.

    Args:
        image: float tensor [H,W,C] in 0..1, C of 1 (grey), 3 or 4 (put on white); values outside count as 0 or 1, NaN
            as 0.
        max_side: see :class:`Limits`.
    """
    picture = _picture(image)
    if max_side and max(picture.size) > max_side:
        picture.thumbnail((max_side, max_side))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getbuffer()).decode("ascii")


def _picture(image: Any) -> Image.Image:
    import numpy as np
    from PIL import Image

    shape = tuple(image.shape)
    if len(shape) != 3 or shape[2] not in (1, 3, 4) or 0 in shape:
        raise DescribingError(f"A picture of the shape {list(shape)} cannot be sent: expected [H,W,C], C of 1, 3 or 4.")
    values = np.nan_to_num(image.detach().cpu().float().numpy(), nan=0.0, posinf=1.0, neginf=0.0).clip(0.0, 1.0)
    if shape[2] == 4:
        values = values[..., :3] * values[..., 3:] + (1.0 - values[..., 3:])
    levels = (values * 255.0).round().astype(np.uint8)
    return Image.fromarray(levels[..., 0] if shape[2] == 1 else levels)


def groups_of(images: Any, mode: str) -> list[Any]:
    """The pictures [B,H,W,C] of each request, as views of the batch."""
    if len(images.shape) != 4 or not len(images):
        raise DescribingError(f"There is no picture in a batch of the shape {list(images.shape)}: expected [B,H,W,C].")
    return [images] if mode == PER_BATCH else [images[i : i + 1] for i in range(len(images))]


# ---- asking ----


def load_library() -> Any:
    """The ``openai`` library.

    Raises:
        DescribingError: it is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module("openai")
    except ImportError as error:
        raise DescribingError(f"{_INSTALL} ({error})") from error


def find_missing_library() -> str | None:
    """What to do where the ``openai`` library is not installed; None where it is. Loads nothing."""
    return None if importlib.util.find_spec("openai") else _INSTALL


def describe(
    groups: Sequence[Any],
    question: Question,
    limits: Limits,
    access: Access,
    watch: Callable[[], None],
    report: Callable[[int], None],
) -> list[Description]:
    """Ask once for each group of pictures; the answers are in the order of the groups.

    Pictures are encoded when it is their turn, so that no more of them are in memory than requests go on at once.

    Args:
        groups: see :func:`groups_of`.
        watch: called ten times a second, in this thread; what it raises ends everything at once.
        report: called in this thread with the number of answers, whenever that has changed.

    Raises:
        DescribingError: the first group that failed; the requests of the others are given up.
    """
    if not question.model:
        raise DescribingError("model is empty: name a model of the endpoint that understands images.")
    library = load_library()
    _silence_libraries()
    done = [0]
    reported = 0

    def look() -> None:
        nonlocal reported
        watch()
        if done[0] != reported:
            reported = done[0]
            report(reported)

    answers = run_beside(lambda: _ask_all(library, groups, question, limits, access, done), look)
    report(len(answers))
    return answers


def _silence_libraries() -> None:
    """Keep what these libraries log about our own requests out of every log. Others' requests are logged as ever."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_is_not_ours)  # once: a filter that is there is not added again


def _is_not_ours(record: logging.LogRecord) -> bool:
    return record.threadName != _THREAD


def run_beside(work: Callable[[], Coroutine[Any, Any, T]], look: Callable[[], None]) -> T:
    """Run a coroutine in a thread with an event loop of its own; returns or raises what it does.

    Args:
        work: makes the coroutine.
        look: called every tenth of a second meanwhile, in this thread. Whatever it raises cancels the coroutine, and
            gets out within a second: a thread that is stuck then (in a name server's answer) ends by itself later.
    """
    outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
    started: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]]
    started = concurrent.futures.Future()

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None
        started.set_result((asyncio.get_running_loop(), task))
        return await work()

    def body() -> None:
        try:
            outcome.set_result(asyncio.run(main()))
        except BaseException as error:  # it gets out in the other thread
            outcome.set_exception(error)

    thread = threading.Thread(target=body, name=_THREAD, daemon=True)
    thread.start()
    try:
        while not concurrent.futures.wait([outcome], timeout=_POLL).done:
            look()
    except BaseException:
        either: list[concurrent.futures.Future[Any]] = [started, outcome]
        concurrent.futures.wait(either, _END_TIMEOUT, concurrent.futures.FIRST_COMPLETED)
        if started.done() and not outcome.done():
            loop, task = started.result()
            with contextlib.suppress(RuntimeError):  # the loop has just been closed
                loop.call_soon_threadsafe(task.cancel)
            concurrent.futures.wait([outcome], _END_TIMEOUT)
        raise
    thread.join()
    return outcome.result()


async def _ask_all(
    library: Any, groups: Sequence[Any], question: Question, limits: Limits, access: Access, done: list[int]
) -> list[Description]:
    """All answers; counts them in ``done[0]``."""
    places = asyncio.Semaphore(max(1, limits.concurrency))
    async with _client(library, limits, access) as client:

        async def one(number: int, group: Any) -> Description:
            async with places:
                urls = [await asyncio.to_thread(data_url, image, limits.max_side) for image in group]
                answer = await _ask(library, client, urls, question, limits, access, _which(number, groups))
            done[0] += 1
            return answer

        tasks = [asyncio.create_task(one(number, group)) for number, group in enumerate(groups, 1)]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _which(number: int, groups: Sequence[Any]) -> str:
    return f"Image {number} of {len(groups)}: " if len(groups) > 1 else ""


def _client(library: Any, limits: Limits, access: Access) -> Any:
    """The library's client, which sends nothing anywhere but to this endpoint, and only what belongs there."""

    async def keep_ours(request: Any) -> None:
        for name in list(request.headers):
            if name.lower() not in _HEADERS:
                del request.headers[name]
        request.headers["Authorization"] = f"Bearer {access.key or _NO_KEY}"

    endpoint = access.endpoint
    timeout = library.Timeout(limits.timeout, connect=min(limits.timeout, _CONNECT_TIMEOUT))
    http_client = library.DefaultAsyncHttpxClient(
        timeout=timeout,
        # A redirect would take the picture along, to where nobody allowed it to go.
        follow_redirects=False,
        # The environment's proxies are for the world outside.
        trust_env=not endpoint.is_local,
        event_hooks={"request": [] if endpoint.origin == OPENAI_ORIGIN else [keep_ours]},
    )
    return library.AsyncOpenAI(
        api_key=access.key or _NO_KEY,
        base_url=endpoint.url,
        max_retries=limits.retries,
        timeout=timeout,
        http_client=http_client,
    )


async def _ask(
    library: Any, client: Any, urls: list[str], question: Question, limits: Limits, access: Access, which: str
) -> Description:
    """One answer.

    Raises:
        DescribingError: there is none; begins with *which* picture it was.
    """
    body = request_body(urls, question, access.endpoint.origin)
    # The library's timeout starts anew with every byte; an endpoint that drips must end, too.
    longest = (limits.retries + 1) * limits.timeout + limits.retries * _LONGEST_PAUSE
    problem = ""
    try:
        completion = await _within(longest, client.chat.completions.create(**body))
        return read_answer(completion, question, access)
    except DescribingError as error:
        problem = str(error)
    except Exception as error:
        problem = explain(error, library, question, limits, access)
    # Out of the except clause: the exceptions there may repeat the key, and must not hang on this one.
    raise DescribingError(which + problem)


async def _within(seconds: float, request: Awaitable[T]) -> T:
    try:
        return await asyncio.wait_for(request, seconds)
    except asyncio.TimeoutError:  # another class than TimeoutError before Python 3.11
        raise DescribingError(
            f"The endpoint was still sending its answer after {seconds:g} s; it was given up."
        ) from None


def request_body(urls: Sequence[str], question: Question, origin: str) -> dict[str, Any]:
    """The arguments of a chat completion. What the endpoint decides itself is left out: some refuse what they do not
    know."""
    pictures = [{"url": url} if question.detail == "auto" else {"url": url, "detail": question.detail} for url in urls]
    content = [{"type": "text", "text": question.prompt}, *({"type": "image_url", "image_url": p} for p in pictures)]
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if question.system_prompt.strip():
        messages.insert(0, {"role": "system", "content": question.system_prompt})
    body: dict[str, Any] = {"model": question.model, "messages": messages}
    if question.max_tokens > 0:
        # OpenAI's newer models refuse the old name; other servers know no other.
        is_openai = origin == OPENAI_ORIGIN or origin.endswith((".openai.com", ".openai.azure.com"))
        body["max_completion_tokens" if is_openai else "max_tokens"] = question.max_tokens
    if question.temperature >= 0:
        body["temperature"] = question.temperature
    if question.seed:
        body["seed"] = question.seed
    return body
