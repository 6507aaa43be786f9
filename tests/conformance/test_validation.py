"""What POST /prompt refuses, and how it says so: types, ranges, choices, and the nodes' own checks."""

from __future__ import annotations

from typing import Any

import pytest
from conformance.differences import expected
from conformance.driver import Client, Run, Server, link, node, show


def _errors(run: Run, node_id: str = "1") -> list[tuple[str, str]]:
    """The errors of a node: (type, details)."""
    entry = run.response["node_errors"].get(node_id, {"errors": []})
    return sorted((error["type"], error["details"]) for error in entry["errors"])


# -- the node's own check ------------------------------------------------------------------------------------

_CLASSES = ["ExecChecks", "ExecChecksAll", "ExecChecksSome", "ExecChecksAsync", "ExecChecksLists"]


def _checked(class_type: str, answer: str, **more: Any) -> dict[str, Any]:
    return show(link("1"), **{"1": node(class_type, answer=answer, number=5, **more)})


@pytest.mark.parametrize("class_type", _CLASSES)
async def test_a_node_says_yes(client: Client, class_type: str) -> None:
    """Synchronous, async, with all, some or list inputs."""
    run = await client.run(_checked(class_type, "yes"))
    assert run.status == 200
    assert run.response["node_errors"] == {}


@pytest.mark.parametrize(
    ("answer", "said"), [("no", ""), ("none", " - None"), ("one", " - 1"), ("because", " - because"), ("empty", " - ")]
)
async def test_a_node_says_no(client: Client, answer: str, said: str) -> None:
    """All but True is an error of each input that the check was given; False says nothing more."""
    for class_type, names in (
        ("ExecChecks", ["answer"]),
        ("ExecChecksAsync", ["answer", "number"]),
        ("ExecChecksAll", ["answer", "node_id", "number", "prompt"]),
        ("ExecChecksSome", ["answer", "input_types", "node_id"]),
    ):
        run = await client.run(_checked(class_type, answer))
        assert run.status == 400
        assert _errors(run) == [("custom_validation_failed", f"{name}{said}") for name in names]
        error = run.response["node_errors"]["1"]["errors"][0]
        assert error["message"] == "Custom validation failed for node"
        assert set(error["extra_info"]) == {"input_name"}
        assert run.response["node_errors"]["1"]["dependent_outputs"] == ["9"]


async def test_a_check_may_answer_with_a_blocker(client: Client) -> None:
    """Which is no error."""
    assert (await client.run(_checked("ExecChecks", "blocker"))).status == 200


async def test_a_check_that_answers_with_a_list_says_no(client: Client) -> None:
    """Its text is the reason."""
    run = await client.run(_checked("ExecChecks", "list"))
    assert _errors(run) == [("custom_validation_failed", "answer - ['no']")]


async def test_a_check_that_raises(client: Client) -> None:
    """It is the error of the node whose check it was."""
    run = await client.run(_checked("ExecChecks", "raise"))
    assert _errors(run) == [("exception_during_inner_validation", "cannot check")]
    (error,) = run.response["node_errors"]["1"]["errors"]
    assert error["message"] == "Exception when validating inner node"
    extra = error["extra_info"]
    assert extra["input_name"] == "value"
    assert extra["exception_message"] == "cannot check"
    assert extra["exception_type"] == "ValueError"
    assert extra["linked_node"] == ["1", 0]
    assert "_answer" in extra["traceback"][-1]


async def test_what_a_check_is_given(client: Client) -> None:
    """Constants; None for links; the hidden inputs it names; the types of what is linked."""
    await client.notes()
    more = {"link": link("2"), "unknown": "left out", "2": node("TinyNumber", value=1)}
    prompt = _checked("ExecChecksSome", "yes", link=link("2"), unknown=1)
    prompt["2"] = more["2"]
    await client.run(prompt)
    assert await client.notes() == ["VALIDATE_INPUTS {'link': 'INT'} None 1"]
    await client.run({**prompt, "1": {**prompt["1"], "class_type": "ExecChecksAll"}})
    assert await client.notes() == ["VALIDATE_INPUTS answer=yes link=None node_id=1 number=5 prompt={}"]
    await client.run(_checked("ExecChecksLists", "yes"))
    assert await client.notes() == ["VALIDATE_INPUTS ['yes'] [5]"]
    # Without the input it is not given it either.
    await client.run(_checked("ExecChecksSome", "yes"))
    assert await client.notes() == ["VALIDATE_INPUTS {} no link 1"]


async def test_a_check_without_parameters_is_called_but_cannot_refuse(client: Client) -> None:
    """There is no input to give the error to."""
    await client.notes()
    run = await client.run(_checked("ExecChecksNothing", "yes"))
    assert run.status == 200
    assert await client.notes() == ["VALIDATE_INPUTS"]


async def test_a_check_takes_over_the_inputs_it_names(client: Client) -> None:
    """Ranges and choices of the others are still checked; with **kwargs none are; conversion is done first."""
    for class_type, errors in (
        (
            "ExecChecks",
            [("value_bigger_than_max", "number"), ("value_not_in_list", "choice: 'z' not in ['a', 'b']")],
        ),
        ("ExecChecksAsync", [("value_not_in_list", "choice: 'z' not in ['a', 'b']")]),
        ("ExecChecksAll", []),
    ):
        run = await client.run(show(link("1"), **{"1": node(class_type, answer="yes", number="50", choice="z")}))
        found = [(kind, details.replace('"', "'")) for kind, details in _errors(run)]
        assert found == errors
        if not errors:
            assert run.shown("9") == ["yes 50 z None"]


async def test_a_check_is_made_also_when_other_inputs_are_wrong(client: Client) -> None:
    """All errors of a node are told at once."""
    run = await client.run(show(link("1"), **{"1": node("ExecChecks", answer="no", number="x")}))
    assert [kind for kind, _ in _errors(run)] == ["custom_validation_failed", "invalid_input_type"]


async def test_a_check_that_lacks_its_input_is_an_error(client: Client) -> None:
    """It is called without it."""
    run = await client.run(show(link("1"), **{"1": node("ExecChecks", number=1)}))
    ((kind, details),) = _errors(run)
    assert kind == "exception_during_inner_validation"
    assert "missing 1 required positional argument: 'answer'" in details


# -- types ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "name", "fits"),
    [
        (node("TinyNumber", value=1), "either", True),
        (node("ExecUnion"), "either", True),
        (node("TinyText", choice="one", long="1"), "either", False),
        (node("TinyNumber", value=1), "any", "later"),
        (node("ExecDeclared", a=1), "any", "later"),
        (node("TinyUnique", value=1), "combo", False),
        (node("ExecCombo", choice="x"), "combo", True),
        (node("ExecNote", name="n", value=1), "either", True),
        (node("ExecNote", name="n", value=1), "combo", True),
    ],
)
async def test_types_of_links(
    server: Server, client: Client, source: dict[str, Any], name: str, fits: bool | str
) -> None:
    """Unions fit where they share a type, lists of choices where they are equal, a package's own text that is unequal
    to nothing fits all; a plain "*" does since 0.8.0."""
    if fits == "later":
        fits = bool(expected(server, "star", comfyui=server.version >= (0, 8), embedded=True))
    run = await client.run(show(link("2", 2), **{"1": source, "2": node("ExecUnion", **{name: link("1")})}))
    assert run.status == (200 if fits else 400)
    if not fits:
        (error,) = run.response["node_errors"]["2"]["errors"]
        assert error["type"] == "return_type_mismatch"
        assert error["message"] == "Return type mismatch between linked nodes"
        assert error["details"].startswith(f"{name}, received_type(")
        assert set(error["extra_info"]) == {"input_name", "input_config", "received_type", "linked_node"}
        # What is linked wrongly is not looked at.
        assert set(run.response["node_errors"]) == {"2"}


async def test_choices_in_the_new_form(server: Server, client: Client) -> None:
    """COMBO with options: 0.3.64 takes any value, later versions and this server check it."""
    run = await client.run(show(link("1"), **{"1": node("ExecCombo", choice="x", new="z")}))
    checked = server.version >= (0, 8)
    assert run.status == expected(server, "combo", comfyui=400 if checked else 200, embedded=400)
    if run.status == 400:
        ((kind, details),) = _errors(run)
        assert (kind, details) == ("value_not_in_list", "new: 'z' not in ['p', 'q']")
    assert (await client.run(show(link("1"), **{"1": node("ExecCombo", choice="x", new="q")}))).status == 200


async def test_several_choices(server: Server, client: Client) -> None:
    """A list of choices, in its wrapper, where the input says multiselect: later versions, and here."""
    for chosen, right in ((["p"], True), (["p", "q"], True), (["p", "z"], False)):
        prompt = show(link("1"), **{"1": node("ExecCombo", choice="x", several={"__value__": chosen})})
        run = await client.run(prompt)
        known = server.version >= (0, 21)
        status = 200 if right else 400
        assert run.status == expected(server, "multiselect", comfyui=status if known else 400, embedded=status), chosen


@pytest.mark.parametrize(
    ("name", "given", "taken"),
    [
        ("a", "7", 7),
        ("a", 7.9, 7),
        ("a", True, 1),
        ("a", None, None),
        ("a", [], None),
        ("a", {"__value__": 3}, 3),
        ("a", "7.5", None),
    ],
)
async def test_constants_are_converted(client: Client, name: str, given: Any, taken: int | None) -> None:
    """As Python's int() does; what it cannot, or what looks like a bad link, is refused."""
    run = await client.run(show(link("1"), **{"1": node("ExecDeclared", **{name: given})}))
    if taken is None:
        ((kind, _),) = _errors(run)
        assert kind == ("bad_linked_input" if given == [] else "invalid_input_type")
    else:
        assert run.shown("9") == [f"a={taken}"]
        # The history has the prompt as it was run.
        assert run.history["prompt"][2]["1"]["inputs"] == {"a": taken}


async def test_a_list_goes_in_in_its_wrapper(client: Client) -> None:
    """A bare list would be a link."""
    run = await client.run(show({"__value__": [1, 2, 3]}))
    assert run.shown("9") == [[1, 2, 3]]


async def test_all_errors_of_all_nodes_are_told(client: Client) -> None:
    """Those upstream of a bad node too; each names the outputs that need it; the nodes between have none."""
    prompt = {
        "1": node("TinyNumber", value=-5, scale="x"),
        "2": node("TinyAdd", a=link("1"), b="bad"),
        "3": node("TinyAdd", a=link("2"), b=1),
        "7": node("TinyShow", value=link("1")),
        "8": node("TinyShow"),
        "9": node("TinyShow", value=link("3")),
    }
    run = await client.run(prompt)
    assert run.status == 400
    errors = run.response["node_errors"]
    assert {key: sorted(e["type"] for e in entry["errors"]) for key, entry in errors.items()} == {
        "1": ["invalid_input_type", "value_smaller_than_min"],
        "2": ["invalid_input_type"],
        "8": ["required_input_missing"],
    }
    # An output that was looked at before an error was found upstream of another one is not named with it.
    assert set(errors["2"]["dependent_outputs"]) >= {"9"}
    assert set(errors["1"]["dependent_outputs"]) >= {"7", "9"}
    assert [errors[key]["class_type"] for key in "128"] == ["TinyNumber", "TinyAdd", "TinyShow"]
    error = run.response["error"]
    assert (error["type"], error["message"]) == ("prompt_outputs_failed_validation", "Prompt outputs failed validation")
    assert error["details"] == "Required input is missing: value"
    assert error["extra_info"] == {}


async def test_a_class_that_cannot_be_compared_with(client: Client) -> None:
    """A minimum that is a text raises: an error of the node that is linked to it."""
    run = await client.run(show(link("1"), **{"1": node("ExecBroken", value=5)}))
    ((kind, details),) = _errors(run)
    assert kind == "exception_during_inner_validation"
    assert "not supported between instances" in details
