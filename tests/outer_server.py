"""The ComfyUI that a person works in, with this checkout installed as a node pack: what the editor's tests talk to.

    with outer_server("embedded", tmp_path, env={"NAME": "value"}) as server:
        server.url, server.user_folder, server.log()

or, as a fixture of a test module that runs on both servers of ``pack_server.SERVERS``:

    outer = outer_server_fixture()

It is the *outer* server, not the nested one that runs of Discomfort start. Every folder is its own; cache and temp
folders are those of the test session, so that a script run by the test and the server find each other. A nested server
that it starts is of the same kind (COMFYUI_PATH).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from conformance import driver
from pack_server import SERVERS, server_path

# Seconds. A start takes about five; test machines may be far slower.
START_TIMEOUT = 120.0
STOP_TIMEOUT = 30.0
# Seconds after the server's end in which what it has started must end too.
LEAK_TIMEOUT = 15.0
# An environment variable that every process below a server inherits, so that leaks can be told.
MARK = "DISCOMFORT_TEST_OUTER"

# The pack's name in custom_nodes; anything would do.
PACK_NAME = "comfyui-discomfort"


class OuterServer:
    """A server process with this checkout in its custom_nodes."""

    def __init__(
        self,
        kind: str,
        folder: Path,
        env: Mapping[str, str | None] | None = None,
        packs: Sequence[Path] = (),
        arguments: Sequence[str] = (),
        pack_name: str = PACK_NAME,
    ) -> None:
        """Start it.

        Args:
            kind: "embedded" or "comfyui"; skips the test where COMFYUI_PATH names no ComfyUI.
            folder: for everything it keeps; it may exist.
            env: variables beside those of this process; None removes one.
            packs: folders of further packs; linked into custom_nodes.
            arguments: more words of its command line.
            pack_name: the folder that users have the pack in.
        """
        #: COMFYUI_PATH of the nested servers that it may start
        self.path = server_path(kind)
        self.kind = kind
        self.base = folder
        self.port = driver.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        #: settings and, below "workflows", saved workflows of the one user
        self.user_folder = folder / "user" / "default"
        self.workflows_folder = self.user_folder / "workflows"
        self.input_folder, self.output_folder = folder / "input", folder / "output"
        for path in (self.workflows_folder, self.input_folder, self.output_folder, folder / "custom_nodes"):
            path.mkdir(parents=True, exist_ok=True)
        for pack in (driver.ROOT, *packs):
            link = folder / "custom_nodes" / (pack_name if pack == driver.ROOT else pack.name)
            link.symlink_to(pack, target_is_directory=True)
        self.log_path = folder / "outer.log"
        self._mark = uuid.uuid4().hex
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._program(), *self._words(), *arguments],
                cwd=folder if kind == "embedded" else self.path,
                env=self._environment(env or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_prepare_child if sys.platform == "linux" else None,
            )

    def _program(self) -> list[str]:
        if self.kind == "embedded":
            return [sys.executable, str(driver.ROOT / "embedded")]
        tree = Path(self.path)
        pythons = [p for p in (tree / "venv/bin/python", tree / ".venv/bin/python") if p.exists()]
        return [str(pythons[0]) if pythons else sys.executable, str(tree / "main.py")]

    def _words(self) -> list[str]:
        return [
            "--cpu",
            f"--port={self.port}",
            f"--base-directory={self.base}",
            f"--user-directory={self.base / 'user'}",
            f"--input-directory={self.input_folder}",
            f"--output-directory={self.output_folder}",
            f"--temp-directory={self.base}",  # "temp" is added to it, and emptied
            "--disable-auto-launch",
            "--disable-api-nodes",
            "--database-url=sqlite:///:memory:",
        ]

    def _environment(self, more: Mapping[str, str | None]) -> dict[str, str]:
        wanted: dict[str, str | None] = {
            **os.environ, "COMFYUI_PATH": self.path, "DISCOMFORT_NESTED": None, **more, MARK: self._mark,
        }  # fmt: skip
        return {name: value for name, value in wanted.items() if value is not None}

    def log(self) -> str:
        """What it has written."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def wait_until_ready(self) -> OuterServer:
        """Wait until it answers; fails with its log where it ends or takes too long."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.request("GET", "/system_stats", timeout=2.0)[0] == 200:
                    return self
            time.sleep(0.05)
        raise AssertionError(f"the server was not ready after {START_TIMEOUT:g} s:\n{self.log()}")

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> tuple[int, Any]:
        """(status, answer): JSON where it is JSON, else bytes. A *body* that is no bytes is sent as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"} if data is not None else {}
        request = urllib.request.Request(self.url + path, data=data, method=method, headers={**kind, **(headers or {})})
        # Without the proxies that the environment may name.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout) as answer:
                status, found, content = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                status, found, content = error.code, error.headers, error.read()
        return status, json.loads(content) if found.get_content_type() == "application/json" else content

    def get(self, path: str) -> Any:
        """The answer to a GET that must succeed."""
        status, answer = self.request("GET", path)
        assert status == 200, f"GET {path}: {status} {answer!r}"
        return answer

    def post(self, path: str, body: Any) -> Any:
        """The answer to a POST of JSON that must succeed."""
        status, answer = self.request("POST", path, body)
        assert status == 200, f"POST {path}: {status} {answer!r}"
        return answer

    def stop(self) -> int:
        """End it by SIGINT, as a person does, or by SIGKILL where that does not help; returns its status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()

    def left(self) -> list[psutil.Process]:
        """The living processes that it has started, directly or not."""
        found = []
        for process in psutil.process_iter(["environ", "status"]):
            mark = (process.info["environ"] or {}).get(MARK)
            if mark == self._mark and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found


@contextlib.contextmanager
def outer_server(
    kind: str,
    folder: Path,
    env: Mapping[str, str | None] | None = None,
    packs: Sequence[Path] = (),
    arguments: Sequence[str] = (),
    pack_name: str = PACK_NAME,
) -> Iterator[OuterServer]:
    """A server that answers; at the end it is stopped, and fails the test where it leaves processes behind.

    Args: see :class:`OuterServer`.
    """
    server = OuterServer(kind, folder, env, packs, arguments, pack_name)
    try:
        yield server.wait_until_ready()
    finally:
        server.stop()
        _end_what_is_left(server)


def _end_what_is_left(server: OuterServer) -> None:
    """Wait for the end of everything that the server has started; what does not end is killed, and fails the test."""
    deadline = time.monotonic() + LEAK_TIMEOUT
    while (left := server.left()) and time.monotonic() < deadline:
        time.sleep(0.05)
    words = []
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            words.append(" ".join(process.cmdline())[:300])
            process.kill()
    assert not words, f"the server left processes behind: {words}\n{server.log()[-3000:]}"


def outer_server_fixture(
    scope: Any = "module",
    env: Callable[[], Mapping[str, str | None]] | None = None,
    packs: Sequence[Path] = (),
    arguments: Sequence[str] = (),
) -> Any:
    """A fixture that gives an OuterServer of each kind of ``pack_server.SERVERS``.

    Args:
        env: called when the server starts; see :class:`OuterServer`.
    """

    @pytest.fixture(scope=scope, params=SERVERS)
    def outer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OuterServer]:
        variables = env() if env is not None else None
        with outer_server(request.param, tmp_path_factory.mktemp("outer"), variables, packs, arguments) as server:
            yield server

    return outer


def _prepare_child() -> None:
    """In the child: end with the tests, and take SIGINT also where this process ignores it (in the background)."""
    driver._die_with_parent()
    signal.signal(signal.SIGINT, signal.default_int_handler)
