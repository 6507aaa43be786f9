"""A server that is kept warm between scripts: ``python -m discomfort server``, and create() that takes what it keeps.

The commands are run as a user runs them, in processes of their own. The server is tests/fake_comfyui.py, which counts
its starts, and where values matter the embedded one or the real ComfyUI of COMFYUI_PATH.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from discomfort.comfy_serverless import ComfyConnector

from discomfort import comfy_serverless as cs
from discomfort import warm_server

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")

HERE = Path(cs.__file__).resolve().parent
ECHO = {"1": {"class_type": "Echo", "inputs": {"value": "hello"}}}
SLEEP = {"1": {"class_type": "Sleep", "inputs": {"seconds": 30}}}

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def config(fake_tree: Any, write_config: Callable[..., Path]) -> Path:
    """The configuration of the scripts and of the warm server."""
    return write_config(COMFYUI_PATH=str(fake_tree.path), DEVICE="cpu", STOP_TIMEOUT=0.5)


def is_gone(pid: int) -> bool:
    """Whether a process has ended. (In a container without an init nobody may have reaped it.)"""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def cli(no_leaks: None) -> Iterator[Cli]:
    """``cli("start", ...)`` runs ``python <package> server start ...``; whatever is kept is stopped at the end."""

    def run(*words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(HERE), "server", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)

    yield run
    for one in warm_server.status():
        with contextlib.suppress(psutil.Error):
            psutil.Process(one.server.pid).send_signal(signal.SIGCONT)
        warm_server.stop(one, force=True)


def started(cli: Cli, config: Path, *more: str) -> dict[str, Any]:
    """Start a warm server; returns what is published of it."""
    done = cli("start", "--config", str(config), "--json", *more)
    assert done.returncode == 0, done.stderr
    server: dict[str, Any] = json.loads(done.stdout)
    return server


@pytest_asyncio.fixture
async def create(config: Path) -> AsyncIterator[Callable[..., Any]]:
    """``await create()``: a connector, as a script makes it."""

    async def make(path: Path = config) -> ComfyConnector:
        return await ComfyConnector.create(path)

    yield make
    connector = cs._process_state().connector
    if connector is not None:
        await connector.kill_api()


async def run(connector: ComfyConnector, prompt: dict[str, Any]) -> Any:
    (entry,) = (await connector.run_workflow(prompt, use_workflow_json=False)).values()
    return entry["outputs"]


def script_that(does: str, config: Path, tmp_path: Path) -> list[str]:
    """Command of a script that creates a connector and then *does* something with it."""
    file = tmp_path / "script.py"
    file.write_text(
        "import asyncio, sys\n"
        "from discomfort import ComfyConnector\n"
        "async def main():\n"
        "    connector = await ComfyConnector.create(sys.argv[1])\n"
        f"    {does}\n"
        "asyncio.run(main())\n"
    )
    return [sys.executable, str(file), str(config)]


# ---- the life of a warm server ----


async def test_scripts_share_one_start(cli: Cli, config: Path, create: Any, fake_tree: Any, tmp_path: Path) -> None:
    server = await asyncio.to_thread(started, cli, config)
    command = script_that("print(connector.is_attached, connector.server_address)", config, tmp_path)
    for _ in range(2):  # neither of them stops it
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
        assert done.stdout == f"True {server['address']}\n", done.stderr
    connector = await create()
    assert "kept warm" in connector.server_description
    assert connector.log_path == Path(server["log"])
    assert await run(connector, ECHO) == {"1": {"text": ["hello"]}}
    await connector.kill_api()
    assert not is_gone(server["pid"])
    assert len(fake_tree.starts()) == 1


def test_commands_say_what_they_did(cli: Cli, config: Path, fake_tree: Any) -> None:
    nothing = cli("status")
    assert (nothing.returncode, nothing.stdout) == (3, "No warm server runs.\n")
    assert cli("stop", "--config", str(config)).stdout == "No warm server runs.\n"

    first = cli("start", "--config", str(config))
    assert first.returncode == 0, first.stderr
    for part in (f"ComfyUI in {fake_tree.path}", "Ready after", "unused for 0 s", "ends after 60 min"):
        assert part in first.stdout
    assert first.stdout.endswith(f"Stop it with: python {HERE} server stop --config {config}\n")
    again = cli("start", "--config", str(config))
    assert "It runs already." in again.stdout
    assert "idle time-out stays" not in again.stdout
    assert "idle time-out stays" in cli("start", "--config", str(config), "--idle-timeout", "5").stdout

    status = cli("status")
    assert status.returncode == 0
    assert f"ComfyUI in {fake_tree.path}" in status.stdout
    (data,) = json.loads(cli("status", "--json").stdout)
    assert data["healthy"] is True
    assert (data["users"], data["queue"], data["kind"]) == ([], 0, "comfyui")
    assert data["idle_timeout_seconds"] == 3600
    assert Path(data["log"]).exists()

    elsewhere = cli("stop", "--config", str(HERE / "comfy_serverless.json"))
    assert f"Of other configurations: {data['address']} (--all)" in elsewhere.stdout
    assert cli("stop", "--config", str(config)).stdout == f"Stopped {data['address']}.\n"
    assert cli("status", "--json").returncode == 3
    assert is_gone(data["pid"])
    assert is_gone(data["keeper_pid"])


def test_all_are_stopped_at_once(cli: Cli, config: Path, write_config: Any, fake_tree: Any) -> None:
    other = write_config(COMFYUI_PATH=str(fake_tree.path), DEVICE="cpu", CACHE_LRU=7)
    addresses = {started(cli, config)["address"], started(cli, other)["address"]}
    assert len(addresses) == 2
    done = cli("stop", "--all")
    assert set(done.stdout.split()) - {"Stopped"} == {f"{a}." for a in addresses}
    assert cli("status").returncode == 3


def test_two_starts_at_once_give_one_server(cli: Cli, config: Path, fake_tree: Any) -> None:
    command = [sys.executable, str(HERE), "server", "start", "--json", "--config", str(config)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert len({json.loads(output)["address"] for output, _ in answers}) == 1
    assert len(fake_tree.starts()) == 1


def test_start_waits_for_the_end_of_one_that_is_being_stopped(
    cli: Cli, config: Path, fake_tree: Any, wait_for: Any, write_config: Any
) -> None:
    fake_tree.behave(ignore_signals=True)
    slow = write_config(COMFYUI_PATH=str(fake_tree.path), DEVICE="cpu", STOP_TIMEOUT=1.5)
    old = started(cli, slow)
    stopping = subprocess.Popen(
        [sys.executable, str(HERE), "server", "stop", "--config", str(slow)], stdout=subprocess.DEVNULL
    )
    wait_for(lambda: warm_server.status() == [])
    new = started(cli, config)
    assert stopping.wait(timeout=30) == 0
    assert new["keeper_pid"] != old["keeper_pid"]


def test_failed_start_says_why_and_leaves_nothing(cli: Cli, config: Path, fake_tree: Any, nested: Any) -> None:
    fake_tree.behave(start="exit")
    done = cli("start", "--config", str(config))
    assert done.returncode == 1
    assert "discomfort: The ComfyUI server ended with exit status 1" in done.stderr
    assert "No module named 'frobnicate'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not nested.folders()


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"COMFYUI_PATH": "/nowhere"}, "No ComfyUI at /nowhere"),
        ({"API_URL": "127.0.0.1:1"}, "nothing to be kept warm"),
        ({"FROBNICATE": 1}, "unknown key 'FROBNICATE'"),
    ],
)
def test_bad_configuration_is_one_paragraph(cli: Cli, write_config: Any, keys: dict[str, Any], says: str) -> None:
    done = cli("start", "--config", str(write_config(**keys)))
    assert (done.returncode, done.stderr.count("discomfort: ")) == (1, 1)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_command_line_that_is_not_understood_is_status_2(cli: Cli) -> None:
    assert cli("frobnicate").returncode == 2
    assert cli("start", "--idle-timeout", "-1").returncode == 2


def test_interrupted_start_leaves_nothing(cli: Cli, config: Path, fake_tree: Any, nested: Any, wait_for: Any) -> None:
    fake_tree.behave(start="silent")
    command = [sys.executable, str(HERE), "server", "start", "--config", str(config)]
    starting = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(fake_tree.starts)
    starting.send_signal(signal.SIGINT)
    assert starting.wait(timeout=20) != 0
    wait_for(lambda: not nested.folders() and not nested.processes(), 10, "the end of everything")


def test_keeper_that_is_killed_while_it_starts_is_told_and_leaves_nothing(
    cli: Cli, config: Path, fake_tree: Any, nested: Any, wait_for: Any
) -> None:
    fake_tree.behave(start="silent")
    command = [sys.executable, str(HERE), "server", "start", "--config", str(config)]
    starting = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(fake_tree.starts)
    (keeper,) = psutil.Process(starting.pid).children()
    keeper.kill()
    _, error = starting.communicate(timeout=20)
    assert error == (
        "discomfort: The process that was to keep the warm server ended by signal 9 before the server was ready.\n"
    )
    wait_for(lambda: not nested.processes(), 10, "the end of the server")
    fake_tree.behave()
    assert started(cli, config)["healthy"]  # and what the killed one left is swept


def test_server_that_is_being_started_can_be_stopped(
    cli: Cli, config: Path, fake_tree: Any, nested: Any, wait_for: Any
) -> None:
    fake_tree.behave(start="silent")
    command = [sys.executable, str(HERE), "server", "start", "--config", str(config)]
    starting = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(fake_tree.starts)
    status = cli("status")
    assert (status.returncode, status.stdout) == (3, "No warm server runs.\n\nOne is being started.\n")
    assert cli("stop", "--config", str(config)).stdout == "Stopped one that was being started.\n"
    _, error = starting.communicate(timeout=20)
    assert "The keeper was stopped while its server was starting." in error
    assert starting.returncode == 1
    assert not nested.folders()


def test_server_that_is_started_again_can_be_stopped(
    cli: Cli, config: Path, fake_tree: Any, nested: Any, wait_for: Any
) -> None:
    server = started(cli, config)
    fake_tree.behave(start="silent")
    os.kill(server["pid"], signal.SIGKILL)
    wait_for(lambda: len(fake_tree.starts()) == 2)
    assert cli("stop", "--all").stdout == "Stopped one that was being started.\n"
    assert is_gone(server["keeper_pid"])
    assert not nested.folders()


def test_server_that_cannot_be_published_is_one_paragraph(
    cli: Cli, config: Path, fake_tree: Any, nested: Any, wait_for: Any
) -> None:
    """As on a full disk; here something else has its name."""
    fake_tree.behave(start_delay=1.5)
    command = [sys.executable, str(HERE), "server", "start", "--config", str(config)]
    starting = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(fake_tree.starts)
    (folder,) = warm_server.unready(everywhere=True)
    (folder / "server.json").mkdir()
    _, error = starting.communicate(timeout=20)
    assert "discomfort: The warm server cannot be published in" in error
    assert "Traceback" not in error
    assert not nested.folders()


def test_foreground_server_shows_its_log_and_one_of_them_is_enough(
    cli: Cli, config: Path, wait_for: Any, fake_tree: Any
) -> None:
    command = [sys.executable, str(HERE), "server", "start", "--foreground", "--config", str(config)]
    service = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(warm_server.status, 20)
    second = cli("start", "--foreground", "--config", str(config))
    assert second.returncode == 1
    assert second.stderr.startswith("discomfort: A warm server with these settings is kept")
    service.send_signal(signal.SIGINT)
    output, _ = service.communicate(timeout=20)
    assert "initializing -> ready" in output
    assert "The server is stopped: a signal ended it" in output
    assert "discomfort-keeper" not in output


@pytest.mark.parametrize("is_ignored", [True, False])
def test_foreground_server_ends_with_its_terminal_unless_started_by_nohup(
    cli: Cli, config: Path, wait_for: Any, tmp_path: Path, is_ignored: bool
) -> None:
    command = [sys.executable, str(HERE), "server", "start", "--foreground", "--config", str(config)]
    service = subprocess.Popen(
        [*(["nohup"] if is_ignored else []), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(warm_server.status, 20)
    service.send_signal(signal.SIGHUP)
    if is_ignored:  # a signal that it hears ends it within two looks; a run takes longer than that
        prompt = {"1": {"class_type": "Sleep", "inputs": {"seconds": 1.5}}}
        does = f"assert connector.is_attached; await connector.run_workflow({prompt}, use_workflow_json=False)"
        assert subprocess.run(script_that(does, config, tmp_path), timeout=60).returncode == 0
        assert service.poll() is None
        service.send_signal(signal.SIGTERM)
    assert service.wait(timeout=20) == 0


def test_foreground_server_ends_with_sigterm(cli: Cli, config: Path, wait_for: Any, nested: Any) -> None:
    command = [sys.executable, str(HERE), "server", "start", "--foreground", "--config", str(config)]
    service = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (one,) = wait_for(warm_server.status, 20)
    assert one.server.keeper_pid == service.pid
    service.send_signal(signal.SIGTERM)
    assert service.wait(timeout=20) == 0
    assert not nested.folders()


async def test_proxy_of_the_environment_is_for_other_machines(
    cli: Cli, config: Path, create: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server = await asyncio.to_thread(started, cli, config)
    assert (server["healthy"], server["queue"]) == (True, 0)
    connector = await create()
    assert connector.is_attached
    assert await run(connector, ECHO)


# ---- when it is taken ----


async def test_other_settings_start_a_server_of_their_own(
    cli: Cli, config: Path, create: Any, write_config: Any, fake_tree: Any, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    (tmp_path / "pack.py").write_text("")
    server = await asyncio.to_thread(started, cli, config)
    other = {"CACHE_LRU": 7, "NODE_PACKS": [str(tmp_path / "pack.py")]}
    own = await create(write_config(COMFYUI_PATH=str(fake_tree.path), DEVICE="cpu", **other))
    assert not own.is_attached
    assert own.server_address != server["address"]
    assert f"{server['address']} is not used: it has another CACHE_LRU, NODE_PACKS\n" in caplog.text
    await own.kill_api()
    unwanted = await create(write_config(COMFYUI_PATH=str(fake_tree.path), DEVICE="cpu", USE_WARM_SERVER=False))
    assert not unwanted.is_attached
    await unwanted.kill_api()
    # Settings that are the script's own business change nothing for the server.
    same = await create(write_config(COMFYUI_PATH=str(fake_tree.path), DEVICE="cpu", RUN_TIMEOUT=5.0))
    assert same.server_address == server["address"]


def test_spelling_of_the_interpreter_does_not_matter_but_its_environment_does(
    fake_tree: Any, write_config: Any, tmp_path: Path, no_leaks: None
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name in ("python", "python3"):
            (tmp_path / folder / name).symlink_to(sys.executable)

    def folder_of(interpreter: str) -> Path:
        config = cs.ConnectorConfig.load(write_config(COMFYUI_PATH=str(fake_tree.path), COMFYUI_PYTHON=interpreter))
        return cs.warm_folder(config, cs.choose_server(config))

    one = folder_of(f"{tmp_path}/a/python")
    assert folder_of(f"{tmp_path}/a/python3") == one
    assert folder_of(f"{tmp_path}/b/../a/python") == one
    assert folder_of(f"{tmp_path}/b/python") != one
    one.parent.rmdir()


async def test_visible_gpus_are_settings_too(
    cli: Cli, config: Path, create: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(started, cli, config)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert not (await create()).is_attached


async def test_nested_server_never_uses_a_warm_one(
    cli: Cli, config: Path, create: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be that very server: a node that queued a prompt on it would wait for itself."""
    await asyncio.to_thread(started, cli, config)
    monkeypatch.setenv("DISCOMFORT_NESTED", "1")
    assert not (await create()).is_attached


async def test_changed_custom_node_is_not_served_stale(
    cli: Cli, config: Path, create: Any, fake_tree: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pack = fake_tree.path / "custom_nodes" / "my_pack"
    (pack / "examples").mkdir(parents=True)
    (pack / "nodes.py").write_text("A = 1\n")
    old = await asyncio.to_thread(started, cli, config)
    # A user's script, also one that lies in the tree, is no code of the server.
    (fake_tree.path / "my_script.py").write_text("B = 1\n")
    (pack / "examples" / "script.py").write_text("B = 1\n")
    connector = await create()
    assert connector.server_address == old["address"]
    (pack / "nodes.py").write_text("A = 2  # and more\n")
    refused = await asyncio.to_thread(cli, "start", "--config", str(config))
    assert refused.returncode == 1
    assert f"is in use by process {os.getpid()}" in refused.stderr
    await connector.kill_api()
    own = await create()
    assert not own.is_attached
    assert "Renew it with: python -m discomfort server start" in caplog.text
    await own.kill_api()
    renewed = await asyncio.to_thread(cli, "start", "--config", str(config))
    assert "it is renewed" in renewed.stdout
    assert (await create()).is_attached


@pytest.mark.parametrize("path", ["comfy/model.py", "nodes.py", "custom_nodes/one.py", "custom_nodes/pack/deep/er.py"])
def test_state_of_the_code_sees(path: str, fake_tree: Any, config: Path) -> None:
    choice = cs.choose_server(cs.ConnectorConfig.load(config))
    before = cs.code_state(choice)
    assert cs.code_state(choice) == before
    file = fake_tree.path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("A = 1\n")
    added = cs.code_state(choice)
    assert added != before
    os.utime(file, (1, 1))
    touched = cs.code_state(choice)
    assert touched != added
    file.unlink()
    assert cs.code_state(choice) == before


def test_state_of_the_code_follows_links_to_packs(fake_tree: Any, config: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (fake_tree.path / "custom_nodes").mkdir()
    (fake_tree.path / "custom_nodes" / "linked").symlink_to(tmp_path / "elsewhere")
    choice = cs.choose_server(cs.ConnectorConfig.load(config))
    before = cs.code_state(choice)
    (tmp_path / "elsewhere" / "nodes.py").write_text("A = 1\n")
    assert cs.code_state(choice) != before


def config_with_packs(config: Path) -> list[Path]:
    """Give a configuration two packs, which lie beside it; returns their files."""
    (config.parent / "pack").mkdir()
    code = [config.parent / "pack" / "__init__.py", config.parent / "single.py"]
    for file in code:
        file.write_text("A = 1\n")
    config.write_text(json.dumps({**json.loads(config.read_text()), "NODE_PACKS": ["pack", "single.py"]}))
    return code


async def test_warm_server_with_packs_is_used_until_one_of_them_changes(
    cli: Cli, config: Path, create: Any, caplog: pytest.LogCaptureFixture
) -> None:
    code = config_with_packs(config)
    server = await asyncio.to_thread(started, cli, config)
    for file in code:
        used = await create()
        assert used.server_address == server["address"]
        await used.kill_api()
        file.write_text("A = 1234\n")
        own = await create()
        assert not own.is_attached
        assert "that of a custom node, was changed" in caplog.text
        await own.kill_api()
        caplog.clear()
        server = await asyncio.to_thread(started, cli, config)


# ---- who uses it ----


def test_server_in_use_is_stopped_by_force_alone(
    cli: Cli, config: Path, tmp_path: Path, wait_for: Any, fake_tree: Any
) -> None:
    server = started(cli, config)
    command = script_that(f"print(await connector.run_workflow({SLEEP}, use_workflow_json=False))", config, tmp_path)
    script = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: fake_tree.requests("/prompt"))
    status = cli("status").stdout
    assert f"used by process {script.pid} ({Path(sys.executable).name} {command[1]}"[:60] in status
    assert "1 prompt in its queue" in status
    refused = cli("stop", "--config", str(config))
    assert refused.returncode == 1
    assert f"is in use by process {script.pid}" in refused.stderr
    assert refused.stderr.endswith(f" Stop it all the same with: python {HERE} server stop --config {config} --force\n")
    assert not is_gone(server["pid"])
    assert cli("stop", "--config", str(config), "--force").returncode == 0
    _, error = script.communicate(timeout=30)
    assert "ServerDiedError" in error
    assert f"The warm ComfyUI server at {server['address']} has ended" in error
    assert "It was executing Sleep #1." in error


def test_unused_server_ends_by_itself(cli: Cli, config: Path, wait_for: Any, nested: Any) -> None:
    server = started(cli, config, "--idle-timeout", "0.5")
    wait_for(lambda: is_gone(server["keeper_pid"]), 15, "the end of the keeper")
    assert is_gone(server["pid"])
    assert not nested.folders()


async def test_used_server_does_not_end_by_itself(cli: Cli, config: Path, create: Any, wait_for: Any) -> None:
    server = await asyncio.to_thread(started, cli, config, "--idle-timeout", "1")
    connector = await create()
    used = Path(server["folder"]) / "used"
    seen = used.stat().st_mtime
    # Twice its time-out goes by while the connector does nothing but exist.
    await asyncio.to_thread(wait_for, lambda: used.stat().st_mtime > seen + 2, 15)
    assert await run(connector, ECHO)
    assert warm_server.leases(Path(server["folder"])) == [os.getpid()]
    await connector.kill_api()
    await asyncio.to_thread(wait_for, lambda: is_gone(server["keeper_pid"]), 15, "the end")


async def test_prompts_of_strangers_are_use_too(cli: Cli, config: Path, wait_for: Any) -> None:
    """Somebody may have opened the server in a browser: nothing of ours knows of it but its queue."""
    import aiohttp

    server = await asyncio.to_thread(started, cli, config, "--idle-timeout", "0.6")
    async with aiohttp.ClientSession(server["address"]) as browser:
        prompt = {"1": {"class_type": "Sleep", "inputs": {"seconds": 2.5}}}
        await browser.post("/prompt", json={"prompt": prompt, "prompt_id": "theirs", "client_id": "them"})
        while True:
            queue = await (await browser.get("/queue")).json()  # as long as it runs, the server is there
            if not queue["queue_running"] and not queue["queue_pending"]:
                break
            await asyncio.sleep(0.1)
    await asyncio.to_thread(wait_for, lambda: is_gone(server["keeper_pid"]), 15, "the end")


async def test_server_that_is_too_busy_to_answer_is_not_unused_at_once(cli: Cli, config: Path, wait_for: Any) -> None:
    """A stranger's node may hold the interpreter; one that hangs for good ends all the same."""
    server = await asyncio.to_thread(started, cli, config, "--idle-timeout", "3.5")
    os.kill(server["pid"], signal.SIGSTOP)
    began = time.monotonic()
    await asyncio.to_thread(wait_for, lambda: is_gone(server["keeper_pid"]), 20, "the end")
    assert time.monotonic() - began > 7.3  # its time-out twice; at the first it is over after 6.5


def test_lease_of_a_killed_script_ends_with_it(cli: Cli, config: Path, tmp_path: Path, wait_for: Any) -> None:
    server = started(cli, config)
    folder = Path(server["folder"])
    script = subprocess.Popen(script_that("await asyncio.sleep(60)", config, tmp_path))
    wait_for(lambda: warm_server.leases(folder) == [script.pid])
    script.kill()
    script.wait()
    wait_for(lambda: warm_server.leases(folder) == [], 10, "the end of the lease")
    assert not list((folder / "leases").iterdir())


async def test_prompts_of_a_killed_script_are_taken_back_and_no_others(
    cli: Cli, config: Path, create: Any, tmp_path: Path, wait_for: Any, fake_tree: Any
) -> None:
    import aiohttp

    server = await asyncio.to_thread(started, cli, config)
    connector = await create()
    command = script_that(
        f"await asyncio.gather(*(connector.run_workflow({SLEEP}, use_workflow_json=False) for _ in range(3)))",
        config,
        tmp_path,
    )
    script = await asyncio.to_thread(subprocess.Popen, command)
    await asyncio.to_thread(wait_for, lambda: len(fake_tree.requests("/prompt")) == 3)
    mine = asyncio.create_task(run(connector, ECHO))
    await asyncio.to_thread(wait_for, lambda: len(fake_tree.requests("/prompt")) == 4)
    script.kill()
    script.wait()
    assert await asyncio.wait_for(mine, 15) == {"1": {"text": ["hello"]}}  # not after 90 seconds
    # Nor does the history grow.
    async with aiohttp.ClientSession(server["address"]) as browser:
        deadline = time.monotonic() + 10
        while await (await browser.get("/history")).json():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_create_that_is_cancelled_gives_its_lease_back(cli: Cli, config: Path, create: Any) -> None:
    """At any moment, also while the lease is being taken in a thread."""
    server = await asyncio.to_thread(started, cli, config)
    leased = 0
    for step in range(40):
        creating = asyncio.create_task(create())
        await asyncio.sleep(step * 0.001)
        creating.cancel()
        await asyncio.gather(creating, return_exceptions=True)
        connector = cs._process_state().connector
        if connector is not None and connector.state == "ready":  # it was quicker, and is used from now on
            await connector.kill_api()
            leased += 1
        assert not list((Path(server["folder"]) / "leases").iterdir()), f"cancelled after {step} ms"
    assert leased < 40
    assert (await create()).is_attached


# ---- faults ----


async def test_killed_keeper_takes_its_server_along_and_the_next_script_starts_its_own(
    cli: Cli, config: Path, create: Any, wait_for: Any, fake_tree: Any
) -> None:
    server = await asyncio.to_thread(started, cli, config)
    connector = await create()
    os.kill(server["keeper_pid"], signal.SIGKILL)
    await asyncio.to_thread(wait_for, lambda: is_gone(server["pid"]), 5, "the end of the server")
    assert await run(connector, ECHO)  # at once, with a server of its own
    assert not connector.is_attached
    assert len(fake_tree.starts()) == 2
    assert await asyncio.to_thread(started, cli, config)


async def test_killed_server_is_started_again_by_its_keeper(
    cli: Cli, config: Path, create: Any, wait_for: Any, fake_tree: Any
) -> None:
    server = await asyncio.to_thread(started, cli, config)
    connector = await create()
    running = asyncio.create_task(run(connector, SLEEP))
    await asyncio.to_thread(wait_for, lambda: fake_tree.requests("/prompt"))
    os.kill(server["pid"], signal.SIGKILL)
    with pytest.raises(cs.ServerDiedError, match=r"warm ComfyUI server at .* has ended.*It was executing Sleep #1"):
        await running

    def successor() -> Any:
        return [one for one in warm_server.status() if one.server.pid != server["pid"]]

    await asyncio.to_thread(wait_for, successor, 15, "the restarted server")
    assert await run(connector, ECHO)
    assert connector.state == "ready"
    assert not is_gone(server["keeper_pid"])
    # A script that comes after the restart is served by it.
    await connector.kill_api()
    assert (await create()).is_attached


def test_keeper_gives_up_on_a_server_that_does_not_start_again(
    cli: Cli, config: Path, wait_for: Any, fake_tree: Any, nested: Any
) -> None:
    server = started(cli, config)
    fake_tree.behave(start="exit")
    os.kill(server["pid"], signal.SIGKILL)
    wait_for(lambda: is_gone(server["keeper_pid"]), 20, "the end of the keeper")
    assert len(fake_tree.starts()) == 4
    assert not nested.folders()


async def test_hung_server_is_not_used_and_can_be_renewed(
    cli: Cli, config: Path, create: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cs, "_HEALTH_PATIENCE", 0.3)
    server = await asyncio.to_thread(started, cli, config)
    os.kill(server["pid"], signal.SIGSTOP)
    connector = await create()
    assert not connector.is_attached
    assert "does not answer; a server of our own is started" in caplog.text
    status = await asyncio.to_thread(cli, "status")
    assert "DOES NOT ANSWER" in status.stdout
    assert status.returncode == 4
    assert (await asyncio.to_thread(cli, "status", "--json")).returncode == 4
    renewed = await asyncio.to_thread(cli, "start", "--config", str(config))
    assert "The one that runs does not answer: it is renewed." in renewed.stdout
    assert is_gone(server["pid"])


async def test_server_that_answers_nonsense_is_not_used(
    cli: Cli, config: Path, create: Any, fake_tree: Any, tmp_path: Path
) -> None:
    await asyncio.to_thread(started, cli, config)
    fake_tree.behave(start="nonsense")
    with pytest.raises(cs.ServerStartError, match="START_TIMEOUT"):  # which its own, of the same tree, does as well
        await create(dataclasses.replace(cs.ConnectorConfig.load(config), START_TIMEOUT=1.0))


@pytest.mark.parametrize("content", ["{", '{"protocol": 99}', '{"protocol": 1}'])
async def test_damaged_publication_is_no_server(
    cli: Cli, config: Path, create: Any, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = await asyncio.to_thread(started, cli, config)
    (Path(server["folder"]) / "server.json").write_text(content)
    with caplog.at_level(logging.WARNING):
        assert not (await create()).is_attached
    os.kill(server["keeper_pid"], signal.SIGTERM)  # not found by the clean-up either
    await asyncio.to_thread(psutil.wait_procs, [psutil.Process(server["keeper_pid"])], 10)


async def test_reused_pid_is_not_taken_for_the_server(cli: Cli, config: Path) -> None:
    server = await asyncio.to_thread(started, cli, config)
    published = cs.WarmServer.read(Path(server["folder"]))
    assert published is not None
    assert published.is_alive
    values = {field: getattr(published, field) for field in published.__dataclass_fields__}
    assert not cs.WarmServer(**{**values, "began": published.began - 100}).is_alive
    assert not cs.WarmServer(**{**values, "pid": 2**22 + 1}).is_alive


# ---- values ----


BOTH = ["embedded", pytest.param("real", marks=pytest.mark.real_comfyui)]


@pytest.mark.parametrize("kind", BOTH)
def test_what_one_script_computed_is_cached_for_the_next(
    kind: str, cli: Cli, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Contexts, ports and cache work with a warm server as with one's own; two scripts of one workflow compute once."""
    config = request.getfixturevalue("embedded_config" if kind == "embedded" else "real_config")
    started(cli, config)
    file = tmp_path / "script.py"
    file.write_text(
        "import asyncio, sys, torch\n"
        "from discomfort import Discomfort\n"
        "async def main():\n"
        "    async with await Discomfort.create(sys.argv[1]) as d:\n"
        "        assert d.Worker.is_attached\n"
        "        cached = []\n"
        "        def note(event):\n"
        "            if event.type == 'execution_cached':\n"
        "                cached.extend(event.data['nodes'])\n"
        "        d.Worker._events.subscribe(note)\n"
        "        result = await d.run([sys.argv[2]], inputs={'image': torch.full((1, 8, 8, 3), 0.25), 'amount': 0.5})\n"
        "        print(round(float(result['image'].mean()), 3), len(cached))\n"
        "asyncio.run(main())\n"
    )
    workflow = HERE / "tests" / "workflows" / "loop_image.json"
    command = [sys.executable, str(file), str(config), str(workflow)]
    answers = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        answers.append(done.stdout.splitlines()[-1].split())
    assert answers[0][0] == answers[1][0] == "0.75"
    assert (answers[0][1], int(answers[1][1]) > 0) == ("0", True)
