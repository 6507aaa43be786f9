"""An API of coroutines as plain functions, for nodes that are none (``comfy_api.internal.async_to_sync``)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import inspect
from collections.abc import Callable
from typing import Any

from .singleton import ProxiedSingleton


class AsyncToSyncConverter:
    """Runs coroutines in threads of their own: the caller's may have a loop that runs already."""

    _thread_pool: concurrent.futures.ThreadPoolExecutor | None = None

    @classmethod
    def get_thread_pool(cls, max_workers: int | None = None) -> concurrent.futures.ThreadPoolExecutor:
        """The threads, made by the first call."""
        if cls._thread_pool is None:
            cls._thread_pool = concurrent.futures.ThreadPoolExecutor(max_workers, thread_name_prefix="async_to_sync_")
        return cls._thread_pool

    @classmethod
    def run_async_in_thread(cls, coro_func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a coroutine function and wait for its result.

        It sees the caller's context variables: which node is running, for instance.
        """
        context = contextvars.copy_context()

        async def call() -> Any:
            return await coro_func(*args, **kwargs)

        return cls.get_thread_pool().submit(context.run, asyncio.run, call()).result()

    @classmethod
    def create_sync_class(cls, async_class: type, thread_pool_size: int = 10) -> Any:
        """A class whose instances are those of another one, with coroutines as plain methods.

        Attributes that are a :class:`ProxiedSingleton` are wrapped likewise.
        """
        cls.get_thread_pool(thread_pool_size)

        def create(self: Any, *args: Any, **kwargs: Any) -> None:
            self._async_instance = async_class(*args, **kwargs)

        looks = {"__doc__": async_class.__doc__, "__module__": async_class.__module__, "__init__": create}
        return type("ComfyAPISyncStub", (_SyncProxy,), looks)


class _SyncProxy:
    """Stands for an object whose coroutines are called as plain methods."""

    _async_instance: Any

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self._async_instance, name)
        if isinstance(value, ProxiedSingleton):
            proxy = _SyncProxy()
            proxy._async_instance = value
            return proxy
        if inspect.iscoroutinefunction(value):
            return functools.partial(AsyncToSyncConverter.run_async_in_thread, value)
        return value


create_sync_class = AsyncToSyncConverter.create_sync_class
