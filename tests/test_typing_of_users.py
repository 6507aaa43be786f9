"""What a type checker tells the users of the package: of right scripts nothing, of wrong ones the line.

mypy --strict reads the installed wheel, in a virtual environment of its own, not the clone: that shows that py.typed
and the annotations arrive. Nothing else is installed there, as reading torch would take a minute: its tensors are Any.
A line that has to be refused says with which code: ``# expect: arg-type``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import wheels

RIGHT = """
from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal

from discomfort import (
    BatchItem,
    BatchResult,
    Branch,
    ComfyConnector,
    ConnectorConfig,
    Discomfort,
    IterationFailure,
    Loop,
    PerIteration,
    PreflightError,
    Retry,
    RunChangedError,
    RunInterrupted,
    RunResult,
    WorkflowContext,
    WorkflowExecutionError,
    load_steps,
)


def amount(iteration: int, values: dict[str, Any]) -> float:
    return 0.1 * iteration


def watch(event: object) -> None:
    print(event)


def decide(failure: IterationFailure) -> Literal["skip", "retry"]:
    return "retry" if failure.attempts < 3 else "skip"


async def ask(failure: IterationFailure) -> Literal["stop", "skip"]:
    return "skip" if "blurred" in failure.message else "stop"


async def main() -> None:
    async with await Discomfort.create("server.json") as d:
        steps: list[Branch | Loop] = [
            Branch(lambda values: values["score"] > 0.5, then=["good.json"], otherwise=[Path("bad.json")]),
            Loop(["refine.json"], iterations=3, condition="amount < 1"),
        ]
        result: RunResult = await d.run(
            steps,
            inputs={"amount": PerIteration(amount), "seed": PerIteration([1, 2, 3])},
            iterations=3,
            loop_condition="iteration < 2",
            collect=["image"],
            progress=watch,
            checkpoint=Path("tonight"),
            retry=Retry(server=2),
        )
        await d.run(["a.json", Path("b.json"), {"nodes": []}, ("loop", ["c.json"], 3), *steps, *load_steps("d.json")])
        await d.run(["a.json"], {}, 1, True, WorkflowContext(), resume="force", keep="all", on_error=decide, retry=2)
        seen: list[object] = []
        await d.run(["a.json"], seed_policy="randomize", on_error=lambda failure: "skip", progress=seen.append)
        await d.run([Path("a.json")], loop_condition=lambda values: values["x"], on_error=ask, progress=False)
        text: str = result.record.summary()
        failures: list[IterationFailure] = []
        print(text, len(failures), result["image"])

        batch = d.run_batch(["upscale.json"], Path("photos"), checkpoint="upscaled")
        async for item in batch:
            one: BatchItem = item
            print(one.key, one.files["image"])
        d.run_batch(["upscale.json"], {"one": "a.png"}, key=str.lower, on_error="stop", seed_policy="fixed")
        d.run_batch(["upscale.json"], (name for name in ["a.png"]), pattern="**/*", input="image", retry_failed=False)
        done: BatchResult = await d.run_batch(["upscale.json"], [{"image": "a.png"}], checkpoint="more")
        print(done)

        with WorkflowContext() as context:
            context.save("image", 1)
            print(context.load("image"))
        d.Tools.save_comfy_image_to_disk(result["image"], "image.png")
        await d.Tools.run_sequential(load_steps("steps.json"), {}, 1)


async def connector_alone() -> None:
    config = ConnectorConfig(API_URL="127.0.0.1:8188")
    connector: ComfyConnector = await ComfyConnector.create(config)
    await (await Discomfort.create(config)).shutdown()
    try:
        print(await connector.run_workflow({}))
    except (WorkflowExecutionError, PreflightError, RunChangedError, RunInterrupted) as error:
        print(error)
    finally:
        await connector.kill_api()


asyncio.run(main())
"""

WRONG = """
import discomfort
from discomfort import ConnectorConfig, Discomfort, Loop, Retry, WorkflowContext
from discomfort import no_such_name  # expect: attr-defined

discomfort.no_such_name  # expect: attr-defined
ConnectorConfig(API_ULR="127.0.0.1:8188")  # expect: call-arg
ConnectorConfig(INITIAL_PORT="8188")  # expect: arg-type


async def watch(event: object) -> None: ...


def decide(failure: object) -> bool:
    return True


async def main() -> None:
    d = Discomfort.create()
    await d.run(["a.json"])  # expect: attr-defined
    d = await Discomfort.create(7)  # expect: assignment arg-type


async def more(d: Discomfort) -> None:
    await d.run(["a.json"], iterations="3")  # expect: arg-type
    await d.run("a.json", use_ram=1.5)  # expect: arg-type
    await d.run()  # expect: call-arg
    result = await d.run(["a.json"])
    result.recrod.summary()  # expect: attr-defined
    number: int = result.record.summary()  # expect: assignment
    for item in d.run_batch(["a.json"], []):  # expect: attr-defined
        print(item)
    async for row in d.run_batch(["a.json"], []):
        print(row.kye)  # expect: attr-defined
    Retry(attempts=2)  # expect: call-arg
    Loop(["a.json"], iterations="3")  # expect: arg-type
    WorkflowContext().save(3, "value")  # expect: arg-type
    d.Tools.no_such_method()  # expect: attr-defined
    await d.run(["a.json"], colect=["image"])  # expect: call-arg
    await d.run(["a.json", 3])  # expect: list-item
    await d.run(["a.json"], loop_condition=3)  # expect: arg-type
    await d.run(["a.json"], seed_policy="random")  # expect: arg-type
    await d.run(["a.json"], resume="forced")  # expect: arg-type
    await d.run(["a.json"], keep="everything")  # expect: arg-type
    await d.run(["a.json"], on_error="ignore")  # expect: arg-type
    await d.run(["a.json"], on_error=decide)  # expect: arg-type
    await d.run(["a.json"], progress=watch)  # expect: arg-type
    await d.Tools.run_sequential(["a.json"], seed_policy="random")  # expect: arg-type
    d.run_batch(["a.json"], [], colect=["image"])  # expect: call-arg
    d.run_batch(["a.json"], 3)  # expect: arg-type
    d.run_batch(["a.json"], [], on_error="retry")  # expect: arg-type
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel."""
    folder = tmp_path_factory.mktemp("typing")
    wheel = wheels.build_wheel(wheels.copy_clone(folder / "source"), folder)
    return wheels.make_environment(folder / "environment", wheel, with_developers=False)


def told(python: Path, script: Path) -> list[tuple[int, str, str]]:
    """(line, code, message) of each error that mypy --strict finds in a script."""
    words = ["--strict", "--python-executable", str(python), "--config-file", os.devnull, "--output", "json"]
    words += ["--cache-dir", str(script.parent / "cache"), str(script)]
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *words], cwd=script.parent, capture_output=True, text=True, check=False
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    messages = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    return [(one["line"], one["code"], one["message"]) for one in messages if one["severity"] == "error"]


def test_a_right_script_passes_and_wrong_lines_are_errors(python: Path, tmp_path: Path) -> None:
    # One folder and one cache for both: most of the time goes into reading the package.
    script = tmp_path / "right.py"
    script.write_text(RIGHT, encoding="utf-8")
    assert told(python, script) == []

    script = tmp_path / "wrong.py"
    script.write_text(WRONG, encoding="utf-8")
    expected = set()
    for number, line in enumerate(WRONG.splitlines(), 1):
        found = re.search(r"# expect: (.+)", line)
        expected |= {(number, code) for code in (found[1].split() if found else [])}
    errors = told(python, script)
    assert {(line, code) for line, code, _ in errors} == expected, errors


def test_every_public_name_has_a_type(python: Path, tmp_path: Path) -> None:
    # A name whose module is loaded on first use is typed by the imports for type checkers alone: one that is missing
    # there would be an error, and one whose type is Any would hide every mistake.
    code = "import discomfort; print(*discomfort.__all__)"
    names = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    script = tmp_path / "names.py"
    lines = [
        "from typing import Any, Callable",
        "import discomfort",
        "def refuse(value: Callable[[], None]) -> None: ...",
    ]
    lines += [f"_{name} = discomfort.{name}\nreveal_type(_{name})" for name in names.split()]
    script.write_text("\n".join(lines), encoding="utf-8")
    words = ["--strict", "--python-executable", str(python), "--config-file", os.devnull]
    words += ["--cache-dir", str(tmp_path / "cache"), str(script)]
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    types = re.findall(r'Revealed type is "(.*)"', run.stdout)
    assert len(types) == len(names.split()), run.stdout
    assert not [kind for kind in types if kind == "Any"], run.stdout
    assert run.returncode == 0, run.stdout
