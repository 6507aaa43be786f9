"""What is left of a run that is killed a hundred times: the same, to the last bit, or a list of what is not.

    ./dev run python benchmarks/chaos.py [--kills 100] [--steps 200] [--seed S] [--json] [--quick]

It runs on the embedded server, and then on the ComfyUI that the environment variable COMFYUI_PATH names, if any. The
run is a loop in a loop, with branches, a picture that goes round, random seeds, conditions and collected values
(tests/chaos_run.py). Its orchestrator or its server is killed (-9) at moments that are watched for from outside
(tests/chaos_killer.py); a killed orchestrator is started again with the same arguments. Then it is compared with the
same run that nobody disturbed and nobody kept, and its folder, its processes and its memory are looked at.

--quick takes two kills and ten steps, to see that it works.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from chaos_killer import MOMENTS, Chaos
from chaos_run import STEPS_PER_ROUND
from measure import markdown

# Away from ComfyUI's ports, and from those of the tests.
FIRST_PORT = 28400


def configurations() -> dict[str, str]:
    """{title: COMFYUI_PATH} of the servers to run on."""
    found = {"embedded": "embedded"}
    path = os.environ.get("COMFYUI_PATH", "")
    if path not in ("", "embedded"):
        found["comfyui"] = str(Path(path).expanduser().resolve())
    return found


def disturb(path: str, kills: int, steps: int, seed: int) -> dict[str, Any]:
    """Figures of one server."""
    base = Path(tempfile.mkdtemp(prefix="dc-"))
    config = {"COMFYUI_PATH": path, "DEVICE": "cpu", "INITIAL_PORT": FIRST_PORT}
    try:
        with Chaos(base, config, max(steps // STEPS_PER_ROUND, 1), seed=seed) as chaos:
            started = time.monotonic()
            expected = chaos.undisturbed()
            undisturbed = time.monotonic() - started
            outcome = chaos.disturb(kills)
            chaos.check(expected)
            return {
                "steps": chaos.steps,
                "kills": dict(collections.Counter(f"{kill.target}, {kill.moment}" for kill in outcome.kills)),
                "sessions": len(outcome.sessions),
                "ended_by_themselves": sum(code != -9 for code in outcome.sessions),
                "executed": outcome.executed,
                "repeated": outcome.repeated,
                "seconds": outcome.seconds,
                "undisturbed_seconds": undisturbed,
                "problems": outcome.problems,
            }
    finally:
        shutil.rmtree(base, ignore_errors=True)


def tables(found: dict[str, dict[str, Any]]) -> str:
    """Markdown."""
    servers = list(found)
    moments = [
        [f"killed: {target}, {moment}", *(str(found[s]["kills"].get(f"{target}, {moment}", 0)) for s in servers)]
        for target, moment in MOMENTS
    ]
    rows = [
        ["steps", *(str(found[s]["steps"]) for s in servers)],
        ["kills", *(str(sum(found[s]["kills"].values())) for s in servers)],
        *moments,
        ["processes that it took", *(str(found[s]["sessions"]) for s in servers)],
        ["steps cut off before they were recorded, and run again", *(str(found[s]["repeated"]) for s in servers)],
        ["seconds", *(f"{found[s]['seconds']:.0f}" for s in servers)],
        ["seconds, undisturbed", *(f"{found[s]['undisturbed_seconds']:.0f}" for s in servers)],
        ["differences from the undisturbed run, and leaks", *(str(len(found[s]["problems"])) for s in servers)],
    ]
    return markdown(["", *servers], rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--steps", type=int, default=200, help="of the run (default: 200)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default: 1)")
    parser.add_argument("--only", choices=["embedded", "comfyui"], help="the server")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="two kills, ten steps: does it work?")
    arguments: Any = parser.parse_args()
    if arguments.quick:
        arguments.kills, arguments.steps = 2, 10
    found = {
        server: disturb(path, arguments.kills, arguments.steps, arguments.seed)
        for server, path in configurations().items()
        if arguments.only in (None, server)
    }
    if arguments.json:
        print(json.dumps({"machine": platform.platform(), "servers": found}))
    else:
        print(f"\n{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores\n\n{tables(found)}")
        for server, figures in found.items():
            for problem in figures["problems"]:
                print(f"\n{server}: {problem}")
    return 1 if any(figures["problems"] for figures in found.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
