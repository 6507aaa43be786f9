"""The proof: a server is really started, a workflow converted, a value sent through ports, and the server stopped."""

from __future__ import annotations

import re

from .checkup import Command, Machine, Result, SkipCheck, broken, command, ok
from .programs import Part, PartFailed

# A real start is what the other checks are about. What they did not find is in the message of the step.
_ADVICE = "docs/troubleshooting.md explains the messages. Report what it does not explain with doctor --json."


def start_server(machine: Machine) -> Result:
    machine.start = Part("start", machine, *([] if machine.browser else ["--without-browser"]))
    result = _outcome(machine, "start", min(machine.config.START_TIMEOUT, 300.0) * 1.2 + 30)
    return result._replace(advice=(*_about_log(machine, result.found), *result.advice)) if result.advice else result


def _about_log(machine: Machine, text: str) -> list[str]:
    """What the last lines of a server that did not start tell."""
    advice = []
    lost = re.search(r"No module named ['\"]([\w.]+)['\"]", text)
    if lost:
        advice.append(f"The server's Python lacks {lost[1]}: install the package that has it, with:")
        advice.append(Command(f"{command(*(machine.server_python or ['python']), '-m', 'pip', 'install')} ..."))
    if machine.choice is not None and machine.choice.kind == "comfyui":
        advice.append(
            "Whether a custom node is the cause shows a start without them. In the configuration: "
            '"API_COMMAND_LINE": "python3 main.py --disable-all-custom-nodes".'
        )
    return advice


def convert_workflow(machine: Machine) -> Result:
    if not machine.browser:
        raise SkipCheck("there is no browser yet")
    return _outcome(machine, "convert", machine.config.CONVERSION_TIMEOUT + 60)


def use_ports(machine: Machine) -> Result:
    return _outcome(machine, "ports", 120)


def stop_server(machine: Machine) -> Result:
    try:
        return _outcome(machine, "stop", 6 * machine.config.STOP_TIMEOUT + 30)
    finally:
        if machine.start is not None:
            machine.start.end(patience=10)


def _outcome(machine: Machine, step: str, limit: float) -> Result:
    if machine.start is None:
        raise SkipCheck("no server was started")
    if machine.start.was_stopped:
        raise SkipCheck("the step before did not come to an end, and the server was stopped with it")
    try:
        told = machine.start.wait_for(step, limit)
    except PartFailed as failure:
        return broken(str(failure), _ADVICE)
    if told["problem"]:
        return broken(told["problem"], _ADVICE)
    return ok(f"{told['seconds']:.1f} s: {told['found']}")
