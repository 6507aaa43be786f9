"""A value of a run that goes on: in words, and as a picture made when somebody looks. Everything here blocks.

Values are read from the run's context through shared memory, whatever process the run is in. What a name says to be a
secret stays there.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import value_pictures
from ..durable.secrets import is_secret_name
from ..value_summary import summarize, summarize_part
from ..workflow_context import StoreError, WorkflowContext

if TYPE_CHECKING:
    from PIL import Image

Json = dict[str, Any]

#: characters of a text that are handed out; a longer one cannot be edited
TEXT_LIMIT = 200_000

# Elements of a tensor that are all looked at; of a larger one only parts are.
_WHOLE = 32 * 2**20
# Items of a container.
_ITEMS = 20
# Pixels up to which a picture is sent without loss.
_SMALL_PICTURE = 2**18

_SECRET = {"type": "secret"}


class NoValueError(LookupError):
    """There is no such value, or none that can be shown; says why."""

    def __str__(self) -> str:
        return str(self.args[0])


class EncodedPicture(NamedTuple):
    """A picture of a value."""

    #: changes when the value does
    tag: str
    content: bytes
    #: "image/png" or "image/webp"
    type: str


# ------------------------------------------------------------------------------------------------------- in words


def describe(run_id: str, name: str) -> Json:
    """What is known of a value: ``name``, ``summary`` (``value_summary.summarize``), ``info`` (how it is stored),
    ``editable``, ``pictures`` (how many it has), and of a text ``text``, of a number or truth ``value``.

    Raises:
        NoValueError: the run is over, or it has no such value.
    """
    with _attached(run_id) as context:
        info = _info(context, name)
        found = {"name": name, "info": info, "editable": False, "pictures": 0}
        if is_secret_name(name):
            return {**found, "summary": _SECRET}
        value = _load(context, name)
        if info["pass_by"] == "ref":  # noqa: S105 (no password)
            kind = value.get("type") if isinstance(value, Mapping) else None
            return {**found, "summary": {"type": "reference", "value": str(kind or "")}}
        words = {"summary": _without_secrets(summary_of(value)), "pictures": value_pictures.count(value)}
        return {**found, **words, **_plain(value)}


def _plain(value: Any) -> Json:
    """What can be shown whole, and edited."""
    if isinstance(value, str):
        return {"text": value[:TEXT_LIMIT], "editable": len(value) <= TEXT_LIMIT}
    if isinstance(value, (bool, int, float)):
        return {"value": value, "editable": True}
    return {}


def summary_of(value: Any) -> Json:
    """As ``value_summary.summarize``, but of a tensor of gigabytes only parts are read: then ``sampled`` is true."""
    if value_pictures.is_tensor(value) and value.numel() > _WHOLE:
        return summarize_part(value, _WHOLE)
    if isinstance(value, Mapping) and any(map(_is_large, value.values())):
        return _container(value, [(repr(key), one) for key, one in value.items()])
    if isinstance(value, (list, tuple)) and any(map(_is_large, value)):
        return _container(value, [(str(index), one) for index, one in enumerate(value)])
    return summarize(value)


def _is_large(value: Any) -> bool:
    return value_pictures.is_tensor(value) and value.numel() > _WHOLE


def _container(value: Any, entries: list[tuple[str, Any]]) -> Json:
    items = [{"key": key, "value": summary_of(one)} for key, one in entries[:_ITEMS]]
    return {"type": type(value).__name__, "length": len(entries), "items": items}


def _without_secrets(summary: Json) -> Json:
    """A summary without what is under a name like "api_key" in a dict or an object."""
    cleaned = dict(summary)
    for part in ("items", "attributes"):
        if part in cleaned:
            cleaned[part] = [
                {
                    "key": entry["key"],
                    "value": _SECRET if is_secret_name(entry["key"].strip("'\"")) else _without_secrets(entry["value"]),
                }
                for entry in cleaned[part]
            ]
    return cleaned


# ----------------------------------------------------------------------------------------------------- as a picture


def picture(run_id: str, name: str, item: int, size: int, known: str = "") -> EncodedPicture:
    """A value as a picture.

    Args:
        item: which of a batch.
        size: pixels that the longer side has at most.
        known: the tag of a picture that the browser has; where it is still right, ``content`` is empty.

    Raises:
        NoValueError: the run is over, or has no such value, or it is no picture, or has no such item.
    """
    with _attached(run_id) as context:
        info = _info(context, name)
        if is_secret_name(name):
            raise NoValueError(f"The name {name!r} says that it is a secret, so it is not shown.")
        tag = f'"{info["digest"].replace(chr(34), "")}-{item}-{size}"'
        if tag == known:
            return EncodedPicture(tag, b"", "")
        value = _load(context, name)
        found = value_pictures.to_picture(value, item, size)
        if found is None:
            count = value_pictures.count(value)
            what = f"has {count} pictures, so there is no number {item}" if count else "cannot be shown as a picture"
            raise NoValueError(f"The value of {name!r} {what}.")
        return EncodedPicture(tag, *_encoded(found))


def _encoded(found: Image.Image) -> tuple[bytes, str]:
    """A picture as (file, type): a small one pixel for pixel, a large one in a tenth of the bytes."""
    from PIL import features

    if found.width * found.height <= _SMALL_PICTURE or not features.check("webp"):
        return value_pictures.as_png(found), "image/png"
    buffer = io.BytesIO()
    found.save(buffer, "WEBP", quality=90, method=0)
    return buffer.getvalue(), "image/webp"


# ---------------------------------------------------------------------------------------------------------- the run


@contextlib.contextmanager
def _attached(run_id: str) -> Iterator[WorkflowContext]:
    """The run's context, for a moment: what is attached holds on to memory. Takes a millisecond or two."""
    try:
        context = WorkflowContext(run_id=run_id, create=False)
    except (FileNotFoundError, ValueError):
        raise NoValueError("The run is over, and its values went with it.") from None
    try:
        yield context
    except (StoreError, OSError) as error:
        raise NoValueError(f"The value cannot be read: {error}") from error
    finally:
        context.shutdown()


def _info(context: WorkflowContext, name: str) -> Json:
    info = context.get_storage_info(name)
    if info is None:
        raise NoValueError(f"The run has no value {name!r} now.")
    return info


def _load(context: WorkflowContext, name: str) -> Any:
    try:
        return context.load(name)
    except KeyError:
        raise NoValueError(f"The run has no value {name!r} any more.") from None
    except Exception as error:  # classes that only the nested server has, or whose loading fails here
        raise NoValueError(
            f"The value of {name!r} cannot be loaded here: {type(error).__name__}: {str(error)[:300]}"
        ) from error
