"""``discomfort server``: a ComfyUI server that stays warm between scripts (see warm_server.py)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from .. import warm_server
from ..comfy_serverless import ConnectorConfig, ServerChoice, choose_server
from ..warm_server import WarmServerInUseError, WarmStatus
from .output import CONFIG, JSON, Status, say_json
from .wording import command, duration


@click.group()
def server() -> None:
    """Keep a ComfyUI server warm between scripts.

    A script whose create() has the same settings uses it instead of starting one: it has its models loaded and its
    results cached, and the script never stops it.
    """


@server.command()
@CONFIG
@click.option(
    "--idle-timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Stop the server after so long without use; 0: never. The default is WARM_IDLE_TIMEOUT of the configuration, "
    "1 hour if it is not set.",
)
@click.option("--foreground", is_flag=True, help="Stay in the foreground, for systemd, Docker and the like.")
@JSON
def start(config_path: Path | None, idle_timeout: float | None, foreground: bool, as_json: bool) -> None:
    """Start a warm server, unless one runs already.

    The command returns when the server is ready, and the server stays; `stop` ends it, or a long time without use.
    """
    if foreground:
        sys.exit(warm_server.keep(config_path, idle_timeout, foreground=True))
    if not as_json:
        _say_what_starts(config_path)
    with _hint_at_force(config_path):
        found = warm_server.start(config_path, idle_timeout, tell=lambda text: click.echo(text, err=as_json))
    if as_json:
        say_json(found.as_json())
        return
    click.echo(_describe(found))
    click.echo(f"Scripts with the same settings use it from now on. Stop it with: {_stop_command(config_path)}")


def _stop_command(config_path: Path | None, *options: str) -> str:
    """The command that stops the warm server of a configuration, as it can be copied."""
    return " ".join([command("server stop", config_path), *options])


@contextlib.contextmanager
def _hint_at_force(config_path: Path | None, *options: str) -> Iterator[None]:
    """Complete the error about a server in use by the command that stops it all the same."""
    try:
        yield
    except WarmServerInUseError as e:
        advice = _stop_command(config_path, *options, "--force")
        raise WarmServerInUseError(f"{e} Stop it all the same with: {advice}") from e


def _say_what_starts(config_path: Path | None) -> None:
    config = ConnectorConfig.load(config_path)
    if not config.attached_url:
        choice = choose_server(config)
        click.echo(f"{_name(choice)} ({choice.reason})")


def _name(choice: ServerChoice) -> str:
    """What a server is, for people."""
    return "Discomfort's embedded server" if choice.kind == "embedded" else f"ComfyUI in {choice.path}"


@server.command(hidden=True)
@CONFIG
@click.option("--idle-timeout", type=float)
def keep(config_path: Path | None, idle_timeout: float | None) -> None:
    """The process in the background; ``start`` starts it."""
    sys.exit(warm_server.keep(config_path, idle_timeout))


@server.command()
@JSON
def status(as_json: bool) -> None:
    """Show the warm servers: where, what, who uses them.

    Exit status 3 where there is none, 4 where one of them does not answer.
    """
    found = warm_server.status()
    if as_json:
        say_json([one.as_json() for one in found])
    else:
        texts = list(map(_describe, found)) or ["No warm server runs."]
        if warm_server.unready(everywhere=True):
            texts.append("Another one is being started." if found else "One is being started.")
        click.echo("\n\n".join(texts))
    if not found:
        sys.exit(Status.NOT_FOUND)
    sys.exit(0 if all(one.is_healthy for one in found) else Status.NO)


@server.command()
@CONFIG
@click.option("--all", "stop_all", is_flag=True, help="Stop the warm servers of other configurations, too.")
@click.option("--force", is_flag=True, help="Stop a server although somebody uses it.")
@JSON
def stop(config_path: Path | None, stop_all: bool, force: bool, as_json: bool) -> None:
    """Stop the warm server of this configuration.

    One that is in use is stopped only with --force. Exit status 0 also where there was none.
    """
    if stop_all:
        wanted = warm_server.status()
    else:
        one = warm_server.find(config_path)
        wanted = [one] if one is not None else []
    starting = warm_server.unready(config_path, everywhere=stop_all)
    tell: Callable[[str], None] = (lambda text: None) if as_json else click.echo
    for running in wanted:
        with _hint_at_force(config_path, *(["--all"] if stop_all else [])):
            warm_server.stop(running, force)
        tell(f"Stopped {running.server.address}.")
    for folder in starting:
        warm_server.stop_unready(folder)
        tell("Stopped one that was being started.")
    if as_json:
        say_json({"stopped": [one.server.address for one in wanted], "stopped_while_starting": len(starting)})
    elif not wanted and not starting:
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
