"""A value is told by type, shape and figures; nothing that it may be makes the telling fail."""

from __future__ import annotations

import collections
import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from discomfort.value_summary import as_lines, summarize
from PIL import Image

from discomfort import value_summary


def told(value: Any) -> list[str]:
    """The lines about a value; what they are made of is JSON."""
    summary = summarize(value)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    return as_lines(summary)


@dataclasses.dataclass
class Settings:
    steps: int
    name: str


class Plain:
    def __init__(self) -> None:
        self.size = 3

    def __repr__(self) -> str:
        raise RuntimeError("is not asked")


class Hostile(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        raise RuntimeError("no\x1b[2J")


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (None, "None"),
        (True, "bool True"),
        (5, "int 5"),
        (10**5000, "int a number of 16610 bits"),
        (0.5, "float 0.5"),
        (math.inf, "float inf"),
        (1 + 2j, "complex (1+2j)"),
        ("a\x1b[2J\n", r"str 'a\x1b[2J\n'"),
        ("a" * 500, f"str '{'a' * 200}'... (500 characters)"),
        (b"abc", "bytes 616263"),
        (bytes(100), f"bytes {'00' * 32}... (100 bytes)"),
        ([], "list of 0 items"),
        ([1, None, "a"], "list of 3 items: 1, None, 'a'"),
        (("4", 0), "tuple of 2 items: '4', 0"),
        ({3}, "set of 1 item: 3"),
        (collections.OrderedDict(), "collections.OrderedDict of 0 items"),
        (math.floor, "builtin_function_or_method math.floor"),
        (Settings, f"type {__name__}.Settings"),
        (Image.new("RGB", (4, 5)), "PIL.Image.Image RGB [4, 5]"),
        (np.float32(3.5), "numpy.float32 3.5"),
        (np.str_("text"), "numpy.str_ 'text'"),
        (np.arange(6).reshape(2, 3), "array int64 [2, 3]  min 0, max 5, mean 2.5"),
        (np.array(["a"]), "array <U1 [1] (its elements are no numbers)"),
        (torch.tensor(7), "tensor int64 []  min 7, max 7, mean 7"),
        (torch.zeros(0, 3), "tensor float32 [0, 3]  no values"),
        (torch.tensor([2**62, -5]), "tensor int64 [2]  min -5, max 4611686018427387904, mean 2.30584e+18"),
        (torch.tensor([2**63 + 5], dtype=torch.uint64), "tensor uint64 [1]  min 9223372036854775813, max 922337203685"),
        (torch.tensor([True, False]), "tensor bool [2]  min False, max True, mean 0.5"),
        (torch.tensor([1.0, math.inf]), "tensor float32 [2]  min 1, max inf, mean inf"),
        (torch.tensor([math.nan, 2.0]), "tensor float32 [2]  min 2, max 2, mean 2, 1 NaN"),
        (torch.tensor([math.nan]), "tensor float32 [1]  nothing but NaN (1)"),
        (torch.tensor([3 + 4j]), "tensor complex64 [1]  min 5, max 5, mean 5"),
        (torch.tensor([3 + 4j]).conj(), "tensor complex64 [1]  min 5, max 5, mean 5"),
        (torch.tensor([0.5, 1.5]).bfloat16(), "tensor bfloat16 [2]  min 0.5, max 1.5, mean 1"),
        (torch.tensor([0.5]).to(torch.float8_e4m3fn), "tensor float8_e4m3fn [1]  min 0.5, max 0.5, mean 0.5"),
        (torch.full((100_000,), 60_000.0).half(), "tensor float16 [100000]  min 60000, max 60000, mean 60000"),
        (torch.ones(3, requires_grad=True), "tensor float32 [3]  min 1, max 1, mean 1"),
        (torch.nn.Parameter(torch.ones(1)), "torch.nn.parameter.Parameter float32 [1]  min 1, max 1, mean 1"),
        (torch.ones(2, 3).t().expand(4, 3, 2), "tensor float32 [4, 3, 2]  min 1, max 1, mean 1"),
        (
            torch.tensor([math.nan, 1.0]).expand(10**12, 2),
            "tensor float32 [1000000000000, 2]  min 1, max 1, mean 1, 1,000,000,000,000 NaN",
        ),
        (torch.empty(3, device="meta"), "tensor float32 [3] on meta (it has a shape and no values)"),
        (torch.eye(3).to_sparse(), "tensor float32 [3, 3] (its layout is sparse_coo)"),
        (Hostile(a=1), f"{__name__}.Hostile (RuntimeError: no\x1b[2J)"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) and value.isprintable() else "",
)
def test_one_line_says_it(value: Any, line: str) -> None:
    (shown,) = told(value)
    assert shown.startswith(line)
    assert len(shown) < 300


def test_structure_is_indented() -> None:
    value = {"a": [Settings(20, "x"), Point(1, 2)], b"key": Plain(), (1, 2): {"deep": {"deeper": {"deepest": {1: 2}}}}}
    assert told(value) == [
        "dict of 3 items",
        "  'a': list of 2 items",
        f"    0: {__name__}.Settings of 2 attributes",
        "      steps: int 20",
        "      name: str 'x'",
        f"    1: {__name__}.Point of 2 items",
        "      x: int 1",
        "      y: int 2",
        f"  b'key': {__name__}.Plain of 1 attribute",
        "    size: int 3",
        "  <tuple>: dict of 1 item",
        "    'deep': dict of 1 item",
        "      'deeper': dict of 1 item",
        "        'deepest': dict of 1 item",
    ]


def test_large_and_endless_values_are_cut() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert len(told(endless)) == 5
    lines = told(list(range(1000)))
    assert lines[0] == "list of 1,000 items"
    assert lines[-1] == "  ... and 980 more"
    assert len(lines) == 22
    assert len(told({"k" * 10_000: 1})[1]) < 150


def test_figures_of_tensors_larger_than_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(value_summary, "_CHUNK", 7)
    value = torch.arange(100.0)
    value[50] = math.nan
    expected = {"min": 0.0, "max": 99.0, "mean": float(value[~value.isnan()].double().mean()), "nan": 1}
    for one in (value, value.reshape(10, 10).t(), value.numpy()):
        summary = summarize(one)
        assert {name: summary[name] for name in expected} == pytest.approx(expected)


def test_describing_changes_nothing() -> None:
    value = torch.rand(50)[::2]
    before = value.clone()
    summarize({"a": value})
    assert torch.equal(value, before)
