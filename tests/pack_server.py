"""A running Discomfort whose server has the pack of tests/run_packs, for the modules that test whole runs."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from discomfort import Discomfort

TESTS = Path(__file__).parent

#: the parameters of a fixture: the embedded server, and the ComfyUI that COMFYUI_PATH names
SERVERS = ["embedded", pytest.param("comfyui", marks=pytest.mark.real_comfyui)]


def server_path(server: str) -> str:
    """COMFYUI_PATH of one of SERVERS; skips where there is none."""
    path = "embedded" if server == "embedded" else os.environ.get("COMFYUI_PATH", "")
    if server != "embedded" and path in ("", "embedded"):
        pytest.skip("COMFYUI_PATH names no ComfyUI")
    return path


def pack_config(write_config: Callable[..., Path], folder: Path, path: str = "embedded", **keys: Any) -> Path:
    """A configuration whose server has the pack; *folder* gets the file that says where it is."""
    packs = folder / "packs.yaml"
    packs.write_text(json.dumps({"custom_nodes": {"base_path": str(TESTS), "custom_nodes": "run_packs"}}))
    command = f"python3 main.py --extra-model-paths-config '{packs}'"
    return write_config(COMFYUI_PATH=path, API_COMMAND_LINE=command, DEVICE="cpu", **keys)


@contextlib.contextmanager
def warm_config(write_config: Callable[..., Path], folder: Path) -> Iterator[Path]:
    """As `pack_config`, of a server that stays warm for the whole block, whoever uses it."""
    config = pack_config(write_config, folder)

    def server(*words: str) -> None:
        command = [sys.executable, "-m", "discomfort", "server", *words, "--config", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    server("start")
    try:
        yield config
    finally:
        server("stop", "--force")


def discomfort_fixture() -> Any:
    """``d = discomfort_fixture()`` in a module: a running Discomfort whose server has the pack, on each of SERVERS."""

    @pytest_asyncio.fixture(scope="module", loop_scope="module", params=SERVERS)
    async def d(
        request: pytest.FixtureRequest, write_config: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
    ) -> AsyncIterator[Discomfort]:
        config = pack_config(write_config, tmp_path_factory.mktemp("packs"), server_path(request.param))
        async with await Discomfort.create(config) as discomfort:
            yield discomfort

    return d
