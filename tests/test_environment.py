"""durable.environment: what a run ran on, and the model files that its prompts name.

The pure parts by cases; the rest on the embedded server, the ComfyUI that COMFYUI_PATH names, and a scripted peer.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from discomfort.comfy_serverless import ComfyConnector, ConnectorError, ServerChoice, ServerDiedError
from discomfort.durable import environment
from discomfort.durable.environment import (
    ModelName,
    commit_of,
    describe_environment,
    describe_models,
    hashes_file,
    named_models,
    pack_names,
    version_of,
)
from discomfort.nodes_internal import PROTOCOL_VERSION
from prompt_parts import node

import discomfort
from discomfort import comfy_serverless as cs

HERE = Path(discomfort.__file__).resolve().parent
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
SECRET = "s3cret-in-the-command-line"
SHA256 = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("vae one", "vae two", "lora one")}
# A time at which a file may well have been changed.
LONG_AGO = 1_700_000_000.25


def write(file: Path, text: str, modified: float | None = LONG_AGO) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    if modified is not None:
        os.utime(file, (modified, modified))
    return file


# --------------------------------------------------------------------------------------------------- names of models


def combo(*choices: str, **options: Any) -> list[Any]:
    """An input as ComfyUI's older nodes define it."""
    return [list(choices), options]


def new_combo(*choices: str, **options: Any) -> list[Any]:
    """An input as ComfyUI's newer nodes define it."""
    return ["COMBO", {"options": list(choices), **options}]


def defined(**inputs: Any) -> dict[str, Any]:
    return {"Load": {"input": {"required": inputs}}}


def named(definitions: dict[str, Any], listings: dict[str, list[str]], **inputs: Any) -> list[tuple[str, str]]:
    """The models that a prompt of one node with these inputs names."""
    return [tuple(one) for one in named_models([{"1": node("Load", **inputs)}], definitions, listings)]


@pytest.mark.parametrize("form", [combo, new_combo], ids=["list", "COMBO"])
@pytest.mark.parametrize("group", ["required", "optional"])
def test_a_model_is_what_a_combo_chooses_of_a_folder(form: Any, group: str) -> None:
    definitions = {"Load": {"input": {group: {"file": form("a.safetensors", "b.safetensors"), "how": form("fast")}}}}
    listings = {"vae": ["a.safetensors", "b.safetensors"], "loras": ["c.safetensors"]}
    assert named(definitions, listings, file="b.safetensors", how="fast") == [("vae", "b.safetensors")]


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param({"text": "a.safetensors"}, id="a text, not a choice"),
        pytest.param({"file": ["7", 0]}, id="a link"),
        pytest.param({"file": "gone.safetensors"}, id="a file that no folder has"),
        pytest.param({"file": None}, id="null"),
        pytest.param({"file": 5}, id="a number"),
        pytest.param({"file": {"__value__": 5}}, id="something wrapped"),
        pytest.param({"picture": "a.safetensors"}, id="an upload"),
        pytest.param({"unknown": "a.safetensors"}, id="an input that is not defined"),
        pytest.param({}, id="nothing"),
    ],
)
def test_other_values_are_no_models(inputs: dict[str, Any]) -> None:
    definitions = defined(
        text=["STRING", {}], file=combo("a.safetensors"), picture=combo("a.safetensors", image_upload=True)
    )
    assert named(definitions, {"vae": ["a.safetensors"]}, **inputs) == []


@pytest.mark.parametrize(
    ("choices", "folder"),
    [
        pytest.param(["x.pt", "vae.pt"], "vae", id="all choices"),
        pytest.param(["None", "x.pt", "vae.pt"], "vae", id="all but one"),
        pytest.param(["x.pt", "vae.pt", "lora.pt", "lora2.pt"], "loras", id="most choices"),
        pytest.param(["x.pt"], "vae", id="the fewest others"),
        pytest.param([], "vae", id="choices that the server does not tell"),
    ],
)
def test_of_several_folders_it_is_the_one_that_fits_the_choices(choices: list[str], folder: str) -> None:
    listings = {"loras": ["lora.pt", "lora2.pt", "x.pt"], "vae": ["vae.pt", "x.pt"], "other": ["y.pt"]}
    assert named(defined(file=combo(*choices)), listings, file="x.pt") == [(folder, "x.pt")]


def test_of_folders_that_fit_alike_it_is_the_servers_first() -> None:
    listings = {"diffusion_models": ["x.pt"], "another_name_of_it": ["x.pt"]}
    assert named(defined(file=combo("x.pt")), listings, file="x.pt") == [("diffusion_models", "x.pt")]


@pytest.mark.parametrize("slash", ["/", "\\"], ids=["slash", "backslash"])
@pytest.mark.parametrize("written", ["/", "\\"], ids=["slash in the prompt", "backslash in the prompt"])
def test_names_in_subfolders(slash: str, written: str) -> None:
    """The name is the server's, whatever system the prompt comes from."""
    name = f"sub{slash}x.safetensors"
    listings = {"loras": ["x.safetensors", name], "vae": ["x.safetensors"]}
    definitions = defined(file=combo("x.safetensors", name))
    assert named(definitions, listings, file=f"sub{written}x.safetensors") == [("loras", name)]


@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: {"__value__": v}], ids=["plain", "wrapped"])
def test_several_choices_of_one_input(wrap: Callable[[Any], Any]) -> None:
    definitions = defined(files=new_combo("a.pt", "b.pt", "c.pt", multiselect=True))
    found = named(definitions, {"loras": ["a.pt", "b.pt", "c.pt"]}, files=wrap(["c.pt", "a.pt"]))
    assert found == [("loras", "a.pt"), ("loras", "c.pt")]


def test_each_model_is_named_once_for_all_prompts() -> None:
    prompts = [{"1": node("Load", file="b.pt"), "2": node("Load", file="b.pt")}, {"1": node("Load", file="a.pt")}]
    found = named_models(prompts, defined(file=combo("a.pt", "b.pt")), {"vae": ["a.pt", "b.pt"]})
    assert found == [ModelName("vae", "a.pt"), ModelName("vae", "b.pt")]


@pytest.mark.parametrize(
    "definition",
    [None, 5, {}, {"input": None}, {"input": {"required": []}}, {"input": {"required": {"file": []}}}]
    + [{"input": {"required": {"file": spec}}} for spec in (None, "COMBO", ["COMBO"], ["COMBO", None], [[]])],
    ids=str,
)
@pytest.mark.parametrize("prompt", [None, {"1": None}, {"1": {"class_type": "Load", "inputs": []}}, {}], ids=str)
def test_definitions_and_prompts_of_other_shapes_name_nothing(definition: Any, prompt: Any) -> None:
    assert named_models([prompt], {"Load": definition}, {"vae": ["a.pt"]}) == []


def test_many_nodes_with_long_lists_are_done_at_once() -> None:
    names = [f"folder/model {i}.safetensors" for i in range(5000)]
    prompt = {str(i): node("Load", file=names[i % 50]) for i in range(2000)}
    started = time.process_time()
    found = named_models([prompt], defined(file=combo(*names)), {"loras": names, "vae": names[:100]})
    assert len(found) == 50
    assert time.process_time() - started < 5


# -------------------------------------------------------------------------------------------------- packs and clones


def test_packs_are_those_of_the_definitions() -> None:
    modules = [
        "nodes",
        "comfy_extras.nodes_x",
        "custom_nodes.b",
        "custom_nodes.a.v2",
        "custom_nodes.b",
        "custom_nodes.",
    ]
    definitions: dict[str, Any] = {str(i): {"python_module": module} for i, module in enumerate(modules)}
    assert pack_names({**definitions, "odd": None, "none": {}, "number": {"python_module": 5}}) == ["a.v2", "b"]


def reference(folder: Path, name: str, text: str) -> None:
    write(folder / ".git" / name, text)


def make_detached(folder: Path) -> None:
    reference(folder, "HEAD", f"{COMMIT}\n")


def make_branch(folder: Path) -> None:
    reference(folder, "HEAD", "ref: refs/heads/feature/x\n")
    reference(folder, "refs/heads/feature/x", f"{COMMIT}\n")


def make_packed(folder: Path) -> None:
    reference(folder, "HEAD", "ref: refs/heads/main\n")
    lines = ["# pack-refs with: peeled fully-peeled sorted", f"{OTHER} refs/heads/main2", f"{COMMIT} refs/heads/main"]
    reference(folder, "packed-refs", "\n".join([*lines, f"^{OTHER}", ""]))


def make_both(folder: Path) -> None:
    """A loose reference is newer than a packed one."""
    make_packed(folder)
    reference(folder, "packed-refs", f"{OTHER} refs/heads/main\n")
    reference(folder, "refs/heads/main", f"{COMMIT}\n")


def make_symbolic(folder: Path) -> None:
    make_branch(folder)
    reference(folder, "HEAD", "ref: refs/heads/alias\n")
    reference(folder, "refs/heads/alias", "ref: refs/heads/feature/x\n")


def make_worktree(folder: Path) -> None:
    make_packed(folder.parent / "main")
    write(folder.parent / "main/.git/worktrees/w/HEAD", "ref: refs/heads/main\n")
    write(folder.parent / "main/.git/worktrees/w/commondir", "../..\n")
    write(folder / ".git", f"gitdir: {folder.parent}/main/.git/worktrees/w\n")


def make_submodule(folder: Path) -> None:
    write(folder.parent / ".git/modules/s/HEAD", f"{COMMIT}\n")
    write(folder / ".git", "gitdir: ../.git/modules/s\n")


CLONES = [make_detached, make_branch, make_packed, make_both, make_symbolic, make_worktree, make_submodule]


@pytest.mark.parametrize("make", CLONES, ids=lambda make: make.__name__)
def test_the_commit_of_a_clone(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "pack")
    assert commit_of(tmp_path / "pack") == COMMIT


def break_nothing_there(folder: Path) -> None:
    pass


def break_empty(folder: Path) -> None:
    (folder / ".git").mkdir(parents=True)


def break_unborn(folder: Path) -> None:
    reference(folder, "HEAD", "ref: refs/heads/main\n")


def break_circle(folder: Path) -> None:
    reference(folder, "HEAD", "ref: refs/heads/main\n")
    reference(folder, "refs/heads/main", "ref: refs/heads/main\n")


def break_outside(folder: Path) -> None:
    reference(folder, "HEAD", "ref: refs/../../outside\n")
    write(folder / "outside", COMMIT)


def break_binary(folder: Path) -> None:
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "HEAD").write_bytes(b"\xff\xfe\0" * 10)


def break_huge(folder: Path) -> None:
    reference(folder, "HEAD", COMMIT + " " * 1_000_000)


def break_gone(folder: Path) -> None:
    write(folder / ".git", "gitdir: /there/is/no/such/folder\n")


def break_null(folder: Path) -> None:
    write(folder / ".git", "gitdir: a\0b\n")


def break_other_file(folder: Path) -> None:
    write(folder / ".git", "hello")


def break_reftable(folder: Path) -> None:
    """The newer storage of references: what stands in HEAD is for programs that do not know it."""
    reference(folder, "HEAD", "ref: refs/heads/.invalid\n")


def break_pipe(folder: Path) -> None:
    (folder / ".git").mkdir(parents=True)
    os.mkfifo(folder / ".git" / "HEAD")


def break_unreadable(folder: Path) -> None:
    make_detached(folder)
    (folder / ".git").chmod(0)


BROKEN = [
    *(break_nothing_there, break_empty, break_unborn, break_circle, break_outside, break_binary, break_huge),
    *(break_gone, break_null, break_other_file, break_reftable),
    pytest.param(break_pipe, marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")),
    pytest.param(
        break_unreadable,
        marks=pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything"),
    ),
]


@pytest.mark.parametrize("make", BROKEN, ids=lambda make: make.__name__)
def test_no_commit_where_it_cannot_be_known(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "pack")
    try:
        assert commit_of(tmp_path / "pack") is None
    finally:
        if (tmp_path / "pack/.git").is_dir():
            (tmp_path / "pack/.git").chmod(0o700)


def test_a_folder_that_denies_a_look_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an unreadable folder does to whoever is not root."""
    make_detached(tmp_path / "pack")

    def deny(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError("no")

    for name in ("is_dir", "is_file", "stat", "open"):
        monkeypatch.setattr(Path, name, deny)
    assert commit_of(tmp_path / "pack") is None
    assert version_of(tmp_path / "pack") is None


@pytest.fixture
def git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """``git(folder, word, ...)`` runs git without anybody's configuration, and returns what it printed."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")

    def run(folder: Path, *words: str) -> str:
        command = ["git", "-c", "user.name=x", "-c", "user.email=x", "-c", "protocol.file.allow=always", *words]
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()

    return run


def test_real_clones_worktrees_and_submodules(git: Callable[..., str], tmp_path: Path) -> None:
    main = tmp_path / "main"
    main.mkdir()
    git(main, "init", "--quiet")
    git(main, "commit", "--quiet", "--allow-empty", "-m", "one")
    commit = git(main, "rev-parse", "HEAD")
    assert commit_of(main) == commit
    git(main, "pack-refs", "--all")
    assert commit_of(main) == commit
    git(main, "worktree", "add", "--quiet", "-b", "side", "../tree")
    git(tmp_path / "tree", "commit", "--quiet", "--allow-empty", "-m", "two")
    assert commit_of(tmp_path / "tree") == git(tmp_path / "tree", "rev-parse", "HEAD") != commit
    git(main, "submodule", "--quiet", "add", str(main), "inner")
    assert commit_of(main / "inner") == commit
    git(main, "checkout", "--quiet", "--detach")
    assert commit_of(main) == commit


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('[project]\nname = "x"\nversion = "1.2.3"\n', "1.2.3"),
        ('[tool.other]\nversion = "9"\n[project]\nversion = "1" # "2"\n', "1"),
        ('[project]\ndynamic = ["version"]\n', None),
        ("[project]\nversion = 3\n", None),
        ("project = 3\n", None),
        ("[project\n", None),
        ("a = " + "[" * 100_000, None),
        ("#" * 2_000_000, None),
        ("", None),
    ],
    ids=["simple", "among others", "dynamic", "a number", "no table", "damaged", "deep", "huge", "empty"],
)
def test_the_version_of_a_pack(text: str, version: str | None, tmp_path: Path) -> None:
    pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    write(tmp_path / "pyproject.toml", text)
    assert version_of(tmp_path) == version
    assert version_of(tmp_path / "elsewhere") is None


def test_no_version_where_toml_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.10 has no tomllib."""
    write(tmp_path / "pyproject.toml", '[project]\nversion = "1"\n')
    for name in ("tomllib", "tomli"):
        monkeypatch.setitem(sys.modules, name, None)
    assert version_of(tmp_path) is None


def test_a_pack_of_which_there_are_two_is_not_described(tmp_path: Path) -> None:
    roots = [tmp_path / "a", tmp_path / "b", tmp_path / "link"]
    for root in roots[:2]:
        make_detached(root / "pack")
    roots[2].symlink_to(roots[0])
    assert environment._describe_pack("pack", roots[::2], is_own=False)["commit"] == COMMIT
    assert environment._describe_pack("pack", roots, is_own=False) == {}
    assert environment._describe_pack("other", roots, is_own=False) == {}


# --------------------------------------------------------------------------------------------- version of the frontend


def choice_of(*command: str, working_directory: Path = Path("/")) -> ServerChoice:
    return ServerChoice("comfyui", Path("/"), command, (), working_directory, "")


def install(site: Path, version: str) -> None:
    """A package as pip leaves it."""
    folder = site / f"comfyui_frontend_package-{version}.dist-info"
    write(folder / "METADATA", f"Metadata-Version: 2.1\nName: comfyui_frontend_package\nVersion: {version}\n")


PACKAGES = [{"name": "comfy-aimdo", "installed": "9"}, {"name": "comfyui-frontend-package", "installed": "1.4"}, None]
NEW = {"comfy_package_versions": PACKAGES, "required_frontend_version": "1.3"}


@pytest.mark.parametrize(
    ("system", "version"),
    [
        pytest.param(NEW, "1.4", id="what is installed"),
        pytest.param({"required_frontend_version": "1.3"}, None, id="only what is required"),
        pytest.param({"required_frontend_version": "1.3", "discomfort_embedded": True}, "1.3", id="embedded"),
        pytest.param({**NEW, "argv": ["main.py", "--front-end-root", "/x"]}, None, id="a folder"),
        pytest.param({**NEW, "argv": ["main.py", "--front-end-root=/x"]}, None, id="a folder, in one word"),
        pytest.param(
            {**NEW, "argv": ["--front-end-version", "Comfy-Org/ComfyUI_frontend@v1.2.5"]}, "1.2.5", id="exact"
        ),
        pytest.param({**NEW, "argv": ["--front-end-version", "me/mine@latest"]}, None, id="latest of another"),
        pytest.param({**NEW, "argv": ["--front-end-version", "comfyanonymous/ComfyUI@latest"]}, "1.4", id="default"),
        pytest.param({**NEW, "argv": ["--front-end-version"]}, None, id="no value"),
        pytest.param({"argv": 5, "comfy_package_versions": "?"}, None, id="other shapes"),
        pytest.param({}, None, id="nothing"),
    ],
)
def test_the_version_of_the_frontend(system: dict[str, Any], version: str | None) -> None:
    assert environment._frontend_version(system, None) == version


def test_the_frontend_of_the_python_that_was_started(tmp_path: Path) -> None:
    site = tmp_path / "venv/lib/python3.12/site-packages"
    write(tmp_path / "venv/bin/python", "").chmod(0o700)
    install(site, "1.27.10")
    find = environment._version_in_python_of
    package = "comfyui-frontend-package"
    assert find(choice_of(str(tmp_path / "venv/bin/python"), "main.py"), package) == "1.27.10"
    assert find(choice_of("venv/bin/python", "main.py", working_directory=tmp_path), package) == "1.27.10"
    assert find(choice_of(sys.executable, "main.py"), "pytest") == importlib.metadata.version("pytest")
    assert find(choice_of("conda", "run", "python", "main.py"), package) is None
    assert find(choice_of("no-such-python", "main.py"), package) is None
    assert find(choice_of(str(tmp_path / "elsewhere/python"), "main.py"), package) is None
    install(tmp_path / "venv/lib/python3.13/site-packages", "1.2")
    assert find(choice_of(str(tmp_path / "venv/bin/python"), "main.py"), package) is None


# ------------------------------------------------------------------------------------------------------- whole servers

PACK = """
import folder_paths


class EnvTestLoad:
    CATEGORY = "tests"
    RETURN_TYPES = ()
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls):
        names = folder_paths.get_filename_list("vae")
        return {
            "required": {"vae": (["none", *names],), "how": (["fast", "slow"],)},
            "optional": {"lora": ("COMBO", {"options": folder_paths.get_filename_list("loras")})},
        }

    def load(self, **inputs):
        return ()


NODE_CLASS_MAPPINGS = {NAME: EnvTestLoad}
"""


class Server(SimpleNamespace):
    """A server with packs and models of its own: ``connector``, ``folder`` and ``is_embedded``."""

    connector: ComfyConnector
    folder: Path
    is_embedded: bool


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["embedded", pytest.param("comfyui", marks=pytest.mark.real_comfyui)]
)
async def server(
    request: pytest.FixtureRequest, write_config: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    """The embedded server, or ComfyUI, with a command line that holds a secret."""
    path = "embedded"
    if request.param == "comfyui":
        path = os.environ.get("COMFYUI_PATH", "")
        if path in ("", "embedded"):
            pytest.skip("COMFYUI_PATH names no ComfyUI")
    folder = tmp_path_factory.mktemp("environment") / SECRET
    pack = folder / "packs" / "env.test-pack"
    write(pack / "__init__.py", PACK.replace("NAME", '"EnvTestLoad"'))
    write(pack / "pyproject.toml", '[project]\nname = "env-test-pack"\nversion = "1.2.3"\n')
    make_packed(pack)
    write(folder / "packs" / "env_single.py", PACK.replace("NAME", '"EnvTestSingle"'))
    write(folder / "models/vae/one.safetensors", "vae one")
    write(folder / "models/vae/sub/two.safetensors", "vae two")
    write(folder / "models/loras/one.safetensors", "lora one")
    places = {
        "packs": {"base_path": str(folder), "custom_nodes": "packs"},
        "models": {"base_path": str(folder / "models"), "vae": "vae", "loras": "loras"},
    }
    write(folder / "packs.yaml", json.dumps(places))
    command = f"python3 main.py --extra-model-paths-config '{folder / 'packs.yaml'}'"
    connector = await ComfyConnector.create(write_config(COMFYUI_PATH=path, API_COMMAND_LINE=command, DEVICE="cpu"))
    try:
        yield Server(connector=connector, folder=folder, is_embedded=path == "embedded")
    finally:
        await connector.kill_api()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder for this test alone; where it remembers hashes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return hashes_file()


def remembered(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())["files"] if file.exists() else {}


@pytest.mark.asyncio(loop_scope="module")
async def test_the_environment_of_a_server(server: Server) -> None:
    system = (await server.connector.system_stats())["system"]
    found = await describe_environment(server.connector)
    assert found["comfyui"] == system["comfyui_version"]
    assert found["python"] == system["python_version"].split()[0]
    assert found["pytorch"] == system["pytorch_version"]
    assert found["os"] == system["os"]
    assert found["discomfort"] == discomfort.__version__
    assert found["protocol"] == PROTOCOL_VERSION
    assert found["embedded"] is server.is_embedded
    (device,) = found["device"]
    assert device == {"name": device["name"], "type": "cpu", "vram_total": device["vram_total"]}
    assert device["vram_total"] > 0
    assert found["orchestrator"] == {
        "python": platform.python_version(),
        "pytorch": importlib.metadata.version("torch"),
    }
    assert found.get("discomfort_commit") == commit_of(HERE)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.asyncio(loop_scope="module")
async def test_the_frontend_that_is_served(server: Server, real_or_own_python: str) -> None:
    """By the word of the server's own Python."""
    code = "import importlib.metadata as m; print(m.version('comfyui-frontend-package'))"
    asked = subprocess.run([real_or_own_python, "-c", code], check=True, capture_output=True, text=True)  # noqa: ASYNC221
    assert (await describe_environment(server.connector))["frontend"] == asked.stdout.strip()


@pytest.fixture
def real_or_own_python(server: Server) -> str:
    choice = server.connector._choice
    assert choice is not None
    return choice.command[0]


@pytest.mark.asyncio(loop_scope="module")
async def test_packs_with_their_versions_and_commits(server: Server) -> None:
    """Of a pack in a folder that the command line names, and of this package, which the server has by a link or as a
    part of itself. Of a single file nothing is known.
    """
    pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    packs = (await describe_environment(server.connector))["packs"]
    assert packs["env.test-pack"] == {"version": "1.2.3", "commit": COMMIT}
    commit = commit_of(HERE)
    assert packs["discomfort"] == {"version": discomfort.__version__, **({"commit": commit} if commit else {})}
    assert packs["env_single"] == {}
    assert packs["websocket_image_save"] == {}


@pytest.mark.asyncio(loop_scope="module")
async def test_the_command_line_is_not_recorded(server: Server) -> None:
    assert SECRET in str((await server.connector.system_stats())["system"]["argv"])
    recorded = [
        await describe_environment(server.connector),
        await describe_models(server.connector, [load("one.safetensors")]),
    ]
    assert SECRET not in json.dumps(recorded)
    assert str(server.folder.parent) not in json.dumps(recorded)


def load(vae: str, **inputs: Any) -> dict[str, Any]:
    """A prompt that names models."""
    return {"1": node("EnvTestLoad", vae=vae, how="fast", **inputs)}


ONE = {"folder": "vae", "name": "one.safetensors", "size": 7, "modified": LONG_AGO}
TWO = {"folder": "vae", "name": os.path.join("sub", "two.safetensors"), "size": 7, "modified": LONG_AGO}
LORA = {"folder": "loras", "name": "one.safetensors", "size": 8, "modified": LONG_AGO}


@pytest.mark.asyncio(loop_scope="module")
async def test_models_that_prompts_name(server: Server, own_cache: Path) -> None:
    """Two folders have a file of one name: it is told by the choices which one is meant."""
    connector = server.connector
    assert await describe_models(connector, [load("one.safetensors")]) == [ONE]
    prompts = (load(name, lora="one.safetensors") for name in ("none", TWO["name"], "one.safetensors"))
    assert await describe_models(connector, prompts) == [LORA, ONE, TWO]
    assert await describe_models(connector, [load("none")]) == []
    assert await describe_models(connector, []) == []
    assert remembered(own_cache) == {}


@pytest.mark.asyncio(loop_scope="module")
async def test_a_model_that_came_after_the_definitions(server: Server) -> None:
    """They are asked for once for each start of the server."""
    await server.connector.node_definitions()
    write(server.folder / "models/vae/new.safetensors", "a new one")
    (found,) = await describe_models(server.connector, [load("new.safetensors")])
    assert found == {"folder": "vae", "name": "new.safetensors", "size": 9, "modified": LONG_AGO}


@pytest.mark.asyncio(loop_scope="module")
async def test_the_server_says_the_same_of_a_model_as_the_file(server: Server) -> None:
    """So it does not matter which of the two is asked."""
    details = await environment._list_details(server.connector, "vae")
    assert details[ONE["name"]] == {"size": ONE["size"], "modified": ONE["modified"]}
    assert details[TWO["name"]] == {"size": TWO["size"], "modified": TWO["modified"]}


@pytest.mark.asyncio(loop_scope="module")
async def test_hashes_of_models(server: Server, own_cache: Path) -> None:
    found = await describe_models(server.connector, [load("one.safetensors", lora="one.safetensors")], with_hashes=True)
    assert found == [{**LORA, "sha256": SHA256["lora one"]}, {**ONE, "sha256": SHA256["vae one"]}]
    path = str(server.folder / "models/vae/one.safetensors")
    assert remembered(own_cache)[path][2] == SHA256["vae one"]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "null", '{"version": 9}', '{"version": 1, "files": [1]}', "[" * 100_000], ids=range(7)
)
async def test_a_damaged_cache_of_hashes_is_made_anew(server: Server, own_cache: Path, damage: str) -> None:
    write(own_cache, damage)
    found = await describe_models(server.connector, [load("one.safetensors")], with_hashes=True)
    assert found == [{**ONE, "sha256": SHA256["vae one"]}]
    assert len(remembered(own_cache)) == 1
    assert os.listdir(own_cache.parent) == [own_cache.name]


# --------------------------------------------------------------------------------------------------------------- hashes


def local(path: Path) -> environment._LocalFile:
    info = path.stat()
    return environment._LocalFile(str(path), info.st_size, info.st_mtime_ns, info.st_mtime)


def hashes(*paths: Path) -> dict[str, str]:
    return environment._hash_all(map(local, paths), lambda: False)


def test_a_hash_is_remembered_until_the_file_changes(tmp_path: Path, own_cache: Path) -> None:
    file = write(tmp_path / "a", "vae one")
    assert hashes(file) == {str(file): SHA256["vae one"]}
    # What is remembered is believed: another content of the same size and time is not looked at.
    write(file, "vae 2ne")
    assert hashes(file) == {str(file): SHA256["vae one"]}
    write(file, "vae two", LONG_AGO + 1)
    assert hashes(file) == {str(file): SHA256["vae two"]}
    assert remembered(own_cache) == {str(file): [7, 1_700_000_001_250_000_000, SHA256["vae two"]]}


def test_a_file_that_was_changed_just_now_is_not_remembered(tmp_path: Path, own_cache: Path) -> None:
    """Another change may leave its size and time as they are."""
    file = write(tmp_path / "a", "vae one", modified=None)
    assert hashes(file) == {str(file): SHA256["vae one"]}
    assert remembered(own_cache) == {}


@pytest.mark.parametrize(
    "entry",
    [None, 5, [], [7, 1], [7, 1, 5], ["7", 1, "0" * 64], [7, 1, "nonsense"], {"size": 7}],
    ids=str,
)
def test_damaged_entries_are_left_out_and_others_kept(tmp_path: Path, own_cache: Path, entry: Any) -> None:
    file, other = write(tmp_path / "a", "vae one"), write(tmp_path / "b", "vae two")
    hashes(other)
    stored = json.loads(own_cache.read_text())
    stored["files"][str(file)] = entry
    own_cache.write_text(json.dumps(stored))
    assert hashes(file, other) == {str(file): SHA256["vae one"], str(other): SHA256["vae two"]}
    assert remembered(own_cache).keys() == {str(file), str(other)}


def test_a_file_that_is_gone_or_another_one_has_no_hash(tmp_path: Path, own_cache: Path) -> None:
    gone, changed, good = (write(tmp_path / name, "vae one") for name in ("gone", "changed", "good"))
    seen = [local(gone), local(changed), local(good)]
    gone.unlink()
    write(changed, "vae one", LONG_AGO + 1)
    assert environment._hash_all(seen, lambda: False) == {str(good): SHA256["vae one"]}
    assert remembered(own_cache).keys() == {str(good)}


def test_without_a_cache_folder_there_are_hashes_all_the_same(tmp_path: Path, own_cache: Path) -> None:
    write(own_cache.parent.parent, "a file where the folder should be")
    file = write(tmp_path / "a", "vae one")
    assert hashes(file) == {str(file): SHA256["vae one"]}


async def test_hashing_ends_when_it_is_cancelled(tmp_path: Path, own_cache: Path, wait_for: Any) -> None:
    """What was finished is remembered."""
    small, large = write(tmp_path / "a", "vae one"), tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(1 << 40)  # takes no room, and an hour to be read
    task = asyncio.create_task(environment._hash_files([local(small), local(large)]))
    await asyncio.to_thread(wait_for, own_cache.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # The thread is free again for others: all of them are.
    await asyncio.wait_for(asyncio.get_running_loop().shutdown_default_executor(), 20)
    assert remembered(own_cache).keys() == {str(small)}


# --------------------------------------------------------------------------------------------------------- odd servers

DEFINITIONS = {
    "Load": {"input": {"required": {"file": [["a.pt", "b.gguf"]]}}, "python_module": "custom_nodes.pack"},
    "Echo": {"input": {"required": {"value": ["STRING", {}]}}, "python_module": "nodes"},
}


def lies(tree: Any, **answers: Any) -> None:
    """Let the scripted server answer these paths, "__" for "/", with these values; the first that fits is taken."""
    tree.behave(lie={f"/{path.replace('__', '/')}": json.dumps(answer) for path, answer in answers.items()})


async def test_a_server_without_the_routes(start: Any, fake_tree: Any) -> None:
    """An old one, or one that is something else: what it does not tell is left out."""
    connector = await start()
    found = await describe_environment(connector)
    assert found["comfyui"] == "0.0.fake"
    assert found["packs"] == {}
    assert found["device"] == []
    assert "python" not in found
    assert "frontend" not in found or found["frontend"]
    lies(fake_tree, object_info=DEFINITIONS)
    connector._frontend = None
    assert await describe_models(connector, [{"1": node("Load", file="a.pt")}], with_hashes=True) == []
    assert fake_tree.requests("/experiment/models") == ["GET /experiment/models"]
    # Where no prompt names a file, nothing is asked.
    assert await describe_models(connector, [{"1": node("Echo", value="a.pt")}]) == []
    assert fake_tree.requests("/experiment/models") == ["GET /experiment/models"]


async def test_packs_of_a_server_that_does_not_tell_its_folders(start: Any, fake_tree: Any) -> None:
    make_detached(fake_tree.path / "custom_nodes" / "pack")
    lies(fake_tree, object_info=DEFINITIONS)
    assert (await describe_environment(await start()))["packs"] == {"pack": {"commit": COMMIT}}


async def test_what_cannot_be_seen_here_is_asked_for(start: Any, fake_tree: Any, tmp_path: Path) -> None:
    """Only the folders that matter are listed; ComfyUI lists no files of endings that only packs know."""
    write(tmp_path / "b.gguf", "vae one")
    folders = [{"name": name, "folders": ["/no/such/folder", str(tmp_path)]} for name in ("vae", "odd/name", "loras")]
    listing = [{"name": "a.pt", "pathIndex": 0, "size": 5, "modified": 1.5, "created": 0}, {"name": "a.pt", "size": 6}]
    lies(
        fake_tree,
        object_info=DEFINITIONS,
        models__odd=["a.pt", "b.gguf"],
        models__vae=["other.pt"],
        experiment__models__odd=[None, {"name": 5}, *listing],
        experiment__models=folders,
    )
    connector = await start()
    prompts = [{"1": node("Load", file="a.pt"), "2": node("Load", file="b.gguf")}]
    a = {"folder": "odd/name", "name": "a.pt", "size": 5, "modified": 1.5}
    b = {"folder": "odd/name", "name": "b.gguf", "size": 7, "modified": LONG_AGO}
    assert await describe_models(connector, prompts) == [a, b]
    assert len(fake_tree.requests("/experiment/models/")) == 1
    assert await describe_models(connector, prompts, with_hashes=True) == [a, {**b, "sha256": SHA256["vae one"]}]


async def test_answers_of_other_shapes(start: Any, fake_tree: Any) -> None:
    lies(fake_tree, object_info=DEFINITIONS)
    connector = await start()
    await connector.node_definitions()  # kept from here on
    for odd in (5, [], {}, None, [5], [{"name": "vae"}], [{"name": [], "folders": 5}]):
        lies(fake_tree, internal=odd, experiment=odd, models=odd)
        assert (await describe_environment(connector))["packs"] == {"pack": {}}
        assert await describe_models(connector, [{"1": node("Load", file="a.pt")}]) == []
        for stats in (odd, {"system": odd}, {"system": {"argv": odd, "python_version": odd}, "devices": odd}):
            lies(fake_tree, system_stats=stats)
            found = await describe_environment(connector)
            assert found["discomfort"] == discomfort.__version__
            assert "python" not in found
    fake_tree.behave()


async def test_what_the_server_refuses_is_left_out(start: Any, fake_tree: Any) -> None:
    connector = await start()
    fake_tree.behave(fail={"/system_stats": [500, 9], "/object_info": [500, 9]})
    found = await describe_environment(connector)
    assert found["orchestrator"]["python"] == platform.python_version()
    assert not found.keys() & {"comfyui", "packs", "device", "embedded"}
    assert await describe_models(connector, [{"1": node("Load", file="a.pt")}]) == []


class Running(SimpleNamespace):
    """A server that somebody else started: ``address`` and ``process``."""

    address: str
    process: subprocess.Popen[bytes]


@pytest.fixture
def running(fake_tree: Any, first_port: int, wait_for: Any) -> Iterator[Running]:
    """The scripted server, started as somebody else would."""
    port = next(port for port in range(first_port + 60, first_port + 90) if cs.port_is_free("127.0.0.1", port))
    command = [sys.executable, "main.py", "--port", str(port)]
    process = subprocess.Popen(command, cwd=fake_tree.path, stdout=subprocess.DEVNULL)
    wait_for(lambda: not cs.port_is_free("127.0.0.1", port), 30, "the server")
    yield Running(address=f"http://127.0.0.1:{port}", process=process)
    process.kill()
    process.wait()


async def test_the_word_of_a_server_known_by_address_counts(
    start: Any, fake_tree: Any, running: Running, tmp_path: Path, own_cache: Path
) -> None:
    """It may be a container's, whose paths are others than ours: a file that is not as it says is not its file."""
    for name in ("a.pt", "b.gguf"):
        write(tmp_path / name, "vae one")
    same = {"size": 7, "modified": LONG_AGO}
    lies(
        fake_tree,
        object_info=DEFINITIONS,
        models__vae=["a.pt", "b.gguf"],
        experiment__models__vae=[{"name": "a.pt", **same}, {"name": "b.gguf", "size": 8, "modified": LONG_AGO}],
        experiment__models=[{"name": "vae", "folders": [str(tmp_path)]}],
    )
    connector = await start(API_URL=running.address)
    assert connector.is_attached
    prompts = [{"1": node("Load", file="a.pt"), "2": node("Load", file="b.gguf")}]
    assert await describe_models(connector, prompts, with_hashes=True) == [
        {"folder": "vae", "name": "a.pt", **same, "sha256": SHA256["vae one"]},
        {"folder": "vae", "name": "b.gguf", "size": 8, "modified": LONG_AGO},
    ]
    found = await describe_environment(connector)
    assert found["packs"] == {"pack": {}}
    assert "frontend" not in found


async def name_a_model(connector: ComfyConnector) -> Any:
    return await describe_models(connector, [{"1": node("Load", file="a.pt")}])


@pytest.mark.parametrize("describe", [describe_environment, name_a_model], ids=["environment", "models"])
async def test_a_dead_server_is_told(start: Any, fake_tree: Any, running: Running, describe: Any) -> None:
    lies(fake_tree, object_info=DEFINITIONS)
    connector = await start(API_URL=running.address)
    await describe(connector)
    running.process.kill()
    running.process.wait()
    with pytest.raises(ServerDiedError):
        await describe(connector)


async def test_a_connector_that_was_shut_down_is_told(start: Any) -> None:
    connector = await start()
    await connector.kill_api()
    with pytest.raises(ConnectorError, match="shut down"):
        await describe_environment(connector)
    with pytest.raises(ConnectorError, match="shut down"):
        await describe_models(connector, [])


def test_importing_it_loads_neither_torch_nor_playwright() -> None:
    code = "import sys, discomfort.durable.environment; print({'torch', 'playwright', 'yaml'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=HERE.parent)
    assert ended.stdout.strip() == "set()"
