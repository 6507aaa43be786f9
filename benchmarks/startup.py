"""What ``create()`` costs over the bare start of the same server, cold processes taking turns.

    ./dev run python benchmarks/startup.py [ROUNDS] [--json]

The bare start is the server's own command line, spawned and asked for /system_stats as often as ``create()`` asks.
``create()`` runs in a fresh interpreter each time; the time of its imports is shown by itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from discomfort.comfy_serverless import ConnectorConfig, choose_server, has_gpu, port_is_free
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


def bare_start(port: int) -> float:
    """Seconds from spawning the server until it answers."""
    choice = choose_server(ConnectorConfig.load())
    with tempfile.TemporaryDirectory() as folder:
        command = [*choice.command, *choice.extra_args, "--port", str(port), "--disable-auto-launch"]
        command += ["--temp-directory", folder, "--database-url", f"sqlite:///{Path(folder) / 'comfyui.db'}"]
        command += [] if has_gpu() else ["--cpu"]
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=choice.working_directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/system_stats", timeout=5) as answer:
                        if answer.status == 200:
                            return time.perf_counter() - started
                except OSError:
                    pass
                if process.poll() is not None:
                    raise SystemExit(f"The server ended with status {process.returncode}: {command}")
                time.sleep(0.04)
        finally:
            process.kill()
            process.wait()


def main() -> int:
    rounds = next((int(a) for a in sys.argv[1:] if a.isdigit()), 5)
    port = next(p for p in range(18900, 19000) if port_is_free("127.0.0.1", p))
    bare: list[float] = []
    created: list[dict[str, float]] = []
    for _ in range(rounds + 1):  # the first round warms the disk cache for both
        bare.append(bare_start(port))
        done = subprocess.run([sys.executable, "-c", CREATE], capture_output=True, text=True, check=True)
        created.append(json.loads(done.stdout))
    base = median(bare[1:])
    rows: list[tuple[str, float, float | None]] = [("bare server, spawn to answer", base, 1.0)]
    for name in ("create", "imports", "shutdown"):
        seconds = median([c[name] for c in created[1:]])
        rows.append((f"{name}()" if name != "imports" else "imports of the script", seconds, seconds / base))
    choice = choose_server(ConnectorConfig.load())
    return 0 if report(f"Start, {choice.kind} server, {rounds} rounds", rows, {"create()": 1.2}) else 1


if __name__ == "__main__":
    raise SystemExit(main())
