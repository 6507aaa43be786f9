"""``discomfort server``: a ComfyUI server that stays warm between scripts (see warm_server.py)."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from .. import warm_server
from ..comfy_serverless import ConnectorConfig, ServerChoice, choose_server
from ..warm_server import WarmServerInUseError, WarmStatus
from .wording import duration

_CONFIG = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The configuration that the scripts pass to create(); without it the default one, as in create().",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print data for programs.")

#: exit status of ``status`` where no server is kept (the Linux Standard Base's number for "not running")
NOT_RUNNING = 3


@click.group()
def server() -> None:
    """Keep a ComfyUI server warm between scripts.

    A script whose create() has the same settings uses it instead of starting one: it has its models loaded and its
    results cached, and the script never stops it.
    """


@server.command()
@_CONFIG
@click.option(
    "--idle-timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Stop it after so long without use; 0: never. Without it WARM_IDLE_TIMEOUT of the configuration (1 hour).",
)
@click.option("--foreground", is_flag=True, help="Stay in the foreground, for systemd, Docker and the like.")
@_JSON
def start(config_path: Path | None, idle_timeout: float | None, foreground: bool, as_json: bool) -> None:
    """Start a warm server, unless one runs already, and return when it is ready."""
    if foreground:
        sys.exit(warm_server.keep(config_path, idle_timeout, foreground=True))
    if not as_json:
        _say_what_starts(config_path)
    with _hint_at_force(config_path):
        found = warm_server.start(config_path, idle_timeout, tell=lambda text: click.echo(text, err=as_json))
    if as_json:
        click.echo(json.dumps(found.as_json()))
        return
    click.echo(_describe(found))
    click.echo(f"Scripts with the same settings use it from now on. Stop it with: {_stop_command(config_path)}")


def _stop_command(config_path: Path | None, *options: str) -> str:
    """The command that stops the warm server of a configuration, as it can be copied."""
    words = [f"{click.get_current_context().find_root().info_name} server stop"]
    words += ["--config", shlex.quote(str(config_path))] if config_path else []
    return " ".join([*words, *options])


@contextlib.contextmanager
def _hint_at_force(config_path: Path | None, *options: str) -> Iterator[None]:
    """Complete the error about a server in use by the command that stops it all the same."""
    try:
        yield
    except WarmServerInUseError as e:
        command = _stop_command(config_path, *options, "--force")
        raise WarmServerInUseError(f"{e} Stop it all the same with: {command}") from e


def _say_what_starts(config_path: Path | None) -> None:
    config = ConnectorConfig.load(config_path)
    if not config.attached_url:
        choice = choose_server(config)
        click.echo(f"{_name(choice)} ({choice.reason})")


def _name(choice: ServerChoice) -> str:
    """What a server is, for people."""
    return "Discomfort's embedded server" if choice.kind == "embedded" else f"ComfyUI in {choice.path}"


@server.command(hidden=True)
@_CONFIG
@click.option("--idle-timeout", type=float)
def keep(config_path: Path | None, idle_timeout: float | None) -> None:
    """The process in the background; ``start`` starts it."""
    sys.exit(warm_server.keep(config_path, idle_timeout))


@server.command()
@_JSON
def status(as_json: bool) -> None:
    """Show the warm servers: where, what, who uses them. Exit status 3 where there is none."""
    found = warm_server.status()
    if as_json:
        click.echo(json.dumps([one.as_json() for one in found]))
    else:
        texts = list(map(_describe, found)) or ["No warm server runs."]
        if warm_server.unready(everywhere=True):
            texts.append("Another one is being started." if found else "One is being started.")
        click.echo("\n\n".join(texts))
    sys.exit(0 if found else NOT_RUNNING)


@server.command()
@_CONFIG
@click.option("--all", "stop_all", is_flag=True, help="Stop those of other configurations too.")
@click.option("--force", is_flag=True, help="Stop it although somebody uses it.")
def stop(config_path: Path | None, stop_all: bool, force: bool) -> None:
    """Stop the warm server of this configuration; one that is in use only with --force."""
    if stop_all:
        wanted = warm_server.status()
    else:
        one = warm_server.find(config_path)
        wanted = [one] if one is not None else []
    starting = warm_server.unready(config_path, everywhere=stop_all)
    for running in wanted:
        with _hint_at_force(config_path, *(["--all"] if stop_all else [])):
            warm_server.stop(running, force)
        click.echo(f"Stopped {running.server.address}.")
    for folder in starting:
        warm_server.stop_unready(folder)
        click.echo("Stopped one that was being started.")
    if not wanted and not starting:
        others = [] if stop_all else warm_server.status()
        more = f" Of other configurations: {', '.join(o.server.address for o in others)} (--all)." if others else ""
        click.echo(f"No warm server runs{' for this configuration' if others else ''}.{more}")


def _describe(one: WarmStatus) -> str:
    """A warm server as a few lines for people."""
    warm = one.server
    lines = [f"{warm.address}  {_name(warm.choice)}" + ("" if one.is_healthy else "  DOES NOT ANSWER")]
    lines.append(f"  process {warm.pid}, {one.memory / 1e9:.1f} GB, started {duration(one.age)} ago")
    if one.users:
        lines.append(f"  used by {warm_server.name_processes(one.users)}")
    else:
        ends = f", ends after {duration(warm.idle_timeout)} without use" if warm.idle_timeout else ""
        lines.append(f"  unused for {duration(one.idle)}{ends}")
    if one.queue:
        lines.append(f"  {one.queue} prompt{'s' if one.queue > 1 else ''} in its queue")
    lines.append(f"  log {warm.log_path}")
    return "\n".join(lines)
