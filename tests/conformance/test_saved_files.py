"""What is in the files that prompts save, and what they are called: metadata, counters, subfolders, variables."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from conformance import driver
from conformance.differences import expected
from conformance.driver import Client, Server, link, node
from PIL import Image
from safetensors import safe_open

# Keys in no order, numbers of every form, text beyond ASCII: all of it comes out as it went in.
WORKFLOW = {"nodes": [{"id": 2, "b": 1.0, "a": 1e-7}], "zeta": None, "alpha": "Grüße 😀", "big": 2**53 + 1, "yes": True}


def picture(prefix: str, *, batch: int = 1, **more: Any) -> dict[str, Any]:
    """A prompt that saves a small picture, with keys that are not the server's."""
    return {
        "9": {**node("EmptyImage", width="16", height=8, batch_size=batch, color=255), "_meta": {"title": "Größe"}},
        "3": node("SaveImage", images=link("9"), filename_prefix=prefix, **more),
    }


async def saved(client: Client, prompt: dict[str, Any], node_id: str = "3", **fields: Any) -> list[dict[str, str]]:
    """The files that an output node of a prompt saved, as the history has them."""
    run = await client.run(prompt, **fields)
    assert run.history["status"]["status_str"] == "success", run.history["status"]
    outputs = run.history["outputs"][node_id]
    return outputs.get("images") or outputs["latents"]


async def text_chunks(client: Client, file: dict[str, str]) -> dict[str, str]:
    """The text chunks of a PNG file, in order."""
    with Image.open(io.BytesIO(await client.view(file))) as opened:
        opened.load()
        return dict(opened.text)  # type: ignore[attr-defined]


async def test_a_picture_carries_its_prompt_and_workflow_word_for_word(client: Client) -> None:
    """The whole prompt, with the values that validation has converted, and a node nothing asks for."""
    prompt = {**picture("meta/a"), "0": node("EmptyImage", width=1, height=1, batch_size=1, color=0)}
    extra = {"workflow": WORKFLOW, "more": [1, 2.50], "ü": "ä"}
    (file,) = await saved(client, prompt, extra_data={"extra_pnginfo": extra})
    chunks = await text_chunks(client, file)
    prompt["9"]["inputs"]["width"] = 16
    assert list(chunks) == ["prompt", "workflow", "more", "ü"]
    assert chunks["prompt"] == json.dumps(prompt)
    assert {key: chunks[key] for key in extra} == {key: json.dumps(value) for key, value in extra.items()}


@pytest.mark.parametrize("extra_data", [{}, {"extra_pnginfo": None}, {"extra_pnginfo": {}}, {"workflow": WORKFLOW}])
async def test_without_a_workflow_a_picture_carries_its_prompt_alone(
    client: Client, extra_data: dict[str, Any]
) -> None:
    prompt = picture("meta/b")
    (file,) = await saved(client, prompt, extra_data=extra_data)
    prompt["9"]["inputs"]["width"] = 16
    assert await text_chunks(client, file) == {"prompt": json.dumps(prompt)}


async def test_previews_carry_the_same(client: Client) -> None:
    prompt = {
        "1": node("EmptyImage", width=4, height=4, batch_size=2, color=0),
        "2": node("PreviewImage", images=link("1")),
    }
    files = await saved(client, prompt, "2", extra_data={"extra_pnginfo": {"workflow": WORKFLOW}})
    assert [file["type"] for file in files] == ["temp", "temp"]
    for file in files:
        chunks = await text_chunks(client, file)
        assert chunks == {"prompt": json.dumps(prompt), "workflow": json.dumps(WORKFLOW)}


async def test_an_animation_in_webp_carries_them_in_exif(client: Client) -> None:
    animation = {"fps": 6.0, "lossless": True, "quality": 80, "method": "default", "filename_prefix": "meta/c"}
    prompt = {
        "1": node("EmptyImage", width=4, height=4, batch_size=2, color=0),
        "2": node("SaveAnimatedWEBP", images=link("1"), **animation),
    }
    (file,) = await saved(client, prompt, "2", extra_data={"extra_pnginfo": {"workflow": WORKFLOW, "more": 1}})
    with Image.open(io.BytesIO(await client.view(file))) as opened:
        exif = dict(opened.getexif())
    assert exif == {
        0x0110: f"prompt:{json.dumps(prompt)}",
        0x010F: f"workflow:{json.dumps(WORKFLOW)}",
        0x010E: "more:1",
    }


async def test_a_saved_latent_carries_them_and_loads_again(client: Client, server: Server) -> None:
    prompt = {
        "1": node("EmptyLatentImage", width=64, height=32, batch_size=1),
        "2": node("SaveLatent", samples=link("1"), filename_prefix="meta/latent"),
    }
    (file,) = await saved(client, prompt, "2", extra_data={"extra_pnginfo": {"workflow": WORKFLOW}})
    assert file["subfolder"] == "meta"
    name = server.base / "output" / "meta" / file["filename"]
    with safe_open(name, "pt") as opened:
        assert opened.metadata() == {"prompt": json.dumps(prompt), "workflow": json.dumps(WORKFLOW)}
        assert list(opened.get_slice("latent_tensor").get_shape()) == [1, 4, 4, 8]
    name.replace(server.base / "input" / file["filename"])
    # The list of the widget is read from the folder anew.
    info = (await client.get("/object_info/LoadLatent"))["LoadLatent"]
    assert file["filename"] in info["input"]["required"]["latent"][0]
    again = {
        "1": node("LoadLatent", latent=file["filename"]),
        "2": node("SaveLatent", samples=link("1"), filename_prefix="meta/again"),
    }
    assert (await saved(client, again, "2"))[0]["filename"] == "again_00001_.latent"
    missing = {**again, "1": node("LoadLatent", latent="gone.latent")}
    refused = (await client.run(missing)).response["node_errors"]["1"]["errors"]
    assert [(error["type"], error["details"]) for error in refused] == [
        ("custom_validation_failed", "latent - Invalid latent file: gone.latent")
    ]


@pytest.fixture(scope="module")
def bare_server(kind: str, start_server: Callable[..., Server]) -> Server:
    """A server that writes no metadata."""
    return start_server(kind, "--disable-metadata")


async def test_disable_metadata_leaves_every_file_bare(bare_server: Server) -> None:
    async with driver.connect(bare_server) as client:
        (file,) = await saved(client, picture("bare"), extra_data={"extra_pnginfo": {"workflow": WORKFLOW}})
        assert await text_chunks(client, file) == {}
        prompt = {
            "1": node("EmptyLatentImage", width=64, height=64, batch_size=1),
            "2": node("SaveLatent", samples=link("1"), filename_prefix="bare"),
        }
        (latent,) = await saved(client, prompt, "2")
        with safe_open(bare_server.base / "output" / latent["filename"], "pt") as opened:
            assert opened.metadata() is None


async def test_names_count_on_within_their_folder_and_prefix(client: Client, server: Server) -> None:
    folder = server.base / "output" / "count" / "on"
    folder.mkdir(parents=True)
    for name in ("pic_00007_.png", "pic_00003_old_.png", "pic_x_.png", "picture_00050_.png", "pic_00100_"):
        (folder / name).touch()
    files = await saved(client, picture("count/on/pic", batch=2))
    assert files == [
        {"filename": f"pic_{number}_.png", "subfolder": "count/on", "type": "output"} for number in ("00101", "00102")
    ]
    await client.forget()
    assert [file["filename"] for file in await saved(client, picture("count/on/pic"))] == ["pic_00103_.png"]
    assert [file["filename"] for file in await saved(client, picture("count/pic"))] == ["pic_00001_.png"]


async def test_variables_of_a_prefix_are_filled_in_by_the_server(client: Client) -> None:
    prefix = "vars/%width%x%height%/%year%-%month%-%day%_%hour%%minute%%second%_%batch_num%_%date%_%nothing%"
    before = int(time.time())
    files = await saved(client, picture(prefix, batch=2))
    moments = [time.localtime(moment) for moment in range(before, int(time.time()) + 1)]
    written = {time.strftime("%Y-%m-%d_%H%M%S", moment) for moment in moments}
    assert [file["subfolder"] for file in files] == ["vars/16x8"] * 2
    for number, file in enumerate(files):
        moment, rest = file["filename"][:17], file["filename"][17:]
        assert moment in written
        # %date% is the editor's; each picture counts on.
        assert rest == f"_{number}_%date%_%nothing%_0000{number + 1}_.png"


@pytest.mark.parametrize("prefix", ["../outside", "a/../../outside", "/outside", "a/b/../../../outside"])
async def test_a_prefix_that_leads_out_of_the_output_folder_fails_the_node(
    client: Client, server: Server, prefix: str
) -> None:
    run = await client.run(picture(prefix))
    (error,) = run.data("execution_error")
    assert error["node_type"] == "SaveImage"
    assert "Saving image outside the output folder is not allowed" in error["exception_message"]
    assert not list(server.base.glob("outside*"))


async def test_prefixes_are_tidied_up_but_not_changed(client: Client) -> None:
    for prefix, (subfolder, filename) in {
        "tidy//a/../b": ("tidy", "b_00001_.png"),
        "./tidy/c": ("tidy", "c_00001_.png"),
        "tidy/with.dot": ("tidy", "with.dot_00001_.png"),
        "tidy/ spaced ": ("tidy", " spaced _00001_.png"),
        "tidy/ü%": ("tidy", "ü%_00001_.png"),
    }.items():
        (file,) = await saved(client, picture(prefix))
        assert (file["subfolder"], file["filename"]) == (subfolder, filename)


async def test_a_prefix_that_ends_with_a_slash_counts_on(client: Client, server: Server) -> None:
    """The folder's name becomes the files'."""
    names = []
    for _ in range(2):
        (file,) = await saved(client, picture("slash/pics/"))
        assert file["subfolder"] == "slash"
        names.append(file["filename"])
        await client.forget()
    second = expected(server, "prefix without a name", comfyui="pics_00001_.png", embedded="pics_00002_.png")
    assert names == ["pics_00001_.png", second]
