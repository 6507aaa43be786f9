"""The server: its configuration, which one would be started, and whether its Python has all it needs."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import requirements
from .checkup import (
    PACKAGE,
    Command,
    Machine,
    Result,
    broken,
    command,
    ok,
    one_line,
    setting,
    unsetting,
    warning,
    worst,
)
from .programs import ask

if TYPE_CHECKING:
    from ...comfy_serverless import ServerChoice

#: as requires-comfyui in pyproject.toml, which an installed package does not have
OLDEST_COMFYUI = "0.3.64"

# What ComfyUI imports at its start and what is imported quickly: that these are installed may not be enough.
_QUICK_IMPORTS = {"aiohttp", "einops", "numpy", "pillow", "psutil", "pyyaml", "safetensors", "tqdm", "yarl"}

_PLAIN_VARIABLES = ("DISCOMFORT_OBSERVE", "XDG_CACHE_HOME", "XDG_DATA_HOME", "PYTHONPATH")
# Their values are nobody's business.
_SECRET_VARIABLES = ("DISCOMFORT_API_TOKEN", "DISCOMFORT_ALLOWED_ENDPOINTS")


# ---- configuration ----


def look_at_configuration(machine: Machine) -> Result:
    from ... import workflow_context
    from ...comfy_serverless import HERE, ConfigError, ConnectorConfig

    file = machine.config_path or HERE / "comfy_serverless.json"
    try:
        machine.config = ConnectorConfig.load(machine.config_path)
        _ = machine.config.token  # one in the environment that cannot be sent is an error, too
    except ConfigError as error:
        return broken(str(error), f"Correct {file}. docs/reference/configuration.md has every key.")
    own = PACKAGE / "workflow_context.json"
    try:
        workflow_context.load_config()
    except ValueError as error:
        return broken(str(error), f"Correct {own}. docs/reference/configuration.md has every key.")
    is_there = file.is_file()
    return ok(f"{file}, and {own.name} beside the code" if is_there else "the defaults")


def look_at_environment(machine: Machine) -> Result:
    found, lost = [], []
    for name, problem in _VARIABLES.items():
        value = os.environ.get(name)
        if value is None:
            continue
        text = problem(value)
        found.append(f"{name}={value}" + (f" ({text})" if text else ""))
        if text:
            lost.append(name)
    found += [f"{name}={value}" for name in _PLAIN_VARIABLES if (value := os.environ.get(name)) is not None]
    found += [f"{name} is set" for name in _SECRET_VARIABLES if os.environ.get(name)]
    shown = ", ".join(found) or "none of Discomfort's is set"
    if not lost:
        return ok(shown)
    return warning(shown, "Name what exists, or take the variable away:", *map(unsetting, lost))


def _no_folder(value: str) -> str:
    return "" if Path(value).expanduser().is_dir() else "no such folder"


_VARIABLES: dict[str, Callable[[str], str]] = {
    "COMFYUI_PATH": lambda value: "" if value in ("", "embedded") else _no_folder(value),
    "COMFYUI_PYTHON": lambda value: (
        "" if not value or shutil.which(os.path.expanduser(value)) else "no program that can be run"
    ),
    "DISCOMFORT_BROWSER": lambda value: "" if not value or os.path.isfile(value) else "no such file",
    "DISCOMFORT_RAM_ROOT": lambda value: "" if value.strip().lower() in ("", "none") else _no_folder(value),
    "DISCOMFORT_DISK_ROOT": lambda value: "" if not value else _no_folder(value),
    # Python takes another folder without a word where this one is not there.
    "TMPDIR": lambda value: "" if not value else _no_folder(value),
}


# ---- which server ----


def look_at_comfyui(machine: Machine) -> Result:
    from ...comfy_serverless import ConfigError, ServerNotFoundError, choose_server

    if machine.config.attached_url:
        return _look_at_running_server(machine)
    try:
        choice = machine.choice = choose_server(machine.config)
    except ServerNotFoundError as error:
        return _no_server(str(error))
    except ConfigError as error:
        return broken(str(error))
    machine.server_python = _python_of(choice)
    if choice.kind == "embedded":
        machine.versions["comfyui"] = "embedded"
        return ok(f"Discomfort's embedded server, without models ({choice.reason})")
    version = _comfyui_version(choice.path)
    machine.versions["comfyui"] = version
    found = f"{version or 'of an unknown version'} in {choice.path} ({choice.reason})"
    update = [
        "Update ComfyUI, and what it needs:",
        command("git", "-C", choice.path, "pull"),
        command(*(machine.server_python or ["python"]), "-m", "pip", "install", "-r", choice.path / "requirements.txt"),
    ]
    if version is None:
        return warning(
            f"{found}: it has no comfyui_version.py, as before 0.3.10; Discomfort needs {OLDEST_COMFYUI}", *update
        )
    if requirements.is_older(version, OLDEST_COMFYUI):
        return broken(f"{found}: too old, Discomfort needs {OLDEST_COMFYUI} or newer", *update)
    return ok(found)


def _no_server(message: str) -> Result:
    """The message without its advice, which is given here as commands."""
    found = re.split(r" Set (?:it|COMFYUI_PATH) to ", message)[0]
    advice = ["Name your ComfyUI, the folder with main.py:", setting("COMFYUI_PATH", "/path/to/ComfyUI")]
    if "PyTorch" in found:
        install = command(sys.executable, "-m", "pip", "install", *map(str, requirements.of_embedded_server()))
        advice += ["Or install what the embedded server needs, which has no models:", install]
    else:
        advice += ["Or use the embedded server, which has no models:", setting("COMFYUI_PATH", "embedded")]
    return broken(found, *advice)


def _python_of(choice: ServerChoice) -> list[str]:
    """How the interpreter of a server is called: what stands before its script. Empty where no script is named."""
    return list(choice.command[:-1])


def _comfyui_version(tree: Path) -> str | None:
    try:
        text = (tree / "comfyui_version.py").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"""^__version__\s*=\s*["']([^"']+)["']""", text, re.MULTILINE)
    return found[1] if found else None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A token is for the server that was named, not for where that sends."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _look_at_running_server(machine: Machine) -> Result:
    url, token = machine.config.attached_url, machine.config.token
    # As Discomfort itself: no proxy, whatever the environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())
    request = urllib.request.Request(  # noqa: S310 - http or https, see read_api_url
        f"{url}/system_stats", headers={"Authorization": f"Bearer {token}"} if token else {}
    )
    start = "Start that server, or leave the port out of API_URL: Discomfort then starts one of its own."
    try:
        with opener.open(request, timeout=10) as response:
            stats = json.loads(response.read(1_000_000))
        version = str(stats["system"].get("comfyui_version") or "of an unknown version")
    except urllib.error.HTTPError as error:
        error.close()
        advice = "It wants a token: set API_TOKEN or DISCOMFORT_API_TOKEN." if error.code in (401, 403) else start
        return broken(f"{url}, which API_URL names, answers with status {error.code}", advice)
    except OSError as error:
        return broken(f"{url}, which API_URL names, does not answer: {getattr(error, 'reason', error)}", start)
    except (ValueError, KeyError, TypeError, AttributeError):
        return broken(f"{url}, which API_URL names, is no ComfyUI", start)
    machine.versions["comfyui"] = version
    return ok(f"{version}, runs at {url}, which API_URL names")


# ---- the server's Python ----


def look_at_server_python(machine: Machine) -> Result:
    choice = machine.need_choice()
    python = machine.need_server_python()
    wanted = [*_wanted(choice), *requirements.of_nodes()]
    names = sorted({requirement.name for requirement in wanted} | {"torch", "comfyui-frontend-package"})
    try:
        answer = ask(python, {"versions": names}, 30)
    except OSError as error:
        return broken(f"{python[0]} cannot be started: {error.strerror or error}", *_renewal(choice, python))
    if not answer.is_complete:
        return broken(f"{' '.join(python)} {answer.ended.describe()}", *_renewal(choice, python))
    machine.server_versions = answer.facts["versions"]
    version = str(answer.facts["python"])
    found = f"{version} ({answer.facts['executable'] or python[0]})"
    if requirements.is_older(version, "3.10"):
        return broken(f"{found}: Discomfort's nodes need Python 3.10 or newer", *_renewal(choice, python))
    return ok(found + (", this one" if _is_this_python(python) else ""))


def _is_this_python(python: list[str]) -> bool:
    """By its path as written: the interpreters of two environments may be links to one file."""
    return len(python) == 1 and os.path.abspath(shutil.which(python[0]) or python[0]) == os.path.abspath(sys.executable)


def _renewal(choice: ServerChoice, python: list[str]) -> list[str]:
    """How the environment of a tree is made again; how another interpreter is named."""
    folder = next((choice.path / name for name in ("venv", ".venv") if str(choice.path / name) in python[0]), None)
    if folder is None:
        return ["Name a Python that works:", setting("COMFYUI_PYTHON", "/path/to/python")]
    program = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    install = [str(program), "-m", "pip", "install"]
    return [
        "Make ComfyUI's environment again (PyTorch for your GPU first, as ComfyUI's own guide says):",
        command(sys.executable, "-m", "venv", "--clear", folder),
        command(*install, "-r", choice.path / "requirements.txt", *_nodes_option()),
    ]


def _nodes_option() -> list[str]:
    """What has pip install what our nodes need."""
    file = PACKAGE / "requirements.txt"
    return ["-r", str(file)] if file.is_file() else [str(requirement) for requirement in requirements.of_nodes()]


def _wanted(choice: ServerChoice) -> list[requirements.Requirement]:
    """What the server itself needs."""
    if choice.kind == "embedded":
        return requirements.of_embedded_server()
    return [*_essential(choice.path), *_optional(choice.path)]


def _parts_of_requirements(tree: Path) -> tuple[str, str]:
    """ComfyUI's requirements, split at its own comment about those that it can do without."""
    try:
        text = (tree / "requirements.txt").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", ""
    first, *rest = re.split(r"(?mi)^#\s*non[ -]essential.*$", text, maxsplit=1)
    return first, "".join(rest)


def _essential(tree: Path) -> list[requirements.Requirement]:
    return requirements.parse_all(_parts_of_requirements(tree)[0].splitlines())


def _optional(tree: Path) -> list[requirements.Requirement]:
    return requirements.parse_all(_parts_of_requirements(tree)[1].splitlines())


def look_at_server_packages(machine: Machine) -> Result:
    choice = machine.need_choice()
    python = machine.need_server_python()
    if choice.kind == "embedded":
        # PyTorch and the editor have checks of their own; the rest is for single nodes.
        essential: list[requirements.Requirement] = []
        optional = [r for r in requirements.of_embedded_server() if r.name not in ("torch", "comfyui-frontend-package")]
    else:
        essential, optional = _essential(choice.path), _optional(choice.path)
        if not essential:
            return warning(f"{choice.path / 'requirements.txt'} is not there, so nobody knows what it needs")
    # The editor has a check of its own.
    essential = [r for r in essential if r.name != "comfyui-frontend-package"]
    versions = machine.server_versions
    missing, others = requirements.compare(essential, versions)
    spared, other_spared = requirements.compare(optional, versions)
    modules = {r.module: r for r in essential if r not in missing and r.name.lower() in _QUICK_IMPORTS}
    answer = ask(python, {"imports": list(modules)})
    damaged = {
        modules[module]: one_line(error, 200) for module, error in answer.imports.items() if error and module in modules
    }
    install = [*python, "-m", "pip", "install"]
    if choice.kind == "comfyui":
        advice = command(*install, "-r", choice.path / "requirements.txt")
    else:
        advice = command(*install, *map(str, [r for r in optional if r in spared or not _is_met(r, versions)]))
    names = _listed(missing)
    if missing or damaged:
        problems = [f"missing: {names}"] if missing else []
        problems += [f"{r.name} cannot be imported ({error})" for r, error in damaged.items()]
        repair = command(*install, "--force-reinstall", *map(str, damaged)) if damaged else None
        lines = [line for line in (repair, advice if missing else None) if line]
        return broken("; ".join(problems), "Install them into the server's Python:", *lines)
    problems = [*others, *other_spared]
    if spared:
        problems.append(f"missing, but needed by single nodes only: {_listed(spared)}")
    if problems:
        return warning("; ".join(problems), "Install them into the server's Python:", advice)
    if choice.kind == "embedded":
        return ok("what the embedded server needs is there")
    return ok(f"all {len(essential) + len(optional)} that ComfyUI needs are there")


def _is_met(requirement: requirements.Requirement, versions: dict[str, str | None]) -> bool:
    version = versions.get(requirement.name)
    return version is not None and requirement.is_met_by(version)


def _listed(missing: list[requirements.Requirement]) -> str:
    return ", ".join(requirement.name for requirement in missing)


def look_at_nodes(machine: Machine) -> Result:
    """Discomfort's own nodes, loaded in the server's Python as the server loads them."""
    choice = machine.need_choice()
    python = machine.need_server_python()
    answer = ask(python, {"nodes": str(PACKAGE)})
    error = answer.imports.get("nodes", "" if answer.is_complete else f"the interpreter {answer.ended.describe()}")
    needed = requirements.of_nodes() if choice.kind == "comfyui" else []  # the embedded server runs in this Python
    missing, others = requirements.compare(needed, machine.server_versions)
    advice = [
        "Install what the nodes need into the server's Python:",
        command(*python, "-m", "pip", "install", *_nodes_option()),
    ]
    absent = f"missing there: {_listed(missing)}" if missing else ""
    if error:
        return broken("; ".join(filter(None, [f"cannot be loaded: {one_line(error)}", absent])), *advice)
    found = f"{answer.facts['nodes']} load in the server's Python"
    if missing or others:
        text = "; ".join(filter(None, [absent, *others]))
        return warning(f"{found}, but {text}: what needs it fails in the editor", *advice)
    return _look_at_copies(choice, found)


def _look_at_copies(choice: ServerChoice, found: str) -> Result:
    """Another copy of this package in the same ComfyUI gives its own nodes the same names."""
    copies = []
    for marker in sorted((choice.data_folder / "custom_nodes").glob("*/nodes_internal.py")):
        folder = marker.parent
        if not folder.name.endswith(".disabled") and (folder / "comfy_serverless.py").is_file():
            copies.append(folder.resolve())
    others = [folder for folder in dict.fromkeys(copies) if folder != PACKAGE]
    if not others:
        return ok(found)
    return warning(
        f"{found}, but this ComfyUI has another copy of Discomfort, in {', '.join(map(str, others))}: "
        "both have nodes of the same names",
        "Keep one. To use the other one, start scripts from the ComfyUI folder; to use this one, move that one away.",
    )


# ---- PyTorch ----


def look_at_torch(machine: Machine) -> Result:
    """In the server's Python, where models run, and in this one, where scripts hold pictures."""
    is_needed = bool(machine.server_versions)  # the server's Python was found, and answers
    python = machine.server_python if is_needed else [sys.executable]
    is_here = _is_this_python(python)
    results = [_look_at_torch_of(machine, python, "" if is_here else " in the server's Python", is_needed)]
    if not is_here:
        results.append(_look_at_torch_here())
    return worst(results)


def _look_at_torch_of(machine: Machine, python: list[str], where: str, is_needed: bool) -> Result:
    answer = ask(python, {"versions": ["torch"], "torch": True}, 150)
    version = answer.facts.get("versions", {}).get("torch")
    error = answer.imports.get("torch", "")
    install = [*python, "-m", "pip", "install"]
    if version is None and "torch" not in answer.facts:
        text = f"not installed{where}"
        advice = ["Install it. For a GPU, https://pytorch.org/get-started/locally/ has the command, else:"]
        lines = [*advice, command(*install, "torch")]
        return broken(text, *lines) if is_needed else warning(f"{text}; scripts need it for pictures", *lines)
    if not error and not answer.is_complete and "torch" not in answer.facts:
        error = f"the interpreter {answer.ended.describe()}"
    if error:
        return broken(
            f"{version or 'there'}, but it cannot be imported{where}: {one_line(error)}",
            "Install it again. For a GPU, https://pytorch.org/get-started/locally/ has the command, else:",
            command(*install, "--force-reinstall", "torch"),
        )
    facts = answer.facts["torch"]
    machine.versions["torch"] = facts["version"]
    found = f"{facts['version']}{where}"
    trouble = answer.imports.get("torch.cuda", "")
    if trouble:
        return broken(
            f"{found}, but asking it for a GPU fails: {one_line(trouble)}",
            'The driver of the GPU and this PyTorch do not fit. Renew the driver, or use "DEVICE": "cpu" in the '
            "configuration.",
        )
    devices = [name + (f", {size / 2**30:.0f} GB" if size else "") for name, size in facts.get("devices") or []]
    if devices:
        return ok(f"{found}, {', '.join(devices)}")
    if is_needed and machine.config.DEVICE == "auto" and _shows_gpu():
        kind = "a build without GPU support" if not (facts["cuda"] or facts["hip"]) else "one that finds no GPU"
        return warning(
            f"{found}, {kind}, although this machine shows a graphics device",
            "For the GPU, https://pytorch.org/get-started/locally/ has the command that installs its build.",
            'For the processor, say "DEVICE": "cpu" in the configuration.',
        )
    return ok(f"{found}, without a GPU")


def _shows_gpu() -> bool:
    from ...comfy_serverless import has_gpu

    return sys.platform.startswith("linux") and has_gpu()  # elsewhere it only supposes one


def _look_at_torch_here() -> Result:
    answer = ask([sys.executable], {"versions": ["torch"]}, 30)
    version = answer.facts.get("versions", {}).get("torch")
    if version:
        return ok(f"{version} in this one")
    return warning(
        "not installed in this one, where scripts need it for pictures",
        "Install it into the Python of your scripts, too:",
        command(sys.executable, "-m", "pip", "install", "torch"),
    )


# ---- the editor ----


def look_at_frontend(machine: Machine) -> Result:
    """The package of the editor's pages, which convert workflows."""
    from ...comfy_serverless import _argument_value

    choice = machine.need_choice()
    python = machine.need_server_python()
    for option in ("--front-end-root", "--front-end-version"):
        given = _argument_value(choice.extra_args, option)
        if given:
            return ok(f"{option} {given}, which API_COMMAND_LINE names")
    name = "comfyui-frontend-package"
    version = machine.versions[name] = machine.server_versions.get(name)
    wanted = next((r for r in _wanted(choice) if r.name == name), requirements.Requirement(name))
    advice = [
        "Install it into the server's Python:",
        Command(command(*python, "-m", "pip", "install", str(wanted))),
    ]
    if version is None:
        return broken(f"{name} is not installed in the server's Python: no workflow can be converted", *advice)
    if not wanted.is_met_by(version):
        return warning(f"{version}; this server is made for {str(wanted)[len(name) :].lstrip('=')}", *advice)
    return ok(version)
