"""The servers the suite runs against: the embedded one, and the ComfyUI of COMFYUI_PATH where there is one.

Every test gets one ``server`` and knows nothing of which it is: what ComfyUI does is what a test states. Where versions
of ComfyUI differ, a test asks ``server.version``; where the embedded server differs on purpose, see ``differences.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from conformance import driver

KINDS = ["embedded", pytest.param("comfyui", marks=pytest.mark.real_comfyui)]


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., driver.Server]]:
    """``start_server(kind, *arguments)`` starts a server with the package of tiny nodes, in folders of its own.

    It is ready when this returns, and is stopped at the end of the session unless the test has stopped it.
    """
    started: list[driver.Server] = []

    def start(kind: str, *arguments: str) -> driver.Server:
        base = tmp_path_factory.mktemp(f"conformance-{kind}")
        driver.install_pack(base)
        driver.install_v3_packs(base)
        started.append(getattr(driver.Server, kind)(base, arguments))
        return asyncio.run(started[-1].wait_until_ready())

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """``"embedded"`` or ``"comfyui"``; skips the latter where COMFYUI_PATH names none."""
    if request.param == "comfyui":
        request.getfixturevalue("real_comfyui")
    return str(request.param)


@pytest.fixture(scope="session")
def server(kind: str, start_server: Callable[..., driver.Server]) -> driver.Server:
    """A server as a user starts it: ComfyUI's default cache. Shared by the tests, which leave it idle."""
    return start_server(kind)


@pytest.fixture(scope="session")
def lru_server(kind: str, start_server: Callable[..., driver.Server]) -> driver.Server:
    """A server that keeps the results of 100 nodes (``--cache-lru 100``)."""
    return start_server(kind, "--cache-lru", "100")


@pytest.fixture(scope="session")
def uncached_server(kind: str, start_server: Callable[..., driver.Server]) -> driver.Server:
    """A server that keeps nothing (``--cache-none``)."""
    return start_server(kind, "--cache-none")


@pytest_asyncio.fixture
async def client(server: driver.Server) -> AsyncIterator[Any]:
    """A client of ``server``, whose results of earlier tests are forgotten."""
    async with driver.connect(server) as client:
        await client.forget()
        yield client
