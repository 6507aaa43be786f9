"""What ComfyConnector costs over the least that could do the same, on one server, in one run.

    ./dev run python benchmarks/connector.py [ROUNDS] [--json]

* Running: ``run_workflow`` against a bare client (one POST, one websocket, one GET of the history entry), taking turns
  in short blocks. Prompts of three sizes, changed every time, and one that the server has cached.
* Converting: on the warm page, from the store (in memory; from disk as the first conversion of a process, which asks
  the server for its node definitions too), and what other tools do: the editor's page opened afresh.
* Starting: ``create()`` in a fresh interpreter, with a warm server and with a cold start.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bare_client import BareClient
from discomfort.comfy_serverless import _CONVERT_JS, _READY_JS, ConnectorConfig, ConversionStore, FrontendPage
from measure import median, report

from discomfort import ComfyConnector, warm_server

ROOT = Path(__file__).parent.parent
Row = tuple[str, float, float | None]

CREATE = """
import asyncio, json, sys, time
from discomfort import ComfyConnector
async def main():
    started = time.perf_counter()
    connector = await ComfyConnector.create(sys.argv[1])
    print(json.dumps([time.perf_counter() - started, connector.is_attached]))
    await connector.kill_api()
asyncio.run(main())
"""


def prompts() -> dict[str, Callable[[int], dict[str, Any]]]:
    """{name: function of a number that no other prompt has}."""

    def image(size: int, color: int) -> dict[str, Any]:
        inputs = {"width": size, "height": size, "batch_size": 1, "color": color % 2**24}
        return {
            "1": {"class_type": "EmptyImage", "inputs": inputs},
            "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
            "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
        }

    return {
        "all cached": lambda number: image(64, 1),
        "64 px, changed": lambda number: image(64, 2 + number),
        "512 px, changed": lambda number: image(512, 2 + number),
    }


async def timed(action: Callable[[], Awaitable[Any]]) -> float:
    started = time.perf_counter()
    await action()
    return time.perf_counter() - started


async def measure_running(connector: ComfyConnector, rounds: int) -> list[Row]:
    rows: list[Row] = []
    numbers = itertools.count()
    async with BareClient(connector.server_address) as client:
        for name, make in prompts().items():
            bare: list[float] = []
            ours: list[float] = []
            for block in range(11):
                for seconds, run in (
                    (bare, lambda prompt: client.run(prompt, {})),
                    (ours, lambda prompt: connector.run_workflow(prompt, use_workflow_json=False)),
                ):
                    taken = [await timed(lambda: run(make(next(numbers)))) for _ in range(max(1, rounds // 10))]  # noqa: B023
                    if block:  # the first one warms up
                        seconds.extend(taken)
                    # What is tidied up after a block (history entries) is not the next block's cost.
                    await asyncio.sleep(2 * ComfyConnector.FORGET_DELAY)
            base = median(bare)
            rows.append((f"bare client, {name}", base, 1.0))
            rows.append((f"run_workflow, {name}", median(ours), median(ours) / base))
    return rows


async def open_afresh(browser: Any, address: str, workflow: dict[str, Any]) -> dict[str, Any]:
    """The way of tools without a warm page: a new context, the whole frontend, one conversion."""
    context = await browser.new_context(viewport={"width": 64, "height": 64})
    try:
        page = await context.new_page()
        await page.goto(address, wait_until="commit")
        await page.wait_for_function(_READY_JS, polling=50)
        result = await page.evaluate(_CONVERT_JS, workflow)
        return dict(result["output"])
    finally:
        await context.close()


async def measure_converting(connector: ComfyConnector, rounds: int) -> list[Row]:
    workflow = json.loads((ROOT / "examples" / "workflows" / "refine.json").read_text(encoding="utf-8"))
    numbers = itertools.count()

    def changed() -> dict[str, Any]:
        other = copy.deepcopy(workflow)
        other["extra"] = {**other.get("extra", {}), "benchmark": next(numbers)}
        return other

    async def from_disk() -> None:
        connector._store, connector._frontend = ConversionStore(on_disk=True), None
        await connector.get_prompt_from_workflow(workflow)

    await connector.get_prompt_from_workflow(workflow)  # starts the browser: the store is a new one
    assert isinstance(connector._page, FrontendPage)
    browser = connector._page._browser
    seconds: dict[str, list[float]] = {"afresh": [], "warm": [], "disk": [], "memory": []}
    for _ in range(max(3, rounds // 20)):
        seconds["afresh"].append(await timed(lambda: open_afresh(browser, connector.server_address, changed())))
        await connector.get_prompt_from_workflow(changed())  # from_disk() has made the page stale
        for _ in range(5):
            seconds["warm"].append(await timed(lambda: connector.get_prompt_from_workflow(changed())))
            seconds["memory"].append(await timed(lambda: connector.get_prompt_from_workflow(workflow)))
        for _ in range(5):
            seconds["disk"].append(await timed(from_disk))
    base = median(seconds["afresh"])
    names = {
        "afresh": "conversion, the editor's page opened afresh",
        "warm": "conversion, warm page",
        "disk": "conversion, from disk, first of a process",
        "memory": "conversion, from memory",
    }
    return [(names[key], median(values), median(values) / base) for key, values in seconds.items()]


def measure_starting(folder: Path, rounds: int) -> list[Row]:
    configs = {}
    for name, is_warm in (("cold", False), ("warm", True)):
        configs[name] = folder / f"{name}.json"
        configs[name].write_text(json.dumps({"USE_WARM_SERVER": is_warm, "INITIAL_PORT": 18950}), encoding="utf-8")
    kept = warm_server.start(configs["warm"])
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    try:
        for number in range(max(3, rounds // 20) + 1):
            for name, config in configs.items():
                command = [sys.executable, "-c", CREATE, str(config)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                taken, is_attached = json.loads(done.stdout)
                assert is_attached is (name == "warm")
                if number:
                    seconds[name].append(taken)
    finally:
        warm_server.stop(kept, force=True)
    base = median(seconds["cold"])
    return [
        ("create(), cold start", base, 1.0),
        ("create(), warm server", median(seconds["warm"]), median(seconds["warm"]) / base),
    ]


async def measure_server(folder: Path, rounds: int) -> tuple[str, list[Row]]:
    connector = await ComfyConnector.create(ConnectorConfig(USE_WARM_SERVER=False))
    try:
        rows = await measure_running(connector, rounds)
        rows += await measure_converting(connector, rounds)
        return connector.server_description, rows
    finally:
        await connector.kill_api()


def main() -> int:
    rounds = next((int(a) for a in sys.argv[1:] if a.isdigit()), 100)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        os.environ["XDG_CACHE_HOME"] = folder  # neither the user's stored conversions, nor ours among them
        title, rows = asyncio.run(measure_server(Path(folder), rounds))
        rows += measure_starting(Path(folder), rounds)
        limits = {
            "run_workflow, 512 px, changed": 1.25,
            "conversion, warm page": 0.5,
            "conversion, from disk, first of a process": 0.2,
            "create(), warm server": 0.1,
        }
        return 0 if report(f"ComfyConnector, {rounds} rounds. {title}", rows, limits) else 1
    return 130


if __name__ == "__main__":
    raise SystemExit(main())
