"""What a run ran on: versions, custom-node packs, devices, and the model files that its prompts name.

For the ``session`` lines of a run's journal (docs/reference/run-record.md). What is not known is left out; nothing is
guessed. The server's command line, which may hold secrets, is looked at but never recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import importlib.metadata
import json
import logging
import os
import platform
import re
import shutil
import stat
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from .. import __version__, comfy_serverless
from ..comfy_serverless import ComfyConnector, ConnectorError, ServerChoice
from ..nodes_internal import PROTOCOL_VERSION

log = logging.getLogger("discomfort.durable")

Json = dict[str, Any]
_T = TypeVar("_T")

# Our own folder, which is a pack of the server, too, and the node by which it is known there.
_HERE = Path(__file__).resolve().parent.parent
_OWN_NODE = "DiscomfortPort"
# What ``python_module`` of a pack's node begins with; those of ComfyUI itself begin otherwise.
_PACK_PREFIX = "custom_nodes."
_FRONTEND = "comfyui-frontend-package"


async def _ask(connector: ComfyConnector, question: Awaitable[_T]) -> _T | None:
    """The answer of a server; None where it lives and refuses, or gives one that cannot be read.

    Raises:
        ConnectorError: it is dead, was shut down, or cannot be started.
    """
    try:
        return await question
    except ConnectorError as e:
        # Whatever has a class of its own (ServerDiedError, ServerStartError) is no refusal.
        if type(e) is not ConnectorError or connector.state != "ready":
            raise
        log.debug("Left out of the record: %s", e)
        return None


async def _get(connector: ComfyConnector, path: str) -> Any:
    """GET a JSON value; as :func:`_ask`."""
    return await _ask(connector, connector.get_json(path))


# ------------------------------------------------------------------------------------------------------- environment


async def describe_environment(connector: ComfyConnector) -> Json:
    """What a run on this server runs on: ``environment`` in docs/reference/run-record.md. What is not known is missing.

    The versions and commits of packs are told for a server of this machine only. Starts the server where it does not
    run. Cancelling is safe.

    Raises:
        ConnectorError: the server is dead.
    """
    stats = await _ask(connector, connector.system_stats()) or {}
    definitions = await _ask(connector, connector.node_definitions()) or {}
    system = _mapping(stats.get("system"))
    choice = connector.server_choice
    found: Json = {
        "comfyui": _text(system.get("comfyui_version")),
        "frontend": await asyncio.to_thread(_frontend_version, system, choice),
        "python": _first_word(system.get("python_version")),
        "pytorch": _text(system.get("pytorch_version")),
        "discomfort": __version__,
        "discomfort_commit": await asyncio.to_thread(commit_of, _HERE),
        "protocol": PROTOCOL_VERSION,
        "os": _text(system.get("os")),
        "device": _devices(stats.get("devices")),
        "embedded": system.get("discomfort_embedded") is True if system else None,
        "orchestrator": _known({"python": platform.python_version(), "pytorch": _installed_version("torch")}),
    }
    if definitions:
        found["packs"] = await _describe_packs(connector, definitions)
    return _known(found)


def _known(values: Mapping[str, Any]) -> Json:
    """Without what is None."""
    return {key: value for key, value in values.items() if value is not None}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _first_word(value: Any) -> str | None:
    """ "3.12.3" of "3.12.3 (main, Apr 10 2024, 05:33:47) [GCC 13.2.0]"."""
    return next(iter(value.split()), None) if isinstance(value, str) else None


def _devices(value: Any) -> list[Json] | None:
    """The server's devices, by what does not change while it runs; ``vram_total`` in bytes."""
    if not isinstance(value, list):
        return None
    return [_known({key: _mapping(one).get(key) for key in ("name", "type", "vram_total")}) for one in value]


def _installed_version(name: str) -> str | None:
    """The version of an installed package of this Python, which is not imported."""
    # A damaged installation may have metadata without a version.
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, KeyError, OSError, ValueError):
        return _text(importlib.metadata.version(name))
    return None


def _frontend_version(system: Mapping[str, Any], choice: ServerChoice | None) -> str | None:
    """The version of the frontend that the server serves. Reads its Python's packages where it is known.

    ``required_frontend_version`` is what ComfyUI's requirements.txt says: what is installed may be another one.
    """
    argv = system.get("argv")
    argv = [word for word in argv if isinstance(word, str)] if isinstance(argv, list) else []
    if _argument(argv, "--front-end-root") is not None:
        return None
    given = _argument(argv, "--front-end-version")
    if given is not None and given.rpartition("@")[0].lower() not in ("comfyanonymous/comfyui", "comfy-org/comfyui"):
        # "owner/repository@1.2.3"; of "latest" nobody knows what it was. ComfyUI's own name means the installed one.
        exact = re.search(r"@v?(\d[\w.+-]*)$", given)
        return exact[1] if exact else None
    if system.get("discomfort_embedded") is True:
        return _text(system.get("required_frontend_version"))  # the embedded server tells the installed one
    packages = system.get("comfy_package_versions")  # ComfyUI 0.33
    for package in packages if isinstance(packages, list) else []:
        if _mapping(package).get("name") == _FRONTEND:
            return _text(package.get("installed"))
    return _version_in_python_of(choice, _FRONTEND)


def _argument(argv: Sequence[str], name: str) -> str | None:
    """The last value of ``name value`` or ``name=value`` in a command line, which argparse takes; None without one."""
    value = None
    for index, word in enumerate(argv):
        if word == name:
            value = argv[index + 1] if index + 1 < len(argv) else ""
        elif word.startswith(f"{name}="):
            value = word[len(name) + 1 :]
    return value


def _version_in_python_of(choice: ServerChoice | None, package: str) -> str | None:
    """The version of a package in the Python environment that a server was started with."""
    # Anything but "interpreter script" is a program that chooses the interpreter itself.
    if choice is None or len(choice.command) != 2:
        return None
    # A relative path is one from the server's folder; a bare name is searched for.
    python = shutil.which(choice.command[0])
    if os.path.dirname(choice.command[0]):
        python = os.path.join(choice.working_directory, choice.command[0])
    if python is None or os.path.abspath(python) == os.path.abspath(sys.executable):
        return _installed_version(package) if python else None
    prefix = Path(python).parent.parent  # a link is not followed: the environment is where the link is
    folders = [*prefix.glob("lib/python3*/site-packages"), prefix / "Lib" / "site-packages"]
    folders.append(Path(python).parent / "Lib" / "site-packages")  # the portable build for Windows
    with contextlib.suppress(OSError, ValueError, KeyError):
        found = importlib.metadata.distributions(name=package, path=[str(f) for f in folders if f.is_dir()])
        versions = {distribution.version for distribution in found}
        if len(versions) == 1:  # several: a prefix that several Pythons share
            return _text(versions.pop())
    return None


# ------------------------------------------------------------------------------------------------------------- packs


async def _describe_packs(connector: ComfyConnector, definitions: Mapping[str, Any]) -> dict[str, Json]:
    """{name: {"version", "commit"}} of the packs that the server has loaded nodes from."""
    names = pack_names(definitions)
    if not connector.is_local:
        return {name: {} for name in names}
    choice = connector.server_choice
    # Also those of --extra-model-paths-config; the editor's route, which every version so far has.
    folders = _mapping(await _get(connector, "/internal/folder_paths")).get("custom_nodes")
    if not isinstance(folders, list):
        folders = [] if choice is None else [choice.data_folder / "custom_nodes"]
    roots = [Path(folder) for folder in folders if isinstance(folder, (str, Path))]
    # The embedded server loads the package that it is a part of from no such folder.
    own = _pack_of(definitions.get(_OWN_NODE)) if choice is not None and choice.kind == "embedded" else None
    return await asyncio.to_thread(lambda: {name: _describe_pack(name, roots, name == own) for name in names})


def pack_names(definitions: Mapping[str, Any]) -> list[str]:
    """The names of the packs that a server's node definitions come from, sorted. Packs without nodes do not show."""
    return sorted({name for name in map(_pack_of, definitions.values()) if name})


def _pack_of(definition: Any) -> str | None:
    """The pack of a node definition, None for a node of ComfyUI itself. The names of folders may contain dots."""
    module = _mapping(definition).get("python_module")
    if isinstance(module, str) and module.startswith(_PACK_PREFIX):
        return module[len(_PACK_PREFIX) :] or None
    return None


def _describe_pack(name: str, roots: Iterable[Path], is_own: bool) -> Json:
    """Version and commit of a pack, as far as they are known. Blocks."""
    places = {str(place.resolve()): place for place in (root / name for root in roots) if _is_there(place)}
    if not places and is_own:
        return _known({"version": __version__, "commit": commit_of(_HERE)})
    if len(places) != 1:  # a single file; one that cannot be seen; or two folders of that name
        return {}
    folder = Path(next(iter(places)))
    return _known({"version": version_of(folder), "commit": commit_of(folder)})


def _is_there(folder: Path) -> bool:
    return os.path.isdir(folder)  # unlike Path.is_dir() it never raises


def version_of(folder: Path) -> str | None:
    """The version that a pack's pyproject.toml states; None where it cannot be known. Blocks."""
    text = _read_small(folder / "pyproject.toml", 1024 * 1024)
    if text is None:
        return None
    try:
        toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    except ImportError:  # Python 3.10, whose users need not have tomli
        return None
    with contextlib.suppress(ValueError, RecursionError):
        return _text(_mapping(toml.loads(text).get("project")).get("version"))
    return None


_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REFERENCE = re.compile(r"ref:\s*(refs/[^\0\s]+)")


def commit_of(folder: Path) -> str | None:
    """The commit that a clone (or a worktree, or a submodule) is at, in hex; None where it cannot be known. Blocks.

    The files are read without git: it may be missing, refuses folders of other users, and what it does depends on a
    configuration that comes with the folder.
    """
    try:
        git = folder / ".git"
        if not git.is_dir():
            link = _read_small(git) or ""
            if not link.startswith("gitdir:"):
                return None
            git = folder / link[len("gitdir:") :].strip()
        common = _read_small(git / "commondir")
        places = [git] if common is None else [git, git / common.strip()]
        return _follow((_read_small(git / "HEAD") or "").strip(), places)
    except (OSError, ValueError):  # it may not be looked at, or names what is no path
        return None


def _follow(head: str, places: Sequence[Path]) -> str | None:
    """The commit that HEAD says, or that the reference it names says, which may name another one."""
    for _ in range(5):
        if _COMMIT.fullmatch(head):
            return head
        match = _REFERENCE.fullmatch(head)
        if match is None or ".." in match[1]:
            return None
        found = (_read_small(place / match[1]) or _packed(place, match[1]) for place in places)
        head = next((text.strip() for text in found if text), "")
    return None


def _packed(git: Path, reference: str) -> str | None:
    """A reference in packed-refs: lines of "commit reference"."""
    for line in (_read_small(git / "packed-refs", 32 * 1024 * 1024) or "").splitlines():
        commit, _, name = line.partition(" ")
        if name.strip() == reference:
            return commit
    return None


def _read_small(file: Path, limit: int = 64 * 1024) -> str | None:
    """A text file; None where there is none that can be read, or it is longer than *limit* bytes."""
    with contextlib.suppress(OSError, ValueError):
        if file.is_file():  # a pipe would be waited for
            with file.open("rb") as stream:
                data = stream.read(limit + 1)
            return data.decode("utf-8") if len(data) <= limit else None
    return None


# ------------------------------------------------------------------------------------------------------------ models


class ModelName(NamedTuple):
    """A model file as the server knows it."""

    # name of a model folder: "checkpoints"
    folder: str
    # of the file in it: "sub/x.safetensors", on Windows "sub\\x.safetensors"
    name: str


class _LocalFile(NamedTuple):
    """A model file that was found on this machine."""

    path: str
    size: int
    mtime_ns: int
    modified: float

    @property
    def details(self) -> Json:
        """As the server tells it."""
        return {"size": self.size, "modified": self.modified}


async def describe_models(
    connector: ComfyConnector, prompts: Iterable[Mapping[str, Any]], with_hashes: bool = False
) -> list[Json]:
    """The model files that prompts name, by folder and name: {"folder", "name", "size", "modified", "sha256"}.

    ``size`` is in bytes, ``modified`` in seconds since the epoch. Files that a text names ("embedding:x") and those of
    inputs that are linked are not found. [] where the server cannot list its models.

    Args:
        prompts: what is queued, or will be.
        with_hashes: add ``sha256``, for a server of this machine. The first time it takes some seconds for each GB; it
            is remembered in the cache folder until the file changes.

    Raises:
        ConnectorError: the server is dead.

    Cancelling is safe; the hashes that were finished are remembered.
    """
    prompts = list(prompts)
    definitions = await _ask(connector, connector.node_definitions()) or {}
    if not any(_looks_like_file(value) for _, value in _combo_values(prompts, definitions)):
        return []
    folders = await _model_folders(connector)
    listings = await asyncio.gather(*(_list_names(connector, folder) for folder in folders))
    names = named_models(prompts, definitions, dict(zip(folders, listings, strict=True)))
    files = await asyncio.to_thread(_find_files, names, folders) if connector.is_local else {}
    listed = await _list_what_counts(connector, names, files)
    # Where the server says otherwise, the file here is not the one that it uses.
    files = {one: file for one, file in files.items() if listed.get(one, file.details) == file.details}
    hashes = await _hash_files(files.values()) if with_hashes else {}
    described = []
    for one in names:
        file = files.get(one)
        details = file.details if file is not None else listed.get(one, {})
        digest = {"sha256": hashes.get(file.path)} if file is not None else {}
        described.append(_known({"folder": one.folder, "name": one.name, **details, **digest}))
    return described


async def _list_what_counts(
    connector: ComfyConnector, names: Iterable[ModelName], files: Mapping[ModelName, _LocalFile]
) -> dict[ModelName, Json]:
    """What the server says of the files that it has to be asked about: {"size", "modified"} of each.

    It lists a folder by looking at each file in it, and does nothing else meanwhile: where the files are seen from here
    it is spared that. Of a server that we know by its address alone a path may mean a container's: it is asked.
    """
    is_known = connector.server_choice is not None
    asked = [one for one in names if one not in files or not is_known]
    folders = {one.folder for one in asked}
    listings = {folder: await _list_details(connector, folder) for folder in sorted(folders)}
    return {one: listings[one.folder][one.name] for one in asked if one.name in listings[one.folder]}


async def _model_folders(connector: ComfyConnector) -> dict[str, list[str]]:
    """{name of a model folder: its paths on the server}, in the server's order; {} where it does not tell."""
    answer = await _get(connector, "/experiment/models")
    folders = {}
    for entry in answer if isinstance(answer, list) else []:
        name, paths = _mapping(entry).get("name"), _mapping(entry).get("folders")
        if isinstance(name, str) and isinstance(paths, list):
            folders[name] = [path for path in paths if isinstance(path, str)]
    return folders


async def _list_names(connector: ComfyConnector, folder: str) -> list[str]:
    """The names of a folder's files, which the server has at hand: it made its node definitions of them."""
    answer = await _get(connector, f"/models/{urllib.parse.quote(folder, safe='')}")
    return [name for name in answer if isinstance(name, str)] if isinstance(answer, list) else []


async def _list_details(connector: ComfyConnector, folder: str) -> dict[str, Json]:
    """{name: {"size", "modified"}} of a folder's files."""
    answer = await _get(connector, f"/experiment/models/{urllib.parse.quote(folder, safe='')}")
    details: dict[str, Json] = {}
    for entry in answer if isinstance(answer, list) else []:
        name = _mapping(entry).get("name")
        if isinstance(name, str):
            # Of files of one name in several paths the first one is used.
            details.setdefault(name, {key: entry.get(key) for key in ("size", "modified")})
    return details


def _looks_like_file(value: str) -> bool:
    """Whether a choice ends as the name of a file does; "euler_ancestral" and "2.0" do not."""
    return re.search(r"\.[A-Za-z]\w{0,15}$", value) is not None


def _combo_values(
    prompts: Iterable[Mapping[str, Any]], definitions: Mapping[str, Any]
) -> Iterator[tuple[Sequence[Any], str]]:
    """(choices, value) of what prompts choose from lists, each value as often as it is chosen.

    Of a definition in either form: ``[[choice, ...], {...}]``, ``["COMBO", {"options": [choice, ...]}]``. Inputs that
    take uploads, pictures and sounds, are left out.
    """
    for prompt in prompts:
        for node in prompt.values() if isinstance(prompt, Mapping) else ():
            definition = _mapping(definitions.get(str(_mapping(node).get("class_type"))))
            groups = _mapping(definition.get("input"))
            inputs = _mapping(_mapping(node).get("inputs"))
            for group in ("required", "optional"):
                for name, spec in _mapping(groups.get(group)).items():
                    choices = _choices(spec)
                    if choices is not None and name in inputs:
                        for value in _texts(inputs[name]):
                            yield choices, value


def _choices(spec: Any) -> Sequence[Any] | None:
    """The choices of an input that is a combo, as they stand there, () where they do not; None for other inputs."""
    if not isinstance(spec, (list, tuple)) or not spec:
        return None
    options = _mapping(spec[1]) if len(spec) > 1 else {}
    if any(str(key).endswith("_upload") and value is True for key, value in options.items()):
        return None
    choices = spec[0] if isinstance(spec[0], (list, tuple)) else options.get("options")
    if isinstance(spec[0], (list, tuple)) or spec[0] == "COMBO":
        return choices if isinstance(choices, (list, tuple)) else ()
    return None


def _texts(value: Any) -> list[str]:
    """What an input's value chooses: one text, or several of a multiselect (a list, which the frontend wraps)."""
    if isinstance(value, Mapping) and list(value) == ["__value__"]:
        value = value["__value__"]
    if isinstance(value, list):  # a link is none: its second part is a number
        return value if all(isinstance(one, str) for one in value) else []
    return [value] if isinstance(value, str) else []


def named_models(
    prompts: Iterable[Mapping[str, Any]], definitions: Mapping[str, Any], listings: Mapping[str, Iterable[str]]
) -> list[ModelName]:
    """The model files that prompts name, by folder and name, each once. Pure.

    A value is a model file where its input is a combo and a folder lists it. Where several do, it is the folder that
    has the most of the combo's choices, then the one with the fewest other files, then the first. The names of a
    Windows server have backslashes; a prompt from elsewhere may have slashes.

    Args:
        prompts: API prompts.
        definitions: the server's /object_info.
        listings: {name of a model folder: names of its files}.
    """
    # {folder: {name with slashes: name}}
    known = {folder: {_slashes(name): name for name in names} for folder, names in listings.items()}
    found: set[ModelName] = set()
    # Many nodes choose from one list, which may be long.
    seen: set[tuple[int, str]] = set()
    for choices, value in _combo_values(prompts, definitions):
        name = _slashes(value)
        folders = [folder for folder, names in known.items() if name in names]
        if not folders or (id(choices), name) in seen:
            continue
        seen.add((id(choices), name))
        wanted = {_slashes(choice) for choice in choices if isinstance(choice, str)}
        fits = {f: (len(wanted & known[f].keys()), -len(known[f].keys() - wanted)) for f in folders}
        best = max(folders, key=fits.__getitem__)  # of equals the first
        found.add(ModelName(best, known[best][name]))
    return sorted(found)


def _slashes(name: str) -> str:
    return name.replace("\\", "/")


def _find_files(names: Iterable[ModelName], folders: Mapping[str, Sequence[str]]) -> dict[ModelName, _LocalFile]:
    """The files of models on this machine: each in the first of its folder's paths that has it. Blocks."""
    files = {}
    for one in names:
        for path in (os.path.join(folder, one.name) for folder in folders[one.folder]):
            with contextlib.suppress(OSError, ValueError):
                info = os.stat(path)
                if stat.S_ISREG(info.st_mode):
                    files[one] = _LocalFile(path, info.st_size, info.st_mtime_ns, info.st_mtime)
                    break
    return files


# ------------------------------------------------------------------------------------------------------------ hashes

_PIECE = 1024 * 1024  # bytes
_HASHES_VERSION = 1
# A file that was changed less than this many nanoseconds ago may change again without a change of its time.
_SETTLED = 2 * 10**9


def hashes_file() -> Path:
    """Where the hashes of model files are remembered: ``{"version": 1, "files": {path: [size, mtime_ns, sha256]}}``."""
    return comfy_serverless.cache_folder() / "model_hashes.json"


async def _hash_files(files: Iterable[_LocalFile]) -> dict[str, str]:
    """{path: SHA-256 in hex} of files; one that cannot be read, or changes meanwhile, is missing."""
    stop = threading.Event()
    try:
        return await asyncio.to_thread(_hash_all, list(files), stop.is_set)
    finally:
        stop.set()  # a thread cannot be cancelled, and a model may be large


def _hash_all(files: Iterable[_LocalFile], is_over: Callable[[], bool]) -> dict[str, str]:
    remembered = _read_hashes(hashes_file())
    hashes = {}
    for file in files:
        size, mtime_ns, digest = remembered.get(file.path, (-1, -1, ""))
        if (size, mtime_ns) != (file.size, file.mtime_ns):
            started = time.time_ns()
            found = _hash_file(file, is_over)
            if found is None:
                continue
            digest = found
            if started - file.mtime_ns > _SETTLED:
                _remember_hash(file, digest)
        hashes[file.path] = digest
    return hashes


def _hash_file(file: _LocalFile, is_over: Callable[[], bool]) -> str | None:
    """The SHA-256 of a file; None where it is another one by now, or cannot be read, or *is_over*."""
    state = hashlib.sha256()
    try:
        with open(file.path, "rb", buffering=0) as stream:
            while piece := stream.read(_PIECE):
                if is_over():
                    return None
                state.update(piece)
            info = os.fstat(stream.fileno())
    except OSError as e:
        log.debug("No hash of %s: %s", file.path, e)
        return None
    return state.hexdigest() if (info.st_size, info.st_mtime_ns) == (file.size, file.mtime_ns) else None


def _read_hashes(file: Path) -> dict[str, tuple[int, int, str]]:
    """What is remembered; a damaged file, or one of another version, is an empty one."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if _mapping(stored).get("version") != _HASHES_VERSION:
        return {}
    hashes: dict[str, tuple[int, int, str]] = {}
    for path, entry in _mapping(stored.get("files")).items():
        match entry:
            case [int(size), int(mtime_ns), str(digest)] if re.fullmatch("[0-9a-f]{64}", digest):
                hashes[path] = (size, mtime_ns, digest)
    return hashes


def _remember_hash(file: _LocalFile, digest: str) -> None:
    """Add a hash to the remembered ones. What another process adds at the same moment may be lost, no more."""
    target = hashes_file()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        hashes = {**_read_hashes(target), file.path: (file.size, file.mtime_ns, digest)}
        handle, young = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".tmp")
        try:
            with open(handle, "w", encoding="utf-8") as stream:
                json.dump({"version": _HASHES_VERSION, "files": hashes}, stream)
            os.replace(young, target)
        except BaseException:
            os.unlink(young)
            raise
    except (OSError, ValueError) as e:
        log.debug("The hash of %s cannot be remembered: %s", file.path, e)
