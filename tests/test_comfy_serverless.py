"""The parts of comfy_serverless.py that need no server: configuration, choice of the server, files, messages, texts."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from discomfort.comfy_serverless import ConnectorConfig

from discomfort import comfy_serverless as cs

HERE = Path(cs.__file__).resolve().parent


# ---- configuration ----


def test_defaults_are_the_seed_references() -> None:
    config = ConnectorConfig.load()
    assert config == ConnectorConfig.load(HERE / "comfy_serverless.json")
    assert {
        "API_COMMAND_LINE": "python3 main.py",
        "API_WORKING_DIRECTORY": "./",
        "API_URL": "127.0.0.1",
        "INITIAL_PORT": 8188,
        "TEST_PAYLOAD_FILE": "test_server.json",
        "MAX_COMFY_START_ATTEMPTS": 10,
        "COMFY_START_ATTEMPTS_SLEEP": 1.0,
        "COMFYUI_PATH": "./",
    }.items() <= vars(config).items()


def test_key_that_is_left_out_keeps_its_default(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"INITIAL_PORT": 9000, "_comment": "keys that start with _ are comments"}')
    config = ConnectorConfig.load(file)
    assert config.INITIAL_PORT == 9000
    assert config.START_TIMEOUT == ConnectorConfig().START_TIMEOUT
    assert config.base_folder == tmp_path


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, ["does not exist", "Name none to use the defaults"]),
        ("{", ["is not valid JSON", "line 1"]),
        ("[]", ["must hold a JSON object, not list"]),
        (b"\xff\xfe\x00", ["is not valid JSON"]),
        ('{"PORT": 1}', ["unknown key 'PORT'", "Allowed keys: API_COMMAND_LINE,"]),
        ('{"INITIAL_PORT": "8188"}', ["INITIAL_PORT is '8188'", "a whole number", "default 8188"]),
        ('{"INITIAL_PORT": true}', ["INITIAL_PORT is True", "a whole number"]),
        ('{"INITIAL_PORT": 8188.5}', ["INITIAL_PORT is 8188.5", "a whole number"]),
        ('{"INITIAL_PORT": 0}', ["INITIAL_PORT is 0", "at least 1"]),
        ('{"INITIAL_PORT": 70000}', ["INITIAL_PORT is 70000", "at most 65535"]),
        ('{"API_COMMAND_LINE": null}', ["API_COMMAND_LINE is None", "a text"]),
        ('{"STORE_CONVERSIONS": 1}', ["STORE_CONVERSIONS is 1", "true or false"]),
        ('{"START_TIMEOUT": true}', ["START_TIMEOUT is True", "a number"]),
        ('{"START_TIMEOUT": 0}', ["START_TIMEOUT is 0.0", "at least 1"]),
        ('{"START_TIMEOUT": NaN}', ["START_TIMEOUT is nan", "a finite number"]),
        ('{"RUN_TIMEOUT": Infinity}', ["RUN_TIMEOUT is inf", "a finite number"]),
        ('{"RUN_TIMEOUT": -1}', ["RUN_TIMEOUT is -1", "at least 0"]),
        ('{"DEVICE": "cuda"}', ["DEVICE is 'cuda'", "'auto', 'cpu', 'gpu'"]),
        ('{"API_URL": "127.0.0.1:81880"}', ["API_URL is '127.0.0.1:81880'", "no number from 1 to 65535"]),
        ('{"API_URL": "ftp://host:21"}', ["API_URL is 'ftp://host:21'", "only http and https"]),
        ('{"API_URL": "http://host:1/?a=b"}', ["API_URL is 'http://host:1/?a=b'", "no address"]),
        ('{"API_URL": ""}', ["API_URL is ''", "a host name or an IP address"]),
        ('{"API_TOKEN": "two words"}', ["API_TOKEN has a space"]),
        ('{"API_TOKEN": 123}', ["API_TOKEN is set", "a text"]),
        ('{"NODE_PACKS": "my_nodes"}', ["NODE_PACKS is 'my_nodes'", "a list of texts", "default []"]),
        ('{"NODE_PACKS": [1]}', ["NODE_PACKS is [1]", "a list of texts"]),
        ('{"NODE_PACKS": [""]}', ["NODE_PACKS is ['']", "a list of texts"]),
    ],
)
def test_bad_configuration_names_file_key_value_and_what_is_allowed(
    tmp_path: Path, content: str | bytes | None, says: list[str]
) -> None:
    file = tmp_path / "config.json"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(cs.ConfigError) as caught:
        ConnectorConfig.load(file)
    assert isinstance(caught.value, ValueError)
    for text in [str(file), *says]:
        assert text in str(caught.value)


def test_folder_given_as_configuration_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(cs.ConfigError, match="cannot be read"):
        ConnectorConfig.load(tmp_path)


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        ("http://127.0.0.1/", "127.0.0.1"),
        ("HTTP://127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "[::1]"),
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
    ],
)
def test_host_of_addresses(given: str, host: str) -> None:
    config = ConnectorConfig.from_values({"API_URL": given})
    assert (config.host, config.attached_url) == (host, "")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("127.0.0.1:8188", "http://127.0.0.1:8188"),
        (" localhost:8188/ ", "http://localhost:8188"),
        ("http://gpu-box:8188/", "http://gpu-box:8188"),
        ("0.0.0.0:8188", "http://127.0.0.1:8188"),
        ("[::1]:8188", "http://[::1]:8188"),
        ("https://pod.example.com", "https://pod.example.com"),
        ("https://example.com/comfy/", "https://example.com/comfy"),
        # as browsers write them
        ("http://example.com:80", "http://example.com"),
        ("https://Example.com:443/Comfy", "https://example.com/Comfy"),
        ("http://[0:0:0:0:0:0:0:1]:8188", "http://[::1]:8188"),
    ],
)
def test_addresses_of_servers_that_run_already(given: str, url: str) -> None:
    assert ConnectorConfig.from_values({"API_URL": given}).attached_url == url


def test_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(cs.ConfigError, match="API_TOKEN") as caught:
        ConnectorConfig.from_values({"API_URL": "https://me:hunter2@host"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "message", "expected"),
    [
        ("torch.OutOfMemoryError", "Allocation on device ", True),
        ("torch.cuda.OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB", True),
        ("MemoryError", "", True),
        ("numpy._core._exceptions._ArrayMemoryError", "Unable to allocate 74.5 GiB for an array", True),
        ("RuntimeError", "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory", True),
        ("RuntimeError", "MPS backend out of memory (MPS allocated: 17.00 GB)", True),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("torch.AcceleratorError", "CUDA error: out of memory", True),
        ("OSError", "[Errno 12] Cannot allocate memory", True),
        ("RuntimeError", "mat1 and mat2 shapes cannot be multiplied", False),
        ("ValueError", "the word memory: out of memory", False),
        ("KeyError", "'memory'", False),
    ],
)
def test_out_of_memory_is_recognised(kind: str, message: str, expected: bool) -> None:
    assert cs.is_out_of_memory(kind, message) is expected


def judged(kind: str, message: str) -> cs.ConnectorError:
    data = {"node_id": "7", "node_type": "KSampler", "exception_type": kind, "exception_message": message + "\n"}
    entry = {"status": {"status_str": "error", "messages": [["execution_error", data]]}}
    prompt = {"7": {"class_type": "KSampler", "inputs": {}, "_meta": {"title": "the big one"}}}
    with pytest.raises(cs.ConnectorError) as caught:
        cs.ComfyConnector._judge(SimpleNamespace(), "some-prompt", entry, prompt)  # type: ignore[arg-type]
    return caught.value


def test_out_of_memory_is_its_own_error_with_the_data_of_the_node() -> None:
    error = judged("torch.OutOfMemoryError", "Allocation on device")
    assert type(error) is cs.OutOfMemoryError
    assert (error.prompt_id, error.node_id, error.class_type, error.title) == (
        "some-prompt", "7", "KSampler", "the big one",
    )  # fmt: skip
    assert str(error).startswith("Node KSampler #7 ('the big one') failed: torch.OutOfMemoryError")
    assert type(judged("ValueError", "no")) is cs.NodeExecutionError


def errors() -> list[cs.ConnectorError]:
    """One of each kind, with all its data."""
    log_path = Path("server.log")
    made: list[cs.ConnectorError] = [
        kind("a sentence")
        for kind in (
            cs.ConnectorError, cs.ConfigError, cs.ServerNotFoundError, cs.NotOurServerError, cs.BrowserError,
            cs.ConversionError, cs.ConversionTimeoutError, cs.PromptInterruptedError, cs.RunTimeoutError,
        )
    ]  # fmt: skip
    made.append(cs.ServerStartError("It ended.", ["python3", "main.py"], 1, ["boom"], log_path))
    made.append(cs.ServerDiedError("It died.", ["boom"], -9, out_of_memory=True))
    made.append(cs.UnknownNodeError("Unknown.", {"3": "Nowhere"}))
    made.append(cs.PromptRejectedError("No.", {"type": "x"}, {"3": {"class_type": "Y", "errors": []}}))
    made.append(judged("ValueError", "no"))
    made.append(judged("MemoryError", ""))
    for error in made:
        error.prompt_id, error.node_id, error.class_type, error.title = "p", "3", "KSampler", "t"
    return made


@pytest.mark.parametrize("error", errors(), ids=lambda error: type(error).__name__)
def test_errors_survive_pickling_with_all_their_data(error: cs.ConnectorError) -> None:
    """They cross process borders: a pool of workers, each with a server."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_every_error_is_in_the_tree_of_the_module_docstring() -> None:
    kinds = {k for k, v in vars(cs).items() if isinstance(v, type) and issubclass(v, cs.ConnectorError)}
    assert cs.__doc__ is not None
    tree = cs.__doc__.partition("Error tree::")[2]
    assert {kind for kind in kinds if kind not in tree} == set()
    assert {type(error).__name__ for error in errors()} == kinds


def test_token_is_never_shown() -> None:
    config = ConnectorConfig.from_values({"API_TOKEN": "s3cret"})
    assert config.token == "s3cret"
    assert "s3cret" not in repr(config)
    with pytest.raises(cs.ConfigError) as caught:
        ConnectorConfig.from_values({"API_TOKEN": "s3cret word"})
    assert "s3cret" not in str(caught.value)


def test_every_key_has_a_help_text() -> None:
    import dataclasses

    fields, keys = {f.name: f for f in dataclasses.fields(ConnectorConfig)}, ConnectorConfig.keys()
    assert all(fields[key].metadata["help"].endswith(".") for key in keys)
    assert "base_folder" not in keys


# ---- which server ----


def make_tree(folder: Path, *more: str) -> Path:
    for name in ("main.py", "comfy/cli_args.py", *more):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('add("--port") add("--cache-lru") add("--cpu") add("--database-url")')
    return folder


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No COMFYUI_PATH, an empty home and an empty current directory."""
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.delenv("COMFYUI_PYTHON", raising=False)
    (tmp_path / "home").mkdir()
    (tmp_path / "cwd").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "cwd")
    # The clone itself may lie in a ComfyUI.
    monkeypatch.setattr(cs, "HERE", tmp_path / "alone" / "discomfort")
    return tmp_path


def choose(**keys: Any) -> cs.ServerChoice:
    return cs.choose_server(ConnectorConfig.from_values(keys, base_folder=Path.cwd()))


def comfy_cli_says(home: Path, workspace: Path) -> None:
    folder = home / ".config" / "comfy-cli"
    folder.mkdir(parents=True)
    (folder / "config.ini").write_text(f"[DEFAULT]\ndefault_workspace = {workspace}\nenable_tracking = False\n")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="comfy-cli keeps its file elsewhere")
def test_search_takes_the_documented_order(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(**keys: Any) -> tuple[str, str]:
        choice = choose(**keys)
        return choice.path.name, choice.reason

    comfy_cli_says(clean / "home", make_tree(clean / "workspace"))
    assert chosen() == ("workspace", "it is comfy-cli's default workspace")
    make_tree(clean / "cwd")
    assert chosen() == ("cwd", "it is the current directory")
    pack = make_tree(clean / "around") / "custom_nodes" / "discomfort"
    monkeypatch.setattr(cs, "HERE", pack)
    assert chosen() == ("around", "this package lies in it")
    monkeypatch.setenv("COMFYUI_PATH", str(make_tree(clean / "environment")))
    assert chosen() == ("environment", "the environment variable COMFYUI_PATH names it")
    make_tree(clean / "configured")
    assert chosen(API_WORKING_DIRECTORY=str(clean / "configured"))[0] == "configured"
    assert chosen(COMFYUI_PATH=str(clean / "configured")) == (
        "configured",
        "COMFYUI_PATH in the configuration names it",
    )


def test_without_any_comfyui_it_is_the_embedded_server(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cs, "HERE", HERE)
    monkeypatch.setattr(cs, "is_comfyui_tree", lambda path: False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)  # PyTorch is there
    choice = choose()
    assert choice.kind == "embedded"
    assert choice.command == (sys.executable, str(HERE / "embedded"))
    assert "COMFYUI_PATH is not set" in choice.reason
    monkeypatch.setenv("COMFYUI_PATH", "embedded")
    assert choose().reason == "the environment variable COMFYUI_PATH says so"
    assert choose(COMFYUI_PATH="embedded").reason == "COMFYUI_PATH in the configuration says so"


def test_without_comfyui_and_torch_it_says_what_to_do(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cs, "HERE", HERE)
    monkeypatch.setattr(cs, "is_comfyui_tree", lambda path: False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(cs.ServerNotFoundError, match=r"needs PyTorch.*pip install torch"):
        choose()


def test_copied_alone_without_comfyui_it_says_what_to_do(clean: Path) -> None:
    with pytest.raises(cs.ServerNotFoundError, match=r"Set COMFYUI_PATH to the folder that contains ComfyUI's main.py"):
        choose()


@pytest.mark.parametrize("where", ["COMFYUI_PATH", "API_WORKING_DIRECTORY", "environment"])
@pytest.mark.parametrize("what", ["does not exist", "holds no ComfyUI"])
def test_named_place_without_comfyui_is_an_error_never_skipped(
    clean: Path, monkeypatch: pytest.MonkeyPatch, where: str, what: str
) -> None:
    make_tree(clean / "cwd")
    place = clean / "empty"
    if what == "holds no ComfyUI":
        place.mkdir()
        (place / "main.py").touch()  # main.py alone is any program
    keys = {where: str(place)} if where != "environment" else {}
    if where == "environment":
        monkeypatch.setenv("COMFYUI_PATH", str(place))
    with pytest.raises(cs.ServerNotFoundError) as caught:
        choose(**keys)
    for text in (f"No ComfyUI at {place}", what, "It was named by", "'embedded'"):
        assert text in str(caught.value)


def test_relative_paths_are_relative_to_the_configuration_file(clean: Path) -> None:
    make_tree(clean / "project" / "ComfyUI")
    (clean / "project" / "config.json").write_text('{"COMFYUI_PATH": "ComfyUI", "LOG_FILE": "server.log"}')
    config = ConnectorConfig.load(clean / "project" / "config.json")
    choice = cs.choose_server(config)
    assert choice.path == clean / "project" / "ComfyUI"
    process = cs.ServerProcess(choice, config, SimpleNamespace(path=clean / "run"), 1, True)  # type: ignore[arg-type]
    assert process.log_path == clean / "project" / "server.log"


def test_relative_environment_variable_is_relative_to_the_current_directory(
    clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(clean / "cwd" / "ComfyUI")
    monkeypatch.setenv("COMFYUI_PATH", "ComfyUI")
    assert choose().path == clean / "cwd" / "ComfyUI"
    monkeypatch.setenv("COMFYUI_PATH", "~/ComfyUI")
    make_tree(clean / "home" / "ComfyUI")
    assert choose().path == clean / "home" / "ComfyUI"


def test_working_directory(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make_tree(clean / "cwd" / "ComfyUI")
    # It names the tree: the server runs in it.
    choice = choose(API_WORKING_DIRECTORY="ComfyUI")
    assert (choice.path, choice.working_directory, choice.command[-1]) == (tree, tree, "main.py")
    # It is another folder than the tree: main.py is still found.
    (tree / "elsewhere").mkdir()
    choice = choose(COMFYUI_PATH=str(tree), API_WORKING_DIRECTORY="elsewhere")
    assert choice.working_directory == tree / "elsewhere"
    assert choice.command[-1] == str(tree / "main.py")
    monkeypatch.setenv("COMFYUI_PATH", str(tree))
    assert choose(API_WORKING_DIRECTORY=str(clean)).working_directory == clean
    with pytest.raises(cs.ConfigError, match="API_WORKING_DIRECTORY is 'nowhere': there is no folder"):
        choose(COMFYUI_PATH=str(tree), API_WORKING_DIRECTORY="nowhere")


def test_interpreter(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make_tree(clean / "tree")

    def interpreter(**keys: Any) -> str:
        return choose(COMFYUI_PATH=str(tree), **keys).command[0]

    assert interpreter() == sys.executable
    make_tree(tree, ".venv/bin/python")
    assert interpreter() == str(tree / ".venv/bin/python")
    make_tree(tree, "venv/bin/python")
    assert interpreter() == str(tree / "venv/bin/python")
    monkeypatch.setattr(cs, "HERE", tree / "custom_nodes" / "discomfort")
    assert interpreter() == sys.executable  # a node in that ComfyUI: it runs in the right one
    monkeypatch.setenv("COMFYUI_PYTHON", sys.executable)
    assert interpreter() == sys.executable
    assert interpreter(API_COMMAND_LINE="/opt/python main.py") == "/opt/python"
    with pytest.raises(cs.ConfigError, match="COMFYUI_PYTHON is '/no/python'"):
        interpreter(COMFYUI_PYTHON="/no/python")


@pytest.mark.parametrize(
    ("line", "command", "arguments"),
    [
        ("python3 main.py", ["main.py"], []),
        ("python -s main.py --lowvram --port 9000", ["-s", "main.py"], ["--lowvram", "--port", "9000"]),
        ("python3 'my main.py' --verbose", ["my main.py"], ["--verbose"]),
        ("comfy-start --lowvram", [], ["--lowvram"]),
    ],
)
def test_command_line_is_split(clean: Path, line: str, command: list[str], arguments: list[str]) -> None:
    choice = choose(COMFYUI_PATH=str(make_tree(clean / "tree")), API_COMMAND_LINE=line)
    assert list(choice.command[1:]) == command
    assert list(choice.extra_args) == arguments


@pytest.mark.parametrize(("line", "says"), [("", "is empty"), ("python3 'main.py", "No closing quotation")])
def test_bad_command_line(clean: Path, line: str, says: str) -> None:
    with pytest.raises(cs.ConfigError, match=f"API_COMMAND_LINE.*{says}"):
        choose(COMFYUI_PATH=str(make_tree(clean / "tree")), API_COMMAND_LINE=line)


def command(tree: Path, line: str = "python3 main.py", cpu: bool = False, **keys: Any) -> list[str]:
    """The arguments that the connector adds."""
    config = ConnectorConfig.from_values({"COMFYUI_PATH": str(tree), "API_COMMAND_LINE": line, **keys})
    folder = SimpleNamespace(path=tree.parent / "run", log_path=tree.parent / "run" / "server.log")
    return cs.ServerProcess(cs.choose_server(config), config, folder, 8200, cpu).command  # type: ignore[arg-type]


def test_nested_server_has_its_own_temp_folder_and_database(clean: Path) -> None:
    run = str(clean / "run")
    assert command(make_tree(clean / "tree"))[2:] == [
        "--port", "8200", "--temp-directory", run, "--database-url", f"sqlite:///{run}/comfyui.db",
        "--cache-lru", "1000",
    ]  # fmt: skip
    assert command(clean / "tree", cpu=True)[-1] == "--cpu"


def test_given_arguments_win_but_the_temp_folder_is_always_ours(clean: Path) -> None:
    words = command(
        make_tree(clean / "tree"), "python3 main.py --port=1 --cache-none --cpu --temp-directory /users/own", cpu=True
    )
    assert words.count("--cpu") == 1
    assert "--cache-lru" not in words
    assert "8200" not in words
    assert words.index("/users/own") < words.index(str(clean / "run"))  # the last one counts
    assert "--cache-lru" not in command(clean / "tree", CACHE_LRU=0)


def test_flags_that_the_tree_does_not_know_are_left_out(clean: Path) -> None:
    tree = make_tree(clean / "tree")
    (tree / "comfy" / "cli_args.py").write_text('"--port"')
    assert command(tree)[2:] == ["--port", "8200", "--temp-directory", str(clean / "run")]


def test_own_package_is_announced_without_touching_the_tree(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make_tree(clean / "tree", "custom_nodes/other/__init__.py")
    (clean / "run" / "packs").mkdir(parents=True)
    monkeypatch.setattr(cs, "HERE", HERE)
    words = command(tree)
    file = Path(words[words.index("--extra-model-paths-config") + 1])
    said = json.loads(file.read_text())["discomfort"]
    assert (Path(said["base_path"]) / said["custom_nodes"] / "discomfort").resolve() == HERE
    assert os.listdir(tree / "custom_nodes") == ["other"]
    # A tree that holds the package, under any name, needs no telling.
    (tree / "custom_nodes" / "my-discomfort").symlink_to(HERE)
    assert "--extra-model-paths-config" not in command(tree)


def test_own_package_is_loaded_although_all_others_are_disabled(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make_tree(clean / "tree")
    (tree / "comfy" / "cli_args.py").write_text('"--port" "--whitelist-custom-nodes"')
    (clean / "run" / "packs").mkdir(parents=True)
    monkeypatch.setattr(cs, "HERE", HERE)
    line = "python3 main.py --disable-all-custom-nodes"
    assert command(tree, line)[-2:] == ["--whitelist-custom-nodes", "discomfort"]
    assert command(tree, f"{line} --whitelist-custom-nodes other").count("--whitelist-custom-nodes") == 1
    assert "--whitelist-custom-nodes" not in command(tree)
    (tree / "custom_nodes").mkdir()
    (tree / "custom_nodes" / "my-discomfort").symlink_to(HERE)
    assert command(tree, line)[-2:] == ["--whitelist-custom-nodes", "my-discomfort"]


def make_pack(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
    return path


def test_paths_of_node_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = make_pack(tmp_path / "config" / "pack")
    single = tmp_path / "home" / "single.py"
    single.parent.mkdir()
    single.write_text("")
    monkeypatch.setenv("HOME", str(single.parent))
    file = tmp_path / "config" / "config.json"
    # A path that stands there twice is one pack; the package itself is loaded anyway.
    file.write_text(json.dumps({"NODE_PACKS": ["pack", "~/single.py", "../config/pack/.", str(HERE)]}))
    assert ConnectorConfig.load(file).node_packs() == (pack, single)
    monkeypatch.chdir(tmp_path)
    assert ConnectorConfig(NODE_PACKS=[pack], base_folder=Path()).node_packs() == (pack,)
    assert ConnectorConfig(NODE_PACKS=["config/pack"], base_folder=Path()).node_packs() == (pack,)
    assert ConnectorConfig().node_packs() == ()
    with pytest.raises(cs.ConfigError, match="NODE_PACKS is 'config/pack', it must be a list"):
        ConnectorConfig(NODE_PACKS="config/pack")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nowhere", "does not exist"),
        ("empty", "has no __init__.py"),
        ("text.txt", "is a file, but not a .py file"),
        ("off.disabled", "is named as what ComfyUI does not load"),
    ],
)
def test_path_without_a_pack_is_named(clean: Path, name: str, problem: str) -> None:
    (clean / "empty").mkdir()
    (clean / "text.txt").write_text("")
    make_pack(clean / "off.disabled")
    config = ConnectorConfig.from_values(
        {"COMFYUI_PATH": str(make_tree(clean / "tree")), "NODE_PACKS": [name]}, base_folder=clean
    )
    with pytest.raises(cs.ConfigError) as caught:
        cs.choose_server(config)
    for part in (f"NODE_PACKS has {name!r}", f"{clean / name} {problem}", "__init__.py", f"count from {clean}"):
        assert part in str(caught.value)


@pytest.mark.parametrize("other", ["b/pack", "b/pack.py"])
def test_two_packs_of_one_name_are_both_named(tmp_path: Path, other: str) -> None:
    first, second = make_pack(tmp_path / "a" / "pack"), tmp_path / other
    if second.suffix:
        second.parent.mkdir()
        second.write_text("")
    else:
        make_pack(second)
    with pytest.raises(cs.ConfigError, match="two packs of one name") as caught:
        ConnectorConfig(NODE_PACKS=[first, second]).node_packs()
    assert f"{first} and {second}" in str(caught.value)


def links_of(words: list[str]) -> dict[str, Path]:
    """{name: target} of the packs that a command line tells the server of."""
    file = Path(words[words.index("--extra-model-paths-config") + 1])
    folders = json.loads(file.read_text())["node packs"]["custom_nodes"].split("\n")
    return {entry.name: entry for folder in folders for entry in Path(folder).iterdir()}


def test_node_packs_are_announced_without_touching_the_tree(
    clean: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(clean / "cache"))
    tree = make_tree(clean / "tree", "custom_nodes/other/__init__.py")
    (clean / "run").mkdir()
    packs = [make_pack(clean / "my \u00e4 pack"), make_pack(clean / "other")]
    single = clean / "single.py"
    single.write_text("")
    given = list(map(str, [*packs, single]))
    links = links_of(command(tree, NODE_PACKS=given))
    assert {name: link.resolve() for name, link in links.items()} == {p.name: p for p in [*packs, single]}
    assert os.listdir(tree / "custom_nodes") == ["other"]
    assert f"{packs[1]}, which NODE_PACKS names, is loaded besides {tree / 'custom_nodes' / 'other'}" in caplog.text
    assert "single" not in caplog.text
    # Values of a pack's classes are pickled with the path: it does not change from start to start.
    assert links_of(command(tree, NODE_PACKS=given[::-1])) == links
    # What the tree holds already, under any name, needs no telling.
    (tree / "custom_nodes" / "mine").symlink_to(packs[0])
    assert set(links_of(command(tree, NODE_PACKS=given))) == {"other", "single.py"}


def test_link_to_a_pack_that_points_elsewhere_is_renewed(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(clean / "cache"))
    tree, pack = make_tree(clean / "tree"), make_pack(clean / "pack")
    (clean / "run").mkdir()
    link = links_of(command(tree, NODE_PACKS=[str(pack)]))["pack"]
    link.unlink()
    link.symlink_to(clean / "nowhere")
    assert links_of(command(tree, NODE_PACKS=[str(pack)])) == {"pack": link}
    assert link.resolve() == pack


def test_node_packs_need_no_cache_folder(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (clean / "cache").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(clean / "cache"))
    (clean / "run").mkdir()
    pack = make_pack(clean / "pack")
    link = links_of(command(make_tree(clean / "tree"), NODE_PACKS=[str(pack)]))["pack"]
    assert clean / "run" in link.parents
    assert link.resolve() == pack


def test_node_packs_are_loaded_although_all_others_are_disabled(clean: Path) -> None:
    tree, pack = make_tree(clean / "tree"), make_pack(clean / "pack")
    (tree / "comfy" / "cli_args.py").write_text('"--port" "--whitelist-custom-nodes"')
    (clean / "run").mkdir()
    words = command(tree, "python3 main.py --disable-all-custom-nodes", NODE_PACKS=[str(pack)])
    assert words[words.index("--whitelist-custom-nodes") + 1 :] == ["discomfort", "pack"]


# ---- the browser's sandbox ----


class FakeChromium:
    """Playwright's launcher, on a system where a browser starts with its sandbox, only without it, or not at all."""

    def __init__(self, starts: str):
        self.starts = starts
        self.launches: list[bool] = []

    async def launch(self, chromium_sandbox: bool, args: list[str], **options: Any) -> str:
        assert "--no-sandbox" not in args  # Playwright says it where chromium_sandbox is not set
        self.launches.append(chromium_sandbox)
        if self.starts == "never" or (chromium_sandbox and self.starts == "without"):
            raise RuntimeError("Chromium sandboxing failed!" if chromium_sandbox else "No library.")
        return "a browser"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has no root")
@pytest.mark.parametrize(
    ("user", "starts", "launches"),
    [
        (1000, "with", [True, True]),
        (1000, "without", [True, False, False]),  # what was refused once is not tried again
        (1000, "never", [True, False, True, False]),
        (0, "without", [False, False]),
    ],
)
async def test_browser_has_its_sandbox_where_the_system_lets_it(
    user: int, starts: str, launches: list[bool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(cs, "_NO_SANDBOX", set())
    page = cs.FrontendPage(ConnectorConfig(), SimpleNamespace(path=Path("/nowhere")))  # type: ignore[arg-type]
    chromium = FakeChromium(starts)
    page._playwright = SimpleNamespace(chromium=chromium)
    for _ in range(2):
        if starts == "never":
            with pytest.raises(RuntimeError, match="No library"):
                await page._launch_one(None)
        else:
            assert await page._launch_one(None) == "a browser"
    assert chromium.launches == launches
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == (1 if (user, starts) == (1000, "without") else 0)
    assert all("runs without its sandbox" in text for text in warnings)


# ---- the private folder ----


@pytest.fixture
def folder(no_leaks: None) -> Any:
    """An open private folder; closed at the end."""
    folder = cs.RuntimeFolder()
    folder.open()
    yield folder
    folder.close()


def test_private_folder_is_private_and_goes_with_its_root(folder: cs.RuntimeFolder) -> None:
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert folder.path.parent.stat().st_mode & 0o777 == 0o700
    assert cs.sweep() == []  # it is alive
    assert folder.path.is_dir()
    folder.close()
    folder.close()
    assert not folder.path.parent.exists()


def test_folder_closed_in_another_thread_is_unlocked(folder: cs.RuntimeFolder, first_port: int) -> None:
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    other = cs.RuntimeFolder()
    for function in (other.open, lambda: other.reserve_port("127.0.0.1", first_port, set()), other.close):
        thread = threading.Thread(target=function)
        thread.start()
        thread.join()
    assert not other.path.exists()
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) == descriptors


def test_sweep_removes_what_is_dead_and_only_that(
    folder: cs.RuntimeFolder, caplog: pytest.LogCaptureFixture, first_port: int
) -> None:
    root = folder.path.parent
    dead, young, stranger = root / "0123456789ab", root / ".ba9876543210", root / "notes.txt"
    for path in (dead, young):
        (path / "temp").mkdir(parents=True)
        (path / "owner.lock").touch()
    (root / "port-1.lock").touch()
    stranger.touch()
    port = folder.reserve_port("127.0.0.1", first_port, set())
    process = subprocess.Popen([sys.executable, "-c", "input()", "--temp-directory", str(dead)], stdin=subprocess.PIPE)
    other = subprocess.Popen([sys.executable, "-c", "input()", str(dead.parent)], stdin=subprocess.PIPE)
    try:
        assert cs.sweep() == [dead.name]
        assert process.poll() is not None
        assert other.poll() is None
    finally:
        for p in (process, other):
            p.kill()
            p.communicate()
    assert "Swept 1 nested server" in caplog.text
    assert sorted(os.listdir(root)) == sorted([young.name, folder.path.name, stranger.name, f"port-{port}.lock"])
    shutil.rmtree(young)
    stranger.unlink()


def test_sweep_ends_what_a_dead_servers_nodes_started(folder: cs.RuntimeFolder) -> None:
    dead = folder.path.parent / "0123456789ab"
    dead.mkdir()
    script = "import subprocess, sys; p = subprocess.Popen(['sleep', '30']); print(p.pid, flush=True); p.wait()"
    server = subprocess.Popen([sys.executable, "-c", script, str(dead)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    child = int(server.stdout.readline())
    cs.sweep()
    server.communicate()
    stat = Path(f"/proc/{child}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"


def test_ended_process_is_left_to_its_parent_to_reap() -> None:
    """asyncio waits for the browser's driver, and warns of an unknown child when somebody else was told of its end."""
    ends = {"pass": -signal.SIGTERM, "signal.signal(signal.SIGTERM, signal.SIG_IGN)": -signal.SIGKILL}
    for reaction, status in ends.items():
        script = f"import signal, time; {reaction}; print(flush=True); time.sleep(60)"
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        cs._end_processes([psutil.Process(process.pid)], patience=0.5)
        assert process.wait(1) == status
        process.communicate()


def test_many_processes_that_open_and_close_at_once_never_meet(no_leaks: None, first_port: int) -> None:
    """The folder that holds them all comes and goes with the last of them."""
    script = (
        "from discomfort import comfy_serverless as cs\n"
        "for _ in range(15):\n"
        "    cs.sweep()\n"
        "    folder = cs.RuntimeFolder()\n"
        "    folder.open()\n"
        f"    folder.reserve_port('127.0.0.1', {first_port}, set())\n"
        "    folder.close()\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[1] for process in processes] == ["", "", ""]


def test_ports_are_reserved_among_processes_and_taken_ones_are_skipped(
    folder: cs.RuntimeFolder, first_port: int
) -> None:
    port = first_port + 40
    other = cs.RuntimeFolder()
    other.open()
    try:
        with socket.socket() as busy:
            busy.bind(("127.0.0.1", port))
            busy.listen()
            assert folder.reserve_port("127.0.0.1", port, set()) == port + 1
            assert other.reserve_port("127.0.0.1", port, set()) == port + 2
            assert folder.reserve_port("127.0.0.1", port, {port + 1}) == port + 3
            assert other.reserve_port("127.0.0.1", port, set()) == port + 1  # free again
    finally:
        other.close()


def test_port_that_is_bound_but_not_listened_on_is_not_free(first_port: int) -> None:
    port = first_port + 50  # never listened on, so nothing of it is in TIME_WAIT
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", port))
        assert not cs.port_is_free("127.0.0.1", port)
    assert cs.port_is_free("127.0.0.1", port)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX")
@pytest.mark.parametrize("kind", ["open to others", "a link", "a file"])
def test_root_that_another_user_controls_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(cs.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(cs.os.path, "isdir", lambda path: False)  # not to flee to /tmp
    root = tmp_path / f"discomfort-servers-{os.getuid()}"
    if kind == "open to others":
        root.mkdir(mode=0o777)
        root.chmod(0o777)
    elif kind == "a link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        root.symlink_to(tmp_path / "theirs")
    else:
        root.touch()
    with pytest.raises(cs.ConnectorError, match="must be a folder of yours that nobody else can enter"):
        cs.servers_root()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX")
def test_root_of_ours_that_others_could_only_read_is_closed_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock library makes missing folders with the mode of any folder, also the root that somebody just removed."""
    monkeypatch.setattr(cs.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(cs.os.path, "isdir", lambda path: False)  # not to flee to /tmp
    root = tmp_path / f"discomfort-servers-{os.getuid()}"
    root.mkdir()
    root.chmod(0o755)
    assert cs.servers_root() == root
    assert root.stat().st_mode & 0o777 == 0o700


def test_guard_needs_nothing_but_the_standard_library_and_its_own_source() -> None:
    import inspect

    source = inspect.getsource(cs._guard)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", source + "\n_guard()\n", str(os.getpid()), "/nonexistent/folder"],
        input=b"server 1\nbye\n", capture_output=True, timeout=10,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


# An owner whose server shows nothing of its folder in its command line: a custom node may have changed it.
DISGUISED = """
import psutil, subprocess, sys, time
from discomfort import comfy_serverless as cs
folder = cs.RuntimeFolder()
folder.open()
server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
folder.note_server(psutil.Process(server.pid))
print(server.pid, folder._guard.pid, folder.path, flush=True)
time.sleep(60)
"""


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups are POSIX")
@pytest.mark.parametrize("who", ["guard", "sweep"])
def test_server_with_a_changed_command_line_is_ended_too(
    who: str, no_leaks: None, wait_for: Callable[..., Any]
) -> None:
    owner = subprocess.Popen([sys.executable, "-c", DISGUISED], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    server, guard, folder = owner.stdout.readline().split()
    owner.stdout.close()
    note = json.loads((Path(folder) / "server.pid").read_text())
    assert (note["pid"], note["owner"]) == (int(server), owner.pid)
    if who == "sweep":
        owner.send_signal(signal.SIGSTOP)  # it must not see its guard die
        os.kill(int(guard), signal.SIGKILL)
    owner.kill()
    owner.wait()
    if who == "sweep":
        wait_for(lambda: is_gone(int(guard)))
        assert not is_gone(int(server))
        assert cs.sweep() == [Path(folder).name]
        Path(folder).parent.rmdir()
    wait_for(lambda: is_gone(int(server)) and not Path(folder).exists(), 5, "the end of the server and its folder")
    wait_for(lambda: is_gone(int(guard)), 5, "the end of the guard")


@pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups are POSIX")
def test_reused_pid_is_never_touched(no_leaks: None, tmp_path: Path) -> None:
    """A note of a process that began at another time is a note of another process."""
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    dead = cs.servers_root() / "0123456789ab"
    dead.mkdir(mode=0o700)
    began = psutil.Process(bystander.pid).create_time()
    (dead / "server.pid").write_text(json.dumps({"pid": bystander.pid, "began": began - 50, "owner": 1}))
    try:
        assert cs.sweep() == [dead.name]
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
        cs.servers_root().rmdir()


# ---- messages of the websocket ----


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (
            '{"type": "executing", "data": {"node": "3", "prompt_id": "p"}}',
            cs.ServerEvent("executing", {"node": "3", "prompt_id": "p"}, "p", "3"),
        ),
        (
            '{"type": "executing", "data": {"node": null, "prompt_id": "p"}}',
            cs.ServerEvent("executing", {"node": None, "prompt_id": "p"}, "p", None),
        ),
        (
            '{"type": "execution_error", "data": {"node_id": 7, "prompt_id": "p"}}',
            cs.ServerEvent("execution_error", {"node_id": 7, "prompt_id": "p"}, "p", "7"),
        ),
        ('{"type": "status"}', cs.ServerEvent("status", {})),
        ('{"type": "status", "data": [1]}', cs.ServerEvent("status", {})),
        (b"\0\0\0\1\0\0\0\1JPEG", cs.ServerEvent("preview", {}, image=b"JPEG", image_format="jpeg")),
        (b"\0\0\0\1\0\0\0\2PNG", cs.ServerEvent("preview", {}, image=b"PNG", image_format="png")),
        (
            b'\0\0\0\4\0\0\0\x42{"node_id": "5", "prompt_id": "p", "image_type": "image/png"     }PNG',
            cs.ServerEvent(
                "preview", {"node_id": "5", "prompt_id": "p", "image_type": "image/png"}, "p", "5", b"PNG", "png"
            ),
        ),
        (b"\0\0\0\4\0\0\0\xff{}", None),
        (b"\0\0\0\4\0\0\0\2[]", None),
        (b"\0\0\0\3\0\0\0\2text", None),
        (b"", None),
        ("", None),
        ("[]", None),
        ('"text"', None),
        ('{"data": {}}', None),
    ],
)
def test_messages_are_parsed_or_ignored(message: str | bytes, event: cs.ServerEvent | None) -> None:
    assert cs.parse_message(message) == event


def test_the_states_of_all_nodes_are_read_only_for_who_wants_them() -> None:
    """Else they would cost the square of a workflow's size. The prompt is told all the same."""
    nodes = {str(i): {"value": 1.0, "max": 1.0, "state": "finished"} for i in range(3)}
    message = json.dumps({"type": "progress_state", "data": {"prompt_id": "p-1", "nodes": nodes}})
    assert cs.parse_message(message) == cs.ServerEvent(
        "progress_state", {"prompt_id": "p-1", "nodes": nodes}, prompt_id="p-1"
    )
    assert cs.parse_message(message, with_states=False) == cs.ServerEvent("progress_state", {}, prompt_id="p-1")
    other = json.dumps({"type": "executing", "data": {"node": "1", "prompt_id": "p-1"}})
    assert cs.parse_message(other, with_states=False) == cs.parse_message(other)
    odd = json.dumps({"type": "progress_state", "data": {"nodes": {}, "prompt_id": "p-1"}})
    assert cs.parse_message(odd, with_states=False) == cs.parse_message(odd)


async def test_somebody_who_wants_the_states_gets_them_whoever_else_listens() -> None:
    stream = cs.EventStream()
    end_run = stream.subscribe(lambda event: None, with_states=False)
    assert stream._state_readers == 0
    end = stream.subscribe(lambda event: None)
    assert stream._state_readers == 1
    end()
    end()
    end_run()
    assert (stream._state_readers, stream.has_listeners) == (0, False)


@pytest.mark.parametrize("has_proxy", [True, False])
async def test_websocket_is_opened_with_what_the_library_knows(
    monkeypatch: pytest.MonkeyPatch, has_proxy: bool
) -> None:
    """websockets 13 and 14 have no argument ``proxy``; later ones would use a proxy unless told not to."""
    import websockets.asyncio.client as client

    seen: list[dict[str, Any]] = []

    class NewConnect:
        def __init__(self, uri: str, *, max_size: Any = 1, proxy: Any = True, **options: Any):
            seen.append({"proxy": proxy, **options})
            raise OSError("nobody there")

    class OldConnect:
        def __init__(self, uri: str, *, max_size: Any = 1, **options: Any):
            seen.append(options)
            raise OSError("nobody there")

    monkeypatch.setattr(client, "connect", NewConnect if has_proxy else OldConnect)
    stream = cs.EventStream()
    assert not await stream.connect(0.2)
    await stream.close()
    assert seen[0].get("proxy", "not given") == (None if has_proxy else "not given")


# ---- workflows and prompts ----


def test_prompts_and_workflows_are_told_apart() -> None:
    prompt = {"1": {"class_type": "A", "inputs": {}}}
    assert cs.is_prompt(prompt)
    for other in ({}, None, [], {"nodes": []}, {"1": {"inputs": {}}}, {"1": "A"}):
        assert not cs.is_prompt(other)


NODE = {"id": 1, "type": "A"}
SUBGRAPH = "b7f8a1f2-9c42-4a4f-8d7c-3f6d2c1e0a99"


@pytest.mark.parametrize(
    ("workflow", "says"),
    [
        ({"1": {"class_type": "A", "inputs": {}}}, "This is a prompt (API format"),
        (None, "Not an editor workflow: NoneType"),
        ([], "Not an editor workflow: list"),
        ({}, "without a list 'nodes' (its keys: none)"),
        ({"nodes": {}, "links": []}, "without a list 'nodes' (its keys: nodes, links)"),
        ({"nodes": [NODE, NODE]}, "several nodes with the id 1"),
        ({"nodes": [NODE, {**NODE, "id": "1"}]}, "several nodes with the id 1"),
        ({"nodes": ["A"]}, "a node without id or type: A"),
        ({"nodes": [{"id": 1}]}, "a node without id or type: {'id': 1}"),
        ({"nodes": [{"id": [], "type": "A"}, {"id": [], "type": "A"}]}, "several nodes with the id []"),
        ({"nodes": [{"id": 4, "type": SUBGRAPH, "title": "My part"}]}, "node #4 ('My part'), whose definition"),
        (
            {"nodes": [], "definitions": {"subgraphs": [{"id": SUBGRAPH, "name": "Part", "nodes": [NODE, NODE]}]}},
            "The subgraph 'Part' has several nodes with the id 1",
        ),
    ],
)
def test_what_is_no_workflow_is_refused_with_a_sentence(workflow: Any, says: str) -> None:
    with pytest.raises(cs.ConversionError) as caught:
        cs.check_is_workflow(workflow)
    assert says in str(caught.value)


def test_workflows_are_accepted() -> None:
    assert cs.check_is_workflow({"nodes": []}) == {"nodes": []}
    nested = {
        "nodes": [{"id": 1, "type": SUBGRAPH}],
        "definitions": {"subgraphs": [{"id": SUBGRAPH, "nodes": [NODE]}]},
    }
    assert cs.check_is_workflow(nested) == nested
    for file in (HERE / "tests" / "workflows").glob("*.json"):
        cs.check_is_workflow(json.loads(file.read_text()))


def test_payloads_are_read(tmp_path: Path) -> None:
    file = tmp_path / "w.json"
    for content in ('{"nodes": []}', '\ufeff{"nodes": []}', '\n  {"nodes": []}\n'):
        file.write_text(content, encoding="utf-8")
        assert cs.read_payload(str(file)) == {"nodes": []}
    assert cs.read_payload(file) == {"nodes": []}  # type: ignore[arg-type]
    assert cs.read_payload(' {"a": 1}') == {"a": 1}
    given = {"a": 1}
    assert cs.read_payload(given) == given
    assert cs.read_payload(given) is not given


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "does not exist (current directory:"),
        (b"{", "is not valid JSON: Expecting property name"),
        (b"[1]", "holds a JSON list, not an object"),
        (b"\xff\xfe", "cannot be read"),
        (b"", "is not valid JSON"),
    ],
)
def test_bad_payload_file_is_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    file = tmp_path / "w.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(cs.ConversionError) as caught:
        cs.read_payload(str(file))
    assert str(file) in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize("payload", ["{broken", "a\0b", "x" * 5000, ""])
def test_bad_payload_text_is_a_sentence(payload: str) -> None:
    with pytest.raises(cs.ConversionError):
        cs.read_payload(payload)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a photo of a cat", False),
        ("100% wool", False),
        ("%date:yyyy-MM-dd%", True),
        ("%KSampler.seed%", True),
        ("a {red|blue} house", True),
        ("{literal braces}", False),
        ("a | b", False),
    ],
)
def test_volatile_texts_are_known(text: str, expected: bool) -> None:
    for workflow in (
        {"nodes": [{"id": 1, "type": "A", "widgets_values": [1, text]}]},
        {"nodes": [{"id": 1, "type": "A", "widgets_values": {"text": text}}]},
        {"nodes": [], "definitions": {"subgraphs": [{"nodes": [{"widgets_values": [text]}]}]}},
    ):
        assert cs.is_volatile(workflow) is expected


def test_types_are_found_in_subgraphs_and_group_nodes_too() -> None:
    workflow = {
        "nodes": [NODE, {"id": 2, "type": "workflow>My group"}],
        "definitions": {"subgraphs": [{"nodes": [{"id": 1, "type": "B"}]}]},
        "extra": {"groupNodes": {"My group": {"nodes": [{"type": "C"}]}}},
    }
    assert cs.types_in_workflow(workflow) == {"A", "workflow>My group", "B", "C"}


def test_new_file_in_a_folder_does_not_change_what_a_node_means() -> None:
    def digest(files: list[str], **more: Any) -> str:
        definition = {"input": {"required": {"image": [files, {"image_upload": True, "tooltip": "x", **more}]}}}
        return cs._definition_digest(definition)

    assert digest(["a.png"]) == digest(["a.png", "b.png"])
    assert digest(["a.png"]) == digest(["a.png"], tooltip="another")
    assert digest(["a.png"]) != digest(["b.png"])  # the default
    assert digest(["a.png"]) != digest(["a.png"], default="a.png")


def test_nodes_of_a_prompt_are_found_in_the_workflow() -> None:
    inner = {"id": 35, "type": "KSampler", "title": "Inner"}
    workflow = {
        "nodes": [{"id": 57, "type": SUBGRAPH}, {"id": 2, "type": "A"}],
        "definitions": {"subgraphs": [{"id": SUBGRAPH, "nodes": [inner]}]},
    }
    assert cs.find_workflow_node(workflow, "57:35") == inner
    assert cs.find_workflow_node(workflow, "2") == {"id": 2, "type": "A"}
    for missing in ("3", "57:1", "2:1", ""):
        assert cs.find_workflow_node(workflow, missing) is None


# ---- what a conversion left out ----

DEFINITIONS: dict[str, Any] = {
    "Load": {"input": {"required": {"name": [["a.safetensors"], {}]}}},
    "Sample": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "seed": ["INT", {"default": 0, "control_after_generate": True}],
                "steps": ["INT", {"default": 20}],
                "cfg": ["FLOAT", {"default": 8.0}],
                "sampler": [["euler", "heun"]],
                "size": ["COMBO", {"options": [512, 1024]}],
                "tiled": ["BOOLEAN", {"default": False}],
                "text": ["STRING", {"default": ""}],
            },
            "optional": {"mask": ["MASK"], "count": ["INT", {"forceInput": True}]},
        }
    },
}
SAMPLE_VALUES = {"seed": 5, "steps": 30, "cfg": 7.5, "sampler": "heun", "size": 512, "tiled": True, "text": "x"}
# As the file has them: with what stands behind the seed.
SAMPLE_LIST = [5, "fixed", 30, 7.5, "heun", 512, True, "x"]


def sample(node_id: int = 1, link: Any = None, input: str = "model", **more: Any) -> dict[str, Any]:
    """A node that is linked to one thing at most."""
    inputs = [{"name": input, "type": "MODEL", "link": link}]
    outputs = [{"name": "MODEL", "type": "MODEL"}]
    return {
        "id": node_id, "type": "Sample", "inputs": inputs, "outputs": outputs, "widgets_values": SAMPLE_LIST, **more
    }  # fmt: skip


def sampled(**inputs: Any) -> dict[str, Any]:
    return {"class_type": "Sample", "inputs": {**SAMPLE_VALUES, **inputs}}


def notes_on(nodes: list[Any], prompt: dict[str, Any], links: Any = (), **more: Any) -> list[cs.ConversionNote]:
    return cs.conversion_notes({"nodes": nodes, "links": list(links), **more}, prompt, DEFINITIONS)


def kinds(notes: list[cs.ConversionNote]) -> list[tuple[str, str, str | None]]:
    return [(note.kind, note.node_id, note.input) for note in notes]


@pytest.mark.parametrize(
    ("source", "kind", "says"),
    [
        ({"mode": 2}, "link_lost", "it comes from Load #2, which is muted"),
        ({"mode": 4}, "link_lost", "it comes from Load #2, which is bypassed and has nothing of the type MODEL to"),
        ({"type": "Reroute"}, "link_lost", "it comes from Reroute #2, to which nothing is linked"),
        (
            {"type": "pack/Get", "title": "Get it"},
            "link_lost",
            "pack/Get #2 ('Get it'), which exists in the editor only",
        ),
        ({"id": 3}, "link_lost", "the node #2 that it comes from is not in the workflow"),
        ({}, "link_lost", "loses the link to its input 'model'."),
    ],
)
def test_lost_link_is_told_with_its_reason(source: dict[str, Any], kind: str, says: str) -> None:
    node = {"id": 2, "type": "Load", "outputs": [{"type": "MODEL"}], "widgets_values": ["a.safetensors"], **source}
    prompt = {"1": sampled(), "2": {"class_type": "Load", "inputs": {"name": "a.safetensors"}}}
    links = [[7, 2, 0, 1, 0, "MODEL"]]
    (note,) = [n for n in notes_on([sample(link=7), node], prompt, links) if n.input == "model"]
    assert (note.kind, note.node_id, note.class_type, note.level) == (kind, "1", "Sample", logging.WARNING)
    assert says in note.text
    # The same with links as objects, which newer files have.
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    objects = [dict(zip(keys, link, strict=True)) for link in links]
    assert note in notes_on([sample(link=7), node], prompt, objects)


def test_lost_link_that_is_not_in_the_file() -> None:
    (note,) = notes_on([sample(link=7)], {"1": sampled()})
    assert "the link 7 is not in the workflow" in note.text


def test_bypassed_node_that_has_something_to_pass_on_is_seen_through() -> None:
    """So are reroutes and the borders of subgraphs: the reason is at the far end."""
    graph = {
        "id": SUBGRAPH,
        "name": "Inside",
        "inputs": [{"name": "in", "linkIds": [1]}],
        "outputs": [{"name": "out", "linkIds": [2]}],
        "nodes": [sample(5, link=1, mode=4)],
        "links": [[1, -10, 0, 5, 0, "MODEL"], [2, 5, 0, -20, 0, "MODEL"]],
    }
    nodes = [
        {"id": 2, "type": "Load", "mode": 2},
        {"id": 3, "type": "Reroute", "inputs": [{"name": "", "link": 11}]},
        {"id": 4, "type": SUBGRAPH, "inputs": [{"name": "in", "link": 12}]},
        sample(1, link=13),
    ]
    links = [[11, 2, 0, 3, 0], [12, 3, 0, 4, 0], [13, 4, 0, 1, 0]]
    notes = notes_on(nodes, {"1": sampled()}, links, definitions={"subgraphs": [graph]})
    assert kinds(notes) == [("muted", "2", None), ("link_lost", "1", "model"), ("bypassed", "4:5", None)]
    assert "it comes from Load #2, which is muted" in notes[1].text


def test_optional_input_of_a_node_that_is_switched_off_is_no_warning() -> None:
    for mode in (2, 4):
        nodes = [sample(input="mask", link=7), {"id": 2, "type": "Load", "mode": mode}]
        notes = notes_on(nodes, {"1": sampled()}, [[7, 2, 0, 1, 0]])
        assert kinds(notes) == [("link_off", "1", "mask"), ("muted" if mode == 2 else "bypassed", "2", None)]
        assert {note.level for note in notes} == {logging.INFO}


def test_value_instead_of_a_link_is_told_unless_it_is_a_primitives_or_a_subgraphs() -> None:
    prompt = {"1": sampled()}
    links = [[7, 2, 0, 1, 0]]
    for source in ({"type": "PrimitiveNode"}, {"type": "pack/Set"}):
        notes = notes_on([sample(input="steps", link=7), {"id": 2, **source}], prompt, links)
        assert [n for n in notes if n.kind != "editor_only"] == []
    (note, _) = notes_on([sample(input="steps", link=7), {"id": 2, "type": "Load", "mode": 2}], prompt, links)
    assert "which is muted; its own value is used instead" in note.text
    graph = {"id": SUBGRAPH, "inputs": [{"name": "in"}], "nodes": [sample(5, input="steps", link=1)]}
    graph["links"] = [[1, -10, 0, 5, 0]]
    for inputs in ([], [{"name": "in", "link": None}]):
        host = {"id": 4, "type": SUBGRAPH, "inputs": inputs}
        assert notes_on([host], {"4:5": sampled()}, definitions={"subgraphs": [graph]}) == []


def test_open_input_of_a_subgraph_loses_nothing() -> None:
    graph = {"id": SUBGRAPH, "inputs": [{"name": "in"}], "nodes": [sample(5, input="mask", link=1)]}
    graph["links"] = [[1, -10, 0, 5, 0]]
    assert notes_on([{"id": 4, "type": SUBGRAPH}], {"4:5": sampled()}, definitions={"subgraphs": [graph]}) == []


def test_nodes_that_are_left_out_are_told() -> None:
    normal = [{"id": i, "type": t} for i, t in enumerate(("Note", "MarkdownNote", "Reroute", "PrimitiveNode"), 10)]
    nodes = [sample(1, mode=2), sample(2, mode=4), sample(3, title="Lost"), {"id": 4, "type": "pack/Get"}, *normal]
    notes = notes_on(nodes, {})
    assert kinds(notes) == [
        ("muted", "1", None), ("bypassed", "2", None), ("node_lost", "3", None), ("editor_only", "4", None)
    ]  # fmt: skip
    assert [note.level == logging.WARNING for note in notes] == [False, False, True, False]
    assert "left out Sample #3 ('Lost'), although it is active" in notes[2].text
    assert (notes[2].title, notes[0].title) == ("Lost", None)


def test_content_of_a_subgraph_that_is_off_is_told_where_it_runs_all_the_same() -> None:
    inner = {"id": "b7f8a1f2-9c42-4a4f-8d7c-aaaaaaaaaaaa", "nodes": [sample(6)]}
    graph = {"id": SUBGRAPH, "name": "Part", "nodes": [sample(5), {"id": 7, "type": inner["id"]}]}
    definitions = {"subgraphs": [graph, inner]}
    for mode, word in ((2, "muted"), (4, "bypassed")):
        host = {"id": 4, "type": SUBGRAPH, "mode": mode}
        assert kinds(notes_on([host], {}, definitions=definitions)) == [(word, "4", None)]
        for prompt_id in ("4:5", "4:7:6"):
            (note,) = notes_on([host], {prompt_id: sampled()}, definitions=definitions)
            assert (note.kind, note.node_id, note.level) == ("runs_although_off", "4", logging.WARNING)
            assert f"The subgraph Part #4 is {word}" in note.text


def test_nodes_of_subgraphs_are_compared_under_the_numbers_that_the_frontend_gives_them() -> None:
    """1.58.1 renumbers the nodes of a subgraph whose ids another one has too, in their order."""
    nodes = [sample(5), {"id": 6, "type": "Note"}, sample(7, link=1), {"id": 8, "type": "Load"}]
    ids = ("b7f8a1f2-9c42-4a4f-8d7c-000000000001", "b7f8a1f2-9c42-4a4f-8d7c-000000000002")
    graphs = [{"id": i, "nodes": nodes, "links": [[1, 8, 0, 7, 0]]} for i in ids]
    hosts = [{"id": 1, "type": ids[0]}, {"id": 2, "type": ids[1]}]
    load = {"class_type": "Load", "inputs": {"name": "a.safetensors"}}
    prompt = {
        "1:5": sampled(),
        "1:7": sampled(model=["1:8", 0]),
        "1:8": load,
        "2:102": load,
        "2:99": sampled(),
        "2:101": sampled(model=["2:102", 0]),
    }
    more: Any = {"definitions": {"subgraphs": graphs}}
    found = notes_on(hosts, prompt, **more)
    assert kinds(found) == [("default_used", "1:8", "name"), ("default_used", "2:102", "name")]
    del prompt["2:101"]["inputs"]["model"]
    assert ("link_lost", "2:101", "model") in kinds(notes_on(hosts, prompt, **more))
    # One that is missing among those with new numbers cannot be told from the others.
    del prompt["2:99"]
    assert "node_lost" in {note.kind for note in notes_on(hosts, prompt, **more)}
    assert "link_lost" not in {note.kind for note in notes_on(hosts, prompt, **more)}


@pytest.mark.parametrize("prefix", ["workflow/", "workflow>"])
@pytest.mark.parametrize("ids", [("1:0", "1:1"), ("102:100", "102:101")])
def test_group_nodes_are_no_loss(prefix: str, ids: tuple[str, str]) -> None:
    nodes = [{"id": 1, "type": f"{prefix}Pair", "widgets_values": [1, 2, 3]}, sample(2, link=3)]
    prompt = {ids[0]: sampled(), ids[1]: sampled(), "2": sampled(model=[ids[1], 0])}
    assert notes_on(nodes, prompt, [[3, 1, 0, 2, 0]]) == []


@pytest.mark.parametrize(
    ("input", "values"),
    [
        ("steps", ["euler", "", [], {}, [5, "a"]]),
        ("cfg", ["euler", "fixed"]),
        ("sampler", [8, True, 7.5, "fixed", "randomize"]),
        ("size", ["euler", True]),
        ("tiled", ["euler", 25, 0.5]),
    ],
)
def test_values_that_cannot_have_been_meant_are_told(input: str, values: list[Any]) -> None:
    for value in values:
        (note,) = notes_on([sample()], {"1": sampled(**{input: value})})
        assert (note.kind, note.input, note.level) == ("wrong_value", input, logging.WARNING)
        assert json.dumps(value) in note.text


@pytest.mark.parametrize(
    ("input", "values"),
    [
        ("steps", [8, 8.0, "8", True, -1]),
        ("cfg", [8, 7.5, "7.5", "1e3"]),
        # A file, or a choice of another version: the server tells.
        ("sampler", ["other", "euler", ["euler", "heun"]]),
        ("size", [512, 2048, "512"]),
        ("tiled", [True, 0, 1, "true", "disable"]),
        ("text", ["", 8, False, ["1", 0]]),
        ("unknown to the server", [None, 8, "euler"]),
        ("count", [None, "euler"]),
        ("model", [None, 8]),
    ],
)
def test_values_that_may_be_meant_are_not_told(input: str, values: list[Any]) -> None:
    for value in values:
        assert notes_on([sample()], {"1": sampled(**{input: value})}) == []


def test_choices_that_are_not_known_are_not_told() -> None:
    """The models of another machine: none here, or other ones."""
    node = {"id": 1, "type": "Load", "widgets_values": ["b.safetensors"]}
    prompt = {"1": {"class_type": "Load", "inputs": {"name": "b.safetensors"}}}
    for choices in ([], ["a.safetensors"]):
        for spec in ([choices], ["COMBO", {"options": choices}], ["COMBO", {}], ["COMBO"]):
            definitions = {"Load": {"input": {"required": {"name": spec}}}}
            assert cs.conversion_notes({"nodes": [node]}, prompt, definitions) == []


def test_null_is_told() -> None:
    (note,) = notes_on([sample()], {"1": sampled(steps=None)})
    assert (note.kind, note.input, note.level) == ("null_value", "steps", logging.WARNING)


def test_values_saved_by_name_are_told_where_they_do_not_arrive() -> None:
    values = {"steps": 12, "cfg": 7.5, "preview": {"of": "nothing"}, "model": "m", "text": ["wrapped"]}
    entry = sampled(model=["9", 0], text={"__value__": ["wrapped"]})
    (note,) = notes_on([sample(widgets_values=values)], {"1": entry})
    assert (note.kind, note.input, note.level) == ("value_not_used", "steps", logging.WARNING)
    assert "holds 12 for the input 'steps', but the frontend gave 30" in note.text
    assert notes_on([sample(widgets_values={"steps": 30, "cfg": 7.5})], {"1": entry}) == []


def test_defaults_in_the_place_of_values_that_the_file_lacks_are_told() -> None:
    defaults = {"seed": 0, "steps": 20, "cfg": 8.0, "sampler": "euler", "size": 512, "tiled": False, "text": ""}
    names = list(defaults)
    for values in (None, [], [5], SAMPLE_LIST[:3], SAMPLE_LIST[:-1], SAMPLE_LIST):
        given = max(0, len(values or []) - 1) if len(values or []) > 1 else len(values or [])
        prompt = {"1": sampled(**{name: defaults[name] for name in names[given:]})}
        notes = notes_on([sample(widgets_values=values)], prompt)
        assert kinds(notes) == [("default_used", "1", name) for name in names[given:]]
        assert all(note.level == logging.INFO for note in notes)
    # Where a node has no such widget any more, its value is one like others.
    shifted = sampled(seed="fixed", text="")
    definition = {"input": {"required": {"seed": ["INT", {"control_after_generate": False}], "text": ["STRING", {}]}}}
    nodes = [sample(widgets_values=["fixed", ""])]
    notes = cs.conversion_notes({"nodes": nodes}, {"1": shifted}, {"Sample": definition})
    assert kinds(notes) == [("wrong_value", "1", "seed")]
    # A linked widget needs no value, and a value that is no default came from somewhere.
    assert (
        notes_on([sample(input="text", link=7, widgets_values=SAMPLE_LIST[:-1])], {"1": sampled(text=["2", 0])}) == []
    )
    assert notes_on([sample(widgets_values=SAMPLE_LIST[:-1])], {"1": sampled(text="from a script")}) == []


def test_notes_need_no_well_formed_file() -> None:
    """The frontend had no objection; neither has this."""
    nodes: list[Any] = [
        {"id": 1, "type": "Sample", "inputs": None, "outputs": {}, "widgets_values": "text", "mode": None},
        {"id": 2, "type": None, "inputs": [None, {"link": 3}], "title": 5},
        {"id": 3, "type": SUBGRAPH},
        {"id": 4, "type": "Reroute", "inputs": [{"link": 6}]},
        sample(5, link=5),
    ]
    graph = {"id": SUBGRAPH, "nodes": [{"id": 3, "type": SUBGRAPH}, {"id": 6, "type": "Sample"}], "links": None}
    links = [None, [], [5, 4], [6, 4, 0, 4, 0], {"id": 8}, [3, 1, None, 2, 0]]
    prompt = {"1": {"class_type": "Sample"}, "2": {"inputs": None}, "5": sampled(), "3:6": sampled()}
    notes = notes_on(nodes, prompt, links, definitions={"subgraphs": [graph]})
    assert "a circle of nodes" in next(n.text for n in notes if n.node_id == "5")
    assert notes_on([], {}, links=()) == []


def test_notes_are_json_and_every_kind_has_a_level() -> None:
    note = cs.ConversionNote("muted", "57:35", "A", None, None, "A #57:35 is muted.")
    assert cs.ConversionNote(**json.loads(json.dumps(dataclasses.asdict(note)))) == note
    assert set(cs.ConversionNote.KINDS.values()) == {logging.INFO, logging.WARNING}
    assert len({note}) == 1


def test_shape_of_a_workflow_is_all_but_its_values() -> None:
    def shape(**node: Any) -> str:
        inner = {"id": SUBGRAPH, "nodes": [{**sample(), **node}], "links": [[1, 2, 0, 3, 0]]}
        return cs.workflow_shape({"nodes": [], "definitions": {"subgraphs": [inner]}})

    assert shape() == shape(widgets_values=[1], title="other", pos=[5, 5], properties={"a": 1})
    assert len({shape(), shape(mode=4), shape(id=9), shape(type="Load")}) == 4


def test_large_workflow_is_compared_in_no_time() -> None:
    nodes = [sample(i, link=i) for i in range(1, 2001)]
    links = [[i, i - 1, 0, i, 0] for i in range(1, 2001)]
    prompt = {str(i): sampled(model=[str(i - 1), 0]) for i in range(1, 2001)}
    begun = time.perf_counter()
    notes_on(nodes, prompt, links)
    assert time.perf_counter() - begun < 1.0


def test_stored_conversions_come_back_with_their_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cs, "cache_folder", lambda: tmp_path)
    note = cs.ConversionNote("link_lost", "1", "Sample", "My sampler", "model", "It is lost.")
    conversion = cs.Conversion({"1": sampled()}, [note])
    cs.ConversionStore(on_disk=True).put("key", conversion)
    assert cs.ConversionStore(on_disk=True).get("key") == conversion
    assert cs.ConversionStore(on_disk=False).get("key") is None
    file = tmp_path / "conversions" / "key.json"
    for damaged in ("", "[]", "{}", '{"prompt": {}, "notes": [{}]}', '{"prompt": [1], "notes": []}', '{"1": {}}'):
        file.write_text(damaged)
        assert cs.ConversionStore(on_disk=True).get("key") is None


def test_rejections_are_explained() -> None:
    prompt = {"4": {"class_type": "KSampler", "inputs": {}, "_meta": {"title": "Sample"}}}
    answer = {
        "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"},
        "node_errors": {
            "4": {
                "class_type": "KSampler",
                "errors": [
                    {"message": "Value -1 smaller than min of 1", "details": "steps"},
                    {"message": "Required input is missing", "details": "model"},
                ],
            }
        },
    }
    assert cs.explain_rejection(answer, prompt) == (
        "The server refuses the prompt. KSampler #4 ('Sample'): Value -1 smaller than min of 1 (steps); "
        "KSampler #4 ('Sample'): Required input is missing (model)."
    )
    empty = {
        "error": {"type": "prompt_no_outputs", "message": "Prompt has no outputs", "details": ""},
        "node_errors": [],
    }
    assert "Prompt has no outputs. It needs a node that delivers something" in cs.explain_rejection(empty, {})
    assert cs.explain_rejection({"error": "no prompt"}, {}) == "The server refuses the prompt: no prompt."
    assert cs.explain_rejection({}, {}).startswith("The server refuses the prompt: no reason given")


# ---- errors ----


def test_error_tree_is_as_documented() -> None:
    for error, bases in {
        cs.ConfigError: (ValueError,),
        cs.ServerNotFoundError: (),
        cs.ServerStartError: (),
        cs.ServerDiedError: (),
        cs.BrowserError: (),
        cs.ConversionTimeoutError: (cs.ConversionError, TimeoutError),
        cs.UnknownNodeError: (cs.ConversionError,),
        cs.PromptRejectedError: (),
        cs.NodeExecutionError: (),
        cs.PromptInterruptedError: (),
        cs.RunTimeoutError: (TimeoutError,),
    }.items():
        assert issubclass(error, (cs.ConnectorError, RuntimeError))
        assert all(issubclass(error, base) for base in bases)


def test_node_error_without_details_is_still_a_sentence() -> None:
    error = cs.NodeExecutionError("p", {"node_id": None, "node_type": None, "traceback": None})
    assert str(error)
    assert error.server_traceback == []


# ---- the connector, before any server ----


def test_connector_cannot_be_made_by_hand() -> None:
    with pytest.raises(TypeError, match=r"await ComfyConnector\.create\(\)"):
        cs.ComfyConnector()


def test_importing_is_light() -> None:
    code = "import sys, discomfort.comfy_serverless; print(*{'torch', 'playwright', 'websockets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == ""


async def test_work_in_a_thread_is_finished_before_a_cancellation_passes() -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_end.wait(5)
        ended.set()

    task = asyncio.create_task(cs._in_thread(work))
    await asyncio.to_thread(begun.wait, 5)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_error_in_a_thread_is_raised() -> None:
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await cs._in_thread(fail)


def test_illegal_change_of_state_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    connector = SimpleNamespace(_state=cs.State.KILLED, _state_since=0.0)
    with pytest.raises(cs.ConnectorError, match="A connector that is killed cannot become ready"):
        cs.ComfyConnector._set_state(connector, cs.State.READY, "a test")  # type: ignore[arg-type]
    connector._state = cs.State.UNINIT
    with caplog.at_level(logging.INFO, "discomfort.comfy_serverless"):
        cs.ComfyConnector._set_state(connector, cs.State.INITIALIZING, "a test")  # type: ignore[arg-type]
    assert "uninit -> initializing after" in caplog.text
    assert "a test" in caplog.text


# ---- uploads ----


@pytest.fixture
def upload(tmp_path: Path) -> Callable[..., Path]:
    """``upload(...)`` with a connector whose tree is <tmp_path>/tree, without any process."""
    tree = make_tree(tmp_path / "tree")
    connector = object.__new__(cs.ComfyConnector)
    connector._choice = cs.ServerChoice("comfyui", tree, (), (), tree, "a test")
    folder = SimpleNamespace(temp_directory=tmp_path / "run" / "temp", note_upload=lambda file: None)
    connector._server = connector._folder = folder  # type: ignore[assignment]
    connector._ephemeral_files, connector._ephemeral_folders = [], []

    def call(*args: Any, **more: Any) -> Path:
        return Path(connector.upload_data(*args, **more))

    call.connector = connector  # type: ignore[attr-defined]
    return call


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "photo.png"
    file.write_bytes(b"picture")
    return file


@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        ({}, "tree/input/photo.png"),
        ({"folder_type": "output"}, "tree/output/photo.png"),
        ({"folder_type": "temp"}, "run/temp/photo.png"),
        ({"folder_type": "models", "subfolder": "loras"}, "tree/models/loras/photo.png"),
        ({"subfolder": "a/b"}, "tree/input/a/b/photo.png"),
        ({"subfolder": "a/../b"}, "tree/input/b/photo.png"),
    ],
)
def test_uploads_go_where_the_server_looks(
    upload: Callable[..., Path], source: Path, tmp_path: Path, arguments: dict[str, Any], target: str
) -> None:
    path = upload(source, **arguments)
    assert path == tmp_path / target
    assert path.read_bytes() == b"picture"
    assert os.listdir(path.parent) == ["photo.png"]


@pytest.mark.parametrize("subfolder", ["..", "../x", "a/../../x", "/etc", "a/../../../../etc"])
def test_uploads_stay_inside_their_folder(upload: Callable[..., Path], source: Path, subfolder: str) -> None:
    with pytest.raises(ValueError, match="must stay inside"):
        upload(source, subfolder=subfolder)


def test_upload_into_a_folder_of_models_that_is_a_link(
    upload: Callable[..., Path], source: Path, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "tree" / "models").mkdir()
    (tmp_path / "tree" / "models" / "loras").symlink_to(tmp_path / "disk")
    assert upload(source, "models", "loras").read_bytes() == b"picture"
    assert (tmp_path / "disk" / "photo.png").exists()


def test_upload_of_a_name_that_exists(upload: Callable[..., Path], source: Path) -> None:
    target = upload(source)
    before = target.stat().st_mtime_ns
    assert upload(source) == target  # the same content
    assert target.stat().st_mtime_ns == before
    source.write_bytes(b"another")
    with pytest.raises(FileExistsError, match="Pass overwrite=True"):
        upload(source)
    assert target.read_bytes() == b"picture"
    assert upload(source, overwrite=True).read_bytes() == b"another"


def test_ephemeral_uploads_are_deleted_but_never_what_was_there_before(
    upload: Callable[..., Path], source: Path, tmp_path: Path
) -> None:
    kept = upload(source)
    assert upload(source, is_ephemeral=True) == kept
    source.write_bytes(b"another")
    assert upload(source, overwrite=True, is_ephemeral=True) == kept
    gone = [upload(source, subfolder="e", is_ephemeral=True), upload(source, "output", is_ephemeral=True)]
    gone[1].unlink()  # somebody else was faster
    used = upload(source, subfolder="used/by others", is_ephemeral=True)
    (used.parent.parent / "theirs").touch()
    upload.connector._delete_data()  # type: ignore[attr-defined]
    assert kept.exists()
    assert not any(path.exists() for path in [*gone, used])
    # Folders that were made for them go too, unless they are used.
    assert sorted(os.listdir(kept.parent)) == ["photo.png", "used"]
    assert os.listdir(kept.parent / "used") == ["theirs"]


def test_bad_uploads_are_sentences(upload: Callable[..., Path], source: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no file .*missing"):
        upload(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        upload(tmp_path)
    with pytest.raises(ValueError, match="folder_type is 'inputs'; it must be"):
        upload(source, "inputs")
    with pytest.raises(ValueError, match="'models' needs a subfolder"):
        upload(source, "models")
    upload.connector._server = None  # type: ignore[attr-defined]
    with pytest.raises(cs.ConnectorError, match="needs a running server"):
        upload(source)


def test_uploads_follow_the_folders_of_the_command_line(
    upload: Callable[..., Path], source: Path, tmp_path: Path
) -> None:
    connector = upload.connector  # type: ignore[attr-defined]
    tree = connector._choice.path
    arguments = ("--input-directory", str(tmp_path / "in"), "--base-directory=base")
    connector._choice = cs.ServerChoice("comfyui", tree, (), arguments, tree, "a test")
    assert upload(source) == tmp_path / "in" / "photo.png"
    assert upload(source, "output") == tree / "base" / "output" / "photo.png"


def test_embedded_server_that_loses_its_port_says_so_in_words_that_lead_to_the_next_port() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        argv = [sys.executable, str(Path(cs.__file__).parent / "embedded"), "--port", str(other.getsockname()[1])]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert any(text in done.stdout + done.stderr for text in cs._PORT_TAKEN_TEXTS)


@pytest.mark.skipif(sys.platform == "win32", reason="there a junction takes the link's place")
def test_a_link_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    """A folder stands where the link to a pack would."""
    (tmp_path / "pack").mkdir()
    (tmp_path / "links" / "pack").mkdir(parents=True)
    with pytest.raises(OSError, match="pack"):
        cs._make_link(tmp_path / "pack", tmp_path / "links")
    assert [entry.name for entry in (tmp_path / "links").iterdir()] == ["pack"]
