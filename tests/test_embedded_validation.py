"""The embedded server's refusals: every error of POST /prompt, word for word as ComfyUI 0.3.64 has them."""

from __future__ import annotations

from typing import Any

import pytest
from discomfort.embedded import node_registry
from discomfort.embedded.comfy_types import IO
from discomfort.embedded.validation import validate_node_input, validate_prompt

LONG = [str(i) for i in range(21)]


class Number:
    """An output of INT and TEXT."""

    RETURN_TYPES = ("INT", "TEXT")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"value": ("INT", {"min": 0, "max": 9})},
            "optional": {
                "choice": (["a", "b"],),
                "long": (LONG,),
                "new": ("COMBO", {"options": ["x", "y"]}),
                "other": ("INT", {}),
                "real": ("FLOAT", {}),
                "flag": ("BOOLEAN", {}),
                "text": ("STRING", {}),
            },
        }


class Show:
    """An output node."""

    OUTPUT_NODE = True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {})}}


class Strict:
    """Checks one of its two inputs itself."""

    RETURN_TYPES = ("INT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {"max": 1}), "other": ("INT", {"max": 1})}}

    @classmethod
    def VALIDATE_INPUTS(cls, value: Any) -> Any:
        return {2: True, 3: False, 4: "four is bad"}.get(value, True)


class Everything(Strict):
    """Checks all its inputs itself."""

    @classmethod
    def VALIDATE_INPUTS(cls, **kwargs: Any) -> Any:
        return True


@pytest.fixture(autouse=True)
def classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server knows these classes."""
    known = {c.__name__: c for c in (Number, Show, Strict, Everything)}
    monkeypatch.setattr(node_registry, "NODE_CLASS_MAPPINGS", known)


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


async def errors_of(first: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The errors of a node "1" whose output is shown: (type, message, details)."""
    verdict = await validate_prompt("p", {"1": first, "9": node("Show", value=["1", 0])}, None)
    assert verdict.valid is (not verdict.node_errors)
    entry = verdict.node_errors.get("1")
    if entry is None:
        return []
    assert entry["class_type"] == first["class_type"]
    assert entry["dependent_outputs"] == ["9"]
    return [(e["type"], e["message"], e["details"]) for e in entry["errors"]]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"value": 3}, []),
        ({}, [("required_input_missing", "Required input is missing", "value")]),
        ({"value": -1}, [("value_smaller_than_min", "Value -1 smaller than min of 0", "value")]),
        ({"value": 10}, [("value_bigger_than_max", "Value 10 bigger than max of 9", "value")]),
        (
            {"value": "x"},
            [
                (
                    "invalid_input_type",
                    "Failed to convert an input value to a INT value",
                    "value, x, invalid literal for int() with base 10: 'x'",
                )
            ],
        ),
        ({"value": 1, "choice": "c"}, [("value_not_in_list", "Value not in list", "choice: 'c' not in ['a', 'b']")]),
        (
            {"value": 1, "long": "x"},
            [("value_not_in_list", "Value not in list", "long: 'x' not in (list of length 21)")],
        ),
        ({"value": 1, "new": "z"}, [("value_not_in_list", "Value not in list", "new: 'z' not in ['x', 'y']")]),
        (
            {"value": ["1", 0, 0]},
            [("bad_linked_input", "Bad linked input, must be a length-2 list of [node_id, slot_index]", "value")],
        ),
        ({"value": ["7", 0]}, [("exception_during_inner_validation", "Exception when validating inner node", "'7'")]),
        # both errors of a node are told
        (
            {"value": 10, "choice": "c"},
            [
                ("value_bigger_than_max", "Value 10 bigger than max of 9", "value"),
                ("value_not_in_list", "Value not in list", "choice: 'c' not in ['a', 'b']"),
            ],
        ),
        # an input the class does not have is no error
        ({"value": 1, "unknown": "anything"}, []),
    ],
)
async def test_bad_inputs_are_refused(inputs: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
    """Each kind of bad input has its error."""
    assert await errors_of(node("Number", **inputs)) == expected


async def test_an_error_says_which_input_and_what_it_accepts() -> None:
    """extra_info is what the editor marks the input by; long lists are not sent back."""
    prompt = {"1": node("Number", value=10, long="x"), "9": node("Show", value=["1", 0])}
    verdict = await validate_prompt("p", prompt, None)
    big, unlisted = verdict.node_errors["1"]["errors"]
    assert big["extra_info"] == {
        "input_name": "value",
        "input_config": ("INT", {"min": 0, "max": 9}),
        "received_value": 10,
    }
    assert unlisted["extra_info"] == {"input_name": "long", "input_config": None, "received_value": "x"}
    assert verdict.error == {
        "type": "prompt_outputs_failed_validation",
        "message": "Prompt outputs failed validation",
        # The output itself has no error of its own.
        "details": "",
        "extra_info": {},
    }


async def test_types_of_linked_outputs_must_match() -> None:
    """A TEXT for an INT is refused, with both types."""
    verdict = await validate_prompt("p", {"1": node("Number", value=1), "9": node("Show", value=["1", 1])}, None)
    (error,) = verdict.node_errors["9"]["errors"]
    assert error["type"] == "return_type_mismatch"
    assert error["details"] == "value, received_type(TEXT) mismatch input_type(INT)"
    assert error["extra_info"]["linked_node"] == ["1", 1]
    assert verdict.error is not None
    assert verdict.error["details"] == f"{error['message']}: {error['details']}"


@pytest.mark.parametrize(
    ("prompt", "kind", "details"),
    [
        ({}, "prompt_no_outputs", ""),
        ({"1": node("Number", value=1)}, "prompt_no_outputs", ""),
        ({"1": {"inputs": {}}}, "invalid_prompt", "Node ID '#1'"),
        ({"1": node("NoSuch")}, "invalid_prompt", "Node ID '#1'"),
    ],
)
async def test_prompts_that_cannot_be_looked_at_are_refused(prompt: Any, kind: str, details: str) -> None:
    """No outputs, or nodes of no known class."""
    verdict = await validate_prompt("p", prompt, None)
    assert not verdict.valid
    assert verdict.error is not None
    assert (verdict.error["type"], verdict.error["details"]) == (kind, details)
    assert verdict.node_errors == {}


async def test_an_output_node_that_raises_is_an_error_of_its_own() -> None:
    """A link to nowhere, straight from an output."""
    verdict = await validate_prompt("p", {"9": node("Show", value=["7", 0])}, None)
    (error,) = verdict.node_errors["9"]["errors"]
    assert error["type"] == "exception_during_validation"
    assert error["extra_info"]["exception_type"] == "KeyError"
    assert error["extra_info"]["traceback"]


async def test_a_cycle_is_an_error_of_all_its_nodes() -> None:
    """Also in a prompt that has other outputs; the nodes that merely use it have no error of their own."""
    prompt = {
        "1": node("Number", value=["2", 0]),
        "2": node("Number", value=["1", 0], other=["3", 0]),
        "3": node("Number", value=99),
        "8": node("Show", value=5),
        "9": node("Show", value=["1", 0]),
    }
    verdict = await validate_prompt("p", prompt, None)
    assert verdict.outputs == ["8"]
    kinds = {node_id: [e["type"] for e in entry["errors"]] for node_id, entry in verdict.node_errors.items()}
    assert kinds == {"1": ["dependency_cycle"], "2": ["dependency_cycle"], "3": ["value_bigger_than_max"]}
    error = verdict.node_errors["2"]["errors"][0]
    assert error["details"] == "1 (Number) -> 2 (Number) -> 1 (Number)"
    assert error["extra_info"] == {"node_id": "2", "cycle_nodes": ["1", "2"]}


async def test_a_chain_may_be_longer_than_python_recurses() -> None:
    """ComfyUI manages some 900 nodes."""
    prompt = {"0": node("Number", value=99)}
    for i in range(1, 3000):
        prompt[str(i)] = node("Number", value=[str(i - 1), 0])
    prompt["end"] = node("Show", value=["2999", 0])
    verdict = await validate_prompt("p", prompt, None)
    assert {k: [e["type"] for e in v["errors"]] for k, v in verdict.node_errors.items()} == {
        "0": ["value_bigger_than_max"]
    }


async def test_good_outputs_run_beside_refused_ones() -> None:
    """The prompt is accepted with the errors of the refused output."""
    prompt = {"8": node("Show", value=1), "9": node("Show")}
    verdict = await validate_prompt("p", prompt, None)
    assert verdict.valid
    assert verdict.outputs == ["8"]
    assert list(verdict.node_errors) == ["9"]


async def test_only_the_chosen_outputs_are_checked() -> None:
    """partial_execution_targets leaves the others out, errors and all."""
    verdict = await validate_prompt("p", {"8": node("Show", value=1), "9": node("Show")}, ["8"])
    assert (verdict.valid, verdict.outputs, verdict.node_errors) == (True, ["8"], {})


async def test_constants_are_converted_in_the_prompt() -> None:
    """Numbers from texts and the other way round, and lists out of their wrapper."""
    first = node("Number", value="7", real="1.5", flag=1, text=5, other=2.9, choice={"__value__": "a"})
    prompt = {"1": first, "9": node("Show", value=["1", 0])}
    assert (await validate_prompt("p", prompt, None)).valid
    assert first["inputs"] == {"value": 7, "real": 1.5, "flag": True, "text": "5", "other": 2, "choice": "a"}


@pytest.mark.parametrize(
    ("class_type", "value", "other", "expected"),
    [
        ("Strict", 2, 1, []),
        ("Strict", 3, 1, [("custom_validation_failed", "Custom validation failed for node", "value")]),
        ("Strict", 4, 1, [("custom_validation_failed", "Custom validation failed for node", "value - four is bad")]),
        # The range of what it does not check still counts.
        ("Strict", 2, 2, [("value_bigger_than_max", "Value 2 bigger than max of 1", "other")]),
        ("Everything", 9, 9, []),
    ],
)
async def test_a_class_can_check_its_inputs_itself(
    class_type: str, value: int, other: int, expected: list[tuple[str, str, str]]
) -> None:
    """VALIDATE_INPUTS takes the place of the range check for the inputs it names."""
    assert await errors_of(node(class_type, value=value, other=other)) == expected


class AnyType(str):
    """What packages make wildcards from."""

    def __ne__(self, other: object) -> bool:
        return False


@pytest.mark.parametrize(
    ("received", "accepted", "strict", "expected"),
    [
        ("INT", "INT", False, True),
        ("INT", "FLOAT", False, False),
        ("INT", "FLOAT, INT", False, True),
        ("INT,STRING", "INT", False, True),
        ("INT,STRING", "INT", True, False),
        ("INT", "*", False, True),
        ("STRING,*", "INT", True, True),
        (["a"], "*", False, True),
        ("COMFY_MATCHTYPE_V3", "INT", False, True),
        (["a"], "COMBO", False, True),
        ("COMBO", ["a"], False, False),
        (AnyType("*"), "INT", False, True),
        ("INT", AnyType("*"), False, True),
        (IO.ANY, "INT", False, True),
        (IO.NUMBER, "INT", False, True),
        (["a"], ["a"], False, True),
        (["a"], ["b"], False, False),
        ("INT", ["a"], False, False),
    ],
)
def test_types_match(received: Any, accepted: Any, strict: bool, expected: bool) -> None:
    """Equal, overlapping, a wildcard, a package's own or a plain one; a list of choices for a COMBO."""
    assert validate_node_input(received, accepted, strict) is expected
