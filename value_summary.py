"""What a value is, told without printing it: type, shape, figures, and the structure around them.

For people who look into a run (``python -m discomfort context show``) and for programs: everything here is data that
JSON can hold. Nothing of the value's own code is called where that can be avoided: no ``repr`` of unknown objects.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections.abc import Iterable, Iterator
from typing import Any

# Elements of a tensor that are looked at in one step: a copy of so many as float64 takes 32 MB.
_CHUNK = 2**22
# Of a tensor that is too large to be looked at in full: so many runs of so many elements at most.
_RUNS, _RUN = 64, 2**16
_TEXT = 200
_HEX = 32
_INLINE = 8


def summarize(value: Any, depth: int = 4, items: int = 20) -> dict[str, Any]:
    """Describe a value.

    Args:
        value: anything. A tensor or array is read once, in pieces; nothing of it is copied as a whole unless it is
            not contiguous.
        depth: how many levels of containers are opened.
        items: how many items of each container are described.

    Returns:
        ``{"type": name}`` and what applies of:

        - tensors and arrays: ``dtype``, ``shape``, ``device``, ``min``, ``max``, ``mean`` (of what is no NaN; of the
          absolute values where complex; infinities as text), ``nan`` (how many), ``not_computed`` (why not);
        - containers: ``length``, ``items`` (``{"key": text, "value": summary}``);
        - other objects: ``length`` (how many attributes), ``attributes`` (like ``items``), or for functions and
          classes ``value`` (their name); pictures: ``shape`` (width, height), ``dtype`` (mode);
        - text: ``length``, ``value`` (the beginning); bytes: ``length``, ``hex`` (the beginning);
        - numbers, None: ``value``.
    """
    try:
        return _summarize(value, depth, items)
    except Exception as exc:  # the value's own code, which may do anything
        return {"type": _type_name(value), "not_computed": f"{type(exc).__name__}: {exc}"}


def summarize_part(tensor: Any, most: int) -> dict[str, Any]:
    """Describe a torch tensor as :func:`summarize` does, but of one of more than *most* elements only a part is looked
    at: ``sampled`` is True then, and the figures are those of the part.
    """
    if tensor.numel() <= most:
        return summarize(tensor)
    return {**summarize(_part_of(tensor, most)), "shape": list(tensor.shape), "sampled": True}


def _part_of(tensor: Any, most: int) -> Any:
    """Runs of elements from all over a tensor, one behind the other: only the memory that they lie in is read."""
    import torch

    if not tensor.is_contiguous():
        # Flattening it would write it out.
        longest = max(range(tensor.dim()), key=lambda dim: int(tensor.shape[dim]))
        return tensor.detach().movedim(longest, 0)[:: -(-tensor.numel() // most)]
    flat = tensor.detach().view(-1)
    step, length = flat.numel() // _RUNS, max(1, min(most // _RUNS, _RUN))
    return torch.cat([flat[start * step : start * step + length] for start in range(_RUNS)])


def _summarize(value: Any, depth: int, items: int) -> dict[str, Any]:
    if _is_tensor(value):
        return _tensor(value)
    if _is_array(value):
        return _array(value, depth, items)
    kind = {"type": _type_name(value)}
    if value is None or isinstance(value, (bool, int, float, complex)):
        return {**kind, "value": _number(value)}
    if isinstance(value, str):
        return {**kind, "length": len(value), "value": value[:_TEXT]}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {**kind, "length": len(value), "hex": bytes(value[:_HEX]).hex()}
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        found = {**kind, "length": len(value)}
        return found if depth <= 0 else {**found, "items": _items(_entries(value), depth, items)}
    return {**kind, **_object(value, depth, items)}


def _type_name(value: Any) -> str:
    kind = type(value)
    module = kind.__module__
    return kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}"


def _number(value: Any) -> Any:
    """A number as JSON can hold it: what is not finite, complex or very long as text."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, complex) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    return value


def _entries(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        return ((_key_text(key), one) for key, one in value.items())
    names = getattr(value, "_fields", None)
    if isinstance(value, tuple) and isinstance(names, tuple):
        return zip(map(str, names), value, strict=False)
    return ((str(index), one) for index, one in enumerate(value))


def _key_text(key: Any) -> str:
    """A dict's key: plain ones as Python writes them."""
    if isinstance(key, (str, bytes)):
        return repr(key[:100]) + ("..." if len(key) > 100 else "")
    if key is None or isinstance(key, (bool, int, float)):
        return str(_number(key))
    return f"<{_type_name(key)}>"


def _items(entries: Iterable[tuple[str, Any]], depth: int, items: int) -> list[dict[str, Any]]:
    shown = itertools.islice(entries, items)
    return [{"key": key, "value": summarize(one, depth - 1, items)} for key, one in shown]


def _object(value: Any, depth: int, items: int) -> dict[str, Any]:
    """Anything else: pictures by their size, functions and classes by their name, objects by their attributes."""
    found: dict[str, Any] = {}
    if type(value).__module__.startswith("PIL."):
        return {"shape": list(value.size), "dtype": str(value.mode)}
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return {"value": f"{value.__module__}.{value.__qualname__}"}
    if dataclasses.is_dataclass(value):
        attributes = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    else:
        attributes = getattr(value, "__dict__", {})
    if attributes and depth > 0:
        entries = ((str(name), one) for name, one in attributes.items())
        found = {"length": len(attributes), "attributes": _items(entries, depth, items)}
    return found


# ---- tensors and arrays ----


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic))


def _tensor(tensor: Any) -> dict[str, Any]:
    import torch

    found = {
        "type": "tensor" if type(tensor) is torch.Tensor else _type_name(tensor),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "device": str(tensor.device),
    }
    if tensor.layout is not torch.strided:
        return {**found, "not_computed": f"its layout is {str(tensor.layout).removeprefix('torch.')}"}
    if tensor.device.type == "meta":
        return {**found, "not_computed": "it has a shape and no values"}
    # What `expand` repeats is looked at once: written out it could be larger than the memory.
    once, repeats = tensor.detach(), 1
    for dim in [dim for dim, stride in enumerate(tensor.stride()) if stride == 0 and tensor.shape[dim] > 1]:
        once, repeats = once.narrow(dim, 0, 1), repeats * tensor.shape[dim]
    figures = _figures(_tensor_pieces(once))
    if "nan" in figures:
        figures["nan"] *= repeats
    return {**found, **figures}


def _tensor_pieces(tensor: Any) -> Iterator[Any]:
    """The elements as NumPy arrays; types that NumPy lacks (bfloat16, float8) as float32, which holds them exactly."""
    import torch

    for piece in tensor.reshape(-1).split(_CHUNK):
        if piece.dtype in (torch.float16, torch.float32, torch.float64) or not piece.is_floating_point():
            yield piece.resolve_conj().resolve_neg().cpu().numpy()
        else:
            yield piece.to(torch.float32).cpu().numpy()


def _array(array: Any, depth: int, items: int) -> dict[str, Any]:
    import numpy as np

    if isinstance(array, np.generic) and array.dtype.kind in "biufcSU":
        # A single number or text.
        return {**_summarize(array.item(), depth, items), "type": _type_name(array)}
    found = {"type": "array", "dtype": str(array.dtype), "shape": list(array.shape)}
    if array.dtype.kind not in "biufc":
        return {**found, "not_computed": "its elements are no numbers"}
    flat = array.reshape(-1)
    return {**found, **_figures(flat[at : at + _CHUNK] for at in range(0, flat.size, _CHUNK))}


def _figures(pieces: Iterator[Any]) -> dict[str, Any]:
    """Least, largest and mean value, and the number of NaNs."""
    import numpy as np

    least: Any = None
    most: Any = None
    total, count, nans = 0.0, 0, 0
    try:
        # Infinities and overflow are figures too, not warnings.
        with np.errstate(all="ignore"):
            for piece in pieces:
                values = np.abs(piece) if piece.dtype.kind == "c" else piece
                if values.dtype.kind == "f":
                    is_nan = np.isnan(values)
                    bad = int(np.count_nonzero(is_nan))
                    nans += bad
                    values = values[~is_nan] if bad else values
                if not values.size:
                    continue
                low, high = values.min().item(), values.max().item()
                least = low if least is None else min(least, low)
                most = high if most is None else max(most, high)
                total += float(values.sum(dtype=np.float64))
                count += values.size
    except Exception as exc:  # a type of numbers that cannot be computed with
        return {"not_computed": f"{type(exc).__name__}: {exc}"}
    mean = total / count if count else None
    return {"min": _number(least), "max": _number(most), "mean": _number(mean), "nan": nans}


# ---- as text ----


def as_lines(summary: dict[str, Any], indent: str = "") -> list[str]:
    """Return a summary as lines for people. Text is as Python writes it; names of types and attributes are raw."""
    lines = [_headline(summary)]
    entries = _entries_of(summary)
    if _is_inline(summary):
        return [f"{lines[0]}: {', '.join(_value_text(entry['value']) for entry in entries)}"]
    for entry in entries:
        first, *rest = as_lines(entry["value"])
        lines += [f"  {entry['key']}: {first}", *(f"  {line}" for line in rest)]
    left = summary["length"] - len(entries) if entries else 0
    if left > 0:
        lines.append(f"  ... and {left:,} more")
    return [indent + line for line in lines]


def _entries_of(summary: dict[str, Any]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = summary.get("items") or summary.get("attributes") or []
    return entries


def _is_inline(summary: dict[str, Any]) -> bool:
    """A short list of numbers and short texts goes into one line."""
    entries = summary.get("items", [])
    return (
        summary["type"] in ("list", "tuple", "set", "frozenset")
        and 0 < summary["length"] == len(entries) <= _INLINE
        and all("value" in entry["value"] and len(_value_text(entry["value"])) <= 20 for entry in entries)
    )


def _headline(summary: dict[str, Any]) -> str:
    words = [summary["type"]]
    if "dtype" in summary:
        words += [summary["dtype"], str(summary["shape"])]
    if summary.get("device", "cpu") != "cpu":
        words.append(f"on {summary['device']}")
    text = " ".join(words)
    if summary["type"] == "NoneType":
        text = "None"
    elif "value" in summary or "hex" in summary:
        text += f" {_value_text(summary)}"
    elif "length" in summary:
        noun = "attribute" if "attributes" in summary else "item"
        text += f" of {summary['length']:,} {noun}{'' if summary['length'] == 1 else 's'}"
    return text + _figures_text(summary)


def _value_text(summary: dict[str, Any]) -> str:
    if "hex" in summary:
        return _beginning(summary["hex"], summary["length"], _HEX, "bytes")
    if "length" in summary:
        return _beginning(repr(summary["value"]), summary["length"], _TEXT, "characters")
    return str(summary["value"])


def _beginning(shown: str, length: int, limit: int, unit: str) -> str:
    return shown if length <= limit else f"{shown}... ({length:,} {unit})"


def _figures_text(summary: dict[str, Any]) -> str:
    if "not_computed" in summary:
        return f" ({summary['not_computed']})"
    if "mean" not in summary:
        return ""
    nans = f", {summary['nan']:,} NaN" if summary["nan"] else ""
    if summary["mean"] is None:
        return f"  no values{nans}" if not nans else f"  nothing but NaN ({summary['nan']:,})"
    least, most, mean = (_figure(summary[name]) for name in ("min", "max", "mean"))
    return f"  min {least}, max {most}, mean {mean}{nans}"


def _figure(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
