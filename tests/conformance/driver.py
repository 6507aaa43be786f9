"""Starts servers and talks to them: a client of ComfyUI's protocol, and nothing else.

Used by the conformance suite and by the embedded server's own tests (``from conformance import driver``). The package
of tiny nodes beside it does not import it.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

PACK = Path(__file__).resolve().parent / "pack"
ROOT = PACK.parents[2]
# A package of V3 nodes, and single-file packages with what can be wrong with one.
PACK_V3 = PACK.with_name("pack_v3")
PACKS_V3 = PACK.with_name("packs_v3")

# Seconds; generous, because test machines can be slow. Nothing waits that long when all is well.
START_TIMEOUT = 120.0
RUN_TIMEOUT = 60.0


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def install_pack(base: Path, name: str = "tiny") -> Path:
    """Put the package of tiny nodes into a base directory's custom_nodes."""
    target = base / "custom_nodes" / name
    shutil.copytree(PACK, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def install_v3_packs(base: Path) -> None:
    """Put the packages of V3 nodes into a base directory's custom_nodes."""
    folder = base / "custom_nodes"
    shutil.copytree(PACK_V3, folder / "tiny_v3", ignore=shutil.ignore_patterns("__pycache__"))
    for file in PACKS_V3.glob("*.py"):
        shutil.copy(file, folder)


def browser_path() -> str | None:
    """An installed browser; None: Playwright's own."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
    return next((path for path in map(shutil.which, names) if path), None)


def _die_with_parent() -> None:
    """In the child: ask Linux to kill it when the tests are killed (PR_SET_PDEATHSIG is 1)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Server:
    """A server process, embedded or a real ComfyUI."""

    def __init__(self, command: Sequence[str], base: Path, cwd: Path, arguments: Sequence[str] = ()) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.base = base
        # Known when it is ready: (0, 3, 64), and whether it is the embedded server.
        self.version: tuple[int, ...] = ()
        self.is_embedded = False
        self.log_path = base / "server.log"
        for name in ("custom_nodes", "user", "input", "output"):
            (base / name).mkdir(parents=True, exist_ok=True)
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *command,
                    "--cpu",
                    f"--port={self.port}",
                    f"--base-directory={base}",
                    "--disable-auto-launch",
                    "--disable-api-nodes",
                    "--database-url=sqlite:///:memory:",
                    *arguments,
                ],
                cwd=cwd,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    @classmethod
    def embedded(cls, base: Path, arguments: Sequence[str] = ()) -> Server:
        """Start the embedded server by its path."""
        return cls([sys.executable, str(ROOT / "embedded")], base, base, arguments)

    @classmethod
    def comfyui(cls, base: Path, arguments: Sequence[str] = ()) -> Server:
        """Start the ComfyUI at COMFYUI_PATH, with the Python of its venv if it has one."""
        tree = Path(os.environ["COMFYUI_PATH"])
        pythons = [p for p in (tree / "venv/bin/python", tree / ".venv/bin/python") if p.exists()]
        python = str(pythons[0]) if pythons else sys.executable
        return cls([python, "main.py"], base, tree, arguments)

    def log(self) -> str:
        """What the server has written."""
        return self.log_path.read_text(errors="replace")

    async def wait_until_ready(self, tls: bool = True) -> Server:
        """Wait for GET /system_stats; fails with the log if the process ends.

        Args:
            tls: of https, look at the certificate.
        """
        deadline = time.monotonic() + START_TIMEOUT
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < deadline:
                if self.process.poll() is not None:
                    raise AssertionError(f"server ended with {self.process.returncode}:\n{self.log()}")
                try:
                    async with session.get(f"{self.url}/system_stats", timeout=_total(2), ssl=tls) as answer:
                        if answer.status == 200:
                            self._note_version((await answer.json())["system"])
                            return self
                except (aiohttp.ClientError, asyncio.TimeoutError):
                    pass
                await asyncio.sleep(0.05)
        self.stop()
        raise AssertionError(f"server not ready after {START_TIMEOUT} s:\n{self.log()}")

    def _note_version(self, system: Mapping[str, Any]) -> None:
        """Keep what it says of itself."""
        self.version = tuple(int(part) for part in system["comfyui_version"].split(".")[:3])
        self.is_embedded = "discomfort_embedded" in system

    def stop(self) -> int:
        """End the process by SIGINT, or by SIGKILL if that does not help; returns its status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()


def _total(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds)


@dataclass
class Run:
    """What became of one prompt."""

    status: int
    response: dict[str, Any]
    # (type, data) of text messages, (event number, bytes) of binary ones; ends with executing null
    messages: list[tuple[Any, Any]] = field(default_factory=list)
    # its entry of /history, {} if it has none
    history: dict[str, Any] = field(default_factory=dict)

    @property
    def prompt_id(self) -> str:
        return str(self.response["prompt_id"])

    def types(self) -> list[Any]:
        """The messages' types, in order."""
        return [kind for kind, _ in self.messages]

    def data(self, kind: Any) -> list[Any]:
        """The data of all messages of a type."""
        return [data for message_kind, data in self.messages if message_kind == kind]

    def ran(self) -> list[str]:
        """The nodes that were executed, in order."""
        return list(dict.fromkeys(d["node"] for d in self.data("executing") if d["node"] is not None))

    def cached(self) -> set[str]:
        """The nodes whose results were there already."""
        return set(self.data("execution_cached")[0]["nodes"])

    def shown(self, node_id: str, key: str = "values") -> Any:
        """What an output node shows, according to the history."""
        return self.history["outputs"][node_id][key]

    def error(self) -> dict[str, Any]:
        """The one error it ended with."""
        (error,) = self.data("execution_error")
        return dict(error)


class Client:
    """A client with a websocket."""

    def __init__(self, url: str, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse, sid: str):
        self.url, self.session, self.socket, self.sid = url, session, socket, sid

    async def get(self, path: str) -> Any:
        """GET, as JSON."""
        async with self.session.get(self.url + path) as answer:
            return await answer.json(content_type=None)

    async def get_text(self, path: str) -> str:
        """GET, as text."""
        async with self.session.get(self.url + path) as answer:
            return await answer.text()

    async def post(self, path: str, body: Any = None) -> tuple[int, Any]:
        """POST JSON; status and text."""
        async with self.session.post(self.url + path, json=body) as answer:
            return answer.status, await answer.text()

    async def view(self, file: Mapping[str, str]) -> bytes:
        """The file that a ui result names."""
        query = {key: file[key] for key in ("filename", "subfolder", "type")}
        async with self.session.get(f"{self.url}/view", params=query) as answer:
            assert answer.status == 200, f"{file}: {answer.status}"
            return await answer.read()

    async def notes(self) -> list[str]:
        """What the package's nodes have noted since this was asked last."""
        notes: list[str] = await self.get("/tiny/notes")
        return notes

    async def forget(self) -> None:
        """Let the server forget all results.

        ComfyUI may take a prompt that comes right behind before it frees; so one that does not matter is run.
        """
        await self.post("/free", {"free_memory": True})
        await self.run({"forget": node("TinyShow", value="forget")})

    async def receive(self, timeout: float = RUN_TIMEOUT) -> tuple[Any, Any]:
        """The next message."""
        message = await self.socket.receive(timeout)
        if message.type == aiohttp.WSMsgType.TEXT:
            data = json.loads(message.data)
            return data["type"], data["data"]
        if message.type == aiohttp.WSMsgType.BINARY:
            return int.from_bytes(message.data[:4], "big"), message.data[4:]
        raise AssertionError(f"websocket ended: {message}")

    async def receive_until(self, kind: Any, **expected: Any) -> list[tuple[Any, Any]]:
        """Messages up to one of a type whose data has these items."""
        messages = []
        while True:
            messages.append(await self.receive())
            received, data = messages[-1]
            if received == kind and all(data.get(key) == value for key, value in expected.items()):
                return messages

    async def queue(self, prompt: Mapping[str, Any], **fields: Any) -> tuple[int, dict[str, Any]]:
        """POST /prompt; status and JSON."""
        body = {"prompt": prompt, "client_id": self.sid, **fields}
        async with self.session.post(self.url + "/prompt", json=body) as answer:
            return answer.status, await answer.json()

    async def run(self, prompt: Mapping[str, Any], **fields: Any) -> Run:
        """Queue a prompt and follow it to its end; one that is refused has only a response."""
        status, response = await self.queue(prompt, **fields)
        run = Run(status, response)
        if status == 200:
            run.messages = await self.receive_until("executing", node=None, prompt_id=run.prompt_id)
            run.history = (await self.get(f"/history/{run.prompt_id}")).get(run.prompt_id, {})
        return run


@asynccontextmanager
async def connect(
    server: Server, sid: str | None = None, flags: Mapping[str, Any] | None = None
) -> AsyncIterator[Client]:
    """A client of a server, past the first status message (and, with ``flags``, their answer)."""
    sid = sid or uuid.uuid4().hex
    async with (
        aiohttp.ClientSession(timeout=_total(RUN_TIMEOUT)) as session,
        session.ws_connect(f"{server.url}/ws?clientId={sid}", max_msg_size=0) as socket,
    ):
        client = Client(server.url, session, socket, sid)
        await client.receive_until("status", sid=sid)
        if flags is not None:
            await socket.send_json({"type": "feature_flags", "data": dict(flags)})
            await client.receive_until("feature_flags")
        yield client


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """A node of a prompt."""
    return {"class_type": class_type, "inputs": inputs}


def link(node_id: str, slot: int = 0) -> list[Any]:
    """A link."""
    return [node_id, slot]


def show(value: Any, **more: Any) -> dict[str, Any]:
    """A prompt that shows one value as node "9", and has more nodes by their ids."""
    return {**more, "9": node("TinyShow", value=value)}


async def until(condition: Callable[[], Awaitable[Any]], what: str) -> None:
    """Wait until a condition is true; fails with the words for it when that takes too long."""
    deadline = time.monotonic() + RUN_TIMEOUT
    while not await condition():
        assert time.monotonic() < deadline, f"not in {RUN_TIMEOUT:g} s: {what}"
        await asyncio.sleep(0.01)
