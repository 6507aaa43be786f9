"""A server as its own command line starts it: nothing of the connector's is in between."""

from __future__ import annotations

import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
from discomfort.comfy_serverless import ServerChoice, has_gpu, port_is_free

# Seconds between two questions whether it answers: as often as ``create()`` asks.
_POLL = 0.04


class BareServer(NamedTuple):
    """A server that answers."""

    address: str
    # from spawning it to its first answer
    seconds: float
    process: subprocess.Popen[bytes]

    def resident_bytes(self) -> int:
        """The memory it holds, with what it shares with others."""
        return int(psutil.Process(self.process.pid).memory_info().rss)


@contextmanager
def started(choice: ServerChoice, arguments: Sequence[str] = ()) -> Iterator[BareServer]:
    """Start a server on a port and in a temp folder of its own, wait for /system_stats, and kill it at the end.

    Args:
        choice: which server; its own arguments come first.
        arguments: further ones.

    Raises:
        SystemExit: it ended before it answered.
    """
    port = next(p for p in range(18900, 19000) if port_is_free("127.0.0.1", p))
    with tempfile.TemporaryDirectory() as folder:
        command = [*choice.command, *choice.extra_args, "--port", str(port), "--disable-auto-launch", *arguments]
        command += ["--temp-directory", folder, "--database-url", f"sqlite:///{Path(folder) / 'comfyui.db'}"]
        command += [] if has_gpu() else ["--cpu"]
        # On a machine on which nothing of ours ever ran, the embedded server's folder is not there yet.
        choice.working_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=choice.working_directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while not _answers(port):
                if process.poll() is not None:
                    raise SystemExit(f"The server ended with status {process.returncode}: {command}")
                time.sleep(_POLL)
            yield BareServer(f"http://127.0.0.1:{port}", time.perf_counter() - begin, process)
        finally:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/system_stats", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
