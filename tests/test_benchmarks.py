"""The benchmarks of the data path still run, compare bytes and say what they are meant to say. Times are not tested."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="benchmarks/store.py writes plain files with pwrite")

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
SHM = "/dev/shm" if os.path.isdir("/dev/shm") else None

WAYS = [
    "memcpy",
    "pwrite",
    "context, fresh",
    "context, steady",
    "cloudpickle",
    "safetensors",
    "Arrow IPC",
    "pwrite, disk",
    "context, disk",
    "base64",
]


@pytest.fixture(autouse=True)
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Folders in shared memory and on disk for this test alone; fails it if a benchmark leaves anything in them."""
    with tempfile.TemporaryDirectory(dir=SHM, prefix="discomfort-test-") as ram:
        disk = tmp_path / "disk"
        disk.mkdir()
        monkeypatch.setenv("DISCOMFORT_RAM_ROOT", ram)
        monkeypatch.setenv("DISCOMFORT_DISK_ROOT", str(disk))
        yield
        assert not [file for root in (Path(ram), disk) for file in root.rglob("*")]


def run(*words: str, cwd: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COMFYUI_PATH": "embedded"}
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout
    )


def tables(printed: str) -> list[list[list[str]]]:
    """The cells of all Markdown tables, without their heads."""
    found: list[list[list[str]]] = []
    previous = ""
    for line in printed.splitlines():
        if line.startswith("| ---"):
            found.append([])
        elif line.startswith("|") and previous.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        previous = line
    return found


def test_the_store_is_compared_with_all_other_ways_byte_by_byte(tmp_path: Path) -> None:
    words = [str(BENCHMARKS / "store.py"), "--sizes", "1", "--rounds", "1", "--json", "found.json"]
    done = run(*words, cwd=tmp_path)
    assert not done.stderr
    found: dict[str, Any] = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    of_size, goals = tables(done.stdout)
    assert [cells[0] for cells in of_size] == WAYS == list(found["sizes"]["1"]["rows"])
    assert all(float(cells[-1]) > 0 for cells in of_size)
    # Four round trips of the steady context, then every way, in a round that warms up and three that count.
    loads = 2 * (4 + 4 * len(WAYS))
    assert f"The bytes of {loads} loads were compared." in done.stdout
    assert re.search(r"Small dict: save \d+\.\d us, load \d+\.\d us", done.stdout)
    # Exit status and verdicts agree. What takes other sizes is said not to be measured, and counts as kept.
    verdicts = {cells[0]: cells[-1] for cells in goals}
    assert verdicts["context, steady: load, 1024 MB over 16 MB"] == "not measured"
    assert verdicts["small value: save"] != "not measured"
    assert done.returncode == ("**not kept**" in verdicts.values())
    assert [goal["is_kept"] for goal in found["goals"]] == [
        {"kept": True, "**not kept**": False, "not measured": None}[verdict] for verdict in verdicts.values()
    ]


@pytest.mark.parametrize("way", ["cloudpickle", "context, steady"])
def test_a_way_that_delivers_other_bytes_is_an_error_and_no_figure(way: str, tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); way = sys.argv.pop(1)\n"
        "import store, torch\n"
        "right = store.WAYS[way]\n"
        "def load(place):\n"
        "    tensor = right.load(place)\n"
        "    tensor.view(-1).view(torch.uint8)[-1] += 1\n"
        "    return tensor\n"
        "store.WAYS[way] = right._replace(load=load)\n"
        "store.main()\n"
    )
    done = run("-c", code, str(BENCHMARKS), way, "--sizes", "1", "--rounds", "1", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == f"{way}: this process read other bytes than were saved"
    assert not tables(done.stdout)


def test_a_size_that_memory_cannot_hold_is_left_out_and_said(tmp_path: Path) -> None:
    done = run(str(BENCHMARKS / "store.py"), "--sizes", "100000000", cwd=tmp_path)
    assert done.returncode == 1
    assert "100000000 MB: left out, it needs " in done.stdout
    assert not done.stderr


def test_a_value_is_passed_through_whole_runs_byte_by_byte(tmp_path: Path) -> None:
    words = ["--batch", "1", "--rounds", "1", "--iterations", "2", "--json", "found.json"]
    done = run(str(BENCHMARKS / "passthrough.py"), *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (cases,) = tables(done.stdout)
    names = ["same batch", "changed batch", "iteration, same batch", "iteration, changed batch"]
    assert [cells[0] for cells in cases] == names
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["bytes"] == 1024 * 1024 * 3 * 4
    assert list(found["seconds"]) == ["bare", "memcpy", *names]
    # In each of two rounds two runs with the same batch, and one of each other case.
    assert "The bytes of 10 results were compared." in done.stdout


def test_the_embedded_server_is_measured_alone_where_there_is_no_other(tmp_path: Path) -> None:
    done = run(str(BENCHMARKS / "embedded.py"), "2", "--json", "found.json", cwd=tmp_path)
    assert not done.stderr
    starts, memory, prompts, goals = tables(done.stdout)
    assert [cells[0] for cells in starts] == ["interpreter", "interpreter and torch", "embedded"]
    assert [cells[0] for cells in memory] == ["embedded"]
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert [cells[0] for cells in prompts] == list(found["prompts"])
    assert "3 nodes, changed" in found["prompts"]
    # A request that runs nothing is the baseline, and nothing is compared with what did not run.
    assert next(cells[-1] for cells in prompts if cells[0] == "GET /prompt") == "1.00"
    verdicts = {cells[0]: cells[-1] for cells in goals}
    assert verdicts["start, over ComfyUI's"] == "not measured"
    assert done.returncode == ("**not kept**" in verdicts.values())


def test_an_iteration_is_compared_with_the_bare_prompt_and_a_long_run_with_itself(tmp_path: Path) -> None:
    names = ["trivial", "nodes", "cached", "long"]  # all but the demo, which needs a browser
    only = [word for name in names for word in ("--only", name)]
    done = run(str(BENCHMARKS / "loop.py"), "--quick", "--json", *only, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    found = json.loads(done.stdout)
    assert found["goals"] == []  # nothing is judged where so few iterations are measured
    assert list(found["servers"]) == ["embedded"]
    server = found["servers"]["embedded"]
    assert list(server["cases"]) == names[:-1]
    for case in server["cases"].values():
        assert case["count"] == 4
        assert case["ratio"] == pytest.approx(case["run"] / case["bare"])
        assert all(case[name] > 0 for name in ("bare", "run", "transfer", "around"))
        assert case["server"] >= 0  # its clock counts whole milliseconds
    assert list(server["long"]) == ["run", "bare client"]
    for of in server["long"].values():
        assert of["count"] == 20
        assert of["ratio"] == pytest.approx(of["last"] / of["first"])
        assert list(of["memory"]) == ["orchestrator", "server", "shared"]
        assert of["memory"]["orchestrator"]["start"] > 1e7
        assert of["memory"]["server"]["start"] > 1e7
    if SHM is not None:
        assert server["long"]["run"]["memory"]["shared"]["start"] > 0


def test_iterations_are_told_by_name_and_goals_are_judged(tmp_path: Path) -> None:
    done = run(str(BENCHMARKS / "loop.py"), "10", "--only", "trivial", cwd=tmp_path)
    assert not done.stderr
    cases, goals = tables(done.stdout)
    assert [cells[0] for cells in cases] == ["3 nodes, changed"]
    assert [cells[0] for cells in goals] == ["embedded: 3 nodes, changed, over the bare prompt"]
    assert done.returncode == ("**not kept**" in [cells[-1] for cells in goals])


def test_a_run_is_killed_a_few_times_and_compared(tmp_path: Path) -> None:
    done = run(str(BENCHMARKS / "chaos.py"), "--quick", "--json", cwd=tmp_path, timeout=280)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert not done.stderr
    found = json.loads(done.stdout)
    assert list(found["servers"]) == ["embedded"]
    server = found["servers"]["embedded"]
    assert server["problems"] == []
    assert sum(server["kills"].values()) == 2
    assert server["executed"] == server["steps"] + server["repeated"] >= 10
    assert server["seconds"] > 0


def test_a_kept_loop_is_compared_with_one_that_is_not(tmp_path: Path) -> None:
    words = ["--quick", "--json", "--only", "1", "--only", "1-work", "--folder", str(tmp_path)]
    done = run(str(BENCHMARKS / "durability.py"), *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    cases = json.loads(done.stdout)["servers"]["embedded"]
    assert list(cases) == ["1", "1-work"]
    for case in cases.values():
        assert case["ratio"] == pytest.approx(case["kept"] / case["plain"])
        assert all(case[name] > 0 for name in ("plain", "kept", "checkpoint", "disk"))
        assert case["bytes"] > 990_000
        assert case["count"] == 2
    assert cases["1-work"]["plain"] > 0.5
    assert os.listdir(tmp_path) == ["disk"]  # the fixture's


def test_a_leak_is_kept_under_a_ceiling(tmp_path: Path) -> None:
    done = run(str(BENCHMARKS / "memory_ceiling.py"), "--quick", "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    figures = found["servers"]["embedded"]
    assert figures["counted"] == figures["iterations"] == 12
    assert figures["base"] < figures["highest"] <= figures["ceiling"]
    assert figures["restarted"] >= 1
    assert 0 < figures["recycle_seconds"] < figures["seconds"]
    assert all(goal["is_kept"] for goal in found["goals"])
    assert done.returncode == 0


def test_a_watched_loop_is_compared_with_one_that_nobody_sees(tmp_path: Path) -> None:
    done = run(str(BENCHMARKS / "observing.py"), "--quick", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cases = json.loads(done.stdout)["servers"]["embedded"]
    assert list(cases) == ["number", "1", "10"]
    for case in cases.values():
        assert case["count"] == 3
        assert all(case[kind] > 0 for kind in ("off", "nobody", "watched"))


def test_the_slope_of_memory_is_the_least_squares_one() -> None:
    code = (
        "import math, sys; sys.path.insert(0, sys.argv[1])\n"
        "from footprint import slope\n"
        "assert slope([(0.0, 5.0), (10.0, 25.0), (20.0, 45.0)]) == 2.0\n"
        "assert abs(slope([(0.0, 0.0), (1.0, 3.0), (2.0, 0.0)])) < 1e-12\n"
        "assert math.isnan(slope([(1.0, 1.0)]))\n"
    )
    done = run("-c", code, str(BENCHMARKS), cwd=BENCHMARKS)
    assert done.returncode == 0, done.stderr
