"""The way to the server: this machine's own network, and a free port."""

from __future__ import annotations

import json
import os
import socket
import sys
import urllib.request

from .checkup import Command, Machine, Result, SkipCheck, broken, command, ok

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def look_at_loopback(machine: Machine) -> Result:
    """Send some bytes from this process to itself, at the address that the server will have."""
    from ...comfy_serverless import _why_not_ours

    _reject_attached(machine)
    host = machine.config.host.strip("[]")
    problem = _why_not_ours(host)
    if problem:
        return broken(
            f"{host}, which API_URL names, is no address of this machine ({problem}), and a server that is started "
            "here needs one",
            f"Leave API_URL out, or give the port of a server that runs there: http://{machine.config.host}:8188",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listening:
            listening.settimeout(5)
            listening.bind((host, 0))
            listening.listen(1)
            with socket.create_connection(listening.getsockname()[:2], timeout=5) as caller:
                answering, _ = listening.accept()
                with answering:
                    caller.sendall(b"hello")
                    answering.settimeout(5)
                    if answering.recv(5) != b"hello":
                        raise OSError("what was sent did not arrive")
    except OSError as error:
        advice = ["The loopback interface is down, or a firewall or security program blocks it."]
        if sys.platform.startswith("linux"):
            advice += ["Switch the interface on (as root):", Command("ip link set lo up")]
        return broken(f"{host} cannot be reached from here: {error}", *advice)
    return ok(f"{host} can be reached{_about_proxies()}")


def _reject_attached(machine: Machine) -> None:
    """SkipCheck where API_URL names a server: what is looked at is for one that is started here."""
    if machine.config.attached_url:
        raise SkipCheck("API_URL names a server that runs already; none is started here")


def _about_proxies() -> str:
    """Whether proxies are set. Their addresses may have passwords in them, so they are not told."""
    named = [name for name in _PROXIES if os.environ.get(name) or os.environ.get(name.upper())]
    return f"; {', '.join(named)} set, which Discomfort does not use for its server" if named else ""


def look_at_ports(machine: Machine) -> Result:
    from ...comfy_serverless import _argument_value, port_is_free

    _reject_attached(machine)
    host, first = machine.config.host.strip("[]"), machine.config.INITIAL_PORT
    demanded = _argument_value(machine.choice.extra_args if machine.choice else (), "--port")
    if demanded is not None:
        if not demanded.isdigit() or not 0 < int(demanded) < 65536:
            return broken(f"API_COMMAND_LINE demands --port {demanded}; a port is a number from 1 to 65535")
        if not port_is_free(host, int(demanded)):
            return broken(
                f"{demanded}, which API_COMMAND_LINE demands, is taken by {_who_is_at(host, int(demanded))}",
                "Leave --port out of API_COMMAND_LINE: Discomfort then takes the next free one.",
            )
        return ok(f"{demanded} is free, which API_COMMAND_LINE demands")
    last = min(first + 199, 65535)
    port = next((port for port in range(first, last + 1) if port_is_free(host, port)), None)
    if port is None:
        see = Command("netstat -ano") if sys.platform == "win32" else command("ss", "-ltnp")
        return broken(
            f"none is free on {host} from {first} to {last}",
            "Set INITIAL_PORT to another range, or end what listens there:",
            see,
        )
    if port == first:
        return ok(f"{port} is free")
    return ok(f"{port} is free; {first} is taken by {_who_is_at(host, first)}, which is left alone")


def _who_is_at(host: str, port: int) -> str:
    """What listens on a port, as far as it says so."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    place = f"[{host}]" if ":" in host else host
    try:
        with opener.open(f"http://{place}:{port}/system_stats", timeout=3) as answer:
            version = json.loads(answer.read(1_000_000))["system"].get("comfyui_version", "of an unknown version")
        return f"a ComfyUI {version}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "another program"
    except Exception:  # whatever http.client thinks of an answer that is none
        return "another program"
