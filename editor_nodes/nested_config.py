"""How the nested server of the runner nodes is started: as the ComfyUI that they run in was.

Somebody who started ComfyUI with ``--cpu``, ``--base-directory`` or a list of model folders means workflows that run
inside it too. So the arguments of its command line are handed on, without those that are about the one process alone:
its address, its browser window, its temporary files, its log.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
import urllib.parse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..comfy_serverless import ConnectorConfig

# Arguments that are about one process and its users. Every other one, also of a newer ComfyUI, is about how workflows
# run.
_OWN_AFFAIRS = frozenset(
    {
        *("--listen", "--port", "--allow-remote", "--tls-keyfile", "--tls-certfile", "--enable-cors-header"),
        *("--max-upload-size", "--enable-compress-response-body", "--multi-user", "--feature-flag"),
        *("--auto-launch", "--disable-auto-launch", "--windows-standalone-build", "--quick-test-for-ci"),
        *("--temp-directory", "--database-url", "--list-feature-flags", "--debug-hang"),
        *("--verbose", "--log-stdout", "--dont-print-server"),
        *("--enable-manager", "--disable-manager-ui", "--enable-manager-legacy-ui"),
    }
)
# Arguments whose values are paths: relative to the folder that ComfyUI was started in, which is not the nested one's.
_PATHS = frozenset(
    {
        *("--base-directory", "--output-directory", "--input-directory", "--user-directory", "--models-directory"),
        *("--extra-model-paths-config", "--front-end-root"),
    }
)

# Behind it there are too few ports to look for a free one.
_LAST_PORT = 65000
# Names of this machine in an address.
_HERE = frozenset({"127.0.0.1", "localhost", "::1"})


class Surroundings(NamedTuple):
    """The ComfyUI that this process is."""

    #: "comfyui" or "embedded"
    kind: str
    #: its folder, the one with main.py; of the embedded server the folder of its code
    tree: Path
    #: its command line, without interpreter and script
    arguments: Sequence[str]
    #: where it listens; None where that is not known
    port: int | None = None


def surroundings() -> Surroundings | None:
    """The ComfyUI that this process is, None where it is none."""
    module = sys.modules.get("comfy.cli_args")
    file = getattr(module, "__file__", None)
    if "server" not in sys.modules or file is None:
        return None
    path = Path(file).resolve()
    port = own_port(sys.modules["server"])
    if path.name == "arguments.py":  # the embedded server's, under ComfyUI's name
        return Surroundings("embedded", path.parent, sys.argv[1:], port)
    return Surroundings("comfyui", path.parent.parent, sys.argv[1:], port)


def own_port(server: Any) -> int | None:
    """Where this ComfyUI listens, from its module of this name."""
    port = getattr(getattr(getattr(server, "PromptServer", None), "instance", None), "port", None)
    return port if isinstance(port, int) else None


def inherited_arguments(arguments: Iterable[str], folder: Path) -> list[str]:
    """The arguments that the nested server gets too, with absolute paths.

    Args:
        folder: the one that relative paths count from.
    """
    kept: list[str] = []
    name = ""
    for word in arguments:
        is_option = word.startswith("--")
        if is_option:
            name, has_value, value = word.partition("=")
        if not name or name in _OWN_AFFAIRS:  # an option's values go with it
            continue
        if name not in _PATHS:
            kept.append(word)
        elif not is_option:
            kept.append(os.path.join(folder, word))
        else:
            kept.append(f"{name}={os.path.join(folder, value)}" if has_value else name)
    return kept


def nested_config(around: Surroundings | None, config: ConnectorConfig, folder: Path) -> ConnectorConfig:
    """The configuration of the nested server.

    Args:
        around: the surrounding ComfyUI; None leaves the configuration as it is.
        config: what comfy_serverless.json says. A COMFYUI_PATH there or in the environment wins: another ComfyUI that
            is named there is started as it says, with nothing from this one.
        folder: the one that this process was started in.
    """
    if around is None or config.attached_url:
        return config
    named = _named_place(config)
    if named is not None and named != _place(around):
        return config
    words = shlex.split(config.API_COMMAND_LINE, posix=os.name != "nt")
    script = next((i + 1 for i, word in enumerate(words) if word.endswith(".py")), len(words))
    # What the configuration says itself comes last, and wins.
    inherited = [_quoted(word) for word in inherited_arguments(around.arguments, folder)]
    command = [*map(_quoted, words[:script]), *inherited, *map(_quoted, words[script:])]
    has_python = bool(config.COMFYUI_PYTHON or os.environ.get("COMFYUI_PYTHON"))
    return dataclasses.replace(
        config,
        INITIAL_PORT=_first_port(config, around.port),
        API_COMMAND_LINE=" ".join(command),
        COMFYUI_PATH=_place(around),
        # What runs this ComfyUI can run another one; a venv beside it may be somebody else's.
        COMFYUI_PYTHON=config.COMFYUI_PYTHON if has_python else sys.executable,
    )


def _first_port(config: ConnectorConfig, own: int | None) -> int:
    """Several ComfyUIs on a machine have ports of their own; behind each there is room for what it starts."""
    if config.INITIAL_PORT != ConnectorConfig.INITIAL_PORT or own is None or not 1024 <= own < _LAST_PORT:
        return config.INITIAL_PORT
    return own + 1


def _quoted(word: str) -> str:
    return word if os.name == "nt" else shlex.quote(word)


def _place(around: Surroundings) -> str:
    return "embedded" if around.kind == "embedded" else str(around.tree)


def _named_place(config: ConnectorConfig) -> str | None:
    """The ComfyUI that the user named: its folder, or "embedded"; None where nobody did."""
    here = ("", ".", "./")
    in_environment = os.environ.get("COMFYUI_PATH", "")
    for value, base in (
        (config.COMFYUI_PATH, config.base_folder),
        (config.API_WORKING_DIRECTORY, config.base_folder),
        (in_environment, Path.cwd()),
    ):
        if value == "embedded":
            return value
        if value not in here:
            return str((base / Path(value).expanduser()).resolve())
    return None


def refuse_own_address(url: str, server: Any) -> None:
    """Refuse an API_URL that leads back here: a node that executes would wait for a prompt that waits for the node.

    Args:
        url: of the running server that is to be used, "" for none.
        server: ComfyUI's module of this name, None outside one.

    Raises:
        RuntimeError: it is this server's own.
    """
    parts = urllib.parse.urlsplit(url)
    if url and parts.port is not None and parts.port == own_port(server) and parts.hostname in _HERE:
        raise RuntimeError(
            f"API_URL in comfy_serverless.json is {url}, which is this ComfyUI itself. While a runner node executes it "
            "cannot execute anything else. Remove the port from API_URL, so that a second server is started."
        )
