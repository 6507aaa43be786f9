"""What a describer's endpoint answers: the text in it, what it cost, and what complaints mean. Pure.

Endpoints send all kinds of things, and some repeat what they were sent. Nothing is believed, and everything is freed of
the key before anybody sees it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from .endpoint_access import Access

logger = logging.getLogger("discomfort.editor_nodes.describer_answers")

# Characters of an endpoint's complaint that are worth showing.
_COMPLAINT = 600


class DescribingError(RuntimeError):
    """There is no text; the message says why, and what to do. It never holds a key."""


class Question(NamedTuple):
    """What is asked about every picture."""

    prompt: str
    model: str
    #: "": none is sent
    system_prompt: str = ""
    #: "auto" is what endpoints do anyway; it is not sent, because some do not know the word
    detail: str = "auto"
    #: tokens of an answer; 0: not sent
    max_tokens: int = 0
    #: below 0: not sent
    temperature: float = -1.0
    #: 0: not sent
    seed: int = 0


class Limits(NamedTuple):
    """How pictures are sent."""

    #: pixels of the longer side; larger pictures are scaled down to it; 0: as they are
    max_side: int = 1024
    #: further attempts after the first one
    retries: int = 3
    #: seconds for the answer to one attempt
    timeout: float = 60.0
    #: requests at once
    concurrency: int = 4


class Description(NamedTuple):
    """One answer."""

    text: str
    #: "stop", or "length" where max_tokens cut it off
    finish_reason: str
    #: as the endpoint calls it
    model: str
    #: as the endpoint counts them; None where it does not
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def read_answer(completion: Any, question: Question, access: Access) -> Description:
    """Take the text out of an answer.

    Raises:
        DescribingError: there is no text in it; says why.
    """
    choices = getattr(completion, "choices", None)
    if not isinstance(choices, list):
        raise DescribingError(
            f"{access.endpoint.origin} answered, but that is no chat completion. Is {access.endpoint.url} the address "
            f"of an OpenAI-compatible API? Most end in /v1. The answer begins: {_short(str(completion), access)!r}"
        )
    message = getattr(choices[0], "message", None) if choices else None
    reason = str(getattr(choices[0], "finish_reason", None) or "") if choices else ""
    text = _text_of(getattr(message, "content", None)).strip()
    refusal = getattr(message, "refusal", None)
    if refusal:
        raise DescribingError(f"The model {question.model!r} refused: {_short(str(refusal), access)}")
    if reason == "content_filter":
        raise DescribingError(f"The content filter of {access.endpoint.origin} stopped the answer.")
    if not text and reason == "length":
        raise DescribingError(
            f"The model {question.model!r} used up max_tokens ({question.max_tokens}) before its first word, perhaps "
            "by thinking. Raise max_tokens, or set it to 0 for no limit of yours."
        )
    if not text:
        given = _short(reason, access) or "not given"
        raise DescribingError(
            f"The model {question.model!r} answered without a text (finish_reason {given}). Does it know pictures?"
        )
    if reason == "length":
        logger.warning("A description was cut off after max_tokens (%d).", question.max_tokens)
    usage = getattr(completion, "usage", None)
    return Description(
        access.without_key(text),
        access.without_key(reason),
        access.without_key(str(getattr(completion, "model", None) or question.model)),
        _count(getattr(usage, "prompt_tokens", None)),
        _count(getattr(usage, "completion_tokens", None)),
    )


def _text_of(content: Any) -> str:
    """The text of a message, which some endpoints send in parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") if isinstance(part, dict) else getattr(part, "text", None) for part in parts]
    return "".join(text for text in texts if isinstance(text, str))


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def usage_text(descriptions: Sequence[Description]) -> str:
    """What the answers cost, as JSON: requests, prompt_tokens, completion_tokens, total_tokens (null where the endpoint
    does not count), models and finish_reasons."""

    def total(counts: Sequence[int | None]) -> int | None:
        known = [count for count in counts if count is not None]
        return sum(known) if known else None

    prompt, completion = (
        total([d.prompt_tokens for d in descriptions]),
        total([d.completion_tokens for d in descriptions]),
    )
    return json.dumps(
        {
            "requests": len(descriptions),
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": total([prompt, completion]),
            "models": sorted({d.model for d in descriptions}),
            "finish_reasons": [d.finish_reason for d in descriptions],
        }
    )


def explain(error: Exception, library: Any, question: Question, limits: Limits, access: Access) -> str:
    """What a failed request means, and what to do; with the endpoint's own words, freed of the key."""
    origin = access.endpoint.origin
    if isinstance(error, library.APITimeoutError):
        return (
            f"{origin} did not answer within timeout ({limits.timeout:g} s), {limits.retries + 1} times. Raise timeout "
            "if the model is slow or has to be loaded first."
        )
    if isinstance(error, library.APIStatusError):
        return _explain_status(error, question, limits, access)
    if isinstance(error, library.APIConnectionError):
        cause = error.__cause__ or error
        return (
            f"There was no connection to {origin}, or it was cut, {limits.retries + 1} times: "
            f"{type(cause).__name__} {_short(str(cause), access)}. Does the server run, and is base_url right?"
        )
    if isinstance(error, ValueError):
        return f"{origin} answered with broken JSON ({type(error).__name__}): {_short(str(error), access)}"
    return f"{origin} could not be asked: {type(error).__name__}: {_short(str(error), access)}"


def _explain_status(error: Any, question: Question, limits: Limits, access: Access) -> str:
    """The same for an answer with a status that is no success."""
    origin, status, complaint = access.endpoint.origin, int(error.status_code), _complaint(error, access)
    if status in (401, 403):
        return f"{origin} refused the key ({status}). {access.about_key} It says: {complaint}"
    if status == 404:
        return (
            f"{origin} knows no model {question.model!r}, or has no chat API at {access.endpoint.url} (404); most "
            f"addresses end in /v1. It says: {complaint}"
        )
    if status == 413:
        return f"The pictures are too large for {origin} (413): lower max_side or send fewer. It says: {complaint}"
    if status == 429 and "insufficient_quota" in (getattr(error, "code", None), getattr(error, "type", None)):
        return f"The account at {origin} has no credit left (429). It says: {complaint}"
    if status == 429:
        wait = error.response.headers.get("retry-after")
        asks = f" It asks to wait {_short(wait, access)} s." if wait else ""
        return (
            f"{origin} limits how much it is asked (429); retries ({limits.retries}) were not enough.{asks} Lower "
            f"concurrency, raise retries, or try later. It says: {complaint}"
        )
    if status >= 500:
        return f"{origin} failed ({status}); retries ({limits.retries}) were not enough. It says: {complaint}"
    if 300 <= status < 400:
        return (
            f"{origin} sends requests elsewhere ({status}), which is not followed: put the final address into base_url."
        )
    return f"{origin} refused the request ({status}): {complaint}{_hint(complaint, question)}"


def _hint(complaint: str, question: Question) -> str:
    """Which widget to change, where a complaint names what it sends."""
    hints = (
        ("detail", question.detail != "auto", "Set detail to auto: nothing is sent then."),
        ("temperature", question.temperature >= 0, "Set temperature to -1: nothing is sent then."),
        ("tokens", question.max_tokens > 0, "Change max_tokens; at 0 nothing is sent."),
        ("seed", question.seed != 0, "Set seed to 0: nothing is sent then."),
    )
    found = [hint for word, is_sent, hint in hints if is_sent and word in complaint.lower()]
    return "".join(f" {hint}" for hint in found)


def _complaint(error: Any, access: Access) -> str:
    """What an endpoint says itself, in one line."""
    body = error.body
    message = body.get("message") if isinstance(body, dict) else body
    return _short(str(message or error.message), access)


def _short(text: str, access: Access) -> str:
    """What an endpoint says, in one line of bounded length. The key goes first: half of one would not be found."""
    line = " ".join(access.without_key(text)[: 20 * _COMPLAINT].split())
    return line if len(line) <= _COMPLAINT else f"{line[:_COMPLAINT]} ..."
