"""control_flow: conditions, per-iteration inputs and steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from discomfort.control_flow import (
    Branch,
    Condition,
    ConditionError,
    Loop,
    PerIteration,
    load_steps,
    parse_steps,
    truth,
)

WORKFLOW = {"nodes": [], "links": []}
PROMPT = {"1": {"class_type": "EmptyImage", "inputs": {}}}


class Lazy(Mapping[str, Any]):
    """Values that note which of them were read."""

    def __init__(self, **values: Any) -> None:
        self.values_by_name = values
        self.read: list[str] = []

    def __getitem__(self, name: str) -> Any:
        value = self.values_by_name[name]
        self.read.append(name)
        return value

    def __contains__(self, name: object) -> bool:
        return name in self.values_by_name

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)


IMAGE = torch.tensor([[0.0, 0.25], [0.5, 1.0]]).reshape(1, 2, 2, 1)
VALUES = {
    "score": 0.8,
    "image": IMAGE,
    "mask": torch.zeros(1, 4, 4),
    "latent": {"samples": torch.full((2, 4, 8, 8), 3)},
    "half": torch.tensor([1.5, 2.5], dtype=torch.float16),
    "array": np.array([1.0, 3.0]),
    "numbers": [4, 1, 1],
    "text": "done",
    "nothing": None,
    "my image": torch.ones(1),
    "image-1": 0,
}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("score < 0.9 and iteration < 20", True),
        ("score < 0.9 and iteration < 7", False),
        ("0 < score < 1", True),
        ("not score", False),
        ("mean(image) == 0.4375", True),
        ("min(image) == 0 and max(image) == 1 and sum(image) == 1.75", True),
        ("abs(std(image) - 0.36975) < 0.0001", True),
        ("len(image) == 1 and shape(image) == (1, 2, 2, 1) and shape(image)[1] == 2", True),
        ("mean(latent) == 3 and len(latent) == 2 and mean(latent['samples']) == 3", True),
        ("sum(latent) == 3 * 2 * 4 * 8 * 8", True),
        ("mean(half) == 2 and round(mean(half) / 3, 2) == 0.67", True),
        ("mean(array) == 2 and max(array) == 3", True),
        ("mean(numbers) == 2 and std([1, 3]) == 1 and max(numbers) == 4 and min(3, 2) == 2", True),
        ("mean(score) == score and std(score) == 0 and abs(-score) == score", True),
        ("any(image > 0.9) and not all(image > 0.9)", True),
        ("mean(abs(image - 1)) == 0.5625", True),
        ("text == 'done' and 'on' in text and text not in ['open', 'wait']", True),
        ("nothing is None", True),
        ("(1 if score > 0.5 else 0) == 1", True),
        ("2 ** 10 == 1024 and 7 % 4 == 3 and 7 // 2 == 3", True),
        ("value('my image') == 1", True),
        ("max(mask) > 0 or iteration == 7", True),
    ],
)
async def test_expressions(expression: str, expected: bool) -> None:
    assert await Condition.parse(expression).holds(VALUES, 7) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.zeros(3, 3), False),
        (torch.tensor([[0.0, 0.1]]), True),
        (torch.tensor([float("nan")]), True),
        (torch.empty(0), False),
        (torch.tensor(0), False),
        ({"samples": torch.zeros(2)}, False),
        (np.zeros((2, 2)), False),
        (0, False),
        ("", False),
        (None, False),
        ([], False),
        ("false", True),
        (0.1, True),
    ],
)
async def test_the_truth_of_a_port(value: Any, expected: bool) -> None:
    assert truth(value) is expected
    assert await Condition.parse("port").holds({"port": value}) is expected


@pytest.mark.parametrize("name", ["score", "my image", "image-1", "a.b", "größe", "3d"])
async def test_a_name_of_a_port_is_a_condition(name: str) -> None:
    condition = Condition.parse(name)
    assert condition.missing([name]) == frozenset()
    assert await condition.holds({name: 1})
    assert not await condition.holds({name: 0, "image": 5})


def test_names_are_known_before_the_run() -> None:
    condition = Condition.parse("score < limit and mean(image) > 0 and iteration < 3 and value('my image')")
    assert condition.names == {"score", "limit", "image", "my image"}
    assert condition.missing(["score", "image", "my image"]) == {"limit"}
    assert Condition.parse("image").names == {"image"}
    assert Condition.parse("mean > 3").names == {"mean"}, "a value may be called like a function"
    assert Condition.parse(lambda values: True).names == frozenset()


async def test_only_what_is_needed_is_loaded() -> None:
    values = Lazy(**VALUES)
    assert await Condition.parse("score > 0.1 or mean(image) > 0").holds(values)
    assert values.read == ["score"]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("score <", "column"),
        ("score < 0.9 and (", "column"),
        ("", "empty"),
        ("sqrt(score) < 1", r"calls 'sqrt'.*only: mean, std"),
        ("image.mean() < 1", "calls 'image.mean'"),
        ("image.shape == (1, 2)", r"Attribute at column 1"),
        ("a and", "column"),
        ("().__class__", "Attribute"),
        ("__import__('os')", "calls '__import__'"),
        ("[x for x in numbers]", "ListComp"),
        ("(lambda: 1)()", "calls"),
        ("f'{score}' == '1'", "JoinedStr"),
        ("x := 3", "no expression"),
        ("a = 3", "no expression"),
        ("{'a': 1}", "Dict"),
        ("b'bytes' == x", "bytes"),
        ("1j == x", "complex"),
        ("1 << 3", "LShift"),
        ("mean(*numbers)", "plain arguments"),
        ("max(a, key=len)", "plain arguments"),
        ("value(score)", "name in quotes"),
        ("score" + " + 1" * 400, "characters long"),
        ("abs(" * 60 + "1" + ")" * 60, "nested deeper"),
        ("(" * 300 + "1" + ")" * 300, "no expression|nested"),
    ],
)
def test_a_bad_expression_is_refused_at_once(expression: str, message: str) -> None:
    with pytest.raises(ConditionError, match=message):
        Condition.parse(expression)


@pytest.mark.parametrize("spec", [None, 3, {"port": "x"}, ["x"]])
def test_other_things_are_no_conditions(spec: Any) -> None:
    with pytest.raises(TypeError, match="A condition is"):
        Condition.parse(spec)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("scroe < 1", r"'scroe', which has no value.*image"),
        ("value('nope') == 1", "'nope', which has no value"),
        ("image < 0.5", r"shape \(1, 2, 2, 1\).*reduce it"),
        ("image > 0 and score", "iteration 7"),
        ("text < 3", "TypeError"),
        ("9 ** 9 ** 9", "too large|exponent"),
        ("10 ** 9999 > 1", "exponent"),
        ("'a' * 100000000 == text", "cannot multiply"),
        ("'%1000000000d' % 3 == text", "remainder of text"),
        ("round(3, -1000000000) == 1", "digits"),
        ("1 / 0", "ZeroDivisionError"),
        ("numbers[9]", "IndexError"),
    ],
)
async def test_a_condition_that_fails_says_why(expression: str, message: str) -> None:
    with pytest.raises(ConditionError, match=message):
        await Condition.parse(expression).holds(VALUES, 7)


async def test_functions_sync_and_async() -> None:
    async def later(values: Mapping[str, Any]) -> Any:
        return values["image"]

    assert await Condition.parse(later).holds(VALUES)
    assert await Condition.parse(lambda values: values["score"] > 0.5).holds(VALUES)
    assert not await Condition.parse(lambda values: values["mask"]).holds(VALUES), "its result counts by its truth"
    assert await Condition.parse(lambda values, iteration: iteration == 3).holds(VALUES, 3)


async def test_a_function_cannot_change_the_values_and_its_errors_come_through() -> None:
    def spoil(values: Any) -> bool:
        values["score"] = 1
        return True

    with pytest.raises(TypeError, match="does not support item assignment"):
        await Condition.parse(spoil).holds(VALUES)
    with pytest.raises(ZeroDivisionError):
        await Condition.parse(lambda values: 1 / 0).holds(VALUES)


async def test_constants_and_conditions_pass() -> None:
    assert await Condition.parse(True).holds({})
    assert not await Condition.parse(False).holds({})
    condition = Condition.parse("score")
    assert Condition.parse(condition) is condition
    assert condition == Condition.parse("score") != Condition.parse("other")
    assert "score" in repr(condition)


# ----------------------------------------------------------------------------------------------------- per iteration


async def _later(iteration: int) -> int:
    return iteration * 10


@pytest.mark.parametrize(
    ("source", "length", "expected"),
    [
        ([5, 6, 7], 3, 7),
        (range(10, 20), 10, 12),
        (lambda iteration: iteration + 1, None, 3),
        (lambda iteration, values: values["base"] + iteration, None, 102),
        (lambda *arguments: len(arguments), None, 2),
        (_later, None, 20),
    ],
)
async def test_the_value_of_an_iteration(source: Any, length: int | None, expected: int) -> None:
    per_iteration = PerIteration(source)
    assert per_iteration.length == length
    assert await per_iteration.value(2, {"base": 100}, name="amount") == expected


async def test_a_tensor_is_a_sequence_too() -> None:
    assert (await PerIteration(torch.arange(3)).value(1)).item() == 1


@pytest.mark.parametrize("iteration", [3, -1])
async def test_a_sequence_that_is_too_short(iteration: int) -> None:
    with pytest.raises(IndexError, match=rf"'amount'.*3 values.*iteration {iteration}"):
        await PerIteration([1, 2, 3]).value(iteration, name="amount")


@pytest.mark.parametrize("source", ["abc", b"abc", 5, None, {0: 1}])
def test_what_is_no_source(source: Any) -> None:
    with pytest.raises(TypeError, match="PerIteration takes"):
        PerIteration(source)


# ------------------------------------------------------------------------------------------------------------- steps


def test_all_forms_of_a_step_give_the_same() -> None:
    branch = Branch("ok", then=["a.json"], otherwise=["b.json"])
    loop = Loop(body=["a.json"], iterations=3, condition="ok")
    assert parse_steps([branch, loop, "c.json", WORKFLOW, PROMPT]) == (branch, loop, "c.json", WORKFLOW, PROMPT)
    tuples = [("branch", "ok", ["a.json"], ["b.json"]), ("loop", ["a.json"], 3, "ok")]
    objects = [
        {"branch": {"condition": "ok", "then": ["a.json"], "otherwise": ["b.json"]}},
        {"loop": {"body": ["a.json"], "iterations": 3, "condition": "ok"}},
    ]
    assert parse_steps(tuples) == parse_steps(objects) == (branch, loop)
    assert parse_steps(json.loads(json.dumps(tuples))) == (branch, loop)
    assert parse_steps(Path("x.json")) == (Path("x.json"),)
    assert parse_steps(("loop", "a.json", 2)) == (Loop(["a.json"], 2),)


def test_steps_nest() -> None:
    steps = parse_steps([("loop", [("branch", "x > 1", [("loop", ["a.json"], 2)])], None, "y")])
    (outer,) = steps
    assert isinstance(outer, Loop)
    (branch,) = outer.body
    assert isinstance(branch, Branch)
    assert branch.then == (Loop(["a.json"], 2),)
    assert branch.otherwise == ()
    assert isinstance(branch.condition, Condition)
    assert outer.iterations is None


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["a.json", 5], r"steps\[1\]: a step is a path"),
        (["a.json", "", "b"], r"steps\[1\]: the path .* is empty"),
        (["a", "b", ("branch", "x", [7])], r"steps\[2\]\.then\[0\]: a step is"),
        (
            [{"branch": {"condition": "x", "then": [{"loop": {"body": [None], "iterations": 1}}]}}],
            r"steps\[0\]\.then\[0\]\.body\[0\]",
        ),
        ([("branch", "x <", ["a"])], r"steps\[0\]: The condition 'x <'"),
        ([("loop", ["a"], -1)], r"steps\[0\]: .*whole number"),
        ([("loop", ["a"])], r"steps\[0\]: .*never end"),
        ([("loop",)], r"steps\[0\]: .*0 parts"),
        (
            [{"branch": {"condition": "x", "else": ["a"]}}],
            r"steps\[0\]: a branch has the keys condition, otherwise, then",
        ),
        ([{"loop": {"iterations": 1}}], r"steps\[0\]: a loop has the keys"),
        ([{"while": {}}], r"steps\[0\]: this object is neither.*while"),
        (5, "steps: expected a list"),
    ],
)
def test_errors_carry_the_position(steps: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        parse_steps(steps)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Branch("x <", then=["a"]),
        lambda: Branch("x", then=[5]),  # type: ignore[list-item]
        lambda: Loop(["a"]),
        lambda: Loop(["a"], iterations=True),
        lambda: Loop(["a"], iterations=1.5),  # type: ignore[arg-type]
        lambda: Loop(["a"], condition="frob(x)"),
    ],
)
def test_a_bad_step_is_refused_when_it_is_made(make: Callable[[], Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        make()


def test_a_step_file_counts_paths_from_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "steps.json"
    steps = ["a.json", ["branch", "ok", ["sub/b.json"]], {"loop": {"body": [WORKFLOW, "/abs/c.json"], "iterations": 2}}]
    file.write_text(json.dumps(steps))
    first, branch, loop = load_steps(file)
    assert first == tmp_path / "a.json"
    assert isinstance(branch, Branch)
    assert branch.then == (tmp_path / "sub/b.json",)
    assert isinstance(loop, Loop)
    assert loop.body[0] == WORKFLOW
    assert loop.body[1] == tmp_path / "/abs/c.json"


def test_a_step_file_with_faults(tmp_path: Path) -> None:
    file = tmp_path / "steps.json"
    with pytest.raises(FileNotFoundError):
        load_steps(file)
    file.write_text("[1,")
    with pytest.raises(ValueError, match=r"steps\.json.*not JSON"):
        load_steps(file)
    file.write_text('["a.json", 5]')
    with pytest.raises(TypeError, match=r"steps\.json\[1\]"):
        load_steps(file)
