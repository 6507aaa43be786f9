"""GET /ws: who gets which messages, and in which form."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import struct
import time
import uuid
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from conformance import driver
from conformance.asking import Row, ask, check
from conformance.differences import expected
from conformance.driver import Client, Server, connect, link, node, until
from PIL import Image

SHOW = {"9": node("TinyShow", value="x")}


async def until_mark(client: Client, to: Client | None = None) -> list[tuple[Any, Any]]:
    """All messages that a client was sent up to now: up to one that is sent it now."""
    mark = uuid.uuid4().hex
    sender = to or client
    await sender.post("/tiny/send", {"event": "mark", "data": {"mark": mark}, "sid": client.sid})
    return (await client.receive_until("mark", mark=mark))[:-1]


# -- opening and closing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "sid"),
    [
        ("?clientId=mine", "mine"),
        ("?clientId=a%20%C3%A4", "a ä"),
        ("", None),
        ("?clientId=", None),
        ("?clientID=x", None),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_the_first_message_says_who_the_client_is(
    server: Server, query: str, sid: str | None, prefix: str
) -> None:
    """The length of the queue, and the id the client gave itself or was given: 32 hexadecimal digits."""
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}{prefix}/ws{query}") as ws:
        message = await ws.receive_json(timeout=driver.RUN_TIMEOUT)
        given = message["data"]["sid"]
        assert message == {"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": given}}
        assert given == sid if sid else uuid.UUID(hex=given).hex == given
        sockets = (await ask(server, "GET", "/tiny/sockets")).json
        assert sockets[given] == {"feature_flags": {}}
        await ws.close()
        assert ws.close_code == 1000


async def test_a_client_that_closes_is_forgotten(server: Server) -> None:
    """As is one whose connection breaks."""
    async with connect(server) as polite:
        pass
    async with connect(server) as rude:
        rude.socket._response.connection.transport.abort()

        async def both_are_gone() -> bool:
            return not {polite.sid, rude.sid} & set(await who_is_there(server))

        await until(both_are_gone, "both clients are forgotten")
    # Messages to it are lost without a trace.
    await check(server, [Row("POST", "/tiny/send", 200, body={"event": "x", "data": 1, "sid": rude.sid})])


async def who_is_there(server: Server) -> dict[str, Any]:
    """Who is connected."""
    sockets: dict[str, Any] = (await ask(server, "GET", "/tiny/sockets")).json
    return sockets


async def until_there(server: Server, sid: str, is_there: bool = True) -> None:
    """Wait until the server has a client, or has it no more."""

    async def is_so() -> bool:
        return (sid in await who_is_there(server)) is is_there

    await until(is_so, f"{sid} is {'' if is_there else 'not '}there")


async def test_a_client_that_comes_back_is_told_where_things_are(server: Server) -> None:
    """A second websocket of the same id in the middle of a prompt gets the running node and all that follows."""
    prompt = {
        "1": node("TinySteps", steps=100000, seconds=0.01, preview=False, seed=time.time_ns() % 10**9),
        "9": node("TinyShow", value=link("1")),
    }
    async with connect(server, sid="comes-back") as first:
        _, response = await first.queue(prompt)
        await first.receive_until("progress")
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/ws?clientId=comes-back") as ws:
            second = Client(server.url, session, ws, "comes-back")
            kind, status = await second.receive()
            assert (kind, status["sid"]) == ("status", "comes-back")
            assert status["status"]["exec_info"]["queue_remaining"] == 1
            assert await second.receive() == ("executing", {"node": "1"})
            await second.receive_until("progress")
            await second.post("/interrupt")
            await second.receive_until("execution_interrupted", prompt_id=response["prompt_id"])
            await second.receive_until("executing", node=None, prompt_id=response["prompt_id"])


async def test_the_end_of_an_old_connection(server: Server) -> None:
    """Of two of the same id, the newer one gets the messages; the older one's end is not the newer one's."""
    remains = expected(server, "second connection", comfyui=False, embedded=True)
    async with (
        connect(server, sid="twice") as first,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{server.url}/ws?clientId=twice") as ws,
    ):
        second = Client(server.url, session, ws, "twice")
        await until_mark(second)
        await first.socket.close()
        await until_there(server, "twice", remains)
        if remains:
            assert await until_mark(second) == []


# -- what clients say --------------------------------------------------------------------------------------------

FLAGS = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True, "x": [1]}})


@pytest.mark.parametrize(
    ("said", "replies", "known"),
    [
        ([FLAGS], 1, {"supports_preview_metadata": True, "x": [1]}),
        ([FLAGS, FLAGS.replace("true", "false")], 1, {"supports_preview_metadata": True, "x": [1]}),
        (['{"type": "feature_flags"}'], 1, {}),
        (['{"type": "feature_flags", "data": null}'], 1, None),
        (['{"type": "other"}', FLAGS], 0, {}),
        (["{}", FLAGS], 0, {}),
        # What is not understood does not count as the first message.
        (["no JSON", FLAGS], 1, {"supports_preview_metadata": True, "x": [1]}),
        (["[1]", "5", "null", FLAGS], 1, {"supports_preview_metadata": True, "x": [1]}),
        ([b"\x00\x01", FLAGS], 1, {"supports_preview_metadata": True, "x": [1]}),
        (["", FLAGS], 1, {"supports_preview_metadata": True, "x": [1]}),
    ],
)
async def test_features_are_exchanged_in_the_first_message(
    server: Server, said: list[str | bytes], replies: int, known: Any
) -> None:
    """The server answers with its own, which are those of GET /features."""
    features = (await ask(server, "GET", "/features")).json
    sid, seen = uuid.uuid4().hex, []
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{server.url}/ws?clientId={sid}", autoping=False) as ws,
    ):
        await ws.receive(driver.RUN_TIMEOUT)
        for text in said:
            await (ws.send_bytes(text) if isinstance(text, bytes) else ws.send_str(text))
        # A round trip: when this is answered, the server has read everything before it.
        await ws.ping(b"read")
        while (received := await ws.receive(driver.RUN_TIMEOUT)).type != aiohttp.WSMsgType.PONG:
            seen.append(json.loads(received.data))
        # And one of messages, which the answer to a ping may overtake.
        await check(server, [Row("POST", "/tiny/send", 200, body={"event": "mark", "data": {}, "sid": sid})])
        while (message := await ws.receive_json(timeout=driver.RUN_TIMEOUT))["type"] != "mark":
            seen.append(message)
        assert seen == [{"type": "feature_flags", "data": features}] * replies
        assert (await who_is_there(server))[sid] == {"feature_flags": known}


async def test_a_client_can_say_too_much(server: Server) -> None:
    """A message of more than 4 MiB ends its connection, and no other."""
    async with connect(server) as other, connect(server) as client:
        # The server does not wait for the rest of the message.
        with contextlib.suppress(ConnectionError):
            await client.socket.send_str("x" * (4 * 1024 * 1024 + 1))
        await until_there(server, client.sid, False)
        assert await until_mark(other) == []


async def test_pings_are_answered(server: Server) -> None:
    """With what they carry."""
    async with aiohttp.ClientSession() as session, session.ws_connect(server.url + "/ws", autoping=False) as ws:
        await ws.receive(driver.RUN_TIMEOUT)
        await ws.ping(b"payload")
        message = await ws.receive(driver.RUN_TIMEOUT)
        assert (message.type, bytes(message.data)) == (aiohttp.WSMsgType.PONG, b"payload")


# -- messages of packages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["sync", "async", "thread"])
async def test_packages_send_what_they_like(server: Server, how: str) -> None:
    """Data of any JSON type under any name, bytes under a number; to one client or to all."""
    async with connect(server) as one, connect(server) as two:
        for event, fields, received in (
            ("tiny.event", {"data": {"a": [1, None, "ä🎈"]}}, ("tiny.event", {"a": [1, None, "ä🎈"]})),
            ("list", {"data": [1, 2]}, ("list", [1, 2])),
            ("text", {"data": "text"}, ("text", "text")),
            ("nothing", {"data": None}, ("nothing", None)),
            ("number", {"data": 1.5}, ("number", 1.5)),
            ("", {"data": {}}, ("", {})),
            (1, {"hex": "00000001ff"}, (1, b"\x00\x00\x00\x01\xff")),
            (3, {"hex": ""}, (3, b"")),
            (1000, {"hex": "01"}, (1000, b"\x01")),
            (7, {"data": {"under": "a number"}}, (7, {"under": "a number"})),
        ):
            body = {"event": event, "how": how, **fields}
            await check(server, [Row("POST", "/tiny/send", 200, body={**body, "sid": one.sid})])
            assert await one.receive() == received
            await check(server, [Row("POST", "/tiny/send", 200, body=body)])
            assert (await one.receive(), await two.receive()) == (received, received)
        assert await until_mark(one) == []
        assert await until_mark(two) == []


async def test_messages_keep_their_order(server: Server) -> None:
    """Of one sender to one client, also when they are many."""
    async with connect(server) as client:
        for number in range(50):
            await client.post("/tiny/send", {"event": "n", "data": number, "sid": client.sid, "times": 20})
        numbers = [data for _, data in await until_mark(client)]
        assert numbers == [number for number in range(50) for _ in range(20)]


async def test_a_text_on_a_node(server: Server) -> None:
    """Event 3: the length of the node's id, the id, the text."""
    async with connect(server) as client:
        for text, name in (("half", "1"), ("ä\n", "12:3"), ("", "")):
            await client.post("/tiny/text", {"text": text, "node": name, "sid": client.sid})
            length = len(name).to_bytes(4, "big")
            assert await client.receive() == (3, length + name.encode() + text.encode())


async def test_a_preview_without_a_prompt(server: Server) -> None:
    """By the server object's own methods: event 1, or 4 with what is said about it."""
    async with connect(server) as client:
        await client.post("/tiny/picture", {"sid": client.sid})
        kind, data = await client.receive()
        assert (kind, data[:4]) == (1, b"\0\0\0\2")
        await client.post("/tiny/picture", {"sid": client.sid, "metadata": {"node_id": "5"}})
        kind, described = await client.receive()
        length = int.from_bytes(described[:4], "big")
        assert json.loads(described[4 : 4 + length]) == {"node_id": "5", "image_type": "image/png"}
        assert kind == 4
        for file in (data[4:], described[4 + length :]):
            with Image.open(io.BytesIO(file)) as image:
                assert (image.format, image.size) == ("PNG", (4, 2))


async def test_what_packages_find_at_the_server_object(server: Server) -> None:
    """A session for requests of their own, the users' settings and folders."""
    await check(server, [Row("POST", "/settings/of.a.package", 200, body=5)])
    found = (await ask(server, "GET", "/tiny/instance")).json
    assert found == {
        "asked": {"exec_info": {"queue_remaining": 0}},
        "bytes": "0000000378",
        "setting": 5,
        "file": str(server.base / "user/default/a/b.txt"),
        "supports": ["custom_nodes_from_web"],
    }


async def test_a_large_message_arrives_whole(server: Server) -> None:
    """20 MB in one piece."""
    async with connect(server) as client:
        size = 20 * 1024 * 1024
        await client.post("/tiny/send", {"event": "large", "size": size, "sid": client.sid})
        kind, data = await client.receive()
        assert (kind, len(data["text"])) == ("large", size)


async def test_a_message_that_is_no_json(server: Server, kind: str, start_server: Callable[..., Server]) -> None:
    """ComfyUI ends with all its prompts; the embedded server logs it and goes on."""
    own = await asyncio.to_thread(start_server, kind) if kind == "comfyui" else server
    goes_on = expected(server, "unwritable message", comfyui=False, embedded=True)
    async with connect(own) as client:
        await client.post("/tiny/send", {"event": "x", "how": "unwritable", "sid": client.sid})
        if goes_on:
            assert await until_mark(client) == []
            assert "cannot be written" in own.log()
        else:
            await asyncio.to_thread(own.process.wait, driver.RUN_TIMEOUT)
            assert "is not JSON serializable" in own.log()


# -- prompts -----------------------------------------------------------------------------------------------------


async def test_a_prompts_messages_go_to_the_client_that_queued_it(client: Client, server: Server) -> None:
    """Others see the length of the queue; of a prompt without a client they see its progress."""
    async with connect(server) as other:
        run = await client.run(SHOW)
        seen = await until_mark(other)
        assert {kind for kind, _ in seen} == {"status"}
        remaining = [data["status"]["exec_info"]["queue_remaining"] for _, data in seen]
        assert (remaining[0], remaining[-1]) == (1, 0)
        assert all(list(data) == ["status"] for _, data in seen)
        assert {data.get("prompt_id") for kind, data in run.messages if kind != "status"} == {run.prompt_id}
        _, response = await client.queue({"9": node("TinyShow", value=str(uuid.uuid4()))}, client_id=None)
        await other.receive_until("progress_state")
        await other.receive_until("status", status={"exec_info": {"queue_remaining": 0}})
        prompt_id = response["prompt_id"]
        history = await client.get(f"/history/{prompt_id}")
        assert history[prompt_id]["status"]["completed"]
        kinds = {kind for kind, data in await until_mark(client) if data.get("prompt_id") == prompt_id}
        assert kinds <= {"progress_state"}


def previewed(kind: str, mode: str = "RGB", largest: int = 0, steps: int = 1) -> dict[str, Any]:
    """A prompt that sends previews of 40 x 20 pixels."""
    return {"1": node("TinyPreview", kind=kind, mode=mode, width=40, height=20, largest=largest, steps=steps)}


@pytest.mark.parametrize(
    ("file_type", "mode", "largest", "size"),
    [
        ("JPEG", "RGB", 0, (40, 20)),
        ("PNG", "RGB", 0, (40, 20)),
        ("PNG", "RGBA", 0, (40, 20)),
        ("JPEG", "L", 0, (40, 20)),
        ("JPEG", "RGB", 10, (10, 5)),
        ("PNG", "RGB", 20, (20, 10)),
        # Made larger, too.
        ("JPEG", "RGB", 80, (80, 40)),
    ],
)
async def test_previews(server: Server, file_type: str, mode: str, largest: int, size: tuple[int, int]) -> None:
    """Event 1 with the format (1 JPEG, 2 PNG), or 4 with metadata for clients that say so."""
    prompt = previewed(file_type, mode, largest, steps=2)
    for flags, event in (
        (None, 1),
        ({}, 1),
        ({"supports_preview_metadata": 1}, 1),
        ({"supports_preview_metadata": True}, 4),
    ):
        async with connect(server, flags=flags) as client:
            run = await client.run(prompt)
            previews = run.data(event)
            assert len(previews) == 2
            assert run.data(5 - event) == run.data(2) == []
            for data in previews:
                (number,) = struct.unpack(">I", data[:4])
                image = data[4:]
                if event == 1:
                    assert number == (2 if file_type == "PNG" else 1)
                else:
                    metadata, image = json.loads(image[:number]), image[number:]
                    names = ("node_id", "display_node_id", "real_node_id")
                    assert metadata == {
                        **dict.fromkeys(names, "1"),
                        "parent_node_id": None,
                        "prompt_id": run.prompt_id,
                        "image_type": f"image/{file_type.lower()}",
                    }
                with Image.open(io.BytesIO(image)) as shown:
                    assert (shown.format, shown.mode, shown.size) == (file_type, mode, size)
            # Each is beside the message of its step, which says how far the node is.
            assert [data["value"] for data in run.data("progress")] == [1, 2]


async def test_images_instead_of_files(client: Client, server: Server) -> None:
    """SaveImageWebsocket: each image as a PNG of its own size, every time, and no output.

    ComfyUI ships it as a package, which a server with folders of its own does not have.
    """
    if "SaveImageWebsocket" not in (await ask(server, "GET", "/object_info")).json:
        assert not server.is_embedded
        return
    prompt = {
        "1": node("EmptyImage", width=700, height=30, batch_size=2, color=0x336699),
        "save_image_websocket_node": node("SaveImageWebsocket", images=link("1")),
    }
    for _ in range(2):
        run = await client.run(prompt)
        assert run.history["status"]["completed"]
        assert run.history["outputs"] == {}
        current, images = None, []
        for kind, data in run.messages:
            if kind == "executing":
                current = data["node"]
            elif kind == 1 and current == "save_image_websocket_node":
                images.append(data)
        assert len(images) == 2
        for data in images:
            assert data[:4] == b"\0\0\0\2"
            with Image.open(io.BytesIO(data[4:])) as image:
                assert (image.format, image.size, image.getpixel((0, 0))) == ("PNG", (700, 30), (0x33, 0x66, 0x99))


async def test_a_client_that_does_not_read(server: Server) -> None:
    """ComfyUI sends nobody anything until it has gone; the embedded server disconnects it."""
    _, port = server.url.rsplit(":", 1)
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect(("127.0.0.1", int(port)))
        key = "dGhlIHNhbXBsZSBub25jZQ=="
        lazy.sendall(
            f"GET /ws?clientId=lazy HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        async with connect(server) as client:
            await until_there(server, "lazy")
            body = {"event": "unread", "size": 8 * 1024 * 1024, "sid": "lazy", "times": 10}
            await client.post("/tiny/send", body)
            blocked = expected(server, "lazy client", comfyui=True, embedded=False)
            mark = asyncio.create_task(until_mark(client))
            if blocked:
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(asyncio.shield(mark), 0.5)
            else:
                await mark
                await until_there(server, "lazy", False)
                assert "Client lazy does not read" in server.log()
            lazy.close()
            await mark
