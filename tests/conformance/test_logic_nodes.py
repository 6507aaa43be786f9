"""The core nodes with dynamic inputs and those beside them: switches, expressions, batches, sizes, colours.

ComfyUI 0.29.0's. Earlier versions have none of them (0.3.64), or some that were different, and are skipped.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest
from conformance import driver
from conformance.differences import expected
from conformance.driver import link, node

# Node ids of pictures in prompts: an image, a mask and a latent of 3 x 2 pixels, and larger ones of 4 x 4.
_PICTURES = {
    "p": node("V3Picture", width=3, height=2, channels=3, batch=1, seed=1),
    "q": node("V3Picture", width=4, height=4, channels=3, batch=2, seed=3),
    "r": node("V3Picture", width=3, height=2, channels=4, batch=1, seed=5),
}
_IMAGE, _MASK, _LATENT = 0, 1, 2


def needs_the_nodes(server: driver.Server) -> None:
    """Skip the test on versions before those nodes."""
    if not server.is_embedded and server.version < (0, 29, 0):
        pytest.skip(f"ComfyUI {server.version} does not have these nodes, or not like this")


async def shown(client: Any, server: driver.Server, class_type: str, slot: int = 0, **inputs: Any) -> Any:
    """What comes out of a node; with the sources "t" (True), "x" ("text") and "n" (7), and a list "l" of 0, 1, 2."""
    needs_the_nodes(server)
    sources = {
        "t": node("PrimitiveBoolean", value=True),
        "x": node("PrimitiveString", value="text"),
        "n": node("PrimitiveInt", value=7),
        "l": node("V3Range", n=3),
    }
    return await client.run({**sources, "1": node(class_type, **inputs), "9": node("TinyShow", value=link("1", slot))})


async def pixels(client: Any, server: driver.Server, class_type: str, **inputs: Any) -> Any:
    """The shape and numbers of the picture that comes out of a node, from those of _PICTURES."""
    needs_the_nodes(server)
    done = await client.run({**_PICTURES, "1": node(class_type, **inputs), "9": node("V3Pixels", picture=link("1"))})
    (picture,) = done.shown("9")
    return picture


def failure_of(failed: Any) -> tuple[str, str]:
    """Type and message of the error a prompt ended with."""
    (error,) = failed.data("execution_error")
    return error["exception_type"], error["exception_message"].strip()


# -- logic -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("switch", "value", "not_run"), [(True, "text", "n"), (False, 7, "x")])
async def test_a_switch_computes_only_what_it_chooses(
    client: Any, server: driver.Server, switch: bool, value: Any, not_run: str
) -> None:
    done = await shown(client, server, "ComfySwitchNode", switch=switch, on_true=link("x"), on_false=link("n"))
    assert done.shown("9") == [value]
    assert not_run not in done.ran()


@pytest.mark.parametrize(
    ("class_type", "values", "answer"),
    [
        ("ComfyAndNode", ["t", "x", "n"], True),
        ("ComfyAndNode", ["t", 0], False),
        ("ComfyOrNode", ["", 0, "n"], True),
        ("ComfyOrNode", ["", 0], False),
    ],
)
async def test_truth_of_several_values(
    client: Any, server: driver.Server, class_type: str, values: list[Any], answer: bool
) -> None:
    inputs = {f"values.value{i}": link(v) if v in ("t", "x", "n") else v for i, v in enumerate(values)}
    assert (await shown(client, server, class_type, **inputs)).shown("9") == [answer]


@pytest.mark.parametrize(("value", "answer"), [("", True), ("0", False), (0, True), (0.5, False)])
async def test_not(client: Any, server: driver.Server, value: Any, answer: bool) -> None:
    assert (await shown(client, server, "ComfyNotNode", value=value)).shown("9") == [answer]


async def test_truth_needs_one_value(client: Any, server: driver.Server) -> None:
    refused = await shown(client, server, "ComfyAndNode")
    (error,) = refused.response["node_errors"]["1"]["errors"]
    assert (error["type"], error["details"]) == ("required_input_missing", "value0")


async def test_the_options_of_a_custom_combo_are_the_editors(client: Any, server: driver.Server) -> None:
    inputs = {"choice": "mine", "index": 4, "option1": "mine"}
    assert (await shown(client, server, "CustomCombo", **inputs)).shown("9") == ["mine"]
    assert (await shown(client, server, "CustomCombo", 1, **inputs)).shown("9") == [4]
    assert (await shown(client, server, "CustomCombo", 1, choice="mine")).shown("9") == [0]


async def test_a_list_is_joined_of_values_and_lists(client: Any, server: driver.Server) -> None:
    inputs = {"inputs.input0": link("n"), "inputs.input1": link("l"), "inputs.input2": link("x")}
    assert (await shown(client, server, "CreateList", **inputs)).shown("9") == [7, 0, 1, 2, "text"]


# -- numbers and text --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "values", "answers"),
    [
        ("a + b", {"a": 2, "b": 0.5}, [2.5, 2, True]),
        ("a * 2 if a > 3 else 0", {"a": 1}, [0.0, 0, False]),
        ("sum(values) + sum(1, 2) + max(a, c)", {"a": 1, "c": 5}, [14.0, 14, True]),
        ("sqrt(a) + pow(2, 3) + floor(1.7) + log2(8)", {"a": 9}, [15.0, 15, True]),
        ("a > 1", {"a": 2}, [1.0, 1, True]),
        ("int(7.9) + float(1) + round(2.5) + abs(-1)", {"a": 0}, [11.0, 11, True]),
    ],
)
async def test_an_expression_is_a_number_three_times(
    client: Any, server: driver.Server, expression: str, values: dict[str, Any], answers: list[Any]
) -> None:
    inputs = {f"values.{name}": value for name, value in values.items()}
    for slot, answer in enumerate(answers):
        done = await shown(client, server, "ComfyMathExpression", slot, expression=expression, **inputs)
        assert done.shown("9") == [answer]
        assert type(done.shown("9")[0]) is type(answer)


@pytest.mark.parametrize(
    ("expression", "error", "message"),
    [
        (" ", "ValueError", "Expression cannot be empty."),
        ("'x'", "ValueError", "Math Expression ''x'' must evaluate to a numeric result, got str: 'x'"),
        ("pow(2, 5000)", "ValueError", "Exponent 5000 exceeds maximum allowed (4000)"),
        ("2 ** 3999", "ValueError", "produced a result too large to represent as a float"),
        ("float('nan')", "ValueError", "Math Expression 'float('nan')' produced a non-finite result: nan"),
        ("a / 0", "ZeroDivisionError", "division by zero"),
        ("b", "simpleeval.NameNotDefined", "'b' is not defined for expression 'b'"),
        ("a.__class__", "simpleeval.FeatureNotAvailable", "__class__"),
        ("open('x')", "simpleeval.FunctionNotDefined", "Function 'open' not defined"),
        ("2 ** 99999999", "simpleeval.NumberTooHigh", "99999999"),
    ],
)
async def test_what_is_no_expression_fails(
    client: Any, server: driver.Server, expression: str, error: str, message: str
) -> None:
    failed = await shown(client, server, "ComfyMathExpression", expression=expression, **{"values.a": 1})
    assert failure_of(failed)[0] == error
    assert message in failure_of(failed)[1]


@pytest.mark.parametrize(
    ("value", "number", "whole"),
    [
        (7, 7.0, 7),
        (-2.9, -2.9, -2),
        (True, 1.0, 1),
        (" 12 ", 12.0, 12),
        ("1e3", 1000.0, 1000),
        ("-0.5", -0.5, 0),
        ("9007199254740993", 9007199254740992.0, 9007199254740993),
    ],
)
async def test_a_number_of_everything(
    client: Any, server: driver.Server, value: Any, number: float, whole: int
) -> None:
    assert (await shown(client, server, "ComfyNumberConvert", 0, value=value)).shown("9") == [number]
    assert (await shown(client, server, "ComfyNumberConvert", 1, value=value)).shown("9") == [whole]


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("", "ValueError", "Cannot convert empty string to number."),
        ("abc", "ValueError", "Cannot convert string to number: 'abc'"),
        ("inf", "ValueError", "Cannot convert non-finite value to number: inf"),
        ({"a": 1}, "TypeError", "Unsupported input type: dict"),
    ],
)
async def test_what_is_no_number_fails(
    client: Any, server: driver.Server, value: Any, error: str, message: str
) -> None:
    assert failure_of(await shown(client, server, "ComfyNumberConvert", value=value)) == (error, message)


async def test_values_are_filled_into_a_text(client: Any, server: driver.Server) -> None:
    inputs = {"values.a": link("x"), "values.c": 3.14159}
    assert (await shown(client, server, "StringFormat", f_string="{a:>6}|{c:.2f}", **inputs)).shown("9") == [
        "  text|3.14"
    ]
    assert (await shown(client, server, "StringFormat", f_string="as it is")).shown("9") == ["as it is"]
    failed = await shown(client, server, "StringFormat", f_string="{b}", **inputs)
    assert failure_of(failed) == ("KeyError", "'b'")


@pytest.mark.parametrize("text", ["{a.__class__}", "{a!r:{a.__class__.__name__}}", "{a.f_globals}"])
async def test_a_text_shows_no_inner_attributes(client: Any, server: driver.Server, text: str) -> None:
    run = await shown(client, server, "StringFormat", f_string=text, **{"values.a": link("x")})
    ours = expected(server, "inner attributes", comfyui=False, embedded=True)
    if ours:
        assert failure_of(run)[0] == "ValueError"
        assert "not shown" in failure_of(run)[1]
    elif text == "{a.__class__}":
        assert run.shown("9") == ["<class 'str'>"]


async def test_a_seed_is_itself(client: Any, server: driver.Server) -> None:
    assert (await shown(client, server, "SeedNode", seed=2**63 - 1)).shown("9") == [2**63 - 1]


@pytest.mark.parametrize(
    ("proportions", "megapixels", "multiple", "size"),
    [
        ("1:1 (Square)", 1.0, 8, (1024, 1024)),
        ("16:9 (Widescreen)", 0.5, 16, (960, 544)),
        ("2:3 (Portrait Photo)", 2.0, 8, (1184, 1776)),
    ],
)
async def test_a_size_of_proportions_and_area(
    client: Any, server: driver.Server, proportions: str, megapixels: float, multiple: int, size: tuple[int, int]
) -> None:
    inputs = {"aspect_ratio": proportions, "megapixels": megapixels, "multiple": multiple}
    for slot in (0, 1):
        assert (await shown(client, server, "ResolutionSelector", slot, **inputs)).shown("9") == [size[slot]]


@pytest.mark.parametrize(
    ("color", "answers"), [("#ff8000", [0xFF8000, "#ff8000", 1.0]), ("#00010233", [0x000102, "#000102", 0.2])]
)
async def test_a_colour_is_a_number(client: Any, server: driver.Server, color: str, answers: list[Any]) -> None:
    for slot, answer in enumerate(answers):
        assert (await shown(client, server, "ColorToRGBInt", slot, color=color)).shown("9") == [answer]


@pytest.mark.parametrize("color", ["ff8000", "#ff80", "#gg8000"])
async def test_what_is_no_colour_fails(client: Any, server: driver.Server, color: str) -> None:
    failed = await shown(client, server, "ColorToRGBInt", color=color)
    assert failure_of(failed) == ("ValueError", "Color must be in format #RRGGBB or #RRGGBBAA")


# -- pictures ----------------------------------------------------------------------------------------------------


async def test_images_of_all_sizes_and_channels_are_one_batch(client: Any, server: driver.Server) -> None:
    """The first one's size, the most channels; what has fewer gets an opaque one."""
    inputs = {"images.image0": link("p"), "images.image1": link("q"), "images.image2": link("r")}
    batch = await pixels(client, server, "BatchImagesNode", **inputs)
    assert batch["shape"] == [4, 2, 3, 4]
    assert batch["values"][:8] == [0.0, 0.618, 0.2361, 1.0, 0.8541, 0.4721, 0.0902, 1.0]


async def test_masks_are_one_batch(client: Any, server: driver.Server) -> None:
    inputs = {"masks.mask0": link("p", _MASK), "masks.mask1": link("q", _MASK)}
    batch = await pixels(client, server, "BatchMasksNode", **inputs)
    assert batch["shape"] == [3, 2, 3]


async def test_latents_are_one_batch_with_their_numbers(client: Any, server: driver.Server) -> None:
    inputs = {"latents.latent0": link("p", _LATENT), "latents.latent1": link("q", _LATENT)}
    batch = await pixels(client, server, "BatchLatentsNode", **inputs)
    assert (batch["shape"], batch["batch_index"]) == ([3, 3, 2, 3], [0, 0, 1])


_WAYS = [
    ({"resize_type": "scale dimensions", "width": 5, "height": 7, "crop": "center"}, [7, 5]),
    ({"resize_type": "scale dimensions", "width": 6, "height": 0, "crop": "disabled"}, [4, 6]),
    ({"resize_type": "scale dimensions", "width": 0, "height": 0, "crop": "disabled"}, [2, 3]),
    ({"resize_type": "scale by multiplier", "multiplier": 2.5}, [5, 8]),
    ({"resize_type": "scale longer dimension", "longer_size": 9}, [6, 9]),
    ({"resize_type": "scale shorter dimension", "shorter_size": 4}, [4, 6]),
    ({"resize_type": "scale width", "width": 12}, [8, 12]),
    ({"resize_type": "scale width", "width": 0}, [2, 3]),
    ({"resize_type": "scale height", "height": 3}, [3, 4]),
    ({"resize_type": "scale total pixels", "megapixels": 0.01}, [84, 125]),
    ({"resize_type": "match size", "match": ["q", 0], "crop": "center"}, [4, 4]),
    ({"resize_type": "scale to multiple", "multiple": 2}, [2, 2]),
    ({"resize_type": "scale to multiple", "multiple": 8}, [2, 3]),
]


def _chosen(inputs: dict[str, Any]) -> dict[str, Any]:
    """A choice and its inputs as a prompt has them."""
    return {name if name == "resize_type" else f"resize_type.{name}": value for name, value in inputs.items()}


@pytest.mark.parametrize(("way", "size"), _WAYS)
@pytest.mark.parametrize("slot", [_IMAGE, _MASK])
async def test_a_picture_is_resized_in_all_ways(
    client: Any, server: driver.Server, way: dict[str, Any], size: list[int], slot: int
) -> None:
    inputs = {"input": link("p", slot), "scale_method": "bilinear", **_chosen(way)}
    resized = await pixels(client, server, "ResizeImageMaskNode", **inputs)
    assert resized["shape"] == ([1, *size] if slot == _MASK else [1, *size, 3])


_TRANSFERS = [
    (method, statistics)
    for method in ("reinhard_lab", "mkl_lab", "histogram")
    for statistics in ("per_frame", "uniform", "target_frame")
]


@pytest.mark.parametrize(("method", "statistics"), _TRANSFERS)
async def test_colours_of_other_images(client: Any, server: driver.Server, method: str, statistics: str) -> None:
    """Images with their own colours stay as they are, in as far as a histogram can."""
    inputs = {"image_target": link("q"), "image_ref": link("q"), "method": method, "source_stats": statistics}
    more = {"source_stats.target_index": 1} if statistics == "target_frame" else {}
    recoloured = await pixels(client, server, "ColorTransfer", **inputs, **more, strength=1.0)
    assert recoloured["shape"] == [2, 4, 4, 3]
    if statistics != "target_frame":
        original = await pixels(client, server, "ColorTransfer", **inputs, strength=0.0)
        assert recoloured["values"] == pytest.approx(original["values"], abs=0.005)


@pytest.mark.real_comfyui
@pytest.mark.skipif("COMFYUI_PATH" not in os.environ, reason="COMFYUI_PATH does not name a ComfyUI")
def test_pictures_and_descriptions_are_comfyuis(start_server: Callable[..., driver.Server]) -> None:
    """Every number of every picture, to 1/1000, and what /object_info says of these nodes."""
    transfers = [
        {
            "image_target": link("q"),
            "image_ref": link("p"),
            "method": method,
            "source_stats": statistics,
            "strength": strength,
            **({"source_stats.target_index": 1} if statistics == "target_frame" else {}),
        }
        for method, statistics in _TRANSFERS
        for strength in (0.5, 1.0)
    ]
    resizes = [
        {"input": link("q", kind), "scale_method": method, **_chosen(way)}
        for way, _ in _WAYS
        for kind in (_IMAGE, _MASK)
        for method in ("area", "lanczos")
    ]
    batches = [
        ("BatchImagesNode", {"images.image0": link("p"), "images.image1": link("q"), "images.image2": link("r")}),
        ("BatchMasksNode", {"masks.mask0": link("p", _MASK), "masks.mask1": link("q", _MASK)}),
        ("BatchLatentsNode", {"latents.latent0": link("p", _LATENT), "latents.latent1": link("q", _LATENT)}),
    ]
    cases = [
        *batches,
        *(("ResizeImageMaskNode", inputs) for inputs in resizes),
        *(("ColorTransfer", inputs) for inputs in transfers),
    ]

    async def ask(server: driver.Server) -> tuple[Any, list[Any]]:
        async with driver.connect(server) as client:
            infos = await client.get("/object_info")
            return infos, [await pixels(client, server, kind, **inputs) for kind, inputs in cases]

    answers = []
    for kind in ("embedded", "comfyui"):
        server = start_server(kind)
        needs_the_nodes(server)
        answers.append(asyncio.run(ask(server)))
        server.stop()
    (our_infos, ours), (infos, theirs) = answers
    for case, a, b in zip(cases, ours, theirs, strict=True):
        assert a["shape"] == b["shape"], case
        assert a["values"] == pytest.approx(b["values"], abs=1e-3), case
        assert a.get("batch_index") == b.get("batch_index"), case
    compared = [
        name
        for name, info in infos.items()
        if name in our_infos and info["python_module"] in ("comfy_extras.nodes_logic", "comfy_extras.nodes_math")
    ]
    assert {"ComfySwitchNode", "ComfyMathExpression"} <= set(compared)
    for name in compared:
        assert our_infos[name] == infos[name]
