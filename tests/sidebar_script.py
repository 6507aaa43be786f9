"""A script of a user that uses Discomfort: a process that runs what it is told, for the tests of the editor's sidebar.

As a program it reads lines of JSON, {"number", "steps", "inputs", and other keywords of ``run``}, and writes one for
each run: {"number", and "values" or "error"}. :class:`Script` starts it and talks to it.
"""

from __future__ import annotations

import asyncio
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

# What its answers begin with, among everything else that a process writes.
_ANSWER = "sidebar_script: "
# Seconds.
_TIMEOUT = 120.0


class Script:
    """The process. It begins with its first run, and begins anew after it was killed."""

    def __init__(self, config: Path, log: Path) -> None:
        self._config = config
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._number = 0

    def run(self, steps: list[Any], inputs: dict[str, Any], **keywords: Any) -> None:
        """Begin a run; ``answer()`` waits for its end."""
        if self._process is not None and self._process.poll() is not None:
            self.kill()
        process = self._start()
        assert process.stdin is not None
        self._number += 1
        wanted = {"number": self._number, "steps": steps, "inputs": inputs, **keywords}
        process.stdin.write(json.dumps(wanted) + "\n")
        process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """What came of the run that was begun last."""
        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline:
            try:
                answer = self._answers.get(timeout=0.2)
                # Not that of a run whose test has failed.
                if answer.pop("number") == self._number:
                    return answer
            except queue.Empty:
                assert self._process is not None
                assert self._process.poll() is None, f"the script has ended:\n{self.log()}"
        raise AssertionError(f"the script did not answer within {_TIMEOUT:g} s:\n{self.log()}")

    def log(self) -> str:
        """What else it has written."""
        return self._log.read_text(errors="replace")[-5000:]

    def kill(self) -> None:
        """End it as the system does that is out of memory."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process = None

    def stop(self) -> None:
        """End it as it ends by itself, with its server."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
        self._process = None

    def _start(self) -> subprocess.Popen[str]:
        if self._process is None:
            with self._log.open("a") as log:
                self._process = subprocess.Popen(
                    [sys.executable, __file__, str(self._config)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
            threading.Thread(target=self._listen, args=[self._process], daemon=True).start()
        return self._process

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if line.startswith(_ANSWER):
                    self._answers.put(json.loads(line[len(_ANSWER) :]))


async def _main(config: str) -> None:
    from discomfort import Discomfort

    async with await Discomfort.create(config) as d:
        while line := await asyncio.to_thread(sys.stdin.readline):
            wanted = json.loads(line)
            number, steps, inputs = (wanted.pop(key) for key in ("number", "steps", "inputs"))
            if "picture" in inputs:
                inputs["picture"] = d.Tools.open_image_as_tensor(inputs["picture"])
            try:
                result = await d.run(steps, inputs=inputs, progress=False, **wanted)
                answer: dict[str, Any] = {"values": {key: one for key, one in result.items() if _is_plain(one)}}
            except Exception as e:
                answer = {"error": type(e).__name__}
            print(_ANSWER + json.dumps({"number": number, **answer}), flush=True)


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
