"""What the doctor does in a process of its own (``doctor --part NAME``): it starts a browser, and a server.

Each step is told at once as a line of JSON behind a mark; see programs.Part, which reads them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from .checkup import PACKAGE
from .programs import MARK


def run_part(name: str, config_path: Path | None, with_browser: bool) -> None:
    """Do one part to its end; whatever goes wrong is told."""
    if name == "browser":
        asyncio.run(_start_browser(config_path))
    else:
        asyncio.run(_start_for_real(config_path, with_browser))


def _tell(step: str, **facts: Any) -> None:
    sys.stdout.write(f"\n{MARK}{json.dumps({'step': step, **facts})}\n")
    sys.stdout.flush()


async def _start_browser(config_path: Path | None) -> None:
    from ...comfy_serverless import ConnectorConfig, ConnectorError, FrontendPage, RuntimeFolder, _browser_complaint

    class Page(FrontendPage):
        """Starts a browser as a conversion does, and remembers which did not."""

        #: (program, complaint) of what did not start
        failures: tuple[tuple[str, str], ...] = ()
        program = ""

        async def _launch_one(self, executable: str | None) -> Any:
            self.program = executable or self._playwright.chromium.executable_path
            try:
                return await super()._launch_one(executable)
            except Exception as error:
                self.failures = (*self.failures, (self.program, _browser_complaint(str(error))))
                raise

    config = ConnectorConfig.load(config_path)
    limit = min(config.CONVERSION_TIMEOUT, 30.0)
    config = dataclasses.replace(config, CONVERSION_TIMEOUT=limit, AUTO_INSTALL_BROWSER=False)
    folder = RuntimeFolder()
    page = Page(config, folder)
    problem, version = "", ""
    began = time.monotonic()
    try:
        folder.open()
        await page.open()
        version = page._browser.version
    except ConnectorError as error:
        problem = str(error)
    finally:
        seconds = time.monotonic() - began
        await page.close()
        folder.close()
    failures = page.failures
    _tell("browser", problem=problem, failures=failures, version=version, path=page.program, seconds=seconds)


async def _start_for_real(config_path: Path | None, with_browser: bool) -> None:
    from ...comfy_serverless import ConnectorConfig
    from ...discomfort import Discomfort

    config = dataclasses.replace(
        ConnectorConfig.load(config_path),
        USE_WARM_SERVER=False,
        STORE_CONVERSIONS=False,
        AUTO_INSTALL_BROWSER=False,
        CONVERSION_ATTEMPTS=1,
        MAX_COMFY_START_ATTEMPTS=3,
    )
    started: list[Discomfort] = []

    async def start() -> str:
        started.append(await Discomfort.create(config))
        return str(started[0].Worker.server_description)

    async def convert() -> str:
        workflow = json.loads((PACKAGE / "test_server.json").read_text(encoding="utf-8"))
        worker = started[0].Worker
        prompt = await worker.get_prompt_from_workflow(workflow)
        history = await worker.run_workflow(prompt, use_workflow_json=False)
        if not any(entry.get("outputs") for entry in history.values()):
            raise RuntimeError("the converted workflow ran without an output")
        return "test_server.json was converted and run"

    async def use_ports() -> str:
        return await _pass_through_ports(started[0])

    async def stop() -> str:
        await started[0].shutdown()
        return "the server ended, and nothing is left of it"

    try:
        if not await _step("start", start):
            return
        if with_browser:
            await _step("convert", convert)
        await _step("ports", use_ports)
        await _step("stop", stop)
    finally:
        if started:
            await started[0].shutdown()


async def _pass_through_ports(d: Any) -> str:
    """Send a value, too large for a message, into the server by one port, and get it back from another."""
    from ...workflow_context import WorkflowContext

    prompt = {
        "1": {"class_type": "DiscomfortPort", "inputs": {"unique_id": "sent", "tags": ""}},
        "2": {
            "class_type": "DiscomfortPort",
            "inputs": {"unique_id": "received", "tags": "", "input_data": ["1", 0]},
        },
    }
    value = os.urandom(2**20)
    with WorkflowContext() as context:
        result = await d.run([prompt], inputs={"sent": value}, context=context)
        if result["received"] != value:
            raise RuntimeError("what came back from the server is not what was sent")
        info = context.get_storage_info("received") or {}
    return f"1 MB went into the server and came back, by {'memory' if info.get('storage_type') == 'ram' else 'disk'}"


async def _step(name: str, work: Callable[[], Awaitable[str]]) -> bool:
    """Do one step and tell how it went; returns whether it worked."""
    began = time.monotonic()
    problem, found = "", ""
    try:
        found = await work()
    except Exception as error:
        problem = str(error) or type(error).__name__
    _tell(name, problem=problem, found=found, seconds=time.monotonic() - began)
    return not problem
