"""Nodes that ComfyUI 0.29.0 has beyond 0.3.64's, in prompts: lists between them, boxes as values, what they show.

Against an older ComfyUI they are skipped.
"""

from __future__ import annotations

import io
import json
import re
import struct
from typing import Any

import pytest
import torch
from conformance.driver import Client, Run, Server, link, node
from PIL import Image

LATER = (0, 29, 0)


@pytest.fixture(autouse=True)
def has_later_nodes(server: Server) -> None:
    """Skips the tests of this file where a ComfyUI is too old."""
    if not server.is_embedded and server.version < LATER:
        pytest.skip(f"ComfyUI {server.version} has not these nodes, or earlier definitions of them")


def colour(color: int, width: int = 96, height: int = 64, batch: int = 1) -> dict[str, Any]:
    return node("EmptyImage", width=width, height=height, batch_size=batch, color=color)


def nameless(ui: Any) -> Any:
    """A ui result without the random part of previews' names."""
    return json.loads(re.sub(r"_temp_[a-z]{5}_", "_temp_*_", json.dumps(ui)))


async def succeed(client: Client, prompt: dict[str, Any]) -> Run:
    run = await client.run(prompt)
    assert run.status == 200, run.response
    assert run.history["status"]["status_str"] == "success", run.history["status"]
    return run


async def sizes(client: Client, run: Run, node_id: str) -> list[tuple[int, int]]:
    """The sizes of the pictures a node shows."""
    found = []
    for file in run.history["outputs"][node_id]["images"]:
        with Image.open(io.BytesIO(await client.view(file))) as opened:
            found.append(opened.size)
    return found


async def test_tiles_travel_as_a_list_and_are_merged_again(client: Client) -> None:
    """A list output runs a plain node per tile; a list input takes all at once."""
    tiles = {"tile_width": 64, "tile_height": 64, "overlap": 16}
    run = await succeed(
        client,
        {
            "1": colour(0x336699),
            "2": node("SplitImageToTileList", image=link("1"), **tiles),
            "3": node("AdjustBrightness", images=link("2"), factor=0.5),
            "4": node("PreviewImage", images=link("3")),
            "5": node("ImageMergeTileList", image_list=link("3"), final_width=96, final_height=64, overlap=16),
            "6": node("PreviewImage", images=link("5")),
        },
    )
    assert await sizes(client, run, "4") == [(64, 64)] * 2
    assert await sizes(client, run, "6") == [(96, 64)]


async def test_a_grid_takes_a_list_of_batches(client: Client) -> None:
    run = await succeed(
        client,
        {
            "1": colour(0xFF0000, 8, 8, batch=3),
            "2": node("ShuffleDataset", images=link("1"), seed=2**64 - 1),
            "3": node("ImageGrid", images=link("2"), columns=2, cell_width=32, cell_height=40, padding=4),
            "4": node("PreviewImage", images=link("3")),
            "5": node("PreviewImage", images=link("2")),
        },
    )
    assert await sizes(client, run, "4") == [(68, 84)]
    assert await sizes(client, run, "5") == [(8, 8)] * 3


@pytest.mark.parametrize("region", [{"x": 8, "y": 4, "width": 30, "height": 20}, None])
async def test_a_box_comes_as_a_value_or_by_a_link(client: Client, region: dict[str, int] | None) -> None:
    """A crop shows what it cut out, though it is no output node."""
    run = await succeed(
        client,
        {
            "1": colour(0x00FF00),
            "2": node("PrimitiveBoundingBox", x=8, y=4, width=30, height=20),
            "3": node("ImageCropV2", image=link("1"), crop_region=region or link("2")),
            "4": node("DrawBBoxes", bboxes=link("2"), image=link("3")),
            "5": node("PreviewImage", images=link("4")),
        },
    )
    shown = run.history["outputs"]["3"]
    assert nameless(shown) == {
        "images": [{"filename": "ComfyUI_temp_*_00001_.png", "subfolder": "", "type": "temp"}],
        "animated": [False],
    }
    assert await sizes(client, run, "3") == [(30, 20)]
    assert await sizes(client, run, "5") == [(30, 20)]


async def test_a_box_beyond_its_range_is_refused(client: Client) -> None:
    prompt = {
        "2": node("PrimitiveBoundingBox", x=-1, y=0, width=0, height=99999),
        "3": node("TinyShow", value=link("2")),
    }
    run = await client.run(prompt)
    assert run.status == 400
    errors = run.response["node_errors"]["2"]["errors"]
    assert sorted((error["type"], error["extra_info"]["input_name"]) for error in errors) == [
        ("value_bigger_than_max", "height"),
        ("value_smaller_than_min", "width"),
        ("value_smaller_than_min", "x"),
    ]


async def test_compared_images_are_shown_by_side(client: Client) -> None:
    run = await succeed(
        client,
        {
            "1": colour(0, 8, 8, batch=2),
            "2": node("ImageCompare", image_a=link("1"), compare_view=""),
        },
    )
    assert nameless(run.history["outputs"]["2"]) == {
        "a_images": [
            {"filename": f"comfy.compare.a_temp_*_0000{number}_.png", "subfolder": "", "type": "temp"}
            for number in (1, 2)
        ],
        "b_images": [],
    }


async def test_a_comparison_without_its_view_is_refused(client: Client) -> None:
    run = await client.run({"1": colour(0, 8, 8), "2": node("ImageCompare", image_a=link("1"))})
    assert run.status == 400
    (error,) = run.response["node_errors"]["2"]["errors"]
    assert (error["type"], error["details"]) == ("required_input_missing", "compare_view")


async def test_saved_text_is_shown_and_handed_on(client: Client) -> None:
    prompt = {
        "1": node("PrimitiveString", value='{"b":[1,"é"]}'),
        "2": node("SaveText", text=link("1"), filename_prefix="later/notes", format="json"),
        "3": node("TinyShow", value=link("2")),
    }
    run = await succeed(client, prompt)
    assert run.history["outputs"]["2"] == {
        "text": ['{"b":[1,"é"]}'],
        "files": [{"filename": "notes_00001.json", "subfolder": "later", "type": "output"}],
    }
    assert run.shown("3") == ['{"b":[1,"é"]}']
    await client.forget()
    run = await succeed(client, prompt)
    assert run.history["outputs"]["2"]["files"][0]["filename"] == "notes_00002.json"
    file = {"filename": "notes_00001.json", "subfolder": "later", "type": "output"}
    assert (await client.view(file)).decode() == '{\n  "b": [\n    1,\n    "é"\n  ]\n}'


BLENDED = 0.3 * torch.tensor([0x33, 0x66, 0x99]) / 255 + 0.7


def saved_by(**format: str) -> dict[str, Any]:
    """A prompt that saves two pictures of values between the steps of 8 bits, one of them with an alpha of 0.75."""
    chosen = {f"format.{name}" if name != "format" else name: value for name, value in format.items()}
    return {
        "1": colour(0x336699, 6, 4),
        "2": colour(0xFFFFFF, 6, 4),
        "3": node("ImageBlend", image1=link("1"), image2=link("2"), blend_factor=0.7, blend_mode="normal"),
        "4": node("SolidMask", value=0.25, width=6, height=4),
        "5": node("JoinImageWithAlpha", image=link("3"), alpha=link("4")),
        "8": node("SaveImageAdvanced", images=link("3"), filename_prefix="advanced/%width%", **chosen),
        "9": node("SaveImageAdvanced", images=link("5"), filename_prefix="advanced/alpha", **chosen),
    }


async def saved_files(client: Client, prompt: dict[str, Any], ending: str) -> list[bytes]:
    """What the two nodes saved, as files numbered in the folder of the prefix."""
    workflow = {"nodes": [], "name": "Größe"}
    run = await client.run(prompt, extra_data={"extra_pnginfo": {"workflow": workflow}})
    assert run.history["status"]["status_str"] == "success", run.history["status"]
    files = [run.history["outputs"][node_id]["images"][0] for node_id in "89"]
    assert [file["subfolder"] for file in files] == ["advanced"] * 2
    assert all(re.fullmatch(rf"(6|alpha)_\d{{5}}\.{ending}", file["filename"]) for file in files)
    return [await client.view(file) for file in files]


def decoded(content: bytes, format: str | None = None) -> Any:
    """The frame in an image file."""
    av = pytest.importorskip("av", reason="needs PyAV")
    with av.open(io.BytesIO(content), format=format) as opened:
        return next(opened.decode(video=0))


@pytest.mark.parametrize("bit_depth", ["8-bit", "16-bit"])
async def test_pictures_of_8_and_16_bits_are_rounded_down_and_say_how_they_were_made(
    client: Client, bit_depth: str
) -> None:
    prompt = saved_by(format="png", bit_depth=bit_depth, input_color_space="sRGB")
    largest, plain, alpha = {"8-bit": (255, "rgb24", "rgba"), "16-bit": (65535, "rgb48le", "rgba64le")}[bit_depth]
    color = (BLENDED * largest).to(torch.int32).tolist()
    for content, format, pixel in zip(
        await saved_files(client, prompt, "png"), (plain, alpha), (color, [*color, int(0.75 * largest)]), strict=True
    ):
        frame = decoded(content)
        assert frame.format.name == format.replace("le", "be")
        values = frame.to_ndarray(format=format)
        assert values.shape == (4, 6, len(pixel))
        assert abs(values.astype(int) - pixel).max() <= (0 if bit_depth == "8-bit" else 1)
        with Image.open(io.BytesIO(content)) as opened:
            opened.load()
            texts: dict[str, str] = opened.text  # type: ignore[attr-defined]
        assert json.loads(texts["prompt"]) == prompt
        assert json.loads(texts["workflow"]) == {"nodes": [], "name": "Größe"}


@pytest.mark.parametrize("space", ["sRGB", "HDR", "linear"])
async def test_pictures_in_exr_are_in_linear_light_and_say_how_they_were_made(client: Client, space: str) -> None:
    prompt = saved_by(format="exr", bit_depth="32-bit float", input_color_space=space)
    color = {
        "sRGB": ((BLENDED + 0.055) / 1.055) ** 2.4,
        "HDR": (torch.exp((BLENDED - 0.55991073) / 0.17883277) + 0.28466892) / 12,
        "linear": BLENDED,
    }[space].tolist()
    red_x = {"HDR": 0.708}.get(space, 0.64)
    for content, format, pixel in zip(
        await saved_files(client, prompt, "exr"), ("gbrpf32le", "gbrapf32le"), (color, [*color, 0.75]), strict=True
    ):
        frame = decoded(content, "exr_pipe")
        assert frame.format.name == format
        values = frame.to_ndarray(format=format)
        assert values.shape == (4, 6, len(pixel))
        assert abs(values - pixel).max() < 1e-5
        texts = {
            name.decode(): json.loads(content[end : end + size])
            for name, end, size in (
                (found[1], found.end() + 4, int.from_bytes(content[found.end() : found.end() + 4], "little"))
                for found in re.finditer(rb"(prompt|workflow)\0string\0", content)
            )
        }
        assert texts == {"prompt": prompt, "workflow": {"nodes": [], "name": "Größe"}}
        _, _, colors = content.partition(b"chromaticities\0chromaticities\0")
        assert struct.unpack_from("<if", colors) == (32, pytest.approx(red_x))


async def test_the_nodes_for_lists_of_texts_hand_on_a_list_as_one_value(client: Client) -> None:
    """Not a list of values: what comes behind gets the list."""
    run = await succeed(
        client,
        {
            "1": node("PrimitiveString", value="Ä b"),
            "2": node("TextToUppercase", texts=link("1")),
            "3": node("TinyShow", value=link("2")),
            "4": node("MergeTextLists", texts=link("1")),
            "5": node("TinyShow", value=link("4")),
        },
    )
    assert run.shown("3") == [["Ä B"]]
    assert run.shown("5") == [[["Ä b"]]]


async def test_a_painting_is_shown_and_is_run_again_when_its_file_changes(client: Client, server: Server) -> None:
    painting = server.base / "input" / "painting.png"
    Image.new("RGBA", (64, 64), (255, 0, 0, 255)).save(painting)
    prompt = {
        "1": node("Painter", mask="painting.png", width=64, height=64, bg_color="#00ff00"),
        "2": node("PreviewImage", images=link("1")),
    }
    run = await succeed(client, prompt)
    assert nameless(run.history["outputs"]["1"]) == {
        "images": [{"filename": "ComfyUI_temp_*_00001_.png", "subfolder": "", "type": "temp"}],
        "animated": [False],
    }
    again = await succeed(client, prompt)
    assert "1" in again.cached()
    Image.new("RGBA", (64, 64), (0, 0, 255, 255)).save(painting)
    changed = await succeed(client, prompt)
    assert "1" in changed.ran()


async def test_a_histogram_is_a_list_of_256_numbers(client: Client) -> None:
    run = await succeed(
        client,
        {
            "1": colour(0x0000FF, 8, 8),
            "2": node("ImageHistogram", image=link("1")),
            "3": node("TinyShow", value=link("2", 4)),
            "4": node("TinyShow", value=link("2", 1)),
        },
    )
    assert run.shown("3") == [[0] * 255 + [64]]
    luminance = run.shown("4")[0]
    assert (len(luminance), luminance[18]) == (256, 64)
