"""Nodes of the V3 API (``comfy_api.latest``): how their packages load, what they say of themselves, how they run.

The nodes are those of ``pack_v3``. What a version of ComfyUI does not have is skipped there; the embedded server has
it all.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from conformance import driver
from conformance.differences import expected
from conformance.driver import link, node
from PIL import Image

# The first versions with dynamic inputs, and with ones that may be empty, as far as the versions tested go.
_DYNAMIC = (0, 8, 0)
_EMPTY = (0, 11, 0)
# The last version whose combos take no lists.
_NO_LISTS = (0, 20, 1)


async def run(client: Any, class_type: str, **inputs: Any) -> Any:
    """Run one node and show its first output as node "9"."""
    return await client.run({"1": node(class_type, **inputs), "9": node("TinyShow", value=link("1"))})


async def described(client: Any, class_type: str) -> Any:
    """A node as /object_info has it."""
    return (await client.get(f"/object_info/{class_type}"))[class_type]


def errors_of(refused: Any, node_id: str = "1") -> list[tuple[str, str]]:
    """Type and details of a node's errors in a refused prompt."""
    assert refused.status == 400
    return [(error["type"], error["details"]) for error in refused.response["node_errors"][node_id]["errors"]]


def failure_of(failed: Any) -> tuple[str, str]:
    """Type and message of the error a prompt ended with."""
    (error,) = failed.data("execution_error")
    return error["exception_type"], error["exception_message"].strip()


def needs_dynamic_inputs(server: driver.Server, since: tuple[int, ...] = _DYNAMIC) -> None:
    """Skip the test on a version without dynamic inputs, or before ``since``, when they were different."""
    if not server.is_embedded and server.version < since:
        pytest.skip(f"ComfyUI {server.version} has no dynamic inputs")


def has_progress_api(server: driver.Server) -> bool:
    """Whether ``ComfyAPI()`` has its ``execution``."""
    return bool(expected(server, "v3 progress", comfyui=server.version > (0, 3, 64), embedded=True))


# -- packages ----------------------------------------------------------------------------------------------------


async def test_the_nodes_of_an_entry_point_are_there_with_their_module(client: Any) -> None:
    info = await described(client, "V3Add")
    assert (info["name"], info["display_name"], info["python_module"]) == ("V3Add", "Add (V3)", "custom_nodes.tiny_v3")


def test_an_extension_is_told_that_it_is_loaded(server: driver.Server) -> None:
    """In the server's event loop. Not by versions up to 0.11, whose ComfyExtension has an on_load that nobody calls."""
    told = "tiny_v3 is told that it is loaded, in a loop: True" in server.log()
    assert told is expected(server, "v3 on_load", comfyui=server.version >= (0, 14), embedded=True)


async def test_a_v3_package_has_browser_files_too(client: Any) -> None:
    assert "/extensions/tiny_v3/v3.js" in await client.get("/extensions")


async def test_a_v3_class_in_node_class_mappings_is_a_v3_node(client: Any) -> None:
    """Its key is its class_type; what it is described as comes from its schema."""
    info = await described(client, "V3Mapped")
    assert (info["name"], info["display_name"]) == ("V3OtherName", None)
    assert info["python_module"] == "custom_nodes.v3_mapping"
    assert (await run(client, "V3Mapped", a=4)).shown("9") == [8]


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (
            "v3_duplicate.py",
            "Error while calling comfy_entrypoint in {}: Input ids must be unique, but ['same'] are not.",
        ),
        (
            "v3_no_execute.py",
            "Error while calling comfy_entrypoint in {}: No execute function was defined for node class V3Nothing.",
        ),
        ("v3_wrong_extension.py", "comfy_entrypoint in {} did not return a ComfyExtension, skipping."),
    ],
)
def test_a_package_that_cannot_be_loaded_says_why(server: driver.Server, file: str, reason: str) -> None:
    path = server.base / "custom_nodes" / file
    assert reason.format(path) in server.log()
    assert f"(IMPORT FAILED): {path}" in server.log()


async def test_nodes_before_one_that_cannot_be_stay(client: Any) -> None:
    known = await client.get("/object_info")
    assert "V3First" in known
    assert "V3Twice" not in known


# -- descriptions ------------------------------------------------------------------------------------------------


async def test_a_schema_is_described_as_a_v1_node_is(client: Any) -> None:
    info = await described(client, "V3Described")
    expected = {
        "input": {
            "required": {"own": ["V3_OWN", {}]},
            "hidden": {"unique_id": ["UNIQUE_ID"], "prompt": ["PROMPT"], "extra_pnginfo": ["EXTRA_PNGINFO"]},
        },
        "input_order": {"required": ["own"], "hidden": ["unique_id", "prompt", "extra_pnginfo"]},
        "output_is_list": [False, True, False, False],
        "output_tooltips": ["The picture", None, None, None],
        "name": "V3Described",
        "display_name": "Described",
        "description": "A node with a description",
        "category": "tiny/v3/described",
        "output_node": True,
        "deprecated": True,
        "experimental": True,
        "api_node": False,
    }
    assert {key: info[key] for key in expected} == expected
    assert info["output"][:3] == ["IMAGE", "MASK", "V3_OWN"]
    assert info["output_name"][:3] == ["picture", "mask", "V3_OWN"]


async def test_a_node_derived_from_another_one_has_its_own_schema(client: Any) -> None:
    info = await described(client, "V3Derived")
    assert (info["name"], info["input_order"], info["output"]) == (
        "V3Derived",
        {"required": ["value"]},
        ["INT", "FLOAT"],
    )
    assert info["output_node"] is False


async def test_widgets_carry_their_options(client: Any) -> None:
    inputs = (await described(client, "V3Widgets"))["input"]
    assert inputs["optional"] == {
        "float": ["FLOAT", {"lazy": True, "default": 0.5, "min": 0.0, "max": 1.0, "step": 0.1, "round": 0.01}]
    }
    widgets = inputs["required"]
    assert widgets["boolean"] == [
        "BOOLEAN",
        {"display_name": "Shown", "tooltip": "Yes or no", "default": True, "label_on": "on", "label_off": "off"},
    ]
    assert widgets["slider"] == ["INT", {"display": "slider", "socketless": True}]
    assert widgets["plain"] == ["STRING", {"multiline": False}]
    assert widgets["enum"] == ["COMBO", {"multiselect": False, "options": ["a", "b"], "default": "b"}]
    assert widgets["upload"][1] == {
        "multiselect": False,
        "options": ["f"],
        "image_upload": True,
        "image_folder": "input",
    }
    assert widgets["remote"][1]["remote"] == {
        "route": "/models",
        "refresh_button": True,
        "control_after_refresh": "first",
        "timeout": 100,
        "refresh": 5,
    }
    assert widgets["image"][1] == {"display_name": "Picture", "tooltip": "A picture", "lazy": False, "own": 1}


async def test_types_of_a_package_are_described(client: Any) -> None:
    info = await described(client, "V3Declared")
    assert info["input"]["required"] == {"declared": ["V3_DECLARED", {"default": {"x": 1}, "size": 4}]}
    assert info["input"]["optional"] == {"bare": ["V3_BARE", {}]}
    assert info["output"] == ["V3_DECLARED", "V3_BARE"]


async def test_dynamic_inputs_are_described_by_their_templates(client: Any, server: driver.Server) -> None:
    needs_dynamic_inputs(server)
    number = ["INT", {"min": 0, "forceInput": True}]
    assert (await described(client, "V3Grow"))["input"]["required"]["numbers"] == [
        "COMFY_AUTOGROW_V3",
        {"template": {"input": {"required": {"number": number}}, "prefix": "n", "min": 1, "max": 3}},
    ]
    type_name, options = (await described(client, "V3Choose"))["input"]["required"]["choice"]
    assert type_name == "COMFY_DYNAMICCOMBO_V3"
    assert options["tooltip"] == "Choose"
    assert options["options"][:2] == [
        {"key": "text", "inputs": {"required": {"text": ["STRING", {"multiline": False}]}}},
        {"key": "nothing", "inputs": {"required": {}}},
    ]
    switch = await described(client, "V3Switch")
    template = {"template_id": "same", "allowed_types": "INT,STRING"}
    assert switch["input"]["required"]["a"] == ["COMFY_MATCHTYPE_V3", {"lazy": True, "template": template}]
    assert (switch["output"], switch["output_name"]) == (["COMFY_MATCHTYPE_V3", "INT"], ["chosen", "INT"])
    assert switch["output_matchtypes"] == ["same", None]


@pytest.mark.real_comfyui
@pytest.mark.skipif("COMFYUI_PATH" not in os.environ, reason="COMFYUI_PATH does not name a ComfyUI")
def test_all_descriptions_are_comfyuis(start_server: Callable[..., driver.Server]) -> None:
    """Every item ComfyUI has is the same; items of later versions come in addition."""

    async def describe_all(server: driver.Server) -> dict[str, Any]:
        async with driver.connect(server) as client:
            return {k: v for k, v in (await client.get("/object_info")).items() if k.startswith("V3")}

    infos = {}
    for kind in ("embedded", "comfyui"):
        server = start_server(kind)
        infos[kind] = asyncio.run(describe_all(server))
        version = server.version
        server.stop()
    assert set(infos["comfyui"]) <= set(infos["embedded"])
    if version <= _NO_LISTS:
        # See "v3 multi combo" in differences.py.
        del infos["comfyui"]["V3Several"]
    for class_type, info in infos["comfyui"].items():
        ours = {key: infos["embedded"][class_type][key] for key in info}
        if version > (0, 3, 64):
            # What 0.3.64 says and later versions do not: an output's id is not its name, a combo's options its type.
            for changed in ("output", "output_name"):
                differing = [i for i, (a, b) in enumerate(zip(ours[changed], info[changed], strict=True)) if a != b]
                assert all(class_type in ("V3Add", "V3Combo", "V3Described", "V3Declared") for _ in differing)
                info[changed] = ours[changed]
        assert ours == info, class_type


# -- running -----------------------------------------------------------------------------------------------------


async def test_a_node_gets_its_inputs_by_name(client: Any) -> None:
    assert (await run(client, "V3Add", a=3, b=4)).shown("9") == [7]
    assert (await run(client, "V3Add", a=3)).shown("9") == [13]


async def test_a_second_run_comes_from_the_cache(client: Any) -> None:
    await run(client, "V3Add", a=3, b=5)
    assert (await run(client, "V3Add", a=3, b=5)).cached() == {"1", "9"}


@pytest.mark.parametrize(
    ("how", "first", "second"),
    [("output", 1, "one"), ("tuple", 2, "two"), ("ui", 6, "six")],
)
async def test_results_have_several_forms(client: Any, how: str, first: int, second: str) -> None:
    prompt = {"1": node("V3Return", how=how)}
    prompt["8"], prompt["9"] = (node("TinyShow", value=link("1", slot)) for slot in (0, 1))
    done = await client.run(prompt)
    assert (done.shown("8"), done.shown("9")) == ([first], [second])


async def test_a_dict_is_a_result_as_a_v1_node_returns_it(client: Any, server: driver.Server) -> None:
    """0.3.64 meant to, but its dict with a result raises a TypeError."""
    done = await run(client, "V3Return", how="dict")
    if expected(server, "v3 returned dict", comfyui=server.version > (0, 3, 64), embedded=True):
        assert (done.shown("9"), done.shown("1")) == ([3], ["dict"])
    else:
        assert failure_of(done)[0] == "TypeError"


async def test_ui_is_shown_beside_a_result(client: Any) -> None:
    assert (await run(client, "V3Return", how="ui")).shown("1") == ["ui"]


async def test_a_blocked_result_blocks_what_comes_behind(client: Any) -> None:
    blocked = await run(client, "V3Return", how="blocked values")
    assert "9" not in blocked.history["outputs"]
    assert failure_of(blocked) == ("ExecutionBlocked", "Execution Blocked: blocked with values")
    assert blocked.history["status"]["status_str"] == "success"


@pytest.mark.parametrize("how", ["blocked", "blocker", "none"])
async def test_nothing_returned_is_none_behind(client: Any, server: driver.Server, how: str) -> None:
    """A block takes the place of values: without any there is nothing to block. (0.29.0 stumbles over it.)"""
    done = await run(client, "V3Return", how=how)
    fails = server.version >= (0, 29, 0)
    if expected(server, "v3 empty result", comfyui=fails, embedded=False):
        assert failure_of(done) == ("IndexError", "list index out of range")
    else:
        assert done.shown("9") == [None]


async def test_what_is_no_result_fails(client: Any) -> None:
    failed = await run(client, "V3Return", how="int")
    assert failure_of(failed) == ("Exception", "Invalid return type from node: <class 'int'>")


async def test_hidden_values_are_attributes_of_the_class(client: Any) -> None:
    prompt = {"1": node("V3Shows", how="text"), "2": node("V3Hidden")}
    extra = {"extra_pnginfo": {"a": 1}, "auth_token_comfy_org": "secret", "api_key_comfy_org": "key"}
    done = await client.run(prompt, extra_data=extra)
    assert done.shown("2") == [
        {
            "name": "V3HiddenClone",
            "unique_id": "2",
            "prompt": ["1", "2"],
            "extra_pnginfo": {"a": 1},
            "dynprompt": "V3Hidden",
            "token": "secret",
            "key": None,
            "nothing": None,
        }
    ]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("class", "Cannot modify class attribute 'calls' on locked class 'V3LockedClone'"),
        ("instance", "Cannot set attribute 'calls' on immutable instance of V3LockedClone"),
    ],
)
async def test_a_node_cannot_keep_anything(client: Any, server: driver.Server, where: str, message: str) -> None:
    failed = await run(client, "V3Locked", where=where)
    if where == "instance" and not server.is_embedded and server.version == (0, 3, 64):
        # Its own __init__ tries to, with an attribute of its own.
        message = message.replace("calls", "local_resources")
    assert failure_of(failed) == ("AttributeError", message)


async def test_an_error_names_the_node_and_its_inputs(client: Any) -> None:
    failed = await run(client, "V3Locked", where="class")
    (error,) = failed.data("execution_error")
    assert (error["node_id"], error["node_type"], error["current_inputs"]) == ("1", "V3Locked", {"where": ["class"]})


async def test_what_a_node_between_shows_is_sent_again(client: Any, server: driver.Server) -> None:
    """Also when it comes from the cache, as of output nodes; versions before HAS_INTERMEDIATE_OUTPUT do not."""
    prompt = {"1": node("V3Between", value=4), "9": node("TinyShow", value=link("1"))}
    await client.run(prompt)
    again = await client.run(prompt)
    assert again.cached() == {"1", "9"}
    sent = {data["node"]: data["output"] for data in again.data("executed")}
    if server.is_embedded or "has_intermediate_output" in await described(client, "V3Between"):
        assert sent["1"] == {"values": [4]}
    else:
        assert "1" not in sent


# -- validation --------------------------------------------------------------------------------------------------


async def test_ranges_and_options_are_checked(client: Any, server: driver.Server) -> None:
    """Options are not by 0.3.64."""
    assert errors_of(await run(client, "V3Add", a=101)) == [("value_bigger_than_max", "a")]
    assert errors_of(await run(client, "V3Add")) == [("required_input_missing", "a")]
    refused = await run(client, "V3Combo", choice="c")
    if expected(server, "combo", comfyui=server.version > (0, 3, 64), embedded=True):
        assert errors_of(refused) == [("value_not_in_list", "choice: 'c' not in ['a', 'b']")]
    else:
        assert refused.shown("9") == ["c"]


async def test_several_options_can_be_chosen(client: Any, server: driver.Server) -> None:
    """As a wrapped list, because a bare one is a link."""
    later = server.version > _NO_LISTS
    done = await run(client, "V3Several", letters={"__value__": ["a", "c"]})
    if not server.is_embedded and (0, 3, 64) < server.version <= _NO_LISTS:
        # Options are checked there, but lists of them are not known yet.
        assert errors_of(done) == [("value_not_in_list", "letters: '['a', 'c']' not in ['a', 'b', 'c']")]
    else:
        assert done.shown("9") == ["ac"]
    refused = await run(client, "V3Several", letters={"__value__": ["a", "x", "y"]})
    if expected(server, "combo", comfyui=later, embedded=True):
        assert errors_of(refused) == [("value_not_in_list", "letters: 'x', 'y' not in ['a', 'b', 'c']")]
    elif server.version == (0, 3, 64):
        assert refused.shown("9") == ["axy"]
    options = (await described(client, "V3Several"))["input"]["required"]["letters"][1]
    assert options["multi_select"] == expected(server, "v3 multi combo", comfyui={} if later else True, embedded={})


async def test_validate_inputs_takes_over_the_inputs_it_names(client: Any) -> None:
    assert (await run(client, "V3Validate", a=20, b=1)).shown("9") == [21]
    assert errors_of(await run(client, "V3Validate", a=3, b=1)) == [("custom_validation_failed", "a - 3 is odd")]
    assert errors_of(await run(client, "V3Validate", a=2, b=6)) == [("value_bigger_than_max", "b")]


async def test_validate_inputs_can_ask_for_the_types_of_links(client: Any) -> None:
    """It is then the one that checks them."""

    async def linked(source: dict[str, Any]) -> Any:
        prompt = {"0": source, "1": node("V3ValidateAll", a=link("0")), "9": node("TinyShow", value=link("1"))}
        return await client.run(prompt)

    assert (await linked(node("V3Add", a=1, b=1))).shown("9") == ["2"]
    refused = await linked(node("PrimitiveString", value="x"))
    # One error per input it was given.
    assert ("custom_validation_failed", "a - no number") in errors_of(refused)


async def test_any_fits_every_type_and_every_type_any(client: Any) -> None:
    prompt = {
        "1": node("PrimitiveString", value="x"),
        "2": node("V3Any", value=link("1")),
        "3": node("V3Add", a=link("2"), b=1),
        "8": node("TinyShow", value=link("2")),
        "9": node("TinyShow", value=link("3")),
    }
    done = await client.run(prompt)
    assert done.status == 200
    # Only when it is run it turns out that "x" is no number.
    assert failure_of(done)[0] == "TypeError"


async def test_an_input_of_several_types_takes_each_of_them(client: Any) -> None:
    info = await described(client, "V3Multi")
    assert info["input"]["required"] == {
        "value": ["FLOAT,INT,STRING", {"default": 2.5, "max": 10.0, "widgetType": "FLOAT"}]
    }
    assert info["input"]["optional"] == {"other": ["MASK,IMAGE", {}]}
    assert (await run(client, "V3Multi", value=3)).shown("9") == ["int 3"]
    prompt = {"0": node("PrimitiveString", value="x"), "1": node("V3Multi", value=link("0"))}
    assert (await client.run({**prompt, "9": node("TinyShow", value=link("1"))})).shown("9") == ["str x"]
    wrong = {"0": node("PrimitiveBoolean", value=True), "1": node("V3Multi", value=link("0"))}
    refused = await client.run({**wrong, "9": node("TinyShow", value=link("1"))})
    assert [kind for kind, _ in errors_of(refused)] == ["return_type_mismatch"]


# -- lazy inputs, fingerprints, expansion, lists, coroutines -----------------------------------------------------


async def test_only_the_lazy_input_that_is_asked_for_is_computed(client: Any) -> None:
    sources = {"1": node("V3Add", a=1, b=1), "2": node("V3Add", a=2, b=2)}
    for second, shown, ran in ((False, 2, ["1", "3", "9"]), (True, 4, ["2", "3", "9"])):
        await client.forget()
        lazy = node("V3Lazy", second=second, a=link("1"), b=link("2"))
        done = await client.run({**sources, "3": lazy, "9": node("TinyShow", value=link("3"))})
        assert done.shown("9") == [shown]
        assert sorted(done.ran()) == ran


@pytest.mark.parametrize(("how", "again"), [("same", False), ("nan", True), ("raise", True)])
async def test_a_fingerprint_decides_whether_a_node_runs_again(client: Any, how: str, again: bool) -> None:
    await run(client, "V3Fingerprint", how=how)
    assert ("1" in (await run(client, "V3Fingerprint", how=how)).ran()) is again


async def test_a_node_can_expand_into_others(client: Any) -> None:
    done = await run(client, "V3Expand", n=3)
    assert done.shown("9") == [3]
    assert [n for n in done.ran() if n.startswith("1.")] == ["1.0.0.1", "1.0.0.2", "1.0.0.3"]


async def test_expanding_has_to_be_announced(client: Any) -> None:
    failed = await run(client, "V3ExpandUnsaid")
    assert failure_of(failed) == (
        "Exception",
        "Node V3ExpandUnsaidClone is not expandable, but expand included in NodeOutput; developer should set "
        "enable_expand=True on node's Schema to allow this.",
    )


async def test_lists_are_taken_whole_or_item_by_item(client: Any) -> None:
    prompt = {
        "1": node("V3Range", n=3),
        "2": node("V3Add", a=link("1"), b=10),
        "3": node("V3Lists", values=link("2"), mark="m"),
        "8": node("TinyShow", value=link("3")),
        "9": node("TinyShow", value=link("3", 1)),
    }
    done = await client.run(prompt)
    assert done.shown("8") == [10, 11, 12, 1]
    assert done.shown("9") == [3]


async def test_equal_nodes_share_results_unless_they_say_not(client: Any) -> None:
    """On the next run, an equal node of another id finds the result, or does not."""
    for class_type, shared in (("V3Range", True), ("V3Unique", False)):
        name = "n" if class_type == "V3Range" else "value"
        await client.forget()
        await client.run({"1": node(class_type, **{name: 1}), "9": node("TinyShow", value=link("1"))})
        done = await client.run({"2": node(class_type, **{name: 1}), "9": node("TinyShow", value=link("2"))})
        assert ("2" in done.cached()) is shared


async def test_coroutines_run_at_once_and_say_how_far_they_are(client: Any, server: driver.Server) -> None:
    prompt = {str(i): node("V3Async", seconds=0.05, value=i) for i in (1, 2)}
    prompt["3"] = node("V3Add", a=link("1"), b=link("2"))
    done = await client.run({**prompt, "9": node("TinyShow", value=link("3"))})
    assert done.shown("9") == [3]
    states = [data["nodes"] for data in done.data("progress_state")]
    if has_progress_api(server):
        assert any(state["1"]["value"] == 1 and state["1"]["max"] == 2 for state in states if "1" in state)
    # The second one began before the first one had ended.
    assert any(state["1"]["state"] == state["2"]["state"] == "running" for state in states if {"1", "2"} <= set(state))


@pytest.mark.parametrize("preview", [False, True])
async def test_progress_can_be_told_without_a_coroutine(server: driver.Server, preview: bool) -> None:
    async with driver.connect(server, flags={"supports_preview_metadata": True}) as client:
        await client.forget()
        done = await run(client, "V3Progress", preview=preview)
    if not has_progress_api(server):
        assert failure_of(done) == ("AttributeError", "'ComfyAPISyncStub' object has no attribute 'execution'")
        return
    states = [data["nodes"]["1"] for data in done.data("progress_state") if "1" in data["nodes"]]
    assert any((state["value"], state["max"]) == (3, 4) for state in states)
    previews = done.data(4)
    assert len(previews) == preview
    for data in previews:
        size = int.from_bytes(data[:4], "big")
        assert json.loads(data[4 : 4 + size])["node_id"] == "1"
        # Small ones are made larger, too.
        assert Image.open(io.BytesIO(data[4 + size :])).size == (512, 512)


# -- what nodes show ---------------------------------------------------------------------------------------------


async def _read(client: Any, saved: dict[str, Any]) -> bytes:
    async with client.session.get(client.url + "/view", params=saved) as answer:
        assert answer.status == 200
        return bytes(await answer.read())


async def _shown(client: Any, how: str) -> Any:
    extra = {"extra_pnginfo": {"workflow": {"made": "here"}}}
    done = await client.run({"1": node("V3Shows", how=how)}, extra_data=extra)
    return done.history["outputs"]["1"]


async def test_text_is_shown(client: Any) -> None:
    assert await _shown(client, "text") == {"text": ["shown"]}


@pytest.mark.parametrize("how", ["image", "mask", "saved"])
async def test_images_are_shown_with_the_prompt_in_them(client: Any, how: str) -> None:
    shown = await _shown(client, how)
    assert shown.get("animated") == (None if how == "saved" else [False])
    assert len(shown["images"]) == 2
    first = shown["images"][0]
    assert first["type"] == ("output" if how == "saved" else "temp")
    if how == "saved":
        assert (first["subfolder"], first["filename"]) == ("v3", "saved_0_00001_.png")
        assert shown["images"][1]["filename"] == "saved_1_00002_.png"
    image = Image.open(io.BytesIO(await _read(client, first)))
    assert (image.size, image.mode) == ((5, 4), "RGB")
    assert json.loads(image.info["prompt"]) == {"1": node("V3Shows", how=how)}
    assert json.loads(image.info["workflow"]) == {"made": "here"}
    # The first pixel is 0, 1/119, 2/119; of the mask it is its red alone.
    assert image.getpixel((0, 0)) == ((0, 0, 0) if how == "mask" else (0, 2, 4))


@pytest.mark.parametrize("how", ["png", "webp"])
async def test_animations_are_shown(client: Any, how: str) -> None:
    shown = await _shown(client, how)
    assert shown["animated"] == [True]
    image = Image.open(io.BytesIO(await _read(client, shown["images"][0])))
    assert image.n_frames == 2
    if how == "webp":
        assert image.getexif()[0x0110] == "prompt:" + json.dumps({"1": node("V3Shows", how=how)})
        assert image.getexif()[0x010F] == 'workflow:{"made": "here"}'


async def test_files_of_other_kinds_are_named(client: Any, server: driver.Server) -> None:
    saved = {"filename": "a.mp4", "subfolder": "b", "type": "output"}
    assert await _shown(client, "video") == {"images": [saved], "animated": [True]}
    shown = (await _shown(client, "3d"))["result"]
    assert shown[:2] == ["model.glb", {"zoom": 1}]
    # Beside which 0.3.64 knows no background.
    assert shown[2:] == ([None] if server.is_embedded or server.version > (0, 3, 64) else [])


# -- dynamic inputs ----------------------------------------------------------------------------------------------


async def test_a_growing_input_is_a_dict_of_what_is_linked(client: Any, server: driver.Server) -> None:
    needs_dynamic_inputs(server)
    done = await client.run(
        {"1": node("V3Add", a=1, b=1), "9": node("V3Grow", **{"numbers.n0": 5, "numbers.n2": link("1")}, word="x")}
    )
    assert done.shown("9") == [{"numbers": {"n0": 5, "n2": 2}, "word": "x"}]


async def test_what_a_growing_input_needs_is_checked(client: Any, server: driver.Server) -> None:
    needs_dynamic_inputs(server, _EMPTY)
    missing = await client.run({"9": node("V3Grow", word="x")})
    assert errors_of(missing, "9") == [("required_input_missing", "n0")]
    extra_info = missing.response["node_errors"]["9"]["errors"][0]["extra_info"]
    assert extra_info == {"input_name": "numbers.n0"}
    wrong = await client.run({"9": node("V3Grow", **{"numbers.n0": -1}, word="x")})
    assert errors_of(wrong, "9") == [("value_smaller_than_min", "numbers.n0")]
    text = {"1": node("PrimitiveString", value="x"), "9": node("V3Grow", **{"numbers.n0": link("1")}, word="x")}
    assert [kind for kind, _ in errors_of(await client.run(text), "9")] == ["return_type_mismatch"]


async def test_a_growing_input_without_anything_is_an_empty_dict(client: Any, server: driver.Server) -> None:
    needs_dynamic_inputs(server, _EMPTY)
    assert (await client.run({"9": node("V3GrowNames")})).shown("9") == [{}]
    assert (await client.run({"9": node("V3GrowNames", **{"values.y": "b", "values.x": 1})})).shown("9") == [
        {"x": 1, "y": "b"}
    ]


async def test_a_growing_input_knows_only_its_names(client: Any, server: driver.Server) -> None:
    """Constants under other names are left out."""
    needs_dynamic_inputs(server, _EMPTY)
    assert (await client.run({"9": node("V3GrowNames", **{"values.z": 1})})).shown("9") == [{}]


@pytest.mark.parametrize(
    ("inputs", "shown"),
    [
        ({"choice": "text", "choice.text": "t"}, {"text": "t", "choice": "text"}),
        ({"choice": "nothing", "choice.text": "t"}, {"choice": "nothing"}),
        (
            {"choice": "inner", "choice.inner": "one", "choice.inner.x": 0.5},
            {"inner": {"x": 0.5, "y": None, "inner": "one"}, "choice": "inner"},
        ),
        (
            {"choice": "inner", "choice.inner": "grow", "choice.inner.many.f1": 2},
            {"inner": {"many": {"f1": 2.0}, "inner": "grow"}, "choice": "inner"},
        ),
        (
            {"choice": "inner", "choice.inner": "grow"},
            {"inner": {"many": {}, "inner": "grow"}, "choice": "inner"},
        ),
    ],
)
async def test_a_choice_brings_its_own_inputs(
    client: Any, server: driver.Server, inputs: dict[str, Any], shown: dict[str, Any]
) -> None:
    needs_dynamic_inputs(server, _EMPTY)
    assert (await client.run({"9": node("V3Choose", **inputs)})).shown("9") == [shown]


async def test_the_inputs_of_a_choice_are_checked(client: Any, server: driver.Server) -> None:
    needs_dynamic_inputs(server)
    assert errors_of(await client.run({"9": node("V3Choose", choice="text")}), "9") == [
        ("required_input_missing", "text")
    ]
    inner = {"choice": "inner", "choice.inner": "one", "choice.inner.x": 2.0}
    assert errors_of(await client.run({"9": node("V3Choose", **inner)}), "9") == [
        ("value_bigger_than_max", "choice.inner.x")
    ]


async def test_an_unknown_choice_is_no_input_at_all(client: Any, server: driver.Server) -> None:
    """Nothing complains before the node is called without it."""
    needs_dynamic_inputs(server)
    failed = await client.run({"9": node("V3Choose", choice="unknown")})
    assert failed.status == 200
    assert failure_of(failed)[0] == "TypeError"


async def test_one_of_two_values_of_the_same_type(client: Any, server: driver.Server) -> None:
    """The server does not check that they are; the other one is not computed."""
    needs_dynamic_inputs(server)
    prompt = {
        "1": node("V3Add", a=1, b=1),
        "2": node("PrimitiveString", value="x"),
        "3": node("V3Switch", second=True, a=link("1"), b=link("2")),
        "4": node("V3Switch", second=False, a=link("3"), b=link("1")),
        "9": node("TinyShow", value=link("4")),
    }
    done = await client.run(prompt)
    assert done.shown("9") == ["x"]
    assert sorted(done.ran()) == ["2", "3", "4", "9"]


async def test_functions_beside_execute_get_dynamic_inputs_nested_too(client: Any, server: driver.Server) -> None:
    """check_lazy_status gets each with the name to ask for it by."""
    needs_dynamic_inputs(server)
    done = await client.run({"9": node("V3GrowChecked", **{"numbers.n0": 1, "numbers.n1": 2}, limit=5)})
    (shown,) = done.shown("9")
    assert shown[:2] == [{"n0": 1, "n1": 2}, 5]
    assert json.loads(shown[2]) == [{"n0": [1, "numbers.n0"], "n1": [2, "numbers.n1"]}, 5]
    refused = await client.run({"9": node("V3GrowChecked", **{"numbers.n0": 1}, limit=30)})
    assert ("custom_validation_failed", "limit - too much: [('n0', 1)]") in errors_of(refused, "9")


async def test_a_node_can_take_what_it_does_not_declare(client: Any, server: driver.Server) -> None:
    if "V3TakesAll" not in await client.get("/object_info") and not server.is_embedded:
        pytest.skip(f"ComfyUI {server.version} has no accept_all_inputs")
    done = await client.run({"9": node("V3TakesAll", a=1, other="x", third=[1, 2, 3])})
    assert done.shown("9") == [{"a": 1, "other": "x", "third": [1, 2, 3]}]


# -- routes ------------------------------------------------------------------------------------------------------


async def test_a_prompt_with_a_replaced_node_runs_the_new_one(client: Any, server: driver.Server) -> None:
    """Its inputs and links are mapped; the editor can ask for what is."""
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}/api/node_replacements") as answer:
        if not server.is_embedded and answer.status == 404:
            pytest.skip(f"ComfyUI {server.version} has no node replacements")
        table = await answer.json()
    assert table["V3OldAdd"] == [
        {
            "new_node_id": "V3Add",
            "old_node_id": "V3OldAdd",
            "old_widget_ids": ["x"],
            "input_mapping": [{"new_id": "a", "old_id": "x"}, {"new_id": "b", "set_value": 5}],
            "output_mapping": [{"new_idx": 0, "old_idx": 1}],
        }
    ]
    old = {"class_type": "V3OldAdd", "inputs": {"x": 3}, "_meta": {"title": "Old"}}
    done = await client.run({"1": old, "9": node("TinyShow", value=link("1", 1))})
    assert done.shown("9") == [8]
