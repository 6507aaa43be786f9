"""Any value as a small JSON-safe dict ``{"type": ..., "content": ...}``, and back without loss.

For export and debugging. Run data never takes this road: base64 in JSON is several times slower than shared memory.

Format
------
=============  ========================================================================================
type           content
=============  ========================================================================================
NONE           null
BOOL           true or false
INT            number; text where a reader with 64-bit floats would round it (beyond 2**53)
FLOAT          number; "nan", "inf" or "-inf" where JSON has none
STRING         text
BYTES          base64
JSON           the value itself: lists, text-keyed dicts, text, numbers, true, false, null, all finite
LIST, TUPLE    list of serialized values
DICT           list of [serialized key, serialized value]
TORCH_TENSOR   {"dtype": "float32", "shape": [..], "data": base64 of the elements, row-major, as in memory}
CUSTOM         base64 of a cloudpickle
=============  ========================================================================================

**Trust.** A CUSTOM value is a pickle: loading one runs whatever code its maker put in. Deserialize only what you, or
someone you trust, serialized; `deserialize(data, allow_custom=False)` refuses CUSTOM and is safe on anything.

Types are kept exactly: subclasses (an enum, a named tuple, a numpy number) go through cloudpickle. Tensors come back
on the CPU, without gradients' history. References inside a value are not kept: two places that held one list hold two
equal ones.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

_EXACT_INT = 2**53
# Deeper than this, or a value that contains itself, goes through cloudpickle.
_MAX_DEPTH = 60


class _TooDeep(Exception):
    """Internal: this value is nested too deep for the readable forms."""


def serialize(data: Any) -> dict[str, Any]:
    """A JSON-safe dict that `deserialize` turns back into an equal value of the same type.

    Args:
        data: anything that cloudpickle can pickle; tensors of any dtype.

    Raises:
        TypeError: it cannot be pickled (names its type).
    """
    try:
        return _encode(data, 0)
    except _TooDeep:
        return _encode_custom(data)


def deserialize(d: Mapping[str, Any], allow_custom: bool = True) -> Any:
    """The value that `serialize` was given. Mind the warning on trust at the top of this module.

    Args:
        d: what `serialize` returned, also after a way through JSON.
        allow_custom: False refuses CUSTOM values (pickles), so that nothing in `d` can run code.

    Raises:
        ValueError: not of this format, an unknown type, a damaged content, or a CUSTOM value that is not allowed.
    """
    if not isinstance(d, Mapping) or not {"type", "content"} <= set(d):
        raise ValueError(f"A serialized value is a dict with 'type' and 'content'; this is {str(d)[:80]!r}.")
    kind, content = d["type"], d["content"]
    if kind == "CUSTOM" and not allow_custom:
        raise ValueError(
            "This value is a pickle (type CUSTOM), which can run code when loaded; allow_custom=False refuses it."
        )
    if kind not in _DECODERS:
        raise ValueError(f"Unknown type {kind!r} of a serialized value; known are {', '.join(_DECODERS)}.")
    try:
        if kind in ("LIST", "TUPLE"):
            items = [deserialize(item, allow_custom) for item in content]
            return items if kind == "LIST" else tuple(items)
        if kind == "DICT":
            return {deserialize(key, allow_custom): deserialize(value, allow_custom) for key, value in content}
        return _DECODERS[kind](content)
    except (TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise ValueError(f"The content of a serialized {kind} is damaged: {error}") from error


def _encode(data: Any, depth: int) -> dict[str, Any]:
    if depth > _MAX_DEPTH:
        raise _TooDeep
    kind = type(data)
    if kind in _PLAIN:
        return {"type": _PLAIN[kind], "content": _plain_content(data)}
    if kind is bytes:
        return {"type": "BYTES", "content": _base64(data)}
    if kind in (list, dict) and _is_json(data, depth):
        return {"type": "JSON", "content": _json_copy(data)}
    if kind in (list, tuple):
        return {"type": "LIST" if kind is list else "TUPLE", "content": [_encode(item, depth + 1) for item in data]}
    if kind is dict:
        pairs = [[_encode(key, depth + 1), _encode(value, depth + 1)] for key, value in data.items()]
        return {"type": "DICT", "content": pairs}
    if _is_plain_tensor(data):
        return _encode_tensor(data)
    return _encode_custom(data)


_PLAIN = {type(None): "NONE", bool: "BOOL", int: "INT", float: "FLOAT", str: "STRING"}


def _plain_content(data: Any) -> Any:
    if type(data) is int and abs(data) > _EXACT_INT:
        return _int_text(data)
    if type(data) is float and not math.isfinite(data):
        return "nan" if math.isnan(data) else "inf" if data > 0 else "-inf"
    return data


def _int_text(number: int) -> str:
    # Hexadecimal, because Python limits the length of decimal texts it converts.
    return hex(number)


def _is_json(data: Any, depth: int) -> bool:
    """Whether JSON holds this value exactly as it is."""
    if depth > _MAX_DEPTH:
        raise _TooDeep
    kind = type(data)
    if kind is list:
        return all(_is_json(item, depth + 1) for item in data)
    if kind is dict:
        return all(type(key) is str and _is_json(value, depth + 1) for key, value in data.items())
    return kind in _PLAIN and _plain_content(data) is data


def _json_copy(data: Any) -> Any:
    """A copy, so that the dict we hand out does not change with the caller's value."""
    if type(data) is list:
        return [_json_copy(item) for item in data]
    return {key: _json_copy(value) for key, value in data.items()} if type(data) is dict else data


def _is_plain_tensor(data: Any) -> bool:
    """Whether this is a torch.Tensor itself, dense and not quantized: its bytes are the whole of it."""
    # A tensor can only come from an imported torch: no need to import it for anything else.
    kind = type(data)
    if kind.__module__ != "torch" or kind.__name__ != "Tensor":
        return False
    import torch

    return data.layout == torch.strided and not data.is_quantized and data.device.type != "meta"


def _encode_tensor(tensor: Any) -> dict[str, Any]:
    import torch

    whole = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    raw = whole.reshape(-1).view(torch.uint8).numpy().tobytes()
    dtype = str(tensor.dtype).removeprefix("torch.")
    return {"type": "TORCH_TENSOR", "content": {"dtype": dtype, "shape": list(tensor.shape), "data": _base64(raw)}}


def _decode_tensor(content: Mapping[str, Any]) -> Any:
    import torch

    dtype = getattr(torch, str(content["dtype"]), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"This torch has no dtype {content['dtype']!r}.")
    shape = [int(n) for n in content["shape"]]
    raw = bytearray(_from_base64(content["data"]))
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"The data of a serialized tensor has {len(raw)} bytes, which does not fit {dtype} {shape}.")
    if not raw:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(raw, dtype=torch.uint8).view(dtype).reshape(shape)


def _encode_custom(data: Any) -> dict[str, Any]:
    import cloudpickle

    try:
        return {"type": "CUSTOM", "content": _base64(cloudpickle.dumps(data))}
    except Exception as error:
        raise TypeError(f"A {type(data).__name__} cannot be serialized: {error}") from error


def _decode_custom(content: str) -> Any:
    import cloudpickle

    return cloudpickle.loads(_from_base64(content))


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


_DECODERS: dict[str, Any] = {
    "NONE": lambda content: None,
    "BOOL": bool,
    "INT": lambda content: int(content, 16) if isinstance(content, str) else int(content),
    "FLOAT": float,
    "STRING": str,
    "BYTES": _from_base64,
    "JSON": _json_copy,
    # The containers' decoding is in `deserialize`.
    "LIST": None,
    "TUPLE": None,
    "DICT": None,
    "TORCH_TENSOR": _decode_tensor,
    "CUSTOM": _decode_custom,
}
