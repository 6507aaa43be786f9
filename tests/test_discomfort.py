"""The front door: creating, sharing a server, shutting down."""

from __future__ import annotations

import asyncio
import inspect
import os
import tempfile
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from discomfort.durable import checkpoint
from discomfort.workflow_tools import DiscomfortWorkflowTools, WorkflowTools

from discomfort import ComfyConnector, Discomfort, WorkflowContext, run_request, seeds

pytestmark = pytest.mark.usefixtures("no_leaks")

# image -> 1 - image -> image
INVERT = {
    "1": {"class_type": "DiscomfortPort", "inputs": {"unique_id": "image", "tags": ""}},
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "DiscomfortPort", "inputs": {"unique_id": "image", "tags": "", "input_data": ["2", 0]}},
}


def picture(value: float = 0.25) -> torch.Tensor:
    return torch.full((1, 8, 8, 3), value)


def test_it_is_made_by_create_only() -> None:
    with pytest.raises(TypeError, match=r"await Discomfort\.create\(\)"):
        Discomfort()
    with pytest.raises(TypeError, match=r"await ComfyConnector\.create\(\)"):
        ComfyConnector()


async def test_it_offers_tools_worker_and_context(embedded_config: Path) -> None:
    async with await Discomfort.create(embedded_config) as d:
        assert isinstance(d.Tools, DiscomfortWorkflowTools)
        assert WorkflowTools is DiscomfortWorkflowTools
        assert isinstance(d.Worker, ComfyConnector)
        assert d.Context is WorkflowContext
        result = await d.run([INVERT], {"image": picture()}, 1, True, None)  # in the order of the contract
        assert isinstance(result, dict)
        assert torch.allclose(result["image"], 1 - picture())
    assert d.Worker.state == "killed"


async def test_shutting_down_twice_and_at_once_is_fine_and_running_afterwards_is_refused(embedded_config: Path) -> None:
    d = await Discomfort.create(embedded_config)
    await asyncio.gather(d.shutdown(), d.shutdown())
    await d.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        await d.run([INVERT], inputs={"image": picture()})


async def test_leaving_the_block_by_an_error_shuts_down(embedded_config: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with await Discomfort.create(embedded_config) as d:
            _ = 1 / 0
    assert d.Worker.state == "killed"


async def test_instances_share_the_server_until_the_last_is_shut_down(embedded_config: Path) -> None:
    first, second = await asyncio.gather(Discomfort.create(embedded_config), Discomfort.create(embedded_config))
    assert first.Worker is second.Worker
    await first.shutdown()
    assert torch.allclose((await second.run([INVERT], inputs={"image": picture()}))["image"], 1 - picture())
    await second.shutdown()
    assert second.Worker.state == "killed"


async def test_a_fresh_one_after_a_shutdown_works(embedded_config: Path) -> None:
    for _ in range(2):
        async with await Discomfort.create(embedded_config) as d:
            assert torch.allclose((await d.run([INVERT], inputs={"image": picture()}))["image"], 1 - picture())


def segment_inodes(root: str) -> set[int]:
    return {path.stat().st_ino for path in Path(root).glob("*/run-*/pool/*")}


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs shared memory")
async def test_runs_one_after_the_other_use_the_same_memory_until_the_shutdown(
    embedded_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="discomfort-test-", dir="/dev/shm") as root:
        monkeypatch.setenv("DISCOMFORT_RAM_ROOT", root)
        images = torch.full((4, 256, 256, 3), 0.25)
        segments: set[int] = set()
        async with await Discomfort.create(embedded_config) as d:
            for _ in range(6):
                result = await d.run([INVERT], inputs={"image": images})
                assert torch.allclose(result["image"], 1 - images)
                del result
                segments |= segment_inodes(root)
        # Each run stores an input and an output of 3 MB.
        assert 2 <= len(segments) <= 4
        assert os.listdir(root) == []


def test_scripts_may_call_asyncio_run_more_than_once(embedded_config: Path) -> None:
    async def main() -> Any:
        d = await Discomfort.create(embedded_config)  # never shut down: the end of the loop does it
        return (await d.run([INVERT], inputs={"image": picture()}))["image"]

    assert torch.equal(asyncio.run(main()), asyncio.run(main()))
    asyncio.run(end())


async def end() -> None:
    await (await ComfyConnector.create()).kill_api()


# ---- tools without a front door ----


async def test_runs_without_a_connector_share_a_server_and_the_last_one_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COMFYUI_PATH", "embedded")
    short, long = DiscomfortWorkflowTools(), DiscomfortWorkflowTools()
    results = await asyncio.gather(
        short.run_sequential([INVERT], inputs={"image": picture()}),
        long.run_sequential([INVERT], inputs={"image": picture()}, iterations=30),
    )
    assert torch.allclose(results[0]["image"], 1 - picture())
    assert torch.allclose(results[1]["image"], picture())
    assert not ComfyConnector.is_running()


async def test_a_server_that_somebody_created_survives_the_runs_on_it(embedded_config: Path) -> None:
    connector = await ComfyConnector.create(embedded_config)
    try:
        await DiscomfortWorkflowTools().run_sequential([INVERT], inputs={"image": picture()})
        assert connector.state == "ready"
    finally:
        await connector.kill_api()


# ------------------------------------------------------------------------------------------------------- its arguments


def arguments(function: Any) -> list[tuple[Any, ...]]:
    """(name, kind, default, annotation) of what a method takes; the steps have the name that the tools give them."""
    taken = list(inspect.signature(function).parameters.values())[1:]
    names = ["workflow_paths" if one.name == "workflows" else one.name for one in taken]
    return [(name, one.kind, one.default, one.annotation) for name, one in zip(names, taken, strict=True)]


def test_it_takes_what_the_tools_take() -> None:
    assert arguments(Discomfort.run) == arguments(DiscomfortWorkflowTools.run_sequential)
    assert arguments(Discomfort.run_batch) == arguments(DiscomfortWorkflowTools.run_batch)
    order = [name for name, kind, *_ in arguments(Discomfort.run) if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert order == ["workflow_paths", "inputs", "iterations", "use_ram", "context"]  # after the contract


class Noted:
    """Tools that note what they were called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    async def run_sequential(self, *words: Any, **control: Any) -> None:
        self.calls.append(("run_sequential", words, control))

    def run_batch(self, *words: Any, **control: Any) -> None:
        self.calls.append(("run_batch", words, control))


@pytest.mark.parametrize("name", ["run", "run_batch"])
async def test_every_argument_arrives_under_its_name(name: str) -> None:
    d: Any = object.__new__(Discomfort)
    d.Tools, d._is_shut_down = Noted(), False
    # The value of an argument says which one it is.
    given = {one: f"given as {one}" for one in list(inspect.signature(getattr(Discomfort, name)).parameters)[1:]}
    answer = getattr(d, name)(**given)
    if name == "run":
        await answer
    ((called, words, control),) = d.Tools.calls
    bound = inspect.signature(getattr(DiscomfortWorkflowTools, called)).bind(None, *words, **control).arguments
    assert bound.pop("workflow_paths") == given.pop("workflows")
    del bound["self"]
    assert bound == given


def test_an_argument_that_there_is_not_is_named() -> None:
    d: Any = object.__new__(Discomfort)
    with pytest.raises(TypeError, match="colect"):
        d.run([INVERT], colect=["image"])
    with pytest.raises(TypeError, match="colect"):
        d.run_batch([INVERT], [], colect=["image"])


def test_type_checkers_are_told_the_words_that_are_taken() -> None:
    assert get_args(run_request.SeedPolicy) == seeds.POLICIES
    assert get_args(run_request.Keep) == checkpoint.KEEP
    told = [kind for kind in get_args(run_request.Resume) if kind is not bool]
    assert [word for kind in told for word in get_args(kind)] == [
        one for one in checkpoint.RESUME if not isinstance(one, bool)
    ]


@pytest.mark.parametrize(
    ("argument", "allowed"),
    [
        ({"seed_policy": "random"}, "seed_policy is 'random'; it must be one of 'as_saved'"),
        ({"resume": "forced"}, "resume is 'forced'; it must be True, False or 'force'"),
        ({"keep": "everything"}, "keep is 'everything'; it must be 'needed' or 'all'"),
        ({"on_error": "ignore"}, "on_error is 'ignore'; it must be 'stop', 'skip' or a function"),
    ],
)
async def test_a_wrong_word_is_refused_with_those_that_there_are(argument: Any, allowed: str) -> None:
    with pytest.raises(ValueError, match=allowed):
        await DiscomfortWorkflowTools().run_sequential([INVERT], **argument)
