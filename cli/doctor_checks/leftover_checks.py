"""What earlier runs left, and servers that are kept warm."""

from __future__ import annotations

import shlex

from .checkup import Machine, Result, broken, ok, warning
from .disk_checks import remove_if_empty
from .memory_checks import sized


def look_at_runs(machine: Machine) -> Result:
    from ... import workflow_context
    from ..wording import counted

    runs = workflow_context.list_contexts()
    refused = [run for run in runs if not run.run_id]
    if refused:
        return broken("; ".join(f"{run.path}: {run.problem}" for run in refused))
    live = sum(run.is_alive is True for run in runs)
    dead = [run for run in runs if run.is_alive is False]
    found = f"{counted(live, 'run is', 'runs are')} alive" if live else "no run is alive"
    if dead:
        ram, disk = sum(run.ram_bytes for run in dead), sum(run.disk_bytes for run in dead)
        left = f"{sized(ram)} in memory and {sized(disk)} on disk"
        return warning(
            f"{found}; {counted(len(dead), 'run')} of dead scripts left {left}",
            "The next run removes them. To do it now:",
            machine.own_command("context sweep"),
        )
    return ok(f"{found}, nothing is left of dead ones")


def look_at_warm_servers(machine: Machine) -> Result:
    from ... import warm_server
    from ...comfy_serverless import code_state, servers_root

    option = f" --config {shlex.quote(str(machine.config_path))}" if machine.config_path else ""
    renew = machine.own_command(f"server start{option}")
    servers = warm_server.status()
    remove_if_empty(servers_root())
    if not servers:
        return ok("none runs")
    mute = [one for one in servers if not one.is_healthy]
    old = [one for one in servers if one.server.code_state != code_state(one.server.choice)]
    found = ", ".join(f"{one.server.address} ({sized(one.memory)})" for one in servers)
    if mute:
        names = ", ".join(one.server.address for one in mute)
        stop = machine.own_command("server stop --all --force")
        return warning(f"{found}; {names} does not answer", "Stop it, and start it again:", stop, renew)
    if old:
        names = ", ".join(one.server.address for one in old)
        return warning(f"{found}; {names} runs older code than is there now, and is not used", "Renew it:", renew)
    return ok(found)
