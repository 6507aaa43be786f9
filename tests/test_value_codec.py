"""value_codec: every value comes back equal and of the same type, through JSON."""

from __future__ import annotations

import collections
import enum
import json
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from discomfort.value_codec import deserialize, serialize


def round_trip(value: Any) -> Any:
    return deserialize(json.loads(json.dumps(serialize(value), allow_nan=False)))


def same(left: Any, right: Any) -> bool:
    """Equality that looks at types, NaN, -0.0 and bytes of tensors."""
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        if left.dtype != right.dtype or left.shape != right.shape:
            return False
        return bool(left.numel() == 0 or torch.equal(_bytes(left), _bytes(right)))
    if isinstance(left, float):
        return math.copysign(1, left) == math.copysign(1, right) and (
            left == right or (left != left and right != right)
        )
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[k], right[k]) for k in left)
    return bool(left == right)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)


class Colour(enum.IntEnum):
    RED = 1


Pair = collections.namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "NONE"),
        (True, "BOOL"),
        (False, "BOOL"),
        (0, "INT"),
        (-(2**53), "INT"),
        (2**53 + 1, "INT"),
        (-(10**5000), "INT"),
        (0.1, "FLOAT"),
        (-0.0, "FLOAT"),
        (5e-324, "FLOAT"),
        (float("nan"), "FLOAT"),
        (float("inf"), "FLOAT"),
        (float("-inf"), "FLOAT"),
        ("", "STRING"),
        ("grüße \u2028 \x00 \ud800 😀", "STRING"),
        (b"\x00\xff", "BYTES"),
        ([], "JSON"),
        ({}, "JSON"),
        ({"a": [1, 2.5, None, {"b": True}]}, "JSON"),
        ([1, (2, 3)], "LIST"),
        ([float("nan")], "LIST"),
        ([2**60], "LIST"),
        ((), "TUPLE"),
        ((1, "a", (b"x",)), "TUPLE"),
        ({1: "a", (2, 3): None}, "DICT"),
        ({"samples": b"x"}, "DICT"),
        ({1, 2}, "CUSTOM"),
        (1 + 2j, "CUSTOM"),
        (Colour.RED, "CUSTOM"),
        (Pair(1, 2), "CUSTOM"),
        (np.float32(0.1), "CUSTOM"),
        (collections.OrderedDict(a=1), "CUSTOM"),
    ],
    ids=lambda value: str(value)[:20] if not isinstance(value, int) or abs(value) < 10**30 else "huge",
)
def test_a_value_comes_back(value: Any, kind: str) -> None:
    assert serialize(value)["type"] == kind
    assert same(round_trip(value), value)


DTYPES = sorted({v for v in vars(torch).values() if isinstance(v, torch.dtype)}, key=str)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_tensors_of_every_dtype_come_back(dtype: torch.dtype) -> None:
    raw = torch.arange(96, dtype=torch.uint8)
    tensor = (raw % 2 if dtype == torch.bool else raw).view(dtype).reshape(2, -1)
    assert serialize(tensor)["type"] == "TORCH_TENSOR"
    assert same(round_trip(tensor), tensor)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.5),
        torch.empty(0, 3),
        torch.tensor([float("nan"), float("inf"), -0.0]),
        torch.arange(12).reshape(3, 4).t(),
        torch.arange(10)[::3],
        torch.ones(1).expand(5),
        torch.tensor([1 + 2j]).conj(),
        torch.rand(2, 3, requires_grad=True),
    ],
    ids=["scalar", "empty", "special", "transposed", "strided", "expanded", "conjugated", "with gradient"],
)
def test_tensors_of_every_layout_come_back(tensor: torch.Tensor) -> None:
    back = round_trip(tensor)
    assert same(back, tensor.detach().clone())
    back += 1  # the caller owns it


def test_tensors_in_containers_need_no_pickle() -> None:
    latent = {"samples": torch.rand(1, 4, 8, 8), "batch_index": [0], "more": (torch.ones(2), None)}
    encoded = serialize(latent)
    assert "CUSTOM" not in json.dumps(encoded)
    assert same(deserialize(encoded, allow_custom=False), latent)


def test_sparse_and_quantized_tensors_go_by_pickle() -> None:
    sparse = torch.eye(3).to_sparse()
    assert serialize(sparse)["type"] == "CUSTOM"
    assert torch.equal(round_trip(sparse).to_dense(), torch.eye(3))
    parameter = torch.nn.Parameter(torch.ones(2))
    assert isinstance(round_trip(parameter), torch.nn.Parameter)


def test_functions_and_local_classes_come_back() -> None:
    factor = 3
    assert round_trip(lambda x: x * factor)(2) == 6


def test_a_value_that_contains_itself_comes_back() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    back = round_trip(loop)
    assert back[1] is back
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    assert same(round_trip(deep), deep)


def random_value(rng: random.Random, depth: int = 0) -> Any:
    leaves = [
        None,
        True,
        rng.randint(-(2**70), 2**70),
        rng.uniform(-1e9, 1e9),
        "x" * rng.randint(0, 3),
        b"y",
        float("inf"),
    ]
    kind = rng.randint(0, 3 if depth < 4 else 0)
    if kind == 0:
        return rng.choice([*leaves, torch.rand(rng.randint(0, 3))])
    items = [random_value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    if kind == 1:
        return items
    if kind == 2:
        return tuple(items)
    return {rng.choice(["a", 1, (2,), "b", None]): item for item in items}


@pytest.mark.parametrize("seed", range(50))
def test_random_values_come_back_without_pickle(seed: int) -> None:
    value = random_value(random.Random(seed))
    encoded = json.loads(json.dumps(serialize(value), allow_nan=False))
    assert same(deserialize(encoded, allow_custom=False), value)


def test_the_dict_does_not_change_with_the_value() -> None:
    value = {"a": [1]}
    encoded = serialize(value)
    value["a"].append(2)
    assert deserialize(encoded) == {"a": [1]}
    deserialize(encoded)["a"].append(3)
    assert deserialize(encoded) == {"a": [1]}


def test_pickles_can_be_refused() -> None:
    encoded = serialize([1, {2}])
    with pytest.raises(ValueError, match="allow_custom=False"):
        deserialize(encoded, allow_custom=False)


def test_what_cannot_be_pickled_is_named() -> None:
    with pytest.raises(TypeError, match="A generator cannot be serialized"):
        serialize(x for x in [])


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (5, "a dict with 'type' and 'content'"),
        ({"type": "INT"}, "a dict with 'type' and 'content'"),
        ({"type": "NOPE", "content": 1}, "Unknown type 'NOPE'"),
        ({"type": "INT", "content": None}, "damaged"),
        ({"type": "BYTES", "content": "***"}, "."),
        ({"type": "LIST", "content": 5}, "damaged"),
        ({"type": "TORCH_TENSOR", "content": {"dtype": "float32", "shape": [3], "data": "AAAA"}}, "does not fit"),
        ({"type": "TORCH_TENSOR", "content": {"dtype": "load", "shape": [1], "data": ""}}, "no dtype 'load'"),
        ({"type": "TORCH_TENSOR", "content": {}}, "damaged"),
    ],
)
def test_damaged_values_are_refused(encoded: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        deserialize(encoded)
