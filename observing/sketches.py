"""A value in a few words and a small picture: what the sidebar shows of every port in every iteration.

A sketch is JSON (docs/reference/editor-protocol.md). Making one takes microseconds for numbers and texts, and for a
tensor milliseconds: of a large one only a sample of its elements is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import value_pictures
from ..durable.secrets import is_secret_name
from ..durable.thumbnails import file_name
from ..value_summary import summarize, summarize_part

if TYPE_CHECKING:
    from ..workflow_context import WorkflowContext

Json = dict[str, Any]

#: bytes up to which a value is loaded and shown at once; larger ones are looked at in a thread
SMALL = 64 * 1024

# Characters of a text; elements of a tensor that are looked at; pixels of the longer side of a small picture.
_TEXT = 2000
_SAMPLE = 4 * 2**20
_THUMBNAIL = 256


def poor_sketch(context: WorkflowContext, name: str) -> Json:
    """What can be said of a stored value at once: all of a small one, and of others what they weigh.

    Never raises: what this process cannot load is told in a note.
    """
    try:
        return _poor_sketch(context, name)
    except Exception as e:  # of a damaged object, say: whoever needs it says so
        return {"kind": "other", "type": "", "note": f"not looked at: {type(e).__name__}: {str(e)[:300]}"}


def _poor_sketch(context: WorkflowContext, name: str) -> Json:
    info = context.get_storage_info(name)
    if info is None:
        return {"kind": "other", "type": "nothing", "note": "it is not there any more"}
    found: Json = {"kind": "other", "type": "", "size": info["data_size"], "digest": info["digest"]}
    if is_secret_name(name):
        return {"kind": "secret", "type": "secret"}
    if info["pass_by"] == "ref":  # noqa: S105 (no password)
        recipe = _loaded(context, name)
        kind = recipe.get("type", "") if isinstance(recipe, Mapping) else ""
        return {**found, "kind": "reference", "type": str(kind)}
    if info["data_size"] > SMALL:
        return {**found, "note": "not looked at yet"}
    return {**found, **sketch(_loaded(context, name))}


def _loaded(context: WorkflowContext, name: str) -> Any:
    try:
        return context.load(name)
    except Exception as e:  # a class that only the server has, or it has just been replaced
        return _Unloadable(e)


class _Unloadable:
    def __init__(self, error: Exception) -> None:
        self.note = f"not looked at: {type(error).__name__}: {str(error)[:300]}"


def sketch(value: Any) -> Json:
    """The words of a value: its kind, and what applies of shape, figures, text, and items."""
    if isinstance(value, _Unloadable):
        return {"kind": "other", "type": "", "note": value.note}
    if isinstance(value, bool):
        return {"kind": "boolean", "type": "bool", "value": value}
    if isinstance(value, (int, float)):
        words = summarize(value)
        return {"kind": "number", "type": words["type"], "value": words["value"]}
    if isinstance(value, str):
        return {"kind": "text", "type": "str", "text": value[:_TEXT], "length": len(value)}
    tensor = value["samples"] if value_pictures.is_latent(value) else value
    if value_pictures.is_tensor(tensor):
        return {**_figures(tensor), "kind": value_pictures.kind_of(value)}
    words = summarize(value, depth=2, items=8)
    kind = "list" if isinstance(value, (list, tuple)) else "other"
    return {"kind": kind, **{key: words[key] for key in ("type", "length", "items", "attributes") if key in words}}


def _figures(tensor: Any) -> Json:
    words = summarize_part(tensor, _SAMPLE)
    names = ("dtype", "min", "max", "mean", "nan", "not_computed", "shape", "sampled")
    return {"type": "tensor", **{name: words[name] for name in names if name in words}}


def thumbnail_of(value: Any, digest: str) -> tuple[str, bytes] | None:
    """(file name, JPEG) of the first picture of a value; None where it is none."""
    picture = value_pictures.to_picture(value, 0, _THUMBNAIL)
    return None if picture is None else (file_name(digest), value_pictures.as_jpeg(picture))


def is_editable(found: Mapping[str, Any]) -> bool:
    """Whether a value of this sketch can be changed by hand."""
    return found["kind"] in ("text", "number", "boolean")


def edited_value(old: Any, new: Any) -> Any:
    """The value that takes another's place: of its kind.

    Raises:
        ValueError: it is of another kind; says what is wanted.
    """
    if isinstance(old, bool):
        if isinstance(new, bool):
            return new
        raise ValueError(f"This value is true or false, not {new!r}.")
    if isinstance(old, int):
        if isinstance(new, (int, float)) and not isinstance(new, bool) and float(new).is_integer():
            return int(new)
        raise ValueError(f"This value is a whole number, not {new!r}.")
    if isinstance(old, float):
        if isinstance(new, (int, float)) and not isinstance(new, bool):
            return float(new)
        raise ValueError(f"This value is a number, not {new!r}.")
    if isinstance(old, str):
        if isinstance(new, str):
            return new
        raise ValueError(f"This value is a text, not {new!r}.")
    raise ValueError("Only texts, numbers, and true or false can be changed here.")
