"""A program between the connector and a server that works: it can cut the websocket after a message of some kind.

``main.py`` of a :class:`ProxiedTree` runs :func:`main`, so the connector starts it as it starts a ComfyUI. It starts
the server that the tree stands for, on another port and with the same arguments, and passes every byte on. What it does
wrong is read from ``cut.json`` in the tree: ``{"after": kind, "number": n}`` cuts all websockets once, for each number
anew, after the first message of that kind. "preview" is any binary message, "done" the "executing" without a node.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path


class ProxiedTree:
    """A folder that looks like a ComfyUI checkout and starts a server behind this program."""

    def __init__(self, path: Path, command: list[str], where: Path | None, flags: str, pack: Path):
        """
        Args:
            command: starts the server, without any argument of its own.
            where: the folder that it is started in, None: this one.
            flags: text of a cli_args.py, which tells what arguments it knows.
            pack: a folder of custom-node packages that it loads as well.
        """
        self.path = path
        self._number = 0
        (path / "comfy").mkdir(parents=True)
        (path / "comfy" / "cli_args.py").write_text(flags)
        (path / "pack.yaml").write_text(json.dumps({"tests": {"base_path": str(pack), "custom_nodes": "."}}))
        settings = {"command": command, "where": str(where) if where else None}
        (path / "server.json").write_text(json.dumps(settings))
        (path / "main.py").write_text(
            f"import runpy\nrunpy.run_path({str(Path(__file__).resolve())!r})['main']({str(path)!r})\n"
        )
        self.cut_after("")

    def cut_after(self, kind: str) -> None:
        """Cut the websocket after the next message of this kind; "" never."""
        self._number += 1
        young = self.path / "cut.young"
        young.write_text(json.dumps({"after": kind, "number": self._number}))
        os.replace(young, self.path / "cut.json")


def kind_of(first_byte: int, payload: bytes) -> str:
    """The kind of a websocket message, as :meth:`ProxiedTree.cut_after` calls it; "" for what is none of the server's.

    A message of several frames (none of the server's is) counts by its first.
    """
    if first_byte & 0x0F == 2:
        return "preview"
    try:
        content = json.loads(payload)
        kind = str(content["type"])
        return "done" if kind == "executing" and content["data"]["node"] is None else kind
    except (ValueError, KeyError, TypeError):
        return ""


class Proxy:
    """Passes bytes on in both directions; looks into what the server says on a websocket."""

    def __init__(self, tree: Path, port: int):
        self.tree = tree
        self.port = port
        self.sockets: set[asyncio.StreamWriter] = set()
        self.number = 0

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the client's."""
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:  # it is starting, or it has ended
            writer.transport.abort()
            return
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            server_writer.write(head)
            is_websocket = re.match(rb"GET (/api)?/ws[ ?]", head) is not None
            if is_websocket:
                self.sockets.add(writer)
            tasks = [
                asyncio.ensure_future(self.pass_on(reader, server_writer)),
                asyncio.ensure_future((self.watch if is_websocket else self.pass_on)(server_reader, writer)),
            ]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        self.sockets.discard(writer)
        for end in (writer, server_writer):
            end.close()

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()

    async def watch(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on a websocket's messages one by one, until one says that the sockets are to be cut."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            writer.write(await reader.readuntil(b"\r\n\r\n"))
            while True:
                head = await reader.readexactly(2)
                length = head[1] & 0x7F
                if length > 125:
                    head += await reader.readexactly(2 if length == 126 else 8)
                    length = int.from_bytes(head[2:], "big")
                payload = await reader.readexactly(length)
                writer.write(head + payload)
                await writer.drain()
                self.cut_if_wanted(kind_of(head[0], payload))

    def cut_if_wanted(self, kind: str) -> None:
        wanted = json.loads((self.tree / "cut.json").read_text())
        if kind and kind == wanted["after"] and wanted["number"] != self.number:
            self.number = wanted["number"]
            for writer in list(self.sockets):
                writer.transport.abort()


def main(folder: str) -> None:
    """Start the server that the tree stands for, and pass everything on until it ends."""
    tree, argv = Path(folder), sys.argv[1:]
    settings = json.loads((tree / "server.json").read_text())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        inner_port = probe.getsockname()[1]
    at = argv.index("--port") + 1
    port, argv[at] = int(argv[at]), str(inner_port)
    command = [*settings["command"], *argv, "--extra-model-paths-config", str(tree / "pack.yaml")]
    # In the group of this program: what the connector sends to the group reaches both.
    server = subprocess.Popen(command, cwd=settings["where"])
    try:
        asyncio.run(serve(Proxy(tree, inner_port), port, server))
    except KeyboardInterrupt:
        server.wait()
    finally:
        server.kill()
        server.wait()


async def serve(proxy: Proxy, port: int, server: subprocess.Popen[bytes]) -> None:
    """Listen until the server ends."""
    listener = await asyncio.start_server(proxy.connect, "127.0.0.1", port, limit=1 << 20)
    async with listener:
        while server.poll() is None:  # noqa: ASYNC110 - a process has no asyncio event
            await asyncio.sleep(0.05)
