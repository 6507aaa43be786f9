"""What ``create()`` costs over the bare start of the same server, cold processes taking turns.

    ./dev run python benchmarks/startup.py [ROUNDS] [--json]

The bare start is the server's own command line, spawned and asked for /system_stats as often as ``create()`` asks.
``create()`` runs in a fresh interpreter each time; the time of its imports is shown by itself.
"""

from __future__ import annotations

import json
import subprocess
import sys

from bare_server import started
from discomfort.comfy_serverless import ConnectorConfig, ServerChoice, choose_server
from measure import median, report

CREATE = """
import asyncio, json, time
started = time.perf_counter()
from discomfort import ComfyConnector, Discomfort
from discomfort.comfy_serverless import ConnectorConfig
imported = time.perf_counter()
async def main():
    begin = time.perf_counter()
    d = await Discomfort.create(ConnectorConfig(USE_WARM_SERVER=False))
    ready = time.perf_counter()
    await d.shutdown()
    print(json.dumps({"imports": imported - started, "create": ready - begin, "shutdown": time.perf_counter() - ready}))
asyncio.run(main())
"""


def bare_start(choice: ServerChoice) -> float:
    """Seconds from spawning the server until it answers."""
    with started(choice) as server:
        return server.seconds


def main() -> int:
    rounds = next((int(a) for a in sys.argv[1:] if a.isdigit()), 5)
    choice = choose_server(ConnectorConfig.load())
    bare: list[float] = []
    created: list[dict[str, float]] = []
    for _ in range(rounds + 1):  # the first round warms the disk cache for both
        bare.append(bare_start(choice))
        done = subprocess.run([sys.executable, "-c", CREATE], capture_output=True, text=True, check=True)
        created.append(json.loads(done.stdout))
    base = median(bare[1:])
    rows: list[tuple[str, float, float | None]] = [("bare server, spawn to answer", base, 1.0)]
    for name in ("create", "imports", "shutdown"):
        seconds = median([c[name] for c in created[1:]])
        rows.append((f"{name}()" if name != "imports" else "imports of the script", seconds, seconds / base))
    return 0 if report(f"Start, {choice.kind} server, {rounds} rounds", rows, {"create()": 1.2}) else 1


if __name__ == "__main__":
    raise SystemExit(main())
