"""Discomfort: the front door. Start it, run workflows, shut it down.

::

    async with await Discomfort.create() as d:
        result = await d.run(["refine.json"], inputs={"image": picture}, iterations=20)
        d.Tools.save_comfy_image_to_disk(result["image"], "refined.png")
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import runpy
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any


def _become_the_package() -> None:
    """Let ``import discomfort`` mean the package, although Python found this file.

    That happens where the search path begins with this folder: ``python -c`` or ``python -m`` in a clone. The import
    system hands out whatever stands in sys.modules once this file was executed.
    """
    here = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        __name__, here / "__init__.py", submodule_search_locations=[str(here)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = sys.modules[__name__] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)


if __name__ == "__main__":
    # `python -m discomfort` in a clone finds this file instead of the package, whose command line is meant.
    runpy.run_path(str(Path(__file__).with_name("__main__.py")), run_name="__main__")

if TYPE_CHECKING:
    from .batch import Batch
    from .control_flow import ConditionSpec, Step
    from .durable.retry import Retry
    from .progress_events import ProgressCallback
    from .run_request import Items, Keep, OnError, Resume, SeedPolicy

if TYPE_CHECKING or __package__:
    from .comfy_serverless import ComfyConnector, ConnectorConfig
    from .run_record import RunResult
    from .workflow_context import WorkflowContext
    from .workflow_tools import DiscomfortWorkflowTools
else:
    _become_the_package()
    WorkflowContext = None  # this module object is thrown away; the class below only has to be defined

log = logging.getLogger("discomfort.discomfort")


class Discomfort:
    """A nested ComfyUI server with everything around it. ``await Discomfort.create()`` makes one.

    Several instances of one process share the server; it is stopped when the last of them is shut down.
    """

    #: the class whose instances hold a run's data
    Context = WorkflowContext
    #: the server's connector
    Worker: ComfyConnector
    #: port discovery, stitching, images, run_sequential
    Tools: DiscomfortWorkflowTools
    _is_shut_down: bool
    _shutdown_lock: asyncio.Lock

    def __init__(self, *args: Any, **kwargs: Any):
        raise TypeError("Discomfort is created with: d = await Discomfort.create()")

    @classmethod
    async def create(cls, config_path: str | os.PathLike[str] | ConnectorConfig | None = None) -> Discomfort:
        """Start the nested server, or reuse the one that this process runs already, that is kept warm for these
        settings, or that API_URL names.

        Args:
            config_path: configuration of the server, see :class:`~.comfy_serverless.ConnectorConfig`.

        Raises:
            ConnectorError: what :meth:`ComfyConnector.create` raises: no server found, a start that failed, bad config.

        Cancelling is safe: a start that nobody waits for is undone.
        """
        worker = await ComfyConnector.create(config_path)
        self = object.__new__(cls)
        self.Worker = worker
        self.Tools = DiscomfortWorkflowTools(worker)
        self.Tools.keeps_memory = True
        self._is_shut_down = False
        self._shutdown_lock = asyncio.Lock()
        worker.users += 1
        return self

    async def run(
        self,
        workflows: Sequence[Step],
        inputs: Mapping[str, Any] | None = None,
        iterations: int = 1,
        use_ram: bool = True,
        context: WorkflowContext | None = None,
        *,
        loop_condition: ConditionSpec | None = None,
        collect: Iterable[str] = (),
        progress: ProgressCallback | bool | None = None,
        seed_policy: SeedPolicy = "as_saved",
        master_seed: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: Resume = True,
        keep: Keep = "needed",
        retry: Retry | int | None = None,
        on_error: OnError = "stop",
        max_server_ram_gb: float | None = None,
        max_vram_gb: float | None = None,
        hash_models: bool = False,
    ) -> RunResult:
        """Run workflows, in a loop: :meth:`DiscomfortWorkflowTools.run_sequential` on this instance's server.

        These are used most; run_sequential tells of all the others.

        Args:
            workflows: steps, run in this order: paths, workflow dicts, Branch, Loop.
            inputs: {unique_id: value} for INPUT ports; a value may be a PerIteration.
            iterations: how often the steps are run at most.
            loop_condition: port name, expression or function; where it is false, the loop ends.
            collect: unique_ids of OUTPUT ports whose value of every iteration is kept.
            checkpoint: folder in which the run is kept, so that the same call goes on after a crash.
            on_error: "stop", "skip" or a function: what happens when an iteration fails.

        Returns:
            ``{unique_id: value}`` of everything that OUTPUT ports delivered, with the run's record.

        Raises:
            RuntimeError: the instance was shut down. Else see run_sequential.
        """
        self._refuse_after_shutdown()
        return await self.Tools.run_sequential(
            workflows,
            inputs,
            iterations,
            use_ram,
            context,
            loop_condition=loop_condition,
            collect=collect,
            progress=progress,
            seed_policy=seed_policy,
            master_seed=master_seed,
            checkpoint=checkpoint,
            resume=resume,
            keep=keep,
            retry=retry,
            on_error=on_error,
            max_server_ram_gb=max_server_ram_gb,
            max_vram_gb=max_vram_gb,
            hash_models=hash_models,
        )

    def run_batch(
        self,
        workflows: Sequence[Step],
        items: Items,
        *,
        input: str | None = None,
        key: Callable[[Any], str | int] | None = None,
        pattern: str = "*",
        inputs: Mapping[str, Any] | None = None,
        iterations: int = 1,
        loop_condition: ConditionSpec | None = None,
        use_ram: bool = True,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: Resume = True,
        on_error: OnError = "skip",
        retry: Retry | int | None = None,
        retry_failed: bool = True,
        progress: ProgressCallback | bool | None = None,
        seed_policy: SeedPolicy = "as_saved",
        master_seed: int | None = None,
        max_server_ram_gb: float | None = None,
        max_vram_gb: float | None = None,
        hash_models: bool = False,
    ) -> Batch:
        """Run workflows on each of many items: :meth:`DiscomfortWorkflowTools.run_batch` on this instance's server.

        ::

            async for item in d.run_batch(["upscale.json"], Path("photos"), checkpoint="upscaled"):
                print(item.key, item.files["image"])

        These are used most; run_batch there tells of all the others.

        Args:
            workflows: steps, as of :meth:`run`.
            items: a folder of pictures, a list, a dict {key: item}, or an iterator.
            input: the port that items go to; None: the only one that has no other value.
            inputs: {unique_id: value} that all items share.
            checkpoint: folder in which what items deliver is saved as it appears; the same call again does the rest.

        Raises:
            RuntimeError: the instance was shut down. Else see run_batch there.
        """
        self._refuse_after_shutdown()
        return self.Tools.run_batch(
            workflows,
            items,
            input=input,
            key=key,
            pattern=pattern,
            inputs=inputs,
            iterations=iterations,
            loop_condition=loop_condition,
            use_ram=use_ram,
            checkpoint=checkpoint,
            resume=resume,
            on_error=on_error,
            retry=retry,
            retry_failed=retry_failed,
            progress=progress,
            seed_policy=seed_policy,
            master_seed=master_seed,
            max_server_ram_gb=max_server_ram_gb,
            max_vram_gb=max_vram_gb,
            hash_models=hash_models,
        )

    def _refuse_after_shutdown(self) -> None:
        if self._is_shut_down:
            raise RuntimeError("This Discomfort was shut down. Get a new one with: d = await Discomfort.create()")

    async def shutdown(self) -> None:
        """Stop the server, unless another instance uses it. Idempotent; safe after failures and from several tasks."""
        async with self._shutdown_lock:
            if self._is_shut_down:
                return
            self._is_shut_down = True
            self.Tools.release_memory()
            self.Worker.users -= 1
            if self.Worker.users <= 0:
                await self.Worker.kill_api()

    async def __aenter__(self) -> Discomfort:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        await self.shutdown()
