"""The embedded server as a process: how it starts and stops, and what of it ComfyUI does not have.

What it has in common with ComfyUI is in tests/conformance.
"""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import types
import webbrowser
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from conformance import driver
from conformance.asking import ask
from discomfort.embedded import arguments, launch, log_buffer

node, link, connect = driver.node, driver.link, driver.connect

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    """A server without packages."""
    started = driver.Server.embedded(tmp_path_factory.mktemp("embedded"))
    try:
        yield await started.wait_until_ready()
    finally:
        started.stop()


# -- what ComfyUI does not have ------------------------------------------------------------------------------


async def test_the_server_says_what_it_is(server: Any) -> None:
    """ComfyUI's keys, the version it behaves as, and that it is ours."""
    system = (await ask(server, "GET", "/system_stats")).json["system"]
    assert system["comfyui_version"] == "0.3.64"
    assert system["discomfort_embedded"] is True
    assert f"--port={server.port}" in system["argv"]


async def test_settings_stored_at_once_are_all_kept(server: Any) -> None:
    """The editor stores each by a request of its own, and does not wait for one before it sends the next."""
    names = [f"Together.{number}" for number in range(60)]
    async with connect(server) as client:
        await asyncio.gather(*(client.post(f"/settings/{name}", name) for name in names))
        stored = await client.get("/settings")
    assert [name for name in names if stored.get(name) != name] == []


async def test_a_link_on_another_page_may_open_the_editor(server: Any) -> None:
    """Only the page itself, which the user then sees."""
    answer = await ask(server, "GET", "/", **{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-cache"


async def test_messages_of_the_executor_wake_the_loop_once() -> None:
    """What is posted before the loop has come to it is delivered with it, in order."""
    from discomfort.embedded.server import PromptServer

    class Loop:
        """Notes what it is asked to call."""

        def __init__(self) -> None:
            self.called: list[Any] = []

        def is_closed(self) -> bool:
            return False

        def call_soon_threadsafe(self, function: Any) -> None:
            self.called.append(function)

    server, delivered = object.__new__(PromptServer), []
    server.loop, server._loop_thread = Loop(), -1  # type: ignore[assignment]
    server._posted, server._loop_is_woken = deque(), False
    server._deliver = lambda *message: delivered.append(message)  # type: ignore[method-assign,assignment]
    for number in range(3):
        server.send_encoded(str(number), "c")
    (wake,) = server.loop.called  # type: ignore[attr-defined]
    wake()
    server.send_encoded("3")
    assert len(server.loop.called) == 2  # type: ignore[attr-defined]
    server.loop.called[1]()  # type: ignore[attr-defined]
    assert delivered == [("0", "c"), ("1", "c"), ("2", "c"), ("3", None)]


# -- starting and stopping -----------------------------------------------------------------------------------


def run_to_end(*arguments: str, environment: dict[str, str] | None = None, embedded: Path | None = None) -> Any:
    """Run the server's command line until it ends by itself."""
    command = [sys.executable, str(embedded or driver.ROOT / "embedded"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **(environment or {})}, check=False
    )


async def test_ctrl_c_ends_it_cleanly_also_in_the_middle_of_a_prompt(tmp_path: Path) -> None:
    """Status 0, no temp folder left, no traceback; though SIGINT was ignored when it started."""
    driver.install_pack(tmp_path)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        server = driver.Server.embedded(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    await server.wait_until_ready()
    (tmp_path / "temp/preview.png").write_bytes(b"x")
    async with connect(server) as client:
        await client.queue({"1": node("TinySpin", seconds=60, seed=0), "9": node("TinyShow", value=link("1"))})
        await client.receive_until("executing", node="1")
        server.process.send_signal(signal.SIGINT)
        # Half of what the node would take.
        assert await asyncio.to_thread(server.process.wait, 30) == 0
    assert not (tmp_path / "temp").exists()
    assert "Stopped server" in server.log()
    assert "Traceback" not in server.log()


async def test_a_taken_port_is_an_error_before_anything_is_loaded(server: Any, tmp_path: Path) -> None:
    """Status 1, a sentence that names the port, and the folder of the other server untouched."""
    marker = server.base / "temp/marker.png"
    marker.write_bytes(b"x")
    ended = run_to_end(f"--port={server.port}", f"--base-directory={server.base}")
    assert ended.returncode == 1
    assert f"port {server.port} on 127.0.0.1 is in use" in ended.stderr
    assert "torch" not in ended.stderr
    assert "Traceback" not in ended.stderr
    assert marker.exists()


async def test_a_bad_certificate_is_an_error_before_anything_is_loaded(tmp_path: Path) -> None:
    """Status 1, and a sentence that names the files."""
    (tmp_path / "key.pem").write_text("no key")
    ended = run_to_end(
        f"--port={driver.free_port()}",
        f"--base-directory={tmp_path}",
        f"--tls-keyfile={tmp_path / 'key.pem'}",
        f"--tls-certfile={tmp_path / 'none.pem'}",
    )
    assert ended.returncode == 1
    assert f"--tls-certfile {tmp_path / 'none.pem'} are no certificate" in ended.stderr
    assert "torch" not in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificate")
async def test_it_can_be_asked_by_https(tmp_path: Path) -> None:
    """With a certificate and its key, and then not by http."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    make += ["-keyout", str(key), "-out", str(certificate)]
    await asyncio.to_thread(subprocess.run, make, check=True, capture_output=True)
    files = (f"--tls-keyfile={key}", f"--tls-certfile={certificate}")
    server = driver.Server.embedded(tmp_path / "base", files)
    server.url = server.url.replace("http:", "https:")
    try:
        await server.wait_until_ready(tls=False)
        assert f"To see the GUI go to: {server.url}" in server.log()
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("address", "opened"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("192.0.2.1", "192.0.2.1")],
)
async def test_the_browser_is_sent_to_where_the_server_listens(
    monkeypatch: pytest.MonkeyPatch, address: str, opened: str
) -> None:
    """What listens on all addresses is asked for on this machine's own."""
    urls: list[str] = []
    monkeypatch.setattr(webbrowser, "open", urls.append)
    launch._open_browser(types.SimpleNamespace(address=address, port=8188))
    assert urls == [f"http://{opened}:8188"]


async def test_a_program_that_prints_for_ever_does_not_fill_the_memory() -> None:
    """print() does not flush; of what was printed since, listeners get as much as is kept."""
    told: list[Any] = []
    tee = log_buffer._Tee(io.StringIO())
    for number in range(2 * log_buffer._CAPACITY):
        tee.write(str(number))
    log_buffer.on_entries(told.append)
    try:
        tee.flush()
        tee.flush()
    finally:
        log_buffer._listeners.remove(told.append)
    assert len(told) == 1
    assert [entry["m"] for entry in told[0]][-1] == str(2 * log_buffer._CAPACITY - 1)
    assert len(told[0]) == log_buffer._CAPACITY


@pytest.mark.parametrize("listen", ["0.0.0.0", "::", "192.0.2.1", "127.0.0.1,0.0.0.0", "example.com"])
async def test_listening_beyond_this_machine_needs_a_second_flag(listen: str) -> None:
    """Status 2 and a sentence that names it."""
    ended = run_to_end("--listen", listen)
    assert ended.returncode == 2
    assert "--allow-remote" in ended.stderr


async def test_cache_ram_takes_two_values_at_most() -> None:
    """Status 2 and a sentence that names them."""
    ended = run_to_end("--cache-ram", "1", "2", "3")
    assert ended.returncode == 2
    assert "--cache-ram [1.0, 2.0, 3.0]: takes at most two values" in ended.stderr


@pytest.mark.parametrize("values", [["LOUD"], ["INFO", "a.log", "b.log"]], ids=" ".join)
async def test_what_to_log_is_a_level_and_perhaps_a_file(values: list[str]) -> None:
    """Status 2 and a sentence that names them and the levels."""
    ended = run_to_end("--verbose", *values)
    assert ended.returncode == 2
    assert f"--verbose {' '.join(values)}: takes a level (DEBUG, DETAIL, INFO" in ended.stderr


@pytest.mark.parametrize(
    ("flags", "verbose", "files"),
    [
        ([], "INFO", []),
        (["--verbose"], "DEBUG", []),
        (["--verbose", "ERROR"], "ERROR", []),
        (["--verbose", "WARNING", "--verbose", "DETAIL", "--verbose", "ERROR"], "DETAIL", []),
        (["--verbose", "DEBUG", "a.log"], "INFO", [("DEBUG", "a.log")]),
        (
            ["--verbose", "INFO", "a", "--verbose", "ERROR", "--verbose", "DETAIL", "b"],
            "ERROR",
            [("INFO", "a"), ("DETAIL", "b")],
        ),
    ],
)
async def test_the_log_has_a_level_and_each_file_its_own(flags: list[str], verbose: str, files: list[Any]) -> None:
    """Packages read one level, as of ComfyUI 0.3.64."""
    known = arguments._settled(arguments.parser.parse_args(flags))
    assert (known.verbose, list(known.log_files)) == (verbose, files)


async def test_a_file_gets_what_it_asks_for_and_the_terminal_does_not(tmp_path: Path) -> None:
    """Also flags and values of later versions start the server; a file that cannot be written is a warning."""
    pack = tmp_path / "base/custom_nodes/talks"
    pack.mkdir(parents=True)
    (pack / "__init__.py").write_text(
        "import logging\nlogging.log(15, 'a detail')\nlogging.debug('for nobody')\nNODE_CLASS_MAPPINGS = {}\n"
    )
    ended = run_to_end(
        "--quick-test-for-ci",
        f"--port={driver.free_port()}",
        f"--base-directory={tmp_path / 'base'}",
        *("--verbose", "WARNING", "--verbose", "DETAIL", str(tmp_path / "all.log")),
        *("--verbose", "INFO", str(tmp_path / "no such folder/x.log")),
        *("--cuda-device", "all", "--use-ck-attention", "--disable-cuda-graphs"),
    )
    assert ended.returncode == 0, ended.stderr
    logged = (tmp_path / "all.log").read_text()
    assert "[DETAIL] a detail" in logged
    assert "for nobody" not in logged
    assert "a detail" not in ended.stderr
    assert f"Could not open {tmp_path / 'no such folder/x.log'}" in ended.stderr


async def test_the_temp_folder_is_emptied_at_the_start_and_nothing_else(tmp_path: Path) -> None:
    """--temp-directory gets a folder "temp" in it; files beside it stay."""
    temp = tmp_path / "t"
    (temp / "temp").mkdir(parents=True)
    (temp / "temp/old.png").write_bytes(b"x")
    (temp / "mine.txt").write_text("x")
    (tmp_path / "base/temp").mkdir(parents=True)
    (tmp_path / "base/temp/other.png").write_bytes(b"x")
    ended = run_to_end(
        "--quick-test-for-ci",
        f"--port={driver.free_port()}",
        f"--base-directory={tmp_path / 'base'}",
        f"--temp-directory={temp}",
        "--cpu",
    )
    assert ended.returncode == 0, ended.stderr
    assert sorted(p.name for p in temp.rglob("*")) == ["mine.txt"]
    assert (tmp_path / "base/temp/other.png").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="XDG folders are Linux's")
async def test_without_a_base_directory_it_uses_a_private_folder_of_the_user(tmp_path: Path) -> None:
    """Below XDG_DATA_HOME, for the user alone; unknown flags are one warning, not an exit."""
    ended = run_to_end(
        "--quick-test-for-ci",
        "--cpu",
        "--lowvram",
        "--fast",
        "--preview-method=auto",
        "--flag-of-the-future=3",
        "--another",
        f"--port={driver.free_port()}",
        environment={"XDG_DATA_HOME": str(tmp_path / "data")},
    )
    assert ended.returncode == 0, ended.stderr
    folder = tmp_path / "data/discomfort/embedded"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {"input", "output", "user"} <= {path.name for path in folder.iterdir()}
    assert ended.stderr.count("Unknown arguments are ignored: --flag-of-the-future=3 --another") == 1


async def test_packages_fail_alone_and_can_be_left_out(tmp_path: Path) -> None:
    """A package that raises is named with its reason; .disabled ones and other files are not tried."""
    nodes = tmp_path / "base/custom_nodes"
    extra = tmp_path / "more/packs"
    nodes.mkdir(parents=True)
    extra.mkdir(parents=True)
    broken = nodes / "broken"
    broken.mkdir()
    (broken / "__init__.py").write_text("import no_such_module\n")
    for folder, name in ((nodes, "single"), (nodes, "off.disabled"), (extra, "further")):
        text = "class N:\n  @classmethod\n  def INPUT_TYPES(cls): return {}\n"
        text += f"NODE_CLASS_MAPPINGS = {{'{name}': N}}\nprint('loaded {name}')\n"
        if name == "single":
            (folder / "single.py").write_text(text)
            continue
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(text)
        (folder / name / "prestartup_script.py").write_text(
            f"import sys, folder_paths\nprint('before {name}', 'torch' in sys.modules)\n"
        )
    (tmp_path / "paths.yaml").write_text("any:\n  base_path: more\n  custom_nodes: |\n    packs\n    none\n")
    common = [
        "--quick-test-for-ci",
        "--cpu",
        f"--base-directory={tmp_path / 'base'}",
        f"--extra-model-paths-config={tmp_path / 'paths.yaml'}",
    ]
    ended = run_to_end(*common, f"--port={driver.free_port()}")
    assert ended.returncode == 0, ended.stderr
    assert "loaded single" in ended.stdout
    assert "loaded further" in ended.stdout
    assert "before further False" in ended.stdout
    assert "off" not in ended.stdout
    assert "No module named 'no_such_module'" in ended.stderr
    assert f"(IMPORT FAILED): {broken}" in ended.stderr
    ended = run_to_end(
        *common, f"--port={driver.free_port()}", "--disable-all-custom-nodes", "--whitelist-custom-nodes", "further"
    )
    assert "loaded further" in ended.stdout
    assert "single" not in ended.stdout
    assert "broken" not in ended.stdout
    assert "Skipping broken" in ended.stderr


async def test_it_starts_from_a_folder_of_any_name(tmp_path: Path) -> None:
    """`python <folder>/embedded` where the package's folder cannot be imported by its name."""
    (tmp_path / "not a module-1.0").symlink_to(driver.ROOT)
    ended = run_to_end(
        "--quick-test-for-ci",
        "--cpu",
        f"--port={driver.free_port()}",
        f"--base-directory={tmp_path / 'base'}",
        embedded=tmp_path / "not a module-1.0/embedded",
    )
    assert ended.returncode == 0, ended.stderr


async def test_connections_made_while_it_starts_are_answered_when_it_is_ready(tmp_path: Path) -> None:
    """The port is taken at once, so a client waits instead of being refused."""
    server = driver.Server.embedded(tmp_path)
    try:
        deadline = time.monotonic() + driver.START_TIMEOUT
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", server.port), 1).close()
                break
            except OSError:
                await asyncio.sleep(0.01)
        assert "Loaded in" not in server.log()
        url, limit = server.url + "/system_stats", aiohttp.ClientTimeout(60)
        async with aiohttp.ClientSession() as session, session.get(url, timeout=limit) as answer:
            assert answer.status == 200
        assert "Loaded in" in server.log()
    finally:
        assert server.stop() == 0
