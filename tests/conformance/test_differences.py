"""What the embedded server does otherwise than ComfyUI on purpose and no other test of this suite shows."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conformance.differences import DIFFERENCES, expected
from conformance.driver import Client, Server, connect, link, node, until

SUM = {"1": node("TinyNumber", value=3), "2": node("TinyAdd", a=link("1"), b=4), "9": node("TinyShow", value=link("2"))}


async def test_a_link_that_leads_nowhere_once_it_is_unwrapped(
    server: Server, kind: str, start_server: Callable[..., Server]
) -> None:
    """ComfyUI's thread of prompts ends for good, and the prompt runs for ever; here it is an error."""
    own = await asyncio.to_thread(start_server, kind) if kind == "comfyui" else server
    goes_on = expected(server, "dead executor", comfyui=False, embedded=True)
    async with connect(own) as client:
        prompt = {"9": node("TinyShow", value={"__value__": ["77", 0]})}
        if goes_on:
            run = await client.run(prompt)
            assert run.history["status"]["status_str"] == "error"
            assert (await client.run(SUM)).shown("9") == [7]
            return
        await client.queue(prompt)

        async def thread_has_ended() -> bool:
            return "Exception in thread" in own.log()

        await until(thread_has_ended, "the thread of prompts has ended")
        await client.queue(SUM)
        queue = await client.get("/queue")
        assert (len(queue["queue_running"]), len(queue["queue_pending"])) == (1, 1)


async def test_freeing_before_a_prompt(client: Client, server: Server) -> None:
    """ComfyUI may take the prompt first, and then finds everything in its cache."""
    await client.run(SUM)
    await client.post("/free", {"free_memory": True})
    cached = (await client.run(SUM)).cached()
    assert cached in expected(server, "free", comfyui=[set(), {"1", "2", "9"}], embedded=[set()])


RGBA = {
    "1": node("EmptyImage", width=8, height=8, batch_size=1, color=0xFF0000),
    "2": node("SolidMask", value=0.25, width=8, height=8),
    "3": node("JoinImageWithAlpha", image=link("1"), alpha=link("2")),
}
_COMPOSITE = node("ImageCompositeMasked", destination=link("3"), source=link("1"), x=0, y=0, resize_source=False)


async def test_a_picture_onto_one_with_transparency(client: Client, server: Server) -> None:
    """Opaque where it lies."""
    run = await client.run({**RGBA, "4": _COMPOSITE, "9": node("TinyTensor", image=link("4"))})
    works = expected(server, "transparency", comfyui=server.version >= (0, 21), embedded=True)
    if works:
        assert run.shown("9", "numbers") == [1, 0, 0, 1] * 2
    else:
        assert "must match the size" in run.data("execution_error")[0]["exception_message"]


async def test_latents_are_interpolated_item_by_item(client: Client, server: Server) -> None:
    """Each with the one of its place; ComfyUI mixes them, into another shape."""
    prompt = {
        "1": node("TinyLatent", numbers="3 4 0 5"),
        "2": node("TinyLatent", numbers="6 8 10 0"),
        "3": node("LatentInterpolate", samples1=link("1"), samples2=link("2"), ratio=0.5),
        "9": node("TinyTensor", latent=link("3")),
    }
    run = await client.run(prompt)
    shape, numbers = run.shown("9", "shape"), run.shown("9", "numbers")
    assert shape == expected(server, "interpolation", comfyui=[2, 2, 1, 2], embedded=[2, 1, 1, 2])
    if server.is_embedded:
        assert numbers == [4.5, 6, 5, 2.5]


@pytest.mark.parametrize(
    ("mode", "comfyui"), [("First Group", [None]), ("All Groups", "NoneType found"), ("First Match", ["a"])]
)
async def test_a_group_that_took_no_part(client: Client, server: Server, mode: str, comfyui: Any) -> None:
    """Of a regular expression with alternatives: an empty text."""
    options = dict.fromkeys(("case_insensitive", "multiline", "dotall"), False)
    extract = node("RegexExtract", string="a", regex_pattern="(a)|(b)", mode=mode, group_index=2, **options)
    run = await client.run({"1": extract, "9": node("TinyShow", value=link("1"))})
    wanted = expected(server, "regex group", comfyui=comfyui, embedded=["a"] if mode == "First Match" else [""])
    if isinstance(wanted, list):
        assert run.shown("9") == wanted
    else:
        assert wanted in run.data("execution_error")[0]["exception_message"]


@pytest.mark.parametrize("name", DIFFERENCES)
def test_every_difference_is_shown(name: str) -> None:
    """By a test that says what each of the two does."""
    tests = Path(__file__).parent.glob("test_*.py")
    assert any(re.search(rf'expected\(\s*\w+,\s*"{re.escape(name)}"', test.read_text("utf-8")) for test in tests)


def test_every_difference_is_said_in_a_few_words() -> None:
    """One line of a table each, and none twice."""
    for name, difference in DIFFERENCES.items():
        assert all(difference[:3]), name
        assert not any("|" in text or "\n" in text for text in difference), name
    assert len({difference.what for difference in DIFFERENCES.values()}) == len(DIFFERENCES)
