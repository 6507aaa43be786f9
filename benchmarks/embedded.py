"""The embedded server beside ComfyUI: its start, its memory, and what it adds to a prompt.

    ./dev run python benchmarks/embedded.py [ROUNDS] [--json FILE]

With COMFYUI_PATH (or a ComfyUI that is found otherwise) both servers run on this machine and take turns, prompt by
prompt, as the same client sees them: one POST, one websocket, one GET of the history entry. Ratios are to ComfyUI.
Without one the embedded server is measured alone, and its ratios are to a request that runs nothing (GET /prompt).

The pictures are of 8 x 8 pixels, so that what is measured is the server's work and not the nodes'.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bare_client import BareClient
from bare_server import started
from discomfort.comfy_serverless import ConnectorConfig, ServerChoice, choose_server
from measure import Goal, all_kept, goals_table, markdown, median, milliseconds

# Prompts run before those that count, of each kind.
WARM_UP = 3
BIG_GRAPH = 200

Prompt = dict[str, dict[str, Any]]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def chain(length: int, seed: int) -> Prompt:
    """A picture of one colour, inverted again and again, and shown; ``length`` nodes in all.

    Args:
        seed: another one changes the first node, and with it all others.
    """
    prompt = {"0": node("EmptyImage", width=8, height=8, batch_size=1, color=seed % 0x1000000)}
    for index in range(1, length - 1):
        prompt[str(index)] = node("ImageInvert", image=[str(index - 1), 0])
    prompt[str(length - 1)] = node("PreviewImage", images=[str(length - 2), 0])
    return prompt


def side_by_side(count: int, seed: int) -> Prompt:
    """A number shown by all other nodes: many outputs, no pictures; ``count`` nodes in all."""
    shown = {str(index): node("PreviewAny", source=["0", 0]) for index in range(1, count)}
    return {"0": node("PrimitiveInt", value=seed), **shown}


# What is run -> the prompt of the nth time. "Cached" ones are the same every time.
KINDS: dict[str, Callable[[int], Prompt]] = {
    "3 nodes, changed": lambda n: chain(3, n),
    "3 nodes, cached": lambda n: chain(3, 0),
    f"{BIG_GRAPH} nodes in a row, changed": lambda n: chain(BIG_GRAPH, n),
    f"{BIG_GRAPH} nodes in a row, cached": lambda n: chain(BIG_GRAPH, 0),
    f"{BIG_GRAPH} nodes side by side, changed": lambda n: side_by_side(BIG_GRAPH, n),
    f"{BIG_GRAPH} nodes side by side, cached": lambda n: side_by_side(BIG_GRAPH, 0),
}
REQUESTS = {"GET /prompt": "/prompt", "GET /object_info": "/object_info"}


def choices() -> dict[str, ServerChoice]:
    """Name -> server: the embedded one, and the ComfyUI that a user's ``create()`` would find."""
    found = {"embedded": choose_server(ConnectorConfig(COMFYUI_PATH="embedded"))}
    other = choose_server(ConnectorConfig.load())
    if other.kind == "comfyui":
        found["ComfyUI"] = other
    return found


def imports() -> dict[str, float]:
    """Seconds of a bare interpreter, and of one that imports torch, from spawning to their end."""
    seconds = {}
    for name, code in (("interpreter", "pass"), ("interpreter and torch", "import torch, os; os._exit(0)")):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        seconds[name] = time.perf_counter() - begin
    return seconds


def measure_starts(servers: Mapping[str, ServerChoice], rounds: int) -> dict[str, float]:
    """Median seconds of everything that starts; the first round warms the disk cache for all."""
    found: dict[str, list[float]] = {}
    for round_number in range(rounds + 1):
        seconds = imports()
        for name, choice in servers.items():
            with started(choice, isolation(choice)) as server:
                seconds[name] = server.seconds
        if round_number:
            for name, value in seconds.items():
                found.setdefault(name, []).append(value)
    return {name: median(values) for name, values in found.items()}


def isolation(choice: ServerChoice) -> list[str]:
    """Arguments that leave other people's packages and nodes that need the network out of ComfyUI's figures."""
    return [] if choice.kind == "embedded" else ["--disable-all-custom-nodes", "--disable-api-nodes"]


async def measure_prompts(addresses: Mapping[str, str], rounds: int) -> dict[str, dict[str, float]]:
    """What is run -> server -> median seconds; the servers take turns, prompt by prompt."""
    found: dict[str, dict[str, list[float]]] = {}
    clients = {name: BareClient(address) for name, address in addresses.items()}
    number = int(time.time())
    try:
        for client in clients.values():
            await client.__aenter__()
        for what, make in KINDS.items():
            for turn in range(WARM_UP + rounds):
                number += 1
                for name, client in clients.items():
                    begin = time.perf_counter()
                    entry = await client.run(make(number), {})
                    seconds = time.perf_counter() - begin
                    assert entry["outputs"], "nothing was shown"
                    if turn >= WARM_UP:
                        found.setdefault(what, {}).setdefault(name, []).append(seconds)
        for what, path in REQUESTS.items():
            for turn in range(WARM_UP + rounds):
                for name, client in clients.items():
                    begin = time.perf_counter()
                    async with client.session.get(client.address + path) as answer:
                        await answer.read()
                    if turn >= WARM_UP:
                        found.setdefault(what, {}).setdefault(name, []).append(time.perf_counter() - begin)
    finally:
        for client in clients.values():
            await client.__aexit__()
    return {what: {name: median(values) for name, values in of.items()} for what, of in found.items()}


def run(rounds: int) -> dict[str, Any]:
    """Everything measured: ``starts`` and ``prompts`` in seconds, ``memory`` in bytes of a server just started."""
    servers = choices()
    starts = measure_starts(servers, max(2, rounds // 10))
    with ExitStack() as stack:
        running = {name: stack.enter_context(started(choice, isolation(choice))) for name, choice in servers.items()}
        memory = {name: server.resident_bytes() for name, server in running.items()}
        prompts = asyncio.run(measure_prompts({name: s.address for name, s in running.items()}, rounds))
    return {"starts": starts, "memory": memory, "prompts": prompts}


def goals(found: Mapping[str, Any]) -> list[Goal]:
    """The start in well under a second after interpreter and torch; nothing slower than ComfyUI."""
    starts = found["starts"]
    rest = starts["embedded"] - starts["interpreter and torch"]
    bounds = [Goal("start, after interpreter and torch", rest, 0.5, at_most=True, unit=" s")]
    real = starts.get("ComfyUI")
    bounds.append(Goal("start, over ComfyUI's", starts["embedded"] / real if real else None, 0.5, at_most=True))
    for what in KINDS:
        seconds = found["prompts"][what]
        ratio = seconds["embedded"] / seconds["ComfyUI"] if "ComfyUI" in seconds else None
        bounds.append(Goal(f"{what}, over ComfyUI's", ratio, 1.0, at_most=True))
    return bounds


def tables(found: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    starts, memory = found["starts"], found["memory"]
    rows = [[name, f"{seconds:.2f} s", f"{seconds / starts['embedded']:.2f}"] for name, seconds in starts.items()]
    parts = [markdown(["spawned, until it ends or answers", "median", "over the embedded server's"], rows)]
    rows = [[name, f"{held / 1e6:.0f} MB", f"{held / memory['embedded']:.2f}"] for name, held in memory.items()]
    parts.append(markdown(["memory of a server just started", "resident", "over the embedded server's"], rows))
    base = "ComfyUI" if "ComfyUI" in memory else "GET /prompt"
    rows = []
    for what, seconds in found["prompts"].items():
        baseline = seconds["ComfyUI"] if base == "ComfyUI" else found["prompts"][base]["embedded"]
        real = milliseconds(seconds["ComfyUI"]) if "ComfyUI" in seconds else "-"
        rows.append([what, milliseconds(seconds["embedded"]), real, f"{seconds['embedded'] / baseline:.2f}"])
    parts.append(markdown(["", "embedded", "ComfyUI", f"embedded over {base}"], rows))
    parts.append(goals_table(goals(found)))
    return "\n\n".join(parts)


def main() -> int:
    words = sys.argv[1:]
    rounds = next((int(word) for word in words if word.isdigit()), 50)
    found = run(rounds)
    print(tables(found))
    if "--json" in words:
        Path(words[words.index("--json") + 1]).write_text(json.dumps(found), encoding="utf-8")
    return 0 if all_kept(goals(found)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
