"""The data of one run: contexts, and the registry that finds one by its run_id in any process.

A context is a set of values under names (unique_ids). The orchestrator makes one and owns it; the nodes in the nested
server, another process, attach to it by its run_id and read and write the same values. The values are sealed objects
in shared memory and on disk (object_store/ has the format and the mechanics); nothing passes through JSON or HTTP.

Threat model
------------
Loading a value unpickles it, and unpickling is code execution. So the rule is: nothing is loaded that another user
could have written.

- The run's folders are made with mode 0700 under ``<name>-<uid>``. Before anything in them is used they are opened
  without following a symbolic link and checked through that descriptor: a folder, of this user, closed to others.
  Everything below is reached from that descriptor, never by path; each file is checked again (regular, of this user).
  A folder that somebody else has prepared is refused with an error, never repaired.
- A run_id has 128 random bits. Whoever passes one, a network peer or a workflow, can only name 32 hex digits: it is
  checked before a path is made of it. A key is hashed before it becomes a file name. A stub names a segment of its own
  run, and no path. The disk folder that run.json names is opened under the same checks as all others.
- Headers are checked (bounds, checksums) before anything is unpickled, so that a damaged file is an error, not a crash.
- Not protected against: other processes of the same user (they could attach with a debugger anyway), root, and other
  containers that run as the same uid *and* share /dev/shm or the temp folder with this one (``--ipc=host``).
- ``export_data`` writes a pickle with mode 0600 where the caller says. Loading such a file is the reader's risk.

Cleaning up
-----------
Only the owner deletes: at ``shutdown``, when the context is collected, at interpreter exit, after an exception and
after Ctrl-C. Where a process is killed, the next owner context of this user that starts, or ``sweep()``, removes the
run: the owner's lock is gone then, and that, not a process number, is the proof that it is dead.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import threading
import weakref
from types import TracebackType
from typing import Any, NamedTuple

from . import object_store
from .object_store import Roots, RunStore, RunSummary, StoreClosed, StoreError, UnknownKeyError, memory

logger = logging.getLogger("discomfort.workflow_context")

# Bytes in the unit of MAX_RAM_GB and of the *_gb figures.
GB = 2**30

_DEFAULT_CONFIG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "workflow_context.json")


class UnknownRunError(StoreError, KeyError):
    """No live context has the run_id. Unlike a bare KeyError it prints as a sentence."""

    def __str__(self) -> str:
        return str(self.args[0])


class ContextConfig(NamedTuple):
    """What workflow_context.json says."""

    # Share of the free RAM that a run may use, 0..100; it wins over max_ram_gb. None: not set.
    max_ram_percent: float | None = 50.0
    # GB (1024**3 bytes) of RAM that a run may use. None: not set.
    max_ram_gb: float | None = None
    # What the folders of runs begin with ("discomfort" makes discomfort-<uid>), or an absolute path, whose folder
    # then also takes the place of the system's temp folder.
    contexts_dir_name: str = "discomfort"


def load_config(config_path: str | os.PathLike[str] | None = None) -> ContextConfig:
    """Read a configuration file; a key that is not in it keeps its default.

    Args:
        config_path: the file; None for the workflow_context.json beside this module.

    Raises:
        FileNotFoundError: if the file that was named does not exist.
        ValueError: for a file that is not a JSON object, an unknown key, or a bad value; it names what is allowed.
    """
    path = _DEFAULT_CONFIG if config_path is None else os.fspath(config_path)
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError:
        if config_path is None:
            return ContextConfig()
        raise FileNotFoundError(f"the configuration file {path} does not exist") from None
    except ValueError as exc:
        raise ValueError(f"{path} is not JSON: {exc}") from exc
    if not isinstance(content, dict):
        raise ValueError(f"{path} has to hold a JSON object, not {type(content).__name__}")
    known = {name.upper(): name for name in ContextConfig._fields}
    for key in content:
        if key not in known:
            raise ValueError(f"{path}: unknown key {key!r}; known are {', '.join(known)}")
    values = {known[key]: value for key, value in content.items()}
    _check_number(path, "MAX_RAM_PERCENT", values.get("max_ram_percent"), 100)
    _check_number(path, "MAX_RAM_GB", values.get("max_ram_gb"), float("inf"))
    config = ContextConfig(**values)
    _split_dir_name(path, config.contexts_dir_name)
    return config


def _check_number(path: str, key: str, value: Any, most: float) -> None:
    if value is None:
        return
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= most:
        limits = f"from 0 to {most:g}" if most != float("inf") else "of at least 0"
        raise ValueError(f"{path}: {key} is {value!r}; allowed are numbers {limits}, and null for no limit")


def _split_dir_name(path: str, value: Any) -> tuple[str, str | None]:
    """Return (name, disk root or None) of a CONTEXTS_DIR_NAME."""
    if isinstance(value, str):
        folder, name = os.path.split(value)
        if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name) and name not in (".", ".."):
            if not folder:
                return name, None
            if os.path.isabs(value):
                return name, folder
    raise ValueError(
        f"{path}: CONTEXTS_DIR_NAME is {value!r}; allowed is a folder name of letters, digits and _ . - "
        f"(like 'discomfort'), or an absolute path that ends in one"
    )


def _find_roots(config: ContextConfig) -> object_store.Roots:
    name, disk = _split_dir_name("workflow_context.json", config.contexts_dir_name)
    return object_store.find_roots(name, disk)


def _ram_limit(config: ContextConfig, max_ram_gb: float | None, idle: int) -> int:
    """Return how many bytes of shared memory a run may take: what was asked for, at most what is free now.

    Args:
        idle: bytes that a lender has for it, which are as good as free.
    """
    if max_ram_gb is not None:
        _check_number("WorkflowContext", "max_ram_gb", max_ram_gb, float("inf"))
    free = memory.free_ram_bytes() + idle
    if max_ram_gb is not None:
        limit = max_ram_gb * GB
    elif config.max_ram_percent is not None:
        limit = free * config.max_ram_percent / 100
    elif config.max_ram_gb is not None:
        limit = config.max_ram_gb * GB
    else:
        limit = free
    return int(min(limit, free))


class WorkflowContext:
    """The values of one run, by unique_id, for all processes of this user that know its run_id.

    Use it as a context manager, or call ``shutdown``. All methods are synchronous and may be called from any thread;
    saving takes about as long as writing the bytes to memory, loading a tensor of any size takes under a millisecond.
    """

    def __init__(
        self,
        config_path: str | os.PathLike[str] | None = None,
        max_ram_gb: float | None = None,
        run_id: str | None = None,
        create: bool = True,
        lender: WorkflowContext | None = None,
    ) -> None:
        """Make a new context and own it, or attach to one.

        Args:
            config_path: a file like workflow_context.json; None for the one of this package.
            max_ram_gb: GB (1024**3 bytes) of shared memory that this run may use; None for what the configuration
                says. Either is bounded by the RAM and the shared memory that are free now. 0: everything to disk.
            run_id: 32 hex digits; None for a random one, which is what a new context should have.
            create: False to attach to the live context of ``run_id``, made in any process of this user. Limits come
                from its owner then.
            lender: a live context whose shared memory this one uses, and leaves there at its end. Memory that was used
                once is written several times faster than new memory; with a lender that outlives them, contexts that
                come one after the other have it too. It changes nothing else: no value is shared, and neither does
                any harm to the other by ending first.

        Raises:
            FileNotFoundError: create=False, and no live context has this run_id.
            FileExistsError: create=True, and one has it.
            ValueError: a run_id that cannot be one, or a bad configuration.
            PermissionError: the folder could have been written by another user; the message says what to do.
        """
        config = load_config(config_path)
        roots = _find_roots(config)
        if create:
            other: RunStore | None = None if lender is None else lender._store
            limit = _ram_limit(config, max_ram_gb, 0 if other is None else other.idle_bytes())
            self._store: RunStore = RunStore.create(roots, run_id, limit, other)
        elif run_id is None:
            raise ValueError("attaching (create=False) needs the run_id of the context")
        else:
            self._store = RunStore.attach(roots, run_id)
        self._finalizer = weakref.finalize(self, self._store.close)

    @property
    def run_id(self) -> str:
        """What names this context in every process: 32 hex digits."""
        return self._store.run_id

    @property
    def is_owner(self) -> bool:
        """Whether shutting this context down removes the run; False where it was attached, or inherited by fork."""
        return self._store.is_owner

    def is_alive(self) -> bool:
        """Tell whether the run still exists: neither shut down here nor removed by its owner."""
        return self._store.is_alive()

    def __repr__(self) -> str:
        state = "shut down" if self._store.is_closed else "owner" if self.is_owner else "attached"
        return f"<WorkflowContext {self.run_id} ({state})>"

    def save(
        self,
        unique_id: str,
        data: Any,
        use_ram: bool = True,
        pass_by: str = "val",  # noqa: S107 (no password)
        is_list: bool = False,
    ) -> None:
        """Store a value; it replaces the previous one as a whole, also for processes that load at this moment.

        Args:
            unique_id: any string.
            data: any value that pickle or cloudpickle can handle; tensors of every dtype, at any depth. It is copied.
            use_ram: False to store on disk although memory has room. Where memory has none, it goes to disk anyway,
                with one line in the log.
            pass_by: "val", or "ref" for a workflow recipe, which is a dict.
            is_list: the value is a list whose items ComfyUI hands to nodes one by one (what a node with OUTPUT_IS_LIST
                makes), rather than one value that happens to be a list.

        Raises:
            TypeError: if the value cannot be pickled (the message says where in it), is no dict with "ref", or no list
                with is_list.
            OSError: if neither memory nor disk can hold it; sizes and advice are in the message.
            RuntimeError: after shutdown, also the owner's.

        In each case the previous value is still there.
        """
        if pass_by not in ("val", "ref"):
            raise ValueError(f"pass_by is {pass_by!r}; allowed are 'val' and 'ref'")
        is_recipe = pass_by == "ref"  # noqa: S105 (no password)
        if is_recipe and not isinstance(data, dict):
            raise TypeError(f"{unique_id!r} is passed by 'ref': a recipe is a dict, not {type(data).__name__}")
        if is_list and not isinstance(data, list):
            raise TypeError(f"{unique_id!r} is saved with is_list: it is a {type(data).__name__}, not a list")
        self._store.put(unique_id, data, use_ram=use_ram, is_recipe=is_recipe, is_list=is_list)

    def load(self, unique_id: str) -> Any:
        """Return the value. It is the caller's own: writing into it, in place too, never changes what is stored.

        Tensors come back as tensors on the CPU, same dtype, shape and values. They lie in a private mapping of the
        stored bytes, so that this costs no copy until somebody writes.

        Raises:
            KeyError: names the key and lists those that exist.
            RuntimeError: after shutdown, also the owner's.
            StoreUnloadable: if this process lacks a class or package that the value needs.
        """
        return self._store.get(unique_id)

    def hold(self, unique_id: str) -> object_store.HeldObject:
        """Keep the present value for :meth:`restore`, whatever is saved under its name meanwhile.

        Takes constant time, whatever the size, and works for values that this process could not load. KeyError where
        there is none. The memory is freed when what is returned is dropped.
        """
        return self._store.hold(unique_id)

    def restore(self, held: object_store.HeldObject, use_ram: bool = True) -> None:
        """Save what :meth:`hold` kept under its name again, unless it is there still. Raises what load and save
        raise.
        """
        self._store.restore(held, use_ram=use_ram)

    def adopt(self, unique_id: str, held: object_store.HeldObject, use_ram: bool = True) -> None:
        """Save a copy of what :meth:`hold` kept, here or in another context, or of an object's file
        (``object_store.read_object``), under a name. Nothing is unpickled: content and digest are the same.

        Raises:
            OSError, RuntimeError: as :meth:`save`. StoreCorrupt: the object contradicts itself.
        """
        self._store.put_held(unique_id, held, use_ram=use_ram)

    def delete(self, unique_id: str) -> bool:
        """Remove a value; what was loaded stays valid. Returns whether there was one."""
        return self._store.delete(unique_id)

    def digest(self, unique_id: str) -> str:
        """Return what identifies the content, as "algorithm:hex"; reads only the header.

        Equal values have equal digests in every run and process (exceptions: object_store/), and different values
        different ones. A list whose items go one by one (``is_list``) is another value than the same list as a whole:
        its digest ends with "/items". KeyError where there is none.
        """
        info = self._store.info(unique_id)
        if info is None:
            raise self._store.unknown(unique_id)
        return info.content_id

    def __contains__(self, unique_id: object) -> bool:
        return isinstance(unique_id, str) and self._store.has(unique_id)

    def get_storage_info(self, unique_id: str) -> dict[str, Any] | None:
        """Tell where and how a value is stored, without loading it; None if there is none.

        Returns:
            ``storage_type`` "ram" or "disk"; ``size`` bytes of the stored object and ``data_size`` of what is in it;
            ``pass_by`` "val" or "ref"; ``is_list`` True, only where :meth:`save` was told so; ``shm_name`` (ram: path
            below the shared-memory filesystem) or ``path`` (disk); ``digest`` as :meth:`digest` tells it; ``created``
            seconds since the epoch; ``pid`` of the writer.
        """
        info = self._store.info(unique_id)
        if info is None:
            return None
        result = info.as_dict()
        if info.storage_type == "ram":
            result["shm_name"] = "/".join(info.path.split(os.sep)[-4:])
        else:
            result["path"] = info.path
        return result

    def list_keys(self) -> list[str]:
        """Return the unique_ids that have a value, sorted."""
        return self._store.list_keys()

    def get_usage(self) -> dict[str, Any]:
        """Count what the run occupies, over all processes.

        Returns:
            ram_usage_bytes, ram_capacity_bytes, ram_usage_gb, ram_capacity_gb (1024**3 bytes),
            temp_disk_usage_bytes, temp_disk_usage_mb (1024**2 bytes), stored_keys_count, ram_keys_count,
            disk_keys_count, disk_fallbacks (values that this process put on disk because memory had no room),
            ram_held_bytes (part of ram_usage_bytes: values that were replaced or deleted while some process still uses
            them), and ram_idle_bytes (not part of it: memory that waits to be written again, at most a quarter of the
            capacity; it goes back to the system when it is needed, and after a minute).
        """
        usage = self._store.usage()
        return {
            "ram_usage_bytes": usage.ram_bytes,
            "ram_capacity_bytes": usage.ram_capacity,
            "ram_usage_gb": usage.ram_bytes / GB,
            "ram_capacity_gb": usage.ram_capacity / GB,
            "temp_disk_usage_bytes": usage.disk_bytes,
            "temp_disk_usage_mb": usage.disk_bytes / 2**20,
            "stored_keys_count": usage.keys,
            "ram_keys_count": usage.ram_keys,
            "disk_keys_count": usage.disk_keys,
            "disk_fallbacks": usage.disk_fallbacks,
            "ram_held_bytes": usage.held_bytes,
            "ram_idle_bytes": usage.idle_bytes,
        }

    def export_data(self, unique_id: str, destination_path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Move a value out of the context into a cloudpickle file that needs nothing of this project to be read.

        The key leaves the context only when the file is safely on disk. A value that another process stores under the
        key meanwhile stays in the context.

        Args:
            unique_id: the value's name.
            destination_path: the file; folders are made. It gets mode 0600.
            overwrite: False to refuse where the file exists.

        Raises:
            KeyError: if there is no such value.
            FileExistsError: if the file exists and ``overwrite`` is False.
            TypeError: for a recipe (pass_by "ref"): it means nothing outside its run.
        """
        info = self._store.info(unique_id)
        if info is None:
            raise self._store.unknown(unique_id)
        if info.is_recipe:
            raise TypeError(
                f"{unique_id!r} is a recipe (pass_by 'ref'), not data: it cannot be exported; "
                f"export the outputs of a run that used it"
            )
        path = os.path.abspath(destination_path)
        if not overwrite and os.path.lexists(path):
            raise FileExistsError(f"{path} exists already; pass overwrite=True to replace it")
        value, token = self._store.fetch(unique_id)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _write_pickle(value, path, overwrite)
        self._store.delete(unique_id, token)

    def shutdown(self) -> None:
        """Free everything the run occupies, in memory and on disk; where attached, only let go of it. Idempotent.

        Values that were loaded stay valid. The context is taken out of the registry.
        """
        self._finalizer()
        _forget(self)

    def __enter__(self) -> WorkflowContext:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()


def _write_pickle(value: Any, path: str, overwrite: bool) -> None:
    """Pickle into a file that appears whole or not at all, and is on the disk when this returns."""
    import pickle
    import tempfile

    try:
        from cloudpickle import dump
    except ImportError:
        from pickle import dump
    folder, name = os.path.split(path)
    fd, temp = tempfile.mkstemp(prefix=f".{name[:64]}.", dir=folder)
    try:
        with open(fd, "wb") as file:
            dump(value, file, protocol=pickle.HIGHEST_PROTOCOL)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            os.replace(temp, path)
            return
        try:
            # Unlike a rename, a link never replaces what appeared meanwhile.
            os.link(temp, path)
        except FileExistsError:
            raise FileExistsError(f"{path} exists already; pass overwrite=True to replace it") from None
        except OSError:
            # A filesystem without links.
            os.rename(temp, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temp)
        _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    # Makes the file's name durable, not only its bytes. Windows cannot open a folder, and does not need to.
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


# --- the registry ---------------------------------------------------------------------------------------------------
#
# One per process, also where this package was loaded several times under different names (object_store.shared_module
# tells why). Values are WorkflowContexts, perhaps of another copy's class: only their public members are used.


class _Registry:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.contexts: dict[str, Any] = {}

    def renew_lock(self) -> None:
        # In a forked child: the thread that held it does not exist there.
        self.lock = threading.RLock()


def _registry() -> Any:
    shared = vars(object_store.shared_module())
    found = shared.get("registry")
    if found is None:
        found = shared.setdefault("registry", _Registry())
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=found.renew_lock)
    return found


def register_context(ctx: WorkflowContext) -> None:
    """Make a context known to this process by its run_id; one that was there under this run_id is replaced."""
    registry = _registry()
    with registry.lock:
        registry.contexts[ctx.run_id] = ctx


def unregister_context(run_id: str) -> None:
    """Forget a context; it is not shut down. Nothing happens where none is registered."""
    registry = _registry()
    with registry.lock:
        registry.contexts.pop(run_id, None)


def get_context(run_id: str) -> WorkflowContext:
    """Return the live context of a run_id: the registered one, else this process attaches to it.

    In the nested server this is how a node gets at the orchestrator's data; later calls return the same context.
    Contexts that were attached here and whose owner has shut down are let go of on the way.

    Raises:
        KeyError: if no live context has this run_id, or it cannot be one; the message names it.
    """
    registry = _registry()
    with registry.lock:
        found = registry.contexts.get(run_id) if isinstance(run_id, str) else None
        if found is not None and found.is_alive():
            context: WorkflowContext = found
            return context
        for old in [ctx for ctx in registry.contexts.values() if not ctx.is_alive()]:
            old.shutdown()
            registry.contexts.pop(old.run_id, None)
        try:
            context = WorkflowContext(run_id=run_id, create=False)
        except (ValueError, FileNotFoundError) as exc:
            raise UnknownRunError(f"there is no context for the run {run_id!r}: {exc}") from exc
        registry.contexts[run_id] = context
        return context


def _forget(ctx: WorkflowContext) -> None:
    registry = _registry()
    with registry.lock:
        if registry.contexts.get(ctx.run_id) is ctx:
            del registry.contexts[ctx.run_id]


def sweep(config_path: str | os.PathLike[str] | None = None) -> list[str]:
    """Remove the runs of this user whose owner died without shutting down, in memory and on disk.

    Every new context does this first. Runs whose owner lives are never touched.

    Returns:
        The paths of the folders that were removed.
    """
    return object_store.sweep(context_roots(config_path))


def list_contexts(config_path: str | os.PathLike[str] | None = None) -> list[RunSummary]:
    """Tell which runs of this user there are, live and dead, oldest first, in any process. Changes nothing.

    Args:
        config_path: as for WorkflowContext; runs of another CONTEXTS_DIR_NAME are not found.

    Returns:
        What the folders tell of each, as RunSummary of object_store. Folders that are refused are among them, with the
        reason in ``problem``. A run whose ``is_alive`` is False is what ``sweep`` would remove.
    """
    return object_store.list_runs(context_roots(config_path))


def context_roots(config_path: str | os.PathLike[str] | None = None) -> Roots:
    """Return where runs live with this configuration: object_store.Roots (shared memory, disk, folder name)."""
    return _find_roots(load_config(config_path))


__all__ = [
    "ContextConfig",
    "RunSummary",
    "StoreClosed",
    "StoreError",
    "UnknownKeyError",
    "UnknownRunError",
    "WorkflowContext",
    "context_roots",
    "get_context",
    "list_contexts",
    "load_config",
    "register_context",
    "sweep",
    "unregister_context",
]
