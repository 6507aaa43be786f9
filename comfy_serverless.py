"""ComfyConnector: one ComfyUI server, owned by this process and driven from asyncio.

The file stands alone: it imports established packages only (aiohttp, websockets, playwright, psutil, filelock) and
nothing of the project around it, so that anybody can copy it and use it. It holds, in this order:

====================  ==================================================================================
errors                the exception tree (drawn below)
``ConnectorConfig``   the declared configuration: keys, defaults, validation (``comfy_serverless.json``)
``ServerChoice``      which ComfyUI is started, with which interpreter, and why
``RuntimeFolder``     the private folder of one nested server: temp files, database, log, lock; sweeping
``ServerProcess``     the child process: spawn, readiness, log tail, stop ladder
``AttachedServer``    a server that runs already: the one that API_URL names, or a warm one
``WarmServer``        what the keeper of a warm server publishes about it (the keeper itself: warm_server.py)
``FrontendPage``      headless Chromium with the real ComfyUI frontend: workflow -> prompt
``ConversionNote``    one thing that a conversion left out or changed: nothing is dropped in silence
``ConversionStore``   finished conversions on disk, so that an unchanged workflow needs no browser
``EventStream``       the websocket: typed events, reconnecting, told apart by prompt
``ComfyConnector``    the face over all of it, an async singleton
====================  ==================================================================================

Words: a *workflow* is the editor's JSON, a *prompt* is the API dict ``{node_id: {"class_type", "inputs"}}`` that the
server executes. Protocol facts were measured on ComfyUI 0.3.64 and 0.8.0 with frontends 1.27.10, 1.35.9 and 1.58.1.

Ownership in one paragraph: the server runs in a session (process group) of its own, with a private folder that holds
its temp files and database, so that a ComfyUI the user runs from the same tree is never touched. A tiny *guard*
process, without imports beyond the standard library, waits for the end of this process, however it ends (also
``kill -9``), then ends the server and the browser and removes the folder. The next call replaces a guard that was
killed; should both be killed, the next start sweeps: folders whose lock nobody holds are dead. On Windows a job object
takes the guard's place (designed, not yet run there). Nothing is ever killed that was not started here: processes are
recognised by pid *and* the random folder name in their command line.

Error tree::

    ConnectorError (RuntimeError)
    ├── ConfigError (ValueError)            bad key or value in the configuration
    ├── ServerNotFoundError                 nothing to start, or no ComfyUI where one was named
    ├── ServerStartError                    the process ended or never answered; carries the last log lines
    ├── ServerDiedError                     the server went away while it was needed
    ├── NotOurServerError                   asks for what only a server started here can do
    ├── BrowserError                        no usable browser
    ├── ConversionError                     the frontend could not turn this workflow into a prompt
    │   ├── ConversionTimeoutError (TimeoutError)
    │   └── UnknownNodeError                node types that the server does not have
    ├── PromptRejectedError                 the server refused the prompt (validation)
    ├── NodeExecutionError                  a node raised
    │   └── OutOfMemoryError                because memory, of the GPU or the machine, ran out
    ├── PromptInterruptedError              the run was interrupted on the server
    └── RunTimeoutError (TimeoutError)      RUN_TIMEOUT or STALL_TIMEOUT passed

Every one of them carries ``prompt_id``, ``node_id``, ``class_type``, ``title`` and ``log_tail``: the prompt and the
node it is about, and the server's last log lines, as far as they are known. They can be pickled.
"""

from __future__ import annotations

import asyncio
import atexit
import collections
import concurrent.futures
import configparser
import contextlib
import dataclasses
import enum
import functools
import hashlib
import importlib
import inspect
import io
import ipaddress
import json
import logging
import logging.handlers
import math
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import types
import urllib.parse
import uuid
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TypeVar

import aiohttp
import filelock
import psutil

log = logging.getLogger("discomfort.comfy_serverless")
# The nested server's own output goes to a log file of its own (RuntimeFolder.log_path), never into this logger's
# handlers, so that ComfyUI's terminal and Discomfort's stay apart.

Json = dict[str, Any]
_T = TypeVar("_T")

IS_WINDOWS = sys.platform == "win32"
HERE = Path(__file__).resolve().parent

# --------------------------------------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------------------------------------


def _restore_error(kind: type[ConnectorError], args: tuple[Any, ...], attributes: dict[str, Any]) -> ConnectorError:
    """Unpickle a ConnectorError: the classes have constructors of their own, which pickle would call with ``args``."""
    # The time-outs are OSErrors as well, which only OSError itself can make.
    new = OSError.__new__ if issubclass(kind, OSError) else RuntimeError.__new__
    error: ConnectorError = new(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class ConnectorError(RuntimeError):
    """Base of everything this file raises on purpose."""

    #: prompt that the error is about, None where it is about none
    prompt_id: str | None = None
    #: node that raised, or that was being executed when the run ended; None where it is not known
    node_id: str | None = None
    #: class of that node
    class_type: str | None = None
    #: its title in the editor, None where the prompt does not say
    title: str | None = None
    #: the last lines that the server printed; empty where they cannot be seen (a server on another machine)
    log_tail: Sequence[str] = ()

    def __reduce__(self) -> Any:
        return _restore_error, (type(self), self.args, dict(self.__dict__))

    @property
    def node_name(self) -> str:
        """``class #id ('title')`` of the node that the error is about, "" where there is none."""
        return _node_name(self.class_type, self.node_id, self.title) if self.node_id else ""


def _node_name(class_type: str | None, node_id: str | None, title: str | None) -> str:
    """How messages call a node: ``class #id ('title')``; a title that says no more than the class is left out."""
    name = f"{class_type or 'node'} #{node_id}"
    return f"{name} ({title!r})" if title and title != class_type else name


class ConfigError(ConnectorError, ValueError):
    """A key or value of the configuration cannot be used."""


class ServerNotFoundError(ConnectorError):
    """There is no server to use: no ComfyUI was found, the place that was named holds none, or the address that was
    named does not answer as a ComfyUI.
    """


class ServerStartError(ConnectorError):
    """The server process ended, or did not answer, before it was ready."""

    def __init__(
        self,
        problem: str,
        command: Sequence[str],
        returncode: int | None,
        log_tail: Sequence[str],
        log_path: Path,
    ):
        self.problem = problem
        self.command = list(command)
        #: exit status of the process; None while it still ran
        self.returncode = returncode
        self.log_tail = list(log_tail)
        self.log_path = log_path
        super().__init__(problem)

    def __str__(self) -> str:
        lines = "\n".join(f"    {line}" for line in self.log_tail[-15:]) or "    (it printed nothing)"
        return f"{self.problem} Command: {shlex.join(self.command)}\n  Its last log lines:\n{lines}"


class ServerDiedError(ConnectorError):
    """The server went away while it was needed. The next call starts a fresh one, or looks for it again."""

    def __init__(
        self, problem: str, log_tail: Sequence[str] = (), returncode: int | None = None, out_of_memory: bool = False
    ):
        self.problem = problem
        self.log_tail = list(log_tail)
        #: exit status of its process (negative: the signal that ended it), None where that is not known
        self.returncode = returncode
        #: whether the system ended it because memory ran out (Linux; a count of such events rose while it lived)
        self.out_of_memory = out_of_memory
        super().__init__(problem)

    def __str__(self) -> str:
        text = self.problem
        if self.node_name:
            text += f" It was executing {self.node_name}."
        if self.log_tail:
            text += "\n  Its last log lines:\n" + "\n".join(f"    {line}" for line in self.log_tail[-10:])
        return text


class NotOurServerError(ConnectorError):
    """What was asked for needs a server on this machine whose folders are known; this one runs elsewhere."""


class BrowserError(ConnectorError):
    """No browser could be started; the message lists what was tried."""


class ConversionError(ConnectorError):
    """The frontend could not turn the workflow into a prompt."""


class ConversionTimeoutError(ConversionError, TimeoutError):
    """A conversion, or the loading of the frontend before it, took longer than CONVERSION_TIMEOUT."""


class UnknownNodeError(ConversionError):
    """The workflow uses node types that the server does not have."""

    def __init__(self, message: str, unknown: Mapping[str, str]):
        #: {node id: node type}
        self.unknown = dict(unknown)
        super().__init__(message)


class PromptRejectedError(ConnectorError):
    """The server answered POST /prompt with an error, or accepted only a part of the outputs.

    Attributes: ``error`` and ``node_errors`` are the server's JSON, see its ``validate_prompt``; the attributes of the
    node are those of the first one that it complains of.
    """

    def __init__(self, message: str, error: Any, node_errors: Mapping[str, Any]):
        self.error = error
        self.node_errors = dict(node_errors) if isinstance(node_errors, Mapping) else {}
        for node_id, problem in self.node_errors.items():
            self.node_id = str(node_id)
            self.class_type = problem.get("class_type") if isinstance(problem, Mapping) else None
            break
        super().__init__(message)


class NodeExecutionError(ConnectorError):
    """A node raised while the server executed a prompt; data as in the ``execution_error`` message."""

    def __init__(self, prompt_id: str, data: Mapping[str, Any], title: str | None = None):
        self.prompt_id: str = prompt_id
        self.node_id: str = str(data.get("node_id", ""))
        self.class_type: str = str(data.get("node_type", ""))
        self.title = title
        self.exception_type = str(data.get("exception_type", ""))
        # ComfyUI appends "\n" and sometimes tips to the message.
        self.exception_message = str(data.get("exception_message", "")).strip()
        lines = data.get("traceback")
        self.server_traceback: list[str] = [str(line) for line in lines] if isinstance(lines, list) else []
        self.data = dict(data)
        super().__init__(self.exception_message)

    def __str__(self) -> str:
        text = f"Node {self.node_name} failed: {self.exception_type}: {self.exception_message}"
        if self.server_traceback:
            text += "\n  Traceback on the server:\n" + textwrap.indent("".join(self.server_traceback).rstrip(), "    ")
        return text


class OutOfMemoryError(NodeExecutionError):
    """A node raised because memory ran out, the GPU's or the machine's. The server lives on and has, if it is a
    ComfyUI, unloaded its models; :meth:`ComfyConnector.free` empties its cache too.
    """


class PromptInterruptedError(ConnectorError):
    """The run was interrupted on the server (its Cancel button, POST /interrupt, or a deleted queue entry)."""


class RunTimeoutError(ConnectorError, TimeoutError):
    """RUN_TIMEOUT or STALL_TIMEOUT passed; the prompt was interrupted."""

    def __str__(self) -> str:
        return super().__str__() + (f" It was executing {self.node_name}." if self.node_name else "")


# Messages of RuntimeErrors that mean: memory ran out. PyTorch's CPU allocator and MPS raise no class of their own; CUDA
# libraries report a failed allocation as a status.
_NO_MEMORY_TEXTS = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory|allocation on device|_ALLOC_FAILED",
    re.IGNORECASE,
)


def is_out_of_memory(exception_type: str, exception_message: str) -> bool:
    """Whether an error that a node raised means that memory ran out.

    By class: ``torch.OutOfMemoryError``, ``torch.cuda.OutOfMemoryError``, ``MemoryError``, numpy's
    ``_ArrayMemoryError``. By text: a RuntimeError, an OSError (ENOMEM) or an AcceleratorError of PyTorch that says so.
    """
    name = exception_type.rpartition(".")[2]
    if name == "OutOfMemoryError" or name.endswith("MemoryError"):
        return True
    return name in ("RuntimeError", "AcceleratorError", "OSError") and bool(_NO_MEMORY_TEXTS.search(exception_message))


# --------------------------------------------------------------------------------------------------------------------
# Configuration
# --------------------------------------------------------------------------------------------------------------------


def _option(
    default: Any,
    help: str,
    minimum: float | None = None,
    choices: tuple[str, ...] | None = None,
    is_secret: bool = False,
) -> Any:
    """Declare one configuration key: its default, what it means, and what is allowed. A secret one is not in repr()."""
    return dataclasses.field(
        default=default, repr=not is_secret, metadata={"help": help, "minimum": minimum, "choices": choices}
    )


@dataclasses.dataclass(frozen=True)
class ConnectorConfig:
    """Every key of ``comfy_serverless.json``. A key that is not in the file keeps its default."""

    API_COMMAND_LINE: str = _option(
        "python3 main.py",
        "Command that starts ComfyUI in its folder. A bare 'python' or 'python3' means the interpreter chosen for that "
        "tree (COMFYUI_PYTHON, its own venv, else this one). Arguments given here win over Discomfort's own.",
    )
    API_WORKING_DIRECTORY: str = _option("./", "Folder the server runs in; './' is the ComfyUI folder itself.")
    API_URL: str = _option(
        "127.0.0.1",
        "Host under which the nested server is reached. With a port (127.0.0.1:8188, http://gpu-box:8188), a path or "
        "https: the address of a server that runs already; it is used, never stopped, and none is started.",
    )
    API_TOKEN: str = _option(
        "",
        "Bearer token for a server that API_URL names; empty: the environment variable DISCOMFORT_API_TOKEN. It is "
        "never logged.",
        is_secret=True,
    )
    INITIAL_PORT: int = _option(8188, "First port that is tried; the next free one is taken.", minimum=1)
    TEST_PAYLOAD_FILE: str = _option(
        "test_server.json", "Workflow that _test_server() runs, relative to the config file."
    )
    MAX_COMFY_START_ATTEMPTS: int = _option(
        10,
        "How many times a start is tried when the cause is passing (a port lost to another program).",
        minimum=1,
    )
    COMFY_START_ATTEMPTS_SLEEP: float = _option(
        1.0, "Seconds before the second attempt; doubles up to 30 s.", minimum=0
    )
    COMFYUI_PATH: str = _option(
        "./",
        "The ComfyUI folder (the one with main.py). './' means: search. 'embedded' means Discomfort's own server.",
    )
    # Additions to the seed reference:
    COMFYUI_PYTHON: str = _option("", "Interpreter for ComfyUI; empty: the tree's own venv, else this interpreter.")
    DEVICE: str = _option(
        "auto",
        "'cpu' adds --cpu, 'gpu' never does, 'auto' adds it where no GPU is found.",
        choices=("auto", "cpu", "gpu"),
    )
    CACHE_LRU: int = _option(
        1000,
        "Node outputs the server keeps (--cache-lru), so that alternating workflows stay cached; 0: its default.",
        minimum=0,
    )
    MAX_SERVER_MEMORY_PERCENT: float = _option(
        60.0,
        "Above this share of the machine's memory the server is asked, between runs, to empty its cache.",
        minimum=1,
    )
    START_TIMEOUT: float = _option(300.0, "Seconds until a starting server must answer.", minimum=1)
    STOP_TIMEOUT: float = _option(5.0, "Seconds each of the first two rungs of the stop ladder may take.", minimum=0.1)
    REQUEST_TIMEOUT: float = _option(60.0, "Seconds for one HTTP request to the server.", minimum=1)
    RUN_TIMEOUT: float = _option(0.0, "Seconds for one prompt from queueing to its end; 0: no limit.", minimum=0)
    STALL_TIMEOUT: float = _option(
        0.0, "Seconds without any event of a running prompt until it counts as hung; 0: no limit.", minimum=0
    )
    CONVERSION_TIMEOUT: float = _option(
        90.0, "Seconds for one conversion attempt, loading the frontend included.", minimum=1
    )
    CONVERSION_ATTEMPTS: int = _option(3, "Attempts for one conversion; each has a fresher browser.", minimum=1)
    CONVERSIONS_PER_PAGE: int = _option(
        200,
        "The page is loaded anew after so many conversions: the frontend leaks about 0.7 MB each.",
        minimum=1,
    )
    STORE_CONVERSIONS: bool = _option(
        True, "Keep finished conversions on disk, so that later processes need no browser."
    )
    BROWSER_PATH: str = _option(
        "", "Browser executable; empty: DISCOMFORT_BROWSER, Playwright's own, then installed ones."
    )
    BROWSER_IDLE_TIMEOUT: float = _option(
        120.0,
        "Seconds without a conversion after which the browser (about 0.7 GB) is closed; 0: never.",
        minimum=0,
    )
    AUTO_INSTALL_BROWSER: bool = _option(True, "Let Playwright download its Chromium when no browser is found.")
    LOG_FILE: str = _option("", "Where the server's output goes; empty: a file in the nested server's private folder.")
    USE_WARM_SERVER: bool = _option(
        True,
        "Use the server that 'python -m discomfort server start' keeps running, where it was started with the same "
        "settings, instead of starting one.",
    )
    WARM_IDLE_TIMEOUT: float = _option(
        3600.0, "Seconds without any use after which such a warm server ends; 0: never.", minimum=0
    )
    NODE_PACKS: Sequence[str | os.PathLike[str]] = _option(
        (),
        "Custom-node packs that the nested server loads besides those of its ComfyUI: a list of paths, each of a "
        "folder with __init__.py or of a .py file. Nothing is written into the ComfyUI.",
    )
    #: folder that relative paths in the configuration are relative to
    base_folder: Path = dataclasses.field(default=HERE, metadata={"internal": True})

    def __post_init__(self) -> None:
        object.__setattr__(self, "NODE_PACKS", _checked_packs(self.NODE_PACKS, "configuration"))

    @classmethod
    def keys(cls) -> list[str]:
        """The names of all configuration keys."""
        return [f.name for f in dataclasses.fields(cls) if not f.metadata.get("internal")]

    @classmethod
    def load(cls, path: str | os.PathLike[str] | ConnectorConfig | None = None) -> ConnectorConfig:
        """Read and check a configuration file.

        Args:
            path: JSON file; a configuration is returned as it is; None reads ``comfy_serverless.json`` beside this
                file, or takes the defaults where it is missing (the file may have been copied alone).

        Raises:
            ConfigError: the file is missing, is not JSON, or has an unknown key or a bad value.
        """
        if isinstance(path, ConnectorConfig):
            return path
        file = Path(path) if path is not None else HERE / "comfy_serverless.json"
        if path is None and not file.exists():
            return cls()
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"Configuration file {file} does not exist. Name none to use the defaults.") from None
        except OSError as e:
            raise ConfigError(f"Configuration file {file} cannot be read: {e}.") from e
        except ValueError as e:
            raise ConfigError(f"Configuration file {file} is not valid JSON: {e}.") from e
        if not isinstance(values, dict):
            raise ConfigError(f"Configuration file {file} must hold a JSON object, not {type(values).__name__}.")
        return cls.from_values(values, source=str(file), base_folder=file.resolve().parent)

    @classmethod
    def from_values(
        cls, values: Mapping[str, Any], source: str = "configuration", base_folder: Path = HERE
    ) -> ConnectorConfig:
        """Check *values* and build the configuration; ConfigError names key, value and what is allowed."""
        known = {f.name: f for f in dataclasses.fields(cls) if not f.metadata.get("internal")}
        unknown = [key for key in values if key not in known and not key.startswith("_")]
        if unknown:
            raise ConfigError(f"{source}: unknown key {unknown[0]!r}. Allowed keys: {', '.join(known)}.")
        checked = {key: cls._check(known[key], value, source) for key, value in values.items() if key in known}
        return cls(**checked, base_folder=base_folder)

    @staticmethod
    def _check(field: dataclasses.Field[Any], value: Any, source: str) -> Any:
        if field.name == "NODE_PACKS":
            return _checked_packs(value, source)
        expected = type(field.default)
        shown = repr(value) if field.repr else "set"  # a secret is not for messages
        # bool is an int in Python; JSON true must not pass as a port.
        ok = isinstance(value, expected) and (expected is bool) == isinstance(value, bool)
        if expected is float and isinstance(value, int) and not isinstance(value, bool):
            value, ok = float(value), True
        if not ok:
            names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
            raise ConfigError(
                f"{source}: {field.name} is {shown}, it must be {names[expected]} (default {field.default!r})."
            )
        if expected is float and not math.isfinite(value):  # Python reads NaN and Infinity in JSON
            raise ConfigError(f"{source}: {field.name} is {value!r}, it must be a finite number.")
        minimum, choices = field.metadata["minimum"], field.metadata["choices"]
        if minimum is not None and value < minimum:
            raise ConfigError(
                f"{source}: {field.name} is {value!r}, it must be at least {minimum} (default {field.default!r})."
            )
        if choices and value not in choices:
            raise ConfigError(
                f"{source}: {field.name} is {value!r}, it must be one of {', '.join(map(repr, choices))}."
            )
        if field.name == "INITIAL_PORT" and value > 65535:
            raise ConfigError(f"{source}: INITIAL_PORT is {value}, it must be at most 65535.")
        if field.name == "API_URL":
            try:
                read_api_url(value)
            except ValueError as e:
                raise ConfigError(
                    f"{source}: API_URL {e}. It is a host name or an IP address (default {field.default!r}), or, to "
                    "use a server that runs already, its address with port: 'gpu-box:8188', 'https://host/path'."
                ) from None
        if field.name == "API_TOKEN":
            _check_token(value, f"{source}: API_TOKEN")
        return value

    @property
    def host(self) -> str:
        """Host part of the nested server's address, IPv6 in brackets. A wildcard address is reached by loopback."""
        return read_api_url(self.API_URL)[0]

    @property
    def attached_url(self) -> str:
        """Base URL, without a slash at its end, of the running server that API_URL names; "" where it names none."""
        return read_api_url(self.API_URL)[1]

    @property
    def token(self) -> str:
        """Bearer token for an attached server, "" for none. ConfigError: the one in the environment cannot be sent."""
        if self.API_TOKEN:
            return self.API_TOKEN
        token = os.environ.get("DISCOMFORT_API_TOKEN", "").strip()
        _check_token(token, "The environment variable DISCOMFORT_API_TOKEN")
        return token

    def node_packs(self) -> tuple[Path, ...]:
        """The packs of NODE_PACKS as absolute paths, each a folder with ``__init__.py`` or a ``.py`` file.

        The package that this file lies in is left out: it is loaded anyway.

        Raises:
            ConfigError: a path where there is no pack, or two packs of one name.
        """
        packs: dict[str, Path] = {}
        for given in self.NODE_PACKS:
            pack = Path(os.path.abspath(self.base_folder / Path(given).expanduser()))
            is_file = pack.is_file()
            if not pack.exists():
                problem = "does not exist"
            elif is_file and pack.suffix != ".py":
                problem = "is a file, but not a .py file"
            elif not is_file and not (pack / "__init__.py").is_file():
                problem = "has no __init__.py"
            elif pack.name.endswith(".disabled"):
                problem = "is named as what ComfyUI does not load"
            else:
                problem = ""
            if problem:
                raise ConfigError(
                    f"NODE_PACKS has {given!r}, but {pack} {problem}. A pack is a folder with an __init__.py, or a .py "
                    f"file; relative paths count from {self.base_folder}."
                )
            if pack.resolve() == HERE:
                continue
            # By this name the server calls the pack, and its browser files.
            other = packs.setdefault(os.path.normcase(pack.stem if is_file else pack.name), pack)
            if other != pack:
                raise ConfigError(
                    f"NODE_PACKS has two packs of one name: {other} and {pack}. The server tells packs by the names of "
                    "their folders: rename one of them, or leave it out."
                )
        return tuple(packs.values())


def _checked_packs(value: Any, source: str) -> tuple[str, ...]:
    """NODE_PACKS as it is kept. ConfigError: it is no list of paths."""
    if not isinstance(value, (list, tuple)) or not all(
        isinstance(one, (str, os.PathLike)) and str(one) for one in value
    ):
        raise ConfigError(
            f"{source}: NODE_PACKS is {value!r}, it must be a list of texts, each the path of a folder with "
            "__init__.py or of a .py file (default [])."
        )
    return tuple(os.fspath(one) for one in value)


def _check_token(token: str, source: str) -> None:
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError(f"{source} has a space or a character that no HTTP header may have.")


@functools.lru_cache(maxsize=16)  # every request asks
def read_api_url(value: str) -> tuple[str, str]:
    """What API_URL means: (host, ""), or (host, base URL) where it is the address of a server that runs already.

    A host alone, also as ``http://host``, is where the nested server will be. A port, a path or https can only be
    meant for a server that is there.

    Raises:
        ValueError: what is wrong with it, as the end of a sentence; never with a password that stands in it.
    """

    def in_url(host: str) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - a wildcard is no destination
        with contextlib.suppress(ValueError):
            host = ipaddress.ip_address(host).compressed
        return f"[{host}]" if ":" in host else host

    text = value.strip()
    bare = re.sub(r"^http://", "", text, flags=re.IGNORECASE).strip("/")
    if re.fullmatch(r"[\w.-]+|\[[0-9a-fA-F:]+\]|[0-9a-fA-F]*:[0-9a-fA-F:]*:[0-9a-fA-F:.]*", bare):
        return in_url(bare.strip("[]")), ""
    parts = urllib.parse.urlsplit(text if "://" in text else f"http://{text}")
    if parts.username or parts.password or "@" in parts.netloc:
        raise ValueError("has a user name or password in it; a server behind a login wants API_TOKEN")
    problem = f"is {value!r}"
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"{problem}, whose port is no number from 1 to 65535") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{problem}; only http and https are spoken")
    if (
        port == 0
        or parts.query
        or parts.fragment
        or not parts.hostname
        or not re.fullmatch(r"[\w.:-]+", parts.hostname)
    ):
        raise ValueError(f"{problem}, which is no address")
    host = in_url(parts.hostname)
    # As browsers write it, whose requests are told by it: without the port that goes without saying.
    shown = "" if port in (None, {"http": 80, "https": 443}[parts.scheme]) else f":{port}"
    return host, f"{parts.scheme}://{host}{shown}{parts.path.rstrip('/')}"


# --------------------------------------------------------------------------------------------------------------------
# Which server
# --------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ServerChoice:
    """A server that can be started: where it is, how, and why it was chosen."""

    #: "comfyui" or "embedded"
    kind: str
    #: the ComfyUI tree, or the folder of the embedded server's code
    path: Path
    #: interpreter and script, without any argument of ours
    command: tuple[str, ...]
    #: arguments that the configuration gave; they win over ours
    extra_args: tuple[str, ...]
    working_directory: Path
    reason: str
    #: custom-node packs that it loads besides its own: NODE_PACKS
    packs: tuple[Path, ...] = ()

    @property
    def data_folder(self) -> Path:
        """The folder with models/, input/ and output/ (``--base-directory`` where one is given)."""
        given = _argument_value(self.extra_args, "--base-directory")
        if given:
            return (self.working_directory / given).resolve()
        return self.path if self.kind == "comfyui" else embedded_data_folder()


def _argument_value(args: Sequence[str], name: str) -> str | None:
    """The value of ``--name value`` or ``--name=value`` in an argument list, else None."""
    for i, arg in enumerate(args):
        if arg == name and i + 1 < len(args):
            return args[i + 1]
        if arg.startswith(name + "="):
            return arg[len(name) + 1 :]
    return None


class _RedirectError(aiohttp.ClientError):
    """The server sends a request elsewhere. A ComfyUI never does: it is something in front of it, such as the login of
    a proxy, and neither token nor workflow nor upload is meant for the place that it names.
    """

    def __init__(self, location: str):
        self.location = location
        super().__init__(f"it sends elsewhere, to {location}, which is not followed")


def _refusing_redirects() -> aiohttp.TraceConfig:
    """For aiohttp's sessions: every request that is redirected fails with :class:`_RedirectError`."""

    async def refuse(session: Any, context: Any, params: aiohttp.TraceRequestRedirectParams) -> None:
        params.response.close()
        raise _RedirectError(params.response.headers.get("Location", "an address that it does not name"))

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(refuse)
    return trace


def _has_argument(args: Sequence[str], *names: str) -> bool:
    return any(arg.split("=", 1)[0] in names for arg in args)


def embedded_data_folder() -> Path:
    """Where the embedded server keeps input, output and models: a per-user data folder (XDG on Linux)."""
    if IS_WINDOWS:
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "discomfort" / "embedded"


def cache_folder() -> Path:
    """Per-user cache folder (XDG on Linux) for conversions."""
    if IS_WINDOWS:
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "discomfort"


def is_comfyui_tree(path: Path) -> bool:
    """Whether *path* is a ComfyUI checkout: main.py and the comfy package beside it."""
    return (path / "main.py").is_file() and (path / "comfy").is_dir()


def _comfy_cli_workspace() -> Path | None:
    """The default workspace of comfy-cli, read from its config.ini (section DEFAULT, key default_workspace)."""
    if IS_WINDOWS:
        folder = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "comfy-cli"
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Application Support" / "comfy-cli"
    else:
        folder = Path.home() / ".config" / "comfy-cli"
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(folder / "config.ini", encoding="utf-8")
    except (configparser.Error, OSError):
        return None
    workspace = parser.defaults().get("default_workspace")
    return Path(workspace).expanduser() if workspace else None


def _interpreter_for(tree: Path, config: ConnectorConfig) -> tuple[str, str]:
    """(interpreter, why) for a ComfyUI tree: configured, the tree's own venv, else the one that runs this."""
    configured = config.COMFYUI_PYTHON or os.environ.get("COMFYUI_PYTHON", "")
    if configured:
        if not shutil.which(os.path.expanduser(configured)):
            raise ConfigError(f"COMFYUI_PYTHON is {configured!r}, but that is no program that can be run.")
        return os.path.expanduser(configured), "COMFYUI_PYTHON"
    if tree in HERE.parents:
        return sys.executable, "this package lies in that tree"
    names = ["Scripts/python.exe"] if IS_WINDOWS else ["bin/python"]
    folders = [tree / "venv", tree / ".venv"]
    if IS_WINDOWS:  # the portable build keeps its interpreter beside the tree
        names, folders = [*names, "python.exe"], [*folders, tree.parent / "python_embeded"]
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return str(folder / name), "the tree's own environment"
    return sys.executable, "this interpreter: the tree has no venv of its own"


def _named_place(config: ConnectorConfig) -> tuple[str, Path, str] | None:
    """(value, folder, source) of the place that somebody named, None where nobody did.

    A relative path in the configuration is relative to the configuration file, one in the environment to the current
    directory.
    """
    here = ("", ".", "./")
    if config.COMFYUI_PATH not in here:
        path = config.base_folder / Path(config.COMFYUI_PATH).expanduser()
        return config.COMFYUI_PATH, path, "COMFYUI_PATH in the configuration"
    in_environment = os.environ.get("COMFYUI_PATH", "")
    if config.API_WORKING_DIRECTORY not in here:
        # Where it is no ComfyUI it may be just the folder to run in, if the tree is named elsewhere.
        path = config.base_folder / Path(config.API_WORKING_DIRECTORY).expanduser()
        if is_comfyui_tree(path) or not in_environment:
            return config.API_WORKING_DIRECTORY, path, "API_WORKING_DIRECTORY in the configuration"
    if in_environment:
        path = Path.cwd() / Path(in_environment).expanduser()
        return in_environment, path, "the environment variable COMFYUI_PATH"
    return None


def choose_server(config: ConnectorConfig) -> ServerChoice:
    """Find the server to start, in the documented order, and log what was chosen and why.

    Order: COMFYUI_PATH in the config, the environment variable COMFYUI_PATH, the tree this file lies in, the current
    directory, comfy-cli's default workspace, else the embedded server beside this file.

    Raises:
        ServerNotFoundError: a named place holds no ComfyUI, or there is nothing at all to start.
        ConfigError: API_COMMAND_LINE, COMFYUI_PYTHON or NODE_PACKS cannot be used.
    """
    return dataclasses.replace(_find_server(config), packs=config.node_packs())


def _find_server(config: ConnectorConfig) -> ServerChoice:
    named = _named_place(config)
    if named is not None:  # a named place that is wrong is an error, never skipped
        value, path, source = named
        if value == "embedded":
            return _embedded_choice(config, f"{source} says so")
        if not is_comfyui_tree(path):
            what = (
                "does not exist" if not path.exists() else "holds no ComfyUI (no main.py with a comfy folder beside it)"
            )
            raise ServerNotFoundError(
                f"No ComfyUI at {path}: the folder {what}. It was named by {source}. Set it to the folder that "
                "contains ComfyUI's main.py, to 'embedded' for the server that comes with Discomfort, or remove it to "
                "let Discomfort search."
            )
        return _comfyui_choice(path.resolve(), f"{source} names it", config)
    looked: list[tuple[Path | None, str]] = [
        (next((p for p in HERE.parents if is_comfyui_tree(p)), None), "this package lies in it"),
        (Path.cwd(), "it is the current directory"),
        (_comfy_cli_workspace(), "it is comfy-cli's default workspace"),
    ]
    for candidate, reason in looked:
        if candidate is not None and is_comfyui_tree(candidate):
            return _comfyui_choice(candidate.resolve(), reason, config)
    return _embedded_choice(config, "no ComfyUI was found (COMFYUI_PATH is not set)")


def _split_command(config: ConnectorConfig) -> list[str]:
    try:
        words = shlex.split(config.API_COMMAND_LINE, posix=not IS_WINDOWS)
    except ValueError as e:
        raise ConfigError(f"API_COMMAND_LINE is {config.API_COMMAND_LINE!r}: {e}.") from e
    if not words:
        raise ConfigError("API_COMMAND_LINE is empty; the default is 'python3 main.py'.")
    return words


def _comfyui_choice(tree: Path, reason: str, config: ConnectorConfig) -> ServerChoice:
    words = _split_command(config)
    if words[0] in ("python", "python3"):
        words[0], why = _interpreter_for(tree, config)
        log.info("ComfyUI at %s (%s), interpreter %s (%s)", tree, reason, words[0], why)
    else:
        log.info("ComfyUI at %s (%s), command %s", tree, reason, words[0])
    # Everything up to and including the script is the command; what follows are arguments.
    script = next((i for i, word in enumerate(words) if word.endswith(".py")), 0)
    folder = tree
    if config.API_WORKING_DIRECTORY not in ("", ".", "./"):
        given = Path(config.API_WORKING_DIRECTORY).expanduser()
        # Relative to the tree, unless it is what named the tree.
        folder = tree if (config.base_folder / given).resolve() == tree else (tree / given).resolve()
        if not folder.is_dir():
            raise ConfigError(
                f"API_WORKING_DIRECTORY is {config.API_WORKING_DIRECTORY!r}: there is no folder {folder}."
            )
        if not (folder / words[script]).exists() and (tree / words[script]).is_file():
            words[script] = str(tree / words[script])
    return ServerChoice("comfyui", tree, tuple(words[: script + 1]), tuple(words[script + 1 :]), folder, reason)


def _embedded_choice(config: ConnectorConfig, reason: str) -> ServerChoice:
    code = HERE / "embedded"
    if not (code / "__main__.py").is_file():
        raise ServerNotFoundError(
            "No ComfyUI was found: COMFYUI_PATH is not set, neither this file nor the current directory lies in a "
            "ComfyUI "
            "folder, and comfy-cli has no default workspace. Set COMFYUI_PATH to the folder that contains ComfyUI's "
            "main.py."
        )
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        raise ServerNotFoundError(
            f"No ComfyUI was found ({reason}), and the server that comes with Discomfort needs PyTorch, which this "
            f"Python "
            f"({sys.executable}) lacks. Set COMFYUI_PATH to your ComfyUI folder, or run: {sys.executable} -m pip "
            f"install torch "
            "comfyui-frontend-package"
        )
    words = _split_command(config)
    script = next((i for i, word in enumerate(words) if word.endswith(".py")), 0)
    log.info("Embedded server (%s)", reason)
    folder = embedded_data_folder()
    return ServerChoice("embedded", code, (sys.executable, str(code)), tuple(words[script + 1 :]), folder, reason)


def has_gpu() -> bool:
    """Whether this machine shows a device that PyTorch could use, without importing PyTorch (seconds).

    Linux: the device files of NVIDIA, WSL, AMD and Intel drivers. macOS has Metal; Windows is assumed to have one, and
    a start that fails for want of it is repeated with ``--cpu``.
    """
    if not sys.platform.startswith("linux"):
        return True
    if any(os.path.exists(f) for f in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")):
        return True
    with contextlib.suppress(OSError):
        return any(name.startswith("renderD") for name in os.listdir("/dev/dri"))
    return False


def _starts_on_cpu(config: ConnectorConfig) -> bool:
    """Whether the first attempt to start a server has ``--cpu``."""
    return config.DEVICE == "cpu" or (config.DEVICE == "auto" and not has_gpu())


# Texts with which PyTorch says, at start, that there is no usable GPU.
_NO_GPU_TEXTS = (
    "Torch not compiled with CUDA enabled",
    "Found no NVIDIA driver",
    "No CUDA GPUs are available",
    "No HIP GPUs are available",
    "driver on your system is too old",
)
_PORT_TAKEN_TEXTS = (
    "address already in use",
    "Errno 98",
    "Errno 48",
    "10048",
    "already in use",
    "is in use by another program",
)


# --------------------------------------------------------------------------------------------------------------------
# The private folder of one nested server, and what watches over it
# --------------------------------------------------------------------------------------------------------------------


async def _in_thread(function: Callable[..., _T], *args: Any) -> _T:
    """Call what blocks (files, processes, sockets) in a thread, so that the event loop goes on.

    Unlike ``asyncio.to_thread`` it never leaves the call running behind its caller's back: when it is cancelled it
    waits for the call's end and only then lets CancelledError pass. For calls that end in seconds.
    """
    call = asyncio.ensure_future(asyncio.to_thread(function, *args))
    await _all_done([call])
    return call.result()


async def _all_done(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Wait until all have ended, however. If it is cancelled it waits as well, and then lets CancelledError pass."""
    tasks = list(tasks)
    was_cancelled = False
    while any(not task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            was_cancelled = True
    if was_cancelled:
        raise asyncio.CancelledError


def servers_root() -> Path:
    """The per-user folder (0700) that holds one folder for each nested server.

    Raises:
        ConnectorError: something that another user controls stands in its place.
    """
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    root = Path(tempfile.gettempdir()) / f"discomfort-servers-{user}"
    # Chromium makes a socket below it (org.chromium.Chromium.XXXXXX/SingletonSocket, in <folder>/b), and the path of a
    # socket may have 103 bytes on macOS, whose TMPDIR alone has 48, and 107 on Linux.
    if len(str(root)) + len("/0123456789ab/b/") + 44 > 103 and os.path.isdir("/tmp"):  # noqa: S108 - checked below
        root = Path("/tmp") / root.name  # noqa: S108
    while True:
        with contextlib.suppress(FileExistsError):
            root.mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):  # another process closed what was the last folder in it
            info = root.lstat()
            break
    is_ours = not hasattr(os, "getuid") or info.st_uid == os.getuid()
    others_may = stat.S_IMODE(info.st_mode) & 0o077 if hasattr(os, "getuid") else 0
    if is_ours and stat.S_ISDIR(info.st_mode) and others_may and not others_may & 0o022:
        # Made again by the library of the locks, which makes the folders that a lock's file needs: the last folder in
        # the root was closed between the moments at which a sweep saw it and locked it. Nobody else could write to it.
        root.chmod(0o700)
        others_may = 0
    foreign = not is_ours or others_may
    if not stat.S_ISDIR(info.st_mode) or foreign:
        raise ConnectorError(
            f"{root} must be a folder of yours that nobody else can enter (mode 0700), but it is not: another user may "
            "have put it there. Remove it or set TMPDIR to a folder of your own."
        )
    return root


def _processes_using(folder: Path) -> list[psutil.Process]:
    """Processes of ours: servers and browsers started on *folder*, recognised by its random name in their arguments."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        args = process.info["cmdline"] or []
        if any(
            a == str(folder) or a.startswith((f"--user-data-dir={folder}", f"--temp-directory={folder}")) for a in args
        ):
            found.append(process)
    return found


def _noted_server(folder: Path) -> list[psutil.Process]:
    """The server that ``server.pid`` in *folder* names, if it still runs: same pid, same time of birth."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, psutil.Error):
        note = json.loads((folder / "server.pid").read_text(encoding="utf-8"))
        process = psutil.Process(int(note["pid"]))
        if abs(process.create_time() - note["began"]) < 1:
            return [process]
    return []


def _with_descendants(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The processes and what they started: a node may have programs of its own running."""
    found = {process.pid: process for process in processes}
    for process in list(found.values()):
        with contextlib.suppress(psutil.Error):
            found.update((child.pid, child) for child in process.children(recursive=True))
    return list(found.values())


def _end_processes(processes: Iterable[psutil.Process], patience: float = 1.0) -> None:
    """Terminate, wait up to *patience* seconds, kill, wait. Processes that are gone are fine.

    Nothing is reaped here: asyncio waits for a child that was started by it, and complains when somebody else did.
    """
    alive = list(processes)
    for end in ("terminate", "kill"):
        for process in alive:
            with contextlib.suppress(psutil.Error):
                getattr(process, end)()
        deadline = time.monotonic() + patience
        alive = [process for process in alive if not _is_over(process)]
        while alive and time.monotonic() < deadline:
            time.sleep(0.01)
            alive = [process for process in alive if not _is_over(process)]


def _is_over(process: psutil.Process) -> bool:
    """Whether the process has ended; its parent may not have noticed yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def _guard() -> None:
    """Body of the guard process: wait for the owner's end, then end what it left and remove its folder.

    It is started as ``python -I -S -c <source of this function>`` with (owner pid, folder) as arguments, hence it
    imports what it uses, and only the standard library: it must start in milliseconds and need nothing installed. Its
    standard input is a pipe from the owner: lines ``server <pid>`` announce the server's process group, ``bye`` ends
    the guard without any action; the end of the pipe means that the owner is gone, whatever ended it. The parent pid is
    looked at as well, because a forked child of the owner may keep the pipe open. (A parent-death signal would not do:
    on Linux it is tied to the thread that spawned the child.)
    """
    import contextlib
    import fcntl
    import json
    import os
    import select
    import shutil
    import signal
    import subprocess
    import sys
    import time

    owner, folder = int(sys.argv[1]), sys.argv[2]
    # Whoever ends a whole service or session sends these to all of its processes. The guard ends after its owner.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    group, born, port_lock = 0, "", ""

    def birth(pid: int) -> str:
        """When a process began, in whatever form the system says it; "" where there is none."""
        try:
            with open(f"/proc/{pid}/stat") as f:
                return f.read().rpartition(")")[2].split()[19]
        except OSError:
            if os.path.isdir("/proc/self"):
                return ""
            asked = ["ps", "-o", "lstart=", "-p", str(pid)]
            return subprocess.run(asked, capture_output=True, text=True).stdout.strip()

    def command_lines() -> list[tuple[int, list[str]]]:
        rows = []
        if os.path.isdir("/proc/self"):
            for name in os.listdir("/proc"):
                if name.isdigit():
                    try:
                        with open(f"/proc/{name}/cmdline", "rb") as f:
                            rows.append((int(name), f.read().decode(errors="replace").split("\0")))
                    except OSError:
                        pass
        else:
            listing = subprocess.run(["ps", "-axo", "pid=,command="], capture_output=True, text=True).stdout
            for line in listing.splitlines():
                pid, _, command = line.strip().partition(" ")
                rows.append((int(pid), command.split()))
        return rows

    def ours() -> list[int]:
        wanted = ("--user-data-dir=" + folder, "--temp-directory=" + folder)
        return [
            pid
            for pid, args in command_lines()
            if pid != os.getpid() and any(a == folder or a.startswith(wanted) for a in args)
        ]

    buffer = b""
    while True:
        # Asked before the pipe: what the owner said before its end, perhaps before we began, is still read.
        is_owned = os.getppid() == owner
        ready, _, _ = select.select([0], [], [], 0.5 if is_owned else 0)
        if not ready:
            if is_owned:
                continue
            break
        data = os.read(0, 4096)
        if not data:
            break
        buffer += data
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            word, _, value = line.decode().partition(" ")
            if word == "bye":
                sys.exit(0)
            if word == "server":
                group = int(value)
                born = birth(group)
            if word == "port":
                port_lock = value

    # SIGTERM for a second, then SIGKILL. It stays for a second after the last of them has gone: a server that the
    # owner was just starting shows its arguments only after its exec.
    begin = seen = time.monotonic()
    is_known = False
    while time.monotonic() < seen + 1.0 and time.monotonic() < begin + 4.0:
        number = signal.SIGTERM if time.monotonic() < begin + 1.0 else signal.SIGKILL
        pids = ours()
        # The server's whole group, with what its nodes started, once the server was seen to be the one we know: by its
        # arguments, or, should something in it have changed them, by the moment of its birth.
        is_known = is_known or group in pids or bool(born and birth(group) == born)
        if is_known:
            with contextlib.suppress(OSError):
                os.killpg(group, number)
        for pid in pids:
            seen = time.monotonic()
            with contextlib.suppress(OSError):
                os.kill(pid, number)
        time.sleep(0.1)
    with contextlib.suppress(OSError, ValueError), open(os.path.join(folder, "uploads")) as notes:
        for note in notes:
            with contextlib.suppress(OSError):
                os.unlink(json.loads(note))
    # Again until it has gone: what dies beside this, the browser's driver above all, may still write into it.
    begin = time.monotonic()
    while os.path.isdir(folder) and time.monotonic() < begin + 5.0:
        for pid in ours():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)
    # Under a hidden name it was just being made, or removed.
    root, name = os.path.split(folder)
    with contextlib.suppress(OSError):
        for entry in os.listdir(root):
            if entry.startswith(f".{name}-"):
                shutil.rmtree(os.path.join(root, entry), ignore_errors=True)
    with contextlib.suppress(OSError):  # somebody may have reserved the port since: then the lock is not to be had
        handle = os.open(port_lock, os.O_RDWR)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(port_lock)
    with contextlib.suppress(OSError):
        os.rmdir(root)  # only when it was the last one


# Read at import: later the file may be that of another version (an update under a running ComfyUI), and other lines may
# stand where this function was.
_GUARD_SOURCE = textwrap.dedent(inspect.getsource(_guard)) + "\n_guard()\n"


def make_locked_folder(path: Path) -> filelock.FileLock:
    """Make a folder (0700) in :func:`servers_root` whose ``owner.lock`` is held, by us, from its first moment on.

    Raises:
        OSError: it cannot be made (no room, no permission), or it exists and is not empty.
    """
    # Lock first, under a name that a sweep ignores, then rename: no sweep ever sees a young folder unlocked.
    young = path.with_name(f".{path.name}-{secrets.token_hex(3)}")
    for _ in range(20):
        servers_root()
        try:
            young.mkdir(mode=0o700)
            break
        except FileNotFoundError:
            # Another process removed the root in between: it closed what was the last folder in it.
            continue
    else:
        raise FileNotFoundError(f"{young.parent} disappears again and again")
    # Taken in one thread and released in another.
    lock = filelock.FileLock(young / "owner.lock", mode=0o600, thread_local=False)
    try:
        lock.acquire(timeout=0)
        os.replace(young, path)
    except OSError:
        lock.release()
        shutil.rmtree(young, ignore_errors=True)
        raise
    return lock


def remove_locked_folder(path: Path, lock: filelock.BaseFileLock) -> None:
    """Remove what :func:`make_locked_folder` made, and its root where it was the last one. Never raises."""
    if IS_WINDOWS:  # where an open file, the lock, keeps its folder
        lock.release()
    # Under the name that a sweep ignores: half a folder, without its lock, would look like a dead one.
    old = path.with_name(f".{path.name}-{secrets.token_hex(3)}")
    with contextlib.suppress(OSError):
        os.replace(path, old)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(path, ignore_errors=True)
    lock.release()
    with contextlib.suppress(OSError):
        path.parent.rmdir()  # only when it was the last one


class RuntimeFolder:
    """The private folder of one nested server, its lock, its port reservation and its guard.

    Layout (all 0700, removed by :meth:`close`)::

        <temp>/discomfort-servers-<uid>/<12 hex>/
            owner.lock     held for life by the process that made the folder (a free lock means: dead, sweep it)
            temp/          the server's temp folder (ComfyUI appends "temp" to --temp-directory and empties it at start)
            comfyui.db     the server's database
            server.pid     JSON: pid of the server, when it began (seconds since the epoch), pid of its owner
            b/             TMPDIR of the browser driver: profiles and sockets of Chromium
            packs/         links to custom-node packages that the server's tree does not hold
            uploads        paths of ephemeral uploads, one JSON text a line, for whoever cleans up after a killed owner
            server.log     the server's output, rotating (5 MB, 2 backups)
    """

    def __init__(self) -> None:
        #: the folder; it exists from :meth:`open` to :meth:`close`
        self.path = servers_root() / secrets.token_hex(6)
        # held while the folder exists
        self._lock: filelock.BaseFileLock | None = None
        self._port_lock: filelock.BaseFileLock | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        # what the guard was told, for the next one should something kill it; the lock is held while it is replaced
        self._told: list[str] = []
        self._guard_lock = threading.RLock()

    def open(self) -> None:
        """Make the folder, locked, and start its guard. Blocks for milliseconds; :meth:`close` undoes it, also after
        a failure.

        Raises:
            ConnectorError: the folder cannot be made (no room, no permission).
        """
        try:
            self._start_guard()  # first: there is no moment at which a killed owner leaves a folder without a guard
            self._lock = make_locked_folder(self.path)
            (self.path / "b").mkdir(mode=0o700)
            (self.path / "packs").mkdir(mode=0o700)
        except OSError as e:
            raise ConnectorError(
                f"The private folder of the nested server cannot be made in {self.path.parent}: {e}. TMPDIR may name "
                "another place."
            ) from e

    @property
    def temp_directory(self) -> Path:
        """The folder in which the server keeps its temp files."""
        return self.path / "temp"

    @property
    def log_path(self) -> Path:
        return self.path / "server.log"

    def note_server(self, process: psutil.Process) -> None:
        """Write down which process the server is, for the guard and for a sweep: they end it also when something in it
        has changed its command line. A pid counts together with the time at which the process began.
        """
        self.tell_guard(f"server {process.pid}")
        note = {"pid": process.pid, "began": process.create_time(), "owner": os.getpid()}
        with contextlib.suppress(OSError):  # a full disk: its arguments tell too
            (self.path / "server.pid").write_text(json.dumps(note), encoding="utf-8")

    def note_upload(self, file: Path) -> None:
        """Have *file* deleted by the guard, or by a sweep, should this process be killed."""
        with contextlib.suppress(OSError), open(self.path / "uploads", "a", encoding="utf-8") as notes:
            notes.write(json.dumps(str(file)) + "\n")

    def reserve_port(self, host: str, first: int, taken: set[int]) -> int:
        """A port that nobody listens on and that no other Discomfort is about to use.

        The reservation is a lock file per port, held until the folder is closed: two processes that start servers at
        the same time never try the same port.

        Args:
            taken: ports found to be lost on earlier attempts.

        Raises:
            ConnectorError: no free port among the 200 from *first* on.
        """
        self.release_port()
        for port in range(first, min(first + 200, 65536)):
            if port in taken or not port_is_free(host, port):
                continue
            lock = filelock.FileLock(self.path.parent / f"port-{port}.lock", mode=0o600, thread_local=False)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                continue
            self._port_lock = lock
            self.tell_guard(f"port {lock.lock_file}")
            return port
        raise ConnectorError(
            f"No free port on {host} from {first} to {min(first + 199, 65535)}. Close programs that listen there, or "
            f"set "
            "INITIAL_PORT in comfy_serverless.json to another range."
        )

    def release_port(self) -> None:
        if self._port_lock is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._port_lock.lock_file)
            self._port_lock.release()
            self._port_lock = None

    def _start_guard(self) -> None:
        """Start the process that cleans up after this one; without it the next start's sweep does."""
        if IS_WINDOWS or self._guard is not None:  # Windows has job objects instead, see _tie_to_this_process
            return
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARD_SOURCE, str(os.getpid()), str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal must not reach it
            cwd="/",
        )

    @property
    def has_lost_guard(self) -> bool:
        """Whether something has killed the guard. Costs microseconds."""
        return self._guard is not None and self._guard.poll() is not None

    def replace_guard(self) -> None:
        """Start another guard if something has killed the one there was. Blocks for milliseconds."""
        with self._guard_lock:
            if not self.has_lost_guard:
                return
            log.warning("The guard of the nested server was killed; it is started again")
            self._dismiss_guard()
            try:
                self._start_guard()
            except OSError as e:
                log.warning("The guard cannot be started: %s. What a killed process leaves, the next start sweeps", e)
            for line in self._told:
                self._write_to_guard(line)

    def tell_guard(self, line: str) -> None:
        with self._guard_lock:
            self._told.append(line)
            self._write_to_guard(line)

    def _write_to_guard(self, line: str) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            with contextlib.suppress(OSError):
                self._guard.stdin.write(line.encode() + b"\n")
                self._guard.stdin.flush()

    def _dismiss_guard(self) -> None:
        with self._guard_lock:
            guard, self._guard = self._guard, None
            if guard is None:
                return
            with contextlib.suppress(OSError):
                if guard.stdin is not None:
                    guard.stdin.write(b"bye\n")
                    guard.stdin.flush()
            with contextlib.suppress(OSError):  # again what could not be written
                if guard.stdin is not None:
                    guard.stdin.close()
            try:
                guard.wait(timeout=2)
            except subprocess.TimeoutExpired:
                guard.kill()
                guard.wait()

    def close(self) -> None:
        """Remove the folder, free the port, dismiss the guard. Idempotent, never raises, blocks for milliseconds."""
        self.release_port()
        lock, self._lock = self._lock, None
        if lock is not None:
            remove_locked_folder(self.path, lock)
        self._dismiss_guard()


def _tie_to_this_process(pid: int, kernel32: Any = None) -> int | None:
    """Windows only: put a process into a job that ends with this process, however this one ends.

    What the guard is elsewhere. The job's only handle belongs to this process; when it is closed, by
    :func:`_close_job` or by the system at our end, Windows ends every process in the job: *pid* and what it starts from
    now on (JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE). Designed after Microsoft's documentation of job objects, and not yet
    run on Windows.

    Args:
        kernel32: the library; None loads it.

    Returns:
        The job's handle. None where there is none, with a warning: what a killed process leaves is then ended by the
        next start's sweep.
    """
    import ctypes

    class BasicLimits(ctypes.Structure):  # JOBOBJECT_BASIC_LIMIT_INFORMATION
        _fields_: ClassVar = [
            ("PerProcessUserTimeLimit", ctypes.c_int64),
            ("PerJobUserTimeLimit", ctypes.c_int64),
            ("LimitFlags", ctypes.c_uint32),
            ("MinimumWorkingSetSize", ctypes.c_size_t),
            ("MaximumWorkingSetSize", ctypes.c_size_t),
            ("ActiveProcessLimit", ctypes.c_uint32),
            ("Affinity", ctypes.c_size_t),
            ("PriorityClass", ctypes.c_uint32),
            ("SchedulingClass", ctypes.c_uint32),
        ]

    class ExtendedLimits(ctypes.Structure):  # JOBOBJECT_EXTENDED_LIMIT_INFORMATION: 144 bytes on 64-bit systems
        _fields_: ClassVar = [
            ("BasicLimitInformation", BasicLimits),
            ("IoInfo", ctypes.c_uint64 * 6),
            ("ProcessMemoryLimit", ctypes.c_size_t),
            ("JobMemoryLimit", ctypes.c_size_t),
            ("PeakProcessMemoryUsed", ctypes.c_size_t),
            ("PeakJobMemoryUsed", ctypes.c_size_t),
        ]

    kill_on_job_close, extended_limit_information = 0x2000, 9
    set_quota_and_terminate = 0x0100 | 0x0001  # the rights that AssignProcessToJobObject asks for
    handle = ctypes.c_void_p  # as wide as a pointer; without a declaration ctypes cuts handles to 32 bits
    if kernel32 is None:
        kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
    kernel32.CreateJobObjectW.restype = kernel32.OpenProcess.restype = handle
    limits = ExtendedLimits()
    limits.BasicLimitInformation.LimitFlags = kill_on_job_close
    job = kernel32.CreateJobObjectW(None, None)
    process = kernel32.OpenProcess(set_quota_and_terminate, False, pid)
    is_tied = (
        job
        and process
        and kernel32.SetInformationJobObject(
            handle(job), extended_limit_information, ctypes.byref(limits), ctypes.sizeof(limits)
        )
        and kernel32.AssignProcessToJobObject(handle(job), handle(process))
    )
    error = getattr(ctypes, "get_last_error", int)()
    if process:
        kernel32.CloseHandle(handle(process))
    if is_tied:
        return int(job)
    if job:
        kernel32.CloseHandle(handle(job))
    log.warning("Process %d would outlive this one if this one is killed (job object: Windows error %d)", pid, error)
    return None


def _close_job(job: int, kernel32: Any = None) -> None:
    """Windows only: close a job's handle, which ends what is left in it."""
    import ctypes

    if kernel32 is None:
        kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
    kernel32.CloseHandle(ctypes.c_void_p(job))


def sweep() -> list[str]:
    """Remove what dead owners left: their servers, browsers and folders. Returns the folders' names.

    A folder is dead when its lock is free; pids alone decide nothing. Called before every start.
    """
    removed: list[str] = []
    root = servers_root()
    try:
        entries = sorted(root.iterdir())
    except FileNotFoundError:  # another process closed what was the last folder in it
        return removed
    for entry in entries:
        if entry.name.startswith("port-"):
            # A reservation's file is removed by its owner; one that can be locked was left by a killed process.
            with contextlib.suppress(filelock.Timeout, OSError), filelock.FileLock(entry, timeout=0):
                entry.unlink()
            continue
        if not entry.is_dir() or entry.is_symlink():
            continue
        with contextlib.suppress(FileNotFoundError):
            if entry.name.startswith(".") and time.time() - entry.stat().st_mtime < 60:
                continue  # being made right now
        if not entry.exists():  # since it was listed; taking the lock would make it again
            continue
        lock = filelock.FileLock(entry / "owner.lock")
        try:
            lock.acquire(timeout=0)
        except (filelock.Timeout, OSError):
            continue
        try:
            _end_processes(_with_descendants([*_processes_using(entry), *_noted_server(entry)]))
            with contextlib.suppress(OSError, ValueError):
                for line in (entry / "uploads").read_text(encoding="utf-8").splitlines():
                    Path(json.loads(line)).unlink(missing_ok=True)
            # Its owner may have removed it since it was listed; taking the lock makes it again. Nothing was left then.
            with contextlib.suppress(FileNotFoundError):
                if set(os.listdir(entry)) - {"owner.lock"}:
                    removed.append(entry.name)
            shutil.rmtree(entry, ignore_errors=True)
        finally:
            lock.release()
            if IS_WINDOWS:  # where an open file, the lock, keeps its folder
                shutil.rmtree(entry, ignore_errors=True)
    if removed:
        log.warning("Swept %d nested server(s) that a killed process had left behind", len(removed))
    return removed


def _why_not_ours(host: str) -> str:
    """Why no server of this machine can be reached under *host*; "" where one can. Blocks while a name is looked up."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError as e:
        return e.strerror or str(e)
    return ""


def _is_loopback(host: str) -> bool:
    """Whether *host* is this machine by its name or number alone; a name is not looked up."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _is_served_here(address: str) -> bool:
    """Whether *address* is that of a ComfyUI in this process: we are called from one of its nodes."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    parts = urllib.parse.urlsplit(address)
    return server is not None and parts.port == getattr(server, "port", None) and _is_loopback(parts.hostname or "")


def port_is_free(host: str, port: int) -> bool:
    """Whether nobody listens on the port (connecting fails) and it can be bound. Blocks for less than a millisecond."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        if probe.connect_ex((host, port)) == 0:
            return False
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if not IS_WINDOWS:  # as servers do: a port whose last connections are in TIME_WAIT is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


# --------------------------------------------------------------------------------------------------------------------
# The server process
# --------------------------------------------------------------------------------------------------------------------


class ServerProcess:
    """One nested server: a child process in a session of its own, its log, and its stop ladder.

    No method blocks for long except :meth:`stop_now`; the asynchronous ones may be cancelled, the process is then still
    owned by the instance and ended by the next stop.
    """

    def __init__(self, choice: ServerChoice, config: ConnectorConfig, folder: RuntimeFolder, port: int, cpu: bool):
        self.choice = choice
        self.config = config
        self.folder = folder
        self.port = port
        self.cpu = cpu
        self.command = self._build_command()
        self.log_tail: collections.deque[str] = collections.deque(maxlen=200)
        self.log_path = config.base_folder / Path(config.LOG_FILE).expanduser() if config.LOG_FILE else folder.log_path
        self._process: subprocess.Popen[bytes] | None = None
        self._drain: threading.Thread | None = None
        self._psutil: psutil.Process | None = None
        # on Windows the handle of the job that ends it with us, held until it is stopped
        self._job: int | None = None
        # how many processes the system had ended for want of memory when this one was started
        self._memory_kills = 0
        #: {path: reason} of the packs that the server could not load, as far as its output has been read
        self.failed_packs: dict[str, str] = {}

    def _build_command(self) -> list[str]:
        """Command line: the tree's own, then ours for everything that the configuration does not say itself."""
        given = self.choice.extra_args
        args: list[str] = []

        def add(name: str, *values: str, unless: tuple[str, ...] = ()) -> None:
            if not _has_argument(given, name, *unless) and self.supports(name):
                args.extend([name, *values])

        add("--port", str(self.port))
        add("--disable-auto-launch")
        # A starting ComfyUI empties its temp folder and opens its database: never the user's own.
        args.extend(["--temp-directory", str(self.folder.path)])
        add("--database-url", f"sqlite:///{self.folder.path / 'comfyui.db'}")
        caches = ("--cache-lru", "--cache-none", "--cache-classic", "--cache-ram")
        if self.config.CACHE_LRU:
            add("--cache-lru", str(self.config.CACHE_LRU), unless=caches)
        if self.cpu:
            add("--cpu")
        if self.choice.kind == "embedded":
            add("--base-directory", str(self.choice.data_folder))
        pack_config = self._link_packs()
        if pack_config:
            args.extend(["--extra-model-paths-config", str(pack_config)])
        if _has_argument(given, "--disable-all-custom-nodes"):
            # Without our own nodes no port works; NODE_PACKS are named one by one. A list that is given is the user's
            # word. The embedded server has our nodes in any case.
            wanted = [self._name_in_tree(HERE) or "discomfort"] if self.choice.kind == "comfyui" else []
            wanted += [self._name_in_tree(pack) or pack.name for pack in self.choice.packs]
            if wanted:
                add("--whitelist-custom-nodes", *wanted)
        return [*self.choice.command, *given, *args]

    def supports(self, flag: str) -> bool:
        """Whether the server knows a command-line flag: its source says so (asking it would cost a start)."""
        if self.choice.kind == "embedded":
            return True
        try:
            source = (self.choice.path / "comfy" / "cli_args.py").read_text(encoding="utf-8")
        except OSError:
            return flag in ("--port", "--disable-auto-launch", "--cpu")
        return f'"{flag}"' in source

    def _link_packs(self) -> Path | None:
        """Tell the server where the packs are that its tree does not hold: the one that this file lies in, NODE_PACKS.

        Nothing is copied into the user's tree: folders of ours hold a link to each pack, and an extra paths file names
        these folders. Returns that file, or None where there is nothing to tell.
        """
        sections = {}
        if self._link_own_pack():
            sections["discomfort"] = {"base_path": str(self.folder.path), "custom_nodes": "packs"}
        folders = [self._link_pack(pack) for pack in self.choice.packs if self._name_in_tree(pack) is None]
        if folders:
            sections["node packs"] = {"custom_nodes": "\n".join(map(str, folders))}
        if not sections:
            return None
        file = self.folder.path / "packs.yaml"
        # JSON is YAML; no library is needed to write it.
        file.write_text(json.dumps(sections, ensure_ascii=False), encoding="utf-8")
        return file

    def _link_own_pack(self) -> bool:
        """Link the package that this file lies in into ``packs``; False where the server needs no telling."""
        if not (HERE / "__init__.py").is_file() or not (HERE / "nodes.py").is_file():
            return False  # this file was copied alone
        if self.choice.kind == "embedded":
            return False  # it loads the package that it is a part of
        if self._name_in_tree(HERE) is not None:
            return False
        link = self.folder.path / "packs" / "discomfort"
        if not link.exists():
            try:
                link.symlink_to(HERE, target_is_directory=True)
            except OSError:  # Windows without the privilege to make links: a package that loads the real one
                self._write_pack_shim(link)
        return True

    def _link_pack(self, pack: Path) -> Path:
        """The folder of ours that holds a link to *pack*, under its name, and nothing else.

        A server imports a pack under the path at which it finds it, and a value of one of the pack's classes is pickled
        with that path. Hence the folder is the same each time, and outlives this server: its name is a hash of the
        pack's path. Where the cache folder cannot be written, it is in the private one.
        """
        name = hashlib.sha256(str(pack).encode(errors="surrogateescape")).hexdigest()[:12]
        folder = cache_folder() / "node_packs" / name
        try:
            _make_link(pack, folder)
        except OSError as e:
            log.debug("The link to %s is not kept: %s", pack, e)
            folder = self.folder.path / "node_packs" / name
            _make_link(pack, folder)
        same_name = self.choice.data_folder / "custom_nodes" / pack.name
        if same_name.exists():
            log.warning(
                "%s, which NODE_PACKS names, is loaded besides %s: of nodes that both have, its own are used",
                pack, same_name,
            )  # fmt: skip
        return folder

    def _name_in_tree(self, pack: Path) -> str | None:
        """Name of the entry in the tree's custom_nodes that is *pack*, None where there is none."""
        with contextlib.suppress(OSError):
            pack = pack.resolve()
            for entry in (self.choice.data_folder / "custom_nodes").iterdir():
                if entry.resolve() == pack:
                    return entry.name
        return None

    @staticmethod
    def _write_pack_shim(folder: Path) -> None:
        folder.mkdir()
        (folder / "__init__.py").write_text(
            "import importlib.util, sys\n"
            f"_spec = importlib.util.spec_from_file_location('discomfort', {str(HERE / '__init__.py')!r},\n"
            f"    submodule_search_locations=[{str(HERE)!r}])\n"
            "_package = sys.modules['discomfort'] = importlib.util.module_from_spec(_spec)\n"
            "_spec.loader.exec_module(_package)\n"
            "NODE_CLASS_MAPPINGS = _package.NODE_CLASS_MAPPINGS\n"
            "NODE_DISPLAY_NAME_MAPPINGS = _package.NODE_DISPLAY_NAME_MAPPINGS\n"
            "WEB_DIRECTORY = _package.WEB_DIRECTORY\n",
            encoding="utf-8",
        )

    # ---- what it is ----

    @property
    def address(self) -> str:
        """Base URL, without a slash at its end."""
        return f"http://{self.config.host}:{self.port}"

    @property
    def temp_directory(self) -> Path:
        """The folder in which the server keeps its temp files."""
        return self.folder.temp_directory

    def describe(self, stats: Mapping[str, Any]) -> str:
        """A sentence for people: which server this is, where, and why it was chosen. *stats*: its /system_stats."""
        return f"{_server_name(self.choice, stats)} at {self.address}, chosen because {self.choice.reason}"

    def explain_end(self) -> str:
        """A sentence for people about a process that has ended."""
        code = self.returncode or 0
        how = f"with exit status {code}" if code >= 0 else f"by signal {-code}"
        with contextlib.suppress(ValueError):  # a signal that Python has no name for
            how += f" ({signal.Signals(-code).name})" if code < 0 else ""
        why = ", because the machine ran out of memory" if self.was_killed_for_memory else ""
        return f"The ComfyUI server ended {how}{why}. The next call starts a fresh one."

    # ---- life ----

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def returncode(self) -> int | None:
        """Exit status, None while the process runs (or was never started)."""
        return self._process.poll() if self._process else None

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def was_killed_for_memory(self) -> bool:
        """Whether it ended by SIGKILL and the system has ended processes for want of memory since its start."""
        return self.returncode == -9 and _count_memory_kills() > self._memory_kills

    def spawn(self) -> None:
        """Start the process; its output is drained by a thread for life, so that it can never block on a full pipe.

        Raises:
            ServerStartError: the command cannot be executed at all.
        """
        environment = dict(os.environ, PYTHONUNBUFFERED="1", DISCOMFORT_NESTED="1")
        environment.pop("DISCOMFORT_API_TOKEN", None)  # meant for another server
        self._memory_kills = _count_memory_kills()
        if self.choice.kind == "embedded":
            self.choice.working_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.choice.working_directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=not IS_WINDOWS,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as e:
            problem = f"The ComfyUI server could not be started: {e}."
            raise ServerStartError(problem, self.command, None, [], self.log_path) from e
        if IS_WINDOWS:
            self._job = _tie_to_this_process(self._process.pid)
        self._psutil = psutil.Process(self._process.pid)
        self.folder.note_server(self._psutil)
        self._drain = threading.Thread(target=self._drain_output, name="discomfort-server-log", daemon=True)
        self._drain.start()
        log.info("Server process %d: %s", self._process.pid, shlex.join(self.command))

    def _drain_output(self) -> None:
        """Body of the thread that reads the server's output: into the log file, and its end into ``log_tail``.

        It ends with the pipe, which may be later than the server: a process that a node left behind may hold it open.
        """
        assert self._process is not None
        assert self._process.stdout is not None
        output = self._process.stdout
        handler: logging.Handler | None = None
        try:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            handler = logging.handlers.RotatingFileHandler(
                self.log_path, maxBytes=5_000_000, backupCount=2, encoding="utf-8"
            )
            # A full disk must not stop the draining, nor print a traceback for every line.
            handler.handleError = lambda record: None  # type: ignore[method-assign]
        except OSError as e:
            log.warning("The server's output is not kept: %s cannot be written: %s", self.log_path, e)
        try:
            # A program may print without ever ending a line: what is longer than this counts as several.
            for raw in iter(lambda: output.readline(16_384), b""):
                line = raw.decode("utf-8", errors="replace").rstrip()
                self.log_tail.append(line)
                self._note_failed_pack(line)
                if handler:
                    handler.emit(logging.LogRecord("server", logging.INFO, "", 0, line, None, None))
        except (OSError, ValueError):
            pass  # the pipe was closed under us: the process has ended
        finally:
            with contextlib.suppress(OSError):
                output.close()
            if handler:
                with contextlib.suppress(OSError):
                    handler.close()

    def _note_failed_pack(self, line: str) -> None:
        """Note what the server says of a pack that it could not load; a warning where the user named the pack."""
        failed = _FAILED_PACK.search(line)
        if failed is None or failed[1] in self.failed_packs:
            return
        self.failed_packs[failed[1]] = failed[2]
        name = os.path.basename(failed[1])
        if any(pack.name == name for pack in self.choice.packs):
            log.warning("The server could not load the pack %s: %s (its log is %s)", name, failed[2], self.log_path)

    def wait_for_output(self, timeout: float) -> None:
        """Wait until what the ended process printed has been read. Blocks, at most *timeout* seconds."""
        if self._drain is not None:
            self._drain.join(timeout)

    def memory(self) -> int:
        """Resident memory of the server process in bytes, 0 where it is gone."""
        try:
            return int(self._psutil.memory_info().rss) if self._psutil else 0
        except psutil.Error:
            return 0

    async def stop(self) -> str:
        """Stop ladder: ask (SIGINT: ComfyUI cleans up), SIGTERM to the group, SIGKILL to the group; then reap.

        Time budget: STOP_TIMEOUT for each of the first two rungs. Returns the rung that did it. If it is cancelled, the
        ladder goes on at once with SIGKILL before CancelledError passes on.
        """
        rungs = [("asked", signal.SIGINT), ("terminated", signal.SIGTERM)]
        if IS_WINDOWS:
            rungs = [
                ("asked", signal.Signals(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM))),
                ("terminated", signal.SIGTERM),
            ]
        elif signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            rungs = rungs[1:]  # our child inherited that it ignores SIGINT (a script in a shell's background)
        try:
            for name, number in rungs:
                if not self.is_alive:
                    return "ended"
                self._signal(number)
                if await self._wait_for_shutdown(self.config.STOP_TIMEOUT):
                    return name
            return "killed" if self.is_alive else "ended"
        finally:
            await _in_thread(self.stop_now)

    async def _wait_for_shutdown(self, timeout: float) -> bool:
        """Whether the process has ended within *timeout* seconds. May be cancelled."""
        end = time.monotonic() + timeout
        while self.is_alive and time.monotonic() < end:  # noqa: ASYNC110 - a process has no asyncio event
            await asyncio.sleep(0.02)
        return not self.is_alive

    def stop_now(self) -> None:
        """SIGKILL to the whole group, reap, read the rest of its output. Blocks; for atexit and for the last rung."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM if IS_WINDOWS else signal.SIGKILL)
        job, self._job = self._job, None
        if job is not None:
            _close_job(job)  # with it what the server's nodes have started
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        self.wait_for_output(1.0)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        try:
            if IS_WINDOWS:
                self._process.send_signal(number)
            elif self._process.poll() is None or number == signal.SIGKILL:
                # The group outlives its leader when a node left children behind; it is ours by construction, and its
                # number cannot be reused while a member lives.
                os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass


# What a server says of a pack that it could not load: (path, reason). The same in ComfyUI 0.3.64 and 0.33.
_FAILED_PACK = re.compile(r"(?:Cannot import|Skip) (.+) module for custom nodes(?::| due to) ?(.*)")


def _make_link(pack: Path, folder: Path) -> None:
    """Make *folder*, with a link to *pack* in it; one that is there already is kept. OSError: it cannot be made."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    link = folder / pack.name
    with contextlib.suppress(OSError):
        if Path(os.readlink(link)) == pack:
            return
    # Another process may make the same link at this moment.
    young = folder / f"{secrets.token_hex(4)}.disabled"
    try:
        young.symlink_to(pack, target_is_directory=pack.is_dir())
        os.replace(young, link)
    except OSError:
        with contextlib.suppress(OSError):
            young.unlink()
        if not IS_WINDOWS:
            raise
        # Without the privilege to make links: a junction needs none, and of a single file a copy does.
        if pack.is_file():
            shutil.copyfile(pack, link)
        elif not link.exists():
            importlib.import_module("_winapi").CreateJunction(str(pack), str(link))


def _count_memory_kills() -> int:
    """How many processes Linux has ended for want of memory since its boot (``oom_kill`` in /proc/vmstat); else 0."""
    with contextlib.suppress(OSError, ValueError), open("/proc/vmstat", encoding="ascii") as counters:
        for line in counters:
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0


def _server_name(choice: ServerChoice | None, stats: Mapping[str, Any]) -> str:
    """What a server is, in words; *stats* is its /system_stats."""
    system = stats.get("system")
    # The embedded server says so itself: one that was started by somebody else was not chosen by us.
    says_so = isinstance(system, Mapping) and system.get("discomfort_embedded") is True
    if says_so or (choice is not None and choice.kind == "embedded"):
        return "Discomfort's embedded server (no models)"
    version = system.get("comfyui_version") if isinstance(system, Mapping) else None
    return f"ComfyUI {version or '(unknown version)'}" + (f" in {choice.path}" if choice is not None else "")


def _is_server_on(folder: Path, stats: Mapping[str, Any]) -> bool:
    """Whether *stats* is /system_stats of the server with this private folder: its command line names it."""
    system = stats.get("system")
    argv = system.get("argv") if isinstance(system, Mapping) else None
    return isinstance(argv, list) and str(folder) in argv


# --------------------------------------------------------------------------------------------------------------------
# Servers that run already
# --------------------------------------------------------------------------------------------------------------------


class AttachedServer:
    """A server that runs already and was not started by this process: it is used, and never stopped.

    It is one of two kinds. Of the one that API_URL names nothing is known but its address: whether it lives is asked
    by HTTP, its folders and its log cannot be seen. A *warm* one (see :class:`WarmServer`) is a nested server of this
    machine that another process keeps; its folders, its log and its process are as well known as if it were ours.

    It has what :class:`ServerProcess` has, so that the connector need not know which one it holds.
    """

    def __init__(self, address: str, warm: WarmServer | None = None, lease: filelock.BaseFileLock | None = None):
        #: base URL, without a slash at its end
        self.address = address
        #: what its keeper published, None for a server that API_URL names
        self.warm = warm
        # held while the warm server is used, so that it is not stopped for idleness
        self._lease = lease
        #: exit status: never known, it is not our child
        self.returncode: int | None = None
        #: whether it runs on this machine, as far as its address tells (a container's may only look like it)
        self.is_local = True

    @property
    def pid(self) -> int | None:
        return self.warm.pid if self.warm else None

    @property
    def is_alive(self) -> bool:
        """Whether its process lives; True for a server that API_URL names, about which only HTTP can tell."""
        return self.warm is None or self.warm.is_alive

    @property
    def was_killed_for_memory(self) -> bool:
        return False  # how a process ended is told to its parent alone

    @property
    def failed_packs(self) -> Mapping[str, str]:
        """{path: reason} of the packs that it could not load, as far as that is known."""
        return self.warm.failed_packs if self.warm else {}

    @property
    def log_path(self) -> Path | None:
        return self.warm.log_path if self.warm else None

    @property
    def log_tail(self) -> list[str]:
        """The last lines of its log; empty where it cannot be read."""
        if self.warm is None:
            return []
        try:
            with open(self.warm.log_path, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 16_384))
                return file.read().decode("utf-8", errors="replace").splitlines()[-200:]
        except OSError:
            return []

    @property
    def temp_directory(self) -> Path | None:
        return self.warm.runtime_folder / "temp" if self.warm else None

    def memory(self) -> int:
        """Resident memory of its process in bytes, 0 where it cannot be seen."""
        try:
            return int(psutil.Process(self.warm.pid).memory_info().rss) if self.warm and self.is_alive else 0
        except psutil.Error:
            return 0

    def describe(self, stats: Mapping[str, Any]) -> str:
        """A sentence for people: which server this is, where, and why it was chosen. *stats*: its /system_stats."""
        if self.warm is None:
            return f"{_server_name(None, stats)} at {self.address}, chosen because API_URL names it"
        name = _server_name(self.warm.choice, stats)
        return f"{name} at {self.address}, chosen because it is kept warm (process {self.warm.pid})"

    def explain_end(self) -> str:
        """A sentence for people about a warm server whose process has ended."""
        return f"The warm ComfyUI server at {self.address} has ended. The next call starts a fresh one."

    async def stop(self) -> str:
        """Leave it running; it is no longer counted as used by us."""
        self.stop_now()
        return "is not ours and runs on"

    def stop_now(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            _drop_lock(lease)


def _drop_lock(lock: filelock.BaseFileLock) -> None:
    """Remove a lock's file and release it. A file that another process takes over in between is its own."""
    with contextlib.suppress(OSError):
        os.unlink(lock.lock_file)
    lock.release()


#: version of the files that a keeper publishes; one of another version is not used
WARM_PROTOCOL = 1

# Variables that change what a server can do, beside the configuration: servers that differ in them are different ones.
_SERVER_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "ONEAPI_DEVICE_SELECTOR",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF",
    "DISCOMFORT_RAM_ROOT",
    "DISCOMFORT_DISK_ROOT",
)


@dataclasses.dataclass(frozen=True)
class WarmServer:
    """What the keeper of a warm server publishes about it: ``server.json`` in the keeper's folder.

    A keeper (``python -m discomfort server start``, see warm_server.py) is a process that holds a nested server for
    others. Its folder lies among the private folders of the nested servers, hence no other user can write there::

        <temp>/discomfort-servers-<uid>/warm-<12 hex>/    named by what the server was started with, warm_folder()
            owner.lock      held for life by the keeper
            keeper.pid      pid of the keeper
            server.json     this, while the server is ready
            leases/         a locked file <pid>-<client id>.lock for every process that uses the server; a free lock
                            means that it has ended
            used            its time is when somebody last used the server
            stop            made by whoever wants the keeper to stop
            keeper.log      what the keeper logs
    """

    protocol: int
    #: base URL of the server
    address: str
    #: process of the server, and when it began (seconds since the epoch, as psutil gives it): a pid alone may be reused
    pid: int
    began: float
    keeper_pid: int
    #: private folder of the server (RuntimeFolder)
    runtime_folder: Path
    log_path: Path
    #: seconds without use after which the keeper stops the server, 0 for never
    idle_timeout: float
    #: state of the server's code when it was started, see code_state()
    code_state: str
    #: what was started
    choice: ServerChoice
    #: what it was started with, see warm_settings()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: packs that the server could not load, see ServerProcess
    failed_packs: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def is_alive(self) -> bool:
        """Whether the server's process lives: same pid, same time of birth."""
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.began) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def publish(self, folder: Path) -> None:
        """Write ``server.json`` into the keeper's folder, at once or not at all."""
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8", suffix=".tmp") as file:
            json.dump(dataclasses.asdict(self), file, default=str)
        os.replace(file.name, folder / "server.json")

    @classmethod
    def read(cls, folder: Path) -> WarmServer | None:
        """What is published in *folder*, None where nothing is, or something of another version."""
        try:
            values = json.loads((folder / "server.json").read_text(encoding="utf-8"))
            if values["protocol"] != WARM_PROTOCOL:
                return None
            choice = values["choice"]
            choice = ServerChoice(
                choice["kind"],
                Path(choice["path"]),
                tuple(choice["command"]),
                tuple(choice["extra_args"]),
                Path(choice["working_directory"]),
                choice["reason"],
                tuple(map(Path, choice.get("packs", ()))),
            )
            paths = {name: Path(values[name]) for name in ("runtime_folder", "log_path")}
            return cls(**{**values, **paths, "choice": choice})
        except (OSError, ValueError, KeyError, TypeError):
            return None


def warm_settings(config: ConnectorConfig, choice: ServerChoice) -> Json:
    """Everything that a start with *config* would give the server, as JSON, by names that people know."""
    program = shutil.which(choice.command[0]) or choice.command[0]
    return {
        # python and python3 of one environment are one interpreter; those of two environments, which may be links to
        # the same file, are not.
        "interpreter": [os.path.realpath(os.path.dirname(program)), os.path.realpath(program)],
        "ComfyUI": [choice.kind, str(choice.path)],
        "API_COMMAND_LINE": [list(choice.command[1:]), list(choice.extra_args)],
        "working directory": str(choice.working_directory),
        "data folder": str(choice.data_folder),
        "API_URL": config.host,
        "DEVICE": "cpu" if _starts_on_cpu(config) else "gpu",
        "CACHE_LRU": config.CACHE_LRU,
        "NODE_PACKS": [str(pack) for pack in choice.packs],
        **{name: os.environ.get(name) for name in _SERVER_VARIABLES},
        "Discomfort": str(HERE),
    }


def warm_folder(config: ConnectorConfig, choice: ServerChoice) -> Path:
    """Folder of the keeper of a warm server, whether there is one or not.

    Its name is a hash of everything that a start with *config* would give the server: equal settings, equal folder.
    """
    settings = canonical_json(warm_settings(config, choice))
    return servers_root() / f"warm-{hashlib.sha256(settings).hexdigest()[:12]}"


def _tell_of_other_warm_servers(config: ConnectorConfig, choice: ServerChoice) -> None:
    """Log why the warm servers that there are, none of which has these settings, are not used. Blocks for a moment."""
    settings = warm_settings(config, choice)
    for folder in sorted(servers_root().glob("warm-*")):
        warm = WarmServer.read(folder)
        if warm is not None and warm.settings and warm.is_alive:
            other = [name for name in settings if warm.settings.get(name) != settings[name]]
            if other:
                log.info("The warm server at %s is not used: it has another %s", warm.address, ", ".join(other))


# What a ComfyUI server loads of its own tree. Not the whole tree: people keep their scripts in it too.
_COMFYUI_FILES = (
    "main.py",
    "comfyui_version.py",
    "cuda_malloc.py",
    "execution.py",
    "folder_paths.py",
    "hook_breaker_ac10a0.py",
    "latent_preview.py",
    "node_helpers.py",
    "nodes.py",
    "protocol.py",
    "server.py",
)
_COMFYUI_FOLDERS = ("comfy*", "api_server", "app", "middleware", "utils")
# Folders of custom nodes that a server loads nothing from, but that may hold many files, or a user's scripts.
_NO_CODE = frozenset(
    {"__pycache__", "benchmarks", "docs", "examples", "example_workflows", "models", "node_modules", "tests", "venv"}
)


def code_state(choice: ServerChoice) -> str:
    """Hash of names, sizes and times of the Python files that the server may have loaded: its own, this package's, and
    those of its custom nodes, with NODE_PACKS. A server that was started before one of them changed runs old code.
    Reads no file; tens of milliseconds for a large installation. Blocks.
    """
    seen = hashlib.sha256()

    def look_at(files: Iterable[Path]) -> None:
        for file in sorted(files):
            with contextlib.suppress(OSError):
                info = file.stat()
                seen.update(f"{file} {info.st_size} {info.st_mtime_ns}\n".encode(errors="replace"))

    def look_into(root: Path) -> None:
        for folder, names, files in os.walk(root):
            names[:] = sorted(n for n in names if n not in _NO_CODE and not n.startswith("."))
            look_at(Path(folder, n) for n in files if n.endswith(".py"))

    look_at(HERE.glob("*.py"))
    if choice.kind == "embedded":
        look_into(choice.path)
    else:
        look_at(choice.path / name for name in _COMFYUI_FILES)
        for pattern in _COMFYUI_FOLDERS:
            for folder in sorted(choice.path.glob(pattern)):
                look_into(folder)
    packs = choice.data_folder / "custom_nodes"
    look_at(packs.glob("*.py"))
    for pack in choice.packs:
        look_at([pack]) if pack.is_file() else look_into(pack)
    # One by one, because packs under development are links, which os.walk() does not follow but begins at.
    for pack in sorted(packs.glob("*/")):
        if not pack.name.startswith(".") and pack.name not in _NO_CODE and pack.resolve() != HERE:
            look_into(pack)
    return seen.hexdigest()


def lease_warm_server(config: ConnectorConfig, choice: ServerChoice, client_id: str) -> AttachedServer | None:
    """The warm server for these settings, reserved for this process until its ``stop()``; None where there is none.

    The order makes the keeper's idle stop safe: we take the lease and then read what is published; the keeper withdraws
    what it published and then looks for leases. Either it sees our lease, or we see nothing. Blocks for milliseconds.

    The lease is named by *client_id*, under which we queue prompts: when it ends the keeper takes back those that are
    left, should this process be killed.
    """
    folder = warm_folder(config, choice)
    if WarmServer.read(folder) is None:
        _tell_of_other_warm_servers(config, choice)
        return None
    file = folder / "leases" / f"{os.getpid()}-{client_id}.lock"
    lease = filelock.FileLock(file, mode=0o600, thread_local=False)
    try:
        lease.acquire(timeout=1, poll_interval=0.02)
    except (OSError, filelock.Timeout):  # the keeper is going, with its folder
        return None
    warm = WarmServer.read(folder)
    if warm is None or not warm.is_alive:
        _drop_lock(lease)
        return None
    if warm.code_state != code_state(choice):
        log.warning(
            "The warm server at %s was started before its code, or that of a custom node, was changed: it is not used. "
            "Renew it with: python -m discomfort server start", warm.address,
        )  # fmt: skip
        _drop_lock(lease)
        return None
    return AttachedServer(warm.address, warm, lease)


# --------------------------------------------------------------------------------------------------------------------
# The browser: workflow -> prompt by the real frontend
# --------------------------------------------------------------------------------------------------------------------

# True once the frontend is up: node definitions registered and its start-up graph loaded (window.app alone appears
# earlier). Measured on frontends 1.27.10, 1.35.9 and 1.58.1.
_READY_JS = """() => !!(window.app && app.graph && app.canvas && app.extensionManager && window.LiteGraph
    && Object.keys(LiteGraph.registered_node_types).length > 50
    && app.extensionManager.workflow?.activeWorkflow)"""

# Loads the workflow into the tab that is open (the fourth argument: a new tab per call would slow the page down) and
# exports it as the editor's own "Export (API)" does, with one repair: a widget that is promoted to its subgraph's node
# comes out as null where the file was saved by an older frontend (1.58.1; 1.27.10 for some of a newer one). Then the
# inner widget's own value is taken, from the page or, where null has been written over it there, from the file.
# Problems come back as data; nothing is thrown across the border.
_CONVERT_JS = """async (workflow) => {
    const subgraphs = {};
    const collect = (graph) => {
        for (const subgraph of graph?.definitions?.subgraphs ?? []) {
            subgraphs[subgraph.id] = subgraph;
            collect(subgraph);
        }
    };
    const ownValue = async (graph, path, name) => {
        let node, saved;
        let savedGraph = workflow;
        for (const id of path) {
            node = graph?._nodes?.find((n) => String(n.id) === id);
            graph = node?.subgraph;
            saved = savedGraph?.nodes?.find((n) => String(n.id) === id);
            savedGraph = subgraphs[saved?.type];
        }
        const widgets = (node?.widgets ?? []).filter((w) => w.serialize !== false);
        const index = widgets.findIndex((w) => w.name === name);
        const widget = widgets[index];
        // What it would give if it were not promoted; null may be what it means to give.
        if ((widget?.value ?? null) !== null)
            return (widget.serializeValue ? await widget.serializeValue(node, index) : widget.value) ?? undefined;
        const value = saved?.type === node?.type ? saved?.widgets_values?.[index] : undefined;
        const kinds = {number: "number", toggle: "boolean", combo: "string", text: "string", customtext: "string"};
        return typeof value === kinds[widget?.type] ? value : undefined;
    };
    try {
        const tab = app.extensionManager.workflow.activeWorkflow;
        const loaded = await app.loadGraphData(workflow, true, false, tab);
        if (loaded === false) return {problem: "the frontend refused to load it"};
        const graph = app.rootGraph ?? app.graph;
        const count = graph._nodes.length;
        if (count !== workflow.nodes.length)
            return {problem: `the frontend loaded ${count} of its ${workflow.nodes.length} nodes`};
        const {output} = await app.graphToPrompt();
        collect(workflow);
        const replaced = [];
        for (const [id, entry] of Object.entries(output)) {
            const path = id.split(":");
            for (const [name, value] of Object.entries(path.length > 1 ? entry.inputs : {})) {
                if (value !== null) continue;
                const own = await ownValue(graph, path, name);
                if (own === undefined) continue;
                entry.inputs[name] = own;
                replaced.push([id, name]);
            }
        }
        return {output, replaced};
    } catch (e) {
        return {problem: `${e?.name ?? "Error"}: ${e?.message ?? e}`};
    }
}"""

# Settings that the page believes to be the user's: no tutorial, no update notes, no dialogs. The user's real settings
# are neither read nor written.
_FORCED_SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.InstalledVersion": "99.0.0",
    "Comfy.Workflow.ShowMissingNodesWarning": False,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "Comfy.Validation.Workflows": False,
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Release.Status": "skipped",
}

_BROWSER_ARGS = [
    "--enable-webgl",
    "--disable-gpu",
    "--mute-audio",
    "--no-first-run",
    "--disable-quic",
    "--disable-sync",
    "--disable-component-update",
    "--disable-background-networking",
    "--no-proxy-server",  # as all requests: the server is reached directly or not at all
]

# The environment variable that names the temp folder of Playwright's driver (node's os.tmpdir()).
_TEMP_VARIABLE = "TEMP" if IS_WINDOWS else "TMPDIR"

_BROWSER_PROGRAMS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "microsoft-edge",
    "chrome",
)
_BROWSER_FILES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
    r"C:\Program Files\Microsoft\Edge\Application\msedge.exe",
)


# Browsers (None: Playwright's own) that have started in this process without their sandbox and did not with it.
_NO_SANDBOX: set[str | None] = set()


def installed_browser() -> str | None:
    """An installed Chromium, Chrome or Edge, None where there is none."""
    for name in _BROWSER_PROGRAMS:
        found = shutil.which(name)
        if found:
            return found
    return next((path for path in _BROWSER_FILES if os.path.isfile(path)), None)


def _browser_complaint(text: str) -> str:
    """The line of a launch error that tells most: Playwright puts the browser's own output behind its first line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no reason given"]
    telling = [line for line in lines[1:] if "rror" in line and "ERR_" not in line]
    return lines[0] + (f" ({telling[0][-300:]})" if telling else "")


class FrontendPage:
    """Headless Chromium with one warm page of the server's own frontend.

    Used under :attr:`ComfyConnector._conversion_lock` only: loading and exporting a graph are two steps of the page.
    """

    def __init__(
        self,
        config: ConnectorConfig,
        folder: RuntimeFolder,
        headers: Mapping[str, str] | None = None,
        read_index: Callable[[], Awaitable[str]] | None = None,
    ):
        self.config = config
        self.folder = folder
        #: HTTP headers of the page's requests to the server; nothing else is ever asked
        self.headers = dict(headers or {})
        # gives the text of the server's page without following a redirect; needed where there are headers
        self._read_index = read_index
        self._playwright: Any = None
        self._browser: Any = None
        self._page: Any = None
        # address the page was loaded from, and how many conversions it has done since
        self._page_address = ""
        self._conversions = 0
        self._temp_folder = str(folder.path / "b")
        # done when the page crashes; made with the page
        self._crash: asyncio.Future[None] | None = None

    @property
    def is_open(self) -> bool:
        return self._browser is not None and self._browser.is_connected()

    async def open(self) -> None:
        """Start Playwright's driver and the browser, unless they run.

        Raises:
            BrowserError: listing everything that was tried.
        """
        if self.is_open:
            return
        await self.close()
        try:
            # In a thread: it takes about 0.3 s.
            playwright = await _in_thread(importlib.import_module, "playwright.async_api")
        except ImportError as e:
            raise BrowserError(
                f"Converting a workflow needs the package playwright, which this Python ({sys.executable}) lacks: "
                f"{e}. Run: "
                f"{sys.executable} -m pip install playwright"
            ) from e
        # The driver makes the browser's profile in its temp folder. Ours, so that whatever kills the driver, the
        # profile goes with the runtime folder. The driver copies the environment while start() runs; there is no
        # argument for it.
        try:
            previous = os.environ.get(_TEMP_VARIABLE)
            os.environ[_TEMP_VARIABLE] = self._temp_folder
            starting = asyncio.ensure_future(playwright.async_playwright().start())
            try:
                await asyncio.wait([starting])
            finally:
                if previous is None:
                    del os.environ[_TEMP_VARIABLE]
                else:
                    os.environ[_TEMP_VARIABLE] = previous
                # Half a driver cannot be stopped: one that is being started when this is cancelled starts first.
                await asyncio.wait([starting], timeout=5)
                if starting.done() and not starting.cancelled() and starting.exception() is None:
                    self._playwright = starting.result()
                starting.cancel()
            starting.result()
            self._browser = await self._launch()
        except BaseException:
            await self.close()
            raise

    async def _launch(self) -> Any:
        tried: list[str] = []
        for executable, source in self._candidates():
            try:
                return await self._launch_one(executable)
            except Exception as e:
                tried.append(f"{source}{f' ({executable})' if executable else ''}: {_browser_complaint(str(e))}")
                log.debug("Browser did not start", exc_info=True)
        if self.config.AUTO_INSTALL_BROWSER and not self._named_browser():
            problem = await self._install()
            if problem is None:
                return await self._launch_one(None)
            tried.append(f"playwright install chromium: {problem}")
        raise BrowserError(
            "No browser could be started, and converting a workflow needs one. Tried: "
            + ("; ".join(one.rstrip(".") for one in tried) or "nothing, because no Chromium, Chrome or Edge was found")
            + f". Install Chromium or Chrome, or run: {sys.executable} -m playwright install --with-deps chromium. "
            "DISCOMFORT_BROWSER may name the program. Prompts in API format need no browser."
        )

    def _named_browser(self) -> str:
        """The browser that the configuration or the environment names, "" where neither does."""
        return self.config.BROWSER_PATH or os.environ.get("DISCOMFORT_BROWSER", "")

    def _candidates(self) -> list[tuple[str | None, str]]:
        """(executable or None for Playwright's own, where it was named) in the order of preference."""
        named = self._named_browser()
        if named:  # is used or complained about, never replaced
            return [(named, "BROWSER_PATH" if self.config.BROWSER_PATH else "DISCOMFORT_BROWSER")]
        candidates: list[tuple[str | None, str]] = []
        if Path(self._playwright.chromium.executable_path).exists():
            candidates.append((None, "Playwright's Chromium"))
        installed = installed_browser()
        if installed:
            candidates.append((installed, "installed browser"))
        return candidates

    async def _launch_one(self, executable: str | None) -> Any:
        # Chromium refuses to run as root with its sandbox; common in containers.
        is_root = hasattr(os, "geteuid") and os.geteuid() == 0
        if is_root or executable in _NO_SANDBOX:
            return await self._launch_with(executable, sandbox=False)
        try:
            return await self._launch_with(executable, sandbox=True)
        except Exception as e:
            if type(e).__name__ == "TimeoutError" or (executable and not shutil.which(executable)):
                raise
            # The words in which Chromium says that the system does not let it have a sandbox differ; so whatever it
            # was, what counts is whether it starts without.
            browser = await self._launch_with(executable, sandbox=False)
            _NO_SANDBOX.add(executable)
            log.debug("The browser did not start with its sandbox", exc_info=e)
            log.warning(
                "Chromium runs without its sandbox, with which it did not start: containers, and systems that restrict "
                "user namespaces, as Ubuntu does since 23.10, refuse it. It opens ComfyUI's own editor and nothing else"
            )
            return browser

    async def _launch_with(self, executable: str | None, sandbox: bool) -> Any:
        return await self._playwright.chromium.launch(
            headless=True,
            executable_path=executable,
            args=_BROWSER_ARGS,
            chromium_sandbox=sandbox,  # without it Playwright says --no-sandbox
            timeout=self.config.CONVERSION_TIMEOUT * 1000,
            # Python keeps its own signal handling: the connector closes the browser.
            handle_sigint=False,
            handle_sigterm=False,
            handle_sighup=False,
        )

    async def _install(self) -> str | None:
        """``playwright install chromium``; returns the reason of a failure, None after success."""
        log.info("No browser found: downloading Playwright's Chromium (about 150 MB, once)")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "playwright", "install", "chromium",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            output, _ = await asyncio.wait_for(process.communicate(), 600)
        except asyncio.TimeoutError:
            return "no result within 600 s"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode == 0:
            return None
        lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
        return next(
            (line.strip() for line in lines if "rror" in line),
            lines[-1] if lines else f"exit {process.returncode}",
        )

    async def convert(self, workflow: Json, server_address: str) -> tuple[Json, list[list[str]]]:
        """One conversion on the warm page; the caller limits its time.

        Returns:
            The prompt as the editor's "Export (API)" gives it, and [node id, input name] of every null in it that was
            replaced by the inner widget's own value.

        Raises:
            ConversionError: what the frontend said against the workflow.
        """
        await self.open()
        if (
            self._page is None
            or self._page_address != server_address
            or self._conversions >= self.config.CONVERSIONS_PER_PAGE
        ):
            await self._load_page(server_address)
        self._conversions += 1
        result = await self._unless_crashed(self._page.evaluate(_CONVERT_JS, workflow))
        if "problem" in result:
            raise ConversionError(f"The ComfyUI frontend cannot convert this workflow: {result['problem']}.")
        output = result.get("output")
        if not isinstance(output, dict) or not all(isinstance(node, dict) for node in output.values()):
            raise ConversionError("The ComfyUI frontend cannot convert this workflow: what it exported is no prompt.")
        return output, list(result.get("replaced") or [])

    async def _load_page(self, server_address: str) -> None:
        if self._page is None:
            context = await self._browser.new_context(
                viewport={"width": 64, "height": 64}, service_workers="block", extra_http_headers=self.headers
            )
            await context.route("**/*", lambda route: self._route(route, server_address))
            # CONVERSION_TIMEOUT limits the whole conversion; Playwright's own 30 s for each step would come before it.
            context.set_default_timeout(0)
            self._page = await context.new_page()
            crash = self._crash = asyncio.get_running_loop().create_future()
            self._page.on("crash", lambda page: None if crash.done() else crash.set_result(None))
        started = time.monotonic()
        self._page_address, self._conversions = "", 0
        await self._unless_crashed(self._page.goto(f"{server_address}/", wait_until="commit"))
        await self._unless_crashed(self._page.wait_for_function(_READY_JS, polling=50))
        self._page_address = server_address
        log.info("Frontend loaded in %.1f s", time.monotonic() - started)

    async def _unless_crashed(self, step: Coroutine[Any, Any, Any]) -> Any:
        """Await a step of the page. Playwright lets a step wait for ever where the page crashes under it.

        Raises:
            ConversionError: the page has crashed.
        """
        assert self._crash is not None
        task = asyncio.ensure_future(step)
        try:
            await asyncio.wait([task, self._crash], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ConversionError(
                    "The page of the ComfyUI frontend crashed (its process ended or ran out of memory)."
                )
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await _all_done([task])

    async def _route(self, route: Any, server_address: str) -> None:
        """The page sees the server read-only, forced settings, and nothing of the outside world.

        A redirect is not asked about here: the browser follows it, on a navigation with all of our headers (measured
        with Chromium 156 and Playwright 1.65; from scripts and the like it takes an Authorization away). Where a token
        is among them the page is fetched by the connector, which follows none.
        """
        request = route.request
        path = request.url.partition("?")[0]
        with contextlib.suppress(Exception):  # the page may be gone while a request is answered
            if not request.url.startswith((f"{server_address}/", "data:", "blob:")):
                await route.abort()
            elif path.endswith("/api/settings") and request.method == "GET":
                await route.fulfill(json=_FORCED_SETTINGS)
            elif request.method not in ("GET", "HEAD"):
                await route.fulfill(json={})
            elif self.headers and request.is_navigation_request():
                try:
                    assert self._read_index is not None
                    await route.fulfill(body=await self._read_index(), content_type="text/html; charset=utf-8")
                except ConnectorError as e:
                    log.debug("The page was not loaded: %s", e)
                    await route.abort()
            else:
                await route.fallback()

    def mark_stale(self) -> None:
        """Have the page loaded anew before the next conversion: the server's nodes may have changed."""
        self._page_address = ""

    async def discard_page(self) -> None:
        """Close the page with its context, so that the next conversion starts from a clean one."""
        page, self._page, self._page_address = self._page, None, ""
        if page is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(page.context.close(), 5)

    async def close(self) -> None:
        """Close page, browser and driver; a browser that does not answer is killed, and no other one. Idempotent.

        If it is cancelled everything is killed at once, before CancelledError passes on.
        """
        self._page, self._page_address = None, ""
        browser, self._browser = self._browser, None
        playwright, self._playwright = self._playwright, None

        async def ask() -> None:
            if browser is not None:
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(browser.close(), 5)
            if playwright is not None:
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(playwright.stop(), 5)

        asking = asyncio.ensure_future(ask())
        try:
            await asyncio.shield(asking)
        except asyncio.CancelledError:
            await _in_thread(self.kill_now)
            await _all_done([asking])  # at once: nobody is left to be waited for
            raise
        await _in_thread(self.kill_now)

    def kill_now(self) -> None:
        """End what is left of our driver and browser: children of ours whose temp folder is our own. Blocks."""
        left = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_TEMP_VARIABLE) == self._temp_folder:
                    left.append(process)
        if left:
            _end_processes(left)


# --------------------------------------------------------------------------------------------------------------------
# Conversions on disk
# --------------------------------------------------------------------------------------------------------------------


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    # JavaScript's strings may hold half a surrogate pair, and so may a workflow: a text that was cut in an emoji.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")


def is_volatile(workflow: Any) -> bool:
    """Whether converting the workflow twice may give two prompts, so that a stored conversion would be stale.

    The frontend replaces ``%date:...%`` and ``%Node.widget%`` in texts, and picks from dynamic prompts ``{a|b}``.
    """
    if isinstance(workflow, str):
        braces = "{" in workflow and "}" in workflow
        return (braces and "|" in workflow) or workflow.count("%") >= 2
    if isinstance(workflow, Mapping):
        # Titles, notes and properties are not text of widgets, but asking about them too costs only a conversion.
        return any(is_volatile(v) for v in workflow.values())
    if isinstance(workflow, (list, tuple)):
        return any(is_volatile(v) for v in workflow)
    return False


def types_in_workflow(workflow: Json) -> set[str]:
    """Every node type that the workflow mentions, inside subgraphs and group nodes too."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, Mapping):
            nodes = value.get("nodes")
            if isinstance(nodes, list):
                found.update(n["type"] for n in nodes if isinstance(n, Mapping) and isinstance(n.get("type"), str))
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(workflow)
    return found


@dataclasses.dataclass(frozen=True)
class ConversionNote:
    """One thing that a workflow holds and its prompt does not, or not as it is there. See ``conversion_notes``.

    ``dataclasses.asdict(note)`` is JSON.
    """

    #: what happened, one of :attr:`KINDS`
    kind: str
    #: the node as the prompt would call it: ``35``, or ``57:35`` for node 35 in the subgraph that node 57 is
    node_id: str
    #: the node's type in the workflow; a subgraph's is the id of its definition
    class_type: str
    #: the node's title, None where it has none of its own
    title: str | None
    #: the input that is concerned, None where the whole node is
    input: str | None
    #: all of it as a sentence
    text: str

    #: every kind, and the level it is logged with: what the workflow itself asks for is INFO, what nobody asked for is
    #: WARNING
    KINDS: ClassVar[Mapping[str, int]] = types.MappingProxyType(
        {
            "muted": logging.INFO,  # the node is muted in the workflow: it is left out
            "bypassed": logging.INFO,  # the node is bypassed: it is left out, links pass through it
            "editor_only": logging.INFO,  # the server does not know the node, and the frontend leaves it out
            "link_off": logging.INFO,  # an optional input's link comes from a muted or bypassed node: it is left out
            "default_used": logging.INFO,  # the file has no value for a widget: its default is used
            "node_lost": logging.WARNING,  # an active node that the server knows is not in the prompt
            "link_lost": logging.WARNING,  # an input that is linked in the workflow is not in the prompt
            "runs_although_off": logging.WARNING,  # the subgraph is muted or bypassed, its content is in the prompt
            "value_not_used": logging.WARNING,  # the file has a value for a widget, the prompt has another one
            "wrong_value": logging.WARNING,  # the value cannot have been meant for this input
            "null_value": logging.WARNING,  # the frontend gave null for a widget
            "null_replaced": logging.WARNING,  # it did so in a subgraph, and the inner node's own value was taken
        }
    )

    @property
    def level(self) -> int:
        """``logging.INFO`` or ``logging.WARNING``."""
        return self.KINDS.get(self.kind, logging.WARNING)


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A prompt, and what is to be said about how it came from its workflow."""

    prompt: Json
    notes: list[ConversionNote]


class ConversionStore:
    """Finished conversions: in memory, and on disk (0700) as ``<key>.json``: ``{"prompt": {...}, "notes": [{...}]}``.

    The key is the hash of everything a conversion depends on: the workflow, the frontend build and its extensions, and
    the definitions of the node types that the workflow uses. At most :attr:`LIMIT` files are kept, oldest use first
    out.
    """

    LIMIT: ClassVar[int] = 1000

    def __init__(self, on_disk: bool):
        self._memory: dict[str, Conversion] = {}
        self._folder = cache_folder() / "conversions" if on_disk else None

    def get(self, key: str) -> Conversion | None:
        """The stored conversion, or None. The caller must not change it."""
        if key in self._memory:
            return self._memory[key]
        if self._folder is None:
            return None
        file = self._folder / f"{key}.json"
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
            os.utime(file)
            conversion = Conversion(dict(stored["prompt"]), [ConversionNote(**note) for note in stored["notes"]])
        except (OSError, ValueError, TypeError, KeyError):  # not there, or cut off by a full disk: convert again
            return None
        self._memory[key] = conversion
        return conversion

    def put(self, key: str, conversion: Conversion) -> None:
        """Keep a conversion; a disk that cannot be written costs only time later."""
        self._memory[key] = conversion
        if self._folder is None:
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._folder, delete=False, encoding="utf-8", suffix=".tmp") as f:
                json.dump(dataclasses.asdict(conversion), f)
            os.replace(f.name, self._folder / f"{key}.json")
            self._prune()
        except OSError as e:
            log.warning("Conversion not kept on disk: %s", e)

    def _prune(self) -> None:
        assert self._folder is not None
        files = list(self._folder.glob("*.json"))
        if len(files) > self.LIMIT:
            files.sort(key=lambda f: f.stat().st_mtime)
            for file in files[: len(files) - self.LIMIT]:
                file.unlink(missing_ok=True)


# --------------------------------------------------------------------------------------------------------------------
# The websocket
# --------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ServerEvent:
    """One message of the server's websocket.

    ``type`` is the server's own word ("status", "execution_start", "execution_cached", "executing", "progress",
    "progress_state", "executed", "execution_success", "execution_error", "execution_interrupted", ...), or "preview"
    for a binary preview image, "connected" and "disconnected" for the socket itself.
    """

    type: str
    data: Json
    #: prompt the event belongs to, None where the message does not say
    prompt_id: str | None = None
    #: node id, None where the message is not about one ("executing" with None ends a prompt)
    node: str | None = None
    #: encoded image of a "preview" event, and "jpeg" or "png"
    image: bytes | None = None
    image_format: str | None = None


# How a message about the state of all nodes begins: json.dumps writes it so in every version that sends it.
_STATE_MESSAGE = re.compile(r'\{"type": "progress_state", "data": \{"prompt_id": "([^"\\]*)"')


def parse_message(message: str | bytes, with_states: bool = True) -> ServerEvent | None:
    """One websocket message as an event; None for what cannot be understood (a newer server may send more kinds).

    *with_states* False leaves the data of "progress_state" out. The server sends it twice for each node, with all nodes
    so far: for a large workflow, reading them takes longer than everything else that a run does here.

    Binary formats (big endian): event 1 = u32 event, u32 format (1 JPEG, 2 PNG), image; event 4 = u32 event, u32 length
    of a JSON text, the JSON (with "node_id", "prompt_id", "image_type"), image.
    """
    if isinstance(message, bytes):
        kind = int.from_bytes(message[:4], "big")
        second = int.from_bytes(message[4:8], "big")
        if kind == 1:
            return ServerEvent("preview", {}, image=message[8:], image_format="png" if second == 2 else "jpeg")
        if kind == 4:
            try:
                data = json.loads(message[8 : 8 + second])
            except (ValueError, RecursionError):
                return None
            if not isinstance(data, dict) or len(message) < 8 + second:
                return None
            image_format = "png" if "png" in str(data.get("image_type")) else "jpeg"
            return ServerEvent(
                "preview",
                data,
                data.get("prompt_id"),
                data.get("node_id"),
                message[8 + second :],
                image_format,
            )
        return None
    state = None if with_states else _STATE_MESSAGE.match(message)
    if state is not None:
        return ServerEvent("progress_state", {}, state[1])
    try:
        content = json.loads(message)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("type"), str):
        return None
    data = content.get("data")
    data = data if isinstance(data, dict) else {}
    node = data.get("node", data.get("node_id"))
    return ServerEvent(content["type"], data, data.get("prompt_id"), None if node is None else str(node))


# Imported when it is needed: it takes about 0.1 s.
_WEBSOCKET_MODULE = "websockets.asyncio.client"


class EventStream:
    """The websocket to the server: one reader task, reconnecting with the same client id until it is closed.

    Whoever wants events subscribes a callable; it is called on the event loop and must return at once. Subscriptions
    outlive the socket and the server. Losing the socket loses no result: the connector asks the history.
    """

    def __init__(self, when_cut: Callable[[], None] = lambda: None) -> None:
        # called when the open socket is lost; unlike a subscription it is no reason to reconnect after a restart
        self._when_cut = when_cut
        #: address of the socket; a change takes effect with the next :meth:`connect`
        self.url = ""
        #: HTTP headers of its handshake
        self.headers: dict[str, str] = {}
        self._listeners: list[Callable[[ServerEvent], None]] = []
        # how many of them want the data of "progress_state"
        self._state_readers = 0
        self._task: asyncio.Task[None] | None = None
        # the address that the reader task reads from
        self._task_url = ""
        self._connected = asyncio.Event()
        # whether somebody waited in vain since the socket was last open: nobody waits for it again
        self._is_given_up = False
        # the first error of the current series of failed connects, for whoever waits
        self._problem: BaseException | None = None

    @property
    def is_connected(self) -> bool:
        return self._connected.is_set()

    @property
    def is_wanted(self) -> bool:
        """Whether it was ever connected, or tried to be, since the last :meth:`close`."""
        return self._task is not None

    @property
    def has_listeners(self) -> bool:
        return bool(self._listeners)

    def subscribe(self, listener: Callable[[ServerEvent], None], with_states: bool = True) -> Callable[[], None]:
        """Call *listener* with every event from now on; returns the function that ends it.

        *with_states*: whether it reads the data of "progress_state", see :func:`parse_message`.
        """
        self._listeners.append(listener)
        self._state_readers += with_states

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)
                self._state_readers -= with_states

        return unsubscribe

    async def connect(self, timeout: float) -> bool:
        """Start reading (once) and wait until the socket is open; False where it is not within *timeout* seconds.

        After a wait in vain the next ones return at once, until the reader, which goes on trying, has succeeded: a
        server without a working socket costs each run nothing but the events.
        """
        if self._task is not None and self._task_url != self.url:
            await self.close()
        if self._task is None or self._task.done():
            self._task_url = self.url
            self._task = asyncio.create_task(self._read_forever(), name="discomfort-websocket")
        if self.is_connected or self._is_given_up:
            return self.is_connected
        try:
            await asyncio.wait_for(self._connected.wait(), timeout)
        except asyncio.TimeoutError:
            self._is_given_up = True
            log.warning("No websocket to %s within %g s: %s", self.url, timeout, self._problem or "no answer")
            return False
        return True

    async def _read_forever(self) -> None:
        import websockets.asyncio.client as client

        # No size limit: previews of large images are single messages. No pings: a node that holds the interpreter for
        # minutes is not a dead server; HTTP and the process tell about that. No compression: the messages are small
        # and stay on this machine. A server that hangs says no goodbye: one second for it is enough.
        class Connection(client.connect):
            def process_redirect(self, exc: Exception) -> Exception | str:
                return exc  # not followed, see _RedirectError; older versions would take the token along

        options: dict[str, Any] = {
            "max_size": None,
            "ping_interval": None,
            "compression": None,
            "open_timeout": 10,
            "close_timeout": 1,
            "additional_headers": self.headers,
        }
        if self.headers:
            # With its own logger the library writes every header of the handshake, hence the token, at level DEBUG.
            options["logger"] = logging.getLogger("discomfort.comfy_serverless.websocket")
            options["logger"].setLevel(logging.INFO)
        if "proxy" in inspect.signature(client.connect).parameters:  # websockets 15 and later would use a proxy
            options["proxy"] = None
        delay = 0.05
        while True:
            try:
                async with Connection(self._task_url, **options) as ws:
                    await ws.send('{"type": "feature_flags", "data": {"supports_preview_metadata": true}}')
                    self._connected.set()
                    self._problem, self._is_given_up, delay = None, False, 0.05
                    self._publish(ServerEvent("connected", {}))
                    async for message in ws:
                        event = parse_message(message, with_states=self._state_readers > 0)
                        if event is not None:
                            self._publish(event)
            except Exception as e:  # whatever it is, the reader goes on: without it every run would be polled for
                if self._problem is None:
                    log.debug("Websocket: %s: %s", type(e).__name__, e)
                self._problem = self._problem or e
            finally:
                if self._connected.is_set():
                    self._connected.clear()
                    self._when_cut()
                    self._publish(ServerEvent("disconnected", {}))
            await asyncio.sleep(delay)
            delay = min(delay * 2, 2.0)

    def _publish(self, event: ServerEvent) -> None:
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:  # a listener's fault must not end the stream for all others
                log.exception("Listener failed on %s", event.type)

    async def close(self) -> None:
        """End the reader and the socket; subscriptions stay. Idempotent."""
        task, self._task = self._task, None
        self._is_given_up, self._problem = False, None
        if task is not None:
            task.cancel()
            await _all_done([task])


# --------------------------------------------------------------------------------------------------------------------
# The connector
# --------------------------------------------------------------------------------------------------------------------


class State(enum.Enum):
    """Life of a connector. ``killing`` is the one transitional state beside the reference's five."""

    UNINIT = "uninit"
    INITIALIZING = "initializing"
    READY = "ready"
    ERROR = "error"
    KILLING = "killing"
    KILLED = "killed"


# Which state may follow which; _set_state refuses everything else, so that no half-initialised instance can arise.
_TRANSITIONS = {
    State.UNINIT: {State.INITIALIZING, State.KILLING},
    State.INITIALIZING: {State.READY, State.ERROR, State.KILLING},
    State.READY: {State.INITIALIZING, State.ERROR, State.KILLING},
    State.ERROR: {State.INITIALIZING, State.KILLING},
    State.KILLING: {State.KILLED},
    State.KILLED: set(),
}


def _process_state() -> Any:
    """What must exist once per process, whatever name this module was imported under.

    ComfyUI imports a package under its absolute path, scripts as ``custom_nodes.discomfort`` or ``discomfort``: three
    module objects, each with a ComfyConnector and a State of its own. A module registered under a fixed name is shared
    by all of them: it has ``connector`` (the instance, or None) and ``lock``.
    """
    name = "_discomfort_connector_state"
    if name not in sys.modules:
        module: Any = types.ModuleType(name)
        module.connector, module.lock = None, threading.Lock()
        sys.modules.setdefault(name, module)
    return sys.modules[name]


class _PromptRun:
    """What is known about one prompt while it is followed."""

    def __init__(self, prompt_id: str):
        self.prompt_id = prompt_id
        # the server that it was given to; None before
        self.server: ServerProcess | AttachedServer | None = None
        # its POST, which a cancelled run lets end before it takes the prompt back
        self.post: asyncio.Future[tuple[int, str]] | None = None
        # set on every event that may mean the end, and when the socket is lost
        self.wake = asyncio.Event()
        # when the last event of it came, or it was last seen waiting in the queue
        self.last_event = time.monotonic()
        # the node that is being executed, as far as the events tell
        self.node_id: str | None = None

    def on_answer(self, post: asyncio.Future[tuple[int, str]]) -> None:
        """Take the id that the server gave the prompt: one older than the choice of ids by the client (ComfyUI 0.3.5x)
        gives it one of its own.
        """
        if post.cancelled() or post.exception() is not None:  # which is seen by whoever waits, if anybody still does
            return
        with contextlib.suppress(ValueError, RecursionError):
            answer = json.loads(post.result()[1])
            if isinstance(answer, dict) and isinstance(answer.get("prompt_id"), str):
                self.prompt_id = answer["prompt_id"]

    def on_event(self, event: ServerEvent) -> None:
        if event.type in ("disconnected", "closed"):
            self.wake.set()
        if event.prompt_id != self.prompt_id:
            return
        self.last_event = time.monotonic()
        # "executing" with no node is sent after the history entry was written; "execution_success" comes before it.
        if event.type == "executing":
            self.node_id = event.node
            if event.node is None:
                self.wake.set()


# What asking a server raises that gives no proper answer; RecursionError: JSON that is nested too deeply.
_NO_ANSWER = (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError, RecursionError)
# Seconds that a run waits for the websocket before it is followed by HTTP alone.
_WEBSOCKET_PATIENCE = 10.0
# Seconds within which a healthy server answers.
_HEALTH_PATIENCE = 5.0
# Seconds after which a prompt that is neither in the queue nor in the history counts as forgotten.
_FORGOTTEN_AFTER = 20.0
# Seconds for which an attached server may refuse connections during a run before it counts as gone: nobody tells us
# whether its process lives, and its owner may be restarting it, but then the run is lost as well.
_REFUSED_PATIENCE = 10.0
# Seconds that a cancelled run waits for the server to take its prompt back.
_ABANDON_PATIENCE = 5.0


# What tells one version of a script from another, and how many are asked about at once.
_VERSION_HEADERS = ("ETag", "Last-Modified", "Content-Length")
_HEAD_REQUESTS = 8


class ComfyConnector:
    """An asynchronous singleton that owns one ComfyUI server: start, convert, run, follow, recover, kill.

    Obtain it with ``await ComfyConnector.create()``; end it with ``await connector.kill_api()``.

    Invariants:
        * One instance per process, and it belongs to the event loop that created it.
        * Only ``_set_state`` changes the state; it logs old and new state, the reason, and the time between.
        * In state READY ``_server``, ``_folder`` and ``_session`` are set. Browser and websocket are lazy: the page
          appears with the first conversion that misses the store, the socket with the first run.
        * Nothing that blocks runs on the event loop: processes, folders and locks are handled in threads.
        * ``_start_task`` is the only place that starts a server; concurrent callers share it, and its error.
        * ``_conversion_lock`` is held during a conversion: the page is one.
        * Every await of a public method may be cancelled; a cancelled run interrupts exactly its own prompt.
    """

    #: seconds after which history entries that were read are deleted on the server
    FORGET_DELAY: ClassVar[float] = 0.2

    # ---- creating ----

    def __init__(self, *args: Any, **kwargs: Any):
        raise TypeError("ComfyConnector is created with: connector = await ComfyConnector.create()")

    @classmethod
    async def create(cls, config_path: str | os.PathLike[str] | ConnectorConfig | None = None) -> ComfyConnector:
        """Start the server, or return the instance that runs already.

        A server that API_URL names, and a warm one that was started with the same settings, are used instead of
        starting one; they are never stopped.

        Args:
            config_path: JSON configuration, or a :class:`ConnectorConfig`; None: ``comfy_serverless.json`` beside this
                file. Where an instance runs already, its own configuration stays, and a warning says so; after a start
                that failed the one given now counts.

        Returns:
            The instance, in state ready.

        Raises:
            ConfigError, ServerNotFoundError, ServerStartError: see there.
            ConnectorError: the instance belongs to another event loop that still runs.

        Cancelling is safe: a start that nobody waits for any more is undone.
        """
        holder = _process_state()
        while True:
            instance, leftover = cls._instance_for_this_loop(holder, config_path)
            if leftover is not None:
                log.info("The event loop of the previous connector has ended; its server is stopped")
                await _in_thread(leftover._sync_cleanup)
            if instance.state != "killing":
                await instance._ensure_initialized()
                return instance
            await instance.kill_api()  # waits for the kill that is under way; then a fresh one

    @classmethod
    def is_running(cls) -> bool:
        """Whether this process has a connector that :meth:`create` would return instead of starting a server."""
        instance = _process_state().connector
        return instance is not None and instance._owner_pid == os.getpid() and instance.state == "ready"

    @classmethod
    def _instance_for_this_loop(
        cls, holder: Any, config_path: str | os.PathLike[str] | ConnectorConfig | None
    ) -> tuple[ComfyConnector, ComfyConnector | None]:
        """(the instance to use, an instance of a loop that has ended and that the caller cleans up)."""
        loop = asyncio.get_running_loop()
        with holder.lock:
            # States are compared by name: the instance may come from another import of this module.
            instance: ComfyConnector | None = holder.connector
            leftover = None
            if instance is not None and instance._owner_pid != os.getpid():
                instance = None  # inherited by fork: the parent's server is the parent's
            if instance is not None and instance.state != "killed" and instance._loop is not loop:
                instance._refuse_other_loop()
                instance, leftover = None, instance
            if instance is None or instance.state == "killed":
                instance = object.__new__(cls)
                instance._setup(ConnectorConfig.load(config_path), loop)
                holder.connector = instance
                return instance, leftover
            has_failed = instance.state in ("uninit", "error") and instance._start_task is None
            if has_failed and (config_path is not None or not instance._was_ready):
                instance._configure(ConnectorConfig.load(config_path))
            elif config_path is not None and ConnectorConfig.load(config_path) != instance.config:
                log.warning(
                    "A server runs already with another configuration; %s is not used before kill_api()", config_path
                )
            return instance, None

    def _refuse_other_loop(self) -> None:
        """Raise ConnectorError where this is not the instance's event loop, and the instance's own still runs; and in
        a forked child, whose parent goes on to use the server.
        """
        if self._owner_pid != os.getpid():
            raise ConnectorError(
                f"This ComfyConnector belongs to process {self._owner_pid}, which this one was forked from. Get one of "
                "its own with: await ComfyConnector.create()"
            )
        if self._loop is not asyncio.get_running_loop() and self._loop.is_running():
            raise ConnectorError(
                "The ComfyConnector of this process belongs to another event loop that is still running (in thread "
                f"{self._thread_name!r}). Use it from there, e.g. with asyncio.run_coroutine_threadsafe(), or call its "
                "kill_api() there first."
            )

    def _check_loop(self) -> None:
        """Refuse to be used from an event loop that is not the instance's; holds for every public coroutine."""
        self._refuse_other_loop()
        if self._loop is not asyncio.get_running_loop():
            raise ConnectorError(
                "The event loop of this ComfyConnector has ended. Get a fresh one with: await ComfyConnector.create()"
            )

    def _configure(self, config: ConnectorConfig) -> None:
        #: the configuration, checked
        self.config = config
        self._store = ConversionStore(config.STORE_CONVERSIONS)

    def _setup(self, config: ConnectorConfig, loop: asyncio.AbstractEventLoop) -> None:
        self._configure(config)
        #: how many callers share this instance; counted by them (see discomfort.py), kill_api() does not ask
        self.users = 0
        #: whether the last of those callers ends it; false where somebody called create() for a server to keep
        self.ends_with_its_users = False
        self._loop = loop
        self._thread_name = threading.current_thread().name
        self._owner_pid = os.getpid()
        self._state = State.UNINIT
        self._state_since = time.monotonic()
        self._client_id = uuid.uuid4().hex
        # why the state is ERROR, None otherwise
        self._error: BaseException | None = None
        self._choice: ServerChoice | None = None
        self._folder: RuntimeFolder | None = None
        self._server: ServerProcess | AttachedServer | None = None
        self._session: aiohttp.ClientSession | None = None
        self._page: FrontendPage | None = None
        self._events = EventStream(self._socket_was_cut)
        # whether a start has ever succeeded
        self._was_ready = False
        # ends with the event loop, see _live_with_loop
        self._loop_end: AsyncGenerator[None, None] | None = None
        # the last look at the server's queue, see _look_at_queue, and when it began
        self._queue_look: asyncio.Task[dict[str, bool]] | None = None
        self._queue_look_began = 0.0
        self._start_task: asyncio.Task[None] | None = None
        self._start_waiters = 0
        self._kill_lock = asyncio.Lock()
        self._conversion_lock = asyncio.Lock()
        # the conversion under way
        self._conversion: asyncio.Task[tuple[Json, list[list[str]]]] | None = None
        # (shape of a workflow, note) of every note that was logged
        self._reported: set[tuple[str, ConversionNote]] = set()
        self._browser_idle: asyncio.TimerHandle | None = None
        # (hash of the frontend build and its extensions, object_info) of the running server, None until asked
        self._frontend: tuple[str, Json] | None = None
        self._stats: Json = {}
        self._ephemeral_files: list[Path] = []
        # folders that were made for them
        self._ephemeral_folders: list[Path] = []
        # prompts that were queued and have not ended
        self._runs: set[_PromptRun] = set()
        # prompts whose history entries were read and can be deleted on the server, and when that happens
        self._read_entries: list[str] = []
        self._forget_timer: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[Any]] = set()
        atexit.register(self._sync_cleanup)

    # ---- what it is ----

    @property
    def state(self) -> str:
        """One of uninit, initializing, ready, error, killing, killed."""
        return self._state.value

    @property
    def client_id(self) -> str:
        """Identifier under which the server sends this connector its events; constant for the instance's life."""
        return self._client_id

    @property
    def server_address(self) -> str:
        """``http://host:port`` of the running server; "" before the first start."""
        return self._server.address if self._server else ""

    @property
    def ws_address(self) -> str:
        """``ws://host:port/ws?clientId=...`` of the running server; "" before the first start."""
        return f"ws{self._server.address.removeprefix('http')}/ws?clientId={self._client_id}" if self._server else ""

    @property
    def is_attached(self) -> bool:
        """Whether the server was running already: it is used, and :meth:`kill_api` leaves it running."""
        return isinstance(self._server, AttachedServer)

    @property
    def is_local(self) -> bool:
        """Whether the server runs on this machine, as far as its address tells: only then can it read contexts."""
        return not isinstance(self._server, AttachedServer) or self._server.is_local

    @property
    def server_choice(self) -> ServerChoice | None:
        """Which server was chosen, with its folders; None for one that API_URL names, and before the first start."""
        return self._choice

    @property
    def server_pid(self) -> int | None:
        """Process id of the server where it runs on this machine and is known; None else."""
        return self._server.pid if self._server else None

    @property
    def can_restart(self) -> bool:
        """Whether :meth:`restart` may be called now: the server is our own, and no prompt of ours is on it."""
        return self._server is not None and not self.is_attached and not self._runs

    @property
    def server_description(self) -> str:
        """A sentence for people: which server this is, where, and why it was chosen."""
        return self._server.describe(self._stats) if self._server else "no server yet"

    @property
    def log_path(self) -> Path | None:
        """File with the server's output while it runs; None for a server that API_URL names."""
        return self._server.log_path if self._server else None

    def __repr__(self) -> str:
        return f"<ComfyConnector {self.state} {self.server_address}>"

    def _headers(self) -> dict[str, str]:
        """HTTP headers of every request: the token of a server that API_URL names, which no other one gets to see."""
        token = self.config.token if self.config.attached_url else ""
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _set_state(self, new: State, reason: str) -> None:
        """The one place that changes the state."""
        if new not in _TRANSITIONS[self._state]:
            raise ConnectorError(f"A connector that is {self._state.value} cannot become {new.value} ({reason}).")
        now = time.monotonic()
        log.info("%s -> %s after %.2f s: %s", self._state.value, new.value, now - self._state_since, reason)
        self._state, self._state_since = new, now

    # ---- starting ----

    async def _ensure_initialized(self) -> None:
        """Return with a running server, starting or restarting one where there is none.

        Concurrent callers share one start and its outcome. May be cancelled: when the last waiting caller is cancelled,
        the start is undone.

        Raises:
            ConnectorError: the connector was killed; what :meth:`create` raises otherwise.
        """
        self._check_loop()
        while True:
            if self._state in (State.KILLING, State.KILLED):
                raise ConnectorError(
                    "This connector was shut down by kill_api(). Get a fresh one with: await ComfyConnector.create()"
                )
            if self._state is State.READY and self._server is not None and self._server.is_alive:
                if self._folder is not None and self._folder.has_lost_guard:
                    await _in_thread(self._folder.replace_guard)
                return
            if self._start_task is None:
                self._start_task = asyncio.create_task(self._start(), name="discomfort-start")
                self._start_task.add_done_callback(self._start_done)
            task = self._start_task
            self._start_waiters += 1
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                if self._start_waiters == 1:
                    task.cancel()
                    await _all_done([task])
                raise
            finally:
                self._start_waiters -= 1
            if not task.cancelled():
                task.result()
                return
            # Undone by kill_api(), which the next turn tells, or because everybody else who waited was cancelled.

    def _start_done(self, task: asyncio.Task[None]) -> None:
        self._start_task = None
        if not task.cancelled():
            task.exception()  # seen: whoever waited got it; nobody may have waited

    async def _start(self) -> None:
        """Body of the start task: from nothing, or from a dead server, to a ready one; undone on every failure."""
        reason = "first start"
        if self._server is not None:
            code = self._server.returncode
            reason = f"the server ended with status {code}" if not self._server.is_alive else "restart"
            if self.is_attached:
                reason = "the attached server was lost"
        # One that does not answer is not asked to stop: that would only cost STOP_TIMEOUT.
        is_mute = self._state is State.ERROR
        self._set_state(State.INITIALIZING, reason)
        try:
            await self._release_resources(quickly=is_mute)
            await _in_thread(sweep)
            # A server that API_URL names is there: nothing has to be found.
            self._choice = None
            if not self.config.attached_url:
                self._choice = await _in_thread(choose_server, self.config)
            self._folder = RuntimeFolder()
            await _in_thread(self._folder.open)
            for file in self._ephemeral_files:  # after a restart
                self._folder.note_upload(file)
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self.config.REQUEST_TIMEOUT),
                connector=aiohttp.TCPConnector(limit=0),
                headers=self._headers(),
                trace_configs=[_refusing_redirects()],
            )
            self._events.headers = self._headers()
            # Used by the first run; loaded while the server is being loaded, not while somebody waits for a result.
            websocket_library = asyncio.create_task(asyncio.to_thread(importlib.import_module, _WEBSOCKET_MODULE))
            try:
                if self.config.attached_url:
                    await self._attach()
                elif not await self._attach_warm():
                    await self._start_api()
            finally:
                await _all_done([websocket_library])
        except BaseException as e:
            self._error = e
            await self._release_resources(quickly=True)
            if self._state is State.INITIALIZING:  # else kill_api() came in between
                self._set_state(State.ERROR, (f"{type(e).__name__}: {e}".splitlines())[0])
            raise
        self._error, self._was_ready = None, True
        self._set_state(State.READY, self.server_description)
        if self._loop_end is None:
            self._loop_end = self._live_with_loop()
            await self._loop_end.__anext__()
        if self._events.has_listeners:
            self._in_background(self._reconnect)

    async def _live_with_loop(self) -> AsyncGenerator[None, None]:
        """An asynchronous generator that is never finished by us: ``asyncio.run`` closes it before it closes its loop,
        which is the last moment at which server and browser can be ended in an orderly way.
        """
        try:
            yield
        finally:
            self._loop_end = None  # what is being closed now
            if self._owner_pid == os.getpid() and self._state not in (State.KILLING, State.KILLED):
                log.info("The event loop ends, and the server with it")
                await self.kill_api()

    async def _reconnect(self) -> None:
        await self._ensure_fresh_websocket()

    async def _attach(self) -> None:
        """Use the server that API_URL names; runs inside the start task.

        Raises:
            ServerNotFoundError: nobody answers there, or something that is no ComfyUI.
            ConfigError: it cannot be given NODE_PACKS.
            ConnectorError: it is the server that this very process is.
        """
        address = self.config.attached_url
        if self.config.NODE_PACKS:
            raise ConfigError(
                f"NODE_PACKS names packs for a server that is started, but API_URL names one that runs already "
                f"({address}). Have the packs loaded there and leave NODE_PACKS out, or set API_URL to a host alone "
                "(127.0.0.1) to have a server started."
            )
        if _is_served_here(address):
            raise ConnectorError(
                f"API_URL names the server that this code runs in ({address}). A prompt queued from inside a node "
                "would wait for ever behind the one that the node belongs to. Leave API_URL out: a nested server is "
                "started."
            )
        host = urllib.parse.urlsplit(address).hostname or ""
        if self._headers() and address.startswith("http://") and not _is_loopback(host):
            log.warning("The token goes to %s unencrypted: API_URL should begin with https://", host)
        self._server = server = AttachedServer(address)
        self._stats = await self._look_at_attached(address)
        server.is_local = not await _in_thread(_why_not_ours, host)

    async def _look_at_attached(self, address: str) -> Json:
        """/system_stats of the server at *address*; ServerNotFoundError says what is there instead of a ComfyUI."""
        assert self._session is not None
        problem = ""
        try:
            limit = aiohttp.ClientTimeout(total=2 * _HEALTH_PATIENCE)
            async with self._session.get(f"{address}/system_stats", timeout=limit) as response:
                if response.status in (401, 403):
                    how = "The token was refused" if self._headers() else "It wants a token"
                    problem = (
                        f"answers with status {response.status}. {how}: set API_TOKEN in the configuration, or the "
                        "environment variable DISCOMFORT_API_TOKEN"
                    )
                elif response.status != 200:
                    problem = f"answers GET /system_stats with status {response.status}, as no ComfyUI does"
                else:
                    stats = json.loads(await response.text())
                    if isinstance(stats, dict) and isinstance(stats.get("system"), dict):
                        return stats
                    problem = "answers, but not as a ComfyUI"
        except asyncio.TimeoutError:
            problem = f"did not answer within {2 * _HEALTH_PATIENCE:g} s"
        except ValueError:
            problem = "answers, but not as a ComfyUI"
        except _RedirectError as e:
            problem = f"sends elsewhere, to {e.location}, which is not followed: set API_URL to the server itself"
        except (aiohttp.ClientError, OSError) as e:
            reason: Any = e
            if isinstance(e, aiohttp.ClientConnectorError) and not isinstance(e, aiohttp.ClientSSLError):
                # Its own text speaks of ssl where there is none, and tells no reason.
                number = e.os_error.errno or 0
                reason = os.strerror(number) if number > 0 else e.os_error
            problem = f"cannot be reached: {reason}"
        raise ServerNotFoundError(
            f"The server at {address}, which API_URL names, {problem}. Discomfort does not start servers at an address "
            "with a port: start it there, or set API_URL to a host alone (127.0.0.1) to have one started."
        )

    async def _attach_warm(self) -> bool:
        """Use the warm server that was started with these settings; False where there is none that is healthy."""
        if not self.config.USE_WARM_SERVER or os.environ.get("DISCOMFORT_NESTED"):
            # Inside a nested server the warm one may be this very process, see _attach().
            return False
        choice = self._choice
        assert choice is not None

        def lease() -> AttachedServer | None:
            # Noted in the thread: if this is cancelled meanwhile, _release_resources() gives the lease back.
            self._server = found = lease_warm_server(self.config, choice, self._client_id)
            return found

        server = await _in_thread(lease)
        if server is None:
            return False
        assert server.warm is not None
        stats = await self._ask_stats(timeout=_HEALTH_PATIENCE)
        if stats is None or not _is_server_on(server.warm.runtime_folder, stats):
            log.warning("The warm server at %s does not answer; a server of our own is started", server.address)
            await _in_thread(server.stop_now)
            self._server = None
            return False
        self._stats = stats
        return True

    def _socket_was_cut(self) -> None:
        """Called by the event stream: an attached server that is cut off may come back with other nodes."""
        if self.is_attached:
            self._frontend = None

    async def _start_api(self) -> None:
        """Spawn the server and wait until it answers; runs inside the start task.

        Passing causes are tried again (MAX_COMFY_START_ATTEMPTS, backoff): a port that another program took meanwhile.
        A missing GPU is answered by ``--cpu`` (DEVICE "auto"). Every other early end is final, at once: repeating it
        would only repeat it.
        """
        assert self._folder is not None
        assert self._choice is not None
        given = self._choice.extra_args
        cpu = _starts_on_cpu(self.config)
        taken: set[int] = set()
        delay = self.config.COMFY_START_ATTEMPTS_SLEEP
        attempt = 1
        while True:
            port = await _in_thread(self._find_available_port, taken)
            self._server = ServerProcess(self._choice, self.config, self._folder, port, cpu)
            await _in_thread(self._server.spawn)
            try:
                await self._wait_until_ready(self._server)
                return
            except ServerStartError as e:
                output = "\n".join(e.log_tail)
                await _in_thread(self._server.stop_now)
                if e.returncode is None:
                    raise
                if not cpu and self.config.DEVICE == "auto" and any(text in output for text in _NO_GPU_TEXTS):
                    log.warning("The server found no usable GPU; it is started again with --cpu")
                    cpu = True
                    continue  # not one of the attempts: it happens once
                lost_port = any(text in output for text in _PORT_TAKEN_TEXTS)
                if not lost_port or _has_argument(given, "--port") or attempt >= self.config.MAX_COMFY_START_ATTEMPTS:
                    raise
                attempt += 1
                log.warning("Port %d was taken by another program; attempt %d in %.1f s", port, attempt, delay)
                taken.add(port)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 30.0)

    def _find_available_port(self, taken: set[int] | None = None) -> int:
        """The port for the next start: INITIAL_PORT or the next free one; reserved among Discomfort's processes.

        Raises:
            ConnectorError: nothing free, or the port that API_COMMAND_LINE demands is taken.
        """
        assert self._folder is not None
        assert self._choice is not None
        host = self.config.host.strip("[]")
        problem = _why_not_ours(host)
        if problem:
            raise ConfigError(
                f"API_URL is {self.config.API_URL!r}, which is no address of this machine ({problem}), and a nested "
                f"server runs on this one. To use a server that runs there, give its port: http://{self.config.host}:8188"
            )
        demanded = _argument_value(self._choice.extra_args, "--port")
        if demanded is None:
            return self._folder.reserve_port(host, self.config.INITIAL_PORT, taken or set())
        if not demanded.isdigit() or not 0 < int(demanded) < 65536:
            raise ConfigError(f"API_COMMAND_LINE demands --port {demanded}; a port is a number from 1 to 65535.")
        if not port_is_free(host, int(demanded)):
            raise ConnectorError(
                f"Port {demanded} on {host} is taken by another program, and API_COMMAND_LINE demands it. End that "
                f"program, "
                "or leave --port out: Discomfort then takes the next free port from INITIAL_PORT on."
            )
        return int(demanded)

    async def _wait_until_ready(self, server: ServerProcess) -> None:
        """Wait until *our* server answers; another one on the same port is told apart by its command line.

        Raises:
            ServerStartError: it ended, or START_TIMEOUT passed.
        """
        deadline = time.monotonic() + self.config.START_TIMEOUT
        while True:
            stats = await self._ask_stats(timeout=max(0.1, min(5.0, deadline - time.monotonic())))
            if stats is not None and _is_server_on(server.folder.path, stats):
                self._stats = stats
                return
            if not server.is_alive:
                await _in_thread(server.wait_for_output, 1.0)
                code = server.returncode
                how = f"with exit status {code}" if code is not None and code >= 0 else f"by signal {-(code or 0)}"
                problem = f"The ComfyUI server ended {how} before it was ready."
                raise ServerStartError(problem, server.command, code, server.log_tail, server.log_path)
            if time.monotonic() > deadline:
                limit = self.config.START_TIMEOUT
                problem = f"The ComfyUI server did not answer within {limit:g} s (START_TIMEOUT); it is stopped."
                raise ServerStartError(problem, server.command, None, server.log_tail, server.log_path)
            await asyncio.sleep(0.04)

    async def _ask_stats(self, timeout: float) -> Json | None:
        """GET /system_stats, None where nobody answers properly."""
        assert self._session is not None
        try:
            limit = aiohttp.ClientTimeout(total=timeout)
            async with self._session.get(f"{self.server_address}/system_stats", timeout=limit) as response:
                answer = await response.json() if response.status == 200 else None
                return answer if isinstance(answer, dict) else None
        except _NO_ANSWER:
            return None

    async def _is_api_running(self, timeout: float = 1.0) -> bool:
        """Whether the server answers HTTP within *timeout* seconds."""
        if self._session is None or self._session.closed or self._server is None:
            return False
        return await self._ask_stats(timeout) is not None

    # ---- health ----

    async def _broken_resources(self) -> list[str]:
        """Names of what does not work: "process", "http", "websocket", "browser". Lazy parts that are not there are
        fine.
        """
        broken = []
        if self._server is None or not self._server.is_alive:
            broken.append("process")
        elif not await self._is_api_running(timeout=_HEALTH_PATIENCE):
            broken.append("http")
        if self._events.is_wanted and not broken and not await self._ensure_fresh_websocket():
            broken.append("websocket")
        if self._page is not None and not self._page.is_open:
            broken.append("browser")
        return broken

    async def _validate_resources(self) -> bool:
        """Whether process, HTTP, and, where they exist, websocket and browser work. Changes nothing."""
        return not await self._broken_resources()

    async def _refresh_resources(self) -> None:
        """Repair what is broken and only that: restart a dead or mute server, drop a dead browser or socket."""
        broken = await self._broken_resources()
        if "browser" in broken:
            await self._close_page()
        if "websocket" in broken:
            await self._events.close()
        if "http" in broken:
            self._mark_mute(self._server)
        await self._ensure_initialized()

    async def _is_mute(self, server: ServerProcess | AttachedServer | None) -> bool:
        """Whether *server*, which just failed to answer, does not answer at all; the next call restarts it then.

        It gets another REQUEST_TIMEOUT: a node that holds the interpreter for a while is not a dead server.
        """
        if await self._is_api_running(timeout=self.config.REQUEST_TIMEOUT):
            return False
        self._mark_mute(server)
        return True

    def _mark_mute(self, server: ServerProcess | AttachedServer | None) -> None:
        """Note that *server* does not answer, so that the next call restarts it. Several runs may find out."""
        if self._state is State.READY and self._server is server:
            self._set_state(State.ERROR, "the server does not answer HTTP")

    async def _init_playwright(self) -> None:
        """Start the browser, unless it runs (seed reference name); BrowserError lists what was tried."""
        assert self._folder is not None
        if self._page is None:
            self._page = FrontendPage(self.config, self._folder, self._headers(), self._read_index)
        await self._page.open()

    async def _restart_browser(self) -> None:
        """Close the browser, kill what is left of it (only ours), start a fresh one."""
        await self._close_page()
        await self._init_playwright()

    async def _close_page(self) -> None:
        if self._browser_idle is not None:
            self._browser_idle.cancel()
            self._browser_idle = None
        if self._conversion is not None:
            self._conversion.cancel()
            await _all_done([self._conversion])
        page, self._page = self._page, None
        if page is not None:
            await page.close()

    async def _ensure_fresh_websocket(self) -> bool:
        """Connect the event stream, unless it is connected. False where it cannot be: history is polled then."""
        self._events.url = self.ws_address
        return await self._events.connect(timeout=_WEBSOCKET_PATIENCE)

    # ---- converting ----

    async def get_prompt_from_workflow(self, workflow: Mapping[str, Any] | str | os.PathLike[str]) -> Json:
        """Convert an editor workflow to a prompt with the server's own frontend.

        An unchanged workflow on an unchanged server comes from the store: no browser is started. What the frontend
        leaves out or changes is logged, once for each workflow; :meth:`explain_conversion` returns it.

        Args:
            workflow: editor JSON (0.4 or 1), not changed: a dict, a path of a JSON file, or JSON text.

        Returns:
            ``{node_id: {"class_type", "inputs", "_meta"}}``, as "Export (API)" gives it, but for nulls that an inner
            widget of a subgraph has a value for; the caller may change it.

        Raises:
            ConversionError: not a workflow, or the frontend cannot convert it (after CONVERSION_ATTEMPTS fresh pages).
            UnknownNodeError: node types that the server lacks, with the pack where the workflow names it.
            ConversionTimeoutError: every attempt took longer than CONVERSION_TIMEOUT.
            BrowserError: no browser.

        Cancelling is safe; the page is discarded.
        """
        return _copy_json((await self._convert(workflow)).prompt)

    async def explain_conversion(self, workflow: Mapping[str, Any] | str | os.PathLike[str]) -> list[ConversionNote]:
        """What the frontend leaves out of a workflow, or changes in it, when it makes a prompt of it; [] where nothing.

        The workflow is converted where the store does not have it; arguments, errors and cancelling are those of
        :meth:`get_prompt_from_workflow`.
        """
        return list((await self._convert(workflow)).notes)

    async def _convert(self, workflow: Mapping[str, Any] | str | os.PathLike[str]) -> Conversion:
        """The conversion from the store, or a new one; its notes are logged."""
        if isinstance(workflow, (str, os.PathLike)):
            workflow = read_payload(workflow)
        workflow = check_is_workflow(workflow)
        self._check_loop()
        async with self._conversion_lock:
            await self._ensure_initialized()
            build, definitions = await self._frontend_state()
            used = {
                t: _definition_digest(definitions[t]) for t in sorted(types_in_workflow(workflow)) if t in definitions
            }
            # The number is the version of what is stored.
            key = hashlib.sha256(canonical_json([2, build, used, workflow])).hexdigest()
            conversion = await _in_thread(self._store.get, key)
            if conversion is None:
                prompt, replaced = await self._convert_with_retries(workflow)
                self._check_types(prompt, workflow, definitions)
                conversion = Conversion(prompt, self._notes(workflow, prompt, definitions, replaced))
                if not is_volatile(workflow):
                    await _in_thread(self._store.put, key, conversion)
            self._report(workflow, conversion.notes)
            return conversion

    @staticmethod
    def _notes(workflow: Json, prompt: Json, definitions: Json, replaced: list[list[str]]) -> list[ConversionNote]:
        """All that is to be said about a conversion."""
        try:
            return [*conversion_notes(workflow, prompt, definitions), *_notes_on_nulls(prompt, replaced)]
        except Exception:  # a file that is odd in a way that nobody has seen must not fail for the sake of the report
            log.exception("What the conversion left out cannot be told")
            return []

    def _report(self, workflow: Json, notes: Iterable[ConversionNote]) -> None:
        """Log the notes that were not logged before for this workflow, whatever values its widgets have by now."""
        notes = list(notes)
        shape = workflow_shape(workflow) if notes else ""
        if len(self._reported) > 10_000:  # of more workflows than anybody reads the log of
            self._reported.clear()
        for note in notes:
            if (shape, note) not in self._reported:
                self._reported.add((shape, note))
                log.log(note.level, "Conversion: %s", note.text)

    async def _convert_with_retries(self, workflow: Json) -> tuple[Json, list[list[str]]]:
        """Attempts with a fresher environment each time: warm page, clean page, new browser. Holds _conversion_lock.

        A server that died meanwhile is restarted for the next attempt; after kill_api() there is none.
        """
        failure: ConnectorError | None = None
        for attempt in range(self.config.CONVERSION_ATTEMPTS):
            await self._ensure_initialized()
            try:
                return await self._attempt_conversion(workflow)
            except BrowserError:
                await self._ensure_initialized()  # tells of a kill_api() that took the browser away
                raise
            except ServerDiedError as e:
                failure = e
                log.warning("Conversion attempt %d: %s", attempt + 1, e.problem)
            except ConversionError as e:
                if self._state is not State.READY:  # kill_api() or a restart took the browser away
                    failure = e
                    continue
                # The frontend may have said no because of what an earlier workflow left in the page. What it says twice
                # it means. A page that hung has said nothing, and is never used again; nor is an error of Playwright's,
                # the cause of ours, the frontend's: a browser that was killed is found out to be gone a moment later.
                is_hung, is_browsers = isinstance(e, ConversionTimeoutError), e.__cause__ is not None
                has_spoken = not is_hung and not is_browsers
                if attempt > 0 and has_spoken and type(e) is type(failure) and str(e) == str(failure):
                    raise
                failure = e
                log.warning("Conversion attempt %d failed: %s", attempt + 1, e)
                if is_hung and await self._is_mute(self._server):
                    continue  # it was the server: restarted for the next attempt, with a browser of its own
                if is_hung or is_browsers or attempt > 0:
                    await self._close_page()
                elif self._page is not None:
                    await self._page.discard_page()
            except asyncio.CancelledError:
                if self._page is not None:
                    await self._page.discard_page()
                raise
        await self._ensure_initialized()  # tells of a kill_api() that came during the last attempt
        assert failure is not None
        raise failure

    async def _attempt_workflow_to_prompt_conversion(self, workflow: Json) -> Json:
        """The prompt of one attempt (seed reference name), see :meth:`_attempt_conversion`."""
        prompt, _ = await self._attempt_conversion(workflow)
        return prompt

    async def _attempt_conversion(self, workflow: Json) -> tuple[Json, list[list[str]]]:
        """One attempt on the warm page; returns what :meth:`FrontendPage.convert` does. Holds _conversion_lock.

        Raises:
            ConversionError, ConversionTimeoutError, BrowserError; ServerDiedError where the server went away.
        """
        if self._page is None:
            assert self._folder is not None
            self._page = FrontendPage(self.config, self._folder, self._headers(), self._read_index)
        if self._browser_idle is not None:
            self._browser_idle.cancel()
            self._browser_idle = None
        limit = self.config.CONVERSION_TIMEOUT
        server = self._server
        # A task of its own: whoever closes the browser ends it first, so that nothing is opened behind their back.
        task = self._conversion = asyncio.create_task(self._page.convert(workflow, self.server_address))
        try:
            deadline = time.monotonic() + limit
            while not task.done() and time.monotonic() < deadline:
                await asyncio.wait([task], timeout=min(1.0, max(0.0, deadline - time.monotonic())))
                if not task.done() and server is not None and not server.is_alive:
                    raise self._died(server)  # a page that waits for its frontend would not notice
            if not task.done():
                raise ConversionTimeoutError(
                    f"Converting the workflow took longer than {limit:g} s (CONVERSION_TIMEOUT), loading the frontend "
                    "included."
                )
            if task.cancelled():
                raise ConversionError("The browser was closed while it converted the workflow.")
            return task.result()
        except ConnectorError:
            raise
        except Exception as e:  # Playwright's errors: a crashed page, a closed browser, a navigation that failed
            if server is not None and await self._has_ended(server):
                raise self._died(server) from e
            first = (str(e).strip().splitlines() or [type(e).__name__])[0]
            raise ConversionError(f"The browser failed while it converted the workflow: {first}") from e
        finally:
            task.cancel()
            await _all_done([task])
            self._conversion = None
            self._arm_browser_idle()

    def _arm_browser_idle(self) -> None:
        """Close the browser after BROWSER_IDLE_TIMEOUT without a conversion: it holds about 0.7 GB."""
        if self.config.BROWSER_IDLE_TIMEOUT and self._page is not None:

            async def close_if_idle() -> None:
                if self._conversion_lock.locked():
                    return  # not idle after all; the conversion arms it again
                async with self._conversion_lock:
                    log.info("Browser closed after %g s without a conversion", self.config.BROWSER_IDLE_TIMEOUT)
                    await self._close_page()

            self._browser_idle = self._loop.call_later(
                self.config.BROWSER_IDLE_TIMEOUT, lambda: self._in_background(close_if_idle)
            )

    async def _frontend_state(self) -> tuple[str, Json]:
        """(identity of the frontend and its extensions, object_info), asked once for each server start.

        The restart of an attached server is seen by the cut websocket alone; without one it is asked every time.
        """
        if self.is_attached and not await self._ensure_fresh_websocket():
            self._frontend = None
        if self._frontend is None:
            if self._page is not None:
                self._page.mark_stale()
            index, extensions, definitions = await asyncio.gather(
                self._read_index(),
                self._request("GET", "/extensions"),
                self._request("GET", "/object_info"),
            )
            if not isinstance(extensions, list) or not isinstance(definitions, dict):
                raise ConnectorError(
                    "The server's answer to GET /extensions or GET /object_info is of the wrong shape."
                )
            # index.html names its bundles by content hash: it identifies the frontend's build, whose own extensions
            # are listed too. All others are scripts of packs, which keep their names when they change.
            scripts = await self._script_versions(sorted(map(str, extensions)))
            self._frontend = (hashlib.sha256(canonical_json([index, scripts])).hexdigest(), definitions)
        return self._frontend

    async def _read_index(self) -> str:
        """The page of the frontend, as text."""
        return str(await self._request("GET", "/", as_json=False))

    async def _script_versions(self, paths: Sequence[str]) -> list[list[str | None]]:
        """[path, ETag, Last-Modified, Content-Length] of extensions, by HEAD requests; [path] of the frontend's own.

        A server that does not answer such a request properly, or all of them within seconds, only hides that a script
        has changed; it fails nothing.
        """
        gate = asyncio.Semaphore(_HEAD_REQUESTS)

        async def ask(path: str) -> list[str | None]:
            if path.startswith("/extensions/core/"):
                return [path]
            async with gate:
                with contextlib.suppress(aiohttp.ClientError, OSError, ValueError, asyncio.TimeoutError):
                    async with self._http().head(self.server_address + path) as answer:
                        if answer.status == 200:
                            return [path, *(answer.headers.get(name) for name in _VERSION_HEADERS)]
            return [path]

        asking = [asyncio.ensure_future(ask(path)) for path in paths]
        try:
            return list(await asyncio.wait_for(asyncio.gather(*asking), _HEALTH_PATIENCE))
        except asyncio.TimeoutError:
            log.debug("The versions of %d scripts were not told within %g s", len(paths), _HEALTH_PATIENCE)
            return [[path] for path in paths]

    def _check_types(self, prompt: Json, workflow: Json, definitions: Json) -> None:
        """Refuse prompts with nodes that the server lacks: the frontend emits them without class_type, silently."""
        wrong = [i for i, node in prompt.items() if str(node.get("class_type")) not in definitions]
        if not wrong:
            return
        described, unknown = [], {}
        found = _Comparison(workflow, prompt, definitions).nodes()
        for node_id in wrong:
            node = found.get(node_id) or find_workflow_node(workflow, node_id) or {}
            node_type = prompt[node_id].get("class_type") or node.get("type") or "of unknown type"
            unknown[node_id] = str(node_type)
            title = node.get("title")
            properties = node.get("properties")
            properties = properties if isinstance(properties, Mapping) else {}
            pack = properties.get("cnr_id") or properties.get("aux_id")
            text = f"{node_type} #{node_id}" + (f" ({title!r})" if title and title != node_type else "")
            described.append(text + (f" from the pack {pack!r}" if pack and pack != "comfy-core" else ""))
        server = "The embedded server" if self._choice and self._choice.kind == "embedded" else "This ComfyUI"
        raise UnknownNodeError(
            f"{server} does not have {'these nodes' if len(wrong) > 1 else 'the node'} of the workflow: "
            f"{', '.join(described)}. Install the pack (in ComfyUI: Manager, 'Install missing custom nodes') and "
            f"start again"
            + (", or set COMFYUI_PATH to a ComfyUI that has it." if "embedded" in server else ".")
            + tell_failed_packs(self.failed_packs),
            unknown,
        )

    # ---- running ----

    async def run_workflow(
        self,
        payload: Mapping[str, Any] | str | os.PathLike[str],
        use_workflow_json: bool = True,
        *,
        extra_data: Mapping[str, Any] | None = None,
        on_event: Callable[[ServerEvent], None] | None = None,
    ) -> Json:
        """Run a workflow or a prompt to its end.

        Args:
            payload: workflow or prompt: a dict, a path of a JSON file, or JSON text.
            use_workflow_json: True: *payload* is an editor workflow; False: a prompt (API format).
            extra_data: additions to the request's ``extra_data`` (``extra_pnginfo`` reaches nodes and PNG metadata).
            on_event: called on the event loop with every event of this prompt; must return at once.

        Returns:
            ``{prompt_id: {"prompt", "outputs", "status", "meta"}}``, the server's history entry.

        Raises:
            PromptRejectedError, NodeExecutionError, PromptInterruptedError, RunTimeoutError, ServerDiedError: see
                there; for workflows also what :meth:`get_prompt_from_workflow` raises.

        Cancelling interrupts exactly this prompt on the server (or takes it out of the queue).
        """
        content = read_payload(payload)
        extra = dict(extra_data or {})
        if use_workflow_json:
            prompt = await self.get_prompt_from_workflow(content)
            # As the editor does: pictures that the run saves carry their workflow.
            extra["extra_pnginfo"] = {"workflow": content, **(extra.get("extra_pnginfo") or {})}
        else:
            if isinstance(content.get("nodes"), list):
                raise PromptRejectedError(
                    "This is an editor workflow, not a prompt (API format). Run it with use_workflow_json=True.",
                    None,
                    {},
                )
            prompt = content
        return await self._execute_prompt_and_wait(prompt, extra, on_event)

    async def _execute_prompt_and_wait(
        self,
        prompt: Json,
        extra_data: Mapping[str, Any] | None = None,
        on_event: Callable[[ServerEvent], None] | None = None,
    ) -> Json:
        """Queue a prompt and follow it. The history is the authority; the websocket only says when to look."""
        await self._ensure_initialized()
        await self._ensure_fresh_websocket()
        run = _PromptRun(str(uuid.uuid4()))

        def listen(event: ServerEvent) -> None:
            run.on_event(event)
            if on_event is not None and event.prompt_id == run.prompt_id:
                on_event(event)

        unsubscribe = self._events.subscribe(listen, with_states=on_event is not None)
        self._runs.add(run)
        try:
            await self._queue_prompt(run, prompt, dict(extra_data or {}))
            entry = await self._follow(run)
            self._forget_soon(run.prompt_id)
            self._judge(run.prompt_id, entry, prompt)
            return {run.prompt_id: entry}
        except ConnectorError as e:
            self._complete_error(e, run, prompt)
            if isinstance(e, RunTimeoutError):
                await self._abandon(run)
            raise
        except asyncio.CancelledError:
            await self._abandon(run)
            raise
        finally:
            self._runs.discard(run)
            unsubscribe()

    def _complete_error(self, error: ConnectorError, run: _PromptRun, prompt: Json) -> None:
        """Give an error of a run what only the run knows: prompt id, node, the server's last log lines."""
        error.prompt_id = run.prompt_id
        if error.node_id is None and isinstance(error, (ServerDiedError, RunTimeoutError)):
            error.node_id = run.node_id
        if error.node_id is not None:
            node = prompt.get(error.node_id)
            if isinstance(node, Mapping):
                error.class_type = error.class_type or node.get("class_type")
            error.title = error.title or _title_in_prompt(prompt, error.node_id)
        if not error.log_tail and run.server is not None:
            error.log_tail = list(run.server.log_tail)

    async def _queue_prompt(self, run: _PromptRun, prompt: Json, extra_data: Json) -> None:
        """POST /prompt. A server that died since the last call, or of this one, is restarted once: with the process
        everything that was queued has gone. Where only the answer is lost, the server is asked for the prompt's id,
        which is ours.
        """
        body = {
            "prompt": prompt,
            "client_id": self._client_id,
            "prompt_id": run.prompt_id,
            "extra_data": extra_data,
        }

        content = json.dumps(body).encode()

        async def post() -> tuple[int, str]:
            # aiohttp warns (ResourceWarning) of megabytes given as bytes: it would write them without a pause.
            data = content if len(content) < 500_000 else io.BytesIO(content)
            headers = {"Content-Type": "application/json"}
            async with self._http().post(f"{self.server_address}/prompt", data=data, headers=headers) as response:
                return response.status, await response.text()

        for last in (False, True):
            run.server = server = self._server
            try:
                # Not ended with a cancelled caller: whether the server has the prompt would be anybody's guess.
                run.post = asyncio.ensure_future(post())
                run.post.add_done_callback(run.on_answer)
                status, text = await asyncio.shield(run.post)
                break
            except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as e:
                if server is not None and not await self._has_ended(server):
                    is_known = await self._knows(run.prompt_id)
                    if is_known:
                        log.warning(
                            "The answer to POST /prompt was lost (%s: %s); the prompt was not", type(e).__name__, e
                        )
                        return
                    # An answer that was cut off, of a server that has never seen the prompt: a connection kept open
                    # since before its restart. One that is late may still be on its way: queueing twice is worse.
                    if last or is_known is None or isinstance(e, asyncio.TimeoutError):
                        if is_known is not None:
                            await self._abandon(run)
                        elif not await self._is_api_running(min(_HEALTH_PATIENCE, self.config.REQUEST_TIMEOUT)):
                            self._mark_mute(server)
                        raise self._died(server, "POST /prompt") from e
                    continue
                if last:
                    raise self._died(server) from e
                await self._ensure_initialized()
                await self._ensure_fresh_websocket()
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise PromptRejectedError(
                f"The server answered POST /prompt with status {status}: {text[:300]!r}", text, {}
            )
        if status != 200:
            raise PromptRejectedError(
                explain_rejection(answer, prompt), answer.get("error"), answer.get("node_errors") or {}
            )
        if answer.get("node_errors"):
            # Status 200: the server runs the outputs that are valid and drops the others. Half a result is none.
            await self._abandon(run)
            raise PromptRejectedError(explain_rejection(answer, prompt), None, answer["node_errors"])

    async def _follow(self, run: _PromptRun) -> Json:
        """Wait for the end of a queued prompt and return its history entry.

        Every second without news the history is asked as well (ten times a second without a websocket), and the process
        is looked at: a lost message, a lost socket or a killed server all end in an answer.
        """
        started = time.monotonic()
        silent_since: float | None = None  # HTTP has not answered properly since then
        refused_since: float | None = None  # nobody listens at its address since then
        forgotten_since: float | None = None  # neither in the history nor in the queue since then
        server = run.server
        while True:
            # Not wait_for(): before Python 3.12 it may swallow a cancellation that comes with the event.
            alarm = self._loop.call_later(1.0 if self._events.is_connected else 0.1, run.wake.set)
            try:
                await run.wake.wait()
            finally:
                alarm.cancel()
            run.wake.clear()
            if self._state in (State.KILLING, State.KILLED):
                raise ServerDiedError("The connector was shut down by kill_api() while this prompt ran.")
            if server is None or server is not self._server:
                raise self._died(server)
            try:
                entry = await self._history_entry(run.prompt_id)
                if entry is not None:
                    return entry
                is_running = (await self._look_at_queue()).get(run.prompt_id)
                silent_since = refused_since = None
                forgotten_since = (forgotten_since or time.monotonic()) if is_running is None else None
                if is_running is False:
                    run.last_event = time.monotonic()  # who waits in the queue does not stall
            except _NO_ANSWER as e:
                silent_since = silent_since or time.monotonic()
                refused = isinstance(e, aiohttp.ClientConnectorError)
                refused_since = (refused_since or time.monotonic()) if refused else None
            if self._server is server and not server.is_alive:
                raise self._died(server)
            now = time.monotonic()
            if forgotten_since is not None and now - forgotten_since > _FORGOTTEN_AFTER:
                raise ServerDiedError(
                    f"The server no longer knows the prompt {run.prompt_id}: its queue or history was cleared."
                )
            if self.is_attached and refused_since is not None and now - refused_since > _REFUSED_PATIENCE:
                raise self._died(server)
            if silent_since is not None and now - silent_since > 2 * self.config.REQUEST_TIMEOUT:
                self._mark_mute(server)
                then = "looks for it again" if self.is_attached else "restarts it"
                raise ServerDiedError(
                    f"The server has not answered for {now - silent_since:.0f} s; the next call {then}.",
                    server.log_tail,
                )
            if self.config.RUN_TIMEOUT and now - started > self.config.RUN_TIMEOUT:
                raise RunTimeoutError(f"The prompt took longer than RUN_TIMEOUT ({self.config.RUN_TIMEOUT:g} s).")
            if self.config.STALL_TIMEOUT and now - run.last_event > self.config.STALL_TIMEOUT:
                raise RunTimeoutError(f"No event of the prompt for STALL_TIMEOUT ({self.config.STALL_TIMEOUT:g} s).")

    async def _get_object(self, path: str) -> Json:
        """GET a JSON object; ValueError where the answer is something else, aiohttp's errors where there is none."""
        async with self._http().get(self.server_address + path) as response:
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            answer = await response.json()
            if not isinstance(answer, dict):
                raise ValueError(f"a JSON {type(answer).__name__}")
            return answer

    async def _history_entry(self, prompt_id: str) -> Json | None:
        entry = (await self._get_object(f"/history/{prompt_id}")).get(prompt_id)
        return entry if isinstance(entry, dict) else None

    async def _knows(self, prompt_id: str) -> bool | None:
        """Whether the server has the prompt, in its queue or its history; None where it does not answer."""
        try:
            # In this order: a prompt that ends in between is in the history by then.
            return prompt_id in await self._ask_queue() or await self._history_entry(prompt_id) is not None
        except _NO_ANSWER:
            return None

    async def _is_running_now(self, prompt_id: str) -> bool:
        """Whether the server executes this prompt, as far as it says."""
        try:
            return (await self._ask_queue()).get(prompt_id, False)
        except _NO_ANSWER:
            return False

    async def _ask_queue(self) -> dict[str, bool]:
        """{prompt id: whether it runs} of all prompts in the server's queue, right now."""
        queue = await self._get_object("/queue")
        try:
            prompts = {str(item[1]): False for item in queue["queue_pending"]}
            prompts.update((str(item[1]), True) for item in queue["queue_running"])
        except (KeyError, IndexError, TypeError) as e:
            raise ValueError(f"a queue that cannot be read: {e!r}") from e
        return prompts

    async def _look_at_queue(self) -> dict[str, bool]:
        """{prompt id: whether it runs} of all prompts in the server's queue, at most half a second old.

        Shared by all runs, with its failure: the answer holds every queued prompt in full.
        """
        task = self._queue_look
        if task is None or (task.done() and time.monotonic() - self._queue_look_began > 0.5):
            task = self._queue_look = asyncio.create_task(self._ask_queue(), name="discomfort-queue")
            task.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen, if nobody waits any more
            self._queue_look_began = time.monotonic()
        return await asyncio.shield(task)

    def _judge(self, prompt_id: str, entry: Json, prompt: Json) -> None:
        """Raise what the history entry says went wrong; the status text of an interruption is "error" too."""
        status = entry.get("status") or {}
        if not isinstance(status, dict):
            raise ConnectorError(f"The server's word on how prompt {prompt_id} ended cannot be read: {status!r}")
        if status.get("status_str") == "success" or (not status and entry.get("outputs")):
            self._relieve_memory()
            return
        messages = status.get("messages")
        for message in reversed(messages if isinstance(messages, list) else []):
            kind, data = message if isinstance(message, list) and len(message) == 2 else ("", None)
            if not isinstance(data, dict):
                continue
            node_id = str(data.get("node_id", ""))
            title = _title_in_prompt(prompt, node_id)
            if kind == "execution_interrupted":
                name = _node_name(data.get("node_type"), node_id, title)
                interrupted = PromptInterruptedError(f"The run was interrupted on the server, at node {name}.")
                interrupted.node_id, interrupted.class_type = node_id, data.get("node_type")
                raise interrupted
            if kind == "execution_error":
                is_oom = is_out_of_memory(str(data.get("exception_type")), str(data.get("exception_message")))
                raise (OutOfMemoryError if is_oom else NodeExecutionError)(prompt_id, data, title)
        raise ConnectorError(f"The server reports that prompt {prompt_id} failed, without a reason: {status}")

    async def _abandon(self, run: _PromptRun) -> None:
        """Take a prompt out of the queue, or interrupt it where it runs; never another one. Errors are of no interest.

        Waits at most _ABANDON_PATIENCE seconds, also when it is cancelled; what then remains is done in the background.
        """

        async def take_back() -> None:
            if run.post is not None:
                await asyncio.wait([run.post])
                if run.post.cancelled() or isinstance(run.post.exception(), aiohttp.ClientConnectorError):
                    return  # it never got there
            await self._take_back(run.prompt_id)

        taking = self._in_background(take_back)
        cancelled = False
        with contextlib.suppress(asyncio.CancelledError):
            cancelled = True
            await asyncio.wait([taking], timeout=_ABANDON_PATIENCE)
            cancelled = False
        if self._state is State.READY:
            self._in_background(lambda: self._forget_when_over(run))
        if cancelled:
            raise asyncio.CancelledError

    async def _take_back(self, prompt_id: str) -> None:
        with contextlib.suppress(ConnectorError):
            await self._request("POST", "/queue", {"delete": [prompt_id]}, as_json=False)
            # An attached server may be older than interrupts by id: it would stop whatever runs, perhaps not ours.
            if not self.is_attached or await self._is_running_now(prompt_id):
                await self.interrupt(prompt_id)

    async def _forget_when_over(self, run: _PromptRun) -> None:
        """Delete the history entry that an abandoned prompt leaves, as soon as there is one. A prompt that reached the
        queue only after it was taken out of it, because its request was slow, is taken out again.
        """
        delay = 0.1
        while self._server is run.server and self._session is not None and delay < 300:
            try:
                if await self._history_entry(run.prompt_id) is not None:
                    self._forget_soon(run.prompt_id)
                    return
                # A prompt that was taken out of the queue leaves none; asked twice, because one that has just ended is
                # in neither place for a moment.
                if run.prompt_id in await self._look_at_queue():
                    await self._take_back(run.prompt_id)
                elif delay > 1.0:
                    return
            except _NO_ANSWER:
                return
            await asyncio.sleep(delay)
            delay *= 1.5

    def _forget_soon(self, prompt_id: str) -> None:
        """Have a history entry deleted that was read: the server keeps 10,000 otherwise, each with its whole prompt.

        Entries of a quick loop are deleted together, FORGET_DELAY seconds after the first: a request for each would
        compete with the next iteration.
        """
        self._read_entries.append(prompt_id)
        if self._forget_timer is None:
            self._forget_timer = self._loop.call_later(self.FORGET_DELAY, lambda: self._in_background(self._forget))

    async def _forget(self) -> None:
        self._cancel_forgetting()
        prompt_ids, self._read_entries = self._read_entries, []
        if prompt_ids and self._session is not None:
            await self._request("POST", "/history", {"delete": prompt_ids}, as_json=False)

    def _cancel_forgetting(self) -> None:
        timer, self._forget_timer = self._forget_timer, None
        if timer is not None:
            timer.cancel()

    async def _leave_attached(self) -> None:
        """Take back what a server that goes on without us still has of ours: prompts, and history entries.

        Takes at most _ABANDON_PATIENCE seconds; a server that does not answer keeps them.
        """

        async def tidy() -> None:
            prompt_ids = [run.prompt_id for run in self._runs]
            for prompt_id in prompt_ids:
                await self._take_back(prompt_id)
            while prompt_ids and set(prompt_ids) & set(await self._ask_queue()):  # noqa: ASYNC110 - it is the server's
                await asyncio.sleep(0.05)
            self._read_entries.extend(prompt_ids)
            await self._forget()

        with contextlib.suppress(ConnectorError, *_NO_ANSWER):
            await asyncio.wait_for(tidy(), _ABANDON_PATIENCE)

    def _relieve_memory(self) -> None:
        """Ask the server to empty its cache when it holds more than MAX_SERVER_MEMORY_PERCENT of the machine."""
        if self._server is None:
            return
        used, limit = (
            self._server.memory(),
            _total_memory() * self.config.MAX_SERVER_MEMORY_PERCENT / 100,
        )
        if used > limit:
            log.warning(
                "The server holds %.1f GB, more than %g %% of this machine: its cache is emptied",
                used / 1e9, self.config.MAX_SERVER_MEMORY_PERCENT,
            )  # fmt: skip
            self._in_background(lambda: self.free(unload_models=False, free_memory=True))

    # ---- talking to the server ----

    def _http(self) -> aiohttp.ClientSession:
        self._check_loop()
        if self._session is None or self._session.closed:
            raise ConnectorError("The connector has no server: it was shut down or its start failed.")
        return self._session

    async def _request(self, method: str, path: str, body: Any = None, as_json: bool = True) -> Any:
        """One request to the server.

        Raises:
            ConnectorError: the server refused it; ServerDiedError: it cannot be reached.
        """
        try:
            async with self._http().request(method, self.server_address + path, json=body) as response:
                if response.status >= 400:
                    text = (await response.text())[:300]
                    raise ConnectorError(f"The server answered {method} {path} with status {response.status}: {text!r}")
                return await response.json() if as_json else await response.text()
        except (aiohttp.ClientConnectionError, OSError, asyncio.TimeoutError) as e:
            server = self._server
            if server is not None and not await self._has_ended(server):
                await self._is_mute(server)
            raise self._died(server, f"{method} {path}") from e
        except (aiohttp.ClientError, ValueError, RecursionError) as e:
            raise ConnectorError(f"The server's answer to {method} {path} cannot be read: {e}") from e

    async def _request_object(self, path: str) -> Json:
        """GET a JSON object; errors as of :meth:`_request`, also where the answer is something else."""
        answer = await self._request("GET", path)
        if not isinstance(answer, dict):
            raise ConnectorError(f"The server's answer to GET {path} is a JSON {type(answer).__name__}, not an object.")
        return answer

    async def _has_ended(self, server: ServerProcess | AttachedServer) -> bool:
        """Whether the process of *server* has ended: its sockets close a moment before its status can be read."""
        for _ in range(25):
            if not server.is_alive:
                return True
            await asyncio.sleep(0.02)
        return False

    def _died(self, server: ServerProcess | AttachedServer | None, doing: str = "") -> ServerDiedError:
        """The error for a server that went away; the next call starts a fresh one, or looks for it again."""
        if self._state in (State.KILLING, State.KILLED):  # it did not go by itself
            return ServerDiedError("The connector was shut down by kill_api() during this call.")
        if server is None:
            return ServerDiedError("The ComfyUI server cannot be reached.")
        if not server.is_alive:
            return ServerDiedError(
                server.explain_end(), server.log_tail, server.returncode, server.was_killed_for_memory
            )
        problem = f"The ComfyUI server at {server.address} cannot be reached{f' ({doing})' if doing else ''}."
        if isinstance(server, AttachedServer) and server.warm is None:
            problem += " It was not started by Discomfort, which cannot restart it."
        return ServerDiedError(problem, server.log_tail)

    @property
    def failed_packs(self) -> Mapping[str, str]:
        """{path: reason} of the custom-node packs that the running server could not load, as far as it has said so."""
        return dict(self._server.failed_packs) if self._server else {}

    async def interrupt(self, prompt_id: str | None = None) -> None:
        """Interrupt *prompt_id* if it is the one that runs; None interrupts whatever runs. Harmless when idle."""
        await self._request("POST", "/interrupt", {"prompt_id": prompt_id} if prompt_id else {}, as_json=False)

    async def free(self, unload_models: bool = True, free_memory: bool = True) -> None:
        """Ask the server to unload models and (*free_memory*) to empty its node cache, as soon as it is idle."""
        await self._request(
            "POST", "/free", {"unload_models": unload_models, "free_memory": free_memory}, as_json=False
        )

    async def restart(self, reason: str) -> None:
        """End the server at once and start a fresh one, with nothing loaded and nothing cached. The instance goes on.

        Prompts that are on it fail with ServerDiedError. For a server that is hung, or that holds memory which nothing
        else frees.

        Raises:
            NotOurServerError: the server was running before (API_URL, a warm one): it is never stopped.
            ConnectorError: what :meth:`create` raises.

        Cancelling is safe: what is not finished is undone, and the next call starts a server.
        """
        await self._ensure_initialized()
        if self.is_attached:
            raise NotOurServerError(
                f"The server at {self.server_address} was not started by this process, so it is not restarted. Restart "
                "it where it was started."
            )
        if self._state is State.READY:  # else another task restarts it at this moment
            self._set_state(State.ERROR, f"restart(): {reason}")
        await self._ensure_initialized()

    async def object_info(self) -> Json:
        """Node definitions of the running server: GET /object_info."""
        await self._ensure_initialized()
        return await self._request_object("/object_info")

    async def node_definitions(self) -> Json:
        """What :meth:`object_info` says, asked once for each start of the server; treat it as read-only.

        What a definition lists of files (the choices of a model loader) may be older than the folders are.
        """
        await self._ensure_initialized()
        return (await self._frontend_state())[1]

    async def get_json(self, path: str) -> Any:
        """GET a path of the running server that answers with JSON ("/experiment/models", say).

        Raises:
            ConnectorError: the server refuses it, or answers something else; ServerDiedError: it cannot be reached.
        """
        await self._ensure_initialized()
        return await self._request("GET", path)

    async def system_stats(self) -> Json:
        """GET /system_stats: versions, memory, devices."""
        await self._ensure_initialized()
        return await self._request_object("/system_stats")

    async def events(self) -> AsyncIterator[ServerEvent]:
        """All events of the server from now on, until the connector is shut down or the caller stops iterating.

        They go on after a restart of the server; "disconnected" and "connected" tell of it.
        """
        await self._ensure_initialized()
        await self._ensure_fresh_websocket()
        queue: asyncio.Queue[ServerEvent] = asyncio.Queue()
        unsubscribe = self._events.subscribe(queue.put_nowait)
        try:
            while True:
                event = await queue.get()
                if event.type == "closed":
                    return
                yield event
        finally:
            unsubscribe()

    async def _test_server(self) -> bool:
        """Run the test workflow (TEST_PAYLOAD_FILE) through conversion and execution; False, with a log line, on
        failure.
        """
        try:
            history = await self.run_workflow(str(self.config.base_folder / self.config.TEST_PAYLOAD_FILE))
        except ConnectorError as e:
            log.error("The test workflow failed: %s", e)
            return False
        return any(entry.get("outputs") for entry in history.values())

    # ---- files ----

    def upload_data(
        self,
        source_path: str | os.PathLike[str],
        folder_type: str = "input",
        subfolder: str | None = None,
        overwrite: bool = False,
        is_ephemeral: bool = False,
    ) -> str:
        """Put a file into the server's folders (a copy on the same machine; no HTTP, any size).

        The folders of a server that API_URL names are not known: it gets the file by HTTP (POST /upload/image, by
        default at most 100 MB), picks another name where one is taken, and the name in its folder is returned.

        Args:
            folder_type: "input", "output", "temp" or "models".
            subfolder: folder within it; required for "models" ("checkpoints", "loras", ...).
            overwrite: replace an existing file of that name. Without it a file with the same content is kept as it is,
                and one with another content is an error.
            is_ephemeral: delete the file when the connector ends, also when its process is killed (never one that was
                there before).

        Returns:
            Full path of the file in the server's folder; for a server that API_URL names the path within
            *folder_type*, as LoadImage takes it.

        Raises:
            FileNotFoundError: no such source.
            FileExistsError: see *overwrite*.
            ValueError: a folder that is not allowed.
            ConnectorError: no server runs.
            NotOurServerError: models, and files to be deleted again, on a server that API_URL names: there is no
                request for them.

        Blocks while it copies.
        """
        source = Path(source_path)
        if not source.is_file():
            raise FileNotFoundError(f"There is no file {source} to upload (current directory: {Path.cwd()}).")
        if self._server is not None and self._choice is None:
            return self._upload_by_http(source, folder_type, subfolder, overwrite, is_ephemeral)
        target = self._upload_folder(folder_type, subfolder) / source.name
        existed = target.exists()
        if existed and not overwrite:
            if _same_content(source, target):
                return str(target)
            raise FileExistsError(f"{target} exists with another content. Pass overwrite=True, or rename {source}.")
        new_folders = [folder for folder in target.parents if not folder.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        # Never a half-written file under its name: the server lists folders at any moment.
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".upload-", delete=False) as f:
            try:
                with open(source, "rb") as s:
                    shutil.copyfileobj(s, f, 1 << 20)
                f.flush()
                os.chmod(f.name, 0o644)
                os.replace(f.name, target)
            except BaseException:
                os.unlink(f.name)
                raise
        if is_ephemeral and not existed:
            self._ephemeral_files.append(target)
            self._ephemeral_folders.extend(new_folders)
            if self._folder is not None:
                self._folder.note_upload(target)
        return str(target)

    def _upload_by_http(
        self, source: Path, folder_type: str, subfolder: str | None, overwrite: bool, is_ephemeral: bool
    ) -> str:
        """upload_data() to a server of which nothing but the address is known. Blocks."""
        _check_folder_type(folder_type, subfolder)
        if folder_type == "models":
            raise NotOurServerError(
                f"ComfyUI has no request that uploads models, and the folders of the server at {self.server_address} "
                "are not known here, because API_URL names it. Copy the file there by other means."
            )
        if is_ephemeral and folder_type != "temp":
            raise NotOurServerError(
                f"ComfyUI has no request that deletes files, hence nothing uploaded to the server at "
                f"{self.server_address} can be ephemeral, except with folder_type 'temp', which it empties itself."
            )
        parts = Path(subfolder or "").parts
        if ".." in parts or Path(subfolder or "").is_absolute():
            raise ValueError(f"subfolder is {subfolder!r}: it must stay inside the server's {folder_type} folder.")

        async def post(file: BinaryIO) -> Any:
            form = aiohttp.FormData()
            form.add_field("type", folder_type)
            form.add_field("subfolder", "/".join(parts))
            form.add_field("overwrite", "true" if overwrite else "false")
            form.add_field("image", file, filename=source.name)
            # Only a connection that stalls is given up: the file may be large and the way to the server long.
            limit = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=self.config.REQUEST_TIMEOUT)
            async with (
                aiohttp.ClientSession(
                    headers=self._headers(), timeout=limit, trace_configs=[_refusing_redirects()]
                ) as session,
                session.post(f"{self.server_address}/upload/image", data=form) as response,
            ):
                if response.status == 413:
                    raise ConnectorError(
                        f"{source} ({size / 1e6:.0f} MB) is more than the server at {self.server_address} takes in one "
                        "upload (its option --max-upload-size)."
                    )
                if response.status != 200:
                    text = (await response.text())[:300]
                    raise ConnectorError(
                        f"The server answered the upload of {source} with status {response.status}: {text!r}"
                    )
                return json.loads(await response.text())

        size = source.stat().st_size
        try:
            # In a thread with an event loop of its own: this method is synchronous and may be called on ours.
            with open(source, "rb") as opened, concurrent.futures.ThreadPoolExecutor(1, "discomfort-upload") as pool:
                answer = pool.submit(lambda: asyncio.run(post(opened))).result()
            folder = str(answer.get("subfolder") or "")
            return f"{folder}/{answer['name']}" if folder else str(answer["name"])
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as e:
            raise self._died(self._server, f"upload of {source}: {type(e).__name__} {e}") from e
        except (ValueError, KeyError, AttributeError) as e:
            raise ConnectorError(f"The server's answer to the upload of {source} cannot be read: {e}") from e

    def _upload_folder(self, folder_type: str, subfolder: str | None) -> Path:
        if self._server is None or self._choice is None or self._folder is None:
            raise ConnectorError("upload_data() needs a running server: await ComfyConnector.create() first.")
        _check_folder_type(folder_type, subfolder)
        given = _argument_value(self._choice.extra_args, f"--{folder_type}-directory")
        if folder_type == "temp":
            assert self._server.temp_directory is not None  # only a server without a choice has none
            root = self._server.temp_directory
        elif given:
            root = self._choice.working_directory / given
        else:
            root = self._choice.data_folder / folder_type
        # By its words, not by where links lead: a folder of models is often a link to another disk.
        target = Path(os.path.normpath(root / (subfolder or "")))
        root = Path(os.path.normpath(root))
        if target != root and root not in target.parents:
            raise ValueError(f"subfolder is {subfolder!r}: it must stay inside {root}.")
        return target

    def _delete_data(self) -> None:
        """Delete the ephemeral uploads; one that is gone is fine, one that cannot be deleted is reported."""
        files, self._ephemeral_files = self._ephemeral_files, []
        folders, self._ephemeral_folders = self._ephemeral_folders, []
        for file in files:
            try:
                file.unlink(missing_ok=True)
            except OSError as e:
                log.warning("The ephemeral upload %s could not be deleted: %s", file, e)
        for folder in sorted(folders, reverse=True):  # the inner ones first
            with contextlib.suppress(OSError):
                folder.rmdir()  # unless somebody else uses it by now

    # ---- ending ----

    async def kill_api(self) -> None:
        """Stop the server and release everything: socket, browser, process, folder, ephemeral uploads.

        Idempotent, safe in any state and from several tasks at once: all of them return when it is done. The instance
        cannot be used afterwards; :meth:`create` gives a fresh one. Takes at most about two STOP_TIMEOUTs. If it is
        cancelled the server is killed at once instead of being asked.
        """
        self._refuse_other_loop()
        if self._loop is not asyncio.get_running_loop():  # that has ended, and the server with it or not
            await _in_thread(self._sync_cleanup)
            return
        async with self._kill_lock:
            if self._state is State.KILLED:
                return
            if self._state is not State.KILLING:
                self._set_state(State.KILLING, "kill_api()")
            try:
                ending = [*self._background, *([self._start_task] if self._start_task else [])]
                for task in ending:
                    task.cancel()
                await _all_done(ending)
                if self.is_attached:
                    await self._leave_attached()
                await self._release_resources()
                self._set_state(State.KILLED, "kill_api() is done")
                atexit.unregister(self._sync_cleanup)
                loop_end, self._loop_end = self._loop_end, None
                if loop_end is not None:
                    await loop_end.aclose()
            except BaseException:
                await _in_thread(self._sync_cleanup)
                raise

    async def _release_resources(self, quickly: bool = False) -> None:
        """Close what is open, in the order in which it depends on each other; fields are cleared before any await.

        Runs inside the start task or under ``_kill_lock``. *quickly* kills the server instead of asking it; so does
        being cancelled. Whatever fails, and wherever it is cancelled, everything is closed when it returns.
        """
        session, self._session = self._session, None
        server, self._server = self._server, None
        folder, self._folder = self._folder, None
        self._frontend, self._queue_look = None, None
        self._cancel_forgetting()
        self._read_entries.clear()  # they go with their server, or were deleted by _leave_attached()

        async def stop_server(kind: Any, error: Any, traceback: Any) -> None:
            if server is None:
                return
            if quickly or kind is not None:
                await _in_thread(server.stop_now)
            else:
                log.info("The server at %s %s", server.address, await server.stop())

        async with contextlib.AsyncExitStack() as last_first:
            if self._state is State.KILLING:
                last_first.push_async_callback(_in_thread, self._delete_data)
            if folder is not None:
                last_first.push_async_callback(_in_thread, folder.close)
            last_first.push_async_exit(stop_server)
            if session is not None:
                last_first.push_async_callback(session.close)
            last_first.push_async_callback(self._close_page)
            last_first.push_async_callback(self._events.close)
            if self._state is State.KILLING:
                self._events._publish(ServerEvent("closed", {}))

    def _sync_cleanup(self) -> None:
        """Kill and remove everything without the event loop: at interpreter exit, or when the loop has gone.

        Registered with atexit; does nothing in a forked child, nor after :meth:`kill_api`.
        """
        if self._owner_pid != os.getpid():
            return
        atexit.unregister(self._sync_cleanup)
        session, self._session = self._session, None
        if session is not None:
            # Its coroutine needs no loop to begin with, and closes what it holds before it waits for anything.
            closing = session.close()
            with contextlib.suppress(Exception, StopIteration):
                closing.send(None)
            closing.close()
        server, self._server = self._server, None
        folder, self._folder = self._folder, None
        page, self._page = self._page, None
        if server is not None:
            server.stop_now()
        if page is not None:
            page.kill_now()
        if folder is not None:
            folder.close()
        self._delete_data()
        self._state = State.KILLED  # not by _set_state: the interpreter may be going down, with logging closed

    def _in_background(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Run an asynchronous function whose result nobody waits for; its error is logged, and kill_api() ends it."""

        async def guarded() -> None:
            try:
                await work()
            except ConnectorError as e:
                log.debug("In the background: %s", e)

        task = self._loop.create_task(guarded())
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


# --------------------------------------------------------------------------------------------------------------------
# Pure helpers
# --------------------------------------------------------------------------------------------------------------------


@functools.cache
def _total_memory() -> int:
    """Memory of this machine in bytes."""
    return int(psutil.virtual_memory().total)


def _copy_json(value: Json) -> Json:
    """A deep copy of JSON data (faster than copy.deepcopy, and proof that it is JSON)."""
    copied: Json = json.loads(json.dumps(value))
    return copied


def _check_folder_type(folder_type: str, subfolder: str | None) -> None:
    """ValueError for a folder that upload_data() does not know, or models without the kind they are of."""
    if folder_type not in ("input", "output", "temp", "models"):
        raise ValueError(f"folder_type is {folder_type!r}; it must be 'input', 'output', 'temp' or 'models'.")
    if folder_type == "models" and not subfolder:
        raise ValueError("folder_type 'models' needs a subfolder such as 'checkpoints', 'loras' or 'vae'.")


def _same_content(a: Path, b: Path) -> bool:
    if a.stat().st_size != b.stat().st_size:
        return False
    with open(a, "rb") as x, open(b, "rb") as y:
        while True:
            left, right = x.read(1 << 20), y.read(1 << 20)
            if left != right:
                return False
            if not left:
                return True


def _definition_digest(definition: Any) -> str:
    """Hash of what a node definition means for a conversion: of a list of choices (file names!) only the first
    counts.
    """

    def reduce(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: reduce(v) for k, v in value.items() if k not in ("tooltip", "description")}
        if isinstance(value, list):
            if value and isinstance(value[0], list):  # an input: [[choices], {options}]
                return [value[0][:1], *map(reduce, value[1:])]
            return [reduce(v) for v in value]
        return value

    return hashlib.sha256(canonical_json(reduce(definition))).hexdigest()


def is_prompt(value: Any) -> bool:
    """Whether *value* is a prompt (API format): ``{node_id: {"class_type", "inputs"}}``."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and "nodes" not in value
        and all(isinstance(node, Mapping) and "class_type" in node for node in value.values())
    )


def check_is_workflow(workflow: Any) -> Json:
    """Refuse what the frontend would mistake (a prompt gives {} there, null the default graph); returns the dict.

    Raises:
        ConversionError: a sentence that says what was given instead of an editor workflow.
    """
    if is_prompt(workflow):
        raise ConversionError(
            "This is a prompt (API format: node ids with class_type), not an editor workflow. Run it with "
            "use_workflow_json=False, or save the workflow in ComfyUI with 'Save' or 'Export' instead of 'Export "
            "(API)'."
        )
    if not isinstance(workflow, Mapping) or not isinstance(workflow.get("nodes"), list):
        what = type(workflow).__name__
        if isinstance(workflow, Mapping):
            keys = ", ".join(map(str, list(workflow)[:8])) or "none"
            what = f"a JSON object without a list 'nodes' (its keys: {keys})"
        raise ConversionError(f"Not an editor workflow: {what}.")
    subgraphs = _subgraph_definitions(workflow)
    _check_nodes(workflow["nodes"], "The workflow", subgraphs)
    for subgraph in subgraphs.values():
        where = f"The subgraph {subgraph.get('name')!r}"
        nodes = subgraph.get("nodes") or []
        if not isinstance(nodes, list):
            raise ConversionError(f"{where} has no list of nodes, but a {type(nodes).__name__}.")
        _check_nodes(nodes, where, subgraphs)
    return dict(workflow)


def _check_nodes(nodes: Iterable[Any], where: str, subgraphs: Mapping[str, Any]) -> None:
    """Refuse lists of nodes that the frontend would change or mistake without a word."""
    seen: set[str] = set()
    for node in nodes:
        if not isinstance(node, Mapping) or "id" not in node or "type" not in node:
            raise ConversionError(f"{where} has a node without id or type: {str(node)[:100]}.")
        if str(node["id"]) in seen:
            raise ConversionError(
                f"{where} has several nodes with the id {node['id']}; the frontend would lose all but one."
            )
        seen.add(str(node["id"]))
        # Frontend 1.27.10 would take the content of an earlier workflow's subgraph for it.
        if _UUID.fullmatch(str(node["type"])) and node["type"] not in subgraphs:
            title = f" ({node['title']!r})" if node.get("title") else ""
            raise ConversionError(
                f"{where} has a subgraph, node #{node['id']}{title}, whose definition ({node['type']}) is "
                "missing in the file. Save it again in the editor."
            )


def _subgraph_definitions(value: Any) -> dict[str, Any]:
    """{id: definition} of all subgraphs, also of those that are defined inside others."""
    found: dict[str, Any] = {}
    definitions = value.get("definitions") if isinstance(value, Mapping) else None
    subgraphs = definitions.get("subgraphs") if isinstance(definitions, Mapping) else None
    for subgraph in subgraphs if isinstance(subgraphs, list) else []:
        if isinstance(subgraph, Mapping):
            found[str(subgraph.get("id"))] = subgraph
            found.update(_subgraph_definitions(subgraph))
    return found


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def read_payload(payload: Mapping[str, Any] | str | os.PathLike[str]) -> Json:
    """A payload as a dict: a mapping, the path of a JSON file, or JSON text.

    Raises:
        ConversionError: the file is missing, or it is no JSON object; naming path, line and column.
    """
    if isinstance(payload, Mapping):
        return dict(payload)
    text, where = str(payload), "The JSON text"
    if not text.lstrip().startswith("{"):
        path, where = Path(text), f"The file {text}"
        try:
            text = path.read_text(encoding="utf-8-sig")  # editors on Windows put a byte order mark first
        except FileNotFoundError:
            raise ConversionError(
                f"The workflow file {path} does not exist (current directory: {Path.cwd()})."
            ) from None
        except (OSError, ValueError) as e:  # ValueError: no text, or no path
            raise ConversionError(f"The workflow file {path} cannot be read: {e}.") from e
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as e:  # RecursionError: nested too deeply
        raise ConversionError(f"{where} is not valid JSON: {e}.") from e
    if not isinstance(value, dict):
        raise ConversionError(f"{where} holds a JSON {type(value).__name__}, not an object.")
    return value


def tell_failed_packs(failed: Mapping[str, str]) -> str:
    """A sentence about packs that could not be loaded, for an error; "" where all could. *failed*: {path: reason}."""
    told = "; ".join(f"{os.path.basename(path)} ({reason})" for path, reason in sorted(failed.items()))
    return f" These packs could not be loaded: {told}." if told else ""


def find_workflow_node(workflow: Mapping[str, Any], node_id: str) -> Json | None:
    """The workflow's node that a prompt's node id stands for; ``57:35`` is node 35 in the subgraph that node 57 is."""
    definitions = _subgraph_definitions(workflow)
    nodes, found = workflow.get("nodes") or [], None
    for part in str(node_id).split(":"):
        found = next((n for n in nodes if str(n.get("id")) == part), None)
        if found is None:
            return None
        nodes = (definitions.get(found.get("type")) or {}).get("nodes") or []
    return found


def _title_in_prompt(prompt: Mapping[str, Any], node_id: str) -> str | None:
    """The title that the editor gave a node of a prompt, None where there is none."""
    node = prompt.get(node_id)
    meta = node.get("_meta") if isinstance(node, Mapping) else None
    title = meta.get("title") if isinstance(meta, Mapping) else None
    return str(title) if title else None


def explain_rejection(answer: Mapping[str, Any], prompt: Mapping[str, Any]) -> str:
    """The server's 400 (or its partial 200) as a paragraph: every node, input and value that it complains of."""
    error = answer.get("error") or {}
    lines: list[str] = []
    node_errors = answer.get("node_errors")
    for node_id, problem in (node_errors if isinstance(node_errors, Mapping) else {}).items():
        if not isinstance(problem, Mapping):
            continue
        title = _title_in_prompt(prompt, node_id)
        class_type = problem.get("class_type", "?")
        name = f"{class_type} #{node_id}" + (f" ({title!r})" if title and title != class_type else "")
        errors = problem.get("errors")
        for e in errors if isinstance(errors, list) else []:
            if isinstance(e, Mapping):
                lines.append(f"{name}: {e.get('message')} ({e.get('details')})")
    if lines:
        return "The server refuses the prompt. " + "; ".join(lines) + "."
    if isinstance(error, Mapping):
        message, details = (
            str(error.get("message", "no reason given")).rstrip("."),
            str(error.get("details", "")),
        )
        hint = ""
        # "Node ID '#3'" is all that the server says of a node that it does not know.
        node_id = details.partition("#")[2].rstrip("'")
        title = _title_in_prompt(prompt, node_id)
        if title:
            details += f", {title!r}"
        if error.get("type") == "prompt_no_outputs":
            hint = " It needs a node that delivers something, such as SaveImage, PreviewImage or an OUTPUT port."
        return f"The server refuses the prompt: {message}{f' ({details})' if details else ''}.{hint}"
    return f"The server refuses the prompt: {error}."


# ---- what a conversion left out ----

# Frontend-only node types of ComfyUI itself: they never are part of a prompt, and nothing is lost with them.
_EDITOR_NODES = frozenset({"Note", "MarkdownNote", "Reroute", "PrimitiveNode"})
_GROUP_NODE_PREFIXES = ("workflow/", "workflow>")
# LiteGraph's modes: 2 is "never" (the editor calls it muted), 4 is bypassed; all others are executed.
_MODES_OFF = {2: "muted", 4: "bypassed"}
# Node ids under which links of a subgraph begin and end at its own inputs and outputs.
_SUBGRAPH_INPUT, _SUBGRAPH_OUTPUT = "-10", "-20"
# Values of the widget "control after generate", which stands in the list of values behind a seed.
_CONTROL_VALUES = frozenset({"fixed", "increment", "decrement", "randomize"})
_BOOLEAN_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "enable", "disable", "enabled", "disabled", ""})


class _Level:
    """One graph of a workflow as the frontend flattens it: the top one, or one instance of a subgraph.

    Its nodes' ids in the prompt are ``prefix`` + their own ids.
    """

    def __init__(
        self, graph: Mapping[str, Any], prefix: str = "", parent: _Level | None = None, host: Json | None = None
    ):
        self.graph = graph
        self.prefix = prefix
        #: the level that the subgraph's node lies in, and that node; None for the top level
        self.parent = parent
        self.host = host
        self.nodes = {str(n["id"]): n for n in _list(graph.get("nodes")) if isinstance(n, dict) and "id" in n}
        self.links = dict(map(_read_link, _list(graph.get("links"))))
        #: the levels below, by the id of the node that is the subgraph
        self.children: dict[str, _Level] = {}

    def outwards(self) -> Iterator[_Level]:
        """This level, the one that it lies in, and so on up to the top one."""
        level: _Level | None = self
        while level is not None:
            yield level
            level = level.parent

    def lies_in(self, graph: Mapping[str, Any]) -> bool:
        """Whether *graph* is this level's, or that of a level that it lies in."""
        return any(level.graph is graph for level in self.outwards())

    def is_switched_off(self) -> bool:
        """Whether it lies in a subgraph that is muted or bypassed."""
        return any(_mode(level.host) in _MODES_OFF for level in self.outwards() if level.host is not None)


def _list(value: Any) -> list[Any]:
    """The value where it is a list, else none: the frontend overlooks much, and so does this."""
    return value if isinstance(value, list) else []


def _title(node: Mapping[str, Any]) -> str | None:
    """The node's title; None where it has none of its own."""
    return str(node["title"]) if node.get("title") else None


def _mode(node: Mapping[str, Any]) -> int:
    """The node's mode; 0, active, where the file has none."""
    mode = node.get("mode")
    return mode if isinstance(mode, int) else 0


def _read_link(link: Any) -> tuple[str, tuple[str, int, str, int]]:
    """(link id, (origin node, origin slot, target node, target slot)) of a link in either of the two formats."""
    if isinstance(link, Mapping):
        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
        values = [link.get(key) for key in keys]
    else:
        values = [*link, *[None] * 5][:5] if isinstance(link, (list, tuple)) else [None] * 5
    number, origin, origin_slot, target, target_slot = values
    slots = [slot if isinstance(slot, int) else -1 for slot in (origin_slot, target_slot)]
    return str(number), (str(origin), slots[0], str(target), slots[1])


def _read_levels(workflow: Mapping[str, Any]) -> list[_Level]:
    """The workflow's graphs, the top one first; a subgraph once for every node that stands for it."""
    definitions = _subgraph_definitions(workflow)
    levels = [_Level(workflow)]
    for level in levels:  # grows while it is walked
        for node_id, node in level.nodes.items():
            definition = definitions.get(str(node.get("type")))
            if definition is None or level.lies_in(definition):  # one that contains itself has no end
                continue
            child = level.children[node_id] = _Level(definition, f"{level.prefix}{node_id}:", level, node)
            levels.append(child)
    return levels


def _slots(node: Mapping[str, Any], which: str) -> list[Json]:
    """The node's "inputs" or "outputs" in the file; no list, or one with other things in it, is none."""
    return [slot for slot in _list(node.get(which)) if isinstance(slot, dict)]


def _is_prompt_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


class _Comparison:
    """One comparison of a workflow with its prompt, see :func:`conversion_notes`."""

    def __init__(self, workflow: Mapping[str, Any], prompt: Mapping[str, Any], definitions: Mapping[str, Any]):
        self.prompt = prompt
        self.definitions = definitions
        self.levels = _read_levels(workflow)
        #: {id that a node of the workflow should have in the prompt: id that it has there}
        self.matched = self._match()
        #: {(top-level id, class_type): how many} nodes of the prompt that no node of the workflow was found for
        self.spare = self._count_spare()
        self.notes: list[ConversionNote] = []

    def _match(self) -> dict[str, str]:
        """Find the workflow's nodes in the prompt.

        Frontend 1.58.1 renumbers nodes of subgraphs whose ids occur in another one too, in the order in which they
        stand in the file: within one subgraph, the n-th node of a type that is missing under its own id is the n-th
        one of that type that has an unknown id.
        """
        matched: dict[str, str] = {}
        missing: dict[tuple[str, Any], list[str]] = {}
        for level in self.levels:
            for node_id, node in level.nodes.items():
                prompt_id = level.prefix + node_id
                class_type = self._class_type(node)
                entry = self.prompt.get(prompt_id)
                if entry is not None and entry.get("class_type") == class_type:
                    matched[prompt_id] = prompt_id
                elif _mode(node) not in _MODES_OFF and node_id not in level.children:
                    missing.setdefault((level.prefix, class_type), []).append(prompt_id)
        unknown: dict[tuple[str, Any], list[str]] = {}
        for prompt_id, entry in self.prompt.items():
            if prompt_id not in matched:
                head, colon, _ = prompt_id.rpartition(":")
                unknown.setdefault((head + colon, entry.get("class_type")), []).append(prompt_id)
        for key, prompt_ids in unknown.items():
            wanted = missing.get(key, [])
            if key[0] and len(wanted) == len(prompt_ids):
                matched.update(zip(wanted, sorted(prompt_ids, key=lambda i: (len(i), i)), strict=True))
        return matched

    def nodes(self) -> dict[str, Json]:
        """{id in the prompt: node of the workflow}, of those that were found."""
        return {
            self.matched[level.prefix + node_id]: node
            for level in self.levels
            for node_id, node in level.nodes.items()
            if level.prefix + node_id in self.matched
        }

    def _class_type(self, node: Mapping[str, Any]) -> str | None:
        """What the node's entry in the prompt says: nothing for a type that the server does not know."""
        node_type = str(node.get("type"))
        return node_type if node_type in self.definitions else None

    def _count_spare(self) -> collections.Counter[tuple[str, Any]]:
        found = set(self.matched.values())
        return collections.Counter(
            (prompt_id.partition(":")[0], entry.get("class_type"))
            for prompt_id, entry in self.prompt.items()
            if prompt_id not in found
        )

    def note(self, kind: str, level: _Level, node: Json, text: str, input: str | None = None) -> None:
        """Add a note; ``{node}`` in *text* becomes the node's name."""
        text = text.replace("{node}", self._name(level, node))
        self.notes.append(ConversionNote(kind, self._id(level, node), str(node.get("type")), _title(node), input, text))

    def _id(self, level: _Level, node: Json) -> str:
        """The node's id in the prompt; for one that is not there, the id that it would have."""
        node_id = level.prefix + str(node["id"])
        return self.matched.get(node_id, node_id)

    def _name(self, level: _Level, node: Json) -> str:
        """The node as a person knows it: a subgraph by its name."""
        child = level.children.get(str(node["id"]))
        node_type = str(node.get("type")) if child is None else str(child.graph.get("name") or "subgraph")
        return _node_name(node_type, self._id(level, node), _title(node))

    def compare(self) -> list[ConversionNote]:
        for level in self.levels:
            if level.is_switched_off():
                continue
            for node_id, node in level.nodes.items():
                entry = self._emitted(level, node_id)
                if entry is not None:
                    self._compare_links(level, node, entry)
                    self._compare_values(level, node, entry)
                else:
                    self._explain_missing(level, node)
        return self.notes

    def _emitted(self, level: _Level, node_id: str) -> Json | None:
        """The node's entry in the prompt, None where it has none."""
        prompt_id = self.matched.get(level.prefix + node_id)
        return None if prompt_id is None else self.prompt[prompt_id]

    def _explain_missing(self, level: _Level, node: Json) -> None:
        node_id, node_type = str(node["id"]), str(node.get("type"))
        if node_type in _EDITOR_NODES:
            return
        if _mode(node) in _MODES_OFF:
            kind = _MODES_OFF[_mode(node)]
            if node_id in level.children and any(i.startswith(f"{level.prefix}{node_id}:") for i in self.prompt):
                # Frontend 1.27.10, and 1.35.9 too.
                self.note(
                    "runs_although_off",
                    level,
                    node,
                    f"The subgraph {{node}} is {kind}, but this version of the frontend has its content executed all "
                    "the same. Mute or bypass the nodes inside it, or use a newer frontend.",
                )
                return
            what = "as if it did not exist" if kind == "muted" else "and links pass through it"
            self.note(kind, level, node, f"{{node}} is {kind}: it is left out, {what}.")
        elif node_id in level.children:
            pass  # a subgraph: its content is the next level
        elif node_type.startswith(_GROUP_NODE_PREFIXES):
            pass  # expands to ids that each frontend chooses
        elif self.spare[(level.prefix + node_id).partition(":")[0], self._class_type(node)] > 0:
            # It may be one of those: renumbered in a way that cannot be followed.
            self.spare[(level.prefix + node_id).partition(":")[0], self._class_type(node)] -= 1
        elif node_type not in self.definitions:
            self.note(
                "editor_only",
                level,
                node,
                "{node} exists in the editor only: the server does not know it, and the frontend leaves it out.",
            )
        else:
            self.note(
                "node_lost",
                level,
                node,
                "The frontend left out {node}, although it is active and the server knows it.",
            )

    # ---- links ----

    def _compare_links(self, level: _Level, node: Json, entry: Json) -> None:
        optional = _inputs_of_group(self.definitions.get(str(node.get("type"))), "optional")
        for slot in _slots(node, "inputs"):
            name = str(slot.get("name"))
            if slot.get("link") is None or _is_prompt_link(_inputs(entry).get(name)):
                continue
            source = self._find_source(level, str(slot["link"]))
            is_there = name in _inputs(entry)
            # A value instead of a link is right where the link begins at a PrimitiveNode or at a subgraph's own widget,
            # which may have neither; what other editor-only nodes do is their packs' affair.
            if source.kind == "open" or (source.kind == "value" and is_there):
                continue
            # To mute or to bypass what an optional input is linked to is how one does without it.
            is_meant = source.kind == "off" and not is_there and name in optional
            reason = f": {source.text}" if source.text else ""
            then = "; its own value is used instead" if is_there else ""
            self.note(
                "link_off" if is_meant else "link_lost",
                level,
                node,
                f"{{node}} loses the link to its {'optional ' if is_meant else ''}input {name!r}{reason}{then}.",
                name,
            )

    def _find_source(self, level: _Level, link_id: str) -> _Source:
        """Where a link comes from, through reroutes, bypassed nodes and the borders of subgraphs."""
        for _ in range(1000):  # a cycle of reroutes has no end
            link = level.links.get(link_id)
            if link is None:
                return _Source("none", f"the link {link_id} is not in the workflow")
            origin_id, slot, _, _ = link
            step: tuple[_Level, Any] | _Source
            if origin_id == _SUBGRAPH_INPUT and level.parent is not None:
                step = self._leave(level, slot)
            elif origin_id not in level.nodes:
                return _Source("none", f"the node #{level.prefix}{origin_id} that it comes from is not in the workflow")
            else:
                step = self._pass(level, level.nodes[origin_id], slot)
            if isinstance(step, _Source):
                return step
            level, link_id = step[0], str(step[1])
        return _Source("none", "it comes from a circle of nodes that are only passed through")

    def _leave(self, level: _Level, slot: int) -> tuple[_Level, Any] | _Source:
        """From a subgraph's input to what is linked to the node that stands for it."""
        assert level.parent is not None
        assert level.host is not None
        inputs = _slots(level.graph, "inputs")
        name = inputs[slot].get("name") if 0 <= slot < len(inputs) else None
        for outer in _slots(level.host, "inputs"):
            if outer.get("name") == name and outer.get("link") is not None:
                return level.parent, outer["link"]
        return _Source("open")

    def _pass(self, level: _Level, node: Json, slot: int) -> tuple[_Level, Any] | _Source:
        """Through a node that is not executed itself, to the link that it passes on."""
        node_id, node_type, mode = str(node["id"]), str(node.get("type")), _mode(node)
        name, child = self._name(level, node), level.children.get(node_id)
        if mode == 2:
            return _Source("off", f"it comes from {name}, which is muted")
        inputs = _slots(node, "inputs")
        if mode == 4:
            outputs = _slots(node, "outputs")
            wanted = outputs[slot].get("type") if 0 <= slot < len(outputs) else None
            # As LiteGraph does: the input of the same number first, then any of a type that matches.
            ordered = inputs[slot : slot + 1] + inputs if slot >= 0 else inputs
            for one in ordered:
                if one.get("link") is not None and (one.get("type") == wanted or "*" in (one.get("type"), wanted)):
                    return level, one["link"]
            return _Source(
                "off", f"it comes from {name}, which is bypassed and has nothing of the type {wanted} to pass on"
            )
        if node_type == "PrimitiveNode":
            return _Source("value")
        if node_type == "Reroute":
            if inputs and inputs[0].get("link") is not None:
                return level, inputs[0]["link"]
            return _Source("none", f"it comes from {name}, to which nothing is linked")
        if child is not None:
            outputs = _slots(child.graph, "outputs")
            links = outputs[slot].get("linkIds") if 0 <= slot < len(outputs) else None
            inner = [i for i, link in child.links.items() if link[2] == _SUBGRAPH_OUTPUT and link[3] == slot]
            inner += [str(i) for i in _list(links)]
            return (child, inner[0]) if inner else _Source("none", f"nothing is linked to that output inside {name}")
        is_group = node_type.startswith(_GROUP_NODE_PREFIXES)
        if not is_group and self._emitted(level, node_id) is None and node_type not in self.definitions:
            return _Source("value", f"it comes from {name}, which exists in the editor only")
        return _Source("node")

    # ---- values of widgets ----

    def _compare_values(self, level: _Level, node: Json, entry: Json) -> None:
        values = node.get("widgets_values")
        for name, value in values.items() if isinstance(values, Mapping) else []:
            self._compare_named_value(level, node, entry, str(name), value)
        specs = _input_specs(self.definitions.get(str(node.get("type"))))
        if not isinstance(values, Mapping):
            self._compare_count(level, node, entry, specs)
        for name, spec in specs.items():
            value = _inputs(entry).get(name, _ABSENT)
            if value is not _ABSENT and not _is_prompt_link(value):
                self._compare_type(level, node, name, value, spec)

    def _compare_named_value(self, level: _Level, node: Json, entry: Json, name: str, value: Any) -> None:
        """Values saved as {name: value} reach the widgets only where the pack's own script sees to it."""
        used = _inputs(entry).get(name, _ABSENT)
        if used is _ABSENT or used is None or _is_prompt_link(used):
            return
        if isinstance(used, Mapping) and list(used) == ["__value__"]:
            used = used["__value__"]
        if used != value:
            self.note(
                "value_not_used",
                level,
                node,
                f"{{node}}: the workflow holds {_short(value)} for the input {name!r}, but the frontend gave "
                f"{_short(used)}.",
                name,
            )

    def _compare_count(self, level: _Level, node: Json, entry: Json, specs: Mapping[str, Any]) -> None:
        """Where the file holds fewer values than the node has widgets, the last ones have their defaults."""
        values = _list(node.get("widgets_values"))
        # What stands behind a seed, "control after generate", is no input.
        controls = sum(_has_control(name, spec) for name, spec in specs.items())
        saved = len(values) - min(controls, sum(isinstance(v, str) and v in _CONTROL_VALUES for v in values))
        widgets = [name for name, spec in specs.items() if _widget_type(spec) is not None]
        linked = {str(slot.get("name")) for slot in _slots(node, "inputs") if slot.get("link") is not None}
        for name in widgets[saved:]:
            spec = specs[name]
            used = _inputs(entry).get(name, _ABSENT)
            if name in linked or used is _ABSENT or _is_prompt_link(used) or used != _default(spec):
                continue
            self.note(
                "default_used",
                level,
                node,
                f"{{node}}: the workflow holds no value for the input {name!r}; its default {_short(used)} is used.",
                name,
            )

    def _compare_type(self, level: _Level, node: Json, name: str, value: Any, spec: Any) -> None:
        kind = _widget_type(spec)
        if kind is None:
            return
        if value is None:
            self.note("null_value", level, node, f"{{node}}: the frontend gave null for the input {name!r}.", name)
        elif not _can_be(value, kind, spec):
            what = "a choice of this input" if kind == "COMBO" else f"of the type {kind}"
            self.note(
                "wrong_value",
                level,
                node,
                f"{{node}}: the input {name!r} has the value {_short(value)}, which is not {what}. Most likely "
                "the values in the workflow were saved by another version of the node or of the editor and are "
                "shifted: open it in the editor, set the values and save it again.",
                name,
            )


class _Source:
    """Where a link comes from: "node" (one that is executed), "value" (a widget), "open" (a subgraph's input that has
    nothing to give), "off" (muted, or bypassed without anything to pass on) or "none", with the reason.
    """

    def __init__(self, kind: str, text: str = ""):
        self.kind = kind
        self.text = text


_ABSENT: Any = object()


def _inputs(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    inputs = entry.get("inputs")
    return inputs if isinstance(inputs, Mapping) else {}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _input_specs(definition: Any) -> dict[str, list[Any]]:
    """{input name: [type or choices, options]} of a node definition, in the order of its widgets."""
    specs: dict[str, list[Any]] = {}
    for group in ("required", "optional"):
        for name, spec in _inputs_of_group(definition, group).items():
            if isinstance(spec, (list, tuple)) and spec:
                specs[str(name)] = list(spec)
    return specs


def _inputs_of_group(definition: Any, group: str) -> Mapping[str, Any]:
    """The "required" or "optional" inputs of a node definition."""
    groups = definition.get("input") if isinstance(definition, Mapping) else None
    inputs = groups.get(group) if isinstance(groups, Mapping) else None
    return inputs if isinstance(inputs, Mapping) else {}


def _widget_type(spec: Sequence[Any]) -> str | None:
    """INT, FLOAT, BOOLEAN, STRING or COMBO; None for what is no plain widget of the editor."""
    options = spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
    if options.get("forceInput"):
        return None
    kind = "COMBO" if isinstance(spec[0], (list, tuple)) else spec[0]
    return kind if kind in ("INT", "FLOAT", "BOOLEAN", "STRING", "COMBO") else None


def _has_control(name: str, spec: Sequence[Any]) -> bool:
    """Whether the editor adds a widget "control after generate" to this one."""
    options = spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
    return _widget_type(spec) in ("INT", "COMBO") and bool(
        options.get("control_after_generate", name in ("seed", "noise_seed"))
    )


def _choices(spec: Sequence[Any]) -> list[Any]:
    """The choices of a combo; none where they are not known, or several may be chosen."""
    options = spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
    choices = spec[0] if isinstance(spec[0], (list, tuple)) else options.get("options")
    return list(choices) if isinstance(choices, (list, tuple)) and not options.get("multiselect") else []


def _default(spec: Sequence[Any]) -> Any:
    """The value that the editor gives a new widget of this definition."""
    options = spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
    if "default" in options:
        return options["default"]
    kind = _widget_type(spec)
    return (
        next(iter(_choices(spec)), _ABSENT) if kind == "COMBO" else {"STRING": "", "BOOLEAN": False}.get(kind or "", 0)
    )


def _json_type(value: Any) -> str:
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def _can_be(value: Any, kind: str, spec: Sequence[Any]) -> bool:
    """Whether *value* can have been meant for an input of this kind. In doubt it can: false alarms are worse."""
    is_text = isinstance(value, str)
    if kind in ("INT", "FLOAT"):
        if not is_text:
            return isinstance(value, (int, float))
        try:
            float(value)
        except ValueError:
            return False
        return True
    if kind == "BOOLEAN":
        return value.lower() in _BOOLEAN_WORDS if is_text else value in (0, 1)
    choices = _choices(spec) if kind == "COMBO" else []
    if not choices or value in choices or isinstance(value, (list, Mapping)):
        return True
    if not any(_json_type(choice) == _json_type(value) for choice in choices):
        # A number where all choices are texts, or the like; unless it is the same thing in another type.
        return any(str(choice).lower() == str(value).lower() for choice in choices)
    # A text that is not among the choices may be a file that is on another machine, or a choice of a newer version: the
    # server tells about both. What stands behind a seed is neither.
    return value not in _CONTROL_VALUES


def conversion_notes(
    workflow: Mapping[str, Any], prompt: Mapping[str, Any], definitions: Mapping[str, Any]
) -> list[ConversionNote]:
    """What the frontend left out of, or changed in, a workflow when it made a prompt of it; [] where nothing.

    It has no opinion on what it cannot know (nodes of packs whose scripts do as they please): a note is never a guess,
    and a prompt without notes may still be refused by the server.

    Args:
        workflow: the editor JSON that was converted.
        prompt: what the frontend made of it.
        definitions: the server's /object_info.
    """
    return _Comparison(workflow, prompt, definitions).compare()


def _notes_on_nulls(prompt: Mapping[str, Any], replaced: Iterable[Sequence[str]]) -> list[ConversionNote]:
    """The notes on nulls that :data:`_CONVERT_JS` replaced: [node id, input name] each."""
    notes = []
    for node_id, name in replaced:
        class_type = str(prompt[node_id].get("class_type"))
        title = (prompt[node_id].get("_meta") or {}).get("title")
        text = (
            f"{_node_name(class_type, node_id, title)}: its subgraph has null for its input {name!r}; its own value "
            f"{_short(prompt[node_id]['inputs'][name])} is used. Save the workflow again in the editor."
        )
        notes.append(ConversionNote("null_replaced", node_id, class_type, title, name, text))
    return notes


def workflow_shape(workflow: Mapping[str, Any]) -> str:
    """Hash of a workflow's nodes, modes and links: the same whatever the values of its widgets are."""
    graphs = [workflow, *_subgraph_definitions(workflow).values()]
    shape = [
        [
            [[n.get("id"), n.get("type"), n.get("mode")] for n in _list(graph.get("nodes")) if isinstance(n, dict)],
            graph.get("links"),
        ]
        for graph in graphs
    ]
    return hashlib.sha256(canonical_json(shape)).hexdigest()
